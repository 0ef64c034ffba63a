"""What clients are told, written into the transaction that makes it true.

Who listens is known in memory, so that a gateway nobody has subscribed to pays one truth test for
each change. `notify` delivers what is written here.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from gateway.domain import events, explanation
from gateway.domain.delivery import Attempt
from gateway.domain.events import Happened, Standing
from gateway.domain.health import OPEN, Shut
from gateway.domain.verification import Verification
from gateway.domain.workflow import Plan
from gateway.store.ledger import Transaction
from gateway.store.outbox import Event, Raised, Subscription


class Listener(NamedTuple):
    """A subscription, as far as publishing cares."""

    subscription_id: UUID
    kinds: frozenset[str]


class Published(NamedTuple):
    """Left behind for after the commit: these subscriptions have something due."""

    subscriptions: frozenset[UUID]


class Resubscribed(NamedTuple):
    """Left behind for after the commit: who listens has changed."""


class Touched(NamedTuple):
    """A verification that changed while somebody waited for it to, or may have on another node."""

    verification_id: UUID


@dataclass(slots=True)
class Audience:
    """Who listens, by client. `notify` keeps it up to date."""

    clients: Mapping[UUID, Sequence[Listener]] = field(default_factory=dict)

    def learn(self, subscriptions: Sequence[Subscription]) -> None:
        """These are all there are."""
        clients: dict[UUID, list[Listener]] = defaultdict(list)
        for one in subscriptions:
            if one.disabled_at is None:
                clients[one.client_id].append(Listener(one.id, frozenset(one.kinds.split())))
        self.clients = dict(clients)


class Told(NamedTuple):
    """What a verification looks like to its client."""

    verification: Verification
    plan: Plan
    attempts: Sequence[Attempt]
    recipient: str  # masked
    shut: Shut = OPEN  # routes that nothing follows over


def publish(
    tx: Transaction, listeners: Sequence[Listener], before: Standing, told: Told, now: datetime
) -> Verification:
    """Write what happened since `before` for those who want to know; the verification, its events
    counted."""
    current = told.verification
    wanted: set[str] = set().union(*(one.kinds for one in listeners))
    found = events.happened(before, Standing(current.status, told.attempts))
    due = set()
    for one in found:
        if one.kind not in wanted:
            continue
        current = current._replace(events=current.events + 1)
        payload = orjson.dumps(_payload(told, one, current.events, now), option=orjson.OPT_UTC_Z)
        tx.outbox.add(Event(current.id, current.events, one.kind, payload.decode(), now))
        for listener in listeners:
            if one.kind in listener.kinds:
                tx.outbox.add(Raised(current.id, listener.subscription_id, current.events, now))
                due.add(listener.subscription_id)
    if due:
        tx.after.append(Published(frozenset(due)))
    return current


def _payload(told: Told, happened: Happened, sequence: int, now: datetime) -> dict[str, Any]:
    """The `data` of an event: ids, states, a masked recipient; never a code or a full number."""
    current, attempts = told.verification, told.attempts
    coming = explanation.coming(told.plan, current, attempts, now, shut=told.shut)
    about = attempts[happened.ordinal - 1] if happened.ordinal is not None else None
    return {
        "verification_id": current.id,
        "sequence": sequence,
        "reference": current.reference,
        "recipient": told.recipient,
        "status": current.status,
        "delivery_status": explanation.delivery_status(current, attempts, coming),
        "channel": attempts[-1].channel if attempts else None,
        "checks_left": current.checks_left,
        "expires_at": current.expires_at,
        "attempt": _attempt(about) if about is not None else None,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt_id": attempt.id,
        "ordinal": attempt.ordinal,
        "step": attempt.step,
        "cause": attempt.cause,
        "route": attempt.route,
        "channel": attempt.channel,
        "state": attempt.state,
        "reason": attempt.reason,
    }
