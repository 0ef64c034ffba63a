"""What follows a commit reaches all who follow it."""

import pytest

from gateway.app.following import Following
from gateway.services.left import Left


def test_each_is_told_by_kind_and_in_order() -> None:
    told: list[object] = []
    following = Following(told.append)
    following.add(lambda left: told.append(left.get(int)), lambda left: told.append(left.get(str)))
    following(["a", 1, "b", 2])

    assert ["a", 1, "b", 2, [1, 2], ["a", "b"]] == told


def test_a_defect_in_one_keeps_no_other_from_being_told() -> None:
    told: list[object] = []

    def fails(left: Left) -> None:
        raise ValueError("a defect")

    following = Following(None)
    following.add(fails, lambda left: told.append(left.get(int)))

    with pytest.raises(ValueError, match="a defect"):
        following([1])
    assert [[1]] == told
