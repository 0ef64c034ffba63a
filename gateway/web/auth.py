"""Bearer keys: 256 random bits, stored as SHA-256, looked up and held for a few seconds."""

import hashlib
import secrets
from collections.abc import Callable
from uuid import UUID

from gateway.domain import bucket
from gateway.domain.bucket import Bucket
from gateway.domain.errors import Forbidden, Limited, Unauthenticated
from gateway.services.runtime import Runtime
from gateway.store.records import ApiKey
from gateway.web.edge import Call

SCOPES = ("send", "verify", "status", "operate", "text")
LIVE, TEST = "otp_live_", "otp_test_"  # what keys begin with, for people to tell them apart
_HELD = 5.0  # seconds until a key is looked up again: how long a revoked one may still work
_MOST = 10_000


def new_key(*, test: bool = False) -> str:
    """A key, shown once."""
    return (TEST if test else LIVE) + secrets.token_urlsafe(32)


def digest(key: str) -> bytes:
    """What is stored of it."""
    return hashlib.sha256(key.encode()).digest()


class Keys:
    """The keys of the callers. Rates are counted here, so by each process on its own."""

    def __init__(self, runtime: Runtime, monotonic: Callable[[], float]) -> None:
        self._reads = runtime.reads
        self._now = runtime.now
        self._used = runtime.used_keys
        self._monotonic = monotonic
        self._held: dict[str, tuple[float, ApiKey, frozenset[str]]] = {}
        self._buckets: dict[UUID, Bucket] = {}

    async def caller(self, call: Call, scope: str) -> ApiKey:
        """The key of a call, if it allows `scope`. Raises Unauthenticated, Forbidden, or Limited
        `key_rate`."""
        header = call.header(b"authorization") or ""
        held = self._held.get(header)
        if held is None or self._monotonic() >= held[0]:
            held = await self._look_up(header)
        _, key, scopes = held
        if scope not in scopes:
            raise Forbidden(
                "scope_missing",
                f"This key does not allow it: it needs the scope `{scope}`.",
                facts={"scope": scope},
            )
        if key.rate is not None:
            self._take(key.id, key.rate)
        return key

    def _take(self, key_id: UUID, rate: float) -> None:
        after, wait = bucket.take(self._buckets.get(key_id), rate, self._monotonic())
        self._buckets[key_id] = after
        if wait > 0:
            calls = "call" if rate == 1 else "calls"
            raise Limited(
                "key_rate",
                f"This key may make {rate:g} {calls} a second. Send it again in a moment.",
                retry_after=wait,
                facts={"rule": "key_rate", "limit": rate, "window": 1},
            )

    async def _look_up(self, header: str) -> tuple[float, ApiKey, frozenset[str]]:
        """A key as it is held: until when, and what it allows."""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                "key_missing", "Send the API key as `Authorization: Bearer <key>`."
            )
        key = await self._reads.api_key(digest(token.strip()))
        now = self._now()
        expired = key is not None and key.expires_at is not None and key.expires_at <= now
        if key is None or key.revoked_at is not None or expired:
            raise Unauthenticated(
                "key_unknown",
                "This API key is not known, revoked or expired. `gateway client add` makes one.",
            )
        if len(self._held) >= _MOST:
            self._held.clear()
        held = self._monotonic() + _HELD, key, frozenset(key.scopes.split())
        self._held[header] = held
        self._used[key.id] = now
        return held
