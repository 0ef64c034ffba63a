"""Twilio, SMS, WhatsApp and voice.

https://www.twilio.com/docs/messaging/api/message-resource
https://www.twilio.com/docs/messaging/guides/outbound-message-status-in-status-callbacks
https://www.twilio.com/docs/voice/api/call-resource
https://www.twilio.com/docs/usage/webhooks/webhooks-security
https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides
https://www.twilio.com/docs/api/errors
https://github.com/twilio/twilio-oai

Each message brings its own callback URL; receipts are unordered, and are repeated only because a
fragment of that URL asks for it. `ValidityPeriod` bounds the wait in Twilio's queue, not the
carrier's. A call speaks to whoever picks up, so only its end says whether that was a person.
SMS and calls have no READ; WhatsApp has it where the recipient lets it be known.

Unconfirmed: signatures by shared key (`webhook_key`) in production; a Retry-After with 429; the
error codes of calls, and those of messages that are not in the vendor's insights guide; `price`
in callbacks; a 201 whose status is already a failure; that a message which was not scheduled can
still be canceled. Permanent or temporary is our reading.

More than 500 lines: three channels of one account, and the vendor's error codes, one a line.
"""

import hashlib
import hmac
import html
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import parse_qsl, quote, urlencode

import orjson

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
    Sheet,
    Unknown,
    Wire,
    post,
)

LONGEST_WAIT = 36_000  # seconds; the most ValidityPeriod takes
TWIML_LIMIT = 4000  # characters
CODE_VARIABLE = "1"  # the code's place in a template for authentication
FORM_LIMIT = 200  # fields of a callback; there are about twenty

# Part of the callback URL, unsigned: three more tries when we cannot be reached or answer badly.
OVERRIDES = "#rc=3&rp=all"

SIGNATURE = "x-twilio-signature"
SHARED_KEY = "x-twilio-webhooks-signature-settings"

# What one language is read out in; a locale with its own line is served exactly.
VOICES = {
    "ca": "ca-ES",
    "da": "da-DK",
    "de": "de-DE",
    "en": "en-US",
    "en-gb": "en-GB",
    "es": "es-ES",
    "es-mx": "es-MX",
    "fi": "fi-FI",
    "fr": "fr-FR",
    "fr-ca": "fr-CA",
    "it": "it-IT",
    "ja": "ja-JP",
    "ko": "ko-KR",
    "nb": "nb-NO",
    "nl": "nl-NL",
    "pl": "pl-PL",
    "pt": "pt-PT",
    "pt-br": "pt-BR",
    "ru": "ru-RU",
    "sv": "sv-SE",
    "zh": "zh-CN",
    "zh-tw": "zh-TW",
}

_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_SMS_SENDER = re.compile(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 &_+-]{1,11}")
_LANGUAGE = re.compile(r"[a-z]{2,3}-[A-Z]{2}")
_AMOUNT = re.compile(r"-?([0-9]{1,9}(?:\.[0-9]{1,9})?)")
_NAMED_KEY = re.compile(r"key=[^,\s]*,algorithm=HMAC_SHA256")
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


NO_SECRET = Secret("")


@dataclass(frozen=True, kw_only=True, slots=True)
class TwilioSettings(RouteSettings):
    base_url: str = "https://api.twilio.com"  # or that of a region, api.dublin.ie1.twilio.com
    account_sid: str
    auth_token: tuple[Secret, ...] = ()  # signs callbacks; two in a rotation; none: no receipt
    api_key: str | None = None  # None: calls go out with the first auth_token
    api_secret: Secret = NO_SECRET
    webhook_key: tuple[Secret, ...] = ()  # where callbacks are signed by a shared key instead
    messaging_service: str | None = None  # the pool of senders; with one, `sender` may be left out
    content: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # template, locale → HX…
    voice_language: str | None = None  # None: by the message's locale
    ring_timeout: int = 20  # seconds; longer rings end at a voicemail
    machine_detection: bool = True  # costs a moment's silence, and a fee
    avoid: int = 7 * 86_400  # seconds for which a number that cannot work is left alone


@dataclass(frozen=True, slots=True)
class Fault:
    """What an error code says. `number`: it is about the number, whatever we send it."""

    reason: str
    kind: RefusalKind
    number: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """How messages and calls differ: the path, and what a callback calls its parts."""

    path: str
    sid: str
    status: str
    time: str


