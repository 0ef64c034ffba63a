"""Commands that play, and send nothing to anyone: `demo`, `sandbox`."""

import asyncio
import atexit
import contextlib
import logging
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from gateway.cli.output import Code, Failure, Json, console, dump, say
from gateway.cli.serving import PORT, SANDBOX_PORT, Host, Port, reachable

if TYPE_CHECKING:
    from gateway.config import Settings

# What the sandbox takes for its secrets when it is given none: printed, as others never are.
OPEN = {
    "OCTOPUSH_API_KEY": "sandbox-octopush-key",
    "OCTOPUSH_CALLBACK_KEY": "sandbox-callback-key",
    "MESSENGER_TOKEN": "sandbox-messenger-token",
    "MESSENGER_SECRET": "sandbox-messenger-secret",
}


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
    ] = OPEN["OCTOPUSH_API_KEY"],
    callback_url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Where its receipts go; the last segment is the callback key."
        ),
    ] = f"http://127.0.0.1:{PORT}/otp/delivered/octopush/{OPEN['OCTOPUSH_CALLBACK_KEY']}",
    messenger_token: Annotated[
        str,
        typer.Option(
            envvar="SANDBOX_MESSENGER_TOKEN",
            metavar="TOKEN",
            help="The token the messenger knows.",
        ),
    ] = OPEN["MESSENGER_TOKEN"],
    messenger_secret: Annotated[
        str,
        typer.Option(
            envvar="SANDBOX_MESSENGER_SECRET",
            metavar="SECRET",
            help="What it signs its receipts with.",
        ),
    ] = OPEN["MESSENGER_SECRET"],
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
        address = f"http://{reachable(host)}:{process.port_of(listening)}"
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
        say(f"export {name}={value if value == OPEN[name] else '…'}")
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
