"""The gateway against a model: any sequence of what callers, providers, time and power cuts do.

The machine knows nothing of how the gateway decides. It remembers what it did to it, and after each
step holds what is stored and what reached the providers against the rules of the design. Each
provider call is answered by the machine's own rule at the moment it is made, or left hanging; what
hangs is answered later, or never: a restart takes it away.
"""

import asyncio
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
import postgres
import uvloop
from fakes import Clock, Submission, json_response
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rig import CALLBACK_KEY, Rig

from gateway.domain.delivery import Outcome, State
from gateway.domain.verification import MAX_CHECKS, MIN_LIFE
from gateway.domain.workflow import MAX_ATTEMPTS, MAX_TRIES
from gateway.ports import Lost, NotSent, Response
from gateway.services import reconcile
from gateway.store.reads import Record

T = TypeVar("T")

NUMBERS = ("+33611111111", "+33622222222")
WORKFLOWS = ("default", "sms", "two_routes", "messenger_only", "low_cost")
ANSWERS = ("accepted", "accepted", "unknown", "500", "temporary", "throttled", "permanent", "hangs")
OCTOPUSH = ("ACK", "DELIVERED", "NOT_DELIVERED", "READ", "TELEPORTED", "PROCESSED")
MESSENGER = ("sent", "delivered", "read", "failed", "whispered")
SECONDS = (0.1, 1, 2, 5, 15, 30, 31, 60, 61, 120, 300)

spot = st.integers(0, 1 << 16)  # which one, of however many there are


def digits(one: Submission) -> str:
    """The code of a message; a call says it digit by digit."""
    spelled = re.search(r"\d(?:, \d){3,9}", one.text)
    return spelled.group().replace(", ", "") if spelled is not None else one.code


