"""`/otp/send` and what belongs to it: a body as requests, one or many, and their answers."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import ValidationError

from gateway.domain import templates, tokens
from gateway.domain.errors import Forbidden, GatewayError, InvalidInput
from gateway.domain.keyring import NONCE_BYTES
from gateway.domain.templates import Given
from gateway.domain.tokens import Ticket
from gateway.domain.verification import Status, Verification
from gateway.services import send
from gateway.services.runtime import Runtime
from gateway.store.records import ApiKey
from gateway.web import bodies, errors, recipients, schemas
from gateway.web.schemas import Entry, SendBody, VerifyBody, WhichBody

TEST_CODE = "1234567890"  # its beginning is the code of every send with a test key
_ALONE = frozenset({"to", "ttl", "reference", "locale", "on_repeat", "template", "client_ip"})
"""Fields that go with each other, and with every key."""
OWN_TEXT = "text"  # the scope of a key that may bring its own text


def check(body: SendBody, key: ApiKey) -> None:
    """What no single field can tell. Raises InvalidInput, or Forbidden `text_not_allowed`."""
    if body.model_fields_set <= _ALONE and body.to is not None:
        return  # most
    if body.workflow is not None and body.channel is not None:
        raise InvalidInput("invalid_request", "Give `workflow` or `channel`, not both.")
    if body.code is not None and body.code_length is not None:
        raise InvalidInput("invalid_request", "Give `code` or `code_length`, not both.")
    if (body.amount is None) != (body.payee is None):
        raise InvalidInput("invalid_request", "Give `amount` and `payee`, or neither.")
    if body.text is not None and OWN_TEXT not in key.scopes.split():
        raise Forbidden(
            "text_not_allowed",
            f"This key may not send texts of its own: that needs the scope `{OWN_TEXT}`.",
            facts={"scope": OWN_TEXT},
        )
    if body.recipients is None:
        if body.to is None:
            raise InvalidInput(
                "invalid_request",
                "to: Field required",
                facts={"errors": [{"field": "to", "problem": "Field required"}]},
            )
        return
    alone = [name for name in ("to", "code", "reference") if getattr(body, name) is not None]
    if alone:
        raise InvalidInput(
            "invalid_request",
            f"`{alone[0]}` is one recipient's: with `recipients` it stands in each entry.",
        )


def request(
    runtime: Runtime, key: ApiKey, body: SendBody, trace: str | None = None
) -> send.Request:
    """The request of a body with `to`; `trace`: what its spans hang on. Raises InvalidInput."""
    given = vars(body)  # a field of pydantic's, one by one, costs five times as much
    if given["to"] is None:
        raise InvalidInput("invalid_request", "to: Field required")
    to, others = recipients.read(given["to"], runtime.default_region)
    code, length = given["code"], given["code_length"] or 6
    if key.test and code is None:
        code = TEST_CODE[:length]
    filled = given["params"] or given["amount"] or given["text"]
    return send.Request(  # in the order of its fields: by name they take four times as long
        key.client_id,
        to,
        given["workflow"],
        given["channel"],
        code,
        len(code) if code else length,
        given["ttl"],
        given["reference"],
        others,
        given["template"] or templates.DEFAULT,
        given["locale"],
        _given(body) if filled else None,
        given["client_ip"],
        given["on_repeat"],
        body.model_fields_set,
        trace,
    )


def _given(body: SendBody) -> Given:
    """What the text is filled with."""
    params = {
        name: templates.value(name, text, "params_not_allowed")
        for name, text in (body.params or {}).items()
    }
    return Given(params, **linked(body), text=body.text)


def linked(body: SendBody | VerifyBody) -> dict[str, str | None]:
    """Amount and payee as they are kept and compared. Raises InvalidInput."""
    if body.amount is None and body.payee is None:
        return {"amount": None, "payee": None}
    if body.amount is None or body.payee is None:
        raise InvalidInput("invalid_request", "Give `amount` and `payee`, or neither.")
    return {
        "amount": templates.value("amount", body.amount),
        "payee": templates.value("payee", body.payee),
    }


def summed(runtime: Runtime, sent: send.Sent, now: datetime) -> dict[str, Any]:
    """The answer to one request."""
    current = sent.verification
    coming = send.coming(runtime, sent, now)
    answer = bodies.summed(current, sent.attempts, coming, now)
    answer["joined"] = sent.joined
    if sent.joined:
        answer["ignored"] = sent.ignored
    ticket = Ticket(current.id, current.recipient_index, current.expires_at)
    nonce = runtime.entropy(NONCE_BYTES)
    answer["verification_key"] = tokens.issue(runtime.keyring, ticket, nonce)
    return answer


async def send_all(
    runtime: Runtime, key: ApiKey, body: SendBody, now: datetime, trace: str | None = None
) -> dict[str, Any]:
    """One operation for each entry of `recipients`; the results in their order, each a verification
    or a problem. A bad entry fails alone.

    Raises Unavailable where there is no room for all: then nothing was stored.
    """
    results: list[dict[str, Any] | None] = []
    operations = []
    for raw in body.recipients or ():
        try:
            one = request(runtime, key, _alone(body, raw), trace)
            operations.append(await send.prepare(runtime, one, now))
            results.append(None)
        except GatewayError as error:
            results.append(_problem(error))
    answers = await runtime.ledger.submit_all(operations)
    stored = iter(answers)
    whole = [_result(runtime, next(stored), now) if one is None else one for one in results]
    accepted = sum("verification_id" in one and "type" not in one for one in whole)
    return {"accepted": accepted, "refused": len(whole) - accepted, "results": whole}


def _alone(body: SendBody, raw: Any) -> SendBody:
    """The body that this entry alone would have been sent with. Raises InvalidInput."""
    try:
        entry = Entry.model_validate(raw)
    except ValidationError as error:
        raise schemas.refusal(error) from None
    if entry.phone is not None and entry.phone_number is not None:
        raise InvalidInput("invalid_request", "Give `phone` or `phone_number`, not both.")
    if entry.code is not None and body.code_length is not None:
        raise InvalidInput("invalid_request", "Give `code` or `code_length`, not both.")
    own = entry.model_dump(include=set(schemas.Addresses.model_fields))
    own["phone"] = entry.phone or entry.phone_number
    return body.model_copy(
        update={
            "to": schemas.Addresses(**own),
            "recipients": None,
            "code": entry.code,
            "reference": entry.reference,
            "params": {**(body.params or {}), **(entry.params or {})} or None,
        }
    )


def _result(runtime: Runtime, result: send.Sent | BaseException, now: datetime) -> dict[str, Any]:
    if isinstance(result, send.Sent):
        return summed(runtime, result, now)
    if isinstance(result, GatewayError):
        return _problem(result)
    context = {"message": "one of many recipients could not be decided", "exception": result}
    asyncio.get_running_loop().call_exception_handler(context)
    return dict(orjson.loads(errors.INTERNAL.body))


def _problem(error: GatewayError) -> dict[str, Any]:
    return dict(orjson.loads(errors.refusal(error).body))


def meant(found: Sequence[Verification], body: WhichBody, now: datetime) -> UUID:
    """Of several verifications of an address, newest first, the one that is meant: the running
    one, else the latest; of those of `template` where it is given. Raises InvalidInput `ambiguous`
    when several run, for different purposes."""
    if body.template is not None:
        found = [one for one in found if one.template == body.template] or found
    running = [one for one in found if one.status_at(now) is Status.PENDING]
    if len(running) > 1:
        raise InvalidInput(
            "ambiguous",
            "Several verifications of this recipient are running. Name one by its "
            "`verification_id`, or its `template` where that tells them apart.",
            facts={"templates": sorted({one.template for one in running})},
        )
    return (running or found)[0].id
