"""SMPP PDUs: against octets written by hand, against another implementation, and against anything
at all."""

import contextlib
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import smpp34
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain import smpp
from gateway.domain.smpp import (
    Address,
    Command,
    Connection,
    Message,
    Pdu,
    SmppError,
    Status,
    Tag,
)

FEW = settings(deadline=None, max_examples=150)

CONNECTION = Connection(
    host="smsc.example", port=2775, tls=False, system_id="SMPP3TEST", password="secret08"
)
SUBMIT = Message(
    source=Address("ACME", 5, 0),
    destination=Address("33600000000", 1, 1),
    validity_period="000000000500000R",
    registered_delivery=1,
    short_message=b"hello",
    tlvs=((0x0204, b"\x00\x07"),),
)
# Written down octet by octet from §4.4.1 of the specification.
SUBMIT_OCTETS = bytes.fromhex(
    "0000004b 00000004 00000000 00000009"  # length, submit_sm, status, sequence
    "00"  # service_type
    "05 00 41434d4500"  # source: alphanumeric, ACME
    "01 01 333336303030303030303000"  # destination: international, ISDN
    "00 00 00"  # esm_class, protocol_id, priority_flag
    "00"  # schedule_delivery_time
    "3030303030303030303530303030305200"  # validity_period
    "01 00 00 00"  # registered_delivery, replace_if_present, data_coding, sm_default_msg_id
    "05 68656c6c6f"  # short_message
    "0204 0002 0007"  # user_message_reference
)


def test_a_submit_sm_octet_by_octet() -> None:
    pdu = Pdu(Command.SUBMIT_SM, 0, 9, SUBMIT.write())

    assert SUBMIT_OCTETS == pdu.write()
    assert pdu == Pdu.read(SUBMIT_OCTETS)
    assert SUBMIT == Message.read(pdu.body)


def test_a_bind_octet_by_octet() -> None:
    """§4.1.5, with the credentials of the specification's own example."""
    connection = replace(CONNECTION, system_type="SUBMIT1")
    expected = bytes.fromhex(
        "0000002f 00000009 00000000 00000001"
        "534d50503354455354 00 7365637265743038 00 5355424d495431 00 34 00 00 00"
    )

    assert expected == Pdu(Command.BIND_TRANSCEIVER, 0, 1, connection.bind()).write()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", ""),
        (b"\0", ""),
        (b"1a2b01\0", "1a2b01"),
        (b"x" * 64 + b"\0", "x" * 64),
        (b"abc\0\x14\x00\x00\x01x", "abc"),  # a vendor's own parameter after it
    ],
)
def test_the_id_of_a_submitted_message(body: bytes, expected: str) -> None:
    assert expected == smpp.message_id(body)


@pytest.mark.parametrize("body", [b"abc", b"x" * 65 + b"\0", b"abc\0\x14", b"abc\0\0\x1e\0\x05a"])
def test_a_spoiled_id(body: bytes) -> None:
    with pytest.raises(SmppError):
        smpp.message_id(body)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [(b"1a2b01\0", "1a2b01"), (b"1a2b01", "1a2b01"), (b"", ""), (b"\0", ""), (b"ab\0cd\0", "ab")],
)
def test_an_optional_string_may_lack_its_end(octets: bytes, expected: str) -> None:
    assert expected == smpp.c_string(octets)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (300, "000000000500000R"),
        (59, "000000000059000R"),
        (3661, "000000010101000R"),
        (86_400, "000001000000000R"),
        (0, "000000000001000R"),
        (-5, "000000000001000R"),
        (10**9, "000030000000000R"),
    ],
)
def test_a_validity(seconds: int, expected: str) -> None:
    assert expected == smpp.relative_time(seconds)
    assert 16 == len(expected)


@pytest.mark.parametrize(
    ("head", "fine"),
    [
        (b"\0\0\0\x10", True),
        (b"\0\1\0\0", True),
        (b"\0\0\0\x0f", False),
        (b"\0\0\0\0", False),
        (b"\0\1\0\1", False),
        (b"\xff\xff\xff\xff", False),
        (b"HTTP", False),
        (b"\0\0\0", False),
        (b"", False),
    ],
)
def test_a_length_has_bounds(head: bytes, fine: bool) -> None:
    if fine:
        assert 16 <= smpp.length_of(head) <= 65_536
    else:
        with pytest.raises(SmppError):
            smpp.length_of(head)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\0\0\0\x10",
        SUBMIT_OCTETS[:-1],
        SUBMIT_OCTETS + b"\0",
        b"\0\0\0\x11" + bytes(12),
    ],
)
def test_a_pdu_is_exactly_as_long_as_it_says(octets: bytes) -> None:
    with pytest.raises(SmppError):
        Pdu.read(octets)


