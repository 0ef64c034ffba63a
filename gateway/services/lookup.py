"""Finding verifications for a person, and counting for the live view: on the desk, never in the
loop that serves callers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from gateway.domain import addresses, identity, recipient
from gateway.domain.errors import InvalidInput
from gateway.domain.keyring import Keyring
from gateway.domain.verification import Status, Verification
from gateway.store import support
from gateway.store.desk import Desk
from gateway.store.engine import Engine
from gateway.store.reads import Reads
from gateway.store.support import Minute, Queue

MINUTES = 60  # that the live view shows
SETTLED = timedelta(minutes=20)  # a minute so long ago has its outcomes; it is not counted again
OVERDUE = timedelta(seconds=10)  # a worker should have seen it by now
STUCK = timedelta(seconds=30)
_FOUND = 20  # verifications of one reference that are listed
_FRESH = timedelta(seconds=4)  # how long a count serves everybody who looks
_RECENT = timedelta(minutes=3)
_AGAIN = timedelta(minutes=1)  # between two counts of a minute longer ago than that


@dataclass(frozen=True, slots=True)
class Found:
    """What a search was for, in words that hold no number, and what it found: newest first."""

    kind: str
    what: str
    verifications: tuple[Verification, ...]

    @property
    def best(self) -> Verification | None:
        """The one most likely meant: what is running, else the newest."""
        running = [one for one in self.verifications if one.status is Status.PENDING]
        return next(iter([*running, *self.verifications]), None)


async def search(desk: Desk, keyring: Keyring, region: str | None, text: str) -> Found:
    """By id, by a client's reference, or by number or e-mail address in any
    spelling."""
    text = text.strip()
    named = identity.parse(text)

    async def work(engine: Engine) -> Found:
        reads = Reads(engine)

        async def found(kind: str, what: str, ids: list[UUID]) -> Found:
            records = await reads.records(ids, log=False)
            return Found(kind, what, tuple(one.verification for one in records))

        if named is not None:
            return await found("id", str(named), [named])
        ids = await reads.by_reference(None, text, _FOUND) if 0 < len(text) <= 128 else []
        if ids:
            return await found("reference", recipient.redact(text), ids)
        kind = addresses.EMAIL if "@" in text else addresses.PHONE
        try:
            address = addresses.parse(kind, text, region)
        except InvalidInput:
            return await found("nothing", addresses.mask(recipient.redact(text))[:60], [])
        index = keyring.index(*addresses.indexed(address))
        what = addresses.mask(address.text)
        return await found("address", what, await reads.by_number(None, index, _FOUND))

    return await desk.read(work)


@dataclass(frozen=True, slots=True)
class View:
    """The whole gateway at a glance. The newest minute is the last and is still running."""

    at: datetime
    minutes: tuple[Minute, ...]
    queue: Queue


@dataclass
class Overview:
    """The live view, counted no more often than it changes, however many look."""

    desk: Desk
    now: Callable[[], datetime]
    _minutes: dict[datetime, tuple[datetime, Minute]] = field(default_factory=dict)
    _view: View | None = None

    async def look(self) -> View:
        """As of now, or of the last few seconds."""
        now = self.now()
        if self._view is None or now - self._view.at >= _FRESH:
            self._view = await self.desk.read(lambda engine: self._count(engine, now))
        return self._view

    async def _count(self, engine: Engine, now: datetime) -> View:
        newest = now.replace(second=0, microsecond=0)
        minutes = [newest - timedelta(minutes=back) for back in range(MINUTES)][::-1]
        kept = {}
        for at in minutes:
            known = self._minutes.get(at)
            if known is None or _stale(at, known[0], now):
                known = now, await support.minute(engine, at)
            kept[at] = known
        self._minutes = kept
        late = {"overdue": OVERDUE, "stuck": STUCK}
        queue = await support.queue(engine, now, late)
        return View(now, tuple(one for _, one in kept.values()), queue)


def _stale(minute: datetime, counted: datetime, now: datetime) -> bool:
    """Whether a minute is to be counted again: its outcomes come for a while, ever more slowly."""
    if counted - minute >= SETTLED:
        return False
    return now - minute < _RECENT or now - counted >= _AGAIN
