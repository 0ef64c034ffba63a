"""What is counted where it happens: a code typed, a verification ended early, a message claimed;
and what the guard lets through. `limiting` asks before a send, this counts after.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from gateway.domain import addresses, guard, recipient
from gateway.domain.addresses import Address
from gateway.domain.limits import Counter
from gateway.domain.policy import Policy, cool_key, guard_key, spend_key
from gateway.domain.spending import Spending
from gateway.domain.verification import COOL_DOWN, Status, Verification
from gateway.store import tallies
from gateway.store.engine import Engine
from gateway.store.ledger import Transaction
from gateway.store.tallies import Pass, Tally

REFRESH = timedelta(seconds=2)  # how old this process's knowledge of passes may be
_LEAVES_COOL_DOWN = frozenset({Status.CANCELED, Status.LOCKED})
_DAY = timedelta(days=1)


class Passes:
    """What the guard lets through, read again when it is older than REFRESH."""

    def __init__(self) -> None:
        self._known: tuple[Pass, ...] = ()
        self._read_at: datetime | None = None

    async def cover(self, engine: Engine, number: str, country: str, now: datetime) -> bool:
        """Whether an operator lets sends to that number through."""
        if self._read_at is None or not timedelta(0) <= now - self._read_at < REFRESH:
            self._known, self._read_at = await tallies.passes(engine, now), now
        return any(
            one.until > now and guard.covers(one.scope, number, country) for one in self._known
        )


def cool_down(tx: Transaction, keys: Iterable[bytes], sent_at: datetime) -> None:
    """A code left just now, to what these keys stand for."""
    for key in keys:
        tx.put_counter(Counter(key, sent_at, 1))


def leave_cool_down(
    tx: Transaction, ended: Verification, indexes: Callable[[], Iterable[bytes]], now: datetime
) -> None:
    """Canceling is no way around the cool-down. While a verification runs, its row knows when the
    last code left; one that ends before the time is over leaves a counter behind for each address
    it sent to. Those of further addresses `send` has left already; an end that leaves none is
    their end.
    """
    span = timedelta(seconds=COOL_DOWN)
    if now >= ended.sent_at + span:
        return
    leaves = ended.status in _LEAVES_COOL_DOWN
    found = (index for index in indexes() if leaves or index != ended.recipient_index)
    keys = (cool_key(ended.client_id, index, ended.purpose) for index in found)
    cool_down(tx, keys, ended.sent_at if leaves else ended.sent_at - span)


def count_verified(
    tx: Transaction, policy: Policy, verified: Verification, found: Mapping[str, str] | None
) -> None:
    """Tell the guard that a code was typed. `found`: the recipient's addresses by kind; without a
    number there is no prefix to tell of."""
    every = (Address(kind, text) for kind, text in (found or {}).items())
    numbers = addresses.numbers(every)
    if policy.guard is None or not numbers:
        return
    began = guard.under_way(policy.guard, verified.created_at)
    for scope in guard.scopes(policy.guard, numbers[0], recipient.country(numbers[0])):
        until = guard.kept_until(policy.guard, began)
        key = guard_key(scope, began)
        tx.tallies.add(Tally(key, policy.node, 0, verified.sends_used, until))


def estimate(spending: Spending, route: str, number: str | None) -> int:
    """What a message to a number over a route will cost."""
    phone = number if number is not None and number.startswith("+") else None
    return spending.price(route, phone, recipient.country(phone) if phone is not None else None)


def affords(
    tx: Transaction, spending: Spending, client_id: UUID, price: int, now: datetime
) -> bool:
    """Whether the client's day has room for it."""
    spent = tx.tallies.sum(spend_key(spending, client_id, now)).amount
    return spending.fits(client_id, spent, price)


class Paid(StrEnum):
    """What became of an estimate."""

    FITS = "fits"
    SHADOW = "shadow"  # it does not fit, and is counted
    REACHED = "reached"  # it does not fit, and is not


def pay(
    tx: Transaction,
    policy: Policy,
    client_id: UUID,
    route: str,
    number: str | None,
    *,
    now: datetime,
) -> Paid:
    """Count what a message to a number over a route will cost to the client's day."""
    spending = policy.spending
    if spending is None:
        return Paid.FITS
    price = estimate(spending, route, number)
    fits = affords(tx, spending, client_id, price, now)
    if not fits and not spending.shadow:
        return Paid.REACHED
    until = spending.resets_at(spending.day(now)) + _DAY
    tx.tallies.add(Tally(spend_key(spending, client_id, now), policy.node, price, 0, until))
    return Paid.FITS if fits else Paid.SHADOW
