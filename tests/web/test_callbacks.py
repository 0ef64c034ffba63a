"""/otp/delivered: who may say what became of a message, and what is left behind when not (F34,
F35).
"""

import dataclasses
import hashlib
import hmac
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import orjson
import pytest
import structlog
from fakes import Clock, Submission
from rig import CALLBACK_KEY, MESSENGER_SECRET, Rig, make_settings, problem

from gateway import log
from gateway.config import Settings
from gateway.domain.keyring import Keyring
from gateway.ports import CALLBACK_LIMIT, Callback, Secret
from gateway.providers.messenger import TOLERANCE, Messenger
from gateway.providers.octopush import Octopush

SIGNATURE = "X-Messenger-Signature"


@pytest.fixture
def logs() -> Iterator[io.BytesIO]:
    """What is logged, as production would write it."""
    target = io.BytesIO()
    output = log.configure("info", target)
    output.flush = output.drain  # type: ignore[method-assign]  # no line waits
    yield target
    structlog.reset_defaults()


async def message(rig: Rig, to: str = "+33612345678", **more: Any) -> Submission:
    """One that is under way by Messenger."""
    await rig.send(to, workflow="messenger_only", **more)
    return rig.transport.submissions[-1]


async def text_message(rig: Rig, to: str = "+33612345678") -> Submission:
    """One that is under way by SMS."""
    await rig.send(to, workflow="sms_only")
    return rig.transport.submissions[-1]


def statuses(submission: Submission, *words: str) -> bytes:
    return orjson.dumps(
        {
            "statuses": [
                {"message_id": "m", "client_ref": submission.attempt_id, "status": word}
                for word in words
            ]
        }
    )


def signed(rig: Rig, raw: bytes, *, secret: str = MESSENGER_SECRET, shift: float = 0) -> str:
    """The signature header for these bytes."""
    stamp = str(int(rig.clock.now().timestamp() + shift))
    mac = hmac.new(secret.encode(), f"{stamp}.".encode() + raw, hashlib.sha256)
    return f"t={stamp},v1={mac.hexdigest()}"


def token(submission: Submission) -> str:
    return str(submission.body["callback_url"]).rpartition("/")[2]


async def post(
    rig: Rig, path: str, raw: bytes, *signatures: str, method: str = "POST"
) -> httpx.Response:
    headers = [(SIGNATURE, one) for one in signatures]
    return await rig.http.request(method, path, content=raw, headers=headers)


def receipt(rig: Rig, submission: Submission, status: str = "DELIVERED") -> bytes:
    """What Octopush posts."""
    return orjson.dumps(
        {
            "channel": "sms",
            "message_id": rig.reference_of(submission),
            "number": submission.body["recipients"][0]["phone_number"],
            "status": status,
            "delivery_date": "2026-11-21 13:00:01",
        }
    )


async def refused(rig: Rig, answer: httpx.Response, before: object) -> None:
    """A 401 that left nothing."""
    assert {} == problem(answer, 401, "callback_refused")
    assert before == rig.dump()
    await rig.settle()
    assert before == rig.dump()


# --- Accepted -----------------------------------------------------------------------------------


async def test_a_receipt_is_answered_with_an_empty_200_once_it_is_stored(rig: Rig) -> None:
    sms = await text_message(rig)
    answer = await rig.http.post(
        f"/otp/delivered/octopush/{CALLBACK_KEY}", content=receipt(rig, sms)
    )

    assert (200, b"") == (answer.status_code, answer.content)
    assert "0" == answer.headers["content-length"]
    assert ["DELIVERED"] == [one.state for one in rig.attempts(verification_of(rig))]


def verification_of(rig: Rig) -> str:
    return str(rig.reads.latest(1)[0])


