"""WhatsApp, as Meta's Cloud API answers: one business number, and templates that carry a code.

    POST /whatsapp/{version}/{phone_number_id}/messages      Authorization: Bearer <token>
    GET  /whatsapp/{version}/{phone_number_id}               -> {"id": phone_number_id}

Its account (`accounts["whatsapp"]`): `token`, `phone_number_id`, `app_secret` and, for statuses to
come, `callback_url`. With `templates` (such as "otp_code:en_US otp_code:fr") only those exist.

Statuses go to the app's one URL, signed over the raw body, and echo what the message brought as
`biz_opaque_callback_data`. One that is not answered with 2xx is repeated after 1, 2 and 4 seconds
(the real one goes on for a week). The same message twice is two messages.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox.answers import Refusal, json_answer, refusing
from gateway.sandbox.behaviour import Answer, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message

NUMBER = "/whatsapp/{version}/{phone_number_id}"
BUSINESS = "102290129340398"
DISPLAYED = "15550783881"
AGAIN = (1.0, 2.0, 4.0)
MAX_CODE = 15
MAX_ECHO = 512
CHANNEL = Channel.WHATSAPP

WORDS = {
    Stage.UNDERWAY: "sent",
    Stage.ODD: "sandbox_unheard_of",
    Stage.FAILED: "failed",
    Stage.DELIVERED: "delivered",
    Stage.READ: "read",
}

# Code → HTTP status and title, as the page of error codes has them.
ERRORS = {
    100: (400, "Invalid parameter"),
    190: (401, "Invalid OAuth access token - Cannot parse access token"),
    130429: (429, "Rate limit hit"),
    131000: (500, "Something went wrong"),
    131008: (400, "Required parameter is missing"),
    131009: (400, "Parameter value is not valid"),
    131026: (400, "Message undeliverable"),
    132000: (400, "Number of parameters does not match the expected number of params"),
    132001: (404, "Template name does not exist in the translation"),
}
FAILED = 131000  # what a status of failure says; 131026 is for those who have no WhatsApp

_TO = re.compile(r"\+?([1-9][0-9]{6,14})")


class Wrong(Refusal):
    """A request that Meta refuses, with its code."""

    def __init__(self, code: int, details: str = "") -> None:
        status, title = ERRORS[code]
        super().__init__(status, refusal(code, title, details))


@dataclass(frozen=True, slots=True)
class Submission:
    """A message, understood. `to` in E.164 with its plus, `echo` what statuses give back."""

    to: str
    given: str  # the recipient, as it was written
    template: str
    language: str
    code: str
    echo: str | None


def routes(carrier: Carrier) -> list[Route]:
    """Its API."""
    service = _Service(carrier)
    return [
        Route(f"{NUMBER}/messages", refusing(service.send), methods=["POST"]),
        Route(NUMBER, refusing(service.show), methods=["GET"]),
    ]


def refusal(code: int, title: str, details: str) -> dict[str, object]:
    """The body of a refusal. `details` are said by some errors only."""
    data = {"messaging_product": "whatsapp", "details": details}
    return {
        "error": {
            "message": title if code == 190 else f"(#{code}) {title}",
            "type": "OAuthException",
            "code": code,
            **({"error_data": data} if details else {}),
            "fbtrace_id": f"A{secrets.token_urlsafe(15)}",
        }
    }


def parse(body: bytes) -> Submission:
    """What is asked for. Raises Wrong."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Wrong(100, "The body is not JSON.") from None
    if not isinstance(fields, dict) or fields.get("messaging_product") != "whatsapp":
        raise Wrong(100, "The parameter messaging_product is required.")
    if fields.get("recipient_type", "individual") != "individual":
        raise Wrong(100, "recipient_type must be individual")
    if fields.get("type") != "template":
        raise Wrong(131009, "Only templates are known here.")
    given = fields.get("to")
    number = _TO.fullmatch(given) if isinstance(given, str) else None
    if number is None:
        raise Wrong(131009, "The parameter to is not a phone number.")
    name, language, code = _template(fields.get("template"))
    return Submission(f"+{number[1]}", number[0], name, language, code, _echo(fields))


