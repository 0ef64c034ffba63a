"""What a caller is told: every fact once, in the order of its causes, and one ending."""

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from factories import after, make_attempt, refused_attempt, waiting_attempt
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import delivery
from gateway.domain.delivery import Attempt, Outcome, State
from gateway.domain.events import ENDINGS, NOTHING, Happened, Kind, Standing, happened
from gateway.domain.verification import Status

PENDING = Status.PENDING


def told(before: Standing, after: Standing) -> list[tuple[Kind, int | None]]:
    return [(one.kind, one.ordinal) for one in happened(before, after)]


def standing(*attempts: Attempt, status: Status = PENDING) -> Standing:
    return Standing(status, attempts)


def heard(attempt: Attempt, state: State) -> Attempt:
    """The attempt with a statement merged, as a case does it."""
    merged = delivery.advance(attempt.state, state).after
    sent = attempt.sent_at if merged in {State.QUEUED, State.FAILED} else after(1)
    return attempt._replace(state=merged, sent_at=attempt.sent_at or sent)


FIRST = waiting_attempt()


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.QUEUED, []),
        (State.SENT, [Kind.SENT]),
        (State.ACK, [Kind.SENT]),
        (State.FAILED, [Kind.ATTEMPT_FAILED]),
        (State.DELIVERED, [Kind.SENT, Kind.DELIVERED]),
        (State.READ, [Kind.SENT, Kind.DELIVERED, Kind.READ]),
    ],
)
def test_what_a_state_implies_is_told_with_it(state: State, expected: list[Kind]) -> None:
    """A receipt may overtake the answer to the call, and `read` the receipt of delivery."""
    found = told(standing(FIRST), standing(heard(FIRST, state)))

    assert [(kind, 1) for kind in expected] == found


def test_being_accepted_is_no_event() -> None:
    assert [] == told(NOTHING, standing(FIRST))


def test_a_second_attempt_that_arrives_too_is_not_told_again() -> None:
    first = make_attempt(state=State.DELIVERED)
    second = make_attempt(ordinal=2, step=1)

    assert [] == told(standing(first, second), standing(first, heard(second, State.DELIVERED)))


def test_a_later_step_is_a_fallback_told_after_its_cause() -> None:
    first = make_attempt()
    now = standing(heard(first, State.FAILED), waiting_attempt(ordinal=2, step=1))

    assert [(Kind.ATTEMPT_FAILED, 1), (Kind.FALLBACK, 2)] == told(standing(first), now)


def test_the_same_step_once_more_is_no_fallback() -> None:
    first = refused_attempt()

    assert [] == told(standing(first), standing(first, waiting_attempt(ordinal=2)))


def test_an_attempt_that_was_withdrawn_did_not_fail() -> None:
    withdrawn = refused_attempt(Outcome.WITHDRAWN, reason="withdrawn")

    assert [] == told(standing(FIRST), standing(withdrawn))


@pytest.mark.parametrize("status", [one for one in Status if one is not PENDING])
def test_every_end_is_told_by_its_own_name(status: Status) -> None:
    first = make_attempt()

    assert [(ENDINGS[status], None)] == told(standing(first), standing(first, status=status))


def test_the_proof_comes_before_the_end_that_it_proves() -> None:
    first = make_attempt()
    now = standing(heard(first, State.DELIVERED), status=Status.VERIFIED)

    assert [(Kind.DELIVERED, 1), (Kind.VERIFIED, None)] == told(standing(first), now)


def test_a_receipt_after_the_end_is_told_and_ends_nothing_again() -> None:
    first = make_attempt()
    over = standing(first, status=Status.EXPIRED)
    now = standing(heard(first, State.DELIVERED), status=Status.EXPIRED)

    assert [(Kind.DELIVERED, 1)] == told(over, now)


@st.composite
def histories(draw: Any) -> list[Standing]:
    """A verification as it goes on: receipts in any order, new attempts, an end."""
    attempts: list[Attempt] = [FIRST]
    status = PENDING
    history = [NOTHING, standing(FIRST)]
    for step in draw(st.lists(st.sampled_from(["hear", "next", "again", "end"]), max_size=12)):
        if step == "hear":
            at = draw(st.integers(0, len(attempts) - 1))
            attempts[at] = heard(attempts[at], draw(st.sampled_from(list(State))))
        elif step == "end" and status is PENDING:
            status = draw(st.sampled_from(list(ENDINGS)))
        elif step in {"next", "again"} and status is PENDING:
            later = attempts[-1].step + (step == "next")
            attempts.append(waiting_attempt(ordinal=len(attempts) + 1, step=later))
        history.append(Standing(status, tuple(attempts)))
    return history


def all_of(history: list[Standing]) -> list[Happened]:
    return [one for before, now in pairwise(history) for one in happened(before, now)]


@given(histories())
def test_f11_every_fact_is_told_once_and_there_is_at_most_one_end(history: list[Standing]) -> None:
    found = Counter(all_of(history))
    kinds = Counter(one.kind for one in all_of(history))

    assert set(found.values()) <= {1}
    assert sum(kinds[kind] for kind in ENDINGS.values()) == (history[-1].status is not PENDING)
    assert max(kinds[kind] for kind in (Kind.SENT, Kind.DELIVERED, Kind.READ)) <= 1


@given(histories())
def test_f11_what_is_repeated_brings_nothing(history: list[Standing]) -> None:
    assert [] == [one for now in history for one in happened(now, now)]


@given(histories())
def test_in_one_change_or_in_many_the_same_facts_are_told(history: list[Standing]) -> None:
    """But for an attempt that failed and then arrived after all."""
    at_once = set(happened(history[0], history[-1]))
    step_by_step = set(all_of(history))

    late = {one for one in step_by_step - at_once if one.kind is not Kind.ATTEMPT_FAILED}
    assert {one.kind for one in at_once} <= {one.kind for one in step_by_step}
    assert {one.kind for one in late} <= {one.kind for one in at_once}
