"""What Twilio accepts when a message or a call is created, and the words in which it refuses.

twilio.com/docs: "message resource", "call resource", "webhooks connection overrides", "error and
warning dictionary". Fields those pages do not name are ignored. TwiML that is no XML is refused
here (12100), while the real one takes the call and has nothing to say.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, parse_qsl, urlsplit

import orjson

from gateway.sandbox.answers import Refusal
from gateway.sandbox.behaviour import E164, Channel

ERRORS = {
    12100: "Document parse failure",
    20001: "Invalid parameter value",
    20003: "Authenticate",
    20404: "The requested resource was not found",
    20429: "Too Many Requests",
    20500: "Internal Server Error",
    21205: "Url parameter is required.",
    21211: "The 'To' number {} is not a valid phone number.",
    21212: "The 'From' number {} is not a valid phone number or sender ID.",
    21214: "The phone number you are attempting to call, {}, cannot be reached.",
    21217: "The phone number you are attempting to call, {}, is not valid.",
    21602: "Message body is required.",
    21603: "A 'From' phone number is required.",
    21609: "The 'StatusCallback' URL {} is not a valid URL.",
    21610: "Attempt to send to unsubscribed recipient",
    21617: "The concatenated message body exceeds the 1600 character limit.",
    21655: "The ContentSid is invalid.",
    21656: "The ContentVariables parameter is invalid.",
    21701: "The Messaging Service does not exist.",
    21910: "Twilio could not find a Channel with the specified From address",
    90007: "ValidityPeriod must be between 1 and 36000 seconds.",
}
STATUS = {20003: 401, 20404: 404, 20429: 429, 20500: 500}  # of the answer; 400 for the others

MAX_BODY = 1600
MAX_TWIML = 4000
MAX_VALIDITY = 36_000
MAX_RINGING = 600
MAX_RETRIES = 5
EVENTS = frozenset({"initiated", "ringing", "answered", "completed"})
WHATSAPP = "whatsapp:"

_SENDER = re.compile(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 &_+-]{1,11}")
_SERVICE = re.compile("MG[0-9a-fA-F]{32}")
_CONTENT = re.compile("HX[0-9a-fA-F]{32}")
_HOST = re.compile(r"[A-Za-z0-9.:-]+")  # underscores are not permitted


class Wrong(Refusal):
    """A request Twilio refuses, with its code; `about` is quoted in its words."""

    def __init__(self, code: int, about: str = "") -> None:
        super().__init__(STATUS.get(code, 400), refusal(code, about))


@dataclass(frozen=True, slots=True)
class Submission:
    """A message or a call asked for, understood. `callback` has no fragment."""

    channel: Channel
    number: str
    sender: str | None
    service: str | None
    text: str
    callback: str | None
    retries: int
    events: frozenset[str] = EVENTS  # of a call, those to tell
    detects_machines: bool = False

    @property
    def to(self) -> str:
        """The number as this API writes it."""
        return f"{WHATSAPP if self.channel is Channel.WHATSAPP else ''}{self.number}"


def refusal(code: int, about: str = "") -> dict[str, object]:
    """The body of an error."""
    body: dict[str, object] = {
        "code": code,
        "message": ERRORS[code].format(about),
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": STATUS.get(code, 400),
    }
    if code == 20003:
        body["detail"] = "Your AccountSid or AuthToken was incorrect."
    return body


def message(body: bytes) -> Submission:
    """The message that is asked for. Raises Wrong."""
    form = _Form(body)
    to, sender, service = form.one("To"), form.one("From"), form.one("MessagingServiceSid")
    if not E164.fullmatch(to.removeprefix(WHATSAPP)):
        raise Wrong(21211, to)
    chat = to.startswith(WHATSAPP)
    if not sender and not service:
        raise Wrong(21603)
    if service and not _SERVICE.fullmatch(service):
        raise Wrong(21701)
    if sender and not _SENDER.fullmatch(sender.removeprefix(WHATSAPP)):
        raise Wrong(21212, sender)
    if sender and sender.startswith(WHATSAPP) != chat:
        raise Wrong(21910)
    form.number("ValidityPeriod", MAX_VALIDITY, 90007)
    callback, retries = form.callback()
    return Submission(
        channel=Channel.WHATSAPP if chat else Channel.SMS,
        number=to.removeprefix(WHATSAPP),
        sender=sender or None,
        service=service or None,
        text=_text(form),
        callback=callback,
        retries=retries,
    )


def call(body: bytes) -> Submission:
    """The call that is asked for. Raises Wrong."""
    form = _Form(body)
    to, sender = form.one("To"), form.one("From")
    if not E164.fullmatch(to):
        raise Wrong(21217, to)
    if not E164.fullmatch(sender):
        raise Wrong(21212, sender)
    form.number("Timeout", MAX_RINGING, 20001)
    events = frozenset(form.all("StatusCallbackEvent")) or frozenset({"completed"})
    if not events <= EVENTS:
        raise Wrong(20001)
    callback, retries = form.callback()
    return Submission(
        channel=Channel.VOICE,
        number=to,
        sender=sender,
        service=None,
        text=spoken(form.one("Twiml")),
        callback=callback,
        retries=retries,
        events=events,
        detects_machines=form.one("MachineDetection") in {"Enable", "DetectMessageEnd"},
    )


def spoken(twiml: str) -> str:
    """What the person hears. Raises Wrong."""
    if not twiml:
        raise Wrong(21205)
    if len(twiml) > MAX_TWIML or "<!" in twiml:
        raise Wrong(12100)
    try:
        document = ET.fromstring(twiml)  # noqa: S314 (short, and without "<!" nothing expands)
    except ET.ParseError:
        raise Wrong(12100) from None
    said = [part.text or "" for part in document if part.tag == "Say"]
    if document.tag != "Response" or not said:
        raise Wrong(12100)
    return " ".join(said)


class _Form:
    def __init__(self, body: bytes) -> None:
        try:
            self._fields: Mapping[str, list[str]] = parse_qs(body.decode(), max_num_fields=100)
        except ValueError:
            raise Wrong(20001) from None

    def one(self, name: str) -> str:
        return self.all(name)[-1] if name in self._fields else ""

    def all(self, name: str) -> list[str]:
        return self._fields.get(name, [])

    def number(self, name: str, most: int, code: int) -> None:
        given = self.one(name)
        if given and not (re.fullmatch("[0-9]{1,6}", given) and 1 <= int(given) <= most):
            raise Wrong(code)

    def callback(self) -> tuple[str | None, int]:
        """Where to, and how often again: that is told in the fragment, which is not sent."""
        given = self.one("StatusCallback")
        if not given:
            return None, 0
        url, _, overrides = given.partition("#")
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(parts.netloc):
            raise Wrong(21609, url)
        return url, _retries(overrides)


def _retries(overrides: str) -> int:
    """By default only a connection that fails is tried again, once: here never."""
    given = dict(parse_qsl(overrides))
    count, causes = given.get("rc", "1"), set(given.get("rp", "ct").split(","))
    if not re.fullmatch("[0-9]", count) or causes.isdisjoint({"all", "5xx"}):
        return 0
    return min(int(count), MAX_RETRIES)


def _text(form: _Form) -> str:
    """The body, or what the one template there is makes of the variables."""
    if content := form.one("ContentSid"):
        if not _CONTENT.fullmatch(content):
            raise Wrong(21655)
        return f"{_variable(form.one('ContentVariables'))} is your verification code."
    body = form.one("Body")
    if not body:
        raise Wrong(21602)
    if len(body) > MAX_BODY:
        raise Wrong(21617)
    return body


def _variable(variables: str) -> str:
    try:
        values = orjson.loads(variables)
    except orjson.JSONDecodeError:
        raise Wrong(21656) from None
    if not isinstance(values, dict) or not isinstance(values.get("1"), str):
        raise Wrong(21656)
    return str(values["1"])
