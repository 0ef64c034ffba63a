"""SendGrid, e-mail by HTTP.

https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features

Events come in batches to one URL per account, signed, and are those of all its mail: what does not
repeat our id is not ours and left out. The id is not called `attempt`, for that is a field of the
event `deferred`. DELIVERED is what the recipient's server says; an open or a click proves as much
and not more, since programs fetch pictures and follow links unasked. Our mail has neither.

Unconfirmed: for how long events are retried (24 hours, by an older page) and whether under a new
signature, hence `tolerance`; the fields that errors name; the header that says when to come again.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import ClassVar

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.domain import mail, vendor
from gateway.domain.delivery import State
from gateway.domain.vendor import Meaning
from gateway.ports import (
    Accepted,
    Auth,
    Callback,
    Correlation,
    Malformed,
    Outcome,
    Outgoing,
    Receipt,
    RefusalKind,
    Refused,
    Reply,
    Request,
    Response,
    RouteSettings,
    Secret,
    Sheet,
    Unknown,
    Wire,
    post,
)

OUR_ID = "otp_attempt_id"  # the custom argument that comes back
SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"

_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class SendgridSettings(RouteSettings):  # `sender`: the name shown beside the address
    base_url: str = "https://api.sendgrid.com/v3"  # https://api.eu.sendgrid.com/v3 in Europe
    api_key: Secret
    from_address: str
    verification_key: tuple[Secret, ...] = ()  # two while one is replaced; none: no receipt gets in
    tolerance: int = 90_000  # seconds between a signature and its arrival: retries last 24 hours
    avoid: float = 604_800.0  # seconds an address is left alone that bounced for good


class Sendgrid:
    Settings = SendgridSettings
    wire: ClassVar = Wire.HTTP
    sheet: ClassVar = Sheet(
        vendor="SendGrid",
        proof="a signature over time and raw body",
        setup=(
            "Enter the callback URL as an event webhook, for the deliverability events.",
            "Switch its signature on and copy the verification key.",
        ),
        callback="{public_url}/otp/delivered/{route}",
    )
    channels = frozenset({"email"})
    confirms = frozenset({State.DELIVERED, State.FAILED})
    correlates = Correlation.ECHO
    idempotent = False
    signed = True
    validity = False

    def __init__(self, settings: SendgridSettings) -> None:
        if wrong := "; ".join(_mistakes(settings)):
            raise ValueError(wrong)
        self.name = settings.name
        self.channel = settings.channel
        self.account = settings.account
        self.sender = settings.sender
        self.timeout = settings.timeout
        self.rate = settings.rate
        self.concurrency = settings.concurrency
        self._from = settings.from_address
        self._tolerance = settings.tolerance
        self._avoid = settings.avoid
        self._secrets = (settings.api_key, *settings.verification_key)
        self._keys = tuple(filter(None, map(_public_key, settings.verification_key)))

        headers = {
            "authorization": f"Bearer {settings.api_key}",
            "content-type": "application/json",
        }
        # A URL and headers parsed once: a third of the time of a request made from strings.
        pattern = Request("GET", settings.base_url.rstrip("/") + "/mail/send", headers=headers)
        self._url, self._headers = pattern.url, pattern.headers

    statuses: ClassVar[Mapping[str, Meaning]] = {
        "processed": Meaning(State.SENT),  # about to be sent
        "deferred": Meaning(None),  # not taken yet; SendGrid keeps trying, for 72 hours
        "delivered": Meaning(State.DELIVERED),  # the recipient's server took it
        "open": Meaning(State.DELIVERED),  # a picture was fetched, by whomever
        "click": Meaning(State.DELIVERED),  # a link was followed, by whomever
        "bounce": Meaning(State.FAILED, "bounced", permanent=True),  # `kinds` tells more
        "dropped": Meaning(State.FAILED, "suppressed", permanent=True),  # not even tried
        "spamreport": Meaning(None),  # the reader complained: it had arrived
        "unsubscribe": Meaning(None),
        "group_unsubscribe": Meaning(None),
        "group_resubscribe": Meaning(None),
    }

    # The `type` of a bounce.
    kinds: ClassVar[Mapping[str, Meaning]] = {
        "bounce": Meaning(State.FAILED, "bounced", permanent=True),  # for good
        "blocked": Meaning(State.FAILED, "blocked"),  # for now: policy, or tried long enough
    }

    # The `reason` of a drop that is about the address.
    drops: ClassVar = frozenset(
        {
            "Bounced Address",  # earlier
            "Invalid",  # malformed
            "Spam Reporting Address",  # complained once
            "Unsubscribed Address",
        }
    )

    # The field of an error, as far as it says whose fault it is.
    fields: ClassVar[Mapping[str, tuple[str, RefusalKind]]] = {
        "from": ("bad_sender", RefusalKind.ACCOUNT),  # not a verified sender
        "from.email": ("bad_sender", RefusalKind.ACCOUNT),  # malformed
        "personalizations.0.to.0.email": ("bad_destination", RefusalKind.PERMANENT),  # malformed
    }

    def build(self, outgoing: Outgoing) -> Request:
        if not mail.is_mailbox(outgoing.recipient):
            raise ValueError("the recipient is not a plain e-mail address")
        origin = {"email": self._from}
        if outgoing.sender:
            origin["name"] = outgoing.sender
        html = mail.page(outgoing.text, outgoing.code, outgoing.locale)
        body = {
            "personalizations": [{"to": [{"email": outgoing.recipient}]}],
            "from": origin,
            "subject": mail.subject(outgoing.subject, outgoing.sender),
            "content": [
                {"type": "text/plain", "value": outgoing.text},
                {"type": "text/html", "value": html},
            ],
            "headers": {"Auto-Submitted": "auto-generated"},
            "custom_args": {OUR_ID: outgoing.attempt_id},
            "tracking_settings": {
                "click_tracking": {"enable": False, "enable_text": False},
                "open_tracking": {"enable": False},
            },
        }
        return post(self._url, self._headers, orjson.dumps(body))

    def auth(self) -> Auth | None:
        return None

    def parse(self, response: Response) -> Outcome:
        status = response.status_code
        first = _first_error(response.content)
        error = self._error(status, first)
        if status == 202:  # the body is empty
            reference = vendor.storable(response.headers.get("x-message-id"))
            return Accepted(reference) if reference else Unknown("no_message_id", error)
        if status == 429:
            return Refused("throttled", RefusalKind.THROTTLED, _pause(response), error)
        if status in (401, 403):
            return Refused("unauthorized", RefusalKind.ACCOUNT, error=error)
        if 400 <= status < 500:
            rejected = ("rejected", RefusalKind.PERMANENT)
            reason, kind = self.fields.get(str(first.get("field")), rejected)
            return Refused(reason, kind, error=error)
        return Unknown("server_error" if status >= 500 else "odd_answer", error)

    def authenticate(self, callback: Callback) -> bool:
        """ECDSA over P-256 and SHA-256, of the timestamp and the raw body."""
        stamp = callback.headers.get(TIMESTAMP, "")
        signature = _base64(callback.headers.get(SIGNATURE, ""))
        if callback.method != "POST" or signature is None or not _SECONDS.fullmatch(stamp):
            return False
        found = False
        for key in self._keys:
            found |= _verified(key, signature, stamp.encode() + callback.body)
        return found and abs(callback.received_at.timestamp() - int(stamp)) <= self._tolerance

    def handshake(self, callback: Callback) -> Reply | None:
        return None

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        try:
            events = orjson.loads(callback.body)
        except orjson.JSONDecodeError:
            events = None
        if not isinstance(events, list):
            return [Malformed("no list of events", callback.body)]
        read = [self._receipt(event, vendor.as_json(event)) for event in events]
        return [receipt for receipt in read if receipt is not None]

    def _receipt(self, event: object, raw: bytes) -> Receipt | Malformed | None:
        if not isinstance(event, dict):
            return Malformed("not an object", raw)
        if OUR_ID not in event:
            return None  # of other mail of the account
        attempt_id = vendor.storable(event[OUR_ID])
        word = vendor.storable(event.get("event"))
        if attempt_id is None or word is None:
            missing = OUR_ID if attempt_id is None else "event"
            return Malformed(f"{missing} is missing or unusable", raw)
        message_id = vendor.storable(event.get("sg_message_id"))
        if message_id is None and "sg_message_id" in event:
            return Malformed("sg_message_id is unusable", raw)
        meaning = self._meaning(word, event)
        moment = event.get("timestamp")
        return Receipt(
            word=word,
            state=meaning.state,
            reference=_before_dot(message_id),
            attempt_id=attempt_id,
            reason=meaning.reason,
            permanent=meaning.permanent,
            recipient=vendor.storable(event.get("email")),
            provider_time=str(moment) if type(moment) is int else None,
            avoid=self._avoid if meaning.permanent and _about_address(event) else None,
            raw=raw,
        )

    def _meaning(self, word: str, event: Mapping[str, object]) -> Meaning:
        meaning = self.statuses.get(word, Meaning(None))
        if word != "bounce":
            return meaning
        meaning = self.kinds.get(str(event.get("type")), meaning)
        if str(event.get("status")).startswith(("5.2.2", "5.4.7")):  # full, expired: not for good
            return replace(meaning, permanent=False)
        return meaning

    def _error(self, status: int, first: Mapping[str, object]) -> str:
        said = [first.get("field"), first.get("message")]
        text = ": ".join(part for part in said if isinstance(part, str) and part != "")
        return mail.redact(text, self._secrets) or f"HTTP {status}"


def _about_address(event: Mapping[str, object]) -> bool:
    """Whether a failure would meet every other message to this address too: it does not exist, is
    disabled, or wants nothing from us. A policy may be about this message only.
    """
    if str(event.get("reason")) in Sendgrid.drops:
        return True
    return str(event.get("status")).startswith(("5.1.", "5.2.1"))


def _first_error(body: bytes) -> Mapping[str, object]:
    errors = vendor.json_object(body).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    return first if isinstance(first, dict) else {}


def _pause(response: Response) -> float | None:
    """Retry-After, or the moment of X-RateLimit-Reset by the vendor's own clock."""
    headers = response.headers
    if (pause := vendor.retry_after(headers.get("retry-after"))) is not None:
        return pause
    reset = headers.get("x-ratelimit-reset", "")
    try:
        said_at = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        return None
    if not _SECONDS.fullmatch(reset) or int(reset) < said_at:
        return None
    return min(int(reset) - said_at, vendor.LONGEST_PAUSE)


