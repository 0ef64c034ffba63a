"""The load: requests over keep-alive connections, prepared before the clock runs. A closed loop;
or, with a rate, an open one: each is due at its moment however slow the answers are, and its time
counts from then, not from when a connection was free.

`prepare` opens the connections and builds the bytes, `go` sends them all and reports the times of
each request on the machine's monotonic clock, which the other processes of the bench read too. It
knows no gateway: path, headers, bodies and the wanted field of the answers come with the command.
"""

import asyncio
import time
from collections import Counter, deque
from typing import Any

import orjson
import wire

SHOWN = 3  # answers other than the expected one that are quoted


class Round:
    def __init__(self, command: dict[str, Any]) -> None:
        self._port: int = command["port"]
        self._requests = [
            wire.post(self._port, command["path"], command["headers"], body.encode())
            for body in command["bodies"]
        ]
        self._size = len(self._requests)
        self._expected = set(command["expected"])
        self._field: str | None = command["field"]
        self._starts = [0] * self._size
        self._ends = [0] * self._size
        self._statuses = [0] * self._size
        self._answers = [b""] * self._size
        self._next = 0
        self._connections: list[wire.Connection] = []
        self._live = 0
        self._over = asyncio.Event()
        self._timed_out = False
        self._open_loop = False
        self._idle: deque[wire.Connection] = deque()
        self._late: deque[int] = deque()  # due, and no connection free

    async def connect(self, count: int) -> None:
        for _ in range(min(count, self._size)):
            self._connections.append(await wire.connect(self._port, self._answered, self._lost))
        self._live = len(self._connections)

    async def go(self, seconds: float, rate: float | None) -> None:
        """`rate`: requests a second, of an open loop."""
        if rate is None:
            for connection in list(self._connections):
                self._request(connection)
        else:
            self._open_loop = True
            self._idle.extend(self._connections)
            self._pace(time.monotonic_ns(), 1e9 / rate)
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            self._timed_out = True  # what is missing shows in the counts that `report` gives
        finally:
            for connection in self._connections:
                connection.close()

    def _pace(self, began: int, every: float) -> None:
        """Requests all that is due by now, and comes back for the next."""
        now = time.monotonic_ns()
        while self._next < self._size and (due := began + round(self._next * every)) <= now:
            self._starts[self._next] = due
            self._late.append(self._next)
            self._next += 1
        while self._late and self._idle:
            connection = self._idle.popleft()
            connection.request(self._requests[self._late[0]], self._late.popleft())
        if self._next < self._size:
            wait = began + self._next * every - time.monotonic_ns()
            asyncio.get_running_loop().call_later(max(0.0, wait / 1e9), self._pace, began, every)

    def _rest(self, connection: wire.Connection) -> None:
        """A connection of the open loop is free."""
        connection.mark = None
        if self._late and connection.open:
            connection.request(self._requests[self._late[0]], self._late.popleft())
        elif self._next == self._size:
            connection.close()
            while self._idle:
                self._idle.popleft().close()
        else:
            self._idle.append(connection)

    def report(self) -> dict[str, Any]:
        return {
            "timed_out": self._timed_out,
            "statuses": {str(key): count for key, count in Counter(self._statuses).items()},
            "unexpected": sum(status not in self._expected for status in self._statuses),
            "samples": self._samples(),
            "starts": self._starts,
            "ends": self._ends,
            "fields": [self._read(index) for index in range(self._size)] if self._field else [],
        }

    def _request(self, connection: wire.Connection) -> None:
        index = self._next
        if index == self._size or not connection.open:
            connection.mark = None
            connection.close()
            return
        self._next += 1
        self._starts[index] = time.monotonic_ns()
        connection.request(self._requests[index], index)

    def _answered(self, connection: wire.Connection, status: int, body: bytes) -> None:
        index = connection.mark
        self._ends[index] = time.monotonic_ns()
        self._statuses[index] = status
        self._answers[index] = body
        if self._open_loop:
            self._rest(connection)
        else:
            self._request(connection)

    def _lost(self, connection: wire.Connection) -> None:
        self._live -= 1
        if not self._live:
            self._over.set()

    def _samples(self) -> list[str]:
        odd = (
            f"{status}: {self._answers[index][:300].decode(errors='replace')}"
            for index, status in enumerate(self._statuses)
            if status not in self._expected
        )
        return [sample for sample, _ in zip(odd, range(SHOWN), strict=False)]

    def _read(self, index: int) -> Any:
        if self._statuses[index] not in self._expected:
            return None
        return orjson.loads(self._answers[index]).get(self._field)


class Load:
    def __init__(self) -> None:
        self._round: Round

    async def prepare(self, command: dict[str, Any]) -> dict[str, Any]:
        self._round = Round(command)
        await self._round.connect(command["connections"])
        return {}

    async def go(self, command: dict[str, Any]) -> dict[str, Any]:
        await self._round.go(command["seconds"], command.get("rate"))
        return self._round.report()


async def start() -> tuple[dict[str, Any], dict[str, wire.Command]]:
    load = Load()
    return {}, {"prepare": load.prepare, "go": load.go}


if __name__ == "__main__":
    wire.work(start)
