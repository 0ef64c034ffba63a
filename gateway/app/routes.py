"""Routes and workflows as the settings have them, made what services use; which kind of key reaches
which.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from gateway.app import clock
from gateway.app.carriers import Carry
from gateway.config import Settings
from gateway.domain.workflow import Plan
from gateway.ports import CALLBACK_LIMIT, Timed, Transport
from gateway.services.runtime import Route, Workflow, resolve
from gateway.transports.http import HttpTransport
from gateway.transports.pool import ConnectionPool


@dataclass(frozen=True)
class Realm:
    """What test keys reach: settings with simulated routes, and what carries their requests. None
    where they are the gateway's own routes, the sandbox being what is configured."""

    settings: Settings
    transport: Transport | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """Which routes there are. `simulated`: those of test keys alone, by names of their own."""

    live: Mapping[str, Route]
    simulated: Mapping[str, Route]
    test: Realm | None  # None: sends by test keys are refused

    @property
    def routes(self) -> dict[str, Route]:
        """All of them."""
        return {**self.live, **self.simulated}


def reach(
    settings: Settings, test: Realm | None, carry: Carry, now: Callable[[], datetime]
) -> Reach:
    """What these settings reach, and what test keys do."""
    live, simulated = routes_of(settings, carry, now), {}
    if test is not None and test.transport is not None:
        carrier = test.transport
        simulated = routes_of(test.settings, lambda _: carrier, now)
    return Reach(live, simulated, test)


def routes_of(settings: Settings, carry: Carry, now: Callable[[], datetime]) -> dict[str, Route]:
    """Every route by name, with what carries its requests."""
    made: dict[str, Route] = {}
    for provider in settings.providers:
        if isinstance(provider, Timed):
            provider.now = now
        given = settings.routes.get(provider.name)
        traceparent = given is not None and given.traceparent
        limit = given.callback_limit if given is not None else CALLBACK_LIMIT
        made[provider.name] = Route(provider.name, provider, carry(provider), limit, traceparent)
    return made


def workflows_of(settings: Settings) -> dict[str, Workflow]:
    """Every workflow by name."""
    return {name: Workflow(name, steps) for name, steps in settings.workflows.items()}


def plans(settings: Settings) -> dict[str, Plan]:
    """Every workflow as a plan, with the senders of no country in particular."""
    routes = routes_of(settings, lambda _: HttpTransport(ConnectionPool()), clock.now)
    return {
        name: resolve(routes, workflow, "") for name, workflow in workflows_of(settings).items()
    }