async def test_a_signed_batch_is_answered_likewise(rig: Rig) -> None:
    sent = await message(rig)
    raw = statuses(sent, "sent", "delivered", "read")
    answer = await post(rig, f"/otp/delivered/messenger/{token(sent)}", raw, signed(rig, raw))

    assert (200, b"") == (answer.status_code, answer.content)
    assert ["READ"] == [one.state for one in rig.attempts(verification_of(rig))]


@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""]
)
async def test_no_content_type_is_asked_of_a_provider(rig: Rig, kind: str) -> None:
    sms = await text_message(rig)
    answer = await rig.http.post(
        f"/otp/delivered/octopush/{CALLBACK_KEY}",
        content=receipt(rig, sms),
        headers={"content-type": kind},
    )

    assert 200 == answer.status_code
    assert ["DELIVERED"] == [one.state for one in rig.attempts(verification_of(rig))]


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"not json", b"\xff\xfe", b"[" * 100_000])
async def test_a_body_nobody_can_read_is_200_and_kept_or_nothing_to_keep(
    rig: Rig, raw: bytes
) -> None:
    """The key was right: a provider that is told no would only repeat it."""
    await text_message(rig)
    before = rig.attempts(verification_of(rig))
    answer = await rig.http.post(f"/otp/delivered/octopush/{CALLBACK_KEY}", content=raw)

    assert (200, b"") == (answer.status_code, answer.content)
    assert before == rig.attempts(verification_of(rig))


# --- F34: a key in the URL ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/otp/delivered/octopush",
        f"/otp/delivered/octopush/{CALLBACK_KEY}x",
        f"/otp/delivered/octopush/{CALLBACK_KEY[:-1]}",
        f"/otp/delivered/octopush/{CALLBACK_KEY.upper()}",
        f"/otp/delivered/octopush/{MESSENGER_SECRET}",
        "/otp/delivered/octopush/%00",
        "/otp/delivered/octopush/%C3%A9",
        "/otp/delivered/octopush/%ED%A0%80",
        "/otp/delivered/octopush/" + "k" * 10_000,
        f"/otp/delivered/octopush?key={CALLBACK_KEY}",
    ],
)
async def test_f34_octopush_without_the_right_key_leaves_nothing(rig: Rig, path: str) -> None:
    sms = await text_message(rig)
    before = rig.dump()
    answer = await rig.http.post(path, content=receipt(rig, sms))

    await refused(rig, answer, before)


async def test_f34_a_token_of_ours_is_no_key_for_octopush(rig: Rig) -> None:
    sms = await text_message(rig)
    named = rig.attempts(verification_of(rig))[0].id
    before = rig.dump()
    answer = await rig.http.post(
        f"/otp/delivered/octopush/{rig.keyring.token(named)}", content=receipt(rig, sms)
    )

    await refused(rig, answer, before)


async def test_f34_the_key_may_not_come_in_a_header_or_body(rig: Rig) -> None:
    sms = await text_message(rig)
    before = rig.dump()
    body = orjson.loads(receipt(rig, sms)) | {"key": CALLBACK_KEY}
    answer = await rig.http.post(
        "/otp/delivered/octopush",
        content=orjson.dumps(body),
        headers={"authorization": f"Bearer {CALLBACK_KEY}", "api-key": CALLBACK_KEY},
    )

    await refused(rig, answer, before)


# --- F34: a signature ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        "absent",
        "empty",
        "twice",
        "right and empty",
        "wrong",
        "cut",
        "another provider's secret",
        "of other bytes",
        "of the parsed body",
        "no time",
        "other time",
        "upper case",
        "only spaces",
    ],
)
async def test_f34_messenger_without_the_right_signature_leaves_nothing(
    rig: Rig, wrong: str
) -> None:
    sent = await message(rig)
    raw = statuses(sent, "read") + b" "
    right = signed(rig, raw)
    signatures = {
        "absent": (),
        "empty": ("",),
        "twice": (right, right),
        "right and empty": (right, ""),
        "wrong": (right[:-1] + ("0" if right[-1] != "0" else "1"),),
        "cut": (right[:-1],),
        "another provider's secret": (signed(rig, raw, secret=CALLBACK_KEY),),
        "of other bytes": (signed(rig, raw[:-2] + b"]"),),
        "of the parsed body": (signed(rig, raw.strip()),),
        "no time": (right.partition(",")[2],),
        "other time": (right.replace("t=1", "t=2", 1),),
        "upper case": (right.upper(),),
        "only spaces": ("   ",),
    }[wrong]
    before = rig.dump()
    answer = await post(rig, f"/otp/delivered/messenger/{token(sent)}", raw, *signatures)

    await refused(rig, answer, before)


