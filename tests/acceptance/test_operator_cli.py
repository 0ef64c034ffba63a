"""`gateway operator` and `gateway audit`, in one process: nothing here serves."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from gateway import cli
from gateway.cli import output
from gateway.domain import totp

PASSWORD = "correct horse battery"


class Shell:
    """Runs commands on a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "gateway.db"
        self._env = {"GATEWAY_DATA_DIR": str(folder)}

    def run(self, *arguments: str, given: str | None = None) -> Any:
        """What it printed, as the real command would have ended."""
        done = CliRunner().invoke(cli.app, arguments, input=given, env=self._env)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            telling = output.told(done.exception)  # type: ignore[arg-type]
            assert telling is not None, done.exception
            return Refusal(*telling)
        return done

    def json(self, *arguments: str, given: str | None = None) -> Any:
        done = self.run(*arguments, "--json", given=given)
        assert 0 == done.exit_code, done.output
        return json.loads(done.stdout)

    def add(self, name: str = "alice", role: str = "support") -> Any:
        return self.json(
            "operator", "add", name, "--role", role, "--password-stdin", given=f"{PASSWORD}\n"
        )

    def actions(self) -> list[str]:
        lines = self.run("audit", "export").stdout.splitlines()
        return [json.loads(line)["action"] for line in lines]


class Refusal:
    """A failure as `main` tells it."""

    def __init__(self, message: str, code: int) -> None:
        self.output, self.exit_code = message, int(code)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_an_operator_is_added_before_the_gateway_ever_served(shell: Shell) -> None:
    made = shell.add()
    (listed,) = shell.json("operator", "list")

    assert ("alice", "support", None) == (made["name"], made["role"], made["password"])
    assert made["operator_id"] == listed["operator_id"]
    assert not listed["totp"]
    assert listed["disabled_at"] is None


def test_a_password_is_made_on_request_and_printed_once(shell: Shell) -> None:
    made = shell.json("operator", "add", "alice", "--generate")

    assert len(made["password"]) >= 20
    assert made["password"] not in json.dumps(shell.json("operator", "list"))


def test_a_prompt_asks_twice(shell: Shell) -> None:
    done = shell.run("operator", "add", "alice", given=f"{PASSWORD}\n{PASSWORD}\n")

    assert 0 == done.exit_code
    assert PASSWORD not in done.output


@pytest.mark.parametrize(
    ("arguments", "password", "code", "says"),
    [
        (("Alice",), PASSWORD, 2, "NAME must be"),
        (("demo",), PASSWORD, 2, "choose another"),
        (("bob", "--role", "boss"), PASSWORD, 2, "viewer, support, admin"),
        (("bob",), "short", 1, "at least 15 characters"),
        (("alice",), PASSWORD, 1, "already"),
    ],
)
def test_an_operator_that_cannot_be_added(
    shell: Shell, arguments: tuple[str, ...], password: str, code: int, says: str
) -> None:
    shell.add()
    done = shell.run("operator", "add", *arguments, "--password-stdin", given=f"{password}\n")

    assert code == done.exit_code
    assert says in done.output


@pytest.mark.parametrize("command", ["disable", "password", "totp"])
def test_nobody_of_that_name(shell: Shell, command: str) -> None:
    shell.add()
    done = shell.run("operator", command, "bob")

    assert 3 == done.exit_code
    assert "there is no operator 'bob'" in done.output


def test_an_operator_is_kept_out_and_let_in_again(shell: Shell) -> None:
    shell.add()
    shell.run("operator", "disable", "alice")
    (out,) = shell.json("operator", "list")
    shell.run("operator", "disable", "alice", "--enable")
    (again,) = shell.json("operator", "list")

    assert out["disabled_at"] is not None
    assert again["disabled_at"] is None


def test_a_second_factor_is_shown_once_and_taken_away(shell: Shell) -> None:
    shell.add()
    made = shell.json("operator", "totp", "alice")
    (with_it,) = shell.json("operator", "list")
    shell.run("operator", "totp", "alice", "--off")
    (without,) = shell.json("operator", "list")

    assert 32 == len(made["secret"])
    assert f"secret={made['secret']}" in made["address"]
    assert totp.SECRET_BYTES * 8 == len(made["secret"]) * 5
    assert (True, False) == (with_it["totp"], without["totp"])


