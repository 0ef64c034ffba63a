"""`load`: everything about the settings in one pass, so that every mistake is listed at once.

Order: command line, then GATEWAY_* variables, then gateway.toml, then the defaults.
"""

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.config import form, routing, surroundings, values
from gateway.config.policy import policy
from gateway.config.settings import Settings, SettingsError
from gateway.domain import recipient, wording
from gateway.domain.retention import Retention

VARIABLES = (
    "DATA_DIR",
    "DATABASE_URL",
    "PUBLIC_URL",
    "BRAND",
    "DEFAULT_REGION",
    "DEFAULT_LOCALE",
    "LOG_LEVEL",
    "KEYRING",
    "NODE",
)


def environment() -> Mapping[str, str]:
    """This process's environment."""
    return os.environ


def load(
    environ: Mapping[str, str],
    file: Path | None = None,
    *,
    public_url: str = "http://127.0.0.1:8080",
) -> Settings:
    """Read the settings. `public_url` is where the server listens, used when none is configured.

    Raises SettingsError with every mistake at once.
    """
    if file is None and environ.get("GATEWAY_CONFIG"):
        file = Path(environ["GATEWAY_CONFIG"])
    raw = _given(environ, file)
    mistakes: dict[str, str] = {}
    parsed = form.parse(raw, mistakes)
    data_dir = Path(parsed.data_dir)
    routes = routing.routes(parsed.routes, environ, mistakes)
    settings = Settings(
        data_dir=data_dir,
        database=surroundings.database(parsed.database_url, data_dir, mistakes),
        keyring_file=Path(parsed.keyring) if parsed.keyring else data_dir / "keyring.json",
        public_url=values.url("public_url", parsed.public_url or public_url, mistakes),
        brand=parsed.brand,
        default_region=parsed.default_region,
        log_level=parsed.log_level,
        silent_fallbacks=parsed.silent_fallbacks,
        sandbox_port=parsed.sandbox.port if not parsed.routes else None,
        webhook_allow=surroundings.allowed(parsed.webhook_allow, mistakes),
        keep_events=parsed.keep_events,
        providers=tuple(provider for provider, _ in routes),
        routes={provider.name: given for provider, given in routes},
        source=file,
        templates=wording.read(parsed.templates, mistakes, parsed.default_locale),
        default_locale=parsed.default_locale,
        metrics_token=values.token("metrics.token", parsed.metrics.token, environ, mistakes),
        commit_delay=surroundings.commit_delay(environ, mistakes),
        traces=surroundings.traces(parsed.traces, environ, mistakes),
        oidc=surroundings.oidc(parsed.oidc, environ, mistakes),
        retention=Retention(parsed.retention.verifications, parsed.retention.keep_recipients),
        server=surroundings.server(parsed, "GATEWAY_DATABASE_URL" in environ, environ, mistakes),
    )
    if parsed.default_region is not None and parsed.default_region not in recipient.COUNTRIES:
        mistakes["default_region"] = "is no country that has telephone numbers; such as FR"
    workflows = routing.workflows(parsed, settings.providers, mistakes)
    allowed = policy(parsed, mistakes)
    _together(raw, mistakes)
    if mistakes:
        raise SettingsError(mistakes)
    return dataclasses.replace(settings, workflows=workflows, policy=allowed)


def _given(environ: Mapping[str, str], file: Path | None) -> dict[str, Any]:
    """What the file says, and the environment instead of it."""
    raw = _read(file) if file is not None else {}
    for name in VARIABLES:
        if (given := environ.get(f"GATEWAY_{name}")) is not None:
            raw[name.lower()] = given
    return raw


def _together(raw: Mapping[str, Any], mistakes: dict[str, str]) -> None:
    """Routes and workflows need each other."""
    if raw.get("routes") and "default" not in raw.get("workflows", {}):
        mistakes["workflows.default"] = "is missing: say which channels a code goes over, in order"
    if not raw.get("routes") and raw.get("workflows"):
        mistakes["workflows"] = "need [routes.…] of your own; without any, the sandbox's are used"


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            {str(file): "there is no such file; check --config or GATEWAY_CONFIG"}
        ) from None
    except OSError as error:
        raise SettingsError({str(file): f"cannot be read: {error.strerror}"}) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError({str(file): f"is not valid TOML: {error}"}) from None
