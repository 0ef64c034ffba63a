"""What commands do to a database beside, or instead of, a running gateway: the clients' keys, and
indexes made anew. Cold paths, each a transaction of its own.
"""

from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import asc, bindparam, delete, exists, func, select, update

from gateway.domain import addresses
from gateway.domain.addresses import Address
from gateway.domain.keyring import Keyring
from gateway.store import tables
from gateway.store.engine import Conflict, Engine, Read, StoreError, Write, columns_of, value
from gateway.store.reads import Reads
from gateway.store.records import ApiKey, Client, Further
from gateway.store.writes import VERIFICATION, table

CHUNK = 500  # rows in hand at once

_API_KEY = table(tables.ApiKey)
_COUNTER = table(tables.Counter)
_RECIPIENT = table(tables.Recipient)
_PLAN = table(tables.Plan)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A verification's recipient as stored."""

    id: UUID
    key_id: str
    recipient_index: bytes
    recipient_sealed: bytes


@dataclass(frozen=True, slots=True)
class _Named:
    key: bytes


@dataclass(frozen=True, slots=True)
class Reindexed:
    """What `reindex` did."""

    made_anew: int
    erased: int  # recipients that are gone: nobody can find these by number any more
    counters: int  # dropped


@dataclass(frozen=True, slots=True)
class Unused:
    """A plan by its digest."""

    digest: bytes


_KEYS: Read[ApiKey] = Read(
    select(*columns_of(_API_KEY, ApiKey)).order_by(asc(_API_KEY.c.id)), ApiKey
)
_SEALED: Read[Sealed] = Read(
    select(*columns_of(VERIFICATION, Sealed))
    .where(
        VERIFICATION.c.recipient_sealed.is_not(None),
        VERIFICATION.c.id > bindparam("v_after", type_=VERIFICATION.c.id.type),
    )
    .order_by(asc(VERIFICATION.c.id))
    .limit(value("limit")),
    Sealed,
)
_ERASED: Read[int] = Read(
    select(func.count()).select_from(VERIFICATION).where(VERIFICATION.c.recipient_sealed.is_(None)),
    int,
)
_PUT_INDEX = Write(
    update(VERIFICATION)
    .where(VERIFICATION.c.id == value("id"))
    .values(recipient_index=value("recipient_index"))
)
_PUT_FURTHER = Write(
    update(_RECIPIENT)
    .where(
        _RECIPIENT.c.verification_id == value("verification_id"),
        _RECIPIENT.c.kind == value("kind"),
    )
    .values(recipient_index=value("recipient_index"))
)
_COUNTERS: Read[_Named] = Read(select(_COUNTER.c.key), _Named)
_FORGET_SUPPRESSIONS = Write(
    delete(table(tables.Suppression)).where(
        table(tables.Suppression).c.recipient_index > value("key")
    )
)
_DROP_COUNTER = Write(delete(_COUNTER).where(_COUNTER.c.key == value("key")))


_UNUSED_PLANS: Read[Unused] = Read(
    select(_PLAN.c.digest).where(_PLAN.c.digest.not_in(select(VERIFICATION.c.plan).distinct())),
    Unused,
)
_DROP_PLAN = Write(
    delete(_PLAN).where(
        _PLAN.c.digest == value("digest"),
        ~exists(select(VERIFICATION.c.id).where(VERIFICATION.c.plan == _PLAN.c.digest)),
    )
)


async def unused_plans(engine: Engine) -> list[Unused]:
    """The plans that no verification follows. Reads all verifications."""
    return await engine.fetch(_UNUSED_PLANS)


async def drop_plan(engine: Engine, plan: Unused) -> int:
    """Delete a plan unless it is used again: the rows deleted. The database reads all verifications
    for it, while other writers wait."""
    await engine.begin()
    try:
        dropped = await engine.run(_DROP_PLAN, [plan], expect=False)
        await engine.commit()
    except Conflict:  # PostgreSQL: somebody has just begun to use it
        await engine.rollback()
        return 0
    except StoreError:
        await engine.rollback()
        raise
    return dropped


async def clients(engine: Engine) -> list[tuple[Client, list[ApiKey]]]:
    """Every client with its keys."""
    keys = await engine.fetch(_KEYS)
    found = await Reads(engine).clients()
    return [(client, [key for key in keys if key.client_id == client.id]) for client in found]


async def reindex(engine: Engine, keyring: Keyring, renewed: Keyring) -> Reindexed:
    """Make every blind index anew, in one transaction. Counters know numbers by the old one and
    are dropped: limits begin again. Raises KeyringError when a recipient does not open."""
    await engine.begin()
    after, made_anew = UUID(int=0), 0
    while rows := await engine.load_one(_SEALED, after, CHUNK):
        await engine.run(_PUT_INDEX, [_again(row, keyring, renewed) for row in rows])
        if further := [one for row in rows for one in _further(row, keyring, renewed)]:
            await engine.run(_PUT_FURTHER, further, expect=False)
        made_anew += len(rows)
        after = rows[-1].id
    counters = await engine.load_one(_COUNTERS)
    if counters:
        await engine.run(_DROP_COUNTER, counters)
    await engine.run(_FORGET_SUPPRESSIONS, [_Named(b"")], expect=False)
    erased = (await engine.load_one(_ERASED))[0]
    await engine.commit()
    return Reindexed(made_anew, erased, len(counters))


async def indexed_by(engine: Engine, keyring: Keyring) -> bool | None:
    """Whether the indexes are this keyring's: one transaction made them all, so one row tells.

    None when no row is left that could tell.
    """
    for row in await engine.fetch(_SEALED, UUID(int=0), 1):
        return _again(row, keyring, keyring).recipient_index == row.recipient_index
    return None


def _again(row: Sealed, keyring: Keyring, renewed: Keyring) -> Sealed:
    principal = addresses.principal(_opened(row, keyring))
    return replace(row, recipient_index=renewed.index(*addresses.indexed(principal)))


def _further(row: Sealed, keyring: Keyring, renewed: Keyring) -> list[Further]:
    """Every address but a number alone; those without a row of their own are passed over."""
    found = _opened(row, keyring)
    if len(found) == 1:
        return []
    return [Further(row.id, one.kind, renewed.index(*addresses.indexed(one))) for one in found]


def _opened(row: Sealed, keyring: Keyring) -> list[Address]:
    packed = keyring.open(row.key_id, row.recipient_sealed, owner=row.id.bytes)
    return [Address(kind, text) for kind, text in addresses.unpack(packed).items()]
