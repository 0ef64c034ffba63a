"""Twilio: messages over SMS and WhatsApp, and calls."""

import base64
import hashlib
import hmac
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

import jsonschema
import orjson
import pytest
from providers.cases import (
    CALLBACK,
    OTHER_SECRET,
    OUTGOING,
    SECRET,
    ProviderCases,
    ReceiptCase,
    ResponseCase,
    SendCase,
    data,
    encoded,
)

from gateway import config
from gateway.domain.delivery import State
from gateway.ports import (
    Accepted,
    Callback,
    Malformed,
    Polls,
    Receipt,
    RefusalKind,
    Refused,
    Response,
    Revokes,
    Secret,
    Unknown,
)
from gateway.providers.twilio import TWIML_LIMIT, VOICES, Twilio, twiml

HEADER = "x-twilio-signature"
SHARED = "x-twilio-webhooks-signature-settings"
ACCOUNT = "AC00000000000000000000000000000001"
KEY = "SK00000000000000000000000000000001"
SM = "SM00000000000000000000000000000001"
CA = "CA00000000000000000000000000000001"
MG = "MG00000000000000000000000000000001"
HX = "HX00000000000000000000000000000001"
BASE = f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}"
NUMBER = "+15017250604"
AVOID = 604_800.0

PERMANENT, TEMPORARY = RefusalKind.PERMANENT, RefusalKind.TEMPORARY
ACCOUNT_KIND, THROTTLED = RefusalKind.ACCOUNT, RefusalKind.THROTTLED


def basic(user: str, password: str) -> dict[str, str]:
    return {
        "authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode(),
        "content-type": "application/x-www-form-urlencoded",
    }


HEADERS = basic(KEY, "the-api-secret")
MESSAGE: Mapping[str, object] = {
    "To": "+33600000000",
    "StatusCallback": "https://otp.example.com/otp/delivered/route/token#rc=3&rp=all",
    "ValidityPeriod": "120",
    "Body": "123456 is your code",
}
SAID = '<Pause length="1"/><Say language="{}">{}</Say>'
CALL: Mapping[str, object] = {
    "To": "+33600000000",
    "From": NUMBER,
    "Twiml": f"<Response>{2 * SAID.format('en-US', '1, 2, 3, 4, 5, 6 is your code')}</Response>",
    "Timeout": "20",
    "StatusCallback": "https://otp.example.com/otp/delivered/route/token#rc=3&rp=all",
    "StatusCallbackMethod": "POST",
    "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
    "MachineDetection": "Enable",
}

# Codes that answers and receipts share: reason, kind, about the number.
FAULTS: Mapping[int, tuple[str, RefusalKind, bool]] = {
    20003: ("unauthorized", ACCOUNT_KIND, False),
    20404: ("not_found", ACCOUNT_KIND, False),
    21210: ("bad_sender", ACCOUNT_KIND, False),
    21211: ("bad_destination", PERMANENT, True),
    21212: ("bad_sender", ACCOUNT_KIND, False),
    21213: ("bad_sender", ACCOUNT_KIND, False),
    21214: ("unreachable", PERMANENT, True),
    21215: ("region_not_enabled", PERMANENT, False),
    21216: ("blocked", PERMANENT, False),
    21217: ("bad_destination", PERMANENT, True),
    21219: ("not_verified", PERMANENT, False),
    21401: ("bad_destination", PERMANENT, True),
    21408: ("region_not_enabled", PERMANENT, False),
    21602: ("bad_request", ACCOUNT_KIND, False),
    21603: ("bad_sender", ACCOUNT_KIND, False),
    21606: ("bad_sender", ACCOUNT_KIND, False),
    21608: ("not_verified", PERMANENT, False),
    21609: ("bad_callback_url", ACCOUNT_KIND, False),
    21610: ("opted_out", PERMANENT, True),
    21612: ("no_route", PERMANENT, True),
    21614: ("not_a_mobile", PERMANENT, True),
    21617: ("text_too_long", PERMANENT, False),
    21619: ("bad_request", ACCOUNT_KIND, False),
    21624: ("bad_validity", ACCOUNT_KIND, False),
    21635: ("landline", PERMANENT, True),
    21654: ("bad_template", ACCOUNT_KIND, False),
    21659: ("bad_sender", ACCOUNT_KIND, False),
    21660: ("bad_sender", ACCOUNT_KIND, False),
    21703: ("bad_sender", ACCOUNT_KIND, False),
    21910: ("bad_sender", ACCOUNT_KIND, False),
    30001: ("queue_overflow", TEMPORARY, False),
    30002: ("account_blocked", ACCOUNT_KIND, False),
    30003: ("unreachable", TEMPORARY, False),
    30004: ("blocked", PERMANENT, True),
    30005: ("unknown_number", PERMANENT, True),
    30006: ("landline", PERMANENT, True),
    30007: ("filtered", PERMANENT, False),
    30008: ("unknown_error", TEMPORARY, False),
    30034: ("sender_not_registered", ACCOUNT_KIND, False),
    30036: ("expired", TEMPORARY, False),
    30042: ("bad_sender", ACCOUNT_KIND, False),
    63001: ("unauthorized", ACCOUNT_KIND, False),
    63003: ("not_a_user", PERMANENT, True),
    63005: ("bad_template", ACCOUNT_KIND, False),
    63007: ("bad_sender", ACCOUNT_KIND, False),
    63008: ("channel_misconfigured", ACCOUNT_KIND, False),
    63010: ("channel_error", TEMPORARY, False),
    63011: ("channel_error", TEMPORARY, False),
    63012: ("channel_error", TEMPORARY, False),
    63013: ("policy_violation", PERMANENT, False),
    63014: ("blocked", PERMANENT, True),
    63015: ("sandbox_not_joined", ACCOUNT_KIND, False),
    63016: ("template_required", ACCOUNT_KIND, False),
    63018: ("channel_busy", TEMPORARY, False),
    63021: ("bad_template", ACCOUNT_KIND, False),
    63023: ("channel_error", TEMPORARY, False),
    63024: ("not_a_user", PERMANENT, True),
    63032: ("experiment", PERMANENT, True),
    63036: ("not_a_user", PERMANENT, True),
    63038: ("daily_limit", TEMPORARY, False),
    63049: ("not_wanted", PERMANENT, False),
    90007: ("bad_validity", ACCOUNT_KIND, False),
}

