"""What the console shows and does: the answer to a search, acts with their reasons, keys, the audit
log; and what no page may ever hold."""

import csv
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import orjson
import pytest
from fakes import answering
from rig import NUMBER, Rig
from visitor import Visitor, says, visitor

from gateway.domain.access import Role
from gateway.domain.health import Standing
from gateway.domain.recipient import mask
from gateway.domain.verification import COOL_DOWN, Status
from gateway.services import health
from gateway.services.health import KEPT, Looking
from gateway.services.routing import SPANS
from gateway.store import audits, clients
from gateway.store.audits import Filter

MASKED = mask(NUMBER)
# Ids, digests and tokens: random digits, among which a code may be by chance.
IDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{12,}")
NASTY = "<script>alert('x')</script>&\"'"


async def acts(rig: Rig) -> list[tuple[str, str, str, str]]:
    """(actor, action, what, why) of every row, oldest first."""
    rows = await rig.gateway.desk.read(lambda engine: audits.newest(engine, Filter(), 200))
    return [(row.actor, row.action, row.what, row.why) for row in reversed(rows)]


async def opened(person: Visitor, sent: dict[str, Any]) -> Any:
    return await person.get(f"/console/verifications/{sent['verification_id']}")


# Searching.


@pytest.mark.parametrize(
    "spelled",
    [
        NUMBER,
        "0033 6 12 34 56 78",
        "33612345678",
        "+33 (6) 12-34-56-78",
        "order-17",
        lambda sent: sent["verification_id"],
        lambda sent: f"  {sent['verification_id'].upper()} ",
    ],
)
async def test_a_verification_is_found_however_it_is_named(
    rig: Rig, spelled: str | Callable[[dict[str, Any]], str]
) -> None:
    person = await visitor(rig, Role.VIEWER)
    sent = await rig.send(reference="order-17")
    page = await person.find(spelled if isinstance(spelled, str) else spelled(sent))

    assert sent["verification_id"] in page.text
    assert MASKED in says(page)


async def test_of_a_number_the_running_one_is_meant_and_the_others_are_listed(rig: Rig) -> None:
    person = await visitor(rig)
    first = await rig.send()
    await rig.call("/otp/cancel", {"verification_id": first["verification_id"]})
    rig.clock.advance(COOL_DOWN)
    second = await rig.send()
    page = await person.find(NUMBER)

    assert f"<code>{second['verification_id']}</code>" in page.text
    assert f'href="/console/verifications/{first["verification_id"]}"' in page.text


async def test_a_reference_that_several_clients_use_is_a_list(rig: Rig) -> None:
    person = await visitor(rig)
    await rig.send(reference="order-17")
    other = await rig.client("other")
    await rig.call("/otp/send", {"to": NUMBER, "reference": "order-17"}, key=other)
    page = await person.post("/console/search", {"q": "order-17"})

    assert 200 == page.status_code
    assert 2 == page.text.count('href="/console/verifications/')


@pytest.mark.parametrize("text", ["+33612345679", "nothing-like-it", "12", NASTY])
async def test_what_is_not_there_is_said_with_what_to_try(rig: Rig, text: str) -> None:
    person = await visitor(rig)
    page = await person.post("/console/search", {"q": text})

    assert 404 == page.status_code
    assert "Nothing was found" in says(page)
    assert "<script>alert" not in page.text
    assert "612345679" not in page.text


async def test_a_search_needs_a_word(rig: Rig) -> None:
    person = await visitor(rig)

    assert 400 == (await person.post("/console/search", {"q": "  "})).status_code


# The answer.


async def test_the_answer_says_what_happened_what_comes_and_what_to_tell(rig: Rig) -> None:
    person = await visitor(rig)
    sent = await rig.send(workflow="sms", reference="order-17")
    text = says(await opened(person, sent))

    assert "An SMS through octopush was sent at 12:00:00 UTC; nothing was heard of it yet." in text
    assert "a voice call follows at 12:01:00 UTC" in text
    assert "Ask them to wait: if nothing arrives, the same code follows by voice call" in text
    assert "order-17" in text
    assert "backend" in text


