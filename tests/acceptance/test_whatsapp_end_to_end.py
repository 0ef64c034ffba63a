"""WhatsApp end to end: the real provider, over sockets, to the sandbox, and its statuses back."""

import asyncio
import hashlib
import hmac
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from rig import keyring

from gateway import config
from gateway.app import clock, process, sandboxed, wiring
from gateway.app.gateway import Gateway
from gateway.domain.identity import uuid7
from gateway.domain.workflow import Step, Until
from gateway.ports import Secret
from gateway.providers.whatsapp import Whatsapp
from gateway.sandbox import Message, Sandbox
from gateway.store import writes
from gateway.store.engine import SqliteEngine
from gateway.store.records import ApiKey, Client
from gateway.web import auth

NUMBER = "106540352242922"
APP_SECRET = Secret("app-secret-of-this-test")
VERIFY = Secret("verify-token-of-this-test")
TOKEN = Secret("token-of-this-test")
CALLBACK = "/otp/delivered/whatsapp"


def provider(world: str) -> Whatsapp:
    return Whatsapp(
        Whatsapp.Settings(
            name="whatsapp",
            account="whatsapp",
            channel="whatsapp",
            base_url=f"{world}/whatsapp",
            phone_number_id=NUMBER,
            token=TOKEN,
            callback_secret=(APP_SECRET,),
            verify_token=(VERIFY,),
            templates={"default": {"en_US": "otp_code"}},
        )
    )


