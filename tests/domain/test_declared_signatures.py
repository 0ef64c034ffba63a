"""Proofs of a callback: every kind with what is right, what is wrong, and the vectors there are."""

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.domain.declared import signatures, template
from gateway.domain.declared.signatures import (
    Allowlist,
    Basic,
    Ed25519,
    Hmac,
    Jwt,
    KeyForm,
    Nothing,
    Place,
    PlivoV3,
    Signature,
    StaticToken,
    TwilioSha1,
)

NOW = datetime(2026, 11, 21, 10, 0, 10, tzinfo=UTC)
AT = str(int(NOW.timestamp()))
SECRET = "secret-of-this-account"
OTHER = "secret-of-some-other-account"
URL = "https://otp.example.test/otp/delivered/route/token?x=1"
BODY = b"id=m_1&status=delivered"


@dataclass(frozen=True)
class Asked:
    """A callback."""

    method: str = "POST"
    url: str = URL
    key: str | None = "token"
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = BODY
    received_at: datetime = NOW


def asked(url: str, fields: Mapping[str, str] | bytes, **headers: str) -> Asked:
    body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Asked(url=url, query=dict(parse_qsl(urlsplit(url).query)), body=body, headers=named)


def mac(secret: str, message: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.new(secret.encode(), message, algorithm).digest()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def b64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def private(secret: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(secret.encode()).digest())


def public(secret: str) -> str:
    return b64(private(secret).public_key().public_bytes_raw())


def token(secret: str, at: int = int(AT), body: bytes = BODY, **claims: Any) -> str:
    said = {
        "iss": "Vendor",
        "iat": at,
        "exp": at + 60,
        "payload_hash": hashlib.sha256(body).hexdigest(),
        "url_hash": hashlib.sha256(URL.encode()).hexdigest(),
        **claims,
    }
    head, tail = b64url(orjson.dumps({"alg": "HS256"})), b64url(orjson.dumps(said))
    return f"{head}.{tail}.{b64url(mac(secret, f'{head}.{tail}'.encode()))}"


@dataclass(frozen=True)
class Kind:
    """A kind of signature and how the vendor makes it: secret and time → headers."""

    signature: Signature
    make: Callable[[str, str], Mapping[str, str]]
    header: str
    timed: bool = True
    covers_url: bool = False


STANDARD = Hmac(
    "webhook-signature",
    template.parse("{id}.{timestamp}.{raw_body}"),
    key=KeyForm.RAW,
    encoding="base64",
    prefix="v1,",
    separator=" ",
    timestamp_header="webhook-timestamp",
    id_header="webhook-id",
)

KINDS = {
    "hmac, as Meta": Kind(
        Hmac("x-hub-signature-256", template.parse("{raw_body}"), prefix="sha256="),
        lambda secret, at: {"x-hub-signature-256": "sha256=" + mac(secret, BODY).hex()},
        "x-hub-signature-256",
        timed=False,
    ),
    "hmac, as Telegram": Kind(
        Hmac(
            "x-request-signature",
            template.parse("{timestamp}\n{raw_body}"),
            key=KeyForm.SHA256,
            timestamp_header="x-request-timestamp",
        ),
        lambda secret, at: {
            "x-request-timestamp": at,
            "x-request-signature": hmac.new(
                hashlib.sha256(secret.encode()).digest(), f"{at}\n".encode() + BODY, "sha256"
            ).hexdigest(),
        },
        "x-request-signature",
    ),
    "hmac, as Bird": Kind(
        Hmac(
            "sig",
            template.parse("{timestamp}\n{url}\n{body_sha256_raw}"),
            encoding="base64",
            timestamp_header="at",
        ),
        lambda secret, at: {
            "at": at,
            "sig": b64(mac(secret, f"{at}\n{URL}\n".encode() + hashlib.sha256(BODY).digest())),
        },
        "sig",
        covers_url=True,
    ),
    "hmac, a list, sha512": Kind(
        replace(STANDARD, algorithm="sha512"),
        lambda secret, at: {
            "webhook-id": "msg_1",
            "webhook-timestamp": at,
            "webhook-signature": "v1," + b64(mac(secret, f"msg_1.{at}.".encode() + BODY, "sha512")),
        },
        "webhook-signature",
    ),
    "hmac, sha1 of the hash of the body": Kind(
        Hmac("sig", template.parse("{method}{body_sha256_hex}"), algorithm="sha1"),
        lambda secret, at: {
            "sig": mac(secret, f"POST{hashlib.sha256(BODY).hexdigest()}".encode(), "sha1").hex()
        },
        "sig",
        timed=False,
    ),
    "ed25519": Kind(
        Ed25519("sig", template.parse("{timestamp}|{raw_body}"), "at"),
        lambda secret, at: {
            "at": at,
            "sig": b64(private(secret).sign(f"{at}|".encode() + BODY)),
        },
        "sig",
    ),
    "jwt_hs": Kind(
        Jwt(
            "authorization",
            "Bearer ",
            issuer="Vendor",
            required=("iat",),
            payload_hash="payload_hash",
            url_hash="url_hash",
            max_age=300,
        ),
        lambda secret, at: {"authorization": f"Bearer {token(secret, int(at))}"},
        "authorization",
        covers_url=True,
    ),
    "plivo_v3": Kind(
        PlivoV3(),
        lambda secret, at: {
            "x-plivo-signature-v3": b64(mac(secret, f"{URL}.idm_1statusdelivered.n1".encode())),
            "x-plivo-signature-v3-nonce": "n1",
        },
        "x-plivo-signature-v3",
        timed=False,
        covers_url=True,
    ),
    "twilio_sha1": Kind(
        TwilioSha1(),
        lambda secret, at: {
            "x-twilio-signature": b64(mac(secret, f"{URL}idm_1statusdelivered".encode(), "sha1"))
        },
        "x-twilio-signature",
        timed=False,
        covers_url=True,
    ),
}


def secret_of(kind: Kind, secret: str) -> str:
    return public(secret) if isinstance(kind.signature, Ed25519) else secret


def wrongs(kind: Kind) -> Iterator[tuple[str, Asked]]:
    good = Asked(headers=kind.make(SECRET, AT))
    written = good.headers[kind.header]

    def with_header(value: str) -> Asked:
        return replace(good, headers={**good.headers, kind.header: value})

    yield "missing", Asked()
    yield "other secret", Asked(headers=kind.make(OTHER, AT))
    yield "body altered", replace(good, body=BODY.replace(b"m_1", b"m_2"))
    yield "body extended", replace(good, body=BODY + b" ")
    yield "empty", with_header("")
    yield "twice", with_header(f"{written}\n{written}")
    yield "cut", with_header(written[:-1])
    yield "extended", with_header(written + "=")
    yield "last altered", with_header(written[:-1] + chr(ord(written[-1]) ^ 1))
    yield "not ASCII", with_header(written + "é\udce9")
    for header in set(good.headers) - {kind.header}:
        headers = {name: value for name, value in good.headers.items() if name != header}
        yield f"without {header}", replace(good, headers=headers)
        yield f"other {header}", replace(good, headers={**good.headers, header: "7"})
    if kind.covers_url:
        yield "another URL", replace(good, url=URL.replace("token", "other"))
        yield "another query", replace(good, url=URL + "&y=2")
    if kind.timed:
        stale = str(int(AT) - 1000)
        yield "stale", Asked(headers=kind.make(SECRET, stale))
        yield "from the future", Asked(headers=kind.make(SECRET, str(int(AT) + 1000)))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_is_right_is_let_in_and_what_is_wrong_is_not(kind: Kind) -> None:
    good = Asked(headers=kind.make(SECRET, AT))
    ours, other = secret_of(kind, SECRET), secret_of(kind, OTHER)
    found = {label: kind.signature.proves(one, [ours]) for label, one in wrongs(kind)}

    assert kind.signature.proves(good, [ours])
    assert kind.signature.proves(good, [other, ours])
    assert not kind.signature.proves(good, [other])
    assert not kind.signature.proves(good, [])
    assert dict.fromkeys(found, False) == found
    assert kind.signature.signs
    assert kind.signature.secret
    assert kind.signature.unusable("")
    assert not kind.signature.unusable(ours)


@pytest.mark.parametrize(
    ("signature", "right", "wrong"),
    [
        (
            Basic("vendor"),
            Asked(headers={"authorization": "Basic " + b64(f"vendor:{SECRET}".encode())}),
            [
                Asked(headers={"authorization": "Basic " + b64(f"other:{SECRET}".encode())}),
                Asked(headers={"authorization": "Basic " + b64(f"vendor:{OTHER}".encode())}),
                Asked(headers={"authorization": b64(f"vendor:{SECRET}".encode())}),
                Asked(),
            ],
        ),
        (
            StaticToken(Place.PATH),
            Asked(key=SECRET),
            [Asked(key=OTHER), Asked(key=None), Asked(key=""), Asked(key=SECRET + "\udce9")],
        ),
        (
            StaticToken(Place.HEADER, "x-token", "Key "),
            Asked(headers={"x-token": f"Key {SECRET}"}),
            [
                Asked(headers={"x-token": SECRET}),
                Asked(headers={"x-token": f"Key {SECRET}\nKey {SECRET}"}),
                Asked(),
            ],
        ),
        (
            StaticToken(Place.QUERY, "token"),
            Asked(query={"token": SECRET}),
            [Asked(query={"token": OTHER}), Asked(query={"other": SECRET}), Asked()],
        ),
    ],
    ids=["basic", "path", "header", "query"],
)
def test_a_shared_secret_proves_who_speaks(
    signature: Signature, right: Asked, wrong: list[Asked]
) -> None:
    assert signature.proves(right, [SECRET])
    assert signature.proves(right, [OTHER, SECRET])
    assert [False] * len(wrong) == [signature.proves(one, [SECRET]) for one in wrong]
    assert not signature.proves(right, [])
    assert (False, True) == (signature.signs, signature.secret)
    assert signature.unusable("")


def test_an_address_is_taken_from_the_header_of_a_proxy() -> None:
    networks = (ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32"))
    signature = Allowlist("x-real-ip", networks)
    tries = {
        "192.0.2.7": True,
        "2001:db8::1": True,
        "198.51.100.1": False,
        "192.0.2.7, 198.51.100.1": False,
        "192.0.2.7\n192.0.2.7": False,
        "": False,
        "nonsense": False,
    }

    assert tries == {
        written: signature.proves(Asked(headers={"x-real-ip": written}), []) for written in tries
    }
    assert (False, False) == (signature.signs, signature.secret)


def test_nothing_proves_nothing_by_itself() -> None:
    assert Nothing().proves(Asked(), [])
    assert (False, False) == (Nothing().signs, Nothing().secret)


# Vectors.

TWILIO = "test_auth_token_0123456789abcdef"
EXAMPLE = {"CallSid": "CA1234567890ABCDE", "Digits": "1234", "To": "+18005551212"}
RECEIPT = {
    "AccountSid": "AC00000000000000000000000000000001",
    "ApiVersion": "2010-04-01",
    "From": "+15017250604",
    "MessageSid": "SM00000000000000000000000000000001",
    "MessageStatus": "delivered",
    "RawDlrDoneDate": "2501221146",
    "SmsSid": "SM00000000000000000000000000000001",
    "SmsStatus": "delivered",
    "To": "+15558675310",
}
JSON_BODY = b'{"MessageSid":"SM00000000000000000000000000000001","MessageStatus":"read"}'
JSON_HASH = "def9e9bfd2a520eb83b84ecfef8cf2ca4f50b746f76ac8f74124656c8234bec9"


@pytest.mark.parametrize(
    ("secret", "url", "fields", "written"),
    [
        (
            "12345",
            "https://example.com/myapp.php?foo=1&bar=2",
            {**EXAMPLE, "Caller": "+14158675310", "From": "+14158675310"},
            "L/OH5YylLD5NRKLltdqwSvS0BnU=",
        ),
        (
            "12345",
            "https://mycompany.com/myapp.php?foo=1&bar=2",
            {**EXAMPLE, "Caller": "+14158675309", "From": "+14158675309"},
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        ),
        (
            TWILIO,
            "https://otp.example.test/otp/delivered/twilio?attempt=a1",
            RECEIPT,
            "UDIBpWVmScIy1O3fI4++iZVmPxk=",
        ),
        (
            TWILIO,
            "https://otp.example.test:443/otp/delivered/twilio?attempt=a1#rc=3",
            RECEIPT,
            "UDIBpWVmScIy1O3fI4++iZVmPxk=",
        ),
        (
            TWILIO,
            f"https://otp.example.test/otp/delivered/twilio?bodySHA256={JSON_HASH}",
            JSON_BODY,
            "CRnbW6A7pzlo+87f64fquzn6zMM=",
        ),
        (TWILIO, "https://e.test/", b"A=2&A=1&A=1&B=x", "aAq2M6tYfw5YHJBb+TBk9BYXfrI="),
    ],
)
def test_vectors_of_twilio(
    secret: str, url: str, fields: Mapping[str, str] | bytes, written: str
) -> None:
    callback = asked(url, fields, x_twilio_signature=written)

    assert TwilioSha1().proves(callback, [secret])
    assert not TwilioSha1().proves(replace(callback, body=callback.body + b" "), [secret])
    assert not TwilioSha1().proves(replace(callback, url=url.replace("://", "://x")), [secret])


@pytest.mark.parametrize(
    ("method", "query", "body", "written"),
    [
        (
            "POST",
            "",
            "MessageUUID=m-1&Status=delivered&To=33600000000&From=ACME+%26+Co",
            "292cv1kMoL0B6IBRxSCQi4rfrMdK4H8JxXcNrR/kjyI=",
        ),
        (
            "POST",
            "?b=2&a=1",
            "Status=sent&MessageUUID=m-1",
            "1w90mo+OdwkO9sjX5trErW3TOPBJDk2OVsGXpAenWhg=",
        ),
        ("GET", "?Status=sent&MessageUUID=m-1", "", "1Iad3A76ScA/vV0lVDJVM9x0nMGSWAU/eqmCMa1Yj/Y="),
        ("POST", "", "", "WckpucvgrIj+K9NQSWMTpSpEPzYd2e85zfDuJz3DCyE="),
    ],
)
def test_vectors_made_with_plivos_own_client(
    method: str, query: str, body: str, written: str
) -> None:
    """plivo 4.63.0, utils/signature_v3.py."""
    callback = asked(
        f"https://otp.example.test/otp/delivered/plivo/t1{query}",
        body.encode(),
        x_plivo_signature_v3=f"b3RoZXI=,{written}",
        x_plivo_signature_v3_nonce="12345678901234567890",
    )

    assert PlivoV3().proves(replace(callback, method=method), ["plivo-auth-token-for-tests"])
    assert not PlivoV3().proves(replace(callback, method=method), ["another"])


VONAGE = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE3MzU3NDAwMDAsImp0aSI6IjExMTExMTExLTIyMjItND"
    "MzMy04NDQ0LTU1NTU1NTU1NTU1NSIsImlzcyI6IlZvbmFnZSIsInBheWxvYWRfaGFzaCI6IjYzNWMzY2NhYjIyYjQzY"
    "zgxZWVhNGFiODQwOWFjZDlkYzkyZjcwYjY3NTJmN2Q4NjFhMzYwYjkxMjE1MzcxZjEiLCJhcGlfa2V5IjoiYWJjZDEy"
    "MzQiLCJhcHBsaWNhdGlvbl9pZCI6ImFhYWFhYWFhLWJiYmItNGNjYy04ZGRkLWVlZWVlZWVlZWVlZSJ9.z29awvFecH"
    "_xKgj0USAFzMeX6Na71DCFo1Qq0vLrhxY"
)
VONAGE_BODY = (
    b'{"message_uuid":"aaaaaaaa-bbbb-4ccc-8ddd-0123456789ab","to":"447700900000",'
    b'"from":"447700900001","timestamp":"2025-01-01T14:00:00.000Z","status":"delivered",'
    b'"channel":"sms","client_ref":"otp-1","usage":{"currency":"EUR","price":"0.0333"}}'
)


def test_the_vector_of_vonage() -> None:
    signature = Jwt(
        "authorization",
        "Bearer ",
        issuer="Vonage",
        required=("jti", "api_key"),
        payload_hash="payload_hash",
        max_age=300,
    )
    callback = Asked(
        headers={"authorization": f"Bearer {VONAGE}"},
        body=VONAGE_BODY,
        received_at=datetime.fromtimestamp(1735740010, UTC),
    )
    secret = "vonage-signature-secret-for-tests-0123456789"

    assert signature.proves(callback, [secret])
    assert not signature.proves(replace(callback, body=VONAGE_BODY + b" "), [secret])
    assert not signature.proves(replace(callback, received_at=NOW), [secret])


def test_the_vector_of_standard_webhooks() -> None:
    """The example of its specification."""
    signature = replace(STANDARD, key=KeyForm.BASE64)
    callback = Asked(
        headers={
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,other v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        body=b'{"test": 2432232314}',
        received_at=datetime.fromtimestamp(1614265330, UTC),
    )

    assert signature.proves(callback, ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    assert not signature.proves(callback, ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx"])
    assert signature.unusable("whsec_!")


# Tokens that are signed rightly and say the wrong thing.


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "Other"},
        {"iss": None},
        {"exp": int(AT) - 61},
        {"exp": "soon"},
        {"exp": True},
        {"nbf": int(AT) + 61},
        {"iat": int(AT) + 61},
        {"iat": int(AT) - 301},
        {"iat": None},
        {"payload_hash": None},
        {"payload_hash": 7},
        {"payload_hash": hashlib.sha256(b"").hexdigest()},
        {"url_hash": None},
        {"url_hash": hashlib.sha256(b"").hexdigest()},
    ],
)
def test_a_token_that_says_something_else_is_refused(claims: Mapping[str, Any]) -> None:
    signature = KINDS["jwt_hs"].signature
    callback = Asked(headers={"authorization": f"Bearer {token(SECRET, **claims)}"})

    assert not signature.proves(callback, [SECRET])


@pytest.mark.parametrize("head", [{"alg": "none"}, {"alg": "HS512"}, {"alg": ["HS256"]}, {}, []])
def test_a_token_of_another_algorithm_is_refused(head: object) -> None:
    _, claims, _ = token(SECRET).split(".")
    content = f"{b64url(orjson.dumps(head))}.{claims}"
    for signature in ("", b64url(mac(SECRET, content.encode()))):
        callback = Asked(headers={"authorization": f"Bearer {content}.{signature}"})

        assert not KINDS["jwt_hs"].signature.proves(callback, [SECRET])


def test_a_token_without_a_payload_hash_signs_nothing() -> None:
    assert not Jwt("authorization").signs


def test_a_callback_without_a_body_needs_no_payload_hash() -> None:
    written = token(SECRET, body=b"", payload_hash=None)
    callback = Asked(body=b"", headers={"authorization": f"Bearer {written}"})

    assert KINDS["jwt_hs"].signature.proves(callback, [SECRET])


def test_a_key_of_base64_has_one_spelling() -> None:
    assert signatures.derived(KeyForm.BASE64, "YWI=") == b"ab"
    assert [None] * 4 == [
        signatures.derived(KeyForm.BASE64, odd) for odd in ("YWI", "YWJ=", "YW I=", "")
    ]


def test_a_form_of_ten_thousand_fields_and_more_is_refused() -> None:
    callback = Asked(body=b"&".join([b"a=1"] * 10_001), headers={"x-twilio-signature": "x"})

    assert not TwilioSha1().proves(callback, [SECRET])


@pytest.mark.parametrize("name", ["plivo_v3", "twilio_sha1"])
def test_a_body_that_no_signature_covers_is_refused(name: str) -> None:
    """Both sign the URL of a GET and nothing more."""
    content = f"{URL}.n1" if name == "plivo_v3" else URL
    made = mac(SECRET, content.encode(), "sha256" if name == "plivo_v3" else "sha1")
    headers = {KINDS[name].header: b64(made), "x-plivo-signature-v3-nonce": "n1"}
    asked_for = Asked(method="GET", headers=headers, body=b"")

    assert KINDS[name].signature.proves(asked_for, [SECRET])
    assert not KINDS[name].signature.proves(replace(asked_for, body=BODY), [SECRET])


@pytest.mark.parametrize(
    ("called", "signed", "right"),
    [
        ("https://e.test:8443/x", "https://e.test:8443/x", True),
        ("https://e.test:8443/x", "https://e.test/x", False),
        ("http://e.test/x", "http://e.test:80/x", True),
        ("https://e.test:443/x", "https://e.test/x", True),
        ("https://[::1]/x", "https://[::1]:443/x", True),
        ("https://e.test/x", "https://e.test:80/x", False),
    ],
)
def test_twilio_may_name_the_port_or_not(called: str, signed: str, right: bool) -> None:
    written = b64(mac(SECRET, f"{signed}a1".encode(), "sha1"))
    callback = asked(called, b"a=1", x_twilio_signature=written)

    assert right == TwilioSha1().proves(callback, [SECRET])
