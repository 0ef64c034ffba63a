"""Match receipts to their attempts and apply them, all of one callback in one commit.

What cannot be applied is kept: *parked* while the reference is unknown (the receipt overtook the
answer to our call), *quarantined* when it cannot be read or names another number than the
attempt's. Neither ever touches an attempt it was not meant for.

Where a message went out in parts, a row beside the parked ones says of each part's id whose it is.
It stays as long as a parked one, for what has arrived may be told of again.

Over 400 lines: applying, parking and quarantine decide on the same receipt, one after the other.
"""

import base64
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeGuard
from uuid import UUID

import orjson

from gateway.domain import addresses, identity, recipient
from gateway.domain.delivery import ARRIVED, Attempt, State
from gateway.domain.errors import NotFound, Unauthenticated, Unavailable
from gateway.domain.identity import uuid7
from gateway.domain.keyring import NONCE_BYTES, Keyring, KeyringError
from gateway.domain.parts import Part
from gateway.domain.values import value
from gateway.ports import (
    Asks,
    Callback,
    Confirms,
    Malformed,
    Receipt,
    Reply,
    TransportError,
    Unproven,
)
from gateway.services import metering
from gateway.services.case import Case, Context, Note, address_for
from gateway.services.metering import Heard
from gateway.services.runtime import Route, Runtime
from gateway.store.ledger import Operation, Transaction, Wants
from gateway.store.records import PARKED, PART, Crowd, Kept, Source, Way

REFERENCE_LENGTH = 255  # a longer one is no reference
_UNPROVEN = ("callback_unproven", "The callback cannot be checked now; send it again.")
_RAW_KEPT = 4096  # bytes of a receipt that is kept aside

MALFORMED = "malformed"
OTHER_NUMBER = "other_number"
NO_REFERENCE = "no_reference"
OTHER_ACCOUNT = "other_account"


@value
class Receive(Operation[tuple[Receipt, ...]]):
    """Apply these statements. `attempt_id`: named by the callback's own URL. Its sender gets back
    those that were not: about parts of messages, with their attempts, and those that were parked.
    """

    route: str
    account: str
    attempt_id: UUID | None
    items: tuple[Receipt | Malformed, ...]
    source: str = Source.RECEIPT


async def receive(runtime: Runtime, route_name: str, callback: Callback) -> Reply | None:
    """Authenticate on raw bytes, store and apply, and only then answer.

    None asks for an empty 200. Raises NotFound, Unauthenticated (and nothing is left behind) or
    Unavailable (nothing was stored; the provider should repeat it).
    """
    route = runtime.routes.get(route_name)
    if route is None:
        raise NotFound("unknown_route", "There is no such route.")
    reply = route.provider.handshake(callback)
    if reply is not None:
        return reply
    if route.asks is not None:
        await _ask(route, route.asks, callback)
    try:
        genuine = route.provider.authenticate(callback)
    except Unproven as error:
        raise Unavailable(*_UNPROVEN) from error
    if not genuine:
        runtime.meter.follow({Heard: (Heard(route.name, Source.RECEIPT, metering.REFUSED),)})
        raise Unauthenticated(
            "callback_refused", "The callback's key or signature is missing or wrong."
        )
    if route.confirms is not None:
        await _confirm(route, route.confirms, callback)
    items = tuple(route.provider.receipts(callback))
    if items:
        named = UUID(callback.attempt_id) if callback.attempt_id is not None else None
        account = route.provider.account
        left = await runtime.ledger.submit(Receive(route.name, account, named, items))
        if left:
            await _left_over(runtime, route, left)
    return None


async def _left_over(runtime: Runtime, route: Route, left: tuple[Receipt, ...]) -> None:
    """See to those that were not applied: parts of messages, and parked ones."""
    account = route.provider.account
    if parts := tuple(item for item in left if item.part is not None):
        await runtime.ledger.submit(Receive(route.name, account, None, parts))
    if len(left) > len(parts) and route.by_number:
        await _place(runtime, account, left)


async def _place(runtime: Runtime, account: str, items: Sequence[Receipt]) -> None:
    """Look for the attempts of those that were parked. They are stored; this may fail."""
    for item in items:
        if item.part is None and item.reference is not None and item.recipient is not None:
            with contextlib.suppress(Unavailable):
                await runtime.place(account, item, runtime.now())