async def test_the_timeline_tells_every_attempt_receipt_and_act(rig: Rig) -> None:
    """Repeated, contradictory and unknown receipts, the fallback's cause, and who acted."""
    person = await visitor(rig, name="alice")
    sent = await rig.send(workflow="sms")
    sms = rig.transport.submissions[0]
    await rig.octopush_receipt(sms, "SENT")
    await rig.octopush_receipt(sms, "SENT")
    await rig.octopush_receipt(sms, "WEIRD")
    await person.post(
        f"/console/verifications/{sent['verification_id']}/act",
        {"wish": "next", "why": "cannot wait"},
    )
    await rig.settle()
    await rig.octopush_receipt(sms, "DELIVERED")
    text = says(await opened(person, sent))

    for told in (
        "1. SMS, octopush",
        "2. voice call, octopush_voice",
        "QUEUED → SENT",
        "WEIRD",
        "2026-11-21 13:00:01",
        "the next step was asked for",
        "alice cannot wait",
        "receipts that came again and were only counted: 1",
    ):
        assert told in text, told


async def test_a_parked_receipt_of_an_attempt_is_in_its_timeline(rig: Rig) -> None:
    person = await visitor(rig)
    sent = await rig.send(workflow="sms")
    sms = rig.transport.submissions[0]
    await rig.octopush_receipt(sms, "DELIVERED", number="+33699999999")
    text = says(await opened(person, sent))

    assert "kept aside" in text
    assert "699999999" not in text


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("verify", "Nothing is to be done"),
        ("cancel", "of no use any more"),
        ("expire", "nobody confirmed that a message arrived"),
        ("lock", "Too many wrong codes"),
    ],
)
async def test_every_end_says_what_to_tell(rig: Rig, end: str, told: str) -> None:
    person = await visitor(rig)
    sent = await rig.send(workflow="sms")
    named, code = sent["verification_id"], rig.transport.submissions[0].code
    if end == "verify":
        await rig.verify(named, code)
    elif end == "cancel":
        await rig.call("/otp/cancel", {"verification_id": named})
    elif end == "expire":
        rig.clock.advance(301)
    else:
        for _ in range(5):
            await rig.verify(named, f"{(int(code) + 1) % 10**6:06}")

    assert told in says(await opened(person, sent))


async def test_what_is_live_is_sent_when_it_has_changed(rig: Rig) -> None:
    person = await visitor(rig)
    sent = await rig.send(workflow="sms")
    page = await opened(person, sent)
    part = page.text.partition('data-live="')[2].partition('"')[0]
    tag = page.text.partition('data-tag="')[2].partition('"')[0].replace("&#34;", '"')
    same = await person.get(part, headers={"if-none-match": tag})
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    changed = await person.get(part, headers={"if-none-match": tag})

    assert (304, 200) == (same.status_code, changed.status_code)
    assert "DELIVERED" in changed.text
    assert changed.headers["etag"] != tag


async def test_what_is_live_is_for_who_opened_the_page(rig: Rig) -> None:
    """Else it would be a way to look that is not written down."""
    alice, bob = await visitor(rig, name="alice"), await visitor(rig, name="bob")
    sent = await rig.send()
    page = await opened(alice, sent)
    part = page.text.partition('data-live="')[2].partition('"')[0]
    answers = [
        await bob.get(part),
        await alice.get(part.partition("?")[0]),
        await alice.get(part),
    ]

    assert [403, 403, 200] == [answer.status_code for answer in answers]


@pytest.mark.parametrize("named", ["01900000-0000-7000-8000-00000000c11e", "17", "x%00y"])
async def test_a_verification_that_is_not_there(rig: Rig, named: str) -> None:
    person = await visitor(rig)

    assert 404 == (await person.get(f"/console/verifications/{named}")).status_code


