"""The delivery machine: every pair, and the laws of merging (F3, F4)."""

import itertools

import pytest
from factories import after, make_attempt
from fakes import START
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.delivery import (
    AT_ACCOUNT,
    AT_OUTCOME,
    AT_STATE,
    AT_WORDS,
    BY_RANK,
    RANKS,
    Outcome,
    State,
    Transition,
    advance,
    best,
    redrafted,
)

QUEUED, SENT, ACK = State.QUEUED, State.SENT, State.ACK
FAILED, DELIVERED, READ = State.FAILED, State.DELIVERED, State.READ

# What is heard (columns) of an attempt in some state (rows), and what it is then. Written out by
# hand: a table computed from the ranks would agree with them whatever they were.
HEARD = (QUEUED, SENT, ACK, FAILED, DELIVERED, READ)
POLICY: dict[State, tuple[State, ...]] = {
    QUEUED: (QUEUED, SENT, ACK, FAILED, DELIVERED, READ),
    SENT: (SENT, SENT, ACK, FAILED, DELIVERED, READ),
    ACK: (ACK, ACK, ACK, FAILED, DELIVERED, READ),
    FAILED: (FAILED, FAILED, FAILED, FAILED, DELIVERED, READ),
    DELIVERED: (DELIVERED, DELIVERED, DELIVERED, DELIVERED, DELIVERED, READ),
    READ: (READ, READ, READ, READ, READ, READ),
}
PAIRS = [
    (current, reported, after)
    for current, row in POLICY.items()
    for reported, after in zip(HEARD, row, strict=True)
]

# Which states (rows) imply which (columns), by hand again.
IMPLIES: dict[State, set[State]] = {
    QUEUED: {QUEUED},
    SENT: {QUEUED, SENT},
    ACK: {QUEUED, SENT, ACK},
    FAILED: {FAILED},
    DELIVERED: {QUEUED, SENT, ACK, DELIVERED},
    READ: {QUEUED, SENT, ACK, DELIVERED, READ},
}

states = st.sampled_from(State)
reports = st.sampled_from([*State, None])


def merged(current: State, heard: list[State | None]) -> State:
    for reported in heard:
        current = advance(current, reported).after
    return current


def test_the_policy_covers_every_pair_of_states() -> None:
    assert set(itertools.product(State, State)) == {(current, heard) for current, heard, _ in PAIRS}


@pytest.mark.parametrize(("current", "reported", "expected"), PAIRS)
def test_a_statement_moves_a_state_as_the_policy_says(
    current: State, reported: State, expected: State
) -> None:
    moved = advance(current, reported)

    assert Transition(current, expected) == moved


@pytest.mark.parametrize("current", State)
def test_an_unknown_word_moves_nothing(current: State) -> None:
    assert Transition(current, current) == advance(current, None)


@pytest.mark.parametrize(("current", "reported", "expected"), PAIRS)
def test_a_transition_is_applied_when_it_moved_the_state(
    current: State, reported: State, expected: State
) -> None:
    moved = advance(current, reported)

    assert (current is not expected) == moved.applied


@given(states, states)
def test_merging_is_commutative(one: State, other: State) -> None:
    assert advance(one, other).after == advance(other, one).after


@given(states, reports, reports)
def test_merging_is_associative(current: State, one: State | None, other: State | None) -> None:
    in_turn = advance(advance(current, one).after, other).after
    together = other if one is None else advance(one, other).after

    assert in_turn == advance(current, together).after


@given(states, reports)
def test_merging_is_idempotent(current: State, reported: State | None) -> None:
    once = advance(current, reported).after

    assert Transition(once, once) == advance(once, reported)


@given(states, reports)
def test_a_stronger_state_is_never_left(current: State, reported: State | None) -> None:
    assert advance(current, reported).after.rank >= current.rank


@given(states, st.lists(reports, max_size=12), st.data())
def test_receipts_in_any_order_and_number_end_in_the_same_state(
    current: State, heard: list[State | None], data: st.DataObject
) -> None:
    """F3."""
    shuffled = data.draw(st.permutations(heard))
    repeated = data.draw(st.lists(st.sampled_from(heard), max_size=12)) if heard else []
    disordered = data.draw(st.permutations([*shuffled, *repeated]))

    assert merged(current, heard) == merged(current, disordered)


@pytest.mark.parametrize("late", [DELIVERED, READ])
def test_a_positive_receipt_after_a_failure_wins(late: State) -> None:
    """F4."""
    assert late == merged(QUEUED, [SENT, FAILED, late])


