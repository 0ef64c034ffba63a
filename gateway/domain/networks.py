"""Which addresses a caller's webhook may have: none of our own networks, unless the operator allows
them.

IPv6 addresses that carry an IPv4 one are judged by that: mapped ones (RFC 4291) and NAT64 (RFC
6052). 6to4, Teredo and IPv4-compatible addresses reach nobody who takes webhooks, and are refused.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REFUSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # the machine's agent on Azure: a public number, and not
        # What IANA keeps for special purposes and not every Python 3.11 knows as that.
        "192.0.0.0/24",  # protocols' own
        "192.88.99.0/24",  # 6to4 relays
        "64:ff9b:1::/48",  # NAT64 within a network
        "2002::/16",  # 6to4
        "2001::/23",  # Teredo, benchmarking, ORCHID
        "3fff::/20",  # documentation
        "5f00::/16",  # segments of SRv6
        "::/96",  # IPv4-compatible
        "fec0::/10",  # site-local
    )
)


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
