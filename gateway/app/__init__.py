"""Putting it together: the wiring, the sandbox beside it, the data folder, the process."""

from gateway.app.folder import (
    alone,
    check_schema,
    folders,
    keyring_problem,
    make_folders,
    opened,
    prepare,
)
from gateway.app.looking import NOT_ASKED, look
from gateway.app.process import (
    beside,
    bind,
    port_of,
    run,
    serve,
    serve_sandbox,
    served,
    server,
    stop_signal,
)
from gateway.app.sandboxed import Ports, no_keyring, sandbox, sandbox_settings, with_sandbox
from gateway.app.supervisor import supervise
from gateway.app.test_keys import Inside, inside
from gateway.app.wiring import GRACE, Gateway, Realm, Role, build, clock, doings, plans

__all__ = [
    "GRACE",
    "NOT_ASKED",
    "Gateway",
    "Inside",
    "Ports",
    "Realm",
    "Role",
    "alone",
    "beside",
    "bind",
    "build",
    "check_schema",
    "clock",
    "doings",
    "folders",
    "inside",
    "keyring_problem",
    "look",
    "make_folders",
    "no_keyring",
    "opened",
    "plans",
    "port_of",
    "prepare",
    "run",
    "sandbox",
    "sandbox_settings",
    "serve",
    "serve_sandbox",
    "served",
    "server",
    "stop_signal",
    "supervise",
    "with_sandbox",
]