@pytest.mark.parametrize("strong", [DELIVERED, READ])
def test_a_failure_after_a_positive_receipt_is_not_believed(strong: State) -> None:
    """F4."""
    assert strong == merged(QUEUED, [SENT, strong, FAILED])


@pytest.mark.parametrize("state", State)
def test_the_rank_of_a_state_is_what_the_database_compares(state: State) -> None:
    assert state is BY_RANK[RANKS[state]]


@pytest.mark.parametrize(("state", "other"), list(itertools.product(State, State)))
def test_a_state_implies_those_it_passed_and_failure_only_itself(
    state: State, other: State
) -> None:
    assert (other in IMPLIES[state]) == state.reaches(other)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([], None),
        ([QUEUED], QUEUED),
        ([FAILED], FAILED),
        ([FAILED, FAILED], FAILED),
        ([FAILED, QUEUED], QUEUED),
        ([FAILED, SENT], SENT),
        ([SENT, FAILED, ACK], ACK),
        ([DELIVERED, FAILED], DELIVERED),
        ([DELIVERED, READ, SENT], READ),
    ],
)
def test_the_published_state_is_the_best_one_failures_left_out(
    attempts: list[State], expected: State | None
) -> None:
    assert expected == best(attempts)


@given(st.lists(states), st.data())
def test_the_published_state_does_not_depend_on_the_order(
    attempts: list[State], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(attempts))

    assert best(attempts) == best(shuffled)


@pytest.mark.parametrize(
    ("outcome", "refused"),
    [
        (Outcome.ACCEPTED, False),
        (Outcome.UNKNOWN, False),
        (Outcome.TEMPORARY, True),
        (Outcome.THROTTLED, True),
        (Outcome.ACCOUNT, True),
        (Outcome.PERMANENT, True),
        (Outcome.WITHDRAWN, True),
    ],
)
def test_a_refusal_was_surely_not_sent(outcome: Outcome, refused: bool) -> None:
    assert refused == outcome.refused


def test_the_table_of_refusals_names_every_outcome() -> None:
    assert 7 == len(Outcome)


def test_an_attempt_without_an_outcome_is_not_refused() -> None:
    assert make_attempt(outcome=None).refused is False


@pytest.mark.parametrize("state", [DELIVERED, READ])
def test_an_attempt_that_arrived_after_a_refusal_was_not_refused(state: State) -> None:
    """The provider said no and the handset said yes: the receipt is the truth (§2, F12)."""
    attempt = make_attempt(state=state, outcome=Outcome.TEMPORARY)

    assert attempt.refused is False


@pytest.mark.parametrize(
    ("state", "claimed", "expected"),
    [(QUEUED, False, True), (QUEUED, True, False), (SENT, False, False), (FAILED, False, False)],
)
def test_an_attempt_waits_while_it_is_stored_and_nobody_submits_it(
    state: State, claimed: bool, expected: bool
) -> None:
    attempt = make_attempt(state=state, claimed_until=START if claimed else None)

    assert expected == attempt.waiting


@pytest.mark.parametrize(("seconds", "expected"), [(-0.001, True), (0, False), (0.001, False)])
def test_a_claim_ends_at_its_moment(seconds: float, expected: bool) -> None:
    attempt = make_attempt(claimed_until=START)

    assert expected == attempt.claimed(after(seconds))


def test_an_attempt_nobody_claimed_is_not_claimed() -> None:
    assert make_attempt(claimed_until=None).claimed(START) is False


@pytest.mark.parametrize(
    ("words", "word", "expected"),
    [
        ("", "sent", False),
        ("sent", "sent", True),
        ("sent\ndelivered", "delivered", True),
        ("sent\ndelivered", "deliver", False),
        ("undelivered", "delivered", False),
    ],
)
def test_a_word_was_heard_when_it_is_among_the_words(words: str, word: str, expected: bool) -> None:
    assert expected == make_attempt(words=words).heard(word)


def test_a_draft_becomes_the_attempt_that_was_written_into_it() -> None:
    before = make_attempt(state=SENT)
    draft = list(before)
    draft[AT_STATE], draft[AT_OUTCOME], draft[AT_WORDS] = DELIVERED, Outcome.ACCEPTED, "there"

    after_it = redrafted(draft)

    expected = before._replace(state=DELIVERED, outcome=Outcome.ACCEPTED, words="there")
    assert (expected, SENT, before.account) == (after_it, before.state, draft[AT_ACCOUNT])
