"""Group commit: operations in, one transaction a batch, results out.

Every write of the gateway is an operation, a value on one queue. The ledger takes all that wait,
opens one transaction, loads the rows of the whole batch once, lets each operation be decided over
that working copy, writes each changed row once, commits, and only then answers. A batch of one is
the plain case: no timer, no waiting for company.

What an operation means is not known here: `app` gives a table of doings, one a kind.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, Generic, TypeVar

from gateway.domain.errors import Unavailable
from gateway.domain.workflow import Plan
from gateway.store.engine import BATCH, Conflict, Engine, Refused, StoreError
from gateway.store.recent import Recent
from gateway.store.transaction import Charged, Transaction
from gateway.store.wanted import Wants

__all__ = ["Doing", "Ledger", "Operation", "Recent", "Tally", "Transaction", "Wants"]

R = TypeVar("R")


class Operation(Generic[R]):
    """A value asking the ledger for a change; `R` is what its sender gets back."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Doing:
    """How one kind of operation is done.

    `order`: its place in a batch; facts come before deadlines. `share`: how full (0 to 1) the
    queue may be for it to be taken; above 1 it is always taken. `wants` and `apply` are pure but
    for the working copy; an exception from `apply` fails this operation alone, so it raises
    before it puts.
    """

    order: int
    share: float
    wants: Callable[[Any], Wants]
    apply: Callable[["Transaction", Any, datetime], Any]


