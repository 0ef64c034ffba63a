"""The generic provider with definitions of one's own: what the shipped ones have no need of."""

import base64
import hashlib
import hmac
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import orjson
import pytest
from providers.cases import CALLBACK, NOW, OUTGOING, SECRET

from gateway.domain.declared import definition
from gateway.domain.declared.definition import DefinitionError
from gateway.domain.delivery import State
from gateway.ports import (
    Accepted,
    Correlation,
    Malformed,
    NotSent,
    Polls,
    Receipt,
    RefusalKind,
    Refused,
    Reply,
    Response,
    Revokes,
    Secret,
    Unknown,
)
from gateway.providers.definitions import load, shipped
from gateway.providers.generic import Generic, GenericSettings
from gateway.transports.http import HttpTransport

OWN = """
vendor = "ACME"
channels = ["sms", "whatsapp"]
base_url = "https://acme.example/v1"
correlates = "echo"
{top}

[auth]
{auth}

[request]
path = "/send"
{request}

[response]
{response}

[callback]
{callback}

[receipt]
id = "id"
attempt_id = "ref"
status = "status"

[statuses]
ok = "DELIVERED"
no = {{ state = "FAILED", reason = "gone", permanent = true }}

[[signatures]]
kind = "static_token"
in = "path"

[capabilities]
confirms = ["DELIVERED", "FAILED"]

[sheet]
proof = "a key"
{rest}
"""
PARTS = {
    "top": "",
    "auth": 'kind = "none"',
    "request": 'body = { to = "{to}", ref = "{attempt_id}" }',
    "response": 'id = "id"',
    "callback": "",
    "rest": "",
}


def own(settings: Mapping[str, Any] | None = None, **parts: str) -> Generic:
    declared = definition.parse(tomllib.loads(OWN.format(**{**PARTS, **parts})), "own")
    values: dict[str, Any] = {
        "name": "own",
        "channel": "sms",
        "account": "own",
        "definition": declared,
        "callback_secret": (SECRET,),
        **(settings or {}),
    }
    return Generic(GenericSettings(**values), now=lambda: NOW)


KEY = {"secrets": {"key": Secret("the-key")}}
TOP = 'secrets = "key"'


# Requests.


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ('kind = "bearer"\nsecret = "key"', "Bearer the-key"),
        ('kind = "basic"\nuser = "ACME"\nsecret = "key"', "Basic QUNNRTp0aGUta2V5"),
        (
            'kind = "header"\nname = "Authorization"\nprefix = "App "\nsecret = "key"',
            "App the-key",
        ),
    ],
)
def test_a_request_proves_us_by_a_header(auth: str, header: str) -> None:
    request = own(KEY, top=TOP, auth=auth).build(OUTGOING)

    assert header == request.headers["authorization"]


def test_a_request_proves_us_by_a_parameter() -> None:
    auth = 'kind = "query"\nname = "api key"\nsecret = "key"'
    request = own(KEY, top=TOP, auth=auth, request=PARTS["request"] + '\nquery = { v = "2" }')

    assert "https://acme.example/v1/send?v=2&api+key=the-key" == str(request.build(OUTGOING).url)


@pytest.mark.parametrize(
    ("content", "content_type", "body", "written"),
    [
        (
            "form",
            "application/x-www-form-urlencoded",
            '{ to = "{to_digits}", t = "{text}", f = "{sender}", r = ["{attempt_id}", "x"] }',
            b"to=33600000000&t=1+%26+2&r=0193-a1&r=x",
        ),
        (
            "xml",
            "application/xml",
            '{ sms = { "@id" = "{attempt_id}", to = "{to}", text = "{text}", from = "{sender}" } }',
            b'<sms id="0193-a1"><to>+33600000000</to><text>1 &amp; 2</text></sms>',
        ),
        (
            "json",
            "application/json",
            '{ id = "{attempt_id}", ttl = "{ttl_s}", c = "{country}", l = "{locale|upper}" }',
            b'{"id":"0193-a1","ttl":120,"c":"FR","l":"EN"}',
        ),
    ],
)
def test_a_body_is_written_in_its_own_way(
    content: str, content_type: str, body: str, written: bytes
) -> None:
    provider = own(request=f'content = "{content}"\nbody = {body}')
    request = provider.build(replace(OUTGOING, text="1 & 2"))

    assert content_type == request.headers["content-type"]
    assert written == request.content