NO_SID: Sequence[object] = (
    b"",
    b"{",
    b"<html>",
    [],
    {},
    {"sid": None},
    {"sid": ""},
    {"sid": 7},
)

# How a call that nobody took ends: its status, the SIP code, what is said of it.
NOWHERE = {"reason": "bad_destination", "permanent": True, "avoid": AVOID}
ENDS: Sequence[tuple[str, str | None, Mapping[str, Any]]] = (
    ("busy", "486", {"reason": "busy"}),
    ("no-answer", "487", {"reason": "no_answer"}),
    ("canceled", None, {"reason": "canceled"}),
    ("failed", None, {"reason": "not_sent"}),
    ("failed", "503", {"reason": "not_sent"}),
    ("failed", "404x", {"reason": "not_sent"}),
    ("failed", "404", NOWHERE),
    ("failed", "484", NOWHERE),
    ("failed", "604", NOWHERE),
)

DELIVERED = Receipt(
    word="delivered",
    state=State.DELIVERED,
    reference=SM,
    attempt_id="0193-a1",
    provider_time="2501221146",
)
READ = replace(DELIVERED, word="read", state=State.READ, provider_time=None)
UNDELIVERED = Receipt(
    word="undelivered",
    state=State.FAILED,
    reference=SM,
    attempt_id="0193-a1",
    reason="unreachable",
)
COMPLETED = Receipt(
    word="completed",
    state=State.DELIVERED,
    reference=CA,
    attempt_id="0193-a1",
    provider_time="Sat, 21 Nov 2026 10:00:30 +0000",
)


def changed(sample: str, **changes: str | None) -> bytes:
    """A form of the samples with other fields; None leaves one out."""
    fields = dict(parse_qsl(data(f"twilio/{sample}.form").decode())) | changes
    return urlencode({name: value for name, value in fields.items() if value is not None}).encode()


def signature(text: str, secret: str, algorithm: Any = hashlib.sha1) -> str:
    mac = hmac.new(secret.encode(), text.encode(errors="backslashreplace"), algorithm)
    return base64.b64encode(mac.digest()).decode()


def joined(body: bytes) -> str:
    """The fields as they are signed: sorted, values of one name told apart once."""
    fields = parse_qs(body.decode(), keep_blank_values=True)
    return "".join(n + one for n in sorted(fields) for one in sorted(set(fields[n])))


def signed(callback: Callback, secret: str, url: str | None = None) -> Callback:
    """As the vendor sends it: a form's fields are signed, of any other body the hash."""
    form = "json" not in callback.headers.get("content-type", "form")
    try:
        callback.body.decode()
    except UnicodeDecodeError:
        form = False
    if not form:
        digest = hashlib.sha256(callback.body).hexdigest()
        callback = replace(
            callback,
            url=f"{callback.url}?bodySHA256={digest}",
            query={**callback.query, "bodySHA256": digest},
        )
    text = (url or callback.url) + (joined(callback.body) if form else "")
    headers = {**callback.headers, HEADER: signature(text, secret)}
    return replace(callback, attempt_id="0193-a1", headers=headers)


class TwilioCases(ProviderCases):
    """What messages and calls have in common."""

    provider = "twilio"
    secrets_field = "auth_token"
    speaks_json = False
    signs_url = True
    unusable: ClassVar[Sequence[object]] = ("", " ", "x" * 256, "m\x00", "m\n")
    sender = NUMBER

    def sign(self, callback: Callback, secret: str) -> Callback:
        return signed(callback, secret)

    def refer(self, body: bytes, reference: object) -> bytes:
        return body.replace(b"m_1", quote(str(reference), safe="").encode())

    def content(self, request: Any) -> object:
        fields = parse_qs(request.content.decode(), strict_parsing=True)
        return {name: some[0] if len(some) == 1 else some for name, some in fields.items()}

    def refusal(self, message: str) -> bytes:
        return orjson.dumps({"code": 21211, "message": message, "status": 400})

    def may_accept(self, status: int, answer: object) -> bool:
        return status == 201 and isinstance(answer, dict) and "sid" in answer

    def signature_header(self) -> str:
        return HEADER


def settings_of(channel: str, **more: Any) -> dict[str, Any]:
    secret = Secret("the-api-secret")
    common = {"account_sid": ACCOUNT, "api_key": KEY, "api_secret": secret, "sender": NUMBER}
    return {"channel": channel, **common, **more}


def refused(code: int, message: str = "No") -> Refused:
    reason, kind, number = FAULTS[code]
    return Refused(reason, kind, error=f"{code}: {message}", avoid=AVOID if number else None)


def failed(code: int) -> Receipt:
    reason, kind, number = FAULTS[code]
    permanent, avoid = kind is PERMANENT, AVOID if number else None
    return replace(UNDELIVERED, reason=reason, permanent=permanent, avoid=avoid)