async def test_what_callers_and_providers_write_stays_text(rig: Rig) -> None:
    person = await visitor(rig, Role.ADMIN)
    await rig.client(NASTY)
    reference = "<img/src=x>&\"'"
    sent = await rig.send(workflow="sms", reference=reference)
    sms = rig.transport.submissions[0]
    await rig.octopush_receipt(sms, NASTY, delivery_date=NASTY)
    await rig.octopush_receipt(sms, NASTY, number=NASTY)
    await rig.octopush_receipt(sms, NASTY, message_id=NASTY)
    await rig.call("/otp/subscriptions", {"url": "https://hooks.example/?<script>alert"})
    await rig.call("/otp/send", {"to": NASTY, "metadata": {"a": NASTY}, "template": NASTY})
    await person.post(
        f"/console/verifications/{sent['verification_id']}/act", {"wish": "next", "why": NASTY}
    )
    await person.post("/console/routes/octopush/disable", {"why": NASTY})
    form = {"scope": "FR", "until": "2026-12-31", "why": NASTY}
    await person.post("/console/limits/pass", form)
    pages = [
        await opened(person, sent),
        await person.get("/console/clients"),
        await person.post("/console/search", {"q": NASTY}),
        await person.get("/console/audit", params={"actor": NASTY}),
        await person.get("/console/audit"),
        await person.get("/console/live"),
        await person.get("/console/limits"),
        await person.get("/console/routes"),
        await person.get("/console/routes/octopush"),
        await person.get("/console/subscriptions"),
    ]

    for page in pages:
        assert "<script>alert" not in page.text
        assert "<img" not in page.text
    assert "&lt;img/src=x&gt;&amp;&#34;&#39;" in pages[0].text
    assert NASTY in says(pages[1])


# Acting.


@pytest.mark.parametrize(
    ("wish", "seconds", "states"),
    [
        ("next", 0, ["sms:SENT", "voice:SENT"]),
        ("resend", 30, ["sms:SENT", "sms:SENT"]),
        ("cancel", 0, ["sms:SENT"]),
    ],
)
async def test_an_act_is_written_down_and_done(
    rig: Rig, wish: str, seconds: int, states: list[str]
) -> None:
    person = await visitor(rig, name="alice")
    sent = await rig.send(workflow="sms")
    rig.clock.advance(seconds)
    named = sent["verification_id"]
    answer = await person.post(
        f"/console/verifications/{named}/act", {"wish": wish, "why": "asked by phone"}
    )
    await rig.settle()

    assert "Done: " in says(await person.follow(answer))
    assert states == rig.states(named)
    assert (Status.CANCELED if wish == "cancel" else Status.PENDING) is rig.status(named)
    assert ("alice", wish, MASKED, "asked by phone") in await acts(rig)


async def test_an_act_that_the_rules_refuse_says_why_and_is_written_down(rig: Rig) -> None:
    person = await visitor(rig, name="alice")
    sent = await rig.send(workflow="sms")
    answer = await person.post(
        f"/console/verifications/{sent['verification_id']}/act",
        {"wish": "resend", "why": "asked by phone"},
    )

    assert 429 == answer.status_code
    assert "Ask again in 30 s" in says(answer)
    assert ("alice", "resend refused", "cool_down", "") in await acts(rig)


@pytest.mark.parametrize("why", ["", "  ", "ab", "x" * 201, "a\x00bc"])
async def test_nothing_is_done_without_a_reason(rig: Rig, why: str) -> None:
    person = await visitor(rig)
    sent = await rig.send()
    answer = await person.post(
        f"/console/verifications/{sent['verification_id']}/act", {"wish": "cancel", "why": why}
    )

    assert 400 == answer.status_code
    assert Status.PENDING is rig.status(sent["verification_id"])


@pytest.mark.parametrize("wish", ["", "delete"])
async def test_there_are_three_wishes(rig: Rig, wish: str) -> None:
    person = await visitor(rig)
    sent = await rig.send()
    answer = await person.post(
        f"/console/verifications/{sent['verification_id']}/act", {"wish": wish, "why": "because"}
    )

    assert 400 == answer.status_code


@pytest.mark.parametrize("path", ["act", "number"])
async def test_a_viewer_neither_acts_nor_sees_a_number(rig: Rig, path: str) -> None:
    person = await visitor(rig, Role.VIEWER)
    sent = await rig.send()
    page = await opened(person, sent)
    answer = await person.post(
        f"/console/verifications/{sent['verification_id']}/{path}",
        {"wish": "cancel", "why": "because"},
    )

    assert 403 == answer.status_code
    assert f"/{path}" not in page.text
    assert Status.PENDING is rig.status(sent["verification_id"])


