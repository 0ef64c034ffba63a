"""Logging in at the console through an identity provider that somebody else wrote, in a process of
its own: `oidc-provider-mock`, which is `authlib` behind a login form.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from acceptance.outside import START, until
from acceptance.standing import standing
from visitor import says

from gateway.app import process

ALICE: dict[str, Any] = {"sub": "4711", "preferred_username": "Alice", "groups": ["staff", "help"]}
BOB: dict[str, Any] = {"sub": "4712", "preferred_username": "Bob", "groups": ["staff"]}

# The package as its command runs it, with a thing that it leaves out: authlib's check of PKCE.
PROVIDER = """
from authlib.oauth2.rfc7636 import CodeChallenge
from oidc_provider_mock import _app
from oidc_provider_mock.__main__ import run

asked = {}  # by code

class Check(CodeChallenge):
    def get_authorization_code_challenge(self, code):
        return asked[code.code]["code_challenge"]

    def get_authorization_code_challenge_method(self, code):
        return asked[code.code]["code_challenge_method"]

class Grant(_app.AuthorizationCodeGrant):
    def __init__(self, *given):
        super().__init__(*given)
        Check()(self)

    def save_authorization_code(self, code, request):
        asked[code] = dict(request.payload.data)
        super().save_authorization_code(code, request)

_app.AuthorizationCodeGrant = Grant
run()
"""

TOML = """
[oidc]
issuer = "{issuer}"
client_id = "{client_id}"
client_secret = {{ env = "OIDC_SECRET" }}
scopes = ["openid", "profile"]

[oidc.roles]
support = ["help"]
admin = ["root"]
"""


@contextlib.asynccontextmanager
async def provider(folder: Path) -> AsyncGenerator[str]:
    """Its address. It knows Alice and Bob, and takes no client that has not registered."""
    said = folder / "provider"
    people = [f"--user-claims={json.dumps(one)}" for one in (ALICE, BOB)]
    with said.open("wb") as to:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROVIDER, "--port=0", "--require-registration=true"),
            *("--require-nonce=true", *people),
            cwd=folder,
            env={name: given for name, given in os.environ.items() if name == "PATH"},
            stdout=to,
            stderr=to,
        )
    try:
        running = re.compile(r"running on (http://127\.0\.0\.1:\d+)")
        found = await until(
            lambda: child.returncode is not None or running.search(said.read_text()),
            START,
            "the provider's start",
        )
        assert isinstance(found, re.Match), said.read_text()
        yield found[1]
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


@pytest.fixture
async def url(tmp_path: Path) -> AsyncGenerator[str]:
    """Of a gateway that has registered there."""
    async with provider(tmp_path) as issuer, httpx.AsyncClient() as http:
        inside = process.bind("127.0.0.1", 0)
        redirect = f"http://127.0.0.1:{process.port_of(inside)}/console/oidc/callback"
        answer = await http.post(f"{issuer}/oauth2/clients", json={"redirect_uris": [redirect]})
        client = answer.json()
        file = tmp_path / "gateway.toml"
        file.write_text(TOML.format(issuer=issuer, client_id=client["client_id"]))
        environ = {"GATEWAY_CONFIG": str(file), "OIDC_SECRET": client["client_secret"]}
        async with standing(tmp_path / "data", inside, **environ) as gateway:
            yield gateway.url


async def gone(browser: httpx.AsyncClient, sub: str) -> httpx.URL:
    """To the provider's form and through it; the address it sends the browser back to."""
    begun = await browser.get("/console/oidc?next=/console/routes")
    assert 303 == begun.status_code, begun.text
    there = httpx.URL(begun.headers["location"])
    form = await browser.get(there)
    assert f'value="{sub}"' in form.text
    assert "S256" == there.params["code_challenge_method"]
    answer = await browser.post(there, data={"sub": sub})
    assert 302 == answer.status_code, answer.text
    return httpx.URL(answer.headers["location"])


async def back(browser: httpx.AsyncClient, address: httpx.URL) -> httpx.Response:
    return await browser.get(address, headers={"sec-fetch-site": "cross-site"})


async def test_a_provider_of_somebody_else_lets_in_whom_it_gives_a_role(url: str) -> None:
    """And gives no token for a code that another browser came by: the verifier is another."""
    async with (
        httpx.AsyncClient(base_url=url) as alice,
        httpx.AsyncClient(base_url=url) as bob,
        httpx.AsyncClient(base_url=url) as mallory,
    ):
        code, own = await gone(alice, ALICE["sub"]), await gone(mallory, ALICE["sub"])
        caught = own.copy_set_param("code", code.params["code"])
        declined = await back(mallory, caught)
        entered = await back(alice, code)
        routes = await alice.get(entered.headers["location"])
        refused = await back(bob, await gone(bob, BOB["sub"]))
        outside = [await one.get("/console/routes") for one in (bob, mallory)]

        assert (303, "/console/routes") == (entered.status_code, entered.headers["location"])
        assert (200, True) == (routes.status_code, "alice, support" in says(routes))
        assert (401, True) == (declined.status_code, "oidc_declined" in declined.text)
        assert (403, True) == (refused.status_code, "oidc_role" in refused.text)
        assert [303, 303] == [one.status_code for one in outside]
        assert [True, False, False] == ["console" in one.cookies for one in (alice, bob, mallory)]