class TestTwilio(TwilioCases):
    statuses = Twilio.statuses
    settings: ClassVar[Mapping[str, Any]] = settings_of("sms")
    unpromised: ClassVar[frozenset[State]] = frozenset({State.READ})  # of WhatsApp and RCS

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label="from a number",
            url=f"{BASE}/Messages.json",
            headers=HEADERS,
            change={"sender": NUMBER},
            body={**MESSAGE, "From": NUMBER},
        ),
        SendCase(
            label="from a pool",
            url=f"{BASE}/Messages.json",
            headers=HEADERS,
            settings={"sender": None, "messaging_service": MG},
            body={**MESSAGE, "MessagingServiceSid": MG},
        ),
        SendCase(
            label="from a number of the pool",
            url=f"{BASE}/Messages.json",
            headers=HEADERS,
            settings={"messaging_service": MG},
            change={"sender": "ACME"},
            body={**MESSAGE, "From": "ACME", "MessagingServiceSid": MG},
        ),
        SendCase(
            label="with account and token",
            url=f"{BASE}/Messages.json",
            headers=basic(ACCOUNT, SECRET),
            settings={"api_key": None, "api_secret": Secret("")},
            body=MESSAGE,
        ),
        SendCase(
            label="elsewhere",
            url=f"http://localhost:8026/twilio/2010-04-01/Accounts/{ACCOUNT}/Messages.json",
            headers=HEADERS,
            settings={"base_url": "http://localhost:8026/twilio/"},
            body=MESSAGE,
        ),
        *(
            SendCase(
                label=f"valid for {seconds} s",
                url=f"{BASE}/Messages.json",
                headers=HEADERS,
                change={"validity": seconds},
                body={**MESSAGE, "ValidityPeriod": period},
            )
            for seconds, period in ((0, "1"), (45, "45"), (36_000, "36000"), (99_999, "36000"))
        ),
        SendCase(
            label="a text that needs quoting",
            url=f"{BASE}/Messages.json",
            headers=HEADERS,
            change={"text": "123456 & ü=1 +%\n@example.com #123456"},
            body={**MESSAGE, "Body": "123456 & ü=1 +%\n@example.com #123456"},
        ),
    ]

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=201,
            body=data("twilio/created_message.json"),
            expected=Accepted(SM),
        ),
        *(
            ResponseCase(
                label=f"taken: {status!r}",
                status=201,
                body={"sid": SM, "status": status},
                expected=Accepted(SM),
            )
            for status in ("accepted", "scheduled", "sending", "sent", "teleported", None)
        ),
        ResponseCase(
            label="taken, with its price",
            status=201,
            body={"sid": SM, "status": "queued", "price": "-0.00750", "price_unit": "usd"},
            expected=Accepted(SM, "0.00750 USD"),
        ),
        ResponseCase(
            label="taken, failed at once",
            status=201,
            body={"sid": SM, "status": "failed", "error_code": 21610, "error_message": "Stop"},
            expected=refused(21610, "Stop"),
        ),
        ResponseCase(
            label="taken, failed at once without a cause",
            status=201,
            body={"sid": SM, "status": "failed", "error_code": None},
            expected=Refused("not_sent", TEMPORARY, error="HTTP 201"),
        ),
        *(
            ResponseCase(
                label=f"201 without an id: {body!r}",
                status=201,
                body=body,
                expected=Unknown("no_sid", "HTTP 201"),
            )
            for body in NO_SID
        ),
        *(
            ResponseCase(
                label=f"{code}",
                status=400,
                body={"code": code, "message": "No", "status": 400},
                expected=refused(code),
            )
            for code in FAULTS
        ),
        ResponseCase(
            label="no number, quoted",
            status=400,
            body=data("twilio/error_21211.json"),
            expected=refused(21211, "The 'To' number +… is not a valid phone number."),
        ),
        ResponseCase(
            label="no such credentials",
            status=401,
            body=data("twilio/error_20003.json"),
            expected=refused(20003, "Authenticate"),
        ),
        ResponseCase(
            label="region not enabled, as 403",
            status=403,
            body={"code": 21408, "message": "No"},
            expected=refused(21408),
        ),
        *(
            ResponseCase(
                label=f"not let in: {status}",
                status=status,
                body=b"<html>",
                expected=Refused("unauthorized", ACCOUNT_KIND, error=f"HTTP {status}"),
            )
            for status in (401, 403)
        ),
        ResponseCase(
            label="nothing there",
            status=404,
            body=b"<html>",
            expected=Refused("not_found", ACCOUNT_KIND, error="HTTP 404"),
        ),
        *(
            ResponseCase(
                label=f"refused somehow: {body!r}",
                status=400,
                body=body,
                expected=Refused("rejected", PERMANENT, error=error),
            )
            for body, error in (
                ({"code": 21999, "message": "New"}, "21999: New"),
                ({"code": "twenty", "message": None}, "HTTP 400"),
                ({"code": [21211], "message": ["x"]}, "HTTP 400"),
                ({"code": 10**18, "message": ""}, "HTTP 400"),
                (b"<html>", "HTTP 400"),
            )
        ),
        *(
            ResponseCase(
                label=f"too fast: {pause!r}",
                status=429,
                body={"code": 20429, "message": "Too Many Requests"},
                headers={} if pause is None else {"Retry-After": pause},
                expected=Refused("throttled", THROTTLED, seconds, "20429: Too Many Requests"),
            )
            for pause, seconds in ((None, None), ("7", 7.0), ("soon", None), ("9" * 9, 86_400.0))
        ),
        ResponseCase(
            label="the sender's queue is full",
            status=429,
            body={"code": 21611, "message": "Full"},
            headers={"Retry-After": "3"},
            expected=Refused("sender_queue_full", THROTTLED, 3.0, "21611: Full"),
        ),
        ResponseCase(
            label="too fast, whatever the code",
            status=429,
            body={"code": 21211, "message": "No"},
            expected=Refused("throttled", THROTTLED, None, "21211: No"),
        ),
        *(
            ResponseCase(
                label=f"{status} {code}",
                status=status,
                body={"code": code, "message": "No", "sid": SM, "status": status},
                expected=Unknown(reason, f"{code}: No"),
            )
            for status, code, reason in (
                (200, 21211, "odd_answer"),
                (202, 20429, "odd_answer"),
                (302, 20404, "odd_answer"),
                (500, 20500, "server_error"),
                (503, 20503, "server_error"),
                (503, 20429, "server_error"),
            )
        ),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(label="delivered", body=data("twilio/delivered.form"), expected=[DELIVERED]),
        ReceiptCase(label="not", body=data("twilio/undelivered.form"), expected=[UNDELIVERED]),
        ReceiptCase(
            label="read, over WhatsApp",
            body=data("twilio/whatsapp_read.form"),
            expected=[READ],
        ),
        *(
            ReceiptCase(
                label=f"{code}",
                body=changed("undelivered", ErrorCode=str(code)),
                expected=[failed(code)],
            )
            for code in FAULTS
        ),
        *(
            ReceiptCase(
                label=f"failed, code {code!r}",
                body=changed("undelivered", MessageStatus="failed", ErrorCode=code),
                expected=[replace(UNDELIVERED, word="failed", reason="not_sent")],
            )
            for code in (
                None,
                "",
                "30999",
                "x",
                "-30003",
                "\uff13\uff10\uff10\uff10\uff13",
                "9" * 40,
            )
        ),
        ReceiptCase(
            label="an error beside a delivery",
            body=changed("delivered", ErrorCode="30005"),
            expected=[DELIVERED],
        ),
        ReceiptCase(
            label="with its price",
            body=changed("delivered", Price="-0.00750", PriceUnit="USD"),
            expected=[replace(DELIVERED, cost="0.00750 USD")],
        ),
        *(
            ReceiptCase(
                label=f"no price: {price} {unit}",
                body=changed("delivered", Price=price, PriceUnit=unit),
                expected=[DELIVERED],
            )
            for price, unit in (("free", "USD"), ("1", None), ("1", "dollars"), ("1e9", "USD"))
        ),
        *(
            ReceiptCase(
                label=f"without {name}",
                body=changed("delivered", **{name: None}),
                expected=[Malformed(f"{name} is missing or unusable", b"")],
            )
            for name in ("MessageSid", "MessageStatus")
        ),
        *(
            ReceiptCase(
                label=f"nonsense: {body!r}",
                body=body,
                expected=[Malformed("MessageSid is missing or unusable", b"")],
            )
            for body in (b"", b"&&", b"=", b"MessageSid", b"MessageSid=&MessageStatus=sent", b"{}")
        ),
        ReceiptCase(
            label="of a call, which this route does not make",
            body=data("twilio/call_completed.form"),
            expected=[Malformed("MessageSid is missing or unusable", b"")],
        ),
        ReceiptCase(
            label="somebody wrote to us",
            body=changed("delivered", MessageStatus=None, SmsStatus="received", Body="Hi"),
            expected=[],
        ),
        ReceiptCase(
            label="in JSON",
            body={"MessageSid": SM, "MessageStatus": "read"},
            headers={"content-type": "application/json"},
            expected=[READ],
        ),
        ReceiptCase(
            label="in JSON, with a code",
            body={"MessageSid": SM, "MessageStatus": "undelivered", "ErrorCode": 21610},
            headers={"content-type": "application/json"},
            expected=[failed(21610)],
        ),
        *(
            ReceiptCase(
                label=f"nonsense in JSON: {body!r}",
                body=body,
                headers={"content-type": "application/json"},
                expected=[Malformed(f"{name} is missing or unusable", b"")],
            )
            for body, name in (
                ([], "MessageSid"),
                (b"{", "MessageSid"),
                ({"MessageSid": 7, "MessageStatus": "read"}, "MessageSid"),
                ({"MessageSid": SM, "MessageStatus": ["read"]}, "MessageStatus"),
            )
        ),
    ]

    def receipt(self, word: str) -> bytes:
        return changed("delivered", MessageSid="m_1", MessageStatus=word)


