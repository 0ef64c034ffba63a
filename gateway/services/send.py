"""Accept a request: join the running verification or start a new one with its first attempt.

One operation: an expired verification still in the way is closed, limits are asked, rows are
written. The answer leaves after the commit, and only then is a provider called.

Over 400 lines: preparing, starting, joining and replacing are branches of one decision.
"""

import hmac
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

from gateway.domain import addresses, explanation, limits, repeat, verification, workflow
from gateway.domain.addresses import Address
from gateway.domain.delivery import Attempt, State
from gateway.domain.errors import Conflict, InvalidInput, Limited
from gateway.domain.explanation import Coming
from gateway.domain.identity import uuid7
from gateway.domain.keyring import NONCE_BYTES, SALT_BYTES, Keyring
from gateway.domain.policy import cool_key
from gateway.domain.recipient import Phone, country, mask
from gateway.domain.repeat import OnRepeat
from gateway.domain.templates import DEFAULT, Given
from gateway.domain.values import value
from gateway.domain.verification import Status, Verification
from gateway.domain.workflow import Plan, PlannedRoute, Send
from gateway.services import counting, limiting, linking, resend
from gateway.services.case import Case, Context, Note, code_of, reached
from gateway.services.limiting import Bill, Recipient
from gateway.services.metering import Held
from gateway.services.runtime import Chosen, Runtime, sealed
from gateway.store.ledger import Operation, Transaction, Wants
from gateway.store.records import Further, Source, StoredPlan, Way

_ENTROPY = 10 + NONCE_BYTES + SALT_BYTES
_MIN_LIFE = timedelta(seconds=verification.MIN_LIFE)
_FUTURES = 1000  # plans whose future is remembered


class Request(NamedTuple):
    """What a client asks for, its form already checked. `to`: the phone number, `others`: the
    recipient's other addresses, of distinct kinds; there is one address at least."""

    client_id: UUID
    to: Phone | None
    workflow: str | None = None
    channel: str | None = None
    code: str | None = None
    code_length: int = 6
    ttl: int = 300
    reference: str | None = None
    others: tuple[Address, ...] = ()
    template: str = DEFAULT
    locale: str | None = None
    given: Given | None = None  # what its text is filled with
    client_ip: str | None = None  # the person's, for limits; kept by its index alone
    on_repeat: OnRepeat = OnRepeat.JOIN
    named: AbstractSet[str] = frozenset()  # the fields the caller named itself
    trace: str | None = None  # the traceparent that its spans are to hang on

    @property
    def way(self) -> str | None:
        """The plan that is asked for by name."""
        return f"channel:{self.channel}" if self.channel is not None else self.workflow

    @property
    def counted(self) -> Recipient:
        """What limits go by."""
        if not self.others and self.to is not None:
            return Recipient(self.to.e164, (self.to.region,))
        numbers = addresses.numbers(_all(self))
        return Recipient(numbers[0] if numbers else None, tuple(map(country, numbers)))


class Sent(NamedTuple):
    """The verification as stored; `joined` when it was running before, and then `ignored` names the
    fields that had no effect."""

    verification: Verification
    plan: Plan
    attempts: tuple[Attempt, ...]
    joined: bool
    ignored: tuple[str, ...] = ()


@value
class Accept(Operation[Sent]):
    """Store this request. `prepared` holds all but what only the batch can know."""

    prepared: Verification
    plan: Plan
    stored_plan: StoredPlan
    own_code: str | None
    failures: tuple[bytes, ...]
    shown: str
    bill: Bill
    on_repeat: OnRepeat
    way: str | None  # the plan asked for by name, as `Plan.workflow`
    named: AbstractSet[str]
    further: tuple[Further, ...] = ()  # addresses besides the principal one


