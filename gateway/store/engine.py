"""Connections and compiled statements. Every difference between databases is in this module and in
`columns`; today that is SQLite, the embedded default.

Statements are SQLAlchemy Core constructs, compiled once and given to the driver with rows taken
straight from the domain's values. They run in the event loop, where each costs microseconds; only
COMMIT, which waits for the disk, runs in a thread of its own, and the connection rests until it is
back. A writer thread that ran the statements too would fight the loop for the interpreter.
"""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from sqlalchemy import Boolean, ColumnElement, Insert, Select, Table, Update, bindparam, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Delete
from sqlalchemy.types import TypeEngine

from gateway.store.columns import Convert, Stored

T = TypeVar("T")

BATCH = 500  # keys in one IN list, and operations in one batch
_DIALECT = sqlite.dialect(paramstyle="qmark")
_OPEN_SECONDS = 5.0  # seconds that opening may wait for another process
_BUSY_PAUSE = 0.01  # seconds between two tries for the write lock
_PREFIX = "v_"  # of parameters: SQLAlchemy keeps a column's own name for its SET clause


class StoreError(Exception):
    """The database did not do it; nothing of the batch was stored."""


class Conflict(StoreError):
    """A guard held: the row was not as it had been loaded, or a unique key was taken."""


class Refused(StoreError):
    """The transaction could not be begun or committed: nothing of the batch is stored, and a second
    try would fare no better.
    """


def value(name: str) -> Any:
    """A parameter that takes the attribute `name` of the value the statement is run with."""
    return bindparam(_PREFIX + name)


class _Parameters:
    """The parameters of a compiled statement, in the driver's order: given ones, and constants."""

    def __init__(self, compiled: SQLCompiler, types: Mapping[str, TypeEngine[Any]]) -> None:
        self.sql = str(compiled)
        self.names: list[str] = []  # the given ones
        self._encoders: list[tuple[int, Convert]] = []
        self._constants: list[tuple[int, Any]] = []
        for at, name in enumerate(compiled.positiontup or ()):
            kind = types.get(name) or compiled.binds[name].type
            encode = kind.encoder("sqlite") if isinstance(kind, Stored) else None
            if name.startswith(_PREFIX):
                self.names.append(name.removeprefix(_PREFIX))
                if encode is not None:
                    self._encoders.append((at, encode))
            else:
                fixed = compiled.params[name]
                self._constants.append((at, fixed if encode is None else encode(fixed)))

    def row(self, given: Iterable[Any]) -> list[Any]:
        """The driver's parameters for values in the order of `names`."""
        row = list(given)
        for at, fixed in self._constants:
            row.insert(at, fixed)
        for at, encode in self._encoders:
            if row[at] is not None:
                row[at] = encode(row[at])
        return row


class Write:
    """An INSERT, UPDATE or DELETE over values with attributes, run for many at once."""

    def __init__(self, statement: Insert | Update | Delete) -> None:
        cells = statement.table.c
        types = {_PREFIX + name: cells[name].type for name in cells.keys()}  # noqa: SIM118
        self._parameters = _Parameters(statement.compile(dialect=_DIALECT), types)
        names = self._parameters.names
        self.sql = self._parameters.sql
        self._take: Callable[[Any], tuple[Any, ...]] = (
            attrgetter(*names) if len(names) > 1 else lambda row: (getattr(row, names[0]),)
        )

    def rows(self, values: Iterable[Any]) -> list[list[Any]]:
        """The driver's parameters."""
        return [self._parameters.row(self._take(item)) for item in values]


class Read(Generic[T]):
    """A SELECT whose rows become values of one kind."""

    def __init__(self, statement: Select[Any], make: Callable[..., T]) -> None:
        self._parameters = _Parameters(statement.compile(dialect=_DIALECT), {})
        self.sql = self._parameters.sql
        decoders = [_decoder(column) for column in statement.selected_columns]
        self._decoders = [(at, decode) for at, decode in enumerate(decoders) if decode is not None]
        self._make = make

    def parameters(self, given: Iterable[Any]) -> list[Any]:
        """The driver's parameters for values in the order they stand in the statement."""
        return self._parameters.row(given)

    def values(self, rows: Iterable[Sequence[Any]]) -> list[T]:
        """What the driver returned, as values."""
        made = []
        for row in rows:
            cells = list(row)
            for at, decode in self._decoders:
                if cells[at] is not None:
                    cells[at] = decode(cells[at])
            made.append(self._make(*cells))
        return made


class ByKeys(Generic[T]):
    """A SELECT over any number of keys of one column.

    SQLite wants one placeholder a key: the list is filled up to the next power of two with its
    last key, so that ten texts serve all sizes and stay prepared.
    """

    def __init__(
        self, columns: Sequence[ColumnElement[Any]], key: ColumnElement[Any], make: Callable[...,
        T],
        *conditions: ColumnElement[bool],
    ) -> None:  # fmt: skip
        self._columns, self._key, self._make = columns, key, make
        self._conditions = conditions
        self._sized: dict[int, Read[T]] = {}

    def read(self, keys: Sequence[Any]) -> tuple[Read[T], list[Any]]:
        """The statement for so many keys, and its parameters."""
        size = 1 << (len(keys) - 1).bit_length()
        sized = self._sized.get(size)
        if sized is None:
            binds = [bindparam(f"{_PREFIX}{at}", type_=self._key.type) for at in range(size)]
            statement = select(*self._columns).where(self._key.in_(binds), *self._conditions)
            sized = self._sized[size] = Read(statement, self._make)
        return sized, sized.parameters([*keys, *[keys[-1]] * (size - len(keys))])


