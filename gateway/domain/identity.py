"""Ids: UUIDv7 (RFC 9562 §5.7), made before the write, so that inserts stay at the right edge."""

import re
from datetime import UTC, datetime
from uuid import UUID

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_VERSION = 0x7 << 76
_VARIANT = 0x2 << 62
_RANDOM_A = ((1 << 12) - 1) << 64
_RANDOM_B = (1 << 62) - 1


def uuid7(now: datetime, entropy: bytes) -> UUID:
    """A time-ordered id. `entropy`: ten random bytes, of which 74 bits are used."""
    milliseconds = int(now.timestamp() * 1000)
    random = int.from_bytes(entropy[:10], "big")
    value = milliseconds << 80 | _VERSION | _VARIANT
    return UUID(int=value | ((random << 2) & _RANDOM_A) | (random & _RANDOM_B))


def parse(text: str) -> UUID | None:
    """The id a caller wrote, None when it is none. Only the canonical 36 characters count."""
    return UUID(text) if _CANONICAL.fullmatch(text) else None