async def prepare(runtime: Runtime, request: Request, now: datetime) -> Accept:
    """The operation that accepts a request: all of it that only the batch can know is left out. The
    provider is called once the answer may leave.

    Raises InvalidInput (unknown workflow, channel or template, no address for any step, a text that
    cannot be filled, a plan longer than the code's life, a wrong `client_ip`), or Forbidden (its
    country).
    """
    chosen = _choose(runtime, request)
    late = workflow.too_late(chosen.plan, request.ttl) if request.ttl < chosen.life else None
    if late is not None:
        raise InvalidInput(
            "workflow_too_long",
            f"Step {late + 1} of the workflow could not start {verification.MIN_LIFE} s before the "
            f"code expires. Raise `ttl` or choose a shorter workflow.",
            facts={"step": late + 1, "ttl": request.ttl},
        )
    purpose = linking.purpose(runtime, request.template, request.given)
    prepared = _prepare(runtime, request, chosen.digest, now, purpose)
    if request.given is not None:
        prepared = linking.seal(runtime, prepared, request.given)
    further: tuple[Further, ...] = ()
    shown = ""
    counted: tuple[bytes, ...] = (prepared.recipient_index,)
    if request.others:
        further, shown, counted = _further(runtime.keyring, request, prepared, chosen.plan)
    elif request.to is not None:
        shown = mask(request.to.e164)
    return Accept(
        prepared=prepared,
        plan=chosen.plan,
        stored_plan=StoredPlan(chosen.digest, chosen.body, now),
        own_code=request.code,
        failures=failures_keys(request.client_id, counted),
        shown=shown,
        on_repeat=request.on_repeat,
        way=request.way,
        named=request.named,
        bill=await limiting.bill(
            runtime, prepared, request.counted, request.client_ip, now, indexes=counted
        ),
        further=further,
    )


def _choose(runtime: Runtime, request: Request) -> Chosen:
    region = request.to.region if request.to is not None else ""
    if not request.others:
        return runtime.choose(request.workflow, request.channel, region)
    kinds = tuple(sorted(address.kind for address in _all(request)))
    return runtime.choose(request.workflow, request.channel, region, kinds)


def _all(request: Request) -> tuple[Address, ...]:
    phone = () if request.to is None else (Address(addresses.PHONE, request.to.e164),)
    return phone + request.others


def _packed(keyring: Keyring, request: Request) -> tuple[bytes, bytes]:
    """The blind index of the principal address, and all of them as one value."""
    if not request.others and request.to is not None:  # most: a number alone
        number = request.to.e164
        return keyring.index(addresses.PHONE, number), number.encode()
    every = _all(request)
    index = keyring.index(*addresses.indexed(addresses.principal(every)))
    return index, addresses.pack(every)


def _further(
    keyring: Keyring, request: Request, prepared: Verification, plan: Plan
) -> tuple[tuple[Further, ...], str, tuple[bytes, ...]]:
    """The addresses besides the principal one, to be found by; the principal one masked; what is
    counted by."""
    every = _all(request)
    rows = tuple(
        Further(prepared.id, address.kind, keyring.index(*addresses.indexed(address)))
        for address in every
    )
    further = tuple(row for row in rows if row.recipient_index != prepared.recipient_index)
    counted = reached({row.kind: row.recipient_index for row in rows}, plan)
    return further, addresses.mask(addresses.principal(every).text), counted


def coming(runtime: Runtime, sent: Sent, now: datetime) -> Coming | None:
    """What the gateway will do next of itself.

    With its first attempt just on the wire, a verification of a plan has always the same future:
    when the patience ends, unless too little life is left by then. It is worked out once.
    """
    current, first, shut = sent.verification, sent.attempts[0], runtime.standing.shut
    usual = len(sent.attempts) == 1 and first.claimed(now) and first.state is State.QUEUED
    if shut or not usual:
        return explanation.coming(sent.plan, current, sent.attempts, now, shut=shut)
    in_time = current.expires_at - first.overdue_at >= _MIN_LIFE
    known = runtime.futures.get((current.plan, in_time))
    if known is None:
        known = explanation.coming(sent.plan, current, sent.attempts, now)
        if known is None:
            return None
        if len(runtime.futures) >= _FUTURES:
            runtime.futures.clear()
        runtime.futures[current.plan, in_time] = known
    at = current.expires_at if known.action == "expire" else first.overdue_at
    return Coming(known.action, at, known.channel)


def failures_key(client_id: UUID, recipient_index: bytes) -> bytes:
    """The key of the counter of wrong checks for a client and a number."""
    return limits.FAILURES + client_id.bytes + recipient_index


