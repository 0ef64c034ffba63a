"""The generic provider as Telnyx and as Infobip, over sockets: a real gateway, its real transport,
the sandbox."""

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes import Clock
from rig import Rig, template_database

from gateway import config
from gateway.domain.workflow import Step, Until
from gateway.ports import Secret
from gateway.providers.definitions import load
from gateway.providers.generic import Generic, GenericSettings
from gateway.sandbox import Sandbox, SandboxSettings
from gateway.sandbox.generic import public_key, signature
from gateway.transports.http import HttpTransport
from gateway.transports.pool import ConnectionPool

ACCOUNT = {
    "api_key": "KEY-telnyx",
    "private_key": base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode(),
}


INFOBIP_KEY = "key-at-the-end-of-the-url"


@dataclass
class World:
    """The gateway, the sandbox, and the webhooks that went between them."""

    rig: Rig
    sandbox: Sandbox
    webhooks: list[tuple[str, bytes, Mapping[str, str], int]]

    async def send(self, number: str, workflow: str = "default") -> dict[str, Any]:
        sent = await self.rig.send(number, workflow=workflow)
        await self.sandbox.drain()
        return sent

    def state(self, sent: Mapping[str, Any]) -> str:
        (attempt,) = self.rig.attempts(sent["verification_id"])
        return attempt.state.value


@contextlib.asynccontextmanager
async def served(app: Any, listener: socket.socket) -> AsyncIterator[None]:
    """The application on that socket."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical"))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await running


def listen() -> tuple[socket.socket, str]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def route(base_url: str) -> Generic:
    return Generic(
        GenericSettings(
            name="telnyx",
            channel="sms",
            account="telnyx",
            sender="ACME",
            base_url=f"{base_url}/telnyx/v2",
            definition=load("telnyx"),
            secrets={"api_key": Secret(ACCOUNT["api_key"])},
            callback_secret=(Secret(public_key(ACCOUNT["private_key"])),),
        )
    )


def infobip(base_url: str) -> Generic:
    return Generic(
        GenericSettings(
            name="infobip",
            channel="sms",
            account="infobip",
            base_url=f"{base_url}/infobip",
            definition=load("infobip"),
            values={"base": "unused"},
            secrets={"api_key": Secret("key-infobip")},
            callback_secret=(Secret(INFOBIP_KEY),),
        )
    )


def step(route: str) -> Step:
    return Step(channel="sms", routes=(route,), patience=60, until=Until.DELIVERED)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock, webhooks = Clock(), []
    ours, public_url = listen()
    theirs, base_url = listen()
    loaded = config.load({"GATEWAY_DATA_DIR": str(tmp_path)}, public_url=public_url)
    settings = config.replace(
        loaded,
        (route(base_url), infobip(base_url)),
        {"default": (step("telnyx"),), "batches": (step("infobip"),)},
    )
    template = template_database(tmp_path)
    carrier = HttpTransport(ConnectionPool())
    rig = Rig(tmp_path, template, clock, settings=settings, carrier=carrier)
    async with httpx.AsyncClient(trust_env=False) as client, rig:

        async def post(url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
            answer = await client.post(url, content=content, headers=dict(headers))
            webhooks.append((url, content, headers, answer.status_code))
            return answer.status_code

        sandbox = Sandbox(
            SandboxSettings(
                octopush_login="",
                octopush_key="",
                octopush_callback_url=None,
                messenger_token="",
                messenger_secret="",
                accounts={
                    "generic": ACCOUNT,
                    "infobip": {
                        "api_key": "key-infobip",
                        "callback_url": f"{public_url}/otp/delivered/infobip/{INFOBIP_KEY}",
                    },
                },
                receipt_delay=0.0,
                late=0.0,
            ),
            post,
            clock.now,
        )
        async with served(sandbox.app, theirs), served(rig.gateway.web, ours):
            yield World(rig, sandbox, webhooks)
            await sandbox.aclose()
            await carrier.aclose()


@pytest.mark.parametrize(
    ("number", "state", "count"),
    [
        ("+33600000000", "DELIVERED", 2),
        ("+33600000300", "FAILED", 1),
        ("+33600000500", "DELIVERED", 6),  # each webhook three times
        ("+33600000600", "DELIVERED", 2),  # in reverse order
        ("+33600000700", "DELIVERED", 2),  # before the answer to the send call
        ("+33600001200", "FAILED", 0),  # refused
        ("+33600001300", "ACK", 1),
    ],
)
async def test_what_becomes_of_a_message(world: World, number: str, state: str, count: int) -> None:
    sent = await world.send(number)

    assert state == world.state(sent)
    assert [200] * count == [status for *_, status in world.webhooks]


@pytest.mark.parametrize(
    ("number", "state", "count"),
    [
        ("+33600000000", "DELIVERED", 2),
        ("+33600000300", "FAILED", 1),
        ("+33600000500", "DELIVERED", 6),
        ("+33600000700", "DELIVERED", 2),
        ("+33600001200", "FAILED", 0),
        ("+33600001300", "ACK", 1),
    ],
)
async def test_what_becomes_of_a_message_reported_in_batches(
    world: World, number: str, state: str, count: int
) -> None:
    sent = await world.send(number, "batches")

    assert state == world.state(sent)
    assert [200] * count == [status for *_, status in world.webhooks]


async def test_a_batch_with_another_key_or_another_number_moves_nothing(world: World) -> None:
    sent = await world.send("+33600001300", "batches")
    url, content, headers, _ = world.webhooks[0]
    said = orjson.loads(content)
    said["results"][0]["status"] = {"groupName": "DELIVERED", "id": 5}
    delivered = orjson.dumps(said)
    said["results"][0]["to"] = "33611111111"
    misled = orjson.dumps(said)
    async with httpx.AsyncClient(trust_env=False) as client:
        forged = await client.post(url[:-1], content=delivered, headers=dict(headers))
        wrong = await client.post(url, content=misled, headers=dict(headers))

    assert (401, 200) == (forged.status_code, wrong.status_code)
    assert "ACK" == world.state(sent)


async def test_a_forged_webhook_is_401_and_moves_nothing(world: World) -> None:
    sent = await world.send("+33600001300")
    url, content, headers, _ = world.webhooks[0]
    said = orjson.loads(content)
    said["data"]["payload"]["to"][0]["status"] = "delivered"
    forged = orjson.dumps(said)
    other = base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()
    tries = [
        (url, forged, headers),
        (url, forged, signature(other, world.rig.clock.now(), forged)),
        (url, forged, {}),
        (url.rpartition("/")[0] + "/token", content, headers),
        (url.rpartition("/")[0], content, headers),
    ]
    async with httpx.AsyncClient(trust_env=False) as client:
        answers = [
            await client.post(to, content=body, headers=dict(given)) for to, body, given in tries
        ]

    assert [401] * len(tries) == [answer.status_code for answer in answers]
    assert "ACK" == world.state(sent)


async def test_an_old_webhook_is_401(world: World) -> None:
    await world.send("+33600001300")
    url, content, headers, _ = world.webhooks[0]
    world.rig.clock.advance(301)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(url, content=content, headers=dict(headers))

    assert 401 == answer.status_code
