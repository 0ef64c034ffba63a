"""The keys of the gateway and what is done with them.

One ring of named keys, one of them current: new rows are written under it, old rows are read under
the key they name. From each key three are derived: one makes codes, one seals values, one signs
callback tokens. The index key stands apart and does not rotate with them: two index values for one
number would split limits, joins and searches.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import TypeVar
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
SALT_BYTES = 8
INDEX_BYTES = 16
SEAL_BYTES = NONCE_BYTES + 16  # what sealing adds: the nonce and the tag
_MAC_BYTES = 16
_BLOCK_BYTES = 64  # of SHA-256; our keys are shorter
_IPAD = bytes(byte ^ 0x36 for byte in range(256))
_OPAD = bytes(byte ^ 0x5C for byte in range(256))

T = TypeVar("T")


class Mac:
    """HMAC-SHA-256 (RFC 2104) under one key, its two key blocks hashed once: half of hmac.digest's
    price, which is paid three times for every message."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = sha256(padded.translate(_IPAD))
        self._outer = sha256(padded.translate(_OPAD))

    def digest(self, message: bytes) -> bytes:
        """32 bytes."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


class KeyringError(Exception):
    """A value names a key that the ring does not hold, or does not open under it."""


class _Keys(dict[str, T]):
    """What is made of each key, by the key's name."""

    def __missing__(self, key_id: str) -> T:
        raise KeyringError(f"the keyring holds no key {key_id!r}")


class Keyring:
    """Named keys, ready for use. Randomness (nonces, salts) comes in as arguments."""

    def __init__(self, current: str, keys: Mapping[str, bytes], index_key: bytes) -> None:
        if current not in keys:
            raise KeyringError(f"the current key {current!r} is not among the keys")
        if any(len(key) != KEY_BYTES for key in (*keys.values(), index_key)):
            raise KeyringError(f"every key must have {KEY_BYTES} bytes")
        self.current = current
        self.names = tuple(keys)
        self._code = _Keys({name: Mac(_derive(key, b"code")) for name, key in keys.items()})
        self._seal = _Keys({name: AESGCM(_derive(key, b"seal")) for name, key in keys.items()})
        self._token = _Keys({name: Mac(_derive(key, b"token")) for name, key in keys.items()})
        self._index = Mac(index_key)

    def code(self, key_id: str, verification_id: UUID, salt: bytes, length: int) -> str:
        """The code of a verification: always the same digits, and nowhere stored."""
        digest = self._code[key_id].digest(verification_id.int.to_bytes(16) + salt)
        return str(int.from_bytes(digest[:8], "big") % 10**length).zfill(length)

    def seal(self, key_id: str, plain: bytes, *, owner: bytes, nonce: bytes) -> bytes:
        """Encrypt a value for the row `owner`: moved to another row it does not open."""
        return nonce + self._seal[key_id].encrypt(nonce, plain, owner)

    def open(self, key_id: str, sealed: bytes, *, owner: bytes) -> bytes:
        """Decrypt what `seal` made. Raises KeyringError."""
        box = self._seal[key_id]
        try:
            return box.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], owner)
        except (InvalidTag, ValueError):
            raise KeyringError(f"a value does not open under key {key_id!r}") from None

    def index(self, kind: str, address: str) -> bytes:
        """The blind index of an address: equal addresses meet, and nobody reads them back."""
        return self._index.digest(f"{kind}\0{address}".encode())[:INDEX_BYTES]

    def fingerprint(self, *parts: bytes) -> bytes:
        """Equal parts meet, and nobody reads them back: a keyed hash that does not rotate."""
        digest = sha256()
        for part in parts:
            digest.update(len(part).to_bytes(4, "big") + part)
        return self._index.digest(b"fingerprint" + digest.digest())[:INDEX_BYTES]

    def token(self, attempt_id: UUID) -> str:
        """The last segment of an attempt's own callback URL: names it and proves our hand."""
        mac = self._token[self.current].digest(attempt_id.bytes)[:_MAC_BYTES]
        return urlsafe_b64encode(attempt_id.bytes + mac).rstrip(b"=").decode()

    def attempt_of(self, token: str) -> UUID | None:
        """The attempt a callback token names, None when it is not one of ours."""
        if len(token) != 43 or not token.isascii():
            return None
        try:
            raw = urlsafe_b64decode(token + "=")
        except ValueError:
            return None
        if urlsafe_b64encode(raw).rstrip(b"=") != token.encode():  # the last character's spare bits
            return None
        named, mac = raw[:16], raw[16:]
        for key in self._token.values():
            if hmac.compare_digest(key.digest(named)[:_MAC_BYTES], mac):
                return UUID(bytes=named)
        return None


def _derive(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"otp-gateway/" + purpose, "sha256")
