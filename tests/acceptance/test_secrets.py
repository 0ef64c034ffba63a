"""F44 and F46: no code and no full number outside the message itself, and what the message says
of its life is true.

One scenario goes through everything the gateway does with a number and a code; then its logs, its
answers, and the bytes of its database and write-ahead log are searched. Codes have nine and ten
digits, so that nothing looks like one by chance.
"""

import asyncio
import hashlib
import io
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import structlog
from fakes import Clock, FakeTransport, Submission, answering, raising
from rig import CALLBACK_KEY, MESSENGER_SECRET, Rig

from gateway import log
from gateway.domain.verification import COOL_DOWN
from gateway.ports import Lost, NotSent, Response

NUMBERS = ("+33612345678", "+4915123456789", "+12015550123", "+33698765432", "+447400123456")
OWN_CODE = "8305174629"


@dataclass
class Heard:
    """Everything that left the gateway on the caller's side, and all it logged."""

    answers: list[tuple[str, bytes]] = field(default_factory=list)
    log: io.BytesIO = field(default_factory=io.BytesIO)


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    output = log.configure("debug", made.log)
    output.flush = output.drain  # type: ignore[method-assign]  # no line waits
    yield made
    structlog.reset_defaults()


@pytest.fixture
async def world(tmp_path: Path, migrated: Path, clock: Clock, heard: Heard) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, migrated, clock) as rig:

        async def note(response: httpx.Response) -> None:
            await response.aread()
            head = str(response.headers.raw)
            heard.answers.append((f"{response.request.url.path} {head}", response.content))

        rig.http.event_hooks["response"] = [note]
        yield rig


def spellings(secret: str) -> set[str]:
    """How a number or a code may be written: plain, or with something between its digits."""
    digits = secret.lstrip("+")
    spelled = {secret, digits}
    for start in range(1, 4):  # a country code, or none, set apart
        spelled.add(digits[start:])
    for text in (digits, digits[1:], digits[2:], digits[3:]):
        for mark in (" ", ", ", ". ", "-", ".", "%20", "\\u0020"):
            spelled.add(mark.join(text))
            for size in (2, 3):
                spelled.add(mark.join(text[at : at + size] for at in range(0, len(text), size)))
    return spelled


def found(secrets: set[str], places: dict[str, bytes]) -> list[tuple[str, str]]:
    """Where which secret stands in the clear."""
    words = {spelled for secret in secrets for spelled in spellings(secret)}
    return [
        (place, word)
        for place, content in places.items()
        for word in words
        if word.encode() in content or word.encode("utf-16-le") in content
    ]


def files(rig: Rig) -> dict[str, bytes]:
    """The database with everything beside it."""
    database = rig.gateway.settings.database
    return {path.name: path.read_bytes() for path in database.parent.glob(f"{database.name}*")}


def codes(rig: Rig) -> set[str]:
    """What every handset has been shown."""
    return {one.code for one in rig.transport.submissions if "voice" not in one.path}


async def everything(rig: Rig) -> None:
    """What the gateway does with numbers and codes, once or more each."""
    await delivered_and_verified(rig)
    await refused_by_a_talkative_provider(rig)
    await fallen_back_and_canceled(rig)
    await own_code_over_all_channels(rig)
    await lost_and_spoken_of(rig)
    await receipts_that_do_not_fit(rig)
    await mistakes(rig)


async def delivered_and_verified(rig: Rig) -> None:
    sent = await rig.send("+33 6 12 34 56 78", workflow="sms", code_length=10, reference="o-1")
    (sms,) = rig.transport.submissions
    for word in ("ACK", "DELIVERED", "DELIVERED", "UNHEARD_OF"):
        await rig.octopush_receipt(sms, word)
    await rig.call("/otp/send", {"to": NUMBERS[0]})
    rig.clock.advance(COOL_DOWN)
    await rig.send("0033612345678", workflow="sms")
    await rig.verify(sent["verification_id"], "0123456789")
    await rig.verify(sent["verification_id"], sms.code)
    await rig.verify(sent["verification_id"], sms.code)
    await look(rig, sent, NUMBERS[0])


