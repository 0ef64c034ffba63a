"""The whole gateway at a glance, and its routes."""

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from gateway.domain.access import Right
from gateway.services.lookup import Overview, View
from gateway.services.runtime import Route as Way
from gateway.services.runtime import Runtime
from gateway.store.desk import Desk
from gateway.store.reads import Reads
from gateway.store.support import COUNTED
from gateway.web.console import shown
from gateway.web.console.door import Door, Visit
from gateway.web.console.shown import NOTHING


class Live:
    """The live view and the routes."""

    def __init__(self, door: Door, runtime: Runtime, desk: Desk, overview: Overview) -> None:
        self._door = door
        self._runtime = runtime
        self._desk = desk
        self._overview = overview

    def routes(self) -> list[Route]:
        """The pages."""
        return [
            self._door.page("/console/live", Right.LOOK, self.view),
            self._door.page("/console/live/part", Right.LOOK, self.part, live=True),
            self._door.page("/console/routes", Right.LOOK, self.ways),
        ]

    async def view(self, visit: Visit) -> Response:
        """The page."""
        return self._door.render(visit, "live.html", **_facts(await self._overview.look()))

    async def part(self, visit: Visit) -> Response:
        """What of it is live."""
        text = self._door.pages.text("live_part.html", **_facts(await self._overview.look()))
        return Response(text, media_type="text/html")

    async def ways(self, visit: Visit) -> Response:
        """The routes as this process has them, and what of their receipts could not be placed."""
        accounts = sorted({way.provider.account for way in self._runtime.routes.values()})

        async def count(engine: Any) -> dict[str, int]:
            reads = Reads(engine)
            return {account: reads.kept_count(account) for account in accounts}

        parked = await self._desk.read(count)
        rows = [_row(way, parked) for way in self._runtime.routes.values()]
        workflows = [
            (workflow.name, [(at, step) for at, step in enumerate(workflow.steps, start=1)])
            for workflow in self._runtime.workflows.values()
        ]
        return self._door.render(visit, "routes.html", rows=rows, workflows=workflows)


def _facts(view: View) -> dict[str, object]:
    minutes = view.minutes
    return {
        "view": view,
        "charts": shown.charts(minutes),
        "began": sum(one.verifications for one in minutes),
        "verified": sum(one.verified for one in minutes),
        "sends": sum(one.sends for one in minutes),
        "delivered": sum(one.delivered for one in minutes),
        "busy": [one for one in reversed(minutes) if one.verifications or one.sends],
        "counted": COUNTED,
    }


def _row(way: Way, parked: dict[str, int]) -> dict[str, object]:
    provider = way.provider
    confirms = sorted(provider.confirms, key=lambda state: state.rank)
    sender = provider.sender
    senders = (
        ", ".join(f"{place} {name}" for place, name in sender.items())
        if sender is not None and not isinstance(sender, str)
        else sender or NOTHING
    )
    return {
        "name": way.name,
        "provider": type(provider).__name__,
        "channel": provider.channel,
        "account": provider.account,
        "confirms": ", ".join(confirms) or "nothing",
        "senders": senders,
        "limits": f"{provider.concurrency} at once, {provider.timeout:g} s",
        "rate": f"{provider.rate:g}/s" if provider.rate else NOTHING,
        "parked": parked[provider.account],
    }
