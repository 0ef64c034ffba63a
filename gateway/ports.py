"""What the engine, the providers and the transports say to each other: protocols and frozen
values.

A provider turns an `Outgoing` into a request, a response into an outcome, and a `Callback` into
receipts. It never sends, waits, logs or reads settings. A transport sends a request and answers
with the response, or with `NotSent` or `Lost`: the one distinction on which "never twice" stands.

Over 500 lines, since all that the parts say to each other is read best in one place.

httpx's Request, Response and Auth are handed on from here, so that its successor touches three
files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Protocol, runtime_checkable
from urllib.parse import urlsplit

from httpx import URL, Auth, ByteStream, Headers, Request, Response
from typing_extensions import TypeVar

from gateway.domain.delivery import State
from gateway.domain.parts import Part
from gateway.domain.values import value

__all__ = [
    "CALLBACK_LIMIT",
    "NO_TRACER",
    "Accepted",
    "Answered",
    "Asks",
    "Auth",
    "Callback",
    "Confirms",
    "Correlation",
    "Endpoint",
    "Facts",
    "Lost",
    "Mail",
    "MailProvider",
    "Malformed",
    "NotSent",
    "Outcome",
    "Outgoing",
    "Polls",
    "Post",
    "Provider",
    "Receipt",
    "RefusalKind",
    "Refused",
    "Reply",
    "Request",
    "Response",
    "Revokes",
    "RouteSettings",
    "Secret",
    "Sender",
    "Server",
    "Sheet",
    "SmtpAnswer",
    "SmtpReply",
    "SmtpServer",
    "SmtpStage",
    "Span",
    "Timed",
    "Tracer",
    "Transport",
    "TransportError",
    "Unknown",
    "Unproven",
    "Wire",
    "no_clock",
    "post",
]


class Secret(str):
    """A credential. A `str` whose repr tells nothing, so that settings can be shown and
    logged."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(…)"


CALLBACK_LIMIT = 256 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL database: `url` is its address as configured, `password` what is not in it."""

    url: str
    password: Secret | None = None

    def __repr__(self) -> str:
        return f"Server({self})"

    def __str__(self) -> str:
        """Where it is, without credentials and options."""
        parts = urlsplit(self.url)
        return f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"


Sender = str | Mapping[str, str] | None  # one sender, or one by ISO country with "default"


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteSettings:
    """What every provider's settings begin with; a provider's own derive from it.

    `timeout` is in seconds, total, for one call; `rate` in calls per second and `concurrency` in
    calls under way at once, per process; `callback_limit` in bytes of a callback's body.
    `traceparent`: whether the provider is told our trace.
    """

    name: str
    channel: str
    account: str
    sender: Sender = None
    timeout: float = 10.0
    rate: float | None = None
    concurrency: int = 64
    callback_limit: int = CALLBACK_LIMIT
    traceparent: bool = False

    def mistakes(self, provider: str, channels: frozenset[str]) -> Iterator[str]:
        """What is wrong with them, a sentence each that begins with the setting's name."""
        if self.channel not in channels:
            known = " and ".join(sorted(channels))
            yield f"channel: {provider} has {known}, not {self.channel}"
        if not 0 < self.timeout <= 600:
            yield "timeout: 0 to 600 seconds are expected"
        if self.rate is not None and self.rate <= 0:
            yield "rate: more than 0 calls per second are expected"
        if self.concurrency < 1:
            yield "concurrency: at least 1 is expected"
        if not CALLBACK_LIMIT // 16 <= self.callback_limit <= CALLBACK_LIMIT * 64:
            yield "callback_limit: 16 KiB to 16 MiB are expected, in bytes"


