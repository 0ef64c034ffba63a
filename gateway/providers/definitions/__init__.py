"""The definitions that are shipped, one file a vendor, and how one is read: for the settings and
the command line. A provider reads nothing."""

import tomllib
from importlib import resources
from pathlib import Path

from gateway.domain.declared import definition
from gateway.domain.declared.definition import Definition, DefinitionError

SUFFIX = ".toml"


def shipped() -> list[str]:
    """Their names."""
    names = (one.name for one in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def load(named: object) -> Definition:
    """The shipped definition of that name, or the one in that file. Raises DefinitionError."""
    if not isinstance(named, str) or (named not in shipped() and not named.endswith(SUFFIX)):
        known = ", ".join(shipped())
        raise DefinitionError({"": f"is one of {known}, or a path that ends with {SUFFIX}"})
    own = named.endswith(SUFFIX)
    source = Path(named) if own else resources.files(__name__) / f"{named}{SUFFIX}"
    try:
        raw = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError({"": f"{named} cannot be read: {error.strerror}"}) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DefinitionError({"": f"{named} is not valid TOML: {error}"}) from None
    return definition.parse(raw, named)
