"""Telegram Gateway: the cases, and the flow that asks first."""

import hashlib
import hmac
from collections.abc import Generator, Mapping, Sequence
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
    Answered,
    Callback,
    Malformed,
    NotSent,
    Polls,
    Receipt,
    RefusalKind,
    Refused,
    Request,
    Response,
    Revokes,
    Secret,
    Unknown,
)
from gateway.providers.telegram import Telegram

TOKEN = Secret("AAE-token")
HEADERS = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
BASE = "https://gatewayapi.telegram.org"
URL = f"{BASE}/sendVerificationMessage"
STAMP, SIGNATURE = "x-request-timestamp", "x-request-signature"
AT = int(NOW.timestamp())
REQUEST_ID = "8271936450127364"
BODY: Mapping[str, object] = {
    "phone_number": "+33600000000",
    "code": "123456",
    "ttl": 120,
    "payload": "0193-a1",
    "callback_url": "https://otp.example.com/otp/delivered/route/token",
}
DAY = 86_400.0
ACCOUNT, PERMANENT = RefusalKind.ACCOUNT, RefusalKind.PERMANENT

DELIVERED = Receipt(
    word="delivered",
    state=State.DELIVERED,
    reference=REQUEST_ID,
    attempt_id="0193-a1",
    provider_time="1795255201",
    cost="0.01",
)
READ = replace(DELIVERED, word="read", state=State.READ, provider_time="1795255207")
EXPIRED = replace(
    DELIVERED,
    word="expired",
    state=State.FAILED,
    reason="expired",
    provider_time="1795255320",
    cost="0",
)

# word, reason, kind, and whether the number is avoided
WORDS = (
    ("ACCESS_TOKEN_INVALID", "unauthorized", ACCOUNT, False),
    ("ACCESS_TOKEN_REQUIRED", "unauthorized", ACCOUNT, False),
    ("BALANCE_NOT_ENOUGH", "no_credit", ACCOUNT, False),
    ("CALLBACK_URL_INVALID", "bad_request", ACCOUNT, False),
    ("CODE_INVALID", "bad_code", PERMANENT, False),
    ("CODE_LENGTH_INVALID", "bad_code", PERMANENT, False),
    ("CODE_LENGTH_REQUIRED", "bad_code", PERMANENT, False),
    ("PAYLOAD_INVALID", "bad_request", PERMANENT, False),
    ("PHONE_NUMBER_INVALID", "bad_destination", PERMANENT, True),
    ("PHONE_NUMBER_MISMATCH", "bad_request", PERMANENT, False),
    ("PHONE_NUMBER_NOT_AVAILABLE", "not_a_user", PERMANENT, True),
    ("PHONE_NUMBER_NOT_FOUND", "not_a_user", PERMANENT, True),
    ("REQUEST_ID_INVALID", "bad_request", PERMANENT, False),
    ("REQUEST_ID_REQUIRED", "bad_request", PERMANENT, False),
    ("SENDER_NOT_OWNED", "bad_sender", ACCOUNT, False),
    ("SENDER_NOT_VERIFIED", "bad_sender", ACCOUNT, False),
    ("SENDER_USERNAME_INVALID", "bad_sender", ACCOUNT, False),
    ("TTL_INVALID", "bad_request", PERMANENT, False),
    ("UNKNOWN_METHOD", "bad_request", ACCOUNT, False),
    ("SOMETHING_NEW", "rejected", PERMANENT, False),
)

ODD: Sequence[object] = (
    b"",
    b"<html>OK</html>",
    b'{"ok":true',
    [],
    {},
    {"ok": False},
    {"ok": False, "error": None},
    {"ok": False, "error": ["PHONE_NUMBER_NOT_FOUND"]},
    {"ok": 1, "result": {"request_id": "1"}},
    {"ok": "true", "result": {"request_id": "1"}},
)


def refused(word: str) -> dict[str, object]:
    return {"ok": False, "error": word}


def result(**changes: object) -> dict[str, object]:
    """What is accepted, with another `result`; a value of None leaves the field out."""
    answer = orjson.loads(data("telegram/accepted.json"))
    fields = {**answer["result"], **changes}
    return {"ok": True, "result": {key: fields[key] for key in fields if fields[key] is not None}}


def report(**changes: object) -> dict[str, object]:
    fields = {**orjson.loads(data("telegram/report_delivered.json")), **changes}
    return {key: value for key, value in fields.items() if value is not None}


