"""What follows a commit."""

from collections.abc import Callable, Sequence
from typing import Any

Follower = Callable[[Sequence[Any]], object]


class Following:
    """Tells each of these, in their order, what a committed batch has left behind."""

    def __init__(self, after: Callable[[object], None] | None) -> None:
        self._followers: list[Follower] = [] if after is None else [_one_by_one(after)]

    def add(self, *followers: Follower) -> None:
        """These come last."""
        self._followers += followers

    def __call__(self, items: Sequence[Any]) -> None:
        for follower in self._followers:
            follower(items)


def _one_by_one(after: Callable[[object], None]) -> Follower:
    def follow(items: Sequence[Any]) -> None:
        for item in items:
            after(item)

    return follow
