"""A verification: one request to prove control of a recipient. Its status and the checking of
codes.

PENDING runs; everything else is an end and never changes again. A code that left us verifies as
long as the verification is PENDING, whatever receipts say of its attempts: they are often wrong.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from gateway.domain.values import Draft, copied_often

CODE_LENGTHS = range(4, 11)
TTL_SECONDS = range(60, 601)
MIN_LIFE = 30  # seconds of life below which a code is no longer sent: nobody could type it in time
NEXT_PAUSE = 10  # seconds between two steps that were asked for
COOL_DOWN = 30  # seconds between two sends to one number that the person asked for
MAX_SENDS = 5  # sends a person may ask for within one verification
MAX_CHECKS = 5  # comparisons allowed; resend and fallback never refill them


class Status(StrEnum):
    """How a verification stands."""

    PENDING = "PENDING"
    VERIFIED = "VERIFIED"  # a correct code was submitted
    EXPIRED = "EXPIRED"  # its time ran out
    CANCELED = "CANCELED"  # the client stopped it
    LOCKED = "LOCKED"  # checks used up
    FAILED = "FAILED"  # every attempt was refused: no code is under way

    @property
    def number(self) -> int:
        """What the database stores."""
        return NUMBERS[self]


_PENDING = Status.PENDING  # asked for with every step; from its class it would cost five times that

NUMBERS: dict[Status, int] = {
    Status.PENDING: 0,
    Status.VERIFIED: 1,
    Status.EXPIRED: 2,
    Status.CANCELED: 3,
    Status.LOCKED: 4,
    Status.FAILED: 5,
}

BY_NUMBER: dict[int, Status] = {number: status for status, number in NUMBERS.items()}


@copied_often
class Verification(NamedTuple):
    """One verification as stored. Times are aware UTC.

    A tuple and no dataclass, as `Attempt` is: every step of every verification copies these two,
    and a tuple's `_replace` costs least.

    `step` is the one in force. `sends` counts what the person asked for, `sent_at` the last time.
    `log` is the length of its transition log, `events` counts what its client was told of it,
    `version` changes with every write. `trace` is the traceparent of its spans, where its caller
    sent one.
    `code_sealed` holds a caller's own code until the end; ours are derived from id and salt.
    `purpose` is the template's name and, where amount and payee are linked, `:` and their index.
    `params_sealed`: what the text is filled with, besides code and life (`domain.templates.Given`).
    """

    id: UUID
    client_id: UUID
    reference: str | None
    purpose: str
    recipient_index: bytes
    recipient_sealed: bytes | None
    code_sealed: bytes | None
    salt: bytes
    key_id: str
    code_length: int
    plan: bytes
    step: int
    status: Status
    checks_used: int
    checks_max: int
    sends_used: int
    sends_max: int
    created_at: datetime
    sent_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    wake_at: datetime | None
    version: int
    log: int
    locale: str | None = None
    params_sealed: bytes | None = None
    trace: str | None = None
    events: int = 0

    @property
    def template(self) -> str:
        """The name of the template: what its purpose begins with."""
        return self.purpose.partition(":")[0]

    @property
    def checks_left(self) -> int:
        return self.checks_max - self.checks_used

    @property
    def sends_left(self) -> int:
        return self.sends_max - self.sends_used

    def status_at(self, now: datetime) -> Status:
        """The status as of now: past its time it is EXPIRED, whether or not anybody wrote so."""
        status = self.status
        return Status.EXPIRED if status is _PENDING and now >= self.expires_at else status


@dataclass(frozen=True, slots=True)
class Matched:
    """The code was right; the verification as it is now."""

    verification: Verification


@dataclass(frozen=True, slots=True)
class Wrong:
    """The code was wrong and counted; the verification as it is now, perhaps LOCKED."""

    verification: Verification


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing was compared: the verification is not running any more."""

    status: Status


def check(
    verification: Verification, submitted: str, expected: str, now: datetime
) -> Matched | Wrong | Over:
    """Count one check, compare in constant time, and consume or lock.

    The caller learns the result only once the count is committed: a check that was rolled back
    told nothing.
    """
    status = verification.status_at(now)
    if status is not Status.PENDING:
        return Over(status)
    counted = verification._replace(checks_used=verification.checks_used + 1)
    if hmac.compare_digest(submitted.encode(), expected.encode()):
        return Matched(end(counted, Status.VERIFIED, now))
    return Wrong(end(counted, Status.LOCKED, now) if counted.checks_left == 0 else counted)


def end(verification: Verification, status: Status, now: datetime) -> Verification:
    """The verification ended: nothing is due any more, and a caller's own code is forgotten."""
    return verification._replace(status=status, ended_at=now, wake_at=None, code_sealed=None)


# The places of a draft, `list(verification)`.
_at = Verification._fields.index
AT_STATUS, AT_WAKE, AT_LOG, AT_TRACE = _at("status"), _at("wake_at"), _at("log"), _at("trace")


def redrafted(draft: Draft) -> Verification:
    """The verification that a draft has become."""
    return tuple.__new__(Verification, draft)
