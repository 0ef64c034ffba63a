"""Hints between nodes: words, and what follows from them. No worker looks here, so that nothing but
a hint can have told.
"""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import httpx
import postgres
import pytest
from endpoints import URL, FakeEndpoints, Webhook, notified, subscribe
from rig import PATIENCE, Rig

from gateway.domain.health import Reason, Standing, pause
from gateway.services import hints as module
from gateway.services.health import Judge
from gateway.services.hints import NAMED_MOST, Hint, Hints, Topic, decode, encode
from gateway.services.publishing import Touched
from gateway.store.outbox import OutboxReads


def test_a_hint_is_read_as_it_was_written() -> None:
    hint = Hint(frozenset({uuid4(), UUID(int=0)}), frozenset({Topic.ROUTES}))

    assert hint == decode(encode(hint))


def test_the_longest_hint_fits() -> None:
    """PostgreSQL takes less than 8,000 bytes."""
    longest = Hint(frozenset(uuid4() for _ in range(NAMED_MOST)), frozenset(Topic))

    assert 8000 > len(encode(longest).encode())


def test_what_is_not_understood_is_passed_over() -> None:
    """Another version, or somebody else on that database."""
    odd = ["soon", "é" * 22, "=" * 22, "a" * 21 + "!", "routes2", "a" * 23]

    assert Hint(topics=frozenset({Topic.ROUTES})) == decode(" ".join([*odd, "routes"]))


@pytest.mark.sqlite
async def test_one_process_on_sqlite_has_nobody_to_tell(rig: Rig) -> None:
    watched = rig.gateway.runtime.waiting.watched

    assert None is rig.gateway.hints
    assert {} == watched


@pytest.fixture
async def nodes(rig: Rig) -> AsyncIterator[tuple[Rig, Rig]]:
    """Two nodes that hear one another."""
    rig.webhooks = FakeEndpoints()
    twin = await rig.beside()
    for node in (rig, twin):
        hints(node).start()
        await asyncio.wait_for(hints(node).connected.wait(), PATIENCE)
    yield rig, twin
    await twin.stop()


def hints(node: Rig) -> Hints:
    assert node.gateway.hints is not None
    return node.gateway.hints


async def held(node: Rig, named: str) -> "asyncio.Task[httpx.Response]":
    """A question for its delivery, once its answer is held."""
    body = {"verification_id": named, "wait": PATIENCE, "until": "delivered"}
    call = asyncio.create_task(node.call("/otp/status", body))
    waiting = node.runtime.waiting
    await node.until(
        lambda: any(one.version is not None for one in waiting.watched.get(UUID(named), ())), call
    )
    return call


@pytest.mark.postgres
async def test_who_waits_on_one_node_is_woken_by_a_commit_on_another(
    nodes: tuple[Rig, Rig],
) -> None:
    """(Seen to fail without `hints.follow` in the wiring: it waits for its time to be out.)"""
    first, second = nodes
    sent = await first.send(workflow="sms")
    call = await held(second, sent["verification_id"])
    await first.octopush_receipt(first.transport.submissions[0], "DELIVERED")
    answer = await asyncio.wait_for(call, PATIENCE / 2)

    assert "DELIVERED" == answer.json()["delivery_status"]


@pytest.mark.postgres
async def test_more_changes_than_a_hint_names_wake_all_the_same(nodes: tuple[Rig, Rig]) -> None:
    """The others look for themselves."""
    first, second = nodes
    sent = await first.send(workflow="sms")
    call = await held(second, sent["verification_id"])
    hints(first).follow({Touched: [Touched(uuid4()) for _ in range(NAMED_MOST + 1)]})
    await first.octopush_receipt(first.transport.submissions[0], "DELIVERED")
    answer = await asyncio.wait_for(call, PATIENCE / 2)

    assert "DELIVERED" == answer.json()["delivery_status"]


@pytest.mark.postgres
async def test_a_route_paused_on_one_node_is_paused_on_all(nodes: tuple[Rig, Rig]) -> None:
    first, second = nodes
    paused = pause("octopush", None, Reason.ACCOUNT, first.clock.now())
    assert paused is not None
    await first.runtime.ledger.submit(Judge((paused,)))
    await second.until(lambda: "octopush" in second.runtime.standing.states)

    assert Standing.PAUSED is second.runtime.standing.states["octopush"].standing


@pytest.mark.postgres
async def test_a_subscription_made_on_one_node_is_served_by_all(nodes: tuple[Rig, Rig]) -> None:
    first, second = nodes
    await subscribe(first)
    audience = second.gateway.notifier._audience
    await second.until(lambda: bool(audience.clients))
    sent = await second.send(workflow="sms")
    await notified(second)

    assert {sent["verification_id"]} == {one.data["verification_id"] for one in got(first)}


def got(node: Rig) -> list[Webhook]:
    assert isinstance(node.webhooks, FakeEndpoints)
    return node.webhooks.to(URL)


@pytest.mark.postgres
async def test_who_was_cut_off_looks_and_hears_again(
    nodes: tuple[Rig, Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """F42: what was said meanwhile is found by the look that follows a new connection."""
    monkeypatch.setattr(module, "_AGAIN", (0.01, 0.02))
    first, second = nodes
    sent = await first.send(workflow="sms")
    call = await held(second, sent["verification_id"])
    postgres.rows(first.store.url, postgres.OTHERS)  # type: ignore[union-attr]
    await first.until(lambda: not hints(first).connected.is_set())
    await first.octopush_receipt(first.transport.submissions[0], "DELIVERED")
    answer = await asyncio.wait_for(call, PATIENCE / 2)
    await asyncio.wait_for(hints(first).connected.wait(), PATIENCE)
    other = await first.send("+33622222222", workflow="sms")
    call = await held(second, other["verification_id"])
    await first.octopush_receipt(first.transport.submissions[1], "DELIVERED")
    again = await asyncio.wait_for(call, PATIENCE / 2)

    assert ["DELIVERED"] * 2 == [one.json()["delivery_status"] for one in (answer, again)]


@pytest.mark.postgres
async def test_without_hints_looking_goes_on(rig: Rig) -> None:
    """F42: a pooler that passes none on, a connection that cannot be had."""
    twin = await rig.beside()
    sent = await rig.send(workflow="sms")
    call = await held(twin, sent["verification_id"])
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    await twin.runtime.waiting.poll(OutboxReads(twin.runtime.engine).versions)
    answer = await asyncio.wait_for(call, PATIENCE / 2)
    await twin.stop()

    assert "DELIVERED" == answer.json()["delivery_status"]
