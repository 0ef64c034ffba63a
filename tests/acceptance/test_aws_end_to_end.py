"""AWS over sockets: a real gateway calls the sandbox, which posts signed SNS messages back."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
import pytest
from fakes import Clock
from providers import sns
from rig import Rig
from sandbox.signing import aws_headers

from gateway import config
from gateway.app import process
from gateway.config import Settings
from gateway.domain.workflow import Step, Until
from gateway.ports import Provider, Secret
from gateway.providers.aws import Aws
from gateway.sandbox import Sandbox, SandboxSettings
from gateway.transports.http import HttpTransport
from gateway.transports.pool import ConnectionPool

TOPIC = "arn:aws:sns:eu-west-3:123456789012:otp-events"
KEY = "callback-key-of-the-aws-account"
ROUTE = "aws"  # of the SMS


@dataclass
class World:
    """The gateway, the sandbox, and the public addresses of both."""

    rig: Rig
    sandbox: Sandbox
    account: Mapping[str, str]
    gateway_url: str
    http: httpx.AsyncClient

    @property
    def callback(self) -> str:
        return f"{self.gateway_url}/otp/delivered/{ROUTE}/{KEY}"

    async def subscribe(self, url: str) -> httpx.Response:
        """What an operator does once, in AWS's console."""
        asked = {"TopicArn": TOPIC, "Protocol": "http", "Endpoint": url}
        form = {"Action": "Subscribe", "Version": "2010-03-31", **asked}
        body, address = urlencode(form).encode(), f"{self.account['endpoint']}/"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        now = self.rig.clock.now()
        made = aws_headers(self.account, "sns", address, body, headers=headers, at=now)
        return await self.http.post(address, content=body, headers=made)

    async def send(self, number: str, workflow: str = "sms") -> str:
        """A verification, once every receipt it caused has been posted."""
        sent = await self.rig.send(number, workflow=workflow)
        await self.quiet()
        return str(sent["verification_id"])

    async def quiet(self) -> None:
        """Until nothing is on its way, in either direction."""
        for _ in range(3):  # a receipt may cause a fallback, and that more receipts
            await self.sandbox.drain()
            await self.rig.settle()

    def heard(self, verification_id: str) -> list[tuple[str | None, bool]]:
        """Each receipt, as its word and whether it moved the state."""
        log = self.rig.record(verification_id).log
        return [(row.word, row.applied) for row in log if row.source == "receipt"]


def made(account: Mapping[str, str], world: str, clock: Clock, **changes: Any) -> Provider:
    fields: dict[str, Any] = {
        "name": ROUTE,
        "channel": "sms",
        "account": "aws",
        "region": account["region"],
        "access_key_id": account["access_key_id"],
        "secret_access_key": Secret(account["secret_access_key"]),
        "session_token": Secret(account["session_token"]),
        "configuration_set": account["configuration_set"],
        "topic_arn": TOPIC,
        "callback_key": (Secret(KEY),),
        "base_url": f"{world}/aws/sms-voice",
        "sns_endpoint": account["endpoint"],
    }
    return Aws(Aws.Settings(**fields | changes), now=clock.now)


def settings(folder: Path, url: str, providers: tuple[Provider, ...]) -> Settings:
    env = {"GATEWAY_DATA_DIR": str(folder), "GATEWAY_BRAND": "ACME"}
    sms = Step(channel="sms", routes=(ROUTE,), patience=60, until=Until.DELIVERED)
    call = Step(channel="voice", routes=("aws_voice",), patience=60, until=Until.DELIVERED)
    silent = Step(channel="sms", routes=("aws_sns",), patience=60, until=Until.SENT)
    workflows = {"default": (sms, call), "sms": (sms,), "silent": (silent,)}
    return config.replace(config.load(env, public_url=url), providers, workflows)


