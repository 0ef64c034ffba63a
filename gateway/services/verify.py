"""Check a code, cancel, send the next step now: what a client asks of a running verification."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.domain import limits, verification, workflow
from gateway.domain.delivery import Attempt, State
from gateway.domain.errors import Conflict, Ended, GatewayError, Limited, NotFound
from gateway.domain.health import Heard
from gateway.domain.policy import failures_keys
from gateway.domain.verification import Matched, Over, Status, Verification, Wrong
from gateway.domain.workflow import Asked, Plan, Send
from gateway.services import counting, linking
from gateway.services.case import Case, Context, Note, addresses_of, code_of, counted_under
from gateway.services.runtime import Runtime
from gateway.store.ledger import Operation, Transaction, Wants
from gateway.store.records import Source


@dataclass(frozen=True, slots=True)
class Changed:
    """The verification as it is now."""

    verification: Verification
    plan: Plan
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Check(Operation[Changed | GatewayError]):
    """Compare one submitted code. A wrong one is counted, so its refusal is a result: an exception
    would undo nothing, but says that nothing was done."""

    client_id: UUID
    verification_id: UUID
    code: str
    failures: tuple[bytes, ...]  # the counters, one for each address the code may have gone to


@dataclass(frozen=True, slots=True)
class Cancel(Operation[Changed]):
    """Stop a running verification."""

    client_id: UUID
    verification_id: UUID


@dataclass(frozen=True, slots=True)
class Next(Operation[Changed]):
    """Send the next step now."""

    client_id: UUID
    verification_id: UUID


async def checking(
    runtime: Runtime,
    client_id: UUID,
    named: UUID,
    code: str,
    *,
    amount: str | None = None,
    payee: str | None = None,
) -> Check:
    """The operation that checks a code. `amount` and `payee`: what it must have been sent for.

    Raises InvalidInput `amount_mismatch` (not counted) or NotFound `verification_not_found`.
    """
    found = await runtime.reads.verification(named)
    if found is None or found[0].client_id != client_id:
        raise _not_found()
    current, plan = found
    linking.demand(runtime.keyring, current, amount, payee)
    indexes = counted_under(runtime.keyring, current, plan)
    return Check(client_id, named, code, failures_keys(client_id, indexes))


def wants_check(operation: Check) -> Wants:
    """The verification and the count of wrong checks."""
    return Wants(verifications=(operation.verification_id,), counters=operation.failures)


def apply_check(
    tx: Transaction, context: Context, operation: Check, now: datetime
) -> Changed | GatewayError:
    """Count, compare, consume: one row, one write.

    Returned: NotFound `wrong_code` (counted, with `checks_left`), Conflict `already_verified`,
    Ended `expired`, `canceled` or `failed`, Limited `checks_used_up`. Raised: NotFound
    `verification_not_found`, Limited `failure_budget_used_up`.
    """
    case = _open(tx, context, operation.client_id, operation.verification_id, now)
    current = case.verification
    if current.status_at(now) is Status.PENDING:
        for key in operation.failures:
            limits.failures(tx.counter(key), now)
    expected = code_of(context.keyring, current)
    match verification.check(current, operation.code, expected, now):
        case Over(status):
            return _closed(case, status)
        case Wrong(after):
            case.verification = after
            for key in operation.failures:
                tx.put_counter(limits.count_failure(tx.counter(key), key, now))
            if after.status is not Status.PENDING:
                case.ended(Source.CHECK)
            case.close()
            _note(case, "check_failed")
            return _wrong(after)
        case Matched(after):
            case.verification = after
            _prove(case)
            case.ended(Source.CHECK)
            if context.policy.guard is not None:
                found = addresses_of(context.keyring, after)
                counting.count_verified(tx, context.policy, after, found)
            case.close()
            _note(case, "check_passed")
            return _changed(case)


def _prove(case: Case) -> None:
    """A correct check proves delivery of the one attempt that can have carried the code. With two
    under way nobody knows which arrived."""
    carriers = [one for one in case.attempts if not one.refused and not one.waiting]
    if len(carriers) != 1:
        return
    case.count(carriers[0].route, Heard.VERIFIED)
    if not carriers[0].state.reaches(State.DELIVERED):
        case.hear(State.DELIVERED, Source.CHECK, list(carriers[0]))


def _closed(case: Case, status: Status) -> GatewayError:
    if case.verification.status is Status.PENDING:  # its time ran out and nobody had written so
        case.decide()
        case.close()
    return ended(status, case.verification)


def ended(status: Status, current: Verification) -> GatewayError:
    """What an ended verification answers."""
    facts = {"checks_left": current.checks_left, "verification_status": status}
    match status:
        case Status.VERIFIED:
            detail = "The code was right before and has been used."
            return Conflict("already_verified", detail, facts=facts)
        case Status.LOCKED:
            detail = "All checks are used up. Send a new code."
            return Limited("checks_used_up", detail, facts=facts)
        case Status.CANCELED:
            return Ended("canceled", "The verification was canceled. Send a new code.", facts=facts)
        case Status.FAILED:
            detail = "No provider took the message. Send a new code."
            return Ended("failed", detail, facts=facts)
        case _:
            return Ended("expired", "The code has expired. Send a new one.", facts=facts)


def _wrong(after: Verification) -> GatewayError:
    left = after.checks_left
    more = "1 more check is allowed." if left == 1 else f"{left or 'No'} more checks are allowed."
    facts = {"checks_left": left, "verification_status": after.status}
    return NotFound("wrong_code", f"This is not the code. {more}", facts=facts)


def wants_cancel(operation: Cancel) -> Wants:
    return Wants(verifications=(operation.verification_id,))


def apply_cancel(tx: Transaction, context: Context, operation: Cancel, now: datetime) -> Changed:
    """End it; again if it was canceled. Raises NotFound, Conflict or Ended."""
    case = _open(tx, context, operation.client_id, operation.verification_id, now)
    status = case.verification.status_at(now)
    if status is Status.CANCELED:
        return _changed(case)
    if status is not Status.PENDING:
        raise ended(status, case.verification)
    case.end(Status.CANCELED, Source.CLIENT)
    case.close()
    return _changed(case)


def wants_next(operation: Next) -> Wants:
    return Wants(verifications=(operation.verification_id,))


def apply_next(tx: Transaction, context: Context, operation: Next, now: datetime) -> Changed:
    """Advance, when the plan has a step left and the code time.

    Raises NotFound, Conflict `no_step_left` or `too_late`, Limited `cool_down`, or what an ended
    one answers.
    """
    case = _open(tx, context, operation.client_id, operation.verification_id, now)
    status = case.verification.status_at(now)
    if status is not Status.PENDING:
        raise ended(status, case.verification)
    shut = context.standing.shut
    looked = workflow.next_action(
        case.plan, case.verification, case.attempts, now, Asked.NEXT, shut=shut
    )
    if not isinstance(looked, Send):
        if case.verification.step + 1 >= len(case.plan.steps):
            raise Conflict("no_step_left", "The last step of the workflow is under way already.")
        raise Conflict("too_late", "Too little of the code's life is left to send it once more.")
    limits.next_step(case.attempts, now)
    case.decide(Asked.NEXT)
    case.close()
    return _changed(case)


def _open(tx: Transaction, context: Context, client_id: UUID, named: UUID, now: datetime) -> Case:
    case = Case.open(tx, context, named, now)
    if case is None or case.verification.client_id != client_id:
        raise _not_found()
    return case


def _not_found() -> NotFound:
    return NotFound("verification_not_found", "This client has no such verification. Check the id.")


def _changed(case: Case) -> Changed:
    return Changed(case.verification, case.plan, tuple(case.attempts))


def _note(case: Case, event: str) -> None:
    current = case.verification
    facts = {
        "verification_id": current.id,
        "checks_left": current.checks_left,
        "status": current.status,
    }
    case.tx.after.append(Note(event, facts))
