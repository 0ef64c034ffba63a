"""`gateway serve --workers 3` on PostgreSQL, as users start it: one port, three processes, and one
of them killed now and then.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import postgres
import pytest
from acceptance.outside import NUMBER, ROOT, Providers, free_port, until

from gateway.domain.workflow import MAX_TRIES
from gateway.ports import Server

pytestmark = pytest.mark.timeout(240)

WORKERS = 3
SENDS = 120
KILLS = 3
TIMEOUT = 2  # seconds, the route's; its lease is five more
_TOML = """
[routes.octopush]
provider = "octopush"
channel = "sms"
base_url = "http://127.0.0.1:{port}/octopush"
api_login = "ops@example.com"
api_key = {{ env = "OCTOPUSH_API_KEY" }}
callback_key = {{ env = "OCTOPUSH_CALLBACK_KEY" }}
timeout = {timeout}
sender = "ACME"

[workflows.default]
steps = [{{ channel = "sms", routes = ["octopush"], patience = 200, until = "delivered" }}]
"""


@dataclass
class Command:
    """`gateway`, with settings of its own."""

    folder: Path
    url: str
    port: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "GATEWAY_DATA_DIR": str(self.folder / "data"),
            "GATEWAY_DATABASE_URL": self.url,
            "GATEWAY_CONFIG": str(self.folder / "gateway.toml"),
            "OCTOPUSH_API_KEY": "octopush-api-key",
            "OCTOPUSH_CALLBACK_KEY": "callback-key",
        }

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            check=False,
            capture_output=True,
            cwd=self.folder,
            env=self.environment,
            timeout=60,
        )

    def log(self) -> str:
        """What its processes have told."""
        return (self.folder / "log").read_text()

    @contextlib.contextmanager
    def serving(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve", "--port", str(self.port), *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
            try:
                yield process
            finally:
                process.terminate()
                process.wait(60)


def workers(of: "subprocess.Popen[bytes]") -> list[int]:
    """The processes it has started."""
    text = Path(f"/proc/{of.pid}/task/{of.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


@pytest.fixture
async def providers() -> AsyncIterator[tuple[Providers, int]]:
    made = Providers(delay=0.05)
    async with made.serving() as port:
        yield made, port


@pytest.fixture
def command(tmp_path: Path, on_postgres: Server, providers: tuple[Providers, int]) -> Command:
    toml = _TOML.format(port=providers[1], timeout=TIMEOUT)
    (tmp_path / "gateway.toml").write_text(toml)
    return Command(tmp_path, on_postgres.url, free_port())


async def test_what_is_acknowledged_is_sent_once_whoever_is_killed(
    command: Command, providers: tuple[Providers, int], on_postgres: Server
) -> None:
    """0 lost, 0 doubled: each number has one attempt, and its provider saw that one alone. It did
    not see what was claimed as often as may be by processes that were killed, or too slow: whether
    that left is unknown, and its patience runs (design §6.6).
    """
    with postgres.database(on_postgres.url) as url:
        command.url = url
        assert 0 == (migrated := command.run("migrate")).returncode, migrated.stderr
        key = orjson.loads(command.run("client", "add", "backend", "--json").stdout)["key"]
        with command.serving("--workers", str(WORKERS)) as serving:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
                acknowledged = await storm(command, serving, http, key)
                await until(
                    lambda: all(done(row, providers[0]) for row in attempts(url)),
                    30,
                    "every attempt is on its way",
                )
        stored = postgres.rows(url, "SELECT id::text FROM verification")
        made = {row["id"] for row in attempts(url)}
    seen = providers[0].submissions
    by_number: dict[str, set[str]] = {}
    for one in seen:
        by_number.setdefault(one.number, set()).add(one.attempt_id)

    assert SENDS == len(acknowledged)
    assert {row["id"] for row in stored} >= set(acknowledged.values())
    assert SENDS == len(stored) == len(made)
    assert made >= (sent := {one.attempt_id for one in seen})
    assert len(sent) >= SENDS - SENDS // 10
    assert {1} == {len(ids) for ids in by_number.values()}


def attempts(url: str) -> Sequence[Any]:
    return postgres.rows(url, "SELECT id::text, state, tries FROM attempt")


def done(attempt: Any, providers: Providers) -> bool:
    """The provider saw it; or every try was claimed by a process that was killed, or too slow."""
    sent = any(attempt["id"] == one.attempt_id for one in providers.submissions)
    return attempt["state"] != 0 and (sent or attempt["tries"] >= MAX_TRIES)


async def storm(
    command: Command,
    serving: "subprocess.Popen[bytes]",
    http: aiohttp.ClientSession,
    key: str,
) -> dict[str, str]:
    """Send to each number until it is acknowledged, while workers die: their verifications."""
    acknowledged: dict[str, str] = {}
    room = asyncio.Semaphore(8)
    url = f"http://127.0.0.1:{command.port}/otp"

    async def one(number: str) -> None:
        headers = {"authorization": f"Bearer {key}"}
        async with room:
            while number not in acknowledged:
                try:
                    async with http.post(
                        f"{url}/send", json={"to": number, "ttl": 600}, headers=headers
                    ) as answer:
                        body = await answer.json()
                        status = answer.status
                    if status == 429:  # stored before its process died: joined, and told to wait
                        body = await asked(http, url, headers, number)
                    if status in {202, 429}:
                        acknowledged[number] = body["verification_id"]
                except (aiohttp.ClientError, TimeoutError):
                    await asyncio.sleep(0.05)

    await until(lambda: len(workers(serving)) == WORKERS, 30, "the workers")
    tasks = [asyncio.ensure_future(one(f"+3361234{at:04}")) for at in range(SENDS)]
    for kill in range(KILLS):
        mark = (kill + 1) * SENDS // (KILLS + 2)
        await until(lambda mark=mark: len(acknowledged) >= mark, 60, f"{mark} sends")  # type: ignore[misc]
        os.kill(workers(serving)[kill % len(workers(serving))], signal.SIGKILL)
    await asyncio.gather(*tasks)
    return acknowledged


async def asked(
    http: aiohttp.ClientSession, url: str, headers: dict[str, str], number: str
) -> dict[str, str]:
    async with http.post(f"{url}/status", json={"number": number}, headers=headers) as answer:
        found: dict[str, str] = await answer.json()
        return found


async def test_a_rolling_restart_loses_nothing(
    command: Command, providers: tuple[Providers, int], on_postgres: Server
) -> None:
    """Every process is replaced under load; where new settings are broken the others go on."""
    with postgres.database(on_postgres.url) as url:
        command.url = url
        command.run("migrate")
        key = orjson.loads(command.run("client", "add", "backend", "--json").stdout)["key"]
        with command.serving("--workers", "2") as serving:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
                await ready(http, f"http://127.0.0.1:{command.port}")
                await until(lambda: len(workers(serving)) == 2, 30, "the workers")
                before = workers(serving)
                acknowledged: dict[str, str] = {}
                serving.send_signal(signal.SIGHUP)
                while "workers_renewed" not in command.log():
                    number = f"+3361235{len(acknowledged):04}"
                    acknowledged[number] = await sent(http, command, key, number)
                after = workers(serving)
                (command.folder / "gateway.toml").write_text("[routes.octopush]")
                serving.send_signal(signal.SIGHUP)
                await until(lambda: "workers_not_renewed" in command.log(), 30, "giving up")
                await sent(http, command, key, NUMBER)
        stored = postgres.rows(url, "SELECT id::text FROM verification")

    assert not set(before) & set(after)
    assert len(acknowledged) > 0
    assert len(stored) == len(acknowledged) + 1
    assert {row["id"] for row in stored} > set(acknowledged.values())


async def sent(http: aiohttp.ClientSession, command: Command, key: str, number: str) -> str:
    """Once acknowledged: its verification. A connection that is closed under it is made anew."""
    headers = {"authorization": f"Bearer {key}", "idempotency-key": number}
    while True:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with http.post(
                f"http://127.0.0.1:{command.port}/otp/send", json={"to": number}, headers=headers
            ) as answer:
                assert answer.status == 202, await answer.text()
                return str((await answer.json())["verification_id"])


@pytest.mark.parametrize("arguments", [("--workers", "2"), ("--role", "api")])
def test_sqlite_is_served_by_one_process(command: Command, arguments: tuple[str, str]) -> None:
    command.url = f"sqlite:///{command.folder}/gateway.db"
    refused = command.run("serve", "--port", "0", *arguments)

    assert 2 == refused.returncode
    assert f"{arguments[0]}: needs PostgreSQL" in refused.stderr.decode()


def test_an_old_schema_is_refused(command: Command, postgres_server: str) -> None:
    with postgres.database(postgres_server) as url:
        command.url = url
        refused = command.run("serve", "--port", "0")

    assert 2 == refused.returncode
    assert "has no schema. Run: gateway migrate" in refused.stderr.decode()


def test_a_server_that_does_not_answer_is_told_by_its_address(command: Command) -> None:
    command.url = f"postgresql+asyncpg://me:secret@127.0.0.1:{free_port()}/gate"
    refused = command.run("migrate")

    assert refused.returncode
    assert b"postgresql://127.0.0.1" in refused.stderr
    assert b"secret" not in refused.stderr


async def test_each_role_does_its_part(
    command: Command, providers: tuple[Providers, int], on_postgres: Server
) -> None:
    """A worker takes no calls; an API process is ready without a pass of its own."""
    with postgres.database(on_postgres.url) as url:
        command.url = url
        command.run("migrate")
        async with aiohttp.ClientSession() as http:
            for role, expected in (("api", 401), ("worker", 404)):
                with command.serving("--role", role):
                    base = f"http://127.0.0.1:{command.port}"
                    await ready(http, base)
                    async with http.post(f"{base}/otp/send", json={}) as answer:
                        assert expected == answer.status
                        told = "This process is a worker" in (await answer.json())["detail"]
                        assert told == (role == "worker")


async def ready(http: aiohttp.ClientSession, base: str) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"{base}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)
