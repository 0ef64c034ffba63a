"""The audit log: rows that name the row before them, so that one removed or altered shows.

`digest` of a row is SHA-256 over its own facts and the digest before it. Rows cut off at the end
leave a chain that is whole: whoever wants to see that keeps a head (`gateway audit verify` prints
it, and every row is a line in the log).
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

GENESIS = bytes(32)  # what the first row names


class Act(NamedTuple):
    """Something that was done. `subject`: the verification or client it was done to."""

    actor: str
    action: str
    what: str = ""
    why: str = ""
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One row."""

    sequence: int
    at: datetime
    actor: str
    action: str
    subject: str | None
    what: str
    why: str
    before: bytes
    digest: bytes

    def expected(self) -> bytes:
        """The digest that its facts have."""
        return _digest(self)


def entry(act: Act, last: Entry | None, now: datetime) -> Entry:
    """The row that follows `last`."""
    sequence, before = (1, GENESIS) if last is None else (last.sequence + 1, last.digest)
    facts = (act.actor, act.action, act.subject, act.what, act.why)
    blank = Entry(sequence, now, *facts, before, b"")
    return Entry(sequence, now, *facts, before, _digest(blank))


def _digest(row: Entry) -> bytes:
    at = row.at.astimezone(UTC).isoformat(timespec="milliseconds")
    facts = [row.sequence, at, row.actor, row.action, row.subject, row.what, row.why]
    text = json.dumps(facts, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(row.before + text.encode()).digest()


@dataclass(slots=True)
class Chain:
    """Reads rows in their order and says what is wrong with them."""

    last: Entry | None = None
    rows: int = 0

    def follow(self, rows: Iterable[Entry]) -> list[str]:
        """What is wrong with the next rows, in words; nothing when they fit."""
        wrong = []
        for row in rows:
            expected, before = (
                (1, GENESIS) if self.last is None else (self.last.sequence + 1, self.last.digest)
            )
            if row.sequence != expected:
                wrong.append(f"rows {expected} to {row.sequence - 1} are missing")
            elif row.before != before:
                wrong.append(f"row {row.sequence} does not name the row before it")
            if row.digest != row.expected():
                wrong.append(f"row {row.sequence} was altered")
            self.last = row
            self.rows += 1
        return wrong

    @property
    def head(self) -> str:
        """The end of the chain, to be kept elsewhere: `12:ab34…`."""
        return f"{self.last.sequence}:{self.last.digest.hex()}" if self.last else "0:"
