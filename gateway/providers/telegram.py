"""Telegram Gateway: verification codes in a Telegram chat.

https://core.telegram.org/gateway/api
https://core.telegram.org/gateway/verification-tutorial

Telegram words the message itself and is given only the code: 4 to 8 digits. A message that was
not delivered within `ttl` is paid back and does not surface later; `ttl` has 30 to 3600 seconds,
so with less patience than 30 s a message can still arrive after the fallback. The account has no
callback address: each message brings its own, of 256 bytes at most and https, and our attempt id as
`payload`, which the report repeats.

With `check_first` each message is preceded by the question whether the number can be reached. A no
costs nothing; a yes costs what the message would, which is then free, once. What it buys is
certainty: a question that fails, in whatever way, is surely not sent. What it costs is a second
call, and the fee of a yes whose message then fails.

`delivery_status` alone tells of the message. `verification_status` is about codes that Telegram
checks, which it does not do for us, and has an `expired` of its own that pays nothing back.

Unconfirmed: all error words but ACCESS_TOKEN_INVALID, which are not published (`errors` corrects
the table; PHONE_NUMBER_NOT_AVAILABLE and the names in apifonica/tg-gateway-go have been seen); the
HTTP status of errors; the unit of prices; whether a repeated report is signed anew (`tolerance`);
whether a revoked message is paid back, and whether `revoked` is ever reported.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import orjson

from gateway.domain import vendor
from gateway.domain.delivery import State
from gateway.domain.vendor import Meaning
from gateway.ports import (
    Accepted,
    Answered,
    Auth,
    Callback,
    Correlation,
    Malformed,
    NotSent,
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
    post,
)

TTL = (30, 3600)  # seconds that a message may be given to arrive
LONGEST_MEMORY = 31_536_000  # seconds a number may be avoided: a year

UNREACHABLE = "unreachable"  # permanent, and the number is avoided for a while

# What the setting `errors` may say of a word, and the reason that is then recorded.
KINDS = {
    RefusalKind.TEMPORARY: "unavailable",
    RefusalKind.THROTTLED: "throttled",
    RefusalKind.ACCOUNT: "account_refused",
    RefusalKind.PERMANENT: "rejected",
    UNREACHABLE: "not_a_user",
}

_FLOOD = re.compile(r"FLOOD_WAIT(?:_([0-9]{1,9}))?")
_SENDER = re.compile(r"[A-Za-z][A-Za-z0-9_]{3,31}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_ENTRY = re.compile(f"([A-Z][A-Z0-9_]*)=({'|'.join(KINDS)})")


@dataclass(frozen=True, kw_only=True, slots=True)
class TelegramSettings(RouteSettings):  # `sender`: username of a verified channel, without the @
    base_url: str = "https://gatewayapi.telegram.org"
    token: Secret  # of the account; reports are signed with it too
    former_token: tuple[Secret, ...] = ()  # replaced lately; what it signed still gets in
    tolerance: int = 300  # seconds between a report's signature and its arrival, either way
    check_first: bool = False  # ask whether the number can be reached before sending
    remember_unreachable: int = 86_400  # seconds a number without Telegram is avoided; 0: not
    errors: str = ""  # "WORD=kind WORD=kind" where the table is wrong or silent


class Telegram:
    Settings = TelegramSettings
    wire: ClassVar = Wire.HTTP
    sheet: ClassVar = Sheet(
        vendor="Telegram Gateway",
        proof="a signature over time and raw body, and the attempt's token in the URL",
        setup=("Copy the API token at gateway.telegram.org, and add funds.",),
        cost="credits",
    )
    channels = frozenset({"telegram"})
    confirms = frozenset({State.ACK, State.DELIVERED, State.READ, State.FAILED})
    correlates = Correlation.TOKEN  # the payload is echoed, but a URL has to go with each message
    idempotent = False
    signed = True
    validity = True

    def __init__(self, settings: TelegramSettings) -> None:
        if wrong := "; ".join(_mistakes(settings)):
            raise ValueError(wrong)
        self.name = settings.name
        self.channel = settings.channel
        self.account = settings.account
        self.sender = settings.sender
        self.timeout = settings.timeout
        self.rate = settings.rate
        self.concurrency = settings.concurrency
        self._tolerance = settings.tolerance
        self._check_first = settings.check_first
        self._avoid = float(settings.remember_unreachable) or None
        self._errors = {**self.errors, **_own_errors(settings.errors)}
        self._secrets = (settings.token, *settings.former_token)
        self._keys = tuple(hashlib.sha256(token.encode()).digest() for token in self._secrets)

        headers = {
            "authorization": f"Bearer {settings.token}",
            "content-type": "application/json",
        }
        # A URL and headers parsed once: a third of the time of a request made from strings.
        base = settings.base_url.rstrip("/")
        pattern = Request("GET", f"{base}/sendVerificationMessage", headers=headers)
        self._send_url, self._headers = pattern.url, pattern.headers
        self._check_url = pattern.url.join("checkSendAbility")

    statuses: ClassVar[Mapping[str, Meaning]] = {
        "sent": Meaning(State.ACK),  # on its way to the person's devices
        "delivered": Meaning(State.DELIVERED),  # on one of them
        "read": Meaning(State.READ),  # the chat was opened
        "expired": Meaning(State.FAILED, "expired"),  # neither within ttl; paid back
        "revoked": Meaning(State.FAILED, "revoked"),  # we took it back
    }

    # The reason and what it means for the plan. A word neither here nor FLOOD_WAIT_<seconds>
    # nor MESSAGE_ALREADY_SENT refuses this message for good.
    errors: ClassVar[Mapping[str, tuple[str, str]]] = {
        "ACCESS_TOKEN_INVALID": ("unauthorized", RefusalKind.ACCOUNT),  # no such token
        "ACCESS_TOKEN_REQUIRED": ("unauthorized", RefusalKind.ACCOUNT),  # the header was lost
        "BALANCE_NOT_ENOUGH": ("no_credit", RefusalKind.ACCOUNT),  # funds are used up
        "CALLBACK_URL_INVALID": ("bad_request", RefusalKind.ACCOUNT),  # not https, or too long
        "CODE_INVALID": ("bad_code", RefusalKind.PERMANENT),  # not 4 to 8 digits
        "CODE_LENGTH_INVALID": ("bad_code", RefusalKind.PERMANENT),  # the same
        "CODE_LENGTH_REQUIRED": ("bad_code", RefusalKind.PERMANENT),  # no code came
        "PAYLOAD_INVALID": ("bad_request", RefusalKind.PERMANENT),  # above 128 bytes
        "PHONE_NUMBER_INVALID": ("bad_destination", UNREACHABLE),  # not a number
        "PHONE_NUMBER_MISMATCH": ("bad_request", RefusalKind.PERMANENT),  # the check's was another
        "PHONE_NUMBER_NOT_AVAILABLE": ("not_a_user", UNREACHABLE),  # has no Telegram
        "PHONE_NUMBER_NOT_FOUND": ("not_a_user", UNREACHABLE),  # the same
        "REQUEST_ID_INVALID": ("bad_request", RefusalKind.PERMANENT),  # no such check
        "REQUEST_ID_REQUIRED": ("bad_request", RefusalKind.PERMANENT),  # a wrong method
        "SENDER_NOT_OWNED": ("bad_sender", RefusalKind.ACCOUNT),  # another's channel
        "SENDER_NOT_VERIFIED": ("bad_sender", RefusalKind.ACCOUNT),  # a channel without the mark
        "SENDER_USERNAME_INVALID": ("bad_sender", RefusalKind.ACCOUNT),  # no such channel
        "TTL_INVALID": ("bad_request", RefusalKind.PERMANENT),  # outside 30 to 3600
        "UNKNOWN_METHOD": ("bad_request", RefusalKind.ACCOUNT),  # a wrong base_url
    }

    def build(self, outgoing: Outgoing) -> Request:
        shortest, longest = TTL
        body = {
            "phone_number": outgoing.recipient,
            "code": outgoing.code,
            "ttl": min(max(outgoing.validity, shortest), longest),
            "payload": outgoing.attempt_id,
        }
        if outgoing.callback_url:
            body["callback_url"] = outgoing.callback_url
        if outgoing.sender:
            body["sender_username"] = outgoing.sender
        return post(self._send_url, self._headers, orjson.dumps(body))

    def auth(self) -> Auth | None:
        return _Flow(self._ask_first) if self._check_first else None

    def parse(self, response: Response) -> Outcome:
        status = response.status_code
        answer = vendor.json_object(response.content)
        error = self._error(status, answer)
        if status >= 500:
            return Unknown("server_error", error)
        if answer.get("ok") is True and status == 200:
            return _accepted(answer.get("result")) or Unknown("no_request_id", error)
        if not _refuses(status, answer):
            return Unknown("odd_answer", error)
        if known := self._known_refusal(str(answer.get("error")), error):
            return known
        if status == 429:
            pause = vendor.retry_after(response.headers.get("retry-after"))
            return Refused("throttled", RefusalKind.THROTTLED, pause, error)
        if status in (401, 403):
            return Refused("unauthorized", RefusalKind.ACCOUNT, error=error)
        return Refused("rejected", RefusalKind.PERMANENT, error=error)

    def build_poll(self, attempt_id: str, reference: str | None) -> Request | None:
        return self._about(reference, "checkVerificationStatus")

    def parse_poll(self, response: Response) -> Receipt | None:
        answer = vendor.json_object(response.content)
        if response.status_code != 200 or answer.get("ok") is not True:
            return None
        result = answer.get("result")
        payload = result.get("payload") if isinstance(result, dict) else None
        receipt = self._receipt(result, vendor.storable(payload), response.content)
        return receipt if isinstance(receipt, Receipt) else None

    def build_revoke(self, attempt_id: str, reference: str | None) -> Request | None:
        return self._about(reference, "revokeVerificationMessage")

    def authenticate(self, callback: Callback) -> bool:
        """The URL names the attempt, the signature covers the time and the raw body."""
        signed_at = callback.headers.get("x-request-timestamp", "")
        signature = callback.headers.get("x-request-signature", "")
        if callback.method != "POST" or callback.attempt_id is None:
            return False
        if not _TIMESTAMP.fullmatch(signed_at) or not _SIGNATURE.fullmatch(signature):
            return False
        content = b"%s\n%s" % (signed_at.encode(), callback.body)
        found = False
        for key in self._keys:  # all of them, so that time does not tell which
            found |= hmac.compare_digest(hmac.new(key, content, "sha256").hexdigest(), signature)
        return found and abs(callback.received_at.timestamp() - int(signed_at)) <= self._tolerance

    def handshake(self, callback: Callback) -> Reply | None:
        return None

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        body = callback.body
        receipt = self._receipt(vendor.json_object(body), callback.attempt_id, body)
        return [] if receipt is None else [receipt]

    def _ask_first(self, request: Request) -> Generator[Request, Response, None]:
        """The question, then the message under its id. A no is left for `parse` to read again."""
        if request.url != self._send_url:
            yield request  # a poll, a recall: nothing is sent by them
            return
        body = orjson.loads(request.content)
        question = orjson.dumps({"phone_number": body["phone_number"]})
        answer = yield post(self._check_url, self._headers, question)
        outcome = self.parse(answer)
        if isinstance(outcome, Refused):
            raise Answered(answer)
        if isinstance(outcome, Unknown):
            raise NotSent(f"check_{outcome.reason}", outcome.error or "")
        content = orjson.dumps({**body, "request_id": outcome.reference})
        yield post(self._send_url, self._headers, content)

    def _receipt(
        self, item: object, attempt_id: str | None, raw: bytes
    ) -> Receipt | Malformed | None:
        if not isinstance(item, dict):
            return Malformed("not an object", raw)
        if item.get("payload") not in (None, attempt_id):
            return Malformed("payload differs", raw)
        reference = vendor.storable(item.get("request_id"))
        if reference is None:
            return Malformed("request_id is missing or unusable", raw)
        delivery = item.get("delivery_status")
        if delivery is None and "verification_status" in item:
            return None  # about a code that somebody had checked
        status = delivery if isinstance(delivery, dict) else {}
        word = vendor.storable(status.get("status"))
        if word is None:
            return Malformed("delivery_status is missing or unusable", raw)
        meaning = self.statuses.get(word, Meaning(None))
        return Receipt(
            word=word,
            state=meaning.state,
            reference=reference,
            attempt_id=attempt_id,
            reason=meaning.reason,
            provider_time=_seconds(status.get("updated_at")),
            cost=_cost(item),
            raw=raw,
        )

    def _known_refusal(self, word: str, error: str) -> Refused | Unknown | None:
        if word in self._errors:
            reason, kind = self._errors[word]
            if kind == UNREACHABLE:
                return Refused(reason, RefusalKind.PERMANENT, error=error, avoid=self._avoid)
            return Refused(reason, RefusalKind(kind), error=error)
        if flood := _FLOOD.fullmatch(word):
            return Refused("throttled", RefusalKind.THROTTLED, vendor.retry_after(flood[1]), error)
        if word == "MESSAGE_ALREADY_SENT":  # under the id of this check: it may be ours
            return Unknown("already_sent", error)
        return None

    def _about(self, reference: str | None, method: str) -> Request | None:
        if reference is None:
            return None
        url = self._send_url.join(method)
        return post(url, self._headers, orjson.dumps({"request_id": reference}))

    def _error(self, status: int, answer: Mapping[str, object]) -> str:
        said = answer.get("error")
        text = said if isinstance(said, str) else ""
        return vendor.redact(text, self._secrets) or f"HTTP {status}"


class _Flow(Auth):
    """A function in the shape that a transport drives."""

    def __init__(self, flow: Callable[[Request], Generator[Request, Response, None]]) -> None:
        self._flow = flow

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        return self._flow(request)


def _accepted(result: object) -> Accepted | None:
    if not isinstance(result, dict):
        return None
    reference = vendor.storable(result.get("request_id"))
    return Accepted(reference, _cost(result)) if reference else None


def _refuses(status: int, answer: Mapping[str, object]) -> bool:
    """Whether nothing was sent: it says so, or it did not get as far as to say anything."""
    if status == 200:
        return answer.get("ok") is False and isinstance(answer.get("error"), str)
    if status == 408 or answer.get("ok") is True:
        return False  # a proxy that waited in vain; an answer that contradicts itself
    return 400 <= status < 500


def _cost(result: Mapping[str, object]) -> str | None:
    """What Telegram took, in the end; None where it does not say."""
    if result.get("is_refunded") is True:
        return "0"
    cost = result.get("request_cost")
    return str(cost) if type(cost) in (int, float) else None


def _seconds(moment: object) -> str | None:
    return vendor.storable(str(moment)) if type(moment) is int else None


def _own_errors(text: str) -> dict[str, tuple[str, str]]:
    """The entries of the setting; the table's reason stands where its kind does."""
    own = {}
    for entry in text.split():
        word, _, kind = entry.partition("=")
        reason, before = Telegram.errors.get(word, ("", ""))
        own[word] = (reason if kind == before else KINDS[kind], kind)
    return own


