"""The command `gateway`: one file a group of commands; `output` is what they share."""

from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import (
    audits,
    calling,
    checking,
    clients,
    describing,
    guarding,
    keys,
    operators,
    output,
    playing,
    recorded,
    retention,
    routing,
    serving,
    sheets,
    showing,
    subscriptions,
    templates,
)

app = typer.Typer(
    name="gateway",
    help="Sends one-time codes, follows their delivery, falls back to the next channel, verifies "
    "them.\n\nA first look, without any account: gateway demo",
    epilog=output.EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, in two thirds of the time
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serving.serve)
app.command()(playing.demo)
app.command()(playing.sandbox)
app.command()(checking.migrate)
app.command()(checking.check)
routing.app.command()(recorded.check)
routing.app.command(hidden=True)(sheets.sheets)
app.add_typer(routing.app, name="routes")
app.command()(calling.send)
app.command()(describing.openapi)
app.command()(showing.show)
app.command()(retention.purge)
app.command()(retention.erase)
app.add_typer(clients.app, name="client")
app.add_typer(keys.app, name="keys")
app.add_typer(templates.app, name="templates")
app.add_typer(subscriptions.app, name="subscription")
app.add_typer(operators.app, name="operator")
app.add_typer(audits.app, name="audit")
app.add_typer(guarding.app, name="guard")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gateway {__version__}")
        raise typer.Exit


@app.callback()
def _gateway(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What comes before a command."""


def main() -> None:
    """Run the command; every foreseen failure is one message on stderr and an exit code."""
    try:
        app(prog_name="gateway")
    except Exception as error:
        telling = output.told(error)
        if telling is None:
            raise
        output.leave(*telling)
