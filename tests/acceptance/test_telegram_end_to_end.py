"""Telegram from end to end: the real provider and transport, the simulated vendor on a socket of
its own, and its reports coming back over HTTP into a real gateway.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fakes import Clock
from rig import PATIENCE, Rig

from gateway import config
from gateway.app import process
from gateway.config import Settings
from gateway.domain.delivery import Attempt
from gateway.domain.workflow import Step, Until
from gateway.ports import Secret
from gateway.providers.telegram import Telegram
from gateway.sandbox import Message, Sandbox, SandboxSettings
from gateway.transports.http import HttpTransport
from gateway.transports.pool import ConnectionPool

TOKEN = Secret("AAE-token-of-the-account")


@dataclass
class Posts:
    """The reports as they left the vendor: `lost` ones never arrive."""

    client: httpx.AsyncClient
    lost: bool = False
    sent: list[tuple[str, bytes, Mapping[str, str]]] = field(default_factory=list)

    async def __call__(self, url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
        self.sent.append((url, content, headers))
        if self.lost:
            raise ConnectionResetError
        answer = await self.client.post(url, content=content, headers=dict(headers))
        return answer.status_code


@dataclass
class World:
    """The gateway, the vendor, and what passes between them."""

    rig: Rig
    vendor: Sandbox
    posts: Posts
    carrier: HttpTransport

    async def send(self, number: str, channel: str) -> str:
        """The id of a verification whose message was handed over."""
        return str((await self.rig.send(number, workflow=channel))["verification_id"])

    async def until(self, verification_id: str, state: str) -> Attempt:
        """Its one attempt, once it is in this state."""
        await self.eventually(lambda: self.attempt(verification_id).state == state)
        return self.attempt(verification_id)

    async def eventually(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not what():  # noqa: ASYNC110 (what happens elsewhere sets no event)
                await asyncio.sleep(0.01)

    def attempt(self, verification_id: str) -> Attempt:
        (attempt,) = self.rig.attempts(verification_id)
        return attempt

    def phone(self) -> Message:
        (message,) = self.vendor.messages()
        return message


def made_settings(folder: Path, gateway: int, vendor: int) -> Settings:
    """Two routes of one account: one sends, the other asks first. Each has a workflow."""
    environ = {"GATEWAY_DATA_DIR": str(folder), "GATEWAY_BRAND": "ACME"}
    settings = config.load(environ, public_url=f"http://127.0.0.1:{gateway}")
    common: dict[str, Any] = {
        "channel": "telegram",
        "account": "telegram",
        "token": TOKEN,
        "base_url": f"http://127.0.0.1:{vendor}/telegram",
    }
    providers = tuple(
        Telegram(Telegram.Settings(name=name, check_first=first, **common))
        for name, first in (("telegram", False), ("asking", True))
    )
    workflows = {
        provider.name: (Step("telegram", (provider.name,), 60, Until.READ),)
        for provider in providers
    }
    return config.replace(settings, providers, {"default": workflows["telegram"], **workflows})


@contextlib.asynccontextmanager
async def served(application: Any, listening: socket.socket) -> AsyncIterator[None]:
    """Served without its lifespan, which the rig has begun already, and without the signals."""
    config = uvicorn.Config(application, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listening])
    try:
        yield
    finally:
        await server.shutdown(sockets=[listening])


@pytest.fixture
async def world(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[World]:
    ours, theirs = process.bind("127.0.0.1", 0), process.bind("127.0.0.1", 0)
    settings = made_settings(tmp_path, process.port_of(ours), process.port_of(theirs))
    carrier = HttpTransport(ConnectionPool())
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        posts = Posts(client)
        account = SandboxSettings(
            octopush_login="",
            octopush_key="",
            octopush_callback_url=None,
            messenger_token="",
            messenger_secret="",
            accounts={"telegram": {"token": TOKEN}},
            receipt_delay=0.0,
        )
        vendor = Sandbox(account, posts, clock.now)
        stack.push_async_callback(vendor.aclose)
        stack.push_async_callback(carrier.aclose)
        await stack.enter_async_context(served(vendor.app, theirs))
        rig = Rig(tmp_path, migrated, clock, settings=settings, carrier=carrier)
        await stack.enter_async_context(rig)
        await stack.enter_async_context(served(rig.gateway.web, ours))
        yield World(rig, vendor, posts, carrier)


@pytest.mark.parametrize("route", ["telegram", "asking"])
async def test_a_code_is_delivered_read_and_right(world: World, route: str) -> None:
    verification_id = await world.send("+33600010000", route)
    attempt = await world.until(verification_id, "READ")
    code = world.phone().text.split()[0]
    answer = await world.rig.verify(verification_id, code)

    assert "sent\ndelivered\nread" == attempt.words
    assert (world.phone().id, "0.01") == (attempt.reference, attempt.cost)
    assert str(attempt.id) == world.phone().client_ref
    assert 200 == answer.status_code


async def test_a_message_that_expires_has_failed(world: World) -> None:
    verification_id = await world.send("+33600030000", "telegram")
    attempt = await world.until(verification_id, "FAILED")

    assert "expired" == attempt.reason


async def test_a_report_that_comes_three_times_counts_once(world: World) -> None:
    verification_id = await world.send("+33600050000", "telegram")
    await world.eventually(lambda: len(world.phone().receipts) == 6)

    assert ("DELIVERED", "sent\ndelivered", 4) == (
        world.attempt(verification_id).state,
        world.attempt(verification_id).words,
        world.attempt(verification_id).repeats,
    )


async def test_a_forged_report_is_refused(world: World) -> None:
    verification_id = await world.send("+33600000000", "telegram")
    await world.until(verification_id, "DELIVERED")
    url, content, headers = world.posts.sent[-1]
    read = content.replace(b"delivered", b"read")
    other = f"{url.rpartition('/')[0]}/no-token-of-ours"
    post = world.posts.client.post
    answers = [
        await post(url, content=content, headers=headers),
        await post(url, content=read, headers=headers),
        await post(url, content=content),
        await post(other, content=content, headers=headers),
    ]
    world.rig.clock.advance(301)
    answers.append(await post(url, content=content, headers=headers))

    assert [200, 401, 401, 401, 401] == [answer.status_code for answer in answers]
    assert "DELIVERED" == world.attempt(verification_id).state


@pytest.mark.parametrize("route", ["telegram", "asking"])
async def test_a_number_without_telegram_is_refused_for_good(world: World, route: str) -> None:
    verification_id = await world.send("+33600120000", route)
    attempt = world.attempt(verification_id)

    assert ("FAILED", "not_a_user", "PHONE_NUMBER_NOT_AVAILABLE") == (
        attempt.state,
        attempt.reason,
        attempt.error,
    )
    assert "permanent" == attempt.outcome
    assert ([] if route == "asking" else [world.phone()]) == world.vendor.messages()


async def test_a_question_that_fails_is_surely_not_sent(world: World) -> None:
    verification_id = await world.send("+33600090000", "asking")
    attempt = world.attempt(verification_id)

    assert ("FAILED", "temporary", "check_server_error") == (
        attempt.state,
        attempt.outcome,
        attempt.reason,
    )
    assert [] == world.vendor.messages()


@pytest.mark.parametrize("route", ["telegram", "asking"])
async def test_a_lost_report_is_asked_for(world: World, route: str) -> None:
    world.posts.lost = True
    verification_id = await world.send("+33600010000", route)
    await world.eventually(lambda: world.phone().read_at is not None)
    await world.rig.reconcile(61)
    attempt = await world.until(verification_id, "READ")

    assert attempt.polled_at is not None
    assert 1 == len(world.vendor.messages())


async def test_a_canceled_message_is_taken_back(world: World) -> None:
    verification_id = await world.send("+33600130000", "telegram")
    await world.until(verification_id, "ACK")
    await world.rig.call("/otp/cancel", {"verification_id": verification_id})
    attempt = await world.until(verification_id, "FAILED")

    assert "revoked" == attempt.reason
