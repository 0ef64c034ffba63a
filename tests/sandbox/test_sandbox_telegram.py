"""Telegram Gateway: requests, error words, signed reports, and messages taken back."""

import hashlib
import hmac
import re
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio
from sandbox.conftest import MakeRig
from sandbox.world import START, Rig, bearer

from gateway.sandbox import Channel
from gateway.sandbox.telegram import signature

TOKEN = "AAE-token"
NUMBER = "+33600000000"
CALLBACK = "https://otp.example.com/otp/delivered/telegram/token"
AT = int(START.timestamp())


@pytest_asyncio.fixture
async def rig(make_rig: MakeRig) -> Rig:
    return make_rig(accounts={"telegram": {"token": TOKEN}})


async def ask(rig: Rig, method: str, **fields: Any) -> httpx.Response:
    return await rig.client.post(f"/telegram/{method}", json=fields, headers=bearer(TOKEN))


async def send(rig: Rig, number: str = NUMBER, **changes: Any) -> httpx.Response:
    fields = {
        "phone_number": number,
        "code": "123456",
        "callback_url": CALLBACK,
        "payload": "a1",
        "ttl": 60,
        **changes,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return await ask(rig, "sendVerificationMessage", **given)


async def taken(rig: Rig, number: str = NUMBER, **changes: Any) -> str:
    """The id of a message that was accepted."""
    answer = (await send(rig, number, **changes)).json()
    assert answer["ok"] is True, answer
    return str(answer["result"]["request_id"])


def words(rig: Rig) -> list[str]:
    return [sent.json["delivery_status"]["status"] for sent in rig.post.sent]


async def test_an_accepted_message(rig: Rig) -> None:
    response = await send(rig, sender_username="acme_codes")
    message = rig.only()

    assert 200 == response.status_code
    assert re.fullmatch("[0-9]{16}", message.id)
    assert {
        "ok": True,
        "result": {
            "request_id": message.id,
            "phone_number": NUMBER,
            "request_cost": 0.01,
            "remaining_balance": 99.99,
            "delivery_status": {"status": "sent", "updated_at": AT},
            "payload": "a1",
        },
    } == response.json()
    assert (Channel.TELEGRAM, "123456 is your verification code.", "acme_codes", "a1") == (
        message.channel,
        message.text,
        message.sender,
        message.client_ref,
    )


async def test_a_report(rig: Rig) -> None:
    request_id = await taken(rig, "+33600010000")
    await rig.run()
    sent = rig.post.sent[-1]

    assert CALLBACK == sent.url
    assert "application/json" == sent.headers["Content-Type"]
    assert {
        "request_id": request_id,
        "phone_number": "+33600010000",
        "request_cost": 0.01,
        "delivery_status": {"status": "read", "updated_at": AT + 3},
        "payload": "a1",
    } == sent.json


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("00", ["sent", "delivered"]),
        ("01", ["sent", "delivered", "read"]),
        ("02", []),
        ("03", ["expired"]),
        ("05", ["sent"] * 3 + ["delivered"] * 3),
        ("13", ["sent"]),
        ("15", ["sandbox_unheard_of", "delivered"]),
    ],
)
async def test_the_number_says_what_becomes_of_it(
    rig: Rig, digits: str, expected: list[str]
) -> None:
    await taken(rig, f"+33600{digits}0000")
    await rig.run()

    assert expected == words(rig)


async def test_an_expired_message_is_paid_back(rig: Rig) -> None:
    await taken(rig, "+33600030000")
    await rig.run()

    assert rig.post.sent[0].json["is_refunded"] is True


async def test_a_report_is_signed(rig: Rig) -> None:
    """Computed here from the words of the documentation, on the bytes as they came."""
    await taken(rig)
    await rig.run()
    sent = rig.post.sent[0]
    key = hashlib.sha256(TOKEN.encode()).digest()

    assert str(AT + 1) == sent.headers["X-Request-Timestamp"]
    assert (
        hmac.digest(key, b"%d\n" % (AT + 1) + sent.content, "sha256").hex()
        == (sent.headers["X-Request-Signature"])
    )


def test_a_signature_made_elsewhere() -> None:
    """KEY=$(printf key | openssl dgst -sha256 -r | cut -d' ' -f1)
    printf '1700000000\\n{"a":1}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:$KEY"""
    assert VECTOR == signature("key", 1700000000, b'{"a":1}')


VECTOR = "dd8914e7ba127fb01b717abe8e0306b28d9122bdd521e56623cd51d9f8c70934"


