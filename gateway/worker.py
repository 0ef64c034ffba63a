"""The background loop: reconcile and notify often, sweep and purge now and then; ticks with jitter,
clean stop.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

from gateway.services import health, idempotency, keys, limiting, reconcile, retention
from gateway.services.guarding import Watch
from gateway.services.health import Looking
from gateway.services.notify import Notifier
from gateway.services.reconcile import Passing
from gateway.services.runtime import Runtime

TICK = 0.1  # seconds between two passes; an empty one costs microseconds
PURGE_EVERY = 60.0  # seconds between two looks for what is past its time…
PURGE_ON = 0.5  # …and between two chunks of it, while there is more
POLL_EVERY = 2.0  # seconds between two looks at what other processes wrote, for those who wait
SWEEP_EVERY = 30.0  # seconds between two sweeps of parked receipts


class Log(Protocol):
    """The part of structlog that is used."""

    def error(self, event: str, **facts: object) -> object: ...
    def warning(self, event: str, **facts: object) -> object: ...


class Worker:
    """One loop a process. `last_pass` tells readiness when it last came through."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        notifier: Notifier | None = None,
        forget: Callable[[datetime], Awaitable[object]] | None = None,
        poll: Callable[[], object] | None = None,
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._notifier = notifier
        self._forget = forget
        self._poll = poll
        self._passing = Passing()
        self._place = retention.Place()
        self._purge_in = PURGE_ON  # seconds from the last look, or from the start
        self._looking = Looking()
        self._watch = Watch()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last_pass: datetime | None = None

    @property
    def lag(self) -> float:
        """Seconds that the oldest due row had been waiting when the last pass began."""
        return self._passing.lag

    def start(self) -> None:
        """Begin to pass."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="worker")

    async def stop(self) -> None:
        """End after the pass under way."""
        self._stop.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        swept = purged = polled = loop.time()
        while not self._stop.is_set():
            try:
                await reconcile.run_once(self._runtime, self._passing, self._runtime.now())
                if self._notifier is not None:
                    self._notifier.run_once(self._runtime.now())
                if self._poll is not None and loop.time() - polled >= POLL_EVERY:
                    polled = loop.time()
                    self._poll()
                await health.run_once(self._runtime, self._looking, self._runtime.now())
                if loop.time() - swept >= SWEEP_EVERY:
                    swept = loop.time()
                    await reconcile.sweep(self._runtime, self._runtime.now())
                    await idempotency.sweep(self._runtime, self._runtime.now())
                    await keys.write_uses(self._runtime)
                    await limiting.sweep(self._runtime, self._runtime.now())
                    self._watch.tell(self._runtime, self._log, self._runtime.now())
                    if self._forget is not None:
                        await self._forget(self._runtime.now())
                if loop.time() - purged >= self._purge_in:
                    purged = loop.time()
                    await self._purge()
            except Exception as error:  # noqa: BLE001  what stops the passing stops every fallback
                self._log.error("pass_failed", problem=type(error).__name__, detail=str(error))
            else:
                self.last_pass = self._runtime.now()
            await self._pause(TICK * random.uniform(0.8, 1.2))  # noqa: S311  jitter, not secrecy

    async def _purge(self) -> None:
        """A chunk of what is past its time; soon another, while there is more."""
        runtime = self._runtime
        done = await retention.in_passing(
            runtime.reads, runtime.ledger, runtime.retention, self._place, runtime.now()
        )
        self._purge_in = PURGE_ON if done.more else PURGE_EVERY

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
