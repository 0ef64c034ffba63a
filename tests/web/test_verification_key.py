"""`verification_key`: a caller who stores nothing can verify, cancel, go on and ask."""

import re
from typing import Any

import pytest
from rig import Rig, problem

from gateway.domain.verification import COOL_DOWN, Status

OTHER = "+33612345679"


async def keyed(rig: Rig, **more: Any) -> tuple[dict[str, Any], str, str]:
    """What a send answered, its verification key, and the code."""
    sent = await rig.send(workflow="sms", **more)
    return sent, sent["verification_key"], rig.transport.submissions[-1].code


async def test_the_key_and_the_code_are_enough_to_verify(rig: Rig) -> None:
    sent, key, code = await keyed(rig)
    answer = await rig.call("/otp/verify", {"verification_key": key, "code": code})

    assert (200, sent["verification_id"]) == (answer.status_code, answer.json()["verification_id"])


async def test_the_number_it_was_made_for_may_stand_beside_it(rig: Rig) -> None:
    _, key, code = await keyed(rig)
    body = {"verification_key": key, "number": "0033 6 12 34 56 78", "code": code}

    assert 200 == (await rig.call("/otp/verify", body)).status_code


@pytest.mark.parametrize("path", ["/otp/verify", "/otp/cancel", "/otp/next", "/otp/status"])
async def test_another_number_is_a_mismatch_and_counts_nothing(rig: Rig, path: str) -> None:
    sent, key, code = await keyed(rig)
    body = {"verification_key": key, "number": OTHER}
    answer = await rig.call(path, body | ({"code": code} if path == "/otp/verify" else {}))

    assert {} == problem(answer, 400, "recipient_mismatch")
    assert Status.PENDING is rig.status(sent["verification_id"])
    assert 0 == rig.record(sent["verification_id"]).verification.checks_used


@pytest.mark.parametrize("path", ["/otp/verify", "/otp/cancel", "/otp/next", "/otp/status"])
async def test_an_altered_key_is_invalid(rig: Rig, path: str) -> None:
    sent, key, code = await keyed(rig)
    altered = key[:-5] + ("A" if key[-5] != "A" else "B") + key[-4:]
    body = {"verification_key": altered} | ({"code": code} if path == "/otp/verify" else {})

    assert {} == problem(await rig.call(path, body), 400, "verification_key_invalid")
    assert Status.PENDING is rig.status(sent["verification_id"])


@pytest.mark.parametrize(
    "more",
    [
        {"verification_id": "x"},
        {"reference": "o-1"},
        {"number": "+33612345678", "email": "someone@example.com"},
    ],
)
async def test_a_second_name_beside_it_is_refused(rig: Rig, more: dict[str, str]) -> None:
    _, key, code = await keyed(rig)
    answer = await rig.call("/otp/verify", {"verification_key": key, "code": code, **more})

    problem(answer, 400, "invalid_request")


async def test_cancel_next_and_status_take_it(rig: Rig) -> None:
    sent, key, _ = await keyed(rig)
    following = await rig.call("/otp/next", {"verification_key": key})
    await rig.settle()
    shown = await rig.call("/otp/status", {"verification_key": key})
    canceled = await rig.call("/otp/cancel", {"verification_key": key})
    answers = (following, shown, canceled)

    assert [202, 200, 200] == [one.status_code for one in answers]
    assert {sent["verification_id"]} == {one.json()["verification_id"] for one in answers}


async def test_it_is_not_put_into_a_url(rig: Rig) -> None:
    _, key, _ = await keyed(rig)
    answer = await rig.http.get(
        "/otp/status",
        params={"verification_key": key},
        headers={"authorization": f"Bearer {rig.key}"},
    )

    assert {} == problem(answer, 400, "key_in_url")


async def test_an_expired_one_is_410(rig: Rig) -> None:
    _, key, code = await keyed(rig)
    rig.clock.advance(300)
    body = {"verification_key": key, "code": code}

    problem(await rig.call("/otp/verify", body), 410, "expired")


async def test_an_expired_one_whose_row_is_gone_is_410_all_the_same(rig: Rig) -> None:
    _, key, code = await keyed(rig)
    await rig.stop()
    rig.gateway.settings.database.unlink()
    await rig.start()
    body = {"verification_key": key, "code": code}

    problem(await rig.call("/otp/verify", body), 404, "verification_not_found")
    rig.clock.advance(300)
    problem(await rig.call("/otp/verify", body), 410, "expired")


async def test_of_a_used_one_it_says_so(rig: Rig) -> None:
    _, key, code = await keyed(rig)
    body = {"verification_key": key, "code": code}
    await rig.call("/otp/verify", body)

    problem(await rig.call("/otp/verify", body), 409, "already_verified")
    rig.clock.advance(300)
    problem(await rig.call("/otp/verify", body), 409, "already_verified")


async def test_it_opens_nothing_for_another_client(rig: Rig) -> None:
    _, key, code = await keyed(rig)
    other = await rig.client("other")
    answer = await rig.call("/otp/verify", {"verification_key": key, "code": code}, key=other)

    assert {} == problem(answer, 404, "verification_not_found")


async def test_a_join_gives_another_key_for_the_same_verification(rig: Rig) -> None:
    _, first, code = await keyed(rig)
    rig.clock.advance(COOL_DOWN)
    _, second, _ = await keyed(rig)

    assert first != second
    assert (
        200
        == (await rig.call("/otp/verify", {"verification_key": first, "code": code})).status_code
    )
    problem(
        await rig.call("/otp/verify", {"verification_key": second, "code": code}),
        409,
        "already_verified",
    )


async def test_it_is_nowhere_stored(rig: Rig) -> None:
    _, key, _ = await keyed(rig)
    stored = repr(rig.dump())

    assert key not in stored
    assert re.fullmatch(r"[A-Za-z0-9_-]+", key)
