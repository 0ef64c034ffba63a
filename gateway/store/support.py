"""What the console reads: all about one verification in one go, and the counts of the live view.

Every read goes by an index: the key of a verification or attempt is time-ordered, so that a minute
is a range of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import asc, bindparam, func, select

from gateway.domain.audit import Entry
from gateway.domain.delivery import Cause, State
from gateway.domain.limits import Counter
from gateway.domain.verification import Status, Verification
from gateway.store import audits, tables
from gateway.store.audits import Filter
from gateway.store.engine import Engine, Read, value
from gateway.store.reads import COUNTERS, KEPT_BY_REFERENCE, SUPPRESSIONS, Reads, Record
from gateway.store.records import PART, Kept, Suppression
from gateway.store.writes import ATTEMPT, VERIFICATION, table

OTHERS = 20  # earlier verifications of a number that are listed
ACTS = 200  # rows of the audit log about one verification
COUNTED = 1000  # what is due is counted up to this
PARKED = 10_000  # receipts kept aside are counted up to this


@dataclass(frozen=True, slots=True)
class File:
    """All that is known of one verification, for a person."""

    record: Record
    client: str
    parked: tuple[Kept, ...]  # receipts kept aside that name one of its attempts
    acts: tuple[Entry, ...]  # oldest first
    others: tuple[Verification, ...]  # of the same number, newest first


class Minute(NamedTuple):
    """What began in one minute, and what has become of it so far."""

    at: datetime
    verifications: int = 0
    verified: int = 0
    sends: int = 0
    delivered: int = 0
    failed: int = 0
    fallbacks: int = 0


class Due(NamedTuple):
    """A verification somebody should look at, and since when."""

    id: UUID
    wake_at: datetime


class Parked(NamedTuple):
    """Receipts kept aside."""

    account: str
    why: str
    receipts: int


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits; a count of COUNTED means that many or more."""

    due: int
    overdue: int
    stuck: tuple[Due, ...]
    parked: tuple[Parked, ...]


_SINCE = bindparam("v_since", type_=VERIFICATION.c.id.type)
_UNTIL = bindparam("v_until", type_=VERIFICATION.c.id.type)
_STATUSES: Read[tuple[Status, int]] = Read(
    select(VERIFICATION.c.status, func.count())
    .where(VERIFICATION.c.id >= _SINCE, VERIFICATION.c.id < _UNTIL)
    .group_by(VERIFICATION.c.status),
    lambda status, count: (status, count),
)
_STATES: Read[tuple[State, Cause, int]] = Read(
    select(ATTEMPT.c.state, ATTEMPT.c.cause, func.count())
    .where(ATTEMPT.c.id >= _SINCE, ATTEMPT.c.id < _UNTIL)
    .group_by(ATTEMPT.c.state, ATTEMPT.c.cause),
    lambda state, cause, count: (state, cause, count),
)
_WAKE = bindparam("v_now", type_=VERIFICATION.c.wake_at.type)
_WAITING: Read[int] = Read(
    select(func.count()).select_from(
        select(VERIFICATION.c.id)
        .where(VERIFICATION.c.wake_at <= _WAKE)
        .limit(value("limit"))
        .subquery()
    ),
    int,
)
_STUCK: Read[Due] = Read(
    select(VERIFICATION.c.id, VERIFICATION.c.wake_at)
    .where(VERIFICATION.c.wake_at <= _WAKE)
    .order_by(asc(VERIFICATION.c.wake_at))
    .limit(value("limit")),
    Due,
)
_RECEIPT = table(tables.Receipt)
_ASIDE = (
    select(_RECEIPT.c.account, _RECEIPT.c.why)
    .where(_RECEIPT.c.why != PART)
    .limit(value("limit"))
    .subquery()
)
_PARKED: Read[Parked] = Read(
    select(_ASIDE.c.account, _ASIDE.c.why, func.count())
    .group_by(_ASIDE.c.account, _ASIDE.c.why)
    .order_by(_ASIDE.c.account, _ASIDE.c.why),
    Parked,
)

_FALLBACKS = {Cause.SILENCE, Cause.FAILED, Cause.REFUSED, Cause.UNKNOWN}


async def file(engine: Engine, named: UUID) -> File | None:
    """All about one verification; None when there is none of that id."""
    reads = Reads(engine)
    record = await reads.record(named)
    if record is None:
        return None
    current = record.verification
    texts = [one.reference for one in record.attempts if one.reference is not None]
    mine = {(one.account, one.reference) for one in record.attempts}
    kept = await engine.fetch_by(KEPT_BY_REFERENCE, texts)
    acts = await audits.newest(engine, Filter(subject=str(named)), ACTS)
    ids = await reads.by_number(None, current.recipient_index, OTHERS + 1)
    others = [one.verification for one in await reads.records(ids, log=False)]
    clients = {client.id: client.name for client in await reads.clients()}
    return File(
        record=record,
        client=clients.get(current.client_id, "unknown"),
        parked=tuple(one for one in kept if (one.account, one.reference) in mine),
        acts=tuple(reversed(acts)),
        others=tuple(one for one in others if one.id != named)[:OTHERS],
    )


async def standing(
    engine: Engine, keys: Sequence[bytes], index: bytes
) -> tuple[list[Counter], list[Suppression]]:
    """Counters by their keys, and what providers said of a number."""
    counters = await engine.fetch_by(COUNTERS, keys)
    return counters, await engine.fetch_by(SUPPRESSIONS, [index])


async def minute(engine: Engine, at: datetime) -> Minute:
    """What began in the minute from `at` on."""
    since, until = _first(at), _first(at + timedelta(minutes=1))
    statuses = dict(await engine.fetch(_STATUSES, since, until))
    states = await engine.fetch(_STATES, since, until)

    def attempts(*wanted: State) -> int:
        return sum(count for state, _, count in states if state in wanted)

    return Minute(
        at,
        verifications=sum(statuses.values()),
        verified=statuses.get(Status.VERIFIED, 0),
        sends=sum(count for _, _, count in states),
        delivered=attempts(State.DELIVERED, State.READ),
        failed=attempts(State.FAILED),
        fallbacks=sum(count for _, cause, count in states if cause in _FALLBACKS),
    )


async def queue(engine: Engine, now: datetime, late: Mapping[str, timedelta]) -> Queue:
    """What waits now. `late`: from when on it counts as `overdue`, and is listed as `stuck`."""
    return Queue(
        due=(await engine.fetch(_WAITING, now, COUNTED))[0],
        overdue=(await engine.fetch(_WAITING, now - late["overdue"], COUNTED))[0],
        stuck=tuple(await engine.fetch(_STUCK, now - late["stuck"], 20)),
        parked=tuple(await engine.fetch(_PARKED, PARKED)),
    )


def _first(at: datetime) -> UUID:
    """The smallest id that can be made at a moment (RFC 9562 §5.7)."""
    return UUID(int=int(at.timestamp() * 1000) << 80)