async def test_f34_each_altered_byte_of_the_body_is_seen(rig: Rig) -> None:
    sent = await message(rig)
    raw = statuses(sent, "read")
    signature = signed(rig, raw)
    path = f"/otp/delivered/messenger/{token(sent)}"
    before = rig.dump()
    for at in range(len(raw)):
        altered = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        problem(await post(rig, path, altered, signature), 401, "callback_refused")

    assert before == rig.dump()
    assert 200 == (await post(rig, path, raw, signature)).status_code


async def test_f34_each_altered_character_of_the_token_is_seen(rig: Rig) -> None:
    sent = await message(rig)
    raw = statuses(sent, "read")
    right = token(sent)
    before = rig.dump()
    for at, character in enumerate(right):
        other = "A" if character != "A" else "B"
        altered = right[:at] + other + right[at + 1 :]
        if rig.keyring.attempt_of(altered) is not None:
            continue  # of the last character two bits name nothing
        answer = await post(rig, f"/otp/delivered/messenger/{altered}", raw, signed(rig, raw))
        problem(answer, 401, "callback_refused")

    assert before == rig.dump()


@pytest.mark.parametrize("ending", ["", "=", "%3D", "/x", "%20", "A"])
async def test_f34_a_token_of_another_length_names_nothing(rig: Rig, ending: str) -> None:
    sent = await message(rig)
    raw = statuses(sent, "read")
    path = (
        f"/otp/delivered/messenger/{token(sent)}{ending}" if ending else "/otp/delivered/messenger"
    )
    before = rig.dump()
    answer = await post(rig, path, raw, signed(rig, raw))

    assert answer.status_code in {401, 404}
    assert before == rig.dump()


async def test_f34_a_token_made_with_another_key_names_nothing(rig: Rig) -> None:
    sent = await message(rig)
    raw = statuses(sent, "read")
    named = rig.attempts(verification_of(rig))[0].id
    strange = Keyring("k1", {"k1": b"x" * 32}, b"i" * 32).token(named)
    before = rig.dump()
    answer = await post(rig, f"/otp/delivered/messenger/{strange}", raw, signed(rig, raw))

    await refused(rig, answer, before)


async def test_f34_the_token_of_another_attempt_moves_neither(rig: Rig) -> None:
    """The signature covers the body and not the URL: what names one attempt and is posted to the
    other's address is kept aside."""
    one = await message(rig)
    other = await message(rig, "+33612345679")
    raw = statuses(one, "read")
    before = rig.dump()
    answer = await post(rig, f"/otp/delivered/messenger/{token(other)}", raw, signed(rig, raw))
    after = rig.dump()

    assert 200 == answer.status_code
    for table in ("attempt", "transition"):
        assert before[table] == after[table]
    assert 1 == len(after["receipt"])


async def test_f34_the_token_of_another_routes_attempt_moves_nothing(rig: Rig) -> None:
    await text_message(rig)
    strange = rig.keyring.token(rig.attempts(verification_of(rig))[0].id)
    raw = orjson.dumps({"statuses": [{"message_id": "m", "status": "read"}]})
    before = rig.dump()
    await post(rig, f"/otp/delivered/messenger/{strange}", raw, signed(rig, raw))
    after = rig.dump()

    for table in ("attempt", "transition"):
        assert before[table] == after[table]


# --- F34: no secret set -------------------------------------------------------------------------


