"""AWS in the sandbox: signed requests, errors in both protocols, a topic and its subscriber."""

import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
import pytest
from botocore.loaders import Loader  # type: ignore[import-untyped]
from botocore.model import ServiceModel  # type: ignore[import-untyped]
from botocore.parsers import create_parser  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from sandbox.conftest import MakeRig
from sandbox.signing import aws_headers
from sandbox.world import START, Rig, Sent

from gateway.sandbox import Channel

TOPIC = "arn:aws:sns:eu-west-3:123456789012:otp-events"
CALLBACK = "https://otp.example.com/otp/delivered/aws"
ACCOUNT = {
    "access_key_id": "AKIASANDBOX",
    "secret_access_key": "sandbox-secret",
    "region": "eu-west-3",
    "configuration_set": "otp",
    "topic_arn": TOPIC,
    "endpoint": "http://sandbox/aws/sns",
    "callback_url": CALLBACK,
}
API = "/aws/sms-voice/"
SNS = "/aws/sns/"
TEXT: Mapping[str, object] = {
    "DestinationPhoneNumber": "+33600000000",
    "MessageBody": "123456 is your code",
    "ConfigurationSetName": "otp",
    "Context": {"attempt": "a1"},
    "TimeToLive": 60,
}


@pytest.fixture
def aws(make_rig: MakeRig) -> Rig:
    return make_rig(accounts={"aws": ACCOUNT})


async def send(
    rig: Rig,
    number: str = "+33600000000",
    *,
    operation: str = "SendTextMessage",
    account: Mapping[str, str] = ACCOUNT,
    change: Mapping[str, str] | None = None,
    late: float = 0,
    **fields: object,
) -> httpx.Response:
    """A signed call. `change`: of headers, afterwards; `...` as a field leaves it out."""
    asked = {**TEXT, "DestinationPhoneNumber": number, **fields}
    body = orjson.dumps({name: value for name, value in asked.items() if value is not ...})
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"PinpointSMSVoiceV2.{operation}",
    }
    at = rig.clock.now() - timedelta(seconds=late)
    made = aws_headers(account, "sms-voice", f"http://sandbox{API}", body, headers=headers, at=at)
    changed = {name.lower(): value for name, value in made.items()} | dict(change or {})
    return await rig.client.post(API, content=body, headers=changed)


