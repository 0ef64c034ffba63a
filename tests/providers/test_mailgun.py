"""Mailgun."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import orjson
import pytest
from hypothesis import given
from providers.cases import (
    CALLBACK,
    JSON,
    NOW,
    OUTGOING,
    SEARCH,
    SECRET,
    ProviderCases,
    ReceiptCase,
    ResponseCase,
    SendCase,
    data,
    spoiled,
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
    Response,
    Secret,
    Unknown,
)
from gateway.providers.mailgun import TOKENS_KEPT, Mailgun

URL = "https://api.mailgun.net/v3/mg.example.com/messages"
HEADERS = {
    "authorization": "Basic YXBpOmtleS0wMTIz",  # api:key-0123
    "content-type": "application/x-www-form-urlencoded",
}
RECIPIENT = "anna@example.com"
SIGNING_KEY = Secret("key-test-0123456789abcdef")
OLD_KEY = Secret("the-signing-key-before")
WEEK = 604_800.0
ACCOUNT, PERMANENT, TEMPORARY = RefusalKind.ACCOUNT, RefusalKind.PERMANENT, RefusalKind.TEMPORARY
NO_ID: Sequence[object] = (b"", b"<html>", [], {}, {"id": None}, {"id": 7}, {"id": ""})
NO_SEVERITY: Sequence[object] = ("odd", None, [])
NOT_OURS: Sequence[dict[str, object]] = (
    {"user-variables": {}},
    {"user-variables": None},
    {"user-variables": []},
    {"user-variables": {"attempt": "0193-a1"}},
)
NO_EVENT: Sequence[object] = (b"", b"hello", b"\xff", [], {}, {"event-data": []}, None)

DELIVERED = Receipt(
    word="delivered",
    state=State.DELIVERED,
    reference="m_1",
    attempt_id="0193-a1",
    recipient=RECIPIENT,
    provider_time="1795255203.5",
)
FAILED = replace(
    DELIVERED, word="failed", state=State.FAILED, reason="bounced", permanent=True, avoid=WEEK
)


def mac(key: str, content: str) -> str:
    return hmac.new(key.encode(), content.encode(), hashlib.sha256).hexdigest()


def proof(key: str = SIGNING_KEY, attempt_id: str = "0193-a1") -> str:
    return mac(key, f"otp-gateway/attempt/{attempt_id}")


def sample(name: str, **changes: object) -> dict[str, object]:
    """An event of the vendor's, with our variables filled in."""
    event = orjson.loads(data(f"mailgun/{name}.json"))["event-data"]
    variables = {"otp_attempt": "0193-a1", "otp_proof": proof()}
    return {"event-data": {**event, "user-variables": variables, **changes}}


def event(**changes: object) -> dict[str, object]:
    return sample("delivered", **changes)


def variables(**changes: object) -> dict[str, object]:
    return {"user-variables": {"otp_attempt": "0193-a1", "otp_proof": proof(), **changes}}


def signature(body: bytes, at: int, key: str = SIGNING_KEY, token: str = "") -> dict[str, str]:
    token = token or hashlib.sha256(body).hexdigest()[:50]
    return {"timestamp": str(at), "token": token, "signature": mac(key, f"{at}{token}")}


def signed(callback: Callback, *, key: str = SECRET, **how: Any) -> Callback:
    """A key in the URL and, where the body can hold one, a signature with a token of its own."""
    callback = replace(callback, key=key)
    try:
        content = orjson.loads(callback.body)
    except orjson.JSONDecodeError:
        return callback
    if not isinstance(content, dict):
        return callback
    made = signature(callback.body, **{"at": int(NOW.timestamp()), **how})
    # By hand: what was deep stays deep.
    body = b'{"signature":%s,%s' % (orjson.dumps(made), callback.body.lstrip()[1:])
    return replace(callback, body=body.replace(b",}", b"}") if not content else body)


def fields(**changes: str) -> dict[str, str]:
    return {
        "from": "otp@mg.example.com",
        "to": RECIPIENT,
        "subject": "Your code",
        "text": OUTGOING.text,
        "html": mail.page(OUTGOING.text, OUTGOING.code, "en"),
        "h:Auto-Submitted": "auto-generated",
        "o:tracking": "no",
        "v:otp_attempt": "0193-a1",
        "v:otp_proof": proof(),
        **changes,
    }


