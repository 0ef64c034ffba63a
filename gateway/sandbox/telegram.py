"""Telegram Gateway, simulated: verification codes as chat messages, with signed reports.

    GET, POST /telegram/{method}      Authorization: Bearer <token>, or `access_token`
         parameters as query, form or JSON; the method in any case
         checkSendAbility             phone_number
         sendVerificationMessage      phone_number, code, request_id?, sender_username?,
                                      callback_url?, payload?, ttl?
         checkVerificationStatus      request_id
         revokeVerificationMessage    request_id
      -> 200 {"ok": true, "result": …} or {"ok": false, "error": "<WORD>"}

Reports are posted to the message's own `callback_url`, one a status, and repeated up to ten times
with growing pauses when they are not taken:

    X-Request-Timestamp: <unix seconds>
    X-Request-Signature: <hex HMAC-SHA256(SHA256(token), "<timestamp>\\n" + body)>
    {"request_id", "phone_number", "request_cost", "is_refunded"?, "delivery_status", "payload"?}

The account is {"token"}. Not as with the real one: callback URLs may be plain http, any 2xx takes a
report, `ttl` is checked and not acted upon, and codes are not made here (`code_length`). Telegram
publishes neither its error words nor their HTTP status: these words have been seen, 200 is a guess.
"""

import hashlib
import hmac
import re
import secrets
from asyncio import Task
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox.answers import Refusal, json_answer, refusing
from gateway.sandbox.behaviour import E164, Answer, Behaviour, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message

METHODS = "/telegram/{method}"
AGAIN = tuple(2.0**turn for turn in range(10))  # seconds before each repetition of a report
CHANNEL = Channel.TELEGRAM
WORDS = {
    Stage.UNDERWAY: "sent",
    Stage.ODD: "sandbox_unheard_of",
    Stage.FAILED: "expired",
    Stage.DELIVERED: "delivered",
    Stage.READ: "read",
}
REVOKED = {Stage.FAILED: "revoked"}

COST = 0.01
BALANCE = 99.99
TTL = range(30, 3601)
MAX_CALLBACK_URL = 256  # bytes
MAX_PAYLOAD = 128  # bytes

_CODE = re.compile(r"[0-9]{4,8}")
_SENDER = re.compile(r"[A-Za-z][A-Za-z0-9_]{3,31}")
_WEB = re.compile(r"https?://[^/\s]+\S*")

Fields = Mapping[str, object]
V = TypeVar("V")


class Wrong(Refusal):
    """A request it refuses, with its own word for the reason."""

    def __init__(self, error: str) -> None:
        super().__init__(200, {"ok": False, "error": error})


@dataclass(frozen=True, slots=True)
class Submission:
    """A send request, understood."""

    number: str
    code: str
    request_id: str | None
    sender: str | None
    callback_url: str | None
    payload: str | None


def routes(carrier: Carrier) -> list[Route]:
    """Its API."""
    return [Route(METHODS, refusing(_Service(carrier).call), methods=["GET", "POST"])]


def parse(fields: Fields) -> Submission:
    """What is asked for. Raises Wrong."""
    if fields.get("ttl") is not None and _whole(fields["ttl"]) not in TTL:
        raise Wrong("TTL_INVALID")
    return Submission(
        number=_number(fields),
        code=_code(fields),
        request_id=_text(fields, "request_id", "REQUEST_ID_INVALID"),
        sender=_text(fields, "sender_username", "SENDER_USERNAME_INVALID", shape=_SENDER),
        callback_url=_text(
            fields, "callback_url", "CALLBACK_URL_INVALID", shape=_WEB, most=MAX_CALLBACK_URL
        ),
        payload=_text(fields, "payload", "PAYLOAD_INVALID", most=MAX_PAYLOAD),
    )


def signature(token: str, seconds: int, body: bytes) -> str:
    """The value of X-Request-Signature."""
    key = hashlib.sha256(token.encode()).digest()
    return hmac.new(key, f"{seconds}\n".encode() + body, hashlib.sha256).hexdigest()


