"""POST /otp/cancel and /otp/next: stop it, or do not wait for the next step."""

import asyncio
from typing import Any

import httpx
import pytest
from fakes import FakeTransport, Gate, Submission, answering
from rig import NUMBER, Rig, problem

from gateway.domain.verification import NEXT_PAUSE, Status

SUMMARY = {
    "verification_id",
    "reference",
    "status",
    "delivery_status",
    "channel",
    "next",
    "expires_at",
    "checks_left",
    "sends_left",
}


async def cancel(rig: Rig, verification_id: str) -> httpx.Response:
    return await rig.call("/otp/cancel", {"verification_id": verification_id})


async def send_next(rig: Rig, verification_id: str) -> httpx.Response:
    answer = await rig.call("/otp/next", {"verification_id": verification_id})
    await rig.settle()
    return answer


async def ended(rig: Rig, status: Status) -> str:
    """A verification that ended so."""
    if status is Status.FAILED:
        rig.transport.script("campaign", *[answering(400, {"code": 110})] * 2)
    verification_id: str = (await rig.send(workflow="sms"))["verification_id"]
    code = rig.transport.submissions[0].code
    match status:
        case Status.VERIFIED:
            await rig.verify(verification_id, code)
        case Status.CANCELED:
            await cancel(rig, verification_id)
        case Status.LOCKED:
            for _ in range(5):
                await rig.verify(verification_id, "x")
        case Status.EXPIRED:
            rig.clock.advance(300)
    return verification_id


# --- Cancel -------------------------------------------------------------------------------------


