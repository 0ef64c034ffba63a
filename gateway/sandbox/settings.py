"""What the sandbox is given: its accounts and timing, a clock, and the way its receipts leave."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

Now = Callable[[], datetime]  # aware, UTC
Sleep = Callable[[float], Awaitable[None]]


class Post(Protocol):
    """How receipts leave. Any exception means that nobody took the receipt."""

    async def __call__(self, url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
        """POST it and return the HTTP status of the answer."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxSettings:
    """One account with each provider, and how fast the world turns. Times are seconds."""

    octopush_login: str
    octopush_key: str = field(repr=False)
    octopush_callback_url: str | None  # one URL per account, as with the real one; None: not set up
    messenger_token: str = field(repr=False)
    messenger_secret: str = field(repr=False)
    # Of the other vendors, by its name: what our account with it is made of (keys, secrets, URLs).
    accounts: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    receipt_delay: float = 0.3  # from acceptance to the first receipt, and from each to the next
    late: float = 8.0  # what "late" adds
    hang: float = 30.0  # how long "hang" holds a request
    keep: int = 10_000  # messages, request ids and throttle counts remembered, oldest forgotten
    jitter: float = 0.0  # at most this much is added to each pause before a receipt
    seed: int = 0  # of the jitter, so that a run can be repeated
