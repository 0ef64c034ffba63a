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
    """One loop a process. `last_pass` tells readiness when it last came through. `due`: whether it
    does what is due, or only keeps up with what other processes write."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        notifier: Notifier | None = None,
        forget: Callable[[datetime], Awaitable[object]] | None = None,
        poll: Callable[[], Awaitable[object]] | None = None,
        *,
        due: bool = True,
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._notifier = notifier
        self._forget = forget
        self._poll = poll
        self._passing = Passing()
        self._place = retention.Place()
        self._due = due
        self._swept = self._purged = self._polled = self._noted = 0.0  # when, on the loop's clock
        self._purge_in = PURGE_ON  # seconds from the last look, or from the start
        self._trouble: tuple[str, str] | None = None  # what the last pass failed of
        self._troubled, self._failures = 0.0, 0  # since when, and how many passes
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
        self._swept = self._purged = self._polled = self._noted = loop.time()
        while not self._stop.is_set():
            try:
                await self._keep_up(loop.time())
                if self._due:
                    await self._do_due(loop.time())
            except Exception as error:  # noqa: BLE001  what stops the passing stops every fallback
                self._failed(error, loop.time())
            else:
                self.last_pass = self._runtime.now()
                if self._trouble is not None:
                    self._recovered(loop.time())
            await self._pause(TICK * random.uniform(0.8, 1.2))  # noqa: S311  jitter, not secrecy

    def _failed(self, error: Exception, at: float) -> None:
        """Told once, and again when it is another trouble."""
        trouble = type(error).__name__, str(error)
        if self._trouble is None:
            self._troubled, self._failures = at, 0
        self._failures += 1
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.error("pass_failed", problem=trouble[0], detail=trouble[1])

    def _recovered(self, at: float) -> None:
        seconds = round(at - self._troubled, 1)
        self._log.warning("passes_resumed", seconds=seconds, failed=self._failures)
        self._trouble = None

    async def _do_due(self, at: float) -> None:
        """What is due in the database, whoever accepted it."""
        runtime = self._runtime
        await reconcile.run_once(runtime, self._passing, runtime.now())
        if self._notifier is not None:
            await self._notifier.run_once(runtime.now())
        await health.run_once(runtime, self._looking, runtime.now())
        if at - self._swept >= SWEEP_EVERY:
            self._swept = at
            await reconcile.sweep(runtime, runtime.now())
            await idempotency.sweep(runtime, runtime.now())
            await limiting.sweep(runtime, runtime.now())
            await self._watch.tell(runtime, self._log, runtime.now())
            if self._forget is not None:
                await self._forget(runtime.now())
        if at - self._purged >= self._purge_in:
            self._purged = at
            await self._purge()

    async def _keep_up(self, at: float) -> None:
        """What every process does: learn what others wrote, write what it has noted itself."""
        if self._poll is not None and at - self._polled >= POLL_EVERY:
            self._polled = at
            await self._poll()
        if not self._due:
            await health.learn(self._runtime, self._looking, self._runtime.now())
            if self._notifier is not None:
                await self._notifier.look(self._runtime.now())
        if at - self._noted >= SWEEP_EVERY:
            self._noted = at
            await keys.write_uses(self._runtime)

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
