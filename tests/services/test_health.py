"""Routes that do badly are paused, probed and resumed; an operator's word; what silence may cost.

Two routes carry the SMS: `octopush`, then `octopush_b`. What each answers is chosen by its host.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import START, Clock, FakeTransport, Submission, json_response
from rig import Rig, make_settings, problem

from gateway.config import Settings
from gateway.domain import health
from gateway.domain.health import BUCKET, COOL_DOWN, LEAST, RouteState, Standing, Tally
from gateway.ports import Auth, Lost, Request, Response
from gateway.services import health as service
from gateway.services.health import Looking
from gateway.services.standing import Routes
from gateway.store import writes

ACCOUNT = json_response(403, {"error_code": 100, "message": "Permission denied."})
BUSY = json_response(429, {})
A, B = "octopush", "octopush_b"


class Hosts(FakeTransport):
    """Answers by route, which here is the first word of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Response | Exception] = {}

    async def send(self, request: Request, *, within: float, auth: Auth | None = None) -> Response:
        answer = self.answers.get(request.url.host.partition(".")[0])
        if answer is None:
            return await super().send(request, within=within, auth=auth)
        self.submissions.append(Submission(request))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hosts(self) -> list[str]:
        """Which routes were called, in order; forgotten once asked."""
        found = [one.host.partition(".")[0] for one in self.submissions]
        self.submissions.clear()
        return found


class HealthRig(Rig):
    """With looks at the routes, and a fresh number for each send."""

    looking: Looking
    sent = 0

    async def start(self) -> None:
        await super().start()
        self.looking = Looking()

    async def look(self, seconds: float = 1.0) -> None:
        self.clock.advance(seconds)
        await service.run_once(self.runtime, self.looking, self.clock.now())

    async def fresh(self, **more: Any) -> dict[str, Any]:
        self.sent += 1
        return await self.send(f"+336123{self.sent:05}", **{"workflow": "two_routes"} | more)

    async def many(self, count: int, **more: Any) -> list[dict[str, Any]]:
        return [await self.fresh(**more) for _ in range(count)]

    def standing(self, route: str = A) -> tuple[Standing, str] | None:
        """As stored."""
        found = {one.route: one for one in self.reads.route_states()}
        state = found.get(route)
        return (state.standing, state.reason) if state is not None else None

    def counted(self, route: str = A) -> Tally:
        found = self.reads.route_sums(health.bucket(self.clock.now()) - health.WINDOW)
        tally = Tally()
        for named, _, more in found:
            tally = tally.plus(more) if named == route else tally
        return tally

    async def order(self, state: RouteState) -> None:
        """What `gateway routes disable` and `enable` do, beside the process."""
        engine = self.runtime.engine
        await engine.begin()
        await writes.order_routes(engine, [state])
        await engine.commit()


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


@pytest.fixture
async def rig(
    tmp_path: Path, migrated: Path, clock: Clock, hosts: Hosts, request: pytest.FixtureRequest
) -> AsyncIterator[HealthRig]:
    settings: Settings = make_settings(tmp_path)
    async with HealthRig(tmp_path, migrated, clock, hosts, settings) as made:
        yield made


# Counting.


async def test_what_is_heard_of_a_route_is_counted_with_it(rig: HealthRig, hosts: Hosts) -> None:
    sent = await rig.fresh(workflow="sms_only")
    (submission,) = hosts.submissions
    await rig.octopush_receipt(submission, "DELIVERED")
    await rig.octopush_receipt(submission, "DELIVERED")
    await rig.verify(sent["verification_id"], submission.code)

    assert Tally(accepted=1, delivered=1, verified=1, within_2=1) == rig.counted()


async def test_failures_refusals_and_unknown_outcomes_are_counted(
    rig: HealthRig, hosts: Hosts
) -> None:
    await rig.fresh(workflow="sms_only")
    await rig.octopush_receipt(hosts.submissions[-1], "NOT_DELIVERED")
    hosts.answers[A] = Lost("read_timeout")
    await rig.fresh(workflow="sms_only")
    hosts.answers[A] = BUSY
    await rig.fresh(workflow="sms_only")

    assert Tally(accepted=1, failed=1, unknown=1, refused=1) == rig.counted()


