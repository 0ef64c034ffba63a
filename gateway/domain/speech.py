"""What a call says: a code spelled so that it can be followed, in the voice of a locale."""

import re
from collections.abc import Mapping

_WORD = re.compile(r"[A-Za-z0-9]+")


def spelled(code: str) -> str:
    """The code character by character; a comma is a pause."""
    return ", ".join(code)


def spelling(text: str, code: str) -> str:
    """The text with its code spelled, wherever it stands as a word of its own."""
    return _WORD.sub(lambda found: spelled(code) if found[0] == code else found[0], text)


def twice(text: str) -> str:
    """The text said two times, with one full stop in between."""
    return f"{text.rstrip(' .')}. {text}"


def by_locale(table: Mapping[str, str], locale: str) -> str | None:
    """The entry of a locale, else of its language. Keys are small letters: `fr-ca`, `fr`."""
    tag = locale.replace("_", "-").lower()
    return table.get(tag) or table.get(tag.partition("-")[0])
