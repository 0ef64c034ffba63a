"""The magic numbers: what a number does to a message sent to it.

+33600MMSSVV: MM is what the messenger (WhatsApp, Telegram, Viber, RCS) does, SS the SMS, VV the
voice call. Of a mail address the two digits before the @ count: anna.03@example.com. Every other
number or address, and every pair of digits without a row, behaves like 00. The table below is the
whole truth: the page prints it, the tests walk it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Channel(StrEnum):
    """Where a message travels."""

    MESSENGER = "messenger"
    WHATSAPP = "whatsapp"
    TELEGRAM = "telegram"
    VIBER = "viber"
    RCS = "rcs"
    SMS = "sms"
    VOICE = "voice"
    EMAIL = "email"


class Stage(StrEnum):
    """What can become of a message, in the sandbox's own words; each further than those above."""

    UNDERWAY = "underway"
    ODD = "odd"  # said in a word that no documentation names
    FAILED = "failed"
    DELIVERED = "delivered"
    READ = "read"

    @property
    def arrived(self) -> bool:
        """Whether the handset has it."""
        return self in {Stage.DELIVERED, Stage.READ}

    @property
    def rank(self) -> int:
        """How far this is."""
        return tuple(Stage).index(self)


class Answer(StrEnum):
    """How the send call is answered."""

    AT_ONCE = "at_once"
    AFTER_RECEIPTS = "after_receipts"
    HELD = "held"  # accepted, answered after `hang` seconds
    DROPPED = "dropped"  # accepted, the connection breaks in the middle of the answer
    THROTTLED = "throttled"  # 429, Retry-After: 1
    ERROR = "error"  # 500
    REFUSED = "refused"  # for good

    @property
    def accepts(self) -> bool:
        """Whether the message is taken, whatever the caller gets to hear of it."""
        return self not in {Answer.THROTTLED, Answer.ERROR, Answer.REFUSED}


class Behaviour(StrEnum):
    """The two digits."""

    DELIVERED = "00"
    READ = "01"
    SILENT = "02"
    FAILED = "03"
    LATE = "04"
    DUPLICATE = "05"
    REORDERED = "06"
    EARLY = "07"
    THROTTLED = "08"
    ERROR = "09"
    HANG = "10"
    DROP = "11"
    REFUSED = "12"
    ACK_ONLY = "13"
    CONTRADICTORY = "14"
    UNKNOWN_WORD = "15"


@dataclass(frozen=True, slots=True)
class Row:
    """One behaviour. A channel leaves out the stages it has no word for."""

    does: str
    stages: tuple[Stage, ...] = (Stage.UNDERWAY, Stage.DELIVERED)
    answer: Answer = Answer.AT_ONCE
    copies: int = 1  # of each receipt
    held_back: int | None = None  # which receipt waits `late` seconds more


TABLE: dict[Behaviour, Row] = {
    Behaviour.DELIVERED: Row("Delivered."),
    Behaviour.READ: Row(
        "Delivered, then read (messenger; SMS and voice as 00).",
        (Stage.UNDERWAY, Stage.DELIVERED, Stage.READ),
    ),
    Behaviour.SILENT: Row("Accepted, then nothing, ever.", ()),
    Behaviour.FAILED: Row("Accepted, then reported as failed.", (Stage.FAILED,)),
    Behaviour.LATE: Row("Delivered, late.", held_back=0),
    Behaviour.DUPLICATE: Row("Delivered; each receipt comes three times.", copies=3),
    Behaviour.REORDERED: Row(
        "Delivered; receipts come in reverse order.", (Stage.DELIVERED, Stage.UNDERWAY)
    ),
    Behaviour.EARLY: Row(
        "Delivered; all receipts come before the send call is answered.",
        answer=Answer.AFTER_RECEIPTS,
    ),
    Behaviour.THROTTLED: Row(
        "Refused twice with 429 and Retry-After: 1, then delivered.", answer=Answer.THROTTLED
    ),
    Behaviour.ERROR: Row("Answered with 500, always; nothing is sent.", (), Answer.ERROR),
    Behaviour.HANG: Row("Delivered, but the send call hangs.", answer=Answer.HELD),
    Behaviour.DROP: Row(
        "Delivered, but the connection breaks before the send call is answered.",
        answer=Answer.DROPPED,
    ),
    Behaviour.REFUSED: Row("Refused for good.", (), Answer.REFUSED),
    Behaviour.ACK_ONLY: Row(
        "Reported as on its way, then nothing (voice has no such word: silent).",
        (Stage.UNDERWAY,),
    ),
    Behaviour.CONTRADICTORY: Row(
        "Reported as failed, afterwards as delivered.", (Stage.FAILED, Stage.DELIVERED)
    ),
    Behaviour.UNKNOWN_WORD: Row(
        "Reported in a word no documentation names; delivered late.",
        (Stage.ODD, Stage.DELIVERED),
        held_back=1,
    ),
}