async def refused_by_a_talkative_provider(rig: Rig) -> None:
    """Its error holds the number, the text and the code, in several spellings."""

    async def talk(submission: Submission) -> Response:
        number, code = NUMBERS[1], re.sub(r"\D", "", submission.text)[:10]
        said = f"no: {number} {' '.join(number)} 0{number[3:]} {code} {', '.join(code)} "
        said += f"{submission.text} {submission.request.headers.get('api-key')}"
        error = {"code": 150, "message": said, "error": said}
        return await answering(400, error)(submission)

    rig.transport.script("messages", talk)
    rig.transport.script("campaign", *[talk] * 5)
    sent = await rig.send(NUMBERS[1], code_length=10)
    await rig.reconcile(10)
    await look(rig, sent, NUMBERS[1])
    rig.transport.scripts.clear()


async def fallen_back_and_canceled(rig: Rig) -> None:
    sent = await rig.send(NUMBERS[2], code_length=9)
    message = rig.transport.submissions[-1]
    await rig.messenger_receipt(message, "sent", "delivered")
    await rig.reconcile(120)
    await rig.reconcile(3)
    await rig.messenger_receipt(message, "read")
    await rig.call("/otp/next", {"number": NUMBERS[2]})
    await rig.settle()
    await look(rig, sent, NUMBERS[2])
    await rig.call("/otp/cancel", {"number": NUMBERS[2]})
    await rig.verify(sent["verification_id"], message.code)


async def own_code_over_all_channels(rig: Rig) -> None:
    sent = await rig.send(NUMBERS[3], code=OWN_CODE)
    for _ in range(3):
        await rig.reconcile(62)
    await rig.call("/otp/send", {"to": NUMBERS[3], "code": "7" * 10})
    await rig.verify(sent["verification_id"], OWN_CODE[:-1])
    await look(rig, sent, NUMBERS[3])
    await rig.verify(sent["verification_id"], OWN_CODE)
    await look(rig, sent, NUMBERS[3])


async def lost_and_spoken_of(rig: Rig) -> None:
    """Transport errors and a provider that answers nonsense."""
    number = NUMBERS[4]

    async def nonsense(submission: Submission) -> Response:
        return Response(200, content=f"<html>{number} {submission.text}</html>".encode())

    rig.transport.script("sms-campaign", raising(Lost("timeout", f"{number} in detail")), nonsense)
    rig.transport.script("voice-campaign", raising(NotSent("connect_error", number)))
    rig.transport.script("voice-campaign", raising(RuntimeError(f"defect at {number}")))
    sent = await rig.send(number, workflow="sms", code_length=10)
    for _ in range(4):
        await rig.reconcile(31)
    await look(rig, sent, number)


async def receipts_that_do_not_fit(rig: Rig) -> None:
    """Parked, malformed, for another number, of an unknown attempt, refused."""
    path, number = f"/otp/delivered/octopush/{CALLBACK_KEY}", NUMBERS[0]
    sms = rig.transport.to("sms-campaign")[0]
    item = {"message_id": "sms_never", "number": number, "status": "DELIVERED"}
    code = sms.code
    for raw in (
        orjson.dumps(item),
        orjson.dumps({"number": number, "text": sms.text}),
        orjson.dumps([item | {"message_id": None}, item, 17, {"x": f"{number} {code}"}]),
        f"{number} {code}".encode(),
        orjson.dumps(item | {"message_id": rig.reference_of(sms), "number": NUMBERS[3]}),
        f"number=%2B{number[1:]}&message_id=sms_later&status=DELIVERED".encode(),
    ):
        await rig.http.post(path, content=raw)
        await rig.http.post(f"{path}-wrong", content=raw)
    message = rig.transport.to("messages")[0]
    url = message.body["callback_url"]
    await rig.signed(url, {"statuses": [{"text": f"{number} {code}"}, f"{number}"]})
    await rig.signed(url, {"statuses": [{"message_id": number}]}, "wrong secret")
    await rig.signed(url, f"{number} {code}")


