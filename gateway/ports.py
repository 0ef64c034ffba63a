"""What the engine, the providers and the transports say to each other: protocols and frozen
values.

A provider turns an `Outgoing` into a request, a response into an outcome, and a `Callback` into
receipts. It never sends, waits, logs or reads settings. A transport sends a request and answers
with the response, or with `NotSent` or `Lost`: the one distinction on which "never twice" stands.

httpx's Request, Response and Auth are handed on from here, so that its successor touches three
files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from httpx import URL, Auth, ByteStream, Headers, Request, Response

from gateway.domain.delivery import State

__all__ = [
    "Accepted",
    "Auth",
    "Callback",
    "Correlation",
    "Lost",
    "Malformed",
    "NotSent",
    "Outcome",
    "Outgoing",
    "Polls",
    "Provider",
    "Receipt",
    "RefusalKind",
    "Refused",
    "Reply",
    "Request",
    "Response",
    "Secret",
    "Sender",
    "Transport",
    "TransportError",
    "Unknown",
    "post",
]


class Secret(str):
    """A credential. A `str` whose repr tells nothing, so that settings can be shown and
    logged."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(…)"


Sender = str | Mapping[str, str] | None  # one sender, or one by ISO country with "default"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message, ready to be put into a provider's words.

    `code` stands apart from `text` for providers that have templates or spell digits.
    `callback_url` is the receipt address of this attempt, "" unless the provider correlates by
    TOKEN. `validity` is how many seconds the message may still be delivered.
    """

    attempt_id: str
    channel: str
    recipient: str
    text: str
    code: str
    sender: str | None
    callback_url: str
    validity: int
    locale: str = "en"


class RefusalKind(StrEnum):
    """Why a provider said no, as far as the plan cares."""

    TEMPORARY = "temporary"  # may work on another route or in a moment
    THROTTLED = "throttled"  # too fast; `retry_after` says when
    ACCOUNT = (
        "account"  # credentials, credit, settings: nobody's message gets through on this account
    )
    PERMANENT = "permanent"  # this message or number will not work on this channel


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the message. `reference` is its id for it; None where it gave none."""

    reference: str | None
    cost: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Surely not sent. `reason` is a stable code of ours, `error` the vendor's own."""

    reason: str
    kind: RefusalKind
    retry_after: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """It cannot be told whether the message was sent: time-out, lost connection, an odd
    answer."""

    reason: str
    error: str | None = None


Outcome = Accepted | Refused | Unknown


@dataclass(frozen=True, slots=True)
class Callback:
    """An HTTP request a provider made to us, raw.

    `url` is the public URL it was sent to, `key` the last path segment of
    /otp/delivered/{route}/{key}. `attempt_id` is set when that segment is a valid token of ours,
    and then names the attempt. Header names are lower case; a header that came twice is joined by
    a line feed, so that it matches nothing a signature check would accept.
    """

    method: str
    url: str
    key: str | None
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    received_at: datetime
    attempt_id: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a provider says about an attempt, in our words.

    It names the attempt by `attempt_id` where the vendor echoes ours, else by `reference`.
    `state` is None when the vendor's word is unknown or says nothing new. `word` is the vendor's
    own, verbatim. `recipient` is the number the receipt names, checked where the callback is
    unsigned. `provider_time` is the vendor's clock as it came, recorded and never compared.
    """

    word: str
    state: State | None
    reference: str | None = None
    attempt_id: str | None = None
    reason: str | None = None
    permanent: bool = False
    recipient: str | None = None
    provider_time: str | None = None
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Malformed:
    """An item of a callback that could not be read: kept aside, its neighbours applied."""

    why: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The words a provider wants to hear back on a handshake."""

    body: bytes
    content_type: str = "text/plain"
    status: int = 200


def post(url: URL, headers: Headers, content: bytes) -> Request:
    """A POST whose body has been read already, without the headers httpx would add (Host,
    Content-Length, Accept…): the transport adds what HTTP asks for, and half the price is saved.
    """
    request = Request("POST", url, headers=headers, stream=ByteStream(content))
    request.read()
    return request


class Correlation(StrEnum):
    """How a receipt finds its attempt, best first."""

    ECHO = "echo"  # the vendor repeats our attempt id in the receipt
    TOKEN = "token"  # the callback URL of each message is its own  # noqa: S105 (no password)
    REFERENCE = "reference"  # only the vendor's id, which the send call returns


@runtime_checkable
class Provider(Protocol):
    """One vendor's API on one channel: values in, values out."""

    name: str
    channel: str
    account: str
    confirms: frozenset[State]  # the states it can ever report, beyond SENT
    correlates: Correlation
    idempotent: bool  # the same attempt id submitted twice is one message
    signed: bool  # receipts carry a signature; an unsigned one must also name the right number
    timeout: float  # seconds, total, for one call
    concurrency: int  # calls under way at once, per process
    rate: float | None  # calls per second, per process
    sender: Sender

    def build(self, outgoing: Outgoing) -> Request:
        """The request that sends the message."""
        ...

    def auth(self) -> Auth | None:
        """A token fetched first, as a flow the transport drives; None where headers suffice."""
        ...

    def parse(self, response: Response) -> Outcome:
        """What the answer (its body already read) to `build`'s request means."""
        ...

    def authenticate(self, callback: Callback) -> bool:
        """Whether it comes from the vendor. Constant time; false when no secret is set."""
        ...

    def handshake(self, callback: Callback) -> Reply | None:
        """The answer to a vendor's set-up request, None for ordinary callbacks."""
        ...

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        """The statements in an authenticated callback, in their order; non-receipts left out."""
        ...


@runtime_checkable
class Polls(Protocol):
    """A provider that can be asked how an attempt is doing."""

    def build_poll(self, attempt_id: str, reference: str | None) -> Request | None:
        """The request that asks; None when there is nothing to ask by."""
        ...

    def parse_poll(self, response: Response) -> Receipt | None:
        """What the answer says, None when it says nothing."""
        ...


class TransportError(Exception):
    """A call that brought no response. `reason` is a stable code: connect_error, read_timeout…"""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class NotSent(TransportError):
    """Surely not sent: the connection was never made."""


class Lost(TransportError):
    """Cannot be told: the request was at least begun and no understandable answer came."""


class Transport(Protocol):
    """Sends a request within one total time limit and reads the answer within a size limit."""

    async def send(
        self,
        request: Request,
        *,
        within: float,
        auth: Auth | None = None,
    ) -> Response:
        """The response, its body read. `within`: seconds, total. Raises NotSent or Lost."""
        ...
