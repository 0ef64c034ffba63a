"""Makers of domain values with sensible defaults; every field can be named to differ.

Times count from `fakes.START`; a plan is one SMS step followed by a voice step unless told
otherwise.
"""

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from fakes import START

from gateway.domain.delivery import Attempt, Cause, Outcome, State
from gateway.domain.events import KINDS
from gateway.domain.identity import uuid7
from gateway.domain.verification import MAX_CHECKS, MAX_SENDS, Status, Verification
from gateway.domain.workflow import Plan, PlannedRoute, PlannedStep, Until
from gateway.store.outbox import Event, Subscription
from gateway.store.reads import encode_plan
from gateway.store.records import ApiKey, Client, Kept, Logged, Operator, StoredPlan

CLIENT = UUID("01900000-0000-7000-8000-00000000c11e")
PLAN = b"plan-of-the-tests"
TTL = 300

_count = itertools.count(1)


def new_id(now: datetime = START) -> UUID:
    """An id that no other call has returned."""
    return uuid7(now, next(_count).to_bytes(10, "big"))


def after(seconds: float) -> datetime:
    """A moment so long after START."""
    return START + timedelta(seconds=seconds)


def make_verification(**changes: Any) -> Verification:
    """A running verification, accepted at START for TTL seconds."""
    values: dict[str, Any] = {
        "id": new_id(),
        "client_id": CLIENT,
        "reference": None,
        "purpose": "verify",
        "recipient_index": b"index-of-number",
        "recipient_sealed": b"sealed-number",
        "code_sealed": None,
        "salt": b"saltsalt",
        "key_id": "k1",
        "code_length": 6,
        "plan": PLAN,
        "step": 0,
        "status": Status.PENDING,
        "checks_used": 0,
        "checks_max": MAX_CHECKS,
        "sends_used": 1,
        "sends_max": MAX_SENDS,
        "created_at": START,
        "sent_at": START,
        "expires_at": after(TTL),
        "ended_at": None,
        "wake_at": START,
        "version": 0,
        "log": 0,
    }
    return Verification(**values | changes)


def make_attempt(**changes: Any) -> Attempt:
    """An attempt of the first step, queued at START with 60 s of patience, accepted and silent."""
    queued_at = changes.get("queued_at", START)
    state = changes.get("state", State.SENT)
    values: dict[str, Any] = {
        "id": new_id(),
        "verification_id": UUID(int=1),
        "ordinal": 1,
        "step": 0,
        "resend": 0,
        "cause": Cause.FIRST,
        "account": "octopush",
        "route": "sms",
        "channel": "sms",
        "state": state,
        "outcome": None if state is State.QUEUED else Outcome.ACCEPTED,
        "reference": None,
        "reason": None,
        "error": None,
        "queued_at": queued_at,
        "overdue_at": queued_at + timedelta(seconds=60),
    }
    if state is not State.QUEUED:
        values |= {"sent_at": queued_at, "tries": 1}
    return Attempt(**values | changes)


def refused_attempt(outcome: Outcome = Outcome.TEMPORARY, **changes: Any) -> Attempt:
    """One that its provider did not take."""
    values: dict[str, Any] = {
        "state": State.FAILED,
        "outcome": outcome,
        "reason": "queue_full",
        "sent_at": None,
    }
    return make_attempt(**values | changes)


def unknown_attempt(**changes: Any) -> Attempt:
    """One of which nobody knows whether it was taken."""
    values: dict[str, Any] = {"outcome": Outcome.UNKNOWN, "reason": "read_timeout"}
    return make_attempt(**values | changes)


def waiting_attempt(**changes: Any) -> Attempt:
    """One that found no free slot."""
    return make_attempt(**{"state": State.QUEUED} | changes)