async def test_a_number_in_full_is_an_act_with_a_reason(rig: Rig) -> None:
    person = await visitor(rig, name="alice")
    sent = await rig.send()
    path = f"/console/verifications/{sent['verification_id']}/number"
    without = await person.post(path)
    shown = await person.post(path, {"why": "reads it back"})

    assert (400, 200) == (without.status_code, shown.status_code)
    assert NUMBER in shown.text
    assert ("alice", "number", MASKED, "reads it back") in await acts(rig)
    assert NUMBER not in (await opened(person, sent)).text


# The whole gateway.


async def test_the_live_view_counts_by_the_minute(rig: Rig) -> None:
    person = await visitor(rig)
    sent = await rig.send(workflow="sms")
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    await rig.verify(sent["verification_id"], rig.transport.submissions[0].code)
    rig.clock.advance(60)
    await rig.send("+33612345679", workflow="sms")
    await rig.reconcile(60)
    page = says(await person.get("/console/live"))

    assert "12:01 1 0 % 1 0 0 0" in page
    assert "12:00 1 100 % 1 1 0 0" in page
    assert "12:02 0 - 1 0 1 0" in page


async def test_the_live_view_names_what_is_stuck(rig: Rig) -> None:
    person = await visitor(rig)
    sent = await rig.send(workflow="sms")
    rig.clock.advance(60 + 31)
    page = await person.get("/console/live")

    assert f'href="/console/verifications/{sent["verification_id"]}"' in page.text
    assert "Overdue by 10 s 1" in says(page)


async def test_the_live_view_counts_receipts_kept_aside(rig: Rig) -> None:
    person = await visitor(rig)
    await rig.send(workflow="sms")
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED", message_id="nobody-knows")

    assert "octopush" in says(await person.get("/console/live"))


async def test_a_minute_long_ago_is_not_counted_again(rig: Rig) -> None:
    """Its outcomes are in; and ten million rows are not read at every look."""
    person = await visitor(rig)
    await rig.send(workflow="sms")
    rig.clock.advance(25 * 60)
    first = says(await person.get("/console/live"))
    with closing(sqlite3.connect(rig.gateway.settings.database)) as opened:
        opened.execute("DELETE FROM transition")
        opened.execute("DELETE FROM attempt")
        opened.commit()
    rig.clock.advance(60)

    assert "12:00 1 " in first
    assert "12:00 1 " in says(await person.get("/console/live"))


async def test_the_routes_are_those_that_serve(rig: Rig) -> None:
    person = await visitor(rig, Role.VIEWER)
    page = await person.get("/console/routes")

    for name in rig.runtime.routes:
        assert name in says(page)
    assert "voice over octopush_voice, 60 s until delivered" in says(page)
    assert "octopush-api-key" not in page.text
    assert "callback-key-of-octopush" not in page.text


@pytest.mark.both
async def test_the_routes_say_how_they_do(rig: Rig) -> None:
    """Over three spans, and each by country, with how long deliveries took."""
    person = await visitor(rig, Role.VIEWER)
    sent = await rig.send(workflow="sms")
    rig.clock.advance(4)
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    await rig.verify(sent["verification_id"], rig.transport.submissions[0].code)
    rig.clock.advance(20 * 60)
    await rig.send("+447400123456", workflow="sms")
    rig.clock.advance(2)
    rows = says(await person.get("/console/routes"))
    one = rows.partition("octopush ready")[2].partition("octopush_voice")[0]
    page = await person.get("/console/routes/octopush")
    text = says(page)
    countries = text.partition("By country, 24 hours")[2].partition("By country, 7 days")[0]

    assert "15 minutes 1 0 0 0, 0 % 0 0 0 0, 0 % - -" in one
    assert "24 hours 2 0 0 1, 50 % 0 0 0 1, 50 % ≤ 5 s ≤ 5 s" in one
    assert "7 days 2 0 0 1, 50 %" in one
    assert "FR 1 0 0 1, 100 % 0 0 0 1, 100 % ≤ 5 s ≤ 5 s" in countries
    assert "GB 1 0 0 0, 0 %" in countries
    assert "2026-11-21 12:00:00 2 1 0" in text
    assert 2 == page.text.count("<svg")
    assert "11-21 12:00: 2 accepted, 1 delivered, 0 lost" in page.text
    assert 404 == (await person.get("/console/routes/nobody")).status_code


