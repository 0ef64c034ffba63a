"""Text as short messages carry it: the alphabets, their counting, the cutting into parts.

3GPP TS 23.038 (the alphabets) and TS 23.040 §9.2.3.24.1 (the header of a part). On SMPP a septet
travels as an octet of its own, so everything here is counted in octets.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

MOST_PARTS = 255

_DEFAULT = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = {
    "\f": 0x0A,
    "^": 0x14,
    "{": 0x28,
    "}": 0x29,
    "\\": 0x2F,
    "[": 0x3C,
    "~": 0x3D,
    "]": 0x3E,
    "|": 0x40,
    "€": 0x65,
}
_ESCAPE = 0x1B
_GSM = {char: bytes([at]) for at, char in enumerate(_DEFAULT) if at != _ESCAPE} | {
    char: bytes([_ESCAPE, at]) for char, at in _EXTENSION.items()
}

# What a word processor puts in the place of plain characters. One of them is enough to turn a text
# of 160 characters into one of 70.
_PLAIN = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
    | dict.fromkeys("\t\u00a0\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))), " ")
    | dict.fromkeys("\u00ad\u200b\u2060\ufeff", "")
    | {"\u2026": "..."}
)


class Unspellable(ValueError):
    """A text that no alphabet can write: half a character."""


@dataclass(frozen=True, slots=True)
class Alphabet:
    """How characters become octets; `spell` gives None for those it does not have.

    `single`: octets of a message that is alone; `part`: of one that begins with a header.
    """

    data_coding: int
    single: int
    part: int
    spell: Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class Part:
    """One short message. `headed`: its octets begin with the header that joins it to the others."""

    data_coding: int
    octets: bytes = field(repr=False)
    headed: bool = False


def _ascii(char: str) -> bytes | None:
    return char.encode() if char.isascii() else None


def _latin1(char: str) -> bytes | None:
    return bytes([ord(char)]) if ord(char) < 0x100 else None


def _ucs2(char: str) -> bytes | None:
    return None if "\ud800" <= char <= "\udfff" else char.encode("utf-16-be")


UCS2 = Alphabet(0x08, 140, 134, _ucs2)
ALPHABETS = {
    "gsm": Alphabet(0x00, 160, 153, _GSM.get),
    "ascii": Alphabet(0x01, 160, 134, _ascii),  # 134: some centres count octets, not septets
    "latin1": Alphabet(0x03, 140, 134, _latin1),
    "latin1_default": Alphabet(0x00, 140, 134, _latin1),  # centres whose default it is
    "ucs2": UCS2,
}


def plain(text: str) -> str:
    """The text with plain quotes, dashes and spaces, its accents composed."""
    return unicodedata.normalize("NFC", text).translate(_PLAIN)


def septets(text: str) -> int | None:
    """How long it is in the default alphabet; None where it cannot be written in it."""
    spelled = [_GSM.get(char) for char in text]
    return sum(len(one) for one in spelled if one) if None not in spelled else None


def parts(text: str, *, alphabet: str = "gsm", reference: int = 0) -> tuple[Part, ...]:
    """The text as short messages: one where it fits; all in the alphabet, or else all in UCS2.

    `reference`, 0 to 255, is the same in all parts of one text. Raises Unspellable, also where
    more parts would be needed than there can be.
    """
    used, units = _spelled(text, alphabet)
    if sum(map(len, units)) <= used.single:
        return (Part(used.data_coding, b"".join(units)),)
    packed = _packed(units, used.part)
    if len(packed) > MOST_PARTS:
        raise Unspellable("more parts than there can be")
    return tuple(
        Part(used.data_coding, bytes([5, 0, 3, reference, len(packed), at]) + octets, headed=True)
        for at, octets in enumerate(packed, start=1)
    )


def whole(text: str, *, alphabet: str = "gsm") -> Part:
    """The text in one piece, however long. Raises Unspellable."""
    used, units = _spelled(text, alphabet)
    return Part(used.data_coding, b"".join(units))


def _spelled(text: str, alphabet: str) -> tuple[Alphabet, list[bytes]]:
    """The alphabet that can write all of it, and its characters in it. Raises Unspellable."""
    text = plain(text)
    for used in (ALPHABETS[alphabet], UCS2):
        units = [used.spell(char) for char in text]
        if None not in units:
            return used, [unit for unit in units if unit is not None]
    raise Unspellable("half a character")


def _packed(units: Sequence[bytes], most: int) -> list[bytes]:
    """The units in as few pieces as they fit. A unit, an escape or surrogate pair for instance,
    stays whole."""
    packed = [bytearray()]
    for unit in units:
        if len(packed[-1]) + len(unit) > most:
            packed.append(bytearray())
        packed[-1] += unit
    return [bytes(octets) for octets in packed]
