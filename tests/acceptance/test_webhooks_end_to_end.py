"""Events over real sockets, as users set them up: the commands, a running gateway with its sandbox,
an endpoint that verifies with the reference library, a stream, and a clean stop in its midst."""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from acceptance.outside import busy, free_port, until
from aiohttp import web
from standardwebhooks import Webhook

ROOT = Path(__file__).resolve().parents[2]
READ = "+33600010000"  # the sandbox delivers it on the messenger, and it is read
SILENT = "+33600000000"
BEGINNING = "2020-01-01T00:00:00Z"

pytestmark = pytest.mark.timeout(300)


@dataclass
class Endpoint:
    """A caller's endpoint. It refuses what its library does not believe."""

    secret: str = ""
    refusing: bool = False
    got: list[dict[str, Any]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        told = Webhook(self.secret).verify(body, dict(request.headers))
        if self.refusing:
            return web.Response(status=503)
        self.got.append(told)
        return web.Response(status=204)

    def kinds(self) -> list[str]:
        return [one["type"] for one in self.got]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/hooks", self.take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            yield f"http://127.0.0.1:{port}/hooks"
        finally:
            await runner.cleanup()


class Home:
    """A folder with a gateway.toml in it, and the command."""

    def __init__(self, folder: Path, allow: str) -> None:
        self.folder = folder
        (folder / "gateway.toml").write_text(f"webhook_allow = {allow}\n")

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
        env = kept | {"PYTHONPATH": str(ROOT), "GATEWAY_CONFIG": "gateway.toml"}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *arguments),
            cwd=self.folder,
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        process = await self.start(*arguments)
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def json(self, *arguments: str) -> Any:
        code, out, err = await self.run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    @asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
        ports = ("--port", str(port), "--sandbox-port", str(free_port()))
        process = await self.start("serve", *ports)
        reading = asyncio.create_task(process.communicate())
        try:
            async with aiohttp.ClientSession() as http:
                await until_so(partial(_ready, http, port), 30)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await reading


async def until_so(what: Callable[[], Awaitable[bool]], within: float) -> None:
    """Until it says so; a failure after so many seconds, more on a busy machine."""
    async with asyncio.timeout(within * busy()):
        while not await what():  # noqa: ASYNC110  it is asked over a socket
            await asyncio.sleep(0.1)


async def _ready(http: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def test_events_arrive_signed_and_a_stop_ends_the_streams(tmp_path: Path) -> None:
    home, endpoint, port = Home(tmp_path, '["127.0.0.1/32"]'), Endpoint(), free_port()
    key = (await home.json("client", "add", "shop"))["key"]
    base = f"http://127.0.0.1:{port}"
    headers = {"authorization": f"Bearer {key}"}
    async with endpoint.serving() as url, home.serving(port) as process:
        made = await home.json("subscription", "add", "shop", url)  # beside the running gateway
        endpoint.secret = made["secret"]
        subscription = made["subscription_id"]
        async with aiohttp.ClientSession(base, headers=headers) as http:
            path = f"/otp/subscriptions/{subscription}/test"
            tested = await (await http.post(path, json={})).json()
            numbers = itertools.count(1000)
            await until_so(partial(_learned, http, endpoint, numbers), 30)
            endpoint.got.clear()
            prefer = {"prefer": "wait=20"}
            sent = await (await http.post("/otp/send", json={"to": READ}, headers=prefer)).json()
            await until(lambda: "verification.read" in endpoint.kinds(), 30, "being read")
            status = {"verification_id": sent["verification_id"], "wait": 5, "until": "read"}
            shown = await (await http.post("/otp/status", json=status)).json()

            assert tested == {
                "subscription_id": subscription,
                "delivered": True,
                "http_status": 204,
                "problem": None,
            }
            assert sent["delivery_status"] in {"SENT", "ACK", "DELIVERED", "READ"}
            assert "READ" == shown["delivery_status"]
            mine = [
                one
                for one in endpoint.got
                if one["data"]["verification_id"] == status["verification_id"]
            ]
            assert ["verification.sent", "verification.delivered", "verification.read"] == [
                one["type"] for one in mine
            ]

            stream = await http.get(
                "/otp/events", params={"verification_id": sent["verification_id"]}
            )
            first = await stream.content.readuntil(b"\n\n")
            process.terminate()
            rest = await stream.content.read()
        async with asyncio.timeout(10 * busy()):  # far below the grace for those who do not go
            code = await process.wait()

    assert 0 == code
    assert first.startswith(b"retry:")
    assert b'"after":"READ"' in rest
    listed = await home.json("subscription", "list")
    rotated = await home.json("subscription", "rotate", subscription)
    replayed = await home.json(
        "subscription", "replay", subscription, "--since", "2020-01-01T00:00:00Z"
    )
    removed = await home.run("subscription", "remove", subscription)
    again = await home.run("subscription", "remove", subscription)

    assert [(subscription, "shop", 0)] == [
        (one["subscription_id"], one["client"], one["undelivered"]) for one in listed
    ]
    assert rotated["secret"].startswith("whsec_")
    assert made["secret"] != rotated["secret"]
    assert 1 <= replayed["replayed_verifications"]
    assert (0, 3) == (removed[0], again[0])


async def _learned(
    http: aiohttp.ClientSession, endpoint: Endpoint, numbers: "itertools.count[int]"
) -> bool:
    """A gateway learns within seconds what a command has subscribed to."""
    await http.post("/otp/send", json={"to": f"+3361234{next(numbers)}", "workflow": "sms"})
    return "verification.sent" in endpoint.kinds()


async def test_an_event_written_before_a_kill_is_delivered_after_it(tmp_path: Path) -> None:
    """F32: the endpoint is down, the process dies, the next one delivers."""
    home, endpoint, port = Home(tmp_path, '["127.0.0.1"]'), Endpoint(refusing=True), free_port()
    key = (await home.json("client", "add", "shop"))["key"]
    headers = {"authorization": f"Bearer {key}"}
    async with endpoint.serving() as url:
        made = await home.json("subscription", "add", "shop", url)
        endpoint.secret = made["secret"]
        async with home.serving(port) as process:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as http:
                answer = await http.post(
                    "/otp/send",
                    json={"to": SILENT, "workflow": "sms"},
                    headers={"prefer": "wait=20"},
                )
                assert "SENT" == (await answer.json())["delivery_status"]
            process.kill()
            await process.wait()
        endpoint.refusing = False
        async with home.serving(port):
            await until(lambda: "verification.sent" in endpoint.kinds(), 60, "the event")
        assert ["verification.sent"] == endpoint.kinds()[:1]


async def test_what_a_command_cannot_do_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path, "[]")
    await home.json("client", "add", "shop")
    inside = await home.run("subscription", "add", "shop", "https://127.0.0.1/hooks")
    nobody = await home.run("subscription", "add", "nobody", "https://hooks.example/")
    unknown = await home.run(
        "subscription", "add", "shop", "https://hooks.example/", "--kinds", "verification.began"
    )
    never = await home.run("subscription", "replay", "x", "--since", "yesterday")

    assert [2, 3, 2, 2] == [one[0] for one in (inside, nobody, unknown, never)]
    assert "webhook_allow" in inside[2]
    assert "nobody" in nobody[2]
    assert "verification.sent" in unknown[2]
