"""Deliver events: signed webhooks, at least once, in their order within a verification.

Each subscription has a lane of its own with its own few places, so that an endpoint that hangs
holds up nobody else. A lane runs while something is due and otherwise sleeps: a commit here wakes
it, the worker wakes it when its next retry is due, and now and then for what other processes wrote.
What it is to do is in the database; killed at any point, it finds the same at the next start.

Over 400 lines: a lane, what it sends and what it concludes share one state.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from gateway.domain import signing
from gateway.domain.errors import Unavailable
from gateway.domain.identity import uuid7
from gateway.domain.keyring import Keyring, KeyringError
from gateway.ports import NO_TRACER, Request, Tracer, Transport, TransportError
from gateway.services import tracing
from gateway.services.left import Left
from gateway.services.metering import UNMETERED, Meter
from gateway.services.publishing import Audience, Published, Resubscribed
from gateway.store.engine import StoreError
from gateway.store.ledger import Ledger, Operation, Transaction, Wants
from gateway.store.outbox import (
    Delivery,
    Disabled,
    Done,
    Enabled,
    Event,
    Failing,
    OutboxReads,
    Postponed,
    Recovered,
    Removed,
    Rotated,
    Subscription,
    Swept,
    Taken,
)

PLACES = 8  # webhooks of one subscription under way at once; one while it is failing
WITHIN = 10.0  # seconds for one webhook, all in all
LEASE = timedelta(seconds=30)  # until a claimed webhook counts as lost
LOOK_EVERY = timedelta(seconds=5)  # how soon what other processes wrote is seen
_CHUNK = 500  # rows swept at once
_TEST = "subscription.test"
_ABOUT_LISTENERS = (Subscription, Rotated, Enabled, Disabled, Removed)


@dataclass(frozen=True, slots=True)
class Change(Operation[None]):
    """Do these things to the outbox; see `store.outbox` for what there is."""

    changes: tuple[Any, ...]


def wants(operation: Change) -> Wants:
    """Nothing: the guards are in the statements."""
    return Wants()


def apply(tx: Transaction, context: object, operation: Change, now: datetime) -> None:
    """Hand them to the outbox of this batch."""
    tx.outbox.add(*operation.changes)
    if any(isinstance(one, _ABOUT_LISTENERS) for one in operation.changes):
        tx.after.append(Resubscribed())


class Log(Protocol):
    """The part of structlog that is used."""

    def info(self, event: str, **facts: object) -> object: ...
    def warning(self, event: str, **facts: object) -> object: ...
    def error(self, event: str, **facts: object) -> object: ...


@dataclass(frozen=True, slots=True)
class Tried:
    """What an endpoint did with a webhook. `problem` is None when it took it."""

    status: int | None
    problem: str | None
    retry_after: float | None = None

    @property
    def outcome(self) -> str:
        """In a word: delivered, refused (another status), gone (410) or unreachable."""
        if self.problem is None:
            return "delivered"
        return "unreachable" if self.status is None else "gone" if self.gone else "refused"

    @property
    def gone(self) -> bool:
        """The endpoint wants no more webhooks (410)."""
        return self.status == 410


@dataclass(slots=True)
class _Lane:
    """One subscription's webhooks."""

    subscription: Subscription
    look_at: datetime | None = None  # when something is due, as far as it is known here
    failing: bool = False
    over: bool = False  # disabled or removed
    under_way: set[asyncio.Task[None]] = field(default_factory=set)
    running: asyncio.Task[None] | None = None
    kicked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def free(self) -> int:
        return 0 if self.over else (1 if self.failing else PLACES) - len(self.under_way)

    def landed(self, delivery: asyncio.Task[None]) -> None:
        """One has ended. What follows it may be due now, and a look that began before that has not
        seen it."""
        self.under_way.discard(delivery)
        self.kicked.set()


