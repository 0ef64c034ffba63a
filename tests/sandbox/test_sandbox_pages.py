"""What people and tests look at: the phone page, the JSON, and the bounds of memory."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from sandbox.conftest import MakeRig
from sandbox.world import MESSENGER, SMS, Rig, bearer, client, settle, sms_body
from starlette.applications import Starlette
from starlette.routing import Mount

from gateway.sandbox import TABLE
from gateway.sandbox.markup import tag, text

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)


async def page(rig: Rig, path: str = "/") -> str:
    response = await rig.client.get(path)
    assert 200 == response.status_code
    return response.text


async def changes(rig: Rig, **query: Any) -> dict[str, Any]:
    answer = (await rig.client.get("/messages", params=query)).json()
    assert isinstance(answer, dict)
    return answer


async def test_an_empty_sandbox_says_so_and_explains_itself(rig: Rig) -> None:
    html = await page(rig)

    assert "No message yet" in html
    assert all(f"<code>{digits.value}</code>" in html for digits in TABLE)
    assert all(row.does in html.replace("&#x27;", "'") for row in TABLE.values())


async def test_a_message_appears_on_the_phone_when_it_arrives(rig: Rig) -> None:
    await rig.sms(sender="ACME")
    before = await page(rig)
    await rig.run()
    after = await page(rig)

    assert 'class="bubble sms"' not in before
    assert "accepted, nothing heard since" in before
    assert 'class="bubble sms"' in after
    assert all(part in after for part in ("+33600000000", "ACME", "123456 is your code", "✓✓"))
    assert "DELIVERED → 200" in after
    assert "Not arrived" not in after


@pytest.mark.parametrize(
    ("number", "seconds", "fate"),
    [
        ("+33600000200", 60, "accepted, nothing heard since"),
        ("+33600001300", 60, "on its way (ACK)"),
        ("+33600000300", 60, "failed (NOT_DELIVERED)"),
        ("+33600001400", 1, "failed (NOT_DELIVERED)"),
        ("+33600000800", 60, "429: too many requests"),
        ("+33600000900", 60, "500: server error"),
        ("+33600001200", 60, "refused for good"),
    ],
)
async def test_what_did_not_arrive_is_listed(
    rig: Rig, number: str, seconds: float, fate: str
) -> None:
    await rig.sms(number)
    await rig.clock.advance(seconds)
    html = await page(rig)

    assert "Not arrived" in html
    assert fate in html
    assert "bubble" not in html


async def test_a_read_message_is_marked_so(rig: Rig) -> None:
    await rig.messenger("+33600010000")
    await rig.run()

    assert 'class="ticks read"' in await page(rig)


async def test_the_details_tell_what_the_sender_heard(rig: Rig) -> None:
    def refuse(_: object) -> int:
        raise ConnectionRefusedError

    rig.post.answer = refuse
    await rig.sms(request_id="a1")
    await rig.sms(request_id="a1")
    await rig.run()
    html = await page(rig)

    assert "sender&#x27;s id a1" in html
    assert "submitted 1 times more, refused" in html
    assert "ACK → nobody there" in html


async def test_text_is_escaped(rig: Rig) -> None:
    evil = "<script>alert('x')</script>&\"</p>"
    await rig.sms(text=evil, request_id="<b>")
    await rig.messenger(text=evil, client_ref='"><img src=x>')
    await rig.run()
    html = await page(rig)

    assert "<script>alert" not in html
    assert "<img" not in html
    assert 2 == html.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;&quot;&lt;/p&gt;")


@pytest.mark.parametrize(
    "path", ["/", "/phones/+33600000000", "/messages", "/healthz", "/static/phone.js", "/nowhere"]
)
async def test_every_answer_has_the_strict_headers(rig: Rig, path: str) -> None:
    response = await rig.client.get(path)

    assert CSP == response.headers["content-security-policy"]
    assert "nosniff" == response.headers["x-content-type-options"]
    assert "no-referrer" == response.headers["referrer-policy"]


async def test_the_page_has_nothing_inline_and_nothing_from_outside(rig: Rig) -> None:
    await rig.sms()
    await rig.run()
    html = await page(rig)
    sources = re.findall(r' (?:src|href)="([^"]*)"', html)

    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", html)
    assert all(source.startswith("/") or source == "data:," for source in sources)


@pytest.mark.parametrize(
    ("name", "kind"), [("phone.js", "text/javascript"), ("phone.css", "text/css")]
)
async def test_static_files(rig: Rig, name: str, kind: str) -> None:
    response = await rig.client.get(f"/static/{name}")

    assert 200 == response.status_code
    assert response.headers["content-type"].startswith(kind)


async def test_the_phone_with_the_newest_message_comes_first(rig: Rig) -> None:
    for number in ("+33600000001", "+33600000002", "+33600000001"):
        await rig.sms(number)
        await rig.run()
    html = await page(rig)

    assert ["33600000001", "33600000002"] == re.findall(r'id="phone-(\d+)"', html)


async def test_many_phones_and_messages_are_cut_short(make_rig: MakeRig) -> None:
    rig = make_rig(keep=1000)
    for line in range(30):
        await rig.sms(f"+4477009001{line:02}")
    for _ in range(10):
        await rig.sms("+447700900199")
    await rig.run()
    html = await page(rig)

    assert 24 == html.count('class="phone"')
    assert "7 older phones are not shown." in html
    assert "6 earlier" in html
    assert 10 == (await page(rig, "/phones/+447700900199")).count('class="bubble sms"')


async def test_one_phone(rig: Rig) -> None:
    await rig.sms("+33600000001", text="for the first")
    await rig.sms("+33600000002", text="for the second")
    await rig.run()
    html = await page(rig, "/phones/+33600000002")

    assert "for the second" in html
    assert "for the first" not in html
    assert 'data-number="+33600000002"' in html


async def test_a_phone_may_be_watched_before_anything_comes(rig: Rig) -> None:
    assert "Nothing arrived." in await page(rig, "/phones/%2B33600000000")
    assert 404 == (await rig.client.get("/phones/nobody")).status_code


async def test_messages_as_json(rig: Rig) -> None:
    await rig.sms("+33600000000", sender="ACME", request_id="a1")
    await rig.sms("+33600000200")
    await rig.run()
    (first, second) = (await changes(rig))["messages"]

    assert ("sms", "+33600000000", "ACME", "a1", "00", "at_once") == (
        first["channel"],
        first["number"],
        first["sender"],
        first["client_ref"],
        first["behaviour"],
        first["answer"],
    )
    assert "2026-03-01T12:00:02Z" == first["arrived_at"]
    assert {"word": "ACK", "at": "2026-03-01T12:00:01Z", "http": 200} == first["receipts"][0]
    assert second["arrived_at"] is None


@pytest.mark.parametrize("number", ["+33600000001", "33600000001", " 33600000001"])
async def test_messages_of_one_number(rig: Rig, number: str) -> None:
    """In a query an unescaped plus sign is a space."""
    await rig.sms("+33600000001")
    await rig.sms("+33600000002")
    (message,) = (await changes(rig, number=number))["messages"]

    assert "+33600000001" == message["number"]


async def test_messages_changed_since(rig: Rig) -> None:
    await rig.sms("+33600000200", text="silent")
    await rig.sms("+33600000000", text="delivered")
    start = await changes(rig, after=0)
    await rig.run()
    later = await changes(rig, after=start["serial"])
    now = await changes(rig, after=later["serial"])

    assert ["silent", "delivered"] == [message["text"] for message in start["messages"]]
    assert ["delivered"] == [message["text"] for message in later["messages"]]
    assert ([], later["serial"]) == (now["messages"], now["serial"])


async def test_changes_can_be_read_in_portions(rig: Rig) -> None:
    for text_ in "abcde":
        await rig.sms(text=text_)
    seen, serial = "", 0
    for _ in range(3):
        answer = await changes(rig, after=serial, limit=2, number="+33600000000")
        seen += "".join(message["text"] for message in answer["messages"])
        serial = answer["serial"]

    assert "abcde" == seen


@pytest.mark.parametrize("query", [{"after": "x"}, {"limit": ""}])
async def test_a_wrong_query(rig: Rig, query: dict[str, str]) -> None:
    assert 400 == (await rig.client.get("/messages", params=query)).status_code


async def test_clearing_forgets_messages_and_counts(rig: Rig) -> None:
    await rig.sms("+33600000800")
    await rig.sms("+33600000800")
    serial = (await changes(rig))["serial"]
    response = await rig.client.post("/messages/clear")

    assert (303, "/") == (response.status_code, response.headers["location"])
    assert [] == rig.sandbox.messages()
    assert serial < (await changes(rig))["serial"]
    assert 429 == (await rig.sms("+33600000800")).status_code


async def test_receipts_of_a_cleared_message_still_go_out(rig: Rig) -> None:
    await rig.sms()
    await rig.client.post("/messages/clear")
    await rig.run()

    assert ["ACK", "DELIVERED"] == rig.post.words
    assert [] == rig.sandbox.messages()


async def test_another_site_cannot_clear(rig: Rig) -> None:
    await rig.sms()
    headers = {"Sec-Fetch-Site": "cross-site"}

    assert 403 == (await rig.client.post("/messages/clear", headers=headers)).status_code
    assert rig.only()


async def test_health(rig: Rig) -> None:
    response = await rig.client.get("/healthz")

    assert (200, {"status": "ok"}) == (response.status_code, response.json())


async def test_it_can_be_mounted_under_a_path(rig: Rig) -> None:
    await rig.sms()
    rig.sandbox.app = Starlette(routes=[Mount("/sandbox", rig.sandbox.app)])
    mounted = client(rig.sandbox)
    html = (await mounted.get("/sandbox/")).text
    style = await mounted.get("/sandbox/static/phone.css")
    await mounted.aclose()

    assert 'href="/sandbox/phones/+33600000000"' in html
    assert 'data-base="/sandbox"' in html
    assert 200 == style.status_code


async def test_memory_is_bounded(make_rig: MakeRig) -> None:
    rig = make_rig(keep=3)
    for line in range(10):
        await rig.messenger(f"+4477009001{line:02}", text=str(line))
        await rig.sms(f"+33600{line:02}0800")
    await rig.run()
    phones, turns = rig.sandbox._carrier.phones, rig.sandbox._carrier._turns

    assert 3 == len(rig.sandbox.messages())
    assert 3 == len(phones._changed) == phones.count() == len(phones._ids) == len(turns._seen)


async def test_the_oldest_message_of_a_phone_goes_first(make_rig: MakeRig) -> None:
    rig = make_rig(keep=2)
    contacts = [{"phone_number": "+33600000000"}] * 3
    await rig.sms(recipients=contacts)
    await rig.sms(text="last")

    assert ["123456 is your code", "last"] == [m.text for m in rig.sandbox.messages("+33600000000")]
    assert [] == rig.sandbox.messages("+33600000001")


@pytest.mark.parametrize("path", [SMS, MESSENGER])
async def test_a_body_over_64_kib_is_refused(rig: Rig, path: str) -> None:
    body = sms_body(text="x" * 65_536)
    response = await rig.client.post(path, json=body, headers=bearer())

    assert 413 == response.status_code


async def test_closing_drops_pending_receipts(rig: Rig) -> None:
    await rig.sms()
    await settle()
    await rig.sandbox.aclose()
    await rig.run()

    assert [] == rig.post.sent


async def test_draining_waits_for_repetitions_too(rig: Rig) -> None:
    rig.post.answer = lambda _: 500
    await rig.messenger("+33600030000")
    drained = asyncio.ensure_future(rig.sandbox.drain())
    await rig.clock.advance(7)
    before = drained.done()
    await rig.clock.advance(1)

    assert (False, True) == (before, drained.done())


async def test_jitter_can_be_repeated(make_rig: MakeRig) -> None:
    async def times(seed: int) -> list[float]:
        rig = make_rig(jitter=0.5, seed=seed)
        await rig.sms()
        await rig.run()
        return [sent.seconds for sent in rig.post.sent]

    first, again, other = await times(1), await times(1), await times(2)

    assert first == again != other
    assert 1 < first[0] < 1.5


def test_markup_escapes_what_is_not_markup() -> None:
    inner = tag("b", "<i>")

    assert '<p class="x" data-key="&quot;" hidden><b>&lt;i&gt;</b>&amp;</p>' == tag(
        "p", inner, "&", class_="x", data_key='"', hidden=True, title=None, lang=False
    )
    assert "&lt;b&gt;" == text("<b>")


async def test_secrets_are_not_shown(rig: Rig) -> None:
    shown = repr(rig.settings)

    assert not re.search(r"octopush-key|messenger-token|messenger-secret", shown)


async def test_nothing_listens_elsewhere(rig: Rig) -> None:
    answers: list[httpx.Response] = [
        await rig.client.get("/octopush"),
        await rig.client.post("/", content=b""),
    ]

    assert [404, 405] == [answer.status_code for answer in answers]
