"""Hand claimed attempts to their providers and bring the outcomes back.

It starts where a commit ends and never holds a transaction. Slots (calls under way, calls per
second) are counted here per route, and given to the ledger as a value before each batch.

Over 500 lines: what follows a commit, the call and what its outcome means are one story.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from gateway.domain import recipient
from gateway.domain.catalogue import Catalogue
from gateway.domain.delivery import (
    AT_CLAIMED,
    AT_COST,
    AT_ERROR,
    AT_ID,
    AT_OUTCOME,
    AT_REFERENCE,
    AT_RETRY,
    AT_ROUTE,
    AT_SENT,
    AT_TRIES,
    Attempt,
    Outcome,
    State,
)
from gateway.domain.errors import Unavailable
from gateway.domain.health import Heard
from gateway.domain.keyring import Keyring, KeyringError
from gateway.domain.parts import Part
from gateway.domain.values import Draft, value
from gateway.domain.workflow import MAX_TRIES, retry_delay
from gateway.ports import (
    NO_TRACER,
    Accepted,
    Correlation,
    Lost,
    NotSent,
    RefusalKind,
    Refused,
    Span,
    Tracer,
    Unknown,
)
from gateway.services import compose, receive, tracing
from gateway.services.case import (
    Case,
    Context,
    Crowded,
    Ended,
    Handover,
    Inquiry,
    Note,
    Recall,
    address_for,
    code_of,
)
from gateway.services.left import Left
from gateway.services.metering import UNMETERED, Meter
from gateway.services.receive import Receive
from gateway.services.reconcile import Wake
from gateway.services.runtime import Route
from gateway.store.ledger import Ledger, Operation, Transaction, Wants
from gateway.store.records import Source

_OFFER_AGAIN = 0.5  # seconds between two offers of an outcome that could not be stored
_RECALL_WITHIN = 3.0  # seconds for taking a message back; nobody waits for it
_CROWD = 10_000  # verifications per route known to wait for a slot; the rest is found by time

_BY_REFERENCE = Correlation.REFERENCE  # slow to read from an enumeration before Python 3.12
# Members that every outcome names: from their classes they would cost five times that.
_ACCEPTED, _SENT, _SUBMISSION = Outcome.ACCEPTED, State.SENT, Source.SUBMISSION
_HEARD_ACCEPTED = Heard.ACCEPTED

_KINDS = {
    RefusalKind.TEMPORARY: Outcome.TEMPORARY,
    RefusalKind.THROTTLED: Outcome.THROTTLED,
    RefusalKind.ACCOUNT: Outcome.ACCOUNT,
    RefusalKind.PERMANENT: Outcome.PERMANENT,
}


@dataclass(frozen=True, slots=True)
class Released:
    """The claim is given back: nothing was sent, and nothing is known against sending it."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The verification ended before a byte was written."""


Result = Accepted | Refused | Unknown | Released | Withdrawn


@value
class Conclude(Operation[None]):
    """What became of submitting an attempt under a claim. Always recorded, however late."""

    attempt_id: UUID
    account: str
    claim: int
    result: Result


LookBack = Callable[[Attempt, str, datetime], Awaitable[None]]  # whose number it is, and now


class Log(Protocol):
    """The part of structlog that is used."""

    def info(self, event: str, **facts: object) -> object: ...
    def warning(self, event: str, **facts: object) -> object: ...
    def error(self, event: str, **facts: object) -> object: ...


@dataclass(slots=True)
class _Lane:
    """The slots of one route: calls under way, and calls begun in the last second.

    A sliding window, since that is what providers count; below one call a second it is longer.
    """

    route: Route
    within: timedelta  # what a call may take in all
    concurrency: int
    rate: float | None
    flying: int = 0
    begun: deque[float] = field(default_factory=deque)
    crowd: deque[UUID] = field(default_factory=lambda: deque(maxlen=_CROWD))

    def free(self, monotonic: float) -> int:
        """How many attempts may start now."""
        free = self.concurrency - self.flying
        if self.rate is None:
            return free
        while self.begun and monotonic - self.begun[0] >= max(1.0, 1.0 / self.rate):
            self.begun.popleft()
        return min(free, max(1, int(self.rate)) - len(self.begun))

    def take(self, monotonic: Callable[[], float]) -> None:
        """One more call begins."""
        self.flying += 1
        if self.rate is not None:
            self.begun.append(monotonic())


