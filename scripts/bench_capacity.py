"""How much of what carries so many codes a second: the prices that were measured, and the model of
docs/scale.md over them. Pure: a result in, numbers and text out."""

import math
import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LOADS = (10, 1_000, 100_000)  # sends a second
BUSY = 0.6  # of a core: beyond it answers wait for each other
NODE = 8  # cores of a node, and processes on it
SERVER = 32  # cores of one PostgreSQL server
COMMITS = 200  # a second and process, at most: about 5 ms for a batch and its fsync
CONNECTIONS = 6  # of a process to PostgreSQL: one writes, four read, one hears hints
DAY = 86_400  # seconds
KEPT = 30  # days
GATEWAYS = {"sqlite": "ours", "postgres": "postgres"}
MARK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Price:
    """Of one code, sent, delivered and checked; CPU in seconds, the rest in bytes."""

    gateway: float
    database: float  # CPU of PostgreSQL
    held: float  # on disk
    written: float  # to disk, logs and repeats included; 0: not measured
    operations: float  # in the ledger

    @property
    def rate_of_a_core(self) -> float:
        """Codes a second of one gateway process."""
        return BUSY / self.gateway


@dataclass(frozen=True)
class Need:
    """What so many sends a second take."""

    rate: float
    processes: int
    nodes: int
    database_cores: int
    servers: int
    connections: int
    commits: float  # a second, at most
    written: float  # megabytes a second
    held: float  # gigabytes a day


