"""/metrics, for Prometheus, and who may read it.

Sums of messages and failures are a business' own. With a token only its bearer reads them. Without
one they are open where the gateway is not reachable from elsewhere: its public URL is a loopback
address, and so are the caller's and the Host it asks for. The caller's address alone proves
nothing, since a proxy on the same machine calls from 127.0.0.1 for everybody.
"""

import hmac
import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.domain.errors import Forbidden, GatewayError, Unauthenticated
from gateway.web import errors

Render = Callable[[str], tuple[bytes, str]]


class Scrape:
    """The endpoint. `render` takes an Accept header and gives the body and its content type."""

    def __init__(self, render: Render, *, token: str | None, public_url: str) -> None:
        self._render = render
        self._token = token
        self._local = loopback(urlsplit(public_url).hostname)

    def routes(self) -> list[Route]:
        """What is served."""
        return [Route("/metrics", self.metrics, methods=["GET"])]

    async def metrics(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            answer = errors.refusal(refused)
            headers = {name.decode(): text.decode() for name, text in answer.headers}
            media_type = "application/problem+json"
            return Response(answer.body, answer.status, headers, media_type=media_type)
        body, content_type = self._render(request.headers.get("accept", ""))
        headers = {"content-type": content_type, "cache-control": "no-store"}
        return Response(body, headers=headers)

    def _refused(self, request: Request) -> GatewayError | None:
        """Why this caller may not read them."""
        if self._token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            mine = hmac.compare_digest(given.strip().encode(), self._token.encode())
            if scheme.lower() == "bearer" and mine:
                return None
            detail = "Send the token of `metrics.token` as `Authorization: Bearer <token>`."
            return Unauthenticated("metrics_token_wrong", detail)
        caller = request.client.host if request.client is not None else None
        if self._local and loopback(caller) and loopback(_host(request)):
            return None
        return Forbidden(
            "metrics_closed",
            "Without `metrics.token` the metrics are open only on this machine, to a gateway whose "
            "public_url is a loopback address. Set the token, and send it as a bearer token.",
        )


def loopback(host: str | None) -> bool:
    """Whether a host's name or address is this machine's own."""
    if host is None:
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(request: Request) -> str | None:
    """The Host that was asked for, without its port."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return None
