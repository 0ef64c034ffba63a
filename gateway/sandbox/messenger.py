"""A messenger: an API in the manner of today's, with signed callbacks and read receipts.

    POST /messenger/v1/messages      Authorization: Bearer <token>
         {"to", "text", "callback_url"?, "client_ref"?, "ttl"?}
      -> 202 {"message_id": "m_…", "status": "accepted"}
    GET  /messenger/v1/messages/{message_id}
      -> 200 {"message_id", "client_ref", "status", "time"}

Callbacks are posted to the message's own `callback_url`:

    {"statuses": [{"message_id", "client_ref", "status", "error"?, "time"}]}
    X-Messenger-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256(secret, "<t>." + body)>

One that is not answered with 2xx is repeated after 1, 2 and 4 seconds, signed anew. It knows no
idempotency: the same request twice is two messages. `ttl` is checked and not acted upon.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox.answers import Refusal, json_answer, refusing
from gateway.sandbox.behaviour import E164, WORDS, Answer, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message

MESSAGES = "/messenger/v1/messages"
AGAIN = (1.0, 2.0, 4.0)
MAX_TEXT = 4096
MAX_CLIENT_REF = 128
MAX_TTL = 86_400
CHANNEL = Channel.MESSENGER
FAILED = WORDS[CHANNEL][Stage.FAILED]

_WEB = re.compile(r"https?://[^/\s]+\S*")


class Wrong(Refusal):
    """A request it refuses, with its own word for the reason."""

    def __init__(self, error: str, message: str | None = None, status: int = 400) -> None:
        super().__init__(
            status, {"error": error, "message": message} if message else {"error": error}
        )


@dataclass(frozen=True, slots=True)
class Submission:
    """A send request, understood."""

    to: str
    text: str
    callback_url: str | None
    client_ref: str | None


def routes(carrier: Carrier) -> list[Route]:
    """Its API."""
    service = _Service(carrier)
    return [
        Route(MESSAGES, refusing(service.send), methods=["POST"]),
        Route(f"{MESSAGES}/{{message_id}}", refusing(service.show), methods=["GET"]),
    ]


def parse(body: bytes) -> Submission:
    """What is asked for. Raises Wrong."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Wrong("invalid_request", "The body is not JSON.") from None
    if not isinstance(fields, dict):
        raise Wrong("invalid_request", "The body is not a JSON object.")
    to = fields.get("to")
    if not isinstance(to, str) or not E164.fullmatch(to):
        raise Wrong("invalid_recipient", "`to` is not a phone number in E.164 form.")
    _check_ttl(fields.get("ttl"))
    return Submission(to, _text(fields), _callback_url(fields), _client_ref(fields))


def signature(secret: str, at: datetime, body: bytes) -> str:
    """The value of X-Messenger-Signature."""
    seconds = int(at.timestamp())
    signed = f"{seconds}.".encode() + body
    return f"t={seconds},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


class _Service:
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    async def send(self, request: Request) -> Response:
        self._authenticate(request)
        return await self._take(parse(await request.body()))

    async def show(self, request: Request) -> Response:
        self._authenticate(request)
        message = self._carrier.phones.find(request.path_params["message_id"])
        if message is None or message.channel is not CHANNEL or not message.answer.accepts:
            raise Wrong("not_found", status=404)
        return json_answer(_shown(message))

    def _authenticate(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode()
        right = f"Bearer {self._carrier.settings.messenger_token}".encode()
        if not hmac.compare_digest(given, right):
            raise Wrong("unauthorized", status=401)

    async def _take(self, submission: Submission) -> Response:
        behaviour, answer = self._carrier.decide(submission.to, CHANNEL)
        message = self._carrier.phones.add(
            Message(
                id=f"m_{secrets.token_hex(12)}",
                channel=CHANNEL,
                number=submission.to,
                text=submission.text,
                sender=None,
                at=self._carrier.now(),
                client_ref=submission.client_ref,
                behaviour=behaviour,
                answer=answer,
            )
        )
        if not answer.accepts:
            return _answer_instead(answer)
        write = self._writer(submission.callback_url, message)
        story = self._carrier.play(message, write, AGAIN)
        response = json_answer({"message_id": message.id, "status": "accepted"}, 202)
        return await self._carrier.give(answer, response, [story])

    def _writer(self, url: str | None, message: Message) -> Write | None:
        if url is None:
            return None
        secret, now = self._carrier.settings.messenger_secret, self._carrier.now

        def write(word: str, at: datetime) -> Letter:
            content = orjson.dumps({"statuses": [_status(message, word, at)]})
            signed = {"X-Messenger-Signature": signature(secret, now(), content)}
            return Letter(url, content, {"Content-Type": "application/json", **signed})

        return write


def _text(fields: Mapping[str, object]) -> str:
    text = fields.get("text")
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_TEXT:
        raise Wrong("invalid_request", f"`text` is not a string of 1 to {MAX_TEXT} characters.")
    return text


def _callback_url(fields: Mapping[str, object]) -> str | None:
    url = fields.get("callback_url")
    if url is not None and not (isinstance(url, str) and _WEB.fullmatch(url)):
        raise Wrong("invalid_request", "`callback_url` is not an http or https URL.")
    return url


def _client_ref(fields: Mapping[str, object]) -> str | None:
    ref = fields.get("client_ref")
    if ref is not None and not (isinstance(ref, str) and len(ref) <= MAX_CLIENT_REF):
        raise Wrong("invalid_request", "`client_ref` is not a string, or is too long.")
    return ref


def _check_ttl(ttl: object) -> None:
    if ttl is not None and not (type(ttl) is int and 1 <= ttl <= MAX_TTL):
        raise Wrong("invalid_request", f"`ttl` is not a number of seconds from 1 to {MAX_TTL}.")


def _status(message: Message, word: str, at: datetime) -> dict[str, str | None]:
    status = {
        "message_id": message.id,
        "client_ref": message.client_ref,
        "status": word,
        "time": _time(at),
    }
    return {**status, "error": "undeliverable"} if word == FAILED else status


def _shown(message: Message) -> dict[str, str | None]:
    """The furthest a message came, for whoever asks."""
    if message.status is None:
        return _status(message, "accepted", message.at)
    return _status(message, message.status.word, message.status.at)


def _answer_instead(answer: Answer) -> Response:
    if answer is Answer.THROTTLED:
        return json_answer({"error": "rate_limited"}, 429, {"Retry-After": "1"})
    if answer is Answer.ERROR:
        return json_answer({"error": "internal_error"}, 500)
    return json_answer({"error": "not_a_user"}, 404)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
