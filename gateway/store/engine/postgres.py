"""PostgreSQL, for many nodes on one database.

One connection writes, a few read; each statement is prepared once a connection. A connection that
was lost is replaced by the next who needs one, so that a server that was restarted is found again
without any doing.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import asyncpg
from asyncpg import exceptions

from gateway.store.engine.postgres_text import change, keyed, query
from gateway.store.engine.protocol import Conflict, Refused, StoreError
from gateway.store.engine.statements import ByKeys, Read, Write

T = TypeVar("T")

READERS = 4  # connections that read, at most
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 15.0  # until a server that does not answer counts as gone
_LOOK_SECONDS = 10.0  # how long it is asked what became of a COMMIT
_LOOK_PAUSE = 0.2  # between two of these questions
_SESSION = {
    "application_name": "otp-gateway",
    "timezone": "UTC",
    "jit": "off",  # statements of microseconds
    # The plan of a prepared statement is kept while its table grows: made on a small one without
    # statistics it would read all of it each time, which cost the server half of its CPU.
    "enable_seqscan": "off",
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    # A process that was stopped in the middle must not keep its rows from the others.
    "idle_in_transaction_session_timeout": "10s",
}
_LOCK = "SELECT pg_advisory_xact_lock(name) FROM unnest($1::bigint[]) AS name"
_WHICH = "SELECT pg_current_xact_id_if_assigned()::text"
_BECAME = "SELECT pg_xact_status($1::text::xid8)"
# What the driver raises when there is no (or no longer a) connection.
_GONE = (
    OSError,
    TimeoutError,
    exceptions.InterfaceError,
    exceptions.InternalClientError,  # the server's last word came while nobody was asking
    exceptions.PostgresConnectionError,
)
ANY = (*_GONE, exceptions.PostgresError)
# After these a connection is of no more use, closed or not.
_UNUSABLE = (TimeoutError, exceptions.InternalClientError)


class _Connection(asyncpg.Connection):
    """A connection whose sessions leave nothing behind that would have to be reset."""

    def get_reset_query(self) -> str:
        return ""


def told(error: BaseException) -> str:
    """What went wrong, without the values: a detail or a refused argument may hold a number."""
    code = _code(error)
    if code:
        return f"{code} {getattr(error, 'message', None) or type(error).__name__}"
    if isinstance(error, StoreError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _code(error: BaseException) -> str:
    """The server's code (SQLSTATE); empty where the error is not the server's."""
    return getattr(error, "sqlstate", None) or ""


def plain_url(url: str) -> str:
    """The address as the driver takes it."""
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)


async def connect(url: str, password: str | None, **more: Any) -> Any:
    """A connection with this project's settings. Raises StoreError when there is none to be had."""
    try:
        return await asyncpg.connect(plain_url(url), **_how(password) | more)
    except ANY as error:
        raise StoreError(told(error)) from error


def _how(password: str | None) -> dict[str, Any]:
    given: dict[str, Any] = {} if password is None else {"password": password}
    return given | {
        "timeout": _CONNECT_SECONDS,
        "command_timeout": _ANSWER_SECONDS,
        "statement_cache_size": 512,
        "server_settings": _SESSION,
        "connection_class": _Connection,
    }


