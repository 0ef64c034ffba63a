"""What an operator asks of a verification, under the rules of everybody else."""

from uuid import UUID

import pytest
from rig import NUMBER, Rig

from gateway.domain import health
from gateway.domain.errors import Conflict, Ended, GatewayError, NotFound
from gateway.domain.verification import Status
from gateway.services import operate
from gateway.services.operate import Wish


async def refused(rig: Rig, named: str, wish: Wish) -> GatewayError:
    with pytest.raises(GatewayError) as error:
        await operate.ask(rig.runtime, UUID(named), wish)
    return error.value


async def test_the_next_step_is_sent(rig: Rig) -> None:
    named = (await rig.send(workflow="sms"))["verification_id"]
    await operate.ask(rig.runtime, UUID(named), Wish.NEXT)
    await rig.settle()

    assert ["sms:SENT", "voice:SENT"] == rig.states(named)
    assert "next" == rig.attempts(named)[1].cause


async def test_the_same_step_is_sent_again_after_the_cool_down(rig: Rig) -> None:
    named = (await rig.send(workflow="sms"))["verification_id"]
    early = await refused(rig, named, Wish.RESEND)
    rig.clock.advance(30)
    changed = await operate.ask(rig.runtime, UUID(named), Wish.RESEND)
    await rig.settle()

    assert "cool_down" == early.code
    assert ["sms:SENT", "sms:SENT"] == rig.states(named)
    assert 2 == changed.verification.sends_used
    assert rig.transport.submissions[0].code == rig.transport.submissions[1].code


async def test_an_operators_end_is_told_apart_from_a_clients(rig: Rig) -> None:
    named = (await rig.send(workflow="sms"))["verification_id"]
    await operate.ask(rig.runtime, UUID(named), Wish.CANCEL)

    assert Status.CANCELED is rig.status(named)
    assert "operator" == rig.record(named).log[-1].source


@pytest.mark.parametrize("wish", Wish)
async def test_nothing_is_done_to_an_ended_one(rig: Rig, wish: Wish) -> None:
    named = (await rig.send(workflow="sms"))["verification_id"]
    await operate.ask(rig.runtime, UUID(named), Wish.CANCEL)

    assert isinstance(await refused(rig, named, wish), Ended)
    assert ["sms:SENT"] == rig.states(named)


async def test_the_last_step_has_no_next(rig: Rig) -> None:
    named = (await rig.send(workflow="sms_only"))["verification_id"]

    assert isinstance(await refused(rig, named, Wish.NEXT), Conflict)


@pytest.mark.parametrize("wish", Wish)
async def test_what_is_not_there_is_not_found(rig: Rig, wish: Wish) -> None:
    assert isinstance(await refused(rig, str(UUID(int=1)), wish), NotFound)


async def test_nothing_is_resent_just_before_the_end(rig: Rig) -> None:
    named = (await rig.send(workflow="sms", ttl=180))["verification_id"]
    rig.clock.advance(175)

    assert "too_late" == (await refused(rig, named, Wish.RESEND)).code


async def test_a_disabled_route_carries_no_resend(rig: Rig) -> None:
    """Neither an operator's nor a client's, and neither counts as a send."""
    named = (await rig.send(workflow="sms_only"))["verification_id"]
    rig.clock.advance(30)
    now = rig.clock.now()
    rig.runtime.standing.put(health.disabled("octopush", "fraud", "ops", now), now)
    refusal = await refused(rig, named, Wish.RESEND)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})

    assert "no_route" == refusal.code
    assert 503 == answer.status_code
    assert ["sms:SENT"] == rig.states(named)
    assert 1 == rig.record(named).verification.sends_used
