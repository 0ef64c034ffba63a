"""Connections and compiled statements. Every difference between databases is in this package and
in `columns`.

`protocol`: what the store asks of a database, and its errors. `statements`: how a statement is
declared, once for both. `sqlite`: the embedded default. `postgres`, `postgres_text` and
`postgres_channel`: many nodes.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.ports import Server
from gateway.store.engine.protocol import BATCH, Conflict, Engine, Refused, StoreError
from gateway.store.engine.sqlite import SqliteEngine, connect
from gateway.store.engine.statements import ByKeys, Read, Write, columns_of, names_of, value

if TYPE_CHECKING:
    from gateway.store.engine.postgres_channel import PostgresChannel

__all__ = [
    "BATCH",
    "ByKeys",
    "Conflict",
    "Engine",
    "Read",
    "Refused",
    "SqliteEngine",
    "StoreError",
    "Write",
    "columns_of",
    "connect",
    "names_of",
    "needs",
    "open_channel",
    "open_engine",
    "value",
]


def open_engine(database: Path | Server, *, commit_delay: float = 0.0) -> Engine:
    """The engine of a database. Raises StoreError: SQLite's file cannot be opened, or PostgreSQL's
    driver is not installed. A server is connected to when it is first needed. `commit_delay`
    (seconds) plays a slower disk under SQLite's file.
    """
    if isinstance(database, Path):
        return SqliteEngine(database, commit_delay=commit_delay)
    try:
        from gateway.store.engine.postgres import PostgresEngine
    except ModuleNotFoundError as error:
        raise StoreError(needs(error)) from error
    return PostgresEngine(database.url, database.password)


def open_channel(database: Path | Server) -> "PostgresChannel | None":
    """What carries hints between the nodes of a database; None where one process has it alone."""
    if isinstance(database, Path):
        return None
    from gateway.store.engine.postgres_channel import PostgresChannel

    return PostgresChannel(database)


def needs(error: ModuleNotFoundError) -> str:
    """What to do when PostgreSQL's driver is missing."""
    return f"PostgreSQL needs {error.name}: install the gateway with its extra `postgres`"
