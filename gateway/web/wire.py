"""uvicorn's HTTP protocol with one write for each answer.

uvicorn gives head and body to the socket one after the other: two system calls, and a caller who
wakes up to half an answer. What is written first is held until the next write, or the next turn of
the loop, and leaves together with it.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OneWrite(HttpToolsProtocol):
    """To be given to `uvicorn.Config(http=…)`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection begins."""
        gathering: Any = Gathering(transport, self.loop)
        super().connection_made(gathering)


class Gathering:
    """A transport that joins two writes of one turn of the loop. All else is the inner one's."""

    __slots__ = ("_held", "_inner", "_loop")

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop
        self._held: bytes | None = None

    def write(self, data: bytes) -> None:
        """Holds the first part, sends it with the second."""
        if self._held is None:
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            held, self._held = self._held, None
            self._inner.write(held + data)

    def close(self) -> None:
        """What is held leaves first."""
        self._flush()
        self._inner.close()

    def _flush(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._inner.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
