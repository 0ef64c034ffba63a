"""The calls of backend services: send, status, verify, cancel, next."""

from collections.abc import Awaitable
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from gateway.domain import addresses, identity, tokens, trace
from gateway.domain.errors import Ended, Forbidden, InvalidInput, NotFound
from gateway.domain.events import Awaited
from gateway.domain.tokens import Ticket
from gateway.ports import Span
from gateway.services import send, tracing, verify
from gateway.services.case import addresses_of
from gateway.services.idempotency import Render
from gateway.services.runtime import ROUTE, Runtime
from gateway.store.reads import Record
from gateway.store.records import ApiKey
from gateway.web import bodies, once, recipients, schemas, sending, waits
from gateway.web.auth import Keys
from gateway.web.edge import Call, Methods
from gateway.web.errors import Answer
from gateway.web.statuses import Statuses

MAX_BODY = 256 * 1024  # bytes: a send may have 500 recipients

Change = type[verify.Cancel] | type[verify.Next]


class Api:
    """The endpoints, over one runtime."""

    def __init__(self, runtime: Runtime, keys: Keys) -> None:
        self._runtime = runtime
        self._keys = keys
        self._statuses = Statuses(runtime)
        self._sent = once.rendering(202, partial(sending.summed, runtime))
        self._done = once.rendering(200, self._changed)
        self._under_way = once.rendering(202, self._changed)

    def calls(self) -> dict[str, Methods]:
        """What is served, by path and method."""
        return {
            "/otp/send": {"POST": self.send_code},
            "/otp/status": {"GET": self.show_status, "POST": self.show_status},
            "/otp/verify": {"POST": self.check_code},
            "/otp/cancel": {"POST": self.cancel},
            "/otp/next": {"POST": self.send_next},
        }

    async def send_code(self, call: Call) -> Answer:
        key = await self._keys.caller(call, "send")
        raw = await call.json(MAX_BODY)
        body = schemas.parse(schemas.SendBody, raw)
        sending.check(body, key)
        if body.workflow is not None and body.workflow.startswith(ROUTE):
            key = await self._keys.caller(call, "operate")
        span = self._span(call) if self._runtime.tracer.on else None
        if span is None:
            return await self._accept(call, key, body, raw)
        accept = partial(self._accept, call, key, body, raw, span.context)
        return await tracing.until(span, accept)

    def _accept(
        self,
        call: Call,
        key: ApiKey,
        body: schemas.SendBody,
        raw: bytes,
        trace: str | None = None,
    ) -> Awaitable[Answer]:
        runtime = self._runtime if not key.test else self._sandbox()
        if body.recipients is not None:
            return self._accept_all(call, runtime, key, body, trace)
        answering = once.answer(
            self._runtime,
            call,
            key.client_id,
            raw,
            prepare=lambda now: send.prepare(
                runtime, sending.request(runtime, key, body, trace), now
            ),
            render=self._sent,
        )
        seconds = waits.preferred(call)
        return self._handed_over(answering, seconds) if seconds else answering

    async def _handed_over(self, answering: Awaitable[Answer], seconds: int) -> Answer:
        """The answer of this very call once its message is handed over."""
        answer = await answering
        if not once.accepted_now(answer):
            return answer
        return await waits.handed_over(self._runtime, answer, seconds)

    async def _accept_all(
        self,
        call: Call,
        runtime: Runtime,
        key: ApiKey,
        body: schemas.SendBody,
        trace: str | None,
    ) -> Answer:
        if call.header(b"idempotency-key") is not None:
            raise InvalidInput(
                "idempotency_refused",
                "`Idempotency-Key` cannot stand for many recipients: use `reference`.",
            )
        return _json(await sending.send_all(runtime, key, body, self._runtime.now(), trace), 202)

    def _sandbox(self) -> Runtime:
        """What a test key reaches: routes of the sandbox and no others."""
        if self._runtime.test is None:
            raise Forbidden("test_key_refused", "This process has no sandbox for test keys.")
        return self._runtime.test

    def _changed(self, changed: verify.Changed, now: datetime) -> dict[str, Any]:
        shut = self._runtime.standing.shut
        return bodies.summary(changed.plan, changed.verification, changed.attempts, now, shut)

    async def show_status(self, call: Call) -> Answer:
        key = await self._keys.caller(call, "status")
        if call.method == "POST":
            body = schemas.parse(schemas.StatusBody, await call.json(MAX_BODY))
        else:
            _no_secret(call)
            body = schemas.parse_query(schemas.StatusBody, call.query())
        every = "operate" in key.scopes.split() and not key.test
        client = None if every else key.client_id
        found = await self._find(client, body, max(1, body.history))
        if body.wait:
            named = (await self._mine(found, client))[0].verification.id
            await waits.hold(self._runtime, named, Awaited(body.until), body.wait)
        if not body.history:
            told = await self._statuses.body(found[0], client) if found else None
            if told is None:
                raise _not_found()
            return Answer(200, told, b"application/json")
        mine = await self._mine(found, client)
        now, shut = self._runtime.now(), self._runtime.standing.shut
        shown = [
            bodies.status(one, addresses_of(self._runtime.keyring, one.verification), now, shut)
            for one in mine
        ]
        return _json({**shown[0], "history": shown[1:]}, 200)

    async def _mine(self, found: list[UUID], client: UUID | None) -> list[Record]:
        """Those of a client, None: of every client. Raises NotFound when there are none."""
        records = await self._runtime.reads.records(found)
        mine = records
        if client is not None:
            mine = [one for one in records if one.verification.client_id == client]
        if not mine:
            raise _not_found()
        return mine

    async def check_code(self, call: Call) -> Answer:
        key = await self._keys.caller(call, "verify")
        raw = await call.json(MAX_BODY)
        prepare = partial(self._checking, key.client_id, raw)
        return await once.answer(
            self._runtime, call, key.client_id, raw, prepare=prepare, render=self._done
        )

    async def _checking(self, client_id: UUID, raw: bytes, now: datetime) -> verify.Check:
        body = schemas.parse(schemas.VerifyBody, raw)
        named = await self._one(client_id, body)
        return await verify.checking(
            self._runtime, client_id, named, body.code, **sending.linked(body)
        )

    async def cancel(self, call: Call) -> Answer:
        key = await self._keys.caller(call, "send")
        return await self._change(call, key.client_id, verify.Cancel, self._done)

    async def send_next(self, call: Call) -> Answer:
        key = await self._keys.caller(call, "send")
        return await self._change(call, key.client_id, verify.Next, self._under_way)

    async def _change(self, call: Call, client_id: UUID, kind: Change, render: Render) -> Answer:
        raw = await call.json(MAX_BODY)

        async def prepare(now: datetime) -> verify.Cancel | verify.Next:
            return kind(
                client_id, await self._one(client_id, schemas.parse(schemas.WhichBody, raw))
            )

        return await once.answer(
            self._runtime, call, client_id, raw, prepare=prepare, render=render
        )

    def _span(self, call: Call) -> Span | None:
        """The span of a request whose caller is in a trace."""
        given = trace.parse(call.header(b"traceparent"))
        return self._runtime.tracer.begin("otp.send", given, {}) if given is not None else None

    async def _one(self, client_id: UUID, body: schemas.WhichBody) -> UUID:
        """The verification meant: of a number the running one, else the latest; of a reference
        that repeats the newest.
        """
        if body.verification_key is not None:
            return await self._running(self._ticket(body))
        found = await self._find(client_id, body, 1 if body.address is None else 10)
        if len(found) > 1:
            records = await self._runtime.reads.records(found, log=False)
            return sending.meant([one.verification for one in records], body, self._runtime.now())
        if not found:
            raise _not_found()
        return found[0]

    async def _find(
        self, client_id: UUID | None, body: schemas.WhichBody, limit: int
    ) -> list[UUID]:
        if body.verification_key is not None:
            return [self._ticket(body).verification_id]
        names = (body.verification_id, body.reference, body.number, body.email, body.messenger)
        if names.count(None) != len(names) - 1:
            raise _not_one()
        reads = self._runtime.reads
        if body.verification_id is not None:
            named = identity.parse(body.verification_id)
            return [named] if named is not None else []
        if body.reference is not None:
            return await reads.by_reference(client_id, body.reference, limit)
        return await reads.by_number(client_id, self._index(body), limit)

    def _index(self, body: schemas.WhichBody) -> bytes:
        kind, text = body.address or ("phone", "")
        found = addresses.parse(kind, text, self._runtime.default_region)
        return self._runtime.keyring.index(*addresses.indexed(found))

    async def _running(self, ticket: Ticket) -> UUID:
        """The row says how it stands; a key past its time whose row is gone is simply over."""
        gone = ticket.expires_at <= self._runtime.now()
        if gone and await self._runtime.reads.record(ticket.verification_id, log=False) is None:
            raise Ended("expired", "The code has expired. Send a new one.")
        return ticket.verification_id

    def _ticket(self, body: schemas.WhichBody) -> Ticket:
        """What a verification key says. An address beside it must be the one it was made for."""
        beside = (body.number, body.email, body.messenger)
        if (body.verification_id, body.reference) != (None, None) or len({*beside} - {None}) > 1:
            raise _not_one()
        ticket = tokens.read(self._runtime.keyring, body.verification_key or "")
        if body.address is not None and self._index(body) != ticket.recipient_index:
            raise InvalidInput(
                "recipient_mismatch",
                "This verification key was made for another recipient than the one given.",
            )
        return ticket


def _not_one() -> InvalidInput:
    return InvalidInput(
        "invalid_request",
        "Give exactly one of `verification_id`, `reference`, `verification_key`, `number`, "
        "`email`, `messenger`; beside a `verification_key`, an address is compared with the one it "
        "was made for.",
    )


def _no_secret(call: Call) -> None:
    """URLs are written into every log on the way."""
    names = {name for name, _ in call.query()}
    if not names.isdisjoint(recipients.PRIVATE):
        raise InvalidInput(
            "number_in_url",
            'Numbers and addresses do not belong in URLs: POST {"number": …} instead.',
        )
    if "verification_key" in names:
        raise InvalidInput(
            "key_in_url",
            'Verification keys do not belong in URLs: POST {"verification_key": …} instead.',
        )


def _not_found() -> NotFound:
    return NotFound(
        "verification_not_found", "This client has no such verification. Check what it was named."
    )


def _json(body: object, status: int) -> Answer:
    return Answer(status, bodies.dumps(body), b"application/json")
