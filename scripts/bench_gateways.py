"""The gateways under measurement: how each is started, called and stopped. All get the same send
request; the provider is the same stub, on the same port of the same run.
"""

import json
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar

from bench_processes import PEERS, BenchError, Server, environment, run

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / ".bench"  # ignored by git: Express' packages and, while it runs, the databases

CONFIG = """\
public_url = "http://127.0.0.1:{port}"

[routes.octopush]
provider = "octopush"
channel = "sms"
api_login = "bench@example.com"
api_key = {{ env = "OCTOPUSH_API_KEY" }}
callback_key = {{ env = "OCTOPUSH_CALLBACK_KEY" }}
sender = "BENCH"
base_url = "http://127.0.0.1:{provider}/v1/public"
concurrency = 128

[workflows.default]
steps = [{{ channel = "sms", routes = ["octopush"], patience = {patience}, until = "delivered" }}]
"""


# Two steps on the same provider: what is not reported falls back to the second.
# The brake on fallbacks where silence has become the rule is off: here it is the rule.
FALLING_BACK = (
    "silent_fallbacks = 1000000\n"
    + CONFIG.partition("[workflows.default]")[0]
    + """\
[routes.octopush_b]
provider = "octopush"
channel = "sms"
account = "octopush_b"
api_login = "bench@example.com"
api_key = {{ env = "OCTOPUSH_API_KEY" }}
callback_key = {{ env = "OCTOPUSH_CALLBACK_KEY" }}
sender = "BENCH"
base_url = "http://127.0.0.1:{provider}/v1/public"
concurrency = 128

[workflows.default]
steps = [
  {{ channel = "sms", routes = ["octopush"], patience = {patience}, until = "delivered" }},
  {{ channel = "sms", routes = ["octopush_b"], patience = 60, until = "delivered" }},
]
"""
)


class PeerMissing(BenchError):
    """This machine cannot run that peer; the others can be measured."""


class Gateway:
    """One peer. A fresh one, with a fresh folder, for every session."""

    name: ClassVar[str]
    phases: ClassVar[frozenset[str]]
    accepted: ClassVar[int] = 200  # answer to a send
    identifier: ClassVar[str | None] = None  # the answer's field that status and verify ask by
    delivery: ClassVar[str] = "status"  # the status answer's field that becomes DELIVERED
    loses_receipts: ClassVar[bool] = False  # known to acknowledge receipts it cannot place
    share: ClassVar[float] = 1.0  # of the operations, where it takes fewer for a steady CPU time
    has_provider: ClassVar[bool] = True
    receipts: str = ""  # path the provider posts receipts to
    database_pid: int | None = None  # of a database that is a process of its own

    def __init__(self, folder: Path, provider_port: int) -> None:
        self.folder = folder
        self.provider_port = provider_port
        self.port = _free_port()
        self.headers = {"Authorization": f"Bearer {secrets.token_urlsafe(32)}"}
        self.server = self._server()

    @classmethod
    def prepare(cls) -> None:
        """What must be there before the first round; BenchError when it cannot be."""

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {}

    def _server(self) -> Server:
        raise NotImplementedError

    def start(self) -> None:
        self.server.start(self.port)

    def stop(self) -> dict[str, Any]:
        """Ends the server and says what it told about itself."""
        self.server.stop()
        return {}

    def close(self) -> None:
        """Whatever else was started for it ends."""

    def stored(self) -> dict[str, int]:
        """Bytes on disk by table and index, where that is known; `total` is all of them."""
        return {}


