"""Commands that only look: `show`, `routes`; `routes check` is in recorded.py."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from gateway.cli import acts
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

    Of a number or reference the latest. Works beside a running `serve` and changes nothing but the
    audit log, where the look is written down. Numbers are shown masked, codes never.
    """
    from gateway.app import folder, keyring_file
    from gateway.cli import timeline
    from gateway.store.reads import Reads

    loaded = settings(config)

    async def look() -> list[dict[str, Any]]:
        async with folder.opened(loaded) as engine:
            keyring = keyring_file.load(loaded.keyring_file)
            reads = Reads(engine)
            what, found = await _find(reads, keyring, loaded, named, 1 + history)
            if not found:
                await acts.record(engine, acts.act("search", f"{what}: 0 found"))
                return []
            looked = [await _status(reads, keyring, one) for one in found]
            looks = (
                acts.act("look", one["recipient"] or "erased", subject=one["verification_id"])
                for one in looked
            )
            await acts.record(engine, *looks)
            return looked

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
) -> tuple[str, list[UUID]]:
    """What was looked for, in words that hold no number, and what was found: newest first."""
    from gateway.domain import addresses, identity, recipient
    from gateway.domain.errors import InvalidInput

    exact = identity.parse(named)
    if exact is not None:
        return str(exact), [exact]
    found = await reads.by_reference(None, named, limit)
    if found:
        return recipient.redact(named), found
    try:
        kind = "email" if "@" in named else "phone"
        address = addresses.parse(kind, named, loaded.default_region)
    except InvalidInput:
        return addresses.mask(recipient.redact(named))[:60], []
    index = keyring.index(*addresses.indexed(address))
    return addresses.mask(address.text), await reads.by_number(None, index, limit)


async def _status(reads: "Reads", keyring: "Keyring", named: UUID) -> dict[str, Any]:
    """What `/otp/status` answers, and how many receipts are kept aside for its accounts."""
    import orjson

    from gateway.app import clock
    from gateway.domain import health
    from gateway.domain.keyring import KeyringError
    from gateway.services.case import addresses_of
    from gateway.web import bodies

    record = await reads.record(named)
    if record is None:
        raise Failure("there is no such verification", Code.NOT_FOUND)
    try:
        found = addresses_of(keyring, record.verification)
    except KeyringError as error:
        say(f"The number cannot be read: {error}")
        found = None
    now = clock.now()
    shut = health.shut(await reads.route_states(), now)
    status: dict[str, Any] = orjson.loads(bodies.dumps(bodies.status(record, found, now, shut)))
    accounts = dict.fromkeys(attempt.account for attempt in record.attempts)
    kept = {account: await reads.kept_count(account) for account in accounts}
    return {**status, "receipts_kept": {name: count for name, count in kept.items() if count}}
