"""The log: JSON lines, gathered and written soon, in which no code, key or number stands (F44)."""

import asyncio
import atexit
import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import log
from gateway.log import FLUSH_EVERY, BufferedOutput
from gateway.ports import Secret

ROOT = Path(__file__).resolve().parents[1]
KEY = "otp_live_0123456789abcdefABCDEF-_x"


class Target(io.BytesIO):
    """A file that says when it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()
        self.flushes = 0

    def write(self, data: Any) -> int:
        self.written.set()
        return super().write(data)

    def flush(self) -> None:
        self.flushes += 1

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
def output(target: Target) -> BufferedOutput:
    return BufferedOutput(target)


@pytest.fixture
def configured(target: Target) -> Iterator[Target]:
    """structlog as `serve` sets it up, and as it was afterwards."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    made = log.configure(target=target)
    yield target
    atexit.unregister(made.drain)
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


# Lines.


def test_a_line_is_json_with_event_level_time_and_facts(configured: Target) -> None:
    structlog.get_logger().info("attempt_heard", route="sms", state="SENT")
    (line,) = configured.lines
    moment = datetime.fromisoformat(line.pop("timestamp"))

    assert {"event": "attempt_heard", "level": "info", "route": "sms", "state": "SENT"} == line
    assert moment.utcoffset() == datetime.now(UTC).utcoffset()  # noqa: TID251  the line's own clock


def test_an_event_is_one_line_whatever_is_in_it(configured: Target) -> None:
    structlog.get_logger().info("odd", word="one\ntwo\r\u2028three")

    assert 1 == configured.getvalue().count(b"\n")


@pytest.mark.parametrize(("level", "expected"), [("info", ["a", "b"]), ("warning", ["b"])])
def test_lines_below_the_level_are_left_out(
    configured: Target, level: str, expected: list[str]
) -> None:
    made = log.configure(level, configured)
    structlog.get_logger().info("a")
    structlog.get_logger().warning("b")
    atexit.unregister(made.drain)

    assert expected == [line["event"] for line in configured.lines]


def test_what_json_does_not_know_is_written_as_text(configured: Target) -> None:
    structlog.get_logger().info("odd", what={1}, problem_of=ValueError("no"))
    (line,) = configured.lines

    assert ("{1}", "no") == (line["what"], line["problem_of"])


def test_an_exception_is_a_field_and_redacted(configured: Target) -> None:
    error = ValueError(f"+33612345678 with {KEY}")
    structlog.get_logger().error("unforeseen", exc_info=error)
    (line,) = configured.lines

    assert "ValueError: +••• with •••" in line["exception"]


# Redaction.


def logged(target: Target, **facts: object) -> dict[str, Any]:
    """The facts of a line, as they were written."""
    structlog.get_logger().info("e", **facts)
    line = target.lines[-1]
    return {name: line[name] for name in facts}


@pytest.mark.parametrize(
    "name", ["code", "key", "authorization", "secret", "token", "api_key", "text"]
)
@pytest.mark.parametrize("value", ["123456", 123456, None, ["x"]])
def test_a_field_with_the_name_of_a_secret_is_blotted_out(
    configured: Target, name: str, value: object
) -> None:
    assert {name: "•••", "other": 1} == logged(configured, **{name: value, "other": 1})


@pytest.mark.parametrize("name", ["detail", "error", "word", "problem"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no such number: +33612345678", "no such number: +•••"),
        ("06 12 34 56 78", "•••"),
        ("code 0123 refused", "code ••• refused"),
        (f"key {KEY} refused", "key ••• refused"),
        ("key otp_test_abc refused", "key ••• refused"),
        ('{"authorization": "Bearer abc.def"}', '{"authorization": "•••"}'),
        ("HTTP 503 after 10 s", "HTTP 503 after 10 s"),
        ("", ""),
    ],
)
def test_free_text_loses_keys_and_whatever_could_be_a_number(
    configured: Target, name: str, text: str, expected: str
) -> None:
    assert {name: expected} == logged(configured, **{name: text})


@pytest.mark.parametrize("value", [None, 12345, 1.5, True])
def test_free_fields_that_are_no_text_stay(configured: Target, value: object) -> None:
    assert {"detail": value} == logged(configured, detail=value)


def test_ids_and_times_stay(configured: Target) -> None:
    facts = {
        "attempt_id": "01900000-0000-7000-8000-000000000001",
        "expires_at": "2026-11-21T12:00:00Z",
        "recipient": "+33 6•• ••• •78",
        "reference": "order-4711",
    }

    assert facts == logged(configured, **facts)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="otp_live_test0123456789abc \n", max_size=30), st.text(max_size=20))
def test_no_key_survives_in_free_text(configured: Target, before: str, behind: str) -> None:
    assert KEY not in logged(configured, detail=f"{before} {KEY} {behind}")["detail"]


