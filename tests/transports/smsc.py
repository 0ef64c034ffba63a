"""An SMSC on 127.0.0.1 that does, octet by octet, what a test tells it, and a clock for its client.

The test plays the centre: it takes each connection as a `Link` and reads and writes PDUs in the
order it likes. The PDUs are packed here by hand, without the code under test.
"""

import asyncio
import contextlib
import heapq
import ssl
import struct
from dataclasses import dataclass
from itertools import count
from typing import Self

SUBMIT, DELIVER, UNBIND, BIND, ENQUIRE, NACK = 0x04, 0x05, 0x06, 0x09, 0x15, 0x80000000
ANSWER = 0x80000000
OK, SYSERR, PASSWORD, THROTTLED, LATER = 0x00, 0x08, 0x0E, 0x58, 0x64
PATIENCE = 5.0  # real seconds after which what is waited for will not come

RECEIPT = b"id:m_1 sub:001 dlvrd:001 stat:DELIVRD err:000 text:"


def pdu(command: int, status: int, sequence: int, body: bytes = b"") -> bytes:
    return struct.pack(">IIII", 16 + len(body), command, status, sequence) + body


def receipt(text: bytes = RECEIPT, tlvs: bytes = b"", esm_class: int = 4) -> bytes:
    """The body of a deliver_sm from a subscriber."""
    head = b"\0\x01\x0133600000000\0\x05\x00ACME\0" + bytes([esm_class, 0, 0, 0, 0, 0, 0, 0, 0])
    return head + bytes([len(text)]) + text + tlvs


@dataclass(frozen=True)
class Heard:
    """A PDU from the client."""

    command: int
    status: int
    sequence: int
    body: bytes


class Link:
    """One connection, from the centre's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._sequence = count(1)

    async def hear(self, command: int | None = None) -> Heard:
        """The next PDU, which must be of this command."""
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readexactly(16)
            length, found, status, sequence = struct.unpack(">IIII", head)
            body = await self._reader.readexactly(length - 16)
        assert command in (None, found), hex(found)
        return Heard(found, status, sequence, body)

    async def bound(self) -> Self:
        """Lets the client in."""
        asked = await self.hear(BIND)
        self.answer(asked, b"SMSC\0\x02\x10\x00\x01\x34")
        return self

    def answer(self, asked: Heard, body: bytes = b"", status: int = OK) -> None:
        self.write(pdu(asked.command | ANSWER, status, asked.sequence, body))

    def accept(self, asked: Heard, message_id: str = "m_1") -> None:
        self.answer(asked, message_id.encode() + b"\0")

    def ask(self, command: int, body: bytes = b"") -> int:
        """Sends a request of the centre's own; its sequence number."""
        sequence = next(self._sequence)
        self.write(pdu(command, 0, sequence, body))
        return sequence

    def write(self, octets: bytes) -> None:
        self.writer.write(octets)

    def close(self) -> None:
        self.writer.close()

    async def closed(self) -> None:
        """Until the client has closed, having said nothing more."""
        async with asyncio.timeout(PATIENCE):
            assert b"" == await self._reader.read()


class Smsc:
    """Listens while entered, on a free port. `connections`: how many were accepted."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._links: asyncio.Queue[Link] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []
        self.connections = 0

    async def link(self) -> Link:
        """The next connection."""
        async with asyncio.timeout(PATIENCE):
            return await self._links.get()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        self._links.put_nowait(Link(reader, writer))


class Time:
    """A clock that moves when told; who sleeps by it wakes as it passes."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.sleeping: list[tuple[float, int, asyncio.Event]] = []
        self._order = count()

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        entry = (self.at + seconds, next(self._order), asyncio.Event())
        heapq.heappush(self.sleeping, entry)
        try:
            await entry[2].wait()
        finally:
            if entry in self.sleeping:
                self.sleeping.remove(entry)
                heapq.heapify(self.sleeping)

    async def advance(self, seconds: float) -> None:
        end = self.at + seconds
        await settle()
        while self.sleeping and self.sleeping[0][0] <= end:
            self.at, _, event = heapq.heappop(self.sleeping)
            event.set()
            await settle()
        self.at = end

    async def asleep(self, seconds: float) -> None:
        """Until somebody sleeps that long from now."""
        async with asyncio.timeout(PATIENCE):
            while all(abs(wake - self.at - seconds) > 1e-6 for wake, _, _ in self.sleeping):  # noqa: ASYNC110
                await asyncio.sleep(0)


async def settle() -> None:
    """Turns enough for whatever is ready, sockets on this machine included."""
    for _ in range(30):
        await asyncio.sleep(0)
    await asyncio.sleep(0.005)
    for _ in range(30):
        await asyncio.sleep(0)
