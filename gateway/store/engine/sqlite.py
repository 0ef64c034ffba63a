"""SQLite, the embedded default.

Statements run in the event loop, where each costs microseconds; only COMMIT, which waits for the
disk, runs in a thread of its own, and the connection rests until it is back. A writer thread that
ran the statements too would fight the loop for the interpreter.
"""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, bindparam, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TypeEngine

from gateway.store.columns import Convert, Stored
from gateway.store.engine.compiled import Compiled, Flavour
from gateway.store.engine.protocol import Conflict, Refused, StoreError
from gateway.store.engine.statements import PREFIX, ByKeys, Maker, Read, Rows, Write, maker
from gateway.store.records import Source

T = TypeVar("T")

_NAME = "sqlite"
_OPEN_SECONDS = 5.0  # seconds that opening may wait for another process
_FORMS = 16  # of one statement, by what is as usual; sqlite3 keeps 256 statements prepared
_BUSY_PAUSE = 0.01  # seconds between two tries for the write lock
_SETTINGS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    # Pages (16 MB) until the log is copied back, four times SQLite's own: a page that every batch
    # writes is copied a quarter as often.
    "wal_autocheckpoint = 4000",
)


# sqlite3 looks for an adapter of each parameter that is not exactly an int, float, str or
# bytearray; where there is none it asks the value for two methods that bytes and None do not have
# either, and formats an AttributeError for both: 193,000 of a lifecycle's 2,485,000 instructions.
# These answer in C, for every connection of this process: with what they are given, or with what
# SQLite stores of a truth value and of who moved a state, which every line of the log says.
_ITSELF: dict[None, None] = {}
sqlite3.register_adapter(bytes, bytes.__bytes__)
sqlite3.register_adapter(type(None), _ITSELF.get)
sqlite3.register_adapter(bool, int)
sqlite3.register_adapter(Source, str.__str__)


def _encoder(kind: TypeEngine[Any]) -> Convert | None:
    return kind.encoder(_NAME) if isinstance(kind, Stored) else None


_FLAVOUR = Flavour(dialect=sqlite.dialect(paramstyle="pyformat"), encoder=_encoder, octets="X'{}'")


