"""Every magic number on every channel: how the call is answered, what is posted and when, and
what the handset gets. The tables are written out, not derived from the code's own.
"""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from sandbox.world import Rig

from gateway.sandbox import TABLE, Answer, Behaviour, Channel
from gateway.sandbox.behaviour import WORDS, behaviour_of

ODD_SMS = "SANDBOX_UNHEARD_OF"
ODD_MESSENGER = "sandbox_unheard_of"

# digits → (word, seconds after acceptance)…, has the handset got it
Told = tuple[tuple[str, float], ...]
SMS: dict[str, tuple[Told, bool]] = {
    "00": ((("ACK", 1), ("DELIVERED", 2)), True),
    "01": ((("ACK", 1), ("DELIVERED", 2)), True),
    "02": ((), False),
    "03": ((("NOT_DELIVERED", 1),), False),
    "04": ((("ACK", 9), ("DELIVERED", 10)), True),
    "05": ((*(("ACK", 1),) * 3, *(("DELIVERED", 2),) * 3), True),
    "06": ((("DELIVERED", 1), ("ACK", 2)), True),
    "07": ((("ACK", 0), ("DELIVERED", 0)), True),
    "08": ((), False),
    "09": ((), False),
    "10": ((("ACK", 1), ("DELIVERED", 2)), True),
    "11": ((("ACK", 1), ("DELIVERED", 2)), True),
    "12": ((), False),
    "13": ((("ACK", 1),), False),
    "14": ((("NOT_DELIVERED", 1), ("DELIVERED", 2)), True),
    "15": (((ODD_SMS, 1), ("DELIVERED", 10)), True),
}
VOICE: dict[str, tuple[Told, bool]] = {
    "00": ((("DELIVERED", 1),), True),
    "01": ((("DELIVERED", 1),), True),
    "02": ((), False),
    "03": ((("NOT_DELIVERED", 1),), False),
    "04": ((("DELIVERED", 9),), True),
    "05": ((("DELIVERED", 1),) * 3, True),
    "06": ((("DELIVERED", 1),), True),
    "07": ((("DELIVERED", 0),), True),
    "08": ((), False),
    "09": ((), False),
    "10": ((("DELIVERED", 1),), True),
    "11": ((("DELIVERED", 1),), True),
    "12": ((), False),
    "13": ((), False),
    "14": ((("NOT_DELIVERED", 1), ("DELIVERED", 2)), True),
    "15": (((ODD_SMS, 1), ("DELIVERED", 10)), True),
}
MESSENGER: dict[str, tuple[Told, bool]] = {
    "00": ((("sent", 1), ("delivered", 2)), True),
    "01": ((("sent", 1), ("delivered", 2), ("read", 3)), True),
    "02": ((), False),
    "03": ((("failed", 1),), False),
    "04": ((("sent", 9), ("delivered", 10)), True),
    "05": ((*(("sent", 1),) * 3, *(("delivered", 2),) * 3), True),
    "06": ((("delivered", 1), ("sent", 2)), True),
    "07": ((("sent", 0), ("delivered", 0)), True),
    "08": ((), False),
    "09": ((), False),
    "10": ((("sent", 1), ("delivered", 2)), True),
    "11": ((("sent", 1), ("delivered", 2)), True),
    "12": ((), False),
    "13": ((("sent", 1),), False),
    "14": ((("failed", 1), ("delivered", 2)), True),
    "15": (((ODD_MESSENGER, 1), ("delivered", 10)), True),
}
TOLD = {Channel.SMS: SMS, Channel.VOICE: VOICE, Channel.MESSENGER: MESSENGER}
ACCEPTED = {Channel.SMS: 201, Channel.VOICE: 201, Channel.MESSENGER: 202}
REFUSED = {"08": 429, "09": 500, "12": {Channel.MESSENGER: 404}}
CASES = [(channel, digits) for channel, rows in TOLD.items() for digits in rows]

each_channel = pytest.mark.parametrize("channel", list(WORDS))


def number_for(channel: Channel, digits: str) -> str:
    """A number that behaves so on this channel, and as 00 on the others."""
    return {
        Channel.MESSENGER: f"+33600{digits}0000",
        Channel.SMS: f"+3360000{digits}00",
        Channel.VOICE: f"+336000000{digits}",
    }[channel]


def sender(rig: Rig, channel: Channel) -> Callable[[str], Awaitable[httpx.Response]]:
    ways: dict[Channel, Callable[[str], Awaitable[httpx.Response]]] = {
        Channel.SMS: rig.sms,
        Channel.VOICE: rig.voice,
        Channel.MESSENGER: rig.messenger,
    }
    return ways[channel]


async def send(rig: Rig, channel: Channel, digits: str) -> asyncio.Task[httpx.Response]:
    """Send, and let as much happen as happens without time passing."""
    call = sender(rig, channel)(number_for(channel, digits))
    task = asyncio.ensure_future(call)
    await rig.clock.advance(0)
    return task


def test_the_tables_here_cover_every_behaviour() -> None:
    digits = [behaviour.value for behaviour in Behaviour]

    assert digits == list(TABLE) == list(SMS) == list(VOICE) == list(MESSENGER)
    assert all(row.does.endswith(".") for row in TABLE.values())


@pytest.mark.parametrize(("channel", "digits"), CASES)
async def test_a_number_decides_which_receipts_come_when(
    rig: Rig, channel: Channel, digits: str
) -> None:
    told, arrives = TOLD[channel][digits]
    task = await send(rig, channel, digits)
    await rig.run()
    await asyncio.gather(task, return_exceptions=True)

    assert told == tuple((sent.word, sent.seconds) for sent in rig.post.sent)
    assert arrives == (rig.only().arrived_at is not None)


