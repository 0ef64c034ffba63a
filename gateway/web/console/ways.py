"""The routes: what each can do, how it does in each country, and whether it may be used."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.domain import health
from gateway.domain.access import Right
from gateway.domain.errors import NotFound
from gateway.domain.health import RouteState, Standing, Tally
from gateway.services.routing import Heard, RouteCounts
from gateway.services.runtime import Route as Way
from gateway.services.runtime import Runtime
from gateway.store import audits, writes
from gateway.store.desk import Desk
from gateway.store.engine import Engine
from gateway.store.reads import Reads
from gateway.web.console.door import Door, Visit, act, reason
from gateway.web.console.shown import NOTHING, RouteChart, percent, route_chart

PATH = "/console/routes"
_ORDERS: dict[str, Callable[[str, str, str, datetime], RouteState]] = {
    "disable": health.disabled,
    "enable": health.enabled,
    "pin": health.pinned,
}


@dataclass(frozen=True, slots=True)
class Known:
    """What the database says of the routes."""

    states: dict[str, RouteState]
    spans: list[Heard]
    parked: dict[str, int]  # by account


class Ways:
    """The pages of the routes."""

    def __init__(self, door: Door, runtime: Runtime, desk: Desk) -> None:
        self._door = door
        self._runtime = runtime
        self._desk = desk
        self._counts = RouteCounts(desk, runtime.now)

    def routes(self) -> list[Route]:
        """The pages."""
        order = f"{PATH}/{{name}}/{{order}}"
        return [
            self._door.page(PATH, Right.LOOK, self.show),
            self._door.page(f"{PATH}/{{name}}", Right.LOOK, self.one),
            self._door.form(order, Right.MANAGE, self.order, dangerous=True),
        ]

    async def show(self, visit: Visit) -> Response:
        """The routes as this process has them, with what was heard of each over all countries."""
        known = await self._known()
        rows = [_row(way, known) for way in self._runtime.routes.values()]
        workflows = [(one.name, one.steps) for one in self._runtime.workflows.values()]
        return self._door.render(visit, "routes.html", rows=rows, workflows=workflows)

    async def one(self, visit: Visit) -> Response:
        """One of them, country by country and bar by bar."""
        way = self._way(visit)
        known = await self._known()
        spans = [_by_country(way.name, heard) for heard in known.spans]
        charts = [_chart(way.name, heard) for heard in known.spans[1:]]
        facts = {"row": _row(way, known), "spans": spans, "charts": charts}
        return self._door.render(visit, "route.html", **facts)

    async def order(self, visit: Visit) -> Response:
        """Disable, enable, pin; the same as `gateway routes`: every process sees it at its next
        look."""
        name, order = self._way(visit).name, visit.request.path_params["order"]
        if order not in _ORDERS:
            raise NotFound("no_such_page", "There is no such page.")
        why = reason(visit)
        state = _ORDERS[order](name, why, visit.name, visit.now)
        done = act(visit, f"route {order}", name, why)

        async def write(engine: Engine) -> None:
            await writes.order_routes(engine, [state])
            await audits.append(engine, done, visit.now)

        await self._desk.write(write)
        return RedirectResponse(PATH, 303)

    def _way(self, visit: Visit) -> Way:
        way = self._runtime.routes.get(visit.request.path_params["name"])
        if way is None:
            raise NotFound("route_not_found", "There is no such route.")
        return way

    async def _known(self) -> Known:
        accounts = sorted({way.provider.account for way in self._runtime.routes.values()})
        spans = await self._counts.look()

        async def read(engine: Engine) -> Known:
            reads = Reads(engine)
            states = {state.route: state for state in await reads.route_states()}
            parked = {one: await reads.kept_count(one) for one in accounts}
            return Known(states, spans, parked)

        return await self._desk.read(read)


def _row(way: Way, known: Known) -> dict[str, object]:
    provider, state = way.provider, known.states.get(way.name)
    confirms = sorted(provider.confirms, key=lambda one: one.rank)
    return {
        "name": way.name,
        "provider": type(provider).__name__,
        "channel": provider.channel,
        "account": provider.account,
        "state": state.standing if state is not None else Standing.READY,
        "told": state,
        "spans": [(one.span.title, _cells(one.whole(way.name))) for one in known.spans],
        "chart": _chart(way.name, known.spans[1]),
        "confirms": ", ".join(confirms) or "nothing",
        "senders": _senders(way),
        "limits": f"{provider.concurrency} at once, {provider.timeout:g} s",
        "rate": f"{provider.rate:g}/s" if provider.rate else NOTHING,
        "parked": known.parked[provider.account],
    }


def _by_country(route: str, heard: Heard) -> tuple[str, list[tuple[str, dict[str, str]]]]:
    """A span's title and the cells of each country, the most used first."""
    mine = [(place, tally) for (name, place), tally in heard.places.items() if name == route]
    mine.sort(key=lambda pair: (-pair[1].accepted, pair[0]))
    return heard.span.title, [(place or "elsewhere", _cells(tally)) for place, tally in mine]


def _chart(route: str, heard: Heard) -> RouteChart:
    return route_chart(heard.span.title, heard.bars(route))


def _cells(found: Tally) -> dict[str, str]:
    """What was heard, to the five minutes in which it is counted."""
    sent = found.accepted + found.unknown
    return {
        "accepted": str(found.accepted),
        "refused": str(found.refused),
        "unknown": str(found.unknown),
        "delivered": f"{found.delivered}, {percent(found.delivered, sent)}",
        "read": str(found.read),
        "failed": str(found.failed),
        "silent": str(found.silent),
        "verified": f"{found.verified}, {percent(found.verified, sent)}",
        "p50": _seconds(found, 0.5),
        "p95": _seconds(found, 0.95),
    }


def _seconds(found: Tally, share: float) -> str:
    """The time within which that share of the deliveries was confirmed."""
    if not any(found.latency):
        return NOTHING
    bound = health.quantile(found.latency, share)
    return f"≤ {bound} s" if bound is not None else f"> {health.STEPS[-1]} s"


def _senders(way: Way) -> str:
    sender = way.provider.sender
    if sender is None or isinstance(sender, str):
        return sender or NOTHING
    return ", ".join(f"{place} {name}" for place, name in sender.items())
