"""`Idempotency-Key`: one effect and one answer for a request, however often it is sent."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest
from fakes import Gate, answering
from rig import NUMBER, Rig, problem

from gateway.domain.verification import COOL_DOWN, MAX_CHECKS, Status
from gateway.services import idempotency

DAY = 86_400
SEND = {"to": NUMBER, "workflow": "sms_only"}


async def once(
    rig: Rig, path: str, body: Any, idempotency_key: str = "k-1", *, key: str | None = None
) -> httpx.Response:
    """A POST with an Idempotency-Key; `body` may be raw bytes."""
    return await rig.http.post(
        path,
        content=body if isinstance(body, bytes) else orjson.dumps(body),
        headers={
            "content-type": "application/json",
            "authorization": f"Bearer {key or rig.key}",
            "idempotency-key": idempotency_key,
        },
    )


def same(first: httpx.Response, second: httpx.Response) -> bool:
    """Whether the second is a replay of the first: status, body, type, and marked as one."""
    marks = [one.headers.get("idempotency-replayed") for one in (first, second)]
    facts = [(one.status_code, one.content, one.headers["content-type"]) for one in (first, second)]
    return facts[0] == facts[1] and marks == [None, "true"]


async def sent(rig: Rig) -> tuple[str, str]:
    """A running verification and its code."""
    answer = await rig.send(workflow="sms")
    return answer["verification_id"], rig.transport.submissions[-1].code


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}}"


def answers(rig: Rig) -> int:
    """How many are stored."""
    return len(rig.dump()["idempotency"])


# --- The same request again ---------------------------------------------------------------------


async def test_a_send_repeated_is_answered_alike_and_sends_nothing(rig: Rig) -> None:
    """Without the key it would be 429: the cool-down has not passed."""
    first = await once(rig, "/otp/send", SEND)
    await rig.settle()
    second = await once(rig, "/otp/send", SEND)
    await rig.settle()

    assert (202, True) == (first.status_code, same(first, second))
    assert 1 == len(rig.transport.submissions)


async def test_a_right_check_repeated_is_the_stored_200(rig: Rig) -> None:
    """Without the key the second is 409: the caller whose connection broke would tell the person
    that the code was wrong."""
    verification_id, code = await sent(rig)
    body = {"verification_id": verification_id, "code": code}
    first = await once(rig, "/otp/verify", body)
    second = await once(rig, "/otp/verify", body)

    assert (200, True) == (first.status_code, same(first, second))
    problem(await rig.verify(verification_id, code), 409, "already_verified")


async def test_a_wrong_check_repeated_counts_once(rig: Rig) -> None:
    verification_id, code = await sent(rig)
    body = {"verification_id": verification_id, "code": wrong(code)}
    first = await once(rig, "/otp/verify", body)
    second = await once(rig, "/otp/verify", body)

    assert same(first, second)
    assert 4 == problem(first, 404, "wrong_code")["checks_left"]
    assert 1 == rig.record(verification_id).verification.checks_used


async def test_a_cancel_repeated_is_answered_alike(rig: Rig) -> None:
    verification_id, _ = await sent(rig)
    first = await once(rig, "/otp/cancel", {"verification_id": verification_id})
    second = await once(rig, "/otp/cancel", {"verification_id": verification_id})

    assert (200, True) == (first.status_code, same(first, second))


async def test_next_repeated_sends_one_step(rig: Rig) -> None:
    verification_id, _ = await sent(rig)
    first = await once(rig, "/otp/next", {"verification_id": verification_id})
    await rig.settle()
    second = await once(rig, "/otp/next", {"verification_id": verification_id})
    await rig.settle()

    assert (202, True) == (first.status_code, same(first, second))
    assert ["sms:SENT", "voice:SENT"] == rig.states(verification_id)


async def test_a_replay_tells_what_was_and_not_what_is(rig: Rig) -> None:
    """A check by number: the number has another verification by now."""
    _, code = await sent(rig)
    body = {"number": NUMBER, "code": code}
    first = await once(rig, "/otp/verify", body)
    await rig.send(workflow="sms")
    second = await once(rig, "/otp/verify", body)

    assert same(first, second)


async def test_a_replay_survives_a_restart(rig: Rig) -> None:
    key = rig.key
    first = await once(rig, "/otp/send", SEND)
    await rig.settle()
    await rig.restart()
    second = await once(rig, "/otp/send", SEND, key=key)

    assert same(first, second)


async def test_two_clients_may_use_the_same_key(rig: Rig) -> None:
    other = await rig.client("other")
    first = await once(rig, "/otp/send", SEND)
    second = await once(rig, "/otp/send", SEND, key=other)

    assert [202, 202] == [first.status_code, second.status_code]
    assert first.json()["verification_id"] != second.json()["verification_id"]


async def test_without_the_header_nothing_is_kept(rig: Rig) -> None:
    verification_id, code = await sent(rig)
    await rig.verify(verification_id, code)

    assert 0 == answers(rig)


# --- Another request with the same key ----------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/otp/send", {**SEND, "ttl": 120}),
        ("/otp/send", b'{"workflow":"sms_only","to":"+33612345678"}'),
        ("/otp/cancel", SEND),
    ],
)
async def test_another_body_or_path_is_a_mismatch(rig: Rig, path: str, body: Any) -> None:
    """Byte for byte: the same members in another order are another body."""
    await once(rig, "/otp/send", SEND)
    await rig.settle()
    before = rig.dump()
    answer = await once(rig, path, body)

    assert {} == problem(answer, 422, "idempotency_mismatch")
    assert before == rig.dump()


@pytest.mark.parametrize("given", ["", "k" * 256, "schlüssel".encode("latin-1"), b"tab\there"])
async def test_an_odd_key_is_refused(rig: Rig, given: str | bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"authorization", f"Bearer {rig.key}".encode()),
        (b"idempotency-key", given if isinstance(given, bytes) else given.encode()),
    ]
    answer = await rig.http.post("/otp/send", content=orjson.dumps(SEND), headers=headers)

    assert "Idempotency-Key" in answer.json()["detail"]
    assert {} == problem(answer, 400, "invalid_request")
    assert [] == rig.transport.submissions


# --- What is not replayed -----------------------------------------------------------------------


async def test_a_refused_body_may_be_mended_under_the_same_key(rig: Rig) -> None:
    problem(await once(rig, "/otp/send", {**SEND, "ttl": 1}), 400, "invalid_request")
    answer = await once(rig, "/otp/send", SEND)

    assert 202 == answer.status_code


async def test_a_cool_down_is_judged_anew(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    early = await once(rig, "/otp/send", SEND)
    rig.clock.advance(COOL_DOWN)
    timely = await once(rig, "/otp/send", SEND)

    problem(early, 429, "cool_down")
    assert (202, None) == (timely.status_code, timely.headers.get("idempotency-replayed"))


async def test_an_unavailable_database_is_not_remembered(rig: Rig) -> None:
    with rig.locked():
        problem(await once(rig, "/otp/send", SEND), 503, "storage")
    answer = await once(rig, "/otp/send", SEND)

    assert 202 == answer.status_code


async def test_a_check_that_compared_nothing_is_not_kept(rig: Rig) -> None:
    verification_id, code = await sent(rig)
    for _ in range(MAX_CHECKS):
        await rig.verify(verification_id, wrong(code))
    body = {"verification_id": verification_id, "code": code}
    answer = await once(rig, "/otp/verify", body)

    problem(answer, 429, "checks_used_up")
    assert 0 == answers(rig)


# --- Twins --------------------------------------------------------------------------------------


async def test_two_identical_sends_in_one_batch_are_one_verification(rig: Rig) -> None:
    """Seen to fail (202 and 429) without the look at `tx.answer` before the effect."""
    first, second = await rig.together(once(rig, "/otp/send", SEND), once(rig, "/otp/send", SEND))
    await rig.settle()

    assert (202, True) == (first.status_code, same(first, second))
    assert 1 == len(rig.transport.submissions)


async def test_two_right_checks_in_one_batch_are_both_200(rig: Rig) -> None:
    verification_id, code = await sent(rig)
    body = {"verification_id": verification_id, "code": code}
    first, second = await rig.together(
        once(rig, "/otp/verify", body), once(rig, "/otp/verify", body)
    )

    assert (200, True) == (first.status_code, same(first, second))


async def test_twins_with_other_bodies_in_one_batch_are_a_mismatch(rig: Rig) -> None:
    first, second = await rig.together(
        once(rig, "/otp/send", SEND), once(rig, "/otp/send", {**SEND, "to": "+33612345679"})
    )

    assert 202 == first.status_code
    problem(second, 422, "idempotency_mismatch")


async def test_a_twin_waits_for_the_first_and_not_for_the_provider(rig: Rig) -> None:
    gate = Gate(answering(201, {"sms_ticket": "sms_1"}))
    rig.transport.script("sms-campaign", gate)
    first, second = await asyncio.gather(once(rig, "/otp/send", SEND), once(rig, "/otp/send", SEND))
    gate.opened.set()
    await rig.settle()

    assert 202 == first.status_code
    assert first.content == second.content
    assert 1 == len(rig.transport.submissions)


async def test_twins_on_two_processes_are_one_verification(rig: Rig) -> None:
    """Both look before either has stored; the write lock orders them, and the second finds the
    answer of the first in its own transaction."""
    twin = await rig.beside()
    try:
        with rig.locked():
            calls = [
                asyncio.create_task(once(one, "/otp/send", SEND, key=rig.key))
                for one in (rig, twin)
            ]
            for one in (rig, twin):
                await rig.until(lambda r=one: r.gateway.ledger._running is not None)  # type: ignore[misc]
            await asyncio.sleep(0)
        first, second = await asyncio.gather(*calls)
        await rig.settle()
        await twin.settle()
    finally:
        await twin.stop()

    assert (202, first.content) == (first.status_code, second.content)
    assert ["true"] == [
        one.headers["idempotency-replayed"]
        for one in (first, second)
        if "idempotency-replayed" in one.headers
    ]
    assert 1 == len(rig.transport.submissions)
    assert 1 == answers(rig)


# --- What is kept, and how long -----------------------------------------------------------------


async def test_the_stored_answer_shows_nothing(rig: Rig) -> None:
    """Neither key nor body nor what was asked for is in the row."""
    answer = await once(rig, "/otp/send", {**SEND, "code": "482913"}, "order-4711")
    (row,) = rig.dump()["idempotency"]
    cells = b"|".join(one if isinstance(one, bytes) else str(one).encode() for one in row)

    for secret in ("order-4711", "482913", NUMBER[1:], answer.json()["verification_id"]):
        assert secret.encode() not in cells


async def test_after_a_day_the_key_is_new(rig: Rig) -> None:
    """Swept or not."""
    await once(rig, "/otp/send", SEND)
    await rig.settle()
    rig.clock.advance(DAY - 1)
    within = await once(rig, "/otp/send", SEND)
    rig.clock.advance(1)
    after = await once(rig, "/otp/send", SEND)
    await rig.settle()
    again = await once(rig, "/otp/send", SEND)

    assert "true" == within.headers["idempotency-replayed"]
    assert (202, None) == (after.status_code, after.headers.get("idempotency-replayed"))
    assert same(after, again)
    assert 1 == answers(rig)


async def test_the_sweep_takes_what_is_over(rig: Rig) -> None:
    await once(rig, "/otp/send", SEND, "old")
    rig.clock.advance(DAY - 10)
    await once(rig, "/otp/send", SEND, "young")
    rig.clock.advance(10)
    swept = await idempotency.sweep(rig.runtime, rig.clock.now())

    assert (1, 1) == (swept, answers(rig))
    assert 0 == await idempotency.sweep(rig.runtime, rig.clock.now())


async def test_a_key_used_anew_since_the_sweep_looked_is_not_swept(rig: Rig) -> None:
    await once(rig, "/otp/send", SEND)
    rig.clock.advance(DAY)
    keys = rig.reads.answers_before(rig.clock.now() - timedelta(days=1), 10)
    answer = await once(rig, "/otp/send", SEND)
    forgotten = await rig.runtime.ledger.submit(idempotency.Forget(tuple(keys)))

    assert (1, 202, 0) == (len(keys), answer.status_code, forgotten)
    assert 1 == answers(rig)


async def test_a_send_that_is_answered_once_runs_like_any_other(rig: Rig) -> None:
    answer = await once(rig, "/otp/send", SEND)
    await rig.settle()
    verification_id = answer.json()["verification_id"]
    code = rig.transport.submissions[0].code

    assert 200 == (await rig.verify(verification_id, code)).status_code
    assert Status.VERIFIED is rig.status(verification_id)
