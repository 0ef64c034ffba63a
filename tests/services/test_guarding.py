"""The pumping guard over the real ledger: what it counts, refuses, tells, and lets through."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import Clock
from rig import Rig, make_settings, problem

from gateway.domain.guard import Guard, Mode, Seen
from gateway.domain.policy import Policy
from gateway.services import guarding
from gateway.services.guarding import Sight, Watch
from gateway.store import tallies
from gateway.store.tallies import Pass

RULE = Guard(Mode.ENFORCE, window=600, settle=120, sends=4, percent=50, budget=6)
SHADOW = replace(RULE, mode=Mode.SHADOW)
PUMPED = "+3361234"
Guarded = Callable[..., Any]


@pytest.fixture
def guarded(tmp_path: Path, migrated: Path, clock: Clock) -> Guarded:
    """A rig with this guard and no other limit."""

    @asynccontextmanager
    async def made(rule: Guard | None = RULE) -> AsyncIterator[Rig]:
        settings = replace(make_settings(tmp_path), policy=Policy(rules=(), guard=rule))
        async with Rig(tmp_path, migrated, clock, settings=settings) as rig:
            yield rig

    return made


async def ask(rig: Rig, at: int, prefix: str = PUMPED) -> httpx.Response:
    answer = await rig.call("/otp/send", {"to": f"{prefix}{at:04}", "workflow": "sms_only"})
    await rig.settle()
    return answer


async def typed(rig: Rig, *answers: httpx.Response) -> None:
    """The person types what the last messages said."""
    codes = {
        one.body["recipients"][0]["phone_number"]: one.code for one in rig.transport.submissions
    }
    for answer in answers:
        record = rig.record(answer.json()["verification_id"])
        number = rig.keyring.open(
            record.verification.key_id,
            record.verification.recipient_sealed or b"",
            owner=record.verification.id.bytes,
        ).decode()
        right = await rig.verify(answer.json()["verification_id"], codes[number])
        assert 200 == right.status_code


async def sights(rig: Rig, rule: Guard = RULE) -> dict[str, Sight]:
    return {
        one.scope: one for one in await guarding.look(rig.runtime.engine, rule, rig.clock.now())
    }


async def test_the_budget_of_a_window_holds(guarded: Guarded) -> None:
    async with guarded() as rig:
        answers = [await ask(rig, at) for at in range(7)]
        facts = problem(answers[-1], 429, "pumping_suspected")

        assert [202] * 6 + [429] == [one.status_code for one in answers]
        assert {
            "rule": "pumping",
            "limit": 6,
            "window": 600,
            "remaining": 0,
            "reset": "2026-11-21T12:10:00.000Z",
            "retry_after": 600,
            "scope": "prefix",
            "why": "budget",
        } == facts
        assert 202 == (await ask(rig, 0, "+3367234")).status_code


async def test_typed_codes_give_the_budget_back(guarded: Guarded) -> None:
    async with guarded() as rig:
        answers = [await ask(rig, at) for at in range(6)]
        assert 429 == (await ask(rig, 6)).status_code
        await typed(rig, *answers[:2])

        assert [202, 202, 429] == [(await ask(rig, at)).status_code for at in (6, 7, 8)]


async def test_a_settled_window_with_too_few_typed_codes_refuses(guarded: Guarded) -> None:
    async with guarded() as rig:
        answers = [await ask(rig, at) for at in range(4)]
        await typed(rig, answers[0])
        rig.clock.advance(600 + 119)
        before = await ask(rig, 10)
        rig.clock.advance(1)
        refused = await ask(rig, 11)
        rig.clock.advance(600)

        assert 202 == before.status_code
        assert "ratio" == problem(refused, 429, "pumping_suspected")["why"]
        assert 202 == (await ask(rig, 12)).status_code  # a window without sends tells nothing


async def test_enough_typed_codes_let_a_prefix_be(guarded: Guarded) -> None:
    async with guarded() as rig:
        answers = [await ask(rig, at) for at in range(4)]
        await typed(rig, *answers[:2])
        rig.clock.advance(720)

        assert 202 == (await ask(rig, 10)).status_code


async def test_a_code_counts_for_the_window_it_was_sent_in_and_for_all_its_sends(
    guarded: Guarded,
) -> None:
    async with guarded() as rig:
        rig.clock.advance(590)
        answer = await ask(rig, 1)
        rig.clock.advance(30)
        await ask(rig, 1)
        await typed(rig, answer)
        rig.clock.advance(200)
        seen = (await sights(rig))[PUMPED]

        assert (Seen(1, 2), Seen(1, 0)) == (seen.settled, seen.current)


async def test_in_shadow_it_counts_and_tells_once_a_window(guarded: Guarded) -> None:
    class Told(list[dict[str, object]]):
        def warning(self, event: str, **facts: object) -> None:
            self.append({"event": event, **facts})

    async with guarded(SHADOW) as rig:
        answers = [await ask(rig, at) for at in range(8)]
        log, watch = Told(), Watch()
        await watch.tell(rig.runtime, log, rig.clock.now())
        await watch.tell(rig.runtime, log, rig.clock.now())

        assert [202] * 8 == [one.status_code for one in answers]
        assert [
            {"event": "guard_shadow", "scope": PUMPED, "why": "budget", "seen": 8, "limit": 6}
        ] == log


async def test_off_it_counts_nothing(guarded: Guarded) -> None:
    async with guarded(None) as rig:
        await ask(rig, 1)

        assert [] == rig.dump()["tally"]
        assert () == await Watch().tell(rig.runtime, None, rig.clock.now())  # type: ignore[arg-type]


async def test_it_shows_prefix_and_country_and_what_it_would_refuse(guarded: Guarded) -> None:
    async with guarded(SHADOW) as rig:
        for at in range(6):
            await ask(rig, at)
        found = await sights(rig, SHADOW)

        assert [PUMPED, "FR"] == list(found)
        assert Seen(6, 0) == found["FR"].current
        assert found["FR"].verdict is None
        assert "6 sends of this window are unverified, 6 are allowed" == getattr(
            found[PUMPED].verdict, "sentence", None
        )


@pytest.mark.parametrize("scope", ["FR", "+33", PUMPED])
async def test_a_pass_is_noticed_within_seconds_and_ends(guarded: Guarded, scope: str) -> None:
    async with guarded() as rig:
        for at in range(6):
            await ask(rig, at)
        assert 429 == (await ask(rig, 7)).status_code
        now = rig.clock.now()
        until = now.replace(hour=12, minute=5)
        await tallies.allow(rig.runtime.engine, Pass(scope, until, "a campaign", now))
        rig.clock.advance(2)
        assert 202 == (await ask(rig, 8)).status_code
        rig.clock.advance(299)

        assert 429 == (await ask(rig, 9)).status_code


async def test_a_pass_for_elsewhere_changes_nothing(guarded: Guarded) -> None:
    async with guarded() as rig:
        now = rig.clock.now()
        until = now.replace(year=2027)
        await tallies.allow(rig.runtime.engine, Pass("+3399", until, "", now))
        answers = [await ask(rig, at) for at in range(7)]

        assert 429 == answers[-1].status_code
        assert (await sights(rig))["+3399"].passed is not None
        assert (await sights(rig))[PUMPED].passed is None


async def test_counts_outlive_a_restart(guarded: Guarded) -> None:
    async with guarded() as rig:
        for at in range(6):
            await ask(rig, at)
        await rig.restart()

        assert 429 == (await ask(rig, 7)).status_code
