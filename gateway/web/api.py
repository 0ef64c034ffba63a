"""The calls of backend services: send, status, verify, cancel, next."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.domain import identity, recipient
from gateway.domain.errors import InvalidInput, NotFound
from gateway.domain.verification import Status
from gateway.services import send, verify
from gateway.services.case import recipient_of
from gateway.services.runtime import Runtime
from gateway.web import schemas
from gateway.web.auth import Keys
from gateway.web.errors import TooLarge, WrongType

MAX_BODY = 64 * 1024  # bytes


class Api:
    """The endpoints, over one runtime."""

    def __init__(self, runtime: Runtime, keys: Keys) -> None:
        self._runtime = runtime
        self._keys = keys

    def routes(self) -> list[Route]:
        """What is served, and how."""
        return [
            Route("/otp/send", self.send_code, methods=["POST"]),
            Route("/otp/status", self.show_status, methods=["GET", "POST"]),
            Route("/otp/verify", self.check_code, methods=["POST"]),
            Route("/otp/cancel", self.cancel, methods=["POST"]),
            Route("/otp/next", self.send_next, methods=["POST"]),
        ]

    async def send_code(self, request: Request) -> Response:
        key = self._keys.caller(request, "send")
        body = schemas.parse(schemas.SendBody, await json_body(request))
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
        answer = schemas.summary(sent.plan, sent.verification, sent.attempts, now)
        answer["joined"] = sent.joined
        return _json(answer, 202)

    async def show_status(self, request: Request) -> Response:
        key = self._keys.caller(request, "status")
        if request.method == "POST":
            body = schemas.parse(schemas.StatusBody, await json_body(request))
        else:
            if "number" in request.query_params:
                raise InvalidInput(
                    "number_in_url", 'Numbers do not belong in URLs: POST {"number": …} instead.'
                )
            body = schemas.parse_query(schemas.StatusBody, request.query_params.multi_items())
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

    async def check_code(self, request: Request) -> Response:
        key = self._keys.caller(request, "verify")
        body = schemas.parse(schemas.VerifyBody, await json_body(request))
        named = self._one(key.client_id, body)
        changed = await verify.check(self._runtime, key.client_id, named, body.code)
        return self._changed(changed, 200)

    async def cancel(self, request: Request) -> Response:
        key = self._keys.caller(request, "send")
        body = schemas.parse(schemas.WhichBody, await json_body(request))
        named = self._one(key.client_id, body)
        return self._changed(await verify.cancel(self._runtime, key.client_id, named), 200)

    async def send_next(self, request: Request) -> Response:
        key = self._keys.caller(request, "send")
        body = schemas.parse(schemas.WhichBody, await json_body(request))
        named = self._one(key.client_id, body)
        return self._changed(await verify.send_next(self._runtime, key.client_id, named), 202)

    def _changed(self, changed: verify.Changed, status: int) -> Response:
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


def _json(body: object, status: int) -> Response:
    return Response(schemas.dumps(body), status, media_type="application/json")


async def json_body(request: Request) -> bytes:
    """The raw body of a JSON request. Raises WrongType or TooLarge."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise WrongType
    return await body_within(request, MAX_BODY)


async def body_within(request: Request, most: int) -> bytes:
    """The raw body, if it has at most so many bytes. Raises TooLarge, before reading on."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise TooLarge
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > most:
            raise TooLarge
    return bytes(parts)
