"""The language of definitions: what is wrong is named by its key, whatever it is."""

import copy
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import pytest

from gateway.domain.declared import definition
from gateway.domain.declared.definition import Definition, DefinitionError
from gateway.domain.delivery import State

SHIPPED = ("bird", "infobip", "messagebird", "plivo", "sinch", "telnyx")
FREE = re.compile(  # tables whose keys are the author's own
    r"values|statuses|failures|request\.(?:body|query|headers)(?:\..*)?"
)

SOUND = """
vendor = "ACME"
channels = ["sms"]
base_url = "https://{region}.acme.example"
secrets = ["key", "hub"]
correlates = "echo"

[values]
region = "eu"

[auth]
kind = "bearer"
secret = "key"

[request]
method = "POST"
path = "/messages/{attempt_id}"
content = "json"
headers = { x-id = "{attempt_id}" }
query = { v = "2" }
body = { to = "{to|digits}", ref = "{attempt_id}" }

[response]
content = "json"
success = [200, "2xx"]
id = ["id", "data.id|str"]
own_id = false
accepted = { path = "ok", is_not = false }
failed = { any = [{ path = "ok", is = false }, { path = "error", exists = true }] }
code = "error.code"
message = "error.text"
amount = "price"
currency = "unit"

[[errors]]
status = [400, "5xx"]
code = "E[0-9]+"
class = "throttled"
reason = "slow"
retry_after = "wait"
retry_header = "x-wait"

[callback]
methods = ["POST", "GET"]
content = "json"
items = "results[*]"
where = { all = [{ path = "kind", in = ["dlr"] }, { path = "id", matches = ".+" }] }
handshake = { token = "hub.verify_token", secret = "hub", challenge = "hub.challenge" }

[receipt]
id = "id"
attempt_id = "ref"
status = ["status", "sub"]
error = "code"
recipient = "to"
time = { path = "at", format = "iso", zone = "+02:00" }
amount = "price"
currency = "unit"

[statuses]
"ok/*" = "DELIVERED"
"no/1" = { state = "FAILED", reason = "gone", permanent = true }
"hm/1" = "ignore"

[failures]
9 = "busy"
10 = { reason = "gone", permanent = true }

[[signatures]]
kind = "hmac"
header = "X-Sig"
message = "{id}{nonce}{timestamp}{raw_body}"
algorithm = "sha512"
key = "base64"
encoding = "base64"
prefix = "v1,"
separator = " "
timestamp_header = "X-At"
nonce_header = "X-Nonce"
id_header = "X-Id"
tolerance = 60

[[signatures]]
kind = "jwt_hs"
header = "authorization"
prefix = "Bearer "
algorithms = ["HS256"]
issuer = "ACME"
required = ["jti"]
payload_hash = "payload_hash"
url_hash = "url_hash"
max_age = 60
leeway = 5

[[signatures]]
kind = "static_token"
in = "header"
name = "x-token"
prefix = "T "

[[signatures]]
kind = "basic"
user = "acme"

[[signatures]]
kind = "ip_allowlist"
header = "x-real-ip"
networks = ["192.0.2.0/24"]

[[signatures]]
kind = "plivo_v3"

[[signatures]]
kind = "twilio_sha1"

[poll]
method = "GET"
path = "/messages/{reference}"
item = "data"

[revoke]
method = "DELETE"
path = "/messages/{reference}"

[capabilities]
confirms = ["DELIVERED", "FAILED"]
idempotent = true
validity = true

[limits]
rate = 10
concurrency = 5

[sheet]
proof = "many things"
setup = ["Enter the URL."]
callback = "{public_url}/otp/delivered/{route}"
cost = "EUR"
"""

ODD: tuple[object, ...] = (7.5, [[]], {"?": 1})

OTHER_AUTH: dict[str, dict[str, object]] = {
    "none": {"kind": "none"},
    "basic": {"kind": "basic", "user": "{region}", "secret": "key"},
    "header": {"kind": "header", "name": "x-key", "prefix": "K ", "secret": "key"},
    "query": {"kind": "query", "name": "key", "secret": "key"},
    "oauth2": {
        "kind": "oauth2_client_credentials",
        "token_url": "{base_url}/token",
        "client_id": "{region}",
        "secret": "key",
        "scope": "sms",
        "skew": 30,
        "in_body": True,
    },
    "hmac": {
        "kind": "hmac",
        "secret": "key",
        "header": "x-sig",
        "prefix": "v1=",
        "message": "{timestamp}{nonce}{method}{path}{body_sha256_hex}",
        "algorithm": "sha1",
        "key": "sha256",
        "encoding": "base64",
        "timestamp_header": "x-at",
        "nonce_header": "x-nonce",
    },
}


def sound() -> dict[str, Any]:
    return tomllib.loads(SOUND)


