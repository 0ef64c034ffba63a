"""The load: a closed loop of requests over keep-alive connections, prepared before the clock runs.

`prepare` opens the connections and builds the bytes, `go` sends them all and reports the times of
each request on the machine's monotonic clock, which the other processes of the bench read too. It
knows no gateway: path, headers, bodies and the wanted field of the answers come with the command.
"""

import asyncio
import time
from collections import Counter
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

    async def connect(self, count: int) -> None:
        for _ in range(min(count, self._size)):
            self._connections.append(await wire.connect(self._port, self._answered, self._lost))
        self._live = len(self._connections)

    async def go(self, seconds: float) -> None:
        for connection in list(self._connections):
            self._request(connection)
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            self._timed_out = True  # what is missing shows in the counts that `report` gives
        finally:
            for connection in self._connections:
                connection.close()

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
        await self._round.go(command["seconds"])
        return self._round.report()


async def start() -> tuple[dict[str, Any], dict[str, wire.Command]]:
    load = Load()
    return {}, {"prepare": load.prepare, "go": load.go}


if __name__ == "__main__":
    wire.work(start)
