"""`gateway operator`: the people at the console."""

import asyncio
import secrets
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway.cli.acts import actor
from gateway.cli.output import Code, Config, Failure, Json, dump, say, settings, table

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.store.engine import Engine
    from gateway.store.records import Operator

T = TypeVar("T")

app = typer.Typer(
    help="The people at the console: their roles, passwords and second factors.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the operator.")]
Stdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]
Generate = Annotated[
    bool, typer.Option("--generate", help="Make a random password and print it, once.")
]


@app.command()
def add(
    name: Name,
    *,
    role: Annotated[
        str,
        typer.Option(
            metavar="ROLE",
            help="viewer looks, numbers masked; support also acts and may see a number; admin "
            "also has clients, keys and the audit log.",
        ),
    ] = "viewer",
    from_stdin: Stdin = False,
    generate: Generate = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Add an operator. Works while `gateway serve` runs, and before it ever did.

    --json prints {"operator_id", "name", "role", "password"}; password is null unless generated.
    """
    from gateway.app import clock, folder
    from gateway.cli.clients import make_ready
    from gateway.domain.access import Role
    from gateway.services import accounts

    if role not in set(Role):
        raise Failure(f"--role: there are {', '.join(Role)}; given: {role}", Code.USAGE)
    problem = accounts.name_problem(name)
    if problem is not None:
        raise Failure(f"NAME {problem}", Code.USAGE)
    loaded = settings(config)
    make_ready(loaded)
    password = _password(from_stdin=from_stdin, generate=generate)

    async def work() -> "Operator":
        async with folder.opened(loaded) as engine:
            return await accounts.add(
                engine, name, Role(role), password, by=actor(), now=clock.now()
            )

    made = _run(work())
    shown = password if generate else None
    if as_json:
        dump({"operator_id": made.id, "name": name, "role": role, "password": shown})
        return
    typer.echo(f"operator  {made.id}  {name}, {role}")
    if generate:
        typer.echo(f"password  {password}")
        say("The password is shown this once.")
    say(f"The console: {loaded.public_url or 'http://127.0.0.1:8080'}/console")
    say(f"A second factor for them: gateway operator totp {name}")


@app.command("list")
def list_(*, config: Config = None, as_json: Json = False) -> None:
    """List the operators."""
    from gateway.app import folder
    from gateway.store import accounts

    async def work() -> "list[Operator]":
        async with folder.opened(settings(config)) as engine:
            return await accounts.operators(engine)

    found = asyncio.run(work())
    if as_json:
        dump([_shown(one) for one in found])
        return
    table(
        ("operator", "role", "second factor", "created", "state"),
        [
            (
                one.name,
                one.role,
                "elsewhere" if one.subject else "yes" if one.totp_sealed else "no",
                f"{one.created_at:%F %R}",
                "live" if one.disabled_at is None else f"disabled {one.disabled_at:%F %R}",
            )
            for one in found
        ],
    )


@app.command()
def disable(
    name: Name,
    *,
    again: Annotated[
        bool, typer.Option("--enable", help="The other way: let them log in again.")
    ] = False,
    config: Config = None,
) -> None:
    """Keep an operator out, at once: running sessions end."""
    from gateway.app import clock, folder
    from gateway.services import accounts

    async def work() -> None:
        async with folder.opened(settings(config)) as engine:
            one = await _named(engine, name)
            now = clock.now()
            await accounts.set_disabled(engine, one, by=actor(), now=now, disabled=not again)

    _run(work())
    say(f"{'enabled' if again else 'disabled'}: {name}")


@app.command()
def password(
    name: Name,
    *,
    from_stdin: Stdin = False,
    generate: Generate = False,
    config: Config = None,
) -> None:
    """Give an operator another password. Running sessions end, failed logins are forgotten."""
    from gateway.app import clock, folder, keyring_file
    from gateway.services import accounts

    loaded = settings(config)

    async def work() -> str:
        async with folder.opened(loaded) as engine:
            one = await _named(engine, name)
            keyring = keyring_file.load(loaded.keyring_file)
            given = _password(from_stdin=from_stdin, generate=generate)
            now = clock.now()
            await accounts.set_password(engine, keyring, one, given, by=actor(), now=now)
            return given

    given = _run(work())
    if generate:
        typer.echo(given)
    say(f"password changed: {name}")


@app.command()
def totp(
    name: Name,
    *,
    off: Annotated[bool, typer.Option("--off", help="Take the second factor away.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Give an operator a second factor (TOTP, RFC 6238), a new one each time; shown once.

    Running sessions end. --json prints {"secret", "address"}.
    """
    from gateway.app import clock, folder, keyring_file
    from gateway.domain import totp as rules
    from gateway.services import accounts

    loaded = settings(config)

    async def work() -> bytes | None:
        async with folder.opened(loaded) as engine:
            one = await _named(engine, name)
            keyring = keyring_file.load(loaded.keyring_file)
            now = clock.now()
            return await accounts.set_totp(engine, keyring, one, by=actor(), now=now, on=not off)

    secret = _run(work())
    if secret is None:
        say(f"no second factor any more: {name}")
        return
    spelled, address = rules.spelled(secret), rules.address(secret, name, accounts.ISSUER)
    if as_json:
        dump({"secret": spelled, "address": address})
        return
    typer.echo(f"secret   {spelled}\naddress  {address}")
    say("Shown this once. Type the secret into an authenticator app, or make a QR code of the")
    say("address on a machine you trust.")


async def _named(engine: "Engine", name: str) -> "Operator":
    from gateway.store import accounts

    one = await accounts.operator_named(engine, name)
    if one is None:
        raise Failure(f"there is no operator {name!r}; see: gateway operator list", Code.NOT_FOUND)
    return one


def _password(*, from_stdin: bool, generate: bool) -> str:
    if generate:
        return secrets.token_urlsafe(18)
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Do it; what it refuses is a failure of the command."""
    from gateway.domain.errors import GatewayError

    try:
        return asyncio.run(work)
    except GatewayError as error:
        raise Failure(error.detail) from None


def _shown(one: "Operator") -> dict[str, object]:
    return {
        "operator_id": one.id,
        "name": one.name,
        "role": one.role,
        "totp": one.totp_sealed is not None,
        "subject": one.subject,
        "created_at": one.created_at,
        "disabled_at": one.disabled_at,
    }


async def ready_login(loaded: "Settings", role: str = "admin") -> tuple[str, str]:
    """The demo's own operator, with a password made for this run."""
    from gateway.app import clock, folder, keyring_file
    from gateway.domain.access import Role
    from gateway.services import accounts as logins
    from gateway.store import accounts

    given = secrets.token_urlsafe(18)
    keyring = keyring_file.load(loaded.keyring_file)
    async with folder.opened(loaded) as engine:
        one = await accounts.operator_named(engine, logins.DEMO)
        if one is None:
            await logins.add(engine, logins.DEMO, Role(role), given, by=actor(), now=clock.now())
        else:
            now = clock.now()
            if one.disabled_at is not None:
                await logins.set_disabled(engine, one, by=actor(), now=now, disabled=False)
                one = await accounts.operator_named(engine, logins.DEMO) or one
            await logins.set_password(engine, keyring, one, given, by=actor(), now=now)
    return logins.DEMO, given


async def end_demo_login(loaded: "Settings") -> bool:
    """Keep the demo's operator out of a gateway with routes of its own. Whether one is left."""
    from gateway.app import clock, folder
    from gateway.services import accounts as logins
    from gateway.store import accounts

    async with folder.opened(loaded) as engine:
        everyone = await accounts.operators(engine)
        for one in everyone:
            if one.name == logins.DEMO and one.disabled_at is None:
                await logins.set_disabled(engine, one, by=actor(), now=clock.now(), disabled=True)
    return any(one.disabled_at is None and one.name != logins.DEMO for one in everyone)
