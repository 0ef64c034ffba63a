"""Vonage all the way: the real provider calls the real sandbox over HTTP, and the signed receipts
come back over HTTP into a real gateway. Only time is ours."""

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import orjson
import pytest
from fakes import Clock
from keypair import key_pair
from rig import Rig
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import config
from gateway.app import process
from gateway.domain.delivery import State
from gateway.domain.workflow import Step, Until
from gateway.ports import Secret
from gateway.providers.vonage import Vonage
from gateway.sandbox import Message, Sandbox, SandboxSettings
from gateway.transports.http import HttpTransport
from gateway.transports.pool import ConnectionPool

APPLICATION = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
SIGNATURE = Secret("signature-secret-of-the-account")
SENDERS = {
    "messenger": "107083064136738",
    "rcs": "ACME",
    "sms": "ACME",
    "viber": "12345",
    "voice": "+447700900001",
    "whatsapp": "+447700900001",
}


def provider(channel: str, clock: Clock, vendor_port: int) -> Vonage:
    """The route of one channel; all of them are one account."""
    return Vonage(
        Vonage.Settings(
            name=f"vonage_{channel}",
            channel=channel,
            account="vonage",
            sender=SENDERS[channel],
            base_url=f"http://127.0.0.1:{vendor_port}/vonage/v1",
            application_id=APPLICATION,
            private_key=key_pair().private,
            api_key="abcd1234",
            signature_secret=(SIGNATURE,),
            whatsapp_template="otp",
        ),
        now=clock.now,
    )


def step(channel: str, patience: int = 60, until: Until = Until.DELIVERED) -> Step:
    return Step(channel=channel, routes=(f"vonage_{channel}",), patience=patience, until=until)


def account(port: int) -> Mapping[str, str]:
    """The vendor's side of it. Its status URL is that of one route and serves all."""
    return {
        "application_id": APPLICATION,
        "public_key": key_pair().public,
        "api_key": "abcd1234",
        "signature_secret": SIGNATURE,
        "status_url": f"http://127.0.0.1:{port}/otp/delivered/vonage_sms",
    }


