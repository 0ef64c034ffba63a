"""The settings by which the gateway is observed."""

import sys
from pathlib import Path

import pytest

import gateway
from gateway import config
from gateway.app import extras
from gateway.config import Settings, SettingsError
from gateway.domain.access import Role

TOKEN = "a-token-of-the-metrics"


def load(folder: Path, text: str, **environ: str) -> Settings:
    file = folder / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(environ, file)


def test_a_token_for_the_metrics_is_a_secret(tmp_path: Path) -> None:
    settings = load(tmp_path, '[metrics]\ntoken = { env = "METRICS" }', METRICS=TOKEN)

    assert TOKEN == settings.metrics_token
    assert TOKEN not in repr(settings)


@pytest.mark.parametrize(
    ("given", "mistake"),
    [
        (f'"{TOKEN}"', "is a secret"),
        ('{ env = "MISSING" }', "MISSING is not set"),
        ('{ env = "SHORT" }', "shorter than 16"),
    ],
)
def test_one_that_is_literal_missing_or_short_is_refused(
    tmp_path: Path, given: str, mistake: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, f"[metrics]\ntoken = {given}", SHORT="fifteen-letters")

    assert ["metrics.token"] == list(refused.value.mistakes)
    assert mistake in refused.value.mistakes["metrics.token"]
    assert TOKEN not in str(refused.value)


def test_traces_go_to_a_collector_with_the_headers_it_wants(tmp_path: Path) -> None:
    text = """
        [traces]
        endpoint = "https://collector.example/v1/traces"
        headers = { authorization = { env = "COLLECTOR" } }
    """
    settings = load(tmp_path, text, COLLECTOR=TOKEN)

    assert settings.traces is not None
    assert "https://collector.example/v1/traces" == settings.traces.endpoint
    assert {"authorization": TOKEN} == settings.traces.headers
    assert TOKEN not in repr(settings)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[traces]", "traces.endpoint"),
        ('[traces]\nendpoint = "http://collector.example/v1/traces"', "traces.endpoint"),
        (f'[traces]\nendpoint = "https://c.example"\nheaders = {{ a = "{TOKEN}" }}',
         "traces.headers.a"),
    ],
)  # fmt: skip
def test_a_collector_without_address_in_the_clear_or_with_a_literal_secret_is_refused(
    tmp_path: Path, text: str, mistake: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, text)

    assert [mistake] == list(refused.value.mistakes)


def test_without_the_extra_traces_are_refused_and_all_else_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(tmp_path, '[traces]\nendpoint = "https://collector.example/v1/traces"')
    monkeypatch.setitem(sys.modules, "gateway.traces", None)
    monkeypatch.delattr(gateway, "traces", raising=False)

    with pytest.raises(SettingsError) as refused:
        extras.tracer_of(settings)

    assert ["traces.endpoint"] == list(refused.value.mistakes)
    assert "otp-gateway[otel]" in refused.value.mistakes["traces.endpoint"]
    assert not extras.tracer_of(config.load({})).on


def test_a_delay_of_commits_is_read_from_the_environment_alone(tmp_path: Path) -> None:
    assert 0.002 == load(tmp_path, "", GATEWAY_COMMIT_DELAY_MS="2").commit_delay
    assert 0 == load(tmp_path, "").commit_delay


@pytest.mark.parametrize("given", ["", "-1", "1001", "2.5", "²"])
def test_a_wrong_delay_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, "", GATEWAY_COMMIT_DELAY_MS=given)

    assert ["GATEWAY_COMMIT_DELAY_MS"] == list(refused.value.mistakes)


# An identity provider for the console.

OIDC = """
[oidc]
issuer = "https://id.example.com/realms/acme/"
client_id = "otp-console"
client_secret = { env = "OIDC_SECRET" }
roles = { admin = ["ops"], viewer = ["staff"] }
"""


def test_an_identity_provider_is_taken_as_it_names_itself(tmp_path: Path) -> None:
    """Its trailing slash is part of the name that its tokens carry."""
    settings = load(tmp_path, OIDC, OIDC_SECRET="hush-hush")

    assert settings.oidc is not None
    assert "https://id.example.com/realms/acme/" == settings.oidc.terms.issuer
    assert frozenset({"ops"}) == settings.oidc.terms.roles[Role.ADMIN]
    assert "hush-hush" not in repr(settings.oidc)


def test_what_is_wrong_with_an_identity_provider_is_listed(tmp_path: Path) -> None:
    text = """
[oidc]
issuer = "http://id.example.com"
client_id = "otp-console"
client_secret = "literal"
scopes = ["profile"]
"""
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, text)

    assert {"oidc.issuer", "oidc.client_secret", "oidc.scopes", "oidc.roles"} == set(
        raised.value.mistakes
    )
