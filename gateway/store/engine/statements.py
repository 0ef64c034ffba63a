"""How statements are declared: SQLAlchemy Core constructs over the domain's values, once for both
databases. Each engine compiles them on first use and gives the driver rows taken straight from the
values.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Delete,
    Insert,
    Select,
    Table,
    Update,
    bindparam,
)

from gateway.store.columns import Convert, Stored

T = TypeVar("T")

PREFIX = "v_"  # of parameters: SQLAlchemy keeps a column's own name for its SET clause


def value(name: str) -> Any:
    """A parameter that takes the attribute `name` of the value the statement is run with."""
    return bindparam(PREFIX + name)


class Write:
    """An INSERT, UPDATE or DELETE over values with attributes, run for many at once.

    `order` names the columns of a unique key that is not the primary one: rows are inserted in its
    order, so that two transactions with the same rows wait for each other in a line, not a circle.
    """

    def __init__(self, statement: Insert | Update | Delete, order: Sequence[str] = ()) -> None:
        self.statement = statement
        self.order = tuple(order)
        self.forms: dict[str, Any] = {}  # by engine, compiled


class Read(Generic[T]):
    """A SELECT whose rows become values of one kind. Parameters are given in the order they stand
    in the statement.
    """

    def __init__(self, statement: Select[Any], make: Callable[..., T]) -> None:
        self.statement = statement
        self.make = make
        self.forms: dict[str, Any] = {}


class ByKeys(Generic[T]):
    """A SELECT over any number of keys of one column; with `lock`, its rows are held until the
    transaction ends.
    """

    def __init__(
        self,
        columns: Sequence[ColumnElement[Any]],
        key: ColumnElement[Any],
        make: Callable[..., T],
        *conditions: ColumnElement[bool],
        lock: bool = False,
    ) -> None:
        self.columns, self.key, self.make = columns, key, make
        self.conditions = conditions
        self.lock = lock
        self.forms: dict[str, Any] = {}


def taking(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What takes these attributes from a value."""
    if not names:
        return lambda _: ()
    if len(names) == 1:
        only = attrgetter(names[0])
        return lambda item: (only(item),)
    return attrgetter(*names)


class Rows(Generic[T]):
    """Turns the driver's rows into values."""

    def __init__(
        self, columns: Iterable[ColumnElement[Any]], make: Callable[..., T], dialect: str
    ) -> None:
        decoders = [_decoder(column, dialect) for column in columns]
        self._decoders = [(at, decode) for at, decode in enumerate(decoders) if decode is not None]
        self._make = make

    def values(self, rows: Iterable[Sequence[Any]]) -> list[T]:
        """What the driver returned, as values."""
        made = []
        for row in rows:
            cells = list(row)
            for at, decode in self._decoders:
                if cells[at] is not None:
                    cells[at] = decode(cells[at])
            made.append(self._make(*cells))
        return made


def _decoder(column: ColumnElement[Any], dialect: str) -> Convert | None:
    if isinstance(column.type, Boolean):
        return bool if dialect == "sqlite" else None
    return column.type.decoder(dialect) if isinstance(column.type, Stored) else None


def columns_of(table: Table, kind: type) -> list[ColumnElement[Any]]:
    """The columns that hold a value's fields, in its order."""
    return [table.c[name] for name in names_of(kind)]


def names_of(kind: Any) -> tuple[str, ...]:
    """The fields of a named tuple or a dataclass."""
    if issubclass(kind, tuple):
        return tuple(kind._fields)
    return tuple(field.name for field in fields(kind))
