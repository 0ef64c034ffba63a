"""The audit log: appended to, read, checked; never changed."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

import orjson
from sqlalchemy import asc, desc, insert, select

from gateway.domain.audit import Act, Chain, Entry, entry
from gateway.store import tables
from gateway.store.engine import Engine, Read, Write, columns_of, names_of, value
from gateway.store.writes import table

CHUNK = 500  # rows in hand at once
COLUMNS = ("sequence", "at", "actor", "action", "subject", "what", "why", "before", "digest")

_CHAIN = ("audit", "chain")  # the lock of those who append
_FORMULA = frozenset("=+-@\t\r")
_AUDIT = table(tables.Audit)
_ROWS = select(*columns_of(_AUDIT, Entry))
_LAST: Read[Entry] = Read(_ROWS.order_by(desc(_AUDIT.c.sequence)).limit(1), Entry)
_ONWARD: Read[Entry] = Read(
    _ROWS.where(_AUDIT.c.sequence > value("sequence"))
    .order_by(asc(_AUDIT.c.sequence))
    .limit(value("limit")),
    Entry,
)
_INSERT = Write(insert(_AUDIT).values({name: value(name) for name in names_of(Entry)}))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows; empty means all. They meet all that is given."""

    actor: str = ""
    action: str = ""
    subject: str = ""


def _back(*names: str) -> Read[Entry]:
    """The newest rows before one, of these columns' given values."""
    conditions = [_AUDIT.c[name] == value(name) for name in names]
    wanted = _ROWS.where(_AUDIT.c.sequence < value("sequence"), *conditions)
    return Read(wanted.order_by(desc(_AUDIT.c.sequence)).limit(value("limit")), Entry)


_FILTERS = ("actor", "action", "subject")
_BACK = {
    tuple(name for at, name in enumerate(_FILTERS) if bits >> at & 1): _back(
        *(name for at, name in enumerate(_FILTERS) if bits >> at & 1)
    )
    for bits in range(1 << len(_FILTERS))
}


async def append(engine: Engine, act: Act, now: datetime) -> Entry:
    """Write it down, inside the caller's transaction and last in it: nobody else, on any node, adds
    to the chain until that has ended."""
    await engine.lock([_CHAIN])
    last = await engine.load_one(_LAST)
    made = entry(_storable(act), last[0] if last else None, now)
    await engine.run(_INSERT, [made])
    return made


def _storable(act: Act) -> Act:
    """Without U+0000, which PostgreSQL's text does not take: the digest is of what is stored."""
    given = {name: text for name, text in act._asdict().items() if text}
    return act._replace(
        **{name: text.replace("\0", "\N{REPLACEMENT CHARACTER}") for name, text in given.items()}
    )


async def newest(
    engine: Engine, wanted: Filter, limit: int, before: int | None = None
) -> list[Entry]:
    """The newest rows, or those before a sequence number, newest first."""
    given = tuple(name for name in _FILTERS if getattr(wanted, name))
    values = [getattr(wanted, name) for name in given]
    upto = before if before is not None else 1 << 62
    return await engine.fetch(_BACK[given], upto, *values, limit)


async def onward(engine: Engine, after: int = 0) -> AsyncIterator[list[Entry]]:
    """Every row after a sequence number in its order, a chunk at a time."""
    while rows := await engine.fetch(_ONWARD, after, CHUNK):
        after = rows[-1].sequence
        yield rows


async def verify(engine: Engine) -> tuple[Chain, list[str]]:
    """The whole chain, and what is wrong with it."""
    chain, wrong = Chain(), list[str]()
    async for rows in onward(engine):
        wrong += chain.follow(rows)
    return chain, wrong


async def missing(engine: Engine, head: str) -> list[str]:
    """What is wrong with a head that was kept: its row is gone, or is another one now."""
    number, _, digest = head.partition(":")
    if not number.isdecimal():
        return [f"{head!r} is not a head: NUMBER:DIGEST"]
    found = await engine.fetch(_ONWARD, int(number) - 1, 1)
    if int(number) and (not found or f"{found[0].sequence}:{found[0].digest.hex()}" != head):
        return [f"row {number} is gone or is not the one that was kept: {digest[:16]}…"]
    return []


def line(row: Entry) -> bytes:
    """A row as one line of JSON."""
    facts = {name: getattr(row, name) for name in COLUMNS}
    facts |= {"before": row.before.hex(), "digest": row.digest.hex()}
    return orjson.dumps(facts, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def cells(row: Entry) -> list[str]:
    """A row for CSV. What a spreadsheet would run as a formula is quoted."""
    facts = (row.actor, row.action, row.subject or "", row.what, row.why)
    told = [f"'{text}" if text[:1] in _FORMULA else text for text in facts]
    return [str(row.sequence), row.at.isoformat(), *told, row.before.hex(), row.digest.hex()]
