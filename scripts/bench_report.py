"""From figures to words: Markdown tables that are also what the terminal shows, and the JSON."""

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from bench_growth import Size
from bench_kill import Killed
from bench_phases import PHASES
from bench_ratios import (
    Asked,
    Rounds,
    bytes_each,
    compared,
    compared_growth,
    cpu,
    memory_growth,
    operations_per_commit,
    rate,
)
from bench_rounds import Figures


def _step(name: str, figures: Figures) -> float | None:
    return figures.steps.get(name)


Column = Callable[[Figures], float | None]
COLUMNS: tuple[tuple[str, tuple[Column, ...]], ...] = (  # of several readings only the medians
    ("operations", (lambda f: float(f.operations),)),
    ("per second", (rate,)),
    ("CPU-s/1k", (cpu,)),
    ("of it the database", (lambda f: f.cpu_of_database or None,)),
    ("begun per second", (lambda f: f.rate,)),
    ("answered ms p50 / p99", (lambda f: f.answer_p50, lambda f: f.answer_p99)),
    ("receipt acked ms p50 / p99", (lambda f: f.end_to_end_p50, lambda f: f.end_to_end_p99)),
    (
        "us a row: found / read / leased / committed",
        tuple(partial(_step, name) for name in ("find", "read", "write", "commit")),
    ),
    ("late ms p50 / p99", (lambda f: f.late_p50, lambda f: f.late_p99)),
    ("PSS MB", (lambda f: f.pss_mb or None,)),
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
Of the first draft fewer operations are asked, as each takes so long.
Last column: cores used by the load and the provider, by others on this machine, by the host."""
LIMITS = """\
Each round is set against itself; a round in which one of the two was not measured, or not without
errors, is left out. Required: what a release must hold. Wanted: the goal."""


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
    return (
        middle
        if min(values) == max(values)
        else f"{middle} ({show(min(values))}-{show(max(values))})"
    )


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
    rows = []
    for one in found:
        values = [value for value in one["per_round"] if value is not None]
        limits = [one[of] for of in ("required", "verdict", "wanted", "wanted_verdict")]
        rows.append(
            [one["name"], spread(values), f"{len(values)} of {len(one['per_round'])}", *limits]
        )
    head = ["", "median (lowest-highest)", "rounds", "required", "", "wanted", ""]
    return table(head, rows) if rows else ""


def _growth_table(grown: list[Size]) -> str:
    names = list(grown[0].readings)
    rows = [
        [
            f"{size.rows:,}",
            *(spread(size.readings.get(name, [])) for name in names),
            show(size.bytes_each.get("total")),
            f"{size.filled_in:.0f}",
            "; ".join(size.errors[:1]) or "-",
        ]
        for size in grown
    ]
    heads = [f"{name}, CPU-s/1k" if name != "idle" else "idle, CPU-s/s" for name in names]
    return table(["rows", *heads, "bytes per OTP", "filled in s", "errors"], rows)


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
        parts += ["## Ratios, paired by round", shown, LIMITS]
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
