"""Values of every step: cheaply made and copied, and otherwise like any other."""

from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.delivery import Attempt
from gateway.domain.values import copied_often, value
from gateway.domain.verification import Verification


class Plain(NamedTuple):
    one: int
    two: int
    three: int = 3


@copied_often
class Quick(NamedTuple):
    one: int
    two: int
    three: int = 3


@value
class Valued:
    one: int
    two: tuple[str, ...] = ()


@given(st.dictionaries(st.sampled_from(Plain._fields), st.integers()))
def test_a_copy_is_the_library_s(changes: dict[str, int]) -> None:
    expected = Plain(1, 2)._replace(**changes)

    copy = Quick(1, 2)._replace(**changes)

    assert expected == tuple(copy)
    assert Quick is type(copy)


def test_what_is_copied_stays_as_it_was() -> None:
    before = Quick(1, 2)

    after = before._replace(one=5)

    assert (Quick(1, 2), Quick(5, 2)) == (before, after)


def test_a_name_that_is_no_field_is_refused() -> None:
    with pytest.raises(TypeError, match="Quick has no field 'four'"):
        Quick(1, 2)._replace(four=4)  # type: ignore[call-arg]


@pytest.mark.parametrize("copied", [Attempt, Verification])
def test_every_field_of_a_step_s_rows_can_be_changed(copied: type[Attempt | Verification]) -> None:
    made = copied._make(range(len(copied._fields)))

    for at, name in enumerate(copied._fields):
        changed = made._replace(**{name: "new"})  # type: ignore[arg-type]
        assert [*range(at), "new", *range(at + 1, len(made))] == list(changed)


def test_values_that_are_alike_are_equal_and_meet_in_a_set() -> None:
    assert {Valued(1, ("a",))} == {Valued(1, ("a",)), Valued(one=1, two=("a",))}


def test_a_value_is_copied_like_any_dataclass() -> None:
    assert Valued(2, ("a",)) == replace(Valued(1, ("a",)), one=2)


def test_a_value_takes_no_other_names() -> None:
    with pytest.raises(AttributeError):
        Valued(1).three = 3  # type: ignore[attr-defined]
