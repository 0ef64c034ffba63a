"""Accept a request: join the running verification or start a new one with its first attempt.

One operation: an expired verification still in the way is closed, limits are asked, rows are
written. The answer leaves after the commit, and only then is a provider called.

Over 400 lines: preparing, starting, joining and replacing are branches of one decision.
"""

import hmac
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from functools import partial
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
_NUMBER = (addresses.PHONE,)
_NOBODY = Phone("", "")  # where only other addresses are given
_QUEUED, _PENDING = State.QUEUED, Status.PENDING  # from their classes they would cost five times
_FUTURES = 1000  # plans whose future is remembered


@value
class Request:
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


@value
class Sent:
    """The verification as stored; `joined` when it was running before, and then `ignored` names the
    fields that had no effect."""

    verification: Verification
    plan: Plan
    attempts: tuple[Attempt, ...]
    joined: bool = False
    ignored: tuple[str, ...] = ()


@value
class Accept(Operation[Sent]):
    """Store this request. All of it that only the batch can know is left out."""

    request: Request
    chosen: Chosen
    id: UUID  # of the verification that starts
    purpose: str
    index: bytes  # of the principal address
    recipient_sealed: bytes
    code_sealed: bytes | None
    params_sealed: bytes | None
    salt: bytes
    key_id: str
    shown: str
    bill: Bill
    further: tuple[Further, ...] = ()  # addresses besides the principal one


async def prepare(runtime: Runtime, request: Request, now: datetime) -> Accept:
    """The operation that accepts a request. The provider is called once the answer may leave.

    Raises InvalidInput (unknown workflow, channel or template, no address for any step, a text that
    cannot be filled, a plan longer than the code's life, a wrong `client_ip`), or Forbidden (its
    country).
    """
    number, region = request.to or _NOBODY
    every = _all(request) if request.others else ()  # of most it is a number alone
    kinds = tuple(sorted(address.kind for address in every)) if every else _NUMBER
    chosen = runtime.choose(request.workflow, request.channel, region, kinds)
    if request.ttl < chosen.life:
        _in_time(chosen.plan, request.ttl)
    purpose = linking.purpose(runtime, request.template, request.given)
    keyring = runtime.keyring
    key_id = keyring.current
    random = runtime.entropy(_ENTROPY)
    named = uuid7(now, random)
    further: tuple[Further, ...] = ()
    if every:
        index, packed, shown, counted = _principal(keyring, every)
        further, reached_by = _further(keyring, every, named, index, chosen.plan)
    else:
        index, packed = keyring.index(addresses.PHONE, number), number.encode()
        shown, counted, reached_by = mask(number), (number, (region,)), (index,)
    nonce, owner = random[10 : 10 + NONCE_BYTES], named.int.to_bytes(16)
    recipient_sealed = keyring.seal(key_id, packed, owner=owner, nonce=nonce)
    code_sealed = _seal_code(runtime, key_id, named, request.code)
    given = request.given
    params_sealed = None if given is None else linking.seal(runtime, key_id, named, given)
    client_id, client_ip = request.client_id, request.client_ip
    bill = limiting.bill(
        runtime, client_id, purpose, counted, reached_by, client_ip=client_ip, now=now
    )
    if runtime.policy.judges:
        bill = await limiting.judged(runtime, bill, counted, now)
    # In the order of its fields: to name a dozen where a class is called takes as long as all else.
    return Accept(
        request,
        chosen,
        named,
        purpose,
        index,
        recipient_sealed,
        code_sealed,
        params_sealed,
        random[-SALT_BYTES:],
        key_id,
        shown,
        bill,
        further,
    )


def _in_time(plan: Plan, ttl: int) -> None:
    """Raise InvalidInput `workflow_too_long` where a step would come too late."""
    late = workflow.too_late(plan, ttl)
    if late is not None:
        raise InvalidInput(
            "workflow_too_long",
            f"Step {late + 1} of the workflow could not start {verification.MIN_LIFE} s before the "
            f"code expires. Raise `ttl` or choose a shorter workflow.",
            facts={"step": late + 1, "ttl": ttl},
        )


