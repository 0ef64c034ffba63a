"""The console in a real browser: the distribution's Chromium, driven by Playwright, on a gateway
that serves over a socket with the rig's clock and providers.

Skipped where there is no Chromium or no Playwright, which says so. Accessibility is judged by axe,
out of the installed distribution of axe-playwright-python.
"""

import contextlib
import dataclasses
import shutil
import socket
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rig import NUMBER, Rig
from visitor import CHEAP, PASSWORD, add_operator
from web.test_console_access import RIGHTS

from gateway import config
from gateway.app import clock, folder, process
from gateway.app.gateway import Gateway
from gateway.app.wiring import build
from gateway.domain import totp
from gateway.domain.access import Role
from gateway.domain.identity import uuid7
from gateway.domain.recipient import mask
from gateway.services import accounts as logins
from gateway.store import clients
from gateway.store.records import ApiKey, Client
from gateway.web import auth

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SOON = 15_000  # milliseconds within which something has to show
FAILS_BY_SMS = "+33600000300"  # a magic number of the sandbox: the SMS fails, the call arrives

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
    pytest.mark.timeout(240),
]
playwright_api = pytest.importorskip(
    "playwright.async_api", reason="playwright is not installed: it is in the extra `test`"
)


@pytest.fixture
async def address(rig: Rig) -> AsyncIterator[str]:
    """The rig's application, served on a port of this machine."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        async with process.served(_without_lifespan(rig.gateway.web), listening, grace=1):
            yield f"http://127.0.0.1:{port}"


def _without_lifespan(web: Any) -> Any:
    """The rig starts and stops the gateway itself."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        await web(scope, receive, send)

    return application


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    async with playwright_api.async_playwright() as driver:
        launched = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        await launched.close()


async def page_of(browser: Any, address: str, **context: Any) -> Any:
    """A page whose complaints, about the policy or a script, are kept in `page.wrong`."""
    opened = await browser.new_context(base_url=address, **context)
    page = await opened.new_page()
    page.set_default_timeout(SOON)
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on(
        "console",
        lambda said: page.wrong.append(said.text) if said.type in {"error", "warning"} else None,
    )
    return page


async def log_in(page: Any) -> None:
    """With the keyboard alone: the cursor stands in the first field."""
    await page.goto("/console")
    await page.locator("#name:focus").wait_for()
    await page.keyboard.type("alice")
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await page.locator("#q:focus").wait_for()


