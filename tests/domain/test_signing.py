"""Signatures against the reference library, and the schedule of retries."""

from datetime import timedelta

import orjson
import pytest
from fakes import START
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from gateway.domain import signing

OLD, NEW = bytes(range(32)), bytes(range(32, 64))


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_the_reference_library_verifies_with_either_secret(secret: bytes) -> None:
    """The library looks at the time of the day, so this test does too."""
    from datetime import UTC, datetime

    body = orjson.dumps({"type": "verification.sent", "data": {"recipient": "+33 6•• ••• •12"}})
    now = int(datetime.now(UTC).timestamp())  # noqa: TID251
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signing.sign((NEW, OLD), "evt_1", now, body),
    }
    told = Webhook(signing.shown(secret)).verify(body, headers)

    assert orjson.loads(body) == told


def test_a_known_signature() -> None:
    """The vector of the specification's own libraries."""
    secret = signing.read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signing.sign(
        (secret,), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )

    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == made


@given(st.binary(min_size=32, max_size=32))
def test_a_secret_is_read_as_it_was_shown(secret: bytes) -> None:
    assert secret == signing.read(signing.shown(secret))


def test_the_last_try_is_made_a_day_after_the_first() -> None:
    at = START
    tries = 0
    while (again := signing.next_try(tries := tries + 1, at)) is not None:
        at = again

    assert (timedelta(days=1), 11) == (at - START, tries)


def test_the_pauses_are_those_that_are_documented() -> None:
    assert [1, 5, 15, 60, 300, 1800, 7200] == list(signing.PAUSES[:7])


@pytest.mark.parametrize(
    ("asked", "pause"),
    [(None, 5), (0.0, 5), (3.0, 5), (30.0, 30), (1e9, signing.MOST_ASKED)],
)
def test_an_endpoint_may_ask_for_more_time_within_bounds(asked: float | None, pause: float) -> None:
    assert START + timedelta(seconds=pause) == signing.next_try(2, START, retry_after=asked)


@given(st.integers(1, len(signing.PAUSES)), st.floats(0, 1))
def test_jitter_only_lengthens_a_pause_by_a_tenth(tries: int, spread: float) -> None:
    plain = signing.PAUSES[tries - 1]
    at = signing.next_try(tries, START, spread=spread)

    assert at is not None
    assert plain <= (at - START).total_seconds() <= plain * 1.1 + 1e-6


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0", 0.0), (None, None), ("", None), ("-1", None), ("1.5", None), ("²", None),
     ("9" * 10, None), ("Fri, 31 Dec 1999 23:59:59 GMT", None)],
)  # fmt: skip
def test_a_retry_after_that_is_no_number_is_none(value: str | None, seconds: float | None) -> None:
    assert seconds == signing.retry_after(value)


def test_an_endpoint_is_given_up_after_a_day_without_success() -> None:
    day = timedelta(days=1)

    assert not signing.given_up(None, START)
    assert not signing.given_up(START, START + day - timedelta(seconds=1))
    assert signing.given_up(START, START + day)
