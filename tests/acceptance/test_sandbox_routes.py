"""Every route of the embedded default: a code over each, its receipts back, and typed, over sockets
between a gateway and a sandbox put together as `serve` does it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from rig import PATIENCE, keyring

from gateway import config
from gateway.app import folder, looking, process, sandboxed, wiring
from gateway.app.accounts import AVOID
from gateway.cli import clients
from gateway.config import Settings
from gateway.domain.delivery import State
from gateway.providers import PROVIDERS
from gateway.services.runtime import Runtime
from gateway.store import schema

LOOKED_AT = sandboxed.with_sandbox(config.load({}), sandboxed.no_keyring(), sandboxed.Ports(8081))
ROUTES = {provider.name: provider for provider in LOOKED_AT.providers}
PHONED = [name for name, route in ROUTES.items() if route.channel != "email"]
READ = "+336000100"  # MM = 01: read where the channel tells it; the rest makes numbers distinct


@dataclass
class World:
    """A caller with a key, and what the handsets show."""

    http: httpx.AsyncClient
    phones: httpx.AsyncClient
    runtime: Runtime
    settings: Settings

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.http.post(path, json=body)

    async def heard(self, named: str, *states: str) -> dict[str, Any]:
        """The status, once the attempts are as wanted; what it was when they do not come so."""
        status: dict[str, Any] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while [f"{a['route']}:{a['state']}" for a in status.get("attempts", [])] != list(
                    states
                ):
                    await asyncio.sleep(0.02)
                    status = (await self.post("/otp/status", verification_id=named)).json()
        return status


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    inside, outside = process.bind("127.0.0.1", 0), process.bind("127.0.0.1", 0)
    ours, theirs = (f"http://127.0.0.1:{process.port_of(one)}" for one in (inside, outside))
    loaded = config.load({"GATEWAY_DATA_DIR": str(tmp_path)}, public_url=ours)
    folder.make_folders(loaded)
    folder.check_schema(loaded.database, migrate=schema.upgrade)
    timing = {"receipt_delay": 0.01, "late": 0.05}
    async with contextlib.AsyncExitStack() as stack:
        beside = process.beside(loaded, keyring(), outside, timing=timing)
        _, loaded = await stack.enter_async_context(beside)
        gateway = wiring.build(loaded, keyring())
        await stack.enter_async_context(process.served(gateway.web, inside, grace=1))
        _, _, key = await clients.new(loaded, "caller", "send verify status")
        headers = {"authorization": f"Bearer {key}"}
        caller = httpx.AsyncClient(base_url=ours, headers=headers, trust_env=False)
        looker = httpx.AsyncClient(base_url=theirs, trust_env=False)
        await stack.enter_async_context(caller)
        await stack.enter_async_context(looker)
        yield World(caller, looker, gateway.runtime, loaded)


def best(route: str) -> str:
    """How far a message that is read comes, as this route can tell."""
    confirms = ROUTES[route].confirms
    return str(max((State.SENT, *(confirms - {State.FAILED})), key=lambda state: state.rank))


async def test_every_route_delivers_a_code_that_verifies(world: World) -> None:
    async def one(at: int, route: str) -> tuple[str, list[str], int]:
        number = f"{READ}{20 + at}"
        sent = await world.post("/otp/send", to=number, workflow=route)
        assert 202 == sent.status_code, sent.text
        named = sent.json()["verification_id"]
        status = await world.heard(named, f"{route}:{best(route)}")
        found = [f"{a['route']}:{a['state']}" for a in status["attempts"]]
        shown = (await world.phones.get("/messages", params={"number": number[1:]})).json()
        text = re.sub(r"(?<=[0-9]), (?=[0-9])", "", shown["messages"][-1]["text"])
        code = re.findall(r"\b[0-9]{6}\b", text)[0]
        checked = await world.post("/otp/verify", verification_id=named, code=code)
        return route, found, checked.status_code

    played = await asyncio.gather(*(one(at, route) for at, route in enumerate(PHONED)))

    assert [(route, [f"{route}:{best(route)}"], 200) for route in PHONED] == played


@pytest.mark.parametrize(
    ("workflow", "states"),
    [
        ("default", ("messenger:FAILED", "octopush:DELIVERED")),
        ("vonage", ("vonage_messenger:FAILED", "vonage_sms:DELIVERED")),
        ("whatsapp", ("whatsapp:FAILED", "octopush:DELIVERED")),
        ("telegram", ("telegram:FAILED", "octopush:DELIVERED")),
        ("twilio", ("twilio_whatsapp:FAILED", "twilio_sms:DELIVERED")),
    ],
)
async def test_a_vendors_workflow_falls_back(
    world: World, workflow: str, states: tuple[str, str]
) -> None:
    sent = await world.post("/otp/send", to="+33600030000", workflow=workflow)
    status = await world.heard(sent.json()["verification_id"], *states)

    assert list(states) == [f"{a['route']}:{a['state']}" for a in status["attempts"]]


async def test_a_try_can_be_repeated_soon(world: World) -> None:
    """What a magic number's message says of the number is believed for seconds only."""
    for vendor in ("whatsapp", "telegram", "twilio_whatsapp", "vonage_whatsapp"):
        named = (await world.post("/otp/send", to="+33600121200", workflow=vendor)).json()
        own = () if vendor not in {"whatsapp", "telegram"} else ("octopush:FAILED",)
        await world.heard(named["verification_id"], f"{vendor}:FAILED", *own)
    soon = world.runtime.now() + timedelta(seconds=AVOID)
    past = await world.runtime.reads.past_suppressions(soon, 100)
    avoided = [way.account for way in past]

    assert ["telegram", "twilio", "vonage", "whatsapp"] == sorted(avoided)


async def test_every_account_can_be_looked_at(world: World) -> None:
    """What `gateway check --live` does; with another key the provider does not let us in."""
    found = dict(await looking.look(world.settings))
    port = world.phones.base_url.port or 0
    others = sandboxed.with_sandbox(world.settings, sandboxed.no_keyring(), sandboxed.Ports(port))
    refused = dict(await looking.look(others))
    asked = {name for name, wrong in found.items() if wrong != looking.NOT_ASKED}

    assert dict.fromkeys(asked) == {name: found[name] for name in asked}
    assert {"octopush", "octopush_voice", "twilio_sms", "aws_sms", "whatsapp"} <= asked
    assert all(refused[name] for name in asked)


async def test_a_provider_that_is_not_there_cannot_be_asked(world: World) -> None:
    with process.bind("127.0.0.1", 0) as nobody:
        port = process.port_of(nobody)
    gone = sandboxed.with_sandbox(world.settings, keyring(), sandboxed.Ports(port))
    found = dict(await looking.look(gone))

    assert "It cannot be asked (connect_error)." == found["octopush"]


def test_every_provider_has_a_route() -> None:
    kinds = {
        name
        for name, kind in PROVIDERS.items()
        for route in ROUTES.values()
        if isinstance(route, cast(type, kind))
    }

    assert set(PROVIDERS) == kinds


def test_a_channel_alone_goes_the_documented_way() -> None:
    first: dict[str, str] = {}
    for steps in LOOKED_AT.workflows.values():
        for step in steps:
            first.setdefault(step.channel, step.routes[0])

    assert {
        "messenger": "messenger",
        "sms": "octopush",
        "voice": "octopush_voice",
        "whatsapp": "whatsapp",
        "telegram": "telegram",
        "viber": "vonage_viber",
        "rcs": "vonage_rcs",
        "email": "smtp",
    } == first


def test_every_route_has_a_workflow() -> None:
    assert set(ROUTES) <= set(LOOKED_AT.workflows)
