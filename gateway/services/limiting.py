"""What a send is counted under, whether all of it allows one more, and the end of old counts.

`bill` works out the keys before the batch, `admit` asks and counts inside it: checks that refuse
come first and nothing is counted for a send that is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from gateway.domain import guard, limits
from gateway.domain import policy as policies
from gateway.domain.errors import Limited
from gateway.domain.guard import Guard, Mode, Seen, Verdict
from gateway.domain.keyring import Keyring
from gateway.domain.limits import Counter, Per, Rule
from gateway.domain.policy import Policy
from gateway.domain.spending import Spending, shown
from gateway.domain.verification import Verification
from gateway.services import counting
from gateway.services.case import Context, Note, address_for
from gateway.services.metering import Held
from gateway.services.runtime import Runtime
from gateway.store import tallies
from gateway.store.ledger import Operation, Transaction, Wants
from gateway.store.tallies import Tally

CHUNK = 2000  # rows swept in one commit
_ROUNDS = 50  # commits of one sweep


class Recipient(NamedTuple):
    """What of a recipient is counted by: the principal number, None where there is none, and the
    countries of all numbers, its own first."""

    number: str | None
    countries: tuple[str, ...]


class Charge(NamedTuple):
    """One rule and the key its count lies under; `reset`: when a window on the clock ends."""

    rule: Rule
    key: bytes
    reset: datetime | None = None


class Way(NamedTuple):
    """How the message would go: what it costs depends on it."""

    channel: str
    route: str


class Watched(NamedTuple):
    """A prefix or country as the guard looks at it: the keys of its window under way and, where it
    is judged, of its settled one."""

    scope: str
    key: bytes
    settled: bytes = b""


class Bill(NamedTuple):
    """All that one send is counted under."""

    cool: tuple[bytes, ...]
    numbers: tuple[Charge, ...] = ()
    wide: tuple[Charge, ...] = ()
    watched: tuple[Watched, ...] = ()
    began: datetime | None = None  # the guard's window under way
    judged: bool = False  # whether the guard may refuse it
    monitored: str | None = None  # a country whose sends are logged
    spend: tuple[bytes, ...] = ()

    @property
    def counters(self) -> list[bytes]:
        return [*self.cool, *[charge.key for charge in self.numbers]]

    @property
    def tallies(self) -> tuple[bytes, ...]:
        """The sums it must see; the guard looks at its own only where it may refuse."""
        if not (self.wide or self.judged):
            return self.spend
        judged = self.watched if self.judged else ()
        watched = [key for one in judged for key in (one.key, one.settled)]
        return (*(charge.key for charge in self.wide), *watched, *self.spend)

    @property
    def limited(self) -> tuple[bytes, ...]:
        """Those of the sums that may refuse it at a maximum: nodes decide on them in turn."""
        if not self.wide:
            return self.spend
        return (*(charge.key for charge in self.wide if not charge.rule.shadow), *self.spend)


async def bill(
    runtime: Runtime,
    prepared: Verification,
    to: Recipient,
    client_ip: str | None,
    now: datetime,
    *,
    indexes: Sequence[bytes],
) -> Bill:
    """What a send will be counted under: each address it may go to (`indexes`), and what is wider
    than one by the principal number. The countries of all numbers must be allowed.

    Raises Forbidden `country_refused`, InvalidInput `client_ip_invalid`.
    """
    policy = runtime.policy
    monitored = None
    for country in to.countries:
        if policy.countries.admit(country):
            monitored = country
    network = limits.network(client_ip) if client_ip is not None else None
    client_id, purpose = prepared.client_id, prepared.purpose
    cool = [policies.cool_key(client_id, one, purpose) for one in indexes]
    numbers = [
        Charge(rule, policies.number_key(rule, one)) for rule in policy.narrow for one in indexes
    ]
    wide: list[Charge] = []
    for rule in policy.wide:
        found = _charge(runtime.keyring, prepared, to, network, rule, now=now)
        if found is not None:
            wide.append(found)
    made = Bill(tuple(cool), tuple(numbers), tuple(wide), monitored=monitored)
    if policy.guard is not None:
        made = await _watch(runtime, policy.guard, made, to, now)
    if policy.spending is not None:
        key = policies.spend_key(policy.spending, prepared.client_id, now)
        made = made._replace(spend=(key,))
    return made


def _charge(
    keyring: Keyring,
    prepared: Verification,
    to: Recipient,
    network: str | None,
    rule: Rule,
    *,
    now: datetime,
) -> Charge | None:
    """Where a wide rule counts this send; None when it has nothing to count it by."""
    match rule.per:
        case Per.PREFIX:
            if to.number is None:
                return None
            subject = keyring.index("prefix", to.number[: 1 + rule.digits])
        case Per.COUNTRY:
            if to.number is None:
                return None
            subject = to.countries[0].encode()
        case Per.CLIENT:
            subject = prepared.client_id.bytes
        case _:
            if network is None:
                return None
            subject = keyring.index("ip", network)
    began = limits.opened(rule.window, now)
    reset = began + timedelta(seconds=rule.window)
    return Charge(rule, policies.wide_key(rule, subject, began), reset)


async def _watch(runtime: Runtime, rule: Guard, made: Bill, to: Recipient, now: datetime) -> Bill:
    if to.number is None:
        return made
    number, country = to.number, to.countries[0]
    began = guard.under_way(rule, now)
    scopes = guard.scopes(rule, number, country)
    watched = tuple([Watched(scope, policies.guard_key(scope, began)) for scope in scopes])
    made = made._replace(watched=watched, began=began)
    enforced = rule.mode is Mode.ENFORCE
    if not enforced or await runtime.passes.cover(runtime.engine, number, country, now):
        return made
    before = guard.settled(rule, now)
    judged = (one._replace(settled=policies.guard_key(one.scope, before)) for one in watched)
    return made._replace(watched=tuple(judged), judged=True)


def admit(
    tx: Transaction,
    context: Context,
    bill: Bill,
    current: Verification,
    *,
    by: Way,
    now: datetime,
) -> None:
    """Count one more send, of `current` by that way, or raise Limited and count nothing.

    Raises `limit_reached`, `pumping_suspected` or `spend_cap`. In shadow a rule only leaves a line
    in the log.
    """
    policy = context.policy
    for charge in (*bill.numbers, *bill.wide):
        _hold(tx, charge, current, now)
    if policy.guard is not None and bill.judged:
        _guard(tx, policy.guard, bill, now)
    if policy.spending is not None:
        _spend(tx, context, policy.spending, current, by=by, now=now)
    if bill.monitored is not None:
        tx.after.append(Note("country_monitored", _facts(current, country=bill.monitored)))
    _count(tx, policy, bill, now)


def cooled(tx: Transaction, bill: Bill, now: datetime) -> None:
    """Raise Limited `cool_down` when a verification that has just ended sent a code just now."""
    for left in map(tx.counter, bill.cool):
        if left is not None:
            limits.cool_down(left.since, now)


def _hold(tx: Transaction, charge: Charge, current: Verification, now: datetime) -> None:
    rule, counter = charge.rule, None
    if charge.reset is not None:
        used = tx.tallies.sum(charge.key).amount
    else:
        counter = limits.within(tx.counter(charge.key), rule.span, now)
        used = counter.count if counter is not None else 0
    if not limits.over(rule, used):
        return
    reset = charge.reset or (counter.since if counter is not None else now) + rule.span
    if not rule.shadow:
        raise limits.reached(rule, reset, now)
    facts = _facts(current, rule=rule.name, limit=rule.most, window=rule.window, used=used)
    tx.after.append(Note("limit_shadow", facts))
    tx.after.append(Held(rule.name, "shadow"))


def _guard(tx: Transaction, rule: Guard, bill: Bill, now: datetime) -> None:
    for one in bill.watched:
        settled, current = Seen(*tx.tallies.sum(one.settled)), Seen(*tx.tallies.sum(one.key))
        verdict = guard.judge(rule, one.scope, settled, current)
        if verdict is not None:
            raise _suspected(rule, one.scope, verdict, now)


def _suspected(rule: Guard, scope: str, verdict: Verdict, now: datetime) -> Limited:
    reset = guard.under_way(rule, now) + timedelta(seconds=rule.window)
    where = "prefix" if scope.startswith("+") else "country"
    refused = limits.refuse(
        "pumping_suspected",
        f"Too few of the codes sent to this {where} are ever typed. Try again in {{seconds}} s, "
        "or have the operator let it through: gateway guard allow.",
        "pumping",
        verdict.limit,
        rule.window,
        reset=reset,
        now=now,
    )
    refused.facts = {**refused.facts, "scope": where, "why": verdict.why}
    return refused


def _spend(
    tx: Transaction,
    context: Context,
    spending: Spending,
    current: Verification,
    *,
    by: Way,
    now: datetime,
) -> None:
    """Refuse before anything is stored; the estimate is counted where the message is claimed."""
    number = address_for(context.keyring, current, by.channel)
    price = counting.estimate(spending, by.route, number)
    if spending.shadow or counting.affords(tx, spending, current.client_id, price, now):
        return
    cap = spending.cap_of(current.client_id)
    reset = spending.resets_at(spending.day(now))
    refused = limits.refuse(
        "spend_cap",
        f"What this client may spend in a day ({shown(cap)} {spending.currency}) is spent. It "
        f"begins anew at {reset:%H}:00 UTC.",
        "spend",
        0,
        86_400,
        reset=reset,
        now=now,
    )
    refused.facts = {**refused.facts, "limit": shown(cap), "currency": spending.currency}
    raise refused


def _count(tx: Transaction, policy: Policy, bill: Bill, now: datetime) -> None:
    for rule, key, _ in bill.numbers:
        tx.put_counter(limits.count(tx.counter(key), key, rule.span, now))
    for rule, key, reset in bill.wide:
        if reset is not None:
            until = reset + rule.span
            tx.tallies.add(Tally(key, policy.node, 1, 0, until))
    if policy.guard is not None and bill.began is not None:
        until = guard.kept_until(policy.guard, bill.began)
        for one in bill.watched:
            tx.tallies.add(Tally(one.key, policy.node, 1, 0, until))


def _facts(current: Verification, **more: object) -> dict[str, object]:
    return {"verification_id": current.id, "client_id": current.client_id, **more}


# The end of old counts.


@dataclass(frozen=True, slots=True)
class Forget(Operation[None]):
    """Rows whose window is over, as they were read."""

    tallies: tuple[Tally, ...]
    counters: tuple[Counter, ...]


def wants_forget(operation: Forget) -> Wants:
    return Wants()


def apply_forget(tx: Transaction, context: Context, operation: Forget, now: datetime) -> None:
    """Take them away; a counter that was begun anew meanwhile stays."""
    tx.forget(operation.tallies, operation.counters)


async def sweep(runtime: Runtime, now: datetime) -> int:
    """Forget counts that nobody asks for any more, so that nothing grows with the number of
    numbers. How many rows.
    """
    swept = 0
    for _ in range(_ROUNDS):
        over = await tallies.past(runtime.engine, now, CHUNK)
        idle = await tallies.idle(runtime.engine, now - runtime.policy.longest, CHUNK)
        if not over and not idle:
            break
        await runtime.ledger.submit(Forget(over, idle))
        swept += len(over) + len(idle)
        if max(len(over), len(idle)) < CHUNK:
            break
    return swept