async def test_a_week_of_counts_is_kept_and_read_seldom(rig: Rig) -> None:
    """The newest minutes are read at every look, a week once in ten minutes."""
    person = await visitor(rig, Role.VIEWER)
    await rig.send(workflow="sms")
    await person.get("/console/routes")
    with closing(sqlite3.connect(rig.gateway.settings.database)) as opened_:
        opened_.execute("DELETE FROM route_stat")
        opened_.commit()
    rig.clock.advance(4)
    page = says(await person.get("/console/routes"))
    one = page.partition("octopush ready")[2].partition("octopush_voice")[0]

    assert "15 minutes 0 0" in one
    assert "7 days 1 0" in one
    assert KEPT > SPANS[-1].back


@pytest.mark.both
async def test_a_pinned_route_is_left_alone_by_its_breaker(rig: Rig) -> None:
    admin = await visitor(rig, Role.ADMIN, "alice")
    path = "/console/routes/octopush"
    odd = await admin.post(f"{path}/explode", {"why": "because"})
    pinned = await admin.follow(await admin.post(f"{path}/pin", {"why": "the only one"}))
    await health.run_once(rig.runtime, Looking(), rig.clock.now())
    rig.transport.script("sms-campaign", *[answering(401, {"code": 101})] * 4)
    for at in range(4):
        await rig.send(f"+3361234567{at}", workflow="sms_only")
    (state,) = rig.reads.route_states()

    assert 404 == odd.status_code
    assert "pinned since 2026-11-21 12:00:00 UTC, by alice: the only one" in says(pinned)
    assert Standing.PINNED is state.standing
    assert not rig.runtime.standing.shut


async def test_a_route_is_disabled_and_enabled_with_a_reason(rig: Rig) -> None:
    admin = await visitor(rig, Role.ADMIN, "alice")
    path = "/console/routes/octopush"
    await admin.post(f"{path}/disable", {"why": "bad invoices"})
    (stored,) = rig.reads.route_states()
    off = says(await admin.get("/console/routes"))
    await admin.post(f"{path}/enable", {"why": "all paid"})
    on = says(await admin.get("/console/routes"))

    assert ("octopush", "disabled", "alice") == (stored.route, stored.standing, stored.actor)
    assert "by alice: bad invoices" in off
    assert "by alice: all paid" in on
    assert [("alice", "route disable", "octopush", "bad invoices"),
            ("alice", "route enable", "octopush", "all paid")] == [
        one for one in await acts(rig) if one[1].startswith("route")
    ]  # fmt: skip
    assert 404 == (await admin.post("/console/routes/none/disable", {"why": "why"})).status_code


# Clients.


async def test_a_new_key_is_shown_once_and_works(rig: Rig) -> None:
    admin = await visitor(rig, Role.ADMIN, "alice")
    page = await admin.post(
        "/console/clients", {"name": "shop", "scope_send": "on", "why": "a new shop"}
    )
    key = page.text.partition('class="key">')[2].partition("<")[0]
    sent = await rig.call("/otp/send", {"to": NUMBER}, key=key)
    asked = await rig.call("/otp/status", {"number": NUMBER}, key=key)

    assert (202, 403) == (sent.status_code, asked.status_code)
    assert key not in (await admin.get("/console/clients")).text
    assert ("alice", "client add", "shop, send", "a new shop") in await acts(rig)


async def test_a_key_is_renewed_and_the_old_one_revoked(rig: Rig) -> None:
    admin = await visitor(rig, Role.ADMIN)
    ((client, (old,)),) = await rig.gateway.desk.read(clients.everyone)
    page = await admin.post(
        f"/console/clients/{client.id}/keys", {"scope_send": "on", "why": "renewed"}
    )
    key = page.text.partition('class="key">')[2].partition("<")[0]
    await admin.post(f"/console/keys/{old.id}/revoke", {"why": "renewed"})
    rig.clock.advance(5)
    answers = [
        (await rig.call("/otp/send", {"to": NUMBER}, key=one)).status_code for one in (rig.key, key)
    ]

    assert [401, 202] == answers


