"""Settings: frozen, read once, every mistake listed by its key. The only reader of the
environment and of gateway.toml.

Order: command line, then GATEWAY_* variables, then gateway.toml, then the defaults. A secret is
`{ env = "NAME" }` or `{ file = "PATH" }`; a literal one is refused.

Over 500 lines, because every mistake has to be found in one pass and listed by its key.
"""

import copy
import dataclasses
import difflib
import ipaddress
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gateway.domain import identity, limits, recipient, spending, wording
from gateway.domain.access import Role
from gateway.domain.countries import Countries
from gateway.domain.declared.definition import Definition, DefinitionError
from gateway.domain.guard import Guard, Mode
from gateway.domain.limits import Per, Rule
from gateway.domain.networks import Allowed
from gateway.domain.oidc import Terms
from gateway.domain.policy import Policy
from gateway.domain.retention import LEAST_DAYS, Retention
from gateway.domain.spending import Spending, Tariff
from gateway.domain.templates import BUILT_IN, Template
from gateway.domain.workflow import PATIENCE_SECONDS, OnFailed, OnUnknown, Until
from gateway.ports import Provider, Secret, Server
from gateway.providers import PROVIDERS, definitions

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
_TOKEN_LENGTH = 16  # characters of a token that nobody guesses
_DELAY_MOST = 1000  # milliseconds
_POSTGRES = "postgresql+asyncpg://"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}", re.ASCII)
_PREFIX_DIGITS = 7  # of a number, when a rule per prefix does not say how many
_GUARD = Guard()  # its defaults
LONGEST_WINDOW = int(limits.LONGEST_WINDOW.total_seconds())


