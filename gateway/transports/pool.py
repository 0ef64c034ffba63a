"""`ConnectionPool` carries single requests over kept-alive HTTP/1.1 connections.

The way of a request: it waits for its turn, takes a connection that rests or has one opened, is
written once, and is answered. The connection rests again if the answer left it fit for more. Before
it is written, `request.extensions[STAGE]` is marked SENT; who fails without that mark has surely
sent nothing.

A client of our own, since what it does is little (no redirects, cookies, proxies or second tries)
and a general one costs five times the CPU: see docs/performance.md.
"""

import asyncio
import ssl
from collections import deque

import httptools
import httpx
from aiohappyeyeballs import SocketFactoryType

from gateway.ports import Request, Response
from gateway.transports.connection import Connection, Disconnected, Unusable
from gateway.transports.http import MAX_BODY, STAGE, Stage
from gateway.transports.messages import Origin, incoming, outgoing
from gateway.transports.opening import Opener, Resolver

_PORTS = {b"http": 80, b"https": 443}
_SENT = Stage.SENT  # read for every call, and slow to read from an enumeration before Python 3.12

# What an error means, before anything was written and afterwards: the first row that fits.
_Table = tuple[tuple[type[Exception], type[httpx.TransportError]], ...]
_BEFORE: _Table = (
    (TimeoutError, httpx.ConnectTimeout),
    (OSError, httpx.ConnectError),  # DNS, TCP, TLS; some are ValueErrors too
    (ValueError, httpx.UnsupportedProtocol),  # such an address cannot be
    (Exception, httpx.ConnectError),
)
_AFTER: _Table = (
    (TimeoutError, httpx.ReadTimeout),
    (Unusable, httpx.RemoteProtocolError),
    (httptools.HttpParserError, httpx.RemoteProtocolError),
    (OSError, httpx.ReadError),  # reset, broken pipe
    (Exception, httpx.LocalProtocolError),
)


