"""Checking codes, exactly as often as allowed (F24, F25, F26), and how a verification ends."""

from dataclasses import FrozenInstanceError

import pytest
from factories import TTL, after, make_verification
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.verification import (
    BY_NUMBER,
    CODE_LENGTHS,
    MAX_CHECKS,
    MIN_LIFE,
    NUMBERS,
    TTL_SECONDS,
    Matched,
    Over,
    Status,
    Verification,
    Wrong,
    check,
    end,
)

CODE, OTHER = "012345", "543210"
ENDS = [status for status in Status if status is not Status.PENDING]


def after_wrong(times: int, **changes: object) -> Verification:
    """A verification at which so many wrong codes were tried."""
    current = make_verification(**changes)
    for _ in range(times):
        result = check(current, OTHER, CODE, after(1))
        assert isinstance(result, Wrong)
        current = result.verification
    return current


def test_the_right_code_ends_a_verification_as_verified() -> None:
    before = make_verification(code_sealed=b"sealed")
    expected = before._replace(
        checks_used=1,
        status=Status.VERIFIED,
        ended_at=after(7),
        wake_at=None,
        code_sealed=None,
    )

    assert Matched(expected) == check(before, CODE, CODE, after(7))


def test_a_wrong_code_is_counted_and_changes_nothing_else() -> None:
    before = make_verification()

    assert Wrong(before._replace(checks_used=1)) == check(before, OTHER, CODE, after(7))


@pytest.mark.parametrize("checks_max", [1, 2, MAX_CHECKS])
def test_there_are_exactly_as_many_comparisons_as_allowed(checks_max: int) -> None:
    """F26."""
    current = make_verification(checks_max=checks_max)
    compared = 0
    while isinstance(result := check(current, OTHER, CODE, after(1)), Wrong):
        compared += 1
        current = result.verification

    assert checks_max == compared


@pytest.mark.parametrize("used", range(MAX_CHECKS))
def test_only_the_last_wrong_code_locks(used: int) -> None:
    """F26."""
    status = after_wrong(used + 1).status

    assert (Status.LOCKED if used + 1 == MAX_CHECKS else Status.PENDING) == status


def test_the_right_code_on_the_last_check_verifies() -> None:
    """F26."""
    assert isinstance(check(after_wrong(MAX_CHECKS - 1), CODE, CODE, after(2)), Matched)


def test_the_right_code_after_the_last_check_is_not_compared() -> None:
    """F24."""
    assert Over(Status.LOCKED) == check(after_wrong(MAX_CHECKS), CODE, CODE, after(2))


def test_a_code_verifies_once() -> None:
    """F24, F26."""
    first = check(make_verification(), CODE, CODE, after(1))
    assert isinstance(first, Matched)

    assert Over(Status.VERIFIED) == check(first.verification, CODE, CODE, after(1))


@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("code", [CODE, OTHER])
def test_after_an_end_nothing_is_compared(status: Status, code: str) -> None:
    assert Over(status) == check(make_verification(status=status), code, CODE, after(1))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(TTL - 0.001, Status.PENDING), (TTL, Status.EXPIRED), (TTL + 1, Status.EXPIRED)],
)
def test_a_verification_expires_at_its_moment_whoever_has_written_so(
    seconds: float, expected: Status
) -> None:
    assert expected == make_verification().status_at(after(seconds))


@pytest.mark.parametrize("status", ENDS)
def test_an_end_stays_what_it_was_after_the_expiry(status: Status) -> None:
    assert status == make_verification(status=status).status_at(after(TTL + 1))


def test_the_right_code_is_not_compared_after_the_expiry() -> None:
    assert Over(Status.EXPIRED) == check(make_verification(), CODE, CODE, after(TTL))


@pytest.mark.parametrize(
    "submitted", ["", "01234", "0123456", "\N{FULLWIDTH DIGIT ZERO}12345", "012345 ", "code", "\0"]
)
def test_whatever_is_submitted_is_right_or_wrong(submitted: str) -> None:
    assert isinstance(check(make_verification(), submitted, CODE, after(1)), Wrong)


@given(st.text(max_size=12), st.from_regex("[0-9]{4,10}", fullmatch=True))
def test_only_the_very_code_is_right(submitted: str, expected: str) -> None:
    result = check(make_verification(), submitted, expected, after(1))

    assert (submitted == expected) == isinstance(result, Matched)


@pytest.mark.parametrize("status", ENDS)
def test_an_end_forgets_the_callers_code_and_what_was_due(status: Status) -> None:
    before = make_verification(code_sealed=b"sealed", recipient_sealed=b"number")
    expected = before._replace(status=status, ended_at=after(9), wake_at=None, code_sealed=None)

    assert expected == end(before, status, after(9))


def test_what_is_left_is_what_was_not_used() -> None:
    verification = make_verification(checks_used=2, checks_max=5, sends_used=1, sends_max=4)

    assert (3, 3) == (verification.checks_left, verification.sends_left)


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_number_of_its_own(status: Status) -> None:
    assert status is BY_NUMBER[status.number]


def test_the_numbers_of_statuses_are_those_of_the_rows_already_written() -> None:
    """The partial indexes say `status = 0`; a changed number would turn old rows into others."""
    assert [0, 1, 2, 3, 4, 5] == [
        NUMBERS[status]
        for status in (
            Status.PENDING,
            Status.VERIFIED,
            Status.EXPIRED,
            Status.CANCELED,
            Status.LOCKED,
            Status.FAILED,
        )
    ]


def test_a_verification_does_not_change_in_place() -> None:
    verification = make_verification()

    with pytest.raises((AttributeError, FrozenInstanceError)):
        verification.status = Status.VERIFIED  # type: ignore[misc]


def test_codes_have_four_to_ten_digits() -> None:
    assert (4, 10) == (CODE_LENGTHS[0], CODE_LENGTHS[-1])


def test_a_code_lives_one_to_ten_minutes() -> None:
    assert (60, 600) == (TTL_SECONDS[0], TTL_SECONDS[-1])


def test_the_shortest_code_can_still_be_sent() -> None:
    assert MIN_LIFE < TTL_SECONDS[0]
