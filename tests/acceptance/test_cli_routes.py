"""Routes from the command line, beside a running `serve`: tried, switched off and on."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60  # for anything; about one on an idle processor

pytestmark = pytest.mark.timeout(3 * SECONDS)


@dataclass
class Served:
    """A running gateway with the sandbox's routes, and a folder that commands run in."""

    folder: Path
    env: dict[str, str]

    def run(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            cwd=self.folder,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def key(self, name: str, scopes: str) -> str:
        return str(self.json("client", "add", name, "--scopes", scopes)["key"])

    def route(self, name: str) -> dict[str, Any]:
        return next(one for one in self.json("routes") if one["name"] == name)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("routes")
    env = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
    env |= {"PYTHONPATH": str(ROOT)}
    err = folder / "stderr"
    with err.open("w") as to_err, (folder / "stdout").open("w") as to_out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--port", "0", "--sandbox-port", "0"],
            cwd=folder,
            env=env,
            stdout=to_out,
            stderr=to_err,
        )
    try:
        until = time.monotonic() + SECONDS
        while not (found := re.search(r"listens on (\S+)", err.read_text("utf-8"))):
            assert process.poll() is None, err.read_text("utf-8")
            assert time.monotonic() < until
            time.sleep(0.05)
        env["GATEWAY_URL"] = found[1]
        made = Served(folder, env)
        env["GATEWAY_API_KEY"] = made.key("ops", "send status operate")
        yield made
    finally:
        process.terminate()
        process.wait(SECONDS)


def test_one_message_over_one_route_is_followed_until_it_has_arrived(served: Served) -> None:
    done = served.run("send", "--route", "twilio_sms", "--to", "+33600000042")

    assert (0, "DELIVERED over twilio_sms\n") == (done.returncode, done.stdout)
    assert re.search(r"SENT  by submission.*\n.*DELIVERED  by receipt", done.stderr, re.DOTALL)


def test_one_that_fails_says_why(served: Served) -> None:
    done = served.run("send", "--route", "twilio_sms", "--to", "+33600000300")

    assert 1 == done.returncode
    assert "not delivered over twilio_sms: unreachable" in done.stderr


def test_one_of_which_nothing_is_heard_says_where_to_look(served: Served) -> None:
    done = served.run("send", "+33600000242", "--route", "vonage_sms", "--wait", "1", "--json")

    assert 1 == done.returncode
    assert "check the callback URL in `gateway routes`" in done.stderr
    assert ["SENT"] == [one["state"] for one in json.loads(done.stdout)["attempts"]]


def test_a_route_is_tried_by_operators_only(served: Served) -> None:
    key = served.key("shop", "send status")
    done = served.run("send", "+33600000043", "--route", "octopush", GATEWAY_API_KEY=key)
    nobody = served.run("send", "+33600000043", "--route", "nobody")

    assert (1, 1) == (done.returncode, nobody.returncode)
    assert "scope_missing" in done.stderr
    assert "unknown_route" in nobody.stderr


def test_a_route_is_switched_off_and_on_beside_serve(served: Served) -> None:
    off = served.run("routes", "disable", "octopush", "--reason", "fraud in FR")
    shown = served.route("octopush")
    plain = served.run("routes").stdout
    until = time.monotonic() + SECONDS
    while (
        "no_route"
        not in (refused := served.run("send", "--workflow", "octopush", "+33600000044")).stderr
    ):
        assert time.monotonic() < until
    on = served.run("routes", "enable", "octopush")
    while (sent := served.run("send", "--workflow", "octopush", "+33600000045")).returncode:
        assert time.monotonic() < until

    assert (0, 1, 0, 0) == (off.returncode, refused.returncode, on.returncode, sent.returncode)
    assert ("disabled", "fraud in FR") == (shown["state"], shown["reason"])
    assert re.search(r"octopush +octopush +sms +octopush +disabled", plain)
    assert "ready" == served.route("octopush")["state"]


def test_the_list_says_what_each_can_do_and_what_was_heard(served: Served) -> None:
    shown = served.route("telegram")
    served.run("send", "--route", "aws_sms", "--to", "+33600000046")

    assert ("token", "credits", True, True) == (
        shown["correlates"],
        shown["cost"],
        shown["polls"],
        shown["revokes"],
    )
    assert shown["callback_url"] is None
    assert "signature" in shown["proof"]
    assert served.route("vonage_sms")["callback_url"].endswith("/otp/delivered/vonage_sms")
    assert {"accepted": 1, "delivered": 1, "within_2": 1} == {
        name: count for name, count in served.route("aws_sms")["heard"].items() if count
    }


def test_a_route_that_is_not_there_cannot_be_switched(served: Served) -> None:
    done = served.run("routes", "disable", "nobody", "--reason", "x")

    assert 3 == done.returncode
