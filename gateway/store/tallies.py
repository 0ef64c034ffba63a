"""Sums of many: counts that every node keeps for itself and that are added up when read.

A number's own counter is one row, locked and written by whoever counts. What counts more than one
number (sends of a client, to a country, from an address; money of a day) would be one row that
every node queues on. Here a node only ever adds to its own row, so nobody waits for anybody, and a
batch adds once a key however many sends it holds. Where one process serves (SQLite) the node is ""
and there is one row a key. A key belongs to one window and is never begun anew: it is added to, and
swept once `until` has passed.

A key that has a maximum is locked, by its name, before it is read: nodes that decide on the same
one do so in turn, since each must see what the other has added. The guard's ratios are read as they
are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, asc, bindparam, cast, delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.domain.limits import Counter
from gateway.store import tables
from gateway.store.engine import ByKeys, Engine, Read, Write, columns_of, names_of, value
from gateway.store.writes import table


class Tally(NamedTuple):
    """What one node added to a key. `amount` is sends, or money in its smallest unit; `verified`
    how many of the sends were answered with the right code. Of no use after `until`.
    """

    key: bytes
    node: str
    amount: int
    verified: int
    until: datetime


class Sum(NamedTuple):
    """What all nodes counted under a key."""

    amount: int = 0
    verified: int = 0


@dataclass(frozen=True, slots=True)
class Pass:
    """A scope of the guard (a prefix, a country) that is let through, until when, and why."""

    scope: str
    until: datetime
    reason: str
    created_at: datetime


class _Amount(NamedTuple):
    key: bytes
    amount: int
    verified: int


@dataclass(slots=True)
class _Added:
    """What this batch adds to a key so far."""

    node: str
    amount: int
    verified: int
    until: datetime


class Tallies:
    """The sums a batch wanted, and what it adds to them."""

    def __init__(self) -> None:
        self._sums: dict[bytes, Sum] = {}  # as loaded
        self._added: dict[bytes, _Added] = {}

    def sum(self, key: bytes) -> Sum:
        """What was counted so far, this batch's earlier decisions included."""
        loaded, added = self._sums.get(key, _NOTHING), self._added.get(key)
        if added is None:
            return loaded
        return Sum(loaded.amount + added.amount, loaded.verified + added.verified)

    def add(self, tally: Tally) -> None:
        """Count more. The key need not have been wanted."""
        key, node, amount, verified, until = tally
        added = self._added.get(key)
        if added is None:
            self._added[key] = _Added(node, amount, verified, until)
        else:
            added.amount += amount
            added.verified += verified

    def one_more(self, keys: Iterable[bytes]) -> Sequence[bytes]:
        """Count one more send under each key that this batch counts under already; the others: to
        add them takes a tally, which knows its node and its end."""
        others: tuple[bytes, ...] = ()
        for key in keys:
            added = self._added.get(key)
            if added is None:
                others += (key,)
            else:
                added.amount += 1
        return others

    async def load(self, engine: Engine, keys: Iterable[bytes], held: Sequence[bytes]) -> None:
        """Read the sums, inside the open transaction; nobody else adds to those `held` until it has
        ended."""
        if held:
            await engine.lock([("tally", key.hex()) for key in held])
        self._sums = summed(await engine.load(_AMOUNTS, list(dict.fromkeys((*keys, *held)))))

    async def write(self, engine: Engine) -> None:
        """Add what the batch counted, one statement."""
        if self._added:
            rows = [
                Tally(key, one.node, one.amount, one.verified, one.until)
                for key, one in sorted(self._added.items(), key=_KEY)
            ]
            await engine.run(_ADD, rows)


_NOTHING = Sum()
_KEY = itemgetter(0)
_TALLY = table(tables.Tally)
_PASS = table(tables.GuardPass)
_COUNTER = table(tables.Counter)

