"""What may come in: bodies and queries, checked field by field. What goes out is `bodies`."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails

from gateway.domain import tokens
from gateway.domain.errors import InvalidInput
from gateway.domain.repeat import OnRepeat
from gateway.domain.verification import CODE_LENGTHS, TTL_SECONDS

_REFERENCE = r"^[!-~]+$"
_CODE = r"^[0-9]{4,10}$"
_LOCALE = r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}$"

Reference = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_REFERENCE)]
Code = Annotated[str, StringConstraints(pattern=_CODE)]
Number = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Email = Annotated[str, StringConstraints(min_length=1, max_length=320)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
VerificationKey = Annotated[str, StringConstraints(min_length=1, max_length=tokens.LONGEST)]
Named = Annotated[str, StringConstraints(min_length=1, max_length=64)]


def _whole(value: Any, info: ValidationInfo) -> Any:
    """`300.0` is the integer 300 to JSON Schema, and to languages with one kind of number."""
    if type(value) is int:  # most
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if info.mode != "json" and isinstance(value, str) and _DIGITS.fullmatch(value):  # of a query
        return int(value)
    return value


_DIGITS = re.compile(r"-?[0-9]{1,9}")
_WHOLE = BeforeValidator(_whole)

CodeLength = Annotated[int, Field(ge=CODE_LENGTHS[0], le=CODE_LENGTHS[-1]), _WHOLE]
Ttl = Annotated[int, Field(ge=TTL_SECONDS[0], le=TTL_SECONDS[-1]), _WHOLE]
History = Annotated[int, Field(ge=0, le=50), _WHOLE]
Wait = Annotated[int, Field(ge=0, le=60), _WHOLE]

Locale = Annotated[str, StringConstraints(max_length=35, pattern=_LOCALE)]
Shown = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Params = Annotated[dict[Name, Shown], Field(max_length=10)]

M = TypeVar("M", bound="Body")


class Body(BaseModel):
    """A request body: nothing unknown, nothing coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Addresses(Body):
    """A recipient by the kinds of its addresses."""

    phone: Number | None = Field(
        default=None,
        description="Phone number, E.164 or as people write it; also for every channel that goes "
        "by numbers and has none of its own here.",
        examples=["+33600000042"],
    )
    email: Email | None = Field(
        default=None, description="E-mail address.", examples=["person@example.com"]
    )
    messenger: Number | None = Field(
        default=None,
        description="The id that the Messenger provider knows the person by.",
        examples=["2734100423"],
    )
    whatsapp: Number | None = Field(
        default=None, description="Number on WhatsApp, if not `phone`.", examples=["+33600000042"]
    )
    telegram: Number | None = Field(
        default=None, description="Number on Telegram, if not `phone`.", examples=["+33600000042"]
    )
    viber: Number | None = Field(
        default=None, description="Number on Viber, if not `phone`.", examples=["+33600000042"]
    )


def _given(name: str) -> dict[str, Any]:
    """A schema: that field is there, and not null."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


_FORMS = ("number", "addresses")  # words of ours, not the caller's


def _form(to: Any) -> str:
    return "addresses" if isinstance(to, dict) else "number"


# A number, or addresses by kind; mistakes are told of the form that was chosen.
To = Annotated[
    Annotated[Number, Tag("number")] | Annotated[Addresses, Tag("addresses")], Discriminator(_form)
]


class SendBody(Body):
    """What to send, and to whom: `to` or `recipients`."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_given("to"), _given("recipients")]})

    to: To | None = Field(
        default=None,
        description="A phone number (spaces, dashes, `00` and a missing `+` are understood), or "
        "addresses by kind. Each step of the workflow goes to the address of its channel.",
        examples=["+33600000042", {"phone": "+33600000042", "email": "person@example.com"}],
    )
    recipients: Annotated[list[Any], Field(min_length=1, max_length=500)] | None = Field(
        default=None,
        description="Instead of `to`: up to 500 recipients, each decided by itself.",
        examples=[[{"phone_number": "+33600000042", "reference": "order-17"}]],
    )
    workflow: Name | None = Field(
        default=None,
        description="A configured workflow; without it, and without `channel`, `default`.",
        examples=["default"],
    )
    channel: Name | None = Field(
        default=None,
        description="One channel alone instead of a workflow: nothing falls back.",
        examples=["sms"],
    )
    code: Code | None = Field(
        default=None, description="Your own code, 4 to 10 digits.", examples=["493027"]
    )
    code_length: CodeLength | None = Field(
        default=None,
        description="Digits of the code that the gateway makes; 6 if neither this nor `code` is "
        "given.",
        examples=[6],
    )
    ttl: Ttl = Field(
        default=300,
        description="How long the code lives, in seconds.",
        examples=[300],
    )
    reference: Reference | None = Field(
        default=None,
        description="Your own id for it, visible ASCII; the newest is meant when it repeats. It is "
        "stored and logged in the clear: never a number, an address or anything else of a person.",
        examples=["order-17"],
    )
    on_repeat: OnRepeat = Field(
        default=OnRepeat.JOIN,
        description="What to do while a verification of this recipient and purpose runs: `join` it "
        "(the same code, once more), `refuse`, or `replace` it by a new one.",
        examples=["join"],
    )
    template: Name | None = Field(
        default=None,
        description="What the code is for: `verify` (default), `login`, `reset`, "
        "`number_change`, `payment`, or one from the settings.",
        examples=["login"],
    )
    locale: Locale | None = Field(
        default=None,
        description="Language of the text, BCP 47: `fr-CA` falls back to `fr`, then to the "
        "default.",
        examples=["fr-CA"],
    )
    params: Params | None = Field(
        default=None,
        description="Values of the template's own placeholders, by name.",
        examples=[{"name": "Robin"}],
    )
    amount: Shown | None = Field(
        default=None,
        description="What a payment's code is good for, as the person shall read it; with "
        "`payee`. `/otp/verify` has to name both again.",
        examples=["12.50 EUR"],
    )
    payee: Shown | None = Field(
        default=None, description="Who is paid; with `amount`.", examples=["Example Bikes"]
    )
    text: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = Field(
        default=None,
        description="A text of your own with `{code}` in it; needs the scope `text`.",
        examples=["{code} opens your locker."],
    )
    client_ip: str | None = Field(
        default=None,
        description="The person's own address, IPv4 or IPv6, for the limits per IP; kept only as a "
        "keyed index.",
        examples=["203.0.113.7"],
    )


