"""The simulator's own parts: time that passes only when it is told to, lives that end where they stand, links that hold back,
commits that are visible and not durable."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any
from uuid import UUID, uuid4

import pytest
from asyncpg import exceptions as pg

from app.connection import CommitUnknown
from app.log.horizon import READ
from tests.simulation.clocks import MONOTONIC_BASE_S, Machine, lease_s, monotonic_s
from tests.simulation.driver import SimDatabase
from tests.simulation.loop import Life, SimLoop
from tests.simulation.network import Cut, End, Inbox, Network
from tests.simulation.postgres import Cluster
from tests.simulation.statements import Statements

MARKERS = tuple(UUID(int=i) for i in range(1, 9))


def life(loop: SimLoop, name: str, **clock: float) -> Life:
    return Life(loop, name, Machine(loop, name, "here", **clock))


def outcome(loop: SimLoop, who: Life, work: Coroutine[Any, Any, Any], until_s: float = 60.0) -> Any:
    task = who.spawn(work)
    loop.run(until_s)
    return task.result() if task.done() else None


def test_time_passes_only_where_somebody_waits() -> None:
    loop = SimLoop(1)
    one = life(loop, "one")

    async def sleep() -> float:
        await asyncio.sleep(3600)
        return loop.now

    assert outcome(loop, one, sleep(), 4000) == 3600
    assert loop.steps < 10


def test_a_life_that_dies_runs_nothing_more_and_one_that_is_stopped_goes_on_later() -> None:
    loop = SimLoop(1)
    done: list[str] = []

    async def work(name: str) -> None:
        for i in range(5):
            await asyncio.sleep(1)
            done.append(f"{name}{i}")

    mortal, sleeper = life(loop, "mortal"), life(loop, "sleeper")
    mortal.spawn(work("m"))
    sleeper.spawn(work("s"))
    loop.world_at(2.5, mortal.kill)
    loop.world_at(2.5, sleeper.stop)
    loop.run(10)
    assert done == ["m0", "s0", "m1", "s1"] or sorted(done) == ["m0", "m1", "s0", "s1"]
    sleeper.go_on(slept=False)
    loop.run(20)
    assert [d for d in done if d.startswith("s")] == ["s0", "s1", "s2", "s3", "s4"]
    assert len([d for d in done if d.startswith("m")]) == 2


def test_a_fuse_lets_a_life_die_between_any_two_callbacks() -> None:
    for steps in range(1, 6):
        loop = SimLoop(1)
        one = life(loop, "one")
        reached: list[int] = []

        async def work(reached: list[int] = reached) -> None:
            for i in range(5):
                await asyncio.sleep(0)
                reached.append(i)

        one.spawn(work())
        one.fuse = steps
        loop.run(1)
        assert reached == list(range(steps - 1))


def test_a_machine_that_slept_counts_it_for_leases_and_not_for_timers() -> None:
    loop = SimLoop(1)
    one = life(loop, "one")
    seen: list[tuple[float, float, float]] = []

    async def work() -> None:
        await asyncio.sleep(2)
        seen.append((loop.now, monotonic_s(loop), lease_s(loop)))

    one.spawn(work())
    loop.run(1)
    one.stop()
    loop.run(11)
    one.go_on(slept=True)
    loop.run(30)
    ((now, monotonic, lease),) = seen
    assert (round(now, 6), round(monotonic, 6), round(lease, 6)) == (
        12,
        MONOTONIC_BASE_S + 2,
        MONOTONIC_BASE_S + 12,
    )


def test_a_fast_clock_has_fast_timers() -> None:
    loop = SimLoop(1)
    one = life(loop, "one", rate=1.01)

    async def work() -> float:
        await asyncio.sleep(101)
        return loop.now

    assert outcome(loop, one, work(), 200) == pytest.approx(100)


def connected() -> tuple[SimLoop, Network, Life, Life, End, Inbox]:
    loop = SimLoop(1)
    network = Network(loop, random.Random(1), {})
    client, server = life(loop, "client"), life(loop, "server")
    boxes: list[Inbox] = []

    def accept(end: End, hello: Any) -> None:
        end.receiver = Inbox(end)
        boxes.append(end.receiver)

    network.listen("there", server, accept=accept)
    end = outcome(loop, client, network.connect(client, "there"), 1)
    return loop, network, client, server, end, boxes[0]


def test_what_a_cut_held_back_comes_in_order_once_it_has_healed() -> None:
    loop, network, _, _, end, inbox = connected()
    cut = Cut(frozenset({"client"}), frozenset({"server"}))
    end.send("a")
    loop.run(2)
    network.cut(cut)
    end.send("b")
    end.send("c")
    loop.run(5)
    assert inbox.waiting == ["a"]
    network.heal(cut)
    end.send("d")
    loop.run(6)
    assert inbox.waiting == ["a", "b", "c", "d"]


def test_a_process_that_dies_breaks_its_streams_and_one_without_power_says_nothing() -> None:
    for silently in (False, True):
        loop, network, client, _, _, inbox = connected()
        client.kill()
        network.life_ended(client, silently=silently)
        loop.run(5)
        assert inbox.over is not silently


class Database:
    """A cluster of three and one client, in one region."""

    def __init__(self) -> None:
        self.loop = SimLoop(1)
        self.network = Network(self.loop, random.Random(1), {})
        machines = [Machine(self.loop, f"pg-{i}", "here") for i in range(3)]
        self.cluster = Cluster(self.loop, self.network, random.Random(2), Statements(), machines, ttl_s=1.0)
        self.cluster.begin_with([])
        self.durable: list[int] = []
        self.cluster.on_durable = lambda commit: self.durable.append(commit.lsn)
        self.client = life(self.loop, "client")
        self.pool = SimDatabase(self.cluster, self.client).pool("worker")

    def mark(self, i: int, *, timeout: float = 5.0) -> asyncio.Task[Any]:
        return self.client.spawn(self.pool.fetchval(READ, MARKERS[i], False, timeout=timeout))

    def markers(self) -> list[UUID]:
        primary = self.cluster.primary
        assert primary is not None
        return sorted(primary.tables.rows["horizon"], key=lambda u: u.int)


def test_a_commit_is_answered_once_a_standby_has_it() -> None:
    db = Database()
    task = db.mark(0)
    db.loop.run(1)
    assert task.result() > 0
    assert db.durable == [1]


def test_with_both_standbys_dead_nothing_is_acknowledged_and_what_is_cancelled_is_visible_all_the_same() -> (
    None
):
    db = Database()
    for standby in db.cluster.members[1:]:
        db.cluster.kill(standby, silently=False)
    tasks = [db.mark(i, timeout=0.5) for i in range(4)]
    db.loop.run(3)
    assert all(isinstance(task.exception(), TimeoutError) for task in tasks)
    assert not db.durable
    assert db.markers(), "a cancelled wait leaves a commit that can be seen"


def test_a_promotion_keeps_what_was_acknowledged_and_loses_what_was_not() -> None:
    db = Database()
    db.mark(0)
    db.loop.run(1)
    for i in (1, 2):
        db.network.cut(Cut(frozenset({"pg-0"}), frozenset({f"pg-{i}"})))
    lost = db.mark(1)
    db.loop.run(1.1)
    db.cluster.kill(db.cluster.members[0], silently=False)
    db.loop.run(6)
    assert isinstance(lost.exception(), pg.ConnectionDoesNotExistError)
    assert db.markers() == [MARKERS[0]]
    again = db.mark(2)
    db.loop.run(8)
    assert again.result() > 0, "the new primary has one standby left"


def test_a_standby_that_sees_nobody_is_not_promoted() -> None:
    db = Database()
    db.cluster.kill(db.cluster.members[0], silently=False)
    db.cluster.kill(db.cluster.members[1], silently=False)
    db.loop.run(10)
    assert db.cluster.primary is db.cluster.members[0]
    task = db.mark(0)
    db.loop.run(20)
    assert isinstance(task.exception(), OSError)


def test_a_second_writer_of_a_row_waits_for_the_first() -> None:
    db = Database()
    tasks = [db.mark(0) for _ in range(3)]
    db.loop.run(2)
    assert all(task.result() > 0 for task in tasks)
    assert len(db.durable) == 3


def test_a_statement_that_the_model_was_never_told_is_an_error() -> None:
    db = Database()
    task = db.client.spawn(db.pool.fetch("select 1", uuid4()))
    db.loop.run(1)
    assert not task.done()
    assert any(isinstance(c.get("exception"), LookupError) for c in db.loop.unhandled)


def test_a_wait_that_is_cut_short_is_told_as_unknown_and_seen() -> None:
    db = Database()
    for standby in db.cluster.members[1:]:
        db.cluster.kill(standby, silently=False)
    task = db.mark(0)
    db.loop.run(1)
    assert not task.done()
    db.cluster.cut_waits()
    db.loop.run(2)
    assert isinstance(task.exception(), CommitUnknown)
    assert db.markers() == [MARKERS[0]]
    assert not db.durable
