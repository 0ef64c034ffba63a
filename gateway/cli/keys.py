"""`gateway keys`: the keyring, under which numbers are kept and codes are made."""

import asyncio
from typing import TYPE_CHECKING

import typer

from gateway.cli import acts
from gateway.cli.output import Config, Json, dump, say, settings

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.store.upkeep import Reindexed

app = typer.Typer(
    help="The keyring, under which numbers are kept and codes are made.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def rotate(*, config: Config = None, as_json: Json = False) -> None:
    """Make a new key the current one. Older ones are kept for what was stored under them.

    The index key does not rotate with it; see `gateway keys reindex`.
    """
    from gateway.app import folder, keyring_file
    from gateway.cli.clients import make_ready

    loaded = settings(config)
    file = loaded.keyring_file
    keyring_file.load(file)
    make_ready(loaded)

    async def write_down() -> None:
        async with folder.opened(loaded) as engine:
            await acts.record(engine, acts.act("keys rotate", file.name))

    asyncio.run(write_down())
    name = keyring_file.rotate(file)
    if as_json:
        dump({"current": name, "keyring": str(file)})
    else:
        typer.echo(f"{name} is the current key of {file}")
    say("A running gateway goes on with the old one: restart `gateway serve`.")


@app.command()
def reindex(*, config: Config = None, as_json: Json = False) -> None:
    """Replace the index key. Stop `serve` first.

    By the index key verifications are found by number. Every index is made anew in one transaction.
    Interrupted at any point, run it again: until then `serve` refuses to start. Limits counted per
    number begin anew, and Idempotency-Keys are all unused; verifications whose recipient has been
    erased are not found by number any more.
    """
    from gateway.app import folder

    loaded = settings(config)
    folder.check_schema(loaded.store)
    with folder.alone(loaded.data_dir):
        done = _reindex(loaded)
    if as_json:
        dump(done)
        return
    if done is None:
        typer.echo("the interrupted replacement of the index key is finished")
        return
    typer.echo(
        f"indexes made anew: {done.made_anew}; counters dropped: {done.counters}; not found by "
        f"number any more, their recipients being erased: {done.erased}"
    )


def _reindex(loaded: "Settings") -> "Reindexed | None":
    """First the new key beside the old, then the rows, then the new key in the old one's place.

    Whichever of the last two a crash kept from happening, a row tells which key it was made with.
    None: the rows were done already.
    """
    from gateway.app import folder, keyring_file
    from gateway.domain.keyring import KeyringError
    from gateway.store import upkeep
    from gateway.store.engine import StoreError

    file = loaded.keyring_file
    keyring = keyring_file.load(file)
    interrupted = keyring_file.proposed(file).exists()
    if not interrupted:
        keyring_file.propose_index_key(file)
    renewed = keyring_file.load(keyring_file.proposed(file))

    async def renew() -> "Reindexed | None":
        async with folder.opened(loaded) as engine:
            if interrupted and await upkeep.indexed_by(engine, renewed):
                return None
            try:
                await acts.record(engine, acts.act("keys reindex", file.name))
                return await upkeep.reindex(engine, keyring, renewed)
            except (StoreError, KeyringError):  # surely not stored; anything else cannot be told
                keyring_file.forget_index_key(file)
                raise

    done = asyncio.run(renew())
    keyring_file.adopt_index_key(file)
    return done
