"""Ids: UUIDv7 (RFC 9562 §5.7), made before the write, so that inserts stay at the right edge."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from uuid import UUID, SafeUUID

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_PAGE = 4096
_FORM = 0x7 << 76 | 0x2 << 62  # version and variant
_RANDOM = (1 << 12) - 1 << 64 | (1 << 62) - 1  # the bits between them, and below
_make, _UNKNOWN = object.__new__, SafeUUID.unknown
_put_int, _put_is_safe = vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__


class Entropy:
    """Random bytes, drawn from `source` (os.urandom) a page at a time: a system call for each id
    would cost as much as making it. No byte is given out twice. One for each process.
    """

    def __init__(self, source: Callable[[int], bytes]) -> None:
        self._source = source
        self._read = BytesIO().read

    def __call__(self, size: int) -> bytes:
        """So many bytes."""
        taken = self._read(size)
        if len(taken) < size:  # the page is used up, and what was left of it is dropped
            self._read = BytesIO(self._source(max(_PAGE, size))).read
            taken = self._read(size)
        return taken


def numbered(value: int) -> UUID:
    """The id that is this number of 128 bits. UUID's own constructor, which weighs six ways of
    being called, takes five times as long, and ids are most of what is read from a row."""
    made = _make(UUID)  # whose slots are filled past its guard
    _put_int(made, value)
    _put_is_safe(made, _UNKNOWN)
    return made


def uuid7(now: datetime, entropy: bytes) -> UUID:
    """A time-ordered id. `entropy`: ten random bytes, its last ten but for version and variant."""
    milliseconds = int(now.timestamp() * 1000)
    return numbered(milliseconds << 80 | int.from_bytes(entropy[:10]) & _RANDOM | _FORM)


def lowest(at: datetime) -> UUID:
    """Below every id made at that moment or later, above every one made before."""
    return UUID(int=round(at.timestamp() * 1000) << 80)


def made_at(named: UUID) -> datetime:
    """When an id was made, to the millisecond."""
    return EPOCH + timedelta(milliseconds=named.int >> 80)


def parse(text: str) -> UUID | None:
    """The id a caller wrote, None when it is none. Only the canonical 36 characters count."""
    return numbered(int(text.replace("-", ""), 16)) if _CANONICAL.fullmatch(text) else None
