"""Point reads of what is committed: status, timelines, keys, and what is due."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from factories import (
    CLIENT,
    after,
    make_api_key,
    make_attempt,
    make_client,
    make_kept,
    make_logged,
    make_plan,
    make_route,
    make_step,
    make_verification,
    new_id,
    stored_plan,
)
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.delivery import State
from gateway.domain.verification import Status, Verification
from gateway.domain.workflow import OnFailed, OnUnknown, Plan, PlannedRoute, PlannedStep, Until
from gateway.store import reads as module
from gateway.store import writes
from gateway.store.engine import ByKeys, Read, SqliteEngine, StoreError
from gateway.store.reads import DUE, Reads, Record, decode_plan, encode_plan
from gateway.store.records import Mark

OTHER = new_id()
INDEX = b"index-of-number"


@pytest.fixture
async def engine(tmp_path: Path, migrated: Path) -> AsyncIterator[SqliteEngine]:
    """A database with two clients and a plan."""
    opened = SqliteEngine(Path(shutil.copy(migrated, tmp_path / "gateway.db")))
    await opened.begin()
    writes.insert_client(opened, make_client(), make_api_key())
    writes.insert_client(
        opened, make_client(id=OTHER, name="accounts"), make_api_key(client_id=OTHER)
    )
    writes.insert_plans(opened, [stored_plan()])
    await opened.commit()
    yield opened
    opened.close()


@pytest.fixture
def reads(engine: SqliteEngine) -> Reads:
    return Reads(engine)


async def stored(engine: SqliteEngine, *verifications: Verification) -> None:
    await engine.begin()
    writes.insert_verifications(engine, verifications)
    await engine.commit()


def ended(at: float, **changes: object) -> Verification:
    """One of a series; ended, so that many may have one number."""
    made = {"id": new_id(after(at)), "status": Status.EXPIRED, "wake_at": None}
    return make_verification(**made | changes)


# Records.


async def test_a_record_holds_everything_known_of_a_verification(
    engine: SqliteEngine, reads: Reads
) -> None:
    verification = make_verification()
    attempts = [make_attempt(verification_id=verification.id, ordinal=n) for n in (1, 2, 3)]
    log = [make_logged(verification_id=verification.id, number=n) for n in range(12)]
    await engine.begin()
    writes.insert_verifications(engine, [verification])
    writes.insert_attempts(engine, attempts[::-1])
    writes.move(engine, [], log[::-1])
    await engine.commit()
    expected = Record(verification, make_plan(), tuple(attempts), tuple(log))

    assert expected == reads.record(verification.id)


async def test_a_record_without_its_log_is_a_smaller_read(
    engine: SqliteEngine, reads: Reads
) -> None:
    verification = make_verification()
    await engine.begin()
    writes.insert_verifications(engine, [verification])
    writes.move(engine, [], [make_logged(verification_id=verification.id)])
    await engine.commit()

    assert Record(verification, make_plan(), (), ()) == reads.record(verification.id, log=False)


def test_there_is_no_record_of_what_is_not_there(reads: Reads) -> None:
    assert reads.record(new_id()) is None


async def test_records_come_in_the_order_asked_for(engine: SqliteEngine, reads: Reads) -> None:
    series = [ended(at) for at in range(3)]
    await stored(engine, *series)
    wanted = [series[2].id, new_id(), series[0].id]

    assert [wanted[0], wanted[2]] == [one.verification.id for one in reads.records(wanted)]


async def test_attempts_and_log_go_to_their_own_verification(
    engine: SqliteEngine, reads: Reads
) -> None:
    one, two = ended(1), ended(2)
    of_one, of_two = (make_attempt(verification_id=each.id) for each in (one, two))
    await engine.begin()
    writes.insert_verifications(engine, [one, two])
    writes.insert_attempts(engine, [of_one, of_two])
    writes.move(engine, [], [make_logged(verification_id=two.id)])
    await engine.commit()
    found = reads.records([one.id, two.id])

    assert [((of_one,), 0), ((of_two,), 1)] == [(each.attempts, len(each.log)) for each in found]


# Searches.


async def test_a_reference_means_the_newest_of_a_client(engine: SqliteEngine, reads: Reads) -> None:
    series = [ended(at, reference="order-1") for at in range(3)]
    await stored(engine, *series, ended(9, reference="order-2"))

    assert [series[2].id] == reads.by_reference(CLIENT, "order-1")


async def test_a_reference_may_mean_several(engine: SqliteEngine, reads: Reads) -> None:
    series = [ended(at, reference="order-1") for at in range(3)]
    await stored(engine, *series)

    assert [series[2].id, series[1].id] == reads.by_reference(CLIENT, "order-1", 2)


async def test_a_client_does_not_find_another_s_reference(
    engine: SqliteEngine, reads: Reads
) -> None:
    await stored(engine, ended(1, reference="order-1", client_id=OTHER))

    assert [] == reads.by_reference(CLIENT, "order-1")


async def test_an_operator_finds_every_client_s_reference(
    engine: SqliteEngine, reads: Reads
) -> None:
    series = [ended(1, reference="order-1"), ended(2, reference="order-1", client_id=OTHER)]
    await stored(engine, *series)

    assert [series[1].id, series[0].id] == reads.by_reference(None, "order-1", 10)


async def test_a_number_means_the_newest_of_a_client(engine: SqliteEngine, reads: Reads) -> None:
    series = [ended(at) for at in range(3)]
    await stored(engine, *series, ended(9, recipient_index=b"another"))

    assert [series[2].id] == reads.by_number(CLIENT, INDEX)


async def test_a_client_does_not_find_another_s_verification_of_a_number(
    engine: SqliteEngine, reads: Reads
) -> None:
    await stored(engine, ended(1, client_id=OTHER))

    assert [] == reads.by_number(CLIENT, INDEX, 10)


async def test_an_operator_finds_every_client_s_verifications_of_a_number(
    engine: SqliteEngine, reads: Reads
) -> None:
    series = [ended(1), ended(2, client_id=OTHER)]
    await stored(engine, *series)

    assert [series[1].id, series[0].id] == reads.by_number(None, INDEX, 10)


async def test_the_latest_are_the_newest_of_all(engine: SqliteEngine, reads: Reads) -> None:
    series = [ended(at) for at in range(3)]
    await stored(engine, *series)

    assert [series[2].id, series[1].id] == reads.latest(2)


# What is due.


async def test_the_soonest_is_the_earliest_moment_somebody_must_look(
    engine: SqliteEngine, reads: Reads
) -> None:
    series = [make_verification(recipient_index=bytes([at]), wake_at=after(at)) for at in (9, 4, 7)]
    await stored(engine, *series, ended(1))

    assert after(4) == reads.soonest()


def test_with_nothing_due_there_is_no_soonest(reads: Reads) -> None:
    assert reads.soonest() is None


async def test_what_is_due_comes_the_longest_overdue_first(engine: SqliteEngine) -> None:
    series = [
        make_verification(recipient_index=bytes([at]), wake_at=after(at)) for at in (3, 1, 2, 4)
    ]
    await stored(engine, *series, ended(0))
    expected = [series[1].id, series[2].id, series[0].id]

    assert expected == engine.fetch(DUE, after(3), 10)


async def test_only_so_many_that_are_due_are_taken(engine: SqliteEngine) -> None:
    series = [make_verification(recipient_index=bytes([at]), wake_at=after(at)) for at in range(5)]
    await stored(engine, *series)

    assert [one.id for one in series[:2]] == engine.fetch(DUE, after(9), 2)


# Statements that may walk a table: short ones, and those that stop at their limit.
WALKS = {"_CLIENTS", "_KEPT", "_KEPT_COUNT", "_LATEST", "_ROUTE_STATES"}
STATEMENTS = {
    name: found.read([None])[0] if isinstance(found, ByKeys) else found
    for name, found in vars(module).items()
    if isinstance(found, Read | ByKeys)
}


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_no_statement_walks_a_table_that_grows(engine: SqliteEngine, name: str) -> None:
    """F43: what is asked for on every request must not cost more with every row there is."""
    statement = STATEMENTS[name]
    given_values = statement.parameters([None] * len(statement._parameters.names))
    rows = engine._reader.execute(f"EXPLAIN QUERY PLAN {statement.sql}", given_values).fetchall()

    assert (name in WALKS) == any(row[3].startswith("SCAN") for row in rows)


# Receipts kept aside.


async def test_the_oldest_receipts_kept_aside_come_first(
    engine: SqliteEngine, reads: Reads
) -> None:
    series = [make_kept(id=new_id(after(at))) for at in (3, 1, 2)]
    await engine.begin()
    writes.keep_receipts(engine, series)
    await engine.commit()

    assert [series[1], series[2]] == reads.kept(2)


async def test_receipts_kept_aside_are_counted_by_account(
    engine: SqliteEngine, reads: Reads
) -> None:
    await engine.begin()
    writes.keep_receipts(engine, [make_kept(), make_kept(), make_kept(account="other")])
    await engine.commit()

    assert (2, 1, 0) == tuple(reads.kept_count(name) for name in ("octopush", "other", "none"))


async def test_a_reference_is_known_when_an_attempt_of_that_account_carries_it(
    engine: SqliteEngine, reads: Reads
) -> None:
    """F14: not when another account's does."""
    verification = make_verification()
    await engine.begin()
    writes.insert_verifications(engine, [verification])
    writes.insert_attempts(engine, [make_attempt(verification_id=verification.id, reference="a")])
    await engine.commit()
    pairs = [("octopush", "a"), ("octopush", "b"), ("other", "a")]

    assert {("octopush", "a")} == reads.referenced(pairs)


