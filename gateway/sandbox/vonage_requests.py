"""What Vonage accepts: who may ask, and what a message and a call must look like.

    Authorization: Bearer <JWT>   RS256: application_id, iat, jti, exp
    Authorization: Basic <api_key:api_secret>   messages and balance only

Refusals have the vendor's bodies: problem documents of the Messages API, the older ones of the
Voice API.
"""

import binascii
import hmac
import re
import secrets
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway.sandbox.answers import Refusal
from gateway.sandbox.behaviour import E164, Channel

Account = Mapping[str, str]

# Its channels: ours, and the longest text.
CHANNELS = {
    "messenger": (Channel.MESSENGER, 640),
    "rcs": (Channel.RCS, 3072),
    "sms": (Channel.SMS, 1000),
    "viber_service": (Channel.VIBER, 1000),
    "whatsapp": (Channel.WHATSAPP, 4096),
}
TTLS = {"rcs": (300, 259_200), "sms": (20, 604_800), "viber_service": (30, 259_200)}
MAX_CLIENT_REF = 100
MAX_TALK = 1500
MAX_LIFE = 86_400  # seconds of a token
SKEW = 60  # seconds a token may come from the future

_ERRORS = "https://developer.nexmo.com/api-errors"
_WEB = re.compile(r"https?://[^/\s]+\S*")
_FROM = re.compile(r"[A-Za-z0-9_&+. -]{1,50}")


class Problem(Refusal):
    """A problem document (RFC 7807): `kind` is the end of its `type`, after the vendor's page."""

    def __init__(self, status: int, kind: str, title: str, detail: str, **more: object) -> None:
        body = {
            "type": f"{_ERRORS}{kind}",
            "title": title,
            "detail": detail,
            "instance": secrets.token_hex(16),
            **more,
        }
        super().__init__(status, body)


class BadCall(Refusal):
    """What the Voice API says."""

    def __init__(self, status: int, kind: str, title: str, **wrong: str) -> None:
        body: dict[str, object] = {"type": kind, "error_title": title}
        super().__init__(status, body | ({"invalid_parameters": wrong} if wrong else {}))


@dataclass(frozen=True, slots=True)
class Submission:
    """A message or a call, understood. `name`: of the channel, in the vendor's words."""

    name: str
    channel: Channel
    number: str
    sender: str | None
    text: str
    url: str | None
    client_ref: str | None = None


def check_bearer(account: Account | None, header: str, now: datetime) -> bool:
    """Whether it carries a token of the account's application that is valid now."""
    scheme, _, token = header.partition(" ")
    parts = token.split(".")
    if account is None or scheme != "Bearer" or len(parts) != 3:
        return False
    try:
        head, claims = (orjson.loads(_decoded(part)) for part in parts[:2])
        key = load_pem_public_key(account["public_key"].encode())
        if not isinstance(key, RSAPublicKey) or head["alg"] != "RS256":
            return False
        signed = ".".join(parts[:2]).encode()
        key.verify(_decoded(parts[2]), signed, PKCS1v15(), SHA256())
        life = claims["exp"] - claims["iat"]
        fresh = claims["iat"] - SKEW <= now.timestamp() < claims["exp"]
        ours = claims["application_id"] == account["application_id"]
    except (InvalidSignature, KeyError, TypeError, ValueError):
        return False
    return ours and fresh and 0 < life <= MAX_LIFE and bool(claims.get("jti"))


def check_basic(account: Account | None, header: str) -> bool:
    """Whether it carries the account's key and secret."""
    scheme, _, given = header.partition(" ")
    if account is None or scheme != "Basic" or not account.get("api_secret"):
        return False
    right = f"{account['api_key']}:{account['api_secret']}".encode()
    try:
        return hmac.compare_digest(b64decode(given, validate=True), right)
    except binascii.Error:
        return False


def read_message(body: bytes) -> Submission:
    """Raises Problem."""
    fields = _fields(
        body, lambda: Problem(422, "#invalid-json", "Invalid JSON", "The body is no JSON object.")
    )
    name = fields.get("channel")
    if not isinstance(name, str) or name not in CHANNELS:
        raise _wrong("1100", "Unsupported channel", "The specified channel is not supported.")
    to, sender = fields.get("to"), fields.get("from")
    if not isinstance(to, str) or not E164.fullmatch(f"+{to}"):
        detail = "The `to` parameter is invalid for the given channel."
        raise _wrong("110", "Invalid recipient", detail)  # 110 is the vendor's own slip
    if not isinstance(sender, str) or not _FROM.fullmatch(sender) or sender.startswith("+"):
        detail = "The `from` parameter is invalid for the given channel."
        raise _wrong("1120", "Invalid sender", detail)
    ref = fields.get("client_ref")
    if ref is not None and not (isinstance(ref, str) and len(ref) <= MAX_CLIENT_REF):
        detail = f"The client reference can be a string of up to {MAX_CLIENT_REF} characters."
        raise _wrong("1060", "Invalid client reference", detail)
    _check_options(name, fields)
    channel, most = CHANNELS[name]
    text = _text(name, fields, most)
    return Submission(name, channel, f"+{to}", sender, text, fields.get("webhook_url"), ref)


