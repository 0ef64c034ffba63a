"""What happens to a gateway in a round: the phases, each in a session or sharing one."""

import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench_gateways import Gateway, Ours, variant
from bench_processes import BenchError, Usage, pss_mb
from bench_rounds import (
    LEAST_RATE,
    SETTLE,
    Figures,
    Options,
    Session,
    figures_of,
    percentile,
    wrong_answers,
)

PHASES = (
    "lifecycle", "send", "status", "verify", "receipts", "latency", "even", "slow", "fallback",
    "claim", "spread", "lease",
)  # fmt: skip
ONCE = ("memory", "growth")  # they take minutes: in the first round alone
ECHOES = 4  # an echo costs so little that it takes more of them for a CPU time to be read off
READS = 2
HALF = 0.5  # of the saturated rate, for `latency` and `spread`
EVEN = 300  # a second, for `even`: what every peer but the first draft keeps up with
SPREAD_FOR = 8  # seconds in which so many become due one after the other
CLAIMED_MOST = 3000  # due at once: more only take longer until they are
STEPS = 10  # readings of `memory`
PATIENCE = 5  # seconds, the least there is

Measured = dict[str, Figures]  # by phase
Job = Callable[[type[Gateway], Path, Options, set[str]], Measured]


def jobs(
    make: type[Gateway], parent: Path, options: Options, wanted: set[str]
) -> dict[str, Callable[[], Measured]]:
    """What gives the wanted phases of one gateway, by name, each in a session of its own: when one
    fails, the others still count. Those that tell of the ledger have a server to themselves, since
    operations per commit are those of a server's whole life."""
    possible = wanted & make.phases
    mine = options.shared(make.share)
    return {
        name: partial(run, make, parent, mine, possible & phases)
        for name, (phases, run) in JOBS.items()
        if possible & phases
    }


def _lifecycle(make: type[Gateway], parent: Path, options: Options) -> Figures:
    with Session(make, parent, options) as session:
        warmup, _ = session.send(options.warmup, receipts=True)
        before = session.gateway.stored()
        figures, ids = session.send(options.n, receipts=True)
        figures.bytes_each = each(before, session.gateway.stored(), options.n)
        _finish(session, figures, warmup, ids)
    return figures


def _receipts(make: type[Gateway], parent: Path, options: Options) -> Figures:
    with Session(make, parent, options) as session:
        warmup, _ = session.send(options.warmup, receipts=True)
        figures, ids = session.receipts(options.n)
        _finish(session, figures, warmup, ids)
    return figures


