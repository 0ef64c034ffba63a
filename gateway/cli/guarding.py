"""`gateway guard`: what the pumping guard sees, and whom it lets through."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import acts
from gateway.cli.output import Code, Config, Failure, Json, dump, say, settings, table

if TYPE_CHECKING:
    from gateway.domain.guard import Guard
    from gateway.services.guarding import Sight

app = typer.Typer(
    help="The pumping guard: what it sees and would refuse, and whom it lets through.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def guard(context: typer.Context, *, config: Config = None, as_json: Json = False) -> None:
    """Show each prefix and country sent to, and what one more send would meet.

    "settled" is the last window whose codes had the time to be typed, "now" the one under way.
    """
    if context.invoked_subcommand is not None:
        return
    from gateway.app import clock, folder
    from gateway.services import guarding

    loaded = settings(config)
    rule = loaded.policy.guard
    if rule is None:
        raise Failure("the guard is off: [guard] mode in the settings")

    async def look() -> "list[Sight]":
        async with folder.opened(loaded) as engine:
            return await guarding.look(engine, rule, clock.now())

    sights = asyncio.run(look())
    if as_json:
        dump({"mode": rule.mode, "window": rule.window, "scopes": [_shown(one) for one in sights]})
        return
    columns = ("scope", "settled", "verified", "now", "verified", "verdict")
    table(columns, [_row(rule, one) for one in sights])
    say(f"mode: {rule.mode}; windows of {rule.window} s")


@app.command()
def allow(
    scope: Annotated[
        str, typer.Argument(metavar="PREFIX", help="Such as +3361234, or a country such as FR.")
    ],
    *,
    until: Annotated[
        str, typer.Option(metavar="DATE", help="2026-12-31 (that day included, UTC) or a time.")
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; shown by gateway guard.")] = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Let a prefix or country through the guard. A running gateway notices within seconds."""
    from gateway.app import clock, folder
    from gateway.domain import guard as rules
    from gateway.store import tallies
    from gateway.store.tallies import Pass

    if not rules.names_scope(scope):
        raise Failure("PREFIX is + and digits, or a country code such as FR", Code.USAGE)
    if len(reason) > 200 or not (reason.isprintable()):
        raise Failure("--reason is at most 200 printable characters", Code.USAGE)
    now = clock.now()
    moment = rules.until(until)
    if moment is None:
        raise Failure("--until is a date such as 2026-12-31", Code.USAGE)
    if moment <= now:
        raise Failure("--until is in the past", Code.USAGE)
    given = Pass(scope, moment, reason, now)

    done = acts.act("guard allow", f"{scope} until {moment:%Y-%m-%d %H:%M} UTC", reason)

    async def store() -> None:
        async with folder.opened(settings(config)) as engine:
            await acts.record(engine, done, work=lambda one: tallies.put_pass(one, given))

    asyncio.run(store())
    if as_json:
        dump(given)
    else:
        typer.echo(f"{scope} is let through until {given.until:%F %R} UTC")


def _row(rule: "Guard", one: "Sight") -> tuple[object, ...]:
    return (
        one.scope,
        one.settled.sent,
        one.settled.verified,
        one.current.sent,
        one.current.verified,
        _told(rule, one),
    )


def _told(rule: "Guard", one: "Sight") -> str:
    if one.passed is not None:
        why = f": {one.passed.reason}" if one.passed.reason else ""
        return f"let through until {one.passed.until:%F %R}{why}"
    if one.verdict is None:
        return "ok"
    does = "refused" if rule.mode == "enforce" else "would be refused"
    return f"{does}: {one.verdict.sentence}"


def _shown(one: "Sight") -> dict[str, object]:
    return {
        "scope": one.scope,
        "settled": one.settled._asdict(),
        "current": one.current._asdict(),
        "refuses": one.verdict is not None and one.passed is None,
        "verdict": None if one.verdict is None else one.verdict._asdict(),
        "why": None if one.verdict is None else one.verdict.sentence,
        "passed": one.passed,
    }