MESSAGE = Kind("Messages", "MessageSid", "MessageStatus", "RawDlrDoneDate")
CALL = Kind("Calls", "CallSid", "CallStatus", "Timestamp")

CONFIRMS = {
    "sms": frozenset({State.ACK, State.DELIVERED, State.FAILED}),
    "whatsapp": frozenset({State.ACK, State.DELIVERED, State.READ, State.FAILED}),
    "voice": frozenset({State.ACK, State.DELIVERED, State.FAILED}),
}

REJECTED = Fault("rejected", RefusalKind.PERMANENT)
UNAUTHORIZED = Fault("unauthorized", RefusalKind.ACCOUNT)
NOT_FOUND = Fault("not_found", RefusalKind.ACCOUNT)
THROTTLED = Fault("throttled", RefusalKind.THROTTLED)
BY_STATUS = {401: UNAUTHORIZED, 403: UNAUTHORIZED, 404: NOT_FOUND, 429: THROTTLED}
NO_SUCH_NUMBER = Fault("bad_destination", RefusalKind.PERMANENT, number=True)
NO_NUMBER = frozenset({404, 484, 604})  # SIP: not found, incomplete, exists nowhere


class Twilio:
    Settings = TwilioSettings
    wire: ClassVar = Wire.HTTP
    sheet: ClassVar = Sheet(
        vendor="Twilio",
        proof="X-Twilio-Signature over URL and fields, and the attempt's token in the URL",
        setup=(
            "Nothing for receipts: each message names its own URL.",
            "WhatsApp: have templates approved, and enter their HX… under `content`.",
        ),
        cost="USD",
    )
    channels = frozenset({"sms", "whatsapp", "voice"})
    correlates = Correlation.TOKEN
    idempotent = False
    signed = True

    def __init__(self, settings: TwilioSettings) -> None:
        if wrong := "; ".join(_mistakes(settings)):
            raise ValueError(wrong)
        self.name = settings.name
        self.channel = settings.channel
        self.account = settings.account
        self.sender = settings.sender
        self.timeout = settings.timeout
        self.rate = settings.rate
        self.concurrency = settings.concurrency
        self.confirms = CONFIRMS[settings.channel]
        self.validity = settings.channel != "voice"  # a call has no such field
        self._settings = settings
        self._content = {
            template: {_tag(locale): sid for locale, sid in by_locale.items()}
            for template, by_locale in settings.content.items()
        }
        self._prefix = "whatsapp:" if settings.channel == "whatsapp" else ""
        self._kind = CALL if settings.channel == "voice" else MESSAGE
        self._words = self.calls if settings.channel == "voice" else self.statuses
        keys = (*settings.auth_token, *settings.webhook_key)
        self._secrets = tuple(secret for secret in (settings.api_secret, *keys) if secret)
        self._tokens = tuple(token.encode() for token in settings.auth_token)
        self._shared_keys = tuple(key.encode() for key in settings.webhook_key)

        account = f"{settings.base_url.rstrip('/')}/2010-04-01/Accounts/{settings.account_sid}"
        self._resources = f"{account}/{self._kind.path}"
        self._check_url = f"{account}.json"
        token = next(iter(settings.auth_token), NO_SECRET)
        if settings.api_key is None:
            user, password = settings.account_sid, token
        else:
            user, password = settings.api_key, settings.api_secret
        # A URL and headers parsed once: a third of the time of a request made from strings.
        pattern = Request("GET", f"{self._resources}.json", headers=_headers(user, password))
        self._url, self._headers = pattern.url, pattern.headers
        # Most API keys may not read the account; the token may, and is the one to be sure of.
        self._checked = "auth_token" if token else "api_key (a Main key is needed) or api_secret"
        self._check_headers = _headers(settings.account_sid, token) if token else self._headers

    statuses: ClassVar[Mapping[str, Meaning]] = {
        "accepted": Meaning(State.SENT),  # the Messaging Service has yet to pick a sender
        "scheduled": Meaning(State.SENT),  # not used by us
        "queued": Meaning(State.SENT),  # at Twilio
        "sending": Meaning(State.SENT),  # on its way to the carrier
        "sent": Meaning(State.ACK),  # the nearest carrier took it
        "delivered": Meaning(State.DELIVERED),  # on the handset
        "read": Meaning(State.READ),  # WhatsApp and RCS, if the recipient lets it be known
        "undelivered": Meaning(State.FAILED, "not_delivered"),  # ErrorCode may say why
        "failed": Meaning(State.FAILED, "not_sent"),  # ErrorCode may say why
        "canceled": Meaning(State.FAILED, "canceled"),  # taken back by us
        "receiving": Meaning(None),  # inbound
        "received": Meaning(None),  # inbound
        "partially_delivered": Meaning(None),  # no longer used by the vendor
    }

    # "completed" is DELIVERED only when a person listened; `_heard` looks closer.
    calls: ClassVar[Mapping[str, Meaning]] = {
        "queued": Meaning(State.SENT),  # at Twilio
        "initiated": Meaning(State.SENT),  # being dialled
        "ringing": Meaning(State.ACK),  # the phone rings
        "in-progress": Meaning(State.ACK),  # picked up, by whom is said at the end
        "completed": Meaning(State.DELIVERED),  # picked up and hung up
        "busy": Meaning(State.FAILED, "busy"),  # line engaged
        "no-answer": Meaning(State.FAILED, "no_answer"),  # rang in vain
        "canceled": Meaning(State.FAILED, "canceled"),  # taken back by us
        "failed": Meaning(State.FAILED, "not_sent"),  # could not be connected
    }

    # Error codes, of answers and of receipts alike. One that is not here rejects a request, and
    # makes a failed message a temporary failure.
    errors: ClassVar[Mapping[int, Fault]] = {
        20003: UNAUTHORIZED,  # credentials wrong, or not enough
        20404: NOT_FOUND,  # wrong account
        20429: THROTTLED,  # too many requests at once; nothing was done
        21210: Fault("bad_sender", RefusalKind.ACCOUNT),  # caller id not verified
        21211: NO_SUCH_NUMBER,  # To is no number
        21212: Fault("bad_sender", RefusalKind.ACCOUNT),  # From is no sender
        21213: Fault("bad_sender", RefusalKind.ACCOUNT),  # From is missing
        21214: Fault("unreachable", RefusalKind.PERMANENT, number=True),  # To cannot be called
        21215: Fault("region_not_enabled", RefusalKind.PERMANENT),  # calls there are switched off
        21216: Fault("blocked", RefusalKind.PERMANENT),  # calls to it are not allowed
        21217: NO_SUCH_NUMBER,  # To is no number
        21219: Fault("not_verified", RefusalKind.PERMANENT),  # trial account, not its own number
        21401: NO_SUCH_NUMBER,  # no number
        21408: Fault("region_not_enabled", RefusalKind.PERMANENT),  # SMS there are switched off
        21602: Fault("bad_request", RefusalKind.ACCOUNT),  # no body
        21603: Fault("bad_sender", RefusalKind.ACCOUNT),  # From is missing
        21606: Fault("bad_sender", RefusalKind.ACCOUNT),  # From is not ours
        21608: Fault("not_verified", RefusalKind.PERMANENT),  # trial account, not its own number
        21609: Fault("bad_callback_url", RefusalKind.ACCOUNT),  # StatusCallback
        21610: Fault("opted_out", RefusalKind.PERMANENT, number=True),  # answered STOP
        21611: Fault("sender_queue_full", RefusalKind.THROTTLED),  # of this From
        21612: Fault("no_route", RefusalKind.PERMANENT, number=True),  # from this From to this To
        21614: Fault("not_a_mobile", RefusalKind.PERMANENT, number=True),  # no SMS there
        21617: Fault("text_too_long", RefusalKind.PERMANENT),  # 1600 characters
        21619: Fault("bad_request", RefusalKind.ACCOUNT),  # no body, no media
        21624: Fault("bad_validity", RefusalKind.ACCOUNT),  # ValidityPeriod
        21635: Fault("landline", RefusalKind.PERMANENT, number=True),  # no SMS there
        21654: Fault("bad_template", RefusalKind.ACCOUNT),  # ContentSid
        21659: Fault("bad_sender", RefusalKind.ACCOUNT),  # From is no number of Twilio's
        21660: Fault("bad_sender", RefusalKind.ACCOUNT),  # From is another account's
        21703: Fault("bad_sender", RefusalKind.ACCOUNT),  # the Messaging Service has no senders
        21910: Fault("bad_sender", RefusalKind.ACCOUNT),  # From and To of different channels
        30001: Fault("queue_overflow", RefusalKind.TEMPORARY),
        30002: Fault("account_blocked", RefusalKind.ACCOUNT),  # suspended
        30003: Fault("unreachable", RefusalKind.TEMPORARY),  # handset off or without service
        30004: Fault("blocked", RefusalKind.PERMANENT, number=True),  # the number takes none
        30005: Fault("unknown_number", RefusalKind.PERMANENT, number=True),  # not in use
        30006: Fault("landline", RefusalKind.PERMANENT, number=True),  # or carrier out of reach
        30007: Fault("filtered", RefusalKind.PERMANENT),  # content or sender
        30008: Fault("unknown_error", RefusalKind.TEMPORARY),  # the carrier gave no cause
        30034: Fault("sender_not_registered", RefusalKind.ACCOUNT),  # US, 10DLC
        30036: Fault("expired", RefusalKind.TEMPORARY),  # ValidityPeriod passed in the queue
        30042: Fault("bad_sender", RefusalKind.ACCOUNT),  # a generic sender id
        63001: UNAUTHORIZED,  # at the channel
        63003: Fault("not_a_user", RefusalKind.PERMANENT, number=True),  # not on WhatsApp
        63005: Fault("bad_template", RefusalKind.ACCOUNT),  # content not accepted
        63007: Fault("bad_sender", RefusalKind.ACCOUNT),  # From is no sender of this channel
        63008: Fault("channel_misconfigured", RefusalKind.ACCOUNT),
        63010: Fault("channel_error", RefusalKind.TEMPORARY),  # at Twilio
        63011: Fault("channel_error", RefusalKind.TEMPORARY),  # refused as faulty
        63012: Fault("channel_error", RefusalKind.TEMPORARY),  # at the channel
        63013: Fault("policy_violation", RefusalKind.PERMANENT),  # the channel's rules
        63014: Fault("blocked", RefusalKind.PERMANENT, number=True),  # wants nothing from us
        63015: Fault("sandbox_not_joined", RefusalKind.ACCOUNT),  # the vendor's WhatsApp sandbox
        63016: Fault("template_required", RefusalKind.ACCOUNT),  # no session: set `content`
        63018: Fault("channel_busy", RefusalKind.TEMPORARY),  # its rate limit
        63021: Fault("bad_template", RefusalKind.ACCOUNT),  # content invalid
        63023: Fault("channel_error", RefusalKind.TEMPORARY),  # no cause given
        63024: Fault("not_a_user", RefusalKind.PERMANENT, number=True),  # invalid recipient
        63032: Fault("experiment", RefusalKind.PERMANENT, number=True),  # Meta's, with this user
        63036: Fault("not_a_user", RefusalKind.PERMANENT, number=True),  # not on RCS
        63038: Fault("daily_limit", RefusalKind.TEMPORARY),  # of the account
        63049: Fault("not_wanted", RefusalKind.PERMANENT),  # Meta's choice, for marketing
        90007: Fault("bad_validity", RefusalKind.ACCOUNT),  # ValidityPeriod
    }

    def build(self, outgoing: Outgoing) -> Request:
        fields = self._call(outgoing) if self.channel == "voice" else self._message(outgoing)
        return post(self._url, self._headers, urlencode(fields, doseq=True).encode())

    def auth(self) -> Auth | None:
        return None

    def parse(self, response: Response) -> Outcome:
        status = response.status_code
        answer = vendor.json_object(response.content)
        error = self._error(status, answer)
        if status == 201:
            return self._created(answer, error)
        if 400 <= status < 500:
            fault = self.errors.get(_whole(answer.get("code")), BY_STATUS.get(status, REJECTED))
            if status == 429 and fault.kind is not RefusalKind.THROTTLED:
                fault = THROTTLED
            return self._refused(fault, error, response.headers.get("retry-after"))
        # That a server error means "not sent" is documented nowhere.
        return Unknown("server_error" if status >= 500 else "odd_answer", error)

    def build_poll(self, attempt_id: str, reference: str | None) -> Request | None:
        if reference is None:
            return None
        return Request("GET", self._resource(reference), headers=self._headers)

    def parse_poll(self, response: Response) -> Receipt | None:
        answer = vendor.json_object(response.content)
        if response.status_code != 200:
            return None
        names = {
            self._kind.sid: "sid",
            self._kind.status: "status",
            self._kind.time: "date_updated",
            "ErrorCode": "error_code",
            "AnsweredBy": "answered_by",
            "CallDuration": "duration",
            "Price": "price",
            "PriceUnit": "price_unit",
        }
        fields = {ours: answer.get(theirs) for ours, theirs in names.items()}
        receipt = self._receipt(fields, None, response.content)
        return receipt if isinstance(receipt, Receipt) else None

    def build_revoke(self, attempt_id: str, reference: str | None) -> Request | None:
        """A message that is still queued, a call that nobody picked up yet."""
        if reference is None:
            return None
        url = self._resource(reference)
        return Request("POST", url, headers=self._headers, content=b"Status=canceled")

    def authenticate(self, callback: Callback) -> bool:
        """The URL names the attempt, the signature covers the URL and every field."""
        keys, digest = self._signing(callback.headers.get(SHARED_KEY))
        given = callback.headers.get(SIGNATURE, "").encode(errors="backslashreplace")
        found = False
        for signed in _signed(callback):
            for key in keys:  # all of them, so that time does not tell which
                mac = b64encode(hmac.digest(key, signed, digest))
                found |= hmac.compare_digest(mac, given)
        return found and callback.attempt_id is not None

    def handshake(self, callback: Callback) -> Reply | None:
        return None

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        fields = _fields(callback)
        if fields.get("SmsStatus") == "received" and self._kind.status not in fields:
            return []  # somebody wrote to us
        raw = callback.body or callback.url.partition("?")[2].encode(errors="backslashreplace")
        return [self._receipt(fields, callback.attempt_id, raw)]

    def build_check(self) -> Request:
        """A look at the account: are we let in, and is it active?"""
        return Request("GET", self._check_url, headers=self._check_headers)

    def parse_check(self, response: Response) -> str | None:
        """What is wrong, in a sentence; None when all is well."""
        answer = vendor.json_object(response.content)
        if response.status_code in (401, 403):
            return f"Twilio refuses account_sid or {self._checked}."
        status = answer.get("status")
        if response.status_code != 200 or status not in ("active", "suspended", "closed"):
            return (
                f"Twilio does not tell the account ({self._error(response.status_code, answer)})."
            )
        return None if status == "active" else f"The Twilio account is {status}."

    def _message(self, outgoing: Outgoing) -> dict[str, object]:
        fields = {
            "To": self._prefix + outgoing.recipient,
            **self._origin(outgoing),
            "StatusCallback": outgoing.callback_url + OVERRIDES,
            "ValidityPeriod": min(max(outgoing.validity, 1), LONGEST_WAIT),
        }
        by_locale = self._content.get(outgoing.template, {})
        if template := speech.by_locale(by_locale, outgoing.locale) or by_locale.get("default"):
            variables = orjson.dumps({CODE_VARIABLE: outgoing.code}).decode()
            return {**fields, "ContentSid": template, "ContentVariables": variables}
        return {**fields, "Body": outgoing.text}

    def _call(self, outgoing: Outgoing) -> dict[str, object]:
        language = self._settings.voice_language or speech.by_locale(VOICES, outgoing.locale)
        fields: dict[str, object] = {
            "To": outgoing.recipient,
            **self._origin(outgoing),
            "Twiml": twiml(outgoing.text, outgoing.code, language or VOICES["en"]),
            "Timeout": self._settings.ring_timeout,
            "StatusCallback": outgoing.callback_url + OVERRIDES,
            "StatusCallbackMethod": "POST",
            "StatusCallbackEvent": ("initiated", "ringing", "answered", "completed"),
        }
        if self._settings.machine_detection:
            fields["MachineDetection"] = "Enable"
        return fields

    def _origin(self, outgoing: Outgoing) -> dict[str, object]:
        """Both where both are set: the sender is then one of the service's pool."""
        service = self._settings.messaging_service
        origin = {"From": self._prefix + outgoing.sender} if outgoing.sender else {}
        return {**origin, "MessagingServiceSid": service} if service else {**origin}

    def _resource(self, reference: str) -> str:
        return f"{self._resources}/{quote(reference, safe='')}.json"

    def _created(self, answer: Mapping[str, object], error: str) -> Outcome:
        reference = vendor.storable(answer.get("sid"))
        if reference is None:
            return Unknown("no_sid", error)
        meaning = self._words.get(str(answer.get("status")), Meaning(None))
        if meaning.state is State.FAILED:
            ended = Fault(meaning.reason or "rejected", RefusalKind.TEMPORARY)
            fault = self.errors.get(_whole(answer.get("error_code")), ended)
            return self._refused(fault, error)
        return Accepted(reference, _cost(answer.get("price"), answer.get("price_unit")))

    def _refused(self, fault: Fault, error: str, pause: str | None = None) -> Refused:
        throttled = fault.kind is RefusalKind.THROTTLED
        seconds = vendor.retry_after(pause) if throttled else None
        return Refused(fault.reason, fault.kind, seconds, error, self._avoid(fault))

    def _receipt(
        self, fields: Mapping[str, object], attempt_id: str | None, raw: bytes
    ) -> Receipt | Malformed:
        kind = self._kind
        reference = vendor.storable(fields.get(kind.sid))
        word = vendor.storable(fields.get(kind.status))
        if reference is None or word is None:
            missing = kind.sid if reference is None else kind.status
            return Malformed(f"{missing} is missing or unusable", raw)
        meaning = _heard(word, self._words.get(word, Meaning(None)), fields)
        fault = self._fault(fields) if meaning.state is State.FAILED else None
        return Receipt(
            word=word,
            state=meaning.state,
            reference=reference,
            attempt_id=attempt_id,
            reason=fault.reason if fault else meaning.reason,
            permanent=fault is not None and fault.kind is RefusalKind.PERMANENT,
            provider_time=vendor.storable(fields.get(kind.time)),
            cost=_cost(fields.get("Price"), fields.get("PriceUnit")),
            avoid=self._avoid(fault),
            raw=raw,
        )

    def _fault(self, fields: Mapping[str, object]) -> Fault | None:
        if _whole(fields.get("SipResponseCode")) in NO_NUMBER:
            return NO_SUCH_NUMBER
        return self.errors.get(_whole(fields.get("ErrorCode")))

    def _avoid(self, fault: Fault | None) -> float | None:
        return float(self._settings.avoid) if fault is not None and fault.number else None

    def _signing(self, settings: str | None) -> tuple[Sequence[bytes], str]:
        """The keys and the hash. Only the vendor's newer signatures name them in a header."""
        if settings is None:
            return self._tokens, "sha1"
        return self._shared_keys if _NAMED_KEY.fullmatch(settings) else (), "sha256"

    def _error(self, status: int, answer: Mapping[str, object]) -> str:
        """The vendor's code, of five digits, stays readable; what follows may quote numbers."""
        given = _whole(answer.get("code") or answer.get("error_code"))
        code = given if 10_000 <= given < 100_000 else None
        message = answer.get("message") or answer.get("error_message")
        text = vendor.redact(message, self._secrets) if isinstance(message, str) else ""
        return ": ".join(part for part in (str(code or ""), text) if part) or f"HTTP {status}"


