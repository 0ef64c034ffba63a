"""Vonage: tokens, requests, answers, signed receipts."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from keypair import key_pair
from sandbox.conftest import MakeRig
from sandbox.world import START, Rig, Sent

from gateway.sandbox import Channel
from gateway.sandbox.vonage import token

MESSAGES = "/vonage/v1/messages"
CALLS = "/vonage/v1/calls"
BALANCE = "/vonage/account/get-balance"
HOOK = "https://otp.example.com/otp/delivered/vonage"
OWN_HOOK = "https://otp.example.com/otp/delivered/vonage/token"
BASIC = {"Authorization": "Basic YWJjZDEyMzQ6dGhlLWFwaS1zZWNyZXQ="}
ACCOUNT = {
    "application_id": "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
    "public_key": key_pair().public,
    "api_key": "abcd1234",
    "api_secret": "the-api-secret",
    "signature_secret": "vonage-signature-secret-for-tests-0123456789",
    "status_url": HOOK,
}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def bearer(
    head: Mapping[str, object] | None = None, key: str = "application", **changes: object
) -> dict[str, str]:
    """A token as an application makes it."""
    at = int(START.timestamp())
    claims = {
        "application_id": ACCOUNT["application_id"],
        "iat": at,
        "jti": "11111111-2222-4333-8444-555555555555",
        "exp": at + 900,
        **changes,
    }
    kept = {name: value for name, value in claims.items() if value is not None}
    parts = (head or {"alg": "RS256", "typ": "JWT"}, kept)
    signed = ".".join(encoded(orjson.dumps(one)) for one in parts)
    private = load_pem_private_key(key_pair(key).private.encode(), None)
    assert isinstance(private, RSAPrivateKey)
    mac = private.sign(signed.encode(), PKCS1v15(), SHA256())
    return {"Authorization": f"Bearer {signed}.{encoded(mac)}"}


def message(**fields: Any) -> dict[str, Any]:
    body = {
        "channel": "sms",
        "message_type": "text",
        "to": "33600000000",
        "from": "ACME",
        "text": "123456 is your code",
        "client_ref": "a1",
        **fields,
    }
    return {name: value for name, value in body.items() if value is not None}


def call(**fields: Any) -> dict[str, Any]:
    body = {
        "to": [{"type": "phone", "number": "33600000000"}],
        "from": {"type": "phone", "number": "447700900001"},
        "ncco": [{"action": "talk", "text": "1, 2, 3"}],
        "event_url": [OWN_HOOK],
        **fields,
    }
    return {name: value for name, value in body.items() if value is not None}


@pytest.fixture
def vonage(make_rig: MakeRig) -> Rig:
    return make_rig(accounts={"vonage": ACCOUNT})


async def send(rig: Rig, **fields: Any) -> httpx.Response:
    return await rig.client.post(MESSAGES, json=message(**fields), headers=bearer())


async def ring(rig: Rig, **fields: Any) -> httpx.Response:
    return await rig.client.post(CALLS, json=call(**fields), headers=bearer())


def claims_of(sent: Sent, secret: str = ACCOUNT["signature_secret"]) -> dict[str, Any]:
    """What a receipt's token claims, once its signature has proved right."""
    head, claims, mac = sent.headers["Authorization"].removeprefix("Bearer ").split(".")
    right = hmac.digest(secret.encode(), f"{head}.{claims}".encode(), hashlib.sha256)

    assert encoded(right) == mac
    assert {"alg": "HS256", "typ": "JWT"} == orjson.loads(base64.urlsafe_b64decode(head + "=="))
    return dict(orjson.loads(base64.urlsafe_b64decode(claims + "==")))


async def test_an_accepted_message(vonage: Rig) -> None:
    response = await send(vonage, ttl=60, webhook_version="v1")
    taken = vonage.only()

    assert (202, {"message_uuid": taken.id}) == (response.status_code, response.json())
    assert UUID.fullmatch(taken.id)
    assert (Channel.SMS, "+33600000000", "123456 is your code", "ACME", "a1") == (
        taken.channel,
        taken.number,
        taken.text,
        taken.sender,
        taken.client_ref,
    )


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("sms", Channel.SMS),
        ("messenger", Channel.MESSENGER),
        ("viber_service", Channel.VIBER),
        ("rcs", Channel.RCS),
    ],
)
async def test_a_channel_goes_by_its_pair_of_digits(
    vonage: Rig, name: str, channel: Channel
) -> None:
    await send(vonage, channel=name, to="33600010300")
    await vonage.run()
    words = ["rejected"] if channel is Channel.SMS else ["submitted", "delivered", "read"]

    assert channel is vonage.only().channel
    assert words == vonage.post.words


