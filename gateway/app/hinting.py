"""What a process does with the hints of others on its database."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from gateway.config import Settings
from gateway.services import health
from gateway.services.hints import Hints, Topic
from gateway.services.notify import Notifier
from gateway.services.runtime import Runtime
from gateway.store.engine import open_channel


def hints_for(
    settings: Settings,
    runtime: Runtime,
    notifier: Notifier,
    poll: Callable[[], Awaitable[object]],
    log: Any,
) -> Hints | None:
    """Not started yet; None on SQLite, which one process has alone. `poll`: look for whom waits."""
    channel = open_channel(settings.store)
    if channel is None:
        return None
    looks: dict[Topic, Callable[[], Awaitable[object]]] = {
        Topic.VERIFICATIONS: poll,
        Topic.ROUTES: partial(health.look, runtime),
        Topic.SUBSCRIPTIONS: notifier.refresh,
    }
    return Hints(channel, runtime.waiting.wake, looks, log)
