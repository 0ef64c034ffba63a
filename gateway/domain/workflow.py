"""The plan of a send, and the one function that says what happens next.

A workflow is an ordered list of steps; at accept it is resolved into a plan and stored, so that a
later change of settings never changes a running verification. `next_action` is pure and total. It
is asked by accept, by every outcome and receipt, by the deadline, by `/otp/next` and by whoever
wants to show what is coming, and nothing else in the gateway decides whether a message is sent.

The rules, numbered as in the design (§3):

1.  A step is satisfied when one of its attempts has reached `until` and is not FAILED.
2.  A failure reported by receipt, silence past the patience, or a client's `next` advance. While a
    submission is under way only a receipt or `next` does.
3.  Nothing is sent with less than MIN_LIFE left, after an end, or beyond MAX_ATTEMPTS.
4.  A step waiting for a state its route cannot report waits for `verified` instead.
5.  A refusal moves to the step's next route, else is repeated after Retry-After or 1, 2, 4 s
    within the patience; an account's is not repeated on its route, a permanent one advances.
    Never after an unknown outcome.
6.  After an unknown outcome the step is not submitted again, save by a resend or where the
    provider takes an idempotency key; in the last step, once more when the patience ended in
    silence.
7.  An explicit channel is a plan of one step: no silent switch.
9.  A route that can be polled, and gave a reference to ask by, is polled once before money is
    spent on a fallback.
10. A resend repeats the step in force, on another of its routes when there is one.

Of a step's routes those are preferred that are not `shut` (`domain.health`). More than 500 lines,
since these rules are one function and are read together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from gateway.domain.delivery import ARRIVED, IMPLYING, REFUSALS, Attempt, Cause, Outcome, State
from gateway.domain.health import OPEN, Shut
from gateway.domain.values import value
from gateway.domain.verification import MIN_LIFE, Status, Verification

MAX_ATTEMPTS = 10
MAX_TRIES = 3  # submissions of one attempt under its idempotency key
MAX_REPEATS = 3  # repeats of a refused step when it has no other route
POLL_SECONDS = 3  # how long the answer to a poll is waited for
PASS_SECONDS = 1  # within which the pass sees a deadline
PATIENCE_SECONDS = range(5, 601)
_MIN_LIFE = timedelta(seconds=MIN_LIFE)
# Members that every decision compares with: from their classes they would cost five times that.
_PENDING, _UNKNOWN, _FIRST = Status.PENDING, Outcome.UNKNOWN, Cause.FIRST
_QUEUED, _FAILED, _SENT = State.QUEUED, State.FAILED, State.SENT


class Until(StrEnum):
    """What a step waits for."""

    SENT = "sent"
    ACK = "ack"
    DELIVERED = "delivered"
    READ = "read"
    VERIFIED = "verified"


_STATES = {
    Until.SENT: State.SENT,
    Until.ACK: State.ACK,
    Until.DELIVERED: State.DELIVERED,
    Until.READ: State.READ,
}
_ENOUGH: dict[Until, frozenset[State]] = {  # the states that satisfy a step; by none `verified`
    until: IMPLYING[_STATES[until]] if until in _STATES else frozenset() for until in Until
}
_PERSON = frozenset({Cause.RESEND, Cause.NEXT})  # causes of what somebody asked for
_FINAL = frozenset({Outcome.PERMANENT, Outcome.WITHDRAWN})  # refusals that no repetition mends


class OnFailed(StrEnum):
    """What a receipt of failure does."""

    ADVANCE = "advance"
    WAIT = "wait"


class OnUnknown(StrEnum):
    """What an unknown outcome does where the provider takes no idempotency key."""

    WAIT = "wait"
    RESUBMIT = "resubmit"


@dataclass(frozen=True, slots=True)
class PlannedRoute:
    """A route as it was when the plan was made, with what it declared."""

    name: str
    account: str
    sender: str | None
    confirms: frozenset[State]
    idempotent: bool
    polls: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a configured workflow: routes by name, best first; `patience` in seconds."""

    channel: str
    routes: tuple[str, ...]
    patience: int
    until: Until
    on_failed: OnFailed = OnFailed.ADVANCE
    on_unknown: OnUnknown = OnUnknown.WAIT


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a plan. `patience` in seconds; `routes` best first, never empty."""

    channel: str
    routes: tuple[PlannedRoute, ...]
    patience: int
    until: Until
    on_failed: OnFailed = OnFailed.ADVANCE
    on_unknown: OnUnknown = OnUnknown.WAIT

    def route(self, name: str) -> PlannedRoute:
        """The route of that name. Attempts of a step are only ever made on its own routes."""
        for route in self.routes:
            if route.name == name:
                return route
        raise LookupError(f"the plan has no route {name!r} in this step")

    def awaits(self, route: PlannedRoute) -> Until:
        """What the step waits for on this route (rule 4)."""
        if self.until in {Until.VERIFIED, Until.SENT}:
            return self.until
        wanted = _STATES[self.until]
        able = any(state.reaches(wanted) for state in route.confirms)
        return self.until if able else Until.VERIFIED


NO_ADDRESS = "no_address"  # the recipient was given none for the channel


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A route that this recipient's plan does without, and why: what its provider said of the
    number, or NO_ADDRESS."""

    channel: str
    route: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one verification, as resolved when it was accepted."""

    workflow: str
    steps: tuple[PlannedStep, ...]
    left_out: tuple[LeftOut, ...] = ()
    region: str = ""  # the ISO country it was resolved for


def less(plan: Plan, shut: Shut) -> Plan | None:
    """The plan less the routes that are shut: paused ones stay in a step where all are, disabled
    ones go, and steps without routes with them. None when nothing is left; the plan itself when
    nothing goes.
    """
    kept = [(step, usable(step.routes, shut)) for step in plan.steps]
    if all(routes == step.routes for step, routes in kept):
        return plan
    steps = tuple(replace(step, routes=routes) for step, routes in kept if routes)
    return replace(plan, steps=steps) if steps else None


def usable(routes: tuple[PlannedRoute, ...], shut: Shut) -> tuple[PlannedRoute, ...]:
    """Of a step's routes those that may be used now, best first. All paused: it is the world, and
    the configured order holds (F30). Empty when all are disabled.
    """
    if shut is OPEN or not shut:  # who it is costs less than what it says
        return routes
    allowed = tuple(route for route in routes if route.name not in shut.disabled)
    return tuple(route for route in allowed if route.name not in shut.paused) or allowed


def without(plan: Plan, why: Callable[[str, PlannedRoute], str | None]) -> Plan:
    """The plan less the routes of which `why` (channel, route) tells a reason; steps without routes
    go with them. The plan itself where there is nothing to leave out, or nothing would be left: a
    try that will probably fail beats none, and is how a stale belief is found out.
    """
    steps, left_out = [], []
    for step in plan.steps:
        reasons = [why(step.channel, route) for route in step.routes]
        left_out += [
            LeftOut(step.channel, route.name, reason)
            for route, reason in zip(step.routes, reasons, strict=True)
            if reason is not None
        ]
        able = tuple(r for r, reason in zip(step.routes, reasons, strict=True) if reason is None)
        if able:
            steps.append(replace(step, routes=able))
    return (
        replace(plan, steps=tuple(steps), left_out=(*plan.left_out, *left_out))
        if steps and left_out
        else plan
    )


@value
class Send:
    """Submit: a new attempt of that step on that route, or (`attempt_id`) one already stored."""

    step: int
    route: PlannedRoute
    cause: Cause
    resend: int = 0
    attempt_id: UUID | None = None


@value
class Poll:
    """Ask the provider how this attempt is doing."""

    attempt_id: UUID
    route: PlannedRoute


@value
class Wait:
    """Nothing to do before that moment, unless something is heard."""

    until: datetime


@value
class Finish:
    """The verification ends, or has ended, so."""

    status: Status


Action = Send | Poll | Wait | Finish


class Asked(StrEnum):
    """What a person or operator may ask for, beside letting time pass."""

    RESEND = "resend"
    NEXT = "next"


def next_action(
    plan: Plan,
    verification: Verification,
    attempts: Sequence[Attempt],
    now: datetime,
    asked: Asked | None = None,
    *,
    shut: Shut = OPEN,
) -> Action:
    """What is to be done now. `attempts`: all of the verification, by ordinal; `shut`: routes that
    another one of the step is to be preferred to."""
    return following(plan, verification, lapsed(attempts, now), now, asked, shut=shut)


def following(
    plan: Plan,
    verification: Verification,
    attempts: Sequence[Attempt],
    now: datetime,
    asked: Asked | None,
    *,
    shut: Shut,
) -> Action:
    """As `next_action`, of attempts that `lapsed` has been applied to."""
    expires_at = verification.expires_at
    if verification.status is not _PENDING or now >= expires_at:
        return Finish(verification.status_at(now))
    if asked is None:
        for attempt in attempts:
            if satisfied(plan, attempt) and not _asked_for(attempts):
                return Wait(expires_at)
    action = _wanted(plan, verification, attempts, now, asked, shut=shut)
    if isinstance(action, Send) and not _may_send(verification, attempts, action, now):
        action = Wait(expires_at)
    if not isinstance(action, Wait):
        return action
    if action.until >= expires_at:
        if asked is None and attempts and all(attempt.refused for attempt in attempts):
            return Finish(Status.FAILED)
        return Wait(expires_at)
    return action


def wake_at(
    plan: Plan,
    verification: Verification,
    attempts: Sequence[Attempt],
    now: datetime,
    shut: Shut = OPEN,
) -> datetime | None:
    """When somebody must look again: the moment of the next action, None after the end."""
    match next_action(plan, verification, attempts, now, shut=shut):
        case Wait(until):
            return until
        case Finish(status):
            return now if verification.status is not status else None
        case Send() | Poll():
            return now


def lapse(attempt: Attempt, now: datetime) -> Attempt:
    """A claim that ran out without an outcome (a crash in between): nobody knows, so SENT."""
    if attempt.claimed_until is None or now < attempt.claimed_until:
        return attempt
    moved = attempt.state is State.QUEUED
    return attempt._replace(
        state=State.SENT if moved else attempt.state,
        outcome=attempt.outcome or Outcome.UNKNOWN,
        reason="claim_lapsed" if moved else attempt.reason,
        sent_at=attempt.sent_at or attempt.claimed_until,
        claimed_until=None,
    )


def lapsed(attempts: Sequence[Attempt], now: datetime) -> Sequence[Attempt]:
    """All of them, `lapse` applied; the very same where no claim has run out."""
    for attempt in attempts:
        claimed_until = attempt.claimed_until
        if claimed_until is not None and now >= claimed_until:
            return [lapse(one, now) for one in attempts]
    return attempts


def satisfied(plan: Plan, attempt: Attempt) -> bool:
    """Rule 1, for one attempt. A state that its route cannot report (rule 4) is never reached."""
    return attempt.state in _ENOUGH[plan.steps[attempt.step].until]


def _asked_for(attempts: Sequence[Attempt]) -> bool:
    """Somebody asked for the last message and it has not left: what arrived before is no reason."""
    if not attempts:
        return False
    last = attempts[-1]
    if last.state in ARRIVED or not (last.waiting or last.refused):
        return False
    return _opening(attempts, last)[0].cause in _PERSON


def unwanted(status: Status, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Messages under way that nobody waits for any more: the verification was canceled, or a later
    step's message was accepted. One that is only being tried does not count, lest the sole message
    that is out be taken back, and a resend is no later step.

    Once an attempt is here it stays until something else is heard of it: whoever compares before
    and after finds it once.
    """
    accepted = max((one.step for one in attempts if one.outcome is Outcome.ACCEPTED), default=-1)
    return [
        one
        for one in attempts
        if one.state in {State.SENT, State.ACK}
        and one.reference is not None
        and (status is Status.CANCELED or one.step < accepted)
    ]


