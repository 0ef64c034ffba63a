"""POST /otp/send: what may be asked for, what comes back, and what a repeated request means."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from fakes import Clock, FakeTransport, answering
from rig import NUMBER, Rig, make_settings, problem

from gateway.domain.verification import COOL_DOWN, MAX_SENDS, Status

ANSWER = {
    "verification_id",
    "reference",
    "status",
    "delivery_status",
    "channel",
    "next",
    "expires_at",
    "checks_left",
    "sends_left",
    "joined",
    "verification_key",
}


async def refused(rig: Rig, expected: str, /, **body: Any) -> dict[str, Any]:
    """The facts of a 400, after which nothing is stored and nobody was called."""
    before = rig.dump()
    facts = problem(await rig.call("/otp/send", body), 400, expected)

    assert before == rig.dump()
    assert [] == rig.transport.submissions
    return facts


# --- The answer ---------------------------------------------------------------------------------


async def test_a_request_is_answered_with_the_verification_as_it_was_stored(rig: Rig) -> None:
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms", "reference": "o-1"})
    body = answer.json()
    verification_id = body.pop("verification_id")
    body.pop("verification_key")

    assert 202 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert {
        "reference": "o-1",
        "status": "PENDING",
        "delivery_status": "QUEUED",
        "channel": "sms",
        "next": {"action": "send", "at": "2026-11-21T12:01:00Z", "channel": "voice"},
        "expires_at": "2026-11-21T12:05:00Z",
        "checks_left": 5,
        "sends_left": 4,
        "joined": False,
    } == body
    assert Status.PENDING is rig.status(verification_id)


async def test_the_answer_has_these_members_and_never_the_code(rig: Rig) -> None:
    answer = await rig.call("/otp/send", {"to": NUMBER})
    await rig.settle()

    assert ANSWER == answer.json().keys()
    assert rig.transport.submissions[0].code not in answer.text
    assert NUMBER[1:] not in answer.text


async def test_the_answer_leaves_before_the_provider_is_called(rig: Rig) -> None:
    async def look(_: object) -> Any:
        assert [0] == [one.verification.checks_used for one in stored()]
        return FakeTransport().accept(rig.transport.submissions[-1])

    def stored() -> Any:
        return rig.reads.records(rig.reads.latest(1))

    rig.transport.script("sms-campaign", look)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})

    assert 202 == answer.status_code
    assert "QUEUED" == answer.json()["delivery_status"]
    await rig.settle()
    assert ["sms:SENT"] == rig.states(answer.json()["verification_id"])


async def test_ids_are_version_7_and_hold_74_random_bits(rig: Rig) -> None:
    """F45: whoever holds one id learns nothing of the next, made in the same millisecond."""
    ids = [UUID((await rig.send(f"+336123456{n:02}"))["verification_id"]) for n in range(40)]
    random = [one.int & ((1 << 62) - 1) for one in ids]
    ones = sum(number.bit_count() for number in random)

    assert {7} == {one.version for one in ids}
    assert 1 == len({one.int >> 80 for one in ids})
    assert 40 == len({number >> 30 for number in random})
    assert 40 * 62 * 0.4 < ones < 40 * 62 * 0.6


# --- to -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelled",
    [
        "+33612345678",
        "33612345678",
        "0033612345678",
        "+33 6 12 34 56 78",
        "+33-6-12-34-56-78",
        "+33 (0)6 12 34 56 78",
        " +33612345678 ",
    ],
)
async def test_a_number_is_sent_to_in_e164_however_it_is_spelled(rig: Rig, spelled: str) -> None:
    await rig.send(spelled, workflow="sms")

    assert [{"phone_number": NUMBER}] == rig.transport.submissions[0].body["recipients"]


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "0612345678",
        "+33612",
        "+336123456789",
        "+999612345678",
        "+33612345678 and more",
        "+",
        "☎",
        "\u0000",
        "ops@example.com",
    ],
)
async def test_what_is_no_number_is_refused_without_being_repeated(rig: Rig, text: str) -> None:
    answer = await rig.call("/otp/send", {"to": text})

    assert {} == problem(answer, 400, "recipient_invalid")
    assert len(text) < 3 or text not in answer.json()["detail"]
    assert [] == rig.transport.submissions


@pytest.mark.parametrize(
    ("number", "kind"),
    [("+33899123456", "premium-rate"), ("+881612345678", "satellite or international-network")],
)
async def test_numbers_that_cost_a_fortune_are_refused_by_kind(
    rig: Rig, number: str, kind: str
) -> None:
    assert {"kind": kind} == await refused(rig, "recipient_refused", to=number)


async def test_national_form_needs_a_default_region(
    tmp_path: Path, migrated: Path, clock: Clock
) -> None:
    settings = replace(make_settings(tmp_path), default_region="FR")
    async with Rig(tmp_path, migrated, clock, settings=settings) as rig:
        await rig.send("06 12 34 56 78", workflow="sms")

        assert [{"phone_number": NUMBER}] == rig.transport.submissions[0].body["recipients"]


@pytest.mark.parametrize(
    "value",
    [33612345678, None, True, [NUMBER], {"phone": 33612345678}, "", "+33612345678" + " " * 60],
)
async def test_to_is_a_short_string_or_addresses_by_kind(rig: Rig, value: object) -> None:
    facts = await refused(rig, "invalid_request", to=value)

    assert {"to"} == {error["field"].split(".")[0] for error in facts["errors"]}


async def test_to_is_required(rig: Rig) -> None:
    facts = await refused(rig, "invalid_request", workflow="sms")

    assert [{"field": "to", "problem": "Field required"}] == facts["errors"]


# --- workflow and channel -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "channel"),
    [
        ({}, "messenger"),
        ({"workflow": "default"}, "messenger"),
        ({"workflow": "sms"}, "sms"),
        ({"channel": "sms"}, "sms"),
        ({"channel": "voice"}, "voice"),
        ({"channel": "messenger"}, "messenger"),
    ],
)
async def test_workflow_or_channel_says_where_it_begins(
    rig: Rig, body: dict[str, str], channel: str
) -> None:
    sent = await rig.send(**body)

    assert channel == sent["channel"]
    assert [channel] == [one.channel for one in rig.attempts(sent["verification_id"])]


async def test_f41_a_channel_asked_for_by_name_is_never_left_for_another(rig: Rig) -> None:
    sent = await rig.send(channel="messenger")
    (message,) = rig.transport.submissions
    await rig.messenger_receipt(message, "failed")
    await rig.reconcile(200)

    assert ["messenger:FAILED"] == rig.states(sent["verification_id"])
    assert 1 == len(rig.transport.submissions)
    assert 200 == (await rig.verify(sent["verification_id"], message.code)).status_code


async def test_an_unknown_workflow_is_refused_with_those_there_are(rig: Rig) -> None:
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "nope"})

    problem(answer, 400, "unknown_workflow")
    assert "default, low_cost, messenger_only, sms, sms_only" in answer.json()["detail"]
    assert "nope" not in answer.json()["detail"]


async def test_an_unknown_channel_is_refused_with_those_there_are(rig: Rig) -> None:
    answer = await rig.call("/otp/send", {"to": NUMBER, "channel": "pigeon"})

    problem(answer, 400, "unknown_channel")
    assert "messenger, sms, voice" in answer.json()["detail"]


async def test_workflow_and_channel_together_are_refused(rig: Rig) -> None:
    assert {} == await refused(rig, "invalid_request", to=NUMBER, workflow="sms", channel="sms")


# --- code_length and own code -------------------------------------------------------------------


@pytest.mark.parametrize("length", range(4, 11))
async def test_a_code_has_the_length_asked_for_and_verifies(rig: Rig, length: int) -> None:
    sent = await rig.send(workflow="sms", code_length=length)
    code = rig.transport.submissions[0].code

    assert length == len(code)
    assert 200 == (await rig.verify(sent["verification_id"], code)).status_code


async def test_a_code_has_six_digits_unless_asked_otherwise(rig: Rig) -> None:
    await rig.send(workflow="sms")

    assert 6 == len(rig.transport.submissions[0].code)


@pytest.mark.parametrize("length", [3, 11, 0, -6, "6", 6.5, True, [6], 2**64 - 1])
async def test_a_code_length_out_of_range_or_of_another_type_is_refused(
    rig: Rig, length: object
) -> None:
    facts = await refused(rig, "invalid_request", to=NUMBER, code_length=length)

    assert "code_length" == facts["errors"][0]["field"]


@pytest.mark.parametrize("code", ["0000", "123456", "0123456789"])
async def test_a_callers_own_code_is_what_is_sent(rig: Rig, code: str) -> None:
    sent = await rig.send(workflow="sms", code=code)

    assert code == rig.transport.submissions[0].code
    assert len(code) == rig.record(sent["verification_id"]).verification.code_length


@pytest.mark.parametrize(
    "code", ["123", "12345678901", "12 34", "abcdef", "", "١٢٣٤٥٦", "123456\n", 123456, ["1234"]]
)
async def test_an_own_code_is_four_to_ten_digits(rig: Rig, code: object) -> None:
    answer = await rig.call("/otp/send", {"to": NUMBER, "code": code})

    assert "code" == problem(answer, 400, "invalid_request")["errors"][0]["field"]
    assert "123456" not in answer.text


async def test_own_code_and_code_length_together_are_refused(rig: Rig) -> None:
    assert {} == await refused(rig, "invalid_request", to=NUMBER, code="1234", code_length=4)


# --- ttl ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ttl", "expires"), [(60, "12:01:00"), (600.0, "12:10:00")])
async def test_a_code_lives_as_long_as_asked(rig: Rig, ttl: float, expires: str) -> None:
    sent = await rig.send(workflow="sms_only", ttl=ttl)

    assert f"2026-11-21T{expires}Z" == sent["expires_at"]


@pytest.mark.parametrize("ttl", [59, 601, 0, -1, "300", 300.5, False, 2**64 - 1])
async def test_a_ttl_out_of_range_or_of_another_type_is_refused(rig: Rig, ttl: object) -> None:
    facts = await refused(rig, "invalid_request", to=NUMBER, ttl=ttl)

    assert "ttl" == facts["errors"][0]["field"]


async def test_a_workflow_that_cannot_start_its_last_step_in_time_is_refused(rig: Rig) -> None:
    facts = await refused(rig, "workflow_too_long", to=NUMBER, workflow="sms", ttl=89)

    assert {"step": 2, "ttl": 89} == facts
    assert "expires_at" in await rig.send(workflow="sms", ttl=90)


# --- reference ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["a", "order-17/3:é"[:-1], "~" * 128])
async def test_a_reference_comes_back(rig: Rig, reference: str) -> None:
    assert reference == (await rig.send(reference=reference))["reference"]


@pytest.mark.parametrize("reference", ["", "a b", "é", "x" * 129, "a\n", 17, ["a"]])
async def test_a_reference_is_short_visible_ascii(rig: Rig, reference: object) -> None:
    facts = await refused(rig, "invalid_request", to=NUMBER, reference=reference)

    assert "reference" == facts["errors"][0]["field"]


# --- Unknown fields -----------------------------------------------------------------------------


async def test_unknown_fields_are_refused_by_name(rig: Rig) -> None:
    answer = await rig.call("/otp/send", {"to": NUMBER, "lenght": 6, "message": "hi", "ttl": "x"})

    assert {"fields": ["lenght", "message"]} == problem(answer, 400, "unknown_field")
    assert "lenght, message" in answer.json()["detail"]
    assert [] == rig.transport.submissions


async def test_names_are_case_sensitive(rig: Rig) -> None:
    assert {"fields": ["To"]} == await refused(rig, "unknown_field", To=NUMBER)


async def test_a_null_is_an_absent_field(rig: Rig) -> None:
    sent = await rig.send(workflow="sms", channel=None, code=None, code_length=4, reference=None)

    assert "sms" == sent["channel"]
    assert 4 == len(rig.transport.submissions[0].code)


# --- The person asks again ----------------------------------------------------------------------


async def test_before_the_cool_down_a_second_send_says_when(rig: Rig) -> None:
    await rig.send(workflow="sms")
    rig.clock.advance(10.5)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
    facts = problem(answer, 429, "cool_down")

    assert "20" == answer.headers["retry-after"]
    assert {
        "rule": "cool_down",
        "limit": 1,
        "window": COOL_DOWN,
        "remaining": 0,
        "reset": "2026-11-21T12:00:30.000Z",
        "retry_after": 20,
    } == facts
    assert 1 == len(rig.transport.submissions)


async def test_the_cool_down_ends_to_the_millisecond(rig: Rig) -> None:
    await rig.send(workflow="sms")
    rig.clock.advance(COOL_DOWN - 0.001)
    early = await rig.call("/otp/send", {"to": NUMBER})
    rig.clock.advance(0.001)
    timely = await rig.call("/otp/send", {"to": NUMBER})

    assert (429, "1") == (early.status_code, early.headers["retry-after"])
    assert 202 == timely.status_code


async def test_a_second_send_joins_the_running_verification(rig: Rig) -> None:
    first = await rig.send(workflow="sms", reference="o-1")
    rig.clock.advance(COOL_DOWN)
    second = await rig.send("0033 6 12 34 56 78", workflow="sms")
    codes = {one.code for one in rig.transport.submissions}

    assert first["verification_id"] == second["verification_id"]
    assert (True, 3, "o-1") == (second["joined"], second["sends_left"], second["reference"])
    assert first["expires_at"] == second["expires_at"]
    assert (2, 1) == (len(rig.transport.submissions), len(codes))


async def test_sends_are_counted_and_used_up(rig: Rig) -> None:
    left = [(await rig.send(workflow="sms_only"))["sends_left"]]
    for _ in range(MAX_SENDS - 1):
        rig.clock.advance(COOL_DOWN)
        left.append((await rig.send(workflow="sms_only"))["sends_left"])
    rig.clock.advance(COOL_DOWN)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})
    facts = problem(answer, 429, "sends_used_up")

    assert [4, 3, 2, 1, 0] == left
    assert MAX_SENDS == len(rig.transport.submissions)
    assert "150" == answer.headers["retry-after"]
    assert ("sends", 5, 300, 0) == tuple(facts[n] for n in ("rule", "limit", "window", "remaining"))
    assert ("2026-11-21T12:05:00.000Z", 150) == (facts["reset"], facts["retry_after"])


async def test_a_number_gets_five_sends_in_ten_minutes_over_all_verifications(rig: Rig) -> None:
    """Design §9: on by default is a cool-down and five sends per number in ten minutes. A client
    that cancels and sends again must not be a way around it."""
    statuses = []
    for _ in range(MAX_SENDS + 1):
        answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})
        statuses.append(answer.status_code)
        await rig.settle()
        await rig.call("/otp/cancel", {"number": NUMBER})
        rig.clock.advance(COOL_DOWN)

    assert [202] * MAX_SENDS + [429] == statuses


async def test_a_canceled_verification_does_not_end_the_cool_down(rig: Rig) -> None:
    """Design §9 and §7: only `replace` is without cool-down, and it is not asked for here."""
    await rig.send(workflow="sms_only")
    await rig.call("/otp/cancel", {"number": NUMBER})
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})

    problem(answer, 429, "cool_down")


async def test_too_late_to_be_typed_is_too_late_to_be_sent_again(rig: Rig) -> None:
    await rig.send(workflow="sms_only", ttl=60)
    rig.clock.advance(31)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})
    facts = problem(answer, 429, "too_late")

    assert (29, "29") == (facts["retry_after"], answer.headers["retry-after"])
    assert 1 == len(rig.transport.submissions)


async def test_after_the_end_a_send_starts_anew_with_another_code(rig: Rig) -> None:
    first = await rig.send(workflow="sms_only", code_length=10)
    rig.clock.advance(300)
    second = await rig.send(workflow="sms_only", code_length=10)
    codes = [one.code for one in rig.transport.submissions]

    assert first["verification_id"] != second["verification_id"]
    assert (False, 4) == (second["joined"], second["sends_left"])
    assert codes[0] != codes[1]
    assert Status.EXPIRED is rig.status(first["verification_id"])


async def test_joining_with_the_same_own_code_is_joining(rig: Rig) -> None:
    await rig.send(workflow="sms", code="482913")
    rig.clock.advance(COOL_DOWN)
    second = await rig.send(workflow="sms", code="482913")

    assert second["joined"]
    assert ["482913", "482913"] == [one.code for one in rig.transport.submissions]


async def test_another_own_code_does_not_join(rig: Rig) -> None:
    first = await rig.send(workflow="sms", code="482913")
    rig.clock.advance(COOL_DOWN)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms", "code": "482914"})
    facts = problem(answer, 409, "code_differs")

    assert {"verification_id": first["verification_id"]} == facts
    assert 1 == len(rig.transport.submissions)


@pytest.mark.parametrize("seconds", [0, COOL_DOWN])
async def test_an_own_code_is_no_way_to_guess_the_running_one(rig: Rig, seconds: int) -> None:
    """F25: comparisons are budgeted. A right guess and a wrong one must be answered alike, or
    `send` is a check without a count."""
    await rig.send(workflow="sms", code_length=4)
    right = rig.transport.submissions[0].code
    wrong = f"{(int(right) + 1) % 10_000:04}"
    rig.clock.advance(seconds)
    answers = [
        await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms", "code": code})
        for code in (right, wrong)
    ]

    assert 1 == len({(one.status_code, one.content) for one in answers})
    assert 1 == len(rig.transport.submissions)


async def test_two_clients_do_not_join_each_other(rig: Rig) -> None:
    other = await rig.client("other")
    first = await rig.send(workflow="sms")
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"}, key=other)

    assert 202 == answer.status_code
    assert (False, 4) == (answer.json()["joined"], answer.json()["sends_left"])
    assert first["verification_id"] != answer.json()["verification_id"]


async def test_fifty_sends_at_once_to_one_number_are_one_verification(rig: Rig) -> None:
    """F6 (seen to fail without the look at the running one, `tx.running`, in `send.apply`)."""
    body = {"to": NUMBER, "workflow": "sms"}
    answers = await asyncio.gather(*(rig.call("/otp/send", body) for _ in range(50)))
    await rig.settle()

    assert [202] + [429] * 49 == sorted(one.status_code for one in answers)
    assert 1 == len(rig.transport.submissions)


async def test_many_numbers_at_once_are_many_verifications(rig: Rig) -> None:
    numbers = [f"+3361234{n:04}" for n in range(100)]
    answers: list[httpx.Response] = await asyncio.gather(
        *(rig.call("/otp/send", {"to": to, "workflow": "sms"}) for to in numbers)
    )
    await rig.settle()
    sent = [one.body["recipients"][0]["phone_number"] for one in rig.transport.submissions]

    assert {202} == {one.status_code for one in answers}
    assert 100 == len({one.json()["verification_id"] for one in answers})
    assert numbers == sorted(sent)


async def test_a_send_that_no_provider_takes_ends_as_failed(rig: Rig) -> None:
    rig.transport.script("sms-campaign", answering(400, {"code": 110, "message": "no recipient"}))
    sent = await rig.send(workflow="sms_only")

    assert Status.FAILED is rig.status(sent["verification_id"])
    problem(await rig.verify(sent["verification_id"], "000000"), 410, "failed")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"to": NUMBER, "code": "12"}, "code: 4 to 10 digits are expected"),
        ({"to": NUMBER, "reference": "a b"}, "reference: visible ASCII characters are expected"),
        ({"to": NUMBER, "locale": "f"}, "locale: a language is expected, such as fr or fr-CA"),
        ({"recipients": []}, "recipients: at least 1 entry"),
        ({"to": NUMBER, "template": "x" * 65}, "template: at most 64 characters"),
    ],
)
async def test_a_wrong_field_is_told_in_plain_words(
    rig: Rig, body: dict[str, Any], told: str
) -> None:
    answer = await rig.call("/otp/send", body)

    problem(answer, 400, "invalid_request")
    assert told in answer.json()["detail"]


async def test_a_link_among_the_params_is_refused_as_one(rig: Rig) -> None:
    body = {"to": NUMBER, "params": {"name": "www.example.com"}}

    problem(await rig.call("/otp/send", body), 400, "params_not_allowed")
