"""Around a real gateway process: the provider it calls, the caller, and a look into its database.

Nothing here waits for time to pass but for the gateway itself, which runs on the real clock: short
looks, and a limit after which the wait has failed.
"""

import asyncio
import contextlib
import hashlib
import hmac
import multiprocessing
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import orjson
from acceptance import crash_child
from acceptance.crash_child import CALLBACK_KEY, MESSENGER_SECRET
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.app import clock, process
from gateway.domain.delivery import BY_RANK
from gateway.domain.identity import uuid7
from gateway.services.case import GRACE
from gateway.services.reconcile import MARK_EVERY, OUTAGE
from gateway.store import writes
from gateway.store.engine import SqliteEngine
from gateway.store.records import ApiKey, Client
from gateway.web import auth

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("crash_child.py")
LOOK = 0.02  # seconds between two looks
START = 30.0  # seconds a process may take to be ready
NUMBER = "+33612345678"

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["acceptance.crash_child", "acceptance.node_child"])


def busy() -> float:
    """How many times longer things may take because others want the processors too."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


async def until(what: Callable[[], Any], within: float, why: str) -> Any:
    """What it says as soon as it says something; a failure after so many seconds."""
    end = time.monotonic() + within * busy()
    while time.monotonic() < end:
        if said := what():
            return said
        await asyncio.sleep(LOOK)
    raise AssertionError(f"not within {within} s: {why}")


def free_port() -> int:
    """A port nobody listens on, below those that outgoing connections are given."""
    while True:
        port = random.randint(20_000, 30_000)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


# --- The provider -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Submission:
    """One request that reached the provider."""

    path: str  # sms-campaign, voice-campaign or messages
    body: dict[str, Any]
    at: float  # monotonic

    @property
    def attempt_id(self) -> str:
        return str(self.body.get("request_id") or self.body.get("client_ref"))

    @property
    def number(self) -> str:
        recipients = self.body.get("recipients")
        return str(recipients[0]["phone_number"] if recipients else self.body["to"])

    @property
    def code(self) -> str:
        """The code, spelled or not."""
        said = re.search(r"[0-9](?:,? ?[0-9]){3,9}", self.body["text"])
        assert said is not None
        return re.sub(r"\D", "", said.group())


@dataclass
class Providers:
    """Octopush (which knows a request_id again: code 120) and the messenger (which does not)."""

    submissions: list[Submission] = field(default_factory=list)
    tickets: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    during: Callable[[Submission], Awaitable[object]] | None = None

    async def _take(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        path = request.url.path.strip("/").split("/")[1]
        submission = Submission(path, body, time.monotonic())
        self.submissions.append(submission)
        if self.delay:
            await asyncio.sleep(self.delay)
        named = submission.attempt_id
        repeated = path != "messages" and named in self.tickets
        if not repeated:
            self.tickets[named] = f"{path[:3]}_{len(self.tickets):013x}"
        if self.during is not None:
            await self.during(submission)
        if path == "messages":
            return _json(202, {"message_id": self.tickets[named], "status": "accepted"})
        if repeated:
            return _json(400, {"code": 120, "message": "request_id was seen before"})
        return _json(201, {f"{path[:3]}_ticket": self.tickets[named], "total_cost": 0.05})

    def to(self, path: str) -> list[Submission]:
        return [one for one in self.submissions if one.path == path]

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncGenerator[int]:
        """At the port it yields."""
        web = Starlette(routes=[Route("/{rest:path}", self._take, methods=["POST"])])
        with process.bind("127.0.0.1", 0) as listening:
            async with process.served(web, listening, grace=1):
                yield process.port_of(listening)


def _json(status: int, body: object) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


# --- The gateway --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a caller got."""

    status_code: int
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return orjson.loads(self.content)


@dataclass(frozen=True)
class Child:
    """A process that was started: forked from one that has imported everything, or as a command."""

    kill: Callable[[], None]
    terminate: Callable[[], None]
    code: Callable[[], int | None]


def forked(folder: Path, port: int, provider_port: int, point: str) -> Child:
    made = FORKS.Process(
        target=crash_child.child, args=(folder, port, provider_port, point), daemon=True
    )
    made.start()
    return Child(made.kill, made.terminate, lambda: made.exitcode)


def executed(folder: Path, port: int, provider_port: int, point: str) -> Child:
    made = subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), str(port), str(provider_port), point],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    return Child(made.kill, made.terminate, made.poll)