class TestTwilioWhatsApp(TwilioCases):
    shows_cost = False
    statuses = Twilio.statuses
    settings: ClassVar[Mapping[str, Any]] = settings_of(
        "whatsapp", content={"login": {"fr": HX, "pt_BR": HX[:-1] + "2"}, "reset": {"default": HX}}
    )

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=201,
            body=data("twilio/created_message.json"),
            expected=Accepted(SM),
        ),
        ResponseCase(
            label="from a number without WhatsApp",
            status=400,
            body={"code": 63007, "message": "No"},
            expected=refused(63007),
        ),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(label="read", body=data("twilio/whatsapp_read.form"), expected=[READ]),
        ReceiptCase(
            label="not on WhatsApp",
            body=changed("whatsapp_read", MessageStatus="undelivered", ErrorCode="63003"),
            expected=[failed(63003)],
        ),
        ReceiptCase(
            label="in JSON",
            body={"MessageSid": SM, "MessageStatus": "read"},
            headers={"content-type": "application/json"},
            expected=[READ],
        ),
    ]

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label=f"{template} in {locale}",
            url=f"{BASE}/Messages.json",
            headers=HEADERS,
            change={"sender": NUMBER, "template": template, "locale": locale},
            body={
                **{name: value for name, value in MESSAGE.items() if name != "Body"},
                "To": "whatsapp:+33600000000",
                "From": f"whatsapp:{NUMBER}",
                **content,
            },
        )
        for template, locale, content in (
            ("verify", "fr", {"Body": "123456 is your code"}),
            ("login", "en", {"Body": "123456 is your code"}),
            ("login", "fr", {"ContentSid": HX, "ContentVariables": '{"1":"123456"}'}),
            ("login", "fr_CA", {"ContentSid": HX, "ContentVariables": '{"1":"123456"}'}),
            ("login", "pt-BR", {"ContentSid": f"{HX[:-1]}2", "ContentVariables": '{"1":"123456"}'}),
            ("login", "pt", {"Body": "123456 is your code"}),
            ("reset", "de", {"ContentSid": HX, "ContentVariables": '{"1":"123456"}'}),
        )
    ]

    def receipt(self, word: str) -> bytes:
        return changed("whatsapp_read", MessageSid="m_1", MessageStatus=word)


