"""WhatsApp, over Meta's Cloud API: authentication templates.

https://developers.facebook.com/docs/whatsapp/cloud-api/guides/send-message-templates/auth-otp-template-messages
https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/status
https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes
https://developers.facebook.com/documentation/business-messaging/whatsapp/templates/time-to-live

A code opens a conversation only in an approved template, whose wording is Meta's: of a message we
give the code, twice, and `text` is never sent. Statuses come to one URL per app, signed, batched,
in any order, repeated for up to 7 days; they echo our attempt id. How long WhatsApp goes on trying
is fixed in the template (30 to 900 s, 10 minutes unless set) and cannot be said with a message,
hence `validity` is False; a message dropped for its age is not reported at all. READ only comes
from people whose read receipts are on.

Unconfirmed: that the echo is part of every `failed`; its limit of 512 characters; the values of
`message_status`; that non-ASCII is escaped in the bytes that are signed (we hash what comes); that
templates are not delivered in some countries; whether errors 1 and 2, which any Graph call may
give, mean "not sent" (taken as unknown); the field of a template that tells its time to live.

Over 400 lines, as every provider is one file, its table of Meta's errors included.
"""

import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import orjson

from gateway.domain import vendor
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

OBJECT = "whatsapp_business_account"  # what a webhook of this product is about
STATUSES = "messages"  # the field that brings statuses, beside what people write to us
TTL = range(30, 901)  # seconds; of authentication templates
CODES = range(1_000_000)  # what is shown as an error code: nothing that could be a number

