"""What this process refused in the last hour, for the console: problems by code, limits by rule.

Kept in memory and by the minute: a page wants to know what is going on now, `/metrics` knows the
rest. Bounded by the names there are, which are our own.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from gateway.services.left import Left
from gateway.services.metering import Held

KEPT = timedelta(hours=1)
SHORT = timedelta(minutes=15)


class Row(NamedTuple):
    """How often something happened in the last 15 minutes and the last hour, and when last."""

    names: tuple[str, ...]
    short: int
    long: int
    last: datetime


@dataclass(slots=True)
class Lately:
    """The counts. `problems` are named by call and code, `limits` by rule and verdict."""

    now: Callable[[], datetime]
    _kept: dict[tuple[str, ...], deque[tuple[datetime, int]]] = field(default_factory=dict)
    _last: dict[tuple[str, ...], datetime] = field(default_factory=dict)

    def refused(self, call: str, code: str) -> None:
        """A request was answered with a problem."""
        self._count(("problem", call, code))

    def follow(self, left: Left) -> None:
        """What a committed batch left behind."""
        for rule, verdict in left.get(Held, ()):
            self._count(("limit", rule, verdict))

    @property
    def problems(self) -> list[Row]:
        """By call and code, the most frequent first."""
        return self._rows("problem")

    @property
    def limits(self) -> list[Row]:
        """By rule and verdict, the most frequent first."""
        return self._rows("limit")

    def _count(self, key: tuple[str, ...]) -> None:
        now = self.now()
        minute = now.replace(second=0, microsecond=0)
        kept = self._kept.setdefault(key, deque())
        if kept and kept[-1][0] == minute:
            kept[-1] = minute, kept[-1][1] + 1
        else:
            kept.append((minute, 1))
            while now - kept[0][0] >= KEPT:
                kept.popleft()
        self._last[key] = now

    def _rows(self, kind: str) -> list[Row]:
        now = self.now()
        rows = []
        for key, kept in self._kept.items():
            if key[0] != kind:
                continue
            long = sum(count for at, count in kept if now - at < KEPT)
            short = sum(count for at, count in kept if now - at < SHORT)
            if long:
                rows.append(Row(key[1:], short, long, self._last[key]))
        return sorted(rows, key=lambda row: (-row.long, row.names))
