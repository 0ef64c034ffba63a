"""What a support person may tell the customer, after they have read what happened. No code, no
number."""

from collections.abc import Sequence
from datetime import datetime

from gateway.domain import delivery, explanation
from gateway.domain.delivery import Attempt, State
from gateway.domain.explanation import CHANNELS, Coming
from gateway.domain.verification import Status, Verification
from gateway.domain.workflow import Plan

_ENDED = {
    Status.VERIFIED: "Nothing is to be done: the right code was typed. If that was not them, the "
    "account needs looking at.",
    Status.CANCELED: "This code is of no use any more. Ask them to request a new one.",
    Status.FAILED: "No message went out. Read the number back to them; if it is right, ask them to "
    "try again in some minutes, over another channel if there is one.",
}


def advise(
    plan: Plan, verification: Verification, attempts: Sequence[Attempt], now: datetime
) -> str:
    """One or two sentences."""
    status = verification.status_at(now)
    if status is Status.LOCKED:
        return (
            "Too many wrong codes were typed. A new code can be requested after "
            f"{_clock(verification.expires_at)}; ask them to type the newest message's code."
        )
    if status is Status.EXPIRED:
        return _expired(attempts)
    if status is not Status.PENDING:
        return _ENDED[status]
    arrived = _arrived(attempts)
    if arrived is not None:
        return _look_again(arrived, verification)
    return _wait(explanation.coming(plan, verification, attempts, now), verification)


def _arrived(attempts: Sequence[Attempt]) -> Attempt | None:
    """The newest attempt that is known to be on the handset."""
    there = [one for one in attempts if one.state in {State.DELIVERED, State.READ}]
    return there[-1] if there else None


def _look_again(arrived: Attempt, verification: Verification) -> str:
    what = CHANNELS.get(arrived.channel, arrived.channel)
    told = "was read" if arrived.state is State.READ else "arrived"
    where = "" if arrived.channel == "voice" else ", also among blocked or filtered messages"
    return (
        f"The {what} {told}. Ask them to look again{where}; the code can be typed until "
        f"{_clock(verification.expires_at)} and {verification.checks_left} tries are left."
    )


def _wait(following: Coming | None, verification: Verification) -> str:
    if following is not None and following.action == "send":
        what = CHANNELS.get(following.channel or "", following.channel or "")
        return (
            f"Ask them to wait: if nothing arrives, the same code follows by {what} at "
            f"{_clock(following.at)} without anybody doing anything."
        )
    return (
        "Everything planned has been sent. Ask whether the telephone is on and has reception, and "
        "read the number back to them; the code can be typed until "
        f"{_clock(verification.expires_at)}."
    )


def _expired(attempts: Sequence[Attempt]) -> str:
    best = delivery.best(attempt.state for attempt in attempts)
    if best in {State.DELIVERED, State.READ}:
        return "The message arrived and the code ran out. Ask them to request a new one."
    return (
        "The code ran out, and nobody confirmed that a message arrived. Read the number back to "
        "them; if it is right, ask them to request a new code."
    )


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M} UTC"
