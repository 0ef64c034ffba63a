"""Connections and statements, on real files: locks, guards, durability, and a clean end."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from itertools import combinations
from pathlib import Path

import pytest
from factories import after, make_logged, make_verification
from fakes import START
from sqlalchemy import asc, bindparam, delete, insert, select, update

from gateway.domain.limits import Counter
from gateway.store import tables, writes
from gateway.store.engine import (
    BATCH,
    ByKeys,
    Conflict,
    Read,
    Refused,
    SqliteEngine,
    StoreError,
    Write,
    columns_of,
    connect,
    names_of,
    value,
)
from gateway.store.engine.sqlite import _FORMS, _changes, _keyed
from gateway.store.reads import COUNTERS, LOG
from gateway.store.records import Mark

MARK, VERIFICATIONS = writes.table(tables.Mark), writes.table(tables.Verification)
INSERT = Write(insert(MARK).values(name=value("name"), at=value("at")))
UPDATE = Write(update(MARK).where(MARK.c.name == value("name")).values(at=value("at")))
DELETE = Write(delete(MARK).where(MARK.c.name == value("name")))
ALL = Read(select(*columns_of(MARK, Mark)).order_by(asc(MARK.c.name)), Mark)
BY_NAME = ByKeys(columns_of(MARK, Mark), MARK.c.name, Mark)

A, B, C = Mark("a", START), Mark("b", after(1)), Mark("c", after(2))


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> Path:
    return Path(shutil.copy(migrated, tmp_path / "gateway.db"))


@pytest.fixture
async def engine(database: Path) -> AsyncIterator[SqliteEngine]:
    opened = SqliteEngine(database)
    yield opened
    await opened.close()


@pytest.fixture
def stranger(database: Path) -> Iterator[sqlite3.Connection]:
    """Another process's connection: `client add` beside a running gateway."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=0)) as opened:
        yield opened


async def stored(engine: SqliteEngine, *marks: Mark) -> None:
    await engine.begin()
    await engine.run(INSERT, marks)
    await engine.commit()


# The write lock.


async def test_a_lock_held_elsewhere_is_waited_for(
    engine: SqliteEngine, stranger: sqlite3.Connection
) -> None:
    stranger.execute("BEGIN IMMEDIATE")
    begun = asyncio.create_task(engine.begin())
    await asyncio.sleep(0)
    waited = not begun.done()
    stranger.execute("COMMIT")
    await begun
    await engine.rollback()

    assert waited


async def test_a_wait_for_the_lock_lets_the_loop_turn(
    database: Path, stranger: sqlite3.Connection
) -> None:
    """A wait inside SQLite would stop every request of the process."""
    engine = SqliteEngine(database, busy_seconds=0.05)
    stranger.execute("BEGIN IMMEDIATE")
    begun = asyncio.create_task(engine.begin())
    turns = 0
    while not begun.done():
        turns += 1
        await asyncio.sleep(0)
    await engine.close()

    assert turns > 10
    assert isinstance(begun.exception(), StoreError)


async def test_a_lock_held_too_long_is_given_up(
    database: Path, stranger: sqlite3.Connection
) -> None:
    engine = SqliteEngine(database, busy_seconds=0.02)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another process holds the database's write lock"):
        await engine.begin()

    await engine.close()


async def test_a_lock_given_up_can_be_taken_later(
    database: Path, stranger: sqlite3.Connection
) -> None:
    engine = SqliteEngine(database, busy_seconds=0.02)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError):
        await engine.begin()
    stranger.execute("ROLLBACK")
    await stored(engine, A)

    assert [A] == await engine.fetch(ALL)
    await engine.close()


async def test_an_open_transaction_keeps_others_from_writing(
    engine: SqliteEngine, stranger: sqlite3.Connection
) -> None:
    await engine.begin()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        stranger.execute("BEGIN IMMEDIATE")

    await engine.rollback()


async def test_an_open_transaction_keeps_nobody_from_reading(
    engine: SqliteEngine, stranger: sqlite3.Connection
) -> None:
    await stored(engine, A)
    await engine.begin()
    await engine.run(DELETE, [A])

    assert [("a",)] == stranger.execute("SELECT name FROM mark").fetchall()
    await engine.rollback()


async def test_whatever_else_begin_is_refused_with_is_a_store_error(engine: SqliteEngine) -> None:
    await engine.begin()
    with pytest.raises(StoreError, match="within a transaction"):
        await engine.begin()

    await engine.rollback()


