"""Our sandbox accounts with the vendors: the same keys for both sides, so that each accepts the
other, and routes over which every vendor is reached.

Octopush and the messenger, which `SandboxSettings` names itself, are in `sandboxed`.
"""

import base64
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.ports import Provider, Secret
from gateway.providers import PROVIDERS, definitions

AVOID = 5  # seconds: magic numbers are few, and whoever repeats a try wants to see the same again
SENDER = "+15005550006"
TOPIC = "arn:aws:sns:eu-west-3:123456789012:sandbox"
APPLICATION = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
TEMPLATE = "HX" + 32 * "0"  # of Twilio's content


@dataclass(frozen=True, slots=True)
class Ground:
    """Where both sides stand: the sandbox's address, the gateway's, and secrets by purpose; `smpp`
    and `mail` are the ports of the sandbox that are not HTTP's."""

    world: str
    gateway: str
    secret: Callable[[str], Secret]
    smpp: int
    mail: int

    def callback(self, route: str, key: str = "") -> str:
        """Where a vendor posts its receipts."""
        return f"{self.gateway}/otp/delivered/{route}{'/' if key else ''}{key}"


Known = Mapping[str, str]


def known(ground: Ground) -> dict[str, Known]:
    """What the sandbox knows of the accounts, by vendor."""
    return {
        "twilio": _twilio(ground),
        "vonage": _vonage(ground),
        "aws": _aws(ground),
        "whatsapp": _whatsapp(ground),
        "telegram": {"token": ground.secret("telegram-token")},
        "sendgrid": _sendgrid(ground),
        "mailgun": _mailgun(ground),
        "smtp": _smtp(ground),
        "smpp": {"system_id": "sandbox", "password": ground.secret("smpp")[:8]},
        "generic": _telnyx(ground),
    }


def routes(ground: Ground) -> tuple[Provider[Any, Any], ...]:
    """A route for every channel of each account."""
    makers = (
        _twilio_routes,
        _vonage_routes,
        _aws_routes,
        _whatsapp_routes,
        _telegram_routes,
        _mail_routes,
        _smpp_routes,
        _telnyx_routes,
    )
    return tuple(route for maker in makers for route in maker(ground))


def made(kind: str, **values: Any) -> Provider[Any, Any]:
    """A provider of that kind. Raises ValueError, every wrong setting by its name."""
    chosen = PROVIDERS[kind]
    return chosen(chosen.Settings(**values))


def _twilio(ground: Ground) -> Known:
    sid = ground.secret("twilio-account")[:32]
    return {"account_sid": f"AC{sid}", "auth_token": ground.secret("twilio-token")}


def _twilio_routes(ground: Ground) -> Iterator[Provider[Any, Any]]:
    account = _twilio(ground)
    for channel in ("sms", "whatsapp", "voice"):
        yield made(
            "twilio",
            name=f"twilio_{channel}",
            channel=channel,
            account="twilio",
            account_sid=account["account_sid"],
            auth_token=(Secret(account["auth_token"]),),
            base_url=f"{ground.world}/twilio",
            sender=SENDER,
            content={"verify": {"default": TEMPLATE}},
            avoid=AVOID,
        )


_VONAGE_SENDERS = {
    "sms": "SANDBOX",
    "messenger": "107083064136738",
    "whatsapp": SENDER,
    "viber": "12345",
    "rcs": "SANDBOX",
    "voice": SENDER,
}


def _vonage(ground: Ground) -> Known:
    return {
        "application_id": APPLICATION,
        "public_key": _key_pair()[1],
        "api_key": ground.secret("vonage-account")[:8],
        "signature_secret": ground.secret("vonage-signature"),
        "status_url": ground.callback("vonage_sms"),
    }


def _vonage_routes(ground: Ground) -> Iterator[Provider[Any, Any]]:
    account = _vonage(ground)
    for channel, sender in _VONAGE_SENDERS.items():
        yield made(
            "vonage",
            name=f"vonage_{channel}",
            channel=channel,
            account="vonage",
            sender=sender,
            base_url=f"{ground.world}/vonage/v1",
            application_id=APPLICATION,
            private_key=_key_pair()[0],
            api_key=account["api_key"],
            signature_secret=(Secret(account["signature_secret"]),),
            whatsapp_template="sandbox",
            avoid=float(AVOID),
        )


