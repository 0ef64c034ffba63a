"""What only PostgreSQL can do and suffer: lost connections, other nodes' locks, a server that is
restarted, a COMMIT nobody answered.
"""

import asyncio
import importlib
import pkgutil
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import postgres
import pytest
from alembic.script import ScriptDirectory
from asyncpg import exceptions
from factories import (
    after,
    make_api_key,
    make_client,
    make_subscription,
    make_verification,
    stored_plan,
)
from fakes import START
from filling import fill

from gateway import store
from gateway.domain.audit import Act
from gateway.domain.limits import Counter
from gateway.ports import Secret, Server
from gateway.store import audits, schema, writes
from gateway.store.engine import Conflict, Refused, StoreError
from gateway.store.engine.postgres import PostgresEngine, connect
from gateway.store.engine.postgres_text import change, keyed, query
from gateway.store.engine.statements import ByKeys, Read, Write
from gateway.store.outbox import Failing, Outbox, OutboxReads, Raised
from gateway.store.reads import COUNTERS, DUE, VERIFICATIONS, Reads
from gateway.store.records import Mark
from gateway.store.tallies import Tallies, Tally

MARK = Mark("reconcile", START)
FIRST, SECOND = Counter(b"a", START, 1), Counter(b"b", START, 1)
LONG = 20  # real seconds after which what is waited for will not come


@pytest.fixture
async def engine(on_postgres: Server) -> AsyncIterator[PostgresEngine]:
    opened = PostgresEngine(on_postgres.url)
    yield opened
    await opened.close()


@pytest.fixture
async def other(on_postgres: Server) -> AsyncIterator[PostgresEngine]:
    """Another node on the same database."""
    opened = PostgresEngine(on_postgres.url)
    yield opened
    await opened.close()


async def put(engine: PostgresEngine, *marks: Mark) -> None:
    await engine.begin()
    await writes.put_marks(engine, marks)
    await engine.commit()


async def waiting(server: Server, count: int = 1) -> None:
    """Until so many sessions wait for a lock."""
    ask = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(LONG):
        while postgres.rows(server.url, ask)[0][0] < count:  # noqa: ASYNC110  (not ours to wake)
            await asyncio.sleep(0.01)


def cut(server: Server) -> None:
    """Every connection to the database is lost."""
    postgres.rows(server.url, postgres.OTHERS)


# Statements.


def test_a_batch_is_one_statement_over_arrays() -> None:
    sql = change(writes._PUT_COUNTER).sql

    assert (
        "INSERT INTO counter (key, since, count) SELECT given.v_key, given.v_since, given.v_count "
        "FROM unnest($1::BYTEA[], $2::TIMESTAMP WITH TIME ZONE[], $3::INTEGER[]) "
        "AS given (v_key, v_since, v_count) ORDER BY given.v_key ON CONFLICT (key) "
        "DO UPDATE SET since = excluded.since, count = excluded.count"
    ) == sql


def test_guards_stay_in_the_statements() -> None:
    sql = change(writes._UPDATE_VERIFICATION).sql

    assert "AND verification.version = given.v_version AND (" in sql
    assert "verification.status = 0 OR verification.status = given.v_status" in sql


def test_what_is_due_passes_over_what_another_node_looks_at() -> None:
    assert query(DUE).sql.endswith("FOR UPDATE SKIP LOCKED")


def test_rows_are_locked_in_an_order_whatever_the_plan() -> None:
    """An index scan happens to sort its keys; no other plan need."""
    assert keyed(COUNTERS).locked.sql.endswith("ORDER BY counter.key FOR UPDATE")


# By their nature of a whole table: few rows, or work of the night.
WHOLE = {
    "reads._ROUTE_STATES",
    "support._PARKED",
    "upkeep._DROP_PLAN",
    "upkeep._ERASED",
    "upkeep._UNUSED_PLANS",
}


