"""Answers over a real socket: whole ones leave in one write, all are proper HTTP/1.1."""

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from gateway.app import process
from gateway.web import wire
from gateway.web.edge import Call, Edge, Methods
from gateway.web.errors import Answer
from gateway.web.wire import DIRECT, OneWrite

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


async def taken(call: Call) -> Answer:
    return Answer(200, b"%d" % len(await call.body(1 << 20)))


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Where an edge is served."""
    calls = {
        "/hello": {"POST": hello, "GET": hello},
        "/nothing": {"POST": nothing},
        "/late": {"POST": late},
        "/last": {"POST": last},
        "/taken": {"POST": taken},
    }
    app = Edge(elsewhere, calls, {}, Silent())
    listening = process.bind("127.0.0.1", 0)
    async with process.served(_without_lifespan(app), listening):
        yield process.port_of(listening)


@pytest.fixture
def exchange(port: int) -> Exchange:
    """Sends raw bytes to a served edge, with a request to end on behind them; what came back."""

    async def exchanged(sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent + request("/last", "Connection: close"))
        whole = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return whole.partition(b"HTTP/1.1 204")[0]

    return exchanged


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


# Bounds.


HEADER = b"X: " + b"a" * 1000 + b"\r\n"
BEGUN = b"POST /taken HTTP/1.1\r\nHost: x\r\n"
CHUNKED = BEGUN + b"Transfer-Encoding: chunked\r\n\r\n"
LARGE = b"1" * wire.HEAD_MOST


async def test_a_head_that_is_too_large_is_refused(port: int) -> None:
    """Whole or not, before a body or without one; the address is part of it."""
    long, query = BEGUN.replace(b"taken", LARGE), BEGUN.replace(b"taken", b"taken?" + LARGE)
    headers = BEGUN + HEADER * 33
    ends = (b"", b"Content-Length: 0\r\n\r\n", b"Content-Length: 9\r\n\r\n")
    for sent in (*(headers + end for end in ends), long, long + b"\r\n", query + b"\r\n"):
        got = await answered(port, sent)

        assert got.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n"), sent[-40:]


async def test_what_is_around_a_body_is_bounded_too(port: int) -> None:
    """Trailers and chunks' extensions."""
    for beyond in (b"0\r\n" + HEADER * 33, b"1;" + LARGE + b"\r\n1\r\n"):
        assert b"" == await answered(port, CHUNKED + beyond)


async def test_a_body_counts_for_no_head(port: int) -> None:
    """However it comes, and however many requests a connection brings."""
    body = b"1" * 300_000
    head = BEGUN + HEADER * 10
    whole = head + b"Content-Length: 300000\r\n\r\n" + body
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    end = BEGUN + b"Connection: close\r\nContent-Length: 0\r\n\r\n"
    got = await answered(port, whole * 2 + chunked % (len(body), body) * 2 + end)

    assert 4 == got.count(b"\r\n\r\n300000")


async def answered(port: int, sent: bytes) -> bytes:
    """All that comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    got = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return got


async def test_nobody_may_take_for_ever(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one second that is slept is the server's."""
    monkeypatch.setattr(wire, "PATIENCE", 0)
    silent, head, body = await asyncio.gather(
        answered(port, b""),
        answered(port, BEGUN),
        answered(port, BEGUN + b"Content-Length: 2\r\n\r\n1"),
    )

    assert (b"", b"") == (silent, body)
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


async def test_who_waits_for_an_answer_may_wait() -> None:
    """Nor is anybody counted who sends one request after the other, or waits to be read."""
    go = asyncio.Event()

    async def slow(call: Call) -> Answer:
        await go.wait()
        return Answer(200, b"%d" % len(await call.body(1 << 20)))

    async with sockets({"/slow": {"POST": slow}}) as (port, connections):
        large = b"Content-Length: 600000\r\n\r\n" + b"1" * 600_000
        sent = request("/slow") + request("/slow", "Connection: close") + b"POST /sl"
        waiting = [
            asyncio.create_task(answered(port, request("/slow", "Connection: close"))),
            asyncio.create_task(answered(port, sent)),
            asyncio.create_task(
                answered(port, b"POST /slow HTTP/1.1\r\nConnection: close\r\n" + large)
            ),
        ]
        while 3 > sum(one.cycle is not None for one in connections):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for _ in range(3 * wire.PATIENCE):
            wire.sweep(connections)
        go.set()
        one, first, second = await asyncio.gather(*waiting)

    assert [1, 2] == [got.count(b"HTTP/1.1 200 OK") for got in (one, first)]
    assert 1 == second.count(b"600000")