class SettingsError(Exception):
    """Wrong settings: `mistakes` maps each key to what is wrong with it and what to do."""

    def __init__(self, mistakes: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{key}: {problem}" for key, problem in mistakes.items()))
        self.mistakes = dict(mistakes)


class InUse(SettingsError):
    """Another process has the data folder."""


@dataclass(frozen=True, slots=True)
class StepSettings:
    """One step of a configured workflow; `patience` in seconds."""

    channel: str
    routes: tuple[str, ...]
    patience: int
    until: Until
    on_failed: OnFailed = OnFailed.ADVANCE
    on_unknown: OnUnknown = OnUnknown.WAIT


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Where spans go: an OTLP/HTTP collector, and the headers it wants."""

    endpoint: str
    headers: Mapping[str, Secret] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """An identity provider for the console's logins; `title` is what people call it."""

    terms: Terms
    secret: Secret | None
    title: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the gateway can be told."""

    data_dir: Path
    database: Path  # SQLite's file, when there is no `server`
    keyring_file: Path
    public_url: str
    brand: str
    default_region: str | None
    log_level: str
    sandbox_port: int | None  # None: no sandbox beside the gateway
    webhook_allow: tuple[str, ...] = ()  # networks and hosts, besides the public internet
    keep_events: int = 30  # days
    silent_fallbacks: int = 30  # a minute, automatic ones where silence has become the rule
    providers: tuple[Provider[Any, Any], ...] = ()
    workflows: Mapping[str, tuple[StepSettings, ...]] = field(default_factory=dict)
    routes: Mapping[str, Any] = field(default_factory=dict)  # as given to each provider
    source: Path | None = None
    templates: Mapping[str, Template] = field(default_factory=lambda: dict(BUILT_IN))
    default_locale: str = "en"
    metrics_token: Secret | None = None  # None: /metrics is open on this machine only
    traces: TraceSettings | None = None
    commit_delay: float = 0.0  # seconds added to each commit: scripts/bench plays a slower disk
    retention: Retention = field(default_factory=Retention)
    policy: Policy = field(default_factory=Policy)
    oidc: OidcSettings | None = None
    server: Server | None = None  # PostgreSQL

    @property
    def store(self) -> Path | Server:
        """The database."""
        return self.server or self.database


def replace(
    settings: Settings,
    providers: tuple[Provider[Any, Any], ...],
    workflows: Mapping[str, tuple[StepSettings, ...]],
) -> Settings:
    """The settings with these routes and workflows."""
    return dataclasses.replace(settings, providers=providers, workflows=workflows)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Step(_Model):
    channel: str
    routes: list[str] = Field(min_length=1)
    patience: int = Field(default=60, ge=PATIENCE_SECONDS[0], le=PATIENCE_SECONDS[-1])
    until: Literal["sent", "ack", "delivered", "read", "verified"] = "delivered"
    on_failed: Literal["advance", "wait"] = "advance"
    on_unknown: Literal["wait", "resubmit"] = "wait"


class _Workflow(_Model):
    steps: list[_Step] = Field(min_length=1, max_length=10)


class _Sandbox(_Model):
    port: int = Field(default=8081, ge=0, le=65535)


class _Metrics(_Model):
    token: dict[str, str] | str | None = None


class _Traces(_Model):
    endpoint: str
    headers: dict[str, Any] = Field(default_factory=dict)


class _Roles(_Model):
    viewer: list[str] = Field(default_factory=list)
    support: list[str] = Field(default_factory=list)
    admin: list[str] = Field(default_factory=list)


class _Oidc(_Model):
    issuer: str
    client_id: str = Field(min_length=1, max_length=255)
    client_secret: dict[str, str] | str | None = None
    title: str = Field(default="single sign-on", min_length=1, max_length=60)
    scopes: list[str] = Field(default=["openid", "profile", "email"])
    name_claim: str = Field(default="preferred_username", min_length=1)
    role_claim: str = Field(default="groups", min_length=1)
    roles: _Roles = _Roles()


class _Retention(_Model):
    verifications: int = Field(default=Retention().verifications, ge=LEAST_DAYS, le=3650)
    keep_recipients: int = Field(default=Retention().recipients, ge=0, le=3650)


class _Limit(_Model):
    per: Literal["number", "prefix", "country", "client", "ip"]
    window: int = Field(ge=1, le=LONGEST_WINDOW)
    max: int = Field(ge=1, le=1_000_000_000)
    shadow: bool = False
    digits: int | None = Field(default=None, ge=2, le=12)


class _Countries(_Model):
    allow: list[str] | None = None
    deny: list[str] = []
    monitor: list[str] = []


class _Guard(_Model):
    mode: Literal["off", "shadow", "enforce"] = "shadow"
    digits: int = Field(default=_GUARD.digits, ge=2, le=12)
    window: int = Field(default=_GUARD.window, ge=60, le=LONGEST_WINDOW)
    settle: int = Field(default=_GUARD.settle, ge=0, le=3600)
    sends: int = Field(default=_GUARD.sends, ge=1)
    percent: int = Field(default=_GUARD.percent, ge=1, le=100)
    budget: int = Field(default=_GUARD.budget, ge=1)
    country_budget: int = Field(default=_GUARD.country_budget, ge=1)


class _Prices(_Model):
    currency: str = Field(pattern="^[A-Z]{3}$")
    routes: dict[str, dict[str, str]] = Field(min_length=1)


class _Spend(_Model):
    cap: str
    clients: dict[str, str] = Field(default_factory=dict)
    reset_hour: int = Field(default=0, ge=0, le=23)
    shadow: bool = False


class _File(_Model):
    data_dir: str = "data"
    database_url: str | None = None
    database_password: dict[str, str] | None = None
    public_url: str | None = None
    brand: str = Field(default="Gateway", min_length=1, max_length=40)
    default_region: str | None = Field(default=None, pattern="^[A-Z]{2}$")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    keyring: str | None = None
    webhook_allow: list[str] = Field(default_factory=list)
    keep_events: int = Field(default=30, ge=2, le=3650)
    silent_fallbacks: int = Field(default=30, ge=0)
    routes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    workflows: dict[str, _Workflow] = Field(default_factory=dict)
    templates: dict[str, Any] = Field(default_factory=dict)
    default_locale: str = Field(default="en", pattern=f"^{wording.LOCALE.pattern}$")
    sandbox: _Sandbox = _Sandbox()
    metrics: _Metrics = _Metrics()
    traces: _Traces | None = None
    oidc: _Oidc | None = None
    retention: _Retention = _Retention()
    node: str | None = Field(default=None, pattern="^[A-Za-z0-9._-]{1,64}$")
    limits: dict[str, _Limit] = Field(default_factory=dict)
    countries: _Countries = _Countries()
    guard: _Guard = _Guard()
    prices: _Prices | None = None
    spend: _Spend | None = None


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
    raw = _read(file) if file is not None else {}
    for name in VARIABLES:
        if (given := environ.get(f"GATEWAY_{name}")) is not None:
            raw[name.lower()] = given
    mistakes: dict[str, str] = {}
    parsed = _parse(raw, mistakes)
    data_dir = Path(parsed.data_dir)
    routes = _routes(parsed.routes, environ, mistakes)
    settings = Settings(
        data_dir=data_dir,
        database=_database(parsed.database_url, data_dir, mistakes),
        keyring_file=Path(parsed.keyring) if parsed.keyring else data_dir / "keyring.json",
        public_url=_url("public_url", parsed.public_url or public_url, mistakes),
        brand=parsed.brand,
        default_region=parsed.default_region,
        log_level=parsed.log_level,
        silent_fallbacks=parsed.silent_fallbacks,
        sandbox_port=parsed.sandbox.port if not parsed.routes else None,
        webhook_allow=_allowed(parsed.webhook_allow, mistakes),
        keep_events=parsed.keep_events,
        providers=tuple(provider for provider, _ in routes),
        routes={provider.name: given for provider, given in routes},
        source=file,
        templates=wording.read(parsed.templates, mistakes, parsed.default_locale),
        default_locale=parsed.default_locale,
        metrics_token=_token("metrics.token", parsed.metrics.token, environ, mistakes),
        commit_delay=_commit_delay(environ, mistakes),
        traces=_traces(parsed.traces, environ, mistakes),
        oidc=_oidc(parsed.oidc, environ, mistakes),
        retention=Retention(parsed.retention.verifications, parsed.retention.keep_recipients),
        server=_server(parsed, "GATEWAY_DATABASE_URL" in environ, environ, mistakes),
    )
    if parsed.default_region is not None and parsed.default_region not in recipient.COUNTRIES:
        mistakes["default_region"] = "is no country that has telephone numbers; such as FR"
    workflows = _workflows(parsed, settings.providers, mistakes)
    policy = _policy(parsed, mistakes)
    if raw.get("routes") and "default" not in raw.get("workflows", {}):
        mistakes["workflows.default"] = "is missing: say which channels a code goes over, in order"
    if not raw.get("routes") and raw.get("workflows"):
        mistakes["workflows"] = "need [routes.…] of your own; without any, the sandbox's are used"
    if mistakes:
        raise SettingsError(mistakes)
    return dataclasses.replace(settings, workflows=workflows, policy=policy)


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


def _parse(raw: dict[str, Any], mistakes: dict[str, str]) -> _File:
    """The form of the file. What is wrong is listed and left out, so that the rest is looked at."""
    left = copy.deepcopy(raw)
    while True:
        try:
            return _File.model_validate(left)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
        first = not mistakes
        for problem in found:
            if first:
                key = ".".join(str(part) for part in problem["loc"])
                odd = problem["type"] == "extra_forbidden"
                mistakes[key] = _unknown(problem["loc"]) if odd else problem["msg"]
        _leave_out(left, found[0]["loc"], whole=found[0]["type"] == "missing")


def _unknown(loc: tuple[int | str, ...]) -> str:
    """That a key is no setting, and which was meant, or which there are."""
    model: type[BaseModel] = _File
    for part in loc[:-1]:
        if part in model.model_fields:
            inner = _model_in(model.model_fields[str(part)].annotation)
            if inner is None:
                return "is not a setting; check its spelling"
            model = inner
    known = sorted(model.model_fields)
    close = difflib.get_close_matches(str(loc[-1]), known, 1)
    more = f" (is {close[0]} meant?)" if close else f"; there are: {', '.join(known)}"
    return f"is not a setting; check its spelling{more}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is, or holds: `dict[str, _Workflow]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(one) for one in typing.get_args(annotation))
    return next((one for one in found if one is not None), None)


def _leave_out(left: dict[str, Any], loc: tuple[int | str, ...], *, whole: bool) -> None:
    """Remove what a mistake is about; for something missing, what it is missing from."""
    path = loc[:-1] if whole and len(loc) > 1 else loc
    holder: Any = left
    for part in path[:-1]:
        holder = holder[part]
    del holder[path[-1]]


def _database(url: str | None, data_dir: Path, mistakes: dict[str, str]) -> Path:
    if url is None:
        return data_dir / "gateway.db"
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///"))
    if not url.startswith(_POSTGRES):
        mistakes["database_url"] = f"is sqlite:///PATH or {_POSTGRES}USER@HOST/DATABASE"
    return data_dir / "gateway.db"


def _server(
    parsed: _File, from_environment: bool, environ: Mapping[str, str], mistakes: dict[str, str]
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
    return Server(url, _secret("database_password", given, environ, mistakes))


def _url(key: str, url: str, mistakes: dict[str, str]) -> str:
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


def _allowed(entries: list[str], mistakes: dict[str, str]) -> tuple[str, ...]:
    try:
        Allowed.parse(entries)
    except ValueError as error:
        mistakes["webhook_allow"] = str(error)
    return tuple(entries)


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _routes(
    routes: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str], mistakes: dict[str, str]
) -> list[tuple[Provider[Any, Any], Any]]:
    """Each route's provider, and the settings it was made with."""
    made = []
    for name, table in routes.items():
        key = f"routes.{name}"
        if not _NAME.fullmatch(name):
            mistakes[key] = "is not a name: small letters, digits, - and _, at most 32"
            continue
        kind = table.get("provider")
        if not isinstance(kind, str) or kind not in PROVIDERS:
            mistakes[f"{key}.provider"] = f"must be one of {', '.join(sorted(PROVIDERS))}"
            continue
        given = {k: v for k, v in table.items() if k != "provider"}
        route = _route(key, str(kind), given, environ, mistakes)
        if route is not None:
            made.append(route)
    return made


def _route(
    key: str,
    kind: str,
    given: dict[str, Any],
    environ: Mapping[str, str],
    mistakes: dict[str, str],
) -> tuple[Provider[Any, Any], Any] | None:
    """One route; None when something about it is wrong and listed."""
    chosen = PROVIDERS[kind]
    hints = typing.get_type_hints(chosen.Settings)
    before = len(mistakes)
    name = key.removeprefix("routes.")
    values: dict[str, Any] = {"name": name, "account": name}
    for setting, value in given.items():
        if setting not in hints or setting == "name":
            known = ", ".join(sorted(set(hints) - {"name"}))
            mistakes[f"{key}.{setting}"] = f"is not a setting of {kind}; there are: {known}"
        else:
            values[setting] = _value(f"{key}.{setting}", hints[setting], value, environ, mistakes)
    for one in dataclasses.fields(chosen.Settings):
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if required and one.name not in values:
            mistakes[f"{key}.{one.name}"] = f"is missing; {kind} needs it"
    if "base_url" in values and isinstance(values["base_url"], str):
        _url(f"{key}.base_url", values["base_url"], mistakes)
    if len(mistakes) > before:
        return None
    made = chosen.Settings(**values)
    try:
        return chosen(made), made
    except ValueError as error:
        mistakes[key] = str(error)
        return None


def _value(
    key: str, hint: Any, value: Any, environ: Mapping[str, str], mistakes: dict[str, str]
) -> Any:
    """A setting as its dataclass wants it, secrets resolved."""
    if hint is Secret:
        return _secret(key, value, environ, mistakes)
    if typing.get_origin(hint) is tuple:
        several = value if isinstance(value, list) else [value]
        return tuple(_secret(key, one, environ, mistakes) for one in several)
    if hint == Mapping[str, Secret]:
        given = (value if isinstance(value, dict) else {"?": value}).items()
        return {name: _secret(f"{key}.{name}", one, environ, mistakes) for name, one in given}
    if hint is Definition:
        return _definition(key, value, mistakes)
    if _allows(hint, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        mistakes[key] = error.errors(include_url=False, include_input=False)[0]["msg"]
        return None


def _allows(hint: Any, kind: type) -> bool:
    if isinstance(hint, types.UnionType):
        return kind in typing.get_args(hint)
    return hint is kind


def _secret(key: str, value: Any, environ: Mapping[str, str], mistakes: dict[str, str]) -> Secret:
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


def _token(
    key: str, value: Any, environ: Mapping[str, str], mistakes: dict[str, str]
) -> Secret | None:
    """A secret that may be left out."""
    if value is None:
        return None
    token = _secret(key, value, environ, mistakes)
    if token and len(token) < _TOKEN_LENGTH:
        mistakes[key] = f"is shorter than {_TOKEN_LENGTH} characters; it could be guessed"
    return token


def _commit_delay(environ: Mapping[str, str], mistakes: dict[str, str]) -> float:
    """Of GATEWAY_COMMIT_DELAY_MS, which is for measuring alone and in no file; in seconds."""
    given = environ.get("GATEWAY_COMMIT_DELAY_MS", "0")
    if given.isascii() and given.isdigit() and int(given) <= _DELAY_MOST:
        return int(given) / 1000
    mistakes["GATEWAY_COMMIT_DELAY_MS"] = f"is a number of milliseconds from 0 to {_DELAY_MOST}"
    return 0.0


def _traces(
    given: _Traces | None, environ: Mapping[str, str], mistakes: dict[str, str]
) -> TraceSettings | None:
    if given is None:
        return None
    headers = {
        name: _secret(f"traces.headers.{name}", one, environ, mistakes)
        for name, one in given.headers.items()
    }
    return TraceSettings(_url("traces.endpoint", given.endpoint, mistakes), headers)


def _oidc(
    given: _Oidc | None, environ: Mapping[str, str], mistakes: dict[str, str]
) -> OidcSettings | None:
    if given is None:
        return None
    _url("oidc.issuer", given.issuer, mistakes)
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
        secret = _secret("oidc.client_secret", given.client_secret, environ, mistakes)
    terms = Terms(
        issuer=given.issuer,
        client_id=given.client_id,
        scopes=tuple(given.scopes),
        name_claim=given.name_claim,
        role_claim=given.role_claim,
        roles=roles,
    )
    return OidcSettings(terms, secret, given.title)


def _definition(key: str, value: Any, mistakes: dict[str, str]) -> Definition | None:
    try:
        return definitions.load(value)
    except DefinitionError as error:
        wrong = error.mistakes.items()
        mistakes.update({f"{key}.{part}" if part else key: why for part, why in wrong})
    return None


def _workflows(
    parsed: _File, providers: tuple[Provider[Any, Any], ...], mistakes: dict[str, str]
) -> dict[str, tuple[StepSettings, ...]]:
    channels = {provider.name: provider.channel for provider in providers}
    named = set(channels) | set(parsed.routes)
    made = {}
    for name, workflow in parsed.workflows.items():
        for at, step in enumerate(workflow.steps):
            key = f"workflows.{name}.steps.{at}"
            wrong = [_mismatch(route, step.channel, named, channels) for route in step.routes]
            if any(wrong):
                mistakes[f"{key}.routes"] = "; ".join(problem for problem in wrong if problem)
        made[name] = tuple(_step(step) for step in workflow.steps)
    return made


def _policy(parsed: _File, mistakes: dict[str, str]) -> Policy:
    """What is allowed: limits, countries, guard, spending."""
    given = _Guard.model_dump(parsed.guard)
    guard = Guard(**given | {"mode": Mode(given["mode"])})
    rules = {limits.PER_NUMBER.name: limits.PER_NUMBER}
    for name, limit in parsed.limits.items():
        rules[name] = _rule(name, limit, mistakes)
    return Policy(
        node=parsed.node or "",
        rules=tuple(rules.values()),
        countries=_countries(parsed.countries, mistakes),
        guard=guard if guard.mode is not Mode.OFF else None,
        spending=_spending(parsed, mistakes),
    )


def _rule(name: str, given: _Limit, mistakes: dict[str, str]) -> Rule:
    key = f"limits.{name}"
    if not _NAME.fullmatch(name):
        mistakes[key] = "is not a name: small letters, digits, - and _, at most 32"
    per = Per(given.per)
    if per is not Per.PREFIX and given.digits is not None:
        mistakes[f"{key}.digits"] = 'is for per = "prefix" alone'
    digits = given.digits or _PREFIX_DIGITS
    return Rule(
        name, per, given.window, given.max, given.shadow, digits if per is Per.PREFIX else 0
    )


def _countries(given: _Countries, mistakes: dict[str, str]) -> Countries:
    for name in ("allow", "deny", "monitor"):
        for at, code in enumerate(getattr(given, name) or ()):
            if code not in recipient.COUNTRIES:
                mistakes[f"countries.{name}.{at}"] = "is not a country code such as FR"
    if given.allow == []:
        mistakes["countries.allow"] = "allows no country at all; leave it out to allow every one"
    both = sorted(set(given.allow or ()) & set(given.deny))
    if both:
        mistakes["countries.deny"] = f"denies what countries.allow allows: {', '.join(both)}"
    allow = frozenset(given.allow) if given.allow is not None else None
    return Countries(allow, frozenset(given.deny), frozenset(given.monitor))


def _spending(parsed: _File, mistakes: dict[str, str]) -> Spending | None:
    prices, spend = parsed.prices, parsed.spend
    tariffs = {}
    for route, listed in (prices.routes if prices is not None else {}).items():
        if parsed.routes and route not in parsed.routes:
            mistakes[f"prices.routes.{route}"] = "there is no such route"
        tariffs[route] = _tariff(f"prices.routes.{route}", listed, mistakes)
    if spend is None:
        return None
    if prices is None:
        mistakes["prices"] = "is missing: spend.cap needs to know what messages cost"
        return None
    for route in parsed.routes:
        if route not in tariffs:
            mistakes[f"prices.routes.{route}"] = "is missing: spend.cap needs every route's price"
    caps = {}
    for client, text in spend.clients.items():
        named = identity.parse(client)
        if named is None:
            mistakes[f"spend.clients.{client}"] = "is not a client id: see gateway client list"
        else:
            caps[named] = _amount(f"spend.clients.{client}", text, mistakes)
    return Spending(
        currency=prices.currency,
        tariffs=tariffs,
        cap=_amount("spend.cap", spend.cap, mistakes),
        caps=caps,
        reset_hour=spend.reset_hour,
        shadow=spend.shadow,
    )


def _tariff(key: str, listed: Mapping[str, str], mistakes: dict[str, str]) -> Tariff:
    """A route's prices: `default`, by country, by prefix."""
    countries, prefixes = {}, {}
    for where, text in listed.items():
        money = _amount(f"{key}.{where}", text, mistakes)
        if _PREFIX.fullmatch(where):
            prefixes[where] = money
        elif where in recipient.COUNTRIES:
            countries[where] = money
        elif where != "default":
            mistakes[f"{key}.{where}"] = "is neither default, a country (FR) nor a prefix (+3361)"
    if "default" not in listed:
        mistakes[f"{key}.default"] = "is missing: what a message to anywhere else costs"
    return Tariff(_amount(key, listed.get("default", "0"), {}), countries, prefixes)


def _amount(key: str, text: str, mistakes: dict[str, str]) -> int:
    try:
        return spending.amount(text)
    except ValueError as error:
        mistakes[key] = str(error)
        return 0


def _mismatch(route: str, channel: str, named: set[str], channels: Mapping[str, str]) -> str | None:
    """Why a step of that channel cannot use that route."""
    if route not in named:
        return f"there is no route {route!r}; there are: {', '.join(sorted(named)) or 'none'}"
    if channels.get(route, channel) != channel:
        return f"{route!r} serves {channels[route]}, not {channel}"
    return None


def _step(step: _Step) -> StepSettings:
    return StepSettings(
        channel=step.channel,
        routes=tuple(step.routes),
        patience=step.patience,
        until=Until(step.until),
        on_failed=OnFailed(step.on_failed),
        on_unknown=OnUnknown(step.on_unknown),
    )
