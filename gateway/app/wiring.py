"""Wiring: Settings → Runtime → web application. The only module that knows all others."""

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import AsyncGenerator, Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from gateway.app import clock
from gateway.app.carriers import Carry, Starts, carrier_for, webhook_carriers
from gateway.app.extras import sign_in, tracer_of
from gateway.app.following import Following
from gateway.app.hinting import hints_for
from gateway.app.readiness import Readiness
from gateway.config import Settings, environment
from gateway.domain.catalogue import Catalogue
from gateway.domain.identity import Entropy
from gateway.domain.keyring import Keyring
from gateway.domain.networks import Allowed
from gateway.domain.workflow import Plan
from gateway.metrics import MeteredTally, PrometheusMeter, Sampler, Standing, folder_of
from gateway.ports import CALLBACK_LIMIT, Callback, Timed, Tracer, Transport
from gateway.providers.smpp import METHOD
from gateway.services import (
    dispatch,
    health,
    idempotency,
    keys,
    limiting,
    naming,
    notify,
    operate,
    receive,
    reconcile,
    release,
    retention,
    send,
    tracing,
    verify,
)
from gateway.services.case import LEASE_MARGIN, Context, Outage
from gateway.services.dispatch import Dispatcher
from gateway.services.hints import Every, Hints
from gateway.services.lately import Lately
from gateway.services.notify import Notifier
from gateway.services.oidc import SignIn
from gateway.services.runtime import Route, Runtime, Step, Workflow, resolve
from gateway.services.standing import Routes
from gateway.services.subscriptions import Subscriptions
from gateway.services.waiting import Waiting
from gateway.store.desk import Desk
from gateway.store.engine import Engine, open_engine
from gateway.store.ledger import Doing, Ledger, Operation
from gateway.store.outbox import OutboxReads
from gateway.store.reads import Reads
from gateway.transports.guard import Guarded
from gateway.transports.http import AiohttpTransport, HttpTransport
from gateway.transports.smtp import SmtpTransport
from gateway.web.api import Api
from gateway.web.auth import Keys
from gateway.web.callbacks import Callbacks
from gateway.web.console import Console
from gateway.web.documents import Documents
from gateway.web.edge import Edge
from gateway.web.errors import http_error, worker_error
from gateway.web.probes import Probes
from gateway.web.scrape import Scrape
from gateway.web.subscriptions import SubscriptionCalls
from gateway.web.waits import Streams
from gateway.worker import Worker


class Role(StrEnum):
    """What a process does: all of it, only the API and what it accepts, or only what is due."""

    ALL = "all"
    API = "api"
    WORKER = "worker"


GRACE = 15  # seconds a clean stop gives requests and submissions under way


def doings(context: Context) -> Mapping[type[Operation[Any]], Doing]:
    """What each operation means. Facts come before deadlines; outcomes are never turned away."""

    def doing(order: int, share: float, module_wants: Any, apply: Any) -> Doing:
        def applied(tx: Any, operation: Any, now: datetime) -> Any:
            return apply(tx, context, operation, now)

        return Doing(order, share, module_wants, applied)

    table: dict[type[Operation[Any]], Doing] = {
        dispatch.Conclude: doing(0, 2.0, dispatch.wants, dispatch.apply),
        receive.Receive: doing(1, 1.0, receive.wants, receive.apply),
        health.Judge: doing(1, 2.0, health.wants, health.apply),
        naming.Adopt: doing(1, 1.0, naming.wants, naming.apply),
        receive.Sweep: doing(1, 1.0, receive.wants_sweep, receive.apply_sweep),
        limiting.Forget: doing(6, 1.0, limiting.wants_forget, limiting.apply_forget),
        verify.Check: doing(2, 0.9, verify.wants_check, verify.apply_check),
        verify.Cancel: doing(3, 0.9, verify.wants_cancel, verify.apply_cancel),
        verify.Next: doing(4, 0.75, verify.wants_next, verify.apply_next),
        release.Release: doing(4, 0.75, release.wants, release.apply),
        operate.Ask: doing(4, 0.75, operate.wants, operate.apply),
        send.Accept: doing(5, 0.75, send.wants, send.apply),
        reconcile.Wake: doing(6, 2.0, reconcile.wants, reconcile.apply),
        retention.Purge: doing(7, 0.5, retention.wants, retention.apply),
        retention.Forget: doing(7, 0.5, retention.wants_forget, retention.apply_forget),
        notify.Change: doing(7, 2.0, notify.wants, notify.apply),
    }
    return table | idempotency.doings(context, table) | keys.doings()


