"""`gateway subscription`: where clients want their events."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from gateway.cli import acts
from gateway.cli.output import Code, Config, Failure, Json, dump, say, settings, table

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.domain.audit import Act
    from gateway.store.engine import Engine
    from gateway.store.outbox import Rotated, Subscription

    _Listed = tuple[dict[UUID, str], list[tuple[Subscription, int]]]

T = TypeVar("T")

app = typer.Typer(
    help="Where clients want their events.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
SubscriptionId = Annotated[
    str,
    typer.Argument(metavar="SUBSCRIPTION_ID", help="As `gateway subscription list` shows it."),
]
_SOON = "A running gateway learns it within five seconds."


@app.command()
def add(
    client: Annotated[str, typer.Argument(metavar="CLIENT", help="A client's name or id.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="Where its events are to be posted.")],
    *,
    kinds: Annotated[
        str,
        typer.Option(metavar="WORDS", help="verification.sent, verification.verified…; all."),
    ] = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Subscribe a client to its events and print the secret that signs them, once.

    --json prints {"subscription_id", "secret"}.
    """
    import os

    from gateway.app import clock
    from gateway.domain.errors import InvalidInput
    from gateway.domain.networks import Allowed
    from gateway.services import subscriptions

    loaded = settings(config)

    async def work(engine: "Engine", keyring: Any) -> tuple["Subscription", str]:
        owner = await _client(engine, client)
        allows = Allowed.parse(loaded.webhook_allow).url
        try:
            subscriptions.check_url(url, allows)
            wanted = subscriptions.check_kinds(kinds.replace(",", " ").split())
        except InvalidInput as error:
            raise Failure(error.detail, Code.USAGE) from None
        now = clock.now()
        made, secret = subscriptions.new(keyring, owner, url, wanted, now=now, entropy=os.urandom)
        done = acts.act("subscription add", f"{client}, {made.id}", subject=owner)
        await _write(engine, made, done=done)
        return made, secret

    made, secret = _do(loaded, work)
    if as_json:
        dump({"subscription_id": made.id, "secret": secret})
        return
    typer.echo(f"subscription  {made.id}\nsecret        {secret}")
    say(f"The secret is shown this once. {_SOON}")


@app.command("list")
def list_(*, config: Config = None, as_json: Json = False) -> None:
    """List the subscriptions, and what is wrong with them."""
    from gateway.store import upkeep
    from gateway.store.outbox import OutboxReads

    async def work(engine: "Engine", _: Any) -> "_Listed":
        reads = OutboxReads(engine)
        names = {client.id: client.name for client, _ in await upkeep.clients(engine)}
        found = [(one, await reads.undelivered(one.id)) for one in await reads.subscriptions()]
        return names, found

    names, found = _do(settings(config), work)
    if as_json:
        dump([_shown(one, names[one.client_id], left) for one, left in found])
        return
    table(
        ("subscription", "client", "undelivered", "state", "url"),
        [(one.id, names[one.client_id], left, _state(one), one.url) for one, left in found],
    )


@app.command()
def remove(named: SubscriptionId, *, config: Config = None) -> None:
    """Remove a subscription and all that waits for it."""
    from gateway.store.outbox import Removed

    async def work(engine: "Engine", _: Any) -> None:
        one = await _found(engine, named)
        await _write(engine, Removed(one.id), done=_act("remove", one))

    _do(settings(config), work)
    say(f"removed: {named}. {_SOON}")


@app.command()
def rotate(named: SubscriptionId, *, config: Config = None, as_json: Json = False) -> None:
    """Replace the secret and print the new one, once. For a day both sign."""
    import os

    from gateway.app import clock
    from gateway.services import subscriptions

    async def work(engine: "Engine", keyring: Any) -> "tuple[Rotated, str]":
        current = await _found(engine, named)
        changed, secret = subscriptions.rotate(
            keyring, current, now=clock.now(), entropy=os.urandom
        )
        await _write(engine, changed, done=_act("rotate", current))
        return changed, secret

    changed, secret = _do(settings(config), work)
    if as_json:
        dump({"subscription_id": changed.id, "secret": secret})
        return
    typer.echo(secret)
    say(f"The secret is shown this once. The one before goes on signing for a day. {_SOON}")


