"""May this be sent or checked now? Counts in, answer out; who counts is the ledger.

Windows are fixed: a window opens, what happens in it is counted, and with its end the count begins
anew. Within one window there is never more than the maximum; around a boundary two windows meet, so
a span as long as the window may see up to twice as much. That buys one row a rule and subject,
whatever the maximum is, and a `reset` that is a promise.

What is counted for one number opens its window with the first event. What is counted for more than
one number (prefix, country, client, IP) is counted by every node for itself and summed, so its
windows stand on the clock (multiples of their length since 1970, UTC): all nodes mean the same one.
"""

import hashlib
import ipaddress
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from gateway.domain.delivery import Attempt, Cause, State
from gateway.domain.errors import InvalidInput, Limited
from gateway.domain.values import value
from gateway.domain.verification import COOL_DOWN, MAX_SENDS, NEXT_PAUSE, Verification

FAILURE_BUDGET = 15  # wrong checks per client and number, over all verifications…
FAILURE_WINDOW = timedelta(hours=1)  # …within this time


LONGEST_WINDOW = timedelta(days=31)  # that a rule may have
FAILURES = b"failures:"  # what the keys of such counters begin with
AHEAD = timedelta(seconds=5)  # by which a stored time may lie in the future: nodes' clocks differ
_SITE = 64  # bits of an IPv6 address that name whoever has it; the rest is theirs to vary


class Per(StrEnum):
    """What a rule counts sends by."""

    NUMBER = "number"
    PREFIX = "prefix"
    COUNTRY = "country"
    CLIENT = "client"
    IP = "ip"


@dataclass(frozen=True, slots=True)
class Rule:
    """At most `most` sends in `window` seconds. `digits` is how much of a number is its prefix,
    country code included. In shadow it is counted and logged, and refuses nothing.

    What follows from it is worked out once: `span` is its window, `wide` whether its counts are
    about more than one number, and so kept per node, and `tag` names it in the keys of its counts.
    Another window or subject begins anew; another maximum does not.
    """

    name: str
    per: Per
    window: int
    most: int
    shadow: bool = False
    digits: int = 0

    span: timedelta = field(init=False, repr=False, compare=False)
    wide: bool = field(init=False, repr=False, compare=False)
    tag: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        told = f"{self.name}\0{self.per}\0{self.window}\0{self.digits}"
        object.__setattr__(self, "span", timedelta(seconds=self.window))
        object.__setattr__(self, "wide", self.per is not Per.NUMBER)
        object.__setattr__(self, "tag", hashlib.sha256(told.encode()).digest()[:8])


PER_NUMBER = Rule("number", Per.NUMBER, 600, MAX_SENDS)  # in force unless settings say otherwise


@value
class Counter:
    """How often something happened in a window that began at `since`."""

    key: bytes
    since: datetime
    count: int


def refuse(
    code: str, detail: str, rule: str, limit: int, window: int, *, reset: datetime, now: datetime
) -> Limited:
    """The refusal of a rule that is used up until `reset`. `detail` may name {seconds}."""
    left = max(0.0, (reset - now).total_seconds())
    return Limited(
        code,
        detail.format(seconds=math.ceil(left)),
        retry_after=left,
        facts={
            "rule": rule,
            "limit": limit,
            "window": window,
            "remaining": 0,
            "reset": reset.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        },
    )


_PER = {Per.IP: "IP address"}


def over(rule: Rule, used: int) -> bool:
    """Whether a rule allows nothing more in this window."""
    return used >= rule.most


def reached(rule: Rule, reset: datetime, now: datetime) -> Limited:
    """What a rule that is over answers."""
    per = _PER.get(rule.per, rule.per)
    what = f"The limit of {rule.most} sends in {rule.window} s for this {per} is used up."
    detail = f"{what} Try again in {{seconds}} s."
    return refuse("limit_reached", detail, rule.name, rule.most, rule.window, reset=reset, now=now)


def opened(window: int, now: datetime) -> datetime:
    """When the window on the clock that holds `now` began; `window` in seconds."""
    return datetime.fromtimestamp(opened_at(window, now), UTC)