def test_a_request_may_stand_in_its_url_alone() -> None:
    query = '{ to = "{to}", text = "{text}", id = "{attempt_id}", k = "{secret.key}" }'
    request = f'method = "GET"\ncontent = "query"\nquery = {query}'
    provider = own(KEY, top=TOP, request=request)
    made = provider.build(replace(OUTGOING, text="a&b=c #é"))

    assert "GET" == made.method
    assert "content-type" not in made.headers
    assert (
        "https://acme.example/v1/send?to=%2B33600000000&text=a%26b%3Dc+%23%C3%A9"
        "&id=0193-a1&k=the-key" == str(made.url)
    )


def test_a_path_is_quoted_and_a_header_filled() -> None:
    text = OWN.replace('path = "/send"', 'path = "/{{to}}/{{attempt_id}}"')
    body = 'headers = { Idempotency-Key = "{attempt_id}" }'
    raw = tomllib.loads(text.format(**{**PARTS, "request": body}))
    settings = GenericSettings(
        name="own", channel="sms", account="own", definition=definition.parse(raw, "own")
    )
    request = Generic(settings).build(replace(OUTGOING, attempt_id="a/b?c"))

    assert "https://acme.example/v1/%2B33600000000/a%2Fb%3Fc" == str(request.url)
    assert "a/b?c" == request.headers["idempotency-key"]


def test_a_number_of_no_country_has_none() -> None:
    provider = own(request='body = { c = "{country}", id = "{attempt_id}" }')

    assert b'{"id":"0193-a1"}' == provider.build(replace(OUTGOING, recipient="+999")).content


# Requests that are signed, and tokens that are fetched first.


class Vendor:
    """A vendor behind the transport: gives tokens and takes messages."""

    def __init__(self, *answers: int, token: object = "t-1", life: object = 60) -> None:  # noqa: S107
        self.requests: list[httpx.Request] = []
        self.answers = list(answers)
        self.token = token
        self.life = life
        self.tokens = 0

    async def __call__(self, request: httpx.Request) -> Response:
        self.requests.append(request)
        if request.url.path.endswith("/token"):
            self.tokens += 1
            return Response(200, json={"access_token": self.token, "expires_in": self.life})
        return Response(self.answers.pop(0) if self.answers else 200, json={"id": "m_1"})

    async def send(self, provider: Generic) -> Response:
        transport = HttpTransport(httpx.MockTransport(self))
        return await transport.send(provider.build(OUTGOING), within=5, auth=provider.auth())


OAUTH = """kind = "oauth2_client_credentials"
token_url = "{base_url}/token"
client_id = "us"
secret = "key"
"""


async def test_a_token_is_fetched_once_and_kept() -> None:
    vendor, provider = Vendor(), own(KEY, top=TOP, auth=OAUTH + 'scope = "sms"\nskew = 10')
    answers = [await vendor.send(provider), await vendor.send(provider)]
    asked, *sent = vendor.requests

    assert [Accepted("m_1")] * 2 == [provider.parse(answer) for answer in answers]
    assert 1 == vendor.tokens
    assert "https://acme.example/v1/token" == str(asked.url)
    assert "Basic " + base64.b64encode(b"us:the-key").decode() == asked.headers["authorization"]
    assert {"grant_type": ["client_credentials"], "scope": ["sms"]} == parse_qs(
        asked.content.decode()
    )
    assert ["Bearer t-1"] * 2 == [request.headers["authorization"] for request in sent]


async def test_a_token_that_ends_soon_is_fetched_again() -> None:
    vendor, provider = Vendor(life=60), own(KEY, top=TOP, auth=OAUTH + "skew = 60")
    await vendor.send(provider)
    await vendor.send(provider)

    assert 2 == vendor.tokens


async def test_credentials_may_stand_in_the_body() -> None:
    vendor, provider = Vendor(life=None), own(KEY, top=TOP, auth=OAUTH + "in_body = true")
    await vendor.send(provider)
    asked = vendor.requests[0]

    assert "authorization" not in asked.headers
    assert {
        "grant_type": ["client_credentials"],
        "client_id": ["us"],
        "client_secret": ["the-key"],
    } == parse_qs(asked.content.decode())


async def test_a_kept_token_that_is_refused_is_fetched_anew_once() -> None:
    vendor, provider = (
        Vendor(200, 401, 200, 200, 401, 401),
        own(KEY, top=TOP, auth=OAUTH + "skew = 0"),
    )
    answers = [(await vendor.send(provider)).status_code for _ in range(4)]

    assert [200, 200, 200, 401] == answers
    assert 3 == vendor.tokens


