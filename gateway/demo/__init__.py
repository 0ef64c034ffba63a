"""The gateway shown at work: it and the sandbox in this process, and a caller that knows only their
addresses and a key. `scenes` happen at the same time, `playing` plays and judges one, `showing`
tells of them.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.app import folder, process, wiring
from gateway.config import Settings
from gateway.demo import showing
from gateway.demo.playing import Call, Caller, Play
from gateway.demo.scenes import SCENES

if TYPE_CHECKING:
    from rich.console import Console

PATIENCE = 5  # seconds, the least a step may have
TIMING = {"receipt_delay": 0.25, "late": 6.5}  # seconds; late: after the patience, before a call's
QUIET = 1.0  # seconds after the last scenario in which a message too many would show


@dataclass(frozen=True, slots=True)
class Hands:
    """What the command line lends."""

    call: Call
    new_key: Callable[[], Awaitable[str]]
    new_login: Callable[[], Awaitable[tuple[str, str]]]  # to the console: name and password
    render: showing.Render
    out: "Console"
    dump: Callable[[object], None] | None  # the result as JSON, and nothing else on stdout


async def run(
    settings: Settings,
    listening: socket.socket,
    world: socket.socket,
    hands: Hands,
    *,
    once: bool,
) -> bool:
    """Play everything, tell how it went, stay up unless `once`. Whether all was as expected."""
    sandbox = f"http://127.0.0.1:{process.port_of(world)}"
    keyring = folder.prepare(settings)
    stop = process.stop_signal()
    async with contextlib.AsyncExitStack() as stack:
        beside = process.beside(
            settings, keyring, world, timing=TIMING, patience=PATIENCE, reading=PATIENCE
        )
        _, routed = await stack.enter_async_context(beside)
        gateway = wiring.build(routed, keyring)
        serving = process.served(gateway.web, listening, leaving=gateway.leave)
        await stack.enter_async_context(serving)
        key, login = await hands.new_key(), await hands.new_login()
        caller = Caller(settings.public_url, sandbox, key, hands.call)
        plays = [Play(scene) for scene in SCENES]
        played = await _unless(stop, _play(caller, plays))
        if not played:
            return False
        if hands.dump is not None:
            hands.dump(showing.result(settings, sandbox, key, plays, login=login))
        else:
            showing.tell(plays, hands.out, hands.render)
            if not once:
                showing.addresses(settings, sandbox, key, hands.out, login=login)
        if not once:
            await stop.wait()
    return not any(play.wrong for play in plays)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether the work came to its end before the stop."""
    doing = asyncio.ensure_future(work)
    both: list[asyncio.Future[Any]] = [doing, asyncio.ensure_future(stop.wait())]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    done = doing.done()
    for task in both:
        task.cancel()
    await asyncio.wait(both)
    if done:
        doing.result()
    return done


async def _play(caller: Caller, plays: Sequence[Play]) -> None:
    async with showing.shown(plays):
        await asyncio.gather(*(caller.play(play) for play in plays))
        await asyncio.sleep(QUIET)
        await asyncio.gather(*(caller.conclude(play) for play in plays))
