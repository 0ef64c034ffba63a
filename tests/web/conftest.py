"""Tests here run on SQLite; those marked `both`, of what nodes share, on PostgreSQL as well."""

import pytest
from conftest import BOTH


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """On which kinds of database a test runs."""
    if "database" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("both") is not None
        metafunc.parametrize("database", BOTH if both else BOTH[:1])


@pytest.fixture(autouse=True)
def _everywhere(on_database: None) -> None:
    """Whatever rig a test makes."""
