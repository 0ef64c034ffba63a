"""`gateway client`: the applications that call the API, and their keys."""

import asyncio
import time
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from gateway.cli import acts
from gateway.cli.output import Code, Config, Failure, Json, dump, say, settings, table

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.store.records import ApiKey, Client

app = typer.Typer(
    help="The applications that call the API, and their keys.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
key_app = typer.Typer(
    help="Further keys of a client: to replace one, to allow less, to limit what one may do.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(key_app, name="key")

Scopes = Annotated[
    str,
    typer.Option(
        metavar="WORDS",
        help="What the key allows: send, verify, status; text is for texts of its own, operate for "
        "all clients.",
    ),
]
Expires = Annotated[
    int | None,
    typer.Option("--expires", min=1, max=3650, metavar="DAYS", help="Days until it is refused."),
]
Rate = Annotated[
    float | None,
    typer.Option(
        min=0.01, max=100_000, metavar="NUMBER", help="Calls a second, in each process; else any."
    ),
]
_PATIENCE = 10.0  # seconds a `serve` that is just starting is given to make the database


@app.command()
def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the application; yours to choose.")
    ],
    *,
    scopes: Scopes = "send verify status",
    test: Annotated[
        bool, typer.Option("--test", help="A client whose keys reach nothing but the sandbox.")
    ] = False,
    expires: Expires = None,
    rate: Rate = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Add a client and print its key, once.

    Works while `gateway serve` runs, and before it ever did.
    --json prints {"client_id", "key_id", "key"}.
    """
    kept = _scopes(scopes, test=test)
    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise Failure("NAME must be 1 to 100 printable characters", Code.USAGE)
    loaded = settings(config)
    make_ready(loaded)
    client_id, key_id, key = asyncio.run(
        new(loaded, name, kept, test=test, expires=expires, rate=rate)
    )
    _show(client_id, name, key_id, kept, key, as_json=as_json)


def _scopes(given: str, *, test: bool) -> str:
    """The words in their order. Raises Failure."""
    from gateway.web import auth

    wanted = given.replace(",", " ").split()
    unknown = sorted(set(wanted) - set(auth.SCOPES))
    if unknown or not wanted:
        there = f"--scopes: there are {', '.join(auth.SCOPES)}"
        raise Failure(f"{there}; given: {', '.join(unknown) or 'none'}", Code.USAGE)
    if test and "operate" in wanted:
        raise Failure("--scopes: operate sees live clients; a test key cannot have it", Code.USAGE)
    return " ".join(one for one in auth.SCOPES if one in wanted)


def _show(
    client_id: UUID, name: str, key_id: UUID, scopes: str, key: str, *, as_json: bool
) -> None:
    if as_json:
        dump({"client_id": client_id, "key_id": key_id, "key": key})
        return
    typer.echo(f"client  {client_id}  {name}\nkey id  {key_id}  {scopes}\nkey     {key}")
    say("The key is shown this once. Callers send it as `Authorization: Bearer <key>`.")


@key_app.command("add")
def add_key(
    client: Annotated[
        str, typer.Argument(metavar="CLIENT", help="Its name or id, as `client list` shows them.")
    ],
    *,
    scopes: Scopes = "send verify status",
    expires: Expires = None,
    rate: Rate = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Add a key to a client and print it, once. A test client's are test keys.

    To replace a key: add one, give it to the callers, revoke the old one.
    --json prints {"client_id", "key_id", "key"}.
    """
    from gateway.app import folder
    from gateway.store import clients as stored
    from gateway.store import upkeep

    async def put() -> "tuple[Client, ApiKey, str]":
        async with folder.opened(settings(config)) as engine:
            owner, keys = _client(await upkeep.clients(engine), client)
            test = any(key.test for key in keys)
            kept = _scopes(scopes, test=test)
            row, key = _made(owner.id, kept, test=test, expires=expires, rate=rate)
            done = acts.act("key add", f"{owner.name}, {_told(row)}", subject=owner.id)
            await acts.record(engine, done, work=lambda one: stored.add_key(one, row))
            return owner, row, key

    owner, row, key = asyncio.run(put())
    kept = row.scopes
    _show(owner.id, owner.name, row.id, kept, key, as_json=as_json)


@key_app.command("list")
def list_keys(
    client: Annotated[
        str | None, typer.Argument(metavar="[CLIENT]", help="Of one client, by name or id.")
    ] = None,
    *,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List keys: what each allows, until when, and when it was last used (within a minute)."""
    from gateway.app import folder
    from gateway.store import upkeep

    async def look() -> "list[tuple[Client, list[ApiKey]]]":
        async with folder.opened(settings(config)) as engine:
            return await upkeep.clients(engine)

    found = asyncio.run(look())
    chosen = found if client is None else [_client(found, client)]
    if as_json:
        dump([{**_key(key), "client": one.name} for one, keys in chosen for key in keys])
        return
    table(
        ("client", "key id", "kind", "scopes", "rate", "last used", "state"),
        [
            (
                one.name,
                key.id,
                "test" if key.test else "live",
                key.scopes,
                f"{key.rate:g}/s" if key.rate is not None else "any",
                f"{key.last_used_at:%F %R}" if key.last_used_at is not None else "never",
                _state(key),
            )
            for one, keys in chosen
            for key in keys
        ],
    )


def _client(
    found: "list[tuple[Client, list[ApiKey]]]", named: str
) -> "tuple[Client, list[ApiKey]]":
    for client, keys in found:
        if named in {client.name, str(client.id)}:
            return client, keys
    raise Failure(f"there is no client {named!r}; see: gateway client list", Code.NOT_FOUND)


@app.command("list")
def list_(*, config: Config = None, as_json: Json = False) -> None:
    """List the clients and their keys' ids."""
    from gateway.app import folder
    from gateway.store import upkeep

    async def look() -> "list[tuple[Client, list[ApiKey]]]":
        async with folder.opened(settings(config)) as engine:
            return await upkeep.clients(engine)

    found = asyncio.run(look())
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


@key_app.command("revoke")
@app.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="KEY_ID", help="As `gateway client list` shows it.")
    ],
    *,
    config: Config = None,
) -> None:
    """Revoke a key. A running gateway refuses it within five seconds.

    To take back a whole client, revoke each of its keys: `gateway client key list CLIENT`.
    """
    from gateway.app import clock, folder
    from gateway.domain import identity
    from gateway.store import clients as stored

    named = identity.parse(key_id)

    async def take_back() -> None:
        async with folder.opened(settings(config)) as engine:
            found = await stored.key(engine, named) if named is not None else None
            if found is None:
                problem = f"there is no key {key_id!r}; see: gateway client list"
                raise Failure(problem, Code.NOT_FOUND)
            owner, key = found
            if key.revoked_at is None:
                done = acts.act("key revoke", f"{owner.name}, {key.id}", subject=owner.id)
                now = clock.now()
                await acts.record(engine, done, work=lambda one: stored.revoke(one, key, now))

    asyncio.run(take_back())
    say(f"revoked: {key_id}")


