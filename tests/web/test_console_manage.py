"""Subscriptions, limits, releases and one's own password at the console."""

import dataclasses
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from endpoints import URL, FakeEndpoints, failing, notified
from fakes import Clock
from rig import NUMBER, Rig, make_settings, problem
from visitor import PASSWORD, Visitor, add_operator, says, visitor

from gateway.domain import totp
from gateway.domain.access import Role
from gateway.domain.guard import Guard, Mode
from gateway.domain.limits import Per, Rule
from gateway.domain.policy import Policy
from gateway.services import accounts as logins
from gateway.store import audits, writes
from gateway.store.audits import Filter
from gateway.store.outbox import OutboxReads, Subscription
from gateway.store.records import Suppression

OTHER = "+33612345679"
NEW = "a quite different phrase"


@pytest.fixture
def endpoints() -> FakeEndpoints:
    return FakeEndpoints()


TIGHT = (Rule("number", Per.NUMBER, 600, 1), Rule("hour", Per.CLIENT, 3600, 1, shadow=True))
GUARD = Guard(Mode.ENFORCE, sends=1, budget=1, country_budget=50)


@pytest.fixture
async def rig(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    migrated: Path,
    clock: Clock,
    endpoints: FakeEndpoints,
) -> AsyncIterator[Rig]:
    """With tight limits; a parameter is its guard."""
    policy = Policy(rules=TIGHT, guard=getattr(request, "param", None))
    settings = dataclasses.replace(make_settings(tmp_path), policy=policy)
    async with Rig(tmp_path, migrated, clock, settings=settings, webhooks=endpoints) as made:
        yield made


guarded = pytest.mark.parametrize("rig", [GUARD], indirect=True)


async def told(rig: Rig, action: str) -> list[tuple[str, str, str]]:
    rows = await rig.gateway.desk.read(
        lambda engine: audits.newest(engine, Filter(action=action), 50)
    )
    return [(row.actor, row.what, row.why) for row in rows]


async def subscriptions(rig: Rig) -> list[Subscription]:
    async def read(engine: object) -> list[Subscription]:
        return await OutboxReads(engine).subscriptions()  # type: ignore[arg-type]

    return await rig.gateway.desk.read(read)


# Subscriptions.


@pytest.mark.both
async def test_a_subscription_is_made_renewed_stopped_and_replayed(
    rig: Rig, endpoints: FakeEndpoints
) -> None:
    admin = await visitor(rig, Role.ADMIN, "alice")
    path = "/console/subscriptions"
    page = await admin.get(path)
    client = re.search(r'<option value="([0-9a-f-]{36})">backend', page.text)
    assert client is not None
    form = {"client": client.group(1), "url": URL, "why": "they asked"}
    made = await admin.post(path, form)
    secret = re.search(r"whsec_[A-Za-z0-9+/=]+", made.text)
    (one,) = await subscriptions(rig)
    listed = await admin.get(path)

    assert secret is not None
    assert secret.group() not in listed.text
    assert URL in says(listed)
    assert [("alice", f"backend, {one.id}", "they asked")] == await told(rig, "subscription add")

    await rig.send(workflow="sms_only")
    await notified(rig)
    tested = await admin.post(f"{path}/{one.id}/test", {"why": "does it work"})
    rotated = await admin.post(f"{path}/{one.id}/rotate", {"why": "it leaked"})
    await admin.follow(await admin.post(f"{path}/{one.id}/disable", {"why": "too noisy"}))
    stopped = says(await admin.get(path))
    before = len(endpoints.got)
    since = {"since": "2026-11-21T00:00", "why": "lost them"}
    await admin.follow(await admin.post(f"{path}/{one.id}/replay", since))
    await notified(rig)

    assert "The endpoint took it: HTTP 204." in says(tested)
    assert "whsec_" in rotated.text
    assert secret.group() not in rotated.text
    assert "by alice: too noisy" in stopped
    assert before < len(endpoints.got)
    assert [("alice", f"{one.id}, since 2026-11-21 00:00 UTC", "lost them")] == await told(
        rig, "subscription replay"
    )
    await admin.follow(await admin.post(f"{path}/{one.id}/remove", {"why": "gone"}))
    assert [] == await subscriptions(rig)