@pytest.mark.parametrize("cut", range(len(SUBMIT.write())))
def test_a_body_that_is_cut_off(cut: int) -> None:
    body = SUBMIT.write()
    without_tlv = len(body) - 6
    if cut == without_tlv:
        assert () == Message.read(body[:cut]).tlvs
    else:
        with pytest.raises(SmppError):
            Message.read(body[:cut])


@pytest.mark.parametrize(
    "changes",
    [
        {"source": Address("x" * 21)},
        {"source": Address("a\0b")},
        {"source": Address("é")},
        {"destination": Address("1", ton=256)},
        {"destination": Address("1", npi=-1)},
        {"service_type": "123456"},
        {"validity_period": "0" * 17},
        {"short_message": b"x" * 255},
        {"esm_class": 256},
        {"tlvs": ((0x10000, b""),)},
        {"tlvs": ((1, b"x" * 65_536),)},
    ],
)
def test_what_does_not_fit_is_not_written(changes: dict[str, Any]) -> None:
    with pytest.raises(SmppError):
        replace(SUBMIT, **changes).write()


def test_a_pdu_that_is_too_long_is_not_written() -> None:
    with pytest.raises(SmppError):
        Pdu(Command.SUBMIT_SM, 0, 1, bytes(65_521)).write()


@pytest.mark.parametrize("changes", [{"password": "123456789"}, {"system_id": "x" * 16}])
def test_credentials_have_their_limits(changes: dict[str, Any]) -> None:
    with pytest.raises(SmppError):
        replace(CONNECTION, **changes).bind()


def test_the_text_may_be_an_optional_parameter() -> None:
    long = Message(tlvs=((Tag.MESSAGE_PAYLOAD, b"x" * 300),))

    assert b"x" * 300 == Message.read(long.write()).text
    assert b"hello" == SUBMIT.text
    assert b"" == Message().text


def test_a_data_sm() -> None:
    body = b"\0\1\x01336\0\5\0ACME\0\x04\x00\x08\x00\x1e\x00\x03abc"

    assert Message(
        source=Address("336", 1, 1),
        destination=Address("ACME", 5, 0),
        esm_class=4,
        data_coding=8,
        tlvs=((Tag.RECEIPTED_MESSAGE_ID, b"abc"),),
    ) == Message.read_data(body)


def test_unknown_parameters_are_passed_over_and_the_first_counts() -> None:
    message = replace(SUBMIT, tlvs=((0x1403, b"?"), (0x1E, b"a"), (0x1E, b"b")))

    assert b"a" == Message.read(message.write()).tlv(Tag.RECEIPTED_MESSAGE_ID)
    assert message.tlv(Tag.MESSAGE_STATE) is None


def test_every_answer_is_its_command_and_a_bit() -> None:
    answers = {command for command in Command if command & smpp.RESPONSE}

    assert answers == {command | smpp.RESPONSE for command in set(Command) - answers} | {
        Command.GENERIC_NACK
    }


@pytest.mark.parametrize(
    ("status", "name"),
    [(0x58, "ESME_RTHROTTLED (0x58)"), (0, "ESME_ROK (0x00)"), (0x401, "0x401"), (0x09, "0x09")],
)
def test_a_status_has_a_name(status: int, name: str) -> None:
    assert name == smpp.status_name(status)


def test_the_statuses_are_those_of_the_other_implementation() -> None:
    theirs = {name: value for name, value in vars(smpp34).items() if name.startswith("ESME_")}

    assert theirs.items() <= {status.name: status.value for status in Status}.items()
    assert len(theirs) > 5


def test_the_parameters_are_those_of_the_other_implementation() -> None:
    known = {tag.name: getattr(smpp34, f"TLV_{tag.name}", None) for tag in Tag}

    assert {tag.name: tag.value for tag in Tag if tag.name != "SC_INTERFACE_VERSION"} == {
        name: value for name, value in known.items() if name != "SC_INTERFACE_VERSION"
    }


