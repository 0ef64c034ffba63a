"""Bearer keys: 256 random bits, stored as SHA-256, looked up and held for a few seconds."""

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime

from gateway.domain.errors import Forbidden, Unauthenticated
from gateway.store.reads import Reads
from gateway.store.records import ApiKey
from gateway.web.edge import Call

SCOPES = ("send", "verify", "status", "operate", "text")
PREFIX = "otp_live_"
_HELD = 5.0  # seconds until a key is looked up again: how long a revoked one may still work
_MOST = 10_000


def new_key() -> str:
    """A key, shown once."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> bytes:
    """What is stored of it."""
    return hashlib.sha256(key.encode()).digest()


class Keys:
    """The keys of the callers."""

    def __init__(
        self, reads: Reads, now: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        self._reads = reads
        self._now = now
        self._monotonic = monotonic
        self._held: dict[str, tuple[float, ApiKey]] = {}

    def caller(self, call: Call, scope: str) -> ApiKey:
        """The key of a call, if it allows `scope`. Raises Unauthenticated or Forbidden."""
        header = call.header(b"authorization") or ""
        held = self._held.get(header)
        fresh = held is not None and self._monotonic() < held[0]
        key = held[1] if held is not None and fresh else self._look_up(header)
        if scope not in key.scopes.split():
            raise Forbidden(
                "scope_missing",
                f"This key does not allow it: it needs the scope `{scope}`.",
                facts={"scope": scope},
            )
        return key

    def _look_up(self, header: str) -> ApiKey:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                "key_missing", "Send the API key as `Authorization: Bearer <key>`."
            )
        key = self._reads.api_key(digest(token.strip()))
        now = self._now()
        expired = key is not None and key.expires_at is not None and key.expires_at <= now
        if key is None or key.revoked_at is not None or expired:
            raise Unauthenticated(
                "key_unknown",
                "This API key is not known, revoked or expired. `gateway client add` makes one.",
            )
        if len(self._held) >= _MOST:
            self._held.clear()
        self._held[header] = (self._monotonic() + _HELD, key)
        return key
