"""Outbound webhooks: their signature and their retries, by Standard Webhooks
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).

A secret is 32 random bytes, written `whsec_` and base64. While one is being replaced, both sign.
"""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta

SECRET_BYTES = 32
PREFIX = "whsec_"
ROTATION = timedelta(hours=24)  # how long the replaced secret goes on signing

# Seconds between one try and the next; the last is made a day after the first.
PAUSES = (1, 5, 15, 60, 300, 1800, 7200, 14_400, 28_800, 33_819)
JITTER = 0.1  # of a pause, on top, so that a crowd does not come back as one
MOST_ASKED = 7200.0  # seconds of a Retry-After that are believed
LONG_FAILURE = timedelta(hours=24)  # after which an endpoint that takes nothing is given up


def shown(secret: bytes) -> str:
    """A secret as its owner keeps it."""
    return PREFIX + b64encode(secret).decode()


def read(text: str) -> bytes:
    """The way back. Raises ValueError."""
    return b64decode(text.removeprefix(PREFIX), validate=True)


def sign(secrets: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature`: one for each secret, separated by blanks. `timestamp`: Unix
    seconds."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    made = (hmac.digest(secret, signed, "sha256") for secret in secrets)
    return " ".join("v1," + b64encode(mac).decode() for mac in made)


def next_try(
    tries: int, now: datetime, *, retry_after: float | None = None, spread: float = 0.0
) -> datetime | None:
    """When to try again after the `tries`th try failed; None when it was the last.

    `retry_after`: seconds the endpoint asked for; it may lengthen a pause. `spread`: 0 to 1.
    """
    if tries > len(PAUSES):
        return None
    pause = PAUSES[tries - 1] * (1 + JITTER * spread)
    if retry_after is not None:
        pause = max(pause, min(retry_after, MOST_ASKED))
    return now + timedelta(seconds=pause)


def given_up(failing_since: datetime | None, now: datetime) -> bool:
    """Whether an endpoint has failed for so long, without one success, that it is disabled."""
    return failing_since is not None and now - failing_since >= LONG_FAILURE


def retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header; a date or nonsense counts as none."""
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 9:
        return None
    return float(value)
