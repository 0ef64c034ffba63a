"""Who may come in: the cookie, the roles, and what a form has to bring.

A form is taken from our own pages only: by `Sec-Fetch-Site` or `Origin`, and by the token of the
session it was made for. Both have to hold.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.domain.access import Right, Role
from gateway.domain.audit import Act
from gateway.domain.errors import (
    Forbidden,
    GatewayError,
    InvalidInput,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from gateway.domain.recipient import redact
from gateway.services.accounts import Accounts, Login
from gateway.store.engine import StoreError
from gateway.web.console.pages import HEADERS, Pages
from gateway.web.errors import STATUS

MAX_FORM = 16 * 1024  # bytes
MAX_FIELDS = 40
HOME = "/console"

_PATH = re.compile(r"/console(?:/[A-Za-z0-9-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who is logged in. `form`: what was sent, empty for GET."""

    request: Request
    login: Login
    form: Mapping[str, str]
    now: datetime

    @property
    def role(self) -> Role:
        return self.login.role

    @property
    def name(self) -> str:
        return self.login.name

    def may(self, right: str) -> bool:
        """For templates: whether to offer something."""
        return self.role.may(Right(right))

    @property
    def proven(self) -> bool:
        return self.login.session.proven(self.now)


Handler = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Door:
    """Wraps what is behind it; serves login, logout and the confirmation by password."""

    def __init__(
        self,
        accounts: Accounts,
        pages: Pages,
        public_url: str,
        now: Callable[[], datetime],
        log: Any,
    ) -> None:
        self.accounts = accounts
        self.pages = pages
        self._now = now
        self._log = log
        parts = urlsplit(public_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._secure = parts.scheme == "https"  # plain http is for loopback only: config sees to it
        # The prefix makes browsers refuse a cookie that another host or path has put there.
        self.cookie = "__Host-console" if self._secure else "console"

    def routes(self) -> list[Route]:
        """What is at the door itself."""
        return [
            self.open("/console/login", self._ask),
            Route("/console/login", self._guarded(self._login), methods=["POST"]),
            self.form("/console/logout", Right.LOOK, self._logout),
            self.page("/console/confirm", Right.LOOK, self._confirm),
            self.form("/console/confirm", Right.LOOK, self._confirmed),
        ]

    def page(self, path: str, right: Right, handler: Handler, *, live: bool = False) -> Route:
        """A page for those who have the right. `live`: fetched by script; keeps no session alive,
        and answers 401 instead of the way to the login."""

        async def endpoint(request: Request) -> Response:
            login = await self.accounts.find(self._secret(request), seen=not live)
            if login is None and live:
                raise Unauthenticated("login_needed", "The session is over.")
            if login is None:
                return self._to_login(request)
            _allowed(login, right)
            return await handler(Visit(request, login, {}, self._now()))

        return Route(path, self._guarded(endpoint), methods=["GET"])

    def form(self, path: str, right: Right, handler: Handler, *, dangerous: bool = False) -> Route:
        """Where a form is sent to. `dangerous`: the password must have been typed just now."""

        async def endpoint(request: Request) -> Response:
            self._same_origin(request)
            login = await self.accounts.find(self._secret(request))
            if login is None:
                return self._to_login(request)
            given = await _form(request)
            if not hmac.compare_digest(given.get("token", "").encode(), login.form_token.encode()):
                raise Forbidden(
                    "form_stale", "This form is not of your session. Open the page again."
                )
            _allowed(login, right)
            visit = Visit(request, login, given, self._now())
            if dangerous and not visit.proven:
                raise Forbidden(
                    "proof_needed", "Confirm your password first; it holds for five minutes."
                )
            return await handler(visit)

        return Route(path, self._guarded(endpoint), methods=["POST"])

    async def nothing(self, request: Request) -> Response:
        """A page that is not there."""

        async def endpoint(request: Request) -> Response:
            raise NotFound("no_such_page", "There is no such page.")

        return await self._guarded(endpoint)(request)

    def open(self, path: str, handler: Endpoint) -> Route:
        """A page for everybody."""
        return Route(path, self._guarded(handler), methods=["GET"])

    def render(
        self, visit: Visit, template: str, status: int = 200, /, **facts: object
    ) -> Response:
        """A page with what every page knows."""
        return self.pages.page(template, status, visit=visit, **facts)

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """Refusals as pages, and the headers on everything."""

        async def answer(request: Request) -> Response:
            try:
                response = await endpoint(request)
            except StoreError as error:
                self._log.error("console_storage", exc_info=error)
                response = self._refusal(Unavailable("storage", "The database did not answer."))
            except GatewayError as error:
                response = self._refusal(error)
            for name, text in HEADERS.items():
                response.headers.setdefault(name, text)
            return response

        return answer

    def _refusal(self, error: GatewayError) -> Response:
        status = STATUS[type(error)]
        response = self.pages.page("error.html", status, error=error, status=status, visit=None)
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
        return response

    # The door itself.

    async def _ask(self, request: Request) -> Response:
        if await self.accounts.find(self._secret(request)) is not None:
            return RedirectResponse(HOME, 303)
        onward = onward_of(request.query_params.get("next", ""))
        return self.pages.page("login.html", visit=None, onward=onward, problem=None)

    async def _login(self, request: Request) -> Response:
        self._same_origin(request)
        given = await _form(request)
        onward = onward_of(given.get("next", ""))
        try:
            secret, _ = await self.accounts.login(
                given.get("name", "").strip(),
                given.get("password", ""),
                given.get("code", ""),
                address_of(request),
            )
        except GatewayError as error:
            status = STATUS[type(error)]
            facts = {"visit": None, "onward": onward, "problem": error.detail}
            return self.pages.page("login.html", status, **facts)
        return await self.let_in(request, secret, onward)

    async def let_in(self, request: Request, secret: str, onward: str) -> Response:
        """To where they wanted to be, with the cookie of a session that has just been opened."""
        before = await self.accounts.find(self._secret(request))
        if before is not None:  # a session that somebody else may know ends here
            await self.accounts.logout(before)
        response = RedirectResponse(onward, 303)
        self.keep(response, self.cookie, secret)
        return response

    def keep(self, response: Response, name: str, text: str, seconds: int | None = None) -> None:
        """Set a cookie that no script and no other host has to do with."""
        response.set_cookie(
            name,
            text,
            max_age=seconds,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )

    async def _logout(self, visit: Visit) -> Response:
        await self.accounts.logout(visit.login)
        response = RedirectResponse("/console/login", 303)
        self.drop(response, self.cookie)
        return response

    def drop(self, response: Response, name: str) -> None:
        """Take a cookie back."""
        response.delete_cookie(name, path="/", secure=self._secure, httponly=True, samesite="lax")

    async def _confirm(self, visit: Visit) -> Response:
        onward = onward_of(visit.request.query_params.get("next", ""))
        return self.render(visit, "confirm.html", onward=onward, problem=None)

    async def _confirmed(self, visit: Visit) -> Response:
        onward = onward_of(visit.form.get("next", ""))
        password, code = visit.form.get("password", ""), visit.form.get("code", "")
        try:
            await self.accounts.prove(visit.login, password, code, address_of(visit.request))
        except GatewayError as error:
            status = STATUS[type(error)]
            facts = {"onward": onward, "problem": error.detail}
            return self.render(visit, "confirm.html", status, **facts)
        return RedirectResponse(onward, 303)

    def _secret(self, request: Request) -> str:
        return request.cookies.get(self.cookie, "")

    def _to_login(self, request: Request) -> Response:
        path = request.url.path if request.method == "GET" else HOME
        query = urlencode({"next": onward_of(path)})
        return RedirectResponse(f"/console/login?{query}", 303)

    def _same_origin(self, request: Request) -> None:
        """Raise Forbidden for a form that another site made the browser send."""
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        if site is not None:
            fine = site == "same-origin"
        else:
            host = request.headers.get("host", "")
            fine = origin is not None and (
                origin == self._origin or urlsplit(origin).netloc == host
            )
        if not fine:
            raise Forbidden("form_foreign", "This form was not sent from the console's own pages.")


def reason(visit: Visit) -> str:
    """Why something is done, as it goes into the audit log. Raises InvalidInput."""
    told = " ".join(visit.form.get("why", "").split())
    if not 3 <= len(told) <= 200 or not told.isprintable():
        raise InvalidInput("reason_missing", "Say why, in 3 to 200 characters.")
    return redact(told)


def act(
    visit: Visit, action: str, what: str = "", why: str = "", subject: str | None = None
) -> Act:
    """What somebody did, for the audit log."""
    return Act(visit.name, action, what, why, subject)


def _allowed(login: Login, right: Right) -> None:
    if not login.role.may(right):
        raise Forbidden("role_lacks", f"Your role, {login.role}, does not allow this.")


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises InvalidInput."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidInput("form_odd", "This is not a form.")
    whole = b""
    async for chunk in request.stream():
        whole += chunk
        if len(whole) > MAX_FORM:
            raise InvalidInput("form_odd", "The form is too large.")
    try:
        pairs = parse_qsl(
            whole.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        raise InvalidInput("form_odd", "The form cannot be read.") from None
    return dict(pairs)


def onward_of(path: str) -> str:
    """Where to go after a login: a page of ours, or the first one."""
    fine = _PATH.fullmatch(path) and not path.endswith(
        ("/login", "/logout", "/part", "/oidc", "/callback")
    )
    return path if fine else HOME


def address_of(request: Request) -> str:
    """Where a request comes from, as we see it."""
    return request.client.host if request.client is not None else "unknown"
