"""Events on their way to callers: rows, statements and point reads.

A delivery is a cursor: a subscription's place in the events of one verification. So they arrive in
order by construction, a dead endpoint costs one row a verification, and every change is one guarded
statement that needs no row read before it: `claim` says who may conclude a delivery, and a cursor
past its newest event goes. What a batch changes is collected as values and written by kind.

Over 400 lines: all statements on events and deliveries, whose guards rest on each other.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Column, asc, bindparam, delete, func, insert, null, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.store import tables
from gateway.store.engine import ByKeys, Engine, Read, Write, columns_of, names_of, value
from gateway.store.writes import VERIFICATION, table

_EVENT = table(tables.Event)
_SUBSCRIPTION = table(tables.Subscription)
_DELIVERY = table(tables.Delivery)


class Event(NamedTuple):
    """One event as stored; `payload` is its body's `data`, JSON."""

    verification_id: UUID
    sequence: int
    kind: str
    payload: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscription as stored; see `tables.Subscription`."""

    id: UUID
    client_id: UUID
    url: str
    kinds: str
    sealed: bytes
    key_id: str
    created_at: datetime
    rotated_at: datetime | None = None
    failures: int = 0
    failing_since: datetime | None = None
    problem: str | None = None
    disabled_at: datetime | None = None
    disabled_why: str | None = None


class Delivery(NamedTuple):
    """A cursor as stored; see `tables.Delivery`."""

    verification_id: UUID
    subscription_id: UUID
    next: int
    last: int
    due_at: datetime | None
    tries: int
    claim: UUID | None


# What may be done to the outbox, each a value.


class Raised(NamedTuple):
    """One more event for a subscription. A cursor that has been given up is tried again."""

    verification_id: UUID
    subscription_id: UUID
    sequence: int
    due_at: datetime


class Taken(NamedTuple):
    """A claim on a cursor that is due as it was `seen`; it lapses at `due_at`."""

    verification_id: UUID
    subscription_id: UUID
    seen: datetime
    claim: UUID
    due_at: datetime


class Done(NamedTuple):
    """The event was delivered under that claim; the next one is due at once."""

    verification_id: UUID
    subscription_id: UUID
    claim: UUID
    next: int
    due_at: datetime


class Postponed(NamedTuple):
    """It was not; when to try again, None: never of itself."""

    verification_id: UUID
    subscription_id: UUID
    claim: UUID
    tries: int
    due_at: datetime | None


class Failing(NamedTuple):
    """An endpoint failed once more."""

    id: UUID
    failing_since: datetime  # kept from the first failure
    problem: str


class Recovered(NamedTuple):
    """An endpoint takes events again."""

    id: UUID


class Disabled(NamedTuple):
    """An endpoint gets nothing more until its owner says so."""

    id: UUID
    disabled_at: datetime
    disabled_why: str


class Rotated(NamedTuple):
    """Another secret; the one before goes on for a day."""

    id: UUID
    sealed: bytes
    key_id: str
    rotated_at: datetime


class Removed(NamedTuple):
    """A subscription and all that waits for it."""

    id: UUID


class Enabled(NamedTuple):
    """A subscription that starts anew, with all that was given up due at once."""

    id: UUID
    due_at: datetime


class Replayed(NamedTuple):
    """The events `next` to `last` of a verification, once more."""

    verification_id: UUID
    subscription_id: UUID
    next: int
    last: int
    due_at: datetime


class Swept(NamedTuple):
    """All that is kept of a verification's events up to a sequence."""

    verification_id: UUID
    sequence: int


def _typed(name: str, column: Column[Any]) -> Any:
    return bindparam(f"v_{name}", type_=column.type)


_MINE = (
    _DELIVERY.c.verification_id == value("verification_id"),
    _DELIVERY.c.subscription_id == value("subscription_id"),
)
_OWNED = _DELIVERY.c.subscription_id == _typed("id", _DELIVERY.c.subscription_id)
_CURSOR = [_DELIVERY.c.verification_id, _DELIVERY.c.subscription_id]
_NEW_CURSOR = upsert(_DELIVERY)
_START_ANEW = {"failures": 0, "failing_since": null(), "problem": null()}
_THIS = _SUBSCRIPTION.c.id == value("id")

