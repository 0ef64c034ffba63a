"""What follows a commit."""

from collections.abc import Callable, Sequence

from gateway.services import left
from gateway.services.left import Left

Follower = Callable[[Left], object]


class Following:
    """Tells each of these, in their order, what a committed batch has left behind; a defect in one
    keeps no other from being told. `after` is told before them, item by item."""

    def __init__(self, after: Callable[[object], None] | None) -> None:
        self._after = after
        self._followers: list[Follower] = []

    def add(self, *followers: Follower) -> None:
        """These come last."""
        self._followers += followers

    def __call__(self, items: Sequence[object]) -> None:
        if self._after is not None:
            for item in items:
                self._after(item)
        sorted_ = left.sort(items)
        failure: Exception | None = None
        for follower in self._followers:
            try:
                follower(sorted_)
            except Exception as error:  # noqa: BLE001  raised when the others have been told
                failure = failure or error
        if failure is not None:
            raise failure
