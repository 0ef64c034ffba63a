"""uvicorn's HTTP protocol with a short way out for plain answers.

ASGI gives head and body to the server one after the other, and uvicorn gives them to the socket in
two writes, after looking at each header anew. An answer that is whole from the start leaves by
`scope[DIRECT]` in one write instead: half the system calls, and no caller wakes up to half an
answer. What does not fit that (streams, HEAD, a caller who does not read) goes the ordinary way.

And bounds, for uvicorn has none: how many callers there may be, how large a head, how long somebody
may take over a request. Nothing is timed by request: a server calls `sweep` once a second.
"""

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

DIRECT = "gateway.direct"  # the key in the scope

CONNECTIONS = 10_000  # open at a time; who comes then is told 503
HEAD_MOST = 32 * 1024  # bytes of a request that are not its body: line, headers, framing, trailers
PATIENCE = 10  # seconds for a head, and for a body

Direct = Callable[[int, bytes | None, bytes], bool]  # status, media type, body → whether it left


class OneWrite(HttpToolsProtocol):
    """To be given to `uvicorn.Config(http=…)`."""

    _expected = True  # a request, or the rest of one; uvicorn's keep-alive covers the time between
    _beside = 0  # bytes of the request so far that are not its body
    _ticks = 0  # sweeps that its head, or its body, has been waited for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self._refuse(503)

    def data_received(self, data: bytes) -> None:
        if not self._expected:
            self._expected, self._ticks = True, 0
        self._beside += len(data)
        super().data_received(data)
        if self._beside > HEAD_MOST and not self.transport.is_closing():
            self._refuse(431)

    def on_body(self, body: bytes) -> None:
        self._beside -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._expected, self._beside = False, 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._ticks = 0
        scope: Any = cycle.scope
        if self._beside > HEAD_MOST and _head_size(scope) > HEAD_MOST:  # it came in one piece
            self._beside, app = 0, _too_large
        scope[DIRECT] = partial(_answer, cycle)
        super()._start_asgi_task(cycle, app)

    def tick(self) -> None:
        """A second has passed. Ends a connection whose request does not come to its end."""
        if not self._expected or self.flow.read_paused:  # the caller waits for us
            return
        self._ticks += 1
        if self._ticks > PATIENCE:
            self._refuse(408 if self._beside else None)

    def _refuse(self, status: int | None) -> None:
        """Close, with an answer where none is under way; at the second time, at once."""
        if self.transport.is_closing():
            self.transport.abort()
            return
        if status is not None and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(
                STATUS_LINE[status] + b"connection: close\r\ncontent-length: 0\r\n\r\n"
            )
        self.transport.close()


def sweep(connections: Collection[Any]) -> None:
    """To be called each second with a server's connections."""
    for connection in tuple(connections):
        connection.tick()


def _head_size(scope: Any) -> int:
    """About how many bytes a request's line and headers had."""
    lines = sum(len(name) + len(text) + 4 for name, text in scope["headers"])
    return lines + len(scope["raw_path"]) + len(scope["query_string"])


async def _too_large(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 431, "headers": headers})
    await send({"type": "http.response.body"})


def _answer(
    cycle: RequestResponseCycle, status: int, media_type: bytes | None, body: bytes
) -> bool:
    """Write a whole answer and end the cycle, as `RequestResponseCycle.send` does in two calls.
    False, and nothing done, where it has to go the ordinary way.
    """
    if cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
        return False
    lines = [STATUS_LINE[status]]
    for name, value in cycle.default_headers:
        lines += (name, b": ", value, b"\r\n")
    if media_type is not None:
        lines += (b"content-type: ", media_type, b"\r\n")
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"content-length: %d\r\n\r\n" % len(body))
    lines.append(body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(lines))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
