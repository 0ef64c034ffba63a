"""The command line of scripts/bench: what is measured, in which order, where the result goes."""

import argparse
import fcntl
import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import bench_capacity
import bench_charts
import bench_machine
import bench_ratios
import bench_report
from bench_gateways import ROOT, STORE, Express, Gateway, Naive, Ours, PeerMissing, StarletteEcho
from bench_growth import Size, grow
from bench_kill import Killed, kill_under_load
from bench_phases import JOBS, ONCE, PHASES, Measured, jobs
from bench_postgres import Postgres, Postgres2
from bench_processes import BenchError
from bench_rounds import Figures, Options
from postgres import NoServer

DESCRIPTION = """\
Measures the gateway side by side with its peers: fresh servers and databases every round, gateways
taking turns, everything on 127.0.0.1. CPU is that of the server's whole process tree.

  lifecycle  POST /otp/send, the provider's call, its receipt 20 ms later, acknowledged
  send       POST /otp/send and the provider's call, no receipt; the echo peer just echoes
  status     POST /otp/status by id
  verify     POST /otp/verify with a wrong code, each on another verification
  receipts   the receipts of as many sends at once, as fast as they are acknowledged
  latency    lifecycles begun at half of the rate that was just reached, whatever the answers
  even       the same at 300 a second, whoever is asked
  slow       lifecycle with 2 ms more a commit (GATEWAY_COMMIT_DELAY_MS): group commit at work
  fallback   --overdue sends without receipts: how late the second attempts are made
  claim      the same, at most 3,000, all due at once: how many a second are found, decided, stored
             and submitted
  spread     how late second attempts are made that fall due evenly, half of that rate a second
  lease      the store alone, in one process: due rows found by the partial index, read, leased and
             committed, in batches of 500; no decisions, no provider
  memory     --memory lifecycles in ten parts, memory after each (in the first round only)
  growth     the same calls on 10,000 rows and up to --grow-to (once, before the rounds)
  kill       kill -9 under load: what was acknowledged must be there afterwards

  ours       gateway serve: SQLite, durable, logging, encryption and authentication on
  postgres, postgres2   the same on PostgreSQL with 1 and 2 processes; CPU includes the server's
  naive      a first draft in Python: FastAPI, a SQLModel session a request, httpx inline
             (installed into .bench by pip); a sixth of the operations, each takes so long
  express    the tutorial's in-memory gateway, Express and axios (installed into .bench by npm)
  starlette  a bare echo, the floor
"""
EPILOG = """\
Only the ratios of one run are safe; absolute figures depend on what else the machine did (last
column of the tables). Exit code 0: measured, whether or not the targets were met. 1: something
failed; a round with any unexpected answer is not counted. 2: wrong arguments.

  scripts/bench --json bench.json                        the whole of it, about an hour
  scripts/bench --only lifecycle --peers ours,express
  scripts/bench --only growth --grow-to 10000000         needs 9 GB of disk
  scripts/bench --from bench.json --charts docs/charts --costs docs/measured.json
                                                         nothing measured: from what was
"""
GATEWAYS: dict[str, type[Gateway]] = {
    gateway.name: gateway for gateway in (Ours, Express, Postgres, Naive, Postgres2, StarletteEcho)
}
FAILURES = (BenchError, NoServer, OSError, subprocess.SubprocessError)


def main() -> int:
    arguments = _parse()
    if arguments.made:
        _derive(arguments, arguments.made)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    STORE.mkdir(exist_ok=True)
    try:
        with _alone(), _folder(keep=arguments.keep) as folder:
            return _Bench(arguments, folder).run()
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130


