"""The outside world, simulated: the providers' own APIs and the phones their messages reach.

It knows no code of ours, so that nothing is tested against itself. `app` wires it in.
"""

from gateway.sandbox.app import Sandbox
from gateway.sandbox.behaviour import TABLE, Answer, Behaviour, Channel, Stage
from gateway.sandbox.phones import Message, Posted, Status
from gateway.sandbox.settings import Now, Post, SandboxSettings, Sleep

__all__ = [
    "TABLE",
    "Answer",
    "Behaviour",
    "Channel",
    "Message",
    "Now",
    "Post",
    "Posted",
    "Sandbox",
    "SandboxSettings",
    "Sleep",
    "Stage",
    "Status",
]