async def test_a_canceled_verification_is_answered_as_it_is_now(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    answer = await cancel(rig, sent["verification_id"])
    body = answer.json()

    assert 200 == answer.status_code
    assert SUMMARY == body.keys()
    assert ("CANCELED", "SENT", None) == (body["status"], body["delivery_status"], body["next"])


async def test_twice_is_200_twice_and_once_in_the_log(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    first = await cancel(rig, sent["verification_id"])
    before = rig.dump()
    rig.clock.advance(400)
    second = await cancel(rig, sent["verification_id"])

    assert (200, 200) == (first.status_code, second.status_code)
    assert first.content == second.content
    assert before == rig.dump()


@pytest.mark.parametrize(
    ("status", "code", "name"),
    [
        (Status.VERIFIED, 409, "already_verified"),
        (Status.EXPIRED, 410, "expired"),
        (Status.LOCKED, 429, "checks_used_up"),
        (Status.FAILED, 410, "failed"),
    ],
)
async def test_what_ended_otherwise_cannot_be_canceled(
    rig: Rig, status: Status, code: int, name: str
) -> None:
    verification_id = await ended(rig, status)
    facts = problem(await cancel(rig, verification_id), code, name)

    assert status == facts["verification_status"]


async def test_after_cancel_nothing_more_is_sent_and_the_code_is_gone(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    (sms,) = rig.transport.submissions
    await cancel(rig, sent["verification_id"])
    for _ in range(5):
        await rig.reconcile(60)

    assert [sms] == rig.transport.submissions
    problem(await rig.verify(sent["verification_id"], sms.code), 410, "canceled")


async def test_a_receipt_after_cancel_is_recorded_and_sends_nothing(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    (sms,) = rig.transport.submissions
    await cancel(rig, sent["verification_id"])
    receipt = await rig.octopush_receipt(sms, "NOT_DELIVERED")
    await rig.reconcile(60)

    assert 200 == receipt.status_code
    assert ["sms:FAILED"] == rig.states(sent["verification_id"])
    assert Status.CANCELED is rig.status(sent["verification_id"])
    assert 1 == len(rig.transport.submissions)


async def test_cancel_while_the_message_is_on_the_wire(rig: Rig) -> None:
    """It is not recalled: its outcome is recorded, its code answers 410."""
    gate = Gate(accept)
    rig.transport.script("sms-campaign", gate)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
    verification_id = answer.json()["verification_id"]
    await gate.reached.wait()
    canceled = await cancel(rig, verification_id)
    gate.opened.set()
    await rig.settle()

    assert 200 == canceled.status_code
    assert ["sms:SENT"] == rig.states(verification_id)
    assert rig.attempts(verification_id)[0].reference is not None
    problem(await rig.verify(verification_id, rig.transport.submissions[0].code), 410, "canceled")


async def accept(submission: Submission) -> httpx.Response:
    return FakeTransport().accept(submission)


async def test_fifty_cancels_and_the_right_code_at_once_end_it_once(rig: Rig) -> None:
    """One of them comes first; nobody is told both (seen to fail without the look at the status in
    `verify.apply_cancel`)."""
    sent = await rig.send(workflow="sms")
    verification_id = sent["verification_id"]
    code = rig.transport.submissions[0].code
    answers = await asyncio.gather(
        *(cancel(rig, verification_id) for _ in range(25)),
        rig.verify(verification_id, code),
        *(cancel(rig, verification_id) for _ in range(25)),
    )
    checked = answers.pop(25)
    status = rig.status(verification_id)

    assert status in {Status.VERIFIED, Status.CANCELED}
    assert (200 if status is Status.VERIFIED else 410) == checked.status_code
    if status is Status.VERIFIED:
        assert any(answer.status_code == 409 for answer in answers)
    ends = [row for row in rig.record(verification_id).log if row.attempt is None]
    assert 1 == len(ends)


# --- Next ---------------------------------------------------------------------------------------


async def test_the_next_step_goes_out_at_once(rig: Rig) -> None:
    sent = await rig.send()
    rig.clock.advance(5)
    answer = await send_next(rig, sent["verification_id"])
    body = answer.json()
    codes = {submission.code for submission in rig.transport.submissions}

    assert 202 == answer.status_code
    assert SUMMARY == body.keys()
    assert ("PENDING", "sms", 4) == (body["status"], body["channel"], body["sends_left"])
    assert ["messenger:SENT", "sms:SENT"] == rig.states(sent["verification_id"])
    assert "next" == rig.attempts(sent["verification_id"])[1].cause
    assert 1 == len(codes)


async def test_the_last_step_has_no_next(rig: Rig) -> None:
    sent = await rig.send()
    answers = []
    for _ in range(3):
        answers.append(await send_next(rig, sent["verification_id"]))
        rig.clock.advance(NEXT_PAUSE)

    assert [202, 202, 409] == [answer.status_code for answer in answers]
    assert {} == problem(answers[2], 409, "no_step_left")
    assert 3 == len(rig.transport.submissions)


async def test_a_satisfied_step_is_left_when_asked(rig: Rig) -> None:
    """A receipt says delivered; the person says that nothing came."""
    sent = await rig.send(workflow="sms")
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    answer = await send_next(rig, sent["verification_id"])

    assert 202 == answer.status_code
    assert ["sms:DELIVERED", "voice:SENT"] == rig.states(sent["verification_id"])


async def test_too_late_to_be_typed_is_too_late_for_a_next_step(rig: Rig) -> None:
    sent = await rig.send(workflow="sms", ttl=90)
    rig.clock.advance(60.001)
    answer = await send_next(rig, sent["verification_id"])

    assert {} == problem(answer, 409, "too_late")
    assert 1 == len(rig.transport.submissions)


async def test_thirty_seconds_of_life_are_enough_for_a_next_step(rig: Rig) -> None:
    sent = await rig.send(workflow="sms", ttl=90)
    rig.clock.advance(60)

    assert 202 == (await send_next(rig, sent["verification_id"])).status_code


@pytest.mark.parametrize(
    ("status", "code", "name"),
    [
        (Status.VERIFIED, 409, "already_verified"),
        (Status.EXPIRED, 410, "expired"),
        (Status.CANCELED, 410, "canceled"),
        (Status.LOCKED, 429, "checks_used_up"),
        (Status.FAILED, 410, "failed"),
    ],
)
async def test_an_ended_one_has_no_next(rig: Rig, status: Status, code: int, name: str) -> None:
    verification_id = await ended(rig, status)
    before = len(rig.transport.submissions)
    facts = problem(await send_next(rig, verification_id), code, name)

    assert status == facts["verification_status"]
    assert before == len(rig.transport.submissions)


async def test_next_works_while_the_step_before_is_on_the_wire(rig: Rig) -> None:
    """Patience does not run then, but who asks is served (rule 2)."""
    gate = Gate(accept)
    rig.transport.script("sms-campaign", gate)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
    verification_id = answer.json()["verification_id"]
    await gate.reached.wait()
    following = await rig.call("/otp/next", {"verification_id": verification_id})
    gate.opened.set()
    await rig.settle()

    assert 202 == following.status_code
    assert ["sms:SENT", "voice:SENT"] == rig.states(verification_id)


async def test_twenty_nexts_at_once_go_one_step_each_and_no_further(rig: Rig) -> None:
    """F6: each decision sees those before it (seen to fail without the working copy that a batch
    shares), and what was asked for is waited for."""
    sent = await rig.send()
    named = {"verification_id": sent["verification_id"]}
    answers = await asyncio.gather(*(rig.call("/otp/next", named) for _ in range(20)))
    await rig.settle()

    assert [202] + [429] * 19 == sorted(answer.status_code for answer in answers)
    assert ["messenger:SENT", "sms:SENT"] == rig.states(sent["verification_id"])
    assert 2 == len(rig.transport.submissions)


async def test_a_double_click_is_one_step(rig: Rig) -> None:
    sent = await rig.send()
    first = await send_next(rig, sent["verification_id"])
    rig.clock.advance(1)
    second = await send_next(rig, sent["verification_id"])
    rig.clock.advance(NEXT_PAUSE - 1)
    third = await send_next(rig, sent["verification_id"])
    facts = problem(second, 429, "cool_down")

    assert (202, 202) == (first.status_code, third.status_code)
    assert ("9", "cool_down") == (second.headers["retry-after"], facts["rule"])
    assert ["messenger:SENT", "sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])


# --- Both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "status"), [("/otp/cancel", 200), ("/otp/next", 202)])
@pytest.mark.parametrize("named", [{"reference": "o-1"}, {"number": NUMBER}])
async def test_they_take_a_reference_or_a_number_too(
    rig: Rig, path: str, status: int, named: dict[str, str]
) -> None:
    sent = await rig.send(workflow="sms", reference="o-1")
    answer = await rig.call(path, named)
    await rig.settle()

    assert status == answer.status_code
    assert sent["verification_id"] == answer.json()["verification_id"]


@pytest.mark.parametrize("path", ["/otp/cancel", "/otp/next"])
async def test_what_is_not_there_is_404(rig: Rig, path: str) -> None:
    for named in (
        {"verification_id": "01890000-0000-7000-8000-000000000000"},
        {"reference": "never"},
        {"number": NUMBER},
    ):
        assert {} == problem(await rig.call(path, named), 404, "verification_not_found")


@pytest.mark.parametrize("path", ["/otp/cancel", "/otp/next"])
@pytest.mark.parametrize("named", [{}, {"verification_id": "x", "reference": "y"}])
async def test_exactly_one_is_named(rig: Rig, path: str, named: dict[str, Any]) -> None:
    problem(await rig.call(path, named), 400, "invalid_request")
