"""`on_repeat`: what a second send to a number does while a verification runs."""

import asyncio
from typing import Any

import pytest
from fakes import Gate, answering
from rig import NUMBER, Rig, problem

from gateway.domain.verification import COOL_DOWN, MAX_SENDS, Status


async def replaced(rig: Rig, **more: Any) -> dict[str, Any]:
    return await rig.send(**{"workflow": "sms_only", "on_repeat": "replace"} | more)


def codes(rig: Rig) -> list[str]:
    return [one.code for one in rig.transport.submissions]


@pytest.mark.parametrize("word", ["JOIN", "", "again", None, 1])
async def test_another_word_is_refused(rig: Rig, word: Any) -> None:
    answer = await rig.call("/otp/send", {"to": NUMBER, "on_repeat": word})

    problem(answer, 400, "invalid_request")


async def test_where_none_runs_every_word_starts_one(rig: Rig) -> None:
    for at, word in enumerate(("join", "refuse", "replace")):
        sent = await rig.send(f"+3361234567{at}", workflow="sms_only", on_repeat=word)

        assert (False, 4) == (sent["joined"], sent["sends_left"])
        assert "ignored" not in sent


# --- join ---------------------------------------------------------------------------------------


async def test_join_says_what_it_ignored(rig: Rig) -> None:
    await rig.send(workflow="sms_only", reference="o-1")
    rig.clock.advance(COOL_DOWN)
    second = await rig.send(workflow="sms_only", reference="o-2", ttl=120, code_length=8)

    assert (True, "o-1") == (second["joined"], second["reference"])
    assert ["ttl", "reference", "code_length"] == second["ignored"]


async def test_join_ignores_nothing_that_was_not_given_or_is_the_same(rig: Rig) -> None:
    """The life of the running one is not the default: not naming it asks for nothing."""
    await rig.send(workflow="sms_only", reference="o-1", ttl=200)
    rig.clock.advance(COOL_DOWN)
    second = await rig.send(workflow="sms_only", reference="o-1")

    assert (True, []) == (second["joined"], second["ignored"])


@pytest.mark.parametrize("asked", [{"channel": "voice"}, {"workflow": "two_routes"}])
async def test_join_goes_no_other_way_than_was_asked_for(rig: Rig, asked: dict[str, str]) -> None:
    """Rule 7: a channel that is asked for is not switched silently."""
    first = await rig.send(workflow="sms")
    rig.clock.advance(COOL_DOWN)
    answer = await rig.call("/otp/send", {"to": NUMBER, **asked})
    facts = problem(answer, 409, "workflow_differs")

    assert {"verification_id": first["verification_id"], "workflow": "sms"} == facts
    assert 1 == len(rig.transport.submissions)


async def test_without_naming_a_way_join_takes_the_running_one(rig: Rig) -> None:
    await rig.send(channel="voice")
    rig.clock.advance(COOL_DOWN)
    second = await rig.send()

    assert (True, "voice") == (second["joined"], second["channel"])


# --- refuse -------------------------------------------------------------------------------------


async def test_refuse_leaves_the_running_one_alone(rig: Rig) -> None:
    first = await rig.send(workflow="sms_only")
    rig.clock.advance(COOL_DOWN)
    before = rig.dump()
    answer = await rig.call("/otp/send", {"to": NUMBER, "on_repeat": "refuse"})
    facts = problem(answer, 409, "already_running")

    assert {
        "verification_id": first["verification_id"],
        "expires_at": first["expires_at"],
    } == facts | {"expires_at": facts["expires_at"].replace("+00:00", "Z").replace(" ", "T")}
    assert before == rig.dump()