def test_everything_is_in_the_audit_log_and_the_chain_is_whole(shell: Shell) -> None:
    shell.add()
    shell.run("operator", "password", "alice", "--generate")
    shell.run("operator", "totp", "alice")
    shell.run("operator", "disable", "alice")
    checked = shell.json("audit", "verify")

    assert ["operator add", "operator password", "operator totp on", "operator disable"] == (
        shell.actions()
    )
    assert (4, []) == (checked["rows"], checked["wrong"])
    assert checked["head"].startswith("4:")


def test_a_row_that_was_altered_is_named(shell: Shell) -> None:
    shell.add()
    shell.add("bob")
    with closing(sqlite3.connect(shell.database)) as opened:
        opened.execute("UPDATE audit SET what = 'carol, admin' WHERE sequence = 1")
        opened.commit()
    done: Result = shell.run("audit", "verify")

    assert 1 == done.exit_code
    assert "row 1 was altered" in done.output


def test_a_head_that_was_kept_shows_what_was_cut_off(shell: Shell) -> None:
    shell.add()
    shell.add("bob")
    head = shell.json("audit", "verify")["head"]
    whole = shell.run("audit", "verify", "--head", head)
    with closing(sqlite3.connect(shell.database)) as opened:
        opened.execute("DELETE FROM audit WHERE sequence = 2")
        opened.commit()
    cut = shell.run("audit", "verify", "--head", head)

    assert (0, 1) == (whole.exit_code, cut.exit_code)
    assert "row 2 is gone" in cut.output


def test_an_export_is_csv_on_request(shell: Shell) -> None:
    shell.add()
    lines = shell.run("audit", "export", "--format", "csv").stdout.splitlines()

    assert "sequence,at,actor,action,subject,what,why,before,digest" == lines[0]
    assert 2 == len(lines)


def test_what_is_done_from_a_shell_is_in_the_audit_log(shell: Shell) -> None:
    """Written in the transaction of the act, or before it where there are many."""
    made = shell.json("client", "add", "shop")
    shell.run("client", "add", "shop")  # refused: nothing was done
    added = shell.json("client", "key", "add", "shop")
    shell.run("client", "key", "revoke", added["key_id"])
    shell.run("client", "key", "revoke", added["key_id"])  # it was before
    hook = shell.json("subscription", "add", "shop", "https://hooks.example.com/otp")
    shell.run("subscription", "remove", hook["subscription_id"])
    shell.run("keys", "rotate")
    shell.run("guard", "allow", "+3361234", "--until", "2999-12-31", "--reason", "of 0612345678")
    shell.run("routes", "disable", "octopush", "--reason", "maintenance")
    shell.run("show", "+33612345678")
    shell.run("erase", "+33612345678")
    rows = [json.loads(line) for line in shell.run("audit", "export").stdout.splitlines()]

    assert [
        ("client add", "shop, send verify status"),
        ("key add", "shop, send verify status"),
        ("key revoke", f"shop, {added['key_id']}"),
        ("subscription add", f"shop, {hook['subscription_id']}"),
        ("subscription remove", hook["subscription_id"]),
        ("keys rotate", "keyring.json"),
        ("guard allow", "+3361234 until 2999-12-31 23:59 UTC"),
        ("route disable", "octopush"),
        ("search", "+33 6•• ••• •78: 0 found"),
        ("erase", "+33 6•• ••• •78"),
    ] == [(row["action"], row["what"]) for row in rows]
    assert {made["client_id"], None} == {row["subject"] for row in rows}
    assert all(row["actor"].startswith("shell") for row in rows)
    assert "345678" not in str(rows)


def test_check_says_that_a_folder_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = CliRunner().invoke(
        cli.app, ["check", "--json"], env={"GATEWAY_DATA_DIR": f"{file}/data"}
    )
    found = [one for one in json.loads(done.stdout) if one["what"].startswith("folder")]

    assert [("wrong", f"is not there and cannot be made in {file}")] == [
        (one["verdict"], one["detail"]) for one in found
    ]