class _Bench:
    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments = arguments
        self._folder = folder
        self._options = Options(
            n=arguments.n,
            warmup=min(arguments.warmup, arguments.n),
            connections=arguments.connections,
            keep=arguments.keep,
            overdue=arguments.overdue,
            memory=arguments.memory,
            grow_to=arguments.grow_to,
        )
        self._asked = set(product(arguments.peers, arguments.only))
        self._rounds: bench_ratios.Rounds = []
        self._kills: list[Killed] = []
        self._grown: list[Size] = []
        self._errors: list[str] = []
        self._skipped: list[str] = []

    def run(self) -> int:
        started = time.strftime("%Y-%m-%d %H:%M:%S %z")
        phases = set(self._arguments.only) - {"kill", "growth"}
        gateways = self._prepared() if phases else []
        machine = bench_machine.facts(self._folder, gateways)
        if "growth" in self._arguments.only and "ours" in self._arguments.peers:
            self._grow()
        try:
            for at in range(self._arguments.rounds):
                if phases:
                    self._round(at, gateways, phases - set(ONCE) if at else phases)
                if "kill" in self._arguments.only:
                    self._kill(at)
        except KeyboardInterrupt:  # what was measured is told
            self._fail("interrupted", f"in round {max(1, len(self._rounds))}")
        self._publish(
            {
                "started": started,
                "command": shlex.join(["scripts/bench", *sys.argv[1:]]),
                "options": vars(self._options),
                "machine": machine,
                "errors": self._errors,
                "skipped": self._skipped,
            }
        )
        return 1 if self._errors else 0

    def _prepared(self) -> list[type[Gateway]]:
        ready = []
        for name in self._arguments.peers:
            try:
                GATEWAYS[name].prepare()
            except PeerMissing as why:
                _say(f"skipped: {name}: {why}")
                self._skipped.append(f"{name}: {why}")
            except FAILURES as error:
                self._fail(name, str(error))
            else:
                ready.append(GATEWAYS[name])
        return ready

    def _round(self, at: int, gateways: list[type[Gateway]], phases: set[str]) -> None:
        """Gateways take turns at each job, so that what is set against each other is measured
        within minutes. What was found before an interruption stays."""
        found: dict[str, Measured] = {gateway.name: {} for gateway in gateways}
        self._rounds.append(found)
        turns = {
            gateway.name: jobs(gateway, self._folder, self._options, phases) for gateway in gateways
        }
        for job in JOBS:
            for name in (name for name, mine in turns.items() if job in mine):
                where = f"round {at + 1}, {name}"
                try:
                    measured = turns[name][job]()
                except FAILURES as error:
                    self._fail(f"{where}, {job}", str(error))
                    continue
                found[name] |= measured
                for phase, figures in measured.items():
                    _say(f"{where}, {phase}: {_line(figures)}")
                    for wrong in figures.errors:
                        self._fail(f"{where}, {phase}", wrong)

    def _grow(self) -> None:
        try:
            self._grown = grow(self._folder, self._options, _say)
        except FAILURES as error:
            self._fail("growth", str(error))
        for size in self._grown:
            for wrong in size.errors:
                self._fail(f"growth, {size.rows:,} rows", wrong)

    def _kill(self, at: int) -> None:
        where = f"kill {at + 1}"
        try:
            killed = kill_under_load(self._folder, self._options)
        except FAILURES as error:
            self._fail(where, str(error))
            return
        self._kills.append(killed)
        _say(f"{where}: {killed}")
        if not killed.sound:
            self._fail(where, "; ".join(killed.errors) or "something acknowledged was lost")

    def _fail(self, where: str, error: str) -> None:
        _say(f"{where}: FAILED: {error}")
        self._errors.append(f"{where}: {error}")

    def _publish(self, result: dict[str, Any]) -> None:
        found = (self._rounds, self._asked, self._kills, self._grown)
        text = bench_report.markdown(result, *found)
        print(text)
        if self._arguments.markdown:
            self._arguments.markdown.write_text(text)
        whole = result | bench_report.as_json(*found)
        if self._arguments.json:
            self._arguments.json.write_text(json.dumps(whole, indent=2) + "\n")
        _derive(self._arguments, whole)


def _derive(arguments: argparse.Namespace, whole: dict[str, Any]) -> None:
    """The files that are made of a whole result: charts, and what docs/scale.md counts with."""
    if arguments.charts:
        arguments.charts.mkdir(parents=True, exist_ok=True)
        for name, drawn in bench_charts.charts(whole).items():
            (arguments.charts / name).write_text(drawn)
    if arguments.costs:
        costs = bench_capacity.costs_of(whole)
        arguments.costs.write_text(json.dumps(costs, indent=2) + "\n")
        page = ROOT / "docs" / "scale.md"
        page.write_text(bench_capacity.refreshed(page.read_text(), costs))


