"""Accepting: one verification a number, resends, and codes that verify for as long as they live."""

import asyncio
import dataclasses
import re
from typing import Any

import httpx
import pytest
from fakes import Gate, Submission, answering, raising
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig import NUMBER, Rig, make_settings

from gateway.domain.delivery import Cause, Outcome
from gateway.domain.workflow import Step, Until
from gateway.ports import Lost, NotSent
from gateway.services import reconcile

TIMEOUT = raising(Lost("read_timeout"))
UNREACHED = raising(NotSent("connect_error"))
REJECTED = answering(400, {"code": 110})


def channels(rig: Rig) -> list[str]:
    """Where each submission went, in order: sms, sms_b (the second account), voice, messages."""
    return [_channel(one) for one in rig.transport.submissions]


def _channel(one: Submission) -> str:
    if one.path.endswith("/messages"):
        return "messages"
    word = one.path.split("/")[-2].removesuffix("-campaign")
    return "sms_b" if one.host == "octopush_b.example" else word


def digits(one: Submission) -> str:
    """The code of a message; a call says it digit by digit."""
    spelled = re.search(r"\d(?:, \d){3,9}", one.text)
    return spelled.group().replace(", ", "") if spelled is not None else one.code


async def again(rig: Rig, seconds: float = 30, **more: Any) -> httpx.Response:
    """The person asks once more."""
    rig.clock.advance(seconds)
    answer = await rig.call("/otp/send", {"to": NUMBER, **more})
    await rig.settle()
    return answer


# The answer and the provider.


