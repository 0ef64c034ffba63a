"""Schemathesis reads `/openapi.json` of a running gateway and tries it: requests made from the
schemas, right and wrong ones, at their bounds and at random, and calls in sequence.

It runs as its own command: it is its own reporter, and its pytest plugin would make every run of
this suite two seconds longer.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from acceptance.standing import Standing, standing

SEED, EXAMPLES = "1", "8"  # of each call and phase, beside those at the bounds
CHECKS = Path(__file__).with_name("schemathesis_checks.py")
LIMIT = 150  # seconds, on a machine that does much else; alone it takes 15

pytestmark = pytest.mark.timeout(LIMIT + 30)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Standing]:
    async with standing(tmp_path) as one:
        yield one


async def known(gateway: Standing, folder: Path) -> Path:
    """Settings for it: names of what there is, so that not every call ends at 404."""
    headers = {"authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as http:
        body = {"to": "+33600000042", "workflow": "sms", "reference": "order-17"}
        sent = (await http.post("/otp/send", json=body)).json()
        await http.post("/otp/cancel", json={"reference": "order-17"})  # no wait for it is long
        url = {"url": "https://127.0.0.1/otp", "kinds": ["verification.locked"]}
        refused = await http.post("/otp/subscriptions", json=url)
        made = await http.post("/otp/subscriptions", json={**url, "url": "https://shop.example/"})
    assert (400, 201) == (refused.status_code, made.status_code), (refused.text, made.text)
    settings = folder / "schemathesis.toml"
    settings.write_text(
        f"""
[generation]
database = "none"

[checks.positive_data_acceptance]  # ours is the one that can tell: see schemathesis_checks.py
enabled = false

[parameters]
"path.route" = "octopush"
"path.key" = "{gateway.callback_key}"
"query.verification_id" = "{sent["verification_id"]}"

[[operations]]
include-path-regex = "^/otp/subscriptions/"
parameters = {{ "path.id" = "{made.json()["subscription_id"]}" }}
"""
    )
    return settings


async def test_it_finds_nothing(gateway: Standing, tmp_path: Path) -> None:
    settings = await known(gateway, tmp_path)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "--no-color"),
        *("run", f"{gateway.url}/openapi.json", "--header", f"Authorization: Bearer {gateway.key}"),
        *("--phases", "coverage,fuzzing,stateful", "--mode", "all"),
        *(
            "--seed",
            SEED,
            "--max-examples",
            EXAMPLES,
            "--request-timeout",
            "70",
            "--warnings",
            "off",
        ),
        *("--exclude-path", "/otp/events"),  # an answer without an end; test_waits.py reads it
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(CHECKS)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
    told = said.decode()

    assert 0 == process.returncode, told
    assert "No issues found" in told, told