_SIGNATURE = re.compile(r"sha256=([0-9a-f]{64})")
_VERSION = re.compile(r"v[0-9]{1,3}\.[0-9]")
_ID = re.compile(r"[0-9]{1,32}")
_TEMPLATE = re.compile(r"[a-z0-9_]{1,512}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:_[A-Za-z]{2,4})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class WhatsappSettings(RouteSettings):  # the sender is `phone_number_id`, not a word
    base_url: str = "https://graph.facebook.com"
    version: str = "v25.0"  # of the Graph API
    phone_number_id: str  # Meta's id of our number, not the number
    business_account_id: str | None = None  # the WABA: with it, a check looks at the templates
    token: Secret  # of a system user, which does not expire
    callback_secret: tuple[Secret, ...] = ()  # the app's; two while replaced; none: nothing gets in
    verify_token: tuple[Secret, ...] = ()  # ours, typed into the dashboard with the URL
    # Purpose → language → the template's name: {"default": {"en_US": "otp", "fr": "otp"}}.
    templates: Mapping[str, Mapping[str, str]]
    language: str = "en_US"  # for people whose language has no template
    template_ttl: int = 600  # seconds; as set in the templates, compared with them by a check
    remember_unreachable: float = 86_400.0  # seconds a number without WhatsApp is left out


class Whatsapp:
    Settings = WhatsappSettings
    wire: ClassVar = Wire.HTTP
    sheet: ClassVar = Sheet(
        vendor="Meta WhatsApp Cloud API",
        proof="a signature over the raw body, made with the app's secret",
        setup=(
            "Enter the callback URL and the verify token as the webhook of the app for WhatsApp.",
            "Subscribe the app to the field `messages` and to the WhatsApp business account.",
            "Have an authentication template with a one-time-password button in each language.",
            "Set the templates' time to live at or below the life of a code.",
        ),
        callback="{public_url}/otp/delivered/{route}",
    )
    channels = frozenset({"whatsapp"})
    confirms = frozenset({State.ACK, State.DELIVERED, State.READ, State.FAILED})
    correlates = Correlation.ECHO
    idempotent = False
    signed = True
    validity = False  # see the top

    def __init__(self, settings: WhatsappSettings) -> None:
        if wrong := "; ".join(_mistakes(settings)):
            raise ValueError(wrong)
        self.name = settings.name
        self.channel = settings.channel
        self.account = settings.account
        self.sender = settings.sender
        self.timeout = settings.timeout
        self.rate = settings.rate
        self.concurrency = settings.concurrency
        self._number = settings.phone_number_id
        self._templates = settings.templates
        self._language = settings.language
        self._ttl = settings.template_ttl
        self._avoid = settings.remember_unreachable
        self._secrets = (settings.token, *settings.callback_secret, *settings.verify_token)
        self._callback_secrets = tuple(secret.encode() for secret in settings.callback_secret)
        self._verify_tokens = tuple(token.encode() for token in settings.verify_token)

        graph = f"{settings.base_url.rstrip('/')}/{settings.version}"
        headers = {
            "authorization": f"Bearer {settings.token}",
            "content-type": "application/json",
        }
        # A URL and headers parsed once: a third of the time of a request made from strings.
        pattern = Request("GET", f"{graph}/{self._number}/messages", headers=headers)
        self._url, self._headers = pattern.url, pattern.headers
        self._check_url = f"{graph}/{self._number}?fields=id"
        if settings.business_account_id is not None:
            fields = "name,language,status,category,message_send_ttl_seconds"
            account = f"{graph}/{settings.business_account_id}"
            self._check_url = f"{account}/message_templates?fields={fields}&limit=250"

    statuses: ClassVar[Mapping[str, Meaning]] = {
        "sent": Meaning(State.ACK),  # in transit inside WhatsApp; where a block leaves it for ever
        "delivered": Meaning(State.DELIVERED),  # on one of the person's devices
        "read": Meaning(State.READ),  # opened; may be all that is heard of a delivery
        "failed": Meaning(State.FAILED, "not_delivered"),  # `errors` say why
        "deleted": Meaning(None),  # of a message the person wrote, and took back
        "warning": Meaning(None),  # of a catalogue item that is sold out
    }

    # One table for both: the answer to a call and the `errors` of a status. Without a kind, nothing
    # is said of whether the message was sent. A permanent one goes on to the next channel at once.
    errors: ClassVar[Mapping[int, tuple[str, RefusalKind | None]]] = {
        0: ("unauthorized", RefusalKind.ACCOUNT),  # token invalid
        1: ("server_error", None),  # unknown, of any Graph call
        2: ("server_error", None),  # temporary, of any Graph call
        3: ("not_permitted", RefusalKind.ACCOUNT),  # capability missing
        4: ("throttled", RefusalKind.THROTTLED),  # calls of the app
        10: ("not_permitted", RefusalKind.ACCOUNT),  # permission missing
        100: ("bad_request", RefusalKind.PERMANENT),  # parameter; also: the number has no WhatsApp
        190: ("unauthorized", RefusalKind.ACCOUNT),  # token expired
        **dict.fromkeys(range(200, 300), ("not_permitted", RefusalKind.ACCOUNT)),
        368: ("account_blocked", RefusalKind.ACCOUNT),  # for violations of policy
        80007: ("throttled", RefusalKind.THROTTLED),  # calls of the business account
        130429: ("throttled", RefusalKind.THROTTLED),  # messages a second
        130472: ("withheld", RefusalKind.PERMANENT),  # the person is in an experiment of Meta's
        130497: ("country_not_allowed", RefusalKind.PERMANENT),  # for this account
        131000: ("not_processed", RefusalKind.TEMPORARY),  # "failed to send", cause unknown
        131008: ("bad_request", RefusalKind.PERMANENT),  # parameter missing
        131009: ("bad_request", RefusalKind.PERMANENT),  # parameter's value
        131016: ("not_processed", RefusalKind.TEMPORARY),  # service unavailable
        131021: ("bad_destination", RefusalKind.PERMANENT),  # the recipient is the sender
        131026: ("unreachable", RefusalKind.PERMANENT),  # no WhatsApp, too old, terms not accepted
        131030: ("not_on_test_list", RefusalKind.ACCOUNT),  # the sender is a test number
        131031: ("account_blocked", RefusalKind.ACCOUNT),  # locked
        131037: ("sender_not_approved", RefusalKind.ACCOUNT),  # its display name is not
        131042: ("no_credit", RefusalKind.ACCOUNT),  # payment method
        131044: ("no_credit", RefusalKind.ACCOUNT),  # payment method
        131045: ("bad_certificate", RefusalKind.ACCOUNT),  # the sender's registration
        131047: ("template_required", RefusalKind.ACCOUNT),  # the person has not written in 24 h
        131048: ("sender_restricted", RefusalKind.ACCOUNT),  # reported as spam
        131049: ("withheld", RefusalKind.PERMANENT),  # "healthy ecosystem"; soon again: the same
        131050: ("opted_out", RefusalKind.PERMANENT),  # of marketing only
        131051: ("bad_request", RefusalKind.ACCOUNT),  # message type
        131052: ("bad_request", RefusalKind.ACCOUNT),  # media download
        131053: ("bad_request", RefusalKind.ACCOUNT),  # media upload
        131056: ("pair_limit", RefusalKind.PERMANENT),  # too much from this sender to this person
        131057: ("maintenance", RefusalKind.TEMPORARY),  # of the account, up to a minute
        131064: ("account_limited", RefusalKind.ACCOUNT),  # templates of the wrong category
        132000: ("bad_template", RefusalKind.ACCOUNT),  # number of parameters
        132001: ("no_template", RefusalKind.ACCOUNT),  # not in that language, or not approved
        132005: ("bad_template", RefusalKind.ACCOUNT),  # too long once filled in
        132007: ("bad_template", RefusalKind.ACCOUNT),  # against policy
        132008: ("bad_template", RefusalKind.ACCOUNT),  # parameter missing
        132012: ("bad_template", RefusalKind.ACCOUNT),  # format of a parameter
        132015: ("template_paused", RefusalKind.ACCOUNT),  # for its quality
        132016: ("template_disabled", RefusalKind.ACCOUNT),  # for its quality, for ever
        133016: ("throttled", RefusalKind.THROTTLED),  # registrations of the sender
        135000: ("not_processed", RefusalKind.TEMPORARY),  # "failed to send", cause unknown
        137000: ("identity_changed", RefusalKind.PERMANENT),  # perhaps another person's phone
    }

    unreachable: ClassVar[frozenset[int]] = frozenset({131026})  # true of the number, for a while

    def build(self, outgoing: Outgoing) -> Request:
        name, language = self.template(outgoing.template, outgoing.locale)
        code = [{"type": "text", "text": outgoing.code}]
        body = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": outgoing.recipient,  # with its plus: without, Meta may read it as national
            "type": "template",
            "template": {
                "name": name,
                "language": {"code": language},
                "components": [
                    {"type": "body", "parameters": code},
                    # Copy-code, one-tap and zero-tap buttons are all stored as this one.
                    {"type": "button", "sub_type": "url", "index": "0", "parameters": code},
                ],
            },
            "biz_opaque_callback_data": outgoing.attempt_id,
        }
        return post(self._url, self._headers, orjson.dumps(body))

    def template(self, purpose: str, locale: str) -> tuple[str, str]:
        """The name and the language of the template for a purpose and a person."""
        languages = self._templates.get(purpose) or self._templates["default"]
        language = nearest(languages, locale) or self._language
        return languages[language], language

    def auth(self) -> Auth | None:
        return None

    def parse(self, response: Response) -> Outcome:
        status = response.status_code
        answer = vendor.json_object(response.content)
        error = self._error(status, answer.get("error"))
        if status == 200:
            # Also when `message_status` says that it is held: what becomes of it is reported.
            reference = _message_id(answer)
            return Accepted(reference) if reference else Unknown("no_message_id", error)
        if status < 400:
            return Unknown("odd_answer", error)
        pause = vendor.retry_after(response.headers.get("retry-after"))
        code = _code(answer.get("error"))
        if code in self.errors:  # Meta: decide on the code, not on the HTTP status
            reason, kind = self.errors[code]
            if kind is None:
                return Unknown(reason, error)
            return Refused(reason, kind, pause, error, self._avoided(code))
        if status == 429:
            return Refused("throttled", RefusalKind.THROTTLED, pause, error)
        if status in (401, 403):
            return Refused("unauthorized", RefusalKind.ACCOUNT, error=error)
        if status < 500:
            return Refused("rejected", RefusalKind.PERMANENT, error=error)
        return Unknown("server_error", error)

    def authenticate(self, callback: Callback) -> bool:
        """The signature covers the raw body. It has no time: a repetition is harmless anyway."""
        header = _SIGNATURE.fullmatch(callback.headers.get("x-hub-signature-256", ""))
        if callback.method != "POST" or header is None:
            return False
        found = False
        for secret in self._callback_secrets:  # all of them, so that time does not tell which
            expected = hmac.new(secret, callback.body, "sha256").hexdigest()
            found |= hmac.compare_digest(expected, header[1])
        return found

    def handshake(self, callback: Callback) -> Reply | None:
        """Meta asks, when the callback URL is entered, whether we expect it. A GET that does not
        prove this is left to `authenticate`, which refuses every GET."""
        query = callback.query
        challenge = vendor.storable(query.get("hub.challenge"))
        if callback.method != "GET" or query.get("hub.mode") != "subscribe" or challenge is None:
            return None
        given = query.get("hub.verify_token", "").encode(errors="backslashreplace")
        found = False
        for token in self._verify_tokens:
            found |= hmac.compare_digest(token, given)
        return Reply(challenge.encode()) if found else None

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        body = callback.body
        content = vendor.json_object(body)
        about, entries = content.get("object"), content.get("entry")
        if isinstance(about, str) and about != OBJECT:
            return []  # of another product that the same app has
        if about != OBJECT or not isinstance(entries, list):
            return [Malformed("no webhook of WhatsApp", body)]
        return [found for entry in entries for found in self._entry(entry)]

    def build_check(self) -> Request:
        """A look at the templates, or, without the business account's id, at our number."""
        return Request("GET", self._check_url, headers=self._headers)

    def parse_check(self, response: Response) -> str | None:
        """What is wrong, in a sentence; None when all is well."""
        answer = vendor.json_object(response.content)
        if response.status_code in (401, 403) or _code(answer.get("error")) in (0, 190):
            return "Meta refuses the token."
        known = answer.get("data")
        if response.status_code == 200 and isinstance(known, list):
            return self._templates_wrong([one for one in known if isinstance(one, dict)])
        if response.status_code == 200 and answer.get("id") == self._number:
            return None
        error = self._error(response.status_code, answer.get("error"))
        return f"Meta does not show the account ({error})."

    def _templates_wrong(self, known: Sequence[Mapping[str, object]]) -> str | None:
        """The first mistake in what the settings say of the templates."""
        for languages in self._templates.values():
            for language, name in languages.items():
                named = {"name": name, "language": language}
                one = next((other for other in known if named.items() <= other.items()), {})
                if one.get("status") != "APPROVED" or one.get("category") != "AUTHENTICATION":
                    return f"Meta shows no approved authentication template {name} in {language}."
                if one.get("message_send_ttl_seconds", self._ttl) != self._ttl:
                    return f"The template {name} in {language} has another time to live."
        return None

    def _entry(self, entry: object) -> Iterator[Receipt | Malformed]:
        changes = entry.get("changes") if isinstance(entry, dict) else None
        if not isinstance(changes, list):
            yield Malformed("an entry without changes", vendor.as_json(entry))
            return
        for change in changes:
            about = change.get("field") if isinstance(change, dict) else None
            if not isinstance(about, str):
                yield Malformed("a change of nothing", vendor.as_json(change))
            elif about == STATUSES:
                yield from self._value(change.get("value"))

    def _value(self, value: object) -> Iterator[Receipt | Malformed]:
        if not isinstance(value, dict) or not isinstance(value.get("statuses", []), list):
            yield Malformed("no list of statuses", vendor.as_json(value))
            return
        metadata = value.get("metadata")
        sender = metadata.get("phone_number_id") if isinstance(metadata, dict) else None
        for item in value.get("statuses", []):  # what people write comes without any
            found = self._receipt(item, vendor.as_json(item))
            # Another number of the same app: what it sends for us echoes an attempt, the rest is
            # somebody else's and would be kept aside for nothing.
            foreign = sender not in (None, self._number)
            if not (foreign and isinstance(found, Receipt) and found.attempt_id is None):
                yield found

    def _receipt(self, item: object, raw: bytes) -> Receipt | Malformed:
        if not isinstance(item, dict):
            return Malformed("not an object", raw)
        reference = vendor.storable(item.get("id"))
        word = vendor.storable(item.get("status"))
        if reference is None or word is None:
            missing = "id" if reference is None else "status"
            return Malformed(f"{missing} is missing or unusable", raw)
        meaning = self.statuses.get(word, Meaning(None))
        avoid = None
        if meaning.state is State.FAILED:
            meaning, avoid = self._failure(item.get("errors"), meaning)
        # Neither recipient nor cost: WhatsApp may spell the number its own way, and `pricing` names
        # a category and no amount.
        return Receipt(
            word=word,
            state=meaning.state,
            reference=reference,
            attempt_id=vendor.storable(item.get("biz_opaque_callback_data")),
            reason=meaning.reason,
            permanent=meaning.permanent,
            provider_time=vendor.storable(item.get("timestamp")),
            avoid=avoid,
            raw=raw,
        )

    def _failure(self, errors: object, meaning: Meaning) -> tuple[Meaning, float | None]:
        """What the first error we know says, and for how long it is true of the number."""
        for error in errors if isinstance(errors, list) else []:
            code = _code(error)
            if code in self.errors:
                reason, kind = self.errors[code]
                permanent = kind is RefusalKind.PERMANENT
                return Meaning(State.FAILED, reason, permanent), self._avoided(code)
        return meaning, None

    def _avoided(self, code: int) -> float | None:
        return self._avoid if code in self.unreachable else None

    def _error(self, status: int, error: object) -> str:
        """The code in the clear, what is said about it redacted."""
        if not isinstance(error, dict):
            return f"HTTP {status}"
        more = error.get("error_data")
        said = [error.get("message"), more.get("details") if isinstance(more, dict) else None]
        text = ": ".join(part for part in said if isinstance(part, str) and part != "")
        code = _code(error)
        shown = [str(code)] if code in CODES else []
        return " ".join([*shown, vendor.redact(text, self._secrets)]).strip() or f"HTTP {status}"


