"""What happens next: every numbered rule of `workflow`, one by one; then the laws, over anything
that can be stored and over whole lives of a verification."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

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
from fakes import START
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.delivery import Attempt, Cause, Outcome, State, advance
from gateway.domain.explanation import Story, story
from gateway.domain.health import OPEN, Shut
from gateway.domain.verification import MIN_LIFE, Status, Verification
from gateway.domain.workflow import (
    MAX_ATTEMPTS,
    MAX_REPEATS,
    MAX_TRIES,
    POLL_SECONDS,
    Action,
    Asked,
    Finish,
    OnFailed,
    OnUnknown,
    Plan,
    Poll,
    Send,
    Until,
    Wait,
    lapse,
    less,
    next_action,
    patience_ends,
    retry_delay,
    satisfied,
    starts,
    too_late,
    wake_at,
)

SMS, OTHER, VOICE = make_route("sms"), make_route("sms_b"), make_route("voice")
PLAN = make_plan(make_step(SMS), make_step(VOICE))
TWO_ROUTES = make_plan(make_step(SMS, OTHER), make_step(VOICE))
LAST = make_plan(make_step(SMS))
EXPIRY = Wait(after(TTL))
FALLBACK = Send(1, VOICE, Cause.SILENCE)

FAILING_OVER = [Outcome.TEMPORARY, Outcome.THROTTLED, Outcome.ACCOUNT]
REPEATABLE = [Outcome.TEMPORARY, Outcome.THROTTLED]
FINAL = [Outcome.PERMANENT, Outcome.WITHDRAWN]


def decided(
    attempts: Sequence[Attempt],
    seconds: float = 0,
    *,
    plan: Plan = PLAN,
    asked: Asked | None = None,
    shut: Shut = OPEN,
    **changes: object,
) -> Action:
    """The answer so many seconds after accept."""
    verification = make_verification(**changes)
    ordered = by_ordinal(attempts)
    return next_action(plan, verification, ordered, after(seconds), asked, shut=shut)


# The beginning.


def test_the_first_attempt_goes_over_the_first_route_of_the_first_step() -> None:
    assert Send(0, SMS, Cause.FIRST) == decided([], plan=TWO_ROUTES)


# Rule 1: satisfaction.


@pytest.mark.parametrize(
    ("until", "state", "expected"),
    [
        (Until.SENT, State.QUEUED, False),
        (Until.SENT, State.SENT, True),
        (Until.SENT, State.ACK, True),
        (Until.SENT, State.FAILED, False),
        (Until.SENT, State.DELIVERED, True),
        (Until.SENT, State.READ, True),
        (Until.ACK, State.QUEUED, False),
        (Until.ACK, State.SENT, False),
        (Until.ACK, State.ACK, True),
        (Until.ACK, State.FAILED, False),
        (Until.ACK, State.DELIVERED, True),
        (Until.ACK, State.READ, True),
        (Until.DELIVERED, State.QUEUED, False),
        (Until.DELIVERED, State.SENT, False),
        (Until.DELIVERED, State.ACK, False),
        (Until.DELIVERED, State.FAILED, False),
        (Until.DELIVERED, State.DELIVERED, True),
        (Until.DELIVERED, State.READ, True),
        (Until.READ, State.QUEUED, False),
        (Until.READ, State.SENT, False),
        (Until.READ, State.ACK, False),
        (Until.READ, State.FAILED, False),
        (Until.READ, State.DELIVERED, False),
        (Until.READ, State.READ, True),
        (Until.VERIFIED, State.QUEUED, False),
        (Until.VERIFIED, State.SENT, False),
        (Until.VERIFIED, State.ACK, False),
        (Until.VERIFIED, State.FAILED, False),
        (Until.VERIFIED, State.DELIVERED, False),
        (Until.VERIFIED, State.READ, False),
    ],
)
def test_a_step_is_satisfied_by_what_it_waits_for(
    until: Until, state: State, expected: bool
) -> None:
    plan = make_plan(make_step(make_route(confirms=frozenset(State)), until=until))

    assert expected == satisfied(plan, make_attempt(state=state))


def test_a_satisfied_step_sends_nothing_more_whatever_time_passes() -> None:
    assert EXPIRY == decided([make_attempt(state=State.DELIVERED)], 200)


def test_a_step_satisfied_late_stops_the_fallback_that_is_under_way() -> None:
    """The message of step one arrived after all: step three is not needed."""
    attempts = [
        make_attempt(state=State.DELIVERED),
        make_attempt(step=1, route="voice", queued_at=after(60)),
    ]

    assert EXPIRY == decided(attempts, 250, step=1)


@pytest.mark.parametrize("until", [Until.SENT, Until.ACK])
def test_a_later_failure_undoes_sent_and_ack(until: Until) -> None:
    plan = make_plan(make_step(SMS, until=until), make_step(VOICE))

    assert Send(1, VOICE, Cause.FAILED) == decided([make_attempt(state=State.FAILED)], 5, plan=plan)


def test_a_satisfied_step_is_repeated_when_the_person_asks() -> None:
    assert Send(0, SMS, Cause.RESEND, resend=1) == decided(
        [make_attempt(state=State.DELIVERED)], 40, asked=Asked.RESEND
    )


@pytest.mark.parametrize(
    ("cause", "step", "route"), [(Cause.RESEND, 0, SMS), (Cause.NEXT, 1, VOICE)]
)
def test_what_the_person_asked_for_is_sent_though_the_message_before_arrived(
    cause: Cause, step: int, route: object
) -> None:
    """The resend was answered 202 and found no free slot: it is looked at again (§6), not
    forgotten because the message the person could not use was delivered before it asked."""
    first = make_attempt(state=State.DELIVERED)
    asked_for = waiting_attempt(
        step=step,
        route="sms" if step == 0 else "voice",
        resend=1 - step,
        cause=cause,
        queued_at=after(40),
        retry_at=after(41),
    )

    assert Send(step, route, cause, 1 - step, asked_for.id) == decided(  # type: ignore[arg-type]
        [first, asked_for], 41, step=step
    )


def test_a_refused_resend_is_repeated_though_the_message_before_arrived() -> None:
    attempts = [
        make_attempt(state=State.DELIVERED),
        refused_attempt(resend=1, cause=Cause.RESEND, queued_at=after(40), retry_at=after(41)),
    ]

    assert Send(0, SMS, Cause.REFUSED, resend=1) == decided(attempts, 41)


def test_a_resend_that_left_is_not_followed_when_the_message_before_arrived() -> None:
    attempts = [
        make_attempt(state=State.DELIVERED),
        make_attempt(resend=1, cause=Cause.RESEND, queued_at=after(40)),
    ]

    assert EXPIRY == decided(attempts, 110)


def test_a_message_that_still_waits_is_not_sent_once_the_one_before_arrived() -> None:
    """A fallback nobody asked for, made before the receipt came."""
    attempts = [
        make_attempt(state=State.DELIVERED),
        waiting_attempt(step=1, route="voice", cause=Cause.SILENCE, queued_at=after(60)),
    ]

    assert EXPIRY == decided(attempts, 61, step=1)


# Rule 2: what advances.


@pytest.mark.parametrize(
    ("seconds", "expected"), [(59.999, Wait(after(60))), (60, FALLBACK), (60.001, FALLBACK)]
)
def test_silence_past_the_patience_falls_back(seconds: float, expected: Action) -> None:
    assert expected == decided([make_attempt()], seconds)


def test_a_failure_by_receipt_falls_back_at_once() -> None:
    assert Send(1, VOICE, Cause.FAILED) == decided([make_attempt(state=State.FAILED)], 1)


def test_a_failure_by_receipt_may_be_told_to_wait_for_the_patience() -> None:
    plan = make_plan(make_step(SMS, on_failed=OnFailed.WAIT), make_step(VOICE))

    assert Wait(after(60)) == decided([make_attempt(state=State.FAILED)], 1, plan=plan)


def test_a_failure_that_waited_falls_back_with_the_patience() -> None:
    plan = make_plan(make_step(SMS, on_failed=OnFailed.WAIT), make_step(VOICE))

    assert Send(1, VOICE, Cause.FAILED) == decided(
        [make_attempt(state=State.FAILED)], 60, plan=plan
    )


def test_next_falls_back_at_once() -> None:
    assert Send(1, VOICE, Cause.NEXT) == decided([make_attempt()], 1, asked=Asked.NEXT)


def test_next_in_the_last_step_waits_for_the_check() -> None:
    attempts = [make_attempt(step=1, route="voice")]

    assert EXPIRY == decided(attempts, 1, asked=Asked.NEXT, step=1)


def test_next_falls_back_though_the_step_is_satisfied() -> None:
    assert Send(1, VOICE, Cause.NEXT) == decided(
        [make_attempt(state=State.DELIVERED)], 1, asked=Asked.NEXT
    )


def test_silence_waits_for_the_end_of_a_submission_under_way() -> None:
    claimed = waiting_attempt(claimed_until=after(75), tries=1)

    assert Wait(after(75)) == decided([claimed], 65)


def test_a_failure_by_receipt_falls_back_though_the_submission_is_under_way() -> None:
    """The receipt overtook the answer to our call."""
    claimed = make_attempt(state=State.FAILED, outcome=None, claimed_until=after(15))

    assert Send(1, VOICE, Cause.FAILED) == decided([claimed], 2)


def test_next_falls_back_though_the_submission_is_under_way() -> None:
    claimed = waiting_attempt(claimed_until=after(15), tries=1)

    assert Send(1, VOICE, Cause.NEXT) == decided([claimed], 2, asked=Asked.NEXT)


def test_patience_runs_from_the_moment_the_attempt_was_queued() -> None:
    attempt = make_attempt(queued_at=after(10), sent_at=after(30))

    assert Wait(after(70)) == decided([attempt], 31)


def test_silence_in_the_last_step_waits_for_the_check() -> None:
    assert EXPIRY == decided([make_attempt()], 100, plan=LAST)


def test_a_failure_in_the_last_step_leaves_the_code_valid() -> None:
    """F12: such receipts are often wrong."""
    assert EXPIRY == decided([make_attempt(state=State.FAILED)], 100, plan=LAST)


def test_only_the_step_in_force_is_looked_at() -> None:
    """A late failure of step one does not advance step two."""
    attempts = [
        make_attempt(state=State.FAILED),
        make_attempt(step=1, route="voice", queued_at=after(60)),
    ]

    assert Wait(after(120)) == decided(attempts, 70, step=1)


# Rule 3: when nothing is sent any more.


@pytest.mark.parametrize(
    "status",
    [Status.VERIFIED, Status.EXPIRED, Status.CANCELED, Status.LOCKED, Status.FAILED],
)
@pytest.mark.parametrize("asked", [None, *Asked])
def test_after_an_end_there_is_only_the_end(status: Status, asked: Asked | None) -> None:
    attempts = [refused_attempt(retry_at=START)]

    assert Finish(status) == decided(attempts, 1, asked=asked, status=status)


@pytest.mark.parametrize("asked", [None, *Asked])
def test_past_its_time_a_verification_expires(asked: Asked | None) -> None:
    assert Finish(Status.EXPIRED) == decided([make_attempt()], TTL, asked=asked)


@pytest.mark.parametrize(
    ("left", "expected"), [(MIN_LIFE, FALLBACK), (MIN_LIFE - 0.001, EXPIRY), (1, EXPIRY)]
)
def test_a_code_about_to_expire_is_not_sent(left: float, expected: Action) -> None:
    """F28."""
    assert expected == decided([make_attempt()], TTL - left)


@pytest.mark.parametrize("asked", Asked)
def test_a_code_about_to_expire_is_not_sent_on_demand_either(asked: Asked) -> None:
    """F28."""
    assert EXPIRY == decided([make_attempt()], TTL - MIN_LIFE + 1, asked=asked)


def test_a_waiting_attempt_is_not_sent_with_too_little_life_left() -> None:
    """F28: it kept its place and the place came too late."""
    assert EXPIRY == decided([waiting_attempt()], TTL - MIN_LIFE + 1, plan=LAST)


def test_an_unknown_outcome_is_not_resubmitted_with_too_little_life_left() -> None:
    plan = make_plan(make_step(make_route(idempotent=True), patience=600))
    attempt = unknown_attempt(overdue_at=after(600))

    assert EXPIRY == decided([attempt], TTL - MIN_LIFE + 1, plan=plan)


@pytest.mark.parametrize(("count", "sends"), [(MAX_ATTEMPTS - 1, True), (MAX_ATTEMPTS, False)])
def test_there_is_a_most_of_attempts(count: int, sends: bool) -> None:
    attempts = [make_attempt(resend=number) for number in range(count)]

    assert sends == isinstance(decided(attempts, 60), Send)


def test_a_stored_attempt_is_submitted_though_no_other_may_follow() -> None:
    attempts = [make_attempt(resend=number) for number in range(MAX_ATTEMPTS - 1)]
    waiting = waiting_attempt(resend=9, cause=Cause.RESEND, retry_at=after(1))

    assert Send(0, SMS, Cause.RESEND, 9, waiting.id) == decided([*attempts, waiting], 1)


# Rule 4: a state its route cannot report.


@pytest.mark.parametrize(
    ("until", "confirms", "expected"),
    [
        (Until.SENT, set(), Until.SENT),
        (Until.ACK, set(), Until.VERIFIED),
        (Until.ACK, {State.ACK}, Until.ACK),
        (Until.ACK, {State.DELIVERED}, Until.ACK),
        (Until.DELIVERED, {State.ACK, State.FAILED}, Until.VERIFIED),
        (Until.DELIVERED, {State.DELIVERED}, Until.DELIVERED),
        (Until.DELIVERED, {State.READ}, Until.DELIVERED),
        (Until.READ, {State.DELIVERED}, Until.VERIFIED),
        (Until.READ, {State.READ}, Until.READ),
        (Until.READ, {State.FAILED}, Until.VERIFIED),
        (Until.VERIFIED, {State.READ}, Until.VERIFIED),
    ],
)
def test_a_step_waits_for_verified_where_its_route_cannot_say_more(
    until: Until, confirms: set[State], expected: Until
) -> None:
    route = make_route(confirms=frozenset(confirms))

    assert expected == make_step(route, until=until).awaits(route)


def test_a_step_on_a_blind_route_falls_back_after_its_patience() -> None:
    """It waits for the check, and no longer than its patience."""
    blind = replace(SMS, confirms=frozenset())
    plan = make_plan(make_step(blind), make_step(VOICE))

    assert FALLBACK == decided([make_attempt()], 60, plan=plan)


def test_read_receipts_that_never_come_have_a_cap() -> None:
    """F40: people switch them off."""
    plan = make_plan(make_step(SMS, until=Until.READ), make_step(VOICE))

    assert FALLBACK == decided([make_attempt(state=State.DELIVERED)], 60, plan=plan)


def test_read_receipts_that_never_come_end_with_the_code_in_the_last_step() -> None:
    """F40: and nothing is sent in a circle."""
    plan = make_plan(make_step(SMS, until=Until.READ))

    assert EXPIRY == decided([make_attempt(state=State.DELIVERED)], 60, plan=plan)


def test_a_step_until_verified_falls_back_though_it_was_delivered() -> None:
    """Vonage Verify's plan: SMS, 125 s, then a call."""
    plan = make_plan(make_step(SMS, until=Until.VERIFIED, patience=125), make_step(VOICE))
    attempt = make_attempt(state=State.DELIVERED, overdue_at=after(125))

    assert FALLBACK == decided([attempt], 125, plan=plan)


