"""Twilio: requests, answers, signed callbacks and their repetition."""

import base64
import hashlib
import hmac
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest
from sandbox.conftest import MakeRig
from sandbox.world import Rig, Sent

from gateway.sandbox import Channel
from gateway.sandbox.twilio import signature

SID = "AC00000000000000000000000000000001"
TOKEN = "twilio-token"
KEY = "SK00000000000000000000000000000001"
HX = "HX00000000000000000000000000000001"
MG = "MG00000000000000000000000000000001"
ACCOUNT = {"account_sid": SID, "auth_token": TOKEN, "api_key": KEY, "api_secret": "key-secret"}
BASE = f"/twilio/2010-04-01/Accounts/{SID}"
CALLBACK = "https://otp.example.com/otp/delivered/twilio/token"
SENDER = "+15017250604"
TWIML = "<Response><Pause/><Say>1, 2 &amp; 3</Say><Say>again</Say></Response>"


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig(accounts={"twilio": ACCOUNT})


async def post(
    rig: Rig, path: str, fields: dict[str, Any], auth: tuple[str, str] = (SID, TOKEN)
) -> httpx.Response:
    given = {name: value for name, value in fields.items() if value is not None}
    return await rig.client.post(
        f"{BASE}{path}",
        content=urlencode(given, doseq=True),
        headers={"content-type": "application/x-www-form-urlencoded"},
        auth=auth,
    )


async def sms(rig: Rig, number: str = "+33600000000", **fields: Any) -> httpx.Response:
    body = {
        "To": number,
        "From": SENDER,
        "Body": "123456 is your code",
        "ValidityPeriod": 60,
        "StatusCallback": f"{CALLBACK}#rc=3&rp=all",
    }
    return await post(rig, "/Messages.json", body | fields)


async def whatsapp(rig: Rig, number: str = "+33600000000", **fields: Any) -> httpx.Response:
    return await sms(rig, f"whatsapp:{number}", **{"From": f"whatsapp:{SENDER}", **fields})


async def call(rig: Rig, number: str = "+33600000000", **fields: Any) -> httpx.Response:
    body = {
        "To": number,
        "From": SENDER,
        "Twiml": TWIML,
        "Timeout": 20,
        "StatusCallback": f"{CALLBACK}#rc=3&rp=all",
        "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
        "MachineDetection": "Enable",
    }
    return await post(rig, "/Calls.json", body | fields)


def form(sent: Sent) -> dict[str, str]:
    return dict(parse_qsl(sent.content.decode(), keep_blank_values=True, strict_parsing=True))


def words(rig: Rig) -> list[str]:
    forms = map(form, rig.post.sent)
    return [fields.get("MessageStatus") or fields["CallStatus"] for fields in forms]


async def test_an_accepted_message(rig: Rig) -> None:
    response = await sms(rig)
    answer, message = response.json(), rig.only()

    assert 201 == response.status_code
    assert re.fullmatch("SM[0-9a-f]{32}", answer["sid"])
    assert (message.id, "queued", None, None) == (
        answer["sid"],
        answer["status"],
        answer["error_code"],
        answer["price"],
    )
    assert (Channel.SMS, "+33600000000", "123456 is your code", SENDER) == (
        message.channel,
        message.number,
        message.text,
        message.sender,
    )


async def test_an_accepted_call(rig: Rig) -> None:
    response = await call(rig)

    assert 201 == response.status_code
    assert re.fullmatch("CA[0-9a-f]{32}", response.json()["sid"])
    assert (Channel.VOICE, "1, 2 & 3 again") == (rig.only().channel, rig.only().text)


async def test_a_template_is_filled_in(rig: Rig) -> None:
    await whatsapp(rig, Body=None, ContentSid=HX, ContentVariables='{"1":"123456"}')

    assert (Channel.WHATSAPP, "123456 is your verification code.") == (
        rig.only().channel,
        rig.only().text,
    )


async def test_a_callback_of_an_sms(rig: Rig) -> None:
    sid = (await sms(rig)).json()["sid"]
    await rig.run()
    sent = rig.post.sent[-1]

    assert CALLBACK == sent.url
    assert {
        "AccountSid": SID,
        "ApiVersion": "2010-04-01",
        "From": SENDER,
        "To": "+33600000000",
        "MessageSid": sid,
        "SmsSid": sid,
        "MessageStatus": "delivered",
        "SmsStatus": "delivered",
        "RawDlrDoneDate": "2603011200",
    } == form(sent)


