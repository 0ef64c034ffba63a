"""`/openapi.json` and `/docs`: what is served, for programs and for people.

Made on the first request and kept: most processes are never asked. The page is plain HTML with a
style sheet of ours; its policy lets it load nothing else, so that it works offline.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.web import openapi, reference
from gateway.web.bodies import dumps
from gateway.web.operations import Json

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Documents:
    """`served`: paths and methods, as the tables that route them tell."""

    def __init__(self, served: Mapping[str, Iterable[str]]) -> None:
        own = {
            route.path: route.methods or () for route in self.routes() if route.include_in_schema
        }
        self.served = {**served, **own}

    def routes(self) -> list[Route]:
        """What is served here; the page itself is no call."""
        return [
            Route("/openapi.json", self.described, methods=["GET"]),
            Route("/docs", self.shown, methods=["GET"], include_in_schema=False),
            Route("/docs/style.css", self.style, methods=["GET"], include_in_schema=False),
        ]

    @cached_property
    def _document(self) -> Json:
        return openapi.document(self.served)

    @cached_property
    def _json(self) -> bytes:
        return dumps(self._document)

    @cached_property
    def _page(self) -> bytes:
        return reference.page(self._document).encode()

    @cached_property
    def _style(self) -> bytes:
        return resources.files("gateway.web").joinpath("static/docs.css").read_bytes()

    async def described(self, request: Request) -> Response:
        return _answer(request, self._json, "application/json")

    async def shown(self, request: Request) -> Response:
        return _answer(request, self._page, "text/html; charset=utf-8")

    async def style(self, request: Request) -> Response:
        return _answer(request, self._style, "text/css; charset=utf-8")


def _answer(request: Request, body: bytes, media_type: str) -> Response:
    """The body, or 304 where the caller has it."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)
