"""uvicorn's HTTP protocol with a short way in and out for plain requests and answers.

ASGI hands a body over piece by piece, and takes head and body of the answer one after the other,
which uvicorn gives to the socket in two writes, after looking at each header anew. A body that is
there already is had from `scope[DIRECT]` at once, and an answer that is whole from the start leaves
by it in one write: half the system calls, and no caller wakes up to half an answer. What does not
fit that (streams, HEAD, a body under way, a caller who does not read) goes the ordinary way.

And bounds, for uvicorn has few: how many callers there may be, how large a head, how long somebody
may take over a request. Nothing is timed by request: a server calls `sweep` once a second.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gateway.web.writing import Writes, writes_of

Headers = list[tuple[bytes, bytes]]

DIRECT = "gateway.direct"  # the key in the scope, of an Exchange

CONNECTIONS = 10_000  # open at a time; who comes then is told 503
HEAD_MOST = 32 * 1024  # bytes of a request that are not its body: line, headers, framing, trailers
PATIENCE = 10  # seconds for a head, and for a body

_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Exchange(RequestResponseCycle):
    """uvicorn's cycle of a request and its answer, with the short ways. Nothing is logged of a
    request.

    Of what uvicorn's `__init__` sets, the class has what only the ordinary way asks for.
    """

    logger = logging.getLogger("uvicorn.error")
    access_logger = logging.getLogger("uvicorn.access")
    access_log = False
    chunked_encoding: bool | None = None
    expected_content_length = 0

    body: bytes | bytearray  # type: ignore[assignment]  # bytes, when it came in one piece

    def __init__(self, scope: Any, connection: "OneWrite", keep_alive: bool) -> None:
        self.scope = scope
        self.transport = connection.transport
        self.writes = connection.writes
        self.flow = connection.flow
        self.default_headers = connection.server_state.default_headers
        self.on_response = connection.on_response_complete
        self.waiting_for_100_continue = connection.expect_100_continue
        self.keep_alive = keep_alive
        self.disconnected = False
        self.body = b""
        self.more_body = True
        self.response_started = self.response_complete = False
        self._taken = False  # by `whole`
        self.event: asyncio.Event | None = None

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]
        """Set when there is something that `receive` has not told. Few ever wait for that, and an
        event is dear: it is made for the first."""
        event = self.event
        if event is None:
            event = self.event = asyncio.Event()
            if not self._taken and (self.body or not self.more_body):
                event.set()
        return event

    def add(self, body: bytes) -> None:
        """A further piece of the body."""
        if type(self.body) is bytes:
            self.body = bytearray(self.body)
        self.body += body

    def whole(self) -> bytes | None:
        """The body, when all of it has come: what ASGI's first `receive` would hand over, and
        instead of it. None, and nothing done, where that has to be asked.
        """
        if self.more_body or self.disconnected or self.waiting_for_100_continue:
            return None
        if self.flow.read_paused:
            self.flow.resume_reading()
        self._taken = True
        if self.event is not None:
            self.event.clear()
        body, self.body = bytes(self.body), b""
        return body

    def answer(self, status: int, media_type: bytes | None, body: bytes) -> bool:
        """Write a whole answer and end the cycle, as ASGI's `send` does in two calls. False, and
        nothing done, where it has to go the ordinary way.
        """
        if self.response_started or self.disconnected or self.flow.write_paused:
            return False
        given, head = _HEADS.get((status, media_type), _NO_HEAD)
        if given is not self.default_headers:
            head = _keep_head(self.default_headers, status, media_type)
        if not self.keep_alive:
            head += b"connection: close\r\n"
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.writes.write(
            self.transport, b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        )
        if self.event is not None:
            self.event.set()
        scope: Any = self.scope
        del scope[DIRECT]  # they hold each other no longer: nothing is left to the collector
        if not self.keep_alive:
            self.writes.flush()
            self.transport.close()
        self.on_response()
        return True


# Heads by status and media type, each with the server's headers of that second (a list that is
# replaced as a whole), for which alone it is true.
_HEADS: dict[tuple[int, bytes | None], tuple[Headers, bytes]] = {}
_HEADS_MOST = 256
_NO_HEAD: tuple[Headers | None, bytes] = None, b""


def _keep_head(given: Headers, status: int, media_type: bytes | None) -> bytes:
    """Status line and headers of an answer, all but its length."""
    lines = [STATUS_LINE[status]]
    for name, value in given:
        lines += (name, b": ", value, b"\r\n")
    if media_type is not None:
        lines += (b"content-type: ", media_type, b"\r\n")
    if len(_HEADS) >= _HEADS_MOST:
        _HEADS.clear()
    head = b"".join(lines)
    _HEADS[status, media_type] = given, head
    return head


class OneWrite(HttpToolsProtocol):
    """To be given to `uvicorn.Config(http=…)`, with `ws="none"`, no `root_path` and no
    `limit_concurrency`.

    What runs for each request is our own where uvicorn's is dear: a scope and a cycle are made in
    one step, and who is idle is found by `sweep` and not by a timer for each answer.
    """

    cycle: Exchange  # the last one; None before the first
    writes: Writes
    _expected = True  # a request, or the rest of one
    _beside = 0  # bytes of the request so far that are not its body
    _ticks = 0  # sweeps that its head, its body, or the next request has been waited for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.writes = writes_of(self.loop)
        if len(self.connections) > CONNECTIONS:
            self._refuse(503)

    def data_received(self, data: bytes) -> None:
        self.writes.flush()  # what is read may be answered past them, or end the connection
        if not self._expected:
            self._expected, self._ticks = True, 0
        self._beside += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            problem = "Invalid HTTP request received."
            self.logger.warning(problem)
            self.send_400_response(problem)
            return
        except httptools.HttpParserUpgrade:  # to nothing that we speak: it is answered as it is
            self._unsupported_upgrade_warning()
        if self._beside > HEAD_MOST and not self.transport.is_closing():
            self._refuse(431)

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """The head is whole: its scope and cycle, which run now, or after those before it."""
        parser = self.parser
        version = parser.get_http_version()
        raw_path, query = _split(self.url)
        path = raw_path.decode("ascii")
        scope: Any = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "headers": self.headers,
            "state": self.app_state.copy(),
            "method": parser.get_method().decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
        }
        before = self.cycle
        self.scope = scope
        cycle = Exchange(scope, self, version != "1.0" and parser.should_keep_alive())
        self.cycle = scope[DIRECT] = cycle
        app: Any = self.app
        if self._beside > HEAD_MOST and _head_size(scope) > HEAD_MOST:  # it came in one piece
            self._beside, app = 0, _too_large
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, app)
        else:  # pipelined
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))

    def on_body(self, body: bytes) -> None:
        self._beside -= len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        if cycle.body:
            cycle.add(body)
        else:
            cycle.body = body
        if cycle.event is not None:
            cycle.event.set()
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        self._expected, self._beside, self._ticks = False, 0, 0
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            if cycle.event is not None:
                cycle.event.set()

    def on_response_complete(self) -> None:
        """An answer has left: the next of the requests that came meanwhile, if any did."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._expected:
            self._ticks = 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._ticks = 0
        task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def eof_received(self) -> None:
        """The caller has said his last word, and the connection ends: what he is still told first.
        So it is where the server stops."""
        self.writes.flush()

    def shutdown(self) -> None:
        self.writes.flush()
        super().shutdown()

    def tick(self) -> None:
        """A second has passed. Ends a connection whose request does not come to its end, or that
        has been idle for longer than uvicorn's `timeout_keep_alive`."""
        if self.flow.read_paused:  # the caller waits for us
            return
        patience, status = PATIENCE, 408 if self._beside else None
        if not self._expected:
            if not self.cycle.response_complete:
                return
            patience, status = self.timeout_keep_alive, None
        self._ticks += 1
        if self._ticks > patience:
            self._refuse(status)

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


def _split(url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request's target."""
    if url.startswith(b"/") and b"#" not in url:  # as nearly all have it, and the parser lets pass
        path, _, query = url.partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path, parsed.query or b""


def _head_size(scope: Any) -> int:
    """About how many bytes a request's line and headers had."""
    lines = sum(len(name) + len(text) + 4 for name, text in scope["headers"])
    return lines + len(scope["raw_path"]) + len(scope["query_string"])


async def _too_large(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 431, "headers": headers})
    await send({"type": "http.response.body"})