# Rule 5: refusals.


@pytest.mark.parametrize("outcome", FAILING_OVER)
def test_a_refusal_goes_to_the_next_route_at_once(outcome: Outcome) -> None:
    attempts = [refused_attempt(outcome, retry_at=after(30))]

    assert Send(0, OTHER, Cause.REFUSED) == decided(attempts, 1, plan=TWO_ROUTES)


@pytest.mark.parametrize("outcome", FINAL)
def test_a_final_refusal_advances(outcome: Outcome) -> None:
    assert Send(1, VOICE, Cause.REFUSED) == decided([refused_attempt(outcome)], 1, plan=TWO_ROUTES)


@pytest.mark.parametrize("outcome", REPEATABLE)
def test_without_another_route_a_refusal_waits_for_its_retry(outcome: Outcome) -> None:
    assert Wait(after(7)) == decided([refused_attempt(outcome, retry_at=after(7))], 1)


@pytest.mark.parametrize("outcome", REPEATABLE)
def test_without_another_route_a_refused_step_is_repeated(outcome: Outcome) -> None:
    assert Send(0, SMS, Cause.REFUSED) == decided([refused_attempt(outcome, retry_at=after(7))], 7)


def test_an_accounts_refusal_is_not_repeated_on_its_route() -> None:
    """Credentials do not mend themselves in seconds: three calls for nothing, and seven lost."""
    account = refused_attempt(Outcome.ACCOUNT, retry_at=after(1))

    assert Send(1, VOICE, Cause.REFUSED) == decided([account], 1)
    assert Finish(Status.FAILED) == decided([account], 1, plan=make_plan(make_step(SMS)))


