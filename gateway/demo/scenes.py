"""The scenarios, a row each: what happens, and how it must end."""

from dataclasses import dataclass


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
