"""What the services tell whoever counts. What a committed batch left behind is counted by itself;
here is only what leaves no other trace.
"""

from typing import NamedTuple, Protocol

from gateway.domain.delivery import State
from gateway.ports import Refused
from gateway.services.left import Left

APPLIED = "applied"  # it moved the state
LATE = "late"  # a new word that moved nothing: something stronger had been said
REPEATED = "repeated"  # a word of this attempt that was heard before
UNKNOWN_WORD = "unknown_word"  # a word that is in no table
LINKED = "linked"  # parked before, and applied now
NO_ATTEMPT = "no_attempt"  # of an attempt purged long ago, or never ours
REFUSED = "refused"  # the callback's key or signature was wrong


class Heard(NamedTuple):
    """What became of one statement about an attempt; left behind by the batch that took it.

    `state`: DELIVERED or READ when it moved the attempt there, `seconds` after the attempt was
    made.
    """

    route: str
    source: str
    verdict: str
    channel: str = ""
    state: State | None = None
    seconds: float = 0.0


class Held(NamedTuple):
    """A send met a rule's limit: `verdict` is `refused`, or `shadow` where the rule only watches.
    Left behind by the batch that decided it."""

    rule: str
    verdict: str


def kind_of(result: object) -> str:
    """A `dispatch.Result` in a word: of a refusal its kind."""
    return result.kind if isinstance(result, Refused) else type(result).__name__.lower()


class Meter(Protocol):
    """Whoever counts. Called after the commit, on the path of every message: nothing here may wait
    or fail."""

    def follow(self, left: Left) -> None:
        """What a committed batch left behind."""
        ...

    def called(self, route: str, result: object, seconds: float) -> None:
        """A submission came to its end (`dispatch.Result`), and its outcome is stored."""
        ...

    def posted(self, outcome: str) -> None:
        """A webhook was tried; see `notify.Tried.outcome`."""
        ...


class _Nobody:
    """Counts nothing."""

    def follow(self, left: Left) -> None:
        """Nothing."""

    def called(self, route: str, result: object, seconds: float) -> None:
        """Nothing."""

    def posted(self, outcome: str) -> None:
        """Nothing."""


UNMETERED: Meter = _Nobody()
