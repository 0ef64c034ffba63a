"""Hints between nodes: what a commit has changed that others would else see at their next look.

A hint only makes somebody look earlier. Nothing rests on one: they are lost with a connection, a
process or a pooler that passes none on, and the looks of `worker` go on underneath. What is due is
not hinted at: ten looks a second find it sooner than anybody wakes up for it.
"""

import asyncio
import base64
import contextlib
import random
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from gateway.domain.errors import Unavailable
from gateway.domain.health import RouteState
from gateway.services.left import Left
from gateway.services.publishing import Resubscribed, Touched
from gateway.store.engine import StoreError

NAMED_MOST = 300  # verifications one hint names; 23 bytes each, of PostgreSQL's 8,000
_EVERY = 0.02  # seconds between two hints of a process
_CHECK = 30.0  # seconds of silence until the connection is looked at
_AGAIN = (0.5, 30.0)  # seconds until a lost connection is tried again: at first, at most
_ID_LENGTH = 22


class Topic(StrEnum):
    """What may have changed; who hears it looks for himself."""

    VERIFICATIONS = "verifications"  # more of them than can be named
    ROUTES = "routes"
    SUBSCRIPTIONS = "subscriptions"


_TOPICS = frozenset(Topic)


class Channel(Protocol):
    """What carries hints; see `store.engine.postgres_channel`."""

    async def open(self, heard: Callable[[str], None], lost: Callable[[], None]) -> None: ...
    async def tell(self, text: str) -> None: ...
    def close(self) -> None: ...


class Log(Protocol):
    """The part of structlog that is used."""

    def info(self, event: str, **facts: object) -> object: ...
    def warning(self, event: str, **facts: object) -> object: ...


@dataclass(frozen=True, slots=True)
class Hint:
    """What one says to the others: ids and topics, no numbers and no codes."""

    verifications: frozenset[UUID] = frozenset()
    topics: frozenset[Topic] = frozenset()


def encode(hint: Hint) -> str:
    """The hint as words, under 8,000 bytes."""
    ids = (base64.urlsafe_b64encode(one.bytes)[:_ID_LENGTH] for one in hint.verifications)
    return " ".join((*hint.topics, *(one.decode() for one in ids)))


def decode(text: str) -> Hint:
    """What is understood of it: other versions, and others on the database, may say more."""
    named, topics = set(), set()
    for word in text.split():
        if word in _TOPICS:
            topics.add(Topic(word))
        elif len(word) == _ID_LENGTH:
            with contextlib.suppress(ValueError):  # no id of ours, then
                named.add(UUID(bytes=base64.b64decode(f"{word}==", b"-_", validate=True)))
    return Hint(frozenset(named), frozenset(topics))


class Every(Container[UUID]):
    """Whose changes are told where others may wait for any of them."""

    def __contains__(self, _: object) -> bool:
        return True


class Hints:
    """What this process says and hears. `wake` lets those look who wait for a verification; `looks`
    are what is done when something of a topic has changed, and raise StoreError or Unavailable."""

    def __init__(
        self,
        channel: Channel,
        wake: Callable[[UUID], None],
        looks: Mapping[Topic, Callable[[], Awaitable[object]]],
        log: Log,
    ) -> None:
        self._channel = channel
        self._wake = wake
        self._looks = looks
        self._log = log
        self._named: set[UUID] = set()  # to be said
        self._topics: set[Topic] = set()
        self._said = asyncio.Event()
        self._due: set[Topic] = set()  # heard
        self._heard = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.connected = asyncio.Event()

    def start(self) -> None:
        """Begin to listen and to speak."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run()), loop.create_task(self._attend())]

    async def stop(self) -> None:
        """Say and hear nothing more; what was not said is found by looking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._channel.close()

    def follow(self, left: Left) -> None:
        """Tell of what a commit has left behind, soon. Where more has changed than fits, and while
        nobody can be told, it comes down to that something has."""
        for item in left.get(Touched, ()):
            self._named.add(item.verification_id)
        if RouteState in left:
            self._topics.add(Topic.ROUTES)
        if Resubscribed in left:
            self._topics.add(Topic.SUBSCRIPTIONS)
        if len(self._named) > NAMED_MOST:
            self._named.clear()
            self._topics.add(Topic.VERIFICATIONS)
        if self._named or self._topics:
            self._said.set()

    async def _run(self) -> None:
        wait, longest = _AGAIN
        while True:
            try:
                await self._channel.open(self._hear, self._said.set)
                wait = _AGAIN[0]
                self.connected.set()
                self._look(Topic)  # what was said until now was not heard
                self._log.info("hints_connected")
                await self._speak()
            except StoreError as error:
                if self.connected.is_set() or wait == _AGAIN[0]:
                    self._log.warning("hints_lost", problem=str(error))
            self.connected.clear()
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311  jitter, not secrecy
            wait = min(2 * wait, longest)

    async def _speak(self) -> None:
        """As long as the connection stands. Raises StoreError."""
        while True:
            with contextlib.suppress(TimeoutError):  # nothing to say: does the connection stand?
                async with asyncio.timeout(_CHECK):
                    await self._said.wait()
            self._said.clear()
            await self._tell(Hint(frozenset(self._named), frozenset(self._topics)))
            await asyncio.sleep(_EVERY)  # what comes meanwhile goes together

    async def _tell(self, hint: Hint) -> None:
        self._named.clear()
        self._topics.clear()
        try:
            await self._channel.tell(encode(hint))
        except StoreError:  # on the next connection, then
            self._named |= hint.verifications
            self._topics |= hint.topics
            self._said.set()
            raise

    def _hear(self, text: str) -> None:
        hint = decode(text)
        for named in hint.verifications:
            self._wake(named)
        self._look(hint.topics)

    def _look(self, topics: Iterable[Topic]) -> None:
        self._due.update(topics)
        if self._due:
            self._heard.set()

    async def _attend(self) -> None:
        while True:
            await self._heard.wait()
            self._heard.clear()
            due: Sequence[Topic] = sorted(self._due)
            self._due.clear()
            for topic in due:
                try:
                    await self._looks[topic]()
                except (StoreError, Unavailable) as error:
                    self._log.warning("hint_put_off", topic=topic, problem=type(error).__name__)
