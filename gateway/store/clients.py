"""Clients and their keys as the console changes them, inside the caller's transaction."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import update

from gateway.store import tables, upkeep, writes
from gateway.store.engine import Engine, Write, value
from gateway.store.records import ApiKey, Client
from gateway.store.writes import table

_API_KEY = table(tables.ApiKey)
_REVOKE = Write(
    update(_API_KEY)
    .where(_API_KEY.c.id == value("id"), _API_KEY.c.revoked_at.is_(None))
    .values(revoked_at=value("revoked_at"))
)


async def everyone(engine: Engine) -> list[tuple[Client, list[ApiKey]]]:
    """Every client with its keys."""
    return await upkeep.clients(engine)


async def add(engine: Engine, client: Client, key: ApiKey) -> None:
    """A client and its first key. A name that is taken is a Conflict."""
    await writes.insert_client(engine, client, key)


async def add_key(engine: Engine, key: ApiKey) -> None:
    """One more key of a client."""
    await writes.insert_key(engine, key)


async def revoke(engine: Engine, key: ApiKey, now: datetime) -> bool:
    """Take a key back; False when somebody had done so before."""
    return await engine.run(_REVOKE, [replace(key, revoked_at=now)], expect=False) == 1


async def key(engine: Engine, named: UUID) -> tuple[Client, ApiKey] | None:
    """A key by its id, and whose it is."""
    for client, keys in await upkeep.clients(engine):
        for one in keys:
            if one.id == named:
                return client, one
    return None
