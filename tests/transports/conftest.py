"""The loops on which the tests of this folder run."""

import asyncio
from typing import Any

import pytest
import uvloop

BOTH = {"test_guard", "test_http", "test_connection", "test_deadlines", "test_pool"}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Our own client on production's loop and on asyncio's own, which tells of ends otherwise."""
    loops = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    if item.path.stem not in BOTH:
        del loops["asyncio"]
    return loops
