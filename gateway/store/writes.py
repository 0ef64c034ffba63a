"""What a batch writes, one statement a table. The ledger opens and ends the transaction.

The guards stay in the statements although the ledger has locked and loaded every row: `version`,
the monotone rank of a state, and that an ended verification never runs again. A guard that holds
raises Conflict, and the batch decides again on what is really there.

Over 400 lines, so that every guarded statement of a batch stands beside the others.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import ne
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import (
    Integer,
    Table,
    and_,
    bindparam,
    delete,
    desc,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlmodel import SQLModel

from gateway.domain.delivery import Attempt, Cause, State
from gateway.domain.health import RouteState, Standing
from gateway.domain.limits import Counter
from gateway.domain.verification import Status, Verification
from gateway.store import tables
from gateway.store.engine import Engine, Write, names_of, value
from gateway.store.records import (
    ApiKey,
    Client,
    Counted,
    Crowd,
    Further,
    Kept,
    KeyUse,
    Logged,
    Mark,
    Named,
    Probe,
    StoredAnswer,
    StoredPlan,
    Suppression,
    Way,
)


class _At(NamedTuple):
    at: datetime


def table(model: type[SQLModel]) -> Table:
    """The Core table behind a SQLModel class."""
    return SQLModel.metadata.tables[str(model.__tablename__)]


VERIFICATION = table(tables.Verification)
ATTEMPT = table(tables.Attempt)


def _insert(into: Table, kind: type, order: Sequence[str] = (), **usual: object) -> Write:
    return Write(insert(into).values({name: value(name) for name in names_of(kind)}), order, usual)


_TALLY = [name for name in names_of(Counted) if name not in {"at", "route", "country", "node"}]


_RUNNING = ("recipient_index", "client_id", "purpose")  # of which one may be PENDING
_INSERT_VERIFICATION = _insert(
    VERIFICATION, Verification, _RUNNING, reference=None, code_sealed=None, step=0,
    status=Status.PENDING, checks_used=0, sends_used=1, ended_at=None, version=0, log=0,
    locale=None, params_sealed=None, trace=None, events=0,
)  # fmt: skip


def _update_verification(names: Iterable[str]) -> Write:
    changes = {name: value(name) for name in names} | {"version": VERIFICATION.c.version + 1}
    return Write(
        update(VERIFICATION)
        .where(
            VERIFICATION.c.id == value("id"),
            VERIFICATION.c.version == value("version"),
            or_(VERIFICATION.c.status == Status.PENDING, VERIFICATION.c.status == value("status")),
        )
        .values(changes)
    )


_UPDATE_VERIFICATION = _update_verification(
    ("recipient_sealed", "code_sealed", "step", "status", "checks_used", "sends_used", "sent_at",
     "ended_at", "wake_at", "log", "params_sealed", "events")
)  # fmt: skip
# Most steps only move these. What a statement names, its indexes pay for, changed or not.
_TOUCH_VERIFICATION = _update_verification(("wake_at", "log", "events"))
_STANDING = Verification._fields.index("wake_at")  # the fields before it stay as they are

_INSERT_ATTEMPT = _insert(
    ATTEMPT, Attempt, ordinal=1, step=0, resend=0, cause=Cause.FIRST, state=State.QUEUED,
    outcome=None, reference=None, reason=None, error=None, sent_at=None, delivered_at=None,
    read_at=None, polled_at=None, retry_at=None, tries=1, words="", repeats=0, cost=None,
)  # fmt: skip
_ATTEMPT_FIXED = {"id", "verification_id", "ordinal", "step", "resend", "cause", "account", "route",
                  "channel", "queued_at"}  # fmt: skip
_ATTEMPT_CHANGES = [name for name in Attempt._fields if name not in _ATTEMPT_FIXED]
_STATE = Attempt._fields.index("state")
_REFERENCE = Attempt._fields.index("reference")


def _update_attempt(moves: bool, names: Iterable[str]) -> Write:
    guard = ATTEMPT.c.state < value("state") if moves else ATTEMPT.c.state == value("state")
    changes = {name: value(name) for name in names}
    return Write(update(ATTEMPT).where(ATTEMPT.c.id == value("id"), guard).values(changes))


_UPDATE_ATTEMPT = {moves: _update_attempt(moves, _ATTEMPT_CHANGES) for moves in (True, False)}
_ATTEMPT_FORMS: dict[tuple[bool, ...], Write] = {}  # those that name less, by what changes
_MOST_FORMS = 32


def _attempt_form(moves: bool, befores: Iterable[Attempt], afters: Iterable[Attempt]) -> Write:
    """The statement that names the fields in which any of these differ, five of sixteen as a rule:
    what it names is converted, bound, and paid for by its indexes, changed or not."""
    differ = tuple(map(ne, zip(*befores, strict=True), zip(*afters, strict=True)))
    form = _ATTEMPT_FORMS.get(differ)  # whether the state moves is one of them
    if form is not None:
        return form
    changed = {name for name, here in zip(Attempt._fields, differ, strict=True) if here}
    names = [name for name in _ATTEMPT_CHANGES if name in changed]
    if not names or len(_ATTEMPT_FORMS) >= _MOST_FORMS:
        return _UPDATE_ATTEMPT[moves]
    form = _ATTEMPT_FORMS[differ] = _update_attempt(moves, names)
    return form


_INSERT_LOGGED = _insert(
    table(tables.Transition), Logged, applied=True, word=None, provider_time=None
)

_RECEIPT = table(tables.Receipt)
_INSERT_KEPT = _insert(_RECEIPT, Kept)
_DELETE_KEPT = Write(delete(_RECEIPT).where(_RECEIPT.c.id == value("id")))

_OTHERS = _RECEIPT.alias()
_TRIM_KEPT = Write(
    delete(_RECEIPT).where(
        _RECEIPT.c.account == value("account"),
        _RECEIPT.c.id
        <= select(_OTHERS.c.id)
        .where(_OTHERS.c.account == value("account"))
        .order_by(desc(_OTHERS.c.id))
        .offset(bindparam("v_most", type_=Integer))
        .limit(1)
        .scalar_subquery(),
    )
)
_EXPIRE_KEPT = Write(delete(_RECEIPT).where(_RECEIPT.c.received_at < value("at")))

_PLAN = table(tables.Plan)
_INSERT_PLAN = Write(
    upsert(_PLAN)
    .values({name: value(name) for name in names_of(StoredPlan)})
    .on_conflict_do_nothing()
)

_INSERT_FURTHER = _insert(table(tables.Recipient), Further)

# A verification and what hangs on it: children first, foreign keys are on.
_RECIPIENT = table(tables.Recipient)
_DELETE_FURTHER = Write(delete(_RECIPIENT).where(_RECIPIENT.c.verification_id == value("id")))
_TRANSITION = table(tables.Transition)
_DELETE_LOGGED = Write(delete(_TRANSITION).where(_TRANSITION.c.verification_id == value("id")))
_DELETE_ATTEMPTS = Write(delete(ATTEMPT).where(ATTEMPT.c.verification_id == value("id")))
_DELETE_VERIFICATION = Write(
    delete(VERIFICATION).where(
        VERIFICATION.c.id == value("id"), VERIFICATION.c.version == value("version")
    )
)
_FORGET_INDEX = Write(
    update(VERIFICATION)
    .where(VERIFICATION.c.id == value("id"))
    .values(recipient_index=b"", version=VERIFICATION.c.version + 1)
)

_COUNTER = table(tables.Counter)
_DELETE_COUNTER = Write(
    delete(_COUNTER).where(_COUNTER.c.key == value("key"), _COUNTER.c.since == value("since"))
)
_INSERT_COUNTER = _insert(_COUNTER, Counter, ("key",))
_PUT_COUNTER = Write(
    upsert(_COUNTER)
    .values({name: value(name) for name in names_of(Counter)})
    .on_conflict_do_update(
        index_elements=[_COUNTER.c.key],
        set_={"since": upsert(_COUNTER).excluded.since, "count": upsert(_COUNTER).excluded.count},
    )
)
# Most counts go on in an open window: what a statement names, its indexes pay for.
_RAISE_COUNTER = Write(
    update(_COUNTER)
    .where(_COUNTER.c.key == value("key"), _COUNTER.c.since == value("since"))
    .values(count=value("count"))
)

_MARK = table(tables.Mark)
_PUT_MARK = Write(
    upsert(_MARK)
    .values({name: value(name) for name in names_of(Mark)})
    .on_conflict_do_update(index_elements=[_MARK.c.name], set_={"at": upsert(_MARK).excluded.at})
)

_SUPPRESSION = table(tables.Suppression)
_PUT_SUPPRESSION = Write(
    upsert(_SUPPRESSION)
    .values({name: value(name) for name in names_of(Suppression)})
    .on_conflict_do_update(
        index_elements=list(_SUPPRESSION.primary_key.columns),
        set_={name: upsert(_SUPPRESSION).excluded[name] for name in ("reason", "since", "until")},
    )
)
_LIFT_SUPPRESSION = Write(
    delete(_SUPPRESSION).where(
        *(column == value(column.name) for column in _SUPPRESSION.primary_key.columns)
    )
)

_ROUTE_STAT = table(tables.RouteStat)
_COUNT = Write(
    upsert(_ROUTE_STAT)
    .values({name: value(name) for name in names_of(Counted)})
    .on_conflict_do_update(
        index_elements=list(_ROUTE_STAT.primary_key.columns),
        set_={name: _ROUTE_STAT.c[name] + upsert(_ROUTE_STAT).excluded[name] for name in _TALLY},
    )
)
_FORGET_COUNTS = Write(delete(_ROUTE_STAT).where(_ROUTE_STAT.c.at < value("at")))

_ROUTE_STATE = table(tables.RouteState)
_STATED = {name: value(name) for name in names_of(RouteState)}
_STATE_ANEW = {
    name: upsert(_ROUTE_STATE).excluded[name] for name in names_of(RouteState) if name != "route"
}
_ORDER_ROUTE = Write(
    upsert(_ROUTE_STATE)
    .values(_STATED)
    .on_conflict_do_update(index_elements=[_ROUTE_STATE.c.route], set_=_STATE_ANEW)
)
_STATE_ROUTE = Write(
    upsert(_ROUTE_STATE)
    .values(_STATED)
    .on_conflict_do_update(
        index_elements=[_ROUTE_STATE.c.route],
        set_=_STATE_ANEW,
        where=and_(
            _ROUTE_STATE.c.standing != Standing.DISABLED,
            _ROUTE_STATE.c.standing != Standing.PINNED,
        ),
    )
)
_PROBE_ROUTE = Write(
    update(_ROUTE_STATE)
    .where(
        _ROUTE_STATE.c.route == value("route"),
        _ROUTE_STATE.c.standing == Standing.PAUSED,
        _ROUTE_STATE.c.since == value("since"),
        _ROUTE_STATE.c.probe_at == value("probe_at"),
    )
    .values(
        probe_at=bindparam("v_next_at", type_=_ROUTE_STATE.c.probe_at.type), opened=value("opened")
    )
)
_IDEMPOTENCY = table(tables.Idempotency)
_INSERT_ANSWER = _insert(_IDEMPOTENCY, StoredAnswer)
_DELETE_ANSWER = Write(
    delete(_IDEMPOTENCY).where(
        _IDEMPOTENCY.c.key == value("key"), _IDEMPOTENCY.c.created_at == value("created_at")
    )
)

_INSERT_CLIENT = _insert(table(tables.Client), Client)
_API_KEY = table(tables.ApiKey)
_INSERT_API_KEY = _insert(_API_KEY, ApiKey)
_NOTE_USE = Write(
    update(_API_KEY).where(_API_KEY.c.id == value("id")).values(last_used_at=value("last_used_at"))
)


async def insert_verifications(engine: Engine, values: Sequence[Verification]) -> None:
    """New ones. A second running one for the same client, number and purpose is a Conflict."""
    await engine.run(_INSERT_VERIFICATION, values)


async def update_verifications(
    engine: Engine, changed: Sequence[tuple[Verification, Verification]]
) -> None:
    """Pairs of a verification as loaded and as it is to be, still carrying the loaded version.
    Ended ones go first: an expired verification makes room for its successor's unique key.
    """
    touched: list[Verification] = []
    others: list[Verification] = []
    for before, after in changed:
        (touched if before[:_STANDING] == after[:_STANDING] else others).append(after)
    if others:
        await engine.run(_UPDATE_VERIFICATION, others)
    if touched:
        await engine.run(_TOUCH_VERIFICATION, touched)


async def insert_attempts(engine: Engine, values: Sequence[Attempt]) -> None:
    """New ones. An ordinal that somebody else has taken is a Conflict."""
    await engine.run(_INSERT_ATTEMPT, values)


async def move(
    engine: Engine, moved: Sequence[tuple[Attempt, Attempt]], logged: Sequence[Logged]
) -> None:
    """The only place where a state changes: for a whole batch, upwards only, and into the log.

    `moved` pairs an attempt as it was loaded and as it is to be. One that carries only news (a
    reference, a repeated word) keeps its state and is written too.
    """
    kinds: dict[tuple[bool, bool], tuple[list[Attempt], list[Attempt]]] = {}
    for before, after in moved:
        moves = after[_STATE] is not before[_STATE]
        refers = after[_REFERENCE] != before[_REFERENCE]  # its index is spared otherwise
        befores, afters = kinds.setdefault((moves, refers), ([], []))
        befores.append(before)
        afters.append(after)
    for (moves, _), (befores, afters) in kinds.items():
        await engine.run(_attempt_form(moves, befores, afters), afters)
    if logged:
        await engine.run(_INSERT_LOGGED, logged)


async def keep_receipts(engine: Engine, values: Sequence[Kept]) -> None:
    """Receipts nobody can be given yet, or ever."""
    await engine.run(_INSERT_KEPT, values)


async def drop_receipts(engine: Engine, values: Sequence[Kept]) -> None:
    """Receipts that found their attempt, or are past their time."""
    await engine.run(_DELETE_KEPT, values, expect=False)


async def trim_receipts(engine: Engine, values: Sequence[Crowd]) -> None:
    """Of these accounts only the newest receipts stay."""
    await engine.run(_TRIM_KEPT, values, expect=False)


async def expire_receipts(engine: Engine, before: datetime) -> None:
    """Those received before that moment go."""
    await engine.run(_EXPIRE_KEPT, [_At(before)], expect=False)


async def insert_plans(engine: Engine, values: Sequence[StoredPlan]) -> None:
    """Plans that this process has not stored before; others may have."""
    await engine.run(_INSERT_PLAN, values, expect=False)


async def insert_further(engine: Engine, values: Sequence[Further]) -> None:
    """The addresses of new verifications besides their principal ones."""
    await engine.run(_INSERT_FURTHER, values)


async def delete_verifications(engine: Engine, values: Sequence[Verification]) -> None:
    """With attempts, log and further addresses. One that is not as loaded is a Conflict."""
    for statement in (_DELETE_FURTHER, _DELETE_LOGGED, _DELETE_ATTEMPTS):
        await engine.run(statement, values, expect=False)
    await engine.run(_DELETE_VERIFICATION, values)


async def delete_further(engine: Engine, values: Sequence[Named]) -> None:
    """The further addresses of verifications; most have none."""
    await engine.run(_DELETE_FURTHER, values, expect=False)


async def forget_indexes(engine: Engine, values: Sequence[Named]) -> None:
    """Nobody finds these verifications by an address any more."""
    await engine.run(_FORGET_INDEX, values)


async def delete_counters(engine: Engine, values: Sequence[Counter]) -> None:
    """Counts whose window is over; one that has begun anew stays."""
    await engine.run(_DELETE_COUNTER, values, expect=False)


async def put_counters(
    engine: Engine,
    values: Sequence[Counter],
    opened: Mapping[bytes, datetime | None] = MappingProxyType({}),
) -> None:
    """Counters as they are now. `opened`: of those that were looked at under the lock, since when
    they were counted; None where there was no row to hold, so that one inserted by another node
    meanwhile is a Conflict."""
    new = [one for one in values if one.key in opened and opened[one.key] is None]
    raised = [one for one in values if opened.get(one.key) == one.since]
    known = {one.key for one in (*new, *raised)}
    begun = [one for one in values if one.key not in known]
    for statement, some in (
        (_INSERT_COUNTER, new),
        (_RAISE_COUNTER, raised),
        (_PUT_COUNTER, begun),
    ):
        if some:
            await engine.run(statement, some)


async def put_suppressions(engine: Engine, values: Sequence[Suppression]) -> None:
    """What providers said last of numbers that do not take a channel."""
    await engine.run(_PUT_SUPPRESSION, values)


async def lift_suppressions(engine: Engine, values: Sequence[Way]) -> None:
    """Forget them; most were never there."""
    await engine.run(_LIFT_SUPPRESSION, values, expect=False)


async def insert_answers(engine: Engine, values: Sequence[StoredAnswer]) -> None:
    """Answers by Idempotency-Key. A key that somebody else has used is a Conflict."""
    await engine.run(_INSERT_ANSWER, values)


async def drop_answers(engine: Engine, values: Sequence[StoredAnswer]) -> None:
    """Answers whose time is over, as they were loaded."""
    await engine.run(_DELETE_ANSWER, values)


async def put_marks(engine: Engine, values: Sequence[Mark]) -> None:
    """Marks as they are now."""
    await engine.run(_PUT_MARK, values)


async def count(engine: Engine, values: Sequence[Counted]) -> None:
    """Add what a batch has heard of the routes: a row a route and country."""
    await engine.run(_COUNT, values)


async def forget_counts(engine: Engine, before: datetime) -> None:
    """Drop what was counted before that moment."""
    await engine.run(_FORGET_COUNTS, [_At(before)], expect=False)


async def state_routes(engine: Engine, values: Sequence[RouteState]) -> None:
    """How breakers see routes now. What an operator has disabled or pinned stays so."""
    await engine.run(_STATE_ROUTE, values, expect=False)


async def order_routes(engine: Engine, values: Sequence[RouteState]) -> None:
    """How an operator wants routes to stand."""
    await engine.run(_ORDER_ROUTE, values)


async def probe_routes(engine: Engine, values: Sequence[Probe]) -> None:
    """Let one message through on each. A Conflict when somebody else just has."""
    await engine.run(_PROBE_ROUTE, values)


async def insert_client(engine: Engine, client: Client, key: ApiKey) -> None:
    """A client and its first key. A name that is taken is a Conflict."""
    await engine.run(_INSERT_CLIENT, [client])
    await insert_key(engine, key)


async def insert_key(engine: Engine, key: ApiKey) -> None:
    """A further key of a client."""
    await engine.run(_INSERT_API_KEY, [key])


async def note_uses(engine: Engine, values: Sequence[KeyUse]) -> None:
    """When keys were last used; one that is gone meanwhile is passed over."""
    await engine.run(_NOTE_USE, values, expect=False)
