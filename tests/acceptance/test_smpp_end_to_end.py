"""A whole gateway and the sandbox's SMSC, over a socket: from the request to the receipt, and what
becomes of both when something breaks.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes import Clock
from rig import Rig, make_settings

from gateway import config
from gateway.app import wiring
from gateway.app.carriers import Starts
from gateway.domain.delivery import Outcome
from gateway.domain.workflow import Step, Until
from gateway.ports import Secret
from gateway.providers.smpp import Smpp
from gateway.sandbox import Sandbox, SandboxSettings
from gateway.transports.smpp import SmppTransport

PATIENCE = 10.0  # real seconds after which what is waited for will not come
PASSWORD = "password"


async def no_post(url: str, **_: Any) -> int:
    raise AssertionError("receipts of this centre do not go by HTTP")


@dataclass
class World:
    """The gateway and the centre."""

    rig: Rig
    sandbox: Sandbox

    async def send(self, number: str) -> str:
        """Hands a code over; the verification's id."""
        return str((await self.rig.send(number))["verification_id"])

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not reached():  # noqa: ASYNC110  it happens in the database and on the phone
                await asyncio.sleep(0.01)

    async def comes_to(self, verification_id: str, state: str) -> None:
        await self.until(lambda: self.rig.states(verification_id) == [f"sms:{state}"])


@contextlib.asynccontextmanager
async def running(
    folder: Path, migrated: Path, clock: Clock, password: str = PASSWORD, **account: str
) -> AsyncIterator[World]:
    """Both, connected; the route `smpp`, twice, as one account has it."""
    given = {"system_id": "acme", "password": PASSWORD, **account}
    settings = SandboxSettings(
        octopush_login="",
        octopush_key="",
        octopush_callback_url=None,
        messenger_token="",
        messenger_secret="",
        accounts={"smpp": given},
        receipt_delay=0.01,
        hang=0.1,
        late=0.01,
    )
    sandbox = Sandbox(settings, no_post, clock.now)
    port = await sandbox.smsc.start()
    ids = "receipt_decimal" if account.get("receipt_ids") == "decimal" else "same"
    providers = tuple(
        Smpp(
            Smpp.Settings(
                name=name,
                channel="sms",
                account="smpp",
                sender=sender,
                host="127.0.0.1",
                port=port,
                tls=False,
                system_id="acme",
                password=Secret(password),
                message_ids=ids,
            )
        )
        for name, sender in (("smpp", "ACME"), ("smpp_short", "38123"))
    )
    step = Step(channel="sms", routes=("smpp",), patience=60, until=Until.DELIVERED)
    routed = config.replace(make_settings(folder), providers, {"default": (step,)})
    rig = Rig(folder, migrated, clock, transport=None, settings=routed)  # type: ignore[arg-type]
    await rig.start()
    sessions = [one for one in rig.gateway.transports if isinstance(one, Starts)]
    assert sessions
    for session in sessions:
        await session.start()
    try:
        yield World(rig, sandbox)
    finally:
        await rig.stop()
        await sandbox.aclose()


