"""When the database takes nothing, and when too much wants in: who is told, what is kept, and that
all goes on by itself.

The failures are real ones: a write lock held by another connection, a file that has become
read-only or full, a statement or a COMMIT that SQLite refuses.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fakes import Gate, answering, raising
from rig import NUMBER, Rig

from gateway.domain.delivery import Outcome, State
from gateway.domain.errors import Unavailable
from gateway.ports import Lost
from gateway.services import reconcile
from gateway.services.reconcile import LIMIT

TIMEOUT = raising(Lost("read_timeout"))
ACCEPTED = answering(201, {"sms_ticket": "sms_1"})


def words(rig: Rig) -> list[str]:
    """The channel of each submission, in order."""
    return [one.path.split("/")[-2].removesuffix("-campaign") for one in rig.transport.submissions]


async def begin(rig: Rig, to: str = NUMBER, **more: Any) -> httpx.Response:
    """A request to send, not waited for."""
    return await rig.call("/otp/send", {"to": to, "workflow": "sms", **more})


def told(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and Retry-After of a problem."""
    return answer.status_code, answer.json()["code"], answer.headers.get("Retry-After")


def without_marks(rig: Rig) -> dict[str, Any]:
    return {name: rows for name, rows in rig.dump().items() if name != "mark"}


def impatient(rig: Rig, tries: int = 3) -> None:
    """Give up on the write lock sooner than after five seconds."""
    rig.sqlite._tries = tries


async def turns(count: int = 100) -> None:
    """Turns of the loop: enough for what can happen now to have happened."""
    for _ in range(count):
        await asyncio.sleep(0)


@contextlib.contextmanager
def read_only(rig: Rig) -> Iterator[None]:
    """The file takes no writes, as on a disk that has been remounted."""
    writer = rig.sqlite._writer
    writer.execute("PRAGMA query_only = ON")
    try:
        yield
    finally:
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed: the process has ended
            writer.execute("PRAGMA query_only = OFF")


# Too much at once: the queue is bounded.


async def test_a_full_queue_refuses_sends_before_anything_was_stored(rig: Rig) -> None:
    """At three quarters; receipts until the end, for Octopush does not repeat them. (Guard: the
    look at `share` in `Ledger.submit`. Not yet run without it.)"""
    sent = await rig.send("+33699999999", workflow="sms")
    (sms,) = rig.transport.submissions
    ledger = rig.gateway.ledger
    ledger._capacity = 8
    with rig.locked():
        stopper = asyncio.create_task(ledger.submit(rig.stopper()))
        await rig.until(lambda: ledger.depth == 0, stopper)
        taken = [asyncio.create_task(begin(rig, f"+3361000000{n}")) for n in range(6)]
        await rig.until(lambda: ledger.depth == 6, *taken)
        refused = await begin(rig, "+33622222222")
        nexted = await rig.call("/otp/next", {"verification_id": sent["verification_id"]})
        receipts = [asyncio.create_task(rig.octopush_receipt(sms, "ACK")) for _ in range(2)]
        await rig.until(lambda: ledger.depth == 8, *receipts)
        late = await rig.octopush_receipt(sms, "DELIVERED")
        verified = await rig.verify(sent["verification_id"], sms.code)
        wake = asyncio.create_task(ledger.submit(rig.stopper()))
        await rig.until(lambda: ledger.depth == 9, wake)
    answers = await asyncio.gather(*taken, *receipts)
    await asyncio.gather(stopper, wake)
    await rig.settle()

    assert (503, "overloaded", "1") == told(refused) == told(late) == told(verified) == told(nexted)
    assert [202] * 6 + [200] * 2 == [answer.status_code for answer in answers]
    assert 7 == len(rig.reads.latest(50))
    assert "+33622222222" not in str([one.body for one in rig.transport.submissions])
    assert ["sms:ACK"] == rig.states(sent["verification_id"])
    assert 202 == (await begin(rig, "+33622222222")).status_code
    await rig.settle()