async def test_every_statement_finds_its_rows_by_an_index_while_tables_are_small(
    on_postgres: Server,
) -> None:
    """Else it keeps that plan when they have grown. Without `enable_seqscan` more than sixty do."""
    connection = await connect(on_postgres.url, on_postgres.password)
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    scanning = set()
    for name, sql in statements():
        await connection.execute(f"PREPARE one AS {sql}")
        numbers = {int(number) for number in re.findall(r"\$(\d+)", sql)}
        given = f"({', '.join(['NULL'] * len(numbers))})" if numbers else ""
        plan = await connection.fetch(f"EXPLAIN EXECUTE one{given}")
        if any("Seq Scan" in line[0] for line in plan):
            scanning.add(name)
        await connection.execute("DEALLOCATE one")
    await connection.close()

    assert WHOLE == scanning


def statements() -> Iterator[tuple[str, str]]:
    """Every statement of the store, as PostgreSQL is given it."""
    for module in pkgutil.iter_modules(store.__path__):
        for name, found in vars(importlib.import_module(f"gateway.store.{module.name}")).items():
            named = f"{module.name}.{name}"
            if isinstance(found, Read):
                yield named, query(found).sql
            elif isinstance(found, ByKeys):
                yield named, keyed(found).locked.sql
            elif isinstance(found, Write):
                yield named, change(found).sql


async def test_text_takes_no_zero_and_says_so(engine: PostgresEngine) -> None:
    """Whatever a provider puts into a word must not make its receipt fail for ever."""
    await put(engine, Mark("a\0b", START))

    assert START == await Reads(engine).mark("a\0b")
    assert START == await Reads(engine).mark("a\N{REPLACEMENT CHARACTER}b")


async def test_a_refused_value_is_not_told(engine: PostgresEngine) -> None:
    await engine.begin()
    with pytest.raises(StoreError) as refused:
        await writes.put_counters(engine, [Counter(b"key", START, 2**70)])
    await engine.rollback()

    assert str(2**70) not in str(refused.value)


# Other nodes.


async def test_a_name_is_locked_until_the_end(
    engine: PostgresEngine, other: PostgresEngine, on_postgres: Server
) -> None:
    """The lock that lets an outcome and a receipt on two nodes see one another."""
    await engine.begin()
    await engine.lock([("octopush", "r1")])
    await other.begin()
    await other.lock([("octopush", "r2")])
    second = asyncio.create_task(other.lock([("octopush", "r1")]))
    await waiting(on_postgres)
    early = second.done()
    await engine.rollback()
    await asyncio.wait_for(second, LONG)
    await other.rollback()

    assert not early


async def test_rows_are_locked_in_the_order_of_their_keys(
    engine: PostgresEngine, other: PostgresEngine, on_postgres: Server
) -> None:
    """However they are asked for: two nodes wait in a line."""
    await engine.begin()
    await writes.put_counters(engine, [FIRST, SECOND])
    await engine.commit()
    for _ in range(5):
        await asyncio.gather(
            taking(engine, [FIRST.key, SECOND.key]), taking(other, [SECOND.key, FIRST.key])
        )


async def taking(engine: PostgresEngine, keys: list[bytes]) -> None:
    await engine.begin()
    await engine.load(COUNTERS, keys)
    await engine.commit()


async def test_new_rows_with_unique_keys_wait_in_a_line(
    engine: PostgresEngine, other: PostgresEngine
) -> None:
    """Two nodes count the same new numbers in opposite order, each over many rows. (Seen to fail,
    with a deadlock, without the ORDER BY of an insert that may meet its like.)"""
    counters = [Counter(n.to_bytes(2, "big"), START, 1) for n in range(200)]

    async def insert(by: PostgresEngine, values: list[Counter]) -> None:
        await by.begin()
        await writes.put_counters(by, values)
        await by.commit()

    await asyncio.gather(insert(engine, counters), insert(other, counters[::-1]))

    assert 200 == len(await engine.fetch_by(COUNTERS, [one.key for one in counters]))


async def test_a_count_that_two_nodes_begin_is_a_conflict_for_one(
    engine: PostgresEngine, other: PostgresEngine, on_postgres: Server
) -> None:
    """There was no row to hold for either. Written over, one of the two sends would not count."""
    await engine.begin()
    await writes.put_counters(engine, [FIRST], {FIRST.key: None})
    await other.begin()
    late = asyncio.create_task(writes.put_counters(other, [FIRST], {FIRST.key: None}))
    await waiting(on_postgres)
    await engine.commit()
    with pytest.raises(Conflict):
        await late
    await other.rollback()


