"""Take away what is past its time, a chunk at a time: verifications with all that hangs on them,
the addresses in those that stay, counters; and everything of one person who asks for it.

Reads outside the transaction name the rows; each is looked at again under its lock, and `version`
guards it. Killed between two chunks, or within one, the next pass finds the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.domain import addresses, limits, retention
from gateway.domain.errors import Unavailable
from gateway.domain.identity import lowest, made_at
from gateway.domain.limits import Counter, Rule
from gateway.domain.policy import cool_key, failures_key, number_key
from gateway.domain.retention import Retention
from gateway.domain.verification import Verification
from gateway.services.case import Context
from gateway.services.receive import Sweep
from gateway.services.reconcile import PARKED_FOR
from gateway.store.ledger import Ledger, Operation, Transaction, Wants
from gateway.store.reads import Reads
from gateway.store.records import Mark

ROWS = 500  # rows, of all tables together, that one transaction takes away or erases
FORGOTTEN = ROWS // 8  # verifications of a person in one transaction, with their further addresses
LOOKED = 200  # verifications and counters that one pass looks at
ERASED = "recipients_erased"  # the mark: in verifications made before it no address is left
_FURTHER = len(addresses.KINDS) - 1  # rows that a verification's further addresses take at most
_PLAIN_BYTES = 64  # what a number alone takes sealed, at most; several addresses take more


@dataclass(frozen=True, slots=True)
class Purged:
    """What a pass took away; `more`: there was more than one pass may take."""

    verifications: int = 0
    attempts: int = 0
    transitions: int = 0
    erased: int = 0  # verifications that hold no address any more
    counters: int = 0
    receipts: int = 0
    suppressions: int = 0
    more: bool = False

    def __add__(self, other: "Purged") -> "Purged":
        return Purged(
            self.verifications + other.verifications,
            self.attempts + other.attempts,
            self.transitions + other.transitions,
            self.erased + other.erased,
            self.counters + other.counters,
            self.receipts + other.receipts,
            self.suppressions + other.suppressions,
            other.more,
        )


@dataclass(frozen=True, slots=True)
class Purge(Operation[Purged]):
    """Delete, and erase, those of these rows that are past their time.

    `until`: with `named` erased, none made before it holds an address.
    """

    over: tuple[UUID, ...] = ()
    named: tuple[UUID, ...] = ()
    until: datetime | None = None
    counters: tuple[Counter, ...] = ()
    more: bool = False


@dataclass(slots=True)
class Place:
    """Where the walk over the counters has come to; in memory: it is a circle."""

    counter: bytes = b""


def wants(operation: Purge) -> Wants:
    """The rows it names."""
    return Wants(
        verifications=(*operation.over, *operation.named),
        counters=tuple(counter.key for counter in operation.counters),
    )


def apply(tx: Transaction, context: Context, operation: Purge, now: datetime) -> Purged:
    """Look at each again under its lock; stop before too many rows are touched."""
    done = Purged()
    left = ROWS - len(operation.counters)
    for named in operation.over:
        current = tx.verification(named)
        if current is None or not retention.over(context.retention, current, now):
            continue
        attempts = len(tx.attempts(named))
        rows = _rows(current, attempts)
        if done.verifications and rows > left:
            return _counters(tx, operation, now, done + Purged(more=True))
        if tx.remove(named):
            left -= rows
            done += Purged(1, attempts, current.log)
    done += Purged(more=operation.more)
    until = operation.until
    for named in operation.named:
        current = tx.verification(named)
        if current is None or not retention.nameless(context.retention, current, now):
            continue
        if left < 1 + _FURTHER:
            until = current.created_at
            done += Purged(more=True)
            break
        left -= 1 + _FURTHER
        _erase(tx, current)
        done += Purged(erased=1, more=done.more)
    if until is not None:
        tx.put_mark(Mark(ERASED, until))
    return _counters(tx, operation, now, done)


def _counters(tx: Transaction, operation: Purge, now: datetime, done: Purged) -> Purged:
    dropped = 0
    for counter in operation.counters:
        current = tx.counter(counter.key)
        if current is not None and limits.surely_over(current, now):
            dropped += tx.drop_counter(current)
    return done + Purged(counters=dropped, more=done.more)


def _rows(current: Verification, attempts: int) -> int:
    sealed = current.recipient_sealed
    further = _FURTHER if sealed is not None and len(sealed) > _PLAIN_BYTES else 0
    return 1 + attempts + current.log + further


def _erase(tx: Transaction, current: Verification) -> None:
    tx.put(retention.erased(current))
    tx.forget_further(current.id)


async def find(reads: Reads, kept: Retention, place: Place, now: datetime) -> Purge:
    """What the next chunk would look at."""
    before = retention.over_before(kept, now)
    over = await reads.oldest(lowest(before), LOOKED)
    nameless = retention.nameless_before(kept, now)
    marked = await reads.mark(ERASED)
    named: tuple[UUID, ...] = ()
    until = None
    more = len(over) == LOOKED
    if not more and (marked is None or marked < nameless):
        # What is about to be deleted need not be erased first.
        since = before if marked is None else max(marked, before)
        named = await reads.named(lowest(since), lowest(nameless), LOOKED)
        more = len(named) == LOOKED
        until = made_at(named[-1]) if more else nameless
    counters = await reads.counters_after(place.counter, LOOKED)
    place.counter = counters[-1].key if len(counters) == LOOKED else b""
    stale = tuple(one for one in counters if limits.surely_over(one, now))
    return Purge(over, named, until, stale, more=more or bool(place.counter))


async def purge(
    reads: Reads, ledger: Ledger, kept: Retention, place: Place, now: datetime
) -> Purged:
    """One chunk. Raises Unavailable when the ledger takes nothing now; nothing is lost by that."""
    operation = await find(reads, kept, place, now)
    if not (operation.over or operation.named or operation.until or operation.counters):
        return Purged(more=operation.more)
    return await ledger.submit(operation)


async def in_passing(
    reads: Reads, ledger: Ledger, kept: Retention, place: Place, now: datetime
) -> Purged:
    """One chunk of the background loop's; none while the ledger is busy with sends."""
    try:
        return await purge(reads, ledger, kept, place, now)
    except Unavailable:
        return Purged()


