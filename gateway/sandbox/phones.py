"""The phones and what reached them: the sandbox's whole memory, bounded.

Messages are frozen; a change puts a new one in the old one's place and gives it the next serial,
so that a reader can ask for what changed since it last looked.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

from gateway.sandbox.behaviour import Answer, Behaviour, Channel, Stage


@dataclass(frozen=True, slots=True)
class Status:
    """Something that became of a message, whether or not anyone was told."""

    stage: Stage
    word: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Posted:
    """A receipt that left us. `http` is the answer's status; None when nobody took it."""

    word: str
    at: datetime
    http: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One request to send something to one number, accepted or refused."""

    key: int = 0  # unique, in order of arrival
    serial: int = 0  # of the last change
    id: str  # the provider's; shared by the recipients of one request
    channel: Channel
    number: str
    text: str
    sender: str | None
    at: datetime
    client_ref: str | None  # the caller's own id: request_id, client_ref
    behaviour: Behaviour
    answer: Answer
    repeats: int = 0  # further requests with the same request_id, refused
    arrived_at: datetime | None = None  # on the handset
    read_at: datetime | None = None
    statuses: tuple[Status, ...] = ()
    receipts: tuple[Posted, ...] = ()

    @property
    def status(self) -> Status | None:
        """The furthest it came."""
        return max(self.statuses, key=lambda status: status.stage.rank, default=None)


class Phones:
    """Every message, newest last; the oldest gives way when there are more than `keep`."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._last_key = 0
        self.serial = 0
        self._messages: OrderedDict[int, Message] = OrderedDict()
        self._changed: OrderedDict[int, None] = OrderedDict()  # keys, by last change
        self._phones: OrderedDict[str, deque[int]] = OrderedDict()  # keys, by last message
        self._ids: dict[str, int] = {}

    def add(self, message: Message) -> Message:
        """Take a new message in. Returns it with its key."""
        self._last_key += 1
        message = self._put(replace(message, key=self._last_key))
        self._phones.setdefault(message.number, deque()).append(message.key)
        self._phones.move_to_end(message.number)
        self._ids[message.id] = message.key
        if len(self._messages) > self._keep:
            self._forget_oldest()
        return message

    def change(self, key: int, how: Callable[[Message], Message]) -> None:
        """Put `how(message)` in its place, if it is still remembered."""
        if key in self._messages:
            self._put(how(self._messages[key]))

    def find(self, message_id: str) -> Message | None:
        """The (last) message with this id."""
        return self._messages.get(self._ids.get(message_id, 0))

    def of(self, number: str | None = None) -> list[Message]:
        """The messages, of one phone or of all, newest last."""
        keys = self._messages if number is None else self._phones.get(number, ())
        return [self._messages[key] for key in keys]

    def changed(self, after: int, limit: int, number: str | None = None) -> list[Message]:
        """The messages changed since `after`, least recently changed first."""
        recent = list(self._since(after))[::-1]
        ours = (message for message in recent if number in {None, message.number})
        return list(islice(ours, limit))

    def numbers(self, limit: int) -> list[str]:
        """The phones, the one with the newest message first."""
        return list(islice(reversed(self._phones), limit))

    def count(self) -> int:
        """How many phones there are."""
        return len(self._phones)

    def clear(self) -> None:
        """Forget every message."""
        self.serial += 1
        for memory in (self._messages, self._changed, self._phones, self._ids):
            memory.clear()

    def _put(self, message: Message) -> Message:
        self.serial += 1
        message = replace(message, serial=self.serial)
        self._messages[message.key] = message
        self._changed[message.key] = None
        self._changed.move_to_end(message.key)
        return message

    def _since(self, after: int) -> Iterator[Message]:
        for key in reversed(self._changed):
            message = self._messages[key]
            if message.serial <= after:
                return
            yield message

    def _forget_oldest(self) -> None:
        key, message = self._messages.popitem(last=False)
        del self._changed[key]
        keys = self._phones[message.number]
        keys.popleft()
        if not keys:
            del self._phones[message.number]
        if self._ids[message.id] == key:
            del self._ids[message.id]


class Turns:
    """How often each thing was seen before, for the last `keep` things."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._seen: OrderedDict[tuple[str, Channel], int] = OrderedDict()

    def take(self, number: str, channel: Channel) -> int:
        """How many calls for this number and channel came earlier; counts this one."""
        earlier = self._seen.pop((number, channel), 0)
        self._seen[number, channel] = earlier + 1
        if len(self._seen) > self._keep:
            self._seen.popitem(last=False)
        return earlier

    def clear(self) -> None:
        """Forget every count."""
        self._seen.clear()
