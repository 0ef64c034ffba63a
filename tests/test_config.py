"""Settings and keyring: what is read, what is refused, and that every mistake is named at once."""

import re
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from keypair import key_pair

from gateway import config
from gateway.config import Settings, SettingsError
from gateway.domain.retention import Retention
from gateway.domain.workflow import OnFailed, OnUnknown, Step, Until
from gateway.ports import Secret, Server
from gateway.providers import PROVIDERS

ENVIRON = {"LOGIN_KEY": "login-secret-value", "CALLBACK": "callback-secret-value"}

OCTOPUSH = """
[routes.octopush]
provider = "octopush"
channel = "sms"
api_login = "ops@example.com"
api_key = { env = "LOGIN_KEY" }
callback_key = { env = "CALLBACK" }
sender = "ACME"
"""

WORKFLOW = """
[workflows.default]
steps = [{ channel = "sms", routes = ["octopush"] }]
"""

SOUND = OCTOPUSH + WORKFLOW


Load = Callable[..., Settings]
Mistakes = Callable[..., dict[str, str]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Settings from the text of a gateway.toml and variables."""

    def read(text: str, environ: Mapping[str, str] = ENVIRON) -> Settings:
        file = tmp_path / "gateway.toml"
        file.write_text(text, encoding="utf-8")
        return config.load(environ, file)

    return read


@pytest.fixture
def mistakes(load: Load) -> Mistakes:
    """What is wrong with that text, by key."""

    def read(text: str, environ: Mapping[str, str] = ENVIRON) -> dict[str, str]:
        with pytest.raises(SettingsError) as refused:
            load(text, environ)
        return refused.value.mistakes

    return read


def with_route(**changes: str) -> str:
    """The sound file with lines of its route in place of others, or added."""
    lines = OCTOPUSH.splitlines()
    for key, value in changes.items():
        lines = [line for line in lines if not line.startswith(f"{key} =")]
        lines.append(f"{key} = {value}")
    return "\n".join(lines) + WORKFLOW


def with_step(step: str, name: str = "default") -> str:
    return f"{OCTOPUSH}\n[workflows.{name}]\nsteps = [{step}]\n"


# Defaults.


def test_without_a_file_there_are_sqlite_the_sandbox_and_no_account() -> None:
    expected = Settings(
        data_dir=Path("data"),
        database=Path("data/gateway.db"),
        keyring_file=Path("data/keyring.json"),
        public_url="http://127.0.0.1:8080",
        brand="Gateway",
        default_region=None,
        log_level="info",
        sandbox_port=8081,
    )

    assert expected == config.load({})


def test_where_the_server_listens_is_the_public_address_unless_told_otherwise() -> None:
    assert "http://127.0.0.1:9999" == config.load({}, public_url="http://127.0.0.1:9999").public_url


def test_with_routes_of_ones_own_there_is_no_sandbox(load: Load) -> None:
    assert load(SOUND).sandbox_port is None


def test_the_port_of_the_sandbox_may_be_set(load: Load) -> None:
    assert 9001 == load("[sandbox]\nport = 9001").sandbox_port


def test_the_file_that_was_read_is_told(load: Load, tmp_path: Path) -> None:
    assert tmp_path / "gateway.toml" == load(SOUND).source


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.toml"
    file.write_text('brand = "ACME"', encoding="utf-8")

    assert "ACME" == config.load({"GATEWAY_CONFIG": str(file)}).brand


def test_the_file_on_the_command_line_goes_before_the_one_of_the_variable(load: Load) -> None:
    settings = load('brand = "ACME"', {"GATEWAY_CONFIG": "/nowhere/gateway.toml"})

    assert "ACME" == settings.brand


# What is read.


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ('data_dir = "/srv/otp"', "database", Path("/srv/otp/gateway.db")),
        ('data_dir = "/srv/otp"', "keyring_file", Path("/srv/otp/keyring.json")),
        ('database_url = "sqlite:////srv/otp.db"', "database", Path("/srv/otp.db")),
        ('database_url = "sqlite:///otp.db"', "database", Path("otp.db")),
        ('keyring = "/etc/otp/keyring.json"', "keyring_file", Path("/etc/otp/keyring.json")),
        ('public_url = "https://otp.example.com/"', "public_url", "https://otp.example.com"),
        ('public_url = "https://example.com/otp/"', "public_url", "https://example.com/otp"),
        ('brand = "ACME"', "brand", "ACME"),
        ('default_region = "FR"', "default_region", "FR"),
        ('log_level = "debug"', "log_level", "debug"),
    ],
)
def test_a_setting_is_read_from_the_file(
    load: Load, text: str, name: str, expected: object
) -> None:
    assert expected == getattr(load(text), name)


@pytest.mark.parametrize(
    ("variable", "given", "name", "expected"),
    [
        ("DATA_DIR", "/srv/otp", "data_dir", Path("/srv/otp")),
        ("DATABASE_URL", "sqlite:////srv/otp.db", "database", Path("/srv/otp.db")),
        ("PUBLIC_URL", "https://other.example.com", "public_url", "https://other.example.com"),
        ("BRAND", "Other", "brand", "Other"),
        ("DEFAULT_REGION", "DE", "default_region", "DE"),
        ("DEFAULT_LOCALE", "fr-CA", "default_locale", "fr-CA"),
        ("LOG_LEVEL", "warning", "log_level", "warning"),
        ("KEYRING", "/etc/keys.json", "keyring_file", Path("/etc/keys.json")),
    ],
)
def test_a_variable_goes_before_the_file(
    load: Load, variable: str, given: str, name: str, expected: object
) -> None:
    text = """
        data_dir = "x"
        database_url = "sqlite:///x"
        public_url = "https://x.example.com"
        brand = "x"
        default_region = "FR"
        log_level = "error"
        keyring = "x"
    """

    assert expected == getattr(load(text, {f"GATEWAY_{variable}": given}), name)


def test_the_tests_know_every_variable() -> None:
    tried = {"DATA_DIR", "DATABASE_URL", "PUBLIC_URL", "BRAND", "LOG_LEVEL"}
    tried |= {"DEFAULT_REGION", "DEFAULT_LOCALE"}

    assert tried | {"KEYRING", "NODE"} == set(config.VARIABLES)


def test_a_route_has_its_name_channel_and_account(load: Load) -> None:
    (provider,) = load(with_route(account='"main"')).providers

    assert ("octopush", "sms", "main") == (provider.name, provider.channel, provider.account)


def test_the_account_of_a_route_is_by_default_its_name(load: Load) -> None:
    (provider,) = load(SOUND).providers

    assert "octopush" == provider.account


def test_whole_seconds_may_be_written_without_a_point(load: Load) -> None:
    (provider,) = load(with_route(timeout="7", rate="20")).providers

    assert (7.0, 20.0) == (provider.timeout, provider.rate)


def test_a_sender_may_be_a_table_by_country(load: Load) -> None:
    (provider,) = load(with_route(sender='{ FR = "ACME", default = "ACMECO" }')).providers

    assert {"FR": "ACME", "default": "ACMECO"} == provider.sender


def test_a_workflow_is_read_with_its_steps_in_their_order(load: Load) -> None:
    text = (
        SOUND.replace(WORKFLOW, "")
        + """
        [workflows.default]
        steps = [
            { channel = "sms", routes = ["octopush"] },
            { channel = "sms", routes = ["octopush"], patience = 5, until = "read" },
            { channel = "sms", routes = ["octopush"], on_failed = "wait" },
            { channel = "sms", routes = ["octopush"], on_unknown = "resubmit" },
        ]
    """
    )
    expected = (
        Step("sms", ("octopush",), 60, Until.DELIVERED),
        Step("sms", ("octopush",), 5, Until.READ),
        Step("sms", ("octopush",), 60, Until.DELIVERED, OnFailed.WAIT),
        Step("sms", ("octopush",), 60, Until.DELIVERED, on_unknown=OnUnknown.RESUBMIT),
    )

    assert {"default": expected} == load(text).workflows


def test_settings_do_not_change_in_place() -> None:
    settings = config.load({})

    with pytest.raises(FrozenInstanceError):
        settings.brand = "Other"  # type: ignore[misc]


def test_settings_may_be_given_other_routes_and_workflows(load: Load) -> None:
    sound, empty = load(SOUND), config.load({})
    expected = replace(empty, providers=sound.providers, workflows=sound.workflows)

    assert expected == config.replace(empty, sound.providers, sound.workflows)


# Secrets.


def test_a_secret_comes_from_a_variable(load: Load) -> None:
    settings = load(SOUND)

    assert "login-secret-value" == settings.routes["octopush"].api_key


def test_a_secret_comes_from_a_file_without_its_last_line_feed(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from-the-file\n", encoding="utf-8")
    settings = load(with_route(api_key=f'{{ file = "{file}" }}'))

    assert "from-the-file" == settings.routes["octopush"].api_key


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('{ env = "CALLBACK" }', ("callback-secret-value",)),
        ('[{ env = "CALLBACK" }]', ("callback-secret-value",)),
        (
            '[{ env = "CALLBACK" }, { env = "LOGIN_KEY" }]',
            ("callback-secret-value", "login-secret-value"),
        ),
    ],
)
def test_a_callback_key_is_one_or_two_while_it_is_replaced(
    load: Load, value: str, expected: tuple[str, ...]
) -> None:
    assert expected == load(with_route(callback_key=value)).routes["octopush"].callback_key


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('"literal-secret"', "is a secret: write"),
        ("17", "is a secret: write"),
        ("{}", "is a secret: write"),
        ('{ env = "LOGIN_KEY", file = "x" }', "is a secret: write"),
        ("{ env = 17 }", "is a secret: write"),
        ('{ environment = "LOGIN_KEY" }', "is a secret: write"),
        ('{ env = "NOT_SET" }', "the environment variable NOT_SET is not set"),
        ('{ env = "EMPTY" }', "the environment variable EMPTY is not set"),
        ('{ file = "/nowhere/secret" }', "the file /nowhere/secret cannot be read"),
        ('{ file = "/" }', "the file / cannot be read"),
        ('{ file = "/dev/null" }', "the file /dev/null is empty"),
    ],
)
@pytest.mark.parametrize("key", ["api_key", "callback_key"])
def test_a_secret_that_is_none_is_refused(
    mistakes: Mistakes, key: str, value: str, problem: str
) -> None:
    found = mistakes(with_route(**{key: value}), {**ENVIRON, "EMPTY": ""})

    assert [f"routes.octopush.{key}"] == list(found)
    assert found[f"routes.octopush.{key}"].startswith(problem)


def test_a_file_of_bytes_that_are_no_text_is_no_secret(mistakes: Mistakes, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"\xff\xfe")
    found = mistakes(with_route(api_key=f'{{ file = "{file}" }}'))

    assert f"the file {file} cannot be read: UnicodeDecodeError" == found["routes.octopush.api_key"]


def test_a_literal_secret_is_not_repeated_in_its_refusal(mistakes: Mistakes) -> None:
    assert "literal" not in str(mistakes(with_route(api_key='"literal-secret"')))


@pytest.mark.parametrize(
    "show", [repr, str, lambda settings: repr(settings.routes), lambda s: repr(s.providers)]
)
def test_settings_do_not_show_their_secrets(load: Load, show: Callable[[Settings], str]) -> None:
    shown = show(load(SOUND))

    assert ("login-secret-value" in shown, "callback-secret-value" in shown) == (False, False)


# Mistakes.


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ('brnad = "x"', "brnad", "is not a setting; check its spelling (is brand meant?)"),
        ("brand = 3", "brand", "valid string"),
        ('brand = ""', "brand", "at least 1 character"),
        ('default_region = "fr"', "default_region", "match pattern"),
        ('default_region = "ZZ"', "default_region", "is no country that has telephone numbers"),
        ('default_region = "FRA"', "default_region", "match pattern"),
        ('log_level = "loud"', "log_level", "'debug', 'info', 'warning' or 'error'"),
        ('database_url = "postgresql://db/x"', "database_url", "is sqlite:///PATH"),
        ('database_url = "postgresql+asyncpg://db"', "database_url", "is not an address like"),
        ('database_url = "postgresql+asyncpg://db:x/y"', "database_url", "is not an address like"),
        ('database_url = "postgresql+asyncpg://me:pw@db/y"', "database_url", "holds a password"),
        ('database_password = { env = "PW" }', "database_password", "is for postgresql+asyncpg"),
        ('public_url = "otp.example.com"', "public_url", "is not an http(s) address"),
        ('public_url = "ftp://example.com"', "public_url", "is not an http(s) address"),
        ('public_url = "https://"', "public_url", "is not an http(s) address"),
        ('public_url = "https://x.example.com/?a=b"', "public_url", "is not an http(s) address"),
        ('public_url = "https://x.example.com/#a"', "public_url", "is not an http(s) address"),
        ('public_url = "https://[::1"', "public_url", "is not an http(s) address"),
        ('public_url = "https://x.example.com:99999"', "public_url", "is not an http(s) address"),
        ('public_url = "https://me:secret@x.example.com"', "public_url", "holds credentials"),
        ("[sandbox]\nport = 70000", "sandbox.port", "less than or equal to 65535"),
        ("[sandbox]\nprot = 1", "sandbox.prot", "is not a setting; check its spelling"),
        (SOUND + "[[sandbox]]", "sandbox", "must be a table"),
        ("[metrics]\ntoken = 5", "metrics.token", "is a secret"),
        ("[metrics]\ntoken = { env = 5 }", "metrics.token", "is a secret"),
    ],
)
def test_a_wrong_setting_is_named(mistakes: Mistakes, text: str, key: str, problem: str) -> None:
    found = mistakes(text)

    assert [key] == list(found)
    assert problem in found[key]


@pytest.mark.parametrize(
    "address",
    [
        "http://otp.example.com",
        "http://10.0.0.1:8080",
        "http://0.0.0.0:8080",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://127.example.com",
    ],
)
@pytest.mark.parametrize("key", ["public_url", "routes.octopush.base_url"])
def test_plain_http_is_refused(mistakes: Mistakes, key: str, address: str) -> None:
    line = f'"{address}"'
    text = f"public_url = {line}" if key == "public_url" else with_route(base_url=line)

    assert {key: "is plain http; only loopback addresses may be. Use https"} == mistakes(text)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8080",
        "http://127.9.9.9",
        "http://localhost:8080",
        "http://LOCALHOST:8080",
        "http://[::1]:8080",
        "https://otp.example.com",
    ],
)
def test_plain_http_is_fine_on_this_machine(load: Load, address: str) -> None:
    assert address == load(f'public_url = "{address}"').public_url


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (with_route(provider='"nexmo"'), "provider", f"one of {', '.join(sorted(PROVIDERS))}"),
        (OCTOPUSH.replace('provider = "octopush"', "") + WORKFLOW, "provider", "must be one of"),
        (with_route(provider='["octopush"]'), "provider", "must be one of"),
        (with_route(api_kee='"x"'), "api_kee", "is not a setting of octopush; there are: account,"),
        (with_route(name='"x"'), "name", "is not a setting of octopush"),
        (OCTOPUSH.replace("api_login", "#") + WORKFLOW, "api_login", "is missing; octopush needs"),
        (OCTOPUSH.replace("api_key", "#") + WORKFLOW, "api_key", "is missing; octopush needs it"),
        (OCTOPUSH.replace("channel", "#") + WORKFLOW, "channel", "is missing; octopush needs it"),
        (with_route(timeout='"soon"'), "timeout", "valid number"),
        (with_route(timeout="true"), "timeout", "valid number"),
        (with_route(concurrency="1.5"), "concurrency", "valid integer"),
        (with_route(simulation_mode='"yes"'), "simulation_mode", "valid boolean"),
        (with_route(sender="17"), "sender", "valid string"),
        (with_route(base_url="17"), "base_url", "valid string"),
    ],
)
def test_a_wrong_setting_of_a_route_is_named(
    mistakes: Mistakes, text: str, key: str, problem: str
) -> None:
    found = mistakes(text)

    assert [f"routes.octopush.{key}"] == list(found)
    assert problem in found[f"routes.octopush.{key}"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"channel": '"fax"'}, "channel: octopush has sms and voice, not fax"),
        ({"timeout": "0"}, "timeout: 0 to 600 seconds are expected"),
        ({"concurrency": "0"}, "concurrency: at least 1 is expected"),
    ],
)
def test_what_a_provider_will_not_take_is_told_in_its_words(
    mistakes: Mistakes, changes: dict[str, str], problem: str
) -> None:
    assert problem in mistakes(with_route(**changes))["routes.octopush"]


@pytest.mark.parametrize("name", ["Octopush", "1octopush", "octo.push", "octo push", "o" * 33, ""])
def test_the_name_of_a_route_is_fit_for_a_path(mistakes: Mistakes, name: str) -> None:
    text = OCTOPUSH.replace("[routes.octopush]", f'[routes."{name}"]') + WORKFLOW.replace(
        "octopush", name
    )

    assert "is not a name" in mistakes(text)[f"routes.{name}"]


@pytest.mark.parametrize(
    ("step", "key", "problem"),
    [
        ('{ channel = "sms", routes = ["twilio"] }', "routes", "there is no route 'twilio'"),
        ('{ channel = "voice", routes = ["octopush"] }', "routes", "serves sms, not voice"),
        ('{ channel = "sms", routes = [] }', "routes", "at least 1 item"),
        ('{ routes = ["octopush"] }', "channel", "is missing"),
        ('{ channel = "sms" }', "routes", "is missing"),
        ('{ channel = "sms", routes = ["octopush"], patience = 4 }', "patience", "or equal to 5"),
        (
            '{ channel = "sms", routes = ["octopush"], patience = 601 }',
            "patience",
            "or equal to 600",
        ),
        (
            '{ channel = "sms", routes = ["octopush"], patience = "learned" }',
            "patience",
            "valid integer",
        ),
        ('{ channel = "sms", routes = ["octopush"], until = "seen" }', "until", "'delivered'"),
        ('{ channel = "sms", routes = ["octopush"], on_failed = "stop" }', "on_failed", "'wait'"),
        ('{ channel = "sms", routes = ["octopush"], wait = 5 }', "wait", "is not a setting"),
    ],
)
def test_a_wrong_step_is_named_with_its_place(
    mistakes: Mistakes, step: str, key: str, problem: str
) -> None:
    sound = '{ channel = "sms", routes = ["octopush"] }, '
    found = mistakes(with_step(sound + step))

    assert [f"workflows.default.steps.1.{key}"] == list(found)
    assert problem in found[f"workflows.default.steps.1.{key}"]


def test_an_unknown_route_is_refused_with_the_names_there_are(mistakes: Mistakes) -> None:
    found = mistakes(with_step('{ channel = "sms", routes = ["twilio"] }'))

    assert (
        "there is no route 'twilio'; there are: octopush"
        == found["workflows.default.steps.0.routes"]
    )


def test_each_unknown_route_of_a_step_is_named(mistakes: Mistakes) -> None:
    found = str(mistakes(with_step('{ channel = "sms", routes = ["twilio", "vonage"] }')))

    assert ("'twilio'" in found, "'vonage'" in found) == (True, True)


def test_a_route_with_a_mistake_is_not_unknown_besides(mistakes: Mistakes) -> None:
    assert ["routes.octopush.timeout"] == list(mistakes(with_route(timeout='"soon"')))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (OCTOPUSH, "workflows.default"),
        (with_step('{ channel = "sms", routes = ["octopush"] }', "other"), "workflows.default"),
        (OCTOPUSH + "[workflows.default]\nsteps = []", "workflows.default.steps"),
    ],
)
def test_routes_need_a_default_workflow(mistakes: Mistakes, text: str, key: str) -> None:
    assert [key] == list(mistakes(text))


def test_workflows_need_routes_of_ones_own(mistakes: Mistakes) -> None:
    found = mistakes(WORKFLOW)

    assert "need [routes.…] of your own" in found["workflows"]


def test_a_workflow_has_at_most_ten_steps(mistakes: Mistakes) -> None:
    steps = ", ".join(['{ channel = "sms", routes = ["octopush"] }'] * 11)

    assert ["workflows.default.steps"] == list(mistakes(with_step(steps)))


def test_every_mistake_is_listed_at_once(mistakes: Mistakes) -> None:
    text = """
        brand = ""
        colour = "red"
        public_url = "http://otp.example.com"
        database_url = "mysql://db"

        [routes.octopush]
        provider = "octopush"
        channel = "sms"
        api_key = "literal"
        colour = "red"

        [routes.fax]
        provider = "fax"

        [workflows.default]
        steps = [
            { channel = "sms", routes = ["pigeon"] },
            { channel = "sms", routes = ["octopush"], patience = 1 },
        ]
    """
    expected = {
        "brand",
        "colour",
        "public_url",
        "database_url",
        "routes.octopush.api_key",
        "routes.octopush.api_login",
        "routes.octopush.colour",
        "routes.fax.provider",
        "workflows.default.steps.0.routes",
        "workflows.default.steps.1.patience",
    }

    assert expected == set(mistakes(text))


def test_the_mistakes_that_need_no_second_look_are_listed_at_once(mistakes: Mistakes) -> None:
    text = with_route(api_key='"literal"', colour='"red"', timeout='"soon"')
    expected = {"api_key", "colour", "timeout"}

    assert {f"routes.octopush.{key}" for key in expected} == set(mistakes(text))


def test_the_error_tells_every_key_and_its_problem(load: Load) -> None:
    with pytest.raises(SettingsError) as refused:
        load('public_url = "x"\ndatabase_url = "y"')

    assert str(refused.value).startswith("database_url: is sqlite:///PATH")
    assert "; public_url: is not an http(s) address" in str(refused.value)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda file: None, "there is no such file"),
        (lambda file: file.mkdir(), "cannot be read: Is a directory"),
        (lambda file: file.write_text("brand = "), "is not valid TOML"),
        (lambda file: file.write_bytes(b"brand = '\xff'"), "is not valid TOML"),
    ],
    ids=["none", "folder", "no TOML", "no text"],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, make: Callable[[Path], object], problem: str
) -> None:
    file = tmp_path / "gateway.toml"
    make(file)
    with pytest.raises(SettingsError) as refused:
        config.load({}, file)

    assert [str(file)] == list(refused.value.mistakes)
    assert problem in refused.value.mistakes[str(file)]


def test_the_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_BRAND", "From outside")

    assert "From outside" == config.load(config.environment()).brand


GENERIC = """
[routes.sinch]
provider = "generic"
definition = "sinch"
channel = "sms"
values = { plan = "plan-7" }
secrets = { token = { env = "LOGIN_KEY" } }
callback_secret = { env = "CALLBACK" }

[workflows.default]
steps = [{ channel = "sms", routes = ["sinch"] }]
"""


def test_a_declared_route_has_values_and_secrets_of_its_own(load: Load) -> None:
    given = load(GENERIC).routes["sinch"]

    assert {"plan": "plan-7"} == given.values
    assert {"token": "login-secret-value"} == given.secrets
    assert "Sinch" == given.definition.vendor
    assert "secret-value" not in repr(given)


@pytest.mark.parametrize(
    ("before", "after", "key", "problem"),
    [
        ('"sinch"\nchannel', '"nobody"\nchannel', "definition", "is one of bird, infobip"),
        ('"sinch"\nchannel', "7\nchannel", "definition", "is one of bird, infobip"),
        ('"sinch"\nchannel', '"no.toml"\nchannel', "definition", "no.toml cannot be read"),
        ('definition = "sinch"\n', "", "definition", "is missing; generic needs it"),
        ('{ plan = "plan-7" }', "{ plan = 7 }", "values", "valid string"),
        ('{ plan = "plan-7" }', '"plan-7"', "values", "valid dictionary"),
        ('{ env = "LOGIN_KEY" } }', '"literal" }', "secrets.token", "never the value itself"),
        ('{ env = "LOGIN_KEY" } }', '{ env = "NONE" } }', "secrets.token", "NONE is not set"),
        ('{ token = { env = "LOGIN_KEY" } }', '"x"', "secrets.?", "never the value itself"),
        ('definition = "sinch"', 'definition = "sinch"\nregion = "eu"', "region", "not a setting"),
    ],
)
def test_what_is_wrong_with_a_declared_route_is_named(
    mistakes: Mistakes, before: str, after: str, key: str, problem: str
) -> None:
    found = mistakes(GENERIC.replace(before, after, 1))

    assert [f"routes.sinch.{key}"] == list(found)
    assert problem in found[f"routes.sinch.{key}"]


def test_what_is_wrong_with_an_own_definition_is_named_by_its_key(
    mistakes: Mistakes, tmp_path: Path
) -> None:
    file = tmp_path / "own.toml"
    file.write_text('vendor = "ACME"\n[auth]\nkynd = "none"\n', encoding="utf-8")
    found = mistakes(GENERIC.replace('"sinch"\nchannel', f"{str(file)!r}\nchannel"))

    assert {"routes.sinch.definition.auth.kynd", "routes.sinch.definition.auth.kind"} <= set(found)


def test_what_a_definition_needs_is_told_in_its_words(mistakes: Mistakes) -> None:
    text = GENERIC.replace('{ plan = "plan-7" }', "{}").replace("token =", "key =")

    assert (
        "values: sinch needs plan; secrets: sinch needs exactly token, not empty"
        == mistakes(text)["routes.sinch"]
    )


# Retention.


def test_how_long_things_are_kept_may_be_set(load: Load) -> None:
    kept = load("[retention]\nverifications = 7\nkeep_recipients = 0").retention

    assert Retention(7, 0) == kept


@pytest.mark.parametrize("line", ["verifications = 6", "keep_recipients = -1", "attempts = 9"])
def test_a_wrong_retention_is_listed_by_its_key(mistakes: Mistakes, line: str) -> None:
    assert [f"retention.{line.split(maxsplit=1)[0]}"] == list(mistakes(f"[retention]\n{line}"))


# --- Webhooks ------------------------------------------------------------------------------------


def test_webhooks_go_to_the_public_internet_alone_unless_told_otherwise(load: Load) -> None:
    assert ((), 30) == (load("").webhook_allow, load("").keep_events)


def test_webhooks_may_be_allowed_into_networks_and_to_hosts(load: Load) -> None:
    settings = load('webhook_allow = ["10.0.0.0/8", "hooks.internal"]\nkeep_events = 7')

    assert (("10.0.0.0/8", "hooks.internal"), 7) == (settings.webhook_allow, settings.keep_events)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('webhook_allow = "10.0.0.0/8"', "webhook_allow"),
        ('webhook_allow = ["10.0.0.0/99"]', "webhook_allow"),
        ('webhook_allow = ["https://hooks.internal"]', "webhook_allow"),
        ("keep_events = 1", "keep_events"),
        ('keep_events = "7"', "keep_events"),
    ],
)
def test_settings_of_webhooks_that_are_none_are_named(
    mistakes: Mistakes, text: str, key: str
) -> None:
    assert [key] == list(mistakes(text))


# PostgreSQL.


SERVER = "postgresql+asyncpg://gateway@db/gateway"


def test_a_server_takes_its_password_from_a_secret(load: Load) -> None:
    text = f'database_url = "{SERVER}"\ndatabase_password = {{ env = "PW" }}'

    assert Server(SERVER, Secret("hidden")) == load(text, {**ENVIRON, "PW": "hidden"}).store


def test_the_environment_may_hold_the_password_in_the_address(load: Load) -> None:
    url = SERVER.replace("@", ":hidden@")

    assert url == str(
        getattr(load("", {**ENVIRON, "GATEWAY_DATABASE_URL": url}).server, "url", None)
    )


def test_without_a_server_the_file_is_the_database(load: Load) -> None:
    settings = load("")

    assert (settings.database, None) == (settings.store, settings.server)


def test_the_examples_of_the_readme_are_settings(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    examples = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    environ = dict.fromkeys(re.findall(r'env = "(\w+)"', readme), "a-secret")
    environ["VONAGE_PRIVATE_KEY"] = key_pair().private
    plans = []
    for number, text in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(text, "utf-8")
        steps = config.load(environ, file).workflows["default"]
        plans.append([(one.channel, one.patience, one.until) for one in steps])

    assert [
        [("sms", 60, "delivered"), ("voice", 60, "delivered")],
        [("messenger", 120, "read"), ("sms", 60, "delivered")],
    ] == plans
