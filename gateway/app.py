"""Wiring: Settings → Runtime → web application. The only module that knows all others."""

import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import signal
import socket
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx
import structlog
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from gateway import config
from gateway.config import InUse, Settings, SettingsError
from gateway.domain.keyring import KEY_BYTES, Keyring, KeyringError
from gateway.domain.workflow import Plan, Until
from gateway.ports import Provider, Secret, Transport
from gateway.providers import PROVIDERS
from gateway.sandbox import Sandbox, SandboxSettings
from gateway.services import dispatch, receive, reconcile, send, verify
from gateway.services.case import LEASE_MARGIN, Context, Outage, recipient_of
from gateway.services.dispatch import Dispatcher
from gateway.services.runtime import Route, Runtime, Step, Workflow, resolve
from gateway.store import schema
from gateway.store.engine import SqliteEngine, StoreError
from gateway.store.ledger import Doing, Ledger, Operation
from gateway.store.reads import Reads
from gateway.transports.http import AiohttpTransport, HttpTransport
from gateway.web.api import Api
from gateway.web.auth import Keys
from gateway.web.callbacks import Callbacks
from gateway.web.edge import Edge
from gateway.web.errors import http_error
from gateway.web.probes import Probes
from gateway.worker import Worker

T = TypeVar("T")

GRACE = 15  # seconds a clean stop gives requests and submissions under way
LATE_PASS = 10.0  # seconds without a pass after which this process is not ready


def clock() -> datetime:
    """Now, to the millisecond: what is stored is what was meant."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def doings(context: Context) -> Mapping[type[Operation[Any]], Doing]:
    """What each operation means. Facts come before deadlines; outcomes are never turned away."""

    def doing(order: int, share: float, module_wants: Any, apply: Any) -> Doing:
        def applied(tx: Any, operation: Any, now: datetime) -> Any:
            return apply(tx, context, operation, now)

        return Doing(order, share, module_wants, applied)

    return {
        dispatch.Conclude: doing(0, 2.0, dispatch.wants, dispatch.apply),
        receive.Receive: doing(1, 1.0, receive.wants, receive.apply),
        receive.Sweep: doing(1, 1.0, receive.wants_sweep, receive.apply_sweep),
        verify.Check: doing(2, 0.9, verify.wants_check, verify.apply_check),
        verify.Cancel: doing(3, 0.9, verify.wants_cancel, verify.apply_cancel),
        verify.Next: doing(4, 0.75, verify.wants_next, verify.apply_next),
        send.Accept: doing(5, 0.75, send.wants, send.apply),
        reconcile.Wake: doing(6, 2.0, reconcile.wants, reconcile.apply),
    }


@dataclass
class Gateway:
    """One process's worth of gateway, put together and not yet started."""

    settings: Settings
    engine: SqliteEngine
    ledger: Ledger
    dispatcher: Dispatcher
    runtime: Runtime
    worker: Worker
    transports: tuple[Transport, ...]
    log: Any
    web: ASGIApp = field(init=False)

    async def start(self) -> None:
        """Begin to write and to pass."""
        self.ledger.start()
        self.worker.start()

    async def stop(self) -> None:
        """Start nothing new, bring home what is on the wire, write what waits, let go."""
        await self.worker.stop()
        await self.dispatcher.drain(GRACE)
        await self.ledger.close()
        for transport in self.transports:
            if isinstance(transport, HttpTransport):
                await transport.aclose()
        self.engine.close()
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
    now: Callable[[], datetime] = clock,
    monotonic: Callable[[], float] = time.monotonic,
    after: Callable[[object], None] | None = None,
) -> Gateway:
    """Put a gateway together. `after` sees each item a committed batch left behind, before it is
    followed: a seam for tests that stop the process at a marked point."""
    log = structlog.get_logger().bind()  # bound once: the lazy proxy would bind at every line
    routes = _routes(settings, transport)
    engine = SqliteEngine(settings.database)
    reads = Reads(engine)
    dispatcher = Dispatcher(
        routes=routes,
        keyring=keyring,
        public_url=settings.public_url,
        brand=settings.brand,
        now=now,
        monotonic=monotonic,
        log=log,
    )
    outage = Outage(reconcile.gap_between(reads.mark(reconcile.PASS), now()))
    context = Context(
        keyring=keyring,
        leases={name: route.provider.timeout + LEASE_MARGIN for name, route in routes.items()},
        unsigned=frozenset(n for n, route in routes.items() if not route.provider.signed),
        entropy=os.urandom,
        outage=outage,
    )

    def follow(items: Any) -> None:
        if after is not None:
            for item in items:
                after(item)
        dispatcher.follow(items)

    ledger = Ledger(engine, doings(context), now=now, slots=dispatcher.slots, after=follow)
    dispatcher.attach(ledger)
    runtime = Runtime(
        engine=engine,
        ledger=ledger,
        reads=reads,
        keyring=keyring,
        routes=routes,
        workflows=_workflows(settings),
        public_url=settings.public_url,
        brand=settings.brand,
        default_region=settings.default_region,
        now=now,
        outage=outage,
    )
    worker = Worker(runtime, log)
    gateway = Gateway(
        settings=settings,
        engine=engine,
        ledger=ledger,
        dispatcher=dispatcher,
        runtime=runtime,
        worker=worker,
        transports=tuple({id(r.transport): r.transport for r in routes.values()}.values()),
        log=log,
    )
    gateway.web = _web(gateway, monotonic)
    return gateway


