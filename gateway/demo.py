"""The gateway shown at work: it and the sandbox in this process, and a caller that knows only their
addresses and a key.

Each scenario is a row of SCENES: what happens, and how it must end. They run at the same time; one
is as expected when every state, the phone and the statuses agree, to the message.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gateway.app import folder, process, wiring
from gateway.config import Settings
from gateway.domain import delivery
from gateway.domain.delivery import State
from gateway.domain.recipient import mask

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PATIENCE = 5  # seconds, the least a step may have
TIMING = {"receipt_delay": 0.25, "late": 6.5}  # seconds; late: after the patience, before a call's
LONGEST = 25.0  # seconds until a scenario that has not ended as expected is given up
LOOK_EVERY = 0.25  # seconds between two looks at a status
QUIET = 1.0  # seconds after the last scenario in which a message too many would show
CURL_NUMBER = "+33600010042"  # read on the messenger at once; nobody's, and no scenario's

_SPELLED = re.compile(r"(?<=[0-9]), (?=[0-9])")
_CODE = re.compile(r"\b[0-9]{6}\b")


@dataclass(frozen=True, slots=True)
class Scene:
    """A scenario: the number chooses what the sandbox does (+33600MMSSVV)."""

    name: str
    story: str
    number: str
    workflow: str
    attempts: tuple[str, ...]  # `channel:STATE` by ordinal
    status: str = "PENDING"
    checks: tuple[int, ...] = ()  # HTTP statuses: wrong codes, then the right one
    repeats: int = 0

    @property
    def phone(self) -> list[str]:
        """What the phone must get: each attempt once."""
        return [attempt.partition(":")[0] for attempt in self.attempts]


SCENES = (
    Scene(
        "delivered",
        "An SMS arrives and its code is typed.",
        "+33600000000",
        "sms",
        ("sms:DELIVERED",),
        status="VERIFIED",
        checks=(200,),
    ),
    Scene(
        "read",
        "A Messenger message is read: nothing more is sent.",
        "+33600010000",
        "default",
        ("messenger:READ",),
    ),
    Scene(
        "silent",
        "Messenger stays silent; after its patience an SMS follows.",
        "+33600020000",
        "default",
        ("messenger:SENT", "sms:DELIVERED"),
    ),
    Scene(
        "vonage",
        "The same with Vonage: its Messenger message is not read in time, its SMS follows.",
        "+33600020100",
        "vonage",
        ("messenger:SENT", "sms:DELIVERED"),
    ),
    Scene(
        "failed",
        "An SMS is reported as failed; a call follows at once.",
        "+33600000300",
        "sms",
        ("sms:FAILED", "voice:DELIVERED"),
    ),
    Scene(
        "twice",
        "Every receipt comes three times and counts once.",
        "+33600000500",
        "sms",
        ("sms:DELIVERED",),
        repeats=4,
    ),
    Scene(
        "late",
        "Receipts come after the patience: a call was placed, both are known as delivered.",
        "+33600000400",
        "sms",
        ("sms:DELIVERED", "voice:DELIVERED"),
    ),
    Scene(
        "early",
        "Receipts come before the provider has answered the send call.",
        "+33600000700",
        "sms",
        ("sms:DELIVERED",),
    ),
    Scene(
        "typed",
        "A wrong code is refused and counted, then the right one verifies.",
        "+33600000042",
        "sms",
        ("sms:DELIVERED",),
        status="VERIFIED",
        checks=(404, 200),
    ),
)


class Call(Protocol):
    """GET, or POST of JSON: the status and the body of the answer."""

    async def __call__(
        self, url: str, body: Mapping[str, Any] | None = None, key: str | None = None
    ) -> tuple[int, Any]: ...


@dataclass(frozen=True, slots=True)
class Hands:
    """What the command line lends."""

    call: Call
    new_key: Callable[[], Awaitable[str]]
    new_login: Callable[[], Awaitable[tuple[str, str]]]  # to the console: name and password
    render: "Callable[[Mapping[str, Any], Console], None]"
    out: "Console"
    dump: Callable[[object], None] | None  # the result as JSON, and nothing else on stdout


@dataclass(slots=True)
class Play:
    """A scenario under way: what was seen of it."""

    scene: Scene
    verification_id: str = ""
    now: str = "begins"
    checks: list[int] = field(default_factory=list)
    status: Mapping[str, Any] = field(default_factory=dict)
    phone: list[str] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    over: bool = False

    def states(self) -> list[str]:
        """`channel:STATE` of each attempt."""
        return [f"{a['channel']}:{a['state']}" for a in self.status.get("attempts", ())]

    def arrived(self) -> bool:
        """Whether the attempts are as they must be."""
        repeats = sum(attempt["repeats"] for attempt in self.status.get("attempts", ()))
        return self.states() == list(self.scene.attempts) and repeats == self.scene.repeats

    def differences(self) -> list[str]:
        """Everything that is not as expected."""
        scene, status = self.scene, self.status
        best = delivery.best(State(word.partition(":")[2]) for word in scene.attempts)
        repeats = sum(attempt["repeats"] for attempt in status.get("attempts", ()))
        pairs = (
            ("attempts", list(scene.attempts), self.states()),
            ("status", scene.status, status.get("status")),
            ("delivery_status", best, status.get("delivery_status")),
            ("messages on the phone", scene.phone, self.phone),
            ("codes on the phone", 1, len(self.codes)),
            ("answers to checks", list(scene.checks), self.checks),
            ("repeats", scene.repeats, repeats),
        )
        return [
            f"{what}: {want} expected, {have} found" for what, want, have in pairs if want != have
        ]


class Caller:
    """Plays every scenario from outside."""

    def __init__(self, gateway: str, sandbox: str, key: str, call: Call) -> None:
        self._gateway, self._sandbox, self._key, self._call = gateway, sandbox, key, call

    async def play(self, play: Play) -> None:
        """One scenario to its end, or until it takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST):
                await self._begin(play)
                while not play.arrived():
                    await asyncio.sleep(LOOK_EVERY)
                    await self._look(play)
                await self._type(play)
        play.over = True

    async def conclude(self, play: Play) -> None:
        """The last look: what is there now is what is judged."""
        if play.verification_id:
            await self._look(play)
            await self._pick_up(play)
        play.wrong += play.differences()

    async def _begin(self, play: Play) -> None:
        body = {"to": play.scene.number, "workflow": play.scene.workflow}
        status, answer = await self._call(f"{self._gateway}/otp/send", body, self._key)
        if status != 202:
            play.wrong.append(f"send: {status} {answer.get('code')}")
            raise TimeoutError
        play.verification_id = answer["verification_id"]

    async def _look(self, play: Play) -> None:
        body = {"verification_id": play.verification_id}
        _, play.status = await self._call(f"{self._gateway}/otp/status", body, self._key)
        play.now = ", ".join(word.replace(":", " ") for word in play.states())

    async def _type(self, play: Play) -> None:
        """The checks: wrong codes first, the right one last."""
        if not play.scene.checks:
            return
        await self._pick_up(play)
        right = next(iter(play.codes), "")
        wrong = f"{(int(right or 0) + 1) % 1_000_000:06}"
        last = len(play.scene.checks) - 1
        for at in range(len(play.scene.checks)):
            body = {"verification_id": play.verification_id, "code": right if at == last else wrong}
            status, _ = await self._call(f"{self._gateway}/otp/verify", body, self._key)
            play.checks.append(status)
        await self._look(play)

    async def _pick_up(self, play: Play) -> None:
        """Look at the phone."""
        number = play.scene.number.removeprefix("+")
        _, answer = await self._call(f"{self._sandbox}/messages?number={number}")
        messages = answer["messages"]
        play.phone = [message["channel"] for message in messages]
        play.codes = {
            code
            for message in messages
            for code in _CODE.findall(_SPELLED.sub("", message["text"]))
        }


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
            hands.dump(_result(settings, sandbox, key, plays, login=login))
        else:
            _tell(plays, hands)
            if not once:
                _addresses(settings, sandbox, key, hands.out, login=login)
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
    async with _shown(plays):
        await asyncio.gather(*(caller.play(play) for play in plays))
        await asyncio.sleep(QUIET)
        await asyncio.gather(*(caller.conclude(play) for play in plays))