async def test_what_is_wrong_with_a_subscription_is_said(rig: Rig) -> None:
    admin = await visitor(rig, Role.ADMIN)
    page = await admin.get("/console/subscriptions")
    client = re.search(r'<option value="([0-9a-f-]{36})"', page.text)
    assert client is not None
    fine = {"client": client.group(1), "url": URL, "why": "they asked"}
    wrong = [
        fine | {"url": "http://10.0.0.1/"},
        fine | {"url": "javascript:alert(1)"},
        fine | {"client": "nobody"},
        fine | {"why": ""},
    ]
    codes = [(await admin.post("/console/subscriptions", form)).status_code for form in wrong]
    await admin.post("/console/subscriptions", fine)
    (one,) = await subscriptions(rig)
    path = f"/console/subscriptions/{one.id}"
    codes += [
        (await admin.post(f"{path}/replay", {"why": "lost", "since": since})).status_code
        for since in ("yesterday", "2036-01-01")
    ]
    missing = [
        (await admin.post(f"{path}/explode", {"why": "because"})).status_code,
        (await admin.post("/console/subscriptions/17/rotate", {"why": "because"})).status_code,
    ]

    assert [400] * 6 == codes
    assert [404, 404] == missing


async def test_a_failing_endpoint_is_seen_with_its_problem(
    rig: Rig, endpoints: FakeEndpoints
) -> None:
    admin = await visitor(rig, Role.ADMIN)
    await rig.call("/otp/subscriptions", {"url": URL})
    endpoints.at[URL] = failing(500)
    await rig.send(workflow="sms_only")
    await notified(rig)
    page = says(await admin.get("/console/subscriptions"))

    assert "failing" in page
    assert "1 failures since 2026-11-21 12:00:00 UTC: HTTP 500" in page


# Limits and guard.


@guarded
async def test_limits_say_what_they_refuse_and_would(rig: Rig) -> None:
    person = await visitor(rig, Role.VIEWER)
    await rig.send(workflow="sms_only")
    problem(await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"}), 429, "cool_down")
    await rig.call("/otp/send", {"to": "+447400123456", "workflow": "sms_only"})
    limits = says(await person.get("/console/limits"))
    live = says(await person.get("/console/live"))

    assert "a second step asked for within 10 s in force 1 / 1 0 / 0" in limits
    assert "pumping the pumping guard in force" in limits
    assert "spend what a client may spend in a day off" in limits
    assert "hour 1 in 3600 s for each client shadow 0 / 0 1 / 1" in limits
    assert "+3361234 0, 0 1, 0 is refused: 1 send of this window is unverified" in limits
    assert "cool_down /otp/send 1 1 2026-11-21 12:00:00" in live


@pytest.mark.parametrize("rig", [dataclasses.replace(GUARD, mode=Mode.SHADOW)], indirect=True)
async def test_a_guard_that_only_watches_is_not_called_in_force(rig: Rig) -> None:
    limits = says(await (await visitor(rig, Role.VIEWER)).get("/console/limits"))

    assert "pumping the pumping guard shadow" in limits
    assert "Only watches." in limits


@pytest.mark.both
@guarded
async def test_a_prefix_is_let_through_until_a_date(rig: Rig) -> None:
    admin = await visitor(rig, Role.ADMIN, "alice")
    await rig.send(workflow="sms_only")
    body = {"to": OTHER, "workflow": "sms_only"}
    problem(await rig.call("/otp/send", body), 429, "pumping_suspected")
    form = {"scope": "+33 61 234", "until": "2026-12-31", "why": "a campaign"}
    answer = await admin.post("/console/limits/pass", form)
    rig.clock.advance(10)
    page = says(await admin.follow(answer))

    assert 202 == (await rig.call("/otp/send", body)).status_code
    assert "is let through until 2026-12-31 23:59:59 UTC: a campaign" in page
    assert [("alice", "+3361234 until 2026-12-31 23:59 UTC", "a campaign")] == await told(
        rig, "guard allow"
    )
    for wrong in ({"scope": "33"}, {"until": "2020-01-01"}, {"until": "soon"}, {"why": ""}):
        assert 400 == (await admin.post("/console/limits/pass", form | wrong)).status_code, wrong


# Releases.


@pytest.mark.both
async def test_what_stands_in_the_way_is_shown_and_released(rig: Rig) -> None:
    person = await visitor(rig, Role.SUPPORT, "bob")
    sent = await rig.send(workflow="sms_only")
    named = sent["verification_id"]
    for _ in range(5):
        await rig.verify(named, "0" * 6)
    index = rig.record(named).verification.recipient_index
    engine = rig.runtime.engine
    await engine.begin()
    until = rig.clock.now().replace(year=2027)
    way = Suppression(index, "sms", "octopush", "ACME", "opted out", rig.clock.now(), until)
    await writes.put_suppressions(engine, [way])
    await engine.commit()
    body = {"to": NUMBER, "workflow": "sms_only"}
    refused = await rig.call("/otp/send", body)
    page = await person.get(f"/console/verifications/{named}")
    path = f"/console/verifications/{named}/release"
    silent = await person.post(path)
    done = await person.follow(await person.post(path, {"why": "typed it from an old mail"}))
    viewer = await visitor(rig, Role.VIEWER)

    assert 429 == refused.status_code
    assert "a code left just now" in says(page)
    assert "the limit number: 1 sends" in says(page)
    assert "sms over octopush: opted out" in says(page)
    assert 400 == silent.status_code
    assert "nothing stands in the way" in says(done)
    assert "What stands in the way" not in says(done)
    assert 403 == (await viewer.post(path, {"why": "because"})).status_code
    ((who, what, why),) = await told(rig, "release")
    assert ("bob", "typed it from an old mail") == (who, why)
    assert "opted out" in what
    assert 202 == (await rig.call("/otp/send", body)).status_code


async def test_released_are_wrong_codes_over_all_verifications(rig: Rig) -> None:
    named = ""
    for _ in range(3):
        rig.clock.advance(700)
        named = (await rig.send(workflow="sms_only"))["verification_id"]
        for _ in range(5):
            await rig.verify(named, "0" * 6)
    rig.clock.advance(700)
    refused = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})
    person = await visitor(rig)
    page = await person.get(f"/console/verifications/{named}")
    await person.post(f"/console/verifications/{named}/release", {"why": "known customer"})

    problem(refused, 429, "failure_budget_used_up")
    assert "wrong codes for this client, until" in says(page)
    again = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})
    assert 202 == again.status_code


