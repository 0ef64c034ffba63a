"""Commands that only look: `show`, `routes`; `routes check` is in recorded.py."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from gateway.cli.output import Code, Config, Failure, Json, console, dump, say, settings

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.domain.keyring import Keyring
    from gateway.store.reads import Reads


def show(
    named: Annotated[
        str,
        typer.Argument(
            metavar="NUMBER_OR_ID",
            help="A phone number, e-mail address, a verification's id, or its reference.",
        ),
    ],
    *,
    history: Annotated[
        int, typer.Option(min=0, max=50, metavar="COUNT", help="So many earlier ones as well.")
    ] = 0,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what became of a verification.

    Of a number or reference the latest. Reads the database beside a running `serve` and changes
    nothing. Numbers are shown masked, codes never.
    """
    from gateway.app import folder, keyring_file
    from gateway.cli import timeline
    from gateway.store.reads import Reads

    loaded = settings(config)

    async def look() -> list[dict[str, Any]]:
        async with folder.opened(loaded) as engine:
            keyring = keyring_file.load(loaded.keyring_file)
            reads = Reads(engine)
            found = await _find(reads, keyring, loaded, named, 1 + history)
            return [await _status(reads, keyring, one) for one in found]

    shown = asyncio.run(look())
    if not shown:
        raise Failure("there is no such verification", Code.NOT_FOUND)
    if as_json:
        dump({**shown[0], "history": shown[1:]} if history else shown[0])
        return
    out = console()
    for at, status in enumerate(shown):
        if at:
            out.print()
        timeline.render(status, out)


async def _find(
    reads: "Reads", keyring: "Keyring", loaded: "Settings", named: str, limit: int
) -> list[UUID]:
    from gateway.domain import addresses, identity
    from gateway.domain.errors import InvalidInput

    exact = identity.parse(named)
    if exact is not None:
        return [exact]
    found = await reads.by_reference(None, named, limit)
    if found:
        return found
    try:
        kind = "email" if "@" in named else "phone"
        address = addresses.parse(kind, named, loaded.default_region)
    except InvalidInput:
        return []
    return await reads.by_number(None, keyring.index(*addresses.indexed(address)), limit)


async def _status(reads: "Reads", keyring: "Keyring", named: UUID) -> dict[str, Any]:
    """What `/otp/status` answers, and how many receipts are kept aside for its accounts."""
    import orjson

    from gateway.app import clock
    from gateway.domain.keyring import KeyringError
    from gateway.services.case import addresses_of
    from gateway.web import schemas

    record = await reads.record(named)
    if record is None:
        raise Failure("there is no such verification", Code.NOT_FOUND)
    try:
        found = addresses_of(keyring, record.verification)
    except KeyringError as error:
        say(f"The number cannot be read: {error}")
        found = None
    status: dict[str, Any] = orjson.loads(schemas.dumps(schemas.status(record, found, clock.now())))
    accounts = dict.fromkeys(attempt.account for attempt in record.attempts)
    kept = {account: await reads.kept_count(account) for account in accounts}
    return {**status, "receipts_kept": {name: count for name, count in kept.items() if count}}