def costs_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the model needs of a bench's JSON: medians over the valid rounds, None where nothing was
    measured."""
    return {
        "command": result["command"],
        "started": result["started"],
        "revision": result["machine"]["revision"],
        "cpu": result["machine"]["cpu"],
        "stores": {
            store: {
                "lifecycle": _median(result, gateway, "lifecycle", "cpu"),
                "lifecycle_database": _median(result, gateway, "lifecycle", "cpu_of_database"),
                "verify": _median(result, gateway, "verify", "cpu"),
                "verify_database": _median(result, gateway, "verify", "cpu_of_database"),
                "status": _median(result, gateway, "status", "cpu"),
                "held": _median(result, gateway, "lifecycle", "bytes_each", "total"),
                "written": _median(result, gateway, "lifecycle", "written"),
                "operations": _operations(result, gateway),
            }
            for store, gateway in GATEWAYS.items()
        },
    }


def _figures(result: Mapping[str, Any], gateway: str, phase: str) -> list[Mapping[str, Any]]:
    found = [one.get(gateway, {}).get(phase) for one in result["rounds"]]
    return [figures for figures in found if figures and figures["valid"]]


def _median(result: Mapping[str, Any], gateway: str, phase: str, *path: str) -> float | None:
    values = []
    for value in map(dict, _figures(result, gateway, phase)):
        read: Any = value
        for name in path:
            read = read.get(name) if read else None
        if read is not None:
            values.append(read)
    return round(statistics.median(values), 4) if values else None


def _operations(result: Mapping[str, Any], gateway: str) -> float | None:
    """Of one lifecycle, warm-up included."""
    warmup = result["options"]["warmup"]
    values = [
        figures["ledger"]["operations"] / (figures["operations"] + warmup)
        for figures in _figures(result, gateway, "lifecycle")
        if figures["ledger"].get("operations")
    ]
    return round(statistics.median(values), 2) if values else None


def price(costs: Mapping[str, Any], store: str) -> Price:
    """Of a code that is sent, delivered and checked. Raises KeyError: that was not measured."""
    found = costs["stores"][store]
    if found["lifecycle"] is None or found["verify"] is None:
        raise KeyError(store)
    database = (found["lifecycle_database"] or 0) + (found["verify_database"] or 0)
    return Price(
        gateway=(found["lifecycle"] + found["verify"] - database) / 1000,
        database=database / 1000,
        held=found["held"] or 0.0,
        written=found["written"] or 0.0,
        operations=(found["operations"] or 3) + 1,  # and the check
    )


def need(one: Price, rate: float) -> Need:
    """Cores at BUSY, a node more than they need where there are several, and whole servers."""
    processes = max(1, math.ceil(rate / one.rate_of_a_core))
    nodes = math.ceil(processes / NODE)
    cores = math.ceil(rate * one.database / BUSY)
    shared = one.database > 0
    return Need(
        rate=rate,
        processes=processes,
        nodes=nodes + 1 if shared else nodes,
        database_cores=max(2, cores) if shared else 0,
        servers=max(1, math.ceil(cores / SERVER)) if shared else 0,
        connections=processes * CONNECTIONS if shared else 0,
        commits=min(rate * one.operations, processes * COMMITS),
        written=rate * one.written / 1e6,
        held=rate * one.held * DAY / 1e9,
    )


def tables(costs: Mapping[str, Any]) -> dict[str, str]:
    """The computed parts of docs/scale.md, by the names of their marks."""
    return {"prices": _prices(costs), "needs": _needs(costs), "ends": _ends(costs)}


def refreshed(page: str, costs: Mapping[str, Any]) -> str:
    """The page with every marked part made anew."""
    made = tables(costs)
    return MARK.sub(lambda found: f"{found[1]}{made[found[2]]}{found[3]}", page)


def _prices(costs: Mapping[str, Any]) -> str:
    rows = [
        f"From `{costs['command']}`, {costs['started']}, revision {costs['revision']},",
        f"{costs['cpu']}.",
        "",
        "| of one code: sent, delivered, checked | SQLite | PostgreSQL |",
        "| --- | --- | --- |",
    ]
    known = {store: _known(costs, store) for store in GATEWAYS}
    shown: tuple[tuple[str, Callable[[Price], str]], ...] = (
        ("CPU of the gateway", lambda one: f"{one.gateway * 1000:.2f} ms"),
        ("CPU of PostgreSQL", lambda one: f"{one.database * 1000:.2f} ms" if one.database else "-"),
        ("operations in the ledger", lambda one: f"{one.operations:.1f}"),
        ("bytes it leaves on disk", lambda one: f"{one.held:,.0f}"),
        (
            "bytes written for it, logs included",
            lambda one: f"{one.written:,.0f}" if one.written else "not measured",
        ),
        (
            f"codes a second of a process at {BUSY:.0%} of a core",
            lambda one: f"{one.rate_of_a_core:,.0f}",
        ),
    )
    for name, read in shown:
        cells = (read(one) if one else "not measured" for one in known.values())
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _known(costs: Mapping[str, Any], store: str) -> Price | None:
    try:
        return price(costs, store)
    except KeyError:
        return None


def _needs(costs: Mapping[str, Any]) -> str:
    """One process on SQLite as long as it does, PostgreSQL beyond."""
    small, large = _known(costs, "sqlite"), _known(costs, "postgres")
    columns = []
    for rate in LOADS:
        alone = small is not None and rate <= small.rate_of_a_core
        one = small if alone else large
        columns.append(
            (rate, "SQLite" if alone else "PostgreSQL", need(one, rate) if one else None)
        )
    rows = [
        "| sends a second | " + " | ".join(f"{rate:,}" for rate, _, _ in columns) + " |",
        "| --- |" + " --- |" * len(columns),
        "| database | " + " | ".join(store for _, store, _ in columns) + " |",
    ]
    shown: tuple[tuple[str, Callable[[Need], str]], ...] = (
        (
            f"gateway processes, at {BUSY:.0%} of a core each",
            lambda found: f"{found.processes:,}",
        ),
        (f"nodes of {NODE} cores, one to spare", lambda found: f"{found.nodes:,}"),
        (
            f"cores of PostgreSQL, at {BUSY:.0%}",
            lambda found: f"{found.database_cores:,}" if found.database_cores else "-",
        ),
        (
            f"servers of {SERVER} cores, so shards",
            lambda found: f"{found.servers:,}" if found.servers else "-",
        ),
        (
            "connections to PostgreSQL",
            lambda found: f"{found.connections:,}" if found.connections else "-",
        ),
        ("commits a second, at most", lambda found: f"{found.commits:,.0f}"),
        (
            "written, MB a second",
            lambda found: f"{found.written:,.2f}" if found.written else "not measured",
        ),
        ("kept, GB a day", lambda found: f"{found.held:,.1f}"),
        (f"kept, GB in {KEPT} days", lambda found: f"{found.held * KEPT:,.0f}"),
    )
    for name, read in shown:
        cells = (read(found) if found else "not measured" for _, _, found in columns)
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _ends(costs: Mapping[str, Any]) -> str:
    small, large = _known(costs, "sqlite"), _known(costs, "postgres")
    lines = []
    if small:
        lines.append(
            f"* One process on SQLite: {small.rate_of_a_core:,.0f} codes a second at {BUSY:.0%} of "
            f"its core, {small.rate_of_a_core * DAY / 1e6:,.0f} million a day."
        )
    if large and large.database:
        most = SERVER * BUSY / large.database
        lines.append(
            f"* One PostgreSQL of {SERVER} cores by its CPU: {most:,.0f} codes a second, with "
            f"{math.ceil(most / large.rate_of_a_core):,} gateway processes in front."
        )
    else:
        lines.append("* PostgreSQL: not measured.")
    return "\n".join(lines) + "\n"
