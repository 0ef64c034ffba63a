"""Receipts come in: raw bytes to the service, an empty 2xx back once they are stored.

Octopush asks for an answer within a second and without a byte of body; every other provider is
content with the same. A 401 leaves nothing behind; a 503 asks the provider to come again.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.domain.errors import NotFound
from gateway.ports import Callback
from gateway.services import receive
from gateway.services.runtime import Runtime
from gateway.web.api import body_within

MAX_BODY = 256 * 1024  # bytes


class Callbacks:
    """/otp/delivered, over one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def routes(self) -> list[Route]:
        """A route's own URL, with or without key, and the short form for a single route."""
        methods = ["GET", "POST"]
        return [
            Route("/otp/delivered/{route}/{key}", self.delivered, methods=methods),
            Route("/otp/delivered/{route}/", self.delivered, methods=methods),
            Route("/otp/delivered/{route}", self.delivered, methods=methods),
            Route("/otp/delivered", self.delivered, methods=methods),
        ]

    async def delivered(self, request: Request) -> Response:
        name = request.path_params.get("route") or self._default()
        key = request.path_params.get("key")
        callback = Callback(
            method=request.method,
            url=self._public(request),
            key=key,
            headers=_headers(request),
            query=dict(request.query_params),
            body=await body_within(request, MAX_BODY),
            received_at=self._runtime.now(),
            attempt_id=receive.token_of(self._runtime, key),
        )
        reply = await receive.receive(self._runtime, name, callback)
        if reply is None:
            return Response(status_code=200)
        return Response(reply.body, reply.status, media_type=reply.content_type)

    def _default(self) -> str:
        """Without a name there must be a single route to mean."""
        names = list(self._runtime.routes)
        if len(names) != 1:
            raise NotFound("unknown_route", "Name the route: /otp/delivered/{route}/{key}.")
        return names[0]

    def _public(self, request: Request) -> str:
        """The URL the provider called, as configured and not as a proxy rewrote it."""
        query = request.url.query
        return f"{self._runtime.public_url}{request.url.path}" + (f"?{query}" if query else "")


def _headers(request: Request) -> dict[str, str]:
    """Lower-case names; one that came twice is joined so that it matches nothing."""
    headers: dict[str, str] = {}
    for name, text in request.headers.items():
        headers[name] = f"{headers[name]}\n{text}" if name in headers else text
    return headers
