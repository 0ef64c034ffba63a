"""How the price of a call grows with the database: the same calls on 10,000 rows and more.

Real verifications are sent, delivered and canceled through the gateway; then, while it is stopped,
their rows are multiplied in the file until there are as many as wanted. A twin's id begins with the
same moment, so that the real rows, which are asked for, lie scattered over the whole table.
"""

import hashlib
import math
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from bench_gateways import Ours, variant
from bench_phases import PATIENCE, claim, each
from bench_processes import BenchError
from bench_rounds import Figures, Options, Session

REAL = 2000  # verifications that are asked for
FIRST = 10_000  # rows of the smallest database
REPEATS = 5  # of each reading
OF_A_SIZE = 10_000  # numbers
IDLE = 3.0  # seconds in which nothing is due
TABLES = ("verification", "attempt", "transition")
IDS = ("id", "verification_id")
MOMENT = 6  # bytes of a UUIDv7 that tell its time
UNIQUE = ("recipient_index", "salt")  # bytes


@dataclass
class Size:
    """What was measured at one size: CPU seconds per 1,000 calls, or per second for `idle`."""

    rows: int
    readings: dict[str, list[float]] = field(default_factory=dict)
    bytes_each: dict[str, float] = field(default_factory=dict)
    filled_in: float = 0.0  # seconds
    errors: list[str] = field(default_factory=list)


def sizes(largest: int) -> list[int]:
    """10k, 100k and so on up to the largest."""
    found = [FIRST]
    while found[-1] * 10 <= largest:
        found.append(found[-1] * 10)
    return found if found[-1] == largest or largest < FIRST else [*found, largest]


def exponent(grown: Sequence[tuple[int, float]]) -> float:
    """Of the power by which a price grows from the first size to the last; 0: it does not."""
    (small, low), (large, high) = grown[0], grown[-1]
    if large <= small or low <= 0 or high <= 0:
        return math.nan
    return math.log(high / low) / math.log(large / small)


def grow(parent: Path, options: Options, say: Callable[[str], None]) -> list[Size]:
    """The readings at each size. Raises BenchError when something goes wrong on the way."""
    home = parent / "growth"
    grown = _on(home, key=None)
    found: list[Size] = []
    real: dict[str, str] = {}
    empty: dict[str, int] = {}
    for at, rows in enumerate(sizes(options.grow_to)):
        if not real:
            with Session(grown, parent, options) as session:
                empty = session.gateway.stored()
                real = _real(session)
                grown = _on(home, key=session.gateway.headers["Authorization"])
                session.gateway.stop()
        began = time.monotonic()
        fill(home / "gateway.db", rows, [UUID(one).bytes for one in real.values()])
        size = Size(rows, filled_in=time.monotonic() - began)
        with Session(grown, parent, options) as session:
            size.bytes_each = each(empty, session.gateway.stored(), rows)
            session.take_numbers(REAL + 1 + at * OF_A_SIZE)  # none that the database knows
            _measure(session, size, real)
            session.gateway.stop()
        say(f"growth, {rows:,} rows: {_line(size)}")
        found.append(size)
    return found


def _on(home: Path, key: str | None) -> type[Ours]:
    """A gateway on the files of that folder, started again and again."""

    class Grown(variant(Ours, patience=PATIENCE, falls_back=True)):  # type: ignore[misc]
        def _data(self) -> Path:
            return home

        def start(self) -> None:
            if key is None:
                super().start()
            else:
                self.restart()
                self.headers = {"Authorization": key}

    return Grown


def _real(session: Session) -> dict[str, str]:
    """Verifications that are over: number → id."""
    to = session.numbers_ahead(REAL)
    figures, ids = session.send(REAL, receipts=True)
    if figures.errors:
        raise BenchError(figures.errors[0])
    session.cancel(ids)
    # The gateway tries its keyring on the newest row, and a twin's would not open.
    _, newest = session.send(1, receipts=True)
    session.cancel(newest)
    return dict(zip(to, ids, strict=True))