def starts(plan: Plan) -> list[int]:
    """The second, counted from accept, at which each step starts when all before are silent."""
    spans = [
        step.patience + (POLL_SECONDS if any(route.polls for route in step.routes) else 0)
        for step in plan.steps
    ]
    return [sum(spans[:at]) for at in range(len(spans))]


def patience_ends(plan: Plan, at: int, expires_at: datetime, now: datetime) -> datetime:
    """When an attempt of step `at`, queued now, is overdue.

    A deadline is seen by a pass a moment later. Where the next step may start at the last moment
    only, that moment would be past by then: the patience ends PASS_SECONDS before it.
    """
    step = plan.steps[at]
    ends = now + timedelta(seconds=step.patience)
    if at + 1 == len(plan.steps):
        return ends
    polled = POLL_SECONDS if any(route.polls for route in step.routes) else 0
    latest = expires_at - timedelta(seconds=MIN_LIFE + polled)
    room = timedelta(seconds=PASS_SECONDS)
    return latest - room if abs(ends - latest) < room else ends


def too_late(plan: Plan, ttl: int) -> int | None:
    """The first step that could not start before expiry less MIN_LIFE; None when all can."""
    late = [at for at, second in enumerate(starts(plan)) if second > ttl - MIN_LIFE]
    return late[0] if late else None


