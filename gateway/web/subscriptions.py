"""/otp/subscriptions: where a client wants its events."""

from typing import Any

from pydantic import AwareDatetime, Field

from gateway.domain import identity
from gateway.domain.errors import InvalidInput
from gateway.domain.events import KINDS
from gateway.services.subscriptions import Subscriptions
from gateway.store.outbox import Subscription
from gateway.web import bodies, schemas
from gateway.web.auth import Keys
from gateway.web.edge import Call, Methods
from gateway.web.errors import Answer

MAX_BODY = 16 * 1024  # bytes
_PATH = "/otp/subscriptions"


class AddBody(schemas.Body):
    """`POST /otp/subscriptions`. No `kinds`: all of them."""

    url: str = Field(
        description="Where events shall be posted; https.", examples=["https://shop.example/otp"]
    )
    kinds: list[str] = Field(
        default=[],
        max_length=50,
        description="Which events; none: all of them.",
        examples=[["verification.delivered", "verification.failed"]],
        json_schema_extra={"items": {"type": "string", "enum": [*KINDS]}},
    )


class ReplayBody(schemas.Body):
    """`POST /otp/subscriptions/{id}/replay`. `since`: a time with its offset."""

    since: AwareDatetime | None = Field(
        default=None,
        description="Events from then on, a time with its offset.",
        examples=["2026-11-21T12:00:00Z"],
    )


class SubscriptionCalls:
    """The endpoints. Reading needs the scope `status`, everything else `send`."""

    def __init__(self, subscriptions: Subscriptions, keys: Keys) -> None:
        self._subscriptions = subscriptions
        self._keys = keys

    def calls(self) -> dict[str, Methods]:
        """What is served at the path itself."""
        return {_PATH: {"GET": self.list_all, "POST": self.add}}

    def below(self) -> dict[str, Methods]:
        """What is served below it."""
        return {
            f"{_PATH}/{{id}}": {"GET": self.show, "DELETE": self.remove},
            f"{_PATH}/{{id}}/rotate": {"POST": self.rotate},
            f"{_PATH}/{{id}}/replay": {"POST": self.replay},
            f"{_PATH}/{{id}}/test": {"POST": self.test},
        }

    async def list_all(self, call: Call) -> Answer:
        key = await self._keys.caller(call, "status")
        found = await self._subscriptions.mine(key.client_id)
        return _json({"subscriptions": [await self._shown(one) for one in found]}, 200)

    async def add(self, call: Call) -> Answer:
        key = await self._keys.caller(call, "send")
        body = schemas.parse(AddBody, await call.json(MAX_BODY))
        made, secret = await self._subscriptions.add(key.client_id, body.url, body.kinds)
        return _json({**await self._shown(made), "secret": secret}, 201)

    async def show(self, call: Call) -> Answer:
        return _json(await self._shown(await self._one(call, "status")), 200)

    async def remove(self, call: Call) -> Answer:
        await self._subscriptions.remove(await self._one(call, "send"))
        return Answer(204)

    async def rotate(self, call: Call) -> Answer:
        one = await self._one(call, "send")
        secret = await self._subscriptions.rotate(one)
        now = await self._subscriptions.one(one.client_id, one.id)
        return _json({**await self._shown(now), "secret": secret}, 200)

    async def replay(self, call: Call) -> Answer:
        one = await self._one(call, "send")
        raw = await call.body(MAX_BODY)
        body = schemas.parse(ReplayBody, raw) if raw else ReplayBody()
        if body.since is not None and body.since > self._subscriptions.now():
            raise InvalidInput("invalid_request", "since: it lies in the future.")
        count = await self._subscriptions.replay(one, body.since)
        now = await self._subscriptions.one(one.client_id, one.id)
        return _json({**await self._shown(now), "replayed_verifications": count}, 202)

    async def test(self, call: Call) -> Answer:
        one = await self._one(call, "send")
        tried = await self._subscriptions.test(one)
        taken = tried.problem is None
        answer = {"delivered": taken, "http_status": tried.status, "problem": tried.problem}
        return _json({"subscription_id": one.id, **answer}, 200)

    async def _one(self, call: Call, scope: str) -> Subscription:
        key = await self._keys.caller(call, scope)
        named = identity.parse(call.tail.partition("/")[0])
        return await self._subscriptions.one(key.client_id, named)

    async def _shown(self, one: Subscription) -> dict[str, Any]:
        return {
            "subscription_id": one.id,
            "url": one.url,
            "kinds": one.kinds.split(),
            "created_at": one.created_at,
            "rotated_at": one.rotated_at,
            "undelivered": await self._subscriptions.reads.undelivered(one.id),
            "failures": one.failures,
            "failing_since": one.failing_since,
            "problem": one.problem,
            "disabled_at": one.disabled_at,
            "disabled_why": one.disabled_why,
        }


def _json(body: object, status: int) -> Answer:
    return Answer(status, bodies.dumps(body), b"application/json")
