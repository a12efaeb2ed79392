"""One at a time by key, and no more in line than may wait."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import QuotaExceeded
from app.in_line import InLine


async def test_those_of_one_key_go_one_after_the_other_in_their_order_and_others_beside_them() -> None:
    line = InLine(waiting_max=10, within_s=60.0)
    inside: list[str] = []
    order: list[int] = []

    async def go(key: str, number: int) -> None:
        async with line.of(key):
            assert key not in inside
            inside.append(key)
            order.append(number)
            await asyncio.sleep(0)
            inside.remove(key)

    async with line.of("b"):
        await asyncio.gather(*(go("a", n) for n in range(8)))
    assert order == list(range(8))
    assert (line._here, line._locks) == ({}, {}), "nothing is remembered of who is done"


async def test_who_is_one_too_many_or_waits_too_long_is_told_and_leaves_the_line() -> None:
    line = InLine(waiting_max=1, within_s=0.01)
    async with line.of("a"):
        late = asyncio.create_task(line.of("a").__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(QuotaExceeded):
            await line.of("a").__aenter__()
        with pytest.raises(QuotaExceeded) as told:
            await late
        assert told.value.retry_after_s == 1
    async with line.of("a"):
        pass
    assert (line._here, line._locks) == ({}, {})


async def test_one_that_is_canceled_or_fails_leaves_the_turn_to_the_next() -> None:
    line = InLine(waiting_max=5, within_s=60.0)

    async def fail() -> None:
        async with line.of("a"):
            await asyncio.sleep(0)
            raise ZeroDivisionError

    async def go() -> None:
        async with line.of("a"):
            pass

    failing, waiting, next_ = (asyncio.create_task(c) for c in (fail(), go(), go()))
    await asyncio.sleep(0)
    waiting.cancel()
    await next_
    assert isinstance(failing.exception(), ZeroDivisionError)
    assert waiting.cancelled()
    assert (line._here, line._locks) == ({}, {})
