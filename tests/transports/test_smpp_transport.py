"""A session with a centre that may do anything: what becomes of messages, receipts, the session.

Real sockets on 127.0.0.1; the clock moves when told. Over 500 lines, since "never twice" and
"stored before answered" stand on all of these.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import smpp34
from structlog.testing import CapturingLogger
from transports import faults
from transports.smsc import (
    ANSWER,
    BIND,
    DELIVER,
    ENQUIRE,
    LATER,
    NACK,
    OK,
    PASSWORD,
    PATIENCE,
    SUBMIT,
    SYSERR,
    THROTTLED,
    UNBIND,
    Heard,
    Link,
    Smsc,
    Time,
    pdu,
    receipt,
    settle,
)

from gateway.domain import smpp
from gateway.domain.smpp import Address, Connection, Message, Pdu, ShortMessage
from gateway.ports import Lost, NotSent, TransportError
from gateway.transports.smpp import FORGOTTEN, Pace, SmppTransport, _Session, pause_before

PART = Message(
    source=Address("ACME", 5, 0),
    destination=Address("33600000000", 1, 1),
    short_message=b"123456 is your code",
    registered_delivery=1,
)
ONE = ShortMessage((PART,))
TWO = ShortMessage((PART, PART))
TAKEN = Pdu(SUBMIT | ANSWER, 0, 2, b"m_1\0")


class Receipts:
    """What the wiring does with receipts: keeps them; waits or fails as told."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures = 0

    async def __call__(self, pdu: bytes) -> None:
        self.begun.set()
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the ledger takes nothing now")
        self.stored.append(pdu)


class World:
    """A centre, a clock, a store, and the transport between them."""

    def __init__(self, smsc: Smsc) -> None:
        self.smsc = smsc
        self.time = Time()
        self.receipts = Receipts()
        self.log = CapturingLogger()
        self.transports: list[SmppTransport] = []

    async def start(self, **changes: Any) -> SmppTransport:
        """A transport that begins to connect."""
        fields: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.smsc.port,
            "tls": False,
            "system_id": "acme",
            "password": "password",
        }
        context = changes.pop("ssl_context", None)
        transport = SmppTransport(
            Connection(**{**fields, **changes}),
            self.receipts,
            log=self.log,
            monotonic=self.time.monotonic,
            random=lambda: 1.0,
            sleep=self.time.sleep,
            ssl_context=context,
        )
        self.transports.append(transport)
        await transport.start()
        return transport

    async def bound(self, **changes: Any) -> tuple[SmppTransport, Link]:
        transport = await self.start(**changes)
        return transport, await self.bound_again(transport)

    async def bound_again(self, transport: SmppTransport) -> Link:
        """The next session, once the transport has it."""
        link = await (await self.smsc.link()).bound()
        async with asyncio.timeout(PATIENCE):
            while transport._session is None:  # noqa: ASYNC110  nothing tells of it
                await asyncio.sleep(0)
        return link

    @property
    def said(self) -> list[str]:
        return [str(call.kwargs.get("why", "")) for call in self.log.calls]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Smsc() as smsc:
        made = World(smsc)
        yield made
        made.receipts.gate.set()
        for transport in made.transports:
            await closing(made, transport)


async def closing(world: World, transport: SmppTransport) -> None:
    """Closes, though nobody may answer the unbind."""
    ending = asyncio.create_task(transport.aclose())
    while not ending.done():
        await world.time.advance(60)
    await ending


def begin(
    transport: SmppTransport, message: ShortMessage = ONE, within: float = PATIENCE
) -> "asyncio.Task[Any]":
    return asyncio.create_task(_outcome(transport, message, within))


async def _outcome(
    transport: SmppTransport, message: ShortMessage, within: float
) -> tuple[Pdu, ...] | tuple[type[TransportError], str]:
    """The answers, or what the engine learns instead."""
    try:
        return tuple(await transport.send(message, within=within))
    except TransportError as error:
        return type(error), error.reason


# --- Sending ------------------------------------------------------------------------------------


async def test_a_message_and_its_answer(world: World) -> None:
    transport = await world.start(system_type="OTP")
    sending = begin(transport)
    link = await world.smsc.link()
    bind = await link.hear(BIND)
    link.answer(bind, b"SMSC\0")
    submit = await link.hear(SUBMIT)
    link.accept(submit)

    assert b"acme\0password\0OTP\0\x34\0\0\0" == bind.body
    assert (1, 2) == (bind.sequence, submit.sequence)
    assert PART.write() == submit.body
    assert (TAKEN,) == await sending


