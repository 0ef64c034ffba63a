"""Answers over a real socket: whole ones leave in one write, all are proper HTTP/1.1."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from starlette.types import Receive, Scope, Send

from gateway.app import process
from gateway.web.edge import Call, Edge
from gateway.web.errors import Answer

Exchange = Callable[[bytes], Awaitable[bytes]]


class Silent:
    """A log nobody reads."""

    def error(self, event: str, **facts: object) -> None:
        raise AssertionError(event)


async def hello(call: Call) -> Answer:
    return Answer(202, b'{"a":1}', b"application/json")


async def nothing(call: Call) -> Answer:
    return Answer(200)


async def last(call: Call) -> Answer:
    return Answer(204)


async def late(call: Call) -> Answer:
    return Answer(429, b"{}", b"application/json", ((b"retry-after", b"1"),))


async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    await send({"type": "http.response.body", "body": b"s"})


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    """Sends raw bytes to a served edge, with a request to end on behind them; what came back."""
    calls = {
        "/hello": {"POST": hello, "GET": hello},
        "/nothing": {"POST": nothing},
        "/late": {"POST": late},
        "/last": {"POST": last},
    }
    app = Edge(elsewhere, calls, {}, Silent())
    listening = process.bind("127.0.0.1", 0)
    port = process.port_of(listening)

    async def exchanged(sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent + request("/last", "Connection: close"))
        whole = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return whole.partition(b"HTTP/1.1 204")[0]

    async with process.served(_without_lifespan(app), listening):
        yield exchanged


def _without_lifespan(app: Edge) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for said in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{said}.complete"})
            return
        await app(scope, receive, send)

    return asgi


def request(path: str, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Length: 0", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def test_a_whole_answer_is_one_message(exchange: Exchange) -> None:
    head, _, body = (await exchange(request("/hello"))).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")

    assert b"HTTP/1.1 202 Accepted" == lines[0]
    assert b'{"a":1}' == body
    assert {b"content-type: application/json", b"content-length: 7"} <= set(lines)
    assert 1 == sum(line.startswith(b"date: ") for line in lines)


async def test_requests_in_a_row_are_answered_in_their_order(exchange: Exchange) -> None:
    whole = await exchange(request("/hello") + request("/nothing") + request("/hello"))

    assert [b"202", b"200", b"202"] == [part[:3] for part in whole.split(b"HTTP/1.1 ")[1:]]
    assert 2 == whole.count(b'{"a":1}')


async def test_an_answer_without_a_body_says_so(exchange: Exchange) -> None:
    head, _, body = (await exchange(request("/nothing"))).partition(b"\r\n\r\n")

    assert (b"", True) == (body, b"content-length: 0" in head.split(b"\r\n"))


async def test_a_caller_who_wants_the_end_gets_it(exchange: Exchange) -> None:
    whole = await exchange(request("/hello", "Connection: close") + request("/hello"))

    assert 1 == whole.count(b"HTTP/1.1 202")
    assert b"connection: close" in whole


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (request("/late"), b"429", b"{}"),
        (request("/hello", method="HEAD"), b"202", b""),
        (request("/other"), b"200", b"4\r\npart\r\n1\r\ns\r\n0\r\n\r\n"),
    ],
    ids=["further headers", "HEAD", "a stream"],
)
async def test_what_is_not_plain_goes_the_ordinary_way(
    exchange: Exchange, sent: bytes, status: bytes, body: bytes
) -> None:
    head, _, rest = (await exchange(sent)).partition(b"\r\n\r\n")

    assert (status, body) == (head.split(b" ")[1], rest)


async def test_a_caller_who_is_asked_to_wait_for_100_is_answered(exchange: Exchange) -> None:
    whole = await exchange(request("/hello", "Expect: 100-continue"))

    assert b'{"a":1}' == whole.rpartition(b"\r\n\r\n")[2]


def test_a_socket_is_bound_where_it_was_asked() -> None:
    with process.bind("127.0.0.1", 0) as opened:
        assert socket.AF_INET == opened.family
