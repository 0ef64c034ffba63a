"""Answers that are held, and streams: what follows a verification without asking again and again.

A stream is made of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)
and needs no subscription: it is the transition log. `Prefer: wait=N` is RFC 7240's.
"""

import re
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import orjson
from pydantic import Field

from gateway.domain import explanation, identity
from gateway.domain.errors import InvalidInput, NotFound, Unavailable
from gateway.domain.events import Awaited, reached
from gateway.domain.verification import Status
from gateway.services.runtime import Runtime
from gateway.store.engine import StoreError
from gateway.store.reads import Record
from gateway.web import bodies, schemas
from gateway.web.auth import Keys
from gateway.web.edge import Call, Methods, Stream
from gateway.web.errors import Answer

LONGEST = 60  # seconds an answer is held
HEARTBEAT = 15.0  # seconds of silence in a stream, so that nobody in between cuts it
_RETRY = b"retry: 2000\n\n"  # milliseconds until a client comes again
_PREFER = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,4})\"?\s*(?=$|[,;])", re.IGNORECASE)


class EventsQuery(schemas.Body):
    """`GET /otp/events`."""

    verification_id: schemas.Named = Field(
        description="Which one to follow.", examples=["019e8f4c-5a10-7c3e-9d57-0b6f2f1d8a44"]
    )


def preferred(call: Call) -> int:
    """The seconds of `Prefer: wait=N`, at most LONGEST; 0 without. What cannot be read is passed
    over, as RFC 7240 asks."""
    header = call.header(b"prefer")
    found = _PREFER.search(header) if header is not None else None
    return min(int(found[1]), LONGEST) if found is not None else 0


async def hold(runtime: Runtime, named: UUID, until: Awaited, seconds: int) -> Record | None:
    """The verification as soon as it is so, or as it is when the time is out. Raises Unavailable
    `too_many_waiting`."""

    def so(record: Record) -> bool:
        status = record.verification.status_at(runtime.now())
        return reached(until, status, record.attempts)

    return await runtime.waiting.until(runtime.reads, named, so, seconds)


async def handed_over(runtime: Runtime, answer: Answer, seconds: int) -> Answer:
    """The answer to a send that was just accepted, brought up to date once a provider has the
    message or the time is out. It stands as it is where nobody may wait or the database is away:
    accepted it was. What an `Idempotency-Key` keeps is the answer as it came in, too.
    """
    first = orjson.loads(answer.body)
    try:
        record = await hold(runtime, UUID(first["verification_id"]), Awaited.SENT, seconds)
    except (StoreError, Unavailable):
        return answer
    if record is None:
        return answer
    now, shut = runtime.now(), runtime.standing.shut
    summary = bodies.summary(record.plan, record.verification, record.attempts, now, shut)
    applied = (b"preference-applied", b"wait=%d" % seconds)
    return answer._replace(
        body=bodies.dumps({**first, **summary}), headers=(*answer.headers, applied)
    )


class Streams:
    """/otp/events, over one runtime."""

    def __init__(self, runtime: Runtime, keys: Keys) -> None:
        self._runtime = runtime
        self._keys = keys

    def calls(self) -> dict[str, Methods]:
        """What is served."""
        return {"/otp/events": {"GET": self.stream}}

    async def stream(self, call: Call) -> Answer | Stream:
        """The log of a verification as it grows, from after `Last-Event-ID` on; it ends with the
        verification. 204, which tells a browser not to come again, when there is nothing left.
        """
        key = await self._keys.caller(call, "status")
        query = schemas.parse_query(EventsQuery, call.query())
        named = identity.parse(query.verification_id)
        record = await self._runtime.reads.record(named) if named is not None else None
        every = "operate" in key.scopes.split() and not key.test
        mine = record is not None and (every or record.verification.client_id == key.client_id)
        if record is None or not mine:
            problem = "This client has no such verification. Check the id."
            raise NotFound("verification_not_found", problem)
        after = _last_event_id(call)
        over = record.verification.status is not Status.PENDING
        if over and record.verification.log <= after + 1:
            return Answer(204)
        if self._runtime.waiting.full:
            problem = "Too many callers wait here. Come again in a moment."
            raise Unavailable("too_many_waiting", problem, retry_after=5)
        headers = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"))
        return Stream(self._events(record.verification.id, after), headers)

    async def _events(self, named: UUID, after: int) -> AsyncGenerator[bytes]:
        """Ends early when the process does or the database is away: the client comes again."""
        yield _RETRY
        waiting = self._runtime.waiting
        try:
            with waiting.enter(named) as waiter:
                while (record := await self._runtime.reads.record(named)) is not None:
                    waiter.version = record.verification.version
                    ways = {
                        one.id: {"channel": one.channel, "route": one.route}
                        for one in record.attempts
                    }
                    for number, row in enumerate(bodies.transitions(record)):
                        if number > after:
                            way = ways.get(row["attempt_id"], _NOWHERE)
                            yield _event(number, row, {**self._stands(record), **way})
                    after = max(after, len(record.log) - 1)
                    if record.verification.status is not Status.PENDING or waiting.closing:
                        return
                    if not await waiter.changed(HEARTBEAT):
                        yield b": still here\n\n"
        except (StoreError, Unavailable):
            return

    def _stands(self, record: Record) -> dict[str, Any]:
        current, now = record.verification, self._runtime.now()
        coming = explanation.coming(
            record.plan, current, record.attempts, now, shut=self._runtime.standing.shut
        )
        return {
            "verification_id": current.id,
            "status": current.status_at(now),
            "delivery_status": explanation.delivery_status(current, record.attempts, coming),
        }


_NOWHERE = {"channel": None, "route": None}  # of the verification itself


def _event(number: int, row: dict[str, Any], stands: dict[str, Any]) -> bytes:
    kind = b"verification" if row["attempt_id"] is None else b"attempt"
    data = bodies.dumps({**stands, **row})
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, kind, data)


def _last_event_id(call: Call) -> int:
    """The number of the last row the client has; -1 without. Raises InvalidInput."""
    given = call.header(b"last-event-id")
    if not given:
        return -1
    if not (given.isascii() and given.isdigit() and len(given) <= 9):
        raise InvalidInput("invalid_request", "Last-Event-ID: it is none of this stream.")
    return int(given)
