"""One operation of a caller, answered: once, where the request came with an `Idempotency-Key`."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.domain.errors import GatewayError
from gateway.services import idempotency
from gateway.services.idempotency import Render
from gateway.services.runtime import Runtime
from gateway.store.ledger import Operation
from gateway.web import bodies, errors
from gateway.web.edge import Call
from gateway.web.errors import Answer

Prepare = Callable[[datetime], Awaitable[Operation[Any]]]
_REPLAYED = ((b"idempotency-replayed", b"true"),)


async def answer(
    runtime: Runtime, call: Call, client_id: UUID, raw: bytes, *, prepare: Prepare, render: Render
) -> Answer:
    """The answer to a call with the body `raw`. `prepare` makes its operation, `render` status and
    body of what comes of it. A stored answer needs neither: what has been done since (a number has
    another verification now, say) does not change it. Raises what the operation is refused with.
    """
    now = runtime.now()
    given = call.header(b"idempotency-key")
    if given is None:
        result = await runtime.ledger.submit(await prepare(now))
        if isinstance(result, GatewayError):
            raise result
        status, body = render(result, now)
        return Answer(status, body, b"application/json")
    key = idempotency.named(
        runtime.keyring, client_id, given, method=call.method, path=call.path, body=raw
    )
    found = await idempotency.stored(runtime, key, now)
    if found is None:
        found = await idempotency.submit(runtime, key, await prepare(now), _refusals_too(render))
    kind = b"application/json" if found.status < 400 else b"application/problem+json"
    return Answer(found.status, found.body, kind, _REPLAYED if found.replayed else ())


def accepted_now(answer: Answer) -> bool:
    """Whether this very call did it: neither refused nor the answer of an earlier one."""
    return answer.status < 400 and answer.headers != _REPLAYED


def _refusals_too(render: Render) -> Render:
    def rendered(result: Any, now: datetime) -> tuple[int, bytes]:
        if isinstance(result, GatewayError):
            refused = errors.refusal(result)
            return refused.status, refused.body
        return render(result, now)

    return rendered


def rendering(status: int, body: Callable[[Any, datetime], dict[str, Any]]) -> Render:
    """JSON with that status."""
    return lambda result, now: (status, bodies.dumps(body(result, now)))
