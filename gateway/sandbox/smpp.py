"""A short message service centre that speaks SMPP 3.4, on a port of its own.

    bind_transceiver, submit_sm, enquire_link, unbind from the client; deliver_sm from here

The account is `accounts["smpp"]`: `system_id`, `password`, and `receipt_ids` = "decimal" for a
centre that answers with ids in hex and writes them in decimal in its receipts. A submit_sm that
asks for receipts gets them, as text and as optional parameters, over any session that is bound;
one that is not taken is repeated after 1, 2 and 4 seconds. A part of a long text is a message of
its own here; one in message_payload is whole. `validity_period` is checked and not acted upon.
"""

import asyncio
import contextlib
import hmac
import re
import secrets
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.responses import Response

from gateway.sandbox.answers import HalfAnswer
from gateway.sandbox.behaviour import Answer, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message

SUBMIT_SM, DELIVER_SM, UNBIND, BIND_TRANSCEIVER, ENQUIRE_LINK = 0x04, 0x05, 0x06, 0x09, 0x15
GENERIC_NACK = RESPONSE = 0x80000000

OK = 0x00
BAD_MESSAGE_LENGTH, BAD_COMMAND_LENGTH, BAD_COMMAND = 0x01, 0x02, 0x03
NOT_BOUND, ALREADY_BOUND = 0x04, 0x05
SYSTEM_ERROR = 0x08
BAD_SENDER, BAD_NUMBER = 0x0A, 0x0B
BAD_PASSWORD, BAD_SYSTEM_ID = 0x0E, 0x0F
SUBMIT_FAILED = 0x45
THROTTLED = 0x58
BAD_EXPIRY = 0x62

WORDS: Mapping[Stage, str] = {
    Stage.UNDERWAY: "ACCEPTD",
    Stage.ODD: "UNHEARD",
    Stage.FAILED: "UNDELIV",
    Stage.DELIVERED: "DELIVRD",
}
STATES = {"DELIVRD": 2, "UNDELIV": 5, "ACCEPTD": 6}  # message_state
STATUS_INSTEAD = {
    Answer.THROTTLED: THROTTLED,
    Answer.ERROR: SYSTEM_ERROR,
    Answer.REFUSED: BAD_NUMBER,
}
AGAIN = (1.0, 2.0, 4.0)
PATIENCE = 10.0  # seconds for the answer to a deliver_sm
LONGEST = 64 * 1024
MESSAGE_PAYLOAD = 0x0424

_GSM = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_ESCAPED = dict(zip(b"\x0a\x14\x28\x29\x2f\x3c\x3d\x3e\x40\x65", "\f^{}\\[~]|€", strict=True))
_NUMBER = re.compile(r"[1-9][0-9]{6,14}")
_VALIDITY = re.compile(r"|[0-9]{16}|[0-9]{15}[R+-]")


