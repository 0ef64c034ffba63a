"""Our own clock is set wrong and put right (F38): little is waited out, much is followed."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from factories import after
from fakes import START, Clock
from rig import NUMBER, Rig

from gateway.app import clock as wall
from gateway.app.clock import Steady
from gateway.domain.verification import COOL_DOWN, Status

YEAR = timedelta(days=365).total_seconds()


class Lines:
    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def info(self, event: str, **facts: object) -> None:
        raise AssertionError(event)

    error = info

    def warning(self, event: str, **facts: object) -> None:
        self.events.append((event, facts["seconds"]))


def test_it_stands_for_a_little_and_follows_far(clock: Clock) -> None:
    lines = Lines()
    steady = Steady(clock.now, lines)
    told = []
    for seconds in (10, -4, 3, 2, -3600, 1):
        clock.advance(seconds)
        told.append(steady.now())

    assert [after(one) for one in (10, 10, 10, 11, -3589, -3588)] == told
    assert [("clock_set_back", 3600.0)] == lines.events


def test_the_systems_clock_is_told_to_the_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said last is said again within its millisecond alone."""
    start = 1_800_000_000_000_999_999
    told = []
    for nanoseconds in (start, start + 1, start + 999_999, start + 1_000_001, start):
        monkeypatch.setattr(time, "time_ns", lambda at=nanoseconds: at)
        told.append((wall.now() - datetime(2027, 1, 15, 8, tzinfo=UTC)).total_seconds())

    assert [0.0, 0.001, 0.001, 0.002, 0.0] == told


async def test_what_runs_after_a_leap_is_not_held_up(rig: Rig) -> None:
    """(Seen to fail, with no fallback for a year, when the ledger held the highest time.)"""
    rig.clock.advance(YEAR)
    await rig.send("+33612345600", workflow="sms")
    rig.clock.advance(-YEAR)
    sent = await rig.send(workflow="sms")
    await rig.reconcile(61)

    assert START == rig.record(sent["verification_id"]).verification.created_at
    assert 1 == len(rig.transport.to("voice-campaign"))


async def test_what_was_counted_in_a_leap_is_over(rig: Rig) -> None:
    """Failure budget, cool-down, limit and what ran then. (Seen to fail, each with its 429, without
    `limits.ahead`.)"""
    rig.clock.advance(YEAR)
    for _ in range(3):
        sent = await rig.send(workflow="sms_only")
        for wrong in range(5):
            await rig.verify(sent["verification_id"], f"{wrong:04}")
        rig.clock.advance(COOL_DOWN)
    await rig.send("+33612345600", workflow="sms_only")
    rig.clock.advance(-YEAR - 3 * COOL_DOWN)
    locked = await rig.send(NUMBER, workflow="sms_only")
    running = await rig.send("+33612345600", workflow="sms_only")

    assert "joined" not in running or running["joined"] is False
    assert [Status.PENDING] * 2 == [rig.status(one["verification_id"]) for one in (locked, running)]
