"""What happens to a gateway in a round: the phases, each in a session or sharing one."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_gateways import Gateway, Ours, variant
from bench_processes import BenchError, pss_mb
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
    "lifecycle", "send", "status", "verify", "receipts", "latency", "slow", "fallback", "claim",
)  # fmt: skip
ONCE = ("memory", "growth")  # they take minutes: in the first round alone
CALLS = frozenset({"send", "status", "verify"})  # they share a session
ECHOES = 4  # an echo costs so little that it takes more of them for a CPU time to be read off
READS = 2
HALF = 0.5  # of the saturated rate, for `latency`
STEPS = 10  # readings of `memory`
PATIENCE = 5  # seconds, the least there is


def run_round(
    make: type[Gateway], parent: Path, options: Options, wanted: set[str]
) -> dict[str, Figures]:
    """All wanted phases of one gateway. Those that tell of the ledger have a server to themselves,
    since operations per commit are those of a server's whole life."""
    found: dict[str, Figures] = {}
    if wanted & CALLS and not make.has_provider:  # the echo, against which all the others are set
        found["send"] = _echo(make, parent, options)
    elif asked := wanted & CALLS & make.phases:
        found |= _calls(make, parent, options, asked)
    for phase, run in _ALONE.items():
        if phase in wanted & make.phases:
            found[phase] = run(make, parent, options)
    return {phase: found[phase] for phase in (*PHASES, *ONCE) if phase in found}


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
        full, _ = session.send(options.n, receipts=True)
        warmup.errors += full.errors
        rate = full.per_second * HALF
        if warmup.errors or math.isnan(rate):
            full.errors = of_warmup(warmup)
            return full
        figures, ids = session.send(options.n, receipts=True, rate=rate)
        _finish(session, figures, warmup, ids)
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
        ids = unreported(session, options.overdue)
        before = session.usage()
        began = time.monotonic()
        wanted = {"calls": 2 * len(ids), "receipts": 0}
        seconds = 60 + PATIENCE
        reached = session.provider.ask(seconds + 30, do="wait", seconds=seconds, **wanted)
        after = session.usage()
        figures = figures_of(len(ids), time.monotonic() - began, after.since(before), NOTHING)
        if not reached["reached"]:
            figures.errors.append("not everything fell back")
        late, errors = session.lateness(ids, PATIENCE)
        figures.errors += errors
        figures.late_p50, figures.late_p99 = percentile(late, 0.50), percentile(late, 0.99)
        figures.pss_mb = pss_mb(session.gateway.server.pid)
        session.gateway.stop()
    return figures


def _claim(make: type[Gateway], parent: Path, options: Options) -> Figures:
    """How many a second are found due, claimed and submitted, when all are due at once: the server
    stands still until they are."""
    patience = min(200, 10 + options.overdue // 300)  # until all have been sent
    falling = variant(_ours(make), patience=patience, falls_back=True)
    with Session(falling, parent, options) as session:
        figures, _ = claim(session, options.overdue, patience)
        figures.pss_mb = pss_mb(session.gateway.server.pid)
        session.gateway.stop()
    return figures


def claim(session: Session, size: int, patience: int) -> tuple[Figures, list[str]]:
    """So many that are due at once; also their ids."""
    began = time.monotonic()
    ids = unreported(session, size)
    left = patience - (time.monotonic() - began)
    if left < 1:
        raise BenchError("the first were due before the last were sent: take less --overdue")
    server = session.gateway.server
    server.pause()
    time.sleep(patience + 1)
    before = session.usage()
    resumed = time.monotonic_ns()
    server.go_on()
    seconds = 30 + size / LEAST_RATE
    wanted = {"calls": 2 * len(ids), "receipts": 0}
    reached = session.provider.ask(seconds + 30, do="wait", seconds=seconds, **wanted)
    time.sleep(SETTLE)
    after = session.usage()
    last = session.provider.ask(60, do="report")["last"]
    figures = figures_of(len(ids), (last - resumed) / 1e9, after.since(before), NOTHING)
    if not reached["reached"]:
        figures.errors.append("not all that was due was submitted")
    return figures, ids


def unreported(session: Session, size: int) -> list[str]:
    """So many sends that no receipt will follow; their ids."""
    session.expect(receipts=False, repeats=True)
    session.prepare_sends(session.take_numbers(size))
    seconds = 30 + size / LEAST_RATE
    report = session.load.ask(seconds + 30, do="go", seconds=seconds)
    if wrong := wrong_answers(report):
        raise BenchError(wrong[0])
    session.provider.ask(seconds + 30, do="wait", seconds=seconds, calls=size, receipts=0)
    time.sleep(SETTLE)
    return [found for found in report["fields"] if found]


def _calls(
    make: type[Gateway], parent: Path, options: Options, wanted: set[str]
) -> dict[str, Figures]:
    """Sends, and on what they left behind reads and checks. When the sends went wrong there is
    nothing to go on with, and they are what is reported."""
    found: dict[str, Figures] = {}
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


NOTHING: dict[str, Any] = {"starts": [], "ends": []}
_ALONE: dict[str, Callable[[type[Gateway], Path, Options], Figures]] = {
    "lifecycle": _lifecycle,
    "receipts": _receipts,
    "latency": _latency,
    "slow": _slow,
    "fallback": _fallback,
    "claim": _claim,
    "memory": _memory,
}
