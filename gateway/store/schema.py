"""The schema of a database: which migration it is at, which it should be at, and getting it
there.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.pool import NullPool

from gateway.store.engine import StoreError

ROOT = Path(__file__).resolve().parents[2]


def head() -> str:
    """The newest migration there is."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    if found is None:
        raise StoreError("there are no migrations")
    return found


def current(database: Path) -> str | None:
    """The migration a database is at; None when it is new. Raises StoreError."""
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


def upgrade(database: Path, revision: str = "head") -> None:
    """Bring a database to a migration, by default the newest."""
    _run(database, command.upgrade, revision)


def downgrade(database: Path, revision: str) -> None:
    """Take a database back to an older migration."""
    _run(database, command.downgrade, revision)


def _config() -> Config:
    return Config(ROOT / "alembic.ini")


def _run(database: Path, act: Callable[[Config, str], None], revision: str) -> None:
    engine = create_engine(URL.create("sqlite", database=str(database)), poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def _autocommit(raw: sqlite3.Connection, _: object) -> None:
        raw.isolation_level = None  # the driver's own BEGIN would leave DDL outside the transaction

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    config = _config()
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            act(config, revision)
            connection.commit()
    finally:
        engine.dispose()
