"""What the ledger's statements for due rows cost on the store alone, in this one process: no
server, no provider, no decisions. A program of scripts/bench; it prints one JSON object:

    bench_lease.py CONFIG ROWS DATABASE_PID    (0: the database is a file)

As many rows are due as wait for later. Until none is due, in batches as large as the ledger's, each
a transaction with its fsync: `find` the ids through the partial index (on PostgreSQL locked, SKIP
LOCKED), `read` verifications and attempts, `write` a later `wake_at`, which is the lease, with the
version as its guard, and `commit`. After each pass the clock is put past the leases.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop
from bench_gateways import ROOT
from bench_processes import usage

from gateway import config
from gateway.domain.verification import Verification
from gateway.store import reads, schema, writes
from gateway.store.engine import BATCH, Engine, open_engine

sys.path.insert(0, str(ROOT / "tests"))
from factories import (  # the rows of the tests
    START,
    make_api_key,
    make_attempt,
    make_client,
    make_verification,
    new_id,
    stored_plan,
)

PASSES = 5
LEASE = timedelta(seconds=60)
LATER = timedelta(days=1)  # those that wait are never due here
STEPS = ("find", "read", "write", "commit")


async def fill(engine: Engine, rows: int) -> None:
    """So many that are due at START, and as many that are not, each with an attempt."""
    await engine.begin()
    await writes.insert_client(engine, make_client(), make_api_key())
    await writes.insert_plans(engine, [stored_plan()])
    await engine.commit()
    for first in range(0, 2 * rows, BATCH):
        batch = [_row(at, rows) for at in range(first, min(first + BATCH, 2 * rows))]
        await engine.begin()
        await writes.insert_verifications(engine, batch)
        attempts = [make_attempt(verification_id=one.id, reference=str(one.id)) for one in batch]
        await writes.insert_attempts(engine, attempts)
        await engine.commit()


def _row(at: int, rows: int) -> Verification:
    """Due and waiting ones in turns; the sizes of what is keyed and sealed are the gateway's."""
    return make_verification(
        id=new_id(),
        recipient_index=os.urandom(16),
        recipient_sealed=os.urandom(44),
        salt=os.urandom(16),
        wake_at=START if at % 2 == 0 else START + LATER,
    )


async def batch(engine: Engine, now: datetime, spent: dict[str, float]) -> int:
    """How many were due; what each step took is added to `spent`, in seconds."""
    marks = [time.perf_counter()]
    await engine.begin()
    due = await engine.load_one(reads.DUE, now, BATCH)
    marks.append(time.perf_counter())
    if not due:
        await engine.rollback()
        return 0
    found = await engine.load(reads.VERIFICATIONS, due)
    await engine.load(reads.ATTEMPTS, due)
    marks.append(time.perf_counter())
    leased = [(one, one._replace(wake_at=now + LEASE)) for one in found]
    await writes.update_verifications(engine, leased)
    marks.append(time.perf_counter())
    await engine.commit()
    marks.append(time.perf_counter())
    for step, (began, ended) in zip(STEPS, pairwise(marks), strict=True):
        spent[step] += ended - began
    return len(due)


async def measure(engine: Engine, rows: int, database: int) -> dict[str, Any]:
    """What was used, as a Usage, and microseconds a row by step."""
    await batch(engine, START, dict.fromkeys(STEPS, 0.0))  # statements are compiled
    spent = dict.fromkeys(STEPS, 0.0)
    done, now = 0, START
    before = usage(os.getpid(), database or None)
    for _ in range(PASSES):
        now += LEASE + timedelta(seconds=1)
        while leased := await batch(engine, now, spent):
            done += leased
    used = usage(os.getpid(), database or None).since(before)
    if done != rows * PASSES:
        raise SystemExit(f"{done} rows were leased, {rows * PASSES} were due")
    return {
        "rows": done,
        "used": asdict(used) | {"tools": 0.0},  # this is the server
        "steps": {step: value / done * 1e6 for step, value in spent.items()},
    }


async def lease(file: Path, rows: int, database: int) -> dict[str, Any]:
    engine = open_engine(config.load(config.environment(), file).store)
    try:
        await fill(engine, rows)
        return await measure(engine, rows, database)
    finally:
        await engine.close()


def main(arguments: Sequence[str]) -> None:
    file, rows, database = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    settings = config.load(config.environment(), file)
    settings.database.parent.mkdir(parents=True, exist_ok=True)
    schema.upgrade(settings.store)
    print(json.dumps(uvloop.run(lease(file, rows, database))))


if __name__ == "__main__":
    main(sys.argv[1:])