def test_after_an_accounts_refusal_the_other_route_alone_is_repeated() -> None:
    attempts = [
        refused_attempt(Outcome.ACCOUNT, retry_at=after(1)),
        refused_attempt(route=OTHER.name, retry_at=after(2)),
    ]

    assert Wait(after(2)) == decided(attempts, 1, plan=TWO_ROUTES)
    assert Send(0, OTHER, Cause.REFUSED) == decided(attempts, 2, plan=TWO_ROUTES)


def test_a_refusal_that_names_no_retry_is_repeated_at_once() -> None:
    assert Send(0, SMS, Cause.REFUSED) == decided([refused_attempt(retry_at=None)], 1)


@pytest.mark.parametrize(("retry_at", "advances"), [(59.999, False), (60, True), (500, True)])
def test_a_retry_after_the_patience_advances_at_once(retry_at: float, advances: bool) -> None:
    """Waiting for it would be waiting for nothing."""
    action = decided([refused_attempt(retry_at=after(retry_at))], 1)

    assert advances == (action == Send(1, VOICE, Cause.REFUSED))


def test_the_patience_of_repeats_runs_from_the_first_refusal() -> None:
    attempts = [
        refused_attempt(retry_at=after(1)),
        refused_attempt(queued_at=after(50), retry_at=after(61)),
    ]

    assert Send(1, VOICE, Cause.REFUSED) == decided(attempts, 51)


@pytest.mark.parametrize(("refusals", "repeats"), [(MAX_REPEATS, True), (MAX_REPEATS + 1, False)])
def test_a_refused_step_is_repeated_so_often_and_not_more(refusals: int, repeats: bool) -> None:
    attempts = [refused_attempt(retry_at=after(1)) for _ in range(refusals)]
    expected = Send(0, SMS, Cause.REFUSED) if repeats else Send(1, VOICE, Cause.REFUSED)

    assert expected == decided(attempts, 1)


def test_each_route_is_tried_before_one_is_repeated() -> None:
    attempts = [
        refused_attempt(retry_at=after(2)),
        refused_attempt(route="sms_b", retry_at=after(3)),
    ]

    assert Send(0, SMS, Cause.REFUSED) == decided(attempts, 2, plan=TWO_ROUTES)


def test_a_route_is_not_repeated_before_its_own_retry_after() -> None:
    """The first route said `Retry-After: 30`; that the second may be asked sooner is not news of
    the first."""
    attempts = [
        refused_attempt(Outcome.THROTTLED, retry_at=after(30)),
        refused_attempt(route="sms_b", retry_at=after(2)),
    ]

    assert Send(0, OTHER, Cause.REFUSED) == decided(attempts, 2, plan=TWO_ROUTES)