async def test_refuse_starts_anew_after_the_end(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    rig.clock.advance(300)
    second = await rig.send(workflow="sms_only", on_repeat="refuse")

    assert not second["joined"]


# --- replace ------------------------------------------------------------------------------------


async def test_replace_cancels_and_starts_anew_without_a_cool_down(rig: Rig) -> None:
    first = await rig.send(workflow="sms_only", code_length=10, reference="o-1")
    second = await replaced(rig, code_length=10, reference="o-2")
    old = await rig.verify(first["verification_id"], codes(rig)[0])
    new = await rig.verify(second["verification_id"], codes(rig)[1])

    assert (False, "o-2") == (second["joined"], second["reference"])
    assert first["verification_id"] != second["verification_id"]
    assert codes(rig)[0] != codes(rig)[1]
    problem(old, 410, "canceled")
    assert 200 == new.status_code


async def test_replace_may_go_another_way(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    second = await rig.send(channel="voice", on_repeat="replace")

    assert ("voice", False) == (second["channel"], second["joined"])


async def test_replace_is_no_way_around_the_sends_of_a_number(rig: Rig) -> None:
    """Seen to fail when the new one starts with one send."""
    left = [(await rig.send(workflow="sms_only"))["sends_left"]]
    left += [(await replaced(rig))["sends_left"] for _ in range(MAX_SENDS - 1)]
    answer = await rig.call(
        "/otp/send", {"to": NUMBER, "workflow": "sms_only", "on_repeat": "replace"}
    )
    facts = problem(answer, 429, "sends_used_up")

    assert [4, 3, 2, 1, 0] == left
    reset = {"remaining": 0, "reset": "2026-11-21T12:05:00.000Z", "retry_after": 300}
    assert {"rule": "sends", "limit": MAX_SENDS, "window": 300, **reset} == facts
    assert MAX_SENDS == len(rig.transport.submissions)


async def test_a_replacement_refused_leaves_the_running_one_alone(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    for _ in range(MAX_SENDS - 1):
        last = await replaced(rig)
    await rig.call("/otp/send", {"to": NUMBER, "on_repeat": "replace"})

    assert Status.PENDING is rig.status(last["verification_id"])
    assert 200 == (await rig.verify(last["verification_id"], codes(rig)[-1])).status_code


async def test_a_send_after_a_replacement_waits_for_the_cool_down(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    rig.clock.advance(COOL_DOWN)
    await replaced(rig)
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})

    problem(answer, 429, "cool_down")


async def test_two_replacements_in_one_batch_leave_one_running(rig: Rig) -> None:
    """The second cancels what the first has just started: its message is not written any more."""
    first = await rig.send(workflow="sms_only")
    body = {"to": NUMBER, "workflow": "sms_only", "on_repeat": "replace"}
    second, third = await rig.together(rig.call("/otp/send", body), rig.call("/otp/send", body))
    await rig.settle()
    ids = [first["verification_id"], *(one.json()["verification_id"] for one in (second, third))]

    assert [Status.CANCELED, Status.CANCELED, Status.PENDING] == [rig.status(one) for one in ids]
    assert 2 == third.json()["sends_left"]
    assert 2 == len(rig.transport.submissions)


async def test_a_replaced_message_under_way_is_heard_and_means_nothing(rig: Rig) -> None:
    gate = Gate(answering(201, {"sms_ticket": "sms_1"}))
    rig.transport.script("sms-campaign", gate)
    first = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})
    await gate.reached.wait()
    answer = await rig.call(
        "/otp/send", {"to": NUMBER, "workflow": "sms_only", "on_repeat": "replace"}
    )
    gate.opened.set()
    await rig.settle()

    assert 202 == answer.status_code
    assert ["sms:SENT"] == rig.states(first.json()["verification_id"])
    assert Status.CANCELED is rig.status(first.json()["verification_id"])


async def test_fifty_replacements_at_once_use_up_the_sends_and_no_more(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    body = {"to": NUMBER, "workflow": "sms_only", "on_repeat": "replace"}
    answers = await asyncio.gather(*(rig.call("/otp/send", body) for _ in range(50)))
    await rig.settle()
    running = [row for row in rig.reads.records(rig.reads.latest(100)) if row.verification.status
               is Status.PENDING]  # fmt: skip

    assert [202] * (MAX_SENDS - 1) + [429] * 46 == sorted(one.status_code for one in answers)
    assert 1 == len(running)
