"""The time of day, read where the dependencies are put together: everything else is handed it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from gateway.services.dispatch import Log

HELD = timedelta(seconds=5)  # steps back below this are waited out


class _Wall:
    """The system's clock. A moment is dear to make, and under load the same millisecond is asked
    for several times: it is made once."""

    def __init__(self) -> None:
        self._read = 0, datetime.fromtimestamp(0, UTC)  # milliseconds, and the moment they mean

    def now(self) -> datetime:
        """Now, to the millisecond: what is stored is what was meant."""
        milliseconds, moment = self._read
        if (current := time.time_ns() // 1_000_000) != milliseconds:
            moment = datetime.fromtimestamp(current / 1000, UTC)
            self._read = current, moment  # in one step: threads may ask, too
        return moment


now = _Wall().now


class Steady:
    """A clock that does not go back by less than HELD: it stands until the other has caught up.
    One that goes back further had been wrong before, and is followed."""

    def __init__(self, source: Callable[[], datetime], log: Log) -> None:
        self._source = source
        self._log = log
        self._last: datetime | None = None

    def now(self) -> datetime:
        """Now."""
        now, last = self._source(), self._last
        if now is last:
            return now
        if last is not None and now < last:
            step = last - now
            if step < HELD:
                return last
            self._log.warning("clock_set_back", seconds=step.total_seconds())
        self._last = now
        return now