def failures_keys(client_id: UUID, indexes: Iterable[bytes]) -> tuple[bytes, ...]:
    """Those of a recipient that is counted under several."""
    return tuple([failures_key(client_id, index) for index in indexes])


def _prepare(
    runtime: Runtime, request: Request, plan: bytes, now: datetime, purpose: str
) -> Verification:
    keyring = runtime.keyring
    key_id = keyring.current
    random = runtime.entropy(_ENTROPY)
    named = uuid7(now, random[:10])
    index, packed = _packed(keyring, request)
    code_sealed = None
    if request.code is not None:
        nonce = runtime.entropy(NONCE_BYTES)
        owner = b"code" + named.bytes
        code_sealed = keyring.seal(key_id, request.code.encode(), owner=owner, nonce=nonce)
    return Verification(
        id=named,
        client_id=request.client_id,
        reference=request.reference,
        purpose=purpose,
        recipient_index=index,
        recipient_sealed=keyring.seal(
            key_id, packed, owner=named.bytes, nonce=random[10 : 10 + NONCE_BYTES]
        ),
        code_sealed=code_sealed,
        salt=random[-SALT_BYTES:],
        key_id=key_id,
        code_length=request.code_length,
        plan=plan,
        step=0,
        status=Status.PENDING,
        checks_used=0,
        checks_max=verification.MAX_CHECKS,
        sends_used=1,
        sends_max=verification.MAX_SENDS,
        created_at=now,
        sent_at=now,
        expires_at=now + timedelta(seconds=request.ttl),
        ended_at=None,
        wake_at=None,
        version=0,
        log=0,
        locale=request.locale,
        trace=request.trace,
    )


def wants(operation: Accept) -> Wants:
    """The running verification in its way, all counts it falls under, what does not reach it."""
    index, bill = (operation.prepared.recipient_index,), operation.bill
    every: tuple[bytes, ...] = index
    if operation.further:
        every += tuple(one.recipient_index for one in operation.further)
    counters = (*operation.failures, *bill.counters)
    return Wants(
        running=index,
        counters=counters,
        suppressed=every,
        tallies=bill.tallies,
        limited=bill.limited,
    )


def apply(tx: Transaction, context: Context, operation: Accept, now: datetime) -> Sent:
    """Join, refuse, replace, or start anew; what a limit refuses is left behind to be counted.

    Raises Limited (cool-down, sends, failure budget or another limit used up) or Conflict
    (`code_differs`, `workflow_differs`, `already_running`).
    """
    try:
        return _accept(tx, context, operation, now)
    except Limited as error:
        rule = error.facts.get("rule")
        if isinstance(rule, str):
            tx.after.append(Held(rule, "refused"))
        raise


def _accept(tx: Transaction, context: Context, operation: Accept, now: datetime) -> Sent:
    prepared = operation.prepared
    for key in operation.failures:
        limits.failures(tx.counter(key), now)
    running = tx.running(prepared.client_id, prepared.recipient_index, prepared.purpose)
    pending = running is not None and running.status_at(now) is Status.PENDING
    if running is not None and pending and not limits.ahead(running.created_at, now):
        return _repeat(Case(tx, context, running, tx.plans[running.plan], now), operation)
    limiting.cooled(tx, operation.bill, now)
    limiting.admit(tx, context, operation.bill, prepared, by=_opening(operation.plan), now=now)
    if running is not None:
        over = Case(tx, context, running, tx.plans[running.plan], now)
        if pending:  # made while the clock stood wrong: its times mean nothing
            over.end(Status.EXPIRED, Source.DEADLINE)
        over.decide()
        over.close()
    return _start(tx, context, operation, prepared, now)


def _repeat(case: Case, operation: Accept) -> Sent:
    """What the caller asked for in case one is running."""
    match operation.on_repeat:
        case OnRepeat.JOIN:
            return _join(case, operation)
        case OnRepeat.REFUSE:
            raise repeat.refuse(case.verification)
        case OnRepeat.REPLACE:
            fresh = repeat.replaced(case.verification, operation.prepared, case.now)
            opening = _opening(operation.plan)
            limiting.admit(case.tx, case.context, operation.bill, fresh, by=opening, now=case.now)
            case.end(Status.CANCELED, Source.CLIENT)
            case.close()
            return _start(case.tx, case.context, operation, fresh, case.now)


