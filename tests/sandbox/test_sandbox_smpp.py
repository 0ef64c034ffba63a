"""The sandbox's SMSC over a socket: what it takes, what it refuses, how its receipts come.

The client is packed by hand, from the words of the specification.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
import smpp34
from sandbox.conftest import MakeRig
from sandbox.world import Rig, settle

from gateway.sandbox import Answer, Channel

PASSWORD = "password"
ACCOUNT = {"system_id": "acme", "password": PASSWORD}
SUBMIT, DELIVER, UNBIND, BIND, ENQUIRE = 0x04, 0x05, 0x06, 0x09, 0x15
RESPONSE = NACK = 0x80000000
PATIENCE = 5.0
TEXT = b"123456 is your code"
Heard = tuple[int, int, int, bytes]  # command, status, sequence, body


class Client:
    """An ESME whose every octet is the test's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def write(self, command: int, body: bytes = b"", *, status: int = 0, sequence: int = 1) -> None:
        self._writer.write(struct.pack(">IIII", 16 + len(body), command, status, sequence) + body)

    async def hear(self) -> Heard:
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readexactly(16)
            length, command, status, sequence = struct.unpack(">IIII", head)
            return command, status, sequence, await self._reader.readexactly(length - 16)

    async def rest(self) -> bytes:
        """What comes until the sandbox closes."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()

    async def bind(self, system_id: str = "acme", password: str = PASSWORD) -> Heard:
        self.write(BIND, f"{system_id}\0{password}\0\0\x34\0\0\0".encode())
        return await self.hear()

    def submit(self, number: str = "33600000000", text: bytes = TEXT, **changes: Any) -> None:
        self.write(SUBMIT, submission(number, text, **changes), sequence=7)

    async def taken(self, number: str = "33600000000", **changes: Any) -> str:
        """The id of an accepted message."""
        self.submit(number, **changes)
        command, status, sequence, body = await self.hear()
        assert (SUBMIT | RESPONSE, 0, 7) == (command, status, sequence)
        return body.removesuffix(b"\0").decode()

    async def receipt(self, status: int = 0) -> bytes:
        """The body of the next deliver_sm, answered so."""
        command, _, sequence, body = await self.hear()
        assert DELIVER == command
        self.write(DELIVER | RESPONSE, b"\0", status=status, sequence=sequence)
        return body

    def close(self) -> None:
        self._writer.close()


def submission(
    number: str,
    text: bytes = TEXT,
    *,
    coding: int = 0,
    esm_class: int = 0,
    registered: int = 1,
    sender: bytes = b"ACME",
    validity: bytes = b"000000000200000R",
    after: bytes = b"",
) -> bytes:
    return b"".join(
        (
            b"\0\x05\x00" + sender + b"\0\x01\x01" + number.encode() + b"\0",
            bytes([esm_class, 0, 0]),
            b"\0" + validity + b"\0",
            bytes([registered, 0, coding, 0, len(text)]) + text + after,
        )
    )


Connect = Callable[[], Any]


@pytest_asyncio.fixture
async def world(make_rig: MakeRig) -> Rig:
    return make_rig(accounts={"smpp": ACCOUNT})


@pytest_asyncio.fixture
async def connect(world: Rig) -> AsyncIterator[Connect]:
    port = await world.sandbox.smsc.start()
    clients = []

    async def connected() -> Client:
        clients.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
        return clients[-1]

    yield connected
    for client in clients:
        client.close()


@pytest_asyncio.fixture
async def client(connect: Connect) -> Client:
    made: Client = await connect()
    assert 0 == (await made.bind())[1]
    return made


async def pass_time(world: Rig, seconds: float) -> None:
    """The clock moves once sockets had their turn, and they have it again after."""
    await asyncio.sleep(0.01)
    await world.clock.advance(seconds)
    await asyncio.sleep(0.01)
    await settle()


async def test_a_bind(connect: Connect) -> None:
    made = await connect()

    assert (BIND | RESPONSE, 0, 1, b"sandbox\0") == await made.bind()
    assert (BIND | RESPONSE, 5, 1, b"") == await made.bind()


@pytest.mark.parametrize(
    ("system_id", "password", "status"),
    [("acme", "wrong", 0x0E), ("nobody", "password", 0x0F), ("", "", 0x0F), ("acme", "", 0x0E)],
)
async def test_a_stranger_is_not_let_in(
    connect: Connect, system_id: str, password: str, status: int
) -> None:
    made = await connect()
    assert status == (await made.bind(system_id, password))[1]

    made.submit()

    assert 0x04 == (await made.hear())[1]


async def test_without_an_account_nobody_gets_in(rig: Rig) -> None:
    port = await rig.sandbox.smsc.start()
    made = Client(*await asyncio.open_connection("127.0.0.1", port))
    statuses = [(await made.bind(*names))[1] for names in (("acme", "password"), ("", ""))]
    made.close()

    assert [0x0F, 0x0F] == statuses


async def test_a_message_reaches_its_phone(client: Client, world: Rig) -> None:
    message_id = await client.taken()
    message = world.only("+33600000000")

    assert (message_id, Channel.SMS, "123456 is your code", "ACME") == (
        message.id,
        message.channel,
        message.text,
        message.sender,
    )
    assert int(message_id, 16) >= 1 << 39


@pytest.mark.parametrize(
    ("octets", "changes", "text"),
    [
        (b"\x00\x02\x11\x1b\x65\x05", {}, "@$_€é"),
        ("код".encode("utf-16-be"), {"coding": 8}, "код"),
        (b"@$_", {"coding": 1}, "@$_"),
        (b"\xe7", {"coding": 3}, "ç"),
        (b"\x05\x00\x03\x07\x02\x01first", {"esm_class": 0x40}, "first"),
        (b"", {"after": b"\x04\x24\x00\x05whole"}, "whole"),
    ],
)
async def test_alphabets(
    client: Client, world: Rig, octets: bytes, changes: dict[str, Any], text: str
) -> None:
    await client.taken(text=octets, **changes)

    assert text == world.only().text


async def test_receipts(client: Client, world: Rig) -> None:
    message_id = (await client.taken()).encode()
    await pass_time(world, 1)
    first = await client.receipt()
    await pass_time(world, 1)
    second = await client.receipt()
    found = smpp34.decode(struct.pack(">IIII", 16 + len(second), DELIVER, 0, 1) + second)

    assert b"stat:ACCEPTD" in first
    assert isinstance(found, smpp34.DeliverSm)
    assert ("33600000000", "ACME", 4) == (
        found.source_addr,
        found.destination_addr,
        found.esm_class,
    )
    assert [(0x1E, message_id + b"\0"), (0x427, b"\x02")] == [
        (tlv.tag, tlv.value) for tlv in found.tlvs
    ]
    await pass_time(world, 0)
    assert (
        b"id:" + message_id + b" sub:001 dlvrd:001 submit date:2603011200 done date:2603011200 "
        b"stat:DELIVRD err:000 Text:123456 is your code"
    ) == found.short_message
    assert [200, 200] == [posted.http for posted in world.only().receipts]


async def test_ids_in_two_spellings(make_rig: MakeRig) -> None:
    world = make_rig(accounts={"smpp": {**ACCOUNT, "receipt_ids": "decimal"}})
    port = await world.sandbox.smsc.start()
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    await client.bind()
    message_id = await client.taken()
    await pass_time(world, 1)
    receipt = await client.receipt()
    client.close()

    assert b"id:%d " % int(message_id, 16) in receipt


async def test_without_being_asked_nothing_is_told(client: Client, world: Rig) -> None:
    await client.taken(registered=0)
    await pass_time(world, 60)
    await world.run()

    assert world.only().arrived_at
    assert () == world.only().receipts


async def test_a_receipt_not_taken_is_repeated(client: Client, world: Rig) -> None:
    await client.taken("33600000300")
    await pass_time(world, 1)
    first = await client.receipt(status=0x64)
    await pass_time(world, 1)
    second = await client.receipt()
    await pass_time(world, 60)

    assert b"stat:UNDELIV" in first
    assert first == second
    assert [503, 200] == [posted.http for posted in world.only().receipts]


async def test_a_receipt_waits_for_somebody_to_be_bound(
    client: Client, connect: Connect, world: Rig
) -> None:
    await client.taken("33600000300")
    client.close()
    await pass_time(world, 1)
    other = await connect()
    await other.bind()
    await pass_time(world, 1)

    assert b"stat:UNDELIV" in await other.receipt()
    await pass_time(world, 60)
    assert [None, 200] == [posted.http for posted in world.only().receipts]


async def test_a_word_nobody_knows(client: Client, world: Rig) -> None:
    await client.taken("33600001500")
    await pass_time(world, 1)
    receipt = await client.receipt()

    assert b"stat:UNHEARD" in receipt
    assert b"\x04\x27" not in receipt


async def test_receipts_before_the_answer(client: Client, world: Rig) -> None:
    client.submit("33600000700")
    bodies = [await client.receipt(), await client.receipt()]

    assert SUBMIT | RESPONSE == (await client.hear())[0]
    assert b"stat:DELIVRD" in bodies[1]


@pytest.mark.parametrize(
    ("number", "status"), [("33600000900", 0x08), ("33600001200", 0x0B), ("33600000800", 0x58)]
)
async def test_magic_refusals(client: Client, number: str, status: int) -> None:
    client.submit(number)

    assert (SUBMIT | RESPONSE, status, 7, b"") == await client.hear()


async def test_twice_too_fast_then_taken(client: Client) -> None:
    statuses = []
    for _ in range(3):
        client.submit("33600000800")
        statuses.append((await client.hear())[1])

    assert [0x58, 0x58, 0] == statuses


async def test_an_answer_that_hangs(client: Client, world: Rig) -> None:
    client.submit("33600001000")
    await pass_time(world, 29)
    assert b"ACCEPTD" in await client.receipt()
    await pass_time(world, 1)
    bodies = [await client.hear(), await client.hear()]

    assert {DELIVER, SUBMIT | RESPONSE} == {heard[0] for heard in bodies}


async def test_an_answer_that_breaks_off(client: Client, world: Rig) -> None:
    client.submit("33600001100")
    rest = await client.rest()
    await pass_time(world, 60)

    assert 13 == len(rest)
    assert Answer.DROPPED == world.only().answer
    assert world.only().arrived_at


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 0x01),
        (submission("33600000000")[:-1], 0x01),
        (submission("33600000000", b"a" * 161), 0x01),
        (submission("+33600000000"), 0x0B),
        (submission("0600000000"), 0x0B),
        (submission(""), 0x0B),
        (submission("33600000000", sender=b"a" * 12), 0x0A),
        (submission("33600000000", validity=b"5 minutes"), 0x62),
        (submission("33600000000", b"\xff"), 0x45),
        (submission("33600000000", b"a", coding=8), 0x45),
        (submission("33600000000", b"a", coding=4), 0x45),
    ],
)
async def test_what_it_refuses(client: Client, world: Rig, body: bytes, status: int) -> None:
    client.write(SUBMIT, body, sequence=7)

    assert (SUBMIT | RESPONSE, status, 7, b"") == await client.hear()
    assert [] == world.sandbox.messages()


async def test_the_session(client: Client) -> None:
    client.write(ENQUIRE, sequence=3)
    client.write(0x103, b"data_sm", sequence=4)
    client.write(UNBIND, sequence=5)

    assert (ENQUIRE | RESPONSE, 0, 3, b"") == await client.hear()
    assert (NACK, 3, 4, b"") == await client.hear()
    assert (UNBIND | RESPONSE, 0, 5, b"") == await client.hear()
    assert b"" == await client.rest()


async def test_garbage_ends_it(connect: Connect) -> None:
    made = await connect()
    made._writer.write(b"GET / HTTP/1.1\r\n\r\n")

    assert (NACK, 2, 0, b"") == await made.hear()
    assert b"" == await made.rest()


async def test_another_implementation_as_the_client(world: Rig) -> None:
    port = await world.sandbox.smsc.start()
    client = smpp34.Client("127.0.0.1", port, "acme", "password")
    async with asyncio.timeout(PATIENCE):
        smsc = await client.connect()
        answer = await smsc.submit_sm("33600000700", TEXT, registered_delivery=1)
        receipts = [await smsc.next(), await smsc.next()]
        await smsc.unbind()

    assert answer.is_success
    assert world.only("+33600000700").id == answer.message_id
    assert [True, True] == [isinstance(one, smpp34.DeliverSmEvent) for one in receipts]
