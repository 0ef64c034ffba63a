"""Checking a code: counted before it is told, consumed once, and what a right one proves."""

import asyncio
from typing import Any

import httpx
import pytest
from fakes import FakeTransport, Gate, Submission, answering, raising
from rig import NUMBER, Rig, problem

from gateway.domain.delivery import State
from gateway.domain.limits import FAILURE_BUDGET, FAILURE_WINDOW
from gateway.domain.verification import COOL_DOWN, MAX_CHECKS, Status
from gateway.ports import Lost, NotSent
from gateway.store.records import Source

OTHER = "+33612345679"


def wrong(code: str) -> str:
    """Another code of the same length."""
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}}"


async def sent_with_code(rig: Rig, to: str = NUMBER, **more: Any) -> tuple[str, str]:
    """A verification, and its code as the handset shows it."""
    sent = await rig.send(to, **{"workflow": "sms", **more})
    return sent["verification_id"], rig.transport.submissions[-1].code


async def all_at_once(rig: Rig, verification_id: str, *codes: str) -> list[httpx.Response]:
    return await asyncio.gather(*(rig.verify(verification_id, code) for code in codes))


def outcomes(answers: list[httpx.Response]) -> dict[str, int]:
    """How often each code was answered; a success has none."""
    counted: dict[str, int] = {}
    for answer in answers:
        name = answer.json().get("code", "verified")
        counted[name] = counted.get(name, 0) + 1
    return counted


# --- F24: races ---------------------------------------------------------------------------------


async def test_f24_of_fifty_right_codes_at_once_one_is_right(rig: Rig) -> None:
    """(Seen to fail without the look at the status in `domain.verification.check`. Without the
    working copy that the decisions of a batch share, the log's key still holds.)"""
    verification_id, code = await sent_with_code(rig)
    answers = await all_at_once(rig, verification_id, *[code] * 50)
    ends = [row for row in rig.record(verification_id).log if row.attempt is None]

    assert {"verified": 1, "already_verified": 49} == outcomes(answers)
    assert [200] + [409] * 49 == sorted(answer.status_code for answer in answers)
    assert [Status.VERIFIED] == [row.after for row in ends]
    assert 1 == rig.record(verification_id).verification.checks_used


async def test_f24_of_two_hundred_wrong_codes_at_once_five_are_counted(rig: Rig) -> None:
    """(Seen to fail without LOCKED in `domain.verification.check`, and without the working copy
    that the decisions of a batch share.)"""
    verification_id, code = await sent_with_code(rig)
    answers = await all_at_once(rig, verification_id, *[wrong(code)] * 200)
    left = sorted(a.json()["checks_left"] for a in answers if a.status_code == 404)

    assert {"wrong_code": MAX_CHECKS, "checks_used_up": 195} == outcomes(answers)
    assert [0, 1, 2, 3, 4] == left
    assert MAX_CHECKS == rig.record(verification_id).verification.checks_used
    problem(await rig.verify(verification_id, code), 429, "checks_used_up")


@pytest.mark.parametrize("at", [0, 1, 4, 5, 6, 199])
@pytest.mark.sqlite
async def test_f24_a_right_code_among_wrong_ones_counts_by_its_place(rig: Rig, at: int) -> None:
    """Whatever the batch: five comparisons, and no more. (On PostgreSQL calls overtake each other
    on their way to the ledger: no place can be told.)"""
    verification_id, code = await sent_with_code(rig)
    codes = [wrong(code)] * 200
    codes[at] = code
    answers = await all_at_once(rig, verification_id, *codes)
    used = rig.record(verification_id).verification.checks_used
    expected = (
        {"verified": 1, "wrong_code": at, "already_verified": 199 - at}
        if at < MAX_CHECKS
        else {"wrong_code": 5, "checks_used_up": 195}
    )

    assert {name: times for name, times in expected.items() if times} == outcomes(answers)
    assert min(at + 1, MAX_CHECKS) == used


