"""Settings of limits, countries, guard and prices: what is read, and every mistake by its key."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gateway import config
from gateway.config import SettingsError
from gateway.domain.countries import Countries
from gateway.domain.guard import Guard, Mode
from gateway.domain.limits import PER_NUMBER, Per, Rule
from gateway.domain.policy import Policy
from gateway.domain.spending import Tariff

CLIENT = "01930000-0000-7000-8000-000000000001"
PRICES = """
[prices]
currency = "EUR"
[prices.routes.octopush]
default = "0.07"
FR = "0.045"
"+3361" = "0.05"
"""


def policy(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Policy:
    file = tmp_path / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(environ or {}, file).policy


def test_without_settings_the_defaults_are_in_force(tmp_path: Path) -> None:
    """Five sends per number in ten minutes and the guard in shadow; all else is off."""
    expected = Policy("", (Rule("number", Per.NUMBER, 600, 5),), Countries(), Guard(), None)

    assert expected == policy(tmp_path, "")
    assert Mode.SHADOW is Guard().mode


def test_rules_are_read_beside_the_default(tmp_path: Path) -> None:
    text = """
        [limits.range]
        per = "prefix"
        digits = 6
        window = 3600
        max = 200
        [limits.address]
        per = "ip"
        window = 60
        max = 10
        shadow = true
    """
    rules = policy(tmp_path, text).rules

    assert (
        PER_NUMBER,
        Rule("range", Per.PREFIX, 3600, 200, digits=6),
        Rule("address", Per.IP, 60, 10, shadow=True),
    ) == rules


def test_the_default_is_replaced_by_its_name(tmp_path: Path) -> None:
    text = '[limits.number]\nper = "number"\nwindow = 60\nmax = 1'

    assert (Rule("number", Per.NUMBER, 60, 1),) == policy(tmp_path, text).rules


def test_countries_are_read(tmp_path: Path) -> None:
    text = '[countries]\nallow = ["FR", "DE"]\ndeny = ["LV"]\nmonitor = ["DE"]'
    expected = Countries(frozenset({"FR", "DE"}), frozenset({"LV"}), frozenset({"DE"}))

    assert expected == policy(tmp_path, text).countries


def test_the_guard_is_read_and_may_be_off(tmp_path: Path) -> None:
    assert (
        Guard(Mode.ENFORCE, budget=9)
        == policy(tmp_path, '[guard]\nmode = "enforce"\nbudget = 9').guard
    )
    assert policy(tmp_path, '[guard]\nmode = "off"').guard is None


def test_a_node_is_named_by_a_setting_or_a_variable(tmp_path: Path) -> None:
    assert "a" == policy(tmp_path, 'node = "a"').node
    assert "b" == policy(tmp_path, 'node = "a"', {"GATEWAY_NODE": "b"}).node


def test_prices_and_caps_are_millionths(tmp_path: Path) -> None:
    text = f'{PRICES}[spend]\ncap = "50.00"\nreset_hour = 4\n[spend.clients]\n"{CLIENT}" = "7.5"'
    spending = policy(tmp_path, text).spending
    assert spending is not None

    assert Tariff(70_000, {"FR": 45_000}, {"+3361": 50_000}) == spending.tariffs["octopush"]
    assert ("EUR", 50_000_000, 4) == (spending.currency, spending.cap, spending.reset_hour)
    assert {UUID(CLIENT): 7_500_000} == spending.caps


def test_prices_without_a_cap_count_nothing(tmp_path: Path) -> None:
    assert policy(tmp_path, PRICES).spending is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[limits.a]\nper = "moon"\nwindow = 1\nmax = 1', "limits.a.per"),
        ('[limits.a]\nper = "ip"\nwindow = 0\nmax = 1', "limits.a.window"),
        ('[limits.a]\nper = "ip"\nwindow = 1\nmax = 0', "limits.a.max"),
        ('[limits.a]\nper = "ip"\nwindow = 1', "limits.a.max"),
        ('[limits.a]\nper = "ip"\nwindow = 1.5\nmax = 1', "limits.a.window"),
        ('[limits.a]\nper = "ip"\nwindow = 1\nmax = 1\nshade = true', "limits.a.shade"),
        ('[limits.a]\nper = "ip"\nwindow = 1\nmax = 1\ndigits = 5', "limits.a.digits"),
        ('[limits.a]\nper = "prefix"\nwindow = 1\nmax = 1\ndigits = 13', "limits.a.digits"),
        ('[limits.A]\nper = "ip"\nwindow = 1\nmax = 1', "limits.A"),
        ('[countries]\nallow = ["France"]', "countries.allow.0"),
        ('[countries]\ndeny = ["FR", "XX"]', "countries.deny.1"),
        ('[countries]\nmonitor = ["fr"]', "countries.monitor.0"),
        ("[countries]\nallow = []", "countries.allow"),
        ('[countries]\nallow = ["FR"]\ndeny = ["FR"]', "countries.deny"),
        ('[guard]\nmode = "maybe"', "guard.mode"),
        ("[guard]\npercent = 101", "guard.percent"),
        ("[guard]\nwindow = 59", "guard.window"),
        ("[guard]\nbudget = 0", "guard.budget"),
        (PRICES.replace("EUR", "euro"), "prices.currency"),
        (PRICES.replace('"0.07"', "0.07"), "prices.routes.octopush.default"),
        (PRICES.replace("0.045", "0,045"), "prices.routes.octopush.FR"),
        (PRICES.replace("0.045", "0.0000001"), "prices.routes.octopush.FR"),
        (PRICES.replace("0.045", "-1"), "prices.routes.octopush.FR"),
        (PRICES.replace("FR", "France"), "prices.routes.octopush.France"),
        (PRICES.replace("default", "DE"), "prices.routes.octopush.default"),
        ('[spend]\ncap = "50"', "prices"),
        (f'{PRICES}[spend]\ncap = "lots"', "spend.cap"),
        (f'{PRICES}[spend]\ncap = "50"\nreset_hour = 24', "spend.reset_hour"),
        (f'{PRICES}[spend]\ncap = "50"\n[spend.clients]\nshop = "7"', "spend.clients.shop"),
        (
            f'{PRICES}[spend]\ncap = "50"\n[spend.clients]\n"{CLIENT}" = "x"',
            f"spend.clients.{CLIENT}",
        ),
        ('node = "a b"', "node"),
    ],
)
def test_a_mistake_is_named_by_its_key(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(SettingsError) as refused:
        policy(tmp_path, text)

    assert [key] == list(refused.value.mistakes)


def test_a_cap_needs_the_price_of_every_route(tmp_path: Path) -> None:
    route = '[routes.{0}]\nprovider = "octopush"\nchannel = "sms"\napi_login = "l"\n'
    secret = 'api_key = { env = "K" }\n'
    steps = '[workflows.default]\nsteps = [{ channel = "sms", routes = ["octopush"] }]\n'
    text = route.format("octopush") + secret + route.format("other") + secret + steps
    environ: Any = {"K": "k"}
    with pytest.raises(SettingsError) as refused:
        policy(tmp_path, f'{text}{PRICES}[spend]\ncap = "50"', environ)

    assert ["prices.routes.other"] == list(refused.value.mistakes)
