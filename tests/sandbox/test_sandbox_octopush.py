"""Octopush as documented: what it takes, what it refuses and how, what its receipts look like."""

import re
from typing import Any

import pytest
from sandbox.conftest import MakeRig
from sandbox.world import BALANCE, KEY, LOGIN, OCTOPUSH_CALLBACK, SMS, VOCAL, VOICE, Rig, sms_body

from gateway.sandbox import Channel
from gateway.sandbox.octopush import segments

HEADERS = {"api-login": LOGIN, "api-key": KEY}
VOICE_BODY = {"recipients": [{"phone_number": "+33600000000"}], "text": "1, 2, 3"}


async def test_an_accepted_sms(rig: Rig) -> None:
    response = await rig.sms(sender="ACME", request_id="a1", auto_optimize_text=False)
    answer = response.json()

    assert 201 == response.status_code
    assert re.fullmatch(r"sms_[0-9a-f]{13}", answer.pop("sms_ticket"))
    assert {
        "number_of_contacts": 1,
        "total_cost": 0.05,
        "number_of_sms_needed": 1,
        "residual_credit": 999_999.95,
    } == answer


async def test_what_the_phone_knows_of_an_sms(rig: Rig) -> None:
    ticket = (await rig.sms(sender="ACME", request_id="a1")).json()["sms_ticket"]
    message = rig.only()

    assert (ticket, Channel.SMS, "ACME", "a1") == (
        message.id,
        message.channel,
        message.sender,
        message.client_ref,
    )
    assert "123456 is your code" == message.text


@pytest.mark.parametrize(
    ("path", "fields", "word"),
    [
        (VOICE, {}, "voice"),
        (VOICE, {"type": "voice_sms"}, "voice"),
        (VOCAL, {"type": "vocal_sms"}, "vocal"),
    ],
)
async def test_an_accepted_call(rig: Rig, path: str, fields: dict[str, str], word: str) -> None:
    response = await rig.octopush(path, {**VOICE_BODY, **fields})
    answer = response.json()

    assert 201 == response.status_code
    assert re.fullmatch(word + r"_[0-9a-f]{13}", answer.pop(f"{word}_ticket"))
    assert {
        "number_of_contacts": 1,
        "total_cost": 0.03,
        "estimated_duration": 10,
        "residual_credit": 999_999.97,
    } == answer


async def test_a_receipt_for_an_sms(rig: Rig) -> None:
    ticket = (await rig.sms()).json()["sms_ticket"]
    await rig.run()
    sent = rig.post.sent[-1]

    assert OCTOPUSH_CALLBACK == sent.url
    assert "application/json" == sent.headers["Content-Type"]
    assert {
        "channel": "sms",
        "message_id": ticket,
        "number": "+33600000000",
        "status": "DELIVERED",
        "delivery_date": "2026-03-01 12:00:02",
        "list_name": "",
        "unit_price": 0.05,
        "meta_data": {},
    } == sent.json


async def test_every_second_call_is_reported_in_the_older_shape(rig: Rig) -> None:
    tickets = [(await rig.voice()).json()["voice_ticket"] for _ in range(2)]
    await rig.run()
    newer, older = (sent.json for sent in rig.post.sent)
    common = {
        "number": "+33600000000",
        "status": "DELIVERED",
        "delivery_date": "2026-03-01 12:00:01",
    }

    assert {
        "channel": "voice_sms",
        "message_id": tickets[0],
        **common,
        "list_name": "",
        "unit_price": 0.03,
        "meta_data": {"pressed_keys_code": "", "call_duration": 12, "charged_duration": 30},
    } == newer
    assert {
        "message_id": tickets[1],
        **common,
        "pressed_keys_code": "",
        "call_duration": "12",
        "charged_duration": "30",
    } == older


async def test_a_call_nobody_answered_has_no_duration(rig: Rig) -> None:
    await rig.voice("+33600000003")
    await rig.run()

    assert {"pressed_keys_code": "", "call_duration": 0, "charged_duration": 0} == (
        rig.post.sent[0].json["meta_data"]
    )


async def test_the_copies_of_a_receipt_are_identical(rig: Rig) -> None:
    await rig.voice()
    await rig.voice("+33600000005")
    await rig.run()

    assert 1 == len({sent.content for sent in rig.post.sent[1:]})


async def test_low_cost_arrives_and_nobody_is_told(rig: Rig) -> None:
    await rig.sms(type="sms_low_cost")
    await rig.run()

    assert rig.only().arrived_at
    assert [] == rig.post.sent


async def test_without_a_callback_url_nobody_is_told(make_rig: MakeRig) -> None:
    rig = make_rig(octopush_callback_url=None)
    await rig.sms()
    await rig.run()

    assert rig.only().arrived_at
    assert () == rig.only().receipts


async def test_a_receipt_that_nobody_takes_is_not_repeated(rig: Rig) -> None:
    rig.post.answer = lambda sent: 503
    await rig.sms()
    await rig.run()

    assert [("ACK", 503), ("DELIVERED", 503)] == [(r.word, r.http) for r in rig.only().receipts]


