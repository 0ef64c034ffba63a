"""`gateway check`, which looks at everything and changes nothing, and `gateway migrate`."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.output import Code, Config, Failure, Json, dump, settings, table

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.ports import Provider, Server

TTL = 300  # seconds; what a request that names none gets
LONGEST_TTL = 600
RETRIEVER_BYTES = 140  # the longest message that Android's SMS Retriever looks at


class Verdict(StrEnum):
    """How one thing stands."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    verdict: Verdict
    detail: str


def check(
    *,
    live: Annotated[
        bool,
        typer.Option(
            "--live", "--deep", help="Ask the providers, too: credentials, credit, templates."
        ),
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check settings, folders, keyring, schema, routes.

    Workflows too. Changes nothing and sends nothing; with --live each provider that allows it is
    asked about the account. Ends with 1 when something is wrong; warnings and notes do not count.
    """
    findings = _findings(config, live=live)
    if as_json:
        dump(findings)
    else:
        table(("what", "", "detail"), [(one.what, one.verdict, one.detail) for one in findings])
    wrong = sum(one.verdict is Verdict.WRONG for one in findings)
    if wrong:
        raise Failure(f"{wrong} of {len(findings)} checks found something wrong")


def _findings(file: Path | None, *, live: bool) -> list[Finding]:
    from gateway.app import sandboxed
    from gateway.config import SettingsError

    try:
        loaded = settings(file)
    except SettingsError as error:
        return [Finding(key, Verdict.WRONG, text) for key, text in error.mistakes.items()]
    source = f"{loaded.source}" if loaded.source else "no gateway.toml: the defaults"
    findings = [Finding("settings", Verdict.OK, source)]
    for looks in (_folders, _schema, _keyring):
        try:
            findings += looks(loaded)
        except SettingsError as error:
            findings += [Finding(k, Verdict.WRONG, text) for k, text in error.mistakes.items()]
    if loaded.sandbox_port is not None:
        detail = f"none set: the sandbox's are used, on port {loaded.sandbox_port}"
        findings.append(Finding("routes", Verdict.NOTE, detail))
        ports = sandboxed.Ports(loaded.sandbox_port)
        loaded = sandboxed.with_sandbox(loaded, sandboxed.no_keyring(), ports)
    else:
        findings += _routes(loaded)
        findings += _accounts(loaded) if live else ()
    findings += _workflows(loaded)
    findings += _templates(loaded)
    return findings


def _folders(loaded: "Settings") -> Iterator[Finding]:
    from gateway.app import folder

    for place in folder.folders(loaded):
        what = f"folder {place}"
        if not place.exists():
            yield _to_be_made(what, place)
            continue
        try:
            with tempfile.TemporaryFile(dir=place):  # without a name
                yield Finding(what, Verdict.OK, "can be written to")
        except OSError as error:
            yield Finding(what, Verdict.WRONG, f"cannot be written to: {error.strerror}")


def _to_be_made(what: str, place: Path) -> Finding:
    """Whether the first start can make that folder."""
    above = next(one for one in place.absolute().parents if one.exists())
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return Finding(what, Verdict.NOTE, "not there yet; the first start makes it")
    return Finding(what, Verdict.WRONG, f"is not there and cannot be made in {above}")


def _schema(loaded: "Settings") -> Iterator[Finding]:
    from gateway.app import folder

    what = f"database {loaded.store}"
    if loaded.server is not None or loaded.database.exists():
        folder.check_schema(loaded.store)
        yield Finding(what, Verdict.OK, "the schema is current")
    else:
        yield Finding(what, Verdict.NOTE, "not there yet; the first start makes it")


def _keyring(loaded: "Settings") -> Iterator[Finding]:
    from gateway.app import folder, keyring_file
    from gateway.store.engine import StoreError

    file = loaded.keyring_file
    what = f"keyring {file}"
    if file.exists():
        keyring = keyring_file.load(file)
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield Finding(what, Verdict.WARNING, "others may read it: chmod 600")
        count = len(keyring.names)
        names = f"{count} {'key' if count == 1 else 'keys'}, current: {keyring.current}"
        yield Finding(what, Verdict.OK, names)
    else:
        yield Finding(what, Verdict.NOTE, "not there yet; the first start makes it")
    if loaded.server is not None or loaded.database.exists():
        try:
            problem = folder.keyring_problem(loaded)
        except StoreError as error:
            problem = f"cannot be compared with the database: {error}"
        if problem is not None:
            yield Finding(what, Verdict.WRONG, problem)


def _routes(loaded: "Settings") -> Iterator[Finding]:
    for provider in loaded.providers:
        what = f"route {provider.name}"
        given = loaded.routes[provider.name]
        warnings = list(_route_warnings(loaded, given, hears=_hears(provider)))
        for warning in warnings:
            yield Finding(what, Verdict.WARNING, warning)
        if not warnings:
            yield Finding(what, Verdict.OK, f"{provider.channel} on account {provider.account}")


def _accounts(loaded: "Settings") -> Iterator[Finding]:
    """What the providers themselves say of our accounts."""
    from gateway.app import looking, process

    for route, wrong in process.run(looking.look(loaded)):
        what = f"account of {route}"
        if wrong is None:
            yield Finding(what, Verdict.OK, "the provider lets us in")
        elif wrong == looking.NOT_ASKED:
            yield Finding(what, Verdict.NOTE, "cannot be asked about without sending a message")
        else:
            yield Finding(what, Verdict.WRONG, wrong)


def _route_warnings(loaded: "Settings", given: Any, *, hears: bool) -> Iterator[str]:
    from dataclasses import fields

    for setting in fields(given):
        if hears and setting.name.startswith("callback_") and not getattr(given, setting.name):
            yield f"no {setting.name} is set: every receipt will be refused"
    ours, theirs = loaded.public_url, str(getattr(given, "base_url", ""))
    if hears and _local(ours) and not _local(theirs):
        yield f"its provider cannot reach {ours}: set public_url, or no receipt will come"


def _hears(provider: "Provider[Any, Any]") -> bool:
    """Whether receipts come to our callback URL; SMPP's come over the session."""
    from gateway.ports import Wire

    return bool(provider.confirms) and provider.wire is not Wire.SMPP


def _local(url: str) -> bool:
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _workflows(loaded: "Settings") -> Iterator[Finding]:
    from gateway.app import routes
    from gateway.domain import workflow
    from gateway.domain.verification import MIN_LIFE

    for name, plan in routes.plans(loaded).items():
        what = f"workflow {name}"
        starts = workflow.starts(plan)[-1]
        yield Finding(what, Verdict.OK, " → ".join(step.channel for step in plan.steps))
        never, late = workflow.too_late(plan, LONGEST_TTL), workflow.too_late(plan, TTL)
        if never is not None:
            detail = f"step {never + 1} cannot start in the life of any code: every send is refused"
            yield Finding(what, Verdict.WRONG, detail)
        elif late is not None:
            detail = f"step {late + 1} starts too late for the usual ttl of {TTL} s: sends need a "
            yield Finding(what, Verdict.WARNING, f"{detail}ttl of {starts + MIN_LIFE} or more")
        for at, step in enumerate(plan.steps, start=1):
            for route in step.routes:
                if step.awaits(route) is not step.until:
                    detail = f"step {at} waits for '{step.until}', which {route.name} cannot report"
                    told = f"{detail}: only a typed code will satisfy it"
                    yield Finding(what, Verdict.NOTE, told)


def _templates(loaded: "Settings") -> Iterator[Finding]:
    from gateway.cli.templates import previews

    for name in loaded.templates:
        shown = [one for one in previews(loaded, name) if one["channel"] == "sms"]
        what = f"template {name}"
        long = [one for one in shown if one["segments"] > 1]
        for one in long:
            detail = f"its short message in {one['locale']} needs {one['segments']} segments"
            alphabet = "" if one["septets"] is not None else ", for a character outside GSM 03.38"
            yield Finding(what, Verdict.WARNING, f"{detail}{alphabet}")
        for one in shown:
            if one["retriever"] and len(one["text"].encode()) > RETRIEVER_BYTES:
                detail = f"in {one['locale']} it has more than {RETRIEVER_BYTES} bytes: Android's"
                yield Finding(what, Verdict.WARNING, f"{detail} SMS Retriever passes it over")
        if not long:
            locales = ", ".join(one["locale"] for one in shown)
            yield Finding(what, Verdict.OK, f"one segment in {locales}")


def migrate(
    *,
    only_check: Annotated[
        bool, typer.Option("--check", help="Only tell; ends with 1 when there is something to do.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Bring the database's schema up to date.

    SQLite: stop `serve` first; a first `serve` makes a new database by itself. PostgreSQL: one node
    migrates, others that try wait for it; a new database gets its keyring too, which every node
    needs.
    """
    from gateway.app import folder, keyring_file
    from gateway.store import schema

    loaded = settings(config)
    found, wanted = schema.current(loaded.store), schema.head()
    done = found == wanted
    if not only_check and not done:
        folder.make_folders(loaded)
        with folder.alone(loaded.data_dir) if loaded.server is None else contextlib.nullcontext():
            _upgrade(loaded.store)
        if found is None and loaded.server is not None:
            keyring_file.load(loaded.keyring_file, create=True)
    told = {"database": str(loaded.store), "found": found, "newest": wanted}
    if as_json:
        dump({**told, "current": done or not only_check})
    else:
        state = f"is at {found}" if found else "is new"
        coming = "nothing to do" if done else f"now at {wanted}"
        missing = f"not at {wanted}. Run: gateway migrate"
        typer.echo(f"{loaded.store} {state}; {missing if only_check and not done else coming}")
    if only_check and not done:
        raise typer.Exit(Code.FAILED)


def _upgrade(database: "Path | Server") -> None:
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from gateway.store import schema

    try:
        schema.upgrade(database)
    except CommandError as error:
        newer = "It may have been made by a newer version of this gateway"
        raise Failure(f"{database} cannot be migrated: {error}. {newer}") from None
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", error))
        raise Failure(f"{database} cannot be migrated: {why}. Nothing was changed") from None
