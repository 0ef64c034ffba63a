"""May this be sent or checked now? Counts in, answer out; who counts is the ledger."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.domain.errors import Limited
from gateway.domain.verification import COOL_DOWN, Verification

FAILURE_BUDGET = 15  # wrong checks per client and number, over all verifications…
FAILURE_WINDOW = timedelta(hours=1)  # …within this time


@dataclass(frozen=True, slots=True)
class Counter:
    """How often something happened in a window that began at `since`."""

    key: bytes
    since: datetime
    count: int


def resend(verification: Verification, now: datetime) -> None:
    """Raise Limited when the person asks again too soon or too often."""
    left = COOL_DOWN - (now - verification.sent_at).total_seconds()
    if left > 0:
        raise Limited(
            "cool_down",
            f"A code is on its way to this number. Ask again in {math.ceil(left)} s.",
            retry_after=left,
            facts={"rule": "cool_down", "window": COOL_DOWN},
        )
    if verification.sends_left <= 0:
        raise Limited(
            "sends_used_up",
            f"This verification has used its {verification.sends_max} sends; the codes sent stay "
            "valid until it expires.",
            retry_after=(verification.expires_at - now).total_seconds(),
            facts={"rule": "sends", "limit": verification.sends_max, "remaining": 0},
        )


def failures(counter: Counter | None, now: datetime) -> None:
    """Raise Limited when the wrong checks of this client and number have used up their budget."""
    current = within(counter, now)
    if current is None or current.count < FAILURE_BUDGET:
        return
    reset = (current.since + FAILURE_WINDOW - now).total_seconds()
    raise Limited(
        "failure_budget_used_up",
        f"Too many wrong codes for this number. Try again in {math.ceil(reset)} s.",
        retry_after=reset,
        facts={
            "rule": "failures",
            "limit": FAILURE_BUDGET,
            "window": int(FAILURE_WINDOW.total_seconds()),
            "remaining": 0,
        },
    )


def count_failure(counter: Counter | None, key: bytes, now: datetime) -> Counter:
    """One more wrong check; a new window when the old one is over."""
    current = within(counter, now)
    if current is None:
        return Counter(key, now, 1)
    return Counter(key, current.since, current.count + 1)


def within(counter: Counter | None, now: datetime) -> Counter | None:
    """The counter while its window lasts."""
    if counter is None or now >= counter.since + FAILURE_WINDOW:
        return None
    return counter