async def mistakes(rig: Rig) -> None:
    """Requests that are refused, with a number or a code at every place."""
    number, code = NUMBERS[0], OWN_CODE
    for path in ("/otp/send", "/otp/status", "/otp/verify", "/otp/cancel", "/otp/next"):
        for body in (
            {"to": f"{number}0000000"},
            {"number": f"call {number}"},
            {"to": number, "code": code, "code_length": 10},
            {"to": number, "code": f"{code}99"},
            {"to": number, "workflow": number, "channel": None},
            {"to": number, "channel": code},
            {"reference": f"no such {code}"},
            {"verification_id": code, "code": code},
            {"to": [number], "ttl": code},
        ):
            await rig.call(path, body)
        await rig.http.post(path, content=f'{{"to": "{number}", {code}'.encode())
    for params in ({"number": number}, {"reference": [code, number]}, {"verification_id": code}):
        headers = {"authorization": f"Bearer {rig.key}"}
        await rig.http.get("/otp/status", params=params, headers=headers)


async def look(rig: Rig, sent: dict[str, Any], number: str) -> None:
    """At all that is told of it."""
    answer = await rig.call("/otp/status", {"number": number, "history": 50})
    headers = {"authorization": f"Bearer {rig.key}"}
    named = {"verification_id": sent["verification_id"]}
    await rig.http.get("/otp/status", params=named, headers=headers)

    assert 200 == answer.status_code


# --- F44 ----------------------------------------------------------------------------------------


async def test_f44_no_code_and_no_number_is_logged_answered_or_stored_in_the_clear(
    world: Rig, heard: Heard
) -> None:
    await everything(world)
    stored = files(world)
    places = {"log": heard.log.getvalue(), **stored}
    places |= {f"{at}: {path}": content for at, (path, content) in enumerate(heard.answers)}
    places["headers"] = "\n".join(path for path, _ in heard.answers).encode()

    assert {"gateway.db", "gateway.db-wal"} <= stored.keys()
    assert len(codes(world)) >= 5
    assert len(heard.answers) > 100
    assert [] == found({*NUMBERS, *codes(world)}, places)


async def test_f44_nor_any_key(world: Rig, heard: Heard) -> None:
    await everything(world)
    tokens = {
        str(one.body["callback_url"]).rpartition("/")[2] for one in world.transport.to("messages")
    }
    secrets = {world.key, CALLBACK_KEY, MESSENGER_SECRET, "octopush-api-key", "messenger-token"}
    log_and_answers = heard.log.getvalue() + b"".join(content for _, content in heard.answers)
    everywhere = log_and_answers + b"".join(files(world).values())

    assert [] == [one for one in secrets | tokens if one.encode() in everywhere]
    assert [] == [one for one in (b"1" * 32, b"i" * 32) if one in everywhere]


async def test_f44_the_scenario_is_logged_step_by_step(world: Rig, heard: Heard) -> None:
    """Nothing is hidden by being silent: each line has its ids, and each step its line."""
    await everything(world)
    lines = [orjson.loads(line) for line in heard.log.getvalue().splitlines()]
    events = {line["event"] for line in lines}

    assert {
        "verification_accepted",
        "attempt_heard",
        "check_failed",
        "check_passed",
        "verification_ended",
        "receipt_kept",
    } <= events
    assert all(
        "verification_id" in line
        for line in lines
        if line["event"].startswith(("verification_", "check_", "attempt_"))
    )
    assert "+33 6•• ••• •78" in {line.get("recipient") for line in lines}


async def test_f44_without_the_keyring_a_dump_reveals_nothing(world: Rig) -> None:
    """Neither in the clear nor as a hash that somebody could try all numbers or codes against."""
    await everything(world)
    cells = {cell for rows in world.dump().values() for row in rows for cell in row}
    blobs = [cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells]
    everything_stored = b"\n".join(blobs)
    hashes = set()
    for secret in {*NUMBERS, *codes(world)}:
        for text in (secret, secret.lstrip("+"), f"phone\0{secret}"):
            for name in ("md5", "sha1", "sha256", "sha512", "blake2b"):
                hashes.add(hashlib.new(name, text.encode()).digest()[:8])

    assert [] == found({*NUMBERS, *codes(world)}, {"dump": everything_stored})
    assert [] == [one for one in hashes if one in everything_stored]
    assert [] == [one for one in hashes if one.hex().encode() in everything_stored]


