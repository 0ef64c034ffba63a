"""The console's own way to the database: connections and a loop of its own, in a thread.

Searches take milliseconds, counts longer, and the event loop that serves callers must not wait for
either. What is run here is written against the engine like everything else, and awaits it.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from gateway.ports import Server
from gateway.store.engine import Engine, Refused, StoreError, open_engine

T = TypeVar("T")

_AGAIN = 5  # times a write is done anew when somebody else was faster, or the connection was lost

Work = Callable[[Engine], Awaitable[T]]


async def writing(engine: Engine, work: Work[T]) -> T:
    """Do it in one transaction; done anew when a guard held, or the server has surely rolled it
    back. Raises StoreError: then nothing was done, or (Refused) nobody can tell."""
    for left in reversed(range(_AGAIN)):
        await engine.begin()
        try:
            done = await work(engine)
            await engine.commit()
        except StoreError as error:
            await engine.rollback()
            if not left or isinstance(error, Refused):
                raise
        except BaseException:
            await engine.rollback()
            raise
        else:
            return done
    raise AssertionError  # the last turn returns or raises


class Desk:
    """Opened when it is first used: a process nobody looks at pays nothing for it."""

    def __init__(self, database: Path | Server) -> None:
        self._database = database
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._engine: Engine | None = None
        self._turn = asyncio.Lock()  # one transaction at a time on the one writing connection

    async def read(self, work: Work[T]) -> T:
        """What the reads in `work` find. Raises StoreError."""
        return await self._do(self._reading(work))

    async def write(self, work: Work[T]) -> T:
        """What `work` did, committed. Raises Conflict or StoreError: then nothing was."""
        return await self._do(self._writing(work))

    def close(self) -> None:
        """Let go of the database; what is under way is finished first."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = self._engine = None

    async def _do(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="desk", daemon=True)
            self._thread.start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return await asyncio.shield(asyncio.wrap_future(future))  # a write is never cut in two

    async def _reading(self, work: Work[T]) -> T:
        return await work(self._opened())

    async def _writing(self, work: Work[T]) -> T:
        async with self._turn:
            return await writing(self._opened(), work)

    async def _leave(self) -> None:
        async with self._turn:
            if self._engine is not None:
                await self._engine.close()

    def _opened(self) -> Engine:
        if self._engine is None:
            self._engine = open_engine(self._database)
        return self._engine
