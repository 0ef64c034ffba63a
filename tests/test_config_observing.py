"""The settings by which the gateway is observed."""

from pathlib import Path

import pytest

from gateway import config
from gateway.config import Settings, SettingsError

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
