"""The time of day, read where the dependencies are put together: everything else is handed it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from gateway.services.dispatch import Log

HELD = timedelta(seconds=5)  # steps back below this are waited out


def now() -> datetime:
    """Now, to the millisecond: what is stored is what was meant."""
    return datetime.fromtimestamp(time.time_ns() // 1_000_000 / 1000, UTC)


class Steady:
    """A clock that does not go back by less than HELD: it stands until the other has caught up.
    One that goes back further had been wrong before, and is followed."""

    def __init__(self, source: Callable[[], datetime], log: Log) -> None:
        self._source = source
        self._log = log
        self._last: datetime | None = None

    def now(self) -> datetime:
        """Now."""
        now = self._source()
        if self._last is not None and now < self._last:
            step = self._last - now
            if step < HELD:
                return self._last
            self._log.warning("clock_set_back", seconds=step.total_seconds())
        self._last = now
        return now