def _seal_code(runtime: Runtime, key_id: str, named: UUID, code: str | None) -> bytes | None:
    """A caller's own code; None where it is ours, which is derived."""
    if code is None:
        return None
    nonce = runtime.entropy(NONCE_BYTES)
    return runtime.keyring.seal(key_id, code.encode(), owner=b"code" + named.bytes, nonce=nonce)


def _all(request: Request) -> tuple[Address, ...]:
    phone = () if request.to is None else (Address(addresses.PHONE, request.to.e164),)
    return phone + request.others


def _principal(keyring: Keyring, every: tuple[Address, ...]) -> tuple[bytes, bytes, str, Recipient]:
    """The blind index of the principal address, all of them as one value, the principal one masked,
    and what limits go by."""
    principal, numbers = addresses.principal(every), addresses.numbers(every)
    index = keyring.index(*addresses.indexed(principal))
    counted = numbers[0] if numbers else None, tuple(map(country, numbers))
    return index, addresses.pack(every), addresses.mask(principal.text), counted


def _further(
    keyring: Keyring, every: tuple[Address, ...], named: UUID, principal: bytes, plan: Plan
) -> tuple[tuple[Further, ...], tuple[bytes, ...]]:
    """The addresses besides the principal one, to be found by; what is counted by."""
    rows = tuple(
        Further(named, address.kind, keyring.index(*addresses.indexed(address)))
        for address in every
    )
    further = tuple(row for row in rows if row.recipient_index != principal)
    return further, reached({row.kind: row.recipient_index for row in rows}, plan)


def coming(runtime: Runtime, sent: Sent, now: datetime) -> Coming | None:
    """What the gateway will do next of itself.

    With its first attempt just on the wire, a verification of a plan has always the same future:
    when the patience ends, unless too little life is left by then. It is worked out once.
    """
    current, attempts, shut = sent.verification, sent.attempts, runtime.standing.shut
    first = attempts[0]
    usual = len(attempts) == 1 and first.state is _QUEUED and first.claimed(now)
    if shut or not usual:
        return explanation.coming(sent.plan, current, attempts, now, shut=shut)
    plan, expires_at, overdue_at = current.plan, current.expires_at, first.overdue_at
    in_time = expires_at - overdue_at >= _MIN_LIFE
    known = runtime.futures.get((plan, in_time))
    if known is None:
        known = explanation.coming(sent.plan, current, attempts, now)
        if known is None:
            return None
        if len(runtime.futures) >= _FUTURES:
            runtime.futures.clear()
        runtime.futures[plan, in_time] = known
    at = expires_at if known.action == "expire" else overdue_at
    return Coming(known.action, at, known.channel)


def _fresh(operation: Accept, now: datetime) -> Verification:
    """The verification that starts. Its life counts from the batch, as its first attempt's patience
    does: a step that may start at the last moment would come too late by what the request waited.
    """
    request = operation.request
    return Verification(  # in the order of its fields: by name they take four times as long
        operation.id,
        request.client_id,
        request.reference,
        operation.purpose,
        operation.index,
        operation.recipient_sealed,
        operation.code_sealed,
        operation.salt,
        operation.key_id,
        request.code_length,
        operation.chosen.digest,
        0,  # step
        _PENDING,
        0,  # checks_used
        verification.MAX_CHECKS,
        1,  # sends_used
        verification.MAX_SENDS,
        now,  # created_at
        now,  # sent_at
        now + timedelta(seconds=request.ttl),  # expires_at
        None,  # ended_at
        None,  # wake_at
        0,  # version
        0,  # log
        request.locale,
        operation.params_sealed,
        request.trace,
    )