@dataclass(frozen=True)
class Realm:
    """What test keys reach: settings with simulated routes, and what carries their requests. None
    where they are the gateway's own routes, the sandbox being what is configured."""

    settings: Settings
    transport: Transport | None = None


@dataclass
class Gateway:
    """One process's worth of gateway, put together and not yet started."""

    settings: Settings
    engine: Engine
    ledger: Ledger
    dispatcher: Dispatcher
    notifier: Notifier
    subscriptions: Subscriptions
    runtime: Runtime
    worker: Worker
    transports: tuple[Transport[Any, Any], ...]
    log: Any
    meter: PrometheusMeter
    dropped: Callable[[], int]  # log lines that could not be written
    desk: Desk  # the console's
    sign_in: SignIn | None  # the console's logins at an identity provider
    role: Role
    hints: Hints | None  # none where no other process is told anything
    web: ASGIApp = field(init=False)
    sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        self.sampler = Sampler(self.meter, self.standing)

    def standing(self) -> Standing:
        """How this process stands now."""
        return Standing(
            queue=self.ledger.depth,
            under_way=self.dispatcher.under_way,
            lag=self.worker.lag,
            last_pass=self.worker.last_pass,
            reruns=self.ledger.tally.reruns,
            dropped=self.dropped(),
        )

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """The metrics as of now, in the format of that Accept header, and its content type."""
        self.sampler.sample()
        return self.meter.render(accept)

    async def start(self) -> None:
        """Begin to write and to pass."""
        await self.open()
        self.ledger.start()
        self.worker.start()
        self.sampler.start()
        if self.hints is not None:
            self.hints.start()
        for transport in self.transports:
            if isinstance(transport, Starts):
                await transport.start()

    async def open(self) -> None:
        """Look how long nobody has passed, since patience that ran out meanwhile is extended; how
        the routes stand; who listens."""
        runtime = self.runtime
        last = await runtime.reads.mark(reconcile.PASS)
        runtime.outage.gap = reconcile.gap_between(last, runtime.now())
        await health.look(runtime)
        await self.notifier.refresh()

    def leave(self) -> None:
        """The server is about to stop: whoever waits is answered now."""
        self.runtime.waiting.close()

    async def stop(self) -> None:
        """Start nothing new, bring home what is on the wire, write what waits, let go."""
        self.leave()
        await self.worker.stop()
        webhooks = asyncio.ensure_future(self.notifier.drain(GRACE))
        await self.dispatcher.drain(GRACE)
        await webhooks
        for transport in self.transports:  # before the ledger: what they still hear is stored
            if isinstance(transport, HttpTransport | SmtpTransport | Starts):
                await transport.aclose()
        await self.ledger.close()
        if self.hints is not None:
            await self.hints.stop()
        await asyncio.to_thread(self.desk.close)
        await self.engine.close()
        self.sampler.stop()
        await asyncio.to_thread(self.runtime.tracer.close)  # it may have to wait for a collector
        tally = self.ledger.tally
        self.log.info(
            "ledger_closed",
            operations=tally.operations,
            commits=tally.commits,
            reruns=tally.reruns,
        )


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
    meter = PrometheusMeter(folder_of(environment()))
    tracer = tracer or tracer_of(settings)
    log = structlog.get_logger().bind()  # bound once: the lazy proxy would bind at every line
    now = clock.Steady(now, log).now  # one for all parts

    async def hear(route: str, pdu: bytes) -> None:
        callback = Callback(METHOD, "", None, {}, {}, pdu, now())
        await receive.receive(runtime, route, callback)

    carry = partial(carrier_for, sessions={}, hear=hear, log=log)
    live = _routes(settings, carry if transport is None else lambda _: transport, now)
    simulated = _simulated(test, now)
    routes = live | simulated
    engine = open_engine(settings.store, commit_delay=settings.commit_delay)
    reads = Reads(engine)
    catalogue = Catalogue(settings.templates, settings.brand, settings.default_locale)
    dispatcher = Dispatcher(
        routes=routes,
        keyring=keyring,
        public_url=settings.public_url,
        catalogue=catalogue,
        now=now,
        monotonic=monotonic,
        log=log,
        meter=meter,
        tracer=tracer,
    )
    lately = Lately(now)
    waiting, outage = Waiting(), Outage()
    entropy = Entropy(os.urandom)
    standing = Routes(settings.silent_fallbacks)
    context = _context(
        settings,
        keyring,
        routes,
        entropy=entropy,
        outage=outage,
        watched=Every() if engine.shared else waiting.watched,
        standing=standing,
    )
    allowed = Allowed.parse(settings.webhook_allow)
    carriers = () if webhooks is not None else webhook_carriers(allowed)
    outbox = OutboxReads(engine)
    notifier = Notifier(
        reads=outbox,
        audience=context.audience,
        keyring=keyring,
        transport=webhooks or Guarded(allowed, *carriers),
        now=now,
        entropy=entropy,
        log=log,
        meter=meter,
        tracer=tracer,
    )

    follow = Following(after)
    follow.add(dispatcher.follow, meter.follow, lately.follow)
    if tracer.on:
        follow.add(partial(tracing.follow, tracer))
    follow.add(notifier.follow, waiting.follow)
    ledger = Ledger(
        engine,
        doings(context),
        now=now,
        slots=dispatcher.slots,
        after=follow,
        tally=MeteredTally(meter),
        node=f"{platform.node()}:{os.getpid()}",
        charged=settings.policy.charged if settings.policy.spending is not None else None,
    )
    finder = naming.Finder(reads, ledger, keyring)
    dispatcher.attach(ledger, finder.look_back)
    notifier.attach(ledger)
    runtime = Runtime(
        engine=engine,
        ledger=ledger,
        reads=reads,
        keyring=keyring,
        routes=live,
        workflows=_workflows(settings),
        public_url=settings.public_url,
        catalogue=catalogue,
        default_region=settings.default_region,
        now=now,
        entropy=entropy,
        outage=outage,
        place=finder.place,
        meter=meter,
        tracer=tracer,
        retention=settings.retention,
        waiting=waiting,
        standing=standing,
        policy=settings.policy,
        lately=lately,
    )
    if test is not None:
        runtime = replace(runtime, test=_reached(runtime, test, simulated or live))
    keep = timedelta(days=settings.keep_events)
    sending = {id(route.transport): route.transport for route in routes.values()}
    elsewhere = HttpTransport(AiohttpTransport(limit=4))  # connects at the first login there
    poll = partial(waiting.poll, outbox.versions)
    sweep = partial(notify.sweep, ledger, outbox, keep)
    hints = hints_for(settings, runtime, notifier, poll, log)
    if hints is not None:
        follow.add(hints.follow)
    worker = Worker(runtime, log, notifier, sweep, poll, due=role is not Role.API)
    gateway = Gateway(
        settings=settings,
        engine=engine,
        ledger=ledger,
        dispatcher=dispatcher,
        notifier=notifier,
        subscriptions=Subscriptions(ledger, outbox, keyring, notifier, allowed.url, now, entropy),
        runtime=runtime,
        worker=worker,
        transports=(*sending.values(), *carriers, elsewhere),
        log=log,
        meter=meter,
        dropped=dropped,
        desk=Desk(settings.store),
        role=role,
        sign_in=sign_in(settings, keyring, elsewhere, now, log),
        hints=hints,
    )
    gateway.web = _web(gateway, monotonic)
    return gateway


