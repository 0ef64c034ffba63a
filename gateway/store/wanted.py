"""The rows that operations want to see, and what a whole batch of them wants."""

from collections.abc import Iterable
from typing import NamedTuple
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


class Wanted:
    """What a batch wants, each once, in the order it was asked for."""

    def __init__(self, wanted: Iterable[Wants]) -> None:
        self.verifications: Ids = {}
        self.attempts: Ids = {}
        self.references: dict[tuple[str, str], None] = {}
        self.running: dict[bytes, None] = {}
        self.counters: dict[bytes, None] = {}
        self.tallies: list[bytes] = []
        self.limited: list[bytes] = []
        self.suppressed: dict[bytes, None] = {}
        self.answers: dict[bytes, None] = {}
        self.due = 0
        for want in wanted:  # taken apart at once, since an operation fills few of its fields
            ids, attempts, pairs, running, counters, tallies, limited, ways, answers, due = want
            for one in ids:
                self.verifications[one.int] = one
            for one in attempts:
                self.attempts[one.int] = one
            if pairs:
                self.references.update(dict.fromkeys(pairs))
            if running:
                self.running.update(dict.fromkeys(running))
            if counters:
                self.counters.update(dict.fromkeys(counters))
            if ways:
                self.suppressed.update(dict.fromkeys(ways))
            if answers:
                self.answers.update(dict.fromkeys(answers))
            if tallies or limited:
                self.tallies += tallies
                self.limited += limited
            self.due += due
