"""What is counted, and that it is counted after the commit, once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from endpoints import URL, FakeEndpoints, breaking, failing, later, notified, subscribe
from fakes import Clock, Gate, answering, raising
from metrics.scraped import scraped
from rig import CALLBACK_KEY, NUMBER, Rig, make_settings, problem

from gateway.domain.limits import Per, Rule
from gateway.domain.policy import Policy
from gateway.metrics import CATALOGUE, Sampler, Standing
from gateway.ports import Lost, NotSent
from gateway.services.case import Note
from gateway.services.dispatch import Released, Withdrawn
from gateway.store.engine import StoreError

OTHER = "+33698765432"
THROTTLED = answering(429, {"code": 102, "message": "slow down"}, {"retry-after": "2"})


async def test_sends_are_counted_by_channel_and_by_whether_they_joined(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    await rig.send(OTHER)
    rig.clock.advance(31)
    await rig.send(workflow="sms_only")

    assert {
        ("sms", "started"): 1,
        ("messenger", "started"): 1,
        ("sms", "joined"): 1,
    } == await scraped(rig, "otp_sends_total")


async def test_a_refused_request_counts_by_its_code_and_not_as_a_send(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    problem(await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"}), 429, "cool_down")
    problem(await rig.call("/otp/send", {"to": "12"}), 400, "recipient_invalid")
    await rig.http.post("/otp/send", content=b"{}", headers={"content-type": "text/plain"})
    await rig.http.get("/otp/send")

    assert {
        ("/otp/send", "cool_down"): 1,
        ("/otp/send", "recipient_invalid"): 1,
        ("/otp/send", "key_missing"): 1,
        ("/otp/send", "method_not_allowed"): 1,
    } == await scraped(rig, "otp_refusals_total")
    assert {("sms", "started"): 1} == await scraped(rig, "otp_sends_total")


async def test_no_label_holds_what_a_caller_put_into_the_path(rig: Rig) -> None:
    await rig.http.post("/otp/delivered/octopush/guessed-key", content=b"{}")
    await rig.http.post("/otp/delivered/nobody/a/b/c", content=b"{}")
    await rig.http.get("/otp/delivered/")
    calls = await scraped(rig, "otp_refusals_total")

    assert {"/otp/delivered/"} == {call for call, _ in calls}
    assert {("octopush", "receipt", "refused"): 1} == await scraped(rig, "otp_receipts_total")


async def test_outcomes_count_by_route_and_kind(rig: Rig) -> None:
    rig.transport.script(
        "sms-campaign", THROTTLED, raising(NotSent("connect_error")), raising(Lost("read_timeout"))
    )
    for number in (NUMBER, OTHER, "+33600000011", "+33600000012"):
        await rig.send(number, workflow="sms_only")

    assert {
        ("throttled", "octopush"): 1,
        ("temporary", "octopush"): 1,
        ("unknown", "octopush"): 1,
        ("accepted", "octopush"): 1,
    } == await scraped(rig, "otp_outcomes_total")
    assert {("octopush",): 4} == await scraped(rig, "otp_provider_call_duration_seconds_count")


async def test_a_submission_that_never_came_to_the_wire_has_no_call_time(rig: Rig) -> None:
    rig.gateway.meter.called("octopush", Withdrawn(), 0.1)
    rig.gateway.meter.called("octopush", Released(), 0.1)

    assert {("withdrawn", "octopush"): 1, ("released", "octopush"): 1} == await scraped(
        rig, "otp_outcomes_total"
    )
    assert {} == await scraped(rig, "otp_provider_call_duration_seconds_count")


async def test_call_time_is_that_of_the_call(rig: Rig) -> None:
    gate = Gate(answering(201, {"sms_ticket": "sms_1", "total_cost": 0.05}))
    rig.transport.script("sms-campaign", gate)
    await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})
    await gate.reached.wait()
    rig.clock.advance(1.5)
    gate.opened.set()
    await rig.settle()

    assert {("octopush",): 1.5} == await scraped(rig, "otp_provider_call_duration_seconds_sum")
    buckets = await scraped(rig, "otp_provider_call_duration_seconds_bucket")
    assert (0, 1) == (buckets["1.0", "octopush"], buckets["2.0", "octopush"])


async def test_a_fallback_counts_by_its_cause_and_a_wish_does_not(rig: Rig) -> None:
    sent = await rig.send()
    await rig.reconcile(121)  # asks the messenger
    await rig.reconcile(5)
    await rig.call("/otp/next", {"verification_id": sent["verification_id"]})
    await rig.settle()

    assert ["messenger", "sms", "voice"] == [
        one.channel for one in rig.attempts(sent["verification_id"])
    ]
    assert {("silence", "sms"): 1} == await scraped(rig, "otp_fallbacks_total")


async def test_transitions_count_where_a_state_moved(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    submission = rig.transport.submissions[-1]
    for word in ("DELIVERED", "ACK", "DELIVERED"):
        await rig.octopush_receipt(submission, word)

    assert {("sms", "SENT"): 1, ("sms", "DELIVERED"): 1} == await scraped(
        rig, "otp_transitions_total"
    )


async def test_receipts_count_by_verdict(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    submission = rig.transport.submissions[-1]
    for word in ("DELIVERED", "DELIVERED", "ACK", "TELEPORTED"):
        await rig.octopush_receipt(submission, word)
    await rig.octopush_receipt(submission, "ACK", number=OTHER)
    await rig.octopush_receipt(submission, "ACK", message_id="sms_of_nobody")
    await rig.octopush_receipt(submission, "ACK", key="wrong")
    await rig.http.post(f"/otp/delivered/octopush/{CALLBACK_KEY}", content=b"nonsense")

    assert {
        ("octopush", "receipt", "applied"): 1,
        ("octopush", "receipt", "repeated"): 1,
        ("octopush", "receipt", "late"): 1,
        ("octopush", "receipt", "unknown_word"): 1,
        ("octopush", "receipt", "other_number"): 1,
        ("octopush", "receipt", "parked"): 1,
        ("octopush", "receipt", "refused"): 1,
        ("octopush", "receipt", "malformed"): 1,
    } == await scraped(rig, "otp_receipts_total")


async def test_a_receipt_that_came_first_is_parked_and_then_linked(rig: Rig) -> None:
    gate = Gate(answering(201, {"sms_ticket": "sms_early", "total_cost": 0.05}))
    rig.transport.script("sms-campaign", gate)
    await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})
    await gate.reached.wait()
    await rig.octopush_receipt(rig.transport.submissions[-1], "DELIVERED", message_id="sms_early")
    gate.opened.set()
    await rig.settle()

    assert {
        ("octopush", "receipt", "parked"): 1,
        ("octopush", "receipt", "linked"): 1,
    } == await scraped(rig, "otp_receipts_total")
    assert {("sms", "DELIVERED"): 1} == await scraped(rig, "otp_receipt_latency_seconds_count")


async def test_latency_runs_from_the_attempt_to_the_receipt_that_moved_it(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    submission = rig.transport.submissions[-1]
    rig.clock.advance(4)
    await rig.octopush_receipt(submission, "DELIVERED")
    rig.clock.advance(4)
    await rig.octopush_receipt(submission, "ACK")

    assert {("sms", "DELIVERED"): 4} == await scraped(rig, "otp_receipt_latency_seconds_sum")
    assert {("sms", "DELIVERED"): 1} == await scraped(rig, "otp_receipt_latency_seconds_count")


async def test_checks_and_ends_are_counted(rig: Rig) -> None:
    sent = await rig.send(workflow="sms_only")
    code = rig.transport.submissions[-1].code
    await rig.verify(sent["verification_id"], "000000" if code != "000000" else "000001")
    await rig.verify(sent["verification_id"], code)
    await rig.verify(sent["verification_id"], code)

    assert {("wrong",): 1, ("passed",): 1} == await scraped(rig, "otp_checks_total")
    assert {("VERIFIED",): 1} == await scraped(rig, "otp_verifications_ended_total")


async def test_a_batch_that_was_rolled_back_counts_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is decided again, and counts once. (Seen to fail, with 2 sends, when `follow` was given
    the items before the commit.)"""
    engine = rig.runtime.engine
    commit, failures = engine.commit, [StoreError("the disk is gone for a moment")]

    async def failing() -> None:
        if failures:
            raise failures.pop()
        await commit()

    monkeypatch.setattr(engine, "commit", failing)
    await rig.send(workflow="sms_only")

    assert {("sms", "started"): 1} == await scraped(rig, "otp_sends_total")
    assert {("accepted", "octopush"): 1} == await scraped(rig, "otp_outcomes_total")
    assert {(): 1} == await scraped(rig, "otp_ledger_reruns_total")