def signature(secret: str, body: bytes) -> str:
    """The value of X-Hub-Signature-256."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class _Service:
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._account = carrier.settings.accounts.get("whatsapp", {})

    async def send(self, request: Request) -> Response:
        self._authenticate(request)
        return await self._take(parse(await request.body()))

    async def show(self, request: Request) -> Response:
        self._authenticate(request)
        return json_answer({"id": self._account["phone_number_id"]})

    def _authenticate(self, request: Request) -> None:
        """Without an account every token is wrong."""
        given = request.headers.get("authorization", "").encode()
        right = f"Bearer {self._account.get('token', '')}".encode()
        if not self._account.get("token") or not hmac.compare_digest(given, right):
            raise Wrong(190)
        named = request.path_params["phone_number_id"]
        if named != self._account["phone_number_id"]:
            details = f"Object with ID '{named}' does not exist or may not be used."
            raise Wrong(100, details)

    async def _take(self, submission: Submission) -> Response:
        self._check_template(submission)
        behaviour, answer = self._carrier.decide(submission.to, CHANNEL)
        message = self._carrier.phones.add(
            Message(
                id=f"wamid.{secrets.token_urlsafe(30)}",
                channel=CHANNEL,
                number=submission.to,
                text=f"{submission.code} is your verification code.",  # Meta's wording, always
                sender=None,
                at=self._carrier.now(),
                client_ref=submission.echo,
                behaviour=behaviour,
                answer=answer,
            )
        )
        if not answer.accepts:
            return _answer_instead(answer)
        story = self._carrier.play(message, self._writer(message), AGAIN, words=WORDS)
        response = json_answer(_accepted(submission, message))
        return await self._carrier.give(answer, response, [story])

    def _check_template(self, submission: Submission) -> None:
        known = self._account.get("templates")
        template, language = submission.template, submission.language
        if known is not None and f"{template}:{language}" not in known.split():
            raise Wrong(132001, f"template name ({template}) does not exist in {language}")

    def _writer(self, message: Message) -> Write | None:
        url = self._account.get("callback_url")
        if url is None:
            return None
        account = self._account

        def write(word: str, at: datetime) -> Letter:
            # As Meta does it, in ASCII with escapes; what is signed are these bytes.
            body = _webhook(account["phone_number_id"], _status(message, word, at))
            content = json.dumps(body, separators=(",", ":")).encode()
            signed = {"X-Hub-Signature-256": signature(account["app_secret"], content)}
            return Letter(url, content, {"Content-Type": "application/json", **signed})

        return write


def _template(template: object) -> tuple[str, str, str]:
    """Name, language and code. An authentication template takes the code twice."""
    if not isinstance(template, dict) or not isinstance(template.get("name"), str):
        raise Wrong(131008, "template name is required")
    language = template.get("language")
    if not isinstance(language, dict) or not isinstance(language.get("code"), str):
        raise Wrong(131008, "template language is required")
    components = template.get("components")
    found = components if isinstance(components, list) else []
    parts = [one for one in found if isinstance(one, dict)]
    bodies = [part for part in parts if part.get("type") == "body"]
    buttons = [part for part in parts if part.get("type") == "button"]
    if len(bodies) != 1 or len(_texts(bodies[0])) != 1:
        details = "body: number of localizable_params (0) does not match the expected number (1)"
        raise Wrong(132000, details)
    if not any(_is_url(one) and len(_texts(one)) == 1 for one in buttons):
        raise Wrong(131008, "buttons: Button at index 0 of type Url requires a parameter")
    code = _texts(bodies[0])[0]
    if not 1 <= len(code) <= MAX_CODE:
        raise Wrong(131009, f"body: a code has 1 to {MAX_CODE} characters")
    return template["name"], language["code"], code


def _is_url(button: Mapping[str, object]) -> bool:
    return button.get("sub_type") == "url" and str(button.get("index")) == "0"


def _texts(component: Mapping[str, object]) -> list[str]:
    """The texts among a component's parameters."""
    parameters = component.get("parameters")
    found = parameters if isinstance(parameters, list) else []
    texts = [
        one.get("text") for one in found if isinstance(one, dict) and one.get("type") == "text"
    ]
    return [text for text in texts if isinstance(text, str)]


def _echo(fields: Mapping[str, object]) -> str | None:
    echo = fields.get("biz_opaque_callback_data")
    if echo is not None and not (isinstance(echo, str) and len(echo) <= MAX_ECHO):
        raise Wrong(100, f"biz_opaque_callback_data must be at most {MAX_ECHO} characters")
    return echo


def _accepted(submission: Submission, message: Message) -> dict[str, object]:
    number = submission.to.removeprefix("+")
    return {
        "messaging_product": "whatsapp",
        "contacts": [{"input": submission.given, "wa_id": number}],
        "messages": [{"id": message.id, "message_status": "accepted"}],
    }


def _webhook(phone_number_id: str, status: Mapping[str, object]) -> dict[str, object]:
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": DISPLAYED, "phone_number_id": phone_number_id},
        "statuses": [status],
    }
    changes = [{"value": value, "field": "messages"}]
    return {"object": "whatsapp_business_account", "entry": [{"id": BUSINESS, "changes": changes}]}


def _status(message: Message, word: str, at: datetime) -> dict[str, object]:
    status: dict[str, object] = {
        "id": message.id,
        "status": word,
        "timestamp": str(int(at.timestamp())),
        "recipient_id": message.number.removeprefix("+"),
    }
    if message.client_ref is not None:
        status["biz_opaque_callback_data"] = message.client_ref
    if word == WORDS[Stage.FAILED]:
        _, title = ERRORS[FAILED]
        data = {"details": "Message failed to send because of an unknown error."}
        status["errors"] = [{"code": FAILED, "title": title, "message": title, "error_data": data}]
    elif word in {WORDS[Stage.UNDERWAY], WORDS[Stage.DELIVERED]}:
        status["pricing"] = {
            "billable": True,
            "pricing_model": "PMP",
            "type": "regular",
            "category": "authentication",
        }
    return status


def _answer_instead(answer: Answer) -> Response:
    code = {Answer.THROTTLED: 130429, Answer.ERROR: 131000}.get(answer, 131026)
    status, title = ERRORS[code]
    headers = {"Retry-After": "1"} if answer is Answer.THROTTLED else {}
    return json_answer(refusal(code, title, f"{title}."), status, headers)
