"""All addresses of one recipient: which kinds there are, which one a channel uses, how each is
spelled, kept and shown.

A number (`recipient.py`) is the usual case and stays the cheapest: alone it is kept as it is, and
only several addresses, or one that is no number, as JSON. An e-mail address is checked by the part
of RFC 5321 and 5322 that mailboxes are really made of: a dot-atom, `@`, and a domain, which is
kept as DNS asks for it (IDNA 2008). The local part is kept as it was written.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import idna
import orjson

from gateway.domain import recipient
from gateway.domain.errors import InvalidInput

PHONE = "phone"
EMAIL = "email"
KINDS = (PHONE, EMAIL, "messenger", "whatsapp", "telegram", "viber")  # the principal's order
NUMBERS = frozenset({PHONE, "whatsapp", "telegram", "viber"})
LONGEST = 254  # characters of an e-mail address (RFC 5321, erratum 1690)
LONGEST_ID = 128  # characters of an opaque id
PLAIN_BYTES = 16  # what a number alone takes at most; anything else takes more

# Channels with an address of their own; every other one has the phone's. Without an own one the
# phone's is used, but no e-mail goes to a number.
_OWN = {
    EMAIL: (EMAIL,),
    "messenger": ("messenger", PHONE),
    "whatsapp": ("whatsapp", PHONE),
    "telegram": ("telegram", PHONE),
    "viber": ("viber", PHONE),
}
_PHONE_ONLY = (PHONE,)

_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ID = re.compile(rf"[!-~]{{1,{LONGEST_ID}}}")


class Address(NamedTuple):
    """One address of a recipient; `kind` is one of KINDS."""

    kind: str
    text: str


def parse(kind: str, text: str, default_region: str | None = None) -> Address:
    """An address of a kind as it will be kept. Raises InvalidInput; the text is not repeated."""
    if kind in NUMBERS:
        return Address(kind, recipient.parse(text, default_region).e164)
    return Address(kind, email(text) if kind == EMAIL else opaque(text))


def email(text: str) -> str:
    """An e-mail address with its domain in ASCII and small letters. Raises InvalidInput
    `recipient_invalid`."""
    local, at, domain = text.strip().rpartition("@")
    try:
        ascii_domain = idna.encode(domain, uts46=True).decode().lower() if at else ""
    except idna.IDNAError:
        ascii_domain = ""
    labels = ascii_domain.split(".")
    sound = (
        len(local) <= 64
        and _LOCAL.fullmatch(local) is not None
        and len(labels) >= 2
        and all(_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
    )
    address = f"{local}@{ascii_domain}"
    if not sound or len(address) > LONGEST:
        raise InvalidInput(
            "recipient_invalid",
            "This is not an e-mail address: write it as name@example.com, without a display name "
            f"and with at most {LONGEST} characters.",
        )
    return address


def opaque(text: str) -> str:
    """An id that only its channel understands. Raises InvalidInput `recipient_invalid`."""
    if _ID.fullmatch(text) is None:
        raise InvalidInput(
            "recipient_invalid",
            f"An id has 1 to {LONGEST_ID} visible ASCII characters and no blanks.",
        )
    return text


def for_channel(channel: str, addresses: Mapping[str, str]) -> str | None:
    """The address that a channel sends to; None when the recipient has none for it."""
    kind = kind_for(channel, addresses)
    return addresses[kind] if kind is not None else None


def kind_for(channel: str, kinds: Collection[str]) -> str | None:
    """The kind of address, of those a recipient has, that a channel sends to."""
    return next((kind for kind in _OWN.get(channel, _PHONE_ONLY) if kind in kinds), None)


def reached(channel: str, kinds: Collection[str]) -> bool:
    """Whether a recipient with addresses of these kinds has one for a channel."""
    return kind_for(channel, kinds) is not None


def principal(addresses: Iterable[Address]) -> Address:
    """The one that limits, joins and searches go by: the phone where there is one."""
    return min(addresses, key=lambda address: KINDS.index(address.kind))


def numbers(every: Iterable[Address]) -> tuple[str, ...]:
    """The phone numbers among them, each once, in the principal's order."""
    ranked = sorted(every, key=lambda address: KINDS.index(address.kind))
    return tuple(dict.fromkeys(one.text for one in ranked if one.kind in NUMBERS))


def indexed(address: Address) -> tuple[str, str]:
    """Kind and text that the blind index is made of. A number is one number whatever it is used
    for, and no mailbox is told from another by capitals."""
    if address.kind in NUMBERS:
        return PHONE, address.text
    return address.kind, address.text.lower() if address.kind == EMAIL else address.text


def pack(addresses: Iterable[Address]) -> bytes:
    """All addresses as one value: a number alone as it is, else JSON by kind."""
    found = {address.kind: address.text for address in addresses}
    if found.keys() == {PHONE}:
        return found[PHONE].encode()
    return orjson.dumps(found, option=orjson.OPT_SORT_KEYS)


def unpack(packed: bytes) -> dict[str, str]:
    """The addresses by kind, the principal one first."""
    if packed[:1] != b"{":
        return {PHONE: packed.decode()}
    found: dict[str, str] = orjson.loads(packed)
    return {kind: found[kind] for kind in KINDS if kind in found}


def same(ours: str, theirs: str) -> bool:
    """Whether a provider's spelling of an address names ours."""
    if ours.startswith("+"):
        return recipient.same(ours, theirs)
    return ours.casefold() == theirs.strip().casefold()


def mask(address: str) -> str:
    """How an address is shown: `+33 6•• ••• •12`, `j•••@e•••.com`, `24•••09`."""
    if len(address) > 7 and address.startswith("+") and address[1:].isdigit():
        return recipient.mask(address)
    local, at, domain = address.rpartition("@")
    if at and "." in domain:
        return f"{local[:1]}•••@{domain[:1]}•••.{domain.rpartition('.')[2]}"
    return f"{address[:2]}•••{address[-2:]}" if len(address) >= 8 else "•••"
