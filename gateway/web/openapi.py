"""`/openapi.json`: OpenAPI 3.1 of the calls that are served, from the models that check them.

What is served comes in as the tables the edge routes by; `OPERATIONS` describes it. Nothing
undescribed is left out quietly, and nothing described that is not served is published: tests hold
the two against each other, and every answer of their gateways against the document.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway import __version__
from gateway.web import answers, schemas
from gateway.web.codes import CODES
from gateway.web.recipients import PRIVATE as ADDRESSES

Json = dict[str, Any]
PRIVATE = (*ADDRESSES, "verification_key")  # what has no place in a URL
REF = "#/components/schemas/{model}"

_ABOUT = """\
One POST sends a one-time code; the gateway follows its delivery, falls back to the next channel \
and checks what the person types.

Every call takes JSON and `Authorization: Bearer <key>`, with a key from `gateway client add`. \
Every refusal is an RFC 9457 problem (`application/problem+json`): act on its `code`. A 503 means \
that nothing was stored: send it again. Times are UTC, RFC 3339; durations are seconds. Answers \
may get further members: ignore what you do not know."""

_KEY = ("key_missing", "key_unknown", "scope_missing", "key_rate")
_BODY = ("broken_json", "unknown_field", "invalid_request", "body_too_large")
_JSON = (*_BODY, "unsupported_media_type", "internal_error")
_STORE = ("overloaded", "storage", "closing")
_NAMED = ("verification_not_found", "verification_key_invalid", "recipient_mismatch")
_WHICH = (*_NAMED, "ambiguous", "recipient_invalid", "idempotency_mismatch")
_OVER = ("already_verified", "expired", "canceled", "failed")
_SEND = (
    *("recipient_invalid", "recipient_refused", "unknown_workflow", "unknown_channel"),
    *("workflow_too_long", "no_address", "unknown_template", "params_missing"),
    *("params_not_allowed", "text_invalid", "amount_required", "amount_not_shown"),
    *("text_not_allowed", "test_key_refused", "already_running", "workflow_differs"),
    *("code_differs", "cool_down", "sends_used_up", "too_late:429", "failure_budget_used_up"),
    *("idempotency_refused", "idempotency_mismatch", "unknown_route:400", "no_route"),
)
_CALLBACK = (
    *("callback_refused", "unknown_route:404", "no_such_path", "body_too_large", "internal_error"),
    *("callback_unproven", "not_confirmed"),
)

_EXAMPLES: Mapping[str, Json] = {
    "number": {"to": "+33600000042", "reference": "order-17"},
    "addresses": {"to": {"phone": "+33600000042", "email": "person@example.com"}},
    "payment": {
        "to": "+33600000042",
        "template": "payment",
        "amount": "12.50 EUR",
        "payee": "Example Bikes",
    },
    "many": {"recipients": [{"phone_number": "+33600000042"}, {"email": "person@example.com"}]},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call. `scope`: what its key must allow, None where no key is asked for. `problems`: the
    codes it may refuse with; one with two statuses is written `code:status`. `query`: the body's
    model as query parameters. `once`: takes an Idempotency-Key. `ok`: status → model, or words for
    an answer that is no JSON of ours."""

    name: str
    tag: str
    summary: str
    text: str
    ok: Mapping[int, type[BaseModel] | tuple[type[BaseModel], ...] | str]
    scope: str | None = None
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    examples: Mapping[str, Json] | None = None
    problems: tuple[str, ...] = ()
    once: bool = False


def _receipt(method: str, named: str, text: str) -> Operation:
    return Operation(
        name=f"receipt_{method.lower()}{named}",
        tag="Receipts",
        summary="A provider reports",
        text=text,
        ok={200: "The answer of a handshake, where the provider asks for one; else empty."},
        problems=(*_CALLBACK, *_STORE),
    )


