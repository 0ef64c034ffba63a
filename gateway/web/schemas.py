"""Bodies: what may come in, checked field by field, and what goes out."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
)

from gateway.domain import explanation, tokens
from gateway.domain.addresses import mask
from gateway.domain.delivery import Attempt
from gateway.domain.errors import InvalidInput
from gateway.domain.explanation import Coming
from gateway.domain.repeat import OnRepeat
from gateway.domain.verification import CODE_LENGTHS, TTL_SECONDS, Verification
from gateway.domain.workflow import Plan
from gateway.store.reads import Record
from gateway.store.records import Logged

Reference = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[!-~]+$")]
Code = Annotated[str, StringConstraints(pattern=r"^[0-9]{4,10}$")]
Number = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Email = Annotated[str, StringConstraints(min_length=1, max_length=320)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
VerificationKey = Annotated[str, StringConstraints(min_length=1, max_length=tokens.LONGEST)]
Ip = Annotated[str, StringConstraints(min_length=2, max_length=45)]
Named = Annotated[str, StringConstraints(min_length=1, max_length=64)]

Locale = Annotated[
    str, StringConstraints(max_length=35, pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}$")
]
Shown = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Params = Annotated[dict[Name, Shown], Field(max_length=10)]

M = TypeVar("M", bound="Body")


class Body(BaseModel):
    """A request body: nothing unknown, nothing coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Addresses(Body):
    """A recipient by the kinds of its addresses."""

    phone: Number | None = None
    email: Email | None = None
    messenger: Number | None = None
    whatsapp: Number | None = None
    telegram: Number | None = None
    viber: Number | None = None


_FORMS = ("number", "addresses")  # words of ours, not the caller's


def _form(to: Any) -> str:
    return "addresses" if isinstance(to, dict) else "number"


# A number, or addresses by kind; mistakes are told of the form that was chosen.
To = Annotated[
    Annotated[Number, Tag("number")] | Annotated[Addresses, Tag("addresses")], Discriminator(_form)
]


class SendBody(Body):
    """`POST /otp/send`."""

    to: To | None = None
    recipients: Annotated[list[Any], Field(min_length=1, max_length=500)] | None = None
    workflow: Name | None = None
    channel: Name | None = None
    code: Code | None = None
    code_length: int | None = Field(default=None, ge=CODE_LENGTHS[0], le=CODE_LENGTHS[-1])
    ttl: int = Field(default=300, ge=TTL_SECONDS[0], le=TTL_SECONDS[-1])
    reference: Reference | None = None
    on_repeat: OnRepeat = OnRepeat.JOIN
    template: Name | None = None
    locale: Locale | None = None
    params: Params | None = None
    amount: Shown | None = None
    payee: Shown | None = None
    text: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    client_ip: Ip | None = None


class Entry(Addresses):
    """One of `recipients`: its addresses, and what is its own."""

    phone_number: Number | None = None
    code: Code | None = None
    reference: Reference | None = None
    params: Params | None = None


class WhichBody(Body):
    """Names one verification: exactly one of these; `template` tells two apart that one address
    has running. An address beside a verification key is no second name: it must be the one the code
    was sent to.
    """

    verification_id: Named | None = None
    verification_key: VerificationKey | None = None
    reference: Reference | None = None
    number: Number | None = None
    email: Email | None = None
    messenger: Number | None = None
    template: Name | None = None

    @property
    def address(self) -> tuple[str, str] | None:
        """Kind and text of the address that names it. A WhatsApp, Telegram or Viber number is a
        number like any other."""
        named = {"phone": self.number, "email": self.email, "messenger": self.messenger}
        return next(((kind, text) for kind, text in named.items() if text is not None), None)


class StatusBody(WhichBody):
    """`POST /otp/status`."""

    history: int = Field(default=0, ge=0, le=50)
    wait: int = Field(default=0, ge=0, le=60)
    until: Literal["sent", "ack", "delivered", "read", "ended"] = "ended"


class VerifyBody(WhichBody):
    """`POST /otp/verify`."""

    amount: Shown | None = None
    payee: Shown | None = None

    code: Annotated[str, StringConstraints(min_length=1, max_length=32)]


def parse(kind: type[M], raw: bytes) -> M:
    """A body in one pass. Raises InvalidInput `broken_json`, `unknown_field`,
    `invalid_request`.
    """
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise refusal(error) from None


