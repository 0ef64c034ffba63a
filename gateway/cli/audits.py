"""`gateway audit`: what was looked at and done, and whether the record of it is whole."""

import asyncio
import csv
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.output import Code, Config, Failure, Json, dump, say, settings

if TYPE_CHECKING:
    from gateway.domain.audit import Chain

app = typer.Typer(
    help="The audit log: who looked at what, who did what, and why.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Form(StrEnum):
    """How rows are written."""

    JSONL = "jsonl"
    CSV = "csv"


@app.command()
def verify(
    *,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER:DIGEST",
            help="A head printed before: the row has to be there, unchanged.",
        ),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check the chain: a row removed, altered or put in shows; exit code 1 then.

    Prints the head. Rows cut off at the end show only against a head that was kept elsewhere:
    give it with --head. --json prints {"rows", "head", "wrong"}.
    """
    from gateway.app import folder
    from gateway.store import audits

    async def check() -> "tuple[Chain, list[str]]":
        async with folder.opened(settings(config)) as engine:
            chain, wrong = await audits.verify(engine)
            if head is not None:
                wrong += await audits.missing(engine, head)
            return chain, wrong

    chain, wrong = asyncio.run(check())
    if as_json:
        dump({"rows": chain.rows, "head": chain.head, "wrong": wrong})
    else:
        typer.echo(f"rows  {chain.rows}\nhead  {chain.head}")
        for one in wrong:
            say(f"WRONG: {one}")
        if not wrong:
            say("The chain is whole.")
    if wrong:
        raise typer.Exit(Code.FAILED)


@app.command()
def export(
    *,
    form: Annotated[
        Form, typer.Option("--format", help="One JSON object a line, or CSV with a header.")
    ] = Form.JSONL,
    after: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Only rows after this sequence number.")
    ] = 0,
    config: Config = None,
) -> None:
    """Print the audit log on stdout, oldest row first."""
    from gateway.app import folder
    from gateway.store import audits

    async def run() -> None:
        if form is Form.CSV:
            writer = csv.writer(sys.stdout)
            writer.writerow(audits.COLUMNS)
        async with folder.opened(settings(config)) as engine:
            async for rows in audits.onward(engine, after):
                for row in rows:
                    if form is Form.CSV:
                        writer.writerow(audits.cells(row))
                    else:
                        typer.echo(audits.line(row), nl=False)

    try:
        asyncio.run(run())
    except BrokenPipeError:  # the reader has seen enough
        raise Failure("the output was closed before the end") from None