_AMOUNTS = ByKeys(columns_of(_TALLY, _Amount), _TALLY.c.key, _Amount)
_ADDING = upsert(_TALLY).values({name: value(name) for name in names_of(Tally)})
_ADD = Write(
    _ADDING.on_conflict_do_update(
        index_elements=[_TALLY.c.key, _TALLY.c.node],
        set_={
            "amount": _TALLY.c.amount + _ADDING.excluded.amount,
            "verified": _TALLY.c.verified + _ADDING.excluded.verified,
        },
    )
)
_BETWEEN: Read[_Amount] = Read(
    select(
        _TALLY.c.key,
        cast(func.sum(_TALLY.c.amount), BigInteger).label("amount"),  # else numeric, on PostgreSQL
        cast(func.sum(_TALLY.c.verified), BigInteger).label("verified"),
    )
    .where(_TALLY.c.key >= value("first"), _TALLY.c.key < value("last"))
    .group_by(_TALLY.c.key)
    .order_by(asc(_TALLY.c.key)),
    _Amount,
)


def _at(name: str) -> Any:
    return bindparam(f"v_{name}", type_=_TALLY.c.until.type)


_PAST_TALLIES: Read[Tally] = Read(
    select(*columns_of(_TALLY, Tally)).where(_TALLY.c.until <= _at("now")).limit(value("limit")),
    Tally,
)
_IDLE_COUNTERS: Read[Counter] = Read(
    select(*columns_of(_COUNTER, Counter))
    .where(_COUNTER.c.since <= _at("before"))
    .limit(value("limit")),
    Counter,
)
_FORGET_TALLY = Write(
    delete(_TALLY).where(_TALLY.c.key == value("key"), _TALLY.c.node == value("node"))
)
# As it was read: one whose window was opened anew meanwhile stays.
_FORGET_COUNTER = Write(
    delete(_COUNTER).where(_COUNTER.c.key == value("key"), _COUNTER.c.since == value("since"))
)

_PASSES: Read[Pass] = Read(
    select(*columns_of(_PASS, Pass)).where(_PASS.c.until > _at("now")).order_by(_PASS.c.scope), Pass
)
_PUTTING = upsert(_PASS).values({name: value(name) for name in names_of(Pass)})
_PUT_PASS = Write(
    _PUTTING.on_conflict_do_update(
        index_elements=[_PASS.c.scope],
        set_={name: _PUTTING.excluded[name] for name in ("until", "reason", "created_at")},
    )
)


def summed(rows: Iterable[_Amount]) -> dict[bytes, Sum]:
    """Each node's rows added up, by key."""
    sums: dict[bytes, Sum] = {}
    for key, amount, verified in rows:
        before = sums.get(key, _NOTHING)
        sums[key] = Sum(before.amount + amount, before.verified + verified)
    return sums


async def between(engine: Engine, first: bytes, last: bytes) -> dict[bytes, Sum]:
    """The committed sums of the keys from `first` to before `last`, in their order."""
    return summed(await engine.fetch(_BETWEEN, first, last))


async def past(engine: Engine, now: datetime, limit: int) -> tuple[Tally, ...]:
    """Tallies whose time is over."""
    return tuple(await engine.fetch(_PAST_TALLIES, now, limit))


async def idle(engine: Engine, before: datetime, limit: int) -> tuple[Counter, ...]:
    """Counters whose window was opened that long ago."""
    return tuple(await engine.fetch(_IDLE_COUNTERS, before, limit))


async def forget(engine: Engine, tallies: Sequence[Tally], counters: Sequence[Counter]) -> None:
    """Rows that nobody asks for any more; another node may have been faster, or does the same: in
    the order of their keys."""
    if tallies:
        ordered = sorted(tallies, key=lambda one: (one.key, one.node))
        await engine.run(_FORGET_TALLY, ordered, expect=False)
    if counters:
        by_key = sorted(counters, key=lambda one: one.key)
        await engine.run(_FORGET_COUNTER, by_key, expect=False)


async def passes(engine: Engine, now: datetime) -> tuple[Pass, ...]:
    """What the guard lets through now, by scope."""
    return tuple(await engine.fetch(_PASSES, now))


async def put_pass(engine: Engine, given: Pass) -> None:
    """Let a scope through, inside the caller's transaction; what was said of it before is
    replaced."""
    await engine.run(_PUT_PASS, [given])


async def allow(engine: Engine, given: Pass) -> None:
    """The same, in a transaction of its own."""
    await engine.begin()
    await put_pass(engine, given)
    await engine.commit()
