"""What is told of the scenarios: while they go on, on stderr; how they went, on stdout."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.config import Settings
from gateway.demo.playing import Play
from gateway.domain.recipient import mask

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

CURL_NUMBER = "+33600010042"  # read on the messenger at once; nobody's, and no scenario's

Render = Callable[[Mapping[str, Any], "Console"], None]


@contextlib.asynccontextmanager
async def shown(plays: Sequence[Play]) -> AsyncGenerator[None]:
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

    def changes() -> None:
        for play in plays:
            if told.get(play.scene.name) != play.now:
                told[play.scene.name] = play.now
                err.print(f"{play.scene.name}: {play.now}", soft_wrap=True)

    async with _repeating(changes):
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


def tell(plays: Sequence[Play], out: "Console", render: Render) -> None:
    """A timeline each, then the verdicts."""
    for play in plays:
        out.print(f"── {play.scene.name}: {play.scene.story}", style="bold")
        out.print()
        if play.status:
            render(play.status, out)
        out.print()
    for play in plays:
        expected = " → ".join(attempt.replace(":", " ") for attempt in play.scene.attempts)
        mark = "FAILED" if play.wrong else "ok"
        told = "expected" if play.wrong else "as expected"
        out.print(f"{mark:<7} {play.scene.name:<10} {told}: {expected}; {play.scene.status}")
        for difference in play.wrong:
            out.print(f"        {difference}", style="red", soft_wrap=True)


def addresses(
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


def result(
    settings: Settings,
    sandbox: str,
    key: str,
    plays: Sequence[Play],
    *,
    login: tuple[str, str],
) -> dict[str, object]:
    """All of it as values, for programs."""
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
