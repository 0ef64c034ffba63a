"""The keyring's file: {"current": "k1", "keys": {"k1": base64}, "index_key": base64}, mode 0600.

What is sealed lies in the database and what opens it lies here: back it up, apart from each other.
"""

import base64
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from gateway.config import SettingsError
from gateway.domain.keyring import KEY_BYTES, Keyring, KeyringError


def load(file: Path, *, create: bool = False) -> Keyring:
    """The keyring of a file; with `create`, a new one where there is none (mode 0600).

    Raises SettingsError naming the file.
    """
    try:
        if create and not file.exists():
            _write(file, "k1", {"k1": secrets.token_bytes(KEY_BYTES)}, None)
        current, keys, index_key = _read(file)
        return Keyring(current, keys, index_key)
    except FileNotFoundError:
        problem = "there is no keyring; `gateway serve` on the embedded default makes one"
        raise SettingsError({str(file): problem}) from None
    except OSError as error:
        raise SettingsError({str(file): f"cannot be read or written: {error.strerror}"}) from None
    except (KeyError, ValueError, TypeError, AttributeError, KeyringError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        problem = f"is not a keyring: {why}. Put the right file back from its backup"
        raise SettingsError({str(file): problem}) from None


def rotate(file: Path) -> str:
    """Add a key and make it current; older ones are kept for the rows that name them. Its name."""
    load(file)
    _, keys, index_key = _read(file)
    number = 1 + max((int(name[1:]) for name in keys if name[1:].isdigit()), default=0)
    name = f"k{number}"
    _write(file, name, keys | {name: secrets.token_bytes(KEY_BYTES)}, index_key)
    return name


# Another index key takes three steps, so that a crash between any two loses nothing: it is written
# beside the keyring, every index is made anew in one commit, it is moved into the keyring. As long
# as it lies beside, a row of the database tells whether the second step was done.


def proposed(file: Path) -> Path:
    """Where a keyring with another index key lies until every index has been made with it."""
    return file.with_suffix(".reindex")


def propose_index_key(file: Path) -> None:
    """The first step."""
    current, keys, _ = _read(file)
    _write(proposed(file), current, keys, None)


def forget_index_key(file: Path) -> None:
    """Back to before the first step."""
    proposed(file).unlink(missing_ok=True)


def adopt_index_key(file: Path) -> None:
    """The last step; keys that were rotated in meanwhile are kept."""
    replace_index_key(file, _read(proposed(file))[2])
    forget_index_key(file)


def replace_index_key(file: Path, index_key: bytes) -> None:
    """Put another index key in place, once every index has been made anew with it."""
    current, keys, _ = _read(file)
    _write(file, current, keys, index_key)


def _read(file: Path) -> tuple[str, dict[str, bytes], bytes]:
    raw = json.loads(file.read_text(encoding="utf-8"))
    keys = {name: base64.b64decode(key, validate=True) for name, key in raw["keys"].items()}
    return raw["current"], keys, base64.b64decode(raw["index_key"], validate=True)


def _write(file: Path, current: str, keys: Mapping[str, bytes], index_key: bytes | None) -> None:
    """Written beside and moved into place: a crash leaves the old one or the new one."""
    body = {
        "current": current,
        "keys": {name: base64.b64encode(key).decode() for name, key in keys.items()},
        "index_key": base64.b64encode(index_key or secrets.token_bytes(KEY_BYTES)).decode(),
    }
    beside = file.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)  # whatever a crash left behind under that name
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        json.dump(body, opened, indent=2)
        opened.flush()
        os.fsync(opened.fileno())
    beside.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
