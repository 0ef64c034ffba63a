"""What carries requests: a transport for each provider's wire, and the guarded ones of webhooks.

Nothing is connected here; a transport opens its connections on first use, or when it is started.
"""

import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

from gateway.config import SettingsError
from gateway.domain.networks import Allowed
from gateway.ports import MailProvider, Provider, Transport, Wire
from gateway.providers.smpp import Smpp
from gateway.transports.guard import OwnResolver, guarded_socket
from gateway.transports.http import HttpTransport
from gateway.transports.pool import ConnectionPool
from gateway.transports.smpp import SmppTransport
from gateway.transports.smtp import SmtpTransport

WEBHOOK_ANSWER = 64 * 1024  # bytes of an endpoint's answer

Hear = Callable[[str, bytes], Awaitable[None]]  # stores what came over a route's own wire
Carry = Callable[[Provider[Any, Any]], Transport[Any, Any]]


@runtime_checkable
class Starts(Protocol):
    """A transport that keeps a connection, made and ended with the gateway."""

    async def start(self) -> None: ...
    async def aclose(self) -> None: ...


def carrier_for(
    provider: Provider[Any, Any], *, sessions: dict[object, SmppTransport], hear: Hear, log: Any
) -> Transport[Any, Any]:
    """What carries this provider's requests. `sessions`: those made so far, shared by the routes of
    an account that connect alike; what one hears is heard by the first of these routes.
    """
    if provider.wire is Wire.SMTP:
        return mail_carrier(provider)
    if provider.wire is not Wire.SMPP:
        return HttpTransport(ConnectionPool(limit=provider.concurrency))
    connection = cast("Smpp", provider).connection
    shared = (provider.account, connection)
    if shared not in sessions:
        sessions[shared] = SmppTransport(
            connection,
            partial(hear, provider.name),
            log=log.bind(account=provider.account, centre=f"{connection.host}:{connection.port}"),
            monotonic=time.monotonic,
            random=random.random,
        )
    return sessions[shared]


def mail_carrier(provider: Provider[Any, Any]) -> SmtpTransport:
    """What carries mail. Raises SettingsError: its file of authorities cannot be read."""
    try:
        return SmtpTransport(cast("MailProvider", provider).server)
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise SettingsError({f"routes.{provider.name}.ca_file": problem}) from None


def webhook_carriers(allowed: Allowed) -> tuple[HttpTransport, HttpTransport]:
    """What carries webhooks: to allowed addresses, and to hosts that are allowed by name.

    Each lane has its own few places, so the common limit only bounds what is open.
    """
    limits: dict[str, Any] = {"limit": 1000, "max_body": WEBHOOK_ANSWER}
    guarded = ConnectionPool(resolver=OwnResolver(), sockets=guarded_socket(allowed), **limits)
    open_ = ConnectionPool(resolver=OwnResolver(), **limits)
    return (
        HttpTransport(guarded, max_body=WEBHOOK_ANSWER),
        HttpTransport(open_, max_body=WEBHOOK_ANSWER),
    )
