"""What the statements refuse by themselves, whoever runs them: the last guard of each rule.

The ledger locks and loads before it writes, so most of these never happen in one process; they
hold for two, and for a mistake in the ledger. Each was seen to fail on a copy of the tree from
which its guard had been taken (F47); the docstrings say which.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from factories import (
    PLAN,
    after,
    make_api_key,
    make_attempt,
    make_client,
    make_kept,
    make_logged,
    make_verification,
    new_id,
    stored_plan,
)
from fakes import START

from gateway.domain.delivery import Attempt, Cause, Outcome, State
from gateway.domain.limits import Counter
from gateway.domain.verification import MAX_CHECKS, MAX_SENDS, Status, Verification
from gateway.ports import Server
from gateway.store import writes
from gateway.store.engine import Conflict, Engine, open_engine
from gateway.store.reads import ATTEMPTS, COUNTERS, LOG, PLANS, VERIFICATIONS, Reads
from gateway.store.records import Crowd, Mark


@pytest.fixture
async def engine(store: Path | Server) -> AsyncIterator[Engine]:
    """A database with a client and a plan."""
    opened = open_engine(store)
    await opened.begin()
    await writes.insert_client(opened, make_client(), make_api_key())
    await writes.insert_plans(opened, [stored_plan()])
    await opened.commit()
    yield opened
    await opened.rollback()
    await opened.close()


async def stored(
    engine: Engine, *attempts: Attempt, **changes: object
) -> tuple[Verification, list[Attempt]]:
    """A verification and its attempts, as they are in the database."""
    verification = make_verification(**changes)
    mine = [attempt._replace(verification_id=verification.id) for attempt in attempts]
    await engine.begin()
    await writes.insert_verifications(engine, [verification])
    await writes.insert_attempts(engine, mine)
    await engine.commit()
    return verification, mine


def was(state: State, after: Attempt) -> tuple[Attempt, Attempt]:
    """An attempt as it was loaded, in that state and without a reference, and as it is to be."""
    return after._replace(state=state, reference=None), after


async def verification_now(engine: Engine, of: Verification) -> Verification:
    (found,) = await engine.load(VERIFICATIONS, [of.id])
    return found


async def attempts_now(engine: Engine, of: Verification) -> list[Attempt]:
    return sorted(await engine.load(ATTEMPTS, [of.id]), key=lambda one: one.ordinal)


# Verifications.


@pytest.mark.parametrize(
    "changes",
    [
        {"reference": "order 7"},
        {"code_sealed": b"code", "params_sealed": b"params", "checks_used": 2},
        {"status": Status.VERIFIED, "ended_at": after(9), "version": 3, "log": 4, "events": 2},
        {"locale": "", "trace": "00-1-2-01", "step": 1, "sends_used": 2},
    ],
)
async def test_rows_as_usual_and_others_are_written_as_they_are(
    engine: Engine, changes: dict[str, Any]
) -> None:
    """Alone, and beside one another in a batch: what stands in the statement is no other value."""
    usual, unusual, beside = make_verification(), make_verification(), make_verification()
    unusual = unusual._replace(recipient_index=b"other", **changes)
    beside = beside._replace(recipient_index=b"third", **changes)
    await engine.begin()
    await writes.insert_verifications(engine, [usual, unusual])
    await writes.insert_verifications(engine, [beside])

    for one in (usual, unusual, beside):
        assert one == await verification_now(engine, one)


async def test_a_verification_is_read_as_it_was_written(engine: Engine) -> None:
    verification, _ = await stored(
        engine,
        reference="order-1",
        code_sealed=b"code",
        recipient_sealed=None,
        status=Status.LOCKED,
        ended_at=after(5),
        wake_at=None,
    )

    assert verification == await verification_now(engine, verification)


async def test_every_change_counts_the_version(engine: Engine) -> None:
    verification, _ = await stored(engine)
    await engine.begin()
    await writes.update_verifications(
        engine, [(verification, verification._replace(checks_used=1))]
    )

    assert verification._replace(checks_used=1, version=1) == (
        await verification_now(engine, verification)
    )


async def test_what_may_change_of_a_verification_is_written(engine: Engine) -> None:
    verification, _ = await stored(engine)
    changed = verification._replace(
        recipient_sealed=None,
        code_sealed=b"code",
        step=1,
        status=Status.VERIFIED,
        checks_used=2,
        sends_used=3,
        sent_at=after(31),
        ended_at=after(40),
        wake_at=None,
        log=7,
    )
    await engine.begin()
    await writes.update_verifications(engine, [(verification, changed)])

    assert changed._replace(version=1) == await verification_now(engine, verification)


async def test_a_verification_changed_since_it_was_loaded_is_a_conflict(
    engine: Engine,
) -> None:
    """Seen to fail without `version = :version` in the update."""
    loaded, _ = await stored(engine)
    await engine.begin()
    await writes.update_verifications(engine, [(loaded, loaded._replace(checks_used=1))])

    with pytest.raises(Conflict):
        await writes.update_verifications(engine, [(loaded, loaded._replace(checks_used=1))])


@pytest.mark.parametrize("status", [Status.VERIFIED, Status.LOCKED, Status.CANCELED])
async def test_an_ended_verification_never_runs_again(engine: Engine, status: Status) -> None:
    """Seen to fail without the look at the status in the update."""
    ended, _ = await stored(engine, status=status, ended_at=after(3), wake_at=None)
    await engine.begin()

    with pytest.raises(Conflict):
        await writes.update_verifications(engine, [(ended, ended._replace(status=Status.PENDING))])


async def test_an_end_is_not_changed_into_another(engine: Engine) -> None:
    """Seen to fail without the look at the status in the update."""
    ended, _ = await stored(engine, status=Status.CANCELED, ended_at=after(3))
    await engine.begin()

    with pytest.raises(Conflict):
        await writes.update_verifications(engine, [(ended, ended._replace(status=Status.VERIFIED))])


async def test_an_ended_verification_still_takes_news(engine: Engine) -> None:
    """Late receipts are logged: its log grows."""
    ended, _ = await stored(engine, status=Status.VERIFIED, ended_at=after(3), wake_at=None)
    await engine.begin()
    await writes.update_verifications(engine, [(ended, ended._replace(log=4))])

    assert 4 == (await verification_now(engine, ended)).log


async def test_one_number_has_one_running_verification_of_a_purpose(engine: Engine) -> None:
    """Seen to fail without the index uq_verification_running."""
    await stored(engine)
    await engine.begin()

    with pytest.raises(Conflict):
        await writes.insert_verifications(engine, [make_verification()])


@pytest.mark.parametrize(
    "changes",
    [
        {"status": Status.EXPIRED},
        {"purpose": "payment"},
        {"recipient_index": b"index-of-another"},
    ],
    ids=["ended", "purpose", "number"],
)
async def test_a_verification_beside_the_running_one_may_be_ended_or_for_something_else(
    engine: Engine, changes: dict[str, Any]
) -> None:
    await stored(engine)
    await engine.begin()
    beside = make_verification(**changes)
    await writes.insert_verifications(engine, [beside])

    assert beside == await verification_now(engine, beside)


async def test_two_clients_may_verify_one_number_at_once(engine: Engine) -> None:
    await stored(engine)
    other = make_client(id=new_id(), name="other")
    await engine.begin()
    await writes.insert_client(engine, other, make_api_key(client_id=other.id))
    beside = make_verification(client_id=other.id)
    await writes.insert_verifications(engine, [beside])

    assert beside == await verification_now(engine, beside)


async def test_an_ended_verification_makes_room_for_the_next(engine: Engine) -> None:
    first, _ = await stored(engine)
    following = make_verification()
    await engine.begin()
    await writes.update_verifications(engine, [(first, first._replace(status=Status.EXPIRED))])
    await writes.insert_verifications(engine, [following])

    assert following == await verification_now(engine, following)


async def test_more_checks_than_allowed_cannot_be_written(engine: Engine) -> None:
    """F24. Seen to fail without the constraint ck_verification_checks."""
    verification, _ = await stored(engine, checks_used=MAX_CHECKS)
    await engine.begin()

    with pytest.raises(Conflict, match="checks"):
        await writes.update_verifications(
            engine, [(verification, verification._replace(checks_used=MAX_CHECKS + 1))]
        )


async def test_more_sends_than_allowed_cannot_be_written(engine: Engine) -> None:
    """Seen to fail without the constraint ck_verification_sends."""
    verification, _ = await stored(engine, sends_used=MAX_SENDS)
    await engine.begin()

    with pytest.raises(Conflict, match="sends"):
        await writes.update_verifications(
            engine, [(verification, verification._replace(sends_used=MAX_SENDS + 1))]
        )


@pytest.mark.parametrize("changes", [{"client_id": new_id()}, {"plan": b"another"}])
async def test_a_verification_belongs_to_a_client_and_has_a_plan(
    engine: Engine, changes: dict[str, Any]
) -> None:
    await engine.begin()

    with pytest.raises(Conflict, match=r"(?i)foreign key"):
        await writes.insert_verifications(engine, [make_verification(**changes)])


# Attempts.

FULL = make_attempt(
    ordinal=3,
    step=2,
    resend=1,
    cause=Cause.RESEND,
    state=State.READ,
    outcome=Outcome.UNKNOWN,
    reference="sms_1",
    reason="read_timeout",
    error="timed out",
    sent_at=after(1),
    delivered_at=after(2),
    read_at=after(3),
    polled_at=after(4),
    retry_at=after(5),
    claimed_until=after(6),
    tries=2,
    words="sent\nread",
    repeats=4,
    cost="0.05 EUR",
)


async def test_an_attempt_is_read_as_it_was_written(engine: Engine) -> None:
    verification, attempts = await stored(engine, FULL)

    assert attempts == await attempts_now(engine, verification)


async def test_an_ordinal_is_given_once(engine: Engine) -> None:
    """F6. Seen to fail without the index uq_attempt_ordinal."""
    _, (first,) = await stored(engine, make_attempt(ordinal=1))
    await engine.begin()

    with pytest.raises(Conflict):
        await writes.insert_attempts(engine, [first._replace(id=new_id())])


async def test_two_verifications_count_their_attempts_apart(engine: Engine) -> None:
    await stored(engine, make_attempt(ordinal=1))
    other, attempts = await stored(engine, make_attempt(ordinal=1), purpose="payment")

    assert attempts == await attempts_now(engine, other)


async def test_a_reference_names_one_attempt_of_an_account(engine: Engine) -> None:
    """F14. Seen to fail without the index uq_attempt_reference."""
    await stored(engine, make_attempt(reference="sms_1"))
    await engine.begin()
    verification = make_verification(purpose="payment")
    await writes.insert_verifications(engine, [verification])

    with pytest.raises(Conflict):
        await writes.insert_attempts(
            engine, [make_attempt(verification_id=verification.id, reference="sms_1")]
        )


async def test_a_reference_may_be_brought_later_and_is_as_unique_then(
    engine: Engine,
) -> None:
    """F14. Seen to fail without the index uq_attempt_reference."""
    _, (_, later) = await stored(
        engine, make_attempt(reference="sms_1"), make_attempt(ordinal=2, reference=None)
    )
    await engine.begin()

    with pytest.raises(Conflict):
        await writes.move(engine, [was(later.state, later._replace(reference="sms_1"))], [])


@pytest.mark.parametrize(
    ("account", "reference"),
    [("another", "sms_1"), ("octopush", "SMS_1"), ("octopush", "sms_1 "), ("octopush", None)],
)
async def test_references_differ_by_account_and_by_every_character(
    engine: Engine, account: str, reference: str | None
) -> None:
    """F13, F14: opaque, and two providers may issue the same."""
    _, attempts = await stored(
        engine,
        make_attempt(reference="sms_1"),
        make_attempt(ordinal=2, account=account, reference=reference),
        make_attempt(ordinal=3, reference=None),
    )

    assert 3 == len(attempts)


async def test_an_attempt_belongs_to_a_verification(engine: Engine) -> None:
    await engine.begin()

    with pytest.raises(Conflict, match=r"(?i)foreign key"):
        await writes.insert_attempts(engine, [make_attempt()])


# Moving states.


async def test_a_state_moves_up(engine: Engine) -> None:
    verification, (loaded,) = await stored(engine, make_attempt(state=State.SENT))
    moved = loaded._replace(state=State.DELIVERED, delivered_at=after(3), words="DELIVERED")
    await engine.begin()
    await writes.move(engine, [(loaded, moved)], [])

    assert [moved] == await attempts_now(engine, verification)


@pytest.mark.parametrize("there", [State.ACK, State.FAILED, State.DELIVERED, State.READ])
async def test_a_state_that_moved_since_it_was_loaded_is_a_conflict(
    engine: Engine, there: State
) -> None:
    """F2: the outcome of our call comes with a state loaded before the receipt was applied. Seen to
    fail without `state < :state` in the update."""
    _, (loaded,) = await stored(engine, make_attempt(state=State.QUEUED))
    await engine.begin()
    await writes.move(engine, [was(State.QUEUED, loaded._replace(state=there))], [])

    with pytest.raises(Conflict):
        await writes.move(engine, [was(State.QUEUED, loaded._replace(state=State.SENT))], [])


async def test_a_refused_move_leaves_the_stronger_state(engine: Engine) -> None:
    """F2. Seen to fail without `state < :state` in the update."""
    verification, (loaded,) = await stored(engine, make_attempt(state=State.QUEUED))
    delivered = loaded._replace(state=State.DELIVERED)
    await engine.begin()
    await writes.move(engine, [was(State.QUEUED, delivered)], [])
    with pytest.raises(Conflict):
        await writes.move(engine, [was(State.QUEUED, loaded._replace(state=State.SENT))], [])

    assert [delivered] == await attempts_now(engine, verification)


async def test_news_of_an_attempt_leave_its_state(engine: Engine) -> None:
    verification, (loaded,) = await stored(engine, make_attempt(state=State.ACK))
    news = loaded._replace(reference="sms_1", repeats=1)
    await engine.begin()
    await writes.move(engine, [(loaded, news)], [])

    assert [news] == await attempts_now(engine, verification)


async def test_news_of_an_attempt_whose_state_moved_meanwhile_are_a_conflict(
    engine: Engine,
) -> None:
    """F2: else the row would take back the state it was loaded with. Seen to fail without
    `state = :state` in the update."""
    verification, (loaded,) = await stored(engine, make_attempt(state=State.SENT))
    await engine.begin()
    await writes.move(engine, [was(State.SENT, loaded._replace(state=State.READ))], [])
    with pytest.raises(Conflict):
        await writes.move(engine, [(loaded, loaded._replace(repeats=1))], [])

    assert [State.READ] == [one.state for one in (await attempts_now(engine, verification))]


async def test_a_batch_moves_each_attempt_by_itself(engine: Engine) -> None:
    verification, (one, two, three) = await stored(
        engine, *(make_attempt(ordinal=number) for number in (1, 2, 3))
    )
    expected = [one._replace(state=State.READ), two._replace(repeats=1), three]
    await engine.begin()
    await writes.move(engine, [(one, expected[0]), (two, expected[1])], [])

    assert expected == await attempts_now(engine, verification)


async def test_what_changes_of_one_leaves_the_others_of_its_batch(engine: Engine) -> None:
    """A statement names what changes in any of them."""
    verification, loaded = await stored(
        engine, *(make_attempt(ordinal=number, words="SENT") for number in (1, 2, 3))
    )
    expected = [
        loaded[0]._replace(words="SENT READ", cost="0.05"),
        loaded[1]._replace(error="timeout", claimed_until=after(9), outcome=Outcome.UNKNOWN),
        loaded[2]._replace(words="", overdue_at=after(99)),
    ]
    await engine.begin()
    await writes.move(engine, list(zip(loaded, expected, strict=True)), [])

    assert expected == await attempts_now(engine, verification)


async def test_changes_of_many_kinds_are_written_without_a_statement_for_each(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F27: no memory grows with the traffic."""
    monkeypatch.setattr(writes, "_ATTEMPT_FORMS", {})
    monkeypatch.setattr(writes, "_MOST_FORMS", 1)
    verification, (loaded,) = await stored(engine, make_attempt())
    first = loaded._replace(cost="0.05")
    second = first._replace(repeats=1)
    await engine.begin()
    await writes.move(engine, [(loaded, first)], [])
    await writes.move(engine, [(first, second)], [])

    assert 1 == len(writes._ATTEMPT_FORMS)
    assert [second] == await attempts_now(engine, verification)


