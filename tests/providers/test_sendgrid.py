"""SendGrid."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
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

from gateway.domain import mail
from gateway.domain.delivery import State
from gateway.ports import (
    Accepted,
    Callback,
    Malformed,
    Receipt,
    RefusalKind,
    Refused,
    Request,
    Response,
    Secret,
    Unknown,
)
from gateway.providers.sendgrid import OUR_ID, Sendgrid

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
URL = "https://api.sendgrid.com/v3/mail/send"
HEADERS = {"authorization": "Bearer SG.the-key", "content-type": "application/json"}
RECIPIENT = "anna@example.com"
WEEK = 604_800.0
RESET = {"X-RateLimit-Reset": str(int(NOW.timestamp()) + 20)}
ACCOUNT, PERMANENT = RefusalKind.ACCOUNT, RefusalKind.PERMANENT

DELIVERED = Receipt(
    word="delivered",
    state=State.DELIVERED,
    reference="m_1",
    attempt_id="0193-a1",
    recipient=RECIPIENT,
    provider_time="1795255203",
)
BOUNCE = replace(
    DELIVERED, word="bounce", state=State.FAILED, reason="bounced", permanent=True, avoid=WEEK
)

# From the fact sheet, computed there with the vendor's own library.
VECTOR_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEO6DUbWrvC3w8PgkfAe7LreYuI9vzh9GEjDJ74UxRXQVq6b/"
    "HYB20aw5p6HgOEd2Eq1M8gYSfTksJqnZxz/ivUg=="
)
VECTOR_BODY = (
    b'[{"email":"user@example.test","timestamp":1735740000,"event":"delivered",'
    b'"sg_event_id":"ZGVsaXZlcmVkLTAtMQ","sg_message_id":"14c5d75ce93.dfd.64b469",'
    b'"response":"250 OK","attempt":"a1"}]\r\n'
)
VECTOR_SIGNATURE = (
    "MEUCIQDRrl21aUQ2jjloRGFcT4eC4D9T7g2DoaNpeRE+/"
    "TTT1AIgM+51VLkZmMSn2WsW0X1Mx0m7t+lhqKnpCFR9LRRzdjg="
)


def body(**changes: object) -> dict[str, object]:
    return {
        "personalizations": [{"to": [{"email": RECIPIENT}]}],
        "from": {"email": "otp@example.com"},
        "subject": "Your code",
        "content": [
            {"type": "text/plain", "value": OUTGOING.text},
            {"type": "text/html", "value": mail.page(OUTGOING.text, OUTGOING.code, "en")},
        ],
        "headers": {"Auto-Submitted": "auto-generated"},
        "custom_args": {OUR_ID: "0193-a1"},
        "tracking_settings": {
            "click_tracking": {"enable": False, "enable_text": False},
            "open_tracking": {"enable": False},
        },
        **changes,
    }


def event(**changes: object) -> dict[str, object]:
    return {**orjson.loads(data("sendgrid/events.json"))[2], **changes}


def without(*names: str) -> dict[str, object]:
    return {key: value for key, value in event().items() if key not in names}


def private_key(secret: str) -> ec.EllipticCurvePrivateKey:
    """A key of its own for every name the runner uses for a secret."""
    number = int.from_bytes(hashlib.sha256(secret.encode()).digest()) >> 1
    return ec.derive_private_key(number, ec.SECP256R1())


def public_key(secret: str) -> Secret:
    der = (
        private_key(secret)
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    return Secret(base64.b64encode(der).decode())


def signed(callback: Callback, secret: str, at: int) -> Callback:
    key = private_key(secret)
    made = key.sign(str(at).encode() + callback.body, ec.ECDSA(hashes.SHA256()))
    headers = {SIGNATURE: base64.b64encode(made).decode(), TIMESTAMP: str(at)}
    return replace(callback, headers={**callback.headers, **headers})


class TestSendgrid(ProviderCases):
    provider = "sendgrid"
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "email",
        "api_key": Secret("SG.the-key"),
        "from_address": "otp@example.com",
    }
    secrets_field = "verification_key"
    statuses = Sendgrid.statuses

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label="as it is", url=URL, headers=HEADERS, body=body(), change={"recipient": RECIPIENT}
        ),
        SendCase(
            label="with a name and a subject, in Europe",
            url="https://api.eu.sendgrid.com/v3/mail/send",
            headers=HEADERS,
            body=body(
                **{"from": {"email": "otp@example.com", "name": "ACME"}, "subject": "Log in now"}
            ),
            change={"recipient": RECIPIENT, "sender": "ACME", "subject": "Log in\r\nnow"},
            settings={"base_url": "https://api.eu.sendgrid.com/v3/"},
        ),
    ]

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="accepted", status=202, headers={"X-Message-Id": "m_1"}, expected=Accepted("m_1")
        ),
        ResponseCase(label="no id", status=202, expected=Unknown("no_message_id", "HTTP 202")),
        ResponseCase(
            label="bad recipient",
            status=400,
            body=data("sendgrid/bad_recipient.json"),
            expected=Refused(
                "bad_destination",
                PERMANENT,
                error="personalizations.0.to.0.email: Does not contain a valid address.",
            ),
        ),
        ResponseCase(
            label="bad sender",
            status=403,
            body=data("sendgrid/bad_sender.json"),
            expected=Refused(
                "unauthorized",
                ACCOUNT,
                error="from: The from address does not match a verified Sender Identity. "
                "Mail cannot be sent until this error is resolved.",
            ),
        ),
        ResponseCase(
            label="malformed sender",
            status=400,
            body={"errors": [{"field": "from.email", "message": "No"}]},
            expected=Refused("bad_sender", ACCOUNT, error="from.email: No"),
        ),
        ResponseCase(
            label="unauthorized",
            status=401,
            body=data("sendgrid/unauthorized.json"),
            expected=Refused(
                "unauthorized",
                ACCOUNT,
                error="The provided authorization grant is invalid, expired, or revoked",
            ),
        ),
        *(
            ResponseCase(
                label=f"odd refusal: {said!r}",
                status=status,
                body=said,
                expected=Refused("rejected", PERMANENT, error=error),
            )
            for status, said, error in (
                (400, b"", "HTTP 400"),
                (400, {"errors": []}, "HTTP 400"),
                (400, {"errors": [7]}, "HTTP 400"),
                (400, {"errors": {"field": "from"}}, "HTTP 400"),
                (400, {"errors": [{"field": ["from"], "message": "No"}]}, "No"),
                (413, b"<html>", "HTTP 413"),
                (400, {"errors": [{"message": "anna@example.com is odd"}]}, "… is odd"),
            )
        ),
        *(
            ResponseCase(
                label=f"too fast: {headers}",
                status=429,
                body={"errors": [{"message": "too many requests"}]},
                headers=headers,
                expected=Refused("throttled", RefusalKind.THROTTLED, pause, "too many requests"),
            )
            for headers, pause in (
                ({}, None),
                ({"Retry-After": "7"}, 7.0),
                (RESET, None),
                ({**RESET, "Date": "Sat, 21 Nov 2026 10:00:10 GMT"}, 20.0),
                ({**RESET, "Date": "Sat, 21 Nov 2026 10:01:10 GMT"}, None),
                ({**RESET, "Date": "yesterday"}, None),
                ({"X-RateLimit-Reset": "9" * 12, "Date": "Sat, 21 Nov 2026 10:00:10 GMT"}, 86400.0),
            )
        ),
        *(
            ResponseCase(
                label=str(status),
                status=status,
                headers={"X-Message-Id": "m_1"},
                expected=Unknown(reason, f"HTTP {status}"),
            )
            for status, reason in (
                (200, "odd_answer"),
                (302, "odd_answer"),
                (500, "server_error"),
                (503, "server_error"),
            )
        ),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(
            label="a batch",
            body=data("sendgrid/events.json"),
            expected=[
                replace(DELIVERED, word="processed", state=State.SENT),
                replace(DELIVERED, word="deferred", state=None),
                DELIVERED,
            ],
        ),
        ReceiptCase(label="bounce", body=data("sendgrid/bounce.json"), expected=[BOUNCE]),
        ReceiptCase(
            label="blocked",
            body=data("sendgrid/blocked.json"),
            expected=[replace(BOUNCE, reason="blocked", permanent=False, avoid=None)],
        ),
        ReceiptCase(
            label="dropped",
            body=data("sendgrid/dropped.json"),
            expected=[replace(BOUNCE, word="dropped", reason="suppressed")],
        ),
        ReceiptCase(
            label="dropped for what it says",
            body=[event(event="dropped", reason="Spam Content")],
            expected=[replace(BOUNCE, word="dropped", reason="suppressed", avoid=None)],
        ),
        *(
            ReceiptCase(
                label=f"bounce {status!r}",
                body=[event(event="bounce", type="bounce", status=status)],
                expected=[replace(BOUNCE, permanent=permanent, avoid=avoid)],
            )
            for status, permanent, avoid in (
                ("5.1.1", True, WEEK),
                ("5.2.1", True, WEEK),
                ("5.2.2", False, None),
                ("5.4.7", False, None),
                ("5.7.1", True, None),
                ("", True, None),
                (None, True, None),
            )
        ),
        ReceiptCase(
            label="opened and followed, by whomever",
            body=[event(event="open"), event(event="click", url="https://example.com")],
            expected=[replace(DELIVERED, word="open"), replace(DELIVERED, word="click")],
        ),
        ReceiptCase(
            label="other mail of the account, and the account",
            body=[
                without(OUR_ID),
                event(),
                {"event": "account_status_change", "type": "compliance_suspend"},
            ],
            expected=[DELIVERED],
        ),
        ReceiptCase(
            label="without their id",
            body=[without("sg_message_id", "email", "timestamp")],
            expected=[
                Receipt(word="delivered", state=State.DELIVERED, attempt_id="0193-a1"),
            ],
        ),
        ReceiptCase(
            label="the field `attempt` is theirs",
            body=[event(event="deferred", attempt="0193-b2")],
            expected=[replace(DELIVERED, word="deferred", state=None)],
        ),
        ReceiptCase(
            label="a hundred, one spoiled",
            body=[*[event()] * 50, event(event=None), *[event()] * 49],
            expected=[
                *[DELIVERED] * 50,
                Malformed("event is missing or unusable", b""),
                *[DELIVERED] * 49,
            ],
        ),
        *(
            ReceiptCase(
                label=f"nonsense: {spoiled!r}",
                body=[spoiled, event()],
                expected=[Malformed(why, b""), DELIVERED],
            )
            for spoiled, why in (
                (7, "not an object"),
                (None, "not an object"),
                (event(**{OUR_ID: None}), f"{OUR_ID} is missing or unusable"),
                (event(**{OUR_ID: 7}), f"{OUR_ID} is missing or unusable"),
                (event(**{OUR_ID: "x" * 256}), f"{OUR_ID} is missing or unusable"),
                (event(event=["open"]), "event is missing or unusable"),
                (event(sg_message_id=7), "sg_message_id is unusable"),
            )
        ),
        *(
            ReceiptCase(
                label=f"no batch: {content!r}",
                body=content,
                expected=[Malformed("no list of events", b"")],
            )
            for content in (b"", b"hello", b"\xff", {}, event(), None)
        ),
        ReceiptCase(label="an empty batch", body=[], expected=[]),
    ]

    def configure(self, *secrets: Secret, **changes: Any) -> Any:
        keys = (public_key(secret) if secret else secret for secret in secrets)
        return super().configure(*keys, **changes)

    def sign(self, callback: Callback, secret: str) -> Callback:
        return signed(callback, secret, int(NOW.timestamp()))

    def stale(self, secret: str) -> Callback | None:
        callback = replace(CALLBACK, body=self.receipt("delivered"))
        return signed(callback, secret, int(NOW.timestamp()) - 90_001)

    def receipt(self, word: str) -> bytes:
        return orjson.dumps([event(event=word, sg_message_id="m_1")])

    def refusal(self, message: str) -> bytes:
        return orjson.dumps({"errors": [{"message": message, "field": message}]})

    def signature_header(self) -> str:
        return SIGNATURE

    # The id comes in a header and the recipient is an address: said anew.

    def test_secrets_codes_and_numbers_are_not_shown(self) -> None:
        provider = self.make(SECRET)
        private = [RECIPIENT, OUTGOING.code, "+33600000000", "6 00 00 00 00", "SG.the-key"]
        said = self.refusal(" / ".join(private))
        shown = [repr(provider.parse(Response(n, content=said))) for n in range(200, 600)]
        shown += [repr(provider.build(replace(OUTGOING, recipient=RECIPIENT)))]
        shown += [repr(self.configure(SECRET))]

        assert [] == [text for text in shown for fact in private if fact in text]

    def test_no_other_status_means_accepted(self) -> None:
        provider = self.make(SECRET)
        accepting = [
            status
            for status in range(100, 700)
            if isinstance(
                provider.parse(Response(status, headers={"x-message-id": "m_1"})), Accepted
            )
        ]

        assert [202] == accepting

    def may_accept(self, status: int, answer: object) -> bool:
        return False  # without the header


def sendgrid(*secrets: Secret, **changes: Any) -> Sendgrid:
    made = TestSendgrid().make(*(secrets or (SECRET,)), **changes)
    assert isinstance(made, Sendgrid)
    return made


def vector() -> Callback:
    headers = {SIGNATURE: VECTOR_SIGNATURE, TIMESTAMP: "1735740001"}
    at = datetime.fromtimestamp(1735740002, UTC)
    return replace(CALLBACK, body=VECTOR_BODY, headers=headers, received_at=at)


def test_a_signature_made_by_the_vendors_library() -> None:
    settings = {**TestSendgrid.settings, "verification_key": (Secret(VECTOR_KEY),)}
    provider = Sendgrid(Sendgrid.Settings(name="route", account="account", **settings))

    assert provider.authenticate(vector())
    assert not provider.authenticate(replace(vector(), body=VECTOR_BODY.rstrip()))
    assert [] == provider.receipts(vector())  # of mail that is not ours


@pytest.mark.parametrize(
    ("seconds", "fresh"),
    [(0, True), (86_400, True), (90_000, True), (-90_000, True), (90_001, False), (-90_001, False)],
)
def test_a_signature_has_its_time(seconds: int, fresh: bool) -> None:
    callback = signed(replace(CALLBACK, body=b"[]"), SECRET, int(NOW.timestamp()))
    late = replace(callback, received_at=NOW + timedelta(seconds=seconds))

    assert fresh == sendgrid().authenticate(late)


@pytest.mark.parametrize("stamp", ["", "1e9", "-1", "٣", " 1", "9" * 13, "1.5"])
def test_a_time_of_another_shape_is_refused(stamp: str) -> None:
    callback = signed(replace(CALLBACK, body=b"[]"), SECRET, 0)
    made = private_key(SECRET).sign(stamp.encode() + b"[]", ec.ECDSA(hashes.SHA256()))
    headers = {SIGNATURE: base64.b64encode(made).decode(), TIMESTAMP: stamp}

    assert not sendgrid().authenticate(replace(callback, headers=headers))


def test_each_event_keeps_its_own_bytes() -> None:
    found = sendgrid().receipts(replace(CALLBACK, body=encoded([event(), 7])))

    assert [orjson.dumps(event()), b"7"] == [one.raw for one in found]


def test_what_is_no_address_is_not_written_to() -> None:
    with pytest.raises(ValueError, match="plain e-mail address"):
        sendgrid().build(OUTGOING)


def test_nothing_is_asked_from_outside() -> None:
    request = sendgrid().build(replace(OUTGOING, recipient=RECIPIENT))

    assert isinstance(request, Request)
    assert b"http" not in request.content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel": "sms"}, "channel: sendgrid has email, not sms"),
        ({"base_url": ""}, "base_url"),
        ({"api_key": Secret("")}, "api_key"),
        ({"from_address": "ACME"}, "from_address"),
        ({"verification_key": Secret("one")}, "verification_key"),
        ({"verification_key": (Secret("AAAA"),)}, "verification_key"),
        ({"verification_key": (Secret("é"),)}, "verification_key"),
        ({"verification_key": (OTHER_SECRET,)}, "verification_key"),
        ({"tolerance": 0}, "tolerance"),
        ({"avoid": -1.0}, "avoid"),
    ],
)
def test_a_wrong_setting_is_named(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        sendgrid(**changes)


def test_a_key_of_another_curve_is_named() -> None:
    other = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    der = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    with pytest.raises(ValueError, match=r"^verification_key"):
        sendgrid(verification_key=(Secret(base64.b64encode(der).decode()),))
