"""What this process knows of how its routes stand: asked by every decision, so it costs a truth
test while all is well. `services.health` keeps it up to date from the database.
"""

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from gateway.domain import health
from gateway.domain.health import OPEN, Heard, Reason, RouteState, Shut
from gateway.store.records import Probe

SILENT_FALLBACKS = 30  # a minute, automatic ones after silence where silence is the rule
_MINUTE = timedelta(minutes=1)


class Routes:
    """The states of routes, and what follows from them now.

    `shut`: what decisions do without. `silent`: routes of which nothing is heard any more. Where
    there are neither `states` nor `runs`, mostly, only an account's refusal can change anything.
    """

    def __init__(self, fallbacks: int = SILENT_FALLBACKS) -> None:
        self.states: dict[str, RouteState] = {}
        self.shut: Shut = OPEN
        self.silent: frozenset[str] = frozenset()
        self._fallbacks = fallbacks
        self._lately: deque[datetime] = deque()
        self.runs: dict[str, int] = {}  # account refusals in a row, by route
        self._bucket = self._bucket_ends = datetime.min.replace(tzinfo=UTC)
        self._seen = self._bucket  # the moment that was asked for last

    def learn(self, states: Iterable[RouteState], now: datetime) -> None:
        """All that is stored of them."""
        self.states = {state.route: state for state in states}
        self._conclude(now)

    def put(self, state: RouteState, now: datetime) -> None:
        """One of them, as it is from now on."""
        self.states[state.route] = state
        self._conclude(now)

    def _conclude(self, now: datetime) -> None:
        known = self.states.values()
        self.shut = health.shut(known, now)
        self.silent = health.silent(known)

    def bucket(self, now: datetime) -> datetime:
        """Where the counting that `now` belongs to begins."""
        if now is not self._seen:  # a batch has one moment in common
            if not self._bucket <= now < self._bucket_ends:
                self._bucket = health.bucket(now)
                self._bucket_ends = self._bucket + health.BUCKET
            self._seen = now
        return self._bucket

    def counted_from(self, route: str, now: datetime) -> datetime:
        """As `bucket`, of one route: what it did before it was paused or resumed counts apart."""
        began, state = self.bucket(now), self.states.get(route)
        return state.since if state is not None and began < state.since <= now else began

    def hear(
        self, route: str, heard: Heard, now: datetime, *, account: bool = False
    ) -> RouteState | None:
        """How the route stands after this, where that changes it: resumed, or paused since one
        refusal after the other was for the `account`."""
        changed = self._heard(route, heard, now, account=account)
        if changed is not None:
            self.put(changed, now)
        return changed

    def _heard(
        self, route: str, heard: Heard, now: datetime, *, account: bool
    ) -> RouteState | None:
        if heard is Heard.ACCEPTED and self.runs:
            self.runs.pop(route, None)
        if account:
            run = self.runs[route] = self.runs.get(route, 0) + 1
            if run >= health.ACCOUNT_RUN:
                del self.runs[route]
                return health.pause(route, self.states.get(route), Reason.ACCOUNT, now)
        state = self.states.get(route) if self.states else None
        return health.resumed(state, heard, now) if state is not None else None

    def probe(self, route: str, now: datetime) -> Probe | None:
        """The right to let one message through on a paused route whose time has come. Taken at
        once, so that the next decision of the same batch finds it gone."""
        state = self.states.get(route)
        if state is None or state.probe_at is None or not health.due(state, now):
            return None
        after = health.probed(state, now)
        self.put(after, now)
        if after.probe_at is None:
            raise LookupError("a probed route without its next probe")
        return Probe(route, state.since, state.probe_at, after.probe_at, after.opened)

    def may_fall_back(self, route: str, now: datetime) -> bool:
        """Whether silence on that route may cost money now: where it is the rule, the receipts are
        probably missing and not the messages, and only so many fall back each minute."""
        if route not in self.silent:
            return True
        while self._lately and abs(now - self._lately[0]) >= _MINUTE:
            self._lately.popleft()
        if len(self._lately) >= self._fallbacks:
            return False
        self._lately.append(now)
        return True
