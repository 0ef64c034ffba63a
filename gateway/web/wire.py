"""uvicorn's HTTP protocol with a short way out for plain answers.

ASGI gives head and body to the server one after the other, and uvicorn gives them to the socket in
two writes, after looking at each header anew. An answer that is whole from the start leaves by
`scope[DIRECT]` in one write instead: half the system calls, and no caller wakes up to half an
answer. What does not fit that (streams, HEAD, a caller who does not read) goes the ordinary way.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

DIRECT = "gateway.direct"  # the key in the scope

Direct = Callable[[int, bytes | None, bytes], bool]  # status, media type, body → whether it left


class OneWrite(HttpToolsProtocol):
    """To be given to `uvicorn.Config(http=…)`."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        scope[DIRECT] = partial(_answer, cycle)
        super()._start_asgi_task(cycle, app)


def _answer(
    cycle: RequestResponseCycle, status: int, media_type: bytes | None, body: bytes
) -> bool:
    """Write a whole answer and end the cycle, as `RequestResponseCycle.send` does in two calls.
    False, and nothing done, where it has to go the ordinary way.
    """
    if cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
        return False
    lines = [STATUS_LINE[status]]
    for name, value in cycle.default_headers:
        lines += (name, b": ", value, b"\r\n")
    if media_type is not None:
        lines += (b"content-type: ", media_type, b"\r\n")
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"content-length: %d\r\n\r\n" % len(body))
    lines.append(body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(lines))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