def read_call(body: bytes) -> Submission:
    """Raises BadCall."""
    fields = _fields(body, lambda: BadCall(400, "BAD_REQUEST", "Bad Request", body="no JSON"))
    to, sender = fields.get("to"), fields.get("from")
    number = _phone(to[0]) if isinstance(to, list) and len(to) == 1 else None
    if number is None:
        raise _bad(to="one phone is expected")
    chosen = fields.get("random_from_number") is True
    if chosen == (sender is not None) or (sender is not None and _phone(sender) is None):
        raise _bad(**{"from": "a phone or random_from_number is expected"})
    urls = fields.get("event_url")
    if urls is not None and not (isinstance(urls, list) and len(urls) == 1 and _is_web(urls[0])):
        raise _bad(event_url="a list of one URL is expected")
    for name, most in (("ringing_timer", 120), ("length_timer", 7200)):
        if not _between(fields.get(name), 1, most):
            raise _bad(**{name: f"1 to {most} seconds are expected"})
    if fields.get("machine_detection") not in (None, "continue", "hangup"):
        raise _bad(machine_detection="continue or hangup is expected")
    return Submission(
        "voice",
        Channel.VOICE,
        number,
        None if sender is None else sender["number"],
        _spoken(fields.get("ncco")),
        urls[0] if urls else None,
    )


def unauthorized() -> Problem:
    """What the Messages API says to strangers."""
    detail = "Check that you're using the correct credentials."
    return Problem(401, "/#unathorized", "You did not provide correct credentials.", detail)


def no_parameter(name: str, reason: str) -> Problem:
    """A parameter of a message that is missing or wrong."""
    return _wrong(
        "1150",
        "Invalid params",
        "The value of one or more parameters is invalid.",
        invalid_parameters=[{"name": name, "reason": reason}],
    )


def _wrong(code: str, title: str, detail: str, **more: object) -> Problem:
    return Problem(422, f"/messages-olympus#{code}", title, detail, **more)


def _bad(**wrong: str) -> BadCall:
    return BadCall(400, "BAD_REQUEST", "Bad Request", **wrong)


def _fields(body: bytes, refusal: Callable[[], Refusal]) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise refusal() from None
    if not isinstance(fields, dict):
        raise refusal()
    return fields


def _check_options(name: str, fields: Mapping[str, Any]) -> None:
    """What not every message has."""
    url, version = fields.get("webhook_url"), fields.get("webhook_version")
    if url is not None and not _is_web(url):
        raise no_parameter("webhook_url", "must be a URL")
    if version not in (None, "v1", "v0.1"):
        raise no_parameter("webhook_version", "must be v1 or v0.1")
    viber = name == "viber_service"
    options = fields.get(name, {})
    if not isinstance(options, dict):
        raise no_parameter(name, "must be an object")
    ttl = options.get("ttl") if viber else fields.get("ttl")
    if ttl is not None and not _between(ttl, *TTLS.get(name, (1, 0))):
        raise no_parameter(f"{name}.ttl" if viber else "ttl", "is out of range")
    category = options.get("category")
    if viber and category not in (None, "transaction", "promotion"):
        raise no_parameter("viber_service.category", "must be transaction or promotion")
    if name == "messenger":
        if category not in (None, "response", "update", "message_tag"):
            raise no_parameter("messenger.category", "must be response, update or message_tag")
        if category == "message_tag" and not options.get("tag"):
            raise no_parameter("messenger.tag", "is required")


def _text(name: str, fields: Mapping[str, Any], most: int) -> str:
    """What the handset shows."""
    kind = fields.get("message_type")
    if kind == "text" and name != "whatsapp":  # nobody here is inside a session window
        text = fields.get("text")
        if not isinstance(text, str) or not 1 <= len(text) <= most:
            raise no_parameter("text", f"must have 1 to {most} characters")
        return text
    try:
        if kind == "template" and name == "whatsapp":
            code = fields["template"]["name"] and fields["template"]["parameters"][0]
            complete = fields["whatsapp"]["policy"] == "deterministic"
            complete = complete and bool(fields["whatsapp"]["locale"])
        elif kind == "custom" and name == "whatsapp":
            code, complete = _template(fields["custom"])
        else:
            detail = "The `message_type` parameter is invalid for the given channel."
            raise _wrong("1140", "Invalid message type", detail)
    except (IndexError, KeyError, TypeError):
        complete = False
    if not complete or not isinstance(code, str):
        raise no_parameter(str(kind), "is not a template that can be sent")
    return f"{code} is your verification code."


def _template(custom: Any) -> tuple[Any, bool]:
    """The code of Meta's authentication template, which its body and its button both have."""
    template = custom["template"]
    body, button = template["components"]
    said = [part["parameters"][0]["text"] for part in (body, button)]
    language = template["language"]
    return said[0], bool(
        custom["type"] == "template"
        and template["name"]
        and language["policy"] == "deterministic"
        and re.fullmatch("[a-z]{2,3}(_[A-Z]{2})?", language["code"])
        and [body["type"], button["type"], button["sub_type"]] == ["body", "button", "url"]
        and said[0] == said[1]
    )


def _spoken(ncco: Any) -> str:
    talk = ncco[0] if isinstance(ncco, list) and len(ncco) == 1 else None
    if not isinstance(talk, dict) or talk.get("action") != "talk":
        raise _bad(ncco="one talk action is expected")
    text = talk.get("text")
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_TALK:
        raise _bad(ncco=f"text: 1 to {MAX_TALK} characters are expected")
    return text


def _phone(endpoint: Any) -> str | None:
    if not isinstance(endpoint, dict) or endpoint.get("type") != "phone":
        return None
    number = f"+{endpoint.get('number')}"
    return number if E164.fullmatch(number) else None


def _between(given: object, least: int, most: int) -> bool:
    return given is None or (type(given) is int and least <= given <= most)


def _is_web(url: object) -> bool:
    return isinstance(url, str) and _WEB.fullmatch(url) is not None


def _decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
