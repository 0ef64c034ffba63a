"""`gateway client`: the applications that call the API, and their keys."""

import asyncio
import time
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from gateway.cli.output import Code, Config, Failure, Json, dump, say, settings, table

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.store.records import ApiKey, Client

app = typer.Typer(
    help="The applications that call the API, and their keys.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_PATIENCE = 10.0  # seconds a `serve` that is just starting is given to make the database


@app.command()
def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the application; yours to choose.")
    ],
    *,
    scopes: Annotated[
        str,
        typer.Option(
            metavar="WORDS",
            help="What the key allows: send, verify, status; text: texts of its own; operate is "
            "for all clients.",
        ),
    ] = "send verify status",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Add a client and print its key, once.

    Works while `gateway serve` runs, and before it ever did.
    --json prints {"client_id", "key_id", "key"}.
    """
    from gateway.web import auth

    wanted = scopes.replace(",", " ").split()
    unknown = sorted(set(wanted) - set(auth.SCOPES))
    if unknown or not wanted:
        there = f"--scopes: there are {', '.join(auth.SCOPES)}"
        given = ", ".join(unknown) or "none"
        raise Failure(f"{there}; given: {given}", Code.USAGE)
    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise Failure("NAME must be 1 to 100 printable characters", Code.USAGE)
    loaded = settings(config)
    _make_ready(loaded)
    kept = " ".join(one for one in auth.SCOPES if one in wanted)
    client_id, key_id, key = asyncio.run(new(loaded, name, kept))
    if as_json:
        dump({"client_id": client_id, "key_id": key_id, "key": key})
        return
    typer.echo(f"client  {client_id}  {name}\nkey id  {key_id}  {kept}\nkey     {key}")
    say("The key is shown this once. Callers send it as `Authorization: Bearer <key>`.")


@app.command("list")
def list_(*, config: Config = None, as_json: Json = False) -> None:
    """List the clients and their keys' ids."""
    from gateway import app as wiring
    from gateway.store import upkeep

    with wiring.opened(settings(config)) as engine:
        found = upkeep.clients(engine)
    if as_json:
        dump([_shown(client, keys) for client, keys in found])
        return
    table(
        ("client", "client id", "key id", "scopes", "created", "state"),
        [
            (client.name, client.id, key.id, key.scopes, f"{key.created_at:%F %R}", _state(key))
            for client, keys in found
            for key in keys
        ],
    )


@app.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="KEY_ID", help="As `gateway client list` shows it.")
    ],
    *,
    config: Config = None,
) -> None:
    """Revoke a key. A running gateway refuses it within five seconds."""
    from gateway import app as wiring
    from gateway.domain import identity
    from gateway.store import upkeep

    named = identity.parse(key_id)
    with wiring.opened(settings(config)) as engine:
        key = next((k for _, keys in upkeep.clients(engine) for k in keys if k.id == named), None)
        if key is None:
            raise Failure(f"there is no key {key_id!r}; see: gateway client list", Code.NOT_FOUND)
        if key.revoked_at is None:
            asyncio.run(upkeep.revoke(engine, key, wiring.clock()))
    say(f"revoked: {key_id}")


def _make_ready(loaded: "Settings") -> None:
    """The database, made under the lock when there is none; a starting `serve` makes it too."""
    from gateway import app as wiring
    from gateway.config import InUse

    wiring.make_folders(loaded)
    tries_until = time.monotonic() + _PATIENCE
    while _new(loaded):
        try:
            with wiring.alone(loaded.data_dir):
                wiring.prepare(loaded)
        except InUse:
            if time.monotonic() > tries_until:
                raise
            time.sleep(0.1)


def _new(loaded: "Settings") -> bool:
    from gateway.store import schema
    from gateway.store.engine import StoreError

    try:
        return schema.current(loaded.database) is None
    except StoreError:  # told where it is opened
        return False


async def new(loaded: "Settings", name: str, scopes: str) -> tuple[UUID, UUID, str]:
    """A new client: its id, its key's id, its key. Raises Failure when the name is taken."""
    import secrets

    from gateway import app as wiring
    from gateway.domain.identity import uuid7
    from gateway.store import writes
    from gateway.store.engine import Conflict
    from gateway.store.records import ApiKey, Client
    from gateway.web import auth

    now, key = wiring.clock(), auth.new_key()
    client = Client(uuid7(now, secrets.token_bytes(10)), name, now)
    key_id = uuid7(now, secrets.token_bytes(10))
    row = ApiKey(key_id, client.id, auth.digest(key), scopes, now, None, None)
    with wiring.opened(loaded) as engine:
        await engine.begin()
        try:
            writes.insert_client(engine, client, row)
        except Conflict:
            problem = f"there is a client {name!r} already; choose another name"
            raise Failure(problem) from None
        await engine.commit()
    return client.id, key_id, key


def _shown(client: "Client", keys: "list[ApiKey]") -> dict[str, object]:
    return {
        "client_id": client.id,
        "name": client.name,
        "created_at": client.created_at,
        "keys": [
            {
                "key_id": key.id,
                "scopes": key.scopes.split(),
                "created_at": key.created_at,
                "expires_at": key.expires_at,
                "revoked_at": key.revoked_at,
            }
            for key in keys
        ],
    }


def _state(key: "ApiKey") -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%F %R}"
    return "live" if key.expires_at is None else f"until {key.expires_at:%F %R}"
