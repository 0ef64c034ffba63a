"""Reading what vendors write: the careful little steps every provider file needs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from gateway.domain.delivery import State

REFERENCE_LIMIT = 255  # characters; a longer one is no reference
LONGEST_PAUSE = 86_400.0  # seconds; what a Retry-After may ask for

_ADDRESS = re.compile(r"https?://(?:\[::1\]|[\w.-]+)(?::[0-9]{1,5})?(?:/[^\s?#]*)?", re.ASCII)
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
    if isinstance(value, str) and value and len(value) <= REFERENCE_LIMIT and value.isprintable():
        return None if value.isspace() else value
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