def without_secrets(folder: Path) -> Settings:
    """The rig's settings with no callback secret anywhere."""
    settings = make_settings(folder, callback_key=())
    (messenger,) = [one for one in settings.providers if one.name == "messenger"]
    bare = Messenger(
        Messenger.Settings(
            name="messenger",
            channel="messenger",
            account="messenger",
            token=Secret("messenger-token"),
            callback_secret=(),
            base_url="https://messenger.example/v1",
        )
    )
    providers = tuple(bare if one is messenger else one for one in settings.providers)
    return dataclasses.replace(settings, providers=providers)


@pytest.fixture
async def unset(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, migrated, clock, settings=without_secrets(tmp_path)) as rig:
        yield rig


@pytest.mark.parametrize("key", ["", "/", "/None", "/()", f"/{CALLBACK_KEY}"])
async def test_f34_without_a_key_in_the_settings_no_receipt_gets_in(unset: Rig, key: str) -> None:
    sms = await text_message(unset)
    before = unset.dump()
    answer = await unset.http.post(f"/otp/delivered/octopush{key}", content=receipt(unset, sms))

    assert answer.status_code in {401, 404}
    assert before == unset.dump()


@pytest.mark.parametrize("secret", ["", "None", MESSENGER_SECRET])
async def test_f34_without_a_secret_in_the_settings_no_signature_is_right(
    unset: Rig, secret: str
) -> None:
    sent = await message(unset)
    raw = statuses(sent, "read")
    before = unset.dump()
    path = f"/otp/delivered/messenger/{token(sent)}"
    answer = await post(unset, path, raw, signed(unset, raw, secret=secret))

    await refused(unset, answer, before)


# --- F35: replay --------------------------------------------------------------------------------


async def test_f35_a_replay_within_the_tolerance_changes_nothing_but_a_count(rig: Rig) -> None:
    sent = await message(rig, ttl=600)
    raw = statuses(sent, "read")
    signature, path = signed(rig, raw), f"/otp/delivered/messenger/{token(sent)}"
    await post(rig, path, raw, signature)
    before = rig.record(verification_of(rig))
    rig.clock.advance(TOLERANCE)
    answers = [await post(rig, path, raw, signature) for _ in range(3)]
    after = rig.record(verification_of(rig))

    assert [200] * 3 == [answer.status_code for answer in answers]
    assert before.log == after.log
    assert (0, 3) == (before.attempts[0].repeats, after.attempts[0].repeats)
    assert before.attempts[0].state is after.attempts[0].state


async def test_f35_a_replay_after_the_tolerance_is_refused(rig: Rig) -> None:
    sent = await message(rig)
    raw = statuses(sent, "delivered")
    signature, path = signed(rig, raw), f"/otp/delivered/messenger/{token(sent)}"
    await post(rig, path, raw, signature)
    rig.clock.advance(TOLERANCE + 1)
    before = rig.dump()

    await refused(rig, await post(rig, path, raw, signature), before)


@pytest.mark.parametrize(
    ("shift", "status"),
    [(-TOLERANCE, 200), (-TOLERANCE - 1, 401), (TOLERANCE, 200), (TOLERANCE + 1, 401)],
)
async def test_f35_the_tolerance_holds_either_way(rig: Rig, shift: int, status: int) -> None:
    """A provider's clock may be wrong by minutes; a signature from tomorrow is no receipt."""
    sent = await message(rig)
    raw = statuses(sent, "delivered")
    signature = signed(rig, raw, shift=shift)
    answer = await post(rig, f"/otp/delivered/messenger/{token(sent)}", raw, signature)

    assert status == answer.status_code


async def test_f35_an_unsigned_receipt_again_and_again_is_one(rig: Rig) -> None:
    sms = await text_message(rig)
    raw, path = receipt(rig, sms), f"/otp/delivered/octopush/{CALLBACK_KEY}"
    answers = [await rig.http.post(path, content=raw) for _ in range(5)]
    record = rig.record(verification_of(rig))

    assert [200] * 5 == [answer.status_code for answer in answers]
    assert ["SENT", "DELIVERED"] == [row.after for row in record.log]
    assert 4 == record.attempts[0].repeats