async def test_a_message_that_is_never_heard_of_again_counts_as_silent(rig: HealthRig) -> None:
    """Once: where it falls back, or at the end."""
    await rig.fresh(workflow="sms")
    await rig.fresh(workflow="sms_only")
    await rig.reconcile(61)
    silent = rig.counted().silent
    await rig.reconcile(300)

    assert (1, 2) == (silent, rig.counted().silent)


async def test_a_route_that_reports_nothing_is_never_silent(rig: HealthRig) -> None:
    await rig.fresh(workflow="low_cost")
    await rig.reconcile(61)

    assert Tally(accepted=1) == rig.counted("octopush_low")


async def test_a_batch_writes_one_row_a_route_and_country(
    rig: HealthRig, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    real = writes.count

    async def watched(engine: Any, values: Any) -> None:
        rows.append(len(values))
        await real(engine, values)

    await asyncio.gather(*(rig.fresh(workflow="sms_only") for _ in range(20)))
    answers = list(hosts.submissions)
    monkeypatch.setattr(writes, "count", watched)
    await rig.together(*(rig.octopush_receipt(one, "DELIVERED") for one in answers))

    assert [1] == rows
    assert 20 == rig.counted().delivered


async def test_countries_are_counted_apart(rig: HealthRig) -> None:
    await rig.send("+33612345678", workflow="sms_only")
    await rig.send("+4915112345678", workflow="sms_only")
    rows = [(row[1], row[2]) for row in rig.dump()["route_stat"]]

    assert [(A, "DE"), (A, "FR")] == sorted(rows)


# Pausing.


async def test_credentials_pause_a_route_at_the_third_refusal(rig: HealthRig, hosts: Hosts) -> None:
    """In the commit that hears of it, without waiting for a look."""
    hosts.answers[A] = ACCOUNT
    await rig.many(4)

    assert [A, B, A, B, A, B, B] == hosts.hosts()
    assert (Standing.PAUSED, "account") == rig.standing()


async def test_an_accepted_call_ends_a_run_of_account_refusals(
    rig: HealthRig, hosts: Hosts
) -> None:
    for _ in range(3):
        hosts.answers[A] = ACCOUNT
        await rig.many(2)
        del hosts.answers[A]
        await rig.fresh()

    assert rig.standing() is None


@pytest.mark.parametrize(
    ("answer", "reason"), [(BUSY, "refused"), (Lost("read_timeout"), "unknown")]
)
async def test_repeated_refusals_and_unknown_outcomes_pause_a_route(
    rig: HealthRig, hosts: Hosts, answer: Response | Exception, reason: str
) -> None:
    hosts.answers[A] = answer
    await rig.many(LEAST - 1)
    await rig.look()
    before = rig.standing()
    await rig.fresh()
    await rig.look()
    hosts.hosts()
    await rig.many(2)

    assert before is None
    assert (Standing.PAUSED, reason) == rig.standing()
    assert [B, B] == hosts.hosts()


async def test_a_paused_route_is_not_in_new_plans(rig: HealthRig, hosts: Hosts) -> None:
    hosts.answers[A] = ACCOUNT
    await rig.many(3)
    sent = await rig.fresh()
    plan = rig.record(sent["verification_id"]).plan

    assert [[B], ["octopush_voice"]] == [[r.name for r in step.routes] for step in plan.steps]


async def test_a_retry_within_a_step_passes_over_what_was_paused_meanwhile(
    rig: HealthRig, hosts: Hosts
) -> None:
    """The plan was made before: B is in it, refuses all, and A is tried again instead of B."""
    hosts.answers[A] = hosts.answers[B] = BUSY
    sent = await rig.fresh()
    await rig.order(health.disabled(B, "fraud", "ops", rig.clock.now()))
    await rig.look(0)
    hosts.hosts()
    await rig.reconcile(1.5)

    assert [A] == hosts.hosts()
    assert ["sms:FAILED"] * 3 == rig.states(sent["verification_id"])


async def test_when_all_are_bad_alike_the_configured_order_holds(
    rig: HealthRig, hosts: Hosts
) -> None:
    """F30."""
    hosts.answers[A] = hosts.answers[B] = ACCOUNT
    await rig.many(3)
    paused = rig.standing(A), rig.standing(B)
    hosts.answers.clear()
    hosts.hosts()
    await rig.fresh()

    assert ((Standing.PAUSED, "account"),) * 2 == paused
    assert [A] == hosts.hosts()
    assert (Standing.READY, "account") == rig.standing(A)


async def test_what_numbers_are_pauses_nothing(rig: HealthRig, hosts: Hosts) -> None:
    hosts.answers[A] = json_response(400, {"error_code": 102, "message": "Bad number."})
    await rig.many(2 * LEAST)
    await rig.look()

    assert rig.standing() is None


# Half open.


async def paused_by_account(rig: HealthRig, hosts: Hosts) -> None:
    hosts.answers[A] = ACCOUNT
    await rig.many(3)
    hosts.hosts()


async def test_after_its_cool_down_one_message_is_let_through(rig: HealthRig, hosts: Hosts) -> None:
    await paused_by_account(rig, hosts)
    await rig.look(COOL_DOWN.total_seconds())
    await rig.many(3)

    assert [A, B, B, B] == hosts.hosts()
    assert (Standing.PAUSED, "account") == rig.standing()


async def test_one_batch_lets_one_message_through(rig: HealthRig, hosts: Hosts) -> None:
    """Without the right taken at once (`Routes.probe` puts what it took) all three go to A."""
    await paused_by_account(rig, hosts)
    await rig.look(COOL_DOWN.total_seconds())
    calls = [
        rig.call("/otp/send", {"to": f"+3361299999{at}", "workflow": "two_routes"})
        for at in range(3)
    ]
    await rig.together(*calls)
    await rig.settle()

    assert 1 == hosts.hosts().count(A)


async def test_two_processes_let_one_message_through(rig: HealthRig, hosts: Hosts) -> None:
    """The statement asks whether somebody else just did: without `probe_at` in its condition both
    would."""
    await paused_by_account(rig, hosts)
    twin = await rig.beside()
    try:
        rig.clock.advance(COOL_DOWN.total_seconds())
        for one in (rig, twin):
            one.runtime.standing.learn(rig.reads.route_states(), rig.clock.now())
        await rig.send("+33612999991", workflow="two_routes")
        await twin.send("+33612999992", workflow="two_routes")
    finally:
        await twin.stop()

    assert 1 == hosts.hosts().count(A)


async def test_a_probe_that_is_taken_resumes_the_route(rig: HealthRig, hosts: Hosts) -> None:
    await paused_by_account(rig, hosts)
    hosts.answers.clear()
    await rig.look(COOL_DOWN.total_seconds())
    await rig.many(3)

    assert [A, A, A] == hosts.hosts()
    assert (Standing.READY, "account") == rig.standing()


async def test_what_was_counted_before_is_not_held_against_a_resumed_route(
    rig: HealthRig, hosts: Hosts
) -> None:
    hosts.answers[A] = BUSY
    await rig.many(2 * LEAST)
    await rig.look()
    hosts.answers.clear()
    await rig.look(COOL_DOWN.total_seconds())
    await rig.fresh()
    await rig.look()

    assert (Standing.READY, "refused") == rig.standing()


async def test_the_state_outlives_the_process(rig: HealthRig, hosts: Hosts) -> None:
    await paused_by_account(rig, hosts)
    await rig.restart()
    await rig.fresh()

    assert [B] == hosts.hosts()


# An operator.


async def test_an_operators_word_is_noticed_and_sticks(rig: HealthRig, hosts: Hosts) -> None:
    await rig.order(health.disabled(A, "fraud", "ops", rig.clock.now()))
    await rig.look()
    await rig.fresh()
    hosts.answers[B] = BUSY
    await rig.many(LEAST)
    await rig.look(10_000)
    await rig.fresh()

    assert {B, "octopush"} >= set(hosts.hosts())
    assert (Standing.DISABLED, "fraud") == rig.standing()


async def test_a_disabled_route_is_never_called(rig: HealthRig, hosts: Hosts) -> None:
    """The voice is on another route of the same host, so it is looked for by its path."""
    await rig.order(health.disabled(A, "fraud", "ops", rig.clock.now()))
    await rig.look()
    await rig.fresh(workflow="sms")

    assert ["/v1/public/voice-campaign/send"] == [one.path for one in hosts.submissions]


async def test_without_any_route_a_send_is_refused(rig: HealthRig) -> None:
    await rig.order(health.disabled(A, "fraud", "ops", rig.clock.now()))
    await rig.look()
    answer = await rig.call("/otp/send", {"to": "+33612345678", "workflow": "sms_only"})

    problem(answer, 503, "no_route")
    assert "60" == answer.headers["retry-after"]


async def test_an_enabled_route_carries_again(rig: HealthRig, hosts: Hosts) -> None:
    await paused_by_account(rig, hosts)
    hosts.answers.clear()
    await rig.order(health.enabled(A, "credit bought", "ops", rig.clock.now()))
    await rig.look()
    await rig.fresh()

    assert [A] == hosts.hosts()


# Silence.


@pytest.fixture
def few(tmp_path: Path) -> Settings:
    from dataclasses import replace as changed

    return changed(make_settings(tmp_path), silent_fallbacks=3)


async def test_where_silence_is_the_rule_fallbacks_are_rationed(
    tmp_path: Path, migrated: Path, clock: Clock, hosts: Hosts, few: Settings
) -> None:
    """An alarm, and so many calls a minute: mostly it is our own URL that is at fault."""
    notes: list[Any] = []
    rig = HealthRig(tmp_path, migrated, clock, hosts, few, after=notes.append)
    async with rig:
        await rig.many(LEAST, workflow="sms")
        await rig.reconcile(61)
        await rig.look()
        alarm = [note for note in notes if getattr(note, "event", "") == "route_silent"]
        await rig.many(8, workflow="sms")
        hosts.hosts()
        await rig.reconcile(61)
        first = len(hosts.hosts())
        await rig.reconcile(11)
        waiting = len(hosts.hosts())
        await rig.reconcile(61)
        later = len(hosts.hosts())

    assert ["error"] == [note.level for note in alarm]
    assert (3, 0, 3) == (first, waiting, later)


async def test_a_receipt_ends_the_silence(rig: HealthRig, hosts: Hosts) -> None:
    await rig.many(LEAST, workflow="sms")
    first = hosts.submissions[0]
    await rig.reconcile(61)
    await rig.look()
    before = rig.standing()
    await rig.octopush_receipt(first, "DELIVERED")

    assert (Standing.PAUSED, "silence") == before
    assert (Standing.READY, "silence") == rig.standing()


async def test_old_counts_are_forgotten(rig: HealthRig) -> None:
    await rig.fresh()
    await rig.look(1)
    kept = len(rig.dump()["route_stat"])
    await rig.look(service.KEPT.total_seconds() + 600)

    assert (1, []) == (kept, rig.dump()["route_stat"])


def test_counting_begins_with_the_five_minutes_or_with_the_state_of_a_route() -> None:
    routes, began, paused_at = Routes(), START + BUCKET, START + BUCKET + timedelta(seconds=70)
    routes.put(health.enabled(A, "well again", "ada", paused_at), paused_at)

    moments = [began, paused_at, began + BUCKET, began + timedelta(seconds=1)]

    assert [began, began, began + BUCKET, began] == [routes.bucket(at) for at in moments]
    later = paused_at + timedelta(seconds=1)
    assert (paused_at, began) == (routes.counted_from(A, later), routes.counted_from(B, later))
    assert began == routes.counted_from(A, paused_at - timedelta(seconds=1))
