"""AWS: End User Messaging SMS (SendTextMessage, SendVoiceMessage), SNS, and the topic between.

    POST /aws/sms-voice/   JSON 1.0: SendTextMessage, SendVoiceMessage, DescribeAccountAttributes
    POST /aws/sns/         Query: Publish, Subscribe, GetSMSSandboxAccountStatus
    GET  /aws/sns/         ?Action=ConfirmSubscription&TopicArn=…&Token=…
    GET  /aws/sns/SimpleNotificationService-….pem

Requests are signed (`aws_signature`). Events of messages that name the account's configuration set
go to the subscriber of its topic (`aws_topic`), repeated as SNS does it. Publish has no events.

The account: `access_key_id`, `secret_access_key`, `region`, `configuration_set`, `topic_arn`,
`endpoint` (the public address of /aws/sns); where wanted `session_token`, `signature_version` ("1")
and `callback_url`, an address that is subscribed already.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import NoReturn
from urllib.parse import parse_qsl
from uuid import NAMESPACE_URL, uuid4, uuid5

import orjson
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox import aws_signature
from gateway.sandbox.aws_signature import Denied
from gateway.sandbox.aws_topic import Topic
from gateway.sandbox.behaviour import E164, Answer, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message

API = "/aws/sms-voice/"
SNS = "/aws/sns/"
SPACE = "com.amazonaws.pinpointsmsvoicev2#"
XMLNS = "http://sns.amazonaws.com/doc/2010-03-31/"
AGAIN = (20.0, 20.0, 20.0)  # the default delivery policy of SNS
PRICE = 0.00581
MAX_TEXT = {Channel.SMS: 1600, Channel.VOICE: 3000}
COUNTRIES = {"+33": "FR", "+1": "US"}

WORDS: Mapping[Channel, Mapping[Stage, str]] = {
    Channel.SMS: {
        Stage.UNDERWAY: "TEXT_SUCCESSFUL",
        Stage.ODD: "TEXT_SANDBOX_UNHEARD_OF",
        Stage.FAILED: "TEXT_UNREACHABLE",
        Stage.DELIVERED: "TEXT_DELIVERED",
    },
    Channel.VOICE: {
        Stage.UNDERWAY: "VOICE_RINGING",
        Stage.ODD: "VOICE_SANDBOX_UNHEARD_OF",
        Stage.FAILED: "VOICE_NO_ANSWER",
        Stage.DELIVERED: "VOICE_COMPLETED",
    },
}
NOBODY = dict.fromkeys(  # an account whose key nobody can name
    (
        "access_key_id",
        "secret_access_key",
        "region",
        "configuration_set",
        "topic_arn",
        "endpoint",
    ),
    "",
)
NOT_FINAL = frozenset({"VOICE_RINGING", "TEXT_SANDBOX_UNHEARD_OF", "VOICE_SANDBOX_UNHEARD_OF"})

_IDENTITY = re.compile(r"[A-Za-z0-9_:/+-]{1,256}")
_WEB = re.compile(r"https?://[^/\s]+\S*")


class Wrong(Exception):
    """A request that is refused: the error's name, why, and what narrows it down."""

    def __init__(self, code: str, message: str, *, status: int = 400, **more: object) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.status = status
        self.more = more


@dataclass(frozen=True, slots=True)
class Submission:
    """A send request, understood."""

    channel: Channel
    number: str
    text: str
    sender: str | None
    context: Mapping[str, str] | None
    events: bool  # it names the configuration set


def routes(carrier: Carrier) -> list[Route]:
    """Both APIs and what SNS serves to everyone."""
    service = _Service(carrier)
    return [
        Route(API, service.messaging, methods=["POST"]),
        Route(SNS, service.sns, methods=["POST"]),
        Route(SNS, service.confirm, methods=["GET"]),
        Route(f"{SNS}{{name}}", service.certificate, methods=["GET"]),
    ]


