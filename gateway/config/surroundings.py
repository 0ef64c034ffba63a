"""What stands around the gateway: its database, endpoints of webhooks, the collector of traces, the
identity provider.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from gateway.config import sections, values
from gateway.config.settings import OidcSettings, TraceSettings
from gateway.domain.access import Role
from gateway.domain.networks import Allowed
from gateway.domain.oidc import Terms
from gateway.ports import Server

_POSTGRES = "postgresql+asyncpg://"
_DELAY_MOST = 1000  # milliseconds


def database(url: str | None, data_dir: Path, mistakes: dict[str, str]) -> Path:
    """SQLite's file; a server is for `server`."""
    if url is None:
        return data_dir / "gateway.db"
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///"))
    if not url.startswith(_POSTGRES):
        mistakes["database_url"] = f"is sqlite:///PATH or {_POSTGRES}USER@HOST/DATABASE"
    return data_dir / "gateway.db"


def server(
    parsed: sections.File,
    from_environment: bool,
    environ: Mapping[str, str],
    mistakes: dict[str, str],
) -> Server | None:
    """The PostgreSQL server, if one is configured; its password is a secret of its own."""
    key, url = "database_url", parsed.database_url or ""
    given = parsed.database_password
    if not url.startswith(_POSTGRES):
        if given is not None:
            mistakes["database_password"] = f"is for {_POSTGRES}… only"
        return None
    try:
        parts = urlsplit(url)
        named = parts.hostname and parts.path.strip("/") and parts.port != 0
    except ValueError:
        named = None
    if not named:
        mistakes[key] = f"is not an address like {_POSTGRES}gateway@db.example.com/gateway"
        return None
    if parts.password and not from_environment:
        mistakes[key] = "holds a password; give it as database_password, a secret"
    if given is None:
        return Server(url)
    return Server(url, values.secret("database_password", given, environ, mistakes))


def commit_delay(environ: Mapping[str, str], mistakes: dict[str, str]) -> float:
    """Of GATEWAY_COMMIT_DELAY_MS, which is for measuring alone and in no file; in seconds."""
    given = environ.get("GATEWAY_COMMIT_DELAY_MS", "0")
    if given.isascii() and given.isdigit() and int(given) <= _DELAY_MOST:
        return int(given) / 1000
    mistakes["GATEWAY_COMMIT_DELAY_MS"] = f"is a number of milliseconds from 0 to {_DELAY_MOST}"
    return 0.0


def allowed(entries: list[str], mistakes: dict[str, str]) -> tuple[str, ...]:
    """Where webhooks may go besides the public internet."""
    try:
        Allowed.parse(entries)
    except ValueError as error:
        mistakes["webhook_allow"] = str(error)
    return tuple(entries)


def traces(
    given: sections.Traces | None, environ: Mapping[str, str], mistakes: dict[str, str]
) -> TraceSettings | None:
    """The collector of traces, if there is one."""
    if given is None:
        return None
    headers = {
        name: values.secret(f"traces.headers.{name}", one, environ, mistakes)
        for name, one in given.headers.items()
    }
    return TraceSettings(values.url("traces.endpoint", given.endpoint, mistakes), headers)


def oidc(
    given: sections.Oidc | None, environ: Mapping[str, str], mistakes: dict[str, str]
) -> OidcSettings | None:
    """The identity provider, if there is one."""
    if given is None:
        return None
    values.url("oidc.issuer", given.issuer, mistakes)
    if "openid" not in given.scopes:
        mistakes["oidc.scopes"] = 'lacks "openid"; without it no identity comes back'
    roles = {role: frozenset(getattr(given.roles, role)) for role in Role}
    if not any(roles.values()):
        mistakes["oidc.roles"] = (
            'makes nobody anything: write admin = ["…"] (support, viewer) with values of the claim '
            f"{given.role_claim}"
        )
    secret = None
    if given.client_secret is not None:
        secret = values.secret("oidc.client_secret", given.client_secret, environ, mistakes)
    terms = Terms(
        issuer=given.issuer,
        client_id=given.client_id,
        scopes=tuple(given.scopes),
        name_claim=given.name_claim,
        role_claim=given.role_claim,
        roles=roles,
    )
    return OidcSettings(terms, secret, given.title)