def delivery(word: object) -> dict[str, object]:
    return {"status": word, "updated_at": 1795255201}


def signature(token: str, at: int | str, body: bytes) -> str:
    """Written from the sheet: HMAC-SHA-256, keyed with the token's digest, over "time LF body"."""
    key = hashlib.sha256(token.encode()).digest()
    return hmac.new(key, f"{at}\n".encode() + body, hashlib.sha256).hexdigest()


def signed(body: object, token: str = TOKEN, at: int = AT) -> Callback:
    content = encoded(body)
    headers = {STAMP: str(at), SIGNATURE: signature(token, at, content)}
    return replace(CALLBACK, attempt_id="0193-a1", headers=headers, body=content)


class TestTelegram(ProviderCases):
    provider = "telegram"
    secrets_field = "former_token"
    statuses = Telegram.statuses
    settings: ClassVar[Mapping[str, Any]] = {"channel": "telegram", "token": TOKEN}

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(label="plain", url=URL, headers=HEADERS, body=BODY),
        SendCase(
            label="from a channel",
            url=URL,
            headers=HEADERS,
            change={"sender": "acme_codes"},
            body={**BODY, "sender_username": "acme_codes"},
        ),
        SendCase(
            label="without a callback URL",
            url=URL,
            headers=HEADERS,
            change={"callback_url": ""},
            body={key: value for key, value in BODY.items() if key != "callback_url"},
        ),
        *(
            SendCase(
                label=f"valid for {validity} s",
                url=URL,
                headers=HEADERS,
                change={"validity": validity},
                body={**BODY, "ttl": ttl},
            )
            for validity, ttl in ((1, 30), (29, 30), (30, 30), (3600, 3600), (86_400, 3600))
        ),
        SendCase(
            label="elsewhere",
            url="http://localhost:8026/telegram/sendVerificationMessage",
            headers=HEADERS,
            settings={"base_url": "http://localhost:8026/telegram/"},
            body=BODY,
        ),
        SendCase(
            label="the question is no part of it",
            url=URL,
            headers=HEADERS,
            settings={"check_first": True},
            body=BODY,
        ),
    ]

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=200,
            body=data("telegram/accepted.json"),
            expected=Accepted(REQUEST_ID, "0.01"),
        ),
        *(
            ResponseCase(
                label=f"cost {changes}",
                status=200,
                body=result(**changes),
                expected=Accepted(REQUEST_ID, cost),
            )
            for changes, cost in (
                ({"request_cost": 0}, "0"),
                ({"request_cost": None}, None),
                ({"request_cost": "0.01"}, None),
                ({"request_cost": True}, None),
                ({"is_refunded": True}, "0"),
                ({"is_refunded": False}, "0.01"),
                ({"delivery_status": None, "payload": None}, "0.01"),
            )
        ),
        *(
            ResponseCase(
                label=f"taken without an id: {body!r}",
                status=200,
                body=body,
                expected=Unknown("no_request_id", "HTTP 200"),
            )
            for body in (
                {"ok": True},
                {"ok": True, "result": True},
                {"ok": True, "result": []},
                result(request_id=None),
                result(request_id=7),
                result(request_id=""),
                result(request_id="x" * 256),
            )
        ),
        *(
            ResponseCase(
                label=f"odd: {body!r}",
                status=200,
                body=body,
                expected=Unknown("odd_answer", "HTTP 200"),
            )
            for body in ODD
        ),
        *(
            ResponseCase(
                label=f"{status} {word}",
                status=status,
                body=refused(word),
                expected=Refused(reason, kind, error=word, avoid=DAY if avoided else None),
            )
            for word, reason, kind, avoided in WORDS
            for status in (200, 400)
        ),
        ResponseCase(
            label="unreachable, as it comes",
            status=200,
            body=data("telegram/unreachable.json"),
            expected=Refused(
                "not_a_user", PERMANENT, error="PHONE_NUMBER_NOT_AVAILABLE", avoid=DAY
            ),
        ),
        ResponseCase(
            label="not let in, as it comes",
            status=401,
            body=data("telegram/unauthorized.json"),
            expected=Refused("unauthorized", ACCOUNT, error="ACCESS_TOKEN_INVALID"),
        ),
        *(
            ResponseCase(
                label=word,
                status=200,
                body=refused(word),
                expected=Refused("throttled", RefusalKind.THROTTLED, seconds, error),
            )
            for word, seconds, error in (
                ("FLOOD_WAIT_7", 7.0, "FLOOD_WAIT_7"),
                ("FLOOD_WAIT_86400", 86_400.0, "FLOOD_WAIT_…"),
                ("FLOOD_WAIT_999999999", 86_400.0, "FLOOD_WAIT_…"),
                ("FLOOD_WAIT", None, "FLOOD_WAIT"),
            )
        ),
        *(
            ResponseCase(
                label=f"no flood: {word}",
                status=200,
                body=refused(word),
                expected=Refused("rejected", PERMANENT, error=word),
            )
            for word in ("FLOOD_WAIT_", "FLOOD_WAIT_X", "NO_FLOOD_WAIT_7", "flood_wait_7")
        ),
        ResponseCase(
            label="sent before",
            status=200,
            body=refused("MESSAGE_ALREADY_SENT"),
            expected=Unknown("already_sent", "MESSAGE_ALREADY_SENT"),
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
                label=f"not let in: {status}",
                status=status,
                body=b"<html>",
                expected=Refused("unauthorized", ACCOUNT, error=f"HTTP {status}"),
            )
            for status in (401, 403)
        ),
        *(
            ResponseCase(
                label=f"{status} with a new word",
                status=status,
                body=refused("SOMETHING_NEW"),
                expected=Refused(reason, kind, error="SOMETHING_NEW"),
            )
            for status, reason, kind in (
                (401, "unauthorized", ACCOUNT),
                (403, "unauthorized", ACCOUNT),
                (429, "throttled", RefusalKind.THROTTLED),
            )
        ),
        ResponseCase(
            label="taken, with the status of a refusal",
            status=400,
            body=data("telegram/accepted.json"),
            expected=Unknown("odd_answer", "HTTP 400"),
        ),
        *(
            ResponseCase(
                label=f"{status} without a word",
                status=status,
                body=b"<html>",
                expected=Refused("rejected", PERMANENT, error=f"HTTP {status}"),
            )
            for status in (400, 404, 413)
        ),
        *(
            ResponseCase(
                label=f"{status} with {body!r:.20}",
                status=status,
                body=body,
                expected=Unknown(reason, said or f"HTTP {status}"),
            )
            for body, said in (
                (data("telegram/accepted.json"), ""),
                (orjson.dumps(refused("PHONE_NUMBER_NOT_FOUND")), "PHONE_NUMBER_NOT_FOUND"),
            )
            for status, reason in (
                (201, "odd_answer"),
                (204, "odd_answer"),
                (302, "odd_answer"),
                (408, "odd_answer"),
                (500, "server_error"),
                (503, "server_error"),
            )
        ),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(
            label="delivered", body=data("telegram/report_delivered.json"), expected=[DELIVERED]
        ),
        ReceiptCase(
            label="expired and paid back",
            body=data("telegram/report_expired.json"),
            expected=[EXPIRED],
        ),
        ReceiptCase(
            label="a code that expired is no message that did",
            body=data("telegram/report_revoked_late.json"),
            expected=[DELIVERED],
        ),
        *(
            ReceiptCase(
                label=word,
                body=report(delivery_status=delivery(word)),
                expected=[replace(DELIVERED, word=word, state=state, reason=reason)],
            )
            for word, state, reason in (
                ("sent", State.ACK, None),
                ("delivered", State.DELIVERED, None),
                ("read", State.READ, None),
                ("expired", State.FAILED, "expired"),
                ("revoked", State.FAILED, "revoked"),
                ("READ", None, None),
                ("seen", None, None),
                ("code_valid", None, None),
            )
        ),
        *(
            ReceiptCase(
                label=f"about a code: {word}",
                body=report(
                    delivery_status=None,
                    verification_status={**delivery(word), "code_entered": "123456"},
                ),
                expected=[],
            )
            for word in ("code_valid", "code_invalid", "code_max_attempts_exceeded", "expired")
        ),
        ReceiptCase(
            label="without our id, which the URL names",
            body=report(payload=None),
            expected=[DELIVERED],
        ),
        *(
            ReceiptCase(
                label=f"time {moment!r}",
                body=report(delivery_status={"status": "delivered", "updated_at": moment}),
                expected=[replace(DELIVERED, provider_time=shown)],
            )
            for moment, shown in ((None, None), ("now", None), (True, None), (1.5, None), (7, "7"))
        ),
        *(
            ReceiptCase(
                label=f"cost {cost!r}",
                body=report(request_cost=cost),
                expected=[replace(DELIVERED, cost=shown)],
            )
            for cost, shown in ((0, "0"), (0.0, "0.0"), (1.25, "1.25"), (None, None), ("1", None))
        ),
        *(
            ReceiptCase(
                label=f"spoiled: {spoiled!r:.60}",
                body=spoiled,
                expected=[Malformed(why, b"")],
            )
            for spoiled, why in (
                (b"", "request_id is missing or unusable"),
                (b"hello", "request_id is missing or unusable"),
                (b"\xff", "request_id is missing or unusable"),
                ([], "request_id is missing or unusable"),
                ([report()], "request_id is missing or unusable"),
                ({}, "request_id is missing or unusable"),
                (report(request_id=None), "request_id is missing or unusable"),
                (report(delivery_status=None), "delivery_status is missing or unusable"),
                (report(delivery_status="read"), "delivery_status is missing or unusable"),
                (report(delivery_status=[]), "delivery_status is missing or unusable"),
                (report(delivery_status={}), "delivery_status is missing or unusable"),
                (
                    report(delivery_status=delivery(["read"])),
                    "delivery_status is missing or unusable",
                ),
                (
                    report(delivery_status=delivery("x" * 256)),
                    "delivery_status is missing or unusable",
                ),
                (report(payload="0193-b2"), "payload differs"),
                (report(payload=7), "payload differs"),
                (report(payload=""), "payload differs"),
            )
        ),
    ]

    def sign(self, callback: Callback, secret: str) -> Callback:
        return signed(callback.body, secret)

    def receipt(self, word: str) -> bytes:
        return orjson.dumps(report(request_id="m_1", delivery_status=delivery(word)))

    def refusal(self, message: str) -> bytes:
        return orjson.dumps(refused(message))

    def may_accept(self, status: int, answer: object) -> bool:
        if status != 200 or not isinstance(answer, dict) or answer.get("ok") is not True:
            return False
        return isinstance(answer.get("result"), dict) and "request_id" in answer["result"]

    def signature_header(self) -> str:
        return SIGNATURE

    def stale(self, secret: str) -> Callback | None:
        return signed(self.receipt("delivered"), secret, at=AT - 301)


