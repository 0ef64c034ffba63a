"""A gateway of real parts (SQLite, ledger, services, web) with a fake clock and fake providers.

Routes: `messenger` (signed, token, polls), `octopush` (sms) and `octopush_voice` on one
account, `octopush_b` on another, `octopush_low` without receipts. Workflows: `default` =
messenger 120 s until read, sms 60 s, voice 60 s; `sms` = sms 60 s, voice 60 s; `sms_only`;
`messenger_only`; `two_routes` = sms over octopush and octopush_b, voice; `low_cost` = sms
without receipts, voice.
"""

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import re
import shutil
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import UUID, uuid4

import asyncpg
import httpx
import orjson
from contract import hold
from fakes import Clock, FakeTransport, Submission
from postgres import blocking, plain, rows
from sqlmodel import SQLModel

from gateway import config
from gateway.app import wiring
from gateway.app.routes import Realm
from gateway.config import Settings
from gateway.domain.delivery import Attempt
from gateway.domain.identity import uuid7
from gateway.domain.keyring import Keyring
from gateway.domain.verification import Status
from gateway.domain.workflow import Step, Until
from gateway.ports import Secret, Server, Tracer, Transport
from gateway.providers import PROVIDERS
from gateway.services import reconcile
from gateway.services.reconcile import Passing, Wake
from gateway.services.send import Request, Sent, prepare
from gateway.store import schema, writes
from gateway.store.engine import Engine, SqliteEngine, open_engine
from gateway.store.reads import Reads, Record
from gateway.store.records import ApiKey, Client
from gateway.web import auth

NUMBER = "+33612345678"
CALLBACK_KEY = "callback-key-of-octopush"
MESSENGER_SECRET = "messenger-callback-secret"
_TURNS = 50  # turns of the loop in which what this process does by itself is done
PATIENCE = 20  # real seconds after which what is waited for will not come


def template_database(folder: Path) -> Path:
    """A migrated, empty database."""
    path = folder / "template.db"
    schema.upgrade(path)
    return path


def keyring() -> Keyring:
    """A fixed keyring."""
    return Keyring("k1", {"k1": b"1" * 32}, b"i" * 32)


def _provider(kind: str, **values: Any) -> Any:
    chosen = PROVIDERS[kind]
    return chosen(chosen.Settings(**values))


def _octopush(name: str, channel: str = "sms", account: str = "octopush", **more: Any) -> Any:
    values = {
        "name": name,
        "channel": channel,
        "account": account,
        "api_login": "ops@example.com",
        "api_key": Secret("octopush-api-key"),
        "callback_key": (Secret(CALLBACK_KEY),),
        "base_url": f"https://{account}.example/v1/public",
        "sender": "ACME",
    }
    return _provider("octopush", **values | more)