# Writing.


async def test_a_statement_runs_for_each_value(engine: SqliteEngine) -> None:
    await stored(engine, A, B, C)

    assert [A, B, C] == await engine.fetch(ALL)


async def test_a_statement_tells_how_many_rows_it_touched(engine: SqliteEngine) -> None:
    await stored(engine, A, B)
    await engine.begin()
    touched = await engine.run(DELETE, [A, B])
    await engine.rollback()

    assert 2 == touched


async def test_without_values_a_statement_does_nothing(engine: SqliteEngine) -> None:
    await engine.begin()
    touched = await engine.run(INSERT, [])
    await engine.rollback()

    assert 0 == touched


@pytest.mark.parametrize("marks", [[B], [A, B], [B, A]])
async def test_a_row_that_is_not_as_it_was_loaded_is_a_conflict(
    engine: SqliteEngine, marks: list[Mark]
) -> None:
    """Zero rows from an update: somebody else was there first."""
    await stored(engine, A)
    await engine.begin()
    with pytest.raises(Conflict, match=rf"1 of {len(marks)} rows were not as loaded"):
        await engine.run(UPDATE, marks)

    await engine.rollback()


async def test_a_statement_may_touch_no_row_when_nothing_is_expected(engine: SqliteEngine) -> None:
    await engine.begin()
    touched = await engine.run(UPDATE, [A], expect=False)
    await engine.rollback()

    assert 0 == touched


async def test_a_unique_key_that_is_taken_is_a_conflict(engine: SqliteEngine) -> None:
    await stored(engine, A)
    await engine.begin()
    with pytest.raises(Conflict, match=r"UNIQUE constraint failed: mark\.name"):
        await engine.run(INSERT, [Mark("a", after(9))])

    await engine.rollback()


async def test_a_foreign_key_without_its_row_is_a_conflict(engine: SqliteEngine) -> None:
    await engine.begin()
    with pytest.raises(Conflict, match="FOREIGN KEY"):
        await writes.insert_verifications(engine, [make_verification()])

    await engine.rollback()


async def test_whatever_else_a_statement_is_refused_with_is_a_store_error(
    engine: SqliteEngine,
) -> None:
    await engine.begin()
    with pytest.raises(StoreError) as refused:
        await engine.run(INSERT, [Mark(object(), START)])  # type: ignore[arg-type]
    await engine.rollback()

    assert StoreError is refused.type


async def test_a_full_disk_is_a_store_error(engine: SqliteEngine) -> None:
    pages = engine._writer.execute("PRAGMA page_count").fetchone()[0]
    engine._writer.execute(f"PRAGMA max_page_count = {pages}")
    await engine.begin()
    with pytest.raises(StoreError, match="full"):
        await engine.run(INSERT, [Mark(f"{number:1000}", START) for number in range(200)])

    await engine.rollback()


# Reading.


async def test_what_is_not_committed_is_read_inside_the_transaction_alone(
    engine: SqliteEngine,
) -> None:
    await engine.begin()
    await engine.run(INSERT, [A])
    found = (await engine.load_one(ALL), await engine.fetch(ALL))
    await engine.rollback()

    assert ([A], []) == found


async def test_what_is_committed_is_read_at_once(engine: SqliteEngine) -> None:
    await stored(engine, A)

    assert [A] == await engine.fetch(ALL)


async def test_a_transaction_given_up_leaves_nothing(engine: SqliteEngine) -> None:
    await engine.begin()
    await engine.run(INSERT, [A])
    await engine.rollback()

    assert [] == await engine.fetch(ALL)


async def test_giving_up_without_a_transaction_does_nothing(engine: SqliteEngine) -> None:
    await engine.rollback()

    assert [] == await engine.fetch(ALL)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, BATCH - 1, BATCH, BATCH + 1, 4000])
async def test_rows_are_read_by_any_number_of_keys(engine: SqliteEngine, count: int) -> None:
    marks = [Mark(f"{number:06}", after(number)) for number in range(count)]
    await stored(engine, *marks, Mark("other", START))

    found = await engine.fetch_by(BY_NAME, [mark.name for mark in marks])

    assert marks == sorted(found, key=lambda mark: mark.name)


async def test_rows_are_read_by_keys_inside_a_transaction_too(engine: SqliteEngine) -> None:
    await engine.begin()
    await engine.run(INSERT, [A, B, C])
    found = await engine.load(BY_NAME, ["c", "a"])
    await engine.rollback()

    assert [A, C] == sorted(found, key=lambda mark: mark.name)