def test_the_route_that_may_be_asked_soonest_is_waited_for() -> None:
    attempts = [
        refused_attempt(Outcome.THROTTLED, retry_at=after(30)),
        refused_attempt(route="sms_b", retry_at=after(4)),
    ]

    assert Wait(after(4)) == decided(attempts, 2, plan=TWO_ROUTES)


def test_a_refused_resend_has_its_own_routes_and_repeats() -> None:
    """What was refused before the person asked again does not count against it."""
    attempts = [
        *[refused_attempt(retry_at=after(1)) for _ in range(MAX_REPEATS)],
        refused_attempt(resend=1, cause=Cause.RESEND, queued_at=after(31), retry_at=after(32)),
    ]

    assert Send(0, SMS, Cause.REFUSED, resend=1) == decided(attempts, 32)


def test_a_refusal_after_an_unknown_outcome_is_not_repeated() -> None:
    attempts = [unknown_attempt(), refused_attempt(cause=Cause.UNKNOWN, retry_at=after(1))]
    action = decided(attempts, 2)

    assert not isinstance(action, Send) or 1 == action.step


def test_when_every_attempt_was_refused_and_nothing_is_left_the_verification_failed() -> None:
    assert Finish(Status.FAILED) == decided([refused_attempt(Outcome.PERMANENT)], 1, plan=LAST)


def test_when_one_attempt_may_have_arrived_a_refusal_fails_nothing() -> None:
    """F12: its code is under way and verifies as long as it lives."""
    attempts = [
        make_attempt(),
        refused_attempt(Outcome.PERMANENT, step=1, route="voice", queued_at=after(60)),
    ]

    assert EXPIRY == decided(attempts, 61, step=1)


def test_a_message_that_arrived_after_its_refusal_is_not_sent_again() -> None:
    """The provider said no, the handset yes; READ is waited for. A second code would be one too
    many (F9)."""
    plan = make_plan(make_step(SMS, until=Until.READ), make_step(VOICE))
    attempt = make_attempt(state=State.DELIVERED, outcome=Outcome.TEMPORARY, retry_at=after(1))

    assert Wait(after(60)) == decided([attempt], 2, plan=plan)


def test_a_message_that_arrived_after_its_refusal_keeps_the_verification_running() -> None:
    """F12: the code is on the handset and must verify."""
    plan = make_plan(make_step(SMS, until=Until.READ))
    attempt = make_attempt(state=State.DELIVERED, outcome=Outcome.PERMANENT)

    assert Finish(Status.FAILED) != decided([attempt], 2, plan=plan)


def test_with_too_little_life_left_to_retry_a_refused_verification_failed() -> None:
    assert Finish(Status.FAILED) == decided(
        [refused_attempt(queued_at=after(270), overdue_at=after(330), retry_at=after(271))], 271
    )


@pytest.mark.parametrize(("earlier", "seconds"), [(0, 1.0), (1, 2.0), (2, 4.0), (3, 4.0)])
def test_a_refused_step_is_repeated_after_one_two_and_four_seconds(
    earlier: int, seconds: float
) -> None:
    refused = refused_attempt()

    assert seconds == retry_delay([*(refused_attempt() for _ in range(earlier)), refused], refused)


def test_the_delay_counts_the_refusals_of_one_patience_alone() -> None:
    refused = refused_attempt(resend=1)
    attempts = [refused_attempt(), refused_attempt(step=1), make_attempt(resend=1), refused]

    assert 1.0 == retry_delay(attempts, refused)


def test_the_delay_counts_the_refusals_of_one_route_alone() -> None:
    refused = refused_attempt()

    assert 1.0 == retry_delay([refused_attempt(route="sms_b"), refused], refused)


# Rule 6: unknown outcomes.


def test_an_unknown_outcome_is_not_submitted_again_within_the_patience() -> None:
    assert Wait(after(60)) == decided([unknown_attempt()], 1)


def test_an_unknown_outcome_does_not_go_to_another_route() -> None:
    assert Wait(after(60)) == decided([unknown_attempt()], 1, plan=TWO_ROUTES)


def test_an_unknown_outcome_falls_back_with_the_patience() -> None:
    assert FALLBACK == decided([unknown_attempt()], 60)


def test_an_unknown_outcome_in_the_last_step_is_submitted_once_more() -> None:
    assert Send(0, SMS, Cause.UNKNOWN) == decided([unknown_attempt()], 60, plan=LAST)


def test_an_unknown_outcome_in_the_last_step_prefers_another_route() -> None:
    plan = make_plan(make_step(SMS, OTHER))

    assert Send(0, OTHER, Cause.UNKNOWN) == decided([unknown_attempt()], 60, plan=plan)


@pytest.mark.parametrize(
    "second",
    [
        make_attempt(cause=Cause.UNKNOWN),
        unknown_attempt(cause=Cause.UNKNOWN),
        refused_attempt(cause=Cause.UNKNOWN, retry_at=after(61)),
        make_attempt(cause=Cause.UNKNOWN, state=State.FAILED),
    ],
    ids=["silent", "unknown", "refused", "failed"],
)
def test_an_unknown_outcome_in_the_last_step_is_submitted_once_more_only(second: Attempt) -> None:
    assert EXPIRY == decided([unknown_attempt(), second], 130, plan=LAST)


def test_an_unknown_outcome_that_was_heard_of_is_not_submitted_once_more() -> None:
    """ACK came: it is on its way, and silence after that is silence."""
    assert EXPIRY == decided([unknown_attempt(state=State.ACK)], 60, plan=LAST)


def test_an_unknown_outcome_under_an_idempotency_key_is_submitted_again_as_the_same() -> None:
    plan = make_plan(make_step(make_route(idempotent=True)), make_step(VOICE))
    attempt = unknown_attempt(retry_at=after(1))

    assert Send(0, plan.steps[0].routes[0], Cause.FIRST, 0, attempt.id) == decided(
        [attempt], 1, plan=plan
    )


def test_a_resubmission_waits_for_its_moment() -> None:
    plan = make_plan(make_step(make_route(idempotent=True)), make_step(VOICE))

    assert Wait(after(4)) == decided([unknown_attempt(retry_at=after(4))], 2, plan=plan)


def test_resubmissions_end_after_so_many_tries() -> None:
    plan = make_plan(make_step(make_route(idempotent=True)), make_step(VOICE))

    assert Wait(after(60)) == decided([unknown_attempt(tries=MAX_TRIES)], 8, plan=plan)


def test_resubmissions_end_with_the_patience() -> None:
    plan = make_plan(make_step(make_route(idempotent=True)), make_step(VOICE))

    assert FALLBACK == decided([unknown_attempt()], 60, plan=plan)


def test_a_workflow_may_opt_into_one_submission_more_at_once() -> None:
    plan = make_plan(make_step(SMS, on_unknown=OnUnknown.RESUBMIT), make_step(VOICE))

    assert Send(0, SMS, Cause.UNKNOWN) == decided([unknown_attempt()], 1, plan=plan)


