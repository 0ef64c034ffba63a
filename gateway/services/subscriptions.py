"""What a client does with its subscriptions: add, list, rotate, replay, test, remove.

Each deed is a value for the outbox first, so that the API (through the ledger) and the command line
(in a transaction of its own, beside a running gateway) do the same.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from gateway.domain import signing
from gateway.domain.errors import Conflict, InvalidInput, NotFound
from gateway.domain.events import KINDS
from gateway.domain.identity import uuid7
from gateway.domain.keyring import NONCE_BYTES, Keyring
from gateway.services.notify import Change, Notifier, Tried, secrets_of
from gateway.store.ledger import Ledger
from gateway.store.outbox import (
    Disabled,
    Enabled,
    OutboxReads,
    Removed,
    Replayed,
    Rotated,
    Subscription,
)

MOST = 20  # of one client: each costs a row for every event of its
_URL_LENGTH = 2048
_PAGE = 500  # verifications replayed at once
_OLDER = timedelta(days=1)  # how long before `since` a verification may have begun

_OLDEST = timedelta(days=3650)  # nothing is kept longer

Entropy = Callable[[int], bytes]
Allows = Callable[[str, str], str | None]  # scheme and host → why a webhook may not go there


def check_url(url: str, allows: Allows) -> str:
    """The URL. Raises InvalidInput `bad_url`. Where it leads is judged again at each call."""
    parts = _split(url)
    problem = "it is not an address like https://example.com/hooks"
    if parts is not None and parts.hostname:
        problem = allows(parts.scheme, parts.hostname) or ""
        if parts.username or parts.password:
            problem = "it holds credentials; webhooks are signed instead"
        elif parts.fragment:
            problem = "it has a fragment, which is never sent"
    if problem:
        raise InvalidInput("bad_url", f"A webhook cannot go to this URL: {problem}.")
    return url


def _split(url: str) -> SplitResult | None:
    """None for what cannot be a URL as it stands."""
    if len(url) > _URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds in their usual order; none given means all. Raises InvalidInput `unknown_kind`."""
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        known = ", ".join(KINDS)
        raise InvalidInput("unknown_kind", f"There is no such kind of event. There are: {known}.")
    return tuple(kind for kind in KINDS if not kinds or kind in kinds)


def new(
    keyring: Keyring,
    client_id: UUID,
    url: str,
    kinds: Sequence[str],
    *,
    now: datetime,
    entropy: Entropy,
) -> tuple[Subscription, str]:
    """A subscription and its secret, shown this once."""
    named, secret = uuid7(now, entropy(10)), entropy(signing.SECRET_BYTES)
    sealed = _sealed(keyring, named, secret, entropy)
    made = Subscription(named, client_id, url, " ".join(kinds), sealed, keyring.current, now)
    return made, signing.shown(secret)


def rotate(
    keyring: Keyring, current: Subscription, *, now: datetime, entropy: Entropy
) -> tuple[Rotated, str]:
    """Another secret, shown this once; the current one goes on signing for a day."""
    secret = entropy(signing.SECRET_BYTES)
    before = secrets_of(keyring, current, now)[0]
    sealed = _sealed(keyring, current.id, secret + before, entropy)
    return Rotated(current.id, sealed, keyring.current, now), signing.shown(secret)


def _sealed(keyring: Keyring, named: UUID, secrets: bytes, entropy: Entropy) -> bytes:
    owner = b"subscription" + named.bytes
    return keyring.seal(keyring.current, secrets, owner=owner, nonce=entropy(NONCE_BYTES))


async def replay(
    reads: OutboxReads, current: Subscription, since: datetime | None, now: datetime
) -> AsyncGenerator[list[Any]]:
    """What has to be done for it, in portions: what was given up is due again, a disabled
    subscription starts anew, and with `since` everything from then on is sent once more."""
    yield [Enabled(current.id, now)]
    if since is None:
        return
    since = max(since, now - _OLDEST)
    after = uuid7(since - _OLDER, bytes(10))
    while named := await reads.since(current.client_id, since, after, _PAGE):
        yield await _replayed(reads, current, named, since, now)
        after = named[-1]


async def _replayed(
    reads: OutboxReads,
    current: Subscription,
    verifications: Sequence[UUID],
    since: datetime,
    now: datetime,
) -> list[Replayed]:
    kinds = current.kinds.split()
    found: dict[UUID, list[int]] = {}
    for event in await reads.events(verifications):
        if event.kind in kinds and event.created_at >= since:
            found.setdefault(event.verification_id, []).append(event.sequence)
    return [
        Replayed(named, current.id, sequences[0], sequences[-1], now)
        for named, sequences in found.items()
    ]


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """The subscriptions of the running gateway."""

    ledger: Ledger
    reads: OutboxReads
    keyring: Keyring
    notifier: Notifier
    allows: Allows
    now: Callable[[], datetime]
    entropy: Entropy

    async def add(
        self, client_id: UUID, url: str, kinds: Sequence[str]
    ) -> tuple[Subscription, str]:
        """A new one with its secret. Raises InvalidInput, Conflict `too_many_subscriptions`."""
        check_url(url, self.allows)
        wanted = check_kinds(kinds)
        if len(await self.mine(client_id)) >= MOST:
            problem = f"A client may have {MOST} subscriptions. Remove one first."
            raise Conflict("too_many_subscriptions", problem)
        now, entropy = self.now(), self.entropy
        made, secret = new(self.keyring, client_id, url, wanted, now=now, entropy=entropy)
        await self._change(made)
        return made, secret

    async def mine(self, client_id: UUID) -> list[Subscription]:
        """A client's own, oldest first."""
        return [one for one in await self.reads.subscriptions() if one.client_id == client_id]

    async def one(self, client_id: UUID, named: UUID | None) -> Subscription:
        """One of them. Raises NotFound `subscription_not_found`."""
        for one in await self.mine(client_id):
            if one.id == named:
                return one
        problem = "This client has no such subscription. GET /otp/subscriptions lists them."
        raise NotFound("subscription_not_found", problem)

    async def remove(self, current: Subscription) -> None:
        """It, and all that waits for it."""
        await self._change(Removed(current.id))

    async def disable(self, current: Subscription, why: str) -> None:
        """Stop it until it is replayed; what waits for it stays."""
        await self._change(Disabled(current.id, self.now(), why))

    async def rotate(self, current: Subscription) -> str:
        """Its new secret."""
        changed, secret = rotate(self.keyring, current, now=self.now(), entropy=self.entropy)
        await self._change(changed)
        return secret

    async def replay(self, current: Subscription, since: datetime | None) -> int:
        """Start it anew; how many verifications' events are sent once more because of `since`."""
        count = 0
        async for portion in replay(self.reads, current, since, self.now()):
            await self._change(*portion)
            count += sum(isinstance(one, Replayed) for one in portion)
        await self.notifier.run_once(self.now())
        return count

    async def test(self, current: Subscription) -> Tried:
        """What its endpoint does with a test event."""
        return await self.notifier.test(current)

    async def _change(self, *changes: Any) -> None:
        await self.ledger.submit(Change(changes))
        await self.notifier.refresh()
