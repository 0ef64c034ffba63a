"""Mailgun, e-mail by HTTP.

https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages
https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhooks
https://documentation.mailgun.com/docs/mailgun/user-manual/events/event-types

The signature covers a time and a token and nothing of the event, so that whoever sees one callback
could write others. Hence three more proofs: a key in the URL, a MAC of ours over the attempt id
beside it, and a memory of tokens: one that comes again must come with the same body. As the vendor
signs no event, `signed` is false, and the engine compares the recipient too.

DELIVERED is what the recipient's server says; opened and clicked prove as much and not more, since
programs fetch pictures and follow links unasked. Our mail has neither.

Unconfirmed: the schedule of retries and whether they bring the first signature again, hence
`tolerance` (8 hours and some); the list of reasons; the texts of errors. An event that is retried
in another process has a token that is new there, which is why the memory is no proof by itself.
"""

import base64
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote, urlencode

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

OUR_ID = "otp_attempt"  # the variables that come back
OUR_PROOF = "otp_proof"
TOKENS_KEPT = 10_000

_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_TOKEN = re.compile(r"[0-9A-Za-z]{16,128}", re.ASCII)
_DOMAIN = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+", re.ASCII)
_BAD_RECIPIENT = re.compile(r"'?to'? parameter is not a valid address", re.IGNORECASE)
_MAY_NOT = re.compile(r"\bnot allowed to send\b|\bdomain not found\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class MailgunSettings(RouteSettings):  # `sender`: the name shown beside the address
    base_url: str = "https://api.mailgun.net/v3"  # https://api.eu.mailgun.net/v3 in Europe
    domain: str
    api_key: Secret
    from_address: str
    signing_key: tuple[Secret, ...] = ()  # two while one is replaced; none: no receipt gets in
    callback_key: tuple[Secret, ...] = ()  # two while one is replaced; none: no receipt gets in
    tolerance: int = 30_000  # seconds between a signature and its arrival
    avoid: float = 604_800.0  # seconds an address is left alone that bounced for good


class Mailgun:
    Settings = MailgunSettings
    wire: ClassVar = Wire.HTTP
    sheet: ClassVar = Sheet(
        vendor="Mailgun",
        proof="the callback key in the URL, a signature over time and token, our MAC over our id",
        setup=("Enter the callback URL for accepted, delivered and both kinds of failed.",),
        callback="{public_url}/otp/delivered/{route}/{key}",
    )
    channels = frozenset({"email"})
    confirms = frozenset({State.DELIVERED, State.FAILED})
    correlates = Correlation.ECHO
    idempotent = False
    signed = False  # the event is not: see above
    validity = False

    def __init__(self, settings: MailgunSettings) -> None:
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
        self._secrets = (settings.api_key, *settings.signing_key, *settings.callback_key)
        self._signing_keys = tuple(key.encode() for key in settings.signing_key)
        self._callback_keys = tuple(key.encode() for key in settings.callback_key)
        self._tokens: OrderedDict[str, bytes] = OrderedDict()

        login = base64.b64encode(f"api:{settings.api_key}".encode()).decode()
        headers = {
            "authorization": f"Basic {login}",
            "content-type": "application/x-www-form-urlencoded",
        }
        # A URL and headers parsed once: a third of the time of a request made from strings.
        path = f"/{quote(settings.domain, safe='')}/messages"
        pattern = Request("GET", settings.base_url.rstrip("/") + path, headers=headers)
        self._url, self._headers = pattern.url, pattern.headers

    statuses: ClassVar[Mapping[str, Meaning]] = {
        "accepted": Meaning(State.SENT),  # queued at Mailgun
        "delivered": Meaning(State.DELIVERED),  # the recipient's server took it
        "opened": Meaning(State.DELIVERED),  # a picture was fetched, by whomever
        "clicked": Meaning(State.DELIVERED),  # a link was followed, by whomever
        "failed": Meaning(State.FAILED, "not_delivered", permanent=True),  # by severity and reason
        "rejected": Meaning(State.FAILED, "rejected", permanent=True),  # by Mailgun itself
        "complained": Meaning(None),  # the reader complained: it had arrived
        "unsubscribed": Meaning(None),
        "stored": Meaning(None),  # of incoming mail
    }

    # The `reason` of a permanent failure, where it tells more.
    reasons: ClassVar[Mapping[str, Meaning]] = {
        "bounce": Meaning(State.FAILED, "bounced", permanent=True),  # the server refuses for good
        "suppress-bounce": Meaning(State.FAILED, "suppressed", permanent=True),  # bounced before
        "suppress-complaint": Meaning(State.FAILED, "opted_out", permanent=True),
        "suppress-unsubscribe": Meaning(State.FAILED, "opted_out", permanent=True),
        "old": Meaning(State.FAILED, "expired"),  # tried long enough
    }

    # Those of the reasons that are about the address: it is left alone for a while.
    gone: ClassVar = frozenset({"bounced", "suppressed", "opted_out"})

    def build(self, outgoing: Outgoing) -> Request:
        if not mail.is_mailbox(outgoing.recipient):
            raise ValueError("the recipient is not a plain e-mail address")
        fields = {
            "from": _origin(outgoing.sender, self._from),
            "to": outgoing.recipient,
            "subject": mail.subject(outgoing.subject, outgoing.sender),
            "text": outgoing.text,
            "html": mail.page(outgoing.text, outgoing.code, outgoing.locale),
            "h:Auto-Submitted": "auto-generated",
            "o:tracking": "no",
            f"v:{OUR_ID}": outgoing.attempt_id,
        }
        if self._signing_keys:
            fields[f"v:{OUR_PROOF}"] = _proof(self._signing_keys[0], outgoing.attempt_id)
        return post(self._url, self._headers, urlencode(fields).encode())

    def auth(self) -> Auth | None:
        return None

    def parse(self, response: Response) -> Outcome:
        status = response.status_code
        answer = vendor.json_object(response.content)
        said = answer.get("message")
        text = said if isinstance(said, str) else ""
        error = mail.redact(text, self._secrets) or f"HTTP {status}"
        if status == 200:
            reference = vendor.storable(answer.get("id"))
            return Accepted(_bare(reference)) if reference else Unknown("no_id", error)
        if status == 429:
            pause = vendor.retry_after(response.headers.get("retry-after"))
            return Refused("throttled", RefusalKind.THROTTLED, pause, error)
        if status in (401, 403):
            return Refused("unauthorized", RefusalKind.ACCOUNT, error=error)
        if status == 404 or (400 <= status < 500 and _MAY_NOT.search(text)):
            return Refused("bad_sender", RefusalKind.ACCOUNT, error=error)
        if status == 402:  # "Request failed": the parameters were right
            return Refused("request_failed", RefusalKind.TEMPORARY, error=error)
        if 400 <= status < 500:
            reason = "bad_destination" if _BAD_RECIPIENT.search(text) else "rejected"
            return Refused(reason, RefusalKind.PERMANENT, error=error)
        return Unknown("server_error" if status >= 500 else "odd_answer", error)

    def authenticate(self, callback: Callback) -> bool:
        """The key in the URL, the signature in the body, and that its token is not used again."""
        if callback.method != "POST" or callback.key is None:
            return False
        given = callback.key.encode(errors="backslashreplace")
        known = signed = False
        for key in self._callback_keys:  # all of them, so that time does not tell which
            known |= hmac.compare_digest(key, given)
        stamp, token, signature = _signature(callback.body)
        for key in self._signing_keys:
            expected = hmac.new(key, (stamp + token).encode(), "sha256").hexdigest()
            signed |= hmac.compare_digest(expected.encode(), signature.encode())
        if not (known and signed):
            return False
        fresh = abs(callback.received_at.timestamp() - int(stamp)) <= self._tolerance
        return fresh and self._first_or_same(token, callback.body)

    def handshake(self, callback: Callback) -> Reply | None:
        return None

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        body = callback.body
        event = vendor.json_object(body).get("event-data")
        if not isinstance(event, dict):
            return [Malformed("no event-data", body)]
        variables = event.get("user-variables")
        if not isinstance(variables, dict) or OUR_ID not in variables:
            return []  # of other mail of the domain
        attempt_id = vendor.storable(variables[OUR_ID])
        word = vendor.storable(event.get("event"))
        if attempt_id is None or word is None:
            missing = OUR_ID if attempt_id is None else "event"
            return [Malformed(f"{missing} is missing or unusable", body)]
        if not self._proves(attempt_id, variables.get(OUR_PROOF)):
            return [Malformed(f"{OUR_PROOF} is missing or wrong", body)]
        headers = _object(_object(event, "message"), "headers")
        reference = vendor.storable(headers.get("message-id"))
        if reference is None and "message-id" in headers:
            return [Malformed("message-id is unusable", body)]
        meaning = self._meaning(word, event)
        moment = event.get("timestamp")
        receipt = Receipt(
            word=word,
            state=meaning.state,
            reference=_bare(reference) if reference else None,
            attempt_id=attempt_id,
            reason=meaning.reason,
            permanent=meaning.permanent,
            recipient=vendor.storable(event.get("recipient")),
            provider_time=str(moment) if type(moment) in (int, float) else None,
            avoid=self._avoid if meaning.permanent and meaning.reason in self.gone else None,
            raw=vendor.as_json(event),
        )
        return [receipt]

    def _meaning(self, word: str, event: Mapping[str, object]) -> Meaning:
        meaning = self.statuses.get(word, Meaning(None))
        if word != "failed":
            return meaning
        match event.get("severity"):
            case "permanent":
                return self.reasons.get(str(event.get("reason")), meaning)
            case "temporary":
                return Meaning(None)  # Mailgun keeps trying
        return Meaning(None)

    def _proves(self, attempt_id: str, proof: object) -> bool:
        given = proof.encode(errors="backslashreplace") if isinstance(proof, str) else b""
        found = False
        for key in self._signing_keys:
            found |= hmac.compare_digest(_proof(key, attempt_id).encode(), given)
        return found

    def _first_or_same(self, token: str, body: bytes) -> bool:
        """Whether the token is new here, or its callback came before, byte by byte."""
        digest = hashlib.sha256(body).digest()
        if len(self._tokens) >= TOKENS_KEPT:
            self._tokens.popitem(last=False)
        return hmac.compare_digest(self._tokens.setdefault(token, digest), digest)


def _origin(name: str | None, address: str) -> str:
    """The name in quotes, so that it ends where it ends, whatever it holds."""
    if not name:
        return address
    plain = "".join(char for char in name if char.isprintable() and char not in '"\\')
    return f'"{plain}" <{address}>'


def _proof(key: bytes, attempt_id: str) -> str:
    return hmac.new(key, b"otp-gateway/attempt/" + attempt_id.encode(), "sha256").hexdigest()


def _signature(body: bytes) -> tuple[str, str, str]:
    """Timestamp, token and signature; ones that match nothing when they are not all there."""
    fields = _object(vendor.json_object(body), "signature")
    stamp, token, signature = (fields.get(name) for name in ("timestamp", "token", "signature"))
    if isinstance(stamp, int) and not isinstance(stamp, bool):
        stamp = str(stamp)
    if not (isinstance(stamp, str) and isinstance(token, str) and isinstance(signature, str)):
        return "0", "", ""
    if not (_SECONDS.fullmatch(stamp) and _TOKEN.fullmatch(token) and signature.isascii()):
        return "0", "", ""
    return stamp, token, signature


def _object(fields: Mapping[str, object], name: str) -> Mapping[str, object]:
    inner = fields.get(name)
    return inner if isinstance(inner, dict) else {}


def _bare(message_id: str) -> str:
    """The send call writes it in angle brackets, an event without."""
    return message_id.removeprefix("<").removesuffix(">")


def _mistakes(settings: MailgunSettings) -> list[str]:
    keys, signing = settings.callback_key, settings.signing_key
    checks = [
        (
            vendor.is_address(settings.base_url),
            "base_url: an http(s) address without a query is expected",
        ),
        (_DOMAIN.fullmatch(settings.domain), "domain: a domain is expected"),
        (vendor.fits_header(settings.api_key), "api_key: plain characters are expected"),
        (
            mail.is_mailbox(settings.from_address),
            "from_address: a plain e-mail address is expected",
        ),
        (
            isinstance(signing, tuple) and all(signing),
            "signing_key: one or two keys that are not empty are expected",
        ),
        (
            isinstance(keys, tuple) and all(keys),
            "callback_key: one or two keys that are not empty are expected",
        ),
        (settings.tolerance > 0, "tolerance: more than 0 seconds are expected"),
        (settings.avoid >= 0, "avoid: 0 seconds or more are expected"),
    ]
    common = settings.mistakes("mailgun", Mailgun.channels)
    return [*common, *(message for fine, message in checks if not fine)]
