"""One timer for many limits: each strikes at its time, and only those that are still waited for."""

import asyncio

import pytest

from gateway.transports.deadlines import Deadlines


async def waits(deadlines: Deadlines, within: float, ended: list[float]) -> bool:
    """Waits for ever. Whether its limit ended it; notes the limit's length."""
    limit = deadlines.start(within)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not deadlines.end(limit):
            raise
    finally:
        deadlines.end(limit)
    ended.append(within)
    return True


async def test_limits_strike_in_the_order_of_their_times() -> None:
    deadlines = Deadlines()
    ended: list[float] = []
    lengths = [0.2, 0.05, 0.15, 0.1, 0.05]
    loop = asyncio.get_running_loop()
    start = loop.time()
    await asyncio.gather(*[waits(deadlines, length, ended) for length in lengths])

    assert sorted(lengths) == ended
    assert loop.time() - start >= 0.19


async def test_who_ends_in_time_is_left_alone() -> None:
    deadlines = Deadlines()
    limit = deadlines.start(0.05)

    assert not deadlines.end(limit)

    await asyncio.sleep(0.1)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_time_that_is_over_at_the_start_strikes_at_the_first_waiting() -> None:
    ended: list[float] = []

    assert await waits(Deadlines(), 0, ended)


@pytest.mark.parametrize("within", [0.05, 5])
async def test_someone_elses_cancellation_is_not_taken_for_the_limit(within: float) -> None:
    """Also when both come in the same moment."""
    deadlines = Deadlines()
    ended: list[float] = []
    call = asyncio.create_task(waits(deadlines, within, ended))
    await asyncio.sleep(0)
    if within < 1:
        for limit in tuple(deadlines._limits):
            deadlines._pass(limit)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert [] == ended


async def test_a_limit_within_a_limit() -> None:
    outer, inner = Deadlines(), Deadlines()
    ended: list[float] = []
    limit = outer.start(0.1)
    try:
        await waits(inner, 0.02, ended)
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        assert outer.end(limit)

    assert [0.02] == ended
