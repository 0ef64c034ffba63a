"""The command `gateway`: one file a group of commands; `output` is what they share."""

import typer

from gateway.cli import clients, output, serving

app = typer.Typer(
    name="gateway",
    help="Sends one-time codes, follows their delivery, falls back to the next channel, verifies "
    "them.\n\nA first look without any account: gateway demo\n\n" + output.EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serving.serve)
app.add_typer(clients.app, name="client")


def main() -> None:
    """Run the command; every foreseen failure is one message on stderr and an exit code."""
    try:
        app(prog_name="gateway")
    except Exception as error:
        telling = output.told(error)
        if telling is None:
            raise
        output.leave(*telling)
