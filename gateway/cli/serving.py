"""`serve`: the API, the console and the worker until it is stopped."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from gateway.cli.output import Code, Config, Failure, say, settings

if TYPE_CHECKING:
    from gateway.config import Settings

PORT, SANDBOX_PORT = 8080, 8081

Host = Annotated[
    str,
    typer.Option(
        metavar="HOST", help="The address to listen on; beyond this machine set public_url."
    ),
]
Port = Annotated[
    int, typer.Option(min=0, max=65535, metavar="PORT", help="The port; 0 takes a free one.")
]


def serve(
    *,
    config: Config = None,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    sandbox_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="The sandbox's port, when no routes are set; default: 8081.",
        ),
    ] = None,
    role: Annotated[
        str,
        typer.Option(
            metavar="ROLE",
            help="all; api: takes calls, hands over what it accepts; worker: what is due. "
            "PostgreSQL only.",
        ),
    ] = "all",
    workers: Annotated[
        int,
        typer.Option(min=1, max=64, metavar="N", help="Processes on one port. PostgreSQL only."),
    ] = 1,
    reuse_port: Annotated[bool, typer.Option("--reuse-port", hidden=True)] = False,
    ready_fd: Annotated[int | None, typer.Option("--ready-fd", hidden=True)] = None,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C.

    Logs are JSON lines on stdout. Without routes in gateway.toml the sandbox plays the providers,
    at a port of its own. With --workers, SIGHUP replaces the processes one after the other, which
    read gateway.toml anew.
    """
    from gateway import log
    from gateway.app import folder, process, supervisor
    from gateway.app.gateway import Role
    from gateway.store import schema

    if role not in list(Role):
        raise Failure(f"--role: there are {', '.join(Role)}", Code.USAGE)
    with contextlib.ExitStack() as stack:
        several = workers > 1
        listening = stack.enter_context(
            process.bind(host, port, shared=several or reuse_port, listen=not several)
        )
        bound = process.port_of(listening)
        address = f"http://{reachable(host)}:{bound}"
        loaded = settings(config, public_url=address)
        _check_processes(loaded, role, workers)
        output = log.configure(loaded.log_level)
        stack.callback(output.drain)
        folder.make_folders(loaded)
        stack.enter_context(folder.alone(loaded.data_dir, shared=loaded.server is not None))
        keyring = folder.prepare(loaded, migrate=schema.upgrade_apart)
        if several:
            say(f"{workers} processes serve on {address}")
            if not process.run(supervisor.supervise(_one_of(host, bound, role, config), workers)):
                raise Failure("the processes do not come up; see the log above")
            return
        world = None
        if loaded.sandbox_port is not None:
            chosen = loaded.sandbox_port if sandbox_port is None else sandbox_port
            world = stack.enter_context(process.bind("127.0.0.1", chosen, "--sandbox-port"))
        phones = f"http://127.0.0.1:{process.port_of(world)}/" if world is not None else None
        process.run(
            process.serve(
                loaded,
                keyring,
                listening,
                world,
                started=_greeting(loaded, address, role, phones, ready_fd),
                dropped=lambda: output.dropped,
                role=Role(role),
            )
        )


def _greeting(
    loaded: "Settings", address: str, role: str, phones: str | None, ready_fd: int | None
) -> Callable[[Any, Any], Awaitable[None]]:
    """What is told once it listens: to who started it, and to the supervisor of several."""
    console = _console(loaded, address)

    async def tell(gateway: Any, _: Any) -> None:
        does = "" if role == "all" else f" (role {role})"
        say(f"The gateway listens on {address}{does}")
        if role != "worker":
            say(console)
        if phones is not None:
            say(f"The sandbox's phones: {phones}")
        if not await gateway.runtime.reads.clients():
            say("A first key: gateway client add NAME")
        if ready_fd is not None:
            os.write(ready_fd, b"1")
            os.close(ready_fd)

    return tell


def _console(loaded: "Settings", address: str) -> str:
    """Where the console is, and who may come in. On this machine, with the sandbox's routes, that
    is an operator made for the run; elsewhere one that is added."""
    from gateway.cli import operators

    told = f"The console: {address}/console"
    here = urlsplit(address).hostname in {"127.0.0.1", "::1", "localhost"}
    if loaded.sandbox_port is not None and here:
        name, password = asyncio.run(operators.ready_login(loaded))
        return f"{told}   (log in as {name} with {password}, for this run)"
    if asyncio.run(operators.end_demo_login(loaded)):
        return told
    return f"{told}   (a first operator: gateway operator add NAME --role admin)"


def _check_processes(loaded: "Settings", role: str, workers: int) -> None:
    """Raises SettingsError where one process is all there can be."""
    from gateway.config import SettingsError

    if role == "all" and workers == 1:
        return
    key = "--workers" if workers > 1 else "--role"
    if loaded.server is None:
        why = "needs PostgreSQL, since one process alone serves on an SQLite file"
        raise SettingsError({key: f"{why}. Set database_url to postgresql+asyncpg://…"})
    if loaded.sandbox_port is not None:
        why = "needs routes of its own: the sandbox, which plays them now, is in one process"
        raise SettingsError({key: f"{why}. Set [routes.…]"})


def _one_of(host: str, port: int, role: str, config: Path | None) -> Callable[[int], list[str]]:
    """The command of one of several processes, which tells that file when it serves."""
    command = [sys.executable, "-m", "gateway", "serve", "--host", host, "--port", str(port)]
    command += ["--role", role, "--reuse-port"]
    if config is not None:
        command += ["--config", str(config)]
    return lambda ready_fd: [*command, "--ready-fd", str(ready_fd)]


def reachable(host: str) -> str:
    """The host as it stands in an address of this machine."""
    if host in {"0.0.0.0", ""}:  # noqa: S104  (what was asked for, not what we choose)
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
