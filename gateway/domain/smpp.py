"""SMPP 3.4: PDUs as values, in and out of octets. Pure; the sockets are in transports/smpp.py.

Specification v3.4, Issue 1.2: opensmpp.org/specs/SMPP_v3_4_Issue1_2.pdf. Strict about framing and
fields, so that nothing spoiled is taken for an answer; forgiving only where centres are known to
deviate (an optional string without its NUL, optional parameters that nobody knows). Whatever is
wrong with octets is an `SmppError`, whose text holds none of them.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

VERSION = 0x34
SHORTEST, LONGEST = 16, 64 * 1024  # octets of a PDU
LAST_SEQUENCE = 0x7FFFFFFF
RESPONSE = 0x80000000  # the bit by which the answer to a command differs from it
UDHI = 0x40  # of esm_class: the text begins with a header

_HEADER = struct.Struct(">IIII")
_TLV = struct.Struct(">HH")


class SmppError(ValueError):
    """Octets that are no PDU, or values that do not fit into one."""


class Command(IntEnum):
    """The commands spoken here, and data_sm, by which some centres send receipts."""

    BIND_TRANSCEIVER = 0x09
    SUBMIT_SM = 0x04
    DELIVER_SM = 0x05
    UNBIND = 0x06
    ENQUIRE_LINK = 0x15
    DATA_SM = 0x103
    GENERIC_NACK = 0x80000000
    BIND_TRANSCEIVER_RESP = 0x80000009
    SUBMIT_SM_RESP = 0x80000004
    DELIVER_SM_RESP = 0x80000005
    UNBIND_RESP = 0x80000006
    ENQUIRE_LINK_RESP = 0x80000015
    DATA_SM_RESP = 0x80000103


class Tag(IntEnum):
    """The optional parameters that are read or written here."""

    RECEIPTED_MESSAGE_ID = 0x001E
    SAR_MSG_REF_NUM = 0x020C
    SAR_TOTAL_SEGMENTS = 0x020E
    SAR_SEGMENT_SEQNUM = 0x020F
    SC_INTERFACE_VERSION = 0x0210
    NETWORK_ERROR_CODE = 0x0423
    MESSAGE_PAYLOAD = 0x0424
    MESSAGE_STATE = 0x0427


class Status(IntEnum):
    """command_status, §5.1.3."""

    ESME_ROK = 0x00  # no error
    ESME_RINVMSGLEN = 0x01  # the message's length is invalid
    ESME_RINVCMDLEN = 0x02  # the PDU's length is invalid
    ESME_RINVCMDID = 0x03  # no such command
    ESME_RINVBNDSTS = 0x04  # not in this state of the session: not bound, or bound otherwise
    ESME_RALYBND = 0x05  # already bound
    ESME_RINVPRTFLG = 0x06  # priority_flag
    ESME_RINVREGDLVFLG = 0x07  # registered_delivery
    ESME_RSYSERR = 0x08  # the centre has a problem
    ESME_RINVSRCADR = 0x0A  # the sender
    ESME_RINVDSTADR = 0x0B  # the number
    ESME_RINVMSGID = 0x0C  # no such message
    ESME_RBINDFAIL = 0x0D  # not bound, without a reason
    ESME_RINVPASWD = 0x0E  # wrong password
    ESME_RINVSYSID = 0x0F  # no such system_id
    ESME_RCANCELFAIL = 0x11  # cancel_sm
    ESME_RREPLACEFAIL = 0x13  # replace_sm
    ESME_RMSGQFUL = 0x14  # the queue for this number or account is full
    ESME_RINVSERTYP = 0x15  # service_type
    ESME_RINVNUMDESTS = 0x33  # submit_multi
    ESME_RINVDLNAME = 0x34  # submit_multi
    ESME_RINVDESTFLAG = 0x40  # submit_multi
    ESME_RINVSUBREP = 0x42  # replace_if_present_flag
    ESME_RINVESMCLASS = 0x43  # esm_class
    ESME_RCNTSUBDL = 0x44  # submit_multi
    ESME_RSUBMITFAIL = 0x45  # not taken, without a reason
    ESME_RINVSRCTON = 0x48  # the sender's type of number
    ESME_RINVSRCNPI = 0x49  # the sender's numbering plan
    ESME_RINVDSTTON = 0x50  # the number's type of number
    ESME_RINVDSTNPI = 0x51  # the number's numbering plan
    ESME_RINVSYSTYP = 0x53  # system_type
    ESME_RINVREPFLAG = 0x54  # replace_if_present_flag
    ESME_RINVNUMMSGS = 0x55  # query_sm
    ESME_RTHROTTLED = 0x58  # too fast
    ESME_RINVSCHED = 0x61  # schedule_delivery_time
    ESME_RINVEXPIRY = 0x62  # validity_period
    ESME_RINVDFTMSGID = 0x63  # sm_default_msg_id
    ESME_RX_T_APPN = 0x64  # the receiver could not take it now: come again
    ESME_RX_P_APPN = 0x65  # the receiver will never take it
    ESME_RX_R_APPN = 0x66  # the receiver refuses it
    ESME_RQUERYFAIL = 0x67  # query_sm
    ESME_RINVOPTPARSTREAM = 0xC0  # optional parameters that cannot be read
    ESME_ROPTPARNOTALLWD = 0xC1  # an optional parameter that is not allowed
    ESME_RINVPARLEN = 0xC2  # a parameter's length
    ESME_RMISSINGOPTPARAM = 0xC3  # an optional parameter that is missing
    ESME_RINVOPTPARAMVAL = 0xC4  # an optional parameter's value
    ESME_RDELIVERYFAILURE = 0xFE  # data_sm: not delivered
    ESME_RUNKNOWNERR = 0xFF  # nobody knows


def status_name(status: int) -> str:
    """`ESME_RTHROTTLED (0x58)`, or the number alone."""
    known = status in Status.__members__.values()
    return f"{Status(status).name} (0x{status:02X})" if known else f"0x{status:02X}"


@dataclass(frozen=True, slots=True)
class Pdu:
    """One PDU. The body is kept as octets: who needs it reads it."""

    command: int
    status: int
    sequence: int
    body: bytes = field(default=b"", repr=False)

    def write(self) -> bytes:
        length = SHORTEST + len(self.body)
        if length > LONGEST:
            raise SmppError("the PDU is too long")
        return _HEADER.pack(length, self.command, self.status, self.sequence) + self.body

    @classmethod
    def read(cls, octets: bytes) -> Self:
        """The PDU that these octets are, all of them."""
        if len(octets) < SHORTEST or length_of(octets) != len(octets):
            raise SmppError("the PDU is not as long as it says")
        _, command, status, sequence = _HEADER.unpack_from(octets)
        return cls(command, status, sequence, octets[SHORTEST:])


def length_of(head: bytes) -> int:
    """How long the PDU is that begins with these four octets or more."""
    if len(head) < 4:
        raise SmppError("the PDU's length is cut off")
    length = int.from_bytes(head[:4])
    if not SHORTEST <= length <= LONGEST:
        raise SmppError("the PDU's length is out of bounds")
    return length


@dataclass(frozen=True, slots=True)
class Address:
    """A number or sender with its type of number and numbering plan."""

    value: str = field(default="", repr=False)
    ton: int = 0
    npi: int = 0

    def write(self) -> bytes:
        return bytes([_octet(self.ton), _octet(self.npi)]) + _string(self.value, 21)


Tlvs = tuple[tuple[int, bytes], ...]  # tag and value, in their order


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The body of a submit_sm or a deliver_sm."""

    source: Address = Address()
    destination: Address = Address()
    short_message: bytes = field(default=b"", repr=False)
    service_type: str = ""
    esm_class: int = 0
    protocol_id: int = 0
    priority_flag: int = 0
    schedule_delivery_time: str = ""
    validity_period: str = ""
    registered_delivery: int = 0
    replace_if_present_flag: int = 0
    data_coding: int = 0
    sm_default_msg_id: int = 0
    tlvs: Tlvs = field(default=(), repr=False)

    def write(self) -> bytes:
        if len(self.short_message) > 254:
            raise SmppError("short_message is too long")
        head = (self.esm_class, self.protocol_id, self.priority_flag)
        tail = (
            self.registered_delivery,
            self.replace_if_present_flag,
            self.data_coding,
            self.sm_default_msg_id,
            len(self.short_message),
        )
        return b"".join(
            (
                _string(self.service_type, 6),
                self.source.write(),
                self.destination.write(),
                bytes(map(_octet, head)),
                _string(self.schedule_delivery_time, 17),
                _string(self.validity_period, 17),
                bytes(map(_octet, tail)),
                self.short_message,
                write_tlvs(self.tlvs),
            )
        )

    @classmethod
    def read(cls, body: bytes) -> Self:
        fields = _Fields(body)
        return cls(
            service_type=fields.string(6),
            source=fields.address(21),
            destination=fields.address(21),
            esm_class=fields.octet(),
            protocol_id=fields.octet(),
            priority_flag=fields.octet(),
            schedule_delivery_time=fields.string(17),
            validity_period=fields.string(17),
            registered_delivery=fields.octet(),
            replace_if_present_flag=fields.octet(),
            data_coding=fields.octet(),
            sm_default_msg_id=fields.octet(),
            short_message=fields.counted(254),
            tlvs=fields.tlvs(),
        )

    @classmethod
    def read_data(cls, body: bytes) -> Self:
        """The body of a data_sm: fewer fields, and the text is an optional parameter."""
        fields = _Fields(body)
        return cls(
            service_type=fields.string(6),
            source=fields.address(65),
            destination=fields.address(65),
            esm_class=fields.octet(),
            registered_delivery=fields.octet(),
            data_coding=fields.octet(),
            tlvs=fields.tlvs(),
        )

    def tlv(self, tag: int) -> bytes | None:
        """The (first) value of an optional parameter."""
        return next((value for found, value in self.tlvs if found == tag), None)

    @property
    def text(self) -> bytes:
        """The text as octets, wherever it is."""
        return self.short_message or self.tlv(Tag.MESSAGE_PAYLOAD) or b""


