"""What is allowed, as the settings say, and the keys under which it is counted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from gateway.domain import limits
from gateway.domain.countries import Countries
from gateway.domain.guard import Guard, Mode
from gateway.domain.limits import Rule
from gateway.domain.spending import Spending
from gateway.domain.verification import COOL_DOWN, Verification

_COOL = b"cool:"


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules in force in this process. `node` names it among those of one database; "" where it
    is alone."""

    node: str = ""
    rules: tuple[Rule, ...] = (limits.PER_NUMBER,)
    countries: Countries = field(default_factory=Countries)
    guard: Guard | None = field(default_factory=Guard)
    spending: Spending | None = None
    narrow: tuple[Rule, ...] = field(init=False, repr=False)  # of the rules those by number
    wide: tuple[Rule, ...] = field(init=False, repr=False)  # and the others
    wider: bool = field(init=False, repr=False)  # whether countries, wide rules or money matter
    judges: bool = field(init=False, repr=False)  # whether the guard may refuse a send

    def __post_init__(self) -> None:
        object.__setattr__(self, "narrow", tuple(rule for rule in self.rules if not rule.wide))
        object.__setattr__(self, "wide", tuple(rule for rule in self.rules if rule.wide))
        wider = bool(self.wide) or self.countries.named or self.spending is not None
        object.__setattr__(self, "wider", wider)
        judges = self.guard is not None and self.guard.mode is Mode.ENFORCE
        object.__setattr__(self, "judges", judges)

    @property
    def longest(self) -> timedelta:
        """After so long every counter's window is over."""
        windows = [rule.span for rule in self.narrow]
        return max([limits.FAILURE_WINDOW, timedelta(seconds=COOL_DOWN), *windows])

    @property
    def simulated(self) -> "Policy":
        """What test keys are held to: nothing that is counted by traffic or money."""
        return replace(self, rules=(), guard=None, spending=None)

    def charged(self, rows: Iterable[Verification], now: datetime) -> Sequence[bytes]:
        """The sums that a handover of these verifications looks at."""
        if self.spending is None:
            return ()
        clients = {row.client_id for row in rows}
        return [spend_key(self.spending, client, now) for client in clients]


def number_key(rule: Rule, index: bytes) -> bytes:
    """The counter of a rule for a number, by its blind index."""
    return b"limit:" + rule.tag + index


def failures_key(client_id: UUID, index: bytes) -> bytes:
    """The counter of wrong checks for a client and a number."""
    return limits.FAILURES + _whose(client_id, index)


def own_keys(client_id: UUID, index: bytes, purpose: str) -> tuple[bytes, bytes]:
    """Both counters of a client and a number: of wrong checks, and the cool-down left behind."""
    whose = _whose(client_id, index)
    return limits.FAILURES + whose, _COOL + whose + purpose.encode()


def failures_keys(client_id: UUID, indexes: Iterable[bytes]) -> tuple[bytes, ...]:
    """Those of a recipient that is counted under several."""
    return tuple([failures_key(client_id, index) for index in indexes])


def wide_key(rule: Rule, subject: bytes, began: datetime) -> bytes:
    """The sum of a rule for a subject (keyed, so that the key names nobody) in one window."""
    return b"L" + _stamp(began) + rule.tag + subject


def guard_key(scope: str, began: datetime) -> bytes:
    """The sum of a prefix or country in one window."""
    return _guarded(int(began.timestamp())) + scope.encode()


def guard_keys(scopes: tuple[str, str], began: int) -> tuple[bytes, bytes]:
    """Those of both, where the window's beginning is known in seconds since 1970."""
    prefix, country = scopes
    window = _guarded(began)
    return window + prefix.encode(), window + country.encode()


def guard_window(began: datetime) -> tuple[bytes, bytes]:
    """From which key to before which one the guard's sums of a window lie."""
    seconds = int(began.timestamp())
    return _guarded(seconds), _guarded(seconds + 1)


def scope_of(key: bytes) -> str:
    """The scope in a key of the guard."""
    return key[9:].decode()


def spend_key(spending: Spending, client_id: UUID, now: datetime) -> bytes:
    """What a client has spent in the day of `now`."""
    return b"S" + spending.day(now).to_bytes(8, "big") + client_id.bytes


def cool_key(client_id: UUID, index: bytes, purpose: str) -> bytes:
    """The cool-down that a verification left behind when it ended."""
    return _COOL + _whose(client_id, index) + purpose.encode()


def _whose(client_id: UUID, index: bytes) -> bytes:
    return client_id.int.to_bytes(16) + index  # `bytes` is worked out in Python each time


def _guarded(began: int) -> bytes:
    return b"G" + began.to_bytes(8)


def _stamp(began: datetime) -> bytes:
    return int(began.timestamp()).to_bytes(8, "big")
