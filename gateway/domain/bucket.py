"""A token bucket: how many calls a second, one second's worth at once."""

from typing import NamedTuple


class Bucket(NamedTuple):
    """What is left, as of a moment (seconds of a monotonic clock)."""

    left: float
    at: float


def capacity(rate: float) -> float:
    """How many calls may come at once: those of one second, and one at least."""
    return max(1.0, rate)


def take(bucket: Bucket | None, rate: float, now: float) -> tuple[Bucket, float]:
    """The bucket after one call, and the seconds until that call is allowed: 0 when it is now.

    `rate`: calls a second. A call that is not allowed takes nothing.
    """
    full = capacity(rate)
    left = full if bucket is None else min(full, bucket.left + (now - bucket.at) * rate)
    if left >= 1:
        return Bucket(left - 1, now), 0.0
    return Bucket(left, now), (1 - left) / rate
