"""Addresses: what is accepted, which channel uses which, how they are kept and shown."""

import pytest

from gateway.domain import addresses
from gateway.domain.addresses import Address
from gateway.domain.errors import InvalidInput

NUMBER = "+33612345678"
OTHER = "+33612345679"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("jo@example.com", "jo@example.com"),
        ("  jo@example.com ", "jo@example.com"),
        ("Jo.Smith+otp@EXAMPLE.Com", "Jo.Smith+otp@example.com"),
        ("o'neil_{x}@mail.example.co.uk", "o'neil_{x}@mail.example.co.uk"),
        ("jo@bücher.example", "jo@xn--bcher-kva.example"),
        ("jo@Bücher.example", "jo@xn--bcher-kva.example"),
        ("1@x1.example", "1@x1.example"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
        ("a@" + ".".join(["b" * 61] * 4) + ".cc", "a@" + ".".join(["b" * 61] * 4) + ".cc"),
    ],
)
def test_an_e_mail_address_is_kept_with_its_domain_in_ascii(written: str, kept: str) -> None:
    assert kept == addresses.email(written)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "jo",
        "@example.org",
        "jo@",
        "jo@localhost",
        "jo@example..com",
        "jo@.example.com",
        "jo@example.com.",
        "jo@-example.com",
        "jo@exa mple.com",
        "jo@192.168.0.1",
        "jo@[192.168.0.1]",
        "jo..smith@example.com",
        ".jo@example.com",
        "jo.@example.com",
        '"jo smith"@example.com',
        "Jo <jo@example.com>",
        "jo@example.com, al@example.com",
        "jo@al@example.com",
        "jö@example.com",
        "jo@example.com\r\nBcc: al@example.com",
        "jo\0@example.com",
        "jo@exa_mple.com",
        "jo@" + "b" * 64 + ".com",
        "a" * 65 + "@example.com",
        "aaa@" + ".".join(["b" * 61] * 4) + ".ccc",
        "jo@xn--.example",
    ],
)
def test_what_is_no_mailbox_is_refused_and_not_repeated(written: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        addresses.email(written)

    assert "recipient_invalid" == refused.value.code
    assert len(written) < 4 or written not in refused.value.detail


@pytest.mark.parametrize("text", ["2409", "psid:77/a_b-c", "x" * 128])
def test_an_id_is_kept_as_it_is(text: str) -> None:
    assert text == addresses.parse("messenger", text).text


@pytest.mark.parametrize("text", ["", " 2409", "24 09", "24\n09", "é", "x" * 129, "a\x7f"])
def test_an_id_is_short_and_visible(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        addresses.parse("messenger", text)

    assert "recipient_invalid" == refused.value.code


@pytest.mark.parametrize("kind", ["phone", "whatsapp", "telegram", "viber"])
def test_a_number_is_a_number_whatever_it_is_for(kind: str) -> None:
    address = addresses.parse(kind, "0033 6 12 34 56 78")

    assert (Address(kind, NUMBER), ("phone", NUMBER)) == (address, addresses.indexed(address))


EVERY = {"phone": NUMBER, "email": "jo@example.com", "messenger": "2409", "whatsapp": OTHER}


@pytest.mark.parametrize(
    ("channel", "found", "expected"),
    [
        ("sms", EVERY, NUMBER),
        ("voice", EVERY, NUMBER),
        ("rcs", EVERY, NUMBER),
        ("email", EVERY, "jo@example.com"),
        ("messenger", EVERY, "2409"),
        ("whatsapp", EVERY, OTHER),
        ("telegram", EVERY, NUMBER),
        ("viber", EVERY, NUMBER),
        ("messenger", {"phone": NUMBER}, NUMBER),
        ("email", {"phone": NUMBER}, None),
        ("sms", {"email": "jo@example.com", "whatsapp": OTHER}, None),
        ("viber", {"whatsapp": OTHER}, None),
    ],
)
def test_a_channel_uses_its_own_address_or_the_phone_s(
    channel: str, found: dict[str, str], expected: str | None
) -> None:
    assert expected == addresses.for_channel(channel, found)
    assert (expected is not None) == addresses.reached(channel, found)


def test_the_principal_address_is_the_phone_where_there_is_one() -> None:
    several = [Address("messenger", "2409"), Address("email", "a@b.cc"), Address("phone", NUMBER)]

    assert several[2] == addresses.principal(several)
    assert several[1] == addresses.principal(several[:2])


def test_a_number_alone_is_packed_as_it_always_was() -> None:
    packed = addresses.pack([Address("phone", NUMBER)])

    assert NUMBER.encode() == packed
    assert {"phone": NUMBER} == addresses.unpack(packed)


def test_several_addresses_are_one_value_and_come_back_the_principal_first() -> None:
    packed = addresses.pack([Address("email", "jo@example.com"), Address("phone", NUMBER)])

    assert [("phone", NUMBER), ("email", "jo@example.com")] == list(
        addresses.unpack(packed).items()
    )


@pytest.mark.parametrize(
    "address", [Address("email", "a@b.cc"), Address("messenger", "x"), Address("viber", "+3312345")]
)
def test_only_a_number_alone_fits_the_length_it_is_told_by(address: Address) -> None:
    assert len(addresses.pack([address])) > addresses.PLAIN_BYTES
    assert len(addresses.pack([Address("phone", "+" + "9" * 15)])) <= addresses.PLAIN_BYTES


def test_capitals_do_not_make_another_mailbox_and_do_make_another_id() -> None:
    assert addresses.indexed(Address("email", "Jo@x.example")) == addresses.indexed(
        Address("email", "jo@x.example")
    )
    assert addresses.indexed(Address("messenger", "A")) != addresses.indexed(
        Address("messenger", "a")
    )


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (NUMBER, "+33 6•• ••• •78"),
        ("jo.smith@example.com", "j•••@e•••.com"),
        ("j@x.co.uk", "j•••@x•••.uk"),
        ("2409177723", "24•••23"),
        ("2409", "•••"),
        ("+12", "•••"),
    ],
)
def test_an_address_is_shown_masked(address: str, shown: str) -> None:
    assert shown == addresses.mask(address)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (NUMBER, "33612345678", True),
        (NUMBER, "33612345679", False),
        ("jo@example.com", " Jo@Example.com", True),
        ("jo@example.com", "al@example.com", False),  # neither has a digit
        ("jo@example.com", "", False),
    ],
)
def test_a_receipt_s_spelling_is_compared_as_its_kind_asks(
    ours: str, theirs: str, expected: bool
) -> None:
    assert expected is addresses.same(ours, theirs)
