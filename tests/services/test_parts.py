"""A text of several short messages (F37): each part has an id and receipts of its own; the attempt
is delivered when all of them are and failed when one is, over restarts and in every order."""

from collections.abc import AsyncIterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from fakes import Clock
from rig import Rig, make_settings

from gateway import config
from gateway.domain import smpp
from gateway.domain.smpp import Address, Command, Message, Pdu
from gateway.domain.workflow import Step, Until
from gateway.ports import Auth, Callback, Secret
from gateway.providers.smpp import METHOD, Smpp
from gateway.services import receive, reconcile

LONG = "{code} " + "is your code " * 25
ONE_DAY = 86_400


class Centre:
    """Takes everything, and may speak before it answers: the word of each part, by its place."""

    def __init__(self) -> None:
        self.rig: Rig
        self.ids: list[list[str]] = []  # by message
        self.early: dict[int, str] = {}

    async def send(self, request: Any, *, within: float, auth: Auth | None = None) -> Any:
        ids = [f"{len(self.ids)}-{place}" for place in range(len(request.parts))]
        self.ids.append(ids)
        for place, word in self.early.items():
            await self.say(ids[place], word)
        return tuple(
            Pdu(Command.SUBMIT_SM_RESP, 0, place + 1, smpp.write_message_id(one))
            for place, one in enumerate(ids)
        )

    async def say(self, message_id: str, word: str) -> None:
        message = Message(
            source=Address("33612345678", 1, 1),
            esm_class=4,
            short_message=f"id:{message_id} stat:{word}".encode(),
        )
        pdu = Pdu(Command.DELIVER_SM, 0, 1, message.write()).write()
        callback = Callback(METHOD, "", None, {}, {}, pdu, self.rig.clock.now())
        await receive.receive(self.rig.runtime, "smpp", callback)


@pytest.fixture
async def centre(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[Centre]:
    settings = Smpp.Settings(
        name="smpp",
        channel="sms",
        account="smpp",
        host="smsc.example",
        port=2775,
        system_id="acme",
        password=Secret("password"),
    )
    step = Step(channel="sms", routes=("smpp",), patience=60, until=Until.DELIVERED)
    routed = config.replace(make_settings(tmp_path), (Smpp(settings),), {"default": (step, step)})
    made = Centre()
    made.rig = Rig(tmp_path, migrated, clock, settings=routed, carrier=made)
    async with made.rig:
        yield made


async def sent(centre: Centre, number: int = 0) -> tuple[str, list[str]]:
    """A long text is handed over: the verification, the ids of its three parts."""
    rig = centre.rig
    key = await rig.client(f"long {number}", "send verify status text")
    to = f"+336123456{number:02}"
    answer = await rig.call("/otp/send", {"to": to, "text": LONG}, key=key)
    await rig.settle()

    assert 202 == answer.status_code, answer.text
    assert 3 == len(centre.ids[-1])
    return answer.json()["verification_id"], centre.ids[-1]


def kept(rig: Rig) -> list[tuple[str, str | None, str]]:
    """What is kept aside, without the rows that tell whose the parts are."""
    every = [(one.account, one.reference, one.why) for one in rig.reads.kept(100)]
    return [one for one in every if one[2] != "part"]


async def test_it_is_delivered_with_the_last_part_in_every_order(centre: Centre) -> None:
    """(Seen to fail when `Part.whole` takes the first for all.)"""
    for number, order in enumerate(permutations(range(3))):
        named, ids = await sent(centre, number)
        states = []
        for place in order:
            await centre.say(ids[place], "DELIVRD")
            states += centre.rig.states(named)

        assert ["sms:ACK", "sms:ACK", "sms:DELIVERED"] == states
    assert [] == kept(centre.rig)


async def test_its_reference_and_its_log_tell_of_the_parts(centre: Centre) -> None:
    named, ids = await sent(centre)
    await centre.say(ids[1], "ACCEPTD")
    await centre.say(ids[1], "ACCEPTD")
    record = centre.rig.record(named)
    (attempt,) = record.attempts

    assert f"{ids[0]} +2" == attempt.reference
    assert ["2/3 ACK ACCEPTD"] == [row.word for row in record.log if row.source == "receipt"]
    assert 1 == attempt.repeats


async def test_one_failed_part_fails_it(centre: Centre) -> None:
    """And the next step goes out at once; the parts that arrive later change nothing."""
    named, ids = await sent(centre)
    await centre.say(ids[0], "DELIVRD")
    await centre.say(ids[2], "UNDELIV")
    await centre.rig.settle()
    await centre.say(ids[1], "DELIVRD")
    attempts = centre.rig.attempts(named)

    assert ["sms:FAILED", "sms:SENT"] == centre.rig.states(named)
    assert "not_delivered" == attempts[0].reason

    await centre.say(ids[2], "DELIVRD")  # it had arrived after all

    assert "sms:DELIVERED" == centre.rig.states(named)[0]


async def test_receipts_that_overtake_the_answer_are_not_lost(centre: Centre) -> None:
    centre.early = {0: "DELIVRD", 2: "DELIVRD"}
    named, ids = await sent(centre)

    assert ["sms:ACK"] == centre.rig.states(named)

    await centre.say(ids[1], "DELIVRD")

    assert ["sms:DELIVERED"] == centre.rig.states(named)
    assert [] == kept(centre.rig)


async def test_all_parts_before_the_answer(centre: Centre) -> None:
    centre.early = dict.fromkeys(range(3), "DELIVRD")
    named, _ = await sent(centre)

    assert ["sms:DELIVERED"] == centre.rig.states(named)
    assert [] == kept(centre.rig)


async def test_a_restart_forgets_no_part(centre: Centre) -> None:
    named, ids = await sent(centre)
    await centre.say(ids[2], "DELIVRD")
    await centre.rig.restart()
    await centre.say(ids[0], "DELIVRD")

    assert ["sms:ACK"] == centre.rig.states(named)

    await centre.say(ids[1], "DELIVRD")

    assert ["sms:DELIVERED"] == centre.rig.states(named)


async def test_what_is_said_again_of_a_part_is_not_parked(centre: Centre) -> None:
    """While the text is under way, and when all of it has arrived. (Seen to fail where the part's
    row went with its first DELIVRD.)"""
    named, ids = await sent(centre)
    for part in (0, 0, 1, 2, 2, 0):
        await centre.say(ids[part], "DELIVRD")

    assert [] == kept(centre.rig)
    assert ["sms:DELIVERED"] == centre.rig.states(named)
    assert 3 == centre.rig.attempts(named)[0].repeats


async def test_whose_parts_they_are_is_forgotten(centre: Centre) -> None:
    await sent(centre)
    rows = centre.rig.reads.kept(100)
    centre.rig.clock.advance(3 * ONE_DAY + 1)
    await reconcile.sweep(centre.rig.runtime, centre.rig.clock.now())

    assert ["parts of smpp"] * 3 == [one.account for one in rows]
    assert [] == centre.rig.reads.kept(100)