async def test_f44_equal_numbers_look_unlike_but_for_the_index(world: Rig) -> None:
    first = await world.send(workflow="sms_only", code=OWN_CODE)
    await world.reconcile(300)
    second = await world.send(workflow="sms_only", code=OWN_CODE)
    one, other = (world.record(sent["verification_id"]).verification for sent in (first, second))

    assert one.recipient_index == other.recipient_index
    assert one.recipient_sealed != other.recipient_sealed
    assert one.salt != other.salt


@pytest.mark.parametrize(
    "text",
    ["+33612345678", "33612345678", "612345678", "6 12 34 56 78", "+33 6-12-34-56-78", OWN_CODE,
     "8, 3, 0, 5, 1, 7, 4, 6, 2, 9", "830-517-462-9", "83 05 17 46 29"],
)  # fmt: skip
def test_f47_the_search_finds_a_number_and_a_code_in_any_spelling(text: str) -> None:
    places = {"here": b"\x00word" + text.encode() + b"word\xff", "there": b"+33 6\xe2\x80\xa2 78"}

    assert {"here"} == {place for place, _ in found({NUMBERS[0], OWN_CODE}, places)}


# --- F46 ----------------------------------------------------------------------------------------


def promised(text: str) -> int:
    """Seconds of life the text speaks of."""
    spoken = re.findall(r"valid for (\d+) (second|minute)s?\b", text)

    assert spoken
    assert 1 == len(set(spoken))
    amount, unit = spoken[0]
    return int(amount) * (60 if unit == "minute" else 1)


class Promises:
    """What each text said, and how much life was left when it left us."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.pairs: list[tuple[int, float]] = []

    async def __call__(self, submission: Submission) -> Response:
        (running,) = self._rig.reads.records(self._rig.reads.latest(1))
        left = running.verification.expires_at - self._rig.clock.now()
        self.pairs.append((promised(submission.text), left.total_seconds()))
        return FakeTransport().accept(submission)


@pytest.mark.parametrize("ttl", [300, 301, 359, 360, 599, 600])
async def test_f46_no_text_promises_more_life_than_is_left(world: Rig, ttl: int) -> None:
    """First attempt, fallbacks, resends and a retry each tell their own."""
    promises = Promises(world)
    slow_down = answering(429, {"code": 0, "message": "slow down"})
    world.transport.script("messages", promises)
    world.transport.script("sms-campaign", slow_down, *[promises] * 9)
    world.transport.script("voice-campaign", *[promises] * 9)
    await world.send(ttl=ttl)
    await world.reconcile(120.5)
    await world.reconcile(3)
    await world.reconcile(1.25)
    world.clock.advance(40)
    await world.send()
    await world.reconcile(61)
    world.clock.advance(33.333)
    await world.send()

    assert len(promises.pairs) >= 5
    for said, left in promises.pairs:
        assert said <= left
        assert left - said < 60


async def test_f46_below_a_minute_seconds_are_told(world: Rig) -> None:
    promises = Promises(world)
    world.transport.script("sms-campaign", *[promises] * 9)
    await world.send(workflow="sms_only", ttl=60)
    world.clock.advance(29.5)
    early = await world.call("/otp/send", {"to": NUMBERS[0]})
    world.clock.advance(0.5)
    await world.send(workflow="sms_only")

    assert 429 == early.status_code
    assert [(60, 60.0), (30, 30.0)] == promises.pairs


async def test_f46_many_at_once_each_tell_their_own(world: Rig) -> None:
    """The life is the request's, not a setting's."""
    ttls = [60, 90, 119, 120, 121, 300, 600]
    calls = [
        world.call("/otp/send", {"to": f"+336123456{at:02}", "workflow": "sms_only", "ttl": ttl})
        for at, ttl in enumerate(ttls)
    ]
    await asyncio.gather(*calls)
    await world.settle()
    said = [promised(submission.text) for submission in world.transport.submissions]

    assert [60, 60, 60, 120, 120, 300, 600] == sorted(said)
