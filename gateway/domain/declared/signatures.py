"""How a callback is known to be the vendor's: one class a kind, each with the same two questions.

`proves` compares against every secret, so that time does not tell which one is right, and answers
no to whatever it cannot read. Texts are compared as they were written: a second spelling of the
same bytes is no signature.

Over 400 lines: one short class for each kind there is.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from urllib.parse import parse_qs, parse_qsl, urlsplit

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.domain.declared.bodies import MOST
from gateway.domain.declared.template import Slot, Template

STANDARD_WEBHOOKS = "whsec_"  # what its base64 keys begin with

_SECONDS = re.compile("[0-9]{1,12}")
_PORTS = {"https": 443, "http": 80}
JWT_HASHES = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}


class Request(Protocol):
    """What is looked at: a `ports.Callback`."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def query(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def received_at(self) -> datetime: ...


class Signature(Protocol):
    """One way of proof. `signs`: it covers what the callback says, and not only who says it."""

    @property
    def signs(self) -> bool: ...
    @property
    def secret(self) -> bool:
        """Whether it needs one."""
        ...

    def proves(self, request: Request, secrets: Sequence[str]) -> bool: ...

    def unusable(self, secret: str) -> bool:
        """Whether the secret cannot be one of this kind."""
        ...


@dataclass(frozen=True, slots=True)
class _WithSecret:
    """What most kinds are."""

    @property
    def signs(self) -> bool:
        return True

    @property
    def secret(self) -> bool:
        return True

    def unusable(self, secret: str) -> bool:
        return secret == ""


@dataclass(frozen=True, slots=True)
class Nothing(_WithSecret):
    """No proof but the URL, which is the message's own; only where each message has its own."""

    @property
    def signs(self) -> bool:
        return False

    @property
    def secret(self) -> bool:
        return False

    def proves(self, request: Request, secrets: Sequence[str]) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Allowlist(_WithSecret):
    """The caller's address, as a trusted proxy wrote it into a header."""

    header: str
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

    @property
    def signs(self) -> bool:
        return False

    @property
    def secret(self) -> bool:
        return False

    def proves(self, request: Request, secrets: Sequence[str]) -> bool:
        try:
            address = ipaddress.ip_address(_header(request, self.header))
        except ValueError:
            return False
        return any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Basic(_WithSecret):
    """HTTP Basic with a fixed name; the secret is the password."""

    user: str

    @property
    def signs(self) -> bool:
        return False

    def proves(self, request: Request, secrets: Sequence[str]) -> bool:
        given = _header(request, "authorization")
        pairs = (f"{self.user}:{secret}".encode() for secret in secrets)
        return _among([given], [f"Basic {base64.b64encode(pair).decode()}" for pair in pairs])


class Place(StrEnum):
    """Where a static token stands."""

    PATH = "path"  # the last segment of the callback URL
    HEADER = "header"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class StaticToken(_WithSecret):
    """The secret itself."""

    place: Place
    name: str = ""
    prefix: str = ""

    @property
    def signs(self) -> bool:
        return False

    def proves(self, request: Request, secrets: Sequence[str]) -> bool:
        match self.place:
            case Place.PATH:
                given = request.key
            case Place.HEADER:
                given = _header(request, self.name)
            case Place.QUERY:
                given = request.query.get(self.name)
        return given is not None and _among([given], [self.prefix + one for one in secrets])


class KeyForm(StrEnum):
    """How the HMAC key is made of the secret."""

    RAW = "raw"
    SHA256 = "sha256"  # as Telegram
    BASE64 = "base64"  # as Standard Webhooks


@dataclass(frozen=True, slots=True)
class Hmac(_WithSecret):
    """An HMAC of a text put together from the callback."""

    header: str
    message: Template
    algorithm: str = "sha256"
    key: KeyForm = KeyForm.RAW
    encoding: str = "hex"
    prefix: str = ""
    separator: str = ""
    timestamp_header: str = ""
    nonce_header: str = ""
    id_header: str = ""
    tolerance: int = 300

    def proves(self, request: Request, secrets: Sequence[str]) -> bool:
        signed = canonical(self.message, self._pieces(request))
        if signed is None or not self._fresh(request):
            return False
        written = _header(request, self.header)
        several = written.split(self.separator) if self.separator else [written]
        given = [one.removeprefix(self.prefix) for one in several if one.startswith(self.prefix)]
        keys = [derived(self.key, secret) for secret in secrets]
        macs = [hmac.digest(key, signed, self.algorithm) for key in keys if key is not None]
        return _among(given, [encoded(self.encoding, mac) for mac in macs])

    def unusable(self, secret: str) -> bool:
        return not derived(self.key, secret)

    def _fresh(self, request: Request) -> bool:
        if not self.timestamp_header:
            return True
        return _recent(_header(request, self.timestamp_header), request, self.tolerance)

    def _pieces(self, request: Request) -> Mapping[str, bytes | None]:
        headers = {
            "timestamp": self.timestamp_header,
            "nonce": self.nonce_header,
            "id": self.id_header,
        }
        given = {name: _header(request, header) for name, header in headers.items() if header}
        return {
            **{name: _bytes(value) if value else None for name, value in given.items()},
            "url": _bytes(request.url),
            "method": _bytes(request.method),
            **body_pieces(request.body),
        }


