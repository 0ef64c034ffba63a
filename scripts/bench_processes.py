"""The processes scripts/bench starts, and what /proc says they used. Nothing else is ever ended:
each server leads a process group of its own, and dies with the bench should the bench die first.
"""

import ctypes
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent / "bench_peers"
TICKS = os.sysconf("SC_CLK_TCK")
READY_WITHIN = 60  # seconds; a busy machine may need twenty
STOP_WITHIN = 15
RUN_WITHIN = 300  # of a command that ends by itself; some install packages
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class BenchError(Exception):
    """A measurement that cannot be made; the message is for the reader."""


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third (state) on; none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the tree, with that of children which have ended."""
    return sum(sum(map(int, _stat(pid)[11:15])) for pid in tree(root)) / TICKS


def bytes_written(root: int) -> int:
    """What the tree's living processes had the disk write, or will."""
    total = 0
    for pid in tree(root):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/io").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
    return total


def pss_mb(root: int) -> float:
    """Proportional set size of the tree."""
    kilobytes = 0
    for pid in tree(root):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
    return kilobytes * 1024 / 1e6


def machine_seconds() -> tuple[float, float]:
    """Time all cores were busy, and time the host gave to others while we wanted it."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq, stolen = map(int, fields[:8])
    return (user + nice + system + irq + softirq) / TICKS, stolen / TICKS


@dataclass(frozen=True)
class Usage:
    """CPU seconds up to a moment: of the server with its database, of that database where it is a
    process of its own, of the bench itself, of the whole machine."""

    at: float
    server: float
    database: float
    tools: float
    machine: float
    stolen: float
    written: int  # bytes to disk, by server and database

    def since(self, before: "Usage") -> "Usage":
        return Usage(
            self.at - before.at,
            self.server - before.server,
            self.database - before.database,
            self.tools - before.tools,
            self.machine - before.machine,
            self.stolen - before.stolen,
            self.written - before.written,
        )


def usage(server: int, database: int | None, *tools: int) -> Usage:
    own = os.times()
    machine, stolen = machine_seconds()
    stored = cpu_seconds(database) if database is not None else 0.0
    return Usage(
        at=time.monotonic(),
        server=cpu_seconds(server) + stored,
        database=stored,
        tools=sum(map(cpu_seconds, tools)) + own.user + own.system,
        machine=machine,
        stolen=stolen,
        written=sum(map(bytes_written, (server, database) if database else (server,))),
    )


def environment(**extra: str) -> dict[str, str]:
    """Ours, less what would change a gateway's settings or send its calls through a proxy."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("GATEWAY_", "NODE_", "PYTHON"))
        and not name.upper().endswith("_PROXY")
    }
    return kept | extra


def run(
    what: str,
    command: list[str],
    *,
    env: dict[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """What it printed, once it has ended. Raises BenchError when it fails."""
    done = subprocess.run(
        command,
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_WITHIN,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{what} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


class Server:
    """A process under measurement, its output in a log file."""

    def __init__(
        self, name: str, command: list[str], *, env: dict[str, str], folder: Path, ready: str
    ) -> None:
        self.name = name
        self._command = command
        self._env = env
        self._folder = folder
        self._ready = ready
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self, port: int) -> None:
        """Starts it and waits until GET of the ready path is answered with 200."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  the bench has one thread
            )
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BenchError(f"{self.name} ended at its start.{self.tail()}")
            if _answers(port, self._ready):
                return
            time.sleep(0.05)
        raise BenchError(
            f"{self.name} was not ready within {READY_WITHIN} s (GET {self._ready}).{self.tail()}"
        )

    def tail(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        command = " ".join(self._command)
        return "\n".join(["", f"  command: {command}", *(f"  | {line[:300]}" for line in text)])

    def stop(self) -> None:
        """Asks it to end; insists after a while."""
        self._end(signal.SIGTERM, STOP_WITHIN)

    def pause(self) -> None:
        """It stands still, with all it started, until `go_on`."""
        os.killpg(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, with all it started."""
        self._end(signal.SIGKILL, STOP_WITHIN)

    def _end(self, first: signal.Signals, seconds: float) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        if first is signal.SIGKILL:
            os.killpg(self.pid, signal.SIGKILL)
        else:
            self._process.send_signal(first)
        # Not reaped before its group is ended, so that the group's number is still its own.
        ended = _wait(lambda: _has_ended(self.pid), seconds)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(STOP_WITHIN)
        if not ended:
            raise BenchError(f"{self.name} did not end within {seconds} s.{self.tail()}")


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class Worker:
    """The load or the provider: a script of bench_peers that answers JSON lines with JSON lines."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self._process = subprocess.Popen(
            [sys.executable, str(PEERS / f"{name}.py")],
            env=environment(PYTHONDONTWRITEBYTECODE="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for the bench, which ends them
            preexec_fn=_die_with_parent,  # noqa: PLW1509  the bench has one thread
        )
        self.pid = self._process.pid

    def greeting(self) -> dict[str, Any]:
        """What it says when it has started; to be heard before anything is asked of it."""
        return self.hear(READY_WITHIN)

    def ask(self, seconds: float, /, **message: Any) -> dict[str, Any]:
        self.tell(**message)
        return self.hear(seconds)

    def tell(self, **message: Any) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"{self._name} has ended; see above") from None

    def hear(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout
        parts = [self._rest]
        deadline = time.monotonic() + seconds
        while b"\n" not in parts[-1]:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise BenchError(f"{self._name} did not answer within {seconds:.0f} s")
            part = os.read(self._process.stdout.fileno(), 1 << 20)
            if not part:
                raise BenchError(f"{self._name} has ended; see above")
            parts.append(part)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()