# What the terminal shows: while it goes on, on stderr; how it went, on stdout.


@contextlib.asynccontextmanager
async def _shown(plays: Sequence[Play]) -> AsyncGenerator[None]:
    """The progress, live on a terminal, else a line a change."""
    from rich.console import Console
    from rich.live import Live

    err = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if err.is_terminal:
        with Live(_progress(plays), console=err, transient=True) as live:
            async with _repeating(lambda: live.update(_progress(plays), refresh=True)):
                yield
        return
    told: dict[str, str] = {}

    def tell() -> None:
        for play in plays:
            if told.get(play.scene.name) != play.now:
                told[play.scene.name] = play.now
                err.print(f"{play.scene.name}: {play.now}", soft_wrap=True)

    async with _repeating(tell):
        yield


@contextlib.asynccontextmanager
async def _repeating(act: Callable[[], None]) -> AsyncGenerator[None]:
    async def repeat() -> None:
        while True:
            act()
            await asyncio.sleep(0.1)

    task = asyncio.get_running_loop().create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        act()


def _progress(plays: Sequence[Play]) -> "RenderableType":
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    for column in ("", "scenario", "number", "so far"):
        made.add_column(column)
    for play in plays:
        mark = "✓" if play.over and not play.wrong else "✗" if play.over else "…"
        made.add_row(mark, play.scene.name, mask(play.scene.number), play.now)
    return made