async def test_a_token_that_somebody_else_has_fetched_meanwhile_is_used() -> None:
    """Two calls are refused with one kept token: only the first fetches another."""
    provider = own(KEY, top=TOP, auth=OAUTH + "skew = 0")
    auth: Any = provider.auth()
    await Vendor(token="t-1").send(provider)
    first, second = (auth.auth_flow(provider.build(OUTGOING)) for _ in range(2))
    used = [next(first).headers["authorization"], next(second).headers["authorization"]]
    refused, given = Response(401), Response(200, json={"access_token": "t-2"})
    asked = first.send(refused)
    again = [first.send(given), second.send(refused)]

    assert ["Bearer t-1"] * 2 == used
    assert asked.url.path.endswith("/token")
    assert ["Bearer t-2"] * 2 == [request.headers["authorization"] for request in again]


async def test_a_new_token_that_is_refused_is_not_fetched_again() -> None:
    vendor, provider = Vendor(401), own(KEY, top=TOP, auth=OAUTH)

    assert 401 == (await vendor.send(provider)).status_code
    assert 1 == vendor.tokens


@pytest.mark.parametrize("token", [None, 7, "", "two\nlines"])
async def test_without_a_token_nothing_is_sent(token: object) -> None:
    vendor, provider = Vendor(token=token), own(KEY, top=TOP, auth=OAUTH)
    with pytest.raises(NotSent):
        await vendor.send(provider)

    assert 1 == len(vendor.requests)


async def test_a_request_is_signed() -> None:
    auth = """kind = "hmac"
secret = "key"
header = "X-Sig"
prefix = "v1="
message = "{timestamp}\\n{nonce}\\n{method}\\n{path}\\n{body_sha256_hex}"
encoding = "base64"
timestamp_header = "X-At"
nonce_header = "X-Nonce"
"""
    vendor, provider = Vendor(), own(KEY, top=TOP, auth=auth)
    await vendor.send(provider)
    await vendor.send(provider)
    nonces = {request.headers["x-nonce"] for request in vendor.requests}
    request = vendor.requests[0]
    at = str(int(NOW.timestamp()))
    body = hashlib.sha256(request.content).hexdigest()
    signed = "\n".join((at, request.headers["x-nonce"], "POST", "/v1/send", body))
    mac = hmac.new(b"the-key", signed.encode(), "sha256").digest()

    assert at == request.headers["x-at"]
    assert "v1=" + base64.b64encode(mac).decode() == request.headers["x-sig"]
    assert 2 == len(nonces)


# Answers.


def answered(provider: Generic, status: int, body: object, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return provider.parse(Response(status, content=content, headers=headers))


def test_a_vendor_may_take_our_id() -> None:
    provider = own(response='own_id = true\naccepted = { path = "ok", is = true }')

    assert Accepted(None) == answered(provider, 200, {"ok": True})
    assert Unknown("odd_answer", "HTTP 200") == answered(provider, 200, b"<html>")


def test_an_id_may_be_a_number_where_the_path_says_so() -> None:
    provider = own(response='id = ["message.id", "id|str"]')

    assert Accepted("7") == answered(provider, 200, {"id": 7})
    assert Accepted("m_1") == answered(provider, 200, {"id": 7, "message": {"id": "m_1"}})


def test_an_answer_may_be_xml() -> None:
    provider = own(
        response='content = "xml"\nid = "r.msg.@id"\ncode = "r.err"\n'
        'failed = { path = "r.err", exists = true }'
    )

    assert Accepted("m_1") == answered(provider, 200, b'<r><msg id="m_1"/></r>')
    assert Refused("rejected", RefusalKind.PERMANENT, error="E7") == answered(
        provider, 200, b"<r><err>E7</err></r>"
    )
    assert Unknown("no_reference", "HTTP 200") == answered(
        provider, 200, b'<!DOCTYPE r [<!ENTITY x "m_1">]><r><msg id="&x;"/></r>'
    )


RULES = """
[[errors]]
status = 400
code = "E1"
class = "permanent_number"

[[errors]]
code = "E2"
class = "throttled"
retry_after = "wait"

[[errors]]
code = "E3"
class = "throttled"
retry_header = "X-Wait"

[[errors]]
code = "E4"
class = "uncertain"

[[errors]]
status = "5xx"
class = "temporary"
reason = "not_taken"
"""


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (400, {"code": "E1"}, {}, Refused("bad_destination", RefusalKind.PERMANENT, avoid=60.0)),
        (404, {"code": "E1"}, {}, Refused("rejected", RefusalKind.PERMANENT)),
        (400, {"code": "E2", "wait": 7}, {}, Refused("throttled", RefusalKind.THROTTLED, 7.0)),
        (400, {"code": "E2", "wait": -7}, {}, Refused("throttled", RefusalKind.THROTTLED)),
        (400, {"code": "E3"}, {"X-Wait": "9"}, Refused("throttled", RefusalKind.THROTTLED, 9.0)),
        (400, {"code": "E4"}, {}, Unknown("server_error")),
        (200, {"code": "E4"}, {}, Unknown("server_error")),
        (200, {"code": "E5"}, {}, Refused("rejected", RefusalKind.PERMANENT)),
        (502, {"code": "E5"}, {}, Refused("not_taken", RefusalKind.TEMPORARY)),
    ],
)
def test_errors_are_of_the_class_that_is_listed_first(
    status: int, body: Mapping[str, object], headers: Mapping[str, str], expected: Any
) -> None:
    response = 'id = "id"\ncode = "code"\nfailed = { path = "code", exists = true }'
    provider = own({"avoid": 60.0}, response=response, rest=RULES)

    assert replace(expected, error=body["code"]) == answered(provider, status, body, **headers)


