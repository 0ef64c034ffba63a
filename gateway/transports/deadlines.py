"""Time limits of many calls under one timer.

`asyncio.timeout` makes a timer for each call and takes it away again, though nearly all calls end
in time. Here a call is noted down, and one timer waits for the earliest of all limits.
"""

import asyncio


class Limit:
    """The time that one call has: made by `Deadlines.start`, ended by `Deadlines.end`."""

    __slots__ = ("_cancelling", "_task", "passed", "when")

    def __init__(self, task: asyncio.Task[object], when: float) -> None:
        self._task = task
        self._cancelling = task.cancelling()
        self.when = when
        self.passed = False

    def strike(self) -> None:
        """The time is over: the call is cancelled where it waits."""
        self.passed = True
        self._task.cancel()

    def take_back(self) -> bool:
        """Takes that cancellation back. Whether it was the only one: nobody else ends the task."""
        self.passed = False
        return self._task.uncancel() <= self._cancelling


class Deadlines:
    """The limits of the calls under way, all in one event loop."""

    def __init__(self) -> None:
        self._limits: set[Limit] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0  # when the timer strikes, by the loop's clock

    def start(self, within: float) -> Limit:
        """Cancels the current task in `within` seconds, unless `end` comes first."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a call is made by a task")
        limit = Limit(task, loop.time() + within)
        self._limits.add(limit)
        if self._timer is None or limit.when < self._next:
            self._arm(loop, limit.when)
        return limit

    def end(self, limit: Limit) -> bool:
        """To be called however the call ended. The first time: whether the limit ended it."""
        self._limits.discard(limit)
        return limit.passed and limit.take_back()

    def _arm(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = when
        self._timer = loop.call_at(when, self._strike, loop)

    def _strike(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends the calls whose time is over, and waits for the next."""
        self._timer = None
        now = loop.time()
        for limit in [limit for limit in self._limits if limit.when <= now]:
            self._limits.discard(limit)
            limit.strike()
        if self._limits:
            self._arm(loop, min(limit.when for limit in self._limits))
