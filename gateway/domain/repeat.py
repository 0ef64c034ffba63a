"""A number is sent to while a verification for it runs: what the caller may ask for.

A join keeps the running verification as it is. What would make its code or its way another one
than was asked for is refused by name (`code`, `workflow`, `channel`); what it only keeps as it was
is ignored and named in the answer (`ttl`, `reference`, `code_length`).
"""

from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import StrEnum

from gateway.domain import limits
from gateway.domain.errors import Conflict
from gateway.domain.verification import Verification


class OnRepeat(StrEnum):
    """What becomes of the running verification."""

    JOIN = "join"  # it goes on: the same code once more, after the cool-down
    REFUSE = "refuse"  # it goes on, and this request is refused
    REPLACE = "replace"  # it is canceled, and a new one starts at once


def refuse(running: Verification) -> Conflict:
    """What `refuse` answers."""
    return Conflict(
        "already_running",
        "A verification is running for this number. Let the person use its code, join it, or "
        "replace it: `on_repeat`.",
        facts={"verification_id": running.id, "expires_at": running.expires_at},
    )


def replaced(running: Verification, fresh: Verification, now: datetime) -> Verification:
    """The new one in place of the running one: no cool-down, but its sends go on counting.

    Raises Limited `sends_used_up`, as a resend would be refused.
    """
    if running.sends_left <= 0:
        raise limits.sends_used_up(
            running,
            f"This number has used its {running.sends_max} sends, and replacing counts as one. The "
            "running verification's codes stay valid until it expires.",
            now,
        )
    return fresh._replace(sends_used=running.sends_used + 1)


def same_way(running: Verification, planned: str, asked: str | None) -> None:
    """Raise Conflict when a workflow or a channel is asked for by name and the running one, of the
    workflow `planned`, is not of it: nobody is sent over another channel silently."""
    if asked is None or asked == planned:
        return
    raise Conflict(
        "workflow_differs",
        "A verification of another workflow or channel is running for this number. Leave out "
        '`workflow` and `channel` to join it, or replace it: `"on_repeat": "replace"`.',
        facts={"verification_id": running.id, "workflow": planned},
    )


def ignored(running: Verification, asked: Verification, given: AbstractSet[str]) -> tuple[str, ...]:
    """The fields that a join does not heed: `given` by the caller, and not as in the running one.

    `asked`: the verification that would have started otherwise.
    """
    differing = {
        "ttl": running.expires_at - running.created_at != asked.expires_at - asked.created_at,
        "reference": running.reference != asked.reference,
        "code_length": running.code_length != asked.code_length,
    }
    return tuple(name for name, differs in differing.items() if differs and name in given)
