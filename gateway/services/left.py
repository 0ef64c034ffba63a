"""What a committed batch has left behind, sorted by kind: once for all who follow it, since most of
them ask for a kind or two."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Left = Mapping[type, Sequence[Any]]  # of each kind in their order


def sort(items: Iterable[object]) -> Left:
    """The items by their kinds."""
    left: dict[type, list[Any]] = defaultdict(list)
    for item in items:
        left[type(item)].append(item)
    return left
