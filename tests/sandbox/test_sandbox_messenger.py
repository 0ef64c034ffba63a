"""The messenger: requests, answers, signed callbacks and their repetition."""

import hashlib
import hmac
import re
from datetime import datetime
from typing import Any

import orjson
import pytest
from sandbox.world import MESSENGER, MESSENGER_CALLBACK, SECRET, START, Rig, Sent, bearer

from gateway.sandbox import Channel
from gateway.sandbox.messenger import signature


async def test_an_accepted_message(rig: Rig) -> None:
    response = await rig.messenger(ttl=60)
    answer = response.json()
    message = rig.only()

    assert 202 == response.status_code
    assert re.fullmatch(r"m_[0-9a-f]{24}", answer["message_id"])
    assert {"message_id": message.id, "status": "accepted"} == answer
    assert (Channel.MESSENGER, "123456 is your code", "a1") == (
        message.channel,
        message.text,
        message.client_ref,
    )


async def test_a_callback(rig: Rig) -> None:
    message_id = (await rig.messenger("+33600010000")).json()["message_id"]
    await rig.run()
    sent = rig.post.sent[-1]

    assert MESSENGER_CALLBACK == sent.url
    assert "application/json" == sent.headers["Content-Type"]
    assert {
        "statuses": [
            {
                "message_id": message_id,
                "client_ref": "a1",
                "status": "read",
                "time": "2026-03-01T12:00:03.000Z",
            }
        ]
    } == sent.json


async def test_a_failure_names_an_error(rig: Rig) -> None:
    await rig.messenger("+33600030000")
    await rig.run()

    (status,) = rig.post.sent[0].json["statuses"]
    assert ("failed", "undeliverable") == (status["status"], status["error"])


async def test_a_callback_is_signed(rig: Rig) -> None:
    """Computed here from the words of the documentation, on the bytes as they came."""
    await rig.messenger()
    await rig.run()
    sent = rig.post.sent[0]
    stamp, mac = sent.headers["X-Messenger-Signature"].split(",")
    seconds = int(START.timestamp()) + 1
    signed = b"%d." % seconds + sent.content

    assert f"t={seconds}" == stamp
    assert "v1=" + hmac.digest(SECRET.encode(), signed, hashlib.sha256).hex() == mac


def test_a_signature_made_elsewhere() -> None:
    """printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key"""
    made = signature("key", datetime.fromisoformat("2023-11-14T22:13:20.9Z"), b'{"a":1}')

    assert VECTOR == made


VECTOR = "t=1700000000,v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03"


async def test_a_callback_not_taken_is_repeated_after_1_2_and_4_seconds(rig: Rig) -> None:
    rig.post.answer = lambda sent: 500
    await rig.messenger("+33600030000")
    await rig.run()

    assert [1, 2, 4, 8] == [sent.seconds for sent in rig.post.sent]
    assert 1 == len({sent.content for sent in rig.post.sent})
    assert 4 == len({sent.headers["X-Messenger-Signature"] for sent in rig.post.sent})
    assert [500] * 4 == [receipt.http for receipt in rig.only().receipts]


async def test_repetition_ends_when_it_is_taken_and_holds_nothing_up(rig: Rig) -> None:
    def busy(sent: Sent) -> int:
        return 503 if sent.word == "sent" and sent.seconds < 2 else 204

    rig.post.answer = busy
    await rig.messenger()
    await rig.run()

    assert [("sent", 1), ("delivered", 2), ("sent", 2)] == [
        (sent.word, sent.seconds) for sent in rig.post.sent
    ]


async def test_nobody_there_is_recorded_and_repeated(rig: Rig) -> None:
    def refuse(sent: Sent) -> int:
        raise ConnectionRefusedError

    rig.post.answer = refuse
    await rig.messenger("+33600030000")
    await rig.run()

    assert [None] * 4 == [receipt.http for receipt in rig.only().receipts]


async def test_any_error_of_the_client_is_nobody_there(rig: Rig) -> None:
    class ClientError(Exception):
        pass

    def refuse(sent: Sent) -> int:
        raise ClientError

    rig.post.answer = refuse
    await rig.sms()
    await rig.run()

    assert [None, None] == [receipt.http for receipt in rig.only().receipts]


