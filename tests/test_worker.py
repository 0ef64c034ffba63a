"""The background loop: it passes, survives what goes wrong, and stops cleanly."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime

import pytest
from factories import make_kept
from fakes import Clock, Gate, answering
from rig import Rig

from gateway import worker as module
from gateway.store import writes
from gateway.worker import Worker

LONG = 5.0  # seconds after which a test gives up


class Notes:
    """A log that remembers what went wrong, and says when it did."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, dict[str, object]]] = []
        self._noted = asyncio.Event()

    def error(self, event: str, **facts: object) -> None:
        self.errors.append((event, facts))
        self._noted.set()

    def warning(self, event: str, **facts: object) -> None:
        self.error(event, **facts)

    async def until(self, count: int) -> None:
        """So many errors."""
        while len(self.errors) < count:
            self._noted.clear()
            await asyncio.wait_for(self._noted.wait(), LONG)


class Watch:
    """The clock, as the worker asks it: at the beginning of each pass and after it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked = asyncio.Event()
        self.calls = 0
        self.trouble: list[Exception] = []

    def now(self) -> datetime:
        self.calls += 1
        self._asked.set()
        if self.trouble:
            raise self.trouble.pop()
        return self._clock.now()

    async def until(self, done: Callable[[], bool]) -> None:
        """Passes until this is so."""
        while not done():
            self._asked.clear()
            await asyncio.wait_for(self._asked.wait(), LONG)

    async def passes(self, count: int = 2) -> None:
        """So many more whole passes, at least."""
        enough = self.calls + 3 * count
        await self.until(lambda: self.calls >= enough)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(clock)


@pytest.fixture
async def worker(rig: Rig, notes: Notes, watch: Watch) -> AsyncIterator[Worker]:
    """A worker of the rig's gateway, not started."""
    made = Worker(replace(rig.runtime, now=watch.now), notes)
    yield made
    await made.stop()


async def test_what_is_due_is_done_without_anybody_asking(rig: Rig, worker: Worker) -> None:
    """F7, F8: the fallback of a provider that never calls back."""
    call = Gate(answering(201, {"sms_ticket": "voice_1"}))
    call.opened.set()
    rig.transport.script("voice-campaign", call)
    await rig.send(workflow="sms")
    rig.clock.advance(60)
    worker.start()
    await asyncio.wait_for(call.reached.wait(), LONG)

    assert 1 == len(rig.transport.to("voice-campaign"))


def test_before_the_first_pass_there_is_no_last_one(worker: Worker) -> None:
    assert worker.last_pass is None


async def test_the_last_pass_is_told_with_its_time(
    worker: Worker, watch: Watch, clock: Clock
) -> None:
    worker.start()
    await watch.passes(1)
    later = clock.advance(17)
    await watch.passes(1)

    assert later == worker.last_pass


async def test_a_pass_leaves_its_mark(rig: Rig, worker: Worker, watch: Watch, clock: Clock) -> None:
    """By which the next start knows how long nobody passed."""
    worker.start()
    await watch.passes(1)

    assert clock.now() == rig.reads.mark("reconcile")


async def test_a_pass_that_the_ledger_refused_is_logged_and_tried_again(
    rig: Rig, worker: Worker, notes: Notes, watch: Watch
) -> None:
    """Told once, however often it is tried: ten lines a second would hide all others."""
    await rig.gateway.ledger.close()
    worker.start()
    await notes.until(1)
    await watch.until(lambda: watch.calls > 6)
    problem = {"problem": "Unavailable", "detail": "closing"}

    assert [("pass_failed", problem)] == notes.errors


async def test_another_trouble_is_told_and_its_end_with_how_long_it_lasted(
    worker: Worker, notes: Notes, watch: Watch
) -> None:
    watch.trouble = [OSError("b"), OSError("b"), OSError("a"), OSError("a"), OSError("a")]
    worker.start()
    await watch.until(lambda: worker.last_pass is not None)
    last = notes.errors.pop()

    assert ["a", "b"] == [facts["detail"] for _, facts in notes.errors]
    assert ("passes_resumed", 5) == (last[0], last[1]["failed"])
    assert 0 < float(str(last[1]["seconds"]))