# One's own password.


@pytest.mark.both
async def test_an_operator_changes_the_password_and_other_sessions_end(rig: Rig) -> None:
    first = await visitor(rig, Role.VIEWER, "alice")
    second = Visitor(rig, "alice")
    await second.login()
    before = first.http.cookies["console"]
    form = {"password": PASSWORD, "new": NEW, "again": NEW}
    wrong = [
        await first.post("/console/password", form | {"password": "not the one I have"}),
        await first.post("/console/password", form | {"again": "something else"}),
        await first.post("/console/password", form | {"new": "short", "again": "short"}),
    ]
    done = await first.post("/console/password", form)
    page = await first.follow(done)

    assert [401, 400, 400] == [one.status_code for one in wrong]
    assert "your other sessions have ended" in says(page)
    assert before != first.http.cookies["console"]
    assert 303 == (await second.get("/console")).status_code
    assert [401, 303] == [
        (await Visitor(rig, "alice").login(given)).status_code for given in (PASSWORD, NEW)
    ]
    assert [("alice", "", "")] == await told(rig, "password")


async def test_a_code_used_for_the_password_opens_nothing_after_it(rig: Rig) -> None:
    """The change must not set back which step of the second factor was used."""
    one = await add_operator(rig, "alice", Role.VIEWER)
    now = rig.clock.now()
    keyring = rig.runtime.keyring
    secret = await rig.gateway.desk.read(
        lambda engine: logins.set_totp(engine, keyring, one, by="shell", now=now, on=True)
    )
    assert secret is not None
    person = Visitor(rig, "alice")
    await person.login(code=totp.code(secret, int(now.timestamp()) // 30))
    rig.clock.advance(30)
    code = totp.code(secret, int(rig.clock.now().timestamp()) // 30)
    form = {"password": PASSWORD, "new": NEW, "again": NEW}
    without = await person.post("/console/password", form)
    done = await person.post("/console/password", form | {"code": code})

    assert (401, 303) == (without.status_code, done.status_code)
    assert 401 == (await Visitor(rig, "alice").login(NEW, code=code)).status_code
