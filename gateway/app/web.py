"""The web application around a gateway: every path, and what answers there."""

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, ExceptionHandler

from gateway.app.gateway import Gateway, Role
from gateway.app.readiness import Readiness
from gateway.web.api import Api
from gateway.web.auth import Keys
from gateway.web.callbacks import Callbacks
from gateway.web.console import Console
from gateway.web.documents import Documents
from gateway.web.edge import Edge, Methods, Refused
from gateway.web.errors import http_error, worker_error
from gateway.web.probes import Probes
from gateway.web.scrape import Scrape
from gateway.web.subscriptions import SubscriptionCalls
from gateway.web.waits import Streams


def application(gateway: Gateway, monotonic: Callable[[], float]) -> ASGIApp:
    """What a process of that role serves; its lifespan starts and stops the gateway."""
    probes = _probes(gateway)
    if gateway.role is Role.WORKER:
        rest = _rest(gateway, probes, worker_error)
        return Edge(rest, {}, {}, gateway.log, _counting(gateway))
    calls, below = _calls(gateway, Keys(gateway.runtime, monotonic))
    served = {**calls, **below, **{one.path: one.methods or () for one in probes}}
    rest = _rest(gateway, [*probes, *_pages(gateway, served)], http_error)
    return Edge(rest, calls, below, gateway.log, _counting(gateway))


def _probes(gateway: Gateway) -> list[Route]:
    """/healthz, /readyz, /metrics and what stands beside them."""
    worker = gateway.worker if gateway.role is not Role.API else None
    ready = Readiness(gateway.runtime, worker).look
    scrape = Scrape(
        gateway.scrape,
        token=gateway.settings.metrics_token,
        public_url=gateway.settings.public_url,
    )
    return [*Probes(ready).routes(), *scrape.routes()]


def _calls(gateway: Gateway, callers: Keys) -> tuple[dict[str, Methods], dict[str, Methods]]:
    """What the edge serves by itself: by whole path, and by what a path begins with."""
    runtime = gateway.runtime
    callbacks = Callbacks(runtime)
    subscriptions = SubscriptionCalls(gateway.subscriptions, callers)
    serving = (Api(runtime, callers), callbacks, subscriptions, Streams(runtime, callers))
    calls = {path: methods for one in serving for path, methods in one.calls().items()}
    return calls, {**callbacks.below(), **subscriptions.below()}


def _pages(gateway: Gateway, served: Mapping[str, Iterable[str]]) -> list[BaseRoute]:
    """The description of what is `served`, and the console."""
    console = Console(
        gateway.runtime, gateway.desk, gateway.subscriptions, gateway.log, gateway.sign_in
    )
    return [*Documents(served).routes(), *console.routes()]


def _rest(gateway: Gateway, routes: Sequence[BaseRoute], refuse: ExceptionHandler) -> Starlette:
    """What is not called often, and the lifespan."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        await gateway.start()
        yield
        await gateway.stop()

    rest = Starlette(routes=routes, exception_handlers={HTTPException: refuse}, lifespan=lifespan)
    rest.router.redirect_slashes = False  # every path has one spelling; others are a 404 problem
    return rest


def _counting(gateway: Gateway) -> Refused:
    """Counts each problem that is answered."""
    lately = gateway.runtime.lately

    def refused(call: str, code: str) -> None:
        gateway.meter.refused(call, code)
        if lately is not None:
            lately.refused(call, code)

    return refused