class Wrong(Exception):
    """A request that is refused with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Submission:
    """A submit_sm, understood."""

    number: str
    sender: str
    text: str
    receipts: bool


class Smsc:
    """The centre: a server apart from the sandbox's ASGI application."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.account = carrier.settings.accounts.get("smpp", {})
        self.bound: list[_Session] = []  # newest last
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listens; the port."""
        self._server = await asyncio.start_server(self._accept, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def aclose(self) -> None:
        """Listens no more and drops every session."""
        if self._server is not None:
            self._server.close()
        for task in list(self._sessions):
            task.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    def knows(self, system_id: str, password: str) -> int:
        """The status of a bind."""
        ours = self.account
        if not ours or not hmac.compare_digest(system_id.encode(), ours["system_id"].encode()):
            return BAD_SYSTEM_ID
        right = hmac.compare_digest(password.encode(), ours["password"].encode())
        return OK if right else BAD_PASSWORD

    def writer(self, submission: Submission, message: Message) -> Write | None:
        """How the receipts of this message are written; None where none were asked for."""
        if not submission.receipts:
            return None
        decimal = self.account.get("receipt_ids") == "decimal"
        named = str(int(message.id, 16)) if decimal else message.id

        def write(word: str, at: datetime) -> Letter:
            return Letter("", _receipt(submission, named, word, message.at, at), {}, self._post)

        return write

    async def _post(self, url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
        """Hands a receipt to whoever is bound; 200 where it was taken."""
        if not self.bound:
            raise ConnectionError("nobody is bound")
        return 200 if await self.bound[-1].deliver(content) == OK else 503

    async def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._sessions.add(task)
            task.add_done_callback(self._sessions.discard)
        session = _Session(self, reader, writer)
        with contextlib.suppress(asyncio.CancelledError):  # by aclose
            await session.serve()


class _Session:
    """One connection."""

    def __init__(self, smsc: Smsc, reader: StreamReader, writer: StreamWriter) -> None:
        self._smsc = smsc
        self._reader = reader
        self._writer = writer
        self._sequence = 0
        self._delivered: dict[int, asyncio.Future[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        try:
            while not self._writer.is_closing():
                head = await self._reader.readexactly(16)
                length, command, status, sequence = struct.unpack(">IIII", head)
                if not 16 <= length <= LONGEST:
                    self._write(GENERIC_NACK, BAD_COMMAND_LENGTH, 0)
                    return
                body = await self._reader.readexactly(length - 16)
                self._take(command, status, sequence, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            self._leave()

    async def deliver(self, body: bytes) -> int:
        """The status with which the client answers a deliver_sm."""
        self._sequence += 1
        sequence = self._sequence
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._delivered[sequence] = answer
        self._write(DELIVER_SM, OK, sequence, body)
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        finally:
            self._delivered.pop(sequence, None)

    def _take(self, command: int, status: int, sequence: int, body: bytes) -> None:
        bound = self in self._smsc.bound
        if command == DELIVER_SM | RESPONSE:
            answer = self._delivered.get(sequence)
            if answer is not None and not answer.done():
                answer.set_result(status)
        elif command == BIND_TRANSCEIVER:
            refused = ALREADY_BOUND if bound else self._bind(body)
            self._write(command | RESPONSE, refused, sequence, b"" if refused else b"sandbox\0")
        elif command == ENQUIRE_LINK:
            self._write(command | RESPONSE, OK, sequence)
        elif command == UNBIND:
            self._write(command | RESPONSE, OK if bound else NOT_BOUND, sequence)
            self._leave()
        elif command == SUBMIT_SM and not bound:
            self._write(command | RESPONSE, NOT_BOUND, sequence)
        elif command == SUBMIT_SM:
            self._spawn(self._submit(sequence, body))
        elif not command & RESPONSE:
            self._write(GENERIC_NACK, BAD_COMMAND, sequence)

    def _bind(self, body: bytes) -> int:
        try:
            fields = _Fields(body)
            system_id, password = fields.string(16), fields.string(9)
        except Wrong as wrong:
            return wrong.status
        status = self._smsc.knows(system_id, password)
        if status == OK:
            self._smsc.bound.append(self)
        return status

    async def _submit(self, sequence: int, body: bytes) -> None:
        try:
            submission = parse(body)
        except Wrong as wrong:
            self._write(SUBMIT_SM | RESPONSE, wrong.status, sequence)
            return
        carrier = self._smsc.carrier
        behaviour, answer = carrier.decide(submission.number, Channel.SMS)
        message = carrier.phones.add(
            Message(
                id=f"{secrets.randbits(40) | 1 << 39:x}",
                channel=Channel.SMS,
                number=submission.number,
                text=submission.text,
                sender=submission.sender or None,
                at=carrier.now(),
                client_ref=None,
                behaviour=behaviour,
                answer=answer,
            )
        )
        if not answer.accepts:
            self._write(SUBMIT_SM | RESPONSE, STATUS_INSTEAD[answer], sequence)
            return
        story = carrier.play(message, self._smsc.writer(submission, message), AGAIN, words=WORDS)
        given = await carrier.give(answer, Response(), [story])
        accepted = _pdu(SUBMIT_SM | RESPONSE, OK, sequence, message.id.encode() + b"\0")
        if isinstance(given, HalfAnswer):
            self._writer.write(accepted[: len(accepted) // 2])
            self._writer.close()
        elif not self._writer.is_closing():
            self._writer.write(accepted)

    def _leave(self) -> None:
        if self in self._smsc.bound:
            self._smsc.bound.remove(self)
        for answer in self._delivered.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the client has gone"))
        for task in self._tasks:  # answers that nobody will hear; what they are about goes on
            task.cancel()
        self._writer.close()

    def _write(self, command: int, status: int, sequence: int, body: bytes = b"") -> None:
        if not self._writer.is_closing():
            self._writer.write(_pdu(command, status, sequence, body))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def parse(body: bytes) -> Submission:
    """What a submit_sm asks for. Raises Wrong."""
    fields = _Fields(body)
    fields.string(6)  # service_type
    sender_ton, _, sender = fields.octet(), fields.octet(), fields.string(21)
    fields.take(2)  # type and plan of the number
    number = fields.string(21)
    esm_class, _, _ = fields.take(3)
    fields.string(17)  # schedule_delivery_time
    validity = fields.string(17)
    receipts, _, data_coding, _, length = fields.take(5)
    octets = fields.take(length)
    if not _NUMBER.fullmatch(number):
        raise Wrong(BAD_NUMBER)
    if sender_ton == 5 and len(sender) > 11:
        raise Wrong(BAD_SENDER)
    if not _VALIDITY.fullmatch(validity):
        raise Wrong(BAD_EXPIRY)
    payload = fields.tlv(MESSAGE_PAYLOAD)
    if length > 160 or (length and payload):
        raise Wrong(BAD_MESSAGE_LENGTH)
    octets = octets or payload
    text = octets[1 + octets[0] :] if esm_class & 0x40 and octets else octets
    return Submission(f"+{number}", sender, _text(text, data_coding), bool(receipts & 3))


def _text(octets: bytes, data_coding: int) -> str:
    if data_coding == 0:
        return _gsm(octets)
    encoding = {1: "ascii", 3: "latin-1", 8: "utf-16-be"}.get(data_coding)
    try:
        return octets.decode(encoding or "undefined")
    except UnicodeError:
        raise Wrong(SUBMIT_FAILED) from None


def _gsm(octets: bytes) -> str:
    text, escaped = "", False
    for octet in octets:
        if octet >= len(_GSM):
            raise Wrong(SUBMIT_FAILED)
        if escaped:
            text += _GSM_ESCAPED.get(octet, " ")
        elif octet != 0x1B:
            text += _GSM[octet]
        escaped = octet == 0x1B and not escaped
    return text


def _receipt(
    submission: Submission, named: str, word: str, submitted: datetime, done: datetime
) -> bytes:
    """The body of a deliver_sm: from the number, to the sender."""
    text = (
        f"id:{named} sub:001 dlvrd:{int(word == 'DELIVRD'):03} submit date:{submitted:%y%m%d%H%M} "
        f"done date:{done:%y%m%d%H%M} stat:{word} err:000 Text:"
    ).encode()
    text += submission.text[:20].encode("ascii", "replace")
    tlvs = _tlv(0x001E, named.encode() + b"\0")
    if word in STATES:
        tlvs += _tlv(0x0427, bytes([STATES[word]]))
    source = b"\x01\x01" + submission.number[1:].encode() + b"\0"
    destination = b"\x00\x00" + submission.sender.encode() + b"\0"
    after = bytes([0x04, 0, 0, 0, 0, 0, 0, 0, 0, len(text)])
    return b"\0" + source + destination + after + text + tlvs


def _pdu(command: int, status: int, sequence: int, body: bytes = b"") -> bytes:
    return struct.pack(">IIII", 16 + len(body), command, status, sequence) + body


def _tlv(tag: int, value: bytes) -> bytes:
    return struct.pack(">HH", tag, len(value)) + value


class _Fields:
    """A body, field by field."""

    def __init__(self, body: bytes) -> None:
        self._left = body

    def string(self, most: int) -> str:
        found, end, self._left = self._left.partition(b"\0")
        if not end or len(found) >= most or not found.isascii():
            raise Wrong(BAD_MESSAGE_LENGTH)
        return found.decode()

    def octet(self) -> int:
        return self.take(1)[0]

    def tlv(self, tag: int) -> bytes:
        """The value of an optional parameter, read to the end; empty where it is not there."""
        value = b""
        while self._left:
            found, length = struct.unpack(">HH", self.take(4))
            content = self.take(length)
            value = content if found == tag else value
        return value

    def take(self, length: int) -> bytes:
        if length > len(self._left):
            raise Wrong(BAD_MESSAGE_LENGTH)
        found, self._left = self._left[:length], self._left[length:]
        return found
