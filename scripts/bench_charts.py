"""Drawings of a result, as SVG: bars of what gateways cost, lines of what grows. Numbers in, text
out; nothing is measured here."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH = 720
LEFT, RIGHT, TOP = 110, 140, 44  # pixels beside and above the drawing
BAR, GAP = 22, 12
HEIGHT = 260  # of the inside of a line chart
OURS, OTHERS, INK, FAINT = "#1f6feb", "#9aa4b2", "#1c2128", "#d0d7de"
COLOURS = ("#1f6feb", "#d4622a", "#2a8a4a", "#8250df", "#6e7781")


@dataclass(frozen=True)
class Bar:
    """One gateway: the median of its rounds, and their lowest and highest."""

    name: str
    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """Points in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


def charts(result: dict[str, Any]) -> dict[str, str]:
    """File names and drawings of whatever a result holds."""
    drawn = {}
    for file, title, phase, field, unit in BARS:
        bars = bars_of(result["rounds"], phase, field)
        if bars:
            drawn[file] = bar_chart(title, unit, bars)
    steps = [
        found["ours"]["memory"]["pss_steps"]
        for found in result["rounds"]
        if found.get("ours", {}).get("memory", {}).get("pss_steps")
    ]
    if steps:
        part = result["options"]["memory"] / len(steps[0])
        points = [((at + 1) * part, value) for at, value in enumerate(steps[0])]
        drawn["memory.svg"] = line_chart("Memory", "lifecycles", "MB", [Line("ours", points)])
    grown = [size for size in result.get("growth", ()) if not size["errors"]]
    if len(grown) > 1:
        lines = [
            Line(
                name, [(size["rows"], statistics.median(size["readings"][name])) for size in grown]
            )
            for name in grown[0]["readings"]
            if name != "idle"
        ]
        title = "Price of a call as the database grows"
        drawn["growth.svg"] = line_chart(title, "rows", "CPU-s per 1,000", lines, decades=True)
    return drawn


BARS = (
    ("lifecycle-cpu.svg", "CPU of 1,000 lifecycles", "lifecycle", "cpu", "s"),
    ("lifecycle-rate.svg", "Lifecycles a second", "lifecycle", "per_second", ""),
    ("send-cpu.svg", "CPU of 1,000 sends", "send", "cpu", "s"),
    ("status-cpu.svg", "CPU of 1,000 status calls", "status", "cpu", "s"),
    ("receipts-cpu.svg", "CPU of 1,000 receipts", "receipts", "cpu", "s"),
    ("latency.svg", "Accepted, p99 at half load", "latency", "answer_p99", "ms"),
)


def bars_of(rounds: list[dict[str, Any]], phase: str, field: str) -> list[Bar]:
    """The gateways that have valid rounds of that phase, least first."""
    values: dict[str, list[float]] = {}
    for found in rounds:
        for gateway, phases in found.items():
            figures = phases.get(phase)
            if figures and figures["valid"] and figures[field] is not None:
                values.setdefault(gateway, []).append(figures[field])
    bars = [Bar(name, statistics.median(v), min(v), max(v)) for name, v in values.items()]
    return sorted(bars, key=lambda bar: bar.middle)


def bar_chart(title: str, unit: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars from zero, with the span of the rounds as a thin line."""
    inside = WIDTH - LEFT - RIGHT
    most = max(bar.high for bar in bars) or 1.0
    scale = inside / most
    parts = []
    for at, bar in enumerate(bars):
        top = TOP + at * (BAR + GAP)
        middle = top + BAR / 2
        end = LEFT + bar.middle * scale
        fill = OURS if bar.name == "ours" else OTHERS
        parts.append(_text(LEFT - 8, middle + 4, bar.name, "end"))
        parts.append(
            f'<rect x="{LEFT}" y="{top}" width="{end - LEFT:.1f}" height="{BAR}" fill="{fill}"/>'
        )
        if bar.high > bar.low:
            low, high = LEFT + bar.low * scale, LEFT + bar.high * scale
            parts.append(_line(low, middle, high, middle, INK))
        beside = max(end, LEFT + bar.high * scale) + 8
        parts.append(_text(beside, middle + 4, f"{figure(bar.middle)} {unit}".strip(), "start"))
    return _drawing(title, TOP + len(bars) * (BAR + GAP) + 8, parts)


def line_chart(
    title: str, across: str, up: str, lines: Sequence[Line], *, decades: bool = False
) -> str:
    """Lines over a scale from zero; with `decades` x is logarithmic."""
    read: Callable[[float], float] = math.log10 if decades else float
    xs = [read(x) for line in lines for x, _ in line.points]
    least, most = (min(xs) if decades else 0.0), max(xs)
    highest = max(y for line in lines for _, y in line.points) * 1.1 or 1.0
    inside, bottom = WIDTH - LEFT - RIGHT, TOP + HEIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        share = (read(x) - least) / (most - least or 1.0)
        return LEFT + share * inside, bottom - y / highest * HEIGHT

    parts = []
    for quarter in range(5):
        value = highest * quarter / 4
        level = bottom - HEIGHT * quarter / 4
        parts.append(_line(LEFT, level, LEFT + inside, level, FAINT))
        parts.append(_text(LEFT - 8, level + 4, figure(value), "end"))
    parts += [
        _text(place(x, 0)[0], bottom + 18, _short(x), "middle")
        for x in sorted({x for line in lines for x, _ in line.points})
    ]
    labels = _apart([place(*line.points[-1])[1] for line in lines])
    for at, line in enumerate(lines):
        colour = COLOURS[at % len(COLOURS)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(_text(LEFT + inside + 6, labels[at] + 4, line.name, "start", colour))
    parts.append(_text(LEFT + inside / 2, bottom + 36, across, "middle"))
    parts.append(_text(LEFT, TOP - 8, up, "start"))
    return _drawing(title, bottom + 48, parts)


def figure(value: float) -> str:
    """Three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _apart(levels: list[float], least: float = 14) -> list[float]:
    """The same order from top to bottom, none nearer to the next than a line of text."""
    placed = list(levels)
    last = -math.inf
    for at in sorted(range(len(levels)), key=levels.__getitem__):
        placed[at] = last = max(levels[at], last + least)
    return placed


def _text(x: float, y: float, said: str, anchor: str, colour: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(said)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}"/>'


def _drawing(title: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" font-family="sans-serif" font-size="13">'
    )
    heading = (
        f'<text x="12" y="20" font-size="15" font-weight="bold" fill="{INK}">{escape(title)}</text>'
    )
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    body = "\n".join([f"<title>{escape(title)}</title>", paper, heading, *parts])
    return f"{head}\n{body}\n</svg>\n"
