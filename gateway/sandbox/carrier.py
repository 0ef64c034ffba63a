"""What every simulated provider does alike: takes a message, plays out what becomes of it, posts
the receipts, and answers the send call in the way the number asks for.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from starlette.responses import Response

from gateway.sandbox.answers import HalfAnswer
from gateway.sandbox.behaviour import (
    WORDS,
    Answer,
    Behaviour,
    Channel,
    Stage,
    Step,
    answer_to,
    behaviour_of,
    plan,
)
from gateway.sandbox.phones import Message, Phones, Posted, Status, Turns
from gateway.sandbox.settings import Now, Post, SandboxSettings, Sleep


@dataclass(frozen=True, slots=True)
class Letter:
    """A receipt as it goes out."""

    url: str
    content: bytes
    headers: Mapping[str, str]
    post: Post | None = None  # how it goes out, where not by HTTP


Write = Callable[[str, datetime], Letter]  # a status word, when it came true → the receipt


class Carrier:
    """The phones, and the tasks by which messages reach them."""

    def __init__(self, settings: SandboxSettings, post: Post, now: Now, sleep: Sleep) -> None:
        self.settings = settings
        self.now = now
        self.phones = Phones(settings.keep)
        self._turns = Turns(settings.keep)
        self._post = post
        self._sleep = sleep
        self._dice = random.Random(settings.seed)  # noqa: S311 (jitter, no secret)
        self._tasks: set[asyncio.Task[None]] = set()

    def decide(self, number: str, channel: Channel) -> tuple[Behaviour, Answer]:
        """What this number does now. Counts the call if the number counts calls."""
        behaviour = behaviour_of(number, channel)
        throttled = behaviour is Behaviour.THROTTLED
        earlier = self._turns.take(number, channel) if throttled else 0
        return behaviour, answer_to(behaviour, earlier)

    def play(
        self,
        message: Message,
        write: Write | None,
        again: Sequence[float] = (),
        *,
        words: Mapping[Stage, str] | None = None,
    ) -> asyncio.Task[None]:
        """Let the story of an accepted message, already on the phones, run.

        Without `write` no receipts are posted. `again`: pauses before a receipt is repeated that
        was not taken. `words`: the vendor's, by stage; by default those of `WORDS`.
        """
        steps = plan(
            message.behaviour,
            WORDS[message.channel] if words is None else words,
            delay=self.settings.receipt_delay,
            late=self.settings.late,
        )
        return self._spawn(self._story(message.key, steps, write, again))

    async def give(
        self, answer: Answer, response: Response, stories: Collection[asyncio.Task[None]]
    ) -> Response:
        """The answer to an accepted send call, when and how the number wants it."""
        match answer:
            case Answer.AFTER_RECEIPTS:
                await asyncio.wait(stories)
            case Answer.HELD:
                await self._sleep(self.settings.hang)
            case Answer.DROPPED:
                return HalfAnswer(response)
        return response

    async def post(self, letter: Letter) -> int | None:
        """The HTTP status a letter is answered with, None when nobody took it."""
        try:
            return await (letter.post or self._post)(
                letter.url, content=letter.content, headers=letter.headers
            )
        except Exception:  # noqa: BLE001 (the client is app's; whatever it raises, nobody took it)
            return None

    def clear(self) -> None:
        """Forget messages and counts; receipts under way still go out."""
        self.phones.clear()
        self._turns.clear()

    async def drain(self) -> None:
        """Wait until every pending receipt was posted."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def aclose(self) -> None:
        """Drop the pending receipts."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _story(
        self, key: int, steps: Sequence[Step], write: Write | None, again: Sequence[float]
    ) -> None:
        for step in steps:
            await self._pause(step.after)
            at = self.now()
            self._advance(key, step, at)
            for _ in range(step.copies):
                await self._deliver(key, step.word, at, write, again)

    def _advance(self, key: int, step: Step, at: datetime) -> None:
        self.phones.change(key, lambda message: _became(message, step, at))

    async def _deliver(
        self, key: int, word: str, at: datetime, write: Write | None, again: Sequence[float]
    ) -> None:
        """Post a receipt; when it is not taken, repeat it without holding up the next one."""
        if write is None:
            return
        if not await self._try(key, word, write(word, at)) and again:
            self._spawn(self._repeat(key, word, at, write, again))

    async def _repeat(
        self, key: int, word: str, at: datetime, write: Write, again: Sequence[float]
    ) -> None:
        for pause in again:
            await self._sleep(pause)
            if await self._try(key, word, write(word, at)):
                return

    async def _try(self, key: int, word: str, letter: Letter) -> bool:
        http = await self.post(letter)
        posted = Posted(word, self.now(), http)
        self.phones.change(
            key, lambda message: replace(message, receipts=(*message.receipts, posted))
        )
        return http is not None and 200 <= http < 300

    async def _pause(self, seconds: float) -> None:
        seconds += self._dice.random() * self.settings.jitter
        if seconds > 0:
            await self._sleep(seconds)

    def _spawn(self, story: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(story)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _became(message: Message, step: Step, at: datetime) -> Message:
    """The message after a step: what is said of it, and whether the handset has it now."""
    arrived = message.arrived_at or (at if step.stage.arrived else None)
    return replace(
        message,
        statuses=(*message.statuses, Status(step.stage, step.word, at)),
        arrived_at=arrived,
        read_at=at if step.stage is Stage.READ else message.read_at,
    )