def twiml(text: str, code: str, language: str) -> str:
    """The text with its code spelled, said twice; the code alone where that is too long."""
    spoken = _twice(speech.spelling(text, code), language)
    return spoken if len(spoken) <= TWIML_LIMIT else _twice(speech.spelled(code), language)


def _twice(text: str, language: str) -> str:
    plain = html.escape(_NOT_XML.sub("", text), quote=False)
    say = f'<Pause length="1"/><Say language="{language}">{plain}</Say>'
    return f"<Response>{say}{say}</Response>"


def _tag(locale: str) -> str:
    return locale.replace("_", "-").lower()


def _heard(word: str, meaning: Meaning, fields: Mapping[str, object]) -> Meaning:
    """The meaning, unless it is a call's end: a machine may have listened, or nobody."""
    if word != "completed" or meaning.state is None:
        return meaning
    answered_by = str(fields.get("AnsweredBy") or "")
    if answered_by.startswith("machine") or answered_by == "fax":
        return Meaning(State.FAILED, "answering_machine")
    duration = fields.get("CallDuration")
    if duration in (None, ""):
        return Meaning(None)  # the vendor's resource will tell
    return meaning if _whole(duration) > 0 else Meaning(State.FAILED, "hung_up")


def _signed(callback: Callback) -> Iterator[bytes]:
    """What the signature may be of, none where the body is not what it should be.

    The sender is not consistent about the port, so it counts with and without one.
    """
    given = callback.query.get("bodySHA256")
    if callback.method == "GET":
        fields = ""
    elif callback.method != "POST":
        return
    elif given is not None:  # JSON: the URL is signed, and carries the hash of the body
        digest = hashlib.sha256(callback.body).hexdigest().encode()
        if not hmac.compare_digest(digest, given.encode(errors="backslashreplace")):
            return
        fields = ""
    else:
        pairs = _pairs(callback.body)
        if pairs is None:
            return
        fields = "".join(name + value for name, value in sorted(set(pairs)))
    for url in _spellings(callback.url):
        yield (url + fields).encode(errors="backslashreplace")


