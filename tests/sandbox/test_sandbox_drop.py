"""What a caller sees of a dropped connection, over a real socket and a real server."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import uvicorn
from sandbox.world import KEY, LOGIN, Rig, sms_body


@pytest_asyncio.fixture
async def address(rig: Rig) -> AsyncIterator[tuple[str, int]]:
    """Where the sandbox is served."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(rig.sandbox.app, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    # `startup` and `shutdown` alone: `serve` would take over the process's signals.
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    yield listener.getsockname()
    await server.shutdown(sockets=[listener])


async def test_the_answer_ends_in_the_middle_and_the_message_arrives(
    rig: Rig, address: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "uvicorn.error")  # it logs the exception, rightly
    request = rig.client.build_request(
        "POST",
        "/octopush/v1/public/sms-campaign/send",
        json=sms_body("+33600001100"),
        headers={"api-login": LOGIN, "api-key": KEY},
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"POST {request.url.path} HTTP/1.1\r\n{head}\r\n".encode() + request.content)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    await rig.run()
    told, _, body = answer.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in told.lower().splitlines()
        if line.startswith(b"content-length:")
    )

    assert told.startswith(b"HTTP/1.1 201")
    assert length // 2 == len(body)
    assert rig.only().arrived_at
