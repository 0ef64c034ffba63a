"""Commands that only look: `show`, `routes`; `routes check` is in recorded.py."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from gateway.cli.output import Code, Config, Failure, Json, console, dump, say, settings, table

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.domain.keyring import Keyring
    from gateway.ports import Provider
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
    from gateway import app as wiring
    from gateway import config as configuration
    from gateway.cli import timeline
    from gateway.store.reads import Reads

    loaded = settings(config)
    with wiring.opened(loaded) as engine:
        keyring = configuration.load_keyring(loaded.keyring_file)
        reads = Reads(engine)
        found = _find(reads, keyring, loaded, named, 1 + history)
        shown = [_status(reads, keyring, one) for one in found]
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


def _find(
    reads: "Reads", keyring: "Keyring", loaded: "Settings", named: str, limit: int
) -> list[UUID]:
    from gateway.domain import addresses, identity
    from gateway.domain.errors import InvalidInput

    exact = identity.parse(named)
    if exact is not None:
        return [exact]
    found = reads.by_reference(None, named, limit)
    if found:
        return found
    try:
        kind = "email" if "@" in named else "phone"
        address = addresses.parse(kind, named, loaded.default_region)
    except InvalidInput:
        return []
    return reads.by_number(None, keyring.index(*addresses.indexed(address)), limit)


def _status(reads: "Reads", keyring: "Keyring", named: UUID) -> dict[str, Any]:
    """What `/otp/status` answers, and how many receipts are kept aside for its accounts."""
    import orjson

    from gateway import app as wiring
    from gateway.domain.keyring import KeyringError
    from gateway.services.case import addresses_of
    from gateway.web import schemas

    record = reads.record(named)
    if record is None:
        raise Failure("there is no such verification", Code.NOT_FOUND)
    try:
        found = addresses_of(keyring, record.verification)
    except KeyringError as error:
        say(f"The number cannot be read: {error}")
        found = None
    status: dict[str, Any] = orjson.loads(
        schemas.dumps(schemas.status(record, found, wiring.clock()))
    )
    accounts = dict.fromkeys(attempt.account for attempt in record.attempts)
    kept = {account: reads.kept_count(account) for account in accounts}
    return {**status, "receipts_kept": {name: count for name, count in kept.items() if count}}


routes_app = typer.Typer(rich_markup_mode=None)


@routes_app.callback(invoke_without_command=True)
def routes(asked: typer.Context, *, config: Config = None, as_json: Json = False) -> None:
    """List the routes.

    What each can confirm, where its receipts go, how fast it may be.
    """
    if asked.invoked_subcommand is not None:
        return
    from gateway import app as wiring

    loaded = settings(config)
    simulated = loaded.sandbox_port is not None
    if loaded.sandbox_port is not None:
        loaded = wiring.with_sandbox(loaded, wiring.no_keyring(), loaded.sandbox_port)
    shown = [_route(loaded, provider) for provider in loaded.providers]
    if as_json:
        dump(shown)
    else:
        table(
            [column.replace("_", " ") for column in shown[0]],
            [[_cell(value) for value in route.values()] for route in shown],
        )
    if simulated:
        say("These are the sandbox's: gateway.toml has no routes of its own.")


def _route(loaded: "Settings", provider: "Provider[Any, Any]") -> dict[str, Any]:
    from gateway.ports import Correlation
    from gateway.providers import PROVIDERS

    made_by: Any = type(provider)
    kind = next(name for name, chosen in PROVIDERS.items() if chosen is made_by)
    own = provider.correlates is Correlation.TOKEN
    key = "<token of the message>" if own else "<callback_key>"
    url = f"{loaded.public_url}/otp/delivered/{provider.name}/{key}"
    confirms = [state.value for state in sorted(provider.confirms, key=lambda state: state.rank)]
    return {
        "name": provider.name,
        "provider": kind,
        "channel": provider.channel,
        "account": provider.account,
        "confirms": confirms,
        "idempotent": provider.idempotent,
        "sender": provider.sender,
        "callback_url": url if confirms else None,
        "timeout": provider.timeout,
        "concurrency": provider.concurrency,
        "rate": provider.rate,
    }


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(value) or "nothing"
        case Mapping():
            return " ".join(f"{place}={sender}" for place, sender in value.items())
        case _:
            return str(value)
