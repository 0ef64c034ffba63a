"""The calls of backend services: send, status, verify, cancel, next."""

from uuid import UUID

from gateway.domain import identity, recipient
from gateway.domain.errors import InvalidInput, NotFound
from gateway.domain.verification import Status
from gateway.services import send, verify
from gateway.services.case import recipient_of
from gateway.services.runtime import ROUTE, Runtime
from gateway.web import schemas
from gateway.web.auth import Keys
from gateway.web.edge import Call, Methods
from gateway.web.errors import Answer

MAX_BODY = 64 * 1024  # bytes


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
        if body.workflow is not None and body.workflow.startswith(ROUTE):
            key = self._keys.caller(call, "operate")
        if body.workflow is not None and body.channel is not None:
            raise InvalidInput("invalid_request", "Give `workflow` or `channel`, not both.")
        if body.code is not None and body.code_length is not None:
            raise InvalidInput("invalid_request", "Give `code` or `code_length`, not both.")
        now = self._runtime.now()
        sent = await send.send(
            self._runtime,
            send.Request(
                client_id=key.client_id,
                to=recipient.parse(body.to, self._runtime.default_region),
                workflow=body.workflow,
                channel=body.channel,
                code=body.code,
                code_length=len(body.code) if body.code else body.code_length or 6,
                ttl=body.ttl,
                reference=body.reference,
            ),
            now,
        )
        coming = send.coming(self._runtime, sent, now)
        answer = schemas.summed(sent.verification, sent.attempts, coming, now)
        answer["joined"] = sent.joined
        return _json(answer, 202)

    async def show_status(self, call: Call) -> Answer:
        key = self._keys.caller(call, "status")
        if call.method == "POST":
            body = schemas.parse(schemas.StatusBody, await call.json(MAX_BODY))
        else:
            if any(name == "number" for name, _ in call.query()):
                raise InvalidInput(
                    "number_in_url", 'Numbers do not belong in URLs: POST {"number": …} instead.'
                )
            body = schemas.parse_query(schemas.StatusBody, call.query())
        client = None if "operate" in key.scopes.split() else key.client_id
        found = self._find(client, body, max(1, body.history))
        records = self._runtime.reads.records(found)
        mine = [one for one in records if client in {None, one.verification.client_id}]
        if not mine:
            raise _not_found()
        now = self._runtime.now()
        shown = [
            schemas.status(one, recipient_of(self._runtime.keyring, one.verification), now)
            for one in mine
        ]
        answer = shown[0]
        if body.history:
            answer["history"] = shown[1:]
        return _json(answer, 200)

    async def check_code(self, call: Call) -> Answer:
        key = self._keys.caller(call, "verify")
        body = schemas.parse(schemas.VerifyBody, await call.json(MAX_BODY))
        named = self._one(key.client_id, body)
        changed = await verify.check(self._runtime, key.client_id, named, body.code)
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
        found = self._find(client_id, body, 1 if body.number is None else 10)
        if len(found) > 1:
            records = self._runtime.reads.records(found, log=False)
            running = [one.verification for one in records]
            pending = [one.id for one in running if one.status is Status.PENDING]
            return (pending or found)[0]
        if not found:
            raise _not_found()
        return found[0]

    def _find(self, client_id: UUID | None, body: schemas.WhichBody, limit: int) -> list[UUID]:
        given = [one for one in (body.verification_id, body.reference, body.number) if one]
        if len(given) != 1:
            raise InvalidInput(
                "invalid_request", "Give exactly one of `verification_id`, `reference`, `number`."
            )
        reads = self._runtime.reads
        if body.verification_id is not None:
            named = identity.parse(body.verification_id)
            return [named] if named is not None else []
        if body.reference is not None:
            return reads.by_reference(client_id, body.reference, limit)
        phone = recipient.parse(body.number or "", self._runtime.default_region)
        index = self._runtime.keyring.index("phone", phone.e164)
        return reads.by_number(client_id, index, limit)


def _not_found() -> NotFound:
    return NotFound(
        "verification_not_found", "This client has no such verification. Check what it was named."
    )


def _json(body: object, status: int) -> Answer:
    return Answer(status, schemas.dumps(body), b"application/json")
