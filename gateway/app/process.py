"""One process: its sockets, servers, signals, and a stop that loses nothing."""

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

import uvicorn
import uvloop

from gateway.app.gateway import GRACE, Gateway, Role
from gateway.app.routes import Realm
from gateway.app.sandboxed import Ports, sandbox, sandbox_settings, with_sandbox
from gateway.app.test_keys import inside
from gateway.app.wiring import build
from gateway.config import Settings, SettingsError
from gateway.domain.keyring import Keyring
from gateway.sandbox import Sandbox, SandboxSettings
from gateway.web.wire import OneWrite, sweep

T = TypeVar("T")


class _Server(uvicorn.Server):
    """A server that leaves signals to us, for two of them run in one process, and looks after its
    connections."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if counter % 10 == 0:
            sweep(self.server_state.connections)
        return await super().on_tick(counter)


def server(app: Any, *, grace: int = GRACE) -> uvicorn.Server:
    """A uvicorn server for an application, to be served on a socket that is bound already."""
    return _Server(
        uvicorn.Config(
            app,
            loop="none",
            http=OneWrite,
            ws="none",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,  # addresses come from settings and callers, never from headers
            timeout_graceful_shutdown=grace,
            lifespan="auto",
        )
    )


def bind(
    host: str, port: int, key: str = "--port", *, shared: bool = False, listen: bool = True
) -> socket.socket:
    """A listening socket. Raises SettingsError when the port is taken or not ours to take.

    `shared`: other processes of ours may have one on the same port. Without `listen` the port is
    only kept for them.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        about_port = error.errno in {errno.EADDRINUSE, errno.EACCES}
        hint = "Choose another port" if about_port else "Check the host"
        problem = f"cannot listen on {host}:{port}: {error.strerror}. {hint}"
        raise SettingsError({key: problem}) from None
    if listen:
        opened.listen(2048)
    return opened


def port_of(opened: socket.socket) -> int:
    """The port a socket is bound to."""
    return int(opened.getsockname()[1])


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
    started: Callable[[Gateway, Sandbox | None], Awaitable[None]] | None = None,
    timing: Mapping[str, Any] | None = None,
    dropped: Callable[[], int] = int,
    role: Role = Role.ALL,
) -> None:
    """Serve until SIGTERM or SIGINT: the gateway and, with a socket for it, the sandbox. Raises
    RuntimeError when the ledger ended by itself: whoever runs us starts another process.

    The sandbox ends last, so that submissions under way are answered.
    """
    stop = stop_signal()
    async with contextlib.AsyncExitStack() as stack:
        simulated = None
        if world is not None:
            simulated, settings = await stack.enter_async_context(
                beside(settings, keyring, world, timing=timing or {})
            )
            realm = Realm(settings)  # the sandbox is what is configured: for both kinds of keys
            gateway = build(settings, keyring, test=realm, dropped=dropped, role=role)
        else:
            own = await stack.enter_async_context(inside(settings, keyring))
            gateway = build(settings, keyring, test=own.realm, dropped=dropped, role=role)
            own.attach(gateway.web)
        async with served(gateway.web, listening, leaving=gateway.leave):
            if started is not None:
                await started(gateway, simulated)
            await _either(stop, gateway.ledger.ended)
            if gateway.ledger.ended.is_set():
                raise RuntimeError("the ledger has ended; what it said is in the log above")


async def _either(*events: asyncio.Event) -> None:
    """Until one of them is set."""
    waits = {asyncio.ensure_future(event.wait()) for event in events}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


@contextlib.asynccontextmanager
async def beside(
    settings: Settings,
    keyring: Keyring,
    world: socket.socket,
    *,
    timing: Mapping[str, Any],
    **patience: int,
) -> AsyncGenerator[tuple[Sandbox, Settings]]:
    """The sandbox, listening, and the settings with its routes; `patience`: see `with_sandbox`."""
    port = port_of(world)
    given = sandbox_settings(keyring, settings.public_url, port, **timing)
    async with sandbox(given) as simulated, served(simulated.app, world, grace=1):
        ports = Ports(port, await simulated.smsc.start(), await simulated.serve_mail())
        yield simulated, with_sandbox(settings, keyring, ports, **patience)


async def serve_sandbox(
    settings: SandboxSettings, listening: socket.socket, started: Callable[[], None]
) -> None:
    """Serve a sandbox alone, until SIGTERM or SIGINT."""
    stop = stop_signal()
    async with sandbox(settings) as world, served(world.app, listening, grace=1):
        started()
        await stop.wait()


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM or SIGINT. Called once, by who is about to serve for long."""
    _settle()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


@contextlib.asynccontextmanager
async def served(
    app: Any,
    listening: socket.socket,
    *,
    grace: int = GRACE,
    leaving: Callable[[], None] = lambda: None,
) -> AsyncGenerator[None]:
    """An application served on a socket for as long as the block lasts. `leaving` is called before
    the server waits for its callers to go."""
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
        leaving()
        running.should_exit = True
        await task


def _settle() -> None:
    """Python's settings for a process that has loaded what it needs."""
    # What is loaded now stays; the collector need not walk it every few hundred objects.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    # The thread that commits waits for a busy loop before it can say so: 1 ms, not 5, since all who
    # wait for that commit wait with it.
    sys.setswitchinterval(0.001)
