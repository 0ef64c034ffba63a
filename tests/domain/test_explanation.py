"""What support reads out: a sentence for everything, no code and no number in any."""

import itertools
import re

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
    refused_attempt,
    unknown_attempt,
    waiting_attempt,
)

from gateway.domain.delivery import Attempt, Cause, Outcome, State
from gateway.domain.explanation import CHANNELS, Coming, coming, explain, story
from gateway.domain.health import Shut
from gateway.domain.verification import Status
from gateway.domain.workflow import Plan, Until

PLAN = make_plan()
LAST = make_plan(make_step())
POLLING = make_plan(make_step(make_route(polls=True)), make_step(make_route("voice")))
ENDS = [status for status in Status if status is not Status.PENDING]
SENTENCE = re.compile(r"An? .+ (?:is|was) .+\.")


def told(*attempts: Attempt, at: float = 1, plan: Plan = PLAN, **changes: object) -> str:
    return explain(plan, make_verification(**changes), by_ordinal(attempts), after(at))


def next_of(*attempts: Attempt, at: float = 1, plan: Plan = PLAN, **changes: object) -> object:
    return coming(plan, make_verification(**changes), by_ordinal(attempts), after(at))


def first_sentence(attempt: Attempt) -> str:
    """What is said of an attempt, in a verification that is over: nothing comes after it."""
    return told(attempt, status=Status.CANCELED, ended_at=after(9)).partition(" The verif")[0]


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        (waiting_attempt(), "An SMS through sms is waiting for a free place."),
        (
            waiting_attempt(claimed_until=after(15)),
            "An SMS through sms is being handed over.",
        ),
        (
            make_attempt(),
            "An SMS through sms was sent at 12:00:00 UTC; nothing was heard of it yet.",
        ),
        (
            unknown_attempt(),
            "An SMS through sms was handed over; whether it was taken is not known (read_timeout).",
        ),
        (
            make_attempt(state=State.ACK),
            "An SMS through sms was sent at 12:00:00 UTC and is on its way.",
        ),
        (
            make_attempt(state=State.FAILED, reason="unreachable"),
            "An SMS through sms was sent and reported as not delivered (unreachable).",
        ),
        (
            make_attempt(state=State.DELIVERED, delivered_at=after(3)),
            "An SMS through sms was delivered at 12:00:03 UTC.",
        ),
        (
            make_attempt(state=State.READ, read_at=after(8)),
            "An SMS through sms was delivered and read at 12:00:08 UTC.",
        ),
        (
            refused_attempt(reason="no_credit"),
            "An SMS through sms was refused (no_credit) and surely not sent.",
        ),
        (
            refused_attempt(Outcome.WITHDRAWN),
            "An SMS through sms was withdrawn before it was sent.",
        ),
        (
            make_attempt(channel="email", route="smtp"),
            "An e-mail through smtp was sent at 12:00:00 UTC; nothing was heard of it yet.",
        ),
        (
            make_attempt(channel="voice", route="voice"),
            "A voice call through voice was sent at 12:00:00 UTC; nothing was heard of it yet.",
        ),
        (
            make_attempt(channel="pigeon", route="loft"),
            "A pigeon through loft was sent at 12:00:00 UTC; nothing was heard of it yet.",
        ),
        (
            make_attempt(state=State.DELIVERED, delivered_at=None),
            "An SMS through sms was delivered at an unknown time.",
        ),
    ],
)
def test_each_state_has_its_sentence(attempt: Attempt, expected: str) -> None:
    assert expected == first_sentence(attempt)


@pytest.mark.parametrize(
    ("cause", "why"),
    [
        (Cause.SILENCE, "the one before was not reported as delivered in time"),
        (Cause.FAILED, "the one before failed"),
        (Cause.REFUSED, "the one before was not taken"),
        (Cause.UNKNOWN, "it is not known whether the one before was taken"),
        (Cause.RESEND, "it was asked for again"),
        (Cause.NEXT, "the next step was asked for"),
    ],
)
def test_each_cause_is_told_apart_from_what_became_of_it(cause: Cause, why: str) -> None:
    story = told(
        make_attempt(state=State.FAILED, reason="r"),
        make_attempt(step=1, route="voice", channel="voice", cause=cause),
        status=Status.CANCELED,
    )

    assert (
        f"A voice call through voice came next because {why}: it was sent at 12:00:00 UTC; "
        "nothing was heard of it yet."
    ) in story


