"""Statements as PostgreSQL takes them, a batch at a time.

A write gets its rows as one array a column (`unnest`), so that a batch is one statement and its
row count tells whether a guard held.
"""

import re
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import ARRAY, Select, String, any_, bindparam, select
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from gateway.store.columns import Convert, Stored
from gateway.store.engine.compiled import Compiled, Flavour
from gateway.store.engine.statements import PREFIX, ByKeys, Maker, Read, Rows, Write, maker

T = TypeVar("T")

NAME = "postgresql"
_INSERT = re.compile(r"(INSERT INTO .+?\)) VALUES \((.+?)\)( ON CONFLICT .+)?", re.DOTALL)
_KEYS = PREFIX + "keys"


def _without_zero(text: str) -> str:
    """PostgreSQL's text takes every character but U+0000."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text


def encoder(kind: TypeEngine[Any]) -> Convert | None:
    """From the domain's value to the driver's; None where they are the same."""
    if isinstance(kind, Stored):
        return kind.encoder(NAME)
    plain = kind.impl_instance if isinstance(kind, TypeDecorator) else kind
    return _without_zero if isinstance(plain, String) else None


_FLAVOUR = Flavour(
    dialect=PGDialect(paramstyle="pyformat"),  # type: ignore[no-untyped-call]
    encoder=encoder,
    octets="'\\x{}'::bytea",
)


class Query(Generic[T]):
    """A Read: its text, its parameters, its rows as values."""

    def __init__(self, statement: Select[Any], rows: Rows[T]) -> None:
        compiled = Compiled(_FLAVOUR, statement, {})
        self.sql = compiled.text("${number}{cast}")
        self.values = rows.values
        self.given = len(compiled.stands)
        self._at = [compiled.stands.index(name) for name in compiled.names]
        self._encoders = compiled.encoders(compiled.names)

    def parameters(self, given: Sequence[Any]) -> list[Any]:
        """The driver's parameters for values in the order they stand in the statement."""
        return [
            given[at] if encode is None or given[at] is None else encode(given[at])
            for at, encode in zip(self._at, self._encoders, strict=True)
        ]


class Keyed(Generic[T]):
    """A ByKeys: one text for any number of keys, with and without the lock."""

    def __init__(self, statement: ByKeys[T]) -> None:
        key = statement.key
        keys = bindparam(_KEYS, type_=ARRAY(key.type))
        plain = select(*statement.columns).where(key == any_(keys), *statement.conditions)
        rows = Rows(statement.columns, statement.make, NAME)
        locked = plain.order_by(key).with_for_update() if statement.lock else plain
        self.plain = Query(plain, rows)
        self.locked = Query(locked, rows)
        self._encode = encoder(key.type)

    def keys(self, given: Sequence[Any]) -> list[Any]:
        """The driver's only parameter."""
        return list(given) if self._encode is None else [self._encode(key) for key in given]


class Change:
    """A Write over arrays."""

    def __init__(self, write: Write) -> None:
        cells = write.statement.table.c
        types = {PREFIX + name: cells[name].type for name in cells.keys()}  # noqa: SIM118
        compiled = Compiled(_FLAVOUR, write.statement, types)
        text = compiled.text("given.{name}")
        names = compiled.names
        arrays = ", ".join(
            f"${number}::{_FLAVOUR.spelled(compiled.kind(name))}[]"
            for number, name in enumerate(names, start=1)
        )
        source = f"unnest({arrays}) AS given ({', '.join(names)})"
        self.sql = _over(text, source, write)
        self._names = [name.removeprefix(PREFIX) for name in names]
        self._encoders = compiled.encoders(names)
        self._makers: dict[type, Maker] = {}

    def columns(self, values: Sequence[Any]) -> list[Sequence[Any]]:
        """The driver's parameters: an array a column. The values are of one kind."""
        kind = type(values[0])
        make = self._makers.get(kind)
        if make is None:
            make = self._makers[kind] = maker(kind, self._names, self._encoders)
        return list(zip(*make(values), strict=True))


def _over(text: str, source: str, write: Write) -> str:
    """The statement for one row as one over many."""
    inserted = _INSERT.fullmatch(text)
    if inserted is not None:
        head, cells, conflict = inserted.groups()
        names = write.order
        if conflict and not names:
            names = tuple(column.name for column in write.statement.table.primary_key)
        order = f" ORDER BY {', '.join(f'given.{PREFIX}{name}' for name in names)}" if names else ""
        return f"{head} SELECT {cells} FROM {source}{order}{conflict or ''}"  # noqa: S608  (ours)
    head, where, conditions = text.partition(" WHERE ")
    if not where:
        raise ValueError(f"a change of every row: {text}")
    return f"{head} {'USING' if head.startswith('DELETE') else 'FROM'} {source} WHERE {conditions}"


def query(read: Read[T]) -> Query[T]:
    """A Read, compiled once."""
    form: Query[T] | None = read.forms.get(NAME)
    if form is None:
        rows = Rows(read.statement.selected_columns, read.make, NAME)
        form = read.forms[NAME] = Query(read.statement, rows)
    return form


def keyed(statement: ByKeys[T]) -> Keyed[T]:
    """A ByKeys, compiled once."""
    form: Keyed[T] | None = statement.forms.get(NAME)
    if form is None:
        form = statement.forms[NAME] = Keyed(statement)
    return form


def change(write: Write) -> Change:
    """A Write, compiled once."""
    form: Change | None = write.forms.get(NAME)
    if form is None:
        form = write.forms[NAME] = Change(write)
    return form
