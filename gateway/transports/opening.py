"""Opening a connection: the name's addresses, TCP to the first that answers, TLS.

Addresses are tried as RFC 8305 ("Happy Eyeballs") has it, so that a dead IPv6 costs a quarter of a
second and not the call.
"""

import asyncio
import ipaddress
import socket
import ssl
from functools import cache
from typing import Any, Protocol

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType, SocketFactoryType

_STAGGER = 0.25  # seconds that an address has before the next is tried beside it


class Resolver(Protocol):
    """How names are looked up."""

    async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
        """The addresses of a name, as `getaddrinfo` gives them. Raises OSError: there are none."""

    async def close(self) -> None:
        """Gives back what looking up takes."""


class UnknownName(OSError):
    """The name has no address, or nobody could be asked for it."""


class SystemResolver:
    """Asks the system, in the event loop's threads."""

    async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
        """As `Resolver`. Raises UnknownName."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
        except OSError as error:
            raise UnknownName(*error.args) from None
        return list(found)

    async def close(self) -> None:
        """There is nothing to give back."""


class Opener:
    """Connects protocols. `sockets` makes each socket for the very address it is connected to."""

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        resolver: Resolver | None = None,
        sockets: SocketFactoryType | None = None,
    ) -> None:
        self._ssl = ssl_context
        self._resolver = resolver or SystemResolver()
        self._sockets = sockets
        self._looking: dict[tuple[str, int], asyncio.Task[list[AddrInfoType]]] = {}

    async def open(self, protocol: asyncio.Protocol, *, host: str, port: int, secure: bool) -> None:
        """Connects `protocol`. `host`: a name in ASCII, or an address without brackets.

        Raises OSError: no address, nobody there, no trust; ValueError: this can be no host.
        """
        loop = asyncio.get_running_loop()
        name = host.rstrip(".")
        if not name or name.startswith("."):
            raise ValueError("a name without its first label")
        addresses = _numeric(host, port) or await self._look_up(host, port)
        connected = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_STAGGER, socket_factory=self._sockets
        )
        tls: dict[str, Any] = {}
        if secure:
            tls = {"ssl": self._ssl or authorities(), "server_hostname": name}
        try:
            await loop.create_connection(lambda: protocol, sock=connected, **tls)
        except BaseException:
            connected.close()  # it is ours until the loop has taken it
            raise

    async def close(self) -> None:
        """Ends the look-ups under way."""
        for looking in tuple(self._looking.values()):
            looking.cancel()
        await self._resolver.close()

    async def _look_up(self, host: str, port: int) -> list[AddrInfoType]:
        """Who asks for the same name meanwhile shares the answer; it is not remembered."""
        looking = self._looking.get((host, port))
        if looking is None:
            looking = asyncio.create_task(self._resolver.resolve(host, port))
            self._looking[host, port] = looking
            looking.add_done_callback(lambda task: self._found(host, port, task))
        return await asyncio.shield(looking)

    def _found(self, host: str, port: int, looking: asyncio.Task[list[AddrInfoType]]) -> None:
        del self._looking[host, port]
        if not looking.cancelled():
            looking.exception()  # it may be that nobody waits for it any more


@cache
def authorities() -> ssl.SSLContext:
    """The system's authorities, read once: it takes tens of milliseconds."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _numeric(host: str, port: int) -> list[AddrInfoType]:
    """The address that `host` is, if it is one. Raises ValueError: an odd way to write one, like
    127.1, which means something else to everybody who reads it.
    """
    if ":" not in host and not host.replace(".", "").isdigit():
        return []
    ipaddress.ip_address(host)
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))
