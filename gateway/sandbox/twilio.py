"""Twilio: messages over SMS and WhatsApp, and calls, with signed callbacks.

    POST /twilio/2010-04-01/Accounts/{AccountSid}/Messages.json        Basic, form → 201
    POST /twilio/2010-04-01/Accounts/{AccountSid}/Calls.json
    GET  /twilio/2010-04-01/Accounts/{AccountSid}/Messages/{Sid}.json  → 200, so far
    GET  /twilio/2010-04-01/Accounts/{AccountSid}/Calls/{Sid}.json
    POST to either: Status=canceled, which here always comes too late
    GET  /twilio/2010-04-01/Accounts/{AccountSid}.json

What it accepts is in `twilio_requests`. Callbacks go to the `StatusCallback` of each message, and
are repeated a second apart where its fragment asks for that. They carry `X-Twilio-Signature`, made
here anew from the vendor's page "webhooks security".
"""

import base64
import hmac
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha1
from typing import Any
from urllib.parse import urlencode
from uuid import NAMESPACE_URL, uuid5

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox import twilio_requests
from gateway.sandbox.answers import json_answer, refusing
from gateway.sandbox.behaviour import Answer, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message
from gateway.sandbox.twilio_requests import WHATSAPP, Submission, Wrong, refusal

PREFIX = "/twilio/2010-04-01/Accounts"
VERSION = "2010-04-01"
AGAIN = 1.0  # seconds before a callback is repeated
POOLED = "+15005550006"  # the sender that a Messaging Service picks
SECONDS = "12"  # that a call lasts

_MESSAGE_WORDS = {
    Stage.UNDERWAY: "sent",
    Stage.ODD: "sandbox_unheard_of",
    Stage.FAILED: "undelivered",
    Stage.DELIVERED: "delivered",
}
WORDS: dict[Channel, dict[Stage, str]] = {
    Channel.SMS: _MESSAGE_WORDS,
    Channel.WHATSAPP: {**_MESSAGE_WORDS, Stage.READ: "read"},
    Channel.VOICE: {
        Stage.UNDERWAY: "ringing",
        Stage.ODD: "sandbox-unheard-of",
        Stage.FAILED: "no-answer",
        Stage.DELIVERED: "completed",
    },
}
FAILURES = {Channel.SMS: 30003, Channel.WHATSAPP: 63003}  # the handset is off; not a user
REFUSED_FOR_GOOD = {Channel.SMS: 21610, Channel.WHATSAPP: 21211, Channel.VOICE: 21214}
PRICES = {Channel.SMS: "-0.00750", Channel.WHATSAPP: "-0.00500", Channel.VOICE: "-0.01300"}


def routes(carrier: Carrier) -> list[Route]:
    """Its API."""
    service = _Service(carrier)
    account = f"{PREFIX}/{{account}}"
    return [
        Route(f"{account}/Messages.json", refusing(service.message), methods=["POST"]),
        Route(f"{account}/Calls.json", refusing(service.call), methods=["POST"]),
        Route(f"{account}/{{kind}}/{{sid}}.json", refusing(service.show), methods=["GET"]),
        Route(f"{account}/{{kind}}/{{sid}}.json", refusing(service.change), methods=["POST"]),
        Route(f"{account}.json", refusing(service.account), methods=["GET"]),
    ]


def signature(token: str, url: str, fields: Mapping[str, str]) -> str:
    """The value of X-Twilio-Signature: the URL, then every field by name."""
    text = url
    for name in sorted(fields):
        text += name + fields[name]
    return base64.b64encode(hmac.new(token.encode(), text.encode(), sha1).digest()).decode()


