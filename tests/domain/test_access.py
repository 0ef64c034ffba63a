"""Who may do what at the console, and for how long."""

from datetime import timedelta
from uuid import UUID

import pytest
from fakes import START

from gateway.domain import access
from gateway.domain.access import Right, Role
from gateway.domain.errors import Limited
from gateway.domain.limits import Counter

ID = UUID(int=7)


@pytest.mark.parametrize(
    ("role", "rights"),
    [
        (Role.VIEWER, {Right.LOOK}),
        (Role.SUPPORT, {Right.LOOK, Right.REVEAL, Right.ACT}),
        (Role.ADMIN, set(Right)),
    ],
)
def test_what_each_role_may(role: Role, rights: set[Right]) -> None:
    assert rights == {right for right in Right if role.may(right)}


@pytest.mark.parametrize(
    ("idle", "age", "alive"),
    [
        (timedelta(), timedelta(), True),
        (access.IDLE - timedelta(seconds=1), access.IDLE, True),
        (access.IDLE, access.IDLE, False),
        (timedelta(), access.LONGEST - timedelta(seconds=1), True),
        (timedelta(), access.LONGEST, False),
    ],
)
def test_a_session_ends_when_idle_and_in_any_case(
    idle: timedelta, age: timedelta, alive: bool
) -> None:
    now = START + age
    opened = access.opened(b"digest", ID, START)
    seen = access.Session(b"digest", ID, START, now - idle, START, opened.ends_at)

    assert alive is seen.alive(now)


def test_a_password_serves_for_dangerous_acts_for_five_minutes() -> None:
    opened = access.opened(b"digest", ID, START)

    assert opened.proven(START + access.PROOF - timedelta(seconds=1))
    assert not opened.proven(START + access.PROOF)


def test_the_sixth_try_waits_for_the_window_to_end() -> None:
    counter = None
    for _ in range(5):
        counter = access.tried(counter, b"key", 5, START)
    with pytest.raises(Limited) as refused:
        access.tried(counter, b"key", 5, START + timedelta(minutes=5))

    assert ("login_tries_used_up", 600) == (refused.value.code, refused.value.retry_after)
    assert Counter(b"key", START + access.WINDOW, 1) == access.tried(
        counter, b"key", 5, START + access.WINDOW
    )


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("short", "at least 15"),
        ("x" * 201, "at most 200"),
        ("abababababababababab", "same few characters"),
        ("my name is Alice, hello", "operator's name"),
        ("correct horse battery", None),
    ],
)
def test_a_password_is_judged_by_its_length(password: str, problem: str | None) -> None:
    found = access.password_problem(password, "alice")

    assert (found is None) if problem is None else (found is not None and problem in found)
