"""Cool-down, sends and the failure budget, at their boundaries (F25)."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from factories import TTL, after, by_ordinal, make_attempt, make_verification, refused_attempt

from gateway.domain import limits, policy
from gateway.domain.delivery import Attempt, Cause, State
from gateway.domain.errors import Limited
from gateway.domain.limits import FAILURE_BUDGET, FAILURE_WINDOW, Counter
from gateway.domain.verification import COOL_DOWN, MAX_SENDS, NEXT_PAUSE

KEY = b"failures:client:number"
WINDOW = FAILURE_WINDOW.total_seconds()


def told(moment: datetime) -> str:
    """As the API spells it."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"


def refusal_of_resend(seconds: float, **changes: object) -> Limited:
    with pytest.raises(Limited) as refused:
        limits.resend(make_verification(**changes), after(seconds))
    return refused.value


def refusal_of_check(counter: Counter, seconds: float) -> Limited:
    with pytest.raises(Limited) as refused:
        limits.failures(counter, after(seconds))
    return refused.value


# Resends.


@pytest.mark.parametrize("seconds", [0, 1, COOL_DOWN - 0.001])
def test_a_person_who_asks_again_too_soon_is_told_to_wait(seconds: float) -> None:
    assert "cool_down" == refusal_of_resend(seconds).code


@pytest.mark.parametrize("seconds", [COOL_DOWN, COOL_DOWN + 0.001, TTL - 1])
def test_a_person_may_ask_again_after_the_cool_down(seconds: float) -> None:
    limits.resend(make_verification(), after(seconds))


def test_the_cool_down_runs_from_the_last_send() -> None:
    error = refusal_of_resend(100, sent_at=after(80), sends_used=2)

    assert COOL_DOWN - 20 == error.retry_after


def test_the_cool_down_says_when_in_words_rounded_up() -> None:
    error = refusal_of_resend(9.5)

    assert "A code is on its way to this number. Ask again in 21 s." == error.detail


def test_the_cool_down_names_its_rule_and_window() -> None:
    expected = {
        "rule": "cool_down",
        "limit": 1,
        "window": COOL_DOWN,
        "remaining": 0,
        "reset": told(after(COOL_DOWN)),
    }

    assert expected == refusal_of_resend(1).facts


def test_the_last_send_of_a_verification_is_allowed() -> None:
    limits.resend(make_verification(sends_used=MAX_SENDS - 1), after(40))


def test_there_is_no_send_after_the_last() -> None:
    assert "sends_used_up" == refusal_of_resend(40, sends_used=MAX_SENDS).code


def test_used_up_sends_come_back_with_the_next_verification() -> None:
    error = refusal_of_resend(40, sends_used=MAX_SENDS)

    assert TTL - 40 == error.retry_after


def test_used_up_sends_name_their_rule_and_limit() -> None:
    error = refusal_of_resend(40, sends_used=MAX_SENDS)

    expected = {
        "rule": "sends",
        "limit": MAX_SENDS,
        "window": TTL,
        "remaining": 0,
        "reset": told(after(TTL)),
    }

    assert expected == error.facts


def test_the_cool_down_is_told_before_the_used_up_sends() -> None:
    assert "cool_down" == refusal_of_resend(1, sends_used=MAX_SENDS).code


# The failure budget: per client and number, across verifications.


def test_without_a_wrong_check_there_is_nothing_to_refuse() -> None:
    limits.failures(None, after(0))


def test_the_first_wrong_check_opens_a_window() -> None:
    assert Counter(KEY, after(3), 1) == limits.count_failure(None, KEY, after(3))


def test_a_wrong_check_within_the_window_is_added() -> None:
    counter = Counter(KEY, after(0), 4)

    assert Counter(KEY, after(0), 5) == limits.count_failure(counter, KEY, after(WINDOW - 0.001))