async def test_an_outcome_is_never_turned_away(rig: Rig) -> None:
    gates = [Gate(ACCEPTED)]
    rig.transport.script("sms-campaign", *gates)
    answer = await begin(rig)
    await gates[0].reached.wait()
    ledger = rig.gateway.ledger
    ledger._capacity = 0
    gates[0].opened.set()
    await rig.settle()
    refused = await begin(rig, "+33622222222")

    assert ["sms:SENT"] == rig.states(answer.json()["verification_id"])
    assert (503, "overloaded", "1") == told(refused)


# The write lock is somebody else's.


@pytest.mark.sqlite
async def test_a_lock_held_for_long_is_answered_503_and_nothing_is_stored(rig: Rig) -> None:
    """All who wait hear it at once: a lock is no single operation's fault."""
    sent = await rig.send("+33699999999", workflow="sms")
    (sms,) = rig.transport.submissions
    impatient(rig)
    before, reruns = rig.dump(), rig.gateway.ledger.tally.reruns
    with rig.locked():
        answers = await asyncio.gather(
            *(begin(rig, f"+336100000{n:02d}") for n in range(20)),
            rig.octopush_receipt(sms, "DELIVERED"),
            rig.verify(sent["verification_id"], sms.code),
        )
        shown = await rig.call("/otp/status", {"verification_id": sent["verification_id"]})
    stored = rig.dump()
    after = await asyncio.gather(*(begin(rig, f"+336100000{n:02d}") for n in range(20)))
    await rig.settle()

    assert {(503, "storage", "1")} == {told(answer) for answer in answers}
    assert before == stored
    assert 200 == shown.status_code
    assert 4 >= rig.gateway.ledger.tally.reruns - reruns
    assert {202} == {answer.status_code for answer in after}
    assert 21 == len(rig.transport.submissions)


async def test_a_lock_held_for_a_moment_is_waited_for(rig: Rig) -> None:
    """`client add` writes beside a serving process."""
    with rig.locked():
        task = asyncio.create_task(begin(rig))
        await rig.turns()
        early = task.done()
    answer = await task
    await rig.settle()

    assert not early
    assert 202 == answer.status_code
    assert ["sms"] == words(rig)


