"""A key pair for whoever signs with RSA in a test: made when first asked for, never stored."""

import functools
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.ports import Secret


@dataclass(frozen=True)
class KeyPair:
    """Both halves in PEM."""

    private: Secret
    public: str = field(repr=False)


def key_pair(name: str = "application") -> KeyPair:
    """The one of this name, the same for the whole run."""
    return _made(name)


@functools.cache
def _made(name: str) -> KeyPair:
    # Loading a key checks it, which takes seven times as long for one of 2048 bits.
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 (of no value)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return KeyPair(Secret(private.decode()), public.decode())
