"""Several processes on one port: each has a socket of its own (SO_REUSEPORT) and is a whole
`gateway serve`; the kernel deals out the connections. This one only starts and stops them.
"""

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

import structlog

from gateway.config import environment
from gateway.metrics import clear, folder_of, forget

PAUSE = 1.0  # seconds until one that ended is started anew
SOON = 5.0  # seconds; who ends of itself sooner than that has not come up
TRIES = 3  # such starts in a row, over all, after which something is wrong with all of them


class _Crew:
    """The processes, and whether they are to go on."""

    def __init__(self, command: Sequence[str], measured: Path | None) -> None:
        self._command = command
        self._measured = measured  # where the processes leave their metrics, one for all
        self._log = structlog.get_logger()
        self._running: set[asyncio.subprocess.Process] = set()
        self.stopping = asyncio.Event()
        self.failed = 0  # starts in a row that came to nothing

    def stop(self) -> None:
        """Ask each for a clean stop."""
        self.stopping.set()
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                process.send_signal(signal.SIGTERM)

    async def keep(self) -> None:
        """One process, started anew whenever it ends."""
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            began = loop.time()
            process = await asyncio.create_subprocess_exec(*self._command)
            self._running.add(process)
            if self.stopping.is_set():  # asked while it was being started
                process.send_signal(signal.SIGTERM)
            code = await process.wait()
            self._running.discard(process)
            if self._measured is not None:
                forget(self._measured, process.pid)
            if self.stopping.is_set():
                return
            self._log.error("worker_ended", pid=process.pid, code=code)
            killed = code < 0  # by somebody else, which says nothing against the next one
            if not killed:
                self.failed = self.failed + 1 if loop.time() - began < SOON else 0
            if self.failed >= TRIES:
                self.stop()
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), PAUSE)


async def supervise(command: Sequence[str], workers: int) -> bool:
    """Keep so many processes running until SIGTERM or SIGINT. False: they do not come up."""
    measured = folder_of(environment())
    if measured is not None:
        clear(measured)
    crew = _Crew(command, measured)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, crew.stop)
    await asyncio.gather(*(crew.keep() for _ in range(workers)))
    return crew.failed < TRIES