async def ask(rig: Rig, action: str, **form: str) -> httpx.Response:
    """A signed call of SNS."""
    body = urlencode({"Action": action, "Version": "2010-03-31", **form}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    made = aws_headers(
        ACCOUNT, "sns", f"http://sandbox{SNS}", body, headers=headers, at=rig.clock.now()
    )
    return await rig.client.post(SNS, content=body, headers=made)


def events(rig: Rig) -> list[dict[str, Any]]:
    return [orjson.loads(sent.json["Message"]) for sent in rig.post.sent]


def words(rig: Rig) -> list[str]:
    return [event["eventType"] for event in events(rig)]


async def verified(rig: Rig, sent: Sent) -> bool:
    """Whether the signature is right, checked from the words of the documentation."""
    body = sent.json
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if body["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    content = "".join(f"{name}\n{body[name]}\n" for name in names if name in body).encode()
    pem = await rig.client.get(body["SigningCertURL"])
    certificate = x509.load_pem_x509_certificate(pem.content)
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert certificate.not_valid_before_utc < rig.clock.now() < certificate.not_valid_after_utc
    algorithm = {"1": hashes.SHA1(), "2": hashes.SHA256()}[body["SignatureVersion"]]  # noqa: S303
    key.verify(base64.b64decode(body["Signature"]), content, padding.PKCS1v15(), algorithm)
    return True


async def test_an_accepted_message(aws: Rig) -> None:
    response = await send(aws, OriginationIdentity="ACME")
    message = aws.only()

    assert (200, {"MessageId": message.id}) == (response.status_code, response.json())
    assert "application/x-amz-json-1.0" == response.headers["content-type"]
    assert (Channel.SMS, "123456 is your code", "ACME", "a1") == (
        message.channel,
        message.text,
        message.sender,
        message.client_ref,
    )


async def test_its_events(aws: Rig) -> None:
    message_id = (await send(aws)).json()["MessageId"]
    await aws.run()
    sent = aws.post.sent[-1]

    assert ["TEXT_SUCCESSFUL", "TEXT_DELIVERED"] == words(aws)
    assert {
        "eventType": "TEXT_DELIVERED",
        "eventVersion": "1.0",
        "eventTimestamp": int(START.timestamp() * 1000) + 2000,
        "isFinal": True,
        "originationPhoneNumber": "+12065550152",
        "destinationPhoneNumber": "+33600000000",
        "messageId": message_id,
        "messageRequestTimestamp": int(START.timestamp() * 1000),
        "messageStatus": "DELIVERED",
        "messageStatusDescription": "Simulated: delivered",
        "isoCountryCode": "FR",
        "context": {"attempt": "a1"},
        "messageEncoding": "GSM",
        "messageType": "TRANSACTIONAL",
        "totalMessageParts": 1,
        "totalMessagePrice": 0.00581,
        "totalCarrierFee": 0.0,
    } == events(aws)[-1]
    assert CALLBACK == sent.url
    assert "text/plain; charset=UTF-8" == sent.headers["Content-Type"]
    assert ("Notification", TOPIC) == (
        sent.headers["x-amz-sns-message-type"],
        sent.headers["x-amz-sns-topic-arn"],
    )
    assert "2026-03-01T12:00:02.000Z" == sent.json["Timestamp"]


@pytest.mark.parametrize("version", ["1", "2"])
async def test_an_event_is_signed(make_rig: MakeRig, version: str) -> None:
    rig = make_rig(accounts={"aws": {**ACCOUNT, "signature_version": version}})
    await send(rig)
    await rig.run()

    assert [version, version] == [sent.json["SignatureVersion"] for sent in rig.post.sent]
    assert all([await verified(rig, sent) for sent in rig.post.sent])


async def test_a_call(aws: Rig) -> None:
    response = await send(
        aws, operation="SendVoiceMessage", OriginationIdentity="+12065550152", VoiceId="JOANNA"
    )
    await aws.run()

    assert 200 == response.status_code
    assert Channel.VOICE is aws.only().channel
    assert ["VOICE_RINGING", "VOICE_COMPLETED"] == words(aws)


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("02", []),
        ("03", ["TEXT_UNREACHABLE"]),
        ("05", ["TEXT_SUCCESSFUL"] * 3 + ["TEXT_DELIVERED"] * 3),
        ("06", ["TEXT_DELIVERED", "TEXT_SUCCESSFUL"]),
        ("13", ["TEXT_SUCCESSFUL"]),
        ("15", ["TEXT_SANDBOX_UNHEARD_OF", "TEXT_DELIVERED"]),
    ],
)
async def test_a_number_decides(aws: Rig, digits: str, expected: list[str]) -> None:
    await send(aws, f"+3360000{digits}00")
    await aws.run()

    assert expected == words(aws)


async def test_an_event_repeats_the_context_there_is(aws: Rig) -> None:
    await send(aws, Context=...)
    await send(aws, "+15555550100", Context={"one": "1", "two": "2"})
    await aws.run()
    by_country = {event.get("isoCountryCode"): event.get("context") for event in events(aws)}

    assert {"FR": None, "US": {"one": "1", "two": "2"}} == by_country


async def test_a_repeated_event_keeps_its_id(aws: Rig) -> None:
    aws.post.answer = lambda sent: 503
    await send(aws, "+33600000300")
    await aws.run(100)

    assert [1, 21, 41, 61] == [sent.seconds for sent in aws.post.sent]
    assert 1 == len({sent.json["MessageId"] for sent in aws.post.sent})
    assert 4 == len({sent.json["Signature"] for sent in aws.post.sent})


