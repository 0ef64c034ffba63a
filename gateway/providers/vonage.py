"""Vonage: SMS, WhatsApp, Messenger, Viber and RCS by the Messages API v1, calls by the Voice API.

https://developer.vonage.com/en/api/messages
https://developer.vonage.com/en/messages/concepts/messages-status-callbacks
https://developer.vonage.com/en/messages/concepts/signed-webhooks
https://developer.vonage.com/en/api-errors/messages
https://developer.vonage.com/en/api/voice
https://developer.vonage.com/en/voice/voice-api/webhook-reference

One application, with one key and one signature secret, has all the channels; each route is one of
them. A message carries the attempt id as `client_ref`, which every status repeats (ECHO). A call
repeats nothing of ours, so its `event_url` is the attempt's own (TOKEN).

Requests carry a token of our making, dated by `now`, the one clock that a provider has. An API key
and secret may stand in its place for messages; Vonage then promises no receipts.

What is unsigned is refused with 401 and lost; the vendor would sign it if it were told 503.

Messenger knows people by page-scoped ids. The number's digits are sent as `to`, which is right
only where recipients are such ids, as in the sandbox.

Unconfirmed: unit and limits of an SMS's `ttl` (`sms_ttl` turns it off); that repeated callbacks are
signed anew (`signature_age`); codes above 1370; that a recognised voicemail's `completed` tells a
duration; the currency of a call's price; the bodies of the Voice API's errors; regional hosts. No
server error is documented as "nothing was done".

Over 500 lines, for it is two APIs with one application, and a fifth of it is the vendor's tables.
"""

import hashlib
import hmac
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from urllib.parse import quote
from uuid import uuid4

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.domain import speech, vendor
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
    Sender,
    Sheet,
    Unknown,
    Wire,
    no_clock,
    post,
)

TOKEN_LIFE = 900  # seconds, as in the vendor's SDKs
TOKEN_SPARE = 60  # a token with less life left is not sent any more
CALL_LIMIT = 1500  # characters of a text to be read out
CALL_LENGTH = 120  # seconds after which an answered call is ended
CURRENCY = "EUR"  # of accounts, and the only one in the vendor's description
ALREADY_SENT = "1320"  # says nothing new: an earlier message is the one that counts

# What the Messages API calls our channels.
NAMES = {
    "messenger": "messenger",
    "rcs": "rcs",
    "sms": "sms",
    "viber": "viber_service",
    "whatsapp": "whatsapp",
}
# The least and the most seconds a channel's `ttl` may say; the others have none. A plan that waits
# for less than the least may see the message come after it has gone on.
VALIDITIES = {"rcs": (300, 259_200), "sms": (20, 604_800), "viber": (30, 259_200)}
NUMBERED = frozenset({"voice", "whatsapp"})  # their senders are numbers

CATEGORIES = ("response", "update", "message_tag")
DETECTIONS = ("continue", "hangup")

# What texts are read out in; of a language's several, the first serves where none is named.
VOICES = (
    *("ar", "ca-ES", "cmn-CN", "cmn-TW", "cs-CZ", "cy-GB", "da-DK", "de-DE", "el-GR", "en-US"),
    *("en-AU", "en-GB", "en-IN", "en-ZA", "es-ES", "es-MX", "es-US", "eu-ES", "fi-FI", "fil-PH"),
    *("fr-FR", "fr-CA", "he-IL", "hi-IN", "hu-HU", "id-ID", "is-IS", "it-IT", "ja-JP", "ko-KR"),
    *("nb-NO", "nl-NL", "no-NO", "pl-PL", "pt-PT", "pt-BR", "ro-RO", "ru-RU", "sk-SK", "sv-SE"),
    *("th-TH", "tr-TR", "uk-UA", "vi-VN", "yue-CN"),
)

_BEARER = re.compile(r"[Bb]earer (([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+))\.([A-Za-z0-9_-]+)")
_DURATION = re.compile(r"0*[1-9][0-9]{0,5}(\.[0-9]+)?")
_NUMBER = re.compile(r"\+?([1-9][0-9]{4,14})")
_NONE = Secret("")