async def test_what_an_attempt_is_does_not_change(engine: Engine) -> None:
    """Its step, route, channel and place are those it was made with."""
    verification, (loaded,) = await stored(engine, make_attempt())
    other = loaded._replace(
        state=State.ACK,
        ordinal=9,
        step=3,
        resend=2,
        cause=Cause.NEXT,
        account="x",
        route="x",
        channel="x",
        queued_at=after(99),
    )
    await engine.begin()
    await writes.move(engine, [was(State.SENT, other)], [])

    assert [loaded._replace(state=State.ACK)] == await attempts_now(engine, verification)


async def test_every_statement_is_logged_whether_it_moved_or_not(engine: Engine) -> None:
    verification, _ = await stored(engine)
    rows = [
        make_logged(verification_id=verification.id, number=0),
        make_logged(
            verification_id=verification.id,
            number=1,
            before=State.SENT,
            after=State.SENT,
            applied=False,
            source="receipt",
            word="odd",
            provider_time="2026-11-21 13:00:01",
        ),
        make_logged(
            verification_id=verification.id,
            number=2,
            attempt=None,
            before=Status.PENDING,
            after=Status.EXPIRED,
            source="deadline",
        ),
    ]
    await engine.begin()
    await writes.move(engine, [], rows)

    assert rows == sorted(await engine.load(LOG, [verification.id]), key=lambda row: row.number)