async def test_a_callback_of_a_whatsapp_message(rig: Rig) -> None:
    await whatsapp(rig, "+33600010000", From=None, MessagingServiceSid=MG)
    await rig.run()
    read = form(rig.post.sent[-1])

    assert ["sent", "delivered", "read"] == words(rig)
    assert ("READ", "whatsapp", "whatsapp:+33600010000", "+3360001XXXX", MG) == (
        read["EventType"],
        read["ChannelPrefix"],
        read["To"],
        read["ChannelToAddress"],
        read["MessagingServiceSid"],
    )


async def test_a_callback_of_a_call(rig: Rig) -> None:
    await call(rig)
    await rig.run()
    end = form(rig.post.sent[-1])

    assert ["ringing", "completed"] == words(rig)
    assert ["1", "3"] == [form(sent)["SequenceNumber"] for sent in rig.post.sent]
    assert ("12", "human", "Sun, 01 Mar 2026 12:00:02 +0000") == (
        end["CallDuration"],
        end["AnsweredBy"],
        end["Timestamp"],
    )


async def test_of_a_call_only_what_was_asked_for_is_told(rig: Rig) -> None:
    await call(rig, StatusCallbackEvent=None, MachineDetection=None)
    await rig.run()

    assert ["completed"] == words(rig)
    assert "AnsweredBy" not in form(rig.post.sent[0])


async def test_failures_have_their_codes(rig: Rig) -> None:
    await sms(rig, "+33600000300")
    await whatsapp(rig, "+33600030000")
    await call(rig, "+33600000003")
    await rig.run()
    told = {tuple(form(sent).get(n, "") for n in FAILURE) for sent in rig.post.sent}

    assert {("undelivered", "", "30003", ""), ("undelivered", "", "63003", "")} < told
    assert ("", "no-answer", "", "487") in told


FAILURE = ("MessageStatus", "CallStatus", "ErrorCode", "SipResponseCode")


async def test_a_callback_is_signed(rig: Rig) -> None:
    """Computed here from the words of the documentation, without the fragment."""
    await sms(rig)
    await rig.run()
    sent = rig.post.sent[0]
    text = CALLBACK + "".join(name + value for name, value in sorted(form(sent).items()))
    mac = hmac.new(TOKEN.encode(), text.encode(), hashlib.sha1).digest()

    assert base64.b64encode(mac).decode() == sent.headers["X-Twilio-Signature"]


def test_a_signature_made_elsewhere() -> None:
    """The example of the vendor's page."""
    fields = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675310",
        "Digits": "1234",
        "From": "+14158675310",
        "To": "+18005551212",
    }
    made = signature("12345", "https://example.com/myapp.php?foo=1&bar=2", fields)

    assert "L/OH5YylLD5NRKLltdqwSvS0BnU=" == made


@pytest.mark.parametrize(
    ("fragment", "times"),
    [
        ("#rc=3&rp=all", [1, 2, 3, 4]),
        ("#rp=4xx,5xx&rc=1", [1, 2]),
        ("#rc=9&rp=all", [1, 2, 3, 4, 5, 6]),
        ("#rc=2", [1]),
        ("#rc=2&rp=ct", [1]),
        ("#rc=x&rp=all", [1]),
        ("", [1]),
    ],
)
async def test_a_callback_not_taken_is_repeated_as_the_fragment_says(
    rig: Rig, fragment: str, times: list[float]
) -> None:
    rig.post.answer = lambda sent: 503
    await sms(rig, "+33600000300", StatusCallback=CALLBACK + fragment)
    await rig.run()

    assert times == [sent.seconds for sent in rig.post.sent]
    assert 1 == len({sent.content for sent in rig.post.sent})
    assert 1 == len({sent.headers["I-Twilio-Idempotency-Token"] for sent in rig.post.sent})


async def test_two_events_have_two_tokens(rig: Rig) -> None:
    await sms(rig)
    await rig.run()

    assert 2 == len({sent.headers["I-Twilio-Idempotency-Token"] for sent in rig.post.sent})


async def test_without_a_callback_url_nobody_is_told(rig: Rig) -> None:
    await sms(rig, StatusCallback=None)
    await rig.run()

    assert rig.only().arrived_at
    assert [] == rig.post.sent


