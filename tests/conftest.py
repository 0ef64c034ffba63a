"""Fixtures every test may use: a clock that stands still, and a gateway of real parts around it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

pytest.register_assert_rewrite("providers.cases", "rig")

from fakes import Clock  # noqa: E402
from rig import Rig, template_database  # noqa: E402


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Every test runs on the loop that production runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the current schema, to be copied."""
    return template_database(tmp_path_factory.mktemp("schema"))


@pytest.fixture
async def rig(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[Rig]:
    """A running gateway on a database of its own, with a fake outside world."""
    made = Rig(tmp_path, migrated, clock)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
