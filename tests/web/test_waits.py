"""Held answers and streams: woken by commits, bounded, and ended at once by a clean stop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import orjson
import pytest
from fakes import Gate, answering
from hypothesis import given
from hypothesis import strategies as st
from rig import NUMBER, PATIENCE, Rig, problem

from gateway.services.waiting import Waiting
from gateway.store.engine import StoreError
from gateway.web import waits
from gateway.web.edge import Call

pytestmark = pytest.mark.both

LONG = 50  # seconds that no test waits for: what is woken is woken by a commit


async def status(rig: Rig, named: str, **more: Any) -> httpx.Response:
    return await rig.call("/otp/status", {"verification_id": named, **more})


def waiting(rig: Rig) -> Waiting:
    return rig.runtime.waiting


async def held(rig: Rig, call: Awaitable[Any], count: int = 1) -> "asyncio.Future[Any]":
    """The call, once it waits, and after the commit that it may have missed."""
    task = asyncio.ensure_future(call)
    await rig.until(lambda: waiting(rig)._count == count, task)
    return task


async def woken(task: "asyncio.Future[Any]") -> Any:
    """What it brings, long before its own time would be out."""
    async with asyncio.timeout(PATIENCE):
        return await task


class Reader:
    """A caller on an open stream, over plain ASGI."""

    def __init__(self, rig: Rig, named: str, *, key: str | None = None, **headers: str) -> None:
        given = {"authorization": f"Bearer {key or rig.key}"} | headers
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": "/otp/events",
            "query_string": f"verification_id={named}".encode(),
            "headers": [(n.replace("_", "-").encode(), t.encode()) for n, t in given.items()],
        }
        self.sent: list[dict[str, Any]] = []
        self.leaving = asyncio.Event()
        self._asked = 0
        self.task = asyncio.ensure_future(rig.gateway.web(self.scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        self._asked += 1
        if self._asked == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.leaving.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(dict(message))

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def text(self) -> str:
        return b"".join(one.get("body", b"") for one in self.sent[1:]).decode()

    @property
    def events(self) -> list[tuple[int, str, dict[str, Any]]]:
        """(id, event, data) of what has come."""
        found = []
        for block in self.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "id" in fields:
                found.append((int(fields["id"]), fields["event"], orjson.loads(fields["data"])))
        return found


# --- Status that waits --------------------------------------------------------------------------


@pytest.mark.parametrize("until", ["sent", "ack", "delivered", "read", "ended"])
async def test_status_answers_when_it_is_so(rig: Rig, until: str) -> None:
    """(Seen to hang without `Touched`.)"""
    gate = Gate(answering(201, {"sms_ticket": "sms_1", "total_cost": 0.05}))
    rig.transport.script("sms-campaign", gate)
    sent = (await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})).json()
    named = sent["verification_id"]
    await gate.reached.wait()
    call = await held(rig, status(rig, named, wait=LONG, until=until))
    early = call.done()
    gate.opened.set()
    await rig.settle()
    submission = rig.transport.submissions[0]
    if until != "sent":
        await rig.octopush_receipt(submission, "ACK" if until == "ack" else "DELIVERED")
    if until in {"read", "ended"}:
        await rig.verify(named, submission.code)
    answer = await woken(call)

    assert not early
    assert 200 == answer.status_code
    expected = {"sent": "SENT", "ack": "ACK"}.get(until, "DELIVERED")
    assert expected == answer.json()["delivery_status"]
    assert 0 == waiting(rig)._count
    assert {} == waiting(rig).watched


async def test_status_answers_as_it_is_when_the_time_is_out(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    answer = await status(rig, sent["verification_id"], wait=1, until="delivered")

    assert (200, "SENT") == (answer.status_code, answer.json()["delivery_status"])


async def test_what_is_so_already_is_not_waited_for(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    answer = await status(rig, sent["verification_id"], wait=LONG, until="sent")

    assert "SENT" == answer.json()["delivery_status"]


async def test_what_has_ended_is_not_waited_for(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    await rig.call("/otp/cancel", {"verification_id": sent["verification_id"]})
    answer = await status(rig, sent["verification_id"], wait=LONG, until="read")

    assert "CANCELED" == answer.json()["status"]


async def test_a_commit_that_was_under_way_is_not_missed(rig: Rig) -> None:
    """Decided before the waiter came, committed after it had looked. (Seen to hang without the
    wake-up that the first commit brings to whoever is new.)"""
    sent = await rig.send(workflow="sms")
    named = sent["verification_id"]
    engine = rig.runtime.engine
    committing, go_on = asyncio.Event(), asyncio.Event()
    commit = engine.commit

    async def slowly() -> None:
        committing.set()
        await go_on.wait()
        await commit()

    engine.commit = slowly  # type: ignore[method-assign]  # the disk is slow
    receipt = asyncio.create_task(rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED"))
    await committing.wait()
    call = await held(rig, status(rig, named, wait=LONG, until="delivered"))
    go_on.set()
    await receipt
    answer = await woken(call)

    assert "DELIVERED" == answer.json()["delivery_status"]


async def test_what_another_process_commits_is_seen(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    named = sent["verification_id"]
    twin = await rig.beside()
    call = await held(rig, status(rig, named, wait=LONG, until="delivered"))
    await twin.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    await waiting(rig).poll(rig.gateway.subscriptions.reads.versions)
    answer = await woken(call)
    await twin.stop()

    assert "DELIVERED" == answer.json()["delivery_status"]


async def test_a_poll_wakes_nobody_whose_verification_is_as_it_was(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    call = await held(rig, status(rig, sent["verification_id"], wait=LONG, until="delivered"))
    waiters = {one for several in waiting(rig).watched.values() for one in several}
    await waiting(rig).poll(rig.gateway.subscriptions.reads.versions)
    disturbed = [one for one in waiters if one._woken.is_set()]
    waiting(rig).close()
    await woken(call)

    assert 1 == len(waiters)
    assert [] == disturbed


async def test_a_commit_wakes_those_whose_verification_it_changed(rig: Rig) -> None:
    mine = await rig.send(workflow="sms")
    other = await rig.send("+33612345670", workflow="sms")
    call = await held(rig, status(rig, mine["verification_id"], wait=LONG, until="delivered"))
    await rig.send("+33612345671", workflow="sms")  # the first commit wakes whoever is new
    (waiter,) = next(iter(waiting(rig).watched.values()))
    await asyncio.sleep(0)
    await rig.octopush_receipt(rig.transport.submissions[1], "DELIVERED")
    disturbed = waiter._woken.is_set()
    waiting(rig).close()
    await woken(call)

    assert not disturbed
    assert other["verification_id"] != mine["verification_id"]


async def test_the_waiters_of_a_process_are_bounded(rig: Rig) -> None:
    waiting(rig)._most = 1
    sent = await rig.send(workflow="sms")
    named = sent["verification_id"]
    call = await held(rig, status(rig, named, wait=LONG, until="delivered"))
    refused = await status(rig, named, wait=LONG, until="delivered")
    stream = await rig.http.get(
        "/otp/events",
        params={"verification_id": named},
        headers={"authorization": f"Bearer {rig.key}"},
    )
    at_once = await status(rig, named)
    waiting(rig).close()
    await woken(call)

    assert {"retry_after": 5} == problem(refused, 503, "too_many_waiting")
    assert "5" == refused.headers["retry-after"]
    problem(stream, 503, "too_many_waiting")
    assert 200 == at_once.status_code


@pytest.mark.parametrize(
    "wrong", [{"wait": -1}, {"wait": 61}, {"wait": "5"}, {"until": "verified"}, {"until": None}]
)
async def test_waits_that_are_none_are_refused(rig: Rig, wrong: dict[str, Any]) -> None:
    sent = await rig.send(workflow="sms")

    problem(await status(rig, sent["verification_id"], **wrong), 400, "invalid_request")


async def test_nobody_waits_for_another_clients_verification(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    other = await rig.client("other")
    answer = await rig.call(
        "/otp/status", {"verification_id": sent["verification_id"], "wait": LONG}, key=other
    )

    problem(answer, 404, "verification_not_found")


# --- Send that waits ----------------------------------------------------------------------------


async def send(rig: Rig, prefer: str, **more: str) -> httpx.Response:
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {rig.key}",
        "prefer": prefer,
        **more,
    }
    body = orjson.dumps({"to": NUMBER, "workflow": "sms"})
    return await rig.http.post("/otp/send", content=body, headers=headers)


async def test_send_answers_once_a_provider_has_it(rig: Rig) -> None:
    gate = Gate(answering(201, {"sms_ticket": "sms_1", "total_cost": 0.05}))
    rig.transport.script("sms-campaign", gate)
    call = await held(rig, send(rig, f"wait={LONG}"))
    await gate.reached.wait()
    early = call.done()
    gate.opened.set()
    answer = await woken(call)

    assert not early
    assert (202, "SENT") == (answer.status_code, answer.json()["delivery_status"])
    assert f"wait={LONG}" == answer.headers["preference-applied"]
    assert not answer.json()["joined"]


async def test_send_answers_when_the_time_is_out(rig: Rig) -> None:
    gate = Gate(answering(201, {"sms_ticket": "sms_1", "total_cost": 0.05}))
    rig.transport.script("sms-campaign", gate)
    answer = await send(rig, "wait=1")
    gate.opened.set()

    assert (202, "QUEUED") == (answer.status_code, answer.json()["delivery_status"])


async def test_a_send_that_cannot_wait_is_answered_at_once(rig: Rig) -> None:
    """It is stored already: nothing may be refused any more."""
    waiting(rig)._most = 0
    answer = await send(rig, f"wait={LONG}")

    assert (202, None) == (answer.status_code, answer.headers.get("preference-applied"))


async def test_a_replay_of_a_send_is_answered_at_once_as_it_was_accepted(rig: Rig) -> None:
    """Waiting brings the first answer up to date; what is stored is that of the accept."""
    gate = Gate(answering(201, {"sms_ticket": "sms_1", "total_cost": 0.05}))
    rig.transport.script("sms-campaign", gate)
    once = {"idempotency-key": "k-1"}
    call = await held(rig, send(rig, f"wait={LONG}", **once))
    await gate.reached.wait()
    replay = await send(rig, f"wait={LONG}", **once)  # nothing can wake it: the gate is shut
    early = call.done()
    gate.opened.set()
    first = await woken(call)
    again = await send(rig, "wait=0", **once)

    assert not early
    assert "true" == replay.headers["idempotency-replayed"]
    assert "preference-applied" not in replay.headers
    assert ("SENT", "QUEUED") == (first.json()["delivery_status"], replay.json()["delivery_status"])
    assert first.json()["verification_key"] == replay.json()["verification_key"]
    assert again.content == replay.content
    assert 1 == len(rig.transport.submissions)


async def test_a_refused_send_with_a_key_is_not_held(rig: Rig) -> None:
    await send(rig, "wait=0")
    await rig.settle()
    answer = await send(rig, f"wait={LONG}", **{"idempotency-key": "k-1"})

    problem(answer, 429, "cool_down")


async def test_the_database_away_while_a_send_waits_does_not_undo_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreError("away")

    monkeypatch.setattr(waits, "hold", away)
    answer = await send(rig, f"wait={LONG}")

    assert (202, "QUEUED") == (answer.status_code, answer.json()["delivery_status"])


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("wait=7", 7),
        ("Wait=7", 7),
        ('wait="7"', 7),
        ("respond-async, wait=7", 7),
        ("respond-async; wait = 7", 7),
        ("wait=7, respond-async", 7),
        ("wait=600", 60),
        ("wait=0", 0),
        ("wait", 0),
        ("wait=-7", 0),
        ("wait=7s", 0),
        ("await=7", 0),
        ("return=minimal", 0),
    ],
)
def test_a_preference_that_cannot_be_read_is_passed_over(header: str | None, seconds: int) -> None:
    assert seconds == waits.preferred(_call(header))


@given(st.text(st.characters(max_codepoint=255)))
def test_no_preference_is_a_stumbling_block(header: str) -> None:
    assert 0 <= waits.preferred(_call(header)) <= waits.LONGEST


def _call(prefer: str | None) -> Call:
    headers = [] if prefer is None else [(b"prefer", prefer.encode("latin-1"))]

    async def receive() -> Any:
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/otp/send", "headers": headers}
    return Call(scope, receive)


# --- Streams ------------------------------------------------------------------------------------


@pytest.fixture
async def open_stream(rig: Rig) -> AsyncIterator[Callable[..., Awaitable[Reader]]]:
    """Opens streams, and closes them in the end."""
    opened: list[Reader] = []

    async def make(named: str, **headers: str) -> Reader:
        reader = Reader(rig, named, **headers)
        opened.append(reader)
        await rig.until(lambda: reader.task.done() or waiting(rig)._count == len(opened))
        return reader

    yield make
    for one in opened:
        one.leaving.set()
    await asyncio.gather(*(one.task for one in opened))


Open = Callable[..., Awaitable[Reader]]


async def test_a_stream_tells_the_log_as_it_grows_and_ends_with_it(
    rig: Rig, open_stream: Open
) -> None:
    sent = await rig.send(workflow="sms")
    named = sent["verification_id"]
    reader = await open_stream(named)
    await rig.until(lambda: len(reader.events) == 1)
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    await rig.until(lambda: len(reader.events) == 2)
    await rig.verify(named, rig.transport.submissions[0].code)
    await reader.task
    log = (await status(rig, named)).json()["transitions"]

    assert 200 == reader.status
    assert (b"content-type", b"text/event-stream") in reader.sent[0]["headers"]
    assert [0, 1, 2] == [number for number, _, _ in reader.events]
    assert ["attempt", "attempt", "verification"] == [kind for _, kind, _ in reader.events]
    assert ["SENT", "DELIVERED", "VERIFIED"] == [data["after"] for _, _, data in reader.events]
    assert ["octopush", "octopush", None] == [data["route"] for _, _, data in reader.events]
    assert ["sms", "sms", None] == [data["channel"] for _, _, data in reader.events]
    assert log == [{name: data[name] for name in log[0]} for _, _, data in reader.events]
    assert "VERIFIED" == reader.events[-1][2]["status"]
    assert not reader.sent[-1].get("more_body", False)


async def test_a_caller_who_comes_again_gets_what_it_has_not(rig: Rig, open_stream: Open) -> None:
    sent = await rig.send(workflow="sms")
    named = sent["verification_id"]
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    reader = await open_stream(named, last_event_id="0")
    await rig.until(lambda: len(reader.events) == 1)
    await rig.call("/otp/cancel", {"verification_id": named})
    await reader.task

    assert [1, 2] == [number for number, _, _ in reader.events]


@pytest.mark.parametrize(("last", "expected"), [("0", 200), ("1", 204), ("99", 204)])
async def test_after_the_end_there_is_nothing_to_come_for(
    rig: Rig, open_stream: Open, last: str, expected: int
) -> None:
    sent = await rig.send(workflow="sms")
    named = sent["verification_id"]
    await rig.call("/otp/cancel", {"verification_id": named})
    reader = await open_stream(named, last_event_id=last)
    await reader.task

    assert expected == reader.status


@pytest.mark.parametrize("last", ["-1", "x", "1.5", "²", "9" * 10])
async def test_a_last_event_id_that_is_none_is_refused(rig: Rig, last: str) -> None:
    sent = await rig.send(workflow="sms")
    given = last.encode()
    answer = await rig.http.get(
        "/otp/events",
        params={"verification_id": sent["verification_id"]},
        headers=[(b"authorization", f"Bearer {rig.key}".encode()), (b"last-event-id", given)],
    )

    problem(answer, 400, "invalid_request")


@pytest.mark.parametrize("more", [{}, {"scopes": "status operate", "test": True}])
async def test_a_stream_of_another_client_is_not_found(
    rig: Rig, open_stream: Open, more: dict[str, Any]
) -> None:
    sent = await rig.send(workflow="sms")
    other = await rig.client("other", **more)
    reader = await open_stream(sent["verification_id"], key=other)
    await reader.task

    assert 404 == reader.status


async def test_an_operator_may_follow_every_client(rig: Rig, open_stream: Open) -> None:
    sent = await rig.send(workflow="sms")
    operator = await rig.client("operator", "status operate")
    reader = await open_stream(sent["verification_id"], key=operator)

    assert 200 == reader.status


async def test_a_silent_stream_gives_signs_of_life(
    rig: Rig, open_stream: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "HEARTBEAT", 0.0)
    sent = await rig.send(workflow="sms")
    reader = await open_stream(sent["verification_id"])
    await rig.until(lambda: ": still here\n\n" in reader.text)

    assert reader.text.startswith("retry: 2000\n\n")


async def test_a_caller_who_goes_is_waited_for_no_longer(rig: Rig, open_stream: Open) -> None:
    sent = await rig.send(workflow="sms")
    reader = await open_stream(sent["verification_id"])
    reader.leaving.set()
    await reader.task

    assert 0 == waiting(rig)._count
    assert {} == waiting(rig).watched


async def test_a_clean_stop_ends_all_who_wait_at_once(rig: Rig, open_stream: Open) -> None:
    sent = await rig.send(workflow="sms")
    named = sent["verification_id"]
    reader = await open_stream(named)
    call = await held(rig, status(rig, named, wait=LONG, until="delivered"), 2)
    rig.gateway.leave()
    answer = await woken(call)
    await reader.task

    assert "SENT" == answer.json()["delivery_status"]
    assert 200 == reader.status


@pytest.mark.sqlite  # of the process, not of the database
async def test_hundreds_wait_and_each_is_woken_by_its_own(rig: Rig) -> None:
    sent = [await rig.send(f"+336123450{at:02}", workflow="sms") for at in range(3)]
    names = [one["verification_id"] for one in sent]
    calls = [
        asyncio.create_task(status(rig, names[at % 3], wait=LONG, until="delivered"))
        for at in range(600)
    ]
    await rig.until(lambda: waiting(rig)._count == 600)
    await rig.octopush_receipt(rig.transport.submissions[0], "DELIVERED")
    first = await asyncio.gather(*calls[::3])
    left = waiting(rig)._count
    rig.gateway.leave()
    await asyncio.gather(*calls)

    assert {"DELIVERED"} == {one.json()["delivery_status"] for one in first}
    assert 400 == left
