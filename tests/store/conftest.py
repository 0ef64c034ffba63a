"""Databases of both kinds, for what must work alike on them."""

import shutil
from pathlib import Path

import pytest
from conftest import BOTH

from gateway.ports import Server


@pytest.fixture(params=BOTH)
def store(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> Path | Server:
    """A migrated, empty database: SQLite's file, or PostgreSQL's address."""
    if request.param == "postgres":
        server: Server = request.getfixturevalue("on_postgres")
        return server
    return Path(shutil.copy(migrated, tmp_path / "gateway.db"))
