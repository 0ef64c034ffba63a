"""AWS, SMS and voice: End User Messaging SMS (`sms-voice-v2`), or plain SNS (`sns`).

https://docs.aws.amazon.com/pinpoint/latest/apireference_smsvoicev2/API_SendTextMessage.html
https://docs.aws.amazon.com/sms-voice/latest/userguide/configuration-sets-event-types.html
https://docs.aws.amazon.com/sms-voice/latest/userguide/configuration-sets-event-format.html
https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html

Requests are signed (domain/sigv4). Receipts are the events of a configuration set, sent through
an SNS topic that our address is subscribed to; each repeats our attempt id in its context. A
signed envelope (domain/sns) proves where it comes from. SNS's own Publish tells about delivery
in CloudWatch's log only: it confirms nothing.

TEXT_SUCCESSFUL means that the carrier took the message. In some countries it is all that ever
comes, and `successful_is_delivered` lists those in which it shall count as DELIVERED.

Unconfirmed: that SNS does not repeat what is answered with a 4xx, and its limit of 15 seconds; the
RCS and VOICE events but for VOICE_COMPLETED, known by their names only; where the price stands in
a VOICE event; that a price is in US dollars; how long a carrier keeps what was handed over to it,
for TimeToLive ends at the handover; the HTTP statuses of errors, the error XML of a throttled
Publish and the names in a ValidationException's Fields (errors are told apart by name).

Above 500 lines, for it is two APIs and two channels, each with its words.
"""

import hmac
import html
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import ClassVar
from urllib.parse import urlencode

import orjson

from gateway.domain import sigv4, sns, speech, vendor
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
    no_clock,
    post,
)

V2 = "sms-voice-v2"
SNS = "sns"
SERVICES = {V2: "sms-voice", SNS: "sns"}  # host name and signature scope
TARGET = "PinpointSMSVoiceV2"
SPOKEN_LIMIT = 3000  # characters of a call
TIME_TO_LIVE = (5, 259_200)  # seconds

# Who reads a text out; a locale with its own line is served exactly.
VOICES = {
    "da": "NAJA",
    "de": "MARLENE",
    "en": "JOANNA",
    "en-au": "NICOLE",
    "en-gb": "AMY",
    "en-in": "RAVEENA",
    "es": "LUCIA",
    "es-mx": "MIA",
    "es-us": "LUPE",
    "fr": "CELINE",
    "fr-ca": "CHANTAL",
    "it": "CARLA",
    "ja": "MIZUKI",
    "ko": "SEOYEON",
    "nb": "LIV",
    "nl": "LOTTE",
    "pl": "EWA",
    "pt": "INES",
    "pt-br": "CAMILA",
    "ro": "CARMEN",
    "ru": "TATYANA",
    "sv": "ASTRID",
    "tr": "FILIZ",
    "zh": "ZHIYU",
}

# Refusals and failures that lie with the number, whatever is sent to it.
OF_THE_NUMBER = frozenset({"bad_destination", "blocked", "opted_out"})

THROTTLING = frozenset({"Throttling", "Throttled", "TooManyRequests", "RequestLimitExceeded"})

