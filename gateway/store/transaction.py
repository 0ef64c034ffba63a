"""The working copy of one batch, and what the ledger remembers between batches.

A decision reads and puts values here; nothing else of a service touches the store. The ledger alone
loads it and writes it.

Over 500 lines, since what a batch reads, writes and leaves behind is read as one thing.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from uuid import UUID

from gateway.domain import health
from gateway.domain.delivery import Attempt
from gateway.domain.health import Heard, RouteState
from gateway.domain.limits import Counter
from gateway.domain.verification import Status, Verification
from gateway.domain.workflow import Plan
from gateway.store import reads, writes
from gateway.store.engine import Conflict, Engine
from gateway.store.outbox import Outbox
from gateway.store.recent import Ids, Recent, Row
from gateway.store.records import (
    Counted,
    Crowd,
    Further,
    Kept,
    KeyUse,
    Logged,
    Mark,
    Named,
    Probe,
    StoredAnswer,
    StoredPlan,
    Suppression,
    Way,
)
from gateway.store.tallies import Tallies, Tally, forget
from gateway.store.wanted import Wanted, Wants

# What an attempt is known by. In one step: by name each field of a named tuple costs as much.
_facts: Callable[[Attempt], tuple[UUID, int, str | None]] = itemgetter(
    *map(Attempt._fields.index, ("id", "ordinal", "reference"))
)

Charged = Callable[[Iterable[Verification], datetime], Sequence[bytes]]


@dataclass(slots=True)
class Purged:
    """What a batch takes away for good."""

    verifications: list[Verification] = field(default_factory=list)  # as loaded
    nameless: list[UUID] = field(default_factory=list)  # lose their further addresses
    unfound: list[UUID] = field(default_factory=list)  # lose their own index
    counters: list[Counter] = field(default_factory=list)


class Transaction:
    """The working copy of one batch: every decision sees those before it."""

    def __init__(
        self,
        slots: dict[str, int],
        plans: dict[bytes, Plan],
        recent: Recent | None = None,
        node: str = "",
    ) -> None:
        self.slots = slots
        self._node = node
        self._recent = recent or Recent()
        self.plans = plans
        self.after: list[object] = []  # what to do once it is committed
        self.due: list[UUID] = []
        self._rows: dict[int, Row] = {}
        self._owner: Ids = {}
        self._by_reference: dict[tuple[str, str], UUID] = {}
        self._made: Ids = {}  # owners of attempts of this batch
        self._named: dict[tuple[str, str], UUID] = {}  # and attempts by what this batch calls them
        self._running: dict[bytes, list[Row]] | None = None  # by recipient index, once asked for
        self._counters: dict[bytes, Counter] = {}
        self._suppressed: dict[Way, Suppression] = {}
        self._ways: dict[Way, Suppression | None] = {}  # changed ones; None: lifted
        self._kept: dict[tuple[str, str], list[Kept]] = {}
        self._logged: list[Logged] = []
        self._new_kept: list[Kept] = []
        self._dropped: list[Kept] = []
        self._crowds: list[Crowd] = []
        self._expired_before: datetime | None = None
        self._new_plans: dict[bytes, StoredPlan] = {}
        self._new_counters: dict[bytes, Counter] = {}
        self._opened: dict[bytes, datetime | None] = {}  # of the counters as loaded; None: no row
        self._over: tuple[list[Tally], list[Counter]] = ([], [])
        self.tallies = Tallies()
        self._marks: dict[str, Mark] = {}
        self._heard: dict[tuple[datetime, str, str], dict[Heard, int]] = {}
        self._stated: dict[str, RouteState] = {}
        self._probes: dict[str, Probe] = {}
        self._forget_before: datetime | None = None
        self._answers: dict[bytes, StoredAnswer] = {}
        self._new_answers: dict[bytes, StoredAnswer] = {}
        self._old_answers: list[StoredAnswer] = []
        self._uses: list[KeyUse] = []
        self._further: list[Further] = []
        self._purged: Purged = Purged()
        self.outbox = Outbox()

    # What a decision reads.

    def verification(self, named: UUID) -> Verification | None:
        row = self._rows.get(named.int)
        return row.verification if row is not None else None

    def attempts(self, verification_id: UUID) -> list[Attempt]:
        """By ordinal; a list of the caller's own."""
        row = self._rows.get(verification_id.int)
        return list(row.attempts) if row is not None else []

    def owner(self, attempt_id: UUID) -> UUID | None:
        """The verification an attempt belongs to."""
        number = attempt_id.int
        owner = self._owner.get(number) or self._made.get(number) or self._recent.owner(attempt_id)
        # One that is remembered, somebody else may have deleted.
        return owner if owner is not None and owner.int in self._rows else None

    def referenced(self, account: str, reference: str) -> UUID | None:
        """The attempt that a provider's id names."""
        pair = account, reference
        named = (
            self._by_reference.get(pair) or self._named.get(pair) or self._recent.referenced(pair)
        )
        return named if named is not None and self.owner(named) is not None else None

    def running(self, client_id: UUID, recipient_index: bytes, purpose: str) -> Verification | None:
        """The one PENDING verification of that client, number and purpose."""
        if self._running is None:
            self._running = {}
            for row in self._rows.values():
                self._running.setdefault(row.verification.recipient_index, []).append(row)
        for row in self._running.get(recipient_index, ()):
            found = row.verification
            mine = found.client_id == client_id and found.purpose == purpose
            if mine and found.status is Status.PENDING:
                return found
        return None

    def counter(self, key: bytes) -> Counter | None:
        return self._counters.get(key)

    def avoids(self, recipient_index: bytes) -> bool:
        """Whether anything at all is believed against reaching a number."""
        return bool(self._suppressed) and any(
            way.recipient_index == recipient_index for way in self._suppressed
        )

    def suppression(self, way: Way) -> Suppression | None:
        """What is believed against a way to a number; only of those that the batch wanted."""
        return self._suppressed.get(way)

    def answer(self, key: bytes) -> StoredAnswer | None:
        """What was answered under an Idempotency-Key, however long ago."""
        return self._answers.get(key)

    def keeps(self) -> bool:
        """Whether anything is kept aside under the references of this batch: mostly nothing."""
        return bool(self._kept)

    def kept(self, account: str, reference: str) -> list[Kept]:
        """Receipts parked for a reference, oldest first."""
        return self._kept.get((account, reference), [])

    # What a decision writes.

    def put(self, verification: Verification, attempts: Sequence[Attempt] = ()) -> None:
        """A verification as it is now, new or changed, with those of its attempts that are."""
        number = verification.id.int
        row = self._rows.get(number)
        if row is None:
            row = self._rows[number] = Row(verification, [], None)
            if self._running is not None:
                self._running.setdefault(verification.recipient_index, []).append(row)
        else:
            row.verification = verification
        row.changed = True
        for attempt in attempts:
            self._place(row, attempt)

    def put_attempt(self, attempt: Attempt) -> None:
        """An attempt as it is now, new or changed; its verification is held already, and written
        too: by its version other nodes learn that something changed.
        """
        row = self._rows[attempt.verification_id.int]
        row.changed = True
        self._place(row, attempt)

    def _place(self, row: Row, attempt: Attempt) -> None:
        named, ordinal, reference = _facts(attempt)
        held = row.attempts
        if ordinal - 1 == len(held):
            held.append(attempt)
            self._made[named.int] = attempt.verification_id
        else:
            known, _, referred = _facts(held[ordinal - 1])
            if known is not named and known.int != named.int:
                raise Conflict(f"ordinal {ordinal} is another attempt's")
            held[ordinal - 1] = attempt
            if referred == reference:
                return
        if reference is not None:
            self._named[attempt.account, reference] = named

    def put_plan(self, digest: bytes, plan: Plan, stored: StoredPlan) -> None:
        if digest not in self.plans:
            self._new_plans[digest] = stored
            self.plans[digest] = plan

    def put_further(self, addresses: Sequence[Further]) -> None:
        self._further += addresses

    def forget_further(self, verification_id: UUID) -> None:
        """A verification is not found by its further addresses any more."""
        self._purged.nameless.append(verification_id)

    def forget_index(self, verification_id: UUID) -> None:
        """Nor by its principal one."""
        self._purged.unfound.append(verification_id)

    def remove(self, verification_id: UUID) -> bool:
        """Delete a verification with all that hangs on it; not one that this batch has changed."""
        row = self._rows.get(verification_id.int)
        if row is None or row.loaded is None or row.changed:
            return False
        del self._rows[verification_id.int]
        for attempt in row.attempts:
            self._owner.pop(attempt.id.int, None)
            if attempt.reference is not None:
                self._by_reference.pop((attempt.account, attempt.reference), None)
        self._purged.verifications.append(row.loaded[0])
        return True

    def drop_counter(self, counter: Counter) -> bool:
        """Forget a count; not one that this batch has changed."""
        if counter.key in self._new_counters:
            return False
        if self._counters.pop(counter.key, None) is None:
            return False
        self._purged.counters.append(counter)
        return True

    def believed(self, recipient_index: bytes) -> list[Way]:
        """The ways to a number that are believed closed."""
        return [way for way in self._suppressed if way.recipient_index == recipient_index]

    def put_counter(self, counter: Counter) -> None:
        self._counters[counter.key] = self._new_counters[counter.key] = counter

    def forget(self, tallies: Iterable[Tally], counters: Iterable[Counter]) -> None:
        """Rows that nobody asks for any more."""
        self._over[0].extend(tallies)
        self._over[1].extend(counters)

    def suppress(self, suppression: Suppression) -> None:
        way = suppression.way
        self._suppressed[way] = self._ways[way] = suppression

    def lift(self, way: Way) -> None:
        self._suppressed.pop(way, None)
        self._ways[way] = None

    def put_mark(self, mark: Mark) -> None:
        self._marks[mark.name] = mark

    def put_answer(self, answer: StoredAnswer) -> None:
        """In place of one whose time is over, if there is one."""
        self.drop_answer(answer)
        self._answers[answer.key] = self._new_answers[answer.key] = answer

    def drop_answer(self, answer: StoredAnswer) -> None:
        """Forget what is stored under its key."""
        held = self._answers.pop(answer.key, None)
        if held is not None and self._new_answers.pop(answer.key, None) is None:
            self._old_answers.append(held)

    def note_use(self, use: KeyUse) -> None:
        self._uses.append(use)

    def count(self, at: datetime, route: str, country: str, heard: Heard) -> None:
        """Something was heard of a route; `at`: where the counting it belongs to begins."""
        counts = self._heard.setdefault((at, route, country), {})
        counts[heard] = counts.get(heard, 0) + 1

    def forget_counts(self, before: datetime) -> None:
        self._forget_before = before

    def state_route(self, state: RouteState) -> None:
        """How a breaker sees a route now."""
        self._stated[state.route] = state
        self.after.append(state)  # other nodes are told

    def probe(self, probe: Probe) -> None:
        """A message is let through on a paused route."""
        self._probes[probe.route] = probe

    def log(self, logged: Logged) -> None:
        self._logged.append(logged)

    def keep(self, kept: Kept) -> None:
        self._new_kept.append(kept)
        if kept.reference is not None:
            self._kept.setdefault((kept.account, kept.reference), []).append(kept)

    def drop(self, kept: Kept) -> None:
        """Forget a receipt kept aside, whether it came in this batch or before."""
        if kept in self._new_kept:
            self._new_kept.remove(kept)
        else:
            self._dropped.append(kept)
        if kept.reference is not None:
            mine = self._kept.get((kept.account, kept.reference), [])
            self._kept[kept.account, kept.reference] = [k for k in mine if k.id != kept.id]

    def trim(self, crowds: Iterable[Crowd], before: datetime | None) -> None:
        """Forget the oldest receipts of these accounts, and all received before a moment."""
        self._crowds.extend(crowds)
        self._expired_before = before or self._expired_before

    def take_slot(self, route: str) -> bool:
        """A place on the wire for a claim; none left means the attempt is stored unclaimed."""
        free = self.slots.get(route, 0)
        self.slots[route] = free - 1
        return free > 0

    # What the ledger does with it.

    async def load(
        self,
        engine: Engine,
        wanted: Sequence[Wants],
        now: datetime,
        charged: "Charged | None" = None,
    ) -> None:
        """Lock and load the rows of the whole batch. The write lock is held already. `charged`
        names the sums that any step of the loaded verifications may have to look at.
        """
        batch = Wanted(wanted)
        await self._load_rows(engine, batch)
        if batch.due:  # last: it waits for nobody, so it may come out of the order of the ids
            self.due = await engine.load_one(reads.DUE, now, batch.due)
            late = {one.int: one for one in self.due if one.int not in self._rows}
            await self._take(engine, late)
        if batch.counters:
            counters = await engine.load(reads.COUNTERS, list(batch.counters))
            self._counters = {counter.key: counter for counter in counters}
            self._opened = dict.fromkeys(batch.counters)
            self._opened |= {counter.key: counter.since for counter in counters}
        held = batch.limited
        if charged is not None:
            held += charged((row.verification for row in self._rows.values()), now)
        if held or batch.tallies:
            await self.tallies.load(engine, batch.tallies, held)
        if batch.suppressed:
            believed = await engine.load(reads.SUPPRESSIONS, list(batch.suppressed))
            self._suppressed = {one.way: one for one in believed if one.until > now}
        if batch.answers:
            answers = await engine.load(reads.ANSWERS, list(batch.answers))
            self._answers = {one.key: one for one in answers}

    async def _load_rows(self, engine: Engine, batch: Wanted) -> None:
        """The verifications that the batch names, in whatever way."""
        ids = batch.verifications
        references = list(batch.references)
        if references:  # first of all: an outcome and a receipt must see one another
            await engine.lock(references)
        found: Ids = {}  # by looking: what is remembered of them may be old
        if batch.attempts:
            ids |= await self._owners_of(engine, batch.attempts, found)
        if references:
            ids |= await self._owners_by(engine, references, found)
        if batch.running:
            running = await engine.load(reads.RUNNING, list(batch.running))
            ids |= {one.int: one for one in running}
        await self._take(engine, ids | found, found)

    async def _owners_of(self, engine: Engine, attempts: Ids, found: Ids) -> Ids:
        """The verifications of these attempts, as far as they are remembered; the others are put
        into `found`."""
        known, unread = {}, []
        for named in attempts.values():
            owner = self._recent.owner(named)
            if owner is not None:
                known[owner.int] = self._owner[named.int] = owner
            else:
                unread.append(named)
        if unread:
            found |= {one.int: one for one in await engine.load(reads.OWNERS, unread)}
        return known

    async def _owners_by(
        self, engine: Engine, references: Sequence[tuple[str, str]], found: Ids
    ) -> Ids:
        """The verifications that these name, and what is kept aside under them."""
        texts = list(dict.fromkeys(reference for _, reference in references))
        for kept in await engine.load(reads.KEPT_BY_REFERENCE, texts):
            if kept.reference is not None:
                self._kept.setdefault((kept.account, kept.reference), []).append(kept)
        known, unread = {}, set()
        for pair in references:
            named = self._recent.referenced(pair)
            owner = self._recent.owner(named) if named is not None else None
            if named is not None and owner is not None:
                self._by_reference[pair] = named
                known[owner.int] = self._owner[named.int] = owner
            else:
                unread.add(pair)
        if unread:
            missing = [reference for _, reference in unread]
            for account, text, owner in await engine.load(reads.OWNERS_BY_REFERENCE, missing):
                if (account, text) in unread:
                    found[owner.int] = owner
        return known

    async def _take(self, engine: Engine, ids: Ids, old: Container[int] = ()) -> None:
        """Hold these, from memory where that is what is stored, else read.

        Where others write too, the version is looked at under the lock; all rows are locked in one
        statement, by id, so that two nodes wait for each other in a line.
        """
        remembered: dict[int, Row] = {}
        for number, named in ids.items():
            row = self._recent.row(named) if number not in old else None
            if row is not None:
                remembered[number] = row
        if engine.shared and remembered:
            stored = await engine.load(reads.VERSIONS, list(ids.values()))
            versions = {named.int: version for named, version in stored}
            for number, row in list(remembered.items()):
                if versions.get(number) != row.verification.version:
                    del remembered[number]
        self._rows.update(remembered)
        if len(remembered) < len(ids):
            unread = [named for number, named in ids.items() if number not in remembered]
            await self._read(engine, unread)

    async def _read(self, engine: Engine, ids: Sequence[UUID]) -> None:
        fresh = {one.id.int: one for one in await engine.load(reads.VERIFICATIONS, ids)}
        attempts: dict[int, list[Attempt]] = {number: [] for number in fresh}
        named = [verification.id for verification in fresh.values()]
        for attempt in sorted(await engine.load(reads.ATTEMPTS, named), key=_ordinal):
            attempts[attempt.verification_id.int].append(attempt)
        for number, verification in fresh.items():
            mine = attempts[number]
            self._rows[number] = Row(verification, mine, (verification, tuple(mine)), read=True)
            for attempt in mine:
                self._owner[attempt.id.int] = verification.id
                if attempt.reference is not None:
                    self._by_reference[attempt.account, attempt.reference] = attempt.id
        missing = {verification.plan for verification in fresh.values()} - self.plans.keys()
        for digest, plan in await engine.load(reads.PLANS, list(missing)):
            self.plans[digest] = plan

    async def write(self, engine: Engine) -> None:
        """Each changed row once, one statement a table."""
        if self._new_plans:
            await writes.insert_plans(engine, list(self._new_plans.values()))
        await self._write_rows(engine)
        if self._further:
            await writes.insert_further(engine, self._further)
        await self._write_kept(engine)
        await self._write_counts(engine)
        await self._write_beliefs(engine)
        await self._write_purged(engine)
        if self._marks:
            await writes.put_marks(engine, list(self._marks.values()))
        await self._write_answers(engine)
        if self._uses:
            await writes.note_uses(engine, self._uses)
        await self._write_health(engine)
        await self.outbox.write(engine)

    async def _write_rows(self, engine: Engine) -> None:
        new: list[Verification] = []
        old: list[tuple[Verification, Verification]] = []
        made: list[Attempt] = []
        moved: list[tuple[Attempt, Attempt]] = []
        for row in self._rows.values():
            if not row.changed:
                continue
            if row.loaded is None:
                new.append(row.verification)
                made += row.attempts
            else:
                before, attempts = row.loaded
                old.append((before, row.verification))
                _compare(attempts, row.attempts, made, moved)
        if old:  # first: one that ends makes room for its successor
            await writes.update_verifications(engine, old)
        if new:
            await writes.insert_verifications(engine, new)
        if made:
            await writes.insert_attempts(engine, made)
        if moved or self._logged:
            await writes.move(engine, moved, self._logged)

    async def _write_answers(self, engine: Engine) -> None:
        if self._old_answers:
            await writes.drop_answers(engine, self._old_answers)
        if self._new_answers:
            await writes.insert_answers(engine, list(self._new_answers.values()))

    async def _write_beliefs(self, engine: Engine) -> None:
        if lifted := [way for way, one in self._ways.items() if one is None]:
            await writes.lift_suppressions(engine, lifted)
        if believed := [one for one in self._ways.values() if one is not None]:
            await writes.put_suppressions(engine, believed)

    async def _write_health(self, engine: Engine) -> None:
        if self._heard:
            await writes.count(
                engine, [self._counted(*key, heard) for key, heard in self._heard.items()]
            )
        if self._probes:
            await writes.probe_routes(engine, list(self._probes.values()))
        if self._stated:
            await writes.state_routes(engine, list(self._stated.values()))
        if self._forget_before is not None:
            await writes.forget_counts(engine, self._forget_before)

    def _counted(self, at: datetime, route: str, country: str, heard: dict[Heard, int]) -> Counted:
        return Counted(at, route, country, self._node, *health.tally(heard))

    def remember(self) -> None:
        """Keep what was written for the next batches. Called once it is committed."""
        self._recent.know(self._made, self._named)
        for row in self._rows.values():
            if row.changed:
                self._recent.put(row)
        for named in self._purged.unfound:  # its version was counted up once more
            self._recent.drop(named)
        for gone in self._purged.verifications:
            self._recent.drop(gone.id)

    async def _write_purged(self, engine: Engine) -> None:
        """After the addresses of this batch's own sends."""
        if self._purged.verifications:
            await writes.delete_verifications(engine, self._purged.verifications)
        if self._purged.nameless:
            await writes.delete_further(engine, [Named(named) for named in self._purged.nameless])
        if self._purged.unfound:
            unfound = [Named(named) for named in dict.fromkeys(self._purged.unfound)]
            await writes.forget_indexes(engine, unfound)
        if self._purged.counters:
            await writes.delete_counters(engine, self._purged.counters)

    async def _write_kept(self, engine: Engine) -> None:
        if self._new_kept:
            await writes.keep_receipts(engine, self._new_kept)
        if self._dropped:
            await writes.drop_receipts(engine, self._dropped)
        if self._expired_before is not None:
            await writes.expire_receipts(engine, self._expired_before)
        if self._crowds:
            await writes.trim_receipts(engine, self._crowds)

    async def _write_counts(self, engine: Engine) -> None:
        if self._new_counters:
            await writes.put_counters(engine, list(self._new_counters.values()), self._opened)
        await self.tallies.write(engine)
        await forget(engine, *self._over)


def _compare(
    before: Sequence[Attempt],
    now: Sequence[Attempt],
    made: list[Attempt],
    moved: list[tuple[Attempt, Attempt]],
) -> None:
    """Put what is new of a verification's attempts into `made`, what has changed into `moved`."""
    for pair in zip(before, now, strict=False):
        if pair[0] is not pair[1]:
            moved.append(pair)  # noqa: PERF401  mostly there is one
    if len(now) > len(before):
        made += now[len(before) :]


def _ordinal(attempt: Attempt) -> int:
    return attempt.ordinal