@pytest.mark.parametrize("status", [SYSERR, 0x0B, 0x401, 0xFFFFFFFF])
async def test_a_refusal_is_an_answer(world: World, status: int) -> None:
    transport, link = await world.bound()
    sending = begin(transport)
    link.answer(await link.hear(SUBMIT), status=status)

    assert (Pdu(SUBMIT | ANSWER, status, 2),) == await sending


async def test_a_nack_is_an_answer(world: World) -> None:
    transport, link = await world.bound()
    sending = begin(transport)
    submit = await link.hear(SUBMIT)
    link.write(pdu(NACK, 3, submit.sequence))

    assert (Pdu(NACK, 3, 2),) == await sending


async def test_answers_find_their_messages_in_any_order(world: World) -> None:
    transport, link = await world.bound()
    sendings = [begin(transport) for _ in range(5)]
    submits = [await link.hear(SUBMIT) for _ in range(5)]
    for submit in reversed(submits):
        link.accept(submit, f"m_{submit.sequence}")

    assert [b"m_%d\0" % number for number in range(2, 7)] == [
        (await sending)[0].body for sending in sendings
    ]


async def test_a_message_without_parts_is_not_sent(world: World) -> None:
    transport = await world.start()

    assert () == await transport.send(ShortMessage(()), within=1)


async def test_what_cannot_be_written_is_not_sent(world: World) -> None:
    transport, _ = await world.bound()
    broken = ShortMessage((Message(destination=Address("x" * 30)),))

    assert (NotSent, "not_writable") == await begin(transport, broken)


async def test_parts_follow_one_another(world: World) -> None:
    transport, link = await world.bound()
    sending = begin(transport, TWO)
    link.accept(await link.hear(SUBMIT), "m_1")
    link.accept(await link.hear(SUBMIT), "m_2")

    assert [b"m_1\0", b"m_2\0"] == [answer.body for answer in await sending]


async def test_no_part_follows_one_that_is_refused(world: World) -> None:
    transport, link = await world.bound()
    sending = begin(transport, TWO)
    link.answer(await link.hear(SUBMIT), status=SYSERR)

    assert [SYSERR] == [answer.status for answer in await sending]
    link.ask(ENQUIRE)
    assert ENQUIRE | ANSWER == (await link.hear()).command


async def test_the_window_bounds_what_is_unanswered(world: World) -> None:
    transport, link = await world.bound(window=2)
    sendings = [begin(transport) for _ in range(3)]
    first, _ = await link.hear(SUBMIT), await link.hear(SUBMIT)
    sequence = link.ask(ENQUIRE)
    assert (ENQUIRE | ANSWER, sequence) == await told(link)

    link.accept(first)
    third = await link.hear(SUBMIT)

    assert 4 == third.sequence
    assert await sendings[0]


async def test_who_waits_for_the_window_too_long_was_not_sent(world: World) -> None:
    transport, link = await world.bound(window=1)
    first = begin(transport, within=0.3)
    await link.hear(SUBMIT)

    assert (NotSent, "timeout") == await begin(transport, within=0.05)
    assert (Lost, "timeout") == await first


async def test_an_abandoned_message_keeps_its_place_until_it_is_answered(world: World) -> None:
    transport, link = await world.bound(window=1)
    sending = begin(transport, within=0.05)
    submit = await link.hear(SUBMIT)
    assert (Lost, "timeout") == await sending
    waiting = begin(transport)
    await settle()
    assert not waiting.done()

    link.accept(submit)
    link.accept(await link.hear(SUBMIT), "m_2")

    assert b"m_2\0" == (await waiting)[0].body


async def test_an_unanswered_message_is_forgotten_in_the_end(world: World) -> None:
    transport, link = await world.bound(window=1, enquire_every=FORGOTTEN)
    sending = begin(transport)
    await link.hear(SUBMIT)
    waiting = begin(transport)
    await world.time.advance(FORGOTTEN)

    assert (Lost, "no_answer") == await sending
    assert {ENQUIRE, SUBMIT} == {(await link.hear()).command, (await link.hear()).command}
    waiting.cancel()