async def test_a_pass_that_failed_is_not_the_last_one(
    rig: Rig, worker: Worker, notes: Notes
) -> None:
    """Readiness looks at it."""
    await rig.gateway.ledger.close()
    worker.start()
    await notes.until(1)

    assert worker.last_pass is None


async def test_passing_goes_on_once_the_database_is_back(
    rig: Rig, worker: Worker, notes: Notes, watch: Watch
) -> None:
    with closing(sqlite3.connect(rig.gateway.settings.database)) as stranger:
        stranger.execute("PRAGMA legacy_alter_table = ON")
        stranger.execute("ALTER TABLE verification RENAME TO away")
        worker.start()
        await notes.until(1)
        stranger.execute("ALTER TABLE away RENAME TO verification")
    await watch.until(lambda: worker.last_pass is not None)

    assert "StoreError" == notes.errors[0][1]["problem"]


async def test_an_unforeseen_error_is_logged_and_passing_goes_on(
    worker: Worker, notes: Notes, watch: Watch
) -> None:
    """One defect, and no code would fall back or expire until somebody restarts the process."""
    watch.trouble = [ZeroDivisionError("a defect")]
    worker.start()
    await watch.until(lambda: worker.last_pass is not None)

    assert ["ZeroDivisionError", None] == [facts.get("problem") for _, facts in notes.errors]


async def test_an_unforeseen_error_does_not_keep_the_worker_from_stopping(
    rig: Rig, watch: Watch, notes: Notes
) -> None:
    """The rest of a clean stop comes after it: calls under way, the ledger, the files."""
    watch.trouble = [ZeroDivisionError("a defect")]
    worker = Worker(replace(rig.runtime, now=watch.now), notes)
    worker.start()
    await watch.until(lambda: watch.calls > 0)
    await worker.stop()

    assert [] == watch.trouble


async def test_a_stop_ends_the_pass_under_way(
    rig: Rig, worker: Worker, watch: Watch, clock: Clock
) -> None:
    with closing(sqlite3.connect(rig.gateway.settings.database, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        worker.start()
        await watch.until(lambda: watch.calls > 0)
        stopped = asyncio.create_task(worker.stop())
        await asyncio.sleep(0)
        waited = not stopped.done()
        stranger.execute("ROLLBACK")
    await asyncio.wait_for(stopped, LONG)

    assert (True, clock.now()) == (waited, worker.last_pass)


async def test_a_stop_does_not_wait_for_the_next_pass(
    worker: Worker, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK", 600.0)
    worker.start()
    await watch.until(lambda: worker.last_pass is not None)
    await asyncio.wait_for(worker.stop(), LONG)

    assert worker.last_pass is not None


async def test_after_a_stop_nothing_is_passed(worker: Worker, watch: Watch) -> None:
    worker.start()
    await watch.until(lambda: worker.last_pass is not None)
    await worker.stop()
    calls = watch.calls
    await worker.stop()

    assert calls == watch.calls


async def test_a_worker_that_never_started_may_be_stopped(worker: Worker) -> None:
    await worker.stop()

    assert worker.last_pass is None


async def test_receipts_past_their_time_are_swept_now_and_then(
    rig: Rig, worker: Worker, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_EVERY", 0.0)
    engine = rig.runtime.engine
    await engine.begin()
    await writes.keep_receipts(engine, [make_kept()])
    await engine.commit()
    rig.clock.advance(73 * 3600)
    worker.start()
    await watch.until(lambda: worker.last_pass is not None)
    await watch.until(lambda: rig.reads.kept(1) == [])

    assert [] == rig.reads.kept(1)


async def test_receipts_are_not_swept_at_every_pass(rig: Rig, worker: Worker, watch: Watch) -> None:
    kept = make_kept()
    engine = rig.runtime.engine
    await engine.begin()
    await writes.keep_receipts(engine, [kept])
    await engine.commit()
    rig.clock.advance(73 * 3600)
    worker.start()
    await watch.passes(1)

    assert [kept] == rig.reads.kept(1)
