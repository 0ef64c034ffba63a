"""GET and POST /otp/status: the whole story of a verification, by id, reference or number."""

from typing import Any

import httpx
import pytest
from fakes import answering
from rig import NUMBER, Rig, problem

from gateway.domain import health
from gateway.domain.verification import COOL_DOWN

ATTEMPT = {
    "attempt_id",
    "ordinal",
    "step",
    "cause",
    "route",
    "channel",
    "state",
    "outcome",
    "reason",
    "error",
    "queued_at",
    "sent_at",
    "delivered_at",
    "read_at",
    "overdue_at",
    "repeats",
}
TRANSITION = {
    "attempt_id",
    "before",
    "after",
    "applied",
    "source",
    "word",
    "provider_time",
    "recorded_at",
}


async def get(rig: Rig, **params: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {rig.key}"}
    return await rig.http.get("/otp/status", params=params, headers=headers)


async def shown(rig: Rig, sent: dict[str, Any]) -> dict[str, Any]:
    answer = await get(rig, verification_id=sent["verification_id"])

    assert 200 == answer.status_code
    return dict(answer.json())


# --- The answer ---------------------------------------------------------------------------------


async def test_a_status_tells_all_there_is(rig: Rig) -> None:
    sent = await rig.send(workflow="sms", reference="o-1")
    (sms,) = rig.transport.submissions
    rig.clock.advance(2)
    await rig.octopush_receipt(sms, "DELIVERED")
    body = await shown(rig, sent)
    (attempt,) = body.pop("attempts")
    transitions = body.pop("transitions")

    assert {
        "verification_id": sent["verification_id"],
        "reference": "o-1",
        "status": "PENDING",
        "delivery_status": "DELIVERED",
        "channel": "sms",
        "next": {"action": "expire", "at": "2026-11-21T12:05:00Z", "channel": None},
        "expires_at": "2026-11-21T12:05:00Z",
        "checks_left": 5,
        "sends_left": 4,
        "recipient": "+33 6•• ••• •78",
        "addresses": {"phone": "+33 6•• ••• •78"},
        "template": "verify",
        "workflow": "sms",
        "left_out": [],
        "created_at": "2026-11-21T12:00:00Z",
        "ended_at": None,
        "explanation": "An SMS through octopush was delivered at 12:00:02 UTC. "
        "The code can be typed until 12:05:00 UTC.",
    } == body
    assert {
        "attempt_id": sms.attempt_id,
        "ordinal": 1,
        "step": 0,
        "cause": "first",
        "route": "octopush",
        "channel": "sms",
        "state": "DELIVERED",
        "outcome": "accepted",
        "reason": None,
        "error": None,
        "queued_at": "2026-11-21T12:00:00Z",
        "sent_at": "2026-11-21T12:00:00Z",
        "delivered_at": "2026-11-21T12:00:02Z",
        "read_at": None,
        "overdue_at": "2026-11-21T12:01:00Z",
        "repeats": 0,
    } == attempt
    assert {
        "attempt_id": sms.attempt_id,
        "before": "SENT",
        "after": "DELIVERED",
        "applied": True,
        "source": "receipt",
        "word": "DELIVERED",
        "provider_time": "2026-11-21 13:00:01",
        "recorded_at": "2026-11-21T12:00:02Z",
    } == transitions[-1]


async def test_get_and_post_answer_alike(rig: Rig) -> None:
    sent = await rig.send(workflow="sms", reference="o-1")
    named = {"verification_id": sent["verification_id"]}
    answers = [
        await get(rig, **named),
        await get(rig, reference="o-1"),
        await rig.call("/otp/status", named),
        await rig.call("/otp/status", {"reference": "o-1"}),
        await rig.call("/otp/status", {"number": NUMBER}),
        await rig.call("/otp/status", {"number": "00 33 6 12 34 56 78"}),
    ]

    assert {200} == {answer.status_code for answer in answers}
    assert 1 == len({answer.content for answer in answers})


async def test_no_status_holds_the_code_or_the_number(rig: Rig) -> None:
    sent = await rig.send(workflow="sms", code_length=10)
    (sms,) = rig.transport.submissions
    answer = await rig.call("/otp/status", {"number": NUMBER, "history": 5})

    for secret in (sms.code, NUMBER[1:], "612345678", "6 12 34 56 78"):
        assert secret not in answer.text
    assert sent["verification_id"] in answer.text


async def test_attempts_and_log_run_in_order_over_a_fallback(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    await rig.reconcile(60)
    call = rig.transport.to("voice")[0]
    await rig.octopush_receipt(call, "DELIVERED")
    body = await shown(rig, sent)
    ids = [attempt["attempt_id"] for attempt in body["attempts"]]

    assert all(ATTEMPT == attempt.keys() for attempt in body["attempts"])
    assert all(TRANSITION == row.keys() for row in body["transitions"])
    assert [(1, "sms", "SENT", "first"), (2, "voice", "DELIVERED", "silence")] == [
        (one["ordinal"], one["channel"], one["state"], one["cause"]) for one in body["attempts"]
    ]
    assert [(ids[0], "SENT"), (ids[1], "SENT"), (ids[1], "DELIVERED")] == [
        (row["attempt_id"], row["after"]) for row in body["transitions"]
    ]
    assert ("voice", "DELIVERED") == (body["channel"], body["delivery_status"])
    assert "because the one before was not reported as delivered in time" in body["explanation"]


async def test_the_end_of_a_verification_is_in_its_log(rig: Rig) -> None:
    sent = await rig.send(workflow="sms_only")
    rig.clock.advance(3)
    await rig.call("/otp/cancel", {"number": NUMBER})
    body = await shown(rig, sent)

    assert ("CANCELED", "2026-11-21T12:00:03Z", None) == (
        body["status"],
        body["ended_at"],
        body["next"],
    )
    assert (None, "PENDING", "CANCELED", True, "client") == tuple(
        body["transitions"][-1][name]
        for name in ("attempt_id", "before", "after", "applied", "source")
    )
    assert "The verification was canceled at 12:00:03 UTC." in body["explanation"]


async def test_an_unknown_word_is_shown_and_moves_nothing(rig: Rig) -> None:
    """F36."""
    sent = await rig.send(workflow="sms")
    (sms,) = rig.transport.submissions
    await rig.octopush_receipt(sms, "TELEPORTED")
    body = await shown(rig, sent)

    assert ("SENT", "SENT", False, "TELEPORTED") == tuple(
        body["transitions"][-1][name] for name in ("before", "after", "applied", "word")
    )


async def test_past_its_time_it_is_expired_before_anybody_wrote_so(rig: Rig) -> None:
    sent = await rig.send(workflow="sms_only")
    rig.clock.advance(299.999)
    running = await shown(rig, sent)
    rig.clock.advance(0.001)
    over = await shown(rig, sent)

    assert ("PENDING", "EXPIRED") == (running["status"], over["status"])
    assert over["next"] is None


async def test_what_comes_next_is_told_for_each_step(rig: Rig) -> None:
    sent = await rig.send()
    first = await shown(rig, sent)
    await rig.reconcile(120)
    voice_at = (await rig.reconcile(3), await shown(rig, sent))[1]
    await rig.reconcile(60)
    last = await shown(rig, sent)

    assert {"action": "send", "at": "2026-11-21T12:02:03Z", "channel": "sms"} == first["next"]
    assert {"action": "send", "at": "2026-11-21T12:03:03Z", "channel": "voice"} == voice_at["next"]
    assert {"action": "expire", "at": "2026-11-21T12:05:00Z", "channel": None} == last["next"]


async def test_no_step_is_promised_over_a_route_that_was_disabled(rig: Rig) -> None:
    """Neither by status, nor by what the other calls answer, though its plan has that step."""
    sent = await rig.send(workflow="sms")
    before = await shown(rig, sent)
    now = rig.clock.now()
    rig.runtime.standing.put(health.disabled("octopush_voice", "fraud", "ops", now), now)
    after = await shown(rig, sent)
    rig.clock.advance(COOL_DOWN)
    again = await rig.send(workflow="sms")
    await rig.reconcile(60)

    expires = {"action": "expire", "at": "2026-11-21T12:05:00Z", "channel": None}
    assert "send" == before["next"]["action"]
    assert expires == after["next"]
    assert after["explanation"].endswith("The code can be typed until 12:05:00 UTC.")
    assert expires == again["next"]
    assert ["sms:SENT", "sms:SENT"] == rig.states(sent["verification_id"])


async def test_it_has_not_failed_while_a_step_is_left(rig: Rig) -> None:
    """Design §2: `delivery_status` is FAILED only when all attempts failed and no step is left."""
    rig.transport.script("sms-campaign", answering(429, {"code": 0, "message": "slow down"}))
    sent = await rig.send(workflow="sms")
    waiting = await shown(rig, sent)
    await rig.reconcile(1)
    later = await shown(rig, sent)

    assert "FAILED" == waiting["attempts"][0]["state"]
    assert {"action": "send", "at": "2026-11-21T12:00:01Z", "channel": "sms"} == waiting["next"]
    assert "FAILED" != waiting["delivery_status"]
    assert "SENT" == later["delivery_status"]


async def test_it_has_failed_when_nothing_is_left(rig: Rig) -> None:
    sent = await rig.send(workflow="sms_only")
    (sms,) = rig.transport.submissions
    await rig.octopush_receipt(sms, "NOT_DELIVERED")
    body = await shown(rig, sent)

    assert ("PENDING", "FAILED") == (body["status"], body["delivery_status"])
    assert 200 == (await rig.verify(sent["verification_id"], sms.code)).status_code


async def test_a_correct_check_is_delivered_whatever_receipts_say(rig: Rig) -> None:
    sent = await rig.send(workflow="sms_only")
    (sms,) = rig.transport.submissions
    await rig.octopush_receipt(sms, "NOT_DELIVERED")
    await rig.verify(sent["verification_id"], sms.code)
    body = await shown(rig, sent)

    assert ("VERIFIED", "DELIVERED") == (body["status"], body["delivery_status"])


# --- Which one ----------------------------------------------------------------------------------


async def test_a_number_in_a_url_is_refused(rig: Rig) -> None:
    await rig.send(workflow="sms")
    for params in ({"number": NUMBER}, {"number": NUMBER, "reference": "o"}, {"number": ""}):
        answer = await get(rig, **params)

        assert {} == problem(answer, 400, "number_in_url")
        assert NUMBER[1:] not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"history": 3},
        {"verification_id": "x", "reference": "y"},
        {"reference": "y", "number": NUMBER},
        {"verification_id": "x", "reference": "y", "number": NUMBER},
        {"verification_id": None},
    ],
)
async def test_exactly_one_name_is_given(rig: Rig, body: dict[str, Any]) -> None:
    assert {} == problem(await rig.call("/otp/status", body), 400, "invalid_request")