def _start(
    tx: Transaction, context: Context, operation: Accept, prepared: Verification, now: datetime
) -> Sent:
    plan, resolved = operation.plan, operation.stored_plan
    if prepared.created_at != now:
        prepared = _dated(prepared, now)
    reachable = plan
    if tx.avoids(prepared.recipient_index) or operation.further:
        own = {one.kind: one.recipient_index for one in operation.further}
        reachable = workflow.without(plan, partial(_against, tx, prepared.recipient_index, own))
    if reachable is not plan:
        chosen = sealed(reachable)
        plan, resolved = chosen.plan, StoredPlan(chosen.digest, chosen.body, now)
        prepared = prepared._replace(plan=chosen.digest)
    tx.put_plan(prepared.plan, plan, resolved)
    case = Case(tx, context, prepared, plan, now)
    case.decide()
    stored = case.close()
    if operation.further:
        tx.put_further(operation.further)
        _cool_down(case, operation)
    _note(case, operation, joined=False)
    return Sent(stored, case.plan, tuple(case.attempts), joined=False)


def _cool_down(case: Case, operation: Accept) -> None:
    """Whoever sends to a further address under another principal one finds no row that is running:
    a counter says that a code has left."""
    current = case.verification
    own = cool_key(current.client_id, current.recipient_index, current.purpose)
    keys = [key for key in operation.bill.cool if key != own]
    counting.cool_down(case.tx, keys, case.now)


def _dated(prepared: Verification, now: datetime) -> Verification:
    """With its life counted from the batch, as its first attempt's patience is: a step that may
    start at the last moment would come too late by what the request waited."""
    life = prepared.expires_at - prepared.created_at
    return prepared._replace(created_at=now, sent_at=now, expires_at=now + life)


def _against(
    tx: Transaction, index: bytes, own: Mapping[str, bytes], channel: str, route: PlannedRoute
) -> str | None:
    """What is believed against reaching the recipient over that route. `own`: the index of the
    address that only this channel uses."""
    believed = tx.suppression(
        Way(own.get(channel, index), channel, route.account, route.sender or "")
    )
    return believed.reason if believed is not None else None


def _join(case: Case, operation: Accept) -> Sent:
    """The person asked again: the same code, once more, when it is not too soon."""
    running, now = case.verification, case.now
    repeat.same_way(running, case.plan.workflow, operation.way)
    foreseen = resend.foreseen(case)
    if operation.own_code is not None and not _same_code(case, operation.own_code):
        raise Conflict(
            "code_differs",
            "A verification with another code is running for this number. Cancel it first, or "
            "send without `code` to join it.",
            facts={"verification_id": running.id},
        )
    by = _way(case.plan, foreseen) if isinstance(foreseen, Send) else _opening(case.plan)
    limiting.admit(case.tx, case.context, operation.bill, running, by=by, now=now)
    resend.once_more(case)
    stored = case.close()
    if operation.further:
        _cool_down(case, operation)
    _note(case, operation, joined=True)
    ignored = repeat.ignored(running, operation.prepared, operation.named)
    return Sent(stored, case.plan, tuple(case.attempts), joined=True, ignored=ignored)


def _opening(plan: Plan) -> limiting.Way:
    step = plan.steps[0]
    return limiting.Way(step.channel, step.routes[0].name)


def _way(plan: Plan, action: Send) -> limiting.Way:
    return limiting.Way(plan.steps[action.step].channel, action.route.name)


def _same_code(case: Case, own: str) -> bool:
    """Whether a caller's own code is the one it gave before. A code that we made is never compared:
    that is what checks are for, and they are counted.
    """
    if case.verification.code_sealed is None:
        return False
    running = code_of(case.context.keyring, case.verification)
    return hmac.compare_digest(own.encode(), running.encode())


def _note(case: Case, operation: Accept, *, joined: bool) -> None:
    current = case.verification
    facts = {
        "verification_id": current.id,
        "client_id": current.client_id,
        "recipient": operation.shown,
        "workflow": case.plan.workflow,
        "reference": current.reference,
        "channel": case.plan.steps[current.step].channel,
        "joined": joined,
    }
    case.tx.after.append(Note("verification_accepted", facts))
