"""The parts around the ledger: what takes codes, sends them, hears of them and tells of them."""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gateway.app.carriers import webhook_carriers
from gateway.app.doings import doings
from gateway.app.following import Following
from gateway.app.routes import Reach, workflows_of
from gateway.app.shared import Shared, Stored
from gateway.metrics import MeteredTally
from gateway.ports import Transport
from gateway.services import naming, tracing
from gateway.services.case import LEASE_MARGIN, Context
from gateway.services.dispatch import Dispatcher
from gateway.services.hints import Every
from gateway.services.notify import Notifier
from gateway.services.runtime import Route, Runtime
from gateway.store.engine import Engine
from gateway.store.ledger import Ledger
from gateway.store.outbox import OutboxReads
from gateway.transports.guard import Guarded


@dataclass(frozen=True, slots=True)
class Core:
    """The parts. `follow` can still be told of more that follows a commit."""

    ledger: Ledger
    dispatcher: Dispatcher
    notifier: Notifier
    follow: Following
    runtime: Runtime
    transports: tuple[Transport[Any, Any], ...]


def assemble(
    shared: Shared,
    stored: Stored,
    reach: Reach,
    webhooks: Transport | None,
    after: Callable[[object], None] | None,
) -> Core:
    """Put them together. `webhooks` carries them in place of our own transports; `after` sees what
    a commit left behind before anybody else does."""
    routes = reach.routes
    context = _context(shared, routes, alone=not stored.engine.shared)
    carriers = () if webhooks is not None else webhook_carriers(shared.allowed)
    told_by = webhooks or Guarded(shared.allowed, *carriers)
    dispatcher = _dispatcher(shared, routes)
    notifier = _notifier(shared, stored.outbox, context, told_by)
    follow = _following(shared, dispatcher, notifier, after)
    ledger = _ledger(shared, stored.engine, context, dispatcher, follow)
    finder = naming.Finder(stored.reads, ledger, shared.keyring)
    dispatcher.attach(ledger, finder.look_back)
    notifier.attach(ledger)
    runtime = _with_test(_runtime(shared, stored, ledger, finder, reach.live), reach)
    sending = {id(route.transport): route.transport for route in routes.values()}
    transports = (*sending.values(), *carriers)
    return Core(ledger, dispatcher, notifier, follow, runtime, transports)


def _context(shared: Shared, routes: Mapping[str, Route], *, alone: bool) -> Context:
    """What decisions need to know besides the rows. Only who is `alone` on the database knows of
    everybody that waits."""
    return Context(
        keyring=shared.keyring,
        leases={name: route.provider.timeout + LEASE_MARGIN for name, route in routes.items()},
        unsigned=frozenset(n for n, route in routes.items() if not route.provider.signed),
        entropy=shared.entropy,
        revokes=frozenset(name for name, route in routes.items() if route.revokes is not None),
        outage=shared.outage,
        retention=shared.settings.retention,
        watched=shared.waiting.watched if alone else Every(),
        standing=shared.standing,
        policy=shared.settings.policy,
    )


def _dispatcher(shared: Shared, routes: Mapping[str, Route]) -> Dispatcher:
    return Dispatcher(
        routes=routes,
        keyring=shared.keyring,
        public_url=shared.settings.public_url,
        catalogue=shared.catalogue,
        now=shared.now,
        monotonic=shared.monotonic,
        log=shared.log,
        meter=shared.meter,
        tracer=shared.tracer,
    )


def _notifier(
    shared: Shared, outbox: OutboxReads, context: Context, transport: Transport
) -> Notifier:
    return Notifier(
        reads=outbox,
        audience=context.audience,
        keyring=shared.keyring,
        transport=transport,
        now=shared.now,
        entropy=shared.entropy,
        log=shared.log,
        meter=shared.meter,
        tracer=shared.tracer,
    )


def _following(
    shared: Shared,
    dispatcher: Dispatcher,
    notifier: Notifier,
    after: Callable[[object], None] | None,
) -> Following:
    """What follows a commit, in this order."""
    follow = Following(after)
    follow.add(dispatcher.follow, shared.meter.follow, shared.lately.follow)
    if shared.tracer.on:
        follow.add(partial(tracing.follow, shared.tracer))
    follow.add(notifier.follow, shared.waiting.follow)
    return follow


def _ledger(
    shared: Shared, engine: Engine, context: Context, dispatcher: Dispatcher, follow: Following
) -> Ledger:
    policy = shared.settings.policy
    return Ledger(
        engine,
        doings(context),
        now=shared.now,
        slots=dispatcher.slots,
        after=follow,
        tally=MeteredTally(shared.meter),
        node=f"{platform.node()}:{os.getpid()}",
        charged=policy.charged if policy.spending is not None else None,
    )


def _runtime(
    shared: Shared,
    stored: Stored,
    ledger: Ledger,
    finder: naming.Finder,
    routes: Mapping[str, Route],
) -> Runtime:
    """What services are given, with the configured routes."""
    settings = shared.settings
    return Runtime(
        engine=stored.engine,
        ledger=ledger,
        reads=stored.reads,
        keyring=shared.keyring,
        routes=routes,
        workflows=workflows_of(settings),
        public_url=settings.public_url,
        catalogue=shared.catalogue,
        default_region=settings.default_region,
        now=shared.now,
        entropy=shared.entropy,
        outage=shared.outage,
        place=finder.place,
        meter=shared.meter,
        tracer=shared.tracer,
        retention=settings.retention,
        waiting=shared.waiting,
        standing=shared.standing,
        policy=settings.policy,
        lately=shared.lately,
    )


def _with_test(runtime: Runtime, reach: Reach) -> Runtime:
    """The runtime, with what test keys reach: the same parts, other routes and workflows, and no
    limits."""
    if reach.test is None:
        return runtime
    test = replace(
        runtime,
        routes=reach.simulated or reach.live,
        workflows=workflows_of(reach.test.settings),
        policy=runtime.policy.simulated,
        futures={},
        _plans={},
    )
    return replace(runtime, test=test)
