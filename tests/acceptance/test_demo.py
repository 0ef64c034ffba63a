"""The demo as a new user meets it: one that ends by itself, and one that stays up to be tried."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.demo.playing import Play
from gateway.demo.scenes import SCENES
from gateway.demo.showing import CURL_NUMBER

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 100  # for both, side by side; about 16 on two idle processors

# What may stand in a log or a row and hold digits of its own: ids, references, times.
_IDS = re.compile(rb"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]+")

pytestmark = pytest.mark.timeout(2 * SECONDS)


@dataclass
class Demo:
    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path

    def stdout(self) -> str:
        return self.out.read_text("utf-8")

    def named(self, word: str) -> str:
        """What the demo says its `gateway`, `phones`, `key` or `log` is."""
        found = re.search(rf"^{word} +(\S+)", self.stdout(), re.MULTILINE)
        assert found is not None, self.stdout()
        return found[1]


@contextlib.contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Demo]:
    """A demo on free ports, ended by its own process id."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
    given = [sys.executable, "-X", "dev", "-W", "error", "-m", "gateway", "demo", *arguments]
    folder.mkdir()
    out, err = folder / "stdout", folder / "stderr"
    with out.open("w") as to_out, err.open("w") as to_err:
        process = subprocess.Popen(
            [*given, "--port", "0", "--sandbox-port", "0"],
            cwd=folder,
            env=env | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
            stdout=to_out,
            stderr=to_err,
        )
    try:
        yield Demo(process, out, err)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demo, Demo]]:
    folder = tmp_path_factory.mktemp("demo")
    with started(folder / "once", "--once") as once, started(folder / "stays") as stays:
        deadline = time.monotonic() + SECONDS
        while "It stays up" not in stays.stdout() and time.monotonic() < deadline:
            assert stays.process.poll() is None, stays.err.read_text("utf-8")
            time.sleep(0.1)
        once.process.wait(SECONDS)
        yield once, stays


@pytest.fixture
def once(both: tuple[Demo, Demo]) -> Demo:
    return both[0]


@pytest.fixture
def stays(both: tuple[Demo, Demo]) -> Demo:
    return both[1]


def test_once_ends_with_zero_when_every_scenario_ended_as_expected(once: Demo) -> None:
    verdicts = re.findall(r"^(ok|FAILED) +(\w+)", once.stdout(), re.MULTILINE)

    assert once.process.returncode == 0, once.stdout()
    assert [("ok", scene.name) for scene in SCENES] == verdicts


def test_once_leaves_nothing_behind_and_complains_of_nothing(once: Demo) -> None:
    left = [file.name for file in once.out.parent.iterdir()]

    assert sorted(left) == ["stderr", "stdout"]
    for word in ("Traceback", "Warning", "Exception", "kept in"):
        assert word not in once.err.read_text("utf-8")


def test_progress_and_timelines_are_plain_when_there_is_no_terminal(once: Demo) -> None:
    assert "silent: messenger SENT, sms DELIVERED" in once.err.read_text("utf-8").splitlines()
    assert once.stdout().count("time (UTC)") == len(SCENES)
    assert "\x1b" not in once.stdout() + once.err.read_text("utf-8")


def test_the_printed_curl_line_works(stays: Demo) -> None:
    line = next(line for line in stays.stdout().splitlines() if line.startswith("curl "))
    words = shlex.split(line)
    if shutil.which("curl"):
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        answer = json.loads(done.stdout)
    else:
        headers = dict(words[at + 1].split(": ") for at, word in enumerate(words) if word == "-H")
        answer = httpx.post(words[2], content=words[-1], headers=headers, trust_env=False).json()
    phone = _messages(stays, CURL_NUMBER)

    assert answer["status"] == "PENDING", answer
    assert [message["channel"] for message in phone] == ["messenger"]


def test_no_code_and_no_full_number_leaves_the_phones(stays: Demo) -> None:
    """F44: searched are the terminal, the log, the database and its WAL."""
    messages = _messages(stays)
    codes = {code for one in messages for code in re.findall(r"\b[0-9]{6}\b", one["text"])}
    numbers = {one["number"][1:] for one in messages}
    data = Path(stays.named("log")).parent
    places = [stays.out, stays.err, *(file for file in data.iterdir() if file.is_file())]

    assert len(codes) >= 7
    assert {"gateway.db", "gateway.db-wal", "gateway.log"} <= {file.name for file in places}
    for place in places:
        content = _IDS.sub(b"", place.read_bytes())
        if place == stays.out:  # the curl line names a number, for there is no sending without
            content = content.replace(CURL_NUMBER.encode(), b"")
        for secret in codes | numbers:
            assert secret.encode() not in content, place


def test_it_stays_up_until_ctrl_c(stays: Demo) -> None:
    folder = Path(stays.named("log")).parent
    assert httpx.get(stays.named("gateway") + "/readyz", trust_env=False).status_code == 200
    assert folder.exists()

    stays.process.send_signal(signal.SIGINT)

    assert stays.process.wait(30) == 0, stays.err.read_text("utf-8")
    assert not folder.exists()
    for word in ("Traceback", "Warning", "Exception"):
        assert word not in stays.err.read_text("utf-8")


def _messages(stays: Demo, number: str | None = None) -> list[dict[str, Any]]:
    asked = {"number": number[1:]} if number else {}
    url = stays.named("phones") + "messages"
    messages: list[dict[str, Any]] = httpx.get(url, params=asked, trust_env=False).json()[
        "messages"
    ]
    return messages


# The verdict.


def _played(**changes: Any) -> Play:
    """The scenario of a silent messenger, as it should end."""
    scene = next(scene for scene in SCENES if scene.name == "silent")
    attempts = [
        {"channel": channel, "state": state, "repeats": 0}
        for channel, state in (word.split(":") for word in scene.attempts)
    ]
    status = {"status": "PENDING", "delivery_status": "DELIVERED", "attempts": attempts}
    play = Play(scene, "id", status=status, phone=["messenger", "sms"], codes={"1"})
    for name, value in changes.items():
        setattr(play, name, value)
    return play


def test_a_scenario_as_expected_has_no_differences() -> None:
    assert _played().differences() == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"phone": ["messenger", "sms", "sms"]}, "messages on the phone"),
        ({"codes": {"1", "2"}}, "codes on the phone"),
        ({"checks": [200]}, "answers to checks"),
        ({"status": {}}, "attempts"),
    ],
)
def test_anything_else_is_told(changes: dict[str, Any], told: str) -> None:
    assert _played(**changes).differences()[0].startswith(f"{told}: ")
