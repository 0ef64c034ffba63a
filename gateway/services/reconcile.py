"""The pass over what is due: fall back, poll, close, pick up what waited or was left by a crash.

It holds no timer and no list: `wake_at` in the row says when somebody must look, and whoever
passes looks. Killed at any point, the next pass finds the same.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from gateway.domain.verification import Status
from gateway.services.case import GRACE, Case, Context, Gap, Note
from gateway.services.receive import Sweep
from gateway.services.runtime import Runtime
from gateway.store.ledger import Operation, Transaction, Wants
from gateway.store.records import Crowd, Mark

__all__ = ["GRACE", "Gap", "Passing", "Wake", "gap_between", "run_once", "sweep"]

PASS = "reconcile"  # the name of the mark  # noqa: S105 (no password)
LIMIT = 100  # verifications a pass takes; with ten passes a second the bound after an outage
MARK_EVERY = timedelta(seconds=2)  # how often the pass leaves its mark
OUTAGE = timedelta(seconds=10)  # a gap between marks that counts as nobody having passed
PUT_OFF = timedelta(seconds=60)  # until a row whose look failed is looked at again
PARKED_FOR = timedelta(hours=72)  # how long a receipt waits for its reference
PARKED_MOST = 10_000  # receipts kept aside per account, and parts whose attempt is known
LINKED_MOST = 1000  # receipts that one sweep links


@dataclass(frozen=True, slots=True)
class Wake(Operation[int]):
    """Look at what is due (`limit`), or at those whose slot may be free. How many it were."""

    limit: int = 0
    named: tuple[UUID, ...] = ()
    mark: bool = False


def wants(operation: Wake) -> Wants:
    """Whatever is due, or those named."""
    return Wants(due=operation.limit, verifications=operation.named)


def apply(tx: Transaction, context: Context, operation: Wake, now: datetime) -> int:
    """Decide for each, under its lock."""
    looked = 0
    due = tx.due if operation.limit else ()
    for named in dict.fromkeys((*due, *operation.named)):
        try:
            looked += _look(tx, context, operation, named, now)
        except Exception as error:  # noqa: BLE001  one odd row must not stop a hundred others
            facts = {"verification_id": str(named), "problem": type(error).__name__}
            tx.after.append(Note("look_failed", facts, level="error"))
            _put_off(tx, named, now)
    if operation.mark:
        tx.put_mark(Mark(PASS, now))
    return looked


def _look(tx: Transaction, context: Context, operation: Wake, named: UUID, now: datetime) -> int:
    case = Case.open(tx, context, named, now)
    if case is None or case.verification.status is not Status.PENDING:
        return 0
    if named in operation.named:
        _hurry(case)
    case.decide()
    case.close()
    return 1


def _put_off(tx: Transaction, named: UUID, now: datetime) -> None:
    """A row that cannot be decided goes to the end of the queue, or nobody behind it is seen."""
    odd = tx.verification(named)
    if odd is not None and odd.status is Status.PENDING:
        tx.put(odd._replace(wake_at=now + PUT_OFF))


def _hurry(case: Case) -> None:
    """A slot is free: whoever waits for one need not wait for the second look."""
    for attempt in list(case.attempts):
        if attempt.waiting:
            case.change(attempt._replace(retry_at=None))


def gap_between(last: datetime | None, now: datetime) -> Gap | None:
    """The outage that ends now, if the last pass is long enough ago."""
    if last is None or now - last < OUTAGE:
        return None
    return Gap(last, now)


@dataclass(slots=True)
class Passing:
    """What a process remembers between its passes: when it last left its mark, whether the last
    pass came through, and for how many seconds the oldest due row had been waiting when it began.
    """

    marked_at: datetime | None = None
    failed: bool = False
    lag: float = 0.0


async def run_once(runtime: Runtime, passing: Passing, now: datetime) -> int:
    """One pass: at most LIMIT verifications. How many were looked at.

    Raises Unavailable or StoreError when the database takes nothing; the next pass finds the same.
    """
    if passing.failed:
        runtime.outage.gap = gap_between(passing.marked_at, now) or runtime.outage.gap
    passing.failed = True
    mark = passing.marked_at is None or abs(now - passing.marked_at) >= MARK_EVERY
    soonest = await runtime.reads.soonest()
    due = soonest is not None and soonest <= now
    passing.lag = (now - soonest).total_seconds() if due and soonest is not None else 0.0
    if not due:
        runtime.outage.gap = None  # all that ran out in the outage has been seen
    looked = 0
    if due or mark:
        looked = await runtime.ledger.submit(Wake(limit=LIMIT if due else 0, mark=mark))
    if mark:
        passing.marked_at = now
    passing.failed = False
    return looked


async def sweep(runtime: Runtime, now: datetime) -> int:
    """The second net under parked receipts, and the end of what was believed of numbers. How many
    rows it took away.
    """
    linked = tuple(await runtime.reads.linkable(LINKED_MOST))
    before = now - PARKED_FOR
    expired = await runtime.reads.count_kept(before)
    crowded = await runtime.reads.crowded(PARKED_MOST)
    crowds = tuple(Crowd(account, PARKED_MOST) for account, _ in crowded)
    past = await runtime.reads.past_suppressions(now, 500)
    if not (linked or expired or crowds or past):
        return 0
    taken = await runtime.ledger.submit(Sweep(linked, before, crowds, past))
    return taken + expired + sum(count - PARKED_MOST for _, count in crowded)