def nearest(languages: Iterable[str], locale: str) -> str | None:
    """Which of Meta's language codes serves a locale: its own, its language's, or the first of the
    same language elsewhere."""
    wanted = locale.replace("-", "_").lower()
    spoken = wanted.partition("_")[0]
    for same in (wanted, spoken):
        for language in languages:
            if language.lower() == same:
                return language
    return next((one for one in languages if one.lower().partition("_")[0] == spoken), None)


def _message_id(answer: Mapping[str, object]) -> str | None:
    messages = answer.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    return vendor.storable(first.get("id")) if isinstance(first, dict) else None


def _code(error: object) -> int:
    """The code of an error; -1 where there is none."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if type(code) is int else -1


def _mistakes(settings: WhatsappSettings) -> list[str]:
    account = settings.business_account_id
    checks = [
        (
            vendor.is_address(settings.base_url),
            "base_url: an http(s) address without a query is expected",
        ),
        (_VERSION.fullmatch(settings.version), "version: one such as v25.0 is expected"),
        (
            _ID.fullmatch(settings.phone_number_id),
            "phone_number_id: Meta's id, digits, is expected",
        ),
        (
            account is None or _ID.fullmatch(account),
            "business_account_id: Meta's id, digits, is expected",
        ),
        (vendor.fits_header(settings.token), "token: plain characters are expected"),
        (
            _filled(settings.callback_secret),
            "callback_secret: one or two that are not empty are expected",
        ),
        (
            _filled(settings.verify_token),
            "verify_token: one or two that are not empty are expected",
        ),
        (settings.template_ttl in TTL, "template_ttl: 30 to 900 seconds are expected"),
        (
            settings.remember_unreachable > 0,
            "remember_unreachable: more than 0 seconds are expected",
        ),
    ]
    common = settings.mistakes("whatsapp", Whatsapp.channels)
    wrong = (message for fine, message in checks if not fine)
    return [*common, *wrong, *_template_mistakes(settings)]


def _filled(secrets: object) -> bool:
    return isinstance(secrets, tuple) and all(secrets)


def _template_mistakes(settings: WhatsappSettings) -> Iterator[str]:
    if "default" not in settings.templates:
        yield "templates: a table `default` is expected, for purposes without their own"
    for purpose, languages in settings.templates.items():
        if settings.language not in languages:
            yield f"templates: {purpose} has none in {settings.language}, the `language` for others"
        for language, name in languages.items():
            if not (_LANGUAGE.fullmatch(language) and _TEMPLATE.fullmatch(name)):
                yield f"templates: {purpose}.{language} = {name} is no language with a template"
