"""What Octopush accepts in a send request, and the words in which it refuses.

dev.octopush.com: "send SMS", "send voice SMS"; the codes are those of the page "return codes".
Fields that page does not name are ignored, as the real one does.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hmac import compare_digest

import orjson

from gateway.sandbox.answers import Refusal
from gateway.sandbox.behaviour import E164, Channel
from gateway.sandbox.settings import SandboxSettings

ERRORS = {
    100: "POST request missing.",
    101: "Incorrect login details.",
    103: "Your message has no recipients.",
    106: "Sender: 3 to 11 characters, chosen from 0 to 9, a to z, A to Z.",
    107: "The text of your message is missing.",
    108: "You have not entered your login details.",
    109: "You have not entered your API key.",
    110: "You have not entered the list of recipients.",
    112: "You have not defined the quality of your message.",
    115: "A parameter has a value that cannot be understood.",  # the number is our guess
    117: "Your recipient list contains no correct numbers.",
    119: "Your text is too long for this type of message.",
    120: "A message with the same request_id has already been sent.",
    121: 'In Premium SMS, the mention "STOP au XXXXX" is mandatory.',
    122: 'In Low Cost SMS, the mention "no PUB=STOP" is mandatory.',
}

MAX_TEXT = 1224
MAX_RECIPIENTS = 500
PREMIUM = "sms_premium"
LOW_COST = "sms_low_cost"
PURPOSES = ("alert", "wholesale")

_UNAUTHORIZED = frozenset({101, 108, 109})
_SENDER = re.compile(r"[0-9A-Za-z]{3,11}")
_CALLER = re.compile(r"\+?[0-9A-Za-z ]{3,16}")  # of a call: a number or a name
_LANGUAGE = re.compile(r"[a-z]{2}-[A-Z]{2}")
_STOP = {PREMIUM: (121, "STOP"), LOW_COST: (122, "no PUB=STOP")}
_PARAMETERS = ("first_name", "last_name", "param1", "param2", "param3", "param4", "param5")
_BOOLEANS = (
    "with_replies",
    "simulation_mode",
    "auto_optimize_text",
    "auto_remove_blacklisted_numbers",
    "recipient_tracking",
)


class Wrong(Refusal):
    """A request Octopush refuses, with its code."""

    def __init__(self, code: int) -> None:
        super().__init__(401 if code in _UNAUTHORIZED else 400, refusal(code))


@dataclass(frozen=True, slots=True)
class Campaign:
    """One of the send services: what differs between them."""

    channel: Channel
    ticket: str  # the word before "_ticket" and before the id
    types: tuple[str, ...]
    default_type: str | None


SMS = Campaign(Channel.SMS, "sms", (PREMIUM, LOW_COST), PREMIUM)
# The ticket's key on this path is unconfirmed; receipts on the vendor's pages begin with "voice_".
VOICE = Campaign(Channel.VOICE, "voice", ("voice_sms", "vocal_sms"), "voice_sms")
VOCAL = Campaign(Channel.VOICE, "vocal", ("vocal_sms",), None)  # the path of the PHP client


@dataclass(frozen=True, slots=True)
class Submission:
    """A send request, understood. `texts` has one for each recipient, parameters filled in."""

    campaign: Campaign
    type: str
    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    sender: str | None
    request_id: str | None
    simulated: bool


def refusal(code: int) -> dict[str, object]:
    """The body of a refusal."""
    return {"code": code, "message": ERRORS[code]}


def authenticate(settings: SandboxSettings, headers: Mapping[str, str]) -> None:
    """Raise Wrong unless both headers are right."""
    login, key = headers.get("api-login"), headers.get("api-key")
    if not login:
        raise Wrong(108)
    if not key:
        raise Wrong(109)
    if not (_same(login, settings.octopush_login) & _same(key, settings.octopush_key)):
        raise Wrong(101)


def parse(campaign: Campaign, headers: Mapping[str, str], body: bytes) -> Submission:
    """What is asked for. Raises Wrong."""
    fields = _fields(headers, body)
    contacts = _contacts(fields)
    numbers = tuple(number for number, _ in contacts)
    text = _text(fields)
    kind = _type(campaign, fields)
    if campaign.channel is Channel.SMS:
        _check_purpose(fields, kind, text, numbers)
    else:
        _check_voice(fields)
    _check_rest(fields)
    return Submission(
        campaign=campaign,
        type=kind,
        numbers=numbers,
        texts=tuple(_filled(text, contact) for _, contact in contacts),
        sender=_sender(campaign, fields),
        request_id=_string(fields, "request_id"),
        simulated=fields.get("simulation_mode") is True,
    )


def _same(given: str, right: str) -> bool:
    return compare_digest(given.encode(), right.encode())


def _fields(headers: Mapping[str, str], body: bytes) -> dict[str, object]:
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Wrong(100)
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Wrong(100) from None
    if not isinstance(fields, dict):
        raise Wrong(100)
    return fields


def _contacts(fields: Mapping[str, object]) -> list[tuple[str, dict[str, object]]]:
    """The recipients with a correct number; the others are left out, as the real one does."""
    recipients = fields.get("recipients")
    if not isinstance(recipients, list):
        raise Wrong(110)
    if not recipients:
        raise Wrong(103)
    if len(recipients) > MAX_RECIPIENTS:
        raise Wrong(115)
    contacts = [
        (number, contact)
        for contact in recipients
        if isinstance(contact, dict)
        and isinstance(number := contact.get("phone_number"), str)
        and E164.fullmatch(number)
    ]
    if not contacts:
        raise Wrong(117)
    return contacts


def _text(fields: Mapping[str, object]) -> str:
    text = fields.get("text")
    if not isinstance(text, str) or not text:
        raise Wrong(107)
    if len(text) > MAX_TEXT:
        raise Wrong(119)
    return text


def _type(campaign: Campaign, fields: Mapping[str, object]) -> str:
    kind = fields.get("type", campaign.default_type)
    if not isinstance(kind, str) or kind not in campaign.types:
        raise Wrong(112)
    return kind


def _check_purpose(
    fields: Mapping[str, object], kind: str, text: str, numbers: Iterable[str]
) -> None:
    """Wholesale is the default, and to France it needs a way out in the text."""
    purpose = fields.get("purpose", "wholesale")
    if purpose not in PURPOSES:
        raise Wrong(115)
    code, mention = _STOP[kind]
    french = any(number.startswith("+33") for number in numbers)
    if purpose == "wholesale" and french and mention not in text:
        raise Wrong(code)


def _check_voice(fields: Mapping[str, object]) -> None:
    if fields.get("voice_gender", "female") not in ("male", "female"):
        raise Wrong(115)
    if not _LANGUAGE.fullmatch(_string(fields, "voice_language") or "en-US"):
        raise Wrong(115)
    if fields.get("purpose", "alert") not in PURPOSES:
        raise Wrong(115)


def _check_rest(fields: Mapping[str, object]) -> None:
    """Fields that are checked but change nothing here; `send_at` is not waited for."""
    if any(not isinstance(fields.get(name, False), bool) for name in _BOOLEANS):
        raise Wrong(115)
    send_at = _string(fields, "send_at")
    try:
        datetime.fromisoformat(send_at or "2000-01-01T00:00:00Z")
    except ValueError:
        raise Wrong(115) from None


def _sender(campaign: Campaign, fields: Mapping[str, object]) -> str | None:
    shape = _SENDER if campaign.channel is Channel.SMS else _CALLER
    sender = fields.get("sender")
    if sender is None:
        return None
    if not isinstance(sender, str) or not shape.fullmatch(sender):
        raise Wrong(106)
    return sender


def _string(fields: Mapping[str, object], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise Wrong(115)
    return value


def _filled(text: str, contact: Mapping[str, object]) -> str:
    for name in _PARAMETERS:
        if isinstance(value := contact.get(name), str):
            text = text.replace(f"{{{name}}}", value)
    return text