async def test_a_report_not_taken_is_repeated_ten_times(rig: Rig) -> None:
    rig.post.answer = lambda sent: 500
    await taken(rig, "+33600030000")
    await rig.run(2000)

    assert 11 == len(rig.post.sent)
    assert [1, 2, 4, 8] == [sent.seconds for sent in rig.post.sent[:4]]
    assert 1 == len({sent.content for sent in rig.post.sent})


async def test_without_a_callback_url_nobody_is_told(rig: Rig) -> None:
    await taken(rig, callback_url=None, payload=None, ttl=None)
    await rig.run()

    assert rig.only().arrived_at
    assert [] == rig.post.sent


# Asking first.


async def test_a_number_that_can_be_reached_is_paid_for_once(rig: Rig) -> None:
    checked = (await ask(rig, "checkSendAbility", phone_number=NUMBER)).json()["result"]
    sent = (await send(rig, request_id=checked["request_id"])).json()["result"]

    assert ["phone_number", "remaining_balance", "request_cost", "request_id"] == sorted(checked)
    assert checked["request_id"] == sent["request_id"] == rig.only().id
    assert "remaining_balance" not in sent


async def test_a_check_is_good_for_one_message_to_its_number(rig: Rig) -> None:
    checked = (await ask(rig, "checkSendAbility", phone_number=NUMBER)).json()["result"]
    request_id = checked["request_id"]
    answers = [
        await send(rig, "+33600000001", request_id=request_id),
        await send(rig, request_id="0" * 16),
        await send(rig, request_id=request_id),
        await send(rig, request_id=request_id),
    ]

    assert ["PHONE_NUMBER_MISMATCH", "REQUEST_ID_INVALID", None, "MESSAGE_ALREADY_SENT"] == [
        answer.json().get("error") for answer in answers
    ]
    assert 1 == len(rig.sandbox.messages())


@pytest.mark.parametrize(
    ("digits", "status", "error"),
    [
        ("08", 200, "FLOOD_WAIT_1"),
        ("09", 500, "INTERNAL_ERROR"),
        ("12", 200, "PHONE_NUMBER_NOT_AVAILABLE"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
async def test_a_number_that_is_refused(
    rig: Rig, digits: str, status: int, error: str, first: bool
) -> None:
    number = f"+33600{digits}0000"
    if first:
        response = await ask(rig, "checkSendAbility", phone_number=number)
    else:
        response = await send(rig, number)

    assert (status, {"ok": False, "error": error}) == (response.status_code, response.json())


async def test_a_throttled_number_is_let_in_the_third_time(rig: Rig) -> None:
    answers = [(await send(rig, "+33600080000")).json() for _ in range(3)]

    assert [False, False, True] == [answer["ok"] for answer in answers]


async def test_old_checks_are_forgotten(make_rig: MakeRig) -> None:
    rig = make_rig(accounts={"telegram": {"token": TOKEN}}, keep=1)
    first = (await ask(rig, "checkSendAbility", phone_number=NUMBER)).json()["result"]
    await ask(rig, "checkSendAbility", phone_number=NUMBER)
    answer = await send(rig, request_id=first["request_id"])

    assert "REQUEST_ID_INVALID" == answer.json()["error"]


# Asking afterwards, and taking back.


@pytest.mark.parametrize(
    ("digits", "seconds", "status"),
    [
        ("00", 0, None),
        ("00", 1, {"status": "sent", "updated_at": AT + 1}),
        ("01", 9, {"status": "read", "updated_at": AT + 3}),
        ("02", 9, None),
        ("03", 9, {"status": "expired", "updated_at": AT + 1}),
    ],
)
async def test_a_message_can_be_asked_about(
    rig: Rig, digits: str, seconds: float, status: object
) -> None:
    request_id = await taken(rig, f"+33600{digits}0000")
    await rig.clock.advance(seconds)
    answer = (await ask(rig, "checkVerificationStatus", request_id=request_id)).json()

    assert answer["ok"] is True
    assert status == answer["result"].get("delivery_status")
    assert "a1" == answer["result"]["payload"]


async def test_a_message_that_has_not_arrived_can_be_revoked(rig: Rig) -> None:
    request_id = await taken(rig)
    await rig.clock.advance(1)
    answers = [await ask(rig, "revokeVerificationMessage", request_id=request_id) for _ in range(2)]
    await rig.run()

    assert [{"ok": True, "result": True}] * 2 == [answer.json() for answer in answers]
    assert ["sent", "revoked"] == words(rig)
    assert rig.only().arrived_at is None


@pytest.mark.parametrize("digits", ["00", "03"])
async def test_what_is_over_is_not_revoked(rig: Rig, digits: str) -> None:
    request_id = await taken(rig, f"+33600{digits}0000")
    await rig.run()
    before = words(rig)
    answer = await ask(rig, "revokeVerificationMessage", request_id=request_id)
    await rig.run()

    assert {"ok": True, "result": True} == answer.json()
    assert before == words(rig)


async def test_only_its_own_accepted_messages_are_known(rig: Rig) -> None:
    sms = (await rig.sms()).json()["sms_ticket"]
    await send(rig, "+33600120000")
    refused = rig.only("+33600120000").id
    for method in ("checkVerificationStatus", "revokeVerificationMessage"):
        answers = [await ask(rig, method, request_id=name) for name in (sms, refused, "0")]
        answers.append(await ask(rig, method))

        assert [*["REQUEST_ID_INVALID"] * 3, "REQUEST_ID_REQUIRED"] == [
            answer.json()["error"] for answer in answers
        ]


# What it takes and refuses.


async def test_parameters_come_in_three_ways_and_methods_in_any_case(rig: Rig) -> None:
    fields = {"phone_number": NUMBER, "code": "1234", "ttl": "60", "access_token": TOKEN}
    answers = [
        await rig.client.get("/telegram/sendVerificationMessage", params=fields),
        await rig.client.post("/telegram/sendverificationmessage", data=fields),
        await rig.client.post("/telegram/SENDVERIFICATIONMESSAGE", json=fields),
    ]

    assert [True] * 3 == [answer.json()["ok"] for answer in answers]


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, "ACCESS_TOKEN_REQUIRED"),
        (bearer("wrong"), "ACCESS_TOKEN_INVALID"),
        ({"Authorization": "Basic eDp5"}, "ACCESS_TOKEN_INVALID"),
    ],
)
async def test_a_wrong_token(rig: Rig, headers: dict[str, str], error: str) -> None:
    fields = {"phone_number": NUMBER}
    answer = await rig.client.post("/telegram/checkSendAbility", json=fields, headers=headers)

    assert {"ok": False, "error": error} == answer.json()


