"""What keeps a process from being ready."""

from collections.abc import Callable
from datetime import datetime

from gateway.store.engine import StoreError
from gateway.store.reads import Reads
from gateway.worker import Worker

LATE_PASS = 10.0  # seconds without a pass after which this process is not ready


async def problems(
    reads: Reads, worker: Worker | None, now: Callable[[], datetime]
) -> dict[str, str]:
    """What keeps this process from being ready."""
    found = {}
    try:
        await reads.soonest()
    except StoreError as error:
        found["database"] = str(error)
    if worker is None:
        return found
    if worker.last_pass is None:
        found["reconciler"] = "has not passed yet"
    elif (now() - worker.last_pass).total_seconds() > LATE_PASS:
        found["reconciler"] = f"last passed at {worker.last_pass.isoformat()}"
    return found
