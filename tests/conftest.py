"""Fixtures every test may use: a clock that stands still, and a gateway of real parts around it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

pytest.register_assert_rewrite("providers.cases", "rig")

import postgres  # noqa: E402
from fakes import Clock  # noqa: E402
from rig import Rig, template_database  # noqa: E402

from gateway.ports import Server  # noqa: E402
from gateway.store import schema  # noqa: E402

BOTH = ("sqlite", "postgres")
MEASURED = {"domain", "services", "store"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the manual's pictures go, when they are to be taken anew; and half of the tests."""
    parser.addoption("--pictures", metavar="FOLDER", help="keep the console's screenshots there")
    parser.addoption(
        "--long", action="store_true", help="kill nodes for a minute, not for some seconds"
    )
    parser.addoption(
        "--part",
        choices=("measured", "rest"),
        help="measured: the tests of domain, store and services, which run with branch coverage. "
        "rest: all others, and services a second time, on PostgreSQL. Default: all.",
    )


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Every test runs on the loop that production runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `sqlite` or `postgres` are of what only that database can do or suffer."""
    part = config.getoption("--part")
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        given = getattr(item, "callspec", None)
        values = given.params.values() if given is not None else ()
        which = next((one for one in BOTH if one in values), None)
        only = [name for name in BOTH if item.get_closest_marker(name) is not None]
        wrong = which and only and which not in only
        other = part is not None and part != _part(item, which)
        (left_out if wrong or other else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def _part(item: pytest.Item, database: str | None) -> str:
    """The tracer of coverage costs more than half as much again: it is spent on the rules, the
    statements and what is done with them, once."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    again = database == "postgres" and folder == "services"
    return "measured" if folder in MEASURED and not again else "rest"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the current schema, to be copied."""
    return template_database(tmp_path_factory.mktemp("schema"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL server. Required: without one the tests that need it fail."""
    with postgres.server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_migrated(postgres_server: str) -> Iterator[Server]:
    """A database on it with the current schema."""
    with postgres.database(postgres_server) as url:
        schema.upgrade(Server(url))
        yield Server(url)


@pytest.fixture
def on_postgres(postgres_migrated: Server) -> Server:
    """The same, without a row."""
    postgres.emptied(postgres_migrated.url)
    return postgres_migrated


@pytest.fixture
def on_database(
    database: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rig of the test runs on that kind of database."""
    if database == "postgres":
        monkeypatch.setattr(Rig, "server", request.getfixturevalue("on_postgres"))


@pytest.fixture
async def rig(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[Rig]:
    """A running gateway on a database of its own, with a fake outside world."""
    made = Rig(tmp_path, migrated, clock)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
