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
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Self
from uuid import UUID

from gateway.domain.values import Draft, copied_often


class State(StrEnum):
    """How far one attempt has come, with its `rank`: what the database stores and compares."""

    rank: int

    QUEUED = "QUEUED", 0  # stored, not handed over yet
    SENT = "SENT", 10  # handed to the provider: it accepted, or the call's outcome is unknown
    ACK = "ACK", 20  # a carrier or channel says it is on its way
    FAILED = "FAILED", 25  # refused, or provider or network says it will not arrive
    DELIVERED = "DELIVERED", 30  # handset, mailbox or answered call
    READ = "READ", 40  # opened

    def __new__(cls, word: str, rank: int = 0) -> Self:
        member = str.__new__(cls, word)
        member._value_ = word
        member.rank = rank
        return member

    def reaches(self, other: "State") -> bool:
        """Whether this state implies `other`. FAILED implies nothing but itself."""
        return self in IMPLYING[other]


# The states that imply each state. A look into such a set costs a tenth of comparing ranks, and is
# asked for every attempt at every step.
IMPLYING: dict[State, frozenset[State]] = {
    State.FAILED: frozenset({State.FAILED}),
    **{
        other: frozenset(one for one in State if one.rank >= other.rank and one is not State.FAILED)
        for other in State
        if other is not State.FAILED
    },
}
ARRIVED = IMPLYING[State.DELIVERED]
_ABOVE: dict[State, frozenset[State]] = {  # the states that outrank each state
    state: frozenset(one for one in State if one.rank > state.rank) for state in State
}
_QUEUED, _FAILED = State.QUEUED, State.FAILED  # read from its class, each costs five times that

RANKS: dict[State, int] = {state: state.rank for state in State}

BY_RANK: dict[int, State] = {rank: state for state, rank in RANKS.items()}


class Transition(NamedTuple):
    """What a statement did to an attempt: `applied` is false when it moved nothing."""

    before: State
    after: State

    @property
    def applied(self) -> bool:
        return self.after is not self.before


def advance(current: State, reported: State | None) -> Transition:
    """Merge one statement into a state. `None`: a word we do not know, which moves nothing."""
    return Transition(current, merged(current, reported))


def merged(current: State, reported: State | None) -> State:
    """The state after a statement, as in `advance`: the very one it was where nothing moves."""
    return current if reported is None or reported not in _ABOVE[current] else reported


def _rank(state: State) -> int:
    return state.rank


def best(states: Iterable[State]) -> State | None:
    """The published delivery status of a verification: its best attempt, FAILED ones left out.

    FAILED when there are only failed ones, None when there is no attempt at all.
    """
    seen = list(states)
    alive = [state for state in seen if state is not _FAILED]
    if alive:
        return max(alive, key=_rank)
    return _FAILED if seen else None


class Outcome(StrEnum):
    """What became of handing an attempt over. The last five are refusals: surely not sent."""

    ACCEPTED = "accepted"
    UNKNOWN = "unknown"  # cannot be told; the attempt counts as SENT
    TEMPORARY = "temporary"
    THROTTLED = "throttled"
    ACCOUNT = "account"
    PERMANENT = "permanent"
    WITHDRAWN = "withdrawn"  # we thought better of it before a byte was written

    @property
    def refused(self) -> bool:
        return self in REFUSALS


REFUSALS = frozenset(Outcome) - {Outcome.ACCEPTED, Outcome.UNKNOWN}


class Cause(StrEnum):
    """Why an attempt was made; support staff read it in the timeline."""

    FIRST = "first"  # the request itself
    SILENCE = "silence"  # the step before brought no receipt in its patience
    FAILED = "failed"  # the step before was reported failed
    REFUSED = "refused"  # the attempt before was refused by its provider
    UNKNOWN = "unknown"  # nobody knows whether the attempt before was sent
    RESEND = "resend"  # the person asked again
    NEXT = "next"  # client or operator asked for the next step


@copied_often
class Attempt(NamedTuple):
    """One handover of one message to one provider for one step. Times are aware UTC.

    `resend` counts how often the person had asked again when it was made. `overdue_at` ends its
    patience. `retry_at` is the earliest moment of its next submission, or of the one after its
    refusal. While `claimed_until` lies ahead somebody is handing it over: a claim. `tries` counts
    the claims ever given; a claim is known by its number, and an older one may not release, extend
    or submit. `words` are the vendor's distinct words so far, `repeats` counts those heard again.
    """

    id: UUID
    verification_id: UUID
    ordinal: int
    step: int
    resend: int
    cause: Cause
    account: str
    route: str
    channel: str
    state: State
    outcome: Outcome | None
    reference: str | None
    reason: str | None
    error: str | None
    queued_at: datetime
    overdue_at: datetime
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    read_at: datetime | None = None
    polled_at: datetime | None = None
    retry_at: datetime | None = None
    claimed_until: datetime | None = None
    tries: int = 0
    words: str = ""
    repeats: int = 0
    cost: str | None = None

    @property
    def refused(self) -> bool:
        """Surely never sent. A receipt of delivery proves a refusal wrong."""
        return self.outcome in REFUSALS and self.state not in ARRIVED

    @property
    def waiting(self) -> bool:
        """Stored and surely not handed over yet: no slot was free."""
        return self.claimed_until is None and self.state is _QUEUED

    def claimed(self, now: datetime) -> bool:
        """Whether somebody holds the right to submit it."""
        return self.claimed_until is not None and now < self.claimed_until

    def heard(self, word: str) -> bool:
        """Whether the vendor has said this word of it before."""
        return word in self.words.split("\n")


# The places of a draft, `list(attempt)`: what is heard of it is written there.
_at = Attempt._fields.index
AT_ID, AT_VERIFICATION, AT_ORDINAL = _at("id"), _at("verification_id"), _at("ordinal")
AT_STEP, AT_CAUSE = _at("step"), _at("cause")
AT_ACCOUNT, AT_ROUTE, AT_CHANNEL = _at("account"), _at("route"), _at("channel")
AT_STATE, AT_OUTCOME, AT_REFERENCE = _at("state"), _at("outcome"), _at("reference")
AT_REASON, AT_ERROR = _at("reason"), _at("error")
AT_QUEUED, AT_SENT = _at("queued_at"), _at("sent_at")
AT_DELIVERED, AT_READ = _at("delivered_at"), _at("read_at")
AT_RETRY, AT_CLAIMED, AT_TRIES = _at("retry_at"), _at("claimed_until"), _at("tries")
AT_WORDS, AT_COST = _at("words"), _at("cost")


def redrafted(draft: Draft) -> Attempt:
    """The attempt that a draft has become."""
    return tuple.__new__(Attempt, draft)
