"""Rows that only the store and the services exchange: the log, receipts kept aside, keys."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from gateway.domain.delivery import State
from gateway.domain.verification import Status


class Source(StrEnum):
    """Who or what moved a state."""

    SUBMISSION = "submission"  # the provider's answer to our call
    RECEIPT = "receipt"
    POLL = "poll"
    CHECK = "check"  # a correct code: the strongest receipt of all
    CLIENT = "client"  # cancel
    OPERATOR = "operator"  # cancel, at the console
    DEADLINE = "deadline"  # time ran out
    ENGINE = "engine"  # withdrawn before it was sent, or every attempt refused


class Logged(NamedTuple):
    """One row of the append-only log of a verification."""

    verification_id: UUID
    number: int
    attempt: int | None
    before: State | Status
    after: State | Status
    applied: bool
    source: str
    word: str | None
    provider_time: str | None
    recorded_at: datetime


PARKED = "parked"  # why a row is kept whose reference nobody knows yet
PART = "part"  # why a row is kept that is no receipt: its reference is a part's of a message


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt kept aside; `sealed` is the receipt as JSON, under the key `key_id`. Of a PART it
    is the attempt and which part of how many."""

    id: UUID
    account: str
    reference: str | None
    why: str
    sealed: bytes
    key_id: str
    received_at: datetime


class Crowd(NamedTuple):
    """An account of which at most so many receipts are kept aside."""

    account: str
    most: int


class StoredPlan(NamedTuple):
    """A plan's JSON by its digest."""

    digest: bytes
    body: str
    created_at: datetime


class Named(NamedTuple):
    """A verification by its id alone."""

    id: UUID


class Way(NamedTuple):
    """A way to a number: over a channel, from a sender of an account ("" where it has none)."""

    recipient_index: bytes
    channel: str
    account: str
    sender: str


class Further(NamedTuple):
    """An address of a verification besides its principal one, to be found by."""

    verification_id: UUID
    kind: str
    recipient_index: bytes


@dataclass(frozen=True, slots=True)
class Suppression:
    """A way that its provider says does not reach the number, and until when that is believed."""

    recipient_index: bytes
    channel: str
    account: str
    sender: str
    reason: str
    since: datetime
    until: datetime

    @property
    def way(self) -> Way:
        return Way(self.recipient_index, self.channel, self.account, self.sender)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a request with an Idempotency-Key was answered; `sealed` is the body, under `key_id`."""

    key: bytes
    fingerprint: bytes
    status: int
    sealed: bytes
    key_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Mark:
    """When something was last done."""

    name: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Client:
    """An application that calls the API."""

    id: UUID
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A bearer key: its digest and what it allows. `rate`: calls a second; None: any number."""

    id: UUID
    client_id: UUID
    digest: bytes
    scopes: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    test: bool = False  # it reaches the sandbox alone
    rate: float | None = None
    last_used_at: datetime | None = None  # to within a minute


class KeyUse(NamedTuple):
    """When a key was last used."""

    id: UUID
    last_used_at: datetime


class Counted(NamedTuple):
    """What one process has heard of a route in a country, from `at` on: to be added."""

    at: datetime
    route: str
    country: str
    node: str
    accepted: int
    refused: int
    unknown: int
    delivered: int
    read: int
    failed: int
    silent: int
    verified: int
    within_2: int = 0
    within_5: int = 0
    within_10: int = 0
    within_20: int = 0
    within_30: int = 0
    within_60: int = 0
    within_120: int = 0
    within_300: int = 0
    slower: int = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """A paused route, half open: the next message is let through at `next_at`, if nobody else has
    let one through since it was read (`probe_at`)."""

    route: str
    since: datetime
    probe_at: datetime
    next_at: datetime
    opened: int


@dataclass(frozen=True, slots=True)
class Operator:
    """A person at the console. `password` is an argon2id hash; the second factor's secret is sealed
    under the key `totp_key_id`. `subject`: who it is at the identity provider, which then is the
    only way in; the password is empty."""

    id: UUID
    name: str
    role: str
    password: str
    totp_sealed: bytes | None
    totp_key_id: str | None
    totp_step: int | None
    created_at: datetime
    disabled_at: datetime | None
    subject: str | None = None