def make_ready(loaded: "Settings") -> None:
    """The database, made under the lock when there is none; a starting `serve` makes it too."""
    from gateway.app import folder
    from gateway.config import InUse

    if loaded.server is not None:  # `gateway migrate` makes it
        return
    folder.make_folders(loaded)
    tries_until = time.monotonic() + _PATIENCE
    while _new(loaded):
        try:
            with folder.alone(loaded.data_dir):
                folder.prepare(loaded)
        except InUse:
            if time.monotonic() > tries_until:
                raise
            time.sleep(0.1)


def _new(loaded: "Settings") -> bool:
    from gateway.store import schema
    from gateway.store.engine import StoreError

    try:
        return schema.current(loaded.store) is None
    except StoreError:  # told where it is opened
        return False


def _told(key: "ApiKey") -> str:
    """What a key allows, for the audit log."""
    return f"{key.scopes}, for the sandbox alone" if key.test else key.scopes


def _made(
    client_id: UUID, scopes: str, *, test: bool, expires: int | None, rate: float | None
) -> "tuple[ApiKey, str]":
    """A key's row, and the key."""
    import secrets
    from datetime import timedelta

    from gateway.app import clock
    from gateway.domain.identity import uuid7
    from gateway.store.records import ApiKey
    from gateway.web import auth

    now, key = clock.now(), auth.new_key(test=test)
    row = ApiKey(
        id=uuid7(now, secrets.token_bytes(10)),
        client_id=client_id,
        digest=auth.digest(key),
        scopes=scopes,
        created_at=now,
        expires_at=now + timedelta(days=expires) if expires is not None else None,
        revoked_at=None,
        test=test,
        rate=rate,
    )
    return row, key


async def new(
    loaded: "Settings",
    name: str,
    scopes: str,
    *,
    test: bool = False,
    expires: int | None = None,
    rate: float | None = None,
) -> tuple[UUID, UUID, str]:
    """A new client: its id, its key's id, its key. Raises Failure when the name is taken."""
    import secrets

    from gateway.app import clock, folder
    from gateway.domain.identity import uuid7
    from gateway.store import writes
    from gateway.store.engine import Conflict
    from gateway.store.records import Client

    now = clock.now()
    client = Client(uuid7(now, secrets.token_bytes(10)), name, now)
    row, key = _made(client.id, scopes, test=test, expires=expires, rate=rate)
    done = acts.act("client add", f"{name}, {_told(row)}", subject=client.id)
    async with folder.opened(loaded) as engine:
        try:
            await acts.record(engine, done, work=lambda one: writes.insert_client(one, client, row))
        except Conflict:
            problem = f"there is a client {name!r} already; choose another name"
            raise Failure(problem) from None
    return client.id, row.id, key


def _shown(client: "Client", keys: "list[ApiKey]") -> dict[str, object]:
    return {
        "client_id": client.id,
        "name": client.name,
        "created_at": client.created_at,
        "keys": [_key(key) for key in keys],
    }


def _key(key: "ApiKey") -> dict[str, object]:
    return {
        "key_id": key.id,
        "test": key.test,
        "scopes": key.scopes.split(),
        "rate": key.rate,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _state(key: "ApiKey") -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%F %R}"
    if key.expires_at is not None:
        return f"until {key.expires_at:%F %R}"
    return "test" if key.test else "live"
