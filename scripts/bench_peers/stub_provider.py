"""The provider: takes Octopush's send call, answers with a ticket, and DELAY later posts a
DELIVERED receipt to the gateway over its own keep-alive connections; or keeps the receipts until
`release`, which posts them as fast as they are taken. Each number is expected once; times are of
the machine's monotonic clock, as in load.py.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import orjson
import wire

SEND = b"/v1/public/sms-campaign/send"
DELAY = 0.02  # seconds from the answer to the receipt
CONNECTIONS = 64
SHOWN = 3  # refused receipts that are quoted


class Receipts:
    """The pool that posts receipts and remembers when each was acknowledged, and how."""

    def __init__(self, port: int, path: str, progress: Callable[[], None]) -> None:
        self._port = port
        self._path = path
        self._progress = progress
        self._date = time.strftime("%Y-%m-%d %H:%M:%S")
        self._idle: deque[wire.Connection] = deque()  # first in, first out: none rests for long
        self._waiting: deque[tuple[bytes, str]] = deque()
        self._filling: asyncio.Task[None] | None = None
        self._live = 0
        self._closed = False
        self.held = False
        self.posted: dict[str, int] = {}
        self.answered: dict[str, int] = {}
        self.refused: list[str] = []  # numbers whose receipt was answered with anything but 2xx
        self.statuses: Counter[int] = Counter()
        self.samples: list[str] = []

    def fill(self) -> asyncio.Task[None]:
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill())
        return self._filling

    async def _fill(self) -> None:
        while self._live < CONNECTIONS and not self._closed:
            try:
                connection = await wire.connect(self._port, self._acknowledged, self._lost)
            except OSError:  # the gateway is down, as after a kill
                await asyncio.sleep(0.1)
                continue
            self._live += 1
            self._use(connection)

    def post(self, ticket: str, number: str) -> None:
        receipt = {
            "channel": "sms",
            "message_id": ticket,
            "number": number,
            "status": "DELIVERED",
            "delivery_date": self._date,
            "meta_data": {},
        }
        self._waiting.append((wire.post(self._port, self._path, {}, orjson.dumps(receipt)), number))
        if self.held:
            return None
        while self._idle:
            connection = self._idle.popleft()
            if connection.open:
                return self._use(connection)
        return None

    def release(self) -> None:
        """Posts what was kept: one on each connection, the next when it is acknowledged."""
        self.held = False
        for _ in range(len(self._idle)):
            self._use(self._idle.popleft())

    def _use(self, connection: wire.Connection) -> None:
        connection.mark = None
        if self._waiting and not self.held and connection.open:
            data, number = self._waiting.popleft()
            self.posted[number] = time.monotonic_ns()
            connection.request(data, number)
        else:
            self._idle.append(connection)

    def _acknowledged(self, connection: wire.Connection, status: int, body: bytes) -> None:
        self._note(connection.mark, status, body)
        self._use(connection)

    def _note(self, number: str, status: int, body: bytes) -> None:
        self.answered[number] = time.monotonic_ns()
        self.statuses[status] += 1
        if not 200 <= status < 300:
            self.refused.append(number)
            self.samples.append(f"{status}: {body[:300].decode(errors='replace')}")
        self._progress()

    def _lost(self, connection: wire.Connection) -> None:
        self._live -= 1
        if connection.mark is not None:
            self._note(connection.mark, 0, b"connection lost")
        connection.mark = None
        if not self._closed:
            self.fill()

    def close(self) -> None:
        self._closed = True
        for connection in self._idle:
            connection.close()


class Provider:
    def __init__(self) -> None:
        self._tickets = time.monotonic_ns() & 0xFFFF_FFFF_0000
        self._reached = asyncio.Event()
        self._calls_wanted = self._receipts_wanted = 0
        self._receipts: Receipts | None = None
        self._called: dict[str, int] = {}
        self._repeats = 0
        self._strange = 0
        self._calls = 0
        self._last = 0
        self._may_repeat = False

    def received(self, connection: wire.Served, path: bytes, body: bytes) -> None:
        if path != SEND:
            self._strange += 1
            connection.answer(b"404 Not Found", b'{"code":404,"message":"no such call"}')
            return
        number = orjson.loads(body)["recipients"][0]["phone_number"]
        self._tickets += 1
        ticket = f"sms_{self._tickets:013x}"
        connection.answer(
            b"201 Created",
            b'{"sms_ticket":"%b","number_of_contacts":1,"total_cost":0.0333,'
            b'"number_of_sms_needed":1,"residual_credit":99.5}' % ticket.encode(),
        )
        self._calls += 1
        self._last = time.monotonic_ns()
        self._repeats += number in self._called and not self._may_repeat
        self._called.setdefault(number, time.monotonic_ns())
        if self._receipts:
            asyncio.get_running_loop().call_later(DELAY, self._receipts.post, ticket, number)
        self._progress()

    def _progress(self) -> None:
        called = self._calls if self._may_repeat else len(self._called)
        if called >= self._calls_wanted and (
            not self._receipts or len(self._receipts.answered) >= self._receipts_wanted
        ):
            self._reached.set()

    async def expect(self, command: dict[str, Any]) -> dict[str, Any]:
        """Forgets what was; receipts go to `port` and `path` from now on, or nowhere."""
        if self._receipts:
            self._receipts.close()
        self._receipts = None
        self._called, self._repeats, self._strange = {}, 0, 0
        self._calls, self._may_repeat = 0, command.get("repeats", False)
        if command["path"]:
            self._receipts = Receipts(command["port"], command["path"], self._progress)
            self._receipts.held = command.get("hold", False)
            await asyncio.wait_for(self._receipts.fill(), 10)
        return {}

    async def release(self, command: dict[str, Any]) -> dict[str, Any]:
        """Posts the receipts that were kept. All are made by then: DELAY has passed."""
        if self._receipts:
            self._receipts.release()
        return {}

    async def wait(self, command: dict[str, Any]) -> dict[str, Any]:
        """Until so many numbers were called for and so many receipts answered."""
        self._calls_wanted, self._receipts_wanted = command["calls"], command["receipts"]
        self._reached.clear()
        self._progress()
        try:
            await asyncio.wait_for(self._reached.wait(), command["seconds"])
        except TimeoutError:
            return {"reached": False}
        return {"reached": True}

    async def report(self, command: dict[str, Any]) -> dict[str, Any]:
        receipts = self._receipts
        return {
            "called": self._called,
            "repeats": self._repeats,
            "strange": self._strange,
            "last": self._last,
            "posted": receipts.posted if receipts else {},
            "answered": receipts.answered if receipts else {},
            "statuses": {str(k): n for k, n in receipts.statuses.items()} if receipts else {},
            "refused": receipts.refused if receipts else [],
            "samples": receipts.samples[:SHOWN] if receipts else [],
        }


async def start() -> tuple[dict[str, Any], dict[str, wire.Command]]:
    provider = Provider()
    server = await asyncio.get_running_loop().create_server(
        lambda: wire.Served(provider.received), "127.0.0.1", 0
    )
    commands: dict[str, wire.Command] = {
        "expect": provider.expect,
        "wait": provider.wait,
        "release": provider.release,
        "report": provider.report,
    }
    return {"port": server.sockets[0].getsockname()[1]}, commands


if __name__ == "__main__":
    wire.work(start)
