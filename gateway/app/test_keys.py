"""What test keys reach: a sandbox inside this process, without a socket.

Its routes have names of their own beside the configured ones, and a runtime that knows no others:
a test key cannot name a live route, nor a live key one of these. Requests and receipts take the
real path, but for the wire.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime
from typing import Any

import httpx
from starlette.types import ASGIApp

from gateway.app import clock
from gateway.app.routes import Realm
from gateway.app.sandboxed import simulated, simulated_settings
from gateway.config import Settings, SettingsError
from gateway.domain.keyring import Keyring
from gateway.sandbox import Sandbox
from gateway.transports.http import HttpTransport

Now = Callable[[], datetime]

PREFIX = "test_"  # of its routes and accounts
_WORLD = "http://127.0.0.1"  # where the simulated providers seem to be
_GATEWAY = "http://gateway"  # and where they seem to find us
_PATIENCE = 60


class Inside:
    """The sandbox inside. `attach` gives it the gateway that its receipts go to."""

    def __init__(
        self, settings: Settings, keyring: Keyring, now: Now = clock.now, **timing: Any
    ) -> None:
        self._public_url = settings.public_url
        self._client: httpx.AsyncClient | None = None
        given = simulated_settings(keyring, settings.public_url, PREFIX, **timing)
        self._world = Sandbox(given, self._post, now)
        self.realm = Realm(
            simulated(settings, keyring, _WORLD, patience=_PATIENCE, prefix=PREFIX),
            HttpTransport(httpx.ASGITransport(self._world.app)),
        )
        _no_clash(settings, self.realm.settings)

    def attach(self, gateway: ASGIApp) -> None:
        """From now on receipts arrive."""
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(gateway), base_url=_GATEWAY, trust_env=False
        )

    async def aclose(self) -> None:
        """Drop the receipts that are pending."""
        await self._world.aclose()
        if self._client is not None:
            await self._client.aclose()

    async def drain(self) -> None:
        """Wait until every pending receipt was posted."""
        await self._world.drain()

    async def _post(self, url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
        """The public address may have a path that a proxy takes away."""
        if self._client is None:
            raise ConnectionError("the gateway is not there yet")
        path = url.removeprefix(self._public_url)
        answer = await self._client.post(path, content=content, headers=dict(headers))
        return answer.status_code


@contextlib.asynccontextmanager
async def inside(settings: Settings, keyring: Keyring) -> AsyncGenerator[Inside]:
    """A sandbox for test keys, for as long as the block lasts. Raises SettingsError when a
    configured route has the name of one of its own."""
    made = Inside(settings, keyring)
    try:
        yield made
    finally:
        await made.aclose()


def _no_clash(settings: Settings, test: Settings) -> None:
    taken = {name for one in test.providers for name in (one.name, one.account)}
    clashing = {
        f"routes.{one.name}": f"{PREFIX}… are the routes of test keys; choose another name"
        for one in settings.providers
        if taken & {one.name, one.account}
    }
    if clashing:
        raise SettingsError(clashing)
