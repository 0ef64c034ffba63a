"""HTTP calls: `HttpTransport` is what the engine sends with, `AiohttpTransport` what carries it.

A call without an answer ends in one of two ways, and on their difference stands "never twice".
NotSent: not a byte of the request has left us, so the next route may be tried at once. Lost: it
may have left, the message may be on its way, so nothing is sent until a receipt or patience has
decided. Only what is proved is NotSent; everything else is Lost. The proof is a mark that
`AiohttpTransport` keeps in `request.extensions[STAGE]`, changed to SENT before the first byte is
given to the connection. Nothing here sends a request a second time.

URLs, headers and bodies carry secrets, and the texts of the libraries' errors quote them. Errors
leave here with a class name, host and port only, and with no other error chained to them.

Over 400 lines, since the proof of NotSent runs from the pool to the last byte of the answer.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from enum import StrEnum
from typing import Any, cast

import aiohttp
import httpx
import yarl
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

from gateway.ports import Answered, Auth, Lost, NotSent, Request, Response, TransportError
from gateway.transports.guard import NoUsableAddress

__all__ = ["MAX_BODY", "STAGE", "AiohttpTransport", "HttpTransport", "Stage"]

MAX_BODY = 256 * 1024  # bytes of an answer, decoded
STAGE = "gateway.stage"  # the key of the mark in `request.extensions`


class Stage(StrEnum):
    """How far a request has come. One without a mark counts as sent."""

    AUTH = "auth"  # a token is fetched first
    POOL = "pool"  # all connections are busy
    CONNECT = "connect"  # name look-up, TCP, TLS
    SENT = "sent"  # the connection stands; from here on nothing is certain


# What an httpx error says, by its very class: a subclass might mean something else.
_REASONS: dict[type[Exception], tuple[type[TransportError], str]] = {
    httpx.ConnectError: (NotSent, "connect_error"),
    httpx.ConnectTimeout: (NotSent, "connect_timeout"),
    httpx.PoolTimeout: (NotSent, "pool_timeout"),
    httpx.UnsupportedProtocol: (NotSent, "bad_url"),
    httpx.InvalidURL: (NotSent, "bad_url"),
    httpx.ReadTimeout: (Lost, "read_timeout"),
    httpx.ReadError: (Lost, "read_error"),
    httpx.WriteError: (Lost, "write_error"),
    httpx.RemoteProtocolError: (Lost, "protocol_error"),
}

# What an aiohttp error means: the first row that fits. The mark decides which table is read, for
# no class of aiohttp's proves by itself that nothing was written.
_Table = tuple[tuple[type[Exception], type[httpx.TransportError]], ...]
_BEFORE: _Table = (
    (aiohttp.ClientConnectorError, httpx.ConnectError),  # DNS, TCP, TLS; some are ValueErrors too
    (TimeoutError, httpx.ConnectTimeout),
    (ValueError, httpx.UnsupportedProtocol),  # among them aiohttp.InvalidURL
    (Exception, httpx.ConnectError),  # closed meanwhile
)
_AFTER: _Table = (
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (HttpProcessingError, httpx.RemoteProtocolError),
    (OSError, httpx.ReadError),  # reset, broken pipe
    (Exception, httpx.LocalProtocolError),  # a header with a line break
)
_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)  # what aiohttp raises

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_OUTDATED = _FRAMING | {b"content-encoding"}  # no longer true of a body that is read and decoded
_NOTHING = httpx.ByteStream(b"")
_BODILESS = frozenset({"GET", "HEAD"})
_ORIGINS = 64  # addresses remembered


class HttpTransport:
    """A `ports.Transport` over any httpx transport: total time limit, auth flow, bounded body.

    `inner` carries single requests: an `AiohttpTransport`, or in tests an `httpx.MockTransport`.
    `max_body` is in bytes, decoded; an answer above it is Lost.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, *, max_body: int = MAX_BODY) -> None:
        self._inner = inner
        self._max_body = max_body

    async def send(self, request: Request, *, within: float, auth: Auth | None = None) -> Response:
        """The response to `request`, its body read and decoded. Redirects are not followed.

        `within`: seconds for all of it, the token that `auth` may fetch included; a server that
        keeps dripping does not extend them. The flow of `auth` yields `request` itself, changed as
        it likes. A request to another address is the fetching of a token: its failure is NotSent,
        reason auth_…. A flow that raises Answered before `request` was sent makes that answer the
        response; after it, the outcome is Lost.

        Raises NotSent or Lost. An error of `inner` that is not httpx's passes through.
        """
        request.extensions.pop(STAGE, None)
        try:
            async with asyncio.timeout(within):
                if auth is None:
                    return await self._exchange(request)
                return await self._authenticated(request, auth)
        except TimeoutError:
            stage = request.extensions.get(STAGE, Stage.SENT)
        if stage is Stage.SENT:
            raise Lost("timeout", _where(request))
        raise NotSent(f"{stage}_timeout", _where(request))

    async def aclose(self) -> None:
        """Closes `inner`. What is under way ends in NotSent or Lost."""
        await self._inner.aclose()

    async def _exchange(self, request: Request) -> Response:
        """One request, one answer; httpx's errors in our words."""
        try:
            response = await self._inner.handle_async_request(request)
            response.request = request
            return await _read(response, self._max_body)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            kind, reason = _REASONS.get(type(error), (Lost, "transport_error"))
            name = type(error.__cause__ or error).__name__
        raise kind(reason, f"{name} {_where(request)}")

    async def _authenticated(self, request: Request, auth: Auth) -> Response:
        """Walks the flow. The mark is AUTH as long as `request` has surely done nothing."""
        answer = None
        request.extensions[STAGE] = Stage.AUTH
        async with aclosing(auth.async_auth_flow(request)) as flow:
            step = await _next_step(flow, None, request)
            while step is not None:
                if isinstance(step, Response):
                    return step  # of a question asked first: `request` stays here
                if _fetches_token(step, request):
                    response = await self._token(step, request)
                else:
                    response = answer = await self._submit(step, request)
                step = await _next_step(flow, response, request)
        if answer is None:
            raise NotSent("auth_refused", _where(request))
        return answer

    async def _submit(self, step: Request, request: Request) -> Response:
        marks = {**request.extensions, **step.extensions}
        marks.pop(STAGE, None)
        step.extensions = request.extensions = marks  # a copy leaves its mark where it is read
        response = await self._exchange(step)
        if response.status_code == 401:  # the vendor did not act on it
            request.extensions[STAGE] = Stage.AUTH
        return response

    async def _token(self, step: Request, request: Request) -> Response:
        """A lost token request is no lost message: what counts is how far `request` has come."""
        try:
            return await self._exchange(step)
        except TransportError as error:
            reason, detail = error.reason, error.detail
        raise _auth_failure(request)(f"auth_{reason}", detail)