async def test_the_answer_leaves_after_the_commit_and_before_the_provider_answers(
    rig: Rig,
) -> None:
    gate = Gate(TIMEOUT)
    rig.transport.script("sms-campaign", gate)
    with rig.locked():
        task = asyncio.create_task(rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"}))
        await rig.turns(100)
        early = task.done(), list(rig.transport.submissions)
    answer = await task
    await gate.reached.wait()
    stored = rig.states(answer.json()["verification_id"])
    gate.opened.set()
    await rig.settle()

    assert (False, []) == early
    assert 202 == answer.status_code
    assert ["sms:QUEUED"] == stored


async def test_a_caller_that_hangs_up_is_served_all_the_same(rig: Rig) -> None:
    """Its request was stored, so its message leaves."""
    with rig.locked():
        task = asyncio.create_task(rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"}))
        await rig.turns(100)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await rig.until(lambda: len(rig.transport.submissions) == 1)
    await rig.settle()
    (named,) = rig.reads.latest(2)

    assert ["sms:SENT"] == rig.states(str(named))


# One verification a number.


async def test_twenty_sends_to_one_number_at_once_are_one_verification_and_one_message(
    rig: Rig,
) -> None:
    """(Guards: `tx.running`, the unique key. Not yet run without them.)"""
    calls = [rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"}) for _ in range(20)]
    answers = await rig.together(*calls)
    await rig.settle()

    assert [202] + [429] * 19 == sorted(answer.status_code for answer in answers)
    assert 1 == len(rig.reads.latest(50))
    assert ["sms"] == channels(rig)


async def test_sends_to_one_number_on_two_processes_are_one_verification_and_one_message(
    rig: Rig,
) -> None:
    twin = await rig.beside()
    body = {"to": NUMBER, "workflow": "sms"}
    answers = await asyncio.gather(
        *(one.call("/otp/send", body) for _ in range(10) for one in (rig, twin))
    )
    await rig.settle()
    await twin.settle()
    await twin.stop()

    assert [202] + [429] * 19 == sorted(answer.status_code for answer in answers)
    assert 1 == len(rig.reads.latest(50))
    assert ["sms"] == channels(rig)


async def test_an_expired_verification_in_the_way_is_closed_by_its_successor(rig: Rig) -> None:
    """Nobody had passed and written so."""
    first = await rig.send(workflow="sms", ttl=90)
    rig.clock.advance(90)
    second = await rig.send(workflow="sms")
    codes = {digits(one) for one in rig.transport.submissions}

    assert first["verification_id"] != second["verification_id"]
    assert ("EXPIRED", "PENDING") == (
        rig.status(first["verification_id"]), rig.status(second["verification_id"])
    )  # fmt: skip
    assert 2 == len(codes)


# On PostgreSQL a batch has taken its time when it waits for a row.
@pytest.mark.sqlite
async def test_a_life_is_counted_from_the_batch_that_stores_it(rig: Rig) -> None:
    """A request that waited for its batch lives as long as any other, from when it was stored."""
    with rig.locked():
        call = asyncio.create_task(rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"}))
        await rig.until(lambda: rig.gateway.ledger._filled.is_set() or rig.gateway.ledger.depth > 0)
        rig.clock.advance(0.25)
    answer = await call
    await rig.settle()
    record = rig.record(answer.json()["verification_id"])
    stored = record.verification

    assert record.attempts[0].queued_at == stored.created_at == stored.sent_at == rig.clock.now()
    assert 300 == (stored.expires_at - stored.created_at).total_seconds()


@pytest.mark.parametrize("late", [0, 0.12, 0.9])
async def test_a_step_that_may_start_at_the_last_moment_is_sent(rig: Rig, late: float) -> None:
    """Patience and `min_life` are the whole life. Seen to fail when the deadline leaves no room for
    the pass that sees it."""
    sent = await rig.send(workflow="sms", ttl=90)
    overdue_at = rig.attempts(sent["verification_id"])[0].overdue_at
    waiting = (overdue_at - rig.clock.now()).total_seconds()
    await rig.reconcile(waiting + late)

    assert ["sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])


@pytest.mark.parametrize("ttl", range(84, 100, 3))
async def test_what_accept_lets_through_can_be_sent_to_its_last_step(rig: Rig, ttl: int) -> None:
    """§3: a step that cannot start before expiry less `min_life` is a mistake that accept refuses.
    A silent messenger is polled first: three seconds more."""
    chosen = make_settings(rig.folder)
    steps = (
        Step("messenger", ("messenger",), 60, Until.READ),
        Step("sms", ("octopush",), 60, Until.DELIVERED),
    )
    rig.settings = dataclasses.replace(chosen, workflows={**chosen.workflows, "brief": steps})
    await rig.restart()
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "brief", "ttl": ttl})
    await rig.settle()
    for _ in range(ttl):
        await rig.reconcile(1)

    if answer.status_code == 202:
        assert ["messages", "sms"] == channels(rig)
    else:
        assert "workflow_too_long" == answer.json()["code"]
        assert ttl < 60 + 3 + 30


# Resends: rule 10.


async def test_a_second_send_within_the_cool_down_is_refused_and_sends_nothing(rig: Rig) -> None:
    await rig.send(workflow="sms")
    before = rig.dump()
    answer = await again(rig, 29.999, workflow="sms")

    assert (429, "cool_down") == (answer.status_code, answer.json()["code"])
    assert "1" == answer.headers["Retry-After"]
    assert before == rig.dump()
    assert ["sms"] == channels(rig)


async def test_a_resend_repeats_the_step_in_force_with_the_same_code(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    answer = await again(rig, workflow="sms")
    first, second = rig.attempts(sent["verification_id"])

    assert (202, True) == (answer.status_code, answer.json()["joined"])
    assert sent["verification_id"] == answer.json()["verification_id"]
    assert ["sms", "sms"] == channels(rig)
    assert 1 == len({digits(one) for one in rig.transport.submissions})
    assert (0, 0, 0, 1) == (first.step, second.step, first.resend, second.resend)
    assert Cause.RESEND is second.cause
    assert first.id != second.id


async def test_a_resend_after_the_fallback_repeats_the_fallback(rig: Rig) -> None:
    await rig.send(workflow="sms")
    await rig.reconcile(60)
    await again(rig, workflow="sms")

    assert ["sms", "voice", "voice"] == channels(rig)


async def test_a_resend_takes_another_route_when_there_is_one(rig: Rig) -> None:
    await rig.send(workflow="two_routes", ttl=600)
    await again(rig, workflow="two_routes")
    await again(rig, workflow="two_routes")

    assert ["sms", "sms_b", "sms"] == channels(rig)


async def test_a_resend_opens_a_new_patience(rig: Rig) -> None:
    await rig.send(workflow="sms")
    await again(rig, 50, workflow="sms")
    await rig.reconcile(59.999)
    early = channels(rig)
    await rig.reconcile(0.001)

    assert ["sms", "sms"] == early
    assert ["sms", "sms", "voice"] == channels(rig)


async def test_the_receipt_of_either_attempt_satisfies_the_step(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    await again(rig, workflow="sms")
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    for _ in range(20):
        await rig.reconcile(10)

    assert ["sms:DELIVERED", "sms:SENT"] == rig.states(sent["verification_id"])


async def test_a_refused_resend_is_tried_as_a_first_send_is(rig: Rig) -> None:
    """Rule 5 holds for it too: the next route, then the next step."""
    await rig.send(workflow="two_routes")
    rig.transport.script("sms-campaign", UNREACHED)
    await again(rig, workflow="two_routes")

    assert ["sms", "sms_b", "sms"] == channels(rig)


async def test_a_refused_resend_after_delivery_is_tried_again(rig: Rig) -> None:
    """The person asked again although it was delivered, and was told 202."""
    sent = await rig.send(workflow="two_routes")
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    rig.transport.script("sms-campaign", UNREACHED)
    await again(rig, workflow="two_routes")
    for _ in range(5):
        await rig.reconcile(1)

    assert ["sms", "sms_b", "sms"] == channels(rig)
    assert ["sms:DELIVERED", "sms:FAILED", "sms:SENT"] == rig.states(sent["verification_id"])


async def test_a_resend_while_the_first_submission_is_under_way_is_an_attempt_of_its_own(
    rig: Rig,
) -> None:
    rig.settings = make_settings(rig.folder, timeout=42.0)
    await rig.restart()
    gate = Gate(answering(201, {"sms_ticket": "sms_slow"}))
    rig.transport.script("sms-campaign", gate)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
    await gate.reached.wait()
    rig.clock.advance(30)
    await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
    named = answer.json()["verification_id"]
    await rig.until(lambda: rig.states(named)[1:] == ["sms:SENT"])
    gate.opened.set()
    await rig.settle()

    assert ["sms:SENT", "sms:SENT"] == rig.states(named)
    assert 2 == len({one.attempt_id for one in rig.transport.submissions})


async def test_the_sends_of_a_verification_are_used_up(rig: Rig) -> None:
    sent = await rig.send(workflow="sms_only", ttl=600)
    answers = [await again(rig, workflow="sms_only") for _ in range(5)]

    assert [202] * 4 + [429] == [answer.status_code for answer in answers]
    assert "sends_used_up" == answers[-1].json()["code"]
    assert 5 == len(rig.transport.submissions)
    assert 5 == rig.record(sent["verification_id"]).verification.sends_used


async def test_no_verification_has_more_than_ten_attempts(rig: Rig) -> None:
    """However often it was refused and asked for."""
    rig.transport.script("sms-campaign", *[UNREACHED] * 30)
    sent = await rig.send(workflow="two_routes", ttl=600)
    for _ in range(4):
        await again(rig, workflow="two_routes")
        await rig.call("/otp/next", {"verification_id": sent["verification_id"]})
        for _ in range(10):
            await rig.reconcile(1)

    assert 10 >= len(rig.attempts(sent["verification_id"]))


async def test_asking_again_never_ends_what_would_go_on(rig: Rig) -> None:
    """Refused so far, with a repeat to come: too late for a resend is no reason to fail."""
    rig.transport.script("sms-campaign", answering(429, {}, {"retry-after": "40"}))
    sent = await rig.send(workflow="sms", ttl=90)
    answer = await again(rig, 60.5, workflow="sms")

    assert (429, "too_late") == (answer.status_code, answer.json()["code"])
    assert sent["verification_id"] == answer.json().get("verification_id", sent["verification_id"])


# F12: a code that was submitted verifies until it expires.


async def test_f12_a_resend_that_fails_changes_nothing(rig: Rig) -> None:
    """Neither refused nor lost: the message that arrived first is as good as before."""
    sent = await rig.send(workflow="sms_only")
    first = rig.transport.submissions[0]
    rig.transport.script("sms-campaign", REJECTED)
    await again(rig, workflow="sms_only")
    await again(rig, workflow="sms_only")
    answer = await rig.verify(sent["verification_id"], digits(first))

    assert 200 == answer.status_code


async def test_f12_a_resend_that_was_answered_429_changes_nothing(rig: Rig) -> None:
    sent = await rig.send(workflow="sms_only", ttl=600)
    for _ in range(8):
        await again(rig, 20, workflow="sms_only")
    answers = {digits(one) for one in rig.transport.submissions}
    answer = await rig.verify(sent["verification_id"], answers.pop())

    assert 200 == answer.status_code
    assert set() == answers


HAPPENINGS = ["resend", "failed", "delivered", "silence", "next", "second", "restart", "wrong"]
ANSWERS = {
    "accepted": None,
    "refused": UNREACHED,
    "permanent": REJECTED,
    "lost": TIMEOUT,
    "throttled": answering(429, {}, {"retry-after": "3"}),
    "500": answering(500, {}),
}


@settings(
    max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_f12_every_code_that_was_submitted_verifies_until_it_expires(
    rig: Rig, data: st.DataObject
) -> None:
    """Whatever happens between: any of the messages that left may be the one that is read."""
    plan = data.draw(st.lists(st.sampled_from(HAPPENINGS), max_size=8))
    outcomes = data.draw(st.lists(st.sampled_from(sorted(ANSWERS)), max_size=4))
    rig.clock.advance(4000)
    rig.transport.submissions.clear()
    rig.transport.scripts.clear()
    for outcome in outcomes:
        for word in ("sms-campaign", "voice-campaign"):
            answer = ANSWERS[outcome]
            rig.transport.script(word, answer or _accepting(rig))
    to = f"+3361{data.draw(st.integers(0, 9_999_999), label='number'):07d}"
    sent = (await rig.send(to, workflow="two_routes", ttl=600))["verification_id"]
    expires_at = rig.record(sent).verification.expires_at
    wrong = 0
    for what in plan:
        wrong += what == "wrong"
        await _happen(rig, what if wrong < 5 else "second", sent, to)
    key = rig.key
    carried = [one for one in rig.transport.submissions if _may_have_left(rig, sent, one)]
    if rig.clock.now() >= expires_at or not carried:
        return
    chosen = data.draw(st.sampled_from(carried), label="the message that is read")
    rig.clock.advance((expires_at - rig.clock.now()).total_seconds() - 0.001)
    verified = await rig.call(
        "/otp/verify", {"verification_id": sent, "code": digits(chosen)}, key=key
    )

    assert 200 == verified.status_code, (plan, outcomes, rig.states(sent))


def _accepting(rig: Rig) -> Any:
    async def answer(submission: Submission) -> httpx.Response:
        return rig.transport.accept(submission)

    return answer


def _may_have_left(rig: Rig, named: str, one: Submission) -> bool:
    """It is one of this verification's, and was not surely refused."""
    outcomes = {str(attempt.id): attempt.outcome for attempt in rig.attempts(named)}
    return outcomes.get(one.attempt_id) in {Outcome.ACCEPTED, Outcome.UNKNOWN}


async def _happen(rig: Rig, what: str, named: str, to: str) -> None:
    last = rig.transport.submissions[-1]
    match what:
        case "resend":
            rig.clock.advance(30)
            await rig.call("/otp/send", {"to": to, "workflow": "two_routes"})
        case "failed" | "delivered":
            if rig.reference_of(last) is not None:
                word = "NOT_DELIVERED" if what == "failed" else "DELIVERED"
                account = "octopush_b" if last.host.startswith("octopush_b") else "octopush"
                await rig.octopush_receipt(last, word, route=account)
        case "silence":
            await rig.reconcile(60)
        case "next":
            await rig.call("/otp/next", {"verification_id": named})
        case "second":
            await rig.reconcile(1)
        case "restart":
            await rig.stop()
            await rig.revive()
        case _:
            code = digits(last)
            await rig.verify(named, ("1" if code[0] == "0" else "0") + code[1:])
    await rig.settle()


async def test_f12_a_refused_last_step_leaves_the_first_message_valid(rig: Rig) -> None:
    rig.transport.script("voice-campaign", REJECTED)
    sent = await rig.send(workflow="sms")
    (sms,) = rig.transport.submissions
    await rig.octopush_receipt(sms, "NOT_DELIVERED")
    await rig.settle()
    await reconcile.run_once(rig.runtime, rig.passing, rig.clock.advance(200))
    before = rig.states(sent["verification_id"])
    answer = await rig.verify(sent["verification_id"], digits(sms))

    assert ["sms:FAILED", "voice:FAILED"] == before
    assert 200 == answer.status_code
