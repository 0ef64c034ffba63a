"""Clients and their keys: made, renewed, revoked. A key is shown once, in answer to its form."""

import secrets
from uuid import UUID

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.domain import identity
from gateway.domain.access import Right
from gateway.domain.audit import Act
from gateway.domain.errors import Conflict, GatewayError, InvalidInput, NotFound
from gateway.domain.identity import uuid7
from gateway.services.runtime import Runtime
from gateway.store import audits, clients
from gateway.store import engine as stored
from gateway.store.desk import Desk
from gateway.store.engine import Engine
from gateway.store.records import ApiKey, Client
from gateway.web import auth
from gateway.web.console.door import Door, Visit, act, reason

PATH = "/console/clients"


class Keys:
    """The page of the clients."""

    def __init__(self, door: Door, runtime: Runtime, desk: Desk) -> None:
        self._door = door
        self._runtime = runtime
        self._desk = desk

    def routes(self) -> list[Route]:
        """The pages."""
        form = self._door.form
        return [
            self._door.page(PATH, Right.MANAGE, self.show),
            form(PATH, Right.MANAGE, self.add, dangerous=True),
            form(f"{PATH}/{{id}}/keys", Right.MANAGE, self.add_key, dangerous=True),
            form("/console/keys/{id}/revoke", Right.MANAGE, self.revoke, dangerous=True),
        ]

    async def show(self, visit: Visit) -> Response:
        """Who calls, with which keys."""
        return await self._page(visit)

    async def add(self, visit: Visit) -> Response:
        """A client with its first key."""
        name, why = visit.form.get("name", "").strip(), reason(visit)
        if not name or len(name) > 100 or not name.isprintable():
            raise InvalidInput("name_odd", "A name has 1 to 100 printable characters.")
        client = Client(uuid7(visit.now, secrets.token_bytes(10)), name, visit.now)
        shown, key = self._new(visit, client.id, test="test" in visit.form)
        done = act(visit, "client add", f"{name}, {_told(key)}", why, str(client.id))

        async def work(engine: Engine) -> None:
            await clients.add(engine, client, key)
            await audits.append(engine, done, visit.now)

        try:
            await self._desk.write(work)
        except stored.Conflict:
            raise Conflict("name_taken", "There is a client of that name already.") from None
        return await self._page(visit, shown=shown, of=name)

    async def add_key(self, visit: Visit) -> Response:
        """One more key of a client: the old one goes on until it is revoked."""
        named, why = identity.parse(visit.request.path_params["id"]), reason(visit)
        everyone = await self._desk.read(clients.everyone)
        found = next((pair for pair in everyone if pair[0].id == named), None)
        if found is None:
            raise NotFound("client_not_found", "There is no such client.")
        client, keys = found
        shown, key = self._new(visit, client.id, test=any(one.test for one in keys))
        await self._written(
            visit, key, act(visit, "key add", f"{client.name}, {_told(key)}", why, str(client.id))
        )
        return await self._page(visit, shown=shown, of=client.name)

    async def revoke(self, visit: Visit) -> Response:
        """Take a key back: refused within five seconds."""
        named, why = identity.parse(visit.request.path_params["id"]), reason(visit)
        missing: GatewayError = NotFound("key_not_found", "There is no such key.")
        if named is None:
            raise missing
        found = await self._desk.read(lambda engine: clients.key(engine, named))
        if found is None:
            raise missing
        client, key = found
        done = act(visit, "key revoke", f"{client.name}, {key.id}", why, str(client.id))

        async def work(engine: Engine) -> None:
            if await clients.revoke(engine, key, visit.now):
                await audits.append(engine, done, visit.now)

        await self._desk.write(work)
        return RedirectResponse(PATH, 303)

    async def _written(self, visit: Visit, key: ApiKey, done: Act) -> None:
        async def work(engine: Engine) -> None:
            await clients.add_key(engine, key)
            await audits.append(engine, done, visit.now)

        await self._desk.write(work)

    def _new(self, visit: Visit, client_id: UUID, *, test: bool) -> tuple[str, ApiKey]:
        """A key as its caller will send it, and as it is stored."""
        scopes = " ".join(one for one in auth.SCOPES if f"scope_{one}" in visit.form)
        if not scopes:
            raise InvalidInput("scopes_missing", "Choose what the key allows.")
        if test and "operate" in scopes.split():
            raise InvalidInput(
                "scopes_odd", "`operate` sees live clients; no test key may have it."
            )
        key, named = auth.new_key(test=test), uuid7(visit.now, secrets.token_bytes(10))
        digest = auth.digest(key)
        return key, ApiKey(named, client_id, digest, scopes, visit.now, None, None, test)

    async def _page(self, visit: Visit, shown: str | None = None, of: str = "") -> Response:
        found = await self._desk.read(clients.everyone)
        return self._door.render(
            visit, "clients.html", clients=found, shown=shown, of=of, scopes=auth.SCOPES
        )


def _told(key: ApiKey) -> str:
    """What a key allows, for the audit log."""
    return f"{key.scopes}, for the sandbox alone" if key.test else key.scopes