@pytest.fixture
async def world(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[World]:
    async with running(tmp_path, migrated, clock) as made:
        yield made


async def test_a_code_is_delivered_and_typed(world: World) -> None:
    named = await world.send("+33600000000")
    await world.comes_to(named, "DELIVERED")
    (message,) = world.sandbox.messages()
    code = message.text.split()[0]
    attempt = world.rig.attempts(named)[0]

    assert ("ACME", message.id) == (message.sender, attempt.reference)
    assert 200 == (await world.rig.verify(named, code)).status_code
    await world.until(lambda: [200, 200] == [r.http for r in world.sandbox.messages()[0].receipts])


@pytest.mark.parametrize(
    ("number", "state"),
    [
        ("+33600000300", "FAILED"),
        ("+33600000500", "DELIVERED"),  # each receipt three times
        ("+33600000600", "DELIVERED"),  # receipts in the wrong order
        ("+33600000700", "DELIVERED"),  # receipts before the submit_sm_resp
        ("+33600001000", "DELIVERED"),  # an answer that comes late
        ("+33600001300", "ACK"),
        ("+33600001400", "DELIVERED"),  # failed, then delivered after all
        ("+33600001500", "DELIVERED"),  # a word nobody knows
        ("+33600001200", "FAILED"),  # refused
    ],
)
async def test_what_becomes_of_a_message(world: World, number: str, state: str) -> None:
    named = await world.send(number)

    await world.comes_to(named, state)
    assert 1 == len(world.sandbox.messages())


@pytest.mark.parametrize(
    ("number", "state"),
    [
        ("+33600000000", "DELIVERED"),
        ("+33600000300", "FAILED"),
        ("+33600000500", "DELIVERED"),  # each receipt three times
        ("+33600000700", "DELIVERED"),  # receipts before the submit_sm_resp
    ],
)
async def test_what_becomes_of_a_long_text(world: World, number: str, state: str) -> None:
    key = await world.rig.client("long", "send status text")
    body = {"to": number, "text": "{code} " + "is your code " * 20}
    answer = await world.rig.call("/otp/send", body, key=key)

    await world.comes_to(answer.json()["verification_id"], state)
    texts = [message.text for message in world.sandbox.messages()]
    assert 2 == len(texts)
    assert "".join(texts).endswith("is your code " * 20)


async def test_ids_in_two_spellings(tmp_path: Path, migrated: Path, clock: Clock) -> None:
    async with running(tmp_path, migrated, clock, receipt_ids="decimal") as world:
        await world.comes_to(await world.send("+33600000000"), "DELIVERED")


async def test_a_refused_bind_is_a_matter_of_the_account(
    tmp_path: Path, migrated: Path, clock: Clock
) -> None:
    async with running(tmp_path, migrated, clock, password="wrong") as world:
        named = await world.send("+33600000000")
        (attempt,) = world.rig.attempts(named)

        assert (Outcome.ACCOUNT, "unauthorized") == (attempt.outcome, attempt.reason)
        assert [] == world.sandbox.messages()


async def test_a_broken_connection_sends_no_second_code(world: World) -> None:
    """The answer breaks off: nobody knows, so nothing is sent again, and the receipt, which names
    an id that was never heard, moves nothing."""
    named = await world.send("+33600001100")
    (attempt,) = world.rig.attempts(named)
    await world.until(lambda: 200 in [r.http for r in world.sandbox.messages()[0].receipts])
    await world.rig.reconcile(5)

    assert (Outcome.UNKNOWN, "connection_lost") == (attempt.outcome, attempt.reason)
    assert 1 == len(world.sandbox.messages())
    assert ["sms:SENT"] == world.rig.states(named)

    other = await world.send("+33600000000")  # bound again
    await world.comes_to(other, "DELIVERED")


async def test_a_receipt_is_answered_once_it_is_committed(world: World) -> None:
    """While another process holds the database, the centre waits for its deliver_sm_resp."""
    named = await world.send("+33600000200")  # silent
    (message,) = world.sandbox.messages()
    heard: list[int] = []

    async def tell() -> None:
        text = f"id:{message.id} stat:DELIVRD".encode()
        head = b"\0\1\x0133600000200\0\0\0ACME\0\x04\0\0\0\0\0\0\0\0"
        heard.append(await world.sandbox.smsc.bound[-1].deliver(head + bytes([len(text)]) + text))

    with world.rig.locked(seconds=5):
        telling = asyncio.create_task(tell())
        await asyncio.sleep(0.1)
        assert [] == heard
        assert ["sms:SENT"] == world.rig.states(named)
    await telling

    assert [0] == heard
    assert ["sms:DELIVERED"] == world.rig.states(named)


async def test_nothing_comes_over_http(world: World) -> None:
    body = b"\0\0\0\x10\0\0\0\x05\0\0\0\0\0\0\0\x01"
    before = world.rig.dump()
    statuses = [
        (await world.rig.http.request(method, path, content=body)).status_code
        for method in ("POST", "GET")
        for path in ("/otp/delivered/smpp", "/otp/delivered/smpp/key")
    ]

    assert [401] * 4 == statuses
    assert 405 == (await world.rig.http.request("SMPP", "/otp/delivered/smpp")).status_code
    assert before == world.rig.dump()


async def test_the_routes_of_an_account_share_a_session(world: World) -> None:
    sessions = [one for one in world.rig.gateway.transports if isinstance(one, SmppTransport)]

    await world.until(lambda: len(world.sandbox.smsc.bound) > 0)
    assert 1 == len(sessions)
    assert 1 == len(world.sandbox.smsc.bound)


async def test_the_session_begins_and_ends_with_the_gateway(world: World) -> None:
    """Started as the web application's lifespan does it, with a worker and the real clock."""
    settings = world.rig.settings
    assert settings is not None
    gateway = wiring.build(settings, world.rig.keyring)
    await world.until(lambda: 1 == len(world.sandbox.smsc.bound))
    await gateway.start()
    await world.until(lambda: 2 == len(world.sandbox.smsc.bound))
    await gateway.stop()

    await world.until(lambda: 1 == len(world.sandbox.smsc.bound))


async def test_a_clean_stop_unbinds(tmp_path: Path, migrated: Path, clock: Clock) -> None:
    async with running(tmp_path, migrated, clock) as world:
        await world.send("+33600000200")
        assert 1 == len(world.sandbox.smsc.bound)
        await world.rig.stop()
        await world.until(lambda: not world.sandbox.smsc.bound)
        await world.rig.start()
