"""Sessions: a fresh gateway, provider and load, and what is asked of them, each measured between
two readings of /proc. The phases made of it are in bench_phases.py."""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Self

from bench_gateways import Gateway
from bench_processes import BenchError, Usage, Worker, pss_mb, usage

FIRST_NUMBER = 33_640_000_000  # +33 640 to +33 669: mobiles that are assigned and valid
NUMBERS = 30_000_000
STRIDE = 48_271  # coprime with NUMBERS: no number comes twice, neighbours are far apart
WRONG_CODE = "000000"
RECEIPT_DELAY = 0.02  # seconds, as the stub provider has it
SETTLE = 0.15  # seconds for what a server does after its last answer; part of its CPU time
LEAST_N = 100
LEAST_RATE = 20  # operations per second; below this a phase is given up


@dataclass(frozen=True)
class Options:
    n: int
    warmup: int
    connections: int
    keep: bool
    overdue: int = 10_000  # verifications of `fallback` and `claim`
    memory: int = 200_000  # lifecycles of `memory`
    grow_to: int = 1_000_000  # rows of `growth`

    def shared(self, share: float) -> "Options":
        """For a gateway that is asked for a share of the operations only."""
        n = max(LEAST_N, round(self.n * share))
        warmup = min(self.warmup, max(LEAST_N, round(self.warmup * share)))
        return replace(self, n=n, warmup=warmup)


