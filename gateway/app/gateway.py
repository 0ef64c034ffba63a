"""One process's worth of gateway: what it holds, how it starts and stops. `wiring` makes it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from starlette.types import ASGIApp

from gateway.app.carriers import Starts
from gateway.config import Settings
from gateway.metrics import PrometheusMeter, Sampler, Standing
from gateway.ports import Transport
from gateway.services import health, reconcile
from gateway.services.dispatch import Dispatcher
from gateway.services.hints import Hints
from gateway.services.notify import Notifier
from gateway.services.oidc import SignIn
from gateway.services.runtime import Runtime
from gateway.services.subscriptions import Subscriptions
from gateway.store.desk import Desk
from gateway.store.engine import Engine
from gateway.store.ledger import Ledger
from gateway.transports.http import HttpTransport
from gateway.transports.smtp import SmtpTransport
from gateway.worker import Worker

GRACE = 15  # seconds a clean stop gives requests and submissions under way


class Role(StrEnum):
    """What a process does: all of it, only the API and what it accepts, or only what is due."""

    ALL = "all"
    API = "api"
    WORKER = "worker"


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
