"""The pass over what is due: fall back, poll, close, pick up what waited or was left by a crash.

It holds no timer and no list: `wake_at` in the row says when somebody must look, and whoever
passes looks. Killed at any point, the next pass finds the same.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from gateway.domain.delivery import Attempt
from gateway.domain.verification import MIN_LIFE, Status
from gateway.services import receive
from gateway.services.case import Case, Context
from gateway.services.receive import Sweep
from gateway.services.runtime import Runtime
from gateway.store.ledger import Operation, Transaction, Wants
from gateway.store.records import Mark

PASS = "reconcile"  # the name of the mark  # noqa: S105 (no password)
LIMIT = 100  # verifications a pass takes; with ten passes a second the bound after an outage
MARK_EVERY = timedelta(seconds=2)  # how often the pass leaves its mark
OUTAGE = timedelta(seconds=10)  # a gap between marks that counts as nobody having passed
GRACE = timedelta(seconds=30)  # what patience that ran out in such a gap gets on top
PARKED_FOR = timedelta(hours=72)  # how long a receipt waits for its reference
PARKED_MOST = 10_000  # receipts kept aside per account


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which nobody passed."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Wake(Operation[int]):
    """Look at what is due (`limit`), or at these whose slot may be free. How many were looked at.

    `gap`: patience that ran out in it is extended, for receipts from that time are being repeated.
    """

    limit: int = 0
    named: tuple[UUID, ...] = ()
    gap: Gap | None = None
    mark: bool = False


def wants(operation: Wake) -> Wants:
    """Whatever is due, or those named."""
    return Wants(due=operation.limit, verifications=operation.named)


def apply(tx: Transaction, context: Context, operation: Wake, now: datetime) -> int:
    """Decide for each, under its lock."""
    looked = 0
    due = tx.due if operation.limit else ()
    for named in dict.fromkeys((*due, *operation.named)):
        case = Case.open(tx, context, named, now)
        if case is None or case.verification.status is not Status.PENDING:
            continue
        looked += 1
        for attempt in list(case.attempts):
            _prepare(case, attempt, operation)
        case.decide()
        case.close()
    if operation.mark:
        tx.put_mark(Mark(PASS, now))
    return looked


def _prepare(case: Case, attempt: Attempt, operation: Wake) -> None:
    if attempt.waiting and case.verification.id in operation.named:
        case.change(attempt._replace(retry_at=None))  # a slot is free: no need to wait longer
    gap = operation.gap
    if gap is not None and gap.since < attempt.overdue_at <= gap.until:
        latest = case.verification.expires_at - timedelta(seconds=MIN_LIFE)
        extended = min(gap.until + GRACE, max(latest, attempt.overdue_at))
        case.change(case.attempt(attempt.id)._replace(overdue_at=extended))


def gap_between(last: datetime | None, now: datetime) -> Gap | None:
    """The outage that ends now, if the last pass is long enough ago."""
    if last is None or now - last < OUTAGE:
        return None
    return Gap(last, now)


@dataclass(slots=True)
class Passing:
    """What a process remembers between its passes."""

    marked_at: datetime | None = None
    gap: Gap | None = None


async def run_once(runtime: Runtime, passing: Passing, now: datetime) -> int:
    """One pass: at most LIMIT verifications. How many were looked at.

    Raises Unavailable when the ledger takes nothing; the next pass finds the same work.
    """
    if passing.marked_at is None:
        passing.gap = gap_between(runtime.reads.mark(PASS), now)
    mark = passing.marked_at is None or now - passing.marked_at >= MARK_EVERY
    soonest = runtime.reads.soonest()
    due = soonest is not None and soonest <= now
    if not due:
        passing.gap = None  # all that ran out in the outage has been seen
    if not due and not mark:
        return 0
    wake = Wake(limit=LIMIT if due else 0, gap=passing.gap, mark=mark)
    looked = await runtime.ledger.submit(wake)
    if mark:
        passing.marked_at = now
    return looked


async def sweep(runtime: Runtime, now: datetime) -> int:
    """The second net under parked receipts. How many it took away."""
    kept = runtime.reads.kept(1000)
    pairs = [(one.account, one.reference) for one in kept if one.reference is not None]
    known = runtime.reads.referenced(pairs) if pairs else set()
    linked = tuple(
        one for one in kept
        if one.why == receive.PARKED and (one.account, one.reference) in known
    )  # fmt: skip
    over = receive.expired(kept, now - PARKED_FOR)
    for account in {one.account for one in kept}:
        excess = runtime.reads.kept_count(account) - PARKED_MOST
        if excess > 0:
            oldest = [one for one in kept if one.account == account and one not in over]
            over += tuple(oldest[:excess])
    gone = tuple(one for one in over if one not in linked)
    if not linked and not gone:
        return 0
    return await runtime.ledger.submit(Sweep(linked, gone))
