"""Time-based one-time passwords, the console's second factor (RFC 6238 over RFC 4226).

SHA-1, six digits, steps of 30 s: what every authenticator app understands.
"""

import hmac
from base64 import b32encode
from datetime import datetime
from urllib.parse import quote, urlencode

STEP = 30  # seconds
DIGITS = 6
SECRET_BYTES = 20  # RFC 4226 §4, R6: 160 bits
DRIFT = 1  # steps that a clock may be off, either way


def code(secret: bytes, step: int) -> str:
    """The code of one step."""
    mac = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    at = mac[-1] & 0xF  # dynamic truncation, RFC 4226 §5.3
    number = int.from_bytes(mac[at : at + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**DIGITS).zfill(DIGITS)


def match(secret: bytes, given: str, now: datetime, used: int | None) -> int | None:
    """The step whose code was given; None when it is wrong or was used before.

    `used`: the newest step that was ever accepted. Nothing up to it is accepted again (§5.2).
    """
    here = int(now.timestamp()) // STEP
    typed = "".join(given.split()).encode()
    for step in range(here - DRIFT, here + DRIFT + 1):
        fits = hmac.compare_digest(code(secret, step).encode(), typed)
        if fits and (used is None or step > used):
            return step
    return None


def spelled(secret: bytes) -> str:
    """The secret as a person types it into an app."""
    return b32encode(secret).decode().rstrip("=")


def address(secret: bytes, name: str, issuer: str) -> str:
    """The `otpauth://` address that an app reads, from a QR code mostly."""
    label = quote(f"{issuer}:{name}", safe="")
    facts = {"secret": spelled(secret), "issuer": issuer}
    return f"otpauth://totp/{label}?{urlencode(facts, quote_via=quote)}"
