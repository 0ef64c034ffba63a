"""Answers are written in a row, each in its order and none to who has gone."""

import asyncio

from gateway.web.writing import writes_of


class Wire(asyncio.WriteTransport):
    """A socket that notes what it is given."""

    def __init__(self, said: list[tuple[str, bytes]], name: str) -> None:
        super().__init__()
        self._said, self._name = said, name
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self._said.append((self._name, bytes(data)))

    def is_closing(self) -> bool:
        return self.closed


async def test_nothing_is_written_before_all_that_is_ready_has_run() -> None:
    said: list[tuple[str, bytes]] = []
    writes = writes_of(asyncio.get_running_loop())
    one, other = Wire(said, "one"), Wire(said, "other")
    asyncio.get_running_loop().call_soon(writes.write, one, b"1")
    asyncio.get_running_loop().call_soon(writes.write, other, b"2")
    asyncio.get_running_loop().call_soon(said.append, ("all", b"have run"))
    asyncio.get_running_loop().call_soon(writes.write, one, b"3")
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [("all", b"have run"), ("one", b"1"), ("other", b"2"), ("one", b"3")] == said


async def test_a_flush_writes_at_once_and_each_thing_once() -> None:
    said: list[tuple[str, bytes]] = []
    writes = writes_of(asyncio.get_running_loop())
    writes.write(Wire(said, "one"), b"1")
    writes.flush()

    assert [("one", b"1")] == said
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [("one", b"1")] == said


async def test_who_has_gone_is_told_nothing_and_keeps_nobody_from_being_told() -> None:
    said: list[tuple[str, bytes]] = []
    writes = writes_of(asyncio.get_running_loop())
    gone = Wire(said, "gone")
    writes.write(gone, b"1")
    writes.write(Wire(said, "here"), b"2")
    gone.closed = True
    writes.flush()

    assert [("here", b"2")] == said


async def test_a_loop_has_one_and_the_same() -> None:
    loop = asyncio.get_running_loop()

    assert writes_of(loop) is writes_of(loop)
