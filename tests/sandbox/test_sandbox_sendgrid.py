"""SendGrid: requests, refusals, signed events."""

import base64
import re
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sandbox.conftest import MakeRig
from sandbox.world import START, Rig, bearer

from gateway.sandbox import Channel
from gateway.sandbox.sendgrid import signature

KEY = ec.derive_private_key(4711, ec.SECP256R1())
ACCOUNT = {
    "api_key": "SG.key",
    "signing_key": base64.b64encode(
        KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    ).decode(),
    "callback_url": "https://otp.example.com/otp/delivered/sendgrid",
}
PATH = "/sendgrid/v3/mail/send"
HEADER = "X-Twilio-Email-Event-Webhook"


def mail(to: str = "anna@example.com", **changes: Any) -> dict[str, Any]:
    return {
        "personalizations": [{"to": [{"email": to}]}],
        "from": {"email": "otp@example.com", "name": "ACME"},
        "subject": "Your code",
        "content": [{"type": "text/plain", "value": "123456 is your code"}],
        "custom_args": {"our_id": "a1"},
        "tracking_settings": {"open_tracking": {"enable": False}},
        **changes,
    }


async def send(rig: Rig, body: Any = None, key: str = "SG.key", **changes: Any) -> httpx.Response:
    content = mail(**changes) if body is None else body
    return await rig.client.post(PATH, json=content, headers=bearer(key))


@pytest.fixture
async def mail_rig(make_rig: MakeRig) -> Rig:
    return make_rig(accounts={"sendgrid": ACCOUNT})


async def test_an_accepted_message(mail_rig: Rig) -> None:
    answer = await send(mail_rig)
    message = mail_rig.only("anna@example.com")

    assert (202, b"", message.id) == (
        answer.status_code,
        answer.content,
        answer.headers["x-message-id"],
    )
    assert "." not in message.id
    assert (Channel.EMAIL, "123456 is your code", "otp@example.com", "a1") == (
        message.channel,
        message.text,
        message.sender,
        message.client_ref,
    )


async def test_an_event(mail_rig: Rig) -> None:
    answer = await send(mail_rig)
    await mail_rig.run()
    sent = mail_rig.post.sent[-1]
    (event,) = httpx.Response(200, content=sent.content).json()

    assert ACCOUNT["callback_url"] == sent.url
    assert {
        "email": "anna@example.com",
        "timestamp": int(START.timestamp()) + 2,
        "event": "delivered",
        "our_id": "a1",
    }.items() <= event.items()
    assert answer.headers["x-message-id"] == event["sg_message_id"].partition(".")[0]


async def test_an_event_is_signed(mail_rig: Rig) -> None:
    """The timestamp and the bytes as they came, to the line end."""
    await send(mail_rig)
    await mail_rig.run()
    sent = mail_rig.post.sent[0]
    stamp, made = sent.headers[f"{HEADER}-Timestamp"], sent.headers[f"{HEADER}-Signature"]
    content = stamp.encode() + sent.content

    KEY.public_key().verify(base64.b64decode(made), content, ec.ECDSA(hashes.SHA256()))
    assert str(int(START.timestamp()) + 1) == stamp
    assert sent.content.endswith(b"]\r\n")


def test_a_key_of_another_kind_is_named() -> None:
    other = ed25519.Ed25519PrivateKey.from_private_bytes(b"1" * 32)
    der = other.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    with pytest.raises(TypeError, match="signing_key"):
        signature(base64.b64encode(der).decode(), "0", b"")


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("00", ["processed", "delivered"]),
        ("01", ["processed", "delivered"]),
        ("02", []),
        ("03", ["bounce"]),
        ("05", ["processed"] * 3 + ["delivered"] * 3),
        ("15", ["sandbox_unheard_of", "delivered"]),
    ],
)
async def test_the_digits_decide(mail_rig: Rig, digits: str, words: list[str]) -> None:
    await send(mail_rig, to=f"anna.{digits}@example.com")
    await mail_rig.run()

    assert words == [posted.word for posted in mail_rig.only().receipts]


async def test_an_open_is_told_where_opens_are_tracked(mail_rig: Rig) -> None:
    await send(mail_rig, to="anna01@example.com", tracking_settings={})
    await mail_rig.run()

    assert "open" == mail_rig.only().receipts[-1].word


async def test_an_event_that_is_not_taken_is_repeated(mail_rig: Rig) -> None:
    mail_rig.post.answer = lambda sent: 500
    await send(mail_rig, to="anna03@example.com")
    await mail_rig.run()

    assert [1, 2, 4, 8] == [sent.seconds for sent in mail_rig.post.sent]


async def test_without_a_callback_url_nobody_is_told(make_rig: MakeRig) -> None:
    rig = make_rig(accounts={"sendgrid": {"api_key": "SG.key"}})
    await send(rig)
    await rig.run()

    assert rig.only().arrived_at
    assert [] == rig.post.sent


@pytest.mark.parametrize(("digits", "status"), [("08", 429), ("09", 500), ("12", 400)])
async def test_refusals_by_the_digits(mail_rig: Rig, digits: str, status: int) -> None:
    answer = await send(mail_rig, to=f"anna{digits}@example.com")

    assert status == answer.status_code
    assert answer.json()["errors"][0]["message"]
    assert ("x-ratelimit-reset" in answer.headers) == (status == 429)
    assert not mail_rig.only().answer.accepts


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"content": []}, "content"),
        ({"content": None}, "content"),
        ({"content": [7]}, "content"),
        ({"content": [{"value": ""}]}, "content"),
        ({"subject": ""}, "subject"),
        ({"personalizations": []}, "personalizations"),
        ({"personalizations": [7]}, "personalizations.0.to"),
        ({"personalizations": [{"to": []}]}, "personalizations.0.to"),
        ({"to": "anna"}, "personalizations.0.to.0.email"),
        ({"to": "+33600000000"}, "personalizations.0.to.0.email"),
        ({"from": {"email": "otp"}}, "from.email"),
        ({"from": None}, "from.email"),
        ({"custom_args": {"a": 1}}, "custom_args"),
        ({"custom_args": []}, "custom_args"),
    ],
)
async def test_wrong_fields(mail_rig: Rig, changes: dict[str, Any], field: str) -> None:
    answer = await send(mail_rig, **changes)
    (error,) = answer.json()["errors"]

    assert (400, field) == (answer.status_code, re.sub(r"\.0$", "", error["field"]))
    assert [] == mail_rig.sandbox.messages()


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
async def test_a_body_that_is_no_json_object(mail_rig: Rig, body: bytes) -> None:
    answer = await mail_rig.client.post(PATH, content=body, headers=bearer("SG.key"))

    assert (400, "Bad Request") == (answer.status_code, answer.json()["errors"][0]["message"])


async def test_a_wrong_key(mail_rig: Rig) -> None:
    assert 401 == (await send(mail_rig, key="SG.other")).status_code


async def test_without_an_account_nobody_gets_in(rig: Rig) -> None:
    assert [401, 401] == [(await send(rig, key=key)).status_code for key in ("SG.key", "None")]