# In the order in which a batch writes them.
_STATEMENTS: dict[type, tuple[Write, ...]] = {
    Event: (Write(insert(_EVENT).values({name: value(name) for name in names_of(Event)})),),
    Raised: (
        Write(
            _NEW_CURSOR.values(
                verification_id=value("verification_id"),
                subscription_id=value("subscription_id"),
                next=value("sequence"),
                last=value("sequence"),
                due_at=value("due_at"),
                tries=0,
            ).on_conflict_do_update(
                index_elements=_CURSOR,
                set_={
                    "last": _NEW_CURSOR.excluded.last,
                    "due_at": func.coalesce(_DELIVERY.c.due_at, _NEW_CURSOR.excluded.due_at),
                },
            )
        ),
    ),
    Taken: (
        Write(
            update(_DELIVERY)
            .where(*_MINE, _DELIVERY.c.due_at == _typed("seen", _DELIVERY.c.due_at))
            .values(claim=value("claim"), due_at=value("due_at"))
        ),
    ),
    Done: (
        Write(
            update(_DELIVERY)
            .where(*_MINE, _DELIVERY.c.claim == value("claim"))
            .values(next=value("next"), due_at=value("due_at"), tries=0, claim=null())
        ),
        Write(delete(_DELIVERY).where(*_MINE, _DELIVERY.c.next > _DELIVERY.c.last)),
    ),
    Postponed: (
        Write(
            update(_DELIVERY)
            .where(*_MINE, _DELIVERY.c.claim == value("claim"))
            .values(tries=value("tries"), due_at=value("due_at"), claim=null())
        ),
    ),
    Failing: (
        Write(
            update(_SUBSCRIPTION)
            .where(_THIS)
            .values(
                failures=_SUBSCRIPTION.c.failures + 1,
                failing_since=func.coalesce(
                    _SUBSCRIPTION.c.failing_since,
                    _typed("failing_since", _SUBSCRIPTION.c.failing_since),
                ),
                problem=value("problem"),
            )
        ),
    ),
    Recovered: (Write(update(_SUBSCRIPTION).where(_THIS).values(_START_ANEW)),),
    Disabled: (
        Write(
            update(_SUBSCRIPTION)
            .where(_THIS, _SUBSCRIPTION.c.disabled_at.is_(None))
            .values(disabled_at=value("disabled_at"), disabled_why=value("disabled_why"))
        ),
    ),
    Subscription: (
        Write(insert(_SUBSCRIPTION).values({name: value(name) for name in names_of(Subscription)})),
    ),
    Rotated: (
        Write(
            update(_SUBSCRIPTION)
            .where(_THIS)
            .values({name: value(name) for name in names_of(Rotated) if name != "id"})
        ),
    ),
    Enabled: (
        Write(
            update(_SUBSCRIPTION)
            .where(_THIS)
            .values(_START_ANEW | {"disabled_at": null(), "disabled_why": null()})
        ),
        Write(
            update(_DELIVERY)
            .where(_OWNED, _DELIVERY.c.due_at.is_(None))
            .values(due_at=value("due_at"), tries=0)
        ),
    ),
    Replayed: (
        Write(
            _NEW_CURSOR.values(
                {name: value(name) for name in names_of(Replayed)} | {"tries": 0}
            ).on_conflict_do_update(
                index_elements=_CURSOR,
                set_={
                    "next": _NEW_CURSOR.excluded.next,
                    "due_at": _NEW_CURSOR.excluded.due_at,
                    "tries": 0,
                    "claim": null(),
                },
            )
        ),
    ),
    Removed: (
        Write(delete(_DELIVERY).where(_OWNED)),
        Write(delete(_SUBSCRIPTION).where(_THIS)),
    ),
    Swept: (
        Write(
            delete(_EVENT).where(
                _EVENT.c.verification_id == value("verification_id"),
                _EVENT.c.sequence <= value("sequence"),
            )
        ),
        Write(
            delete(_DELIVERY).where(
                _DELIVERY.c.verification_id == value("verification_id"),
                _DELIVERY.c.last <= _typed("sequence", _DELIVERY.c.last),
            )
        ),
    ),
}


_OF_CURSORS = {Raised, Taken, Done, Postponed, Replayed}  # by two columns; others have an id


_OF_CURSORS = {Raised, Taken, Done, Postponed, Replayed}  # by two columns; others by their first


class Outbox:
    """What one batch does to the outbox."""

    def __init__(self) -> None:
        self._changes: dict[type, list[Any]] = defaultdict(list)

    def add(self, *changes: Any) -> None:
        """Any of the values above."""
        for change in changes:
            self._changes[type(change)].append(change)

    async def write(self, engine: Engine) -> None:
        """All of it, in the open transaction. Only inserts must touch what they name: guards are
        in the statements, and what a guard keeps out has been done by somebody else."""
        if not self._changes:
            return
        for kind, statements in _STATEMENTS.items():
            if kind not in self._changes:
                continue
            rounds = _rounds(kind, self._changes[kind])
            for statement in statements:
                for changes in rounds:
                    await engine.run(statement, changes, expect=kind in {Event, Subscription})


def _rounds(kind: type, changes: list[Any]) -> list[list[Any]]:
    """The changes in their order, no two of one row in the same statement: PostgreSQL refuses to
    touch a row twice in one, or does so once."""
    if len(changes) == 1 or kind in {Event, Subscription}:
        return [changes]
    width = 2 if kind in _OF_CURSORS else 1
    seen: dict[Any, int] = defaultdict(int)
    rounds: list[list[Any]] = []
    for change in changes:
        row = change[:width]
        if seen[row] == len(rounds):
            rounds.append([])
        rounds[seen[row]].append(change)
        seen[row] += 1
    return rounds


