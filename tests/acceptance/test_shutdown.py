"""SIGTERM: it stops accepting, brings home what is on the wire, keeps the rest for the next start,
and ends with 0.
"""

import asyncio
import time
from pathlib import Path

import pytest
from acceptance.crash_child import TIMEOUT
from acceptance.outside import Answer, Process, busy, gateway, until

from gateway.app.gateway import GRACE

SENDS = 150

pytestmark = pytest.mark.timeout(300)


async def send(process: Process, at: int) -> Answer | None:
    return await process.send("calm", f"+3361234{at:04}")


def outcomes(process: Process) -> dict[str, int | None]:
    """By attempt: 1 accepted, 2 unknown, None where there is none."""
    rows = process.rows("SELECT hex(id), outcome FROM attempt")
    return {named.lower(): outcome for named, outcome in rows}


def ids(process: Process) -> list[str]:
    """The attempts that were submitted, in order, as often as they were."""
    return [one.attempt_id.replace("-", "") for one in process.providers.submissions]


async def test_a_clean_stop_under_load_keeps_every_promise(tmp_path: Path, migrated: Path) -> None:
    """Acknowledged is stored; what was on the wire has its outcome; what was not yet is sent by the
    next process, and all of it exactly once (seen to fail without `dispatcher.drain`).
    """
    async with gateway(tmp_path, migrated) as process:
        process.providers.delay = 0.3
        await process.start()
        calls = [asyncio.ensure_future(send(process, at)) for at in range(SENDS)]
        await process.submitted(20, 30)
        process.child.terminate()
        stopped_at = time.monotonic()
        late = [await send(process, SENDS)]
        while late[-1] is not None and late[-1].status_code == 202:  # until it stops accepting
            late.append(await send(process, SENDS + len(late)))
        code = await process.ended(GRACE + 5)
        took = time.monotonic() - stopped_at
        answers = [*(await asyncio.gather(*calls)), *late]
        accepted = {
            one.json()["verification_id"] for one in answers if one and one.status_code == 202
        }
        statuses = {one.status_code for one in answers if one is not None}
        submitted, known = ids(process), outcomes(process)
        waiting = process.rows("SELECT state, claimed_until FROM attempt WHERE outcome IS NULL")

        assert 0 == code
        assert took < GRACE * busy()
        assert statuses <= {202, 503}
        assert len(accepted) <= len(known)
        assert {1} == {known[named] for named in submitted}
        assert waiting
        assert {(0, None)} == set(waiting)

        await process.start()
        await process.submitted(len(known), 30)
        await until(lambda: {1} == set(outcomes(process).values()), 10, "all outcomes")
        found = [await process.status(verification_id=one) for one in accepted]

        assert None not in found
        assert sorted(ids(process)) == sorted(outcomes(process))
        process.check()


async def test_a_provider_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, migrated: Path
) -> None:
    """Its calls end at their own limit, as unknown, and that is stored before the process ends."""
    async with gateway(tmp_path, migrated) as process:
        process.providers.delay = 60
        await process.start()
        answers = [await send(process, at) for at in range(5)]
        await process.submitted(5, 10)
        process.child.terminate()
        code = await process.ended(TIMEOUT + 5)

        assert 0 == code
        assert all(one is not None and one.status_code == 202 for one in answers)
        assert {2} == set(outcomes(process).values())
        assert {"sms:SENT"} == set(process.states())
        assert [(0,)] == process.rows(
            "SELECT count(*) FROM attempt WHERE claimed_until IS NOT NULL"
        )


async def test_an_idle_process_ends_at_once_although_callers_keep_their_connections(
    tmp_path: Path, migrated: Path
) -> None:
    async with gateway(tmp_path, migrated) as process:
        await process.start()
        await send(process, 0)
        await until(lambda: process.states() == ["sms:SENT"], 5, "its outcome")
        process.child.terminate()

        assert 0 == await process.ended(5)


async def test_a_stopped_gateway_leaves_its_folder_to_the_next(
    tmp_path: Path, migrated: Path
) -> None:
    """The lock of the folder is gone, and the write-ahead log is within the database."""
    async with gateway(tmp_path, migrated) as process:
        for at in range(2):
            await process.start()
            answer = await send(process, at)
            process.child.terminate()

            assert answer is not None
            assert answer.status_code == 202
            assert 0 == await process.ended(10)
        wal = process.database.with_name("gateway.db-wal")

        assert not wal.exists() or wal.stat().st_size == 0
        assert [(2,)] == process.rows("SELECT count(*) FROM verification")