async def _ask(route: Route, provider: Asks, callback: Callback) -> None:
    """Fetch what the provider needs to judge the callback. Raises Unavailable: it cannot be judged
    now, so that the vendor repeats it."""
    question = provider.build_question(callback)
    if question is None:
        return
    try:
        answer = await route.transport.send(question, within=route.provider.timeout)
    except TransportError as error:
        raise Unavailable(*_UNPROVEN) from error
    if answer.status_code >= 500 or answer.status_code == 429:
        raise Unavailable(*_UNPROVEN)
    provider.learn(callback, answer)


async def _confirm(route: Route, provider: Confirms, callback: Callback) -> None:
    """Make the call by which the vendor learns that this address is ours. Raises Unavailable."""
    request = provider.build_confirmation(callback)
    if request is None:
        return
    try:
        answer = await route.transport.send(request, within=route.provider.timeout)
    except TransportError as error:
        raise Unavailable("not_confirmed", "The address could not be confirmed.") from error
    if answer.status_code >= 300:
        raise Unavailable("not_confirmed", "The address could not be confirmed.")


def token_of(runtime: Runtime, key: str | None) -> str | None:
    """The attempt that the last segment of a callback URL names, if it is a token of ours."""
    named = runtime.keyring.attempt_of(key) if key is not None else None
    return str(named) if named is not None else None


def wants(operation: Receive) -> Wants:
    """Every attempt and reference the items name."""
    attempts: tuple[UUID, ...] = () if operation.attempt_id is None else (operation.attempt_id,)
    references: tuple[tuple[str, str], ...] = ()
    for item in operation.items:
        if isinstance(item, Receipt):
            if item.attempt_id is not None and (named := identity.parse(item.attempt_id)):
                attempts += (named,)
            if _sound(item.reference):
                references += ((operation.account, item.reference),)
    return Wants((), attempts, references)


def apply(
    tx: Transaction, context: Context, operation: Receive, now: datetime
) -> tuple[Receipt, ...]:
    """Item by item; a bad one is kept aside and the rest applied, less those it returns."""
    cases: dict[int, Case] = {}  # by the number of the verification's id
    left: list[Receipt] = []
    for item in operation.items:
        if isinstance(item, Malformed):
            _keep(
                tx,
                context,
                operation.account,
                reference=None,
                reason=MALFORMED,
                raw=item.raw,
                now=now,
                why=item.why,
            )
            _count(tx, operation, MALFORMED)
            continue
        about = _part_named(tx, context, operation, item) if tx.keeps() else None
        if about is not None:
            left.append(about)
        elif not _apply_one(tx, context, operation, item, cases=cases, now=now):
            left.append(item)
    for case in cases.values():
        case.decide()
        case.close()
    return tuple(left) if left else ()


def _part_named(
    tx: Transaction, context: Context, operation: Receive, item: Receipt
) -> Receipt | None:
    """The item with its attempt, where its reference is a part's. Such rows were loaded with the
    references."""
    if item.attempt_id is not None or item.reference is None:
        return None
    rows = tx.kept(_parts_of(operation.account), item.reference)
    if not rows or _given_again(tx, rows[-1], operation.account, item.reference):
        return None
    attempt_id, number, of = orjson.loads(_opened(context.keyring, rows[-1]))
    return replace(item, attempt_id=attempt_id, part=Part(number, of))


def _given_again(tx: Transaction, kept: Kept, account: str, reference: str) -> bool:
    """Whether the centre has given the part's id to a whole message since."""
    named = tx.referenced(account, reference)
    owner = tx.owner(named) if named is not None else None
    attempts = tx.attempts(owner) if owner is not None else []
    return any(one.id == named and one.queued_at > kept.received_at for one in attempts)


def expect_part(case: Case, attempt: Attempt, reference: str, part: Part) -> None:
    """From now on this reference is a part's of the attempt's message, and so it was for the
    receipts that came before."""
    about = orjson.dumps([str(attempt.id), *part])
    pair = (_parts_of(attempt.account), reference)
    case.tx.keep(_sealed(case.context, pair, PART, about, case.now))
    unpark(case, attempt, reference, part)


