"""The routes: what each can do, how it does, and whether it may be used."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.domain import health
from gateway.domain.access import Right
from gateway.domain.errors import NotFound
from gateway.domain.health import RouteState, Tally
from gateway.services.runtime import Route as Way
from gateway.services.runtime import Runtime
from gateway.store import audits, writes
from gateway.store.desk import Desk
from gateway.store.engine import Engine
from gateway.store.reads import Reads
from gateway.web.console.door import Door, Visit, act, reason
from gateway.web.console.shown import NOTHING, percent

PATH = "/console/routes"
SPANS = (("15 minutes", timedelta(minutes=15)), ("24 hours", timedelta(hours=24)))


@dataclass(frozen=True, slots=True)
class Known:
    """What the database says of the routes."""

    states: dict[str, RouteState]
    sums: list[tuple[str, datetime, Tally]]
    parked: dict[str, int]  # by account


class Ways:
    """The page of the routes."""

    def __init__(self, door: Door, runtime: Runtime, desk: Desk) -> None:
        self._door = door
        self._runtime = runtime
        self._desk = desk

    def routes(self) -> list[Route]:
        """The pages."""
        order = f"{PATH}/{{name}}"
        return [
            self._door.page(PATH, Right.LOOK, self.show),
            self._door.form(f"{order}/disable", Right.MANAGE, self.disable, dangerous=True),
            self._door.form(f"{order}/enable", Right.MANAGE, self.enable, dangerous=True),
        ]

    async def show(self, visit: Visit) -> Response:
        """The routes as this process has them, with what was heard of each over all countries."""
        ways = self._runtime.routes.values()
        accounts = sorted({way.provider.account for way in ways})
        longest = visit.now - SPANS[-1][1]

        async def read(engine: Engine) -> Known:
            reads = Reads(engine)
            return Known(
                {state.route: state for state in await reads.route_states()},
                await reads.route_sums(longest),
                {account: await reads.kept_count(account) for account in accounts},
            )

        known = await self._desk.read(read)
        rows = [_row(way, known, visit.now) for way in ways]
        workflows = [(one.name, one.steps) for one in self._runtime.workflows.values()]
        return self._door.render(visit, "routes.html", rows=rows, workflows=workflows)

    async def disable(self, visit: Visit) -> Response:
        """Nothing more is sent over it, until it is enabled."""
        return await self._order(visit, switched_on=False)

    async def enable(self, visit: Visit) -> Response:
        """Used again, whoever or whatever had stopped it."""
        return await self._order(visit, switched_on=True)

    async def _order(self, visit: Visit, *, switched_on: bool) -> Response:
        """The same as `gateway routes disable|enable`: every process sees it at its next look."""
        name, why = visit.request.path_params["name"], reason(visit)
        if name not in self._runtime.routes:
            raise NotFound("route_not_found", "There is no such route.")
        make = health.enabled if switched_on else health.disabled
        state = make(name, why, visit.name, visit.now)
        done = act(visit, "route enable" if switched_on else "route disable", name, why)

        async def write(engine: Engine) -> None:
            await writes.order_routes(engine, [state])
            await audits.append(engine, done, visit.now)

        await self._desk.write(write)
        return RedirectResponse(PATH, 303)


def _row(way: Way, known: Known, now: datetime) -> dict[str, object]:
    provider, state = way.provider, known.states.get(way.name)
    confirms = sorted(provider.confirms, key=lambda one: one.rank)
    return {
        "name": way.name,
        "provider": type(provider).__name__,
        "channel": provider.channel,
        "account": provider.account,
        "state": state.standing if state is not None else health.Standing.READY,
        "told": state,
        "spans": [(title, _heard(way.name, known, now - span)) for title, span in SPANS],
        "confirms": ", ".join(confirms) or "nothing",
        "senders": _senders(way),
        "limits": f"{provider.concurrency} at once, {provider.timeout:g} s",
        "rate": f"{provider.rate:g}/s" if provider.rate else NOTHING,
        "parked": known.parked[provider.account],
    }


def _heard(name: str, known: Known, since: datetime) -> dict[str, str]:
    """What was heard since, to the five minutes in which it is counted."""
    first = health.bucket(since)
    found = Tally()
    for route, at, tally in known.sums:
        if route == name and at >= first:
            found = found.plus(tally)
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
    }


def _senders(way: Way) -> str:
    sender = way.provider.sender
    if sender is None or isinstance(sender, str):
        return sender or NOTHING
    return ", ".join(f"{place} {name}" for place, name in sender.items())
