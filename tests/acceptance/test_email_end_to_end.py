"""Mail from the API to the phone and back: the real providers over the real transports, the
sandbox on sockets, receipts over HTTP into the same gateway.

The last two digits of a mailbox, 33612345603@example.com, choose what the sandbox does.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from acceptance.outside import LOOK, busy
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from rig import keyring

from gateway import config
from gateway.app import carriers, clock, process, sandboxed, wiring
from gateway.app.gateway import Gateway
from gateway.config import Settings
from gateway.domain.identity import uuid7
from gateway.domain.workflow import Step, Until
from gateway.ports import Secret
from gateway.providers.mailgun import Mailgun
from gateway.providers.sendgrid import Sendgrid
from gateway.providers.smtp import Smtp
from gateway.sandbox import Message, Sandbox, SandboxSettings
from gateway.store import writes
from gateway.store.engine import SqliteEngine
from gateway.store.records import ApiKey, Client
from gateway.transports.smtp import SmtpTransport
from gateway.web import auth

VENDORS = ("smtp", "sendgrid", "mailgun")
WITHIN = 5.0  # seconds
CALLBACK_KEY = "callback-key-of-the-mail-account"
TAG_KEY = "key-of-the-tags"
SIGNING_KEY = "webhook-signing-key"
PRIVATE_KEY = ec.derive_private_key(4711, ec.SECP256R1())
PRIVATE = PRIVATE_KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
PUBLIC = PRIVATE_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

each_vendor = pytest.mark.parametrize("vendor", VENDORS)


def base64_of(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def accounts(public_url: str) -> dict[str, dict[str, str]]:
    """The sandbox's side of each account."""
    url = f"{public_url}/otp/delivered"
    return {
        "smtp": {
            "username": "otp",
            "password": "the-password",
            "callback_url": f"{url}/smtp/{CALLBACK_KEY}",
        },
        "sendgrid": {
            "api_key": "SG.key",
            "signing_key": base64_of(PRIVATE),
            "callback_url": f"{url}/sendgrid",
        },
        "mailgun": {
            "api_key": "key-0123",
            "domain": "mg.example.com",
            "signing_key": SIGNING_KEY,
            "callback_url": f"{url}/mailgun/{CALLBACK_KEY}",
        },
    }


def providers(sandbox_url: str, mail_port: int) -> tuple[Any, ...]:
    """Our side of them."""
    common: Callable[..., dict[str, Any]] = partial(
        dict, channel="email", from_address="otp@mg.example.com", sender="ACME"
    )
    callback_key = (Secret(CALLBACK_KEY),)
    smtp = common(
        name="smtp",
        account="smtp",
        host="127.0.0.1",
        port=mail_port,
        security="none",
        username="otp",
        password=Secret("the-password"),
        bounce_address="bounce@mg.example.com",
        tag_key=(Secret(TAG_KEY),),
        callback_key=callback_key,
        delivery_reports=True,
    )
    sendgrid = common(
        name="sendgrid",
        account="sendgrid",
        base_url=f"{sandbox_url}/sendgrid/v3",
        api_key=Secret("SG.key"),
        verification_key=(Secret(base64_of(PUBLIC)),),
    )
    mailgun = common(
        name="mailgun",
        account="mailgun",
        base_url=f"{sandbox_url}/mailgun/v3",
        domain="mg.example.com",
        api_key=Secret("key-0123"),
        signing_key=(Secret(SIGNING_KEY),),
        callback_key=callback_key,
    )
    return (
        Smtp(Smtp.Settings(**smtp)),
        Sendgrid(Sendgrid.Settings(**sendgrid)),
        Mailgun(Mailgun.Settings(**mailgun)),
    )


@dataclass
class World:
    """A gateway and a sandbox on sockets, and a caller."""

    gateway: Gateway
    sandbox: Sandbox
    http: httpx.AsyncClient
    key: str

    async def call(self, path: str, **body: object) -> Any:
        answer = await self.http.post(
            path, json=body, headers={"authorization": f"Bearer {self.key}"}
        )
        assert answer.status_code in {200, 202}, answer.text
        return answer.json()

    async def attempt(self, address: str) -> dict[str, Any]:
        (attempt,) = (await self.call("/otp/status", email=address))["attempts"]
        return dict(attempt)

    async def send(self, vendor: str, digits: str) -> str:
        """The mailbox it went to."""
        address = f"336123456{digits}@example.com"
        await self.call("/otp/send", to={"email": address}, workflow=vendor)
        return address

    async def becomes(self, address: str, **facts: object) -> dict[str, Any]:
        """Its only attempt, once this is so."""
        seen: dict[str, Any] = {}
        end = time.monotonic() + WITHIN * busy()
        while time.monotonic() < end:
            seen = await self.attempt(address)
            if facts.items() <= seen.items():
                return seen
            await asyncio.sleep(LOOK)
        raise AssertionError(f"{facts} expected: {seen}")

    def mail(self, address: str) -> Message:
        """The one mail that reached the mailbox."""
        (message,) = self.sandbox.messages(address)
        return message