class Ours(Gateway):
    name = "ours"
    phases = frozenset(
        {"lifecycle", "send", "status", "verify", "receipts", "latency", "even", "slow",
         "fallback", "claim", "spread", "lease", "memory", "growth"}
    )  # fmt: skip
    accepted = 202
    patience: ClassVar[int] = 600  # seconds for a receipt: more than any phase takes
    falls_back: ClassVar[bool] = False  # once it is over, to a second step
    commit_delay: ClassVar[int] = 0  # milliseconds more for each commit
    identifier = "verification_id"
    delivery = "delivery_status"

    def _server(self) -> Server:
        self._callback_key = secrets.token_urlsafe(24)
        self.receipts = f"/otp/delivered/octopush/{self._callback_key}"
        self._config = self.folder / "gateway.toml"
        self._config.write_text(self._settings())
        self.data = self._data()
        command = self._command("serve", "--config", str(self._config), "--port", str(self.port))
        command += self._more()
        return Server(
            self.name, command, env=self._environment(), folder=self.folder, ready="/readyz"
        )

    def _data(self) -> Path:
        return self.folder / "data"

    def _more(self) -> list[str]:
        """Further arguments of `serve`."""
        return []

    def _settings(self) -> str:
        settings = FALLING_BACK if self.falls_back else CONFIG
        return settings.format(port=self.port, provider=self.provider_port, patience=self.patience)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gateway", *arguments]

    def _environment(self) -> dict[str, str]:
        found = environment(
            PYTHONPATH=str(ROOT),
            GATEWAY_DATA_DIR=str(self.data),
            OCTOPUSH_API_KEY="bench-api-key",
            OCTOPUSH_CALLBACK_KEY=self._callback_key,
        )
        if self.commit_delay:
            found["GATEWAY_COMMIT_DELAY_MS"] = str(self.commit_delay)
        return found

    def start(self) -> None:
        self.start_database()
        super().start()
        self.headers = {"Authorization": f"Bearer {self._client_key()}"}

    def start_database(self) -> None:
        """What has to run before the gateway does."""

    def lease(self, rows: int) -> dict[str, Any]:
        """What bench_lease.py says of so many due rows, on a database without a gateway."""
        self.start_database()
        command = [sys.executable, str(ROOT / "scripts" / "bench_lease.py"), str(self._config)]
        command += [str(rows), str(self.database_pid or 0)]
        done = run("bench_lease.py", command, env=self._environment(), folder=self.folder)
        found: dict[str, Any] = json.loads(done)
        return found

    def restart(self) -> None:
        """After a kill: the same folder, port and client key."""
        self.server.start(self.port)

    def _client_key(self) -> str:
        command = self._command("client", "add", "bench", "--json", "--config", str(self._config))
        made = subprocess.run(
            command,
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        try:
            return str(json.loads(made.stdout)["key"])
        except (ValueError, KeyError, TypeError):
            raise BenchError(
                f"`gateway client add` gave no key (exit code {made.returncode}):\n"
                f"{made.stdout[-2000:]}{made.stderr[-2000:]}"
            ) from None

    def stop(self) -> dict[str, Any]:
        super().stop()
        return self._ledger_closed()

    def stored(self) -> dict[str, int]:
        return bytes_in_sqlite(self.data / "gateway.db")

    def _ledger_closed(self) -> dict[str, Any]:
        """Operations and commits of the server's whole life, as each of its processes logs them."""
        found = {"operations": 0, "commits": 0}
        for line in self.server.log.read_text(errors="replace").splitlines():
            if "ledger_closed" not in line:
                continue
            try:
                event = json.loads(line)
                told = {name: int(event[name]) for name in found}
            except (ValueError, KeyError, TypeError):
                continue
            found = {name: found[name] + told[name] for name in found}
        return found if found["commits"] else {}


def variant(make: type[Ours], **changed: Any) -> type[Ours]:
    """The same gateway with other settings."""
    return type(make.__name__, (make,), changed)


class Naive(Gateway):
    """The first draft: FastAPI, a SQLModel session a request, httpx inline."""

    name = "naive"
    phases = frozenset({"lifecycle", "send", "status", "verify", "receipts"})
    identifier = "verification_id"
    delivery = "delivery_status"
    loses_receipts = True
    share = 1 / 6  # each takes ten times and more what another's does
    receipts = "/otp/delivered"
    source = PEERS / "naive"
    folder_of_packages = STORE / "naive"

    @classmethod
    def prepare(cls) -> None:
        wanted = (cls.source / "requirements.txt").read_text()
        stamp = cls.folder_of_packages / "installed.txt"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print("Installing FastAPI and its company into .bench/naive …", file=sys.stderr)
        if cls.folder_of_packages.exists():
            shutil.rmtree(cls.folder_of_packages)
        run("making .bench/naive", [sys.executable, "-m", "venv", str(cls.folder_of_packages)])
        pip = [str(cls._python()), "-m", "pip", "install", "--quiet"]
        requirements = ["-r", str(cls.source / "requirements.txt")]
        run("pip install", [*pip, "--disable-pip-version-check", *requirements])
        stamp.write_text(wanted)

    @classmethod
    def _python(cls) -> Path:
        return cls.folder_of_packages / "bin" / "python"

    @classmethod
    def versions(cls) -> dict[str, str]:
        pinned = (cls.source / "requirements.txt").read_text().split()
        pairs = (line.partition("==") for line in pinned)
        return {f"naive {name}": version for name, _, version in pairs}

    def _server(self) -> Server:
        command = [str(self._python()), "-m", "uvicorn", "server:app", "--app-dir"]
        command += [str(self.source), "--host", "127.0.0.1", "--port", str(self.port)]
        # A connection may rest for longer than the usual 5 s while others are served.
        command += ["--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "75"]
        env = environment(
            PYTHONDONTWRITEBYTECODE="1",
            DATABASE_URL=f"sqlite:///{self.folder / 'naive.db'}",
            PROVIDER_URL=f"http://127.0.0.1:{self.provider_port}/v1/public",
            API_LOGIN="bench@example.com",
            API_KEY="bench-api-key",
        )
        return Server(self.name, command, env=env, folder=self.folder, ready="/")


class Express(Gateway):
    name = "express"
    phases = frozenset({"lifecycle", "send", "status", "receipts", "latency", "even"})
    identifier = "message_id"
    loses_receipts = True
    receipts = "/otp/delivered"
    source = PEERS / "express"
    folder_of_packages = STORE / "express"

    @classmethod
    def prepare(cls) -> None:
        if not shutil.which("node") or not shutil.which("npm"):
            raise PeerMissing("node and npm are not on this machine: no Express columns")
        cls.folder_of_packages.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "server.js"):
            shutil.copyfile(cls.source / name, cls.folder_of_packages / name)
        if cls._installed() != cls._pinned():
            cls._install()

    @classmethod
    def _install(cls) -> None:
        print("Installing Express and axios into .bench/express …", file=sys.stderr)
        flags = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        run("npm install", ["npm", "install", *flags], folder=cls.folder_of_packages)
        if cls._installed() != cls._pinned():
            raise BenchError(f"npm installed {cls._installed()}, wanted was {cls._pinned()}")

    @classmethod
    def _pinned(cls) -> dict[str, str]:
        versions: dict[str, str] = json.loads((cls.source / "package.json").read_text())[
            "dependencies"
        ]
        return versions

    @classmethod
    def _installed(cls) -> dict[str, str]:
        manifests = {
            name: cls.folder_of_packages / "node_modules" / name / "package.json"
            for name in cls._pinned()
        }
        return {
            name: json.loads(path.read_text())["version"]
            for name, path in manifests.items()
            if path.exists()
        }

    @classmethod
    def versions(cls) -> dict[str, str]:
        return cls._installed()

    def _server(self) -> Server:
        env = environment(
            NODE_ENV="production",
            PORT=str(self.port),
            PROVIDER_URL=f"http://127.0.0.1:{self.provider_port}/v1/public",
            API_LOGIN="bench@example.com",
            API_KEY="bench-api-key",
        )
        command = ["node", str(self.folder_of_packages / "server.js")]
        return Server(self.name, command, env=env, folder=self.folder, ready="/")


class StarletteEcho(Gateway):
    name = "starlette"
    phases = frozenset({"send", "even"})
    has_provider = False

    def _server(self) -> Server:
        command = [sys.executable, "-m", "uvicorn", "starlette_echo:app", "--app-dir", str(PEERS)]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        command += ["--log-level", "warning"]
        env = environment(PYTHONDONTWRITEBYTECODE="1")
        return Server(self.name, command, env=env, folder=self.folder, ready="/")


def bytes_in_sqlite(file: Path) -> dict[str, int]:
    """What each table and index occupies, without the free pages."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as opened:
        size, pages, free = (
            opened.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "freelist_count")
        )
        found = {"total": size * (pages - free)}
        with suppress(sqlite3.OperationalError):  # not every SQLite has dbstat
            found |= dict(opened.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