# The words of the first two vendors; the others bring their own.
WORDS: dict[Channel, dict[Stage, str]] = {
    Channel.MESSENGER: {
        Stage.UNDERWAY: "sent",
        Stage.ODD: "sandbox_unheard_of",
        Stage.FAILED: "failed",
        Stage.DELIVERED: "delivered",
        Stage.READ: "read",
    },
    Channel.SMS: {
        Stage.UNDERWAY: "ACK",
        Stage.ODD: "SANDBOX_UNHEARD_OF",
        Stage.FAILED: "NOT_DELIVERED",
        Stage.DELIVERED: "DELIVERED",
    },
    Channel.VOICE: {
        Stage.ODD: "SANDBOX_UNHEARD_OF",
        Stage.FAILED: "NOT_DELIVERED",
        Stage.DELIVERED: "DELIVERED",
    },
}

E164 = re.compile(r"\+[1-9][0-9]{6,14}")
MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}")
THROTTLED_REQUESTS = 2

_MAGIC = re.compile(r"\+33600([0-9]{2})([0-9]{2})([0-9]{2})")
_MAGIC_MAIL = re.compile(r"[^@]*([0-9]{2})@[^@]+")
_PLACE = {Channel.SMS: 2, Channel.VOICE: 3}  # all others are chats: 1
_KNOWN = frozenset(Behaviour)


@dataclass(frozen=True, slots=True)
class Step:
    """One receipt: what it says, seconds after the step before it, and how many times."""

    stage: Stage
    word: str
    after: float
    copies: int


def behaviour_of(number: str, channel: Channel) -> Behaviour:
    """What this number or address does on this channel."""
    if channel is Channel.EMAIL:
        magic, place = _MAGIC_MAIL.fullmatch(number), 1
    else:
        magic, place = _MAGIC.fullmatch(number), _PLACE.get(channel, 1)
    digits = magic[place] if magic else ""
    return Behaviour(digits) if digits in _KNOWN else Behaviour.DELIVERED


def answer_to(behaviour: Behaviour, earlier: int) -> Answer:
    """How a send call is answered after `earlier` calls for the same number and channel."""
    answer = TABLE[behaviour].answer
    if answer is Answer.THROTTLED and earlier >= THROTTLED_REQUESTS:
        return Answer.AT_ONCE
    return answer


def plan(
    behaviour: Behaviour, words: Mapping[Stage, str], *, delay: float, late: float
) -> tuple[Step, ...]:
    """The receipts of an accepted message, in the order in which they are posted. `words`: the
    vendor's own, by stage; a stage it has no word for is left out.
    """
    row = TABLE[behaviour]
    pause = 0.0 if row.answer is Answer.AFTER_RECEIPTS else delay
    return tuple(
        Step(stage, words[stage], pause + (late if place == row.held_back else 0.0), row.copies)
        for place, stage in enumerate(stage for stage in row.stages if stage in words)
    )
