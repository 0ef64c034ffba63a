"""The cheapest HTTP/1.1 this machine offers, for the tools around the measured server: protocols on
httptools, and the line of JSON in, line of JSON out by which scripts/bench talks to its workers."""

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import orjson
import uvloop

Answered = Callable[["Connection", int, bytes], None]
Lost = Callable[["Connection"], None]
Received = Callable[["Served", bytes, bytes], None]
Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def post(port: int, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """One POST of JSON, ready to be written."""
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body)}\r\n\r\n")
    return "\r\n".join(lines).encode() + body


class Connection(asyncio.Protocol):
    """The client's end of a keep-alive connection: one request under way at a time.

    `mark` is whatever the caller wants to remember about that request.
    """

    def __init__(self, answered: Answered, lost: Lost) -> None:
        self._answered = answered
        self._lost = lost
        self._body = b""
        self.mark: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)

    def request(self, data: bytes, mark: Any) -> None:
        self.mark = mark
        self._body = b""
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self._transport.close()
        self._answered(self, self._parser.get_status_code(), self._body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)

    def close(self) -> None:
        self._transport.close()

    @property
    def open(self) -> bool:
        return not self._transport.is_closing()


class Served(asyncio.Protocol):
    """The server's end; `received` is handed path and body of each request and calls `answer`."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_begin()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._path = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._received(self, self._path, self._body)

    def answer(self, status: bytes, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )


async def connect(port: int, answered: Answered, lost: Lost) -> Connection:
    _, protocol = await asyncio.get_running_loop().create_connection(
        lambda: Connection(answered, lost), "127.0.0.1", port
    )
    return protocol


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 28)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _say(message: dict[str, Any]) -> None:
    data = orjson.dumps(message) + b"\n"
    while data:  # a pipe may take less than all of it
        data = data[os.write(1, data) :]


async def _obey(start: Callable[[], Awaitable[tuple[dict[str, Any], dict[str, Command]]]]) -> None:
    reader = await _lines()
    hello, commands = await start()
    _say(hello)
    while line := await reader.readline():
        command = orjson.loads(line)
        _say(await commands[command.pop("do")](command))


def work(start: Callable[[], Awaitable[tuple[dict[str, Any], dict[str, Command]]]]) -> None:
    """Runs a worker: greets, then answers one command a line until its input ends."""
    gc.disable()  # short life, no cycles that grow; a pause would show in the latencies
    uvloop.run(_obey(start))
