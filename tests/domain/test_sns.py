"""Messages of SNS: whether they are believed. The vectors were made with a key of our own."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from providers.cases import data
from providers.sns import (
    OTHER_SIGNER,
    PEM,
    SUBSCRIBE_URL,
    TOPIC,
    URL,
    Signer,
    confirmation,
    signed,
)

from gateway.domain import sns
from gateway.domain.sns import CERTIFICATES, EARLY, STALE, Topic

ARN = "arn:aws:sns:us-east-1:123456789012:otp-events"
AT = datetime(2025, 1, 1, 14, 0, 5, tzinfo=UTC)
CERTIFICATE = data("aws/sns_certificate.pem")
CERTIFICATE_URL = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-test.pem"
VECTOR_URL = (
    "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn="
    "arn:aws:sns:us-east-1:123456789012:otp-events&Token=2336412f37"
)
NOW = datetime(2026, 11, 21, 10, 0, 10, tzinfo=UTC)


def vector(name: str, **changes: object) -> bytes:
    fields = {**orjson.loads(data(f"aws/{name}.json")), **changes}
    return orjson.dumps({key: value for key, value in fields.items() if value is not ...})


def topic(**changes: Any) -> Topic:
    made = Topic(ARN, **changes)
    made.learn(CERTIFICATE_URL, CERTIFICATE)
    return made


def ours() -> Topic:
    made = Topic(TOPIC)
    made.learn(URL, PEM)
    return made


@pytest.mark.parametrize("name", ["notification_v1", "notification_v2"])
def test_a_vector_of_a_notification(name: str) -> None:
    assert topic().signed(vector(name), AT)


def test_a_vector_of_a_subscription() -> None:
    body, at = vector("subscription_confirmation"), AT - timedelta(hours=1)

    assert topic().signed(body, at)
    assert VECTOR_URL == topic().confirmation(body)


def test_version_1_can_be_refused() -> None:
    strict = topic(sha256_only=True)

    assert strict.signed(vector("notification_v2"), AT)
    assert not strict.signed(vector("notification_v1"), AT)
    assert strict.wanted(vector("notification_v1"), AT) is None


@pytest.mark.parametrize("name", ["notification_v1", "notification_v2"])
@pytest.mark.parametrize(
    "change",
    [
        {"Message": "{}"},
        {"MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf325"},
        {"Timestamp": "2025-01-01T14:00:02.000Z"},
        {"Subject": "new"},
        {"Subject": ""},
        {"Type": "SubscriptionConfirmation"},
        {"Type": "UnsubscribeConfirmation"},
        {"Type": "notification"},
        {"Type": None},
        {"TopicArn": ARN + "x"},
        {"TopicArn": "arn:aws:sns:us-east-1:999999999999:otp-events"},
        {"TopicArn": ...},
        {"SignatureVersion": "3"},
        {"SignatureVersion": 2},
        {"SignatureVersion": ...},
        {"Signature": ""},
        {"Signature": "AAAA"},
        {"Signature": "é"},
        {"Signature": "not base64"},
        {"Signature": ...},
        {"Signature": None},
        {"Message": ...},
        {"MessageId": ...},
        {"Timestamp": ...},
        {"Timestamp": "2025-01-01"},
        {"Timestamp": "2025-13-01T14:00:01.000Z"},
        {"SigningCertURL": ...},
    ],
)
def test_anything_altered_is_refused(name: str, change: Mapping[str, object]) -> None:
    assert not topic().signed(vector(name, **change), AT)


def test_the_versions_are_not_exchanged() -> None:
    first = orjson.loads(data("aws/notification_v1.json"))["Signature"]

    assert not topic().signed(vector("notification_v2", Signature=first), AT)
    assert not topic().signed(vector("notification_v2", SignatureVersion="1"), AT)


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_envelope_is_refused(body: bytes) -> None:
    assert not topic().signed(body, AT)
    assert topic().wanted(body, AT) is None
    assert topic().confirmation(body) is None


@pytest.mark.parametrize(
    ("seconds", "fresh"),
    [(0, True), (STALE, True), (STALE + 1, False), (-EARLY, True), (-EARLY - 1, False)],
)
def test_a_message_has_its_time(seconds: int, fresh: bool) -> None:
    at = datetime(2025, 1, 1, 14, 0, 1, tzinfo=UTC) + timedelta(seconds=seconds)

    assert fresh == topic().signed(vector("notification_v2"), at)
    assert fresh == (Topic(ARN).wanted(vector("notification_v2"), at) is not None)


def test_a_subject_is_signed_where_there_is_one() -> None:
    body = signed("{}", NOW, Subject="Hello")

    assert ours().signed(body, NOW)
    assert not ours().signed(signed("{}", NOW, after={"Subject": "Hello"}), NOW)
    assert ours().signed(signed("{}", NOW, after={"Subject": None}), NOW)


def test_it_asks_for_a_certificate_once() -> None:
    fresh = Topic(ARN)
    body = vector("notification_v2")

    assert CERTIFICATE_URL == fresh.wanted(body, AT)
    assert not fresh.signed(body, AT)
    fresh.learn(CERTIFICATE_URL, CERTIFICATE)
    assert fresh.wanted(body, AT) is None
    assert fresh.signed(body, AT)


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.us-east-1.amazonaws.com/SimpleNotificationService-test.pem",
        "https://sns.us-east-1.amazonaws.com.evil.example/SimpleNotificationService-test.pem",
        "https://sns.us-east-1.amazonaws.com@evil.example/SimpleNotificationService-test.pem",
        "https://sns.us-east-1.amazonaws.com:8443/SimpleNotificationService-test.pem",
        "https://sns.eu-west-3.amazonaws.com/SimpleNotificationService-test.pem",
        "https://SNS.us-east-1.amazonaws.com/SimpleNotificationService-test.pem",
        "https://evil.example/sns.us-east-1.amazonaws.com/SimpleNotificationService-test.pem",
        "https://sns.us-east-1.amazonaws.com/?Action=GetData&x=.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-test.pem?x=1",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-test.pem#x",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-../x.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-test.pem\n",
        "https://sns.us-east-1.amazonaws.com/Other-test.pem",
        "https://sns.us-east-1.amazonaws.com/",
        "file:///SimpleNotificationService-test.pem",
        "",
    ],
)
def test_a_certificate_comes_from_nowhere_else(url: str) -> None:
    fresh = Topic(ARN)
    body = vector("notification_v2", SigningCertURL=url)
    fresh.learn(url, CERTIFICATE)

    assert fresh.wanted(body, AT) is None
    assert not fresh.signed(body, AT)


@pytest.mark.parametrize(
    ("arn", "host"),
    [
        ("arn:aws:sns:eu-west-3:123456789012:t", "https://sns.eu-west-3.amazonaws.com"),
        ("arn:aws-cn:sns:cn-north-1:123456789012:t", "https://sns.cn-north-1.amazonaws.com.cn"),
        (
            "arn:aws-us-gov:sns:us-gov-west-1:123456789012:t",
            "https://sns.us-gov-west-1.amazonaws.com",
        ),
    ],
)
def test_the_host_is_that_of_the_topic(arn: str, host: str) -> None:
    url = f"{host}/SimpleNotificationService-1.pem"
    body = signed("{}", NOW, TopicArn=arn, SigningCertURL=url)

    assert url == Topic(arn).wanted(body, NOW)


def test_the_host_can_be_set() -> None:
    elsewhere = Topic(TOPIC, endpoint="http://127.0.0.1:8081/aws/sns/")
    url = "http://127.0.0.1:8081/aws/sns/SimpleNotificationService-1.pem"

    assert url == elsewhere.wanted(signed("{}", NOW, SigningCertURL=url), NOW)
    assert elsewhere.wanted(signed("{}", NOW), NOW) is None


def test_an_arn_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="arn:aws:sqs"):
        Topic("arn:aws:sqs:us-east-1:123456789012:otp-events")


def test_few_certificates_are_remembered() -> None:
    made = ours()
    for number in range(CERTIFICATES):
        made.learn(URL.replace(".pem", f"-{number}.pem"), PEM)

    assert URL == made.wanted(signed("{}", NOW), NOW)
    assert CERTIFICATES == len(made._certificates)


@pytest.mark.parametrize(
    "pem",
    [b"", b"<html>", PEM[:200], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"],
)
def test_what_is_no_certificate_is_not_learnt(pem: bytes) -> None:
    made = Topic(TOPIC)
    made.learn(URL, pem)

    assert URL == made.wanted(signed("{}", NOW), NOW)


def test_only_the_holder_of_the_certificate_signs() -> None:
    forged = signed("{}", NOW, signer=OTHER_SIGNER)

    assert not ours().signed(forged, NOW)


@pytest.mark.parametrize(("days", "valid"), [(-1, True), (400, False), (-400, False)])
def test_a_certificate_has_its_time(days: int, valid: bool) -> None:
    """Valid for a year around NOW; the message is as old as the certificate is looked at."""
    at = NOW + timedelta(days=days)

    assert valid == ours().signed(signed("{}", at), at)


def test_a_key_of_another_kind_is_not_learnt() -> None:
    elliptic = Signer(elliptic=True)

    assert sns.certificate(PEM) is not None
    assert sns.certificate(elliptic.pem) is None


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("{host}/?Action=ConfirmSubscription&TopicArn={arn}&Token=abc", True),
        ("{host}/?Action=Unsubscribe&TopicArn={arn}&Token=abc", False),
        ("{host}/?Action=ConfirmSubscription&TopicArn={arn}", False),
        ("{host}/?Action=ConfirmSubscription&TopicArn={arn}x&Token=abc", False),
        ("{host}/?Action=ConfirmSubscription&Action=Publish&TopicArn={arn}&Token=abc", False),
        ("{host}.evil.example/?Action=ConfirmSubscription&TopicArn={arn}&Token=abc", False),
        ("{host}@evil.example/?Action=ConfirmSubscription&TopicArn={arn}&Token=abc", False),
        ("http://169.254.169.254/?Action=ConfirmSubscription&TopicArn={arn}&Token=abc", False),
        ("{host}/?Action=ConfirmSubscription&TopicArn={arn}&Token=a\x00c", False),
        ("{host}/?Action=ConfirmSubscription&TopicArn={arn}&Token=" + "a" * 2048, False),
        ("https://[", False),
        ("", False),
    ],
)
def test_only_a_subscription_is_confirmed(url: str, good: bool) -> None:
    url = url.format(host="https://sns.us-east-1.amazonaws.com", arn=TOPIC)
    body = confirmation(NOW, SubscribeURL=url)

    assert ours().signed(body, NOW)
    assert (url if good else None) == ours().confirmation(body)


def test_nothing_else_is_confirmed() -> None:
    assert ours().confirmation(signed("{}", NOW)) is None
    assert ours().confirmation(confirmation(NOW, Type="UnsubscribeConfirmation")) is None


def test_an_envelope_tells_little() -> None:
    envelope = sns.read(vector("subscription_confirmation"))

    assert envelope is not None
    assert "2336412f37" not in repr(envelope)
    assert base64.b64encode(envelope.signature).decode() not in repr(envelope)


TEXTS = st.text() | st.sampled_from([TOPIC, URL, "1", "2", "Notification", *sns.Kind])


@settings(deadline=None, max_examples=100)
@given(
    changes=st.dictionaries(
        st.sampled_from(sorted(orjson.loads(confirmation(NOW)))),
        TEXTS | st.none() | st.integers(-9, 9),
    )
)
def test_nothing_that_can_be_posted_makes_it_stumble(changes: dict[str, object]) -> None:
    genuine = orjson.loads(confirmation(NOW))
    body = orjson.dumps({**genuine, **changes})
    made = ours()

    assert made.wanted(body, NOW) in (None, URL)
    assert made.confirmation(body) in (None, SUBSCRIBE_URL)
    for name in ("Message", "Timestamp", "Token"):
        assert genuine[name] == changes.get(name, genuine[name]) or not made.signed(body, NOW)
