"""AWS signatures: vectors, and botocore's own signer on the same request."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import (  # type: ignore[import-untyped]
    Credentials as TheirCredentials,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.sigv4 import Credentials, Scope, sign

AT = datetime(2025, 1, 1, tzinfo=UTC)
KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TEXT = Scope("us-east-1", "sms-voice")
JSON = {
    "content-type": "application/x-amz-json-1.0",
    "x-amz-target": "PinpointSMSVoiceV2.SendTextMessage",
}
BODY = (
    b'{"DestinationPhoneNumber": "+14255550156", "OriginationIdentity": "+12065550152", '
    b'"MessageBody": "Your code is 123456", "MessageType": "TRANSACTIONAL", '
    b'"ConfigurationSetName": "otp-config", "TimeToLive": 60, "Context": {"attempt": "a1"}}'
)
FORM = (
    b"Action=Publish&Version=2010-03-31&PhoneNumber=%2B14255550156&Message=Your+code+is+123456"
    b"&MessageAttributes.entry.1.Name=AWS.SNS.SMS.SMSType"
    b"&MessageAttributes.entry.1.Value.DataType=String"
    b"&MessageAttributes.entry.1.Value.StringValue=Transactional"
    b"&MessageAttributes.entry.2.Name=AWS.SNS.SMS.SenderID"
    b"&MessageAttributes.entry.2.Value.DataType=String"
    b"&MessageAttributes.entry.2.Value.StringValue=ACME"
    b"&MessageAttributes.entry.3.Name=AWS.SNS.SMS.MaxPrice"
    b"&MessageAttributes.entry.3.Value.DataType=Number"
    b"&MessageAttributes.entry.3.Value.StringValue=0.50"
)


def signed(
    body: bytes = BODY,
    scope: Scope = TEXT,
    headers: Mapping[str, str] = JSON,
    *,
    credentials: Credentials = KEY,
    at: datetime = AT,
    path: str = "/",
    host: str = "sms-voice.us-east-1.amazonaws.com",
) -> dict[str, str]:
    return sign(credentials, scope, at, host=host, path=path, headers=headers, body=body)


def theirs(
    body: bytes, scope: Scope, headers: Mapping[str, str], credentials: Credentials, url: str
) -> str:
    """The Authorization header botocore makes, at AT."""
    token = credentials.session_token or None
    key = TheirCredentials(credentials.access_key_id, credentials.secret_access_key, token)
    auth = SigV4Auth(key, scope.service, scope.region)
    request = AWSRequest("POST", url, data=body, headers=dict(headers))
    request.context["timestamp"] = AT.strftime("%Y%m%dT%H%M%SZ")
    auth._modify_request_before_signing(request)
    to_sign = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(to_sign, request))
    return str(request.headers["Authorization"])


def test_a_vector_of_send_text_message() -> None:
    assert "b82d176fbd421d3136a2995361fd59ff8df866e554ef59ffd9f5360a52ffa355" == (
        hashlib.sha256(BODY).hexdigest()
    )
    assert {
        "x-amz-date": "20250101T000000Z",
        "authorization": "AWS4-HMAC-SHA256 "
        "Credential=AKIDEXAMPLE/20250101/us-east-1/sms-voice/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date;x-amz-target, "
        "Signature=dcf9cc9ae963a26e911811c12cef307ee6d94e8be98a600490f9a3e4e41a539c",
    } == signed()


def test_a_vector_of_publish() -> None:
    made = signed(
        FORM,
        Scope("us-east-1", "sns"),
        {"content-type": "application/x-www-form-urlencoded; charset=utf-8"},
        host="sns.us-east-1.amazonaws.com",
    )

    assert 543 == len(FORM)
    assert (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20250101/us-east-1/sns/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=aaaf851c6e12a0c739dc8a860708c8f74d2518d1e68b76573e7cefe639e4cb79"
    ) == made["authorization"]


def test_the_time_is_utc_wherever_the_clock_stands() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=-8)))

    assert signed() == signed(at=elsewhere)


def test_a_session_token_is_added_and_signed() -> None:
    credentials = Credentials("AKIDEXAMPLE", "secret", "the-session-token")
    made = signed(credentials=credentials)

    assert "the-session-token" == made["x-amz-security-token"]
    assert "x-amz-security-token" in made["authorization"].partition("SignedHeaders=")[2]


def test_what_is_signed_is_what_is_sent() -> None:
    first = signed()["authorization"]
    others = [
        signed(BODY + b" "),
        signed(scope=Scope("eu-west-3", "sms-voice")),
        signed(headers={**JSON, "x-amz-target": "PinpointSMSVoiceV2.SendVoiceMessage"}),
        signed(host="sms-voice.eu-west-3.amazonaws.com"),
        signed(path="/x"),
        signed(at=AT + timedelta(seconds=1)),
        signed(credentials=Credentials("AKIDEXAMPLE", "other")),
    ]

    assert 8 == len({first, *(made["authorization"] for made in others)})


def test_credentials_tell_nothing() -> None:
    shown = repr(Credentials("AKIDEXAMPLE", "the-secret", "the-token"))

    assert "the-secret" not in shown
    assert "the-token" not in shown


PATH = st.text("abcXYZ019-._~", max_size=8).map(lambda text: f"/{text}")
VALUE = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), max_size=20)


@settings(deadline=None, max_examples=50)
@given(
    body=st.binary(max_size=100),
    value=VALUE,
    path=PATH,
    token=st.sampled_from(["", "a-token", "t"]),
)
def test_botocore_signs_alike(body: bytes, value: str, path: str, token: str) -> None:
    credentials = Credentials("AKIDEXAMPLE", KEY.secret_access_key, token)
    headers: dict[str, Any] = {"content-type": "application/x-amz-json-1.0", "x-amz-target": value}
    url = f"http://127.0.0.1:8081/aws{path}"
    path = "/aws" if path in ("/.", "/..") else f"/aws{path}"
    if path == "/aws":
        return  # botocore folds dots away; no address of ours has any

    made = signed(body, TEXT, headers, credentials=credentials, host="127.0.0.1:8081", path=path)

    assert theirs(body, TEXT, headers, credentials, url) == made["authorization"]


@pytest.mark.parametrize("path", ["/", "/aws/sms-voice/", "/a%20b/", "/a~b/"])
def test_a_path_is_encoded_as_botocore_does_it(path: str) -> None:
    made = signed(path=path, host="localhost")

    assert theirs(BODY, TEXT, JSON, KEY, f"http://localhost{path}") == made["authorization"]