TEMPLATE = {
    "type": "template",
    "template": {
        "name": "otp",
        "language": {"policy": "deterministic", "code": "en_GB"},
        "components": [
            {"type": "body", "parameters": [{"type": "text", "text": "123456"}]},
            {
                "type": "button",
                "sub_type": "url",
                "index": 0,
                "parameters": [{"type": "text", "text": "123456"}],
            },
        ],
    },
}


@pytest.mark.parametrize(
    "content",
    [
        {"message_type": "custom", "custom": TEMPLATE},
        {
            "message_type": "template",
            "template": {"name": "otp", "parameters": ["123456"]},
            "whatsapp": {"policy": "deterministic", "locale": "en-GB"},
        },
    ],
)
async def test_whatsapp_shows_the_text_of_the_template(
    vonage: Rig, content: dict[str, Any]
) -> None:
    response = await send(vonage, channel="whatsapp", text=None, **content)

    assert 202 == response.status_code
    assert "123456 is your verification code." == vonage.only().text


async def test_a_status(vonage: Rig) -> None:
    message_uuid = (await send(vonage)).json()["message_uuid"]
    await vonage.run()
    sent = vonage.post.sent[-1]

    assert HOOK == sent.url
    assert "application/json" == sent.headers["Content-Type"]
    assert {
        "message_uuid": message_uuid,
        "to": "33600000000",
        "from": "ACME",
        "timestamp": "2026-03-01T12:00:02.000Z",
        "status": "delivered",
        "channel": "sms",
        "client_ref": "a1",
        "usage": {"currency": "EUR", "price": "0.0333"},
        "destination": {"network_code": "20801"},
        "sms": {"count_total": "1"},
    } == sent.json


async def test_a_message_without_a_reference_of_ours_has_none_in_its_status(vonage: Rig) -> None:
    await send(vonage, client_ref=None)
    await vonage.run()

    assert "client_ref" not in vonage.post.sent[0].json


async def test_a_failure_has_an_error(vonage: Rig) -> None:
    await send(vonage, to="33600000300")
    await vonage.run()

    assert "1180" == vonage.post.sent[0].json["error"]["title"]


async def test_a_receipt_is_signed(vonage: Rig) -> None:
    await send(vonage)
    await vonage.run()
    sent = vonage.post.sent[0]
    claims = claims_of(sent)

    assert UUID.fullmatch(claims.pop("jti"))
    assert {
        "iat": int(START.timestamp()) + 1,
        "iss": "Vonage",
        "payload_hash": hashlib.sha256(sent.content).hexdigest(),
        "api_key": "abcd1234",
        "application_id": ACCOUNT["application_id"],
    } == claims


def test_a_token_is_the_vendors() -> None:
    """All but its id, which nobody can foretell, is that of a token the vendor's library takes."""
    body = (
        b'{"message_uuid":"aaaaaaaa-bbbb-4ccc-8ddd-0123456789ab","to":"447700900000",'
        b'"from":"447700900001","timestamp":"2025-01-01T14:00:00.000Z","status":"delivered",'
        b'"channel":"sms","client_ref":"otp-1","usage":{"currency":"EUR","price":"0.0333"}}'
    )
    made = token(ACCOUNT, body, datetime(2025, 1, 1, 14, 0, 0, tzinfo=UTC))
    head, claims, _ = made.split(".")
    known = (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE3MzU3NDAwMDAsImp0aSI6IjExMTExMTExLTIyMjIt"
        "NDMzMy04NDQ0LTU1NTU1NTU1NTU1NSIsImlzcyI6IlZvbmFnZSIsInBheWxvYWRfaGFzaCI6IjYzNWMzY2NhYjIy"
        "YjQzYzgxZWVhNGFiODQwOWFjZDlkYzkyZjcwYjY3NTJmN2Q4NjFhMzYwYjkxMjE1MzcxZjEiLCJhcGlfa2V5Ijoi"
        "YWJjZDEyMzQiLCJhcHBsaWNhdGlvbl9pZCI6ImFhYWFhYWFhLWJiYmItNGNjYy04ZGRkLWVlZWVlZWVlZWVlZSJ9"
    )
    jti = re.compile(rb'"jti":"[^"]*"')

    assert known.partition(".")[0] == head
    assert jti.sub(b"", base64.urlsafe_b64decode(known.partition(".")[2] + "==")) == jti.sub(
        b"", base64.urlsafe_b64decode(claims + "==")
    )


async def test_a_message_may_have_its_own_address(vonage: Rig) -> None:
    await send(vonage, webhook_url=OWN_HOOK)
    await vonage.run()

    assert {OWN_HOOK} == {sent.url for sent in vonage.post.sent}


async def test_without_any_address_nobody_is_told(make_rig: MakeRig) -> None:
    account = {name: value for name, value in ACCOUNT.items() if name != "status_url"}
    rig = make_rig(accounts={"vonage": account})
    await send(rig)
    await rig.client.post(CALLS, json=call(event_url=None), headers=bearer())
    await rig.run()

    assert 2 == len(rig.sandbox.messages())
    assert [] == rig.post.sent