def _by_keyword(log: Log, notes: Sequence[Note]) -> None:
    """Lines to any other logger of structlog's kind. Raises the first error, when all are told."""
    failure: Exception | None = None
    for event, facts, level in notes:
        try:
            getattr(log, level)(event, **facts)
        except Exception as error:  # noqa: BLE001  one line's
            failure = failure or error
    if failure is not None:
        raise failure


class Dispatcher:
    """The submissions under way in this process."""

    def __init__(
        self,
        *,
        routes: Mapping[str, Route],
        keyring: Keyring,
        public_url: str,
        catalogue: Catalogue,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        log: Log,
        meter: Meter = UNMETERED,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._tracer = tracer
        self._meter = meter
        self._routes = routes
        self._keyring = keyring
        self._public_url = public_url
        self._catalogue = catalogue
        self._now = now
        self._monotonic = monotonic
        self._log = log
        self._tell = getattr(log, "tell", partial(_by_keyword, log))  # ours: see `gateway.log`
        self._ledger: Ledger | None = None
        self._look_back: LookBack | None = None
        self._lanes = {
            route.name: _Lane(
                route,
                timedelta(seconds=route.provider.timeout),
                route.provider.concurrency,
                route.provider.rate,
            )
            for route in routes.values()
        }
        self._tasks: set[asyncio.Task[None]] = set()
        # Verifications, by the number of their id: a UUID is hashed by Python code.
        self._ended: set[int] = set()
        self._flying: dict[int, int] = {}
        self._closing = False
        self._failures = 0
        self._follows: dict[type, Callable[[Any], None]] = {
            Handover: self._begin,
            Ended: self._end,
            Inquiry: lambda item: self._spawn(self._inquire(item.attempt)),
            Recall: lambda item: self._spawn(self._recall(item.attempt)),
            Crowded: self._lanes_crowd,
        }

    def attach(self, ledger: Ledger, look_back: LookBack) -> None:
        """Where outcomes go: the ledger is made with our slots, so it comes after us. `look_back`:
        who finds the receipts of an attempt that was taken and has no reference."""
        self._ledger = ledger
        self._look_back = look_back

    def slots(self) -> dict[str, int]:
        """Free slots by route, for the next batch."""
        if self._closing:
            return {}
        monotonic = self._monotonic()
        return {name: lane.free(monotonic) for name, lane in self._lanes.items()}

    @property
    def under_way(self) -> int:
        """How many calls are on the wire or on their way back."""
        return len(self._tasks)

    def follow(self, left: Left) -> None:
        """Do what a committed batch left to be done. Called once, right after its commit.

        Item by item: a defect in one (a log that cannot be written) loses no other's handover.
        """
        try:
            self._tell(left.get(Note, ()))
        except Exception as error:  # noqa: BLE001
            self._failed(error)
        for kind, follow in self._follows.items():
            for item in left.get(kind, ()):
                try:
                    follow(item)
                except Exception as error:  # noqa: BLE001
                    self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            self._log.error("follow_failed", problem=type(error).__name__)

    def _begin(self, handover: Handover) -> None:
        lane = self._lanes[handover.attempt.route]
        lane.take(self._monotonic)
        vid = handover.verification.id.int
        self._flying[vid] = self._flying.get(vid, 0) + 1
        self._spawn(self._hand_over(handover, lane, vid))

    def _end(self, ended: Ended) -> None:
        if ended.verification_id.int in self._flying:
            self._ended.add(ended.verification_id.int)

    def _lanes_crowd(self, item: Crowded) -> None:
        lane = self._lanes.get(item.route)
        if lane is not None and item.verification_id not in lane.crowd:
            lane.crowd.append(item.verification_id)

    async def drain(self, seconds: float) -> None:
        """Start nothing more; wait for what is on the wire. The rest is found at the next
        start.
        """
        self._closing = True
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while self._tasks and loop.time() < ends:  # what is followed meanwhile comes on top
            await asyncio.wait(set(self._tasks), timeout=ends - loop.time())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_over(self, handover: Handover, lane: _Lane, vid: int) -> None:
        """One submission: the call, then its outcome. `vid` is the verification's, as in `_flying`.

        It is the path of every message, and so reads a field of a named tuple once, and asks for
        what is rare before it calls it.
        """
        verification, attempt = handover[:2]
        traced = verification.trace is not None
        span = tracing.dispatching(self._tracer, handover) if traced else None
        began = self._monotonic()
        try:
            result = await self._submit(handover, lane, vid, span)
        finally:
            lane.flying -= 1
            left = self._flying.pop(vid) - 1
            if left:
                self._flying[vid] = left
            elif self._ended:
                self._ended.discard(vid)
        seconds = self._monotonic() - began
        if span is not None:
            tracing.dispatched(span, result)
        if lane.crowd:
            self._wake_crowd(lane)
        outcome = Conclude(attempt.id, attempt.account, attempt.tries, result)
        try:
            await self._the_ledger().submit(outcome)
        except Unavailable as error:
            if not await self._offer_again(outcome, error):
                return
        self._meter.called(lane.route.name, result, seconds)
        if isinstance(result, Accepted) and result.reference is None:
            await self._look(handover)

    async def _submit(self, handover: Handover, lane: _Lane, vid: int, span: Span | None) -> Result:
        """One look more, then the wire. An error becomes a result: surely not sent, or unknown."""
        route = lane.route
        provider = route.provider
        now = self._now()
        if self._ended and vid in self._ended:
            return Withdrawn()
        attempt = handover.attempt
        until = attempt.claimed_until
        if self._closing or until is None or now > until - lane.within:
            return Released()
        try:
            url = self._callback_url(attempt, route)
            message = compose.outgoing(self._keyring, self._catalogue, handover, url, now)
            request = provider.build(message)
            if span is not None:
                tracing.told(request, span, allowed=route.traceparent)
        except Exception as error:  # noqa: BLE001  a defect in a provider file: surely not sent
            self._log.error("build_failed", route=route.name, problem=type(error).__name__)
            return Refused("build_failed", RefusalKind.PERMANENT)
        try:
            response = await route.transport.send(
                request, within=provider.timeout, auth=provider.auth()
            )
        except NotSent as error:
            return Refused(error.reason, RefusalKind.TEMPORARY, error=str(error))
        except Lost as error:
            return Unknown(error.reason, str(error))
        except Exception as error:  # noqa: BLE001  nobody can tell how far it came
            self._log.error("transport_failed", route=route.name, problem=type(error).__name__)
            return Unknown("transport_failed", type(error).__name__)
        try:
            return provider.parse(response)
        except Exception as error:  # noqa: BLE001  an answer that nobody understood
            self._log.error("parse_failed", route=route.name, problem=type(error).__name__)
            return Unknown("answer_not_understood", type(error).__name__)

    def _callback_url(self, attempt: Attempt, route: Route) -> str:
        """The attempt's own receipt address, for providers that take one with the message."""
        if route.provider.correlates is _BY_REFERENCE:
            return ""
        token = self._keyring.token(attempt.id)
        return f"{self._public_url}/otp/delivered/{route.name}/{token}"

    async def _inquire(self, attempt: Attempt) -> None:
        """Ask the provider; what it says is a receipt like any other."""
        route = self._routes.get(attempt.route)
        if route is None or route.polls is None:
            return
        try:
            request = route.polls.build_poll(str(attempt.id), attempt.reference)
            if request is None:
                return
            response = await route.transport.send(request, within=3.0, auth=route.provider.auth())
            heard = route.polls.parse_poll(response)
        except (NotSent, Lost) as error:
            self._log.warning("poll_failed", route=route.name, reason=error.reason)
            return
        except Exception as error:  # noqa: BLE001  no answer: the step falls back
            self._log.error("poll_failed", route=route.name, problem=type(error).__name__)
            return
        if heard is not None:
            operation = Receive(route.name, attempt.account, attempt.id, (heard,), Source.POLL)
            with contextlib.suppress(Unavailable):  # the step falls back, as without an answer
                await self._the_ledger().submit(operation)

    async def _recall(self, attempt: Attempt) -> None:
        """Take a message back, once, whatever comes of it: what became of it, a receipt tells."""
        route = self._routes.get(attempt.route)
        if route is None or route.revokes is None:
            return
        facts = {"attempt_id": attempt.id, "route": route.name}
        try:
            request = route.revokes.build_revoke(str(attempt.id), attempt.reference)
            if request is None:
                return
            response = await route.transport.send(
                request, within=_RECALL_WITHIN, auth=route.provider.auth()
            )
        except (NotSent, Lost) as error:
            self._log.warning("recall_failed", reason=error.reason, **facts)
        except Exception as error:  # noqa: BLE001  a defect in a provider file: the message stays
            self._log.error("recall_failed", problem=type(error).__name__, **facts)
        else:
            self._log.info("recall_asked", status=response.status_code, **facts)

    async def _offer_again(self, operation: Conclude, error: Unavailable) -> bool:
        """An outcome is offered until it is stored, or this process has closed."""
        while error.code != "closing":
            self._log.error("outcome_not_stored", attempt_id=str(operation.attempt_id))
            await asyncio.sleep(_OFFER_AGAIN)
            try:
                await self._the_ledger().submit(operation)
            except Unavailable as again:
                error = again
            else:
                return True
        return False  # the claim lapses, and the next process sees an unknown outcome

    def _wake_crowd(self, lane: _Lane) -> None:
        """A slot is free: the one who waits longest gets it."""
        if lane.crowd and not self._closing and lane.free(self._monotonic()) > 0:
            self._spawn(self._wake(lane.crowd.popleft()))

    async def _wake(self, verification_id: UUID) -> None:
        with contextlib.suppress(Unavailable):  # its jittered second brings it back as well
            await self._the_ledger().submit(Wake(named=(verification_id,)))

    async def _look(self, handover: Handover) -> None:
        """Receipts may have come before we knew that the message was taken."""
        attempt = handover.attempt
        if self._look_back is None or not self._routes[attempt.route].by_number:
            return
        with contextlib.suppress(Unavailable, KeyringError):  # they stay parked
            number = address_for(self._keyring, handover.verification, attempt.channel)
            if number is not None:
                await self._look_back(attempt, number, self._now())

    def _the_ledger(self) -> Ledger:
        if self._ledger is None:
            raise RuntimeError("the dispatcher was not attached to a ledger")
        return self._ledger


def wants(operation: Conclude) -> Wants:
    """The attempt, and whatever carries or is parked under the reference it brought."""
    result = operation.result
    if isinstance(result, Accepted) and result.reference:
        references: tuple[tuple[str, str], ...] = ((operation.account, result.reference),)
        if result.parts:
            references += tuple((operation.account, one) for one in result.parts)
        return Wants((), (operation.attempt_id,), references)
    return Wants((), (operation.attempt_id,))


def apply(tx: Transaction, context: Context, operation: Conclude, now: datetime) -> None:
    """Record the outcome, link receipts that came before it, decide what follows."""
    case = Case.open(tx, context, tx.owner(operation.attempt_id), now)
    if case is None:
        return
    attempt, result = case.attempt(operation.attempt_id), operation.result
    latest = attempt.tries == operation.claim
    held = latest and attempt.claimed_until is not None
    if isinstance(result, Accepted):
        _accepted(case, attempt, result, held=held)
    else:
        if held:
            attempt = attempt._replace(claimed_until=None)
            case.change(attempt)
        if isinstance(result, Unknown):
            _unknown(case, attempt, result)
        elif isinstance(result, Refused):
            _refused(case, attempt, result, latest=latest)
        elif isinstance(result, Withdrawn):
            withdrawn = Refused("withdrawn", RefusalKind.PERMANENT)
            _refused(case, attempt, withdrawn, latest=held, outcome=Outcome.WITHDRAWN)
    case.decide()
    case.close()


def _accepted(case: Case, attempt: Attempt, accepted: Accepted, *, held: bool) -> None:
    """The provider has it; whoever `held` the claim gives it back in the same step."""
    draft: Draft = list(attempt)
    reference = accepted.reference or None
    if reference is not None:
        taken = case.tx.referenced(attempt.account, reference)
        if draft[AT_REFERENCE] is None and (taken is None or taken == draft[AT_ID]):
            draft[AT_REFERENCE] = reference
        else:
            facts = {"attempt_id": attempt.id, "route": attempt.route}
            case.after.append(Note("reference_taken", facts, level="warning"))
            reference = None
    case.count(draft[AT_ROUTE], _HEARD_ACCEPTED)
    if draft[AT_SENT] is None:
        draft[AT_SENT] = case.now
    if accepted.cost:
        draft[AT_COST] = accepted.cost
    if held:
        draft[AT_CLAIMED] = None
    draft[AT_OUTCOME] = _ACCEPTED
    draft[AT_RETRY] = None
    attempt = case.hear(_SENT, _SUBMISSION, draft)
    if reference is not None:
        if case.tx.keeps():
            receive.unpark(case, attempt, reference)
        for number, part in enumerate(accepted.parts, start=1):
            receive.expect_part(case, attempt, part, Part(number, len(accepted.parts)))


def _unknown(case: Case, attempt: Attempt, unknown: Unknown) -> None:
    pause = float(2 ** max(0, attempt.tries - 1))
    case.count(attempt.route, Heard.UNKNOWN)
    draft: Draft = list(attempt)
    draft[AT_OUTCOME] = attempt.outcome or Outcome.UNKNOWN
    draft[AT_ERROR] = _told(case, unknown.error)
    draft[AT_SENT] = attempt.sent_at or case.now
    draft[AT_RETRY] = case.now + timedelta(seconds=pause)
    case.hear(State.SENT, Source.SUBMISSION, draft, word=unknown.reason, reason=unknown.reason)


def _refused(
    case: Case,
    attempt: Attempt,
    refused: Refused,
    *,
    latest: bool,
    outcome: Outcome | None = None,
) -> None:
    """Surely not sent, as far as this submission goes; an earlier one may have been."""
    kind = outcome or _KINDS[refused.kind]
    if kind is Outcome.PERMANENT:  # what the number or message is: nothing against the route
        case.count(attempt.route, Heard.FAILED)
    elif kind is not Outcome.WITHDRAWN:
        case.count(attempt.route, Heard.REFUSED, account=kind is Outcome.ACCOUNT)
    pause = refused.retry_after or retry_delay(case.attempts, attempt)
    draft: Draft = list(attempt)
    draft[AT_ERROR] = _told(case, refused.error)
    draft[AT_RETRY] = case.now + timedelta(seconds=pause)
    resubmitted = attempt.outcome is Outcome.UNKNOWN and attempt.tries > 1
    if resubmitted or attempt.words or not latest:
        # An earlier submission may have arrived, or a receipt says that this one did.
        final = latest and kind in {Outcome.PERMANENT, Outcome.ACCOUNT}
        tries = MAX_TRIES if final else attempt.tries
        draft[AT_OUTCOME] = attempt.outcome or Outcome.UNKNOWN
        draft[AT_TRIES] = max(tries, attempt.tries)
        heard = case.hear(
            State.SENT, Source.SUBMISSION, draft, word=refused.reason, reason=refused.reason
        )
        case.avoid(heard, refused.avoid, refused.reason)
        return
    draft[AT_OUTCOME] = kind
    heard = case.hear(
        State.FAILED, Source.SUBMISSION, draft, word=refused.reason, reason=refused.reason
    )
    case.avoid(heard, refused.avoid, refused.reason)


def _told(case: Case, error: str | None) -> str | None:
    """A vendor's error as it is stored."""
    if not error:
        return None
    try:
        code = code_of(case.context.keyring, case.verification)
    except KeyringError:  # its key is gone, so that no vendor can have been told the code
        code = ""
    return recipient.redact_error(error, code)[:255]