class _Service:
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._account = account = carrier.settings.accounts.get("aws", NOBODY)
        self._topic = Topic(
            account["topic_arn"],
            account["endpoint"],
            carrier.now,
            version=account.get("signature_version", "1"),
            subscriber=account.get("callback_url"),
        )

    async def messaging(self, request: Request) -> Response:
        """End User Messaging SMS."""
        try:
            body = await self._let_in(request, "sms-voice")
            return await self._called(request.headers, _object(body))
        except Denied as denied:
            return _json({"__type": denied.denial.value[0], "message": denied.message}, 403)
        except Wrong as wrong:
            named = {"__type": f"{SPACE}{wrong.code}", "Message": wrong.message, **wrong.more}
            return _json(named, wrong.status)

    async def sns(self, request: Request) -> Response:
        """SNS, by the Query protocol."""
        try:
            body = await self._let_in(request, "sns")
            return await self._asked(dict(parse_qsl(body.decode(errors="replace"))))
        except Denied as denied:
            return _xml_error(denied.denial.value[1], denied.message, 403)
        except Wrong as wrong:
            return _xml_error(wrong.code, wrong.message, wrong.status)

    async def confirm(self, request: Request) -> Response:
        """The visit to a SubscribeURL: whoever has the token may."""
        asked = request.query_params
        if asked.get("Action") != "ConfirmSubscription":
            return _xml_error("InvalidAction", "The action is not known.", 400)
        subscription = self._topic.confirm(asked.get("TopicArn", ""), asked.get("Token", ""))
        if subscription is None:
            return _xml_error("InvalidParameter", "Invalid parameter: Token", 400)
        return _xml("ConfirmSubscription", f"<SubscriptionArn>{subscription}</SubscriptionArn>")

    async def certificate(self, request: Request) -> Response:
        """What signatures are checked with."""
        if request.path_params["name"] != self._topic.certificate:
            return _xml_error("NotFound", "There is no such certificate.", 404)
        return Response(self._topic.pem, media_type="application/x-pem-file")

    async def _let_in(self, request: Request, service: str) -> bytes:
        """The body of a request that the account has signed."""
        body = await request.body()
        aws_signature.check(request, body, self._account, service, self._carrier.now())
        return body

    async def _called(self, headers: Headers, fields: Mapping[str, object]) -> Response:
        if headers.get("content-type") != "application/x-amz-json-1.0":
            raise Wrong("SerializationException", "The content type is not that of JSON 1.0.")
        match headers.get("x-amz-target", "").split("."):
            case "PinpointSMSVoiceV2", "SendTextMessage":
                return await self._send(Channel.SMS, fields)
            case "PinpointSMSVoiceV2", "SendVoiceMessage":
                return await self._send(Channel.VOICE, fields)
            case "PinpointSMSVoiceV2", "DescribeAccountAttributes":
                tier = {"Name": "ACCOUNT_TIER", "Value": "PRODUCTION"}
                return _json({"AccountAttributes": [tier]})
        raise Wrong("UnknownOperationException", "The operation is not known.")

    async def _asked(self, form: Mapping[str, str]) -> Response:
        match form.get("Action"), form.get("Version"):
            case "Publish", "2010-03-31":
                return await self._publish(form)
            case "Subscribe", "2010-03-31":
                return await self._subscribe(form)
            case "GetSMSSandboxAccountStatus", "2010-03-31":
                return _xml("GetSMSSandboxAccountStatus", "<IsInSandbox>false</IsInSandbox>")
        raise Wrong("InvalidAction", "The action or version is not known.")

    async def _send(self, channel: Channel, fields: Mapping[str, object]) -> Response:
        submission = parse(channel, fields, self._account["configuration_set"])
        message, answer = self._add(submission)
        if not answer.accepts:
            _refuse(answer)
        write = self._writer(submission, message)
        story = self._carrier.play(message, write, AGAIN, words=WORDS[channel])
        return await self._carrier.give(answer, _json({"MessageId": message.id}), [story])

    async def _publish(self, form: Mapping[str, str]) -> Response:
        text, number = form.get("Message", ""), form.get("PhoneNumber", "")
        if not E164.fullmatch(number):
            raise Wrong("InvalidParameter", f"Invalid parameter: PhoneNumber Reason: {number}")
        if not 1 <= len(text) <= MAX_TEXT[Channel.SMS]:
            raise Wrong("InvalidParameter", "Invalid parameter: Message too long or empty")
        sender = _attributes(form).get("AWS.SNS.SMS.SenderID")
        message, answer = self._add(
            Submission(Channel.SMS, number, text, sender, None, events=False)
        )
        if not answer.accepts:
            _refuse_publish(answer)
        story = self._carrier.play(message, None, words=WORDS[Channel.SMS])
        response = _xml("Publish", f"<MessageId>{message.id}</MessageId>")
        return await self._carrier.give(answer, response, [story])

    async def _subscribe(self, form: Mapping[str, str]) -> Response:
        """Only what comes back to SubscribeURL makes it a subscription."""
        url, kind = form.get("Endpoint", ""), form.get("Protocol", "")
        if form.get("TopicArn") != self._topic.arn:
            raise Wrong("NotFound", "Topic does not exist", status=404)
        if kind not in {"http", "https"} or not _WEB.fullmatch(url) or url.split(":")[0] != kind:
            raise Wrong("InvalidParameter", "Invalid parameter: Endpoint or Protocol")
        await self._carrier.post(self._topic.offer(url, secrets.token_hex(32), _new_id()))
        return _xml("Subscribe", "<SubscriptionArn>pending confirmation</SubscriptionArn>")

    def _add(self, submission: Submission) -> tuple[Message, Answer]:
        behaviour, answer = self._carrier.decide(submission.number, submission.channel)
        context = submission.context or {}
        message = Message(
            id=_new_id(),
            channel=submission.channel,
            number=submission.number,
            text=submission.text,
            sender=submission.sender,
            at=self._carrier.now(),
            client_ref=next(iter(context.values()), None),
            behaviour=behaviour,
            answer=answer,
        )
        return self._carrier.phones.add(message), answer

    def _writer(self, submission: Submission, message: Message) -> Write | None:
        topic = self._topic
        if topic.subscriber is None or not submission.events:
            return None
        url = topic.subscriber

        def write(word: str, at: datetime) -> Letter:
            content = orjson.dumps(_event(submission, message, word, at)).decode()
            return topic.notification(url, str(uuid5(NAMESPACE_URL, message.id + word)), content)

        return write