@pytest.mark.parametrize(
    ("digits", "told"),
    [
        ("00", ["sent", "delivered"]),
        ("02", []),
        ("05", ["sent"] * 3 + ["delivered"] * 3),
        ("06", ["delivered", "sent"]),
        ("07", ["sent", "delivered"]),
        ("13", ["sent"]),
        ("14", ["undelivered", "delivered"]),
        ("15", ["sandbox_unheard_of", "delivered"]),
    ],
)
async def test_the_number_decides(rig: Rig, digits: str, told: list[str]) -> None:
    await sms(rig, f"+3360000{digits}00")
    await rig.run()

    assert told == words(rig)


@pytest.mark.parametrize(
    ("send", "digits", "status", "code"),
    [
        (sms, "+33600001200", 400, 21610),
        (whatsapp, "+33600120000", 400, 21211),
        (call, "+33600000012", 400, 21214),
        (sms, "+33600000900", 500, 20500),
        (sms, "+33600000800", 429, 20429),
    ],
)
async def test_a_number_may_refuse(
    rig: Rig, send: Any, digits: str, status: int, code: int
) -> None:
    response = await send(rig, digits)
    answer = response.json()

    assert (status, code, status) == (response.status_code, answer["code"], answer["status"])
    assert f"https://www.twilio.com/docs/errors/{code}" == answer["more_info"]
    assert [] == rig.post.sent


async def test_throttling_ends(rig: Rig) -> None:
    answers = [await sms(rig, "+33600000800") for _ in range(3)]

    assert [429, 429, 201] == [answer.status_code for answer in answers]
    assert ["1", "1", None] == [answer.headers.get("Retry-After") for answer in answers]


@pytest.mark.parametrize(
    ("send", "fields", "code"),
    [
        (sms, {"To": "0600000000"}, 21211),
        (sms, {"To": None}, 21211),
        (sms, {"From": None}, 21603),
        (sms, {"From": "§"}, 21212),
        (sms, {"From": None, "MessagingServiceSid": HX}, 21701),
        (sms, {"From": f"whatsapp:{SENDER}"}, 21910),
        (whatsapp, {"From": SENDER}, 21910),
        (sms, {"Body": None}, 21602),
        (sms, {"Body": "x" * 1601}, 21617),
        (sms, {"ValidityPeriod": 0}, 90007),
        (sms, {"ValidityPeriod": 36_001}, 90007),
        (sms, {"ValidityPeriod": "soon"}, 90007),
        (sms, {"StatusCallback": "ftp://example.com"}, 21609),
        (sms, {"StatusCallback": "https://otp_1.example.com/x"}, 21609),
        (whatsapp, {"ContentSid": MG, "ContentVariables": '{"1":"1"}'}, 21655),
        (whatsapp, {"ContentSid": HX}, 21656),
        (whatsapp, {"ContentSid": HX, "ContentVariables": "[]"}, 21656),
        (whatsapp, {"ContentSid": HX, "ContentVariables": '{"1":1}'}, 21656),
        (call, {"To": "whatsapp:+33600000000"}, 21217),
        (call, {"From": "ACME"}, 21212),
        (call, {"Twiml": None}, 21205),
        (call, {"Twiml": "<Response><Say>R&D</Say></Response>"}, 12100),
        (call, {"Twiml": "<Response/>"}, 12100),
        (call, {"Twiml": "<Say>1</Say>"}, 12100),
        (call, {"Twiml": "<!DOCTYPE Response><Response><Say>1</Say></Response>"}, 12100),
        (call, {"Twiml": f"<Response><Say>{'1' * 4000}</Say></Response>"}, 12100),
        (call, {"Timeout": 601}, 20001),
        (call, {"StatusCallbackEvent": ["hung-up"]}, 20001),
        (call, {"StatusCallback": "nowhere"}, 21609),
    ],
)
async def test_wrong_fields(rig: Rig, send: Any, fields: dict[str, Any], code: int) -> None:
    response = await send(rig, **fields)

    assert (400, code) == (response.status_code, response.json()["code"])
    assert response.json()["message"]
    assert [] == rig.sandbox.messages()


