"""Vonage: messages on one channel after the other, then calls."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)
from jsonschema import Draft4Validator
from keypair import key_pair
from providers.cases import (
    CALLBACK,
    NOW,
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

from gateway.domain.delivery import State
from gateway.ports import (
    Accepted,
    Callback,
    Correlation,
    Malformed,
    Outgoing,
    Polls,
    Receipt,
    RefusalKind,
    Refused,
    Request,
    Response,
    Revokes,
    Secret,
    Timed,
    Unknown,
)
from gateway.providers.vonage import TOKEN_LIFE, TOKEN_SPARE, Vonage, spoken, voice_language

APPLICATION = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
HEADERS = {"accept": "application/json", "content-type": "application/json"}
URL = "https://api.nexmo.com/v1/messages"
CALLS_URL = "https://api.nexmo.com/v1/calls"
HOOK = "https://otp.example.com/otp/delivered/route/token"
AVOID = 86_400.0
ACCOUNT, PERMANENT, TEMPORARY, THROTTLED = (
    RefusalKind.ACCOUNT,
    RefusalKind.PERMANENT,
    RefusalKind.TEMPORARY,
    RefusalKind.THROTTLED,
)
CREDENTIALS: Mapping[str, Any] = {
    "application_id": APPLICATION,
    "private_key": key_pair().private,
    "api_key": "abcd1234",
    "api_secret": Secret("the-api-secret"),
}
BODY: Mapping[str, object] = {
    "channel": "sms",
    "message_type": "text",
    "to": "33600000000",
    "from": "ACME",
    "text": "123456 is your code",
    "client_ref": "0193-a1",
    "webhook_url": HOOK,
    "webhook_version": "v1",
    "ttl": 120,
}
TALK: Mapping[str, object] = {
    "action": "talk",
    "text": "1, 2, 3, 4, 5, 6 is your code",
    "language": "en-US",
    "style": 0,
    "loop": 2,
}
CALL: Mapping[str, object] = {
    "to": [{"type": "phone", "number": "33600000000"}],
    "from": {"type": "phone", "number": "447700900001"},
    "ncco": [TALK],
    "ringing_timer": 30,
    "length_timer": 120,
    "event_url": [HOOK],
    "event_method": "POST",
}
BUTTON: Mapping[str, object] = {
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
NO_ID: Sequence[object] = (b"", b"<html>OK</html>", b'{"message_uuid":', [], {}, {"uuid": 7})
NO_PROBLEM: Sequence[object] = (
    b"",
    b"<html>",
    [],
    {"type": 7, "title": ["1170"], "invalid_parameters": {}},
    {"type": None, "title": None, "invalid_parameters": [7, {"name": 7}]},
)

# A sample as the vendor signs it, of which its official library accepts the token.
VECTOR_SECRET = Secret("vonage-signature-secret-for-tests-0123456789")
VECTOR_TIME = datetime.fromtimestamp(1_735_740_000, UTC)
VECTOR_BODY = data("vonage/status_vector.json")
VECTOR_TOKEN = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE3MzU3NDAwMDAsImp0aSI6IjExMTExMTExLTIyMjIt"
    "NDMzMy04NDQ0LTU1NTU1NTU1NTU1NSIsImlzcyI6IlZvbmFnZSIsInBheWxvYWRfaGFzaCI6IjYzNWMzY2NhYjIy"
    "YjQzYzgxZWVhNGFiODQwOWFjZDlkYzkyZjcwYjY3NTJmN2Q4NjFhMzYwYjkxMjE1MzcxZjEiLCJhcGlfa2V5Ijoi"
    "YWJjZDEyMzQiLCJhcHBsaWNhdGlvbl9pZCI6ImFhYWFhYWFhLWJiYmItNGNjYy04ZGRkLWVlZWVlZWVlZWVlZSJ9"
    ".z29awvFecH_xKgj0USAFzMeX6Na71DCFo1Qq0vLrhxY"
)

DELIVERED = Receipt(
    word="delivered",
    state=State.DELIVERED,
    reference="m_1",
    attempt_id="0193-a1",
    recipient="+33600000000",
    provider_time="2026-11-21T10:00:00.000Z",
    cost="0.0333 EUR",
)
COMPLETED = Receipt(
    word="completed",
    state=State.DELIVERED,
    reference="c_1",
    attempt_id="0193-a1",
    recipient="+33600000000",
    provider_time="2026-11-21T10:00:19.123Z",
    cost="0.01500000 EUR",
)


def status(**changes: object) -> dict[str, object]:
    return {**orjson.loads(data("vonage/status_sms.json")), **changes}


def event(**changes: object) -> dict[str, object]:
    return {**orjson.loads(data("vonage/call_completed.json")), **changes}


def without(item: dict[str, object], *fields: str) -> dict[str, object]:
    return {key: value for key, value in item.items() if key not in fields}


def part(content: object) -> str:
    return base64.urlsafe_b64encode(encoded(content)).rstrip(b"=").decode()


def token(body: bytes, secret: str, head: object = None, **changes: object) -> str:
    claims = {
        "iat": int(NOW.timestamp()),
        "jti": "11111111-2222-4333-8444-555555555555",
        "iss": "Vonage",
        "payload_hash": hashlib.sha256(body).hexdigest(),
        "api_key": "abcd1234",
        "application_id": APPLICATION,
        **changes,
    }
    kept = {name: value for name, value in claims.items() if value is not None}
    signed = f"{part(head or {'alg': 'HS256', 'typ': 'JWT'})}.{part(kept)}"
    mac = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def signed(callback: Callback, secret: str, **changes: object) -> Callback:
    value = f"Bearer {token(callback.body, secret, **changes)}"
    return replace(callback, headers={**callback.headers, "authorization": value})


class VonageCases(ProviderCases):
    """What messages and calls have in common."""

    provider = "vonage"
    secrets_field = "signature_secret"
    fetches_token = True

    def signature_header(self) -> str:
        return "authorization"

    def refusal(self, message: str) -> bytes:
        wrong = [{"name": "to", "reason": message}]
        problem = {"type": "https://x.example#1150", "title": message, "detail": message}
        return orjson.dumps({**problem, "invalid_parameters": wrong})


class TestMessages(VonageCases):
    statuses = Vonage.statuses
    unpromised = frozenset({State.READ})  # an SMS is never read; the other channels promise it
    settings: ClassVar[Mapping[str, Any]] = {"channel": "sms", "sender": "ACME", **CREDENTIALS}

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(label="sms", url=URL, headers=HEADERS, change={"sender": "ACME"}, body=BODY),
        SendCase(
            label="the sender is a number, no URL of its own",
            url=URL,
            headers=HEADERS,
            change={"sender": "+447700900001", "callback_url": ""},
            body={**without(dict(BODY), "webhook_url"), "from": "447700900001"},
        ),
        SendCase(
            label="the route's URL",
            url=URL,
            headers=HEADERS,
            settings={"webhook_url": "https://otp.example.com/otp/delivered/route"},
            change={"sender": "ACME", "callback_url": ""},
            body={**BODY, "webhook_url": "https://otp.example.com/otp/delivered/route"},
        ),
        SendCase(
            label="no sender in this country",
            url=URL,
            headers=HEADERS,
            body=without(dict(BODY), "from"),
        ),
        *(
            SendCase(
                label=f"sms, {validity} s",
                url=URL,
                headers=HEADERS,
                change={"sender": "ACME", "validity": validity},
                body={**BODY, "ttl": ttl},
            )
            for validity, ttl in ((5, 20), (20, 20), (604_800, 604_800), (700_000, 604_800))
        ),
        SendCase(
            label="without a ttl, elsewhere",
            url="http://localhost:8026/vonage/v1/messages",
            headers=HEADERS,
            settings={"sms_ttl": False, "base_url": "http://localhost:8026/vonage/v1/"},
            change={"sender": "ACME"},
            body=without(dict(BODY), "ttl"),
        ),
        SendCase(
            label="with the account's key instead of a token",
            url=URL,
            headers={**HEADERS, "authorization": "Basic YWJjZDEyMzQ6dGhlLWFwaS1zZWNyZXQ="},
            settings={"application_id": None, "private_key": Secret("")},
            change={"sender": "ACME"},
            body=BODY,
        ),
        SendCase(
            label="rcs",
            url=URL,
            headers=HEADERS,
            settings={"channel": "rcs"},
            change={"sender": "ACME"},
            body={**BODY, "channel": "rcs", "ttl": 300},
        ),
        *(
            SendCase(
                label=f"viber, {validity} s",
                url=URL,
                headers=HEADERS,
                settings={"channel": "viber", "sender": "12345"},
                change={"sender": "12345", "validity": validity},
                body={
                    **without(dict(BODY), "ttl"),
                    "channel": "viber_service",
                    "from": "12345",
                    "viber_service": {"category": "transaction", "ttl": ttl},
                },
            )
            for validity, ttl in ((5, 30), (120, 120), (300_000, 259_200))
        ),
        *(
            SendCase(
                label=f"messenger: {given}",
                url=URL,
                headers=HEADERS,
                settings={"channel": "messenger", "sender": "107083064136738", **given},
                change={"sender": "107083064136738"},
                body={
                    **without(dict(BODY), "ttl"),
                    "channel": "messenger",
                    "from": "107083064136738",
                    "messenger": options,
                },
            )
            for given, options in (
                ({}, {"category": "response"}),
                ({"messenger_category": "update"}, {"category": "update"}),
                (
                    {"messenger_category": "message_tag", "messenger_tag": "ACCOUNT_UPDATE"},
                    {"category": "message_tag", "tag": "ACCOUNT_UPDATE"},
                ),
            )
        ),
        *(
            SendCase(
                label=f"whatsapp: {given}",
                url=URL,
                headers=HEADERS,
                settings={
                    "channel": "whatsapp",
                    "sender": "+447700900001",
                    "whatsapp_template": "otp",
                    **given,
                },
                change={"sender": "+447700900001", "locale": "en-GB", **change},
                body={
                    **without(dict(BODY), "ttl", "text"),
                    "channel": "whatsapp",
                    "from": "447700900001",
                    **content,
                },
            )
            for given, change, content in (
                ({}, {}, {"message_type": "custom", "custom": BUTTON}),
                (
                    {"whatsapp_button": False},
                    {},
                    {
                        "message_type": "template",
                        "template": {"name": "otp", "parameters": ["123456"]},
                        "whatsapp": {"policy": "deterministic", "locale": "en-GB"},
                    },
                ),
                (
                    {
                        "whatsapp_button": False,
                        "whatsapp_template": {"login": "sign_in", "default": "otp"},
                        "whatsapp_locale": {"en-GB": "en_US", "default": "fr"},
                    },
                    {"template": "login"},
                    {
                        "message_type": "template",
                        "template": {"name": "sign_in", "parameters": ["123456"]},
                        "whatsapp": {"policy": "deterministic", "locale": "en-US"},
                    },
                ),
            )
        ),
    ]

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=202,
            body={"message_uuid": "aaaaaaaa-bbbb-cccc-dddd-0123456789ab"},
            expected=Accepted("aaaaaaaa-bbbb-cccc-dddd-0123456789ab"),
        ),
        *(
            ResponseCase(
                label=f"202 without an id: {body!r}",
                status=202,
                body=body,
                expected=Unknown("no_reference", "HTTP 202"),
            )
            for body in NO_ID
        ),
        *(
            ResponseCase(
                label=f"{code} {kind}",
                status=code,
                body={"type": f"https://developer.nexmo.com/{kind}", "title": "No"},
                expected=Refused(reason, refusal, error="No", avoid=avoid),
            )
            for code, kind, reason, refusal, avoid in (
                (401, "api-errors/#unathorized", "unauthorized", ACCOUNT, None),
                (401, "api-errors/#unprovisioned", "unauthorized", ACCOUNT, None),
                (403, "api-errors/#forbidden", "unauthorized", ACCOUNT, None),
                (402, "api-errors/#low-balance", "no_credit", ACCOUNT, None),
                (422, "api-errors#invalid-json", "bad_request", ACCOUNT, None),
                (422, "api-errors/messages-olympus#1060", "account_blocked", ACCOUNT, None),
                (422, "api-errors/messages-olympus#1100", "vendor_error", TEMPORARY, None),
                (422, "api-errors/messages-olympus#1110", "bad_request", ACCOUNT, None),
                (422, "api-errors/messages-olympus#1120", "bad_sender", ACCOUNT, None),
                (422, "api-errors/messages-olympus#1140", "bad_request", ACCOUNT, None),
                (422, "api-errors/messages#1170", "bad_destination", PERMANENT, AVOID),
                (422, "api-errors/messages#1340", "outside_window", ACCOUNT, None),
                (422, "api-errors/messages#1000", "throttled", THROTTLED, None),
                (422, "api-errors/messages#9999", "rejected", PERMANENT, None),
                (400, "", "rejected", PERMANENT, None),
                (404, "1170", "rejected", PERMANENT, None),
            )
        ),
        *(
            ResponseCase(
                label=f"{title}, whatever its code means elsewhere",
                status=422,
                body={"type": "https://x.example/messages-olympus#1100", "title": title},
                expected=Refused(reason, ACCOUNT, error=title),
            )
            for title, reason in (
                ("Unsupported channel", "bad_request"),
                ("Invalid channel parameters", "bad_request"),
                ("Invalid sender", "bad_sender"),
                ("Invalid message type", "bad_request"),
                ("Invalid params", "bad_request"),
                ("Invalid client reference", "bad_request"),
            )
        ),
        ResponseCase(
            label="a recipient that is none, by its title",
            status=422,
            body={"type": "https://x.example/messages-olympus#110", "title": "Invalid recipient"},
            expected=Refused("bad_destination", PERMANENT, error="Invalid recipient", avoid=AVOID),
        ),
        ResponseCase(
            label="already sent",
            status=422,
            body={"type": "https://x.example/messages#1320", "title": "Already sent"},
            expected=Unknown("already_sent", "Already sent"),
        ),
        ResponseCase(
            label="parameters, of which the names are kept",
            status=422,
            body=data("vonage/invalid_params.json"),
            expected=Refused(
                "bad_request",
                ACCOUNT,
                error="Invalid params: The value of one or more parameters is invalid.:"
                " messenger.category: Must be one of `response`, `update` or `message_tag`.",
            ),
        ),
        *(
            ResponseCase(
                label=f"no problem document: {body!r}",
                status=422,
                body=body,
                expected=Refused("rejected", PERMANENT, error="HTTP 422"),
            )
            for body in NO_PROBLEM
        ),
        *(
            ResponseCase(
                label=f"too fast: {pause!r}",
                status=429,
                body=data("vonage/throttled.json"),
                headers={} if pause is None else {"Retry-After": pause},
                expected=Refused(
                    "throttled",
                    THROTTLED,
                    seconds,
                    "Rate Limit Hit: Please wait, then retry your request",
                ),
            )
            for pause, seconds in ((None, None), ("7", 7.0), ("soon", None))
        ),
        *(
            ResponseCase(
                label=f"{code}",
                status=code,
                body={"message_uuid": "m_1"},
                expected=Unknown(reason, f"HTTP {code}"),
            )
            for code, reason in (
                (200, "odd_answer"),
                (201, "odd_answer"),
                (302, "odd_answer"),
                (500, "server_error"),
                (503, "server_error"),
            )
        ),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(label="sms", body=data("vonage/status_sms.json"), expected=[DELIVERED]),
        ReceiptCase(
            label="whatsapp, read",
            body=data("vonage/status_whatsapp.json"),
            expected=[
                replace(
                    DELIVERED,
                    word="read",
                    state=State.READ,
                    provider_time="2026-11-21T10:00:07.000Z",
                    cost=None,
                )
            ],
        ),
        ReceiptCase(
            label="opted out, the code a number",
            body=data("vonage/status_rejected.json"),
            expected=[
                replace(
                    DELIVERED,
                    word="rejected",
                    state=State.FAILED,
                    reason="opted_out",
                    permanent=True,
                    cost="0.0000 EUR",
                    avoid=AVOID,
                )
            ],
        ),
        ReceiptCase(label="from a person", body=data("vonage/inbound.json"), expected=[]),
        *(
            ReceiptCase(
                label=word,
                body=status(status=word),
                expected=[replace(DELIVERED, word=word, state=state)],
            )
            for word, state in (
                ("submitted", State.ACK),
                ("read", State.READ),
                ("DELIVERED", None),
                ("accepted", None),
            )
        ),
        *(
            ReceiptCase(
                label=f"{word}: {error!r}",
                body=status(status=word, error=error),
                expected=[
                    replace(
                        DELIVERED,
                        word=word,
                        state=State.FAILED,
                        reason=reason,
                        permanent=permanent,
                        avoid=avoid,
                    )
                ],
            )
            for word, error, reason, permanent, avoid in (
                ("rejected", None, "rejected", False, None),
                ("rejected", [], "rejected", False, None),
                ("rejected", {"title": "9999"}, "rejected", False, None),
                ("rejected", {"title": {}, "type": []}, "rejected", False, None),
                ("rejected", {"title": "1360"}, "too_late", False, None),
                ("rejected", {"title": 1190}, "bad_destination", True, AVOID),
                ("rejected", {"type": "https://x.example#1300"}, "not_a_user", True, AVOID),
                ("rejected", {"title": "1210"}, "spam", True, None),
                ("rejected", {"title": "1070"}, "no_credit", False, None),
                ("undeliverable", {"title": "1100"}, "vendor_error", False, None),
                ("undeliverable", {}, "undeliverable", False, None),
            )
        ),
        ReceiptCase(
            label="rejected, for it was already sent",
            body=status(status="rejected", error={"title": "1320"}),
            expected=[replace(DELIVERED, word="rejected", state=None)],
        ),
        ReceiptCase(
            label="an error beside a delivery",
            body=status(error={"title": "1190"}),
            expected=[DELIVERED],
        ),
        *(
            ReceiptCase(
                label=f"client_ref {ref!r}",
                body=status(client_ref=ref),
                expected=[replace(DELIVERED, attempt_id=attempt)],
            )
            for ref, attempt in ((None, None), (7, None), ("", None), ("otp-1", "otp-1"))
        ),
        *(
            ReceiptCase(
                label=f"usage {usage!r}",
                body=status(usage=usage),
                expected=[replace(DELIVERED, cost=cost)],
            )
            for usage, cost in (
                (None, None),
                ([], None),
                ({}, None),
                ({"price": 0.5}, "0.5 EUR"),
                ({"price": "0.5", "currency": "USD"}, "0.5 USD"),
                ({"price": True, "currency": "EUR"}, None),
            )
        ),
        ReceiptCase(
            label="a page-scoped id",
            body=status(to="psid-é"),
            expected=[replace(DELIVERED, recipient="psid-é")],
        ),
        *(
            ReceiptCase(label=f"{why}: {body!r}", body=body, expected=[Malformed(why, b"")])
            for body, why in (
                (b"", "not JSON"),
                (b"hello", "not JSON"),
                (b"\xff", "not JSON"),
                ([status()], "not an object"),
                (7, "not an object"),
                ({}, "the id is missing or unusable"),
                (without(status(), "message_uuid"), "the id is missing or unusable"),
                (without(status(), "status"), "status is missing or unusable"),
                (status(status=["read"]), "status is missing or unusable"),
            )
        ),
        ReceiptCase(
            label="of another attempt than the URL's",
            body=status(client_ref="0193-b2"),
            change={"attempt_id": "0193-a1"},
            expected=[Malformed("client_ref differs", b"")],
        ),
    ]

    def sign(self, callback: Callback, secret: str) -> Callback:
        return signed(callback, secret)

    def receipt(self, word: str) -> bytes:
        return orjson.dumps(status(status=word))

    def may_accept(self, status: int, answer: object) -> bool:
        return status == 202 and isinstance(answer, dict) and "message_uuid" in answer

    def stale(self, secret: str) -> Callback:
        at = int(NOW.timestamp()) - 301
        return signed(replace(CALLBACK, body=self.receipt("delivered")), secret, iat=at)


class TestCalls(VonageCases):
    sender = "+447700900001"
    statuses = Vonage.calls
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "voice",
        "sender": "+447700900001",
        **CREDENTIALS,
    }

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label="a call",
            url=CALLS_URL,
            headers=HEADERS,
            change={"sender": "+447700900001"},
            body=CALL,
        ),
        SendCase(
            label="from any number, in French, for 12 seconds",
            url=CALLS_URL,
            headers=HEADERS,
            change={"locale": "fr_CA", "validity": 12, "callback_url": ""},
            body={
                **without(dict(CALL), "from", "event_url", "event_method"),
                "random_from_number": True,
                "ncco": [{**TALK, "language": "fr-CA"}],
                "ringing_timer": 12,
            },
        ),
        SendCase(
            label="another voice, and machines are hung up on",
            url=CALLS_URL,
            headers=HEADERS,
            change={"sender": "447700900001"},
            settings={
                "voice_language": "cy-GB",
                "voice_style": 3,
                "voice_ring": 45,
                "voice_detection": "hangup",
            },
            body={
                **CALL,
                "ncco": [{**TALK, "language": "cy-GB", "style": 3}],
                "ringing_timer": 45,
                "machine_detection": "hangup",
            },
        ),
    ]

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="begun",
            status=201,
            body=data("vonage/call_created.json"),
            expected=Accepted("63f61863-4a51-4f6b-86e1-46edebcf9356"),
        ),
        *(
            ResponseCase(
                label=f"201 without an id: {body!r}",
                status=201,
                body=body,
                expected=Unknown("no_reference", "HTTP 201"),
            )
            for body in NO_ID
        ),
        ResponseCase(
            label="not accepted the way messages are",
            status=202,
            body=data("vonage/call_created.json"),
            expected=Unknown("odd_answer", "HTTP 202"),
        ),
        ResponseCase(
            label="bad request",
            status=400,
            body={"type": "BAD_REQUEST", "error_title": "Bad Request"},
            expected=Refused("rejected", PERMANENT, error="Bad Request"),
        ),
        ResponseCase(
            label="not let in",
            status=401,
            body={"type": "UNAUTHORIZED", "error_title": "Unauthorized"},
            expected=Refused("unauthorized", ACCOUNT, error="Unauthorized"),
        ),
        ResponseCase(
            label="too fast", status=429, expected=Refused("throttled", THROTTLED, None, "HTTP 429")
        ),
        ResponseCase(label="500", status=500, expected=Unknown("server_error", "HTTP 500")),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(
            label="over, after nine seconds",
            body=data("vonage/call_completed.json"),
            expected=[COMPLETED],
        ),
        *(
            ReceiptCase(
                label=f"over, duration {duration!r}",
                body=event(duration=duration, price=None),
                expected=[replace(COMPLETED, state=state, cost=None)],
            )
            for duration, state in (
                ("60", State.DELIVERED),
                (1, State.DELIVERED),
                ("0", None),
                (0, None),
                (None, None),
                ("", None),
                ([], None),
                ("long", None),
            )
        ),
        ReceiptCase(
            label="no such number",
            body=data("vonage/call_failed.json"),
            expected=[
                replace(
                    COMPLETED,
                    word="failed",
                    state=State.FAILED,
                    reason="bad_destination",
                    permanent=True,
                    provider_time="2026-11-21T10:00:02.000Z",
                    cost=None,
                    avoid=AVOID,
                )
            ],
        ),
        *(
            ReceiptCase(
                label=f"{word}: {detail}",
                body=event(status=word, detail=detail),
                expected=[
                    replace(
                        COMPLETED,
                        word=word,
                        state=State.FAILED,
                        reason=reason,
                        permanent=avoid is not None,
                        avoid=avoid,
                    )
                ],
            )
            for word, detail, reason, avoid in (
                ("rejected", "cannot_route", "not_routable", AVOID),
                ("failed", "number_out_of_service", "out_of_service", AVOID),
                ("rejected", "declined", "refused", None),
                ("failed", "unavailable", "unavailable", None),
                ("failed", "carrier_timeout", "carrier_timeout", None),
                ("failed", "something_new", "failed", None),
                ("rejected", None, "rejected", None),
                ("busy", "invalid_number", "busy", None),
            )
        ),
        ReceiptCase(
            label="named by call_uuid",
            body={**without(event(status="ringing"), "uuid"), "call_uuid": "c_1"},
            expected=[replace(COMPLETED, word="ringing", state=State.ACK)],
        ),
        ReceiptCase(
            label="an error of the call's script",
            body={"reason": "Syntax error in NCCO", "conversation_uuid": "CON-1"},
            expected=[Malformed("the id is missing or unusable", b"")],
        ),
    ]

    def sign(self, callback: Callback, secret: str) -> Callback:
        return signed(replace(callback, attempt_id="0193-a1"), secret)

    def receipt(self, word: str) -> bytes:
        return orjson.dumps(event(status=word, uuid="m_1"))

    def may_accept(self, status: int, answer: object) -> bool:
        return status == 201 and isinstance(answer, dict) and "uuid" in answer


def vonage(*secrets: Secret, now: datetime = NOW, **changes: Any) -> Vonage:
    fields = {"name": "route", "account": "account", "signature_secret": secrets or (SECRET,)}
    settings = Vonage.Settings(**{**fields, **TestMessages.settings, **changes})
    return Vonage(settings, now=lambda: now)


def call(**changes: Any) -> Vonage:
    return vonage(channel="voice", **{"sender": None, **changes})


# What a channel declares.


@pytest.mark.parametrize(
    ("changes", "read", "validity"),
    [
        ({"channel": "sms"}, False, True),
        ({"channel": "sms", "sms_ttl": False}, False, False),
        ({"channel": "rcs"}, True, True),
        ({"channel": "viber"}, True, True),
        ({"channel": "messenger"}, True, False),
        (
            {"channel": "whatsapp", "sender": "447700900001", "whatsapp_template": "otp"},
            True,
            False,
        ),
        ({"channel": "voice", "sender": None}, False, True),
    ],
)
def test_a_channel_promises_what_it_can(
    changes: Mapping[str, Any], read: bool, validity: bool
) -> None:
    provider = vonage(**changes)

    assert read == (State.READ in provider.confirms)
    assert {State.ACK, State.DELIVERED, State.FAILED} <= provider.confirms
    assert validity == provider.validity
    assert (Correlation.TOKEN if changes["channel"] == "voice" else Correlation.ECHO) == (
        provider.correlates
    )


def test_without_an_application_no_receipt_is_promised() -> None:
    provider = vonage(application_id=None, private_key=Secret(""))

    assert frozenset() == provider.confirms
    assert provider.auth() is None


def test_it_cannot_be_asked() -> None:
    assert not isinstance(vonage(), Polls)


# Against the vendor's description, which is older than RCS.

API = orjson.loads(data("vonage/api.trimmed.json"))


def described(kind: str, body: object) -> bool:
    schema = {"components": API["components"], **API[kind]}
    return bool(Draft4Validator(schema).is_valid(body))


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in TestMessages.sends
        if "from" in dict(case.body) and case.settings.get("channel") != "rcs"  # type: ignore[call-overload]
    ],
    ids=lambda case: case.label,
)
def test_messages_are_as_described(case: SendCase) -> None:
    assert described("messages", case.body)


@pytest.mark.parametrize("case", TestCalls.sends, ids=lambda case: case.label)
def test_calls_are_as_described(case: SendCase) -> None:
    assert described("calls", case.body)


@pytest.mark.parametrize("name", ["status_vector.json", "status_sms.json"])
def test_samples_are_as_described(name: str) -> None:
    assert described("status", orjson.loads(data(f"vonage/{name}")))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("messages", without(dict(BODY), "to")),
        ("messages", {**BODY, "channel": "pigeon"}),
        ("messages", {**BODY, "to": "1"}),
        ("calls", {**CALL, "ringing_timer": 121}),
        ("status", without(status(), "message_uuid")),
    ],
)
def test_the_description_tells_right_from_wrong(kind: str, body: object) -> None:
    assert not described(kind, body)


# The token we make.


def unpacked(value: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Head and claims of a token whose signature is the application's."""
    scheme, _, made = value.partition(" ")
    head, claims, mac = made.split(".")
    key = load_pem_public_key(key_pair().public.encode())
    signature = base64.urlsafe_b64decode(mac + "==")

    assert "Bearer" == scheme
    assert isinstance(key, RSAPublicKey)
    key.verify(signature, f"{head}.{claims}".encode(), PKCS1v15(), SHA256())
    return opened(head), opened(claims)


