"""The outside world, faked: a clock, and a provider's end of the wire."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from gateway.ports import Auth, Request, Response

START = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


class Clock:
    """A clock that moves only when told."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._now.timestamp()

    def advance(self, seconds: float) -> datetime:
        self._now += timedelta(seconds=seconds)
        return self._now


class Submission:
    """One request that reached a provider."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.host = request.url.host
        self.path = request.url.path
        body = request.content
        self.body: dict[str, Any] = orjson.loads(body) if body else {}

    @property
    def text(self) -> str:
        return str(self.body.get("text", ""))

    @property
    def code(self) -> str:
        """The code as the handset shows it."""
        found = re.search(r"(?<![0-9])[0-9]{4,10}(?![0-9])", self.text)
        assert found is not None
        return found.group()

    @property
    def attempt_id(self) -> str:
        """Our attempt id, as this provider is told it."""
        return str(self.body.get("request_id") or self.body.get("client_ref"))


Answer = Callable[[Submission], Awaitable[Response]]


class FakeTransport:
    """Answers like the providers of the rig: Octopush with tickets, the messenger with ids.

    `script` maps a channel's path word (`sms-campaign`, `voice-campaign`, `messages`) to what
    answers the next calls; without a script a call is accepted. Polls (GET) answer `accepted`, or
    what `poll_script` says.
    """

    def __init__(self) -> None:
        self.submissions: list[Submission] = []
        self.polls: list[Submission] = []
        self.scripts: dict[str, list[Answer]] = {}
        self.poll_script: list[Answer] = []
        self._count = 0

    def script(self, word: str, *answers: Answer) -> None:
        self.scripts.setdefault(word, []).extend(answers)

    def to(self, word: str) -> list[Submission]:
        """The submissions whose path holds that word."""
        return [one for one in self.submissions if word in one.path]

    async def send(self, request: Request, *, within: float, auth: Auth | None = None) -> Response:
        submission = Submission(request)
        if request.method == "GET":
            self.polls.append(submission)
            if self.poll_script:
                return await self.poll_script.pop(0)(submission)
            return json_response(200, {"message_id": "m", "status": "accepted"})
        self.submissions.append(submission)
        for word, answers in self.scripts.items():
            if word in submission.path and answers:
                return await answers.pop(0)(submission)
        return self.accept(submission)

    def accept(self, submission: Submission) -> Response:
        """The answer of a provider that takes the message, with a fresh id."""
        self._count += 1
        if "campaign" in submission.path:
            return json_response(201, {"sms_ticket": f"sms_{self._count:013x}", "total_cost": 0.05})
        return json_response(202, {"message_id": f"m_{self._count}", "status": "accepted"})


def json_response(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(status, content=orjson.dumps(body), headers=headers or {})


def answering(status: int, body: Any, headers: dict[str, str] | None = None) -> Answer:
    """A call that is answered so."""

    async def answer(_: Submission) -> Response:
        return json_response(status, body, headers)

    return answer


def raising(error: Exception) -> Answer:
    """A call that ends in a transport error."""

    async def answer(_: Submission) -> Response:
        raise error

    return answer


class Gate:
    """A call that hangs until it is opened, then answers as `then` says."""

    def __init__(self, then: Answer) -> None:
        self._then = then
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, submission: Submission) -> Response:
        self.reached.set()
        await self.opened.wait()
        return await self._then(submission)