def retry_delay(attempts: Sequence[Attempt], refused: Attempt) -> float:
    """Seconds until a route that refused is tried again: 1, 2, 4, by how often it has refused."""
    earlier = sum(
        1
        for other in _opening(attempts, refused)
        if other.refused and other.route == refused.route and other is not refused
    )
    return float(2 ** min(earlier, 2))


def _may_send(
    verification: Verification, attempts: Sequence[Attempt], action: Send, now: datetime
) -> bool:
    """Rule 3."""
    if verification.expires_at - now < _MIN_LIFE:
        return False
    return action.attempt_id is not None or len(attempts) < MAX_ATTEMPTS


def _wanted(
    plan: Plan,
    verification: Verification,
    attempts: Sequence[Attempt],
    now: datetime,
    asked: Asked | None,
    *,
    shut: Shut,
) -> Action:
    step = verification.step
    last = attempts[-1] if attempts else None
    if last is not None and last.step != step:
        last = latest(attempts, step)
    if last is None:
        return _enter(plan, verification, step, _FIRST, shut)
    if asked is not None:
        if asked is Asked.NEXT:
            return _advance(plan, verification, Cause.NEXT, shut)
        return _resend(plan, verification, last, shut)
    if last.outcome in REFUSALS and last.refused:  # a field costs a tenth of a property
        return _refused(plan, verification, attempts, last, now, shut=shut)
    state, claimed_until = last.state, last.claimed_until
    if state is _FAILED:  # said by a receipt: counts even while the call is under way
        return _failed(plan, verification, last, now, shut)
    if claimed_until is not None and now < claimed_until:
        return Wait(min(claimed_until, verification.expires_at))
    if state is _QUEUED and last.waiting:
        return _waiting(plan, verification, last, now, shut)
    return _silent(plan, verification, attempts, last, now, shut=shut)


