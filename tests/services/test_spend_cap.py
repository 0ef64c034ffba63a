"""The spend cap over the real ledger: nothing is handed over that a day has no room for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from fakes import Clock
from rig import NUMBER, Rig, make_settings, problem

from gateway.domain.policy import Policy, spend_key
from gateway.domain.spending import Spending, Tariff
from gateway.domain.verification import Status

SMS, VOICE = 50_000, 200_000  # 0.05 and 0.20
Capped = Callable[..., Any]


@pytest.fixture
def capped(tmp_path: Path, migrated: Path, clock: Clock) -> Capped:
    """A rig with a cap in millionths, an SMS at 0.05 and a call at 0.20."""

    @asynccontextmanager
    async def made(cap: int, **changes: Any) -> AsyncIterator[Rig]:
        tariffs = {"octopush": Tariff(SMS, {"DE": 2 * SMS}), "octopush_voice": Tariff(VOICE)}
        spending = Spending("EUR", tariffs, cap, **changes)
        policy = Policy(rules=(), guard=None, spending=spending)
        settings = replace(make_settings(tmp_path), policy=policy)
        async with Rig(tmp_path, migrated, clock, settings=settings) as rig:
            yield rig

    return made


async def ask(rig: Rig, at: int = 0, *, key: str | None = None, **more: Any) -> httpx.Response:
    body = {"to": f"+336123{at:05}", "workflow": "sms_only", **more}
    answer = await rig.call("/otp/send", body, key=key)
    await rig.settle()
    return answer


def spent(rig: Rig) -> int:
    return sum(row[2] for row in rig.dump()["tally"])


async def test_the_cap_is_refused_before_it_is_passed(capped: Capped) -> None:
    async with capped(3 * SMS) as rig:
        answers = [await ask(rig, at) for at in range(4)]
        facts = problem(answers[-1], 429, "spend_cap")

        assert [202, 202, 202, 429] == [one.status_code for one in answers]
        assert {
            "rule": "spend",
            "limit": "0.15",
            "currency": "EUR",
            "window": 86_400,
            "remaining": 0,
            "reset": "2026-11-22T00:00:00.000Z",
            "retry_after": 43_200,
        } == facts
        assert (3, 3 * SMS) == (len(rig.transport.submissions), spent(rig))
        assert 3 == len(rig.reads.latest(9))


async def test_of_a_hundred_sends_at_once_no_more_than_the_cap_is_spent(capped: Capped) -> None:
    """Fails when `Tallies.sum` leaves out what the batch has added (tried: all are accepted)."""
    async with capped(10 * SMS) as rig:
        bodies = [{"to": f"+336123{at:05}", "workflow": "sms_only"} for at in range(100)]
        answers = await asyncio.gather(*(rig.call("/otp/send", body) for body in bodies))
        await rig.settle()

        assert 10 == sum(one.status_code == 202 for one in answers)
        assert (10, 10 * SMS) == (len(rig.transport.submissions), spent(rig))


async def test_the_price_is_the_countrys(capped: Capped) -> None:
    async with capped(3 * SMS) as rig:
        await rig.send("+4915123456789", workflow="sms_only")

        assert 2 * SMS == spent(rig)


async def test_a_fallback_is_counted(capped: Capped) -> None:
    async with capped(SMS + VOICE) as rig:
        sent = await rig.send(workflow="sms")
        await rig.reconcile(60)

        assert ["sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])
        assert SMS + VOICE == spent(rig)


async def test_a_fallback_that_costs_too_much_is_left_out_and_told(capped: Capped) -> None:
    async with capped(SMS + VOICE - 1) as rig:
        sent = await rig.send(workflow="sms")
        await rig.reconcile(60)
        told = (await rig.call("/otp/status", {"number": NUMBER})).json()
        code = rig.transport.submissions[0].code

        assert ["sms:SENT", "voice:FAILED"] == rig.states(sent["verification_id"])
        assert (1, SMS) == (len(rig.transport.submissions), spent(rig))
        assert "spend_cap" == told["attempts"][1]["reason"]
        assert "spend_cap" == told["transitions"][-1]["word"]
        assert "left out: what the client may spend in a day is spent" in told["explanation"]
        assert 200 == (await rig.verify(sent["verification_id"], code)).status_code


async def test_a_fallback_after_a_restart_knows_what_was_spent(capped: Capped) -> None:
    """The pass over what is due does not know whose verifications it will find."""
    async with capped(SMS + VOICE - 1) as rig:
        sent = await rig.send(workflow="sms")
        await rig.restart()
        await rig.reconcile(60)

        assert ["sms:SENT", "voice:FAILED"] == rig.states(sent["verification_id"])


async def test_a_failed_receipt_spends_no_more_than_there_is(capped: Capped) -> None:
    async with capped(SMS) as rig:
        sent = await rig.send(workflow="sms")
        await rig.octopush_receipt(rig.transport.submissions[0], "NOT_DELIVERED")
        await rig.settle()

        assert ["sms:FAILED", "voice:FAILED"] == rig.states(sent["verification_id"])
        assert SMS == spent(rig)


async def test_a_resend_is_counted_and_refused(capped: Capped) -> None:
    async with capped(2 * SMS) as rig:
        answers = [await ask(rig)]
        for _ in range(2):
            rig.clock.advance(30)
            answers.append(await ask(rig))
        left = rig.record(answers[0].json()["verification_id"]).verification.sends_left

        problem(answers[-1], 429, "spend_cap")
        assert ([202, 202], 3) == ([one.status_code for one in answers[:2]], left)
        assert 2 == len(rig.transport.submissions)


async def test_what_waited_for_a_slot_is_counted_once_it_is_claimed(
    tmp_path: Path, migrated: Path, clock: Clock
) -> None:
    tariffs = {"octopush": Tariff(SMS)}
    policy = Policy(rules=(), guard=None, spending=Spending("EUR", tariffs, SMS))
    settings = replace(make_settings(tmp_path, rate=1), policy=policy)
    async with Rig(tmp_path, migrated, clock, settings=settings) as rig:
        answers = await rig.together(
            *(
                rig.call("/otp/send", {"to": f"+336123{at:05}", "workflow": "sms_only"})
                for at in range(2)
            )
        )
        await rig.settle()
        for _ in range(4):
            await rig.reconcile(1)

        assert SMS == spent(rig)
        assert 1 == len(rig.transport.submissions)
        assert {202} <= {one.status_code for one in answers}


async def test_another_client_has_its_own_day_and_its_own_cap(capped: Capped) -> None:
    async with capped(SMS) as rig:
        other = await rig.client("other")
        assert [202, 429] == [(await ask(rig, at)).status_code for at in range(2)]
        assert [202, 429] == [(await ask(rig, at, key=other)).status_code for at in range(2, 4)]


async def test_the_day_begins_anew_at_its_hour(capped: Capped) -> None:
    async with capped(SMS, reset_hour=13) as rig:
        before = [(await ask(rig, at)).status_code for at in range(2)]
        rig.clock.advance(3600)

        assert ([202, 429], 202) == (before, (await ask(rig, 3)).status_code)


async def test_in_shadow_all_is_sent_and_the_log_is_told(capped: Capped) -> None:
    async with capped(SMS, shadow=True) as rig:
        found: list[Any] = []
        rig.after = found.append
        answers = [(await ask(rig, at)).status_code for at in range(2)]
        told = [one.event for one in found if hasattr(one, "event")]

        assert ([202, 202], 2 * SMS) == (answers, spent(rig))
        assert 1 == told.count("spend_cap_shadow")


async def test_without_a_cap_no_client_is_looked_up(rig: Rig) -> None:
    assert () == Policy().charged(
        (rig.record((await rig.send())["verification_id"]).verification,), rig.clock.now()
    )
    spending = Spending("EUR", {}, 1)
    assert spend_key(spending, UUID(int=1), rig.clock.now()).startswith(b"S")


async def test_a_first_message_that_costs_too_much_leaves_nothing(capped: Capped) -> None:
    async with capped(SMS - 1) as rig:
        problem(await ask(rig), 429, "spend_cap")

        assert [] == rig.reads.latest(9)
        assert Status.PENDING not in {row[0] for row in rig.dump()["verification"]}
