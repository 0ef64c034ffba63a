"""Recipients: what a caller may write for a phone number, and how it is kept and shown.

Numbers are E.164 as `phonenumbers` understands it. What we send to is what the blind index is made
of; what a provider echoes is never trusted to be spelled alike.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberDesc, PhoneNumberType

from gateway.domain.errors import InvalidInput

_COUNTRY_CODES = frozenset(str(code) for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE)
COUNTRIES = frozenset(phonenumbers.SUPPORTED_REGIONS)  # ISO 3166 codes
_LENGTHS = {  # of the country codes of one and two digits, by how a number begins
    **{f"{code}{digit}": 1 for code in _COUNTRY_CODES if len(code) == 1 for digit in range(10)},
    **{code: len(code) for code in _COUNTRY_CODES if len(code) < 3},
}
_SOLE = {  # the region of a country code that has but one
    str(code): regions[0]
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items()
    if len(regions) == 1
}
_GROUPS = re.compile(".{1,3}")
_NEVER = "(?!)"
_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)

# Kinds of numbers that no person receives a code on, or that cost a fortune: refused by name.
_REFUSED = {
    PhoneNumberType.PREMIUM_RATE: "premium-rate",
    PhoneNumberType.SHARED_COST: "shared-cost",
    PhoneNumberType.UAN: "company (UAN)",
    PhoneNumberType.PAGER: "pager",
    PhoneNumberType.VOICEMAIL: "voicemail",
}


class Phone(NamedTuple):
    """A number we would send to: E.164, and the ISO region its numbering plan names."""

    e164: str
    region: str


def parse(text: str, default_region: str | None = None) -> Phone:
    """Read a phone number: spaces, dashes, `00` for `+` and, with a default region, national form.

    Raises InvalidInput `recipient_invalid` or `recipient_refused`; the text is not repeated.
    """
    number = None
    if _E164.fullmatch(text) is not None:
        length = country_code_length(text)
        national, sole = text[1 + length :], _SOLE.get(text[1 : 1 + length])
        if sole is not None and national[0] != "0" and _ordinary(sole)(national) is not None:
            return Phone(text, sole)  # most: the region is told by the code alone
        number = _split(text)
    if number is not None:
        region = phonenumbers.region_code_for_number(number)
        if region is not None and _ordinary(region)(str(number.national_number)) is not None:
            return Phone(text, region)
    kind = phonenumbers.number_type(number) if number is not None else PhoneNumberType.UNKNOWN
    if number is None or kind == PhoneNumberType.UNKNOWN:  # what the parser reads, it may mend
        number = _read(text, default_region)
        kind = phonenumbers.number_type(number)
    region = phonenumbers.region_code_for_number(number)
    if region is None or kind == PhoneNumberType.UNKNOWN:
        raise InvalidInput(
            "recipient_invalid",
            "The number is not one of any numbering plan: check its digits and country code.",
        )
    if kind in _REFUSED or region == "001":
        name = _REFUSED.get(kind, "satellite or international-network")
        raise InvalidInput(
            "recipient_refused", f"Codes are not sent to {name} numbers.", facts={"kind": name}
        )
    return Phone(_e164(number), region)


@functools.cache
def _ordinary(region: str) -> Callable[[str], re.Match[str] | None]:
    """Matches a national number that is surely a person's: mobile or fixed, and of no kind that is
    refused. Most are, and a pattern costs a tenth of asking for the kind.
    """
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region)
    if metadata is None:
        return re.compile(_NEVER).fullmatch
    refused = (metadata.premium_rate, metadata.shared_cost, metadata.uan, metadata.pager)
    plain = _any_of([metadata.mobile, metadata.fixed_line])
    return re.compile(rf"(?!(?:{_any_of([*refused, metadata.voicemail])})\Z)(?:{plain})").fullmatch


def _any_of(kinds: Sequence[PhoneNumberDesc | None]) -> str:
    patterns = [kind.national_number_pattern for kind in kinds if kind is not None]
    known = [f"(?:{pattern})" for pattern in patterns if pattern and pattern != "NA"]
    return "|".join(known) or _NEVER


def _read(text: str, default_region: str | None) -> PhoneNumber:
    spelled = text.strip().removeprefix("tel:")
    if not all(map(_written, spelled)):
        raise _no_number()
    if spelled.startswith("00"):
        spelled = "+" + spelled[2:]
    elif default_region is None and not spelled.startswith("+") and spelled[:1].isdigit():
        # `33612345678`: a missing plus, for without a default region there is no national form.
        spelled = "+" + spelled
    try:
        return phonenumbers.parse(spelled, default_region)
    except phonenumbers.NumberParseException:
        raise _no_number() from None


def _written(character: str) -> bool:
    """Whether people write it into a number: digits of any script, blanks, dashes, marks of the
    direction of writing. The parser would take letters for digits, and drop what comes before or
    after a number: an extension, or a second one.
    """
    return character in "+\N{FULLWIDTH PLUS SIGN}.()/" or unicodedata.category(character) in _SIGNS


_SIGNS = {"Nd", "Zs", "Pd", "Cf"}


def _no_number() -> InvalidInput:
    return InvalidInput(
        "recipient_invalid",
        "This is not a phone number: write it with + and the country code first.",
    )


def _split(text: str) -> PhoneNumber | None:
    """The fast way for plain E.164, at a third of the parser's price. None where zeros lead the
    national part: what they mean is the parser's to say.
    """
    length = country_code_length(text)
    national = text[1 + length :]
    if national[0] == "0":
        return None
    return PhoneNumber(country_code=int(text[1 : 1 + length]), national_number=int(national))


def _e164(number: PhoneNumber) -> str:
    zeros = "0" * (number.number_of_leading_zeros or 1) if number.italian_leading_zero else ""
    return f"+{number.country_code}{zeros}{number.national_number}"


def country_code_length(e164: str) -> int:
    """How many digits of an E.164 number are its country code (1 to 3; 1 when unassigned)."""
    length = _LENGTHS.get(e164[1:3])
    if length is not None:
        return length
    return 3 if e164[1:4] in _COUNTRY_CODES else 1


def country(e164: str) -> str:
    """The ISO region of a number that `parse` has read; "" when no plan has it any more."""
    number = _split(e164) or phonenumbers.parse(e164)
    return phonenumbers.region_code_for_number(number) or ""


def mask(e164: str) -> str:
    """How a number is shown: `+33 6•• ••• •12`."""
    national = 1 + country_code_length(e164)
    shown = e164[national : national + 1], e164[-2:-1], e164[-1:]
    return f"{e164[:national]} {_shape(len(e164) - national) % shown}"


@functools.lru_cache(maxsize=64)
def _shape(length: int) -> str:
    """A masked national number of that length, with %s for the digits that are shown."""
    hidden = "%" + "•" * (length - 3) + "%%"
    return " ".join(_GROUPS.findall(hidden)).replace("%", "%s")


def same(one: str, other: str) -> bool:
    """Whether two spellings name one number, by their digits: providers rewrite the rest."""
    return one == other or _digits(one) == _digits(other)


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit()).removeprefix("00")


_VENDOR_CODE = re.compile(r"[0-9]{1,6}(?=[\s:]|$)")
_MAILBOX = re.compile(r"[^\s<>@\"(),;:]+@[^\s<>@\"(),;]+")
_DIGITS = re.compile(r"[0-9](?:[\s(),./-]{0,3}[0-9]){3,}")
_VENDOR_CODE_MOST = 6  # digits; a number has more, also without its country


def redact(text: str) -> str:
    """A vendor's text without anything that could be a number or a code (four digits or more) or an
    e-mail address."""
    if "@" in text:
        text = _MAILBOX.sub("•••", text)
    return _DIGITS.sub("•••", text)


def redact_error(text: str, own: str) -> str:
    """A vendor's error without anything that could be a number or a code, but with the vendor's own
    code at its head (131026, 21610), which support looks up; `own`, our code, is never that.
    """
    head = _VENDOR_CODE.match(text)
    if head is None or head[0] == own:
        return redact(text)
    return head[0] + redact(text[head.end() :])


def redact_word(text: str, own: Callable[[], str]) -> str:
    """A vendor's status word without our code, without anything as long as a number and without
    e-mail addresses. Its own short codes (30003, 0x58) stay: they are what support looks up.

    `own` gives our code, "" where nobody knows it; it is asked only where there is something that
    could be it, for most words have no digits and a code has to be derived.
    """
    if "@" in text:
        text = _MAILBOX.sub("•••", text)
    if _DIGITS.search(text) is None:
        return text
    code = own()

    def shown(found: re.Match[str]) -> str:
        digits = "".join(char for char in found[0] if char.isdigit())
        return "•••" if len(digits) > _VENDOR_CODE_MOST or code in digits else found[0]

    return _DIGITS.sub(shown, text)