def _web(gateway: Gateway, monotonic: Callable[[], float]) -> ASGIApp:
    """The application: its lifespan starts and stops the gateway."""
    runtime = gateway.runtime

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        await gateway.start()
        yield
        await gateway.stop()

    api = Api(runtime, Keys(runtime.reads, runtime.now, monotonic))
    callbacks = Callbacks(runtime)
    ready = partial(_problems, gateway.settings, runtime.reads, gateway.worker, runtime.now)
    rest = Starlette(
        routes=Probes(ready).routes(),
        exception_handlers={HTTPException: http_error},
        lifespan=lifespan,
    )
    rest.router.redirect_slashes = False  # every path has one spelling; others are a 404 problem
    return Edge(rest, {**api.calls(), **callbacks.calls()}, callbacks.below(), gateway.log)


def _routes(settings: Settings, transport: Transport | None) -> dict[str, Route]:
    made: dict[str, Route] = {}
    for provider in settings.providers:
        carrier = transport or HttpTransport(AiohttpTransport(limit=provider.concurrency))
        made[provider.name] = Route(provider.name, provider, carrier)
    return made


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
    routes = _routes(settings, None)
    return {name: resolve(routes, workflow, "") for name, workflow in _workflows(settings).items()}


def _problems(
    settings: Settings, reads: Reads, worker: Worker, now: Callable[[], datetime]
) -> dict[str, str]:
    """What keeps this process from being ready."""
    problems = {}
    try:
        reads.soonest()
    except StoreError as error:
        problems["database"] = str(error)
    if worker.last_pass is None:
        problems["reconciler"] = "has not passed yet"
    elif (now() - worker.last_pass).total_seconds() > LATE_PASS:
        problems["reconciler"] = f"last passed at {worker.last_pass.isoformat()}"
    return problems


# The sandbox beside the gateway: the embedded default, without any account anywhere.


