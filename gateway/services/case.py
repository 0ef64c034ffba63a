"""One verification in the hands of one operation: what is heard is merged, what follows is
decided.

A case is opened over the ledger's working copy, changed in memory, and put back once. It never
touches a database or a provider; what is to be done after the commit (hand over, poll, log) it
leaves behind as values. More than 500 lines: what is heard, decided, logged and counted of one
verification is one thing, and half a case would be a trap.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from gateway.domain import (
    addresses,
    delivery,
    health,
    recipient,
    retention,
    verification,
    workflow,
)
from gateway.domain.delivery import (
    ARRIVED,
    AT_ACCOUNT,
    AT_CAUSE,
    AT_CHANNEL,
    AT_CLAIMED,
    AT_COST,
    AT_DELIVERED,
    AT_ID,
    AT_ORDINAL,
    AT_OUTCOME,
    AT_QUEUED,
    AT_READ,
    AT_REASON,
    AT_RETRY,
    AT_ROUTE,
    AT_SENT,
    AT_STATE,
    AT_STEP,
    AT_TRIES,
    AT_VERIFICATION,
    AT_WORDS,
    Attempt,
    Cause,
    Outcome,
    State,
    redrafted,
)
from gateway.domain.events import Standing as Stood
from gateway.domain.health import Heard, Reason, RouteState, Standing
from gateway.domain.identity import uuid7
from gateway.domain.keyring import SEAL_BYTES, Keyring, KeyringError
from gateway.domain.policy import Policy
from gateway.domain.retention import Retention
from gateway.domain.templates import Given
from gateway.domain.values import Draft
from gateway.domain.verification import (
    AT_LOG,
    AT_STATUS,
    AT_TRACE,
    AT_WAKE,
    Status,
    Verification,
)
from gateway.domain.workflow import Action, Asked, Finish, Plan, Poll, Send, Wait
from gateway.ports import Receipt
from gateway.services import counting
from gateway.services.counting import Paid
from gateway.services.publishing import Audience, Told, Touched, publish
from gateway.services.standing import Routes
from gateway.store.ledger import Transaction
from gateway.store.records import Logged, Source, Suppression, Way

GRACE = timedelta(seconds=30)  # what patience that ran out in an outage gets on top
LEASE_MARGIN = 5.0  # seconds a claim outlives the route's own time limit
_LOOK_AGAIN = 1.0  # seconds until a free slot is looked for again, and up to half of that more
_AVOIDED_MOST = 30 * 86_400.0  # seconds a number is believed not to take a channel
_TURN = 5.0  # seconds until a fallback that had to wait asks again, and up to as much more
REVOKED = "revoked"  # the reason of a message that we have taken back
_PLAIN_SEALED = addresses.PLAIN_BYTES + SEAL_BYTES
_SPEND_CAP = "spend_cap"
_WORDS_KEPT = 32  # distinct vendor words remembered of one attempt
# Members that every step compares with: read from their classes they would cost five times that.
_PENDING, _SILENCE = Status.PENDING, Cause.SILENCE
_QUEUED, _FAILED, _READ = State.QUEUED, State.FAILED, State.READ


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which nobody passed over what is due."""

    since: datetime
    until: datetime


