"""Who may come in at the console: roles on every page, forms from elsewhere, sessions that end."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Literal
from uuid import UUID

import pytest
from argon2 import PasswordHasher
from fakes import Clock
from rig import NUMBER, Rig, keyring, make_settings
from starlette.applications import Starlette
from starlette.routing import Route
from visitor import PASSWORD, Visitor, add_operator, says, visitor

from gateway.domain import totp
from gateway.domain.access import Right, Role
from gateway.domain.errors import Unauthenticated
from gateway.services import accounts as logins
from gateway.store import accounts
from gateway.store.engine import Engine
from gateway.web.console.pages import HEADERS

ANY = "01900000-0000-7000-8000-00000000c11e"
OPEN = {
    "/console/login",
    "/console/oidc",
    "/console/oidc/callback",
    "/console/static/{name}",
    "/console/{rest:path}",
}
# Every path behind the door, and the right it needs. A new one has to be entered here.
RIGHTS = {
    ("GET", "/console"): Right.LOOK,
    ("POST", "/console/logout"): Right.LOOK,
    ("GET", "/console/confirm"): Right.LOOK,
    ("POST", "/console/confirm"): Right.LOOK,
    ("POST", "/console/search"): Right.LOOK,
    ("GET", "/console/verifications/{id}"): Right.LOOK,
    ("GET", "/console/verifications/{id}/part"): Right.LOOK,
    ("POST", "/console/verifications/{id}/act"): Right.ACT,
    ("POST", "/console/verifications/{id}/release"): Right.ACT,
    ("POST", "/console/verifications/{id}/number"): Right.REVEAL,
    ("GET", "/console/password"): Right.LOOK,
    ("POST", "/console/password"): Right.LOOK,
    ("GET", "/console/limits"): Right.LOOK,
    ("POST", "/console/limits/pass"): Right.MANAGE,
    ("GET", "/console/subscriptions"): Right.MANAGE,
    ("POST", "/console/subscriptions"): Right.MANAGE,
    ("POST", "/console/subscriptions/{id}/{deed}"): Right.MANAGE,
    ("GET", "/console/live"): Right.LOOK,
    ("GET", "/console/live/part"): Right.LOOK,
    ("GET", "/console/routes"): Right.LOOK,
    ("GET", "/console/routes/{name}"): Right.LOOK,
    ("POST", "/console/routes/{name}/{order}"): Right.MANAGE,
    ("GET", "/console/clients"): Right.MANAGE,
    ("POST", "/console/clients"): Right.MANAGE,
    ("POST", "/console/clients/{id}/keys"): Right.MANAGE,
    ("POST", "/console/keys/{id}/revoke"): Right.MANAGE,
    ("GET", "/console/audit"): Right.AUDIT,
    ("POST", "/console/audit/export"): Right.AUDIT,
}
PATHS = list(RIGHTS)


def served(rig: Rig) -> set[tuple[str, str]]:
    """Every method and path under /console that the application has."""
    edge = rig.gateway.web
    rest = edge._app  # type: ignore[attr-defined]
    assert isinstance(rest, Starlette)
    return {
        (method, route.path)
        for route in rest.routes
        if isinstance(route, Route) and route.path.startswith("/console")
        for method in (route.methods or set()) - {"HEAD"}
        if route.path not in OPEN
    }


def test_every_path_is_in_the_table_of_rights(rig: Rig) -> None:
    assert set(RIGHTS) == served(rig)


def filled(path: str) -> str:
    """A path with something in its places."""
    return path.format(id=ANY, name="octopush", deed="rotate", order="pin")


async def test_without_a_session_every_page_leads_to_the_login(rig: Rig) -> None:
    nobody = Visitor(rig)
    for method, path in PATHS:
        answer = await nobody.http.request(method, filled(path), data={})

        if path.endswith("/part"):
            assert 401 == answer.status_code, path
        else:
            assert 303 == answer.status_code, path
            assert answer.headers["location"].startswith("/console/login?next=")


@pytest.mark.parametrize("role", Role)
async def test_every_page_is_for_those_who_have_its_right(rig: Rig, role: Role) -> None:
    """All of them: none but those of the role's rights answers with anything but 403."""
    someone = await visitor(rig, role)
    token = await someone.token()
    for (method, path), right in RIGHTS.items():
        if path in {"/console/logout", "/console/verifications/{id}/part"}:
            continue
        answer = await someone.http.request(
            method,
            filled(path),
            data={"token": token} if method == "POST" else None,
        )
        refused = answer.status_code == 403 and "does not allow" in answer.text

        assert refused is not role.may(right), (method, path, answer.status_code)