def test_nothing_private_is_shown() -> None:
    shown = repr([SUBMIT, CONNECTION, Pdu.read(SUBMIT_OCTETS), smpp.ShortMessage((SUBMIT,))])

    for private in ("33600000000", "hello", "secret08", "ACME"):
        assert private not in shown


# Round trips, with ourselves and with the other implementation.

OCTET = st.integers(0, 255)
TLVS = st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=4).map(tuple)


def strings(most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=most)


ADDRESSES = st.builds(Address, strings(20), OCTET, OCTET)
MESSAGES = st.builds(
    Message,
    source=ADDRESSES,
    destination=ADDRESSES,
    short_message=st.binary(max_size=254),
    service_type=strings(5),
    esm_class=OCTET,
    protocol_id=OCTET,
    priority_flag=OCTET,
    schedule_delivery_time=st.sampled_from(["", "000000000500000R"]),
    validity_period=st.sampled_from(["", "000000000500000R"]),
    registered_delivery=OCTET,
    replace_if_present_flag=OCTET,
    data_coding=OCTET,
    sm_default_msg_id=OCTET,
    tlvs=TLVS,
)


@FEW
@given(message=MESSAGES)
def test_a_message_comes_back(message: Message) -> None:
    assert message == Message.read(message.write())


@FEW
@given(
    command=st.integers(0, 0xFFFFFFFF),
    status=st.integers(0, 0xFFFFFFFF),
    sequence=st.integers(0, 0xFFFFFFFF),
    body=st.binary(max_size=200),
)
def test_a_pdu_comes_back(command: int, status: int, sequence: int, body: bytes) -> None:
    pdu = Pdu(command, status, sequence, body)

    assert pdu == Pdu.read(pdu.write())


def fields_of(found: Any) -> Sequence[object]:
    """A message as the other implementation sees it, in our words."""
    return [
        Address(found.source_addr, found.source_addr_ton, found.source_addr_npi),
        Address(found.destination_addr, found.dest_addr_ton, found.dest_addr_npi),
        found.short_message,
        found.service_type,
        found.esm_class,
        found.protocol_id,
        found.priority_flag,
        found.schedule_delivery_time,
        found.validity_period,
        found.registered_delivery,
        found.replace_if_present_flag,
        found.data_coding,
        found.sm_default_msg_id,
        tuple((tlv.tag, tlv.value) for tlv in found.tlvs),
    ]


@FEW
@given(message=MESSAGES, command=st.sampled_from([Command.SUBMIT_SM, Command.DELIVER_SM]))
def test_the_other_implementation_reads_the_same(message: Message, command: Command) -> None:
    ours = Pdu(command, 0, 7, message.write()).write()
    found = smpp34.decode(ours)

    assert isinstance(found, smpp34.SubmitSm | smpp34.DeliverSm)
    assert [
        message.source,
        message.destination,
        message.short_message,
        message.service_type,
        message.esm_class,
        message.protocol_id,
        message.priority_flag,
        message.schedule_delivery_time,
        message.validity_period,
        message.registered_delivery,
        message.replace_if_present_flag,
        message.data_coding,
        message.sm_default_msg_id,
        message.tlvs,
    ] == fields_of(found)
    assert found.encode() == ours


@FEW
@given(octets=st.binary(max_size=120))
def test_anything_is_read_or_refused(octets: bytes) -> None:
    head = struct.pack(">I", 16 + len(octets))
    for reads in (
        smpp.length_of,
        Pdu.read,
        Message.read,
        Message.read_data,
        smpp.message_id,
        lambda rest: Pdu.read(head + bytes(12) + rest),
    ):
        with contextlib.suppress(SmppError):
            reads(octets)


@FEW
@given(at=st.integers(0, len(SUBMIT_OCTETS) - 1), octet=OCTET)
def test_a_spoiled_octet_is_read_or_refused(at: int, octet: int) -> None:
    spoiled = SUBMIT_OCTETS[:at] + bytes([octet]) + SUBMIT_OCTETS[at + 1 :]
    with contextlib.suppress(SmppError):
        Message.read(Pdu.read(spoiled).body)
