"""Templates: `{to|digits}`, and trees of them. A leaf is filled first and encoded afterwards, by
the serialiser of its place, so that nothing in a message can break out of it.

A text that is one variable alone keeps the variable's kind (a number stays a number); one that
names something missing is missing as a whole, and a missing leaf is left out.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gateway.domain.declared.paths import text

# What a message says of itself. The route's own `values` and `secret.<name>` come beside them.
MESSAGE = frozenset(
    {
        "attempt_id",
        "callback_url",
        "channel",
        "code",
        "country",
        "locale",
        "sender",
        "subject",
        "template",
        "text",
        "to",
        "to_digits",
        "ttl_s",
    }
)

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)?")

Variables = Mapping[str, object]


def _digits(value: object, _: str) -> object:
    return re.sub("[^0-9]", "", str(value))


def _int(value: object, _: str) -> object:
    return int(str(value)) if re.fullmatch("-?[0-9]{1,18}", str(value)) else None


# What `default` does is done where a missing value is met.
FILTERS: Mapping[str, Callable[[object, str], object]] = {
    "default": lambda value, _: value,
    "digits": _digits,
    "int": _int,
    "str": lambda value, _: text(value),
    "upper": lambda value, _: str(value).upper(),
}


@dataclass(frozen=True, slots=True)
class Slot:
    """One variable and what is done to it."""

    name: str
    filters: tuple[tuple[str, str], ...] = ()

    def fill(self, variables: Variables) -> object:
        value = variables.get(self.name)
        for name, argument in self.filters:
            if value is None or value == "":
                value = argument if name == "default" else None
            else:
                value = FILTERS[name](value, argument)
        return None if value == "" else value


@dataclass(frozen=True, slots=True)
class Template:
    """Text with variables in it."""

    parts: tuple[str | Slot, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(part.name for part in self.parts if isinstance(part, Slot))

    def fill(self, variables: Variables) -> object:
        if len(self.parts) == 1 and isinstance(self.parts[0], Slot):
            return self.parts[0].fill(variables)
        filled = [part if isinstance(part, str) else part.fill(variables) for part in self.parts]
        return None if None in filled else "".join(str(text(part)) for part in filled)

    def line(self, variables: Variables) -> str:
        """As text; "" where something is missing."""
        filled = self.fill(variables)
        return "" if filled is None else str(text(filled))


Tree = Template | int | float | bool | Mapping[str, "Tree"] | tuple["Tree", ...]


EMPTY = Template(())


def parse(written: str) -> Template:
    """Raises ValueError."""
    parts: list[str | Slot] = []
    at, literal = 0, ""
    for piece in _PIECE.finditer(written):
        literal += written[at : piece.start()]
        at = piece.end()
        if piece[0] in ("{{", "}}"):
            literal += piece[0][0]
        elif piece[1] is None:
            raise ValueError(f"{written!r} has a lone brace; write it twice")
        else:
            parts += [literal, _slot(piece[1])] if literal else [_slot(piece[1])]
            literal = ""
    literal += written[at:]
    return Template((*parts, literal) if literal or not parts else tuple(parts))


def _slot(written: str) -> Slot:
    name, *filters = written.split("|")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{{{written}}} names no variable")
    pairs = [one.partition(":") for one in filters]
    for known, colon, _ in pairs:
        if known not in FILTERS:
            raise ValueError(f"there is no filter {known!r}; there are: {', '.join(FILTERS)}")
        if bool(colon) != (known == "default"):
            raise ValueError(f"{{{written}}}: default has an argument, the others have none")
    return Slot(name, tuple((known, argument) for known, _, argument in pairs))


def leaves(tree: Tree) -> Iterator[Template]:
    """Every template in it."""
    if isinstance(tree, Template):
        yield tree
    elif isinstance(tree, Mapping):
        for inside in tree.values():
            yield from leaves(inside)
    elif isinstance(tree, tuple):
        for inside in tree:
            yield from leaves(inside)


def fill(tree: Tree, variables: Variables) -> object:
    """The tree with its variables in place; what is missing is left out, and so is a table or
    list that this leaves empty."""
    if isinstance(tree, Template):
        return tree.fill(variables)
    if isinstance(tree, Mapping):
        pairs = ((name, fill(inside, variables)) for name, inside in tree.items())
        return {name: value for name, value in pairs if value is not None} or None
    if isinstance(tree, tuple):
        return [value for one in tree if (value := fill(one, variables)) is not None] or None
    return tree
