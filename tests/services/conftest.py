"""Every test here runs on both databases."""

import pytest
from conftest import BOTH


@pytest.fixture(params=BOTH)
def database(request: pytest.FixtureRequest) -> str:
    """The kind of database."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _everywhere(on_database: None) -> None:
    """Whatever rig a test makes."""
