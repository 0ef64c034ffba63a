"""The gateway on PostgreSQL: a server of its own for every session, from the wheel of the test
extra, with the settings of one that must not lose anything."""

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from bench_gateways import ROOT, STORE, Ours, PeerMissing
from bench_processes import run

sys.path.insert(0, str(ROOT / "tests"))
import postgres

SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "unix_socket_directories": "",
    "log_min_messages": "warning",
}
SIZES = """\
SELECT c.relname, pg_relation_size(c.oid) AS size FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'i')"""


class Postgres(Ours):
    name = "postgres"
    phases = frozenset(
        {"lifecycle", "send", "status", "verify", "receipts", "latency", "even", "fallback",
         "claim", "spread", "lease"}
    )  # fmt: skip
    workers: ClassVar[int] = 1

    def __init__(self, folder: Path, provider_port: int) -> None:
        self._cluster = postgres.Cluster(settings=SETTINGS, parent=_open_folder())
        super().__init__(folder, provider_port)

    @classmethod
    def prepare(cls) -> None:
        try:
            postgres.programs()
        except postgres.NoServer as error:
            raise PeerMissing(str(error)) from None

    @classmethod
    def versions(cls) -> dict[str, str]:
        said = subprocess.run(
            [str(postgres.programs() / "postgres"), "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        return {"postgresql": said.stdout.split()[-1]}

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"GATEWAY_DATABASE_URL": self._cluster.url}

    def _more(self) -> list[str]:
        return ["--workers", str(self.workers)] if self.workers > 1 else []

    def start_database(self) -> None:
        self._cluster.make()
        self._cluster.start()
        self.database_pid = self._cluster.pid
        migrate = self._command("migrate", "--config", str(self._config))
        run("`gateway migrate`", migrate, env=self._environment(), folder=self.folder)

    def close(self) -> None:
        self._cluster.remove()

    def stored(self) -> dict[str, int]:
        found = {row["relname"]: row["size"] for row in postgres.rows(self._cluster.url, SIZES)}
        return found | {"total": sum(found.values())}


class Postgres2(Postgres):
    name = "postgres2"
    phases = frozenset({"lifecycle", "send", "receipts"})
    workers = 2


def _open_folder() -> Path | None:
    """On the disk of the tree if the server, which does not run as root, may go there."""
    if os.geteuid() == 0 and not all(path.stat().st_mode & 0o001 for path in STORE.parents):
        return None
    return STORE
