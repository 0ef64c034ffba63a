"""Telnyx, for the generic provider: its Messaging API with webhooks signed by Ed25519.

    POST /telnyx/v2/messages      Authorization: Bearer <api_key>
         {"from", "to", "text", "webhook_url"?}
      -> 200 {"data": {"id", "to": [{"phone_number", "status": "queued"}], "cost", …}}
      -> 4xx, 500 {"errors": [{"code", "title", "detail"}]}

Webhooks go to the message's own `webhook_url`, each `{"data": {"event_type", "payload"}}` with one
recipient in it; `telnyx-signature-ed25519` is the signature of `<telnyx-timestamp>|<body>`. One
that is not answered with 2xx is repeated after 1, 2 and 4 seconds, signed anew.

Its account is `accounts["generic"]`: `api_key`, and `private_key`, 32 bytes in base64, whose public
half the gateway is given (`public_key`).
"""

import base64
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox.answers import Refusal, json_answer, refusing
from gateway.sandbox.behaviour import E164, Answer, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message

ACCOUNT = "generic"
MESSAGES = "/telnyx/v2/messages"
AGAIN = (1.0, 2.0, 4.0)
MAX_TEXT = 1600
COST = {"amount": "0.0040", "currency": "USD"}
WORDS = {
    Stage.UNDERWAY: "sent",
    Stage.ODD: "sandbox_unheard_of",
    Stage.FAILED: "delivery_failed",
    Stage.DELIVERED: "delivered",
}


class Wrong(Refusal):
    """A request it refuses, in its own words."""

    def __init__(self, status: int, code: str, title: str, detail: str) -> None:
        error = {"code": code, "title": title, "detail": detail}
        super().__init__(status, {"errors": [error]})


@dataclass(frozen=True, slots=True)
class Submission:
    """A send request, understood."""

    sender: str
    to: str
    text: str
    webhook_url: str | None


def routes(carrier: Carrier) -> list[Route]:
    """Its API."""
    return [Route(MESSAGES, refusing(_Service(carrier).send), methods=["POST"])]


def parse(body: bytes) -> Submission:
    """What is asked for. Raises Wrong."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise Wrong(400, "10015", "Bad Request", "The body is not a JSON object.")
    for name in ("from", "to", "text"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise Wrong(422, "10004", "Missing required parameter", f"`{name}` is missing.")
    if not E164.fullmatch(fields["to"]):
        detail = "`to` is not written in E.164."
        raise Wrong(422, "10016", "Phone number must be in +E.164 format", detail)
    if len(fields["text"]) > MAX_TEXT:
        raise Wrong(422, "40302", "Message too large", f"At most {MAX_TEXT} characters.")
    url = fields.get("webhook_url")
    if url is not None and not (isinstance(url, str) and url.startswith(("http://", "https://"))):
        raise Wrong(422, "10003", "Invalid URL", "`webhook_url` is no URL.")
    return Submission(fields["from"], fields["to"], fields["text"], url)


def public_key(private_key: str) -> str:
    """The half that the gateway is given."""
    return base64.b64encode(_key(private_key).public_key().public_bytes_raw()).decode()


def signature(private_key: str, at: datetime, body: bytes) -> Mapping[str, str]:
    """The headers that prove a webhook."""
    seconds = str(int(at.timestamp()))
    signed = _key(private_key).sign(f"{seconds}|".encode() + body)
    return {
        "telnyx-signature-ed25519": base64.b64encode(signed).decode(),
        "telnyx-timestamp": seconds,
    }


def _key(private_key: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(private_key))


class _Service:
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    async def send(self, request: Request) -> Response:
        account = self._account(request)
        submission = parse(await request.body())
        behaviour, answer = self._carrier.decide(submission.to, Channel.SMS)
        message = self._carrier.phones.add(
            Message(
                id=f"40318{secrets.token_hex(12)}",
                channel=Channel.SMS,
                number=submission.to,
                text=submission.text,
                sender=submission.sender,
                at=self._carrier.now(),
                client_ref=None,
                behaviour=behaviour,
                answer=answer,
            )
        )
        if not answer.accepts:
            return _answer_instead(answer)
        write = self._writer(submission.webhook_url, message, account["private_key"])
        story = self._carrier.play(message, write, AGAIN, words=WORDS)
        response = json_answer({"data": {**_payload(message, "queued"), "cost": COST}})
        return await self._carrier.give(answer, response, [story])

    def _account(self, request: Request) -> Mapping[str, str]:
        """The account that calls. Raises Wrong."""
        account = self._carrier.settings.accounts.get(ACCOUNT)
        given = request.headers.get("authorization", "").encode()
        right = f"Bearer {account['api_key']}".encode() if account else b""
        if account is None or not hmac.compare_digest(given, right):
            detail = "The API key is missing or wrong."
            raise Wrong(401, "10009", "Authentication failed", detail)
        return account

    def _writer(self, url: str | None, message: Message, private_key: str) -> Write | None:
        if url is None:
            return None
        now = self._carrier.now

        def write(word: str, at: datetime) -> Letter:
            content = orjson.dumps(_event(message, word, at))
            headers = signature(private_key, now(), content)
            return Letter(url, content, {"Content-Type": "application/json", **headers})

        return write


def _event(message: Message, word: str, at: datetime) -> dict[str, object]:
    failed = word == WORDS[Stage.FAILED]
    errors = [{"code": "40008", "title": "Undeliverable"}] if failed else []
    return {
        "data": {
            "event_type": "message.sent" if word == "sent" else "message.finalized",
            "id": secrets.token_hex(16),
            "occurred_at": _time(at),
            "payload": {**_payload(message, word), "cost": COST, "errors": errors},
            "record_type": "event",
        }
    }


def _payload(message: Message, status: str) -> dict[str, object]:
    return {
        "id": message.id,
        "record_type": "message",
        "direction": "outbound",
        "type": "SMS",
        "from": {"phone_number": message.sender},
        "to": [{"phone_number": message.number, "status": status}],
    }


def _answer_instead(answer: Answer) -> Response:
    if answer is Answer.THROTTLED:
        return _error(429, "10011", "Too many requests", {"Retry-After": "1"})
    if answer is Answer.ERROR:
        return _error(500, "10007", "Unexpected error")
    return _error(400, "10002", "Invalid phone number")


def _error(
    status: int, code: str, title: str, headers: Mapping[str, str] | None = None
) -> Response:
    return json_answer({"errors": [{"code": code, "title": title}]}, status, headers)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")
