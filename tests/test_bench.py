"""The parts of scripts/bench that measure nothing: ratios, drawings, the capacity model, twins."""

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import bench_capacity
import bench_charts
import bench_growth
import bench_phases
import bench_ratios
import bench_report
import pytest
from bench_growth import Size
from bench_processes import BenchError
from bench_rounds import Figures, Options, percentile

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/scale.md"
COSTS: dict[str, Any] = json.loads((ROOT / "docs/measured.json").read_text(encoding="utf-8"))
MACHINE: dict[str, Any] = {
    "cpu": "CPU", "cores": 2, "memory_gb": 1, "kernel": "6", "load_average": 0.1,
    "revision": "abc", "fdatasync_per_second": 1000, "python": "3.11", "sqlite": "3",
    "node": None, "versions": {},
}  # fmt: skip
RESULT: dict[str, Any] = {
    "started": "now", "command": "bench", "machine": MACHINE, "errors": ["one"], "skipped": [],
}  # fmt: skip


def figures(cpu: float, **given: Any) -> Figures:
    usual = {"operations": 1000, "per_second": 100.0, "cpu_of_database": 0.0, "cpu_of_tools": 0.1}
    usual |= {"elsewhere": 0.0, "stolen": 0.0, "answer_p50": 1.0, "answer_p99": 2.0}
    return Figures(**{**usual, "cpu": cpu, **given})


def rounds(*pairs: tuple[Figures, Figures]) -> bench_ratios.Rounds:
    return [{"ours": {"lifecycle": a}, "express": {"lifecycle": b}} for a, b in pairs]