@app.command()
def replay(
    named: SubscriptionId,
    *,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Send everything from then on once more: 2026-11-21T10:00:00Z."
        ),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Send what was given up once more; a disabled subscription starts anew."""
    from gateway.app import clock
    from gateway.services import subscriptions
    from gateway.store.outbox import OutboxReads, Replayed

    begin = _time(since) if since is not None else None

    async def work(engine: "Engine", _: Any) -> "tuple[Subscription, int]":
        one, count = await _found(engine, named), 0
        await acts.record(engine, _act("replay", one, f", since {since}" if since else ""))
        portions = subscriptions.replay(OutboxReads(engine), one, begin, clock.now())
        async for portion in portions:
            await _write(engine, *portion)
            count += sum(isinstance(change, Replayed) for change in portion)
        return one, count

    one, count = _do(settings(config), work)
    if as_json:
        dump({"subscription_id": one.id, "replayed_verifications": count})
    say(f"Due again, with the events of {count} verifications once more. {_SOON}")


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Failure(
            "--since: a time with its offset is expected: 2026-11-21T10:00:00Z", Code.USAGE
        )
    return found


def _do(loaded: "Settings", work: "Callable[[Engine, Any], Awaitable[T]]") -> T:
    """With the database, and the keyring that belongs to it."""

    async def run() -> T:
        async with _opened(loaded) as (engine, keyring):
            return await work(engine, keyring)

    return asyncio.run(run())


@asynccontextmanager
async def _opened(loaded: "Settings") -> "AsyncGenerator[tuple[Engine, Any]]":
    from gateway.app import folder, keyring_file

    async with folder.opened(loaded) as engine:
        yield engine, keyring_file.load(loaded.keyring_file)


def _act(deed: str, one: "Subscription", more: str = "") -> "Act":
    return acts.act(f"subscription {deed}", f"{one.id}{more}", subject=one.client_id)


async def _write(engine: "Engine", *changes: Any, done: "Act | None" = None) -> None:
    from gateway.store.outbox import Outbox

    async def work(engine: "Engine") -> None:
        outbox = Outbox()
        outbox.add(*changes)
        await outbox.write(engine)

    await acts.record(engine, *([done] if done is not None else []), work=work)


async def _client(engine: "Engine", given: str) -> Any:
    from gateway.store import upkeep

    for client, _ in await upkeep.clients(engine):
        if given in {client.name, str(client.id)}:
            return client.id
    raise Failure(f"there is no client {given!r}; see: gateway client list", Code.NOT_FOUND)


async def _found(engine: "Engine", given: str) -> "Subscription":
    from gateway.store.outbox import OutboxReads

    for one in await OutboxReads(engine).subscriptions():
        if str(one.id) == given.lower():
            return one
    problem = f"there is no subscription {given!r}; see: gateway subscription list"
    raise Failure(problem, Code.NOT_FOUND)


def _shown(one: "Subscription", client: str, undelivered: int) -> dict[str, object]:
    return {
        "subscription_id": one.id,
        "client_id": one.client_id,
        "client": client,
        "url": one.url,
        "kinds": one.kinds.split(),
        "created_at": one.created_at,
        "rotated_at": one.rotated_at,
        "undelivered": undelivered,
        "failures": one.failures,
        "failing_since": one.failing_since,
        "problem": one.problem,
        "disabled_at": one.disabled_at,
        "disabled_why": one.disabled_why,
    }


def _state(one: "Subscription") -> str:
    if one.disabled_at is not None:
        return f"disabled {one.disabled_at:%F %R}: {one.disabled_why}"
    if one.failing_since is not None:
        return f"failing since {one.failing_since:%F %R}: {one.problem}"
    return "live"
