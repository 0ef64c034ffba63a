"""Telnyx as the sandbox plays it: requests, answers, signed webhooks."""

import base64
from typing import Any

import httpx
import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sandbox.conftest import MakeRig
from sandbox.world import START, Rig, Sent

from gateway.sandbox.generic import MESSAGES, public_key

KEY = base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()
ACCOUNT = {"api_key": "KEY-1", "private_key": KEY}
WEBHOOK = "https://otp.example.com/otp/delivered/telnyx/token"


@pytest.fixture
def telnyx(make_rig: MakeRig) -> Rig:
    return make_rig(accounts={"generic": ACCOUNT})


async def send(
    rig: Rig, number: str = "+33600000000", key: str = "KEY-1", **fields: Any
) -> httpx.Response:
    body = {"from": "ACME", "to": number, "text": "123456 is your code", "webhook_url": WEBHOOK}
    headers = {"Authorization": f"Bearer {key}"}
    return await rig.client.post(MESSAGES, json={**body, **fields}, headers=headers)


def words(rig: Rig) -> list[str]:
    return [sent.json["data"]["payload"]["to"][0]["status"] for sent in rig.post.sent]


def verify(sent: Sent) -> None:
    """Raises InvalidSignature. From the words of the vendor's page, on the bytes as they came."""
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key(KEY)))
    signed = sent.headers["telnyx-timestamp"].encode() + b"|" + sent.content
    public.verify(base64.b64decode(sent.headers["telnyx-signature-ed25519"]), signed)


async def test_an_accepted_message(telnyx: Rig) -> None:
    response = await send(telnyx)
    answer = response.json()["data"]
    message = telnyx.only()

    assert 200 == response.status_code
    assert message.id == answer["id"]
    assert [{"phone_number": "+33600000000", "status": "queued"}] == answer["to"]
    assert ("ACME", "123456 is your code") == (message.sender, message.text)


async def test_a_webhook_is_signed(telnyx: Rig) -> None:
    await send(telnyx)
    await telnyx.run()
    sent = telnyx.post.sent[-1]

    verify(sent)
    with pytest.raises(InvalidSignature):
        verify(Sent(sent.url, sent.content + b" ", sent.headers, sent.seconds))
    assert WEBHOOK == sent.url
    assert str(int(START.timestamp()) + 2) == sent.headers["telnyx-timestamp"]
    assert ["message.sent", "message.finalized"] == [
        one.json["data"]["event_type"] for one in telnyx.post.sent
    ]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("+33600000000", ["sent", "delivered"]),
        ("+33600000200", []),
        ("+33600000300", ["delivery_failed"]),
        ("+33600001500", ["sandbox_unheard_of", "delivered"]),
    ],
)
async def test_the_number_decides(telnyx: Rig, number: str, expected: list[str]) -> None:
    await send(telnyx, number)
    await telnyx.run()

    assert expected == words(telnyx)


async def test_a_failure_names_an_error(telnyx: Rig) -> None:
    await send(telnyx, "+33600000300")
    await telnyx.run()

    assert [{"code": "40008", "title": "Undeliverable"}] == telnyx.post.sent[0].json["data"][
        "payload"
    ]["errors"]


async def test_one_not_taken_is_repeated_and_signed_anew(telnyx: Rig) -> None:
    telnyx.post.answer = lambda sent: 500
    await send(telnyx, "+33600000300")
    await telnyx.run()

    assert [1, 2, 4, 8] == [sent.seconds for sent in telnyx.post.sent]
    assert 4 == len({sent.headers["telnyx-timestamp"] for sent in telnyx.post.sent})


async def test_without_a_webhook_url_nobody_is_told(telnyx: Rig) -> None:
    await send(telnyx, webhook_url=None)
    await telnyx.run()

    assert telnyx.only().arrived_at
    assert [] == telnyx.post.sent


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        ("+33600000800", 429, "10011"),
        ("+33600000900", 500, "10007"),
        ("+33600001200", 400, "10002"),
    ],
)
async def test_numbers_that_are_refused(telnyx: Rig, number: str, status: int, code: str) -> None:
    response = await send(telnyx, number)

    assert (status, code) == (response.status_code, response.json()["errors"][0]["code"])


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"from": None}, "10004"),
        ({"to": None}, "10004"),
        ({"to": ["+33600000000"]}, "10004"),
        ({"to": "0600000000"}, "10016"),
        ({"text": ""}, "10004"),
        ({"text": "x" * 1601}, "40302"),
        ({"webhook_url": "ftp://example.com"}, "10003"),
        ({"webhook_url": 7}, "10003"),
    ],
)
async def test_wrong_fields(telnyx: Rig, fields: dict[str, Any], code: str) -> None:
    response = await send(telnyx, **fields)

    assert (422, code) == (response.status_code, response.json()["errors"][0]["code"])
    assert [] == telnyx.sandbox.messages()


@pytest.mark.parametrize("body", [b"", b"{", orjson.dumps([])])
async def test_a_body_that_is_no_json_object(telnyx: Rig, body: bytes) -> None:
    headers = {"Authorization": "Bearer KEY-1"}
    response = await telnyx.client.post(MESSAGES, content=body, headers=headers)

    assert (400, "10015") == (response.status_code, response.json()["errors"][0]["code"])


async def test_a_wrong_key_is_refused_and_without_an_account_every_key(
    telnyx: Rig, rig: Rig
) -> None:
    answers = [await send(telnyx, key="KEY-2"), await send(rig), await send(rig, key="")]

    assert [(401, "10009")] * 3 == [
        (answer.status_code, answer.json()["errors"][0]["code"]) for answer in answers
    ]