@dataclass(slots=True)
class Outage:
    """The last such time, until all that ran out in it has been seen. `reconcile` tends it."""

    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What decisions need to know besides the rows."""

    keyring: Keyring
    leases: Mapping[str, float]  # seconds a claim lasts, by route
    unsigned: frozenset[str]  # routes whose receipts are hints and must name the right number
    entropy: Callable[[int], bytes]  # so many random bytes
    revokes: frozenset[str] = frozenset()  # routes whose provider can take a message back
    outage: Outage = field(default_factory=Outage)
    retention: Retention = field(default_factory=Retention)
    audience: Audience = field(default_factory=Audience)
    watched: Container[UUID] = ()  # somebody waits for their changes
    standing: Routes = field(default_factory=Routes)
    policy: Policy = field(default_factory=Policy)


class Handover(NamedTuple):
    """A claimed attempt, to be put on the wire once its claim is committed."""

    verification: Verification
    attempt: Attempt
    sender: str | None
    last_step: bool
    number: str | None = None  # where it is at hand, or it has to be opened


class Inquiry(NamedTuple):
    """An attempt whose provider is to be asked how it is doing."""

    attempt: Attempt


class Recall(NamedTuple):
    """A message under way that nobody waits for any more: its provider may take it back."""

    attempt: Attempt


class Ended(NamedTuple):
    """A verification that ended: what has not been written to a provider yet stays unwritten."""

    verification_id: UUID


class Crowded(NamedTuple):
    """A verification that found no free slot on a route."""

    verification_id: UUID
    route: str


class Traced(NamedTuple):
    """What was done for a verification that has a trace (a traceparent), and when."""

    verification_id: UUID
    trace: str
    items: tuple[object, ...]
    at: datetime


class Note(NamedTuple):
    """A line for the log."""

    event: str
    facts: Mapping[str, Any]
    level: str = "info"


def told(state: RouteState) -> Note:
    """The line for the log when a breaker pauses or resumes a route."""
    if state.standing is Standing.READY:
        return Note("route_resumed", {"route": state.route, "was": state.reason}, level="warning")
    facts = {"route": state.route, "reason": state.reason, "probe_at": state.probe_at}
    if state.reason == Reason.SILENCE:
        facts["hint"] = "no receipts come: can the provider reach public_url?"
        return Note("route_silent", facts, level="error")
    return Note("route_paused", facts, level="error")


class Case:
    """A verification, its attempts and its plan, as this operation sees and leaves them."""

    def __init__(
        self, tx: Transaction, context: Context, current: Verification, plan: Plan, now: datetime
    ) -> None:
        self.tx = tx
        self.context = context
        self.verification = current
        self.plan = plan
        self.now = now
        self.attempts: list[Attempt] = tx.attempts(current.id)
        self.after: list[object] = []  # what to do once it is committed
        self._logged: list[Logged] = []
        self._heard: list[tuple[str, Heard, bool]] = []  # of routes: what, and by their account
        self._wake_at: datetime | None = None  # as decided, until something changes after that
        self._unwanted: Container[UUID] = ()  # and told so before
        self.number: str | None = None  # the only address, where the request has just brought it
        if context.revokes:
            self._unwanted = {one.id for one in self._revocable()}
        self._before: Stood | None = None
        if context.audience.clients:
            self._before = Stood(current.status, tuple(self.attempts))

    @classmethod
    def open(
        cls, tx: Transaction, context: Context, named: UUID | None, now: datetime
    ) -> "Case | None":
        """The case of a stored verification; None when there is none of that id."""
        current = tx.verification(named) if named is not None else None
        if current is None:
            return None
        case = cls(tx, context, current, tx.plans[current.plan], now)
        if context.outage.gap is not None and current.status is _PENDING:
            case.forgive(context.outage.gap)
        return case

    def forgive(self, gap: Gap) -> None:
        """Patience that ran out while nobody passed is extended: receipts from that time are being
        repeated now. Never so far that the next step would come too late.
        """
        latest = self.verification.expires_at - timedelta(seconds=verification.MIN_LIFE)
        for attempt in list(self.attempts):
            if gap.since < attempt.overdue_at <= gap.until:
                extended = min(gap.until + GRACE, max(latest, attempt.overdue_at))
                self.change(attempt._replace(overdue_at=extended))

    def attempt(self, named: UUID) -> Attempt:
        """One of its attempts."""
        for attempt in self.attempts:
            if attempt.id is named or attempt.id == named:  # UUIDs are compared by Python code
                return attempt
        raise LookupError("no attempt of that id in this verification")

    def change(self, changed: Attempt) -> None:
        """Put an attempt's newer value in place."""
        self._wake_at = None
        at = changed.ordinal - 1
        if at < len(self.attempts):
            self.attempts[at] = changed
        else:
            self.attempts.append(changed)

    def hear(
        self,
        state: State | None,
        source: str,
        draft: Draft,
        *,
        word: str | None = None,
        reason: str | None = None,
        provider_time: str | None = None,
    ) -> Attempt:
        """Merge a statement into an attempt and log it, whether it moved the state or not.
        `draft`: the attempt with what else it says; what the state brings with it is added there.
        """
        before: State = draft[AT_STATE]
        after = delivery.merged(before, state)
        moved = after is not before
        if moved:
            draft[AT_STATE], draft[AT_REASON] = after, reason
            _reached(draft, after, self.now)
        changed = redrafted(draft)
        self.change(changed)
        if moved and after in ARRIVED and self.verification.recipient_sealed is not None:
            self.tx.lift(self._way(draft))
        self._tell(draft, before, source, word, provider_time)
        return changed

    def receive(self, attempt: Attempt, receipt: Receipt, source: str) -> Attempt:
        """A receipt for an attempt, which is given back as it is then. A word heard before only
        raises `repeats` (F11)."""
        word, state = self.clean(receipt.word), receipt.state
        if receipt.part is not None:
            word = receipt.part.word(state, word)
            state = receipt.part.whole(state, attempt.words)
        word = word[:255]
        draft: Draft = list(attempt)
        before, known = draft[AT_STATE], draft[AT_WORDS]
        may_repeat = known or not word  # else there is nothing that it could repeat
        if may_repeat and delivery.merged(before, state) is before and attempt.heard(word):
            repeated = attempt._replace(repeats=attempt.repeats + 1)
            self.change(repeated)
            return repeated
        words = word.replace("\n", " ")
        if known:
            words = "\n".join([*known.split("\n")[:_WORDS_KEPT], words])
        draft[AT_WORDS] = words
        if receipt.cost:
            draft[AT_COST] = receipt.cost
        heard = self.hear(
            state,
            source,
            draft,
            word=word,
            reason=receipt.reason,
            provider_time=receipt.provider_time,
        )
        after = heard.state
        if after is not before:
            self._count_receipt(before, after, draft)
        if receipt.state is _FAILED:
            hint = attempt.route in self.context.unsigned and receipt.recipient is None
            if not hint:
                self.avoid(heard, receipt.avoid, receipt.reason)
        return heard

    def clean(self, word: str) -> str:
        """A vendor's word as it may be logged, stored and shown: every word comes by here."""
        return recipient.redact_word(word, self._code)

    def _code(self) -> str:
        try:
            return code_of(self.context.keyring, self.verification)
        except KeyringError:  # its key is gone, so that no vendor can have been told the code
            return ""

    def _count_receipt(self, before: State, after: State, heard: Draft) -> None:
        route = heard[AT_ROUTE]
        if after is _FAILED:
            if heard[AT_REASON] != REVOKED:  # our own doing
                self.count(route, Heard.FAILED)
        elif after in ARRIVED:
            if before not in ARRIVED:
                seconds = (self.now - heard[AT_QUEUED]).total_seconds()
                self._heard += (
                    (route, Heard.DELIVERED, False),
                    (route, health.latency(seconds), False),
                )
            if after is _READ:
                self.count(route, Heard.READ)

    def count(self, route: str, heard: Heard, *, account: bool = False) -> None:
        """Something is known of a route; `account`: refused for what the account is."""
        self._heard.append((route, heard, account))

    def _count_silence(self) -> None:
        """Nothing was heard of the last message of the step in force, though its route reports."""
        last = workflow.latest(self.attempts, self.verification.step)
        if last is None or last.state is not State.SENT or last.outcome is not Outcome.ACCEPTED:
            return
        if self.now >= last.overdue_at and self.plan.steps[last.step].route(last.route).confirms:
            self.count(last.route, Heard.SILENT)

    def avoid(self, attempt: Attempt, seconds: float | None, reason: str | None) -> None:
        """Believe for a while that this number takes nothing here from this sender, unless
        it has just done so."""
        if not seconds or reason is None or attempt.state in ARRIVED:
            return
        if self.verification.recipient_sealed is None:  # erased: nobody knows which address it was
            return
        until = self.now + timedelta(seconds=min(seconds, _AVOIDED_MOST))
        self.tx.suppress(Suppression(*self._way(list(attempt)), reason, self.now, until))
        facts = {"attempt_id": attempt.id, "route": attempt.route, "reason": reason}
        self.after.append(Note("number_avoided", {**facts, "until": until}))

    def _way(self, draft: Draft) -> Way:
        route = self.plan.steps[draft[AT_STEP]].route(draft[AT_ROUTE])
        channel = draft[AT_CHANNEL]
        index = index_for(self.context.keyring, self.verification, channel)
        return Way(index, channel, draft[AT_ACCOUNT], route.sender or "")

    def decide(self, asked: Asked | None = None) -> Action:
        """Ask what is next and do it, until there is nothing left to do now. The last answer."""
        if workflow.lapsed(self.attempts, self.now) is not self.attempts:
            self._lapse()
        for _ in range(8):
            action = workflow.following(
                self.plan,
                self.verification,
                self.attempts,
                self.now,
                asked,
                shut=self.context.standing.shut,
            )
            if isinstance(action, Send):
                action = self._follow(action)
            if isinstance(action, Wait):
                self._wake_at = action.until
                break
            if isinstance(action, Finish):
                self._finish(action.status)
                break
            if isinstance(action, Poll):
                asked_of = self.attempt(action.attempt_id)._replace(polled_at=self.now)
                self.change(asked_of)
                self.after.append(Inquiry(asked_of))
            asked = None
        return action

    def _follow(self, action: Send) -> Send | Wait:
        """Send, if not too many fall back; what is known of the time after it."""
        if action.cause is _SILENCE:
            turn = self._fall_back(action)
            if isinstance(turn, Wait):
                return turn
        sent = self._send(action)
        until = sent.claimed_until
        if until is None or len(self.attempts) > 1 or sent.state is not _QUEUED:
            return action
        # The only attempt has just been claimed, as with most requests: until the claim ends there
        # is nothing to do, so that it need not be asked again.
        return Wait(min(until, self.verification.expires_at))

    def _finish(self, status: Status) -> None:
        timely = status is Status.EXPIRED
        if timely and self.verification.status is _PENDING:
            self._count_silence()
        self.end(status, Source.DEADLINE if timely else Source.ENGINE)

    def _fall_back(self, action: Send) -> Send | Wait:
        """That step, or its turn a little later where silence is the rule and many wait for it."""
        standing = self.context.standing
        if standing.silent:
            last = self.attempts[-1]
            if not standing.may_fall_back(last.route, self.now):
                pause = _TURN * (1 + self.verification.id.int % 500 / 500)
                again = self.now + timedelta(seconds=pause)
                return Wait(min(again, self.verification.expires_at))
        self._count_silence()
        return action

    def end(self, status: Status, source: str) -> None:
        """The verification ends; attempts that still wait for a slot are withdrawn."""
        if self.verification.status is not _PENDING:
            return
        self.verification = verification.end(self.verification, status, self.now)
        self._wake_at = None
        self.ended(source)

    def ended(self, source: str) -> None:
        """What follows from an end that has been written into the verification already."""
        current, status = self.verification, self.verification.status
        number = current.log + len(self._logged)
        self._logged.append(
            Logged(current.id, number, None, _PENDING, status, True, source, None, None, self.now)
        )
        self._withdraw()
        counting.leave_cool_down(self.tx, self.verification, self._counted_under, self.now)
        self.after.append(Ended(self.verification.id))
        facts = {"verification_id": self.verification.id, "status": status, "source": source}
        self.after.append(Note("verification_ended", facts))

    def _counted_under(self) -> tuple[bytes, ...]:
        return counted_under(self.context.keyring, self.verification, self.plan)

    def close(self) -> Verification:
        """Put everything back into the working copy, once and last: an error before it leaves
        nothing behind. `wake_at` says when to look again.
        """
        tx, current, context = self.tx, self.verification, self.context
        draft: Draft = list(current)
        pending = draft[AT_STATUS] is _PENDING
        wake_at = self._wake_at
        if wake_at is None and pending:
            shut = context.standing.shut
            wake_at = workflow.wake_at(self.plan, current, self.attempts, self.now, shut)
        draft[AT_WAKE] = wake_at
        if self._logged:
            draft[AT_LOG] += len(self._logged)
        self.verification = verification.redrafted(draft)
        if self._before is not None:
            self._publish(self._before)
        if context.watched and current.id in context.watched:
            self.after.append(Touched(current.id))
        if not pending and not context.retention.recipients:
            self._forget()
        for row in self._logged:
            tx.log(row)
        if context.revokes:
            recalled = (one for one in self._revocable() if one.id not in self._unwanted)
            self.after.extend(Recall(one) for one in recalled)
        trace = draft[AT_TRACE]
        if trace is not None:
            self.after.append(Traced(current.id, trace, tuple(self.after), self.now))
        if self._heard:
            self._tell_health()
        tx.after.extend(self.after)
        tx.put(self.verification, self.attempts)  # those that nothing changed are the very same
        return self.verification

    def _forget(self) -> None:
        """At its end a verification gives up the addresses, where none are to be kept."""
        sealed = self.verification.recipient_sealed
        if sealed is None:
            return
        self.verification = retention.erased(self.verification)
        if len(sealed) > _PLAIN_SEALED:
            self.tx.forget_further(self.verification.id)

    def _publish(self, before: Stood) -> None:
        current = self.verification
        listeners = self.context.audience.clients.get(current.client_id)
        if listeners:
            try:
                recipient = _shown(self.context, current)
            except KeyringError:  # its key is gone; what happens to it is told all the same
                recipient = "unreadable"
            shut = self.context.standing.shut
            told = Told(current, self.plan, self.attempts, recipient, shut)
            self.verification = publish(self.tx, listeners, before, told, self.now)

    def _tell_health(self) -> None:
        """What was heard of routes is counted, and what it changes is stored with it."""
        tx, standing, now = self.tx, self.context.standing, self.now
        country, at = self.plan.region, standing.bucket(now)
        quiet = not (standing.states or standing.runs)  # nothing is held against any route
        for route, heard, account in self._heard:
            if quiet and not account:
                tx.count(at, route, country, heard)
                continue
            quiet = False
            tx.count(standing.counted_from(route, now), route, country, heard)
            changed = standing.hear(route, heard, now, account=account)
            if changed is not None:
                tx.state_route(changed)
                self.after.append(told(changed))

    def _revocable(self) -> list[Attempt]:
        found = workflow.unwanted(self.verification.status, self.attempts)
        return [one for one in found if one.route in self.context.revokes]

    def _send(self, action: Send) -> Attempt:
        route = action.route
        if action.attempt_id is not None:
            claimed = self._claim(self.attempt(action.attempt_id), route.sender)
            self.change(claimed)
            return claimed
        attempt = self._new_attempt(action, self._slot(route.name))
        if self.verification.step != action.step:
            self.verification = self.verification._replace(step=action.step)
        if self.attempts:
            self._withdraw()
        claimed = self._hand_over(attempt, route.sender)
        self.change(claimed)
        return claimed

    def _new_attempt(self, action: Send, claimed_until: datetime | None) -> Attempt:
        """Claimed as soon as it is made, where there is a slot."""
        now, current, route, at = self.now, self.verification, action.route, action.step
        return Attempt(  # by place: each name would cost as much as what it names
            uuid7(now, self.context.entropy(10)),
            current.id,
            len(self.attempts) + 1,
            at,
            action.resend,
            action.cause,
            route.account,
            route.name,
            self.plan.steps[at].channel,
            _QUEUED,
            None,  # outcome, reference, reason and error: nothing has been heard
            None,
            None,
            None,
            now,
            workflow.patience_ends(self.plan, at, current.expires_at, now),
            claimed_until=claimed_until,
            tries=0 if claimed_until is None else 1,
        )

    def _slot(self, route: str) -> datetime | None:
        """Until when a claim holds, when its route has a free slot in this process."""
        lease = self.context.leases.get(route)
        if lease is None or not self.tx.take_slot(route):
            return None
        return self.now + timedelta(seconds=lease)

    def _claim(self, attempt: Attempt, sender: str | None) -> Attempt:
        """Take the right to submit a stored one."""
        until, waited = self._slot(attempt.route), attempt.retry_at
        if until is not None:
            tries = attempt.tries + 1
            attempt = attempt._replace(tries=tries, claimed_until=until, retry_at=None)
        return self._hand_over(attempt, sender, waited)

    def _hand_over(
        self, attempt: Attempt, sender: str | None, waited: datetime | None = None
    ) -> Attempt:
        """What has been claimed goes to its provider; what found no slot waits for one. `waited`:
        its `retry_at` before it was claimed."""
        if attempt.claimed_until is None:
            pause = _LOOK_AGAIN * (1 + attempt.id.int % 500 / 1000)
            self.after.append(Crowded(self.verification.id, attempt.route))
            return attempt._replace(retry_at=self.now + timedelta(seconds=pause))
        if self.context.policy.spending and attempt.tries == 1 and not self._pay(attempt):
            draft: Draft = list(attempt)
            draft[AT_OUTCOME] = Outcome.WITHDRAWN
            draft[AT_TRIES], draft[AT_CLAIMED], draft[AT_RETRY] = 0, None, waited
            return self.hear(_FAILED, Source.ENGINE, draft, word=_SPEND_CAP, reason=_SPEND_CAP)
        if self.context.standing.states:
            self._probe(attempt.route)
        last_step = attempt.step == len(self.plan.steps) - 1
        self.after.append(Handover(self.verification, attempt, sender, last_step, self.number))
        return attempt

    def _probe(self, route: str) -> None:
        probe = self.context.standing.probe(route, self.now)
        if probe is not None:
            self.tx.probe(probe)
            facts = {"route": route, "next_probe_at": probe.next_at}
            self.after.append(Note("route_probed", facts))

    def _pay(self, attempt: Attempt) -> bool:
        """Count what the message will cost. False when the client's day has no room for it."""
        number = address_for(self.context.keyring, self.verification, attempt.channel)
        client_id, policy = self.verification.client_id, self.context.policy
        paid = counting.pay(self.tx, policy, client_id, attempt.route, number, now=self.now)
        if paid is not Paid.FITS:
            facts = {"client_id": client_id, "attempt_id": attempt.id, "route": attempt.route}
            self.after.append(Note(f"spend_cap_{paid}", facts, level="warning"))
        return paid is not Paid.REACHED

    def _withdraw(self) -> None:
        """Attempts that never found a slot and whose time has passed."""
        for attempt in list(self.attempts):
            if attempt.waiting:
                draft: Draft = list(attempt)
                draft[AT_OUTCOME] = Outcome.WITHDRAWN
                self.hear(_FAILED, Source.ENGINE, draft, reason="withdrawn")

    def _lapse(self) -> None:
        for attempt in self.attempts:  # their number stays the same
            lapsed = workflow.lapse(attempt, self.now)
            if lapsed is not attempt:
                self.change(lapsed)
                if lapsed.state is not attempt.state:
                    self._tell(list(lapsed), attempt.state, Source.ENGINE, "claim_lapsed")

    def _tell(
        self,
        draft: Draft,
        before: State,
        source: str,
        word: str | None,
        provider_time: str | None = None,
    ) -> None:
        """What was said of an attempt, as it is now: for its history and for the log."""
        current, logged, after = self.verification, self._logged, draft[AT_STATE]
        named = draft[AT_VERIFICATION]
        logged.append(
            Logged(
                named,
                current.log + len(logged),
                draft[AT_ORDINAL],
                before,
                after,
                after is not before,
                source,
                word,
                provider_time[:64] if provider_time else provider_time,
                self.now,
            )
        )
        facts = {
            "verification_id": named,
            "attempt_id": draft[AT_ID],
            "route": draft[AT_ROUTE],
            "channel": draft[AT_CHANNEL],
            "cause": draft[AT_CAUSE]._value_,  # plain text: a member is asked for it by Python code
            "before": before._value_,
            "state": after._value_,
            "source": source,
            "word": word,
            "reason": draft[AT_REASON],
        }
        self.after.append(Note("attempt_heard", facts))


