"""What goes out: the bodies of answers and events, as JSON has them. `answers` describes them for
OpenAPI; what comes in is `schemas`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from gateway.domain import explanation
from gateway.domain.addresses import mask
from gateway.domain.delivery import Attempt
from gateway.domain.explanation import Coming, Story
from gateway.domain.health import Shut
from gateway.domain.verification import Verification
from gateway.domain.workflow import Plan
from gateway.store.reads import Record
from gateway.store.records import Logged


def dumps(body: object) -> bytes:
    """JSON with times as `2026-11-21T10:00:00.123000Z`."""
    return orjson.dumps(body, option=orjson.OPT_UTC_Z)


def summary(
    plan: Plan, current: Verification, attempts: Sequence[Attempt], now: datetime, shut: Shut
) -> dict[str, Any]:
    """What send, verify, cancel and next answer. `shut`: routes that nothing follows over."""
    coming = explanation.coming(plan, current, attempts, now, shut=shut)
    return summed(current, attempts, coming, now)


def summed(
    current: Verification, attempts: Sequence[Attempt], coming: Coming | None, now: datetime
) -> dict[str, Any]:
    """The same, where it is known what comes."""
    return {
        "verification_id": current.id,
        "reference": current.reference,
        "status": current.status_at(now),
        "delivery_status": explanation.delivery_status(current, attempts, coming),
        "channel": attempts[-1].channel if attempts else None,
        "next": None if coming is None else _coming(coming),
        "expires_at": current.expires_at,
        "checks_left": current.checks_left,
        "sends_left": current.sends_left,
    }


def _coming(coming: Coming) -> dict[str, Any]:
    return {"action": coming.action, "at": coming.at, "channel": coming.channel}


def status(
    record: Record, addresses: Mapping[str, str] | None, now: datetime, shut: Shut
) -> dict[str, Any]:
    """What `/otp/status` answers: the summary, the attempts, the log and a sentence. `addresses` by
    kind, the principal one first; None when they have been erased. `shut`: routes that nothing
    follows over."""
    current = record.verification
    story = explanation.story(record.plan, current, record.attempts, now, shut=shut)
    return told(record, addresses, story, now)


def told(
    record: Record, addresses: Mapping[str, str] | None, story: Story, now: datetime
) -> dict[str, Any]:
    """The same, where the story is known."""
    current, attempts = record.verification, record.attempts
    shown = {kind: mask(text) for kind, text in (addresses or {}).items()}
    return {
        **summed(current, attempts, story.coming, now),
        "recipient": next(iter(shown.values()), None),
        "addresses": shown,
        "template": current.template,
        "workflow": record.plan.workflow,
        "left_out": record.plan.left_out,
        "created_at": current.created_at,
        "ended_at": current.ended_at,
        "attempts": [_attempt(attempt) for attempt in attempts],
        "transitions": transitions(record),
        "explanation": story.told,
    }


def transitions(record: Record) -> list[dict[str, Any]]:
    """The log of a verification."""
    ids = {attempt.ordinal: attempt.id for attempt in record.attempts}
    return [_transition(row, ids) for row in record.log]


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt_id": attempt.id,
        "ordinal": attempt.ordinal,
        "step": attempt.step,
        "cause": attempt.cause,
        "route": attempt.route,
        "channel": attempt.channel,
        "state": attempt.state,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "error": attempt.error,
        "queued_at": attempt.queued_at,
        "sent_at": attempt.sent_at,
        "delivered_at": attempt.delivered_at,
        "read_at": attempt.read_at,
        "overdue_at": attempt.overdue_at,
        "repeats": attempt.repeats,
    }


def _transition(row: Logged, ids: dict[int, Any]) -> dict[str, Any]:
    return {
        "attempt_id": ids.get(row.attempt) if row.attempt is not None else None,
        "before": row.before,
        "after": row.after,
        "applied": row.applied,
        "source": row.source,
        "word": row.word,
        "provider_time": row.provider_time,
        "recorded_at": row.recorded_at,
    }
