"""One connection, byte by byte: what is an answer, what ends it, and who may be asked again."""

import asyncio
from typing import Any

import httptools
import pytest

from gateway.transports.connection import (
    HEAD_MOST,
    Answer,
    Connection,
    Disconnected,
    SwitchedProtocols,
    TooLarge,
)

MOST = 1000
OK = b"HTTP/1.1 200 OK\r\n"
PLAIN = OK + b"Content-Length: 5\r\n\r\nplain"


class Wire(asyncio.Transport):
    """The other side of a connection: notes what is written, and tells of the end as loops do."""

    def __init__(self, most: int = MOST) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.lost = False
        self.connection = Connection(most, lambda _: None, lambda _: None)
        self.connection.connection_made(self)

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        if not self.lost:
            asyncio.get_running_loop().call_soon(self.end, None)
        self.lost = True

    def end(self, error: Exception | None) -> None:
        self.lost = True
        self.connection.connection_lost(error)

    def ask(self, *, bodiless: bool = False) -> "asyncio.Future[Answer]":
        return self.connection.ask(b"?", bodiless=bodiless)

    def say(self, data: bytes, size: int) -> None:
        """In pieces of `size` bytes, as long as anybody listens."""
        for start in range(0, len(data), size):
            if not self.lost:
                self.connection.data_received(data[start : start + size])


ANSWERS = {
    # what comes: status, body, whether the connection may be asked again
    "by length": (PLAIN, 200, b"plain", True),
    "empty": (b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", 202, b"", True),
    "chunked": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\npl\r\n3\r\nain\r\n0\r\nX-Late: 1\r\n\r\n",
        200, b"plain", True,
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b"", True),
    "not modified": (b"HTTP/1.1 304 -\r\nTransfer-Encoding: chunked\r\n\r\n", 304, b"", True),
    "after interim words": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + PLAIN,
        200, b"plain", True,
    ),
    "an offer to upgrade": (
        OK + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\nplain",
        200, b"plain", True,
    ),
    "line feeds alone": (PLAIN.replace(b"\r\n", b"\n"), 200, b"plain", True),
    "and close": (
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nplain",
        200, b"plain", False,
    ),
    "of old": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nplain", 200, b"plain", False),
    "of old, kept": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nplain",
        200, b"plain", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_is_the_same_however_it_is_cut(kind: str, size: int) -> None:
    said, status, body, kept = ANSWERS[kind]
    wire = Wire()
    asked = wire.ask()
    wire.say(said, size)
    got = await asked

    assert (status, body) == (got[0], got[2])
    assert kept == wire.connection.open
    assert kept != wire.lost
    assert b"X-Late" not in dict(got[1])
    assert [b"?"] == wire.written


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("kind", [kind for kind, answer in ANSWERS.items() if answer[3]])
async def test_a_kept_connection_answers_the_next_question(kind: str, size: int) -> None:
    wire = Wire()
    for said, status, body, _ in (ANSWERS[kind], ANSWERS["chunked"], ANSWERS[kind]):
        asked = wire.ask()
        wire.say(said, size)
        got = await asked

        assert (status, body) == (got[0], got[2])
        assert wire.connection.open


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n", b""],
)
async def test_the_answer_to_head_ends_with_its_head_and_is_the_last(
    head: bytes, size: int
) -> None:
    wire = Wire()
    asked = wire.ask(bodiless=True)
    wire.say(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + head + b"\r\n", size)
    got = await asked

    assert (200, b"") == (got[0], got[2])
    assert not wire.connection.open
    assert wire.lost


@pytest.mark.parametrize("tail", [PLAIN, b"H", b"x", b"\x15\x03\x01", PLAIN + PLAIN])
@pytest.mark.parametrize("apart", [True, False])
async def test_a_word_after_the_answer_is_no_answer_to_the_next_question(
    tail: bytes, apart: bool
) -> None:
    """(Seen to answer the next question without the check in `on_message_begin`.)"""
    wire = Wire()
    asked = wire.ask()
    wire.say(PLAIN + (b"" if apart else tail), 100_000)
    if apart:
        wire.say(tail, 100_000)
    got = await asked

    assert (200, [(b"Content-Length", b"5")], b"plain") == got
    assert not wire.connection.open
    assert wire.lost


async def test_a_word_before_any_question_ends_the_connection() -> None:
    wire = Wire()
    wire.say(PLAIN, 100_000)

    assert not wire.connection.open
    assert wire.lost