class TestTwilioVoice(TwilioCases):
    shows_cost = False
    statuses = Twilio.calls
    settings: ClassVar[Mapping[str, Any]] = settings_of("voice")

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label="plain",
            url=f"{BASE}/Calls.json",
            headers=HEADERS,
            change={"sender": NUMBER},
            body=CALL,
        ),
        SendCase(
            label="in French, patient, with no ear for machines",
            url=f"{BASE}/Calls.json",
            headers=HEADERS,
            settings={"ring_timeout": 45, "machine_detection": False},
            change={"sender": NUMBER, "locale": "fr", "text": "Votre code : 123456."},
            body={
                **{name: value for name, value in CALL.items() if name != "MachineDetection"},
                "Timeout": "45",
                "Twiml": "<Response>"
                + 2 * SAID.format("fr-FR", "Votre code : 1, 2, 3, 4, 5, 6.")
                + "</Response>",
            },
        ),
    ]

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken", status=201, body=data("twilio/created_call.json"), expected=Accepted(CA)
        ),
        ResponseCase(
            label="taken, failed at once",
            status=201,
            body={"sid": CA, "status": "busy"},
            expected=Refused("busy", TEMPORARY, error="HTTP 201"),
        ),
        ResponseCase(
            label="no number",
            status=400,
            body={"code": 21217, "message": "No"},
            expected=refused(21217),
        ),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(
            label="picked up", body=data("twilio/call_completed.form"), expected=[COMPLETED]
        ),
        *(
            ReceiptCase(
                label=f"picked up by {who!r}",
                body=changed("call_completed", AnsweredBy=who),
                expected=[COMPLETED],
            )
            for who in (None, "", "human", "unknown")
        ),
        *(
            ReceiptCase(
                label=f"picked up by {who}",
                body=changed("call_completed", AnsweredBy=who),
                expected=[replace(COMPLETED, state=State.FAILED, reason="answering_machine")],
            )
            for who in (
                "machine_start",
                "machine_end_beep",
                "machine_end_silence",
                "machine_end_other",
                "fax",
            )
        ),
        *(
            ReceiptCase(
                label=f"ended at once: {duration!r}",
                body=changed("call_completed", CallDuration=duration),
                expected=[replace(COMPLETED, state=State.FAILED, reason="hung_up")],
            )
            for duration in ("0", "00")
        ),
        *(
            ReceiptCase(
                label=f"ended, nobody says when: {duration!r}",
                body=changed("call_completed", CallDuration=duration),
                expected=[replace(COMPLETED, state=None)],
            )
            for duration in (None, "")
        ),
        *(
            ReceiptCase(
                label=f"{word}, SIP {sip}",
                body=changed("call_completed", CallStatus=word, SipResponseCode=sip),
                expected=[replace(COMPLETED, word=word, state=State.FAILED, **change)],
            )
            for word, sip, change in ENDS
        ),
        ReceiptCase(
            label="of a message, which this route does not send",
            body=data("twilio/delivered.form"),
            expected=[Malformed("CallSid is missing or unusable", b"")],
        ),
        ReceiptCase(
            label="in JSON",
            body={"CallSid": CA, "CallStatus": "ringing"},
            headers={"content-type": "application/json"},
            expected=[
                replace(COMPLETED, word="ringing", state=State.ACK, provider_time=None),
            ],
        ),
    ]

    def receipt(self, word: str) -> bytes:
        return changed("call_completed", CallSid="m_1", CallStatus=word)


def twilio(*secrets: Secret, **changes: Any) -> Twilio:
    fields = {"name": "route", "account": "account", "auth_token": secrets or (SECRET,)}
    channel = changes.pop("channel", "sms")
    return Twilio(Twilio.Settings(**{**fields, **settings_of(channel), **changes}))


# Signatures: vectors of the vendor's page, of its SDK's tests, and made with its SDK.

TOKEN = Secret("test_auth_token_0123456789abcdef")
PHP = {"CallSid": "CA1234567890ABCDE", "Digits": "1234", "To": "+18005551212"}
RECEIPT_URL = "https://otp.example.test/otp/delivered/twilio?attempt=a1"


def received(url: str, body: bytes, value: str, **headers: str) -> Callback:
    query = dict(parse_qsl(url.partition("?")[2]))
    headers = {HEADER: value, **headers}
    return replace(CALLBACK, url=url, query=query, body=body, headers=headers, attempt_id="0193-a1")


@pytest.mark.parametrize(
    ("token", "url", "body", "value"),
    [
        (
            "12345",
            "https://example.com/myapp.php?foo=1&bar=2",
            urlencode({**PHP, "Caller": "+14158675310", "From": "+14158675310"}).encode(),
            "L/OH5YylLD5NRKLltdqwSvS0BnU=",
        ),
        (
            "12345",
            "https://mycompany.com/myapp.php?foo=1&bar=2",
            urlencode({**PHP, "Caller": "+14158675309", "From": "+14158675309"}).encode(),
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        ),
        (TOKEN, RECEIPT_URL, data("twilio/delivered.form"), "UDIBpWVmScIy1O3fI4++iZVmPxk="),
        (TOKEN, "https://e.test/", b"A=2&A=1&A=1&B=x", "aAq2M6tYfw5YHJBb+TBk9BYXfrI="),
    ],
)
def test_a_signature_made_elsewhere(token: str, url: str, body: bytes, value: str) -> None:
    provider = twilio(Secret(token))
    callback = received(url, body, value)

    assert provider.authenticate(callback)
    assert not provider.authenticate(replace(callback, body=body + b"&C=1"))
    assert not provider.authenticate(replace(callback, url=url + "x"))


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://otp.example.test:443/otp/delivered/twilio?attempt=a1", True),
        ("https://otp.example.test:8443/otp/delivered/twilio?attempt=a1", True),  # as the SDK
        ("http://otp.example.test/otp/delivered/twilio?attempt=a1", False),
        ("https://otp.example.test./otp/delivered/twilio?attempt=a1", False),
        ("https://otp.example.test/otp/delivered/twilio?attempt=a2", False),
        ("https://otp.example.test/otp/delivered/twilio", False),
        ("https://otp.example.test/otp/delivered/Twilio?attempt=a1", False),
    ],
)
def test_the_port_may_be_left_out_and_nothing_else(url: str, good: bool) -> None:
    body, value = data("twilio/delivered.form"), "UDIBpWVmScIy1O3fI4++iZVmPxk="

    assert good == twilio(TOKEN).authenticate(received(url, body, value))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("https://otp.example.com/x", "https://otp.example.com:443/x"),
        ("https://otp.example.com:443/x", "https://otp.example.com/x"),
        ("https://otp.example.com:8443/x?a=b", "https://otp.example.com/x?a=b"),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x"),
        ("http://127.0.0.1/x", "http://127.0.0.1:80/x"),
        ("http://[::1]:8080/x", "http://[::1]/x"),
        ("http://[::1]/x", "http://[::1]:80/x"),
        ("https://otp.example.com", "https://otp.example.com:443"),
        ("https://otp.example.com/a:9/b", "https://otp.example.com:443/a:9/b"),
    ],
)
def test_the_sender_writes_the_port_as_it_likes(ours: str, theirs: str) -> None:
    callback = signed(replace(CALLBACK, url=ours, body=b"A=1"), SECRET, url=theirs)

    assert twilio().authenticate(callback)