def telegram(**changes: Any) -> Telegram:
    fields = {"name": "route", "account": "account", **TestTelegram.settings, **changes}
    return Telegram(Telegram.Settings(**fields))


def own_headers(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name != "host"}


# --- Reports ------------------------------------------------------------------------------------


def test_a_signature_made_elsewhere() -> None:
    """KEY=$(printf %s AAE-token | openssl dgst -sha256 -r | cut -d' ' -f1)
    (printf '1795255210\\n'; cat data/telegram/report_delivered.json) |
        openssl dgst -sha256 -mac HMAC -macopt hexkey:$KEY"""
    made = "d3be1c28368ffdd10340cb9132852db45be1a0195d20a848ccc9d4622843dbf6"
    callback = replace(
        signed(data("telegram/report_delivered.json")),
        headers={STAMP: "1795255210", SIGNATURE: made},
    )

    assert telegram().authenticate(callback)
    assert made == signature(TOKEN, 1795255210, callback.body)


def test_the_token_of_the_api_signs_its_reports() -> None:
    assert telegram().authenticate(signed(report()))
    assert telegram(former_token=(SECRET,)).authenticate(signed(report()))
    assert not telegram().authenticate(signed(report(), SECRET))


@pytest.mark.parametrize(
    ("seconds", "fresh"),
    [(0, True), (300, True), (-300, True), (301, False), (-301, False), (86_400, False)],
)
def test_a_signature_has_its_time(seconds: int, fresh: bool) -> None:
    late = replace(signed(report()), received_at=NOW + timedelta(seconds=seconds))

    assert fresh == telegram().authenticate(late)


