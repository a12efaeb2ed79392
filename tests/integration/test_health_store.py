"""Verdicts as they are written down: once for each version, and never too many down, whoever writes at the same time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest_asyncio

from app.db import Database
from app.fleet.detector import Detector, EdgeRow, Look, RegionTransition, Transition
from app.fleet.health import EJECT_LOCK, LOCK, HealthStore
from app.fleet.verdicts import State
from app.hints import Hints
from app.ids import new_id
from regions.wire import ids

AT = datetime(2026, 1, 1, tzinfo=UTC)
EDGES = [UUID(int=n) for n in (1, 2, 3)]
DOWN = State(verdict="down", action="quarantine", case="silent", flaps=1, owed=True, version=1)


@pytest_asyncio.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with Database.open(database_url) as opened:
        yield opened


def look(*edges: UUID) -> Look:
    """As an instance has it that would hold these down, one of three at most."""
    rows = [EdgeRow(id=e, region="lab", seen_at=AT, db_silent_s=0.0) for e in EDGES]
    found = Detector().look(0.0, rows, {})
    moved = tuple(Transition(edge=e, region="lab", before=State(), after=DOWN) for e in edges)
    return Look(judgements=found.judgements, transitions=moved, ejected_max=1)


async def written(db: Database) -> tuple[list[tuple[str, str, int]], list[str]]:
    rows = await db.pool("admin").fetch(
        "select subject, verdict, version from vx.health order by kind, subject"
    )
    events = await db.pool("admin").fetch("select type from vx.fleet_events order by n")
    return [tuple(r) for r in rows], [e["type"] for e in events]


async def test_many_instances_write_one_transition_once(db: Database) -> None:
    stores = [HealthStore(db, Hints({})) for _ in range(8)]
    region = RegionTransition(region="lab", before=State(), after=DOWN)
    await asyncio.gather(*(s.write(look(EDGES[0]), [region]) for s in stores))
    rows, events = await written(db)
    assert rows == [(str(EDGES[0]), "down", 1), ("lab", "down", 1)]
    assert sorted(events) == ["edge.lost", "region.down"]


async def test_a_transition_that_was_decided_on_something_older_is_not_written(db: Database) -> None:
    store = HealthStore(db, Hints({}))
    await store.write(look(EDGES[0]), [])
    for version in (1, 3, 9):
        late = State(verdict="healthy", version=version)
        moved = Transition(edge=EDGES[0], region="lab", before=DOWN, after=late)
        await store.write(Look(judgements=look().judgements, transitions=(moved,)), [])
    assert await written(db) == ([(str(EDGES[0]), "down", 1)], ["edge.lost"])


async def test_instances_that_eject_different_edges_do_not_eject_too_many(db: Database) -> None:
    stores = [HealthStore(db, Hints({})) for _ in EDGES]
    await asyncio.gather(*(s.write(look(e), []) for s, e in zip(stores, EDGES, strict=True)))
    rows, events = await written(db)
    assert [v for _, v, _ in rows] == ["down"]
    assert events == ["edge.lost"]


async def test_who_ejects_waits_for_the_one_before(db: Database) -> None:
    store = HealthStore(db, Hints({}))
    async with db.pool("admin").acquire() as other:
        under_way = other.transaction()
        await under_way.start()
        await other.execute(EJECT_LOCK, LOCK)
        await other.execute(
            "insert into vx.health (kind, subject, verdict, version) values ('edge', $1, 'down', 1)",
            str(EDGES[0]),
        )
        writing = asyncio.create_task(store.write(look(EDGES[1]), []))
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        while not writing.done() and await other.fetchval(waiting) == 0:
            await asyncio.sleep(0.01)
        await under_way.commit()
    await writing
    assert [v for _, v, _ in (await written(db))[0]] == ["down"]


async def test_an_age_is_the_observers_own_from_first_sight_on(db: Database) -> None:
    store = HealthStore(db, Hints({}))
    await store.write(look(EDGES[0]), [])
    async with db.pool("admin").acquire() as connection:
        first, _, _ = await store.read(connection, 100.0)
        await connection.execute("update vx.health set since = since - interval '1 hour'")
        then, _, _ = await store.read(connection, 107.0)
        fresh, _, _ = await HealthStore(db, Hints({})).read(connection, 107.0)
        await connection.execute("update vx.health set since = since + interval '9 hours'")
        future, _, _ = await HealthStore(db, Hints({})).read(connection, 107.0)
    edge = EDGES[0]
    assert round(then[edge].age_s - first[edge].age_s, 6) == 7.0
    assert fresh[edge].age_s > 3_600
    assert future[edge].age_s == 0.0


async def test_callers_that_a_drill_has_sent_away_are_no_evidence(db: Database) -> None:
    """They have gone to several regions, and all at once: else the edge would be suspected, and its other calls moved off."""
    drilled, left, drill = new_id(), new_id(), new_id()
    failures = [
        [ids.encode(ids.CALL, c), ids.encode(ids.EDGE, EDGES[0]), "closed", 10] for c in (drilled, left)
    ]
    async with db.pool("admin").acquire() as connection:
        await connection.execute("insert into vx.regions (id, jurisdiction) values ('lab', 'us')")
        for i, edge in enumerate(EDGES):
            await connection.execute(
                "insert into vx.edges (id, region, name, incarnation, public_key, media_url, http_url, capacity_calls)"
                " values ($1, 'lab', $2, $1, '', '', '', 1)",
                edge, f"e{i}",
            )  # fmt: skip
        await connection.execute(
            "insert into vx.observations (edge_id, at, lag_ms, seen) values ($1, clock_timestamp(), 0, $2)",
            EDGES[1], json.dumps([[], failures]),
        )  # fmt: skip
        await connection.execute(
            "insert into vx.drills (id, region, request, total, deadline_at) values ($1, 'lab', '{}', 1, now())",
            drill,
        )
        await connection.execute(
            "insert into vx.drill_calls (drill_id, call_id, wave, region, edge_id, epoch) values ($1, $2, 1, 'lab', $3, 1)",
            drill, drilled, EDGES[0],
        )  # fmt: skip
        _, _, [report] = await HealthStore(db, Hints({})).read(connection, 100.0)
    assert [x.call for x in report.left] == [left]
