"""The log of a project's requests: what stands in it and what never does, its bounds, and that nobody waits for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from app.projects import request_log
from app.projects.auth import Principal
from app.projects.request_log import RequestLog
from regions.wire import ids as wire
from tests.support.api import Api, Project, problem
from tests.support.cli import voxplane
from tests.support.fleet import three_regions
from tests.support.hooks import make_call, superuser, until


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)
    async with superuser(api) as database:
        await database.execute("select vx.turn_requests(now(), 3)")


async def logged(project: Project, least: int, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        answer = await project.client.get("/v1/requests", params={"limit": 200, **params})
        assert answer.status_code == 200, answer.text
        found[:] = [r for r in answer.json()["data"] if r["route"] != "/v1/requests"]
        return len(found) >= least

    await until(there)
    return found


async def test_requests_are_logged_with_their_routes_and_without_what_they_carry(
    api: Api, project: Project
) -> None:
    call = await make_call(project, metadata={"secret": "s3cret"})
    await make_call(project)  # by the lane for creates
    await project.client.get(f"/v1/calls/{call}", headers={"Request-Id": "mine-1"})
    await project.client.get("/v1/events", params={"call_id": "call_nonsense"})
    await project.client.head("/v1/regions")
    await api.operator.get("/admin/v1/projects")
    found = await logged(project, 5)
    assert [(r["method"], r["route"], r["status"]) for r in found] == [
        ("HEAD", "/v1/regions", 200),
        ("GET", "/v1/events", 404),
        ("GET", "/v1/calls/{call_id}", 200),
        ("POST", "/v1/calls", 201),
        ("POST", "/v1/calls", 201),
    ]
    assert found[2]["request_id"] == "mine-1"
    assert call not in str(found)
    assert "s3cret" not in str(found)
    keys = (await project.client.get("/v1/keys")).json()["data"]
    assert {r["key_id"] for r in found} == {keys[0]["id"]}
    assert [r["status"] for r in await logged(project, 1, failed="true")] == [404]


async def test_it_is_read_page_by_page_and_by_its_project_alone(api: Api, project: Project) -> None:
    for _ in range(3):
        await project.client.get("/v1/regions")
    await logged(project, 3)
    first = (await project.client.get("/v1/requests", params={"limit": 2})).json()
    second = (
        await project.client.get("/v1/requests", params={"limit": 2, "cursor": first["next_cursor"]})
    ).json()
    assert {r["request_id"] for r in first["data"]}.isdisjoint(r["request_id"] for r in second["data"])
    other = await api.project()
    await other.client.get("/v1/keys")
    assert {r["route"] for r in await logged(other, 1)} == {"/v1/keys"}
    refused = await project.client.get("/v1/requests", params={"cursor": "nonsense"})
    assert problem(refused) == (400, "bad_cursor")


async def test_what_is_too_much_is_counted_and_not_kept(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "WAITING_MAX", 3)
    log = RequestLog(api.control.db, api.control.clock)
    project_id = wire.decode(wire.PROJECT, project.id)
    assert project_id is not None
    who = Principal(project_id, uuid4(), "test", "owner", frozenset(), 0)
    for n in range(5):
        log.note(who, f"r{n}", "GET", "/v1/x", 200, 1.4)
    await log.flush()
    log.note(who, "r5", "GET", "/v1/x", 200, 1.6)
    await log.flush()
    found = [r for r in await logged(project, 4) if r["route"] == "/v1/x"]
    assert [(r["request_id"], r["left_out"], r["duration_ms"]) for r in found] == [
        ("r5", 2, 2), ("r2", 0, 1), ("r1", 0, 1), ("r0", 0, 1),
    ]  # fmt: skip


async def test_a_database_that_is_away_costs_what_has_no_room_and_nothing_else(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RequestLog(api.control.db, api.control.clock)
    project_id = wire.decode(wire.PROJECT, project.id)
    assert project_id is not None
    who = Principal(project_id, uuid4(), "test", "owner", frozenset(), 0)
    log.note(who, "kept", "GET", "/v1/y", 200, 1.0)
    monkeypatch.setattr(request_log, "INSERT", request_log.INSERT.replace("vx.requests", "vx.away"))
    with pytest.raises(asyncpg.PostgresError):
        await log.flush()
    monkeypatch.undo()
    await log.flush()
    assert "/v1/y" in {r["route"] for r in await logged(project, 1)}


async def test_days_are_dropped(api: Api) -> None:
    async with superuser(api) as database:
        parts = "select count(*) from pg_class where relname ~ '^requests[0-9]{8}$'"
        now = datetime.now(UTC)
        await database.execute(
            "select vx.turn_requests($1, 3)", now
        )  # it may be another day than it was at the start
        before = await database.fetchval(parts)
        await database.execute("select vx.turn_requests($1, 3)", now - timedelta(days=30))
        assert await database.fetchval(parts) == before + 4
        await database.execute("select vx.turn_requests($1, 3)", now)
        assert await database.fetchval(parts) == before


async def test_from_the_command_line(api: Api, project: Project) -> None:
    env = {"VOXPLANE_URL": api.url, "VOXPLANE_API_KEY": project.key}
    await project.client.get("/v1/calls/call_nonsense")
    await logged(project, 1)
    await asyncio.gather(project.client.get("/v1/regions"))
    shown = await voxplane("logs", "--failed", **env)
    assert shown.code == 0
    (line,) = shown.out.splitlines()
    assert "  404  " in line
    assert "/v1/calls/{call_id}" in line