def _mistakes(settings: TelegramSettings) -> list[str]:
    former = settings.former_token
    checks = [
        (
            vendor.is_address(settings.base_url),
            "base_url: an http(s) address without a query is expected",
        ),
        (
            _senders_fit(settings.sender),
            "sender: the username of a channel is expected, without the @",
        ),
        (vendor.fits_header(settings.token), "token: plain characters are expected"),
        (
            isinstance(former, tuple) and all(former),
            "former_token: tokens that are not empty are expected",
        ),
        (0 < settings.tolerance <= 86_400, "tolerance: 1 to 86400 seconds are expected"),
        (
            0 <= settings.remember_unreachable <= LONGEST_MEMORY,
            f"remember_unreachable: 0 to {LONGEST_MEMORY} seconds are expected",
        ),
        (
            all(_ENTRY.fullmatch(entry) for entry in settings.errors.split()),
            f"errors: entries WORD=kind are expected; kinds are {', '.join(KINDS)}",
        ),
    ]
    common = settings.mistakes("telegram", Telegram.channels)
    return [*common, *(message for fine, message in checks if not fine)]


def _senders_fit(sender: Sender) -> bool:
    senders = sender.values() if isinstance(sender, Mapping) else [sender]
    return all(_SENDER.fullmatch(one) for one in senders if one is not None)
