"""`gateway purge` and `gateway erase`: the services' own operations, through a ledger of the
command's process, beside a running `serve`.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from gateway.app import clock, keyring_file
from gateway.app.doings import doings
from gateway.app.folder import opened
from gateway.config import Settings
from gateway.domain import addresses
from gateway.domain.addresses import Address
from gateway.domain.errors import Unavailable
from gateway.domain.identity import Entropy
from gateway.domain.keyring import Keyring
from gateway.services import retention
from gateway.services.case import Context
from gateway.services.retention import Forgotten, Place, Purged
from gateway.store import upkeep
from gateway.store.engine import StoreError
from gateway.store.ledger import Ledger
from gateway.store.reads import Reads

PAUSE = 0.02  # seconds between two chunks: twice as long as `serve` waits to ask for its lock again


async def purge(settings: Settings) -> Purged:
    """Take away all that is past its time, a chunk at a time. Raises StoreError; what was done
    until then stays done."""
    keyring = keyring_file.load(settings.keyring_file)
    done, place = Purged(), Place()
    async with _beside(settings, keyring) as (reads, ledger):
        while True:
            done += await retention.purge(reads, ledger, settings.retention, place, clock.now())
            if not done.more:
                break
            await asyncio.sleep(PAUSE)
        while True:
            done += await retention.sweep_aside(reads, ledger, clock.now())
            if not done.more:
                return done
            await asyncio.sleep(PAUSE)


async def drop_plans(settings: Settings) -> int:
    """Delete the plans that no verification follows. How many."""
    async with opened(settings) as engine:
        return sum(
            [await upkeep.drop_plan(engine, one) for one in await upkeep.unused_plans(engine)]
        )


async def count_plans(settings: Settings) -> int:
    """How many plans no verification follows."""
    async with opened(settings) as engine:
        return len(await upkeep.unused_plans(engine))


async def would_purge(settings: Settings) -> Purged:
    """What `purge` would take away now."""
    async with opened(settings) as engine:
        return await retention.would_purge(Reads(engine), settings.retention, clock.now())


async def forget(settings: Settings, address: Address) -> Forgotten:
    """Erase everything of the person with that address. Raises StoreError."""
    keyring = keyring_file.load(settings.keyring_file)
    async with _beside(settings, keyring) as (reads, ledger):
        index = keyring.index(*addresses.indexed(address))
        return await retention.forget(reads, ledger, index, settings.policy.rules)


@contextlib.asynccontextmanager
async def _beside(settings: Settings, keyring: Keyring) -> AsyncIterator[tuple[Reads, Ledger]]:
    """A ledger of this process; nothing it commits leaves anything to be sent."""
    async with opened(settings) as engine:
        context = Context(
            keyring=keyring,
            leases={},
            unsigned=frozenset(),
            entropy=Entropy(os.urandom),
            retention=settings.retention,
        )
        ledger = Ledger(
            engine, doings(context), now=clock.now, slots=dict, after=lambda items: None
        )
        ledger.start()
        try:
            yield Reads(engine), ledger
        except Unavailable as error:
            raise StoreError(f"{error.__cause__ or error}") from error
        finally:
            await ledger.close()
