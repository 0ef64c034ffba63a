"""Messages under way that nobody waits for any more are taken back, where the provider can."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes import Answer, Clock, Gate, answering, raising
from rig import NUMBER, Rig, make_settings

from gateway import config
from gateway.domain.delivery import State
from gateway.domain.workflow import Step, Until
from gateway.ports import Lost, NotSent, Receipt, Secret
from gateway.providers.telegram import Telegram
from gateway.services.case import Recall
from gateway.services.receive import Receive

SEND, REVOKE = "sendVerificationMessage", "revokeVerificationMessage"
TAKEN = answering(200, {"ok": True, "result": {"request_id": "r_1"}})
REFUSED = answering(400, {"code": 110})


@pytest.fixture
async def rig(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[Rig]:
    """Telegram for 60 s until read, then the rig's SMS."""
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
    settings = config.replace(
        plain, (telegram, *plain.providers), {"default": steps, "sms_only": steps[1:]}
    )
    async with Rig(tmp_path, migrated, clock, settings=settings) as made:
        yield made


async def sent(rig: Rig) -> str:
    """The id of a verification whose Telegram message was accepted."""
    rig.transport.script(SEND, TAKEN)
    return str((await rig.send())["verification_id"])


async def cancel(rig: Rig, verification_id: str) -> None:
    answer = await rig.call("/otp/cancel", {"verification_id": verification_id})
    assert answer.status_code == 200, answer.text
    await rig.settle()


async def heard(rig: Rig, verification_id: str, word: str, state: State) -> None:
    """A receipt for the first attempt."""
    attempt = rig.attempts(verification_id)[0]
    receipt = Receipt(word=word, state=state, attempt_id=str(attempt.id), reason=word)
    operation = Receive("telegram", "telegram", None, (receipt,))
    await rig.gateway.ledger.submit(operation)
    await rig.settle()


def recalled(rig: Rig) -> list[str]:
    """The references that the vendor was asked to take back."""
    return [one.body["request_id"] for one in rig.transport.to(REVOKE)]


async def test_a_canceled_message_is_taken_back_once(rig: Rig) -> None:
    verification_id = await sent(rig)
    await cancel(rig, verification_id)
    await cancel(rig, verification_id)
    await rig.reconcile(700)

    assert ["r_1"] == recalled(rig)


@pytest.mark.parametrize("state", [State.DELIVERED, State.READ, State.FAILED])
async def test_what_is_over_is_not_taken_back(rig: Rig, state: State) -> None:
    verification_id = await sent(rig)
    await heard(rig, verification_id, state.lower(), state)
    await cancel(rig, verification_id)

    assert [] == recalled(rig)


async def test_a_message_accepted_after_the_end_is_taken_back(rig: Rig) -> None:
    gate = Gate(TAKEN)
    rig.transport.script(SEND, gate)
    answer = await rig.call("/otp/send", {"to": NUMBER})
    await gate.reached.wait()
    verification_id = answer.json()["verification_id"]
    done = asyncio.create_task(cancel(rig, verification_id))
    await rig.until(lambda: rig.status(verification_id) == "CANCELED")
    assert [] == recalled(rig)
    gate.opened.set()
    await done

    assert ["r_1"] == recalled(rig)


async def test_the_fallback_that_is_accepted_takes_the_message_back(rig: Rig) -> None:
    verification_id = await sent(rig)
    await rig.reconcile(64)
    await rig.reconcile(4)

    assert ["telegram:SENT", "sms:SENT"] == rig.states(verification_id)
    assert ["r_1"] == recalled(rig)


async def test_a_fallback_that_is_refused_leaves_the_only_message_out(rig: Rig) -> None:
    rig.transport.script("sms-campaign", REFUSED)
    verification_id = await sent(rig)
    await rig.reconcile(64)
    await rig.reconcile(4)

    assert ["telegram:SENT", "sms:FAILED"] == rig.states(verification_id)
    assert [] == recalled(rig)


async def test_a_fallback_nobody_knows_of_leaves_it_too(rig: Rig) -> None:
    rig.transport.script("sms-campaign", raising(Lost("read_timeout")))
    await sent(rig)
    await rig.reconcile(64)
    await rig.reconcile(1)

    assert [] == recalled(rig)


async def test_a_message_without_a_reference_cannot_be_named(rig: Rig) -> None:
    rig.transport.script(SEND, raising(Lost("read_timeout")))
    verification_id = str((await rig.send())["verification_id"])
    await cancel(rig, verification_id)

    assert [] == recalled(rig)


async def test_a_message_accepted_after_its_fallback_is_taken_back(rig: Rig) -> None:
    gate = Gate(TAKEN)
    rig.transport.script(SEND, gate)
    answer = await rig.call("/otp/send", {"to": NUMBER})
    await gate.reached.wait()
    verification_id = answer.json()["verification_id"]
    await rig.call("/otp/next", {"verification_id": verification_id})
    await rig.until(lambda: rig.states(verification_id)[1:] == ["sms:SENT"])
    gate.opened.set()
    await rig.settle()

    assert ["r_1"] == recalled(rig)


async def test_later_words_about_it_bring_no_second_recall(rig: Rig) -> None:
    verification_id = await sent(rig)
    await rig.reconcile(64)
    await rig.reconcile(4)
    await heard(rig, verification_id, "sent", State.ACK)
    await cancel(rig, verification_id)

    assert ["r_1"] == recalled(rig)


async def test_revoked_is_how_it_ends(rig: Rig) -> None:
    verification_id = await sent(rig)
    await rig.reconcile(64)
    await rig.reconcile(4)
    await heard(rig, verification_id, "revoked", State.FAILED)

    assert ["telegram:FAILED", "sms:SENT"] == rig.states(verification_id)
    assert 1 == len(rig.transport.to("sms-campaign"))


async def test_a_route_that_cannot_is_not_asked(rig: Rig) -> None:
    seen: list[object] = []
    rig.after = seen.append
    verification_id = str((await rig.send(workflow="sms_only"))["verification_id"])
    await cancel(rig, verification_id)

    assert [] == [item for item in seen if isinstance(item, Recall)]


class Heard:
    """A log that remembers its events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **facts: object) -> None:
        self.events.append((event, facts))

    warning = error = info


@pytest.mark.parametrize(
    ("answer", "event", "fact"),
    [
        (answering(200, {"ok": True, "result": True}), "recall_asked", {"status": 200}),
        (answering(500, {}), "recall_asked", {"status": 500}),
        (raising(NotSent("connect_error")), "recall_failed", {"reason": "connect_error"}),
        (raising(Lost("read_timeout")), "recall_failed", {"reason": "read_timeout"}),
        (raising(ValueError("odd")), "recall_failed", {"problem": "ValueError"}),
    ],
)
async def test_what_it_is_answered_is_logged_and_changes_nothing(
    rig: Rig, answer: Answer, event: str, fact: dict[str, object]
) -> None:
    rig.transport.script(REVOKE, answer)
    verification_id = await sent(rig)
    rig.gateway.dispatcher._log = log = Heard()
    await cancel(rig, verification_id)
    attempt = rig.attempts(verification_id)[0]

    assert ["telegram:SENT"] == rig.states(verification_id)
    assert (event, {"attempt_id": attempt.id, "route": "telegram", **fact}) in log.events