@dataclass(frozen=True, kw_only=True, slots=True)
class VonageSettings(RouteSettings):
    base_url: str = "https://api.nexmo.com/v1"
    account_url: str = "https://rest.nexmo.com"  # tells the balance
    application_id: str | None = None
    private_key: Secret = _NONE  # of the application, PEM
    api_key: str | None = None  # of the account: compared in callbacks, asks for the balance
    api_secret: Secret = _NONE
    signature_secret: tuple[Secret, ...] = ()  # two while one is replaced; none: no receipt gets in
    signature_age: int = 300  # seconds between a signature and its arrival, either way
    webhook_url: str | None = None  # sent with each message; None: the application's status URL
    avoid: float = 86_400.0  # seconds a number is left out after a failure for good
    sms_ttl: bool = True
    whatsapp_template: Sender = None  # its name, or a table by purpose with `default`
    whatsapp_locale: Sender = None  # the template's, or a table by locale with `default`
    whatsapp_button: bool = True  # an authentication template, which repeats the code in its button
    messenger_category: str = "response"
    messenger_tag: str | None = None  # goes with the category message_tag
    voice_language: str | None = None  # None: by the message's locale
    voice_style: int = 0
    voice_ring: int = 30  # seconds; voicemail mostly answers later
    voice_detection: str | None = None  # continue or hangup: what to do when a machine answers


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an error code means. `number`: it is about the number, to be left out a while."""

    reason: str
    kind: RefusalKind
    number: bool = False


class Vonage:
    Settings = VonageSettings
    wire: ClassVar = Wire.HTTP
    sheet: ClassVar = Sheet(
        vendor="Vonage",
        proof="a signed token (HS256) over the hash of the raw body; for a call also the attempt's"
        " token in the URL",
        setup=(
            "Enter the callback URL as the application's status URL, or set it as webhook_url.",
            "Put the account's signature secret into signature_secret.",
            "Link the sender to the application.",
        ),
        callback="{public_url}/otp/delivered/{route}",
        cost=CURRENCY,
    )
    channels = frozenset({*NAMES, "voice"})
    idempotent = False
    signed = True

    def __init__(self, settings: VonageSettings, *, now: Callable[[], datetime] = no_clock) -> None:
        key = _private_key(settings.private_key)
        if wrong := "; ".join(_mistakes(settings, key)):
            raise ValueError(wrong)
        self.name = settings.name
        self.channel = settings.channel
        self.account = settings.account
        self.sender = settings.sender
        self.timeout = settings.timeout
        self.rate = settings.rate
        self.concurrency = settings.concurrency
        self.now = now
        self._settings = settings
        self._calls = settings.channel == "voice"
        self.confirms = _confirms(settings)
        self.correlates = Correlation.TOKEN if self._calls else Correlation.ECHO
        self._span = VALIDITIES.get(settings.channel)
        if settings.channel == "sms" and not settings.sms_ttl:
            self._span = None
        self.validity = self._calls or self._span is not None
        secrets = (settings.private_key, settings.api_secret, *settings.signature_secret)
        self._secrets = tuple(secret for secret in secrets if secret)
        self._signature_secrets = tuple(secret.encode() for secret in settings.signature_secret)

        headers = {"accept": "application/json", "content-type": "application/json"}
        self._account_headers = {"authorization": _basic(settings)} if settings.api_secret else None
        self._auth: Auth | None = None
        if key is not None:
            self._auth = _Bearer(
                key,
                settings.application_id or "",
                lambda: self.now(),  # noqa: PLW0108 (the wiring may replace it)
            )
        else:
            headers["authorization"] = _basic(settings)
        # A URL and headers parsed once: a third of the time of a request made from strings.
        path = "/calls" if self._calls else "/messages"
        pattern = Request("GET", settings.base_url.rstrip("/") + path, headers=headers)
        self._url, self._headers = pattern.url, pattern.headers

    # Of messages, on every channel. READ never comes of an SMS.
    statuses: ClassVar[Mapping[str, Meaning]] = {
        "submitted": Meaning(State.ACK),  # handed to the carrier or the app's operator
        "delivered": Meaning(State.DELIVERED),  # on the device
        "read": Meaning(State.READ),  # opened
        "rejected": Meaning(State.FAILED, "rejected"),  # by anyone, or too late; `error` says why
        "undeliverable": Meaning(State.FAILED, "undeliverable"),  # the operator was not reached
    }

    # Of calls. `completed` without a duration was never answered, and with machine detection it
    # may have been answered by a machine: then it says nothing, and `human` counts.
    calls: ClassVar[Mapping[str, Meaning]] = {
        "started": Meaning(State.SENT),  # the platform has begun
        "ringing": Meaning(State.ACK),  # the phone rings
        "answered": Meaning(State.ACK),  # somebody or something took it
        "human": Meaning(State.DELIVERED),  # a person took it
        "completed": Meaning(State.DELIVERED),  # over, after it was answered
        "machine": Meaning(State.FAILED, "machine"),  # voicemail
        "busy": Meaning(State.FAILED, "busy"),  # line engaged
        "timeout": Meaning(State.FAILED, "not_answered"),  # rang as long as we said
        "unanswered": Meaning(State.FAILED, "not_answered"),  # rang as long as the carrier lets
        "cancelled": Meaning(State.FAILED, "cancelled"),  # ended before it was answered
        "rejected": Meaning(State.FAILED, "rejected"),  # `detail` says why
        "failed": Meaning(State.FAILED, "failed"),  # `detail` says why
        "transfer": Meaning(None),  # to another conversation
        "input": Meaning(None),  # keys pressed
        "record": Meaning(None),  # a recording is ready
        "disconnected": Meaning(None),  # of websockets
    }

    # Why a call was rejected or failed.
    details: ClassVar[Mapping[str, Trouble]] = {
        "invalid_number": Trouble("bad_destination", RefusalKind.PERMANENT, number=True),
        "cannot_route": Trouble("not_routable", RefusalKind.PERMANENT, number=True),
        "number_out_of_service": Trouble("out_of_service", RefusalKind.PERMANENT, number=True),
        "restricted": Trouble("restricted", RefusalKind.TEMPORARY),  # by the carrier
        "declined": Trouble("refused", RefusalKind.TEMPORARY),  # by the person
        "unavailable": Trouble("unavailable", RefusalKind.TEMPORARY),  # phone off, no network
        "carrier_timeout": Trouble("carrier_timeout", RefusalKind.TEMPORARY),
        "internal_error": Trouble("vendor_error", RefusalKind.TEMPORARY),
    }

    # Codes of answers and statuses alike. The titles are those of answers, whose codes are in the
    # description of 2022 others than in the vendor's list (1100 is a channel it does not have).
    errors: ClassVar[Mapping[str, Trouble]] = {
        "1000": Trouble("throttled", RefusalKind.THROTTLED),  # too fast for the account
        "1010": Trouble("bad_request", RefusalKind.ACCOUNT),  # parameter missing
        "1020": Trouble("bad_request", RefusalKind.ACCOUNT),  # parameter wrong
        "1021": Trouble("bad_request", RefusalKind.ACCOUNT),  # of the channel
        "1022": Trouble("bad_template", RefusalKind.ACCOUNT),  # parameter of the template
        "1030": Trouble("vendor_error", RefusalKind.TEMPORARY),  # inside the platform
        "1040": Trouble("not_routable", RefusalKind.PERMANENT, number=True),  # unknown prefix
        "1050": Trouble("barred", RefusalKind.PERMANENT, number=True),  # the number is barred
        "1060": Trouble("account_blocked", RefusalKind.ACCOUNT),  # the account is barred
        "1070": Trouble("no_credit", RefusalKind.ACCOUNT),  # quota exceeded
        "1080": Trouble("account_blocked", RefusalKind.ACCOUNT),  # not enabled for this
        "1090": Trouble("bad_request", RefusalKind.ACCOUNT),  # too long, too many
        "1100": Trouble("vendor_error", RefusalKind.TEMPORARY),  # operator not reached
        "1110": Trouble("bad_request", RefusalKind.ACCOUNT),  # signature or channel parameter
        "1120": Trouble("bad_sender", RefusalKind.ACCOUNT),  # illegal sender
        "1130": Trouble("bad_request", RefusalKind.ACCOUNT),  # ttl
        "1140": Trouble("bad_request", RefusalKind.ACCOUNT),  # facility or message type
        "1150": Trouble("bad_request", RefusalKind.ACCOUNT),  # message class or parameter
        "1160": Trouble("not_allowed", RefusalKind.ACCOUNT),  # demo account, number not listed
        "1170": Trouble("bad_destination", RefusalKind.PERMANENT, number=True),  # no such number
        "1180": Trouble("absent", RefusalKind.TEMPORARY),  # phone off
        "1190": Trouble("bad_destination", RefusalKind.PERMANENT, number=True),  # no longer in use
        "1200": Trouble("portability", RefusalKind.PERMANENT, number=True),  # ported, not found
        "1210": Trouble("spam", RefusalKind.PERMANENT),  # the carrier's filter
        "1220": Trouble("busy", RefusalKind.TEMPORARY),  # handset busy
        "1230": Trouble("carrier_error", RefusalKind.TEMPORARY),  # network
        "1240": Trouble("opted_out", RefusalKind.PERMANENT, number=True),  # sent STOP
        "1241": Trouble("too_many", RefusalKind.TEMPORARY),  # to this number
        "1250": Trouble("not_routable", RefusalKind.PERMANENT, number=True),  # no way there
        "1260": Trouble("unreachable", RefusalKind.PERMANENT, number=True),  # by this channel
        "1270": Trouble("age_restricted", RefusalKind.PERMANENT, number=True),  # by the carrier
        "1280": Trouble("blocked", RefusalKind.PERMANENT),  # by the carrier
        "1290": Trouble("no_prepaid_credit", RefusalKind.TEMPORARY),  # the recipient's
        "1300": Trouble("not_a_user", RefusalKind.PERMANENT, number=True),  # not on this app
        "1310": Trouble("bad_device", RefusalKind.PERMANENT, number=True),  # cannot show it
        "1330": Trouble("unknown_error", RefusalKind.TEMPORARY),
        "1340": Trouble("outside_window", RefusalKind.ACCOUNT),  # needs a template or a tag
        "1360": Trouble("too_late", RefusalKind.TEMPORARY),  # ttl reached
        "1370": Trouble("unauthorized", RefusalKind.ACCOUNT),  # Messenger's token has expired
        "1420": Trouble("bad_sender", RefusalKind.ACCOUNT),  # invalid sender
        "1430": Trouble("bad_destination", RefusalKind.PERMANENT, number=True),  # invalid number
        "1460": Trouble("daily_limit", RefusalKind.TEMPORARY),  # of the sender
        "1470": Trouble("fraud_rule", RefusalKind.PERMANENT),  # Fraud Defender
        "1471": Trouble("fraud_rule", RefusalKind.PERMANENT),  # Fraud Defender
        "1472": Trouble("fraud_rule", RefusalKind.PERMANENT),  # Fraud Defender
        "1480": Trouble("not_registered", RefusalKind.ACCOUNT),  # entity (India)
        "1481": Trouble("not_registered", RefusalKind.ACCOUNT),  # header
        "1482": Trouble("not_registered", RefusalKind.ACCOUNT),  # content
        "1483": Trouble("not_registered", RefusalKind.ACCOUNT),  # consent
        "invalid channel parameters": Trouble("bad_request", RefusalKind.ACCOUNT),
        "invalid client reference": Trouble("bad_request", RefusalKind.ACCOUNT),
        "invalid message type": Trouble("bad_request", RefusalKind.ACCOUNT),
        "invalid params": Trouble("bad_request", RefusalKind.ACCOUNT),
        "invalid recipient": Trouble("bad_destination", RefusalKind.PERMANENT, number=True),
        "invalid sender": Trouble("bad_sender", RefusalKind.ACCOUNT),
        "unsupported channel": Trouble("bad_request", RefusalKind.ACCOUNT),
        "invalid-json": Trouble("bad_request", RefusalKind.ACCOUNT),  # this and the next: of `type`
        "throttled": Trouble("throttled", RefusalKind.THROTTLED),
    }

    def build(self, outgoing: Outgoing) -> Request:
        body = self._call(outgoing) if self._calls else self._message(outgoing)
        return post(self._url, self._headers, orjson.dumps(body))

    def auth(self) -> Auth | None:
        return self._auth

    def parse(self, response: Response) -> Outcome:
        status = response.status_code
        answer = vendor.json_object(response.content)
        error = self._error(status, answer)
        if status == (201 if self._calls else 202):
            reference = vendor.storable(answer.get("uuid" if self._calls else "message_uuid"))
            return Accepted(reference) if reference else Unknown("no_reference", error)
        if status == 429:
            pause = vendor.retry_after(response.headers.get("retry-after"))
            return Refused("throttled", RefusalKind.THROTTLED, pause, error)
        if status in (401, 403):
            return Refused("unauthorized", RefusalKind.ACCOUNT, error=error)
        if status == 402:
            return Refused("no_credit", RefusalKind.ACCOUNT, error=error)
        if not 400 <= status < 500:
            return Unknown("server_error" if status >= 500 else "odd_answer", error)
        if ALREADY_SENT in _words(answer):
            return Unknown("already_sent", error)
        trouble = self._trouble(answer) or Trouble("rejected", RefusalKind.PERMANENT)
        avoid = self._settings.avoid if trouble.number else None
        return Refused(trouble.reason, trouble.kind, error=error, avoid=avoid)

    def build_revoke(self, attempt_id: str, reference: str | None) -> Request | None:
        """Ends a call; takes back an RCS message that nobody has read. No other channel can."""
        if reference is None or self.channel not in {"rcs", "voice"}:
            return None
        url = f"{self._url}/{quote(reference, safe='')}"
        if self._calls:
            return Request("PUT", url, headers=self._headers, content=b'{"action":"hangup"}')
        return Request("PATCH", url, headers=self._headers, content=b'{"status":"revoked"}')

    def build_check(self) -> Request | None:
        """A look at the balance; None without the account's key and secret."""
        if self._account_headers is None:
            return None
        url = f"{self._settings.account_url.rstrip('/')}/account/get-balance"
        return Request("GET", url, headers=self._account_headers)

    def parse_check(self, response: Response) -> str | None:
        """What is wrong, in a sentence; None when all is well."""
        status = response.status_code
        answer = vendor.json_object(response.content)
        if status in (401, 403):
            return "Vonage refuses api_key or api_secret."
        amount = answer.get("value")
        if status != 200 or not isinstance(amount, int | float):
            return f"Vonage does not tell the balance ({self._error(status, answer)})."
        return None if amount > 0 else "The Vonage account has no credit."

    def authenticate(self, callback: Callback) -> bool:
        """A JWT, whose only algorithm is HS256, over the hash of the raw body."""
        header = _BEARER.fullmatch(callback.headers.get("authorization", ""))
        if callback.method != "POST" or header is None:
            return False
        if self._calls and callback.attempt_id is None:
            return False
        signed, head, claims, signature = header.groups()
        found = False
        for secret in self._signature_secrets:  # all of them, so that time does not tell which
            # The text is compared and not its bytes: several texts would stand for the same.
            expected = _encoded(hmac.digest(secret, signed.encode(), "sha256"))
            found |= hmac.compare_digest(expected, signature)
        if not found or _decoded(head).get("alg") != "HS256":
            return False
        return self._claims_hold(_decoded(claims), callback)

    def handshake(self, callback: Callback) -> Reply | None:
        return None

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        try:
            item = orjson.loads(callback.body)
        except orjson.JSONDecodeError:
            return [Malformed("not JSON", callback.body)]
        if not isinstance(item, dict):
            return [Malformed("not an object", callback.body)]
        if "message_uuid" in item and "status" not in item and "message_type" in item:
            return []  # a message from a person, at an address that serves both
        return [self._receipt(item, callback)]

    # The request of each kind.

    def _message(self, outgoing: Outgoing) -> dict[str, object]:
        body: dict[str, object] = {
            "channel": NAMES[self.channel],
            "to": _bare(outgoing.recipient),
            "client_ref": outgoing.attempt_id,
            "webhook_version": "v1",
        }
        if outgoing.sender:
            body["from"] = _bare(outgoing.sender)
        if url := outgoing.callback_url or self._settings.webhook_url:
            body["webhook_url"] = url
        body |= self._content(outgoing)
        if self._span is None:
            return body
        ttl = _within(outgoing.validity, self._span)
        if self.channel == "viber":
            body["viber_service"] = {"category": "transaction", "ttl": ttl}
        else:
            body["ttl"] = ttl
        return body

    def _content(self, outgoing: Outgoing) -> dict[str, object]:
        if self.channel == "whatsapp":
            return self._template(outgoing)
        content: dict[str, object] = {"message_type": "text", "text": outgoing.text}
        if self.channel == "messenger":
            options = {"category": self._settings.messenger_category}
            if self._settings.messenger_tag:
                options["tag"] = self._settings.messenger_tag
            content["messenger"] = options
        return content

    def _template(self, outgoing: Outgoing) -> dict[str, object]:
        """A template approved by Meta: the text is Meta's, ours is not sent."""
        settings = self._settings
        name = _chosen(settings.whatsapp_template, outgoing.template)
        locale = _chosen(settings.whatsapp_locale, outgoing.locale) or outgoing.locale
        if not settings.whatsapp_button:
            return {
                "message_type": "template",
                "template": {"name": name, "parameters": [outgoing.code]},
                "whatsapp": {"policy": "deterministic", "locale": locale.replace("_", "-")},
            }
        parameters = [{"type": "text", "text": outgoing.code}]
        button = {"type": "button", "sub_type": "url", "index": 0, "parameters": parameters}
        template = {
            "name": name,
            "language": {"policy": "deterministic", "code": locale.replace("-", "_")},
            "components": [{"type": "body", "parameters": parameters}, button],
        }
        return {"message_type": "custom", "custom": {"type": "template", "template": template}}

    def _call(self, outgoing: Outgoing) -> dict[str, object]:
        settings = self._settings
        talk = {
            "action": "talk",
            "text": spoken(outgoing.text, outgoing.code),
            "language": settings.voice_language or voice_language(outgoing.locale),
            "style": settings.voice_style,
            "loop": 2,
        }
        body: dict[str, object] = {
            "to": [{"type": "phone", "number": _bare(outgoing.recipient)}],
            "ncco": [talk],
            "ringing_timer": _within(outgoing.validity, (1, settings.voice_ring)),
            "length_timer": CALL_LENGTH,
        }
        if outgoing.sender:
            body["from"] = {"type": "phone", "number": _bare(outgoing.sender)}
        else:
            body["random_from_number"] = True  # one of the application's
        if outgoing.callback_url:
            body |= {"event_url": [outgoing.callback_url], "event_method": "POST"}
        if settings.voice_detection:
            body["machine_detection"] = settings.voice_detection
        return body

    # What callbacks say.

    def _claims_hold(self, claims: Mapping[str, object], callback: Callback) -> bool:
        settings = self._settings
        body_hash, signed_at = claims.get("payload_hash"), claims.get("iat")
        if not isinstance(body_hash, str) or type(signed_at) not in (int, float):
            return False
        ours = hashlib.sha256(callback.body).hexdigest()
        if not hmac.compare_digest(ours.encode(), body_hash.encode(errors="backslashreplace")):
            return False
        age = abs(callback.received_at.timestamp() - signed_at)  # type: ignore[operator]
        named = {"api_key": settings.api_key, "application_id": settings.application_id}
        return age <= settings.signature_age and all(
            expected is None or claims.get(claim, expected) == expected
            for claim, expected in named.items()
        )

    def _receipt(self, item: Mapping[str, object], callback: Callback) -> Receipt | Malformed:
        call = "message_uuid" not in item and ("uuid" in item or "call_uuid" in item)
        named = item.get("uuid", item.get("call_uuid")) if call else item.get("message_uuid")
        reference, word = vendor.storable(named), vendor.storable(item.get("status"))
        attempt_id = vendor.storable(item.get("client_ref")) or callback.attempt_id
        if callback.attempt_id not in (None, attempt_id):
            return Malformed("client_ref differs", callback.body)
        if reference is None or word is None:
            missing = "the id" if reference is None else "status"
            return Malformed(f"{missing} is missing or unusable", callback.body)
        meaning, trouble = (self._of_call if call else self._of_message)(word, item)
        if trouble is not None:
            permanent = trouble.kind is RefusalKind.PERMANENT
            meaning = Meaning(State.FAILED, trouble.reason, permanent=permanent)
        return Receipt(
            word=word,
            state=meaning.state,
            reference=reference,
            attempt_id=attempt_id,
            reason=meaning.reason,
            permanent=meaning.permanent,
            recipient=_spelled_out(item.get("to")),
            provider_time=vendor.storable(item.get("timestamp")),
            cost=_cost(item if call else item.get("usage")),
            avoid=self._settings.avoid if trouble and trouble.number else None,
            raw=callback.body,
        )

    def _of_message(self, word: str, item: Mapping[str, object]) -> tuple[Meaning, Trouble | None]:
        meaning, error = self.statuses.get(word, Meaning(None)), item.get("error")
        if meaning.state is not State.FAILED:
            return meaning, None
        if ALREADY_SENT in _words(error):
            return Meaning(None), None
        return meaning, self._trouble(error)

    def _of_call(self, word: str, item: Mapping[str, object]) -> tuple[Meaning, Trouble | None]:
        meaning = self.calls.get(word, Meaning(None))
        if word == "completed" and (self._settings.voice_detection or not _lasted(item)):
            return Meaning(None), None
        detailed = word in {"failed", "rejected"}
        return meaning, self.details.get(str(item.get("detail"))) if detailed else None

    def _trouble(self, problem: object) -> Trouble | None:
        return next((self.errors[word] for word in _words(problem) if word in self.errors), None)

    def _error(self, status: int, answer: Mapping[str, object]) -> str:
        said = [answer.get("title"), answer.get("error_title"), answer.get("detail")]
        wrong = answer.get("invalid_parameters")
        for parameter in wrong[:3] if isinstance(wrong, list) else ():
            if isinstance(parameter, dict):
                said += [parameter.get("name"), parameter.get("reason")]
        text = ": ".join(part for part in said if isinstance(part, str) and part != "")
        return vendor.redact(text, self._secrets) or f"HTTP {status}"


