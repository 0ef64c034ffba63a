"""A statement's text as a database takes it: constants stand in it, given values do not.

A constant in the text is one parameter less for the driver to look at with every row, and a partial
index whose condition is hidden in a parameter is of no use to a prepared statement.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import ClauseElement, Dialect
from sqlalchemy.types import NullType, TypeEngine

from gateway.store.columns import Convert
from gateway.store.engine.statements import PREFIX

_PARAMETER = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True, slots=True)
class Flavour:
    """What the databases write differently."""

    dialect: Dialect  # that marks parameters as pyformat does: the text is taken apart by it
    encoder: Callable[[TypeEngine[Any]], Convert | None]  # from the domain's value to the driver's
    octets: str  # how hexadecimal digits are written as bytes

    def spelled(self, kind: TypeEngine[Any]) -> str:
        """The name of a type."""
        return self.dialect.type_compiler_instance.process(kind)

    def literal(self, fixed: Any) -> str:
        """A constant of a statement; it is of this source, never from outside."""
        match fixed:
            case None:
                return "NULL"
            case bool() if self.dialect.supports_native_boolean:
                return "TRUE" if fixed else "FALSE"
            case int():
                return str(int(fixed))
            case bytes():
                return self.octets.format(fixed.hex())
            case str():
                quoted = fixed.replace("'", "''")
                return f"'{quoted}'"
        raise TypeError(f"no constant of a statement: {fixed!r}")


class Compiled:
    """A statement's text, whose given parameters `text` puts in its own way. Those in `fixed` are
    given once for all: they stand in it like its own constants."""

    def __init__(
        self,
        flavour: Flavour,
        statement: ClauseElement,
        types: Mapping[str, TypeEngine[Any]],
        fixed: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._flavour = flavour
        self._compiled: Any = statement.compile(dialect=flavour.dialect)
        self._types = types
        self._fixed = {**self._compiled.params, **fixed}
        self._given = {
            name for name in self._compiled.params if name.startswith(PREFIX) and name not in fixed
        }
        self.names: list[str] = []  # each once
        self.stands: list[str] = []  # as they stand in the text

    def kind(self, name: str) -> TypeEngine[Any]:
        """The type of a parameter."""
        found: TypeEngine[Any] = self._types.get(name) or self._compiled.binds[name].type
        return found

    def encoders(self, names: list[str]) -> list[Convert | None]:
        """What makes the driver's values of these parameters; None where they are the same."""
        return [self._flavour.encoder(self.kind(name)) for name in names]

    def text(self, form: str) -> str:
        """The text; `form` shows a given parameter by its {name}, {number} and {cast}."""

        def put(match: re.Match[str]) -> str:
            name = match[1]
            kind = self.kind(name)
            if name not in self._given:
                fixed, encode = self._fixed[name], self._flavour.encoder(kind)
                return self._flavour.literal(
                    fixed if encode is None or fixed is None else encode(fixed)
                )
            self.stands.append(name)
            if name not in self.names:
                self.names.append(name)
            cast = "" if isinstance(kind, NullType) else f"::{self._flavour.spelled(kind)}"
            return form.format(name=name, number=self.names.index(name) + 1, cast=cast)

        return _PARAMETER.sub(put, str(self._compiled)).replace("%%", "%")