async def test_a_test_clients_keys_are_all_test_keys(rig: Rig) -> None:
    admin = await visitor(rig, Role.ADMIN)
    form = {"scope_send": "on", "why": "for the tests"}
    page = await admin.post("/console/clients", {"name": "shop", "test": "on"} | form)
    found = {client.name: client for client, _ in await rig.gateway.desk.read(clients.everyone)}
    more = await admin.post(f"/console/clients/{found['shop'].id}/keys", form)
    wide = await admin.post(
        f"/console/clients/{found['shop'].id}/keys", form | {"scope_operate": "on"}
    )

    assert 'class="key">otp_test_' in page.text
    assert 'class="key">otp_test_' in more.text
    assert 400 == wide.status_code


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"name": "", "scope_send": "on", "why": "because"}, 400),
        ({"name": "shop", "why": "because"}, 400),
        ({"name": "shop", "scope_send": "on"}, 400),
        ({"name": "backend", "scope_send": "on", "why": "because"}, 409),
    ],
)
async def test_a_client_that_cannot_be_made(rig: Rig, form: dict[str, str], status: int) -> None:
    admin = await visitor(rig, Role.ADMIN)
    answer = await admin.post("/console/clients", form)

    assert status == answer.status_code
    assert 1 == len(rig.reads.clients())


# The audit log.


async def test_every_look_is_in_the_audit_log(rig: Rig) -> None:
    viewer = await visitor(rig, Role.VIEWER, "vera")
    sent = await rig.send(reference="order-17")
    await viewer.find(NUMBER)
    await opened(viewer, sent)
    wanted = [one for one in await acts(rig) if one[0] == "vera"]

    assert [
        ("vera", "login", "", ""),
        ("vera", "search", f"address {MASKED}: 1 found", ""),
        ("vera", "look", MASKED, ""),
        ("vera", "look", MASKED, ""),
    ] == wanted


async def test_the_log_is_filtered_and_turned_over(rig: Rig) -> None:
    admin = await visitor(rig, Role.ADMIN, "alice")
    sent = await rig.send()
    for _ in range(101):
        await opened(admin, sent)
    page = await admin.get("/console/audit", params={"action": "look"})
    older = page.text.partition('name="before" value="')[2].partition('"')[0]
    rest = await admin.get("/console/audit", params={"action": "look", "before": older})
    none = await admin.get("/console/audit", params={"actor": "nobody"})

    assert (100, 1) == tuple(one.text.count('data-label="Did">look') for one in (page, rest))
    assert "No rows meet this." in says(none)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
async def test_an_export_holds_every_row_and_is_one(rig: Rig, kind: str) -> None:
    admin = await visitor(rig, Role.ADMIN, "alice")
    await visitor(rig, Role.VIEWER, "vera")
    answer = await admin.post("/console/audit/export", {"format": kind, "actor": "vera"})
    lines = answer.text.strip().splitlines()

    assert f'filename="audit.{kind}"' in answer.headers["content-disposition"]
    rows = csv.DictReader(lines) if kind == "csv" else map(orjson.loads, lines)

    assert [("vera", "login")] == [(row["actor"], row["action"]) for row in rows]
    assert ("alice", "audit export", f"{kind}, vera", "") in await acts(rig)


async def test_a_cell_is_no_formula(rig: Rig) -> None:
    person = await visitor(rig, Role.ADMIN)
    sent = await rig.send(workflow="sms")
    await person.post(
        f"/console/verifications/{sent['verification_id']}/act",
        {"wish": "cancel", "why": "=cmd|' /C calc'!A0"},
    )
    answer = await person.post("/console/audit/export", {"format": "csv"})
    cells = [cell for row in csv.reader(answer.text.splitlines()) for cell in row]

    assert not [cell for cell in cells if cell.startswith("=")]


