"""Group commit, over a real file and with tiny operations of the tests' own.

An operation here is a function; its class says its place in a batch and its share of the queue, as
`app.doings` does for the real ones.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from factories import (
    CLIENT,
    PLAN,
    after,
    make_api_key,
    make_attempt,
    make_client,
    make_kept,
    make_logged,
    make_plan,
    make_verification,
    new_id,
    stored_plan,
)
from fakes import START, Clock
from rig import at_once

from gateway.domain.delivery import Attempt, State
from gateway.domain.errors import Conflict, Unavailable
from gateway.domain.limits import Counter
from gateway.domain.verification import Status, Verification
from gateway.ports import Server
from gateway.store import writes
from gateway.store.engine import BATCH, Engine, SqliteEngine, StoreError, open_engine
from gateway.store.ledger import Doing, Ledger, Operation, Recent, Transaction, Wants
from gateway.store.reads import ATTEMPTS, COUNTERS, PLANS, VERIFICATIONS, Reads
from gateway.store.recent import Row
from gateway.store.records import Mark

CAPACITY = 8
KEY = b"key"

Act = Callable[[Transaction, datetime], Any]

NOTHING = Wants()


@dataclass(frozen=True, slots=True)
class Call(Operation[Any]):
    """Does `act` over the rows it needs."""

    act: Act
    needs: Wants | Exception = NOTHING


class Outcome(Call):
    """First in a batch, and never turned away."""


class Receipt(Call):
    """Second, and turned away when the queue is full."""


class Send(Call):
    """Last, and turned away at three quarters."""


def wants(operation: Call) -> Wants:
    if isinstance(operation.needs, Exception):
        raise operation.needs
    return operation.needs


def apply(tx: Transaction, operation: Call, now: datetime) -> Any:
    return operation.act(tx, now)


DOINGS: Mapping[type[Operation[Any]], Doing] = {
    Outcome: Doing(0, 2.0, wants, apply),
    Receipt: Doing(1, 1.0, wants, apply),
    Send: Doing(2, 0.75, wants, apply),
}


@dataclass
class Desk:
    """A ledger, and what became of its work."""

    database: Path | Server
    busy_seconds: float = 5.0
    capacity: int = 1000
    clock: Clock = field(default_factory=Clock)
    slots: dict[str, int] = field(default_factory=dict)
    followed: list[object] = field(default_factory=list)
    after: Callable[[Sequence[object]], None] | None = None

    def __post_init__(self) -> None:
        self.engine: Engine = (
            SqliteEngine(self.database, busy_seconds=self.busy_seconds)
            if isinstance(self.database, Path)
            else open_engine(self.database)
        )
        self.reads = Reads(self.engine)
        self.ledger = Ledger(
            self.engine,
            DOINGS,
            now=self.clock.now,
            slots=lambda: dict(self.slots),
            after=self.follow,
            capacity=self.capacity,
        )

    def follow(self, items: Sequence[object]) -> None:
        """What the ledger hands on after a commit."""
        self.followed.extend(items)
        if self.after is not None:
            self.after(items)

    async def queued(self, *operations: Call) -> list[asyncio.Task[Any]]:
        """These wait in the queue, in this order."""
        tasks = [asyncio.create_task(self.ledger.submit(one)) for one in operations]
        await asyncio.sleep(0)
        return tasks

    async def batch(self, *operations: Call) -> list[Any]:
        """These wait together before the ledger starts; their results, exceptions among them."""
        tasks = await self.queued(*operations)
        self.ledger.start()
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        await self.ledger.close()
        await self.engine.close()

    def refuse_commit(self, tx: Transaction, now: datetime) -> None:
        """A row whose missing client is only looked for by COMMIT."""
        assert isinstance(self.engine, SqliteEngine)
        self.engine._writer.execute("PRAGMA defer_foreign_keys = ON")
        orphan(tx, now)

    def refuse_rows(self, tx: Transaction, now: datetime) -> None:
        """A row whose missing client is looked for at once."""
        orphan(tx, now)

    async def counted(self, key: bytes = KEY) -> int:
        """What the counter is in the database."""
        return sum(one.count for one in await self.engine.fetch_by(COUNTERS, [key]))


@pytest.fixture
async def database(store: Path | Server) -> Path | Server:
    """With a client and a plan in it."""
    engine = open_engine(store)
    await engine.begin()
    await writes.insert_client(engine, make_client(), make_api_key())
    await writes.insert_plans(engine, [stored_plan()])
    await engine.commit()
    await engine.close()
    return store


@pytest.fixture
async def desk(database: Path | Server) -> AsyncIterator[Desk]:
    made = Desk(database)
    yield made
    await made.close()


def count(key: bytes = KEY) -> Act:
    """One more, on what those before it left."""

    def act(tx: Transaction, now: datetime) -> int:
        before = tx.counter(key)
        counted = 1 if before is None else before.count + 1
        tx.put_counter(Counter(key, now, counted))
        return counted

    return act


COUNT = Send(count(), Wants(counters=(KEY,)))


def refusing(error: Exception) -> Act:
    """A decision that is against it."""

    def act(tx: Transaction, now: datetime) -> None:
        raise error

    return act


def orphan(tx: Transaction, now: datetime) -> None:
    """A row that the database refuses: its client does not exist."""
    tx.put(make_verification(client_id=new_id(), recipient_index=new_id().bytes))


def giant(tx: Transaction, now: datetime) -> None:
    """A row that the driver refuses."""
    tx.put_counter(Counter(b"giant", now, 2**70))


def following(item: object) -> Act:
    """Leaves something to be done after the commit."""

    def act(tx: Transaction, now: datetime) -> object:
        tx.after.append(item)
        return item

    return act


def putting(verification: Verification) -> Act:
    def act(tx: Transaction, now: datetime) -> None:
        tx.put(verification)

    return act


def putting_attempt(attempt: Attempt) -> Act:
    def act(tx: Transaction, now: datetime) -> None:
        tx.put_attempt(attempt)

    return act


def codes(results: Sequence[Any]) -> list[Any]:
    """Results with the codes of refusals in their place."""
    return [one.code if isinstance(one, Unavailable) else one for one in results]


# One batch, one commit.


async def test_an_operation_answers_once_it_is_on_disk(desk: Desk) -> None:
    desk.ledger.start()
    result = await desk.ledger.submit(COUNT)

    assert (1, 1) == (result, await desk.counted())


async def test_all_that_wait_share_one_commit(desk: Desk) -> None:
    await desk.batch(*[COUNT] * 20)

    assert (20, 1) == (desk.ledger.tally.operations, desk.ledger.tally.commits)


async def test_every_decision_sees_those_before_it(desk: Desk) -> None:
    assert [1, 2, 3, 4, 5] == await desk.batch(*[COUNT] * 5)


async def test_a_row_is_written_once_however_many_changed_it(desk: Desk) -> None:
    """And its version counts one write."""
    verification = make_verification()
    desk.ledger.start()
    await desk.ledger.submit(Send(putting(verification)))

    def check(tx: Transaction, now: datetime) -> None:
        found = tx.verification(verification.id)
        assert found is not None
        tx.put(found._replace(checks_used=found.checks_used + 1))

    checks = [Send(check, Wants(verifications=(verification.id,)))] * 3
    await asyncio.gather(*(desk.ledger.submit(one) for one in checks))
    (found,) = await desk.engine.fetch_by(VERIFICATIONS, [verification.id])

    assert (3, 1) == (found.checks_used, found.version)


async def test_an_operation_alone_waits_for_no_company(desk: Desk) -> None:
    desk.ledger.start()
    for _ in range(3):
        await desk.ledger.submit(COUNT)

    assert 3 == desk.ledger.tally.commits


async def test_what_comes_during_a_commit_goes_into_the_next(desk: Desk) -> None:
    desk.ledger.start()
    decided = asyncio.Event()
    first = asyncio.create_task(desk.ledger.submit(Send(lambda tx, now: decided.set())))
    await decided.wait()
    await asyncio.gather(first, *(desk.ledger.submit(COUNT) for _ in range(3)))

    assert (4, 2) == (desk.ledger.tally.operations, desk.ledger.tally.commits)


@pytest.mark.parametrize(("operations", "commits"), [(BATCH, 1), (BATCH + 1, 2)])
async def test_a_batch_has_a_most_of_operations(desk: Desk, operations: int, commits: int) -> None:
    results = await desk.batch(*[COUNT] * operations)

    assert (operations, commits) == (results[-1], desk.ledger.tally.commits)


async def test_facts_come_before_decisions_in_the_order_they_came(desk: Desk) -> None:
    trace: list[str] = []

    def note(word: str) -> Act:
        return lambda tx, now: trace.append(word)

    await desk.batch(
        Send(note("send 1")),
        Receipt(note("receipt 1")),
        Send(note("send 2")),
        Outcome(note("outcome 1")),
        Receipt(note("receipt 2")),
        Outcome(note("outcome 2")),
    )

    assert ["outcome 1", "outcome 2", "receipt 1", "receipt 2", "send 1", "send 2"] == trace


async def test_what_is_submitted_before_the_start_waits_for_it(desk: Desk) -> None:
    tasks = await desk.queued(COUNT, COUNT)
    waiting = desk.ledger.depth
    desk.ledger.start()

    assert (2, [1, 2]) == (waiting, await asyncio.gather(*tasks))


# Time.


async def test_a_batch_has_one_now(desk: Desk) -> None:
    now = desk.clock.now

    def slowly(tx: Transaction, at: datetime) -> datetime:
        desk.clock.advance(1)
        return at

    found = await desk.batch(Send(slowly), Send(slowly), Send(slowly))

    assert [START] * 3 == found
    assert after(3) == now()


async def test_now_goes_on_from_batch_to_batch(desk: Desk) -> None:
    desk.ledger.start()
    told = []
    for seconds in (0, 5, 0.001):
        desk.clock.advance(seconds)
        told.append(await desk.ledger.submit(Send(lambda tx, now: now)))

    assert [START, after(5), after(5.001)] == told


# When one decision is against it.


async def test_a_refusal_is_told_to_its_own_sender_alone(desk: Desk) -> None:
    refusal = Conflict("no", "No.")
    results = await desk.batch(COUNT, Send(refusing(refusal)), COUNT)

    assert [1, refusal, 2] == results


async def test_a_refusal_rolls_nothing_back(desk: Desk) -> None:
    await desk.batch(COUNT, Send(refusing(Conflict("no", "No."))), COUNT)

    assert (2, 1, 0) == (
        await desk.counted(),
        desk.ledger.tally.commits,
        desk.ledger.tally.reruns,
    )


async def test_a_defect_in_a_decision_is_told_to_its_own_sender_alone(desk: Desk) -> None:
    defect = ZeroDivisionError("a defect")
    results = await desk.batch(COUNT, Send(refusing(defect)), COUNT)

    assert [1, defect, 2] == results


# When the database is against it.


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("bad", [orphan, giant])
async def test_one_bad_operation_is_found_and_all_others_are_done(
    desk: Desk, at: int, bad: Act
) -> None:
    operations = [COUNT] * 6
    results = codes(await desk.batch(*operations[:at], Send(bad), *operations[at:]))

    assert ([1, 2, 3, 4, 5, 6], "storage") == (
        [one for one in results if one != "storage"],
        results[at],
    )


async def test_several_bad_operations_are_found_and_all_others_are_done(desk: Desk) -> None:
    bad = Send(orphan)
    results = codes(await desk.batch(bad, COUNT, COUNT, bad, COUNT, bad, bad, COUNT, COUNT))

    assert ["storage", 1, 2, "storage", 3, "storage", "storage", 4, 5] == results


async def test_what_was_done_beside_a_bad_operation_is_done_once(desk: Desk) -> None:
    await desk.batch(COUNT, COUNT, Send(orphan), COUNT)

    assert 3 == await desk.counted()


async def test_a_bad_operation_alone_is_refused(desk: Desk) -> None:
    results = await desk.batch(Send(orphan))

    assert ["storage"] == codes(results)


async def test_a_bad_operation_is_told_that_the_same_may_succeed_in_a_moment(desk: Desk) -> None:
    (refused,) = await desk.batch(Send(orphan))

    assert (True, 1) == (refused.retryable, refused.retry_after)


async def test_a_refusal_for_the_databases_sake_carries_its_cause(desk: Desk) -> None:
    (refused,) = await desk.batch(Send(orphan))

    assert isinstance(refused.__cause__, StoreError)


async def test_a_defect_in_what_an_operation_wants_is_its_own(desk: Desk) -> None:
    bad = Send(count(), ZeroDivisionError("a defect"))
    results = codes(await desk.batch(COUNT, bad, COUNT))

    assert [1, "storage", 2] == results


async def test_after_a_bad_operation_work_goes_on(desk: Desk) -> None:
    await desk.batch(Send(orphan))

    assert 1 == await desk.ledger.submit(COUNT)


async def test_slots_taken_in_vain_are_free_again(desk: Desk) -> None:
    """A batch that is done again decides with as many as were free."""
    desk.slots = {"sms": 1}
    take = Send(lambda tx, now: tx.take_slot("sms"))
    results = codes(await desk.batch(take, Send(orphan)))

    assert [True, "storage"] == results


async def test_slots_of_a_batch_are_given_once(desk: Desk) -> None:
    desk.slots = {"sms": 2}
    take = Send(lambda tx, now: tx.take_slot("sms"))

    assert [True, True, False, False] == await desk.batch(*[take] * 4)


async def test_a_route_nobody_knows_has_no_slot(desk: Desk) -> None:
    assert [False] == await desk.batch(Send(lambda tx, now: tx.take_slot("fax")))


async def test_a_plan_that_was_not_stored_is_not_remembered(desk: Desk) -> None:
    """Else the next verification would name a plan that is in no row."""
    digest = b"another"

    def planned(tx: Transaction, now: datetime) -> None:
        tx.put_plan(digest, make_plan(), stored_plan(digest=digest))
        tx.put(make_verification(plan=digest))

    def planned_in_vain(tx: Transaction, now: datetime) -> None:
        planned(tx, now)
        orphan(tx, now)

    await desk.batch(Send(planned_in_vain))
    await desk.ledger.submit(Send(planned))

    assert [digest] == [
        record.verification.plan for record in await desk.reads.records(await desk.reads.latest(9))
    ]


@pytest.mark.sqlite
async def test_a_refused_commit_is_refused_to_all(desk: Desk) -> None:
    results = await desk.batch(COUNT, Send(desk.refuse_commit), COUNT)

    assert ["storage"] * 3 == codes(results)


@pytest.mark.sqlite
async def test_a_refused_commit_stores_nothing(desk: Desk) -> None:
    await desk.batch(COUNT, Send(desk.refuse_commit), COUNT)

    assert 0 == await desk.counted()


@pytest.mark.sqlite
async def test_nothing_follows_a_refused_commit(desk: Desk) -> None:
    await desk.batch(Send(following("hand over")), Send(desk.refuse_commit))

    assert [] == desk.followed


@pytest.mark.sqlite
async def test_a_refused_commit_is_not_tried_again(desk: Desk) -> None:
    await desk.batch(COUNT, Send(desk.refuse_commit))

    assert (0, 0) == (desk.ledger.tally.reruns, desk.ledger.tally.commits)


@pytest.mark.sqlite
async def test_after_a_refused_commit_work_goes_on(desk: Desk) -> None:
    await desk.batch(Send(desk.refuse_commit))

    assert 1 == await desk.ledger.submit(COUNT)


@pytest.mark.sqlite
async def test_a_lock_held_elsewhere_is_refused_to_all_in_one_go(database: Path) -> None:
    """A command that writes for long: each operation tried alone would wait its seconds again, and
    the last caller for minutes."""
    desk = Desk(database, busy_seconds=0.02)
    with closing(sqlite3.connect(database, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        results = await desk.batch(*[COUNT] * 8)
    reruns = desk.ledger.tally.reruns
    await desk.close()

    assert ["storage"] * 8 == codes(results)
    assert reruns <= 1


# What follows a commit.


@pytest.mark.sqlite
async def test_what_follows_is_done_once_the_commit_is_on_disk(desk: Desk) -> None:
    seen: list[int] = []
    desk.after = lambda items: seen.append(at_once(desk.counted()))
    await desk.batch(COUNT, Send(following("hand over")), COUNT)

    assert [2] == seen


async def test_what_follows_is_done_in_the_order_it_was_decided(desk: Desk) -> None:
    await desk.batch(Send(following("b")), Outcome(following("a")), Send(following("c")))

    assert ["a", "b", "c"] == desk.followed


async def test_what_follows_is_done_once_though_the_batch_was_done_again(desk: Desk) -> None:
    await desk.batch(Send(following("a")), Send(orphan), Send(following("b")))

    assert ["a", "b"] == desk.followed


async def test_an_error_in_what_follows_does_not_stop_the_ledger(database: Path | Server) -> None:
    """A log line that could not be written, say: the next operation is done all the same."""

    def fail(items: Sequence[object]) -> None:
        raise BrokenPipeError("nobody reads the log")

    desk = Desk(database, after=fail)
    first = await desk.batch(Send(following("a line")))
    second = await asyncio.wait_for(desk.ledger.submit(COUNT), 2)
    await desk.close()

    assert (["a line"], 1) == (first, second)


async def test_a_sender_that_went_away_does_not_stop_the_batch(desk: Desk) -> None:
    """Its connection was closed; what it asked for is done all the same, and so is the rest."""
    tasks = await desk.queued(COUNT, COUNT, COUNT)
    tasks[1].cancel()
    desk.ledger.start()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert (1, 3, 3) == (results[0], results[2], await desk.counted())


async def test_senders_that_went_away_do_not_stop_a_refusal(desk: Desk) -> None:
    tasks = await desk.queued(Send(orphan), Send(refusing(Conflict("no", "No."))), COUNT)
    tasks[0].cancel()
    tasks[1].cancel()
    desk.ledger.start()

    assert 1 == await tasks[2]


# The queue.


@pytest.mark.parametrize(
    ("kind", "waiting", "taken"),
    [
        (Send, CAPACITY * 3 // 4 - 1, True),
        (Send, CAPACITY * 3 // 4, False),
        (Receipt, CAPACITY - 1, True),
        (Receipt, CAPACITY, False),
        (Outcome, CAPACITY, True),
        (Outcome, CAPACITY * 10, True),
    ],
)
async def test_sends_are_turned_away_first_receipts_last_and_outcomes_never(
    database: Path | Server, kind: type[Call], waiting: int, taken: bool
) -> None:
    desk = Desk(database, capacity=CAPACITY)
    await desk.queued(*[Outcome(count())] * waiting)
    (late,) = await desk.queued(kind(count()))
    turned_away = late.done()
    desk.ledger.start()
    results = await asyncio.gather(late, return_exceptions=True)
    await desk.close()

    assert taken == (not turned_away)
    assert taken or ["overloaded"] == codes(results)


async def test_who_is_turned_away_is_told_when_to_come_back(database: Path | Server) -> None:
    desk = Desk(database, capacity=0)
    with pytest.raises(Unavailable) as refused:
        await desk.ledger.submit(COUNT)
    desk.ledger.start()
    await desk.close()

    assert ("overloaded", 1) == (refused.value.code, refused.value.retry_after)


async def test_what_is_turned_away_was_not_stored(database: Path | Server) -> None:
    desk = Desk(database, capacity=0)
    results = codes(await desk.batch(COUNT))
    counted = await desk.counted()
    await desk.close()

    assert (["overloaded"], 0) == (results, counted)


async def test_the_queue_empties_and_takes_again(database: Path | Server) -> None:
    desk = Desk(database, capacity=4)
    await desk.batch(COUNT, COUNT, COUNT)
    again = await desk.ledger.submit(COUNT)
    await desk.close()

    assert 4 == again


# The end.


async def test_what_waits_is_committed_before_the_end(desk: Desk) -> None:
    tasks = await desk.queued(COUNT, COUNT)
    desk.ledger.start()
    await desk.ledger.close()

    assert [1, 2] == [task.result() for task in tasks]


async def test_nothing_is_taken_after_the_end(desk: Desk) -> None:
    desk.ledger.start()
    await desk.ledger.close()
    with pytest.raises(Unavailable) as refused:
        await desk.ledger.submit(Outcome(count()))

    assert ("closing", False) == (refused.value.code, desk.ledger.ended.is_set())


async def test_a_ledger_that_never_started_may_be_closed(database: Path | Server) -> None:
    desk = Desk(database)
    await desk.close()

    assert 0 == desk.ledger.tally.operations


async def test_an_engine_that_fails_at_forgetting_does_not_end_the_ledger(desk: Desk) -> None:
    """Nobody waits for ever, and the next batch is taken."""
    rollback, told = desk.engine.rollback, []

    async def failing() -> None:
        await rollback()
        raise RuntimeError("confused")

    asyncio.get_running_loop().set_exception_handler(lambda _, facts: told.append(facts))
    desk.engine.rollback = failing  # type: ignore[method-assign]
    results = await desk.batch(Send(orphan), COUNT)
    desk.engine.rollback = rollback  # type: ignore[method-assign]

    assert ["storage"] * 2 == codes(results)
    assert ["confused"] == [str(facts["exception"]) for facts in told]
    assert 1 == await desk.ledger.submit(COUNT)


async def test_what_a_driver_cancels_is_done_again(desk: Desk) -> None:
    commit = desk.engine.commit

    async def cancelled() -> None:
        desk.engine.commit = commit  # type: ignore[method-assign]
        raise asyncio.CancelledError

    desk.engine.commit = cancelled  # type: ignore[method-assign]

    assert [1] == await desk.batch(COUNT)
    assert (1, False) == (desk.ledger.tally.reruns, desk.ledger.ended.is_set())


async def test_a_ledger_that_ends_by_itself_says_so_and_leaves_nobody_waiting(desk: Desk) -> None:
    tasks = await desk.queued(COUNT)
    desk.ledger.start()
    assert desk.ledger._running is not None
    desk.ledger._running.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert ["storage"] == codes(results)
    assert desk.ledger.ended.is_set()
    with pytest.raises(Unavailable):
        await desk.ledger.submit(Outcome(count()))


# The working copy: what is loaded for whom.


@dataclass
class Loaded:
    """A database with rows to be loaded, and what an operation saw of them."""

    desk: Desk
    verification: Verification

    async def seen(self, needs: Wants, look: Act) -> Any:
        return await self.desk.ledger.submit(Send(look, needs))


FIRST = make_attempt(ordinal=1, reference="sms_1", state=State.DELIVERED)
SECOND = make_attempt(ordinal=2, account="other", reference="sms_1")
INDEX = b"index-of-loaded"


@pytest.fixture
async def loaded(desk: Desk) -> Loaded:
    """One running verification with two attempts, a parked receipt and a counter."""
    verification = make_verification(recipient_index=INDEX, wake_at=after(5))
    first, second = (one._replace(verification_id=verification.id) for one in (FIRST, SECOND))
    await desk.engine.begin()
    await writes.insert_verifications(desk.engine, [verification])
    await writes.insert_attempts(desk.engine, [second, first])
    await writes.keep_receipts(desk.engine, [make_kept(reference="sms_9", account="octopush")])
    await writes.put_counters(desk.engine, [Counter(KEY, START, 3)])
    await desk.engine.commit()
    desk.ledger.start()
    return Loaded(desk, verification)


@pytest.mark.parametrize(
    "needs",
    [
        lambda one: Wants(verifications=(one.id,)),
        lambda one: Wants(attempts=(FIRST.id,)),
        lambda one: Wants(attempts=(SECOND.id, FIRST.id)),
        lambda one: Wants(references=(("octopush", "sms_1"),)),
        lambda one: Wants(running=(INDEX,)),
        lambda one: Wants(verifications=(one.id,), running=(INDEX,), attempts=(FIRST.id,)),
    ],
    ids=["id", "attempt", "attempts", "reference", "number", "all of these"],
)
async def test_a_verification_is_loaded_with_its_attempts_however_it_is_named(
    loaded: Loaded, needs: Callable[[Verification], Wants]
) -> None:
    one = loaded.verification
    seen = await loaded.seen(
        needs(one), lambda tx, now: (tx.verification(one.id), [a.id for a in tx.attempts(one.id)])
    )

    assert (one, [FIRST.id, SECOND.id]) == seen


async def test_a_plan_is_loaded_with_its_verification(loaded: Loaded) -> None:
    needs = Wants(verifications=(loaded.verification.id,))

    assert make_plan() == await loaded.seen(needs, lambda tx, now: tx.plans[PLAN])


async def test_what_is_due_is_loaded_when_it_is_wanted(loaded: Loaded) -> None:
    loaded.desk.clock.advance(5)

    assert [loaded.verification.id] == await loaded.seen(Wants(due=10), lambda tx, now: tx.due)


async def test_what_is_not_due_yet_is_not_loaded(loaded: Loaded) -> None:
    loaded.desk.clock.advance(4.999)

    assert [] == await loaded.seen(Wants(due=10), lambda tx, now: tx.due)


async def test_what_nobody_wants_is_not_loaded(loaded: Loaded) -> None:
    one = loaded.verification
    seen = await loaded.seen(
        Wants(), lambda tx, now: (tx.verification(one.id), tx.attempts(one.id), tx.due)
    )

    assert (None, [], []) == seen


async def test_an_attempt_leads_to_its_verification(loaded: Loaded) -> None:
    seen = await loaded.seen(Wants(attempts=(FIRST.id,)), lambda tx, now: tx.owner(FIRST.id))

    assert loaded.verification.id == seen


async def test_a_reference_means_an_attempt_of_that_account(loaded: Loaded) -> None:
    """F14."""
    pairs = (("octopush", "sms_1"), ("other", "sms_1"), ("third", "sms_1"))
    seen = await loaded.seen(
        Wants(references=pairs), lambda tx, now: [tx.referenced(*pair) for pair in pairs]
    )

    assert [FIRST.id, SECOND.id, None] == seen


async def test_a_parked_receipt_is_loaded_by_its_reference(loaded: Loaded) -> None:
    pairs = (("octopush", "sms_9"), ("other", "sms_9"))
    seen = await loaded.seen(
        Wants(references=pairs), lambda tx, now: [len(tx.kept(*pair)) for pair in pairs]
    )

    assert [1, 0] == seen


async def test_a_counter_is_loaded_by_its_key(loaded: Loaded) -> None:
    seen = await loaded.seen(Wants(counters=(KEY,)), lambda tx, now: tx.counter(KEY))

    assert Counter(KEY, START, 3) == seen


@pytest.mark.parametrize(
    ("client", "index", "purpose", "found"),
    [
        (CLIENT, INDEX, "verify", True),
        (new_id(), INDEX, "verify", False),
        (CLIENT, b"another", "verify", False),
        (CLIENT, INDEX, "payment", False),
    ],
)
async def test_the_running_one_is_that_of_client_number_and_purpose(
    loaded: Loaded, client: Any, index: bytes, purpose: str, found: bool
) -> None:
    seen = await loaded.seen(
        Wants(running=(INDEX,)), lambda tx, now: tx.running(client, index, purpose)
    )

    assert (loaded.verification if found else None) == seen


# The working copy: what one decision leaves to the next.


async def test_a_verification_just_accepted_is_the_running_one(desk: Desk) -> None:
    made = make_verification()
    (_, seen) = await desk.batch(
        Send(putting(made)),
        Send(lambda tx, now: tx.running(CLIENT, made.recipient_index, made.purpose)),
    )

    assert made == seen


async def test_a_verification_just_ended_is_not_the_running_one_any_more(loaded: Loaded) -> None:
    one = loaded.verification
    needs = Wants(running=(INDEX,))
    (_, seen) = await asyncio.gather(
        loaded.desk.ledger.submit(Send(putting(one._replace(status=Status.CANCELED)), needs)),
        loaded.desk.ledger.submit(Send(lambda tx, now: tx.running(CLIENT, INDEX, "verify"), needs)),
    )

    assert seen is None


async def test_an_ended_verification_makes_room_in_the_same_batch(loaded: Loaded) -> None:
    """The unique key of the running one: ended rows are written before new ones. Seen to fail the
    other way round."""
    successor = make_verification(recipient_index=INDEX)

    def replace(tx: Transaction, now: datetime) -> None:
        tx.put(successor)
        tx.put(loaded.verification._replace(status=Status.EXPIRED, wake_at=None))

    await loaded.seen(Wants(running=(INDEX,)), replace)

    assert [Status.EXPIRED, Status.PENDING] == [
        (await loaded.desk.reads.records([one.id]))[0].verification.status
        for one in (loaded.verification, successor)
    ]


async def test_an_attempt_just_made_is_known_by_id_and_reference(loaded: Loaded) -> None:
    made = make_attempt(
        verification_id=loaded.verification.id, ordinal=3, reference="sms_3", state=State.QUEUED
    )
    needs = Wants(verifications=(loaded.verification.id,))
    (_, seen) = await asyncio.gather(
        loaded.desk.ledger.submit(Send(lambda tx, now: tx.put_attempt(made), needs)),
        loaded.desk.ledger.submit(
            Send(lambda tx, now: (tx.owner(made.id), tx.referenced("octopush", "sms_3")), needs)
        ),
    )

    assert (loaded.verification.id, made.id) == seen


async def test_an_ordinal_is_given_once_within_a_batch_too(loaded: Loaded) -> None:
    """F6: two decisions that saw the same number of attempts. One wins, the other is refused; its
    attempt does not take the place of the first, whose message is on its way."""
    one = loaded.verification
    rivals = [make_attempt(verification_id=one.id, ordinal=3) for _ in range(2)]
    needs = Wants(verifications=(one.id,))
    await asyncio.gather(
        *(loaded.desk.ledger.submit(Send(putting_attempt(rival), needs)) for rival in rivals),
        return_exceptions=True,
    )
    record = await loaded.desk.reads.record(one.id)

    assert record is not None
    assert [FIRST.id, SECOND.id, rivals[0].id] == [attempt.id for attempt in record.attempts]


async def test_attempts_and_their_log_are_written_with_them(loaded: Loaded) -> None:
    one = loaded.verification
    read = FIRST._replace(verification_id=one.id, state=State.READ)
    line = make_logged(verification_id=one.id, before=State.DELIVERED, after=State.READ)
    made = make_attempt(verification_id=one.id, ordinal=3)

    def hear(tx: Transaction, now: datetime) -> None:
        tx.put_attempt(read)
        tx.put_attempt(made)
        tx.log(line)

    await loaded.seen(Wants(verifications=(one.id,)), hear)
    record = await loaded.desk.reads.record(one.id)

    assert record is not None
    assert (
        [State.READ, State.SENT, State.SENT],
        (line,),
    ) == ([attempt.state for attempt in record.attempts], record.log)


async def test_a_receipt_kept_in_this_batch_is_found_in_it(desk: Desk) -> None:
    """It overtook the answer to our call by less than a batch."""
    kept = make_kept()
    (_, seen) = await desk.batch(
        Receipt(lambda tx, now: tx.keep(kept)),
        Send(lambda tx, now: tx.kept(kept.account, "sms_1")),
    )

    assert [kept] == seen


async def test_a_receipt_kept_and_dropped_in_one_batch_is_never_written(desk: Desk) -> None:
    kept, other = make_kept(), make_kept(reference=None)

    def keep_both(tx: Transaction, now: datetime) -> None:
        tx.keep(kept)
        tx.keep(other)

    await desk.batch(Receipt(keep_both), Send(lambda tx, now: tx.drop(kept)))

    assert [other] == await desk.reads.kept(10)


async def test_a_receipt_kept_before_is_dropped(loaded: Loaded) -> None:
    (parked,) = await loaded.desk.reads.kept(10)

    def drop(tx: Transaction, now: datetime) -> int:
        tx.drop(parked)
        return len(tx.kept("octopush", "sms_9"))

    seen = await loaded.seen(Wants(references=(("octopush", "sms_9"),)), drop)

    assert (0, []) == (seen, await loaded.desk.reads.kept(10))


async def test_a_plan_known_already_is_not_stored_again(loaded: Loaded) -> None:
    def plan_again(tx: Transaction, now: datetime) -> None:
        tx.put_plan(PLAN, make_plan(), stored_plan(digest=b"not this"))

    await loaded.seen(Wants(verifications=(loaded.verification.id,)), plan_again)

    stored = await loaded.desk.engine.fetch_by(PLANS, [PLAN, b"not this"])

    assert [PLAN] == [digest for digest, _ in stored]


async def test_a_mark_is_made_with_the_batch(desk: Desk) -> None:
    await desk.batch(Send(lambda tx, now: tx.put_mark(Mark("reconcile", now))))

    assert START == await desk.reads.mark("reconcile")


# What is remembered of the batches before.


def in_memory_and_on_disk(desk: Desk, of: Verification) -> Act:
    """What a decision sees of a verification, and what is really there."""

    def look(tx: Transaction, now: datetime) -> tuple[object, object]:
        stored = at_once(desk.engine.load(VERIFICATIONS, [of.id]))
        found = at_once(desk.engine.load(ATTEMPTS, [of.id]))
        attempts = sorted(found, key=lambda one: one.ordinal)
        return (tx.verification(of.id), tx.attempts(of.id)), (stored[0], attempts)

    return look


@pytest.mark.parametrize(
    "needs",
    [
        lambda one: Wants(verifications=(one.id,)),
        lambda one: Wants(attempts=(FIRST.id,)),
        lambda one: Wants(references=(("octopush", "sms_1"),)),
        lambda one: Wants(running=(one.recipient_index,)),
        lambda one: Wants(due=9),
    ],
    ids=["id", "attempt", "reference", "number", "due"],
)
@pytest.mark.sqlite
async def test_what_is_remembered_is_what_is_stored(
    desk: Desk, needs: Callable[[Verification], Wants]
) -> None:
    """Through three writes: made, changed, and told news of."""
    made = make_verification(wake_at=START)
    first, second = (one._replace(verification_id=made.id) for one in (FIRST, SECOND))
    wanted = needs(made)
    desk.ledger.start()

    def change(tx: Transaction, now: datetime) -> None:
        held = tx.verification(made.id)
        assert held is not None
        tx.put(held._replace(checks_used=1), [second])

    await desk.ledger.submit(Send(lambda tx, now: tx.put(made, [first])))
    await desk.ledger.submit(Send(change, wanted))
    await desk.ledger.submit(Send(putting_attempt(first._replace(state=State.READ)), wanted))
    remembered, stored = await desk.ledger.submit(Send(in_memory_and_on_disk(desk, made), wanted))

    assert stored == remembered
    assert 0 == desk.ledger.tally.reruns


@pytest.mark.sqlite
async def test_what_somebody_else_has_written_since_is_decided_again(
    desk: Desk, database: Path
) -> None:
    """F21: what is remembered is guarded by its version, and forgotten when it was wrong. Seen to
    fail without `version = :version` in the update, and without the forgetting."""
    made = make_verification()
    needs = Wants(verifications=(made.id,))

    def check(tx: Transaction, now: datetime) -> int:
        held = tx.verification(made.id)
        assert held is not None
        tx.put(held._replace(checks_used=held.checks_used + 1))
        return held.checks_used + 1

    desk.ledger.start()
    await desk.ledger.submit(Send(putting(made)))
    with closing(sqlite3.connect(database)) as stranger:
        stranger.execute("UPDATE verification SET checks_used = 3, version = version + 1")
        stranger.commit()

    assert 4 == await desk.ledger.submit(Send(check, needs))


@pytest.mark.sqlite
@pytest.mark.sqlite
async def test_what_somebody_else_has_deleted_is_not_there(desk: Desk, database: Path) -> None:
    made = make_verification()
    needs = Wants(verifications=(made.id,))

    def end(tx: Transaction, now: datetime) -> bool:
        held = tx.verification(made.id)
        if held is not None:
            tx.put(held._replace(status=Status.CANCELED))
        return held is not None

    desk.ledger.start()
    await desk.ledger.submit(Send(putting(made)))
    with closing(sqlite3.connect(database)) as stranger:
        stranger.execute("DELETE FROM verification")
        stranger.commit()

    assert await desk.ledger.submit(Send(end, needs)) is False


@pytest.mark.parametrize("failing", [Desk.refuse_commit, Desk.refuse_rows], ids=["commit", "rows"])
@pytest.mark.sqlite
async def test_what_was_not_stored_is_not_remembered(
    desk: Desk, failing: Callable[[Desk, Transaction, datetime], None]
) -> None:
    made = make_verification()
    needs = Wants(verifications=(made.id,))

    def put_in_vain(tx: Transaction, now: datetime) -> None:
        tx.put(made._replace(checks_used=4))
        failing(desk, tx, now)

    desk.ledger.start()
    await desk.ledger.submit(Send(putting(made)))
    with pytest.raises(Unavailable):
        await desk.ledger.submit(Send(put_in_vain, needs))
    remembered, stored = await desk.ledger.submit(Send(in_memory_and_on_disk(desk, made), needs))

    assert (stored, made) == (remembered, remembered[0])


def remembered_row(**changes: Any) -> Any:
    """A row as it is after its commit, with one attempt."""
    verification = make_verification(**changes)
    attempt = make_attempt(verification_id=verification.id, reference=str(verification.id))
    return Row(verification, [attempt], None, changed=True)


def test_only_so_many_are_remembered_the_latest_ones() -> None:
    """F27: no memory grows with the traffic."""
    recent, rows = Recent(2), [remembered_row() for _ in range(3)]
    for row in rows:
        recent.put(row)

    assert [False, True, True] == [recent.row(row.verification.id) is not None for row in rows]


def test_whoever_is_forgotten_is_forgotten_by_every_name() -> None:
    recent, rows = Recent(1), [remembered_row() for _ in range(2)]
    (attempt,) = rows[0].attempts
    pair = attempt.account, attempt.reference
    recent.know({attempt.id.int: attempt.verification_id}, {pair: attempt.id})
    recent.put(rows[0])
    known = recent.owner(attempt.id), recent.referenced(pair)
    recent.put(rows[1])

    assert (attempt.verification_id, attempt.id) == known
    assert (None, None) == (recent.owner(attempt.id), recent.referenced(pair))


def test_a_row_that_was_read_is_known_by_every_name_once_it_is_put() -> None:
    recent, row = Recent(), remembered_row()
    (attempt,) = row.attempts
    row.read = True
    recent.put(row)
    pair = attempt.account, attempt.reference

    assert (attempt.verification_id, attempt.id) == (
        recent.owner(attempt.id),
        recent.referenced(pair),
    )


def test_one_written_again_is_the_latest() -> None:
    recent, rows = Recent(2), [remembered_row() for _ in range(3)]
    for at in (0, 1, 0, 2):
        recent.put(rows[at])

    assert [True, False, True] == [recent.row(row.verification.id) is not None for row in rows]
