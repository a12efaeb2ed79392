"""Feeds that are entered by time, what a filter may say once, and where the fault of a query stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from regions.wire import ids as wire
from tests.support.api import Api, Project, problem
from tests.support.cli import voxplane
from tests.support.feeds import feed_socket, streaming
from tests.support.fleet import three_regions
from tests.support.hooks import make_call, superuser, until


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


async def listed(project: Project, **params: Any) -> tuple[list[str], str | None]:
    """The calls of a list's events, and where to go on."""
    answer = await project.client.get("/v1/events", params={"limit": 200, **params})
    assert answer.status_code == 200, answer.text
    page = answer.json()
    return [e["call_id"] for e in page["data"]], page["next_cursor"]


async def four(api: Api, project: Project) -> tuple[list[str], list[str]]:
    """Four calls, stored an hour apart up to an hour ago; and the times."""
    calls = [await make_call(project) for _ in range(4)]
    now = datetime.now(UTC)
    times = [now - timedelta(hours=4 - n) for n in range(4)]

    async def durable() -> bool:
        return len((await listed(project))[0]) == 4

    await until(durable)
    async with superuser(api) as database:
        for call, at in zip(calls, times, strict=True):
            moved = "update vx.events set stored_at = $2 where call_id = $1"
            await database.execute(moved, wire.decode(wire.CALL, call), at)
    return calls, [t.isoformat() for t in times]


async def test_a_list_begins_and_ends_by_time_and_leaves_nothing_out(api: Api, project: Project) -> None:
    calls, times = await four(api, project)
    assert (await listed(project, since=times[2]))[0] == calls[2:]
    assert await listed(project, until=times[2]) == (calls[:2], None)
    assert await listed(project, since=times[1], until=times[3]) == (calls[1:3], None)
    first, cursor = await listed(project, since=times[1], until=times[3], limit=1)
    assert (first, cursor is not None) == (calls[1:2], True)
    assert await listed(project, since=times[1], until=times[3], cursor=cursor) == (calls[2:3], None)
    found, cursor = await listed(project, since=(datetime.now(UTC) - timedelta(seconds=1)).isoformat())
    assert found == []
    later = await make_call(project)

    async def comes() -> bool:
        return (await listed(project, cursor=cursor))[0] == [later]

    await until(comes)


async def test_streams_and_sockets_begin_by_time_too(api: Api, project: Project) -> None:
    calls, times = await four(api, project)
    async with streaming(project.client, since=times[2]) as events:
        assert [e["call_id"] for e in await events.events(2)] == calls[2:]
    async with feed_socket(api, project.key) as ws:
        begun = await ws.subscribe(since=times[3])
        assert begun["type"] == "subscribed"
        assert (await ws.event())["event"]["call_id"] == calls[3]


async def test_it_looks_no_further_back_than_the_mark_before_it(api: Api, project: Project) -> None:
    calls, times = await four(api, project)
    async with superuser(api) as database:
        at = "select feed_xid from vx.events where call_id = $1"
        third = await database.fetchval(at, wire.decode(wire.CALL, calls[2]))
        mark = datetime.fromisoformat(times[2]) - timedelta(seconds=11)
        put = "insert into vx.feed_marks (at, xid) values ($1, $2)"
        await database.execute(put, mark, third)
        # as if the first had been stored late: behind the mark it is not looked for
        late = "update vx.events set stored_at = now() where call_id = $1"
        await database.execute(late, wire.decode(wire.CALL, calls[0]))
        assert (await listed(project, since=times[2]))[0] == calls[2:]
        assert (await listed(project, since=times[1]))[0] == calls, "there is no mark so early"
        await database.execute("delete from vx.feed_marks where at = $1", mark)


async def test_marks_are_written_by_one_instance_at_a_time(api: Api) -> None:
    async with superuser(api) as database:
        recent = "select count(*) from vx.feed_marks where at > clock_timestamp() - interval '9 seconds'"

        async def one() -> bool:
            return await database.fetchval(recent) == 1

        await until(one)
        ahead = (
            "select bool_and(xid <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint) from vx.feed_marks"
        )
        assert await database.fetchval(ahead)


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"since": "yesterday"}, "/since"),
        ({"since": "2026-01-01T00:00:00"}, "/since"),
        ({"since": "2999-01-01T00:00:00Z"}, "/since"),
        ({"since": "2001-01-01T00:00:00Z"}, "/since"),
        ({"until": "soon"}, "/until"),
        ({"until": "2001-01-01T00:00:00Z"}, "/until"),
        ({"format": "xml"}, "/format"),
    ],
)
async def test_the_place_of_the_fault_is_said(
    api: Api, project: Project, params: dict[str, str], pointer: str
) -> None:
    paths = ["/v1/events"] if "until" in params else ["/v1/events", "/v1/events/stream"]
    for path in paths:
        refused = await project.client.get(path, params=params)
        assert problem(refused) == (422, "invalid"), refused.text
        assert [e["pointer"] for e in refused.json()["errors"]] == [pointer]
    if "since" in params:
        async with feed_socket(api, project.key) as ws:
            assert (await ws.subscribe(**params))["problem"]["errors"][0]["pointer"] == pointer


async def test_a_name_of_metadata_is_asked_for_once(project: Project) -> None:
    for path in ("/v1/events", "/v1/events/stream"):
        refused = await project.client.get(path, params=[("metadata.a", "1"), ("metadata.a", "2")])
        assert problem(refused) == (400, "bad_filter")
        assert refused.json()["errors"][0]["pointer"] == "/metadata.a"


async def test_an_empty_cursor_is_none_everywhere(api: Api, project: Project) -> None:
    await make_call(project)
    assert (await project.client.get("/v1/events", params={"cursor": ""})).status_code == 200
    async with streaming(project.client, cursor="") as events:
        async with feed_socket(api, project.key) as ws:
            assert (await ws.subscribe(cursor=""))["type"] == "subscribed"
            second = await make_call(project)
            assert (await ws.event())["event"]["call_id"] == second
        assert (await events.event())["call_id"] == second


async def test_from_the_command_line(api: Api, project: Project) -> None:
    calls, times = await four(api, project)
    env = {"VOXPLANE_URL": api.url, "VOXPLANE_API_KEY": project.key}
    shown = await voxplane("events", "--since", "150m", **env)
    assert shown.code == 0, shown.err
    assert (shown.code, [line.split()[1] for line in shown.out.splitlines()]) == (0, calls[2:])
    shown = await voxplane("events", "--since", times[0], "--until", times[1], **env)
    assert [line.split()[1] for line in shown.out.splitlines()] == calls[:1]
    assert (await voxplane("events", "--follow", "--until", times[1], **env)).code == 2