class Entry(Addresses):
    """One of `recipients`: its addresses, and what is its own."""

    phone_number: Number | None = Field(
        default=None, description="Another name of `phone`.", examples=["+33600000042"]
    )
    code: Code | None = Field(
        default=None, description="Your own code for this one, 4 to 10 digits.", examples=["493027"]
    )
    reference: Reference | None = Field(
        default=None,
        description="Your own id for this one, in the clear; never a number or an address.",
        examples=["order-17"],
    )
    params: Params | None = Field(
        default=None,
        description="Values of placeholders for this one, over those of the body.",
        examples=[{"name": "Robin"}],
    )


class WhichBody(Body):
    """Names one verification: exactly one of `verification_id`, `verification_key`, `reference`,
    `number`, `email`, `messenger`; `template` tells two apart that one address has running. An
    address beside a verification key is no second name: it must be the one the code was sent to.
    """

    verification_id: Named | None = Field(
        default=None,
        description="The id that `/otp/send` answered.",
        examples=["019e8f4c-5a10-7c3e-9d57-0b6f2f1d8a44"],
    )
    verification_key: VerificationKey | None = Field(
        default=None,
        description="The key that `/otp/send` answered, for callers who store nothing. Not in a "
        "URL.",
        examples=["…"],
    )
    reference: Reference | None = Field(
        default=None, description="Your own id; the newest of that name.", examples=["order-17"]
    )
    number: Number | None = Field(
        default=None,
        description="A phone number: its running verification, else its latest. Not in a URL.",
        examples=["+33600000042"],
    )
    email: Email | None = Field(
        default=None,
        description="The same by e-mail address. Not in a URL.",
        examples=["person@example.com"],
    )
    messenger: Number | None = Field(
        default=None, description="The same by Messenger id. Not in a URL.", examples=["2734100423"]
    )
    template: Name | None = Field(
        default=None,
        description="Which one is meant where an address has several running.",
        examples=["login"],
    )

    @property
    def address(self) -> tuple[str, str] | None:
        """Kind and text of the address that names it. A WhatsApp, Telegram or Viber number is a
        number like any other."""
        named = {"phone": self.number, "email": self.email, "messenger": self.messenger}
        return next(((kind, text) for kind, text in named.items() if text is not None), None)


class StatusBody(WhichBody):
    """Names what to look up."""

    history: History = Field(
        default=0,
        description="How many verifications of that name to tell at most, the newest as the answer "
        "and older ones in `history`; 0: the newest alone.",
        examples=[5],
    )
    wait: Wait = Field(
        default=0,
        description="Hold the answer until `until` is so, at most so many seconds.",
        examples=[30],
    )
    until: Literal["sent", "ack", "delivered", "read", "ended"] = Field(
        default="ended", description="What `wait` waits for.", examples=["delivered"]
    )


class VerifyBody(WhichBody):
    """A code that a person typed, and the verification it is for."""

    amount: Shown | None = Field(
        default=None,
        description="The amount that was sent with the code, if one was.",
        examples=["12.50 EUR"],
    )
    payee: Shown | None = Field(
        default=None,
        description="The payee that was sent with the code, if one was.",
        examples=["Example Bikes"],
    )

    code: Annotated[str, StringConstraints(min_length=1, max_length=32)] = Field(
        description="What the person typed, as typed.", examples=["493027"]
    )


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
    problems = error.errors(include_url=False, include_input=False)
    if any(problem["type"] == "json_invalid" for problem in problems):
        return InvalidInput("broken_json", "The body is not valid JSON.")
    found = [
        {
            "field": ".".join(str(part) for part in problem["loc"] if part not in _FORMS)[:64]
            or "(body)",
            "problem": _words(problem),
        }
        for problem in problems
    ]
    unknown = [one["field"] for one in found if one["problem"].startswith("Extra inputs")]
    if unknown:
        detail = f"Not a field of this call: {', '.join(unknown)}."
        return InvalidInput("unknown_field", detail, facts={"fields": unknown})
    detail = "; ".join(f"{one['field']}: {one['problem']}" for one in found)
    return InvalidInput("invalid_request", detail, facts={"errors": found})


_PATTERNS = {
    _CODE: "4 to 10 digits are expected",
    _REFERENCE: "visible ASCII characters are expected, without spaces",
    _LOCALE: "a language is expected, such as fr or fr-CA",
}


def _words(problem: ErrorDetails) -> str:
    """What is wrong and what is expected, without words of the validator's trade."""
    bounds = problem.get("ctx", {})
    match problem["type"]:
        case "string_pattern_mismatch":
            return _PATTERNS.get(bounds["pattern"], "this form is not expected")
        case "string_too_short" | "too_short" as kind:
            return _many("at least", bounds["min_length"], kind)
        case "string_too_long" | "too_long" as kind:
            return _many("at most", bounds["max_length"], kind)
    return problem["msg"]


def _many(word: str, count: int, kind: str) -> str:
    one, more = ("character", "characters") if kind.startswith("string") else ("entry", "entries")
    return f"{word} {count} {one if count == 1 else more}"