# --- Methods, paths, size -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_provider_without_handshake_is_refused_a_get(rig: Rig, method: str) -> None:
    """The path takes GET for vendors whose callbacks or handshakes come so; for the others a right
    key or signature is not enough."""
    sms = await text_message(rig)
    sent = await message(rig, "+33612345679")
    raw = statuses(sent, "read")
    before = rig.dump()
    by_octopush = await post(
        rig, f"/otp/delivered/octopush/{CALLBACK_KEY}", receipt(rig, sms), method=method
    )
    by_messenger = await post(
        rig, f"/otp/delivered/messenger/{token(sent)}", raw, signed(rig, raw), method=method
    )

    assert (401, 401) == (by_octopush.status_code, by_messenger.status_code)
    assert before == rig.dump()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_another_method_is_405(rig: Rig, method: str) -> None:
    answer = await rig.http.request(method, f"/otp/delivered/octopush/{CALLBACK_KEY}")

    problem(answer, 405, "method_not_allowed")
    assert {"GET", "HEAD", "POST"} == set(answer.headers["allow"].split(", "))
    assert CALLBACK_KEY not in answer.text


@pytest.mark.parametrize("path", ["nobody", "nobody/key", "Octopush/key", "%00", "octopus%74/x/y"])
async def test_an_unknown_route_is_404(rig: Rig, path: str) -> None:
    answer = await rig.http.post(f"/otp/delivered/{path}", content=b"{}")

    assert 404 == answer.status_code
    assert answer.json()["code"] in {"unknown_route", "no_such_path"}


async def test_without_a_name_there_must_be_one_route_to_mean(rig: Rig) -> None:
    answer = await rig.http.post("/otp/delivered", content=b"{}")

    assert {} == problem(answer, 404, "unknown_route")


async def test_with_a_single_route_the_short_form_means_it_and_still_needs_its_key(
    tmp_path: Path, migrated: Path, clock: Clock
) -> None:
    settings = make_settings(tmp_path)
    single = tuple(one for one in settings.providers if one.name == "octopush")
    workflows = {"default": settings.workflows["sms_only"]}
    settings = dataclasses.replace(settings, providers=single, workflows=workflows)
    async with Rig(tmp_path, migrated, clock, settings=settings) as rig:
        await rig.send()
        before = rig.dump()
        answer = await rig.http.post(
            "/otp/delivered", content=receipt(rig, rig.transport.submissions[0])
        )

        await refused(rig, answer, before)


async def test_a_body_of_just_the_limit_is_read_and_one_more_is_not(rig: Rig) -> None:
    sms = await text_message(rig)
    path = f"/otp/delivered/octopush/{CALLBACK_KEY}"
    before = rig.dump()
    over = await rig.http.post(path, content=receipt(rig, sms).ljust(CALLBACK_LIMIT + 1))
    after = rig.dump()
    fitting = await rig.http.post(path, content=receipt(rig, sms).ljust(CALLBACK_LIMIT))

    assert 256 * 1024 == CALLBACK_LIMIT
    assert {} == problem(over, 413, "body_too_large")
    assert before == after
    assert 200 == fitting.status_code
    assert ["DELIVERED"] == [one.state for one in rig.attempts(verification_of(rig))]


