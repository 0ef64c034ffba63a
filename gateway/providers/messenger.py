"""Messenger: the sandbox's own chat app, which stands for those that tell when a message is read.

There is no vendor and no page to link: the API is this file and gateway/sandbox, each written
from the same description and neither importing the other. It has what the real ones have: a
callback URL per message, batches of signed statuses, a state to ask for.

    POST {base_url}/messages               to, text, callback_url, client_ref, ttl
         202 message_id, status  ·  400 401 404 413 429: error, message
    GET  {base_url}/messages/{message_id}  message_id, client_ref, status, time
    POST {callback_url}                    statuses: [message_id, client_ref, status, error, time]
         X-Messenger-Signature: t=<unix seconds>,v1=<hex HMAC-SHA-256 of "<t>." and the body>
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

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

TOLERANCE = 300  # seconds between a signature and its arrival, either way

_SIGNATURE = re.compile(r"t=([0-9]{1,12})((?:,v1=[0-9a-f]{64})+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class MessengerSettings(RouteSettings):  # the sender is not part of this API: the app shows it
    base_url: str  # of the sandbox; there is no vendor whose address could be the default
    token: Secret
    callback_secret: tuple[Secret, ...] = ()  # two while one is replaced; none: no receipt gets in


class Messenger:
    Settings = MessengerSettings
    wire: ClassVar = Wire.HTTP
    sheet: ClassVar = Sheet(
        vendor="the sandbox's messenger",
        proof="a signature over time and raw body, and the attempt's token in the URL",
    )
    channels = frozenset({"messenger"})
    confirms = frozenset({State.ACK, State.DELIVERED, State.READ, State.FAILED})
    correlates = Correlation.TOKEN
    idempotent = False
    signed = True
    validity = True

    def __init__(self, settings: MessengerSettings) -> None:
        if wrong := "; ".join(_mistakes(settings)):
            raise ValueError(wrong)
        self.name = settings.name
        self.channel = settings.channel
        self.account = settings.account
        self.sender = settings.sender
        self.timeout = settings.timeout
        self.rate = settings.rate
        self.concurrency = settings.concurrency
        self._secrets = (settings.token, *settings.callback_secret)
        self._callback_secrets = tuple(secret.encode() for secret in settings.callback_secret)

        headers = {
            "authorization": f"Bearer {settings.token}",
            "content-type": "application/json",
        }
        # A URL and headers parsed once: a third of the time of a request made from strings.
        pattern = Request("GET", settings.base_url.rstrip("/") + "/messages", headers=headers)
        self._url, self._headers = pattern.url, pattern.headers

    statuses: ClassVar[Mapping[str, Meaning]] = {
        "accepted": Meaning(State.SENT),  # stored, nothing done yet
        "sent": Meaning(State.ACK),  # on its way to the app
        "delivered": Meaning(State.DELIVERED),  # on the phone
        "read": Meaning(State.READ),  # the chat was opened
        "failed": Meaning(State.FAILED, "not_delivered"),  # `error` may say why
    }

    failures: ClassVar[Mapping[str, Meaning]] = {
        "not_a_user": Meaning(State.FAILED, "not_a_user", permanent=True),  # has no such app
        "blocked": Meaning(State.FAILED, "blocked", permanent=True),  # wants nothing from us
    }

    errors: ClassVar[Mapping[tuple[int, str], str]] = {
        (400, "invalid_recipient"): "bad_destination",  # not a number
        (400, "invalid_request"): "bad_request",  # a field is missing or wrong
        (404, "not_a_user"): "not_a_user",  # the number has no such app
    }

    def build(self, outgoing: Outgoing) -> Request:
        body = {
            "to": outgoing.recipient,
            "text": outgoing.text,
            "callback_url": outgoing.callback_url,
            "client_ref": outgoing.attempt_id,
            "ttl": outgoing.validity,
        }
        return post(self._url, self._headers, orjson.dumps(body))

    def auth(self) -> Auth | None:
        return None

    def parse(self, response: Response) -> Outcome:
        status = response.status_code
        answer = vendor.json_object(response.content)
        error = self._error(status, answer)
        if status == 202:
            reference = vendor.storable(answer.get("message_id"))
            return Accepted(reference) if reference else Unknown("no_message_id", error)
        if status == 429:
            pause = vendor.retry_after(response.headers.get("retry-after"))
            return Refused("throttled", RefusalKind.THROTTLED, pause, error)
        if status in (401, 403):
            return Refused("unauthorized", RefusalKind.ACCOUNT, error=error)
        if 400 <= status < 500:
            reason = self.errors.get((status, str(answer.get("error"))), "rejected")
            return Refused(reason, RefusalKind.PERMANENT, error=error)
        return Unknown("server_error" if status >= 500 else "odd_answer", error)

    def build_poll(self, attempt_id: str, reference: str | None) -> Request | None:
        if reference is None:
            return None
        url = f"{self._url}/{quote(reference, safe='')}"
        return Request("GET", url, headers=self._headers)

    def parse_poll(self, response: Response) -> Receipt | None:
        answer = vendor.json_object(response.content)
        if response.status_code != 200:
            return None
        receipt = self._receipt(answer, vendor.storable(answer.get("client_ref")), response.content)
        return receipt if isinstance(receipt, Receipt) else None

    def authenticate(self, callback: Callback) -> bool:
        """The URL names the attempt, the signature covers the time and the raw body."""
        header = _SIGNATURE.fullmatch(callback.headers.get("x-messenger-signature", ""))
        if callback.method != "POST" or callback.attempt_id is None or header is None:
            return False
        signed_at, signatures = header[1], header[2].split(",v1=")[1:]
        found = False
        for secret in self._callback_secrets:  # all of them, so that time does not tell which
            content = b"%s.%s" % (signed_at.encode(), callback.body)
            expected = hmac.new(secret, content, "sha256").hexdigest()
            for signature in signatures:
                found |= hmac.compare_digest(expected, signature)
        return found and abs(callback.received_at.timestamp() - int(signed_at)) <= TOLERANCE

    def handshake(self, callback: Callback) -> Reply | None:
        return None

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        statuses = vendor.json_object(callback.body).get("statuses")
        if not isinstance(statuses, list):
            return [Malformed("no list of statuses", callback.body)]
        return [self._receipt(item, callback.attempt_id, vendor.as_json(item)) for item in statuses]

    def _receipt(self, item: object, attempt_id: str | None, raw: bytes) -> Receipt | Malformed:
        if not isinstance(item, dict):
            return Malformed("not an object", raw)
        if item.get("client_ref") not in (None, attempt_id):
            return Malformed("client_ref differs", raw)
        reference = vendor.storable(item.get("message_id"))
        word = vendor.storable(item.get("status"))
        if reference is None or word is None:
            missing = "message_id" if reference is None else "status"
            return Malformed(f"{missing} is missing or unusable", raw)
        meaning = self.statuses.get(word, Meaning(None))
        if meaning.state is State.FAILED:
            meaning = self.failures.get(str(item.get("error")), meaning)
        return Receipt(
            word=word,
            state=meaning.state,
            reference=reference,
            attempt_id=attempt_id,
            reason=meaning.reason,
            permanent=meaning.permanent,
            provider_time=vendor.storable(item.get("time")),
            raw=raw,
        )

    def _error(self, status: int, answer: Mapping[str, object]) -> str:
        said = [answer.get("error"), answer.get("message")]
        text = ": ".join(part for part in said if isinstance(part, str) and part != "")
        return vendor.redact(text, self._secrets) or f"HTTP {status}"


def _mistakes(settings: MessengerSettings) -> list[str]:
    secrets = settings.callback_secret
    checks = [
        (
            vendor.is_address(settings.base_url),
            "base_url: an http(s) address without a query is expected",
        ),
        (vendor.fits_header(settings.token), "token: plain characters are expected"),
        (
            isinstance(secrets, tuple) and all(secrets),
            "callback_secret: one or two secrets that are not empty are expected",
        ),
    ]
    common = settings.mistakes("messenger", Messenger.channels)
    return [*common, *(message for fine, message in checks if not fine)]