# Keys, clients, marks.


async def test_a_key_is_found_by_its_digest(engine: SqliteEngine, reads: Reads) -> None:
    key = make_api_key(client_id=OTHER)
    third = make_client(id=new_id(), name="third")
    await engine.begin()
    writes.insert_client(engine, third, key)
    await engine.commit()

    assert key == reads.api_key(key.digest)


def test_a_digest_nobody_has_finds_no_key(reads: Reads) -> None:
    assert reads.api_key(b"x" * 32) is None


def test_clients_come_by_name(reads: Reads) -> None:
    assert ["accounts", "backend"] == [one.name for one in reads.clients()]


async def test_a_mark_tells_its_moment(engine: SqliteEngine, reads: Reads) -> None:
    await engine.begin()
    writes.put_marks(engine, [Mark("reconcile", after(5))])
    await engine.commit()

    assert after(5) == reads.mark("reconcile")


def test_a_mark_nobody_has_made_has_no_moment(reads: Reads) -> None:
    assert reads.mark("reconcile") is None


async def test_a_database_in_trouble_is_a_store_error(engine: SqliteEngine, reads: Reads) -> None:
    """What readiness looks at."""
    engine._writer.execute("DROP TABLE attempt")

    with pytest.raises(StoreError, match="no such table"):
        reads.referenced([("a", "b")])


