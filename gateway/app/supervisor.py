"""Several processes on one port: each has a socket of its own (SO_REUSEPORT) and is a whole
`gateway serve`; the kernel deals out the connections. This one starts and stops them, and renews
them one after the other when it is told to (SIGHUP).
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from gateway.config import environment
from gateway.metrics import clear, folder_of, forget

PAUSE = 1.0  # seconds until one that ended is started anew; doubled by each start in vain
LONGEST_PAUSE = 60.0
TRIES = 3  # starts in a row that came to nothing, after which it is given up where none serves
LOOK = 0.1  # seconds between two looks at whether all are up

Command = Callable[[int], Sequence[str]]  # what is run, which writes to that file when it serves


class _Crew:
    """The processes, and whether they are to go on."""

    def __init__(self, command: Command, workers: int, measured: Path | None) -> None:
        self._command = command
        self._workers = workers
        self._measured = measured  # where the processes leave their metrics, one for all
        self._log = structlog.get_logger()
        self._running: set[asyncio.subprocess.Process] = set()
        self._up: set[asyncio.subprocess.Process] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._given_up = False
        self._failed = 0  # starts in a row that came to nothing
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask each for a clean stop."""
        self._stopping.set()
        for process in self._running:
            _ask(process)

    def renew(self) -> None:
        """Begin to replace each by a new one; asked again meanwhile, nothing more happens."""
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        """The next one is stopped when the last one's successor serves, and not where that fails:
        the others go on with what they have."""
        fine = await self._all_up()
        self._log.info("workers_renewing", workers=self._workers)
        for process in tuple(self._up) if fine else ():
            _ask(process)
            await process.wait()
            self._up.discard(process)
            if not (fine := await self._all_up()):
                break
        if fine:
            self._log.info("workers_renewed")
        else:
            self._log.error("workers_not_renewed")

    async def _all_up(self) -> bool:
        """As soon as all serve. False: one does not come up, or all are to stop."""
        while len(self._up) < self._workers:
            if self._failed or self._stopping.is_set():
                return False
            await self._passes(LOOK)
        return True

    async def run(self) -> bool:
        """Until it is stopped. False: they do not come up."""
        await asyncio.gather(*(self._keep() for _ in range(self._workers)))
        return not self._given_up

    async def _keep(self) -> None:
        """One process, started anew whenever it ends."""
        while not self._stopping.is_set():
            await self._one()
            if self._failed >= TRIES and not self._up:
                self._given_up = True
                self.stop()
            await self._passes(min(PAUSE * 2**self._failed, LONGEST_PAUSE))

    async def _one(self) -> None:
        """From its start to its end."""
        told, tell = os.pipe()
        try:
            process = await self._start(tell)
            came_up = await _heard(told)
        finally:
            os.close(told)
        if came_up:
            self._failed = 0
            self._up.add(process)
        code = await process.wait()
        self._running.discard(process)
        self._up.discard(process)
        if self._measured is not None:
            forget(self._measured, process.pid)
        if not self._stopping.is_set():
            tell_it = self._log.error if code else self._log.info
            tell_it("worker_ended", pid=process.pid, exit_status=code)
            # One that was killed, or asked to stop, says nothing against the next one.
            self._failed += not came_up and code > 0

    async def _start(self, tell: int) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(*self._command(tell), pass_fds=[tell])
        finally:
            os.close(tell)  # its own is the last: the pipe ends with it
        self._running.add(process)
        if self._stopping.is_set():  # asked while it was being started
            _ask(process)
        return process

    async def _passes(self, seconds: float) -> None:
        """So much time, or the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def _ask(process: asyncio.subprocess.Process) -> None:
    """For a clean stop."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        process.send_signal(signal.SIGTERM)


async def _heard(told: int) -> bool:
    """Whether anything is written there before the writer ends."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(told, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(told)
    return bool(os.read(told, 1))


async def supervise(command: Command, workers: int) -> bool:
    """Keep so many processes running until SIGTERM or SIGINT, and renew them at SIGHUP. False:
    they do not come up."""
    measured = folder_of(environment())
    if measured is not None:
        clear(measured)
    crew = _Crew(command, workers, measured)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, crew.stop)
    loop.add_signal_handler(signal.SIGHUP, crew.renew)
    return await crew.run()