async def test_a_line_of_the_log_is_written_once(engine: Engine) -> None:
    """Two writers that loaded the same length of the log. Seen to fail without the key of
    `transition`."""
    row = make_logged()
    await engine.begin()
    await writes.move(engine, [], [row])

    with pytest.raises(Conflict):
        await writes.move(engine, [], [row])


# The rest.


async def test_a_plan_that_others_have_stored_is_stored_once(engine: Engine) -> None:
    await engine.begin()
    await writes.insert_plans(engine, [stored_plan(), stored_plan(digest=b"new")])

    assert {PLAN, b"new"} == {digest for digest, _ in await engine.load(PLANS, [PLAN, b"new"])}


async def test_a_counter_is_put_as_it_is_now(engine: Engine) -> None:
    await engine.begin()
    await writes.put_counters(engine, [Counter(b"key", START, 1)])
    await writes.put_counters(engine, [Counter(b"key", after(9), 2)])

    assert [Counter(b"key", after(9), 2)] == await engine.load(COUNTERS, [b"key"])


async def test_a_mark_is_put_as_it_is_now(engine: Engine) -> None:
    await engine.begin()
    await writes.put_marks(engine, [Mark("reconcile", START)])
    await writes.put_marks(engine, [Mark("reconcile", after(9))])
    await engine.commit()

    assert after(9) == await Reads(engine).mark("reconcile")


