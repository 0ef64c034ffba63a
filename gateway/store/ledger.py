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
from operator import attrgetter
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


@dataclass(slots=True)
class _Entry:
    """An operation on its way, and who waits for it."""

    operation: Operation[Any]
    doing: Doing
    done: "asyncio.Future[Any]"
    result: Any = None
    failure: Exception | None = None


_ORDER = attrgetter("doing.order")  # of an entry


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
        self._admit(doing, 1)
        result: R = await self._enter(operation, doing)
        return result

    async def submit_all(self, operations: Sequence[Operation[R]]) -> list[R | BaseException]:
        """The result of each, or what it was refused with, in the same order. They are of one
        kind, and all of them are taken or, with Unavailable, none."""
        if not operations:
            return []
        doing = self._doings[type(operations[0])]
        self._admit(doing, len(operations))
        entered = [self._enter(operation, doing) for operation in operations]
        return await asyncio.gather(*entered, return_exceptions=True)

    def _admit(self, doing: Doing, count: int) -> None:
        """Raise Unavailable when there is no room for so many."""
        if self._closing:
            raise Unavailable(
                "closing", "This process is shutting down. Send it again.", retry_after=1
            )
        share = doing.share
        if share <= 1 and len(self._queue) + count - 1 >= self._capacity * share:
            raise Unavailable("overloaded", "Too much is waiting. Send it again.", retry_after=1)

    def _enter(self, operation: Operation[R], doing: Doing) -> "asyncio.Future[R]":
        entry = _Entry(operation, doing, asyncio.get_running_loop().create_future())
        if not self._queue:
            self._filled.set()
        self._queue.append(entry)
        return entry.done

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                size = min(len(self._queue), BATCH)
                batch = [self._queue.popleft() for _ in range(size)]
                batch.sort(key=_ORDER)
                await self._finish(batch)
            if self._closing:
                return

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
                after = await _ours(self._attempt(batch))
            except Refused as error:
                await self._forget()
                _refuse(batch, error)
                return
            except Exception as error:  # noqa: BLE001  no defect in one operation stops the ledger
                await self._forget()
                self.tally.reruns += 1
                failure = error
            else:
                self._resolve(batch, after)
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

    async def _attempt(self, batch: list[_Entry]) -> Sequence[object]:
        """One transaction: load, decide, write, commit."""
        await self._engine.begin()
        now = self._clock()  # taken once for all of it
        tx = Transaction(self._slots(), dict(self._plans), self._recent, self._node)
        wanted = [entry.doing.wants(entry.operation) for entry in batch]
        await tx.load(self._engine, wanted, now, self._charged)
        for entry in batch:
            entry.result = entry.failure = None
            try:
                entry.result = entry.doing.apply(tx, entry.operation, now)
            except Conflict:
                raise  # the batch is decided again
            except Exception as error:  # noqa: BLE001  its own sender gets it, nobody else
                entry.failure = error
        await tx.write(self._engine)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._engine.commit()
        self.tally.committed(len(batch), loop.time() - began)
        self._plans = tx.plans
        tx.remember()
        return tx.after

    def _resolve(self, batch: Sequence[_Entry], after: Sequence[object]) -> None:
        for entry in batch:
            _answer(entry, entry.failure)
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
    for entry in batch:
        problem = Unavailable("storage", "Nothing was stored. Send it again.", retry_after=1)
        problem.__cause__ = failure
        _answer(entry, problem)


def _answer(entry: _Entry, failure: Exception | None) -> None:
    if entry.done.done():  # its sender went away; what it asked for is done all the same
        return
    if failure is not None:
        entry.done.set_exception(failure)
    else:
        entry.done.set_result(entry.result)
