"""HTTP answers that the simulated providers share: JSON, refusals, and one that breaks off."""

from collections.abc import Awaitable, Callable, Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]


class Refusal(Exception):
    """A request that is refused, as JSON."""

    def __init__(self, status: int, body: Mapping[str, object]) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


class Dropped(ConnectionResetError):
    """Raised to make the server cut the connection; what an in-process caller gets to see."""


class HalfAnswer(Response):
    """An answer of which only the first half is sent.

    ASGI has no way to close a connection unanswered: a server turns an exception before the first
    byte into a 500. So the head announces the whole body, half of it follows, and the exception
    that comes then leaves the server nothing but to close the socket. The caller sees a broken
    answer: it cannot know the outcome, which is the point. (uvicorn logs the exception.)
    """

    def __init__(self, whole: Response) -> None:
        super().__init__(bytes(whole.body), whole.status_code, dict(whole.headers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        half = bytes(self.body[: len(self.body) // 2])
        await send(head)
        await send({"type": "http.response.body", "body": half, "more_body": True})
        raise Dropped("the sandbox dropped this connection, as the number asked")


def json_answer(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in JSON."""
    content = orjson.dumps(body, option=orjson.OPT_UTC_Z)
    return Response(content, status, headers, "application/json")


def refusing(endpoint: Endpoint) -> Endpoint:
    """The endpoint, its refusals answered."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            return json_answer(refusal.body, refusal.status)

    return answered
