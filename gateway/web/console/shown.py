"""Values as pages show them: moments, numbers, a timeline in the order of time, bars."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.domain import recipient
from gateway.domain.addresses import mask
from gateway.domain.delivery import Attempt
from gateway.domain.explanation import CHANNELS
from gateway.domain.health import Tally
from gateway.domain.keyring import Keyring, KeyringError
from gateway.domain.verification import Verification
from gateway.services.case import addresses_of, code_of
from gateway.store.records import Logged
from gateway.store.support import File, Minute

NOTHING = "-"
_TELLING = 8  # last digits of a number by which it is known again, however it is spelled

CAUSES = {
    "first": "the request itself",
    "silence": "the one before was not confirmed in time",
    "failed": "the one before failed",
    "refused": "the one before was not taken",
    "unknown": "unknown whether the one before was taken",
    "resend": "asked for again",
    "next": "the next step was asked for",
}
SOURCES = {
    "submission": "the provider's answer to our call",
    "receipt": "the provider's receipt",
    "poll": "the provider, asked by us",
    "check": "a typed code",
    "client": "the client",
    "operator": "an operator",
    "deadline": "time ran out",
    "engine": "the gateway",
}
_ACTS = {
    "next",
    "resend",
    "cancel",
    "number",
    "release",
    "next refused",
    "resend refused",
    "cancel refused",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a timeline. `at` is our clock, `theirs` the provider's as it was written."""

    at: datetime
    kind: str  # begun, moved, odd (a receipt that moved nothing), parked, act
    path: str
    state: str
    who: str
    word: str
    theirs: str


def opened(keyring: Keyring, current: Verification) -> dict[str, str]:
    """The recipient's addresses in full by their kind, the principal one first; none when they are
    gone or do not open."""
    try:
        return addresses_of(keyring, current) or {}
    except KeyringError:
        return {}


def masked(keyring: Keyring, current: Verification) -> str:
    """The recipient as everybody may see it: the principal address, and how many more there are."""
    try:
        found = addresses_of(keyring, current)
    except KeyringError:
        return "does not open under this keyring"
    if not found:
        return "erased"
    first, *more = (mask(text) for text in found.values())
    return f"{first} (also {', '.join(more)})" if more else first


def full(keyring: Keyring, current: Verification) -> str:
    """The recipient for those who may see it."""
    found = opened(keyring, current)
    if len(found) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{kind} {text}" for kind, text in found.items()) or masked(keyring, current)


def cleaner(keyring: Keyring, current: Verification) -> Callable[[str], str]:
    """For what others wrote, a provider or the caller: without the code and the addresses, should
    they be in it. Vendors' own numbers (error 30007, 12:30:01) stay as they are."""
    digits, words = set[str](), set[str]()
    with contextlib.suppress(KeyringError):  # what does not open is not known here either
        digits.add(code_of(keyring, current))
    for text in opened(keyring, current).values():
        if text.startswith("+"):
            digits.add(text[-_TELLING:])
        else:
            words.add(text.casefold())

    def clean(text: str) -> str:
        bare = "".join(filter(str.isdigit, text))
        told = recipient.redact(text) if any(one in bare for one in digits) else text
        return "•••" if any(one in told.casefold() for one in words) else told

    return clean


def timeline(file: File, clean: Callable[[str], str]) -> list[Event]:
    """Everything that happened, oldest first; of one moment, what was begun before what came."""
    attempts = {one.ordinal: one for one in file.record.attempts}
    events = [
        *(((one.queued_at, 0, one.ordinal), _begun(one)) for one in attempts.values()),
        *(
            ((row.recorded_at, 1, row.number), _moved(row, attempts, clean))
            for row in file.record.log
        ),
        *(
            (
                (kept.received_at, 2, 0),
                Event(
                    kept.received_at, "parked", "", "kept aside", SOURCES["receipt"], kept.why, ""
                ),
            )
            for kept in file.parked
        ),
        *(
            (
                (entry.at, 3, entry.sequence),
                Event(entry.at, "act", "", entry.action, entry.actor, entry.why or entry.what, ""),
            )
            for entry in file.acts
            if entry.action in _ACTS
        ),
    ]
    return [event for _, event in sorted(events, key=lambda pair: pair[0])]


def _begun(attempt: Attempt) -> Event:
    why = CAUSES.get(attempt.cause, attempt.cause)
    return Event(attempt.queued_at, "begun", _path(attempt), "QUEUED", why, "", "")