@dataclass
class Figures:
    """One phase of one gateway in one round. Times in milliseconds, CPU in seconds per 1,000."""

    operations: int
    per_second: float
    cpu: float
    cpu_of_database: float  # the part of `cpu` of a database that is a process of its own
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
    bytes_each: dict[str, float] = field(default_factory=dict)  # on disk, by table and index
    written: float | None = None  # bytes to disk, an operation
    rate: float | None = None  # a second, of an open loop
    steps: dict[str, float] = field(default_factory=dict)  # of `lease`: microseconds a row
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
        self._numbers: Iterator[str] = numbers()
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
            port = self.provider.greeting()["port"]  # both start at the same time
            self.load.greeting()
            self.gateway = self._make(folder, port)
            stack.callback(self.gateway.close)
            stack.callback(self.gateway.server.kill)  # nothing to do when it was stopped
            self.gateway.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take_numbers(self, size: int) -> list[str]:
        return list(islice(self._numbers, size))

    def numbers_ahead(self, size: int) -> list[str]:
        """The numbers that the next sends go to."""
        taken = self.take_numbers(size)
        self._numbers = chain(taken, self._numbers)
        return taken

    def cancel(self, ids: list[str]) -> None:
        """Ends them, so that none is due later. Raises BenchError."""
        self.prepare("/otp/cancel", [{self._identifier: one} for one in ids], {200}, None)
        seconds = 30 + len(ids) / LEAST_RATE
        report = self.load.ask(seconds + 30, do="go", seconds=seconds)
        if wrong := wrong_answers(report):
            raise BenchError(wrong[0])

    def expect(self, *, receipts: bool, repeats: bool = False, hold: bool = False) -> None:
        """`repeats`: a number may be called for more than once. `hold`: receipts wait for their
        release."""
        path = self.gateway.receipts if receipts else ""
        how = {"repeats": repeats, "hold": hold}
        self.provider.ask(30, do="expect", port=self.gateway.port, path=path, **how)

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
        errors = wrong_answers(report)
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

    def send(
        self, size: int, *, receipts: bool, rate: float | None = None
    ) -> tuple[Figures, list[str]]:
        """So many sends, each over when the provider was called and, if there are receipts, the
        receipt was acknowledged; with `rate` so many a second are begun. Also the ids that were
        answered."""
        to = self.take_numbers(size)
        provided = self.gateway.has_provider
        if provided:
            self.expect(receipts=receipts)
        self.prepare_sends(to)
        figures, report, provider = self._measure(
            size, {"calls": size, "receipts": size if receipts else 0} if provided else None, rate
        )
        figures.rate = rate
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

    def receipts(self, size: int) -> tuple[Figures, list[str]]:
        """The receipts of so many sends, all at once: each over when it is acknowledged. The sends
        are not part of what is measured. Also their ids."""
        self.expect(receipts=True, hold=True)
        self.prepare_sends(self.take_numbers(size))
        sends, report, _ = self._measure(size, {"calls": size, "receipts": 0})
        time.sleep(RECEIPT_DELAY)
        seconds = 30 + size / LEAST_RATE
        before = self.usage()
        self.provider.ask(30, do="release")
        until = {"calls": size, "receipts": size}
        reached = self.provider.ask(seconds + 30, do="wait", seconds=seconds, **until)
        time.sleep(SETTLE)
        after = self.usage()
        provider = self.provider.ask(60, do="report")
        posted, answered = provider["posted"], provider["answered"]
        numbers = [number for number in posted if number in answered]
        spans = {
            "starts": [posted[number] for number in numbers],
            "ends": [answered[number] for number in numbers],
        }
        elapsed = (max(spans["ends"], default=0) - min(spans["starts"], default=0)) / 1e9
        figures = figures_of(size, elapsed, after.since(before), spans)
        figures.errors = sends.errors
        figures.errors += _wrong_provider(provider, until, reached=reached["reached"])
        figures.pss_mb = pss_mb(self.gateway.server.pid)
        return figures, [found for found in report["fields"] if found]

    def check_delivered(self, ids: list[str], figures: Figures) -> None:
        """Whether the acknowledged receipts had their effect; not part of what is measured."""
        bodies = [{self._identifier: asked} for asked in ids]
        self.prepare("/otp/status", bodies, {200}, self.gateway.delivery)
        _, report, _ = self._measure(len(ids), None)
        figures.undelivered = sum(state != "DELIVERED" for state in report["fields"])
        if figures.undelivered and not self.gateway.loses_receipts:
            figures.errors.append(f"{figures.undelivered} not DELIVERED after their receipt")

    def status(self, ids: list[str], by: str | None = None) -> Figures:
        bodies = [{by or self._identifier: asked} for asked in ids]
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
        self, size: int, until: dict[str, int] | None, rate: float | None = None
    ) -> tuple[Figures, dict[str, Any], dict[str, Any]]:
        seconds = 30 + size / LEAST_RATE
        before = self.usage()
        self.load.tell(do="go", seconds=seconds, rate=rate)
        report = self.load.hear(seconds + 30)
        errors = wrong_answers(report)
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
        figures = figures_of(size, elapsed, after.since(before), report)
        figures.errors = errors
        figures.pss_mb = pss_mb(self.gateway.server.pid)
        return figures, report, provider

    def usage(self) -> Usage:
        gateway = self.gateway
        return usage(gateway.server.pid, gateway.database_pid, self.load.pid, self.provider.pid)


def figures_of(size: int, elapsed: float, used: Usage, report: dict[str, Any]) -> Figures:
    spans = [
        end - start for start, end in zip(report["starts"], report["ends"], strict=True) if end
    ]
    return Figures(
        operations=size,
        per_second=size / elapsed if elapsed > 0 else math.nan,
        cpu=used.server / size * 1000,
        cpu_of_database=used.database / size * 1000,
        cpu_of_tools=used.tools / size * 1000,
        elsewhere=max(0.0, (used.machine - used.server - used.tools) / used.at),
        stolen=used.stolen / used.at,
        answer_p50=percentile(spans, 0.50),
        answer_p99=percentile(spans, 0.99),
        written=used.written / size,
    )


def wrong_answers(report: dict[str, Any]) -> list[str]:
    if not report["unexpected"]:
        return []
    counts = f"{report['unexpected']} unexpected answers, by status {report['statuses']}"
    none = f"time was over at {LEAST_RATE} a second" if report["timed_out"] else "none came"
    return [f"{counts} (0: {none}): {report['samples']}"]


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
