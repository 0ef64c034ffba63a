"""Answers to `/otp/status`, kept for as long as they are true.

Callers ask again and again until something happens. An answer follows from the rows of one
verification, for which its `version` stands (no write leaves it as it was; waiting and the ledger's
memory go by it, too), from the routes that are shut, and from the time, whose next say the story
knows. The version is read for every call: what another process has written, or deleted, is seen.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from gateway.domain import explanation
from gateway.domain.health import Shut
from gateway.services.case import addresses_of
from gateway.services.runtime import Runtime
from gateway.web import bodies

_MOST = 2048  # answers kept, of 1.5 kB as a rule


class _Kept(NamedTuple):
    version: int
    shut: Shut
    until: datetime | None
    client_id: UUID
    body: bytes


class Statuses:
    """The answers of one process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._kept: dict[int, _Kept] = {}  # by the id's number, which is hashed in C

    async def body(self, named: UUID, client: UUID | None) -> bytes | None:
        """The status of a verification as JSON; None when it is not that client's (None: every
        client's), or is not at all."""
        kept = self._kept.get(named.int)
        if kept is None or not await self._true(kept, named):
            kept = await self._made(named)
        if kept is None or (client is not None and client != kept.client_id):
            return None
        return kept.body

    async def _true(self, kept: _Kept, named: UUID) -> bool:
        runtime = self._runtime
        return (
            kept.version == await runtime.reads.version(named)
            and (kept.until is None or runtime.now() < kept.until)
            and kept.shut == runtime.standing.shut
        )

    async def _made(self, named: UUID) -> _Kept | None:
        runtime = self._runtime
        self._kept.pop(named.int, None)
        record = await runtime.reads.record(named)
        if record is None:
            return None
        current, now, shut = record.verification, runtime.now(), runtime.standing.shut
        story = explanation.story(record.plan, current, record.attempts, now, shut=shut)
        shown = bodies.told(record, addresses_of(runtime.keyring, current), story, now)
        made = _Kept(current.version, shut, story.until, current.client_id, bodies.dumps(shown))
        if story.until is None or now < story.until:
            if len(self._kept) >= _MOST:
                del self._kept[next(iter(self._kept))]
            self._kept[named.int] = made
        return made
