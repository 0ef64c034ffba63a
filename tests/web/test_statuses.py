"""What was told once is told again only while it is true."""

from uuid import UUID

import pytest
from rig import Rig, changed

from gateway.domain import health
from gateway.store.reads import Record
from gateway.web import statuses
from gateway.web.statuses import Statuses

OTHERS = ("+33612345671", "+33612345672", "+33612345673")


async def status(rig: Rig, named: str, *, key: str | None = None) -> dict[str, object]:
    answer = await rig.call("/otp/status", {"verification_id": named}, key=key)
    return dict(answer.json())


async def test_nothing_is_loaded_while_nothing_happens(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = (await rig.send(workflow="sms"))["verification_id"]
    first = await status(rig, named)

    async def loaded(_: UUID) -> Record:
        raise AssertionError("loaded again")

    monkeypatch.setattr(rig.runtime.reads, "record", loaded)
    rig.clock.advance(59)

    assert first == await status(rig, named)


async def test_what_another_process_wrote_is_told_at_once(rig: Rig) -> None:
    """With the comparison of the version taken out of `Statuses`, the first process went on telling
    PENDING."""
    named = (await rig.send(workflow="sms"))["verification_id"]
    before = await status(rig, named)
    twin = await rig.beside()
    try:
        await twin.call("/otp/verify", {"verification_id": named, "code": "1"})
        wrong = await status(rig, named)
        await twin.call("/otp/cancel", {"verification_id": named})
        over = await status(rig, named)
    finally:
        await twin.stop()

    assert ("PENDING", 5) == (before["status"], before["checks_left"])
    assert ("PENDING", 4) == (wrong["status"], wrong["checks_left"])
    assert "CANCELED" == over["status"]


async def test_what_was_deleted_is_not_told(rig: Rig) -> None:
    named = (await rig.send(workflow="sms"))["verification_id"]
    before = await status(rig, named)
    for table in ("transition", "attempt", "verification"):
        column = "id" if table == "verification" else "verification_id"
        stored = f"X'{UUID(named).hex}'" if rig.server is None else f"'{named}'"
        changed(rig.store, f"DELETE FROM {table} WHERE {column} = {stored}")  # noqa: S608

    assert "PENDING" == before["status"]
    assert "verification_not_found" == (await status(rig, named))["code"]


async def test_it_is_told_anew_once_the_patience_is_over(rig: Rig) -> None:
    named = (await rig.send(workflow="sms_only"))["verification_id"]
    before = await status(rig, named)
    rig.clock.advance(300)
    after = await status(rig, named)

    assert ("PENDING", "EXPIRED") == (before["status"], after["status"])


async def test_it_is_told_anew_when_a_route_is_shut_and_when_it_is_back(rig: Rig) -> None:
    named = (await rig.send(workflow="sms"))["verification_id"]
    before = await status(rig, named)
    now = rig.clock.now()
    rig.runtime.standing.put(health.disabled("octopush_voice", "fraud", "ops", now), now)
    shut = await status(rig, named)
    rig.runtime.standing.put(health.enabled("octopush_voice", "paid", "ops", now), now)

    assert before["next"] != shut["next"]
    assert before == await status(rig, named)


async def test_what_one_client_was_told_is_not_told_to_another(rig: Rig) -> None:
    named = (await rig.send(workflow="sms"))["verification_id"]
    mine = await status(rig, named)
    key = await rig.client("accounts")

    assert "PENDING" == mine["status"]
    assert "verification_not_found" == (await status(rig, named, key=key))["code"]


async def test_no_more_is_kept_than_there_is_room_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "_MOST", 2)
    kept = Statuses(rig.runtime)
    ids = [UUID((await rig.send(to, workflow="sms"))["verification_id"]) for to in OTHERS]
    for named in (*ids, ids[0]):
        told = await kept.body(named, None)
        assert told is not None
        assert str(named).encode() in told

    assert {ids[2].int, ids[0].int} == kept._kept.keys()
