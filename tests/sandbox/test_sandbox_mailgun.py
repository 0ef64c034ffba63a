"""Mailgun: requests, refusals, events."""

import hashlib
import hmac
from typing import Any

import httpx
import pytest
from sandbox.conftest import MakeRig
from sandbox.world import START, Rig

from gateway.sandbox import Channel
from gateway.sandbox.mailgun import signature

ACCOUNT = {
    "api_key": "key-0123",
    "domain": "mg.example.com",
    "signing_key": "the-signing-key",
    "callback_url": "https://otp.example.com/otp/delivered/mailgun/secret",
}
PATH = "/mailgun/v3/mg.example.com/messages"


async def send(
    rig: Rig, to: str = "anna@example.com", key: str = "key-0123", path: str = PATH, **fields: Any
) -> httpx.Response:
    form = {
        "from": '"ACME" <otp@mg.example.com>',
        "to": to,
        "subject": "Your code",
        "text": "123456 is your code",
        "o:tracking": "no",
        "v:our_id": "a1",
        **fields,
    }
    return await rig.client.post(path, data=form, auth=("api", key))


@pytest.fixture
async def mail_rig(make_rig: MakeRig) -> Rig:
    return make_rig(accounts={"mailgun": ACCOUNT})


async def test_an_accepted_message(mail_rig: Rig) -> None:
    answer = await send(mail_rig)
    message = mail_rig.only("anna@example.com")

    assert (200, {"id": f"<{message.id}>", "message": "Queued. Thank you."}) == (
        answer.status_code,
        answer.json(),
    )
    assert (Channel.EMAIL, "123456 is your code", '"ACME" <otp@mg.example.com>', "a1") == (
        message.channel,
        message.text,
        message.sender,
        message.client_ref,
    )


async def test_an_event(mail_rig: Rig) -> None:
    await send(mail_rig)
    await mail_rig.run()
    sent = mail_rig.post.sent[-1]
    event = sent.json["event-data"]

    assert ACCOUNT["callback_url"] == sent.url
    assert {
        "event": "delivered",
        "recipient": "anna@example.com",
        "timestamp": START.timestamp() + 2,
        "user-variables": {"our_id": "a1"},
    }.items() <= event.items()
    assert mail_rig.only().id == event["message"]["headers"]["message-id"]


async def test_an_event_comes_with_a_signed_token(mail_rig: Rig) -> None:
    await send(mail_rig)
    await mail_rig.run()
    given = [sent.json["signature"] for sent in mail_rig.post.sent]

    for one in given:
        content = f"{one['timestamp']}{one['token']}".encode()
        assert hmac.new(b"the-signing-key", content, hashlib.sha256).hexdigest() == one["signature"]
    assert 50 == len(given[0]["token"])
    assert 2 == len({one["token"] for one in given})


def test_a_signature_made_elsewhere() -> None:
    """From the fact sheet, where the vendor's own library made it."""
    made = signature("key-test-0123456789abcdef", "1735740000", "a" * 50)

    assert "231f79c303ccc9a53758f8c9407ee7edf2ae4d0358b4e0a884b88ef2d092430d" == made


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("00", ["accepted", "delivered"]),
        ("01", ["accepted", "delivered"]),
        ("02", []),
        ("03", ["failed"]),
        ("05", ["accepted"] * 3 + ["delivered"] * 3),
        ("15", ["sandbox_unheard_of", "delivered"]),
    ],
)
async def test_the_digits_decide(mail_rig: Rig, digits: str, words: list[str]) -> None:
    await send(mail_rig, f"anna.{digits}@example.com")
    await mail_rig.run()

    assert words == [posted.word for posted in mail_rig.only().receipts]


async def test_an_opening_is_told_where_it_is_tracked(mail_rig: Rig) -> None:
    await send(mail_rig, "anna01@example.com", **{"o:tracking": "yes"})
    await mail_rig.run()

    assert "opened" == mail_rig.only().receipts[-1].word


async def test_without_a_callback_url_nobody_is_told(make_rig: MakeRig) -> None:
    rig = make_rig(accounts={"mailgun": {"api_key": "key-0123", "domain": "mg.example.com"}})
    await send(rig)
    await rig.run()

    assert rig.only().arrived_at
    assert [] == rig.post.sent


@pytest.mark.parametrize(("digits", "status"), [("08", 429), ("09", 500), ("12", 400)])
async def test_refusals_by_the_digits(mail_rig: Rig, digits: str, status: int) -> None:
    answer = await send(mail_rig, f"anna{digits}@example.com")

    assert status == answer.status_code
    assert answer.json()["message"]
    assert not mail_rig.only().answer.accepts


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"to": "anna"}, "to parameter is not a valid address"),
        ({"to": "+33600000000"}, "to parameter is not a valid address"),
        ({"from": "ACME"}, "from parameter is not a valid address"),
        ({"text": ""}, "Need at least one of 'text' or 'html'"),
    ],
)
async def test_wrong_fields(mail_rig: Rig, fields: dict[str, str], message: str) -> None:
    answer = await send(mail_rig, **fields)

    assert 400 == answer.status_code
    assert answer.json()["message"].startswith(message)
    assert [] == mail_rig.sandbox.messages()


@pytest.mark.parametrize("body", [b"", b"hello", b"\xff=1"])
async def test_a_body_that_is_no_form(mail_rig: Rig, body: bytes) -> None:
    answer = await mail_rig.client.post(PATH, content=body, auth=("api", "key-0123"))

    assert (400, "from parameter is missing") == (answer.status_code, answer.json()["message"])


async def test_a_wrong_key(mail_rig: Rig) -> None:
    answer = await send(mail_rig, key="key-other")

    assert (401, "Forbidden") == (answer.status_code, answer.text)


async def test_another_domain(mail_rig: Rig) -> None:
    answer = await send(mail_rig, path="/mailgun/v3/example.org/messages")

    assert (404, "Domain not found: example.org") == (answer.status_code, answer.json()["message"])


async def test_without_an_account_nobody_gets_in(rig: Rig) -> None:
    assert [401, 401] == [(await send(rig, key=key)).status_code for key in ("key-0123", "None")]