def opened(one: str) -> dict[str, Any]:
    return dict(orjson.loads(base64.urlsafe_b64decode(f"{one}==")))


def authorized(provider: Vonage) -> str:
    """The header a request leaves with."""
    request = provider.build(OUTGOING)
    auth = provider.auth()
    assert auth is not None
    assert request is next(auth.auth_flow(request))
    return request.headers["authorization"]


def test_a_request_carries_a_token_of_the_application() -> None:
    head, claims = unpacked(authorized(vonage()))
    at = int(NOW.timestamp())

    assert {"alg": "RS256", "typ": "JWT"} == head
    assert 36 == len(claims.pop("jti"))
    assert {"application_id": APPLICATION, "iat": at, "exp": at + TOKEN_LIFE} == claims


def test_the_signature_covers_the_claims() -> None:
    value = authorized(vonage())
    head, claims, mac = value.split(".")

    with pytest.raises(InvalidSignature):
        unpacked(f"{head}.{claims[:-1]}{'A' if claims[-1] != 'A' else 'B'}.{mac}")


@pytest.mark.parametrize(
    ("seconds", "same"),
    [
        (0, True),
        (TOKEN_LIFE - TOKEN_SPARE - 1, True),
        (TOKEN_LIFE - TOKEN_SPARE, False),
        (TOKEN_LIFE, False),
        (86_400, False),
        (-1, False),
    ],
)
def test_a_token_serves_until_it_is_nearly_over(seconds: int, same: bool) -> None:
    provider = vonage()
    first = authorized(provider)
    provider.now = lambda: NOW + timedelta(seconds=seconds)
    second = authorized(provider)

    assert same == (first == second)
    assert int(NOW.timestamp()) + (0 if same else seconds) == unpacked(second)[1]["iat"]


