"""How the domain's values lie in a row: each type there and back, by SQLAlchemy and by the
engine."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from asyncpg.pgproto import pgproto
from fakes import START
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    create_engine,
    dialects,
    insert,
    select,
    text,
)
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from gateway.domain.delivery import Cause, Outcome, State
from gateway.domain.verification import Status
from gateway.store import tables
from gateway.store.columns import STATE, STATUS, Coded, Id, Moment, Stored
from gateway.store.engine import Read, SqliteEngine, Write, value

ATTEMPT, VERIFICATION, LOG = (
    SQLModel.metadata.tables[name] for name in ("attempt", "verification", "transition")
)
assert tables.Attempt.__tablename__  # the import that fills the metadata

# The types as the tables have them.
KINDS: dict[str, Any] = {
    "id": ATTEMPT.c.id.type,
    "moment": ATTEMPT.c.queued_at.type,
    "state": ATTEMPT.c.state.type,
    "status": VERIFICATION.c.status.type,
    "outcome": ATTEMPT.c.outcome.type,
    "standing": LOG.c.before.type,
    "cause": ATTEMPT.c.cause.type,
}
NAMES = tuple(KINDS)
TABLE = Table(
    "sample",
    MetaData(),
    Column("number", Integer, primary_key=True),
    *(Column(name, kind) for name, kind in KINDS.items()),
)

# Each member and its number, as rows written years ago have them.
CODES: list[tuple[str, Any, int]] = [
    ("state", State.QUEUED, 0),
    ("state", State.SENT, 10),
    ("state", State.ACK, 20),
    ("state", State.FAILED, 25),
    ("state", State.DELIVERED, 30),
    ("state", State.READ, 40),
    ("status", Status.PENDING, 0),
    ("status", Status.VERIFIED, 1),
    ("status", Status.EXPIRED, 2),
    ("status", Status.CANCELED, 3),
    ("status", Status.LOCKED, 4),
    ("status", Status.FAILED, 5),
    ("outcome", Outcome.ACCEPTED, 1),
    ("outcome", Outcome.UNKNOWN, 2),
    ("outcome", Outcome.TEMPORARY, 3),
    ("outcome", Outcome.THROTTLED, 4),
    ("outcome", Outcome.ACCOUNT, 5),
    ("outcome", Outcome.PERMANENT, 6),
    ("outcome", Outcome.WITHDRAWN, 7),
    ("standing", State.QUEUED, 0),
    ("standing", State.SENT, 10),
    ("standing", State.ACK, 20),
    ("standing", State.FAILED, 25),
    ("standing", State.DELIVERED, 30),
    ("standing", State.READ, 40),
    ("standing", Status.PENDING, 100),
    ("standing", Status.VERIFIED, 101),
    ("standing", Status.EXPIRED, 102),
    ("standing", Status.CANCELED, 103),
    ("standing", Status.LOCKED, 104),
    ("standing", Status.FAILED, 105),
    ("cause", Cause.FIRST, 1),
    ("cause", Cause.SILENCE, 2),
    ("cause", Cause.FAILED, 3),
    ("cause", Cause.REFUSED, 4),
    ("cause", Cause.UNKNOWN, 5),
    ("cause", Cause.RESEND, 6),
    ("cause", Cause.NEXT, 7),
]


@dataclass(frozen=True)
class Sample:
    """A row of the table."""

    number: int
    id: UUID | None = None
    moment: datetime | None = None
    state: State | None = None
    status: Status | None = None
    outcome: Outcome | None = None
    standing: State | Status | None = None
    cause: Cause | None = None


SAMPLES = [
    Sample(1),
    Sample(2, UUID(int=0), datetime(1970, 1, 1, tzinfo=UTC)),
    Sample(3, UUID(int=2**128 - 1), START + timedelta(milliseconds=123)),
    *(Sample(10 + at, state=one) for at, one in enumerate(State)),
    *(Sample(20 + at, status=one) for at, one in enumerate(Status)),
    *(Sample(30 + at, outcome=one) for at, one in enumerate(Outcome)),
    *(Sample(40 + at, standing=one) for at, one in enumerate([*State, *Status])),
    *(Sample(60 + at, cause=one) for at, one in enumerate(Cause)),
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file with the table of samples."""
    path = tmp_path / "samples.db"
    alchemy = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    TABLE.create(alchemy)
    alchemy.dispose()
    return path


@pytest.fixture
async def engine(database: Path) -> AsyncIterator[SqliteEngine]:
    opened = SqliteEngine(database)
    yield opened
    await opened.close()


def by_alchemy(path: Path, statement: Any, *rows: Any) -> list[Any]:
    alchemy = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with alchemy.begin() as connection:
        done = connection.execute(statement, *rows)
        found = list(done) if done.returns_rows else []
    alchemy.dispose()
    return found


async def written(engine: SqliteEngine, *samples: Sample) -> None:
    names = ("number", *NAMES)
    await engine.begin()
    await engine.run(Write(insert(TABLE).values({name: value(name) for name in names})), samples)
    await engine.commit()


READ = Read(select(TABLE).order_by(TABLE.c.number), Sample)


def test_values_come_back_through_sqlalchemy(database: Path) -> None:
    rows = [{name: getattr(one, name) for name in ("number", *NAMES)} for one in SAMPLES]
    by_alchemy(database, insert(TABLE), rows)

    found = by_alchemy(database, select(TABLE).order_by(TABLE.c.number))

    assert SAMPLES == [Sample(*row) for row in found]


async def test_values_come_back_through_the_engine(engine: SqliteEngine) -> None:
    await written(engine, *SAMPLES)

    assert SAMPLES == await engine.fetch(READ)