def test_a_wrong_check_after_the_window_opens_another() -> None:
    counter = Counter(KEY, after(0), 4)

    assert Counter(KEY, after(WINDOW), 1) == limits.count_failure(counter, KEY, after(WINDOW))


def test_a_budget_of_wrong_checks_allows_exactly_so_many() -> None:
    counter = None
    for second in range(FAILURE_BUDGET):
        limits.failures(counter, after(second))
        counter = limits.count_failure(counter, KEY, after(second))
    assert counter is not None

    assert "failure_budget_used_up" == refusal_of_check(counter, FAILURE_BUDGET).code


def test_a_used_up_budget_comes_back_with_the_end_of_the_window() -> None:
    error = refusal_of_check(Counter(KEY, after(0), FAILURE_BUDGET), 600)

    assert WINDOW - 600 == error.retry_after


def test_a_used_up_budget_says_when_in_words_rounded_up() -> None:
    error = refusal_of_check(Counter(KEY, after(0), FAILURE_BUDGET), WINDOW - 0.5)

    assert "Too many wrong codes for this number. Try again in 1 s." == error.detail


def test_a_used_up_budget_names_rule_limit_and_window() -> None:
    error = refusal_of_check(Counter(KEY, after(0), FAILURE_BUDGET), 1)
    expected = {"rule": "failures", "limit": FAILURE_BUDGET, "window": 3600, "remaining": 0}

    assert expected | {"reset": told(after(WINDOW))} == error.facts


@pytest.mark.parametrize(("seconds", "refused"), [(WINDOW - 0.001, True), (WINDOW, False)])
def test_the_window_ends_at_its_moment(seconds: float, refused: bool) -> None:
    counter = Counter(KEY, after(0), FAILURE_BUDGET)

    assert refused == (limits.within(counter, FAILURE_WINDOW, after(seconds)) is not None)


def test_a_budget_used_up_in_an_older_window_refuses_nothing() -> None:
    limits.failures(Counter(KEY, after(0), FAILURE_BUDGET), after(WINDOW))


def test_the_window_does_not_slide_with_every_wrong_check() -> None:
    """Else one wrong code an hour would keep a number shut for ever."""
    counter = None
    for minute in range(0, 60, 5):
        counter = limits.count_failure(counter, KEY, after(60 * minute))

    assert counter is not None
    assert after(0) + timedelta(hours=1) == counter.since + FAILURE_WINDOW


def test_a_limit_is_worth_trying_again() -> None:
    assert Limited.retryable


# Steps that were asked for.


def test_a_step_asked_for_twice_at_once_is_refused_with_when_it_may_be() -> None:
    attempts = by_ordinal([make_attempt(), make_attempt(step=1, cause=Cause.NEXT)])
    with pytest.raises(Limited) as refused:
        limits.next_step(attempts, after(NEXT_PAUSE - 0.5))

    assert ("cool_down", 0.5) == (refused.value.code, refused.value.retry_after)


@pytest.mark.parametrize(
    ("last", "seconds"),
    [
        (make_attempt(step=1, cause=Cause.NEXT), NEXT_PAUSE),
        (make_attempt(step=1, cause=Cause.SILENCE), 0),
        (make_attempt(step=1, cause=Cause.NEXT, state=State.FAILED, reason="r"), 0),
        (refused_attempt(step=1, cause=Cause.NEXT), 0),
    ],
    ids=["later", "not asked for", "failed", "refused"],
)
def test_a_next_step_may_be_asked_for(last: Attempt, seconds: float) -> None:
    limits.next_step(by_ordinal([make_attempt(), last]), after(seconds))


def test_the_counters_of_a_client_and_a_number_are_found_together_and_alone() -> None:
    client, index = UUID(int=7), b"recipient-index!"
    both = policy.failures_key(client, index), policy.cool_key(client, index, "login")

    assert both == policy.own_keys(client, index, "login")
    assert (both[0],) == policy.failures_keys(client, [index])
