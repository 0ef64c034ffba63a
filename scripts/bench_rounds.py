"""What happens to a gateway in a round: sessions (a fresh gateway, provider and load) and in them
phases, each measured between two readings of /proc."""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Self

from bench_gateways import Gateway, Ours, OursFallingBack, OursOnASlowDisk
from bench_processes import BenchError, Usage, Worker, pss_mb, usage

PHASES = ("lifecycle", "send", "status", "verify", "slow", "fallback", "claim")
OF_OURS = frozenset({"slow", "fallback", "claim", "memory"})
FIRST_NUMBER = 33_640_000_000  # +33 640 to +33 669: mobiles that are assigned and valid
NUMBERS = 30_000_000
STRIDE = 48_271  # coprime with NUMBERS: no number comes twice, neighbours are far apart
WRONG_CODE = "000000"
SETTLE = 0.15  # seconds for what a server does after its last answer; part of its CPU time
LEAST_RATE = 50  # operations per second; below this a phase is given up
ECHOES = 4  # an echo costs so little that it takes more of them for a CPU time to be read off
READS = 2


@dataclass(frozen=True)
class Options:
    n: int
    warmup: int
    connections: int
    keep: bool
    overdue: int = 10_000  # verifications of `fallback` and `claim`
    growth: int = 200_000  # lifecycles of `memory`


@dataclass
class Figures:
    """One phase of one gateway in one round. Times in milliseconds, CPU in seconds per 1,000."""

    operations: int
    per_second: float
    cpu: float
    cpu_of_tools: float
    elsewhere: float  # cores busy with neither the server nor the bench
    stolen: float  # cores the host gave to others
    answer_p50: float
    answer_p99: float
    end_to_end_p50: float | None = None  # from the send to its receipt's acknowledgement
    end_to_end_p99: float | None = None
    pss_mb: float = 0.0
    late_p50: float | None = None  # from the end of a patience to the attempt that follows
    late_p99: float | None = None
    pss_steps: list[float] = field(default_factory=list)  # megabytes, as it grew
    undelivered: int | None = None  # receipts acknowledged to no effect
    ledger: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def numbers() -> Iterator[str]:
    return (f"+{FIRST_NUMBER + index * STRIDE % NUMBERS}" for index in count(1))


