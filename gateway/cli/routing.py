"""`gateway routes`: what each route can do and how it stands; switched off and on by hand."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import acts
from gateway.cli.output import Code, Config, Failure, Json, dump, say, settings, table

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.domain.health import RouteState, Tally
    from gateway.ports import Provider

app = typer.Typer(
    help="The routes: what each can do, how it stands; switch one off and on.",
    rich_markup_mode=None,
)
_COLUMNS = (
    "name",
    "provider",
    "channel",
    "account",
    "state",
    "confirms",
    "correlates",
    "idempotent",
    "validity",
    "polls",
    "revokes",
    "cost",
    "sender",
)
_ORDERS = {"enabled": "enable", "disabled": "disable", "pinned": "pin"}  # as the console's acts
# Where receipts go of a route without a callback URL, by how they find their attempts.
_NO_ADDRESS = {
    "token": "an address of each message's own",
    "reference": "no address: they come over the session",
}
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the route.")]
Why = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; shown in `gateway routes`.")
]


@app.callback(invoke_without_command=True)
def routes(asked: typer.Context, *, config: Config = None, as_json: Json = False) -> None:
    """List the routes.

    How each stands, what it can confirm and do, how its receipts are known to be genuine, and the
    callback URL to enter at the provider. --json tells more: limits, and what was heard lately.
    """
    if asked.invoked_subcommand is not None:
        return
    loaded, simulated = _loaded(config)
    states, heard = asyncio.run(_known(loaded))
    shown = [
        _shown(loaded, one, states.get(one.name), heard.get(one.name)) for one in loaded.providers
    ]
    if as_json:
        dump(shown)
    else:
        table(_COLUMNS, [[_cell(route[column]) for column in _COLUMNS] for route in shown])
        typer.echo()
        table(
            ("account", "receipts go to", "known to be genuine by"),
            _addresses(shown),
        )
    if simulated:
        say("These are the sandbox's: gateway.toml has no routes of its own.")


@app.command()
def disable(name: Name, *, reason: Why, config: Config = None) -> None:
    """Send nothing over a route until it is enabled again.

    A running gateway notices within two seconds. Codes that are on their way are still verified.
    """
    _order(config, name, reason, "disabled")


@app.command()
def enable(name: Name, *, reason: Why = "enabled", config: Config = None) -> None:
    """Use a route again, whether an operator or its own failures had stopped it.

    What was counted before is not held against it.
    """
    _order(config, name, reason, "enabled")


@app.command()
def pin(name: Name, *, reason: Why, config: Config = None) -> None:
    """Use a route whatever its breaker thinks, until it is enabled or disabled.

    For a route there is no other for, or a provider that is known to fail for a reason of ours.
    """
    _order(config, name, reason, "pinned")


def _order(file: Any, name: str, reason: str, order: str) -> None:
    from gateway.app import clock, folder
    from gateway.domain import health
    from gateway.store import writes

    loaded, _ = _loaded(file)
    if name not in {provider.name for provider in loaded.providers}:
        raise Failure(f"there is no route {name!r}; see: gateway routes", Code.NOT_FOUND)
    if not reason.strip() or len(reason) > 200 or not reason.isprintable():
        raise Failure("--reason must be 1 to 200 printable characters", Code.USAGE)
    make = {"enabled": health.enabled, "disabled": health.disabled, "pinned": health.pinned}[order]
    state = make(name, reason, acts.user(), clock.now())

    done = acts.act(f"route {_ORDERS[order]}", name, reason)

    async def write() -> None:
        async with folder.opened(loaded) as engine:
            await acts.record(engine, done, work=lambda one: writes.order_routes(one, [state]))

    asyncio.run(write())
    say(f"{name} is {order}" if reason == order else f"{name} is {order}: {reason}")


def _loaded(file: Any) -> "tuple[Settings, bool]":
    """The settings with their routes, and whether these are the sandbox's."""
    from gateway.app import sandboxed

    loaded = settings(file)
    if loaded.sandbox_port is None:
        return loaded, False
    ports = sandboxed.Ports(loaded.sandbox_port)
    return sandboxed.with_sandbox(loaded, sandboxed.no_keyring(), ports), True


async def _known(loaded: "Settings") -> "tuple[dict[str, RouteState], dict[str, Tally]]":
    """How the routes stand and what was heard of them, where there is a database yet."""
    from gateway.app import clock, folder
    from gateway.domain import health
    from gateway.domain.health import Tally
    from gateway.store.reads import Reads

    if loaded.server is None and not loaded.database.exists():
        return {}, {}
    async with folder.opened(loaded) as engine:
        reads = Reads(engine)
        states = {state.route: state for state in await reads.route_states()}
        heard: dict[str, Tally] = {}
        for route, _, tally in await reads.route_sums(health.bucket(clock.now()) - health.BUCKET):
            heard[route] = heard.get(route, Tally()).plus(tally)
        return states, heard


def _shown(
    loaded: "Settings",
    provider: "Provider[Any, Any]",
    state: "RouteState | None",
    heard: "Tally | None",
) -> dict[str, Any]:
    from gateway.domain.health import Tally
    from gateway.providers import PROVIDERS
    from gateway.services.runtime import polls, revokes

    made_by: Any = type(provider)
    kind = next(name for name, chosen in PROVIDERS.items() if chosen is made_by)
    confirms = [one.value for one in sorted(provider.confirms, key=lambda one: one.rank)]
    given = loaded.routes.get(provider.name)
    return {
        "name": provider.name,
        "provider": kind,
        "channel": provider.channel,
        "account": provider.account,
        "state": _state(state),
        "since": state.since if state is not None else None,
        "reason": state.reason if state is not None else None,
        "by": state.actor if state is not None else None,
        "probe_at": state.probe_at if state is not None else None,
        "heard": (heard or Tally())._asdict(),
        "confirms": confirms,
        "correlates": provider.correlates.value,
        "idempotent": provider.idempotent,
        "validity": provider.validity,
        "polls": polls(provider),
        "revokes": revokes(provider),
        "cost": provider.sheet.cost or None,
        "sender": provider.sender,
        "proof": provider.sheet.proof,
        "setup": list(provider.sheet.setup),
        "callback_url": callback_url(provider, loaded.public_url) if confirms else None,
        "timeout": provider.timeout,
        "concurrency": provider.concurrency,
        "rate": provider.rate,
        "callback_limit": given.callback_limit if given is not None else None,
    }


def callback_url(provider: "Provider[Any, Any]", public_url: str) -> str | None:
    """What to enter at the provider; None where each message brings its own."""
    pattern = provider.sheet.callback
    if not pattern:
        return None
    return pattern.format(public_url=public_url, route=provider.name, key="<callback_key>")


def _state(state: "RouteState | None") -> str:
    return state.standing.value if state is not None else "ready"


def _addresses(shown: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """By account: its routes share its URL, so that the first of them serves all."""
    rows: dict[str, tuple[str, str, str]] = {}
    for route in shown:
        if route["confirms"]:
            url = route["callback_url"] or _NO_ADDRESS.get(route["correlates"], "no address")
            rows.setdefault(route["account"], (route["account"], url, route["proof"]))
    return list(rows.values())


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