async def test_a_receipt_not_taken_comes_again_signed_anew(vonage: Rig) -> None:
    vonage.post.answer = lambda sent: 503
    await send(vonage, to="33600000300")
    await vonage.run(120)

    assert [1, 6, 16, 36, 76] == [sent.seconds for sent in vonage.post.sent]
    assert 5 == len({sent.headers["Authorization"] for sent in vonage.post.sent})
    assert 1 == len({sent.content for sent in vonage.post.sent})


async def test_it_knows_no_idempotency(vonage: Rig) -> None:
    answers = [await send(vonage), await send(vonage)]

    assert 2 == len({answer.json()["message_uuid"] for answer in answers})


async def test_a_call(vonage: Rig) -> None:
    response = await ring(vonage)
    answer = response.json()
    await vonage.run()
    sent = vonage.post.sent[-1]

    assert 201 == response.status_code
    assert (vonage.only().id, "started", "outbound") == (
        answer["uuid"],
        answer["status"],
        answer["direction"],
    )
    assert ["ringing", "completed"] == vonage.post.words
    assert {OWN_HOOK} == {one.url for one in vonage.post.sent}
    assert hashlib.sha256(sent.content).hexdigest() == claims_of(sent)["payload_hash"]
    assert {
        "uuid": answer["uuid"],
        "conversation_uuid": answer["conversation_uuid"],
        "to": "33600000000",
        "from": "447700900001",
        "status": "completed",
        "direction": "outbound",
        "timestamp": "2026-03-01T12:00:02.000Z",
        "duration": "9",
        "rate": "0.10000000",
        "price": "0.01500000",
    } == sent.json


async def test_a_call_from_any_number_that_nobody_answers(vonage: Rig) -> None:
    to = [{"type": "phone", "number": "33600000003"}]
    await ring(vonage, to=to, **{"from": None}, random_from_number=True, ringing_timer=30)
    await vonage.run()

    assert ["unanswered"] == vonage.post.words
    assert vonage.only().sender is None


WRONG: list[Any] = [
    {},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer a.b.c"},
    {"Authorization": "Bearer W10.W10.W10"},
    bearer(key="another"),
    bearer({"alg": "none", "typ": "JWT"}),
    bearer({"alg": "HS256", "typ": "JWT"}),
    bearer(application_id="another"),
    bearer(jti=None),
    bearer(iat=None),
    bearer(iat="now"),
    bearer(exp=int(START.timestamp())),
    bearer(exp=int(START.timestamp()) + 90_000),
    bearer(iat=int(START.timestamp()) + 61),
    {"Authorization": "Basic x"},
    {"Authorization": "Basic eDp5"},
]


@pytest.mark.parametrize("headers", WRONG)
async def test_strangers_are_401(vonage: Rig, headers: dict[str, str]) -> None:
    answers = [
        await vonage.client.post(MESSAGES, json=message(), headers=headers),
        await vonage.client.post(CALLS, json=call(), headers=headers),
        await vonage.client.get(BALANCE, headers=headers),
    ]
    problem = answers[0].json()

    assert [401, 401, 401] == [answer.status_code for answer in answers]
    assert "https://developer.nexmo.com/api-errors/#unathorized" == problem["type"]
    assert {"type", "title", "detail", "instance"} == problem.keys()
    assert {"type": "UNAUTHORIZED", "error_title": "Unauthorized"} == answers[1].json()
    assert [] == vonage.sandbox.messages()


async def test_without_an_account_everybody_is_a_stranger(rig: Rig) -> None:
    answers = [
        await rig.client.post(MESSAGES, json=message(), headers=bearer()),
        await rig.client.post(MESSAGES, json=message(), headers=BASIC),
        await rig.client.post(CALLS, json=call(), headers=bearer()),
    ]

    assert [401, 401, 401] == [answer.status_code for answer in answers]


async def test_key_and_secret_do_for_messages_and_the_balance(vonage: Rig) -> None:
    answers = [
        await vonage.client.post(MESSAGES, json=message(), headers=BASIC),
        await vonage.client.post(CALLS, json=call(), headers=BASIC),
        await vonage.client.get(BALANCE, headers=BASIC),
    ]

    assert [202, 401, 200] == [answer.status_code for answer in answers]
    assert {"value": 1_000_000.0, "autoReload": False} == answers[2].json()


