"""Crash tests: the real process is killed with SIGKILL at a marked point and started again on the
same folder. Nothing acknowledged is lost, nothing is sent twice that must not be, the fallback
comes on time, and the code is the same.

Each story runs on the real clock, so several run side by side; each is a test of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from acceptance.crash_child import LONG_PATIENCE, PATIENCE, TIMEOUT
from acceptance.outside import NUMBER, Process, Submission, busy, forked, gateway, until

from gateway.services.case import LEASE_MARGIN

LEASE = TIMEOUT + LEASE_MARGIN  # seconds until a claim that nobody holds any more lapses
LATE = 4.0  # seconds a deadline may be missed by, on a busy machine
LOOSE = 0.5  # seconds by which our look at "ready" may come after the first pass
SIDE_BY_SIDE = 4

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

Story = Callable[[Process], Awaitable[None]]
STORIES: dict[str, Story] = {}


def story(told: Story) -> Story:
    """A story is run once, beside others, and judged by the test of its name."""
    STORIES[getattr(told, "__name__", "")] = told
    return told


async def killed(process: Process) -> list[str]:
    """It reached its point, and is started again without one; the attempts as it left them."""
    await process.died()
    left = process.states()
    await process.start()
    return left


async def sent(process: Process, workflow: str) -> Submission:
    """Accepted, submitted, and its outcome stored."""
    answer = await process.send(workflow)
    assert answer is not None
    assert answer.status_code == 202
    (submission,) = await process.submitted(1, LATE)
    await until(lambda: process.states() == ["sms:SENT"], LATE, "its outcome")
    return submission


def states(status: Mapping[str, Any]) -> list[str]:
    return [f"{one['channel']}:{one['state']}" for one in status["attempts"]]


def seconds(moment: str) -> float:
    """Of the epoch."""
    return datetime.fromisoformat(moment).timestamp()


async def verified(process: Process) -> None:
    """The code of every submission is the code."""
    answer = await process.verify(process.providers.submissions[-1].code)

    assert answer is not None
    assert answer.status_code == 200, answer.text


# --- Accept -------------------------------------------------------------------------------------


@story
async def accept_killed_before_its_commit_never_was(process: Process) -> None:
    await process.start("before-accept-commit")
    answer = await process.send("calm")
    left = await killed(process)

    assert answer is None
    assert [] == left
    assert await process.status(number=NUMBER) is None
    assert [] == process.providers.submissions
    await sent(process, "calm")
    await verified(process)


# --- Submission: a claim is committed, and nobody knows what became of it -----------------------


async def octopush_is_asked_again_under_the_same_id(
    process: Process, *, point: str, answered: bool, before: int
) -> None:
    """`request_id` is the attempt: what arrived before the kill is not sent a second time. Where
    the ticket went with the lost answer, the receipt's number tells which attempt it is about."""
    await process.start(point)
    answer = await process.send("patient")
    left = await killed(process)
    seen = await process.submitted(before + 1, LEASE + LATE)
    await until(lambda: process.states() == ["sms:SENT"], LATE, "its outcome")
    receipt = await process.receipt(seen[0], "DELIVERED")
    await until(lambda: process.states() == ["sms:DELIVERED"], LATE, "its delivery")
    status = await process.known()

    assert answered == (answer is not None)
    assert ["sms:QUEUED"] == left
    assert {status["attempts"][0]["attempt_id"]} == {one.attempt_id for one in seen}
    assert 200 == receipt
    assert [] == process.rows("SELECT why FROM receipt")
    await verified(process)
    assert before + 1 == len(process.providers.to("sms-campaign"))