OF_BODY = frozenset({"body_sha256_hex", "body_sha256_raw", "raw_body"})
PIECES = OF_BODY | {"id", "method", "nonce", "timestamp", "url"}


def body_pieces(body: bytes) -> Mapping[str, bytes]:
    """What a canonical text may hold of a body."""
    digest = hashlib.sha256(body)
    return {
        "raw_body": body,
        "body_sha256_raw": digest.digest(),
        "body_sha256_hex": digest.hexdigest().encode(),
    }


def canonical(message: Template, pieces: Mapping[str, bytes | None]) -> bytes | None:
    """The bytes that are signed; None when a piece of them is missing."""
    filled = [
        pieces.get(part.name) if isinstance(part, Slot) else part.encode() for part in message.parts
    ]
    found = [part for part in filled if part is not None]
    return b"".join(found) if len(found) == len(filled) else None


def derived(form: KeyForm, secret: str) -> bytes | None:
    """The key a secret stands for; None when it stands for none."""
    match form:
        case KeyForm.RAW:
            return secret.encode()
        case KeyForm.SHA256:
            return hashlib.sha256(secret.encode()).digest() if secret else None
        case KeyForm.BASE64:
            return _unbase64(secret.removeprefix(STANDARD_WEBHOOKS))


def encoded(encoding: str, mac: bytes) -> str:
    """A signature as text."""
    return mac.hex() if encoding == "hex" else base64.b64encode(mac).decode()


@dataclass(frozen=True, slots=True)
class Ed25519(_WithSecret):
    """A public-key signature; the secrets are the vendor's public keys in base64."""

    header: str
    message: Template
    timestamp_header: str
    tolerance: int = 300

    def proves(self, request: Request, secrets: Sequence[str]) -> bool:
        at = _header(request, self.timestamp_header)
        pieces = {
            "timestamp": _bytes(at),
            "url": _bytes(request.url),
            "method": _bytes(request.method),
            **body_pieces(request.body),
        }
        signed = canonical(self.message, pieces)
        signature = _unbase64(_header(request, self.header))
        if signed is None or signature is None or not _recent(at, request, self.tolerance):
            return False
        return any(_verified(key, signature, signed) for key in secrets)  # public: no time to hide

    def unusable(self, secret: str) -> bool:
        return len(_unbase64(secret) or b"") != 32


@dataclass(frozen=True, slots=True)
class Jwt(_WithSecret):
    """A JSON web token with HMAC, its claims naming the hashes of body and URL."""

    header: str
    prefix: str = ""
    algorithms: tuple[str, ...] = ("HS256",)
    issuer: str = ""
    required: tuple[str, ...] = ()
    payload_hash: str = ""
    url_hash: str = ""
    max_age: int | None = None
    leeway: int = 60

    @property
    def signs(self) -> bool:
        return bool(self.payload_hash)

    def proves(self, request: Request, secrets: Sequence[str]) -> bool:
        written = _header(request, self.header)
        head, dot, rest = written.removeprefix(self.prefix).partition(".")
        claims, second, signature = rest.partition(".")
        name = str(_token_part(head).get("alg"))
        if not (written.startswith(self.prefix) and dot and second and name in self.algorithms):
            return False
        content, algorithm = _bytes(f"{head}.{claims}"), JWT_HASHES[name]
        macs = [hmac.digest(secret.encode(), content, algorithm) for secret in secrets]
        expected = [base64.urlsafe_b64encode(mac).decode().rstrip("=") for mac in macs]
        return _among([signature], expected) and self._fits(_token_part(claims), request)

    def _fits(self, claims: Mapping[str, object], request: Request) -> bool:
        checks = [
            not self.issuer or claims.get("iss") == self.issuer,
            all(name in claims for name in self.required),
            self._timely(claims, request.received_at.timestamp()),
            not self.payload_hash or _hashes(claims.get(self.payload_hash), request.body),
            not self.url_hash
            or claims.get(self.url_hash) == hashlib.sha256(_bytes(request.url)).hexdigest(),
        ]
        return all(checks)

    def _timely(self, claims: Mapping[str, object], now: float) -> bool:
        ends, begins, made = (_time(claims, name) for name in ("exp", "nbf", "iat"))
        if ends is False or begins is False or made is False:
            return False  # not a time
        if self.max_age is not None and (made is None or now - made > self.max_age):
            return False
        late = ends is not None and now > ends + self.leeway
        return not late and all(one is None or now >= one - self.leeway for one in (begins, made))