async def tab_to(page: Any, wanted: str) -> None:
    """Press Tab until what has the focus is called so."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        name = await page.evaluate(
            "() => document.activeElement?.labels?.[0]?.textContent "
            "?? document.activeElement?.textContent ?? ''"
        )
        if name.strip() == wanted:
            return
    raise AssertionError(f"the keyboard does not reach {wanted!r}")


async def test_a_support_person_finds_follows_and_acts_by_keyboard(
    rig: Rig, address: str, browser: Any
) -> None:
    """Login, search, a delivery that shows by itself, the next step with a reason."""
    await add_operator(rig, "alice", Role.SUPPORT)
    sent = await rig.send(workflow="sms")
    page = await page_of(browser, address)
    await log_in(page)

    await page.keyboard.type("0033 6 12 34 56 78")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name=mask(NUMBER)).wait_for()
    await page.get_by_text("QUEUED → SENT").wait_for()

    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    await page.get_by_text("SENT → DELIVERED").wait_for()  # without touching anything
    assert "DELIVERED" in (await page.locator("#said").text_content())

    await tab_to(page, "Why")
    await page.keyboard.type("cannot read it")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.get_by_text("Done: the next step is on its way.").wait_for()
    await rig.settle()
    await page.get_by_text("2. voice call, octopush_voice").first.wait_for()

    assert ["sms:DELIVERED", "voice:SENT"] == rig.states(sent["verification_id"])
    assert rig.transport.submissions[0].code not in await page.content()
    assert [] == page.wrong


async def test_what_was_typed_survives_an_update(rig: Rig, address: str, browser: Any) -> None:
    await add_operator(rig, "alice", Role.SUPPORT)
    sent = await rig.send(workflow="sms")
    page = await page_of(browser, address)
    await log_in(page)
    await page.goto(f"/console/verifications/{sent['verification_id']}")
    await page.locator("#why").fill("half a sen")
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    await page.get_by_text("SENT → DELIVERED").wait_for()

    assert "half a sen" == await page.locator("#why").input_value()
    assert "why" == await page.evaluate("document.activeElement.id")


async def test_without_script_every_page_still_says_everything(
    rig: Rig, address: str, browser: Any
) -> None:
    await add_operator(rig, "alice", Role.ADMIN)
    sent = await rig.send(workflow="sms")
    page = await page_of(browser, address, java_script_enabled=False)
    await log_in(page)
    await page.keyboard.type(NUMBER)
    await page.keyboard.press("Enter")
    await page.get_by_text("QUEUED → SENT").wait_for()
    await page.locator("#why").fill("asked by phone")
    await page.get_by_role("button", name="Cancel the verification").click()
    await page.get_by_text("Done: the verification is canceled.").wait_for()

    assert "CANCELED" == rig.status(sent["verification_id"])


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
async def test_every_page_is_for_everybody(
    rig: Rig, address: str, browser: Any, scheme: str, width: int
) -> None:
    """axe finds nothing (WCAG 2.1 A and AA) on any page there is, with all its forms open, and no
    page is wider than its window."""
    axe = pytest.importorskip("axe_playwright_python.async_playwright").Axe()
    await add_operator(rig, "alice", Role.ADMIN)
    await rig.call("/otp/subscriptions", {"url": "https://hooks.example/otp"})
    sent = await rig.send(workflow="sms", reference="order-17")
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    for _ in range(5):
        await rig.verify(sent["verification_id"], "000000")  # locked: something to release
    places = {"id": sent["verification_id"], "name": "octopush"}
    paths = [path.format(**places) for method, path in RIGHTS if method == "GET"]
    size = {"width": width, "height": 800}
    page = await page_of(browser, address, bypass_csp=True, color_scheme=scheme, viewport=size)
    await page.goto("/console/login")
    found = {"/console/login": await problems(axe, page)}
    await log_in(page)
    for path in [*paths, "/console/nothing"]:
        if not path.endswith("/part"):
            await page.goto(path)
            await page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            found[path] = await problems(axe, page)

    assert {path: [] for path in found} == found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[tuple[str, Gateway, str]]:
    """A whole gateway with the sandbox beside it, on the real clock: where it is, its parts, and a
    caller's key."""
    settings = config.load({"GATEWAY_DATA_DIR": str(tmp_path)})
    keyring = folder.prepare(settings)
    ours, theirs = process.bind("127.0.0.1", 0), process.bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{process.port_of(ours)}"
    settings = dataclasses.replace(settings, public_url=address)
    timing = {"receipt_delay": 2.0}  # seconds: the page is open before the provider speaks
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(ours.close)
        stack.callback(theirs.close)
        beside = process.beside(settings, keyring, theirs, timing=timing)
        _, routed = await stack.enter_async_context(beside)
        gateway = build(routed, keyring)
        await stack.enter_async_context(process.served(gateway.web, ours, grace=1))
        key, row = new_key(clock.now())
        await gateway.desk.write(lambda engine: clients.add(engine, *row))
        yield address, gateway, key


def new_key(now: datetime) -> tuple[str, tuple[Client, ApiKey]]:
    """A caller with a key."""
    key = auth.new_key(test=False)
    client = Client(uuid7(now, auth.digest(key)[:10]), "backend", now)
    named = uuid7(now, auth.digest(key)[10:20])
    return key, (client, ApiKey(named, client.id, auth.digest(key), "send", now, None, None, False))


