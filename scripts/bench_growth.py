"""How the price of a call grows with the database: the same calls on 10,000 rows and more.

Real verifications are sent, delivered and canceled through the gateway; then, while it is stopped,
their rows are multiplied in a copy of the file until there are as many as wanted. A twin's id
differs from its parent's in the last bytes, so that the real rows, which are asked for, lie
scattered over the whole table.
"""

import math
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
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
SHARED = 12  # bytes that a twin's id has of its parent's 16; four hexadecimal digits follow
TWINS_MOST = 16**4 - 1
FOR_THE_FILL = (
    "journal_mode = OFF",
    "synchronous = OFF",
    "locking_mode = EXCLUSIVE",
    "cache_size = -1000000",  # 1 GB
    "threads = 2",  # to sort for an index
)
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
    with Session(grown, parent, options) as session:
        empty = session.gateway.stored()
        real = _real(session)
        grown = _on(home, key=session.gateway.headers["Authorization"])
        session.gateway.stop()
    database, small = home / "gateway.db", parent / "growth.db"
    _copy(database, small)
    for at, rows in enumerate(sizes(options.grow_to)):
        began = time.monotonic()
        _copy(small, database)
        fill(database, rows, [UUID(one).bytes for one in real.values()])
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


def _copy(file: Path, to: Path) -> None:
    """Of a database that was closed. Raises BenchError: what it wrote last is not in the file."""
    for one in (file, to):
        if one.with_name(f"{one.name}-wal").exists():
            raise BenchError(f"{one.name} was not closed")
    shutil.copyfile(file, to)


def fill(file: Path, rows: int, real: Sequence[bytes]) -> None:
    """Multiplies these verifications of a database that nobody has open and that was not filled
    before, until there are so many rows.

    Each table is emptied and written anew in the order of its key, without indexes, which are made
    afterwards; so pages are only ever appended. No journal: a fill that fails is begun again.
    """
    with closing(sqlite3.connect(file, isolation_level=None)) as opened:
        for pragma in FOR_THE_FILL:
            opened.execute(f"PRAGMA {pragma}").fetchall()
        (there,) = opened.execute("SELECT count(*) FROM verification").fetchone()
        each_one, some_more = divmod(max(0, rows - there), len(real))
        if each_one >= TWINS_MOST:
            raise BenchError(f"{len(real)} verifications cannot be made {rows:,}")
        opened.execute("CREATE TEMP TABLE real (id BLOB PRIMARY KEY, twins) WITHOUT ROWID")
        opened.executemany(
            "INSERT INTO real VALUES (?, ?)",
            ((one, each_one + (at < some_more)) for at, one in enumerate(real)),
        )
        opened.execute("CREATE TEMP TABLE twin (number INTEGER PRIMARY KEY)")
        opened.executemany("INSERT INTO twin VALUES (?)", ((at,) for at in range(each_one + 2)))
        for table in TABLES:
            _multiply(opened, table)
        opened.execute("PRAGMA analysis_limit = 1000")
        opened.execute("ANALYZE")
        opened.execute("PRAGMA journal_mode = WAL")


def _multiply(opened: sqlite3.Connection, table: str) -> None:
    """Every row of a real verification, followed by its twins."""
    information = opened.execute(f"PRAGMA table_info({table})").fetchall()
    columns = [row[1] for row in information]
    (key,) = (row[1] for row in information if row[5] == 1)
    owner = "id" if table == "verification" else "verification_id"
    indexes = opened.execute(
        "SELECT name, sql FROM sqlite_master "
        "WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL",
        (table,),
    ).fetchall()
    opened.execute("BEGIN")
    for name, _ in indexes:
        opened.execute(f"DROP INDEX {name}")
    opened.execute(f"CREATE TEMP TABLE row AS SELECT * FROM {table}")
    opened.execute(f"CREATE INDEX temp.row_key ON row ({key})")
    opened.execute(
        f"CREATE TEMP TABLE parent AS SELECT key, max(coalesce(twins, 0)) AS twins FROM "
        f"(SELECT {key} AS key, {owner} AS owner FROM {table}) LEFT JOIN real ON real.id = owner "
        "GROUP BY key ORDER BY key"
    )
    opened.execute(f"DELETE FROM {table}")
    made = ", ".join(map(_twin, columns))
    opened.execute(  # in the order of the key, because CROSS JOIN keeps the loops as written
        f"INSERT INTO {table} SELECT {made} FROM parent CROSS JOIN twin CROSS JOIN row "
        f"WHERE twin.number <= parent.twins AND row.{key} = parent.key"
    )
    for _, text in indexes:
        opened.execute(text)
    opened.execute("COMMIT")
    opened.execute("DROP TABLE row")
    opened.execute("DROP TABLE parent")


def _twin(column: str) -> str:
    """SQL for a column of a row's twin: what has to be unique is another, an id is that of its
    parent but for the last bytes. Twin 0 is the row itself."""
    value = f'row."{column}"'
    if column in IDS:
        twin = f"CAST(substr({value}, 1, {SHARED}) || printf('%04x', twin.number) AS BLOB)"
    elif column in UNIQUE:
        twin = f"randomblob(length({value}))"
    elif column == "reference":
        twin = f"{value} || '-' || twin.number"
    else:
        return value
    return f"CASE WHEN twin.number = 0 OR {value} IS NULL THEN {value} ELSE {twin} END"