def parse_query(kind: type[M], query: Sequence[tuple[str, str]]) -> M:
    """The same from a query string; a parameter that comes twice is refused."""
    names = [name for name, _ in query]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput("invalid_request", f"Given twice: {', '.join(twice)}.")
    try:
        return kind.model_validate_strings(dict(query))
    except ValidationError as error:
        raise refusal(error) from None


def refusal(error: ValidationError) -> InvalidInput:
    """What pydantic found, as a problem that names the fields and repeats no value."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if any(problem["type"] == "json_invalid" for problem in problems):
        return InvalidInput("broken_json", "The body is not valid JSON.")
    found = [
        {
            "field": ".".join(str(part) for part in problem["loc"] if part not in _FORMS)[:64]
            or "(body)",
            "problem": problem["msg"],
        }
        for problem in problems
    ]
    unknown = [one["field"] for one in found if one["problem"].startswith("Extra inputs")]
    if unknown:
        detail = f"Not a field of this call: {', '.join(unknown)}."
        return InvalidInput("unknown_field", detail, facts={"fields": unknown})
    detail = "; ".join(f"{one['field']}: {one['problem']}" for one in found)
    return InvalidInput("invalid_request", detail, facts={"errors": found})


def dumps(body: object) -> bytes:
    """JSON with times as `2026-11-21T10:00:00.123000Z`."""
    return orjson.dumps(body, option=orjson.OPT_UTC_Z)


def summary(
    plan: Plan, current: Verification, attempts: Sequence[Attempt], now: datetime
) -> dict[str, Any]:
    """What send, verify, cancel and next answer."""
    return summed(current, attempts, explanation.coming(plan, current, attempts, now), now)


def summed(
    current: Verification, attempts: Sequence[Attempt], coming: Coming | None, now: datetime
) -> dict[str, Any]:
    """The same, where it is known what comes."""
    return {
        "verification_id": current.id,
        "reference": current.reference,
        "status": current.status_at(now),
        "delivery_status": explanation.delivery_status(current, attempts, coming),
        "channel": attempts[-1].channel if attempts else None,
        "next": coming,
        "expires_at": current.expires_at,
        "checks_left": current.checks_left,
        "sends_left": current.sends_left,
    }


def status(record: Record, addresses: Mapping[str, str] | None, now: datetime) -> dict[str, Any]:
    """What `/otp/status` answers: the summary, the attempts, the log and a sentence. `addresses` by
    kind, the principal one first; None when they have been erased."""
    current, attempts = record.verification, record.attempts
    shown = {kind: mask(text) for kind, text in (addresses or {}).items()}
    return {
        **summary(record.plan, current, attempts, now),
        "recipient": next(iter(shown.values()), None),
        "addresses": shown,
        "template": current.template,
        "workflow": record.plan.workflow,
        "left_out": record.plan.left_out,
        "created_at": current.created_at,
        "ended_at": current.ended_at,
        "attempts": [_attempt(attempt) for attempt in attempts],
        "transitions": transitions(record),
        "explanation": explanation.explain(record.plan, current, attempts, now),
    }


def transitions(record: Record) -> list[dict[str, Any]]:
    """The log of a verification."""
    ids = {attempt.ordinal: attempt.id for attempt in record.attempts}
    return [_transition(row, ids) for row in record.log]


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt_id": attempt.id,
        "ordinal": attempt.ordinal,
        "step": attempt.step,
        "cause": attempt.cause,
        "route": attempt.route,
        "channel": attempt.channel,
        "state": attempt.state,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "error": attempt.error,
        "queued_at": attempt.queued_at,
        "sent_at": attempt.sent_at,
        "delivered_at": attempt.delivered_at,
        "read_at": attempt.read_at,
        "overdue_at": attempt.overdue_at,
        "repeats": attempt.repeats,
    }


def _transition(row: Logged, ids: dict[int, Any]) -> dict[str, Any]:
    return {
        "attempt_id": ids.get(row.attempt) if row.attempt is not None else None,
        "before": row.before,
        "after": row.after,
        "applied": row.applied,
        "source": row.source,
        "word": row.word,
        "provider_time": row.provider_time,
        "recorded_at": row.recorded_at,
    }