def test_its_clock_comes_from_the_wiring() -> None:
    provider = Vonage(Vonage.Settings(name="route", account="account", **TestMessages.settings))

    assert isinstance(provider, Timed)
    with pytest.raises(LookupError):
        authorized(provider)
    provider.now = lambda: NOW
    assert int(NOW.timestamp()) == unpacked(authorized(provider))[1]["iat"]


def test_one_requests_token_is_not_left_in_the_next_request() -> None:
    provider = vonage()
    authorized(provider)

    assert "authorization" not in provider.build(OUTGOING).headers


# The token of a callback.


def vector(**changes: Any) -> Callback:
    return replace(
        CALLBACK,
        **{
            "body": VECTOR_BODY,
            "headers": {"authorization": f"Bearer {VECTOR_TOKEN}"},
            "received_at": VECTOR_TIME,
            **changes,
        },
    )


def test_the_vendors_sample_is_accepted() -> None:
    provider = vonage(VECTOR_SECRET)

    assert (
        "635c3ccab22b43c81eea4ab8409acd9dc92f70b6752f7d861a360b91215371f1"
        == hashlib.sha256(VECTOR_BODY).hexdigest()
    )
    assert provider.authenticate(vector())
    assert ["otp-1"] == [
        receipt.attempt_id
        for receipt in provider.receipts(vector())
        if isinstance(receipt, Receipt)
    ]
    assert not provider.authenticate(vector(body=VECTOR_BODY + b"\n"))
    assert not provider.authenticate(vector(received_at=NOW))
    assert not vonage(SECRET, OTHER_SECRET).authenticate(vector())