def test_how_old_a_signature_may_be_can_be_set() -> None:
    late = replace(signed(report()), received_at=NOW + timedelta(seconds=3600))

    assert telegram(tolerance=3600).authenticate(late)


@pytest.mark.parametrize(
    "stamp",
    [None, "", "-1", "1e9", "٣", f" {AT}", f"{AT}\n{AT}", f"{AT}.0", "9" * 13, str(AT + 1)],
)
def test_the_time_is_signed_too(stamp: str | None) -> None:
    callback = signed(report())
    headers = {SIGNATURE: callback.headers[SIGNATURE]}
    if stamp is not None:
        headers[STAMP] = stamp

    assert not telegram().authenticate(replace(callback, headers=headers))


@pytest.mark.parametrize("stamp", ["-1", "٣", "", "1e9"])
def test_a_time_that_is_none_is_refused_even_when_signed(stamp: str) -> None:
    headers = {STAMP: stamp, SIGNATURE: signature(TOKEN, stamp, encoded(report()))}

    assert not telegram().authenticate(replace(signed(report()), headers=headers))


def test_a_report_keeps_its_bytes() -> None:
    (found,) = telegram().receipts(signed(report()))

    assert encoded(report()) == found.raw


def test_a_signed_report_of_another_attempt_moves_nothing() -> None:
    callback = replace(signed(report()), attempt_id="0193-b2")

    assert telegram().authenticate(callback)
    assert [Malformed("payload differs", callback.body)] == telegram().receipts(callback)


