"""The spans of a verification: one trace from the caller's request to the last receipt, whichever
process does the next step and however often it was restarted, since its context is stored with the
verification.

Only a verification whose caller sent a `traceparent` has one; for all others each place costs a
truth test. No span holds a number, a code, a provider's words or a secret: ids, names of ours and
states are all there is.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from gateway.domain.delivery import Cause
from gateway.ports import Facts, Request, Span, Tracer
from gateway.services.case import Handover, Note, Traced
from gateway.services.left import Left
from gateway.services.metering import Heard, kind_of

R = TypeVar("R")


def dispatching(tracer: Tracer, handover: Handover) -> Span | None:
    """The span of handing an attempt over; None when its verification has no trace."""
    trace, attempt = handover.verification.trace, handover.attempt
    if trace is None:
        return None
    facts: Facts = {
        "otp.verification.id": str(attempt.verification_id),
        "otp.attempt.id": str(attempt.id),
        "otp.attempt.ordinal": attempt.ordinal,
        "otp.attempt.cause": str(attempt.cause),
        "otp.attempt.tries": attempt.tries,
        "otp.channel": attempt.channel,
        "otp.route": attempt.route,
    }
    return tracer.begin("otp.dispatch", trace, facts, outbound=True)


def dispatched(span: Span | None, result: object) -> None:
    """The call is over."""
    if span is not None:
        span.end(kind_of(result))


def posting(
    tracer: Tracer, trace: str | None, event: str, verification_id: UUID, subscription_id: UUID
) -> Span | None:
    """The span of one webhook; None when its verification has no trace."""
    if trace is None:
        return None
    facts: Facts = {
        "otp.verification.id": str(verification_id),
        "otp.subscription.id": str(subscription_id),
        "otp.event": event,
    }
    return tracer.begin("otp.webhook", trace, facts, outbound=True)


def told(request: object, span: Span | None, *, allowed: bool) -> None:
    """Name our span to a provider, where its route's settings allow that."""
    if span is not None and allowed and isinstance(request, Request):
        request.headers["traceparent"] = span.context


def follow(tracer: Tracer, left: Left) -> None:
    """The spans of what a committed batch left behind."""
    for item in left.get(Traced, ()):
        for one in item.items:
            _record(tracer, item, one)


def _record(tracer: Tracer, traced: Traced, item: object) -> None:
    match item:
        case Heard():
            facts: dict[str, Any] = {
                "otp.route": item.route,
                "otp.channel": item.channel,
                "otp.receipt.source": item.source,
                "otp.receipt.verdict": item.verdict,
            }
            if item.state is not None:
                facts["otp.attempt.state"] = str(item.state)
            _instant(tracer, "otp.receipt", traced, facts)
        case Handover() if item.attempt.cause is not Cause.FIRST and item.attempt.tries == 1:
            facts = {
                "otp.attempt.id": str(item.attempt.id),
                "otp.attempt.cause": str(item.attempt.cause),
                "otp.channel": item.attempt.channel,
                "otp.route": item.attempt.route,
            }
            name = "otp.resend" if item.attempt.cause is Cause.RESEND else "otp.fallback"
            _instant(tracer, name, traced, facts)
        case Note(event="verification_ended", facts=ended):
            facts = {"otp.status": str(ended["status"]), "otp.source": str(ended["source"])}
            _instant(tracer, "otp.ended", traced, facts)


def _instant(tracer: Tracer, name: str, traced: Traced, facts: Mapping[str, Any]) -> None:
    whose = {"otp.verification.id": str(traced.verification_id)}
    tracer.record(name, traced.trace, {**whose, **facts}, at=traced.at)


async def until(span: Span, answering: Callable[[], Awaitable[R]]) -> R:
    """The answer to a request within its span, on which everything later hangs."""
    outcome = "refused"
    try:
        answer = await answering()
        outcome = "stored"
    finally:
        span.end(outcome)
    return answer
