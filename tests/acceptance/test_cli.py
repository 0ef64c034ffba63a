"""The command as people use it: real processes, a data folder each, and what they say.

Importing everything costs a second of processor time, so what runs to its end is forked off one
process that has done so: own id, folder, environment and exit, as `python -m gateway` has. What
serves is started as users start it.

It has more than 500 lines for that reason: a second file would start all of this again.

`lived` is a gateway that served once, sent two codes over its sandbox and was stopped; tests that
need a database with something in it work on a copy.
"""

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from gateway import config
from gateway.app import folder, keyring_file
from gateway.cli import output
from gateway.store import upkeep

ROOT = Path(__file__).resolve().parents[2]
PYTHON = [sys.executable, "-m", "gateway"]
NUMBER = "+33600010000"  # read on the messenger
REFERENCE = "order-42"
TOML = """
[routes.octopush]
provider = "octopush"
channel = "sms"
api_login = "ops@example.com"
api_key = { env = "OCTOPUSH_API_KEY" }

[workflows.default]
steps = [{ channel = "sms", routes = ["octopush"] }]
"""


FORKS = """
import atexit, json, os, sys, time, traceback
import gateway.store.upkeep, gateway.cli.timeline, gateway.web.schemas, alembic.command

def child(asked):
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    for number, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["gateway", *asked["arguments"]]
    try:
        gateway.cli.main()
        return 0
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os._exit(child(json.loads(line)))
    until = time.monotonic() + 30
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(pid, 9)
        time.sleep(0.005)
    print(os.waitstatus_to_exitcode(ended[1]), flush=True)
"""


@dataclass
class Forks:
    """The process that others are forked off."""

    process: "subprocess.Popen[str]"
    folder: Path

    def run(
        self, arguments: Sequence[str], cwd: Path, env: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        out, err = self.folder / "out", self.folder / "err"
        asked = {"arguments": arguments, "cwd": str(cwd), "env": env}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked | {"out": str(out), "err": str(err)}) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return subprocess.CompletedProcess(
            list(arguments), code, out.read_text("utf-8"), err.read_text("utf-8")
        )


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", FORKS],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Forks(process, tmp_path_factory.mktemp("forks"))
        finally:
            process.kill()


