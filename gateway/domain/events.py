"""What a caller is told: the events of a verification, from how it was and how it is.

Every event is a fact that becomes true once and stays true, so that a repeated, late or reordered
receipt brings none again: a verification was handed over, arrived, was opened, fell back so often,
an attempt failed, it ended. Facts, not messages: what became true in one change is told together,
causes before what they caused.

An ending is the last word about the code, not about the messages: receipts that come after it may
still tell that one arrived.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from gateway.domain.delivery import Attempt, Outcome, State
from gateway.domain.verification import Status


class Kind(StrEnum):
    """What happened."""

    SENT = "verification.sent"  # a provider has it, or may have it
    DELIVERED = "verification.delivered"
    READ = "verification.read"
    ATTEMPT_FAILED = "attempt.failed"  # refused, or reported as failed
    FALLBACK = "verification.fallback"  # the next step began
    VERIFIED = "verification.verified"
    EXPIRED = "verification.expired"
    CANCELED = "verification.canceled"
    LOCKED = "verification.locked"  # checks used up
    FAILED = "verification.failed"  # every attempt was refused


KINDS: tuple[Kind, ...] = tuple(Kind)

ENDINGS: dict[Status, Kind] = {
    Status.VERIFIED: Kind.VERIFIED,
    Status.EXPIRED: Kind.EXPIRED,
    Status.CANCELED: Kind.CANCELED,
    Status.LOCKED: Kind.LOCKED,
    Status.FAILED: Kind.FAILED,
}


class Awaited(StrEnum):
    """What a caller may wait for."""

    SENT = "sent"
    ACK = "ack"
    DELIVERED = "delivered"
    READ = "read"
    ENDED = "ended"


_STATES = {
    Awaited.SENT: State.SENT,
    Awaited.ACK: State.ACK,
    Awaited.DELIVERED: State.DELIVERED,
    Awaited.READ: State.READ,
}


def reached(awaited: Awaited, status: Status, attempts: Sequence[Attempt]) -> bool:
    """Whether there is nothing left to wait for: an attempt has come so far, or it is over."""
    if status is not Status.PENDING:
        return True
    wanted = _STATES.get(awaited)
    return wanted is not None and any(one.state.reaches(wanted) for one in attempts)


class Standing(NamedTuple):
    """How a verification stands: its status, and its attempts by ordinal."""

    status: Status
    attempts: Sequence[Attempt]


NOTHING = Standing(Status.PENDING, ())  # before it was accepted


class Happened(NamedTuple):
    """One event; `ordinal` is that of the attempt it is about, None where it is about none."""

    kind: Kind
    ordinal: int | None = None


def happened(before: Standing, after: Standing) -> list[Happened]:
    """What became true between the two, in the order in which it is told."""
    told = [*_arrivals(before.attempts, after.attempts)]
    told += _failures(before.attempts, after.attempts)
    told += _fallbacks(before.attempts, after.attempts)
    if before.status is Status.PENDING and after.status is not Status.PENDING:
        told.append(Happened(ENDINGS[after.status]))
    return told


def _arrivals(before: Sequence[Attempt], after: Sequence[Attempt]) -> Iterator[Happened]:
    """How far the best attempt has come, for the first time."""
    for kind, fact in (
        (Kind.SENT, _was_sent),
        (Kind.DELIVERED, _was_delivered),
        (Kind.READ, _was_read),
    ):
        if not any(fact(one) for one in before):
            first = next((one for one in after if fact(one)), None)
            if first is not None:
                yield Happened(kind, first.ordinal)


def _was_sent(attempt: Attempt) -> bool:
    return attempt.sent_at is not None


def _was_delivered(attempt: Attempt) -> bool:
    return attempt.state.reaches(State.DELIVERED)


def _was_read(attempt: Attempt) -> bool:
    return attempt.state is State.READ


def _failures(before: Sequence[Attempt], after: Sequence[Attempt]) -> Iterator[Happened]:
    """Attempts that failed now. One that was withdrawn before it was sent is none."""
    for at, attempt in enumerate(after):
        failed = attempt.state is State.FAILED and attempt.outcome is not Outcome.WITHDRAWN
        if failed and (at >= len(before) or before[at].state is not State.FAILED):
            yield Happened(Kind.ATTEMPT_FAILED, attempt.ordinal)


def _fallbacks(before: Sequence[Attempt], after: Sequence[Attempt]) -> Iterator[Happened]:
    """New attempts of a later step than the one before them."""
    for at in range(max(1, len(before)), len(after)):
        if after[at].step > after[at - 1].step:
            yield Happened(Kind.FALLBACK, after[at].ordinal)