async def test_every_commit_is_measured_with_its_operations(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    tally = rig.gateway.ledger.tally

    assert {(): tally.operations} == await scraped(rig, "otp_ledger_batch_operations_sum")
    assert {(): tally.commits} == await scraped(rig, "otp_ledger_batch_operations_count")
    assert {(): tally.commits} == await scraped(rig, "otp_ledger_commit_duration_seconds_count")


async def test_the_reconcilers_lag_is_that_of_the_oldest_due_row(rig: Rig) -> None:
    """By the pass that began with it; the next one finds nothing due."""
    rig.gateway.worker._passing = rig.passing
    await rig.send(workflow="sms_only")
    await rig.reconcile(75)

    assert {(): 15} == await scraped(rig, "otp_reconcile_lag_seconds")

    await rig.reconcile()

    assert {(): 0} == await scraped(rig, "otp_reconcile_lag_seconds")


async def test_what_is_under_way_is_seen(rig: Rig) -> None:
    gate = Gate(answering(201, {"sms_ticket": "sms_1", "total_cost": 0.05}))
    rig.transport.script("sms-campaign", gate)
    await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms_only"})
    await gate.reached.wait()

    assert {(): 1} == await scraped(rig, "otp_calls_under_way")

    gate.opened.set()
    await rig.settle()

    assert {(): 0} == await scraped(rig, "otp_calls_under_way")


async def test_a_crowded_route_shows(rig: Rig) -> None:
    rig.gateway.dispatcher._lanes["octopush"].concurrency = 0
    await rig.send(workflow="sms_only")

    assert {("octopush",): 1} == await scraped(rig, "otp_crowded_total")


async def test_a_warning_of_a_batch_counts_by_its_event(rig: Rig) -> None:
    rig.gateway.meter.follow({Note: [Note("look_failed", {}, level="error"), Note("odd", {})]})

    assert {("look_failed",): 1} == await scraped(rig, "otp_warnings_total")


async def test_what_only_grows_counts_once_however_often_it_is_looked_at(rig: Rig) -> None:
    standing = Standing(dropped=3)
    rig.gateway.sampler = Sampler(rig.gateway.meter, lambda: standing)
    await scraped(rig, "otp_log_lines_dropped_total")

    assert {(): 3} == await scraped(rig, "otp_log_lines_dropped_total")

    standing = Standing(dropped=4)

    assert {(): 4} == await scraped(rig, "otp_log_lines_dropped_total")


async def test_the_loops_lag_is_how_late_a_timer_is_woken(rig: Rig) -> None:
    late: list[float] = []

    class Meter:
        def stands(self, standing: Standing) -> None: ...
        def woken_late(self, seconds: float) -> None:
            late.append(seconds)

        def flush(self) -> None: ...

    class Loop:
        def __init__(self) -> None:
            self.now = 100.0
            self.timers: list[tuple[float, Callable[..., None], tuple[object, ...]]] = []

        def time(self) -> float:
            return self.now

        def call_later(self, seconds: float, work: Callable[..., None], *given: object) -> None:
            self.timers.append((self.now + seconds, work, given))

    loop = Loop()
    sampler = Sampler(Meter(), Standing)
    sampler._next(loop)  # type: ignore[arg-type]
    at, work, given = loop.timers.pop()
    loop.now = at + 0.25
    work(*given)

    assert [0.25] == late
    assert 1 == len(loop.timers)


async def test_only_what_is_in_the_catalogue_is_told(rig: Rig) -> None:
    await rig.send()
    answer = await rig.http.get("/metrics")
    told = {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE otp_")}

    assert set(CATALOGUE) == {name for name in told if not name.endswith("_created")}


async def test_a_limit_counts_by_its_rule_refused_or_in_shadow(
    tmp_path: Path, migrated: Path, clock: Clock
) -> None:
    """A recipient among several is one like any other, though its problem is no answer's status."""
    hour = Rule("hour", Per.CLIENT, 3600, 1, shadow=True)
    settings = dataclasses.replace(make_settings(tmp_path), policy=Policy(rules=(hour,)))
    async with Rig(tmp_path, migrated, clock, settings=settings) as rig:
        await rig.send()
        await rig.send(OTHER)
        await rig.call("/otp/send", {"to": NUMBER})
        await rig.call("/otp/send", {"recipients": [{"phone_number": NUMBER}]})

        assert {("hour", "shadow"): 1, ("cool_down", "refused"): 2} == await scraped(
            rig, "otp_limits_total"
        )
        lately = rig.runtime.lately
        assert lately is not None
        assert [(("cool_down", "refused"), 2), (("hour", "shadow"), 1)] == [
            (row.names, row.long) for row in lately.limits
        ]
        assert [(("/otp/send", "cool_down"), 1)] == [
            (row.names, row.short) for row in lately.problems
        ]
        clock.advance(3600)
        assert [] == lately.problems


async def test_a_breakers_changes_count_by_route_and_reason(rig: Rig) -> None:
    notes = [
        Note("route_paused", {"route": "octopush", "reason": "account"}, level="error"),
        Note("route_resumed", {"route": "octopush", "was": "account"}, level="warning"),
        Note("route_resumed", {"route": "octopush", "was": "we know better"}, level="warning"),
    ]
    rig.gateway.meter.follow({Note: notes})

    assert {
        ("account", "octopush", "paused"): 1,
        ("account", "octopush", "ready"): 1,
        ("operator", "octopush", "ready"): 1,
    } == await scraped(rig, "otp_route_changes_total")


async def test_webhooks_count_by_what_came_of_them(
    tmp_path: Path, migrated: Path, clock: Clock
) -> None:
    endpoints = FakeEndpoints()
    async with Rig(tmp_path, migrated, clock, webhooks=endpoints) as rig:
        await subscribe(rig)
        endpoints.at[URL] = failing(500)
        await rig.send(workflow="sms_only")
        await notified(rig)
        endpoints.at[URL] = breaking(NotSent("connect_error"))
        await later(rig, 600)
        del endpoints.at[URL]
        await later(rig, 3600)

        assert {("delivered",): 1, ("refused",): 1, ("unreachable",): 1} == await scraped(
            rig, "otp_webhooks_total"
        )
