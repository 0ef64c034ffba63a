"""One of several nodes on PostgreSQL, forked off a process that has imported everything: where one
is killed every second, starting Python anew would take longer than it lives.
"""

import os
import sys
from pathlib import Path

from gateway import config, log
from gateway.app import folder, process


def node(environ: dict[str, str], port: int, told: Path) -> None:
    """Serve as `gateway serve --workers` lets each of its processes, until it is killed."""
    with told.open("ab") as target:
        os.dup2(target.fileno(), sys.stderr.fileno())
        loaded = config.load(environ, public_url=f"http://127.0.0.1:{port}")
        with (
            folder.alone(loaded.data_dir, shared=True),
            process.bind("127.0.0.1", port, shared=True) as listening,
        ):
            log.configure("info", target)
            process.run(process.serve(loaded, folder.prepare(loaded), listening, None))
