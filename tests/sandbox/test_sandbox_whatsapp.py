"""WhatsApp: requests, refusals in Meta's words, signed statuses and their repetition."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from sandbox.conftest import MakeRig
from sandbox.world import START, Rig, Sent, bearer

from gateway.sandbox import TABLE, Channel
from gateway.sandbox.whatsapp import signature

CALLBACK = "https://otp.example.com/otp/delivered/whatsapp"
NUMBER = "106540352242922"
URL = f"/whatsapp/v25.0/{NUMBER}/messages"
TOKEN = "whatsapp-token"
ACCOUNT = {
    "token": TOKEN,
    "phone_number_id": NUMBER,
    "app_secret": "whatsapp-secret",
    "callback_url": CALLBACK,
}


@pytest.fixture
def meta(make_rig: MakeRig) -> Rig:
    """A sandbox in which we have an account with Meta."""
    return make_rig(accounts={"whatsapp": ACCOUNT})


def body(to: object = "+33600000000", **changes: object) -> dict[str, Any]:
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": to,
        "type": "template",
        "template": template(),
        "biz_opaque_callback_data": "a1",
        **changes,
    }


def template(**changes: object) -> dict[str, object]:
    return {
        "name": "otp_code",
        "language": {"code": "en_US"},
        "components": [text(), button()],
        **changes,
    }


def text(*codes: object) -> dict[str, object]:
    said = [{"type": "text", "text": code} for code in codes or ("123456",)]
    return {"type": "body", "parameters": said}


def button(**changes: object) -> dict[str, object]:
    return {**text(), "type": "button", "sub_type": "url", "index": "0", **changes}


async def send(
    rig: Rig, to: object = "+33600000000", *, token: str = TOKEN, **changes: object
) -> httpx.Response:
    return await rig.client.post(URL, json=body(to, **changes), headers=bearer(token))


def status(sent: Sent) -> dict[str, Any]:
    found: dict[str, Any] = sent.json["entry"][0]["changes"][0]["value"]["statuses"][0]
    return found


def told(rig: Rig) -> list[tuple[str, float]]:
    return [(status(sent)["status"], sent.seconds) for sent in rig.post.sent]


def code_of(response: httpx.Response) -> tuple[int, int]:
    return response.status_code, response.json()["error"]["code"]


async def test_an_accepted_message(meta: Rig) -> None:
    response = await send(meta)
    message = meta.only()

    assert 200 == response.status_code
    assert re.fullmatch(r"wamid\.[A-Za-z0-9_-]{40}", message.id)
    assert {
        "messaging_product": "whatsapp",
        "contacts": [{"input": "+33600000000", "wa_id": "33600000000"}],
        "messages": [{"id": message.id, "message_status": "accepted"}],
    } == response.json()
    assert (Channel.WHATSAPP, "+33600000000", "123456 is your verification code.", "a1") == (
        message.channel,
        message.number,
        message.text,
        message.client_ref,
    )


async def test_a_recipient_may_come_without_its_plus(meta: Rig) -> None:
    response = await send(meta, "33600000000")

    assert "33600000000" == response.json()["contacts"][0]["input"]
    assert "+33600000000" == meta.only().number


async def test_a_status(meta: Rig) -> None:
    message_id = (await send(meta, "+33600010000")).json()["messages"][0]["id"]
    await meta.run()
    sent = meta.post.sent[1]
    pricing = {
        "billable": True,
        "pricing_model": "PMP",
        "type": "regular",
        "category": "authentication",
    }

    assert CALLBACK == sent.url
    assert "application/json" == sent.headers["Content-Type"]
    assert {
        "object": "whatsapp_business_account",
        "entry": [
            {
                "id": "102290129340398",
                "changes": [
                    {
                        "value": {
                            "messaging_product": "whatsapp",
                            "metadata": {
                                "display_phone_number": "15550783881",
                                "phone_number_id": NUMBER,
                            },
                            "statuses": [
                                {
                                    "id": message_id,
                                    "status": "delivered",
                                    "timestamp": str(int(START.timestamp()) + 2),
                                    "recipient_id": "33600010000",
                                    "biz_opaque_callback_data": "a1",
                                    "pricing": pricing,
                                }
                            ],
                        },
                        "field": "messages",
                    }
                ],
            }
        ],
    } == sent.json
    assert "pricing" not in status(meta.post.sent[2])


async def test_a_failure_names_an_error(meta: Rig) -> None:
    await send(meta, "+33600030000")
    await meta.run()
    (error,) = status(meta.post.sent[0])["errors"]

    assert ("failed", 131000) == (status(meta.post.sent[0])["status"], error["code"])
    assert {"code", "title", "message", "error_data"} == error.keys()


async def test_nothing_is_echoed_that_was_not_given(meta: Rig) -> None:
    await send(meta, biz_opaque_callback_data=None)
    await meta.run()

    assert "biz_opaque_callback_data" not in status(meta.post.sent[0])


async def test_a_status_is_signed(meta: Rig) -> None:
    """Computed here from the words of the documentation, on the bytes as they came."""
    await send(meta)
    await meta.run()
    sent = meta.post.sent[0]
    mac = hmac.digest(b"whatsapp-secret", sent.content, hashlib.sha256).hex()

    assert f"sha256={mac}" == sent.headers["X-Hub-Signature-256"]
    assert sent.content.isascii()


def test_a_signature_made_elsewhere() -> None:
    """printf test | openssl dgst -sha256 -hmac secret"""
    mac = "0329a06b62cd16b33eb6792be8c60b158d89a2ee3a876fce9a881ebb488c0914"

    assert f"sha256={mac}" == signature("secret", b"test")


# digits → (word, seconds after acceptance)…, has the handset got it
DOES: dict[str, tuple[list[tuple[str, float]], bool]] = {
    "00": ([("sent", 1), ("delivered", 2)], True),
    "01": ([("sent", 1), ("delivered", 2), ("read", 3)], True),
    "02": ([], False),
    "03": ([("failed", 1)], False),
    "04": ([("sent", 9), ("delivered", 10)], True),
    "05": ([*[("sent", 1.0)] * 3, *[("delivered", 2.0)] * 3], True),
    "06": ([("delivered", 1), ("sent", 2)], True),
    "07": ([("sent", 0), ("delivered", 0)], True),
    "08": ([], False),
    "09": ([], False),
    "10": ([("sent", 1), ("delivered", 2)], True),
    "11": ([("sent", 1), ("delivered", 2)], True),
    "12": ([], False),
    "13": ([("sent", 1)], False),
    "14": ([("failed", 1), ("delivered", 2)], True),
    "15": ([("sandbox_unheard_of", 1), ("delivered", 10)], True),
}


@pytest.mark.parametrize("digits", DOES)
async def test_a_number_decides_what_happens(meta: Rig, digits: str) -> None:
    words, arrives = DOES[digits]
    call = send(meta, f"+33600{digits}0000")
    if digits == "10":  # it hangs longer than its receipts take
        await _while(meta, call)
    elif digits == "11":
        with pytest.raises(Exception, match="dropped"):
            await call
    else:
        await call
    await meta.run()

    assert words == told(meta)
    assert arrives == (meta.only().arrived_at is not None)


async def _while(rig: Rig, call: Any) -> None:
    task = asyncio.ensure_future(call)
    await rig.clock.advance(60)
    assert 200 == (await task).status_code


def test_every_behaviour_is_in_the_table_above() -> None:
    assert [behaviour.value for behaviour in TABLE] == list(DOES)


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("08", [(429, 130429), (429, 130429), 200]),
        ("09", [(500, 131000)] * 3),
        ("12", [(400, 131026)] * 3),
    ],
)
async def test_a_number_may_be_refused(meta: Rig, digits: str, expected: list[Any]) -> None:
    answers = [await send(meta, f"+33600{digits}0000") for _ in range(3)]

    assert expected == [a.status_code if a.status_code == 200 else code_of(a) for a in answers]
    assert ["1" if code == 429 else None for code in (a.status_code for a in answers)] == [
        answer.headers.get("retry-after") for answer in answers
    ]


async def test_a_status_not_taken_is_repeated_after_1_2_and_4_seconds(meta: Rig) -> None:
    meta.post.answer = lambda sent: 500
    await send(meta, "+33600030000")
    await meta.run()

    assert [1, 2, 4, 8] == [sent.seconds for sent in meta.post.sent]
    assert 1 == len({sent.content for sent in meta.post.sent})


async def test_it_knows_no_idempotency(meta: Rig) -> None:
    answers = [await send(meta), await send(meta)]

    assert 2 == len({answer.json()["messages"][0]["id"] for answer in answers})


async def test_without_a_callback_url_nobody_is_told(make_rig: MakeRig) -> None:
    account = {key: fact for key, fact in ACCOUNT.items() if key != "callback_url"}
    rig = make_rig(accounts={"whatsapp": account})
    await send(rig)
    await rig.run()

    assert rig.only().arrived_at
    assert [] == rig.post.sent


async def test_a_message_is_shown_on_the_phone(meta: Rig) -> None:
    await send(meta)
    await send(meta, "+33600120000")
    await meta.run()
    page = (await meta.client.get("/")).text

    assert "123456 is your verification code." in page
    assert 2 == page.count(">WhatsApp<")


# Refusals.


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x"])
async def test_a_wrong_token_is_refused(meta: Rig, token: str) -> None:
    answers = [
        await send(meta, token=token),
        await meta.client.get(f"/whatsapp/v25.0/{NUMBER}", headers=bearer(token)),
    ]

    assert [(401, 190)] * 2 == [code_of(answer) for answer in answers]
    assert [] == meta.sandbox.messages()


@pytest.mark.parametrize("token", ["", TOKEN])
async def test_without_an_account_every_call_is_refused(rig: Rig, token: str) -> None:
    assert (401, 190) == code_of(await send(rig, token=token))


async def test_our_number_can_be_looked_at(meta: Rig) -> None:
    response = await meta.client.get(f"/whatsapp/v25.0/{NUMBER}?fields=id", headers=bearer(TOKEN))

    assert {"id": NUMBER} == response.json()


async def test_another_number_is_not_ours(meta: Rig) -> None:
    response = await meta.client.post(
        "/whatsapp/v25.0/9/messages", json=body(), headers=bearer(TOKEN)
    )

    assert (400, 100) == code_of(response)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"messaging_product": None}, 100),
        ({"messaging_product": "sms"}, 100),
        ({"recipient_type": "group"}, 100),
        ({"type": "text"}, 131009),
        ({"to": None}, 131009),
        ({"to": 33600000000}, 131009),
        ({"to": "0600000000"}, 131009),
        ({"template": None}, 131008),
        ({"template": template(name=7)}, 131008),
        ({"template": template(language="en_US")}, 131008),
        ({"template": template(language={"code": None})}, 131008),
        ({"template": template(components=None)}, 132000),
        ({"template": template(components=7)}, 132000),
        ({"template": template(components=[7, button()])}, 132000),
        ({"template": template(components=[text("1", "2"), button()])}, 132000),
        ({"template": template(components=[text(7), button()])}, 132000),
        ({"template": template(components=[{"type": "body"}, button()])}, 132000),
        ({"template": template(components=[text()])}, 131008),
        ({"template": template(components=[text(), button(index="1")])}, 131008),
        ({"template": template(components=[text(), button(sub_type="quick_reply")])}, 131008),
        ({"template": template(components=[text(), button(parameters=[])])}, 131008),
        ({"template": template(components=[text("1" * 16), button()])}, 131009),
        ({"template": template(components=[text(""), button()])}, 131009),
        ({"biz_opaque_callback_data": 7}, 100),
        ({"biz_opaque_callback_data": "x" * 513}, 100),
    ],
)
async def test_wrong_fields(meta: Rig, changes: Mapping[str, Any], code: int) -> None:
    response = await send(meta, **{"to": "+33600000000", **changes})
    error = response.json()["error"]

    assert (400, code) == code_of(response)
    assert error["error_data"]["details"]
    assert error["message"].startswith(f"(#{code}) ")
    assert [] == meta.sandbox.messages()


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
async def test_a_body_that_is_no_json_object(meta: Rig, content: bytes) -> None:
    response = await meta.client.post(URL, content=content, headers=bearer(TOKEN))

    assert (400, 100) == code_of(response)


async def test_only_approved_templates_are_sent(make_rig: MakeRig) -> None:
    account = {**ACCOUNT, "templates": "otp_code:en_US otp_code:fr otp_login:en_US"}
    rig = make_rig(accounts={"whatsapp": account})
    tried = [("otp_code", "fr"), ("otp_login", "fr"), ("otp", "en_US")]
    answers = [
        await send(rig, template=template(name=name, language={"code": language}))
        for name, language in tried
    ]

    assert [200, 404, 404] == [answer.status_code for answer in answers]
    assert [132001, 132001] == [answer.json()["error"]["code"] for answer in answers[1:]]
