"""What the figures were measured on: hardware, versions, the disk's fdatasync, and how busy the
machine was with other things."""

import os
import platform
import sqlite3
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from bench_gateways import ROOT, Gateway

PACKAGES = ("uvicorn", "starlette", "uvloop", "httptools", "orjson", "sqlalchemy")
BLOCK = 8192
PROBE_FOR = 1.0  # seconds


def facts(folder: Path, gateways: list[type[Gateway]]) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in PACKAGES}
    for gateway in gateways:
        versions |= gateway.versions()
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "node": _said("node", "--version"),
        "sqlite": sqlite3.sqlite_version,
        "versions": versions,
        "revision": _revision(),
        "fdatasync_per_second": round(fdatasync_per_second(folder)),
        "load_average": round(os.getloadavg()[0], 2),
    }


def fdatasync_per_second(folder: Path) -> float:
    """How often a second 8 kB are written over and made durable on the databases' disk."""
    block = os.urandom(BLOCK)
    with tempfile.TemporaryFile(dir=folder) as file:
        descriptor = file.fileno()
        os.pwrite(descriptor, block, 0)
        os.fsync(descriptor)
        done, started = 0, time.monotonic()
        while (elapsed := time.monotonic() - started) < PROBE_FOR:
            os.pwrite(descriptor, block, 0)
            os.fdatasync(descriptor)
            done += 1
    return done / elapsed


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(*command: str) -> str | None:
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _revision() -> str | None:
    """The commit, with a + when the tree differs from it."""
    commit = _said("git", "rev-parse", "--short", "HEAD")
    changed = _said("git", "--no-optional-locks", "status", "--porcelain")
    return f"{commit}+" if commit and changed else commit
