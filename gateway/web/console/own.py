"""What an operator does with their own account: another password."""

from starlette.responses import Response
from starlette.routing import Route

from gateway.domain.access import Right
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.web.console.door import Door, Visit, address_of
from gateway.web.errors import STATUS

PATH = "/console/password"


class Own:
    """The page of one's own account."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def routes(self) -> list[Route]:
        """The pages."""
        return [
            self._door.page(PATH, Right.LOOK, self.show),
            self._door.form(PATH, Right.LOOK, self.change),
        ]

    async def show(self, visit: Visit) -> Response:
        """The form."""
        done = visit.request.query_params.get("done") == "1"
        return self._door.render(visit, "password.html", problem=None, done=done)

    async def change(self, visit: Visit) -> Response:
        """Another password, for who knows the one there is; this session goes on under a new
        secret, all others end."""
        form, address = visit.form, address_of(visit.request)
        new = form.get("new", "")
        try:
            if new != form.get("again", ""):
                raise InvalidInput("password_differs", "The new one was not typed alike twice.")
            secret, _ = await self._door.accounts.change_password(
                visit.login, form.get("password", ""), form.get("code", ""), new, address
            )
        except GatewayError as error:
            status = STATUS[type(error)]
            facts = {"problem": error.detail, "done": False}
            return self._door.render(visit, "password.html", status, **facts)
        return await self._door.let_in(visit.request, secret, f"{PATH}?done=1")