def _reached(draft: Draft, state: State, now: datetime) -> None:
    """Add the times that reaching a state sets. What was read was delivered, and what was was
    sent."""
    if state is not _FAILED and draft[AT_SENT] is None:
        draft[AT_SENT] = now
    if state in ARRIVED:
        if draft[AT_DELIVERED] is None:
            draft[AT_DELIVERED] = now
        if state is _READ:
            draft[AT_READ] = now


def _shown(context: Context, current: Verification) -> str:
    """The principal address as it may be shown."""
    known = addresses_of(context.keyring, current)
    return addresses.mask(next(iter(known.values()))) if known else "erased"


def addresses_of(keyring: Keyring, current: Verification) -> dict[str, str] | None:
    """Every address in the clear by its kind, the principal one first; None when they have been
    erased."""
    if current.recipient_sealed is None:
        return None
    opened = keyring.open(current.key_id, current.recipient_sealed, owner=current.id.bytes)
    return addresses.unpack(opened)


def address_for(keyring: Keyring, current: Verification, channel: str) -> str | None:
    """The address that a channel sends to, in the clear; None when it has been erased."""
    sealed = current.recipient_sealed
    if sealed is not None and len(sealed) <= _PLAIN_SEALED and channel != addresses.EMAIL:
        return keyring.open(current.key_id, sealed, owner=current.id.bytes).decode()
    found = addresses_of(keyring, current)
    return addresses.for_channel(channel, found) if found is not None else None


