"""Codes, sealed values, callback tokens and blind indexes."""

import hmac
import string
from collections import Counter
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.keyring import (
    INDEX_BYTES,
    KEY_BYTES,
    NONCE_BYTES,
    Keyring,
    KeyringError,
    Mac,
)

ONE, TWO, INDEX = b"1" * KEY_BYTES, b"2" * KEY_BYTES, b"i" * KEY_BYTES
RING = Keyring("k1", {"k1": ONE}, INDEX)
ROTATED = Keyring("k2", {"k1": ONE, "k2": TWO}, INDEX)
OTHERS = Keyring("k1", {"k1": TWO}, INDEX)
NAMED = UUID("01900000-0000-7000-8000-000000000001")
SALT, NONCE, OWNER = b"saltsalt", b"n" * NONCE_BYTES, b"row"
ALPHABET = string.ascii_letters + string.digits + "-_"

ids = st.uuids()
lengths = st.integers(4, 10)


# Codes.


@given(ids, st.binary(min_size=8, max_size=8), lengths)
def test_a_code_is_always_the_same_for_one_verification(
    named: UUID, salt: bytes, length: int
) -> None:
    assert RING.code("k1", named, salt, length) == RING.code("k1", named, salt, length)


@given(ids, lengths)
def test_a_code_has_as_many_digits_as_asked_for(named: UUID, length: int) -> None:
    code = RING.code("k1", named, SALT, length)

    assert (length, set()) == (len(code), set(code) - set(string.digits))


def test_leading_zeros_are_part_of_a_code() -> None:
    codes = [RING.code("k1", UUID(int=number), SALT, 4) for number in range(200)]

    assert {4} == {len(code) for code in codes if code.startswith("0")}


def test_every_digit_comes_up_as_often_at_every_place() -> None:
    """Six thousand codes: a quarter more or less than its share is six standard deviations."""
    codes = [RING.code("k1", UUID(int=number), SALT, 10) for number in range(6000)]
    counts = [Counter(code[at] for code in codes) for at in range(10)]

    assert all(450 < counts[at][digit] < 750 for at, digit in product(range(10), string.digits))


@pytest.mark.parametrize(
    "other",
    [
        OTHERS.code("k1", NAMED, SALT, 10),
        ROTATED.code("k2", NAMED, SALT, 10),
        RING.code("k1", NAMED, b"othersal", 10),
        RING.code("k1", UUID(int=NAMED.int + 1), SALT, 10),
    ],
    ids=["key", "current key", "salt", "verification"],
)
def test_another_key_salt_or_verification_gives_another_code(other: str) -> None:
    assert RING.code("k1", NAMED, SALT, 10) != other


def test_a_code_outlives_the_rotation_of_its_key() -> None:
    assert RING.code("k1", NAMED, SALT, 6) == ROTATED.code("k1", NAMED, SALT, 6)


def test_a_shorter_code_of_the_same_verification_is_its_last_digits() -> None:
    assert RING.code("k1", NAMED, SALT, 10)[-6:] == RING.code("k1", NAMED, SALT, 6)


def test_a_code_under_a_key_that_is_gone_is_said_so() -> None:
    with pytest.raises(KeyringError, match="no key 'k9'"):
        RING.code("k9", NAMED, SALT, 6)


# Sealed values.


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=16))
def test_what_was_sealed_opens_for_its_owner(plain: bytes, owner: bytes) -> None:
    sealed = RING.seal("k1", plain, owner=owner, nonce=NONCE)

    assert plain == RING.open("k1", sealed, owner=owner)


def test_a_sealed_value_opens_for_no_other_row() -> None:
    sealed = RING.seal("k1", b"+33612345678", owner=OWNER, nonce=NONCE)

    with pytest.raises(KeyringError, match="does not open"):
        RING.open("k1", sealed, owner=b"another row")


def test_a_sealed_value_opens_under_no_other_key() -> None:
    sealed = RING.seal("k1", b"+33612345678", owner=OWNER, nonce=NONCE)

    with pytest.raises(KeyringError, match="does not open"):
        OTHERS.open("k1", sealed, owner=OWNER)


def test_a_sealed_value_opens_after_the_rotation_of_its_key() -> None:
    sealed = RING.seal("k1", b"+33612345678", owner=OWNER, nonce=NONCE)

    assert b"+33612345678" == ROTATED.open("k1", sealed, owner=OWNER)


SEALED = RING.seal("k1", b"+33612345678", owner=OWNER, nonce=NONCE)


@pytest.mark.parametrize("at", range(len(SEALED)))
def test_an_altered_byte_is_refused(at: int) -> None:
    altered = SEALED[:at] + bytes([SEALED[at] ^ 1]) + SEALED[at + 1 :]

    with pytest.raises(KeyringError, match="does not open"):
        RING.open("k1", altered, owner=OWNER)


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_a_shortened_value_is_refused(length: int) -> None:
    with pytest.raises(KeyringError, match="does not open"):
        RING.open("k1", SEALED[:length], owner=OWNER)


