"""Who waits for a verification to change: held answers and streams.

A waiter sleeps until the ledger commits something about its verification: one look in a dict for
each change, nothing for all others. A commit that was under way when a waiter came may have missed
it, so the next one wakes it once in any case. What other processes commit is hinted at (`hints`),
and seen in any case by one query over all that is waited for, now and then.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from gateway.domain.errors import Unavailable
from gateway.services.left import Left
from gateway.services.publishing import Touched
from gateway.store.reads import Record

MOST = 5000  # waiters of one process


class Versions(Protocol):
    """How often each of these verifications has been written; see `store.outbox`."""

    async def __call__(self, verifications: Sequence[UUID]) -> Mapping[UUID, int]: ...


class Records(Protocol):
    """The part of `store.reads.Reads` that is used."""

    async def record(self, verification_id: UUID, *, log: bool = True) -> Record | None: ...


@dataclass(eq=False, slots=True)
class Waiter:
    """One who waits. `version`: of the verification, as the waiter saw it last."""

    version: int | None = None
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Let it look."""
        self._woken.set()

    async def changed(self, seconds: float) -> bool:
        """Whether something may have changed before the time was out."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True


class Waiting:
    """The waiters of this process."""

    def __init__(self, most: int = MOST) -> None:
        self.watched: dict[UUID, set[Waiter]] = {}
        self.closing = False
        self._fresh: list[Waiter] = []  # came after the last commit
        self._most = most
        self._count = 0

    @property
    def full(self) -> bool:
        """Whether nobody more may wait, here or now."""
        return self.closing or self._count >= self._most

    @contextmanager
    def enter(self, named: UUID) -> Iterator[Waiter]:
        """A waiter for a verification. Raises Unavailable `too_many_waiting`."""
        if self.full:
            problem = "Too many callers wait here. Ask again, without waiting or in a moment."
            raise Unavailable("too_many_waiting", problem, retry_after=5)
        waiter = Waiter()
        self.watched.setdefault(named, set()).add(waiter)
        self._fresh.append(waiter)
        self._count += 1
        try:
            yield waiter
        finally:
            self._count -= 1
            mine = self.watched[named]
            mine.discard(waiter)
            if not mine:
                del self.watched[named]

    def follow(self, left: Left) -> None:
        """Wake those whose verification a commit has changed."""
        if not self.watched:
            self._fresh.clear()
            return
        fresh, self._fresh = self._fresh, []
        for waiter in fresh:
            waiter.wake()
        for item in left.get(Touched, ()):
            self.wake(item.verification_id)

    async def poll(self, versions: Versions, size: int = 500) -> None:
        """Wake those whose verification another process has changed."""
        named = list(self.watched)
        for at in range(0, len(named), size):
            for one, version in (await versions(named[at : at + size])).items():
                if any(w.version not in {None, version} for w in self.watched.get(one, ())):
                    self.wake(one)

    def close(self) -> None:
        """Nobody waits any longer: the process is about to end."""
        self.closing = True
        for named in self.watched:
            self.wake(named)

    async def until(
        self, reads: Records, named: UUID, reached: Callable[[Record], bool], seconds: float
    ) -> Record | None:
        """The verification as soon as it is so, or when the time is out; None where there is none.
        `seconds` are real ones. Raises Unavailable `too_many_waiting`."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        with self.enter(named) as waiter:
            while True:
                record = await reads.record(named, log=False)
                if record is None or self.closing or reached(record):
                    return record
                waiter.version = record.verification.version
                if not await waiter.changed(ends - loop.time()):
                    return record

    def wake(self, named: UUID) -> None:
        """Let those look who wait for a verification."""
        for waiter in self.watched.get(named, ()):
            waiter.wake()