@dataclass(frozen=True)
class Account:
    """Settings of a provider, as a careless line might log them."""

    login: str
    api_key: Secret


@pytest.mark.parametrize(
    "value",
    [
        Secret("credential-in-the-clear"),
        [Secret("credential-in-the-clear")],
        {"one": Secret("credential-in-the-clear")},
        Account("ops@example.com", Secret("credential-in-the-clear")),
    ],
    ids=["itself", "list", "table", "settings"],
)
def test_a_secret_is_not_written_whatever_its_field_is_called(
    configured: Target, value: object
) -> None:
    """`ports.Secret`: "so that settings can be shown and logged"."""
    structlog.get_logger().info("started", given=value)

    assert b"credential-in-the-clear" not in configured.getvalue()


# Gathering.


async def test_lines_are_gathered(output: BufferedOutput, target: Target) -> None:
    output.write(b"one\n")
    output.flush()
    gathered = target.getvalue()
    output.drain()

    assert b"" == gathered


async def test_gathered_lines_are_written_after_a_moment(
    output: BufferedOutput, target: Target
) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    for line in (b"one\n", b"two\n"):
        output.write(line)
        output.flush()
    await asyncio.wait_for(target.written.wait(), 5)
    lasted = loop.time() - started

    assert b"one\ntwo\n" == target.getvalue()
    assert lasted < FLUSH_EVERY + 1


async def test_lines_after_that_moment_are_written_after_another(
    output: BufferedOutput, target: Target
) -> None:
    for line in (b"one\n", b"two\n"):
        target.written.clear()
        output.write(line)
        output.flush()
        await asyncio.wait_for(target.written.wait(), 5)

    assert b"one\ntwo\n" == target.getvalue()


async def test_much_is_written_at_once(output: BufferedOutput, target: Target) -> None:
    line = b"x" * 1023 + b"\n"
    for _ in range(64):
        output.write(line)
        output.flush()

    assert line * 64 == target.getvalue()


async def test_less_than_much_is_not(output: BufferedOutput, target: Target) -> None:
    line = b"x" * 1023 + b"\n"
    for _ in range(63):
        output.write(line)
        output.flush()
    gathered = target.getvalue()
    output.drain()

    assert b"" == gathered


@pytest.mark.parametrize("level", ["warning", "error", "critical"])
async def test_a_warning_or_worse_is_written_at_once_with_what_was_gathered(
    configured: Target, level: str
) -> None:
    """The last words before a crash are the ones that matter."""
    logger = structlog.get_logger()
    logger.info("before")
    getattr(logger, level)("trouble")

    assert ["before", "trouble"] == [line["event"] for line in configured.lines]


async def test_lines_that_are_told_together_are_lines_like_others(configured: Target) -> None:
    """One that cannot be rendered takes no other with it; a warning among them leaves at once."""
    told = [
        ("one", {"word": "+33612345678", "code": "123456"}, "info"),
        ("broken", {"much": 1 << 64}, "info"),
        ("trouble", {}, "warning"),
        ("unheard", {}, "debug"),
        ("last", {}, "info"),
    ]
    with pytest.raises(orjson.JSONEncodeError):
        structlog.get_logger().tell(told)
    lines = configured.lines

    assert ["one", "trouble", "last"] == [line["event"] for line in lines]
    assert ["info", "warning", "info"] == [line["level"] for line in lines]
    assert ("+•••", "•••") == (lines[0]["word"], lines[0]["code"])
    assert 1 == len({line["timestamp"] for line in lines})


def test_without_a_loop_a_line_is_written_at_once(output: BufferedOutput, target: Target) -> None:
    output.write(b"one\n")
    output.flush()

    assert b"one\n" == target.getvalue()


async def test_draining_writes_everything_in_one_go(output: BufferedOutput, target: Target) -> None:
    output.write(b"one\n")
    output.flush()
    output.write(b"two\n")
    output.drain()

    assert (b"one\ntwo\n", 1) == (target.getvalue(), target.flushes)


async def test_what_was_drained_is_not_written_again(
    output: BufferedOutput, target: Target
) -> None:
    output.write(b"one\n")
    output.flush()
    output.drain()
    output.drain()

    assert b"one\n" == target.getvalue()


def test_a_line_tells_its_length(output: BufferedOutput) -> None:
    assert 4 == output.write(b"one\n")


def test_the_rest_is_written_at_the_exit_of_the_process() -> None:
    script = """
import asyncio, structlog
from gateway import log

async def main():
    log.configure()
    structlog.get_logger().info("last words")

asyncio.run(main())
"""
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], capture_output=True, check=True, cwd=ROOT
    )

    assert "last words" == orjson.loads(ran.stdout)["event"]


def test_other_libraries_speak_up_from_warning_on(configured: Target) -> None:
    assert logging.WARNING == logging.getLogger().level