def _before_dot(message_id: str | None) -> str | None:
    """The send call's X-Message-Id: SendGrid appends the rest for itself."""
    return (message_id.partition(".")[0] or None) if message_id else None


def _public_key(text: str) -> ec.EllipticCurvePublicKey | None:
    """A verification key as the settings page shows it: base64 of DER."""
    der = _base64(text)
    try:
        key = load_der_public_key(der or b"")
    except ValueError:
        return None
    right = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    return key if right else None  # type: ignore[return-value]


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _verified(key: ec.EllipticCurvePublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _mistakes(settings: SendgridSettings) -> list[str]:
    keys = settings.verification_key
    checks = [
        (
            vendor.is_address(settings.base_url),
            "base_url: an http(s) address without a query is expected",
        ),
        (vendor.fits_header(settings.api_key), "api_key: plain characters are expected"),
        (
            mail.is_mailbox(settings.from_address),
            "from_address: a plain e-mail address is expected",
        ),
        (
            isinstance(keys, tuple) and all(map(_public_key, keys)),
            "verification_key: one or two public keys of P-256, in base64, are expected",
        ),
        (settings.tolerance > 0, "tolerance: more than 0 seconds are expected"),
        (settings.avoid >= 0, "avoid: 0 seconds or more are expected"),
    ]
    common = settings.mistakes("sendgrid", Sendgrid.channels)
    return [*common, *(message for fine, message in checks if not fine)]