def _spellings(url: str) -> tuple[str, str]:
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    path = rest.removeprefix(authority)
    host = re.sub(r":[0-9]+\Z", "", authority)
    usual = f"{host}:{443 if scheme == 'https' else 80}"
    named = usual if host == authority else authority
    return f"{scheme}://{host}{path}", f"{scheme}://{named}{path}"


def _fields(callback: Callback) -> Mapping[str, object]:
    if callback.method == "GET":
        return dict(callback.query)
    if "bodySHA256" in callback.query:
        return vendor.json_object(callback.body)
    return dict(_pairs(callback.body) or ())


def _pairs(body: bytes) -> list[tuple[str, str]] | None:
    """The fields of a form, empty ones too; None for what is no form."""
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_LIMIT)
    except ValueError:
        return None


def _whole(value: object) -> int:
    """A whole number, perhaps as a string of digits; 0 where there is none."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        return int(value)
    return value if type(value) is int else 0


def _cost(price: object, unit: object) -> str | None:
    """The price, which the vendor states as what it takes from the account: below zero."""
    amount = _AMOUNT.fullmatch(price) if isinstance(price, str) else None
    if amount is None or not isinstance(unit, str) or not re.fullmatch("[A-Za-z]{3}", unit):
        return None
    return f"{amount[1]} {unit.upper()}"


def _headers(user: str, password: str) -> dict[str, str]:
    credentials = b64encode(f"{user}:{password}".encode()).decode()
    return {
        "authorization": f"Basic {credentials}",
        "content-type": "application/x-www-form-urlencoded",
    }


def _mistakes(settings: TwilioSettings) -> list[str]:
    keys = {"auth_token": settings.auth_token, "webhook_key": settings.webhook_key}
    language = settings.voice_language
    checks = [
        (
            vendor.is_address(settings.base_url),
            "base_url: an http(s) address without a query is expected",
        ),
        (_is_sid("AC", settings.account_sid), "account_sid: AC and 32 digits are expected"),
        *(
            (
                isinstance(some, tuple) and all(map(vendor.fits_header, some)),
                f"{name}: one or two secrets in plain characters are expected",
            )
            for name, some in keys.items()
        ),
        (
            settings.api_key is None or _is_sid("SK", settings.api_key),
            "api_key: SK and 32 digits are expected",
        ),
        (
            vendor.fits_header(settings.api_secret) == (settings.api_key is not None),
            "api_secret: plain characters are expected, and an api_key with it",
        ),
        (
            settings.api_key is not None or settings.auth_token,
            "auth_token: is needed where no api_key is given",
        ),
        (
            settings.messaging_service is None or _is_sid("MG", settings.messaging_service),
            "messaging_service: MG and 32 digits are expected",
        ),
        *_sender_checks(settings),
        (
            all(_is_sid("HX", sid) for by in settings.content.values() for sid in by.values()),
            "content: HX and 32 digits are expected for each template and locale",
        ),
        (language is None or _LANGUAGE.fullmatch(language), "voice_language: such as fr-FR"),
        (1 <= settings.ring_timeout <= 600, "ring_timeout: 1 to 600 seconds are expected"),
        (settings.avoid > 0, "avoid: more than 0 seconds are expected"),
    ]
    common = settings.mistakes("twilio", Twilio.channels)
    return [*common, *(message for fine, message in checks if not fine)]


def _sender_checks(settings: TwilioSettings) -> Iterator[tuple[bool, str]]:
    sender = settings.sender
    table = sender if isinstance(sender, Mapping) else {"default": sender}
    fits = _SMS_SENDER if settings.channel == "sms" else _NUMBER
    yield (
        all(fits.fullmatch(one) for one in table.values() if one is not None),
        "sender: a number with + is expected; for SMS a short code or up to 11 characters, too",
    )
    pooled = settings.messaging_service is not None and settings.channel != "voice"
    yield (
        pooled or table.get("default") is not None,
        "sender: one for every country is expected, or for messages a messaging_service",
    )


def _is_sid(prefix: str, value: str) -> bool:
    return re.fullmatch(f"{prefix}[0-9a-fA-F]{{32}}", value) is not None