# --- Asking and taking back ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["checkVerificationStatus", "revokeVerificationMessage"])
def test_a_message_is_asked_about_and_revoked_by_its_reference(method: str) -> None:
    provider = telegram()
    build = provider.build_poll if method.startswith("check") else provider.build_revoke
    request = build("0193-a1", REQUEST_ID)

    assert isinstance(provider, Polls)
    assert isinstance(provider, Revokes)
    assert request is not None
    assert ("POST", f"{BASE}/{method}") == (request.method, str(request.url))
    assert HEADERS == own_headers(request)
    assert {"request_id": REQUEST_ID} == orjson.loads(request.content)
    assert build("0193-a1", None) is None


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, data("telegram/state.json"), READ),
        (200, result(),
         replace(DELIVERED, word="sent", state=State.ACK, provider_time="1795255200")),
        (200, result(delivery_status=delivery("seen")),
         replace(DELIVERED, word="seen", state=None)),
        (200, result(delivery_status=delivery("delivered"), payload=None),
         replace(DELIVERED, attempt_id=None)),
        (200, result(payload=7), None),
        (200, result(request_id=None), None),
        (200, result(delivery_status=None), None),
        (200, result(delivery_status=None, verification_status=delivery("expired")), None),
        (200, {"ok": True, "result": True}, None),
        (200, {**result(), "ok": False}, None),
        (200, refused("REQUEST_ID_INVALID"), None),
        (200, b"", None),
        (200, [], None),
        (404, data("telegram/state.json"), None),
        (503, b"", None),
    ],
)  # fmt: skip
def test_a_poll_says_this(status: int, body: object, expected: Receipt | None) -> None:
    said = telegram().parse_poll(Response(status, content=encoded(body)))

    assert expected == (said and replace(said, raw=b""))


# --- Asking first -------------------------------------------------------------------------------


def flow(provider: Telegram, request: Request) -> Generator[Request, Response, None]:
    auth = provider.auth()
    assert auth is not None
    return auth.auth_flow(request)


def after_the_question() -> Generator[Request, Response, None]:
    """The flow of a message that waits for the answer to its question."""
    provider = telegram(check_first=True)
    steps = flow(provider, provider.build(OUTGOING))
    question = next(steps)

    assert ("POST", f"{BASE}/checkSendAbility") == (question.method, str(question.url))
    assert HEADERS == own_headers(question)
    assert {"phone_number": "+33600000000"} == orjson.loads(question.content)
    return steps


def test_nothing_is_asked_first_unless_told() -> None:
    assert telegram().auth() is None


def test_a_yes_is_followed_by_the_message_under_its_id() -> None:
    steps = after_the_question()
    message = steps.send(Response(200, content=data("telegram/checked.json")))

    assert ("POST", URL) == (message.method, str(message.url))
    assert HEADERS == own_headers(message)
    assert {**BODY, "request_id": REQUEST_ID} == orjson.loads(message.content)
    with pytest.raises(StopIteration):
        steps.send(Response(500))


