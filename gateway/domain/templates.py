"""Named texts by purpose, locale and channel, and what they are filled with.

A text has placeholders in braces: `{code}` (always), `{brand}`, `{ttl}` (the life that is left, in
words), `{minutes}`, `{amount}` and `{payee}` (always both: what a payment's code is good for), and
the parameters that its template allows. Nothing else may stand in braces: a text is checked when it
is read, never when a code has to leave. What it says of validity is the life left when it is
handed over, rounded down.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from gateway.domain.errors import InvalidInput

DEFAULT = "verify"
CHANNELS = frozenset({"sms", "voice", "email", "messenger", "whatsapp", "telegram", "viber", "rcs"})
FILLED = frozenset({"code", "brand", "ttl", "minutes", "amount", "payee"})
LINKED = frozenset({"amount", "payee"})
MOST_PARAMS = 10
LONGEST_VALUE = 64  # characters of a parameter, amount or payee

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}")
_LINKISH = re.compile(r"://|\bwww\.", re.IGNORECASE)


class Mistake(ValueError):
    """What is wrong with a text, in a sentence."""


class Given(NamedTuple):
    """What a request brings for its text: kept sealed with the verification."""

    params: Mapping[str, str] = {}
    amount: str | None = None
    payee: str | None = None
    text: str | None = None  # the caller's own, in place of the template's

    def pack(self) -> bytes:
        """As one value."""
        return orjson.dumps(self._asdict())

    @staticmethod
    def unpack(packed: bytes) -> "Given":
        """The way back."""
        return Given(**orjson.loads(packed))


@dataclass(frozen=True, slots=True)
class Text:
    """A text taken apart: literals at even places, names of placeholders at odd ones."""

    parts: tuple[str, ...]
    names: frozenset[str]

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with its placeholders filled."""
        return "".join(values[part] if at % 2 else part for at, part in enumerate(self.parts))

    def ending(self, more: str) -> "Text":
        """The text with a last line."""
        return parted(f"{self.source}\n{more}")

    @property
    def source(self) -> str:
        """The text as it was written."""
        return "".join(f"{{{part}}}" if at % 2 else part for at, part in enumerate(self.parts))


@dataclass(frozen=True, slots=True)
class Wording:
    """A template in one locale. `text` is for channels without a text of their own."""

    locale: str
    text: Text
    channels: Mapping[str, Text]
    subject: Text

    def of(self, channel: str) -> Text:
        """The text for a channel."""
        return self.channels.get(channel, self.text)


@dataclass(frozen=True, slots=True)
class Template:
    """What a code is for, in some locales. `last_line` ends its short messages."""

    name: str
    wordings: Mapping[str, Wording]
    params: frozenset[str] = frozenset()
    last_line: str | None = None

    needed: frozenset[str] = field(init=False)  # parameters without which a text stays unfilled
    linked: bool = field(init=False)  # it shows amount and payee, and so demands them

    def __post_init__(self) -> None:
        subjects = [wording.subject for wording in self.wordings.values()]
        every = frozenset[str]().union(*(text.names for text in (*self.texts, *subjects)))
        object.__setattr__(self, "needed", every & self.params)
        object.__setattr__(self, "linked", bool(every & LINKED))

    @property
    def texts(self) -> list[Text]:
        """Every text, without the subjects."""
        found: list[Text] = []
        for wording in self.wordings.values():
            found += [wording.text, *wording.channels.values()]
        return found

    @property
    def retriever(self) -> bool:
        """Whether its short messages are for Android's SMS Retriever."""
        return self.last_line is not None and not self.last_line.startswith("@")

    @property
    def demands(self) -> bool:
        """Whether a request has to bring anything for its texts."""
        return self.linked or bool(self.needed)


def parsed(text: str, allowed: frozenset[str] = FILLED) -> Text:
    """A text taken apart. Raises Mistake."""
    made = parted(text)
    if any("{" in literal or "}" in literal for literal in made.parts[::2]):
        raise Mistake("braces stand only around a placeholder, such as {code}")
    unknown = sorted(made.names - allowed)
    if unknown:
        known = " ".join(f"{{{name}}}" for name in sorted(allowed))
        raise Mistake(f"{{{unknown[0]}}} is not a placeholder here; there are {known}")
    if not all(
        letter == "\n" or letter.isprintable() or letter in "\u00a0\u202f"
        for literal in made.parts[::2]
        for letter in literal
    ):
        raise Mistake("holds a character that cannot be shown")
    return made


def parted(text: str) -> Text:
    """A text taken apart that has been checked before."""
    parts = tuple(_PLACEHOLDER.split(text))
    return Text(parts, frozenset(parts[1::2]))


# What a request may ask of a template.