def _tell(plays: Sequence[Play], hands: Hands) -> None:
    """A timeline each, then the verdicts."""
    out = hands.out
    for play in plays:
        out.print(f"── {play.scene.name}: {play.scene.story}", style="bold")
        out.print()
        if play.status:
            hands.render(play.status, out)
        out.print()
    for play in plays:
        expected = " → ".join(attempt.replace(":", " ") for attempt in play.scene.attempts)
        mark = "FAILED" if play.wrong else "ok"
        told = "expected" if play.wrong else "as expected"
        out.print(f"{mark:<7} {play.scene.name:<10} {told}: {expected}; {play.scene.status}")
        for difference in play.wrong:
            out.print(f"        {difference}", style="red", soft_wrap=True)


def _addresses(
    settings: Settings, sandbox: str, key: str, out: "Console", *, login: tuple[str, str]
) -> None:
    """Where everything is, for as long as it stays up."""
    headers = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    body = f'{{"to": "{CURL_NUMBER}"}}'
    lines = [
        "",
        f"gateway  {settings.public_url}",
        f"phones   {sandbox}/   (what the handsets got, and what each number does)",
        f"console  {settings.public_url}/console   (log in as {login[0]} with {login[1]})",
        f"key      {key}",
        f"log      {settings.data_dir / 'gateway.log'}   (removed with its folder at the end)",
        "",
        "Try it, then look at the phones:",
        f"curl -sS {settings.public_url}/otp/send {headers} -d '{body}'",
        "",
        "It stays up until Ctrl-C.",
    ]
    for line in lines:
        out.print(line, soft_wrap=True)


def _result(
    settings: Settings,
    sandbox: str,
    key: str,
    plays: Sequence[Play],
    *,
    login: tuple[str, str],
) -> dict[str, object]:
    return {
        "as_expected": not any(play.wrong for play in plays),
        "gateway": settings.public_url,
        "sandbox": sandbox,
        "console": {
            "address": f"{settings.public_url}/console",
            "name": login[0],
            "password": login[1],
        },
        "key": key,
        "folder": str(settings.data_dir),
        "scenarios": [
            {
                "name": play.scene.name,
                "verification_id": play.verification_id,
                "as_expected": not play.wrong,
                "expected": play.scene.attempts,
                "found": play.states(),
                "status": play.status.get("status"),
                "delivery_status": play.status.get("delivery_status"),
                "phone": play.phone,
                "differences": play.wrong,
            }
            for play in plays
        ],
    }