async def _next_step(
    flow: AsyncGenerator[Request, Response], response: Response | None, request: Request
) -> Request | Response | None:
    """What the flow wants to send next, None at its end; a response if it ends with one."""
    try:
        return await (anext(flow) if response is None else flow.asend(response))
    except StopAsyncIteration:
        return None
    except TransportError:
        raise
    except Answered as instead:
        if request.extensions.get(STAGE) is Stage.AUTH:
            return instead.response
        name = type(instead).__name__  # too late: `request` may have done something
    except Exception as error:  # noqa: BLE001 (an answer without a token breaks a flow in any way)
        name = type(error).__name__
    raise _auth_failure(request)("auth_error", f"{name} {_where(request)}")


def _auth_failure(request: Request) -> type[TransportError]:
    return NotSent if request.extensions.get(STAGE) is Stage.AUTH else Lost


def _fetches_token(step: Request, request: Request) -> bool:
    """Whether it is another request than the one to be sent, copies of which count as it."""
    one, other = step.url, request.url
    return step is not request and (one.host, one.path) != (other.host, other.path)


async def _read(response: Response, most: int) -> Response:
    """The response with its body in memory: itself where it was read already."""
    if not response.is_closed:
        body = bytearray()
        async with aclosing(response):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > most:
                    break
        response = _Answer(
            response.status_code, response.headers.raw, bytes(body), response.request
        )
    if len(response.content) > most:
        raise httpx.RemoteProtocolError("too large")
    return response