JSON_BODY = b'{"MessageSid":"SM00000000000000000000000000000001","MessageStatus":"read"}'
JSON_HASH = "def9e9bfd2a520eb83b84ecfef8cf2ca4f50b746f76ac8f74124656c8234bec9"
JSON_URL = f"https://otp.example.test/otp/delivered/twilio?bodySHA256={JSON_HASH}"


@pytest.mark.parametrize(
    ("url", "body", "good"),
    [
        (JSON_URL, JSON_BODY, True),
        (JSON_URL, JSON_BODY + b" ", False),
        (JSON_URL, b"", False),
        (JSON_URL + "é", JSON_BODY, False),
        (JSON_URL.replace(JSON_HASH, JSON_HASH.upper()), JSON_BODY, False),
        (JSON_URL.partition("?")[0], JSON_BODY, False),
    ],
)
def test_a_json_body_is_signed_by_its_hash(url: str, body: bytes, good: bool) -> None:
    callback = received(url, body, "CRnbW6A7pzlo+87f64fquzn6zMM=")

    assert good == twilio(TOKEN).authenticate(callback)


@pytest.mark.parametrize(
    ("settings", "good"),
    [
        ("key=k1,algorithm=HMAC_SHA256", True),
        ("key=k1,algorithm=HMAC_SHA256,x=y", False),
        ("key=k1,algorithm=HMAC_SHA1", False),
        ("key=k1,algorithm=NONE", False),
        ("key=k1", False),
        ("", False),
        ("key=k1,algorithm=HMAC_SHA256\nkey=k1,algorithm=HMAC_SHA256", False),
    ],
)
def test_a_shared_key_signs_when_the_header_says_so(settings: str, good: bool) -> None:
    body, value = data("twilio/delivered.form"), "YQfY5X/Ot7ymf81IerZgsT+sXfaNeWyvmT0PqnRsJ7k="
    callback = received(RECEIPT_URL, body, value, **{SHARED: settings})
    provider = twilio(TOKEN, webhook_key=(Secret("another"), Secret("shared_key_secret")))

    assert good == provider.authenticate(callback)
    assert not twilio(TOKEN).authenticate(callback)
    assert not provider.authenticate(replace(callback, headers={HEADER: value}))


def test_a_get_is_signed_by_its_url() -> None:
    query = data("twilio/delivered.form").decode()
    url = f"{CALLBACK.url}?{query}"
    callback = replace(
        received(url, b"", signature(url, SECRET)), method="GET", query=dict(parse_qsl(query))
    )

    assert twilio().authenticate(callback)
    assert not twilio().authenticate(replace(callback, url=url.replace("delivered", "read")))
    assert not twilio().authenticate(replace(callback, method="PUT"))
    assert [replace(DELIVERED, raw=query.encode())] == twilio().receipts(callback)


def test_a_form_without_end_is_refused() -> None:
    assert not twilio().authenticate(signed(replace(CALLBACK, body=b"a=1&" * 300), SECRET))


def test_a_new_field_changes_nothing() -> None:
    """They appear without notice, and are signed like the rest."""
    callback = signed(replace(CALLBACK, body=changed("delivered", New="x", Empty="")), SECRET)

    assert twilio().authenticate(callback)
    assert [DELIVERED] == [replace(one, raw=b"") for one in twilio().receipts(callback)]


# Being asked, and taking back.


def test_it_can_be_asked() -> None:
    provider = twilio()
    request = provider.build_poll("0193-a1", "SM/é")

    assert isinstance(provider, Polls)
    assert request is not None
    assert ("GET", f"{BASE}/Messages/SM%2F%C3%A9.json") == (request.method, str(request.url))
    assert HEADERS["authorization"] == request.headers["authorization"]


def test_without_a_reference_there_is_nothing_to_name_it_by() -> None:
    assert twilio().build_poll("0193-a1", None) is None
    assert twilio().build_revoke("0193-a1", None) is None


@pytest.mark.parametrize(
    ("channel", "url"),
    [("sms", f"{BASE}/Messages/{SM}.json"), ("voice", f"{BASE}/Calls/{SM}.json")],
)
def test_it_can_be_taken_back(channel: str, url: str) -> None:
    provider = twilio(channel=channel)
    request = provider.build_revoke("0193-a1", SM)

    assert isinstance(provider, Revokes)
    assert request is not None
    assert ("POST", url, b"Status=canceled") == (request.method, str(request.url), request.content)
    assert HEADERS.items() <= dict(request.headers).items()


def found(sample: str, **changes: object) -> dict[str, object]:
    return {**orjson.loads(data(f"twilio/{sample}.json")), **changes}


