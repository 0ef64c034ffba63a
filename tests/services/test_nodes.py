"""Several nodes on one PostgreSQL: each has a ledger, a dispatcher and a memory of its own, and
only the database between them.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes import Gate, answering
from rig import NUMBER, Rig

from gateway.services import dispatch, reconcile
from gateway.services.receive import Receive
from gateway.store.engine.postgres import PostgresEngine

pytestmark = pytest.mark.postgres

COUNT = 4
TICKET = "sms_of_both"


@pytest.fixture
async def nodes(rig: Rig) -> AsyncIterator[list[Rig]]:
    """Four nodes around one world."""
    made = [rig, *[await rig.beside() for _ in range(COUNT - 1)]]
    yield made
    for node in made[1:]:
        await node.stop()


async def settled(nodes: list[Rig]) -> None:
    for node in nodes:
        await node.settle()


async def passed(nodes: list[Rig]) -> list[int]:
    """Every node passes at once."""
    now = nodes[0].clock.now()
    looked = await asyncio.gather(
        *(reconcile.run_once(one.runtime, reconcile.Passing(), now) for one in nodes)
    )
    await settled(nodes)
    return list(looked)


async def test_one_number_sent_to_on_every_node_is_one_verification(nodes: list[Rig]) -> None:
    """F6: the unique key lets one insert win, the others decide again and join."""
    answers = await asyncio.gather(
        *(one.call("/otp/send", {"to": NUMBER, "workflow": "sms"}) for one in nodes)
    )
    await settled(nodes)
    found = {answer.json()["verification_id"] for answer in answers if answer.status_code == 202}

    assert 1 == len(found)
    assert {202, 429} >= {answer.status_code for answer in answers}
    assert 1 == len(nodes[0].reads.latest(10))
    assert 1 == len(nodes[0].transport.submissions)


async def test_many_numbers_in_every_order_end_without_a_refusal(nodes: list[Rig]) -> None:
    """Deadlock order: batches with the same rows, each node in an order of its own."""
    numbers = [f"+336123400{n:02}" for n in range(24)]
    orders = [numbers, numbers[::-1], numbers[12:] + numbers[:12], numbers[::2] + numbers[1::2]]
    answers = await asyncio.gather(
        *(
            node.call("/otp/send", {"to": number, "workflow": "sms"})
            for node, order in zip(nodes, orders, strict=True)
            for number in order
        )
    )
    await settled(nodes)

    assert {202, 429} >= {answer.status_code for answer in answers}
    assert 24 == len(nodes[0].reads.latest(100))
    assert 24 == len(nodes[0].transport.submissions)


async def test_fallback_against_fallback_sends_one_message(nodes: list[Rig]) -> None:
    """F21, F9: every node passes over the same due rows."""
    sent = [await nodes[0].send(f"+336123400{n:02}", workflow="sms") for n in range(20)]
    nodes[0].clock.advance(60)
    for _ in range(3):
        await passed(nodes)

    for one in sent:
        assert ["sms:SENT", "voice:SENT"] == nodes[0].states(one["verification_id"])
    assert 40 == len(nodes[0].transport.submissions)


async def test_a_receipt_finds_an_attempt_that_another_node_has_made(nodes: list[Rig]) -> None:
    """The node that remembers the verification knows nothing of its second attempt. (Seen to fail
    when what is remembered is held without a look at its version.)"""
    first, second = nodes[:2]
    sent = await first.send(workflow="sms")
    first.clock.advance(60)
    await second.reconcile()
    await second.reconcile()
    call = first.transport.submissions[1]
    answer = await first.octopush_receipt(call, "DELIVERED", route="octopush_voice")

    assert 200 == answer.status_code
    assert ["sms:SENT", "voice:DELIVERED"] == first.states(sent["verification_id"])


async def test_a_check_on_one_node_is_counted_on_all(nodes: list[Rig]) -> None:
    """F24: fifty right codes, one success."""
    sent = await nodes[0].send(workflow="sms")
    code = nodes[0].transport.submissions[0].code
    named = sent["verification_id"]
    answers = await asyncio.gather(*(nodes[n % COUNT].verify(named, code) for n in range(48)))

    assert {200: 1, 409: 47} == dict(Counter(answer.status_code for answer in answers))


async def test_wrong_codes_on_every_node_use_the_checks_up_exactly(nodes: list[Rig]) -> None:
    sent = await nodes[0].send(workflow="sms")
    code = nodes[0].transport.submissions[0].code
    wrong = str((int(code) + 1) % 10**6).zfill(6)
    named = sent["verification_id"]
    answers = await asyncio.gather(*(nodes[n % COUNT].verify(named, wrong) for n in range(40)))

    assert {404: 5, 429: 35} == dict(Counter(answer.status_code for answer in answers))


async def receipt_against_outcome(rig: Rig, twin: Rig, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both have looked before either is stored: the states that remain."""
    gate = Gate(answering(201, {"sms_ticket": TICKET}))
    rig.transport.script("sms-campaign", gate)
    accepted = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
    await gate.reached.wait()
    (sms,) = rig.transport.submissions
    met = Meeting()
    for node, operation in ((rig, dispatch.Conclude), (twin, Receive)):
        ledger = node.gateway.ledger
        monkeypatch.setattr(ledger, "_engine", Slow(node.runtime.engine, met, operation.__name__))
    gate.opened.set()
    answer = await twin.octopush_receipt(sms, "DELIVERED", message_id=TICKET)
    assert 200 == answer.status_code
    await rig.settle()
    return ",".join(rig.states(accepted.json()["verification_id"]))


