"""The delivery machine: the states of an attempt, and how statements about it merge.

Providers promise nothing about their receipts. They come twice, late, out of order, before the
answer to the send call, and in contradiction with each other. So an attempt does not walk a graph
of legal moves, in which an early receipt would be an error: its state is the *maximum* over
everything that was ever said of it. A maximum is commutative, associative and idempotent, hence
any order and any number of repetitions of the same receipts ends in the same state, on one node
or on ten.

The order of the ranks is the theory:

* SENT is the line between us and the provider: it took the message, or we cannot tell whether it
  did.
* ACK is the line between the provider and the world: a carrier or channel has it. A provider's
  own "accepted", "queued" or "sending" is still SENT; "sent to the carrier", "submitted" is ACK.
* FAILED outranks both, for it ends their hope, and yields to DELIVERED and READ: carriers report
  failures that turn out wrong, never a delivery that did not take place.
* READ implies DELIVERED.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How far one attempt has come."""

    QUEUED = "QUEUED"
    SENT = "SENT"
    ACK = "ACK"
    FAILED = "FAILED"
    DELIVERED = "DELIVERED"
    READ = "READ"

    @property
    def rank(self) -> int:
        """The place in the order; what the database stores and compares."""
        return RANKS[self]

    def reaches(self, other: "State") -> bool:
        """Whether this state implies `other`. FAILED implies nothing but itself."""
        if self is State.FAILED or other is State.FAILED:
            return self is other
        return RANKS[self] >= RANKS[other]


RANKS: dict[State, int] = {
    State.QUEUED: 0,  # stored, not handed over yet
    State.SENT: 10,  # handed to the provider: it accepted, or the outcome of the call is unknown
    State.ACK: 20,  # a carrier or channel says it is on its way
    State.FAILED: 25,  # refused, or provider or network says it will not arrive
    State.DELIVERED: 30,  # handset, mailbox or answered call
    State.READ: 40,  # opened
}

BY_RANK: dict[int, State] = {rank: state for state, rank in RANKS.items()}


@dataclass(frozen=True, slots=True)
class Transition:
    """What a statement did to an attempt: `applied` is false when it moved nothing."""

    before: State
    after: State

    @property
    def applied(self) -> bool:
        return self.after is not self.before


def advance(current: State, reported: State | None) -> Transition:
    """Merge one statement into a state. `None`: a word we do not know, which moves nothing."""
    if reported is None or RANKS[reported] <= RANKS[current]:
        return Transition(current, current)
    return Transition(current, reported)


def best(states: Iterable[State]) -> State | None:
    """The published delivery status of a verification: its best attempt, FAILED ones left out.

    FAILED when there are only failed ones, None when there is no attempt at all.
    """
    seen = list(states)
    alive = [state for state in seen if state is not State.FAILED]
    if alive:
        return max(alive, key=RANKS.__getitem__)
    return State.FAILED if seen else None