async def test_a_receipt_is_kept_as_it_came(engine: Engine) -> None:
    kept = make_kept()
    await engine.begin()
    await writes.keep_receipts(engine, [kept])
    await engine.commit()

    assert [kept] == await Reads(engine).kept(10)


async def test_a_receipt_dropped_is_gone(engine: Engine) -> None:
    kept, other = make_kept(), make_kept()
    await engine.begin()
    await writes.keep_receipts(engine, [kept, other])
    await writes.drop_receipts(engine, [kept])
    await engine.commit()

    assert [other] == await Reads(engine).kept(10)


async def test_a_receipt_dropped_by_somebody_else_meanwhile_is_passed_over(
    engine: Engine,
) -> None:
    """The sweep names what it read before its turn came; an outcome may have linked it since."""
    await engine.begin()
    await writes.drop_receipts(engine, [make_kept()])
    await engine.commit()

    assert [] == await Reads(engine).kept(10)


async def test_the_newest_receipts_of_an_account_stay_and_the_old_go(engine: Engine) -> None:
    series = [make_kept(id=new_id(after(at)), received_at=after(at)) for at in range(6)]
    other = make_kept(id=new_id(after(9)), account="other", received_at=after(9))
    await engine.begin()
    await writes.keep_receipts(engine, [*series, other])
    await writes.expire_receipts(engine, after(1))
    await writes.trim_receipts(engine, [Crowd("octopush", 2), Crowd("other", 1)])
    await engine.commit()
    reads = Reads(engine)

    assert [*series[4:], other] == await reads.kept(10)
    assert [("octopush", 2)] == await reads.crowded(1)
    assert [series[5]] == await reads.parked("octopush", after(0), series[4].id, 10)
    assert [series[5]] == await reads.parked("octopush", after(5), None, 10)


async def test_a_client_comes_with_its_key(engine: Engine) -> None:
    client = make_client(id=new_id(), name="shop")
    key = make_api_key(client_id=client.id, expires_at=after(60), revoked_at=after(70))
    await engine.begin()
    await writes.insert_client(engine, client, key)
    await engine.commit()

    assert key == await Reads(engine).api_key(key.digest)


async def test_the_name_of_a_client_is_its_own(engine: Engine) -> None:
    await engine.begin()

    with pytest.raises(Conflict, match=r"client[._]name"):
        await writes.insert_client(engine, make_client(id=new_id()), make_api_key())


async def test_a_key_belongs_to_a_client(engine: Engine) -> None:
    await engine.begin()

    with pytest.raises(Conflict, match=r"(?i)foreign key"):
        await writes.insert_client(
            engine, make_client(id=new_id(), name="shop"), make_api_key(client_id=new_id())
        )
