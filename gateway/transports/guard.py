"""Where a caller's webhook may go: not into our own networks.

An address is judged when the socket to it is made, on the very address that is connected: neither
another answer of the name server (rebinding) nor a number written in an odd way gets around it.
Redirects are never followed, so there is nothing else to judge.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohappyeyeballs import AddrInfoType, SocketFactoryType

from gateway.domain.networks import Allowed
from gateway.ports import Auth, NotSent, Request, Response, Transport

_LOOKUPS = 16  # names looked up at once, for webhooks alone: a dead name server delays no route


class NoUsableAddress(OSError):
    """There is no address that a webhook may go to: the name has none at all, or none that is
    allowed. One word for both, or a webhook would tell which names our own networks know."""


def guarded_socket(allowed: Allowed) -> SocketFactoryType:
    """What makes a pool's sockets: no socket to an address that is not allowed.
    Raises NoUsableAddress."""

    def make(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not allowed.address(str(address[0])):
            raise NoUsableAddress("this address is not allowed")
        return socket.socket(family=family, type=kind, proto=protocol)

    return make


class OwnResolver:
    """Looks names up in threads of its own, so that slow names of callers delay no provider's."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, "webhook-names")

    async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
        """Every address of a name. Raises NoUsableAddress."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, _look_up, host, port)
        except OSError:
            raise NoUsableAddress("the name has no address") from None

    async def close(self) -> None:
        """Look-ups under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[AddrInfoType]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


class Guarded:
    """A transport to callers' endpoints: `guarded` connects to allowed addresses only, `open_`
    serves the hosts that are allowed by name, wherever they are."""

    def __init__(self, allowed: Allowed, guarded: Transport, open_: Transport) -> None:
        self._allowed = allowed
        self._guarded = guarded
        self._open = open_

    async def send(self, request: Request, *, within: float, auth: Auth | None = None) -> Response:
        """As `ports.Transport`. Raises NotSent `not_allowed` before anything is looked up."""
        host = request.url.host
        problem = self._allowed.url(request.url.scheme, host)
        if problem is not None:
            raise NotSent("not_allowed", problem)
        carrier = self._open if host.lower() in self._allowed.hosts else self._guarded
        return await carrier.send(request, within=within, auth=auth)