def test_opted_in_it_is_one_submission_more_and_no_third() -> None:
    plan = make_plan(make_step(SMS, on_unknown=OnUnknown.RESUBMIT), make_step(VOICE))
    attempts = [unknown_attempt(), unknown_attempt(cause=Cause.UNKNOWN, queued_at=after(10))]

    assert Wait(after(70)) == decided(attempts, 20, plan=plan)


def test_an_unknown_outcome_is_repeated_when_the_person_asks() -> None:
    assert Send(0, SMS, Cause.RESEND, resend=1) == decided(
        [unknown_attempt()], 31, asked=Asked.RESEND
    )


def test_a_claim_that_lapsed_is_an_unknown_outcome() -> None:
    """A crash between the commit and the outcome: falls back, and is not submitted again."""
    claimed = waiting_attempt(claimed_until=after(15), tries=1)

    assert Wait(after(60)) == decided([claimed], 15)


# Rule 7: an explicit channel.


def test_a_plan_of_one_channel_switches_to_no_other() -> None:
    """F41: silence, failure and refusal all stay on the channel the caller chose."""
    endings = [
        decided([make_attempt()], 100, plan=LAST),
        decided([make_attempt(state=State.FAILED)], 100, plan=LAST),
        decided([refused_attempt(Outcome.PERMANENT)], 100, plan=LAST),
    ]

    assert [EXPIRY, EXPIRY, Finish(Status.FAILED)] == endings


# Rule 9: asking the provider.

POLLED = replace(SMS, polls=True)
POLLING = make_plan(make_step(POLLED), make_step(VOICE))


def test_past_its_patience_an_attempt_is_polled_before_the_fallback() -> None:
    attempt = make_attempt(reference="sms_1")

    assert Poll(attempt.id, POLLED) == decided([attempt], 60, plan=POLLING)


def test_within_its_patience_an_attempt_is_not_polled() -> None:
    attempt = make_attempt(reference="sms_1")

    assert Wait(after(60)) == decided([attempt], 59, plan=POLLING)


def test_the_answer_to_a_poll_is_waited_for() -> None:
    attempt = make_attempt(polled_at=after(60), reference="sms_1")

    assert Wait(after(60 + POLL_SECONDS)) == decided([attempt], 61, plan=POLLING)


def test_what_has_no_reference_cannot_be_asked_about() -> None:
    """And nobody waits three seconds for an answer to no question."""
    assert FALLBACK == decided([unknown_attempt()], 60, plan=POLLING)


def test_a_poll_without_an_answer_falls_back() -> None:
    attempt = make_attempt(polled_at=after(60), reference="sms_1")

    assert FALLBACK == decided([attempt], 60 + POLL_SECONDS, plan=POLLING)


def test_a_poll_that_brought_what_was_waited_for_stops_the_fallback() -> None:
    attempt = make_attempt(polled_at=after(60), state=State.DELIVERED)

    assert EXPIRY == decided([attempt], 61, plan=POLLING)


def test_a_failed_attempt_is_not_polled() -> None:
    assert Send(1, VOICE, Cause.FAILED) == decided(
        [make_attempt(state=State.FAILED)], 60, plan=POLLING
    )


# Rule 10: resends.


def test_a_resend_goes_over_another_route_when_there_is_one() -> None:
    assert Send(0, OTHER, Cause.RESEND, resend=1) == decided(
        [make_attempt()], 31, plan=TWO_ROUTES, asked=Asked.RESEND
    )


def test_a_resend_repeats_the_step_in_force() -> None:
    attempts = [make_attempt(), make_attempt(step=1, route="voice")]

    assert Send(1, VOICE, Cause.RESEND, resend=1) == decided(
        attempts, 95, asked=Asked.RESEND, step=1
    )


def test_a_resend_opens_a_patience_of_its_own() -> None:
    attempts = [make_attempt(), make_attempt(resend=1, queued_at=after(40))]

    assert Wait(after(100)) == decided(attempts, 70)


def test_a_resend_submits_the_attempt_that_still_waits_instead_of_a_second_one() -> None:
    waiting = waiting_attempt(retry_at=after(50))

    assert Send(0, SMS, Cause.FIRST, 0, waiting.id) == decided([waiting], 31, asked=Asked.RESEND)


# Attempts that wait for a slot (§6).


def test_a_waiting_attempt_is_looked_at_again_at_its_moment() -> None:
    assert Wait(after(1.25)) == decided([waiting_attempt(retry_at=after(1.25))], 1)


def test_a_waiting_attempt_is_submitted_when_its_moment_came() -> None:
    waiting = waiting_attempt(retry_at=after(1.25))

    assert Send(0, SMS, Cause.FIRST, 0, waiting.id) == decided([waiting], 1.25)


def test_a_waiting_attempt_is_passed_over_when_its_step_has_passed() -> None:
    assert FALLBACK == decided([waiting_attempt(retry_at=after(61))], 60)


def test_in_the_last_step_a_waiting_attempt_keeps_its_place() -> None:
    waiting = waiting_attempt(retry_at=after(61))

    assert Send(0, SMS, Cause.FIRST, 0, waiting.id) == decided([waiting], 61, plan=LAST)


# Claims that ran out.


def test_a_claim_that_holds_changes_nothing() -> None:
    attempt = waiting_attempt(claimed_until=after(15), tries=1)

    assert attempt is lapse(attempt, after(14.999))


def test_an_attempt_without_a_claim_changes_nothing() -> None:
    attempt = make_attempt()

    assert attempt is lapse(attempt, after(1000))


def test_a_lapsed_claim_counts_as_sent_with_an_unknown_outcome() -> None:
    attempt = waiting_attempt(claimed_until=after(15), tries=1)
    expected = attempt._replace(
        state=State.SENT,
        outcome=Outcome.UNKNOWN,
        reason="claim_lapsed",
        sent_at=after(15),
        claimed_until=None,
    )

    assert expected == lapse(attempt, after(15))


def test_a_lapsed_claim_takes_back_nothing_that_was_heard_meanwhile() -> None:
    attempt = make_attempt(state=State.DELIVERED, outcome=None, claimed_until=after(15))
    expected = attempt._replace(outcome=Outcome.UNKNOWN, claimed_until=None)

    assert expected == lapse(attempt, after(20))


def test_a_lapsed_resubmission_keeps_its_first_outcome() -> None:
    attempt = unknown_attempt(claimed_until=after(15), tries=2)

    assert attempt._replace(claimed_until=None) == lapse(attempt, after(15))


# When to look again.


