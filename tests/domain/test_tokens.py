"""Verification keys: what goes in comes out, and nothing else does."""

from datetime import timedelta
from uuid import UUID

import pytest
from fakes import START

from gateway.domain import tokens
from gateway.domain.errors import InvalidInput
from gateway.domain.keyring import Keyring
from gateway.domain.tokens import Ticket

TICKET = Ticket(
    UUID("01a1fdfa-4600-75a6-9208-30f59d87b709"), b"recipient-index!", START + timedelta(minutes=5)
)
NONCE = bytes(range(12))
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def ring(current: str = "k1", **more: bytes) -> Keyring:
    return Keyring(current, {"k1": b"1" * 32, **more}, b"i" * 32)


def refused(keyring: Keyring, text: str) -> bool:
    with pytest.raises(InvalidInput) as error:
        tokens.read(keyring, text)
    return error.value.code == "verification_key_invalid"


def test_a_key_says_what_it_was_made_of() -> None:
    assert TICKET == tokens.read(ring(), tokens.issue(ring(), TICKET, NONCE))


def test_a_key_fits_into_a_url_and_shows_nothing() -> None:
    text = tokens.issue(ring(), TICKET, NONCE)

    assert set(text) <= set(LETTERS)
    assert len(text) <= 128
    assert TICKET.verification_id.hex not in text


def test_an_older_key_of_the_ring_is_read_after_a_rotation() -> None:
    text = tokens.issue(ring(), TICKET, NONCE)

    assert TICKET == tokens.read(ring("k2", k2=b"2" * 32), text)


def test_another_ring_is_refused() -> None:
    text = tokens.issue(ring(), TICKET, NONCE)

    assert refused(Keyring("k1", {"k1": b"x" * 32}, b"i" * 32), text)
    assert refused(Keyring("k9", {"k9": b"1" * 32}, b"i" * 32), text)


def test_no_letter_of_it_may_be_another() -> None:
    text = tokens.issue(ring(), TICKET, NONCE)
    for at, letter in enumerate(text):
        other = LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)]

        assert refused(ring(), text[:at] + other + text[at + 1 :])


def test_no_part_of_it_is_enough() -> None:
    text = tokens.issue(ring(), TICKET, NONCE)

    assert all(refused(ring(), text[:size]) for size in range(len(text)))


@pytest.mark.parametrize("odd", ["=", "==", " ", "\n", "A", "é", "+"])
def test_nothing_may_follow_it(odd: str) -> None:
    assert refused(ring(), tokens.issue(ring(), TICKET, NONCE) + odd)


def test_another_sealed_value_of_the_ring_is_no_key() -> None:
    """What a row holds, put where a key is expected: authenticated with another owner."""
    from base64 import urlsafe_b64encode

    plain = bytes(16 + 16 + 6)
    sealed = ring().seal("k1", plain, owner=bytes(16), nonce=NONCE)
    text = urlsafe_b64encode(b"\x01\x02k1" + sealed).rstrip(b"=").decode()

    assert refused(ring(), text)
