"""The schema: one line of migrations, the same as the models, up and down with data in it."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from filling import fill
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from gateway.store import schema, tables
from gateway.store.engine import SqliteEngine, StoreError
from gateway.store.reads import Reads

FIRST = "0001"
TABLES = {
    "api_key",
    "attempt",
    "audit",
    "client",
    "counter",
    "delivery",
    "event",
    "guard_pass",
    "idempotency",
    "mark",
    "operator",
    "plan",
    "receipt",
    "recipient",
    "route_stat",
    "route_state",
    "subscription",
    "session",
    "suppression",
    "tally",
    "transition",
    "verification",
}


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> Path:
    return Path(shutil.copy(migrated, tmp_path / "gateway.db"))


@pytest.fixture
def scripts() -> ScriptDirectory:
    return ScriptDirectory(str(schema.ROOT / "migrations"))


@pytest.fixture
def connection(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database)) as opened:
        yield opened


async def filled(database: Path) -> None:
    """At least one row in every table."""
    engine = SqliteEngine(database)
    await fill(engine)
    await engine.close()


def tables_in(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as opened:
        found = opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {name for (name,) in found} - {"alembic_version"}


# The line of migrations.


def test_there_is_one_newest_migration(scripts: ScriptDirectory) -> None:
    assert [schema.head()] == scripts.get_heads()


def test_migrations_follow_each_other_in_one_line(scripts: ScriptDirectory) -> None:
    """From the newest back to the first, each naming the one before it."""
    line = [script.revision for script in scripts.walk_revisions()]
    expected = [f"{number:04}" for number in range(len(line), 0, -1)]

    assert expected == line


def test_a_migrated_database_is_what_the_models_say(database: Path) -> None:
    engine = create_engine(f"sqlite:///{database}", poolclass=NullPool)
    with engine.connect() as opened:
        context = MigrationContext.configure(
            opened, opts={"compare_type": True, "compare_server_default": True}
        )
        differences = compare_metadata(context, SQLModel.metadata)
    engine.dispose()

    assert [] == differences


def test_the_tests_know_every_table() -> None:
    assert tables.Mark.__tablename__ in TABLES
    assert set(SQLModel.metadata.tables) == TABLES


# What the comparison cannot see.


@pytest.mark.parametrize(
    "table",
    [
        "verification",
        "attempt",
        "transition",
        "counter",
        "event",
        "delivery",
        "idempotency",
        "route_stat",
    ],
)
def test_a_table_that_grows_with_traffic_has_no_rowid(
    connection: sqlite3.Connection, table: str
) -> None:
    """Alembic forgets it when its batch mode rebuilds a table."""
    (text,) = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
    ).fetchone()

    assert text.rstrip().upper().endswith("WITHOUT ROWID")


@pytest.mark.parametrize(
    ("index", "columns", "condition"),
    [
        ("uq_attempt_ordinal", "(verification_id, ordinal)", ""),
        ("uq_attempt_reference", "(reference, account)", "WHERE reference IS NOT NULL"),
        (
            "uq_verification_running",
            "(recipient_index, client_id, purpose)",
            "WHERE status = 0",
        ),
    ],
)
def test_what_exactly_once_stands_on_is_unique_in_the_database(
    connection: sqlite3.Connection, index: str, columns: str, condition: str
) -> None:
    """Autogenerate does not compare the condition of an index."""
    (text,) = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ?", (index,)
    ).fetchone()

    assert text.startswith("CREATE UNIQUE INDEX")
    assert text.endswith(f"{columns} {condition}".rstrip())


@pytest.mark.parametrize("rule", ["checks_used <= checks_max", "sends_used <= sends_max"])
def test_the_database_itself_counts_checks_and_sends(
    connection: sqlite3.Connection, rule: str
) -> None:
    """Autogenerate does not compare CHECK constraints."""
    (text,) = connection.execute(
        "SELECT sql FROM sqlite_master WHERE name = 'verification'"
    ).fetchone()

    assert f"CHECK ({rule})" in text


def test_everything_in_the_schema_has_a_name(connection: sqlite3.Connection) -> None:
    """Batch mode can only drop what has one."""
    texts = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table'").fetchall()
    lines = [line.strip() for (text,) in texts for line in text.splitlines()]
    nameless = [
        line
        for line in lines
        if line.startswith(("PRIMARY KEY", "FOREIGN KEY", "UNIQUE", "CHECK"))
        and not line.startswith("CONSTRAINT")
    ]

    assert [] == nameless


# Up and down.


def test_a_new_database_gets_every_table(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    schema.upgrade(path)

    assert TABLES == tables_in(path)


def test_a_process_of_its_own_makes_the_same(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    schema.upgrade_apart(path)

    assert (TABLES, schema.head()) == (tables_in(path), schema.current(path))


async def test_the_data_are_in_every_table(database: Path) -> None:
    await filled(database)
    with closing(sqlite3.connect(database)) as opened:
        counts = {
            name: opened.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608
            for name in TABLES
        }

    assert [] == [name for name, count in counts.items() if not count]


async def test_a_database_with_data_goes_down_to_nothing(database: Path) -> None:
    await filled(database)
    schema.downgrade(database, "base")

    assert set() == tables_in(database)


async def test_a_database_goes_down_and_up_again(database: Path) -> None:
    await filled(database)
    schema.downgrade(database, "base")
    schema.upgrade(database)

    assert (TABLES, schema.head()) == (tables_in(database), schema.current(database))


async def test_migrating_a_current_database_keeps_its_data(database: Path) -> None:
    await filled(database)
    schema.upgrade(database)
    engine = SqliteEngine(database)
    found = [one.name for one in await Reads(engine).clients()]
    await engine.close()

    assert ["backend"] == found


def test_every_step_of_the_way_can_be_taken_alone(tmp_path: Path, scripts: ScriptDirectory) -> None:
    path = tmp_path / "steps.db"
    line = [script.revision for script in scripts.walk_revisions()][::-1]
    reached = []
    for revision in line:
        schema.upgrade(path, revision)
        reached.append(schema.current(path))

    assert line == reached


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """In one transaction: a table of that name is in its way half-way through."""
    path = tmp_path / "torn.db"
    with closing(sqlite3.connect(path)) as opened:
        opened.execute("CREATE TABLE verification (id INTEGER)")
    with pytest.raises(Exception, match="already exists"):
        schema.upgrade(path)
    with pytest.raises(
        StoreError, match=r"torn\.db could not be migrated: table .* already exists"
    ):
        schema.upgrade_apart(path)

    assert ({"verification"}, None) == (tables_in(path), schema.current(path))


# Where a database is.


def test_a_migrated_database_is_at_the_newest_migration(database: Path) -> None:
    assert schema.head() == schema.current(database)


def test_a_file_that_is_not_there_is_at_no_migration(tmp_path: Path) -> None:
    assert schema.current(tmp_path / "none.db") is None


def test_looking_does_not_make_a_file(tmp_path: Path) -> None:
    schema.current(tmp_path / "none.db")

    assert [] == list(tmp_path.iterdir())


def test_an_empty_file_is_at_no_migration(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()

    assert schema.current(path) is None


def test_a_database_taken_down_to_nothing_is_at_no_migration(database: Path) -> None:
    schema.downgrade(database, "base")

    assert schema.current(database) is None


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("This is not a database. " * 40)

    with pytest.raises(StoreError, match=r"letter\.txt: file is not a database"):
        schema.current(path)


@pytest.mark.parametrize("name", ["with blank", "50%20", "a#b", "a?b", "é"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path = folder / "gateway.db"
    schema.upgrade(path)

    assert (schema.head(), ["gateway.db"]) == (
        schema.current(path),
        sorted(one.name for one in folder.iterdir()),
    )


def test_the_first_migration_is_number_one(scripts: ScriptDirectory) -> None:
    assert [FIRST] == scripts.get_bases()