@value
class Outgoing:
    """One message, ready to be put into a provider's words.

    `code` stands apart from `text` for providers that have templates or spell digits.
    `callback_url` is the receipt address of this attempt, "" where the provider correlates by
    REFERENCE. `validity` is how many seconds the message may still be delivered. `template` names
    the purpose (login, reset…) for vendors with approved templates, `subject` is an e-mail's.
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
    template: str = "verify"
    subject: str = ""


class RefusalKind(StrEnum):
    """Why a provider said no, as far as the plan cares."""

    TEMPORARY = "temporary"  # may work on another route or in a moment
    THROTTLED = "throttled"  # too fast; `retry_after` says when
    ACCOUNT = (
        "account"  # credentials, credit, settings: nobody's message gets through on this account
    )
    PERMANENT = "permanent"  # this message or number will not work on this channel


@value
class Accepted:
    """The provider took the message. `reference` is its id for it; None where it gave none.

    `parts`: the ids of its parts, in their order, where each has receipts of its own; none of them
    is the `reference` then.
    """

    reference: str | None
    cost: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Surely not sent. `reason` is a stable code of ours, `error` the vendor's own.

    `avoid`: for so many seconds this number need not be tried again on this channel from this
    sender (it has no WhatsApp, it opted out).
    """

    reason: str
    kind: RefusalKind
    retry_after: float | None = None
    error: str | None = None
    avoid: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """It cannot be told whether the message was sent: time-out, lost connection, an odd
    answer."""

    reason: str
    error: str | None = None


Outcome = Accepted | Refused | Unknown


@value
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


@value
class Receipt:
    """What a provider says about an attempt, in our words.

    It names the attempt by `attempt_id` where the vendor echoes ours, else by `reference`.
    `state` is None when the vendor's word is unknown or says nothing new. `word` is the vendor's
    own, verbatim. `recipient` is the number the receipt names, checked where the callback is
    unsigned. `provider_time` is the vendor's clock as it came, recorded; it is compared
    only where a receipt looks for its attempt by the number.
    `cost` is what the vendor says it took, such as "0.0075 USD". `avoid` is as in `Refused`.
    `part`: which part of the message it is about; filled in by whoever knows the parts' ids.
    """

    word: str
    state: State | None
    reference: str | None = None
    attempt_id: str | None = None
    reason: str | None = None
    permanent: bool = False
    recipient: str | None = None
    provider_time: str | None = None
    cost: str | None = None
    avoid: float | None = None
    raw: bytes = b""
    part: Part | None = None


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


class Endpoint:
    """Where a provider posts to, and the headers it always sends there.

    `prepared` belongs to the transport: what it makes of both, once instead of for every call.
    """

    __slots__ = ("_headers", "prepared", "url")

    def __init__(self, url: URL, headers: Headers) -> None:
        self.url = url
        self._headers = Headers(headers)  # nobody else's, so that `prepared` stays true
        self.prepared: object = None

    @property
    def headers(self) -> Headers:
        """A copy, to be changed as one likes."""
        return Headers(self._headers)

    def post(self, content: bytes) -> Request:
        """A POST whose body has been read already, without the headers httpx would add (Host,
        Content-Length, Accept…): the transport adds what HTTP asks for.
        """
        return Post(self, content)


class Post(Request):
    """A request made read, from parts that need no parsing: `Request` copies, converts and reads
    them again, which costs three times as much. So do headers, made only for whom asks for them.
    """

    content = b""  # where httpx has a property: an attribute is read at a tenth of its price

    def __init__(self, endpoint: Endpoint, content: bytes) -> None:
        self.method = "POST"
        self.url = endpoint.url
        self.extensions = {}
        self.content = self._content = content
        self._endpoint = endpoint
        self._own: Headers | None = None

    @property
    def endpoint(self) -> Endpoint | None:
        """What it was made by, as long as nobody can have changed anything but the body."""
        if self._own is None and self.url is self._endpoint.url and self.method == "POST":
            return self._endpoint
        return None

    @property
    def headers(self) -> Headers:
        """Its own: a trace or a signature may be added."""
        if self._own is None:
            self._own = self._endpoint.headers
        return self._own

    @headers.setter
    def headers(self, headers: Headers) -> None:
        self._own = headers

    @property
    def stream(self) -> ByteStream:  # type: ignore[override]
        """The body, for httpx's own transports."""
        return ByteStream(self._content)


