"""How connections are opened, shared, kept and closed. Real sockets on 127.0.0.1."""

import asyncio
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from aiohappyeyeballs import AddrInfoType
from transports import faults
from transports.faults import ANSWER, Fault, FaultyServer, zipped

from gateway.ports import Lost, NotSent, Request, TransportError
from gateway.transports.http import STAGE, HttpTransport, Stage
from gateway.transports.opening import Opener
from gateway.transports.pool import ConnectionPool


class Names:
    """A name server: every name leads to 127.0.0.1, after `wait` is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.first = asyncio.Event()
        self.wait = asyncio.Event()
        self.closed = False

    async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
        self.asked.append(host)
        self.first.set()
        await self.wait.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
async def pool() -> AsyncIterator[ConnectionPool]:
    pool = ConnectionPool(connect_timeout=1)
    yield pool
    await pool.aclose()


async def send(pool: ConnectionPool, url: str, method: str = "POST") -> httpx.Response:
    return await HttpTransport(pool).send(Request(method, url, content=b"x"), within=5)


async def failure(pool: ConnectionPool, url: str) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await send(pool, url)
    return caught.value


def says(*answers: bytes) -> Fault:
    """No fault: one answer after the other, on one connection."""

    async def speak(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
        for answer in answers:
            await server.receive(reader)
            writer.write(answer)
        await reader.read()

    return speak


# --- Kept ---------------------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"
KEPT = [
    CHUNKED,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n" + faults.response(ANSWER),
    faults.response(zipped(ANSWER), "Content-Encoding: gzip"),
]


@pytest.mark.parametrize("first", KEPT, ids=range(len(KEPT)))
async def test_a_connection_is_used_again(pool: ConnectionPool, first: bytes) -> None:
    async with FaultyServer(says(first, CHUNKED, first, faults.response(ANSWER))) as server:
        answers = [await send(pool, server.url) for _ in range(4)]

    assert [b"whole", ANSWER] == [answers[1].content, answers[3].content]
    assert 1 == server.connections


LAST = [
    faults.response(ANSWER, "Connection: close"),
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    faults.response(ANSWER) + b"HTTP/1.1 200 OK\r\n",
    faults.response(zipped(ANSWER) + b"?", "Content-Encoding: gzip"),
]


@pytest.mark.parametrize("first", LAST, ids=range(len(LAST)))
async def test_a_connection_is_not_used_again_after_its_last_word(
    pool: ConnectionPool, first: bytes
) -> None:
    async with FaultyServer(says(first, faults.response(b"whose?"))) as server:
        try:
            await send(pool, server.url)
        except Lost as error:
            assert "protocol_error" == error.reason  # noqa: PT017 (some of them are no answer)
        await asyncio.gather(send(pool, server.url), return_exceptions=True)

    assert 2 == server.connections


async def test_after_head_the_next_answer_is_its_own(pool: ConnectionPool) -> None:
    async def heads(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
        await server.receive(reader)
        answer = faults.response(ANSWER)
        writer.write(answer[: -len(ANSWER)] if "HEAD" in server.heads[-1] else answer)
        await reader.read()

    async with FaultyServer(heads) as server:
        first = await send(pool, server.url, "HEAD")
        second = await send(pool, server.url)

    assert (b"", ANSWER) == (first.content, second.content)


async def test_a_connection_that_rests_too_long_is_closed() -> None:
    pool = ConnectionPool(keepalive=0.05)
    ended = asyncio.Event()

    async def notes(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
        await server.receive(reader)
        writer.write(faults.response(ANSWER))
        await reader.read()
        ended.set()

    async with FaultyServer(notes) as server:
        await send(pool, server.url)
        await asyncio.wait_for(ended.wait(), 5)

        assert {} == pool._resting

        await send(pool, server.url)
        await pool.aclose()

    assert 2 == server.connections
    assert not pool._open


async def test_a_connection_that_rested_too_long_unnoticed_is_not_used() -> None:
    """The loop stood still, so that the sweep is late."""
    pool = ConnectionPool(keepalive=5)
    async with FaultyServer(faults.answers) as server:
        await send(pool, server.url)
        [[resting]] = pool._resting.values()
        resting.rests_since -= 5
        await send(pool, server.url)
        await pool.aclose()

    assert 2 == server.connections


async def test_origins_do_not_share_connections(pool: ConnectionPool) -> None:
    async with FaultyServer(faults.answers) as one, FaultyServer(faults.answers) as other:
        for server in (one, other, one, other):
            await send(pool, server.url)

    assert (1, 1) == (one.connections, other.connections)


# --- Opened -------------------------------------------------------------------------------------


async def test_who_asks_for_the_same_name_shares_the_look_up() -> None:
    names = Names()
    pool = ConnectionPool(resolver=names)
    async with FaultyServer(faults.answers) as server:
        url = f"http://vendor.test:{server.port}"
        calls = [asyncio.create_task(send(pool, url)) for _ in range(5)]
        await names.first.wait()
        calls[0].cancel()
        await asyncio.sleep(0)
        names.wait.set()
        done = await asyncio.gather(*calls, return_exceptions=True)
        await pool.aclose()

    assert ["vendor.test"] == names.asked
    assert isinstance(done[0], asyncio.CancelledError)
    assert 4 == len(server.requests)
    assert names.closed


async def test_closing_ends_a_look_up_that_nobody_answers() -> None:
    names = Names()
    pool = ConnectionPool(resolver=names)
    call = asyncio.create_task(failure(pool, "https://vendor.test"))
    await names.first.wait()
    await pool.aclose()
    error = await call

    assert (NotSent, "connect_error") == (type(error), error.reason)


async def test_a_call_that_is_given_up_while_tls_is_made_leaves_no_connection(
    pool: ConnectionPool,
) -> None:
    ended = asyncio.Event()

    async def hangs(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
        server.seen.set()
        await reader.read()
        ended.set()

    async with FaultyServer(hangs) as server:
        call = asyncio.create_task(send(pool, f"https://127.0.0.1:{server.port}"))
        await server.seen.wait()
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(ended.wait(), 5)

    assert not pool._open
    assert not pool._opening


async def test_a_call_that_is_given_up_takes_its_connection_along(pool: ConnectionPool) -> None:
    """Or its answer would come to the next question."""
    ended = asyncio.Event()

    async def silent(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
        await server.receive(reader)
        await reader.read()
        ended.set()

    async with FaultyServer(silent) as server:
        call = asyncio.create_task(send(pool, server.url))
        await server.seen.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize("host", [".vendor.test", ".", "..", "127.1", "2130706433", "[::g]"])
async def test_a_host_that_cannot_be_is_not_even_looked_up(host: str) -> None:
    names = Names()
    names.wait.set()
    pool = ConnectionPool(resolver=names)
    request = Request("POST", "https://vendor.test")
    with pytest.raises(httpx.UnsupportedProtocol):
        await pool._connected((b"https", host.encode(), None), request)
    await pool.aclose()

    assert [] == names.asked


async def test_a_socket_that_the_loop_does_not_take_is_closed() -> None:
    """One that connects and is no stream. (Seen to fail without `connected.close()`.)"""
    made: list[socket.socket] = []

    def datagrams(info: AddrInfoType) -> socket.socket:
        made.append(socket.socket(info[0], socket.SOCK_DGRAM))
        return made[-1]

    opener = Opener(sockets=datagrams)
    with pytest.raises(ValueError, match=r"(?i)a stream socket"):
        await opener.open(asyncio.Protocol(), host="127.0.0.1", port=9, secure=False)

    assert [-1] == [one.fileno() for one in made]


async def test_the_server_is_told_the_name_and_has_to_prove_it(tmp_path: Path) -> None:
    certified = faults.certificate(tmp_path)  # for 127.0.0.1
    context = faults.tls_server(certified)
    told: list[str | None] = []
    context.sni_callback = lambda _, name, __: told.append(name)
    names = Names()
    names.wait.set()
    pool = ConnectionPool(resolver=names, ssl_context=ssl.create_default_context(cafile=certified))
    async with FaultyServer(faults.answers, tls=context) as server:
        error = await failure(pool, f"https://vendor.test.:{server.port}")
        await pool.aclose()

    assert ["vendor.test"] == told
    assert error.detail.startswith("SSLCertVerificationError vendor.test.:")
    assert [] == server.requests


async def test_an_ipv6_address_is_connected_as_it_stands(pool: ConnectionPool) -> None:
    heads: list[bytes] = []

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(faults.response(ANSWER))
        writer.close()

    listening = await asyncio.start_server(serve, "::1", 0)
    port = listening.sockets[0].getsockname()[1]
    answer = await send(pool, f"http://[::1]:{port}/", "GET")
    listening.close()

    assert ANSWER == answer.content
    assert f"Host: [::1]:{port}".encode() in heads[0].splitlines()


async def test_a_dead_address_does_not_keep_from_the_living(pool: ConnectionPool) -> None:
    class Two(Names):
        async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
            dead = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.2", port))
            return [dead, *await super().resolve(host, port)]

    names = Two()
    names.wait.set()
    pool = ConnectionPool(resolver=names)
    async with FaultyServer(faults.answers) as server:  # not on 127.0.0.2
        answer = await send(pool, f"http://vendor.test:{server.port}")
        await pool.aclose()

    assert ANSWER == answer.content


# --- Turns --------------------------------------------------------------------------------------


async def test_turns_are_taken_in_order_and_not_lost_with_who_gives_up() -> None:
    pool = ConnectionPool(limit=1)
    go = asyncio.Event()

    async def slow(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
        while True:
            await server.receive(reader)
            await go.wait()
            writer.write(faults.response(ANSWER))

    async with FaultyServer(slow) as server:
        calls = []
        for number in range(5):
            request = Request("POST", server.url, content=b"%d" % number)
            calls.append(asyncio.create_task(HttpTransport(pool).send(request, within=5)))
            await asyncio.sleep(0)
        await server.seen.wait()
        calls[1].cancel()
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*calls, return_exceptions=True)
        await pool.aclose()

    assert [b"0", b"2", b"3", b"4"] == server.requests
    assert 1 == pool._turns


async def test_a_turn_that_comes_too_late_is_passed_on() -> None:
    """(Seen to be lost without the guard in `_turn`.)"""
    pool = ConnectionPool(limit=1)
    pool._turns = 0
    gives_up, waits = [
        asyncio.create_task(pool._turn(Request("GET", "http://vendor.test"))) for _ in range(2)
    ]
    await asyncio.sleep(0)
    pool._pass_on()
    gives_up.cancel()
    await asyncio.wait_for(waits, 5)
    pool._pass_on()

    assert gives_up.cancelled()
    assert 1 == pool._turns


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_mark_stands_before_the_first_byte(
    monkeypatch: pytest.MonkeyPatch, pool: ConnectionPool, method: str
) -> None:
    """(Seen to fail with the mark made after `Connection.ask`.)"""
    from gateway.transports.connection import Connection

    marks: list[object] = []
    ask = Connection.ask

    async with FaultyServer(faults.answers) as server:
        request = Request(method, server.url)

        def notes(self: Connection, message: bytes, **how: object) -> object:
            marks.append(request.extensions.get(STAGE))
            return ask(self, message, **how)  # type: ignore[arg-type]

        monkeypatch.setattr(Connection, "ask", notes)
        for _ in range(2):  # a new connection, and a kept one
            request.extensions.pop(STAGE, None)
            await pool.handle_async_request(request)

    assert [Stage.SENT, Stage.SENT] == marks


# --- TLS ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "fine"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nwhole", True),  # nothing else could end it
        (faults.response(ANSWER)[:-4], False),
        (CHUNKED[:-5], False),
        (b"HTTP/1.1 200 OK\r\n", False),
    ],
)
async def test_tls_that_is_closed_early_ends_no_answer_that_has_its_own_end(
    tmp_path: Path, said: bytes, fine: bool
) -> None:
    certified = faults.certificate(tmp_path)

    async def breaks_off(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
        await server.receive(reader)
        writer.write(said)  # and close_notify

    pool = ConnectionPool(ssl_context=ssl.create_default_context(cafile=certified))
    async with FaultyServer(breaks_off, tls=faults.tls_server(certified)) as server:
        if fine:
            assert b"whole" == (await send(pool, server.url)).content
        else:
            error = await failure(pool, server.url)
            assert (Lost, "protocol_error") == (type(error), error.reason)
        await pool.aclose()

    assert 1 == len(server.requests)


async def test_a_tls_connection_is_kept_and_its_end_is_seen(tmp_path: Path) -> None:
    certified = faults.certificate(tmp_path)
    left = asyncio.Event()

    async def twice(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
        for _ in range(2):
            await server.receive(reader)
            writer.write(faults.response(ANSWER))
        left.set()

    pool = ConnectionPool(ssl_context=ssl.create_default_context(cafile=certified))
    async with FaultyServer(twice, tls=faults.tls_server(certified)) as server:
        for _ in range(2):
            await send(pool, server.url)
        await left.wait()
        await asyncio.sleep(0.05)  # the end arrives, and nothing tells that it did
        await send(pool, server.url)
        await pool.aclose()

    assert (3, 2) == (len(server.requests), server.connections)