class PostgresEngine:
    """One writing connection and a pool that reads.

    `url` is `postgresql+asyncpg://user@host/database`; TLS by `?sslmode=verify-full` and
    `&sslrootcert=PATH`. The password comes with `password`, else as libpq finds it (PGPASSWORD,
    a password file).
    """

    shared = True

    def __init__(self, url: str, password: str | None = None, *, readers: int = READERS) -> None:
        self._url = plain_url(url)
        self._password = password
        self._readers = readers
        self._writer: Any = None
        self._pool: Any = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Let go of every connection; an open transaction is rolled back by the server."""
        writer, self._writer = self._writer, None
        pool, self._pool = self._pool, None
        if writer is not None:
            writer.terminate()
        if pool is not None:
            pool.terminate()

    async def begin(self) -> None:
        """Open the transaction; on a connection lost since the last one, on a new one. Raises
        Refused when the server cannot be reached."""
        for fresh in (False, True):
            try:
                if fresh or not self._idle():
                    await self._reconnect()
                await self._writer.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            except (StoreError, *ANY) as error:
                self._drop()
                if fresh:
                    raise Refused(told(error)) from error
            else:
                return

    async def lock(self, names: Sequence[tuple[str, str]]) -> None:
        """Keep every other transaction that names one of these waiting, in one order for all."""
        if names:
            await self._in_transaction("fetch", _LOCK, sorted({_number(pair) for pair in names}))

    async def run(self, write: Write, values: Sequence[Any], *, expect: bool = True) -> int:
        """Run a statement once, over all the values; with `expect`, each must touch exactly one
        row. Raises Conflict when a guard or a unique key held, StoreError for anything else."""
        if not values:
            return 0
        form = change(write)
        done: str = await self._in_transaction("execute", form.sql, *form.columns(values))
        touched = int(done.rpartition(" ")[2])
        if expect and touched != len(values):
            raise Conflict(f"{len(values) - touched} of {len(values)} rows were not as loaded")
        return touched

    async def load(self, statement: ByKeys[T], keys: Sequence[Any]) -> list[T]:
        """Rows by key, locked in the order of their keys where the statement says so."""
        if not keys:
            return []
        form = keyed(statement)
        rows = await self._in_transaction("fetch", form.locked.sql, form.keys(keys))
        return form.locked.values(rows)

    async def load_one(self, read: Read[T], *given: Any) -> list[T]:
        """Rows of a plain statement, inside the open transaction."""
        form = query(read)
        return form.values(await self._in_transaction("fetch", form.sql, *form.parameters(given)))

    async def fetch(self, read: Read[T], *given: Any) -> list[T]:
        """A point read outside any transaction: what is committed now."""
        form = query(read)
        return form.values(await self._read(form.sql, *form.parameters(given)))

    async def fetch_by(self, statement: ByKeys[T], keys: Sequence[Any]) -> list[T]:
        """Point reads by key outside any transaction."""
        if not keys:
            return []
        form = keyed(statement)
        return form.plain.values(await self._read(form.plain.sql, form.keys(keys)))

    async def commit(self) -> None:
        """Make it durable. When the connection is lost over it, the server is asked what became of
        it. Raises StoreError when it surely was rolled back, Refused when nobody can tell.
        """
        number: str | None = await self._in_transaction("fetchval", _WHICH)
        try:
            done: str = await self._writer.execute("COMMIT")
        except ANY as error:
            writer = self._writer
            if isinstance(error, exceptions.PostgresError) and not writer.is_closed():
                raise Refused(told(error)) from error
            self._drop()
            if number is not None:
                await self._became(number, error)
        else:
            if done != "COMMIT":
                raise StoreError("the server rolled it back")

    async def rollback(self) -> None:
        """Forget the open transaction, if there is one. Raises nothing: the server rolls back what
        has lost its connection."""
        if self._writer is None:
            return
        try:
            if self._writer.is_in_transaction():
                await self._writer.execute("ROLLBACK")
        except asyncio.CancelledError:
            self._drop()
            raise
        except Exception:  # noqa: BLE001  a driver that is confused is as good as gone
            self._drop()

    async def _became(self, number: str, lost: BaseException) -> None:
        """What became of a transaction whose COMMIT was not answered."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                while True:
                    state = await self._state(number)
                    if state == "committed":
                        return
                    if state == "aborted":
                        break
                    await asyncio.sleep(_LOOK_PAUSE)
        except TimeoutError:
            raise Refused(f"nobody can tell what became of a commit: {told(lost)}") from lost
        raise StoreError("the connection was lost, and the server rolled it back") from lost

    async def _state(self, number: str) -> str:
        try:
            await self._reconnect()
            state: str | None = await self._writer.fetchval(_BECAME, number)
        except exceptions.InvalidParameterValueError:
            return "aborted"  # so new that the server's own crash has made it unheard of
        except (StoreError, *ANY):
            self._drop()
            return "unknown"
        return state or "unknown"

    async def _in_transaction(self, how: str, sql: str, *given: Any) -> Any:
        if self._writer is None:
            raise StoreError("there is no transaction")
        try:
            return await getattr(self._writer, how)(sql, *given)
        except exceptions.IntegrityConstraintViolationError as error:
            raise Conflict(told(error)) from error
        except ANY as error:
            if isinstance(error, _UNUSABLE) or self._writer.is_closed():
                self._drop()
            raise StoreError(told(error)) from error

    async def _read(self, sql: str, *given: Any) -> Any:
        for last in (False, True):
            try:
                pool = self._pool or await self._open()
                async with pool.acquire(timeout=_CONNECT_SECONDS) as connection:
                    return await _ask(connection, sql, given)
            except _GONE as error:
                if last:
                    raise StoreError(told(error)) from error
            except exceptions.PostgresError as error:
                # 57P: the server is going down or coming up; its next answer may be a connection.
                if last or not _code(error).startswith("57P"):
                    raise StoreError(told(error)) from error
        raise AssertionError("unreachable")

    async def _open(self) -> Any:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url, min_size=0, max_size=self._readers, **_how(self._password)
                )
            return self._pool

    async def _reconnect(self) -> None:
        self._drop()
        self._writer = await connect(self._url, self._password)

    def _idle(self) -> bool:
        """Whether a transaction can be begun on the writing connection."""
        writer = self._writer
        return writer is not None and not writer.is_closed() and not writer.is_in_transaction()

    def _drop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.terminate()


async def _ask(connection: Any, sql: str, given: Sequence[Any]) -> Any:
    try:
        return await connection.fetch(sql, *given)
    except exceptions.InternalClientError:
        connection.terminate()  # or the next reader would get it
        raise


def _number(pair: tuple[str, str]) -> int:
    """A name as the number that PostgreSQL locks; two names with one number only wait in vain."""
    digest = hashlib.blake2b("\0".join(pair).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
