"""Who may read /metrics."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fakes import Clock
from rig import Rig, make_settings, problem
from starlette.applications import Starlette

from gateway.ports import Secret
from gateway.web.scrape import Scrape

TOKEN = "a-token-of-the-metrics"


def reader(
    *,
    token: str | None = None,
    public_url: str = "http://127.0.0.1:8080",
    caller: str = "127.0.0.1",
) -> httpx.AsyncClient:  # noqa: TID251  (plays the caller)
    """A caller at that address of a gateway set up so."""
    scrape = Scrape(
        lambda accept: (b"otp_sends_total 1\n", "text/plain"), token=token, public_url=public_url
    )
    transport = httpx.ASGITransport(Starlette(routes=scrape.routes()), client=(caller, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")  # noqa: TID251


@pytest.fixture
async def guarded(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[Rig]:
    """A gateway with a token for its metrics."""
    settings = dataclasses.replace(make_settings(tmp_path), metrics_token=Secret(TOKEN))
    async with Rig(tmp_path, migrated, clock, settings=settings) as rig:
        yield rig


async def test_on_this_machine_they_are_open(rig: Rig) -> None:
    answer = await rig.http.get("/metrics")

    assert 200 == answer.status_code
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "no-store" == answer.headers["cache-control"]
    assert "\notp_build_info{" in answer.text


async def test_a_scraper_may_ask_for_openmetrics(rig: Rig) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = await rig.http.get("/metrics", headers=accept)

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer é"])
async def test_with_a_token_only_its_bearer_reads_them(guarded: Rig, given: str) -> None:
    headers = [(b"authorization", given.encode())] if given else []
    refused = await guarded.http.get("/metrics", headers=headers)
    taken = await guarded.http.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})

    problem(refused, 401, "metrics_token_wrong")
    assert "Bearer" in refused.headers["www-authenticate"]
    assert 200 == taken.status_code


async def test_an_api_key_is_no_token(guarded: Rig) -> None:
    headers = {"authorization": f"Bearer {guarded.key}"}

    problem(await guarded.http.get("/metrics", headers=headers), 401, "metrics_token_wrong")


@pytest.mark.parametrize(
    ("public_url", "caller", "host"),
    [
        # behind a proxy on the same machine everybody calls from 127.0.0.1
        ("https://otp.example.com", "127.0.0.1", "127.0.0.1:8080"),
        ("http://127.0.0.1:8080", "192.0.2.7", "127.0.0.1:8080"),
        # a page in somebody's browser whose name resolves to this machine
        ("http://127.0.0.1:8080", "127.0.0.1", "rebound.example"),
        ("http://127.0.0.1:8080", "127.0.0.1", "[::1"),
    ],
)
async def test_without_one_they_are_closed_to_everywhere_else(
    public_url: str, caller: str, host: str
) -> None:
    async with reader(public_url=public_url, caller=caller) as client:
        answer = await client.get("/metrics", headers={"host": host})

    problem(answer, 403, "metrics_closed")
    assert "otp_sends" not in answer.text


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:8080"])
async def test_this_machine_has_several_names(host: str) -> None:
    async with reader(caller="::1", public_url="http://localhost:8080") as client:
        answer = await client.get("/metrics", headers={"host": host})

    assert 200 == answer.status_code


async def test_a_token_reads_from_anywhere() -> None:
    async with reader(token=TOKEN, public_url="https://otp.example.com", caller="192.0.2.7") as one:
        answer = await one.get("/metrics", headers={"authorization": f"bearer {TOKEN}"})

    assert 200 == answer.status_code


async def test_it_is_read_and_nothing_else(rig: Rig) -> None:
    problem(await rig.http.post("/metrics"), 405, "method_not_allowed")