def make_route(name: str = "sms", **changes: Any) -> PlannedRoute:
    """A route that reports everything but READ."""
    values: dict[str, Any] = {
        "name": name,
        "account": "octopush",
        "sender": None,
        "confirms": frozenset({State.ACK, State.DELIVERED, State.FAILED}),
        "idempotent": False,
        "polls": False,
    }
    return PlannedRoute(**values | changes)


def make_step(*routes: PlannedRoute, **changes: Any) -> PlannedStep:
    """A step of 60 s that waits for `delivered`; its channel is named after its first route."""
    chosen = routes or (make_route(),)
    values: dict[str, Any] = {
        "channel": chosen[0].name,
        "routes": chosen,
        "patience": 60,
        "until": Until.DELIVERED,
    }
    return PlannedStep(**values | changes)


def make_plan(*steps: PlannedStep) -> Plan:
    """A workflow of these steps; of SMS and then a call when none is given."""
    return Plan("test", steps or (make_step(), make_step(make_route("voice"))))


def make_client(**changes: Any) -> Client:
    """The client that owns `make_verification`'s."""
    values: dict[str, Any] = {"id": CLIENT, "name": "backend", "created_at": START}
    return Client(**values | changes)


def make_api_key(**changes: Any) -> ApiKey:
    """A key of that client that neither expires nor is revoked."""
    values: dict[str, Any] = {
        "id": new_id(),
        "client_id": CLIENT,
        "digest": new_id().bytes * 2,
        "scopes": "send verify status",
        "created_at": START,
        "expires_at": None,
        "revoked_at": None,
    }
    return ApiKey(**values | changes)


def make_logged(**changes: Any) -> Logged:
    """The first line of a verification's log: its attempt was handed over."""
    values: dict[str, Any] = {
        "verification_id": UUID(int=1),
        "number": 0,
        "attempt": 1,
        "before": State.QUEUED,
        "after": State.SENT,
        "applied": True,
        "source": "submission",
        "word": None,
        "provider_time": None,
        "recorded_at": START,
    }
    return Logged(**values | changes)


def make_kept(**changes: Any) -> Kept:
    """A receipt that overtook the answer to our call."""
    values: dict[str, Any] = {
        "id": new_id(),
        "account": "octopush",
        "reference": "sms_1",
        "why": "parked",
        "sealed": b"sealed-receipt",
        "key_id": "k1",
        "received_at": START,
    }
    return Kept(**values | changes)


def make_event(**changes: Any) -> Event:
    """The first event of a verification."""
    values: dict[str, Any] = {
        "verification_id": UUID(int=1),
        "sequence": 1,
        "kind": "verification.sent",
        "payload": "{}",
        "created_at": START,
    }
    return Event(**values | changes)


def make_subscription(**changes: Any) -> Subscription:
    """A subscription of `make_client`'s client to everything."""
    values: dict[str, Any] = {
        "id": new_id(),
        "client_id": CLIENT,
        "url": "https://hooks.example/otp",
        "kinds": " ".join(KINDS),
        "sealed": b"sealed-secret",
        "key_id": "k1",
        "created_at": START,
    }
    return Subscription(**values | changes)


def stored_plan(plan: Plan | None = None, digest: bytes = PLAN) -> StoredPlan:
    """The plan that `make_verification`'s name."""
    return StoredPlan(digest, encode_plan(plan or make_plan()).decode(), START)


def by_ordinal(attempts: Sequence[Attempt], **changes: Any) -> list[Attempt]:
    """The same attempts, numbered in their order, each with these changes."""
    return [one._replace(ordinal=number, **changes) for number, one in enumerate(attempts, start=1)]


def make_operator(**changes: Any) -> Operator:
    """An admin without a second factor, whose password nobody knows."""
    values: dict[str, Any] = {
        "id": new_id(),
        "name": "alice",
        "role": "admin",
        "password": "$argon2id$none",
        "totp_sealed": None,
        "totp_key_id": None,
        "totp_step": None,
        "created_at": START,
        "disabled_at": None,
    }
    return Operator(**values | changes)