def test_what_was_delivered_and_not_read_is_not_called_silent() -> None:
    plan = make_plan(make_step(until=Until.READ), make_step(make_route("voice")))
    delivered = make_attempt(state=State.DELIVERED, delivered_at=after(3))
    voice = make_attempt(step=1, route="voice", channel="voice", cause=Cause.SILENCE)

    assert "because the one before was not reported as read in time" in told(
        delivered, voice, plan=plan, step=1
    )


@pytest.mark.parametrize("state", State)
def test_every_attempt_there_can_be_has_a_sentence(state: State) -> None:
    kinds = itertools.product([None, *Outcome], Cause, ["sms", "email", "pigeon"])
    sentences = [
        first_sentence(make_attempt(state=state, outcome=outcome, cause=cause, channel=channel))
        for outcome, cause, channel in kinds
    ]

    assert [] == [sentence for sentence in sentences if not SENTENCE.fullmatch(sentence)]


@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("state", State)
def test_no_story_holds_what_could_be_a_number_or_a_code(status: Status, state: State) -> None:
    """Times aside, which are digits in pairs."""
    attempts = [make_attempt(state=state), unknown_attempt(), refused_attempt(), waiting_attempt()]
    story = told(*attempts, status=status) + told(*attempts)

    assert re.search("[0-9]{3}", story) is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            Status.VERIFIED,
            "The right code was typed at 12:00:09 UTC; the verification is complete.",
        ),
        (
            Status.EXPIRED,
            "The code expired at 12:00:09 UTC before it was typed. A new one must be requested.",
        ),
        (
            Status.CANCELED,
            "The verification was canceled at 12:00:09 UTC. A new code must be requested.",
        ),
        (
            Status.LOCKED,
            "Too many wrong codes were typed; the verification was locked at 12:00:09 UTC.",
        ),
        (
            Status.FAILED,
            "No provider took the message; the verification ended at 12:00:09 UTC. Try again.",
        ),
    ],
)
def test_each_end_has_its_sentence(status: Status, expected: str) -> None:
    assert expected == told(status=status, ended_at=after(9))


def test_an_expiry_nobody_has_written_down_is_told_all_the_same() -> None:
    assert told(at=TTL).startswith("The code expired at 12:05:00 UTC")


def test_a_running_story_ends_with_what_comes_next() -> None:
    expected = (
        "An SMS through sms was sent at 12:00:00 UTC; nothing was heard of it yet. "
        "Unless more is heard, a voice call follows at 12:01:00 UTC."
    )

    assert expected == told(make_attempt())


def test_attempts_are_told_in_their_order() -> None:
    story = told(
        make_attempt(state=State.FAILED, reason="gone"),
        make_attempt(step=1, route="voice", channel="voice", cause=Cause.FAILED),
        step=1,
    )

    assert story.index("An SMS") < story.index("A voice call")


def test_a_route_that_cannot_say_what_is_waited_for_is_named() -> None:
    blind = make_plan(make_step(make_route("low_cost", confirms=frozenset())))
    story = told(make_attempt(route="low_cost"), plan=blind)

    assert "The route low_cost cannot report 'delivered': only a typed code will tell." in story


@pytest.mark.parametrize("until", [Until.DELIVERED, Until.VERIFIED, Until.SENT])
def test_a_route_that_says_what_is_waited_for_is_not_blamed(until: Until) -> None:
    plan = make_plan(make_step(until=until))

    assert "cannot report" not in told(make_attempt(), plan=plan)


@pytest.mark.parametrize("channel", CHANNELS)
def test_every_channel_has_a_name_people_know(channel: str) -> None:
    assert CHANNELS[channel] in first_sentence(make_attempt(channel=channel))


# What comes next.


