"""Paths into what a vendor wrote: `data.payload.to[0].status`, `results[*]`, `'price[amount]'`.

A name in quotes may hold any character. `[*]` stands for every entry of a list. A path that begins
with `$.` starts at the whole body instead of the item; one that ends with `|str` makes a number a
string, for vendors whose ids are numbers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.declared.bodies import Elements

_STEP = re.compile(r"\.?(?:'([^']+)'|([^.\[\]'|$\s]+))|\[([0-9]{1,4}|\*)\]")
_STRING = "|str"


@dataclass(frozen=True, slots=True)
class Path:
    """One path. A step is a name, an index, or None for every entry."""

    steps: tuple[str | int | None, ...]
    whole: bool = False  # from the body, not from the item
    as_text: bool = False

    def all(self, item: object, body: object) -> list[object]:
        """Every value it leads to."""
        found = _walked(self.steps, body if self.whole else item)
        found = [one[0] if isinstance(one, Elements) and one else one for one in found]
        return [text(one) for one in found] if self.as_text else found

    def begins(self, body: object) -> bool:
        """Whether the way to its first list, or to its end, is there."""
        if None not in self.steps:
            return bool(_walked(self.steps, body))
        found = _walked(self.steps[: self.steps.index(None)], body)
        return bool(found) and isinstance(found[0], list)


Paths = tuple[Path, ...]  # the first that leads to something counts


def parse(written: str) -> Path:
    """Raises ValueError."""
    rest = written.removesuffix(_STRING)
    whole = rest == "$" or rest.startswith(("$.", "$["))
    rest = rest[1:].removeprefix(".") if whole else rest
    steps: list[str | int | None] = []
    at = 0
    while at < len(rest):
        step = _STEP.match(rest, at)
        if step is None or rest.startswith(".", at) != bool(steps and step[3] is None):
            raise ValueError(f"{written!r} is not a path such as data.items[0].id")
        steps.append(_step(step))
        at = step.end()
    if not steps and not whole:
        raise ValueError("an empty path leads nowhere")
    return Path(tuple(steps), whole, written.endswith(_STRING))


def first(paths: Sequence[Path], item: object, body: object) -> object:
    """The first value there is; None where there is none."""
    for path in paths:
        for value in path.all(item, body):
            if value is not None and value != "":
                return value
    return None


def text(value: object) -> object:
    """A number or truth value as vendors write it into a form; everything else as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _step(step: re.Match[str]) -> str | int | None:
    if step[3] is None:
        return step[1] or step[2]
    return None if step[3] == "*" else int(step[3])


def _walked(steps: Sequence[str | int | None], start: object) -> list[object]:
    found = [start]
    for step in steps:
        found = [one for value in found for one in _entered(value, step)]
    return found


def _entered(value: object, step: str | int | None) -> list[object]:
    if step is None:
        return list(value) if isinstance(value, list) else []
    if isinstance(step, int):
        return [value[step]] if isinstance(value, list) and step < len(value) else []
    if isinstance(value, Elements) and value:
        value = value[0]  # an element named without an index is the first of its name
    return [value[step]] if isinstance(value, dict) and step in value else []
