"""What stands in the way of a person's next code, and taking it away.

Wrong codes of a client and number, sends of a number, a provider's word that a number does not take
its messages, the cool-down that an ended verification left. A verification that is locked stays so:
its code is burnt, a new one can be sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from gateway.domain import limits
from gateway.domain.limits import Counter
from gateway.domain.policy import Policy, cool_key, failures_key, failures_keys, number_key
from gateway.domain.verification import COOL_DOWN, Verification
from gateway.services.case import Context
from gateway.store.ledger import Operation, Transaction, Wants
from gateway.store.records import Suppression


class Block(NamedTuple):
    """One of them, in words that hold no number, and until when it stands."""

    told: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Release(Operation[int]):
    """Take away what stands in the way of this verification's recipient; how much it was."""

    index: bytes
    counters: tuple[bytes, ...]


def keys(policy: Policy, current: Verification, indexes: Sequence[bytes]) -> tuple[bytes, ...]:
    """The counters that a new code for the same person would meet, at each of these addresses."""
    client, rules = current.client_id, [rule for rule in policy.rules if not rule.wide]
    wrong = failures_keys(client, indexes)
    cool = [cool_key(client, index, current.purpose) for index in indexes]
    return (*wrong, *cool, *(number_key(rule, index) for rule in rules for index in indexes))


def releasing(policy: Policy, current: Verification, indexes: Sequence[bytes]) -> Release:
    """The operation for it."""
    return Release(current.recipient_index, keys(policy, current, indexes))


def blocks(
    policy: Policy,
    current: Verification,
    indexes: Sequence[bytes],
    counters: Sequence[Counter],
    suppressions: Sequence[Suppression],
    *,
    now: datetime,
) -> list[Block]:
    """What of it stands in the way now."""
    found = {one.key: one for one in counters}
    counted = [block for index in indexes for block in _counted(policy, current, index, found, now)]
    return counted + [
        Block(f"{one.channel} over {one.account}: {one.reason}", one.until)
        for one in suppressions
        if one.until > now
    ]


def _counted(
    policy: Policy,
    current: Verification,
    index: bytes,
    found: Mapping[bytes, Counter],
    now: datetime,
) -> list[Block]:
    client = current.client_id
    made = []
    wrong = limits.within(found.get(failures_key(client, index)), limits.FAILURE_WINDOW, now)
    if wrong is not None and wrong.count >= limits.FAILURE_BUDGET:
        until = wrong.since + limits.FAILURE_WINDOW
        made.append(Block(f"{wrong.count} wrong codes for this client", until))
    span = timedelta(seconds=COOL_DOWN)
    cool = limits.within(found.get(cool_key(client, index, current.purpose)), span, now)
    if cool is not None:
        made.append(Block("a code left just now", cool.since + span))
    for rule in policy.rules:
        if rule.wide:
            continue
        span = timedelta(seconds=rule.window)
        used = limits.within(found.get(number_key(rule, index)), span, now)
        if used is not None and limits.over(rule, used.count):
            shadow = ", in shadow: it refuses nothing" if rule.shadow else ""
            made.append(
                Block(f"the limit {rule.name}: {used.count} sends{shadow}", used.since + span)
            )
    return made


def wants(operation: Release) -> Wants:
    """The counters and what providers said of the number."""
    return Wants(counters=operation.counters, suppressed=(operation.index,))


def apply(tx: Transaction, context: Context, operation: Release, now: datetime) -> int:
    """Take it away."""
    ways = tx.believed(operation.index)
    for way in ways:
        tx.lift(way)
    found = [tx.counter(key) for key in operation.counters]
    return len(ways) + sum(tx.drop_counter(one) for one in found if one is not None)