@pytest.mark.parametrize(
    ("attempts", "plan", "at", "expected"),
    [
        ([], PLAN, 0, Coming("send", after(0), "sms")),
        ([make_attempt()], PLAN, 1, Coming("send", after(60), "voice")),
        ([make_attempt(state=State.FAILED)], PLAN, 1, Coming("send", after(1), "voice")),
        ([refused_attempt(retry_at=after(4))], PLAN, 1, Coming("send", after(4), "sms")),
        ([waiting_attempt(retry_at=after(3))], PLAN, 1, Coming("send", after(3), "sms")),
        ([make_attempt(reference="sms_1")], POLLING, 1, Coming("send", after(63), "voice")),
        (
            [make_attempt(polled_at=after(60), reference="sms_1")],
            POLLING,
            61,
            Coming("send", after(63), "voice"),
        ),
        ([make_attempt()], LAST, 1, Coming("expire", after(TTL))),
        ([make_attempt(state=State.DELIVERED)], PLAN, 1, Coming("expire", after(TTL))),
        ([make_attempt()], PLAN, TTL - 20, Coming("expire", after(TTL))),
        (
            [waiting_attempt(claimed_until=after(15), tries=1)],
            PLAN,
            1,
            Coming("send", after(60), "voice"),
        ),
    ],
    ids=[
        "first",
        "fallback after silence",
        "fallback after failure",
        "retry",
        "free place",
        "poll",
        "after the poll",
        "last step",
        "delivered",
        "too late",
        "being handed over",
    ],
)
def test_what_comes_next_is_said_with_its_moment(
    attempts: list[Attempt], plan: Plan, at: float, expected: Coming
) -> None:
    assert expected == next_of(*attempts, plan=plan, at=at)


@pytest.mark.parametrize(
    ("attempts", "plan", "at", "until"),
    [
        ([make_attempt()], PLAN, 1, after(60)),
        ([make_attempt(reference="sms_1")], POLLING, 61, after(61)),
        ([waiting_attempt(claimed_until=after(15))], PLAN, 1, after(15)),
        ([make_attempt(state=State.DELIVERED)], PLAN, 1, after(TTL)),
        ([], PLAN, 1, after(1)),
    ],
    ids=["patience", "asked now", "being handed over", "delivered", "sent now"],
)
def test_a_story_names_the_moment_from_which_it_may_be_another(
    attempts: list[Attempt], plan: Plan, at: float, until: object
) -> None:
    assert until == story(plan, make_verification(), by_ordinal(attempts), after(at)).until


def test_the_story_of_what_is_over_stays() -> None:
    over = make_verification(status=Status.CANCELED, ended_at=after(9))

    assert story(PLAN, over, [make_attempt()], after(10)).until is None
    assert story(PLAN, make_verification(), [make_attempt()], after(TTL)).until is None


def test_nothing_comes_over_a_route_that_is_shut() -> None:
    shut = Shut(disabled=frozenset({"voice"}))
    asked = PLAN, make_verification(), [make_attempt()], after(1)

    assert Coming("send", after(60), "voice") == coming(*asked)
    assert Coming("expire", after(TTL)) == coming(*asked, shut=shut)
    assert "voice" not in explain(*asked, shut=shut)


@pytest.mark.parametrize("status", ENDS)
def test_nothing_comes_after_the_end(status: Status) -> None:
    assert next_of(make_attempt(), status=status) is None


def test_nothing_comes_after_the_expiry() -> None:
    assert next_of(make_attempt(), at=TTL) is None


@pytest.mark.parametrize(
    ("attempts", "plan", "at", "expected"),
    [
        ([make_attempt()], PLAN, 1, "Unless more is heard, a voice call follows at 12:01:00 UTC."),
        ([], PLAN, 1, "An SMS follows at once."),
        (
            [make_attempt(reference="sms_1")],
            POLLING,
            1,
            "sms is asked about it at 12:01:00 UTC, and a voice call follows at 12:01:03 UTC.",
        ),
        ([make_attempt()], LAST, 1, "The code can be typed until 12:05:00 UTC."),
    ],
)
def test_what_comes_next_is_said_in_words(
    attempts: list[Attempt], plan: Plan, at: float, expected: str
) -> None:
    assert told(*attempts, plan=plan, at=at).endswith(expected)
