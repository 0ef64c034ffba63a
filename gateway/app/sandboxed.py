"""The sandbox beside the gateway: the embedded default, without any account anywhere."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from gateway import config
from gateway.app import accounts, clock
from gateway.app.accounts import Ground, made
from gateway.config import Settings
from gateway.domain.delivery import State
from gateway.domain.keyring import KEY_BYTES, Keyring
from gateway.domain.workflow import Step, Until
from gateway.ports import Provider, Secret
from gateway.sandbox import Sandbox, SandboxSettings


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the sandbox listens on this machine: its web, an SMPP centre, a mail server. The last
    two are free ones of each start."""

    web: int
    smpp: int = 2775
    mail: int = 2525


def with_sandbox(
    settings: Settings, keyring: Keyring, ports: Ports, *, patience: int = 60, reading: int = 120
) -> Settings:
    """The settings with the sandbox's routes and workflows: `default` is Messenger, then SMS, then
    a call; others begin with each vendor, and one named as a route has that route alone.

    `patience` of every step in seconds, `reading` of Vonage's Messenger.
    """
    ground = _ground(keyring, ports, settings.public_url)
    providers = (*_own_routes(ground), *accounts.routes(ground))
    messenger = _step("messenger", "messenger", patience, Until.READ)
    sms = _step("sms", "octopush", patience, Until.DELIVERED)
    voice = _step("voice", "octopush_voice", patience, Until.DELIVERED)
    alone = {one.name: (_step(one.channel, one.name, patience, _best(one)),) for one in providers}
    workflows = {  # a request that names a channel goes the way of the first that has it
        "default": (messenger, sms, voice),
        "sms": (sms, voice),
        "whatsapp": (*alone["whatsapp"], sms),
        "telegram": (*alone["telegram"], sms),
        "vonage": (
            _step("messenger", "vonage_messenger", reading, Until.READ),
            *alone["vonage_sms"],
        ),
        "twilio": (*alone["twilio_whatsapp"], *alone["twilio_sms"], *alone["twilio_voice"]),
        "aws": (*alone["aws_sms"], *alone["aws_voice"]),
    }
    return config.replace(settings, providers, {**workflows, **alone, **workflows})


def _best(provider: Provider[Any, Any]) -> Until:
    """The most a step on that route can wait for, short of the typed code."""
    if State.READ in provider.confirms:
        return Until.READ
    return Until.DELIVERED if State.DELIVERED in provider.confirms else Until.SENT


def simulated(
    settings: Settings, keyring: Keyring, world: str, *, patience: int, prefix: str
) -> Settings:
    """The settings with routes to a sandbox at `world`, whose names and accounts begin with
    `prefix`: the messenger, then SMS, then a call.
    """
    ground = Ground(world, settings.public_url, partial(_secret, keyring), 0, 0)
    chain = (
        _step("messenger", f"{prefix}messenger", patience, Until.READ),
        _step("sms", f"{prefix}octopush", patience, Until.DELIVERED),
        _step("voice", f"{prefix}octopush_voice", patience, Until.DELIVERED),
    )
    own = _own_routes(ground, prefix)
    return config.replace(settings, own, {"default": chain, "sms": chain[1:]})


def _own_routes(ground: Ground, prefix: str = "") -> tuple[Provider[Any, Any], ...]:
    secret = ground.secret
    octopush: dict[str, Any] = {
        "account": f"{prefix}octopush",
        "api_login": "sandbox@example.com",
        "api_key": secret("octopush-key"),
        "callback_key": (secret(f"{prefix}octopush-callback"),),
        "base_url": f"{ground.world}/octopush/v1/public",
        "sender": "SANDBOX",
    }
    return (
        made(
            "messenger",
            name=f"{prefix}messenger",
            channel="messenger",
            account=f"{prefix}messenger",
            token=secret("messenger-token"),
            callback_secret=(secret(f"{prefix}messenger-callback"),),
            base_url=f"{ground.world}/messenger/v1",
        ),
        made("octopush", name=f"{prefix}octopush", channel="sms", **octopush),
        made("octopush", name=f"{prefix}octopush_voice", channel="voice", **octopush),
    )


def no_keyring() -> Keyring:
    """A keyring for looking at the sandbox's routes where their secrets do not matter."""
    return Keyring("none", {"none": bytes(KEY_BYTES)}, bytes(KEY_BYTES))


def _step(channel: str, route: str, patience: int, until: Until) -> Step:
    return Step(channel=channel, routes=(route,), patience=patience, until=until)


def _ground(keyring: Keyring, ports: Ports, public_url: str) -> Ground:
    secret = partial(_secret, keyring)
    return Ground(f"http://127.0.0.1:{ports.web}", public_url, secret, ports.smpp, ports.mail)


def _secret(keyring: Keyring, purpose: str) -> Secret:
    return Secret(keyring.index("sandbox", purpose).hex())


def sandbox_settings(
    keyring: Keyring, public_url: str, port: int = 8081, **more: Any
) -> SandboxSettings:
    """The sandbox's side of the same accounts; it listens on that port of this machine."""
    ground = _ground(keyring, Ports(port), public_url)
    return SandboxSettings(**_own_accounts(ground) | {"accounts": accounts.known(ground)} | more)


def simulated_settings(
    keyring: Keyring, public_url: str, prefix: str, **more: Any
) -> SandboxSettings:
    """The sandbox's side of the accounts of `simulated`."""
    ground = Ground("", public_url, partial(_secret, keyring), 0, 0)
    return SandboxSettings(**_own_accounts(ground, prefix) | more)


def _own_accounts(ground: Ground, prefix: str = "") -> dict[str, Any]:
    key = ground.secret(f"{prefix}octopush-callback")
    return {
        "octopush_login": "sandbox@example.com",
        "octopush_key": ground.secret("octopush-key"),
        "octopush_callback_url": ground.callback(f"{prefix}octopush", key),
        "messenger_token": ground.secret("messenger-token"),
        "messenger_secret": ground.secret(f"{prefix}messenger-callback"),
    }


@contextlib.asynccontextmanager
async def sandbox(settings: SandboxSettings) -> AsyncGenerator[Sandbox]:
    """A sandbox whose receipts leave by HTTP."""
    async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:

        async def post(url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
            answer = await client.post(url, content=content, headers=dict(headers))
            return answer.status_code

        world = Sandbox(settings, post, clock.now)
        try:
            yield world
        finally:
            await world.aclose()