def _parts_of(account: str) -> str:
    """Parts are bounded and counted apart from receipts kept aside."""
    return f"parts of {account}"


def _apply_one(
    tx: Transaction,
    context: Context,
    operation: Receive,
    item: Receipt,
    *,
    cases: dict[int, Case],
    now: datetime,
) -> bool:
    """False: it was parked, since nobody knows its reference."""
    account = operation.account
    reference = item.reference if _sound(item.reference) else None
    named = operation.attempt_id
    if item.attempt_id is not None:
        named = identity.parse(item.attempt_id) or named
    if named is None and reference is not None:
        named = tx.referenced(account, reference)
        if named is None:
            _keep(
                tx, context, account, reference=reference, reason=PARKED, raw=_packed(item), now=now
            )
            _count(tx, operation, PARKED)
            return False
    owner = tx.owner(named) if named is not None else None
    if named is None:
        _keep(tx, context, account, reference=None, reason=NO_REFERENCE, raw=item.raw, now=now)
        _count(tx, operation, NO_REFERENCE)
        return True
    if owner is None:
        # Purged long ago, or never ours: 2xx and a line, so that the provider stops repeating it.
        word = recipient.redact(item.word)  # whose code it might hold, nobody knows any more
        facts = {"attempt_id": named, "route": operation.route, "word": word}
        tx.after.append(Note("receipt_without_attempt", facts, level="warning"))
        _count(tx, operation, metering.NO_ATTEMPT)
        return True
    case = cases.get(owner.int) if cases else None
    if case is None:
        case = Case.open(tx, context, owner, now)
        if case is None:
            raise LookupError("an attempt without its verification")
        cases[owner.int] = case
    _hear(case, case.attempt(named), item, operation)
    return True


def _count(tx: Transaction, operation: Receive, verdict: str) -> None:
    tx.after.append(Heard(operation.route, operation.source, verdict))


def _hear(
    case: Case, attempt: Attempt, item: Receipt, operation: Receive, *, linked: bool = False
) -> None:
    tx, context, now = case.tx, case.context, case.now
    if attempt.account != operation.account:
        _keep(
            tx,
            context,
            operation.account,
            reference=None,
            reason=OTHER_ACCOUNT,
            raw=item.raw,
            now=now,
        )
        _count(tx, operation, OTHER_ACCOUNT)
        return
    if attempt.route in context.unsigned and not _same_number(case, attempt, item):
        _keep(
            tx,
            context,
            operation.account,
            reference=item.reference,
            reason=OTHER_NUMBER,
            raw=item.raw,
            now=now,
        )
        _count(tx, operation, OTHER_NUMBER)
        return
    if item.state is None:
        word = case.clean(item.word)
        facts = {"attempt_id": attempt.id, "route": attempt.route, "word": word}
        case.after.append(Note("receipt_without_state", facts, level="warning"))
    after = case.receive(attempt, item, operation.source)
    case.after.append(_heard(attempt, after, item, operation, now, linked=linked))


def _heard(
    before: Attempt,
    after: Attempt,
    item: Receipt,
    operation: Receive,
    now: datetime,
    *,
    linked: bool,
) -> Heard:
    """What became of a statement, to be counted."""
    state = after.state
    moved = state is not before.state
    if linked:
        verdict = metering.LINKED
    elif item.state is None:
        verdict = metering.UNKNOWN_WORD
    elif moved:
        verdict = metering.APPLIED
    else:
        verdict = metering.REPEATED if after.repeats > before.repeats else metering.LATE
    arrived = moved and state in ARRIVED
    return Heard(
        before.route,
        operation.source,
        verdict,
        before.channel,
        state if arrived else None,
        (now - before.queued_at).total_seconds() if arrived else 0.0,
    )


def _same_number(case: Case, attempt: Attempt, item: Receipt) -> bool:
    """Whether the receipt names the address that the attempt went to, if it names any."""
    if item.recipient is None:
        return True
    try:
        ours = address_for(case.context.keyring, case.verification, attempt.channel)
    except KeyringError:
        return False
    return ours is None or addresses.same(ours, item.recipient)