def shipped(name: str) -> dict[str, Any]:
    file = resources.files("gateway.providers.definitions") / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def everything() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "everything", sound()
    for name, auth in OTHER_AUTH.items():
        raw = {**sound(), "auth": auth}
        raw["secrets"] = ["hub"] if name == "none" else ["key", "hub"]
        yield f"auth {name}", raw
    ed25519 = {"kind": "ed25519", "header": "x", "message": "{timestamp}{raw_body}"}
    yield "ed25519", {**sound(), "signatures": [{**ed25519, "timestamp_header": "t"}]}
    for name in SHIPPED:
        yield name, shipped(name)


def mistakes(raw: Mapping[str, Any]) -> Mapping[str, str]:
    with pytest.raises(DefinitionError) as refused:
        definition.parse(raw, "own")
    return refused.value.mistakes


def tables(raw: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every table that has keys of the language."""
    if isinstance(raw, dict):
        if not FREE.fullmatch(".".join(map(str, path))):
            yield path
        for key, value in raw.items():
            yield from tables(value, (*path, key))
    elif isinstance(raw, list):
        for at, value in enumerate(raw):
            yield from tables(value, (*path, at))


def entered(raw: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        raw = raw[step]
    return raw


@pytest.mark.parametrize(("label", "raw"), list(everything()))
def test_every_misspelt_key_is_named(label: str, raw: dict[str, Any]) -> None:
    definition.parse(raw, "own")
    for path in tables(raw):
        for key in entered(raw, path):
            spoiled = copy.deepcopy(raw)
            table = entered(spoiled, path)
            table[f"{key}x"] = table.pop(key)
            named = key if key == "kind" else f"{key}x"  # without its kind nothing else is judged
            found = mistakes(spoiled)

            assert ".".join(map(str, (*path, named))) in found, (label, path, key)


@pytest.mark.parametrize(("label", "raw"), list(everything()))
def test_every_value_of_a_wrong_kind_is_named(label: str, raw: dict[str, Any]) -> None:
    for path in tables(raw):
        for key in entered(raw, path):
            if FREE.fullmatch(".".join(map(str, (*path, key)))):
                continue  # any table will do
            for odd in ODD[1:] if key in ("is", "is_not") else ODD:
                spoiled = copy.deepcopy(raw)
                entered(spoiled, path)[key] = odd
                found = mistakes(spoiled)
                place = ".".join(map(str, (*path, key)))

                assert any(f"{one}.".startswith(f"{place}.") for one in found), (place, odd, found)


def test_what_is_sound_is_read() -> None:
    made = definition.parse(sound(), "own")

    assert {State.DELIVERED, State.FAILED} == made.confirms
    assert (10, 5) == (made.rate, made.concurrency)
    assert frozenset(range(200, 300)) == made.answer.success
    assert "Definition('own')" == repr(made)
    assert 7 == len(made.signatures)


def changed(place: str, value: object) -> dict[str, Any]:
    """The sound definition with something else at a place; None takes it away."""
    raw = sound()
    *path, last = place.split(".")
    table = entered(raw, tuple(int(step) if step.isdigit() else step for step in path))
    if value is None:
        del table[last]
    else:
        table[last] = value
    return raw


NEEDED = """vendor channels base_url? correlates auth auth.kind auth.secret response.id receipt.id?
receipt.attempt_id receipt.status receipt.time.path callback.handshake.token
callback.handshake.secret callback.handshake.challenge sheet.proof errors.0.class
signatures.0.kind signatures.0.header signatures.2.in signatures.2.name signatures.3.user
signatures.4.header signatures.4.networks"""


@pytest.mark.parametrize("place", [one for one in NEEDED.split() if not one.endswith("?")])
def test_what_is_missing_is_named(place: str) -> None:
    found = mistakes(changed(place, None))

    assert any(key.startswith(place) for key in found), found


@pytest.mark.parametrize(
    ("place", "value", "key", "why"),
    [
        ("correlates", "guess", "correlates", "must be one of echo, token, reference"),
        ("request.body", {"to": "{too}"}, "request.body.to", "there is no {too} here"),
        ("request.body", {"a": {"b": ["{x"]}}, "request.body.a.b.0", "lone brace"),
        ("request.body", {"to": "{to|upperr}"}, "request.body.to", "there is no filter"),
        ("request.body", {"to": "{to|default}"}, "request.body.to", "default has an argument"),
        ("request.body", {"to": "{to|digits:1}"}, "request.body.to", "the others have none"),
        ("request.body", {"to": "{}"}, "request.body.to", "names no variable"),
        ("request.body", {"to": "{secret.other}"}, "request.body.to", "there is no"),
        ("request.headers", {"x": "{text}"}, "request.headers.x", "there is no {text} here"),
        ("request.path", "/{reference}", "request.path", "there is no {reference} here"),
        ("request.method", "HEAD", "request.method", "must be one of"),
        ("request.content", "yaml", "request.content", "must be one of"),
        ("request.content", "query", "request.body", "stands under `query`"),
        ("request.content", "xml", "request.body", "the root element"),
        ("request.query", {"a": {"b": "1"}}, "request.query", "is flat"),
        ("request.query", {"a": [{"b": "1"}]}, "request.query", "is flat"),
        ("request.query", "a=1", "request.query", "is a table"),
        ("request.path", "messages", "request.path", "begins with a slash"),
        ("request.path", "/x?y=1", "request.path", "no query of its own"),
        ("request.headers", {"x y": "1"}, "request.headers.x y", "name of a header"),
        ("request.body", {"n": 2**63}, "request.body.n", "of 64 bits"),
        ("request.body", {"n": float("inf")}, "request.body.n", "of 64 bits"),
        ("response.content", "query", "response.content", "an answer has no query"),
        ("statuses", {"*": "FAILED"}, "statuses.*", "stands for every word"),
        ("statuses", {"*/*": "ACK"}, "statuses.*/*", "stands for every word"),
        ("base_url", "https://{to}", "base_url", "there is no {to} here"),
        ("values", {"to": "x"}, "values.to", "is not a free name"),
        ("values", {"Region": "x"}, "values.Region", "is not a free name"),
        ("secrets", ["Key"], "secrets", "is not a name"),
        ("secrets", ["key"], "secrets", "are exactly those that"),
        ("secrets", ["key", "hub", "more"], "secrets", "are exactly those that"),
        ("response.id", "a..b", "response.id", "is not a path"),
        ("response.id", "a[x]", "response.id", "is not a path"),
        ("response.id", ".a", "response.id", "is not a path"),
        ("response.success", [99], "response.success", "HTTP statuses"),
        ("response.success", "6xx", "response.success", "HTTP statuses"),
        ("response.failed", {"path": "a"}, "response.failed.path", "is not compared"),
        ("response.failed", {"is": 1}, "response.failed.path", "is missing"),
        ("response.failed", {"path": "a", "in": []}, "response.failed.in", "list of values"),
        ("response.failed", {"path": "a", "matches": "("}, "response.failed.matches", ""),
        ("response.failed", {"all": []}, "response.failed.all", "is a list of tests"),
        ("response.failed", {"all": [{"path": "a"}]}, "response.failed.all.0.path", "compared"),
        ("errors.0.class", "bad", "errors.0.class", "must be one of temporary"),
        ("errors.0.code", "(", "errors.0.code", ""),
        ("callback.methods", ["PUT"], "callback.methods", "is none of POST, GET"),
        ("callback.items", ["a", "b"], "callback.items", "is one path"),
        ("callback.content", "query", "signatures", "do not cover what a callback says"),
        ("receipt.time.zone", "CET", "receipt.time.zone", "is an offset"),
        ("receipt.time.zone", "+25:00", "receipt.time.zone", "is an offset"),
        ("statuses", {"ok": "GONE"}, "statuses.ok", "must be one of"),
        ("statuses", {"ok": "QUEUED"}, "statuses.ok", "must be one of"),
        ("statuses", {"ok": {"state": "ACK", "reason": "x"}}, "statuses.ok", "only FAILED"),
        ("failures", {"9": {"permanent": True}}, "failures.9.reason", "is missing"),
        ("capabilities.confirms", ["READ"], "capabilities.confirms", "that [statuses] tells"),
        ("signatures", [], "signatures", "and [callback] need each other"),
        ("signatures", [{"kind": "none"}], "signatures", 'none needs correlates = "token"'),
        ("signatures.0.kind", "md5", "signatures.0.kind", "must be one of none, basic"),
        ("signatures.0.message", "{url}", "signatures.0.timestamp_header", "need each other"),
        ("signatures.0.timestamp_header", None, "signatures.0.timestamp_header", "need each"),
        ("signatures.0.tolerance", 0, "signatures.0.tolerance", "a whole number from 1"),
        ("signatures.1.algorithms", ["none"], "signatures.1.algorithms", "is none of HS256"),
        ("signatures.4.networks", ["x"], "signatures.4.networks", ""),
        ("limits.rate", 0, "limits.rate", "a whole number from 1"),
        ("receipt.attempt_id", None, "receipt.attempt_id", "receipts are found by it"),
        ("auth.kind", "digest", "auth.kind", "must be one of none, basic"),
    ],
)
def test_what_is_wrong_is_named(place: str, value: object, key: str, why: str) -> None:
    found = mistakes(changed(place, value))

    assert key in found, found
    assert why in found[key]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"correlates": "token"}, "request"),
        ({"correlates": "reference", "response": {"own_id": True}}, "response.own_id"),
        ({"callback": None}, "signatures"),
        ({"callback": None, "signatures": None, "poll": None}, "capabilities.confirms"),
        (
            {
                "signatures": [
                    {"kind": "static_token", "in": "path"},
                    {
                        "kind": "ed25519",
                        "header": "x",
                        "message": "{timestamp}{raw_body}",
                        "timestamp_header": "t",
                    },
                ]
            },
            "signatures",
        ),
    ],
)
def test_what_cannot_be_true_together_is_named(changes: Mapping[str, object], key: str) -> None:
    raw = {name: value for name, value in {**sound(), **changes}.items() if value is not None}
    if raw["correlates"] == "reference":
        raw["receipt"] = {"id": "id", "status": "status"}

    assert key in mistakes(raw)


def test_a_form_is_flat() -> None:
    form = changed("request.content", "form")
    for body, flat in (
        ({"to": ["{to}", "1"], "id": "{attempt_id}"}, True),
        ({"id": {"is": "{attempt_id}"}}, False),
        ({"id": [{"is": "{attempt_id}"}]}, False),
        ({"id": [["{attempt_id}"]]}, False),
    ):
        form["request"]["body"] = body

        assert flat or "request.body" in mistakes(form)
        assert not flat or definition.parse(form, "own")


def test_a_body_has_to_be_writable() -> None:
    xml = changed("request.content", "xml")
    for body, sound_one in (
        ({"sms": {"@id": "{attempt_id}", "#text": "x", "a-b": [{"c.d": "1"}]}}, True),
        ({"sms": {"a b": "1"}, "x": "{attempt_id}"}, False),
        ({"sms": {"a b": "{attempt_id}"}}, False),
        ({"sms": [{"<": "{attempt_id}"}]}, False),
        ({"1": "{attempt_id}"}, False),
    ):
        xml["request"]["body"] = body

        assert sound_one or "request.body" in mistakes(xml)
        assert not sound_one or definition.parse(xml, "own")


def test_a_token_has_to_cover_the_url_where_everything_stands_in_it() -> None:
    token = {"kind": "jwt_hs", "payload_hash": "h"}
    raw = changed("callback.content", "query") | {"signatures": [token]}

    assert "signatures" in mistakes(raw)
    assert definition.parse(raw | {"signatures": [{**token, "url_hash": "u"}]}, "own")


def test_all_mistakes_are_told_at_once() -> None:
    raw = changed("vendor", None) | {"colour": "red"}
    raw["request"]["body"]["x"] = "{nobody}"

    assert {"vendor", "colour", "request.body.x"} == set(mistakes(raw))


def test_depth_is_bounded() -> None:
    deep: dict[str, Any] = {"x": "1"}
    for _ in range(30):
        deep = {"x": deep}
    tests: dict[str, Any] = {"path": "a", "is": 1}
    for _ in range(30):
        tests = {"all": [tests]}

    assert any("lies too deep" in why for why in mistakes(changed("request.body", deep)).values())
    assert mistakes(changed("response.failed", tests))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_says_where_its_facts_are_from(name: str) -> None:
    file = resources.files("gateway.providers.definitions") / f"{name}.toml"
    text = file.read_text(encoding="utf-8")

    assert "# https://" in text
    assert "# Unconfirmed: " in text


def reading(**receipt: Any) -> Definition:
    return definition.parse(changed("receipt.time", receipt), "own")


@pytest.mark.parametrize(
    ("format_", "zone", "written", "expected"),
    [
        ("", "+00:00", "2026-11-21 11:00", "2026-11-21 11:00"),
        ("iso", "+00:00", "2026-11-21T11:00:00+02:00", "2026-11-21T09:00:00Z"),
        ("iso", "-05:30", "2026-11-21T11:00:00", "2026-11-21T16:30:00Z"),
        ("unix_s", "+00:00", "1795255210", "2026-11-21T10:00:10Z"),
        ("unix_ms", "+00:00", "1795255210123", "2026-11-21T10:00:10.123000Z"),
        ("%d/%m/%Y %H:%M", "+01:00", "21/11/2026 11:00", "2026-11-21T10:00:00Z"),
        ("iso", "+00:00", "yesterday", "yesterday"),
        ("unix_s", "+00:00", "nan", "nan"),
        ("unix_s", "+00:00", "9" * 30, "9" * 30),
        ("%Y", "+00:00", "0001-", "0001-"),
        ("iso", "+14:00", "0001-01-01T00:00:00", "0001-01-01T00:00:00"),
    ],
)
def test_a_time_becomes_utc_or_stays_as_it_came(
    format_: str, zone: str, written: str, expected: str
) -> None:
    fields = reading(path="at", format=format_, zone=zone).fields

    assert expected == fields.moment(written)
