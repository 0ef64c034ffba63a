"""What a definition is made of, as values: a request, an answer, the shape of a callback, the
fields of a receipt."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from enum import StrEnum

from gateway.domain.declared.bodies import Kind
from gateway.domain.declared.paths import Path, Paths
from gateway.domain.declared.rules import Predicate
from gateway.domain.declared.template import Template, Tree, leaves


class Match(StrEnum):
    """How a receipt finds its attempt: the words of `ports.Correlation`."""

    ECHO = "echo"
    TOKEN = "token"  # noqa: S105 (no password)
    REFERENCE = "reference"


class Method(StrEnum):
    """How a request is made."""

    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    GET = "GET"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the vendor."""

    method: Method
    path: Template  # after base_url
    content: Kind
    headers: Mapping[str, Template]
    query: Mapping[str, Tree]
    body: Mapping[str, Tree]

    @property
    def names(self) -> frozenset[str]:
        """Every variable in it."""
        trees: list[Tree] = [self.path, *self.headers.values(), self.query, self.body]
        return frozenset(name for tree in trees for leaf in leaves(tree) for name in leaf.names)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to read in the answer to the send call."""

    content: Kind
    success: frozenset[int]
    id: Paths
    own_id: bool  # the vendor takes our id: an answer need not name another
    accepted: Predicate | None
    failed: Predicate | None
    code: Paths
    message: Paths
    amount: Paths
    currency: Paths


@dataclass(frozen=True, slots=True)
class Handshake:
    """A GET by which a vendor makes sure of the address: the token is ours, the challenge goes
    back."""

    token: str
    secret: str
    challenge: str


@dataclass(frozen=True, slots=True)
class CallbackShape:
    """What a callback looks like."""

    methods: tuple[str, ...]
    content: Kind
    items: Path | None  # None: the whole body is the one item
    where: Predicate | None  # items that are no receipts do not hold
    handshake: Handshake | None


class TimeFormat(StrEnum):
    """How a time is written; any other text is a pattern of strptime."""

    AS_IT_CAME = ""
    ISO = "iso"
    UNIX_S = "unix_s"
    UNIX_MS = "unix_ms"


@dataclass(frozen=True, slots=True)
class Fields:
    """Where an item says what."""

    id: Paths = ()
    attempt_id: Paths = ()
    status: tuple[Paths, ...] = ()  # several: joined by a slash
    error: Paths = ()
    recipient: Paths = ()
    time: Paths = ()
    time_format: str = ""
    zone: tzinfo = UTC
    amount: Paths = ()
    currency: Paths = ()

    def moment(self, written: str) -> str:
        """The time as ISO in UTC where a format is given and fits, else as it came."""
        try:
            match self.time_format:
                case TimeFormat.AS_IT_CAME:
                    return written
                case TimeFormat.ISO:
                    at = datetime.fromisoformat(written)
                case TimeFormat.UNIX_S | TimeFormat.UNIX_MS:
                    unit = 1 if self.time_format == TimeFormat.UNIX_S else 1000
                    at = datetime.fromtimestamp(float(written) / unit, UTC)
                case pattern:
                    at = datetime.strptime(written, pattern)  # noqa: DTZ007 (the zone follows)
            at = at if at.tzinfo else at.replace(tzinfo=self.zone)
            return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        except (ValueError, OverflowError, OSError):
            return written
