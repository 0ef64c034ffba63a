"""What the gateway can be told, as frozen values, and the error that lists what is wrong with it.

Nothing is read or checked here: `sections` has the names that gateway.toml gives to all this, and
`loading` makes the one from the other.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.domain.oidc import Terms
from gateway.domain.policy import Policy
from gateway.domain.retention import Retention
from gateway.domain.templates import BUILT_IN, Template
from gateway.domain.workflow import Step
from gateway.ports import Provider, Secret, Server


class SettingsError(Exception):
    """Wrong settings: `mistakes` maps each key to what is wrong with it and what to do."""

    def __init__(self, mistakes: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{key}: {problem}" for key, problem in mistakes.items()))
        self.mistakes = dict(mistakes)


class InUse(SettingsError):
    """Another process has the data folder."""


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
    workflows: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
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
    workflows: Mapping[str, tuple[Step, ...]],
) -> Settings:
    """The settings with these routes and workflows."""
    return dataclasses.replace(settings, providers=providers, workflows=workflows)
