"""Errors as RFC 9457 problems: one table from kind to status, one renderer.

`type` is `about:blank`-free on purpose: it names this project's list of codes, which README
explains.
"""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.domain.errors import (
    Conflict,
    Ended,
    Forbidden,
    GatewayError,
    InvalidInput,
    Limited,
    NotFound,
    Unauthenticated,
    Unavailable,
    Unprocessable,
)

STATUS: Mapping[type[GatewayError], int] = {
    InvalidInput: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Ended: 410,
    Unprocessable: 422,
    Limited: 429,
    Unavailable: 503,
}

# What the web layer itself refuses, by status: code and what to do.
_HTTP = {
    404: ("no_such_path", "There is nothing at this path. The API's paths begin with /otp/."),
    405: ("method_not_allowed", "This path does not take that method; see the Allow header."),
    413: ("body_too_large", "The body is larger than this path takes."),
    415: ("unsupported_media_type", "Send JSON with Content-Type: application/json."),
}


class TooLarge(Exception):
    """413: raised while a body is read."""


class WrongType(Exception):
    """415: the body is not declared as JSON."""


class Answer(NamedTuple):
    """A response, ready to leave."""

    status: int
    body: bytes = b""
    media_type: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    facts: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """A problem document (application/problem+json)."""
    body: dict[str, Any] = {
        "type": f"urn:otp-gateway:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    given = (headers or {}).items()
    return Answer(
        status,
        orjson.dumps({**(facts or {}), **body}, default=str, option=orjson.OPT_UTC_Z),
        b"application/problem+json",
        tuple((name.lower().encode(), text.encode()) for name, text in given),
    )


def refusal(error: GatewayError | TooLarge | WrongType) -> Answer:
    """A refusal as its problem."""
    if isinstance(error, TooLarge):
        return problem(413, *_HTTP[413], headers={"Connection": "close"})
    if isinstance(error, WrongType):
        return problem(415, *_HTTP[415])
    facts = dict(error.facts)
    headers = {}
    if error.retry_after is not None:
        seconds = max(1, math.ceil(error.retry_after))
        headers["Retry-After"] = str(seconds)
        facts["retry_after"] = seconds
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="otp-gateway"'
    return problem(STATUS[type(error)], error.code, error.detail, facts=facts, headers=headers)


def code_of(error: GatewayError | TooLarge | WrongType) -> str:
    """The code of a refusal's problem."""
    if isinstance(error, GatewayError):
        return error.code
    return _HTTP[413 if isinstance(error, TooLarge) else 415][0]


def method_not_allowed(allow: str) -> Answer:
    """405, with what is allowed."""
    return problem(405, *_HTTP[405], headers={"Allow": allow})


INTERNAL = problem(
    500,
    "internal_error",
    "Something went wrong here, and it was logged. Sending it again may help.",
)


def worker_error(request: Request, error: Exception) -> Response:
    """The same where only the probes are served."""
    if isinstance(error, HTTPException) and error.status_code == 404:
        detail = (
            "This process is a worker (`--role worker`): it serves /healthz, /readyz and /metrics "
            "alone. Send calls and receipts to a process with the role api or all."
        )
        answer = problem(404, "no_such_path", detail)
        return Response(answer.body, answer.status, media_type="application/problem+json")
    return http_error(request, error)


def http_error(request: Request, error: Exception) -> Response:
    """What Starlette refuses (404, 405) as a problem."""
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for that class alone)
    code, detail = _HTTP.get(error.status_code, ("http_error", error.detail))
    answer = problem(error.status_code, code, detail)
    return Response(
        answer.body, answer.status, error.headers, media_type="application/problem+json"
    )
