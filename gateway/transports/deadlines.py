"""Time limits of many calls under one timer.

`asyncio.timeout` makes a timer for each call and takes it away again, though nearly all calls end
in time. Here a call is noted down, and one timer waits for the earliest of all limits.
"""

import asyncio

# The time that one call has: whom to cancel, when by the loop's clock, and how often somebody else
# has asked that of it before. (A tuple, for one is made for each call.)
Limit = tuple[asyncio.Task[object], float, int]


class Deadlines:
    """The limits of the calls under way, all in one event loop."""

    def __init__(self) -> None:
        self._limits: set[Limit] = set()
        self._passed: set[Limit] = set()  # those that cancelled their calls, which have not ended
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0  # when the timer strikes, by the loop's clock

    def start(self, within: float) -> Limit:
        """Cancels the current task in `within` seconds, unless `end` comes first. A task has one
        limit at a time.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a call is made by a task")
        when = loop.time() + within
        limit = (task, when, task.cancelling())
        self._limits.add(limit)
        if self._timer is None or when < self._next:
            self._arm(loop, when)
        return limit

    def end(self, limit: Limit) -> bool:
        """To be called however the call ended. The first time: whether the limit ended it."""
        self._limits.discard(limit)
        return limit in self._passed and self._take_back(limit)

    def _pass(self, limit: Limit) -> None:
        """The time is over: the call is cancelled where it waits."""
        self._limits.discard(limit)
        self._passed.add(limit)
        limit[0].cancel()

    def _take_back(self, limit: Limit) -> bool:
        """Takes that cancellation back. Whether it was the only one: nobody else ends the task."""
        self._passed.discard(limit)
        task, _, cancelling = limit
        return task.uncancel() <= cancelling

    def _arm(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = when
        self._timer = loop.call_at(when, self._strike, loop)

    def _strike(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends the calls whose time is over, and waits for the next."""
        self._timer = None
        now = loop.time()
        for limit in [limit for limit in self._limits if limit[1] <= now]:
            self._pass(limit)
        if self._limits:
            self._arm(loop, min(when for _, when, _ in self._limits))
