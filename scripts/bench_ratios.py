"""The targets: which figure is set against which, paired by round, and what it has to be."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench_growth import Size, exponent
from bench_phases import PHASES
from bench_rounds import Figures

Rounds = list[dict[str, dict[str, Figures]]]  # per round: gateway → phase → figures
Asked = set[tuple[str, str]]  # gateway and phase
Reading = Callable[[Figures], float]


@dataclass(frozen=True)
class Limit:
    """What a figure may be: `required` of every release, `wanted` as the goal. At most, or with
    `least` at least."""

    required: float | None = None
    wanted: float | None = None
    least: bool = False

    def __bool__(self) -> bool:
        return self.required is not None or self.wanted is not None

    def shown(self, value: float | None) -> str:
        """`<= 0.6`."""
        return "" if value is None else f"{'>=' if self.least else '<='} {value:,g}"

    def verdict(self, limit: float | None, value: float | None) -> str:
        if limit is None:
            return ""
        if value is None:
            return "not measured"
        return "ok" if (value >= limit if self.least else value <= limit) else "MISSED"

    def judged(self, name: str, per_round: list[float | None]) -> dict[str, Any]:
        """The median of the rounds that have a value, and what it is worth."""
        values = [value for value in per_round if value is not None]
        middle = statistics.median(values) if values else None
        return {
            "name": name,
            "per_round": per_round,
            "median": middle,
            "min": min(values, default=None),
            "max": max(values, default=None),
            "required": self.shown(self.required),
            "verdict": self.verdict(self.required, middle),
            "wanted": self.shown(self.wanted),
            "wanted_verdict": self.verdict(self.wanted, middle),
        }


@dataclass(frozen=True)
class Comparison:
    """One figure of one gateway's phase over another's; without a second one, the figure itself."""

    name: str
    reading: Reading
    over: tuple[str, str]
    under: tuple[str, str] | None = None
    limit: Limit = Limit()

    def values(self, rounds: Rounds) -> list[float | None]:
        """Of each round against itself; None where one of the two was not measured in it."""
        return [self._value(found) for found in rounds]

    def _value(self, found: dict[str, dict[str, Figures]]) -> float | None:
        over = self._read(found, self.over)
        if self.under is None:
            return over
        under = self._read(found, self.under)
        return over / under if over is not None and under else None

    def _read(self, found: dict[str, dict[str, Figures]], where: tuple[str, str]) -> float | None:
        """Nothing where it was not measured or not without errors."""
        figures = found.get(where[0], {}).get(where[1])
        if figures is None or figures.errors:
            return None
        value = self.reading(figures)
        return None if math.isnan(value) else value


def at_most(required: float | None, wanted: float | None) -> Limit:
    return Limit(required, wanted)


def at_least(required: float | None, wanted: float | None) -> Limit:
    return Limit(required, wanted, least=True)


def cpu(figures: Figures) -> float:
    return figures.cpu


def answer_p99(figures: Figures) -> float:
    return figures.answer_p99


def rate(figures: Figures) -> float:
    return figures.per_second


def operations_per_commit(figures: Figures) -> float:
    commits = figures.ledger.get("commits")
    return figures.ledger["operations"] / commits if commits else math.nan


def memory_growth(figures: Figures) -> float:
    """Memory at the end over that at half of the lifecycles."""
    steps = figures.pss_steps
    return steps[-1] / steps[len(steps) // 2 - 1] if steps else math.nan


def late_p99(figures: Figures) -> float:
    return math.nan if figures.late_p99 is None else figures.late_p99


def memory_at_half(figures: Figures) -> float:
    """Megabytes after half of the lifecycles: 100,000 of the usual 200,000."""
    steps = figures.pss_steps
    return steps[len(steps) // 2 - 1] if steps else math.nan


def bytes_each(figures: Figures) -> float:
    """On disk, of a verification with its attempt, transitions and receipt."""
    return figures.bytes_each.get("total", math.nan)


def claims(figures: Figures) -> float:
    """Rows a second of the statements that claim: found, leased, committed, without being read."""
    steps = figures.steps
    return 1e6 / (sum(steps.values()) - steps["read"]) if steps else math.nan


def _at(gateway: str, *phases: str) -> dict[str, tuple[str, str]]:
    return {phase: (gateway, phase) for phase in phases}


OURS = _at("ours", *PHASES, "memory")
EXPRESS = _at("express", "lifecycle", "send", "status", "receipts", "even")
NAIVE = _at("naive", "lifecycle", "receipts")
POSTGRES, POSTGRES_2 = _at("postgres", *PHASES), ("postgres2", "lifecycle")
ECHO = ("starlette", "send")
LIFECYCLE, SEND, STATUS = OURS["lifecycle"], OURS["send"], OURS["status"]
SINGLY = 500 / 3  # lifecycles a second of three commits each, if a commit takes 2 ms
GROWTH = at_most(0.20, 0.12)  # exponent

COMPARISONS = (  # the limits are the targets of docs/performance.md
    Comparison(
        "lifecycle CPU, ours / express", cpu, LIFECYCLE, EXPRESS["lifecycle"], at_most(0.60, 0.37)
    ),
    Comparison("lifecycle CPU, naive / ours", cpu, NAIVE["lifecycle"], LIFECYCLE, at_least(10, 15)),
    Comparison(
        "lifecycles/s, ours / express", rate, LIFECYCLE, EXPRESS["lifecycle"], at_least(2, 2.7)
    ),
    Comparison("send CPU, ours / echo", cpu, SEND, ECHO, at_most(6, 4.5)),
    Comparison("status CPU, ours / echo", cpu, STATUS, ECHO, at_most(2, 1.5)),
    Comparison(
        "lifecycles/s, ours with +2 ms a commit / without",
        rate,
        OURS["slow"],
        LIFECYCLE,
        at_least(0.6, 0.7),
    ),
    Comparison(
        "lifecycles/s, ours with +2 ms a commit / one commit a step",
        lambda figures: figures.per_second / SINGLY,
        OURS["slow"],
        limit=at_least(10, 20),
    ),
    Comparison(
        "operations per commit, ours", operations_per_commit, LIFECYCLE, limit=at_least(30, 60)
    ),
    Comparison(
        "accepted p99 in ms at half load, ours",
        answer_p99,
        OURS["latency"],
        limit=at_most(15, 5),
    ),
    Comparison("accepted p99 in ms at 300 a second, ours", answer_p99, OURS["even"]),
    Comparison("the same, express", answer_p99, EXPRESS["even"]),
    Comparison("CPU at 300 a second / at all it can, ours", cpu, OURS["even"], LIFECYCLE),
    Comparison("the same, express", cpu, EXPRESS["even"], EXPRESS["lifecycle"]),
    Comparison("the same, echo", cpu, ("starlette", "even"), ECHO),
    Comparison(
        "lifecycle CPU with its server, postgres / ours",
        cpu,
        POSTGRES["lifecycle"],
        LIFECYCLE,
        at_most(2, 1.4),
    ),
    Comparison("the same, 2 processes", cpu, POSTGRES_2, LIFECYCLE),
    Comparison("lifecycles/s, postgres / ours", rate, POSTGRES["lifecycle"], LIFECYCLE),
    Comparison(
        "due rows per second found, leased, committed, ours",
        claims,
        OURS["lease"],
        limit=at_least(20_000, 60_000),
    ),
    Comparison(
        "due rows per second found, leased, committed, postgres",
        claims,
        POSTGRES["lease"],
        limit=at_least(10_000, 25_000),
    ),
    Comparison("the same and read with their attempts, ours", rate, OURS["lease"]),
    Comparison("the same and read with their attempts, postgres", rate, POSTGRES["lease"]),
    Comparison("due rows per second decided and submitted, ours", rate, OURS["claim"]),
    Comparison("due rows per second decided and submitted, postgres", rate, POSTGRES["claim"]),
    Comparison(
        "fallback lateness p99 in ms, all due within moments, ours",
        late_p99,
        OURS["fallback"],
        limit=at_most(None, 250),
    ),
    Comparison(
        "fallback lateness p99 in ms, due at half of what it can, ours",
        late_p99,
        OURS["spread"],
        limit=at_most(None, 250),
    ),
    Comparison("the same, postgres", late_p99, POSTGRES["spread"]),
    Comparison(
        "memory after half of the lifecycles in MB, ours",
        memory_at_half,
        OURS["memory"],
        limit=at_most(120, 70),
    ),
    Comparison(
        "memory after all lifecycles / after half, ours",
        memory_growth,
        OURS["memory"],
        limit=at_most(1.05, 1.05),
    ),
    Comparison("bytes per OTP on disk, ours", bytes_each, LIFECYCLE, limit=at_most(400, 250)),
    Comparison(
        "bytes per OTP on disk, postgres",
        bytes_each,
        POSTGRES["lifecycle"],
        limit=at_most(700, 450),
    ),
    Comparison("receipt CPU, ours / express", cpu, OURS["receipts"], EXPRESS["receipts"]),
    Comparison("receipt CPU, naive / ours", cpu, NAIVE["receipts"], OURS["receipts"]),
    Comparison("receipt CPU, ours / echo", cpu, OURS["receipts"], ECHO),
    Comparison("verify CPU, ours / echo", cpu, OURS["verify"], ECHO),
    Comparison("send CPU, ours / express", cpu, SEND, EXPRESS["send"]),
    Comparison("status CPU, ours / express", cpu, STATUS, EXPRESS["status"]),
    Comparison("send CPU, express / echo", cpu, EXPRESS["send"], ECHO),
)


def compared(rounds: Rounds, asked: Asked) -> list[dict[str, Any]]:
    """Every comparison that a round allows, and those with a limit that none did."""
    found = []
    for comparison in COMPARISONS:
        judged = comparison.limit.judged(comparison.name, comparison.values(rounds))
        if judged["median"] is not None or (comparison.limit and comparison.over in asked):
            found.append(judged)
    return found


def compared_growth(grown: list[Size]) -> list[dict[str, Any]]:
    """The exponent of every price, from the smallest database to the largest."""
    valid = [size for size in grown if not size.errors]
    if len(valid) < 2:
        return []
    found = []
    for name in valid[0].readings:
        value = exponent([(size.rows, statistics.median(size.readings[name])) for size in valid])
        limit = Limit() if name == "idle" else GROWTH
        said = f"growth exponent of {name}, {valid[0].rows:,} to {valid[-1].rows:,} rows"
        found.append(limit.judged(said, [None if math.isnan(value) else value]))
    return found
