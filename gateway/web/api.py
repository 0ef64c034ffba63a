"""The calls of backend services: send, status, verify, cancel, next."""

from uuid import UUID

from gateway.domain import addresses, identity
from gateway.domain.errors import InvalidInput, NotFound
from gateway.domain.events import Awaited
from gateway.services import send, verify
from gateway.services.case import addresses_of
from gateway.services.runtime import Runtime
from gateway.store.reads import Record
from gateway.web import recipients, schemas, sending, waits
from gateway.web.auth import Keys
from gateway.web.edge import Call, Methods
from gateway.web.errors import Answer

MAX_BODY = 256 * 1024  # bytes: a send may have 500 recipients


class Api:
    """The endpoints, over one runtime."""

    def __init__(self, runtime: Runtime, keys: Keys) -> None:
        self._runtime = runtime
        self._keys = keys

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
        key = self._keys.caller(call, "send")
        body = schemas.parse(schemas.SendBody, await call.json(MAX_BODY))
        sending.check(body, key)
        now = self._runtime.now()
        if body.recipients is not None:
            return _json(await sending.send_all(self._runtime, key.client_id, body, now), 202)
        request = sending.request(self._runtime, key.client_id, body)
        sent = await send.send(self._runtime, request, now)
        if (seconds := waits.preferred(call)) and not self._runtime.waiting.full:
            return await self._handed_over(sent, seconds)
        return _json(sending.summed(self._runtime, sent, now), 202)

    async def _handed_over(self, sent: send.Sent, seconds: int) -> Answer:
        """`Prefer: wait=N`: the same answer, once a provider has it or the time is out."""
        named = sent.verification.id
        record = await waits.hold(self._runtime, named, Awaited.SENT, seconds)
        if record is not None:
            sent = send.Sent(record.verification, record.plan, record.attempts, sent.joined)
        answer = sending.summed(self._runtime, sent, self._runtime.now())
        applied = (b"preference-applied", b"wait=%d" % seconds)
        return _json(answer, 202)._replace(headers=(applied,))

    async def show_status(self, call: Call) -> Answer:
        key = self._keys.caller(call, "status")
        if call.method == "POST":
            body = schemas.parse(schemas.StatusBody, await call.json(MAX_BODY))
        else:
            if any(name in recipients.PRIVATE for name, _ in call.query()):
                raise InvalidInput(
                    "number_in_url",
                    'Numbers and addresses do not belong in URLs: POST {"number": …} instead.',
                )
            body = schemas.parse_query(schemas.StatusBody, call.query())
        client = None if "operate" in key.scopes.split() else key.client_id
        found = self._find(client, body, max(1, body.history))
        mine = self._mine(found, client)
        if body.wait:
            named = mine[0].verification.id
            await waits.hold(self._runtime, named, Awaited(body.until), body.wait)
            mine = self._mine(found, client)
        now = self._runtime.now()
        shown = [
            schemas.status(one, addresses_of(self._runtime.keyring, one.verification), now)
            for one in mine
        ]
        answer = shown[0]
        if body.history:
            answer["history"] = shown[1:]
        return _json(answer, 200)

    def _mine(self, found: list[UUID], client: UUID | None) -> list[Record]:
        """Those of a client, None: of every client. Raises NotFound when there are none."""
        records = self._runtime.reads.records(found)
        mine = [one for one in records if client in {None, one.verification.client_id}]
        if not mine:
            raise _not_found()
        return mine

    async def check_code(self, call: Call) -> Answer:
        key = self._keys.caller(call, "verify")
        body = schemas.parse(schemas.VerifyBody, await call.json(MAX_BODY))
        named = self._one(key.client_id, body)
        changed = await verify.check(
            self._runtime, key.client_id, named, body.code, **sending.linked(body)
        )
        return self._changed(changed, 200)

    async def cancel(self, call: Call) -> Answer:
        key = self._keys.caller(call, "send")
        body = schemas.parse(schemas.WhichBody, await call.json(MAX_BODY))
        named = self._one(key.client_id, body)
        return self._changed(await verify.cancel(self._runtime, key.client_id, named), 200)

    async def send_next(self, call: Call) -> Answer:
        key = self._keys.caller(call, "send")
        body = schemas.parse(schemas.WhichBody, await call.json(MAX_BODY))
        named = self._one(key.client_id, body)
        return self._changed(await verify.send_next(self._runtime, key.client_id, named), 202)

    def _changed(self, changed: verify.Changed, status: int) -> Answer:
        now = self._runtime.now()
        answer = schemas.summary(changed.plan, changed.verification, changed.attempts, now)
        return _json(answer, status)

    def _one(self, client_id: UUID, body: schemas.WhichBody) -> UUID:
        """The verification meant: of a number the running one, else the latest; of a reference
        that repeats the newest.
        """
        found = self._find(client_id, body, 1 if body.address is None else 10)
        if len(found) > 1:
            records = self._runtime.reads.records(found, log=False)
            return sending.meant([one.verification for one in records], body, self._runtime.now())
        if not found:
            raise _not_found()
        return found[0]

    def _find(self, client_id: UUID | None, body: schemas.WhichBody, limit: int) -> list[UUID]:
        names = (body.verification_id, body.reference, body.number, body.email, body.messenger)
        if sum(one is not None for one in names) != 1:
            raise InvalidInput(
                "invalid_request",
                "Give exactly one of `verification_id`, `reference`, `number`, `email`, "
                "`messenger`.",
            )
        reads = self._runtime.reads
        if body.verification_id is not None:
            named = identity.parse(body.verification_id)
            return [named] if named is not None else []
        if body.reference is not None:
            return reads.by_reference(client_id, body.reference, limit)
        kind, text = body.address or ("phone", "")
        found = addresses.parse(kind, text, self._runtime.default_region)
        index = self._runtime.keyring.index(*addresses.indexed(found))
        return reads.by_number(client_id, index, limit)


def _not_found() -> NotFound:
    return NotFound(
        "verification_not_found", "This client has no such verification. Check what it was named."
    )


def _json(body: object, status: int) -> Answer:
    return Answer(status, schemas.dumps(body), b"application/json")
