"""Where a caller's webhook may go: not into our own networks.

An address is judged when the socket to it is made, on the very address that is connected: neither
another answer of the name server (rebinding) nor a number written in an odd way gets around it.
Redirects are never followed, so there is nothing else to judge.

IPv6 addresses that carry an IPv4 one are judged by that: mapped ones (RFC 4291) and NAT64 (RFC
6052). 6to4, Teredo and IPv4-compatible addresses reach nobody who takes webhooks, and are refused.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.ports import Auth, NotSent, Request, Response, Transport

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REFUSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # the machine's agent on Azure: a public number, and not
        "192.88.99.0/24",  # 6to4 relays
        "64:ff9b:1::/48",  # NAT64 within a network
        "2002::/16",  # 6to4
        "2001::/32",  # Teredo
        "::/96",  # IPv4-compatible
        "fec0::/10",  # site-local
    )
)
_LOOKUPS = 16  # names looked up at once, for webhooks alone: a dead name server delays no route


class AddressRefused(OSError):
    """The address is none that a webhook may go to."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator allows besides the public internet: networks, and hosts by name."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> "Allowed":
        """From settings. Raises ValueError naming the entry that is neither."""
        networks, hosts = [], set()
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                if not _is_host(entry):
                    problem = f"{entry!r} is neither a network (10.0.0.0/8) nor a host's name"
                    raise ValueError(problem) from None
                hosts.add(entry.lower())
        return cls(tuple(networks), frozenset(hosts))

    def address(self, text: str) -> bool:
        """Whether a webhook may go to that address."""
        try:
            given = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        meant = _meant(given)
        if any(one in network for one in (given, meant) for network in self.networks):
            return True
        return meant.is_global and not (
            meant.is_multicast
            or meant.is_reserved
            or any(one in network for one in (given, meant) for network in _REFUSED)
        )

    def url(self, scheme: str, host: str) -> str | None:
        """Why a webhook may not go to a URL, as far as its text tells; None where it may.

        Plain http only to what is allowed by name or number.
        """
        literal = _literal(host)
        named = host.lower() in self.hosts
        if literal is not None and not named and not self.address(host):
            return "this address is not reachable for webhooks; see the setting webhook_allow"
        inside = literal is not None and any(_meant(literal) in one for one in self.networks)
        if scheme != "https" and not (scheme == "http" and (named or inside)):
            return "only https is allowed"
        return None


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _is_host(text: str) -> bool:
    labels = text.split(".")
    sound = all(one and one.replace("-", "").isalnum() and one.isascii() for one in labels)
    return sound and not labels[-1].isdigit()


def _meant(address: Address) -> Address:
    """The IPv4 address within an IPv6 one, where that is whom it reaches."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def guarded_socket(allowed: Allowed) -> Any:
    """A socket factory for aiohttp's connector: no socket to an address that is not allowed.
    Raises AddressRefused."""

    def make(info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not allowed.address(str(address[0])):
            raise AddressRefused("this address is not allowed")
        return socket.socket(family=family, type=kind, proto=protocol)

    return make


class OwnResolver(AbstractResolver):
    """Looks names up in threads of its own, so that slow names of callers delay no provider's."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, "webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Every address of a name. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Look-ups under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: int) -> list[Any]:
    return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)


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