def spoiled(**template: Any) -> dict[str, Any]:
    return {**TEMPLATE, "template": {**TEMPLATE["template"], **template}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"channel": None}, "1100"),
        ({"channel": "pigeon"}, "1100"),
        ({"channel": ["sms"]}, "1100"),
        ({"to": None}, "110"),
        ({"to": "+33600000000"}, "110"),
        ({"to": 33600000000}, "110"),
        ({"from": None}, "1120"),
        ({"from": "+447700900001"}, "1120"),
        ({"from": "x" * 51}, "1120"),
        ({"client_ref": "x" * 101}, "1060"),
        ({"client_ref": 7}, "1060"),
        ({"message_type": None}, "1140"),
        ({"message_type": "image"}, "1140"),
        ({"text": None}, "1150"),
        ({"text": "x" * 1001}, "1150"),
        ({"ttl": 19}, "1150"),
        ({"ttl": True}, "1150"),
        ({"webhook_url": "ftp://x"}, "1150"),
        ({"webhook_version": "v2"}, "1150"),
        ({"channel": "messenger", "ttl": 60}, "1150"),
        ({"channel": "messenger", "messenger": 7}, "1150"),
        ({"channel": "messenger", "messenger": {"category": "x"}}, "1150"),
        ({"channel": "messenger", "messenger": {"category": "message_tag"}}, "1150"),
        ({"channel": "viber_service", "viber_service": {"category": "x"}}, "1150"),
        ({"channel": "viber_service", "viber_service": {"ttl": 29}}, "1150"),
        ({"channel": "rcs", "ttl": 60}, "1150"),
        ({"channel": "whatsapp"}, "1140"),
        ({"channel": "whatsapp", "message_type": "template"}, "1150"),
        (
            {
                "channel": "whatsapp",
                "message_type": "template",
                "template": {"name": "otp", "parameters": [123456]},
                "whatsapp": {"policy": "deterministic", "locale": "en"},
            },
            "1150",
        ),
        ({"channel": "whatsapp", "message_type": "custom", "custom": {}}, "1150"),
        ({"channel": "whatsapp", "message_type": "custom", "custom": spoiled(name="")}, "1150"),
        (
            {
                "channel": "whatsapp",
                "message_type": "custom",
                "custom": spoiled(language={"policy": "deterministic", "code": "en-GB"}),
            },
            "1150",
        ),
    ],
)
async def test_wrong_messages(vonage: Rig, fields: dict[str, Any], code: str) -> None:
    response = await send(vonage, **fields)

    assert 422 == response.status_code
    assert code == response.json()["type"].rpartition("#")[2]
    assert [] == vonage.sandbox.messages()


@pytest.mark.parametrize(
    "fields",
    [
        {"to": None},
        {"to": []},
        {"to": [{"type": "sip", "number": "33600000000"}]},
        {"to": [{"type": "phone", "number": "+33600000000"}]},
        {"from": None},
        {"from": {"type": "phone", "number": "ACME"}},
        {"random_from_number": True},
        {"ncco": None},
        {"ncco": [{"action": "record"}]},
        {"ncco": [{"action": "talk", "text": ""}]},
        {"ncco": [{"action": "talk", "text": "x" * 1501}]},
        {"event_url": OWN_HOOK},
        {"event_url": ["ftp://x"]},
        {"ringing_timer": 121},
        {"length_timer": 0},
        {"machine_detection": "beep"},
    ],
)
async def test_wrong_calls(vonage: Rig, fields: dict[str, Any]) -> None:
    response = await ring(vonage, **fields)

    assert (400, "BAD_REQUEST") == (response.status_code, response.json()["type"])
    assert [] == vonage.sandbox.messages()


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
async def test_a_body_that_is_no_json_object(vonage: Rig, body: bytes) -> None:
    message = await vonage.client.post(MESSAGES, content=body, headers=bearer())
    call = await vonage.client.post(CALLS, content=body, headers=bearer())

    assert (422, 400) == (message.status_code, call.status_code)
    assert message.json()["type"].endswith("#invalid-json")


async def test_answers_the_number_asks_for(vonage: Rig) -> None:
    hasty = [await send(vonage, to="33600000800") for _ in range(3)]
    broken = await send(vonage, to="33600000900")
    refused = await send(vonage, to="33600001200")
    no_call = await ring(vonage, to=[{"type": "phone", "number": "33600000012"}])

    assert [429, 429, 202] == [answer.status_code for answer in hasty]
    assert ("1", "Rate Limit Hit") == (hasty[0].headers["retry-after"], hasty[0].json()["title"])
    assert (500, "Internal error") == (broken.status_code, broken.json()["title"])
    assert (422, "1170") == (refused.status_code, refused.json()["type"].rpartition("#")[2])
    assert (400, "BAD_REQUEST") == (no_call.status_code, no_call.json()["type"])


async def test_the_phone_page_shows_it(vonage: Rig) -> None:
    await send(vonage, channel="viber_service")
    page = await vonage.client.get("/phones/+33600000000")

    assert "Viber" in page.text
    assert "123456 is your code" in page.text
