"""How statements are declared: SQLAlchemy Core constructs over the domain's values, once for both
databases. Each engine compiles them on first use and gives the driver rows taken straight from the
values.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter, itemgetter
from types import MappingProxyType
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

from gateway.store.columns import SPELLED, Convert, Stored

T = TypeVar("T")
Maker = Callable[[Sequence[Any]], list[tuple[Any, ...]]]

PREFIX = "v_"  # of parameters: SQLAlchemy keeps a column's own name for its SET clause


def value(name: str) -> Any:
    """A parameter that takes the attribute `name` of the value the statement is run with."""
    return bindparam(PREFIX + name)


class Write:
    """An INSERT, UPDATE or DELETE over values with attributes, run for many at once.

    `order` names the columns of a unique key that is not the primary one: rows are inserted in its
    order, so that two transactions with the same rows wait for each other in a line, not a circle.

    `usual` are fields of a named tuple and what most have in them: a form of the statement for the
    driver's sake, never another meaning.
    """

    def __init__(
        self,
        statement: Insert | Update | Delete,
        order: Sequence[str] = (),
        usual: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.statement = statement
        self.order = tuple(order)
        self.usual = usual
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


def maker(
    kind: type,
    names: Sequence[str],
    encoders: Sequence[Convert | None],
    filled: Collection[str] = (),
) -> Maker:
    """What turns values of one kind into the driver's rows: the attributes `names`, each encoded
    where there is something to encode. Those in `filled` are never None.

    It is made as source, once for a statement and a kind, as a dataclass's methods are: loops over
    columns and encoders were a quarter of the store's work.
    """
    taken = tuple(dict.fromkeys(names))
    cells = {name: f"c{at}" for at, name in enumerate(taken)}
    given: dict[str, Any] = {"take": _taking(kind, taken)}
    row = [
        _converted(cells[name], encode, f"f{at}", given, filled=name in filled)
        for at, (name, encode) in enumerate(zip(names, encoders, strict=True))
    ]
    source = f"[({_listed(row)}) for ({_listed(cells.values())}) in map(take, values)]"
    made: Maker = _made(f"lambda values: {source}", given)
    return made


def _taking(kind: type, names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What takes these attributes from a value; from a named tuple by their places, which needs no
    look-up."""
    if len(names) == 1:
        return lambda item: (getattr(item, names[0]),)
    if issubclass(kind, tuple):
        return itemgetter(*map(names_of(kind).index, names))
    return attrgetter(*names)


def _converted(
    cell: str, convert: Convert | None, name: str, given: dict[str, Any], *, filled: bool = False
) -> str:
    """How `cell` reads once converted; what the expression needs is put into `given`."""
    if convert is None:
        return cell
    given[name] = convert
    converted = SPELLED.get(convert, name + "({})").format(cell)
    return converted if filled else f"None if {cell} is None else {converted}"


def _listed(parts: Iterable[str]) -> str:
    return "".join(f"{part}, " for part in parts)


def _made(source: str, given: dict[str, Any]) -> Any:
    """A function from source that is all of this module, over names and numbers of our own."""
    return eval(source, given)  # noqa: S307


class Rows(Generic[T]):
    """Turns the driver's rows into values, by a function that is made as `maker` makes its own."""

    values: Callable[[Iterable[Sequence[Any]]], list[T]]

    def __init__(
        self, columns: Iterable[ColumnElement[Any]], make: Callable[..., T], dialect: str
    ) -> None:
        decoders = [_decoder(column, dialect) for column in columns]
        cells = [f"c{at}" for at in range(len(decoders))]
        given: dict[str, Any] = {"make": make, "new": tuple.__new__}
        row = _listed(
            _converted(cell, decode, f"f{at}", given)
            for at, (cell, decode) in enumerate(zip(cells, decoders, strict=True))
        )
        named = isinstance(make, type) and issubclass(make, tuple)
        made = f"new(make, ({row}))" if named else f"make({row})"
        self.values = _made(f"lambda rows: [{made} for ({_listed(cells)}) in rows]", given)


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