@pytest.mark.parametrize(
    ("attempts", "seconds", "changes", "expected"),
    [
        ([make_attempt()], 1, {}, 60),
        ([make_attempt(state=State.DELIVERED)], 1, {}, TTL),
        ([make_attempt()], 61, {}, 61),
        ([waiting_attempt(claimed_until=after(15))], 1, {}, 15),
        ([refused_attempt(retry_at=after(9))], 1, {}, 9),
        ([make_attempt()], TTL + 1, {}, TTL + 1),
    ],
    ids=["patience", "expiry", "due now", "claim", "retry", "expired and not written so"],
)
def test_somebody_looks_again_at_the_moment_of_the_next_action(
    attempts: list[Attempt], seconds: float, changes: dict[str, object], expected: float
) -> None:
    verification = make_verification(**changes)

    assert after(expected) == wake_at(PLAN, verification, attempts, after(seconds))


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PENDING])
def test_nobody_looks_again_after_the_end(status: Status) -> None:
    verification: Verification = make_verification(status=status)

    assert wake_at(PLAN, verification, [make_attempt()], after(1)) is None


def test_somebody_looks_at_once_when_it_failed_and_nobody_has_written_so() -> None:
    attempts = [refused_attempt(Outcome.PERMANENT)]

    assert after(1) == wake_at(LAST, make_verification(), attempts, after(1))


# Plans.


def test_each_step_starts_when_the_patience_of_all_before_it_is_over() -> None:
    plan = make_plan(make_step(patience=120), make_step(patience=60), make_step(patience=5))

    assert [0, 120, 180] == starts(plan)


def test_a_step_that_is_asked_after_starts_the_next_one_later() -> None:
    plan = make_plan(make_step(patience=120), make_step(POLLED), make_step(VOICE))

    assert [0, 120, 180 + POLL_SECONDS] == starts(plan)


@pytest.mark.parametrize(("ttl", "expected"), [(600, None), (210, None), (209, 2), (149, 1)])
def test_a_step_that_could_not_start_in_time_is_found(ttl: int, expected: int | None) -> None:
    plan = make_plan(make_step(patience=120), make_step(patience=60), make_step(patience=5))

    assert expected == too_late(plan, ttl)


@pytest.mark.parametrize(
    ("ttl", "polls", "expected"),
    [(89, 0, 60), (90, 0, 59), (90.5, 0, 59.5), (91, 0, 60), (93, 3, 59), (94, 3, 60)],
)
def test_a_patience_that_ends_at_the_last_moment_leaves_room_for_the_pass(
    ttl: float, polls: int, expected: float
) -> None:
    """The pass sees a deadline a moment later, and then the next step would come too late."""
    plan = make_plan(make_step(make_route("sms", polls=polls > 0)), make_step(VOICE))

    assert after(expected) == patience_ends(plan, 0, after(ttl), START)


def test_nothing_comes_after_the_last_step_and_it_keeps_its_patience() -> None:
    assert after(60) == patience_ends(LAST, 0, after(90), START)


def test_a_route_is_found_by_its_name() -> None:
    assert OTHER == TWO_ROUTES.steps[0].route("sms_b")


def test_a_route_the_plan_does_not_have_is_said_so() -> None:
    with pytest.raises(LookupError, match="no route 'fax'"):
        TWO_ROUTES.steps[0].route("fax")


# Routes that are paused or disabled.

SMS_PAUSED = Shut(paused=frozenset({SMS.name}))
SMS_DISABLED = Shut(disabled=frozenset({SMS.name}))
ALL_PAUSED = Shut(paused=frozenset({SMS.name, OTHER.name, VOICE.name}))
ALL_DISABLED = Shut(disabled=ALL_PAUSED.paused)


@pytest.mark.parametrize("shut", [SMS_PAUSED, SMS_DISABLED])
def test_a_shut_route_is_passed_over(shut: Shut) -> None:
    unknown = unknown_attempt(route=OTHER.name)
    last = make_plan(make_step(SMS, OTHER))

    assert Send(0, OTHER, Cause.FIRST) == decided([], plan=TWO_ROUTES, shut=shut)
    assert Send(0, OTHER, Cause.UNKNOWN) == decided([unknown], 60, plan=last, shut=shut)


def test_a_refusal_does_not_go_to_a_paused_route() -> None:
    refused = refused_attempt(route=OTHER.name, retry_at=after(2))

    assert Send(0, SMS, Cause.REFUSED) == decided([refused], 1, plan=TWO_ROUTES)
    assert Wait(after(2)) == decided([refused], 1, plan=TWO_ROUTES, shut=SMS_PAUSED)


def test_when_all_routes_are_paused_the_configured_order_holds() -> None:
    """F30: it is the world then, and no route of ours."""
    assert Send(0, SMS, Cause.FIRST) == decided([], plan=TWO_ROUTES, shut=ALL_PAUSED)
    assert TWO_ROUTES == less(TWO_ROUTES, ALL_PAUSED)


def test_a_step_whose_routes_are_all_disabled_is_passed_over() -> None:
    assert Send(1, VOICE, Cause.FIRST) == decided([], shut=SMS_DISABLED)
    assert EXPIRY == decided([], plan=TWO_ROUTES, shut=ALL_DISABLED)


def test_an_operators_word_is_not_overruled_by_what_is_paused() -> None:
    """The only route left is paused: it is used, the disabled one never."""
    shut = Shut(frozenset({OTHER.name}), frozenset({SMS.name}))

    assert Send(0, OTHER, Cause.FIRST) == decided([], plan=TWO_ROUTES, shut=shut)


def test_what_waits_for_a_slot_of_a_disabled_route_takes_another() -> None:
    waiting = waiting_attempt(retry_at=after(3))

    assert Send(0, OTHER, Cause.FIRST) == decided([waiting], 1, plan=TWO_ROUTES, shut=SMS_DISABLED)
    assert Wait(after(60)) == decided([waiting], 4, shut=SMS_DISABLED)


def test_a_plan_is_resolved_without_shut_routes() -> None:
    plan = less(TWO_ROUTES, SMS_PAUSED)

    assert plan is not None
    assert [(OTHER,), (VOICE,)] == [step.routes for step in plan.steps]
    assert TWO_ROUTES is less(TWO_ROUTES, OPEN)
    assert less(TWO_ROUTES, ALL_DISABLED) is None


# Laws: whatever is stored, and whoever asks. Each question is made from one number: drawn part by
# part from Hypothesis a question costs fifty times as much, and these laws want many of them.

seeds = st.integers(0, 2**48)
MANY = settings(max_examples=500)

_STANDINGS = [
    (State.QUEUED, None),
    *((state, None) for state in State),
    *((state, outcome) for state in State for outcome in Outcome if state is not State.QUEUED),
]


