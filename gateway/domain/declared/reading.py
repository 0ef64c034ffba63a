"""Reading TOML strictly: every key is asked for by name, what was not asked for is a mistake, and
so is a value of the wrong kind. Mistakes are collected under their full key."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from gateway.domain.declared import paths, template
from gateway.domain.declared.paths import Path, Paths
from gateway.domain.declared.rules import Comparison, Every, Predicate
from gateway.domain.declared.template import Template, Tree

LARGEST = 2**63  # no serialiser writes a larger number, nor infinity
DEEPEST = 20  # tables within each other, in a body or a rule

Word = TypeVar("Word", bound=StrEnum)
Made = TypeVar("Made")


class Table:
    """A table of the file. Its methods give something sound even where they found a mistake, so
    that the rest is looked at too."""

    def __init__(self, raw: Mapping[str, object], key: str, mistakes: dict[str, str]) -> None:
        self.key = key
        self.mistakes = mistakes
        self._raw = dict(raw)
        self._known: list[str] = []

    def wrong(self, name: str, why: str) -> None:
        """Note a mistake."""
        self.mistakes.setdefault(self._full(name), why)

    def close(self) -> None:
        """Nothing more is asked for."""
        for name in self._raw.keys() - set(self._known):
            self.wrong(name, f"is not a key here; there are: {', '.join(sorted(self._known))}")

    def names(self) -> list[str]:
        """The keys that are there."""
        return list(self._raw)

    def has(self, name: str) -> bool:
        self._known.append(name)
        return name in self._raw

    def take(self, name: str) -> object:
        """The value, None where there is none."""
        self._known.append(name)
        return self._raw.get(name)

    def text(self, name: str, default: str = "", *, needed: bool = False) -> str:
        value = self.take(name)
        if value is None and not needed:
            return default
        if isinstance(value, str) and (value or not needed):
            return value
        self.wrong(name, "is missing" if value is None else "is a text that is not empty")
        return default

    def texts(self, name: str) -> tuple[str, ...]:
        """One text or a list of them."""
        value = self.take(name)
        several = value if isinstance(value, list) else [] if value is None else [value]
        if all(isinstance(one, str) and one for one in several):
            return tuple(several)
        self.wrong(name, "is a text, or a list of texts")
        return ()

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.wrong(name, "is true or false")
        return value is True

    def number(self, name: str, default: int, low: int, high: int) -> int:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.wrong(name, f"is a whole number from {low} to {high}")
        return default

    def choice(self, name: str, options: type[Word], default: Word | None = None) -> Word:
        """One word of an enumeration; without a default it has to be there."""
        value = self.take(name)
        known = list(options)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and value in known:
            return options(value)
        self.wrong(name, f"must be one of {', '.join(known)}")
        return known[0]

    def choices(self, name: str, options: Iterable[str]) -> tuple[str, ...]:
        """One or more words of a list."""
        known = list(options)
        given = self.texts(name)
        if odd := [one for one in given if one not in known]:
            self.wrong(name, f"{odd[0]!r} is none of {', '.join(known)}")
        return tuple(one for one in given if one in known)

    def table(self, name: str) -> "Table":
        """The table of that name, an empty one where there is none."""
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            self.wrong(name, "is a table")
        return Table(value if isinstance(value, dict) else {}, self._full(name), self.mistakes)

    def tables(self, name: str) -> list["Table"]:
        """A list of tables, written [[name]]."""
        value = self.take(name)
        several = value if isinstance(value, list) else []
        if (value is not None and several is not value) or not all(
            isinstance(one, dict) for one in several
        ):
            self.wrong(name, f"is a list of tables: [[{self._full(name)}]]")
            return []
        return [
            Table(one, f"{self._full(name)}.{at}", self.mistakes) for at, one in enumerate(several)
        ]

    def paths(self, name: str) -> Paths:
        """One path or several of which the first that leads somewhere counts."""
        found = [self._made(name, paths.parse, one) for one in self.texts(name)]
        return tuple(path for path in found if path is not None)

    def each_path(self, name: str) -> Path | None:
        """A single path."""
        found = self.paths(name)
        if len(found) > 1:
            self.wrong(name, "is one path")
        return found[0] if found else None

    def pattern(self, name: str) -> re.Pattern[str] | None:
        """A regular expression, to fit the whole text."""
        written = self.text(name)
        return self._made(name, re.compile, written) if written else None

    def template(
        self, name: str, allowed: frozenset[str], default: str = "", *, needed: bool = False
    ) -> Template:
        return self._template(name, self.text(name, default, needed=needed), allowed)

    def templates(self, name: str, allowed: frozenset[str]) -> Mapping[str, Template]:
        """A table of templates."""
        inside = self.table(name)
        return {one: inside.template(one, allowed, needed=True) for one in inside.names()}

    def tree(self, name: str, allowed: frozenset[str]) -> Mapping[str, Tree]:
        """A table of templates, tables and lists."""
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            self.wrong(name, "is a table")
        raw = value if isinstance(value, dict) else {}
        return {one: self._tree(f"{name}.{one}", raw[one], allowed) for one in raw}

    def predicate(self, name: str) -> Predicate | None:
        """A test, or {all = [tests]}, or {any = [tests]}."""
        value = self.take(name)
        if value is None:
            return None
        return _predicate(self.table(name), DEEPEST)

    def _tree(self, name: str, value: object, allowed: frozenset[str]) -> Tree:
        if isinstance(value, str):
            return self._template(name, value, allowed)
        if name.count(".") > DEEPEST:
            self.wrong(name, "lies too deep")
        elif isinstance(value, dict):
            return {one: self._tree(f"{name}.{one}", value[one], allowed) for one in value}
        elif isinstance(value, list):
            return tuple(self._tree(f"{name}.{at}", one, allowed) for at, one in enumerate(value))
        elif isinstance(value, bool | int | float) and abs(value) < LARGEST:
            return value
        else:
            self.wrong(name, "is a text, a number of 64 bits, true, false, a table or a list")
        return False

    def _template(self, name: str, written: str, allowed: frozenset[str]) -> Template:
        made = self._made(name, template.parse, written)
        unknown = sorted(made.names - allowed) if made is not None else []
        if unknown:
            known = ", ".join(sorted(allowed)) or "none"
            self.wrong(name, f"there is no {{{unknown[0]}}} here; there are: {known}")
        return made or Template(())

    def _made(self, name: str, make: Callable[[str], Made], written: str) -> Made | None:
        try:
            return make(written)
        except (ValueError, re.error, RecursionError, OverflowError) as error:
            self.wrong(name, str(error))
            return None

    def _full(self, name: str) -> str:
        return f"{self.key}.{name}" if self.key else name


def _predicate(table: Table, depth: int) -> Predicate:
    for name in ("all", "any"):
        if table.has(name):
            inside = table.tables(name) if depth else []
            if not inside:
                table.wrong(name, "is a list of tests")
            table.close()
            return Every(tuple(_predicate(one, depth - 1) for one in inside), name == "any")
    where = table.paths("path")
    if not where:
        table.wrong("path", "is missing")
    test = Comparison(
        where,
        there=table.flag("exists") if table.has("exists") else None,
        among=_compared(table, "is", "in"),
        other_than=_compared(table, "is_not", "not_in"),
        pattern=table.pattern("matches"),
    )
    if (test.there, test.among, test.other_than, test.pattern) == (None, None, None, None):
        table.wrong("path", "is not compared: add is, is_not, in, not_in, matches or exists")
    table.close()
    return test


def _compared(table: Table, one: str, several: str) -> frozenset[str] | None:
    """What a value is compared with, as texts."""
    single, many = table.take(one), table.take(several)
    given: Sequence[object] = many if isinstance(many, list) else []
    if many is not None and not given:
        table.wrong(several, "is a list of values")
    if single is not None:
        given = [*given, single]
    if not all(isinstance(value, str | int | float) for value in given):
        table.wrong(several if many is not None else one, "holds texts, numbers, true or false")
    return frozenset(str(paths.text(value)) for value in given) if given else None