def test_a_value_sealed_under_a_key_that_is_gone_is_said_so() -> None:
    with pytest.raises(KeyringError, match="no key 'k9'"):
        RING.open("k9", SEALED, owner=OWNER)


def test_a_sealed_value_does_not_show_what_is_in_it() -> None:
    assert b"612345" not in SEALED


def test_two_nonces_seal_one_value_differently() -> None:
    other = RING.seal("k1", b"+33612345678", owner=OWNER, nonce=b"m" * NONCE_BYTES)

    assert SEALED[NONCE_BYTES:] != other[NONCE_BYTES:]


# Callback tokens.


@given(ids)
def test_a_token_names_its_attempt(named: UUID) -> None:
    assert named == RING.attempt_of(RING.token(named))


def test_a_token_is_fit_for_a_path() -> None:
    assert set() == set(RING.token(NAMED)) - set(ALPHABET)


def test_a_token_of_the_older_key_is_still_read() -> None:
    assert NAMED == ROTATED.attempt_of(RING.token(NAMED))


def test_a_new_token_is_made_with_the_current_key() -> None:
    assert ROTATED.token(NAMED) == Keyring("k2", {"k2": TWO}, INDEX).token(NAMED)


def test_a_token_of_a_key_that_is_gone_is_nobody_s() -> None:
    assert OTHERS.attempt_of(RING.token(NAMED)) is None


def test_a_token_with_any_one_character_changed_is_nobody_s() -> None:
    token = RING.token(NAMED)
    altered = [
        token[:at] + other + token[at + 1 :]
        for at in range(len(token))
        for other in ALPHABET
        if other != token[at]
    ]

    assert [] == [one for one in altered if RING.attempt_of(one) is not None]


@pytest.mark.parametrize("at", [0, 21, 42])
def test_a_token_with_a_character_of_no_token_is_nobody_s(at: int) -> None:
    token = RING.token(NAMED)

    assert RING.attempt_of(f"{token[:at]}!{token[at + 1 :]}") is None


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "A", lambda t: t + "="])
def test_a_token_of_another_length_is_nobody_s(change: object) -> None:
    assert callable(change)
    assert RING.attempt_of(change(RING.token(NAMED))) is None


@pytest.mark.parametrize(
    "text",
    ["", "A" * 43, "=" * 43, "!" * 43, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 43, "\0" * 43],
)
def test_what_is_no_token_is_nobody_s(text: str) -> None:
    assert RING.attempt_of(text) is None


@given(st.text(max_size=50))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    assert RING.attempt_of(text) is None


# The blind index.


def test_equal_addresses_have_equal_indexes() -> None:
    assert RING.index("phone", "+33612345678") == RING.index("phone", "+33612345678")


@pytest.mark.parametrize(
    "other",
    [
        RING.index("phone", "+33612345679"),
        RING.index("email", "+33612345678"),
        Keyring("k1", {"k1": ONE}, TWO).index("phone", "+33612345678"),
    ],
    ids=["address", "kind", "index key"],
)
def test_another_address_kind_or_index_key_gives_another_index(other: bytes) -> None:
    assert RING.index("phone", "+33612345678") != other


def test_kind_and_address_do_not_run_into_each_other() -> None:
    assert RING.index("phone", "1") != RING.index("phon", "e1")


def test_the_index_does_not_rotate_with_the_keys() -> None:
    """Else limits, joins and searches of one number would be split in two."""
    assert RING.index("phone", "+33612345678") == ROTATED.index("phone", "+33612345678")


def test_an_index_is_short() -> None:
    assert INDEX_BYTES == len(RING.index("phone", "+33612345678"))


# The ring itself.


def test_the_current_key_must_be_on_the_ring() -> None:
    with pytest.raises(KeyringError, match="'k2' is not among the keys"):
        Keyring("k2", {"k1": ONE}, INDEX)


@pytest.mark.parametrize(
    ("key", "index"), [(b"", INDEX), (b"1" * 31, INDEX), (b"1" * 33, INDEX), (ONE, b"i" * 16)]
)
def test_every_key_has_its_full_length(key: bytes, index: bytes) -> None:
    with pytest.raises(KeyringError, match="32 bytes"):
        Keyring("k1", {"k1": key}, index)


def test_the_ring_tells_the_names_of_its_keys() -> None:
    assert ("k1", "k2") == ROTATED.names


def test_the_ring_does_not_show_its_keys() -> None:
    assert "1111" not in repr(RING)


def test_code_seal_and_token_come_from_different_keys() -> None:
    """One derived key, not the key itself and not one for all: an oracle for one is none for
    another."""
    said = {RING._code["k1"].digest(b""), RING._token["k1"].digest(b""), Mac(ONE).digest(b"")}

    assert 3 == len(said)


@given(key=st.binary(min_size=1, max_size=64), message=st.binary(max_size=200))
def test_our_mac_is_hmac_sha_256(key: bytes, message: bytes) -> None:
    assert hmac.digest(key, message, "sha256") == Mac(key).digest(message)