class _Bearer(Auth):
    """Puts a token of the application on each request. One serves for most of its life: its
    signature costs a millisecond."""

    def __init__(
        self, key: RSAPrivateKey, application_id: str, now: Callable[[], datetime]
    ) -> None:
        self._key = key
        self._application_id = application_id
        self._now = now
        self._token = ""
        self._made = 0

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        at = int(self._now().timestamp())
        if not 0 <= at - self._made < TOKEN_LIFE - TOKEN_SPARE:  # old, or the clock went back
            self._token, self._made = self._mint(at), at
        request.headers["authorization"] = f"Bearer {self._token}"
        yield request

    def _mint(self, at: int) -> str:
        claims = {
            "application_id": self._application_id,
            "iat": at,
            "jti": str(uuid4()),
            "exp": at + TOKEN_LIFE,
        }
        head = orjson.dumps({"alg": "RS256", "typ": "JWT"})
        signed = f"{_encoded(head)}.{_encoded(orjson.dumps(claims))}"
        return f"{signed}.{_encoded(self._key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def spoken(text: str, code: str) -> str:
    """The text with its code spelled, a pause after each digit; the call says it twice."""
    whole = speech.spelling(text, code)
    return whole if len(whole) <= CALL_LIMIT else f"{speech.spelled(code)}."


