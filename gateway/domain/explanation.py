"""What happened and what comes next, in words a support person can read out. No code, no
number.
"""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

from gateway.domain import delivery, workflow
from gateway.domain.delivery import Attempt, Cause, Outcome, State
from gateway.domain.health import OPEN, Shut
from gateway.domain.values import value
from gateway.domain.verification import Status, Verification
from gateway.domain.workflow import Finish, Plan, Poll, Send, Until, Wait

CHANNELS = {
    "sms": "SMS",
    "voice": "voice call",
    "messenger": "Messenger message",
    "email": "e-mail",
    "whatsapp": "WhatsApp message",
    "telegram": "Telegram message",
    "viber": "Viber message",
    "rcs": "RCS message",
}

_CAUSES = {
    Cause.FAILED: "the one before failed",
    Cause.REFUSED: "the one before was not taken",
    Cause.UNKNOWN: "it is not known whether the one before was taken",
    Cause.RESEND: "it was asked for again",
    Cause.NEXT: "the next step was asked for",
}
_AWAITED = {
    Until.SENT: "handed over",
    Until.ACK: "on its way",
    Until.DELIVERED: "delivered",
    Until.READ: "read",
}

_ENDS = {
    Status.VERIFIED: "The right code was typed at {at}; the verification is complete.",
    Status.EXPIRED: "The code expired at {at} before it was typed. A new one must be requested.",
    Status.CANCELED: "The verification was canceled at {at}. A new code must be requested.",
    Status.LOCKED: "Too many wrong codes were typed; the verification was locked at {at}.",
    Status.FAILED: "No provider took the message; the verification ended at {at}. Try again.",
}

# What is told of an attempt in a state, and the moment that belongs to it.
_HEARD = {
    State.SENT: ("was sent at {}; nothing was heard of it yet", attrgetter("sent_at")),
    State.ACK: ("was sent at {} and is on its way", attrgetter("sent_at")),
    State.DELIVERED: ("was delivered at {}", attrgetter("delivered_at")),
    State.READ: ("was delivered and read at {}", attrgetter("read_at")),
}

_FAILED, _VERIFIED = State.FAILED, Status.VERIFIED  # from their classes they cost five times that
_ERASED = "The addresses it went to have been erased."


@value
class Coming:
    """What happens next when nothing more is heard: `send` or `expire`, and when."""

    action: str
    at: datetime
    channel: str | None = None


class Story(NamedTuple):
    """What can be told of a verification, and until when: from then on (None: never) the same rows
    would be told otherwise. `until` is not after `now` where something is due."""

    coming: Coming | None
    told: str
    until: datetime | None


class _Ahead(NamedTuple):
    coming: Coming
    polled_at: datetime | None  # when the provider is asked before that
    until: datetime  # see Story


def coming(
    plan: Plan,
    verification: Verification,
    attempts: Sequence[Attempt],
    now: datetime,
    *,
    shut: Shut = OPEN,
) -> Coming | None:
    """The next thing the gateway will do of itself, without the routes that are `shut`; None after
    the end. That it asks a provider first is passed over: what the person gets is what follows
    from silence."""
    if verification.status_at(now) is not Status.PENDING:
        return None
    return _ahead(plan, verification, attempts, now, shut).coming


def _ahead(
    plan: Plan,
    verification: Verification,
    attempts: Sequence[Attempt],
    now: datetime,
    shut: Shut,
) -> _Ahead:
    """What comes of a running one."""
    settled = [one if one.claimed_until is None else _settled(one, now) for one in attempts]
    moment, polled_at, until = now, None, None
    expires_at = verification.expires_at
    for _ in range(6):
        match workflow.next_action(plan, verification, settled, moment, shut=shut):
            case Wait(later):
                until = until or later
                if later >= expires_at:
                    break
                moment = later
            case Send(step):
                ahead = Coming("send", moment, plan.steps[step].channel)
                return _Ahead(ahead, polled_at, _until(until or now, attempts, now))
            case Poll(attempt_id):
                polled_at = moment
                until = until or now
                settled = [
                    one._replace(polled_at=moment) if one.id == attempt_id else one
                    for one in settled
                ]
            case Finish():
                break
    until = _until(until or now, attempts, now)
    return _Ahead(Coming("expire", expires_at), polled_at, until)


def _until(until: datetime, attempts: Sequence[Attempt], now: datetime) -> datetime:
    """That moment, or the end of a claim before it."""
    for attempt in attempts:
        if attempt.claimed_until is not None and now < attempt.claimed_until < until:
            until = attempt.claimed_until
    return until


def delivery_status(
    current: Verification, attempts: Sequence[Attempt], coming: Coming | None
) -> State | None:
    """The best state of the attempts; a correct check is proof of delivery by itself. FAILED only
    when nothing more will be tried: before that, what comes is QUEUED.
    """
    one = len(attempts) == 1
    best = attempts[0].state if one else delivery.best([attempt.state for attempt in attempts])
    if best is _FAILED and coming is not None and coming.action == "send":
        return State.QUEUED
    if current.status is _VERIFIED and best is not State.READ:
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
    plan: Plan,
    verification: Verification,
    attempts: Sequence[Attempt],
    now: datetime,
    *,
    shut: Shut = OPEN,
) -> str:
    """The story of a verification in a few sentences."""
    return story(plan, verification, attempts, now, shut=shut).told