POLLED = replace(
    DELIVERED,
    attempt_id=None,
    provider_time="Sat, 21 Nov 2026 10:00:05 +0000",
    cost="0.00750 USD",
)
POLLED_CALL = replace(COMPLETED, attempt_id=None, cost="0.01300 USD")


@pytest.mark.parametrize(
    ("channel", "status", "body", "expected"),
    [
        ("sms", 200, found("message"), POLLED),
        ("sms", 200, found("message", status="new"), replace(POLLED, word="new", state=None)),
        (
            "sms",
            200,
            found("message", status="undelivered", error_code=30005),
            replace(
                POLLED,
                word="undelivered",
                state=State.FAILED,
                reason="unknown_number",
                permanent=True,
                avoid=AVOID,
            ),
        ),
        ("sms", 200, found("message", price=None), replace(POLLED, cost=None)),
        ("sms", 200, found("message", sid=None), None),
        ("sms", 200, found("message", status=None), None),
        ("sms", 200, b"", None),
        ("sms", 200, [], None),
        ("sms", 404, found("message"), None),
        ("sms", 201, found("message"), None),
        ("sms", 503, b"", None),
        ("voice", 200, found("call"), POLLED_CALL),
        (
            "voice",
            200,
            found("call", answered_by="machine_start"),
            replace(POLLED_CALL, state=State.FAILED, reason="answering_machine"),
        ),
        (
            "voice",
            200,
            found("call", duration="0"),
            replace(POLLED_CALL, state=State.FAILED, reason="hung_up"),
        ),
        (
            "voice",
            200,
            found("call", status="in-progress", duration=None),
            replace(POLLED_CALL, word="in-progress", state=State.ACK),
        ),
    ],
)
def test_a_poll_says_this(
    channel: str, status: int, body: object, expected: Receipt | None
) -> None:
    said = twilio(channel=channel).parse_poll(Response(status, content=encoded(body)))

    assert expected == (said and replace(said, raw=b""))


# The account.


def test_the_account_is_looked_at_with_the_token() -> None:
    """A Standard key may send and may not read the account."""
    request = twilio().build_check()

    assert ("GET", f"{BASE}.json") == (request.method, str(request.url))
    assert basic(ACCOUNT, SECRET)["authorization"] == request.headers["authorization"]


def test_without_a_token_the_key_must_do() -> None:
    request = twilio(auth_token=()).build_check()

    assert HEADERS["authorization"] == request.headers["authorization"]


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, data("twilio/account.json"), None),
        (200, {"status": "suspended"}, "The Twilio account is suspended."),
        (200, {"status": "closed"}, "The Twilio account is closed."),
        (401, data("twilio/error_20003.json"), "Twilio refuses account_sid or auth_token."),
        (403, b"", "Twilio refuses account_sid or auth_token."),
        (
            404,
            {"code": 20404, "message": "Not here"},
            "Twilio does not tell the account (20404: Not here).",
        ),
        (200, {"status": ["active"]}, "Twilio does not tell the account (HTTP 200)."),
        (200, b"<html>", "Twilio does not tell the account (HTTP 200)."),
        (500, {"status": "active"}, "Twilio does not tell the account (HTTP 500)."),
    ],
)
def test_a_look_at_the_account(status: int, body: object, problem: str | None) -> None:
    assert problem == twilio().parse_check(Response(status, content=encoded(body)))


def test_a_refused_key_is_told_from_a_refused_token() -> None:
    said = twilio(auth_token=()).parse_check(Response(401))

    assert said == "Twilio refuses account_sid or api_key (a Main key is needed) or api_secret."


# Speaking.


def test_what_is_said_is_proper_xml() -> None:
    text = 'R&D <says>: 123456 "it\'s" \x00\x1f\ud800 ]]> 1234567'
    said = ET.fromstring(twiml(text, "123456", "en-GB"))  # noqa: S314 (ours)

    assert ["Pause", "Say", "Pause", "Say"] == [part.tag for part in said]
    assert {'R&D <says>: 1, 2, 3, 4, 5, 6 "it\'s"  ]]> 1234567'} == {
        part.text for part in said if part.tag == "Say"
    }
    assert ["en-GB", "en-GB"] == [part.get("language") for part in said.iter("Say")]


def test_a_text_that_is_too_long_leaves_the_code() -> None:
    said = twiml("&" * 1000 + " 123456", "123456", "en-US")

    assert len(said) <= TWIML_LIMIT
    assert 2 == said.count(">1, 2, 3, 4, 5, 6</Say>")


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("de", "de-DE"),
        ("de-AT", "de-DE"),
        ("pt_BR", "pt-BR"),
        ("EN-gb", "en-GB"),
        ("tlh", "en-US"),
        ("", "en-US"),
    ],
)
def test_the_voice_speaks_the_locale(locale: str, language: str) -> None:
    request = twilio(channel="voice").build(replace(OUTGOING, locale=locale))

    assert f'language="{language}"' in dict(parse_qsl(request.content.decode()))["Twiml"]


def test_the_voice_can_be_set() -> None:
    request = twilio(channel="voice", voice_language="it-IT").build(OUTGOING)

    assert 'language="it-IT"' in dict(parse_qsl(request.content.decode()))["Twiml"]


def test_every_voice_is_a_language_of_a_country() -> None:
    assert all(re.fullmatch("[a-z]{2}-[A-Z]{2}", voice) for voice in VOICES.values())
    assert all(key in (voice.lower(), voice[:2]) for key, voice in VOICES.items())