@contextlib.asynccontextmanager
async def running(folder: Path, migrated: Path, clock: Clock) -> AsyncGenerator[World]:
    outside, inside = process.bind("127.0.0.1", 0), process.bind("127.0.0.1", 0)
    world, gateway = address(outside), address(inside)
    account = {
        "access_key_id": "AKIASANDBOX",
        "secret_access_key": "the-secret-access-key",
        "session_token": "the-session-token",
        "region": "eu-west-3",
        "configuration_set": "otp",
        "topic_arn": TOPIC,
        "endpoint": f"{world}/aws/sns",
    }
    providers = (
        made(account, world, clock),
        made(account, world, clock, name="aws_voice", channel="voice", sender="+12065550152"),
        made(account, world, clock, name="aws_sns", api="sns", base_url=f"{world}/aws/sns"),
    )
    carrier = HttpTransport(ConnectionPool())
    chosen = settings(folder, gateway, providers)
    rig = Rig(folder, migrated, clock, settings=chosen, carrier=carrier)
    async with rig, httpx.AsyncClient(trust_env=False, timeout=10.0) as http:

        async def post(url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
            answer = await http.post(url, content=content, headers=dict(headers))
            return answer.status_code

        simulated = Sandbox(
            SandboxSettings(
                octopush_login="",
                octopush_key="",
                octopush_callback_url=None,
                messenger_token="",
                messenger_secret="",
                accounts={"aws": account},
                receipt_delay=0.01,
                late=0.05,
            ),
            post,
            clock.now,
        )
        async with process.served(simulated.app, outside, grace=1), _served(rig, inside):
            yield World(rig, simulated, account, gateway, http)
        await simulated.aclose()
    await carrier.aclose()


@contextlib.asynccontextmanager
async def _served(rig: Rig, listening: socket.socket) -> AsyncGenerator[None]:
    """The gateway on a socket; the rig has started it and will stop it, so without a lifespan."""
    server = process.server(rig.gateway.web, grace=1)
    server.config.lifespan = "off"
    task = asyncio.create_task(server.serve(sockets=[listening]))
    await rig.until(lambda: server.started, task)
    yield
    server.should_exit = True
    await task


def address(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{process.port_of(listening)}"


@pytest.fixture
async def world(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[World]:
    """Both running, the gateway's address subscribed to the topic."""
    async with running(tmp_path, migrated, clock) as made_world:
        answer = await made_world.subscribe(made_world.callback)
        assert answer.status_code == 200, answer.text
        yield made_world


async def test_a_message_is_delivered_and_its_events_arrive(world: World) -> None:
    sent = await world.send("+33600000000")
    (attempt,) = world.rig.attempts(sent)
    (message,) = world.sandbox.messages()

    assert ["sms:DELIVERED"] == world.rig.states(sent)
    assert [("TEXT_SUCCESSFUL", True), ("TEXT_DELIVERED", True)] == world.heard(sent)
    assert [200, 200] == [receipt.http for receipt in message.receipts]
    assert (message.id, str(attempt.id)) == (attempt.reference, message.client_ref)


async def test_a_failure_leads_to_a_call(world: World) -> None:
    sent = await world.send("+33600000300", "default")

    assert ["sms:FAILED", "voice:DELIVERED"] == world.rig.states(sent)
    assert ["sms", "voice"] == [message.channel for message in world.sandbox.messages()]


async def test_repeated_and_disordered_events_change_nothing(world: World) -> None:
    thrice, disordered = await world.send("+33600000500"), await world.send("+33600000600")
    early = await world.send("+33600000700")

    assert [["sms:DELIVERED"]] * 3 == [world.rig.states(one) for one in (thrice, disordered, early)]
    assert [("TEXT_SUCCESSFUL", True), ("TEXT_DELIVERED", True)] == world.heard(thrice)
    assert [("TEXT_DELIVERED", True), ("TEXT_SUCCESSFUL", False)] == world.heard(disordered)
    assert [200] * 10 == [
        receipt.http for message in world.sandbox.messages() for receipt in message.receipts
    ]


async def test_one_that_has_opted_out_gets_a_call(world: World) -> None:
    sent = await world.send("+33600001200", "default")

    assert ["sms:FAILED", "voice:DELIVERED"] == world.rig.states(sent)
    assert "opted_out" == world.rig.attempts(sent)[0].reason


async def test_plain_sns_confirms_nothing(world: World) -> None:
    sent = await world.send("+33600000000", "silent")
    (message,) = world.sandbox.messages()

    assert ["sms:SENT"] == world.rig.states(sent)
    assert message.arrived_at is not None
    assert message.id == world.rig.attempts(sent)[0].reference
    assert () == message.receipts


async def test_forged_callbacks_are_refused(world: World) -> None:
    sent = await world.send("+33600000200")  # silent: everything that follows would be new
    (attempt,) = world.rig.attempts(sent)
    event = {
        "eventType": "TEXT_DELIVERED",
        "messageId": attempt.reference,
        "context": {"attempt": str(attempt.id)},
    }
    message, now = orjson.dumps(event).decode(), world.rig.clock.now()
    real = f"{world.account['endpoint']}/SimpleNotificationService-0.pem"
    bodies = [
        sns.signed(message, now, TopicArn=TOPIC, SigningCertURL=real),
        sns.signed(message, now, TopicArn=TOPIC),
        sns.signed(message, now),
        message.encode(),
        b"",
    ]
    answers = [await world.http.post(world.callback, content=body) for body in bodies]
    elsewhere = world.callback.replace(KEY, "another-key")
    answers.append(await world.http.post(elsewhere, content=bodies[0]))

    assert [401] * 6 == [answer.status_code for answer in answers]
    assert ["sms:SENT"] == world.rig.states(sent)
    assert [] == world.heard(sent)


async def test_nobody_elses_topic_is_confirmed(world: World) -> None:
    body = sns.confirmation(world.rig.clock.now(), TopicArn=TOPIC)
    answer = await world.http.post(world.callback, content=body)

    assert 401 == answer.status_code
