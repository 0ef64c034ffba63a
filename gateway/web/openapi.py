"""`/openapi.json`: OpenAPI 3.1 of the calls that are served, from the models that check them.

What is served comes in as the tables the edge routes by; `OPERATIONS` describes it. Nothing
undescribed is left out quietly, and nothing described that is not served is published: tests hold
the two against each other, and every answer of their gateways against the document.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway import __version__
from gateway.web import answers, schemas, subscriptions, waits
from gateway.web.codes import CODES
from gateway.web.operations import OPERATIONS, Json, Operation
from gateway.web.recipients import PRIVATE as ADDRESSES

PRIVATE = (*ADDRESSES, "verification_key")  # what has no place in a URL
REF = "#/components/schemas/{model}"

_ABOUT = """\
One POST sends a one-time code; the gateway follows its delivery, falls back to the next channel \
and checks what the person types.

Every call takes JSON and `Authorization: Bearer <key>`, with a key from `gateway client add`. \
Every refusal is an RFC 9457 problem (`application/problem+json`): act on its `code`. A 503 means \
that nothing was stored: send it again. Times are UTC, RFC 3339; durations are seconds. Answers \
may get further members: ignore what you do not know."""

_TAGS = {
    "Verifications": "The calls of backend services.",
    "Events": "What happens, told as it happens.",
    "Receipts": "Where providers report what became of a message.",
    "Probes": "For load balancers and people.",
}

_HEADERS: Mapping[str, Json] = {
    "Preference-Applied": {
        "description": "`wait=N`: the answer was held for it.",
        "schema": {"type": "string"},
        "example": "wait=10",
    },
    "Idempotency-Replayed": {
        "description": "`true`: the stored answer of an earlier request with this Idempotency-Key.",
        "schema": {"const": "true"},
        "example": "true",
    },
    "Retry-After": {
        "description": "Seconds until it is worth trying again; where waiting helps.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 12,
    },
    "WWW-Authenticate": {
        "description": "How to authenticate.",
        "schema": {"type": "string"},
        "example": 'Bearer realm="otp-gateway"',
    },
}
_SENT_WITH = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}

_PREFER: Json = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`wait=N` (RFC 7240): answer once a provider has the message, after N seconds "
    "at most (60). Answered by the header Preference-Applied.",
    "schema": {"type": "string"},
    "example": "wait=10",
}
_LAST_EVENT_ID: Json = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The id of the last event you have.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
    "example": "3",
}
_ONCE: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes the request safe to repeat: for 24 h the same key with the same path and "
    "body gets the stored answer, and nothing is done again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "example": "order-17-send",
}
_REPLAYED = frozenset(
    {"200", "202", "404"}
)  # what is stored: what was done, and a wrong code, counted

_PATH: Mapping[str, str] = {
    "route": "Name of the route or, with several on one account, of any of them.",
    "id": "The subscription's id.",
    "key": "The account's callback key, or a token of ours that names the attempt.",
}

_MODELS: tuple[type[BaseModel], ...] = (
    *(schemas.SendBody, schemas.Entry, schemas.WhichBody, schemas.StatusBody, schemas.VerifyBody),
    *(subscriptions.AddBody, subscriptions.ReplayBody, waits.EventsQuery),
)


def document(served: Mapping[str, Iterable[str]]) -> Json:
    """The OpenAPI document of the paths and methods served. A path that ends in `/` stands for
    those below it."""
    models = _components()
    paths: dict[str, Json] = {}
    for (path, method), operation in OPERATIONS.items():
        if method in served.get(path, served.get(_beginning(path), ())):
            described = _operation(operation, models)
            names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
            if names:
                described["parameters"] = [_in_path(name) for name in names]
            paths.setdefault(path, {})[method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OTP gateway",
            "version": __version__,
            "summary": "Sends one-time codes, follows their delivery, verifies them.",
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": models,
            "headers": dict(_HEADERS),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key from `gateway client add`, with the scopes it needs.",
                }
            },
        },
        "x-problems": {
            code: {"status": list(meaning.statuses), "description": meaning.text}
            for code, meaning in CODES.items()
        },
    }


def everything() -> dict[str, set[str]]:
    """All that is described, as if it were served."""
    served: dict[str, set[str]] = {}
    for path, method in OPERATIONS:
        served.setdefault(path, set()).add(method)
    return served


def undescribed(served: Mapping[str, Iterable[str]]) -> list[str]:
    """What is served and not in OPERATIONS: `GET /path`. HEAD goes with GET."""
    known = {
        one for path, method in OPERATIONS for one in ((path, method), (_beginning(path), method))
    }
    return [
        f"{method} {path}"
        for path, methods in served.items()
        for method in methods
        if method != "HEAD" and (path, method) not in known
    ]


def _beginning(path: str) -> str:
    return path.partition("{")[0]


def _components() -> Json:
    made = [
        one
        for operation in OPERATIONS.values()
        for kind in operation.ok.values()
        for one in (kind if isinstance(kind, tuple) else (kind,))
        if isinstance(one, type)
    ]
    came = [(model, "validation") for model in _MODELS]
    kinds: Any = [*came, *((model, "serialization") for model in (*made, answers.Problem))]
    _, found = models_json_schema(list(dict.fromkeys(kinds)), ref_template=REF)
    models: Json = _plain(found["$defs"])
    entries = models["SendBody"]["properties"]["recipients"]["anyOf"][0]
    entries["items"] = {"$ref": REF.format(model="Entry")}
    return dict(sorted(models.items()))


def _plain(schema: Any) -> Any:
    """Without the titles that pydantic makes of names."""
    if isinstance(schema, dict):
        made = {"title"} if isinstance(schema.get("title"), str) else set()
        return {name: _plain(value) for name, value in schema.items() if name not in made}
    return [_plain(one) for one in schema] if isinstance(schema, list) else schema


def _operation(operation: Operation, models: Json) -> Json:
    described: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.text,
        "security": [] if operation.scope is None else [{"bearer": [operation.scope]}],
    }
    if operation.query is not None:
        described["parameters"] = _parameters(models[operation.query.__name__])
    if operation.body is not None:
        content: Json = {"schema": _ref(operation.body)}
        if operation.examples:
            content["examples"] = {k: {"value": v} for k, v in operation.examples.items()}
        described["requestBody"] = {
            "required": not operation.bare,
            "content": {"application/json": content},
        }
    if operation.tag == "Receipts":
        described["requestBody"] = {"required": False, "content": {"*/*": {}}}
        if operation.name.startswith("receipt_get"):
            del described["requestBody"]
    described["responses"] = {
        **{str(status): _answer(status, kind) for status, kind in operation.ok.items()},
        **{str(at): _refusal(at, codes) for at, codes in _by_status(operation.problems)},
    }
    if operation.once:
        described["parameters"] = [_ONCE]
        for status in _REPLAYED & described["responses"].keys():
            headers = described["responses"][status].setdefault("headers", {})
            headers["Idempotency-Replayed"] = _header("Idempotency-Replayed")
    if operation.waits:
        described["parameters"].append(_PREFER)
        headers = described["responses"]["202"]["headers"]
        headers["Preference-Applied"] = _header("Preference-Applied")
    if operation.name == "events":
        described["parameters"].append(_LAST_EVENT_ID)
    return described


def _header(name: str) -> Json:
    return {"$ref": f"#/components/headers/{name}"}


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": REF.format(model=model.__name__)}


def _answer(status: int, kind: Any) -> Json:
    if isinstance(kind, str):
        return {"description": kind}
    kinds = kind if isinstance(kind, tuple) else (kind,)
    about = " Or: ".join(" ".join((one.__doc__ or "").split()) for one in kinds)
    schema = _ref(kinds[0]) if len(kinds) == 1 else {"anyOf": [_ref(one) for one in kinds]}
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _by_status(problems: Iterable[str]) -> list[tuple[int, list[str]]]:
    found: dict[int, list[str]] = {}
    for problem in problems:
        code, _, status = problem.partition(":")
        found.setdefault(int(status) if status else CODES[code].statuses[0], []).append(code)
    return sorted(found.items())


def _refusal(status: int, codes: list[str]) -> Json:
    listed = "\n".join(f"* `{code}`: {CODES[code].text}" for code in codes)
    shape = {"properties": {"code": {"enum": codes}, "status": {"const": status}}}
    refusal: Json = {
        "description": f"{HTTPStatus(status).phrase}.\n\n{listed}",
        "content": {
            "application/problem+json": {"schema": {"allOf": [_ref(answers.Problem), shape]}}
        },
    }
    if status in _SENT_WITH:
        name = _SENT_WITH[status]
        refusal["headers"] = {name: _header(name)}
    return refusal


def _parameters(model: Json) -> list[Json]:
    """Its fields as query parameters: texts and numbers that may stand in a URL."""
    return [
        {
            "name": name,
            "in": "query",
            "required": name in model.get("required", ()),
            "description": field["description"],
            "schema": _given(field),
            "example": field["examples"][0],
        }
        for name, field in model["properties"].items()
        if name not in PRIVATE
    ]


def _given(field: Json) -> Json:
    """A field's schema without the null that a query cannot say."""
    kinds = field.get("anyOf", [field])
    kind = next(one for one in kinds if one.get("type") != "null")
    return {k: v for k, v in kind.items() if k not in {"description", "examples", "title"}}


def _in_path(name: str) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": _PATH[name],
        "schema": {"type": "string"},
    }
