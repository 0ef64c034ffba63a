"""Errors as RFC 9457 problems: one table from kind to status, one renderer, one net below all.

`type` is `about:blank`-free on purpose: it names this project's list of codes, which README
explains.
"""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
)

STATUS: Mapping[type[GatewayError], int] = {
    InvalidInput: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Ended: 410,
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


class Log(Protocol):
    """The part of structlog that is used."""

    def error(self, event: str, **facts: object) -> object: ...


class TooLarge(Exception):
    """413: raised while a body is read."""


class WrongType(Exception):
    """415: the body is not declared as JSON."""


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    facts: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document (application/problem+json)."""
    body: dict[str, Any] = {
        "type": f"urn:otp-gateway:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    return Response(
        orjson.dumps({**(facts or {}), **body}, default=str),
        status,
        headers,
        media_type="application/problem+json",
    )


def refused(request: Request, error: Exception) -> Response:
    """A GatewayError as its problem."""
    assert isinstance(error, GatewayError)  # noqa: S101  (registered for that class alone)
    facts = dict(error.facts)
    headers = {}
    if error.retry_after is not None:
        seconds = max(1, math.ceil(error.retry_after))
        headers["Retry-After"] = str(seconds)
        facts["retry_after"] = seconds
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="otp-gateway"'
    return problem(
        STATUS[type(error)], error.code, error.detail, facts=facts, headers=headers or None
    )


def http_error(request: Request, error: Exception) -> Response:
    """What Starlette refuses (404, 405) as a problem."""
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for that class alone)
    code, detail = _HTTP.get(error.status_code, ("http_error", error.detail))
    return problem(error.status_code, code, detail, headers=error.headers)


def too_large(request: Request, error: Exception) -> Response:
    """A body beyond the limit."""
    code, detail = _HTTP[413]
    return problem(413, code, detail, headers={"Connection": "close"})


def wrong_type(request: Request, error: Exception) -> Response:
    """A body that is not declared as JSON."""
    code, detail = _HTTP[415]
    return problem(415, code, detail)


HANDLERS = {
    GatewayError: refused,
    HTTPException: http_error,
    TooLarge: too_large,
    WrongType: wrong_type,
}


class Net:
    """The net below everything: an unforeseen error is a 500 problem and a line in the log."""

    def __init__(self, app: ASGIApp, log: Log) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            self._log.error("unforeseen", path=_shown(scope), exc_info=error)
            if started:
                raise
            detail = "Something went wrong here, and it was logged. Sending it again may help."
            await problem(500, "internal_error", detail)(scope, receive, send)


def _shown(scope: Scope) -> str:
    """The path without a callback's key."""
    parts = str(scope["path"]).split("/")
    return "/".join(parts[:4])
