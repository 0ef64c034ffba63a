"""What the calls answer, as models: what is published, and what tests hold real answers against.

Answers are written as plain dictionaries (`bodies.py`, `sending.py`); nothing here runs while a
call is served. Members without a default are always there.
"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from gateway.domain.delivery import Cause, Outcome, State
from gateway.domain.verification import Status

_ID = "019e8f4c-5a10-7c3e-9d57-0b6f2f1d8a44"
_AT = "2026-11-21T12:05:00Z"


def _field(description: str, example: object) -> Any:
    return Field(description=description, examples=[example])


def _fact(description: str, example: object) -> Any:
    """A member that only some codes have."""
    return Field(default=None, description=description, examples=[example])


Time = Annotated[datetime, Field(description="UTC, RFC 3339.")]


class Next(BaseModel):
    """What the gateway will do of itself when nothing more is heard, also by asking a provider."""

    action: Literal["send", "expire"] = _field(
        "Send the next message, or let the code expire.", "send"
    )
    at: Time = _field("When, UTC.", "2026-11-21T12:01:00Z")
    channel: str | None = _field("Over which channel, where one is meant.", "voice")


class Summary(BaseModel):
    """A verification as it is now."""

    verification_id: UUID = _field("Names it in every later call.", _ID)
    reference: str | None = _field("Your own id, if you gave one.", "order-17")
    status: Status = _field(
        "PENDING runs; VERIFIED, EXPIRED, CANCELED, LOCKED (checks used up) and FAILED (every "
        "attempt was refused) are ends.",
        "PENDING",
    )
    delivery_status: State | None = _field(
        "The best any attempt has reached: QUEUED stored, SENT handed over, ACK on its way, FAILED "
        "will not arrive, DELIVERED on the handset, READ opened.",
        "QUEUED",
    )
    channel: str | None = _field("Channel of the latest attempt.", "sms")
    next: Next | None = _field(
        "What comes next; null after the end.",
        {"action": "send", "at": "2026-11-21T12:01:00Z", "channel": "voice"},
    )
    expires_at: Time = _field("When the code stops being valid, UTC.", _AT)
    checks_left: int = _field("How many wrong codes are still allowed.", 5)
    sends_left: int = _field("How often it can be sent again.", 4)


class SendAnswer(Summary):
    """A verification that a send made or joined."""

    joined: bool = _field(
        "Whether one was running for this recipient and purpose, and its code was sent again.",
        False,
    )
    ignored: list[str] | None = Field(
        default=None,
        description="What this request asked for and the running verification does not do; only "
        "where it was joined.",
        examples=[["ttl"]],
    )
    verification_key: str = _field(
        "Stands for the verification, for callers who store nothing; encrypted.", "AWs…"
    )


class Problem(BaseModel):
    """A refusal, RFC 9457. Act on `code`; the members after `detail` depend on it."""

    type: str = _field("The code as a URN.", "urn:otp-gateway:problem:cool_down")
    title: str = _field("The status in words.", "Too Many Requests")
    status: int = _field("The HTTP status.", 429)
    code: str = _field("What is wrong, stable.", "cool_down")
    detail: str = _field(
        "What happened and what to do, for people.",
        "A code is on its way to this number. Ask again in 12 s.",
    )
    retry_after: int | None = _fact(
        "Seconds until it is worth trying again, as in Retry-After.", 12
    )
    errors: list[dict[str, str]] | None = _fact(
        "Each wrong field with what is wrong.", [{"field": "ttl", "problem": "Field required"}]
    )
    fields: list[str] | None = _fact("Fields that the call does not have.", ["too"])
    field: str | None = _fact("The kind of address that is wrong.", "email")
    kind: str | None = _fact("The kind of number that was refused.", "premium-rate")
    params: list[str] | None = _fact("The values that are missing.", ["name"])
    channels: list[str] | None = _fact("The channels that need an address.", ["email"])
    step: int | None = _fact("The step that would come too late, from 1.", 3)
    ttl: int | None = _fact("The life that was asked for, in seconds.", 60)
    templates: list[str] | None = _fact("The templates that tell them apart.", ["login", "reset"])
    scope: str | None = _fact(
        "The scope that the key lacks; what the pumping guard judged: prefix or country.", "text"
    )
    verification_id: str | None = _fact("The verification in the way.", _ID)
    expires_at: Time | None = _fact("When it expires, UTC.", _AT)
    workflow: str | None = _fact("The workflow or channel it runs.", "sms")
    verification_status: Status | None = _fact("How the verification stands.", "PENDING")
    checks_left: int | None = _fact("How many wrong codes are still allowed.", 4)
    rule: str | None = _fact("The limit that refused.", "cool_down")
    limit: float | str | None = _fact(
        "How many the limit allows; an amount of money is a decimal string.", 5
    )
    currency: str | None = _fact("The currency of `limit`, ISO 4217.", "EUR")
    why: str | None = _fact("What the pumping guard goes by: budget or ratio.", "ratio")
    window: int | None = _fact("Its window in seconds.", 30)
    remaining: int | None = _fact("How many are left of it.", 0)
    reset: Time | None = _fact("When it allows more, UTC.", _AT)
    country: str | None = _fact("The country that gets no codes, ISO 3166-1.", "DE")


class SendManyAnswer(BaseModel):
    """What became of each of `recipients`."""

    accepted: int = _field("How many got a verification.", 1)
    refused: int = _field("How many got a problem.", 0)
    results: list[SendAnswer | Problem] = Field(
        description="In the order of `recipients`: what a send of its own would have answered."
    )


class LeftOut(BaseModel):
    """A route that this recipient does without."""

    channel: str = _field("Its channel.", "email")
    route: str = _field("Its name.", "smtp")
    reason: str = _field("Why: `no_address`, or what its provider said before.", "no_address")


class Attempt(BaseModel):
    """One handover of one message to one provider."""

    attempt_id: UUID = _field("Its id.", "019e8f4c-5a11-7000-8a3c-2b1f00d1c0de")
    ordinal: int = _field("Its number within the verification, from 1.", 1)
    step: int = _field("The step of the workflow, from 0.", 0)
    cause: Cause = _field("Why it was made.", "first")
    route: str = _field("The route it went.", "octopush")
    channel: str = _field("Its channel.", "sms")
    state: State = _field("How far it has come.", "SENT")
    outcome: Outcome | None = _field(
        "What became of handing it over; null before that. All but `accepted` and `unknown` mean: "
        "surely not sent.",
        "accepted",
    )
    reason: str | None = _field("Why it failed, in one word.", "unreachable")
    error: str | None = _field("What the provider said, redacted.", "throttled")
    queued_at: Time = _field("When it was stored, UTC.", "2026-11-21T12:00:00Z")
    sent_at: Time | None = _field("When it was handed over, UTC.", "2026-11-21T12:00:01Z")
    delivered_at: Time | None = _field("When it was on the handset, UTC.", "2026-11-21T12:00:04Z")
    read_at: Time | None = _field("When it was opened, UTC.", "2026-11-21T12:00:09Z")
    overdue_at: Time | None = _field(
        "When its patience ends and the next step follows, UTC.", "2026-11-21T12:01:00Z"
    )
    repeats: int = _field("How many receipts said what was known already.", 0)


class Transition(BaseModel):
    """One row of the log, which only grows."""

    attempt_id: UUID | None = _field("Of which attempt; null: of the verification itself.", _ID)
    before: State | Status = _field("State before.", "SENT")
    after: State | Status = _field("State after, or the one that was reported.", "DELIVERED")
    applied: bool = _field("Whether it moved anything; a late receipt is kept and does not.", True)
    source: str = _field("Who said so.", "receipt")
    word: str | None = _field("The provider's own word.", "DELIVERED")
    provider_time: str | None = _field(
        "The provider's own time, as it came.", "2026-11-21 13:00:01"
    )
    recorded_at: Time = _field("When it was recorded, UTC.", "2026-11-21T12:00:04Z")


class Record(Summary):
    """A verification with all that happened to it."""

    recipient: str | None = _field(
        "The address, masked; null once it was erased.", "+33 6•• ••• •42"
    )
    addresses: dict[str, str] = _field(
        "All its addresses by kind, masked.", {"phone": "+33 6•• ••• •42"}
    )
    template: str = _field("What the code is for.", "verify")
    workflow: str = _field("The workflow it runs.", "default")
    left_out: list[LeftOut] = Field(description="Routes that this recipient does without.")
    created_at: Time = _field("When it was accepted, UTC.", "2026-11-21T12:00:00Z")
    ended_at: Time | None = _field("When it ended, UTC; null while it runs.", _AT)
    attempts: list[Attempt] = Field(description="In their order.")
    transitions: list[Transition] = Field(description="In their order.")
    explanation: str = _field(
        "What happened and what comes, to be read out by support.",
        "The SMS was handed to octopush at 12:00:01.",
    )


class StatusAnswer(Record):
    """The verification that was meant, and older ones where `history` asks for them."""

    history: list[Record] | None = Field(
        default=None, description="Older ones of the same name, newest first; only if asked for."
    )


class Subscription(BaseModel):
    """Where a client wants its events, and how that goes."""

    subscription_id: UUID = _field("Its id.", _ID)
    url: str = _field("Where events are posted.", "https://shop.example/otp")
    kinds: list[str] = _field("Which events; none: all.", ["verification.delivered"])
    created_at: Time = _field("When it was made, UTC.", _AT)
    rotated_at: Time | None = _field("When its secret was last changed, UTC.", _AT)
    undelivered: int = _field("How many verifications have events that it has not got.", 0)
    failures: int = _field("How often in a row it failed.", 0)
    failing_since: Time | None = _field("Since when it fails, UTC.", _AT)
    problem: str | None = _field("What went wrong last.", "answered 500")
    disabled_at: Time | None = _field("When it was disabled, UTC.", _AT)
    disabled_why: str | None = _field("Why.", "answered 410")


class NewSubscription(Subscription):
    """A subscription with its secret, told this once."""

    secret: str = _field("Signs the events.", "whsec_…")


class SubscriptionList(BaseModel):
    """All of a client's."""

    subscriptions: list[Subscription] = Field(description="In the order they were made.")


class ReplayAnswer(Subscription):
    """A subscription whose events go out again."""

    replayed_verifications: int = _field("Of how many verifications.", 3)


class TestAnswer(BaseModel):
    """What a test event met."""

    subscription_id: UUID = _field("Its id.", _ID)
    delivered: bool = _field("Whether it was taken.", True)
    http_status: int | None = _field("What the endpoint answered.", 204)
    problem: str | None = _field("What went wrong.", "timed out")


class About(BaseModel):
    """What this is."""

    name: str = _field("Always the same.", "otp-gateway")
    version: str = _field("The gateway's version.", "0.1.0")
    calls: list[str] = _field("The calls of backend services.", ["/otp/send"])


class Alive(BaseModel):
    """That it answers."""

    status: Literal["ok"] = _field("Always the same.", "ok")


class Ready(BaseModel):
    """Whether it can do its work."""

    status: Literal["ready", "not ready"] = _field("With 200 and 503 in this order.", "ready")
    problems: dict[str, str] = _field("What is wrong with this process, by part.", {})
    warnings: dict[str, str] = _field(
        "What is wrong at every process alike: late work (`lag`), a workflow without a working "
        "route.",
        {},
    )
