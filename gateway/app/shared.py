"""What a process has one of and gives to many of its parts: settings, clock, log, database."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from gateway.app import clock
from gateway.app.extras import tracer_of
from gateway.config import Settings, environment
from gateway.domain.catalogue import Catalogue
from gateway.domain.identity import Entropy
from gateway.domain.keyring import Keyring
from gateway.domain.networks import Allowed
from gateway.metrics import PrometheusMeter, folder_of
from gateway.ports import Tracer
from gateway.services.case import Outage
from gateway.services.lately import Lately
from gateway.services.standing import Routes
from gateway.services.waiting import Waiting
from gateway.store.engine import Engine, open_engine
from gateway.store.outbox import OutboxReads
from gateway.store.reads import Reads


@dataclass(frozen=True, slots=True)
class Shared:
    """All but the database. `standing`, `lately`, `outage`, `waiting` are this process's memory."""

    settings: Settings
    keyring: Keyring
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    entropy: Entropy
    log: Any
    meter: PrometheusMeter
    tracer: Tracer
    catalogue: Catalogue
    allowed: Allowed  # where webhooks may go
    standing: Routes
    lately: Lately
    outage: Outage = field(default_factory=Outage)
    waiting: Waiting = field(default_factory=Waiting)


@dataclass(frozen=True, slots=True)
class Stored:
    """The database, and what is read from it."""

    engine: Engine
    reads: Reads
    outbox: OutboxReads


def share(
    settings: Settings,
    keyring: Keyring,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    tracer: Tracer | None,
) -> Shared:
    """Make them. `tracer`: in place of the configured one. Raises SettingsError: a package that the
    settings need is not installed."""
    meter = PrometheusMeter(folder_of(environment()))
    tracer = tracer or tracer_of(settings)
    log = structlog.get_logger().bind()  # bound once: the lazy proxy would bind at every line
    steady = clock.Steady(now, log).now  # one for all parts
    return Shared(
        settings=settings,
        keyring=keyring,
        now=steady,
        monotonic=monotonic,
        entropy=Entropy(os.urandom),
        log=log,
        meter=meter,
        tracer=tracer,
        catalogue=Catalogue(settings.templates, settings.brand, settings.default_locale),
        allowed=Allowed.parse(settings.webhook_allow),
        standing=Routes(settings.silent_fallbacks),
        lately=Lately(steady),
    )


def open_store(settings: Settings) -> Stored:
    """The database, not looked at yet. Raises StoreError: see `open_engine`."""
    engine = open_engine(settings.store, commit_delay=settings.commit_delay)
    return Stored(engine, Reads(engine), OutboxReads(engine))