class TestMailgun(ProviderCases):
    provider = "mailgun"
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "email",
        "domain": "mg.example.com",
        "api_key": Secret("key-0123"),
        "from_address": "otp@mg.example.com",
        "signing_key": (SIGNING_KEY, OLD_KEY),
    }
    secrets_field = "callback_key"
    statuses = Mailgun.statuses

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label="as it is",
            url=URL,
            headers=HEADERS,
            body=fields(),
            change={"recipient": RECIPIENT},
        ),
        SendCase(
            label="with a name and a subject, in Europe",
            url="https://api.eu.mailgun.net/v3/mg.example.com/messages",
            headers=HEADERS,
            body=fields(**{"from": '"ACME, Inc." <otp@mg.example.com>', "subject": "Log in"}),
            change={"recipient": RECIPIENT, "sender": 'ACME", Inc.\r\n', "subject": "Log\nin"},
            settings={"base_url": "https://api.eu.mailgun.net/v3/"},
        ),
        SendCase(
            label="without a key there is no proof",
            url=URL,
            headers=HEADERS,
            body={key: value for key, value in fields().items() if key != "v:otp_proof"},
            change={"recipient": RECIPIENT},
            settings={"signing_key": ()},
        ),
    ]

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="accepted",
            status=200,
            body=data("mailgun/accepted.json"),
            expected=Accepted("20261121100002.1.0123456789ABCDEF@mg.example.com"),
        ),
        *(
            ResponseCase(
                label=f"no id: {answer!r}",
                status=200,
                body=answer,
                expected=Unknown("no_id", "HTTP 200"),
            )
            for answer in NO_ID
        ),
        ResponseCase(
            label="bad recipient",
            status=400,
            body=data("mailgun/bad_recipient.json"),
            expected=Refused(
                "bad_destination",
                PERMANENT,
                error="to parameter is not a valid address. please check documentation",
            ),
        ),
        *(
            ResponseCase(
                label=f"{status}: {message!r}",
                status=status,
                body={"message": message},
                expected=Refused(reason, kind, error=message),
            )
            for status, message, reason, kind in (
                (400, "'from' parameter is missing", "rejected", PERMANENT),
                (400, "Domain x.com is not allowed to send: disabled", "bad_sender", ACCOUNT),
                (401, "Forbidden", "unauthorized", ACCOUNT),
                (403, "Forbidden", "unauthorized", ACCOUNT),
                (402, "Request failed", "request_failed", TEMPORARY),
                (404, "Domain not found: x.com", "bad_sender", ACCOUNT),
                (413, "Too large", "rejected", PERMANENT),
            )
        ),
        ResponseCase(
            label="401 in plain text",
            status=401,
            body=b"Forbidden",
            expected=Refused("unauthorized", ACCOUNT, error="HTTP 401"),
        ),
        *(
            ResponseCase(
                label=f"too fast: {pause!r}",
                status=429,
                headers={} if pause is None else {"Retry-After": pause},
                expected=Refused("throttled", RefusalKind.THROTTLED, seconds, "HTTP 429"),
            )
            for pause, seconds in ((None, None), ("7", 7.0), ("soon", None))
        ),
        *(
            ResponseCase(
                label=str(status),
                status=status,
                body=data("mailgun/accepted.json"),
                expected=Unknown(reason, "Queued. Thank you."),
            )
            for status, reason in (
                (202, "odd_answer"),
                (302, "odd_answer"),
                (500, "server_error"),
                (503, "server_error"),
            )
        ),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(label="delivered", body=event(), expected=[DELIVERED]),
        ReceiptCase(label="failed", body=sample("failed"), expected=[FAILED]),
        ReceiptCase(
            label="failed for now",
            body=sample("failed_temporarily"),
            expected=[replace(DELIVERED, word="failed", state=None)],
        ),
        *(
            ReceiptCase(
                label=f"failed for good: {reason!r}",
                body=sample("failed", reason=reason),
                expected=[replace(FAILED, reason=ours, permanent=permanent, avoid=avoid)],
            )
            for reason, ours, permanent, avoid in (
                ("bounce", "bounced", True, WEEK),
                ("suppress-bounce", "suppressed", True, WEEK),
                ("suppress-complaint", "opted_out", True, WEEK),
                ("suppress-unsubscribe", "opted_out", True, WEEK),
                ("old", "expired", False, None),
                ("generic", "not_delivered", True, None),
                (None, "not_delivered", True, None),
                ([], "not_delivered", True, None),
            )
        ),
        *(
            ReceiptCase(
                label=f"severity {severity!r}",
                body=sample("failed", severity=severity),
                expected=[replace(DELIVERED, word="failed", state=None)],
            )
            for severity in NO_SEVERITY
        ),
        *(
            ReceiptCase(
                label=word,
                body=event(event=word),
                expected=[replace(DELIVERED, word=word, state=state)],
            )
            for word, state in (
                ("accepted", State.SENT),
                ("opened", State.DELIVERED),
                ("clicked", State.DELIVERED),
                ("complained", None),
                ("unsubscribed", None),
                ("Delivered", None),
            )
        ),
        ReceiptCase(
            label="rejected",
            body=event(event="rejected"),
            expected=[replace(FAILED, word="rejected", reason="rejected", avoid=None)],
        ),
        ReceiptCase(
            label="the older key proves",
            body=event(**variables(otp_proof=proof(OLD_KEY))),
            expected=[DELIVERED],
        ),
        ReceiptCase(
            label="without their id",
            body=event(message={}, recipient=None, timestamp="now"),
            expected=[replace(DELIVERED, reference=None, recipient=None, provider_time=None)],
        ),
        *(
            ReceiptCase(
                label=f"other mail of the domain: {given!r}", body=event(**given), expected=[]
            )
            for given in NOT_OURS
        ),
        *(
            ReceiptCase(label=f"nonsense: {given!r}", body=event(**given), expected=[bad])
            for given, bad in (
                (variables(otp_attempt=7), Malformed("otp_attempt is missing or unusable", b"")),
                (variables(otp_attempt=""), Malformed("otp_attempt is missing or unusable", b"")),
                ({"event": None}, Malformed("event is missing or unusable", b"")),
                (variables(otp_proof=None), Malformed("otp_proof is missing or wrong", b"")),
                (variables(otp_proof="é"), Malformed("otp_proof is missing or wrong", b"")),
                (
                    variables(otp_attempt="0193-b2"),
                    Malformed("otp_proof is missing or wrong", b""),
                ),
            )
        ),
    ]

    def sign(self, callback: Callback, secret: str) -> Callback:
        return signed(callback, key=secret)

    def receipt(self, word: str) -> bytes:
        return orjson.dumps(event(event=word, severity="permanent"))

    def refusal(self, message: str) -> bytes:
        return orjson.dumps({"message": message})

    def may_accept(self, status: int, answer: object) -> bool:
        return status == 200 and isinstance(answer, dict) and "id" in answer

    # The recipient is an address, and the signature stands in the body: said anew.

    def test_secrets_codes_and_numbers_are_not_shown(self) -> None:
        provider = self.make(SECRET)
        private = [RECIPIENT, OUTGOING.code, "+33600000000", "6 00 00 00 00"]
        private += [SECRET, SIGNING_KEY, OLD_KEY, "key-0123"]
        said = self.refusal(" / ".join(private))
        shown = [repr(provider.parse(Response(n, content=said))) for n in range(200, 600)]
        shown += [repr(provider.build(replace(OUTGOING, recipient=RECIPIENT)))]
        shown += [repr(self.configure(SECRET))]

        assert [] == [text for text in shown for fact in private if fact in text]

    def test_no_callback_makes_it_stumble(self) -> None:
        provider = self.make(SECRET)

        @SEARCH
        @given(content=JSON | spoiled(event()) | spoiled(sample("failed")))
        def search(content: object) -> None:
            plain = json.dumps(content).encode()
            callback = signed(replace(CALLBACK, body=plain))

            assert provider.authenticate(callback) == (callback.body != plain)
            for found in provider.receipts(callback):
                assert isinstance(found, Receipt | Malformed)
                assert not isinstance(found, Receipt) or found.attempt_id

        search()


