"""SNS, as far as tests need it: messages signed with keys made for this run."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

TOPIC = "arn:aws:sns:us-east-1:210987654321:otp-events"
URL = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123abcd.pem"
SUBSCRIBE_URL = (
    f"https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc"
)
MADE = datetime(2026, 11, 21, tzinfo=UTC)
YEAR = timedelta(days=365)


class Signer:
    """A key and its certificate."""

    def __init__(self, *, elliptic: bool = False) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        key = ec.generate_private_key(ec.SECP256R1()) if elliptic else self._key
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.example")])
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(MADE - YEAR)
            .not_valid_after(MADE + YEAR)
            .sign(key, hashes.SHA256())
        )
        self.pem = made.public_bytes(serialization.Encoding.PEM)

    def sign(self, fields: Mapping[str, str]) -> str:
        """The signature over these fields, in the order in which they come."""
        content = "".join(f"{name}\n{value}\n" for name, value in fields.items()).encode()
        made = self._key.sign(content, padding.PKCS1v15(), hashes.SHA256())
        return base64.b64encode(made).decode()


SIGNER = Signer()
OTHER_SIGNER = Signer()
PEM = SIGNER.pem


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def signed(
    message: str,
    at: datetime,
    *,
    signer: Signer = SIGNER,
    after: Mapping[str, object] | None = None,
    **changes: str,
) -> bytes:
    """A notification. `changes` are signed, `after` is put in afterwards."""
    fields = {
        "Message": message,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        **({"Subject": changes["Subject"]} if "Subject" in changes else {}),
        "Timestamp": stamp(at),
        "TopicArn": TOPIC,
        "Type": "Notification",
    }
    return _envelope(fields, signer, changes, after or {})


def confirmation(at: datetime, *, signer: Signer = SIGNER, **changes: str) -> bytes:
    """The offer of a subscription."""
    fields = {
        "Message": "You have chosen to subscribe to the topic.\nVisit the SubscribeURL.",
        "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
        "SubscribeURL": SUBSCRIBE_URL,
        "Timestamp": stamp(at),
        "Token": "abc",
        "TopicArn": TOPIC,
        "Type": "SubscriptionConfirmation",
    }
    return _envelope(fields, signer, changes, {})


def _envelope(
    fields: dict[str, str],
    signer: Signer,
    changes: Mapping[str, str],
    after: Mapping[str, object],
) -> bytes:
    fields = {name: changes.get(name, value) for name, value in fields.items()}
    unsigned = {
        "SignatureVersion": "2",
        "Signature": signer.sign(fields),
        "SigningCertURL": changes.get("SigningCertURL", URL),
    }
    return orjson.dumps({**fields, **unsigned, **after})