def parse(channel: Channel, fields: Mapping[str, object], configuration_set: str) -> Submission:
    """What is asked for. Raises Wrong."""
    number, text = fields.get("DestinationPhoneNumber"), fields.get("MessageBody")
    if not isinstance(number, str) or not E164.fullmatch(f"+{number.removeprefix('+')}"):
        _invalid("DestinationPhoneNumber")
    if not isinstance(text, str) or not 1 <= len(text.strip()) <= MAX_TEXT[channel]:
        _invalid("MessageBody")
    sender = fields.get("OriginationIdentity")
    if sender is None and channel is Channel.VOICE:
        _invalid("OriginationIdentity")
    if sender is not None and not (isinstance(sender, str) and _IDENTITY.fullmatch(sender)):
        _invalid("OriginationIdentity")
    life = fields.get("TimeToLive", 5)
    if type(life) is not int or not 5 <= life <= 259_200:
        _invalid("TimeToLive")
    if fields.get("MessageType", "TRANSACTIONAL") not in {"TRANSACTIONAL", "PROMOTIONAL"}:
        _invalid("MessageType")
    named = fields.get("ConfigurationSetName")
    if named not in {None, configuration_set}:
        raise Wrong(
            "ResourceNotFoundException", "No such resource.", ResourceType="configuration-set"
        )
    context = _context(fields.get("Context"))
    return Submission(
        channel, f"+{number.removeprefix('+')}", text, sender, context, named is not None
    )


