"""The pumping guard: are the codes sent to a prefix or country ever typed?

Whoever earns by the messages sent to his own ranges (artificial traffic) can fake everything but
a person who types the code. So two things are looked at, per prefix and per country, over windows
on the clock:

* the *ratio*: of the sends of the last window that has settled (ended at least `settle` seconds
  ago, so that codes had the time to be typed), `percent` must have been verified. Fewer than
  `sends` tell nothing.
* the *budget*: in the window under way at most so many sends may be unverified. It bounds what is
  lost until a ratio is known.

A right code counts for the window its verification was made in, with all the sends it took. What is
refused is not counted as sent: once a window has passed so, the scope is open again, and tells
anew.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import NamedTuple

from gateway.domain import recipient
from gateway.domain.limits import opened

_PREFIX = re.compile(r"\+[1-9][0-9]{1,14}", re.ASCII)


class Mode(StrEnum):
    """What the guard does with its verdict."""

    OFF = "off"
    SHADOW = "shadow"  # counts and tells
    ENFORCE = "enforce"


@dataclass(frozen=True, slots=True)
class Guard:
    """How it judges; `window` and `settle` in seconds, `digits` of a number are its prefix."""

    mode: Mode = Mode.SHADOW
    digits: int = 7
    window: int = 600
    settle: int = 120
    sends: int = 30
    percent: int = 20
    budget: int = 100
    country_budget: int = 2000

    def budget_of(self, scope: str) -> int:
        """The unverified sends allowed: of a prefix (`+3361234`) or a country (`FR`)."""
        return self.budget if scope.startswith("+") else self.country_budget


class Seen(NamedTuple):
    """What a window saw."""

    sent: int = 0
    verified: int = 0

    @property
    def unverified(self) -> int:
        """A code may be asked for before a window's end and once more after it, and counts for the
        first: never below 0."""
        return max(0, self.sent - self.verified)


class Verdict(NamedTuple):
    """Why a scope would be refused: `ratio` or `budget`, what was seen, and what is demanded."""

    why: str
    seen: int
    limit: int

    @property
    def sentence(self) -> str:
        """For the operator."""
        if self.why == "ratio":
            return f"{self.seen} % of a window's sends were verified, {self.limit} % are expected"
        sends = "send of this window is" if self.seen == 1 else "sends of this window are"
        return f"{self.seen} {sends} unverified, {self.limit} are allowed"


def judge(guard: Guard, scope: str, settled: Seen, current: Seen) -> Verdict | None:
    """What one more send to the scope would meet; None: nothing against it."""
    if settled.sent >= guard.sends and settled.verified * 100 < guard.percent * settled.sent:
        return Verdict("ratio", settled.verified * 100 // settled.sent, guard.percent)
    budget = guard.budget_of(scope)
    if current.unverified >= budget:
        return Verdict("budget", current.unverified, budget)
    return None


def scopes(guard: Guard, number: str, country: str) -> tuple[str, str]:
    """Where a number belongs: its prefix, its country."""
    return number[: 1 + guard.digits], country


def covers(passed: str, number: str, country: str) -> bool:
    """Whether what an operator lets through (a prefix of any length, a country) covers a number."""
    return passed == country or (passed.startswith("+") and number.startswith(passed))


def names_scope(text: str) -> bool:
    """Whether that is a prefix (+ and 2 to 15 digits) or a country."""
    return _PREFIX.fullmatch(text) is not None or text in recipient.COUNTRIES


def until(text: str) -> datetime | None:
    """A date (that day included) or a time, in UTC where it does not say; None when it is
    neither."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if len(text) <= len("2026-12-31"):
        moment = datetime.combine(moment.date(), time(23, 59, 59), UTC)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def under_way(guard: Guard, now: datetime) -> datetime:
    """When the window began that holds `now`."""
    return opened(guard.window, now)


def settled(guard: Guard, now: datetime) -> datetime:
    """When the last window began that ended at least `settle` seconds ago."""
    span = timedelta(seconds=guard.window)
    return opened(guard.window, now - timedelta(seconds=guard.settle)) - span


def kept_until(guard: Guard, began: datetime) -> datetime:
    """How long the counts of a window are of use: until nothing is judged by it any more, and a
    while longer, to be looked at."""
    return began + timedelta(seconds=4 * guard.window + guard.settle)
