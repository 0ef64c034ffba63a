"""A look at the providers' accounts: are we let in, is there credit, do the templates exist?"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from gateway.app import clock
from gateway.config import Settings
from gateway.ports import Provider, Request, Response, Timed, TransportError, Wire
from gateway.transports.http import HttpTransport
from gateway.transports.pool import ConnectionPool

NOT_ASKED = ""  # the provider has no such question, or lacks the credentials for it


@runtime_checkable
class Checks(Protocol):
    """A provider whose account can be looked at."""

    def build_check(self) -> Request | None:
        """The request that looks; None without the credentials for it."""
        ...

    def parse_check(self, response: Response) -> str | None:
        """What is wrong, in a sentence; None when all is well."""
        ...


async def look(settings: Settings) -> Sequence[tuple[str, str | None]]:
    """By route what is wrong with its account: None when all is well, NOT_ASKED where nothing could
    be asked. Sends no message, and costs nothing."""
    return await asyncio.gather(*(_look(provider) for provider in settings.providers))


async def _look(provider: Provider[Any, Any]) -> tuple[str, str | None]:
    if provider.wire is not Wire.HTTP or not isinstance(provider, Checks):
        return provider.name, NOT_ASKED
    if isinstance(provider, Timed):
        provider.now = clock.now
    request = provider.build_check()
    if request is None:
        return provider.name, NOT_ASKED
    signed = "authorization" in request.headers
    transport = HttpTransport(ConnectionPool())
    try:
        response = await transport.send(
            request, within=provider.timeout, auth=None if signed else provider.auth()
        )
        return provider.name, provider.parse_check(response)
    except TransportError as error:
        return provider.name, f"It cannot be asked ({error.reason})."
    finally:
        await transport.aclose()
