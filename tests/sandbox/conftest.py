from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest_asyncio
from sandbox.world import Rig

MakeRig = Callable[..., Rig]


@pytest_asyncio.fixture
async def make_rig() -> AsyncIterator[MakeRig]:
    """Rigs with other settings; each is closed after the test."""
    rigs: list[Rig] = []

    def make(**changes: Any) -> Rig:
        rigs.append(Rig(**changes))
        return rigs[-1]

    yield make
    for rig in rigs:
        await rig.sandbox.aclose()
        await rig.client.aclose()


@pytest_asyncio.fixture
async def rig(make_rig: MakeRig) -> Rig:
    return make_rig()
