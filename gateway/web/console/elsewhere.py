"""Logging in through an identity provider: to it, and back with a code."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.domain.audit import Act
from gateway.domain.errors import GatewayError, Unavailable
from gateway.domain.oidc import FLOW
from gateway.services.oidc import SignIn
from gateway.web.console.door import Door, address_of, onward_of


class Elsewhere:
    """The two pages of that way; neither shows anything but a refusal."""

    def __init__(self, door: Door, sign_in: SignIn) -> None:
        self._door = door
        self._sign_in = sign_in
        self._cookie = f"{door.cookie}-oidc"

    def routes(self) -> list[Route]:
        """The pages."""
        return [
            self._door.open("/console/oidc", self.go),
            self._door.open("/console/oidc/callback", self.back),
        ]

    async def go(self, request: Request) -> Response:
        """To the provider. `fresh`: it is to ask for the password in any case."""
        onward = onward_of(request.query_params.get("next", ""))
        fresh = request.query_params.get("fresh") == "1"
        where, cookie = await self._sign_in.begin(onward, fresh=fresh)
        response = RedirectResponse(where, 303)
        self._door.keep(response, self._cookie, cookie, int(FLOW.total_seconds()))
        return response

    async def back(self, request: Request) -> Response:
        """From the provider: a session of their own making, whatever the browser had before."""
        flow = self._sign_in.opened(request.cookies.get(self._cookie, ""))  # or leaves no trace
        accounts, address = self._door.accounts, address_of(request)
        counted = await accounts.count_from(address)
        try:
            person = await self._sign_in.finish(flow, request.query_params)
            secret, _ = await accounts.admit(person)
        except Unavailable:
            raise
        except GatewayError as error:
            told = f"{error.code}, from {address}"
            await accounts.record(Act("(unknown)", "login refused", told))
            raise
        await accounts.forget(counted)
        response = await self._door.let_in(request, secret, flow.onward)
        self._door.drop(response, self._cookie)
        return response
