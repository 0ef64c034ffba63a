"""What the gateway publishes about itself, held against what it answers.

Stricter than the document: an answer may have no member that is not described, so that a new one is
described with it.
"""

from functools import cached_property
from typing import Any

import httpx
import orjson
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

from gateway.web import openapi
from gateway.web.operations import Json

HEADERS = ("retry-after", "www-authenticate", "idempotency-replayed", "preference-applied")
BEYOND = {"method_not_allowed", "no_such_path", "subscription_not_found"}  # where no call is


class Contract:
    """One document."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._held: dict[str, Validator] = {}

    @cached_property
    def _schemas(self) -> Json:
        """The components, closed."""
        schemas = orjson.loads(orjson.dumps(self.document["components"]["schemas"]))
        for schema in schemas.values():
            if "properties" in schema:
                schema["additionalProperties"] = False
        return dict(schemas)

    def operation(self, method: str, path: str) -> Json | None:
        """The call of a method and a path; None where none is described."""
        known = self.document["paths"]
        below = {1: "/{route}", 2: "/{route}/{key}"}
        if path.startswith("/otp/delivered/"):
            path = "/otp/delivered" + below.get(path.count("/") - 2, "/{route}/{key}")
        if path.startswith("/otp/subscriptions/"):
            deed = path.split("/")[4:]
            path = "/".join(["/otp/subscriptions/{id}", *deed])
        found: Json | None = known.get(path, {}).get(method.lower())
        return found

    def mistakes(self, answer: httpx.Response) -> list[str]:
        """In what an answer is not as described."""
        request = answer.request
        method = "GET" if request.method == "HEAD" else request.method
        operation = self.operation(method, request.url.path)
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if operation is None:
            if request.url.path.startswith("/docs"):
                return []
            code = answer.json().get("code") if kind == "application/problem+json" else None
            return [] if code in BEYOND else [f"{method} {request.url.path} is not described"]
        described = operation["responses"].get(str(answer.status_code))
        if described is None:
            return [f"{method} {request.url.path}: {answer.status_code} is not described"]
        missing = [
            f"the header {name} is not described"
            for name in (
                "retry-after",
                "www-authenticate",
                "idempotency-replayed",
                "preference-applied",
            )
            if name in answer.headers
            and name not in {one.lower() for one in described.get("headers", {})}
        ]
        content = described.get("content")
        if content is None or request.method == "HEAD":
            return missing
        if kind not in content:
            return [*missing, f"{answer.status_code}: {kind} is not described"]
        schema = content[kind]["schema"]
        return [*missing, *(e.message for e in self._validator(schema).iter_errors(answer.json()))]

    def _validator(self, schema: Any) -> Validator:
        key = orjson.dumps(schema).decode()
        if key not in self._held:
            whole = {**schema, "components": {"schemas": self._schemas}}
            self._held[key] = Draft202012Validator(whole)
        return self._held[key]


CONTRACT = Contract(openapi.document(openapi.everything()))


async def hold(answer: httpx.Response) -> None:
    """For httpx: every answer that a test gets is as described."""
    if answer.headers.get("content-type") == "text/event-stream":
        return
    await answer.aread()
    mistakes = CONTRACT.mistakes(answer)
    assert [] == mistakes, f"{answer.request.url.path} {answer.status_code}: {answer.text[:500]}"
