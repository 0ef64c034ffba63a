"""What a support person may tell the customer, after they have read what happened. No code, no
number."""

from collections.abc import Sequence
from datetime import datetime

from gateway.domain import delivery, explanation
from gateway.domain.delivery import Attempt, State
from gateway.domain.explanation import CHANNELS, Coming
from gateway.domain.health import OPEN, Shut
from gateway.domain.verification import Status, Verification
from gateway.domain.workflow import Plan

_ENDED = {
    Status.VERIFIED: "Nothing is to be done: the right code was typed. If that was not them, the "
    "account needs looking at.",
    Status.CANCELED: "This code is of no use any more. Ask them to request a new one.",
    Status.LOCKED: "Too many wrong codes were typed. Ask them to request a new code, and to type "
    "that of the newest message.",
    Status.FAILED: "No message went out. Read the number back to them; if it is right, ask them to "
    "try again in some minutes, over another channel if there is one.",
}


def advise(
    plan: Plan,
    verification: Verification,
    attempts: Sequence[Attempt],
    now: datetime,
    *,
    shut: Shut = OPEN,
) -> str:
    """One or two sentences. `shut`: routes that nothing follows over."""
    status = verification.status_at(now)
    if status is Status.EXPIRED:
        return _expired(attempts)
    if status is not Status.PENDING:
        return _ENDED[status]
    arrived, on_its_way = _arrived(attempts), _on_its_way(attempts, now)
    if arrived is not None and on_its_way is not None:
        return _wait_for(on_its_way, arrived, verification)
    if arrived is not None:
        return _look_again(arrived, verification)
    following = explanation.coming(plan, verification, attempts, now, shut=shut)
    if following is not None and following.action == "send":
        return _wait(following, now)
    if on_its_way is not None:
        what = CHANNELS.get(on_its_way.channel, on_its_way.channel)
        return f"The {what} is on its way: ask them to wait. {_reach(attempts, verification)}"
    return f"Nothing more is sent by itself. {_reach(attempts, verification)}"


def _arrived(attempts: Sequence[Attempt]) -> Attempt | None:
    """The newest attempt that is known to be on the handset."""
    there = [one for one in attempts if one.state in {State.DELIVERED, State.READ}]
    return there[-1] if there else None


def _on_its_way(attempts: Sequence[Attempt], now: datetime) -> Attempt | None:
    """The newest attempt, when it may still arrive in the time that it is given."""
    if not attempts:
        return None
    last = attempts[-1]
    under_way = last.state in {State.QUEUED, State.SENT, State.ACK} and not last.refused
    return last if under_way and now < last.overdue_at else None


def _wait_for(coming: Attempt, arrived: Attempt, verification: Verification) -> str:
    what = CHANNELS.get(coming.channel, coming.channel)
    before = CHANNELS.get(arrived.channel, arrived.channel)
    told = "was read" if arrived.state is State.READ else "arrived"
    return (
        f"{explanation.article(what)} {what} with the same code is on its way: ask them to wait "
        f"for it. The {before} before it {told}. {_left(verification)}"
    )


def _look_again(arrived: Attempt, verification: Verification) -> str:
    what = CHANNELS.get(arrived.channel, arrived.channel)
    told = "was read" if arrived.state is State.READ else "arrived"
    where = "" if arrived.channel == "voice" else ", also among blocked or filtered messages"
    return f"The {what} {told}. Ask them to look again{where}. {_left(verification)}"


def _left(verification: Verification) -> str:
    left = verification.checks_left
    tries = "1 try is" if left == 1 else f"{left} tries are"
    return f"The code can be typed until {_clock(verification.expires_at)}; {tries} left."


def _wait(following: Coming, now: datetime) -> str:
    what = CHANNELS.get(following.channel or "", following.channel or "")
    if following.at <= now:
        return f"Ask them to wait: the code goes out by {what} at once, without anybody's doing."
    return (
        f"Ask them to wait: if nothing arrives, the same code follows by {what} at "
        f"{_clock(following.at)} without anybody doing anything."
    )


def _reach(attempts: Sequence[Attempt], verification: Verification) -> str:
    """What to ask when nothing arrives."""
    if attempts and attempts[-1].channel == "email":
        ask = "Ask whether it is among unwanted mail, and read the address back to them."
    else:
        ask = "Ask whether the telephone is on and has reception, and read the number back to them."
    return f"{ask} {_left(verification)}"


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
