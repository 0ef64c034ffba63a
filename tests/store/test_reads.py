"""Point reads of what is committed: status, timelines, keys, and what is due."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from uuid import UUID

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
from gateway.ports import Server
from gateway.store import reads as module
from gateway.store import writes
from gateway.store.engine import ByKeys, Engine, Read, SqliteEngine, StoreError, open_engine
from gateway.store.engine.sqlite import _keyed, _query
from gateway.store.reads import DUE, Reads, Record, decode_plan, encode_plan
from gateway.store.records import Mark

OTHER = new_id()
INDEX = b"index-of-number"


@pytest.fixture
async def engine(store: Path | Server) -> AsyncIterator[Engine]:
    """A database with two clients and a plan."""
    opened = open_engine(store)
    await opened.begin()
    await writes.insert_client(opened, make_client(), make_api_key())
    await writes.insert_client(
        opened, make_client(id=OTHER, name="accounts"), make_api_key(client_id=OTHER)
    )
    await writes.insert_plans(opened, [stored_plan()])
    await opened.commit()
    yield opened
    await opened.close()


@pytest.fixture
def reads(engine: Engine) -> Reads:
    return Reads(engine)


async def stored(engine: Engine, *verifications: Verification) -> None:
    await engine.begin()
    await writes.insert_verifications(engine, verifications)
    await engine.commit()


def ended(at: float, **changes: object) -> Verification:
    """One of a series; ended, so that many may have one number."""
    made = {"id": new_id(after(at)), "status": Status.EXPIRED, "wake_at": None}
    return make_verification(**made | changes)


# Records.


async def test_a_record_holds_everything_known_of_a_verification(
    engine: Engine, reads: Reads
) -> None:
    verification = make_verification()
    attempts = [make_attempt(verification_id=verification.id, ordinal=n) for n in (1, 2, 3)]
    log = [make_logged(verification_id=verification.id, number=n) for n in range(12)]
    await engine.begin()
    await writes.insert_verifications(engine, [verification])
    await writes.insert_attempts(engine, attempts[::-1])
    await writes.move(engine, [], log[::-1])
    await engine.commit()
    expected = Record(verification, make_plan(), tuple(attempts), tuple(log))

    assert expected == await reads.record(verification.id)


async def test_a_record_without_its_log_is_a_smaller_read(engine: Engine, reads: Reads) -> None:
    verification = make_verification()
    await engine.begin()
    await writes.insert_verifications(engine, [verification])
    await writes.move(engine, [], [make_logged(verification_id=verification.id)])
    await engine.commit()

    assert Record(verification, make_plan(), (), ()) == await reads.record(
        verification.id, log=False
    )


async def test_a_verification_alone_has_its_plan_and_its_version(
    engine: Engine, reads: Reads
) -> None:
    verification = make_verification(version=7)
    await stored(engine, verification)

    assert (verification, make_plan()) == await reads.verification(verification.id)
    assert 7 == await reads.version(verification.id)
    assert await reads.verification(new_id()) is None
    assert await reads.version(new_id()) is None


async def test_plans_are_forgotten_before_they_are_too_many(
    engine: Engine, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is asked for is there all the same."""
    monkeypatch.setattr(module, "_PLANS_KEPT", 1)
    plans = [make_plan(make_step(make_route(name))) for name in ("one", "two")]
    both = [stored_plan(plan, bytes([at]) * 16) for at, plan in enumerate(plans)]
    series = [ended(at, plan=kept.digest) for at, kept in enumerate(both)]
    await engine.begin()
    await writes.insert_plans(engine, both)
    await engine.commit()
    await stored(engine, *series)

    for verification, plan in zip(series, plans, strict=True):
        record = await reads.record(verification.id)
        assert record is not None
        assert plan == record.plan
    assert 1 == len(reads._plans)
    assert plans == [one.plan for one in await reads.records([one.id for one in series])]


async def test_there_is_no_record_of_what_is_not_there(reads: Reads) -> None:
    assert await reads.record(new_id()) is None


async def test_records_come_in_the_order_asked_for(engine: Engine, reads: Reads) -> None:
    series = [ended(at) for at in range(3)]
    await stored(engine, *series)
    wanted = [series[2].id, new_id(), series[0].id]

    assert [wanted[0], wanted[2]] == [one.verification.id for one in await reads.records(wanted)]


