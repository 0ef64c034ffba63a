"""Octopush's receipts ("acknowledge receipt"), in the two shapes its documentation shows.

They name the request by its ticket and the recipient by number. `delivery_date` has no zone and
the vendor names none; here it is UTC.
"""

from datetime import UTC, datetime

import orjson

from gateway.sandbox.behaviour import Channel
from gateway.sandbox.carrier import Letter, Write
from gateway.sandbox.phones import Message

_CHANNELS = {Channel.SMS: "sms", Channel.VOICE: "voice_sms"}


def writer(url: str, message: Message, *, price: float, older: bool) -> Write:
    """Writes the receipts of one message; `older`: as the page on voice alone shows them."""
    shape = _older_voice if older else _current

    def write(word: str, at: datetime) -> Letter:
        said = {
            "message_id": message.id,
            "number": message.number,
            "status": word,
            "delivery_date": at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        }
        content = orjson.dumps(shape(message.channel, said, price))
        return Letter(url, content, {"Content-Type": "application/json"})

    return write


def _current(channel: Channel, said: dict[str, str], price: float) -> dict[str, object]:
    call = _call(said) if channel is Channel.VOICE else None
    meta_data = {"pressed_keys_code": "", **call} if call else {}
    return {
        "channel": _CHANNELS[channel],
        **said,
        "list_name": "",
        "unit_price": price,
        "meta_data": meta_data,
    }


def _older_voice(channel: Channel, said: dict[str, str], price: float) -> dict[str, object]:
    """No channel, no price, and numbers as strings."""
    call = {name: str(seconds) for name, seconds in _call(said).items()}
    return {**said, "pressed_keys_code": "", **call}


def _call(said: dict[str, str]) -> dict[str, int]:
    answered = said["status"] == "DELIVERED"
    return {"call_duration": 12 * answered, "charged_duration": 30 * answered}