WRONG = {
    # what comes, what is wrong with it
    "length and chunks": (
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "parser",
    ),
    "chunks and length": (
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "parser",
    ),
    "two lengths": (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nplain", "parser"),
    "less than nothing": (OK + b"Content-Length: -5\r\n\r\nplain", "parser"),
    "more than counts": (OK + b"Content-Length: 99999999999999999999\r\n\r\nplain", "parser"),
    "a chunk without length": (
        OK + b"Transfer-Encoding: chunked\r\n\r\nfive\r\nplain\r\n",
        "parser",
    ),
    "a chunk longer than it says": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nplain\r\n",
        "parser",
    ),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "parser"),
    "an upgrade": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        "101",
    ),
    "a bare 101": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "101"),
    "a header of 1 MB": (OK + b"X: " + b"x" * (1 << 20), "large"),
    "too many headers": (OK + b"X: 1\r\n" * (HEAD_MOST // 3), "large"),
    "interim words for ever": (b"HTTP/1.1 100 Continue\r\n\r\n" * HEAD_MOST, "large"),
    "a body too long": (OK + b"Content-Length: 1001\r\n\r\n" + b"." * 1001, "large"),
    "a body without end": (OK + b"\r\n" + b"." * 1001, "large"),
    "too many chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n.\r\n" * 1001, "large"),
    "trailers for ever": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: 1\r\n" * HEAD_MOST,
        "large",
    ),
}


@pytest.mark.parametrize("size", [1, 4096])
@pytest.mark.parametrize("kind", WRONG)
async def test_what_is_no_answer_ends_the_connection(kind: str, size: int) -> None:
    said, why = WRONG[kind]
    errors = {"parser": httptools.HttpParserError, "101": SwitchedProtocols, "large": TooLarge}
    wire = Wire()
    asked = wire.ask()
    wire.say(said, size)
    with pytest.raises(errors[why]):
        await asked

    assert not wire.connection.open
    assert wire.lost


@pytest.mark.parametrize("size", [1, 4096])
async def test_a_body_in_the_smallest_chunks_may_have_its_full_length(size: int) -> None:
    wire = Wire()
    asked = wire.ask()
    wire.say(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n.\r\n" * MOST + b"0\r\n\r\n", size)

    assert b"." * MOST == (await asked)[2]


ENDS = [
    # what came before the end, its error: the body, or what it means
    (OK + b"\r\nplain", None, b"plain"),
    (b"HTTP/1.0 200 OK\r\n\r\n", None, b""),
    (OK + b"\r\nplain", ConnectionResetError(), ConnectionResetError),
    (b"", None, Disconnected),
    (PLAIN[:-1], None, Disconnected),
    (PLAIN[:30], None, Disconnected),
    (b"HTTP/1.1 100 Continue\r\n\r\n", None, Disconnected),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nplain\r\n", None, Disconnected),
    (OK + b"Transfer-Encoding: chunked, gzip\r\n\r\nplain", None, Disconnected),
    (PLAIN[:-1], BrokenPipeError(), BrokenPipeError),
]


@pytest.mark.parametrize(("said", "error", "expected"), ENDS)
async def test_the_end_of_a_connection_ends_an_answer_only_if_nothing_else_could(
    said: bytes, error: Exception | None, expected: Any
) -> None:
    wire = Wire()
    asked = wire.ask()
    wire.say(said, 100_000)
    if error is None:
        wire.connection.eof_received()
    wire.end(error)
    if isinstance(expected, bytes):
        assert (200, [], expected) == await asked
    else:
        with pytest.raises(expected):
            await asked

    assert not wire.connection.open


@pytest.mark.parametrize("said", [PLAIN, b"garbage\r\n", PLAIN[:-1]])
async def test_an_answer_that_nobody_waits_for_any_longer_disturbs_nobody(said: bytes) -> None:
    wire = Wire()
    wire.ask().cancel()
    wire.say(said, 100_000)
    wire.connection.close()
    await asyncio.sleep(0)

    assert not wire.connection.open


async def test_silence_is_measured_from_piece_to_piece() -> None:
    wire = Wire()
    asked = wire.connection.ask(b"?", silence=0.1)
    wire.say(PLAIN[:10], 1)
    with pytest.raises(TimeoutError):
        await asked

    assert wire.lost