def opened_at(window: int, now: datetime) -> int:
    """The same in seconds since 1970."""
    return int(now.timestamp() // window) * window


def network(text: str) -> str:
    """The network that an address given by a caller is counted by: an IPv4 address alone, an IPv6
    address by its first 64 bits. Raises InvalidInput `client_ip_invalid`; it is not repeated.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise _no_address() from None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.scope_id is not None:  # says something inside one machine only
        raise _no_address()
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _SITE), strict=False))


def _no_address() -> InvalidInput:
    return InvalidInput(
        "client_ip_invalid",
        "`client_ip` is not an IP address. Give the person's address as your edge saw it, such as "
        "203.0.113.7 or 2001:db8::7, without port and zone.",
    )


def resend(verification: Verification, now: datetime) -> None:
    """Raise Limited when the person asks again too soon or too often."""
    cool_down(verification.sent_at, now)
    if verification.sends_left <= 0:
        raise sends_used_up(
            verification,
            f"This verification has used its {verification.sends_max} sends; the codes sent stay "
            "valid until it expires.",
            now,
        )


def sends_used_up(verification: Verification, detail: str, now: datetime) -> Limited:
    """The refusal of another send while this one runs: its window is its life."""
    life = math.ceil((verification.expires_at - verification.created_at).total_seconds())
    return refuse(
        "sends_used_up",
        detail,
        "sends",
        verification.sends_max,
        life,
        reset=verification.expires_at,
        now=now,
    )


def cool_down(sent_at: datetime, now: datetime) -> None:
    """Raise Limited when the last code left less than COOL_DOWN ago."""
    reset = sent_at + timedelta(seconds=COOL_DOWN)
    if now < reset and not ahead(sent_at, now):
        detail = "A code is on its way to this number. Ask again in {seconds} s."
        raise refuse("cool_down", detail, "cool_down", 1, COOL_DOWN, reset=reset, now=now)


def next_step(attempts: Sequence[Attempt], now: datetime) -> None:
    """Raise Limited when the step in force was asked for less than NEXT_PAUSE ago and has not
    failed: a double click is one step."""
    last = attempts[-1]
    if last.refused or last.state is State.FAILED:
        return
    asked = [one for one in attempts if one.step == last.step and one.cause is Cause.NEXT]
    if not asked:
        return
    reset = asked[0].queued_at + timedelta(seconds=NEXT_PAUSE)
    if now < reset:
        detail = "The step that was asked for is on its way. Ask for another in {seconds} s."
        raise refuse("cool_down", detail, "cool_down", 1, NEXT_PAUSE, reset=reset, now=now)


def failures(counter: Counter | None, now: datetime) -> None:
    """Raise Limited when the wrong checks of this client and number have used up their budget."""
    current = within(counter, FAILURE_WINDOW, now)
    if current is not None and current.count >= FAILURE_BUDGET:
        raise refuse(
            "failure_budget_used_up",
            "Too many wrong codes for this number. Try again in {seconds} s.",
            "failures",
            FAILURE_BUDGET,
            int(FAILURE_WINDOW.total_seconds()),
            reset=current.since + FAILURE_WINDOW,
            now=now,
        )


def surely_over(counter: Counter, now: datetime) -> bool:
    """Whether its window is over, whatever the settings say. That of wrong checks is known; `serve`
    knows the others and sweeps them sooner."""
    known = counter.key.startswith(FAILURES)
    return within(counter, FAILURE_WINDOW if known else LONGEST_WINDOW, now) is None


def count_failure(counter: Counter | None, key: bytes, now: datetime) -> Counter:
    """One more wrong check; a new window when the old one is over."""
    return count(counter, key, FAILURE_WINDOW, now)


def count(counter: Counter | None, key: bytes, window: timedelta, now: datetime) -> Counter:
    """One more; a new window when the old one is over."""
    current = within(counter, window, now)
    if current is None:
        return Counter(key, now, 1)
    return Counter(key, current.since, current.count + 1)


def within(counter: Counter | None, window: timedelta, now: datetime) -> Counter | None:
    """The counter while its window lasts. One of a clock that stood wrong is over."""
    if counter is None or now >= counter.since + window or ahead(counter.since, now):
        return None
    return counter


def ahead(stored: datetime, now: datetime) -> bool:
    """Whether a stored time lies so far in the future that a clock stood wrong when it was."""
    return stored > now + AHEAD