def mailgun(**changes: Any) -> Mailgun:
    settings = {"callback_key": (SECRET,), **TestMailgun.settings, **changes}
    return Mailgun(Mailgun.Settings(name="route", account="account", **settings))


def test_a_signature_made_by_the_vendors_library() -> None:
    made = {
        "timestamp": "1735740000",
        "token": "a" * 50,
        "signature": "231f79c303ccc9a53758f8c9407ee7edf2ae4d0358b4e0a884b88ef2d092430d",
    }
    at = datetime.fromtimestamp(1735740001, UTC)
    callback = replace(CALLBACK, key=SECRET, body=orjson.dumps({"signature": made}), received_at=at)
    altered = callback.body.replace(b"1735740000", b"1735740001")

    assert mailgun().authenticate(callback)
    assert not mailgun().authenticate(replace(callback, body=altered))


@pytest.mark.parametrize(
    ("seconds", "fresh"),
    [(0, True), (28_800, True), (30_000, True), (-30_000, True), (30_001, False), (-30_001, False)],
)
def test_a_signature_has_its_time(seconds: int, fresh: bool) -> None:
    callback = signed(replace(CALLBACK, body=orjson.dumps(event())))
    late = NOW.replace(microsecond=0) + timedelta(seconds=seconds)

    assert fresh == mailgun().authenticate(replace(callback, received_at=late))