def _decoder(column: ColumnElement[Any]) -> Convert | None:
    if isinstance(column.type, Boolean):
        return bool
    return column.type.decoder("sqlite") if isinstance(column.type, Stored) else None


def columns_of(table: Table, kind: type) -> list[ColumnElement[Any]]:
    """The columns that hold a value's fields, in its order."""
    return [table.c[name] for name in names_of(kind)]


def names_of(kind: Any) -> tuple[str, ...]:
    """The fields of a named tuple or a dataclass."""
    if issubclass(kind, tuple):
        return tuple(kind._fields)
    return tuple(field.name for field in fields(kind))


class SqliteEngine:
    """One writing connection, one reading connection, one thread that commits.

    One process serves on one file; commands (`client add`) may write beside it, so the write lock
    is asked for again after an asynchronous pause: a wait inside SQLite would stop the loop.
    """

    def __init__(self, path: Path, *, busy_seconds: float = 5.0, commit_delay: float = 0.0) -> None:
        self._commit_delay = commit_delay  # seconds; for measuring as if on a slower disk
        self._tries = max(1, int(busy_seconds / _BUSY_PAUSE))
        self._writer = connect(path)
        try:
            self._reader = connect(path, read_only=True)
        except StoreError:
            self._writer.close()
            raise
        self._jobs: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None] = (
            SimpleQueue()
        )
        self._thread = threading.Thread(target=self._commit_all, name="commit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for a commit under way, then let go of the file."""
        self._jobs.put(None)
        self._thread.join()
        self._writer.close()
        self._reader.close()

    async def begin(self) -> None:
        """Take the write lock. Raises Refused when somebody else keeps it too long."""
        for _ in range(self._tries):
            try:
                self._writer.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in {
                    sqlite3.SQLITE_BUSY,
                    sqlite3.SQLITE_LOCKED,
                }:
                    raise Refused(str(error)) from error
                await asyncio.sleep(_BUSY_PAUSE)
            else:
                return
        raise Refused("another process holds the database's write lock")

    def run(self, write: Write, values: Sequence[Any], *, expect: bool = True) -> int:
        """Run a statement for each value; with `expect`, each must touch exactly one row.

        Raises Conflict when a guard or a unique key held, StoreError for anything else.
        """
        try:
            touched = self._writer.executemany(write.sql, write.rows(values)).rowcount
        except sqlite3.IntegrityError as error:
            raise Conflict(str(error)) from error
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error
        if expect and touched != len(values):
            raise Conflict(f"{len(values) - touched} of {len(values)} rows were not as loaded")
        return touched

    def load(self, statement: ByKeys[T], keys: Sequence[Any]) -> list[T]:
        """Rows by key, as the open transaction sees and holds them."""
        if not keys:
            return []
        read, parameters = statement.read(keys)
        return self._fetch(self._writer, read, parameters)

    def load_one(self, read: Read[T], *given: Any) -> list[T]:
        """Rows of a plain statement, inside the open transaction."""
        return self._fetch(self._writer, read, read.parameters(given))

    def fetch(self, read: Read[T], *given: Any) -> list[T]:
        """A point read outside any transaction: what is committed now."""
        return self._fetch(self._reader, read, read.parameters(given))

    def fetch_by(self, statement: ByKeys[T], keys: Sequence[Any]) -> list[T]:
        """Point reads by key outside any transaction."""
        if not keys:
            return []
        read, parameters = statement.read(keys)
        return self._fetch(self._reader, read, parameters)

    def _fetch(self, connection: sqlite3.Connection, read: Read[T], given: list[Any]) -> list[T]:
        try:
            return read.values(connection.execute(read.sql, given).fetchall())
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    async def commit(self) -> None:
        """Make it durable (WAL, synchronous=FULL). Raises Refused."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._jobs.put((loop, done))
        await asyncio.shield(done)

    def rollback(self) -> None:
        """Forget the open transaction, if there is one."""
        if self._writer.in_transaction:
            # A ROLLBACK that fails leaves a connection that begins nothing more: `begin` says so.
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")

    def _commit_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, done = job
            failure: StoreError | None = None
            if self._commit_delay:
                time.sleep(self._commit_delay)
            try:
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                failure = Refused(str(error))
            loop.call_soon_threadsafe(_resolve, done, failure)


def _resolve(done: asyncio.Future[None], failure: StoreError | None) -> None:
    if done.cancelled():
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with this project's settings. Raises StoreError naming the file."""
    connection: sqlite3.Connection | None = None
    try:
        # Opening may have to wait for a process that is just clearing the WAL away; later nothing
        # waits inside SQLite.
        connection = sqlite3.connect(
            path,
            isolation_level=None,
            check_same_thread=False,
            timeout=_OPEN_SECONDS,
            cached_statements=256,
        )
        for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {setting}")
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        connection.execute("PRAGMA busy_timeout = 0")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise StoreError(f"{path}: {error}") from error
    return connection