def test_the_tests_sign_as_the_vendor_does() -> None:
    made = token(VECTOR_BODY, VECTOR_SECRET, iat=int(VECTOR_TIME.timestamp()))

    assert VECTOR_TOKEN == made


@pytest.mark.parametrize(
    ("seconds", "age", "fresh"),
    [
        (0, 300, True),
        (300, 300, True),
        (-300, 300, True),
        (301, 300, False),
        (-301, 300, False),
        (3600, 86_400, True),
    ],
)
def test_a_signature_has_its_time(seconds: int, age: int, fresh: bool) -> None:
    callback = signed(replace(CALLBACK, body=VECTOR_BODY), SECRET)
    late = replace(callback, received_at=NOW.replace(microsecond=0) + timedelta(seconds=seconds))

    assert fresh == vonage(signature_age=age).authenticate(late)


@pytest.mark.parametrize(
    "head",
    [
        {"alg": "none", "typ": "JWT"},
        {"alg": "None"},
        {"alg": "RS256", "typ": "JWT"},
        {"alg": "HS512", "typ": "JWT"},
        {"alg": ["HS256"]},
        {"typ": "JWT"},
        [],
        "HS256",
        b"{",
    ],
    ids=str,
)
def test_no_other_algorithm_counts_even_when_the_signature_is_right(head: object) -> None:
    made = token(VECTOR_BODY, SECRET, head or b"[]")
    unsigned = made.rpartition(".")[0]
    for value in (made, f"{unsigned}.", unsigned):
        callback = vector(headers={"authorization": f"Bearer {value}"}, received_at=NOW)

        assert not vonage().authenticate(callback)


