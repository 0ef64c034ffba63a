"""LISTEN and NOTIFY on a connection of their own.

Said after the commit it is about and not in it: a transaction that notifies holds, from its COMMIT
on, a lock of the whole server until it is on disk, so that all nodes' commits stand in one line
(measured: less than half as many a second). What is lost by a crash in between is only a hint.
"""

from collections.abc import Callable
from typing import Any

from gateway.ports import Server
from gateway.store.engine.postgres import ANY, connect, told
from gateway.store.engine.protocol import StoreError

NAME = "otp_gateway"
_TELL = "SELECT pg_notify($1, $2)"


class PostgresChannel:
    """What nodes on one database say to each other: short texts, heard by all others once."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: Any = None

    async def open(self, heard: Callable[[str], None], lost: Callable[[], None]) -> None:
        """Listen, on a new connection. `heard` is called with each text of another node, `lost`
        when the connection is. Raises StoreError."""
        connection = await connect(self._server.url, self._server.password)
        own = connection.get_server_pid()

        def hear(_: Any, speaker: int, __: str, text: str) -> None:
            if speaker != own:
                heard(text)

        connection.add_termination_listener(lambda _: lost())
        try:
            await connection.add_listener(NAME, hear)
        except ANY as error:
            connection.terminate()
            raise StoreError(told(error)) from error
        self._connection = connection

    async def tell(self, text: str) -> None:
        """Say it to all others; at most 7,999 bytes. An empty one is not said: it finds out whether
        the connection still stands. Raises StoreError."""
        if self._connection is None:
            raise StoreError("there is no connection")
        try:
            if text:
                await self._connection.execute(_TELL, NAME, text)
            else:
                await self._connection.execute("SELECT 1")
        except ANY as error:
            self.close()
            raise StoreError(told(error)) from error

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
