"""`gateway purge` and `gateway erase`: what is past its time, and what a person wants forgotten."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import acts
from gateway.cli.output import Code, Config, Failure, Json, dump, say, settings, table

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.domain.audit import Act


def purge(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would go now; change nothing.")
    ] = False,
    plans: Annotated[
        bool,
        typer.Option(
            "--plans",
            help="Also delete plans that no verification follows. Reads the whole table, while "
            "sends wait: for a quiet hour.",
        ),
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Delete what is past its time, and erase old addresses.

    `serve` does the same by itself, a little at a time; this does all there is, beside it. How long
    things stay: [retention] in gateway.toml.
    """
    from gateway.app import retention

    loaded = settings(config)
    if not dry_run:
        asyncio.run(_write_down(loaded, acts.act("purge", "with plans" if plans else "")))
    done = asyncio.run(retention.would_purge(loaded) if dry_run else retention.purge(loaded))
    shown = {what: count for what, count in asdict(done).items() if what != "more"}
    if plans:
        counting = retention.count_plans if dry_run else retention.drop_plans
        shown["plans"] = asyncio.run(counting(loaded))
    if as_json:
        dump({**shown, "dry_run": dry_run})
        return
    table(("what", "would go" if dry_run else "gone"), list(shown.items()))


def erase(
    named: Annotated[
        str, typer.Argument(metavar="NUMBER_OR_ADDRESS", help="A phone number or e-mail address.")
    ],
    *,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Forget a person: erase every address, parameter and index kept under this one.

    Verifications stay, without anything that leads to the person. One whose code can still be typed
    is left alone, and the exit code is 1: run it again when that is over, ten minutes at most.
    Works while `serve` runs.
    """
    from gateway.app import retention
    from gateway.domain import addresses
    from gateway.domain.errors import InvalidInput

    loaded = settings(config)
    try:
        kind = addresses.EMAIL if "@" in named else addresses.PHONE
        address = addresses.parse(kind, named, loaded.default_region)
    except InvalidInput as error:
        raise Failure(error.detail, Code.USAGE) from None
    row = acts.act("erase", addresses.mask(address.text))
    asyncio.run(_write_down(loaded, row))
    done = asyncio.run(retention.forget(loaded, address))
    if as_json:
        dump(asdict(done))
    else:
        typer.echo(
            f"erased: {done.verifications} verifications, {done.suppressions} suppressions, "
            f"{done.counters} counters; still running: {len(done.running)}"
        )
    if done.running:
        say("A code for this address can still be typed. Run it again in ten minutes.")
        raise typer.Exit(Code.FAILED)


async def _write_down(loaded: "Settings", row: "Act") -> None:
    """Before it is done: it is done in many transactions."""
    from gateway.app import folder

    async with folder.opened(loaded) as engine:
        await acts.record(engine, row)