async def test_a_delivery_that_falls_back_is_followed_as_it_happens(
    world: tuple[str, Gateway, str], browser: Any
) -> None:
    """From the login with its second factor to the audit log, against the sandbox: the SMS fails,
    the voice call arrives, and nobody touches the page."""
    address, gateway, key = world
    secret = await second_factor(gateway)
    page = await page_of(browser, address)
    await page.goto("/console/live")
    await page.locator("#name").fill("alice")
    await page.locator("#password").fill(PASSWORD)
    await page.locator("#code").fill("000000")
    await page.keyboard.press("Enter")
    await page.get_by_role("alert").get_by_text("is not right").wait_for()
    page.wrong.clear()  # the browser notes that an answer was 401
    await page.locator("#name").fill("alice")
    await page.locator("#password").fill(PASSWORD)
    step = int(clock.now().timestamp()) // 30
    await page.locator("#code").fill(totp.code(secret, step))
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Live").wait_for()

    headers = {"authorization": f"Bearer {key}"}
    body = {"to": FAILS_BY_SMS, "workflow": "sms"}
    sent = await page.request.post("/otp/send", data=body, headers=headers)
    assert 202 == sent.status
    await page.get_by_role("link", name="Search").click()
    await page.locator("#q:focus").wait_for()
    await page.keyboard.type(FAILS_BY_SMS)
    await page.keyboard.press("Enter")
    await page.get_by_text("1. SMS, octopush").first.wait_for()
    await page.get_by_text("→ FAILED").first.wait_for()
    await page.get_by_text("2. voice call, octopush_voice").first.wait_for()
    await page.get_by_role("cell", name="the one before failed").wait_for()
    await page.get_by_text("→ DELIVERED").first.wait_for()

    await page.get_by_role("link", name="Audit").click()
    row = page.locator("tr", has_text="look").first
    assert mask(FAILS_BY_SMS) in await row.text_content()
    assert FAILS_BY_SMS not in await page.content()
    assert [] == page.wrong


async def second_factor(gateway: Gateway) -> bytes:
    """An admin, alice, who has one: its secret."""
    now, keyring = clock.now(), gateway.runtime.keyring

    async def work(engine: Any) -> bytes:
        one = await logins.add(
            engine, "alice", Role.ADMIN, PASSWORD, by="shell", now=now, hasher=CHEAP
        )
        secret = await logins.set_totp(engine, keyring, one, by="shell", now=now, on=True)
        assert secret is not None
        return secret

    return await gateway.desk.read(work)


async def test_the_pictures_of_the_manual(
    rig: Rig, address: str, browser: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each page as docs/console.md shows it; `--pictures docs/console` puts them there."""
    wanted = request.config.getoption("--pictures")
    folder = Path(wanted) if wanted else tmp_path
    await add_operator(rig, "alice", Role.ADMIN)
    for at in range(8):
        sent = await rig.send(f"+3361234567{at}", workflow="sms")
        rig.clock.advance(7 * at)
        status = "NOT_DELIVERED" if at in {2, 5} else "DELIVERED"
        texts = [one for one in rig.transport.submissions if "recipients" in one.body]
        await rig.octopush_receipt(texts[-1], status)
        await rig.settle()
    one = f"/console/verifications/{sent['verification_id']}"
    shots = {
        "answer": (one, "light", 1000),
        "answer-phone": (one, "dark", 390),
        "live": ("/console/live", "light", 1000),
        "route": ("/console/routes/octopush", "light", 1000),
    }
    for name, (path, scheme, width) in shots.items():
        size = {"width": width, "height": 800}
        page = await page_of(browser, address, color_scheme=scheme, viewport=size)
        await log_in(page)
        await page.goto(path)
        await page.screenshot(path=folder / f"{name}.png")
        await page.context.close()

    assert {f"{name}.png" for name in shots} <= {one.name for one in folder.glob("*.png")}


async def problems(axe: Any, page: Any) -> list[str]:
    """What is wrong with a page."""
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
    judged = await axe.run(page, options=options)
    wrong = [
        f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in judged.response["violations"]
    ]
    wide = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return wrong + ([f"{wide} px too wide"] if wide > 0 else [])