# Callbacks.


def receipts(provider: Generic, body: bytes) -> list[Receipt | Malformed]:
    callback = replace(CALLBACK, key=SECRET, body=body)

    assert provider.authenticate(callback)
    return [replace(found, raw=b"") for found in provider.receipts(callback)]


GONE = Receipt(
    word="no",
    state=State.FAILED,
    reference="m_1",
    attempt_id="0193-a1",
    reason="gone",
    permanent=True,
    avoid=86_400.0,
)


@pytest.mark.parametrize(
    ("callback", "body", "expected"),
    [
        (
            'content = "xml"\nitems = "r.dlr[*]"',
            b"<r><dlr><id>m_1</id><ref>0193-a1</ref><status>no</status></dlr></r>",
            [GONE],
        ),
        (
            'content = "xml"\nitems = "r.dlr[*]"',
            b'<!DOCTYPE r [<!ENTITY x "no">]><r><dlr><status>&x;</status></dlr></r>',
            [Malformed("not xml", b"")],
        ),
        ('items = "a[*].b[*]"', b'{"a":[{"c":1},{"b":[]}]}', []),
        (
            'items = "a[*].b[*]"',
            b'{"a":[{"c":1},{"b":[{"id":"m_1","ref":"0193-a1","status":"no"},7]}]}',
            [GONE, Malformed("not an object", b"")],
        ),
        ('items = "a[*].b[*]"', b'{"b":[]}', [Malformed("no list of items", b"")]),
        ('items = "data"', b'{"data":{"id":"m_1","ref":"0193-a1","status":"no"}}', [GONE]),
        (
            'where = { path = "$.kind", is = "dlr" }\nitems = "a[*]"',
            b'{"kind":"mo","a":[{"id":"m_1","status":"no"}]}',
            [],
        ),
        ("", b'{"id":"m_1","ref":7,"status":"no"}', [replace(GONE, attempt_id=None)]),
        ("", b'{"ref":"0193-a1","status":"no"}', [Malformed("the id is missing or unusable", b"")]),
        ("", b"\xff", [Malformed("not json", b"")]),
    ],
)
def test_a_callback_is_read_by_its_shape(
    callback: str, body: bytes, expected: list[Receipt | Malformed]
) -> None:
    assert expected == receipts(own(callback=callback), body)


def test_a_definition_without_callbacks_hears_nothing() -> None:
    raw = tomllib.loads(OWN.format(**PARTS))
    for part in ("callback", "signatures", "capabilities"):
        del raw[part]
    settings = GenericSettings(
        name="own",
        channel="sms",
        account="own",
        definition=definition.parse(raw, "own"),
        callback_secret=(SECRET,),
    )
    provider = Generic(settings)

    assert not provider.authenticate(replace(CALLBACK, key=SECRET))
    assert [] == provider.receipts(replace(CALLBACK, key=SECRET))
    assert provider.handshake(CALLBACK) is None
    assert frozenset() == provider.confirms


