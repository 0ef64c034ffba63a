"""`gateway routes check`: what a recorded callback would say, and whether it would be let in."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, urlsplit

import typer

from gateway.cli.output import Code, Failure, Json, console, dump, say, table

if TYPE_CHECKING:
    from gateway.domain.declared.definition import Definition
    from gateway.ports import Callback, Malformed, Provider, Receipt, Secret

VARIABLE = "CALLBACK_SECRET"
COLUMNS = ("word", "state", "reference", "attempt_id", "reason", "permanent", "recipient", "time")
UNUSED = "dW51c2Vk"  # in place of the secrets that only requests need; base64, as some have to be
NAMED = "recorded"  # in place of the attempt that the URL's token would name


def check(
    definition: Annotated[
        str, typer.Argument(metavar="FILE", help="A definition: a shipped name, or a TOML file.")
    ],
    callback: Annotated[
        Path,
        typer.Argument(
            metavar="CALLBACK_FILE",
            help="A recorded HTTP request: request line, headers, an empty line, the body.",
        ),
    ],
    *,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="VARIABLE",
            help=f"An environment variable with a callback secret. May be repeated. "
            f"Default: {VARIABLE}, where it is set.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The public URL it was sent to. Default: https, its Host and its path.",
        ),
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(
            metavar="TIME",
            help="When it came, in UTC. Default: its Date header, or else now.",
            formats=["%Y-%m-%dT%H:%M:%S"],
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a definition against a recorded callback.

    Prints the receipts in it and whether its signature is good. Nothing is stored or sent.

    \b
    Exit codes: 0 the signature is good, 1 it is not, 2 something cannot be read.
    """
    from gateway.providers.definitions import load

    declared = load(definition)
    asked = _callback(callback, url, at)
    provider = _provider(declared, _secrets(secret))
    found = provider.receipts(asked)
    good = provider.authenticate(_as_named(asked))
    shown = {
        "definition": definition,
        "signature": "good" if good else "bad",
        "receipts": [_shown(one) for one in found],
    }
    _print(shown, as_json=as_json)
    if not good:
        raise typer.Exit(Code.FAILED)


def parse(recorded: bytes) -> tuple[str, str, Mapping[str, str], bytes]:
    """Method, target, headers and body of a recorded request. Raises ValueError."""
    ends = [(at, len(gap)) for gap in (b"\r\n\r\n", b"\n\n") if (at := recorded.find(gap)) >= 0]
    at, gap = min(ends, default=(len(recorded), 0))
    first, *lines = recorded[:at].decode("latin-1").splitlines() or [""]
    method, target, *version = first.split(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"{line!r} is no header")
        key, value = name.strip().lower(), value.strip()
        headers[key] = f"{headers[key]}\n{value}" if key in headers else value
    if not version or not target.startswith("/"):
        raise ValueError("it does not begin with a request line such as POST /path HTTP/1.1")
    body = recorded[at + gap :]
    length = headers.get("content-length", "")
    # An editor ends a file with a line end that was not sent.
    return method, target, headers, body[: int(length)] if length.isdecimal() else body


def _callback(file: Path, url: str | None, at: datetime | None) -> "Callback":
    from gateway.ports import Callback

    try:
        method, target, headers, body = parse(file.read_bytes())
        public = url or f"https://{headers.get('host', 'localhost')}{target}"
        parts = urlsplit(public)
        received = _received(headers, at)
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}", Code.USAGE) from None
    except ValueError as error:
        raise Failure(f"{file} is no recorded request: {error}", Code.USAGE) from None
    return Callback(
        method=method,
        url=public,
        key=parts.path.rpartition("/")[2] or None,
        headers=headers,
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        body=body,
        received_at=received,
    )


def _received(headers: Mapping[str, str], at: datetime | None) -> datetime:
    """Raises ValueError."""
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    from gateway.app import clock

    if at is not None:
        return at.replace(tzinfo=UTC)
    if "date" in headers:
        return parsedate_to_datetime(headers["date"]).astimezone(UTC)
    return clock.now()


def _secrets(variables: Sequence[str] | None) -> "tuple[Secret, ...]":
    from gateway import config
    from gateway.ports import Secret

    environ = config.environment()
    missing = [name for name in variables or () if not environ.get(name)]
    if missing:
        raise Failure(f"the environment variable {missing[0]} is not set", Code.USAGE)
    names = variables or [name for name in (VARIABLE,) if environ.get(name)]
    return tuple(Secret(environ[name]) for name in names)


def _provider(declared: "Definition", secrets: "tuple[Secret, ...]") -> "Provider[Any, Any]":
    from gateway.ports import Secret
    from gateway.providers.generic import Generic, GenericSettings

    settings = GenericSettings(
        name=NAMED,
        channel=min(declared.channels),
        account=NAMED,
        definition=declared,
        base_url="https://unused.example",
        values={name: default or "unused" for name, default in declared.values.items()},
        secrets={name: Secret(UNUSED) for name in declared.secrets},
        callback_secret=secrets,
    )
    try:
        return Generic(settings)
    except ValueError as error:
        raise Failure(str(error), Code.USAGE) from None


def _as_named(callback: "Callback") -> "Callback":
    """With the attempt that a token in its URL would name: tokens are the gateway's to judge."""
    import dataclasses

    return dataclasses.replace(callback, attempt_id=NAMED if callback.key else None)


def _shown(found: "Receipt | Malformed") -> dict[str, Any]:
    from gateway.domain import recipient
    from gateway.ports import Malformed

    if isinstance(found, Malformed):
        return {"wrong": found.why}
    named = found.recipient
    return {
        "word": found.word,
        "state": found.state,
        "reference": found.reference,
        "attempt_id": found.attempt_id,
        "reason": found.reason,
        "permanent": found.permanent,
        "recipient": recipient.redact(named) if named is not None else None,
        "time": found.provider_time,
        "cost": found.cost,
    }


def _print(shown: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        dump(shown)
        return
    rows = [
        [_cell(one[column]) for column in COLUMNS] for one in shown["receipts"] if "word" in one
    ]
    if rows:
        table(COLUMNS, rows)
    for one in shown["receipts"]:
        if "wrong" in one:
            console().print(f"not readable: {one['wrong']}")
    if not shown["receipts"]:
        console().print("no receipts in it")
    console().print(f"signature: {shown['signature']}")
    if shown["signature"] == "bad":
        say(f"Is the secret in {VARIABLE} (or --secret), and are --url and --at what they were?")


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