def post(url: URL, headers: Headers, content: bytes) -> Request:
    """A POST as an `Endpoint` makes it, to an address or with headers of its own."""
    return Endpoint(url, headers).post(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpServer:
    """Where a provider's mail is handed in; its transport is made from this.

    `security`: "starttls" (required, never merely tried), "tls" from the first byte, or "none".
    `ca_file`: whom to trust instead of the system's authorities. `hello`: the name we greet with.
    Without `username` nobody logs in.
    """

    host: str
    port: int
    security: str
    username: str | None
    password: Secret
    ca_file: str | None
    hello: str
    connections: int  # at most so many at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A message in its envelope. It has one recipient, so that every answer is one attempt's.

    `content` is the whole message, 7-bit lines. The options are said to a server that offers DSN
    (RFC 3461) and to no other.
    """

    sender: str = field(repr=False)
    recipient: str = field(repr=False)
    content: bytes = field(repr=False)
    mail_options: tuple[str, ...] = field(default=(), repr=False)
    rcpt_options: tuple[str, ...] = field(default=(), repr=False)


class SmtpStage(StrEnum):
    """How far a conversation came: the words that were answered last."""

    CONNECT = "connect"
    HELLO = "hello"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"  # the word alone; nothing of the message has been written
    MESSAGE = "message"  # the message: the server may have it


@dataclass(frozen=True, slots=True)
class SmtpReply:
    """A reply: its code, the enhanced status code (RFC 3463) where it has one, its text."""

    code: int
    enhanced: str | None
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SmtpAnswer:
    """What became of a `Mail`: the reply that decided, to what it was given, and before it the
    replies to each recipient. A refusal is an answer like any other.
    """

    stage: SmtpStage
    reply: SmtpReply
    recipients: tuple[SmtpReply, ...] = ()


class Correlation(StrEnum):
    """How a receipt finds its attempt, best first."""

    ECHO = "echo"  # the vendor repeats our attempt id in the receipt
    TOKEN = "token"  # the callback URL of each message is its own  # noqa: S105 (no password)
    REFERENCE = "reference"  # only the vendor's id, which the send call returns


class Wire(StrEnum):
    """Which transport carries a provider's requests; the wiring picks it by this word."""

    HTTP = "http"
    SMTP = "smtp"
    SMPP = "smpp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What an operator must know of a provider: printed by `gateway routes` and docs/providers.md.

    `proof` says how a callback is known to be the vendor's, `setup` what to set in its dashboard,
    one sentence each, `callback` the URL to paste there, with {public_url}, {route} and {key};
    "" where each message brings its own. `cost`: the currency its prices come in, if it tells any.
    """

    vendor: str
    proof: str
    setup: tuple[str, ...] = ()
    callback: str = ""
    cost: str = ""


# What a provider builds and its transport sends, and what comes back.
Q_co = TypeVar("Q_co", covariant=True, default=Request)
Q_contra = TypeVar("Q_contra", contravariant=True, default=Request)
A_co = TypeVar("A_co", covariant=True, default=Response)
A_contra = TypeVar("A_contra", contravariant=True, default=Response)


@runtime_checkable
class Provider(Protocol[Q_co, A_contra]):
    """One vendor's API on one channel: values in, values out.

    Over HTTP (`Provider` without more) it builds a `Request` and reads a `Response`; over another
    wire the values are that transport's.
    """

    wire: ClassVar[Wire]
    name: str
    channel: str
    account: str
    confirms: frozenset[State]  # the states it can ever report, beyond SENT
    correlates: Correlation
    idempotent: bool  # the same attempt id submitted twice is one message
    signed: bool  # receipts carry a signature; an unsigned one must also name the right number
    validity: bool  # the vendor drops a message whose validity has passed
    timeout: float  # seconds, total, for one call
    concurrency: int  # calls under way at once, per process
    rate: float | None  # calls per second, per process
    sender: Sender

    @property
    def sheet(self) -> Sheet:
        """Of the class, or of the definition an instance was made with."""
        ...

    def build(self, outgoing: Outgoing) -> Q_co:
        """The request that sends the message."""
        ...

    def auth(self) -> Auth | None:
        """What goes before a request (a token, a question), as a flow the transport drives; None
        where headers suffice."""
        ...

    def parse(self, response: A_contra) -> Outcome:
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


class MailProvider(Provider[Mail, SmtpAnswer], Protocol):
    """A provider whose wire is SMTP."""

    server: SmtpServer


@runtime_checkable
class Polls(Protocol):
    """A provider that can be asked how an attempt is doing."""

    def build_poll(self, attempt_id: str, reference: str | None) -> Request | None:
        """The request that asks; None when there is nothing to ask by."""
        ...

    def parse_poll(self, response: Response) -> Receipt | None:
        """What the answer says, None when it says nothing."""
        ...


@runtime_checkable
class Revokes(Protocol):
    """A provider that can take a message back (or its price) when it is no longer wanted."""

    def build_revoke(self, attempt_id: str, reference: str | None) -> Request | None:
        """The request that takes it back; None when there is nothing to name it by. What it is
        answered is logged and changes nothing."""
        ...


@runtime_checkable
class Asks(Protocol):
    """A provider that must fetch something public (a certificate) to judge a callback."""

    def build_question(self, callback: Callback) -> Request | None:
        """What has to be fetched before `authenticate`, from a host known beforehand; None when
        nothing is missing, or when the callback is not worth a question."""
        ...

    def learn(self, callback: Callback, response: Response) -> None:
        """Keep what came back, bounded, for `authenticate`."""
        ...


@runtime_checkable
class Confirms(Protocol):
    """A provider whose callback address is confirmed by a call of ours (Amazon SNS)."""

    def build_confirmation(self, callback: Callback) -> Request | None:
        """The call that an authenticated callback asks for, to a host known beforehand."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A provider that dates what it signs. The wiring gives it the clock, before its first call."""

    now: Callable[[], datetime]


def no_clock() -> datetime:
    """What `Timed.now` is until the wiring has set it."""
    raise LookupError("this provider was given no clock")


class Unproven(Exception):
    """Raised by `authenticate`: it cannot be told now whether the callback is the vendor's, who
    should send it again (a 503)."""


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


class Answered(Exception):
    """Raised by an auth flow that has asked the vendor first and ends without sending the request:
    `response` is then the answer, to be parsed like any other. Before the request, never after.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response


class Transport(Protocol[Q_contra, A_co]):
    """Sends a request within one total time limit and reads the answer within a size limit."""

    async def send(
        self,
        request: Q_contra,
        *,
        within: float,
        auth: Auth | None = None,
    ) -> A_co:
        """The response, its body read. `within`: seconds, total. Raises NotSent or Lost."""
        ...


Facts = Mapping[str, str | int]  # attributes of a span: never a number, a code or a secret


class Span(Protocol):
    """A span under way."""

    context: str  # its traceparent, to hang others on

    def end(self, outcome: str) -> None:
        """It is over, and that came of it."""
        ...


class Tracer(Protocol):
    """Whoever keeps spans. `parent` is a traceparent (W3C Trace Context)."""

    on: bool  # whether anybody does

    def begin(self, name: str, parent: str, facts: Facts, *, outbound: bool = False) -> Span:
        """A span that begins now; `outbound`: a call of ours."""
        ...

    def record(self, name: str, parent: str, facts: Facts, *, at: datetime) -> None:
        """Something that happened at that moment."""
        ...

    def close(self) -> None:
        """Export what waits."""
        ...


class _NoSpan:
    """A span that nobody keeps; what hangs on it hangs on its parent."""

    def __init__(self, parent: str) -> None:
        self.context = parent

    def end(self, outcome: str) -> None:
        """Nothing."""


class _NoTracer:
    """Nobody keeps spans, also those of verifications from when somebody did."""

    on = False

    def begin(self, name: str, parent: str, facts: Facts, *, outbound: bool = False) -> Span:
        return _NoSpan(parent)

    def record(self, name: str, parent: str, facts: Facts, *, at: datetime) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


NO_TRACER: Tracer = _NoTracer()
