"""Subscriptions of the clients: made, renewed, stopped, replayed. A secret is shown once."""

from datetime import UTC, datetime

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.domain import identity
from gateway.domain.access import Right
from gateway.domain.errors import InvalidInput, NotFound
from gateway.domain.events import KINDS
from gateway.services.subscriptions import Subscriptions
from gateway.store import clients
from gateway.store.desk import Desk
from gateway.store.engine import Engine
from gateway.store.outbox import OutboxReads, Subscription
from gateway.store.records import Client
from gateway.web.console.door import Door, Visit, act, reason

PATH = "/console/subscriptions"
_DEEDS = ("rotate", "disable", "remove", "replay", "test")


class Hooks:
    """The page of the subscriptions."""

    def __init__(self, door: Door, desk: Desk, subscriptions: Subscriptions) -> None:
        self._door = door
        self._desk = desk
        self._subscriptions = subscriptions

    def routes(self) -> list[Route]:
        """The pages."""
        return [
            self._door.page(PATH, Right.MANAGE, self.show),
            self._door.form(PATH, Right.MANAGE, self.add, dangerous=True),
            self._door.form(f"{PATH}/{{id}}/{{deed}}", Right.MANAGE, self.change, dangerous=True),
        ]

    async def show(self, visit: Visit) -> Response:
        """Who is told, where, and how that goes."""
        return await self._page(visit)

    async def add(self, visit: Visit) -> Response:
        """A new one of a client."""
        why, named = reason(visit), identity.parse(visit.form.get("client", ""))
        client = next((one for one in await self._clients() if one.id == named), None)
        if client is None:
            raise InvalidInput("client_not_found", "Choose a client.")
        kinds = [kind for kind in KINDS if f"kind_{kind}" in visit.form]
        url = visit.form.get("url", "").strip()
        made, secret = await self._subscriptions.add(client.id, url, kinds)
        told = act(visit, "subscription add", f"{client.name}, {made.id}", why, str(client.id))
        await self._door.accounts.record(told)
        return await self._page(visit, secret=secret, of=made)

    async def change(self, visit: Visit) -> Response:
        """Written down, then done."""
        deed, why = visit.request.path_params["deed"], reason(visit)
        one = await self._one(visit)
        if deed not in _DEEDS:
            raise NotFound("no_such_page", "There is no such page.")
        since = _since(visit) if deed == "replay" else None
        what = f"{one.id}, since {since:%Y-%m-%d %H:%M} UTC" if since is not None else str(one.id)
        done = act(visit, f"subscription {deed}", what, why, str(one.client_id))
        await self._door.accounts.record(done)
        match deed:
            case "rotate":
                return await self._page(visit, secret=await self._subscriptions.rotate(one), of=one)
            case "replay":
                await self._subscriptions.replay(one, since)
            case "disable":
                await self._subscriptions.disable(one, f"by {visit.name}: {why}")
            case "remove":
                await self._subscriptions.remove(one)
            case _:
                tried = await self._subscriptions.test(one)
                told = tried.problem or f"The endpoint took it: HTTP {tried.status}."
                return await self._page(visit, tested=told, of=one)
        return RedirectResponse(PATH, 303)

    async def _one(self, visit: Visit) -> Subscription:
        named = identity.parse(visit.request.path_params["id"])
        for one, _ in await self._desk.read(_subscriptions):
            if one.id == named:
                return one
        raise NotFound("subscription_not_found", "There is no such subscription.")

    async def _clients(self) -> list[Client]:
        return [client for client, _ in await self._desk.read(clients.everyone)]

    async def _page(self, visit: Visit, **more: object) -> Response:
        everyone = await self._clients()
        names = {client.id: client.name for client in everyone}
        found = await self._desk.read(_subscriptions)
        rows = [(one, names.get(one.client_id, "?"), waiting) for one, waiting in found]
        facts = {"secret": None, "of": None, "tested": None} | more
        return self._door.render(
            visit, "subscriptions.html", rows=rows, clients=everyone, kinds=KINDS, **facts
        )


async def _subscriptions(engine: Engine) -> list[tuple[Subscription, int]]:
    """All of them, with how many events each has waiting."""
    reads = OutboxReads(engine)
    return [(one, await reads.undelivered(one.id)) for one in await reads.subscriptions()]


def _since(visit: Visit) -> datetime | None:
    """From when on everything is to be sent once more, as a browser's field writes it: UTC."""
    text = visit.form.get("since", "").strip()
    if not text:
        return None
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput("since_odd", "Give a time such as 2026-11-21T10:00.") from None
    since = since.replace(tzinfo=UTC) if since.tzinfo is None else since.astimezone(UTC)
    if since > visit.now:
        raise InvalidInput("since_odd", "The time lies in the future.")
    return since