def test_the_public_key_is_no_secret() -> None:
    """The mistake by which RS256 is forged where the algorithm is taken from the token."""
    forged = token(VECTOR_BODY, key_pair().public, {"alg": "RS256", "typ": "JWT"})

    assert not vonage().authenticate(
        vector(headers={"authorization": f"Bearer {forged}"}, received_at=NOW)
    )


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({"api_key": None}, True),
        ({"api_key": "other"}, False),
        ({"api_key": 7}, False),
        ({"application_id": None}, True),
        ({"application_id": "other"}, False),
        ({"iss": None}, True),
        ({"payload_hash": None}, False),
        ({"payload_hash": ""}, False),
        ({"payload_hash": 7}, False),
        ({"payload_hash": "é"}, False),
        ({"payload_hash": hashlib.sha256(b"").hexdigest()}, False),
        ({"payload_hash": hashlib.sha256(VECTOR_BODY).hexdigest().upper()}, False),
        ({"iat": None}, False),
        ({"iat": True}, False),
        ({"iat": str(int(NOW.timestamp()))}, False),
        ({"iat": NOW.timestamp()}, True),
        ({"iat": 1e300}, False),
        ({"iat": -1}, False),
    ],
)
def test_what_a_token_claims_must_hold(changes: Mapping[str, object], holds: bool) -> None:
    callback = signed(replace(CALLBACK, body=VECTOR_BODY), SECRET, **changes)

    assert holds == vonage().authenticate(callback)


