"""Messenger, the sandbox's own chat app."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

import orjson
import pytest
from providers.cases import (
    CALLBACK,
    NOW,
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
    Malformed,
    Polls,
    Receipt,
    RefusalKind,
    Refused,
    Response,
    Secret,
    Unknown,
)
from gateway.providers.messenger import Messenger

HEADERS = {"authorization": "Bearer the-token", "content-type": "application/json"}
URL = "https://messenger.example/v1/messages"
HEADER = "x-messenger-signature"
BODY: Mapping[str, object] = {
    "to": "+33600000000",
    "text": "123456 is your code",
    "callback_url": "https://otp.example.com/otp/delivered/route/token",
    "client_ref": "0193-a1",
    "ttl": 120,
}
NO_ID: Sequence[object] = (b"", b"<html>OK</html>", b'{"message_id":', [], {}, {"message_id": 7})
NO_BATCH: Sequence[object] = (b"", b"hello", b"\xff", [], {}, {"statuses": {}}, {"statuses": None})
PERMANENT = RefusalKind.PERMANENT

DELIVERED = Receipt(
    word="delivered",
    state=State.DELIVERED,
    reference="m_01",
    attempt_id="0193-a1",
    provider_time="2026-11-21T10:00:00.123Z",
)
READ = replace(DELIVERED, word="read", state=State.READ, provider_time="2026-11-21T10:00:07.000Z")


def item(**changes: object) -> dict[str, object]:
    return {**orjson.loads(data("messenger/statuses.json"))["statuses"][0], **changes}


def without(field: str) -> dict[str, object]:
    return {key: value for key, value in item().items() if key != field}


def failed(reason: str, *, permanent: bool) -> Receipt:
    return replace(DELIVERED, word="failed", state=State.FAILED, reason=reason, permanent=permanent)


def signature(secret: str, body: bytes, at: int) -> str:
    return hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()


def signed(body: object, *secrets: str, at: int = int(NOW.timestamp())) -> Callback:
    content = encoded(body)
    values = "".join(f",v1={signature(secret, content, at)}" for secret in secrets)
    return replace(
        CALLBACK, attempt_id="0193-a1", headers={HEADER: f"t={at}{values}"}, body=content
    )


class TestMessenger(ProviderCases):
    provider = "messenger"
    secrets_field = "callback_secret"
    statuses = Messenger.statuses
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "messenger",
        "base_url": "https://messenger.example/v1",
        "token": Secret("the-token"),
    }

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(label="plain", url=URL, headers=HEADERS, body=BODY),
        SendCase(
            label="with a sender, which the app does not show",
            url=URL,
            headers=HEADERS,
            change={"sender": "ACME", "validity": 60},
            body={**BODY, "ttl": 60},
        ),
        SendCase(
            label="elsewhere",
            url="http://localhost:8026/messages",
            headers=HEADERS,
            settings={"base_url": "http://localhost:8026/"},
            body=BODY,
        ),
    ]

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=202,
            body=data("messenger/accepted.json"),
            expected=Accepted("m_01"),
        ),
        *(
            ResponseCase(
                label=f"202 without an id: {body!r}",
                status=202,
                body=body,
                expected=Unknown("no_message_id", "HTTP 202"),
            )
            for body in NO_ID
        ),
        *(
            ResponseCase(
                label=f"{status} {error}",
                status=status,
                body={"error": error, "message": "No"},
                expected=Refused(reason, PERMANENT, error=f"{error}: No"),
            )
            for status, error, reason in (
                (400, "invalid_recipient", "bad_destination"),
                (400, "invalid_request", "bad_request"),
                (400, "other", "rejected"),
                (404, "not_a_user", "not_a_user"),
                (404, "other", "rejected"),
                (413, "too_large", "rejected"),
            )
        ),
        ResponseCase(
            label="not a user, number echoed",
            status=404,
            body=data("messenger/not_a_user.json"),
            expected=Refused("not_a_user", PERMANENT, error="not_a_user: +… has no Messenger"),
        ),
        ResponseCase(
            label="nothing there",
            status=404,
            body=b"<html>",
            expected=Refused("rejected", PERMANENT, error="HTTP 404"),
        ),
        ResponseCase(
            label="too large",
            status=413,
            expected=Refused("rejected", PERMANENT, error="HTTP 413"),
        ),
        ResponseCase(
            label="error that is none",
            status=400,
            body={"error": ["invalid_recipient"], "message": None},
            expected=Refused("rejected", PERMANENT, error="HTTP 400"),
        ),
        *(
            ResponseCase(
                label=f"not let in: {status}",
                status=status,
                body={"error": "unauthorized"},
                expected=Refused("unauthorized", RefusalKind.ACCOUNT, error="unauthorized"),
            )
            for status in (401, 403)
        ),
        *(
            ResponseCase(
                label=f"too fast: {pause!r}",
                status=429,
                body={"error": "rate_limited"},
                headers={} if pause is None else {"Retry-After": pause},
                expected=Refused("throttled", RefusalKind.THROTTLED, seconds, "rate_limited"),
            )
            for pause, seconds in ((None, None), ("7", 7.0), ("soon", None), ("9" * 9, 86_400.0))
        ),
        *(
            ResponseCase(
                label=f"{status}",
                status=status,
                body=data("messenger/accepted.json"),
                expected=Unknown(reason, f"HTTP {status}"),
            )
            for status, reason in (
                (200, "odd_answer"),
                (204, "odd_answer"),
                (302, "odd_answer"),
                (500, "server_error"),
                (503, "server_error"),
            )
        ),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(
            label="a batch", body=data("messenger/statuses.json"), expected=[DELIVERED, READ]
        ),
        *(
            ReceiptCase(
                label=word,
                body={"statuses": [item(status=word)]},
                expected=[replace(DELIVERED, word=word, state=state)],
            )
            for word, state in (
                ("accepted", State.SENT),
                ("sent", State.ACK),
                ("delivered", State.DELIVERED),
                ("read", State.READ),
                ("READ", None),
                ("seen", None),
            )
        ),
        *(
            ReceiptCase(
                label=f"failed: {error!r}",
                body={"statuses": [item(status="failed", error=error)]},
                expected=[failed(reason, permanent=permanent)],
            )
            for error, reason, permanent in (
                ("not_a_user", "not_a_user", True),
                ("blocked", "blocked", True),
                ("phone_off", "not_delivered", False),
                (None, "not_delivered", False),
                ([], "not_delivered", False),
            )
        ),
        ReceiptCase(
            label="an error beside a delivery",
            body={"statuses": [item(error="blocked")]},
            expected=[DELIVERED],
        ),
        ReceiptCase(
            label="without our id, which the URL names",
            body={"statuses": [without("client_ref")]},
            expected=[DELIVERED],
        ),
        ReceiptCase(
            label="a hundred, one spoiled",
            body={"statuses": [*[item()] * 50, {"status": "read"}, *[item(status="sent")] * 49]},
            expected=[
                *[DELIVERED] * 50,
                Malformed("message_id is missing or unusable", b""),
                *[replace(DELIVERED, word="sent", state=State.ACK)] * 49,
            ],
        ),
        *(
            ReceiptCase(
                label=f"nonsense: {spoiled!r}",
                body={"statuses": [spoiled, item()]},
                expected=[Malformed(why, b""), DELIVERED],
            )
            for spoiled, why in (
                (7, "not an object"),
                ({}, "message_id is missing or unusable"),
                (without("status"), "status is missing or unusable"),
                (item(status=["read"]), "status is missing or unusable"),
                (item(client_ref="0193-b2"), "client_ref differs"),
                (item(client_ref=7), "client_ref differs"),
                (item(client_ref=""), "client_ref differs"),
            )
        ),
        *(
            ReceiptCase(
                label=f"no batch: {body!r}",
                body=body,
                expected=[Malformed("no list of statuses", b"")],
            )
            for body in NO_BATCH
        ),
        ReceiptCase(label="an empty batch", body={"statuses": []}, expected=[]),
    ]

    def sign(self, callback: Callback, secret: str) -> Callback:
        return signed(callback.body, secret)

    def receipt(self, word: str) -> bytes:
        return orjson.dumps({"statuses": [item(message_id="m_1", status=word)]})

    def refusal(self, message: str) -> bytes:
        return orjson.dumps({"error": "invalid_request", "message": message})

    def may_accept(self, status: int, answer: object) -> bool:
        return status == 202 and isinstance(answer, dict) and "message_id" in answer

    def signature_header(self) -> str:
        return HEADER


def messenger(*secrets: Secret, **changes: Any) -> Messenger:
    fields = {"name": "route", "account": "account", "callback_secret": secrets or (SECRET,)}
    return Messenger(Messenger.Settings(**{**fields, **TestMessenger.settings, **changes}))


@pytest.mark.parametrize(
    ("seconds", "fresh"),
    [(0, True), (300, True), (-300, True), (301, False), (-301, False), (86_400, False)],
)
def test_a_signature_has_its_time(seconds: int, fresh: bool) -> None:
    callback = signed({"statuses": []}, SECRET)
    late = replace(callback, received_at=NOW.replace(microsecond=0) + timedelta(seconds=seconds))

    assert fresh == messenger().authenticate(late)


def test_a_vendor_may_sign_with_two_secrets() -> None:
    callback = signed({"statuses": []}, "another", SECRET, "a third")

    assert messenger().authenticate(callback)
    assert not messenger(Secret("a fourth")).authenticate(callback)


@pytest.mark.parametrize(
    "header",
    [
        "t={t}",
        "v1={v}",
        "t={t},v1=",
        "t={t},v0={v}",
        "v1={v},t={t}",
        "t={t},t={t},v1={v}",
        "t={t}, v1={v}",
        "t={t},v1={v},",
        "t={t},v1={v},v2=0",
        "t={t};v1={v}",
        "t=,v1={v}",
        "t=-1,v1={v}",
        "t=1e9,v1={v}",
        "t=٣,v1={v}",
        "t=9999999999999,v1={v}",
        "T={t},V1={v}",
        "{v}",
    ],
)
def test_a_header_of_another_shape_is_refused(header: str) -> None:
    at = int(NOW.timestamp())
    callback = signed({"statuses": []}, SECRET, at=at)
    value = header.format(t=at, v=signature(SECRET, callback.body, at))

    assert messenger().authenticate(callback)
    assert not messenger().authenticate(replace(callback, headers={HEADER: value}))


def test_the_time_is_signed_too() -> None:
    at = int(NOW.timestamp())
    callback = signed({"statuses": []}, SECRET, at=at - 1000)
    value = callback.headers[HEADER].replace(str(at - 1000), str(at))

    assert not messenger().authenticate(replace(callback, headers={HEADER: value}))


def test_each_status_keeps_its_own_bytes() -> None:
    body = {"statuses": [item(), 7]}

    assert [orjson.dumps(item()), b"7"] == [
        found.raw for found in messenger().receipts(signed(body, SECRET))
    ]


def test_it_can_be_asked() -> None:
    provider = messenger()
    request = provider.build_poll("0193-a1", "m_01/é")

    assert isinstance(provider, Polls)
    assert request is not None
    assert ("GET", f"{URL}/m_01%2F%C3%A9") == (request.method, str(request.url))
    assert "Bearer the-token" == request.headers["authorization"]


def test_without_a_reference_there_is_nothing_to_ask_by() -> None:
    assert messenger().build_poll("0193-a1", None) is None


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, data("messenger/state.json"), READ),
        (200, item(status="seen"), replace(DELIVERED, word="seen", state=None)),
        (200, item(status="failed", error="blocked"), failed("blocked", permanent=True)),
        (200, without("client_ref"), replace(DELIVERED, attempt_id=None)),
        (200, item(client_ref=7), None),
        (200, without("message_id"), None),
        (200, without("status"), None),
        (200, b"", None),
        (200, [], None),
        (404, data("messenger/state.json"), None),
        (202, data("messenger/state.json"), None),
        (503, b"", None),
    ],
)
def test_a_poll_says_this(status: int, body: object, expected: Receipt | None) -> None:
    said = messenger().parse_poll(Response(status, content=encoded(body)))

    assert expected == (said and replace(said, raw=b""))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel": "sms"}, "channel: messenger has messenger, not sms"),
        ({"base_url": ""}, "base_url"),
        ({"timeout": -1}, "timeout"),
        ({"rate": -1}, "rate"),
        ({"concurrency": -1}, "concurrency"),
        ({"token": Secret("")}, "token"),
        ({"callback_secret": Secret("one")}, "callback_secret"),
    ],
)
def test_a_wrong_setting_is_named(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        messenger(**changes)


def test_a_signed_batch_of_another_attempt_moves_nothing() -> None:
    callback = replace(signed({"statuses": [item()]}, SECRET), attempt_id="0193-b2")
    found = messenger().receipts(callback)

    assert messenger().authenticate(callback)
    assert [Malformed("client_ref differs", orjson.dumps(item()))] == found


def test_it_waits_for_no_longer_than_told() -> None:
    request = messenger().build(replace(OUTGOING, validity=45))

    assert 45 == orjson.loads(request.content)["ttl"]
