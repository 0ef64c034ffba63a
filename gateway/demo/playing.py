"""Playing a scenario from outside, with an address and a key, and judging what came of it: every
state, the phone and the statuses must agree, to the message.
"""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.demo.scenes import Scene
from gateway.domain import delivery
from gateway.domain.delivery import State

LONGEST = 25.0  # seconds until a scenario that has not ended as expected is given up
LOOK_EVERY = 0.25  # seconds between two looks at a status

_SPELLED = re.compile(r"(?<=[0-9]), (?=[0-9])")
_CODE = re.compile(r"\b[0-9]{6}\b")


class Call(Protocol):
    """GET, or POST of JSON: the status and the body of the answer."""

    async def __call__(
        self, url: str, body: Mapping[str, Any] | None = None, key: str | None = None
    ) -> tuple[int, Any]: ...


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
