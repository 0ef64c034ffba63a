"""Octopush, SMS and voice SMS.

https://dev.octopush.com/en/sms-gateway-api-documentation/send-sms/
https://dev.octopush.com/en/sms-gateway-api-documentation/voice-sms-api/send-voice-sms/
https://dev.octopush.com/en/sms-gateway-api-documentation/callbacks/acknowledge-receipt
https://octopush.com/en/sms-gateway-api-documentation/return-codes/

Receipts come to one URL per account, unsigned and, as far as anyone knows, once. They name the
ticket of the *request*, hence one recipient per request. `sms_low_cost` has none at all.

Unconfirmed: the HTTP status of success and of each error; that the return codes of the old API
hold for this one, and any above 123; the voice path and the name of its ticket; the callback's
Content-Type, retries, time zone and source addresses; receipts of simulated messages; rate
limits; the tail of the list of statuses.

Over 400 lines, as every provider is one file, its table of return codes included.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import parse_qsl

import orjson

from gateway.domain import speech, vendor
from gateway.domain.delivery import State
from gateway.domain.vendor import Meaning
from gateway.ports import (
    Accepted,
    Auth,
    Callback,
    Correlation,
    Endpoint,
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
)

TEXT_LIMIT = 1224  # characters, SMS and voice alike
ALREADY_SENT = 120  # the return code for a request_id seen before

TYPES = ("sms_premium", "sms_low_cost")
PURPOSES = ("alert", "wholesale")
GENDERS = ("female", "male")

# What one language is read out in; a locale with its own line is served exactly.
VOICES = {
    "de": "de-DE",
    "en": "en-US",
    "en-gb": "en-GB",
    "es": "es-ES",
    "fr": "fr-FR",
    "fr-ca": "fr-CA",
    "it": "it-IT",
    "ja": "ja-JP",
    "nl": "nl-NL",
    "pl": "pl-PL",
    "pt": "pt-PT",
    "pt-br": "pt-BR",
    "ru": "ru-RU",
    "sv": "sv-SE",
}

# Keys that only an inbound reply (two generations of it), an opt-out and an e-mail receipt have.
NO_RECEIPT = frozenset({"reception_date", "answer_date", "stop_date", "deliveries"})

_NEWS_TO_US = Meaning(None)  # a word that is in no list
_PATH = re.compile(r"/[^\s?#]+")
_SENDER = re.compile(r"[A-Za-z0-9]{3,11}")


@dataclass(frozen=True, kw_only=True, slots=True)
class OctopushSettings(RouteSettings):
    base_url: str = "https://api.octopush.com/v1/public"
    api_login: str
    api_key: Secret
    callback_key: tuple[Secret, ...] = ()  # two while one is replaced; none: no receipt gets in
    type: str = "sms_premium"  # or sms_low_cost, which confirms nothing
    purpose: str = "alert"  # wholesale is marketing, and must carry a STOP text in France
    voice_path: str = "/voice-campaign/send"  # /vocal-campaign/send in the vendor's PHP client
    voice_gender: str = "female"
    voice_language: str | None = None  # None: by the message's locale
    simulation_mode: bool = False  # Octopush pretends; nothing is sent, no receipt comes


class Octopush:
    Settings = OctopushSettings
    wire: ClassVar = Wire.HTTP
    sheet: ClassVar = Sheet(
        vendor="Octopush",
        proof="the callback key in the URL; the number is compared, since nothing is signed",
        setup=("Enter the callback URL as the delivery report URL of the account.",),
        callback="{public_url}/otp/delivered/{route}/{key}",
        cost="EUR",
    )
    channels = frozenset({"sms", "voice"})
    correlates = Correlation.REFERENCE
    idempotent = True  # request_id, for 24 hours
    signed = False
    validity = False

    def __init__(self, settings: OctopushSettings) -> None:
        if wrong := "; ".join(_mistakes(settings)):
            raise ValueError(wrong)
        self.name = settings.name
        self.channel = settings.channel
        self.account = settings.account
        self.sender = settings.sender
        self.timeout = settings.timeout
        self.rate = settings.rate
        self.concurrency = settings.concurrency
        self.confirms = _confirms(settings)
        self._voice_language = settings.voice_language
        self._secrets = (settings.api_key, *settings.callback_key)
        self._callback_keys = tuple(key.encode() for key in settings.callback_key)

        voice = settings.channel == "voice"
        self._constant = _constant(settings)
        base = settings.base_url.rstrip("/")
        headers = {
            "api-login": settings.api_login,
            "api-key": settings.api_key,
            "content-type": "application/json",
            "cache-control": "no-cache",
        }
        # A URL and headers parsed once: a third of the time of a request made from strings.
        path = settings.voice_path if voice else "/sms-campaign/send"
        pattern = Request("GET", base + path, headers=headers)
        self._endpoint = Endpoint(pattern.url, pattern.headers)
        self._check_headers = pattern.headers
        self._product = "vocal_sms" if voice else settings.type
        self._check_url = (
            f"{base}/wallet/check-balance"
            f"?product_name={self._product}&country_code=FR&with_details=true"
        )

    # Permanent or temporary is our reading: the vendor does not say. READ and its like belong to
    # RCS and mail: understood if they ever come, not promised in `confirms`.
    statuses: ClassVar[Mapping[str, Meaning]] = {
        "PROCESSED": Meaning(State.SENT),  # queued at Octopush
        "ACK": Meaning(State.ACK),  # accepted by the first carrier
        "TRANSMITTED": Meaning(State.ACK),  # handed to a mail gateway
        "ISP_SEND": Meaning(State.ACK),  # handed to the recipient's ISP
        "DELIVERED": Meaning(State.DELIVERED),  # on the handset; the call was answered
        "READ": Meaning(State.READ),  # RCS
        "OPENED": Meaning(State.READ),  # mail
        "CLICKED": Meaning(State.READ),  # mail: a link in it was followed
        "NOT_DELIVERED": Meaning(State.FAILED, "not_delivered"),  # no cause given
        "NOT_ALLOWED": Meaning(State.FAILED, "not_allowed", permanent=True),  # not this channel
        "BAD_DESTINATION": Meaning(State.FAILED, "bad_destination", permanent=True),  # no number
        "BLACKLISTED_NUMBER": Meaning(State.FAILED, "blacklisted", permanent=True),  # opted out
        "NOT_DELIVERABLE": Meaning(State.FAILED, "not_deliverable", permanent=True),  # voice
        "BUSY": Meaning(State.FAILED, "busy"),  # voice: line engaged
        "REFUSED": Meaning(State.FAILED, "refused"),  # voice: call declined
        "SPAM_PRESUMPTION": Meaning(State.FAILED, "spam", permanent=True),  # mail
        "UNKNOWN_DELIVERY": Meaning(None),  # the carrier does not know: keep waiting
        "UNDEFINED": Meaning(None),  # Octopush does not know: keep waiting
    }

    # Return codes. 120 is not among them: it means that the earlier call succeeded.
    errors: ClassVar[Mapping[int, tuple[str, RefusalKind]]] = {
        100: ("bad_request", RefusalKind.ACCOUNT),  # POST missing
        101: ("unauthorized", RefusalKind.ACCOUNT),  # login wrong
        102: ("text_too_long", RefusalKind.PERMANENT),  # for its type
        103: ("bad_destination", RefusalKind.PERMANENT),  # no recipient
        104: ("no_credit", RefusalKind.ACCOUNT),  # credit exhausted
        105: ("no_credit", RefusalKind.ACCOUNT),  # an order of credit is pending
        106: ("bad_sender", RefusalKind.ACCOUNT),  # sender malformed
        107: ("bad_request", RefusalKind.ACCOUNT),  # text missing
        108: ("unauthorized", RefusalKind.ACCOUNT),  # login missing
        109: ("unauthorized", RefusalKind.ACCOUNT),  # key missing
        110: ("bad_destination", RefusalKind.PERMANENT),  # no valid recipient
        111: ("bad_destination", RefusalKind.PERMANENT),  # no valid recipient
        112: ("bad_request", RefusalKind.ACCOUNT),  # type missing
        113: ("account_blocked", RefusalKind.ACCOUNT),  # account not validated
        114: ("account_blocked", RefusalKind.ACCOUNT),  # account under fraud review
        115: ("bad_request", RefusalKind.ACCOUNT),  # of campaigns only
        116: ("bad_request", RefusalKind.ACCOUNT),  # of campaigns only
        117: ("bad_destination", RefusalKind.PERMANENT),  # country prefix missing
        118: ("bad_request", RefusalKind.ACCOUNT),  # of campaigns only
        119: ("text_too_long", RefusalKind.PERMANENT),  # for its type
        121: ("stop_text_required", RefusalKind.ACCOUNT),  # wrong purpose, premium
        122: ("stop_text_required", RefusalKind.ACCOUNT),  # wrong purpose, standard
        150: ("bad_destination", RefusalKind.PERMANENT),  # no country has this prefix
    }

    def build(self, outgoing: Outgoing) -> Request:
        body = {
            "recipients": [{"phone_number": outgoing.recipient}],
            "text": outgoing.text,
            "request_id": outgoing.attempt_id,
            **self._constant,
        }
        if outgoing.sender:
            body["sender"] = outgoing.sender
        if self.channel == "voice":
            body["text"] = spoken(outgoing.text, outgoing.code)
            body["voice_language"] = self._voice_language or voice_language(outgoing.locale)
        return self._endpoint.post(orjson.dumps(body))

    def auth(self) -> Auth | None:
        return None

    def parse(self, response: Response) -> Outcome:
        status = response.status_code
        answer = vendor.json_object(response.content)
        if 200 <= status < 300 and (accepted := _ticket(answer)) is not None:
            return accepted
        error = self._error(status, answer)
        if status == 429:
            pause = vendor.retry_after(response.headers.get("retry-after"))
            return Refused("throttled", RefusalKind.THROTTLED, pause, error)
        if status in (401, 403):
            return Refused("unauthorized", RefusalKind.ACCOUNT, error=error)
        if 200 <= status < 300:
            return self._refusal(answer, error) or Unknown("no_ticket", error)
        if 400 <= status < 500:
            rejected = Refused("rejected", RefusalKind.PERMANENT, error=error)
            return self._refusal(answer, error) or rejected
        # That a server error means "not sent" is documented nowhere.
        return Unknown("server_error" if status >= 500 else "odd_answer", error)

    def authenticate(self, callback: Callback) -> bool:
        """Octopush signs nothing; the secret is the end of the URL entered in its dashboard."""
        if callback.method != "POST" or callback.key is None:
            return False
        given = callback.key.encode(errors="backslashreplace")
        found = False
        for key in self._callback_keys:  # all of them, so that time does not tell which
            found |= hmac.compare_digest(key, given)
        return found

    def handshake(self, callback: Callback) -> Reply | None:
        return None

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        body = callback.body
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            content = _form(body)
        if not isinstance(content, list):
            receipt = self._receipt(content, body)
            return [] if receipt is None else [receipt]
        read = [self._receipt(item, vendor.as_json(item)) for item in content]
        return [receipt for receipt in read if receipt is not None]

    def build_check(self) -> Request:
        """A look at the balance: are we let in, and is there credit?"""
        return Request("GET", self._check_url, headers=self._check_headers)

    def parse_check(self, response: Response) -> str | None:
        """What is wrong, in a sentence; None when all is well."""
        status = response.status_code
        answer = vendor.json_object(response.content)
        reason, _ = self.errors.get(_code(answer), (None, None))
        if status in (401, 403) or reason == "unauthorized":
            return "Octopush refuses api_login or api_key."
        amount = answer.get("amount")
        if not 200 <= status < 300 or not isinstance(amount, int | float):
            return f"Octopush does not tell the balance ({self._error(status, answer)})."
        return None if amount > 0 else f"The Octopush account has no credit for {self._product}."

    def _receipt(self, item: object, raw: bytes) -> Receipt | Malformed | None:
        if not isinstance(item, dict):
            return Malformed("not an object", raw)
        if "delivery_date" not in item and not NO_RECEIPT.isdisjoint(item):
            return None
        reference = vendor.storable(item.get("message_id"))
        word = vendor.storable(item.get("status"))
        if reference is None or word is None:
            missing = "message_id" if reference is None else "status"
            return Malformed(f"{missing} is missing or unusable", raw)
        meaning = self.statuses.get(word.upper(), _NEWS_TO_US)
        return Receipt(
            word=word,
            state=meaning.state,
            reference=reference,
            reason=meaning.reason,
            permanent=meaning.permanent,
            recipient=vendor.storable(item.get("number")),
            provider_time=vendor.storable(item.get("delivery_date")),
            raw=raw,
        )

    def _refusal(self, answer: Mapping[str, object], error: str) -> Outcome | None:
        code = _code(answer)
        if code == ALREADY_SENT:
            return Accepted(None)  # its ticket went with the lost answer: found by the number
        if code not in self.errors:
            return None
        reason, kind = self.errors[code]
        return Refused(reason, kind, error=error)

    def _error(self, status: int, answer: Mapping[str, object]) -> str:
        said = [answer.get("code"), answer.get("message")]
        text = ": ".join(str(part) for part in said if isinstance(part, int | str) and part != "")
        return vendor.redact(text, self._secrets) or f"HTTP {status}"


def spoken(text: str, code: str) -> str:
    """The text with its code spelled, said twice as far as the limit allows."""
    once = speech.spelling(text, code)
    ways = (speech.twice(once), once, f"{speech.spelled(code)}. {speech.spelled(code)}.")
    return next((way for way in ways if len(way) <= TEXT_LIMIT), ways[-1])


def voice_language(locale: str) -> str:
    return speech.by_locale(VOICES, locale) or VOICES["en"]


def _mistakes(settings: OctopushSettings) -> list[str]:
    sms = settings.channel == "sms"
    keys = settings.callback_key
    checks = [
        (
            vendor.is_address(settings.base_url),
            "base_url: an http(s) address without a query is expected",
        ),
        (
            not sms or _senders_fit(settings.sender),
            "sender: 3 to 11 letters and digits are expected",
        ),
        (vendor.fits_header(settings.api_login), "api_login: plain characters are expected"),
        (vendor.fits_header(settings.api_key), "api_key: plain characters are expected"),
        (
            isinstance(keys, tuple) and all(keys),
            "callback_key: one or two keys that are not empty are expected",
        ),
        (settings.type in TYPES, f"type: {' or '.join(TYPES)} is expected"),
        (settings.purpose in PURPOSES, f"purpose: {' or '.join(PURPOSES)} is expected"),
        (settings.voice_gender in GENDERS, f"voice_gender: {' or '.join(GENDERS)} is expected"),
        (
            _PATH.fullmatch(settings.voice_path),
            "voice_path: a path is expected, such as /voice-campaign/send",
        ),
    ]
    common = settings.mistakes("octopush", Octopush.channels)
    return [*common, *(message for fine, message in checks if not fine)]


def _senders_fit(sender: Sender) -> bool:
    senders = sender.values() if isinstance(sender, Mapping) else [sender]
    return all(_SENDER.fullmatch(one) for one in senders if one is not None)


def _confirms(settings: OctopushSettings) -> frozenset[State]:
    if settings.simulation_mode:
        return frozenset()
    if settings.channel == "voice":
        return frozenset({State.DELIVERED, State.FAILED})
    if settings.type == "sms_low_cost":
        return frozenset()
    return frozenset({State.ACK, State.DELIVERED, State.FAILED})


def _constant(settings: OctopushSettings) -> dict[str, object]:
    """What every request of this route says."""
    constant: dict[str, object] = {"purpose": settings.purpose}
    if settings.channel == "voice":
        constant["voice_gender"] = settings.voice_gender
        if settings.voice_path.startswith("/vocal-campaign/"):
            constant["type"] = "vocal_sms"  # the older path knows voice by its type
    else:
        constant["type"] = settings.type
        constant["auto_optimize_text"] = False  # else the vendor may rewrite the text
    if settings.simulation_mode:
        constant["simulation_mode"] = True
    return constant


def _ticket(answer: Mapping[str, object]) -> Accepted | None:
    for key, value in answer.items():
        # sms_ticket, vocal_ticket; the newer voice path's is unconfirmed
        if key.endswith("_ticket") and (ticket := vendor.storable(value)):
            cost = answer.get("total_cost")
            return Accepted(
                ticket, str(cost) if type(cost) in (int, float) else vendor.storable(cost)
            )
    return None


def _code(answer: Mapping[str, object]) -> int:
    """The return code, a number or a string of digits; 0 where there is none."""
    code = answer.get("code")
    if isinstance(code, str) and re.fullmatch("[0-9]{1,6}", code):
        return int(code)
    return code if isinstance(code, int) else 0


def _form(body: bytes) -> dict[str, str] | None:
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=100
        )
    except ValueError:
        return None
    # A plus sign that was not escaped has become a space.
    return {key: re.sub("^ ", "+", value) if key == "number" else value for key, value in pairs}
