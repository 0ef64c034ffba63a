"""What is past its time goes, in chunks, and nothing else does."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from factories import make_kept
from fakes import Clock
from rig import NUMBER, Rig, make_settings

from gateway.domain.delivery import State
from gateway.domain.limits import Counter
from gateway.domain.retention import Retention
from gateway.domain.verification import Status
from gateway.ports import Receipt
from gateway.services import retention
from gateway.services.receive import Receive
from gateway.services.retention import Forgotten, Place, Purge, Purged
from gateway.store import upkeep, writes

DAY = 86_400.0
MAILBOX = "j@example.com"


async def purge(rig: Rig, kept: Retention | None = None) -> Purged:
    """Chunk after chunk, until there is no more."""
    done, place = Purged(), Place()
    while True:
        now, policy = rig.clock.now(), kept or rig.runtime.retention
        done += await retention.purge(rig.runtime.reads, rig.gateway.ledger, policy, place, now)
        if not done.more:
            return done


async def ended(rig: Rig, to: Any = NUMBER, **more: Any) -> str:
    """A verification that was canceled."""
    answer = await rig.send(to=to, workflow="sms", **more)
    named = str(answer["verification_id"])
    await rig.call("/otp/cancel", {"verification_id": named})
    await rig.settle()
    return named


def counts(rig: Rig) -> dict[str, int]:
    tables = ("verification", "attempt", "transition", "recipient", "counter", "suppression")
    found = rig.dump()
    return {name: len(found[name]) for name in tables if found[name]}


async def test_an_old_verification_goes_with_all_that_hangs_on_it(rig: Rig) -> None:
    named = await ended(rig, {"phone": NUMBER, "email": MAILBOX})
    log = rig.record(named).verification.log
    rig.clock.advance(31 * DAY)
    done = await purge(rig)

    assert {} == counts(rig)
    assert (1, 1, log) == (done.verifications, done.attempts, done.transitions)


async def test_a_second_pass_finds_nothing(rig: Rig) -> None:
    await ended(rig)
    rig.clock.advance(31 * DAY)
    await purge(rig)

    assert Purged() == await purge(rig)


async def test_what_is_young_stays(rig: Rig) -> None:
    await ended(rig)
    before = rig.dump()["verification"]
    rig.clock.advance(29 * DAY)
    await purge(rig)

    assert before == rig.dump()["verification"]


async def test_a_running_verification_is_not_touched(rig: Rig) -> None:
    """Named by mistake, it is looked at again under its lock."""
    named = UUID((await rig.send(workflow="sms"))["verification_id"])
    before = rig.dump()["verification"]
    done = await rig.gateway.ledger.submit(Purge(over=(named,), named=(named,)))

    assert (Purged(), before) == (done, rig.dump()["verification"])


async def test_a_chunk_touches_at_most_so_many_rows(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of all tables; without the bound the first chunk would take all twelve."""
    for last in range(12):
        await ended(rig, f"+336123456{last:02}")
    rig.clock.advance(31 * DAY)
    monkeypatch.setattr(retention, "ROWS", 20)
    sizes, place = [], Place()
    more = True
    while more:
        done = await retention.purge(
            rig.runtime.reads, rig.gateway.ledger, Retention(), place, rig.clock.now()
        )
        sizes.append(done.verifications + done.attempts + done.transitions)
        more = done.more

    assert {} == counts(rig)
    assert len(sizes) > 1
    assert max(sizes) <= 20


async def test_a_send_between_two_chunks_is_as_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for last in range(6):
        await ended(rig, f"+336123456{last:02}")
    rig.clock.advance(31 * DAY)
    monkeypatch.setattr(retention, "ROWS", 10)
    now, place = rig.clock.now(), Place()
    first = await retention.purge(rig.runtime.reads, rig.gateway.ledger, Retention(), place, now)
    named = (await rig.send(workflow="sms"))["verification_id"]
    await purge(rig)

    assert first.more
    assert ["sms:SENT"] == rig.states(named)
    assert 1 == len(rig.dump()["verification"])