def _measure(session: Session, size: Size, real: dict[str, str]) -> None:
    ids, numbers = list(real.values()), list(real)
    kept: dict[str, Callable[[], Figures]] = {
        "status by id": lambda: session.status(ids),
        "status by number": lambda: session.status(numbers, "number"),
        "lifecycle": lambda: _lifecycle(session),
        "claim": lambda: _claim(session),
    }
    session.status(ids)  # warm
    for _ in range(REPEATS):
        for name, read in kept.items():
            figures = read()
            size.errors += figures.errors
            size.readings.setdefault(name, []).append(figures.cpu)
        size.readings.setdefault("idle", []).append(_idle(session))


def _lifecycle(session: Session) -> Figures:
    figures, ids = session.send(REAL // 2, receipts=True)
    session.cancel(ids)
    return figures


def _claim(session: Session) -> Figures:
    figures, ids = claim(session, REAL // 4, PATIENCE)
    session.cancel(ids)
    return figures


def _idle(session: Session) -> float:
    before = session.usage()
    time.sleep(IDLE)
    return session.usage().since(before).server / IDLE


def _line(size: Size) -> str:
    shown = (f"{name} {statistics.median(found):.3f}" for name, found in size.readings.items())
    return f"{', '.join(shown)} CPU-s/1k; filled in {size.filled_in:.0f} s"


# The multiplication of rows


def twin(old: bytes, number: int) -> bytes:
    """Another id of the same millisecond."""
    return old[:MOMENT] + _other(old, number)[: len(old) - MOMENT]


def _other(old: bytes, number: int) -> bytes:
    return hashlib.blake2b(old + number.to_bytes(8, "big")).digest()


def twin_row(row: tuple[Any, ...], columns: Sequence[str], number: int) -> tuple[Any, ...]:
    """A row that differs in what has to be unique."""
    return tuple(
        _changed(column, value, number) for column, value in zip(columns, row, strict=True)
    )


def _changed(column: str, value: Any, number: int) -> Any:
    if value is None:
        return None
    if column in IDS:
        return twin(value, number)
    if column in UNIQUE:
        return _other(value, number)[: len(value)]
    return f"{value}-{number}" if column == "reference" else value


def fill(file: Path, rows: int, real: list[bytes]) -> None:
    """Multiplies these verifications of a database that nobody has open until there are so many
    rows."""
    with closing(sqlite3.connect(file, isolation_level=None)) as opened:
        opened.execute("PRAGMA synchronous = OFF")
        opened.execute("PRAGMA cache_size = -400000")  # 400 MB
        (there,) = opened.execute("SELECT count(*) FROM verification").fetchone()
        opened.execute("CREATE TEMP TABLE real (id BLOB PRIMARY KEY) WITHOUT ROWID")
        opened.executemany("INSERT INTO real VALUES (?)", ((one,) for one in real))
        for table in TABLES:
            _multiply(opened, table, there, max(0, rows - there), len(real))
        opened.execute("ANALYZE")


def _multiply(opened: sqlite3.Connection, table: str, first: int, wanted: int, real: int) -> None:
    columns = [row[1] for row in opened.execute(f"PRAGMA table_info({table})")]
    key = "id" if table == "verification" else "verification_id"
    chosen = f"WHERE {key} IN (SELECT id FROM real) ORDER BY {key}"
    found = opened.execute(f"SELECT {', '.join(columns)} FROM {table} {chosen}").fetchall()
    at = columns.index(key)
    insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})"
    opened.execute("BEGIN")
    opened.executemany(insert, _twins(found, columns, at, first, divmod(wanted, real)))
    opened.execute("COMMIT")


def _twins(
    rows: list[tuple[Any, ...]], columns: list[str], at: int, first: int, share: tuple[int, int]
) -> Iterator[tuple[Any, ...]]:
    """Each row as often as its verification is multiplied; `share`: how often, and how many of
    them once more."""
    order = {one: number for number, one in enumerate(dict.fromkeys(row[at] for row in rows))}
    for row in rows:
        times = share[0] + (order[row[at]] < share[1])
        for number in range(times):
            yield twin_row(row, columns, first + number)