async def test_what_the_engine_wrote_sqlalchemy_reads(database: Path, engine: SqliteEngine) -> None:
    await written(engine, *SAMPLES)

    found = by_alchemy(database, select(TABLE).order_by(TABLE.c.number))

    assert SAMPLES == [Sample(*row) for row in found]


async def test_a_value_may_be_asked_for(engine: SqliteEngine) -> None:
    """The types convert in conditions too."""
    await written(engine, *SAMPLES)
    read: Read[Sample] = Read(select(TABLE).where(TABLE.c.state == State.FAILED), Sample)

    assert [State.FAILED] == [one.state for one in await engine.fetch(read)]


async def test_an_id_takes_sixteen_bytes(database: Path, engine: SqliteEngine) -> None:
    await written(engine, Sample(1, UUID(int=1)))

    (found,) = by_alchemy(database, text("SELECT typeof(id), length(id) FROM sample"))

    assert ("blob", 16) == tuple(found)


async def test_a_moment_is_an_integer_of_milliseconds(database: Path, engine: SqliteEngine) -> None:
    await written(engine, Sample(1, moment=datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)))

    (found,) = by_alchemy(database, text("SELECT typeof(moment), moment FROM sample"))

    assert ("integer", 1500) == tuple(found)


def on_sqlite(kind: Stored, given_value: Any) -> Any:
    """A value there and back."""
    encode, decode = kind.encoder("sqlite"), kind.decoder("sqlite")
    assert encode is not None
    assert decode is not None
    return decode(encode(given_value))


@given(st.integers(0, 4_000_000_000_000))
def test_every_millisecond_comes_back(milliseconds: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)

    assert moment == on_sqlite(Moment(), moment)


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_finer_moment_comes_back_within_half_a_millisecond(microseconds: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)

    assert abs(on_sqlite(Moment(), moment) - moment) <= timedelta(microseconds=500)


@given(st.integers(0, 4_000_000_000), st.integers(-14 * 60, 14 * 60))
def test_a_moment_of_another_zone_comes_back_as_the_same_moment_in_utc(
    seconds: int, offset: int
) -> None:
    zone = timezone(timedelta(minutes=offset))
    moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).astimezone(zone)
    back = on_sqlite(Moment(), moment)

    assert (moment, timedelta(0)) == (back, back.utcoffset())


@given(st.uuids(), st.uuids())
def test_ids_are_ordered_in_the_database_as_they_are_here(one: UUID, other: UUID) -> None:
    encode = Id().encoder("sqlite")
    assert encode is not None

    assert (one < other) == (encode(one) < encode(other))


@pytest.mark.parametrize(("name", "member", "number"), CODES, ids=repr)
def test_every_member_is_stored_as_its_number(name: str, member: Any, number: int) -> None:
    """Rows written years ago are read with today's table: a number never changes, and a new member
    gets a new one."""
    assert number == KINDS[name].encoder("sqlite")(member)


@pytest.mark.parametrize(("name", "member", "number"), CODES, ids=repr)
def test_every_number_is_read_as_its_member(name: str, member: Any, number: int) -> None:
    """`State.FAILED` and `Status.FAILED` are equal as words; in the log they are two things."""
    assert member is KINDS[name].decoder("sqlite")(number)


@pytest.mark.parametrize(
    ("name", "members"),
    [("state", State), ("status", Status), ("outcome", Outcome), ("cause", Cause)],
)
def test_the_table_of_numbers_names_every_member(name: str, members: Any) -> None:
    assert set(members) == {member for one, member, _ in CODES if one == name}


def test_a_number_nobody_knows_is_an_error_and_no_guess() -> None:
    decode = Coded(STATE).decoder("sqlite")
    assert decode is not None

    with pytest.raises(KeyError):
        decode(17)


def test_two_code_types_are_told_apart_by_sqlalchemy_s_cache() -> None:
    assert Coded(STATE)._static_cache_key != Coded(STATUS)._static_cache_key


@pytest.mark.parametrize(
    ("name", "dialect", "expected"),
    [
        ("id", "sqlite", "BLOB"),
        ("id", "postgresql", "UUID"),
        ("moment", "sqlite", "BIGINT"),
        ("moment", "postgresql", "TIMESTAMP WITH TIME ZONE"),
        ("state", "sqlite", "SMALLINT"),
        ("state", "postgresql", "SMALLINT"),
        ("standing", "sqlite", "SMALLINT"),
        ("standing", "postgresql", "SMALLINT"),
    ],
)
def test_each_database_has_its_own_type_for_it(name: str, dialect: str, expected: str) -> None:
    assert expected == KINDS[name].compile(dialect=dialects.registry.load(dialect)())


@pytest.mark.parametrize("kind", [Id(), Moment()], ids=str)
def test_postgresql_takes_the_value_as_it_is(kind: Stored) -> None:
    assert kind.encoder("postgresql") is None


def test_postgresql_gives_ids_that_everybody_knows() -> None:
    """asyncpg's own kind of UUID is one that orjson refuses."""
    decode = Id().decoder("postgresql")
    assert decode is not None
    named = uuid4()

    assert (named, UUID) == (decode(pgproto.UUID(named.bytes)), type(decode(named)))


@pytest.mark.parametrize("way", ["encoder", "decoder"])
def test_a_type_says_how_it_converts(way: str) -> None:
    with pytest.raises(NotImplementedError):
        getattr(Stored(), way)("sqlite")


def test_nothing_stays_nothing(database: Path) -> None:
    by_alchemy(database, insert(TABLE), [{"number": 1}])

    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(f"SELECT {', '.join(NAMES)} FROM sample").fetchone()  # noqa: S608

    assert (None,) * len(NAMES) == found