def _step(channel: str, *routes: str, patience: int = 60, until: Until = Until.DELIVERED) -> Any:
    return Step(channel=channel, routes=routes, patience=patience, until=until)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document that an answer has to be; its further members."""
    body = dict(answer.json())
    shape = {"type", "title", "status", "code", "detail"}

    assert (status, code) == (answer.status_code, body.get("code")), answer.text
    assert "application/problem+json" == answer.headers["content-type"]
    assert shape <= body.keys()
    assert f"urn:otp-gateway:problem:{code}" == body["type"]
    assert (status, HTTPStatus(status).phrase) == (body["status"], body["title"])
    assert body["detail"]
    return {name: fact for name, fact in body.items() if name not in shape}


def make_settings(folder: Path, **octopush: Any) -> Settings:
    """Settings of the rig. Keyword arguments go to the route `octopush`."""
    settings = config.load(
        {"GATEWAY_DATA_DIR": str(folder), "GATEWAY_BRAND": "ACME"},
        public_url="http://127.0.0.1:8080",
    )
    messenger = _provider(
        "messenger",
        name="messenger",
        channel="messenger",
        account="messenger",
        token=Secret("messenger-token"),
        callback_secret=(Secret(MESSENGER_SECRET),),
        base_url="https://messenger.example/v1",
    )
    providers = (
        messenger,
        _octopush("octopush", **octopush),
        _octopush("octopush_voice", "voice"),
        _octopush("octopush_b", account="octopush_b"),
        _octopush("octopush_low", account="octopush_low", type="sms_low_cost"),
    )
    sms, voice = _step("sms", "octopush"), _step("voice", "octopush_voice")
    workflows = {
        "default": (_step("messenger", "messenger", patience=120, until=Until.READ), sms, voice),
        "sms": (sms, voice),
        "sms_only": (sms,),
        "messenger_only": (_step("messenger", "messenger", patience=60, until=Until.READ),),
        "two_routes": (_step("sms", "octopush", "octopush_b"), voice),
        "low_cost": (_step("sms", "octopush_low"), voice),
    }
    return config.replace(settings, providers, workflows)


class Now:
    """Reads, asked without `await`: on connections of their own, by a loop of their own. Those to a
    server stay for the tests that follow: every new one starts a process there."""

    _engines: ClassVar[dict[str, Engine]] = {}

    def __init__(self, store: Path | Server, kind: Callable[[Engine], Any] = Reads) -> None:
        if isinstance(store, Server):
            self._engine = self._engines.setdefault(store.url, open_engine(store))
        else:
            self._engine = open_engine(store)
        self._reads = kind(self._engine)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: blocking(getattr(self._reads, name)(*args, **kwargs))

    def close(self) -> None:
        if self._engine not in self._engines.values():
            blocking(self._engine.close())


class Beside:
    """A connection beside the gateway's own, on PostgreSQL: the part of sqlite3's that is used."""

    def __init__(self, url: str) -> None:
        self._connection = blocking(asyncpg.connect(plain(url)))

    def close(self) -> None:
        blocking(self._connection.close())

    def execute(self, statement: str) -> Any:
        return blocking(self._connection.execute(statement))

    def executemany(self, statement: str, rows: Any) -> Any:
        return blocking(self._connection.executemany(numbered(statement), rows))


def numbered(statement: str) -> str:
    """With PostgreSQL's parameters in the place of SQLite's."""
    count = itertools.count(1)
    return re.sub(r"\?", lambda _: f"${next(count)}", statement)


def dumped(store: Path | Server) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as somebody with the database and no keys sees them."""
    if isinstance(store, Server):
        return {
            name: [tuple(row) for row in rows(store.url, f'SELECT * FROM "{name}"')]  # noqa: S608
            for name in SQLModel.metadata.tables
        }
    with closing(sqlite3.connect(store)) as reader:
        tables = reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: reader.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608  (our tables)
            for (name,) in tables.fetchall()
        }


def changed(store: Path | Server, statement: str) -> None:
    """Something done to the database behind the gateway's back."""
    if isinstance(store, Server):
        rows(store.url, statement)
        return
    with closing(sqlite3.connect(store)) as opened:
        opened.execute(statement)
        opened.commit()


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")


