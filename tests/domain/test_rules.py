"""Limits, countries, guard and money as pure rules."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from factories import after
from fakes import START
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import guard, limits, spending
from gateway.domain.countries import Countries
from gateway.domain.errors import Forbidden, InvalidInput
from gateway.domain.guard import Guard, Seen
from gateway.domain.limits import Counter, Per, Rule
from gateway.domain.policy import Policy
from gateway.domain.spending import Spending, Tariff

KEY = b"limit:number"
waits = st.lists(st.integers(0, 90), min_size=1, max_size=60)


def admitted(rule: Rule, gaps: list[int]) -> list[datetime]:
    """When sends after those gaps (seconds) were let through, as the service counts them."""
    now, counter, through = START, None, []
    span = timedelta(seconds=rule.window)
    for gap in gaps:
        now += timedelta(seconds=gap)
        current = limits.within(counter, span, now)
        if limits.over(rule, current.count if current else 0) and not rule.shadow:
            continue
        counter = limits.count(counter, KEY, span, now)
        through.append(now)
    return through


# Windows.


@given(waits, st.integers(1, 5))
def test_no_window_ever_holds_more_than_the_maximum(gaps: list[int], most: int) -> None:
    """A window opens with the first send after the last one's end."""
    rule = Rule("number", Per.NUMBER, 60, most)
    through = admitted(rule, gaps)
    opened: datetime | None = None
    counts: dict[datetime, int] = {}
    for moment in through:
        if opened is None or moment >= opened + timedelta(seconds=60):
            opened = moment
        counts[opened] = counts.get(opened, 0) + 1

    assert max(counts.values()) <= most


@given(waits, st.integers(1, 5))
def test_no_span_as_long_as_a_window_sees_more_than_twice_the_maximum(
    gaps: list[int], most: int
) -> None:
    """The price of fixed windows, and all of it."""
    through = admitted(Rule("number", Per.NUMBER, 60, most), gaps)
    for first in through:
        span = [one for one in through if first <= one < first + timedelta(seconds=60)]

        assert len(span) <= 2 * most


@given(waits, st.integers(1, 5))
def test_a_rule_in_shadow_refuses_nothing(gaps: list[int], most: int) -> None:
    rule = Rule("number", Per.NUMBER, 60, most, shadow=True)

    assert len(gaps) == len(admitted(rule, gaps))


@given(st.integers(-(10**6), 10**9), st.integers(1, 31 * 86_400))
def test_a_window_on_the_clock_holds_its_moment_on_every_node(seconds: int, span: int) -> None:
    now = after(seconds)
    began = limits.opened(span, now)

    assert began <= now < began + timedelta(seconds=span)
    assert began == limits.opened(span, began)
    assert 0 == int(began.timestamp()) % span


def test_the_last_send_of_a_window_is_allowed_and_no_more() -> None:
    rule = Rule("number", Per.NUMBER, 60, 3)

    assert [False, False, False, True] == [limits.over(rule, used) for used in range(4)]


def test_a_window_ends_at_its_moment() -> None:
    counter = Counter(KEY, START, 3)
    span = timedelta(seconds=60)

    assert 4 == limits.count(counter, KEY, span, after(59.999)).count
    assert Counter(KEY, after(60), 1) == limits.count(counter, KEY, span, after(60))


def test_the_refusal_names_everything() -> None:
    error = limits.reached(Rule("range", Per.PREFIX, 60, 3), after(60), after(20.5))

    assert ("limit_reached", 39.5) == (error.code, error.retry_after)
    assert {
        "rule": "range",
        "limit": 3,
        "window": 60,
        "remaining": 0,
        "reset": "2026-11-21T12:01:00.000Z",
    } == error.facts
    assert "3 sends in 60 s for this prefix" in error.detail
    assert "Try again in 40 s." in error.detail


def test_another_window_or_subject_begins_anew_and_another_maximum_does_not() -> None:
    rule = Rule("a", Per.PREFIX, 60, 3, digits=6)

    assert rule.tag == Rule("a", Per.PREFIX, 60, 9, shadow=True, digits=6).tag
    assert 4 == len(
        {
            one.tag
            for one in (
                rule,
                Rule("b", Per.PREFIX, 60, 3, digits=6),
                Rule("a", Per.PREFIX, 61, 3, digits=6),
                Rule("a", Per.PREFIX, 60, 3, digits=7),
            )
        }
    )


def test_counters_are_kept_as_long_as_the_longest_window() -> None:
    rules = (Rule("number", Per.NUMBER, 7200, 1), Rule("wide", Per.CLIENT, 86_400, 1))

    assert timedelta(hours=1) == Policy().longest
    assert timedelta(hours=2) == Policy(rules=rules).longest


# Addresses.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
    ],
)
def test_an_address_is_counted_by_its_network(text: str, expected: str) -> None:
    assert expected == limits.network(text)


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4:80", "[::1]", "fe80::1%eth0", "203.0.113.07", "::1 ", "a.b.c.d"]
)
def test_what_is_no_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        limits.network(text)

    assert "client_ip_invalid" == refused.value.code
    assert not text or text not in refused.value.detail


# Countries.


