"""The same code once more: the person asked again, or an operator for that person."""

from gateway.domain import limits, workflow
from gateway.domain.errors import Limited, Unavailable
from gateway.domain.health import OPEN, Shut
from gateway.domain.workflow import Action, Asked, Send, Wait
from gateway.services.case import Case


def foreseen(case: Case) -> Action:
    """What `once_more` would begin with; nothing is changed.

    Raises Limited `cool_down` or `sends_used_up`; Unavailable `no_route` where operators have
    disabled what could carry it; Limited `too_late` where no message would go out otherwise.
    """
    running, now = case.verification, case.now
    limits.resend(running, now)
    action = _next(case, case.context.standing.shut)
    if not isinstance(action, Wait):
        return action
    if isinstance(_next(case, OPEN), Send):
        raise Unavailable(
            "no_route",
            "Every route that could carry this code has been disabled. Codes that were sent stay "
            "valid until it expires; ask the operator.",
            retry_after=60,
        )
    raise Limited(
        "too_late",
        "The running verification is about to expire; a code sent now could not be used. Ask "
        "again when it has.",
        retry_after=(running.expires_at - now).total_seconds(),
    )


def _next(case: Case, shut: Shut) -> Action:
    return workflow.next_action(
        case.plan, case.verification, case.attempts, case.now, Asked.RESEND, shut=shut
    )


def once_more(case: Case) -> None:
    """Count the send, and begin it."""
    running = case.verification
    case.verification = running._replace(sends_used=running.sends_used + 1, sent_at=case.now)
    case.decide(Asked.RESEND)