@dataclass
class Home:
    """A folder that commands run in; `data` is in it unless a test says otherwise."""

    folder: Path
    forks: Forks
    env: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def environ(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
        return kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"} | self.env | more

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        return self.forks.run(arguments, self.folder, self.environ(**env))

    def json(self, *arguments: str, **env: str) -> Any:
        """What a command prints as JSON."""
        done = self.run(*arguments, "--json", **env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def running(self, *arguments: str, flags: Sequence[str] = ()) -> Iterator["Running"]:
        """A command that goes on, its output in files; ended by its own process id."""
        out, err = self.folder / "stdout", self.folder / "stderr"
        with out.open("w") as to_out, err.open("w") as to_err:
            process = subprocess.Popen(
                [sys.executable, *flags, *PYTHON[1:], *arguments],
                cwd=self.folder,
                env=self.environ(),
                stdout=to_out,
                stderr=to_err,
            )
        try:
            yield Running(process, out, err)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@dataclass
class Running:
    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path
    port: int = 0
    sandbox: int = 0

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def until_ready(self, port: int) -> None:
        """Until the gateway or sandbox at that port answers."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.err.read_text()
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).is_success:
                    return
            time.sleep(0.05)
        raise AssertionError("not ready: " + self.err.read_text())


def free_port() -> int:
    """A port nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


@contextlib.contextmanager
def serving(home: Home, *flags: str) -> Iterator[Running]:
    """`serve` on free ports, ready."""
    port, sandbox = free_port(), free_port()
    given = ("serve", "--port", str(port), "--sandbox-port", str(sandbox))
    with home.running(*given, flags=flags) as running:
        running.until_ready(port)
        running.port, running.sandbox = port, sandbox
        yield running


def until(state: str, home: Home, named: str) -> dict[str, Any]:
    """The status once its delivery has come so far."""
    for _ in range(60):
        shown: dict[str, Any] = home.json("show", named)
        if shown["delivery_status"] == state:
            return shown
        time.sleep(0.3)
    raise AssertionError(shown)


@dataclass
class Lived:
    home: Home
    key: dict[str, str]
    beside: dict[str, subprocess.CompletedProcess[str]]  # what commands did beside it
    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Lived:
    home = Home(tmp_path_factory.mktemp("lived"), forks)
    with serving(home, "-X", "dev", "-W", "error") as running:
        key = home.json("client", "add", "shop")
        url = f"http://127.0.0.1:{running.port}"
        env = {"GATEWAY_URL": url, "GATEWAY_API_KEY": key["key"]}
        beside = {
            "send": home.run("send", NUMBER, "--reference", REFERENCE, "--ttl", "600", **env),
            "other": home.run("send", "+33600000000", "--workflow", "sms", "--json", **env),
            "bad number": home.run("send", "+331", **env),
            "bad key": home.run("send", NUMBER, GATEWAY_URL=url, GATEWAY_API_KEY="otp_live_no"),
            "second": home.run("serve", "--port", "0", "--sandbox-port", "0"),
            "reindex": home.run("keys", "reindex"),
            "twice": home.run("client", "add", "shop"),
        }
        until("READ", home, REFERENCE)
        code = running.stop()
    return Lived(home, key, beside, code, running.out.read_text(), running.err.read_text())


@pytest.fixture
def home(tmp_path: Path, forks: Forks) -> Home:
    """An empty folder."""
    return Home(tmp_path, forks)


@pytest.fixture
def copy(lived: Lived, tmp_path: Path) -> Home:
    """The folder of a gateway that has served."""
    shutil.copytree(lived.home.data, tmp_path / "data")
    return Home(tmp_path, lived.home.forks)


# Help.


def test_help_names_every_command_and_the_exit_codes(home: Home) -> None:
    done = subprocess.run(
        [*PYTHON, "--help"], env=home.environ(), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    for word in (
        "serve demo migrate check client keys send show routes templates guard sandbox purge erase",
        "0  done",
        "3  there is",
    ):
        for part in [word] if "  " in word else word.split():
            assert part in done.stdout


def test_help_does_not_load_the_web_server() -> None:
    code = "import sys, gateway.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())

    assert loaded.isdisjoint({"starlette", "sqlalchemy", "httptools", "pydantic", "gateway.app"})


# Serve, and what works beside it.


def test_a_first_serve_does_not_keep_what_migrated_for_it(home: Home) -> None:
    with serving(home, "-X", "importtime") as running:
        loaded = running.err.read_text()

    assert "gateway.app.process" in loaded
    assert "alembic" not in loaded


def test_serve_ends_cleanly_and_its_last_line_tells_of_the_ledger(lived: Lived) -> None:
    lines = [json.loads(line) for line in lived.stdout.splitlines()]

    assert lived.exit_code == 0
    assert lines[-1]["event"] == "ledger_closed"
    assert {"verification_accepted", "attempt_heard"} <= {line["event"] for line in lines}
    for word in ("Traceback", "Warning", "Exception"):
        assert word not in lived.stderr


def test_serve_says_where_it_listens_and_how_to_get_a_key(lived: Lived) -> None:
    assert "The gateway listens on http://127.0.0.1:" in lived.stderr
    assert "phones: http://127.0.0.1:" in lived.stderr
    assert "gateway client add NAME" in lived.stderr


def test_a_client_is_added_while_serve_runs(lived: Lived) -> None:
    assert lived.key.keys() == {"client_id", "key_id", "key"}
    assert lived.key["key"].startswith("otp_live_")


def test_send_shows_the_answer(lived: Lived) -> None:
    done = lived.beside["send"]

    assert done.returncode == 0, done.stderr
    assert "PENDING, delivery QUEUED" in done.stdout


def test_send_prints_the_answer_as_json(lived: Lived) -> None:
    assert json.loads(lived.beside["other"].stdout)["channel"] == "sms"


@pytest.mark.parametrize(
    ("which", "code", "says"),
    [
        ("bad number", 1, "recipient_invalid: "),
        ("bad key", 1, "key_unknown: "),
        ("second", 2, "data_dir: data is in use by a running `gateway serve`"),
        ("reindex", 2, "data_dir: data is in use by a running `gateway serve`"),
        ("twice", 1, "there is a client 'shop' already"),
    ],
)
def test_what_does_not_work_beside_serve_says_so(
    lived: Lived, which: str, code: int, says: str
) -> None:
    _one_message(lived.beside[which], code, says)


def test_serve_stops_by_ctrl_c_as_well_and_goes_on_with_an_old_database(copy: Home) -> None:
    with serving(copy) as running:
        shown = copy.json("show", NUMBER)
        code = running.stop(signal.SIGINT)

    assert code == 0
    assert shown["delivery_status"] == "READ"
    assert "client add" not in running.err.read_text()


def test_serve_takes_a_first_key_made_before_it_ever_ran(home: Home) -> None:
    made = home.json("client", "add", "early", "--scopes", "status,send")
    listed = home.json("client", "list")

    assert made["key_id"] == listed[0]["keys"][0]["key_id"]
    assert listed[0]["keys"][0]["scopes"] == ["send", "status"]


def test_a_client_gets_further_keys_and_loses_them(home: Home) -> None:
    made = home.json("client", "add", "shop", "--test", "--rate", "5")
    more = home.json("client", "key", "add", "shop", "--scopes", "status", "--expires", "30")
    gone = home.run("client", "key", "revoke", made["key_id"])
    listed = home.json("client", "key", "list", "shop")
    unknown = home.run("client", "key", "add", "nobody")

    assert gone.returncode == 0, gone.stderr
    assert made["client_id"] == more["client_id"]
    assert [True, True] == [one["key"].startswith("otp_test_") for one in (made, more)]
    assert [(made["key_id"], True, 5.0), (more["key_id"], True, None)] == [
        (one["key_id"], one["test"], one["rate"]) for one in listed
    ]
    assert [True, False] == [one["revoked_at"] is not None for one in listed]
    assert [False, True] == [one["expires_at"] is not None for one in listed]
    assert {None} == {one["last_used_at"] for one in listed}
    _one_message(unknown, 3, "there is no client 'nobody'")


def test_a_test_client_may_not_operate(home: Home) -> None:
    refused = home.run("client", "add", "shop", "--test", "--scopes", "operate")

    _one_message(refused, 2, "operate sees live clients")


# Wrong situations: one message, the right exit code, no traceback.


def _one_message(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@dataclass(frozen=True)
class Wrong:
    label: str
    says: str
    toml: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    arrange: Callable[[Home], object] | None = None
    arguments: tuple[str, ...] = ("serve", "--port", "0", "--sandbox-port", "0")


def _write(name: str, content: str | bytes) -> Callable[[Home], object]:
    def write(home: Home) -> None:
        file = home.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def _old_schema(home: Home) -> None:
    home.data.mkdir()
    with contextlib.closing(sqlite3.connect(home.data / "gateway.db")) as opened:
        opened.execute("CREATE TABLE alembic_version (version_num TEXT)")
        opened.execute("INSERT INTO alembic_version VALUES ('0000')")
        opened.commit()


SITUATIONS = [
    Wrong("a key that is no setting", "brnad: is not a setting", "brnad = 'X'\n"),
    Wrong(
        "a missing secret",
        "routes.octopush.api_key: the environment variable OCTOPUSH_API_KEY is not set",
        TOML,
    ),
    Wrong(
        "a secret written out",
        "routes.octopush.api_key: is a secret: write { env = ",
        TOML.replace('{ env = "OCTOPUSH_API_KEY" }', '"plain-secret"'),
    ),
    Wrong(
        "an unknown route in a workflow",
        "workflows.default.steps.0.routes: there is no route 'octopus'; there are: octopush",
        TOML.replace('["octopush"]', '["octopus"]'),
        {"OCTOPUSH_API_KEY": "k"},
    ),
    Wrong("broken TOML", "gateway.toml: is not valid TOML", "routes = ["),
    Wrong(
        "no such file",
        "nowhere.toml: there is no such file",
        arguments=("serve", "--config", "nowhere.toml"),
    ),
    Wrong(
        "plain http to the world",
        "public_url: is plain http",
        env={"GATEWAY_PUBLIC_URL": "http://otp.example.com"},
    ),
    Wrong("a file where the data folder goes", "data_dir: data ", arrange=_write("data", "")),
    Wrong(
        "a data folder that cannot be made",
        "data_dir: /proc/gateway cannot be written to",
        env={"GATEWAY_DATA_DIR": "/proc/gateway"},
    ),
    Wrong("an old schema", "is at migration 0000, not ", arrange=_old_schema),
    Wrong(
        "a database that is none",
        "file is not a database",
        arrange=_write("data/gateway.db", b"not a database " * 500),
    ),
    Wrong("a broken keyring", "is not a keyring", arrange=_write("data/keyring.json", "{}")),
    Wrong(
        "a keyring of another form",
        "is not a keyring",
        arrange=_write("data/keyring.json", '{"current": "k1", "keys": {"k1": 1}}'),
    ),
    Wrong("a port that is none", "--port", arguments=("serve", "--port", "99999")),
    Wrong("a show without a database", "Run: gateway migrate", arguments=("show", NUMBER)),
    Wrong("a rotation without a keyring", "there is no keyring", arguments=("keys", "rotate")),
    Wrong("a send without a key", "set GATEWAY_API_KEY", arguments=("send", NUMBER)),
    Wrong(
        "a send to an odd address",
        "--url: file:///etc/passwd is not an address",
        arguments=("send", NUMBER, "--url", "file:///etc/passwd"),
    ),
]


@pytest.mark.parametrize("wrong", SITUATIONS, ids=lambda wrong: str(wrong.label))
def test_a_wrong_situation_ends_in_one_message(wrong: Wrong, home: Home) -> None:
    arguments = wrong.arguments
    if wrong.toml is not None:
        _write("gateway.toml", wrong.toml)(home)
        arguments = (*arguments, "--config", "gateway.toml")
    if wrong.arrange is not None:
        wrong.arrange(home)

    done = home.run(*arguments, **wrong.env)

    _one_message(done, 2, wrong.says)
    assert "plain-secret" not in done.stderr


@pytest.mark.parametrize("option", ["--port", "--sandbox-port"])
def test_a_busy_port_is_named(option: str, home: Home) -> None:
    other = "--port" if option == "--sandbox-port" else "--sandbox-port"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = home.run("serve", other, "0", option, port)

    _one_message(done, 2, f"{option}: cannot listen on 127.0.0.1:{port}: Address already in use")


def test_several_mistakes_are_listed_at_once(home: Home) -> None:
    _write("gateway.toml", f"brand = ''\ndefault_region = 'fr'\n{TOML}")(home)
    done = home.run("serve", "--config", "gateway.toml", "--port", "0")

    _one_message(done, 2, "these settings are wrong:")
    assert ["  brand: ", "  default_region: ", "  routes.octopush.api_key: "] == [
        line[: line.index(": ") + 2] for line in done.stderr.splitlines() if line[:2] == "  "
    ]


def test_a_gateway_that_is_not_there_is_named(home: Home) -> None:
    port = free_port()
    done = home.run("send", NUMBER, "--url", f"http://127.0.0.1:{port}", GATEWAY_API_KEY="k")

    _one_message(done, 1, f"cannot reach http://127.0.0.1:{port}/otp/send: Connection refused")


def test_a_database_without_its_keyring_is_not_served_with_a_new_one(copy: Home) -> None:
    (copy.data / "keyring.json").unlink()
    done = copy.run("serve", "--port", "0", "--sandbox-port", "0")

    _one_message(done, 2, "is missing, and the database holds verifications that need it")
    assert not (copy.data / "keyring.json").exists()


def test_a_database_with_the_keyring_of_another_is_not_served(copy: Home) -> None:
    (copy.data / "keyring.json").unlink()
    keyring_file.load(copy.data / "keyring.json", create=True)
    done = copy.run("serve", "--port", "0", "--sandbox-port", "0")

    _one_message(done, 2, "is not the one of this database")


@pytest.mark.parametrize("named", ["+33612345678", "no-such-reference", "0" * 36, REFERENCE + "0"])
def test_a_verification_that_is_not_there_ends_with_three(copy: Home, named: str) -> None:
    _one_message(copy.run("show", named), 3, "there is no such verification")


# Looking.


def test_show_tells_the_story_in_order_and_the_number_masked(copy: Home, lived: Lived) -> None:
    done = copy.run("show", REFERENCE)
    lines = done.stdout.splitlines()
    rows = [line for line in lines if " messenger " in line and line[2] == ":"]

    assert done.returncode == 0, done.stderr
    assert "number        +33 6•• ••• •00" in lines
    assert "status        PENDING, delivery READ" in lines
    assert any(
        line.startswith("A Messenger message through messenger was delivered") for line in lines
    )
    assert [
        "QUEUED", "QUEUED → SENT", "SENT → ACK", "ACK → DELIVERED", "DELIVERED → READ"
    ] == [re.split("  +", row)[3] for row in rows]  # fmt: skip
    assert NUMBER[1:] not in done.stdout
    assert lived.key["key"] not in done.stdout


def test_show_finds_by_number_id_and_reference_alike(copy: Home) -> None:
    by_number = copy.json("show", "+33 6 00 01 00 00")
    by_id = copy.json("show", by_number["verification_id"])
    by_reference = copy.json("show", REFERENCE, "--history", "3")

    assert by_number == by_id
    assert by_reference == {**by_id, "history": []}
    assert by_id["reference"] == REFERENCE


def test_clients_are_listed_and_a_key_is_revoked(copy: Home, lived: Lived) -> None:
    done = copy.run("client", "revoke", lived.key["key_id"])
    listed = copy.json("client", "list")

    assert done.returncode == 0, done.stderr
    assert listed[0]["name"] == "shop"
    assert listed[0]["keys"][0]["revoked_at"] is not None
    _one_message(copy.run("client", "revoke", "no-such-key"), 3, "there is no key")


def test_routes_show_what_each_confirms_and_hide_callback_keys(home: Home) -> None:
    _write("gateway.toml", TOML + '[routes.low]\nprovider = "octopush"\nchannel = "sms"\n'
        'api_login = "o"\napi_key = { env = "OCTOPUSH_API_KEY" }\ntype = "sms_low_cost"\n'
        'callback_key = { env = "OCTOPUSH_API_KEY" }\nsender = { FR = "ACME", default = "38090" }\n'
    )(home)  # fmt: skip
    shown = home.json("routes", "--config", "gateway.toml", OCTOPUSH_API_KEY="very-secret-key")
    plain = home.run("routes", "--config", "gateway.toml", OCTOPUSH_API_KEY="very-secret-key")
    by_name = {route["name"]: route for route in shown}

    assert by_name["octopush"]["confirms"] == ["ACK", "FAILED", "DELIVERED"]
    assert by_name["octopush"]["callback_url"].endswith("/otp/delivered/octopush/<callback_key>")
    assert by_name["low"]["confirms"] == []
    assert by_name["low"]["callback_url"] is None
    assert "FR=ACME default=38090" in plain.stdout
    assert "very-secret-key" not in json.dumps(shown) + plain.stdout + plain.stderr


# Check, migrate.


def _findings(home: Home, **env: str) -> tuple[int, set[tuple[str, str]], str]:
    done = home.run("check", "--config", "gateway.toml", "--json", **env)
    found = json.loads(done.stdout)
    told = {(one["what"], one["verdict"]) for one in found}
    return done.returncode, told, " | ".join(one["detail"] for one in found)


def test_check_of_an_empty_folder_is_fine_and_makes_nothing(home: Home) -> None:
    done = home.run("check")

    assert done.returncode == 0, done.stderr
    assert "workflow default" in done.stdout
    assert list(home.folder.iterdir()) == []


def test_check_of_a_used_folder_is_fine_and_changes_nothing(copy: Home) -> None:
    before = {file.name for file in copy.data.iterdir()}
    done = copy.run("check")

    assert done.returncode == 0, done.stderr
    assert "the schema is current" in done.stdout
    assert {file.name for file in copy.data.iterdir()} == before


def test_check_finds_what_will_not_work(home: Home) -> None:
    steps = ", ".join(
        f'{{ channel = "sms", routes = ["octopush"], patience = {patience} }}'
        for patience in (200, 200, 60)
    )
    low = 'type = "sms_low_cost"\n'
    toml = TOML.replace("[workflows", low + "[workflows") + (
        f"[workflows.slow]\nsteps = [{steps}]\n[workflows.never]\nsteps = [{steps}, {steps}]\n"
        '[routes.deaf]\nprovider = "octopush"\nchannel = "sms"\napi_login = "o"\n'
        'api_key = { env = "OCTOPUSH_API_KEY" }\n'
    )
    _write("gateway.toml", toml)(home)
    code, told, details = _findings(home, OCTOPUSH_API_KEY="k")

    assert code == 1
    assert ("workflow slow", "warning") in told
    assert ("workflow never", "wrong") in told
    assert ("workflow default", "note") in told
    assert ("route deaf", "warning") in told
    assert "sends need a ttl of 430 or more" in details
    assert "waits for 'delivered', which octopush cannot report" in details
    assert "no callback_key is set: every receipt will be refused" in details
    assert "set public_url, or no receipt will come" in details


def test_check_lists_wrong_settings_as_findings(home: Home) -> None:
    _write("gateway.toml", TOML)(home)
    code, told, _ = _findings(home)

    assert (code, told) == (1, {("routes.octopush.api_key", "wrong")})


def test_check_and_migrate_see_an_old_schema(home: Home) -> None:
    _old_schema(home)
    checked, told = home.run("check"), home.run("migrate", "--check", "--json")

    assert checked.returncode == told.returncode == 1
    assert "Run: gateway migrate" in checked.stdout
    assert json.loads(told.stdout)["found"] == "0000"
    _one_message(home.run("migrate"), 1, "cannot be migrated: Can't locate revision")


def test_migrate_makes_a_new_database_once_nobody_has_the_folder(home: Home) -> None:
    home.data.mkdir()
    with folder.alone(home.data):
        refused = home.run("migrate")
    done, again = home.run("migrate"), home.run("migrate", "--check")

    _one_message(refused, 2, "is in use by a running `gateway serve`")
    assert done.returncode == again.returncode == 0
    assert "nothing to do" in again.stdout


# The keyring.


def _story(home: Home) -> list[dict[str, Any]]:
    """What is found by number, and does not change with time."""
    shown = home.json("show", NUMBER)
    return [shown[part] for part in ("verification_id", "recipient", "attempts", "transitions")]


def test_keys_rotate_and_reindex_lose_nothing(copy: Home) -> None:
    before = _story(copy)
    rotated = copy.json("keys", "rotate")
    done = copy.json("keys", "reindex")

    assert rotated["current"] == "k2"
    assert done["made_anew"] == 2
    assert _story(copy) == before
    assert sorted(file.name for file in copy.data.glob("keyring*")) == ["keyring.json"]


def _loaded(home: Home) -> config.Settings:
    return config.load({"GATEWAY_DATA_DIR": str(home.data)})


def _die_after_the_commit(home: Home) -> None:
    loaded = _loaded(home)
    keyring_file.propose_index_key(loaded.keyring_file)
    renewed = keyring_file.load(keyring_file.proposed(loaded.keyring_file))

    async def renew() -> None:
        async with folder.opened(loaded) as engine:
            keyring = keyring_file.load(loaded.keyring_file)
            await upkeep.reindex(engine, keyring, renewed)

    asyncio.run(renew())


def _die_before_the_commit(home: Home) -> None:
    keyring_file.propose_index_key(_loaded(home).keyring_file)


@pytest.mark.parametrize(
    ("die", "told"), [(_die_after_the_commit, None), (_die_before_the_commit, 2)]
)
def test_an_interrupted_reindex_keeps_serve_from_starting_and_is_finished(
    copy: Home, die: Callable[[Home], None], told: int | None
) -> None:
    before = _story(copy)
    die(copy)
    refused = copy.run("serve", "--port", "0", "--sandbox-port", "0")
    done = copy.json("keys", "reindex")

    _one_message(refused, 2, "Finish it: gateway keys reindex")
    assert (done and done["made_anew"]) == told
    assert _story(copy) == before


def test_reindex_of_many_rows_says_how_many_it_could_not_make_anew(copy: Home) -> None:
    loaded = _loaded(copy)
    with contextlib.closing(sqlite3.connect(loaded.database)) as opened:
        opened.execute(
            "UPDATE verification SET recipient_sealed = NULL WHERE reference = ?", (REFERENCE,)
        )
        opened.commit()
    done = copy.run("keys", "reindex")

    assert "made anew: 1;" in done.stdout
    assert "being erased: 1" in done.stdout
    assert copy.run("show", NUMBER).returncode == 3


# The sandbox alone.


# Retention.


def _age(home: Home) -> None:
    """All that the folder holds is from the first days of the epoch."""
    with contextlib.closing(sqlite3.connect(home.data / "gateway.db")) as opened:
        opened.create_function("aged", 1, lambda named: bytes(6) + named[6:])
        for table, column in (
            ("verification", "id"),
            ("attempt", "verification_id"),
            ("transition", "verification_id"),
        ):
            opened.execute(f"UPDATE {table} SET {column} = aged({column})")  # noqa: S608
        opened.execute("UPDATE verification SET created_at = 0, expires_at = 0")
        opened.commit()


def _rows(home: Home) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(home.data / "gateway.db")) as opened:
        return {
            table: opened.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in ("verification", "attempt", "transition", "plan")
        }


def test_purge_counts_first_and_then_deletes(copy: Home) -> None:
    _age(copy)
    before = _rows(copy)
    would = copy.json("purge", "--dry-run", "--plans")
    between = _rows(copy)
    done = copy.json("purge", "--plans")

    assert before == between
    assert before == {table: done[f"{table}s"] for table in before}
    assert done == would | {"plans": before["plan"], "dry_run": False}
    assert would["plans"] == 0  # they are followed as long as nothing has gone
    assert set(_rows(copy).values()) == {0}


def test_purge_of_what_is_young_takes_nothing(copy: Home) -> None:
    before = _rows(copy)
    done = copy.run("purge")

    assert done.returncode == 0, done.stderr
    assert "verifications  0" in done.stdout
    assert before == _rows(copy)


def test_erase_leaves_what_runs_alone_and_forgets_what_is_over(copy: Home) -> None:
    """Beside a running `serve`."""
    with serving(copy):
        running = copy.run("erase", NUMBER)
        shown = copy.json("show", REFERENCE)
        with contextlib.closing(sqlite3.connect(copy.data / "gateway.db")) as opened:
            opened.execute("UPDATE verification SET expires_at = 0, version = version + 1")
            opened.commit()
        over = copy.run("erase", NUMBER)
        found = copy.run("show", NUMBER)
        erased = copy.json("show", REFERENCE)

    assert (running.returncode, over.returncode) == (1, 0), over.stderr
    assert "can still be typed" in running.stderr
    assert shown["recipient"] is not None
    assert "erased: 1 verifications" in over.stdout
    assert found.returncode == 3
    assert (erased["recipient"], erased["delivery_status"]) == (None, "READ")


def test_erase_of_what_is_no_address_says_so(copy: Home) -> None:
    _one_message(copy.run("erase", "+331"), 2, "number")


def test_what_the_sandbox_prints_makes_a_gateway_that_works(home: Home) -> None:
    """A secret that somebody chose is not repeated."""
    port, phones = free_port(), free_port()
    home.env = {"SANDBOX_MESSENGER_SECRET": "chosen-by-somebody"}
    callback = f"http://127.0.0.1:{port}/otp/delivered/octopush/sandbox-callback-key"
    with home.running("sandbox", "--port", str(phones), "--callback-url", callback) as sandbox:
        sandbox.until_ready(phones)
        other = Home(home.folder / "gateway", home.forks)
        other.folder.mkdir()
        (other.folder / "gateway.toml").write_text(sandbox.out.read_text())
        other.env = {"GATEWAY_CONFIG": "gateway.toml"} | dict(
            line.removeprefix("export ").split("=")
            for line in sandbox.err.read_text().splitlines()
            if line.startswith("export ")
        )
        other.env["MESSENGER_SECRET"] = "chosen-by-somebody"
        checked = other.run("check")
        with other.running("serve", "--port", str(port)) as serve:
            serve.until_ready(port)
            key = other.json("client", "add", "shop")["key"]
            url = f"http://127.0.0.1:{port}"
            sent = other.json("send", "+33600000000", "--channel", "sms", "--url", url,
                GATEWAY_API_KEY=key)  # fmt: skip
            shown = until("DELIVERED", other, sent["verification_id"])
            assert serve.stop() == 0
        assert sandbox.stop() == 0

    said = sandbox.out.read_text() + sandbox.err.read_text()

    assert checked.returncode == 0, checked.stdout
    assert [attempt["channel"] for attempt in shown["attempts"]] == ["sms"]
    assert "export MESSENGER_SECRET=…" in said
    assert "chosen-by-somebody" not in said


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (60, ["name number remark", "one 1 a remark that goes on and on"]),
        (44, ["name number remark", "one 1 a remark that goes on and", "on"]),
        (30, ["name one", "number 1", "remark a remark that goes on and on"]),
    ],
)
def test_a_table_fits_its_terminal(width: int, lines: list[str]) -> None:
    """Wide enough, with the last column wrapped, or one entry below the other."""
    file = io.StringIO()
    out = Console(width=width, force_terminal=True, color_system=None, file=file)
    rows = [("one", 1, "a remark that goes on and on"), ("another", 22, None)]

    output.table(("name", "number", "remark"), rows, out)

    shown = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    assert lines == [line for line in shown if line in lines]


def test_a_failure_nobody_foresaw_is_left_to_python() -> None:
    assert output.told(ValueError("a defect")) is None


def test_a_demo_port_that_was_asked_for_is_not_exchanged(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = home.run("demo", "--once", "--port", "0", "--sandbox-port", port)

    _one_message(done, 2, f"--sandbox-port: cannot listen on 127.0.0.1:{port}")
