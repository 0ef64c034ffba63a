"""When a route is paused, probed, resumed, and what an operator's word does."""

from datetime import UTC, datetime, timedelta

import pytest
from factories import after
from fakes import START
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import health
from gateway.domain.health import (
    BREAKER,
    COOL_DOWN,
    FORGIVEN,
    LEAST,
    LONGEST_COOL_DOWN,
    Heard,
    Reason,
    RouteState,
    Shut,
    Standing,
    Tally,
)

tallies = st.builds(Tally, *[st.integers(0, 200)] * len(Tally._fields))


def paused(reason: Reason = Reason.REFUSED, **changes: object) -> RouteState:
    made = health.pause("sms", None, reason, START)
    assert made is not None
    return RouteState(**{name: getattr(made, name) for name in made.__slots__} | changes)


@pytest.mark.parametrize(
    ("tally", "reason"),
    [
        (Tally(), None),
        (Tally(refused=LEAST - 1), None),
        (Tally(refused=LEAST), Reason.REFUSED),
        (Tally(accepted=LEAST, refused=LEAST), Reason.REFUSED),
        (Tally(accepted=LEAST + 1, refused=LEAST), None),
        (Tally(unknown=LEAST), Reason.UNKNOWN),
        (Tally(accepted=1, unknown=LEAST, refused=2), Reason.UNKNOWN),
        (Tally(accepted=100, failed=100), None),  # what numbers are is no fault of the route
        (Tally(accepted=20, silent=LEAST), Reason.SILENCE),
        (Tally(accepted=20, silent=LEAST - 1), None),
        (Tally(accepted=100, silent=LEAST, delivered=3), None),
        (Tally(accepted=100, silent=40, delivered=10), Reason.SILENCE),
        (Tally(accepted=100, silent=40, verified=11), None),  # codes arrive: people type them
        (Tally(accepted=100, silent=40, failed=11), None),  # receipts come
    ],
)
def test_what_pauses_a_route(tally: Tally, reason: Reason | None) -> None:
    assert reason == health.judge(tally)


@given(tallies)
def test_nothing_bad_never_pauses(tally: Tally) -> None:
    assert health.judge(tally._replace(refused=0, unknown=0, silent=0)) is None


@given(tallies, st.integers(0, 50))
def test_more_that_went_well_pauses_nothing(tally: Tally, more: int) -> None:
    better = tally._replace(accepted=tally.accepted + more, delivered=tally.delivered + more)

    assert health.judge(tally) is not None or health.judge(better) is None


@given(tallies, tallies)
def test_tallies_add_up_in_any_order(one: Tally, other: Tally) -> None:
    assert one.plus(other) == other.plus(one)
    assert sum(one) + sum(other) == sum(one.plus(other))


def test_every_word_has_its_count() -> None:
    assert Tally(*[1] * len(Tally._fields)) == health.tally(dict.fromkeys(Heard, 1))


def test_a_paused_route_lets_one_message_through_after_its_cool_down() -> None:
    state = paused()
    at = START + COOL_DOWN

    assert Shut(frozenset({"sms"})) == health.shut([state], at - timedelta(seconds=1))
    assert not health.shut([state], at)
    assert health.shut([health.probed(state, at)], at)


@given(st.integers(1, 10_000))
def test_cool_downs_grow_and_end(opened: int) -> None:
    assert COOL_DOWN <= health.cool_down(opened) <= health.cool_down(opened + 1)
    assert health.cool_down(opened) <= LONGEST_COOL_DOWN


@pytest.mark.parametrize(
    ("reason", "proofs"),
    [
        (Reason.ACCOUNT, {Heard.ACCEPTED}),
        (Reason.REFUSED, {Heard.ACCEPTED}),
        (Reason.UNKNOWN, {Heard.ACCEPTED}),
        (Reason.SILENCE, {Heard.DELIVERED, Heard.READ, Heard.FAILED, Heard.VERIFIED}),
    ],
)
def test_what_proves_a_paused_route_well(reason: Reason, proofs: set[Heard]) -> None:
    state = paused(reason)
    found = {heard for heard in Heard if health.resumed(state, heard, after(9)) is not None}

    assert proofs == found


def test_a_resumed_route_is_ready_and_remembers() -> None:
    """Flapping makes the pauses longer; an hour of good conduct makes the next one short again."""
    state = health.probed(paused(), after(60))
    ready = health.resumed(state, Heard.ACCEPTED, after(70))
    assert ready is not None
    again = health.pause("sms", ready, Reason.REFUSED, after(90))
    late = health.pause("sms", ready, Reason.REFUSED, ready.since + FORGIVEN)

    assert (Standing.READY, None, after(70)) == (ready.standing, ready.probe_at, ready.since)
    assert again is not None
    assert late is not None
    assert (3, 1) == (again.opened, late.opened)
    assert again.probe_at == after(90) + health.cool_down(3)


def test_an_operators_word_sticks() -> None:
    """No breaker pauses, resumes or probes what an operator has disabled."""
    state = health.disabled("sms", "fraud", "ops", START)

    assert health.pause("sms", state, Reason.ACCOUNT, after(1)) is None
    assert [None] * len(Heard) == [health.resumed(state, heard, after(1)) for heard in Heard]
    assert not health.due(state, after(10**6))
    assert Shut(disabled=frozenset({"sms"})) == health.shut([state], after(10**6))


def test_enabling_forgets_what_was() -> None:
    state = health.enabled("sms", "mended", "ops", after(5))

    assert (Standing.READY, 0, after(5)) == (state.standing, state.opened, state.since)
    assert not health.shut([state], after(5))


def test_a_paused_route_is_not_paused_again() -> None:
    assert health.pause("sms", paused(), Reason.ACCOUNT, after(5)) is None
    assert BREAKER == paused().actor


def test_routes_of_which_nothing_is_heard() -> None:
    assert frozenset({"sms"}) == health.silent([paused(Reason.SILENCE)])
    assert not health.silent([paused(), health.enabled("sms", Reason.SILENCE, "ops", START)])


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 2)))  # noqa: DTZ001
def test_a_bucket_is_five_minutes_that_hold_the_moment(now: datetime) -> None:
    at = health.bucket(now)

    assert at <= now < at + health.BUCKET
    assert at == health.bucket(at)


def test_a_delivery_is_counted_by_the_step_it_came_within() -> None:
    told = [health.latency(seconds) for seconds in (0, 2, 2.1, 60, 300, 301)]

    assert ["within_2", "within_2", "within_5", "within_60", "within_300", "slower"] == told


def test_a_share_of_deliveries_came_within_a_step() -> None:
    heard = Tally(within_2=5, within_30=4, slower=1)

    assert (2, 30, None) == tuple(
        health.quantile(heard.latency, share) for share in (0.5, 0.9, 0.95)
    )


def test_a_pinned_route_is_neither_paused_nor_shut() -> None:
    state = health.pinned("sms", "the only one", "alice", START)

    assert health.pause("sms", state, Reason.SILENCE, START) is None
    assert not health.shut([state], START)
