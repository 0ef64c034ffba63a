"""The support console, at /console: server-rendered, complete without script.

`door`: who may come in. `shown`: values as pages show them. The other modules are
the pages.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from starlette.routing import Route

from gateway.services.accounts import Accounts
from gateway.services.lookup import Overview
from gateway.services.runtime import Runtime
from gateway.store.desk import Desk
from gateway.web.console.door import Door
from gateway.web.console.keys import Keys
from gateway.web.console.live import Live
from gateway.web.console.log import Log
from gateway.web.console.pages import Pages
from gateway.web.console.search import Search
from gateway.web.console.ways import Ways

__all__ = ["Console"]


class Console:
    """The pages over one runtime."""

    def __init__(self, runtime: Runtime, desk: Desk, log: Any) -> None:
        now: Callable[[], datetime] = runtime.now
        accounts = Accounts(desk, runtime.keyring, now, log)
        pages = Pages()
        self._door = door = Door(accounts, pages, runtime.public_url, now, log)
        self._parts = (
            Search(door, runtime, desk, accounts),
            Live(door, Overview(desk, now)),
            Ways(door, runtime, desk),
            Keys(door, runtime, desk),
            Log(door, desk),
        )
        self._pages = pages

    def routes(self) -> list[Route]:
        """Everything under /console; what is not there is a page that says so."""
        routes = [*self._pages.routes(), *self._door.routes()]
        for part in self._parts:
            routes += part.routes()
        return [*routes, Route("/console/{rest:path}", self._door.nothing, methods=["GET", "POST"])]