def voice_language(locale: str) -> str:
    tag = locale.replace("_", "-").lower()
    language = "cmn" if tag.partition("-")[0] == "zh" else tag.partition("-")[0]
    of_language = [voice for voice in VOICES if voice.partition("-")[0] == language]
    exact = [voice for voice in of_language if voice.partition("-")[2].lower() == tag[-2:]]
    return next(iter([*exact, *of_language]), "en-US")


def _mistakes(settings: VonageSettings, key: RSAPrivateKey | None) -> Iterator[str]:
    yield from settings.mistakes("vonage", Vonage.channels)
    for name in ("base_url", "account_url"):
        if not vendor.is_address(getattr(settings, name)):
            yield f"{name}: an http(s) address without a query is expected"
    if settings.webhook_url is not None and not vendor.is_address(settings.webhook_url):
        yield "webhook_url: an http(s) address without a query is expected"
    yield from _credential_mistakes(settings, key)
    secrets = settings.signature_secret
    if not isinstance(secrets, tuple) or not all(secrets):
        yield "signature_secret: one or two secrets that are not empty are expected"
    if settings.signature_age < 1:
        yield "signature_age: at least 1 second is expected"
    if settings.avoid < 0:
        yield "avoid: 0 or more seconds are expected"
    yield from _channel_mistakes(settings)