async def test_a_route_may_take_larger_bodies(rig: Rig) -> None:
    """Meta's batches have up to 3 MB. The other routes keep their limit."""
    sms = await text_message(rig)
    raised = dataclasses.replace(rig.runtime.routes["octopush"], callback_limit=4 * CALLBACK_LIMIT)
    rig.runtime.routes["octopush"] = raised  # type: ignore[index]
    body = receipt(rig, sms).ljust(4 * CALLBACK_LIMIT)
    fitting = await rig.http.post(f"/otp/delivered/octopush/{CALLBACK_KEY}", content=body)
    over = await rig.http.post(f"/otp/delivered/octopush/{CALLBACK_KEY}", content=body + b" ")
    other = await rig.http.post(f"/otp/delivered/octopush_b/{CALLBACK_KEY}", content=body)

    assert 200 == fitting.status_code
    problem(over, 413, "body_too_large")
    problem(other, 413, "body_too_large")


async def test_a_body_that_turns_out_too_large_is_not_read_to_its_end(rig: Rig) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 4096
            yield b" " * 4096

    answer = await rig.http.post(f"/otp/delivered/octopush/{CALLBACK_KEY}", content=body())

    problem(answer, 413, "body_too_large")
    assert read <= CALLBACK_LIMIT + 8192


async def test_when_nothing_can_be_stored_the_provider_is_asked_to_come_again(rig: Rig) -> None:
    sms = await text_message(rig)
    raw = receipt(rig, sms)
    await rig.gateway.ledger.close()
    answer = await rig.http.post(f"/otp/delivered/octopush/{CALLBACK_KEY}", content=raw)

    problem(answer, 503, "closing")
    assert "1" == answer.headers["retry-after"]


# --- Secrets ------------------------------------------------------------------------------------


async def test_no_refusal_of_a_callback_repeats_its_key(rig: Rig, logs: io.BytesIO) -> None:
    sent = await message(rig)
    key = token(sent)
    raw = statuses(sent, "read")
    answers = [
        await post(rig, f"/otp/delivered/messenger/{key}", raw),
        await post(rig, f"/otp/delivered/nobody/{key}", raw),
        await post(rig, f"/otp/delivered/messenger/{key}/more", raw),
        await post(rig, f"/otp/delivered/messenger/{key}", raw, method="DELETE"),
        await post(rig, f"/otp/delivered/messenger/{key}", b" " * (CALLBACK_LIMIT + 1)),
        await post(rig, f"/otp/delivered/octopush/{key}", raw),
    ]
    parts: list[Any] = [(answer.text, answer.headers) for answer in answers]

    assert [401, 404, 404, 405, 413, 401] == [answer.status_code for answer in answers]
    assert key not in str(parts)
    assert key.encode() not in logs.getvalue()


class Defective(Octopush):
    """A provider file that stumbles over what it is given."""

    def receipts(self, callback: Callback) -> NoReturn:
        raise ValueError(f"cannot read {callback.body.decode()}")


async def test_an_unforeseen_error_logs_the_path_without_its_key_and_no_number(
    tmp_path: Path, migrated: Path, clock: Clock, logs: io.BytesIO
) -> None:
    settings = make_settings(tmp_path)
    defective = Defective(
        Octopush.Settings(
            name="octopush",
            channel="sms",
            account="octopush",
            api_login="ops@example.com",
            api_key=Secret("octopush-api-key"),
            callback_key=(Secret(CALLBACK_KEY),),
        )
    )
    providers = tuple(defective if p.name == "octopush" else p for p in settings.providers)
    settings = dataclasses.replace(settings, providers=providers)
    async with Rig(tmp_path, migrated, clock, settings=settings) as rig:
        before = rig.dump()
        answer = await rig.http.post(
            f"/otp/delivered/octopush/{CALLBACK_KEY}",
            content=b'{"number": "+33612345678", "text": "83051746 or 8 3 0 5 1 7 4 6"}',
        )
        after = rig.dump()
    (line,) = [one for one in logs.getvalue().splitlines() if b"unforeseen" in one]

    assert {} == problem(answer, 500, "internal_error")
    assert before == after
    assert "/otp/delivered/octopush" == orjson.loads(line)["path"]
    assert b"ValueError" in line
    for secret in (CALLBACK_KEY, "612345678", "83051746", "8 3 0 5"):
        assert secret.encode() not in line
        assert secret not in answer.text
