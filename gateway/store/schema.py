"""The schema of a database: which migration it is at, which it should be at, and getting it
there.
"""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.pool import NullPool

from gateway.ports import Server
from gateway.store.engine import StoreError, needs

if TYPE_CHECKING:
    from alembic.config import Config

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ROOT / "migrations" / "versions"
_TURN = 0x07B_5C4E_3A  # the advisory lock of those who migrate: one at a time
_TURN_SECONDS = 60  # how long one waits for another's migration
# A migration that waits for a busy table makes everybody behind it wait too: give up soon.
_LOCK_SECONDS = 5
_UPGRADE = """\
import sys
from pathlib import Path
from gateway.store import schema
try:
    schema.upgrade(Path(sys.argv[1]))
except Exception as error:
    sys.exit(str(getattr(error, "orig", error)))
"""


def head() -> str:
    """The newest migration there is, by its file: they are numbered in one line, and a command that
    only compares is not worth loading Alembic for."""
    numbers = [path.name[:4] for path in VERSIONS.glob("[0-9][0-9][0-9][0-9]_*.py")]
    if not numbers:
        raise StoreError("there are no migrations")
    return max(numbers)


def current(database: Path | Server) -> str | None:
    """The migration a database is at; None when it is new. Raises StoreError."""
    if isinstance(database, Path):
        return _current_of_file(database)
    try:
        return settled(on_server(database, _version))
    except StoreError as error:
        raise StoreError(f"{database}: {error}") from error


def upgrade(database: Path | Server, revision: str = "head") -> None:
    """Bring a database to a migration, by default the newest."""
    from alembic import command

    _run(database, command.upgrade, revision)


def upgrade_apart(database: Path) -> None:
    """The same for a file, by who stays: in a process of its own, for Alembic is 10 MB that nobody
    needs again. Raises StoreError.
    """
    made = subprocess.run(  # noqa: S603  (our own interpreter and code)
        [sys.executable, "-c", _UPGRADE, str(database.absolute())],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        said = made.stderr.strip().splitlines() or [f"exit code {made.returncode}"]
        raise StoreError(f"{database} could not be migrated: {said[-1]}")


def downgrade(database: Path | Server, revision: str) -> None:
    """Take a database back to an older migration."""
    from alembic import command

    _run(database, command.downgrade, revision)


def settled(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, whether or not this thread has a loop running: in a thread of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def on_server(server: Server, act: Callable[[Connection], T]) -> T:
    """Run something that wants SQLAlchemy's own connection. Raises StoreError when there is none
    to be had.
    """
    try:
        from sqlalchemy.ext.asyncio import create_async_engine

        from gateway.store.engine import postgres
    except ModuleNotFoundError as error:
        raise StoreError(needs(error)) from error
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: postgres.connect(
            server.url,
            server.password,
            command_timeout=None,  # a migration may take its time
        ),
        poolclass=NullPool,
    )
    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(act)
            await connection.commit()
            return found
    finally:
        await engine.dispose()


def _version(connection: Connection) -> str | None:
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _current_of_file(database: Path) -> str | None:
    if not database.exists():
        return None
    try:
        with closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise StoreError(f"{database}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{database}: {error}") from error
    return str(row[0]) if row else None


def _run(database: Path | Server, act: Callable[["Config", str], None], revision: str) -> None:
    from alembic.config import Config

    def migrate(connection: Connection) -> None:
        config = Config(ROOT / "alembic.ini")
        config.attributes["connection"] = connection
        act(config, revision)
        connection.commit()

    if isinstance(database, Path):
        _on_file(database, migrate)
    else:
        settled(on_server(database, lambda connection: _in_turn(connection, migrate)))


def _in_turn(connection: Connection, migrate: Callable[[Connection], None]) -> None:
    """One migrates at a time; who waited finds it done."""
    connection.execute(text(f"SET lock_timeout = '{_TURN_SECONDS}s'"))
    connection.execute(text("SELECT pg_advisory_lock(:turn)"), {"turn": _TURN})
    connection.execute(text(f"SET lock_timeout = '{_LOCK_SECONDS}s'"))
    connection.execute(text("SET statement_timeout = 0"))
    connection.commit()
    migrate(connection)


def _on_file(database: Path, migrate: Callable[[Connection], None]) -> None:
    engine = create_engine(URL.create("sqlite", database=str(database)), poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def _autocommit(raw: sqlite3.Connection, _: object) -> None:
        raw.isolation_level = None  # the driver's own BEGIN would leave DDL outside the transaction

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    try:
        with engine.connect() as connection:
            migrate(connection)
    finally:
        engine.dispose()
