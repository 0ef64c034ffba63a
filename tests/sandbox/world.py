"""A sandbox with a clock that only moves when told to, and a recorder for its receipts."""

import asyncio
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx
import orjson

from gateway.sandbox import Message, Sandbox, SandboxSettings

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LOGIN = "ops@example.com"
KEY = "octopush-key"
TOKEN = "messenger-token"
SECRET = "messenger-secret"
OCTOPUSH_CALLBACK = "https://otp.example.com/otp/delivered/octopush/secret"
MESSENGER_CALLBACK = "https://otp.example.com/otp/delivered/messenger/token"
SMS = "/octopush/v1/public/sms-campaign/send"
VOICE = "/octopush/v1/public/voice-campaign/send"
VOCAL = "/octopush/v1/public/vocal-campaign/send"
BALANCE = "/octopush/v1/public/wallet/check-balance"
MESSENGER = "/messenger/v1/messages"
SETTLE = 50  # turns of the loop; more than any chain of awaits here needs


class Clock:
    """Virtual time: sleepers wake in the order of their times as `advance` passes them."""

    def __init__(self) -> None:
        self.at = START
        self._sleepers: list[tuple[datetime, int, asyncio.Event]] = []
        self._order = count()

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        wake = self.at + timedelta(seconds=seconds)
        heapq.heappush(self._sleepers, (wake, next(self._order), event))
        await event.wait()

    async def advance(self, seconds: float) -> None:
        end = self.at + timedelta(seconds=seconds)
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.at, _, event = heapq.heappop(self._sleepers)
            event.set()
            await settle()
        self.at = end


async def settle() -> None:
    for _ in range(SETTLE):
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Sent:
    """A receipt as it arrived."""

    url: str
    content: bytes
    headers: Mapping[str, str]
    seconds: float  # since START

    @property
    def json(self) -> dict[str, Any]:
        body = orjson.loads(self.content)
        assert isinstance(body, dict)
        return body

    @property
    def word(self) -> str:
        """The status it tells, in either provider's shape."""
        body = self.json
        word = body["statuses"][0]["status"] if "statuses" in body else body["status"]
        assert isinstance(word, str)
        return word


@dataclass
class Recorder:
    """The gateway's side: takes receipts and answers as told."""

    clock: Clock
    answer: Callable[[Sent], int] = lambda _: 200
    sent: list[Sent] = field(default_factory=list)
    gate: asyncio.Event | None = None  # closed: receipts are not answered

    async def __call__(self, url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
        if self.gate:
            await self.gate.wait()
        passed = (self.clock.now() - START).total_seconds()
        self.sent.append(Sent(url, content, headers, passed))
        return self.answer(self.sent[-1])

    @property
    def words(self) -> list[str]:
        return [sent.word for sent in self.sent]


class Rig:
    """The sandbox, its clock, the receipts it posted, and a client to call it with."""

    def __init__(self, **changes: Any) -> None:
        settings: dict[str, Any] = {
            "octopush_login": LOGIN,
            "octopush_key": KEY,
            "octopush_callback_url": OCTOPUSH_CALLBACK,
            "messenger_token": TOKEN,
            "messenger_secret": SECRET,
            "receipt_delay": 1.0,
            "late": 8.0,
            "hang": 30.0,
            "keep": 100,
        }
        self.clock = Clock()
        self.post = Recorder(self.clock)
        self.settings = SandboxSettings(**{**settings, **changes})
        self.sandbox = Sandbox(self.settings, self.post, self.clock.now, self.clock.sleep)
        self.client = client(self.sandbox)

    async def sms(self, number: str = "+33600000000", **fields: Any) -> httpx.Response:
        return await self.octopush(SMS, sms_body(number, **fields))

    async def voice(self, number: str = "+33600000000", **fields: Any) -> httpx.Response:
        body = {"recipients": [{"phone_number": number}], "text": "1, 2, 3", **fields}
        return await self.octopush(VOICE, body)

    async def octopush(self, path: str, body: object) -> httpx.Response:
        headers = {"api-login": LOGIN, "api-key": KEY}
        return await self.client.post(path, json=body, headers=headers)

    async def messenger(self, number: str = "+33600000000", **fields: Any) -> httpx.Response:
        body = {
            "to": number,
            "text": "123456 is your code",
            "callback_url": MESSENGER_CALLBACK,
            "client_ref": "a1",
            **fields,
        }
        return await self.client.post(MESSENGER, json=body, headers=bearer())

    async def run(self, seconds: float = 60.0) -> None:
        """Let everything that is under way come to its end."""
        await self.clock.advance(seconds)
        await self.sandbox.drain()

    def only(self, number: str | None = None) -> Message:
        """The one message there is."""
        (message,) = self.sandbox.messages(number)
        return message


def client(sandbox: Sandbox) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(sandbox.app)
    return httpx.AsyncClient(transport=transport, base_url="http://sandbox")


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def sms_body(number: str = "+33600000000", **fields: Any) -> dict[str, Any]:
    return {
        "recipients": [{"phone_number": number}],
        "text": "123456 is your code",
        "type": "sms_premium",
        "purpose": "alert",
        **fields,
    }