# Settings, and the vendor's own description.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel": "fax"}, "channel: twilio has sms and voice and whatsapp, not fax"),
        ({"timeout": 0}, "timeout"),
        ({"rate": -1.0}, "rate"),
        ({"concurrency": 0}, "concurrency"),
        ({"base_url": "api.twilio.com"}, "base_url"),
        ({"account_sid": "AC1"}, "account_sid"),
        ({"account_sid": KEY}, "account_sid"),
        ({"auth_token": Secret("one")}, "auth_token"),
        ({"auth_token": (Secret("é"),)}, "auth_token"),
        ({"auth_token": (), "api_key": None, "api_secret": Secret("")}, "auth_token: is needed"),
        ({"webhook_key": (Secret(""),)}, "webhook_key"),
        ({"api_key": "key"}, "api_key"),
        ({"api_key": None}, "api_secret"),
        ({"api_secret": Secret("")}, "api_secret"),
        ({"api_secret": Secret("a\n")}, "api_secret"),
        ({"messaging_service": HX}, "messaging_service"),
        ({"sender": None}, "sender"),
        ({"sender": {"FR": "ACME"}}, "sender"),
        ({"sender": "a sender that is too long"}, "sender"),
        ({"sender": {"default": NUMBER, "FR": "§"}}, "sender"),
        ({"channel": "whatsapp", "sender": "ACME"}, "sender"),
        ({"channel": "whatsapp", "sender": f"whatsapp:{NUMBER}"}, "sender"),
        ({"channel": "voice", "sender": "12345"}, "sender"),
        ({"channel": "voice", "sender": None, "messaging_service": MG}, "sender"),
        ({"content": {"login": {"fr": MG}}}, "content"),
        ({"voice_language": "fr"}, "voice_language"),
        ({"ring_timeout": 0}, "ring_timeout"),
        ({"ring_timeout": 601}, "ring_timeout"),
        ({"avoid": 0}, "avoid"),
    ],
)
def test_a_wrong_setting_is_named(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        twilio(**changes)


@pytest.mark.parametrize("sender", ["ACME", "A & B", "12345", NUMBER, {"default": NUMBER}])
def test_an_sms_may_come_from(sender: Any) -> None:
    assert sender == twilio(sender=sender).sender


def test_what_it_promises_depends_on_the_channel() -> None:
    assert State.READ in twilio(channel="whatsapp").confirms
    assert State.READ not in twilio(channel="sms").confirms
    assert twilio(channel="whatsapp").validity
    assert not twilio(channel="voice").validity


def test_how_long_a_number_is_left_alone_can_be_set() -> None:
    outcome = twilio(avoid=60).parse(Response(400, content=data("twilio/error_21211.json")))

    assert isinstance(outcome, Refused)
    assert 60.0 == outcome.avoid


DESCRIPTION = orjson.loads(data("twilio/openapi.json"))


def described(path: str) -> dict[str, Any]:
    content = DESCRIPTION["paths"][f"/2010-04-01/Accounts/{{AccountSid}}{path}"]["post"]
    schema = content["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    return {**schema, "additionalProperties": False, "components": DESCRIPTION["components"]}


def typed(body: bytes, properties: Mapping[str, Any]) -> dict[str, object]:
    """The fields of a form, each as the type it is described with."""
    kinds = {name: properties.get(name, {}).get("type") for name in parse_qs(body.decode())}
    return {
        name: some
        if kinds[name] == "array"
        else int(some[0])
        if kinds[name] == "integer"
        else some[0]
        for name, some in parse_qs(body.decode()).items()
    }


@pytest.mark.parametrize(
    ("path", "changes", "outgoing"),
    [
        ("/Messages.json", {}, {"sender": NUMBER}),
        ("/Messages.json", {"sender": None, "messaging_service": MG}, {}),
        ("/Messages.json", {"channel": "whatsapp"}, {"sender": NUMBER}),
        (
            "/Messages.json",
            {"channel": "whatsapp", "content": {"verify": {"default": HX}}},
            {"sender": NUMBER},
        ),
        ("/Calls.json", {"channel": "voice"}, {"sender": NUMBER}),
    ],
)
def test_a_request_is_as_the_vendor_describes_it(
    path: str, changes: Mapping[str, Any], outgoing: Mapping[str, Any]
) -> None:
    request = twilio(**changes).build(replace(OUTGOING, **outgoing))
    schema = described(path)

    jsonschema.validate(typed(request.content, schema["properties"]), schema)


@pytest.mark.parametrize("channel", ["sms", "voice"])
def test_taking_back_is_as_the_vendor_describes_it(channel: str) -> None:
    request = twilio(channel=channel).build_revoke("0193-a1", SM)
    path = "/Calls/{Sid}.json" if channel == "voice" else "/Messages/{Sid}.json"
    schema = described(path)

    assert request is not None
    jsonschema.validate(typed(request.content, schema["properties"]), schema)


@pytest.mark.parametrize(("table", "name"), [("statuses", "message"), ("calls", "call")])
def test_every_status_of_the_description_is_known(table: str, name: str) -> None:
    words = DESCRIPTION["components"]["schemas"][f"{name}_enum_status"]["enum"]

    assert set(words) <= getattr(Twilio, table).keys()


def test_its_settings_can_be_written_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f"""
        [routes.whatsapp]
        provider = "twilio"
        channel = "whatsapp"
        account_sid = "{ACCOUNT}"
        auth_token = [{{ env = "TOKEN" }}, {{ env = "NEXT" }}]
        api_key = "{KEY}"
        api_secret = {{ env = "KEY" }}
        sender = {{ default = "{NUMBER}" }}
        content = {{ login = {{ fr = "{HX}", default = "{HX}" }} }}
        [workflows.default]
        steps = [{{ channel = "whatsapp", routes = ["whatsapp"] }}]
    """)
    environ = {"TOKEN": SECRET, "NEXT": OTHER_SECRET, "KEY": "the-api-secret"}
    (provider,) = config.load(environ, file).providers

    assert isinstance(provider, Twilio)
    assert HEADERS["authorization"] == provider.build(OUTGOING).headers["authorization"]


def test_two_tokens_sign_and_the_first_one_calls() -> None:
    provider = twilio(OTHER_SECRET, SECRET, api_key=None, api_secret=Secret(""))
    request = provider.build(OUTGOING)

    assert basic(ACCOUNT, OTHER_SECRET)["authorization"] == request.headers["authorization"]
    assert provider.authenticate(signed(replace(CALLBACK, body=b"A=1"), SECRET))
