"""Commands that serve until they are stopped: `serve`, `sandbox`, `demo`."""

import contextlib
from typing import Annotated, Any

import typer

from gateway.cli.output import Config, say, settings

Host = Annotated[str, typer.Option(help="The address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")]


def serve(
    *,
    config: Config = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    sandbox_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="The sandbox's port, when no routes are set.  [default: 8081]"
        ),
    ] = None,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C. Logs are JSON lines on stdout.

    Without routes in gateway.toml the sandbox plays the providers, at a port of its own.
    """
    from gateway import app, log

    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(app.bind(host, port))
        bound = app.port_of(listening)
        loaded = settings(config, public_url=f"http://{_reachable(host)}:{bound}")
        output = log.configure(loaded.log_level)
        app.make_folders(loaded)
        stack.enter_context(app.alone(loaded.data_dir))
        keyring = app.prepare(loaded)
        world = None
        if loaded.sandbox_port is not None:
            chosen = loaded.sandbox_port if sandbox_port is None else sandbox_port
            world = stack.enter_context(app.bind("127.0.0.1", chosen, "--sandbox-port"))
            loaded = app.with_sandbox(loaded, keyring, app.port_of(world))

        def started(gateway: Any, simulated: Any) -> None:
            say(f"The gateway listens on http://{_reachable(host)}:{bound}")
            if world is not None:
                say(f"The sandbox's phones: http://127.0.0.1:{app.port_of(world)}")
            if not gateway.runtime.reads.clients():
                say("A first key: gateway client add NAME")

        async def run() -> None:
            try:
                await app.serve(loaded, keyring, listening, world, started=started)
            finally:
                output.drain()

        app.run(run())


def _reachable(host: str) -> str:
    """The host as it stands in an address of this machine."""
    if host in {"0.0.0.0", ""}:  # noqa: S104  (what was asked for, not what we choose)
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