def _context(context: object) -> Mapping[str, str] | None:
    if context is None:
        return None
    if not isinstance(context, dict) or len(context) > 5:
        _invalid("Context")
    for key, value in context.items():
        if not (isinstance(value, str) and 1 <= len(value) <= 800 and 1 <= len(key) <= 100):
            _invalid("Context")
    return context


def _invalid(field: str) -> NoReturn:
    message = f"1 validation error detected: {field} is not as it must be."
    fields = [{"Name": field, "Message": message}]
    raise Wrong("ValidationException", message, Reason="FIELD_VALIDATION_FAILED", Fields=fields)


def _refuse(answer: Answer) -> NoReturn:
    if answer is Answer.THROTTLED:
        raise Wrong("ThrottlingException", "Rate exceeded")
    if answer is Answer.ERROR:
        raise Wrong("InternalServerException", "Internal error.", status=500, RequestId=_new_id())
    reason = "DESTINATION_PHONE_NUMBER_OPTED_OUT"
    raise Wrong("ConflictException", "Destination phone number is opted out.", Reason=reason)


def _refuse_publish(answer: Answer) -> NoReturn:
    if answer is Answer.THROTTLED:
        raise Wrong("Throttling", "Rate exceeded")
    if answer is Answer.ERROR:
        raise Wrong("InternalError", "Internal error.", status=500)
    raise Wrong("OptedOut", "The phone number is opted out.")


def _event(submission: Submission, message: Message, word: str, at: datetime) -> dict[str, object]:
    channel, _, status = word.partition("_")
    event: dict[str, object] = {
        "eventType": word,
        "eventVersion": "1.0",
        "eventTimestamp": _milliseconds(at),
        "isFinal": word not in NOT_FINAL,
        "originationPhoneNumber": submission.sender or "+12065550152",
        "destinationPhoneNumber": submission.number,
        "messageId": message.id,
        "messageRequestTimestamp": _milliseconds(message.at),
        "messageStatus": status,
        "messageStatusDescription": f"Simulated: {status.lower()}",
    }
    for prefix, country in COUNTRIES.items():
        if submission.number.startswith(prefix):
            event["isoCountryCode"] = country
    if submission.context is not None:
        event["context"] = submission.context
    if channel == "TEXT":
        price = {"totalMessageParts": 1, "totalMessagePrice": PRICE, "totalCarrierFee": 0.0}
        event |= {"messageEncoding": "GSM", "messageType": "TRANSACTIONAL", **price}
    return event


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _attributes(form: Mapping[str, str]) -> dict[str, str]:
    """MessageAttributes, which the Query protocol numbers."""
    found = {}
    for number in range(1, 11):
        entry = f"MessageAttributes.entry.{number}"
        if f"{entry}.Name" in form:
            found[form[f"{entry}.Name"]] = form.get(f"{entry}.Value.StringValue", "")
    return found


def _object(body: bytes) -> Mapping[str, object]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise Wrong("SerializationException", "The body is not a JSON object.")
    return fields


def _json(body: Mapping[str, object], status: int = 200) -> Response:
    headers = {"x-amzn-RequestId": _new_id()}
    return Response(orjson.dumps(body), status, headers, "application/x-amz-json-1.0")


def _xml(action: str, result: str) -> Response:
    text = (
        f'<{action}Response xmlns="{XMLNS}"><{action}Result>{result}</{action}Result>'
        f"<ResponseMetadata><RequestId>{_new_id()}</RequestId></ResponseMetadata></{action}Response>"
    )
    return Response(text, media_type="text/xml")


def _xml_error(code: str, message: str, status: int) -> Response:
    fault = "Sender" if status < 500 else "Receiver"
    text = (
        f'<ErrorResponse xmlns="{XMLNS}"><Error><Type>{fault}</Type><Code>{code}</Code>'
        f"<Message>{escape(message)}</Message></Error><RequestId>{_new_id()}</RequestId>"
        "</ErrorResponse>"
    )
    return Response(text, status, media_type="text/xml")


def _new_id() -> str:
    return str(uuid4())
