"""How the routes are doing, and which of them may carry the next message. Pure rules.

Each route is READY, PAUSED by its breaker, or DISABLED by an operator, whose word sticks:

    READY ── refused for account reasons thrice in a row, or most calls refused or unknown,
             or most messages never heard of again ──▶ PAUSED
    PAUSED ── `probe_at` has come: one message is let through (half open), the next one after
              a pause twice as long ──▶ PAUSED
    PAUSED ── what was missing is heard again ──▶ READY
    any ── gateway routes disable ──▶ DISABLED ── gateway routes enable ──▶ READY
    any ── gateway routes pin ──▶ PINNED: carries messages, and no breaker touches it

Nothing that was counted before a route became READY is held against it again. Where every route
of a step is paused the configured order holds: it is the world then, and no route of ours (F30).
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

BUCKET = timedelta(minutes=5)  # what is counted together
WINDOW = 2 * BUCKET  # at most so far back a judgement looks
LEAST = 10  # calls, or messages, below which a share means nothing
MOST_BAD = 0.5  # of all calls: refused or unknown
MOST_SILENT = 0.8  # of all messages of which anything should have been heard
ACCOUNT_RUN = 3  # account refusals in a row: credentials, credit, settings
COOL_DOWN = timedelta(seconds=60)
LONGEST_COOL_DOWN = timedelta(minutes=15)
FORGIVEN = timedelta(hours=1)  # of good conduct, after which a cool-down begins short again
BREAKER = "breaker"  # who pauses and resumes of himself


class Heard(StrEnum):
    """What is counted of a route."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # for now, too fast, or by the account; not for what a number is
    UNKNOWN = "unknown"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"  # by receipt, or refused for good
    SILENT = "silent"  # its patience ended without the receipt it should have had
    VERIFIED = "verified"  # its code was typed
    WITHIN_2 = "within_2"  # a delivery was confirmed so many seconds after the message was made
    WITHIN_5 = "within_5"
    WITHIN_10 = "within_10"
    WITHIN_20 = "within_20"
    WITHIN_30 = "within_30"
    WITHIN_60 = "within_60"
    WITHIN_120 = "within_120"
    WITHIN_300 = "within_300"
    SLOWER = "slower"


STEPS = (2, 5, 10, 20, 30, 60, 120, 300)  # seconds
_LATENCIES = (*(Heard(f"within_{step}") for step in STEPS), Heard.SLOWER)


def latency(seconds: float) -> Heard:
    """How a delivery that took so long is counted."""
    return _LATENCIES[bisect_left(STEPS, seconds)]


def quantile(counts: Sequence[int], share: float) -> int | None:
    """The step in seconds within which that share of the deliveries came; None: beyond the last."""
    wanted, seen = share * sum(counts), 0
    for step, count in zip(STEPS, counts, strict=False):
        seen += count
        if seen >= wanted:
            return step
    return None


class Tally(NamedTuple):
    """How often each was heard."""

    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    delivered: int = 0
    read: int = 0
    failed: int = 0
    silent: int = 0
    verified: int = 0
    within_2: int = 0
    within_5: int = 0
    within_10: int = 0
    within_20: int = 0
    within_30: int = 0
    within_60: int = 0
    within_120: int = 0
    within_300: int = 0
    slower: int = 0

    @property
    def latency(self) -> tuple[int, ...]:
        """The deliveries by their step, those beyond the last one last."""
        return self[-len(_LATENCIES) :]

    def plus(self, other: "Tally") -> "Tally":
        """Both together."""
        return Tally(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def tally(heard: Mapping[Heard, int]) -> Tally:
    """Counts by what was heard, as a tally."""
    return Tally(**{one.value: count for one, count in heard.items()})


class Standing(StrEnum):
    """Whether a route carries messages."""

    READY = "ready"
    PAUSED = "paused"
    DISABLED = "disabled"
    PINNED = "pinned"  # carries them, whatever its breaker thinks


class Reason(StrEnum):
    """Why a breaker pauses a route."""

    ACCOUNT = "account"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class RouteState:
    """How a route stands, `since` when, `reason` and `actor`: a `Reason` and BREAKER, or an
    operator's words and name. `probe_at`: when the next message is let through. `opened`: how often
    it was paused or probed without having been well for long.
    """

    route: str
    standing: Standing
    since: datetime
    reason: str
    actor: str
    probe_at: datetime | None = None
    opened: int = 0


@dataclass(frozen=True, slots=True)
class Shut:
    """Routes that are not to be used now: `paused` ones unless all others are, `disabled` ones
    never."""

    paused: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.paused or self.disabled)


