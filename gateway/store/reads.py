"""What is read, by whom ever: the ledger inside its transaction, status and command line
outside.

More than 500 lines: every statement that reads these tables stands here, so that a test can ask
each whether it walks one that grows.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    Select,
    String,
    and_,
    asc,
    bindparam,
    column,
    desc,
    func,
    select,
)
from sqlalchemy import table as named_table

from gateway.domain.delivery import Attempt, State
from gateway.domain.health import RouteState, Tally
from gateway.domain.identity import lowest
from gateway.domain.limits import Counter
from gateway.domain.verification import Status, Verification
from gateway.domain.workflow import (
    LeftOut,
    OnFailed,
    OnUnknown,
    Plan,
    PlannedRoute,
    PlannedStep,
    Until,
)
from gateway.store import tables
from gateway.store.engine import ByKeys, Engine, Read, columns_of, value
from gateway.store.records import (
    PARKED,
    ApiKey,
    Client,
    Kept,
    Logged,
    Mark,
    StoredAnswer,
    Suppression,
    Way,
)
from gateway.store.writes import ATTEMPT, VERIFICATION, table

K = TypeVar("K")
_TRANSITION = table(tables.Transition)
_RECEIPT = table(tables.Receipt)
_COUNTER = table(tables.Counter)
_PLAN = table(tables.Plan)
_MARK = table(tables.Mark)
_SUPPRESSION = table(tables.Suppression)
_IDEMPOTENCY = table(tables.Idempotency)
_CLIENT = table(tables.Client)
_API_KEY = table(tables.ApiKey)
_ROUTE_STAT = table(tables.RouteStat)
_ROUTE_STATE = table(tables.RouteState)
_RECIPIENT = table(tables.Recipient)


def _itself(*cells: Any) -> Any:
    return cells[0] if len(cells) == 1 else cells


def _typed(name: str, column: Column[Any]) -> Any:
    return bindparam(f"v_{name}", type_=column.type)


def decode_plan(body: str) -> Plan:
    """The plan that `encode_plan` wrote."""
    raw = orjson.loads(body)
    steps = [
        PlannedStep(
            channel=step["channel"],
            routes=tuple(
                PlannedRoute(
                    name=route["name"],
                    account=route["account"],
                    sender=route["sender"],
                    confirms=frozenset(State(word) for word in route["confirms"]),
                    idempotent=route["idempotent"],
                    polls=route["polls"],
                )
                for route in step["routes"]
            ),
            patience=step["patience"],
            until=Until(step["until"]),
            on_failed=OnFailed(step["on_failed"]),
            on_unknown=OnUnknown(step["on_unknown"]),
        )
        for step in raw["steps"]
    ]
    left_out = tuple(LeftOut(**one) for one in raw.get("left_out", ()))
    return Plan(raw["workflow"], tuple(steps), left_out, raw.get("region", ""))


def encode_plan(plan: Plan) -> bytes:
    """A plan as JSON, the same bytes for equal plans: their digest is its key."""
    return orjson.dumps(plan, default=sorted, option=orjson.OPT_SORT_KEYS)


def _stored_plan(digest: bytes, body: str) -> tuple[bytes, Plan]:
    return digest, decode_plan(body)


# Inside the ledger's transaction, for a whole batch.

VERIFICATIONS = ByKeys(
    columns_of(VERIFICATION, Verification), VERIFICATION.c.id, Verification, lock=True
)
VERSIONS: ByKeys[tuple[UUID, int]] = ByKeys(
    [VERIFICATION.c.id, VERIFICATION.c.version], VERIFICATION.c.id, _itself, lock=True
)
RUNNING: ByKeys[UUID] = ByKeys(
    [VERIFICATION.c.id],
    VERIFICATION.c.recipient_index,
    _itself,
    VERIFICATION.c.status == Status.PENDING,
)
ATTEMPTS = ByKeys(columns_of(ATTEMPT, Attempt), ATTEMPT.c.verification_id, Attempt)
OWNERS: ByKeys[UUID] = ByKeys([ATTEMPT.c.verification_id], ATTEMPT.c.id, _itself)
OWNERS_BY_REFERENCE: ByKeys[tuple[str, str, UUID]] = ByKeys(
    [ATTEMPT.c.account, ATTEMPT.c.reference, ATTEMPT.c.verification_id],
    ATTEMPT.c.reference,
    _itself,
)
KEPT_BY_REFERENCE = ByKeys(columns_of(_RECEIPT, Kept), _RECEIPT.c.reference, Kept)
COUNTERS = ByKeys(columns_of(_COUNTER, Counter), _COUNTER.c.key, Counter, lock=True)
SUPPRESSIONS = ByKeys(
    columns_of(_SUPPRESSION, Suppression), _SUPPRESSION.c.recipient_index, Suppression
)
ANSWERS = ByKeys(columns_of(_IDEMPOTENCY, StoredAnswer), _IDEMPOTENCY.c.key, StoredAnswer)
PLANS = ByKeys([_PLAN.c.digest, _PLAN.c.body], _PLAN.c.digest, _stored_plan)
DUE: Read[UUID] = Read(
    select(VERIFICATION.c.id)
    .where(VERIFICATION.c.wake_at <= _typed("now", VERIFICATION.c.wake_at))
    .order_by(asc(VERIFICATION.c.wake_at))
    .limit(value("limit"))
    .with_for_update(skip_locked=True),  # what another node looks at is no longer due
    _itself,
)

# Outside of it.

_REVISION: Read[str] = Read(
    select(column("version_num", String)).select_from(named_table("alembic_version")), str
)
_NEWEST_KEY: Read[str] = Read(
    select(VERIFICATION.c.key_id).order_by(desc(VERIFICATION.c.id)).limit(1), str
)
_PAST_SUPPRESSIONS: Read[Way] = Read(
    select(*columns_of(_SUPPRESSION, Way))
    .where(_SUPPRESSION.c.until <= _typed("now", _SUPPRESSION.c.until))
    .limit(value("limit")),
    Way,
)

_BEFORE = VERIFICATION.c.id < _typed("before", VERIFICATION.c.id)
_OLDEST: Read[UUID] = Read(
    select(VERIFICATION.c.id).where(_BEFORE).order_by(asc(VERIFICATION.c.id)).limit(value("limit")),
    _itself,
)
_NAMED: Read[UUID] = Read(
    select(VERIFICATION.c.id)
    .where(
        VERIFICATION.c.id >= _typed("since", VERIFICATION.c.id),
        _BEFORE,
        VERIFICATION.c.recipient_sealed.is_not(None),
    )
    .order_by(asc(VERIFICATION.c.id))
    .limit(value("limit")),
    _itself,
)
_COUNT_OVER: Read[int] = Read(
    select(func.count()).select_from(VERIFICATION).where(_BEFORE), _itself
)
_COUNT_ATTEMPTS: Read[int] = Read(
    select(func.count())
    .select_from(ATTEMPT)
    .where(ATTEMPT.c.verification_id < _typed("before", ATTEMPT.c.verification_id)),
    _itself,
)
_COUNT_LOGGED: Read[int] = Read(
    select(func.count())
    .select_from(_TRANSITION)
    .where(_TRANSITION.c.verification_id < _typed("before", _TRANSITION.c.verification_id)),
    _itself,
)
_COUNT_NAMED: Read[int] = Read(
    select(func.count())
    .select_from(VERIFICATION)
    .where(
        VERIFICATION.c.id >= _typed("since", VERIFICATION.c.id),
        _BEFORE,
        VERIFICATION.c.recipient_sealed.is_not(None),
    ),
    _itself,
)
_COUNT_KEPT: Read[int] = Read(
    select(func.count())
    .select_from(_RECEIPT)
    .where(_RECEIPT.c.received_at < _typed("before", _RECEIPT.c.received_at)),
    _itself,
)
_COUNT_PAST: Read[int] = Read(
    select(func.count())
    .select_from(_SUPPRESSION)
    .where(_SUPPRESSION.c.until <= _typed("now", _SUPPRESSION.c.until)),
    _itself,
)
_COUNTERS_AFTER: Read[Counter] = Read(
    select(*columns_of(_COUNTER, Counter))
    .where(_COUNTER.c.key > _typed("after", _COUNTER.c.key))
    .order_by(asc(_COUNTER.c.key))
    .limit(value("limit")),
    Counter,
)

LOG = ByKeys(columns_of(_TRANSITION, Logged), _TRANSITION.c.verification_id, Logged)
_WIDTH = len(Verification._fields)


def _both(*cells: Any) -> tuple[Verification, Attempt | None]:
    attempt = cells[_WIDTH:]
    return (
        Verification._make(cells[:_WIDTH]),
        Attempt._make(attempt) if attempt[0] is not None else None,
    )


_VERSION: Read[int] = Read(
    select(VERIFICATION.c.version).where(VERIFICATION.c.id == _typed("id", VERIFICATION.c.id)),
    _itself,
)
_ALONE: Read[Verification] = Read(
    select(*columns_of(VERIFICATION, Verification)).where(
        VERIFICATION.c.id == _typed("id", VERIFICATION.c.id)
    ),
    Verification,
)
# A status asks this of one verification: each further statement is a transaction of its own.
_WITH_ATTEMPTS: Read[tuple[Verification, Attempt | None]] = Read(
    select(*columns_of(VERIFICATION, Verification), *columns_of(ATTEMPT, Attempt))
    .select_from(VERIFICATION.outerjoin(ATTEMPT, ATTEMPT.c.verification_id == VERIFICATION.c.id))
    .where(VERIFICATION.c.id == _typed("id", VERIFICATION.c.id)),
    _both,
)
_LOG_OF: Read[Logged] = Read(
    select(*columns_of(_TRANSITION, Logged)).where(
        _TRANSITION.c.verification_id == _typed("id", _TRANSITION.c.verification_id)
    ),
    Logged,
)
_SOONEST: Read[datetime | None] = Read(
    select(func.min(VERIFICATION.c.wake_at, type_=VERIFICATION.c.wake_at.type)).where(
        VERIFICATION.c.wake_at.is_not(None)
    ),
    _itself,
)


def _newest(*conditions: ColumnElement[bool]) -> Read[UUID]:
    """The newest verifications that meet the conditions, the last parameter of them."""
    wanted = select(VERIFICATION.c.id).where(*conditions)
    return Read(wanted.order_by(desc(VERIFICATION.c.id)).limit(value("limit")), _itself)


_OF_CLIENT = VERIFICATION.c.client_id == _typed("client", VERIFICATION.c.client_id)
_OF_REFERENCE = VERIFICATION.c.reference == value("reference")
_OF_NUMBER = VERIFICATION.c.recipient_index == value("index")
_BY_REFERENCE = _newest(_OF_REFERENCE, _OF_CLIENT)
_BY_REFERENCE_ALL = _newest(_OF_REFERENCE)
_BY_NUMBER = _newest(_OF_NUMBER, _OF_CLIENT)
_BY_NUMBER_ALL = _newest(_OF_NUMBER)
_OF_FURTHER = (
    _RECIPIENT.c.recipient_index == value("index"),
    VERIFICATION.c.id == _RECIPIENT.c.verification_id,
)
_BY_FURTHER = _newest(*_OF_FURTHER, _OF_CLIENT)
_BY_FURTHER_ALL = _newest(*_OF_FURTHER)
_KEPT: Read[Kept] = Read(
    select(*columns_of(_RECEIPT, Kept)).order_by(asc(_RECEIPT.c.id)).limit(value("limit")), Kept
)
_PARKED_SINCE: Read[Kept] = Read(
    select(*columns_of(_RECEIPT, Kept))
    .where(
        _RECEIPT.c.id > _typed("after", _RECEIPT.c.id),
        _RECEIPT.c.account == value("account"),
        _RECEIPT.c.why == PARKED,
        _RECEIPT.c.received_at >= _typed("since", _RECEIPT.c.received_at),
    )
    .order_by(asc(_RECEIPT.c.id))
    .limit(value("limit")),
    Kept,
)
_LINKABLE: Read[Kept] = Read(
    select(*columns_of(_RECEIPT, Kept))
    .join(
        ATTEMPT,
        and_(ATTEMPT.c.reference == _RECEIPT.c.reference, ATTEMPT.c.account == _RECEIPT.c.account),
    )
    .where(_RECEIPT.c.why == PARKED)
    .order_by(asc(_RECEIPT.c.id))
    .limit(value("limit")),
    Kept,
)
_CROWDED: Read[tuple[str, int]] = Read(
    select(_RECEIPT.c.account, func.count())
    .group_by(_RECEIPT.c.account)
    .having(func.count() > value("most")),
    _itself,
)
_KEPT_COUNT: Read[int] = Read(
    select(func.count()).select_from(_RECEIPT).where(_RECEIPT.c.account == value("account")),
    _itself,
)
_MARK_AT: Read[Mark] = Read(
    select(*columns_of(_MARK, Mark)).where(_MARK.c.name == value("name")), Mark
)
_CLIENTS: Read[Client] = Read(select(*columns_of(_CLIENT, Client)).order_by(_CLIENT.c.name), Client)
_API_KEY_BY_DIGEST: Read[ApiKey] = Read(
    select(*columns_of(_API_KEY, ApiKey)).where(_API_KEY.c.digest == value("digest")), ApiKey
)
_LATEST = _newest()
_ROUTE_STATES: Read[RouteState] = Read(select(*columns_of(_ROUTE_STATE, RouteState)), RouteState)


def _tallied(route: str, of: K, *counts: int) -> tuple[str, K, Tally]:
    return route, of, Tally(*counts)


def _tallies(by: ColumnElement[Any]) -> Select[Any]:
    """What was heard of each route since `since`, summed by another column of its counts."""
    return (
        select(_ROUTE_STAT.c.route, by, *(func.sum(_ROUTE_STAT.c[name]) for name in Tally._fields))
        .where(_ROUTE_STAT.c.at >= _typed("since", _ROUTE_STAT.c.at))
        .group_by(_ROUTE_STAT.c.route, by)
    )


_ROUTE_PLACES: Read[tuple[str, str, Tally]] = Read(_tallies(_ROUTE_STAT.c.country), _tallied)
_ROUTE_SUMS: Read[tuple[str, datetime, Tally]] = Read(_tallies(_ROUTE_STAT.c.at), _tallied)
_ANSWERS_BEFORE: Read[bytes] = Read(
    select(_IDEMPOTENCY.c.key)
    .where(_IDEMPOTENCY.c.created_at <= _typed("before", _IDEMPOTENCY.c.created_at))
    .limit(value("limit")),
    _itself,
)


_PLANS_KEPT = 4096  # decoded; a plan's digest names its content, so that none gets old


class Record(NamedTuple):
    """All that is known of one verification."""

    verification: Verification
    plan: Plan
    attempts: tuple[Attempt, ...]
    log: tuple[Logged, ...]


class Reads:
    """Point reads of what is committed, in the event loop on the reading connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._plans: dict[bytes, Plan] = {}

    async def past_suppressions(self, now: datetime, limit: int) -> tuple[Way, ...]:
        """Ways to numbers that are not believed closed any more."""
        return tuple(await self._engine.fetch(_PAST_SUPPRESSIONS, now, limit))

    async def record(self, verification_id: UUID, *, log: bool = True) -> Record | None:
        """One verification with its attempts and, on demand, its log."""
        found = await self._engine.fetch(_WITH_ATTEMPTS, verification_id)
        if not found:
            return None
        logged = await self._engine.fetch(_LOG_OF, verification_id) if log else []
        verification = found[0][0]
        attempts = [attempt for _, attempt in found if attempt is not None]
        plan = await self._plan(verification.plan)
        return Record(verification, plan, _in_order(attempts, _ordinal), _in_order(logged, _number))

    async def verification(self, verification_id: UUID) -> tuple[Verification, Plan] | None:
        """One verification and its plan, for who asks for no attempts."""
        found = await self._engine.fetch(_ALONE, verification_id)
        return (found[0], await self._plan(found[0].plan)) if found else None

    async def version(self, verification_id: UUID) -> int | None:
        """How often it has been written: no write of it, its attempts or its log leaves that as it
        was."""
        found = await self._engine.fetch(_VERSION, verification_id)
        return found[0] if found else None

    async def records(self, ids: Sequence[UUID], *, log: bool = True) -> list[Record]:
        """Several, in the order of `ids`; those not found are left out."""
        if len(ids) == 1:
            one = await self.record(ids[0], log=log)
            return [one] if one is not None else []
        engine = self._engine
        found = {v.id: v for v in await engine.fetch_by(VERIFICATIONS, list(ids))}
        attempts = await engine.fetch_by(ATTEMPTS, list(found))
        logged = await engine.fetch_by(LOG, list(found)) if log else []
        plans = await self._known({verification.plan for verification in found.values()})
        return [
            Record(
                verification,
                plans[verification.plan],
                _in_order([a for a in attempts if a.verification_id == named], _ordinal),
                _in_order([row for row in logged if row.verification_id == named], _number),
            )
            for named in ids
            if (verification := found.get(named)) is not None
        ]

    async def _plan(self, digest: bytes) -> Plan:
        return self._plans.get(digest) or (await self._known({digest}))[digest]

    async def _known(self, digests: set[bytes]) -> Mapping[bytes, Plan]:
        """Plans by their digests."""
        known = {digest: self._plans[digest] for digest in digests & self._plans.keys()}
        missing = await self._engine.fetch_by(PLANS, list(digests - known.keys()))
        if len(self._plans) + len(missing) > _PLANS_KEPT:
            self._plans.clear()
        self._plans.update(missing)
        return known | dict(missing)

    async def by_reference(
        self, client_id: UUID | None, reference: str, limit: int = 1
    ) -> list[UUID]:
        """The newest verifications a client gave that reference; None: of every client."""
        if client_id is None:
            return await self._engine.fetch(_BY_REFERENCE_ALL, reference, limit)
        return await self._engine.fetch(_BY_REFERENCE, reference, client_id, limit)

    async def by_number(self, client_id: UUID | None, index: bytes, limit: int = 1) -> list[UUID]:
        """The newest verifications of a number or other address, by its blind index, whether it is
        their principal one or not; None: of every client."""
        fetch = self._engine.fetch
        if client_id is None:
            found = await fetch(_BY_NUMBER_ALL, index, limit)
            more = await fetch(_BY_FURTHER_ALL, index, limit)
        else:
            found = await fetch(_BY_NUMBER, index, client_id, limit)
            more = await fetch(_BY_FURTHER, index, client_id, limit)
        return sorted({*found, *more}, reverse=True)[:limit] if more else found

    async def latest(self, limit: int) -> list[UUID]:
        """The newest verifications of all."""
        return await self._engine.fetch(_LATEST, limit)

    async def oldest(self, before: UUID, limit: int) -> tuple[UUID, ...]:
        """The oldest verifications, of those below an id."""
        return tuple(await self._engine.fetch(_OLDEST, before, limit))

    async def named(self, since: UUID, before: UUID, limit: int) -> tuple[UUID, ...]:
        """The oldest verifications between two ids that still hold addresses."""
        return tuple(await self._engine.fetch(_NAMED, since, before, limit))

    async def count_over(self, before: UUID) -> tuple[int, int, int]:
        """Verifications below an id, their attempts and the rows of their logs."""
        (verifications,) = await self._engine.fetch(_COUNT_OVER, before)
        (attempts,) = await self._engine.fetch(_COUNT_ATTEMPTS, before)
        (transitions,) = await self._engine.fetch(_COUNT_LOGGED, before)
        return verifications, attempts, transitions

    async def count_named(self, since: UUID, before: UUID) -> int:
        """Verifications between two ids that still hold addresses."""
        return (await self._engine.fetch(_COUNT_NAMED, since, before))[0]

    async def count_kept(self, before: datetime) -> int:
        """Receipts kept aside since before a moment."""
        return (await self._engine.fetch(_COUNT_KEPT, before))[0]

    async def count_past_suppressions(self, now: datetime) -> int:
        """Ways to numbers that are not believed closed any more."""
        return (await self._engine.fetch(_COUNT_PAST, now))[0]

    async def counters_after(self, key: bytes, limit: int) -> list[Counter]:
        """The counters that follow a key, in the order of keys."""
        return await self._engine.fetch(_COUNTERS_AFTER, key, limit)

    async def revision(self) -> str | None:
        """The migration that the database is at."""
        return next(iter(await self._engine.fetch(_REVISION)), None)

    async def newest_key(self) -> str | None:
        """The name of the key under which the newest verification is sealed."""
        return next(iter(await self._engine.fetch(_NEWEST_KEY)), None)

    async def soonest(self) -> datetime | None:
        """When the next verification is due."""
        return (await self._engine.fetch(_SOONEST))[0]

    async def kept(self, limit: int) -> list[Kept]:
        """The oldest receipts kept aside."""
        return await self._engine.fetch(_KEPT, limit)

    async def parked(
        self, account: str, since: datetime, after: UUID | None, limit: int
    ) -> list[Kept]:
        """Receipts of an account that wait for their reference, received since then: the oldest of
        those that follow an id."""
        after = after or lowest(since)
        return await self._engine.fetch(_PARKED_SINCE, after, account, since, limit)

    async def linkable(self, limit: int) -> list[Kept]:
        """The oldest parked receipts whose reference some attempt carries by now."""
        return await self._engine.fetch(_LINKABLE, limit)

    async def crowded(self, most: int) -> list[tuple[str, int]]:
        """The accounts of which more receipts than that are kept aside, and how many."""
        return await self._engine.fetch(_CROWDED, most)

    async def kept_count(self, account: str) -> int:
        """How many receipts of an account are kept aside."""
        return (await self._engine.fetch(_KEPT_COUNT, account))[0]

    async def mark(self, name: str) -> datetime | None:
        """When something was last done."""
        found = await self._engine.fetch(_MARK_AT, name)
        return found[0].at if found else None

    async def route_states(self) -> list[RouteState]:
        """How the routes stand of which anything was ever said."""
        return await self._engine.fetch(_ROUTE_STATES)

    async def route_sums(self, since: datetime) -> list[tuple[str, datetime, Tally]]:
        """What was heard of each route, over all countries and nodes, by when its counting began:
        not before `since`."""
        return await self._engine.fetch(_ROUTE_SUMS, since)

    async def route_places(self, since: datetime) -> list[tuple[str, str, Tally]]:
        """What was heard of each route in each country since then, over all nodes."""
        return await self._engine.fetch(_ROUTE_PLACES, since)

    async def answer(self, key: bytes) -> StoredAnswer | None:
        """What was answered under an Idempotency-Key."""
        found = await self._engine.fetch_by(ANSWERS, [key])
        return found[0] if found else None

    async def answers_before(self, before: datetime, limit: int) -> list[bytes]:
        """The keys of answers stored until then."""
        return await self._engine.fetch(_ANSWERS_BEFORE, before, limit)

    async def api_key(self, digest: bytes) -> ApiKey | None:
        """The key with that SHA-256."""
        found = await self._engine.fetch(_API_KEY_BY_DIGEST, digest)
        return found[0] if found else None

    async def clients(self) -> list[Client]:
        """Every client, by name."""
        return await self._engine.fetch(_CLIENTS)


def _in_order(rows: list[K], place: Callable[[K], int]) -> tuple[K, ...]:
    if len(rows) > 1:
        rows.sort(key=place)
    return tuple(rows)


def _ordinal(attempt: Attempt) -> int:
    return attempt.ordinal


def _number(row: Logged) -> int:
    return row.number