@pytest.mark.parametrize("signed_part", ["AAAAA.AAAA", "AAAA.AAAAA", "bnVsbA.bnVsbA", "e30.e30"])
def test_parts_that_are_no_objects_are_refused_even_when_signed(signed_part: str) -> None:
    mac = hmac.digest(SECRET.encode(), signed_part.encode(), hashlib.sha256)
    value = f"Bearer {signed_part}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    assert not vonage().authenticate(vector(headers={"authorization": value}, received_at=NOW))


def test_what_we_do_not_know_is_not_compared() -> None:
    provider = vonage(api_key=None, api_secret=Secret(""))
    callback = signed(replace(CALLBACK, body=VECTOR_BODY), SECRET, api_key="whose?")

    assert provider.authenticate(callback)


@pytest.mark.parametrize(
    "shape",
    [
        "{t}",
        "Bearer{t}",
        "Bearer  {t}",
        "Bearer\t{t}",
        "Basic {t}",
        "Bearer {t}.{t}",
        "Bearer {t}=",
        "Bearer {t}, Bearer {t}",
        "Bearer ..",
        "Bearer a.b.c",
        "Bearer AAAAA.AAAAA.AAAAA",
        "BEARER {t}",
    ],
)
def test_a_header_of_another_shape_is_refused(shape: str) -> None:
    made = token(VECTOR_BODY, SECRET)
    callback = replace(CALLBACK, body=VECTOR_BODY)
    right = replace(callback, headers={"authorization": f"bearer {made}"})
    wrong = replace(callback, headers={"authorization": shape.format(t=made)})

    assert vonage().authenticate(right)
    assert not vonage().authenticate(wrong)


