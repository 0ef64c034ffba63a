"""Reading what vendors write: the careful little steps every provider file needs."""

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from gateway.domain.delivery import State

REFERENCE_LIMIT = 255  # characters; a longer one is no reference
LONGEST_PAUSE = 86_400.0  # seconds; what a Retry-After may ask for

_ADDRESS = re.compile(r"https?://(?:\[::1\]|[\w.-]+)(?::[0-9]{1,5})?(?:/[^\s?#]*)?", re.ASCII)
_MAILBOX = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?=[^@]{1,253}\Z)"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_AT = re.compile(r"[^\s<>\"'(),;:]{1,320}@[^\s<>\"'(),;:]{1,320}")
_NUMBER = re.compile(r"\d(?:[\s.,()/-]{0,3}\d){3,}")  # codes and numbers, spelled or not


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a vendor's status word says. `permanent`: this number will not work on this channel."""

    state: State | None
    reason: str | None = None
    permanent: bool = False


def json_object(body: bytes) -> Mapping[str, object]:
    """A body that is a JSON object; an empty one for anything else."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def storable(value: object) -> str | None:
    """The value where it is a string that can be stored and looked up by, never changed."""
    if isinstance(value, str) and len(value) <= REFERENCE_LIMIT and value.strip():
        return value if value.isprintable() else None
    return None


def as_json(item: object) -> bytes:
    """One item of a batch as bytes again, to be kept beside what was read of it."""
    try:
        return orjson.dumps(item)
    except orjson.JSONEncodeError:
        return b""  # nested deeper than orjson writes; such a thing is no receipt


def fits_header(value: str) -> bool:
    """Whether a credential can be written into a header."""
    return value != "" and value.isascii() and value.isprintable()


def is_address(base_url: str) -> bool:
    """Whether it is an http or https address, perhaps with a path, without query and fragment."""
    return _ADDRESS.fullmatch(base_url) is not None


def retry_after(pause: str | None) -> float | None:
    """The seconds of a Retry-After header."""
    if pause is None or not re.fullmatch("[0-9]+", pause):
        return None  # a date would need a clock; the plan has its own pauses
    return min(float(pause), LONGEST_PAUSE)


def redact(text: str, secrets: Iterable[str]) -> str:
    """A vendor's error text without secrets, codes and numbers, at most 200 characters."""
    for secret in secrets:
        text = text.replace(secret, "…")
    text = _NUMBER.sub("…", " ".join(text.split()))
    return "".join(char for char in text[:200] if char.isprintable())


def is_mailbox(address: str) -> bool:
    """Whether it is a plain ASCII address that no envelope, header or JSON can misread."""
    return _MAILBOX.fullmatch(address) is not None


def redact_mail(text: str, secrets: Iterable[str]) -> str:
    """As `redact`, and without addresses: mail servers repeat the recipient in their replies."""
    return redact(_AT.sub("…", text), secrets)


def mail_subject(subject: str, sender: str | None) -> str:
    """One printable line of bounded length; a short one of our own where none was given."""
    line = " ".join("".join(char if char.isprintable() else " " for char in subject).split())
    return line[:150] or ("Your code" if sender is None else f"Your {sender} code")


def mail_html(text: str, code: str, locale: str) -> str:
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
