"""A number that a channel does not reach is not tried there again for a while."""

from datetime import timedelta
from pathlib import Path

import pytest
from fakes import Clock
from rig import Rig, make_settings

from gateway import config
from gateway.domain.delivery import State
from gateway.domain.verification import COOL_DOWN
from gateway.domain.workflow import Step, Until
from gateway.ports import Receipt, Secret
from gateway.providers.telegram import Telegram
from gateway.services import reconcile
from gateway.services.receive import Receive

SEND = "sendVerificationMessage"
NUMBER, OTHER = "+33612345678", "+33612345679"
FOR = 3600.0


@pytest.fixture
async def rig(tmp_path: Path, migrated: Path, clock: Clock):  # type: ignore[no-untyped-def]
    """Telegram until read, then SMS; a number without Telegram is remembered for an hour."""
    plain = make_settings(tmp_path)
    telegram = Telegram(
        Telegram.Settings(
            name="telegram", channel="telegram", account="telegram", token=Secret("the-token")
        )
    )
    steps = (
        Step("telegram", ("telegram",), 60, Until.READ),
        Step("sms", ("octopush",), 60, Until.DELIVERED),
    )
    settings = config.replace(plain, (telegram, *plain.providers), {"default": steps})
    async with Rig(tmp_path, migrated, clock, settings=settings) as made:
        yield made


async def send(rig: Rig, number: str = NUMBER, **more: object) -> str:
    """A verification that is ended at once, so that the next one is new."""
    answer = await rig.send(to=number, **more)
    await rig.settle()
    verification_id = str(answer["verification_id"])
    states = ",".join(rig.states(verification_id))
    await rig.call("/otp/cancel", {"verification_id": verification_id})
    rig.clock.advance(COOL_DOWN)
    await rig.settle()
    return states.replace(":SENT", "").replace(":FAILED", "!")


async def failed(rig: Rig, number: str, avoid: float | None = FOR, word: str = "gone") -> str:
    """A verification whose first attempt is then said not to arrive, because of the number."""
    answer = await rig.send(to=number)
    await rig.settle()
    verification_id = str(answer["verification_id"])
    await heard(rig, verification_id, State.FAILED, word, avoid)
    return verification_id


async def heard(
    rig: Rig, verification_id: str, state: State, word: str, avoid: float | None = None
) -> None:
    attempt = rig.attempts(verification_id)[0]
    receipt = Receipt(
        word=word,
        state=state,
        attempt_id=str(attempt.id),
        reason="no_such_user" if state is State.FAILED else None,
        avoid=avoid,
    )
    await rig.gateway.ledger.submit(Receive("telegram", "telegram", None, (receipt,)))
    await rig.settle()


async def ended(rig: Rig, verification_id: str) -> None:
    await rig.call("/otp/cancel", {"verification_id": verification_id})
    rig.clock.advance(COOL_DOWN)
    await rig.settle()


async def test_the_step_is_left_out_and_the_answer_says_so(rig: Rig) -> None:
    await ended(rig, await failed(rig, NUMBER))
    answer = await rig.send(to=NUMBER)
    shown = (await rig.call("/otp/status", {"verification_id": answer["verification_id"]})).json()

    assert ["sms"] == [attempt["channel"] for attempt in shown["attempts"]]
    left_out = {"channel": "telegram", "route": "telegram", "reason": "no_such_user"}
    assert [left_out] == shown["left_out"]
    assert shown["explanation"].startswith("A Telegram message through telegram was left out")


async def test_another_number_is_tried(rig: Rig) -> None:
    await ended(rig, await failed(rig, NUMBER))

    assert "telegram" == await send(rig, OTHER)


async def test_an_explicit_channel_is_tried(rig: Rig) -> None:
    await ended(rig, await failed(rig, NUMBER))

    assert "telegram" == await send(rig, channel="telegram")


async def test_it_ends_with_its_time(rig: Rig) -> None:
    await ended(rig, await failed(rig, NUMBER))
    rig.clock.advance(FOR - 1 - COOL_DOWN)
    before = await send(rig)
    rig.clock.advance(2 + 1200)
    await reconcile.sweep(rig.runtime, rig.clock.now())

    assert ("sms", "telegram") == (before, await send(rig))
    assert () == await rig.runtime.reads.past_suppressions(rig.clock.now() + timedelta(days=60), 10)


async def test_a_failure_that_is_not_about_the_number_is_not_remembered(rig: Rig) -> None:
    await ended(rig, await failed(rig, NUMBER, avoid=None))

    assert "telegram" == await send(rig)


async def test_a_delivery_proves_it_wrong(rig: Rig) -> None:
    verification_id = await failed(rig, NUMBER)
    await heard(rig, verification_id, State.DELIVERED, "delivered")
    await ended(rig, verification_id)

    assert "telegram" == await send(rig)


async def test_a_failure_after_the_delivery_is_not_believed(rig: Rig) -> None:
    answer = await rig.send(to=NUMBER)
    await rig.settle()
    verification_id = str(answer["verification_id"])
    await heard(rig, verification_id, State.DELIVERED, "delivered")
    await heard(rig, verification_id, State.FAILED, "gone", FOR)
    await ended(rig, verification_id)

    assert "telegram" == await send(rig)


async def test_it_survives_a_restart(rig: Rig) -> None:
    await ended(rig, await failed(rig, NUMBER))
    await rig.restart()

    assert "sms" == await send(rig)