class Machine(RuleBasedStateMachine):
    """What the outside world does, and what must hold whatever it does."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.folder = tempfile.TemporaryDirectory()
        if Rig.server is not None:
            postgres.emptied(Rig.server.url)
        self.rig = Rig(Path(self.folder.name), self.template, Clock())
        self.do(self.rig.start())
        self.key = self.rig.key
        self.rig.transport.script("/", *[self.answer] * 500)
        self.answers: list[str] = []  # what the next calls are answered; then they are accepted
        self.hanging: list[tuple[Submission, asyncio.Future[Response]]] = []
        self.tickets: dict[str, str] = {}  # by attempt: the reference its provider gave
        self.named: dict[str, str] = {}  # verification by id: its number
        self.ended: dict[str, int] = {}  # by verification: submissions when it was seen to be over
        self.states: dict[str, State] = {}  # by attempt: the best state ever seen
        self.posted: Counter[str] = Counter()  # receipts that were answered 2xx, by attempt
        self.verified: Counter[str] = Counter()
        self.checked: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()  # resends and nexts that were answered 202
        self.heard: set[str] = set()  # attempts a receipt told of while their call was under way
        self.arrived: dict[
            str, tuple[int, int]
        ] = {}  # asked and attempts when a step was satisfied

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it, and let what it led to come to rest."""

        async def rested() -> T:
            result = await work
            await self.rest()
            return result

        return self.runner.run(rested())

    async def rest(self) -> None:
        """Until all that is under way hangs at a provider."""
        gateway = self.rig.gateway
        quiet = 0
        async with asyncio.timeout(10):
            while quiet < 5:
                hanging = sum(not answered.done() for _, answered in self.hanging_now())
                still = gateway.dispatcher.under_way > hanging or gateway.ledger.depth
                quiet = 0 if still else quiet + 1
                await asyncio.sleep(0)

    def hanging_now(self) -> list[tuple[Submission, asyncio.Future[Response]]]:
        return getattr(self, "hanging", [])

    # The provider.

    async def answer(self, submission: Submission) -> Response:
        how = self.answers.pop(0) if self.answers else "accepted"
        if how == "hangs":
            hung: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            self.hanging.append((submission, hung))
            return await hung
        return self.answered(submission, how)

    def answered(self, submission: Submission, how: str) -> Response:
        match how:
            case "accepted":
                response = self.rig.transport.accept(submission)
                if "campaign" in submission.path:
                    ticket = response.json()["sms_ticket"]
                    self.tickets.setdefault(submission.attempt_id, ticket)
                return response
            case "unknown":
                raise Lost("read_timeout")
            case "temporary":
                raise NotSent("connect_error")
            case "throttled":
                return json_response(429, {}, {"retry-after": "7"})
            case "permanent":
                return json_response(400, {"code": 110, "error": "not_a_user"})
            case _:
                return json_response(500, {})

    @rule(answers=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=4))
    def providers_will_answer(self, answers: list[str]) -> None:
        self.answers = answers

    @precondition(lambda self: self.hanging_now())
    @rule(which=spot, how=st.sampled_from(ANSWERS[:-1]))
    def a_hanging_call_is_answered(self, which: int, how: str) -> None:
        submission, hung = self.hanging.pop(which % len(self.hanging))

        async def come_back() -> None:
            try:
                hung.set_result(self.answered(submission, how))
            except (Lost, NotSent) as error:
                hung.set_exception(error)

        self.do(come_back())

    # The caller.

    @initialize(to=st.sampled_from(NUMBERS), workflow=st.sampled_from(WORKFLOWS))
    def first(self, to: str, workflow: str) -> None:
        self.sends(to, workflow)

    @rule(to=st.sampled_from(NUMBERS), workflow=st.sampled_from(WORKFLOWS))
    def sends(self, to: str, workflow: str) -> None:
        body = {"to": to, "workflow": workflow, "ttl": 600}
        answer = self.do(self.rig.call("/otp/send", body, key=self.key))
        differs = answer.json().get("code") == "workflow_differs"  # another one is running
        assert answer.status_code in {202, 429} or differs, answer.text
        if answer.status_code == 202:
            named = answer.json()["verification_id"]
            assert answer.json()["joined"] == (named in self.named)
            self.asked[named] += named in self.named
            self.named[named] = to

    @rule(which=spot)
    def asks_for_the_next_step(self, which: int) -> None:
        named = self.one(which)
        answer = self.do(self.rig.call("/otp/next", {"verification_id": named}, key=self.key))
        assert answer.status_code in {202, 409, 410, 429}, answer.text
        self.asked[named] += answer.status_code == 202

    @rule(which=spot)
    def cancels(self, which: int) -> None:
        named = self.one(which)
        answer = self.do(self.rig.call("/otp/cancel", {"verification_id": named}, key=self.key))
        assert answer.status_code in {200, 409, 410, 429}, answer.text

    @rule(which=spot, message=spot, right=st.booleans())
    def types_a_code(self, which: int, message: int, right: bool) -> None:
        named = self.one(which)
        record = self.rig.record(named)
        status = record.verification.status_at(self.rig.clock.now())
        mine = self.submissions(record)
        if not mine:
            return
        code = digits(mine[message % len(mine)])
        if not right:
            code = str((int(code[0]) + 1) % 10) + code[1:]
        body = {"verification_id": named, "code": code}
        answer = self.do(self.rig.call("/otp/verify", body, key=self.key))
        if answer.status_code in {200, 404}:
            self.checked[named] += 1
        if answer.status_code == 200:
            self.verified[named] += 1
        budget = answer.json().get("code") == "failure_budget_used_up"
        if status == "PENDING" and not budget:  # F12: every code that left us verifies
            assert answer.status_code == (200 if right else 404), answer.text

    # Receipts.

    @precondition(lambda self: self.rig.transport.submissions)
    @rule(which=spot, word=spot, times=st.sampled_from([1, 1, 1, 2, 5]), forged=st.booleans())
    def a_receipt_comes(self, which: int, word: int, times: int, forged: bool) -> None:
        """Any attempt, any word, late, early, stale or again; or by somebody else."""
        submission = self.pick(self.rig.transport.submissions, which)
        if "campaign" in submission.path:
            post = self.octopush(submission, self.pick(OCTOPUSH, word), forged=forged)
        else:
            post = self.messenger(submission, self.pick(MESSENGER, word), forged=forged)
        if post is None:
            return
        for _ in range(times):
            answer = self.do(post())
            assert answer.status_code == (401 if forged else 200)
            self.posted[submission.attempt_id] += not forged
        if not forged and any(submission is hung for hung, _ in self.hanging):
            self.heard.add(submission.attempt_id)

    def octopush(
        self, submission: Submission, word: str, *, forged: bool
    ) -> Callable[[], Coroutine[Any, Any, httpx.Response]] | None:
        ticket = self.tickets.get(submission.attempt_id)
        if ticket is None:  # no receipt can name it
            return None
        account = submission.host.partition(".")[0]
        key = "forged" if forged else CALLBACK_KEY
        return lambda: self.rig.octopush_receipt(
            submission, word, route=account, key=key, message_id=ticket
        )

    def messenger(
        self, submission: Submission, word: str, *, forged: bool
    ) -> Callable[[], Coroutine[Any, Any, httpx.Response]]:
        more = {"secret": "forged"} if forged else {}
        return lambda: self.rig.messenger_receipt(submission, word, **more)

    # Time and power.

    @rule(seconds=st.sampled_from(SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)

    @rule(seconds=st.sampled_from(SECONDS), passes=st.integers(1, 3))
    def the_worker_passes(self, seconds: float, passes: int) -> None:
        for _ in range(passes):
            now = self.rig.clock.advance(seconds / passes)
            self.do(reconcile.run_once(self.rig.runtime, self.rig.passing, now))

    @rule(clean=st.booleans())
    def the_process_ends_and_another_begins(self, clean: bool) -> None:
        """Cleanly, its calls answered, or not at all."""
        if clean:
            while self.hanging:
                self.a_hanging_call_is_answered(which=0, how="accepted")
            self.do(self.rig.stop())
        else:
            self.hanging.clear()
            self.runner.run(self.rig.crash())
        self.do(self.rig.revive())

    # What must hold.

    @invariant()
    def nothing_is_submitted_twice_but_under_an_idempotency_key(self) -> None:
        for attempt_id, count in self.calls().items():
            most = 1 if attempt_id in self.of_messenger() else MAX_TRIES
            assert count <= most, (attempt_id, count)

    @invariant()
    def every_submission_is_of_an_attempt_that_was_stored_first(self) -> None:
        stored = {str(attempt.id) for record in self.records() for attempt in record.attempts}
        assert set(self.calls()) <= stored

    @invariant()
    def nothing_is_submitted_after_the_end_nor_too_late(self) -> None:
        for record in self.records():
            named = str(record.verification.id)
            count = len(self.submissions(record))
            late = record.verification.expires_at - self.rig.clock.now()
            over = record.verification.status != "PENDING" or late.total_seconds() < MIN_LIFE
            if over:
                assert count == self.ended.setdefault(named, count)

    @invariant()
    def steps_are_in_order_and_sent_no_oftener_than_the_rules_allow(self) -> None:
        for record in self.records():
            attempts = record.attempts
            steps = [attempt.step for attempt in attempts]
            assert list(range(1, len(attempts) + 1)) == [one.ordinal for one in attempts]
            assert sorted(steps) == steps
            assert set(steps) == set(range(max(steps) + 1))
            assert len(attempts) <= MAX_ATTEMPTS
            assert record.verification.step == max(steps)
            for (step, _), count in Counter((a.step, a.resend) for a in attempts).items():
                opening = [a for a in attempts if a.step == step and not a.refused]
                again = {a.resend for a in opening}
                last = step == len(record.plan.steps) - 1
                # one message for each opening; in the last step one more when the first is unknown
                assert len(opening) <= len(again) * (2 if last else 1), record
                assert count <= MAX_ATTEMPTS

    @invariant()
    def nobody_gets_more_messages_than_steps_and_what_was_asked_for(self) -> None:
        for record in self.records():
            named = str(record.verification.id)
            sent = [attempt for attempt in record.attempts if not attempt.refused]
            wanted = len(record.plan.steps) + self.asked[named]
            # A claim that lapsed was unknown when it was decided on, whatever came later.
            lapsed = {row.attempt for row in record.log if row.source == "engine"}
            lost = sum(one.outcome == "unknown" or one.ordinal in lapsed for one in sent)
            assert len(sent) <= wanted + min(lost, 1 + self.asked[named])

    @invariant()
    def what_has_arrived_is_not_followed_by_more(self) -> None:
        """Save by what the person or the client asks for."""
        for record in self.records():
            named = str(record.verification.id)
            last = record.attempts[-1]
            wanted = {"delivered": State.DELIVERED, "read": State.READ}
            if any(
                attempt.state.reaches(wanted[record.plan.steps[attempt.step].until])
                for attempt in record.attempts
            ):
                now = (self.asked[named], len(record.attempts))
                before = self.arrived.get(named)
                if before is not None and before[0] == now[0]:
                    assert before == now
                elif not last.waiting and not last.refused:
                    self.arrived[named] = now

    @invariant()
    def nothing_is_taken_for_refused_that_somebody_has_heard_of(self) -> None:
        for record in self.records():
            for attempt in record.attempts:
                if str(attempt.id) in self.heard:
                    assert attempt.outcome in {None, Outcome.ACCEPTED, Outcome.UNKNOWN}

    @invariant()
    def checks_are_counted_and_never_exceed_their_budget(self) -> None:
        for record in self.records():
            named = str(record.verification.id)
            assert record.verification.checks_used == self.checked[named] <= MAX_CHECKS
            assert self.verified[named] <= 1
            assert (record.verification.status == "VERIFIED") == (self.verified[named] == 1)

    @invariant()
    def whoever_is_pending_will_be_looked_at_again_and_nobody_else(self) -> None:
        for record in self.records():
            current = record.verification
            assert (current.wake_at is not None) == (current.status == "PENDING")
            if current.wake_at is not None:
                assert current.wake_at <= current.expires_at

    @invariant()
    def states_never_fall(self) -> None:
        for record in self.records():
            for attempt in record.attempts:
                before = self.states.get(str(attempt.id), State.QUEUED)
                assert attempt.state.rank >= before.rank
                self.states[str(attempt.id)] = attempt.state

    @invariant()
    def the_log_tells_of_every_move(self) -> None:
        for record in self.records():
            assert list(range(len(record.log))) == [row.number for row in record.log]
            assert record.verification.log == len(record.log)
            for attempt in record.attempts:
                moves = [row for row in record.log if row.attempt == attempt.ordinal]
                state: Any = State.QUEUED
                for row in moves:
                    assert row.before == state
                    assert row.applied == (row.after != row.before)
                    state = row.after
                assert state == attempt.state

    @invariant()
    def every_receipt_that_was_answered_2xx_is_to_be_seen(self) -> None:
        """As a transition, as a repeat, or kept aside."""
        kept = len(self.rig.reads.kept(10_000))
        seen = 0
        for record in self.records():
            seen += sum(row.source == "receipt" for row in record.log)
            seen += sum(attempt.repeats for attempt in record.attempts)
        assert self.posted.total() <= seen + kept

    # Small parts.

    def records(self) -> list[Record]:
        found: list[Record] = self.rig.reads.records(self.rig.reads.latest(1000))
        return found

    def submissions(self, record: Record) -> list[Submission]:
        mine = {str(attempt.id) for attempt in record.attempts}
        return [one for one in self.rig.transport.submissions if one.attempt_id in mine]

    def calls(self) -> Counter[str]:
        return Counter(one.attempt_id for one in self.rig.transport.submissions)

    def of_messenger(self) -> set[str]:
        return {one.attempt_id for one in self.rig.transport.to("messages")}

    def one(self, which: int) -> str:
        return str(self.pick(list(self.named), which))

    @staticmethod
    def pick(among: Any, which: int) -> Any:
        return among[which % len(among)]

    def teardown(self) -> None:
        for record in self.records():
            note(f"{record.verification.status}: {[str(a.state) for a in record.attempts]}")
        self.hanging.clear()
        self.runner.run(self.rig.crash())
        self.runner.close()
        self.folder.cleanup()


def test_whatever_happens_the_rules_hold(migrated: Path) -> None:
    """(Not yet seen to fail. Two guards removed, `satisfied` and the look at `words`, were not
    noticed; the invariants added since have not been run without those guards.)"""
    machine = type("Model", (Machine,), {"template": migrated})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20 if Rig.server is None else 4,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