async def test_a_key_without_a_row_is_left_out(engine: SqliteEngine) -> None:
    await stored(engine, A)

    assert [A] == await engine.fetch_by(BY_NAME, ["a", "x", "y"])


async def test_a_key_given_twice_gives_its_row_once(engine: SqliteEngine) -> None:
    await stored(engine, A)

    assert [A] == await engine.fetch_by(BY_NAME, ["a", "a", "a"])


async def test_without_keys_there_are_no_rows(engine: SqliteEngine) -> None:
    assert ([], []) == (await engine.load(BY_NAME, []), await engine.fetch_by(BY_NAME, []))


def test_a_few_statements_serve_every_number_of_keys() -> None:
    """They stay prepared: a text of its own for each number would be parsed each time."""
    texts = {_keyed(BY_NAME).query(["key"] * count)[0].sql for count in range(1, BATCH + 1)}

    assert 10 == len(texts)


def test_a_statement_has_few_forms_whatever_is_usual() -> None:
    """F27: no memory grows with the traffic; what has no form of its own is given whole."""
    usual = dict.fromkeys(("reference", "code_sealed", "params_sealed", "trace", "locale"))
    statement = insert(VERIFICATIONS).values(
        {name: value(name) for name in make_verification()._fields}
    )
    changes = _changes(Write(statement, usual=usual))
    forms = {
        changes.form([make_verification(**dict.fromkeys(names, "x"))]).sql
        for size in range(len(usual) + 1)
        for names in combinations(usual, size)
    }

    assert _FORMS + 1 == len(forms)
    assert statement.compile().string.count(":") == max(sql.count("?") for sql in forms)


async def test_keys_are_converted_like_any_value(engine: SqliteEngine) -> None:
    counter = Counter(b"key", START, 3)
    await engine.begin()
    await writes.put_counters(engine, [counter])
    await engine.commit()

    assert [counter] == await engine.fetch_by(COUNTERS, [b"key"])


async def test_a_truth_value_comes_back_as_one(engine: SqliteEngine) -> None:
    row = make_logged(applied=True)
    await engine.begin()
    await writes.move(engine, [], [row])
    await engine.commit()
    (found,) = await engine.fetch_by(LOG, [row.verification_id])

    assert found.applied is True


async def test_constants_stand_where_they_belong_among_the_parameters(
    engine: SqliteEngine,
) -> None:
    """The driver takes parameters by place; a statement may hold constants between them."""
    await stored(engine, A, B, C)
    between: Read[Mark] = Read(
        select(*columns_of(MARK, Mark))
        .where(
            MARK.c.at >= bindparam("v_since", type_=MARK.c.at.type),
            MARK.c.name != "b",
            MARK.c.at <= bindparam("v_until", type_=MARK.c.at.type),
        )
        .order_by(MARK.c.name)
        .limit(2),
        Mark,
    )

    assert [A, C] == await engine.fetch(between, START, after(2))


async def test_a_statement_that_cannot_be_read_is_a_store_error(
    engine: SqliteEngine, stranger: sqlite3.Connection
) -> None:
    stranger.execute("DROP TABLE mark")

    with pytest.raises(StoreError, match="no such table"):
        await engine.fetch(ALL)


def test_the_reading_connection_cannot_write(engine: SqliteEngine) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        engine._reader.execute("DELETE FROM mark")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Mark, ("name", "at")), (Counter, ("key", "since", "count"))],
)
def test_the_names_of_a_value_are_those_of_its_columns(
    kind: type, expected: tuple[str, ...]
) -> None:
    assert expected == names_of(kind)


def test_the_names_of_a_named_tuple_are_its_fields() -> None:
    verification = make_verification()

    assert verification._fields == names_of(type(verification))


# Durability.


@pytest.mark.parametrize("which", ["_writer", "_reader"])
@pytest.mark.parametrize(
    ("pragma", "expected"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("busy_timeout", 0),
        ("wal_autocheckpoint", 4000),
    ],
)
def test_every_connection_has_the_settings_durability_stands_on(
    engine: SqliteEngine, which: str, pragma: str, expected: object
) -> None:
    """`synchronous` 2 is FULL: COMMIT returns when the disk has it."""
    connection: sqlite3.Connection = getattr(engine, which)

    assert (expected,) == connection.execute(f"PRAGMA {pragma}").fetchone()