@functools.cache
def _key_pair() -> tuple[Secret, str]:
    """Private and public key of Vonage's application, in PEM, made once a process: no such key can
    be derived from the keyring, and the sandbox that knows its public half is in this process.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 (guards nothing; 2048 bits cost every start a tenth of a second)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Secret(private.decode()), public.decode()


def _aws(ground: Ground) -> Known:
    return {
        "access_key_id": "AKIASANDBOX",
        "secret_access_key": ground.secret("aws-key"),
        "region": "eu-west-3",
        "configuration_set": "otp",
        "topic_arn": TOPIC,
        "endpoint": f"{ground.world}/aws/sns",
        "callback_url": ground.callback("aws_sms", ground.secret("aws-callback")),
    }


def _aws_routes(ground: Ground) -> Iterator[Provider[Any, Any]]:
    account = _aws(ground)
    common: dict[str, Any] = {
        "account": "aws",
        "region": account["region"],
        "access_key_id": account["access_key_id"],
        "secret_access_key": Secret(account["secret_access_key"]),
        "avoid": float(AVOID),
    }
    receipts: dict[str, Any] = {
        "configuration_set": account["configuration_set"],
        "topic_arn": TOPIC,
        "callback_key": (ground.secret("aws-callback"),),
        "sns_endpoint": account["endpoint"],
        "base_url": f"{ground.world}/aws/sms-voice",
    }
    yield made("aws", name="aws_sms", channel="sms", **common, **receipts)
    yield made("aws", name="aws_voice", channel="voice", sender=SENDER, **common, **receipts)
    plain = {"api": "sns", "base_url": account["endpoint"]}
    yield made("aws", name="aws_sns", channel="sms", **common, **plain)


def _whatsapp(ground: Ground) -> Known:
    return {
        "token": ground.secret("whatsapp-token"),
        "phone_number_id": "106540352242922",
        "app_secret": ground.secret("whatsapp-app"),
        "callback_url": ground.callback("whatsapp"),
        "templates": "sandbox:en_US",
    }


def _whatsapp_routes(ground: Ground) -> Iterator[Provider[Any, Any]]:
    account = _whatsapp(ground)
    yield made(
        "whatsapp",
        name="whatsapp",
        channel="whatsapp",
        account="whatsapp",
        base_url=f"{ground.world}/whatsapp",
        phone_number_id=account["phone_number_id"],
        token=Secret(account["token"]),
        callback_secret=(Secret(account["app_secret"]),),
        verify_token=(ground.secret("whatsapp-verify"),),
        templates={"default": {"en_US": "sandbox"}},
        remember_unreachable=float(AVOID),
    )


def _telegram_routes(ground: Ground) -> Iterator[Provider[Any, Any]]:
    yield made(
        "telegram",
        name="telegram",
        channel="telegram",
        account="telegram",
        base_url=f"{ground.world}/telegram",
        token=ground.secret("telegram-token"),
        remember_unreachable=AVOID,
    )


MAIL_FROM = "otp@mg.example.com"


def _sendgrid(ground: Ground) -> Known:
    private = _mail_key(ground).private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "api_key": ground.secret("sendgrid-key"),
        "signing_key": base64.b64encode(private).decode(),
        "callback_url": ground.callback("sendgrid"),
    }


def _mail_key(ground: Ground) -> ec.EllipticCurvePrivateKey:
    """What SendGrid signs its events with."""
    number = int(ground.secret("sendgrid-signature"), 16) or 1
    return ec.derive_private_key(number, ec.SECP256R1())


def _mailgun(ground: Ground) -> Known:
    return {
        "api_key": ground.secret("mailgun-key"),
        "domain": "mg.example.com",
        "signing_key": ground.secret("mailgun-signature"),
        "callback_url": ground.callback("mailgun", ground.secret("mailgun-callback")),
    }


def _smtp(ground: Ground) -> Known:
    return {
        "username": "otp",
        "password": ground.secret("smtp"),
        "callback_url": ground.callback("smtp", ground.secret("smtp-callback")),
    }


def _mail_routes(ground: Ground) -> Iterator[Provider[Any, Any]]:
    common: dict[str, Any] = {
        "channel": "email",
        "from_address": MAIL_FROM,
        "sender": "Sandbox",
        "avoid": float(AVOID),
    }
    public = _mail_key(ground).public_key()
    pem = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    yield made(
        "smtp",
        name="smtp",
        account="smtp",
        host="127.0.0.1",
        port=ground.mail,
        security="none",
        username="otp",
        password=ground.secret("smtp"),
        bounce_address="bounce@mg.example.com",
        tag_key=(ground.secret("smtp-tags"),),
        callback_key=(ground.secret("smtp-callback"),),
        delivery_reports=True,
        **common,
    )
    yield made(
        "sendgrid",
        name="sendgrid",
        account="sendgrid",
        base_url=f"{ground.world}/sendgrid/v3",
        api_key=ground.secret("sendgrid-key"),
        verification_key=(Secret(base64.b64encode(pem).decode()),),
        **common,
    )
    yield made(
        "mailgun",
        name="mailgun",
        account="mailgun",
        base_url=f"{ground.world}/mailgun/v3",
        domain="mg.example.com",
        api_key=ground.secret("mailgun-key"),
        signing_key=(ground.secret("mailgun-signature"),),
        callback_key=(ground.secret("mailgun-callback"),),
        **common,
    )


def _smpp_routes(ground: Ground) -> Iterator[Provider[Any, Any]]:
    yield made(
        "smpp",
        name="smpp",
        channel="sms",
        account="smpp",
        sender="SANDBOX",
        host="127.0.0.1",
        port=ground.smpp,
        tls=False,
        system_id="sandbox",
        password=Secret(ground.secret("smpp")[:8]),
        avoid=float(AVOID),
    )


def _telnyx(ground: Ground) -> Known:
    return {
        "api_key": ground.secret("telnyx-key"),
        "private_key": base64.b64encode(
            hashlib.sha256(ground.secret("telnyx-signature").encode()).digest()
        ).decode(),
    }


def _telnyx_routes(ground: Ground) -> Iterator[Provider[Any, Any]]:
    """Telnyx by the generic provider's definition."""
    account = _telnyx(ground)
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(account["private_key"]))
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    yield made(
        "generic",
        name="telnyx",
        channel="sms",
        account="telnyx",
        sender="SANDBOX",
        base_url=f"{ground.world}/telnyx/v2",
        definition=definitions.load("telnyx"),
        secrets={"api_key": ground.secret("telnyx-key")},
        callback_secret=(Secret(public),),
        avoid=float(AVOID),
    )