def with_sandbox(
    settings: Settings, keyring: Keyring, port: int, *, patience: int = 60
) -> Settings:
    """The settings with the sandbox's routes: Messenger, then SMS, then a call."""
    world = f"http://127.0.0.1:{port}"
    secret = partial(_sandbox_secret, keyring)
    octopush: dict[str, Any] = {
        "account": "octopush",
        "api_login": "sandbox@example.com",
        "api_key": secret("octopush-key"),
        "callback_key": (secret("octopush-callback"),),
        "base_url": f"{world}/octopush/v1/public",
        "sender": "SANDBOX",
    }
    providers = (
        _made(
            "messenger",
            name="messenger",
            channel="messenger",
            account="messenger",
            token=secret("messenger-token"),
            callback_secret=(secret("messenger-callback"),),
            base_url=f"{world}/messenger/v1",
        ),
        _made("octopush", name="octopush", channel="sms", **octopush),
        _made("octopush", name="octopush_voice", channel="voice", **octopush),
    )
    chain = (
        _step("messenger", "messenger", patience, Until.READ),
        _step("sms", "octopush", patience, Until.DELIVERED),
        _step("voice", "octopush_voice", patience, Until.DELIVERED),
    )
    return config.replace(settings, providers, {"default": chain, "sms": chain[1:]})


def no_keyring() -> Keyring:
    """A keyring for looking at the sandbox's routes where their secrets do not matter."""
    return Keyring("none", {"none": bytes(KEY_BYTES)}, bytes(KEY_BYTES))


def _step(channel: str, route: str, patience: int, until: Until) -> config.StepSettings:
    return config.StepSettings(channel=channel, routes=(route,), patience=patience, until=until)


def _made(kind: str, **values: Any) -> Provider:
    chosen = PROVIDERS[kind]
    return chosen(chosen.Settings(**values))


def _sandbox_secret(keyring: Keyring, purpose: str) -> Secret:
    return Secret(keyring.index("sandbox", purpose).hex())


def sandbox_settings(keyring: Keyring, public_url: str, **timing: Any) -> SandboxSettings:
    """The sandbox's side of the same accounts."""
    secret = partial(_sandbox_secret, keyring)
    return SandboxSettings(
        octopush_login="sandbox@example.com",
        octopush_key=secret("octopush-key"),
        octopush_callback_url=f"{public_url}/otp/delivered/octopush/{secret('octopush-callback')}",
        messenger_token=secret("messenger-token"),
        messenger_secret=secret("messenger-callback"),
        **timing,
    )


