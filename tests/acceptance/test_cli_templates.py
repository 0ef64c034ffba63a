"""`gateway templates` and what `gateway check` says of texts."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway import cli

TOML = '''
brand = "ACME"
default_locale = "fr"

[routes.octopush]
provider = "octopush"
channel = "sms"
api_login = "ops@example.com"
api_key = { env = "KEY" }
callback_key = { env = "KEY" }

[workflows.default]
steps = [{ channel = "sms", routes = ["octopush"] }]

[templates.login]
webotp = "example.com"

[templates.login.en]
email = "Hello,\\n{code}"

[templates.visit]
params = ["doctor"]
android_hash = "FA+9qCX9VSu"

[templates.visit.pl]
text = """{code} to Twój kod na wizytę u {doctor}. Jest ważny przez {minutes} minut od teraz. \\
Nie podawaj go nikomu, także osobie, która mówi, że dzwoni z przychodni."""
'''


class Folder:
    """Commands in a folder with a gateway.toml."""

    def __init__(self, path: Path) -> None:
        self.file = path / "gateway.toml"
        self.file.write_text(TOML, encoding="utf-8")

    def run(self, *arguments: str) -> Any:
        env = {"KEY": "k", "GATEWAY_DATA_DIR": str(self.file.parent), "GATEWAY_CONFIG": None}
        options = ["--config", str(self.file)]
        return CliRunner().invoke(cli.app, [*arguments, *options], env=env)

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_templates_are_listed_with_the_built_in_ones(folder: Folder) -> None:
    listed = {one.pop("name"): one for one in folder.json("templates")}

    assert ["login", "number_change", "payment", "reset", "verify", "visit"] == list(listed)
    assert listed["payment"]["linked"]
    assert {
        "locales": ["pl"],
        "params": ["doctor"],
        "linked": False,
        "last_line": "FA+9qCX9VSu",
    } == listed["visit"]
    assert "number_change" in folder.run("templates").stdout


def test_a_preview_is_what_leaves_with_its_length(folder: Folder) -> None:
    (shown,) = folder.json("templates", "show", "login", "--locale", "en", "--channel", "sms")

    assert {
        "template": "login",
        "locale": "en",
        "channel": "sms",
        "subject": None,
        "text": "123456 is your ACME login code. It is valid for 10 minutes. Do not share it.\n"
        "@example.com #123456",
        "retriever": False,
        "septets": 97,
        "segments": 1,
    } == shown


def test_a_preview_shows_the_channels_that_differ(folder: Folder) -> None:
    shown = folder.json("templates", "show", "login", "--locale", "en-GB")

    assert [("sms", None), ("email", "Your ACME login code")] == [
        (one["channel"], one["subject"]) for one in shown
    ]


def test_a_preview_falls_back_as_a_request_does(folder: Folder) -> None:
    (shown,) = folder.json("templates", "show", "verify", "--locale", "de")

    assert "fr" == shown["locale"]


def test_a_person_reads_lines(folder: Folder) -> None:
    text = folder.run("templates", "show", "visit").stdout

    assert "template  visit, pl, sms\ntext      123456 to Twój" in text
    assert "\n          FA+9qCX9VSu\n" in text
    assert "length    large alphabet (UCS2), 3 segments\n" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nope",), "there is no template 'nope'; there are: login, "),
        (("login", "--channel", "fax"), "--channel: there is no 'fax'; there are: email, "),
    ],
)
def test_what_is_not_there_is_said(folder: Folder, arguments: tuple[str, ...], says: str) -> None:
    done = folder.run("templates", "show", *arguments)

    assert str(done.exception).startswith(says)


def test_check_warns_of_short_messages_in_several_parts(folder: Folder) -> None:
    found = [one for one in folder.json("check") if one["what"].startswith("template ")]
    visit = [one for one in found if one["what"] == "template visit"]

    assert {"what": "template login", "verdict": "ok", "detail": "one segment in en, fr"} in found
    assert ["warning", "warning"] == [one["verdict"] for one in visit]
    assert "needs 3 segments, for a character outside GSM 03.38" in visit[0]["detail"]
    assert "more than 140 bytes: Android's SMS Retriever" in visit[1]["detail"]


def test_a_wrong_text_is_listed_by_its_key(folder: Folder) -> None:
    folder.file.write_text(TOML + '[templates.odd.en]\nsms = "{cod}"\n', encoding="utf-8")
    done = folder.run("templates")

    assert "templates.odd.en.sms: {cod} is not a placeholder" in str(done.exception)
