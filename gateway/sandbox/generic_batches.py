"""Infobip, for the generic provider: its SMS API v3 with reports in batches.

    POST /infobip/sms/3/messages      Authorization: App <api_key>
         {"messages": [{"sender"?, "destinations": [{"to", "messageId"?}], "content": {"text"},
                        "webhooks"?: {"callbackData"?}}]}
      -> 200 {"messages": [{"messageId", "status": {"groupName", "id", "name"}, "destination"}]}
         A number that is refused is answered 200, with the group REJECTED.
      -> 4xx, 500 {"requestError": {"serviceException": {"messageId", "text"}}}

Reports go to the one URL of the account, `{"results": [...]}`. With each comes the one before it:
a batch may bring several states of a message. Nothing is signed. One that is not answered with 2xx
is repeated after 1, 2 and 4 seconds.

Its account is `accounts["infobip"]`: `api_key`, and `callback_url` with the key at its end.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox.answers import Refusal, json_answer, refusing
from gateway.sandbox.behaviour import E164, Answer, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message

ACCOUNT = "infobip"
MESSAGES = "/infobip/sms/3/messages"
AGAIN = (1.0, 2.0, 4.0)
WORDS = {
    Stage.UNDERWAY: "DELIVERED/2/DELIVERED_TO_OPERATOR",
    Stage.ODD: "SANDBOX/99/SANDBOX_UNHEARD_OF",
    Stage.FAILED: "UNDELIVERABLE/4/UNDELIVERABLE_REJECTED_OPERATOR",
    Stage.DELIVERED: "DELIVERED/5/DELIVERED_TO_HANDSET",
}
PENDING = "PENDING/26/PENDING_ACCEPTED"
REJECTED = "REJECTED/51/REJECTED_INVALID_DESTINATION"


class Wrong(Refusal):
    """A request it refuses, in its own words."""

    def __init__(self, status: int, code: str, text: str) -> None:
        said = {"messageId": code, "text": text}
        super().__init__(status, {"requestError": {"serviceException": said}})


@dataclass(frozen=True, slots=True)
class Submission:
    """A send request, understood; one message to one number."""

    to: str
    text: str
    sender: str | None
    message_id: str | None
    callback_data: str | None


def routes(carrier: Carrier) -> list[Route]:
    """Its API."""
    return [Route(MESSAGES, refusing(_Service(carrier).send), methods=["POST"])]


def parse(body: bytes) -> Submission:
    """What is asked for. Raises Wrong."""
    try:
        ((message,),) = (orjson.loads(body)["messages"],)
        ((destination,),) = (message["destinations"],)
        to, text = destination["to"], message["content"]["text"]
        sender, named = message.get("sender"), destination.get("messageId")
        data = message.get("webhooks", {}).get("callbackData")
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError):
        raise Wrong(400, "BAD_REQUEST", "One message to one destination is expected.") from None
    if not isinstance(to, str) or not E164.fullmatch(f"+{to.removeprefix('+')}"):
        raise Wrong(400, "BAD_REQUEST", "`to` is not a number.")
    if not isinstance(text, str) or not text:
        raise Wrong(400, "BAD_REQUEST", "`text` is missing.")
    if not all(isinstance(one, str | None) for one in (sender, named, data)):
        raise Wrong(400, "BAD_REQUEST", "`sender`, `messageId` and `callbackData` are texts.")
    return Submission(f"+{to.removeprefix('+')}", text, sender, named, data)


class _Service:
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    async def send(self, request: Request) -> Response:
        account = self._account(request)
        submission = parse(await request.body())
        behaviour, answer = self._carrier.decide(submission.to, Channel.SMS)
        message = self._carrier.phones.add(
            Message(
                id=submission.message_id or secrets.token_hex(12),
                channel=Channel.SMS,
                number=submission.to,
                text=submission.text,
                sender=submission.sender,
                at=self._carrier.now(),
                client_ref=submission.callback_data,
                behaviour=behaviour,
                answer=answer,
            )
        )
        if not answer.accepts:
            return _answer_instead(answer, message)
        write = _writer(account.get("callback_url"), message)
        story = self._carrier.play(message, write, AGAIN, words=WORDS)
        return await self._carrier.give(answer, _taken(message, PENDING), [story])

    def _account(self, request: Request) -> Mapping[str, str]:
        """The account that calls. Raises Wrong."""
        account = self._carrier.settings.accounts.get(ACCOUNT)
        given = request.headers.get("authorization", "").encode()
        right = f"App {account['api_key']}".encode() if account else b""
        if account is None or not hmac.compare_digest(given, right):
            raise Wrong(401, "UNAUTHORIZED", "Invalid login details")
        return account


def _writer(url: str | None, message: Message) -> Write | None:
    if url is None:
        return None
    before: list[dict[str, object]] = []  # at most one

    def write(word: str, at: datetime) -> Letter:
        now = _result(message, word, at)
        results = [*before, now]
        before[:] = [now]
        return Letter(url, orjson.dumps({"results": results}), {"Content-Type": "application/json"})

    return write


def _result(message: Message, word: str, at: datetime) -> dict[str, object]:
    failed = word == WORDS[Stage.FAILED]
    return {
        "bulkId": f"b-{message.id}",
        "messageId": message.id,
        "to": message.number.removeprefix("+"),
        "sentAt": _time(message.at),
        "doneAt": _time(at),
        "smsCount": 1,
        "callbackData": message.client_ref,
        "price": {"pricePerMessage": 0.01, "currency": "EUR"},
        "status": _status(word),
        "error": {
            "id": 6 if failed else 0,
            "name": "EC_ABSENT_SUBSCRIBER" if failed else "NO_ERROR",
        },
    }


def _status(word: str) -> dict[str, object]:
    group, number, name = word.split("/")
    return {"groupName": group, "id": int(number), "name": name}


def _taken(message: Message, word: str) -> Response:
    to = message.number.removeprefix("+")
    said = {"messageId": message.id, "status": _status(word), "destination": to}
    return json_answer({"bulkId": f"b-{message.id}", "messages": [said]})


def _answer_instead(answer: Answer, message: Message) -> Response:
    if answer is Answer.THROTTLED:
        return _error(429, "TOO_MANY_REQUESTS", {"Retry-After": "1"})
    if answer is Answer.ERROR:
        return _error(500, "GENERAL_ERROR")
    return _taken(message, REJECTED)


def _error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Response:
    said = {"messageId": code, "text": "Something went wrong"}
    return json_answer({"requestError": {"serviceException": said}}, status, headers)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")