HANDSHAKE = (
    'handshake = { token = "hub.verify_token", secret = "key", challenge = "hub.challenge" }'
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Reply(b"1158201444")),
        ({"hub.verify_token": "wrong"}, Reply(b"", status=403)),
        ({"hub.verify_token": ""}, Reply(b"", status=403)),
        ({"hub.verify_token": "é\udce9"}, Reply(b"", status=403)),
        ({"hub.challenge": ""}, Reply(b"", status=403)),
        ({"hub.challenge": "x" * 256}, Reply(b"", status=403)),
    ],
)
def test_a_handshake_is_answered(change: Mapping[str, str], expected: Reply) -> None:
    provider = own(KEY, top=TOP, callback=HANDSHAKE)
    query = {"hub.mode": "subscribe", "hub.verify_token": "the-key", "hub.challenge": "1158201444"}

    assert expected == provider.handshake(
        replace(CALLBACK, method="GET", query={**query, **change})
    )


def test_what_is_no_handshake_is_none() -> None:
    provider = own(KEY, top=TOP, callback=HANDSHAKE)
    query = {"hub.verify_token": "the-key", "hub.challenge": "1"}

    assert provider.handshake(replace(CALLBACK, method="GET", query={})) is None
    assert provider.handshake(replace(CALLBACK, query=query)) is None


# Asking, and taking back.

LATER = """
[poll]
path = "/messages/{reference}"
item = "data"

[revoke]
method = "DELETE"
path = "/messages"
query = { ref = "{attempt_id}" }
"""


def test_it_can_be_asked() -> None:
    provider: Any = own(rest=LATER)
    request = provider.build_poll("0193-a1", "m/1")
    body = orjson.dumps({"data": {"id": "m_1", "ref": "0193-a1", "status": "no"}})
    said = provider.parse_poll(Response(200, content=body))

    assert isinstance(provider, Polls)
    assert ("GET", "https://acme.example/v1/messages/m%2F1") == (request.method, str(request.url))
    assert GONE == replace(said, raw=b"")
    assert provider.build_poll("0193-a1", None) is None


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b'{"data":{"id":"m_1","status":"no"}}'), (200, b"[]"), (200, b'{"data":{"id":"m_1"}}')],
)
def test_a_poll_that_says_nothing(status: int, body: bytes) -> None:
    provider: Any = own(rest=LATER)

    assert provider.parse_poll(Response(status, content=body)) is None


def test_a_message_can_be_taken_back() -> None:
    provider: Any = own(rest=LATER)
    request = provider.build_revoke("0193-a1", None)

    assert isinstance(provider, Revokes)
    assert ("DELETE", "https://acme.example/v1/messages?ref=0193-a1") == (
        request.method,
        str(request.url),
    )
    assert b"" == request.content


def test_what_is_not_declared_is_not_there() -> None:
    assert not isinstance(own(), Polls)
    assert not isinstance(own(), Revokes)


# Settings.


def test_limits_are_the_lesser_of_both() -> None:
    limits = "[limits]\nrate = 10\nconcurrency = 5"
    ours = own({"rate": 3.0, "concurrency": 2}, rest=limits)
    theirs = own(rest=limits)

    assert (3.0, 2) == (ours.rate, ours.concurrency)
    assert (10, 5) == (theirs.rate, theirs.concurrency)
    assert (None, 64) == (own().rate, own().concurrency)


def test_the_sheet_is_the_definitions() -> None:
    provider = own()

    assert ("ACME", "a key") == (provider.sheet.vendor, provider.sheet.proof)
    assert (Correlation.ECHO, False) == (provider.correlates, provider.signed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channel": "voice"}, "channel: own has sms and whatsapp, not voice"),
        ({"timeout": 0.0}, "timeout"),
        ({"base_url": "ftp://x"}, "base_url"),
        ({"base_url": "https://x?y"}, "base_url"),
        ({"values": {"colour": "red"}}, "values: own knows region"),
        ({"values": {}}, "values: own needs region"),
        ({"values": {"region": ""}}, "values: own needs region"),
        ({"values": {"region": "a\nb"}}, "values: plain characters"),
        ({"secrets": {}}, "secrets: own needs exactly key"),
        ({"secrets": {"key": Secret("")}}, "secrets: own needs exactly key"),
        ({"secrets": {"key": Secret("x"), "k": Secret("y")}}, "secrets: own needs exactly key"),
        ({"secrets": {"key": Secret("é")}}, "secrets: plain characters"),
        ({"callback_secret": (Secret(""),)}, "callback_secret"),
        ({"callback_secret": Secret("one")}, "callback_secret"),
        ({"avoid": 0.0}, "avoid"),
    ],
)
def test_a_wrong_setting_is_named(settings: Mapping[str, Any], message: str) -> None:
    parts = {
        "top": 'secrets = "key"\nvalues = { region = "" }',
        "auth": 'kind = "bearer"\nsecret = "key"',
        "request": PARTS["request"] + '\nheaders = { x-region = "{region}" }',
    }
    sound = {**KEY, "values": {"region": "eu"}}
    own(sound, **parts)
    with pytest.raises(ValueError, match=f"^{message}"):
        own({**sound, **settings}, **parts)