@dataclass
class World:
    """A gateway and a sandbox, each on its socket, and a caller with a key."""

    gateway: Gateway
    sandbox: Sandbox
    http: httpx.AsyncClient
    key: str

    async def call(self, path: str, body: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        return await self.http.post(path, content=orjson.dumps(body), headers=headers)

    async def send(self, number: str) -> str:
        """Accepted, handed over, and everything heard of it; the verification's id."""
        answer = await self.call("/otp/send", {"to": number})
        assert 202 == answer.status_code, answer.text
        await self.settled()
        await self.sandbox.drain()
        await self.settled()
        return str(answer.json()["verification_id"])

    async def settled(self) -> None:
        async with asyncio.timeout(10):
            while self.gateway.dispatcher.under_way or self.gateway.ledger.depth:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def attempt(self, verification_id: str) -> dict[str, Any]:
        """The one attempt, as `/otp/status` shows it."""
        answer = await self.call("/otp/status", {"verification_id": verification_id})
        (attempt,) = answer.json()["attempts"]
        return dict(attempt)

    def message(self, number: str) -> Message:
        """What reached the phone."""
        return self.sandbox.messages(number)[-1]


@pytest.fixture
async def world(tmp_path: Path, migrated: Path) -> AsyncIterator[World]:
    inside, outside = process.bind("127.0.0.1", 0), process.bind("127.0.0.1", 0)
    ours, theirs = (f"http://127.0.0.1:{process.port_of(one)}" for one in (inside, outside))
    step = Step(channel="whatsapp", routes=("whatsapp",), patience=60, until=Until.READ)
    settings = config.replace(
        config.load({"GATEWAY_DATA_DIR": str(tmp_path)}, public_url=ours),
        (provider(theirs),),
        {"default": (step,)},
    )
    shutil.copy(migrated, settings.database)
    account = {
        "token": TOKEN,
        "phone_number_id": NUMBER,
        "app_secret": APP_SECRET,
        "callback_url": f"{ours}{CALLBACK}",
        "templates": "otp_code:en_US",
    }
    given = sandboxed.sandbox_settings(
        keyring(), ours, accounts={"whatsapp": account}, receipt_delay=0.01, late=0.05
    )
    async with AsyncExitStack() as stack:
        simulated = await stack.enter_async_context(sandboxed.sandbox(given))
        await stack.enter_async_context(process.served(simulated.app, outside, grace=1))
        gateway = wiring.build(settings, keyring())
        await stack.enter_async_context(process.served(gateway.web, inside, grace=1))
        client = httpx.AsyncClient(base_url=ours, trust_env=False)
        http = await stack.enter_async_context(client)
        yield World(gateway, simulated, http, await new_key(settings.database))


async def new_key(database: Path) -> str:
    """A client's key."""
    engine, key, now = SqliteEngine(database), auth.new_key(), clock.now()
    client = Client(uuid7(now, bytes(10)), "backend", now)
    digest = auth.digest(key)
    row = ApiKey(uuid7(now, digest[:10]), client.id, digest, "send verify status", now, None, None)
    await engine.begin()
    await writes.insert_client(engine, client, row)
    await engine.commit()
    await engine.close()
    return key


async def test_a_code_is_read_and_typed(world: World) -> None:
    number = "+33600010000"
    named = await world.send(number)
    attempt = await world.attempt(named)
    code = world.message(number).text.split()[0]
    checked = await world.call("/otp/verify", {"verification_id": named, "code": code})

    assert ("whatsapp", "READ") == (attempt["channel"], attempt["state"])
    assert ["sent", "delivered", "read"] == [one.word for one in world.message(number).receipts]
    assert (200, "VERIFIED") == (checked.status_code, checked.json()["status"])


async def test_a_failure_is_told(world: World) -> None:
    attempt = await world.attempt(await world.send("+33600030000"))

    assert ("FAILED", "not_processed") == (attempt["state"], attempt["reason"])


async def test_a_number_without_whatsapp_is_told(world: World) -> None:
    attempt = await world.attempt(await world.send("+33600120000"))

    assert ("FAILED", "unreachable") == (attempt["state"], attempt["reason"])


async def test_statuses_that_come_three_times_count_once(world: World) -> None:
    attempt = await world.attempt(await world.send("+33600050000"))

    assert ("DELIVERED", 4) == (attempt["state"], attempt["repeats"])
    assert [200] * 6 == [one.http for one in world.message("+33600050000").receipts]


async def test_statuses_may_overtake_the_answer(world: World) -> None:
    """The echo names the attempt before its reference is known."""
    attempt = await world.attempt(await world.send("+33600070000"))

    assert "DELIVERED" == attempt["state"]
    assert [200, 200] == [one.http for one in world.message("+33600070000").receipts]


async def test_a_delivery_after_a_failure_wins(world: World) -> None:
    """As it happens with several devices of one person."""
    attempt = await world.attempt(await world.send("+33600140000"))

    assert "DELIVERED" == attempt["state"]


async def test_a_forged_status_is_refused(world: World) -> None:
    named = await world.send("+33600020000")
    message = world.message("+33600020000")
    status = {"id": message.id, "status": "read", "biz_opaque_callback_data": message.client_ref}
    change = {"field": "messages", "value": {"statuses": [status]}}
    body = orjson.dumps({"object": "whatsapp_business_account", "entry": [{"changes": [change]}]})
    forged = [b"another secret", b""]
    answers = [await world.http.post(CALLBACK, content=body)]
    for secret in forged:
        headers = {"X-Hub-Signature-256": signed(secret, body)}
        answers.append(await world.http.post(CALLBACK, content=body, headers=headers))
    before = await world.attempt(named)
    headers = {"X-Hub-Signature-256": signed(APP_SECRET.encode(), body)}
    genuine = await world.http.post(CALLBACK, content=body, headers=headers)

    assert [401] * 3 == [answer.status_code for answer in answers]
    assert "SENT" == before["state"]
    assert 200 == genuine.status_code
    assert "READ" == (await world.attempt(named))["state"]


def signed(secret: bytes, body: bytes) -> str:
    return "sha256=" + hmac.digest(secret, body, hashlib.sha256).hex()


async def test_the_callback_url_proves_itself(world: World) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": VERIFY, "hub.challenge": "1158201444"}
    right = await world.http.get(CALLBACK, params=query)
    wrong = await world.http.get(CALLBACK, params=query | {"hub.verify_token": "wrong"})
    plain = await world.http.get(CALLBACK)

    assert (200, "1158201444") == (right.status_code, right.text)
    assert right.headers["content-type"].startswith("text/plain")
    assert [401, 401] == [wrong.status_code, plain.status_code]


async def test_the_account_can_be_looked_at(world: World) -> None:
    route = world.gateway.runtime.routes["whatsapp"]
    made: Any = route.provider
    answer = await route.transport.send(made.build_check(), within=5.0)

    assert made.parse_check(answer) is None