@pytest.mark.sqlite
async def test_a_pass_that_the_lock_stopped_finds_the_same_work_later(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    await rig.reconcile()
    impatient(rig)
    rig.clock.advance(60)
    with rig.locked(), pytest.raises(Unavailable):
        await reconcile.run_once(rig.runtime, rig.passing, rig.clock.now())
    await rig.reconcile()
    await rig.reconcile(30)

    assert ["sms:SENT", "voice:SENT"] == rig.states(sent["verification_id"])
    assert ["sms", "voice"] == words(rig)


# The file takes nothing.


@pytest.mark.sqlite
async def test_a_read_only_database_is_answered_503_and_it_goes_on_by_itself(rig: Rig) -> None:
    before = rig.dump()
    with read_only(rig):
        refused = await begin(rig)
        during = rig.dump()
    answer = await begin(rig)
    await rig.settle()

    assert (503, "storage", "1") == told(refused)
    assert before == during
    assert 202 == answer.status_code
    assert ["sms"] == words(rig)


@pytest.mark.sqlite
async def test_a_full_disk_is_answered_503_and_reading_goes_on(rig: Rig) -> None:
    sent = await rig.send("+33699999999", workflow="sms")
    writer = rig.sqlite._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    answers = await asyncio.gather(
        *(begin(rig, f"+336100000{n:02d}", reference="x" * 128) for n in range(60))
    )
    await rig.settle()
    stored = len(rig.reads.latest(100))
    shown = await rig.call("/otp/status", {"verification_id": sent["verification_id"]})
    writer.execute("PRAGMA max_page_count = 1000000")
    again = await begin(rig, "+33622222222")
    await rig.settle()
    refused = [told(answer) for answer in answers if answer.status_code != 202]

    assert {(503, "storage", "1")} == set(refused)
    assert 61 - len(refused) == stored
    assert 61 - len(refused) + 1 == len(rig.transport.submissions)
    assert (200, 202) == (shown.status_code, again.status_code)


@pytest.mark.sqlite
async def test_one_statement_that_fails_is_one_operations_503(rig: Rig) -> None:
    """Its neighbours in the batch are stored. (Guard: the halving in
    `Ledger._settle`. Not yet run without it.)"""
    with rig.connect() as other:
        other.execute(
            "CREATE TRIGGER odd BEFORE INSERT ON verification WHEN NEW.reference = 'odd' "
            "BEGIN SELECT RAISE(ABORT, 'odd'); END"
        )
    names = [f"r{n}" for n in range(9)]
    names.insert(4, "odd")
    calls = [begin(rig, f"+3361000000{n}", reference=name) for n, name in enumerate(names)]
    answers = await rig.together(*calls)
    await rig.settle()
    codes = [answer.status_code for answer in answers]

    assert [503 if name == "odd" else 202 for name in names] == codes
    assert (503, "storage", "1") == told(answers[4])
    assert 9 == len(rig.reads.latest(50)) == len(rig.transport.submissions)


@pytest.mark.sqlite
async def test_a_refused_commit_is_everybodys_503_and_nothing_is_handed_over(rig: Rig) -> None:
    """A deferred constraint, which SQLite checks at COMMIT. (Guard: what a batch left
    behind is followed after its commit. Not yet run without it.)"""
    with rig.connect() as other:
        other.execute("CREATE TABLE probe (x REFERENCES client(id) DEFERRABLE INITIALLY DEFERRED)")
        other.execute(
            "CREATE TRIGGER odd AFTER INSERT ON verification WHEN NEW.reference = 'odd' "
            "BEGIN INSERT INTO probe VALUES (x'00'); END"
        )
    before = rig.dump()
    names = ["a", "odd", "b"]
    calls = [begin(rig, f"+3361000000{n}", reference=name) for n, name in enumerate(names)]
    answers = await rig.together(*calls)
    stored = without_marks(rig)
    again = await begin(rig, "+33610000000", reference="a")
    await rig.settle()

    assert {(503, "storage", "1")} == {told(answer) for answer in answers}
    assert before["verification"] == stored["verification"]
    assert before["attempt"] == stored["attempt"]
    assert 202 == again.status_code
    assert ["sms"] == words(rig)


# An outcome is offered again until it is stored.


@pytest.mark.sqlite
async def test_an_outcome_is_offered_again_until_it_is_stored(rig: Rig) -> None:
    """The provider took the message and gave its only name for it. (Guard: the loop in
    `Dispatcher._offer_again`. Not yet run without it.)"""
    gate = Gate(ACCEPTED)
    rig.transport.script("sms-campaign", gate)
    named = (await begin(rig)).json()["verification_id"]
    await gate.reached.wait()
    with read_only(rig):
        gate.opened.set()
        await rig.turns()
        (during,) = rig.attempts(named)
    await rig.settle()
    (after,) = rig.attempts(named)

    assert (State.QUEUED, None) == (during.state, during.reference)
    assert (State.SENT, Outcome.ACCEPTED, "sms_1") == (after.state, after.outcome, after.reference)
    assert ["sms"] == words(rig)


@pytest.mark.sqlite
async def test_an_outcome_that_could_not_be_stored_before_its_lease_ended_is_recorded_still(
    rig: Rig,
) -> None:
    """Meanwhile the claim has lapsed and the step been given up."""
    gate = Gate(answering(202, {"message_id": "m_late"}))
    rig.transport.script("messages", gate)
    answer = await rig.call("/otp/send", {"to": NUMBER})
    named = answer.json()["verification_id"]
    await gate.reached.wait()
    with read_only(rig):
        gate.opened.set()
        await rig.turns()
        rig.clock.advance(130)
    await reconcile.run_once(rig.runtime, rig.passing, rig.clock.now())
    await rig.settle()
    (message, *_) = rig.attempts(named)

    assert (State.SENT, "m_late") == (message.state, message.reference)


@pytest.mark.sqlite
async def test_a_process_that_ends_with_an_outcome_in_hand_leaves_it_unknown(rig: Rig) -> None:
    gate = Gate(answering(202, {"message_id": "m_lost"}))
    rig.transport.script("messages", gate)
    named = (await rig.call("/otp/send", {"to": NUMBER})).json()["verification_id"]
    await gate.reached.wait()
    with read_only(rig):
        gate.opened.set()
        await rig.turns()
        await rig.crash()
    await rig.revive()
    await rig.reconcile(15)
    (message,) = rig.attempts(named)

    assert (State.SENT, Outcome.UNKNOWN, None) == (
        message.state, message.outcome, message.reference
    )  # fmt: skip


# Others are not held up.


async def test_f31_hung_providers_hold_up_neither_receipts_nor_checks_nor_status(
    rig: Rig,
) -> None:
    """No transaction and no connection is held while a provider thinks."""
    sent = await rig.send("+33699999999", workflow="sms")
    (sms,) = rig.transport.submissions
    gates = [Gate(TIMEOUT) for _ in range(64)]
    rig.transport.script("sms-campaign", *gates)
    await asyncio.gather(*(begin(rig, f"+336100000{n:02d}") for n in range(64)))
    await asyncio.gather(*(gate.reached.wait() for gate in gates))
    named = {"verification_id": sent["verification_id"]}
    answers = [
        await rig.octopush_receipt(sms, "DELIVERED"),
        await rig.call("/otp/status", named),
        await rig.verify(sent["verification_id"], sms.code),
        await begin(rig, "+33622222222"),
    ]
    hung = rig.gateway.dispatcher.under_way
    for gate in gates:
        gate.opened.set()
    await rig.settle()

    assert [200, 200, 200, 202] == [answer.status_code for answer in answers]
    assert 64 == hung


@pytest.mark.parametrize("count", [1, LIMIT + 20])
@pytest.mark.sqlite
async def test_rows_that_nobody_can_decide_hold_up_no_others(rig: Rig, count: int) -> None:
    """However many: they are looked at again later, and not first for ever."""
    healthy = await rig.send("+33699999999", workflow="sms", ttl=600)
    odd = [
        (await rig.send(f"+3361000{n:04d}", workflow="sms"))["verification_id"]
        for n in range(count)
    ]
    with rig.connect() as other:
        other.execute(
            "UPDATE verification SET step = 99, wake_at = wake_at - 5000, version = version + 1 "
            "WHERE id != ?",
            (bytes.fromhex(healthy["verification_id"].replace("-", "")),),
        )
    rig.transport.submissions.clear()
    rig.clock.advance(60)
    for _ in range(5):
        await rig.reconcile(0.1)

    assert ["sms:SENT", "voice:SENT"] == rig.states(healthy["verification_id"])
    assert ["sms:SENT"] == rig.states(odd[0])


@pytest.mark.sqlite
async def test_an_operation_that_raises_leaves_its_neighbours_and_no_trace(rig: Rig) -> None:
    """A defect while deciding one of a batch."""
    sent = [(await rig.send(f"+3361000000{n}", workflow="sms"))["verification_id"] for n in (1, 2)]
    codes = [one.code for one in rig.transport.submissions]
    with rig.connect() as other:
        other.execute(
            "UPDATE verification SET key_id = 'gone', version = version + 1 WHERE id = ?",
            (bytes.fromhex(sent[0].replace("-", "")),),
        )
    before = rig.record(sent[0])
    broken, right = await rig.together(rig.verify(sent[0], codes[0]), rig.verify(sent[1], codes[1]))

    assert (500, 200) == (broken.status_code, right.status_code)
    assert before == rig.record(sent[0])