def any_plan(luck: Random) -> Plan:
    """Up to four steps of up to three routes."""
    steps = []
    for at in range(luck.randint(1, 4)):
        routes = [
            make_route(
                f"route{at}{number}",
                confirms=frozenset(luck.sample(list(State), luck.randint(0, 6))),
                idempotent=luck.random() < 0.4,
                polls=luck.random() < 0.4,
            )
            for number in range(luck.randint(1, 3))
        ]
        steps.append(
            make_step(
                *routes,
                patience=luck.choice([5, 20, 60, 125, 600]),
                until=luck.choice(list(Until)),
                on_failed=luck.choice(list(OnFailed)),
                on_unknown=luck.choice(list(OnUnknown)),
            )
        )
    return make_plan(*steps)


def any_attempt(luck: Random, plan: Plan, ordinal: int, *, refused: bool) -> Attempt:
    """Anything a row can hold, whether or not it could have come about."""

    def moment() -> datetime:
        return after(luck.randint(-40, 2800) / 4)

    def maybe() -> datetime | None:
        return luck.choice([None, moment()])

    at = luck.randrange(len(plan.steps))
    state, outcome = luck.choice(_STANDINGS)
    if refused:
        state, outcome = State.FAILED, luck.choice(FAILING_OVER + FINAL)
    return make_attempt(
        ordinal=ordinal,
        step=at,
        resend=luck.randint(0, 2),
        cause=luck.choice(list(Cause)),
        route=luck.choice(plan.steps[at].routes).name,
        channel=plan.steps[at].channel,
        state=state,
        outcome=outcome,
        queued_at=moment(),
        overdue_at=moment(),
        sent_at=maybe(),
        polled_at=maybe(),
        retry_at=maybe(),
        claimed_until=None if refused else maybe(),
        tries=luck.randint(0, MAX_TRIES + 1),
    )


@dataclass(frozen=True)
class Question:
    """Everything `next_action` is asked with."""

    plan: Plan
    verification: Verification
    attempts: list[Attempt]
    now: datetime
    asked: Asked | None

    def answer(self) -> Action:
        return next_action(self.plan, self.verification, self.attempts, self.now, self.asked)

    def told(self, at: datetime) -> Story:
        return story(self.plan, self.verification, self.attempts, at)


def question(seed: int) -> Question:
    """Any question; one in three about refusals alone, one in three about an ended one."""
    luck = Random(seed)
    plan = any_plan(luck)
    kind = luck.randrange(3)
    verification = make_verification(
        step=luck.randrange(len(plan.steps)),
        status=Status.PENDING if kind else luck.choice(list(Status)),
        expires_at=after(luck.choice([60, 300, 600])),
    )
    attempts = [
        any_attempt(luck, plan, ordinal, refused=kind == 1)
        for ordinal in range(1, luck.randint(0, MAX_ATTEMPTS + 1) + 1)
    ]
    now = after(luck.randint(-8, 2480) / 4)
    return Question(plan, verification, attempts, now, luck.choice([None, None, *Asked]))


@MANY
@given(seeds)
def test_there_is_an_answer_to_every_question_and_it_may_be_acted_on(seed: int) -> None:
    """Total, and within its bounds: what each kind of answer promises."""
    asked = question(seed)
    verification, now = asked.verification, asked.now
    life = (verification.expires_at - now).total_seconds()
    over = verification.status_at(now) is not Status.PENDING
    match asked.answer():
        case Finish(status):
            assert (verification.status_at(now) if over else Status.FAILED) == status
            assert over or all(one.refused for one in asked.attempts)
        case Wait(until):
            assert not over
            assert now < until <= verification.expires_at
        case Poll(attempt_id, route):
            (polled,) = (one for one in asked.attempts if one.id == attempt_id)
            assert not over
            assert route.polls
            assert polled.polled_at is None
            assert polled.overdue_at <= now
        case Send(step, route, _, _, attempt_id):
            stored = [one for one in asked.attempts if one.id == attempt_id]
            assert not over
            assert life >= MIN_LIFE
            assert stored or len(asked.attempts) < MAX_ATTEMPTS
            assert step in {verification.step, verification.step + 1}
            assert route in asked.plan.steps[step].routes
            assert all((one.step, one.route) == (step, route.name) for one in stored)


@MANY
@given(seeds)
def test_what_is_told_stays_true_until_the_moment_it_names(seed: int) -> None:
    """At every moment at which something of it could turn, and just before the end."""
    asked = question(seed)
    told = asked.told(asked.now)
    latest = told.until or after(3000)
    moments = [asked.verification.expires_at, latest - timedelta(milliseconds=1)]
    for one in asked.attempts:
        turning = (one.overdue_at, one.retry_at, one.claimed_until, one.polled_at)
        moments += [moment for moment in turning if moment is not None]
    moments += [moment + timedelta(seconds=POLL_SECONDS) for moment in moments]

    assert all(told == asked.told(at) for at in moments if asked.now < at < latest)


@MANY
@given(seeds)
def test_an_attempt_is_never_submitted_while_somebody_holds_its_claim(seed: int) -> None:
    asked = question(seed)
    action = asked.answer()
    held = {one.id for one in asked.attempts if one.claimed(asked.now)}

    assert not isinstance(action, Send) or action.attempt_id not in held


@MANY
@given(seeds)
def test_a_shut_route_is_used_only_when_all_others_are_shut(seed: int) -> None:
    """A disabled one never; what is stored on a paused one already may go out on it."""
    asked = question(seed)
    names = [route.name for step in asked.plan.steps for route in step.routes]
    luck = Random(seed + 1)
    paused, disabled = (
        frozenset(luck.sample(names, luck.randint(0, len(names)))) for _ in range(2)
    )
    shut = Shut(paused, disabled)
    action = next_action(
        asked.plan, asked.verification, asked.attempts, asked.now, asked.asked, shut=shut
    )
    if isinstance(action, Send):
        others = {route.name for route in asked.plan.steps[action.step].routes} - disabled

        assert action.route.name in others
        assert action.attempt_id or action.route.name not in paused or others <= paused


@MANY
@given(seeds)
def test_what_left_us_is_submitted_again_only_under_its_own_key(seed: int) -> None:
    """F9."""
    asked = question(seed)
    action = asked.answer()
    named = action.attempt_id if isinstance(action, Send) else None
    left = [one for one in asked.attempts if one.id == named and not one.waiting]

    assert all(isinstance(action, Send) and action.route.idempotent for _ in left)


@MANY
@given(seeds)
def test_asking_for_more_never_ends_what_would_go_on(seed: int) -> None:
    asked = question(seed)
    unasked = replace(asked, asked=None)

    assert isinstance(unasked.answer(), Finish) or not isinstance(asked.answer(), Finish)