def percentile(values: Sequence[int], share: float) -> float:
    """Nearest rank, from nanoseconds to milliseconds."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] / 1e6


class Session:
    """A gateway with a provider and a load of its own, for as long as the `with` lasts."""

    def __init__(
        self, make: Callable[[Path, int], Gateway], parent: Path, options: Options
    ) -> None:
        self._make = make
        self._parent = parent
        self.options = options
        self._numbers = numbers()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            folder = Path(tempfile.mkdtemp(dir=self._parent))
            if not self.options.keep:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self.provider = Worker("stub_provider")
            stack.callback(self.provider.stop)
            self.load = Worker("load")
            stack.callback(self.load.stop)
            self.gateway = self._make(folder, self.provider.hello["port"])
            stack.callback(self.gateway.server.kill)  # nothing to do when it was stopped
            self.gateway.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take_numbers(self, size: int) -> list[str]:
        return list(islice(self._numbers, size))

    def expect(self, *, receipts: bool, repeats: bool = False) -> None:
        """`repeats`: a number may be called for more than once."""
        path = self.gateway.receipts if receipts else ""
        self.provider.ask(30, do="expect", port=self.gateway.port, path=path, repeats=repeats)

    def lateness(self, ids: list[str], patience: int) -> tuple[list[int], list[str]]:
        """How late each second attempt was made, in nanoseconds, and what is wrong."""
        bodies = [{self._identifier: asked} for asked in ids]
        self.prepare("/otp/status", bodies, {200}, "attempts")
        seconds = 30 + len(ids) / LEAST_RATE
        report = self.load.ask(seconds + 30, do="go", seconds=seconds)
        late, odd = [], 0
        for attempts in report["fields"]:
            made = [datetime.fromisoformat(one["queued_at"]) for one in attempts or ()]
            odd += len(made) != 2
            if len(made) == 2:
                after = (made[1] - made[0]).total_seconds() - patience
                late.append(round(after * 1e9))
        errors = _wrong_answers(report)
        return late, [*errors, f"{odd} without a second attempt"] if odd else errors

    def prepare(
        self, path: str, bodies: list[dict[str, str]], expected: set[int], wanted: str | None
    ) -> None:
        self.load.ask(
            60,
            do="prepare",
            port=self.gateway.port,
            path=path,
            headers=self.gateway.headers,
            bodies=[json.dumps(body, separators=(",", ":")) for body in bodies],
            expected=sorted(expected),
            field=wanted,
            connections=self.options.connections,
        )

    def prepare_sends(self, to: list[str]) -> None:
        bodies = [{"to": number} for number in to]
        gateway = self.gateway
        self.prepare("/otp/send", bodies, {gateway.accepted}, gateway.identifier)

    def send(self, size: int, *, receipts: bool) -> tuple[Figures, list[str]]:
        """So many sends, each over when the provider was called and, if there are receipts, the
        receipt was acknowledged. Also the ids that were answered."""
        to = self.take_numbers(size)
        provided = self.gateway.has_provider
        if provided:
            self.expect(receipts=receipts)
        self.prepare_sends(to)
        figures, report, provider = self._measure(
            size, {"calls": size, "receipts": size if receipts else 0} if provided else None
        )
        if receipts:
            started = zip(to, report["starts"], strict=True)
            answered = provider["answered"]
            spans = [answered[number] - at for number, at in started if at and number in answered]
            figures.end_to_end_p50 = percentile(spans, 0.50)
            figures.end_to_end_p99 = percentile(spans, 0.99)
        ids = [found for found in report["fields"] if found]
        if self.gateway.identifier and len(ids) < size and not figures.errors:
            figures.errors.append(f"{size - len(ids)} answers without {self.gateway.identifier}")
        return figures, ids

    def check_delivered(self, ids: list[str], figures: Figures) -> None:
        """Whether the acknowledged receipts had their effect; not part of what is measured."""
        bodies = [{self._identifier: asked} for asked in ids]
        self.prepare("/otp/status", bodies, {200}, self.gateway.delivery)
        _, report, _ = self._measure(len(ids), None)
        figures.undelivered = sum(state != "DELIVERED" for state in report["fields"])
        if figures.undelivered and not self.gateway.loses_receipts:
            figures.errors.append(f"{figures.undelivered} not DELIVERED after their receipt")

    def status(self, ids: list[str]) -> Figures:
        bodies = [{self._identifier: asked} for asked in ids]
        self.prepare("/otp/status", bodies, {200}, None)
        return self._measure(len(ids), None)[0]

    def verify(self, ids: list[str]) -> Figures:
        """A wrong code for each; 404 says so. (One in a million is right: 200.)

        404 is also the answer to an unknown id, which costs less: that one has no checks left.
        """
        bodies = [{self._identifier: asked, "code": WRONG_CODE} for asked in ids]
        self.prepare("/otp/verify", bodies, {404, 200}, "checks_left")
        figures, report, _ = self._measure(len(ids), None)
        if strange := sum(not isinstance(left, int) for left in report["fields"]):
            figures.errors.append(f"{strange} answers without checks_left")
        return figures

    @property
    def _identifier(self) -> str:
        if self.gateway.identifier is None:
            raise BenchError(f"{self.gateway.name} cannot be asked by id")
        return self.gateway.identifier

    def _measure(
        self, size: int, until: dict[str, int] | None
    ) -> tuple[Figures, dict[str, Any], dict[str, Any]]:
        seconds = 30 + size / LEAST_RATE
        before = self.usage()
        self.load.tell(do="go", seconds=seconds)
        report = self.load.hear(seconds + 30)
        errors = _wrong_answers(report)
        provider: dict[str, Any] = {"called": {}, "answered": {}}
        if until:
            # Without an answer there may be no call to wait for.
            patience = 5 if errors else seconds
            reached = self.provider.ask(patience + 30, do="wait", seconds=patience, **until)
            time.sleep(SETTLE)
            after = self.usage()
            provider = self.provider.ask(60, do="report")
            errors += _wrong_provider(provider, until, reached=reached["reached"])
        else:
            time.sleep(SETTLE)
            after = self.usage()
        ends = [*report["ends"], *provider["called"].values(), *provider["answered"].values()]
        elapsed = (max(ends) - min(filter(None, report["starts"]), default=0)) / 1e9
        figures = _figures(size, elapsed, after.since(before), report)
        figures.errors = errors
        figures.pss_mb = pss_mb(self.gateway.server.pid)
        return figures, report, provider

    def usage(self) -> Usage:
        return usage(self.gateway.server.pid, self.load.pid, self.provider.pid)


def _figures(size: int, elapsed: float, used: Usage, report: dict[str, Any]) -> Figures:
    spans = [
        end - start for start, end in zip(report["starts"], report["ends"], strict=True) if end
    ]
    return Figures(
        operations=size,
        per_second=size / elapsed if elapsed > 0 else math.nan,
        cpu=used.server / size * 1000,
        cpu_of_tools=used.tools / size * 1000,
        elsewhere=max(0.0, (used.machine - used.server - used.tools) / used.at),
        stolen=used.stolen / used.at,
        answer_p50=percentile(spans, 0.50),
        answer_p99=percentile(spans, 0.99),
    )


def _wrong_answers(report: dict[str, Any]) -> list[str]:
    if not report["unexpected"]:
        return []
    counts = f"{report['unexpected']} unexpected answers, by status {report['statuses']}"
    return [f"{counts} (0: none came): {report['samples']}"]


def _wrong_provider(report: dict[str, Any], until: dict[str, int], *, reached: bool) -> list[str]:
    errors = []
    if not reached:
        errors.append(
            f"the provider was called for {len(report['called'])} of {until['calls']} numbers, "
            f"{len(report['answered'])} of {until['receipts']} receipts were answered"
        )
    if report["repeats"]:
        errors.append(f"{report['repeats']} numbers were submitted to the provider again")
    if report["strange"]:
        errors.append(f"{report['strange']} calls the provider does not know")
    refused = {status: n for status, n in report["statuses"].items() if not status.startswith("2")}
    if refused:
        errors.append(f"receipts not acknowledged, by status {refused}: {report['samples']}")
    return errors


def run_round(
    make: type[Gateway], parent: Path, options: Options, wanted: set[str]
) -> dict[str, Figures]:
    """All wanted phases of one gateway. The lifecycle has a server to itself, since the ledger's
    operations per commit are those of a server's whole life."""
    found: dict[str, Figures] = {}
    others = wanted - {"lifecycle"} - OF_OURS
    if "lifecycle" in wanted & make.phases:
        found["lifecycle"] = _lifecycle(make, parent, options)
    if others and not make.has_provider:  # the echo, against which all the others are set
        found["send"] = _echo(make, parent, options)
    elif others & make.phases:
        found |= _calls(make, parent, options, others & make.phases)
    if make is Ours:
        for phase in sorted(wanted & OF_OURS):
            found[phase] = _OURS[phase](parent, options)
    return found