def check(template: Template, given: Given) -> None:
    """Raise InvalidInput where a request does not fit its template: `params_not_allowed`,
    `params_missing`, `text_invalid`, `amount_required` or `amount_not_shown`."""
    odd = sorted(given.params.keys() - template.params)
    if odd:
        allowed = ", ".join(sorted(template.params)) or "none"
        raise InvalidInput(
            "params_not_allowed",
            f"The template {template.name} does not take: {', '.join(odd)[:200]}. It takes: "
            f"{allowed}.",
        )
    own = _own_text(given, template)
    needed = own.names & template.params if own is not None else template.needed
    missing = sorted(needed - given.params.keys())
    if missing:
        raise InvalidInput(
            "params_missing",
            f"The text needs `params` for: {', '.join(missing)}.",
            facts={"params": missing},
        )
    linked = bool(own.names & LINKED) if own is not None else template.linked
    if linked and given.amount is None:
        raise InvalidInput(
            "amount_required", f"The template {template.name} needs `amount` and `payee`."
        )
    if given.amount is not None and not linked:
        raise InvalidInput(
            "amount_not_shown",
            f"The template {template.name} does not show amount and payee, so that nobody would "
            "know what the code is good for. Use `payment`, or a template that does.",
        )


def _own_text(given: Given, template: Template) -> Text | None:
    if given.text is None:
        return None
    try:
        return complete(parsed(given.text, FILLED | template.params))
    except Mistake as mistake:
        raise InvalidInput("text_invalid", f"`text`: {mistake}.") from None


def complete(text: Text) -> Text:
    """The text, if it names the code, and amount and payee both or neither. Raises Mistake."""
    if "code" not in text.names:
        raise Mistake("does not contain {code}")
    if len(text.names & LINKED) == 1:
        raise Mistake("{amount} and {payee} go together")
    return text


def value(name: str, text: str, code: str = "invalid_request") -> str:
    """A parameter, amount or payee as it is kept, compared and shown. Raises InvalidInput with
    that code. No link is let through: the message comes from a trusted sender."""
    kept = " ".join(unicodedata.normalize("NFC", text).split())
    sound = 0 < len(kept) <= LONGEST_VALUE and kept.isprintable() and not _LINKISH.search(kept)
    if not sound or "{" in kept or "}" in kept:
        raise InvalidInput(
            code,
            f"`{name}`: 1 to {LONGEST_VALUE} visible characters, without braces and links.",
        )
    return kept


# Built in.

_BUILT_IN: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "verify": {
        "en": {
            "text": "{code} is your {brand} code. It is valid for {ttl}.",
            "subject": "Your {brand} code",
        },
        "fr": {
            "text": "{code} est votre code {brand}. Il est valable {ttl}.",
            "subject": "Votre code {brand}",
        },
    },
    "login": {
        "en": {
            "text": "{code} is your {brand} login code. It is valid for {ttl}. Do not share it.",
            "subject": "Your {brand} login code",
        },
        "fr": {
            "text": "{code} est votre code de connexion {brand}. Il est valable {ttl}. Ne le "
            "donnez à personne.",
            "subject": "Votre code de connexion {brand}",
        },
    },
    "reset": {
        "en": {
            "text": "{code} is your {brand} code to reset your password. It is valid for {ttl}. "
            "Not you? Ignore this message.",
            "subject": "Reset your {brand} password",
        },
        "fr": {
            "text": "{code} est votre code {brand} pour changer de mot de passe. Il est valable "
            "{ttl}. Pas vous ? Ignorez ce message.",
            "subject": "Changer de mot de passe {brand}",
        },
    },
    "number_change": {
        "en": {
            "text": "{code} is your {brand} code to confirm this number. It is valid for {ttl}. "
            "Not you? Ignore this message.",
            "subject": "Confirm your new number at {brand}",
        },
        "fr": {
            "text": "{code} est votre code {brand} pour confirmer ce numéro. Il est valable {ttl}. "
            "Pas vous ? Ignorez ce message.",
            "subject": "Confirmer votre nouveau numéro {brand}",
        },
    },
    "payment": {
        "en": {
            "text": "{code} confirms your payment of {amount} to {payee} with {brand}. It is valid "
            "for {ttl}. Not you? Do not give it to anyone.",
            "subject": "Confirm your {brand} payment",
        },
        "fr": {
            "text": "{code} confirme votre paiement de {amount} à {payee} avec {brand}. Il est "
            "valable {ttl}. Pas vous ? Ne le donnez à personne.",
            "subject": "Confirmer votre paiement {brand}",
        },
    },
}

BUILT_IN: Mapping[str, Template] = {
    name: Template(
        name,
        {
            locale: Wording(locale, parted(texts["text"]), {}, parted(texts["subject"]))
            for locale, texts in locales.items()
        },
    )
    for name, locales in _BUILT_IN.items()
}