def _latency(make: type[Gateway], parent: Path, options: Options) -> Figures:
    """An open loop at half of what the same server just did in a closed one."""
    with Session(make, parent, options) as session:
        warmup, _ = session.send(options.warmup, receipts=True)
        full, _ = session.send(options.n // 2, receipts=True)
        warmup.errors += full.errors
        rate = full.per_second * HALF
        if warmup.errors or math.isnan(rate):
            full.errors = of_warmup(warmup)
            return full
        figures, ids = session.send(options.n, receipts=True, rate=rate)
        _finish(session, figures, warmup, ids)
    return figures


def _even(make: type[Gateway], parent: Path, options: Options) -> Figures:
    """An open loop at a rate that is the same for all; the echo's, whose inflation the others' is
    set against, has no receipts."""
    with Session(make, parent, options) as session:
        receipts = make.has_provider
        warmup, _ = session.send(options.warmup, receipts=receipts)
        figures, ids = session.send(options.n, receipts=receipts, rate=EVEN)
        if receipts:
            _finish(session, figures, warmup, ids)
        else:
            figures.errors += of_warmup(warmup)
    return figures


def _finish(session: Session, figures: Figures, warmup: Figures, ids: list[str]) -> None:
    figures.errors += of_warmup(warmup)
    if not figures.errors:
        session.check_delivered(ids, figures)
    figures.ledger = session.gateway.stop()


def _slow(make: type[Gateway], parent: Path, options: Options) -> Figures:
    return _lifecycle(variant(_ours(make), commit_delay=2), parent, options)


def _memory(make: type[Gateway], parent: Path, options: Options) -> Figures:
    """Lifecycles in ten parts, and how much memory there was after each."""
    with Session(make, parent, options) as session:
        parts = [session.send(options.memory // STEPS, receipts=True)[0] for _ in range(STEPS)]
        figures = parts[-1]
        figures.errors = [error for part in parts for error in part.errors]
        figures.pss_steps = [part.pss_mb for part in parts]
        figures.ledger = session.gateway.stop()
    return figures


def _fallback(make: type[Gateway], parent: Path, options: Options) -> Figures:
    """How late those come whose patience ends, by the server's own times, while as many become due
    as were sent."""
    falling = variant(_ours(make), patience=PATIENCE, falls_back=True)
    with Session(falling, parent, options) as session:
        ids, _ = unreported(session, options.overdue)
        before = session.usage()
        began = time.monotonic()
        errors = fallen_back(session, len(ids), 60 + PATIENCE)
        after = session.usage()
        figures = figures_of(len(ids), time.monotonic() - began, after.since(before), NOTHING)
        figures.errors += errors
        _note_lateness(session, figures, ids, PATIENCE)
        session.gateway.stop()
    return figures


def _falling(make: type[Gateway], parent: Path, options: Options, wanted: set[str]) -> Measured:
    """`claim`, and at half of its rate `spread`."""
    size = min(options.overdue, CLAIMED_MOST)
    patience = 10 + size // 300  # until all have been sent
    falling = variant(_ours(make), patience=patience, falls_back=True)
    found: Measured = {}
    with Session(falling, parent, options) as session:
        claimed, ids = claim(session, size, patience)
        claimed.pss_mb = pss_mb(session.gateway.server.pid)
        if "claim" in wanted or claimed.errors:
            found["claim"] = claimed
        if "spread" in wanted and not claimed.errors:
            session.cancel(ids)
            found["spread"] = _spread(session, patience, claimed.per_second * HALF)
        session.gateway.stop()
    return found


def claim(session: Session, size: int, patience: int) -> tuple[Figures, list[str]]:
    """How many a second are found due, decided, stored and submitted, when so many are due at once:
    the server stands still until they are. Also their ids."""
    began = time.monotonic()
    ids, _ = unreported(session, size)
    left = patience - (time.monotonic() - began)
    if left < 1:
        raise BenchError("the first were due before the last were sent: take less --overdue")
    server = session.gateway.server
    server.pause()
    time.sleep(patience + 1)
    before = session.usage()
    resumed = time.monotonic_ns()
    server.go_on()
    errors = fallen_back(session, len(ids), 30 + size / LEAST_RATE)
    time.sleep(SETTLE)
    after = session.usage()
    last = session.provider.ask(60, do="report")["last"]
    figures = figures_of(len(ids), (last - resumed) / 1e9, after.since(before), NOTHING)
    figures.errors += errors
    return figures, ids


def _spread(session: Session, patience: int, rate: float) -> Figures:
    """How late those come that fall due one after the other, so many a second: sent at that rate,
    all before the first of them is due, then waited for."""
    size = max(1, min(session.options.overdue, round(rate * SPREAD_FOR)))
    ids, began = unreported(session, size, rate)
    before = session.usage()
    errors = fallen_back(session, len(ids), 30 + patience + SPREAD_FOR)
    after = session.usage()
    last = session.provider.ask(60, do="report")["last"]
    elapsed = (last - began) / 1e9 - patience
    figures = figures_of(len(ids), elapsed, after.since(before), NOTHING)
    figures.rate = rate
    figures.errors += errors
    _note_lateness(session, figures, ids, patience)
    return figures


def fallen_back(session: Session, size: int, seconds: float) -> list[str]:
    """Wait until so many have been submitted a second time; what is wrong when they have not."""
    wanted = {"calls": 2 * size, "receipts": 0}
    reached = session.provider.ask(seconds + 30, do="wait", seconds=seconds, **wanted)
    return [] if reached["reached"] else ["not all that was due was submitted"]


def _note_lateness(session: Session, figures: Figures, ids: list[str], patience: int) -> None:
    late, errors = session.lateness(ids, patience)
    figures.errors += errors
    figures.late_p50, figures.late_p99 = percentile(late, 0.50), percentile(late, 0.99)
    figures.pss_mb = pss_mb(session.gateway.server.pid)


def unreported(session: Session, size: int, rate: float | None = None) -> tuple[list[str], int]:
    """So many sends, with `rate` so many a second, that no receipt will follow: their ids, and
    when the first was begun."""
    session.expect(receipts=False, repeats=True)
    session.prepare_sends(session.take_numbers(size))
    seconds = 30 + size / LEAST_RATE
    report = session.load.ask(seconds + 30, do="go", seconds=seconds, rate=rate)
    if wrong := wrong_answers(report):
        raise BenchError(wrong[0])
    session.provider.ask(seconds + 30, do="wait", seconds=seconds, calls=size, receipts=0)
    time.sleep(SETTLE)
    return [found for found in report["fields"] if found], min(report["starts"])


def _lease(make: type[Gateway], parent: Path, options: Options) -> Figures:
    """What the ledger's statements for due rows cost on the store alone: no server, no provider,
    no decisions; see bench_lease.py."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        gateway = _ours(make)(Path(folder), 0)
        try:
            found = gateway.lease(options.overdue)
        finally:
            gateway.close()
    used = Usage(**found["used"])
    figures = figures_of(found["rows"], used.at, used, NOTHING)
    figures.steps = found["steps"]
    return figures


def _calls(make: type[Gateway], parent: Path, options: Options, wanted: set[str]) -> Measured:
    """Sends, and on what they left behind reads and checks. When the sends went wrong there is
    nothing to go on with, and they are what is reported."""
    if not make.has_provider:  # the echo, against which all the others are set
        return {"send": _echo(make, parent, options)}
    found: Measured = {}
    with Session(make, parent, options) as session:
        warmup, early = session.send(options.warmup, receipts=False)
        sends, ids = session.send(options.n, receipts=False)
        sends.errors += of_warmup(warmup)
        if "send" in wanted or sends.errors:
            found["send"] = sends
        if "status" in wanted and not sends.errors:
            warmup = session.status(early)
            found["status"] = session.status(ids * READS)
            found["status"].errors += of_warmup(warmup)
        if "verify" in wanted and not sends.errors:
            warmup = session.verify(early)
            found["verify"] = session.verify(ids)
            found["verify"].errors += of_warmup(warmup)
        session.gateway.stop()
    return found


def _echo(make: type[Gateway], parent: Path, options: Options) -> Figures:
    with Session(make, parent, options) as session:
        warmup, _ = session.send(options.warmup, receipts=False)
        figures, _ = session.send(options.n * ECHOES, receipts=False)
        figures.errors += of_warmup(warmup)
        session.gateway.stop()
    return figures


def each(before: dict[str, int], after: dict[str, int], size: int) -> dict[str, float]:
    """What every one of so many added, where it added anything."""
    grown = {name: (held - before.get(name, 0)) / size for name, held in after.items()}
    return {name: added for name, added in grown.items() if added > 0}


def of_warmup(figures: Figures) -> list[str]:
    return [f"in the warm-up: {error}" for error in figures.errors]


def _ours(make: type[Gateway]) -> type[Ours]:
    if not issubclass(make, Ours):
        raise BenchError(f"{make.name} has no such settings")
    return make


def _alone(
    phase: str, run: Callable[[type[Gateway], Path, Options], Figures]
) -> tuple[frozenset[str], Job]:
    """A phase with a session to itself."""
    return frozenset({phase}), lambda make, parent, options, _: {phase: run(make, parent, options)}


NOTHING: dict[str, Any] = {"starts": [], "ends": []}
JOBS: dict[str, tuple[frozenset[str], Job]] = {
    "lifecycle": _alone("lifecycle", _lifecycle),
    "calls": (frozenset({"send", "status", "verify"}), _calls),
    "receipts": _alone("receipts", _receipts),
    "latency": _alone("latency", _latency),
    "even": _alone("even", _even),
    "slow": _alone("slow", _slow),
    "fallback": _alone("fallback", _fallback),
    "falling": (frozenset({"claim", "spread"}), _falling),
    "lease": _alone("lease", _lease),
    "memory": _alone("memory", _memory),
}