def story(
    plan: Plan,
    verification: Verification,
    attempts: Sequence[Attempt],
    now: datetime,
    *,
    shut: Shut = OPEN,
) -> Story:
    """What `coming` and `explain` tell, for who wants both."""
    status = verification.status_at(now)
    told = _left_out(plan) if plan.left_out else []
    for at, attempt in enumerate(attempts):
        first = attempt.cause is Cause.FIRST
        told.append(_attempt(attempt, "" if first else _why(plan, attempts[:at], attempt.cause)))
    if status is not Status.PENDING:
        ended_at = verification.ended_at or verification.expires_at
        told.append(_ENDS[status].format(at=_clock(ended_at)))
        if verification.recipient_sealed is None:
            told.append(_ERASED)
        return Story(None, " ".join(told), None)
    last = attempts[-1] if attempts else None
    if last is not None and (blind := _blind(plan, last)):
        told.append(blind)
    following, polled_at, until = _ahead(plan, verification, attempts, now, shut)
    told.append(_next(following, last, polled_at, now))
    return Story(following, " ".join(told), until)


def _left_out(plan: Plan) -> list[str]:
    told = []
    for one in plan.left_out:
        what = CHANNELS.get(one.channel, one.channel)
        if one.reason == workflow.NO_ADDRESS:
            told.append(f"{article(what)} {what} was left out: no address for it was given.")
            continue
        told.append(
            f"{article(what)} {what} through {one.route} was left out: the provider said not long "
            f"ago that it does not reach this number ({one.reason})."
        )
    return list(dict.fromkeys(told))


def _why(plan: Plan, before: Sequence[Attempt], cause: Cause) -> str:
    """Why an attempt was made after those before it."""
    if cause is not Cause.SILENCE:
        return _CAUSES.get(cause, "")
    awaited = _AWAITED.get(plan.steps[before[-1].step].until) if before else None
    if awaited is None:
        return "no code was typed in time"
    return f"the one before was not reported as {awaited} in time"


def _attempt(attempt: Attempt, why: str) -> str:
    what = CHANNELS.get(attempt.channel, attempt.channel)
    who, via = f"{article(what)} {what}", f"through {attempt.route}"
    if why:
        return f"{who} {via} came next because {why}: it {_state(attempt)}."
    return f"{who} {via} {_state(attempt)}."


def _state(attempt: Attempt) -> str:
    """What became of it, as the rest of a sentence that it is the subject of."""
    reason = attempt.reason or "no reason was given"
    if attempt.outcome is Outcome.WITHDRAWN:
        if attempt.reason == "spend_cap":
            return "was left out: what the client may spend in a day is spent"
        return "was withdrawn before it was sent"
    if attempt.refused:
        return f"was refused ({reason}) and surely not sent"
    if attempt.waiting:
        return "is waiting for a free place"
    return _heard(attempt, reason)


def _heard(attempt: Attempt, reason: str) -> str:
    state = attempt.state
    if state is State.QUEUED:
        return "is being handed over"
    if state is State.FAILED:
        return f"was sent and reported as not delivered ({reason})"
    if state is State.SENT and attempt.outcome is Outcome.UNKNOWN:
        return f"was handed over; whether it was taken is not known ({reason})"
    told, moment = _HEARD[state]
    return told.format(_clock(moment(attempt)))


def _blind(plan: Plan, attempt: Attempt) -> str:
    """A route that can never say what the step waits for: only the code itself will tell."""
    step = plan.steps[attempt.step]
    if attempt.refused or attempt.state is State.FAILED or step.until is Until.VERIFIED:
        return ""
    if step.awaits(step.route(attempt.route)) is step.until:
        return ""
    return f"The route {attempt.route} cannot report '{step.until}': only a typed code will tell."


def _next(
    following: Coming, last: Attempt | None, polled_at: datetime | None, now: datetime
) -> str:
    asked = ""
    if polled_at is not None and last is not None:
        asked = f"Unless more is heard, {last.route} is asked about it at {_clock(polled_at)}"
    if following.action != "send":
        ends = f"The code can be typed until {_clock(following.at)}."
        return f"{asked}. {ends}" if asked else ends
    what = CHANNELS.get(following.channel or "", following.channel or "")
    follows = f"{article(what).lower()} {what} follows"
    if last is not None and last.waiting and last.channel == following.channel:
        follows = "it is tried again"
    if following.at <= now:
        return f"{follows[0].upper()}{follows[1:]} at once."
    before = f"{asked}, and" if asked else "Unless more is heard,"
    return f"{before} {follows} at {_clock(following.at)}."


def article(what: str) -> str:
    """The article that the name of a message takes, as a sentence begins with it."""
    return "An" if what.startswith(("e", "S", "R")) else "A"


def _clock(moment: datetime | None) -> str:
    # Cut out of its text: strftime, which goes by way of the C library, takes ten times as long.
    return "an unknown time" if moment is None else f"{str(moment)[11:19]} UTC"
