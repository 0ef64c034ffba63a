"""Logging in at the console through an identity provider that serves on a real socket."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import Clock
from issuer import CLIENT, SECRET, Issuer, Key, issuing
from rig import Rig, make_settings
from visitor import Visitor, add_operator, says, visitor

from gateway.config import OidcSettings
from gateway.domain.access import TRIES_FROM, Role
from gateway.domain.oidc import Terms
from gateway.ports import Secret
from gateway.services import accounts as logins
from gateway.store import accounts, audits
from gateway.store.audits import Filter

ROLES = {Role.SUPPORT: frozenset({"help"}), Role.ADMIN: frozenset({"ops", "root"})}
ALICE = {"sub": "4711", "preferred_username": "Alice", "groups": ["staff", "help"]}


@pytest.fixture
async def issuer(clock: Clock) -> AsyncIterator[Issuer]:
    async with issuing(clock.now) as made:
        made.person = dict(ALICE)
        yield made


@pytest.fixture
async def rig(tmp_path: Path, migrated: Path, clock: Clock, issuer: Issuer) -> AsyncIterator[Rig]:
    scopes = ("openid", "profile")
    terms = Terms(issuer.address, CLIENT, scopes, "preferred_username", "groups", ROLES)
    oidc = OidcSettings(terms, Secret(SECRET), "ACME login")
    settings = dataclasses.replace(make_settings(tmp_path), oidc=oidc)
    async with Rig(tmp_path, migrated, clock, settings=settings) as made:
        yield made


async def gone(person: Visitor, query: str = "") -> tuple[httpx.Response, str]:
    """To the provider, and its answer: the way back, and where that leads here."""
    begun = await person.http.get(f"/console/oidc{query}")
    assert 303 == begun.status_code, begun.text
    answer = await person.away(begun.headers["location"])
    assert 302 == answer.status_code, answer.text
    return begun, answer.headers["location"]


async def entered(person: Visitor, query: str = "") -> httpx.Response:
    """There and back."""
    _, back = await gone(person, query)
    return await person.get(back, headers={"sec-fetch-site": "cross-site"})


async def told(rig: Rig) -> list[tuple[str, str, str]]:
    rows = await rig.gateway.desk.read(lambda engine: audits.newest(engine, Filter(), 50))
    return [(row.actor, row.action, row.what) for row in reversed(rows)]


@pytest.mark.both
async def test_somebody_with_a_role_there_is_an_operator_here(rig: Rig, issuer: Issuer) -> None:
    person = Visitor(rig)
    page = await person.get("/console/login?next=/console/routes")
    answer = await entered(person, "?next=/console/routes")
    routes = await person.follow(answer)

    assert "Log in through ACME login" in says(page)
    assert 'href="/console/oidc?next=/console/routes"' in page.text
    assert "/console/routes" == answer.headers["location"]
    assert "alice, support" in says(routes)
    assert [("oidc", "operator add", "alice, support"), ("alice", "login", "oidc")] == (
        await told(rig)
    )
    (asked,) = issuer.asked
    assert "openid profile" == asked["scope"]
    assert "http://127.0.0.1:8080/console/oidc/callback" == asked["redirect_uri"]


@pytest.mark.parametrize("method", ["client_secret_post", "none"])
async def test_a_client_proves_itself_as_the_provider_wants_it(
    rig: Rig, issuer: Issuer, method: str
) -> None:
    issuer.method = method
    if method == "none":
        sign_in = rig.gateway.sign_in
        assert sign_in is not None
        sign_in._secret = None

    assert 303 == (await entered(Visitor(rig))).status_code


WRONG: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"iss": "https://evil.example"}, {}),
    ({"aud": "another client"}, {}),
    ({"aud": [CLIENT, "another client"]}, {}),
    ({"azp": "another client"}, {}),
    ({"exp": 1}, {}),
    ({"exp": None}, {}),
    ({"iat": 1 << 40}, {}),
    ({"nonce": "of another login"}, {}),
    ({"nonce": None}, {}),
    ({"sub": None}, {}),
    ({}, {"alg": "none"}),
    ({}, {"alg": "HS256"}),
    ({}, {"kid": "unheard-of"}),
]


async def test_a_token_that_is_not_for_us_now_opens_nothing(rig: Rig, issuer: Issuer) -> None:
    person = Visitor(rig)
    for changes, header in WRONG:
        issuer.changes, issuer.header = changes, header
        answer = await entered(person)

        assert (401, True) == (answer.status_code, "oidc_token" in answer.text), (changes, header)
    issuer.changes, issuer.header, issuer.signs = {}, {}, Key("another")

    assert 401 == (await entered(person)).status_code
    assert "console" not in person.http.cookies
    assert {"(unknown)"} == {actor for actor, _, _ in await told(rig)}
    issuer.signs = None
    assert 303 == (await entered(person)).status_code


async def test_a_new_key_of_the_provider_is_learned(rig: Rig, issuer: Issuer) -> None:
    """Not at every token that names an unknown one: anybody could make us ask then."""
    await entered(Visitor(rig))
    issuer.key = Key("second")
    early = await entered(Visitor(rig))
    rig.clock.advance(30)
    later = await entered(Visitor(rig))

    assert (401, 303) == (early.status_code, later.status_code)


async def test_only_the_browser_that_began_comes_in(rig: Rig, issuer: Issuer) -> None:
    """State: else somebody could log others in as themselves."""
    alice, mallory = Visitor(rig), Visitor(rig)
    _, back = await gone(alice)
    await gone(mallory)
    answers = [await mallory.get(back), await Visitor(rig).get(back)]
    own = await alice.get(back)
    again = await alice.get(back)

    assert [401, 401] == [one.status_code for one in answers]
    assert (303, 401) == (own.status_code, again.status_code)


async def test_the_verifier_is_the_one_of_the_challenge(rig: Rig, issuer: Issuer) -> None:
    """PKCE: a code that was caught is of no use in a flow begun elsewhere."""
    alice, mallory = Visitor(rig), Visitor(rig)
    _, caught = await gone(alice)
    _, own = await gone(mallory)
    url = httpx.URL(own).copy_set_param("code", httpx.URL(caught).params["code"])
    answer = await mallory.get(str(url))

    assert 401 == answer.status_code
    assert "oidc_declined" in answer.text


async def test_an_answer_that_is_odd_is_refused(rig: Rig, issuer: Issuer) -> None:
    person = Visitor(rig)
    _, back = await gone(person)
    odd = {"state": "", "code": "", "iss": "https://evil.example", "error": "access_denied"}
    for param, text in odd.items():
        answer = await person.get(str(httpx.URL(back).copy_set_param(param, text)))

        assert 401 == answer.status_code, param


async def test_one_does_not_come_back_an_hour_later(rig: Rig, issuer: Issuer) -> None:
    person = Visitor(rig)
    _, back = await gone(person)
    rig.clock.advance(10 * 60)

    assert "oidc_late" in (await person.get(back)).text


async def test_the_session_is_made_anew(rig: Rig, issuer: Issuer) -> None:
    """Fixation: whatever was in the cookie before is worth nothing after it."""
    person, thief = Visitor(rig), Visitor(rig)
    await entered(person)
    before = person.http.cookies["console"]
    await entered(person)
    thief.http.cookies.set("console", before)

    assert before != person.http.cookies["console"]
    assert 303 == (await thief.get("/console")).status_code
    assert 200 == (await person.get("/console")).status_code


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"groups": ["staff"]}, 403, "oidc_role"),
    ({"groups": None}, 403, "oidc_role"),
    ({"groups": {"help": True}}, 403, "oidc_role"),
    ({"preferred_username": "<script>"}, 403, "oidc_name"),
    ({"preferred_username": None}, 403, "oidc_name"),
    ({"preferred_username": "demo"}, 403, "oidc_name"),
    ({"preferred_username": "local"}, 409, "oidc_name_taken"),
]


async def test_who_has_no_place_here_is_told_so(rig: Rig, issuer: Issuer) -> None:
    await add_operator(rig, "local", Role.ADMIN)
    for claims, status, code in REFUSED:
        issuer.changes = claims
        answer = await entered(Visitor(rig))

        assert (status, True) == (answer.status_code, code in answer.text), claims
        assert "<script>" not in answer.text


@pytest.mark.both
async def test_a_role_is_that_of_today_and_the_highest(rig: Rig, issuer: Issuer) -> None:
    first, second = Visitor(rig), Visitor(rig)
    await entered(first)
    issuer.person["groups"] = ["help", "root"]
    issuer.person["preferred_username"] = "Alice Married"
    await entered(second)

    assert "alice, admin" in says(await second.get("/console"))
    assert 303 == (await first.get("/console")).status_code  # the older session was of a lower role


@pytest.mark.both
async def test_a_role_that_was_taken_away_ends_what_is_open(rig: Rig, issuer: Issuer) -> None:
    """At the first login there that says so; whoever else is logged in stays."""
    old, new, other = Visitor(rig), Visitor(rig), await visitor(rig)
    await entered(old)
    before = await old.get("/console/routes")
    issuer.person["groups"] = ["staff"]
    refused = await entered(new)
    await entered(new)

    assert (200, 403) == (before.status_code, refused.status_code)
    assert 303 == (await old.get("/console/routes")).status_code
    assert 200 == (await other.get("/console/routes")).status_code
    assert 1 == (await told(rig)).count(("oidc", "operator role", "alice, none"))


async def test_who_has_begun_nothing_leaves_no_trace(rig: Rig, issuer: Issuer) -> None:
    """Neither a row nor a look at the write lock: anybody may ask for that page."""
    before, writing = rig.dump(), rig.gateway.desk._thread
    person = Visitor(rig)
    answers = [await person.get("/console/oidc/callback?state=x")]
    person.http.cookies.set("console-oidc", "k1.00ff")
    answers.append(await person.get("/console/oidc/callback?state=x"))

    assert [401, 401] == [answer.status_code for answer in answers]
    assert (before, None) == (rig.dump(), writing or rig.gateway.desk._thread)


async def test_tries_of_an_address_are_counted_until_one_succeeds(rig: Rig, issuer: Issuer) -> None:
    person = Visitor(rig)
    await entered(person)
    _, back = await gone(person)
    wrong = str(httpx.URL(back).copy_set_param("state", "x"))
    statuses = [(await person.get(wrong)).status_code for _ in range(TRIES_FROM + 3)]
    rows = len(await told(rig))

    assert [401] * TRIES_FROM + [429] * 3 == statuses
    assert 2 + TRIES_FROM == rows
    assert 429 == (await person.get(back)).status_code
    rig.clock.advance(15 * 60)
    assert 303 == (await entered(person)).status_code


async def test_a_disabled_operator_stays_out(rig: Rig, issuer: Issuer) -> None:
    await entered(Visitor(rig))
    (one,) = await rig.gateway.desk.read(accounts.operators)
    now = rig.clock.now()
    await rig.gateway.desk.read(
        lambda engine: logins.set_disabled(engine, one, by="shell", now=now, disabled=True)
    )

    assert "oidc_disabled" in (await entered(Visitor(rig))).text


async def test_there_is_no_password_for_who_comes_from_there(rig: Rig, issuer: Issuer) -> None:
    await entered(Visitor(rig))
    person = Visitor(rig, "alice")

    assert [401, 401] == [(await person.login(given)).status_code for given in ("", "anything")]


async def test_a_dangerous_act_needs_a_fresh_proof_from_there(rig: Rig, issuer: Issuer) -> None:
    """Being logged in at the provider since the morning is none."""
    issuer.person["groups"] = ["ops"]
    issuer.logged_in_at = rig.clock.now() - timedelta(hours=3)
    person = Visitor(rig)
    await entered(person)
    form = {"name": "shop", "scope_send": "on", "why": "a new shop"}
    refused = await person.post("/console/clients", form)
    confirm = await person.get("/console/confirm?next=/console/clients")
    answer = await entered(person, "?next=/console/clients&fresh=1")
    done = await person.post("/console/clients", form)

    assert (403, 303, 200) == (refused.status_code, answer.status_code, done.status_code)
    assert "/console/oidc?next=/console/clients&amp;fresh=1" in confirm.text
    assert "/console/clients" == answer.headers["location"]
    assert ("login", "0") == (issuer.asked[-1]["prompt"], issuer.asked[-1]["max_age"])


async def test_a_provider_that_does_not_ask_again_is_no_fresh_proof(
    rig: Rig, issuer: Issuer
) -> None:
    issuer.changes = {"auth_time": int(rig.clock.now().timestamp()) - 3600}

    assert "oidc_token" in (await entered(Visitor(rig), "?fresh=1")).text


async def test_a_provider_that_is_silent_or_another_is_unavailable(
    rig: Rig, issuer: Issuer
) -> None:
    address, issuer.address = issuer.address, "https://evil.example"
    odd = await Visitor(rig).get("/console/oidc")
    issuer.address = address

    assert (503, "oidc_unavailable" in odd.text) == (odd.status_code, True)
    assert 303 == (await Visitor(rig).get("/console/oidc")).status_code


async def test_many_at_once_ask_the_provider_once(rig: Rig, issuer: Issuer) -> None:
    answers = await asyncio.gather(*(entered(Visitor(rig)) for _ in range(4)))

    assert [303] * 4 == [one.status_code for one in answers]
    assert 1 == len(await rig.gateway.desk.read(accounts.operators))
