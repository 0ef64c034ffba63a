"""Octopush, SMS and voice. The samples are the vendor's own: data/octopush.

Over 500 lines because most of it is lists: every return code, status and shape documented.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import orjson
import pytest
from providers.cases import (
    CALLBACK,
    OUTGOING,
    SECRET,
    ProviderCases,
    ReceiptCase,
    ResponseCase,
    SendCase,
    data,
)

from gateway.domain.delivery import State
from gateway.ports import (
    Accepted,
    Callback,
    Malformed,
    Outcome,
    Receipt,
    RefusalKind,
    Refused,
    Request,
    Response,
    Secret,
    Unknown,
)
from gateway.providers.octopush import Octopush, spoken, voice_language

HEADERS = {
    "api-login": "ops@example.com",
    "api-key": "the-api-key",
    "content-type": "application/json",
    "cache-control": "no-cache",
}
SMS_URL = "https://api.octopush.com/v1/public/sms-campaign/send"
VOICE_URL = "https://api.octopush.com/v1/public/voice-campaign/send"
SMS_BODY: Mapping[str, object] = {
    "recipients": [{"phone_number": "+33600000000"}],
    "text": "123456 is your code",
    "type": "sms_premium",
    "purpose": "alert",
    "request_id": "0193-a1",
    "auto_optimize_text": False,
}
VOICE_BODY: Mapping[str, object] = {
    "recipients": [{"phone_number": "+33600000000"}],
    "text": "1, 2, 3, 4, 5, 6 is your code. 1, 2, 3, 4, 5, 6 is your code",
    "purpose": "alert",
    "voice_gender": "female",
    "voice_language": "en-US",
    "request_id": "0193-a1",
}

NO_TICKET: Sequence[object] = [
    b"",
    b"<html>OK</html>",
    b'{"sms_ticket":',
    [],
    "sms_1",
    {},
    {"data": {"sms_ticket": "sms_1"}},
    {"sms_ticket": ""},
    {"sms_ticket": 7},
    {"sms_ticket": "x" * 256},
]

ACCOUNT, PERMANENT = RefusalKind.ACCOUNT, RefusalKind.PERMANENT
REFUSALS = [
    (100, "bad_request", ACCOUNT),
    (101, "unauthorized", ACCOUNT),
    (102, "text_too_long", PERMANENT),
    (103, "bad_destination", PERMANENT),
    (104, "no_credit", ACCOUNT),
    (105, "no_credit", ACCOUNT),
    (106, "bad_sender", ACCOUNT),
    (107, "bad_request", ACCOUNT),
    (108, "unauthorized", ACCOUNT),
    (109, "unauthorized", ACCOUNT),
    (110, "bad_destination", PERMANENT),
    (111, "bad_destination", PERMANENT),
    (112, "bad_request", ACCOUNT),
    (113, "account_blocked", ACCOUNT),
    (114, "account_blocked", ACCOUNT),
    (115, "bad_request", ACCOUNT),
    (116, "bad_request", ACCOUNT),
    (117, "bad_destination", PERMANENT),
    (118, "bad_request", ACCOUNT),
    (119, "text_too_long", PERMANENT),
    (121, "stop_text_required", ACCOUNT),
    (122, "stop_text_required", ACCOUNT),
    (150, "bad_destination", PERMANENT),
]

STATUSES: Sequence[tuple[str, State | None, str | None, bool]] = [
    ("ACK", State.ACK, None, False),
    ("TRANSMITTED", State.ACK, None, False),
    ("ISP_SEND", State.ACK, None, False),
    ("PROCESSED", State.SENT, None, False),
    ("DELIVERED", State.DELIVERED, None, False),
    ("READ", State.READ, None, False),
    ("OPENED", State.READ, None, False),
    ("CLICKED", State.READ, None, False),
    ("NOT_DELIVERED", State.FAILED, "not_delivered", False),
    ("NOT_ALLOWED", State.FAILED, "not_allowed", True),
    ("BAD_DESTINATION", State.FAILED, "bad_destination", True),
    ("BLACKLISTED_NUMBER", State.FAILED, "blacklisted", True),
    ("NOT_DELIVERABLE", State.FAILED, "not_deliverable", True),
    ("BUSY", State.FAILED, "busy", False),
    ("REFUSED", State.FAILED, "refused", False),
    ("SPAM_PRESUMPTION", State.FAILED, "spam", True),
    ("UNKNOWN_DELIVERY", None, None, False),
    ("UNDEFINED", None, None, False),
    ("delivered", State.DELIVERED, None, False),
    ("EXPIRED", None, None, False),
]

DELIVERED = Receipt(
    word="DELIVERED",
    state=State.DELIVERED,
    reference="sms_5fec89fe97109",
    recipient="+33600000000",
    provider_time="2025-01-22 11:46:06",
)


def item(**changes: object) -> dict[str, object]:
    return {**orjson.loads(data("octopush/receipt_sms.json")), **changes}


def without(field: str) -> dict[str, object]:
    return {key: value for key, value in item().items() if key != field}


class OctopushCases(ProviderCases):
    provider = "octopush"
    secrets_field = "callback_key"
    statuses = Octopush.statuses

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=201,
            body=data("octopush/accepted_sms.json"),
            expected=Accepted("sms_5fec89fe97109", "0.0333"),
        ),
        ResponseCase(
            label="taken, other success",
            status=200,
            body=data("octopush/accepted_voice_older.json"),
            expected=Accepted("vocal_5fed928fda524", "0.03"),
        ),
        ResponseCase(
            label="taken, ticket of a name nobody told us",
            status=202,
            body={"voice_ticket": "voice_5fed928fda524", "total_cost": "0.03"},
            expected=Accepted("voice_5fed928fda524", "0.03"),
        ),
        ResponseCase(
            label="taken, no cost",
            status=200,
            body={"sms_ticket": "sms_1", "total_cost": None},
            expected=Accepted("sms_1"),
        ),
        ResponseCase(
            label="taken, the first ticket unusable",
            status=200,
            body={"list_ticket": None, "sms_ticket": "sms_1", "total_cost": True},
            expected=Accepted("sms_1"),
        ),
        *(
            ResponseCase(
                label=f"2xx without a ticket: {body!r}",
                status=200,
                body=body,
                expected=Unknown("no_ticket", "HTTP 200"),
            )
            for body in NO_TICKET
        ),
        ResponseCase(
            label="2xx, only a success message",
            status=200,
            body={"code": 0, "message": "success"},
            expected=Unknown("no_ticket", "0: success"),
        ),
        ResponseCase(
            label="2xx, an error we know",
            status=200,
            body={"code": 104, "message": "Not enough credit"},
            expected=Refused("no_credit", ACCOUNT, error="104: Not enough credit"),
        ),
        ResponseCase(
            label="2xx, an error we do not know",
            status=200,
            body={"code": 131, "message": "Odd"},
            expected=Unknown("no_ticket", "131: Odd"),
        ),
        ResponseCase(
            label="sent before",
            status=400,
            body={"code": 120, "message": "request_id already used"},
            expected=Accepted(None),
        ),
        ResponseCase(
            label="sent before, said with 200 and in digits",
            status=200,
            body={"code": "120"},
            expected=Accepted(None),
        ),
        *(
            ResponseCase(
                label=f"code {shown!r}",
                status=400,
                body={"code": shown, "message": "No"},
                expected=Refused(reason, kind, error=f"{code}: No"),
            )
            for code, reason, kind in REFUSALS
            for shown in ((code, str(code)) if code == REFUSALS[0][0] else (code,))
        ),
        ResponseCase(
            label="unprocessable, a code we know",
            status=422,
            body={"code": 110},
            expected=Refused("bad_destination", PERMANENT, error="110"),
        ),
        *(
            ResponseCase(
                label=f"refused, no code we know: {status} {body!r}",
                status=status,
                body=body,
                expected=Refused("rejected", PERMANENT, error=error),
            )
            for status, body, error in (
                (400, b"", "HTTP 400"),
                (400, {"code": 199, "message": "Wrong code"}, "199: Wrong code"),
                (400, {"code": 0, "message": ""}, "0"),
                (400, {"code": "E7", "message": {}}, "E7"),
                (400, {"code": [], "message": " two\nlines\x00 "}, "two lines"),
                (404, b"<html>404</html>", "HTTP 404"),
                (422, {"message": "+33600000000 and 1 2 3 4 5 6"}, "+… and …"),
            )
        ),
        *(
            ResponseCase(
                label=f"not let in: {status}",
                status=status,
                body=body,
                expected=Refused("unauthorized", ACCOUNT, error=error),
            )
            for status, body, error in (
                (401, b"", "HTTP 401"),
                (403, {"code": 101, "message": "Wrong login"}, "101: Wrong login"),
            )
        ),
        *(
            ResponseCase(
                label=f"too fast: {pause!r}",
                status=429,
                headers={} if pause is None else {"Retry-After": pause},
                expected=Refused("throttled", RefusalKind.THROTTLED, seconds, "HTTP 429"),
            )
            for pause, seconds in (
                (None, None),
                ("7", 7.0),
                ("0", 0.0),
                ("-7", None),
                ("1.5", None),
                ("9" * 400, 86_400.0),
                ("Wed, 21 Oct 2026 07:28:00 GMT", None),
            )
        ),
        *(
            ResponseCase(label=str(status), status=status, expected=Unknown(reason, error))
            for status, reason, error in (
                (302, "odd_answer", "HTTP 302"),
                (304, "odd_answer", "HTTP 304"),
                (500, "server_error", "HTTP 500"),
                (502, "server_error", "HTTP 502"),
                (503, "server_error", "HTTP 503"),
                (504, "server_error", "HTTP 504"),
            )
        ),
        ResponseCase(
            label="server error with a ticket",
            status=500,
            body=data("octopush/accepted_sms.json"),
            expected=Unknown("server_error", "HTTP 500"),
        ),
        ResponseCase(
            label="server error with a code",
            status=500,
            body={"code": 101, "message": "Wrong login"},
            expected=Unknown("server_error", "101: Wrong login"),
        ),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(
            label="of an SMS", body=data("octopush/receipt_sms.json"), expected=[DELIVERED]
        ),
        ReceiptCase(
            label="of a call",
            body=data("octopush/receipt_voice.json"),
            expected=[replace(DELIVERED, reference="voice_5fed928fda524")],
        ),
        ReceiptCase(
            label="of a call, older page",
            body=data("octopush/receipt_voice_older.json"),
            expected=[
                replace(
                    DELIVERED,
                    word="NOT_DELIVERABLE",
                    state=State.FAILED,
                    reference="vocal_5fed928fda524",
                    reason="not_deliverable",
                    permanent=True,
                    provider_time="2021-01-22 11:46:06",
                )
            ],
        ),
        *(
            ReceiptCase(label=label, body=body, expected=[])
            for label, body in (
                ("of an e-mail", data("octopush/receipt_email.json")),
                ("a reply", data("octopush/reply.json")),
                ("a reply, older page", data("octopush/reply_older.json")),
                ("an opt-out", data("octopush/opt_out.json")),
                ("an opt-out as a form", b"number=%2B33600000000&stop_date=2025-01-22"),
                ("an empty list", b"[]"),
            )
        ),
        *(
            ReceiptCase(
                label=word,
                body=item(status=word),
                expected=[
                    replace(DELIVERED, word=word, state=state, reason=reason, permanent=permanent)
                ],
            )
            for word, state, reason, permanent in STATUSES
        ),
        ReceiptCase(
            label="with keys of the other kinds, too",
            body=item(stop_date=None, reception_date=""),
            expected=[DELIVERED],
        ),
        ReceiptCase(
            label="without a channel and a date",
            body={"message_id": "sms_1", "status": "ACK"},
            expected=[Receipt(word="ACK", state=State.ACK, reference="sms_1")],
        ),
        ReceiptCase(
            label="with a number and a date that are none",
            body=item(number=["+33600000000"], delivery_date=None),
            expected=[replace(DELIVERED, recipient=None, provider_time=None)],
        ),
        ReceiptCase(
            label="as a form",
            body=b"message_id=sms_5fec89fe97109&number=%2B33600000000&status=DELIVERED"
            b"&delivery_date=2025-01-22+11%3A46%3A06&list_name=",
            headers={"content-type": "application/x-www-form-urlencoded"},
            expected=[DELIVERED],
        ),
        ReceiptCase(
            label="as a form with a bare plus sign",
            body=b"message_id=sms_5fec89fe97109&number=+33600000000&status=DELIVERED"
            b"&delivery_date=2025-01-22 11:46:06",
            expected=[DELIVERED],
        ),
        ReceiptCase(
            label="JSON that is called a form",
            body=data("octopush/receipt_sms.json"),
            headers={"content-type": "application/x-www-form-urlencoded"},
            expected=[DELIVERED],
        ),
        ReceiptCase(
            label="a list, one item spoiled, one a reply",
            body=[item(), 7, {"text": "?", "reception_date": "2025"}, item(), item(status=None)],
            expected=[
                DELIVERED,
                Malformed("not an object", b""),
                DELIVERED,
                Malformed("status is missing or unusable", b""),
            ],
        ),
        *(
            ReceiptCase(label=f"nonsense: {body!r}", body=body, expected=[Malformed(why, b"")])
            for body, why in (
                (b"", "message_id is missing or unusable"),
                (b"{}", "message_id is missing or unusable"),
                (b"a=b", "message_id is missing or unusable"),
                (b"hello", "not an object"),
                (b"\xff\xfe", "not an object"),
                (b"&".join([b"a=b"] * 101), "not an object"),
                (b"null", "not an object"),
                (b'"DELIVERED"', "not an object"),
                (without("status"), "status is missing or unusable"),
                (without("message_id"), "message_id is missing or unusable"),
            )
        ),
    ]

    def sign(self, callback: Callback, secret: str) -> Callback:
        return replace(callback, key=secret)

    def receipt(self, word: str) -> bytes:
        return orjson.dumps(item(message_id="m_1", status=word))

    def refusal(self, message: str) -> bytes:
        return orjson.dumps({"code": 999, "message": message})

    def may_accept(self, status: int, answer: object) -> bool:
        if not isinstance(answer, dict):
            return False
        if 200 <= status < 300 and any(key.endswith("_ticket") for key in answer):
            return True
        sent_before = answer.get("code") in (120, "120")
        return (
            sent_before
            and 200 <= status < 500
            and not 300 <= status < 400
            and status
            not in (
                401,
                403,
                429,
            )
        )


class TestSms(OctopushCases):
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "sms",
        "api_login": "ops@example.com",
        "api_key": Secret("the-api-key"),
    }
    unpromised = frozenset({State.READ})  # RCS and mail have it, SMS has not

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(label="plain", url=SMS_URL, headers=HEADERS, body=SMS_BODY),
        SendCase(
            label="with a sender",
            url=SMS_URL,
            headers=HEADERS,
            change={"sender": "ACME"},
            body={**SMS_BODY, "sender": "ACME"},
        ),
        SendCase(
            label="in any script",
            url=SMS_URL,
            headers=HEADERS,
            change={"text": "код 123456 «é» {code}"},
            body={**SMS_BODY, "text": "код 123456 «é» {code}"},
        ),
        SendCase(
            label="low cost, wholesale",
            url=SMS_URL,
            headers=HEADERS,
            settings={"type": "sms_low_cost", "purpose": "wholesale"},
            body={**SMS_BODY, "type": "sms_low_cost", "purpose": "wholesale"},
        ),
        SendCase(
            label="simulated, elsewhere",
            url="http://127.0.0.1:8026/octopush/sms-campaign/send",
            headers=HEADERS,
            settings={"simulation_mode": True, "base_url": "http://127.0.0.1:8026/octopush/"},
            body={**SMS_BODY, "simulation_mode": True},
        ),
    ]


class TestVoice(OctopushCases):
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "voice",
        "api_login": "ops@example.com",
        "api_key": Secret("the-api-key"),
    }
    # Words of SMS, RCS and mail: one callback URL serves the whole account.
    unpromised = frozenset({State.ACK, State.READ})
    # Answers and receipts are read alike on both channels: those of TestSms hold here.
    responses: ClassVar[Sequence[ResponseCase]] = [
        one for one in OctopushCases.responses if isinstance(one.expected, Accepted)
    ]
    receipts: ClassVar[Sequence[ReceiptCase]] = [
        one for one in OctopushCases.receipts if one.label.startswith("of a call")
    ]

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(label="plain", url=VOICE_URL, headers=HEADERS, body=VOICE_BODY),
        SendCase(
            label="with a sender that no SMS could have, in the locale's language",
            url=VOICE_URL,
            headers=HEADERS,
            settings={"sender": "+33700000000", "voice_gender": "male"},
            change={"sender": "+33700000000", "locale": "fr"},
            body={
                **VOICE_BODY,
                "sender": "+33700000000",
                "voice_gender": "male",
                "voice_language": "fr-FR",
            },
        ),
        SendCase(
            label="in a language that is set",
            url=VOICE_URL,
            headers=HEADERS,
            settings={"voice_language": "da-DK"},
            change={"locale": "fr"},
            body={**VOICE_BODY, "voice_language": "da-DK"},
        ),
        SendCase(
            label="on the older path, simulated",
            url="https://api.octopush.com/v1/public/vocal-campaign/send",
            headers=HEADERS,
            settings={"voice_path": "/vocal-campaign/send", "simulation_mode": True},
            body={**VOICE_BODY, "type": "vocal_sms", "simulation_mode": True},
        ),
    ]


def octopush(**changes: Any) -> Octopush:
    fields = {"name": "route", "account": "account", "callback_key": (SECRET,)}
    return Octopush(Octopush.Settings(**{**fields, **TestSms.settings, **changes}))


@pytest.mark.parametrize(
    ("changes", "confirmed"),
    [
        ({}, {State.ACK, State.DELIVERED, State.FAILED}),
        ({"channel": "voice"}, {State.DELIVERED, State.FAILED}),
        ({"channel": "voice", "type": "sms_low_cost"}, {State.DELIVERED, State.FAILED}),
        ({"type": "sms_low_cost"}, set()),
        ({"simulation_mode": True}, set()),
        ({"simulation_mode": True, "channel": "voice"}, set()),
    ],
)
def test_it_promises_only_what_comes(changes: Mapping[str, Any], confirmed: set[State]) -> None:
    assert confirmed == octopush(**changes).confirms


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel": "fax"}, "channel: octopush has sms and voice, not fax"),
        ({"base_url": "octopush.com"}, "base_url"),
        ({"base_url": "https://octopush.com/?a=b"}, "base_url"),
        ({"base_url": "https://me:secret@octopush.com"}, "base_url"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"rate": 0}, "rate"),
        ({"concurrency": 0}, "concurrency"),
        ({"api_login": ""}, "api_login"),
        ({"api_key": Secret("key\n")}, "api_key"),
        ({"api_key": Secret("clé")}, "api_key"),
        ({"callback_key": Secret("one")}, "callback_key"),
        ({"type": "sms"}, "type: sms_premium or sms_low_cost"),
        ({"purpose": "otp"}, "purpose"),
        ({"voice_gender": "robot"}, "voice_gender"),
        ({"voice_path": "send"}, "voice_path"),
        ({"sender": "AC"}, "sender"),
        ({"sender": "ACME-ACME"}, "sender"),
        ({"sender": {"default": "ACME", "US": "a sender too long"}}, "sender"),
    ],
)
def test_a_wrong_setting_is_named(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        octopush(**changes)


def test_every_wrong_setting_is_named() -> None:
    with pytest.raises(ValueError, match=r"^rate: .*; purpose: "):
        octopush(rate=-1, purpose="otp")


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": {"default": "ACME", "FR": "Acme42"}},
        {"base_url": "http://[::1]:8026/v1"},
        {"base_url": "http://otp_sandbox:8026"},
    ],
)
def test_a_right_setting_is_taken(changes: Mapping[str, Any]) -> None:
    provider = octopush(**changes)

    assert changes.get("sender") == provider.sender


def test_each_item_of_a_list_keeps_its_own_bytes() -> None:
    body = orjson.dumps([item(), 7])
    single = data("octopush/receipt_sms.json")

    assert [single, b"7"] == [
        found.raw for found in octopush().receipts(replace(CALLBACK, body=body))
    ]
    assert [single] == [found.raw for found in octopush().receipts(replace(CALLBACK, body=single))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Your code is 1234.", "Your code is 1, 2, 3, 4. Your code is 1, 2, 3, 4."),
        ("Not 12345, 1234!", "Not 12345, 1, 2, 3, 4!. Not 12345, 1, 2, 3, 4!"),
        ("コード1234です", "コード1, 2, 3, 4です. コード1, 2, 3, 4です"),
        ("G-1234", "G-1, 2, 3, 4. G-1, 2, 3, 4"),
    ],
)
def test_a_code_is_spelled_and_said_twice(text: str, said: str) -> None:
    assert said == spoken(text, "1234")


@pytest.mark.parametrize("length", [500, 600, 650, 1200, 1214, 1215, 1224, 3000])
def test_what_is_said_fits_and_has_the_code(length: int) -> None:
    said = spoken("1234 " + "a" * length, "1234")

    assert len(said) <= 1224
    assert said.startswith("1, 2, 3, 4")


@pytest.mark.parametrize(
    ("locale", "voice"),
    [
        ("en", "en-US"),
        ("en-GB", "en-GB"),
        ("pt_BR", "pt-BR"),
        ("fr-BE", "fr-FR"),
        ("ja", "ja-JP"),
        ("tlh", "en-US"),
        ("", "en-US"),
    ],
)
def test_a_locale_has_a_voice(locale: str, voice: str) -> None:
    assert voice == voice_language(locale)


@pytest.mark.parametrize(
    ("changes", "product"),
    [
        ({}, "sms_premium"),
        ({"type": "sms_low_cost"}, "sms_low_cost"),
        ({"channel": "voice"}, "vocal_sms"),
    ],
)
def test_the_check_asks_for_the_balance(changes: Mapping[str, Any], product: str) -> None:
    request: Request = octopush(**changes).build_check()

    assert "GET" == request.method
    assert str(request.url) == (
        "https://api.octopush.com/v1/public/wallet/check-balance"
        f"?product_name={product}&country_code=FR&with_details=true"
    )
    assert HEADERS.items() <= dict(request.headers).items()


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (200, data("octopush/balance.json"), None),
        (201, b'{"amount":0.5,"unit":"euros"}', None),
        (200, b'{"amount":0}', "The Octopush account has no credit for sms_premium."),
        (200, b'{"amount":"x"}', "Octopush does not tell the balance (HTTP 200)."),
        (200, b"", "Octopush does not tell the balance (HTTP 200)."),
        (401, b"", "Octopush refuses api_login or api_key."),
        (400, b'{"code":101}', "Octopush refuses api_login or api_key."),
        (
            400,
            b'{"code":100,"message":"key the-api-key"}',
            "Octopush does not tell the balance (100: key …).",
        ),
        (503, data("octopush/balance.json"), "Octopush does not tell the balance (HTTP 503)."),
    ],
)
def test_the_check_says_what_is_wrong(status: int, body: bytes, sentence: str | None) -> None:
    assert sentence == octopush().parse_check(Response(status, content=body))


def test_a_long_error_is_cut() -> None:
    outcome: Outcome = octopush().parse(Response(400, json={"code": 1, "message": "no " * 500}))

    assert isinstance(outcome, Refused)
    assert 200 == len(outcome.error or "")


def test_an_sms_has_no_lifetime_to_set() -> None:
    provider = octopush()

    assert provider.build(OUTGOING).content == provider.build(replace(OUTGOING, validity=1)).content