_LOCAL = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost)(?::[0-9]{1,5})?(?:/[^\s?#]*)?")
_IDENTITY = re.compile(r"[A-Za-z0-9_:/+-]{1,256}")
_NUMBER = re.compile(r"\+?[0-9]{3,15}")
_SENT = re.compile(r"<PublishResult>\s*<MessageId>([^<]*)</MessageId>")
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")

_PLAIN = re.compile(r"[!-~]+")
_RESOURCE = re.compile(r"[A-Za-z0-9_:/-]{1,256}")

# How settings are written, those that may be None included.
SPELLING = {
    "region": (re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}"), "a name such as eu-west-3"),
    "access_key_id": (_PLAIN, "plain text"),
    "secret_access_key": (_PLAIN, "plain text"),
    "session_token": (re.compile(r"[!-~]*"), "plain text"),
    "configuration_set": (_RESOURCE, "a name or ARN"),
    "protect_configuration": (_RESOURCE, "an id or ARN"),
    "max_price": (re.compile(r"[0-9]{0,2}\.[0-9]{1,5}"), "an amount such as 0.50"),
    "topic_arn": (sns.ARN, "the ARN of an SNS topic"),
    "successful_is_delivered": (re.compile(r"(?:[A-Z]{2}(?:, ?[A-Z]{2})*)?"), "a list like US, CA"),
    "voice": (re.compile(r"[A-Z]{2,20}"), "a name in capitals such as JOANNA"),
}

NO_TOKEN = Secret("")


@dataclass(frozen=True, kw_only=True, slots=True)
class AwsSettings(RouteSettings):
    region: str  # of the API, such as eu-west-3
    access_key_id: str
    secret_access_key: Secret
    session_token: Secret = NO_TOKEN  # of temporary credentials
    api: str = V2  # or sns, which confirms nothing
    base_url: str | None = None  # None: by API and region
    configuration_set: str | None = None  # without one no event is sent
    protect_configuration: str | None = None
    max_price: str | None = None  # US dollars for a message, or a minute of a call
    topic_arn: str | None = None  # the configuration set's; None: no receipt gets in
    callback_key: tuple[Secret, ...] = ()  # the end of the URL; two while one is replaced
    sha256_only: bool = False  # the topic's SignatureVersion is 2
    raw_delivery: bool = False  # unsigned receipts, known by the callback key alone
    sns_endpoint: str | None = None  # of certificates and confirmations; None: SNS's own host
    successful_is_delivered: str = ""  # countries, such as "US, CA"
    voice: str | None = None  # None: by the message's locale
    avoid: float = 86_400.0  # seconds a number that is bad or wants nothing is left alone


class Aws:
    Settings = AwsSettings
    wire: ClassVar = Wire.HTTP
    sheet: ClassVar = Sheet(
        vendor="AWS",
        proof="SNS's signature on a message of our topic, and the callback key where one is set",
        setup=(
            "Give the configuration set an SNS topic as event destination: TEXT and VOICE events.",
            "Set the topic's SignatureVersion to 2 and enter its ARN here (topic_arn).",
            "Subscribe the callback URL to the topic (HTTPS, no raw delivery); it confirms itself.",
        ),
        callback="{public_url}/otp/delivered/{route}/{key}",
        cost="USD",
    )
    channels = frozenset({"sms", "voice"})
    idempotent = False  # neither API has a client token

    def __init__(self, settings: AwsSettings, *, now: Callable[[], datetime] = no_clock) -> None:
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
        v2 = settings.api == V2
        self.correlates = Correlation.ECHO if v2 else Correlation.REFERENCE
        self.signed = not settings.raw_delivery
        self.validity = v2

        self._v2 = v2
        self._constant = _constant(settings)
        self._voice = settings.voice
        self._avoid = settings.avoid or None
        self._successful = frozenset(settings.successful_is_delivered.replace(",", " ").split())
        self._raw_delivery = settings.raw_delivery
        self._topic = _topic(settings)
        self._callback_keys = tuple(key.encode() for key in settings.callback_key)
        secrets = (settings.secret_access_key, settings.session_token, *settings.callback_key)
        self._secrets = tuple(secret for secret in secrets if secret)

        self.now = now
        service = SERVICES[settings.api]
        self._auth = _SignedRequest(
            sigv4.Credentials(
                settings.access_key_id, settings.secret_access_key, settings.session_token
            ),
            sigv4.Scope(settings.region, service),
            lambda: self.now(),  # noqa: PLW0108 (the wiring sets it)
        )
        operation = "SendVoiceMessage" if settings.channel == "voice" else "SendTextMessage"
        base = settings.base_url or f"https://{service}.{_domain(settings.region)}"
        # A URL and headers parsed once: a third of the time of a request made from strings.
        pattern = Request("POST", base.rstrip("/") + "/", headers=_headers(v2, operation))
        self._url, self._headers = pattern.url, pattern.headers

    statuses: ClassVar[Mapping[str, Meaning]] = {
        "TEXT_QUEUED": Meaning(State.SENT),  # waits at AWS
        "TEXT_PENDING": Meaning(State.SENT),  # being handed over
        "TEXT_SENT": Meaning(None),  # in the list of events, and never sent
        "TEXT_SUCCESSFUL": Meaning(State.ACK),  # the carrier took it; see the top
        "TEXT_DELIVERED": Meaning(State.DELIVERED),
        "TEXT_UNREACHABLE": Meaning(State.FAILED, "unreachable"),  # switched off, no network
        "TEXT_CARRIER_UNREACHABLE": Meaning(State.FAILED, "carrier_unreachable"),  # passing fault
        "TEXT_TTL_EXPIRED": Meaning(State.FAILED, "expired"),  # its validity passed
        "TEXT_UNKNOWN": Meaning(State.FAILED, "not_delivered"),  # no cause known, or 72 h silence
        "TEXT_INVALID": Meaning(State.FAILED, "bad_destination", permanent=True),  # no such number
        "TEXT_INVALID_MESSAGE": Meaning(State.FAILED, "bad_text", permanent=True),
        "TEXT_BLOCKED": Meaning(State.FAILED, "blocked", permanent=True),  # by device or carrier
        "TEXT_CARRIER_BLOCKED": Meaning(State.FAILED, "carrier_blocked", permanent=True),
        "TEXT_SPAM": Meaning(State.FAILED, "spam", permanent=True),  # taken for advertising
        "TEXT_PROTECT_BLOCKED": Meaning(State.FAILED, "protected", permanent=True),  # by our rules
        "RCS_QUEUED": Meaning(State.SENT),
        "RCS_SENT": Meaning(State.ACK),
        "RCS_DELIVERED": Meaning(State.DELIVERED),
        "RCS_READ": Meaning(State.READ),
        "RCS_FAILED": Meaning(State.FAILED, "not_delivered"),
        "RCS_TTL_EXPIRED": Meaning(State.FAILED, "expired"),
        "RCS_PROTECT_BLOCKED": Meaning(State.FAILED, "protected", permanent=True),
        "RCS_FALLEN_BACK_TO_SMS": Meaning(None),  # TEXT events follow
        "VOICE_INITIATED": Meaning(State.SENT),
        "VOICE_RINGING": Meaning(State.ACK),
        "VOICE_ANSWERED": Meaning(State.ACK),  # nothing was heard yet
        "VOICE_COMPLETED": Meaning(State.DELIVERED),  # played, to a person or a mailbox
        "VOICE_BUSY": Meaning(State.FAILED, "busy"),
        "VOICE_NO_ANSWER": Meaning(State.FAILED, "no_answer"),
        "VOICE_TTL_EXPIRED": Meaning(State.FAILED, "expired"),
        "VOICE_FAILED": Meaning(State.FAILED, "not_delivered"),
    }

    # The `Reason` of an error where it has one, else its name without "Exception" at the end.
    errors: ClassVar[Mapping[str, tuple[str, RefusalKind]]] = {
        "DESTINATION_PHONE_NUMBER_OPTED_OUT": ("opted_out", RefusalKind.PERMANENT),
        "OptedOut": ("opted_out", RefusalKind.PERMANENT),  # the same of SNS
        "DESTINATION_PHONE_NUMBER_BLOCKED_BY_PROTECT_NUMBER_OVERRIDE": (
            "blocked",
            RefusalKind.PERMANENT,
        ),
        "DESTINATION_COUNTRY_BLOCKED_BY_PROTECT_CONFIGURATION": (
            "country_protected",  # our own rule; another route must not go around it
            RefusalKind.PERMANENT,
        ),
        "MAXIMUM_SIZE_EXCEEDED": ("text_too_long", RefusalKind.PERMANENT),
        # Of this account and country: another route may do it.
        "DESTINATION_COUNTRY_BLOCKED": ("country_blocked", RefusalKind.TEMPORARY),
        "COUNTRY_NOT_ENABLED": ("country_blocked", RefusalKind.TEMPORARY),
        "INTERNATIONAL_SENDING_NOT_SUPPORTED": ("country_blocked", RefusalKind.TEMPORARY),
        "INVALID_IDENTITY_FOR_DESTINATION_COUNTRY": ("bad_sender", RefusalKind.TEMPORARY),
        "SENDER_ID_NOT_SUPPORTED": ("bad_sender", RefusalKind.TEMPORARY),
        "SENDER_ID_NOT_REGISTERED": ("bad_sender", RefusalKind.TEMPORARY),
        "SENDER_ID_REQUIRES_REGISTRATION": ("bad_sender", RefusalKind.TEMPORARY),
        "PRICE_OVER_THRESHOLD": ("too_expensive", RefusalKind.TEMPORARY),  # above max_price
        "DAILY_DESTINATION_CALL_LIMIT": ("limit_reached", RefusalKind.TEMPORARY),  # this number's
        # Of the account.
        "DESTINATION_PHONE_NUMBER_NOT_VERIFIED": ("account_in_sandbox", RefusalKind.ACCOUNT),
        "MONTHLY_SPEND_LIMIT_REACHED_FOR_TEXT": ("no_credit", RefusalKind.ACCOUNT),
        "MONTHLY_SPEND_LIMIT_REACHED_FOR_VOICE": ("no_credit", RefusalKind.ACCOUNT),
        "MONTHLY_SPEND_LIMIT_REACHED_FOR_RCS": ("no_credit", RefusalKind.ACCOUNT),
        "INSUFFICIENT_ACCOUNT_REPUTATION": ("account_blocked", RefusalKind.ACCOUNT),
        "ACCOUNT_DISABLED": ("account_blocked", RefusalKind.ACCOUNT),
        "ServiceQuotaExceeded": ("limit_reached", RefusalKind.ACCOUNT),
        "AccessDenied": ("unauthorized", RefusalKind.ACCOUNT),  # IAM
        "AuthorizationError": ("unauthorized", RefusalKind.ACCOUNT),  # IAM, of SNS
        "InvalidSecurity": ("unauthorized", RefusalKind.ACCOUNT),
        "ExpiredToken": ("unauthorized", RefusalKind.ACCOUNT),  # the session token's time is over
        "IncompleteSignature": ("unauthorized", RefusalKind.ACCOUNT),
        "InvalidClientTokenId": ("unauthorized", RefusalKind.ACCOUNT),  # no such key
        "InvalidSignature": ("unauthorized", RefusalKind.ACCOUNT),  # wrong secret, or our clock
        "MissingAuthenticationToken": ("unauthorized", RefusalKind.ACCOUNT),
        "NotAuthorized": ("unauthorized", RefusalKind.ACCOUNT),
        "OptInRequired": ("unauthorized", RefusalKind.ACCOUNT),
        "RequestExpired": ("unauthorized", RefusalKind.ACCOUNT),  # our clock
        "SignatureDoesNotMatch": ("unauthorized", RefusalKind.ACCOUNT),
        "UnrecognizedClient": ("unauthorized", RefusalKind.ACCOUNT),  # no such key
        "ResourceNotFound": ("bad_request", RefusalKind.ACCOUNT),  # configuration set, sender…
        "Conflict": ("bad_request", RefusalKind.ACCOUNT),  # the sender's state or kind
        "Validation": ("bad_request", RefusalKind.ACCOUNT),  # unless a field says more
    }

    # The field that a ValidationException names.
    fields: ClassVar[Mapping[str, tuple[str, RefusalKind]]] = {
        "DestinationPhoneNumber": ("bad_destination", RefusalKind.PERMANENT),
        "MessageBody": ("bad_text", RefusalKind.PERMANENT),
    }

    def build(self, outgoing: Outgoing) -> Request:
        if not self._v2:
            return post(self._url, self._headers, self._publish(outgoing))
        least, most = TIME_TO_LIVE
        body: dict[str, object] = {
            "DestinationPhoneNumber": outgoing.recipient,
            "MessageBody": outgoing.text,
            "TimeToLive": max(least, min(outgoing.validity, most)),
            "Context": {"attempt": outgoing.attempt_id},
            **self._constant,
        }
        if outgoing.sender:
            body["OriginationIdentity"] = outgoing.sender
        if self.channel == "voice":
            body["MessageBody"] = spoken(outgoing.text, outgoing.code)
            body["VoiceId"] = self._voice or voice(outgoing.locale)
        return post(self._url, self._headers, orjson.dumps(body))

    def auth(self) -> Auth | None:
        return self._auth

    def parse(self, response: Response) -> Outcome:
        status = response.status_code
        said = _from_json(response) if self._v2 else _from_xml(response)
        error = self._error(status, said)
        if status == 200:
            return Accepted(said.reference) if said.reference else Unknown("no_message_id", error)
        if status == 429 or (said.code in THROTTLING and 400 <= status < 500):
            pause = vendor.retry_after(response.headers.get("retry-after"))
            return Refused("throttled", RefusalKind.THROTTLED, pause, error)
        if 400 <= status < 500:
            reason, kind = self._refusal(status, said)
            return Refused(reason, kind, error=error, avoid=self._avoided(reason))
        return Unknown("server_error" if status >= 500 else "odd_answer", error)

    def build_question(self, callback: Callback) -> Request | None:
        """The certificate that a message of our topic names, unless it is known already."""
        url = self._certificate_url(callback)
        return None if url is None else Request("GET", url)

    def learn(self, callback: Callback, response: Response) -> None:
        url = self._certificate_url(callback)
        if self._topic is not None and url is not None and response.status_code == 200:
            self._topic.learn(url, response.content)

    def authenticate(self, callback: Callback) -> bool:
        """SNS signed it, for our topic, within the hour; the URL has our key where one is set."""
        if self._topic is None or not self._has_key(callback):
            return False
        if self._raw_delivery and sns.read(callback.body) is None:
            return callback.headers.get("x-amz-sns-topic-arn") == self._topic.arn
        return self._topic.signed(callback.body, callback.received_at)

    def handshake(self, callback: Callback) -> Reply | None:
        return None

    def build_confirmation(self, callback: Callback) -> Request | None:
        """The call that makes our address a subscriber of the topic."""
        url = None if self._topic is None else self._topic.confirmation(callback.body)
        return None if url is None else Request("GET", url)

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        envelope = sns.read(callback.body)
        if envelope is not None and envelope.kind is not sns.Kind.NOTIFICATION:
            return []
        raw = callback.body if envelope is None else envelope.message.encode()
        event = vendor.json_object(raw)
        if "inboundMessageId" in event:  # a reply, which a topic may carry too
            return []
        return [self._receipt(event, raw)]

    def build_check(self) -> Request:
        """A look at the account: are we let in, and may it write to everyone?"""
        if not self._v2:
            body = urlencode({"Action": "GetSMSSandboxAccountStatus", "Version": "2010-03-31"})
            return post(self._url, self._headers, body.encode())
        headers = self._headers.copy()
        headers["x-amz-target"] = f"{TARGET}.DescribeAccountAttributes"
        return post(self._url, headers, b"{}")

    def parse_check(self, response: Response) -> str | None:
        """What is wrong, in a sentence; None when all is well."""
        status = response.status_code
        said = _from_json(response) if self._v2 else _from_xml(response)
        if status != 200:
            return f"AWS does not tell about the account ({self._error(status, said)})."
        if said.sandboxed:
            return "The AWS account is in the SMS sandbox: it writes to verified numbers only."
        return None

    def _publish(self, outgoing: Outgoing) -> bytes:
        attributes = [("AWS.SNS.SMS.SMSType", "String", "Transactional")]
        if outgoing.sender:
            from_number = _NUMBER.fullmatch(outgoing.sender)
            name = "AWS.MM.SMS.OriginationNumber" if from_number else "AWS.SNS.SMS.SenderID"
            attributes.append((name, "String", outgoing.sender))
        if price := self._constant.get("MaxPrice"):
            attributes.append(("AWS.SNS.SMS.MaxPrice", "Number", str(price)))
        form = {
            "Action": "Publish",
            "Version": "2010-03-31",
            "PhoneNumber": outgoing.recipient,
            "Message": outgoing.text,
        }
        for number, (name, kind, value) in enumerate(attributes, start=1):
            entry = f"MessageAttributes.entry.{number}"
            form[f"{entry}.Name"] = name
            form[f"{entry}.Value.DataType"] = kind
            form[f"{entry}.Value.StringValue"] = value
        return urlencode(form).encode()

    def _refusal(self, status: int, said: "_Said") -> tuple[str, RefusalKind]:
        for field in said.fields:
            if field in self.fields:
                return self.fields[field]
        known = self.errors.get(said.reason) or self.errors.get(said.code)
        if known is not None:
            return known
        if status in (401, 403):
            return "unauthorized", RefusalKind.ACCOUNT
        return "rejected", RefusalKind.PERMANENT

    def _avoided(self, reason: str | None) -> float | None:
        return self._avoid if reason in OF_THE_NUMBER else None

    def _error(self, status: int, said: "_Said") -> str:
        text = ": ".join(part for part in (said.code, said.reason, said.message) if part)
        return vendor.redact(text, self._secrets) or f"HTTP {status}"

    def _has_key(self, callback: Callback) -> bool:
        if callback.method != "POST":
            return False
        given = (callback.key or "").encode(errors="backslashreplace")
        found = not self._callback_keys
        for key in self._callback_keys:  # all of them, so that time does not tell which
            found |= hmac.compare_digest(key, given)
        return found

    def _certificate_url(self, callback: Callback) -> str | None:
        if self._topic is None or not self._has_key(callback):
            return None
        return self._topic.wanted(callback.body, callback.received_at)

    def _receipt(self, event: Mapping[str, object], raw: bytes) -> Receipt | Malformed:
        reference = vendor.storable(event.get("messageId"))
        word = vendor.storable(event.get("eventType"))
        number = vendor.storable(event.get("destinationPhoneNumber"))
        if reference is None or word is None:
            missing = "messageId" if reference is None else "eventType"
            return Malformed(f"{missing} is missing or unusable", raw)
        if number is None and not self.signed:
            return Malformed("destinationPhoneNumber is missing or unusable", raw)
        meaning = self.statuses.get(word, Meaning(None))
        state = meaning.state
        if word == "TEXT_SUCCESSFUL" and self._is_the_last(event):
            state = State.DELIVERED
        context = event.get("context")
        ours = context.get("attempt") if isinstance(context, dict) else None
        at = event.get("eventTimestamp")
        return Receipt(
            word=word,
            state=state,
            reference=reference,
            attempt_id=vendor.storable(ours),
            reason=meaning.reason,
            permanent=meaning.permanent,
            recipient=number,
            provider_time=vendor.storable(str(at)) if type(at) is int else None,
            cost=_cost(event.get("totalMessagePrice")),
            avoid=self._avoided(meaning.reason),
            raw=raw,
        )

    def _is_the_last(self, event: Mapping[str, object]) -> bool:
        """Whether nothing better than TEXT_SUCCESSFUL will come."""
        country = vendor.storable(event.get("isoCountryCode"))
        return event.get("isFinal") is True and country in self._successful


class _SignedRequest(Auth):
    """Signs each request as it leaves: a signature holds for five minutes, a queued one may not."""

    def __init__(
        self, credentials: sigv4.Credentials, scope: sigv4.Scope, now: Callable[[], datetime]
    ) -> None:
        self._credentials = credentials
        self._scope = scope
        self._now = now

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        url, headers = request.url, request.headers
        covered = {
            name: headers[name] for name in ("content-type", "x-amz-target") if name in headers
        }
        headers.update(
            sigv4.sign(
                self._credentials,
                self._scope,
                self._now(),
                host=url.netloc.decode("ascii"),
                path=url.raw_path.decode("ascii"),
                headers=covered,
                body=request.content,
            )
        )
        yield request


@dataclass(frozen=True, slots=True)
class _Said:
    """What an answer says, in either protocol."""

    reference: str | None = None
    code: str = ""  # of an error, without "Exception"
    reason: str = ""  # the narrower one, where there is one
    fields: tuple[str, ...] = ()  # that did not pass validation
    message: str = ""
    sandboxed: bool = False


def spoken(text: str, code: str) -> str:
    """The text with its code spelled, said twice as far as the limit allows."""
    once = speech.spelling(text, code)
    twice = speech.twice(once)
    return twice if len(twice) <= SPOKEN_LIMIT else once


def voice(locale: str) -> str:
    return speech.by_locale(VOICES, locale) or VOICES["en"]


def _from_json(response: Response) -> _Said:
    answer = vendor.json_object(response.content)
    kind = answer.get("__type") or response.headers.get("x-amzn-errortype")
    code = kind.partition(":")[0].rpartition("#")[2] if isinstance(kind, str) else ""
    reason, message = answer.get("Reason"), answer.get("Message") or answer.get("message")
    attributes = answer.get("AccountAttributes")
    return _Said(
        reference=vendor.storable(answer.get("MessageId")),
        code=code.removesuffix("Exception"),
        reason=reason if isinstance(reason, str) else "",
        fields=tuple(_field_names(answer.get("Fields"))),
        message=message if isinstance(message, str) else "",
        sandboxed=isinstance(attributes, list)
        and {"Name": "ACCOUNT_TIER", "Value": "SANDBOX"} in attributes,
    )


def _from_xml(response: Response) -> _Said:
    """Picked out of the text: these answers are flat, and a parser has dangers of its own."""
    text = response.content.decode(errors="replace")

    def found(pattern: re.Pattern[str]) -> str:
        match = pattern.search(text)
        return html.unescape(match[1]) if match else ""

    return _Said(
        reference=vendor.storable(found(_SENT)),
        code=found(_CODE).removesuffix("Exception"),
        message=found(_MESSAGE),
        sandboxed="<IsInSandbox>true</IsInSandbox>" in text,
    )


def _field_names(fields: object) -> Iterator[str]:
    for field in fields if isinstance(fields, list) else ():
        name = field.get("Name") if isinstance(field, dict) else None
        if isinstance(name, str):
            yield name


def _cost(price: object) -> str | None:
    """A price in US dollars; events that come before it is known say 0."""
    if type(price) not in (int, float) or not 0 < price < 1000:  # type: ignore[operator]
        return None
    return f"{Decimal(str(price)):f} USD"


def _headers(v2: bool, operation: str) -> dict[str, str]:
    if v2:
        target = f"{TARGET}.{operation}"
        return {"content-type": "application/x-amz-json-1.0", "x-amz-target": target}
    return {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}


def _constant(settings: AwsSettings) -> dict[str, object]:
    """What every request of this route says."""
    sms = settings.channel == "sms"
    constant = {
        "MessageType": "TRANSACTIONAL" if sms else None,
        "MessageBodyTextType": None if sms else "TEXT",
        "ConfigurationSetName": settings.configuration_set,
        "ProtectConfigurationId": settings.protect_configuration,
        "MaxPrice" if sms else "MaxPricePerMinute": settings.max_price,
    }
    return {name: value for name, value in constant.items() if value is not None}


def _confirms(settings: AwsSettings) -> frozenset[State]:
    if settings.api != V2 or settings.configuration_set is None or settings.topic_arn is None:
        return frozenset()
    return frozenset({State.ACK, State.DELIVERED, State.FAILED})


def _domain(region: str) -> str:
    return f"{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


def _topic(settings: AwsSettings) -> sns.Topic | None:
    if settings.api != V2 or settings.topic_arn is None:
        return None
    endpoint, sha256_only = settings.sns_endpoint, settings.sha256_only
    return sns.Topic(settings.topic_arn, endpoint=endpoint, sha256_only=sha256_only)


def _mistakes(settings: AwsSettings) -> list[str]:
    checks = [*_spelling(settings), *_parts(settings)]
    common = settings.mistakes("aws", Aws.channels)
    return [*common, *(message for fine, message in checks if not fine)]


def _spelling(settings: AwsSettings) -> Iterator[tuple[bool, str]]:
    for name, (pattern, expected) in SPELLING.items():
        value = getattr(settings, name)
        fine = value is None or pattern.fullmatch(value) is not None
        yield fine, f"{name}: {expected} is expected"


def _parts(settings: AwsSettings) -> Iterator[tuple[bool, str]]:
    keys, endpoint, base = settings.callback_key, settings.sns_endpoint or "", settings.base_url
    sender, call = settings.sender, settings.channel == "voice"
    senders = list(sender.values()) if isinstance(sender, Mapping) else [sender]
    default = sender.get("default") if isinstance(sender, Mapping) else sender
    yield settings.api in SERVICES, f"api: {' or '.join(SERVICES)} is expected"
    yield not call or settings.api == V2, f"channel: {SNS} has no voice"
    yield not call or default is not None, "sender: a call needs one, and a default among several"
    yield (
        all(_IDENTITY.fullmatch(one) for one in senders if one is not None),
        "sender: a number, sender id, pool or ARN is expected",
    )
    yield (
        base is None or vendor.is_address(base),
        "base_url: an http(s) address without a query is expected",
    )
    yield (
        isinstance(keys, tuple) and all(keys),
        "callback_key: one or two keys that are not empty are expected",
    )
    yield bool(keys) or not settings.raw_delivery, "raw_delivery: only a callback_key proves it"
    # Whoever can speak for this host can make up receipts.
    https = endpoint.startswith("https://") and vendor.is_address(endpoint)
    yield (
        endpoint == "" or https or _LOCAL.fullmatch(endpoint) is not None,
        "sns_endpoint: an https address, or http on this machine, is expected",
    )
    yield 0 <= settings.avoid <= 31_536_000, "avoid: 0 seconds to a year is expected"