async def test_without_a_callback_url_nobody_is_told(rig: Rig) -> None:
    await rig.messenger(callback_url=None, client_ref=None)
    await rig.run()

    assert rig.only().arrived_at
    assert [] == rig.post.sent


async def test_it_knows_no_idempotency(rig: Rig) -> None:
    answers = [await rig.messenger(), await rig.messenger()]

    assert [202, 202] == [answer.status_code for answer in answers]
    assert 2 == len({answer.json()["message_id"] for answer in answers})


@pytest.mark.parametrize(
    ("digits", "seconds", "status", "time"),
    [
        ("00", 0, "accepted", "12:00:00"),
        ("00", 1, "sent", "12:00:01"),
        ("01", 9, "read", "12:00:03"),
        ("02", 9, "accepted", "12:00:00"),
        ("03", 9, "failed", "12:00:01"),
        ("06", 9, "delivered", "12:00:01"),
        ("14", 9, "delivered", "12:00:02"),
    ],
)
async def test_a_message_can_be_asked_about(
    rig: Rig, digits: str, seconds: float, status: str, time: str
) -> None:
    message_id = (await rig.messenger(f"+33600{digits}0000")).json()["message_id"]
    await rig.clock.advance(seconds)
    response = await rig.client.get(f"{MESSENGER}/{message_id}", headers=bearer())
    answer = response.json()

    assert 200 == response.status_code
    assert {
        "message_id": message_id,
        "client_ref": "a1",
        "status": status,
        "time": f"2026-03-01T{time}.000Z",
    } == {name: value for name, value in answer.items() if name != "error"}


async def test_only_its_own_accepted_messages_can_be_asked_about(rig: Rig) -> None:
    sms = (await rig.sms()).json()["sms_ticket"]
    await rig.messenger("+33600120000")
    refused = rig.only("+33600120000").id
    answers = [
        await rig.client.get(f"{MESSENGER}/{message_id}", headers=bearer())
        for message_id in (sms, refused, "m_0")
    ]

    assert [(404, {"error": "not_found"})] * 3 == [(a.status_code, a.json()) for a in answers]


@pytest.mark.parametrize("headers", [{}, bearer("wrong"), {"Authorization": "Basic eDp5"}])
async def test_a_wrong_token_is_401(rig: Rig, headers: dict[str, str]) -> None:
    answers = [
        await rig.client.post(MESSENGER, json={"to": "+33600000000"}, headers=headers),
        await rig.client.get(f"{MESSENGER}/m_0", headers=headers),
    ]

    assert [(401, {"error": "unauthorized"})] * 2 == [(a.status_code, a.json()) for a in answers]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"to": None}, "invalid_recipient"),
        ({"to": "0600000000"}, "invalid_recipient"),
        ({"to": 33600000000}, "invalid_recipient"),
        ({"text": None}, "invalid_request"),
        ({"text": ""}, "invalid_request"),
        ({"text": "x" * 4097}, "invalid_request"),
        ({"callback_url": "ftp://example.com"}, "invalid_request"),
        ({"callback_url": "https://"}, "invalid_request"),
        ({"callback_url": 7}, "invalid_request"),
        ({"client_ref": 7}, "invalid_request"),
        ({"client_ref": "x" * 129}, "invalid_request"),
        ({"ttl": 0}, "invalid_request"),
        ({"ttl": 86_401}, "invalid_request"),
        ({"ttl": True}, "invalid_request"),
        ({"ttl": "60"}, "invalid_request"),
    ],
)
async def test_wrong_fields(rig: Rig, fields: dict[str, Any], error: str) -> None:
    response = await rig.messenger(**fields)

    assert (400, error) == (response.status_code, response.json()["error"])
    assert response.json()["message"]
    assert [] == rig.sandbox.messages()


@pytest.mark.parametrize("body", [b"", b"{", orjson.dumps([])])
async def test_a_body_that_is_no_json_object(rig: Rig, body: bytes) -> None:
    response = await rig.client.post(MESSENGER, content=body, headers=bearer())

    assert (400, "invalid_request") == (response.status_code, response.json()["error"])