OPEN = Shut()


def bucket(now: datetime) -> datetime:
    """The beginning of the five minutes that `now` is counted in."""
    seconds = int(BUCKET.total_seconds())
    return datetime.fromtimestamp(int(now.timestamp()) // seconds * seconds, UTC)


def judge(tally: Tally) -> Reason | None:
    """Why a route with this behind it should be paused; None when it is fine."""
    bad = tally.refused + tally.unknown
    calls = tally.accepted + bad
    if bad >= LEAST and bad >= MOST_BAD * calls:
        return Reason.REFUSED if tally.refused >= tally.unknown else Reason.UNKNOWN
    told = tally.delivered + tally.failed + tally.verified
    if tally.silent >= LEAST and tally.silent >= MOST_SILENT * (tally.silent + told):
        return Reason.SILENCE
    return None


def pause(route: str, known: RouteState | None, reason: Reason, now: datetime) -> RouteState | None:
    """The route paused; None where it is so already, or an operator has disabled or pinned it."""
    if known is not None and known.standing is not Standing.READY:
        return None
    lately = known is not None and now - known.since < FORGIVEN
    opened = known.opened + 1 if known is not None and lately else 1
    at = now + cool_down(opened)
    return RouteState(route, Standing.PAUSED, now, reason, BREAKER, at, opened)


def cool_down(opened: int) -> timedelta:
    """How long nothing is let through: twice as long each time, within bounds."""
    return min(COOL_DOWN * (1 << min(opened - 1, 10)), LONGEST_COOL_DOWN)


def due(state: RouteState, now: datetime) -> bool:
    """Whether one message may be let through."""
    paused = state.standing is Standing.PAUSED
    return paused and state.probe_at is not None and state.probe_at <= now


def probed(state: RouteState, now: datetime) -> RouteState:
    """One message is let through; the next one after a longer pause."""
    opened = state.opened + 1
    return RouteState(
        state.route,
        state.standing,
        state.since,
        state.reason,
        state.actor,
        now + cool_down(opened),
        opened,
    )


_PROVES = {
    Reason.SILENCE: frozenset({Heard.DELIVERED, Heard.READ, Heard.FAILED, Heard.VERIFIED}),
}
_TAKEN = frozenset({Heard.ACCEPTED})


def resumed(state: RouteState, heard: Heard, now: datetime) -> RouteState | None:
    """The route READY again, if this proves it: a call that was taken; after silence any receipt.
    None when it proves nothing, or an operator has disabled it."""
    if state.standing is not Standing.PAUSED:
        return None
    if heard not in _PROVES.get(Reason(state.reason), _TAKEN):
        return None
    return RouteState(state.route, Standing.READY, now, state.reason, BREAKER, None, state.opened)


def disabled(route: str, reason: str, actor: str, now: datetime) -> RouteState:
    """By an operator, until he enables it."""
    return RouteState(route, Standing.DISABLED, now, reason, actor)


def pinned(route: str, reason: str, actor: str, now: datetime) -> RouteState:
    """By an operator: used, and not paused by its breaker, until he enables or disables it."""
    return RouteState(route, Standing.PINNED, now, reason, actor)


def enabled(route: str, reason: str, actor: str, now: datetime) -> RouteState:
    """By an operator: nothing from before is held against it."""
    return RouteState(route, Standing.READY, now, reason, actor)


def shut(states: Iterable[RouteState], now: datetime) -> Shut:
    """The routes that are not to be used now; OPEN where there are none."""
    known = list(states)
    found = Shut(
        frozenset(
            one.route for one in known if one.standing is Standing.PAUSED and not due(one, now)
        ),
        frozenset(one.route for one in known if one.standing is Standing.DISABLED),
    )
    return found or OPEN


def silent(states: Iterable[RouteState]) -> frozenset[str]:
    """The routes of which nothing is heard any more."""
    return frozenset(
        one.route
        for one in states
        if one.standing is Standing.PAUSED and one.reason == Reason.SILENCE
    )
