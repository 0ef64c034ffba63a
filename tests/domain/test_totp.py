"""The second factor, by the vectors of RFC 6238 and RFC 4226."""

from datetime import UTC, datetime

import pytest

from gateway.domain import totp

SECRET = b"12345678901234567890"  # of both appendices
NOW = datetime(2026, 11, 21, 12, 0, 10, tzinfo=UTC)
HERE = int(NOW.timestamp()) // 30


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_the_vectors_of_rfc_6238_in_six_digits(seconds: int, code: str) -> None:
    assert code == totp.code(SECRET, seconds // 30)


@pytest.mark.parametrize(
    ("count", "code"), [(0, "755224"), (1, "287082"), (5, "254676"), (9, "520489")]
)
def test_the_vectors_of_rfc_4226(count: int, code: str) -> None:
    assert code == totp.code(SECRET, count)


@pytest.mark.parametrize("drift", [-1, 0, 1])
def test_a_clock_may_be_one_step_off(drift: int) -> None:
    assert HERE + drift == totp.match(SECRET, totp.code(SECRET, HERE + drift), NOW, None)


@pytest.mark.parametrize("drift", [-2, 2])
def test_two_steps_are_too_many(drift: int) -> None:
    assert totp.match(SECRET, totp.code(SECRET, HERE + drift), NOW, None) is None


@pytest.mark.parametrize("used", [HERE, HERE + 1])
def test_a_used_step_and_those_before_it_are_not_taken_again(used: int) -> None:
    assert totp.match(SECRET, totp.code(SECRET, HERE), NOW, used) is None


def test_blanks_between_the_digits_do_not_matter() -> None:
    code = totp.code(SECRET, HERE)

    assert HERE == totp.match(SECRET, f" {code[:3]} {code[3:]} ", NOW, HERE - 1)


@pytest.mark.parametrize("given", ["", "12345", "abcdef", "١٢٣٤٥٦", "0000000"])
def test_anything_else_is_wrong(given: str) -> None:
    assert totp.match(SECRET, given, NOW, None) is None


def test_an_app_reads_the_secret_from_an_address() -> None:
    expected = "otpauth://totp/OTP%20gateway%3Aalice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

    assert f"{expected}&issuer=OTP%20gateway" == totp.address(SECRET, "alice", "OTP gateway")