def _slow(parent: Path, options: Options) -> Figures:
    return _lifecycle(OursOnASlowDisk, parent, options)


def _memory(parent: Path, options: Options) -> Figures:
    """Lifecycles in ten parts, and how much memory there was after each."""
    with Session(Ours, parent, options) as session:
        parts = [session.send(options.growth // 10, receipts=True)[0] for _ in range(10)]
        figures = parts[-1]
        figures.errors = [error for part in parts for error in part.errors]
        figures.pss_steps = [part.pss_mb for part in parts]
        figures.ledger = session.gateway.stop()
    return figures


def _fallback(parent: Path, options: Options) -> Figures:
    """How late those come whose patience ends, by the server's own times, while as many become due
    as were sent."""
    with Session(OursFallingBack, parent, options) as session:
        ids = _unreported(session, options.overdue)
        before = session.usage()
        began = time.monotonic()
        patience = OursFallingBack.patience
        reached = session.provider.ask(
            90 + patience, do="wait", seconds=60 + patience, calls=2 * len(ids), receipts=0
        )
        after = session.usage()
        figures = _figures(len(ids), time.monotonic() - began, after.since(before), _NOTHING)
        if not reached["reached"]:
            figures.errors.append("not everything fell back")
        late, errors = session.lateness(ids, patience)
        figures.errors += errors
        figures.late_p50, figures.late_p99 = percentile(late, 0.50), percentile(late, 0.99)
        figures.pss_mb = pss_mb(session.gateway.server.pid)
        session.gateway.stop()
    return figures


def _claim(parent: Path, options: Options) -> Figures:
    """How many a second are found due, claimed and submitted, when all are due at once: the server
    stands still until they are."""
    with Session(partial(_patient, options.overdue), parent, options) as session:
        began = time.monotonic()
        ids = _unreported(session, options.overdue)
        over = time.monotonic()
        gateway = session.gateway
        patience = gateway.patience
        if over - began > patience - 1:
            raise BenchError("the first were due before the last were sent: take less --overdue")
        gateway.server.pause()
        time.sleep(patience + 1)
        before = session.usage()
        resumed = time.monotonic_ns()
        gateway.server.go_on()
        seconds = 30 + len(ids) / LEAST_RATE
        wanted = {"calls": 2 * len(ids), "receipts": 0}
        reached = session.provider.ask(seconds + 30, do="wait", seconds=seconds, **wanted)
        time.sleep(SETTLE)
        after = session.usage()
        last = session.provider.ask(60, do="report")["last"]
        figures = _figures(len(ids), (last - resumed) / 1e9, after.since(before), _NOTHING)
        if not reached["reached"]:
            figures.errors.append("not all that was due was submitted")
        figures.pss_mb = pss_mb(gateway.server.pid)
        gateway.stop()
    return figures


def _patient(overdue: int, folder: Path, provider_port: int) -> OursFallingBack:
    """A gateway that waits until all have been sent, also by a slow machine."""

    class Patient(OursFallingBack):
        patience = min(200, 10 + overdue // 150)

    return Patient(folder, provider_port)


def _unreported(session: Session, size: int) -> list[str]:
    """So many sends that no receipt will follow; their ids."""
    session.expect(receipts=False, repeats=True)
    session.prepare_sends(session.take_numbers(size))
    seconds = 30 + size / LEAST_RATE
    report = session.load.ask(seconds + 30, do="go", seconds=seconds)
    if wrong := _wrong_answers(report):
        raise BenchError(wrong[0])
    session.provider.ask(seconds + 30, do="wait", seconds=seconds, calls=size, receipts=0)
    time.sleep(SETTLE)
    return [found for found in report["fields"] if found]


_NOTHING: dict[str, Any] = {"starts": [], "ends": []}
_OURS: dict[str, Callable[[Path, Options], Figures]] = {
    "slow": _slow,
    "fallback": _fallback,
    "claim": _claim,
    "memory": _memory,
}


def _lifecycle(make: type[Gateway], parent: Path, options: Options) -> Figures:
    with Session(make, parent, options) as session:
        warmup, _ = session.send(options.warmup, receipts=True)
        figures, ids = session.send(options.n, receipts=True)
        figures.errors += _of_warmup(warmup)
        if not figures.errors:
            session.check_delivered(ids, figures)
        figures.ledger = session.gateway.stop()
    return figures


def _calls(
    make: type[Gateway], parent: Path, options: Options, wanted: set[str]
) -> dict[str, Figures]:
    """Sends, and on what they left behind reads and checks. When the sends went wrong there is
    nothing to go on with, and they are what is reported."""
    found: dict[str, Figures] = {}
    with Session(make, parent, options) as session:
        warmup, early = session.send(options.warmup, receipts=False)
        sends, ids = session.send(options.n, receipts=False)
        sends.errors += _of_warmup(warmup)
        if "send" in wanted or sends.errors:
            found["send"] = sends
        if "status" in wanted and not sends.errors:
            warmup = session.status(early)
            found["status"] = session.status(ids * READS)
            found["status"].errors += _of_warmup(warmup)
        if "verify" in wanted and not sends.errors:
            warmup = session.verify(early)
            found["verify"] = session.verify(ids)
            found["verify"].errors += _of_warmup(warmup)
        session.gateway.stop()
    return found


def _echo(make: type[Gateway], parent: Path, options: Options) -> Figures:
    with Session(make, parent, options) as session:
        warmup, _ = session.send(options.warmup, receipts=False)
        figures, _ = session.send(options.n * ECHOES, receipts=False)
        figures.errors += _of_warmup(warmup)
        session.gateway.stop()
    return figures


def _of_warmup(figures: Figures) -> list[str]:
    return [f"in the warm-up: {error}" for error in figures.errors]