@pytest.mark.parametrize(
    ("fields", "account"),
    [
        ({"ConfigurationSetName": ...}, ACCOUNT),
        ({}, {name: value for name, value in ACCOUNT.items() if name != "callback_url"}),
    ],
)
async def test_without_configuration_set_or_subscriber_nobody_is_told(
    make_rig: MakeRig, fields: dict[str, Any], account: dict[str, str]
) -> None:
    rig = make_rig(accounts={"aws": account})
    assert 200 == (await send(rig, **fields)).status_code
    await rig.run()

    assert rig.only().arrived_at
    assert [] == rig.post.sent


# Who is let in.


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"authorization": "AWS4-HMAC-SHA256 nonsense"}, "IncompleteSignatureException"),
        ({"x-amz-date": "now"}, "IncompleteSignatureException"),
        ({"x-amz-date": "20260301T120001Z"}, "InvalidSignatureException"),
        ({"x-amz-target": "PinpointSMSVoiceV2.SendVoiceMessage"}, "InvalidSignatureException"),
        ({"content-type": "application/json"}, "InvalidSignatureException"),
        ({"host": "elsewhere"}, "InvalidSignatureException"),
        ({"x-amz-more": "unsigned"}, "InvalidSignatureException"),
        ({"x-amz-security-token": "t"}, "UnrecognizedClientException"),
    ],
)
async def test_a_request_altered_is_refused(
    aws: Rig, change: Mapping[str, str], error: str
) -> None:
    response = await send(aws, change=change)

    assert (403, error) == (response.status_code, response.json()["__type"])
    assert [] == aws.sandbox.messages()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"secret_access_key": "another"}, "InvalidSignatureException"),
        ({"access_key_id": "AKIAOTHER"}, "UnrecognizedClientException"),
        ({"session_token": "another"}, "UnrecognizedClientException"),
        ({"region": "us-east-1"}, "InvalidSignatureException"),
    ],
)
async def test_another_account_is_refused(aws: Rig, change: Mapping[str, str], error: str) -> None:
    response = await send(aws, account={**ACCOUNT, **change})

    assert (403, error) == (response.status_code, response.json()["__type"])


@pytest.mark.parametrize(("late", "status"), [(300, 200), (301, 403), (-300, 200), (-301, 403)])
async def test_a_signature_has_its_time(aws: Rig, late: float, status: int) -> None:
    assert status == (await send(aws, late=late)).status_code


async def test_a_session_token_is_signed_with_the_rest(make_rig: MakeRig) -> None:
    account = {**ACCOUNT, "session_token": "the-token"}
    rig = make_rig(accounts={"aws": account})

    assert 200 == (await send(rig, account=account)).status_code
    assert 403 == (await send(rig)).status_code


async def test_an_unsigned_request_is_refused(aws: Rig) -> None:
    answers = [await aws.client.post(path, content=b"{}") for path in (API, SNS)]

    assert [403, 403] == [answer.status_code for answer in answers]
    assert "MissingAuthenticationTokenException" == answers[0].json()["__type"]
    assert "<Code>MissingAuthenticationToken</Code>" in answers[1].text


async def test_without_an_account_every_call_is_refused(rig: Rig) -> None:
    calls = [await send(rig), await ask(rig, "Publish", PhoneNumber="+33600000000", Message="x")]
    confirmed = await rig.client.get(SNS, params={"Action": "ConfirmSubscription", "Token": "x"})

    assert [403, 403] == [answer.status_code for answer in calls]
    assert 400 == confirmed.status_code
    assert [] == rig.sandbox.messages()