def index_for(keyring: Keyring, current: Verification, channel: str) -> bytes:
    """The blind index of the address that a channel sends to. Nothing is opened for a number
    alone, which is told by its length."""
    sealed = current.recipient_sealed
    if sealed is None or len(sealed) <= _PLAIN_SEALED:
        return current.recipient_index
    return indexes(keyring, addresses_of(keyring, current) or {}).get(
        channel, current.recipient_index
    )


def indexes(keyring: Keyring, found: Mapping[str, str]) -> dict[str, bytes]:
    """The blind index of each address, by its kind, which is the name of the channel it is for."""
    return {
        kind: keyring.index(*addresses.indexed(addresses.Address(kind, text)))
        for kind, text in found.items()
    }


def counted_under(keyring: Keyring, current: Verification, plan: Plan) -> tuple[bytes, ...]:
    """The blind indexes of the addresses that the plan sends to: what wrong codes, cool-downs and
    the sends of a number are counted under. Nothing is opened for a number alone."""
    sealed = current.recipient_sealed
    if sealed is None or len(sealed) <= _PLAIN_SEALED:
        return (current.recipient_index,)
    return reached(indexes(keyring, addresses_of(keyring, current) or {}), plan)


def reached(own: Mapping[str, bytes], plan: Plan) -> tuple[bytes, ...]:
    """Of blind indexes by kind those of the addresses that a step of the plan sends to."""
    kinds = (addresses.kind_for(step.channel, own) for step in plan.steps)
    return tuple(dict.fromkeys(own[kind] for kind in kinds if kind is not None))


def given_of(keyring: Keyring, current: Verification) -> Given | None:
    """What the request brought for the text; None where it brought nothing."""
    if current.params_sealed is None:
        return None
    owner = b"params" + current.id.bytes
    return Given.unpack(keyring.open(current.key_id, current.params_sealed, owner=owner))


def code_of(keyring: Keyring, current: Verification) -> str:
    """The code: the caller's own where there was one, else derived."""
    if current.code_sealed is not None:
        owner = b"code" + current.id.bytes
        return keyring.open(current.key_id, current.code_sealed, owner=owner).decode()
    return keyring.code(current.key_id, current.id, current.salt, current.code_length)