@dataclass(frozen=True, slots=True)
class ShortMessage:
    """A message to be sent, its parts in this order. One without parts is not to be sent at all:
    its text is longer than the route allows.
    """

    parts: tuple[Message, ...]


Answers = Sequence[Pdu]  # what came back: one PDU for each part that was sent, in their order


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What binding to a centre takes, and how to behave once bound. Times are seconds."""

    host: str
    port: int
    tls: bool
    system_id: str
    password: str = field(repr=False)
    system_type: str = ""
    window: int = 10  # submit_sm without an answer at once
    rate: float | None = None  # submit_sm a second
    enquire_every: float = 30.0  # without a word from the centre
    answer_within: float = 15.0  # for a bind, an enquire_link, an unbind

    def bind(self) -> bytes:
        """The body of bind_transceiver."""
        return b"".join(
            (
                _string(self.system_id, 16),
                _string(self.password, 9),
                _string(self.system_type, 13),
                bytes([VERSION, 0, 0]),  # type and plan of the (empty) address range
                _string("", 41),
            )
        )


def message_id(body: bytes) -> str:
    """The id in the body of a submit_sm_resp; "" where there is none."""
    if not body:
        return ""
    fields = _Fields(body)
    found = fields.string(65)
    fields.tlvs()
    return found


def write_message_id(given: str) -> bytes:
    """The body of a deliver_sm_resp or submit_sm_resp."""
    return _string(given, 65)


def write_tlvs(tlvs: Tlvs) -> bytes:
    for tag, value in tlvs:
        if not (0 <= tag <= 0xFFFF and len(value) <= 0xFFFF):
            raise SmppError("an optional parameter does not fit")
    return b"".join(_TLV.pack(tag, len(value)) + value for tag, value in tlvs)


def c_string(value: bytes) -> str:
    """A string of an optional parameter. Its NUL may be missing: some centres forget it."""
    return value.partition(b"\0")[0].decode("latin-1")


def relative_time(seconds: int) -> str:
    """A span in the relative form YYMMDDhhmmss000R, at most 30 days."""
    minutes, second = divmod(max(1, min(seconds, 30 * 86_400)), 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"0000{day:02}{hour:02}{minute:02}{second:02}000R"


def _octet(value: int) -> int:
    if not 0 <= value <= 0xFF:
        raise SmppError("a number does not fit into an octet")
    return value


def _string(value: str, most: int) -> bytes:
    """A C-octet string; `most` counts its NUL."""
    if not value.isascii() or "\0" in value or len(value) >= most:
        raise SmppError("a string is too long or not plain")
    return value.encode() + b"\0"


class _Fields:
    """Reads a body from front to back."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def octet(self) -> int:
        return self._take(1)[0]

    def string(self, most: int) -> str:
        end = self._body.find(b"\0", self._at, self._at + most)
        if end < 0:
            raise SmppError("a string is too long or has no end")
        found = self._body[self._at : end]
        self._at = end + 1
        return found.decode("latin-1")

    def address(self, most: int) -> Address:
        ton, npi = self.octet(), self.octet()
        return Address(self.string(most), ton, npi)

    def counted(self, most: int) -> bytes:
        length = self.octet()
        if length > most:
            raise SmppError("short_message is too long")
        return self._take(length)

    def tlvs(self) -> Tlvs:
        """The rest."""
        found = []
        while self._at < len(self._body):
            tag, length = _TLV.unpack(self._take(_TLV.size))
            found.append((tag, self._take(length)))
        return tuple(found)

    def _take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._body):
            raise SmppError("the body ends too early")
        found = self._body[self._at : end]
        self._at = end
        return found
