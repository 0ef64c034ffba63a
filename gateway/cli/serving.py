"""Commands that serve until they are stopped: `serve`, `demo`, `sandbox`."""

import asyncio
import atexit
import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from gateway.cli.output import Code, Config, Failure, Json, console, dump, say, settings

if TYPE_CHECKING:
    from gateway.config import Settings

PORT, SANDBOX_PORT = 8080, 8081

# What the sandbox takes for its secrets when it is given none: printed, as others never are.
_OPEN = {
    "OCTOPUSH_API_KEY": "sandbox-octopush-key",
    "OCTOPUSH_CALLBACK_KEY": "sandbox-callback-key",
    "MESSENGER_TOKEN": "sandbox-messenger-token",
    "MESSENGER_SECRET": "sandbox-messenger-secret",
}

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

    if role not in list(Role):
        raise Failure(f"--role: there are {', '.join(Role)}", Code.USAGE)
    with contextlib.ExitStack() as stack:
        several = workers > 1
        listening = stack.enter_context(
            process.bind(host, port, shared=several or reuse_port, listen=not several)
        )
        bound = process.port_of(listening)
        address = f"http://{_reachable(host)}:{bound}"
        loaded = settings(config, public_url=address)
        _check_processes(loaded, role, workers)
        output = log.configure(loaded.log_level)
        stack.callback(output.drain)
        folder.make_folders(loaded)
        stack.enter_context(folder.alone(loaded.data_dir, shared=loaded.server is not None))
        keyring = folder.prepare(loaded)
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


def _reachable(host: str) -> str:
    """The host as it stands in an address of this machine."""
    if host in {"0.0.0.0", ""}:  # noqa: S104  (what was asked for, not what we choose)
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def demo(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End when the scenarios have; 0 if all were as expected.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="Of the gateway; default: 8080."),
    ] = None,
    sandbox_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="Of the sandbox; default: 8081."),
    ] = None,
    as_json: Json = False,
) -> None:
    """See the gateway at work, without any account.

    Nine scenarios are played live, then it stays up to be tried. Gateway and sandbox run on
    SQLite in a temporary folder; nothing is sent to anyone.
    """
    from gateway import config
    from gateway import demo as play
    from gateway.app import process

    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_port("gateway", port, PORT, "--port"))
        world = stack.enter_context(_port("sandbox", sandbox_port, SANDBOX_PORT, "--sandbox-port"))
        folder = Path(tempfile.mkdtemp(prefix="gateway-demo-"))
        _log_into(folder / "gateway.log")
        loaded = config.load(
            {"GATEWAY_DATA_DIR": str(folder), "GATEWAY_BRAND": "Demo"},
            public_url=f"http://127.0.0.1:{process.port_of(listening)}",
        )
        fine = False
        try:
            fine = process.run(
                play.run(loaded, listening, world, _hands(loaded, as_json=as_json), once=once)
            )
        finally:
            if fine:
                shutil.rmtree(folder)
            else:
                say(f"Database and log are kept in {folder}")
    if not fine:
        raise typer.Exit(Code.FAILED)


def _port(who: str, given: int | None, usual: int, key: str) -> socket.socket:
    """The port that was asked for, else the usual one, else a free one."""
    from gateway.app import process
    from gateway.config import SettingsError

    if given is not None:
        return process.bind("127.0.0.1", given, key)
    try:
        return process.bind("127.0.0.1", usual, key)
    except SettingsError:
        opened = process.bind("127.0.0.1", 0, key)
        say(f"Port {usual} is taken; the {who} takes {process.port_of(opened)}.")
        return opened


def _log_into(file: Path) -> None:
    """Logs go to a file, not over the display."""
    from gateway import log

    opened = file.open("ab")
    atexit.register(opened.close)  # after what `configure` registers
    log.configure("info", opened)
    logging.basicConfig(level=logging.WARNING, filename=file, force=True)


