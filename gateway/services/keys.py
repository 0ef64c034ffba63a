"""When keys were last used: noted in memory as they are looked up, written now and then."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.services.runtime import Runtime
from gateway.store.ledger import Doing, Operation, Transaction, Wants
from gateway.store.records import KeyUse

CHUNK = 500  # keys written by one operation


@dataclass(frozen=True, slots=True)
class NoteUse(Operation[None]):
    """Write when these keys were last used."""

    used: tuple[KeyUse, ...]


def doings() -> dict[type[Operation[Any]], Doing]:
    """How it is done: last in a batch, and first to be turned away."""
    return {NoteUse: Doing(8, 0.5, wants, apply)}


def wants(operation: NoteUse) -> Wants:
    """Nothing: the newest wins, whoever writes it."""
    return Wants()


def apply(tx: Transaction, operation: NoteUse, now: datetime) -> None:
    """Leave them for the batch to write."""
    for use in operation.used:
        tx.note_use(use)


async def write_uses(runtime: Runtime) -> int:
    """Write what was noted since the last time. How many keys it were.

    Raises Unavailable; what was noted then waits for the next time.
    """
    noted: dict[UUID, datetime] = dict(list(runtime.used_keys.items())[:CHUNK])
    if not noted:
        return 0
    uses = tuple(KeyUse(named, at) for named, at in noted.items())
    await runtime.ledger.submit(NoteUse(uses))
    for named, at in noted.items():
        if runtime.used_keys.get(named) == at:
            del runtime.used_keys[named]
    return len(noted)
