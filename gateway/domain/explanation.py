"""What happened and what comes next, in words a support person can read out. No code, no
number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.domain import delivery, workflow
from gateway.domain.delivery import Attempt, Cause, Outcome, State
from gateway.domain.verification import Status, Verification
from gateway.domain.workflow import Finish, Plan, Poll, Send, Until, Wait

CHANNELS = {
    "sms": "SMS",
    "voice": "voice call",
    "messenger": "Messenger message",
    "email": "e-mail",
    "whatsapp": "WhatsApp message",
    "telegram": "Telegram message",
}

_CAUSES = {
    Cause.FIRST: "",
    Cause.SILENCE: " because the one before brought no receipt in time",
    Cause.FAILED: " because the one before failed",
    Cause.REFUSED: " because the one before was refused by its provider",
    Cause.UNKNOWN: " because it is not known whether the one before was taken",
    Cause.RESEND: " because the person asked again",
    Cause.NEXT: " because the next step was asked for",
}

_ENDS = {
    Status.VERIFIED: "The right code was typed at {at}; the verification is complete.",
    Status.EXPIRED: "The code expired at {at} without being typed. A new one must be requested.",
    Status.CANCELED: "The verification was canceled at {at}. A new code must be requested.",
    Status.LOCKED: "Too many wrong codes were typed; the verification was locked at {at}.",
    Status.FAILED: "No provider took the message; the verification ended at {at}. Try again.",
}

_ERASED = "The addresses it went to have been erased."


@dataclass(frozen=True, slots=True)
class Coming:
    """What happens next when nothing more is heard: `send`, `poll` or `expire`, and when."""

    action: str
    at: datetime
    channel: str | None = None


def coming(
    plan: Plan, verification: Verification, attempts: Sequence[Attempt], now: datetime
) -> Coming | None:
    """The next thing the gateway will do of itself; None after the end."""
    if verification.status_at(now) is not Status.PENDING:
        return None
    settled = [_settled(attempt, now) for attempt in attempts]
    moment = now
    for _ in range(4):
        match workflow.next_action(plan, verification, settled, moment):
            case Send(step):
                return Coming("send", moment, plan.steps[step].channel)
            case Poll(attempt_id):
                asked = next(one for one in settled if one.id == attempt_id)
                return Coming("poll", moment, asked.channel)
            case Wait(until) if until < verification.expires_at:
                moment = until
            case Wait() | Finish():
                break
    return Coming("expire", verification.expires_at)


def delivery_status(
    current: Verification, attempts: Sequence[Attempt], coming: Coming | None
) -> State | None:
    """The best state of the attempts; a correct check is proof of delivery by itself. FAILED only
    when nothing more will be tried: before that, what comes is QUEUED.
    """
    best = delivery.best(attempt.state for attempt in attempts)
    if best is State.FAILED and coming is not None and coming.action == "send":
        return State.QUEUED
    if current.status is Status.VERIFIED and best is not State.READ:
        return State.DELIVERED
    return best


def _settled(attempt: Attempt, now: datetime) -> Attempt:
    """A submission under way is shown as if the provider will take it: most are."""
    if not attempt.claimed(now):
        return attempt
    state = State.SENT if attempt.state is State.QUEUED else attempt.state
    outcome = attempt.outcome or Outcome.ACCEPTED
    return attempt._replace(state=state, outcome=outcome, claimed_until=None)


def explain(
    plan: Plan, verification: Verification, attempts: Sequence[Attempt], now: datetime
) -> str:
    """The story of a verification in a few sentences."""
    status = verification.status_at(now)
    told = [*_left_out(plan), *(_attempt(attempt) for attempt in attempts)]
    if status is not Status.PENDING:
        at = verification.ended_at or verification.expires_at
        told.append(_ENDS[status].format(at=_clock(at)))
        if verification.recipient_sealed is None:
            told.append(_ERASED)
        return " ".join(told)
    if attempts:
        told.append(_blind(plan, attempts[-1]))
    following = coming(plan, verification, attempts, now)
    if following is not None:
        told.append(_next(following))
    return " ".join(sentence for sentence in told if sentence)


def _left_out(plan: Plan) -> list[str]:
    told = []
    for one in plan.left_out:
        what = CHANNELS.get(one.channel, one.channel)
        if one.reason == workflow.NO_ADDRESS:
            told.append(f"{_article(what)} {what} was left out: no address for it was given.")
            continue
        told.append(
            f"{_article(what)} {what} through {one.route} was left out: the provider said not long "
            f"ago that it does not reach this number ({one.reason})."
        )
    return list(dict.fromkeys(told))


def _attempt(attempt: Attempt) -> str:
    what = CHANNELS.get(attempt.channel, attempt.channel)
    why = _CAUSES[attempt.cause]
    via = f"through {attempt.route}"
    return f"{_article(what)} {what} {_state(attempt, via)}{why}."


def _state(attempt: Attempt, via: str) -> str:
    if attempt.outcome is Outcome.WITHDRAWN:
        if attempt.reason == "spend_cap":
            return f"{via} was left out: what the client may spend in a day is spent"
        return f"{via} was withdrawn before it was sent"
    if attempt.refused:
        return f"{via} was refused ({attempt.reason}) and surely not sent"
    if attempt.waiting:
        return f"is waiting for a free place {via}"
    return _heard(attempt, via)


def _heard(attempt: Attempt, via: str) -> str:
    match attempt.state:
        case State.QUEUED:
            return f"is being handed over {via}"
        case State.SENT if attempt.outcome is Outcome.UNKNOWN:
            return f"was handed over {via}; whether it was taken is not known ({attempt.reason})"
        case State.SENT:
            return f"was sent {via} at {_clock(attempt.sent_at)}; nothing was heard of it yet"
        case State.ACK:
            return f"was sent {via} at {_clock(attempt.sent_at)} and is on its way"
        case State.FAILED:
            return f"was sent {via} and reported as not delivered ({attempt.reason})"
        case State.DELIVERED:
            return f"was delivered {via} at {_clock(attempt.delivered_at)}"
        case State.READ:
            return f"was delivered {via} and read at {_clock(attempt.read_at)}"


def _blind(plan: Plan, attempt: Attempt) -> str:
    """A route that can never say what the step waits for: only the code itself will tell."""
    step = plan.steps[attempt.step]
    if step.until is Until.VERIFIED or step.awaits(step.route(attempt.route)) is step.until:
        return ""
    return f"The route {attempt.route} cannot report '{step.until}': only a typed code will tell."


def _next(following: Coming) -> str:
    what = CHANNELS.get(following.channel or "", following.channel or "")
    if following.action == "send":
        article = _article(what).lower()
        return f"Unless more is heard, {article} {what} follows at {_clock(following.at)}."
    if following.action == "poll":
        return f"The provider of the {what} will be asked at {_clock(following.at)}."
    return f"The code can be typed until {_clock(following.at)}."


def _article(what: str) -> str:
    return "An" if what[:1] in "eS" else "A"


def _clock(moment: datetime | None) -> str:
    return "an unknown time" if moment is None else f"{moment:%H:%M:%S} UTC"
