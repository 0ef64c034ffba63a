"""POST /otp/verify: each answer with its own code, and which verification is meant."""

from typing import Any

import pytest
from fakes import answering
from rig import NUMBER, Rig, problem

from gateway.domain.verification import COOL_DOWN, MAX_CHECKS, Status

OTHER = "+33612345679"


def wrong(code: str) -> str:
    """Another code of the same length."""
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}}"


async def sent_with_code(rig: Rig, to: str = NUMBER, **more: Any) -> tuple[str, str]:
    """A verification by SMS, and its code as the handset shows it."""
    sent = await rig.send(to, workflow="sms", **more)
    return sent["verification_id"], rig.transport.submissions[-1].code


# --- The answers --------------------------------------------------------------------------------


async def test_the_right_code_is_200(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig, reference="o-1")
    answer = await rig.verify(verification_id, code)

    assert 200 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert {
        "verification_id": verification_id,
        "reference": "o-1",
        "status": "VERIFIED",
        "delivery_status": "DELIVERED",
        "channel": "sms",
        "next": None,
        "expires_at": "2026-11-21T12:05:00Z",
        "checks_left": 4,
        "sends_left": 4,
    } == answer.json()


async def test_a_wrong_code_is_404_and_says_how_many_checks_are_left(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    answer = await rig.verify(verification_id, wrong(code))

    assert {"checks_left": 4, "verification_status": "PENDING"} == problem(
        answer, 404, "wrong_code"
    )


async def test_an_unknown_verification_is_404_with_another_code(rig: Rig) -> None:
    for named in (
        {"verification_id": "01890000-0000-7000-8000-000000000000"},
        {"reference": "never"},
        {"number": NUMBER},
    ):
        answer = await rig.call("/otp/verify", {**named, "code": "123456"})

        assert {} == problem(answer, 404, "verification_not_found")


async def test_the_right_code_a_second_time_is_409(rig: Rig) -> None:
    """F26: single use."""
    verification_id, code = await sent_with_code(rig)
    await rig.verify(verification_id, code)

    for again in (code, wrong(code)):
        answer = await rig.verify(verification_id, again)

        assert {"checks_left": 4, "verification_status": "VERIFIED"} == problem(
            answer, 409, "already_verified"
        )


async def test_an_expired_one_is_410(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    rig.clock.advance(300)

    for any_code in (code, wrong(code)):
        answer = await rig.verify(verification_id, any_code)

        assert {"checks_left": 5, "verification_status": "EXPIRED"} == problem(
            answer, 410, "expired"
        )
    assert Status.EXPIRED is rig.status(verification_id)


async def test_a_canceled_one_is_410(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    await rig.call("/otp/cancel", {"verification_id": verification_id})
    answer = await rig.verify(verification_id, code)

    assert {"checks_left": 5, "verification_status": "CANCELED"} == problem(answer, 410, "canceled")


async def test_one_that_nobody_took_is_410(rig: Rig) -> None:
    rig.transport.script("campaign", *[answering(400, {"code": 110})] * 2)
    sent = await rig.send(workflow="sms")
    answer = await rig.verify(sent["verification_id"], "000000")

    assert {"checks_left": 5, "verification_status": "FAILED"} == problem(answer, 410, "failed")


async def test_f26_five_checks_are_five_checks(rig: Rig) -> None:
    """The fifth wrong one is still compared; from the sixth on, even the right code is refused."""
    verification_id, code = await sent_with_code(rig)
    left = [
        problem(await rig.verify(verification_id, wrong(code)), 404, "wrong_code")["checks_left"]
        for _ in range(MAX_CHECKS)
    ]

    assert [4, 3, 2, 1, 0] == left
    for any_code in (wrong(code), code):
        answer = await rig.verify(verification_id, any_code)

        assert {"checks_left": 0, "verification_status": "LOCKED"} == problem(
            answer, 429, "checks_used_up"
        )


async def test_f26_the_fifth_check_may_be_the_right_one(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig)
    for _ in range(MAX_CHECKS - 1):
        await rig.verify(verification_id, wrong(code))
    answer = await rig.verify(verification_id, code)

    assert (200, 0) == (answer.status_code, answer.json()["checks_left"])


async def test_no_answer_repeats_what_was_typed_or_tells_the_code(rig: Rig) -> None:
    verification_id, code = await sent_with_code(rig, code_length=10)
    wrong_code = await rig.verify(verification_id, wrong(code))
    right_code = await rig.verify(verification_id, code)

    for answer in (wrong_code, right_code):
        for secret in (code, wrong(code), NUMBER[1:]):
            assert secret not in answer.text


# --- The body -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [None, "", 123456, "1" * 33, ["123456"], True])
async def test_a_code_is_a_short_string(rig: Rig, code: object) -> None:
    verification_id, _ = await sent_with_code(rig)
    answer = await rig.call("/otp/verify", {"verification_id": verification_id, "code": code})

    assert "code" == problem(answer, 400, "invalid_request")["errors"][0]["field"]
    assert 0 == rig.record(verification_id).verification.checks_used


async def test_a_code_is_required(rig: Rig) -> None:
    verification_id, _ = await sent_with_code(rig)
    answer = await rig.call("/otp/verify", {"verification_id": verification_id})

    assert "code" == problem(answer, 400, "invalid_request")["errors"][0]["field"]


@pytest.mark.parametrize(
    "typed",
    ["12345", "1234567", "0", "abcdef", "\uff11\uff12\uff13\uff14\uff15\uff16", "12 34 56", "💥"],
)
async def test_a_code_of_another_form_is_wrong_and_counted(rig: Rig, typed: str) -> None:
    verification_id, _ = await sent_with_code(rig)
    answer = await rig.verify(verification_id, typed)

    assert 4 == problem(answer, 404, "wrong_code")["checks_left"]


async def test_leading_zeros_count(rig: Rig) -> None:
    verification_id, _ = await sent_with_code(rig, code="0042")

    problem(await rig.verify(verification_id, "42"), 404, "wrong_code")
    assert 200 == (await rig.verify(verification_id, "0042")).status_code


@pytest.mark.parametrize(
    "named", [{}, {"verification_id": "x", "number": NUMBER}, {"reference": "a", "number": NUMBER}]
)
async def test_exactly_one_verification_is_named(rig: Rig, named: dict[str, str]) -> None:
    problem(await rig.call("/otp/verify", {**named, "code": "123456"}), 400, "invalid_request")


async def test_history_is_no_field_of_it(rig: Rig) -> None:
    answer = await rig.call("/otp/verify", {"number": NUMBER, "code": "123456", "history": 1})

    assert {"fields": ["history"]} == problem(answer, 400, "unknown_field")


# --- Which one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "named", [{"reference": "o-1"}, {"number": NUMBER}, {"number": "0033 6 12 34 56 78"}]
)
async def test_a_verification_is_found_by_reference_or_number(
    rig: Rig, named: dict[str, str]
) -> None:
    verification_id, code = await sent_with_code(rig, reference="o-1")
    answer = await rig.call("/otp/verify", {**named, "code": code})

    assert (200, verification_id) == (answer.status_code, answer.json()["verification_id"])


async def test_of_a_number_the_running_one_is_meant(rig: Rig) -> None:
    _, old = await sent_with_code(rig, code_length=10)
    await rig.call("/otp/cancel", {"number": NUMBER})
    rig.clock.advance(600)
    running, code = await sent_with_code(rig, code_length=10)
    by_old = await rig.call("/otp/verify", {"number": NUMBER, "code": old})
    by_new = await rig.call("/otp/verify", {"number": NUMBER, "code": code})

    problem(by_old, 404, "wrong_code")
    assert (200, running) == (by_new.status_code, by_new.json()["verification_id"])


async def test_of_a_number_without_a_running_one_the_latest_is_meant(rig: Rig) -> None:
    _, first = await sent_with_code(rig)
    await rig.call("/otp/verify", {"number": NUMBER, "code": first})
    rig.clock.advance(600)
    _, second = await sent_with_code(rig)
    await rig.call("/otp/cancel", {"number": NUMBER})
    answer = await rig.call("/otp/verify", {"number": NUMBER, "code": second})

    problem(answer, 410, "canceled")


async def test_numbers_do_not_answer_for_each_other(rig: Rig) -> None:
    await sent_with_code(rig)
    _, code = await sent_with_code(rig, OTHER, code_length=10)

    problem(await rig.call("/otp/verify", {"number": NUMBER, "code": code}), 404, "wrong_code")
    assert 200 == (await rig.call("/otp/verify", {"number": OTHER, "code": code})).status_code


@pytest.mark.parametrize("path", ["/otp/verify", "/otp/cancel", "/otp/next"])
async def test_of_a_reference_that_repeats_the_newest_is_meant(rig: Rig, path: str) -> None:
    """Design §7: `reference` (the newest is meant when it repeats). The older one runs on."""
    older, _ = await sent_with_code(rig, reference="o-1")
    rig.clock.advance(1)
    newer, code = await sent_with_code(rig, OTHER, reference="o-1")
    await rig.verify(newer, code)
    before = rig.record(older)
    body = {"reference": "o-1"} | ({"code": code} if path == "/otp/verify" else {})
    shown = await rig.call("/otp/status", {"reference": "o-1"})
    answer = await rig.call(path, body)

    assert newer == shown.json()["verification_id"]
    problem(answer, 409, "already_verified")
    assert before == rig.record(older)


async def test_every_code_that_left_verifies_until_the_end(rig: Rig) -> None:
    """F12: resend, fallback and a failed resend leave the code as it was."""
    verification_id, code = await sent_with_code(rig, code_length=8)
    rig.clock.advance(COOL_DOWN)
    rig.transport.script("sms-campaign", answering(400, {"code": 110}))
    await rig.send(workflow="sms")
    codes = {submission.code for submission in rig.transport.to("sms-campaign")}
    answer = await rig.verify(verification_id, code)

    assert {code} == codes
    assert 200 == answer.status_code