async def test_sums_that_have_a_maximum_are_looked_at_in_turn(
    engine: PostgresEngine, other: PostgresEngine, on_postgres: Server
) -> None:
    """Each node adds to a row of its own; what the other has added is seen all the same."""
    mine, theirs = Tallies(), Tallies()
    await engine.begin()
    await mine.load(engine, [], [b"key"])
    await other.begin()
    late = asyncio.create_task(theirs.load(other, [], [b"key"]))
    await waiting(on_postgres)
    mine.add(Tally(b"key", "a", 1, 0, START))
    await mine.write(engine)
    await engine.commit()
    await asyncio.wait_for(late, LONG)
    await other.rollback()

    assert 1 == theirs.sum(b"key").amount


async def test_two_nodes_write_one_audit_log(engine: PostgresEngine, other: PostgresEngine) -> None:
    """In turn, so that nobody has to do it again. (Seen to fail without the lock.)"""

    async def acts(by: PostgresEngine) -> None:
        for at in range(20):
            await by.begin()
            await audits.append(by, Act("alice", "look", str(at)), START)
            await by.commit()

    await asyncio.gather(acts(engine), acts(other))
    chain, wrong = await audits.verify(engine)

    assert (40, []) == (chain.rows, wrong)


async def test_two_changes_of_one_row_in_a_batch_are_both_done(engine: PostgresEngine) -> None:
    """One statement would touch the row once, or refuse to."""
    subscription, named = make_subscription(), make_verification().id
    await engine.begin()
    await writes.insert_client(engine, make_client(), make_api_key())
    first = Outbox()
    first.add(subscription)
    await first.write(engine)
    await engine.commit()
    outbox = Outbox()
    outbox.add(
        *(Raised(named, subscription.id, number, START) for number in (1, 2)),
        *(Failing(subscription.id, START, "HTTP 500") for _ in range(2)),
    )
    await engine.begin()
    await outbox.write(engine)
    await engine.commit()
    reads = OutboxReads(engine)

    assert [(1, 2)] == [(one.next, one.last) for one in await reads.deliveries([named])]
    assert [2] == [one.failures for one in await reads.subscriptions()]


async def test_a_deadlock_is_a_store_error_and_leaves_nothing(
    engine: PostgresEngine, other: PostgresEngine, on_postgres: Server
) -> None:
    """What an order cannot prevent is run again by the ledger."""
    await engine.begin()
    await engine.lock([("x", "1")])
    await other.begin()
    await other.lock([("x", "2")])
    first = asyncio.create_task(engine.lock([("x", "2")]))
    await waiting(on_postgres)
    second = asyncio.create_task(other.lock([("x", "1")]))
    results = await asyncio.gather(first, second, return_exceptions=True)
    await engine.rollback()
    await other.rollback()

    assert ["40P01 deadlock detected"] == [str(one) for one in results if one is not None]


async def test_two_nodes_never_look_at_the_same_due_row(
    engine: PostgresEngine, other: PostgresEngine
) -> None:
    """F21. Seen to fail without SKIP LOCKED: the second waits, and then has all of them."""
    series = [make_verification(recipient_index=bytes([n]), wake_at=START) for n in range(6)]
    await engine.begin()
    await writes.insert_client(engine, make_client(), make_api_key())
    await writes.insert_plans(engine, [stored_plan()])
    await writes.insert_verifications(engine, series)
    await engine.commit()
    await engine.begin()
    await other.begin()
    mine = await engine.load_one(DUE, after(1), 4)
    theirs = await other.load_one(DUE, after(1), 10)
    await engine.rollback()
    await other.rollback()

    assert (4, 2) == (len(mine), len(theirs))
    assert {one.id for one in series} == {*mine, *theirs}


