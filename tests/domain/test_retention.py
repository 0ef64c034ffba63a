"""How long things are kept."""

from datetime import timedelta

import pytest
from factories import make_verification
from fakes import START

from gateway.domain import retention
from gateway.domain.retention import LONGEST_LIFE, Retention
from gateway.domain.verification import Status

DAY = timedelta(days=1)
TICK = timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("days", "age", "expected"),
    [
        (30, 30 * DAY + LONGEST_LIFE, False),
        (30, 30 * DAY + LONGEST_LIFE + TICK, True),
        (0, 7 * DAY, False),  # receipts come so late: never less than seven days
        (0, 7 * DAY + LONGEST_LIFE + TICK, True),
    ],
)
def test_a_verification_is_over_by_its_age(days: int, age: timedelta, expected: bool) -> None:
    ended = make_verification(status=Status.VERIFIED)

    assert expected is retention.over(Retention(verifications=days), ended, START + age)


def test_a_verification_whose_end_nobody_wrote_is_over_all_the_same() -> None:
    assert retention.over(Retention(), make_verification(), START + 31 * DAY)


@pytest.mark.parametrize("rule", [retention.over, retention.nameless])
def test_what_runs_is_never_touched(rule) -> None:  # type: ignore[no-untyped-def]
    running = make_verification(expires_at=START + 32 * DAY)

    assert not rule(Retention(7, 0), running, START + 31 * DAY)


def test_addresses_have_a_time_of_their_own() -> None:
    ended = make_verification(status=Status.EXPIRED)
    kept = Retention(verifications=30, recipients=1)
    at = START + DAY + LONGEST_LIFE + TICK

    assert (True, False) == (retention.nameless(kept, ended, at), retention.over(kept, ended, at))


def test_erased_is_without_addresses_parameters_and_code() -> None:
    before = make_verification(params_sealed=b"params", code_sealed=b"code")
    after = retention.erased(before)

    assert (None, None, None) == (after.recipient_sealed, after.params_sealed, after.code_sealed)
    assert before.recipient_index == after.recipient_index
