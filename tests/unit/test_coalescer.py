"""Who shares a round trip: the lone create waits for nobody, and those that come together stay together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from app.calls import coalescer as coalescing
from app.calls.coalescer import BATCH_MAX, Coalescer
from app.calls.store import Created
from app.clock import SystemClock
from app.log.acked import End

PROJECT = UUID(int=1)


@dataclass
class Store:
    """Answers when it is told to; `batches`: the keys that were sent together."""

    batches: list[list[str]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def create(self, project: UUID, route: str, now: datetime, batch: list[Any]) -> dict[str, Created]:
        self.batches.append([call.key for call in batch])
        await self.gate.wait()
        return {call.key: Created(UUID(int=2), b"", replayed=False) for call in batch}


def coalescer(store: Store) -> Coalescer:
    return Coalescer(store, SystemClock(), "route")  # type: ignore[arg-type]


def start(joined: Coalescer, *keys: str) -> list[asyncio.Task[Created]]:
    return [asyncio.create_task(joined.create(PROJECT, SimpleNamespace(key=key, limits=()))) for key in keys]  # type: ignore[arg-type]


async def until(store: Store, count: int) -> None:
    async with asyncio.timeout(5):
        while len(store.batches) < count:
            await asyncio.sleep(0)


async def test_a_create_alone_is_sent_at_once() -> None:
    store = Store()
    store.gate.set()
    joined = coalescer(store)
    for i in range(3):
        await asyncio.gather(*start(joined, f"k{i}"))
    assert store.batches == [["k0"], ["k1"], ["k2"]]


async def test_what_comes_at_the_same_moment_goes_together() -> None:
    store = Store()
    tasks = start(coalescer(store), "a", "b", "c")
    await until(store, 1)
    assert store.batches == [["a", "b", "c"]]
    store.gate.set()
    await asyncio.gather(*tasks)


async def test_as_many_as_the_time_before_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "WAIT_S", 60.0)
    monkeypatch.setattr(coalescing, "GATHER_S", 60.0)
    store = Store()
    store.gate.set()
    joined = coalescer(store)
    await asyncio.gather(*start(joined, "a", "b", "c"))
    first = start(joined, "d")
    for _ in range(5):
        await asyncio.sleep(0)
    assert store.batches == [["a", "b", "c"]]
    await asyncio.gather(*first, *start(joined, "e", "f"))
    assert store.batches[1:] == [["d", "e", "f"]]


async def test_fewer_than_the_time_before_are_not_waited_for_for_ever() -> None:
    store = Store()
    store.gate.set()
    joined = coalescer(store)
    await asyncio.gather(*start(joined, "a", "b", "c"))
    await asyncio.gather(*start(joined, "d"))
    assert store.batches[1:] == [["d"]]


async def test_a_second_batch_follows_one_that_is_under_way() -> None:
    store = Store()
    joined = coalescer(store)
    tasks = start(joined, "a")
    await until(store, 1)
    tasks += start(joined, "b")
    await until(store, 2)
    tasks += start(joined, *(f"k{i}" for i in range(2 * BATCH_MAX)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert store.batches == [["a"], ["b"]], "two at most"
    store.gate.set()
    await asyncio.gather(*tasks)
    assert [len(batch) for batch in store.batches] == [1, 1, BATCH_MAX, BATCH_MAX]


async def test_the_same_key_never_meets_itself() -> None:
    store = Store()
    joined = coalescer(store)
    tasks = start(joined, "a", "a")
    await until(store, 1)
    assert store.batches == [["a"]]
    store.gate.set()
    await asyncio.gather(*tasks)
    assert store.batches == [["a"], ["a"]]


async def test_where_quotas_are_counted_one_batch_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another would wait for the first's lock in the database, with a connection in its hands."""
    monkeypatch.setattr(coalescing, "WAIT_S", 0.0)
    store = Store()
    joined = coalescer(store)
    limited = SimpleNamespace(key="a", limits=((PROJECT, 1, None),))
    tasks = [asyncio.create_task(joined.create(PROJECT, limited))]  # type: ignore[arg-type]
    await until(store, 1)
    tasks += [
        asyncio.create_task(joined.create(PROJECT, SimpleNamespace(key=k, limits=limited.limits)))
        for k in "bc"
    ]  # type: ignore[arg-type]
    for _ in range(20):
        await asyncio.sleep(0)
    assert store.batches == [["a"]]
    store.gate.set()
    await asyncio.gather(*tasks)
    assert store.batches == [["a"], ["b", "c"]]


async def test_what_a_batch_has_made_is_told_once_whoever_still_waits() -> None:
    told: list[tuple[UUID, list[End]]] = []
    ids = {key: (UUID(int=10 + i), UUID(int=20 + i)) for i, key in enumerate("abc")}

    class Log(Store):
        async def create(
            self, project: UUID, route: str, now: datetime, batch: list[Any]
        ) -> dict[str, Created]:
            await self.gate.wait()
            # the third was made before
            return {
                c.key: Created(c.call_id, b"", c.key == "c", feed_xid=0 if c.key == "c" else 7) for c in batch
            }

    store = Log()
    joined = Coalescer(store, SystemClock(), "route", lambda project, ends: told.append((project, ends)))  # type: ignore[arg-type]
    tasks = [
        asyncio.create_task(
            joined.create(PROJECT, SimpleNamespace(key=key, limits=(), call_id=call, event_id=event))
        )  # type: ignore[arg-type]
        for key, (call, event) in ids.items()
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[0].cancel()
    store.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[0].cancelled()
    assert told == [(PROJECT, [End(ids[key][0], 1, 7, ids[key][1]) for key in "ab"])]