async def messenger_is_never_asked_again(
    process: Process, *, point: str, answered: bool, before: int
) -> None:
    """It takes no idempotency key: the claim lapses within the patience, which is waited for; there
    is no reference to poll by; then the step falls back (seen to fail with `idempotent = True`).
    """
    await process.start(point)
    answer = await process.send("chat")
    left = await killed(process)
    seen = await process.submitted(before + 1, LONG_PATIENCE + LATE)
    first, second = (await process.known())["attempts"]
    due = max(seconds(first["overdue_at"]), process.ready_at)

    assert answered == (answer is not None)
    assert ["messenger:QUEUED"] == left
    assert before == len(process.providers.to("messages"))
    assert 1 == len(process.providers.to("sms-campaign"))
    assert due - LOOSE <= seconds(second["queued_at"]) <= due + process.grace + LATE * busy()
    assert ("claim_lapsed", "silence") == (first["reason"], second["cause"])
    if before:
        assert 200 == await process.receipt(seen[0], "read")
        assert "READ" == (await process.known())["attempts"][0]["state"]
    await verified(process)


for _name, _told in (
    ("octopush", octopush_is_asked_again_under_the_same_id),
    ("messenger", messenger_is_never_asked_again),
):
    for _point, _answered, _before in (
        ("after-accept-commit", False, 0),
        ("before-sending", True, 0),
        ("after-answer", True, 1),
        ("before-outcome-commit", True, 1),
    ):
        STORIES[f"{_name}_{_point}"] = partial(
            _told, point=_point, answered=_answered, before=_before
        )


# --- Outcome ------------------------------------------------------------------------------------


@story
async def outcome_killed_after_its_commit_is_not_forgotten(process: Process) -> None:
    """The reference is stored: no second submission, and the receipt finds its attempt."""
    await process.start("after-outcome-commit")
    await process.send("calm")
    left = await killed(process)
    (sms,) = process.providers.submissions
    receipt = await process.receipt(sms, "DELIVERED")
    status = await process.known()

    assert ["sms:SENT"] == left
    assert 200 == receipt
    assert ["sms:DELIVERED"] == states(status)
    assert "expire" == status["next"]["action"]
    await verified(process)


@story
async def f7_silence_after_a_crash_falls_back_on_time(process: Process) -> None:
    """The deadline is a row, not a timer."""
    await process.start("after-outcome-commit")
    await process.send("quick")
    left = await killed(process)
    await process.submitted(2, PATIENCE + LATE)
    first, second = (await process.known())["attempts"]
    due = max(seconds(first["overdue_at"]), process.ready_at)

    assert ["sms:SENT"] == left
    assert ["sms-campaign", "voice-campaign"] == [o.path for o in process.providers.submissions]
    assert due - LOOSE <= seconds(second["queued_at"]) <= due + process.grace + LATE * busy()
    await verified(process)


# --- Receipts -----------------------------------------------------------------------------------


@story
async def receipt_killed_before_its_commit_is_not_acknowledged(process: Process) -> None:
    """The provider got no 2xx; when it comes again, the receipt is applied."""
    await process.start("before-receipt-commit")
    sms = await sent(process, "calm")
    lost = await process.receipt(sms, "DELIVERED")
    left = await killed(process)
    again = await process.receipt(sms, "DELIVERED")

    assert (None, 200) == (lost, again)
    assert ["sms:SENT"] == left
    assert ["sms:DELIVERED"] == states(await process.known())
    await verified(process)


@story
async def f19_receipt_killed_after_its_commit_is_applied_once(process: Process) -> None:
    await process.start("after-receipt-commit")
    sms = await sent(process, "calm")
    lost = await process.receipt(sms, "DELIVERED")
    left = await killed(process)
    before = await process.known()
    again = await process.receipt(sms, "DELIVERED")
    after = await process.known()

    assert (None, 200) == (lost, again)
    assert ["sms:DELIVERED"] == left == states(before)
    assert before["transitions"] == after["transitions"]
    assert (0, 1) == (before["attempts"][0]["repeats"], after["attempts"][0]["repeats"])
    await verified(process)