async def test_a_request_id_is_taken_once(rig: Rig) -> None:
    first = await rig.sms(request_id="a1")
    second = await rig.sms(request_id="a1")
    await rig.sms(request_id="a1", text="another text")

    assert 201 == first.status_code
    assert (400, 120) == (second.status_code, second.json()["code"])
    assert 2 == rig.only().repeats


async def test_a_request_id_may_come_again_after_a_day(rig: Rig) -> None:
    answers = []
    for hours in (0, 23.9, 0.2):
        await rig.clock.advance(hours * 3600)
        answers.append((await rig.sms(request_id="a1")).status_code)

    assert [201, 400, 201] == answers


async def test_a_request_id_of_a_refused_request_is_still_free(rig: Rig) -> None:
    refused = await rig.sms(request_id="a1", text="")
    throttled = await rig.sms("+33600000800", request_id="a1")
    accepted = await rig.sms(request_id="a1")

    assert [400, 429, 201] == [a.status_code for a in (refused, throttled, accepted)]


async def test_request_ids_are_forgotten_when_there_are_too_many(make_rig: MakeRig) -> None:
    rig = make_rig(keep=2)
    answers = [(await rig.sms(request_id=name)).status_code for name in "abcab"]

    assert [201, 201, 201, 201, 201] == answers


async def test_a_request_without_id_may_be_repeated(rig: Rig) -> None:
    answers = [(await rig.sms()).status_code for _ in range(2)]

    assert [201, 201] == answers


async def test_several_recipients_share_a_ticket(rig: Rig) -> None:
    """The ones without a correct number are left out."""
    contacts = [
        {"phone_number": "+33600000000", "first_name": "Ada", "param1": "42"},
        {"phone_number": "+33600000300", "first_name": "Bob"},
        {"phone_number": "0600000000"},
        {"phone_number": 33600000000},
        {"name": "nobody"},
        "+33600000000",
    ]
    answer = (await rig.sms(recipients=contacts, text="{first_name}: {param1}")).json()
    await rig.run()
    messages = rig.sandbox.messages()

    assert (2, 0.1) == (answer["number_of_contacts"], answer["total_cost"])
    assert ["Ada: 42", "Bob: {param1}"] == [message.text for message in messages]
    assert {answer["sms_ticket"]} == {message.id for message in messages}
    assert [["ACK", "DELIVERED"], ["NOT_DELIVERED"]] == [
        [receipt.word for receipt in message.receipts] for message in messages
    ]


async def test_of_several_recipients_the_first_decides_the_answer(rig: Rig) -> None:
    numbers = ["+33600000000", "+33600000900"]
    there = await rig.sms(recipients=[{"phone_number": number} for number in numbers])
    back = await rig.sms(recipients=[{"phone_number": number} for number in numbers[::-1]])

    assert [201, 500] == [there.status_code, back.status_code]


async def test_a_simulated_request_reaches_nobody(rig: Rig) -> None:
    response = await rig.sms(simulation_mode=True)

    assert 201 == response.status_code
    assert (0.0, 1_000_000.0) == (
        response.json()["total_cost"],
        response.json()["residual_credit"],
    )
    assert [] == rig.sandbox.messages()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 108),
        ({"api-key": KEY}, 108),
        ({"api-login": LOGIN}, 109),
        ({"api-login": LOGIN, "api-key": "wrong"}, 101),
        ({"api-login": "wrong", "api-key": KEY}, 101),
        ({"api-login": LOGIN, "api-key": KEY.upper()}, 101),
    ],
)
@pytest.mark.parametrize("path", [SMS, VOICE, VOCAL, BALANCE])
async def test_wrong_credentials_are_401(
    rig: Rig, path: str, headers: dict[str, str], code: int
) -> None:
    method = "GET" if path == BALANCE else "POST"
    json = None if path == BALANCE else sms_body()
    response = await rig.client.request(method, path, json=json, headers=headers)

    assert (401, code) == (response.status_code, response.json()["code"])
    assert [] == rig.sandbox.messages()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b'"text"', "application/json"),
        (b"\xff", "application/json"),
        (b'{"text": "x"}', "text/plain"),
        (b"text=x", "application/x-www-form-urlencoded"),
    ],
)
async def test_a_body_that_is_no_json_object(rig: Rig, body: bytes, content_type: str) -> None:
    headers = {**HEADERS, "Content-Type": content_type}
    response = await rig.client.post(SMS, content=body, headers=headers)

    assert (400, 100) == (response.status_code, response.json()["code"])