@dataclass(frozen=True, slots=True)
class PlivoV3(_WithSecret):
    """Plivo: HMAC-SHA256 of URL, sorted fields and nonce, as its own client puts them together: a
    POST with fields has a `?` after the path even where the URL has no query."""

    header: str = "x-plivo-signature-v3"
    nonce_header: str = "x-plivo-signature-v3-nonce"

    def proves(self, request: Request, secrets: Sequence[str]) -> bool:
        nonce, fields = _header(request, self.nonce_header), _fields(request)
        if not nonce or fields is None:
            return False
        parts = urlsplit(request.url)
        asked = parse_qs(parts.query, keep_blank_values=True)
        query = "&".join(
            f"{name}={value}" for name in sorted(asked) for value in sorted(asked[name])
        )
        text = f"{parts.scheme}://{parts.netloc}{parts.path}"
        text += f"?{query}" if query or fields else ""
        text += "." if query and fields else ""
        text += "".join(name + value for name, value in sorted(fields))
        signed = _bytes(f"{text}.{nonce}")
        macs = [hmac.digest(secret.encode(), signed, "sha256") for secret in secrets]
        given = _header(request, self.header).split(",")
        return _among(given, [base64.b64encode(mac).decode() for mac in macs])


@dataclass(frozen=True, slots=True)
class TwilioSha1(_WithSecret):
    """Twilio: HMAC-SHA1 of the URL and the sorted fields; of the URL alone where it carries the
    hash of a JSON body. The sender is not consistent about the default port: both are tried."""

    header: str = "x-twilio-signature"

    def proves(self, request: Request, secrets: Sequence[str]) -> bool:
        stated = request.query.get("bodySHA256")
        fields = _fields(request) if stated is None else []
        if fields is None:
            return False
        text = "".join(name + value for name, value in sorted(set(fields)))
        signed = [_bytes(url + text) for url in _spellings(request.url)]
        macs = [hmac.digest(key.encode(), one, "sha1") for key in secrets for one in signed]
        given = [_header(request, self.header)]
        right = _among(given, [base64.b64encode(mac).decode() for mac in macs])
        return right and (stated is None or _hashes(stated, request.body))


def _header(request: Request, name: str) -> str:
    """The header; "" where it is missing, or came twice: nobody could say which one counts."""
    value = request.headers.get(name, "")
    return "" if "\n" in value else value


def _among(given: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether one of the given is one of the expected; all pairs are compared."""
    found = False
    for right in expected:
        for one in given:
            found |= hmac.compare_digest(right.encode(), _bytes(one))
    return found


def _bytes(text: str) -> bytes:
    """What is not Unicode stays readable, and fits nothing."""
    return text.encode(errors="backslashreplace")


def _recent(written: str, request: Request, tolerance: int) -> bool:
    if not _SECONDS.fullmatch(written):
        return False
    return abs(request.received_at.timestamp() - int(written)) <= tolerance


def _unbase64(text: str) -> bytes | None:
    """Decoded where it is spelled in the one right way."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if decoded and base64.b64encode(decoded).decode() == text else None


def _verified(key: str, signature: bytes, signed: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(_unbase64(key) or b"").verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _token_part(text: str) -> Mapping[str, object]:
    """One part of a JSON web token."""
    try:
        decoded = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _time(claims: Mapping[str, object], name: str) -> float | bool | None:
    """The claim; None where there is none, False where it is no time."""
    value = claims.get(name)
    if value is None:
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else False


def _hashes(stated: object, body: bytes) -> bool:
    """Whether it is the hash of the body; without a body there need be none."""
    if stated is None:
        return body == b""
    return isinstance(stated, str) and _among([stated], [hashlib.sha256(body).hexdigest()])


def _fields(request: Request) -> list[tuple[str, str]] | None:
    """What a form says; None where the body is none that a signature could cover."""
    if request.method != "POST":
        return None if request.body else []
    try:
        text = request.body.decode(errors="replace")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST)
    except ValueError:
        return None


def _spellings(url: str) -> tuple[str, str]:
    """The URL without fragment, with and without its scheme's own port."""
    url = url.partition("#")[0]
    parts = urlsplit(url)
    host, port = parts.netloc, _PORTS.get(parts.scheme)
    ending = f":{port}"
    other = host.removesuffix(ending) if host.endswith(ending) else host + ending
    bare = re.fullmatch(r"[^:]+|\[[^\]]*\]", host)
    if port is None or not (bare or host.endswith(ending)):
        return url, url
    return url, url.replace(f"://{host}", f"://{other}", 1)
