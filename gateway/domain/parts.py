"""A message that goes out in parts, each with an id and receipts of its own (F37).

It is delivered when all of its parts are, whatever the order in which that is told, and failed when
one of them is; a part that is reported failed and delivered after all counts as delivered, like any
attempt. What was said of a part is remembered as one of the attempt's words, so that the words are
all there is to know.
"""

from typing import NamedTuple

from gateway.domain.delivery import State


class Part(NamedTuple):
    """Which part of how many; they are counted from 1."""

    number: int
    of: int

    def word(self, state: State | None, word: str) -> str:
        """A statement about this part as the attempt's log has it."""
        return f"{self._label(self.number)} {state or '-'} {word}"

    def whole(self, state: State | None, words: str) -> State | None:
        """What it says of the whole message, after the attempt's `words` so far."""
        if state is None or not state.reaches(State.DELIVERED):
            return state
        arrived = {self._label(self.number)}
        for word in words.split("\n"):
            label, _, said = word.partition(" ")
            if said.startswith(f"{State.DELIVERED} "):
                arrived.add(label)
        all_of_them = {self._label(number) for number in range(1, self.of + 1)}
        return State.DELIVERED if all_of_them <= arrived else State.ACK

    def _label(self, number: int) -> str:
        return f"{number}/{self.of}"