@pytest.fixture
async def world(tmp_path: Path, migrated: Path) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        gate = stack.enter_context(process.bind("127.0.0.1", 0))
        box = stack.enter_context(process.bind("127.0.0.1", 0))
        public_url = f"http://127.0.0.1:{process.port_of(gate)}"
        simulated = await stack.enter_async_context(
            sandboxed.sandbox(
                SandboxSettings(
                    octopush_login="",
                    octopush_key="",
                    octopush_callback_url=None,
                    messenger_token="",
                    messenger_secret="",
                    accounts=accounts(public_url),
                    receipt_delay=0.02,
                    late=0.1,
                    hang=0.1,
                )
            )
        )
        await stack.enter_async_context(process.served(simulated.app, box, grace=1))
        made = providers(f"http://127.0.0.1:{process.port_of(box)}", await simulated.serve_mail())
        settings = set_up(tmp_path, migrated, public_url, made)
        gateway = wiring.build(settings, keyring())
        key = await add_client(settings.database)
        await stack.enter_async_context(process.served(gateway.web, gate))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=public_url, trust_env=False)
        )
        yield World(gateway, simulated, http, key)


def set_up(folder: Path, migrated: Path, public_url: str, made: tuple[Any, ...]) -> Settings:
    """A route and a workflow of one step for each vendor."""
    loaded = config.load({"GATEWAY_DATA_DIR": str(folder)}, public_url=public_url)
    shutil.copy(migrated, loaded.database)
    workflows = {
        vendor: (Step("email", (vendor,), patience=60, until=Until.DELIVERED),)
        for vendor in VENDORS
    }
    return config.replace(loaded, made, workflows)


async def add_client(database: Path) -> str:
    key, now, engine = auth.new_key(), clock.now(), SqliteEngine(database)
    client = Client(uuid7(now, os.urandom(10)), "backend", now)
    row = ApiKey(
        uuid7(now, os.urandom(10)),
        client.id,
        auth.digest(key),
        "send verify status",
        now,
        None,
        None,
    )
    await engine.begin()
    await writes.insert_client(engine, client, row)
    await engine.commit()
    await engine.close()
    return key


# The digits, and what must become of the one attempt.
ENDS: Mapping[str, Mapping[str, object]] = {
    "00": {"state": "DELIVERED", "repeats": 0},
    "03": {"state": "FAILED"},
    "05": {"state": "DELIVERED", "repeats": 4},  # every receipt three times
    "07": {"state": "DELIVERED"},  # receipts before the answer
    "10": {"state": "DELIVERED"},  # the answer is held
    "11": {"state": "DELIVERED"},  # the connection breaks before the answer
    "12": {"state": "FAILED"},  # refused at once
    "14": {"state": "DELIVERED"},  # reported as failed first
}


@each_vendor
async def test_a_mail_goes_out_once_and_ends_as_it_must(world: World, vendor: str) -> None:
    addresses = {digits: await world.send(vendor, digits) for digits in ENDS}
    for digits, address in addresses.items():
        await world.becomes(address, **ENDS[digits])
    delivered = world.mail(addresses["00"])

    assert "is your" in delivered.text
    assert "http" not in delivered.text
    assert delivered.arrived_at is not None
    assert [1] * len(ENDS) == [
        len(world.sandbox.messages(address)) for address in addresses.values()
    ]


@each_vendor
async def test_a_forged_callback_is_refused(world: World, vendor: str) -> None:
    """Without key and signature; what it says is right."""
    address = await world.send(vendor, "02")
    await world.becomes(address, state="SENT")
    named = world.mail(address).client_ref
    answers = [
        await world.http.post(f"/otp/delivered/{vendor}{key}", content=forged(vendor, named))
        for key in ("", "/other-key", *(("/" + CALLBACK_KEY,) if vendor != "smtp" else ()))
    ]

    assert {401} == {answer.status_code for answer in answers}
    assert "SENT" == (await world.attempt(address))["state"]


def forged(vendor: str, named: str | None) -> bytes:
    if vendor == "sendgrid":
        return f'[{{"event":"delivered","otp_attempt_id":"{named}"}}]'.encode()
    if vendor == "mailgun":
        return (
            f'{{"event-data":{{"event":"delivered","user-variables":{{"otp_attempt":"{named}"}}}}}}'
        ).encode()
    return f"To: bounce+{named}@mg.example.com\r\n\r\n".encode()


async def test_a_notification_without_our_tag_moves_nothing(world: World) -> None:
    address = await world.send("smtp", "02")
    await world.becomes(address, state="SENT")
    named = str(world.mail(address).client_ref)
    attempt_id, _, mac = named.rpartition("-")
    for envid, state in (
        (f"{attempt_id}-{'0' * 16}", "SENT"),
        (attempt_id, "SENT"),
        (named, "DELIVERED"),
    ):
        report = (
            'Content-Type: multipart/report; boundary="B"\r\n\r\n--B\r\n'
            f"Content-Type: message/delivery-status\r\n\r\nOriginal-Envelope-Id: {envid}\r\n\r\n"
            "Action: delivered\r\n\r\n--B--\r\n"
        )
        answer = await world.http.post(f"/otp/delivered/smtp/{CALLBACK_KEY}", content=report)

        assert 200 == answer.status_code
        assert state == (await world.attempt(address))["state"]
    assert hmac.new(TAG_KEY.encode(), attempt_id.encode(), hashlib.sha256).hexdigest()[:16] == mac


async def test_the_wire_decides_the_transport(world: World) -> None:
    kinds = {name: type(route.transport) for name, route in world.gateway.runtime.routes.items()}

    assert {"smtp"} == {name for name, kind in kinds.items() if kind is SmtpTransport}


def test_a_file_of_authorities_that_is_not_there_is_named() -> None:
    smtp = providers("http://127.0.0.1", 25)[0]
    smtp.server = replace(smtp.server, ca_file="/nowhere/ca.pem")

    with pytest.raises(config.SettingsError, match=r"routes\.smtp\.ca_file"):
        carriers.mail_carrier(smtp)