class Meeting:
    """Two who wait for each other, but not for ever: a lock may keep one of them away."""

    def __init__(self) -> None:
        self._barrier = asyncio.Barrier(2)

    async def here(self) -> None:
        try:
            async with asyncio.timeout(0.5):
                await self._barrier.wait()
        except (TimeoutError, asyncio.BrokenBarrierError):
            return


class Slow:
    """An engine that, having looked for receipts kept aside, waits for the other node to have
    looked too."""

    def __init__(self, engine: Any, met: Meeting, name: str) -> None:
        self._engine = engine
        self._met = met
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def run(self, *args: Any, **kwargs: Any) -> int:
        await self._met.here()
        touched: int = await self._engine.run(*args, **kwargs)
        return touched


async def test_a_receipt_and_an_outcome_on_two_nodes_meet(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F1 at READ COMMITTED: neither sees the other's rows, so both take a lock on the reference
    before they look. The next test takes that lock away and sees the receipt parked for good."""
    twin = await rig.beside()
    states = await receipt_against_outcome(rig, twin, monkeypatch)
    await twin.stop()

    assert "sms:DELIVERED" == states
    assert [] == rig.reads.kept(10)


async def test_without_the_lock_they_pass_each_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard's own test (F47); the sweep is the second net."""

    async def nothing(self: PostgresEngine, names: Any) -> None:
        return

    with monkeypatch.context() as patched:
        patched.setattr(PostgresEngine, "lock", nothing)
        twin = await rig.beside()
        states = await receipt_against_outcome(rig, twin, patched)
        parked = len(rig.reads.kept(10))
        await twin.stop()

    assert ("sms:SENT", 1) == (states, parked)


async def test_a_node_that_lost_its_claim_releases_nothing(nodes: list[Rig]) -> None:
    """F22: stopped past its lease, it comes back with an outcome. Meanwhile another node has handed
    the same attempt over again, under its idempotency key; nothing is taken back.
    """
    gate = Gate(answering(201, {"sms_ticket": TICKET}))
    first, second = nodes[:2]
    first.transport.script("sms-campaign", gate, answering(201, {"sms_ticket": TICKET}))
    accepted = await first.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
    await gate.reached.wait()
    named = accepted.json()["verification_id"]
    await second.reconcile(30)
    await second.octopush_receipt(first.transport.submissions[0], "DELIVERED", message_id=TICKET)
    gate.opened.set()
    await first.settle()
    (attempt,) = first.attempts(named)

    assert (TICKET, ["sms:DELIVERED"]) == (attempt.reference, first.states(named))
    assert {str(attempt.id)} == {one.attempt_id for one in first.transport.submissions}


async def test_clocks_two_seconds_apart_change_nothing(nodes: list[Rig]) -> None:
    """A node that is ahead looks first; the others find nothing left to do."""
    sent = await nodes[0].send(workflow="sms")
    nodes[0].clock.advance(58)
    now = nodes[0].clock.now()
    early = await reconcile.run_once(nodes[1].runtime, reconcile.Passing(), now)
    await settled(nodes)
    nodes[0].clock.advance(4)
    for _ in range(3):
        await passed(nodes)

    assert 0 == early
    assert ["sms:SENT", "voice:SENT"] == nodes[0].states(sent["verification_id"])


async def test_a_canceled_code_is_canceled_on_every_node(nodes: list[Rig]) -> None:
    sent = await nodes[0].send(workflow="sms")
    named = sent["verification_id"]
    code = nodes[0].transport.submissions[0].code
    await nodes[1].call("/otp/cancel", {"verification_id": named})
    checks = [(await node.verify(named, code)).status_code for node in nodes]

    assert [410] * COUNT == checks