async def test_the_chain_holds_over_everything_that_was_done(rig: Rig) -> None:
    person = await visitor(rig)
    sent = await rig.send()
    await person.find(NUMBER)
    await opened(person, sent)
    _, whole = await rig.gateway.desk.read(audits.verify)
    with closing(sqlite3.connect(rig.gateway.settings.database)) as opened_:
        opened_.execute("UPDATE audit SET actor = 'somebody' WHERE sequence = 2")
        opened_.commit()
    _, broken = await rig.gateway.desk.read(audits.verify)

    assert ([], ["row 2 was altered"]) == (whole, broken)


# What no page may hold.


async def test_no_page_ever_holds_a_code_or_a_number_unasked(rig: Rig) -> None:
    """Everything a support person can do to a verification, and every page they see of it."""
    admin = await visitor(rig, Role.ADMIN)
    sent = await rig.send(workflow="sms", reference=NUMBER)
    named = sent["verification_id"]
    code = rig.transport.submissions[0].code
    await admin.find(NUMBER)
    await rig.octopush_receipt(
        rig.transport.submissions[0], f"SENT {code}", delivery_date=f"{NUMBER} {code}"
    )
    part = (await opened(admin, sent)).text.partition('data-live="')[2].partition('"')[0]
    await admin.get(part)
    for wish, seconds in (("resend", 30), ("next", 0), ("cancel", 0)):
        rig.clock.advance(seconds)
        answer = await admin.post(
            f"/console/verifications/{named}/act",
            {"wish": wish, "why": f"customer {NUMBER} says {code}"},
        )
        await rig.settle()
        await admin.follow(answer)
    own = "987654"
    await rig.send("+33612345679", code=own, workflow="sms")
    await admin.find("+33612345679")
    for path in ("/console", "/console/live", "/console/routes", "/console/clients",
                 "/console/audit",
                 "/console/limits", "/console/subscriptions", "/console/password"):  # fmt: skip
        await admin.get(path)
    await admin.post("/console/audit/export", {"format": "jsonl"})
    await admin.post("/console/search", {"q": code})

    assert len(admin.pages) > 15
    for page in admin.pages:
        bare = IDS.sub("", page)
        assert code not in bare
        assert own not in bare
        assert "612345678" not in bare.replace(" ", "")
        assert "612345679" not in bare.replace(" ", "")


async def test_an_email_address_is_masked_like_a_number(rig: Rig) -> None:
    person = await visitor(rig, Role.ADMIN)
    to = {"phone": NUMBER, "email": "jane.doe@example.com"}
    sent = await rig.send(to, workflow="sms")
    await rig.octopush_receipt(rig.transport.submissions[0], "to Jane.Doe@example.com")
    page = await person.find("Jane.Doe@EXAMPLE.com")
    named = sent["verification_id"]
    asked = await person.post(f"/console/verifications/{named}/number", {"why": "reads it back"})

    assert "j•••@e•••.com" in says(page)
    assert "jane.doe" not in page.text.casefold()
    assert "jane.doe@example.com" in asked.text


async def test_a_vendors_own_numbers_stay_in_its_words(rig: Rig) -> None:
    """Hidden is the code and the number, not what tells the error."""
    person = await visitor(rig)
    sent = await rig.send(workflow="sms")
    await rig.octopush_receipt(rig.transport.submissions[0], "ERROR_30007")

    assert "ERROR_30007" in says(await opened(person, sent))


async def test_a_number_that_was_erased_is_said_to_be(rig: Rig) -> None:
    person = await visitor(rig)
    sent = await rig.send()
    with closing(sqlite3.connect(rig.gateway.settings.database)) as opened_:
        opened_.execute("UPDATE verification SET recipient_sealed = NULL")
        opened_.commit()

    assert "erased" in says(await opened(person, sent))


async def test_the_database_at_rest_is_told_so_on_a_page(rig: Rig) -> None:
    """A file that is gone is not a stack trace."""
    person = await visitor(rig)
    with closing(sqlite3.connect(rig.gateway.settings.database)) as opened_:
        opened_.execute("DROP TABLE audit")
        opened_.commit()
    answer = await person.post("/console/search", {"q": NUMBER})

    assert 503 == answer.status_code
    assert "The database did not answer." in says(answer)
