"""`gateway guard`: what it shows, what it lets through, and what it does not take."""

import asyncio
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.app import clock
from gateway.cli import app
from gateway.cli.output import Code, Failure
from gateway.domain import guard
from gateway.domain.guard import Guard
from gateway.domain.policy import guard_key
from gateway.store.engine import SqliteEngine
from gateway.store.tallies import Tallies, Tally

PUMPED = "+3361234"


@pytest.fixture
def data(tmp_path: Path, migrated: Path) -> Path:
    """A data folder whose database has seen 120 sends to a prefix in the window under way."""
    shutil.copy(migrated, tmp_path / "gateway.db")
    now = clock.now()

    async def fill() -> None:
        engine = SqliteEngine(tmp_path / "gateway.db")
        rule, counted = Guard(), Tallies()
        for began in {
            guard.under_way(rule, now),
            guard.under_way(rule, now) + timedelta(seconds=600),
        }:
            for scope, sent in ((PUMPED, 120), ("FR", 150)):
                until = now + timedelta(days=1)
                counted.add(Tally(guard_key(scope, began), "", sent, 1, until))
        await engine.begin()
        await counted.write(engine)
        await engine.commit()
        await engine.close()

    asyncio.run(fill())
    return tmp_path


def run(data: Path, *arguments: str, **env: str) -> Result:
    given = {"GATEWAY_DATA_DIR": str(data), "GATEWAY_CONFIG": "", **env}
    return CliRunner().invoke(app, ["guard", *arguments], env=given)


def shown(data: Path) -> dict[str, Any]:
    done = run(data, "--json")
    assert 0 == done.exit_code, done.output
    return {one["scope"]: one for one in json.loads(done.stdout)["scopes"]}


def refusal(done: Result) -> tuple[str, Code]:
    assert isinstance(done.exception, Failure)
    return str(done.exception), done.exception.code


def test_it_shows_what_would_be_refused_and_why(data: Path) -> None:
    found = shown(data)

    assert [PUMPED, "FR"] == list(found)
    assert {"sent": 120, "verified": 1} == found[PUMPED]["current"]
    assert (True, False) == (found[PUMPED]["refuses"], found["FR"]["refuses"])
    assert {"why": "budget", "seen": 119, "limit": 100} == found[PUMPED]["verdict"]


def test_it_shows_a_table(data: Path) -> None:
    done = run(data)

    assert "would be refused: 119 sends of this window are unverified, 100 are allowed" in (
        done.stdout
    )
    assert "mode: shadow; windows of 600 s" in done.output


def test_a_prefix_is_let_through_until_the_end_of_a_day(data: Path) -> None:
    done = run(data, "allow", PUMPED, "--until", "2099-12-31", "--reason", "a campaign")

    assert (0, f"{PUMPED} is let through until 2099-12-31 23:59 UTC\n") == (
        done.exit_code,
        done.stdout,
    )
    assert not shown(data)[PUMPED]["refuses"]
    assert "a campaign" == shown(data)[PUMPED]["passed"]["reason"]
    assert "let through until 2099-12-31 23:59: a campaign" in run(data).stdout


def test_what_was_said_before_is_replaced(data: Path) -> None:
    run(data, "allow", "FR", "--until", "2099-12-31")
    done = run(data, "allow", "FR", "--until", "2098-01-01T12:00:00+02:00", "--json")

    assert "2098-01-01T10:00:00Z" == json.loads(done.stdout)["until"]
    assert "2098-01-01T10:00:00Z" == shown(data)["FR"]["passed"]["until"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("allow", "33612", "--until", "2099-12-31"), "PREFIX is + and digits"),
        (("allow", "France", "--until", "2099-12-31"), "PREFIX is + and digits"),
        (("allow", "+336", "--until", "soon"), "--until is a date"),
        (("allow", "+336", "--until", "2020-01-01"), "--until is in the past"),
        (("allow", "+336", "--until", "2099-12-31", "--reason", "x" * 201), "--reason"),
    ],
)
def test_what_it_does_not_take_is_named(
    data: Path, arguments: tuple[str, ...], problem: str
) -> None:
    message, code = refusal(run(data, *arguments))

    assert Code.USAGE is code
    assert problem in message


def test_a_guard_that_is_off_says_so(data: Path) -> None:
    file = data / "gateway.toml"
    file.write_text('[guard]\nmode = "off"\n', encoding="utf-8")
    message, _ = refusal(run(data, GATEWAY_CONFIG=str(file)))

    assert "the guard is off" in message
