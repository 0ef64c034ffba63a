"""What an operator asks of a running verification: the next step, the same step again, an end.

The rules are those of the person and the client; only who asked is written down differently.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from gateway.domain.errors import NotFound
from gateway.domain.verification import Status
from gateway.services import resend, verify
from gateway.services.case import Case, Context
from gateway.services.runtime import Runtime
from gateway.services.verify import Changed
from gateway.store.ledger import Operation, Transaction, Wants
from gateway.store.records import Source


class Wish(StrEnum):
    """What is asked for."""

    NEXT = "next"
    RESEND = "resend"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Ask(Operation[Changed]):
    """An operator's wish for one verification, of whichever client."""

    verification_id: UUID
    wish: Wish


async def ask(runtime: Runtime, named: UUID, wish: Wish) -> Changed:
    """The verification as it is then.

    Raises NotFound, what an ended verification answers, Conflict `no_step_left` or `too_late`,
    Limited `cool_down`, `sends_used_up` or `too_late`, Unavailable `no_route`.
    """
    return await runtime.ledger.submit(Ask(named, wish))


def wants(operation: Ask) -> Wants:
    """The verification."""
    return Wants(verifications=(operation.verification_id,))


def apply(tx: Transaction, context: Context, operation: Ask, now: datetime) -> Changed:
    """Do it, where the rules let it be done."""
    case = Case.open(tx, context, operation.verification_id, now)
    if case is None:
        raise NotFound("verification_not_found", "There is no such verification.")
    current = case.verification
    if operation.wish is Wish.NEXT:
        return verify.apply_next(tx, context, verify.Next(current.client_id, current.id), now)
    if current.status_at(now) is not Status.PENDING:
        raise verify.ended(current.status_at(now), current)
    if operation.wish is Wish.CANCEL:
        case.end(Status.CANCELED, Source.OPERATOR)
    else:
        resend.foreseen(case)
        resend.once_more(case)
    case.close()
    return Changed(case.verification, case.plan, tuple(case.attempts))