class Process:
    """A gateway in a folder of its own, with the world around it."""

    def __init__(
        self,
        folder: Path,
        template: Path,
        providers: Providers,
        provider_port: int,
        launch: Callable[[Path, int, int, str], Child],
    ) -> None:
        self.folder = folder
        self.providers = providers
        self.key = auth.new_key()
        self.database = folder / "gateway.db"
        self.database.write_bytes(template.read_bytes())
        self.ready_at = 0.0  # seconds of the epoch
        self._left_at: float | None = None
        self.grace = 0.0  # seconds patience is extended by: the start took as long as an outage
        self._provider_port = provider_port
        self._port = free_port()
        self._launch = launch
        self._child: Child | None = None
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=30),
        )

    async def add_client(self) -> None:
        """A client whose key the caller has."""
        engine = SqliteEngine(self.database)
        now = clock.now()
        named = uuid7(now, os.urandom(10))
        key = ApiKey(
            uuid7(now, os.urandom(10)),
            named,
            auth.digest(self.key),
            "send verify status",
            now,
            None,
            None,
        )
        await engine.begin()
        await writes.insert_client(engine, Client(named, "backend", now), key)
        await engine.commit()
        await engine.close()

    async def start(self, point: str = "none") -> None:
        """Until it is ready."""
        self._child = self._launch(self.folder, self._port, self._provider_port, point)
        end = time.monotonic() + START * busy()
        while time.monotonic() < end and self._child.code() is None:
            answer = await self._ask("GET", "/readyz")
            if answer is not None and answer.status_code == 200:
                self.ready_at = time.time()
                away = timedelta(seconds=self.ready_at - (self._left_at or self.ready_at))
                if away > OUTAGE - MARK_EVERY:
                    self.grace = GRACE.total_seconds()
                return
            await asyncio.sleep(LOOK)
        raise AssertionError(f"did not start: {self._errors()}")

    async def died(self, within: float = 15.0) -> None:
        """Until the point has been reached."""
        assert -signal.SIGKILL == await self.ended(within), self._errors()

    async def ended(self, within: float) -> int:
        """Its exit code."""
        child = self.child
        await until(lambda: child.code() is not None, within, "the end of the process")
        self._left_at = time.time()
        code = child.code()
        assert code is not None
        return code

    @property
    def child(self) -> Child:
        assert self._child is not None
        return self._child

    async def close(self) -> None:
        """Nothing of it is left running."""
        await self.http.close()
        if self._child is not None and self._child.code() is None:
            self._child.kill()
            await self.ended(10)

    def _errors(self) -> str:
        file = self.folder / "stderr"
        return file.read_text()[-2000:] if file.exists() else ""

    # The caller.

    async def _ask(
        self, method: str, path: str, raw: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer | None:
        """The answer; None when none came."""
        url = path if path.startswith("http") else f"http://127.0.0.1:{self._port}{path}"
        try:
            async with self.http.request(method, url, data=raw or None, headers=headers) as answer:
                return Answer(answer.status, await answer.read())
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def call(self, path: str, body: Any) -> Answer | None:
        """The answer to a request with the client's key; None when none came."""
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        return await self._ask("POST", path, orjson.dumps(body), headers)

    async def send(self, workflow: str, to: str = NUMBER) -> Answer | None:
        return await self.call("/otp/send", {"to": to, "workflow": workflow, "code_length": 10})

    async def status(self, **named: str) -> dict[str, Any] | None:
        """None where it knows nothing of it."""
        answer = await self.call("/otp/status", named)
        assert answer is not None
        assert answer.status_code in {200, 404}, answer.text
        return answer.json() if answer.status_code == 200 else None

    async def known(self, to: str = NUMBER) -> dict[str, Any]:
        """The status of a number it must know."""
        found = await self.status(number=to)
        assert found is not None, f"nothing is known of {to}"
        return found

    async def verify(self, code: str, to: str = NUMBER) -> Answer | None:
        return await self.call("/otp/verify", {"number": to, "code": code})

    # The providers' receipts.

    async def receipt(self, submission: Submission, word: str) -> int | None:
        """The status of the answer; None when none came."""
        if submission.path == "messages":
            item = {"message_id": "m", "client_ref": submission.attempt_id, "status": word}
            raw = orjson.dumps({"statuses": [item]})
            stamp = str(int(time.time()))
            mac = hmac.new(MESSENGER_SECRET.encode(), f"{stamp}.".encode() + raw, hashlib.sha256)
            url = submission.body["callback_url"]
            headers = {"X-Messenger-Signature": f"t={stamp},v1={mac.hexdigest()}"}
        else:
            ticket = self.providers.tickets[submission.attempt_id]
            item = {"message_id": ticket, "number": submission.number, "status": word}
            raw, headers = orjson.dumps(item), {}
            url = f"/otp/delivered/octopush/{CALLBACK_KEY}"
        answer = await self._ask("POST", url, raw, headers)
        return answer.status_code if answer is not None else None

    # The database, as a reader beside it sees it.

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as reader:
            return reader.execute(query).fetchall()

    def states(self) -> list[str]:
        """`channel:state` of each attempt, by ordinal; also while no process runs."""
        rows = self.rows("SELECT channel, state FROM attempt ORDER BY verification_id, ordinal")
        return [f"{channel}:{BY_RANK[state]}" for channel, state in rows]

    def attempt_ids(self) -> set[str]:
        return {str(UUID(bytes=named)) for (named,) in self.rows("SELECT id FROM attempt")}

    async def submitted(self, count: int, within: float) -> Sequence[Submission]:
        """Until the providers have seen so many."""
        seen = self.providers.submissions
        await until(
            lambda: len(seen) >= count,
            within + self.grace,
            f"{count} submissions; {len(seen)} came",
        )
        return seen

    def check(self) -> None:
        """What holds after every crash: the file is whole, each submission has its row, none went
        twice to the messenger, and to Octopush only under its own id; one code on every channel.
        """
        seen = self.providers.submissions
        by_number: dict[str, set[str]] = {}
        for one in seen:
            by_number.setdefault(one.number, set()).add(one.code)
        sent_to = [one.attempt_id for one in self.providers.to("messages")]
        ordinals = self.rows("SELECT verification_id, ordinal FROM attempt")

        assert [("ok",)] == self.rows("PRAGMA integrity_check")
        assert {one.attempt_id for one in seen} <= self.attempt_ids()
        assert len(set(sent_to)) == len(sent_to)
        assert len(set(ordinals)) == len(ordinals)
        assert all(len(codes) == 1 for codes in by_number.values())


@contextlib.asynccontextmanager
async def gateway(
    folder: Path, template: Path, launch: Callable[[Path, int, int, str], Child] = executed
) -> AsyncGenerator[Process]:
    """A gateway that can be started, with its providers up."""
    providers = Providers()
    async with providers.serving() as port:
        process = Process(folder, template, providers, port, launch)
        await process.add_client()
        try:
            yield process
        finally:
            await process.close()