@pytest.mark.parametrize(("channel", "digits"), CASES)
async def test_a_message_records_what_became_of_it(rig: Rig, channel: Channel, digits: str) -> None:
    told, _ = TOLD[channel][digits]
    task = await send(rig, channel, digits)
    await rig.run()
    await asyncio.gather(task, return_exceptions=True)
    message = rig.only()

    assert (number_for(channel, digits), channel, digits) == (
        message.number,
        message.channel,
        message.behaviour,
    )
    assert [(word, 200) for word, _ in told] == [(got.word, got.http) for got in message.receipts]
    assert list(dict.fromkeys(word for word, _ in told)) == [had.word for had in message.statuses]


@each_channel
@pytest.mark.parametrize(
    "digits", ["00", "01", "02", "03", "04", "05", "06", "07", "13", "14", "15"]
)
async def test_an_accepted_call_is_answered_at_once(
    rig: Rig, channel: Channel, digits: str
) -> None:
    task = await send(rig, channel, digits)

    assert task.done()
    assert ACCEPTED[channel] == task.result().status_code


@each_channel
async def test_receipts_may_all_come_before_the_answer(rig: Rig, channel: Channel) -> None:
    """The call is not answered before the last receipt is."""
    rig.post.gate = asyncio.Event()
    task = await send(rig, channel, "07")
    waiting = not task.done()
    rig.post.gate.set()
    response = await task

    assert waiting
    assert ACCEPTED[channel] == response.status_code
    assert [word for word, _ in TOLD[channel]["07"][0]] == rig.post.words


@each_channel
async def test_throttling_ends_after_two_requests(rig: Rig, channel: Channel) -> None:
    number = number_for(channel, "08")
    answers = [await sender(rig, channel)(number) for _ in range(4)]
    await rig.run()

    assert [429, 429, ACCEPTED[channel], ACCEPTED[channel]] == [a.status_code for a in answers]
    assert ["1", "1", None, None] == [a.headers.get("retry-after") for a in answers]
    assert [False, False, True, True] == [
        message.arrived_at is not None for message in rig.sandbox.messages(number)
    ]


async def test_throttling_counts_each_number_and_channel_apart(rig: Rig) -> None:
    answers = [
        await rig.sms("+33600000800"),
        await rig.sms("+33600080800"),
        await rig.messenger("+33600080800"),
        await rig.sms("+33600000800"),
        await rig.sms("+33600080800"),
        await rig.sms("+33600000800"),
    ]

    assert [429, 429, 429, 429, 429, 201] == [answer.status_code for answer in answers]


@each_channel
async def test_a_broken_server_answers_500_always(rig: Rig, channel: Channel) -> None:
    answers = [await sender(rig, channel)(number_for(channel, "09")) for _ in range(4)]
    await rig.run()

    assert [500] * 4 == [answer.status_code for answer in answers]
    assert [Answer.ERROR] * 4 == [message.answer for message in rig.sandbox.messages()]


@each_channel
async def test_a_hanging_call_is_answered_in_the_end(rig: Rig, channel: Channel) -> None:
    task = await send(rig, channel, "10")
    await rig.clock.advance(29)
    before = (task.done(), len(rig.post.sent) > 0, rig.only().arrived_at is not None)
    await rig.clock.advance(1)

    assert (False, True, True) == before
    assert ACCEPTED[channel] == task.result().status_code


@each_channel
async def test_a_dropped_connection_leaves_half_an_answer(rig: Rig, channel: Channel) -> None:
    with pytest.raises(ConnectionResetError):
        await (await send(rig, channel, "11"))

    await rig.run()

    assert rig.only().arrived_at
    assert Answer.DROPPED is rig.only().answer


@pytest.mark.parametrize(
    ("channel", "status", "body"),
    [
        (
            Channel.SMS,
            400,
            {"code": 110, "message": "You have not entered the list of recipients."},
        ),
        (Channel.VOICE, 400, {"code": 103, "message": "Your message has no recipients."}),
        (Channel.MESSENGER, 404, {"error": "not_a_user"}),
    ],
)
async def test_a_refusal_for_good(
    rig: Rig, channel: Channel, status: int, body: dict[str, object]
) -> None:
    response = (await send(rig, channel, "12")).result()

    assert (status, body) == (response.status_code, response.json())
    assert not rig.only().answer.accepts


@each_channel
@pytest.mark.parametrize(
    "number", ["+33600161616", "+33600999999", "+33601020304", "+447700900123"]
)
def test_every_other_number_delivers(number: str, channel: Channel) -> None:
    assert Behaviour.DELIVERED is behaviour_of(number, channel)


def test_each_pair_of_digits_is_for_one_channel() -> None:
    number = "+33600010203"

    assert Behaviour.READ is behaviour_of(number, Channel.MESSENGER)
    assert Behaviour.SILENT is behaviour_of(number, Channel.SMS)
    assert Behaviour.FAILED is behaviour_of(number, Channel.VOICE)


def test_the_odd_words_are_in_no_documentation() -> None:
    known = {word for words in WORDS.values() for word in words.values()} - {ODD_SMS, ODD_MESSENGER}

    assert {"ACK", "DELIVERED", "NOT_DELIVERED", "sent", "delivered", "read", "failed"} == known