async def test_attempts_and_log_go_to_their_own_verification(engine: Engine, reads: Reads) -> None:
    one, two = ended(1), ended(2)
    of_one, of_two = (make_attempt(verification_id=each.id) for each in (one, two))
    await engine.begin()
    await writes.insert_verifications(engine, [one, two])
    await writes.insert_attempts(engine, [of_one, of_two])
    await writes.move(engine, [], [make_logged(verification_id=two.id)])
    await engine.commit()
    found = await reads.records([one.id, two.id])

    assert [((of_one,), 0), ((of_two,), 1)] == [(each.attempts, len(each.log)) for each in found]


# Searches.


async def test_a_reference_means_the_newest_of_a_client(engine: Engine, reads: Reads) -> None:
    series = [ended(at, reference="order-1") for at in range(3)]
    await stored(engine, *series, ended(9, reference="order-2"))

    assert [series[2].id] == await reads.by_reference(CLIENT, "order-1")


async def test_a_reference_may_mean_several(engine: Engine, reads: Reads) -> None:
    series = [ended(at, reference="order-1") for at in range(3)]
    await stored(engine, *series)

    assert [series[2].id, series[1].id] == await reads.by_reference(CLIENT, "order-1", 2)


async def test_a_client_does_not_find_another_s_reference(engine: Engine, reads: Reads) -> None:
    await stored(engine, ended(1, reference="order-1", client_id=OTHER))

    assert [] == await reads.by_reference(CLIENT, "order-1")


async def test_an_operator_finds_every_client_s_reference(engine: Engine, reads: Reads) -> None:
    series = [ended(1, reference="order-1"), ended(2, reference="order-1", client_id=OTHER)]
    await stored(engine, *series)

    assert [series[1].id, series[0].id] == await reads.by_reference(None, "order-1", 10)


async def test_a_number_means_the_newest_of_a_client(engine: Engine, reads: Reads) -> None:
    series = [ended(at) for at in range(3)]
    await stored(engine, *series, ended(9, recipient_index=b"another"))

    assert [series[2].id] == await reads.by_number(CLIENT, INDEX)


async def test_a_client_does_not_find_another_s_verification_of_a_number(
    engine: Engine, reads: Reads
) -> None:
    await stored(engine, ended(1, client_id=OTHER))

    assert [] == await reads.by_number(CLIENT, INDEX, 10)


async def test_an_operator_finds_every_client_s_verifications_of_a_number(
    engine: Engine, reads: Reads
) -> None:
    series = [ended(1), ended(2, client_id=OTHER)]
    await stored(engine, *series)

    assert [series[1].id, series[0].id] == await reads.by_number(None, INDEX, 10)


async def test_the_latest_are_the_newest_of_all(engine: Engine, reads: Reads) -> None:
    series = [ended(at) for at in range(3)]
    await stored(engine, *series)

    assert [series[2].id, series[1].id] == await reads.latest(2)


# What is due.


async def test_the_soonest_is_the_earliest_moment_somebody_must_look(
    engine: Engine, reads: Reads
) -> None:
    series = [make_verification(recipient_index=bytes([at]), wake_at=after(at)) for at in (9, 4, 7)]
    await stored(engine, *series, ended(1))

    assert after(4) == await reads.soonest()


async def test_with_nothing_due_there_is_no_soonest(reads: Reads) -> None:
    assert await reads.soonest() is None


async def due(engine: Engine, now: datetime, limit: int) -> list[UUID]:
    """What a pass gets to look at."""
    await engine.begin()
    found = await engine.load_one(DUE, now, limit)
    await engine.rollback()
    return found


async def test_what_is_due_comes_the_longest_overdue_first(engine: Engine) -> None:
    series = [
        make_verification(recipient_index=bytes([at]), wake_at=after(at)) for at in (3, 1, 2, 4)
    ]
    await stored(engine, *series, ended(0))
    expected = [series[1].id, series[2].id, series[0].id]

    assert expected == await due(engine, after(3), 10)


async def test_only_so_many_that_are_due_are_taken(engine: Engine) -> None:
    series = [make_verification(recipient_index=bytes([at]), wake_at=after(at)) for at in range(5)]
    await stored(engine, *series)

    assert [one.id for one in series[:2]] == await due(engine, after(9), 2)