async def test_sends_and_a_chunk_share_a_batch(rig: Rig) -> None:
    await ended(rig)
    rig.clock.advance(31 * DAY)
    now = rig.clock.now()
    answer, done = await rig.together(
        rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"}),
        retention.purge(rig.runtime.reads, rig.gateway.ledger, Retention(), Place(), now),
    )
    await rig.settle()

    assert (202, 1) == (answer.status_code, done.verifications)
    assert ["sms:SENT"] == rig.states(answer.json()["verification_id"])


async def test_killed_in_the_middle_the_next_pass_finishes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for last in range(6):
        await ended(rig, f"+336123456{last:02}")
    rig.clock.advance(31 * DAY)
    monkeypatch.setattr(retention, "ROWS", 10)
    now, place = rig.clock.now(), Place()
    await retention.purge(rig.runtime.reads, rig.gateway.ledger, Retention(), place, now)
    second = asyncio.create_task(
        retention.purge(rig.runtime.reads, rig.gateway.ledger, Retention(), place, now)
    )
    await asyncio.sleep(0)
    second.cancel()
    await rig.crash()
    await rig.revive()
    left = rig.dump()
    owners = {row[0] for row in left["verification"]}
    orphans = [row for row in left["attempt"] if row[1] not in owners]
    await purge(rig)

    assert [] == orphans
    assert {} == counts(rig)


async def test_another_process_deletes_what_this_one_remembers(rig: Rig) -> None:
    """A late receipt: what is remembered is not there any more, and the statement that must touch
    its row says so. With that check switched off the receipt's line of the log is left behind."""
    named = await ended(rig)
    attempt = rig.attempts(named)[0]
    rig.clock.advance(31 * DAY)
    twin = await rig.beside()
    await purge(twin)
    await twin.stop()
    receipt = Receipt(word="DELIVERED", state=State.DELIVERED, attempt_id=str(attempt.id))
    reruns = rig.gateway.ledger.tally.reruns
    await rig.gateway.ledger.submit(Receive("octopush", "octopush", None, (receipt,)))

    assert {} == counts(rig)
    if not rig.runtime.engine.shared:  # where others write too it is looked at before, not after
        assert rig.gateway.ledger.tally.reruns > reruns


async def test_a_plan_that_was_deleted_is_stored_again(rig: Rig) -> None:
    """The ledger remembers which plans are stored; that it is gone shows when it is needed. Unless
    it forgets them with a failure, the send is refused for ever."""
    await ended(rig)
    rig.clock.advance(31 * DAY)
    await purge(rig)
    engine = rig.runtime.engine
    dropped = [await upkeep.drop_plan(engine, one) for one in await upkeep.unused_plans(engine)]
    answer = await rig.send(workflow="sms")

    assert [1] == dropped
    assert ["sms:SENT"] == rig.states(answer["verification_id"])


async def test_a_plan_in_use_stays(rig: Rig) -> None:
    await ended(rig)

    assert [] == await upkeep.unused_plans(rig.runtime.engine)


# F39: receipts for what is gone.


async def test_a_receipt_with_our_id_for_a_purged_attempt_is_taken_and_kept_nowhere(
    rig: Rig,
) -> None:
    answer = await rig.send()
    submission = rig.transport.to("messages")[0]
    await rig.call("/otp/cancel", {"verification_id": answer["verification_id"]})
    rig.clock.advance(31 * DAY)
    await purge(rig)
    taken = await rig.messenger_receipt(submission, "delivered")

    assert 200 <= taken.status_code < 300
    assert [] == rig.reads.kept(10)


async def test_a_receipt_by_reference_for_a_purged_attempt_is_not_parked_for_ever(rig: Rig) -> None:
    named = await ended(rig)
    submission = rig.transport.to("sms-campaign")[0]
    reference = rig.attempts(named)[0].reference
    rig.clock.advance(31 * DAY)
    await purge(rig)
    taken = await rig.octopush_receipt(submission, "DELIVERED", message_id=reference)
    parked = len(rig.reads.kept(10))
    rig.clock.advance(73 * 3600)
    swept = await retention.sweep_aside(rig.runtime.reads, rig.gateway.ledger, rig.clock.now())

    assert (True, 1, 1) == (taken.is_success, parked, swept.receipts)
    assert [] == rig.reads.kept(10)


