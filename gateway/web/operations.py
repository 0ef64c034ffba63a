"""Every call that is served, in words: what it takes, answers and refuses. `openapi.py` makes the
document of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from gateway.web import answers, schemas, subscriptions, waits

Json = dict[str, Any]

_TWO_KINDS = ["verification.delivered", "verification.failed"]
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
    *("client_ip_invalid", "country_refused", "limit_reached", "pumping_suspected", "spend_cap"),
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
    model as query parameters. `bare`: it may come without a body. `once`: takes an Idempotency-Key;
    `waits`: takes Prefer. `ok`: status → model, or words for
    an answer that is no JSON of ours."""

    name: str
    tag: str
    summary: str
    text: str
    ok: Mapping[int, type[BaseModel] | tuple[type[BaseModel], ...] | str]
    scope: str | None = None
    body: type[BaseModel] | None = None
    bare: bool = False
    query: type[BaseModel] | None = None
    examples: Mapping[str, Json] | None = None
    problems: tuple[str, ...] = ()
    once: bool = False
    waits: bool = False


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
        "too_many_waiting",
        *("invalid_request", "unknown_field", "verification_not_found", "internal_error"),
        "storage",
    ),
)

_OWN = ("subscription_not_found", "internal_error")
_PATH = "/otp/subscriptions"


def _subscription(name: str, summary: str, text: str, **more: Any) -> Operation:
    return Operation(name=name, tag="Events", summary=summary, text=text, **more)


_SUBSCRIPTIONS: Mapping[tuple[str, str], Operation] = {
    ("/otp/events", "GET"): _subscription(
        "events",
        "Follow one as it happens",
        "The log of a verification as server-sent events, from after `Last-Event-ID` on. 204 when "
        "nothing more will come.",
        ok={200: "A stream, text/event-stream.", 204: "Nothing is left to tell."},
        scope="status",
        query=waits.EventsQuery,
        problems=(
            *(*_KEY, "invalid_request", "unknown_field", "verification_not_found"),
            *("too_many_waiting", "storage", "internal_error"),
        ),
    ),
    (_PATH, "GET"): _subscription(
        "subscriptions",
        "What is subscribed",
        "All of this client's.",
        ok={200: answers.SubscriptionList},
        scope="status",
        problems=(*_KEY, "storage", "internal_error"),
    ),
    (_PATH, "POST"): _subscription(
        "subscribe",
        "Subscribe to events",
        "Events are posted to the URL, signed as Standard Webhooks asks. The secret is told once.",
        ok={201: answers.NewSubscription},
        scope="send",
        body=subscriptions.AddBody,
        examples={"two kinds": {"url": "https://shop.example/otp", "kinds": _TWO_KINDS}},
        problems=(
            *(*_KEY, *_JSON, "bad_url", "unknown_kind", "too_many_subscriptions"),
            *_STORE,
        ),
    ),
    (_PATH + "/{id}", "GET"): _subscription(
        "subscription",
        "One subscription",
        "Where it goes and how it fares.",
        ok={200: answers.Subscription},
        scope="status",
        problems=(*_KEY, "storage", *_OWN),
    ),
    (_PATH + "/{id}", "DELETE"): _subscription(
        "unsubscribe",
        "End it",
        "Nothing is posted any more.",
        ok={204: "It is gone."},
        scope="send",
        problems=(*_KEY, *_OWN, *_STORE),
    ),
    (_PATH + "/{id}/rotate", "POST"): _subscription(
        "rotate",
        "A new secret",
        "The old one signs beside it for a while.",
        ok={200: answers.NewSubscription},
        scope="send",
        problems=(*_KEY, *_OWN, *_STORE),
    ),
    (_PATH + "/{id}/replay", "POST"): _subscription(
        "replay",
        "Post them again",
        "All undelivered events, or all since a time; also enables it again.",
        bare=True,
        ok={202: answers.ReplayAnswer},
        scope="send",
        body=subscriptions.ReplayBody,
        examples={"since": {"since": "2026-11-21T12:00:00Z"}},
        problems=(*_KEY, *_BODY, *_OWN, *_STORE),
    ),
    (_PATH + "/{id}/test", "POST"): _subscription(
        "test",
        "Try it",
        "Posts one test event at once.",
        ok={200: answers.TestAnswer},
        scope="send",
        problems=(*_KEY, *_OWN, *_STORE),
    ),
}

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
        waits=True,
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
        problems=(
            *(*_KEY, *_JSON, *_NAMED, "recipient_invalid", "expired", "too_many_waiting"),
            "storage",
        ),
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
        text="For a person who cannot wait for the next channel. Within 10 s of a step that was "
        "asked for, and has not failed, it is 429 `cool_down`: a double click is one step.",
        ok={202: answers.Summary},
        scope="send",
        body=schemas.WhichBody,
        once=True,
        examples={"reference": {"reference": "order-17"}},
        problems=(
            *(*_KEY, *_JSON, *_WHICH, *_OVER, "checks_used_up"),
            *("no_step_left", "too_late:409", "cool_down", *_STORE),
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
    **_SUBSCRIPTIONS,
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
        text="Database, schema, keyring and the last pass of the worker; 503 where one of them has "
        "a problem. Warnings leave it ready.",
        ok={200: answers.Ready, 503: answers.Ready},
    ),
    ("/metrics", "GET"): Operation(
        name="metrics",
        tag="Probes",
        summary="Measurements",
        text="For Prometheus, in its text format or OpenMetrics. With `metrics.token` set it takes "
        "that as its bearer token.",
        ok={200: "text/plain or application/openmetrics-text."},
        problems=("metrics_token_wrong", "metrics_closed", "internal_error"),
    ),
    ("/openapi.json", "GET"): Operation(
        name="openapi",
        tag="Probes",
        summary="This description",
        text="OpenAPI 3.1; to be read at `/docs`.",
        ok={200: "An OpenAPI document.", 304: "The one of If-None-Match is still right."},
    ),
}