def _hands(loaded: "Settings", *, as_json: bool) -> Any:
    """What the demo cannot import, standing below this package."""
    from gateway.cli import calling, clients, operators, timeline
    from gateway.demo import Hands

    async def call(url: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        answer = await asyncio.to_thread(calling.call, url, body, key)
        return answer.status, answer.body

    async def new_key() -> str:
        _, _, key = await clients.new(loaded, "demo", "send verify status")
        return key

    async def new_login() -> tuple[str, str]:
        return await operators.ready_login(loaded)

    shown = dump if as_json else None
    return Hands(call, new_key, new_login, timeline.render, console(), shown)


def sandbox(
    *,
    host: Host = "127.0.0.1",
    port: Port = SANDBOX_PORT,
    octopush_login: Annotated[
        str, typer.Option(metavar="LOGIN", help="The login the simulated Octopush knows.")
    ] = "sandbox@example.com",
    octopush_key: Annotated[
        str, typer.Option(envvar="SANDBOX_OCTOPUSH_KEY", metavar="KEY", help="Its API key.")
    ] = _OPEN["OCTOPUSH_API_KEY"],
    callback_url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Where its receipts go; the last segment is the callback key."
        ),
    ] = f"http://127.0.0.1:{PORT}/otp/delivered/octopush/{_OPEN['OCTOPUSH_CALLBACK_KEY']}",
    messenger_token: Annotated[
        str,
        typer.Option(
            envvar="SANDBOX_MESSENGER_TOKEN",
            metavar="TOKEN",
            help="The token the messenger knows.",
        ),
    ] = _OPEN["MESSENGER_TOKEN"],
    messenger_secret: Annotated[
        str,
        typer.Option(
            envvar="SANDBOX_MESSENGER_SECRET",
            metavar="SECRET",
            help="What it signs its receipts with.",
        ),
    ] = _OPEN["MESSENGER_SECRET"],
    receipt_delay: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="Between one receipt and the next."),
    ] = 0.3,
    late: Annotated[float, typer.Option(min=0, metavar="SECONDS", help='What "late" adds.')] = 8.0,
    hang: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help='How long "hang" is.')
    ] = 30.0,
) -> None:
    """Run the sandbox alone.

    For a gateway with a gateway.toml of its own. It plays Octopush (SMS and calls) and a messenger,
    and shows the phones at its address. Prints what to put into gateway.toml. Numbers choose what
    happens: see the page.
    """
    from gateway import log
    from gateway.app import process
    from gateway.sandbox import SandboxSettings

    if urlsplit(callback_url).scheme not in {"http", "https"}:
        raise Failure("--callback-url is not an http(s) address", Code.USAGE)
    given = SandboxSettings(
        octopush_login=octopush_login,
        octopush_key=octopush_key,
        octopush_callback_url=callback_url,
        messenger_token=messenger_token,
        messenger_secret=messenger_secret,
        receipt_delay=receipt_delay,
        late=late,
        hang=hang,
    )
    log.configure("warning")
    with process.bind(host, port) as listening:
        address = f"http://{_reachable(host)}:{process.port_of(listening)}"
        process.run(process.serve_sandbox(given, listening, lambda: _introduce(given, address)))


def _introduce(given: Any, address: str) -> None:
    typer.echo(_TOML.format(address=address, login=given.octopush_login).strip())
    say()
    say("# In the environment of the gateway:")
    for name, value in (
        ("OCTOPUSH_API_KEY", given.octopush_key),
        ("OCTOPUSH_CALLBACK_KEY", given.octopush_callback_url.rpartition("/")[2]),
        ("MESSENGER_TOKEN", given.messenger_token),
        ("MESSENGER_SECRET", given.messenger_secret),
    ):
        say(f"export {name}={value if value == _OPEN[name] else '…'}")
    say()
    say(f"The sandbox's phones: {address}/")


_TOML = """
[routes.messenger]
provider = "messenger"
channel = "messenger"
base_url = "{address}/messenger/v1"
token = {{ env = "MESSENGER_TOKEN" }}
callback_secret = {{ env = "MESSENGER_SECRET" }}

[routes.octopush]
provider = "octopush"
channel = "sms"
base_url = "{address}/octopush/v1/public"
api_login = "{login}"
api_key = {{ env = "OCTOPUSH_API_KEY" }}
callback_key = {{ env = "OCTOPUSH_CALLBACK_KEY" }}
sender = "SANDBOX"

[routes.octopush_voice]
provider = "octopush"
channel = "voice"
account = "octopush"
base_url = "{address}/octopush/v1/public"
api_login = "{login}"
api_key = {{ env = "OCTOPUSH_API_KEY" }}
callback_key = {{ env = "OCTOPUSH_CALLBACK_KEY" }}

[workflows.default]
steps = [
  {{ channel = "messenger", routes = ["messenger"], patience = 60, until = "read" }},
  {{ channel = "sms", routes = ["octopush"], patience = 60, until = "delivered" }},
  {{ channel = "voice", routes = ["octopush_voice"], patience = 60, until = "delivered" }},
]
"""