def _context(
    settings: Settings,
    keyring: Keyring,
    routes: Mapping[str, Route],
    *,
    entropy: Entropy,
    outage: Outage,
    watched: Container[UUID],
    standing: Routes,
) -> Context:
    """What decisions need to know besides the rows."""
    return Context(
        keyring=keyring,
        leases={name: route.provider.timeout + LEASE_MARGIN for name, route in routes.items()},
        unsigned=frozenset(n for n, route in routes.items() if not route.provider.signed),
        entropy=entropy,
        revokes=frozenset(name for name, route in routes.items() if route.revokes is not None),
        outage=outage,
        retention=settings.retention,
        watched=watched,
        standing=standing,
        policy=settings.policy,
    )


def _reached(runtime: Runtime, test: Realm, routes: Mapping[str, Route]) -> Runtime:
    """What test keys reach: the same parts, other routes and workflows, and no limits."""
    return replace(
        runtime,
        routes=routes,
        workflows=_workflows(test.settings),
        policy=runtime.policy.simulated,
        futures={},
        _plans={},
    )


def _web(gateway: Gateway, monotonic: Callable[[], float]) -> ASGIApp:
    """The application: its lifespan starts and stops the gateway."""
    runtime = gateway.runtime

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        await gateway.start()
        yield
        await gateway.stop()

    callers = Keys(runtime, monotonic)
    api = Api(runtime, callers)
    callbacks = Callbacks(runtime)
    subscriptions = SubscriptionCalls(gateway.subscriptions, callers)
    worker = gateway.worker if gateway.role is not Role.API else None
    ready = Readiness(runtime, worker).look
    scrape = Scrape(
        gateway.scrape,
        token=gateway.settings.metrics_token,
        public_url=gateway.settings.public_url,
    )
    console = Console(runtime, gateway.desk, gateway.subscriptions, gateway.log, gateway.sign_in)
    probes = [*Probes(ready).routes(), *scrape.routes()]
    serving = (api, callbacks, subscriptions, Streams(runtime, callers))
    calls = {path: methods for one in serving for path, methods in one.calls().items()}
    below = {**callbacks.below(), **subscriptions.below()}
    served = {**calls, **below, **{one.path: one.methods or () for one in probes}}
    pages = [*Documents(served).routes(), *console.routes()]
    rest = Starlette(
        routes=probes if gateway.role is Role.WORKER else [*probes, *pages],
        exception_handlers={
            HTTPException: worker_error if gateway.role is Role.WORKER else http_error
        },
        lifespan=lifespan,
    )
    rest.router.redirect_slashes = False  # every path has one spelling; others are a 404 problem

    def refused(call: str, code: str) -> None:
        gateway.meter.refused(call, code)
        if runtime.lately is not None:
            runtime.lately.refused(call, code)

    if gateway.role is Role.WORKER:
        return Edge(rest, {}, {}, gateway.log, refused)
    return Edge(rest, calls, below, gateway.log, refused)