async def test_f24_checks_one_after_the_other_count_as_those_at_once(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    answers = [await rig.verify(verification_id, wrong(code)) for _ in range(8)]
    answers.append(await rig.verify(verification_id, code))

    assert {"wrong_code": 5, "checks_used_up": 4} == outcomes(answers)


async def test_f24_a_check_that_could_not_be_stored_told_nothing(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    await rig.gateway.ledger.close()
    answers = [await rig.verify(verification_id, one) for one in (code, wrong(code))]
    contents = {answer.content for answer in answers}

    assert [503, 503] == [answer.status_code for answer in answers]
    assert 1 == len(contents)
    assert 0 == rig.record(verification_id).verification.checks_used


async def test_f24_a_check_and_a_resend_at_once_leave_one_code_and_one_count(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    rig.clock.advance(COOL_DOWN)
    resent, checked = await asyncio.gather(
        rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"}),
        rig.verify(verification_id, wrong(code)),
    )
    await rig.settle()

    assert (202, 404) == (resent.status_code, checked.status_code)
    assert 1 == rig.record(verification_id).verification.checks_used
    assert 200 == (await rig.verify(verification_id, code)).status_code


# --- F25: budgets -------------------------------------------------------------------------------


async def test_f25_a_resend_does_not_refill_the_checks(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    await all_at_once(rig, verification_id, *[wrong(code)] * 3)
    rig.clock.advance(COOL_DOWN)
    resent = await rig.send(workflow="sms")

    assert 2 == resent["checks_left"]
    assert {"wrong_code": 2, "checks_used_up": 1} == outcomes(
        await all_at_once(rig, verification_id, *[wrong(code)] * 3)
    )


async def test_f25_a_fallback_does_not_refill_the_checks(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    await all_at_once(rig, verification_id, *[wrong(code)] * 3)
    await rig.reconcile(60)
    await rig.call("/otp/next", {"verification_id": verification_id})

    assert ["sms:SENT", "voice:SENT"] == rig.states(verification_id)
    assert 2 == rig.record(verification_id).verification.checks_left


async def spend(rig: Rig, count: int, to: str = NUMBER, key: str | None = None) -> None:
    """So many wrong checks for a number, over as many verifications as that takes."""
    left = count
    while left:
        body = {"to": to, "workflow": "sms_only"}
        answer = await rig.call("/otp/send", body, key=key)
        assert answer.status_code == 202, answer.text
        named = {"verification_id": answer.json()["verification_id"], "code": "x"}
        for _ in range(min(left, MAX_CHECKS)):
            assert (await rig.call("/otp/verify", named, key=key)).status_code == 404
            left -= 1
        await rig.settle()
        await rig.call("/otp/cancel", {"number": to}, key=key)
        rig.clock.advance(300)


async def test_f25_a_number_has_a_budget_of_wrong_checks_over_all_verifications(rig: Rig) -> None:
    await spend(rig, FAILURE_BUDGET - 1)
    verification_id, code = await sent_with_code(rig)
    last = await rig.verify(verification_id, wrong(code))
    answer = await rig.verify(verification_id, code)
    facts = problem(answer, 429, "failure_budget_used_up")

    assert 404 == last.status_code
    assert facts["retry_after"] == int(answer.headers["retry-after"])
    assert {"rule": "failures", "limit": FAILURE_BUDGET, "window": 3600, "remaining": 0} == {
        name: facts[name] for name in ("rule", "limit", "window", "remaining")
    }
    assert 1 == rig.record(verification_id).verification.checks_used


async def test_f25_with_its_budget_spent_a_number_gets_no_code(rig: Rig) -> None:
    await spend(rig, FAILURE_BUDGET)
    before = len(rig.transport.submissions)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
    facts = problem(answer, 429, "failure_budget_used_up")

    assert 3600 - 3 * 300 == facts["retry_after"]
    assert before == len(rig.transport.submissions)


async def test_f25_nor_a_resend_of_a_running_one(rig: Rig) -> None:
    await spend(rig, FAILURE_BUDGET - 1)
    verification_id, code = await sent_with_code(rig)
    await rig.verify(verification_id, wrong(code))
    rig.clock.advance(COOL_DOWN)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})

    problem(answer, 429, "failure_budget_used_up")


async def test_f25_the_budget_comes_back_an_hour_after_the_first_failure(rig: Rig) -> None:
    started = rig.clock.now()
    await spend(rig, FAILURE_BUDGET)
    left = (started + FAILURE_WINDOW - rig.clock.now()).total_seconds()
    rig.clock.advance(left - 0.001)
    early = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
    rig.clock.advance(0.001)
    timely = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})

    assert (429, "1") == (early.status_code, early.headers["retry-after"])
    assert 202 == timely.status_code


async def test_f25_a_budget_is_a_numbers_and_a_clients_own(rig: Rig) -> None:
    """Nobody can spend it for another client."""
    await spend(rig, FAILURE_BUDGET)
    stranger = await rig.client("stranger")
    other_number = await rig.call("/otp/send", {"to": OTHER, "workflow": "sms"})
    other_client = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"}, key=stranger)

    assert (202, 202) == (other_number.status_code, other_client.status_code)


async def test_f25_two_hundred_wrong_checks_at_once_do_not_overrun_the_budget(rig: Rig) -> None:
    """Two are left, and each of the batch sees what those before it spent (seen to fail without
    the counter in the working copy, and without the look at it in `verify.apply_check`)."""
    await spend(rig, FAILURE_BUDGET - 2)
    verification_id, code = await sent_with_code(rig)
    answers = await all_at_once(rig, verification_id, *[wrong(code)] * 200)

    assert {"wrong_code": 2, "failure_budget_used_up": 198} == outcomes(answers)
    assert 2 == rig.record(verification_id).verification.checks_used


async def test_f25_right_checks_spend_nothing(rig: Rig) -> None:
    for _ in range(FAILURE_BUDGET + 1):
        verification_id, code = await sent_with_code(rig)

        assert 200 == (await rig.verify(verification_id, code)).status_code
        rig.clock.advance(300)


async def test_f25_what_is_not_compared_is_not_counted(rig: Rig) -> None:
    """Ended ones are not compared: only the first five of each are."""
    verification_id, code = await sent_with_code(rig)
    await all_at_once(rig, verification_id, *[wrong(code)] * 200)
    counted = {key[:8]: count for key, _, count in rig.dump()["counter"]}

    assert MAX_CHECKS == counted[b"failures"]


async def test_f25_a_budget_outlives_a_restart(rig: Rig) -> None:
    key = rig.key
    await spend(rig, FAILURE_BUDGET)
    await rig.restart()

    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"}, key=key)
    problem(answer, 429, "failure_budget_used_up")


# --- F26: single use, and the end of life -------------------------------------------------------


async def test_f26_a_code_verifies_once_also_after_a_restart(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    key = rig.key
    await rig.verify(verification_id, code)
    await rig.restart()
    named = {"verification_id": verification_id, "code": code}
    again = [(await rig.call("/otp/verify", named, key=key)).status_code for _ in range(3)]

    assert [409, 409, 409] == again


async def test_f26_a_code_lives_to_the_last_millisecond(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    rig.clock.advance(299.999)

    assert 200 == (await rig.verify(verification_id, code)).status_code


async def test_f26_and_not_one_more(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    rig.clock.advance(300)

    problem(await rig.verify(verification_id, code), 410, "expired")
    assert 0 == rig.record(verification_id).verification.checks_used


async def test_a_code_of_a_verification_before_is_wrong(rig: Rig) -> None:
    _, old = await sent_with_code(rig, code_length=10)
    rig.clock.advance(300)
    verification_id, _ = await sent_with_code(rig, code_length=10)

    problem(await rig.verify(verification_id, old), 404, "wrong_code")


async def test_f12_a_code_reported_as_not_delivered_verifies(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig, workflow="sms_only")
    await rig.octopush_receipt(rig.transport.submissions[0], "NOT_DELIVERED")

    assert 200 == (await rig.verify(verification_id, code)).status_code


async def test_f12_a_code_whose_outcome_is_unknown_verifies(rig: Rig) -> None:
    rig.transport.script("sms-campaign", *[raising(Lost("timeout"))] * 3)
    verification_id, code = await sent_with_code(rig)

    assert State.SENT is rig.attempts(verification_id)[0].state
    assert 200 == (await rig.verify(verification_id, code)).status_code


# --- What a right code proves -------------------------------------------------------------------


async def test_a_right_code_marks_the_one_attempt_that_carried_it(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    rig.clock.advance(7)
    await rig.verify(verification_id, code)
    (attempt,) = rig.attempts(verification_id)
    marked, ended = rig.record(verification_id).log[-2:]

    assert (State.DELIVERED, rig.clock.now()) == (attempt.state, attempt.delivered_at)
    assert (1, State.SENT, State.DELIVERED, Source.CHECK) == (
        marked.attempt,
        marked.before,
        marked.after,
        marked.source,
    )
    assert (None, Status.VERIFIED, Source.CHECK) == (ended.attempt, ended.after, ended.source)


async def test_a_right_code_marks_none_of_two_that_may_have_carried_it(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    await rig.reconcile(60)
    answer = await rig.verify(verification_id, code)

    assert ["sms:SENT", "voice:SENT"] == rig.states(verification_id)
    assert "DELIVERED" == answer.json()["delivery_status"]


async def test_a_refused_attempt_cannot_have_carried_it(rig: Rig) -> None:
    rig.transport.script("messages", answering(404, {"error": "not_a_user"}))
    verification_id, code = await sent_with_code(rig, workflow="default")
    await rig.verify(verification_id, code)

    assert ["messenger:FAILED", "sms:DELIVERED"] == rig.states(verification_id)


async def test_a_failed_one_may_have_carried_it(rig: Rig) -> None:
    """Receipts of failure are often wrong: of two nobody knows which arrived."""
    sent = await rig.send(workflow="sms")
    (sms,) = rig.transport.submissions
    await rig.octopush_receipt(sms, "NOT_DELIVERED")
    await rig.settle()
    await rig.verify(sent["verification_id"], sms.code)

    assert ["sms:FAILED", "voice:SENT"] == rig.states(sent["verification_id"])


async def test_a_single_failed_one_is_proved_delivered(rig: Rig) -> None:
    sent = await rig.send(workflow="sms_only")
    (sms,) = rig.transport.submissions
    await rig.octopush_receipt(sms, "NOT_DELIVERED")
    await rig.verify(sent["verification_id"], sms.code)

    assert ["sms:DELIVERED"] == rig.states(sent["verification_id"])


async def test_a_read_one_stays_read(rig: Rig) -> None:
    sent = await rig.send(workflow="messenger_only")
    (message,) = rig.transport.submissions
    await rig.messenger_receipt(message, "read")
    answer = await rig.verify(sent["verification_id"], message.code)

    assert ["messenger:READ"] == rig.states(sent["verification_id"])
    assert "READ" == answer.json()["delivery_status"]


async def test_a_code_typed_before_the_provider_answered_proves_it_too(rig: Rig) -> None:
    gate = Gate(accept)
    rig.transport.script("sms-campaign", gate)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
    verification_id = answer.json()["verification_id"]
    await gate.reached.wait()
    checked = await rig.verify(verification_id, rig.transport.submissions[0].code)
    gate.opened.set()
    await rig.settle()

    assert 200 == checked.status_code
    assert ["sms:DELIVERED"] == rig.states(verification_id)
    assert rig.attempts(verification_id)[0].reference is not None


async def accept(submission: Submission) -> httpx.Response:
    return FakeTransport().accept(submission)


async def test_a_wrong_code_marks_nothing(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    await rig.verify(verification_id, wrong(code))

    assert ["sms:SENT"] == rig.states(verification_id)


async def test_a_right_code_drops_the_pending_fallback(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    rig.clock.advance(59)
    await rig.verify(verification_id, code)
    for _ in range(5):
        await rig.reconcile(60)

    assert 1 == len(rig.transport.submissions)
    assert rig.record(verification_id).verification.wake_at is None


async def test_a_right_code_drops_a_pending_retry(rig: Rig) -> None:
    """The first was reported lost and arrived; the one after it was refused and is not repeated."""
    rig.transport.script("voice-campaign", raising(NotSent("connect_error")))
    sent = await rig.send(workflow="sms")
    (sms,) = rig.transport.submissions
    await rig.octopush_receipt(sms, "NOT_DELIVERED")
    await rig.settle()
    before = len(rig.transport.submissions)
    await rig.verify(sent["verification_id"], sms.code)
    await rig.reconcile(5)

    assert before == len(rig.transport.submissions)


# --- A caller's own code ------------------------------------------------------------------------


async def test_an_own_code_is_kept_encrypted_while_it_lives(rig: Rig) -> None:
    verification_id, _ = await sent_with_code(rig, code="8305174629")
    sealed = rig.record(verification_id).verification.code_sealed

    assert sealed is not None
    assert b"8305174629" not in sealed
    assert "8305174629" not in str(rig.dump())


async def test_an_own_code_verifies_after_a_restart_and_over_a_fallback(rig: Rig) -> None:
    verification_id, _ = await sent_with_code(rig, code="83051746")
    key = rig.key
    await rig.restart()
    await rig.reconcile(60)
    (call,) = rig.transport.to("voice-campaign")
    named = {"verification_id": verification_id, "code": "83051746"}
    answer = await rig.call("/otp/verify", named, key=key)

    assert "8, 3, 0, 5, 1, 7, 4, 6" in call.text
    assert 200 == answer.status_code


@pytest.mark.parametrize("status", [one for one in Status if one is not Status.PENDING])
async def test_an_own_code_is_erased_at_the_end(rig: Rig, status: Status) -> None:
    if status is Status.FAILED:
        rig.transport.script("campaign", *[answering(400, {"code": 110})] * 2)
    verification_id, _ = await sent_with_code(rig, workflow="sms_only", code="83051746")
    match status:
        case Status.VERIFIED:
            await rig.verify(verification_id, "83051746")
        case Status.CANCELED:
            await rig.call("/otp/cancel", {"verification_id": verification_id})
        case Status.LOCKED:
            await all_at_once(rig, verification_id, *["0000"] * 5)
        case Status.EXPIRED:
            await rig.reconcile(300)

    assert status is rig.status(verification_id)
    assert rig.record(verification_id).verification.code_sealed is None


async def test_after_the_end_an_own_code_is_told_as_any_other(rig: Rig) -> None:
    verification_id, _ = await sent_with_code(rig, code="83051746")
    await rig.verify(verification_id, "83051746")

    problem(await rig.verify(verification_id, "83051746"), 409, "already_verified")
    problem(await rig.verify(verification_id, "00000000"), 409, "already_verified")


async def test_a_code_that_is_part_of_the_right_one_is_wrong(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig, code_length=8)
    for typed in (code[:4], code[:7], code[1:], f"0{code}"):
        problem(await rig.verify(verification_id, typed), 404, "wrong_code")

    assert 200 == (await rig.verify(verification_id, code)).status_code