# What is refused.


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"DestinationPhoneNumber": ...}, "DestinationPhoneNumber"),
        ({"DestinationPhoneNumber": "0600000000"}, "DestinationPhoneNumber"),
        ({"DestinationPhoneNumber": 33600000000}, "DestinationPhoneNumber"),
        ({"MessageBody": ...}, "MessageBody"),
        ({"MessageBody": " "}, "MessageBody"),
        ({"MessageBody": "x" * 1601}, "MessageBody"),
        ({"OriginationIdentity": "A B"}, "OriginationIdentity"),
        ({"OriginationIdentity": 7}, "OriginationIdentity"),
        ({"TimeToLive": 4}, "TimeToLive"),
        ({"TimeToLive": 259_201}, "TimeToLive"),
        ({"TimeToLive": "60"}, "TimeToLive"),
        ({"MessageType": "URGENT"}, "MessageType"),
        ({"Context": []}, "Context"),
        ({"Context": {"attempt": ""}}, "Context"),
        ({"Context": {"attempt": 7}}, "Context"),
        ({"Context": {str(number): "x" for number in range(6)}}, "Context"),
        ({"operation": "SendVoiceMessage"}, "OriginationIdentity"),
    ],
)
async def test_wrong_fields(aws: Rig, fields: dict[str, Any], named: str) -> None:
    response = await send(aws, **fields)
    answer = response.json()

    assert (400, "com.amazonaws.pinpointsmsvoicev2#ValidationException") == (
        response.status_code,
        answer["__type"],
    )
    assert [named] == [field["Name"] for field in answer["Fields"]]
    assert [] == aws.sandbox.messages()


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"ConfigurationSetName": "another"}, "ResourceNotFoundException"),
        ({"operation": "SendMediaMessage"}, "UnknownOperationException"),
    ],
)
async def test_what_is_not_there(aws: Rig, fields: dict[str, Any], kind: str) -> None:
    response = await send(aws, **fields)

    assert (400, kind) == (response.status_code, response.json()["__type"].partition("#")[2])


async def test_a_body_that_is_no_json_object(aws: Rig) -> None:
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": "PinpointSMSVoiceV2.SendTextMessage",
    }
    url = f"http://sandbox{API}"
    for body in (b"", b"{", b"[]"):
        made = aws_headers(ACCOUNT, "sms-voice", url, body, headers=headers, at=START)
        response = await aws.client.post(API, content=body, headers=made)

        assert 400 == response.status_code
        assert response.json()["__type"].endswith("#SerializationException")


async def test_another_content_type_is_refused(aws: Rig) -> None:
    headers = {
        "Content-Type": "application/json",
        "X-Amz-Target": "PinpointSMSVoiceV2.SendTextMessage",
    }
    url, body = f"http://sandbox{API}", orjson.dumps(TEXT)
    made = aws_headers(ACCOUNT, "sms-voice", url, body, headers=headers, at=START)
    response = await aws.client.post(API, content=body, headers=made)

    assert response.json()["__type"].endswith("#SerializationException")


async def test_numbers_that_are_refused(aws: Rig) -> None:
    answers = [
        await send(aws, number)
        for number in ("+33600000800", "+33600000800", "+33600000800", "+33600000900")
    ]
    refused = await send(aws, "+33600001200")

    assert [
        (400, "com.amazonaws.pinpointsmsvoicev2#ThrottlingException"),
        (400, "com.amazonaws.pinpointsmsvoicev2#ThrottlingException"),
        (200, None),
        (500, "com.amazonaws.pinpointsmsvoicev2#InternalServerException"),
    ] == [(answer.status_code, answer.json().get("__type")) for answer in answers]
    assert (400, "DESTINATION_PHONE_NUMBER_OPTED_OUT") == (
        refused.status_code,
        refused.json()["Reason"],
    )


async def test_the_account_is_no_sandbox(aws: Rig) -> None:
    tier = await send(aws, operation="DescribeAccountAttributes")
    status = await ask(aws, "GetSMSSandboxAccountStatus")

    assert {"AccountAttributes": [{"Name": "ACCOUNT_TIER", "Value": "PRODUCTION"}]} == tier.json()
    assert "<IsInSandbox>false</IsInSandbox>" in status.text


# SNS.


def parsed(action: str, response: httpx.Response) -> dict[str, Any]:
    """What botocore's own client reads in it."""
    model = ServiceModel(Loader().load_service_model("sns", "service-2"))
    shape = model.operation_model(action).output_shape
    raw = {
        "status_code": response.status_code,
        "headers": response.headers,
        "body": response.content,
    }
    return dict(create_parser("query").parse(raw, shape))