@dataclass
class Rig:
    """The gateway under test, and hands to play caller, provider and time."""

    folder: Path
    template: Path
    clock: Clock
    transport: FakeTransport = field(default_factory=FakeTransport)
    settings: Settings | None = None
    after: Callable[[object], None] | None = None
    keyring: Keyring = field(default_factory=keyring)
    carrier: Transport | None = None
    webhooks: Transport | None = None
    test: Realm | None = None  # what test keys reach
    tracer: Tracer | None = None
    server: ClassVar[Server | None] = None  # PostgreSQL's, for tests that run on it

    async def start(self) -> None:
        """Start, on the database that is there or on a fresh one; no worker: tests pass by
        hand.
        """
        settings = self.settings or make_settings(self.folder)
        if self.server is not None:
            settings = replace(settings, server=self.server)
        elif not settings.database.exists():
            shutil.copy(self.template, settings.database)
        self.gateway = wiring.build(
            settings,
            self.keyring,
            transport=self.carrier or self.transport,
            webhooks=self.webhooks,
            test=self.test,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
            after=self._left_behind,
            tracer=self.tracer,
        )
        self.runtime = self.gateway.runtime
        self.reads = Now(settings.store)
        self.passing = Passing()
        await self.gateway.open()
        self.gateway.ledger.start()
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.gateway.web),
            base_url="http://127.0.0.1:8080",
            event_hooks={"response": [hold]},
        )
        self.key = await self.client("backend")

    @property
    def store(self) -> Path | Server:
        """The database."""
        return self.gateway.settings.store

    @property
    def sqlite(self) -> SqliteEngine:
        """The engine, for tests of what only SQLite can suffer."""
        assert isinstance(self.runtime.engine, SqliteEngine)
        return self.runtime.engine

    async def stop(self) -> None:
        """A clean stop."""
        await self.http.aclose()
        await self.gateway.stop()
        self.reads.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def restart(self) -> None:
        """A clean stop and a new start on the same database."""
        await self.stop()
        await self.start()

    def _left_behind(self, item: object) -> None:
        if self.after is not None:
            self.after(item)

    async def client(self, name: str, scopes: str = "send verify status", **more: Any) -> str:
        """A client and its key; a name that exists (after a restart) gets the next free one. `more`
        goes to the key: `test`, `rate`…
        """
        known = {one.name for one in self.reads.clients()}
        while name in known:
            name += "+"
        now = self.clock.now()
        key = auth.new_key(test=more.get("test", False))
        made = Client(uuid7(now, auth.digest(key)[:10]), name, now)
        row = ApiKey(
            uuid7(now, auth.digest(key)[10:20]),
            made.id,
            auth.digest(key),
            scopes,
            now,
            expires_at=None,
            revoked_at=None,
            **more,
        )
        engine = self.runtime.engine
        await engine.begin()
        await writes.insert_client(engine, made, row)
        await engine.commit()
        return key

    # The caller.

    async def call(self, path: str, body: Any, *, key: str | None = None) -> httpx.Response:
        """POST JSON with the rig's key, or another."""
        return await self.http.post(
            path,
            content=orjson.dumps(body),
            headers={
                "content-type": "application/json",
                "authorization": f"Bearer {key or self.key}",
            },
        )

    async def send(self, to: Any = NUMBER, **more: Any) -> dict[str, Any]:
        """Accepted and handed over; what the caller got."""
        answer = await self.call("/otp/send", {"to": to, **more})
        assert answer.status_code == 202, answer.text
        await self.settle()
        return dict(answer.json())

    async def accept(self, request: Request) -> Sent:
        """A request as the service takes it, without HTTP around it."""
        operation = await prepare(self.runtime, request, self.clock.now())
        return await self.runtime.ledger.submit(operation)

    async def verify(self, verification_id: str, code: str) -> httpx.Response:
        return await self.call("/otp/verify", {"verification_id": verification_id, "code": code})

    # Time.

    async def settle(self) -> None:
        """Until every submission under way has brought its outcome to disk."""

        async with asyncio.timeout(PATIENCE):
            while self.gateway.dispatcher.under_way or self.gateway.ledger.depth:  # noqa: ASYNC110
                await asyncio.sleep(self.breath)

    async def reconcile(self, seconds: float = 0) -> int:
        """Let time pass, then the worker."""
        self.clock.advance(seconds)
        looked = await reconcile.run_once(self.runtime, self.passing, self.clock.now())
        await self.settle()
        return looked

    # Processes: this one dies, another one runs beside it, a batch is put together.

    async def crash(self) -> None:
        """The process dies: nothing is drained, nothing released, no outcome stored."""
        ledger = self.gateway.ledger._running
        dying = [*self.gateway.dispatcher._tasks, *([ledger] if ledger is not None else [])]
        for task in dying:
            task.cancel()
        await asyncio.gather(*dying, return_exceptions=True)
        await self.http.aclose()
        await self.runtime.engine.close()
        self.reads.close()

    async def revive(self) -> None:
        """A new process on the same database; the caller keeps its key."""
        key = self.key
        await self.start()
        self.key = key

    async def beside(self, clock: Clock | None = None) -> "Rig":
        """A second process on the same database, with the same world around it, perhaps with a
        clock of its own."""
        clock = clock or self.clock
        twin = Rig(self.folder, self.template, clock, self.transport, self.settings)
        twin.webhooks = self.webhooks
        twin.key = self.key
        await twin.revive()
        return twin

    @contextlib.contextmanager
    def locked(self, *, seconds: float = 0.1) -> Iterator[Any]:
        """Another process keeps everybody from writing; on SQLite we wait so long for it."""
        with self.connect() as other:
            if self.server is None:
                self.sqlite._tries = round(seconds / 0.01)
                other.execute("BEGIN IMMEDIATE")
            else:
                names = ", ".join(f'"{name}"' for name in SQLModel.metadata.tables)
                other.execute(f"BEGIN; LOCK TABLE {names} IN EXCLUSIVE MODE")
            yield other

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """A connection beside the gateway's own, in autocommit."""
        if self.server is not None:
            opened: Any = Beside(self.server.url)
        else:
            database = self.gateway.settings.database
            opened = sqlite3.connect(database, isolation_level=None, timeout=0)
        with contextlib.closing(opened):
            yield opened

    def stopper(self) -> Wake:
        """An operation that does nothing but wait for a lock that somebody holds."""
        return Wake(named=(uuid4(),))

    @property
    def breath(self) -> float:
        """Seconds of a look around: a server's answers take their time, and its processes want the
        processor."""
        return 0 if self.server is None else 0.0005

    async def turns(self, count: int = 100) -> None:
        """Turns of the loop: enough for what can happen now to have happened."""
        for _ in range(count):
            await asyncio.sleep(2 * self.breath)

    async def together(self, *calls: Coroutine[Any, Any, Any]) -> list[Any]:
        """What the calls return, once one batch has done them all. They queue in this order."""
        ledger = self.gateway.ledger
        with self.locked():
            before = asyncio.create_task(ledger.submit(self.stopper()))  # waits for the lock
            await self.until(lambda: ledger.depth == 0, before)
            tasks = []
            for number, call in enumerate(calls, start=1):
                tasks.append(asyncio.create_task(call))
                await self.until(lambda n=number: ledger.depth == n, tasks[-1])  # type: ignore[misc]
        await before
        return await asyncio.gather(*tasks)

    async def until(self, reached: Callable[[], bool], *working: "asyncio.Task[Any]") -> None:
        """Give the loop's other tasks their turns until it is so. A task that ends before fails."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.sleep(0)
            for turn in itertools.count():
                if reached():
                    return
                assert not any(task.done() for task in working)
                await asyncio.sleep(0 if turn < _TURNS else self.breath)

    # The providers.

    async def octopush_receipt(
        self,
        submission: Submission,
        status: str,
        *,
        route: str = "octopush",
        key: str = CALLBACK_KEY,
        **changes: Any,
    ) -> httpx.Response:
        """The receipt Octopush posts for a submission: `message_id` is looked up in the store."""
        body = {
            "channel": "sms",
            "message_id": changes.get("message_id") or self.reference_of(submission),
            "number": submission.body["recipients"][0]["phone_number"],
            "status": status,
            "delivery_date": "2026-11-21 13:00:01",
            "meta_data": {},
        } | changes
        return await self.http.post(f"/otp/delivered/{route}/{key}", content=orjson.dumps(body))

    async def messenger_receipt(
        self, submission: Submission, *statuses: str, secret: str = MESSENGER_SECRET
    ) -> httpx.Response:
        """The signed callback of the messenger, one item a status."""
        items = [
            {"message_id": "m", "client_ref": submission.attempt_id, "status": status}
            for status in statuses
        ]
        return await self.signed(submission.body["callback_url"], {"statuses": items}, secret)

    async def signed(self, url: str, body: Any, secret: str = MESSENGER_SECRET) -> httpx.Response:
        """Any body, signed as the messenger does it."""
        raw = orjson.dumps(body)
        stamp = str(int(self.clock.now().timestamp()))
        mac = hmac.new(secret.encode(), f"{stamp}.".encode() + raw, hashlib.sha256).hexdigest()
        headers = {"X-Messenger-Signature": f"t={stamp},v1={mac}"}
        return await self.http.post(url, content=raw, headers=headers)

    # The database.

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table, as somebody with the file and no keys sees them."""
        return dumped(self.store)

    def moment(self, stored: Any) -> datetime:
        """A time of a dump."""
        found: datetime = stored
        return found if self.server is not None else datetime.fromtimestamp(stored / 1000, UTC)

    def record(self, verification_id: str) -> Record:
        """All that is stored of a verification."""

        found: Record | None = self.reads.record(UUID(verification_id))
        assert found is not None
        return found

    def attempts(self, verification_id: str) -> tuple[Attempt, ...]:
        return self.record(verification_id).attempts

    def states(self, verification_id: str) -> list[str]:
        """`channel:state` of each attempt, by ordinal."""
        return [f"{one.channel}:{one.state}" for one in self.attempts(verification_id)]

    def status(self, verification_id: str) -> Status:
        return self.record(verification_id).verification.status

    def reference_of(self, submission: Submission) -> str | None:
        """The provider's id of a submission, as stored."""
        for one in self.reads.records(self.reads.latest(1000), log=False):
            for attempt in one.attempts:
                if str(attempt.id) == submission.attempt_id:
                    return str(attempt.reference) if attempt.reference is not None else None
        return None
