"""Vonage: messages on five channels and calls, with signed receipts.

    POST /vonage/v1/messages             -> 202 {"message_uuid"}
    POST /vonage/v1/calls                -> 201 {"uuid", "status", "direction", "conversation_uuid"}
    GET  /vonage/account/get-balance     -> 200 {"value", "autoReload"}

What is accepted is in `vonage_requests`. Receipts of a message go to its `webhook_url`, else to the
account's status URL, those of a call to its `event_url`. Each carries a JWT of its own:

    Authorization: Bearer <JWT>   HS256, key: the signature secret
         iat, jti, iss, payload_hash (hex SHA-256 of the body), api_key, application_id

One that is not taken comes again after 5, 10, 20 and 40 seconds; the vendor goes on for a day.

Account: `application_id`, `public_key` (PEM), `api_key`, `signature_secret`; also `api_secret`,
without which nobody gets in by Basic, and `status_url`. A person on Messenger is a number, too.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox.answers import Refusal, json_answer, refusing
from gateway.sandbox.behaviour import Answer, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message
from gateway.sandbox.vonage_requests import (
    Account,
    BadCall,
    Problem,
    Submission,
    check_basic,
    check_bearer,
    read_call,
    read_message,
    unauthorized,
)

PREFIX = "/vonage"
AGAIN = (5.0, 10.0, 20.0, 40.0)
BALANCE = 1_000_000.0  # never used up: an empty account is nobody's demo
PRICE = "0.0333"
SPOKE = 9  # seconds an answered call lasts
ODD = "sandbox_unheard_of"

SMS_WORDS = {
    Stage.UNDERWAY: "submitted",
    Stage.ODD: ODD,
    Stage.FAILED: "rejected",
    Stage.DELIVERED: "delivered",
}
CHAT_WORDS = {**SMS_WORDS, Stage.READ: "read"}
CALL_WORDS = {
    Stage.UNDERWAY: "ringing",
    Stage.ODD: ODD,
    Stage.FAILED: "unanswered",
    Stage.DELIVERED: "completed",
}

# Why a message was rejected, in the words of a status.
ABSENT = {
    "type": "https://developer.nexmo.com/api-errors/messages-olympus#1180",
    "title": "1180",
    "detail": "Absent Subscriber Temporary",
    "instance": "bf0ca0bf927b3b52e3cb03217e1a1ddf",
}


def routes(carrier: Carrier) -> list[Route]:
    """Its API."""
    service = _Service(carrier)
    return [
        Route(f"{PREFIX}/v1/messages", refusing(service.message), methods=["POST"]),
        Route(f"{PREFIX}/v1/calls", refusing(service.call), methods=["POST"]),
        Route(f"{PREFIX}/account/get-balance", refusing(service.balance), methods=["GET"]),
    ]


def token(account: Account, body: bytes, at: datetime) -> str:
    """The JWT that comes with a receipt."""
    claims = {
        "iat": int(at.timestamp()),
        "jti": str(uuid4()),
        "iss": "Vonage",
        "payload_hash": hashlib.sha256(body).hexdigest(),
        "api_key": account["api_key"],
        "application_id": account["application_id"],
    }
    signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
    mac = hmac.digest(account["signature_secret"].encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


class _Service:
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._account = carrier.settings.accounts.get("vonage")

    async def message(self, request: Request) -> Response:
        header = request.headers.get("authorization", "")
        if not (self._bearer(header) or check_basic(self._account, header)):
            raise unauthorized()
        submission = read_message(await request.body())
        url = submission.url or (self._account or {}).get("status_url")
        message, answer = self._add(submission)
        if not answer.accepts:
            return _answer_instead(answer, _message_refusal)
        words = SMS_WORDS if submission.channel is Channel.SMS else CHAT_WORDS
        write = self._writer(url, lambda word, at: _status(submission, message, word, at))
        story = self._carrier.play(message, write, AGAIN, words=words)
        response = json_answer({"message_uuid": message.id}, 202)
        return await self._carrier.give(answer, response, [story])

    async def call(self, request: Request) -> Response:
        if not self._bearer(request.headers.get("authorization", "")):
            raise BadCall(401, "UNAUTHORIZED", "Unauthorized")
        submission = read_call(await request.body())
        message, answer = self._add(submission)
        if not answer.accepts:
            return _answer_instead(answer, _call_refusal)
        conversation = f"CON-{uuid4()}"
        write = self._writer(
            submission.url, lambda word, at: _event(submission, message, conversation, word, at)
        )
        story = self._carrier.play(message, write, AGAIN, words=CALL_WORDS)
        begun = {
            "uuid": message.id,
            "status": "started",
            "direction": "outbound",
            "conversation_uuid": conversation,
        }
        return await self._carrier.give(answer, json_answer(begun, 201), [story])

    async def balance(self, request: Request) -> Response:
        if not check_basic(self._account, request.headers.get("authorization", "")):
            raise unauthorized()
        return json_answer({"value": BALANCE, "autoReload": False})

    def _bearer(self, header: str) -> bool:
        return check_bearer(self._account, header, self._carrier.now())

    def _add(self, submission: Submission) -> tuple[Message, Answer]:
        behaviour, answer = self._carrier.decide(submission.number, submission.channel)
        message = Message(
            id=str(uuid4()),
            channel=submission.channel,
            number=submission.number,
            text=submission.text,
            sender=submission.sender,
            at=self._carrier.now(),
            client_ref=submission.client_ref,
            behaviour=behaviour,
            answer=answer,
        )
        return self._carrier.phones.add(message), answer

    def _writer(
        self, url: str | None, tell: Callable[[str, datetime], dict[str, object]]
    ) -> Write | None:
        account, now = self._account, self._carrier.now
        if url is None or account is None:
            return None

        def write(word: str, at: datetime) -> Letter:
            content = orjson.dumps(tell(word, at))
            headers = {
                "Content-Type": "application/json",
                "Authorization": f"Bearer {token(account, content, now())}",
            }
            return Letter(url, content, headers)

        return write


def _status(submission: Submission, message: Message, word: str, at: datetime) -> dict[str, object]:
    """A message status, version 1."""
    status: dict[str, object] = {
        "message_uuid": message.id,
        "to": message.number.removeprefix("+"),
        "from": submission.sender,
        "timestamp": _time(at),
        "status": word,
        "channel": submission.name,
    }
    if submission.client_ref is not None:
        status["client_ref"] = submission.client_ref
    if word == SMS_WORDS[Stage.FAILED]:
        status["error"] = ABSENT
    if word == SMS_WORDS[Stage.DELIVERED]:
        status["usage"] = {"currency": "EUR", "price": PRICE}
    if submission.channel is Channel.SMS:
        status |= {"destination": {"network_code": "20801"}, "sms": {"count_total": "1"}}
    return status


def _event(
    submission: Submission, message: Message, conversation: str, word: str, at: datetime
) -> dict[str, object]:
    """An event of a call."""
    event: dict[str, object] = {
        "uuid": message.id,
        "conversation_uuid": conversation,
        "to": message.number.removeprefix("+"),
        "from": submission.sender,
        "status": word,
        "direction": "outbound",
        "timestamp": _time(at),
    }
    if word == CALL_WORDS[Stage.DELIVERED]:
        event |= {"duration": str(SPOKE), "rate": "0.10000000", "price": "0.01500000"}
    return event


def _answer_instead(answer: Answer, refusal: Callable[[], Refusal]) -> Response:
    if answer is Answer.THROTTLED:
        hasty = Problem(
            429,
            "/messages-olympus#1010",
            "Rate Limit Hit",
            "Please wait, then retry your request",
        )
        return json_answer(hasty.body, 429, {"Retry-After": "1"})
    if answer is Answer.ERROR:
        detail = "There was an error processing your request in the Platform."
        return json_answer(
            Problem(500, "/messages-olympus#1000", "Internal error", detail).body, 500
        )
    refused = refusal()
    return json_answer(refused.body, refused.status)


def _message_refusal() -> Refusal:
    return Problem(422, "/messages-olympus#1170", "Invalid number", "The number is not in use.")


def _call_refusal() -> Refusal:
    return BadCall(400, "BAD_REQUEST", "Bad Request", to="The number cannot be called.")


def _part(content: object) -> str:
    return urlsafe_b64encode(orjson.dumps(content)).rstrip(b"=").decode()


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
