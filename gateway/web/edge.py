"""The edge: what stands between the server and the calls under /otp/.

Plain ASGI, for these calls are the hot path: routing, middleware and request objects of a framework
would cost as much as everything a send does in here. A call is looked up in a table, runs, and its
answer or its refusal leaves as bytes. Starlette serves the rest.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.domain.errors import GatewayError, Unavailable
from gateway.store.engine import StoreError
from gateway.web import errors
from gateway.web.errors import Answer, TooLarge, WrongType
from gateway.web.wire import DIRECT, Exchange

NO_CONTENT = 204


class Log(Protocol):
    """The part of structlog that is used."""

    def error(self, event: str, **facts: object) -> object: ...


class CutShort(Exception):
    """The caller went before the body was whole. Nobody is there to be answered."""


class Call:
    """One request. `tail`: what follows the endpoint's path, already decoded; `direct`: the short
    way, where the server has one."""

    __slots__ = ("_headers", "direct", "method", "path", "receive", "scope", "tail")

    def __init__(self, scope: Scope, receive: Receive, tail: str = "") -> None:
        self.scope = scope
        self.receive = receive
        self.tail = tail
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.direct: Exchange | None = scope.get(DIRECT)
        self._headers: dict[bytes, bytes] | None = None

    def header(self, name: bytes) -> str | None:
        """A header by its lower-case name, the first of several; None when it is missing."""
        headers = self._headers
        if headers is None:
            headers = self._headers = dict(reversed(self.scope["headers"]))
        text = headers.get(name)
        return None if text is None else text.decode("latin-1")

    def query(self) -> list[tuple[str, str]]:
        """The query's parameters in their order."""
        raw = self.scope["query_string"].decode("latin-1")
        return parse_qsl(raw, keep_blank_values=True)

    async def json(self, most: int) -> bytes:
        """The raw body of a JSON request. Raises WrongType, TooLarge or CutShort."""
        kind = self.header(b"content-type") or ""
        if (
            kind != "application/json"
            and kind.partition(";")[0].strip().lower() != "application/json"
        ):
            raise WrongType
        return await self.body(most)

    async def body(self, most: int) -> bytes:
        """The raw body, if it has at most so many bytes. Raises TooLarge, before reading on, and
        CutShort: what has come of a body that ends early may read as something else."""
        if (direct := self.direct) is not None and (here := direct.whole()) is not None:
            if len(here) > most:
                raise TooLarge
            return here
        length = self.header(b"content-length")
        if length is not None and length.isdigit() and int(length) > most:
            raise TooLarge
        whole, more = b"", True
        while more:
            if len(whole) > most:
                raise TooLarge
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise CutShort
            whole += message.get("body", b"")
            more = message.get("more_body", False)
        if len(whole) > most:
            raise TooLarge
        return whole


@dataclass(frozen=True, slots=True)
class Stream:
    """A response that leaves piece by piece, until `chunks` ends or the caller goes."""

    chunks: AsyncGenerator[bytes]
    headers: tuple[tuple[bytes, bytes], ...]


Endpoint = Callable[[Call], Awaitable[Answer | Stream]]
Methods = Mapping[str, Endpoint]
Refused = Callable[[str, str], None]  # the call's path as the table has it, the problem's code


def _uncounted(call: str, code: str) -> None:
    """Refusals are not counted."""


