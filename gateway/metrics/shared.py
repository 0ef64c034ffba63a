"""Several processes, one scrape: prometheus_client's shared folder.

With PROMETHEUS_MULTIPROC_DIR set before a process starts, each writes its values into files of its
own there, and whichever is scraped adds all of them up: nothing counts twice, whoever answers.
Without it a process tells of itself alone.
"""

from collections.abc import Mapping
from pathlib import Path

from prometheus_client import multiprocess

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def folder_of(environ: Mapping[str, str]) -> Path | None:
    """The folder, None when the processes are scraped one by one."""
    return Path(environ[VARIABLE]) if environ.get(VARIABLE) else None


def clear(folder: Path) -> None:
    """Empty it, once, before the first process of a service starts: counters begin at 0."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.db"):
        left.unlink()


def forget(folder: Path, pid: int) -> None:
    """A process has ended: its gauges are no more, its counts stay in the sums."""
    multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
