"""An SNS topic: what it posts to its subscriber, signed by a key made when it is first needed.

https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
"""

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, timedelta
from functools import cached_property
from urllib.parse import urlencode
from uuid import NAMESPACE_URL, uuid5

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gateway.sandbox.carrier import Letter
from gateway.sandbox.settings import Now

LIFETIME = timedelta(days=400)  # of a certificate
BITS = 2048

_VERSIONS: Mapping[str, hashes.HashAlgorithm] = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303 (the vendor's)


class Topic:
    """One topic and its only subscription.

    `endpoint` is the public address of this SNS, below which certificates are found and
    subscriptions confirmed. `version`: "1" signs with SHA-1, as a new topic does; "2" with SHA-256.
    `subscriber`: an address that has been confirmed already.
    """

    def __init__(
        self, arn: str, endpoint: str, now: Now, *, version: str = "1", subscriber: str | None
    ) -> None:
        self.arn = arn
        self.subscriber = subscriber
        self._endpoint = endpoint.rstrip("/")
        self._now = now
        self._version = version
        self._offers: dict[str, str] = {}  # by token, addresses that have not answered yet

    @cached_property
    def pem(self) -> bytes:
        """The certificate, of the key below, by nobody but itself."""
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.sandbox")])
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now() - timedelta(days=1))
            .not_valid_after(self._now() + LIFETIME)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    @cached_property
    def certificate(self) -> str:
        """The name of its file."""
        return f"SimpleNotificationService-{hashlib.sha256(self.pem).hexdigest()[:32]}.pem"

    def notification(self, url: str, message_id: str, message: str) -> Letter:
        """A message to the subscriber. The id is the same however often it is repeated."""
        fields = {
            "Message": message,
            "MessageId": message_id,
            "Timestamp": self._stamp(),
            "TopicArn": self.arn,
            "Type": "Notification",
        }
        leave = {"Action": "Unsubscribe", "SubscriptionArn": self._subscription(url)}
        return self._letter(
            url, fields, {"UnsubscribeURL": f"{self._endpoint}/?{urlencode(leave)}"}
        )

    def offer(self, url: str, token: str, message_id: str) -> Letter:
        """The question whether this address wants the topic."""
        self._offers[token] = url
        answer = {"Action": "ConfirmSubscription", "TopicArn": self.arn, "Token": token}
        fields = {
            "Message": f"You have chosen to subscribe to the topic {self.arn}.\n"
            "To confirm the subscription, visit the SubscribeURL included in this message.",
            "MessageId": message_id,
            "SubscribeURL": f"{self._endpoint}/?{urlencode(answer)}",
            "Timestamp": self._stamp(),
            "Token": token,
            "TopicArn": self.arn,
            "Type": "SubscriptionConfirmation",
        }
        return self._letter(url, fields, {})

    def confirm(self, arn: str, token: str) -> str | None:
        """The subscription that the token's address now is; None where the token is not known."""
        url = self._offers.pop(token, None) if arn == self.arn else None
        if url is None:
            return None
        self.subscriber = url
        return self._subscription(url)

    @cached_property
    def _key(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent=65537, key_size=BITS)

    def _letter(self, url: str, fields: Mapping[str, str], unsigned: Mapping[str, str]) -> Letter:
        content = "".join(f"{name}\n{value}\n" for name, value in sorted(fields.items()))
        signature = self._key.sign(content.encode(), padding.PKCS1v15(), _VERSIONS[self._version])
        envelope = {
            **fields,
            "SignatureVersion": self._version,
            "Signature": base64.b64encode(signature).decode(),
            "SigningCertURL": f"{self._endpoint}/{self.certificate}",
            **unsigned,
        }
        headers = {
            "Content-Type": "text/plain; charset=UTF-8",  # it is JSON all the same
            "User-Agent": "Amazon Simple Notification Service Agent",
            "x-amz-sns-message-type": fields["Type"],
            "x-amz-sns-message-id": fields["MessageId"],
            "x-amz-sns-topic-arn": self.arn,
        }
        return Letter(url, orjson.dumps(envelope), headers)

    def _subscription(self, url: str) -> str:
        return f"{self.arn}:{uuid5(NAMESPACE_URL, url)}"

    def _stamp(self) -> str:
        at = self._now().astimezone(UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
