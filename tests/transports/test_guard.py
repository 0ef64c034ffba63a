"""Where webhooks may go: judged on the address that is connected, whatever the URL looks like."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohappyeyeballs import AddrInfoType
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.networks import Allowed
from gateway.ports import NotSent, Request
from gateway.transports.guard import Guarded, OwnResolver, guarded_socket
from gateway.transports.http import HttpTransport
from gateway.transports.opening import Resolver
from gateway.transports.pool import ConnectionPool

NOWHERE = Allowed()
PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
OURS = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255",  # noqa: S104
    "192.168.0.1", "169.254.0.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.0.8", "192.0.0.9", "192.0.2.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "168.63.129.16", "192.88.99.1",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1",
    "2001:db8::1", "100::1", "2001:2::1", "2001:20::1", "3fff::1", "5f00::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",  # mapped
    "::127.0.0.1", "::808:808",  # compatible
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "64:ff9b:1::808:808",  # NAT64
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::",  # 6to4
    "2001::1", "2001:0:808:808::1",  # Teredo
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert NOWHERE.address(address)


@pytest.mark.parametrize("address", OURS)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not NOWHERE.address(address)


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f.1", "2130706433", "1.2.3.4.5"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """Names are looked up, and odd spellings with them; what comes here is what is connected."""
    assert not NOWHERE.address(text)


@given(st.ip_addresses(v=4))
def test_an_address_in_an_ipv6_coat_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    plain = NOWHERE.address(str(address))

    assert plain == NOWHERE.address(f"::ffff:{address}")
    assert plain == NOWHERE.address(str(ipaddress.IPv6Address((0x64FF9B << 96) + int(address))))
    assert not NOWHERE.address(str(ipaddress.IPv6Address((0x2002 << 112) + (int(address) << 80))))


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1"])
def test_a_network_that_is_allowed_is_allowed(address: str) -> None:
    allowed = Allowed.parse(["10.0.0.0/8", "fd00::/8"])

    assert allowed.address(address)
    assert not allowed.address("192.168.0.1")


@pytest.mark.parametrize("entry", ["", "10.0.0.0/99", "http://x", "a b", "*", "10.0.0", "a..b"])
def test_an_entry_that_is_none_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a network"):
        Allowed.parse([entry])


@pytest.mark.parametrize(
    ("scheme", "host", "fine"),
    [
        ("https", "example.com", True),
        ("http", "example.com", False),
        ("ftp", "example.com", False),
        ("https", "8.8.8.8", True),
        ("http", "8.8.8.8", False),
        ("https", "127.0.0.1", False),
        ("https", "::1", False),
        ("https", "10.0.0.1", True),  # allowed by number
        ("http", "10.0.0.1", True),
        ("https", "hooks.internal", True),  # allowed by name
        ("http", "hooks.internal", True),
        ("http", "HOOKS.internal", True),
        ("http", "other.internal", False),
    ],
)
def test_a_url_is_judged_as_far_as_its_text_tells(scheme: str, host: str, fine: bool) -> None:
    allowed = Allowed.parse(["10.0.0.0/8", "hooks.internal"])

    assert fine == (allowed.url(scheme, host) is None)


# --- Over sockets -------------------------------------------------------------------------------


class Names:
    """A name server that answers as told, once each: the second answer is another."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = list(addresses)

    async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
        address = self._addresses.pop(0) if len(self._addresses) > 1 else self._addresses[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))]

    async def close(self) -> None:
        return None


@pytest.fixture
async def server() -> AsyncIterator[tuple[int, list[str]]]:
    """A server on loopback that takes everything: its port, and who connected."""
    connected: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(str(writer.get_extra_info("peername")[0]))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield int(listening.sockets[0].getsockname()[1]), connected
    listening.close()
    await listening.wait_closed()


def carrier(allowed: Allowed, resolver: Resolver | None = None) -> HttpTransport:
    return HttpTransport(
        ConnectionPool(resolver=resolver or OwnResolver(), sockets=guarded_socket(allowed))
    )


async def post(transport: HttpTransport, url: str) -> Any:
    try:
        return await transport.send(Request("POST", url, content=b"{}"), within=5)
    finally:
        await transport.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "127.1", "0"])
async def test_no_spelling_of_loopback_is_connected(
    server: tuple[int, list[str]], host: str
) -> None:
    """(Seen to connect without the socket factory.)"""
    port, connected = server
    with pytest.raises(
        NotSent, match=r"NoUsableAddress|bad_url"
    ):  # the client knows odd ones itself
        await post(carrier(NOWHERE), f"http://{host}:{port}/")

    assert [] == connected


async def test_a_name_that_leads_inside_is_not_connected(server: tuple[int, list[str]]) -> None:
    port, connected = server
    with pytest.raises(NotSent, match="NoUsableAddress"):
        await post(carrier(NOWHERE, Names("127.0.0.1")), f"http://hooks.example:{port}/")

    assert [] == connected


async def test_a_name_that_changes_its_mind_is_judged_by_where_it_is_connected(
    server: tuple[int, list[str]],
) -> None:
    """Rebinding: whoever looks the name up first sees a public address, and the connection is made
    to ours. What is looked at here is the connection's own."""
    port, connected = server
    names = Names("8.8.8.8", "127.0.0.1")
    assert NOWHERE.address((await names.resolve("hooks.example", port))[0][4][0])
    with pytest.raises(NotSent, match="NoUsableAddress"):
        await post(carrier(NOWHERE, names), f"http://hooks.example:{port}/")

    assert [] == connected


async def test_a_name_that_is_not_there_is_told_like_one_that_leads_inside(
    server: tuple[int, list[str]],
) -> None:
    """A client must not learn from a webhook which names our own networks know."""
    told = []
    for host in ("localhost", "nowhere.invalid"):
        with pytest.raises(NotSent) as refused:
            await post(carrier(NOWHERE, OwnResolver()), f"http://{host}:{server[0]}/")
        told.append((refused.value.reason, str(refused.value).replace(host, "")))

    assert told[0] == told[1]


async def test_a_network_that_is_allowed_is_connected(server: tuple[int, list[str]]) -> None:
    port, connected = server
    allowed = Allowed.parse(["127.0.0.0/8"])
    answer = await post(carrier(allowed), f"http://127.0.0.1:{port}/")

    assert (204, ["127.0.0.1"]) == (answer.status_code, connected)


async def test_a_host_that_is_allowed_by_name_is_connected_wherever_it_is(
    server: tuple[int, list[str]],
) -> None:
    port, connected = server
    allowed = Allowed.parse(["localhost"])
    guarded, open_ = carrier(allowed), HttpTransport(ConnectionPool(resolver=OwnResolver()))
    transport = Guarded(allowed, guarded, open_)
    request = Request("POST", f"http://localhost:{port}/", content=b"{}")
    answer = await transport.send(request, within=5)
    with pytest.raises(NotSent, match="not_allowed"):
        await transport.send(Request("POST", f"http://127.0.0.1:{port}/"), within=5)
    await guarded.aclose()
    await open_.aclose()

    assert 204 == answer.status_code
    assert 1 == len(connected)


async def test_plain_http_is_not_even_looked_up() -> None:
    transport = Guarded(NOWHERE, carrier(NOWHERE), carrier(NOWHERE))

    with pytest.raises(NotSent, match="only https"):
        await transport.send(Request("POST", "http://hooks.example/"), within=5)


async def test_a_name_that_is_none_is_an_error_like_any_other() -> None:
    with pytest.raises(NotSent, match="connect_error"):
        await post(carrier(NOWHERE), "https://does-not-exist.invalid/")