async def test_a_row_changed_by_another_node_is_a_conflict(
    engine: PostgresEngine, other: PostgresEngine
) -> None:
    """The version in the update, should the lock fail."""
    verification = make_verification()
    await engine.begin()
    await writes.insert_client(engine, make_client(), make_api_key())
    await writes.insert_plans(engine, [stored_plan()])
    await writes.insert_verifications(engine, [verification])
    await engine.commit()
    for by, refused in ((engine, False), (other, True)):
        await by.begin()
        if refused:
            with pytest.raises(Conflict):
                await writes.update_verifications(by, [(verification, verification)])
            await by.rollback()
        else:
            await writes.update_verifications(by, [(verification, verification)])
            await by.commit()

    (found,) = await engine.fetch_by(VERIFICATIONS, [verification.id])
    assert 1 == found.version


async def test_a_reader_does_not_wait_for_a_writer(
    engine: PostgresEngine, other: PostgresEngine
) -> None:
    await put(engine, MARK)
    await engine.begin()
    await writes.put_marks(engine, [replace(MARK, at=after(9))])
    seen = await asyncio.wait_for(Reads(other).mark(MARK.name), LONG)
    await engine.rollback()

    assert START == seen


# Lost connections.


async def test_a_lost_connection_is_replaced(engine: PostgresEngine, on_postgres: Server) -> None:
    """Also the readers': whoever comes next finds the server again."""
    await put(engine, MARK)
    await Reads(engine).mark(MARK.name)
    cut(on_postgres)
    seen = await Reads(engine).mark(MARK.name)
    await put(engine, replace(MARK, at=after(5)))

    assert START == seen
    assert after(5) == await Reads(engine).mark(MARK.name)


async def test_a_connection_lost_in_a_transaction_leaves_nothing(
    engine: PostgresEngine, on_postgres: Server
) -> None:
    await engine.begin()
    await writes.put_marks(engine, [MARK])
    cut(on_postgres)
    with pytest.raises(StoreError):
        await writes.put_marks(engine, [MARK])
    await engine.rollback()
    await put(engine, replace(MARK, name="later"))

    assert None is await Reads(engine).mark(MARK.name)


