"""What is not an event but a state: looked at now and then, and before every scrape."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

EVERY = 0.5  # seconds between two samples


@dataclass(frozen=True, slots=True)
class Standing:
    """How a process stands. `lag` in seconds; `reruns` and `dropped` since its start."""

    queue: int = 0
    under_way: int = 0
    lag: float = 0.0
    last_pass: datetime | None = None
    reruns: int = 0
    dropped: int = 0


class Gauged(Protocol):
    """The part of a meter that samples are given to."""

    def stands(self, standing: Standing) -> None: ...
    def woken_late(self, seconds: float) -> None: ...
    def flush(self) -> None: ...


class Sampler:
    """A loop that samples, and notices how late it is woken: the event loop's own lag."""

    def __init__(self, meter: Gauged, look: Callable[[], Standing]) -> None:
        self._meter = meter
        self._look = look
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to sample."""
        self._next(asyncio.get_running_loop())

    def stop(self) -> None:
        """Sample once more, for those who read a shared folder, then end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.sample()

    def sample(self) -> None:
        """Look now."""
        self._meter.stands(self._look())
        self._meter.flush()

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(EVERY, self._tick, loop, loop.time() + EVERY)

    def _tick(self, loop: asyncio.AbstractEventLoop, meant: float) -> None:
        self._meter.woken_late(max(0.0, loop.time() - meant))
        try:
            self.sample()
        finally:
            self._next(loop)
