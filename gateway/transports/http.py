"""HTTP calls: `HttpTransport` is what the engine sends with, a `ConnectionPool` what carries it.

A call without an answer ends in one of two ways, and on their difference stands "never twice".
NotSent: not a byte of the request has left us, so the next route may be tried at once. Lost: it
may have left, the message may be on its way, so nothing is sent until a receipt or patience has
decided. Only what is proved is NotSent; everything else is Lost. The proof is a mark that
the pool keeps in `request.extensions[STAGE]`, changed to SENT before the first byte is given to the
connection. Nothing here sends a request a second time.

URLs, headers and bodies carry secrets, and the texts of the libraries' errors quote them. Errors
leave here with a class name, host and port only, and with no other error chained to them.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import StrEnum

import httpx

from gateway.ports import Answered, Auth, Lost, NotSent, Request, Response, TransportError
from gateway.transports.deadlines import Deadlines
from gateway.transports.messages import Incoming

__all__ = ["MAX_BODY", "STAGE", "HttpTransport", "Stage"]

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


class HttpTransport:
    """A `ports.Transport` over any httpx transport: total time limit, auth flow, bounded body.

    `inner` carries single requests: a `ConnectionPool`, or in tests an `httpx.MockTransport`.
    `max_body` is in bytes, decoded; an answer above it is Lost.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, *, max_body: int = MAX_BODY) -> None:
        self._inner = inner
        self._max_body = max_body
        self._deadlines = Deadlines()

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
        limit = self._deadlines.start(within)
        try:
            if auth is None:
                return await self._exchange(request)
            return await self._authenticated(request, auth)
        except asyncio.CancelledError:
            if not self._deadlines.end(limit):
                raise
        finally:
            self._deadlines.end(limit)
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
            if not isinstance(response, Incoming):
                response.request = request
                if not response.is_closed:
                    response = await _read(response, self._max_body)
            if len(response.content) > self._max_body:
                raise httpx.RemoteProtocolError("too large")
        except (httpx.RequestError, httpx.InvalidURL) as error:
            kind, reason = _REASONS.get(type(error), (Lost, "transport_error"))
            name = type(error.__cause__ or error).__name__
        else:
            return response
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
    """The response with its body in memory, or with as much of it as is already too much."""
    body = bytearray()
    async with aclosing(response):
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > most:
                break
    return Incoming(response.status_code, response.headers.raw, bytes(body), response.request)


def _where(request: Request) -> str:
    port = request.url.port or {"http": 80, "https": 443}.get(request.url.scheme)
    return f"{request.url.host}:{port}"