def requests_only(web: ASGIApp) -> ASGIApp:
    """An application that is started and stopped by the rig and not by its server."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await web(scope, receive, send)

    return called


@dataclass
class World:
    """The gateway, the vendor, and the address by which the vendor knows the gateway."""

    rig: Rig
    vendor: Sandbox
    url: str

    async def send(self, number: str, workflow: str) -> str:
        """Send a code, and let everything happen that happens at once."""
        accepted = await self.rig.send(number, workflow=workflow)
        await self.happen()
        return str(accepted["verification_id"])

    async def pass_time(self, seconds: float) -> None:
        await self.rig.reconcile(seconds)
        await self.happen()

    async def happen(self) -> None:
        """Receipts make messages and messages make receipts, until there is nothing more."""
        for _ in range(3):
            await self.vendor.drain()
            await self.rig.settle()

    def got(self, number: str) -> Message:
        """The last thing that reached the phone."""
        return self.vendor.messages(number)[-1]


@pytest.fixture
async def world(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[World]:
    ours, theirs = process.bind("127.0.0.1", 0), process.bind("127.0.0.1", 0)
    port, vendor_port = process.port_of(ours), process.port_of(theirs)
    routes = tuple(provider(channel, clock, vendor_port) for channel in SENDERS)
    sms, voice = step("sms"), step("voice")
    workflows = {
        "default": (step("messenger", 120, Until.READ), sms),
        "sms": (sms, voice),
        **{f"{channel}_only": (step(channel),) for channel in SENDERS},
    }
    loaded = config.load({"GATEWAY_DATA_DIR": str(tmp_path)}, public_url=f"http://127.0.0.1:{port}")
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))

        async def post(url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
            return (await client.post(url, content=content, headers=dict(headers))).status_code

        given = SandboxSettings(
            octopush_login="",
            octopush_key="",
            octopush_callback_url=None,
            messenger_token="",
            messenger_secret="",
            accounts={"vonage": account(port)},
            receipt_delay=0.0,
            late=0.0,
        )
        vendor = Sandbox(given, post, clock.now)
        stack.push_async_callback(vendor.aclose)
        await stack.enter_async_context(process.served(vendor.app, theirs, grace=1))
        rig = Rig(
            tmp_path,
            migrated,
            clock,
            settings=config.replace(loaded, routes, workflows),
            carrier=HttpTransport(ConnectionPool()),
        )
        await stack.enter_async_context(rig)
        serving = process.served(requests_only(rig.gateway.web), ours, grace=1)
        await stack.enter_async_context(serving)
        yield World(rig, vendor, f"http://127.0.0.1:{port}")


async def test_a_code_is_delivered_and_verified(world: World) -> None:
    verification = await world.send("+33600000000", "sms")
    code = re.search(r"[0-9]{6}", world.got("+33600000000").text)
    assert code is not None
    answer = await world.rig.verify(verification, code[0])

    assert ["sms:DELIVERED"] == world.rig.states(verification)
    assert {200} == {receipt.http for receipt in world.got("+33600000000").receipts}
    assert 200 == answer.status_code


@pytest.mark.parametrize("channel", ["messenger", "whatsapp", "viber", "rcs"])
async def test_a_chat_message_is_read(world: World, channel: str) -> None:
    verification = await world.send("+33600010000", f"{channel}_only")

    assert [f"{channel}:READ"] == world.rig.states(verification)


async def test_a_message_that_nobody_reads_in_two_minutes_is_followed_by_an_sms(
    world: World,
) -> None:
    """Delivered to Messenger at once, and left lying there."""
    verification = await world.send("+33600000000", "default")
    assert ["messenger:DELIVERED"] == world.rig.states(verification)

    await world.pass_time(119)
    assert ["messenger:DELIVERED"] == world.rig.states(verification)

    await world.pass_time(2)
    chat, sms = world.vendor.messages("+33600000000")
    assert ["messenger:DELIVERED", "sms:DELIVERED"] == world.rig.states(verification)
    assert chat.text[:6] == sms.text[:6]


async def test_a_message_that_is_read_is_followed_by_nothing(world: World) -> None:
    verification = await world.send("+33600010000", "default")
    await world.pass_time(121)

    assert ["messenger:READ"] == world.rig.states(verification)


async def test_after_an_sms_that_failed_the_phone_rings(world: World) -> None:
    verification = await world.send("+33600000300", "sms")
    await world.pass_time(1)
    call = world.got("+33600000300")

    assert ["sms:FAILED", "voice:DELIVERED"] == world.rig.states(verification)
    assert "absent" == world.rig.attempts(verification)[0].reason
    assert re.search(r"([0-9], ){5}[0-9]", call.text)
    assert {200} == {receipt.http for receipt in call.receipts}


@pytest.mark.parametrize("digits", ["05", "06", "07", "14", "15"])
async def test_receipts_may_come_thrice_reversed_early_or_in_conflict(
    world: World, digits: str
) -> None:
    verification = await world.send(f"+3360000{digits}00", "sms_only")
    called = await world.send(f"+336000000{digits}", "voice_only")

    assert ["sms:DELIVERED"] == world.rig.states(verification)
    assert ["voice:DELIVERED"] == world.rig.states(called)


async def test_a_refused_number_is_not_called_back_by_anyone(world: World) -> None:
    verification = await world.send("+33600001200", "sms_only")
    (attempt,) = world.rig.attempts(verification)

    assert (State.FAILED, "bad_destination") == (attempt.state, attempt.reason)


async def test_a_forged_receipt_is_401_and_changes_nothing(world: World) -> None:
    verification = await world.send("+33600000200", "sms_only")
    (attempt,) = world.rig.attempts(verification)
    body = orjson.dumps(
        {
            "message_uuid": attempt.reference,
            "to": "33600000200",
            "status": "delivered",
            "client_ref": str(attempt.id),
        }
    )
    nobody = "eyJhbGciOiJub25lIn0.eyJpYXQiOjE3MzU3NDAwMDB9."
    async with httpx.AsyncClient(trust_env=False) as stranger:
        answers = [
            await stranger.post(
                f"{world.url}/otp/delivered/vonage_sms", content=body, headers=headers
            )
            for headers in ({}, {"authorization": f"Bearer {nobody}"})
        ]
    await world.rig.settle()

    assert [401, 401] == [answer.status_code for answer in answers]
    assert ["sms:SENT"] == world.rig.states(verification)


async def test_another_applications_key_sends_nothing(world: World) -> None:
    """The account is refused, not the number: what a wrong `private_key` looks like."""
    route = world.rig.runtime.routes["vonage_sms"].provider
    assert isinstance(route, Vonage)
    wrong = replace(route._settings, private_key=key_pair("another").private)
    route._auth = Vonage(wrong, now=route.now).auth()
    verification = await world.send("+33600000000", "sms_only")
    (attempt,) = world.rig.attempts(verification)

    assert (State.FAILED, "unauthorized") == (attempt.state, attempt.reason)
    assert [] == world.vendor.messages()