def _routes(settings: Settings, carry: Carry, now: Callable[[], datetime]) -> dict[str, Route]:
    made: dict[str, Route] = {}
    for provider in settings.providers:
        if isinstance(provider, Timed):
            provider.now = now
        given = settings.routes.get(provider.name)
        traceparent = given is not None and given.traceparent
        limit = given.callback_limit if given is not None else CALLBACK_LIMIT
        made[provider.name] = Route(provider.name, provider, carry(provider), limit, traceparent)
    return made


def _simulated(test: Realm | None, now: Callable[[], datetime]) -> dict[str, Route]:
    if test is None or test.transport is None:
        return {}
    carrier = test.transport
    return _routes(test.settings, lambda _: carrier, now)


def _workflows(settings: Settings) -> dict[str, Workflow]:
    return {
        name: Workflow(
            name,
            tuple(
                Step(
                    step.channel,
                    step.routes,
                    step.patience,
                    step.until,
                    step.on_failed,
                    step.on_unknown,
                )
                for step in steps
            ),
        )
        for name, steps in settings.workflows.items()
    }


def plans(settings: Settings) -> dict[str, Plan]:
    """Every workflow as a plan, with the senders of no country in particular."""
    routes = _routes(settings, lambda _: HttpTransport(AiohttpTransport()), clock.now)
    return {name: resolve(routes, workflow, "") for name, workflow in _workflows(settings).items()}
