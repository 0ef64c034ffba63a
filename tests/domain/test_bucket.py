"""A token bucket: so many calls a second, and a second's worth at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.bucket import Bucket, capacity, take


def allowed(rate: float, *times: float) -> list[bool]:
    bucket, found = None, []
    for at in times:
        bucket, wait = take(bucket, rate, at)
        found.append(wait == 0)
    return found


def test_a_second_s_worth_may_come_at_once() -> None:
    assert [True, True, True, False] == allowed(3, 0, 0, 0, 0)


def test_it_fills_with_time() -> None:
    assert [True, True, False, True, False] == allowed(2, 0, 0, 0.4, 0.5, 0.6)


def test_it_never_holds_more_than_a_second_s_worth() -> None:
    assert [True, True, True, False] == allowed(2, 0, 1000, 1000, 1000)


def test_less_than_one_a_second_is_one_at_a_time() -> None:
    assert [True, False, True] == allowed(0.1, 0, 9.9, 10)


@pytest.mark.parametrize(("rate", "expected"), [(2, 0.5), (0.1, 10)])
def test_the_wait_is_until_the_next_one_is_allowed(rate: float, expected: float) -> None:
    assert expected == take(Bucket(0, 0), rate, 0)[1]


@given(st.floats(0.01, 1000), st.lists(st.floats(0, 5), min_size=1, max_size=50))
def test_no_more_are_allowed_than_a_second_s_worth_and_what_time_brings(
    rate: float, pauses: list[float]
) -> None:
    times = [sum(pauses[: at + 1]) for at in range(len(pauses))]
    span = times[-1] - times[0]

    assert sum(allowed(rate, *times)) <= capacity(rate) + span * rate + 1e-6
