"""One real gateway process that kills itself at a marked point.

    python tests/acceptance/crash_child.py FOLDER PORT PROVIDER_PORT POINT

Tests that start many of them fork it (`child`), for importing takes longer than all the rest.
The app is built as `serve` builds it: real transport, real server, real clock, worker running. A
point is reached through the seams that are there: what a commit left behind (`app.build(after=…)`),
the transport, and the engine right before COMMIT. With the point `none` it is `app.serve` itself.
SIGKILL leaves no time to flush or say good-bye.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from gateway import config, log
from gateway.app import folder, process, wiring
from gateway.config import Settings
from gateway.domain.delivery import Attempt, Outcome
from gateway.domain.verification import Verification
from gateway.domain.workflow import Step, Until
from gateway.ports import Auth, Provider, Request, Response, Secret
from gateway.providers import PROVIDERS
from gateway.services.case import Ended, Handover, Note
from gateway.store.engine import Engine, Write
from gateway.store.records import Logged, Source
from gateway.transports.http import HttpTransport
from gateway.transports.pool import ConnectionPool

CALLBACK_KEY = "callback-key-of-octopush"
MESSENGER_SECRET = "messenger-callback-secret"
TIMEOUT = 2.0  # seconds for one call; a claim outlives it by five
PATIENCE = 5  # the least there is
LONG_PATIENCE = 10  # longer than a claim
SPOKEN = 0.2  # seconds in which an answer on its way has surely left


def provider(kind: str, **values: Any) -> Provider:
    chosen = PROVIDERS[kind]
    return chosen(chosen.Settings(timeout=TIMEOUT, concurrency=16, **values))


def step(channel: str, route: str, patience: int, until: Until = Until.DELIVERED) -> Step:
    return Step(channel=channel, routes=(route,), patience=patience, until=until)


def settings(folder: Path, port: int, provider_port: int) -> Settings:
    """Two accounts at one provider's server. `quick` falls back before a claim lapses, `patient`
    after it, `calm` not while a test looks.
    """
    world = f"http://127.0.0.1:{provider_port}"
    octopush: dict[str, Any] = {
        "account": "octopush",
        "api_login": "ops@example.com",
        "api_key": Secret("octopush-api-key"),
        "callback_key": (Secret(CALLBACK_KEY),),
        "base_url": f"{world}/octopush",
    }
    providers = (
        provider(
            "messenger",
            name="messenger",
            channel="messenger",
            account="messenger",
            token=Secret("messenger-token"),
            callback_secret=(Secret(MESSENGER_SECRET),),
            base_url=f"{world}/messenger",
        ),
        provider("octopush", name="octopush", channel="sms", **octopush),
        provider("octopush", name="octopush_voice", channel="voice", **octopush),
    )
    voice = step("voice", "octopush_voice", PATIENCE)
    workflows = {
        "default": (step("sms", "octopush", PATIENCE), voice),
        "quick": (step("sms", "octopush", PATIENCE), voice),
        "calm": (step("sms", "octopush", 120), voice),
        "patient": (step("sms", "octopush", 60), voice),
        "chat": (
            step("messenger", "messenger", LONG_PATIENCE, Until.READ),
            step("sms", "octopush", LONG_PATIENCE),
        ),
    }
    environ = {"GATEWAY_DATA_DIR": str(folder), "GATEWAY_BRAND": "ACME"}
    loaded = config.load(environ, public_url=f"http://127.0.0.1:{port}")
    return config.replace(loaded, providers, workflows)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit("unreachable")


# Right after a commit, before anybody is answered and before what follows is begun.

AFTER_COMMIT: dict[str, Callable[[object], bool]] = {
    "after-accept-commit": lambda item: isinstance(item, Handover),
    "after-outcome-commit": lambda item: heard(item, Source.SUBMISSION),
    "after-receipt-commit": lambda item: heard(item, Source.RECEIPT),
    "after-fallback-commit": lambda item: isinstance(item, Handover) and item.attempt.ordinal == 2,
    "after-check-commit": lambda item: isinstance(item, Note) and item.event == "check_passed",
    "after-cancel-commit": lambda item: isinstance(item, Ended),
}


def heard(item: object, source: Source) -> bool:
    noted = isinstance(item, Note) and item.event == "attempt_heard"
    return isinstance(item, Note) and noted and item.facts["source"] == source


# Right before a COMMIT: everything is written, nothing is durable.

BEFORE_COMMIT: dict[str, Callable[[str, Any], bool]] = {
    "before-accept-commit": lambda sql, row: (
        isinstance(row, Verification) and sql.startswith("INSERT")
    ),
    "before-outcome-commit": lambda _, row: (
        isinstance(row, Attempt) and row.outcome is Outcome.ACCEPTED
    ),
    "before-receipt-commit": lambda _, row: isinstance(row, Logged) and row.source == "receipt",
    "before-check-commit": lambda _, row: isinstance(row, Verification) and row.checks_used > 0,
}

# Around the first call of a provider.

AROUND_CALL = {"before-sending": "before", "after-answer": "after"}


class DeadlyTransport(HttpTransport):
    """Dies before or after its first call; the caller's answer has left by then."""

    def __init__(self, moment: str) -> None:
        super().__init__(ConnectionPool())
        self._moment = moment

    async def send(self, request: Request, *, within: float, auth: Auth | None = None) -> Response:
        if self._moment == "after":
            await super().send(request, within=within, auth=auth)
        await asyncio.sleep(SPOKEN)
        die()


def watch(engine: Engine, fatal: Callable[[str, Any], bool]) -> None:
    """Die at the COMMIT of a batch that writes such a row."""
    run, commit = engine.run, engine.commit
    written: list[bool] = []

    async def watched_run(write: Write, values: Sequence[Any], *, expect: bool = True) -> int:
        written.extend(True for row in values if fatal(str(write.statement), row))
        return await run(write, values, expect=expect)

    async def watched_commit() -> None:
        if written:
            die()
        await commit()

    setattr(engine, "run", watched_run)  # noqa: B010  (mypy forbids to assign methods)
    setattr(engine, "commit", watched_commit)  # noqa: B010


def after(fatal: Callable[[object], bool], item: object) -> None:
    if fatal(item):
        die()


async def serve(home: Path, port: int, provider_port: int, point: str) -> None:
    chosen = settings(home, port, provider_port)
    with folder.alone(home), process.bind("127.0.0.1", port) as listening:
        keyring = folder.prepare(chosen)
        if point == "none":
            await process.serve(chosen, keyring, listening, None)
            return
        around = AROUND_CALL.get(point)
        gateway = wiring.build(
            chosen,
            keyring,
            transport=DeadlyTransport(around) if around is not None else None,
            after=partial(after, AFTER_COMMIT[point]) if point in AFTER_COMMIT else None,
        )
        if point in BEFORE_COMMIT:
            watch(gateway.engine, BEFORE_COMMIT[point])
        async with process.served(gateway.web, listening):
            await asyncio.Event().wait()


def child(folder: Path, port: int, provider_port: int, point: str) -> None:
    """The process, from its first line to its end."""
    with (folder / "gateway.log").open("ab") as target, (folder / "stderr").open("ab") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
        output = log.configure("info", target)
        try:
            process.run(serve(folder, port, provider_port, point))
        finally:
            output.drain()


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
