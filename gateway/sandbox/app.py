"""The sandbox as one ASGI application: the providers' APIs, the phone page, and what tests read."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from gateway.sandbox import (
    aws,
    generic,
    generic_batches,
    mailgun,
    messenger,
    octopush,
    page,
    sendgrid,
    telegram,
    twilio,
    vonage,
    whatsapp,
)
from gateway.sandbox.answers import json_answer
from gateway.sandbox.behaviour import E164, MAILBOX
from gateway.sandbox.carrier import Carrier
from gateway.sandbox.phones import Message
from gateway.sandbox.settings import Now, Post, SandboxSettings, Sleep
from gateway.sandbox.smpp import Smsc
from gateway.sandbox.smtp import MailServer

# Each vendor's API. One without an account in the settings refuses every call.
VENDORS: tuple[Callable[[Carrier], Sequence[BaseRoute]], ...] = (
    octopush.routes,
    messenger.routes,
    telegram.routes,
    twilio.routes,
    whatsapp.routes,
    aws.routes,
    vonage.routes,
    sendgrid.routes,
    mailgun.routes,
    generic.routes,
    generic_batches.routes,
)
MAX_BODY = 64 * 1024
MAX_CHANGES = 1000  # told at once

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Sandbox:
    """The simulated world. `app` is the whole of it for callers; the rest is for tests and
    shutdown.
    """

    def __init__(
        self, settings: SandboxSettings, post: Post, now: Now, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._carrier = Carrier(settings, post, now, sleep)
        self.smsc = Smsc(self._carrier)  # on a port of its own, once it is started
        self._mail = MailServer(self._carrier)
        self.app: ASGIApp = Starlette(
            routes=[
                *(route for vendor in VENDORS for route in vendor(self._carrier)),
                *_Pages(self._carrier).routes(),
            ],
            middleware=[Middleware(_SecurityHeaders)],
            max_body_size=MAX_BODY,
        )

    def messages(self, number: str | None = None) -> list[Message]:
        """What was submitted, refused requests included (`answer.accepts`), newest last."""
        return self._carrier.phones.of(number)

    async def serve_mail(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen for SMTP, which no ASGI server carries. Returns the port."""
        return await self._mail.start(host, port)

    async def drain(self) -> None:
        """Wait until every pending receipt was posted."""
        await self._carrier.drain()

    async def aclose(self) -> None:
        """Drop the pending receipts."""
        await self._mail.aclose()
        await self._carrier.aclose()
        await self.smsc.aclose()


class _Pages:
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._phones = carrier.phones

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self.overview),
            Route("/phones/{number}", self.one),
            Route("/messages", self.messages),
            Route("/messages/clear", self.clear, methods=["POST"]),
            Route("/healthz", self.health),
            Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
        ]

    async def overview(self, request: Request) -> Response:
        return HTMLResponse(page.overview(self._phones, _base(request)))

    async def one(self, request: Request) -> Response:
        number = _number(request.path_params["number"])
        if number is None:
            return json_answer({"error": "not_a_number"}, 404)
        return HTMLResponse(page.one(self._phones, _base(request), number))

    async def messages(self, request: Request) -> Response:
        """`number`: of one phone; `after`: changed since that serial, at most `limit`.

        `serial` in the answer is the `after` of the next call.
        """
        query = request.query_params
        try:
            after, limit = int(query.get("after", "-1")), int(query.get("limit", MAX_CHANGES))
        except ValueError:
            return json_answer({"error": "not_a_whole_number"}, 400)
        number = _number(query["number"]) if "number" in query else None
        if after < 0:
            found, serial = self._phones.of(number), self._phones.serial
        else:
            found, serial = self._changes(after, max(1, min(limit, MAX_CHANGES)), number)
        return json_answer({"serial": serial, "messages": found})

    async def clear(self, request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
            return json_answer({"error": "cross_site"}, 403)
        self._carrier.clear()
        return RedirectResponse(f"{_base(request)}/", 303)

    async def health(self, request: Request) -> Response:
        return json_answer({"status": "ok"})

    def _changes(self, after: int, limit: int, number: str | None) -> tuple[list[Message], int]:
        found = self._phones.changed(after, limit, number)
        return found, found[-1].serial if len(found) == limit else self._phones.serial


class _SecurityHeaders:
    """On every answer, so that none is forgotten."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(event: Event) -> None:
            if event["type"] == "http.response.start":
                MutableHeaders(scope=event).update(HEADERS)
            await send(event)

        await self._app(scope, receive, send_with_headers)


def _base(request: Request) -> str:
    """The path the sandbox is mounted under, "" when it stands alone."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def _number(given: str) -> str | None:
    """A number or a mail address from a URL; a number's plus sign may have become a space there or
    been left out, an address's a space.
    """
    if MAILBOX.fullmatch(address := given.strip().replace(" ", "+")):
        return address
    number = f"+{given.strip().removeprefix('+')}"
    return number if E164.fullmatch(number) else None
