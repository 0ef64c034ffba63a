"""What support tells the customer: never more than is known, never less than is under way."""

import pytest
from factories import (
    TTL,
    after,
    by_ordinal,
    make_attempt,
    make_plan,
    make_route,
    make_step,
    make_verification,
)

from gateway.domain.advice import advise
from gateway.domain.delivery import Attempt, Cause, State
from gateway.domain.verification import Status
from gateway.domain.workflow import Plan

PLAN = make_plan()
LAST = make_plan(make_step())
POLLING = make_plan(make_step(make_route(polls=True)), make_step(make_route("voice")))
ARRIVED = make_attempt(state=State.DELIVERED, delivered_at=after(3))


def advice(*attempts: Attempt, at: float = 1, plan: Plan = PLAN, **changes: object) -> str:
    return advise(plan, make_verification(**changes), by_ordinal(attempts), after(at))


def asked_for(**changes: object) -> Attempt:
    return make_attempt(step=1, route="voice", channel="voice", cause=Cause.NEXT, **changes)


def test_what_follows_a_poll_is_promised() -> None:
    told = advice(make_attempt(reference="sms_1"), plan=POLLING)

    assert "the same code follows by voice call at 12:01 UTC" in told


@pytest.mark.parametrize("state", [State.SENT, State.ACK])
def test_after_a_next_step_the_new_message_is_waited_for(state: State) -> None:
    told = advice(ARRIVED, asked_for(state=state), step=1, at=5)

    assert told.startswith("A voice call with the same code is on its way: ask them to wait")
    assert "The SMS before it arrived." in told


@pytest.mark.parametrize(("state", "at"), [(State.FAILED, 5), (State.SENT, 200)])
def test_a_next_step_that_brings_nothing_leaves_what_arrived(state: State, at: float) -> None:
    told = advice(ARRIVED, asked_for(state=state, reason="r"), step=1, at=at)

    assert told.startswith("The SMS arrived. Ask them to look again")


def test_the_last_message_is_waited_for_before_reception_is_blamed() -> None:
    sent, overdue = (advice(make_attempt(), plan=LAST, at=at) for at in (2, 200))

    assert sent.startswith("The SMS is on its way: ask them to wait.")
    assert overdue.startswith("Nothing more is sent by itself. Ask whether the telephone is on")


def test_an_email_is_not_looked_for_by_reception() -> None:
    told = advice(make_attempt(channel="email"), plan=LAST, at=200)

    assert "unwanted mail" in told
    assert "telephone" not in told


@pytest.mark.parametrize(("used", "left"), [(4, "1 try is left"), (3, "2 tries are left")])
def test_tries_are_counted_in_words(used: int, left: str) -> None:
    assert left in advice(ARRIVED, checks_used=used)


def test_a_locked_one_can_be_replaced_at_once() -> None:
    told = advice(ARRIVED, status=Status.LOCKED, ended_at=after(9), at=10)

    assert "Ask them to request a new code" in told
    assert "after 1" not in told


def test_an_expired_one_says_whether_it_arrived() -> None:
    assert advice(ARRIVED, at=TTL).startswith("The message arrived and the code ran out.")
    assert advice(make_attempt(), at=TTL).startswith("The code ran out, and nobody confirmed")
