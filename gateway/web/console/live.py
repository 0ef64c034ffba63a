"""The whole gateway at a glance."""

from starlette.responses import Response
from starlette.routing import Route

from gateway.domain.access import Right
from gateway.services.lately import Lately
from gateway.services.lookup import Overview, View
from gateway.store.support import COUNTED
from gateway.web.console import shown
from gateway.web.console.door import Door, Visit


class Live:
    """The live view."""

    def __init__(self, door: Door, overview: Overview, lately: Lately | None) -> None:
        self._door = door
        self._overview = overview
        self._lately = lately

    def routes(self) -> list[Route]:
        """The pages."""
        return [
            self._door.page("/console/live", Right.LOOK, self.view),
            self._door.page("/console/live/part", Right.LOOK, self.part, live=True),
        ]

    async def view(self, visit: Visit) -> Response:
        """The page."""
        return self._door.render(visit, "live.html", **await self._facts())

    async def part(self, visit: Visit) -> Response:
        """What of it is live."""
        text = self._door.pages.text("live_part.html", **await self._facts())
        return Response(text, media_type="text/html")

    async def _facts(self) -> dict[str, object]:
        problems = self._lately.problems if self._lately is not None else []
        return {**_facts(await self._overview.look()), "problems": problems}


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