def wants(operation: Accept) -> Wants:
    """The running verification in its way, all counts it falls under, what does not reach it."""
    index, bill = (operation.index,), operation.bill
    every: tuple[bytes, ...] = index
    if operation.further:
        every += tuple(one.recipient_index for one in operation.further)
    return Wants((), (), (), index, bill.counters, bill.tallies, bill.limited, every)


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
    for key in operation.bill.failures:
        wrong = tx.counter(key)
        if wrong is not None:
            limits.failures(wrong, now)
    running = tx.running(operation.request.client_id, operation.index, operation.purpose)
    pending = running is not None and running.status_at(now) is _PENDING
    if running is not None and pending and not limits.ahead(running.created_at, now):
        return _repeat(Case(tx, context, running, tx.plans[running.plan], now), operation)
    limiting.cooled(tx, operation.bill, now)
    fresh, opening = _fresh(operation, now), _opening(operation.chosen.plan)
    limiting.admit(tx, context, operation.bill, fresh, by=opening, now=now)
    if running is not None:
        over = Case(tx, context, running, tx.plans[running.plan], now)
        if pending:  # made while the clock stood wrong: its times mean nothing
            over.end(Status.EXPIRED, Source.DEADLINE)
        over.decide()
        over.close()
    return _start(tx, context, operation, fresh, now)


def _repeat(case: Case, operation: Accept) -> Sent:
    """What the caller asked for in case one is running."""
    match operation.request.on_repeat:
        case OnRepeat.JOIN:
            return _join(case, operation)
        case OnRepeat.REFUSE:
            raise repeat.refuse(case.verification)
        case OnRepeat.REPLACE:
            fresh = repeat.replaced(case.verification, _fresh(operation, case.now), case.now)
            opening = _opening(operation.chosen.plan)
            limiting.admit(case.tx, case.context, operation.bill, fresh, by=opening, now=case.now)
            case.end(Status.CANCELED, Source.CLIENT)
            case.close()
            return _start(case.tx, case.context, operation, fresh, case.now)


def _start(
    tx: Transaction, context: Context, operation: Accept, fresh: Verification, now: datetime
) -> Sent:
    chosen = operation.chosen
    if operation.further or tx.avoids(operation.index):
        own = {one.kind: one.recipient_index for one in operation.further}
        reachable = workflow.without(chosen.plan, partial(_against, tx, operation.index, own))
        if reachable is not chosen.plan:
            chosen = sealed(reachable)
            fresh = fresh._replace(plan=chosen.digest)
    digest, plan = chosen.digest, chosen.plan
    if digest not in tx.plans:
        tx.put_plan(digest, plan, StoredPlan(digest, chosen.body, now))
    case, request = Case(tx, context, fresh, plan, now), operation.request
    if request.to is not None and not request.others:
        case.number = request.to.e164
    case.decide()
    stored = case.close()
    if operation.further:
        tx.put_further(operation.further)
        _cool_down(case, operation)
    _note(case, operation, joined=False)
    return Sent(stored, plan, tuple(case.attempts))


def _cool_down(case: Case, operation: Accept) -> None:
    """Whoever sends to a further address under another principal one finds no row that is running:
    a counter says that a code has left."""
    current = case.verification
    own = cool_key(current.client_id, current.recipient_index, current.purpose)
    keys = [key for key in operation.bill.cool if key != own]
    counting.cool_down(case.tx, keys, case.now)


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
    running, now, request = case.verification, case.now, operation.request
    repeat.same_way(running, case.plan.workflow, request.way)
    foreseen = resend.foreseen(case)
    if request.code is not None and not _same_code(case, request.code):
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
    ignored = repeat.ignored(running, _fresh(operation, now), request.named)
    return Sent(stored, case.plan, tuple(case.attempts), joined=True, ignored=ignored)


def _opening(plan: Plan) -> limiting.Way:
    step = plan.steps[0]
    return step, step.routes[0]


def _way(plan: Plan, action: Send) -> limiting.Way:
    return plan.steps[action.step], action.route


def _same_code(case: Case, own: str) -> bool:
    """Whether a caller's own code is the one it gave before. A code that we made is never compared:
    that is what checks are for, and they are counted.
    """
    if case.verification.code_sealed is None:
        return False
    running = code_of(case.context.keyring, case.verification)
    return hmac.compare_digest(own.encode(), running.encode())


def _note(case: Case, operation: Accept, *, joined: bool) -> None:
    current, plan = case.verification, case.plan
    facts = {
        "verification_id": current.id,
        "client_id": operation.request.client_id,
        "recipient": operation.shown,
        "workflow": plan.workflow,
        "reference": current.reference,
        "channel": plan.steps[current.step].channel,
        "joined": joined,
    }
    case.tx.after.append(Note("verification_accepted", facts))