# Statements that may walk a table: short ones, and those that stop at their limit.
WALKS = {
    "_CLIENTS", "_CROWDED", "_KEPT", "_KEPT_COUNT", "_LATEST", "_LINKABLE", "_NEWEST_KEY",
    "_REVISION", "_ROUTE_STATES",
}  # fmt: skip
STATEMENTS = {
    name: _keyed(found).query([None])[0] if isinstance(found, ByKeys) else _query(found)
    for name, found in vars(module).items()
    if isinstance(found, Read | ByKeys)
}


@pytest.mark.sqlite
@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_no_statement_walks_a_table_that_grows(engine: SqliteEngine, name: str) -> None:
    """F43: what is asked for on every request must not cost more with every row there is."""
    statement = STATEMENTS[name]
    values = statement.parameters([None] * statement.given)
    rows = engine._reader.execute(f"EXPLAIN QUERY PLAN {statement.sql}", values).fetchall()

    assert (name in WALKS) == any(row[3].startswith("SCAN") for row in rows)


# Receipts kept aside.


async def test_the_oldest_receipts_kept_aside_come_first(engine: Engine, reads: Reads) -> None:
    series = [make_kept(id=new_id(after(at))) for at in (3, 1, 2)]
    await engine.begin()
    await writes.keep_receipts(engine, series)
    await engine.commit()

    assert [series[1], series[2]] == await reads.kept(2)


async def test_receipts_kept_aside_are_counted_by_account(engine: Engine, reads: Reads) -> None:
    await engine.begin()
    await writes.keep_receipts(engine, [make_kept(), make_kept(), make_kept(account="other")])
    await engine.commit()

    assert [2, 1, 0] == [await reads.kept_count(name) for name in ("octopush", "other", "none")]


async def test_a_reference_is_known_when_an_attempt_of_that_account_carries_it(
    engine: Engine, reads: Reads
) -> None:
    """F14: not when another account's does."""
    verification = make_verification()
    await engine.begin()
    await writes.insert_verifications(engine, [verification])
    await writes.insert_attempts(
        engine, [make_attempt(verification_id=verification.id, reference="a")]
    )
    await engine.commit()
    await engine.begin()
    rows = [
        make_kept(id=new_id(after(at)), account=account, reference=reference, why=why)
        for at, (account, reference, why) in enumerate(
            (
                ("octopush", "a", "other_number"),
                ("octopush", "b", "parked"),
                ("other", "a", "parked"),
                ("octopush", "a", "parked"),
            )
        )
    ]
    await writes.keep_receipts(engine, rows)
    await engine.commit()

    assert rows[3:] == await reads.linkable(1)


# Keys, clients, marks.


async def test_a_key_is_found_by_its_digest(engine: Engine, reads: Reads) -> None:
    key = make_api_key(client_id=OTHER)
    third = make_client(id=new_id(), name="third")
    await engine.begin()
    await writes.insert_client(engine, third, key)
    await engine.commit()

    assert key == await reads.api_key(key.digest)


async def test_a_digest_nobody_has_finds_no_key(reads: Reads) -> None:
    assert await reads.api_key(b"x" * 32) is None


async def test_clients_come_by_name(reads: Reads) -> None:
    assert ["accounts", "backend"] == [one.name for one in await reads.clients()]


async def test_a_mark_tells_its_moment(engine: Engine, reads: Reads) -> None:
    await engine.begin()
    await writes.put_marks(engine, [Mark("reconcile", after(5))])
    await engine.commit()

    assert after(5) == await reads.mark("reconcile")


async def test_a_mark_nobody_has_made_has_no_moment(reads: Reads) -> None:
    assert await reads.mark("reconcile") is None


@pytest.mark.sqlite
async def test_a_database_in_trouble_is_a_store_error(engine: SqliteEngine, reads: Reads) -> None:
    """What readiness looks at."""
    engine._writer.execute("DROP TABLE attempt")

    with pytest.raises(StoreError, match="no such table"):
        await reads.linkable(1)


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


async def test_a_plan_is_read_with_its_record(engine: Engine, reads: Reads) -> None:
    plan = make_plan(make_step(make_route("fax"), patience=33, on_failed=OnFailed.WAIT))
    verification = make_verification(plan=b"digest-of-fax")
    await engine.begin()
    await writes.insert_plans(engine, [stored_plan(plan, b"digest-of-fax")])
    await writes.insert_verifications(engine, [verification])
    await engine.commit()
    record = await reads.record(verification.id)

    assert record is not None
    assert plan == record.plan