def named(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (one,) = (one for one in found if one["name"] == name)
    return one


def test_ratios_are_paired_by_round_and_their_median_is_judged() -> None:
    """Each round against itself; one with an error is left out."""
    wrong = figures(9.0, errors=["1 unexpected answer"])
    measured = rounds(
        (figures(1.0), figures(4.0)), (figures(3.0), figures(6.0)), (wrong, figures(1.0))
    )

    ratio = named(bench_ratios.compared(measured, set()), "lifecycle CPU, ours / express")

    assert [0.25, 0.5, None] == ratio["per_round"]
    assert (0.375, 0.25, 0.5) == (ratio["median"], ratio["min"], ratio["max"])
    assert ("<= 0.6", "ok") == (ratio["required"], ratio["verdict"])
    assert ("<= 0.37", "MISSED") == (ratio["wanted"], ratio["wanted_verdict"])


def test_a_round_without_one_of_the_two_does_not_shift_the_others() -> None:
    """A peer that was missing in the second round is not set against that round's other one."""
    ours = [{"ours": {"lifecycle": figures(one)}} for one in (1.0, 8.0, 2.0)]
    naive = [{"naive": {"lifecycle": figures(20.0)}}, {}, {"naive": {"lifecycle": figures(60.0)}}]
    measured = [a | b for a, b in zip(ours, naive, strict=True)]

    ratio = named(bench_ratios.compared(measured, set()), "lifecycle CPU, naive / ours")

    assert [20, None, 30] == ratio["per_round"]
    assert (25, ">= 15", "ok") == (ratio["median"], ratio["wanted"], ratio["wanted_verdict"])
    text = bench_report.markdown(RESULT, measured, set(), [], [])
    assert "2 of 3" in text


def test_claims_are_what_is_found_leased_and_committed() -> None:
    """Without what it takes to read the rows, which is in the rate of the phase."""
    steps = {"find": 2.0, "read": 25.0, "write": 15.0, "commit": 3.0}
    measured = [{"ours": {"lease": figures(0.05, steps=steps)}}]

    name = "due rows per second found, leased, committed, ours"
    ratio = named(bench_ratios.compared(measured, set()), name)

    assert (50_000, "ok", "MISSED") == (
        ratio["median"], ratio["verdict"], ratio["wanted_verdict"],
    )  # fmt: skip


def test_every_phase_is_run_by_exactly_one_job() -> None:
    shared = [phase for phases, _ in bench_phases.JOBS.values() for phase in phases]

    assert sorted({*bench_phases.PHASES, "memory"}) == sorted(shared)


def test_a_slow_peer_is_asked_for_a_share() -> None:
    options = Options(n=3000, warmup=500, connections=64, keep=False)

    assert (500, 100) == (options.shared(1 / 6).n, options.shared(1 / 6).warmup)
    assert options == options.shared(1.0)
    assert (100, 1) == ((few := replace(options, n=120, warmup=1).shared(0.1)).n, few.warmup)


def test_a_target_that_was_asked_for_and_not_measured_is_named() -> None:
    found = bench_ratios.compared([], {("ours", "latency")})

    assert ["not measured"] == [one["verdict"] for one in found]


def test_a_report_shows_every_part_that_was_measured() -> None:
    grown = [Size(10_000, {"claim": [1.0]}), Size(100_000, {"claim": [2.0]})]

    text = bench_report.markdown(RESULT, rounds((figures(1.0), figures(4.0))), set(), [], grown)

    for wanted in ("## Lifecycle", "| express |", "## Growth", "100,000", "0.250", "- one"):
        assert wanted in text
    assert "MISSED" in text  # 2 over a decade is an exponent of 0.3


def test_growth_is_an_exponent_between_the_ends() -> None:
    assert [10_000, 100_000, 1_000_000] == bench_growth.sizes(1_000_000)
    assert [10_000, 30_000] == bench_growth.sizes(30_000)
    prices = [(10_000, 1.0), (50_000, 9.0), (1_000_000, 10.0)]
    assert 0.5 == pytest.approx(bench_growth.exponent(prices))


def test_percentiles_are_the_nearest_rank() -> None:
    assert 99 == percentile([n * 1_000_000 for n in range(1, 101)], 0.99)


def test_twins_fill_a_database_without_touching_what_is_real(tmp_path: Path) -> None:
    """Ids beside their parents', references of their own, each with its children; indexes again."""
    file = tmp_path / "small.db"
    with closing(sqlite3.connect(file)) as opened, opened:
        opened.execute("CREATE TABLE verification (id BLOB PRIMARY KEY, salt BLOB, wake_at)")
        opened.execute("CREATE TABLE attempt (id BLOB PRIMARY KEY, verification_id, reference)")
        opened.execute(
            "CREATE TABLE transition "
            "(verification_id, number, PRIMARY KEY (verification_id, number))"
        )
        opened.execute("CREATE INDEX by_reference ON attempt (reference)")
        for one in (b"moment-a-1234567", b"moment-b-1234567", b"newest-c-1234567"):
            opened.execute("INSERT INTO verification VALUES (?, ?, NULL)", (one, one))
            opened.execute("INSERT INTO attempt VALUES (?, ?, 'ticket' || ?)", (one, one, one))
            opened.executemany("INSERT INTO transition VALUES (?, ?)", [(one, 1), (one, 2)])

    bench_growth.fill(file, 20, [b"moment-a-1234567", b"moment-b-1234567"])

    with closing(sqlite3.connect(file)) as opened, opened:
        ask = opened.execute
        assert [(20, 20)] == ask(
            "SELECT count(*), count(DISTINCT salt) FROM verification"
        ).fetchall()
        assert [(19,)] == ask(  # all but the newest
            "SELECT count(DISTINCT a.reference) FROM attempt a JOIN verification v "
            "ON v.id = a.verification_id AND substr(v.id, 1, 6) = CAST('moment' AS BLOB)"
        ).fetchall()
        assert [(40,)] == ask("SELECT count(*) FROM transition").fetchall()
        assert ask("SELECT 1 FROM verification WHERE id = ?", (b"moment-b-1234567",)).fetchone()
        assert [("by_reference",)] == ask(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        assert [("ok",)] == ask("PRAGMA integrity_check").fetchall()

    with pytest.raises(BenchError, match="1 verifications cannot be made 70,000"):
        bench_growth.fill(file, 70_000, [b"moment-a-1234567"])


def test_charts_are_drawn_from_a_result() -> None:
    """Well-formed, a bar for every gateway, lines within the paper."""
    measured = rounds((figures(1.0), figures(4.0)), (figures(1.2), figures(5.0)))
    readings = {"claim": [2.0], "idle": [0.1]}
    grown = [Size(10_000, readings), Size(100_000, readings)]
    measured[0]["ours"]["memory"] = figures(1.0, pss_steps=[100.0, 110.0])
    result = bench_report.as_json(measured, set(), [], grown) | {"options": {"memory": 2000}}

    drawn = bench_charts.charts(result)

    assert {"lifecycle-cpu.svg", "lifecycle-rate.svg", "memory.svg", "growth.svg"} == set(drawn)
    for text in drawn.values():
        root = ET.fromstring(text)  # noqa: S314  (our own)
        inside = float(root.get("width", "0"))
        places = [float(one.get("x", "0").rstrip("%")) for one in root.iter() if one.get("x")]
        assert 0 <= min(places)
        assert max(places) < inside
    assert 2 == drawn["lifecycle-cpu.svg"].count('height="22"')


def test_prices_are_medians_of_what_was_valid() -> None:
    ours = {
        "lifecycle": figures(1.5, ledger={"operations": 4500, "commits": 50}),
        "verify": figures(0.5),
    }
    other = {
        "lifecycle": figures(2.0, cpu_of_database=0.5, bytes_each={"total": 700.0}),
        "verify": figures(1.0, cpu_of_database=0.25),
    }
    whole = bench_report.as_json([{"ours": ours, "postgres": other}], set(), [], [])
    about = {"command": "bench", "started": "now", "machine": {"revision": "abc", "cpu": "CPU"}}

    costs = bench_capacity.costs_of(whole | about | {"options": {"warmup": 500}})
    small, large = (bench_capacity.price(costs, store) for store in ("sqlite", "postgres"))

    assert (0.002, 0.0, 4.0) == (small.gateway, small.database, small.operations)
    assert (0.00225, 0.00075, 700.0) == (large.gateway, large.database, large.held)


def test_a_need_is_whole_processes_and_nodes_with_one_to_spare() -> None:
    one = bench_capacity.Price(0.003, 0.0006, 1000.0, 5000.0, 4.0)

    found = bench_capacity.need(one, 1000)

    assert {
        "rate": 1000, "processes": 5, "nodes": 2, "database_cores": 1 + 1, "servers": 1,
        "connections": 30, "commits": 1000, "written": 5.0, "held": 86.4,
    } == asdict(found)  # fmt: skip


def test_the_page_is_what_the_prices_make_of_it() -> None:
    """docs/scale.md is not to be edited where it is computed."""
    page = PAGE.read_text(encoding="utf-8")

    marked = {found[2] for found in bench_capacity.MARK.finditer(page)}

    assert set(bench_capacity.tables(COSTS)) == marked
    assert page == bench_capacity.refreshed(page, COSTS)