def test_a_key_in_the_url_is_not_enough() -> None:
    body = orjson.dumps(event())
    unsigned = replace(CALLBACK, key=SECRET, body=body)

    assert not mailgun().authenticate(unsigned)
    assert not mailgun().authenticate(signed(unsigned, at=int(NOW.timestamp()), key="other"))
    assert not mailgun(signing_key=(Secret("other"),)).authenticate(signed(unsigned))
    assert not mailgun(signing_key=()).authenticate(signed(unsigned))


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": None},
        {"timestamp": True},
        {"timestamp": "1e9"},
        {"timestamp": ""},
        {"token": None},
        {"token": ""},
        {"token": "a" * 129},
        {"token": "a b"},
        {"signature": None},
        {"signature": ""},
        {"signature": "é"},
        {"signature": ["0" * 64]},
    ],
)
def test_a_signature_of_another_shape_is_refused(changes: Mapping[str, object]) -> None:
    made = signature(b"", int(NOW.timestamp()))
    body = orjson.dumps({**event(), "signature": {**made, **changes}})

    assert not mailgun().authenticate(replace(CALLBACK, key=SECRET, body=body))


def test_a_time_may_be_a_number() -> None:
    made = signature(b"", int(NOW.timestamp()))
    body = orjson.dumps({**event(), "signature": {**made, "timestamp": int(made["timestamp"])}})

    assert mailgun().authenticate(replace(CALLBACK, key=SECRET, body=body))


def test_a_signature_is_not_taken_for_another_event() -> None:
    provider = mailgun()
    first = signed(replace(CALLBACK, body=orjson.dumps(event())), token="t" * 50)
    other = signed(replace(CALLBACK, body=orjson.dumps(sample("failed"))), token="t" * 50)

    assert provider.authenticate(first)
    assert provider.authenticate(first)
    assert not provider.authenticate(other)


def test_tokens_are_not_remembered_for_ever() -> None:
    provider = mailgun()
    for number in range(TOKENS_KEPT + 10):
        assert provider._first_or_same(f"{number}", b"")

    assert TOKENS_KEPT == len(provider._tokens)


def test_what_is_no_address_is_not_written_to() -> None:
    with pytest.raises(ValueError, match="plain e-mail address"):
        mailgun().build(OUTGOING)


def test_nothing_is_asked_from_outside() -> None:
    request = mailgun().build(replace(OUTGOING, recipient=RECIPIENT))

    assert "http" not in "".join(value for _, value in parse_qsl(request.content.decode()))


@pytest.mark.parametrize("content", NO_EVENT)
def test_a_body_without_an_event(content: object) -> None:
    body = content if isinstance(content, bytes) else orjson.dumps(content)

    assert [Malformed("no event-data", body)] == mailgun().receipts(replace(CALLBACK, body=body))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel": "sms"}, "channel: mailgun has email, not sms"),
        ({"base_url": ""}, "base_url"),
        ({"domain": "mg"}, "domain"),
        ({"domain": "mg.example.com/x"}, "domain"),
        ({"api_key": Secret("")}, "api_key"),
        ({"from_address": "ACME"}, "from_address"),
        ({"signing_key": Secret("one")}, "signing_key"),
        ({"signing_key": (Secret(""),)}, "signing_key"),
        ({"callback_key": Secret("one")}, "callback_key"),
        ({"tolerance": 0}, "tolerance"),
        ({"avoid": -1.0}, "avoid"),
    ],
)
def test_a_wrong_setting_is_named(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        mailgun(**changes)
