"""The time of day, read where the dependencies are put together: everything else is handed it."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Now, to the millisecond: what is stored is what was meant."""
    return datetime.fromtimestamp(time.time_ns() // 1_000_000 / 1000, UTC)