WRONG: list[tuple[str, dict[str, Any], int]] = [
    ("no recipients", {"recipients": None}, 110),
    ("recipients no list", {"recipients": "+33600000000"}, 110),
    ("recipients empty", {"recipients": []}, 103),
    ("no correct recipient", {"recipients": [{"phone_number": "0600000000"}]}, 117),
    ("number too long", {"recipients": [{"phone_number": "+3360000000012345"}]}, 117),
    ("too many", {"recipients": [{"phone_number": "+33600000000"}] * 501}, 115),
    ("no text", {"text": None}, 107),
    ("empty text", {"text": ""}, 107),
    ("text no string", {"text": 123456}, 107),
    ("text too long", {"text": "x" * 1225}, 119),
    ("unknown type", {"type": "sms_gold"}, 112),
    ("type null", {"type": None}, 112),
    ("unknown purpose", {"purpose": "otp"}, 115),
    ("marketing without its mention", {"purpose": "wholesale"}, 121),
    ("the same, low cost", {"purpose": "wholesale", "type": "sms_low_cost"}, 122),
    ("sender too short", {"sender": "AB"}, 106),
    ("sender too long", {"sender": "ABCDEFGHIJKL"}, 106),
    ("sender with a sign", {"sender": "A-BC"}, 106),
    ("sender no string", {"sender": 12345}, 106),
    ("flag no boolean", {"auto_optimize_text": "false"}, 115),
    ("request_id no string", {"request_id": 7}, 115),
    ("send_at no date", {"send_at": "tomorrow"}, 115),
    ("send_at no string", {"send_at": 1}, 115),
]


@pytest.mark.parametrize(
    ("fields", "code"), [pytest.param(fields, code, id=name) for name, fields, code in WRONG]
)
async def test_wrong_fields_of_an_sms(rig: Rig, fields: dict[str, Any], code: int) -> None:
    response = await rig.sms(**fields)

    assert (400, code) == (response.status_code, response.json()["code"])
    assert isinstance(response.json()["message"], str)
    assert [] == rig.sandbox.messages()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"voice_gender": "robot"}, 115),
        ({"voice_language": "french"}, 115),
        ({"purpose": "otp"}, 115),
        ({"type": "sms_premium"}, 112),
        ({"sender": "!"}, 106),
        ({"text": ""}, 107),
    ],
)
async def test_wrong_fields_of_a_call(rig: Rig, fields: dict[str, Any], code: int) -> None:
    response = await rig.voice(**fields)

    assert (400, code) == (response.status_code, response.json()["code"])


async def test_the_older_voice_path_wants_its_type(rig: Rig) -> None:
    response = await rig.octopush(VOCAL, VOICE_BODY)

    assert (400, 112) == (response.status_code, response.json()["code"])


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "x" * 1224},
        {"purpose": "wholesale", "text": "Sale! STOP au 36111"},
        {"sender": "ABC"},
        {"sender": "ABCDEFGHIJ1"},
        {"send_at": "2026-10-03T07:42:39-07:00"},
        {"with_replies": True, "recipient_tracking": False},
        {"auto_remove_blacklisted_numbers": True, "list_name": "x"},
        {"unheard_of": 1},
    ],
)
async def test_right_fields_of_an_sms(rig: Rig, fields: dict[str, Any]) -> None:
    response = await rig.sms(**fields)

    assert 201 == response.status_code


async def test_wholesale_is_the_default(rig: Rig) -> None:
    """Whoever forgets `purpose` finds out, in France; and premium is the default type."""
    body = sms_body()
    del body["purpose"], body["type"]
    france = await rig.octopush(SMS, body)
    england = await rig.octopush(SMS, {**body, "recipients": [{"phone_number": "+447700900123"}]})

    assert (400, 121) == (france.status_code, france.json()["code"])
    assert 201 == england.status_code


@pytest.mark.parametrize(
    "fields",
    [
        {"voice_gender": "male", "voice_language": "fr-FR"},
        {"sender": "+33123456789", "purpose": "alert"},
    ],
)
async def test_right_fields_of_a_call(rig: Rig, fields: dict[str, Any]) -> None:
    response = await rig.voice(**fields)

    assert 201 == response.status_code


async def test_the_balance(rig: Rig) -> None:
    await rig.sms()
    response = await rig.client.get(
        BALANCE,
        params={"product_name": "sms_premium", "country_code": "FR", "with_details": "true"},
        headers=HEADERS,
    )

    assert 200 == response.status_code
    assert {
        "amount": 19_999_999,
        "unit": "sms_premium",
        "wallet_packs": [{"id": 1, "credit": 19_999_999, "expiration_date": None}],
    } == response.json()


async def test_the_balance_without_details(rig: Rig) -> None:
    response = await rig.client.get(BALANCE, headers=HEADERS)

    assert {"amount": 20_000_000, "unit": "sms_premium"} == response.json()


async def test_the_balance_of_an_unknown_product(rig: Rig) -> None:
    response = await rig.client.get(BALANCE, params={"product_name": "fax"}, headers=HEADERS)

    assert (400, 112) == (response.status_code, response.json()["code"])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("é" * 160, 1),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("ê" * 70, 1),
        ("ê" * 71, 2),
        ("ê" * 135, 3),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
    ],
)
def test_how_many_sms_a_text_takes(text: str, parts: int) -> None:
    assert parts == segments(text)


@pytest.mark.parametrize("path", [SMS, VOICE, VOCAL])
async def test_only_post_sends(rig: Rig, path: str) -> None:
    assert 405 == (await rig.client.get(path, headers=HEADERS)).status_code
