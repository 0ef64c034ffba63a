"""What a send is counted under, whether all of it allows one more, and the end of old counts.

`bill` works out the keys before the batch, `admit` asks and counts inside it: checks that refuse
come first and nothing is counted for a send that is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from gateway.domain import guard, limits
from gateway.domain import policy as policies
from gateway.domain.errors import Limited
from gateway.domain.guard import Guard, Seen, Verdict
from gateway.domain.keyring import Keyring
from gateway.domain.limits import Counter, Per, Rule
from gateway.domain.policy import Policy
from gateway.domain.spending import Spending, shown
from gateway.domain.values import value
from gateway.domain.verification import Verification
from gateway.domain.workflow import PlannedRoute, PlannedStep
from gateway.services import counting
from gateway.services.case import Context, Note, address_for
from gateway.services.metering import Held
from gateway.services.runtime import Runtime
from gateway.store import tallies
from gateway.store.ledger import Operation, Transaction, Wants
from gateway.store.tallies import Tally

CHUNK = 2000  # rows swept in one commit
_ROUNDS = 50  # commits of one sweep


Recipient = tuple[str | None, tuple[str, ...]]
"""What of a recipient is counted by: the principal number, None where there is none, and the
countries of all numbers, its own first."""

Way = tuple[PlannedStep, PlannedRoute]
"""How the message would go: what it costs depends on it."""


class Charge(NamedTuple):
    """A rule about more than one number, the key its sum lies under, when its window ends."""

    rule: Rule
    key: bytes
    reset: datetime


class Judged(NamedTuple):
    """A prefix or country that the guard may refuse: the keys of its window under way and of its
    settled one."""

    scope: str
    key: bytes
    settled: bytes


@value
class Bill:
    """All that one send is counted under."""

    failures: tuple[bytes, ...]  # wrong checks
    cool: tuple[bytes, ...]
    numbers: tuple[tuple[Rule, bytes], ...]  # rules about a number with their keys
    counters: tuple[bytes, ...]  # all counts it must see
    watched: tuple[bytes, ...] = ()  # the guard's keys, of the window that began at `began`
    began: int = 0  # seconds since 1970
    tallies: tuple[bytes, ...] = ()  # the sums it must see; of the guard where it may refuse
    limited: tuple[bytes, ...] = ()  # which may refuse it at a maximum: nodes decide in turn
    wide: tuple[Charge, ...] = ()
    monitored: str | None = None  # a country whose sends are logged
    judged: tuple[Judged, ...] = ()  # where the guard may refuse it


def bill(
    runtime: Runtime,
    client_id: UUID,
    purpose: str,
    to: Recipient,
    indexes: Sequence[bytes],
    *,
    client_ip: str | None,
    now: datetime,
) -> Bill:
    """What a send will be counted under: each address it may go to (`indexes`), and what is wider
    than one by the principal number. The countries of all numbers must be allowed.

    Raises Forbidden `country_refused`, InvalidInput `client_ip_invalid`.
    """
    policy = runtime.policy
    failures: tuple[bytes, ...] = ()
    cool: tuple[bytes, ...] = ()
    for index in indexes:
        wrong, left = policies.own_keys(client_id, index, purpose)
        failures += (wrong,)
        cool += (left,)
    counters = failures + cool
    numbers: tuple[tuple[Rule, bytes], ...] = ()
    for rule in policy.narrow:
        for index in indexes:
            key = policies.number_key(rule, index)
            counters += (key,)
            numbers += ((rule, key),)
    number, countries = to
    if policy.guard is not None and number is not None:
        began = limits.opened_at(policy.guard.window, now)
        watched = policies.guard_keys(guard.scopes(policy.guard, number, countries[0]), began)
        made = Bill(failures, cool, numbers, counters, watched, began)
    else:
        made = Bill(failures, cool, numbers, counters)
    if policy.wider or client_ip is not None:
        made = _wider(runtime, made, client_id, to, client_ip=client_ip, now=now)
    return made


def _wider(
    runtime: Runtime,
    made: Bill,
    client_id: UUID,
    to: Recipient,
    *,
    client_ip: str | None,
    now: datetime,
) -> Bill:
    """With what is about more than one number: countries, wide rules, money."""
    policy = runtime.policy
    _, countries = to
    monitored = None
    for country in countries:
        if policy.countries.admit(country):
            monitored = country
    network = limits.network(client_ip) if client_ip is not None else None
    charges = [
        _charge(runtime.keyring, client_id, to, network, rule, now=now) for rule in policy.wide
    ]
    wide = tuple([charge for charge in charges if charge is not None])
    spend: tuple[bytes, ...] = ()
    if policy.spending is not None:
        spend = (policies.spend_key(policy.spending, client_id, now),)
    return replace(
        made,
        wide=wide,
        tallies=(*[charge.key for charge in wide], *spend),
        limited=(*[charge.key for charge in wide if not charge.rule.shadow], *spend),
        monitored=monitored,
    )


async def judged(runtime: Runtime, made: Bill, to: Recipient, now: datetime) -> Bill:
    """The same where the guard may refuse it, unless an operator lets the number through."""
    number, countries = to
    rule = runtime.policy.guard
    if rule is None or number is None:
        return made
    country = countries[0]
    if await runtime.passes.cover(runtime.engine, number, country, now):
        return made
    scopes, before = guard.scopes(rule, number, country), guard.settled(rule, now)
    keys = zip(scopes, made.watched, strict=True)
    found = [Judged(scope, key, policies.guard_key(scope, before)) for scope, key in keys]
    seen = [key for one in found for key in (one.key, one.settled)]
    return replace(made, judged=tuple(found), tallies=(*made.tallies, *seen))


def _charge(
    keyring: Keyring,
    client_id: UUID,
    to: Recipient,
    network: str | None,
    rule: Rule,
    *,
    now: datetime,
) -> Charge | None:
    """Where a wide rule counts this send; None when it has nothing to count it by."""
    number, countries = to
    match rule.per:
        case Per.PREFIX:
            if number is None:
                return None
            subject = keyring.index("prefix", number[: 1 + rule.digits])
        case Per.COUNTRY:
            if number is None:
                return None
            subject = countries[0].encode()
        case Per.CLIENT:
            subject = client_id.bytes
        case _:
            if network is None:
                return None
            subject = keyring.index("ip", network)
    began = limits.opened(rule.window, now)
    reset = began + timedelta(seconds=rule.window)
    return Charge(rule, policies.wide_key(rule, subject, began), reset)


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
    counted = _one_more(tx, bill, current, now)
    for rule, key, reset in bill.wide:
        used = tx.tallies.sum(key).amount
        if limits.over(rule, used):
            _hold(tx, rule, used, reset, current, now=now)
    if policy.guard is not None and bill.judged:
        _guard(tx, policy.guard, bill, now)
    if policy.spending is not None:
        _spend(tx, context, policy.spending, current, by=by, now=now)
    if bill.monitored is not None:
        tx.after.append(Note("country_monitored", _facts(current, country=bill.monitored)))
    _count(tx, policy, bill, counted)


def _one_more(tx: Transaction, bill: Bill, current: Verification, now: datetime) -> list[Counter]:
    """The counts of a number with this send."""
    counted = []
    for rule, key in bill.numbers:
        counter = limits.count(tx.counter(key), key, rule.span, now)
        used = counter.count - 1
        if limits.over(rule, used):
            _hold(tx, rule, used, counter.since + rule.span, current, now=now)
        counted.append(counter)
    return counted


def cooled(tx: Transaction, bill: Bill, now: datetime) -> None:
    """Raise Limited `cool_down` when a verification that has just ended sent a code just now."""
    for key in bill.cool:
        left = tx.counter(key)
        if left is not None:
            limits.cool_down(left.since, now)


def _hold(
    tx: Transaction,
    rule: Rule,
    used: int,
    reset: datetime,
    current: Verification,
    *,
    now: datetime,
) -> None:
    """What a rule does that is over."""
    if not rule.shadow:
        raise limits.reached(rule, reset, now)
    facts = _facts(current, rule=rule.name, limit=rule.most, window=rule.window, used=used)
    tx.after.append(Note("limit_shadow", facts))
    tx.after.append(Held(rule.name, "shadow"))


def _guard(tx: Transaction, rule: Guard, bill: Bill, now: datetime) -> None:
    for one in bill.judged:
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
    step, route = by
    number = address_for(context.keyring, current, step.channel)
    price = counting.estimate(spending, route.name, number)
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


def _count(tx: Transaction, policy: Policy, bill: Bill, counted: Sequence[Counter]) -> None:
    for counter in counted:
        tx.put_counter(counter)
    for rule, key, reset in bill.wide:
        tx.tallies.add(Tally(key, policy.node, 1, 0, reset + rule.span))
    if policy.guard is not None and bill.watched:
        for key in tx.tallies.one_more(bill.watched):
            until = guard.kept_until(policy.guard, datetime.fromtimestamp(bill.began, UTC))
            tx.tallies.add(Tally(key, policy.node, 1, 0, until))


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
