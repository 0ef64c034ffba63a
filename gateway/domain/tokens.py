"""The verification key: a token that stands for a verification, for callers who store nothing.

One AES-GCM value under the current key of the ring, with the key's id in front: verification id,
index of the recipient and expiry. Only a gateway with that ring can make or read one, an altered
one does not open, and nothing of it is stored.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import b2a_base64
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from gateway.domain.errors import InvalidInput
from gateway.domain.identity import EPOCH
from gateway.domain.keyring import INDEX_BYTES, Keyring, KeyringError

LONGEST = 512  # characters
_VERSION = 1
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_OWNER = b"verification_key"  # what AES-GCM authenticates besides: no other sealed value opens
_PLAIN = 16 + INDEX_BYTES + 6  # bytes: id, index, expiry in milliseconds


class Ticket(NamedTuple):
    """What a verification key says."""

    verification_id: UUID
    recipient_index: bytes
    expires_at: datetime


def issue(keyring: Keyring, ticket: Ticket, nonce: bytes) -> str:
    """The key as URL-safe text. `nonce`: random bytes, never used twice."""
    named, index, expires_at = ticket
    milliseconds = round(expires_at.timestamp() * 1000)
    plain = named.int.to_bytes(16) + index + milliseconds.to_bytes(6)
    sealed = keyring.seal(keyring.current, plain, owner=_OWNER, nonce=nonce)
    raw = _head(keyring.current) + sealed
    return b2a_base64(raw, newline=False).translate(_URL_SAFE, b"=").decode()


@lru_cache(maxsize=64)  # of the keys of a ring
def _head(key_id: str) -> bytes:
    named = key_id.encode()
    return bytes((_VERSION, len(named))) + named


def read(keyring: Keyring, text: str) -> Ticket:
    """What a key says. Raises InvalidInput `verification_key_invalid` when it is not one of ours,
    letter for letter."""
    try:
        plain = _opened(keyring, text)
    except (ValueError, IndexError, KeyringError):
        raise InvalidInput(
            "verification_key_invalid",
            "This is not a verification key of this gateway. Send `verification_key` exactly as "
            "/otp/send answered it.",
        ) from None
    milliseconds = int.from_bytes(plain[16 + INDEX_BYTES :], "big")
    return Ticket(
        UUID(bytes=plain[:16]),
        plain[16 : 16 + INDEX_BYTES],
        EPOCH + timedelta(milliseconds=milliseconds),
    )


def _opened(keyring: Keyring, text: str) -> bytes:
    raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    if urlsafe_b64encode(raw).rstrip(b"=") != text.encode():  # spare bits, padding, odd characters
        raise ValueError("not canonical")
    if raw[0] != _VERSION:
        raise ValueError("another version")
    key_id, sealed = raw[2 : 2 + raw[1]].decode(), raw[2 + raw[1] :]
    plain = keyring.open(key_id, sealed, owner=_OWNER)
    if len(plain) != _PLAIN:
        raise ValueError("another length")
    return plain
