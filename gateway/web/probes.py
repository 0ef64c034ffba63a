"""What this is, whether it lives, whether it is ready."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import __version__
from gateway.web.bodies import dumps


class Probes:
    """`ready` names the problems, for which this process is not ready, and the warnings."""

    def __init__(
        self, ready: Callable[[], Awaitable[tuple[dict[str, str], dict[str, str]]]]
    ) -> None:
        self._ready = ready

    def routes(self) -> list[Route]:
        """The probes."""
        return [
            Route("/", self.about, methods=["GET"]),
            Route("/healthz", self.alive, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
        ]

    async def about(self, request: Request) -> Response:
        calls = [f"/otp/{name}" for name in ("send", "status", "verify", "cancel", "next")]
        calls += ["/otp/events", "/otp/subscriptions"]
        body = {"name": "otp-gateway", "version": __version__, "calls": calls}
        return Response(dumps(body), media_type="application/json")

    async def alive(self, request: Request) -> Response:
        return Response(dumps({"status": "ok"}), media_type="application/json")

    async def ready(self, request: Request) -> Response:
        wrong, odd = await self._ready()
        status = "not ready" if wrong else "ready"
        body = {"status": status, "problems": wrong, "warnings": odd}
        return Response(dumps(body), 503 if wrong else 200, media_type="application/json")