async def test_a_connection_in_an_odd_state_is_given_up(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that goes down says so to who is not asking; the driver then fails in a way of its
    own. The next reader must not get that connection again."""
    fetch = asyncpg.Connection.fetch
    odd: list[Any] = []
    await put(engine, MARK)

    async def once(self: Any, *given: Any) -> Any:
        if not odd:
            odd.append(self)
            raise exceptions.InternalClientError("cannot switch to state 11")
        return await fetch(self, *given)

    monkeypatch.setattr(asyncpg.Connection, "fetch", once)

    assert START == await Reads(engine).mark(MARK.name)
    assert odd[0].is_closed()


class Deaf:
    """A connection that is lost over its COMMIT, before or after the server has heard it."""

    def __init__(self, connection: Any, *, heard: bool) -> None:
        self._connection = connection
        self._heard = heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, sql: str, *given: Any) -> Any:
        if sql != "COMMIT":
            return await self._connection.execute(sql, *given)
        if self._heard:
            await self._connection.execute(sql)
        self._connection.terminate()
        raise ConnectionResetError(104, "Connection reset by peer")


async def test_a_commit_that_was_heard_but_not_answered_is_done(engine: PostgresEngine) -> None:
    """(Seen to fail without the look at `pg_xact_status`.)"""
    await engine.begin()
    await writes.put_marks(engine, [MARK])
    engine._writer = Deaf(engine._writer, heard=True)
    await engine.commit()

    assert START == await Reads(engine).mark(MARK.name)


async def test_a_commit_that_was_not_heard_may_be_run_again(engine: PostgresEngine) -> None:
    await engine.begin()
    await writes.put_marks(engine, [MARK])
    engine._writer = Deaf(engine._writer, heard=False)
    with pytest.raises(StoreError) as failed:
        await engine.commit()
    await engine.rollback()
    before = await Reads(engine).mark(MARK.name)
    await put(engine, MARK)

    assert not isinstance(failed.value, Refused)
    assert None is before
    assert START == await Reads(engine).mark(MARK.name)


class Confused:
    """A connection and a pool of a driver that has lost its way in the middle."""

    terminated = False

    def is_closed(self) -> bool:
        return False

    def is_in_transaction(self) -> bool:
        return True

    async def execute(self, sql: str, *given: Any) -> Any:
        raise exceptions.InternalClientError("got result for unknown protocol state 3")

    def acquire(self, **how: Any) -> Any:
        raise exceptions.InternalClientError("a connection is already acquired")

    def terminate(self) -> None:
        self.terminated = True


async def test_a_driver_that_lost_its_way_is_a_store_error() -> None:
    """(Seen with backends that were terminated; reads were answered 500 instead of 503.)"""
    engine, lost = PostgresEngine("postgresql+asyncpg://nobody@127.0.0.1/none"), Confused()
    engine._writer = engine._pool = lost
    with pytest.raises(StoreError):
        await Reads(engine).mark(MARK.name)
    with pytest.raises(StoreError):
        await writes.put_marks(engine, [MARK])
    await engine.rollback()

    assert (None, True) == (engine._writer, lost.terminated)


async def test_what_is_still_open_is_not_gone_on_with(engine: PostgresEngine) -> None:
    """A second BEGIN is a mere warning of the server's."""
    await engine.begin()
    await writes.put_marks(engine, [MARK])
    await put(engine, replace(MARK, name="later"))

    assert None is await Reads(engine).mark(MARK.name)


async def test_a_server_that_is_not_there_refuses() -> None:
    engine = PostgresEngine(f"postgresql+asyncpg://nobody@127.0.0.1:{postgres.free_port()}/none")
    with pytest.raises(Refused):
        await engine.begin()
    with pytest.raises(StoreError):
        await Reads(engine).soonest()
    await engine.close()


async def test_a_restarted_server_is_found_again() -> None:
    """Nothing is lost, nothing doubled, and nobody has to do anything."""
    cluster = postgres.Cluster()
    try:
        cluster.make()
        cluster.start()
        server = Server(cluster.url)
        schema.upgrade(server)
        engine = PostgresEngine(server.url)
        await put(engine, MARK)
        cluster.stop()
        with pytest.raises(Refused):
            await engine.begin()
        with pytest.raises(StoreError):
            await Reads(engine).mark(MARK.name)
        cluster.start()
        seen = await Reads(engine).mark(MARK.name)
        await put(engine, replace(MARK, at=after(1)))
        again = await Reads(engine).mark(MARK.name)
        await engine.close()
    finally:
        cluster.remove()

    assert (START, after(1)) == (seen, again)


# Migrations.


def test_migrations_go_up_and_down_with_data(on_postgres: Server) -> None:
    """A step at a time, both ways."""
    scripts = ScriptDirectory(str(schema.ROOT / "migrations"))
    line = [script.revision for script in scripts.walk_revisions()][::-1]
    with postgres.database(on_postgres.url) as url:
        server = Server(url)
        for revision in line:
            schema.upgrade(server, revision)
        schema.settled(filled(server))
        reached = []
        for revision in [*line[:-1][::-1], "base"]:
            schema.downgrade(server, revision)
            reached.append(schema.current(server))
        schema.upgrade(server)

        assert [*line[:-1][::-1], None] == reached
        assert schema.head() == schema.current(server)


async def filled(server: Server) -> None:
    engine = PostgresEngine(server.url)
    await fill(engine)
    await engine.close()


def test_a_migrated_database_is_what_the_models_say(on_postgres: Server) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import Connection
    from sqlmodel import SQLModel

    def compare(connection: Connection) -> Any:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return compare_metadata(context, SQLModel.metadata)

    assert [] == schema.settled(schema.on_server(on_postgres, compare))


async def test_those_who_migrate_take_turns(on_postgres: Server) -> None:
    with postgres.database(on_postgres.url) as url:
        await asyncio.gather(*(asyncio.to_thread(schema.upgrade, Server(url)) for _ in range(3)))

        assert schema.head() == schema.current(Server(url))


def test_an_address_is_shown_without_credentials() -> None:
    server = Server("postgresql+asyncpg://me:secret@db:5433/gate?sslmode=require", Secret("other"))

    assert "postgresql://db:5433/gate" == str(server)
    assert "secret" not in repr(server)
    assert "other" not in repr(server)
