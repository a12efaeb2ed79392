"""The clock of all calls: everybody's turn comes, also after nobody was there and after somebody failed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from regions.edge.http import late_turns
from regions.media.pacer import LATE_MS, Pacer


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def test_everybodys_turn_comes_again_and_again_until_they_leave() -> None:
    turns: Counter[int] = Counter()
    pacer = Pacer(lambda turn, error: None)
    calls = [lambda _, i=i: turns.update([i]) for i in range(20)]
    pacer.start()
    for call in calls:
        pacer.add(call)
    await until(lambda: len(turns) == 20 and min(turns.values()) >= 5)
    assert max(turns.values()) - min(turns.values()) <= 2
    for call in calls[1:]:
        pacer.remove(call)
    others, mine = turns.total() - turns[0], turns[0]
    await until(lambda: turns[0] >= mine + 5)
    assert turns.total() - turns[0] == others
    pacer.stop()


async def test_the_clock_stands_still_for_nobody_and_goes_on_for_the_next() -> None:
    turns: Counter[str] = Counter()
    pacer = Pacer(lambda turn, error: None)

    def first(_: int) -> None:
        turns.update(["first"])
        pacer.remove(first)

    def second(_: int) -> None:
        turns.update(["second"])

    pacer.start()
    pacer.add(first)
    await until(lambda: turns["first"] == 1)
    await until(lambda: pacer.idle)
    pacer.add(second)
    await until(lambda: turns["second"] >= 3)
    pacer.stop()
    assert turns["first"] == 1


async def test_one_calls_fault_is_not_anothers() -> None:
    turns: Counter[str] = Counter()
    failed: list[str] = []
    pacer = Pacer(lambda turn, error: failed.append(str(error)))

    def bad(_: int) -> None:
        raise ValueError("bad")

    def good(_: int) -> None:
        turns.update(["good"])

    pacer.start()
    pacer.add(bad)
    pacer.add(good)
    await until(lambda: turns["good"] >= 3)
    pacer.stop()
    assert failed == ["bad"]


async def test_how_late_each_turn_began_is_counted_in_its_bucket() -> None:
    turns: Counter[str] = Counter()
    pacer = Pacer(lambda turn, error: None)

    def slow(_: int) -> None:
        turns.update(["slow"])
        until_s = time.perf_counter() + 0.012
        while time.perf_counter() < until_s:
            pass

    def behind(_: int) -> None:
        turns.update(["behind"])

    pacer.start()
    pacer.add(slow)
    for _ in range(7):
        pacer.add(lambda _: None)
    pacer.add(behind)  # in the phase of the slow one, after it
    await until(lambda: turns["behind"] >= 5)
    pacer.stop()
    later_than_10_ms = sum(pacer.late_turns[LATE_MS.index(10) + 1 :])
    assert later_than_10_ms >= turns["behind"]
    assert late_turns(pacer.late_turns).endswith(f'late_ms_max="+Inf"}} {sum(pacer.late_turns)}\n')