@pytest.mark.parametrize(
    ("countries", "refused"),
    [
        (Countries(), set()),
        (Countries(allow=frozenset({"FR"})), {"DE", "LV"}),
        (Countries(deny=frozenset({"LV"})), {"LV"}),
        (Countries(allow=frozenset({"FR", "LV"}), deny=frozenset({"LV"})), {"DE", "LV"}),
        (Countries(monitor=frozenset({"FR", "DE", "LV"})), set()),
    ],
)
def test_countries_are_allowed_or_refused(countries: Countries, refused: set[str]) -> None:
    for country in {"FR", "DE", "LV"} - refused:
        countries.admit(country)
    for country in refused:
        with pytest.raises(Forbidden) as error:
            countries.admit(country)

        assert {"rule": "countries", "country": country} == error.value.facts


def test_a_monitored_country_is_told_apart() -> None:
    countries = Countries(monitor=frozenset({"DE"}))

    assert (False, True) == (countries.admit("FR"), countries.admit("DE"))


# The guard.

RULE = Guard(sends=10, percent=20, budget=5, country_budget=50)


@pytest.mark.parametrize(
    ("settled", "current", "why"),
    [
        (Seen(), Seen(), None),
        (Seen(9, 0), Seen(), None),  # too few to tell
        (Seen(10, 2), Seen(), None),
        (Seen(10, 1), Seen(), "ratio"),
        (Seen(100, 19), Seen(), "ratio"),
        (Seen(100, 20), Seen(), None),
        (Seen(), Seen(4, 0), None),
        (Seen(), Seen(5, 0), "budget"),
        (Seen(), Seen(5, 1), None),
        (Seen(), Seen(5, 9), None),  # codes of the window before, typed in this one
        (Seen(10, 0), Seen(5, 0), "ratio"),
    ],
)
def test_the_guard_judges_a_prefix(settled: Seen, current: Seen, why: str | None) -> None:
    verdict = guard.judge(RULE, "+3361234", settled, current)

    assert why == (verdict.why if verdict is not None else None)


def test_a_country_has_its_own_budget() -> None:
    assert guard.judge(RULE, "FR", Seen(), Seen(49, 0)) is None
    assert "budget" == getattr(guard.judge(RULE, "FR", Seen(), Seen(50, 0)), "why", None)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 100))
def test_enough_typed_codes_always_open_a_scope(sent: int, unverified: int, percent: int) -> None:
    """Whatever the settings, a scope whose every code is typed is never refused."""
    rule = Guard(sends=1, percent=percent, budget=1)
    typed = Seen(sent, sent)

    assert guard.judge(rule, "+3361234", typed, typed) is None
    assert 0 <= Seen(sent, unverified).unverified <= sent


@given(st.integers(0, 10_000))
def test_a_window_is_judged_once_it_has_settled(seconds: int) -> None:
    now = after(seconds)
    began = guard.settled(RULE, now)
    ended = began + timedelta(seconds=RULE.window)

    assert ended + timedelta(seconds=RULE.settle) <= now
    assert now < ended + timedelta(seconds=RULE.settle + RULE.window)
    assert now < guard.kept_until(RULE, began)


@pytest.mark.parametrize(
    ("passed", "covered"),
    [("FR", True), ("DE", False), ("+33", True), ("+336123", True), ("+3371", False)],
)
def test_what_is_let_through_covers_its_numbers(passed: str, covered: bool) -> None:
    assert covered == guard.covers(passed, "+33612345678", "FR")


# Money.


@pytest.mark.parametrize(
    ("text", "money"),
    [("0", 0), ("1", 1_000_000), ("0.045", 45_000), ("12.50", 12_500_000), ("0.000001", 1)],
)
def test_an_amount_is_read_exactly(text: str, money: int) -> None:
    assert money == spending.amount(text)


@pytest.mark.parametrize("text", ["", ".5", "1.", "1,5", "-1", "1e3", "0.0000001", " 1", "\u0661"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an amount is text"):
        spending.amount(text)


@given(st.integers(0, 10**14))
def test_an_amount_is_shown_as_it_is_read(money: int) -> None:
    assert money == spending.amount(spending.shown(money))


@pytest.mark.parametrize(
    ("number", "country", "price"),
    [
        ("+33612345678", "FR", 5),  # the longest prefix
        ("+33611111111", "FR", 4),
        ("+33711111111", "FR", 3),
        ("+4915123456789", "DE", 1),
        (None, None, 1),
    ],
)
def test_the_narrowest_price_is_taken(number: str | None, country: str | None, price: int) -> None:
    tariff = Tariff(1, {"FR": 3}, {"+336": 4, "+336123": 5})

    assert price == tariff.price(number, country)


def test_a_day_begins_at_its_hour() -> None:
    four = Spending("EUR", {}, 100, reset_hour=4)
    before = datetime(2026, 11, 21, 3, 59, 59, tzinfo=UTC)
    begins = datetime(2026, 11, 21, 4, tzinfo=UTC)

    assert four.day(before) + 1 == four.day(begins)
    assert begins == four.resets_at(four.day(before))


@given(st.lists(st.integers(0, 40), max_size=50))
def test_a_day_never_costs_more_than_its_cap(prices: list[int]) -> None:
    rule = Spending("EUR", {}, 100, {UUID(int=1): 7})
    for client in (UUID(int=1), UUID(int=2)):
        spent = 0
        for price in prices:
            spent += price if rule.fits(client, spent, price) else 0

        assert spent <= rule.cap_of(client)