# Plans.

routes = st.builds(
    PlannedRoute,
    name=st.text(min_size=1, max_size=8),
    account=st.text(max_size=8),
    sender=st.none() | st.text(max_size=8),
    confirms=st.frozensets(st.sampled_from(State)),
    idempotent=st.booleans(),
    polls=st.booleans(),
)
steps = st.builds(
    PlannedStep,
    channel=st.text(max_size=8),
    routes=st.lists(routes, min_size=1, max_size=3).map(tuple),
    patience=st.integers(5, 600),
    until=st.sampled_from(Until),
    on_failed=st.sampled_from(OnFailed),
    on_unknown=st.sampled_from(OnUnknown),
)
plans = st.builds(
    Plan, workflow=st.text(max_size=8), steps=st.lists(steps, min_size=1, max_size=3).map(tuple)
)


@given(plans)
def test_a_plan_comes_back_from_its_json(plan: Plan) -> None:
    assert plan == decode_plan(encode_plan(plan).decode())


@given(st.permutations(list(State)))
def test_equal_plans_have_the_same_bytes(order: list[State]) -> None:
    """Their digest is the key under which they are stored once."""
    one = make_plan(make_step(make_route(confirms=frozenset(State))))
    other = make_plan(make_step(make_route(confirms=frozenset(order))))

    assert encode_plan(one) == encode_plan(other)


async def test_a_plan_is_read_with_its_record(engine: SqliteEngine, reads: Reads) -> None:
    plan = make_plan(make_step(make_route("fax"), patience=33, on_failed=OnFailed.WAIT))
    verification = make_verification(plan=b"digest-of-fax")
    await engine.begin()
    writes.insert_plans(engine, [stored_plan(plan, b"digest-of-fax")])
    writes.insert_verifications(engine, [verification])
    await engine.commit()
    record = reads.record(verification.id)

    assert record is not None
    assert plan == record.plan