class _Service:
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._account = carrier.settings.accounts.get("twilio", {})

    async def message(self, request: Request) -> Response:
        return await self._create(request, twilio_requests.message)

    async def call(self, request: Request) -> Response:
        return await self._create(request, twilio_requests.call)

    async def show(self, request: Request) -> Response:
        self._authenticate(request)
        return json_answer(self._shown(self._find(request)))

    async def change(self, request: Request) -> Response:
        self._authenticate(request)
        found = self._find(request)
        if await request.body() not in {b"Status=canceled", b"Status=completed"}:
            raise Wrong(20001)
        return json_answer(self._shown(found))

    async def account(self, request: Request) -> Response:
        self._authenticate(request)
        sid = self._account["account_sid"]
        answer = {"sid": sid, "friendly_name": "Sandbox", "status": "active", "type": "Full"}
        return json_answer({**answer, "uri": f"/{VERSION}/Accounts/{sid}.json"})

    def _authenticate(self, request: Request) -> None:
        """By account and token or by key and secret; without an account nobody gets in."""
        given = request.headers.get("authorization", "").encode()
        allowed = False
        for user, password in (("account_sid", "auth_token"), ("api_key", "api_secret")):
            if self._account.get(user) and self._account.get(password):
                pair = f"{self._account[user]}:{self._account[password]}".encode()
                allowed |= hmac.compare_digest(given, b"Basic " + base64.b64encode(pair))
        if not allowed:
            raise Wrong(20003)
        if request.path_params["account"] != self._account.get("account_sid"):
            raise Wrong(20404)

    def _find(self, request: Request) -> Message:
        kind, sid = request.path_params["kind"], request.path_params["sid"]
        found = self._carrier.phones.find(sid)
        if found is None or not found.answer.accepts or not sid.startswith(("SM", "CA")):
            raise Wrong(20404)
        if kind != _kind(found.channel):
            raise Wrong(20404)
        return found

    async def _create(self, request: Request, parse: Callable[[bytes], Submission]) -> Response:
        self._authenticate(request)
        submission = parse(await request.body())
        channel = submission.channel
        behaviour, answer = self._carrier.decide(submission.number, channel)
        message = self._carrier.phones.add(
            Message(
                id=("CA" if channel is Channel.VOICE else "SM") + secrets.token_hex(16),
                channel=channel,
                number=submission.number,
                text=submission.text,
                sender=submission.sender,
                at=self._carrier.now(),
                client_ref=None,
                behaviour=behaviour,
                answer=answer,
            )
        )
        if not answer.accepts:
            return _answer_instead(answer, submission)
        story = self._carrier.play(
            message,
            self._writer(submission, message),
            (AGAIN,) * submission.retries,
            words=_words(submission),
        )
        created = json_answer(self._shown(message), 201)
        return await self._carrier.give(answer, created, [story])

    def _writer(self, submission: Submission, message: Message) -> Write | None:
        url = submission.callback
        if url is None:
            return None
        token = self._account["auth_token"]
        told = _told_of_call if message.channel is Channel.VOICE else _told_of_message
        common = {"AccountSid": self._account["account_sid"], "ApiVersion": VERSION}
        common |= {"From": submission.sender or POOLED, "To": submission.to}

        def write(word: str, at: datetime) -> Letter:
            fields = {**common, **told(submission, message, word, at)}
            headers = {
                "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
                "X-Twilio-Signature": signature(token, url, fields),
                "I-Twilio-Idempotency-Token": str(uuid5(NAMESPACE_URL, f"{message.id} {word}")),
            }
            return Letter(url, urlencode(fields).encode(), headers)

        return write

    def _shown(self, message: Message) -> dict[str, Any]:
        """The resource, as far as it came."""
        status = message.status
        sid = self._account["account_sid"]
        word = status.word if status else "queued"
        at = _time(status.at if status else message.at)
        voice = message.channel is Channel.VOICE
        shown = {
            "sid": message.id,
            "account_sid": sid,
            "api_version": VERSION,
            "date_created": _time(message.at),
            "date_updated": at,
            "direction": "outbound-api",
            "from": message.sender,
            "to": f"{WHATSAPP if message.channel is Channel.WHATSAPP else ''}{message.number}",
            "status": word,
            "price": PRICES[message.channel] if message.arrived_at else None,
            "price_unit": "USD",
            "uri": f"/{VERSION}/Accounts/{sid}/{_kind(message.channel)}/{message.id}.json",
        }
        if voice:
            ended = SECONDS if word == WORDS[message.channel][Stage.DELIVERED] else None
            return {**shown, "duration": ended, "answered_by": None}
        failed = status is not None and status.stage is Stage.FAILED
        return {
            **shown,
            "body": message.text,
            "num_segments": "1",
            "error_code": FAILURES[message.channel] if failed else None,
            "error_message": None,
        }


def _told_of_message(
    submission: Submission, message: Message, word: str, at: datetime
) -> dict[str, str]:
    fields = {
        "MessageSid": message.id,
        "SmsSid": message.id,
        "MessageStatus": word,
        "SmsStatus": word,
    }
    words = WORDS[message.channel]
    if submission.service:
        fields["MessagingServiceSid"] = submission.service
    if word == words[Stage.FAILED]:
        fields["ErrorCode"] = str(FAILURES[message.channel])
    if message.channel is Channel.WHATSAPP:
        masked = f"{message.number[:-4]}XXXX"
        fields |= {"ChannelPrefix": "whatsapp", "ChannelToAddress": masked}
        if word in {words[Stage.READ], words[Stage.DELIVERED], words[Stage.FAILED]}:
            fields["EventType"] = word.upper()
    elif word in {words[Stage.DELIVERED], words[Stage.FAILED]}:
        fields["RawDlrDoneDate"] = at.astimezone(UTC).strftime("%y%m%d%H%M")
    return fields


def _told_of_call(
    submission: Submission, message: Message, word: str, at: datetime
) -> dict[str, str]:
    words = WORDS[Channel.VOICE]
    fields = {
        "CallSid": message.id,
        "CallStatus": word,
        "Direction": "outbound-api",
        "Timestamp": _time(at),
        "CallbackSource": "call-progress-events",
        "SequenceNumber": "1" if word == words[Stage.UNDERWAY] else "3",
    }
    if word == words[Stage.DELIVERED]:
        fields |= {"CallDuration": SECONDS, "Duration": "1"}
        fields |= {"AnsweredBy": "human"} if submission.detects_machines else {}
    if word == words[Stage.FAILED]:
        fields |= {"CallDuration": "0", "Duration": "0", "SipResponseCode": "487"}
    return fields


def _words(submission: Submission) -> Mapping[Stage, str]:
    """Of a call only what was asked for is told; its end always."""
    words = WORDS[submission.channel]
    if submission.channel is Channel.VOICE and "ringing" not in submission.events:
        return {stage: word for stage, word in words.items() if stage is not Stage.UNDERWAY}
    return words


def _answer_instead(answer: Answer, submission: Submission) -> Response:
    if answer is Answer.THROTTLED:
        return json_answer(refusal(20429), 429, {"Retry-After": "1"})
    if answer is Answer.ERROR:
        return json_answer(refusal(20500), 500)
    return json_answer(refusal(REFUSED_FOR_GOOD[submission.channel], submission.to), 400)


def _kind(channel: Channel) -> str:
    return "Calls" if channel is Channel.VOICE else "Messages"


def _time(at: datetime) -> str:
    return format_datetime(at.astimezone(UTC).replace(microsecond=0))
