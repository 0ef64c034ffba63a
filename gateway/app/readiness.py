"""Whether a process is ready, and what is wrong besides.

A *problem* is of this process: whoever balances the load sends elsewhere. A *warning* is the same
at every process (a route that is shut, work that comes late): going unready for it would make all
of them so at once, and receipts and checks go on.
"""

from dataclasses import dataclass
from datetime import datetime

from gateway.domain.health import Shut
from gateway.services.runtime import Runtime
from gateway.store import schema
from gateway.store.engine import StoreError
from gateway.worker import Worker

LATE_PASS = 10.0  # seconds without a pass after which this process is not ready
LATE = 60.0  # seconds that the oldest due verification may have waited


@dataclass(frozen=True, slots=True)
class Readiness:
    """What is asked: the database, its schema, the keyring, the ledger, the worker, the routes."""

    runtime: Runtime
    worker: Worker | None  # None: others pass over what is due

    async def look(self) -> tuple[dict[str, str], dict[str, str]]:
        """Problems, then warnings, by what they are about; none when all is well."""
        problems, now = {}, self.runtime.now()
        try:
            problems = await self._stored()
        except StoreError as error:
            problems["database"] = str(error)
        if self.runtime.ledger.ended.is_set():
            problems["ledger"] = "has ended: this process writes nothing any more, and stops"
        return problems | self._stopped(now), {**self._late(), **self._routeless()}

    async def _stored(self) -> dict[str, str]:
        """What the database says of itself and of our keys. Raises StoreError."""
        reads, problems = self.runtime.reads, {}
        found, wanted = await reads.revision(), schema.head()
        if found is None or found < wanted:  # a newer one is a newer version being rolled out
            problems["schema"] = f"is at {found or 'nothing'}, needs {wanted}: gateway migrate"
        named = await reads.newest_key()
        if named is not None and named not in self.runtime.keyring.names:
            problems["keyring"] = (
                f"lacks the key {named!r} under which the newest verification is sealed: give this "
                "process the keyring of the others"
            )
        return problems

    def _stopped(self, now: datetime) -> dict[str, str]:
        if self.worker is None:
            return {}
        last = self.worker.last_pass
        if last is None:
            return {"reconciler": "has not passed yet"}
        if (now - last).total_seconds() > LATE_PASS:
            return {"reconciler": f"last passed at {last.isoformat()}"}
        return {}

    def _late(self) -> dict[str, str]:
        lag = self.worker.lag if self.worker is not None else 0.0
        if lag <= LATE:
            return {}
        return {"lag": f"the oldest due verification had waited {lag:.0f} s at the last pass"}

    def _routeless(self) -> dict[str, str]:
        """Workflows without a single route that is neither paused nor disabled."""
        shut, found = self.runtime.standing.shut, {}
        for name, workflow in self.runtime.workflows.items() if shut else ():
            routes = {route for step in workflow.steps for route in step.routes}
            if routes <= shut.paused | shut.disabled:
                found[f"workflow {name}"] = _told(routes, shut)
        return found


def _told(routes: set[str], shut: Shut) -> str:
    parts = [
        f"{name} is {'disabled' if name in shut.disabled else 'paused'}" for name in sorted(routes)
    ]
    return f"no route works: {', '.join(parts)}"
