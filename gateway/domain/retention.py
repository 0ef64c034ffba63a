"""How long things are kept: by settings and `now`, which rows are past their time.

Ids are time-ordered (UUIDv7), so an age is a place in the order of the ids, and no index is needed
to find what is old. Ages count from the longest life a code can have: whatever is that old is over,
whether or not anybody was there to write so.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.domain.verification import TTL_SECONDS, Status, Verification

LEAST_DAYS = 7  # providers send receipts so late
LONGEST_LIFE = timedelta(seconds=TTL_SECONDS[-1])


@dataclass(frozen=True, slots=True)
class Retention:
    """Days that things are kept: whole verifications, and the addresses and parameters in them;
    with 0 `recipients`, these are erased when the verification ends."""

    verifications: int = 30
    recipients: int = 30


def over_before(kept: Retention, now: datetime) -> datetime:
    """Verifications made before this moment are to be deleted."""
    return now - timedelta(days=max(kept.verifications, LEAST_DAYS)) - LONGEST_LIFE


def nameless_before(kept: Retention, now: datetime) -> datetime:
    """Verifications made before this moment are to hold no address."""
    return now - timedelta(days=kept.recipients) - LONGEST_LIFE


def over(kept: Retention, current: Verification, now: datetime) -> bool:
    """Whether it is to be deleted. One that runs never is."""
    return current.created_at < over_before(kept, now) and not running(current, now)


def nameless(kept: Retention, current: Verification, now: datetime) -> bool:
    """Whether its addresses are to be erased. Those of one that runs never are."""
    return current.created_at < nameless_before(kept, now) and not running(current, now)


def running(current: Verification, now: datetime) -> bool:
    """Whether its code can still be typed."""
    return current.status_at(now) is Status.PENDING


def erased(current: Verification) -> Verification:
    """Without addresses, parameters and the caller's own code; the rest is as it was."""
    return current._replace(recipient_sealed=None, params_sealed=None, code_sealed=None)
