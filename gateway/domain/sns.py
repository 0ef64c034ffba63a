"""What Amazon SNS posts to an HTTP endpoint: reading the envelope, checking that it is genuine.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html

Anyone can have SNS sign something, and can write any certificate's address into an envelope. So a
message is believed if it is of our topic, and certificates come from SNS's own host alone.
"""

import base64
import binascii
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from urllib.parse import parse_qs

import orjson
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

STALE = 3900  # seconds: SNS repeats for an hour, and clocks differ
EARLY = 300  # seconds a clock of theirs may be ahead
CERTIFICATES = 8  # remembered; there is one per region, for years

ARN = re.compile(r"arn:(aws|aws-cn|aws-us-gov):sns:([a-z0-9-]+):[0-9]{12}:[A-Za-z0-9_-]{1,256}")

_PATH = re.compile(r"/SimpleNotificationService-[A-Za-z0-9-]{1,64}\.pem")
_QUERY = re.compile(r"[!-~]{1,2048}")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z", re.ASCII
)


class Kind(StrEnum):
    """What an envelope is for."""

    NOTIFICATION = "Notification"
    SUBSCRIPTION = "SubscriptionConfirmation"  # asks whether the address wants the topic
    UNSUBSCRIPTION = "UnsubscribeConfirmation"  # tells that it no longer gets it


# What is signed, in this order; Subject only where there is one.
_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")

_HASHES: Mapping[str, hashes.HashAlgorithm] = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303 (the vendor's)


@dataclass(frozen=True, slots=True)
class Signer:
    """What a certificate says: whose signatures to believe, and when."""

    key: rsa.RSAPublicKey = field(repr=False)
    begins: datetime
    ends: datetime


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope with all its parts, not checked yet."""

    kind: Kind
    topic: str
    at: datetime
    message: str = field(repr=False)
    subscribe_url: str = field(repr=False)  # "" in a notification; holds a token
    certificate_url: str
    version: str
    signature: bytes = field(repr=False)
    content: bytes = field(repr=False)  # what is signed


class Topic:
    """A topic we are subscribed to: which of its messages to believe, and the certificates learnt.

    `endpoint`: where certificates come from and confirmations go; SNS in the topic's region unless
    told otherwise. `sha256_only`: the topic signs with version 2, so that nothing else is taken.
    """

    def __init__(self, arn: str, *, endpoint: str | None = None, sha256_only: bool = False) -> None:
        named = ARN.fullmatch(arn)
        if named is None:
            raise ValueError(arn)
        china = ".cn" if named[1] == "aws-cn" else ""
        self.arn = arn
        self._endpoint = (endpoint or f"https://sns.{named[2]}.amazonaws.com{china}").rstrip("/")
        self._versions = ("2",) if sha256_only else ("1", "2")
        self._certificates: OrderedDict[str, Signer] = OrderedDict()

    def wanted(self, body: bytes, at: datetime) -> str | None:
        """The URL of the certificate without which this body cannot be judged."""
        envelope = self._plausible(body, at)
        if envelope is None or envelope.certificate_url in self._certificates:
            return None
        return envelope.certificate_url

    def learn(self, url: str, pem: bytes) -> None:
        """Keep the certificate that came from there, if it is one."""
        found = certificate(pem)
        if found is not None:
            self._certificates[url] = found
            if len(self._certificates) > CERTIFICATES:
                self._certificates.popitem(last=False)

    def signed(self, body: bytes, at: datetime) -> bool:
        """Whether SNS signed it for this topic, not long before `at`."""
        envelope = self._plausible(body, at)
        signer = self._certificates.get(envelope.certificate_url) if envelope else None
        return envelope is not None and signer is not None and verify(envelope, signer, at)

    def confirmation(self, body: bytes) -> str | None:
        """The URL to call for the subscription that a signed body offers."""
        envelope = read(body)
        if envelope is None or envelope.kind is not Kind.SUBSCRIPTION:
            return None
        url = envelope.subscribe_url
        host, mark, query = url.partition("/?")
        if not _QUERY.fullmatch(query) or host + mark != f"{self._endpoint}/?":
            return None
        asked = parse_qs(query)
        ours = asked.get("TopicArn") == [self.arn] and "Token" in asked
        return url if ours and asked.get("Action") == ["ConfirmSubscription"] else None

    def _plausible(self, body: bytes, at: datetime) -> Envelope | None:
        """The envelope, if only its signature is left to be checked."""
        envelope = read(body)
        if envelope is None or envelope.topic != self.arn:
            return None
        url = envelope.certificate_url
        from_them = url.startswith(self._endpoint) and _PATH.fullmatch(url, len(self._endpoint))
        fresh = -EARLY <= (at - envelope.at).total_seconds() <= STALE
        return envelope if from_them and fresh and envelope.version in self._versions else None


def read(body: bytes) -> Envelope | None:
    """The envelope in a body; None where it is none or lacks something."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict):
        return None
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    try:
        kind, version = Kind(texts["Type"]), texts["SignatureVersion"]
        if version not in _HASHES:
            return None
        return Envelope(
            kind=kind,
            topic=texts["TopicArn"],
            at=_time(texts["Timestamp"]),
            message=texts["Message"],
            subscribe_url="" if kind is Kind.NOTIFICATION else texts["SubscribeURL"],
            certificate_url=texts["SigningCertURL"],
            version=version,
            signature=base64.b64decode(texts["Signature"].encode("ascii"), validate=True),
            content=_content(kind, texts),
        )
    except (KeyError, ValueError, binascii.Error):
        return None


def certificate(pem: bytes) -> Signer | None:
    """The certificate in a PEM file; None where there is none whose key can check an envelope."""
    try:
        found = x509.load_pem_x509_certificate(pem)
        key = found.public_key()
    except Exception:  # noqa: BLE001 (the parser has many ways to say that it is none)
        return None
    if not isinstance(key, rsa.RSAPublicKey):
        return None
    return Signer(key, found.not_valid_before_utc, found.not_valid_after_utc)


def verify(envelope: Envelope, signer: Signer, at: datetime) -> bool:
    """Whether the holder of the certificate, valid at `at`, signed the envelope."""
    if not signer.begins <= at <= signer.ends:
        return False
    algorithm = _HASHES[envelope.version]
    try:
        signer.key.verify(envelope.signature, envelope.content, padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        return False
    return True


def _content(kind: Kind, texts: Mapping[str, str]) -> bytes:
    names = _NOTIFICATION if kind is Kind.NOTIFICATION else _CONFIRMATION
    present = [name for name in names if name != "Subject" or name in texts]
    return "".join(f"{name}\n{texts[name]}\n" for name in present).encode()


def _time(text: str) -> datetime:
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    return datetime.fromisoformat(text)