@MANY
@given(seeds)
def test_the_moment_to_look_again_agrees_with_what_is_next(seed: int) -> None:
    asked = replace(question(seed), asked=None)
    looked = wake_at(asked.plan, asked.verification, asked.attempts, asked.now)
    match asked.answer():
        case Wait(until):
            assert until == looked
        case Finish(status) if status is asked.verification.status:
            assert looked is None
        case _:
            assert asked.now == looked


# Laws: a whole life, with everything that may happen in it.

CLAIM = timedelta(seconds=15)


class Life:
    """A verification and its attempts, moved on as the services move them on."""

    def __init__(self, seed: int) -> None:
        self.luck = Random(seed)
        self.plan = any_plan(self.luck)
        self.now = START
        self.verification = make_verification(expires_at=after(self.luck.choice([60, 300, 600])))
        self.attempts: list[Attempt] = []
        self.turns = 0

    def live(self) -> Finish:
        """From accept to the end."""
        while True:
            self.turns += 1
            assert self.turns < 400, "it goes round in circles"
            action = next_action(self.plan, self.verification, self.attempts, self.now)
            match action:
                case Finish():
                    return action
                case Wait(until):
                    assert until > self.now
                    self.pass_time(until)
                case Poll(attempt_id):
                    self.change(attempt_id, polled_at=self.now)
                case Send():
                    self.send(action)

    def pass_time(self, until: datetime) -> None:
        """To that moment, or to something that happens before it."""
        self.now += (until - self.now) * self.luck.choice([1, 1, 0.5])
        happens = self.luck.choice(["", "", "receipt", "resend", "next"])
        if happens == "receipt" and self.attempts:
            heard = self.luck.choice(self.attempts)
            reported = self.luck.choice(list(State))
            self.change(heard.id, state=advance(heard.state, reported).after)
        if happens in {"resend", "next"}:
            asked = next_action(
                self.plan, self.verification, self.attempts, self.now, Asked(happens)
            )
            if isinstance(asked, Send):
                self.send(asked)

    def send(self, action: Send) -> None:
        """An attempt and what becomes of it: no slot, a crash, or one of the outcomes."""
        assert self.verification.expires_at - self.now >= timedelta(seconds=MIN_LIFE)
        attempt = next((one for one in self.attempts if one.id == action.attempt_id), None)
        if attempt is None:
            attempt = self.add(action)
        fate = self.luck.choice(["full", "crash", *Outcome])
        soon = self.now + timedelta(seconds=self.luck.choice([1, 4, 30]))
        if fate == "full":
            self.change(attempt.id, retry_at=soon)
            return
        tries = attempt.tries + 1
        if fate == "crash":
            self.change(attempt.id, claimed_until=self.now + CLAIM, retry_at=None, tries=tries)
            return
        outcome = Outcome(fate)
        again = attempt.outcome is Outcome.UNKNOWN
        state = State.FAILED if outcome.refused and not again else State.SENT
        self.change(
            attempt.id,
            state=advance(attempt.state, state).after,
            outcome=Outcome.UNKNOWN if again and outcome.refused else outcome,
            retry_at=soon,
            tries=tries,
        )

    def add(self, action: Send) -> Attempt:
        step = self.plan.steps[action.step]
        self.attempts = [
            one._replace(state=State.FAILED, outcome=Outcome.WITHDRAWN) if one.waiting else one
            for one in self.attempts
        ]
        self.attempts.append(
            waiting_attempt(
                ordinal=len(self.attempts) + 1,
                step=action.step,
                resend=action.resend,
                cause=action.cause,
                route=action.route.name,
                queued_at=self.now,
                overdue_at=self.now + timedelta(seconds=step.patience),
            )
        )
        self.verification = self.verification._replace(step=action.step)
        return self.attempts[-1]

    def change(self, named: object, **changes: Any) -> None:
        self.attempts = [
            lapse(one, self.now)._replace(**changes) if one.id == named else one
            for one in self.attempts
        ]

    def openings(self) -> list[list[Attempt]]:
        """The attempts of each patience: of one step, and one asking of the person."""
        grouped: dict[tuple[int, int], list[Attempt]] = {}
        for attempt in self.attempts:
            grouped.setdefault((attempt.step, attempt.resend), []).append(attempt)
        return list(grouped.values())


@MANY
@given(seeds)
def test_every_life_ends_in_time_and_within_its_bounds(seed: int) -> None:
    """Whatever providers, people and crashes do: it ends by its expiry, with at most so many
    attempts, its steps in order, and a step is repeated only as rules 5, 6 and 10 allow."""
    life = Life(seed)
    ended = life.live()
    steps = [attempt.step for attempt in life.attempts]

    assert life.now <= life.verification.expires_at
    assert ended.status in {Status.EXPIRED, Status.FAILED}
    assert len(life.attempts) <= MAX_ATTEMPTS
    assert sorted(steps) == steps
    for opening in life.openings():
        unknown = [one for one in opening if one.outcome is Outcome.UNKNOWN or one.claimed_until]
        more = [one for one in opening[1:] if one.cause not in {Cause.UNKNOWN, Cause.REFUSED}]
        assert [] == more
        assert len([one for one in opening if one.cause is Cause.UNKNOWN]) <= 1
        assert len(opening) <= 1 + len(life.plan.steps[opening[0].step].routes) + MAX_REPEATS
        assert len(unknown) <= 2


@given(
    st.lists(st.sampled_from([5, 20, 60]), min_size=1, max_size=6),
    st.sampled_from([Until.DELIVERED, Until.READ, Until.VERIFIED]),
    st.booleans(),
)
def test_silence_in_every_step_falls_back_through_all_of_them_in_order(
    patiences: list[int], until: Until, polls: bool
) -> None:
    """F8: a provider that takes a message and never calls back has failed."""
    plan = make_plan(
        *(
            make_step(make_route(f"r{at}", polls=polls), patience=patience, until=until)
            for at, patience in enumerate(patiences)
        )
    )
    verification, now = make_verification(expires_at=after(600)), START
    attempts: list[Attempt] = []
    while not isinstance(action := next_action(plan, verification, attempts, now), Finish):
        match action:
            case Wait(moment):
                now = moment
            case Poll(attempt_id):
                attempts = [
                    one._replace(polled_at=now) if one.id == attempt_id else one for one in attempts
                ]
            case Send(step, route):
                verification = verification._replace(step=step)
                overdue_at = now + timedelta(seconds=plan.steps[step].patience)
                attempts.append(
                    make_attempt(
                        step=step,
                        route=route.name,
                        queued_at=now,
                        overdue_at=overdue_at,
                        reference=f"reference {step}",
                    )
                )
    expected = [after(second) for second in starts(plan)]

    assert expected == [attempt.queued_at for attempt in attempts]