async def test_who_is_idle_for_long_is_let_go() -> None:
    """Counted from the last answer, and not from before."""
    async with sockets({"/hello": {"POST": hello}}) as (port, connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(request("/hello"))
            await reader.readuntil(b'{"a":1}')
            (connection,) = connections
            for _ in range(connection.timeout_keep_alive):
                wire.sweep(connections)
        stays = not connection.transport.is_closing()
        wire.sweep(connections)
        rest = await asyncio.wait_for(reader.read(), 5)
        writer.close()

    assert (True, b"") == (stays, rest)


async def test_an_answer_leaves_nothing_to_the_collector() -> None:
    """Scope and cycle hold each other only while they are needed."""
    cycles = []

    async def seen(call: Call) -> Answer:
        cycles.append(weakref.ref(call.scope[wire.DIRECT]))
        return Answer(200)

    gc.disable()
    try:
        async with sockets({"/seen": {"POST": seen}}) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _one in range(2):  # the last one is held by its connection
                writer.write(request("/seen"))
                await reader.readuntil(b"content-length: 0\r\n\r\n")
            await asyncio.sleep(0)
            held = [one() is not None for one in cycles]
            writer.close()
    finally:
        gc.enable()

    assert [False, True] == held


async def test_an_answer_has_the_servers_headers_of_its_time() -> None:
    """Heads are kept, but for no longer than what they say is true."""
    state = ServerState()
    config = process.server(Edge(elsewhere, {"/hello": {"POST": hello}}, {}, Silent())).config
    loop = asyncio.get_running_loop()
    served = await loop.create_server(lambda: OneWrite(config, state, {}), "127.0.0.1", 0)
    got = []
    async with served:
        at = served.sockets[0].getsockname()[1]
        for moment in (b"one", b"two"):
            state.default_headers = [(b"date", moment)]
            got.append(await answered(at, request("/hello", "Connection: close")))

    assert [1, 0] == [one.count(b"date: one\r\n") for one in got]
    assert [0, 1] == [one.count(b"date: two\r\n") for one in got]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/otp/send", (b"/otp/send", b"")),
        (b"/otp/status?a=b?c", (b"/otp/status", b"a=b?c")),
        (b"//a/b?", (b"//a/b", b"")),
        (b"/a?b#c", (b"/a", b"b")),
        (b"/a#b?c", (b"/a", b"")),
        (b"http://host:1/a?b", (b"/a", b"b")),
    ],
)
async def test_a_target_is_read_as_the_parser_reads_it(
    target: bytes, expected: tuple[bytes, bytes]
) -> None:
    seen = []

    async def shown(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["raw_path"], scope["query_string"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = process.server(shown).config
    loop = asyncio.get_running_loop()
    served = await loop.create_server(lambda: OneWrite(config, ServerState(), {}), "127.0.0.1", 0)
    async with served:
        sent = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target
        await answered(served.sockets[0].getsockname()[1], sent)

    assert [expected] == seen


async def test_what_comes_after_a_body_was_had_is_the_end() -> None:
    """ASGI's `receive` takes up where the short way has left off."""
    told = []

    async def both(call: Call) -> Answer:
        body = await call.body(1 << 20)
        rest = asyncio.ensure_future(call.receive())
        await asyncio.sleep(0)
        told.append((body, rest.done()))
        gone.append(rest)
        return Answer(200)

    gone: list[asyncio.Future[Any]] = []
    async with sockets({"/both": {"POST": both}}) as (at, _):
        sent = (
            BEGUN.replace(b"taken", b"both") + b"Connection: close\r\nContent-Length: 2\r\n\r\nab"
        )
        await answered(at, sent)
        last = await asyncio.wait_for(gone[0], 5)

    assert ([(b"ab", False)], "http.disconnect") == (told, last["type"])


async def test_so_many_may_come_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CONNECTIONS", 1)
    async with sockets({"/hello": {"POST": hello}}) as (port, connections):
        _, first = await asyncio.open_connection("127.0.0.1", port)
        late = await answered(port, b"")
        first.close()
        while connections:  # noqa: ASYNC110  (not ours to wake)
            await asyncio.sleep(0.01)
        again = await answered(port, request("/hello", "Connection: close"))

    assert (b"503", b"202") == (late[9:12], again[9:12])


@contextlib.asynccontextmanager
async def sockets(calls: dict[str, Methods]) -> AsyncGenerator[tuple[int, set[Any]]]:
    """An edge served without a server, and its connections: time passes by hand."""
    state = ServerState()
    config = process.server(Edge(elsewhere, calls, {}, Silent())).config
    loop = asyncio.get_running_loop()
    served = await loop.create_server(lambda: OneWrite(config, state, {}), "127.0.0.1", 0)
    async with served:
        yield served.sockets[0].getsockname()[1], state.connections


def test_a_socket_is_bound_where_it_was_asked() -> None:
    with process.bind("127.0.0.1", 0) as opened:
        assert socket.AF_INET == opened.family


async def said_while(then: Callable[[OneWrite], object]) -> bytes:
    """What a caller gets when `then` befalls his connection as soon as he has been answered."""
    made: list[OneWrite] = []

    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope[DIRECT].answer(200, None, b"said")
        then(made[0])

    config = process.server(answers).config

    def connected() -> OneWrite:
        made.append(OneWrite(config, ServerState(), {}))
        return made[-1]

    served = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
    async with served:
        return await answered(served.sockets[0].getsockname()[1], request("/"))


async def test_who_stops_has_said_what_was_answered() -> None:
    """(Seen to lose the answer without the flush in `shutdown`.)"""
    got = await said_while(lambda connection: connection.shutdown())

    assert got.endswith(b"\r\n\r\nsaid")


async def test_what_cannot_be_read_is_told_so_after_the_answer_before_it() -> None:
    """(Seen the other way round without the flush in `data_received`.)"""
    got = await said_while(lambda connection: connection.data_received(b"no request\r\n\r\n"))

    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 " in got
