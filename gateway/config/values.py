"""Single values that occur in many places: names, addresses, secrets.

Each is given its key. What is wrong with it is listed in `mistakes` under that key, and something
harmless stands for it, so that the rest is looked at.
"""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.ports import Secret

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_TOKEN_LENGTH = 16  # characters of a token that nobody guesses


def is_name(key: str, text: str, mistakes: dict[str, str]) -> bool:
    """Whether a table's name in the file is one that we can use."""
    if _NAME.fullmatch(text):
        return True
    mistakes[key] = "is not a name: small letters, digits, - and _, at most 32"
    return False


def url(key: str, url: str, mistakes: dict[str, str]) -> str:
    """An address without trailing slash; plain http only on this machine."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        mistakes[key] = "is not an http(s) address like https://otp.example.com"
        return url
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        mistakes[key] = "is not an http(s) address like https://otp.example.com"
    elif parts.scheme == "http" and not _loopback(parts.hostname):
        mistakes[key] = "is plain http; only loopback addresses may be. Use https"
    elif parts.username or parts.password:
        mistakes[key] = "holds credentials; give them as settings of their own"
    return url.rstrip("/")


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def secret(key: str, value: Any, environ: Mapping[str, str], mistakes: dict[str, str]) -> Secret:
    """What `{ env = "NAME" }` or `{ file = "PATH" }` holds."""
    match value:
        case {"env": str(name)} if len(value) == 1:
            if environ.get(name):
                return Secret(environ[name])
            mistakes[key] = f"the environment variable {name} is not set"
        case {"file": str(path)} if len(value) == 1:
            try:
                text = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                mistakes[key] = f"the file {path} cannot be read: {type(error).__name__}"
            else:
                if text:
                    return Secret(text)
                mistakes[key] = f"the file {path} is empty"
        case _:
            mistakes[key] = (
                'is a secret: write { env = "NAME" } or { file = "PATH" }, never the value itself'
            )
    return Secret("")


def token(
    key: str, value: Any, environ: Mapping[str, str], mistakes: dict[str, str]
) -> Secret | None:
    """A secret that may be left out."""
    if value is None:
        return None
    found = secret(key, value, environ, mistakes)
    if found and len(found) < _TOKEN_LENGTH:
        mistakes[key] = f"is shorter than {_TOKEN_LENGTH} characters; it could be guessed"
    return found