class _Failed:
    """What an operation was refused with, in place of its result."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


# An operation on its way: its order, what it is, how it is done, who waits for it. A tuple, since
# one is made for each operation.
_Entry = tuple[int, Operation[Any], Doing, "asyncio.Future[Any]"]
_order = itemgetter(0)


@dataclass(slots=True)
class Tally:
    """How much was done since the start."""

    operations: int = 0
    commits: int = 0
    reruns: int = 0

    def committed(self, operations: int, seconds: float) -> None:
        """A batch of so many is durable; its commit took so long."""
        self.operations += operations
        self.commits += 1


class Ledger:
    """The one writer of this process."""

    def __init__(
        self,
        engine: Engine,
        doings: Mapping[type[Operation[Any]], Doing],
        *,
        now: Callable[[], datetime],
        slots: Callable[[], dict[str, int]],
        after: Callable[[Sequence[object]], None],
        capacity: int = 4000,
        tally: Tally | None = None,
        node: str = "",
        charged: Charged | None = None,
    ) -> None:
        self._engine = engine
        self._doings = doings
        self._clock = now
        self._slots = slots
        self._after = after
        self._capacity = capacity
        self._node = node
        self._charged = charged
        self._queue: deque[_Entry] = deque()
        self._filled = asyncio.Event()
        self._plans: dict[bytes, Plan] = {}
        self._recent = Recent()
        self._closing = False
        self._running: asyncio.Task[None] | None = None
        self.ended = asyncio.Event()  # without having been closed: this process is of no use then
        self.tally = tally or Tally()

    def start(self) -> None:
        """Begin to take batches."""
        self._running = asyncio.get_running_loop().create_task(self._run(), name="ledger")
        self._running.add_done_callback(self._left)

    async def close(self) -> None:
        """Commit what waits, then end. Later operations are refused."""
        self._closing = True
        self._filled.set()
        if self._running is not None:
            await asyncio.wait({self._running})

    @property
    def depth(self) -> int:
        """How many operations wait."""
        return len(self._queue)

    async def submit(self, operation: Operation[R]) -> R:
        """The operation's result, once it is on disk.

        Raises Unavailable before anything was stored (queue full, closing, database failure), or
        what the operation itself was refused with.
        """
        doing = self._doings[type(operation)]
        queue = self._queue
        if self._closing or (doing.share <= 1 and len(queue) >= self._capacity * doing.share):
            raise self._turned_away()
        if not queue:
            self._filled.set()
        done = asyncio.get_running_loop().create_future()
        queue.append((doing.order, operation, doing, done))
        result: R = await done
        return result

    async def submit_all(self, operations: Sequence[Operation[R]]) -> list[R | BaseException]:
        """The result of each, or what it was refused with, in the same order. They are of one
        kind, and all of them are taken or, with Unavailable, none."""
        if not operations:
            return []
        doing = self._doings[type(operations[0])]
        queue = self._queue
        last = len(queue) + len(operations) - 1
        if self._closing or (doing.share <= 1 and last >= self._capacity * doing.share):
            raise self._turned_away()
        if not queue:
            self._filled.set()
        create = asyncio.get_running_loop().create_future
        waiting = [create() for _ in operations]
        for operation, done in zip(operations, waiting, strict=True):
            queue.append((doing.order, operation, doing, done))
        results: list[R | BaseException] = await asyncio.gather(*waiting, return_exceptions=True)
        return results

    def _turned_away(self) -> Unavailable:
        """Why there is no room."""
        if self._closing:
            return Unavailable(
                "closing", "This process is shutting down. Send it again.", retry_after=1
            )
        return Unavailable("overloaded", "Too much is waiting. Send it again.", retry_after=1)

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                await self._finish(self._next())
            if self._closing:
                return

    def _next(self) -> list[_Entry]:
        """The next batch, off the queue."""
        queue = self._queue
        if len(queue) <= BATCH:
            batch = list(queue)
            queue.clear()
        else:
            batch = [queue.popleft() for _ in range(BATCH)]
        batch.sort(key=_order)
        return batch

    async def _finish(self, batch: list[_Entry]) -> None:
        """Settle a batch. Whatever happens, each of it is answered, and the ledger goes on."""
        try:
            await _ours(self._settle(batch))
        except Exception as error:  # noqa: BLE001  the engine failed where it should not
            _refuse(batch, error)
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the ledger could not settle a batch", "exception": error}
            )
        except BaseException as error:
            _refuse(batch, error)
            raise

    def _left(self, running: "asyncio.Task[None]") -> None:
        """It has ended. If nobody wanted that, nobody is left waiting, and nobody comes in."""
        if self._closing:
            return
        self._closing = True
        _refuse(self._queue, StoreError("the ledger has ended"))
        self._queue.clear()
        self.ended.set()

    async def _settle(self, batch: list[_Entry]) -> None:
        """Do a batch; when it cannot be done as a whole, again, then in halves.

        Decisions are pure and ids already made, so that doing it again is safe.
        """
        failure: Exception = StoreError("not tried")
        for _ in range(2):
            try:
                results, after = await _ours(self._attempt(batch))
            except Refused as error:
                await self._forget()
                _refuse(batch, error)
                return
            except Exception as error:  # noqa: BLE001  no defect in one operation stops the ledger
                await self._forget()
                self.tally.reruns += 1
                failure = error
            else:
                self._resolve(batch, results, after)
                return
        if len(batch) == 1:
            _refuse(batch, failure)
            return
        middle = len(batch) // 2
        await self._settle(batch[:middle])
        await self._settle(batch[middle:])

    async def _forget(self) -> None:
        """What failed may have rested on what somebody else has changed, or deleted, since."""
        await self._engine.rollback()
        self._recent.clear()
        self._plans.clear()

    async def _attempt(self, batch: list[_Entry]) -> tuple[list[Any], Sequence[object]]:
        """One transaction: load, decide, write, commit. What each operation came to, and what is
        to follow."""
        await self._engine.begin()
        now = self._clock()  # taken once for all of it
        tx = Transaction(self._slots(), dict(self._plans), self._recent, self._node)
        wanted = [doing.wants(operation) for _, operation, doing, _ in batch]
        await tx.load(self._engine, wanted, now, self._charged)
        results: list[Any] = []
        for _, operation, doing, _ in batch:
            try:
                results.append(doing.apply(tx, operation, now))
            except Conflict:
                raise  # the batch is decided again
            except Exception as error:  # noqa: BLE001  its own sender gets it, nobody else
                results.append(_Failed(error))
        await tx.write(self._engine)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._engine.commit()
        self.tally.committed(len(batch), loop.time() - began)
        self._plans = tx.plans
        tx.remember()
        return results, tx.after

    def _resolve(
        self, batch: Sequence[_Entry], results: Sequence[Any], after: Sequence[object]
    ) -> None:
        for (_, _, _, done), result in zip(batch, results, strict=True):
            if done.done():  # its sender went away; what it asked for is done all the same
                continue
            if type(result) is _Failed:
                done.set_exception(result.error)
            else:
                done.set_result(result)
        if after:
            try:
                self._after(after)
            except Exception as error:  # noqa: BLE001  what is stored is stored; the ledger goes on
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "what follows a commit failed", "exception": error}
                )


async def _ours(work: Coroutine[Any, Any, R]) -> R:
    """What `work` answers. A cancellation that is not of this task is an error of whoever was
    awaited: StoreError."""
    try:
        return await work
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise StoreError("what was awaited was cancelled") from None


def _refuse(batch: Iterable[_Entry], failure: BaseException) -> None:
    for _, _, _, done in batch:
        if done.done():
            continue
        problem = Unavailable("storage", "Nothing was stored. Send it again.", retry_after=1)
        problem.__cause__ = failure
        done.set_exception(problem)