async def test_a_body_that_is_no_form(rig: Rig) -> None:
    response = await rig.client.post(f"{BASE}/Calls.json", content=b"\xff", auth=(SID, TOKEN))

    assert (400, 20001) == (response.status_code, response.json()["code"])


@pytest.mark.parametrize("auth", [(SID, TOKEN), (KEY, "key-secret")])
async def test_token_and_key_let_in(rig: Rig, auth: tuple[str, str]) -> None:
    response = await rig.client.get(f"{BASE}.json", auth=auth)

    assert 200 == response.status_code
    assert (SID, "active") == (response.json()["sid"], response.json()["status"])


@pytest.mark.parametrize("auth", [(SID, "key-secret"), (KEY, TOKEN), (SID, ""), ("", "")])
async def test_wrong_credentials_do_not(rig: Rig, auth: tuple[str, str]) -> None:
    answers = [
        await post(rig, "/Messages.json", {"To": "+33600000000"}, auth),
        await post(rig, "/Calls.json", {"To": "+33600000000"}, auth),
        await rig.client.get(f"{BASE}/Messages/SM0.json", auth=auth),
        await rig.client.get(f"{BASE}.json", auth=auth),
    ]

    assert [(401, 20003)] * 4 == [(one.status_code, one.json()["code"]) for one in answers]


async def test_without_an_account_nobody_gets_in(make_rig: MakeRig) -> None:
    some: list[dict[str, dict[str, str]]] = [{}, {"twilio": {}}, {"twilio": {"account_sid": SID}}]
    for accounts in some:
        response = await sms(make_rig(accounts=accounts))

        assert (401, 20003) == (response.status_code, response.json()["code"])


async def test_another_account_is_not_found(rig: Rig) -> None:
    response = await rig.client.get(f"{BASE[:-1]}2.json", auth=(SID, TOKEN))

    assert (404, 20404) == (response.status_code, response.json()["code"])


async def shown(rig: Rig, kind: str, sid: str) -> httpx.Response:
    return await rig.client.get(f"{BASE}/{kind}/{sid}.json", auth=(SID, TOKEN))


@pytest.mark.parametrize(
    ("digits", "seconds", "told"),
    [
        ("00", 0, ("queued", None, None)),
        ("00", 1, ("sent", None, None)),
        ("00", 9, ("delivered", None, "-0.00750")),
        ("03", 9, ("undelivered", 30003, None)),
        ("14", 9, ("delivered", None, "-0.00750")),
    ],
)
async def test_a_message_can_be_asked_about(
    rig: Rig, digits: str, seconds: float, told: tuple[str, int | None, str | None]
) -> None:
    sid = (await sms(rig, f"+3360000{digits}00")).json()["sid"]
    await rig.clock.advance(seconds)
    answer = (await shown(rig, "Messages", sid)).json()

    assert sid == answer["sid"]
    assert told == (answer["status"], answer["error_code"], answer["price"])


async def test_a_call_can_be_asked_about(rig: Rig) -> None:
    sid = (await call(rig)).json()["sid"]
    before = (await shown(rig, "Calls", sid)).json()
    await rig.run()
    after = (await shown(rig, "Calls", sid)).json()

    assert ("queued", None) == (before["status"], before["duration"])
    assert ("completed", "12") == (after["status"], after["duration"])


async def test_taking_back_comes_too_late(rig: Rig) -> None:
    sid = (await sms(rig)).json()["sid"]
    await rig.run()
    late = await post(rig, f"/Messages/{sid}.json", {"Status": "canceled"})
    odd = await post(rig, f"/Messages/{sid}.json", {"Status": "lost"})

    assert (200, "delivered") == (late.status_code, late.json()["status"])
    assert (400, 20001) == (odd.status_code, odd.json()["code"])


async def test_only_its_own_accepted_messages_can_be_asked_about(rig: Rig) -> None:
    sid = (await sms(rig)).json()["sid"]
    ticket = (await rig.sms()).json()["sms_ticket"]
    await sms(rig, "+33600001200")
    refused = rig.only("+33600001200").id
    answers = [
        await shown(rig, kind, one)
        for kind, one in (
            ("Calls", sid),
            ("Other", sid),
            ("Messages", ticket),
            ("Messages", refused),
            ("Messages", "SM0"),
        )
    ]

    assert [(404, 20404)] * 5 == [(one.status_code, one.json()["code"]) for one in answers]
