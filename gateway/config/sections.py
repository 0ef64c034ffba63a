"""The sections of gateway.toml under the names they have there: kind, bounds, default of a key.

What one look at a single key can tell is here. What takes more (secrets, which are `Any` here, a
name that stands elsewhere, a provider's own settings) is looked at by the modules that make values
of the sections.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.domain import guard, limits, retention, wording
from gateway.domain.workflow import PATIENCE_SECONDS

LONGEST_WINDOW = int(limits.LONGEST_WINDOW.total_seconds())
_GUARD = guard.Guard()  # its defaults
_RETENTION = retention.Retention()  # the same


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Step(_Model):
    """`[[workflows.NAME.steps]]`; `patience` in seconds."""

    channel: str
    routes: list[str] = Field(min_length=1)
    patience: int = Field(default=60, ge=PATIENCE_SECONDS[0], le=PATIENCE_SECONDS[-1])
    until: Literal["sent", "ack", "delivered", "read", "verified"] = "delivered"
    on_failed: Literal["advance", "wait"] = "advance"
    on_unknown: Literal["wait", "resubmit"] = "wait"


class Workflow(_Model):
    """`[workflows.NAME]`."""

    steps: list[Step] = Field(min_length=1, max_length=10)


class Sandbox(_Model):
    """`[sandbox]`: the one beside a gateway that has no routes of its own."""

    port: int = Field(default=8081, ge=0, le=65535)


class Metrics(_Model):
    """`[metrics]`: who may read /metrics."""

    token: Any = None


class Traces(_Model):
    """`[traces]`: where spans go."""

    endpoint: str
    headers: dict[str, Any] = Field(default_factory=dict)


class Roles(_Model):
    """`[oidc.roles]`: the values of the claim that make somebody each of these."""

    viewer: list[str] = Field(default_factory=list)
    support: list[str] = Field(default_factory=list)
    admin: list[str] = Field(default_factory=list)


class Oidc(_Model):
    """`[oidc]`: the console's logins at an identity provider."""

    issuer: str
    client_id: str = Field(min_length=1, max_length=255)
    client_secret: Any = None
    title: str = Field(default="single sign-on", min_length=1, max_length=60)
    scopes: list[str] = Field(default=["openid", "profile", "email"])
    name_claim: str = Field(default="preferred_username", min_length=1)
    role_claim: str = Field(default="groups", min_length=1)
    roles: Roles = Roles()


class Retention(_Model):
    """`[retention]`, in days."""

    verifications: int = Field(default=_RETENTION.verifications, ge=retention.LEAST_DAYS, le=3650)
    keep_recipients: int = Field(default=_RETENTION.recipients, ge=0, le=3650)


class Limit(_Model):
    """`[limits.NAME]`; `window` in seconds."""

    per: Literal["number", "prefix", "country", "client", "ip"]
    window: int = Field(ge=1, le=LONGEST_WINDOW)
    max: int = Field(ge=1, le=1_000_000_000)
    shadow: bool = False
    digits: int | None = Field(default=None, ge=2, le=12)


class Countries(_Model):
    """`[countries]`: where codes may go. No `allow` allows every country."""

    allow: list[str] | None = None
    deny: list[str] = []
    monitor: list[str] = []


class Guard(_Model):
    """`[guard]` against pumped traffic; `window` and `settle` in seconds."""

    mode: Literal["off", "shadow", "enforce"] = "shadow"
    digits: int = Field(default=_GUARD.digits, ge=2, le=12)
    window: int = Field(default=_GUARD.window, ge=60, le=LONGEST_WINDOW)
    settle: int = Field(default=_GUARD.settle, ge=0, le=3600)
    sends: int = Field(default=_GUARD.sends, ge=1)
    percent: int = Field(default=_GUARD.percent, ge=1, le=100)
    budget: int = Field(default=_GUARD.budget, ge=1)
    country_budget: int = Field(default=_GUARD.country_budget, ge=1)


class Prices(_Model):
    """`[prices]`: by route, what a message costs to where."""

    currency: str = Field(pattern="^[A-Z]{3}$")
    routes: dict[str, dict[str, str]] = Field(min_length=1)


class Spend(_Model):
    """`[spend]`: what a day may cost, in all and by client."""

    cap: str
    clients: dict[str, str] = Field(default_factory=dict)
    reset_hour: int = Field(default=0, ge=0, le=23)
    shadow: bool = False


class File(_Model):
    """The whole file. What is in a route or a template is looked at elsewhere."""

    data_dir: str = "data"
    database_url: str | None = None
    database_password: Any = None
    public_url: str | None = None
    brand: str = Field(default="Gateway", min_length=1, max_length=40)
    default_region: str | None = Field(default=None, pattern="^[A-Z]{2}$")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    keyring: str | None = None
    webhook_allow: list[str] = Field(default_factory=list)
    keep_events: int = Field(default=30, ge=2, le=3650)
    silent_fallbacks: int = Field(default=30, ge=0)
    routes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    workflows: dict[str, Workflow] = Field(default_factory=dict)
    templates: dict[str, Any] = Field(default_factory=dict)
    default_locale: str = Field(default="en", pattern=f"^{wording.LOCALE.pattern}$")
    sandbox: Sandbox = Sandbox()
    metrics: Metrics = Metrics()
    traces: Traces | None = None
    oidc: Oidc | None = None
    retention: Retention = Retention()
    node: str | None = Field(default=None, pattern="^[A-Za-z0-9._-]{1,64}$")
    limits: dict[str, Limit] = Field(default_factory=dict)
    countries: Countries = Countries()
    guard: Guard = Guard()
    prices: Prices | None = None
    spend: Spend | None = None