async def sweep_aside(reads: Reads, ledger: Ledger, now: datetime) -> Purged:
    """Receipts kept aside and suppressions that are past their time: one chunk. `serve` does so by
    itself (`reconcile.sweep`), which also links receipts; this one only takes away."""
    before = now - PARKED_FOR
    gone = await reads.count_kept(before)
    past = await reads.past_suppressions(now, ROWS)
    if gone or past:
        await ledger.submit(Sweep((), before, past=past))
    return Purged(receipts=gone, suppressions=len(past), more=len(past) == ROWS)


async def would_purge(reads: Reads, kept: Retention, now: datetime) -> Purged:
    """What is past its time now, counted; nothing is changed."""
    over, nameless = retention.over_before(kept, now), retention.nameless_before(kept, now)
    verifications, attempts, transitions = await reads.count_over(lowest(over))
    counters, after = 0, b""
    while found := await reads.counters_after(after, ROWS):
        counters += sum(limits.surely_over(one, now) for one in found)
        after = found[-1].key
    return Purged(
        verifications=verifications,
        attempts=attempts,
        transitions=transitions,
        erased=await reads.count_named(lowest(over), lowest(nameless)) if over < nameless else 0,
        counters=counters,
        receipts=await reads.count_kept(now - PARKED_FOR),
        suppressions=await reads.count_past_suppressions(now),
    )


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was erased of one person; `running`: verifications whose code can still be typed, which
    are left alone until they are over."""

    verifications: int = 0
    suppressions: int = 0
    counters: int = 0
    running: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Forget(Operation[Forgotten]):
    """Erase what is known of the address with that index, in these verifications and besides."""

    index: bytes
    verifications: tuple[UUID, ...]
    counters: tuple[bytes, ...]


def wants_forget(operation: Forget) -> Wants:
    """The rows it names."""
    return Wants(
        verifications=operation.verifications,
        counters=operation.counters,
        suppressed=(operation.index,),
    )


def apply_forget(tx: Transaction, context: Context, operation: Forget, now: datetime) -> Forgotten:
    """Addresses, parameters, indexes, what was believed of the number, what was counted of it."""
    erased, running = 0, []
    for named in operation.verifications:
        current = tx.verification(named)
        if current is None:
            continue
        if retention.running(current, now):
            running.append(named)
            continue
        _erase(tx, current)
        tx.forget_index(named)
        erased += 1
    ways = tx.believed(operation.index)
    for way in ways:
        tx.lift(way)
    found = [tx.counter(key) for key in operation.counters]
    dropped = sum(tx.drop_counter(counter) for counter in found if counter is not None)
    return Forgotten(erased, len(ways), dropped, tuple(running))


async def forget(
    reads: Reads, ledger: Ledger, index: bytes, rules: Sequence[Rule] = (limits.PER_NUMBER,)
) -> Forgotten:
    """Erase everything of the person with that address, in chunks; running verifications are
    counted and left alone. Raises Unavailable."""
    wrong = [failures_key(client.id, index) for client in await reads.clients()]
    counted = [number_key(rule, index) for rule in rules if not rule.wide]
    for client in await reads.clients():  # cool-downs: one a purpose
        own = cool_key(client.id, index, "")
        counted += [c.key for c in await reads.counters_after(own, 100) if c.key.startswith(own)]
    counters = (*wrong, *counted)
    total = Forgotten()
    while True:
        found = await reads.by_number(None, index, FORGOTTEN + len(total.running))
        todo = tuple(named for named in found if named not in total.running)
        done = await ledger.submit(Forget(index, todo, counters))
        total = Forgotten(
            total.verifications + done.verifications,
            total.suppressions + done.suppressions,
            total.counters + done.counters,
            total.running + done.running,
        )
        if len(todo) < FORGOTTEN:
            return total
