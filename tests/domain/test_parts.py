"""A message in parts: what is said of each, in whatever order, and what that says of the whole."""

from collections.abc import Sequence
from itertools import permutations

import pytest

from gateway.domain import delivery
from gateway.domain.delivery import State
from gateway.domain.parts import Part

Said = tuple[int, State | None]


def told(said: Sequence[Said], of: int = 3) -> State:
    """What an attempt has come to after these statements about its parts."""
    state, words = State.SENT, ""
    for number, stated in said:
        part = Part(number, of)
        state = delivery.advance(state, part.whole(stated, words)).after
        words = "\n".join(filter(None, [words, part.word(stated, "WORD")]))
    return state


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([(1, State.DELIVERED), (2, State.DELIVERED), (3, State.DELIVERED)], State.DELIVERED),
        ([(1, State.DELIVERED), (2, State.DELIVERED), (3, State.ACK)], State.ACK),
        ([(1, State.DELIVERED), (2, State.DELIVERED), (3, None)], State.ACK),
        ([(1, State.DELIVERED), (1, State.DELIVERED), (2, State.DELIVERED)], State.ACK),
        ([(1, State.DELIVERED), (2, State.FAILED), (3, State.DELIVERED)], State.FAILED),
        ([(1, None), (2, None), (3, None)], State.SENT),
        (  # reported failed, and delivered after all
            [(1, State.DELIVERED), (2, State.FAILED), (2, State.DELIVERED), (3, State.DELIVERED)],
            State.DELIVERED,
        ),
    ],
)
def test_the_whole_is_the_same_in_every_order(said: Sequence[Said], expected: State) -> None:
    assert {expected} == {told(order) for order in permutations(said)}


def test_ten_parts_and_one_are_not_taken_for_each_other() -> None:
    said = [(number, State.DELIVERED) for number in range(2, 13)]

    assert State.ACK == told(said, 12)
    assert State.DELIVERED == told([*said, (1, State.DELIVERED)], 12)


def test_a_vendors_word_cannot_speak_for_another_part() -> None:
    forged = Part(1, 2).word(State.ACK, "2/2 DELIVERED WORD")

    assert State.ACK == Part(1, 2).whole(State.DELIVERED, forged)