class _Service:
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._token = carrier.settings.accounts.get("telegram", {}).get("token")
        self._methods: dict[str, Callable[[Fields], Awaitable[Response]]] = {
            "checksendability": self.check,
            "sendverificationmessage": self.send,
            "checkverificationstatus": self.show,
            "revokeverificationmessage": self.revoke,
        }
        self._checked: OrderedDict[str, str | None] = OrderedDict()  # number; None: used up
        self._stories: OrderedDict[str, tuple[Task[None], Write | None]] = OrderedDict()

    async def call(self, request: Request) -> Response:
        fields = _fields(request, await request.body())
        self._authenticate(request, fields)
        method = self._methods.get(request.path_params["method"].lower())
        if method is None:
            raise Wrong("UNKNOWN_METHOD")
        return await method(fields)

    async def check(self, fields: Fields) -> Response:
        number = _number(fields)
        _, answer = self._carrier.decide(number, CHANNEL)
        if not answer.accepts:
            return _answer_instead(answer)
        request_id = _new_id()
        self._remember(self._checked, request_id, number)
        return _ok({**_status(request_id, number), "remaining_balance": BALANCE})

    async def send(self, fields: Fields) -> Response:
        submission = parse(fields)
        if submission.request_id is not None:
            self._must_be_checked(submission.request_id, submission.number)
        behaviour, answer = self._carrier.decide(submission.number, CHANNEL)
        message = self._carrier.phones.add(
            Message(
                id=submission.request_id or _new_id(),
                channel=CHANNEL,
                number=submission.number,
                text=f"{submission.code} is your verification code.",  # Telegram's words
                sender=submission.sender,
                at=self._carrier.now(),
                client_ref=submission.payload,
                behaviour=behaviour,
                answer=answer,
            )
        )
        if not answer.accepts:
            return _answer_instead(answer)
        paid = {"remaining_balance": BALANCE}
        if submission.request_id is not None:
            self._checked[submission.request_id] = None
            paid = {}
        write = self._writer(submission.callback_url, message)
        story = self._carrier.play(message, write, AGAIN, words=WORDS)
        self._remember(self._stories, message.id, (story, write))
        response = _ok({**_about(message, "sent", message.at), **paid})
        return await self._carrier.give(answer, response, [story])

    async def show(self, fields: Fields) -> Response:
        message = self._found(fields)
        if message.status is None:
            return _ok(_about(message))
        return _ok(_about(message, message.status.word, message.status.at))

    async def revoke(self, fields: Fields) -> Response:
        """What has arrived stays, and the answer is the same."""
        message = self._found(fields)
        over = message.status is not None and message.status.stage is Stage.FAILED
        if message.id in self._stories and message.arrived_at is None and not over:
            story, write = self._stories.pop(message.id)
            story.cancel()
            ending = replace(message, behaviour=Behaviour.FAILED)
            self._carrier.play(ending, write, AGAIN, words=REVOKED)
        return _ok(True)

    def _authenticate(self, request: Request, fields: Fields) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = given or str(fields.get("access_token", ""))
        if not given:
            raise Wrong("ACCESS_TOKEN_REQUIRED")
        if not self._token or not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Wrong("ACCESS_TOKEN_INVALID")

    def _must_be_checked(self, request_id: str, number: str) -> None:
        if request_id not in self._checked:
            raise Wrong("REQUEST_ID_INVALID")
        checked = self._checked[request_id]
        if checked is None:
            raise Wrong("MESSAGE_ALREADY_SENT")
        if checked != number:
            raise Wrong("PHONE_NUMBER_MISMATCH")

    def _found(self, fields: Fields) -> Message:
        request_id = _text(fields, "request_id", "REQUEST_ID_INVALID")
        if request_id is None:
            raise Wrong("REQUEST_ID_REQUIRED")
        message = self._carrier.phones.find(request_id)
        if message is None or message.channel is not CHANNEL or not message.answer.accepts:
            raise Wrong("REQUEST_ID_INVALID")
        return message

    def _writer(self, url: str | None, message: Message) -> Write | None:
        if url is None:
            return None
        token, now = self._token or "", self._carrier.now

        def write(word: str, at: datetime) -> Letter:
            content = orjson.dumps(_about(message, word, at))
            seconds = int(now().timestamp())
            headers = {
                "Content-Type": "application/json",
                "X-Request-Timestamp": str(seconds),
                "X-Request-Signature": signature(token, seconds, content),
            }
            return Letter(url, content, headers)

        return write

    def _remember(self, memory: OrderedDict[str, V], key: str, value: V) -> None:
        memory[key] = value
        if len(memory) > self._carrier.settings.keep:
            memory.popitem(last=False)


def _fields(request: Request, body: bytes) -> Fields:
    """The parameters, however they came."""
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            content = None
        return content if isinstance(content, dict) else {}
    return {**request.query_params, **dict(parse_qsl(body.decode("utf-8", "replace")))}


def _number(fields: Fields) -> str:
    number = fields.get("phone_number")
    if not isinstance(number, str) or not E164.fullmatch(number):
        raise Wrong("PHONE_NUMBER_INVALID")
    return number


def _code(fields: Fields) -> str:
    code = fields.get("code")
    if code is None:
        raise Wrong("CODE_LENGTH_REQUIRED")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise Wrong("CODE_INVALID")
    return code


def _text(
    fields: Fields,
    name: str,
    error: str,
    *,
    shape: re.Pattern[str] | None = None,
    most: int = MAX_CALLBACK_URL,
) -> str | None:
    """A field that may be left out; `most` in bytes."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value.encode()) > most:
        raise Wrong(error)
    if shape is not None and not shape.fullmatch(value):
        raise Wrong(error)
    return value


def _whole(value: object) -> int | None:
    """A whole number, which a form or a query can only bring as digits."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        return int(value)
    return value if type(value) is int else None


def _new_id() -> str:
    return f"{secrets.randbelow(10**16):016}"


def _status(request_id: str, number: str) -> dict[str, object]:
    return {"request_id": request_id, "phone_number": number, "request_cost": COST}


def _about(
    message: Message, word: str | None = None, at: datetime | None = None
) -> dict[str, object]:
    """A RequestStatus: what is known of a message, or was at some time."""
    status = _status(message.id, message.number)
    if word == WORDS[Stage.FAILED]:
        status["is_refunded"] = True
    if word is not None and at is not None:
        status["delivery_status"] = {"status": word, "updated_at": int(at.timestamp())}
    if message.client_ref is not None:
        status["payload"] = message.client_ref
    return status


def _ok(result: object) -> Response:
    return json_answer({"ok": True, "result": result})


def _answer_instead(answer: Answer) -> Response:
    if answer is Answer.THROTTLED:
        return json_answer({"ok": False, "error": "FLOOD_WAIT_1"})
    if answer is Answer.ERROR:
        return json_answer({"ok": False, "error": "INTERNAL_ERROR"}, 500)
    return json_answer({"ok": False, "error": "PHONE_NUMBER_NOT_AVAILABLE"})
