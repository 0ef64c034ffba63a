"""A gateway as `serve` puts it together, with the sandbox beside it, on sockets of this machine and
in the test's own loop; and a client's key."""

import contextlib
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from rig import keyring

from gateway import config
from gateway.app import folder, process, wiring
from gateway.app.routes import Realm
from gateway.cli import clients
from gateway.store import schema

SCOPES = "send verify status operate text"
TIMING = {"receipt_delay": 0.01, "late": 0.05}  # seconds


@dataclass(frozen=True)
class Standing:
    """Where it listens, and a test key: its codes are known."""

    url: str
    key: str
    callback_key: str  # of the account `octopush`


@contextlib.asynccontextmanager
async def standing(
    data: Path, inside: socket.socket | None = None, **environ: str
) -> AsyncGenerator[Standing]:
    """It runs for as long as the block lasts, on a socket of its own where none is given."""
    inside, outside = inside or process.bind("127.0.0.1", 0), process.bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{process.port_of(inside)}"
    loaded = config.load({"GATEWAY_DATA_DIR": str(data), **environ}, public_url=url)
    folder.make_folders(loaded)
    folder.check_schema(loaded.database, migrate=schema.upgrade)
    async with contextlib.AsyncExitStack() as stack:
        beside = process.beside(loaded, keyring(), outside, timing=TIMING)
        _, loaded = await stack.enter_async_context(beside)
        gateway = wiring.build(loaded, keyring(), test=Realm(loaded))
        await stack.enter_async_context(process.served(gateway.web, inside, grace=1))
        _, _, key = await clients.new(loaded, "caller", SCOPES, test=True)
        secret = keyring().index("sandbox", "octopush-callback").hex()
        yield Standing(url, key, secret)