def test_a_message_needs_no_token_in_the_url_and_a_call_does() -> None:
    callback = signed(replace(CALLBACK, body=data("vonage/call_completed.json")), SECRET)

    assert vonage().authenticate(callback)
    assert not call().authenticate(callback)
    assert call().authenticate(replace(callback, attempt_id="0193-a1"))


# Calls.


@pytest.mark.parametrize("detection", ["continue", "hangup"])
def test_where_machines_are_told_apart_a_person_counts(detection: str) -> None:
    provider = call(voice_detection=detection)
    said = [
        provider.receipts(replace(CALLBACK, body=orjson.dumps(event(status=word))))[0]
        for word in ("answered", "machine", "human", "completed")
    ]

    assert [State.ACK, State.FAILED, State.DELIVERED, None] == [
        receipt.state for receipt in said if isinstance(receipt, Receipt)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("123456 is your code", "1, 2, 3, 4, 5, 6 is your code"),
        ("Your code: 123456.", "Your code: 1, 2, 3, 4, 5, 6."),
        ("9123456 or 123456?", "9123456 or 1, 2, 3, 4, 5, 6?"),
        ("x" * 1500, "x" * 1500),
        ("x" * 1501, "1, 2, 3, 4, 5, 6."),
    ],
)
def test_a_code_is_spelled(text: str, expected: str) -> None:
    assert expected == spoken(text, "123456")


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("en", "en-US"),
        ("en-GB", "en-GB"),
        ("en_au", "en-AU"),
        ("en-NZ", "en-US"),
        ("fr", "fr-FR"),
        ("fr-CA", "fr-CA"),
        ("pt-BR", "pt-BR"),
        ("ar-EG", "ar"),
        ("zh", "cmn-CN"),
        ("zh-Hant-TW", "cmn-TW"),
        ("fil", "fil-PH"),
        ("xx", "en-US"),
        ("", "en-US"),
    ],
)
def test_it_speaks_the_messages_language(locale: str, language: str) -> None:
    assert language == voice_language(locale)


