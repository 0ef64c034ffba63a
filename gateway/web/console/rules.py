"""Limits and guard: what is refused, what would be, and whom the guard lets through."""

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.domain import guard
from gateway.domain.access import Right
from gateway.domain.errors import InvalidInput
from gateway.domain.guard import Mode
from gateway.domain.policy import Policy
from gateway.services import guarding
from gateway.services.lately import Lately, Row
from gateway.services.runtime import Runtime
from gateway.store import audits, tallies
from gateway.store.desk import Desk
from gateway.store.engine import Engine
from gateway.store.tallies import Pass
from gateway.web.console.door import Door, Visit, act, reason

PATH = "/console/limits"
_NONE = (0, 0)
_BUILT_IN = {
    "cool_down": "a second code within 30 s, a second step asked for within 10 s",
    "sends": "the sends of one verification",
    "failures": "wrong codes of a client and number",
    "pumping": "the pumping guard",
    "spend": "what a client may spend in a day",
}


class Rules:
    """The page of the limits."""

    def __init__(self, door: Door, runtime: Runtime, desk: Desk) -> None:
        self._door = door
        self._runtime = runtime
        self._desk = desk

    def routes(self) -> list[Route]:
        """The pages."""
        return [
            self._door.page(PATH, Right.LOOK, self.show),
            self._door.form(f"{PATH}/pass", Right.MANAGE, self.let_pass, dangerous=True),
        ]

    async def show(self, visit: Visit) -> Response:
        """Every rule with what it did in the last hour; every prefix and country that the guard
        sees."""
        policy = self._runtime.policy
        watched = policy.guard

        async def look(engine: Engine) -> list[guarding.Sight]:
            return await guarding.look(engine, watched, visit.now) if watched is not None else []

        sights = await self._desk.read(look)
        rows = _rows(policy, self._runtime.lately)
        return self._door.render(visit, "limits.html", rows=rows, guard=watched, sights=sights)

    async def let_pass(self, visit: Visit) -> Response:
        """Let a prefix or country through the guard, until a date; the same as `gateway guard
        allow`."""
        why, scope = reason(visit), visit.form.get("scope", "").strip().replace(" ", "")
        if not guard.names_scope(scope):
            raise InvalidInput("scope_odd", "Give + and 2 to 15 digits, or a country such as FR.")
        until = guard.until(visit.form.get("until", "").strip())
        if until is None or until <= visit.now:
            raise InvalidInput("until_odd", "Give a date that is to come, such as 2026-12-31.")
        given = Pass(scope, until, why, visit.now)
        done = act(visit, "guard allow", f"{scope} until {until:%Y-%m-%d %H:%M} UTC", why)

        async def write(engine: Engine) -> None:
            await tallies.put_pass(engine, given)
            await audits.append(engine, done, visit.now)

        await self._desk.write(write)
        return RedirectResponse(PATH, 303)


def _rows(policy: Policy, lately: Lately | None) -> list[dict[str, object]]:
    """Every rule there is, those of the settings first."""
    counted = {row.names: row for row in (lately.limits if lately is not None else [])}
    told = {
        rule.name: (
            f"{rule.most} in {rule.window} s for each {rule.per}",
            "shadow" if rule.shadow else "in force",
        )
        for rule in policy.rules
    }
    modes = {"pumping": _guard_mode(policy), "spend": _spend_mode(policy)}
    for name, what in _BUILT_IN.items():
        told.setdefault(name, (what, modes.get(name, "in force")))
    return [
        {
            "name": name,
            "what": what,
            "mode": mode,
            "refused": _pair(counted.get((name, "refused"))),
            "shadow": _pair(counted.get((name, "shadow"))),
        }
        for name, (what, mode) in told.items()
    ]


def _guard_mode(policy: Policy) -> str:
    if policy.guard is None:
        return "off"
    return "in force" if policy.guard.mode is Mode.ENFORCE else "shadow"


def _spend_mode(policy: Policy) -> str:
    if policy.spending is None:
        return "off"
    return "shadow" if policy.spending.shadow else "in force"


def _pair(row: Row | None) -> tuple[int, int]:
    return (row.short, row.long) if row is not None else _NONE
