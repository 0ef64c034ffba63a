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
from gateway.services.oidc import SignIn
from gateway.services.runtime import Runtime
from gateway.services.subscriptions import Subscriptions
from gateway.store.desk import Desk
from gateway.web.console.door import Door
from gateway.web.console.elsewhere import Elsewhere
from gateway.web.console.hooks import Hooks
from gateway.web.console.keys import Keys
from gateway.web.console.live import Live
from gateway.web.console.log import Log
from gateway.web.console.own import Own
from gateway.web.console.pages import Pages
from gateway.web.console.rules import Rules
from gateway.web.console.search import Search
from gateway.web.console.ways import Ways

__all__ = ["Console"]


class Console:
    """The pages over one runtime."""

    def __init__(
        self,
        runtime: Runtime,
        desk: Desk,
        subscriptions: Subscriptions,
        log: Any,
        sign_in: SignIn | None = None,
    ) -> None:
        now: Callable[[], datetime] = runtime.now
        accounts = Accounts(desk, runtime.keyring, now, log)
        pages = Pages(sign_in.title if sign_in is not None else None)
        self._door = door = Door(accounts, pages, runtime.public_url, now, log)
        self._parts = (
            *((Elsewhere(door, sign_in),) if sign_in is not None else ()),
            Search(door, runtime, desk, accounts),
            Live(door, Overview(desk, now), runtime.lately),
            Ways(door, runtime, desk),
            Keys(door, runtime, desk),
            Hooks(door, desk, subscriptions),
            Rules(door, runtime, desk),
            Own(door),
            Log(door, desk),
        )
        self._pages = pages

    def routes(self) -> list[Route]:
        """Everything under /console; what is not there is a page that says so."""
        routes = [*self._pages.routes(), *self._door.routes()]
        for part in self._parts:
            routes += part.routes()
        return [*routes, Route("/console/{rest:path}", self._door.nothing, methods=["GET", "POST"])]