def _line(figures: Figures) -> str:
    show = bench_report.show
    late = figures.late_p99 is not None
    waited = f"late p99 {show(figures.late_p99)}" if late else f"p99 {show(figures.answer_p99)}"
    return (
        f"{show(figures.per_second)}/s, {show(figures.cpu)} CPU-s/1k, "
        f"{waited} ms, "
        f"{show(figures.elsewhere)} cores busy elsewhere, {show(figures.stolen)} stolen"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _alone() -> Iterator[None]:
    """Two benches at once would measure each other."""
    with (STORE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError("another bench is running in this tree") from None
        yield


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    """On the disk of the tree, not in /tmp, which may be memory."""
    # By a bench that was killed; this one runs alone. A PostgreSQL ends without its files.
    for left in (*STORE.glob("run-*"), *STORE.glob("gateway-postgres-*")):
        shutil.rmtree(left, ignore_errors=True)
    if keep:
        yield Path(tempfile.mkdtemp(prefix="kept-", dir=STORE))
    else:
        with tempfile.TemporaryDirectory(
            prefix="run-", dir=STORE, ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    every = (*PHASES, *ONCE, "kill")
    add("--only", type=_some(every), default=list(every), metavar="PHASE[,PHASE]",
        help=f"{', '.join(every)} (default: all)")  # fmt: skip
    add("--peers", type=_some(tuple(GATEWAYS)), default=list(GATEWAYS), metavar="NAME[,NAME]",
        help=f"{', '.join(GATEWAYS)} (default: all)")  # fmt: skip
    add("--n", type=_within(100, 200_000), default=4000, help="operations a phase (%(default)s)")
    add("--rounds", type=_within(1, 20), default=5, help="rounds, or kills (%(default)s)")
    add("--connections", type=_within(1, 512), default=64, help="of the load (%(default)s)")
    add("--warmup", type=_within(1, 5000), default=500, help="operations before (%(default)s)")
    add("--overdue", type=_within(100, 20_000), default=10_000,
        help="sends of fallback and claim (%(default)s)")  # fmt: skip
    add("--memory", type=_within(1000, 1_000_000), default=200_000,
        help="lifecycles of memory (%(default)s)")  # fmt: skip
    add("--grow-to", type=_within(10_000, 10_000_000), default=1_000_000,
        help="rows of growth (%(default)s)")  # fmt: skip
    add("--from", type=_result, metavar="FILE", dest="made",
        help="measure nothing: make charts and costs from the --json of a run")  # fmt: skip
    add("--charts", type=Path, metavar="FOLDER", help="drawings, SVG")
    add("--costs", type=_file, metavar="FILE",
        help="prices of a call; docs/scale.md is made to count with them")  # fmt: skip
    add("--json", type=_file, metavar="FILE", help="every figure of every round")
    add("--markdown", type=_file, metavar="FILE", help="the report that is printed")
    add("--keep", action="store_true", help="leave databases and logs in .bench/kept-*")
    given = parser.parse_args()
    if given.made and not (given.charts or given.costs):
        parser.error("--from makes --charts or --costs: name at least one")
    return given


def _some(known: tuple[str, ...]) -> Any:
    def parse(text: str) -> list[str]:
        names = list(dict.fromkeys(name.strip() for name in text.split(",")))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
        return names

    return parse


def _file(text: str) -> Path:
    """Refused now rather than after minutes of measuring."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a file in a folder that exists")
    return path


def _result(text: str) -> dict[str, Any]:
    """The JSON of an earlier run."""
    try:
        found: dict[str, Any] = json.loads(Path(text).read_text())
        made = {"rounds", "options", "machine", "command"} <= found.keys()
    except (OSError, ValueError, AttributeError):
        made = False
    if not made:
        raise argparse.ArgumentTypeError(f"{text} is not what --json wrote")
    return found


def _within(least: int, most: int) -> Any:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a number from {least} to {most} is wanted")
        return int(text)

    return parse
