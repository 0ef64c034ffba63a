"""What is done from a shell, written into the audit log as what is done at the console is."""

import getpass
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.domain.audit import Act
    from gateway.store.engine import Engine


def actor() -> str:
    """Who gives the command."""
    return f"shell:{_user()}" if _user() else "shell"


def user() -> str:
    """Their name alone, where it is shown beside an order."""
    return _user()[:64] or "operator"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        return ""


def act(action: str, what: str = "", why: str = "", subject: object = None) -> "Act":
    """A row to be written. `what` holds no full number; a reason loses what could be one."""
    from gateway.domain import recipient
    from gateway.domain.audit import Act

    of = str(subject) if subject is not None else None
    return Act(actor(), action, what, recipient.redact(why), of)


async def record(
    engine: "Engine", *acts: "Act", work: "Callable[[Engine], Awaitable[object]] | None" = None
) -> None:
    """Do it and write it down, in one transaction; without `work` it is done after this.

    Raises StoreError: then nothing was done.
    """
    from gateway.app import clock
    from gateway.store import audits
    from gateway.store.desk import writing

    async def both(engine: "Engine") -> None:
        if work is not None:
            await work(engine)
        for one in acts:
            await audits.append(engine, one, clock.now())

    await writing(engine, both)
