"""`gateway send --route`: one real message over one route, followed until it has ended."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import typer

from gateway.cli.output import Code, Failure

LOOK_EVERY = 0.5  # seconds
ARRIVED = ("DELIVERED", "READ")

Ask = Callable[[], Mapping[str, Any]]  # the status of the verification, as /otp/status answers


def follow(ask: Ask, route: str, wait: float, tell: Callable[[str], None]) -> Mapping[str, Any]:
    """The status when the message has arrived. Tells each thing that is heard meanwhile.

    Raises Failure when it was refused or failed, or when nothing decided it within `wait` seconds.
    """
    until, told = time.monotonic() + wait, 0
    while True:
        status = ask()
        news = list(_lines(status))
        for line in news[told:]:
            tell(line)
        told = len(news)
        states = [str(attempt["state"]) for attempt in status["attempts"]]
        if any(state in ARRIVED for state in states):
            return status
        if status["status"] != "PENDING" or (
            states and set(states) == {"FAILED"} and _over(status)
        ):
            raise Failure(f"not delivered over {route}: {_why(status)}")
        if time.monotonic() >= until:
            raise Failure(_unheard(route, states[-1] if states else "QUEUED", wait))
        time.sleep(LOOK_EVERY)


def _over(status: Mapping[str, Any]) -> bool:
    """Nothing more will be sent of itself."""
    return (status.get("next") or {}).get("action") != "send"


def _lines(status: Mapping[str, Any]) -> Iterator[str]:
    """What is known, a line a transition; only ever longer."""
    for move in status["transitions"]:
        if move["attempt_id"] is not None:
            moment = move["recorded_at"][11:23]
            word = f" ({move['word']})" if move["word"] else ""
            yield f"{moment}  {move['after']}  by {move['source']}{word}"


def _why(status: Mapping[str, Any]) -> str:
    if not status["attempts"]:
        return str(status["status"])
    last = status["attempts"][-1]
    return ": ".join(str(part) for part in (last["reason"], last["error"]) if part) or last["state"]


def _unheard(route: str, state: str, wait: float) -> str:
    if state == "QUEUED":
        return f"nothing left over {route} within {wait:g} s; see: gateway routes"
    hint = "If it arrived, receipts do not reach us: check the callback URL in `gateway routes`"
    return f"{route} took the message, and nothing said within {wait:g} s that it arrived. {hint}"


def report(status: Mapping[str, Any], route: str, *, quiet: bool) -> None:
    """How it ended, in a line; not when `quiet`."""
    if quiet:
        return
    last = status["attempts"][-1]
    cost = f", {last['cost']}" if last.get("cost") else ""
    typer.echo(f"{last['state']} over {route}{cost}")


def number_of(positional: str | None, to: str | None) -> str:
    """The number, given as an argument or as --to. Raises Failure when it is neither or both."""
    if (positional is None) == (to is None):
        raise Failure("give the number once: as NUMBER or as --to", Code.USAGE)
    return positional or to or ""
