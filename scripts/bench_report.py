"""From figures to words: ratios paired by round, verdicts on the targets, Markdown tables that are
also what the terminal shows."""

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bench_growth import Size, exponent
from bench_kill import Killed
from bench_phases import PHASES
from bench_rounds import Figures

Rounds = list[dict[str, dict[str, Figures]]]  # per round: gateway → phase → figures
Asked = set[tuple[str, str]]  # gateway and phase
Reading = Callable[[Figures], float]


@dataclass(frozen=True)
class Comparison:
    """One figure of one gateway's phase over another's; without a second one, the figure itself."""

    name: str
    reading: Reading
    over: tuple[str, str]
    under: tuple[str, str] | None = None
    at_most: float | None = None
    at_least: float | None = None

    def values(self, rounds: Rounds) -> list[float | None]:
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

    @property
    def limit(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "" if self.at_least is None else f">= {self.at_least:g}"

    def verdict(self, median: float | None) -> str:
        if not self.limit:
            return ""
        if median is None:
            return "not measured"
        held = median <= (self.at_most or median) and median >= (self.at_least or median)
        return "ok" if held else "MISSED"


def _cpu(figures: Figures) -> float:
    return figures.cpu


def _rate(figures: Figures) -> float:
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


def bytes_each(figures: Figures) -> float:
    """On disk, of a verification with its attempt, transitions and receipt."""
    return figures.bytes_each.get("total", math.nan)


def _at(gateway: str, *phases: str) -> dict[str, tuple[str, str]]:
    return {phase: (gateway, phase) for phase in phases}


OURS = _at("ours", *PHASES, "memory")
EXPRESS = _at("express", "lifecycle", "send", "status", "receipts")
NAIVE = _at("naive", "lifecycle", "receipts")
POSTGRES, POSTGRES_2 = ("postgres", "lifecycle"), ("postgres2", "lifecycle")
ECHO = ("starlette", "send")
LIFECYCLE, SEND, STATUS = OURS["lifecycle"], OURS["send"], OURS["status"]
GROWTH_AT_MOST = 0.12  # exponent

COMPARISONS = (  # the limits are the targets of docs/performance.md
    Comparison("lifecycle CPU, ours / express", _cpu, LIFECYCLE, EXPRESS["lifecycle"], 0.37),
    Comparison("lifecycle CPU, naive / ours", _cpu, NAIVE["lifecycle"], LIFECYCLE, at_least=15),
    Comparison(
        "lifecycles/s, ours / express", _rate, LIFECYCLE, EXPRESS["lifecycle"], at_least=2.7
    ),
    Comparison("send CPU, ours / echo", _cpu, SEND, ECHO, 4.5),
    Comparison("status CPU, ours / echo", _cpu, STATUS, ECHO, 1.5),
    Comparison(
        "lifecycles/s, ours with +2 ms a commit / without",
        _rate,
        OURS["slow"],
        LIFECYCLE,
        at_least=0.7,
    ),
    Comparison(
        "accepted p99 in ms at half load, ours",
        lambda figures: figures.answer_p99,
        OURS["latency"],
        at_most=5,
    ),
    Comparison("lifecycle CPU with its server, postgres / ours", _cpu, POSTGRES, LIFECYCLE, 2),
    Comparison("the same, 2 processes", _cpu, POSTGRES_2, LIFECYCLE),
    Comparison("lifecycles/s, postgres / ours", _rate, POSTGRES, LIFECYCLE),
    Comparison("fallback lateness p99 in ms, ours", late_p99, OURS["fallback"], at_most=250),
    Comparison("due rows claimed and submitted per second, ours", _rate, OURS["claim"]),
    Comparison("due rows claimed and submitted per second, postgres", _rate, ("postgres", "claim")),
    Comparison(
        "memory after all lifecycles / after half, ours",
        memory_growth,
        OURS["memory"],
        at_most=1.05,
    ),
    Comparison("bytes per OTP on disk, ours", bytes_each, LIFECYCLE, at_most=250),
    Comparison("bytes per OTP on disk, postgres", bytes_each, POSTGRES, at_most=450),
    Comparison("operations per commit, ours", operations_per_commit, LIFECYCLE, at_least=30),
    Comparison("receipt CPU, ours / express", _cpu, OURS["receipts"], EXPRESS["receipts"]),
    Comparison("receipt CPU, naive / ours", _cpu, NAIVE["receipts"], OURS["receipts"]),
    Comparison("receipt CPU, ours / echo", _cpu, OURS["receipts"], ECHO),
    Comparison("verify CPU, ours / echo", _cpu, OURS["verify"], ECHO),
    Comparison("send CPU, ours / express", _cpu, SEND, EXPRESS["send"]),
    Comparison("status CPU, ours / express", _cpu, STATUS, EXPRESS["status"]),
    Comparison("send CPU, express / echo", _cpu, EXPRESS["send"], ECHO),
)

Column = Callable[[Figures], float | None]
COLUMNS: tuple[tuple[str, tuple[Column, ...]], ...] = (  # of several readings only the medians
    ("per second", (_rate,)),
    ("CPU-s/1k", (_cpu,)),
    ("of it the database", (lambda f: f.cpu_of_database or None,)),
    ("begun per second", (lambda f: f.rate,)),
    ("answered ms p50 / p99", (lambda f: f.answer_p50, lambda f: f.answer_p99)),
    ("receipt acked ms p50 / p99", (lambda f: f.end_to_end_p50, lambda f: f.end_to_end_p99)),
    ("late ms p50 / p99", (lambda f: f.late_p50, lambda f: f.late_p99)),
    ("PSS MB", (lambda f: f.pss_mb,)),
    ("growth, half to end", (memory_growth,)),
    ("ops/commit", (operations_per_commit,)),
    ("bytes per OTP", (bytes_each,)),
    ("receipts lost", (lambda f: f.undelivered,)),
    (
        "cores: bench / others / stolen",
        (lambda f: f.cpu_of_tools * f.per_second / 1000, lambda f: f.elsewhere, lambda f: f.stolen),
    ),
)


DISTURBED = 0.3  # cores; more than this for others makes throughput doubtful
NOTE = """\
Median (lowest-highest) of the valid rounds. CPU is the server's process tree, per 1,000 operations.
Last column: cores used by the load and the provider, by others on this machine, by the host."""


def show(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None or math.isnan(value):
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def spread(values: list[float]) -> str:
    if not values:
        return "-"
    middle = show(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({show(min(values))}-{show(max(values))})"


def compared(rounds: Rounds, asked: Asked) -> list[dict[str, Any]]:
    """Every comparison that a round allows, and the required ones that none did."""
    found = []
    for comparison in COMPARISONS:
        per_round = comparison.values(rounds)
        values = [value for value in per_round if value is not None]
        if values or (comparison.limit and comparison.over in asked):
            middle = statistics.median(values) if values else None
            found.append(
                {
                    "name": comparison.name,
                    "per_round": per_round,
                    "median": middle,
                    "min": min(values, default=None),
                    "max": max(values, default=None),
                    "required": comparison.limit,
                    "verdict": comparison.verdict(middle),
                }
            )
    return found


def compared_growth(grown: list[Size]) -> list[dict[str, Any]]:
    """The exponent of every price, from the smallest database to the largest."""
    valid = [size for size in grown if not size.errors]
    if len(valid) < 2:
        return []
    found = []
    for name in valid[0].readings:
        medians = [(size.rows, statistics.median(size.readings[name])) for size in valid]
        value = exponent(medians)
        asked = Comparison(
            f"growth exponent of {name}, {valid[0].rows:,} to {valid[-1].rows:,} rows",
            _cpu,
            ("", ""),
            at_most=None if name == "idle" else GROWTH_AT_MOST,
        )
        known = None if math.isnan(value) else value
        found.append(
            {
                "name": asked.name,
                "per_round": [known],
                "median": known,
                "min": known,
                "max": known,
                "required": asked.limit,
                "verdict": asked.verdict(known),
            }
        )
    return found


def table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def _figures_table(rounds: Rounds, phase: str) -> str:
    rows = []
    for gateway in dict.fromkeys(name for found in rounds for name in found):
        measured = [found[gateway][phase] for found in rounds if phase in found.get(gateway, {})]
        valid = [figures for figures in measured if not figures.errors]
        if measured:
            cells = [_cell(valid, readings) for _, readings in COLUMNS]
            rows.append([gateway, f"{len(valid)} of {len(measured)}", *cells])
    if not rows:
        return ""
    head = ["gateway", "valid rounds", *(name for name, _ in COLUMNS)]
    used = [at for at in range(len(head)) if any(row[at] != "-" for row in rows)]
    return table([head[at] for at in used], [[row[at] for at in used] for row in rows])


def _cell(measured: list[Figures], readings: tuple[Column, ...]) -> str:
    columns = [_values(measured, reading) for reading in readings]
    if not all(columns):
        return "-"
    if len(columns) == 1:
        return spread(columns[0])
    return " / ".join(show(statistics.median(values)) for values in columns)


def _values(measured: list[Figures], reading: Column) -> list[float]:
    values = [value for figures in measured if (value := reading(figures)) is not None]
    return [value for value in values if not math.isnan(value)]


def _comparison_table(found: list[dict[str, Any]]) -> str:
    rows = [
        [
            one["name"],
            spread([value for value in one["per_round"] if value is not None]),
            one["required"],
            one["verdict"],
        ]
        for one in found
    ]
    return table(["", "median (lowest-highest)", "required", ""], rows) if rows else ""


def _growth_table(grown: list[Size]) -> str:
    names = list(grown[0].readings)
    rows = [
        [
            f"{size.rows:,}",
            *(spread(size.readings.get(name, [])) for name in names),
            show(size.bytes_each.get("total")),
            "; ".join(size.errors[:1]) or "-",
        ]
        for size in grown
    ]
    heads = [f"{name}, CPU-s/1k" if name != "idle" else "idle, CPU-s/s" for name in names]
    return table(["rows", *heads, "bytes per OTP", "errors"], rows)


def _kill_table(kills: list[Killed]) -> str:
    rows = [
        [
            str(at + 1),
            f"{killed.lost} of {killed.acknowledged}",
            f"{killed.numbers_unknown} of {killed.provider_called}",
            f"{killed.receipts_open} of {killed.receipts_acknowledged}",
            ", ".join(f"{name}: {said}" for name, said in killed.integrity.items()) or "-",
            "ok" if killed.sound else "FAILED",
        ]
        for at, killed in enumerate(kills)
    ]
    head = ["kill", "acknowledged sends lost", "numbers called and unknown"]
    head += ["acknowledged receipts not applied yet", "integrity check", "verdict"]
    return table(head, rows)


def _facts_list(facts: dict[str, Any]) -> str:
    versions = {name: facts[name] for name in ("python", "sqlite", "node")} | facts["versions"]
    return f"""\
- {facts["cpu"]}, {facts["cores"]} cores, {facts["memory_gb"]} GB, Linux {facts["kernel"]}
- load average {facts["load_average"]} at the start, revision {facts["revision"]}
- {facts["fdatasync_per_second"]:,} fdatasyncs a second of 8 kB
- {", ".join(f"{name} {version}" for name, version in versions.items())}"""


def markdown(
    result: dict[str, Any], rounds: Rounds, asked: Asked, kills: list[Killed], grown: list[Size]
) -> str:
    """The whole report."""
    parts = [f"# Bench, {result['started']}", f"`{result['command']}`"]
    parts.append(_facts_list(result["machine"]))
    for phase in (*PHASES, "memory"):
        if shown := _figures_table(rounds, phase):
            parts += [f"## {phase.capitalize()}", shown]
    if rounds:
        parts.append(NOTE + _disturbance(rounds))
    if grown:
        parts += ["## Growth", _growth_table(grown)]
    if shown := _comparison_table([*compared(rounds, asked), *compared_growth(grown)]):
        parts += ["## Ratios, paired by round", shown]
    if kills:
        parts += ["## kill -9 under load", _kill_table(kills)]
    if result["errors"]:
        parts += ["## Errors", "\n".join(f"- {error}" for error in result["errors"])]
    if result["skipped"]:
        parts += ["## Skipped", "\n".join(f"- {why}" for why in result["skipped"])]
    return "\n\n".join(parts) + "\n"


def _disturbance(rounds: Rounds) -> str:
    noise = [
        figures.elsewhere + figures.stolen
        for found in rounds
        for phases in found.values()
        for figures in phases.values()
    ]
    if max(noise, default=0) < DISTURBED:
        return ""
    often = sum(value >= DISTURBED for value in noise)
    return (
        f"\n\n**The machine was not ours alone**: in {often} of {len(noise)} phases more than "
        f"{DISTURBED} cores went elsewhere, {show(max(noise))} in the worst.\n"
        "Throughput and latency suffer from it, CPU ratios less; better measure again."
    )


def as_json(rounds: Rounds, asked: Asked, kills: list[Killed], grown: list[Size]) -> dict[str, Any]:
    return {
        "rounds": [
            {name: {p: _plain(f) for p, f in phases.items()} for name, phases in found.items()}
            for found in rounds
        ],
        "comparisons": [*compared(rounds, asked), *compared_growth(grown)],
        "growth": [asdict(size) for size in grown],
        "kills": [asdict(killed) | {"sound": killed.sound} for killed in kills],
    }


def _plain(figures: Figures) -> dict[str, Any]:
    fields = {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(figures).items()
    }
    return fields | {"valid": not figures.errors}
