"""How the routes are doing: read what was counted, pause those that do badly, forget what is old.

Counting itself, pausing for the account's sake, probing and resuming happen where the facts are
heard (`case`); what needs the whole picture happens here, in a look every second.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.domain import health
from gateway.domain.health import RouteState, Standing, Tally
from gateway.services.case import Context, told
from gateway.services.runtime import Runtime
from gateway.store.ledger import Operation, Transaction, Wants

LOOK_EVERY = timedelta(seconds=1)
KEPT = timedelta(days=8)  # how long counts are kept
FORGET_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Judge(Operation[None]):
    """Pause these routes; forget what was counted before a moment."""

    paused: tuple[RouteState, ...] = ()
    forget_before: datetime | None = None


def wants(operation: Judge) -> Wants:
    """No rows: the statement itself leaves what an operator has disabled alone."""
    return Wants()


def apply(tx: Transaction, context: Context, operation: Judge, now: datetime) -> None:
    """Store and tell."""
    for state in operation.paused:
        known = context.standing.states.get(state.route)
        if known is not None and known.standing is not Standing.READY:
            continue  # paused meanwhile, or disabled
        tx.state_route(state)
        context.standing.put(state, now)
        tx.after.append(told(state))
    if operation.forget_before is not None:
        tx.forget_counts(operation.forget_before)


@dataclass(slots=True)
class Looking:
    """What a process remembers between two looks."""

    looked_at: datetime | None = None
    forgot_at: datetime | None = None


async def run_once(runtime: Runtime, looking: Looking, now: datetime) -> None:
    """One look, when it is time. Raises Unavailable or StoreError; the next look sees the same."""
    if not await learn(runtime, looking, now):
        return
    standing = runtime.standing
    found = await recent(runtime, now)
    paused = []
    for name in runtime.routes:
        reason = health.judge(found.get(name, Tally()))
        state = standing.states.get(name)
        pausing = health.pause(name, state, reason, now) if reason is not None else None
        if pausing is not None:
            paused.append(pausing)
    old = looking.forgot_at is None or abs(now - looking.forgot_at) >= FORGET_EVERY
    if paused or old:
        await runtime.ledger.submit(Judge(tuple(paused), now - KEPT if old else None))
    if old:
        looking.forgot_at = now


async def learn(runtime: Runtime, looking: Looking, now: datetime) -> bool:
    """Look how the routes stand, when it is time. Whether it was."""
    if looking.looked_at is not None and abs(now - looking.looked_at) < LOOK_EVERY:
        return False
    looking.looked_at = now
    await look(runtime)
    return True


async def look(runtime: Runtime) -> None:
    """Learn how the routes stand now. Raises StoreError."""
    runtime.standing.learn(await runtime.reads.route_states(), runtime.now())


async def recent(runtime: Runtime, now: datetime) -> dict[str, Tally]:
    """What the last five to ten minutes brought, by route: since it was resumed, where it was."""
    since = health.bucket(now) - health.BUCKET
    found: dict[str, Tally] = {}
    for route, at, tally in await runtime.reads.route_sums(since):
        state = runtime.standing.states.get(route)
        if state is None or at >= state.since:
            found[route] = found.get(route, Tally()).plus(tally)
    return found
