"""What the pumping guard sees: for the operator who asks, and for the log while nobody does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.domain import guard, policy
from gateway.domain.guard import Guard, Mode, Seen, Verdict
from gateway.services.runtime import Runtime
from gateway.store import tallies
from gateway.store.engine import Engine
from gateway.store.tallies import Pass


class Log(Protocol):
    """The part of structlog that is used."""

    def warning(self, event: str, **facts: object) -> object: ...


@dataclass(frozen=True, slots=True)
class Sight:
    """A prefix or country: its last settled window, the one under way, what one more send would
    meet, and what an operator said."""

    scope: str
    settled: Seen
    current: Seen
    verdict: Verdict | None
    passed: Pass | None


async def look(engine: Engine, rule: Guard, now: datetime) -> list[Sight]:
    """Every scope that was sent to in the two windows, or is let through: what would be refused
    first, then by the sends of both windows."""
    began, settled = guard.under_way(rule, now), guard.settled(rule, now)
    current = await _window(engine, began)
    before = await _window(engine, settled)
    passes = {one.scope: one for one in await tallies.passes(engine, now)}
    sights = []
    for scope in {*before, *current, *passes}:
        seen = before.get(scope, Seen()), current.get(scope, Seen())
        passed = next((one for one in passes.values() if _covered(one.scope, scope)), None)
        sights.append(Sight(scope, *seen, guard.judge(rule, scope, *seen), passed))
    return sorted(sights, key=_rank)


async def _window(engine: Engine, began: datetime) -> dict[str, Seen]:
    found = await tallies.between(engine, *policy.guard_window(began))
    return {policy.scope_of(key): Seen(*sums) for key, sums in found.items()}


def _covered(passed: str, scope: str) -> bool:
    """Whether all numbers of a scope are let through. A country's pass covers its prefixes too, but
    a prefix does not say its country."""
    return guard.covers(passed, scope, scope)


def _rank(sight: Sight) -> tuple[bool, int, str]:
    return sight.verdict is None, -(sight.settled.sent + sight.current.sent), sight.scope


class Watch:
    """Tells the log once a window what the guard would refuse, while it only watches."""

    def __init__(self) -> None:
        self._began: datetime | None = None
        self._told: set[str] = set()

    async def tell(self, runtime: Runtime, log: Log, now: datetime) -> Sequence[Sight]:
        """Log what has come up since the last time. What was logged."""
        rule = runtime.policy.guard
        if rule is None or rule.mode is not Mode.SHADOW:
            return ()
        began = guard.under_way(rule, now)
        if began != self._began:
            self._began, self._told = began, set()
        new = [
            one
            for one in await look(runtime.engine, rule, now)
            if one.verdict is not None and one.passed is None and one.scope not in self._told
        ]
        for one in new:
            self._told.add(one.scope)
            if one.verdict is not None:
                log.warning("guard_shadow", scope=one.scope, **one.verdict._asdict())
        return new