def _where(request: Request) -> str:
    port = request.url.port or {"http": 80, "https": 443}.get(request.url.scheme)
    return f"{request.url.host}:{port}"


class _Answer(httpx.Response):
    """A response that arrives read. `httpx.Response(content=…)` says the same for 20 µs more."""

    def __init__(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, request: Request
    ) -> None:
        kept = [pair for pair in headers if pair[0].lower() not in _OUTDATED]
        kept.append((b"Content-Length", b"%d" % len(body)))
        super().__init__(status, headers=kept, stream=_NOTHING, request=request)
        self._content = body
        self.is_closed = self.is_stream_consumed = True


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Carries single requests over kept-alive aiohttp connections, opened on first use.

    Best one for each route, for a vendor that hangs holds all the turns it can get.

    `limit`: requests under way at once; the others wait their turn, in order.
    `keepalive`: seconds an idle connection is kept. Shorter than the vendors' own, or requests
    meet connections that are just being closed, and are Lost.
    `connect_timeout`: seconds for name look-up, TCP and TLS together. `max_body`: bytes, decoded.
    `ssl_context`: whom to trust; the system's authorities by default. `resolver`, `sockets`: how
    names are looked up and sockets made, as aiohttp's connector takes them; see `guard`.

    It speaks through aiohttp's connector and parser, without its `ClientSession`: that sends GET,
    PUT and DELETE again when a kept connection breaks and does not tell whether it had begun to
    write. Without it there are also no redirects and no cookies. Head and body leave in one write,
    so that there is one moment before which nothing has left; a call costs half.
    """

    def __init__(
        self,
        *,
        limit: int = 100,
        keepalive: float = 15.0,
        connect_timeout: float = 5.0,
        max_body: int = MAX_BODY,
        ssl_context: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
        sockets: Any = None,
    ) -> None:
        self._slots = asyncio.Semaphore(limit)
        self._keepalive = keepalive
        self._limits = aiohttp.ClientTimeout(connect=connect_timeout)
        self._max_body = max_body
        self._ssl = ssl_context
        self._resolver = resolver
        self._sockets = sockets
        self._connector: aiohttp.TCPConnector | None = None
        self._origins: dict[tuple[bytes, bytes, int | None], aiohttp.ClientRequest] = {}
        self._closed = False

    async def handle_async_request(self, request: Request) -> Response:
        """Sends `request` once. `request.extensions["timeout"]` has httpx's meaning.

        Raises ConnectError, ConnectTimeout, PoolTimeout or UnsupportedProtocol where nothing can
        have left, ReadTimeout, ReadError, RemoteProtocolError or LocalProtocolError otherwise.
        """
        request.extensions[STAGE] = Stage.POOL
        content = await request.aread()
        await self._turn(request)
        try:
            request.extensions[STAGE] = Stage.CONNECT
            return await self._call(request, content)
        except _ERRORS as error:
            refused = getattr(error, "os_error", None)
            cause = refused if isinstance(refused, NoUsableAddress) else error
            raise _translated(error, request) from cause
        except asyncio.CancelledError as error:
            if self._closed and not _cancelled():
                raise _translated(aiohttp.ClientConnectionError(), request) from error
            raise
        finally:
            self._slots.release()

    async def aclose(self) -> None:
        """Closes all connections; later requests end in ConnectError."""
        self._closed = True
        if self._connector is not None:
            await self._connector.close()
        if self._resolver is not None:
            await self._resolver.close()

    async def _turn(self, request: Request) -> None:
        limits = request.extensions.get("timeout")
        if limits is None:
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(limits.get("pool")):
                await self._slots.acquire()
        except TimeoutError as error:
            raise httpx.PoolTimeout("busy", request=request) from error

    async def _call(self, request: Request, content: bytes) -> Response:
        connector = self._open(request)
        limits = self._limits
        if timeout := request.extensions.get("timeout"):
            limits = aiohttp.ClientTimeout(
                connect=timeout.get("connect"), sock_read=timeout.get("read")
            )
        head = _head(request, len(content))
        connection = await connector.connect(self._origin(request), [], limits)
        protocol = cast("ResponseHandler", connection.protocol)  # None only once closed
        if protocol.should_close or protocol.transport is None:
            connection.close()
            raise httpx.ConnectError("spoke unasked: its next words may be no answer to us")
        request.extensions[STAGE] = Stage.SENT
        try:
            protocol.set_response_params(
                skip_payload=request.method == "HEAD",
                read_until_eof=True,
                read_timeout=limits.sock_read,
            )
            protocol.transport.write(head + content)
            protocol.start_timeout()
            return await self._answer(connection, protocol, request)
        except BaseException:
            connection.close()
            raise

    async def _answer(
        self, connection: Connection, protocol: ResponseHandler, request: Request
    ) -> Response:
        """Reads the answer. Where it ends as it should, the connection is given back."""
        message, payload = await protocol.read()
        while 100 <= message.code < 200 and message.code != 101:  # an interim word
            message, payload = await protocol.read()
        if protocol.upgraded:
            raise httpx.RemoteProtocolError("switched protocols", request=request)
        body = b"" if payload.at_eof() else await payload.readany()
        while not payload.at_eof() and len(body) <= self._max_body:
            body += await payload.readany()
        if len(body) > self._max_body:
            raise httpx.RemoteProtocolError("too large", request=request)
        connection.release()
        return _Answer(message.code, message.raw_headers, body, request)

    def _origin(self, request: Request) -> aiohttp.ClientRequest:
        """What the connector must know of an address: made once, for it is dear."""
        url = request.url
        key = (url.raw_scheme, url.raw_host, url.port)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= _ORIGINS:
                self._origins.clear()
            address = yarl.URL(str(url), encoded=True).origin()
            origin = aiohttp.ClientRequest("GET", address, loop=self._loop)
            self._origins[key] = origin
        return origin

    def _open(self, request: Request) -> aiohttp.TCPConnector:
        if self._closed:
            raise httpx.ConnectError("closed", request=request)
        if request.url.scheme not in {"http", "https"} or not request.url.host:
            raise httpx.UnsupportedProtocol("not http", request=request)
        if self._connector is None:
            self._loop = asyncio.get_running_loop()
            self._connector = aiohttp.TCPConnector(
                limit=0,  # our slots limit
                keepalive_timeout=self._keepalive,
                ssl=self._ssl or True,
                resolver=self._resolver,
                socket_factory=self._sockets,
            )
        return self._connector


# What stands in a head when the provider does not say otherwise.
_DEFAULTS = (
    (b"accept", b"Accept: */*"),
    (b"accept-encoding", b"Accept-Encoding: identity"),  # answers are short
    (b"user-agent", b"User-Agent: otp-gateway"),
)


def _head(request: Request, length: int) -> bytes:
    """The request line and the headers. Raises LocalProtocolError: a line break in one of them."""
    url = request.url
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), url.raw_path)]
    given = set()
    for name, value in request.headers.raw:
        key = name.lower()
        if key not in _FRAMING:
            given.add(key)
            lines.append(b"%s: %s" % (name, value))
    if b"host" not in given:
        lines.append(b"Host: " + url.netloc)
    lines += [line for key, line in _DEFAULTS if key not in given]
    if length or request.method not in _BODILESS:
        lines.append(b"Content-Length: %d" % length)
    head = b"\r\n".join(lines)
    breaks = len(lines) - 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise httpx.LocalProtocolError("a line break in a header", request=request)
    return head + b"\r\n\r\n"


def _translated(error: Exception, request: Request) -> httpx.TransportError:
    table = _AFTER if request.extensions[STAGE] is Stage.SENT else _BEFORE
    kind = next(kind for cause, kind in table if isinstance(error, cause))
    return kind(type(error).__name__, request=request)


def _cancelled() -> bool:
    """Whether someone asked this task to end. A closing connector cancels whom it makes wait."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
