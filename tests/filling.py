"""A row in every table: for what goes up and down with data in it."""

from factories import (
    make_api_key,
    make_attempt,
    make_client,
    make_event,
    make_kept,
    make_logged,
    make_operator,
    make_subscription,
    make_verification,
    stored_plan,
)
from fakes import START

from gateway.domain import access
from gateway.domain.audit import Act
from gateway.domain.health import Tally, disabled
from gateway.domain.limits import Counter
from gateway.store import accounts, audits, tallies, writes
from gateway.store.engine import Engine
from gateway.store.outbox import Outbox, Raised
from gateway.store.records import Counted, Further, Mark, StoredAnswer, Suppression
from gateway.store.tallies import Pass, Tallies


async def fill(engine: Engine) -> None:
    """At least one row in every table."""
    verification = make_verification()
    await engine.begin()
    await writes.insert_client(engine, make_client(), make_api_key())
    await writes.insert_plans(engine, [stored_plan()])
    await writes.insert_verifications(engine, [verification])
    await writes.insert_attempts(engine, [make_attempt(verification_id=verification.id)])
    await writes.move(engine, [], [make_logged(verification_id=verification.id)])
    await writes.insert_further(engine, [Further(verification.id, "email", b"index-of-mailbox")])
    await writes.keep_receipts(engine, [make_kept()])
    await writes.put_counters(engine, [Counter(b"key", START, 1)])
    suppression = Suppression(b"index", "sms", "octopush", "", "blacklisted", START, START)
    await writes.put_suppressions(engine, [suppression])
    await writes.put_marks(engine, [Mark("reconcile", START)])
    await writes.count(engine, [Counted(START, "sms", "FR", "node", *Tally(accepted=1))])
    await writes.order_routes(engine, [disabled("sms", "fraud", "ops", START)])
    answer = StoredAnswer(b"key", b"print", 200, b"sealed", "k1", START)
    await writes.insert_answers(engine, [answer])
    outbox = Outbox()
    subscription = make_subscription()
    outbox.add(
        subscription,
        make_event(verification_id=verification.id),
        Raised(verification.id, subscription.id, 1, START),
    )
    await outbox.write(engine)
    counted = Tallies()
    counted.add(tallies.Tally(b"key", "", 1, 0, START))
    await counted.write(engine)
    operator = make_operator()
    await accounts.add_operator(engine, operator)
    await accounts.open_session(engine, access.opened(b"digest", operator.id, START), START)
    await audits.append(engine, Act("alice", "login"), START)
    await engine.commit()
    await tallies.allow(engine, Pass("+3361234", START, "a campaign", START))
