"""Reading the two lists of kinds: how a request proves us to the vendor, and how a callback
proves the vendor to us."""

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.domain.declared import signatures
from gateway.domain.declared.bodies import Kind
from gateway.domain.declared.reading import Table
from gateway.domain.declared.signatures import PIECES, KeyForm, Place, Signature
from gateway.domain.declared.template import EMPTY, Template

HEADER = re.compile(r"[A-Za-z0-9_-]+")
WEEK = 604_800  # seconds; a signature older than that is no signature

# What the text signed of a request may hold.
REQUEST_PIECES = frozenset(
    {
        "body_sha256_hex",
        "body_sha256_raw",
        "method",
        "nonce",
        "path",
        "raw_body",
        "timestamp",
        "url",
    }
)


class Scheme(StrEnum):
    """How a request proves us."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"
    HEADER = "header"
    QUERY = "query"
    OAUTH2 = "oauth2_client_credentials"
    HMAC = "hmac"


class Encoding(StrEnum):
    """How a MAC is written."""

    HEX = "hex"
    BASE64 = "base64"


class Algorithm(StrEnum):
    """The hash of an HMAC."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Of one kind; the fields of the others are empty."""

    kind: Scheme
    secret: str = ""  # its name
    user: Template = EMPTY
    name: str = ""  # of the header or query parameter
    prefix: str = ""
    token_url: Template = EMPTY
    scope: Template = EMPTY
    skew: int = 60
    in_body: bool = False
    message: Template = EMPTY
    algorithm: str = "sha256"
    key: KeyForm = KeyForm.RAW
    encoding: str = "hex"
    timestamp_header: str = ""
    nonce_header: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of what it needs."""
        return (self.secret,) if self.kind is not Scheme.NONE else ()


def auth(table: Table, values: frozenset[str]) -> Auth:
    """[auth]"""
    kind = table.choice("kind", Scheme)
    secret = table.text("secret", needed=kind is not Scheme.NONE)
    made = Auth(kind=kind, secret=secret)
    match kind:
        case Scheme.BASIC:
            user = table.template("user", values, needed=True)
            made = Auth(kind=kind, secret=secret, user=user)
        case Scheme.HEADER | Scheme.QUERY:
            name = table.text("name", needed=True)
            if kind is Scheme.HEADER and not HEADER.fullmatch(name):
                table.wrong("name", "is not the name of a header")
            prefix = table.text("prefix") if kind is Scheme.HEADER else ""
            made = Auth(kind=kind, secret=secret, name=name, prefix=prefix)
        case Scheme.OAUTH2:
            made = Auth(
                kind=kind,
                secret=secret,
                user=table.template("client_id", values, needed=True),
                token_url=table.template("token_url", values | {"base_url"}, needed=True),
                scope=table.template("scope", values),
                skew=table.number("skew", 60, 0, 3600),
                in_body=table.flag("in_body"),
            )
        case Scheme.HMAC:
            made = Auth(
                kind=kind,
                secret=secret,
                name=table.text("header", needed=True).lower(),
                prefix=table.text("prefix"),
                message=table.template("message", REQUEST_PIECES, needed=True),
                algorithm=table.choice("algorithm", Algorithm, Algorithm.SHA256),
                key=table.choice("key", KeyForm, KeyForm.RAW),
                encoding=table.choice("encoding", Encoding, Encoding.HEX),
                timestamp_header=table.text("timestamp_header").lower(),
                nonce_header=table.text("nonce_header").lower(),
            )
            _headers_there(
                table,
                made.message,
                {"timestamp": made.timestamp_header, "nonce": made.nonce_header},
            )
    table.close()
    return made


def signature(table: Table) -> Signature:
    """One of [[signatures]]"""
    kinds = list(_SIGNATURES)
    kind = table.text("kind", needed=True)
    if kind not in kinds:
        table.wrong("kind", f"must be one of {', '.join(kinds)}")
        return signatures.Nothing()
    made = _SIGNATURES[kind](table)
    table.close()
    return made


def consistent(
    several: Sequence[Signature], content: Kind | None, *, own_url: bool
) -> tuple[bool, str]:
    """Whether these alternatives fit each other and callbacks of that kind (None: there are no
    callbacks), and why not."""
    if bool(several) != (content is not None):
        return False, "and [callback] need each other"
    if not all(_covers(one, content) for one in several):
        return False, "do not cover what a callback says: the body, or the URL where it is a query"
    if any(isinstance(one, signatures.Nothing) for one in several) and not own_url:
        return False, 'none needs correlates = "token": the message\'s own URL is the proof'
    public = [one for one in several if isinstance(one, signatures.Ed25519)]
    secret = [one for one in several if one.secret and one not in public]
    if public and secret:
        return False, "ed25519 stands alone: its keys are public and prove nothing elsewhere"
    return True, ""


def _covers(one: Signature, content: Kind | None) -> bool:
    if isinstance(one, signatures.Jwt):
        return content is not Kind.QUERY or bool(one.url_hash)
    if not isinstance(one, signatures.Hmac | signatures.Ed25519):
        return True
    needed = {"url"} if content is Kind.QUERY else signatures.OF_BODY
    return not one.message.names.isdisjoint(needed)


def _headers_there(table: Table, message: Template, headers: Mapping[str, str]) -> None:
    for name, header in headers.items():
        if (name in message.names) != bool(header):
            table.wrong(f"{name}_header", f"and {{{name}}} in the message need each other")


def _nothing(table: Table) -> Signature:
    return signatures.Nothing()


def _basic(table: Table) -> Signature:
    return signatures.Basic(table.text("user", needed=True))


def _static_token(table: Table) -> Signature:
    place = table.choice("in", Place)
    name = table.text("name", needed=place is not Place.PATH)
    if place is Place.HEADER:
        return signatures.StaticToken(place, name.lower(), table.text("prefix"))
    return signatures.StaticToken(place, name)


def _allowlist(table: Table) -> Signature:
    networks = []
    for written in table.texts("networks"):
        try:
            networks.append(ipaddress.ip_network(written))
        except ValueError as error:
            table.wrong("networks", str(error))
    if not networks:
        table.wrong("networks", "is a list of networks such as 192.0.2.0/24")
    return signatures.Allowlist(table.text("header", needed=True).lower(), tuple(networks))


def _hmac(table: Table) -> Signature:
    made = signatures.Hmac(
        header=table.text("header", needed=True).lower(),
        message=table.template("message", PIECES, "{raw_body}"),
        algorithm=table.choice("algorithm", Algorithm, Algorithm.SHA256),
        key=table.choice("key", KeyForm, KeyForm.RAW),
        encoding=table.choice("encoding", Encoding, Encoding.HEX),
        prefix=table.text("prefix"),
        separator=table.text("separator"),
        timestamp_header=table.text("timestamp_header").lower(),
        nonce_header=table.text("nonce_header").lower(),
        id_header=table.text("id_header").lower(),
        tolerance=table.number("tolerance", 300, 1, WEEK),
    )
    headers = {"nonce": made.nonce_header, "id": made.id_header}
    _headers_there(table, made.message, {**headers, "timestamp": made.timestamp_header})
    return made


def _ed25519(table: Table) -> Signature:
    made = signatures.Ed25519(
        header=table.text("header", needed=True).lower(),
        message=table.template("message", PIECES - {"id", "nonce"}, needed=True),
        timestamp_header=table.text("timestamp_header", needed=True).lower(),
        tolerance=table.number("tolerance", 300, 1, WEEK),
    )
    _headers_there(table, made.message, {"timestamp": made.timestamp_header})
    return made


def _jwt(table: Table) -> Signature:
    return signatures.Jwt(
        header=table.text("header", "authorization").lower(),
        prefix=table.text("prefix"),
        algorithms=table.choices("algorithms", signatures.JWT_HASHES) or ("HS256",),
        issuer=table.text("issuer"),
        required=table.texts("required"),
        payload_hash=table.text("payload_hash"),
        url_hash=table.text("url_hash"),
        max_age=table.number("max_age", 0, 1, WEEK) or None,
        leeway=table.number("leeway", 60, 0, 3600),
    )


def _plivo(table: Table) -> Signature:
    return signatures.PlivoV3()


def _twilio(table: Table) -> Signature:
    return signatures.TwilioSha1()


_SIGNATURES: Mapping[str, Callable[[Table], Signature]] = {
    "none": _nothing,
    "basic": _basic,
    "static_token": _static_token,
    "ip_allowlist": _allowlist,
    "hmac": _hmac,
    "jwt_hs": _jwt,
    "ed25519": _ed25519,
    "plivo_v3": _plivo,
    "twilio_sha1": _twilio,
}
