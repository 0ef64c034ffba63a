"""The definitions that are shipped, one file a vendor, and how one is read: for the settings and
the command line. A provider reads nothing."""

import re
import tomllib
from importlib import resources
from pathlib import Path

from gateway.domain.declared import definition
from gateway.domain.declared.definition import Definition, DefinitionError

SUFFIX = ".toml"

_NAME = re.compile(r"[a-z][a-z0-9_-]*")


def shipped() -> list[str]:
    """Their names."""
    names = (one.name for one in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def load(named: str) -> Definition:
    """The shipped definition of that name, or the one in that file.

    Raises DefinitionError, OSError or UnicodeDecodeError.
    """
    known = _NAME.fullmatch(named) and named in shipped()
    if not known and not named.endswith(SUFFIX):
        raise DefinitionError(
            {"": f"is one of {', '.join(shipped())}, or a path that ends with {SUFFIX}"}
        )
    source = resources.files(__name__) / f"{named}{SUFFIX}" if known else Path(named)
    try:
        raw = tomllib.loads(source.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DefinitionError({"": f"is not valid TOML: {error}"}) from None
    return definition.parse(raw, named)