# Addresses.


@pytest.fixture
async def forgetful(tmp_path: Path, migrated: Path, clock: Clock):  # type: ignore[no-untyped-def]
    """A gateway that erases addresses at the end of each verification."""
    settings = replace(make_settings(tmp_path), retention=Retention(recipients=0))
    async with Rig(tmp_path, migrated, clock, settings=settings) as made:
        yield made


def nameless(rig: Rig, named: str) -> bool:
    current = rig.record(named).verification
    return (current.recipient_sealed, current.params_sealed, current.code_sealed) == (None,) * 3


async def test_addresses_are_erased_after_their_days_and_the_rest_is_kept(rig: Rig) -> None:
    named = await ended(rig, {"phone": NUMBER, "email": MAILBOX})
    before = rig.record(named)
    rig.clock.advance(2 * DAY)
    rig.gateway.ledger._doings = _with(rig, Retention(recipients=1))
    done = await purge(rig, Retention(recipients=1))
    after = rig.record(named)

    assert nameless(rig, named)
    assert [] == rig.dump()["recipient"]
    assert (1, 0) == (done.erased, done.verifications)
    assert (before.attempts, before.log) == (after.attempts, after.log)
    assert after.verification.version > before.verification.version


def _with(rig: Rig, kept: Retention) -> Any:
    """The rig's doings under another setting."""
    from gateway.app.doings import doings
    from gateway.services.case import Context

    return doings(Context(rig.keyring, {}, frozenset(), rig.runtime.entropy, retention=kept))


async def test_what_was_looked_through_is_not_looked_at_again(rig: Rig) -> None:
    """The mark moves to where nothing with an address is left."""
    kept = Retention(recipients=1)
    rig.gateway.ledger._doings = _with(rig, kept)
    await ended(rig)
    rig.clock.advance(2 * DAY)
    await purge(rig, kept)
    rig.clock.advance(60)
    found = await retention.find(rig.runtime.reads, kept, Place(), rig.clock.now())

    assert rig.reads.mark(retention.ERASED) is not None
    assert () == found.named


@pytest.mark.parametrize("end", ["cancel", "verify", "expire"])
async def test_with_nothing_kept_addresses_go_with_the_end(forgetful: Rig, end: str) -> None:
    to = {"phone": NUMBER, "email": MAILBOX}
    answer = await forgetful.send(to=to, workflow="sms", code="123456")
    named = str(answer["verification_id"])
    running = nameless(forgetful, named)
    if end == "cancel":
        await forgetful.call("/otp/cancel", {"verification_id": named})
    elif end == "verify":
        await forgetful.verify(named, "123456")
    else:
        await forgetful.reconcile(301)

    assert (False, True) == (running, nameless(forgetful, named))
    assert forgetful.status(named) is not Status.PENDING
    assert [] == forgetful.dump()["recipient"]


async def test_an_erased_verification_can_be_read_and_says_so(forgetful: Rig) -> None:
    named = await ended(forgetful)
    shown = (await forgetful.call("/otp/status", {"verification_id": named})).json()

    assert (None, {}) == (shown["recipient"], shown["addresses"])
    assert shown["explanation"].endswith("The addresses it went to have been erased.")


async def test_an_erased_verification_takes_receipts(forgetful: Rig) -> None:
    named = await ended(forgetful)
    submission = forgetful.transport.to("sms-campaign")[0]
    taken = await forgetful.octopush_receipt(submission, "DELIVERED")

    assert taken.is_success
    assert ["sms:DELIVERED"] == forgetful.states(named)


# Counters, and what is kept aside.


async def test_counters_go_when_their_window_is_over(rig: Rig) -> None:
    old = Counter(b"failures:old", rig.clock.now(), 3)
    rig.clock.advance(3601)
    young = Counter(b"failures:young", rig.clock.now(), 3)
    engine = rig.runtime.engine
    await engine.begin()
    await writes.put_counters(engine, [old, young])
    await engine.commit()
    done = await purge(rig)

    assert 1 == done.counters
    assert [young] == rig.reads.counters_after(b"", 10)


