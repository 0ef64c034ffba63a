"""Wiring: Settings → Runtime → Gateway, with the web application around it.

`shared` has what many parts are given, `core` the parts around the ledger; here they are put
together, and what stands around them is added.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from gateway.app import clock
from gateway.app.carriers import carrier_for
from gateway.app.core import Core, assemble
from gateway.app.extras import sign_in
from gateway.app.gateway import Gateway, Role
from gateway.app.hinting import hints_for
from gateway.app.routes import Realm, reach
from gateway.app.shared import Shared, Stored, open_store, share
from gateway.app.web import application
from gateway.config import Settings
from gateway.domain.keyring import Keyring
from gateway.ports import Callback, Tracer, Transport
from gateway.providers.smpp import METHOD
from gateway.services import notify, receive
from gateway.services.subscriptions import Subscriptions
from gateway.store.desk import Desk
from gateway.transports.http import HttpTransport
from gateway.transports.pool import ConnectionPool
from gateway.worker import Worker


def build(
    settings: Settings,
    keyring: Keyring,
    *,
    transport: Transport | None = None,
    webhooks: Transport | None = None,
    test: Realm | None = None,
    now: Callable[[], datetime] = clock.now,
    monotonic: Callable[[], float] = time.monotonic,
    after: Callable[[object], None] | None = None,
    dropped: Callable[[], int] = int,
    tracer: Tracer | None = None,
    role: Role = Role.ALL,
) -> Gateway:
    """Put a gateway together. `test` is what test keys reach; without it their sends are refused.
    `after` sees each item a committed batch left behind, before it is followed: a seam for tests
    that stop the process at a marked point. `dropped`: how many log lines could not be written so
    far."""
    shared = share(settings, keyring, now, monotonic, tracer)

    async def hear(route: str, pdu: bytes) -> None:
        callback = Callback(METHOD, "", None, {}, {}, pdu, shared.now())
        await receive.receive(core.runtime, route, callback)

    carry = partial(carrier_for, sessions={}, hear=hear, log=shared.log)
    reached = reach(settings, test, carry if transport is None else lambda _: transport, shared.now)
    stored = open_store(settings)
    core = assemble(shared, stored, reached, webhooks, after)
    gateway = _gateway(shared, stored, core, dropped, role)
    gateway.web = application(gateway, monotonic)
    return gateway


def _gateway(
    shared: Shared, stored: Stored, core: Core, dropped: Callable[[], int], role: Role
) -> Gateway:
    """The rest: what passes, what is told by other processes, what operators use."""
    settings, keyring, now, log = shared.settings, shared.keyring, shared.now, shared.log
    ledger, notifier, outbox = core.ledger, core.notifier, stored.outbox
    poll = partial(shared.waiting.poll, outbox.versions)
    sweep = partial(notify.sweep, ledger, outbox, timedelta(days=settings.keep_events))
    hints = hints_for(settings, core.runtime, notifier, poll, log)
    if hints is not None:
        core.follow.add(hints.follow)
    elsewhere = HttpTransport(ConnectionPool(limit=4))  # connects at the first login there
    return Gateway(
        settings=settings,
        engine=stored.engine,
        ledger=ledger,
        dispatcher=core.dispatcher,
        notifier=notifier,
        subscriptions=Subscriptions(
            ledger, outbox, keyring, notifier, shared.allowed.url, now, shared.entropy
        ),
        runtime=core.runtime,
        worker=Worker(core.runtime, log, notifier, sweep, poll, due=role is not Role.API),
        transports=(*core.transports, elsewhere),
        log=log,
        meter=shared.meter,
        dropped=dropped,
        desk=Desk(settings.store),
        role=role,
        sign_in=sign_in(settings, keyring, elsewhere, now, log),
        hints=hints,
    )
