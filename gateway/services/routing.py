"""What was heard of each route in each country, over three spans of time, for people.

Read on the desk, by the time-ordered key of `route_stat`; its size goes with routes, countries and
days, not with messages. A longer span changes more slowly, and is read again more seldom.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from gateway.domain import health
from gateway.domain.health import Tally
from gateway.store.desk import Desk
from gateway.store.engine import Engine
from gateway.store.reads import Reads

NOTHING = Tally()


class Span(NamedTuple):
    """How far back, how wide its chart's bars are, and how long a reading serves."""

    title: str
    back: timedelta
    bar: timedelta
    fresh: timedelta


SPANS = (
    Span("15 minutes", timedelta(minutes=15), health.BUCKET, timedelta(seconds=4)),
    Span("24 hours", timedelta(hours=24), timedelta(minutes=30), timedelta(minutes=1)),
    Span("7 days", timedelta(days=7), timedelta(hours=4), timedelta(minutes=10)),
)


@dataclass(frozen=True, slots=True)
class Heard:
    """One span as of `at`: counts by route and country, and by route and moment (each of five
    minutes, oldest first)."""

    span: Span
    at: datetime
    places: dict[tuple[str, str], Tally]
    moments: dict[str, list[tuple[datetime, Tally]]]

    def whole(self, route: str) -> Tally:
        """Of a route over all countries."""
        return total([tally for (name, _), tally in self.places.items() if name == route])

    def bars(self, route: str) -> list[tuple[datetime, Tally]]:
        """Of a route by the chart's bars, oldest first, empty ones too."""
        first = _floor(self.at - self.span.back, self.span.bar)
        count = (self.at - first) // self.span.bar + 1
        made = [(first + at * self.span.bar, NOTHING) for at in range(count)]
        for at, tally in self.moments.get(route, ()):
            place = (at - first) // self.span.bar
            if 0 <= place < count:
                made[place] = made[place][0], made[place][1].plus(tally)
        return made


@dataclass(slots=True)
class RouteCounts:
    """The readings of this process, shared by all who look."""

    desk: Desk
    now: Callable[[], datetime]
    _kept: dict[str, Heard] = field(default_factory=dict)

    async def look(self) -> list[Heard]:
        """Every span, the shortest first."""
        now = self.now()
        for span in SPANS:
            known = self._kept.get(span.title)
            if known is None or now - known.at >= span.fresh:
                self._kept[span.title] = await self.desk.read(_reading(span, now))
        return [self._kept[span.title] for span in SPANS]


def total(tallies: Sequence[Tally]) -> Tally:
    """All of them together."""
    found = NOTHING
    for one in tallies:
        found = found.plus(one)
    return found


def _reading(span: Span, now: datetime) -> Callable[[Engine], Awaitable[Heard]]:
    since = health.bucket(now - span.back)

    async def read(engine: Engine) -> Heard:
        reads = Reads(engine)
        moments: dict[str, list[tuple[datetime, Tally]]] = {}
        for route, at, tally in sorted(await reads.route_sums(since)):
            moments.setdefault(route, []).append((at, tally))
        placed = await reads.route_places(since)
        places = {(route, country): tally for route, country, tally in placed}
        return Heard(span, now, places, moments)

    return read


def _floor(moment: datetime, width: timedelta) -> datetime:
    """The beginning of the bar that a moment is in."""
    seconds = int(width.total_seconds())
    return datetime.fromtimestamp(int(moment.timestamp()) // seconds * seconds, moment.tzinfo)
