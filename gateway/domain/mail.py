"""What every provider of e-mail needs: safe addresses, a subject, the HTML part."""

import html
import re
from collections.abc import Iterable

from gateway.domain import vendor

_MAILBOX = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?=[^@]{1,253}\Z)"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_AT = re.compile(r"[^\s<>\"'(),;:]{1,320}@[^\s<>\"'(),;:]{1,320}")


def is_mailbox(address: str) -> bool:
    """Whether it is a plain ASCII address that no envelope, header or JSON can misread."""
    return _MAILBOX.fullmatch(address) is not None


def redact(text: str, secrets: Iterable[str]) -> str:
    """As `vendor.redact`, and without addresses: mail servers repeat the recipient."""
    return vendor.redact(_AT.sub("…", text), secrets)


def subject(given: str, sender: str | None) -> str:
    """One printable line of bounded length; a short one of our own where none was given."""
    line = " ".join("".join(char if char.isprintable() else " " for char in given).split())
    return line[:150] or ("Your code" if sender is None else f"Your {sender} code")


def page(text: str, code: str, locale: str) -> str:
    """The message as HTML: its text, and the code large and in one piece, so that it can be
    selected. It asks for nothing from outside.
    """
    language = re.fullmatch(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*", locale)
    large = "font:700 32px/1.5 monospace;letter-spacing:4px;user-select:all"
    return (
        f'<!doctype html>\n<html lang="{language[0].replace("_", "-") if language else "en"}">'
        '<head><meta charset="utf-8"></head>'
        f'<body style="font:16px/1.5 sans-serif">\n<p>{html.escape(text)}</p>\n'
        f'<p style="{large}">{html.escape(code)}</p>\n</body></html>\n'
    )
