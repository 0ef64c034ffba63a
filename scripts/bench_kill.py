"""kill -9 under load: what the gateway acknowledged must be there after its restart, and so must
every number the provider was called for."""

import random
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_gateways import Ours
from bench_processes import BenchError
from bench_rounds import LEAST_RATE, Options, Session

SQLITE_HEADER = b"SQLite format 3\0"


@dataclass
class Killed:
    """One kill. `lost` and `numbers_unknown` must be 0.

    `receipts_open` counts acknowledged receipts whose verification is not DELIVERED right after
    the restart. Each is either lost or parked: it came before its send's outcome was stored, which
    the kill undid. So it is shown, and no verdict rests on it.
    """

    acknowledged: int = 0
    lost: int = 0
    provider_called: int = 0
    numbers_unknown: int = 0
    receipts_acknowledged: int = 0
    receipts_open: int = 0
    integrity: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        whole = bool(self.integrity) and set(self.integrity.values()) == {"ok"}
        return whole and not (self.lost or self.numbers_unknown or self.errors)


def kill_under_load(parent: Path, options: Options) -> Killed:
    killed = Killed()
    with Session(Ours, parent, options) as session:
        gateway = session.gateway
        assert isinstance(gateway, Ours)
        session.send(options.warmup, receipts=True)
        ids, provider = _load_and_kill(session, killed)
        gateway.restart()
        called, refused = list(provider["called"]), set(provider["refused"])
        receipts = [number for number in provider["answered"] if number not in refused]
        killed.acknowledged = len(ids)
        killed.lost = _ask(session, "verification_id", ids, killed).count(None)
        killed.provider_called = len(called)
        killed.numbers_unknown = _ask(session, "number", called, killed).count(None)
        killed.receipts_acknowledged = len(receipts)
        states = _ask(session, "number", receipts, killed)
        killed.receipts_open = sum(state != "DELIVERED" for state in states)
        gateway.stop()
        killed.integrity = _integrity(gateway.folder)
    if not killed.integrity:
        killed.errors.append("no SQLite database was found in the gateway's folder")
    return killed


def _load_and_kill(session: Session, killed: Killed) -> tuple[list[str], dict[str, Any]]:
    """The ids acknowledged before the kill, and what the provider saw."""
    size = session.options.n
    seconds = 30 + size / LEAST_RATE
    session.expect(receipts=True)
    session.prepare_sends(session.take_numbers(size))
    session.load.tell(do="go", seconds=seconds)
    share = random.uniform(0.1, 0.5)  # calls lag behind answers
    moment: dict[str, Any] = {"calls": int(size * share), "receipts": 0}
    session.provider.ask(seconds + 30, do="wait", seconds=seconds, **moment)
    session.gateway.server.kill()
    report = session.load.hear(seconds + 30)
    provider = session.provider.ask(60, do="report")
    refused = {k: n for k, n in report["statuses"].items() if k not in {"0", "202"}}
    if refused:
        killed.errors.append(f"refused before the kill, by status {refused}: {report['samples']}")
    if "0" not in report["statuses"]:
        killed.errors.append("the kill came after the last answer: take a larger --n")
    return [found for found in report["fields"] if found], provider


def _ask(session: Session, by: str, values: list[str], killed: Killed) -> list[str | None]:
    """The delivery status of each; None where the gateway knows nothing of it."""
    if not values:
        raise BenchError("nothing was acknowledged before the kill")
    seconds = 30 + len(values) / LEAST_RATE
    bodies = [{by: value} for value in values]
    session.prepare("/otp/status", bodies, {200}, "delivery_status")
    session.load.tell(do="go", seconds=seconds)
    report = session.load.hear(seconds + 30)
    odd = {k: n for k, n in report["statuses"].items() if k not in {"200", "404"}}
    if odd:
        killed.errors.append(f"status by {by} was answered {odd}: {report['samples']}")
    states: list[str | None] = report["fields"]
    return states


def _integrity(folder: Path) -> dict[str, str]:
    """The integrity check of every SQLite database below the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and _head(path) == SQLITE_HEADER:
            connection = sqlite3.connect(path)
            try:
                found[path.name] = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
            finally:
                connection.close()
    return found


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(SQLITE_HEADER))