class Notifier:
    """The webhooks of this process."""

    def __init__(
        self,
        *,
        reads: OutboxReads,
        audience: Audience,
        keyring: Keyring,
        transport: Transport,
        now: Callable[[], datetime],
        entropy: Callable[[int], bytes],
        log: Log,
        meter: Meter = UNMETERED,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._reads = reads
        self._audience = audience
        self._keyring = keyring
        self._transport = transport
        self._now = now
        self._entropy = entropy
        self._log = log
        self._meter = meter
        self._tracer = tracer
        self._ledger: Ledger | None = None
        self._lanes: dict[UUID, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked_at: datetime | None = None
        self._closing = False
        self._refreshing = asyncio.Lock()

    def attach(self, ledger: Ledger) -> None:
        """Where results go; the ledger is made after us."""
        self._ledger = ledger

    @property
    def busy(self) -> bool:
        """Whether any lane runs."""
        return bool(self._tasks)

    def follow(self, left: Left) -> None:
        """Wake the lanes that a committed batch gave something to do."""
        if not self._audience.clients:
            return
        for item in left.get(Published, ()):
            for named in item.subscriptions:
                self._kick(named)

    async def refresh(self) -> None:
        """Learn who listens. Raises StoreError."""
        async with self._refreshing:  # the newest answer is learnt last
            self._learn(await self._reads.subscriptions())

    def _learn(self, found: Sequence[Subscription]) -> None:
        self._audience.learn(found)
        active = {one.id: one for one in found if one.disabled_at is None}
        for named in [one for one in self._lanes if one not in active]:
            self._lanes.pop(named).over = True  # what it has under way ends by itself
        for named, one in active.items():
            lane = self._lanes.setdefault(named, _Lane(one))
            lane.subscription = one
            lane.failing = one.failures > 0

    async def run_once(self, now: datetime) -> None:
        """Wake what is due; now and then, look at all that the database says. Raises StoreError."""
        late = await self.look(now)
        for named, lane in list(self._lanes.items()):
            if late or (lane.look_at is not None and lane.look_at <= now):
                self._kick(named)

    async def look(self, now: datetime) -> bool:
        """Now and then, learn who listens. Whether it was time. Raises StoreError."""
        late = self._looked_at is None or abs(now - self._looked_at) >= LOOK_EVERY
        if late:
            self._looked_at = now
            await self.refresh()
        return late

    async def drain(self, seconds: float) -> None:
        """Start nothing more; wait for what is on the wire. The rest stays due."""
        self._closing = True
        tasks = set(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def test(self, subscription: Subscription) -> Tried:
        """Send a test event now and tell what came of it; nothing is stored."""
        now = self._now()
        named = uuid7(now, self._entropy(10))
        data = b'{"subscription_id":"%s"}' % str(subscription.id).encode()
        return await self._send(subscription, f"evt_{named}", _body(_TEST, now, data))

    def _kick(self, named: UUID) -> None:
        lane = self._lanes.get(named)
        if lane is None or self._closing:
            return
        lane.kicked.set()
        if lane.running is None:
            lane.running = self._spawn(self._run(lane))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, lane: _Lane) -> None:
        """Deliver as long as something is due. One of these a lane."""
        try:
            while lane.kicked.is_set() and not self._closing:
                lane.kicked.clear()
                while lane.free > 0 and not self._closing and await self._take(lane):
                    pass
                if lane.under_way:  # each kicks when it ends
                    await lane.kicked.wait()
                else:  # a kick that comes meanwhile is another turn
                    lane.look_at = await self._reads.soonest(lane.subscription.id)
        except (StoreError, Unavailable) as error:  # the worker wakes it again
            self._log.warning("notify_put_off", problem=type(error).__name__)
        finally:
            lane.running = None

    async def _take(self, lane: _Lane) -> int:
        """Claim what is due, as much as there are places, and begin to deliver it. How many."""
        now = self._now()
        due = await self._reads.due(lane.subscription.id, now, lane.free)
        if not due:
            return 0
        claim = uuid7(now, self._entropy(10))
        await self._change(
            Taken(one.verification_id, one.subscription_id, one.due_at, claim, now + LEASE)
            for one in due
            if one.due_at is not None
        )
        if self._closing:  # the claims lapse
            return 0
        named = [one.verification_id for one in due]
        mine = [one for one in await self._reads.deliveries(named) if one.claim == claim]
        events = await self._reads.events([one.verification_id for one in mine])
        traces = await self._reads.traces(named) if self._tracer.on else {}
        for delivery in mine:
            event = _wanted(lane.subscription, delivery, events)
            trace = traces.get(delivery.verification_id)
            task = self._spawn(self._deliver(lane, delivery, event, trace))
            lane.under_way.add(task)
            task.add_done_callback(lane.landed)
        return len(mine)

    async def _deliver(
        self, lane: _Lane, delivery: Delivery, event: Event | None, trace: str | None
    ) -> None:
        """One webhook, and what follows from it. An error leaves the claim to lapse."""
        try:
            if event is None:  # swept meanwhile
                done = self._done(delivery, delivery.last)
                await self._change([done])
                return
            webhook_id = f"evt_{event.verification_id}_{event.sequence}"
            body = _body(event.kind, event.created_at, event.payload.encode())
            named = (event.verification_id, lane.subscription.id)
            span = tracing.posting(self._tracer, trace, event.kind, *named)
            tried = await self._send(lane.subscription, webhook_id, body)
            self._meter.posted(tried.outcome)
            if span is not None:
                span.end(tried.outcome)
            changes = self._conclusions(lane, delivery, event, tried)
            await self._change(changes)
            if any(isinstance(one, Disabled) for one in changes):
                await self.refresh()
        except (StoreError, Unavailable) as error:
            self._log.warning("notify_put_off", problem=type(error).__name__)
        except Exception as error:  # noqa: BLE001  the lane goes on
            self._log.error("notify_failed", problem=type(error).__name__)

    def _done(self, delivery: Delivery, sequence: int) -> Done:
        claim = delivery.claim or delivery.verification_id
        named = (delivery.verification_id, delivery.subscription_id)
        return Done(*named, claim, sequence + 1, self._now())

    def _conclusions(
        self, lane: _Lane, delivery: Delivery, event: Event, tried: Tried
    ) -> list[Any]:
        """What is to be written about a try."""
        now, one = self._now(), lane.subscription
        if tried.problem is None:
            changes: list[Any] = [self._done(delivery, event.sequence)]
            if lane.failing:
                lane.failing = False
                lane.subscription = replace(one, failures=0, failing_since=None, problem=None)
                changes.append(Recovered(one.id))
            return changes
        tries = delivery.tries + 1
        spread = delivery.verification_id.int % 997 / 997
        again = signing.next_try(tries, now, retry_after=tried.retry_after, spread=spread)
        claim = delivery.claim or delivery.verification_id
        named = (delivery.verification_id, delivery.subscription_id)
        changes = [
            Postponed(*named, claim, tries, again),
            Failing(one.id, now, tried.problem),
        ]
        lane.failing = True
        why = None
        if tried.gone:
            why = "The endpoint answered 410 Gone."
        elif signing.given_up(one.failing_since, now):
            why = f"It took no event for a day. The last problem: {tried.problem}."
        if why is not None:
            changes.append(Disabled(one.id, now, why))
            lane.over = True
            self._log.warning("subscription_disabled", subscription_id=one.id, why=why)
        facts = {"subscription_id": one.id, "verification_id": delivery.verification_id}
        self._log.info("webhook_failed", **facts, problem=tried.problem, tries=tries)
        return changes

    async def _send(self, subscription: Subscription, webhook_id: str, body: bytes) -> Tried:
        now = self._now()
        try:
            secrets = secrets_of(self._keyring, subscription, now)
        except KeyringError:
            return Tried(None, "its secret cannot be read: the keyring lacks the key")
        stamp = int(now.timestamp())
        headers = {
            "content-type": "application/json",
            "user-agent": "otp-gateway",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": signing.sign(secrets, webhook_id, stamp, body),
        }
        request = Request("POST", subscription.url, headers=headers, content=body)
        try:
            response = await self._transport.send(request, within=WITHIN)
        except TransportError as error:
            return Tried(None, str(error)[:200])
        if 200 <= response.status_code < 300:
            return Tried(response.status_code, None)
        wait = signing.retry_after(response.headers.get("retry-after"))
        return Tried(response.status_code, f"HTTP {response.status_code}", wait)

    async def _change(self, changes: Any) -> None:
        assert self._ledger is not None  # noqa: S101  (attached before anything runs)
        await self._ledger.submit(Change(tuple(changes)))


def _wanted(
    subscription: Subscription, delivery: Delivery, events: Sequence[Event]
) -> Event | None:
    """The event a cursor stands before."""
    kinds = subscription.kinds.split()
    for event in events:
        mine = event.verification_id == delivery.verification_id
        if mine and delivery.next <= event.sequence <= delivery.last and event.kind in kinds:
            return event
    return None


def _body(kind: str, at: datetime, data: bytes) -> bytes:
    """The body of a webhook; `data` is JSON already."""
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return b'{"type":"%s","timestamp":"%s","data":%s}' % (kind.encode(), stamp.encode(), data)


def secrets_of(keyring: Keyring, subscription: Subscription, now: datetime) -> tuple[bytes, ...]:
    """The secrets that sign now: the current one and, for a day, the one before. Raises
    KeyringError."""
    owner = b"subscription" + subscription.id.bytes
    plain = keyring.open(subscription.key_id, subscription.sealed, owner=owner)
    size = signing.SECRET_BYTES
    found = tuple(plain[at : at + size] for at in range(0, len(plain), size))
    rotated = subscription.rotated_at
    return found if rotated is not None and now - rotated < signing.ROTATION else found[:1]


async def sweep(ledger: Ledger, reads: OutboxReads, keep: timedelta, now: datetime) -> int:
    """Forget events that are older than `keep`, of verifications as old. How many verifications'
    they were."""
    swept, until = 0, now - keep
    before = uuid7(until, bytes(10))
    while rows := await reads.past(before, until, _CHUNK):
        await ledger.submit(Change(tuple(Swept(*row) for row in rows)))
        swept += len(rows)
        if len(rows) < _CHUNK:
            break
    return swept
