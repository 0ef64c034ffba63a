"""Mailgun: its messages call and its webhooks, whose signature covers a time and a token only.

    POST /mailgun/v3/{domain}/messages      Authorization: Basic api:<api_key>, a form
      -> 200 {"id": "<…@domain>", "message": "Queued. Thank you."}

Events are posted to the domain's one URL; one that is not taken is repeated after 1, 2 and 4
seconds, signed anew. An opening is told of mail that did not turn tracking off. One recipient a
message.

`accounts["mailgun"]`: api_key, domain, signing_key, callback_url.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parseaddr
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.sandbox.answers import Refusal, json_answer, refusing
from gateway.sandbox.behaviour import MAILBOX, Answer, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message

SEND = "/mailgun/v3/{domain}/messages"
AGAIN = (1.0, 2.0, 4.0)
BAD_TO = "to parameter is not a valid address. please check documentation"

WORDS = {
    Stage.UNDERWAY: "accepted",
    Stage.ODD: "sandbox_unheard_of",
    Stage.FAILED: "failed",
    Stage.DELIVERED: "delivered",
}
TRACKED = {**WORDS, Stage.READ: "opened"}

# What an event has beside the common fields.
MORE: Mapping[str, Mapping[str, object]] = {
    "delivered": {"delivery-status": {"code": 250, "message": "OK", "tls": True}},
    "failed": {
        "severity": "permanent",
        "reason": "bounce",
        "delivery-status": {
            "code": 550,
            "enhanced-code": "5.1.1",
            "message": "5.1.1 The email account that you tried to reach does not exist.",
        },
    },
}


class Wrong(Refusal):
    """A request it refuses."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(status, {"message": message})


@dataclass(frozen=True, slots=True)
class Submission:
    """A mail, understood."""

    to: str
    origin: str
    text: str
    variables: Mapping[str, str]
    tracked: bool


def routes(carrier: Carrier) -> list[Route]:
    """Its API."""
    return [Route(SEND, refusing(_Service(carrier).send), methods=["POST"])]


def signature(signing_key: str, stamp: str, token: str) -> str:
    """In hexadecimal; the event is not part of it."""
    return hmac.new(signing_key.encode(), f"{stamp}{token}".encode(), hashlib.sha256).hexdigest()


def parse(body: bytes) -> Submission:
    """What is asked for. Raises Wrong."""
    try:
        fields = dict(parse_qsl(body.decode(), strict_parsing=True, max_num_fields=100))
    except ValueError:
        fields = {}
    if "from" not in fields:
        raise Wrong("from parameter is missing")
    _, origin = parseaddr(fields["from"])
    if not MAILBOX.fullmatch(origin):
        raise Wrong("from parameter is not a valid address. please check documentation")
    _, to = parseaddr(fields.get("to", ""))
    if not MAILBOX.fullmatch(to):
        raise Wrong(BAD_TO)
    if not fields.get("text"):
        raise Wrong("Need at least one of 'text' or 'html' parameters specified")
    variables = {key[2:]: value for key, value in fields.items() if key.startswith("v:")}
    tracked = fields.get("o:tracking", "yes") not in {"no", "false"}
    return Submission(to, fields["from"], fields["text"], variables, tracked)


class _Service:
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._account = carrier.settings.accounts.get("mailgun", {})

    async def send(self, request: Request) -> Response:
        login = f"api:{self._account.get('api_key')}".encode()
        right = b"Basic " + base64.b64encode(login)
        given = request.headers.get("authorization", "").encode()
        if not self._account or not hmac.compare_digest(given, right):
            return PlainTextResponse("Forbidden", 401)
        domain = request.path_params["domain"]
        if domain != self._account.get("domain"):
            raise Wrong(f"Domain not found: {domain}", 404)
        return await self._take(parse(await request.body()), domain)

    async def _take(self, submission: Submission, domain: str) -> Response:
        behaviour, answer = self._carrier.decide(submission.to, Channel.EMAIL)
        message = self._carrier.phones.add(
            Message(
                id=f"{self._carrier.now():%Y%m%d%H%M%S}.{secrets.token_hex(8)}@{domain}",
                channel=Channel.EMAIL,
                number=submission.to,
                text=submission.text,
                sender=submission.origin,
                at=self._carrier.now(),
                client_ref=next(iter(submission.variables.values()), None),
                behaviour=behaviour,
                answer=answer,
            )
        )
        if not answer.accepts:
            return _answer_instead(answer)
        words = TRACKED if submission.tracked else WORDS
        story = self._carrier.play(message, self._writer(submission, message), AGAIN, words=words)
        response = json_answer({"id": f"<{message.id}>", "message": "Queued. Thank you."})
        return await self._carrier.give(answer, response, [story])

    def _writer(self, submission: Submission, message: Message) -> Write | None:
        url, key = self._account.get("callback_url"), self._account.get("signing_key", "")
        if not url:
            return None

        def write(word: str, at: datetime) -> Letter:
            stamp, token = str(int(self._carrier.now().timestamp())), secrets.token_hex(25)
            content = {
                "signature": {
                    "timestamp": stamp,
                    "token": token,
                    "signature": signature(key, stamp, token),
                },
                "event-data": _event(submission, message, word, at),
            }
            return Letter(url, orjson.dumps(content), {"Content-Type": "application/json"})

        return write


def _event(submission: Submission, message: Message, word: str, at: datetime) -> dict[str, object]:
    return {
        "event": word,
        "id": secrets.token_urlsafe(16),
        "timestamp": at.timestamp(),
        "recipient": submission.to,
        "recipient-domain": submission.to.rpartition("@")[2],
        "message": {"headers": {"message-id": message.id, "to": submission.to}},
        "user-variables": submission.variables,
        **MORE.get(word, {}),
    }


def _answer_instead(answer: Answer) -> Response:
    if answer is Answer.THROTTLED:
        return json_answer({"message": "Too many requests"}, 429, {"Retry-After": "1"})
    if answer is Answer.ERROR:
        return json_answer({"message": "Internal Server Error"}, 500)
    return json_answer({"message": BAD_TO}, 400)