def latest(attempts: Sequence[Attempt], step: int) -> Attempt | None:
    """The last attempt of a step."""
    for attempt in reversed(attempts):
        if attempt.step == step:
            return attempt
    return None


def _advance(plan: Plan, verification: Verification, cause: Cause, shut: Shut) -> Send | Wait:
    """The next step, or waiting for check or expiry where there is none."""
    return _enter(plan, verification, verification.step + 1, cause, shut)


def _enter(
    plan: Plan, verification: Verification, first: int, cause: Cause, shut: Shut
) -> Send | Wait:
    """That step, or the first one after it whose routes are not all disabled."""
    for at in range(first, len(plan.steps)):
        routes = usable(plan.steps[at].routes, shut)
        if routes:
            return Send(at, routes[0], cause)
    return Wait(verification.expires_at)


def _resend(plan: Plan, verification: Verification, last: Attempt, shut: Shut) -> Send | Wait:
    """Rule 10."""
    step = plan.steps[last.step]
    routes = usable(step.routes, shut)
    same = [route for route in routes if route.name == last.route]
    if last.waiting and same:
        return Send(last.step, same[0], last.cause, last.resend, last.id)
    others = [route for route in routes if route.name != last.route]
    for route in [*others, *same][:1]:
        return Send(last.step, route, Cause.RESEND, last.resend + 1)
    return _advance(plan, verification, Cause.RESEND, shut)


def _waiting(
    plan: Plan, verification: Verification, last: Attempt, now: datetime, shut: Shut
) -> Action:
    """No slot was free. Its step may pass meanwhile; without a next one it keeps its place."""
    if now >= last.overdue_at:
        onward = _advance(plan, verification, Cause.SILENCE, shut)
        if isinstance(onward, Send):
            return onward
    if last.route in shut.disabled:
        others = usable(plan.steps[last.step].routes, shut)
        if others:
            return Send(last.step, others[0], last.cause, last.resend)
        return Wait(
            _soonest(last.overdue_at if now < last.overdue_at else None, verification.expires_at)
        )
    if last.retry_at is not None and now < last.retry_at:
        return Wait(_soonest(last.retry_at, verification.expires_at))
    return _again(plan, last)


def _again(plan: Plan, last: Attempt) -> Send:
    route = plan.steps[last.step].route(last.route)
    return Send(last.step, route, last.cause, last.resend, last.id)


