"""What a process wrote last, so that the next step of a verification need not read it again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.domain.delivery import Attempt
from gateway.domain.verification import Verification

# In the store ids are looked up by their number: a UUID's own hash is a function of Python's.
Ids = dict[int, UUID]

_VERSION = Verification._fields.index("version")


@dataclass(slots=True)
class Row:
    """A verification of the working copy with its attempts by ordinal, and what became of them."""

    verification: Verification
    attempts: list[Attempt]
    loaded: tuple[Verification, Sequence[Attempt]] | None  # None: it was not there before
    changed: bool = False
    read: bool = False  # from the database


class Recent:
    """What this process wrote last: the next step of a verification, mostly moments later, need not
    read it again. `version` guards it: where other nodes write too it is compared under the lock,
    and where it is not the same the row is read. Everywhere it stands in the update: where somebody
    has written since, the batch conflicts, all of this is forgotten, and it is decided again on
    what is really there. A verification that was found by looking for an attempt not known here is
    read, whatever is remembered of it: another process has inserted that attempt.

    The rows are those of the working copy themselves: one batch has them at a time, and when it
    fails all of this is forgotten.
    """

    def __init__(self, most: int = 2048) -> None:
        self._most = most
        self._rows: dict[int, Row] = {}
        self._owners: Ids = {}
        self._references: dict[tuple[str, str], UUID] = {}

    def row(self, named: UUID) -> Row | None:
        """A verification, to be changed."""
        row = self._rows.get(named.int)
        if row is not None:
            attempts = row.attempts
            row.loaded = row.verification, attempts
            row.attempts = attempts.copy()
        return row

    def owner(self, attempt_id: UUID) -> UUID | None:
        """The verification that an attempt belongs to."""
        return self._owners.get(attempt_id.int)

    def referenced(self, pair: tuple[str, str]) -> UUID | None:
        """The attempt that carries that (account, reference)."""
        return self._references.get(pair)

    def know(self, owners: Ids, references: dict[tuple[str, str], UUID]) -> None:
        """How new attempts, of rows that are put too, are looked up."""
        self._owners.update(owners)
        self._references.update(references)

    def put(self, row: Row) -> None:
        """A changed row as it has just been committed; it is ours now."""
        current = row.verification
        named = current.id
        number = named.int
        if row.loaded is not None:  # the statement has counted its version up
            fields: Any = [*current]
            fields[_VERSION] += 1
            row.verification = tuple.__new__(Verification, fields)
        row.changed = False
        rows = self._rows
        rows.pop(number, None)  # or it would keep its old place
        rows[number] = row
        if row.read:
            row.read = False
            for attempt in row.attempts:
                self._owners[attempt.id.int] = named
                if attempt.reference is not None:
                    self._references[attempt.account, attempt.reference] = attempt.id
        if len(rows) > self._most:
            self._forget(next(iter(rows)))

    def _forget(self, oldest: int) -> None:
        for attempt in self._rows.pop(oldest).attempts:
            self._owners.pop(attempt.id.int, None)
            if attempt.reference is not None:
                self._references.pop((attempt.account, attempt.reference), None)

    def drop(self, named: UUID) -> None:
        """A row that has just been deleted."""
        if named.int in self._rows:
            self._forget(named.int)

    def clear(self) -> None:
        self._rows.clear()
        self._owners.clear()
        self._references.clear()
