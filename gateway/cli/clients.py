"""`gateway client`: the applications that call the API, and their keys."""

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from gateway.cli.output import Code, Config, Failure, Json, dump, say, settings, table

app = typer.Typer(
    name="client", help="The applications that call the API, and their keys.", no_args_is_help=True
)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="A name for the application, yours to choose.")],
    *,
    scopes: Annotated[
        str,
        typer.Option(help="What the key allows: of send, verify, status, operate (all clients')."),
    ] = "send verify status",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Add a client and print its key, once. Works while `gateway serve` runs.

    --json prints {"client_id", "key_id", "key"}.
    """
    from gateway import app as wiring
    from gateway.web import auth

    wanted = scopes.replace(",", " ").split()
    unknown = sorted(set(wanted) - set(auth.SCOPES))
    if unknown or not wanted:
        there = ", ".join(auth.SCOPES)
        raise Failure(f"--scopes: there are {there}; not {', '.join(unknown)}", Code.USAGE)
    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise Failure("NAME must be 1 to 100 printable characters", Code.USAGE)
    loaded = settings(config)
    wiring.make_folders(loaded)
    wiring.check_schema(loaded.database, migrate_new=True)
    scopes_kept = " ".join(one for one in auth.SCOPES if one in wanted)
    client_id, key_id, key = asyncio.run(_add(loaded, name, scopes_kept, wiring.clock()))
    if as_json:
        dump({"client_id": client_id, "key_id": key_id, "key": key})
        return
    table(("client", name), [("client id", client_id), ("key id", key_id), ("scopes", scopes_kept)])
    typer.echo(f"key  {key}")
    say("The key is shown this once. Callers send it as `Authorization: Bearer <key>`.")


async def _add(loaded: Any, name: str, scopes: str, now: datetime) -> tuple[UUID, UUID, str]:
    import secrets

    from gateway.domain.identity import uuid7
    from gateway.store import writes
    from gateway.store.engine import Conflict, SqliteEngine
    from gateway.store.records import ApiKey, Client
    from gateway.web import auth

    key = auth.new_key()
    client = Client(uuid7(now, secrets.token_bytes(10)), name, now)
    key_id = uuid7(now, secrets.token_bytes(10))
    row = ApiKey(key_id, client.id, auth.digest(key), scopes, now, None, None)
    engine = SqliteEngine(loaded.database)
    try:
        await engine.begin()
        writes.insert_client(engine, client, row)
        await engine.commit()
    except Conflict:
        raise Failure(f"there is a client {name!r} already; choose another name") from None
    finally:
        engine.close()
    return client.id, key_id, key
