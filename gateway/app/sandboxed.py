"""The sandbox beside the gateway: the embedded default, without any account anywhere."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

import httpx

from gateway import config
from gateway.app.wiring import clock
from gateway.config import Settings
from gateway.domain.keyring import KEY_BYTES, Keyring
from gateway.domain.workflow import Until
from gateway.ports import Provider, Secret
from gateway.providers import PROVIDERS
from gateway.sandbox import Sandbox, SandboxSettings


def with_sandbox(
    settings: Settings, keyring: Keyring, port: int, *, patience: int = 60
) -> Settings:
    """The settings with the sandbox's routes: Messenger, then SMS, then a call."""
    return simulated(settings, keyring, f"http://127.0.0.1:{port}", patience=patience)


def simulated(
    settings: Settings, keyring: Keyring, world: str, *, patience: int, prefix: str = ""
) -> Settings:
    """The settings with routes to a sandbox at `world`, their names and accounts after `prefix`."""
    secret = partial(_sandbox_secret, keyring)
    octopush: dict[str, Any] = {
        "account": f"{prefix}octopush",
        "api_login": "sandbox@example.com",
        "api_key": secret("octopush-key"),
        "callback_key": (secret(f"{prefix}octopush-callback"),),
        "base_url": f"{world}/octopush/v1/public",
        "sender": "SANDBOX",
    }
    providers = (
        _made(
            "messenger",
            name=f"{prefix}messenger",
            channel="messenger",
            account=f"{prefix}messenger",
            token=secret("messenger-token"),
            callback_secret=(secret(f"{prefix}messenger-callback"),),
            base_url=f"{world}/messenger/v1",
        ),
        _made("octopush", name=f"{prefix}octopush", channel="sms", **octopush),
        _made("octopush", name=f"{prefix}octopush_voice", channel="voice", **octopush),
    )
    chain = (
        _step("messenger", f"{prefix}messenger", patience, Until.READ),
        _step("sms", f"{prefix}octopush", patience, Until.DELIVERED),
        _step("voice", f"{prefix}octopush_voice", patience, Until.DELIVERED),
    )
    return config.replace(settings, providers, {"default": chain, "sms": chain[1:]})


def no_keyring() -> Keyring:
    """A keyring for looking at the sandbox's routes where their secrets do not matter."""
    return Keyring("none", {"none": bytes(KEY_BYTES)}, bytes(KEY_BYTES))


def _step(channel: str, route: str, patience: int, until: Until) -> config.StepSettings:
    return config.StepSettings(channel=channel, routes=(route,), patience=patience, until=until)


def _made(kind: str, **values: Any) -> Provider[Any, Any]:
    chosen = PROVIDERS[kind]
    return chosen(chosen.Settings(**values))


def _sandbox_secret(keyring: Keyring, purpose: str) -> Secret:
    return Secret(keyring.index("sandbox", purpose).hex())


def sandbox_settings(
    keyring: Keyring, public_url: str, prefix: str = "", /, **timing: Any
) -> SandboxSettings:
    """The sandbox's side of the same accounts."""
    secret = partial(_sandbox_secret, keyring)
    key = secret(f"{prefix}octopush-callback")
    return SandboxSettings(
        octopush_login="sandbox@example.com",
        octopush_key=secret("octopush-key"),
        octopush_callback_url=f"{public_url}/otp/delivered/{prefix}octopush/{key}",
        messenger_token=secret("messenger-token"),
        messenger_secret=secret(f"{prefix}messenger-callback"),
        **timing,
    )


@contextlib.asynccontextmanager
async def sandbox(settings: SandboxSettings) -> AsyncGenerator[Sandbox]:
    """A sandbox whose receipts leave by HTTP."""
    async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:

        async def post(url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
            answer = await client.post(url, content=content, headers=dict(headers))
            return answer.status_code

        world = Sandbox(settings, post, clock)
        try:
            yield world
        finally:
            await world.aclose()