async def test_a_published_message(aws: Rig) -> None:
    sender = {
        "MessageAttributes.entry.1.Name": "AWS.SNS.SMS.SenderID",
        "MessageAttributes.entry.1.Value.DataType": "String",
        "MessageAttributes.entry.1.Value.StringValue": "ACME",
    }
    response = await ask(aws, "Publish", PhoneNumber="+33600000000", Message="Hi", **sender)
    await aws.run()

    assert aws.only().id == parsed("Publish", response)["MessageId"]
    assert ("Hi", "ACME") == (aws.only().text, aws.only().sender)
    assert aws.only().arrived_at
    assert [] == aws.post.sent


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"PhoneNumber": "0600000000"}, 400, "InvalidParameter"),
        ({"Message": ""}, 400, "InvalidParameter"),
        ({"PhoneNumber": "+33600000800"}, 400, "Throttling"),
        ({"PhoneNumber": "+33600000900"}, 500, "InternalError"),
        ({"PhoneNumber": "+33600001200"}, 400, "OptedOut"),
        ({"Version": "2000-01-01"}, 400, "InvalidAction"),
    ],
)
async def test_what_sns_refuses(aws: Rig, form: dict[str, str], status: int, code: str) -> None:
    response = await ask(aws, "Publish", **{"PhoneNumber": "+33600000000", "Message": "x", **form})

    assert (status, code) == (response.status_code, parsed("Publish", response)["Error"]["Code"])


async def test_an_address_subscribes_by_coming_back(make_rig: MakeRig) -> None:
    account = {name: value for name, value in ACCOUNT.items() if name != "callback_url"}
    rig = make_rig(accounts={"aws": account})
    url = "https://otp.example.com/otp/delivered/aws/key"
    pending = await ask(rig, "Subscribe", TopicArn=TOPIC, Protocol="https", Endpoint=url)
    (offer,) = rig.post.sent
    await send(rig)
    await rig.run()

    assert "pending confirmation" == parsed("Subscribe", pending)["SubscriptionArn"]
    assert (url, "SubscriptionConfirmation") == (offer.url, offer.json["Type"])
    assert await verified(rig, offer)
    assert [offer] == rig.post.sent

    confirmed = await rig.client.get(offer.json["SubscribeURL"])
    again = await rig.client.get(offer.json["SubscribeURL"])
    await send(rig)
    await rig.run()

    assert parsed("ConfirmSubscription", confirmed)["SubscriptionArn"].startswith(f"{TOPIC}:")
    assert 400 == again.status_code
    assert [url] * 3 == [sent.url for sent in rig.post.sent]


@pytest.mark.parametrize(
    "form",
    [
        {"TopicArn": TOPIC + "2"},
        {"Protocol": "http"},
        {"Protocol": "email"},
        {"Endpoint": "otp.example.com"},
        {"Endpoint": "https://"},
    ],
)
async def test_a_wrong_subscription_is_refused(aws: Rig, form: dict[str, str]) -> None:
    asked = {"TopicArn": TOPIC, "Protocol": "https", "Endpoint": CALLBACK, **form}
    response = await ask(aws, "Subscribe", **asked)

    assert response.status_code in {400, 404}
    assert [] == aws.post.sent


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"Action": "Publish"},
        {"Action": "ConfirmSubscription", "TopicArn": TOPIC, "Token": "unknown"},
        {"Action": "ConfirmSubscription", "TopicArn": TOPIC},
    ],
)
async def test_nothing_else_confirms(aws: Rig, asked: dict[str, str]) -> None:
    assert 400 == (await aws.client.get(SNS, params=asked)).status_code


async def test_there_is_one_certificate(aws: Rig) -> None:
    other = await aws.client.get(f"{SNS}SimpleNotificationService-0.pem")

    assert 404 == other.status_code