_RECEIPT = (
    "The provider's own format, authenticated in its own way: a signature over the raw body, a key "
    "in the URL, or a token of ours. The answer leaves once the receipt is stored."
)
_STATUS = Operation(
    name="status",
    tag="Verifications",
    summary="Ask how it stands",
    text="By id or reference; by number or address with POST only. Tells every attempt, every "
    "receipt, what comes next, and all of it in a sentence.",
    ok={200: answers.StatusAnswer},
    scope="status",
    problems=(
        *_KEY,
        *("invalid_request", "unknown_field", "verification_not_found", "internal_error"),
    ),
)

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("/otp/send", "POST"): Operation(
        name="send",
        tag="Verifications",
        summary="Send a code",
        text="Answers once the request is on disk. A second send to a recipient with a running "
        "verification of the same purpose joins it: the same code, once more. With `recipients`, "
        "each is answered as a send of its own would have been, and a bad one fails alone.",
        ok={202: (answers.SendAnswer, answers.SendManyAnswer)},
        scope="send",
        body=schemas.SendBody,
        once=True,
        examples=_EXAMPLES,
        problems=(*(*_KEY, *_JSON, *_SEND, *_STORE),),
    ),
    ("/otp/status", "GET"): Operation(
        name=_STATUS.name + "_by_name",
        tag=_STATUS.tag,
        summary=_STATUS.summary,
        text=_STATUS.text,
        ok=_STATUS.ok,
        scope=_STATUS.scope,
        query=schemas.StatusBody,
        problems=(*_STATUS.problems, "number_in_url", "key_in_url"),
    ),
    ("/otp/status", "POST"): Operation(
        name=_STATUS.name,
        tag=_STATUS.tag,
        summary=_STATUS.summary,
        text=_STATUS.text,
        ok=_STATUS.ok,
        scope=_STATUS.scope,
        body=schemas.StatusBody,
        examples={"number": {"number": "+33600000042", "history": 5}},
        problems=(*_KEY, *_JSON, *_NAMED, "recipient_invalid", "expired"),
    ),
    ("/otp/verify", "POST"): Operation(
        name="verify",
        tag="Verifications",
        summary="Check what the person typed",
        text="200 means right, once: of many right codes at the same time one gets it. A wrong "
        "one is 404 `wrong_code` and counted.",
        ok={200: answers.Summary},
        scope="verify",
        body=schemas.VerifyBody,
        once=True,
        examples={"reference": {"reference": "order-17", "code": "493027"}},
        problems=(
            *(*_KEY, *_JSON, *_WHICH, "wrong_code", "amount_mismatch", *_OVER),
            *("checks_used_up", "failure_budget_used_up", *_STORE),
        ),
    ),
    ("/otp/cancel", "POST"): Operation(
        name="cancel",
        tag="Verifications",
        summary="Stop",
        text="Nothing more is sent and the code is void. Twice is 200 twice.",
        ok={200: answers.Summary},
        scope="send",
        body=schemas.WhichBody,
        once=True,
        examples={"reference": {"reference": "order-17"}},
        problems=(*_KEY, *_JSON, *_WHICH, *_OVER, "checks_used_up", *_STORE),
    ),
    ("/otp/next", "POST"): Operation(
        name="next",
        tag="Verifications",
        summary="Send the next step now",
        text="For a person who cannot wait for the next channel.",
        ok={202: answers.Summary},
        scope="send",
        body=schemas.WhichBody,
        once=True,
        examples={"reference": {"reference": "order-17"}},
        problems=(
            *(*_KEY, *_JSON, *_WHICH, *_OVER, "checks_used_up"),
            *("no_step_left", "too_late:409", *_STORE),
        ),
    ),
    **{
        (path, method): _receipt(method, named, f"{_RECEIPT} {more}".strip())
        for method in ("GET", "POST")
        for path, named, more in (
            ("/otp/delivered", "", "For a gateway with a single route."),
            ("/otp/delivered/{route}", "_route", ""),
            ("/otp/delivered/{route}/{key}", "_key", ""),
        )
    },
    ("/", "GET"): Operation(
        name="about",
        tag="Probes",
        summary="What this is",
        text="Name, version, calls.",
        ok={200: answers.About},
    ),
    ("/healthz", "GET"): Operation(
        name="alive", tag="Probes", summary="Alive", text="It answers.", ok={200: answers.Alive}
    ),
    ("/readyz", "GET"): Operation(
        name="ready",
        tag="Probes",
        summary="Ready",
        text="Database, migrations, and the last pass of the worker.",
        ok={200: answers.Ready, 503: answers.Ready},
    ),
    ("/openapi.json", "GET"): Operation(
        name="openapi",
        tag="Probes",
        summary="This description",
        text="OpenAPI 3.1; to be read at `/docs`.",
        ok={200: "An OpenAPI document.", 304: "The one of If-None-Match is still right."},
    ),
}

_TAGS = {
    "Verifications": "The calls of backend services.",
    "Receipts": "Where providers report what became of a message.",
    "Probes": "For load balancers and people.",
}

_HEADERS: Mapping[str, Json] = {
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
    "key": "The account's callback key, or a token of ours that names the attempt.",
}

_MODELS: tuple[type[BaseModel], ...] = (
    *(schemas.SendBody, schemas.Entry, schemas.WhichBody, schemas.StatusBody, schemas.VerifyBody),
)


def document(served: Mapping[str, Iterable[str]]) -> Json:
    """The OpenAPI document of the paths and methods served. A path that ends in `/` stands for
    those below it."""
    models = _components()
    paths: dict[str, Json] = {}
    for (path, method), operation in OPERATIONS.items():
        if method in served.get(path, served.get(path.partition("{")[0], ())):
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
        served.setdefault(path.partition("{")[0], set()).add(method)
    return served


def undescribed(served: Mapping[str, Iterable[str]]) -> list[str]:
    """What is served and not in OPERATIONS: `GET /path`. HEAD goes with GET."""
    known = {(path.partition("{")[0], method) for path, method in OPERATIONS}
    return [
        f"{method} {path}"
        for path, methods in served.items()
        for method in methods
        if method != "HEAD" and (path, method) not in known
    ]


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
        described["requestBody"] = {"required": True, "content": {"application/json": content}}
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