_SUBSCRIPTIONS: Read[Subscription] = Read(
    select(*columns_of(_SUBSCRIPTION, Subscription)).order_by(asc(_SUBSCRIPTION.c.id)),
    Subscription,
)


def _deliveries_of(*what: Any) -> Any:
    of = _typed("subscription_id", _DELIVERY.c.subscription_id)
    return select(*what).where(_DELIVERY.c.subscription_id == of)


_DUE: Read[Delivery] = Read(
    _deliveries_of(*columns_of(_DELIVERY, Delivery))
    .where(_DELIVERY.c.due_at <= _typed("now", _DELIVERY.c.due_at))
    .order_by(asc(_DELIVERY.c.due_at))
    .limit(value("limit")),
    Delivery,
)
_SOONEST: Read[Any] = Read(
    _deliveries_of(func.min(_DELIVERY.c.due_at, type_=_DELIVERY.c.due_at.type)).where(
        _DELIVERY.c.due_at.is_not(None)
    ),
    lambda at: at,
)
_UNDELIVERED: Read[int] = Read(_deliveries_of(func.count()).select_from(_DELIVERY), int)
_DELIVERIES = ByKeys(columns_of(_DELIVERY, Delivery), _DELIVERY.c.verification_id, Delivery)
_EVENTS = ByKeys(columns_of(_EVENT, Event), _EVENT.c.verification_id, Event)
_TRACES: ByKeys[tuple[UUID, str | None]] = ByKeys(
    [VERIFICATION.c.id, VERIFICATION.c.trace], VERIFICATION.c.id, lambda *row: row
)
_SINCE: Read[UUID] = Read(
    select(_EVENT.c.verification_id)
    .distinct()
    .join(VERIFICATION, VERIFICATION.c.id == _EVENT.c.verification_id)
    .where(
        VERIFICATION.c.client_id == _typed("client", VERIFICATION.c.client_id),
        _EVENT.c.verification_id > _typed("after", _EVENT.c.verification_id),
        _EVENT.c.created_at >= _typed("since", _EVENT.c.created_at),
    )
    .order_by(asc(_EVENT.c.verification_id))
    .limit(value("limit")),
    lambda named: named,
)
_PAST: Read[Swept] = Read(
    select(_EVENT.c.verification_id, func.max(_EVENT.c.sequence))
    .where(
        _EVENT.c.verification_id < _typed("before", _EVENT.c.verification_id),
        _EVENT.c.created_at < _typed("until", _EVENT.c.created_at),
    )
    .group_by(_EVENT.c.verification_id)
    .limit(value("limit")),
    Swept,
)
_VERSIONS: ByKeys[tuple[UUID, int]] = ByKeys(
    [VERIFICATION.c.id, VERIFICATION.c.version],
    VERIFICATION.c.id,
    lambda named, version: (named, version),
)


class OutboxReads:
    """Point reads of what is committed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def subscriptions(self) -> list[Subscription]:
        """All of them, oldest first."""
        return await self._engine.fetch(_SUBSCRIPTIONS)

    async def due(self, subscription_id: UUID, now: datetime, limit: int) -> list[Delivery]:
        """Its cursors that are due, those that have waited longest first."""
        return await self._engine.fetch(_DUE, subscription_id, now, limit)

    async def soonest(self, subscription_id: UUID) -> datetime | None:
        """When its next cursor is due."""
        found: datetime | None = (await self._engine.fetch(_SOONEST, subscription_id))[0]
        return found

    async def undelivered(self, subscription_id: UUID) -> int:
        """How many verifications have events that it has not got."""
        return (await self._engine.fetch(_UNDELIVERED, subscription_id))[0]

    async def deliveries(self, verifications: Sequence[UUID]) -> list[Delivery]:
        """Everybody's cursors in these verifications."""
        return await self._engine.fetch_by(_DELIVERIES, verifications)

    async def events(self, verifications: Sequence[UUID]) -> list[Event]:
        """All events of these verifications, in their order."""
        found = await self._engine.fetch_by(_EVENTS, verifications)
        return sorted(found, key=lambda event: (event.verification_id, event.sequence))

    async def traces(self, verifications: Sequence[UUID]) -> dict[UUID, str]:
        """The traces of those of these verifications that have one."""
        found = await self._engine.fetch_by(_TRACES, verifications)
        return {named: trace for named, trace in found if trace is not None}

    async def since(self, client_id: UUID, since: datetime, after: UUID, limit: int) -> list[UUID]:
        """A client's verifications above `after` that had an event since then, by id."""
        return await self._engine.fetch(_SINCE, client_id, after, since, limit)

    async def past(self, before: UUID, until: datetime, limit: int) -> list[Swept]:
        """Events whose time is over, of verifications whose id is below `before`."""
        return await self._engine.fetch(_PAST, before, until, limit)

    async def versions(self, verifications: Sequence[UUID]) -> dict[UUID, int]:
        """How often each of these verifications has been written."""
        return dict(await self._engine.fetch_by(_VERSIONS, verifications))