@pytest.mark.parametrize(
    "answer",
    [
        Response(200, content=data("telegram/unreachable.json")),
        Response(200, json=refused("BALANCE_NOT_ENOUGH")),
        Response(200, json=refused("FLOOD_WAIT_30")),
        Response(200, json=refused("SOMETHING_NEW")),
        Response(401, content=data("telegram/unauthorized.json")),
        Response(429, headers={"Retry-After": "3"}),
        Response(404, content=b"<html>"),
    ],
)
def test_a_no_is_the_answer(answer: Response) -> None:
    with pytest.raises(Answered) as ended:
        after_the_question().send(answer)

    assert answer is ended.value.response
    assert isinstance(telegram().parse(answer), Refused)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Response(500), "check_server_error"),
        (Response(503, content=data("telegram/checked.json")), "check_server_error"),
        (Response(200, content=b"<html>"), "check_odd_answer"),
        (Response(200, json=result(request_id=None)), "check_no_request_id"),
        (Response(200, json=refused("MESSAGE_ALREADY_SENT")), "check_already_sent"),
    ],
)
def test_an_answer_that_is_neither_leaves_the_message_unsent(answer: Response, reason: str) -> None:
    with pytest.raises(NotSent) as ended:
        after_the_question().send(answer)

    assert reason == ended.value.reason


@pytest.mark.parametrize("method", ["build_poll", "build_revoke"])
def test_other_calls_are_not_preceded_by_a_question(method: str) -> None:
    provider = telegram(check_first=True)
    request = getattr(provider, method)("0193-a1", REQUEST_ID)

    assert [request] == list(flow(provider, request))


# --- Settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "word", "expected"),
    [
        ("NEW=account", "NEW", Refused("account_refused", ACCOUNT, error="NEW")),
        ("NEW=permanent", "NEW", Refused("rejected", PERMANENT, error="NEW")),
        ("NEW=unreachable", "NEW", Refused("not_a_user", PERMANENT, error="NEW", avoid=DAY)),
        ("A=account  NEW=temporary", "NEW",
         Refused("unavailable", RefusalKind.TEMPORARY, error="NEW")),
        ("NEW=throttled", "NEW", Refused("throttled", RefusalKind.THROTTLED, error="NEW")),
        ("BALANCE_NOT_ENOUGH=temporary", "BALANCE_NOT_ENOUGH",
         Refused("unavailable", RefusalKind.TEMPORARY, error="BALANCE_NOT_ENOUGH")),
        ("BALANCE_NOT_ENOUGH=account", "BALANCE_NOT_ENOUGH",
         Refused("no_credit", ACCOUNT, error="BALANCE_NOT_ENOUGH")),
        ("MESSAGE_ALREADY_SENT=permanent", "MESSAGE_ALREADY_SENT",
         Refused("rejected", PERMANENT, error="MESSAGE_ALREADY_SENT")),
    ],
)  # fmt: skip
def test_what_a_word_means_can_be_set(errors: str, word: str, expected: Refused) -> None:
    assert expected == telegram(errors=errors).parse(Response(200, json=refused(word)))


@pytest.mark.parametrize(("seconds", "avoid"), [(0, None), (60, 60.0)])
def test_how_long_an_unreachable_number_is_avoided_can_be_set(
    seconds: int, avoid: float | None
) -> None:
    answer = Response(200, content=data("telegram/unreachable.json"))
    outcome = telegram(remember_unreachable=seconds).parse(answer)

    assert isinstance(outcome, Refused)
    assert avoid == outcome.avoid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel": "sms"}, "channel: telegram has telegram, not sms"),
        ({"base_url": ""}, "base_url"),
        ({"base_url": "https://x.example/?a=b"}, "base_url"),
        ({"timeout": -1}, "timeout"),
        ({"rate": -1}, "rate"),
        ({"concurrency": -1}, "concurrency"),
        ({"token": Secret("")}, "token"),
        ({"token": Secret("a\nb")}, "token"),
        ({"former_token": Secret("one")}, "former_token"),
        ({"sender": "@acme"}, "sender"),
        ({"sender": "Acme Codes"}, "sender"),
        ({"sender": {"default": "acme_codes", "FR": "é"}}, "sender"),
        ({"tolerance": 0}, "tolerance"),
        ({"tolerance": 86_401}, "tolerance"),
        ({"remember_unreachable": -1}, "remember_unreachable"),
        ({"errors": "NEW"}, "errors"),
        ({"errors": "NEW=no"}, "errors"),
        ({"errors": "new=account"}, "errors"),
        ({"errors": "NEW=account,OTHER=account"}, "errors"),
    ],
)
def test_a_wrong_setting_is_named(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        telegram(**changes)


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"timeout.*token.*tolerance"):
        telegram(timeout=0, token=Secret(""), tolerance=0)