class _Change:
    """A Write as the driver takes it; `fixed` are fields whose values stand in its text."""

    def __init__(self, write: Write, fixed: Mapping[str, Any]) -> None:
        cells = write.statement.table.c
        types = {PREFIX + name: cells[name].type for name in cells.keys()}  # noqa: SIM118
        constants = {PREFIX + name: fixed[name] for name in fixed}
        compiled = Compiled(_FLAVOUR, write.statement, types, constants)
        self.sql = compiled.text("?")
        self._names = [name.removeprefix(PREFIX) for name in compiled.stands]
        self._encoders = compiled.encoders(compiled.stands)
        self._filled = {name for name in self._names if name in cells and not cells[name].nullable}
        self._makers: dict[type, Maker] = {}

    def rows(self, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The driver's parameters; the values are of one kind."""
        kind = type(values[0])
        make = self._makers.get(kind)
        if make is None:
            make = self._makers[kind] = maker(kind, self._names, self._encoders, self._filled)
        return make(values)


class _Changes:
    """A Write in its forms. Where all of a batch are as usual, the usual value stands in the text:
    each parameter costs some 400 instructions, a text or bytes 800, and None, for which sqlite3
    looks for an adapter, 1,200.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._plain = _Change(write, {})
        self._formed: dict[tuple[bool, ...], _Change] = {}
        self._usual: list[tuple[int, Any]] | None = None  # by place in the named tuple, once known

    def form(self, values: Sequence[Any]) -> _Change:
        """The form for these values."""
        if not self._write.usual:
            return self._plain
        if self._usual is None:
            fields = type(values[0])._fields
            self._usual = [(fields.index(name), one) for name, one in self._write.usual.items()]
        size, columns = len(values), list(zip(*values, strict=True))
        shape = tuple([columns[at].count(usual) == size for at, usual in self._usual])
        form = self._formed.get(shape)
        return form if form is not None else self._form(shape)

    def _form(self, shape: tuple[bool, ...]) -> _Change:
        """A form not met before; there are few of them, or else the plain one does."""
        if len(self._formed) >= _FORMS:
            return self._plain
        usual = self._write.usual.items()
        fixed = {name: one for (name, one), here in zip(usual, shape, strict=True) if here}
        form = self._formed[shape] = _Change(self._write, fixed)
        return form


class _Query(Generic[T]):
    """A Read as the driver takes it."""

    def __init__(self, statement: Select[Any], rows: Rows[T]) -> None:
        compiled = Compiled(_FLAVOUR, statement, {})
        self.sql = compiled.text("?")
        self.given = len(compiled.stands)
        self._encoders = compiled.encoders(compiled.stands)
        self.values = rows.values

    def parameters(self, given: Sequence[Any]) -> list[Any]:
        """The driver's parameters for values in the order they stand in the statement."""
        return [
            one if encode is None or one is None else encode(one)
            for one, encode in zip(given, self._encoders, strict=True)
        ]


class _Keyed(Generic[T]):
    """A ByKeys as the driver takes it.

    SQLite wants one placeholder a key: the list is filled up to the next power of two with its
    last key, so that ten texts serve all sizes and stay prepared.
    """

    def __init__(self, statement: ByKeys[T]) -> None:
        self._statement = statement
        self._rows = Rows(statement.columns, statement.make, _NAME)
        self._encode = _encoder(statement.key.type)
        self._sized: dict[int, _Query[T]] = {}

    def query(self, keys: Sequence[Any]) -> tuple[_Query[T], list[Any]]:
        """The statement for so many keys, and its parameters."""
        size = 1 << (len(keys) - 1).bit_length()
        sized = self._sized.get(size)
        if sized is None:
            by = self._statement
            binds = [bindparam(f"{PREFIX}{at}", type_=by.key.type) for at in range(size)]
            statement = select(*by.columns).where(by.key.in_(binds), *by.conditions)
            sized = self._sized[size] = _Query(statement, self._rows)
        encode = self._encode
        given = list(keys)
        if encode is not None:
            given = [None if key is None else encode(key) for key in given]
        given.extend([given[-1]] * (size - len(given)))
        return sized, given


def _changes(write: Write) -> _Changes:
    forms = write.forms.get(_NAME)
    if forms is None:
        forms = write.forms[_NAME] = _Changes(write)
    return forms


def _query(read: Read[T]) -> _Query[T]:
    form = read.forms.get(_NAME)
    if form is None:
        rows = Rows(read.statement.selected_columns, read.make, _NAME)
        form = read.forms[_NAME] = _Query(read.statement, rows)
    return form


def _keyed(statement: ByKeys[T]) -> _Keyed[T]:
    form = statement.forms.get(_NAME)
    if form is None:
        form = statement.forms[_NAME] = _Keyed(statement)
    return form


class SqliteEngine:
    """One writing connection, one reading connection, one thread that commits.

    One process serves on one file; commands (`client add`) may write beside it, so the write lock
    is asked for again after an asynchronous pause: a wait inside SQLite would stop the loop.
    """

    shared = False

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

    async def close(self) -> None:
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

    async def lock(self, names: Sequence[tuple[str, str]]) -> None:
        """Nothing to do: the write lock keeps everybody waiting."""

    async def run(self, write: Write, values: Sequence[Any], *, expect: bool = True) -> int:
        """Run a statement for each value; with `expect`, each must touch exactly one row.

        Raises Conflict when a guard or a unique key held, StoreError for anything else.
        """
        if not values:
            return 0
        change = _changes(write).form(values)
        try:
            touched = self._writer.executemany(change.sql, change.rows(values)).rowcount
        except sqlite3.IntegrityError as error:
            raise Conflict(str(error)) from error
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error
        if expect and touched != len(values):
            raise Conflict(f"{len(values) - touched} of {len(values)} rows were not as loaded")
        return touched

    async def load(self, statement: ByKeys[T], keys: Sequence[Any]) -> list[T]:
        """Rows by key, as the open transaction sees and holds them."""
        return self._by_keys(self._writer, statement, keys)

    async def load_one(self, read: Read[T], *given: Any) -> list[T]:
        """Rows of a plain statement, inside the open transaction."""
        query = _query(read)
        return self._fetch(self._writer, query, query.parameters(given))

    async def fetch(self, read: Read[T], *given: Any) -> list[T]:
        """A point read outside any transaction: what is committed now."""
        query = _query(read)
        return self._fetch(self._reader, query, query.parameters(given))

    async def fetch_by(self, statement: ByKeys[T], keys: Sequence[Any]) -> list[T]:
        """Point reads by key outside any transaction."""
        return self._by_keys(self._reader, statement, keys)

    def _by_keys(
        self, connection: sqlite3.Connection, statement: ByKeys[T], keys: Sequence[Any]
    ) -> list[T]:
        if not keys:
            return []
        query, parameters = _keyed(statement).query(keys)
        return self._fetch(connection, query, parameters)

    def _fetch(self, connection: sqlite3.Connection, query: _Query[T], given: list[Any]) -> list[T]:
        try:
            return query.values(connection.execute(query.sql, given).fetchall())
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    async def commit(self) -> None:
        """Make it durable (WAL, synchronous=FULL). Raises Refused."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._jobs.put((loop, done))
        await asyncio.shield(done)

    async def rollback(self) -> None:
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
        for setting in _SETTINGS:
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