# Taking back, and the account.


@pytest.mark.parametrize(
    ("channel", "method", "url", "body"),
    [
        ("voice", "PUT", f"{CALLS_URL}/c_1%2F", {"action": "hangup"}),
        ("rcs", "PATCH", f"{URL}/c_1%2F", {"status": "revoked"}),
    ],
)
def test_a_call_and_an_rcs_message_can_be_taken_back(
    channel: str, method: str, url: str, body: object
) -> None:
    provider = vonage(channel=channel, sender="447700900001")
    request = provider.build_revoke("0193-a1", "c_1/")

    assert isinstance(provider, Revokes)
    assert request is not None
    assert (method, url) == (request.method, str(request.url))
    assert body == orjson.loads(request.content)
    assert provider.build_revoke("0193-a1", None) is None


def test_an_sms_cannot_be_taken_back() -> None:
    assert vonage().build_revoke("0193-a1", "m_1") is None


def test_the_balance_is_asked_with_the_accounts_key() -> None:
    request = vonage().build_check()

    assert isinstance(request, Request)
    assert "https://rest.nexmo.com/account/get-balance" == str(request.url)
    assert "Basic YWJjZDEyMzQ6dGhlLWFwaS1zZWNyZXQ=" == request.headers["authorization"]
    assert vonage(api_secret=Secret("")).build_check() is None


@pytest.mark.parametrize(
    ("code", "body", "problem"),
    [
        (200, {"value": 10.28, "autoReload": False}, None),
        (200, {"value": 0}, "The Vonage account has no credit."),
        (401, {"title": "No"}, "Vonage refuses api_key or api_secret."),
        (200, {"value": "10"}, "Vonage does not tell the balance (HTTP 200)."),
        (500, {"title": "Oh"}, "Vonage does not tell the balance (Oh)."),
    ],
)
def test_a_balance_says_this(code: int, body: object, problem: str | None) -> None:
    assert problem == vonage().parse_check(Response(code, content=encoded(body)))


# Settings.


def elliptic() -> Secret:
    key = ec.generate_private_key(ec.SECP256R1())
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel": "fax"}, "channel: vonage has .*, not fax"),
        ({"timeout": -1}, "timeout"),
        ({"rate": -1}, "rate"),
        ({"concurrency": 0}, "concurrency"),
        ({"base_url": ""}, "base_url"),
        ({"account_url": "ftp://x"}, "account_url"),
        ({"webhook_url": "https://x.example/?a=1"}, "webhook_url"),
        ({"application_id": None}, "application_id"),
        ({"private_key": Secret("no key")}, "private_key"),
        ({"private_key": elliptic()}, "private_key"),
        ({"private_key": Secret(""), "api_secret": Secret("")}, "private_key: is missing, and"),
        ({"private_key": Secret(""), "channel": "voice", "sender": None}, "private_key: .*calls"),
        ({"api_key": None}, "api_key"),
        ({"api_key": "é"}, "api_key"),
        ({"api_secret": Secret("a\nb")}, "api_secret"),
        ({"signature_secret": Secret("one")}, "signature_secret"),
        ({"signature_age": 0}, "signature_age"),
        ({"avoid": -1.0}, "avoid"),
        ({"sender": None}, "sender: is missing"),
        ({"sender": {}}, "sender: is missing"),
        ({"sender": {"FR": "x" * 51}}, "sender: 1 to 50"),
        ({"channel": "voice", "sender": "ACME"}, "sender: voice has numbers"),
        (
            {"channel": "whatsapp", "sender": {"default": "ACME"}, "whatsapp_template": "otp"},
            "sender: whatsapp has numbers",
        ),
        ({"channel": "whatsapp", "sender": "447700900001"}, "whatsapp_template"),
        (
            {
                "channel": "whatsapp",
                "sender": "447700900001",
                "whatsapp_template": {"login": "otp"},
            },
            "whatsapp_template",
        ),
        ({"messenger_category": "promotion"}, "messenger_category"),
        ({"messenger_category": "message_tag"}, "messenger_tag"),
        ({"messenger_tag": "ACCOUNT_UPDATE"}, "messenger_tag"),
        ({"voice_detection": "beep"}, "voice_detection"),
        ({"voice_ring": 121}, "voice_ring"),
    ],
)
def test_a_wrong_setting_is_named(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        vonage(**changes)


def test_every_wrong_setting_is_named() -> None:
    with pytest.raises(ValueError, match=r"timeout.*; base_url.*; sender"):
        vonage(timeout=0, base_url="", sender=None)


def test_the_waiting_route_and_the_one_after_it_are_one_account() -> None:
    """Messenger for 120 s, else SMS: either route's address takes the other's receipts."""
    chat, sms = vonage(channel="messenger", sender="107083064136738"), vonage()
    callback = signed(replace(CALLBACK, body=orjson.dumps(status(channel="messenger"))), SECRET)
    outgoing: Outgoing = replace(OUTGOING, sender="107083064136738")

    assert "messenger" == orjson.loads(chat.build(outgoing).content)["channel"]
    assert sms.authenticate(callback)
    assert list(chat.receipts(callback)) == list(sms.receipts(callback))
