"""Callers' endpoints, faked: what webhooks reached them, and what they answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from rig import PATIENCE, Rig

from gateway.ports import Auth, Request, Response, TransportError

URL = "https://hooks.example/otp"


class Webhook:
    """One webhook that reached an endpoint."""

    def __init__(self, request: Request) -> None:
        self.url = str(request.url)
        self.headers = dict(request.headers)
        self.raw = request.content
        self.body: dict[str, Any] = orjson.loads(request.content)
        self.id = self.headers["webhook-id"]
        self.kind = self.body["type"]
        self.data: dict[str, Any] = self.body["data"]


Endpoint = Callable[[Webhook], Awaitable[Response]]


class FakeEndpoints:
    """Every URL takes everything with 204, unless `at` says otherwise: an answer, in turn or for
    good, or an error to raise."""

    def __init__(self) -> None:
        self.got: list[Webhook] = []
        self.at: dict[str, Endpoint] = {}

    async def send(self, request: Request, *, within: float, auth: Auth | None = None) -> Response:
        webhook = Webhook(request)
        self.got.append(webhook)
        endpoint = self.at.get(webhook.url)
        return Response(204) if endpoint is None else await endpoint(webhook)

    def to(self, url: str) -> list[Webhook]:
        return [one for one in self.got if one.url == url]

    def kinds(self, url: str = URL) -> list[str]:
        return [one.kind for one in self.to(url)]


def failing(status: int = 500, times: int | None = None, **headers: str) -> Endpoint:
    """An endpoint that answers so, always or that often."""
    left = [times]

    async def answer(_: Webhook) -> Response:
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                return Response(204)
        return Response(status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def breaking(error: TransportError) -> Endpoint:
    """An endpoint that cannot be reached."""

    async def answer(_: Webhook) -> Response:
        raise error

    return answer


class Hanging:
    """An endpoint that hangs until it is let go."""

    def __init__(self) -> None:
        self.reached = 0
        self.opened = asyncio.Event()

    async def __call__(self, _: Webhook) -> Response:
        self.reached += 1
        await self.opened.wait()
        return Response(204)


async def subscribe(rig: Rig, url: str = URL, **more: Any) -> dict[str, Any]:
    """A subscription of the rig's client, as it is answered."""
    answer = await rig.call("/otp/subscriptions", {"url": url, **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def notified(rig: Rig) -> None:
    """Until nothing more is due, and nothing on its way."""
    async with asyncio.timeout(PATIENCE):
        while rig.gateway.notifier.busy or rig.gateway.ledger.depth:  # noqa: ASYNC110
            await asyncio.sleep(rig.breath)


async def later(rig: Rig, seconds: float) -> None:
    """Time passes, then the worker."""
    rig.clock.advance(seconds)
    await rig.gateway.notifier.run_once(rig.clock.now())
    await notified(rig)
