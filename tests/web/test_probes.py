"""What this is, whether it lives, whether it is ready."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from rig import Rig

from gateway import __version__
from gateway.app.readiness import LATE_PASS
from gateway.domain import health

Passed = Callable[[], Awaitable[None]]


@pytest.fixture
def passed(rig: Rig) -> Passed:
    """The worker passes once, and rests."""

    async def run() -> None:
        rig.gateway.worker.start()
        while rig.gateway.worker.last_pass is None:  # noqa: ASYNC110  (its first pass comes at once)
            await asyncio.sleep(0)
        await rig.gateway.worker.stop()

    return run


async def test_the_root_says_what_this_is(rig: Rig) -> None:
    answer = await rig.http.get("/")

    assert 200 == answer.status_code
    assert {
        "name": "otp-gateway",
        "version": __version__,
        "calls": [
            "/otp/send",
            "/otp/status",
            "/otp/verify",
            "/otp/cancel",
            "/otp/next",
            "/otp/events",
            "/otp/subscriptions",
        ],
    } == answer.json()


async def test_alive_means_that_it_answers(rig: Rig) -> None:
    answer = await rig.http.get("/healthz")

    assert (200, {"status": "ok"}) == (answer.status_code, answer.json())


async def test_probes_need_no_key(rig: Rig, passed: Passed) -> None:
    await passed()
    statuses = [(await rig.http.get(path)).status_code for path in ("/", "/healthz", "/readyz")]

    assert [200, 200, 200] == statuses


async def test_it_is_not_ready_before_the_first_pass(rig: Rig) -> None:
    answer = await rig.http.get("/readyz")

    assert 503 == answer.status_code
    assert {
        "status": "not ready",
        "problems": {"reconciler": "has not passed yet"},
        "warnings": {},
    } == answer.json()


async def test_it_is_ready_once_the_worker_has_passed(rig: Rig, passed: Passed) -> None:
    await passed()
    answer = await rig.http.get("/readyz")

    assert 200 == answer.status_code
    assert {"status": "ready", "problems": {}, "warnings": {}} == answer.json()


async def test_it_is_not_ready_when_nobody_passes_any_more(rig: Rig, passed: Passed) -> None:
    await passed()
    rig.clock.advance(LATE_PASS)
    late = await rig.http.get("/readyz")
    rig.clock.advance(0.001)
    too_late = await rig.http.get("/readyz")

    assert 200 == late.status_code
    assert 503 == too_late.status_code
    assert {"reconciler": "last passed at 2026-11-21T12:00:00+00:00"} == too_late.json()["problems"]


@pytest.mark.sqlite
async def test_it_is_not_ready_without_its_database(rig: Rig, passed: Passed) -> None:
    await passed()
    rig.sqlite._reader.close()
    answer = await rig.http.get("/readyz")

    assert 503 == answer.status_code
    assert ["database"] == list(answer.json()["problems"])
    assert 200 == (await rig.http.get("/healthz")).status_code


async def test_it_is_not_ready_when_nobody_writes_any_more(rig: Rig, passed: Passed) -> None:
    await passed()
    writing = rig.gateway.ledger._running
    assert writing is not None
    writing.cancel()
    await rig.gateway.ledger.ended.wait()
    answer = await rig.http.get("/readyz")

    assert (503, ["ledger"]) == (answer.status_code, list(answer.json()["problems"]))


async def test_a_schema_or_a_keyring_that_is_behind_is_named(rig: Rig, passed: Passed) -> None:
    await rig.send()
    await passed()
    with rig.connect() as other:
        other.execute("UPDATE verification SET key_id = 'k2'")
        other.execute("UPDATE alembic_version SET version_num = '0001'")
        behind = await rig.http.get("/readyz")
        other.execute("UPDATE alembic_version SET version_num = '9999'")
        ahead = await rig.http.get("/readyz")

    assert ["schema", "keyring"] == list(behind.json()["problems"])
    assert "is at 0001" in behind.json()["problems"]["schema"]
    assert "'k2'" in behind.json()["problems"]["keyring"]
    assert (503, ["keyring"]) == (ahead.status_code, list(ahead.json()["problems"]))


async def test_what_every_process_has_is_a_warning(rig: Rig, passed: Passed) -> None:
    await rig.send()
    rig.clock.advance(200)
    await passed()
    now = rig.clock.now()
    rig.runtime.standing.put(health.disabled("octopush_voice", "fraud", "ops", now), now)
    some = await rig.http.get("/readyz")
    paused = health.pause("octopush", None, health.Reason.ACCOUNT, now)
    assert paused is not None
    rig.runtime.standing.put(paused, now)
    answer = await rig.http.get("/readyz")

    assert ["lag"] == list(some.json()["warnings"])
    assert 200 == answer.status_code
    assert "the oldest due verification had waited" in answer.json()["warnings"]["lag"]
    assert (
        "no route works: octopush is paused, octopush_voice is disabled"
        == answer.json()["warnings"]["workflow sms"]
    )
    assert "workflow default" not in answer.json()["warnings"]