def _refused(
    plan: Plan,
    verification: Verification,
    attempts: Sequence[Attempt],
    last: Attempt,
    now: datetime,
    *,
    shut: Shut,
) -> Action:
    """Rule 5."""
    opening = _opening(attempts, last)
    unknown = any(attempt.outcome is _UNKNOWN for attempt in opening)
    if last.outcome in _FINAL or unknown:
        return _advance(plan, verification, Cause.REFUSED, shut)
    step = plan.steps[last.step]
    tried = {attempt.route for attempt in opening}
    routes = usable(step.routes, shut)
    untried = [route for route in routes if route.name not in tried]
    if untried:
        return Send(last.step, untried[0], Cause.REFUSED, last.resend)
    patience_ends = opening[0].queued_at + timedelta(seconds=step.patience)
    last_ones = [_latest(opening, route) for route in routes]
    # Credentials and credit do not mend themselves in seconds.
    last_ones = [attempt for attempt in last_ones if attempt.outcome is not Outcome.ACCOUNT]
    if not last_ones or len(opening) >= len(step.routes) + MAX_REPEATS:
        return _advance(plan, verification, Cause.REFUSED, shut)
    soonest = min(last_ones, key=lambda attempt: attempt.retry_at or now)
    retry_at = soonest.retry_at or now
    if retry_at >= patience_ends:
        return _advance(plan, verification, Cause.REFUSED, shut)
    if now < retry_at:
        return Wait(_soonest(retry_at, verification.expires_at))
    return Send(last.step, step.route(soonest.route), Cause.REFUSED, last.resend)


def _latest(opening: Sequence[Attempt], route: PlannedRoute) -> Attempt:
    return [attempt for attempt in opening if attempt.route == route.name][-1]


def _failed(
    plan: Plan, verification: Verification, last: Attempt, now: datetime, shut: Shut
) -> Action:
    """A receipt says it will not arrive."""
    step = plan.steps[last.step]
    if step.on_failed is OnFailed.WAIT and now < last.overdue_at:
        return Wait(_soonest(last.overdue_at, verification.expires_at))
    return _advance(plan, verification, Cause.FAILED, shut)


def _silent(
    plan: Plan,
    verification: Verification,
    attempts: Sequence[Attempt],
    last: Attempt,
    now: datetime,
    *,
    shut: Shut,
) -> Action:
    """Handed over, and what the step waits for has not been heard: rules 2, 6 and 9."""
    overdue_at = last.overdue_at
    lost = last.outcome is _UNKNOWN and last.state is _SENT
    if not lost and now < overdue_at:
        return Wait(min(overdue_at, verification.expires_at))
    step = plan.steps[last.step]
    route = step.route(last.route)
    routes = usable(step.routes, shut)
    if now < overdue_at:
        disabled = last.route in shut.disabled
        if route.idempotent and last.tries < MAX_TRIES and not disabled:
            return _resubmit(plan, last, now)
        opted = step.on_unknown is OnUnknown.RESUBMIT and not route.idempotent
        if opted and _unknowns(attempts, last) == 1 and routes:
            same = route if route in routes else routes[0]
            return Send(last.step, same, Cause.UNKNOWN, last.resend)
        return Wait(min(overdue_at, verification.expires_at))
    if route.polls and last.reference is not None and not last.refused:
        if last.polled_at is None:
            return Poll(last.id, route)
        answer_by = last.polled_at + timedelta(seconds=POLL_SECONDS)
        if now < answer_by:
            return Wait(_soonest(answer_by, verification.expires_at))
    onward = _advance(plan, verification, Cause.SILENCE, shut)
    if isinstance(onward, Wait) and lost and _unknowns(attempts, last) == 1 and routes:
        others = [other for other in routes if other.name != last.route]
        return Send(last.step, (others or [*routes])[0], Cause.UNKNOWN, last.resend)
    return onward


def _resubmit(plan: Plan, last: Attempt, now: datetime) -> Action:
    """The same attempt under its idempotency key, a little later each time."""
    if last.retry_at is not None and now < last.retry_at:
        return Wait(_soonest(last.retry_at, last.overdue_at))
    return _again(plan, last)


def _opening(attempts: Sequence[Attempt], last: Attempt) -> list[Attempt]:
    """The attempts of one patience: same step, same count of resends."""
    return [a for a in attempts if a.step == last.step and a.resend == last.resend]


def _unknowns(attempts: Sequence[Attempt], last: Attempt) -> int:
    return sum(1 for attempt in _opening(attempts, last) if attempt.outcome is _UNKNOWN)


def _soonest(moment: datetime | None, other: datetime) -> datetime:
    return other if moment is None else min(moment, other)
