"""Text into short messages: which alphabet, how long, and where it may be cut."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain import gsm
from gateway.domain.gsm import ALPHABETS, UCS2, Part, Unspellable

FEW = settings(deadline=None, max_examples=150)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("a€[{é😀"), max_size=700)

BACK = {octets: char for char, octets in gsm._GSM.items()}


def read_gsm(octets: bytes) -> str:
    """The default alphabet, read. An escape that lost its other half is a KeyError."""
    units, at = [], 0
    while at < len(octets):
        step = 2 if octets[at] == 0x1B else 1
        units.append(BACK[octets[at : at + step]])
        at += step
    return "".join(units)


def read(part: Part) -> str:
    octets = part.octets[6:] if part.headed else part.octets
    return octets.decode("utf-16-be") if part.data_coding == 8 else read_gsm(octets)


@pytest.mark.parametrize(
    ("char", "octets"),
    [
        ("@", b"\x00"),
        ("$", b"\x02"),
        ("_", b"\x11"),
        ("£", b"\x01"),
        ("A", b"A"),
        ("é", b"\x05"),
        ("Ç", b"\x09"),
        ("à", b"\x7f"),
        ("Ω", b"\x15"),
        ("¿", b"\x60"),
        ("§", b"\x5f"),
        ("^", b"\x1b\x14"),
        ("{", b"\x1b\x28"),
        ("}", b"\x1b\x29"),
        ("\\", b"\x1b\x2f"),
        ("[", b"\x1b\x3c"),
        ("~", b"\x1b\x3d"),
        ("]", b"\x1b\x3e"),
        ("|", b"\x1b\x40"),
        ("€", b"\x1b\x65"),
        ("\f", b"\x1b\x0a"),
    ],
)
def test_the_default_alphabet(char: str, octets: bytes) -> None:
    assert (Part(0, octets),) == gsm.parts(char)
    assert len(octets) == gsm.septets(char)


def test_the_default_alphabet_has_127_characters_and_an_escape() -> None:
    assert 128 == len(gsm._DEFAULT) == len(set(gsm._DEFAULT))
    assert gsm._DEFAULT.index("\x1b") == 0x1B


@pytest.mark.parametrize("char", ["ç", "ê", "я", "中", "😀", "\x1b"])
def test_what_it_lacks_is_written_in_ucs2(char: str) -> None:
    assert (Part(8, char.encode("utf-16-be")),) == gsm.parts(char)
    assert gsm.septets(char) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("l\u2019été", "l'été"),
        ("“ACME” «code»", '"ACME" "code"'),
        ("12\u00a0345\u202f6", "12 345 6"),
        ("a\u2013b\u2014c\u2011d", "a-b-c-d"),
        ("wait…", "wait..."),
        ("so\u00adft\u200b\ufeff", "soft"),
        ("`x\u00b4", "'x'"),
        ("e\u0301", "é"),
    ],
)
def test_typography_does_not_cost_half_the_length(text: str, expected: str) -> None:
    assert expected == gsm.plain(text)
    assert [0] == [part.data_coding for part in gsm.parts(text)]


def test_what_carries_meaning_is_left_alone() -> None:
    family = "👩\u200d👧 \u0645\u06cc\u200c\u062e ç"

    assert family == gsm.plain(family)


@pytest.mark.parametrize(
    ("alphabet", "char", "single", "part", "data_coding"),
    [
        ("gsm", "a", 160, 153, 0),
        ("gsm", "€", 80, 76, 0),  # an escape pair counts two, and 153 is odd
        ("ascii", "a", 160, 134, 1),
        ("latin1", "é", 140, 134, 3),
        ("latin1_default", "é", 140, 134, 0),
        ("ucs2", "a", 70, 67, 8),
        ("gsm", "ж", 70, 67, 8),
        ("gsm", "😀", 35, 33, 8),  # a surrogate pair counts two, and 67 is odd
        ("ascii", "é", 70, 67, 8),
        ("latin1", "€", 70, 67, 8),
    ],
)
def test_how_much_fits(alphabet: str, char: str, single: int, part: int, data_coding: int) -> None:
    (alone,) = gsm.parts(char * single, alphabet=alphabet)
    first, second = gsm.parts(char * (single + 1), alphabet=alphabet)
    unit = len(alone.octets) // single

    assert (data_coding, False) == (alone.data_coding, alone.headed)
    assert part * unit == len(first.octets) - 6
    assert (single + 1 - part) * unit == len(second.octets) - 6


def test_parts_begin_with_a_header() -> None:
    made = gsm.parts("a" * 400, reference=0xAB)

    assert [b"\x05\x00\x03\xab\x03" + bytes([at]) for at in (1, 2, 3)] == [
        part.octets[:6] for part in made
    ]
    assert all(part.headed for part in made)


def test_an_escape_pair_is_not_cut() -> None:
    first, second = gsm.parts("a" * 152 + "€" + "b" * 10)

    assert b"a" * 152 == first.octets[6:]
    assert b"\x1b\x65" + b"b" * 10 == second.octets[6:]


def test_a_surrogate_pair_is_not_cut() -> None:
    first, second = gsm.parts("ж" * 66 + "😀" + "ж" * 10)

    assert "ж" * 66 == first.octets[6:].decode("utf-16-be")
    assert "😀" + "ж" * 10 == second.octets[6:].decode("utf-16-be")


@pytest.mark.parametrize("text", ["\ud83d", "a\udc00b", "a" * (153 * 255 + 1)])
def test_what_cannot_be_written_is_an_error(text: str) -> None:
    with pytest.raises(Unspellable):
        gsm.parts(text)


def test_an_empty_text_is_an_empty_message() -> None:
    assert (Part(0, b""),) == gsm.parts("")


def test_the_octets_are_not_shown() -> None:
    assert "123456" not in repr(gsm.parts("123456 is your code"))


@FEW
@given(text=TEXTS)
def test_the_parts_say_the_text(text: str) -> None:
    made = gsm.parts(text)
    used = UCS2 if made[0].data_coding else ALPHABETS["gsm"]

    assert gsm.plain(text) == "".join(map(read, made))
    assert 1 == len({part.data_coding for part in made})
    for part in made:
        assert len(part.octets) <= (used.part + 6 if part.headed else used.single)


@FEW
@given(text=TEXTS)
def test_plain_is_plain(text: str) -> None:
    once = gsm.plain(text)

    assert unicodedata.normalize("NFC", once) in {once, gsm.plain(once)}
    assert gsm.septets(once) is None or gsm.septets(once) == sum(
        len(part.octets) - 6 * part.headed for part in gsm.parts(once)
    )