def _moved(row: Logged, attempts: Mapping[int, Attempt], clean: Callable[[str], str]) -> Event:
    attempt = attempts.get(row.attempt) if row.attempt is not None else None
    ours = ""
    if attempt is not None and row.applied and row.after == attempt.state:
        ours = ": ".join(part for part in (attempt.reason, attempt.error) if part)
    return Event(
        at=row.recorded_at,
        kind="moved" if row.applied else "odd",
        path=_path(attempt) if attempt is not None else "the verification",
        state=f"{row.before} → {row.after}" if row.applied else f"{row.after}, not moved",
        who=SOURCES.get(row.source, row.source),
        word=clean(" ".join(part for part in (row.word, f"({ours})" if ours else "") if part)),
        theirs=clean(row.provider_time or ""),
    )


def _path(attempt: Attempt) -> str:
    return f"{attempt.ordinal}. {CHANNELS.get(attempt.channel, attempt.channel)}, {attempt.route}"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart, in the chart's own units: 10 wide a minute, 100 high."""

    x: int
    y: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A row of bars, the newest at the right, and its numbers in words."""

    title: str
    most: int
    total: int
    bars: tuple[Bar, ...]
    width: int


@dataclass(frozen=True, slots=True)
class RouteBar:
    """One bar of a route's chart: heights out of 100 above its line, out of 25 below."""

    x: int
    accepted: float
    delivered: float
    lost: float
    title: str


@dataclass(frozen=True, slots=True)
class RouteChart:
    """What a route did over a span, oldest first, and the same as rows: since when, accepted,
    delivered, failed or silent."""

    title: str
    accepted: int
    delivered: int
    lost: int
    bars: tuple[RouteBar, ...]
    rows: tuple[tuple[datetime, int, int, int], ...]
    width: int


def route_chart(title: str, bars: Sequence[tuple[datetime, Tally]]) -> RouteChart:
    """A chart of these counts, to its own scale."""
    rows = [
        (at, one.accepted + one.unknown, one.delivered, one.failed + one.silent) for at, one in bars
    ]
    most = max((max(row[1], row[2]) for row in rows), default=0) or 1
    deepest = max((row[3] for row in rows), default=0) or 1
    drawn = tuple(
        RouteBar(
            10 * place,
            round(100 * accepted / most, 1),
            round(100 * delivered / most, 1),
            round(25 * lost / max(deepest, most / 4), 1),
            f"{at:%m-%d %H:%M}: {accepted} accepted, {delivered} delivered, {lost} lost",
        )
        for place, (at, accepted, delivered, lost) in enumerate(rows)
        if accepted or delivered or lost
    )
    return RouteChart(
        title,
        accepted=sum(row[1] for row in rows),
        delivered=sum(row[2] for row in rows),
        lost=sum(row[3] for row in rows),
        bars=drawn,
        rows=tuple(row for row in reversed(rows) if any(row[1:])),
        width=10 * len(rows),
    )


def charts(minutes: Sequence[Minute]) -> list[Chart]:
    """The live view's, each with its own scale."""
    wanted: tuple[tuple[str, Callable[[Minute], int]], ...] = (
        ("Sends", lambda one: one.sends),
        ("Deliveries", lambda one: one.delivered),
        ("Fallbacks", lambda one: one.fallbacks),
        ("Failures", lambda one: one.failed),
    )
    return [_chart(title, minutes, count) for title, count in wanted]


def _chart(title: str, minutes: Sequence[Minute], count: Callable[[Minute], int]) -> Chart:
    counts = [count(one) for one in minutes]
    most = max([*counts, 1])
    return Chart(
        title,
        max([*counts, 0]),
        sum(counts),
        tuple(_bars(minutes, counts, most)),
        10 * len(counts),
    )


def _bars(minutes: Sequence[Minute], counts: Sequence[int], most: int) -> Iterator[Bar]:
    for at, (one, number) in enumerate(zip(minutes, counts, strict=True)):
        if number:
            height = round(100 * number / most, 1)
            yield Bar(10 * at, 100 - height, height, f"{one.at:%H:%M}: {number}")


def percent(part: int, whole: int) -> str:
    """A share in words; a dash of nothing."""
    return f"{100 * part / whole:.0f} %" if whole else NOTHING


def _clock(moment: datetime | None) -> str:
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}" if moment is not None else NOTHING


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment is not None else NOTHING


FILTERS: Mapping[str, Callable[..., Any]] = {
    "clock": _clock,
    "moment": _moment,
    "short": lambda moment: f"{moment:%H:%M}",
    "percent": percent,
}