@contextlib.asynccontextmanager
async def sandbox(settings: SandboxSettings) -> AsyncGenerator[Sandbox]:
    """A sandbox whose receipts leave by HTTP."""
    async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:

        async def post(url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
            answer = await client.post(url, content=content, headers=dict(headers))
            return answer.status_code

        world = Sandbox(settings, post, clock)
        try:
            yield world
        finally:
            await world.aclose()


# Processes.


class _Server(uvicorn.Server):
    """A server that leaves signals to us: two of them run in one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(app: Any, *, grace: int = GRACE) -> uvicorn.Server:
    """A uvicorn server for an application, to be served on a socket that is bound already."""
    return _Server(
        uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,  # addresses come from settings and callers, never from headers
            timeout_graceful_shutdown=grace,
            lifespan="auto",
        )
    )


def bind(host: str, port: int, key: str = "--port") -> socket.socket:
    """A listening socket. Raises SettingsError when the port is taken or not ours to take."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        about_port = error.errno in {errno.EADDRINUSE, errno.EACCES}
        hint = "Choose another port" if about_port else "Check the host"
        problem = f"cannot listen on {host}:{port}: {error.strerror}. {hint}"
        raise SettingsError({key: problem}) from None
    opened.listen(2048)
    return opened


def port_of(opened: socket.socket) -> int:
    """The port a socket is bound to."""
    return int(opened.getsockname()[1])


def prepare(settings: Settings) -> Keyring:
    """Data folder, keyring and schema, made on the first start of the embedded default.

    Raises SettingsError when one of them is not usable, and for a schema that is not current.
    """
    make_folders(settings)
    check_schema(settings.database, migrate_new=True)
    problem = keyring_problem(settings)
    if problem is not None:
        raise SettingsError({str(settings.keyring_file): problem})
    return config.load_keyring(settings.keyring_file, create=True)


def keyring_problem(settings: Settings) -> str | None:
    """Why the keyring must not be used with the database, asked of its newest verification.

    Raises SettingsError when it cannot be read.
    """
    file = settings.keyring_file
    if config.proposed_keyring(file).exists():
        return "an index key was being replaced. Finish it: gateway keys reindex"
    engine = SqliteEngine(settings.database)
    try:
        reads = Reads(engine)
        newest = [record.verification for record in reads.records(reads.latest(1), log=False)]
    finally:
        engine.close()
    if not file.exists():
        lost = "is missing, and the database holds verifications that need it. Put it back"
        return lost if newest else None
    keyring = config.load_keyring(file)
    for current in newest:
        try:
            number = recipient_of(keyring, current)
        except KeyringError as error:
            return f"is not the one of this database: {error}"
        if number is not None and keyring.index("phone", number) != current.recipient_index:
            return "is not the one of this database: its index key is another"
    return None


def make_folders(settings: Settings) -> None:
    """The folders of the data and of the database. Raises SettingsError for an unusable one."""
    for folder in dict.fromkeys((settings.data_dir, settings.database.parent)):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            problem = f"{folder} cannot be written to: {error.strerror}"
            raise SettingsError({"data_dir": problem}) from None


def check_schema(database: Path, *, migrate_new: bool = False) -> None:
    """Raise SettingsError unless the schema is current; a new database is migrated on request."""
    try:
        found, wanted = schema.current(database), schema.head()
        if found is None and migrate_new:
            schema.upgrade(database)
            return
    except StoreError as error:
        raise SettingsError({"database_url": str(error)}) from None
    if found != wanted:
        state = "has no schema" if found is None else f"is at migration {found}, not {wanted}"
        problem = f"{database} {state}. Run: gateway migrate"
        raise SettingsError({"database_url": problem})


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[IO[str]]:
    """The lock of a data folder: one process serves, or replaces the index key.

    Raises SettingsError when another process has it.
    """
    try:
        lock = (folder / "gateway.lock").open("w")
    except OSError as error:
        problem = f"{folder} cannot be written to: {error.strerror}"
        raise SettingsError({"data_dir": problem}) from None
    with lock as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            problem = f"{folder} is in use by a running `gateway serve`. Stop it, or use another"
            raise InUse({"data_dir": problem}) from None
        yield opened


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end on the loop that production runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def serve(
    settings: Settings,
    keyring: Keyring,
    listening: socket.socket,
    world: socket.socket | None,
    *,
    started: Callable[[Gateway, Sandbox | None], None] | None = None,
    timing: Mapping[str, Any] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT: the gateway and, with a socket for it, the sandbox.

    The sandbox ends last, so that submissions under way are answered.
    """
    stop = stop_signal()
    async with contextlib.AsyncExitStack() as stack:
        simulated = None
        if world is not None:
            given = sandbox_settings(keyring, settings.public_url, **(timing or {}))
            simulated = await stack.enter_async_context(sandbox(given))
            await stack.enter_async_context(served(simulated.app, world, grace=1))
        gateway = build(settings, keyring)
        async with served(gateway.web, listening):
            if started is not None:
                started(gateway, simulated)
            await stop.wait()


async def serve_sandbox(
    settings: SandboxSettings, listening: socket.socket, started: Callable[[], None]
) -> None:
    """Serve a sandbox alone, until SIGTERM or SIGINT."""
    stop = stop_signal()
    async with sandbox(settings) as world, served(world.app, listening, grace=1):
        started()
        await stop.wait()


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    # What is loaded now stays; the collector need not walk it every few hundred objects.
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


@contextlib.asynccontextmanager
async def served(app: Any, listening: socket.socket, *, grace: int = GRACE) -> AsyncGenerator[None]:
    """An application served on a socket for as long as the block lasts."""
    running = server(app, grace=grace)
    task = asyncio.get_running_loop().create_task(running.serve(sockets=[listening]))
    while not running.started and not task.done():  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    if task.done():
        await task
        raise SettingsError({"serve": "the application did not start; see the log above"})
    try:
        yield
    finally:
        running.should_exit = True
        await task