FOREIGN = (
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8080"},
)
FORMS = [path for method, path in PATHS if method == "POST"]


async def test_a_form_that_another_site_sends_is_refused(rig: Rig) -> None:
    someone = await visitor(rig, Role.ADMIN)
    form = {"token": await someone.token()}
    for path in FORMS:
        for headers in FOREIGN:
            answer = await someone.http.post(filled(path), data=form, headers=headers)

            assert (403, True) == (answer.status_code, "form_foreign" in answer.text), path


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8080", 303),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:8080.evil.example", 403),
        (None, 403),
    ],
)
async def test_an_older_browser_is_known_by_its_origin(
    rig: Rig, origin: str | None, status: int
) -> None:
    someone = await visitor(rig)
    token = await someone.token()
    del someone.http.headers["sec-fetch-site"]
    headers = {"origin": origin} if origin is not None else {}
    answer = await someone.http.post("/console/logout", data={"token": token}, headers=headers)

    assert status == answer.status_code


async def test_a_form_brings_the_token_of_its_own_session(rig: Rig) -> None:
    someone = await visitor(rig, Role.ADMIN)
    other = await visitor(rig, Role.ADMIN, "another")
    for path in FORMS:
        for token in ("", "é", "0" * 64, await other.token()):
            answer = await someone.http.post(filled(path), data={"token": token})

            assert (403, True) == (answer.status_code, "form_stale" in answer.text), path


async def test_a_login_form_from_elsewhere_logs_nobody_in(rig: Rig) -> None:
    someone = Visitor(rig, "alice")
    await add_operator(rig, "alice", Role.VIEWER)
    someone.http.headers["sec-fetch-site"] = "cross-site"

    assert 403 == (await someone.login()).status_code
    assert not someone.http.cookies


async def test_the_cookie_is_for_the_browser_alone(rig: Rig) -> None:
    someone = Visitor(rig, "alice")
    await add_operator(rig, "alice", Role.VIEWER)
    cookie = (await someone.login()).headers["set-cookie"]

    assert cookie.startswith("console=")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie


async def test_over_https_the_cookie_is_secure_and_bound_to_its_host(
    tmp_path: Path, migrated: Path, clock: Clock
) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), public_url="https://otp.example.com")
    async with Rig(tmp_path, migrated, clock, settings=settings) as rig:
        someone = Visitor(rig, "alice", "https://otp.example.com")
        await add_operator(rig, "alice", Role.VIEWER)
        cookie = (await someone.login()).headers["set-cookie"]

        assert cookie.startswith("__Host-console=")
        assert {"Secure", "HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
        assert "Domain" not in cookie


async def test_a_session_brought_along_is_not_the_one_that_is_opened(rig: Rig) -> None:
    """Fixation: what was in the cookie before the login is worth nothing after it."""
    someone = await visitor(rig)
    before = someone.http.cookies["console"]
    await someone.login()
    after = someone.http.cookies["console"]
    thief = Visitor(rig)
    thief.http.cookies.set("console", before)

    assert before != after
    assert 303 == (await thief.get("/console")).status_code


async def test_a_cookie_of_ones_own_making_opens_nothing(rig: Rig) -> None:
    someone = Visitor(rig)
    someone.http.cookies.set("console", "chosen-by-an-attacker")

    assert 303 == (await someone.get("/console")).status_code


async def test_after_logout_the_cookie_is_worth_nothing(rig: Rig) -> None:
    someone = await visitor(rig)
    secret = someone.http.cookies["console"]
    await someone.post("/console/logout")
    someone.http.cookies.set("console", secret)

    assert 303 == (await someone.get("/console")).status_code


async def test_a_session_ends_when_nobody_uses_it(rig: Rig) -> None:
    someone = await visitor(rig)
    rig.clock.advance(29 * 60)
    used = await someone.get("/console")
    rig.clock.advance(30 * 60)
    left = await someone.get("/console")

    assert (200, 303) == (used.status_code, left.status_code)


async def test_a_page_that_refreshes_itself_keeps_nobody_logged_in(rig: Rig) -> None:
    someone = await visitor(rig)
    answers = []
    for _ in range(7):
        answers.append((await someone.get("/console/live/part")).status_code)
        rig.clock.advance(5 * 60)

    assert [200] * 6 + [401] == answers


async def test_a_disabled_operator_is_out_at_once(rig: Rig) -> None:
    someone = await visitor(rig, name="alice")
    now = rig.clock.now()
    (one,) = await rig.gateway.desk.read(accounts.operators)
    await rig.gateway.desk.read(
        lambda engine: logins.set_disabled(engine, one, by="shell", now=now, disabled=True)
    )

    assert 303 == (await someone.get("/console")).status_code
    assert 401 == (await someone.login()).status_code


async def test_failed_logins_close_the_name_and_say_when(rig: Rig) -> None:
    someone = Visitor(rig, "alice")
    await add_operator(rig, "alice", Role.VIEWER)
    answers = [await someone.login("wrong") for _ in range(6)]

    assert [401] * 5 + [429] == [answer.status_code for answer in answers]
    assert "Try again in 15 min" in answers[-1].text
    assert 429 == (await someone.login()).status_code


async def test_a_used_code_of_the_second_factor_opens_nothing(rig: Rig) -> None:
    one = await add_operator(rig, "alice", Role.VIEWER)
    now = rig.clock.now()
    secret = await rig.gateway.desk.read(
        lambda engine: logins.set_totp(engine, keyring(), one, by="shell", now=now, on=True)
    )
    assert secret is not None
    code = totp.code(secret, int(now.timestamp()) // 30)
    first, second, third = (Visitor(rig, "alice") for _ in range(3))
    answers = [
        await first.login(),
        await second.login(code=code),
        await third.login(code=code),
    ]

    assert [401, 303, 401] == [answer.status_code for answer in answers]


async def test_after_the_login_one_is_where_one_wanted_to_be(rig: Rig) -> None:
    await add_operator(rig, "alice", Role.VIEWER)
    someone = Visitor(rig, "alice")
    asked = await someone.get("/console/routes")
    answer = await someone.login(next="/console/routes")

    assert "/console/login?next=%2Fconsole%2Froutes" == asked.headers["location"]
    assert "/console/routes" == answer.headers["location"]


@pytest.mark.parametrize(
    "onward",
    ["https://evil.example", "//evil.example", "/console/../otp", "/otp/send", "/console/logout",
     "/console\\evil", "javascript:alert(1)", "/consoleevil"],
)  # fmt: skip
async def test_a_login_leads_nowhere_else(rig: Rig, onward: str) -> None:
    await add_operator(rig, "alice", Role.VIEWER)
    answer = await Visitor(rig, "alice").login(next=onward)

    assert "/console" == answer.headers["location"]


async def test_dangerous_acts_need_the_password_again(rig: Rig) -> None:
    admin = await visitor(rig, Role.ADMIN)
    rig.clock.advance(5 * 60)
    form = {"name": "shop", "scope_send": "on", "why": "a new shop"}
    refused = await admin.post("/console/clients", form)
    wrong = await admin.post("/console/confirm", {"password": "wrong"})
    confirmed = await admin.post(
        "/console/confirm", {"password": PASSWORD, "next": "/console/clients"}
    )
    done = await admin.post("/console/clients", form)

    assert (403, 401, 303, 200) == tuple(
        one.status_code for one in (refused, wrong, confirmed, done)
    )
    assert "proof_needed" in refused.text
    assert "/console/clients" == confirmed.headers["location"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/console", 303), ("/console/login", 200), ("/console/nothing/here", 404)],
)
async def test_every_answer_carries_the_headers(rig: Rig, path: str, status: int) -> None:
    answer = await Visitor(rig).get(path)

    assert status == answer.status_code
    assert HEADERS == {name: answer.headers.get(name) for name in HEADERS}


async def test_a_page_holds_no_script_or_style_of_its_own(rig: Rig) -> None:
    """The policy would stop it; this says where it is."""
    admin = await visitor(rig, Role.ADMIN)
    sent = await rig.send()
    one = f"/console/verifications/{sent['verification_id']}"
    for name in (
        "", "/live", "/routes", "/clients", "/audit", "/limits", "/subscriptions", "/password",
        one.removeprefix("/console"),
    ):  # fmt: skip
        path = f"/console{name}"
        page = (await admin.get(path)).text

        assert " style=" not in page
        assert "<style" not in page
        assert 1 == page.count("<script")
        assert "http://" not in page.replace("http://127.0.0.1:8080", "").replace(
            "http://www.w3.org/2000/svg", ""
        )
        assert "https://" not in page


async def test_the_static_files_may_be_kept(rig: Rig) -> None:
    nobody = Visitor(rig)
    answers = [
        await nobody.http.get(f"/console/static/{name}?v=1")
        for name in ("console.css", "console.js", "icon.svg", "nothing.css", "..%2Fpages.py")
    ]

    assert [200, 200, 200, 404, 404] == [answer.status_code for answer in answers]
    assert "immutable" in answers[0].headers["cache-control"]
    assert "text/javascript" in answers[1].headers["content-type"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{}", "application/json"),
        (b"q=" + b"x" * 20_000, "application/x-www-form-urlencoded"),
        (b"q=%ff", "application/x-www-form-urlencoded"),
        ("q=é".encode(), "application/x-www-form-urlencoded"),
        (b"&".join(b"a=%d" % at for at in range(50)), "application/x-www-form-urlencoded"),
    ],
)
async def test_what_is_no_form_is_refused(rig: Rig, body: bytes, kind: str) -> None:
    someone = await visitor(rig)
    answer = await someone.http.post(
        "/console/search", content=body, headers={"content-type": kind}
    )

    assert 400 == answer.status_code
    assert "form_odd" in answer.text


async def test_the_api_does_not_take_the_cookie(rig: Rig) -> None:
    admin = await visitor(rig, Role.ADMIN)
    answer = await admin.http.post("/otp/send", json={"to": NUMBER})

    assert 401 == answer.status_code


async def test_logins_at_once_do_not_hold_up_the_callers(rig: Rig) -> None:
    """The hashing is in a thread: a send is answered while logins are under way."""
    await add_operator(rig, "alice", Role.VIEWER)
    logging = [asyncio.create_task(Visitor(rig, f"nobody{at}").login()) for at in range(4)]
    await rig.send()
    under_way = [task for task in logging if not task.done()]
    await asyncio.gather(*logging)

    assert under_way


class Counting(PasswordHasher):
    """Counts the passwords it compares."""

    compared = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
        self.compared += 1
        return super().verify(hash, password)


async def test_a_refused_login_costs_the_same_whoever_is_named(rig: Rig) -> None:
    """A hash is compared once each: of the operator, of nobody, of one who is disabled or known
    elsewhere. Else the time of an answer would tell which names there are."""
    hasher = Counting(time_cost=1, memory_cost=8, parallelism=1)
    one = await add_operator(rig, "alice", Role.VIEWER)
    await add_operator(rig, "gone", Role.VIEWER)
    now = rig.clock.now()

    async def change(engine: Engine) -> None:
        gone = await accounts.operator_named(engine, "gone")
        assert gone is not None
        await logins.set_disabled(engine, gone, by="shell", now=now, disabled=True)
        away = dataclasses.replace(one, id=UUID(ANY), name="away", password="", subject="idp 17")
        await engine.begin()
        await accounts.add_operator(engine, away)
        await engine.commit()

    await rig.gateway.desk.read(change)
    people = logins.Accounts(
        rig.gateway.desk, keyring(), rig.clock.now, rig.gateway.log, hasher=hasher
    )
    compared = []
    for name in ("alice", "nobody", "gone", "away"):
        before = hasher.compared
        with pytest.raises(Unauthenticated):
            await people.login(name, "wrong", "", "203.0.113.7")
        compared.append(hasher.compared - before)

    assert [1, 1, 1, 1] == compared


async def test_no_page_may_be_put_into_a_frame_or_run_a_script_of_its_own(rig: Rig) -> None:
    """Clickjacking and injection: the headers are on every page there is."""
    admin = await visitor(rig, Role.ADMIN)
    sent = await rig.send()
    for method, path in PATHS:
        if method == "GET":
            real = filled(path).replace(ANY, sent["verification_id"])
            answer = await admin.http.get(real)

            assert HEADERS == {name: answer.headers.get(name) for name in HEADERS}, path
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]


async def test_a_page_that_is_not_there_says_so(rig: Rig) -> None:
    answer = await Visitor(rig).get("/console/verifications")

    assert 404 == answer.status_code
    assert "There is no such page." in says(answer)