class Edge:
    """Calls by path, calls below a path, and an application for everything else. Below a path is
    either all that follows it (`/a/`), or what has the form of one with an `{id}` (`/a/{id}/b`).

    Every refusal becomes its problem, and below that lies a net: an unforeseen error is a 500
    problem and a line in the log. A request that was cut short gets no answer and leaves nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        calls: Mapping[str, Methods],
        below: Mapping[str, Methods],
        log: Log,
        refused: Refused = _uncounted,
    ) -> None:
        self._app = app
        self._calls = calls
        self._below = dict(below)
        self._parts = tuple((*path.partition("{id}"), several) for path, several in below.items())
        self._log = log
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        methods, tail = self._calls.get(path), ""
        if methods is None:
            methods, tail = self._find(path)
        call = Call(scope, receive, tail)
        method = call.method
        try:
            if methods is None:
                await self._app(scope, receive, send)
                return
            endpoint = methods.get(method if method != "HEAD" else "GET")
            answer = self._not_allowed(call, methods) if endpoint is None else await endpoint(call)
        except (CutShort, ClientDisconnect):  # ours, and the one of Starlette's pages
            return
        except Exception as error:  # noqa: BLE001  the net
            answer = self._instead(call, error, ours=methods is not None)
        if isinstance(answer, Stream):
            await _flow(answer, scope, receive, send)
            return
        status, body, media_type, headers = answer
        direct = call.direct
        if (
            direct is None
            or headers
            or status == NO_CONTENT
            or method == "HEAD"
            or not direct.answer(status, media_type, body)  # it has not left in one write
        ):
            await _respond(answer, scope, send)

    def _find(self, path: str) -> tuple[Methods | None, str]:
        """The methods below a path, and its tail. None where the path is not ours."""
        for beginning, named, rest, several in self._parts:
            if path.startswith(beginning):
                tail = path[len(beginning) :]
                if not named or "".join(tail.partition("/")[1:]) == rest:
                    return several, tail
        return None, ""

    def _not_allowed(self, call: Call, methods: Methods) -> Answer:
        self._refused(_matched(call.path, call.tail), "method_not_allowed")
        allowed = [*methods, "HEAD"] if "GET" in methods else methods
        return errors.method_not_allowed(", ".join(allowed))

    def _instead(self, call: Call, error: Exception, *, ours: bool) -> Answer:
        """What is answered in place of what `error` has ended. `ours`: an endpoint's, not the
        other application's, for which every error is unforeseen."""
        where = _matched(call.path, call.tail) if ours else "other"
        try:
            refusal = self._refusal(call, error) if ours else None
            if refusal is not None:
                code, answer = refusal
                self._refused(where, code)
                return answer
        except Exception as defect:  # noqa: BLE001  in a refusal
            error = defect
        self._log.error("unforeseen", path=_shown(call.path), exc_info=error)
        self._refused(where, "internal_error")
        return errors.INTERNAL

    def _refusal(self, call: Call, error: Exception) -> tuple[str, Answer] | None:
        """The code and the problem of an endpoint's error; None of one that was not foreseen."""
        if isinstance(error, StoreError):
            self._log.error("storage", path=_shown(call.path), problem=str(error))
            error = Unavailable(
                "storage", "The database does not answer. Send it again.", retry_after=1
            )
        if isinstance(error, GatewayError | TooLarge | WrongType):
            return errors.code_of(error), errors.refusal(error)
        return None


async def _respond(answer: Answer, scope: Scope, send: Send) -> None:
    headers: list[tuple[bytes, bytes]] = []
    if answer.status != NO_CONTENT:  # which has no length (RFC 9110 §8.6)
        headers.append((b"content-length", b"%d" % len(answer.body)))
    if answer.media_type is not None:
        headers.append((b"content-type", answer.media_type))
    headers += answer.headers
    start: dict[str, Any] = {
        "type": "http.response.start",
        "status": answer.status,
        "headers": headers,
    }
    await send(start)
    body = b"" if scope["method"] == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})


def _matched(path: str, tail: str) -> str:
    """The path as the table has it."""
    return path[: len(path) - len(tail)]


async def _flow(stream: Stream, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the pieces as they come; whoever makes them is told when nobody listens any more."""
    head: dict[str, Any] = {"type": "http.response.start", "status": 200}
    await send({**head, "headers": list(stream.headers)})
    gone = asyncio.ensure_future(_gone(receive))
    try:
        while scope["method"] != "HEAD":
            chunk = asyncio.ensure_future(anext(stream.chunks, None))
            await asyncio.wait({chunk, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not chunk.done():
                chunk.cancel()
                await asyncio.wait({chunk})
                return
            piece = chunk.result()
            if piece is None:
                break
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()
        await stream.chunks.aclose()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _shown(path: str) -> str:
    """The path without a callback's key."""
    return "/".join(path.split("/")[:4])