@pytest.mark.parametrize("accounts", [{}, {"telegram": {}}, {"telegram": {"token": ""}}])
async def test_without_an_account_every_call_is_refused(
    make_rig: MakeRig, accounts: dict[str, dict[str, str]]
) -> None:
    answer = await send(make_rig(accounts=accounts))

    assert "ACCESS_TOKEN_INVALID" == answer.json()["error"]


async def test_a_method_there_is_not(rig: Rig) -> None:
    assert "UNKNOWN_METHOD" == (await ask(rig, "sendMessage")).json()["error"]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"phone_number": None}, "PHONE_NUMBER_INVALID"),
        ({"phone_number": "0600000000"}, "PHONE_NUMBER_INVALID"),
        ({"phone_number": 33600000000}, "PHONE_NUMBER_INVALID"),
        ({"code": None}, "CODE_LENGTH_REQUIRED"),
        ({"code": "123"}, "CODE_INVALID"),
        ({"code": "123456789"}, "CODE_INVALID"),
        ({"code": "12345a"}, "CODE_INVALID"),
        ({"code": 123456}, "CODE_INVALID"),
        ({"ttl": 29}, "TTL_INVALID"),
        ({"ttl": 3601}, "TTL_INVALID"),
        ({"ttl": True}, "TTL_INVALID"),
        ({"ttl": "soon"}, "TTL_INVALID"),
        ({"payload": "x" * 129}, "PAYLOAD_INVALID"),
        ({"payload": 7}, "PAYLOAD_INVALID"),
        ({"callback_url": "ftp://example.com"}, "CALLBACK_URL_INVALID"),
        ({"callback_url": "https://example.com/" + "x" * 240}, "CALLBACK_URL_INVALID"),
        ({"sender_username": "@acme"}, "SENDER_USERNAME_INVALID"),
        ({"request_id": 7}, "REQUEST_ID_INVALID"),
    ],
)
async def test_wrong_fields(rig: Rig, fields: dict[str, Any], error: str) -> None:
    response = await send(rig, **fields)

    assert (200, {"ok": False, "error": error}) == (response.status_code, response.json())
    assert [] == rig.sandbox.messages()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", orjson.dumps([])])
async def test_a_body_that_is_no_json_object(rig: Rig, body: bytes) -> None:
    headers = {**bearer(TOKEN), "Content-Type": "application/json"}
    url = "/telegram/sendVerificationMessage"
    response = await rig.client.post(url, content=body, headers=headers)

    assert "PHONE_NUMBER_INVALID" == response.json()["error"]
