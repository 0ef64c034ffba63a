"""Settings: frozen, read once, every mistake listed by its key. The only reader of the environment
and of gateway.toml.

A secret is `{ env = "NAME" }` or `{ file = "PATH" }`; a literal one is refused.

`settings`: the values. `sections`: gateway.toml's names, kinds and bounds. `form`: that the file
has these. `values`, `surroundings`, `routing`, `policy`: what takes more than one look.
`loading`: all of it.
"""

from gateway.config.loading import VARIABLES, environment, load
from gateway.config.sections import LONGEST_WINDOW
from gateway.config.settings import (
    InUse,
    OidcSettings,
    Settings,
    SettingsError,
    TraceSettings,
    replace,
)

__all__ = [
    "LONGEST_WINDOW",
    "VARIABLES",
    "InUse",
    "OidcSettings",
    "Settings",
    "SettingsError",
    "TraceSettings",
    "environment",
    "load",
    "replace",
]
