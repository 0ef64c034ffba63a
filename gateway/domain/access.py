"""Who may do what at the console, how long a login holds, how often one may be tried."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from gateway.domain.errors import Limited
from gateway.domain.limits import Counter

IDLE = timedelta(minutes=30)  # without a request a session ends…
LONGEST = timedelta(hours=12)  # …and after this in any case
PROOF = timedelta(minutes=5)  # how long a password just typed serves for dangerous acts
SEEN_EVERY = timedelta(minutes=1)  # a session's last request is written down no more often

TRIES = 5  # failed logins of one name…
TRIES_FROM = 30  # …or from one address…
WINDOW = timedelta(minutes=15)  # …within this time

SHORTEST = 15  # characters; NIST SP 800-63B-4 §3.1.1.2, where a password may stand alone
MOST = 200  # characters that are hashed


class Right(StrEnum):
    """What a page or an act needs."""

    LOOK = "look"  # search and read, numbers masked
    REVEAL = "reveal"  # see one number in full
    ACT = "act"  # send the next step, resend, cancel
    MANAGE = "manage"  # clients and their keys
    AUDIT = "audit"  # read and export what everybody did


class Role(StrEnum):
    """What an operator is."""

    VIEWER = "viewer"
    SUPPORT = "support"
    ADMIN = "admin"

    def may(self, right: Right) -> bool:
        """Whether the role has that right."""
        return right in _RIGHTS[self]


_RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.VIEWER: frozenset({Right.LOOK}),
    Role.SUPPORT: frozenset({Right.LOOK, Right.REVEAL, Right.ACT}),
    Role.ADMIN: frozenset(Right),
}


@dataclass(frozen=True, slots=True)
class Session:
    """A login. `digest` is of the secret in the cookie; `proven_at`: when the password was last
    typed."""

    digest: bytes
    operator_id: UUID
    created_at: datetime
    seen_at: datetime
    proven_at: datetime
    ends_at: datetime

    def alive(self, now: datetime) -> bool:
        """Whether it still holds."""
        return now < self.ends_at and now < self.seen_at + IDLE

    def proven(self, now: datetime) -> bool:
        """Whether a dangerous act needs no password now."""
        return now < self.proven_at + PROOF


def opened(
    digest: bytes, operator_id: UUID, now: datetime, proven_at: datetime | None = None
) -> Session:
    """A session that begins now. `proven_at`: when who it is was last proven, if not just now."""
    return Session(digest, operator_id, now, now, proven_at or now, now + LONGEST)


def tried(counter: Counter | None, key: bytes, most: int, now: datetime) -> Counter:
    """One more try to log in, counted before it is made: many at once are no way around.

    Raises Limited `login_tries_used_up`.
    """
    if counter is None or now >= counter.since + WINDOW:
        return Counter(key, now, 1)
    if counter.count < most:
        return Counter(key, counter.since, counter.count + 1)
    left = (counter.since + WINDOW - now).total_seconds()
    raise Limited(
        "login_tries_used_up",
        f"Too many failed logins. Try again in {math.ceil(left / 60)} min.",
        retry_after=left,
    )


def password_problem(password: str, name: str) -> str | None:
    """What is wrong with a password; None when it will do. Length is what counts: rules of
    composition make people choose worse ones (NIST SP 800-63B-4)."""
    if len(password) < SHORTEST:
        return f"must have at least {SHORTEST} characters; a few words will do"
    if len(password) > MOST:
        return f"must have at most {MOST} characters"
    if len(set(password)) < 5:
        return "repeats the same few characters"
    if name.casefold() in password.casefold():
        return "holds the operator's name"
    return None