async def test_an_answer_to_nothing_is_passed_over(world: World) -> None:
    transport, link = await world.bound()
    link.write(pdu(SUBMIT | ANSWER, 0, 99, b"m_9\0"))
    link.write(pdu(NACK, 2, 0))
    sending = begin(transport)
    link.accept(await link.hear(SUBMIT))

    assert (TAKEN,) == await sending


async def test_sequence_numbers_begin_again_and_pass_over_those_in_use(world: World) -> None:
    transport, link = await world.bound()
    held = begin(transport)
    assert 2 == (await link.hear(SUBMIT)).sequence
    session = transport._session
    assert session is not None
    session._sequence = smpp.LAST_SEQUENCE - 1
    sendings = [begin(transport) for _ in range(3)]

    assert [smpp.LAST_SEQUENCE, 1, 3] == [(await link.hear(SUBMIT)).sequence for _ in range(3)]
    link.close()
    for sending in (held, *sendings):
        assert (Lost, "connection_lost") == await sending


# --- Not sent, or lost --------------------------------------------------------------------------


async def test_a_transport_that_was_not_started_sends_nothing(world: World) -> None:
    transport = await world.start()
    await closing(world, transport)

    assert (NotSent, "not_bound") == await begin(transport)


async def test_nobody_there() -> None:
    async with Smsc() as smsc:
        world = World(smsc)
    transport = await world.start()

    assert (NotSent, "not_bound") == await begin(transport)
    assert (NotSent, "not_bound") == await begin(transport)
    await closing(world, transport)


async def test_a_centre_that_lets_nobody_in_answers_for_itself(world: World) -> None:
    transport = await world.start()
    sending = begin(transport)
    link = await world.smsc.link()
    link.answer(await link.hear(BIND), status=PASSWORD)
    refused = Pdu(BIND | ANSWER, PASSWORD, 1)

    assert (refused,) == await sending
    assert (refused,) == await begin(transport)
    await link.closed()


async def test_a_refusal_is_forgotten_when_the_centre_has_gone() -> None:
    async with Smsc() as smsc:
        world = World(smsc)
        transport = await world.start()
        link = await smsc.link()
        link.answer(await link.hear(BIND), status=PASSWORD)
        await link.closed()
    await world.time.asleep(1)
    await world.time.advance(1)
    await world.time.asleep(2)

    assert (NotSent, "not_bound") == await begin(transport)
    await closing(world, transport)


async def test_a_centre_that_never_answers_the_bind(world: World) -> None:
    transport = await world.start(answer_within=7)
    sending = begin(transport)
    link = await world.smsc.link()
    await link.hear(BIND)
    await world.time.advance(7)

    assert (NotSent, "not_bound") == await sending
    await link.closed()


async def test_a_nack_of_the_bind_is_a_no(world: World) -> None:
    transport = await world.start()
    link = await world.smsc.link()
    asked = await link.hear(BIND)
    link.write(pdu(NACK, 3, asked.sequence))

    assert (Pdu(BIND | ANSWER, 3, 1),) == await begin(transport)


async def test_a_name_that_is_none() -> None:
    async with Smsc() as smsc:
        world = World(smsc)
        transport = await world.start(host="x" * 70 + ".example")

        assert (NotSent, "not_bound") == await begin(transport)
        await world.time.asleep(1)  # it goes on trying
        await closing(world, transport)