async def test_every_counter_is_come_by(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LOOKED", 3)
    engine = rig.runtime.engine
    await engine.begin()
    await writes.put_counters(
        engine, [Counter(b"failures:" + bytes([n]), rig.clock.now(), 1) for n in range(1, 9)]
    )
    await engine.commit()
    rig.clock.advance(3601)

    assert 8 == (await purge(rig)).counters


async def test_a_dry_run_counts_what_a_run_takes(rig: Rig) -> None:
    await ended(rig, {"phone": NUMBER, "email": MAILBOX})
    engine = rig.runtime.engine
    await engine.begin()
    await writes.keep_receipts(engine, [make_kept()])
    await writes.put_counters(engine, [Counter(b"failures:old", rig.clock.now(), 3)])
    await engine.commit()
    rig.clock.advance(31 * DAY)
    now = rig.clock.now()
    would = await retention.would_purge(rig.runtime.reads, Retention(), now)
    done = await purge(rig)
    done += await retention.sweep_aside(rig.runtime.reads, rig.gateway.ledger, now)

    assert would == done
    # Of wrong codes, of sends, of a cool-down.
    assert (1, 1, 3) == (done.verifications, done.receipts, done.counters)


# A person asks to be forgotten.


def index(rig: Rig, kind: str, text: str) -> bytes:
    return rig.keyring.index(kind, text)


async def forget(rig: Rig, kind: str = "phone", text: str = NUMBER) -> Forgotten:
    return await retention.forget(rig.runtime.reads, rig.gateway.ledger, index(rig, kind, text))


@pytest.mark.parametrize(("kind", "text"), [("phone", NUMBER), ("email", MAILBOX)])
async def test_a_person_is_forgotten_by_any_address(rig: Rig, kind: str, text: str) -> None:
    named = await ended(rig, {"phone": NUMBER, "email": MAILBOX})
    done = await forget(rig, kind, text)
    found = rig.dump()
    indexes = {index(rig, "phone", NUMBER), index(rig, "email", MAILBOX)}

    assert 1 == done.verifications
    assert nameless(rig, named)
    assert not [row for rows in found.values() for row in rows if indexes & set(row)]


async def test_of_a_person_more_is_forgotten_than_one_chunk_holds(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs, the newest, is left alone and hides none of the others."""
    monkeypatch.setattr(retention, "FORGOTTEN", 2)
    for _ in range(5):
        await ended(rig)
        rig.clock.advance(600)  # past the cool-down and the limit of a number
    running = UUID((await rig.send(workflow="sms"))["verification_id"])
    done = await forget(rig)

    assert (5, (running,)) == (done.verifications, done.running)
    assert [running] == rig.reads.by_number(None, index(rig, "phone", NUMBER), 10)


async def test_somebody_else_is_not_forgotten(rig: Rig) -> None:
    other = await ended(rig, "+33612345679")
    await ended(rig)
    await forget(rig)

    assert not nameless(rig, other)


async def test_what_was_counted_of_a_person_is_forgotten(rig: Rig) -> None:
    answer = await rig.send(workflow="sms", code="123456")
    await rig.verify(answer["verification_id"], "654321")
    await rig.call("/otp/cancel", {"verification_id": answer["verification_id"]})
    done = await forget(rig)

    # Wrong codes, sends, the cool-down that canceling left.
    assert (3, []) == (done.counters, rig.dump()["counter"])


async def test_a_forgotten_verification_takes_receipts_here_and_beside(rig: Rig) -> None:
    """This process remembers the row as it was; another one has erased it since."""
    named = await ended(rig)
    submission = rig.transport.to("sms-campaign")[0]
    twin = await rig.beside()
    await forget(twin)
    await twin.stop()
    taken = await rig.octopush_receipt(submission, "DELIVERED")

    assert (True, True) == (taken.is_success, nameless(rig, named))
    assert ["sms:DELIVERED"] == rig.states(named)
