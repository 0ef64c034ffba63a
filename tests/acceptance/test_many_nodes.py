"""Several processes on one port and one PostgreSQL: killed under load, restarted one by one, each
in its role.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import postgres
import pytest
from acceptance import node_child
from acceptance.outside import FORKS, NUMBER, ROOT, Providers, free_port, until

from gateway.domain.workflow import MAX_TRIES
from gateway.ports import Server

pytestmark = pytest.mark.timeout(240)

WORKERS = 3
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


def attempts(url: str) -> Sequence[Any]:
    return postgres.rows(url, "SELECT id::text, state, tries FROM attempt")


def settled(url: str, providers: Providers) -> bool:
    """The provider saw every attempt; or every try of it was claimed by a node that was killed, or
    too slow: whether it left is unknown, and its patience runs (design §6.6).
    """
    seen = {one.attempt_id for one in providers.submissions}
    return all(
        one["state"] != 0 and (one["id"] in seen or one["tries"] >= MAX_TRIES)
        for one in attempts(url)
    )


async def test_one_of_three_is_killed_every_second(
    command: Command,
    providers: tuple[Providers, int],
    on_postgres: Server,
    request: pytest.FixtureRequest,
) -> None:
    """Under load, for a minute with --long: 0 lost, 0 doubled."""
    seconds = 60 if request.config.getoption("--long") else 5
    with postgres.database(on_postgres.url) as url:
        command.url = url
        command.run("migrate")
        key = orjson.loads(command.run("client", "add", "backend", "--json").stdout)["key"]
        with crew(command) as nodes:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
                await ready(http, f"http://127.0.0.1:{command.port}")
                acknowledged: dict[str, str] = {}
                over = asyncio.Event()

                async def lane(of: int) -> None:
                    """To one number after the other, each until it is acknowledged."""
                    for at in itertools.takewhile(lambda _: not over.is_set(), itertools.count()):
                        number = f"+336{of:02}{at:06}"
                        acknowledged[number] = await sent_to(http, command, key, number)
                        await asyncio.sleep(0.05)

                load = [asyncio.ensure_future(lane(of)) for of in range(8)]
                for _ in range(seconds):
                    await asyncio.sleep(1)
                    nodes.replace_oldest()
                over.set()
                await asyncio.gather(*load)
                await until(lambda: settled(url, providers[0]), 60, "every attempt is on its way")
        stored = postgres.rows(url, "SELECT id::text FROM verification")
        made = {row["id"] for row in attempts(url)}
    sent = {one.attempt_id for one in providers[0].submissions}
    reached = {one.number for one in providers[0].submissions}

    assert len(acknowledged) >= seconds
    assert set(acknowledged.values()) == {row["id"] for row in stored}
    assert len(made) == len(stored)
    assert made >= sent
    assert len(reached) == len(sent) >= len(made) - len(made) // 10


@dataclass
class Crew:
    """Three nodes, each forked."""

    command: Command
    nodes: list[Any] = field(default_factory=list)

    def start(self) -> None:
        given = (self.command.environment, self.command.port, self.command.folder / "nodes")
        node = FORKS.Process(target=node_child.node, args=given, daemon=True)
        node.start()
        self.nodes.append(node)

    def replace_oldest(self) -> None:
        oldest = self.nodes.pop(0)
        oldest.kill()
        oldest.join()
        self.start()


@contextlib.contextmanager
def crew(command: Command) -> Iterator[Crew]:
    made = Crew(command)
    for _ in range(WORKERS):
        made.start()
    try:
        yield made
    finally:
        for node in made.nodes:
            node.kill()
            node.join()


async def test_a_rolling_restart_loses_nothing(
    command: Command, providers: tuple[Providers, int], on_postgres: Server
) -> None:
    """Who is killed is started anew, every process is replaced under load, and where new settings
    are broken the others go on.
    """
    with postgres.database(on_postgres.url) as url:
        command.url = url
        command.run("migrate")
        key = orjson.loads(command.run("client", "add", "backend", "--json").stdout)["key"]
        with command.serving("--workers", "2") as serving:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
                await ready(http, f"http://127.0.0.1:{command.port}")

                def listening() -> int:
                    return command.log().count("The gateway listens")

                await until(lambda: listening() == 2, 30, "the workers")
                os.kill(workers(serving)[0], signal.SIGKILL)
                await until(lambda: listening() == 3, 30, "a new worker")
                before = workers(serving)
                acknowledged: dict[str, str] = {}
                serving.send_signal(signal.SIGHUP)
                while "workers_renewed" not in command.log():
                    number = f"+3361235{len(acknowledged):04}"
                    acknowledged[number] = await sent_to(http, command, key, number)
                after = workers(serving)
                (command.folder / "gateway.toml").write_text("[routes.octopush]")
                serving.send_signal(signal.SIGHUP)
                await until(lambda: "workers_not_renewed" in command.log(), 30, "giving up")
                await sent_to(http, command, key, NUMBER)
        stored = postgres.rows(url, "SELECT id::text FROM verification")

    assert not set(before) & set(after)
    assert len(acknowledged) > 0
    assert len(stored) == len(acknowledged) + 1
    assert {row["id"] for row in stored} > set(acknowledged.values())


async def sent_to(http: aiohttp.ClientSession, command: Command, key: str, number: str) -> str:
    """Once acknowledged: its verification. A connection that is closed under it is made anew."""
    headers = {"authorization": f"Bearer {key}", "idempotency-key": number}
    while True:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with http.post(
                f"http://127.0.0.1:{command.port}/otp/send", json={"to": number}, headers=headers
            ) as answer:
                body = await answer.json()
                if answer.status == 202:
                    return str(body["verification_id"])
                assert answer.status == 503, body  # nothing was stored
        await asyncio.sleep(0.05)


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
