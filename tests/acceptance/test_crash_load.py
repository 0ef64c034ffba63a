"""kill -9 in the middle of a storm: what was acknowledged is there, what the provider was called
for has its row, and all of it is brought to its end.
"""

import asyncio
from pathlib import Path

import pytest
from acceptance.crash_child import LONG_PATIENCE, TIMEOUT
from acceptance.outside import Process, gateway, until

from gateway.domain.workflow import POLL_SECONDS
from gateway.services.case import GRACE, LEASE_MARGIN

SENDS = 300
SEEN = 60  # submissions the provider has seen when the process is killed
# Seconds until the last is on its way. Of a message to the messenger that was claimed and did not
# leave nobody knows whether it did: its fallback goes out when its patience has ended.
RECOVERED = TIMEOUT + LEASE_MARGIN + LONG_PATIENCE + GRACE.total_seconds() + POLL_SECONDS + 15

pytestmark = pytest.mark.timeout(300)


def numbers() -> list[str]:
    return [f"+3361234{at:04}" for at in range(SENDS)]


def workflow(at: int) -> str:
    """Of the number at that place."""
    return "chat" if at % 3 == 0 else "patient"


async def storm(process: Process) -> tuple[dict[str, str], int]:
    """The verification of each number that was acknowledged, and how many were not."""
    acknowledged: dict[str, str] = {}

    async def one(at: int, number: str) -> None:
        answer = await process.send(workflow(at), number)
        if answer is not None:
            assert answer.status_code == 202, answer.text
            acknowledged[number] = answer.json()["verification_id"]

    calls = [asyncio.ensure_future(one(at, number)) for at, number in enumerate(numbers())]
    await process.submitted(SEEN, 30)
    process.child.kill()
    await asyncio.gather(*calls)
    await process.died()
    return acknowledged, SENDS - len(acknowledged)


async def test_f9_a_kill_under_load_loses_nothing_and_sends_nothing_twice(
    tmp_path: Path, migrated: Path
) -> None:
    """(Seen to fail with `idempotent = True` at a provider that takes no idempotency key.)"""
    async with gateway(tmp_path, migrated) as process:
        process.providers.delay = 0.2
        await process.start()
        acknowledged, _ = await storm(process)
        process.check()  # 0 submissions without a row, right after the kill
        seen = len(process.providers.submissions)
        await process.start()
        found = [await process.status(verification_id=one) for one in acknowledged.values()]
        stored = process.rows("SELECT count(*) FROM verification")[0][0]
        await until(
            lambda: stored == len({one.number for one in process.providers.submissions}),
            RECOVERED,
            "a message to every number",
        )
        await until(
            lambda: not process.rows("SELECT 1 FROM attempt WHERE state = 0"),
            RECOVERED,
            "every attempt is on its way",
        )

        assert None not in found
        assert acknowledged
        assert len(acknowledged) <= stored <= SENDS
        assert seen < len(process.providers.submissions)
        process.check()


async def test_a_restart_after_the_storm_takes_the_unacknowledged_again(
    tmp_path: Path, migrated: Path
) -> None:
    """Who got no answer asks again: stored already, it is joined (and told to wait), else begun."""
    async with gateway(tmp_path, migrated) as process:
        process.providers.delay = 0.05
        await process.start()
        acknowledged, _ = await storm(process)
        left = [one for one in enumerate(numbers()) if one[1] not in acknowledged]
        await process.start()
        statuses = set()
        for at, number in left[:50]:
            known = await process.status(number=number)
            answer = await process.send(workflow(at), number)
            assert answer is not None
            statuses.add((known is not None, answer.status_code))

        assert statuses <= {(True, 429), (False, 202)}
        process.check()