class ConnectionPool(httpx.AsyncBaseTransport):
    """Connections opened on first use and kept, for one event loop.

    Best one for each route, for a vendor that hangs holds all the turns it can get.

    `limit`: requests under way at once; the others wait their turn, in order.
    `keepalive`: seconds an idle connection is kept. Shorter than the vendors' own, or requests
    meet connections that are just being closed, and are Lost.
    `connect_timeout`: seconds for name look-up, TCP and TLS together. `max_body`: bytes, decoded.
    `ssl_context`: whom to trust; the system's authorities by default. `resolver`, `sockets`: how
    names are looked up and sockets made; see `guard`.
    """

    def __init__(
        self,
        *,
        limit: int = 100,
        keepalive: float = 15.0,
        connect_timeout: float = 5.0,
        max_body: int = MAX_BODY,
        ssl_context: ssl.SSLContext | None = None,
        resolver: Resolver | None = None,
        sockets: SocketFactoryType | None = None,
    ) -> None:
        self._turns = limit  # that are free
        self._queue: deque[asyncio.Future[None]] = deque()  # who waits for one
        self._keepalive = keepalive
        self._connect_timeout = connect_timeout
        self._max_body = max_body
        self._opener = Opener(ssl_context=ssl_context, resolver=resolver, sockets=sockets)
        self._opening: set[asyncio.Task[None]] = set()
        self._open: set[Connection] = set()
        self._resting: dict[Origin, list[Connection]] = {}  # the one that rests longest is first
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None  # awaited by who closes

    async def handle_async_request(self, request: Request) -> Response:
        """Sends `request` once. `request.extensions["timeout"]` has httpx's meaning.

        Raises ConnectError, ConnectTimeout, PoolTimeout or UnsupportedProtocol where nothing can
        have left, ReadTimeout, ReadError, RemoteProtocolError or LocalProtocolError otherwise.
        """
        if self._turns:
            self._turns -= 1
        else:
            await self._turn(request)
        try:
            try:
                content = request.content
            except httpx.RequestNotRead:
                request.extensions[STAGE] = Stage.POOL
                content = await request.aread()
            message, origin = outgoing(request, content)
            connection = self._rested(origin)
            if connection is None:
                connection = await self._connected(origin, request)
            limits = request.extensions.get("timeout")
            request.extensions[STAGE] = _SENT
            try:  # the one writing, and what comes of it
                status, fields, body = await connection.ask(
                    message,
                    bodiless=request.method == "HEAD",
                    silence=None if limits is None else limits.get("read"),
                )
                response = incoming(status, fields, body, request, self._max_body)
            except Exception as error:
                connection.close()
                raise _translated(error, _AFTER, request) from error
            except BaseException:
                connection.close()  # nobody waits for the answer, so none may come later
                raise
            if connection.open:
                self._rest(connection, origin)
            return response
        finally:
            if self._queue:
                self._pass_on()
            else:
                self._turns += 1

    async def aclose(self) -> None:
        """Closes all connections; later requests end in ConnectError."""
        self._closed = True
        for waiter in self._queue:
            if not waiter.done():
                waiter.set_exception(Disconnected())
        if self._sweeper is not None:
            self._sweeper.cancel()
        for opening in self._opening:
            opening.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        self._resting.clear()
        for connection in tuple(self._open):
            connection.close()
        if self._open:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied
        await self._opener.close()

    # --- Turns ---

    async def _turn(self, request: Request) -> None:
        """Waits until somebody passes a turn on. Raises PoolTimeout; ConnectError: closed."""
        request.extensions[STAGE] = Stage.POOL
        limits = request.extensions.get("timeout") or {}
        waiter = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            async with asyncio.timeout(limits.get("pool")):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._pass_on()  # the turn came, too late
            if isinstance(error, TimeoutError):
                raise httpx.PoolTimeout("busy", request=request) from error
            if isinstance(error, Disconnected):
                raise httpx.ConnectError("closed", request=request) from error
            raise

    def _pass_on(self) -> None:
        """The turn goes to who waits longest."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._turns += 1

    # --- Connections ---

    def _rested(self, origin: Origin) -> Connection | None:
        """The connection that was used last, for it is the least likely to be closed just now."""
        resting = self._resting.get(origin)
        if resting:
            latest = self._loop.time() - self._keepalive
            while resting:
                connection = resting.pop()
                if connection.open and connection.rests_since > latest:
                    return connection
                connection.close()
        return None

    def _rest(self, connection: Connection, origin: Origin) -> None:
        connection.rests_since = self._loop.time()
        resting = self._resting.get(origin)
        if resting is None:
            resting = self._resting[origin] = []
        resting.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._keepalive, self._sweep)

    def _sweep(self) -> None:
        """Closes what has rested too long, as long as anything rests."""
        latest = self._loop.time() - self._keepalive
        oldest = []
        for origin, resting in tuple(self._resting.items()):
            while resting and (not resting[0].open or resting[0].rests_since <= latest):
                resting.pop(0).close()
            if resting:
                oldest.append(resting[0].rests_since)
            else:
                del self._resting[origin]
        self._sweeper = None
        if oldest:
            self._sweeper = self._loop.call_at(min(oldest) + self._keepalive, self._sweep)

    async def _connected(self, origin: Origin, request: Request) -> Connection:
        """A new connection. Raises UnsupportedProtocol, ConnectTimeout, ConnectError."""
        request.extensions[STAGE] = Stage.CONNECT
        scheme, host, port = origin
        if self._closed:
            raise httpx.ConnectError("closed", request=request)
        if scheme not in _PORTS or not host:
            raise httpx.UnsupportedProtocol("not http", request=request)
        self._loop = asyncio.get_running_loop()
        connection = Connection(self._max_body, self._open.add, self._gone)
        opening = self._loop.create_task(
            self._opener.open(
                connection,
                host=host.decode("ascii"),
                port=port or _PORTS[scheme],
                secure=scheme == b"https",
            )
        )
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        limits = request.extensions.get("timeout")
        within = self._connect_timeout if limits is None else limits.get("connect")
        try:
            async with asyncio.timeout(within):
                await opening
        except BaseException as error:
            if connection.open:
                connection.close()  # it came, too late
            if isinstance(error, Exception):
                raise _translated(error, _BEFORE, request) from error
            if isinstance(error, asyncio.CancelledError) and self._closed and not _cancelled():
                raise httpx.ConnectError("closed", request=request) from error
            raise
        if not connection.open:
            raise httpx.ConnectError("closed or spoke unasked", request=request)
        return connection

    def _gone(self, connection: Connection) -> None:
        self._open.discard(connection)
        if self._emptied is not None and not self._open and not self._emptied.done():
            self._emptied.set_result(None)


def _translated(error: Exception, table: _Table, request: Request) -> httpx.TransportError:
    kind = next(kind for cause, kind in table if isinstance(error, cause))
    return kind(type(error).__name__, request=request)


def _cancelled() -> bool:
    """Whether someone asked this task to end. A closing pool cancels what opens, not who waits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
