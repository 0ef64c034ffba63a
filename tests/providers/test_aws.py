"""AWS: End User Messaging SMS with its events, and SNS without."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import botocore.session  # type: ignore[import-untyped]
import orjson
import pytest
from botocore.loaders import Loader  # type: ignore[import-untyped]
from botocore.model import ServiceModel  # type: ignore[import-untyped]
from botocore.serialize import create_serializer  # type: ignore[import-untyped]
from botocore.validate import ParamValidator  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from providers.cases import (
    ANY_CHARACTER,
    CALLBACK,
    NOW,
    OTHER_SECRET,
    OUTGOING,
    SEARCH,
    SECRET,
    ProviderCases,
    ReceiptCase,
    ResponseCase,
    SendCase,
    data,
    encoded,
)
from providers.sns import OTHER_SIGNER, PEM, TOPIC, URL, Signer, confirmation, signed

from gateway.domain.delivery import State
from gateway.ports import (
    Accepted,
    Asks,
    Callback,
    Confirms,
    Correlation,
    Malformed,
    Outcome,
    Provider,
    Receipt,
    RefusalKind,
    Refused,
    Request,
    Response,
    Secret,
    Timed,
    Unknown,
)
from gateway.providers.aws import Aws, spoken, voice

API = "https://sms-voice.eu-west-3.amazonaws.com/"
TEXT = {
    "content-type": "application/x-amz-json-1.0",
    "x-amz-target": "PinpointSMSVoiceV2.SendTextMessage",
}
CALL = {**TEXT, "x-amz-target": "PinpointSMSVoiceV2.SendVoiceMessage"}
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
BODY: Mapping[str, object] = {
    "DestinationPhoneNumber": "+33600000000",
    "MessageBody": "123456 is your code",
    "MessageType": "TRANSACTIONAL",
    "TimeToLive": 120,
    "Context": {"attempt": "0193-a1"},
    "ConfigurationSetName": "otp",
}
CALLED = {
    **{name: value for name, value in BODY.items() if name != "MessageType"},
    "MessageBody": "1, 2, 3, 4, 5, 6 is your code. 1, 2, 3, 4, 5, 6 is your code",
    "MessageBodyTextType": "TEXT",
    "VoiceId": "JOANNA",
    "OriginationIdentity": "+12065550152",
}
DAY = 86_400.0
TEMPORARY, ACCOUNT, PERMANENT = RefusalKind.TEMPORARY, RefusalKind.ACCOUNT, RefusalKind.PERMANENT

DELIVERED = Receipt(
    word="TEXT_DELIVERED",
    state=State.DELIVERED,
    reference="9539975a-e71f-45f3-b496-8d98dc098a77",
    attempt_id="0193-a1",
    recipient="+14255550156",
    provider_time="1729099299998",
    cost="0.00581 USD",
)
SUCCESSFUL = replace(
    DELIVERED, word="TEXT_SUCCESSFUL", state=State.ACK, provider_time="1729099224788"
)
NO_ID: Sequence[object] = (b"", b"<html>OK</html>", b'{"MessageId":', [], {}, {"MessageId": 7})


def event(**changes: object) -> dict[str, object]:
    fields = {**orjson.loads(data("aws/text_delivered.json")), **changes}
    return {name: value for name, value in fields.items() if value is not ...}


def failure(kind: str, reason: str = "", **more: object) -> dict[str, object]:
    """An error as End User Messaging words it."""
    narrower = {"Reason": reason} if reason else {}
    named = {"__type": f"com.amazonaws.pinpointsmsvoicev2#{kind}Exception"}
    return {**named, **narrower, "Message": "No.", **more}


def said(kind: str, reason: str = "") -> str:
    return ": ".join(part for part in (kind, reason, "No.") if part)


ERRORS = [
    ("Conflict", "DESTINATION_PHONE_NUMBER_OPTED_OUT", "opted_out", PERMANENT, DAY),
    (
        "Conflict",
        "DESTINATION_PHONE_NUMBER_BLOCKED_BY_PROTECT_NUMBER_OVERRIDE",
        "blocked",
        PERMANENT,
        DAY,
    ),
    (
        "Conflict",
        "DESTINATION_COUNTRY_BLOCKED_BY_PROTECT_CONFIGURATION",
        "country_protected",
        PERMANENT,
        None,
    ),
    ("Conflict", "DESTINATION_PHONE_NUMBER_NOT_VERIFIED", "account_in_sandbox", ACCOUNT, None),
    ("Conflict", "RESOURCE_NOT_ACTIVE", "bad_request", ACCOUNT, None),
    ("Conflict", "", "bad_request", ACCOUNT, None),
    ("Validation", "DESTINATION_COUNTRY_BLOCKED", "country_blocked", TEMPORARY, None),
    ("Validation", "COUNTRY_NOT_ENABLED", "country_blocked", TEMPORARY, None),
    ("Validation", "INTERNATIONAL_SENDING_NOT_SUPPORTED", "country_blocked", TEMPORARY, None),
    ("Validation", "INVALID_IDENTITY_FOR_DESTINATION_COUNTRY", "bad_sender", TEMPORARY, None),
    ("Validation", "SENDER_ID_NOT_SUPPORTED", "bad_sender", TEMPORARY, None),
    ("Validation", "SENDER_ID_NOT_REGISTERED", "bad_sender", TEMPORARY, None),
    ("Validation", "SENDER_ID_REQUIRES_REGISTRATION", "bad_sender", TEMPORARY, None),
    ("Validation", "PRICE_OVER_THRESHOLD", "too_expensive", TEMPORARY, None),
    ("Validation", "MAXIMUM_SIZE_EXCEEDED", "text_too_long", PERMANENT, None),
    ("Validation", "INVALID_PARAMETER", "bad_request", ACCOUNT, None),
    ("Validation", "", "bad_request", ACCOUNT, None),
    ("ServiceQuotaExceeded", "MONTHLY_SPEND_LIMIT_REACHED_FOR_TEXT", "no_credit", ACCOUNT, None),
    ("ServiceQuotaExceeded", "MONTHLY_SPEND_LIMIT_REACHED_FOR_VOICE", "no_credit", ACCOUNT, None),
    ("ServiceQuotaExceeded", "MONTHLY_SPEND_LIMIT_REACHED_FOR_RCS", "no_credit", ACCOUNT, None),
    ("ServiceQuotaExceeded", "DAILY_DESTINATION_CALL_LIMIT", "limit_reached", TEMPORARY, None),
    ("ServiceQuotaExceeded", "SOMETHING_NEW", "limit_reached", ACCOUNT, None),
    ("AccessDenied", "INSUFFICIENT_ACCOUNT_REPUTATION", "account_blocked", ACCOUNT, None),
    ("AccessDenied", "ACCOUNT_DISABLED", "account_blocked", ACCOUNT, None),
    ("AccessDenied", "", "unauthorized", ACCOUNT, None),
    ("ResourceNotFound", "", "bad_request", ACCOUNT, None),
    ("ExpiredToken", "", "unauthorized", ACCOUNT, None),
    ("IncompleteSignature", "", "unauthorized", ACCOUNT, None),
    ("InvalidClientTokenId", "", "unauthorized", ACCOUNT, None),
    ("InvalidSignature", "", "unauthorized", ACCOUNT, None),
    ("MissingAuthenticationToken", "", "unauthorized", ACCOUNT, None),
    ("NotAuthorized", "", "unauthorized", ACCOUNT, None),
    ("OptInRequired", "", "unauthorized", ACCOUNT, None),
    ("RequestExpired", "", "unauthorized", ACCOUNT, None),
    ("UnrecognizedClient", "", "unauthorized", ACCOUNT, None),
    ("SomethingNew", "", "rejected", PERMANENT, None),
]

WORDS = [
    ("TEXT_QUEUED", State.SENT, None, False),
    ("TEXT_PENDING", State.SENT, None, False),
    ("TEXT_SENT", None, None, False),
    ("TEXT_SUCCESSFUL", State.ACK, None, False),
    ("TEXT_UNREACHABLE", State.FAILED, "unreachable", False),
    ("TEXT_CARRIER_UNREACHABLE", State.FAILED, "carrier_unreachable", False),
    ("TEXT_TTL_EXPIRED", State.FAILED, "expired", False),
    ("TEXT_UNKNOWN", State.FAILED, "not_delivered", False),
    ("TEXT_INVALID", State.FAILED, "bad_destination", True),
    ("TEXT_INVALID_MESSAGE", State.FAILED, "bad_text", True),
    ("TEXT_BLOCKED", State.FAILED, "blocked", True),
    ("TEXT_CARRIER_BLOCKED", State.FAILED, "carrier_blocked", True),
    ("TEXT_SPAM", State.FAILED, "spam", True),
    ("TEXT_PROTECT_BLOCKED", State.FAILED, "protected", True),
    ("RCS_QUEUED", State.SENT, None, False),
    ("RCS_SENT", State.ACK, None, False),
    ("RCS_DELIVERED", State.DELIVERED, None, False),
    ("RCS_READ", State.READ, None, False),
    ("RCS_FAILED", State.FAILED, "not_delivered", False),
    ("RCS_TTL_EXPIRED", State.FAILED, "expired", False),
    ("RCS_PROTECT_BLOCKED", State.FAILED, "protected", True),
    ("RCS_FALLEN_BACK_TO_SMS", None, None, False),
    ("VOICE_INITIATED", State.SENT, None, False),
    ("VOICE_RINGING", State.ACK, None, False),
    ("VOICE_ANSWERED", State.ACK, None, False),
    ("VOICE_COMPLETED", State.DELIVERED, None, False),
    ("VOICE_BUSY", State.FAILED, "busy", False),
    ("VOICE_NO_ANSWER", State.FAILED, "no_answer", False),
    ("VOICE_TTL_EXPIRED", State.FAILED, "expired", False),
    ("VOICE_FAILED", State.FAILED, "not_delivered", False),
    ("text_delivered", None, None, False),
    ("MEDIA_DELIVERED", None, None, False),
    ("TEXT_ALL", None, None, False),
]


def taught(provider: Provider, callback: Callback, pem: bytes = PEM) -> Any:
    """The provider once it has asked for what it needs to judge the callback."""
    assert isinstance(provider, Asks)
    if provider.build_question(callback) is not None:
        provider.learn(callback, Response(200, content=pem))
    return provider


class TestAws(ProviderCases):
    provider = "aws"
    secrets_field = "callback_key"
    statuses = Aws.statuses
    unpromised = frozenset({State.READ})  # of RCS agents alone
    fetches_token = True
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "sms",
        "region": "eu-west-3",
        "access_key_id": "AKIDEXAMPLE",
        "secret_access_key": Secret("the-secret-access-key"),
        "session_token": Secret("the-session-token"),
        "configuration_set": "otp",
        "topic_arn": TOPIC,
    }

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(label="plain", url=API, headers=TEXT, body=BODY),
        SendCase(
            label="with a sender",
            url=API,
            headers=TEXT,
            change={"sender": "ACME"},
            body={**BODY, "OriginationIdentity": "ACME"},
        ),
        *(
            SendCase(
                label=f"valid for {validity} s",
                url=API,
                headers=TEXT,
                change={"validity": validity},
                body={**BODY, "TimeToLive": seconds},
            )
            for validity, seconds in ((1, 5), (5, 5), (300, 300), (999_999, 259_200))
        ),
        SendCase(
            label="with everything",
            url=API,
            headers=TEXT,
            settings={"protect_configuration": "protect-1", "max_price": "0.50"},
            body={**BODY, "ProtectConfigurationId": "protect-1", "MaxPrice": "0.50"},
        ),
        SendCase(
            label="without events",
            url=API,
            headers=TEXT,
            settings={"configuration_set": None},
            body={name: value for name, value in BODY.items() if name != "ConfigurationSetName"},
        ),
        SendCase(
            label="in another region",
            url="https://sms-voice.us-gov-west-1.amazonaws.com/",
            headers=TEXT,
            settings={"region": "us-gov-west-1"},
            body=BODY,
        ),
        SendCase(
            label="elsewhere",
            url="http://127.0.0.1:8081/aws/sms-voice/",
            headers=TEXT,
            settings={"base_url": "http://127.0.0.1:8081/aws/sms-voice"},
            body=BODY,
        ),
        SendCase(
            label="call",
            url=API,
            headers=CALL,
            settings={"channel": "voice", "sender": "+12065550152"},
            change={"sender": "+12065550152"},
            body=CALLED,
        ),
        SendCase(
            label="call in French, no more than so much a minute",
            url=API,
            headers=CALL,
            settings={"channel": "voice", "sender": "+12065550152", "max_price": ".1"},
            change={"sender": "+12065550152", "locale": "fr_BE"},
            body={**CALLED, "VoiceId": "CELINE", "MaxPricePerMinute": ".1"},
        ),
        SendCase(
            label="call by one voice",
            url=API,
            headers=CALL,
            settings={"channel": "voice", "sender": "+12065550152", "voice": "BRIAN"},
            change={"sender": "+12065550152", "locale": "fr"},
            body={**CALLED, "VoiceId": "BRIAN"},
        ),
    ]

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=200,
            body={"MessageId": "9539975a-e71f-45f3-b496-8d98dc098a77"},
            expected=Accepted("9539975a-e71f-45f3-b496-8d98dc098a77"),
        ),
        *(
            ResponseCase(
                label=f"200 without an id: {body!r}",
                status=200,
                body=body,
                expected=Unknown("no_message_id", "HTTP 200"),
            )
            for body in NO_ID
        ),
        *(
            ResponseCase(
                label=f"{kind} {reason}",
                status=400,
                body=failure(kind, reason),
                expected=Refused(ours, how, error=said(kind, reason), avoid=avoid),
            )
            for kind, reason, ours, how, avoid in ERRORS
        ),
        *(
            ResponseCase(
                label=f"wrong field: {fields!r}",
                status=400,
                body=failure("Validation", "FIELD_VALIDATION_FAILED", Fields=fields),
                expected=Refused(
                    ours, how, error=said("Validation", "FIELD_VALIDATION_FAILED"), avoid=avoid
                ),
            )
            for fields, ours, how, avoid in (
                ([{"Name": "DestinationPhoneNumber"}], "bad_destination", PERMANENT, DAY),
                ([{"Name": "MessageBody", "Message": "No"}], "bad_text", PERMANENT, None),
                ([{"Name": "OriginationIdentity"}], "bad_request", ACCOUNT, None),
                ([7, {"Name": 7}, {}], "bad_request", ACCOUNT, None),
                ({"Name": "DestinationPhoneNumber"}, "bad_request", ACCOUNT, None),
                (None, "bad_request", ACCOUNT, None),
            )
        ),
        ResponseCase(
            label="named in a header",
            status=400,
            body={"message": "No."},
            headers={"x-amzn-ErrorType": "ConflictException:http://internal.amazon.com/coral/"},
            expected=Refused("bad_request", ACCOUNT, error=said("Conflict")),
        ),
        ResponseCase(
            label="named without a name space",
            status=403,
            body={"__type": "UnrecognizedClientException", "message": "No."},
            expected=Refused("unauthorized", ACCOUNT, error=said("UnrecognizedClient")),
        ),
        ResponseCase(
            label="number echoed",
            status=400,
            body=failure("SomethingNew", Message="+33600000000 is\nno good"),
            expected=Refused("rejected", PERMANENT, error="SomethingNew: +… is no good"),
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
                label=f"{status} and no more",
                status=status,
                body=body,
                expected=Refused("rejected", PERMANENT, error=f"HTTP {status}"),
            )
            for status, body in ((400, b""), (404, b"<html>"), (413, []), (400, {"__type": 7}))
        ),
        *(
            ResponseCase(
                label=f"too fast: {kind}, {pause!r}",
                status=status,
                body=failure(kind),
                headers={} if pause is None else {"Retry-After": pause},
                expected=Refused("throttled", RefusalKind.THROTTLED, seconds, said(kind)),
            )
            for status, kind, pause, seconds in (
                (400, "Throttling", None, None),
                (400, "Throttling", "7", 7.0),
                (429, "Throttling", "soon", None),
                (429, "Conflict", None, None),
                (400, "TooManyRequests", None, None),
            )
        ),
        *(
            ResponseCase(
                label=f"{status} {body!r}",
                status=status,
                body=body,
                expected=Unknown(reason, error),
            )
            for status, body, reason, error in (
                (500, failure("InternalServer"), "server_error", said("InternalServer")),
                (503, failure("Throttling"), "server_error", said("Throttling")),
                (503, b"", "server_error", "HTTP 503"),
                (202, {"MessageId": "m"}, "odd_answer", "HTTP 202"),
                (302, b"", "odd_answer", "HTTP 302"),
            )
        ),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(label="delivered", body=data("aws/text_delivered.json"), expected=[DELIVERED]),
        ReceiptCase(label="sent", body=data("aws/text_successful.json"), expected=[SUCCESSFUL]),
        ReceiptCase(
            label="a call",
            body=data("aws/voice_completed.json"),
            expected=[replace(DELIVERED, word="VOICE_COMPLETED", reference="v-1", cost=None)],
        ),
        *(
            ReceiptCase(
                label=word,
                body=event(eventType=word),
                expected=[
                    replace(
                        DELIVERED,
                        word=word,
                        state=state,
                        reason=reason,
                        permanent=permanent,
                        avoid=DAY if reason in ("bad_destination", "blocked") else None,
                    )
                ],
            )
            for word, state, reason, permanent in WORDS
        ),
        *(
            ReceiptCase(
                label=f"context: {context!r}",
                body=event(context=context),
                expected=[replace(DELIVERED, attempt_id=named)],
            )
            for context, named in (
                (..., None),
                (None, None),
                ([], None),
                ({"account": "bar"}, None),
                ({"attempt": 7}, None),
                ({"attempt": "x" * 256}, None),
                ({"attempt": "0193-b2", "more": "x"}, "0193-b2"),
            )
        ),
        *(
            ReceiptCase(
                label=f"price: {price!r}",
                body=event(totalMessagePrice=price),
                expected=[replace(DELIVERED, cost=cost)],
            )
            for price, cost in (
                (..., None),
                (None, None),
                (0, None),
                (0.0, None),
                (0.00005, "0.00005 USD"),
                (1, "1 USD"),
                (-1, None),
                (1e308, None),
                (True, None),
                ("0.1", None),
            )
        ),
        *(
            ReceiptCase(
                label=f"time: {at!r}",
                body=event(eventTimestamp=at),
                expected=[replace(DELIVERED, provider_time=None)],
            )
            for at in (..., None, "now", 1.5, True)
        ),
        *(
            ReceiptCase(
                label=f"number: {number!r}",
                body=event(destinationPhoneNumber=number),
                expected=[replace(DELIVERED, recipient=None)],
            )
            for number in (..., None, 14255550156)
        ),
        *(
            ReceiptCase(label=f"no event: {body!r}", body=body, expected=[Malformed(why, b"")])
            for body, why in (
                (b"", "messageId is missing or unusable"),
                (b"hello", "messageId is missing or unusable"),
                ([event()], "messageId is missing or unusable"),
                ({}, "messageId is missing or unusable"),
                (event(messageId=...), "messageId is missing or unusable"),
                (event(eventType=...), "eventType is missing or unusable"),
                (event(eventType=["TEXT_DELIVERED"]), "eventType is missing or unusable"),
                (event(eventType="x" * 256), "eventType is missing or unusable"),
            )
        ),
        ReceiptCase(label="a reply", body=data("aws/inbound.json"), expected=[]),
    ]

    def make(self, *secrets: Secret, **changes: Any) -> Provider:
        """One that has fetched the certificate, which it does at the first callback."""
        provider = super().make(*secrets, **changes)
        return taught(provider, self.genuine(secrets[0])) if secrets else provider

    def sign(self, callback: Callback, secret: str) -> Callback:
        message = callback.body.decode(errors="replace")
        return replace(callback, key=secret, body=signed(message, callback.received_at))

    def receipt(self, word: str) -> bytes:
        return orjson.dumps(event(messageId="m_1", eventType=word))

    def refusal(self, message: str) -> bytes:
        return orjson.dumps(failure("Validation", Message=message))

    def may_accept(self, status: int, answer: object) -> bool:
        return status == 200 and isinstance(answer, dict) and "MessageId" in answer

    def signature_header(self) -> str:
        return "x-amz-sns-message-id"  # the signature is in the body; the key is what is searched

    def stale(self, secret: str) -> Callback:
        return replace(self.genuine(secret), received_at=NOW + timedelta(hours=2))

    def forgeries(self, provider: Provider) -> Iterator[tuple[str, Callback]]:
        """The signature stands in the body, beside what it covers; the key in the URL."""
        good = self.genuine(SECRET)
        yield "nothing at all", CALLBACK
        yield "no key", replace(good, key=None)
        yield "other key", self.genuine(OTHER_SECRET)
        yield "other method", replace(good, method="GET")
        yield "not signed", replace(good, body=self.receipt("TEXT_DELIVERED"))
        yield "body altered", replace(good, body=good.body.replace(b"m_1", b"m_2"))
        yield "body empty", replace(good, body=b"")
        yield "other signer", replace(good, body=signed("{}", NOW, signer=OTHER_SIGNER))
        yield "other topic", replace(good, body=signed("{}", NOW, TopicArn=TOPIC + "2"))
        yield "stale", self.stale(SECRET)

    def test_without_a_secret_nobody_gets_in(self) -> None:
        """What proves a callback is the topic; the key is a second lock."""
        provider = self.make(topic_arn=None)
        good = self.genuine(SECRET)

        assert isinstance(provider, Asks)
        assert provider.build_question(good) is None
        assert not provider.authenticate(good)
        assert not any(provider.authenticate(other) for _, other in self.forgeries(provider))
        assert frozenset() == provider.confirms


def aws(**changes: Any) -> Aws:
    fields = {"name": "route", "account": "account", **TestAws.settings, **changes}
    return Aws(Aws.Settings(**fields), now=lambda: NOW)


def sns(**changes: Any) -> Aws:
    return aws(api="sns", **changes)


def notified(body: object, **changes: Any) -> Callback:
    return replace(CALLBACK, body=signed(encoded(body).decode(), NOW), **changes)


# Who posts: the certificate, the subscription, raw delivery.


def test_without_a_key_the_signature_is_proof_enough() -> None:
    callback = notified(event())

    assert taught(aws(), callback).authenticate(callback)
    assert not taught(aws(), callback, OTHER_SIGNER.pem).authenticate(callback)


def test_it_asks_once_for_a_certificate() -> None:
    provider, callback = aws(callback_key=(SECRET,)), notified(event(), key=str(SECRET))
    question = provider.build_question(callback)

    assert isinstance(provider, Asks)
    assert question is not None
    assert ("GET", URL) == (question.method, str(question.url))
    assert not provider.authenticate(callback)
    provider.learn(callback, Response(200, content=PEM))
    assert provider.authenticate(callback)
    assert provider.build_question(callback) is None


@pytest.mark.parametrize(
    "change",
    [
        {"key": None},
        {"key": "another"},
        {"method": "GET"},
        {"body": b""},
        {"body": signed("{}", NOW, TopicArn=TOPIC + "2")},
        {"body": signed("{}", NOW, SigningCertURL="https://evil.example/x.pem")},
        {"body": signed("{}", NOW - timedelta(hours=2))},
    ],
)
def test_a_callback_that_is_not_worth_it_causes_no_question(change: Mapping[str, Any]) -> None:
    provider, callback = aws(callback_key=(SECRET,)), notified(event(), key=str(SECRET))
    other = replace(callback, **change)

    assert provider.build_question(other) is None
    provider.learn(other, Response(200, content=PEM))
    assert provider.build_question(callback) is not None


@pytest.mark.parametrize(
    "answer",
    [Response(404, content=PEM), Response(500), Response(302), Response(200, content=b"<html>")],
)
def test_only_a_certificate_is_learnt(answer: Response) -> None:
    provider, callback = aws(), notified(event())
    provider.learn(callback, answer)

    assert provider.build_question(callback) is not None
    assert not provider.authenticate(callback)


def test_version_1_can_be_refused() -> None:
    at = datetime(2025, 1, 1, 14, 0, 5, tzinfo=UTC)
    first, second = (
        replace(CALLBACK, body=data(f"aws/notification_v{version}.json"), received_at=at)
        for version in "12"
    )
    pem = data("aws/sns_certificate.pem")
    theirs = TOPIC.replace("210987654321", "123456789012")
    strict = taught(aws(topic_arn=theirs, sha256_only=True), second, pem)
    lenient = taught(aws(topic_arn=theirs), first, pem)

    assert (False, True) == (strict.authenticate(first), strict.authenticate(second))
    assert (True, True) == (lenient.authenticate(first), lenient.authenticate(second))
    assert ["TEXT_DELIVERED"] == [receipt.word for receipt in lenient.receipts(first)]


def test_a_subscription_is_confirmed() -> None:
    provider = aws()
    callback = replace(CALLBACK, body=confirmation(NOW))
    request = provider.build_confirmation(callback)

    assert isinstance(provider, Confirms)
    assert taught(provider, callback).authenticate(callback)
    assert request is not None
    assert ("GET", "/", "sns.us-east-1.amazonaws.com", "https") == (
        request.method,
        request.url.path,
        request.url.host,
        request.url.scheme,
    )
    assert {"Action": "ConfirmSubscription", "TopicArn": TOPIC, "Token": "abc"} == dict(
        request.url.params
    )
    assert [] == provider.receipts(callback)


@pytest.mark.parametrize(
    "body",
    [
        signed("{}", NOW),
        b"",
        confirmation(NOW, Type="UnsubscribeConfirmation"),
        confirmation(NOW, SubscribeURL="https://evil.example/?Action=ConfirmSubscription"),
    ],
)
def test_nothing_else_is_confirmed(body: bytes) -> None:
    assert aws().build_confirmation(replace(CALLBACK, body=body)) is None
    assert aws(topic_arn=None).build_confirmation(replace(CALLBACK, body=body)) is None


def test_the_end_of_a_subscription_says_nothing() -> None:
    callback = replace(CALLBACK, body=confirmation(NOW, Type="UnsubscribeConfirmation"))

    assert taught(aws(), callback).authenticate(callback)
    assert [] == aws().receipts(callback)


@pytest.mark.parametrize(
    ("change", "genuine"),
    [
        ({}, True),
        ({"key": "another"}, False),
        ({"key": None}, False),
        ({"headers": {}}, False),
        ({"headers": {"x-amz-sns-topic-arn": TOPIC + "2"}}, False),
        ({"method": "GET"}, False),
    ],
)
def test_raw_delivery_is_proven_by_the_key(change: Mapping[str, Any], genuine: bool) -> None:
    provider = aws(raw_delivery=True, callback_key=(SECRET,))
    headers = {"x-amz-sns-topic-arn": TOPIC, "x-amz-sns-rawdelivery": "true"}
    callback = replace(CALLBACK, key=str(SECRET), headers=headers, body=orjson.dumps(event()))

    assert not provider.signed
    assert genuine == provider.authenticate(replace(callback, **change))
    assert [DELIVERED] == [replace(one, raw=b"") for one in provider.receipts(callback)]


def test_without_the_setting_raw_delivery_is_refused() -> None:
    headers = {"x-amz-sns-topic-arn": TOPIC, "x-amz-sns-rawdelivery": "true"}
    callback = replace(CALLBACK, key=str(SECRET), headers=headers, body=orjson.dumps(event()))

    assert aws(callback_key=(SECRET,)).signed
    assert not aws(callback_key=(SECRET,)).authenticate(callback)


def test_a_raw_event_must_name_its_number() -> None:
    """It is unsigned, and the number is compared."""
    provider = aws(raw_delivery=True, callback_key=(SECRET,))
    body = orjson.dumps(event(destinationPhoneNumber=...))

    assert [Malformed("destinationPhoneNumber is missing or unusable", body)] == provider.receipts(
        replace(CALLBACK, body=body)
    )


def test_with_raw_delivery_the_subscription_is_signed_all_the_same() -> None:
    provider = aws(raw_delivery=True, callback_key=(SECRET,))
    callback = replace(CALLBACK, key=str(SECRET), body=confirmation(NOW))

    assert taught(provider, callback).authenticate(callback)
    forged = replace(callback, body=confirmation(NOW, signer=OTHER_SIGNER))
    assert not provider.authenticate(forged)


# What events mean.


@pytest.mark.parametrize(
    ("countries", "changes", "state"),
    [
        ("", {}, State.ACK),
        ("US", {}, State.DELIVERED),
        ("FR, US", {}, State.DELIVERED),
        ("FR,US", {}, State.DELIVERED),
        ("FR", {}, State.ACK),
        ("US", {"isFinal": False}, State.ACK),
        ("US", {"isFinal": "true"}, State.ACK),
        ("US", {"isoCountryCode": ...}, State.ACK),
        ("US", {"isoCountryCode": ["US"]}, State.ACK),
        ("US", {"eventType": "TEXT_PENDING"}, State.SENT),
    ],
)
def test_where_successful_is_all_that_comes_it_counts(
    countries: str, changes: Mapping[str, object], state: State
) -> None:
    body = event(**{"eventType": "TEXT_SUCCESSFUL", **changes})
    (receipt,) = aws(successful_is_delivered=countries).receipts(notified(body))

    assert isinstance(receipt, Receipt)
    assert state == receipt.state


def test_numbers_need_not_be_avoided() -> None:
    provider = aws(avoid=0.0)
    (receipt,) = provider.receipts(notified(event(eventType="TEXT_BLOCKED")))
    refused = provider.parse(
        Response(
            400, content=orjson.dumps(failure("Conflict", "DESTINATION_PHONE_NUMBER_OPTED_OUT"))
        )
    )

    assert isinstance(receipt, Receipt)
    assert receipt.avoid is None
    assert isinstance(refused, Refused)
    assert refused.avoid is None


def test_only_the_event_is_kept_of_an_envelope() -> None:
    (receipt,) = aws().receipts(notified(event()))

    assert orjson.dumps(event()) == receipt.raw


def test_an_event_says_the_same_on_either_channel() -> None:
    call = aws(channel="voice", sender="+12065550152")

    assert aws().receipts(notified(event())) == call.receipts(notified(event()))
    assert aws().confirms == call.confirms


@pytest.mark.parametrize("missing", ["configuration_set", "topic_arn"])
def test_it_promises_nothing_where_no_event_can_come(missing: str) -> None:
    assert aws().confirms
    assert frozenset() == aws(**{missing: None}).confirms


# Requests: signed, and as the vendor's own client would make them.


def signing(provider: Aws) -> Request:
    request = provider.build(OUTGOING)
    auth = provider.auth()
    assert auth is not None
    (made,) = auth.sync_auth_flow(request)
    assert made is request
    return request


def test_a_request_is_signed_as_it_leaves() -> None:
    times = iter([NOW, NOW + timedelta(minutes=1)])
    settings = Aws.Settings(name="route", account="account", **TestAws.settings)
    provider = Aws(settings, now=lambda: next(times))
    first, second = signing(provider), signing(provider)
    scope = "20261121/eu-west-3/sms-voice/aws4_request"

    assert "20261121T100010Z" == first.headers["x-amz-date"]
    assert "20261121T100110Z" == second.headers["x-amz-date"]
    assert "the-session-token" == first.headers["x-amz-security-token"]
    assert first.headers["authorization"].startswith(
        f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, SignedHeaders="
        "content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature="
    )
    assert first.headers["authorization"] != second.headers["authorization"]


def test_without_a_session_token_none_is_sent() -> None:
    assert "x-amz-security-token" not in signing(aws(session_token=Secret(""))).headers


def test_its_clock_comes_from_the_wiring() -> None:
    provider = Aws(Aws.Settings(name="route", account="account", **TestAws.settings))

    assert isinstance(provider, Timed)
    with pytest.raises(LookupError):
        signing(provider)
    provider.now = lambda: NOW
    assert signing(provider).headers["x-amz-date"] == f"{NOW:%Y%m%dT%H%M%SZ}"


MODELS = {
    "sms-voice-v2": ServiceModel(Loader().load_service_model("pinpoint-sms-voice-v2", "service-2")),
    "sns": ServiceModel(Loader().load_service_model("sns", "service-2")),
}


@pytest.mark.parametrize("case", TestAws.sends, ids=lambda case: case.label)
def test_the_vendors_model_knows_these_requests(case: SendCase) -> None:
    request = aws(**case.settings).build(replace(OUTGOING, **case.change))
    target, _, name = request.headers["x-amz-target"].partition(".")
    model = MODELS["sms-voice-v2"]
    operation = model.operation_model(name)
    body = orjson.loads(request.content)
    report = ParamValidator().validate(body, operation.input_shape)
    theirs = create_serializer("json").serialize_to_request(body, operation)

    assert not report.has_errors(), report.generate_report()
    assert model.metadata["targetPrefix"] == target
    assert body == orjson.loads(theirs["body"])
    assert {name: request.headers[name] for name in theirs["headers"]} == theirs["headers"]


@pytest.mark.parametrize("voice_id", [*map(voice, ("en", "fr-CA", "pt_BR", "xx", "zh")), "JOANNA"])
def test_the_vendor_has_these_voices(voice_id: str) -> None:
    shape = MODELS["sms-voice-v2"].shape_for("VoiceId")

    assert voice_id in shape.enum


def test_every_word_and_reason_is_the_vendors() -> None:
    model = MODELS["sms-voice-v2"]
    words = {word for word in model.shape_for("EventType").enum if not word.endswith("_ALL")}
    reasons = {
        reason
        for kind in ("AccessDenied", "Conflict", "ServiceQuotaExceeded", "Validation")
        for reason in model.shape_for(f"{kind}ExceptionReason").enum
    }

    assert {word for word in words if not word.startswith(("MEDIA_", "ALL"))} == set(Aws.statuses)
    assert {code for code in Aws.errors if code.isupper()} <= reasons


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-3", "us-gov-west-1"])
@pytest.mark.parametrize(
    ("api", "name"), [("sms-voice-v2", "pinpoint-sms-voice-v2"), ("sns", "sns")]
)
def test_the_host_is_the_one_botocore_knows(region: str, api: str, name: str) -> None:
    client = botocore.session.Session().create_client(
        name, region_name=region, aws_access_key_id="a", aws_secret_access_key="b"
    )

    assert f"{client.meta.endpoint_url}/" == str(aws(region=region, api=api).build(OUTGOING).url)


# Calls.


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("123 it is.", "123", "1, 2, 3 it is. 1, 2, 3 it is."),
        ("A1 it is", "A1", "A, 1 it is. A, 1 it is"),
        ("No code here.", "123", "No code here. No code here."),
        ("No code", "", "No code. No code"),
        ("x" * 2000, "123", "x" * 2000),
    ],
)
def test_a_code_is_spelled_and_said_twice(text: str, code: str, expected: str) -> None:
    assert expected == spoken(text, code)


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("en", "JOANNA"),
        ("en-GB", "AMY"),
        ("fr_CA", "CHANTAL"),
        ("fr-BE", "CELINE"),
        ("xx", "JOANNA"),
    ],
)
def test_each_language_has_its_voice(locale: str, expected: str) -> None:
    assert expected == voice(locale)


# SNS: no receipts, another protocol.

SNS_URL = "https://sns.eu-west-3.amazonaws.com/"


@pytest.mark.parametrize(
    ("settings", "sender", "attributes"),
    [
        ({}, None, []),
        ({}, "ACME", [("AWS.SNS.SMS.SenderID", "String", "ACME")]),
        ({}, "+12065550152", [("AWS.MM.SMS.OriginationNumber", "String", "+12065550152")]),
        ({"max_price": "0.50"}, None, [("AWS.SNS.SMS.MaxPrice", "Number", "0.50")]),
    ],
)
def test_a_publish_is_the_form_botocore_makes(
    settings: Mapping[str, Any], sender: str | None, attributes: Sequence[tuple[str, str, str]]
) -> None:
    kinds = [("AWS.SNS.SMS.SMSType", "String", "Transactional"), *attributes]
    asked = {
        "PhoneNumber": "+33600000000",
        "Message": "123456 is your code",
        "MessageAttributes": {
            name: {"DataType": kind, "StringValue": value} for name, kind, value in kinds
        },
    }
    operation = MODELS["sns"].operation_model("Publish")
    theirs = create_serializer("query").serialize_to_request(asked, operation)
    request = sns(**settings).build(replace(OUTGOING, sender=sender))
    found = TestAws().content(request)

    assert SNS_URL == str(request.url)
    assert theirs["body"] == found
    assert FORM == {name: request.headers[name] for name in ("content-type",)}
    assert "x-amz-target" not in request.headers


def test_the_form_is_the_one_of_the_vector() -> None:
    request = sns(max_price="0.50").build(
        replace(OUTGOING, recipient="+14255550156", text="Your code is 123456", sender="ACME")
    )

    assert 543 == len(request.content)
    assert request.content.startswith(
        b"Action=Publish&Version=2010-03-31&PhoneNumber=%2B14255550156&Message=Your+code+is+123456&"
    )
    assert "/eu-west-3/sns/aws4_request" in signing(sns()).headers["authorization"]


def xml(code: str, message: str = "No.") -> bytes:
    return (
        '<ErrorResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><Error>'
        f"<Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        "<RequestId>1</RequestId></ErrorResponse>"
    ).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, data("aws/publish_response.xml"), Accepted("94f20ce6-13c5-43a0-9a9e-ca52d816e90b")),
        (200, b"", Unknown("no_message_id", "HTTP 200")),
        (200, b"<MessageId>x</MessageId>", Unknown("no_message_id", "HTTP 200")),
        (200, b"<PublishResult><MessageId></MessageId>", Unknown("no_message_id", "HTTP 200")),
        (200, b"\xff", Unknown("no_message_id", "HTTP 200")),
        (202, data("aws/publish_response.xml"), Unknown("odd_answer", "HTTP 202")),
        (500, data("aws/publish_response.xml"), Unknown("server_error", "HTTP 500")),
        (500, xml("InternalError"), Unknown("server_error", "InternalError: No.")),
        (
            400,
            data("aws/publish_error.xml"),
            Refused(
                "rejected",
                PERMANENT,
                error="InvalidParameter: Invalid parameter: PhoneNumber Reason: +… is not valid "
                "& not reachable",
            ),
        ),
        (400, xml("ParameterValueInvalid"), Refused("rejected", PERMANENT, error="…")),
        (400, xml("OptedOut"), Refused("opted_out", PERMANENT, error="…", avoid=DAY)),
        (400, xml("Throttling"), Refused("throttled", RefusalKind.THROTTLED, error="…")),
        (400, xml("ThrottlingException"), Refused("throttled", RefusalKind.THROTTLED, error="…")),
        (429, xml("Throttled"), Refused("throttled", RefusalKind.THROTTLED, error="…")),
        (403, xml("AuthorizationError"), Refused("unauthorized", ACCOUNT, error="…")),
        (403, xml("InvalidClientTokenId"), Refused("unauthorized", ACCOUNT, error="…")),
        (403, xml("SignatureDoesNotMatch"), Refused("unauthorized", ACCOUNT, error="…")),
        (403, xml("InvalidSecurity"), Refused("unauthorized", ACCOUNT, error="…")),
        (403, b"", Refused("unauthorized", ACCOUNT, error="HTTP 403")),
        (400, xml("ValidationException"), Refused("bad_request", ACCOUNT, error="…")),
        (404, b"<html>", Refused("rejected", PERMANENT, error="HTTP 404")),
    ],
)
def test_an_answer_of_sns_means_this(status: int, body: bytes, expected: Outcome) -> None:
    outcome = sns().parse(Response(status, content=body))
    if isinstance(expected, Refused) and expected.error == "…":
        assert isinstance(outcome, Refused)
        outcome = replace(outcome, error="…")

    assert expected == outcome


def test_no_answer_of_sns_makes_it_stumble() -> None:
    provider = sns()

    @SEARCH
    @given(status=st.integers(100, 699), body=st.binary() | st.text().map(str.encode))
    def search(status: int, body: bytes) -> None:
        wrapped = b"<PublishResult><MessageId>" + body + b"</MessageId></PublishResult>"
        for content in (body, wrapped, xml("x") + body):
            outcome = provider.parse(Response(status, content=content))

            assert not isinstance(outcome, Accepted) or status == 200

    search()


def test_sns_confirms_nothing_and_lets_nobody_in() -> None:
    provider, callback = sns(), notified(event())

    assert frozenset() == provider.confirms
    assert Correlation.REFERENCE is provider.correlates
    assert not provider.validity
    assert provider.build_question(callback) is None
    provider.learn(callback, Response(200, content=PEM))
    assert not provider.authenticate(callback)
    assert provider.build_confirmation(replace(CALLBACK, body=confirmation(NOW))) is None


def test_sns_shows_no_secrets() -> None:
    secrets = ("the-secret-access-key", "the-session-token", SECRET, "+33600000000", "123456")
    provider = sns(callback_key=(SECRET,))
    answers = [
        provider.parse(Response(status, content=xml("x", " ".join(secrets))))
        for status in (200, 302, 400, 403, 429, 500)
    ]

    assert [] == [secret for secret in secrets for answer in answers if secret in repr(answer)]


# The account.


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"AccountAttributes": [{"Name": "ACCOUNT_TIER", "Value": "PRODUCTION"}]}, None),
        (200, {"AccountAttributes": []}, None),
        (200, {}, None),
        (
            200,
            {"AccountAttributes": [7, {"Name": "ACCOUNT_TIER", "Value": "SANDBOX"}]},
            "The AWS account is in the SMS sandbox: it writes to verified numbers only.",
        ),
        (
            403,
            failure("UnrecognizedClient"),
            "AWS does not tell about the account (UnrecognizedClient: No.).",
        ),
        (500, b"", "AWS does not tell about the account (HTTP 500)."),
    ],
)
def test_the_account_can_be_looked_at(status: int, body: object, expected: str | None) -> None:
    request = aws().build_check()
    operation = MODELS["sms-voice-v2"].operation_model("DescribeAccountAttributes")
    theirs = create_serializer("json").serialize_to_request({}, operation)

    assert theirs["headers"]["X-Amz-Target"] == request.headers["x-amz-target"]
    assert expected == aws().parse_check(Response(status, content=encoded(body)))


@pytest.mark.parametrize("sandboxed", [True, False])
def test_an_account_of_sns_can_be_looked_at(sandboxed: bool) -> None:
    flag = str(sandboxed).lower()
    answer = (
        "<GetSMSSandboxAccountStatusResponse><GetSMSSandboxAccountStatusResult>"
        f"<IsInSandbox>{flag}</IsInSandbox></GetSMSSandboxAccountStatusResult>"
        "</GetSMSSandboxAccountStatusResponse>"
    )
    problem = sns().parse_check(Response(200, content=answer.encode()))
    operation = MODELS["sns"].operation_model("GetSMSSandboxAccountStatus")
    theirs = create_serializer("query").serialize_to_request({}, operation)

    assert theirs["body"] == TestAws().content(sns().build_check())
    assert sandboxed == (problem is not None)


# Settings.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel": "messenger"}, "channel: aws has sms and voice, not messenger"),
        ({"timeout": -1}, "timeout"),
        ({"region": ""}, "region"),
        ({"region": "eu-west-3.evil.example/"}, "region"),
        ({"access_key_id": ""}, "access_key_id"),
        ({"access_key_id": "a b"}, "access_key_id"),
        ({"secret_access_key": Secret("")}, "secret_access_key"),
        ({"session_token": Secret("é")}, "session_token"),
        ({"api": "pinpoint"}, "api: sms-voice-v2 or sns is expected"),
        ({"base_url": ""}, "base_url"),
        ({"base_url": "https://x/?y"}, "base_url"),
        ({"configuration_set": ""}, "configuration_set"),
        ({"protect_configuration": "a b"}, "protect_configuration"),
        ({"max_price": "1"}, "max_price"),
        ({"topic_arn": "otp-events"}, "topic_arn"),
        ({"topic_arn": "arn:aws:sqs:us-east-1:123456789012:q"}, "topic_arn"),
        ({"callback_key": Secret("one")}, "callback_key"),
        ({"raw_delivery": True}, "raw_delivery"),
        ({"sns_endpoint": "http://sns.example"}, "sns_endpoint"),
        ({"sns_endpoint": "http://127.0.0.1.evil.example"}, "sns_endpoint"),
        ({"sns_endpoint": "http://localhost@evil.example"}, "sns_endpoint"),
        ({"sns_endpoint": "ftp://x"}, "sns_endpoint"),
        ({"successful_is_delivered": "us"}, "successful_is_delivered"),
        ({"successful_is_delivered": "US FR"}, "successful_is_delivered"),
        ({"voice": "joanna"}, "voice"),
        ({"avoid": -1.0}, "avoid"),
        ({"sender": "A B"}, "sender"),
        ({"sender": {"FR": ""}}, "sender"),
        ({"channel": "voice"}, "sender"),
        ({"channel": "voice", "sender": {"FR": "+33600000001"}}, "sender"),
        ({"channel": "voice", "api": "sns", "sender": "+33600000001"}, "channel: sns has no voice"),
    ],
)
def test_a_wrong_setting_is_named(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        aws(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"sns_endpoint": "http://127.0.0.1:8081/aws/sns"},
        {"sns_endpoint": "http://[::1]:8081"},
        {"sns_endpoint": "http://localhost"},
        {"sns_endpoint": "https://vpce-1.sns.eu-west-3.vpce.amazonaws.com"},
        {"sender": {"FR": "ACME", "default": "pool-1"}},
        {"sender": "arn:aws:sms-voice:eu-west-3:123456789012:pool/pool-1"},
        {"channel": "voice", "sender": {"FR": "+33600000001", "default": "+12065550152"}},
        {"callback_key": (SECRET, OTHER_SECRET), "raw_delivery": True},
    ],
)
def test_these_settings_are_fine(changes: Mapping[str, Any]) -> None:
    assert aws(**changes).sheet.callback


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"channel: .*; region: .*; avoid: "):
        aws(channel="messenger", region="", avoid=-1.0)


def test_no_key_in_the_url_makes_it_stumble() -> None:
    provider = aws(callback_key=(SECRET,))
    taught(provider, notified(event(), key=str(SECRET)))

    @SEARCH
    @given(key=st.none() | st.text(ANY_CHARACTER))
    def search(key: str | None) -> None:
        assert not provider.authenticate(notified(event(), key=key))

    search()


def test_a_signer_that_is_not_theirs_convinces_nobody() -> None:
    """Even with a certificate of its own, wherever that is kept."""
    other = Signer()
    body = signed("{}", NOW, signer=other)
    provider = aws()
    taught(provider, notified(event()))

    assert not provider.authenticate(replace(CALLBACK, body=body))
