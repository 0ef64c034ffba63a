"""The pass over what is due: falling back, polling, closing, recovering, draining a backlog."""

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fakes import START, Answer, Gate, answering, raising
from rig import NUMBER, Rig, make_settings

from gateway.domain import recipient
from gateway.domain.delivery import Cause, State
from gateway.ports import Lost, NotSent
from gateway.services import reconcile, send
from gateway.services.case import Handover
from gateway.services.reconcile import GRACE, LIMIT, OUTAGE, Gap, Wake, gap_between

TIMEOUT = raising(Lost("read_timeout"))
UNREACHED = raising(NotSent("connect_error"))


class Killed(BaseException):
    """The process ends here. No `except Exception` sees it."""


def words(rig: Rig) -> list[str]:
    """The channel of each submission, in order."""
    return [one.path.split("/")[-2].removesuffix("-campaign") for one in rig.transport.submissions]


async def begin(rig: Rig, to: str = NUMBER, **more: Any) -> str:
    """Accepted, and not waited for: the id."""
    answer = await rig.call("/otp/send", {"to": to, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["verification_id"])


async def look(rig: Rig, seconds: float = 0) -> int:
    """Time passes, then the worker; calls under way stay there."""
    return await reconcile.run_once(rig.runtime, rig.passing, rig.clock.advance(seconds))


async def through(rig: Rig, seconds: int, step: float = 1) -> None:
    """The worker, for so long."""
    for _ in range(int(seconds / step)):
        await rig.reconcile(step)


async def many(rig: Rig, count: int, prefix: str = "+3361", **more: Any) -> list[str]:
    """So many verifications, accepted in the service's own way and handed over."""
    (client, *_) = rig.reads.clients()
    made = []
    for first in range(0, count, 200):
        numbers = [f"{prefix}{n:07d}" for n in range(first, min(first + 200, count))]
        sent = await asyncio.gather(
            *(
                rig.accept(send.Request(client.id, recipient.parse(number, None), **more))
                for number in numbers
            )
        )
        made += [str(one.verification.id) for one in sent]
        await rig.settle()
    return made


async def widened(rig: Rig) -> None:
    """A rig whose routes take thousands of calls at once."""
    rig.settings = make_settings(rig.folder)
    for provider in rig.settings.providers:
        provider.concurrency = 5000
    await rig.restart()


# F8: silence.


async def test_f8_silence_falls_back_at_the_deadline_and_not_before(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    await rig.reconcile(59.999)
    early = rig.states(sent["verification_id"])
    await rig.reconcile(0.001)

    assert ["sms:SENT"] == early
    assert ["sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])
    assert Cause.SILENCE is rig.attempts(sent["verification_id"])[1].cause


async def test_f8_what_is_on_its_way_and_stays_there_falls_back(rig: Rig) -> None:
    """ACK is not DELIVERED."""
    sent = await rig.send(workflow="sms")
    await rig.octopush_receipt(rig.transport.submissions[0], "ACK")
    await rig.reconcile(60)

    assert ["sms:ACK", "voice:SENT"] == rig.states(sent["verification_id"])


@pytest.mark.parametrize("word", ["DELIVERED", "READ"])
async def test_f8_what_has_arrived_does_not_fall_back(rig: Rig, word: str) -> None:
    sent = await rig.send(workflow="sms")
    await rig.octopush_receipt(rig.transport.submissions[0], word)
    await through(rig, 299, 13)

    assert [f"sms:{word}"] == rig.states(sent["verification_id"])


async def test_f8_each_step_waits_for_its_own_patience(rig: Rig) -> None:
    """Messenger 120 s and 3 s for the poll, sms 60 s, then the call; nothing after that."""
    sent = await rig.send(ttl=600)
    moments: list[tuple[str, float]] = []
    for _ in range(599):
        await rig.reconcile(1)
        seconds = (rig.clock.now() - START).total_seconds()
        moments += [(word, seconds) for word in words(rig)[len(moments) :]]

    assert [("v1", 1.0), ("sms", 123.0), ("voice", 183.0)] == moments
    assert ["messenger:SENT", "sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])


async def test_a_route_without_receipts_waits_for_the_code_itself_and_then_falls_back(
    rig: Rig,
) -> None:
    """Rule 4: `sms_low_cost` confirms nothing, so not even its ACK would satisfy the step."""
    sent = await rig.send(workflow="low_cost")
    await rig.reconcile(59.999)
    early = words(rig)
    await rig.reconcile(0.001)

    assert ["sms"] == early
    assert ["sms", "voice"] == words(rig)
    assert ["sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])


async def test_a_verified_code_ends_the_wait_of_a_route_without_receipts(rig: Rig) -> None:
    sent = await rig.send(workflow="low_cost")
    await rig.verify(sent["verification_id"], rig.transport.submissions[0].code)
    await through(rig, 120, 10)

    assert ["sms"] == words(rig)
    assert ["sms:DELIVERED"] == rig.states(sent["verification_id"])


# F40, F41.


@pytest.mark.parametrize("best", [[], ["sent"], ["sent", "delivered"]])
async def test_f40_a_read_receipt_that_never_comes_falls_back_once_and_never_loops(
    rig: Rig, best: list[str]
) -> None:
    sent = await rig.send(ttl=600)
    (message,) = rig.transport.submissions
    if best:
        await rig.messenger_receipt(message, *best)
    await through(rig, 130)
    await rig.octopush_receipt(rig.transport.submissions[1], "DELIVERED")
    await through(rig, 480, 2)
    reached = {0: "SENT", 1: "ACK", 2: "DELIVERED"}[len(best)]

    assert [f"messenger:{reached}", "sms:DELIVERED"] == rig.states(sent["verification_id"])
    assert ["v1", "sms"] == words(rig)
    assert 1 == len(rig.transport.polls)


async def test_f40_a_read_receipt_that_never_comes_in_the_last_step_sends_nothing_more(
    rig: Rig,
) -> None:
    await rig.send(workflow="messenger_only")
    await rig.messenger_receipt(rig.transport.submissions[0], "delivered")
    await through(rig, 300)

    assert ["v1"] == words(rig)


@pytest.mark.parametrize("channel", ["messenger", "sms", "voice"])
@pytest.mark.parametrize("fate", ["silence", "failed", "refused", "lost"])
async def test_f41_an_explicit_channel_is_never_switched(rig: Rig, channel: str, fate: str) -> None:
    word = "messages" if channel == "messenger" else f"{channel}-campaign"
    if fate in {"refused", "lost"}:
        answer = answering(400, {"code": 110}) if fate == "refused" else TIMEOUT
        rig.transport.script(word, *[answer] * 9)
    await rig.send(channel=channel)
    if fate == "failed":
        (one,) = rig.transport.submissions
        if channel == "messenger":
            await rig.messenger_receipt(one, "failed")
        else:
            await rig.octopush_receipt(one, "NOT_DELIVERED")
    await through(rig, 300, 3)

    assert {"v1" if channel == "messenger" else channel} == set(words(rig))
    assert (1 if fate in {"silence", "failed", "refused"} else len(words(rig))) == len(words(rig))


# Rule 9: polls.


async def test_the_provider_is_asked_before_money_is_spent_on_a_fallback(rig: Rig) -> None:
    rig.transport.poll_script.append(answering(200, {"message_id": "m_1", "status": "read"}))
    sent = await rig.send()
    await rig.reconcile(120)
    await through(rig, 60)

    assert ["messenger:READ"] == rig.states(sent["verification_id"])
    assert 1 == len(rig.transport.polls)
    assert "poll" == rig.record(sent["verification_id"]).log[-1].source


async def test_a_poll_that_tells_nothing_better_is_followed_by_the_fallback_after_3_seconds(
    rig: Rig,
) -> None:
    sent = await rig.send()
    await rig.reconcile(120)
    await rig.reconcile(2.999)
    early = words(rig)
    await rig.reconcile(0.001)

    assert ["v1"] == early
    assert ["messenger:SENT", "sms:SENT"] == rig.states(sent["verification_id"])
    assert 1 == len(rig.transport.polls)


async def test_a_poll_that_tells_of_failure_is_followed_by_the_fallback_at_once(rig: Rig) -> None:
    rig.transport.poll_script.append(answering(200, {"message_id": "m_1", "status": "failed"}))
    sent = await rig.send()
    await rig.reconcile(120)

    assert ["messenger:FAILED", "sms:SENT"] == rig.states(sent["verification_id"])


FAILING: dict[str, Answer] = {
    "not reached": UNREACHED,
    "lost": TIMEOUT,
    "404": answering(404, {"error": "unknown"}),
    "500": answering(500, {}),
    "no status": answering(200, {}),
    "a defect": raising(RuntimeError("broken")),
}


@pytest.mark.parametrize("failure", FAILING)
async def test_a_poll_that_fails_is_followed_by_the_fallback(rig: Rig, failure: str) -> None:
    defects: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
    rig.transport.poll_script.append(FAILING[failure])
    sent = await rig.send()
    await rig.reconcile(120)
    await rig.reconcile(3)

    assert ["messenger:SENT", "sms:SENT"] == rig.states(sent["verification_id"])
    assert [] == defects


async def test_a_receipt_during_a_poll_stops_the_fallback(rig: Rig) -> None:
    gate = Gate(TIMEOUT)
    rig.transport.poll_script.append(gate)
    sent = await rig.send()
    await look(rig, 120)
    await gate.reached.wait()
    await rig.messenger_receipt(rig.transport.submissions[0], "read")
    gate.opened.set()
    await rig.settle()
    await through(rig, 60)

    assert ["messenger:READ"] == rig.states(sent["verification_id"])


async def test_an_answer_to_a_poll_that_comes_after_the_fallback_is_recorded(rig: Rig) -> None:
    gate = Gate(answering(200, {"message_id": "m_1", "status": "read"}))
    rig.transport.poll_script.append(gate)
    sent = await rig.send()
    await look(rig, 120)
    await look(rig, 3)
    gate.opened.set()
    await rig.settle()

    assert ["messenger:READ", "sms:SENT"] == rig.states(sent["verification_id"])


# F7: a process may end at any moment.


def dying(rig: Rig, at: Callable[[object], bool]) -> asyncio.Event:
    """The process dies where a batch leaves such an item behind: after the commit, before it is
    followed."""
    died = asyncio.Event()

    def follow(item: object) -> None:
        if at(item):
            rig.after = None
            died.set()
            raise Killed

    rig.after = follow
    return died


async def reborn(rig: Rig, died: asyncio.Event | None = None) -> None:
    if died is not None:
        await died.wait()
    await rig.crash()
    await rig.revive()


def _to(channel: str) -> Callable[[object], bool]:
    return lambda item: isinstance(item, Handover) and item.attempt.channel == channel


def _calls(rig: Rig) -> dict[str, int]:
    """Messages by step: the same request_id twice is one."""
    distinct = {(one.path, one.attempt_id) for one in rig.transport.submissions}
    found = [path.split("/")[-2] for path, _ in distinct]
    return {word: found.count(word) for word in sorted(set(found))}


@pytest.mark.parametrize("clean", [True, False], ids=["stop", "kill"])
@pytest.mark.parametrize("at", [0, 30, 59.9])
async def test_f7_a_process_that_ends_while_waiting_falls_back_once_all_the_same(
    rig: Rig, at: float, clean: bool
) -> None:
    sent = await rig.send(workflow="sms")
    await rig.reconcile(at)
    await (rig.stop() if clean else rig.crash())
    await rig.revive()
    await rig.reconcile(60 - at)
    await through(rig, 100, 5)

    assert ["sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])
    assert {"sms-campaign": 1, "voice-campaign": 1} == _calls(rig)


async def test_f7_a_process_that_dies_right_after_the_202_has_sent_nothing_and_will(
    rig: Rig,
) -> None:
    """Between commit and call. Nobody can tell, so the claim lapses into unknown; the idempotency
    key lets it be sent all the same."""
    died = dying(rig, _to("sms"))
    named = await begin(rig, workflow="sms")
    await reborn(rig, died)
    before = words(rig)
    await through(rig, 16)

    assert [] == before
    assert ["sms"] == words(rig)
    assert ["sms:SENT"] == rig.states(named)


async def test_f7_a_message_that_may_have_been_sent_waits_out_its_patience(rig: Rig) -> None:
    """The same without an idempotency key: it falls back."""
    died = dying(rig, _to("messenger"))
    named = await begin(rig)
    await reborn(rig, died)
    await through(rig, 130)

    assert ["sms"] == words(rig)
    assert ["messenger:SENT", "sms:SENT"] == rig.states(named)


async def test_f7_a_process_that_dies_during_the_call_falls_back_once(rig: Rig) -> None:
    gate = Gate(TIMEOUT)
    rig.transport.script("sms-campaign", gate)
    named = await begin(rig, workflow="sms")
    await gate.reached.wait()
    await reborn(rig)
    await through(rig, 100)

    assert ["sms:SENT", "voice:SENT"] == rig.states(named)
    assert {"sms-campaign": 1, "voice-campaign": 1} == _calls(rig)


async def test_f7_a_process_that_dies_between_fallback_and_call_falls_back_once(rig: Rig) -> None:
    named = (await rig.send(workflow="sms"))["verification_id"]
    died = dying(rig, _to("voice"))
    await look(rig, 60)
    await reborn(rig, died)
    before = rig.states(named)
    await through(rig, 100)

    assert ["sms:SENT", "voice:QUEUED"] == before
    assert ["sms:SENT", "voice:SENT"] == rig.states(named)
    assert ["sms", "voice"] == words(rig)


async def test_f7_a_process_that_dies_during_the_fallback_falls_back_once(rig: Rig) -> None:
    gate = Gate(TIMEOUT)
    rig.transport.script("voice-campaign", gate)
    named = (await rig.send(workflow="sms"))["verification_id"]
    await look(rig, 60)
    await gate.reached.wait()
    await reborn(rig)
    await through(rig, 100)

    assert ["sms:SENT", "voice:SENT"] == rig.states(named)
    assert {"sms-campaign": 1, "voice-campaign": 1} == _calls(rig)


async def test_f7_a_process_that_dies_after_the_outcome_was_stored_sends_nothing_again(
    rig: Rig,
) -> None:
    named = (await rig.send(workflow="sms"))["verification_id"]
    await reborn(rig)
    await through(rig, 50)

    assert ["sms:SENT"] == rig.states(named)
    assert ["sms"] == words(rig)


async def test_f7_a_process_that_hangs_while_another_takes_over_falls_back_once(rig: Rig) -> None:
    """The first one is never stopped, and comes back in the end."""
    gate = Gate(answering(201, {"sms_ticket": "sms_zombie"}))
    rig.transport.script("sms-campaign", gate)
    named = await begin(rig, workflow="sms")
    await gate.reached.wait()
    twin = await rig.beside()
    await through(twin, 100)
    gate.opened.set()
    await rig.settle()
    await through(rig, 100, 10)
    await twin.stop()

    assert ["sms:SENT", "voice:SENT"] == rig.states(named)
    assert {"sms-campaign": 1, "voice-campaign": 1} == _calls(rig)


# F28: nothing is sent that nobody could type.


LATE = ["failed receipt", "next", "resend", "throttled", "idempotent repeat", "fallback"]


@pytest.mark.parametrize("late", LATE)
async def test_f28_nothing_is_sent_with_less_than_30_seconds_left(rig: Rig, late: str) -> None:
    """Whoever or whatever asks for it. (Seen to fail without MIN_LIFE in `workflow._may_send`.)"""
    script = {"throttled": answering(429, {}, {"retry-after": "5"}), "idempotent repeat": TIMEOUT}
    if late in script:
        rig.transport.script("sms-campaign", script[late])
    sent = await rig.send(workflow="sms", ttl=90)
    rig.clock.advance(60.001)
    match late:
        case "failed receipt":
            await rig.octopush_receipt(rig.transport.submissions[0], "NOT_DELIVERED")
        case "next":
            which = {"verification_id": sent["verification_id"]}
            refused = await rig.call("/otp/next", which)
            assert (409, "too_late") == (refused.status_code, refused.json()["code"])
        case "resend":
            refused = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
            assert (429, "too_late") == (refused.status_code, refused.json()["code"])
        case _:
            await rig.reconcile()
    await rig.settle()
    await through(rig, 40)

    assert ["sms"] == words(rig)
    assert rig.status(sent["verification_id"]) in {"EXPIRED", "FAILED"}


@pytest.mark.parametrize("late", LATE)
async def test_f28_with_30_seconds_left_it_is_sent(rig: Rig, late: str) -> None:
    """The same a millisecond earlier."""
    script = {"throttled": answering(429, {}, {"retry-after": "5"}), "idempotent repeat": TIMEOUT}
    if late in script:
        rig.transport.script("sms-campaign", script[late])
    sent = await rig.send(workflow="sms", ttl=90)
    rig.clock.advance(60)
    match late:
        case "failed receipt":
            await rig.octopush_receipt(rig.transport.submissions[0], "NOT_DELIVERED")
        case "next":
            await rig.call("/otp/next", {"verification_id": sent["verification_id"]})
        case "resend":
            await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
        case _:
            await rig.reconcile()
    await rig.settle()

    assert 2 == len(words(rig))


async def test_f28_expiry_ends_the_steps(rig: Rig) -> None:
    sent = await rig.send(workflow="default", ttl=300)
    await rig.reconcile(300)
    await through(rig, 100, 10)

    assert "EXPIRED" == rig.status(sent["verification_id"])
    assert ["v1"] == words(rig)
    assert None is rig.record(sent["verification_id"]).verification.wake_at


async def test_f28_a_waiting_attempt_is_not_sent_after_a_stop_that_outlived_the_code(
    rig: Rig,
) -> None:
    rig.settings = make_settings(rig.folder, concurrency=1)
    await rig.restart()
    gate = Gate(TIMEOUT)
    rig.transport.script("sms-campaign", gate)
    await begin(rig, "+33611111111", workflow="sms_only")
    await gate.reached.wait()
    named = await begin(rig, "+33622222222", workflow="sms_only", ttl=60)
    await rig.crash()
    rig.clock.advance(31)
    await rig.revive()
    await through(rig, 40)

    assert [] == [one for one in rig.transport.submissions[1:] if "2222" in _number(one)]
    assert "EXPIRED" == rig.status(named)


def _number(submission: Any) -> str:
    return str(submission.body["recipients"][0]["phone_number"])


# F29: after an outage.


async def test_f29_a_backlog_is_drained_at_a_bounded_rate_and_expired_ones_are_closed(
    rig: Rig,
) -> None:
    """450 fell due while nobody passed: 150 of them have expired, the rest get 30 s more. (Seen to
    fail without LIMIT in `reconcile.run_once`.)"""
    await widened(rig)
    short = await many(rig, 150, workflow="sms", ttl=90)
    rig.clock.advance(1)
    long = await many(rig, 300, "+3362", workflow="sms", ttl=600)
    await rig.reconcile()
    await rig.stop()
    rig.clock.advance(95)
    rig.transport.submissions.clear()
    await rig.revive()
    looked = [await rig.reconcile(0.1) for _ in range(7)]
    extended = list(rig.transport.submissions)
    fresh = await rig.send("+33799999999", workflow="sms")
    await rig.reconcile(GRACE.total_seconds())
    bounded = len(rig.transport.to("voice"))
    for _ in range(6):
        await rig.reconcile(0.1)
    calls = [one.attempt_id for one in rig.transport.to("voice")]

    assert [LIMIT] * 4 + [50, 0, 0] == looked
    assert [] == extended
    assert {"EXPIRED"} == {rig.status(one) for one in short}
    assert ["sms:SENT"] == rig.states(fresh["verification_id"])
    assert LIMIT == bounded
    assert 300 == len(calls) == len(set(calls))
    assert {("sms:SENT", "voice:SENT")} == {tuple(rig.states(one)) for one in long[::20]}


async def test_f29_a_receipt_repeated_in_the_grace_stops_the_fallback(rig: Rig) -> None:
    """Why there is a grace: the provider was answered nothing meanwhile, and tries again."""
    sent = await rig.send(workflow="sms")
    await rig.reconcile(30)
    await rig.crash()
    rig.clock.advance(60)
    await rig.revive()
    await rig.reconcile(0.1)
    await rig.reconcile(20)
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    await through(rig, 60)

    assert ["sms:DELIVERED"] == rig.states(sent["verification_id"])


async def test_f29_the_grace_is_30_seconds_and_is_given_once(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    await rig.reconcile(30)
    await rig.crash()
    rig.clock.advance(60)
    await rig.revive()
    await rig.reconcile()
    await rig.reconcile(29.999)
    early = rig.states(sent["verification_id"])
    await rig.reconcile(0.001)

    assert ["sms:SENT"] == early
    assert ["sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])


async def test_f29_a_receipt_before_the_first_pass_does_not_take_the_grace_away(rig: Rig) -> None:
    """The provider repeats ACK first and DELIVERED after it; the pass comes in between."""
    sent = await rig.send(workflow="sms")
    await rig.reconcile(30)
    await rig.crash()
    rig.clock.advance(60)
    await rig.revive()
    (sms,) = rig.transport.submissions
    await rig.octopush_receipt(sms, "ACK")
    await rig.settle()
    await rig.reconcile()
    await rig.octopush_receipt(sms, "DELIVERED")
    await through(rig, 60)

    assert ["sms:DELIVERED"] == rig.states(sent["verification_id"])
    assert ["sms"] == words(rig)


@pytest.mark.sqlite
async def test_f29_passes_that_failed_for_a_while_are_an_outage_too(rig: Rig) -> None:
    """The database took nothing for 40 s: no receipt either, so silence means nothing."""
    sent = await rig.send(workflow="sms")
    await rig.reconcile(30)
    writer = rig.sqlite._writer
    writer.execute("PRAGMA query_only = ON")
    for _ in range(8):
        with pytest.raises(Exception, match="storage"):
            await look(rig, 5)
    writer.execute("PRAGMA query_only = OFF")
    await rig.reconcile()
    early = rig.states(sent["verification_id"])
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    await through(rig, 60)

    assert ["sms:SENT"] == early
    assert ["sms:DELIVERED"] == rig.states(sent["verification_id"])


async def test_f29_a_short_stop_is_no_outage(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    await rig.reconcile(51)
    await rig.restart()
    await rig.reconcile(9)

    assert ["sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])


async def test_f29_no_patience_is_extended_into_the_last_30_seconds(rig: Rig) -> None:
    """Else the fallback would never be sent."""
    sent = await rig.send(workflow="sms", ttl=120)
    await rig.reconcile(50)
    await rig.crash()
    rig.clock.advance(20)
    await rig.revive()
    await rig.reconcile()
    await rig.reconcile(20)

    assert ["sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, None),
        (START, None),
        (START - OUTAGE + timedelta(milliseconds=1), None),
        (START - OUTAGE, Gap(START - OUTAGE, START)),
        (START - MINUTE, Gap(START - MINUTE, START)),
        (START + MINUTE, None),
    ],
)
def test_f29_a_gap_begins_at_the_last_pass(last: datetime | None, expected: Gap | None) -> None:
    assert expected == gap_between(last, START)


# The pass itself.


async def test_a_pass_with_nothing_due_writes_only_its_mark(rig: Rig) -> None:
    await rig.send(workflow="sms")
    before = rig.gateway.ledger.tally.commits
    looked = [await look(rig, 0.1) for _ in range(20)]

    assert [0] * 20 == looked
    assert before + 1 == rig.gateway.ledger.tally.commits
    assert START + timedelta(seconds=0.1) == rig.reads.mark(reconcile.PASS)


async def test_every_look_moves_the_next_one_forward(rig: Rig) -> None:
    """A verification that stayed due would be looked at for ever."""
    rig.transport.script("sms-campaign", UNREACHED, TIMEOUT, UNREACHED, TIMEOUT)
    rig.transport.script("messages", TIMEOUT)
    await rig.send("+33611111111", ttl=600)
    await rig.send("+33622222222", workflow="sms")
    await rig.send("+33633333333", workflow="low_cost")
    for _ in range(1400):
        await rig.reconcile(0.5)
        soonest = rig.reads.soonest()
        assert soonest is None or soonest > rig.clock.now()

    assert None is soonest


async def test_a_named_wake_looks_at_what_has_ended_without_touching_it(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    await rig.call("/otp/cancel", {"verification_id": sent["verification_id"]})
    before = rig.dump()
    looked = await rig.runtime.ledger.submit(
        Wake(named=(UUID(sent["verification_id"]), UUID(int=0)))
    )

    assert 0 == looked
    assert before == rig.dump()


async def test_a_route_that_is_gone_after_a_restart_lets_its_step_pass(rig: Rig) -> None:
    """A plan outlives the settings it was made from."""
    rig.settings = make_settings(rig.folder, concurrency=1)
    await rig.restart()
    gate = Gate(TIMEOUT)
    rig.transport.script("sms-campaign", gate)
    await begin(rig, "+33611111111", workflow="sms")
    await gate.reached.wait()
    named = await begin(rig, "+33622222222", workflow="sms")
    await rig.crash()
    without = make_settings(rig.folder)
    rig.settings = dataclasses.replace(
        without,
        providers=tuple(p for p in without.providers if p.name != "octopush"),
        workflows={"default": without.workflows["messenger_only"]},
    )
    await rig.revive()
    await through(rig, 90)

    assert ["sms:FAILED", "voice:SENT"] == rig.states(named)


async def test_the_clock_going_back_delays_nothing_and_repeats_nothing(rig: Rig) -> None:
    """F38: the time of a batch does not go back by a little."""
    sent = await rig.send(workflow="sms")
    await rig.reconcile(60)
    await rig.reconcile(-4)
    await rig.octopush_receipt(rig.transport.submissions[0], "ACK")
    (sms, voice) = rig.attempts(sent["verification_id"])
    moments = [row.recorded_at for row in rig.record(sent["verification_id"]).log]

    assert ["sms", "voice"] == words(rig)
    assert sorted(moments) == moments
    assert (State.ACK, State.SENT) == (sms.state, voice.state)


async def test_a_stored_plan_outlives_a_change_of_settings(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    await rig.stop()
    now = make_settings(rig.folder)
    changed = {**now.workflows, "sms": now.workflows["sms_only"]}
    rig.settings = dataclasses.replace(now, workflows=changed)
    await rig.revive()
    await rig.reconcile()
    await rig.reconcile(60)

    assert ["sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])