async def test_a_get_without_a_name_is_refused(rig: Rig) -> None:
    problem(await get(rig), 400, "invalid_request")


async def test_unknown_and_repeated_parameters_are_refused_by_name(rig: Rig) -> None:
    unknown = await get(rig, reference="a", wat="1")
    twice = await get(rig, reference=["a", "b"])

    assert {"fields": ["wat"]} == problem(unknown, 400, "unknown_field")
    problem(twice, 400, "invalid_request")
    assert "reference" in twice.json()["detail"]


@pytest.mark.parametrize("reference", ["a b", "", "x" * 129, "é", "%ff", "\n"])
async def test_a_reference_that_cannot_be_is_refused_or_not_found(rig: Rig, reference: str) -> None:
    assert (await get(rig, reference=reference)).status_code in {400, 404}
    assert (await rig.call("/otp/status", {"reference": reference})).status_code in {400, 404}


async def test_a_number_that_is_none_is_refused_and_not_repeated(rig: Rig) -> None:
    answer = await rig.call("/otp/status", {"number": "0698765432"})

    problem(answer, 400, "recipient_invalid")
    assert "698765432" not in answer.text


async def test_of_a_number_the_latest_is_meant(rig: Rig) -> None:
    sent = await history(rig, 3)
    answer = await rig.call("/otp/status", {"number": NUMBER})

    assert sent[-1] == answer.json()["verification_id"]
    assert "history" not in answer.json()


