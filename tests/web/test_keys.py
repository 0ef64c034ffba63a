"""Live and test keys, their rates, and when they were last used."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fakes import Clock
from rig import NUMBER, Rig, keyring, make_settings, problem

from gateway import config
from gateway.app import test_keys
from gateway.app.routes import Realm
from gateway.app.test_keys import PREFIX
from gateway.config import SettingsError
from gateway.services import keys

CODE = "123456"


@pytest.fixture
async def inside(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[test_keys.Inside]:
    """A sandbox inside, whose receipts come at once."""
    settings = make_settings(tmp_path)
    made = test_keys.Inside(settings, keyring(), clock.now, receipt_delay=0.0)
    yield made
    await made.aclose()


@pytest.fixture
async def world(
    tmp_path: Path, migrated: Path, clock: Clock, inside: test_keys.Inside
) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, migrated, clock, test=inside.realm) as rig:
        inside.attach(rig.gateway.web)
        yield rig


async def tried(rig: Rig, inside: test_keys.Inside, **body: Any) -> dict[str, Any]:
    """A send with a test key, played to its end: what it answered, and the key."""
    key = await rig.client("tester", test=True)
    answer = await rig.call("/otp/send", body, key=key)
    assert answer.status_code == 202, answer.text
    for _ in range(3):  # a fallback has receipts of its own
        await rig.settle()
        await inside.drain()
    return {**answer.json(), "key": key}


# --- Test keys ----------------------------------------------------------------------------------


async def test_a_test_key_reaches_the_sandbox_and_nobody_else(
    world: Rig, inside: test_keys.Inside
) -> None:
    """Without a socket, and its receipts come the way all do."""
    sent = await tried(world, inside, to="+33600010000")
    routes = {one.route for one in world.attempts(sent["verification_id"])}

    assert ["messenger:READ"] == world.states(sent["verification_id"])
    assert {f"{PREFIX}messenger"} == routes
    assert [] == world.transport.submissions


async def test_magic_numbers_choose_what_happens(world: Rig, inside: test_keys.Inside) -> None:
    """The SMS fails by receipt, the call is delivered."""
    sent = await tried(world, inside, to="+33600000300", workflow="sms")

    assert ["sms:FAILED", "voice:DELIVERED"] == world.states(sent["verification_id"])


async def test_the_code_of_a_test_key_is_known(world: Rig, inside: test_keys.Inside) -> None:
    sent = await tried(world, inside, to="+33600000000")
    body = {"verification_id": sent["verification_id"], "code": CODE}
    answer = await world.call("/otp/verify", body, key=sent["key"])

    assert 200 == answer.status_code


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"code_length": 4}, "1234"),
        ({"code_length": 10}, "1234567890"),
        ({"code": "77777"}, "77777"),
    ],
)
async def test_its_code_has_the_length_that_is_asked_for(
    world: Rig, inside: test_keys.Inside, asked: dict[str, Any], code: str
) -> None:
    sent = await tried(world, inside, to="+33600000000", **asked)
    body = {"verification_id": sent["verification_id"], "code": code}

    assert 200 == (await world.call("/otp/verify", body, key=sent["key"])).status_code


async def test_a_live_key_reaches_the_live_routes_and_has_no_known_code(
    world: Rig, inside: test_keys.Inside
) -> None:
    await tried(world, inside, to=NUMBER)
    sent = await world.send(NUMBER, workflow="sms_only", code_length=10)
    routes = {one.route for one in world.attempts(sent["verification_id"])}

    assert {"octopush"} == routes
    assert ["sms-campaign"] == [one.path.split("/")[-2] for one in world.transport.submissions]
    assert "1234567890" != world.transport.submissions[0].code


async def test_neither_kind_can_name_the_other_s_routes(world: Rig) -> None:
    """Whatever a key may ask for: every plan there is, of both kinds."""
    live, test = world.runtime, world.runtime.test
    assert test is not None
    for runtime, own in ((live, False), (test, True)):
        asked: list[tuple[str | None, str | None]] = [(name, None) for name in runtime.workflows]
        asked += [(None, one.provider.channel) for one in runtime.routes.values()]
        plans = [runtime.choose(workflow, channel, "FR").plan for workflow, channel in asked]
        names = {route.name for plan in plans for step in plan.steps for route in step.routes}

        assert {own} == {name.startswith(PREFIX) for name in names}


async def test_a_test_key_cannot_name_a_live_workflow(world: Rig) -> None:
    key = await world.client("tester", test=True)
    answer = await world.call("/otp/send", {"to": NUMBER, "workflow": "two_routes"}, key=key)

    problem(answer, 400, "unknown_workflow")


async def test_a_test_key_sees_no_live_verification_even_with_every_scope(world: Rig) -> None:
    sent = await world.send(workflow="sms_only", reference="o-1")
    key = await world.client("tester", "send verify status operate", test=True)
    for named in ({"verification_id": sent["verification_id"]}, {"reference": "o-1"}):
        for path in ("/otp/status", "/otp/cancel"):
            problem(await world.call(path, named, key=key), 404, "verification_not_found")


async def test_without_a_sandbox_a_test_key_sends_nothing(rig: Rig) -> None:
    key = await rig.client("tester", test=True)
    answer = await rig.call("/otp/send", {"to": NUMBER}, key=key)

    assert {} == problem(answer, 403, "test_key_refused")
    assert [] == rig.transport.submissions


async def test_where_the_sandbox_is_configured_both_kinds_use_it(
    tmp_path: Path, migrated: Path, clock: Clock
) -> None:
    settings = make_settings(tmp_path)
    async with Rig(tmp_path, migrated, clock, test=Realm(settings)) as rig:
        key = await rig.client("tester", test=True)
        answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"}, key=key)
        await rig.settle()

        assert 202 == answer.status_code
        assert [CODE] == [one.code for one in rig.transport.submissions]


def test_a_route_may_not_have_the_name_of_one_of_theirs(tmp_path: Path) -> None:
    """Receipts and references would mix."""
    settings = make_settings(tmp_path)
    (clashing,) = test_keys.Inside(settings, keyring()).realm.settings.providers[:1]
    mixed = config.replace(settings, (*settings.providers, clashing), settings.workflows)

    with pytest.raises(SettingsError, match=f"routes.{PREFIX}messenger"):
        test_keys.Inside(mixed, keyring())


def test_what_a_key_begins_with_says_what_it_is() -> None:
    from gateway.web import auth

    assert auth.new_key().startswith("otp_live_")
    assert auth.new_key(test=True).startswith("otp_test_")


# --- Rates --------------------------------------------------------------------------------------


async def test_a_key_with_a_rate_is_refused_above_it(rig: Rig) -> None:
    key = await rig.client("slow", rate=2.0)
    asked = {"reference": "none"}
    answers = [await rig.call("/otp/status", asked, key=key) for _ in range(3)]
    rig.clock.advance(0.5)
    later = await rig.call("/otp/status", asked, key=key)
    facts = problem(answers[2], 429, "key_rate")

    assert [404, 404, 429, 404] == [one.status_code for one in (*answers, later)]
    assert {"rule": "key_rate", "limit": 2.0, "window": 1, "retry_after": 1} == facts
    assert "1" == answers[2].headers["retry-after"]


async def test_a_rate_is_one_key_s_own(rig: Rig) -> None:
    slow = await rig.client("slow", rate=1.0)
    other = await rig.client("other", rate=1.0)
    answers = [
        await rig.call("/otp/status", {"reference": "none"}, key=key)
        for key in (slow, slow, other, rig.key, rig.key, rig.key)
    ]

    assert [404, 429, 404, 404, 404, 404] == [one.status_code for one in answers]


# --- Last used ----------------------------------------------------------------------------------


async def test_when_a_key_was_last_used_is_written_now_and_then(rig: Rig) -> None:
    """Not by the call itself."""
    used = rig.clock.now()
    await rig.call("/otp/status", {"reference": "none"})
    (before,) = [row[-1] for row in rig.dump()["api_key"]]
    written = await keys.write_uses(rig.runtime)
    (after,) = [row[-1] for row in rig.dump()["api_key"]]

    assert (None, 1) == (before, written)
    assert round(used.timestamp() * 1000) == after
    assert 0 == await keys.write_uses(rig.runtime)


async def test_what_could_not_be_written_waits(rig: Rig) -> None:
    await rig.call("/otp/status", {"reference": "none"})
    with rig.locked(), pytest.raises(Exception, match="storage"):
        await keys.write_uses(rig.runtime)

    assert 1 == await keys.write_uses(rig.runtime)