def _credential_mistakes(settings: VonageSettings, key: RSAPrivateKey | None) -> Iterator[str]:
    if settings.private_key:
        if not settings.application_id:
            yield "application_id: the application whose private_key this is is missing"
        if key is None:
            yield "private_key: an RSA key in PEM without a password is expected"
    elif settings.channel == "voice":
        yield "private_key: is missing; calls are not made with api_key and api_secret"
    elif not settings.api_secret:
        yield "private_key: is missing, and there is no api_secret in its place"
    if settings.api_secret and not settings.api_key:
        yield "api_key: is missing; it goes with api_secret"
    for name in ("api_key", "api_secret"):
        given = getattr(settings, name)
        if given and not vendor.fits_header(given):
            yield f"{name}: plain characters are expected"


def _channel_mistakes(settings: VonageSettings) -> Iterator[str]:
    senders = settings.sender
    each = list(senders.values()) if isinstance(senders, Mapping) else [senders] if senders else []
    if not each and settings.channel != "voice":
        yield "sender: is missing; every message names one"
    if settings.channel in NUMBERED and not all(_NUMBER.fullmatch(one) for one in each):
        yield f"sender: {settings.channel} has numbers as senders, such as +447700900001"
    elif not all(1 <= len(one) <= 50 for one in each):
        yield "sender: 1 to 50 characters are expected"
    if settings.channel == "whatsapp" and not _chosen(settings.whatsapp_template, ""):
        yield "whatsapp_template: an approved template, or a table with `default`, is expected"
    if settings.messenger_category not in CATEGORIES:
        yield f"messenger_category: {' or '.join(CATEGORIES)} is expected"
    if (settings.messenger_category == "message_tag") != bool(settings.messenger_tag):
        yield "messenger_tag: goes with the category message_tag, and only with it"
    if settings.voice_detection not in (None, *DETECTIONS):
        yield f"voice_detection: {' or '.join(DETECTIONS)} is expected"
    if not 1 <= settings.voice_ring <= 120:
        yield "voice_ring: 1 to 120 seconds are expected"


