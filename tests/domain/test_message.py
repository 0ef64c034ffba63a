"""The wording: what it says of validity is never longer than the life left (F46)."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import message
from gateway.domain.catalogue import Catalogue
from gateway.domain.templates import BUILT_IN
from gateway.domain.verification import MIN_LIFE, TTL_SECONDS

CATALOGUE = Catalogue(BUILT_IN, "ACME")

# The life left when a code may be sent, to the millisecond, as it is stored.
lives = st.integers(MIN_LIFE * 1000, TTL_SECONDS[-1] * 1000).map(timedelta(milliseconds=1).__mul__)


def promised(text: str) -> int:
    """The seconds a text promises."""
    found = re.search(r"valid for (\d+) (second|minute)s?\.$", text)
    assert found is not None
    return int(found[1]) * (60 if found[2] == "minute" else 1)


def text_with(life: timedelta) -> str:
    seconds = int(life.total_seconds())
    return CATALOGUE.render("verify", None, "sms", code="012345", seconds=seconds).text


def test_the_text_names_code_brand_and_validity() -> None:
    assert "012345 is your ACME code. It is valid for 4 minutes." == text_with(
        timedelta(seconds=299.9)
    )


@given(lives)
def test_a_text_never_promises_more_life_than_is_left(life: timedelta) -> None:
    assert promised(text_with(life)) <= life.total_seconds()


@given(lives)
def test_a_text_withholds_less_than_a_minute_of_the_life_left(life: timedelta) -> None:
    assert life.total_seconds() - promised(text_with(life)) < 60


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (30, "30 seconds"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (119, "1 minute"),
        (120, "2 minutes"),
        (600, "10 minutes"),
    ],
)
def test_a_span_is_said_in_whole_minutes_or_in_seconds(seconds: int, expected: str) -> None:
    assert expected == message.lifetime(seconds)


@pytest.mark.parametrize("code", ["0000", "012345", "0123456789"])
def test_the_code_is_written_as_it_is_to_be_typed(code: str) -> None:
    text = CATALOGUE.render("verify", None, "sms", code=code, seconds=60).text

    assert text.startswith(f"{code} ")