async def test_a_defect_does_not_end_the_trying(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def defective(_: SmppTransport) -> str:
        raise LookupError

    with monkeypatch.context() as patched:
        patched.setattr(SmppTransport, "_live", defective)
        transport = await world.start()
        await world.time.asleep(1)
    await world.time.advance(1)
    link = await world.bound_again(transport)
    sending = begin(transport)
    link.accept(await link.hear(SUBMIT))

    assert (TAKEN,) == await sending
    assert "a defect: LookupError" in world.said


@pytest.mark.parametrize("command", [ENQUIRE | ANSWER, SUBMIT | ANSWER, NACK])
@pytest.mark.parametrize("status", [0, PASSWORD])
async def test_an_odd_answer_to_the_bind(world: World, command: int, status: int) -> None:
    if (command, status) == (NACK, PASSWORD):
        return  # a no
    transport = await world.start()
    link = await world.smsc.link()
    asked = await link.hear(BIND)
    link.write(pdu(command, status, asked.sequence))

    assert (NotSent, "not_bound") == await begin(transport)


async def _closes(link: Link, submit: Heard) -> None:
    link.close()


async def _closes_in_the_head(link: Link, submit: Heard) -> None:
    link.write(pdu(SUBMIT | ANSWER, 0, submit.sequence, b"m_1\0")[:10])
    link.close()


async def _closes_in_the_body(link: Link, submit: Heard) -> None:
    link.write(pdu(SUBMIT | ANSWER, 0, submit.sequence, b"m_1\0")[:-1])
    link.close()


async def _unbinds(link: Link, submit: Heard) -> None:
    link.ask(UNBIND)


async def _talks_http(link: Link, submit: Heard) -> None:
    link.write(b"HTTP/1.1 200 OK\r\n\r\n")


async def _says_zeros(link: Link, submit: Heard) -> None:
    link.write(bytes(64))


async def _says_a_huge_length(link: Link, submit: Heard) -> None:
    link.write(b"\xff\xff\xff\xff" + bytes(60))


@pytest.mark.parametrize(
    "fault",
    [
        _closes,
        _closes_in_the_head,
        _closes_in_the_body,
        _unbinds,
        _talks_http,
        _says_zeros,
        _says_a_huge_length,
    ],
)
async def test_what_was_written_and_not_answered_is_lost_and_not_repeated(
    world: World, fault: Callable[[Link, Heard], Any]
) -> None:
    transport, link = await world.bound()
    sending = begin(transport)
    await fault(link, await link.hear(SUBMIT))
    assert (Lost, "connection_lost") == await sending
    assert (NotSent, "not_bound") == await begin(transport)

    await world.time.asleep(1)
    await world.time.advance(1)
    again = await world.bound_again(transport)
    again.ask(ENQUIRE)

    assert ENQUIRE | ANSWER == (await again.hear()).command  # and no submit_sm before it


async def test_what_waits_for_the_window_of_a_session_that_ends_was_not_sent(world: World) -> None:
    transport, link = await world.bound(window=1)
    first = begin(transport)
    await link.hear(SUBMIT)
    others = [begin(transport) for _ in range(3)]
    await settle()
    link.close()

    assert (Lost, "connection_lost") == await first
    assert [(NotSent, "not_bound")] * 3 == [await other for other in others]


async def test_a_message_of_which_a_part_was_sent_is_lost(world: World) -> None:
    transport, link = await world.bound()
    sending = begin(transport, TWO)
    link.accept(await link.hear(SUBMIT))
    await link.hear(SUBMIT)
    link.close()

    assert (Lost, "connection_lost") == await sending


async def test_an_error_says_nothing_private(world: World) -> None:
    transport, link = await world.bound()
    with pytest.raises(Lost) as caught:
        await transport.send(ONE, within=0.05)
    link.close()
    await settle()
    told = repr(caught.value) + repr(world.log.calls)

    for private in ("123456", "33600000000", "password"):
        assert private not in told


# --- Receipts -----------------------------------------------------------------------------------


async def told(link: Link) -> tuple[int, int]:
    """Command and sequence number of what the client says next."""
    heard = await link.hear()
    return heard.command, heard.sequence


async def test_a_receipt_is_stored_then_answered(world: World) -> None:
    _, link = await world.bound()
    sequence = link.ask(DELIVER, receipt())
    answer = await link.hear(DELIVER | ANSWER)

    assert (OK, sequence, b"\0") == (answer.status, answer.sequence, answer.body)
    assert [pdu(DELIVER, 0, sequence, receipt())] == world.receipts.stored


async def is_answered_early(world: World, link: Link) -> bool:
    """Whether a receipt is answered while it is still being stored. What the client says on the
    way to its next enquire_link_resp came before it."""
    world.receipts.gate.clear()
    link.ask(DELIVER, receipt())
    await world.receipts.begun.wait()
    await settle()
    link.ask(ENQUIRE)
    first = (await link.hear()).command
    world.receipts.gate.set()
    second = (await link.hear()).command

    assert {DELIVER | ANSWER, ENQUIRE | ANSWER} == {first, second}
    return first == DELIVER | ANSWER


async def test_a_receipt_is_not_answered_before_it_is_stored(world: World) -> None:
    _, link = await world.bound()

    assert not await is_answered_early(world, link)


async def test_the_test_above_can_fail(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """F47: the same look at a session that answers first."""

    async def hasty(self: _Session, heard: Pdu) -> None:
        self._write(Pdu(heard.command | ANSWER, 0, heard.sequence, b"\0"))
        await self._on_receipt(heard.write())

    monkeypatch.setattr(_Session, "_hear", hasty)
    _, link = await world.bound()

    assert await is_answered_early(world, link)


async def test_a_receipt_that_was_not_stored_is_asked_for_again(world: World) -> None:
    _, link = await world.bound()
    world.receipts.failures = 1
    statuses = []
    for _ in range(2):
        link.ask(DELIVER, receipt())
        statuses.append((await link.hear(DELIVER | ANSWER)).status)

    assert [LATER, OK] == statuses
    assert 1 == len(world.receipts.stored)


async def test_only_so_many_receipts_are_stored_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.transports.smpp.HEARINGS", 2)
    _, link = await world.bound()
    world.receipts.gate.clear()
    sequences = [link.ask(DELIVER, receipt()) for _ in range(5)]
    await world.receipts.begun.wait()
    await settle()
    assert 2 == len(world.transports[0]._hearing)

    world.receipts.gate.set()

    assert sequences == [(await link.hear(DELIVER | ANSWER)).sequence for _ in sequences]


async def test_a_receipt_may_come_before_the_answer(world: World) -> None:
    transport, link = await world.bound()
    sending = begin(transport)
    submit = await link.hear(SUBMIT)
    link.ask(DELIVER, receipt())
    await link.hear(DELIVER | ANSWER)
    assert 1 == len(world.receipts.stored)
    assert not sending.done()

    link.accept(submit)

    assert (TAKEN,) == await sending


async def test_a_receipt_that_takes_long_holds_nothing_up(world: World) -> None:
    transport, link = await world.bound()
    world.receipts.gate.clear()
    link.ask(DELIVER, receipt())
    sending = begin(transport)
    link.accept(await link.hear(SUBMIT))

    assert (TAKEN,) == await sending


@pytest.mark.parametrize(
    "body",
    [
        receipt(tlvs=b"\x00\x1e\x00\x03m_1\x04\x27\x00\x01\x02"),  # an id without its NUL
        receipt(b"", tlvs=b"\x00\x1e\x00\x04m_1\0\x04\x27\x00\x01\x02"),
        receipt(b"STOP", esm_class=0),
        receipt()[:-3],
        b"",
    ],
)
async def test_whatever_is_delivered_is_handed_on_whole(world: World, body: bytes) -> None:
    """What it says is the provider's to read, and to keep aside where it cannot be read."""
    _, link = await world.bound()
    sequence = link.ask(DELIVER, body)

    assert OK == (await link.hear(DELIVER | ANSWER)).status
    assert [pdu(DELIVER, 0, sequence, body)] == world.receipts.stored


async def test_a_data_sm_is_a_receipt_too(world: World) -> None:
    _, link = await world.bound()
    link.ask(0x103, b"anything")

    assert OK == (await link.hear(0x80000103)).status
    assert 1 == len(world.receipts.stored)


async def test_a_receipt_in_pieces_is_put_together(world: World) -> None:
    _, link = await world.bound()
    for octet in pdu(DELIVER, 0, 1, receipt()):
        link.write(bytes([octet]))
        await asyncio.sleep(0)

    assert OK == (await link.hear(DELIVER | ANSWER)).status


async def test_closing_waits_for_receipts_that_are_being_stored(world: World) -> None:
    transport, link = await world.bound()
    world.receipts.gate.clear()
    link.ask(DELIVER, receipt())
    await world.receipts.begun.wait()
    ending = asyncio.create_task(transport.aclose())
    await settle()
    world.receipts.gate.set()
    answer = await link.hear(DELIVER | ANSWER)
    link.answer(await link.hear(UNBIND))
    await ending

    assert OK == answer.status
    await link.closed()


# --- The session --------------------------------------------------------------------------------


async def test_the_centre_may_ask_whether_we_are_there(world: World) -> None:
    _, link = await world.bound()
    sequence = link.ask(ENQUIRE)

    assert (ENQUIRE | ANSWER, sequence) == await told(link)


async def test_a_silent_centre_is_asked(world: World) -> None:
    _, link = await world.bound(enquire_every=20, answer_within=5)
    for _ in range(3):
        await world.time.asleep(20)
        await world.time.advance(20)
        link.answer(await link.hear(ENQUIRE))
        await settle()

    await world.time.advance(5)
    assert 1 == world.smsc.connections


async def test_a_centre_that_speaks_is_not_asked(world: World) -> None:
    _, link = await world.bound(enquire_every=20)
    await world.time.advance(15)
    link.ask(ENQUIRE)
    await link.hear(ENQUIRE | ANSWER)
    await world.time.advance(5)
    sequence = link.ask(ENQUIRE)

    assert (ENQUIRE | ANSWER, sequence) == await told(link)


async def test_a_centre_that_does_not_answer_is_left_and_bound_again(world: World) -> None:
    transport, link = await world.bound(enquire_every=20, answer_within=5)
    sending = begin(transport)
    await link.hear(SUBMIT)
    await world.time.advance(20)
    await link.hear(ENQUIRE)
    await world.time.advance(5)
    assert (Lost, "connection_lost") == await sending
    await link.closed()

    await world.time.asleep(1)
    await world.time.advance(1)
    again = await world.bound_again(transport)
    sending = begin(transport)
    again.accept(await again.hear(SUBMIT))

    assert (TAKEN,) == await sending
    assert "no answer to enquire_link" in world.said


async def test_an_unbind_is_answered_and_we_come_back(world: World) -> None:
    transport, link = await world.bound()
    sequence = link.ask(UNBIND)
    assert (UNBIND | ANSWER, sequence) == await told(link)
    await link.closed()

    await world.time.asleep(1)
    await world.time.advance(1)
    again = await world.bound_again(transport)
    sending = begin(transport)
    again.accept(await again.hear(SUBMIT))

    assert (TAKEN,) == await sending


async def test_garbage_is_answered_and_ends_the_session(world: World) -> None:
    _, link = await world.bound()
    link.write(b"GET / HTTP/1.1\r\n\r\n")
    nack = await link.hear(NACK)

    assert (2, 0) == (nack.status, nack.sequence)
    await link.closed()


@pytest.mark.parametrize("command", [0x02, 0x04, 0x09, 0x0B, 0x103 + 1, 0x7FFFFFFF])
async def test_what_is_not_for_us_to_answer_is_refused(world: World, command: int) -> None:
    _, link = await world.bound()
    sequence = link.ask(command, b"x")
    nack = await link.hear(NACK)

    assert (3, sequence) == (nack.status, nack.sequence)


async def test_a_centre_that_says_we_are_not_bound_is_bound_again(world: World) -> None:
    transport, link = await world.bound()
    sending = begin(transport)
    link.answer(await link.hear(SUBMIT), status=0x04)

    assert [4] == [answer.status for answer in await sending]
    await link.closed()


async def test_pauses_between_binds_grow_and_end(world: World) -> None:
    await world.start()
    pauses = [1, 2, 4, 8, 16, 32, 60, 60]
    for pause in pauses:
        link = await world.smsc.link()
        link.answer(await link.hear(BIND), status=SYSERR)
        await world.time.asleep(pause)
        await world.time.advance(pause)
    (await world.smsc.link()).close()

    assert len(pauses) + 1 == world.smsc.connections


async def test_a_session_that_lasted_makes_the_pause_short_again(world: World) -> None:
    transport = await world.start(enquire_every=1000)
    for pause in (1, 2, 4):
        link = await world.smsc.link()
        link.close()
        await world.time.asleep(pause)
        await world.time.advance(pause)
    link = await world.bound_again(transport)
    await world.time.advance(60)
    link.close()

    await world.time.asleep(1)


@pytest.mark.parametrize(
    ("failures", "chance", "pause"),
    [(0, 1, 1), (0, 0, 0.5), (3, 1, 8), (3, 0.5, 6), (50, 1, 60), (50, 0, 30)],
)
def test_a_pause_has_a_random_half(failures: int, chance: float, pause: float) -> None:
    assert pause == pause_before(failures, chance)


async def test_closing_unbinds(world: World) -> None:
    transport, link = await world.bound()
    ending = asyncio.create_task(transport.aclose())
    link.answer(await link.hear(UNBIND))
    await ending

    await link.closed()
    assert (NotSent, "not_bound") == await begin(transport)
    assert [""] == world.said  # bound, and no word of a failure


async def test_closing_does_not_wait_for_ever(world: World) -> None:
    transport, link = await world.bound(answer_within=5)
    ending = asyncio.create_task(transport.aclose())
    await link.hear(UNBIND)
    await world.time.advance(5)
    await ending

    await link.closed()


async def test_closing_waits_for_receipts_of_a_session_that_has_ended(world: World) -> None:
    transport, link = await world.bound()
    world.receipts.gate.clear()
    link.ask(DELIVER, receipt())
    await world.receipts.begun.wait()
    link.close()
    ending = asyncio.create_task(transport.aclose())
    await settle()
    assert not ending.done()

    world.receipts.gate.set()
    await ending

    assert 1 == len(world.receipts.stored)


async def test_closing_waits_for_a_receipt_that_came_while_it_was_unbinding(world: World) -> None:
    transport, link = await world.bound()
    world.receipts.gate.clear()
    ending = asyncio.create_task(transport.aclose())
    asked = await link.hear(UNBIND)
    link.ask(DELIVER, receipt())
    await world.receipts.begun.wait()
    link.answer(asked)
    await link.closed()
    await settle()
    assert not ending.done()

    world.receipts.gate.set()
    await ending

    assert 1 == len(world.receipts.stored)


async def test_a_defect_in_reading_ends_the_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def defective(self: _Session, heard: Pdu) -> None:
        raise LookupError

    transport, link = await world.bound()
    sending = begin(transport)
    submit = await link.hear(SUBMIT)
    monkeypatch.setattr(_Session, "_take", defective)
    link.accept(submit)

    assert (Lost, "connection_lost") == await sending
    await link.closed()


async def test_closing_while_connecting(world: World) -> None:
    transport = await world.start()
    await asyncio.sleep(0)
    await transport.aclose()

    assert (NotSent, "not_bound") == await begin(transport)


async def test_a_centre_behind_tls(tmp_path: Path) -> None:
    certified = faults.certificate(tmp_path)
    trust = ssl.create_default_context(cafile=certified)
    async with Smsc(faults.tls_server(certified)) as smsc:
        world = World(smsc)
        transport, link = await world.bound(tls=True, ssl_context=trust)
        sending = begin(transport)
        link.accept(await link.hear(SUBMIT))

        assert (TAKEN,) == await sending
        ending = asyncio.create_task(transport.aclose())
        link.answer(await link.hear(UNBIND))
        await ending


async def test_a_centre_that_nobody_vouches_for(tmp_path: Path) -> None:
    certified = faults.certificate(tmp_path)
    async with Smsc(faults.tls_server(certified)) as smsc:
        world = World(smsc)
        transport = await world.start(tls=True)

        assert (NotSent, "not_bound") == await begin(transport)
        assert ["not connected: SSLCertVerificationError"] == world.said
        await closing(world, transport)


async def test_whatever_the_centre_says_the_session_ends_in_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PDUs with spoiled octets and mere noise: it goes on or ends, and leaves nothing waiting."""
    monkeypatch.setattr("gateway.transports.smpp.LONGEST_PAUSE", 1.0)
    dice = random.Random(34)
    transport = await world.start()
    for _ in range(40):
        link = await world.bound_again(transport)
        sending = begin(transport)
        submit = await link.hear(SUBMIT)
        said = bytearray(pdu(SUBMIT | ANSWER, 0, submit.sequence, b"m_1\0"))
        said += pdu(DELIVER, 0, 1, receipt()) + pdu(ENQUIRE, 0, 2)
        for _ in range(dice.randint(1, 8)):
            said[dice.randrange(len(said))] = dice.randrange(256)
        link.write(bytes(said) if dice.random() < 0.8 else dice.randbytes(200))
        link.close()
        outcome = await sending

        assert outcome == (Lost, "connection_lost") or isinstance(outcome[0], Pdu)
        seen = world.smsc.connections
        while world.smsc.connections == seen:
            await world.time.advance(1)
    assert not transport._hearing


# --- The pace -----------------------------------------------------------------------------------


def turns(pace: Pace, number: int) -> list[float]:
    return [round(pace.turn(), 3) for _ in range(number)]


def test_without_a_rate_there_is_no_pause() -> None:
    assert [0.0] * 100 == turns(Pace(None, Time().monotonic), 100)


def test_a_rate_spaces_turns_evenly() -> None:
    assert [0.0, 0.1, 0.2, 0.3] == turns(Pace(10, Time().monotonic), 4)


def test_too_fast_halves_the_rate_and_it_grows_again_by_the_second() -> None:
    time = Time()
    pace = Pace(40, time.monotonic)
    rates = [pace.rate]
    pace.throttled(time.at)
    rates.append(pace.rate)
    for _ in range(3):
        time.at += 1
        rates.append(pace.rate)
    pace.throttled(time.at)
    rates.append(pace.rate)
    time.at += 1000
    rates.append(pace.rate)

    assert [40, 20, 21, 22, 23, 11.5, 40] == rates


def test_without_a_rate_half_of_what_was_used_is_left() -> None:
    time = Time()
    pace = Pace(None, time.monotonic)
    turns(pace, 30)
    pace.throttled(time.at)

    assert 15 == pace.rate


def test_a_window_full_of_complaints_is_one_complaint() -> None:
    time = Time()
    pace = Pace(40, time.monotonic)
    begun = time.at
    time.at += 0.5
    for _ in range(10):
        pace.throttled(begun)

    assert 20 == pace.rate


def test_it_never_stops() -> None:
    time = Time()
    pace = Pace(1, time.monotonic)
    for _ in range(10):
        pace.throttled(time.at)

    assert 0.2 == pace.rate


async def test_a_throttled_session_waits_before_the_next_message(world: World) -> None:
    transport, link = await world.bound(rate=4)
    sending = begin(transport)
    link.answer(await link.hear(SUBMIT), status=THROTTLED)
    assert [THROTTLED] == [answer.status for answer in await sending]

    sending = begin(transport)
    await world.time.asleep(0.5)
    link.ask(ENQUIRE)
    assert ENQUIRE | ANSWER == (await link.hear()).command
    await world.time.advance(0.5)
    link.accept(await link.hear(SUBMIT))

    assert await sending


async def test_a_turn_that_comes_too_late_was_not_sent(world: World) -> None:
    transport, link = await world.bound(rate=1)
    sending = begin(transport)
    link.accept(await link.hear(SUBMIT))
    assert await sending

    assert (NotSent, "timeout") == await begin(transport, within=0.05)


async def test_who_gives_up_waiting_for_a_turn_gives_the_place_back(world: World) -> None:
    transport, link = await world.bound(rate=1, window=1)
    sending = begin(transport)
    link.accept(await link.hear(SUBMIT))
    assert await sending
    assert (NotSent, "timeout") == await begin(transport, within=0.05)

    sending = begin(transport)
    await world.time.asleep(2)
    await world.time.advance(2)
    link.accept(await link.hear(SUBMIT))

    assert await sending


# --- An independent implementation as centre ----------------------------------------------------


async def test_another_implementation_as_the_centre() -> None:
    """smpp34's server: bind, submit_sm, receipts with and without parameters, enquire_link."""
    async with Smsc() as free:
        world = World(free)  # its port is free once it is closed
    server = smpp34.Server("127.0.0.1", free.port, system_id="SMSC")
    await server.start()
    transport = await world.start()
    try:
        async with asyncio.timeout(PATIENCE):
            esme = await server.next()
            assert isinstance(esme, smpp34.Esme)
            sending = begin(transport)
            submit = await server.next()
            assert isinstance(submit, smpp34.SubmitSmEvent)
            submit.accept("1a2b01")
            refusing = begin(transport)
            refused = await server.next()
            assert isinstance(refused, smpp34.SubmitSmEvent)
            refused.reject(THROTTLED)
            answers = [
                await esme.deliver_sm(
                    "ACME", text, source_addr="33600000000", esm_class=4, tlvs=tlvs
                )
                for text, tlvs in (
                    (b"id:1a2b01 stat:DELIVRD", []),
                    (b"", [smpp34.Tlv(0x1E, b"1a2b01"), smpp34.Tlv(0x427, b"\x02")]),
                )
            ]

            assert ("acme", "ACME", 5) == (
                esme.system_id,
                submit.source_addr,
                submit.source_addr_ton,
            )
            assert b"123456 is your code" == submit.short_message
            assert ["1a2b01"] == [smpp.message_id(one.body) for one in await sending]
            assert [THROTTLED] == [one.status for one in await refusing]
            assert [True, True] == [answer.is_success for answer in answers]
            assert [b"id:1a2b01 stat:DELIVRD", b""] == [
                Message.read(Pdu.read(stored).body).short_message
                for stored in world.receipts.stored
            ]
            await world.time.advance(30)  # an enquire_link, answered
            sending = begin(transport)
            submit = await server.next()
            assert isinstance(submit, smpp34.SubmitSmEvent)
            submit.accept("1a2b02")
            assert ["1a2b02"] == [smpp.message_id(one.body) for one in await sending]
    finally:
        await closing(world, transport)
        await server.stop()
