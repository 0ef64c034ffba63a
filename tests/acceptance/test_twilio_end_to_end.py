"""Twilio whole: our requests over real sockets to the sandbox, its signed receipts back to us."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fakes import Clock
from rig import Rig

from gateway import config
from gateway.app import process, sandboxed
from gateway.domain.delivery import State
from gateway.domain.workflow import Step, Until
from gateway.ports import Polls, Secret
from gateway.providers import PROVIDERS
from gateway.sandbox import Channel, Sandbox, SandboxSettings
from gateway.transports.http import HttpTransport
from gateway.transports.pool import ConnectionPool

SID = "AC00000000000000000000000000000001"
KEY = "SK00000000000000000000000000000001"
TEMPLATE = "HX00000000000000000000000000000001"
TOKEN, KEY_SECRET = "the-auth-token", "the-key-secret"
ACCOUNT = {"account_sid": SID, "auth_token": TOKEN, "api_key": KEY, "api_secret": KEY_SECRET}
CHANNELS = {"whatsapp": Until.READ, "sms": Until.DELIVERED, "voice": Until.DELIVERED}


@dataclass
class World:
    """The gateway, the sandbox, and where the gateway listens."""

    rig: Rig
    sandbox: Sandbox
    address: str

    async def heard(self, verification_id: str, *states: str) -> None:
        """Wait until these are the states of the attempts, and nothing more is said."""
        await self.rig.until(lambda: self.rig.states(verification_id) == list(states))
        await self.sandbox.drain()
        await self.rig.settle()

        assert list(states) == self.rig.states(verification_id)


def route(channel: str, sandbox: str) -> Any:
    kind = PROVIDERS["twilio"]
    return kind(
        kind.Settings(
            name=channel,
            channel=channel,
            account="twilio",
            sender="+15017250604",
            account_sid=SID,
            auth_token=(Secret(TOKEN), Secret("the-next-token")),
            api_key=KEY,
            api_secret=Secret(KEY_SECRET),
            base_url=f"{sandbox}/twilio",
            content={"verify": {"default": TEMPLATE}},
        )
    )


def step(channel: str) -> Step:
    return Step(channel=channel, routes=(channel,), patience=60, until=CHANNELS[channel])


@pytest_asyncio.fixture
async def world(tmp_path: Path, migrated: Path) -> AsyncIterator[World]:
    listening, phones = process.bind("127.0.0.1", 0), process.bind("127.0.0.1", 0)
    address, sandbox = (f"http://127.0.0.1:{process.port_of(one)}" for one in (listening, phones))
    simulated = SandboxSettings(
        octopush_login="",
        octopush_key="",
        octopush_callback_url=None,
        messenger_token="",
        messenger_secret="",
        accounts={"twilio": ACCOUNT},
        receipt_delay=0.01,
        late=0.05,
    )
    settings = config.replace(
        config.load({"GATEWAY_DATA_DIR": str(tmp_path)}, public_url=address),
        tuple(route(channel, sandbox) for channel in CHANNELS),
        {"default": tuple(map(step, CHANNELS)), **{one: (step(one),) for one in CHANNELS}},
    )
    carrier = HttpTransport(ConnectionPool())
    async with AsyncExitStack() as stack:
        outside = await stack.enter_async_context(sandboxed.sandbox(simulated))
        await stack.enter_async_context(process.served(outside.app, phones, grace=1))
        rig = Rig(tmp_path, migrated, Clock(), settings=settings, carrier=carrier)
        await stack.enter_async_context(rig)

        async def web(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":  # the rig starts and stops the gateway itself
                await rig.gateway.web(scope, receive, send)

        await stack.enter_async_context(process.served(web, listening, grace=1))
        yield World(rig, outside, address)


async def test_a_read_whatsapp_message(world: World) -> None:
    sent = await world.rig.send("+33600010000", workflow="whatsapp")
    await world.heard(sent["verification_id"], "whatsapp:READ")
    (message,) = world.sandbox.messages()
    code = message.text.partition(" ")[0]

    assert Channel.WHATSAPP is message.channel
    assert 200 == (await world.rig.verify(sent["verification_id"], code)).status_code
    assert [200] * 3 == [receipt.http for receipt in message.receipts]


async def test_a_failed_message_falls_back(world: World) -> None:
    """Not a WhatsApp user, the handset is off, and the call is taken."""
    sent = await world.rig.send("+33600030300")
    await world.heard(sent["verification_id"], "whatsapp:FAILED", "sms:FAILED", "voice:DELIVERED")
    reasons = [attempt.reason for attempt in world.rig.attempts(sent["verification_id"])]
    spelled = re.findall("[0-9](?:, [0-9])+", world.sandbox.messages()[-1].text)
    code = spelled[0].replace(", ", "")

    assert ["not_a_user", "unreachable"] == reasons[:2]
    assert 2 * spelled[:1] == spelled
    assert 200 == (await world.rig.verify(sent["verification_id"], code)).status_code


async def test_a_refused_number_falls_back(world: World) -> None:
    sent = await world.rig.send("+33600121200")
    await world.heard(sent["verification_id"], "whatsapp:FAILED", "sms:FAILED", "voice:DELIVERED")
    reasons = [attempt.reason for attempt in world.rig.attempts(sent["verification_id"])]

    assert ["bad_destination", "opted_out"] == reasons[:2]


@pytest.mark.parametrize(
    ("number", "repeats"),
    [("+33600000500", 4), ("+33600000600", 0), ("+33600000700", 0), ("+33600001400", 0)],
    ids=["repeated", "reversed", "before the answer", "contradicted"],
)
async def test_receipts_may_come_as_they_like(world: World, number: str, repeats: int) -> None:
    sent = await world.rig.send(number, workflow="sms")
    await world.heard(sent["verification_id"], "sms:DELIVERED")
    (attempt,) = world.rig.attempts(sent["verification_id"])
    (message,) = world.sandbox.messages()

    assert (message.id, repeats) == (attempt.reference, attempt.repeats)
    assert {200} == {receipt.http for receipt in message.receipts}


async def test_a_forged_callback_is_refused(world: World) -> None:
    sent = await world.rig.send("+33600000200", workflow="sms")
    (attempt,) = world.rig.attempts(sent["verification_id"])
    token = world.rig.gateway.runtime.keyring.token(attempt.id)
    body = f"MessageSid={attempt.reference}&MessageStatus=delivered"
    async with httpx.AsyncClient(trust_env=False) as client:
        answers = [
            await client.post(
                f"{world.address}/otp/delivered/sms/{token}",
                content=body,
                headers={"content-type": "application/x-www-form-urlencoded", **headers},
            )
            for headers in ({}, {"X-Twilio-Signature": "UDIBpWVmScIy1O3fI4++iZVmPxk="})
        ]

    assert [401, 401] == [answer.status_code for answer in answers]
    assert ["sms:SENT"] == world.rig.states(sent["verification_id"])


async def test_a_message_can_be_asked_about(world: World) -> None:
    sent = await world.rig.send("+33600000000", workflow="sms")
    await world.heard(sent["verification_id"], "sms:DELIVERED")
    (attempt,) = world.rig.attempts(sent["verification_id"])
    found = world.rig.gateway.runtime.routes["sms"]
    assert isinstance(found.provider, Polls)
    request = found.provider.build_poll(str(attempt.id), attempt.reference)
    assert request is not None
    receipt = found.provider.parse_poll(await found.transport.send(request, within=3.0))

    assert receipt is not None
    assert (State.DELIVERED, attempt.reference, "0.00750 USD") == (
        receipt.state,
        receipt.reference,
        receipt.cost,
    )


async def test_the_account_is_well(world: World) -> None:
    found = world.rig.gateway.runtime.routes["sms"]
    provider: Any = found.provider
    answer = await found.transport.send(provider.build_check(), within=3.0)

    assert provider.parse_check(answer) is None
