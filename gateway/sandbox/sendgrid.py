"""SendGrid: its mail call and its event webhook, signed.

    POST /sendgrid/v3/mail/send      Authorization: Bearer <api_key>
      -> 202, empty, X-Message-Id

Events are posted to the account's one URL, each in a batch of its own, whose signature covers the
timestamp and the body. One that is not taken is repeated after 1, 2 and 4 seconds, signed anew.
An open is told of mail that asked for open tracking only. One recipient a message.

`accounts["sendgrid"]`: api_key, signing_key (private, PKCS #8 in DER, base64), callback_url.
"""

import base64
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox.answers import Refusal, json_answer, refusing
from gateway.sandbox.behaviour import MAILBOX, Answer, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message

SEND = "/sendgrid/v3/mail/send"
AGAIN = (1.0, 2.0, 4.0)
HEADER = "X-Twilio-Email-Event-Webhook"
TO = "personalizations.0.to.0.email"

WORDS = {
    Stage.UNDERWAY: "processed",
    Stage.ODD: "sandbox_unheard_of",
    Stage.FAILED: "bounce",
    Stage.DELIVERED: "delivered",
}
TRACKED = {**WORDS, Stage.READ: "open"}

# What an event has beside the common fields.
MORE: Mapping[str, Mapping[str, object]] = {
    "delivered": {"response": "250 2.0.0 OK", "tls": 1, "ip": "192.0.2.1"},
    "bounce": {
        "type": "bounce",
        "status": "5.1.1",
        "reason": "550 5.1.1 The email account that you tried to reach does not exist.",
        "bounce_classification": "Invalid Address",
    },
    "open": {"useragent": "Mozilla/5.0", "ip": "192.0.2.7", "sg_machine_open": False},
}


class Wrong(Refusal):
    """A request it refuses."""

    def __init__(self, message: str, field: str | None = None, status: int = 400) -> None:
        super().__init__(status, _errors(message, field))


@dataclass(frozen=True, slots=True)
class Submission:
    """A mail, understood."""

    to: str
    origin: str
    text: str
    custom: Mapping[str, str]
    tracked: bool


def routes(carrier: Carrier) -> list[Route]:
    """Its API."""
    return [Route(SEND, refusing(_Service(carrier).send), methods=["POST"])]


def signature(signing_key: str, stamp: str, body: bytes) -> str:
    """ECDSA over P-256 and SHA-256, in DER, in base64."""
    key = load_der_private_key(base64.b64decode(signing_key), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("signing_key: a key of an elliptic curve is expected")
    return base64.b64encode(key.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()


def parse(body: bytes) -> Submission:
    """What is asked for. Raises Wrong."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Wrong("Bad Request") from None
    if not isinstance(fields, dict):
        raise Wrong("Bad Request")
    content = fields.get("content")
    if not isinstance(content, list) or not content:
        raise Wrong("Unless a valid template_id is provided, content is required.", "content")
    if not isinstance(fields.get("subject"), str) or not fields["subject"]:
        raise Wrong("The subject is required.", "subject")
    return Submission(
        _recipient(fields.get("personalizations")),
        _address(fields.get("from"), "from.email"),
        _text(content),
        _custom(fields.get("custom_args", {})),
        _tracked(fields.get("tracking_settings")),
    )


class _Service:
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._account = carrier.settings.accounts.get("sendgrid", {})

    async def send(self, request: Request) -> Response:
        given = request.headers.get("authorization", "").encode()
        right = f"Bearer {self._account.get('api_key')}".encode()
        if not self._account or not hmac.compare_digest(given, right):
            message = "The provided authorization grant is invalid, expired, or revoked"
            raise Wrong(message, status=401)
        return await self._take(parse(await request.body()))

    async def _take(self, submission: Submission) -> Response:
        behaviour, answer = self._carrier.decide(submission.to, Channel.EMAIL)
        message = self._carrier.phones.add(
            Message(
                id=secrets.token_urlsafe(16),
                channel=Channel.EMAIL,
                number=submission.to,
                text=submission.text,
                sender=submission.origin,
                at=self._carrier.now(),
                client_ref=next(iter(submission.custom.values()), None),
                behaviour=behaviour,
                answer=answer,
            )
        )
        if not answer.accepts:
            return self._answer_instead(answer)
        words = TRACKED if submission.tracked else WORDS
        story = self._carrier.play(message, self._writer(submission, message), AGAIN, words=words)
        response = Response(None, 202, {"X-Message-Id": message.id})
        return await self._carrier.give(answer, response, [story])

    def _writer(self, submission: Submission, message: Message) -> Write | None:
        url, key = self._account.get("callback_url"), self._account.get("signing_key", "")
        if not url:
            return None

        def write(word: str, at: datetime) -> Letter:
            content = orjson.dumps([_event(submission, message, word, at)]) + b"\r\n"
            stamp = str(int(self._carrier.now().timestamp()))
            headers = {
                "Content-Type": "application/json",
                f"{HEADER}-Timestamp": stamp,
                f"{HEADER}-Signature": signature(key, stamp, content),
            }
            return Letter(url, content, headers)

        return write

    def _answer_instead(self, answer: Answer) -> Response:
        if answer is Answer.THROTTLED:
            reset = str(int(self._carrier.now().timestamp()) + 1)
            headers = {"X-RateLimit-Reset": reset, "Retry-After": "1"}
            return json_answer(_errors("too many requests", None), 429, headers)
        if answer is Answer.ERROR:
            return json_answer(_errors("Internal server error", None), 500)
        return json_answer(_errors("Does not contain a valid address.", TO), 400)


def _event(submission: Submission, message: Message, word: str, at: datetime) -> dict[str, object]:
    return {
        "email": submission.to,
        "timestamp": int(at.timestamp()),
        "smtp-id": f"<{message.id}@geopod-ismtpd-sandbox>",
        "event": word,
        "sg_event_id": secrets.token_urlsafe(16),
        "sg_message_id": f"{message.id}.recvd-sandbox-0-0.0",
        **MORE.get(word, {}),
        **submission.custom,
    }


def _errors(message: str, field: str | None) -> dict[str, object]:
    return {"errors": [{"message": message, "field": field, "help": None}]}


def _recipient(personalizations: object) -> str:
    if not isinstance(personalizations, list) or not personalizations:
        raise Wrong("The personalizations field is required.", "personalizations")
    to = personalizations[0].get("to") if isinstance(personalizations[0], dict) else None
    if not isinstance(to, list) or not to:
        raise Wrong("The to array is required for all personalization objects.", TO[:-8])
    return _address(to[0], TO)


def _address(given: object, field: str) -> str:
    address = given.get("email") if isinstance(given, dict) else None
    if not isinstance(address, str) or not MAILBOX.fullmatch(address):
        raise Wrong("Does not contain a valid address.", field)
    return address


def _text(content: list[object]) -> str:
    first = content[0]
    text = first.get("value") if isinstance(first, dict) else None
    if not isinstance(text, str) or not text:
        raise Wrong(
            "The content value must be a string at least one character in length.", "content"
        )
    return text


def _custom(given: object) -> Mapping[str, str]:
    if not isinstance(given, dict) or not all(isinstance(one, str) for one in given.values()):
        raise Wrong("Custom args must be strings.", "custom_args")
    return given


def _tracked(given: object) -> bool:
    """Open tracking is the account's habit: on, unless a mail says otherwise."""
    opens = given.get("open_tracking") if isinstance(given, dict) else None
    return not isinstance(opens, dict) or opens.get("enable") is not False
