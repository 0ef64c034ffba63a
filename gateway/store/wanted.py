"""The rows that operations want to see, and what a whole batch of them wants."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

from gateway.store.recent import Ids


class Wants(NamedTuple):
    """The rows an operation must see: by id, by reference, by index, or whatever is due."""

    verifications: tuple[UUID, ...] = ()
    attempts: tuple[UUID, ...] = ()
    references: tuple[tuple[str, str], ...] = ()  # (account, reference)
    running: tuple[bytes, ...] = ()  # recipient indexes
    counters: tuple[bytes, ...] = ()
    tallies: tuple[bytes, ...] = ()
    limited: tuple[bytes, ...] = ()  # tallies that have a maximum
    suppressed: tuple[bytes, ...] = ()  # recipient indexes
    answers: tuple[bytes, ...] = ()  # by Idempotency-Key
    due: int = 0


_NOTHING: tuple[tuple[Any, ...], ...] = ((),) * len(Wants._fields)
_each = chain.from_iterable


class Wanted:
    """What a batch wants, each once, in the order it was asked for."""

    def __init__(self, wanted: Sequence[Wants]) -> None:
        # Field by field: an operation fills few of them, and what is empty is passed over in C.
        fields = zip(*wanted, strict=True) if wanted else _NOTHING
        ids, attempts, pairs, running, counters, tallies, limited, ways, answers, due = fields
        self.verifications: Ids = {one.int: one for one in _each(ids)}
        self.attempts: Ids = {one.int: one for one in _each(attempts)}
        self.references: dict[tuple[str, str], None] = dict.fromkeys(_each(pairs))
        self.running: dict[bytes, None] = dict.fromkeys(_each(running))
        self.counters: dict[bytes, None] = dict.fromkeys(_each(counters))
        self.tallies: list[bytes] = [*_each(tallies)]
        self.limited: list[bytes] = [*_each(limited)]
        self.suppressed: dict[bytes, None] = dict.fromkeys(_each(ways))
        self.answers: dict[bytes, None] = dict.fromkeys(_each(answers))
        self.due: int = sum(due)