async def test_what_is_committed_is_in_the_file(engine: SqliteEngine, database: Path) -> None:
    """Read back from copies of the files as they are on disk, the engine still open: what a crash
    of the process would leave."""
    await stored(engine, A)
    left = database.with_name("left.db")
    shutil.copy(database, left)
    shutil.copy(f"{database}-wal", f"{left}-wal")
    reopened = SqliteEngine(left)
    found = await reopened.fetch(ALL)
    await reopened.close()

    assert [A] == found


async def test_what_is_not_committed_is_not_in_the_file(
    engine: SqliteEngine, database: Path
) -> None:
    await stored(engine, A)
    await engine.begin()
    await engine.run(INSERT, [B])
    left = database.with_name("left.db")
    shutil.copy(database, left)
    shutil.copy(f"{database}-wal", f"{left}-wal")
    await engine.rollback()
    reopened = SqliteEngine(left)
    found = await reopened.fetch(ALL)
    await reopened.close()

    assert [A] == found


async def test_what_is_committed_is_there_after_a_restart(database: Path) -> None:
    engine = SqliteEngine(database)
    await stored(engine, A, B)
    await engine.close()
    reopened = SqliteEngine(database)
    found = await reopened.fetch(ALL)
    await reopened.close()

    assert [A, B] == found


async def test_a_refused_commit_is_told_from_other_errors(engine: SqliteEngine) -> None:
    """A deferred key is looked at by COMMIT itself."""
    await engine.begin()
    engine._writer.execute("PRAGMA defer_foreign_keys = ON")
    await writes.insert_verifications(engine, [make_verification()])
    with pytest.raises(Refused, match="FOREIGN KEY"):
        await engine.commit()

    await engine.rollback()


async def test_after_a_refused_commit_there_is_nothing_and_work_goes_on(
    engine: SqliteEngine,
) -> None:
    await engine.begin()
    engine._writer.execute("PRAGMA defer_foreign_keys = ON")
    await engine.run(INSERT, [A])
    await writes.insert_verifications(engine, [make_verification()])
    with pytest.raises(Refused):
        await engine.commit()
    await engine.rollback()
    await stored(engine, B)

    assert [B] == await engine.fetch(ALL)


async def test_a_commit_nobody_waits_for_any_more_is_a_commit(database: Path) -> None:
    engine = SqliteEngine(database)
    await engine.begin()
    await engine.run(INSERT, [A])
    commit = asyncio.create_task(engine.commit())
    await asyncio.sleep(0)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    await engine.close()
    reopened = SqliteEngine(database)
    found = await reopened.fetch(ALL)
    await reopened.close()

    assert [A] == found


async def test_statements_run_while_another_commits_on_another_connection(
    engine: SqliteEngine,
) -> None:
    """Reads are not behind the disk."""
    await stored(engine, A)
    await engine.begin()
    await engine.run(INSERT, [B])
    commit = asyncio.create_task(engine.commit())
    await asyncio.sleep(0)
    found = await engine.fetch(ALL)
    await commit

    assert found in ([A], [A, B])


# The end.


async def test_closing_waits_for_the_commit_under_way(database: Path) -> None:
    engine = SqliteEngine(database)
    await engine.begin()
    await engine.run(INSERT, [A])
    commit = asyncio.create_task(engine.commit())
    await asyncio.sleep(0)
    await engine.close()
    await commit
    reopened = SqliteEngine(database)
    found = await reopened.fetch(ALL)
    await reopened.close()

    assert [A] == found


async def test_a_closed_engine_leaves_one_file(database: Path) -> None:
    """The log is worked into the database and gone: the folder can be copied as it is."""
    engine = SqliteEngine(database)
    await stored(engine, A)
    await engine.close()

    assert [database.name] == sorted(path.name for path in database.parent.iterdir())


async def test_a_closed_engine_leaves_no_thread(database: Path) -> None:
    engine = SqliteEngine(database)
    await engine.close()

    assert not engine._thread.is_alive()


# Opening.


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_no_database_is_named(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("This is not a database. " * 40)

    with pytest.raises(StoreError, match=r"letter\.txt: file is not a database"):
        connect(path, read_only=read_only)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"gateway\.db: unable to open"):
        connect(tmp_path / "nowhere" / "gateway.db")


async def test_two_engines_take_turns_on_one_file(database: Path, engine: SqliteEngine) -> None:
    """A command beside the running gateway."""
    other = SqliteEngine(database)
    await stored(other, A)
    await stored(engine, B)
    found = await other.fetch(ALL)
    await other.close()

    assert [A, B] == found