@story
async def receipt_that_was_acknowledged_is_there_after_a_kill(process: Process) -> None:
    await process.start()
    sms = await sent(process, "calm")
    acknowledged = await process.receipt(sms, "DELIVERED")
    process.child.kill()
    await killed(process)

    assert 200 == acknowledged
    assert ["sms:DELIVERED"] == states(await process.known())
    await verified(process)


@story
async def f1_receipt_inside_the_call_survives_the_loss_of_its_answer(process: Process) -> None:
    """It came before the answer, was acknowledged, and the answer was never stored."""
    acknowledged: list[int | None] = []

    async def read(submission: Submission) -> None:
        acknowledged.append(await process.receipt(submission, "read"))

    process.providers.during = read
    await process.start("after-answer")
    await process.send("chat")
    left = await killed(process)
    status = await process.known()

    assert [200] == acknowledged
    assert ["messenger:READ"] == left == states(status)
    assert "expire" == status["next"]["action"]
    await verified(process)


# --- Fallback -----------------------------------------------------------------------------------


@story
async def f7_fallback_killed_after_its_commit_goes_out_once(process: Process) -> None:
    """Its claim lapses beyond its patience; it is the last step, and silence is not the end."""
    await process.start("after-fallback-commit")
    sms = await sent(process, "calm")
    lost = await process.receipt(sms, "NOT_DELIVERED")
    left = await killed(process)
    await process.submitted(2, LEASE + LATE)

    assert lost is None
    assert ["sms:FAILED", "voice:QUEUED"] == left
    assert 1 == len(process.providers.to("sms-campaign"))
    assert 1 == len(process.providers.to("voice-campaign"))
    await verified(process)


# --- Check and cancel ---------------------------------------------------------------------------


@story
async def f24_check_killed_before_its_commit_told_nothing_and_counts_nothing(
    process: Process,
) -> None:
    await process.start("before-check-commit")
    await sent(process, "calm")
    lost = await process.verify("0")
    await killed(process)

    assert lost is None
    assert 5 == (await process.known())["checks_left"]
    await verified(process)


@story
async def f26_check_killed_after_its_commit_is_used_up(process: Process) -> None:
    await process.start("after-check-commit")
    sms = await sent(process, "calm")
    lost = await process.verify(sms.code)
    left = await killed(process)
    again = await process.verify(sms.code)
    status = await process.known()

    assert lost is None
    assert ["sms:DELIVERED"] == left
    assert again is not None
    assert (409, "already_verified") == (again.status_code, again.json()["code"])
    assert ("VERIFIED", None) == (status["status"], status["next"])


@story
async def cancel_killed_after_its_commit_is_canceled(process: Process) -> None:
    await process.start("after-cancel-commit")
    sms = await sent(process, "calm")
    lost = await process.call("/otp/cancel", {"number": NUMBER})
    await killed(process)
    checked = await process.verify(sms.code)

    assert lost is None
    assert checked is not None
    assert (410, "canceled") == (checked.status_code, checked.json()["code"])
    assert [(None,)] == process.rows("SELECT wake_at FROM verification")


# --- The tests ----------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, migrated: Path
) -> AsyncIterator[Mapping[str, asyncio.Task[None]]]:
    """The stories that are wanted, begun in their order, a few at a time."""
    side_by_side = asyncio.Semaphore(SIDE_BY_SIDE)

    async def run(name: str) -> None:
        folder = tmp_path_factory.mktemp(name)
        async with side_by_side, gateway(folder, migrated, forked) as process:
            await STORIES[name](process)
            process.check()

    mine = [item for item in request.session.items if item.path == request.path]
    wanted = [
        str(item.callspec.params["name"]) for item in mine if isinstance(item, pytest.Function)
    ]
    tasks = {name: asyncio.create_task(run(name)) for name in wanted}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("name", STORIES)
async def test_crash(name: str, running: Mapping[str, asyncio.Task[None]]) -> None:
    await running[name]