def test_a_signing_key_has_to_be_one() -> None:
    auth = 'kind = "hmac"\nsecret = "key"\nheader = "x"\nmessage = "{raw_body}"\nkey = "base64"'
    with pytest.raises(ValueError, match=r"^secrets: the signing key is not base64"):
        own(KEY, top=TOP, auth=auth)


def test_a_definition_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN.format(**PARTS), encoding="utf-8")

    assert "ACME" == load(str(file)).vendor
    assert ["bird", "infobip", "messagebird", "plivo", "sinch", "telnyx"] == shipped()


Write = Callable[[Path], object]


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda file: None, "cannot be read"),
        (lambda file: file.write_text("a ="), "is not valid TOML"),
        (lambda file: file.write_bytes(b"\xff"), "is not valid TOML"),
        (lambda file: file.mkdir(), "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, write: Write, problem: str) -> None:
    file = tmp_path / "own.toml"
    write(file)
    with pytest.raises(DefinitionError, match=problem):
        load(str(file))


@pytest.mark.parametrize("named", ["nobody", "", "../generic", 7, None, "telnyx/"])
def test_a_name_that_is_none_is_told(named: object) -> None:
    with pytest.raises(DefinitionError, match="is one of bird, infobip"):
        load(named)


# The documentation.

DOCS = (Path(__file__).parents[2] / "docs" / "generic.md").read_text(encoding="utf-8")


def test_the_worked_example_works() -> None:
    example = DOCS.partition("# acme.toml\n")[2].partition("```")[0]
    settings = GenericSettings(
        name="acme",
        channel="sms",
        account="acme",
        definition=definition.parse(tomllib.loads(example), "acme"),
        secrets={"token": Secret("the-token")},
        callback_secret=(SECRET,),
    )
    provider = Generic(settings)
    request = provider.build(OUTGOING)
    report = {"kind": "delivery", "id": "m-17", "state": "failed", "detail": "network", "cause": 2}
    reports = [
        report,
        {**report, "kind": "reply"},
        {**report, "state": "sent", "detail": "carrier"},
    ]
    body = orjson.dumps({"reports": reports})
    at = str(int(NOW.timestamp()))
    mac = hmac.new(SECRET.encode(), f"{at}.".encode() + body, "sha256").hexdigest()
    headers = {"x-acme-time": at, "x-acme-signature": f"sha256={mac}"}
    callback = replace(CALLBACK, body=body, headers=headers, attempt_id="0193-a1")

    assert "https://eu.acme.example/v2/sms" == str(request.url)
    assert ["33600000000"] == orjson.loads(request.content)["to"]
    assert Accepted("m-17") == answered(provider, 200, {"message": {"id": "m-17"}})
    assert Refused("throttled", RefusalKind.THROTTLED, 5.0, "E40") == answered(
        provider, 200, {"error": {"code": "E40", "wait": 5}}
    )
    assert provider.authenticate(callback)
    assert [
        ("failed/network", State.FAILED, "bad_destination"),
        ("sent/carrier", State.ACK, None),
    ] == [
        (found.word, found.state, found.reason)
        for found in provider.receipts(callback)
        if isinstance(found, Receipt)
    ]


def test_every_key_of_the_language_is_explained() -> None:
    """Those that the readers ask for, by the names they ask for."""
    folder = Path(definition.__file__).parent
    asked = {
        key
        for module in ("definition", "schemes", "reading")
        for key in re.findall(
            r"(?:table|time|line|limits|sheet|capabilities|poll)"
            r"\.(?:text|texts|flag|number|choice|choices|paths|each_path|template|templates|tree|"
            r'predicate|pattern|table|tables|has|take)\(\s*"(\w+)"',
            (folder / f"{module}.py").read_text(encoding="utf-8"),
        )
    }

    assert len(asked) > 60
    assert [] == sorted(key for key in asked if not re.search(rf"`[^`]*\b{key}\b[^`]*`", DOCS))