def _confirms(settings: VonageSettings) -> frozenset[State]:
    if not settings.private_key:
        return frozenset()  # documented: without an application there are no callbacks
    usual = frozenset({State.ACK, State.DELIVERED, State.FAILED})
    return usual if settings.channel in {"sms", "voice"} else usual | {State.READ}


def _private_key(pem: str) -> RSAPrivateKey | None:
    """None where it is none: a missing one, another kind, one with a password (TypeError)."""
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, RSAPrivateKey) else None


def _basic(settings: VonageSettings) -> str:
    pair = f"{settings.api_key}:{settings.api_secret}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def _encoded(content: bytes) -> str:
    """As in a JWT: base64 for URLs, without padding."""
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(part: str) -> Mapping[str, object]:
    """A part of a JWT, whose alphabet was checked; an empty object for anything else."""
    try:
        return vendor.json_object(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:  # a length no encoding has
        return {}


def _bare(number: str) -> str:
    """A number as Vonage writes it, without a plus sign; any other sender as it is."""
    found = _NUMBER.fullmatch(number)
    return found[1] if found else number


def _spelled_out(number: object) -> str | None:
    """A number as we write it."""
    known = vendor.storable(number)
    return f"+{known}" if known and re.fullmatch("[0-9]+", known) else known


def _within(seconds: int, span: tuple[int, int]) -> int:
    least, most = span
    return max(least, min(seconds, most))


def _chosen(given: Sender, key: str) -> str | None:
    """What a setting says, or a table of it for this key."""
    if isinstance(given, Mapping):
        return given.get(key, given.get("default"))
    return given


def _words(problem: object) -> list[str]:
    """What a problem is known by: its `title`, which may be a number, and the end of its `type`."""
    if not isinstance(problem, Mapping):
        return []
    title, kind = problem.get("title"), problem.get("type")
    said = str(title) if isinstance(title, int | str) else ""
    fragment = kind.rpartition("#")[2] if isinstance(kind, str) else ""
    return [said.lower(), fragment.lower()]


def _cost(usage: object) -> str | None:
    if not isinstance(usage, Mapping):
        return None
    price = usage.get("price")
    amount = str(price) if type(price) in (int, float) else vendor.storable(price)
    return f"{amount} {vendor.storable(usage.get('currency')) or CURRENCY}" if amount else None


def _lasted(item: Mapping[str, object]) -> bool:
    """Whether a call that is over was ever answered."""
    return _DURATION.fullmatch(str(item.get("duration"))) is not None