async def history(rig: Rig, count: int, **more: Any) -> list[str]:
    """Verifications of one number, one after the other."""
    made = []
    for _ in range(count):
        made.append((await rig.send(workflow="sms_only", **more))["verification_id"])
        await rig.call("/otp/cancel", {"number": NUMBER})
        rig.clock.advance(600 + COOL_DOWN)
    return made


async def test_of_a_reference_that_repeats_the_newest_is_meant(rig: Rig) -> None:
    sent = await history(rig, 2, reference="o-1")

    assert sent[-1] == (await get(rig, reference="o-1")).json()["verification_id"]


async def test_history_tells_the_earlier_ones_newest_first(rig: Rig) -> None:
    sent = await history(rig, 4)
    body = (await rig.call("/otp/status", {"number": NUMBER, "history": 50})).json()
    earlier = body.pop("history")

    assert sent[::-1] == [body["verification_id"], *(one["verification_id"] for one in earlier)]
    assert all(body.keys() == one.keys() for one in earlier)


async def test_history_is_bounded_by_what_was_asked_for(rig: Rig) -> None:
    await history(rig, 4)
    body = (await rig.call("/otp/status", {"number": NUMBER, "history": 3})).json()

    assert 3 == 1 + len(body["history"])


@pytest.mark.parametrize("asked", [-1, 51, "3", 1.5, True])
async def test_a_history_out_of_range_or_of_another_type_is_refused(
    rig: Rig, asked: object
) -> None:
    answer = await rig.call("/otp/status", {"number": NUMBER, "history": asked})

    assert "history" == problem(answer, 400, "invalid_request")["errors"][0]["field"]


async def test_in_a_url_history_is_written_in_digits(rig: Rig) -> None:
    await history(rig, 2, reference="o-1")

    assert 1 == len((await get(rig, reference="o-1", history="2")).json()["history"])
    problem(await get(rig, reference="o-1", history="many"), 400, "invalid_request")
