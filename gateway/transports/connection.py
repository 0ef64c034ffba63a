"""One HTTP/1.1 connection, from the client's end. asyncio hands it bytes, httptools reads them.

Its life: `opening` connects it, the pool asks it one thing at a time (`ask`) and lets it rest in
between, until one side closes. Whatever is not exactly one whole answer to what was asked ends it:
a word too many might be taken for the answer to the next question.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

HEAD_MOST = 64 * 1024  # bytes of an answer before its body
_FRAMING = 8  # bytes that come over the wire for one of the body, at most, however it is chunked

Fields = list[tuple[bytes, bytes]]  # headers, in order, as they were written
Answer = tuple[int, Fields, bytes]  # status, headers, body as it was sent


class Unusable(Exception):
    """What came is no answer."""


class Disconnected(Unusable):
    """The connection ended before the answer did."""


class TooLarge(Unusable):
    """Head or body are above their limits."""


class SwitchedProtocols(Unusable):
    """101: the server goes on in a language that nobody asked for."""


class Unasked(Unusable):
    """The answer is followed by another."""


class Connection(asyncio.Protocol):
    """A connection that answers one request at a time.

    `most`: bytes of a body. `made` and `gone` are told of its beginning and end.
    """

    def __init__(
        self,
        most: int,
        made: Callable[["Connection"], None],
        gone: Callable[["Connection"], None],
    ) -> None:
        self._most = most
        self._made = made
        self._gone = gone
        self.open = False  # it may be asked
        self.rests_since = 0.0  # by the loop's clock; the pool's note
        self._answer: asyncio.Future[Answer] | None = None  # asked for, and not here yet
        self._timer: asyncio.TimerHandle | None = None

    def ask(
        self, message: bytes, *, bodiless: bool = False, silence: float | None = None
    ) -> asyncio.Future[Answer]:
        """Writes a request, head and body in one. From here on it may have left.

        `bodiless`: it is a HEAD. `silence`: seconds between two pieces of the answer, at most.
        The future ends in Unusable, HttpParserError, TimeoutError or OSError, and the connection
        with it. Who does not wait for it any longer has to `close` the connection.
        """
        self._answer = answer = self._loop.create_future()
        self._bodiless = bodiless
        self._silence = silence
        self._received = self._size = 0
        self._head: Fields | None = None
        self._fields: Fields = []
        self._body: list[bytes] = []
        self._transport.write(message)
        if silence is not None:
            self._listen(silence)
        return answer

    def close(self) -> None:
        """Ends the connection at once, and with it what is asked: Disconnected."""
        self._fail(Disconnected())

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP stands, and TLS if it is wanted."""
        self._loop = asyncio.get_running_loop()
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(  # odd line ends; nothing about what ends a body
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self.open = True
        self._made(self)

    def data_received(self, data: bytes) -> None:
        """A piece of the answer. Who speaks without being asked is not asked any more."""
        if self._answer is None:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error.__context__ or error)  # ours, if one of the methods below raised it
        if self._answer is not None:
            self._received += len(data)
            bound = HEAD_MOST if self._head is None else HEAD_MOST + _FRAMING * self._most
            if self._received > bound:
                self._fail(TooLarge())
            elif self._silence is not None:
                self._listen(self._silence)

    def eof_received(self) -> None:
        """The server has said its last word; asyncio closes, and tells so below."""
        self.open = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, ours or theirs. It may be what completes an answer."""
        if exc is None and self._answer is not None and self._ends_with_connection():
            self._complete()
        self._fail(exc or Disconnected())
        del self._parser  # they hold each other
        self._gone(self)

    # --- httptools: an exception stops it ---

    def on_message_begin(self) -> None:
        if self._answer is None:
            raise Unasked

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._status = status = self._parser.get_status_code()
        if status == 101:
            raise SwitchedProtocols
        self._head, self._fields = self._fields, []  # what follows are trailers: not read
        if self._bodiless and status >= 200:
            self.open = False  # httptools cannot be told, and waits for a body
            self._complete()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._most:
            raise TooLarge
        self._body.append(body)

    def on_message_complete(self) -> None:
        if 100 <= self._status < 200:  # an interim word; the answer is still to come
            self._head = None
            return
        if not self._parser.should_keep_alive():
            self.open = False
        self._complete()

    # --- Ends ---

    def _complete(self) -> None:
        answer = self._release()
        if not self.open:
            self._transport.abort()
        if answer is not None and self._head is not None:
            answer.set_result((self._status, self._head, b"".join(self._body)))

    def _fail(self, error: BaseException) -> None:
        answer = self._release()
        self.open = False
        self._transport.abort()
        if answer is not None:
            answer.set_exception(error)

    def _release(self) -> asyncio.Future[Answer] | None:
        """What is asked, if somebody still waits for it. Nothing is asked from here on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        answer, self._answer = self._answer, None
        return None if answer is None or answer.done() else answer

    def _listen(self, silence: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(silence, self._fail, TimeoutError())

    def _ends_with_connection(self) -> bool:
        """Whether the answer has a head, and that says nothing of where the body ends."""
        return self._head is not None and not any(
            name.lower() in {b"content-length", b"transfer-encoding"} for name, _ in self._head
        )
