"""Many at once over the real HTTP server: sockets, uvicorn, ledger, SQLite."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from fakes import Clock
from rig import NUMBER, Now, Rig, make_settings

from gateway.app import process, wiring
from gateway.domain.verification import MAX_CHECKS, Status

PAIRS = 20

pytestmark = pytest.mark.sqlite


@dataclass
class Served(Rig):
    """The rig behind a server of its own."""

    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start(self) -> None:
        settings = make_settings(self.folder)
        shutil.copy(self.template, settings.database)
        self.gateway = wiring.build(
            settings,
            self.keyring,
            transport=self.transport,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
        )
        self.runtime = self.gateway.runtime
        self.reads = Now(settings.store)
        self.key = await self.client("backend")
        listening = self.stack.enter_context(process.bind("127.0.0.1", 0))
        await self.stack.enter_async_context(process.served(self.gateway.web, listening, grace=1))
        self.http = await self.stack.enter_async_context(
            httpx.AsyncClient(  # noqa: TID251  (the caller)
                base_url=f"http://127.0.0.1:{process.port_of(listening)}",
                limits=httpx.Limits(max_connections=None),
                trust_env=False,
                timeout=30,
            )
        )

    async def stop(self) -> None:
        await self.stack.aclose()


@pytest.fixture
async def served(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[Served]:
    async with Served(tmp_path, migrated, clock) as made:
        yield made


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}}"


def statuses(answers: list[httpx.Response]) -> list[int]:
    return sorted(one.status_code for one in answers)


async def running(rig: Rig, count: int = PAIRS) -> list[tuple[str, str, str]]:
    """So many verifications: number, id, code."""
    made = []
    for at in range(count):
        number = f"+336123456{at:02}"
        sent = await rig.send(number, workflow="sms_only")
        made.append((number, sent["verification_id"], rig.transport.submissions[-1].code))
    return made


async def test_of_fifty_right_codes_at_once_one_is_200(served: Served) -> None:
    """F26 (seen to fail without the look at the status in `verification.check`)."""
    sent = await served.send(workflow="sms_only")
    code = served.transport.submissions[0].code
    answers = await asyncio.gather(
        *(served.verify(sent["verification_id"], code) for _ in range(50))
    )

    assert [200] + [409] * 49 == statuses(answers)
    assert 1 == served.record(sent["verification_id"]).verification.checks_used


async def test_of_two_hundred_wrong_codes_at_once_five_are_compared(served: Served) -> None:
    """F24 (seen to fail when a wrong code is not written back)."""
    sent = await served.send(workflow="sms_only")
    code = served.transport.submissions[0].code
    answers = await asyncio.gather(
        *(served.verify(sent["verification_id"], wrong(code)) for _ in range(200))
    )
    late = await served.verify(sent["verification_id"], code)

    assert [404] * MAX_CHECKS + [429] * (200 - MAX_CHECKS) == statuses(answers)
    assert {0, 1, 2, 3, 4} == {
        one.json()["checks_left"] for one in answers if one.status_code == 404
    }
    assert (429, Status.LOCKED) == (late.status_code, served.status(sent["verification_id"]))


async def test_a_right_code_hidden_among_wrong_ones_wins_at_most_once(served: Served) -> None:
    sent = await served.send(workflow="sms_only")
    code = served.transport.submissions[0].code
    tried = [wrong(code)] * 60 + [code] * 10 + [wrong(code)] * 60
    answers = await asyncio.gather(*(served.verify(sent["verification_id"], one) for one in tried))
    used = served.record(sent["verification_id"]).verification.checks_used
    found = statuses(answers)

    assert found.count(200) <= 1
    assert used == found.count(200) + found.count(404) <= MAX_CHECKS


async def test_cancel_against_verify_has_one_winner(served: Served) -> None:
    """Each pair: verified and the cancel is refused, or canceled and the code is over."""
    made = await running(served)
    calls: list[Any] = []
    for at, (_, named, code) in enumerate(made):
        pair = [served.verify(named, code), served.call("/otp/cancel", {"verification_id": named})]
        calls += pair if at % 2 else pair[::-1]
    answers = await asyncio.gather(*calls)
    for at, (_, named, _) in enumerate(made):
        both = answers[2 * at : 2 * at + 2]
        checked, canceled = both if at % 2 else both[::-1]
        outcome = (checked.status_code, canceled.status_code, served.status(named))

        assert outcome in {(200, 409, Status.VERIFIED), (410, 200, Status.CANCELED)}


async def test_replace_against_check_has_one_winner(served: Served) -> None:
    """Either the old code was right and something new runs beside it, or it was replaced and is
    over. Never is an old code right after its replacement, nor a new one born verified."""
    made = await running(served)
    calls: list[Any] = []
    for at, (number, named, code) in enumerate(made):
        body = {"to": number, "workflow": "sms_only", "on_repeat": "replace"}
        pair = [served.verify(named, code), served.call("/otp/send", body)]
        calls += pair if at % 2 else pair[::-1]
    answers = await asyncio.gather(*calls)
    for at, (_, named, _) in enumerate(made):
        both = answers[2 * at : 2 * at + 2]
        checked, replaced = both if at % 2 else both[::-1]
        outcome = (checked.status_code, served.status(named))

        assert outcome in {(200, Status.VERIFIED), (410, Status.CANCELED)}
        assert 202 == replaced.status_code
        assert Status.PENDING is served.status(replaced.json()["verification_id"])


@pytest.mark.parametrize("many", [2, 30])
async def test_identical_sends_at_once_with_one_key_are_one_verification(
    served: Served, many: int
) -> None:
    """All get the same bytes; all but one are told that it is a replay (seen to fail without the
    look at `tx.answer`)."""
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {served.key}",
        "idempotency-key": "order-17",
    }
    body = orjson.dumps({"to": NUMBER, "workflow": "sms_only"})
    answers = await asyncio.gather(
        *(served.http.post("/otp/send", content=body, headers=headers) for _ in range(many))
    )
    await served.settle()
    replayed = [one for one in answers if one.headers.get("idempotency-replayed") == "true"]

    assert {202} == {one.status_code for one in answers}
    assert 1 == len({one.content for one in answers})
    assert many - 1 == len(replayed)
    assert 1 == len(served.transport.submissions)