def unpark(case: Case, attempt: Attempt, reference: str, part: Part | None = None) -> None:
    """Apply the receipts that came before the answer to our call (F1), in the same commit."""
    for kept in case.tx.kept(attempt.account, reference):
        if kept.why != PARKED:
            continue
        item = replace(unpacked(case.context.keyring, kept), part=part)
        case.tx.drop(kept)
        operation = Receive(attempt.route, attempt.account, None, (item,))
        _hear(case, case.attempt(attempt.id), item, operation, linked=True)


def _sound(reference: str | None) -> TypeGuard[str]:
    return reference is not None and 0 < len(reference) <= REFERENCE_LENGTH


def _keep(
    tx: Transaction,
    context: Context,
    account: str,
    *,
    reference: str | None,
    reason: str,
    raw: bytes,
    now: datetime,
    why: str | None = None,
) -> None:
    """Set a receipt aside, sealed: it may hold a number."""
    tx.keep(_sealed(context, (account, reference), reason, raw[:_RAW_KEPT], now))
    facts = {"account": account, "why": reason, "detail": why}
    level = "info" if reason == PARKED else "warning"
    tx.after.append(Note("receipt_kept", facts, level=level))


def _sealed(
    context: Context, pair: tuple[str, str | None], reason: str, raw: bytes, now: datetime
) -> Kept:
    named = uuid7(now, context.entropy(10))
    keyring = context.keyring
    nonce = context.entropy(NONCE_BYTES)
    sealed = keyring.seal(keyring.current, raw, owner=named.bytes, nonce=nonce)
    return Kept(named, *pair, reason, sealed, keyring.current, now)


def _opened(keyring: Keyring, kept: Kept) -> bytes:
    return keyring.open(kept.key_id, kept.sealed, owner=kept.id.bytes)


def _packed(item: Receipt) -> bytes:
    return orjson.dumps(
        {
            "word": item.word,
            "state": item.state,
            "reference": item.reference,
            "reason": item.reason,
            "permanent": item.permanent,
            "recipient": item.recipient,
            "provider_time": item.provider_time,
            "cost": item.cost,
            "avoid": item.avoid,
            "raw": base64.b64encode(item.raw[:1024]).decode(),
        }
    )


def unpacked(keyring: Keyring, kept: Kept) -> Receipt:
    """A parked receipt as it came. Raises KeyringError when its key is gone."""
    fields = orjson.loads(_opened(keyring, kept))
    state = fields.pop("state")
    raw = base64.b64decode(fields.pop("raw"))
    return Receipt(state=State(state) if state is not None else None, raw=raw, **fields)


@dataclass(frozen=True, slots=True)
class Sweep(Operation[int]):
    """The second net under parked receipts: link those whose reference is known by now, and forget
    those received before a moment or too many of one account. The number of rows it linked or
    lifted."""

    linked: tuple[Kept, ...]
    before: datetime | None
    crowds: tuple[Crowd, ...] = ()
    past: tuple[Way, ...] = ()  # suppressions whose time is over


def wants_sweep(operation: Sweep) -> Wants:
    """The attempts that carry the references."""
    pairs = [(kept.account, kept.reference) for kept in operation.linked if kept.reference]
    indexes = tuple({way.recipient_index for way in operation.past})
    return Wants(references=tuple(pairs), suppressed=indexes)


def apply_sweep(tx: Transaction, context: Context, operation: Sweep, now: datetime) -> int:
    """Link and forget; one linked or dropped meanwhile is passed over."""
    taken = 0
    for pair in dict.fromkeys((k.account, k.reference) for k in operation.linked if k.reference):
        account, reference = pair
        named = tx.referenced(account, reference or "")
        case = Case.open(tx, context, tx.owner(named) if named is not None else None, now)
        if case is None or named is None:
            continue
        taken += len(tx.kept(account, reference or ""))
        unpark(case, case.attempt(named), reference or "")
        case.decide()
        case.close()
    tx.trim(operation.crowds, operation.before)
    for way in operation.past:
        if tx.suppression(way) is None:  # not said again meanwhile
            tx.lift(way)
    return taken + len(operation.past)
