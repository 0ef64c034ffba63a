"""What the store asks of a database, and how it is told that something did not work."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from gateway.store.engine.statements import ByKeys, Read, Write

T = TypeVar("T")

BATCH = 500  # keys in one list, and operations in one batch


class StoreError(Exception):
    """The database did not do it; nothing of the batch was stored."""


class Conflict(StoreError):
    """A guard held: the row was not as it had been loaded, or a unique key was taken."""


class Refused(StoreError):
    """The transaction could not be begun or committed: nothing of the batch is stored, and a second
    try would fare no better.
    """


class Engine(Protocol):
    """A database: one transaction at a time, and reads beside it.

    All of it is awaited, since one of the two answers over a network. SQLite's statements never
    really wait: each costs one coroutine for a whole batch, too little to measure.
    """

    @property
    def shared(self) -> bool:
        """Whether other gateways write here too: what one remembers must then be looked at."""
        ...

    async def begin(self) -> None:
        """Open the transaction. Raises Refused when the database takes none."""
        ...

    async def lock(self, names: Sequence[tuple[str, str]]) -> None:
        """Keep every other transaction that names one of these waiting until this one has ended."""
        ...

    async def run(self, write: Write, values: Sequence[Any], *, expect: bool = True) -> int:
        """Run a statement for each value; with `expect`, each must touch exactly one row.

        Raises Conflict when a guard or a unique key held, StoreError for anything else.
        """
        ...

    async def load(self, statement: ByKeys[T], keys: Sequence[Any]) -> list[T]:
        """Rows by key, as the open transaction sees and holds them."""
        ...

    async def load_one(self, read: Read[T], *given: Any) -> list[T]:
        """Rows of a plain statement, inside the open transaction."""
        ...

    async def commit(self) -> None:
        """Make it durable. Raises Refused: surely not, or nobody can tell."""
        ...

    async def rollback(self) -> None:
        """Forget the open transaction, if there is one."""
        ...

    async def fetch(self, read: Read[T], *given: Any) -> list[T]:
        """A point read outside any transaction: what is committed now."""
        ...

    async def fetch_by(self, statement: ByKeys[T], keys: Sequence[Any]) -> list[T]:
        """Point reads by key outside any transaction."""
        ...

    async def close(self) -> None:
        """Let go of the database; a commit under way is waited for."""
        ...
