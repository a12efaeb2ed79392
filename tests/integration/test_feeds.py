"""Events as they are read: filters, cursors and their age, streams, the WebSocket, readers that are slow."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app import exchange, housekeeping
from app.log import fan, live, sse
from app.log import socket as feed_socket_module
from app.log.append import EdgeIdentity
from app.log.horizon import Bound
from regions.wire import ids
from regions.wire.uplink import Volatile
from tests.support.api import Api, Project, serving
from tests.support.calls import WrittenCall, create_call, event, owners_in
from tests.support.feeds import feed_socket, streaming

WITHIN_S = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def owners(api: Api) -> list[EdgeIdentity]:
    return await owners_in(api, ("us-east", "eu-west"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(api: Api) -> AsyncIterator[Api]:
    """A second instance over the same database and Valkeys."""
    async with serving(api.settings) as served:
        yield served


async def call_with(api: Api, project: Project, owners: list[EdgeIdentity], *types: str) -> WrittenCall:
    call = await create_call(project, owners)
    if types:
        await call.append(api, 1, *(event(n + 1, type_) for n, type_ in enumerate(types)))
    return call


async def make(project: Project, **metadata: str) -> str:
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "metadata": metadata}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def listed(project: Project, least: int, **params: Any) -> list[dict[str, Any]]:
    """What `/v1/events` lists, once it has so many: what other tests write may hold the horizon back for a moment."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            answer = await project.client.get("/v1/events", params={"limit": 200, **params})
            assert answer.status_code == 200, answer.text
            found: list[dict[str, Any]] = answer.json()["data"]
            if len(found) >= least:
                return found
            await asyncio.sleep(0.02)


# --- filters and cursors ------------------------------------------------------------------------------------------


async def test_a_list_is_filtered_by_types_call_and_metadata(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await call_with(api, project, owners, "call.answered", "speech.started", "speech.stopped")
    tagged = await make(project, team="blue", shop="42")
    assert [e["type"] for e in await listed(project, 3, types="call.*")] == [
        "call.created",
        "call.answered",
        "call.created",
    ]
    assert [e["type"] for e in await listed(project, 2, types=["speech.*", "call.ended"])] == [
        "speech.started",
        "speech.stopped",
    ]
    assert [e["seq"] for e in await listed(project, 4, call_id=call.id)] == [1, 2, 3, 4]
    found = await listed(project, 1, **{"metadata.team": "blue"})
    assert [e["call_id"] for e in found] == [tagged]
    assert await listed(project, 0, **{"metadata.team": "blue", "metadata.shop": "43"}) == []
    other = await api.project()
    strange = await other.client.get("/v1/events", params={"call_id": call.id})
    assert (strange.status_code, strange.json()["code"]) == (404, "not_found")


async def test_a_cursor_with_another_filter_or_of_another_project_is_refused(
    api: Api, project: Project
) -> None:
    await make(project)
    other = await api.project()
    cursor = (await project.client.get("/v1/events", params={"types": "call.*"})).json()["next_cursor"]
    asked: list[tuple[Project, dict[str, Any]]] = [
        (project, {}), (project, {"types": "call.created"}), (project, {"types": "call.*", "metadata.a": "b"}),
        (other, {"types": "call.*"}),
    ]  # fmt: skip
    for who, params in asked:
        for path in ("/v1/events", "/v1/events/stream"):
            answer = await who.client.get(path, params=params | {"cursor": cursor})
            assert (answer.status_code, answer.json()["code"]) == (400, "cursor_mismatch"), (path, params)
    async with feed_socket(api, other.key) as ws:
        refused = await ws.subscribe(types=["call.*"], cursor=cursor)
        assert (refused["type"], refused["problem"]["code"]) == ("problem", "cursor_mismatch")
        assert await ws.closed() == (4400, "cursor_mismatch")
    same = await project.client.get("/v1/events", params={"types": "call.*", "cursor": cursor})
    assert same.status_code == 200


@pytest.mark.parametrize("garbage", ["garbage", "AAAA", "x" * 600])
async def test_garbage_is_refused_everywhere(api: Api, project: Project, garbage: str) -> None:
    for path in ("/v1/events", "/v1/events/stream"):
        answer = await project.client.get(path, params={"cursor": garbage})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")
    for path, client in (
        ("/v1/events/stream", project.client),
        ("/admin/v1/events/stream", api.operator),
    ):
        answer = await client.get(path, headers={"Last-Event-ID": garbage})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")
    async with feed_socket(api, project.key) as ws:
        refused = await ws.subscribe(cursor=garbage)
        assert refused["problem"]["status"] == 400
        assert (await ws.closed())[0] == 4400


@pytest.mark.parametrize(("params", "code"), [({"limit": -1}, "bad_limit"), ({"limit": 0}, "bad_limit")])
async def test_too_little_is_refused_and_too_much_is_clamped(
    project: Project, params: dict[str, Any], code: str
) -> None:
    answer = await project.client.get("/v1/events", params=params)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert (await project.client.get("/v1/events", params={"limit": 10**9})).status_code == 200


async def test_what_is_kept_no_longer_is_gone_and_never_skipped_in_silence(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    """A week of calls is dropped: readers from before are told, on every way, and given the way on."""
    call = await call_with(api, project, owners, "call.answered", "call.ended")
    await listed(project, 3)
    first = (await project.client.get("/v1/events", params={"limit": 1})).json()["next_cursor"]
    superuser = await asyncpg.connect(api.settings.database_url)
    old = UUID(int=int((datetime.now(UTC) - timedelta(days=7)).timestamp() * 1000) << 80 | 7 << 76 | 2 << 62)
    try:
        # the call as if it were of last week
        for table, key in (("calls", "id"), ("events", "call_id")):
            await superuser.execute(
                f"update vx.{table} set {key} = $1 where {key} = $2", old, ids.decode(ids.CALL, call.id)
            )
        gone = ids.encode(ids.CALL, old)
        assert (await project.client.get(f"/v1/calls/{gone}/events")).status_code == 200
        housework = housekeeping.Housekeeping(api.control.db, api.control.clock)
        await housework.drop_events()
        assert (await project.client.get("/v1/events", params={"cursor": first})).status_code == 200
        await housekeeping.Housekeeping(api.control.db, api.control.clock, events_kept_d=-10).drop_events()
        await superuser.execute("select vx.ensure_partitions(now() - interval '7 days', 5)")
    finally:
        await superuser.close()
    for path in ("/v1/events", "/v1/events/stream"):
        answer = await project.client.get(path, params={"cursor": first})
        assert (answer.status_code, answer.json()["code"]) == (410, "cursor_expired")
    restart = answer.json()["oldest_cursor"]
    async with feed_socket(api, project.key) as ws:
        refused = await ws.subscribe(cursor=first)
        assert (refused["problem"]["status"], refused["problem"]["oldest_cursor"]) == (410, restart)
        assert await ws.closed() == (4410, "cursor_expired")
    answer = await project.client.get(f"/v1/calls/{gone}/events")
    assert (answer.status_code, answer.json()["code"]) == (410, "events_expired")
    after = await make(project)
    async with streaming(project.client, last=restart) as stream:
        assert (await stream.event())["call_id"] == after
        reached = stream.cursor
    assert (await project.client.get("/v1/events", params={"cursor": reached})).status_code == 200


async def test_the_fleets_log_tells_of_its_age_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(2):
        await api.control.fleet_events.write(f"old:{n}", "edge.drained", "us-east", None, {})
    async with asyncio.timeout(WITHIN_S):
        while len((await api.operator.get("/admin/v1/events")).json()["data"]) < 2:
            await asyncio.sleep(0.02)
    first = (await api.operator.get("/admin/v1/events", params={"limit": 1})).json()["next_cursor"]
    superuser = await asyncpg.connect(api.settings.database_url)
    try:
        await superuser.execute("update vx.fleet_events set at = at - interval '91 days'")
        await api.control.db.pool("worker").execute(housekeeping.DROP_FLEET_EVENTS)
    finally:
        await superuser.close()
    for path in ("/admin/v1/events", "/admin/v1/events/stream"):
        answer = await api.operator.get(path, params={"cursor": first})
        assert (answer.status_code, answer.json()["code"]) == (410, "cursor_expired")
    again = await api.operator.get("/admin/v1/events", params={"cursor": answer.json()["oldest_cursor"]})
    assert again.status_code == 200
    changed = await api.operator.get(
        "/admin/v1/events", params={"cursor": again.json()["next_cursor"], "types": "edge.lost"}
    )
    assert (changed.status_code, changed.json()["code"]) == (400, "cursor_mismatch")


# --- streams ------------------------------------------------------------------------------------------------------


async def test_a_call_is_streamed_from_its_beginning(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await call_with(api, project, owners, "call.answered")
    await make(project)
    async with streaming(project.client, f"/v1/calls/{call.id}/events/stream") as stream:
        assert [e["seq"] for e in await stream.events(2)] == [1, 2]
        await make(project)
        await call.append(api, 1, event(2), event(3))
        assert [(e["call_id"], e["seq"]) for e in await stream.events(2)] == [(call.id, 3), (call.id, 4)]
        cursor = stream.cursor
    await call.append(api, 1, event(4))
    async with streaming(project.client, last=cursor, call_id=call.id) as stream:
        assert (await stream.event())["seq"] == 5
    assert (await project.client.get("/v1/calls/call_x/events/stream")).status_code == 404


async def test_streams_of_a_project_share_one_look_at_the_log(
    api: Api, project: Project, owners: list[EdgeIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty readers with filters of their own; each gets its own events, in order; the log is read once for all."""
    call = await call_with(api, project, owners, "call.answered")
    tagged = await make(project, team="a")
    await listed(project, 3)
    pages = 0
    feeds = api.control.feeds
    read_rows = feeds._rows

    async def counted(project_id: UUID, *rest: Any, **how: Any) -> Any:
        nonlocal pages
        found = await read_rows(project_id, *rest, **how)
        pages += bool(found[0]) and project_id == ids.decode(ids.PROJECT, project.id)
        return found

    monkeypatch.setattr(feeds, "_rows", counted)
    wanted: list[dict[str, Any]] = [{}, {"types": "speech.*"}, {"metadata.team": "a"}, {"call_id": call.id}]
    got: dict[int, list[dict[str, Any]]] = {}
    opened = asyncio.Semaphore(0)

    async def read(n: int) -> None:
        many = (4, 2, 1, 3)[n % 4]
        async with streaming(project.client, **wanted[n % 4]) as stream:
            opened.release()
            got[n] = await stream.events(many)

    readers = [asyncio.create_task(read(n)) for n in range(20)]
    for _ in readers:
        await opened.acquire()
    await call.append(api, 1, event(2), event(3, "speech.stopped"))
    await call.append(api, 1, event(4, "playback.started"))
    assert (await project.client.post(f"/v1/calls/{tagged}/end")).status_code == 200
    await asyncio.gather(*readers)
    for n in range(20):
        kinds = [(e["call_id"], e["seq"]) for e in got[n]]
        both = [(call.id, 3), (call.id, 4), (call.id, 5), (tagged, 2)]
        expected = [both, both[:2], both[3:], both[:3]][n % 4]
        assert kinds == expected
    assert 1 <= pages <= 6, "not once per reader"


async def test_a_project_has_so_many_readers_on_an_instance_and_no_more(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan, "READERS_MAX", 1)
    another = await api.project()
    followers, project_id = api.control.fan._followers, ids.decode(ids.PROJECT, project.id)
    async with streaming(project.client):
        async with asyncio.timeout(WITHIN_S):
            while project_id not in followers:
                await asyncio.sleep(0.01)
        full = await project.client.get("/v1/events/stream")
        assert (full.status_code, full.json()["code"]) == (429, "quota_exceeded")
        async with feed_socket(api, project.key) as ws:
            assert (await ws.subscribe())["problem"]["status"] == 429
        async with streaming(another.client):
            pass


async def test_cloudevents_in_lists_and_streams(project: Project) -> None:
    call = await make(project)
    async with asyncio.timeout(WITHIN_S):
        while not (page := await project.client.get("/v1/events", params={"format": "cloudevents"})).json()[
            "data"
        ]:
            await asyncio.sleep(0.02)
    (said,) = page.json()["data"]
    assert (said["type"], said["subject"], said["specversion"]) == ("dev.voxplane.call.created", call, "1.0")
    assert said["source"] == f"urn:voxplane:{project.id}"
    start = (await project.client.get("/v1/events", params={"limit": 1})).json()["next_cursor"]
    await project.client.post(f"/v1/calls/{call}/end")
    async with streaming(project.client, last=start, format="cloudevents") as stream:
        ended = await stream.event()
    assert (ended["type"], ended["voxseq"], ended["data"]) == (
        "dev.voxplane.call.ended", 2, {"end_reason": "ended_by_api"},
    )  # fmt: skip
    assert (await project.client.get("/v1/events", params={"format": "xml"})).status_code in (400, 422)


async def test_a_reader_that_does_not_read_is_cut_off_and_costs_no_more_than_its_bound(
    api: Api, project: Project, owners: list[EdgeIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real socket whose buffers fill up. Another reader of the project gets everything meanwhile."""
    monkeypatch.setattr(exchange, "READ_WITHIN_S", 0.5)
    call = await call_with(api, project, owners)
    await listed(project, 1)
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    deaf.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, ("127.0.0.1", api.port))
    await loop.sock_sendall(
        deaf,
        f"GET /v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {project.key}\r\n\r\n".encode(),
    )
    project_id = ids.decode(ids.PROJECT, project.id)
    followers = api.control.fan._followers
    async with asyncio.timeout(WITHIN_S):
        while project_id not in followers or not followers[project_id].seats:
            await asyncio.sleep(0.01)
    (seat,) = followers[project_id].seats
    count = 400
    async with streaming(project.client) as stream:
        reading = asyncio.create_task(
            stream.events(count)
        )  # from the beginning, as it would be cut off as well
        for n in range(1, count, 10):
            await call.append(api, 1, *(event(n + i, "speech.started", pad="x" * 16_000) for i in range(10)))
        assert [e["seq"] for e in await reading] == list(range(2, count + 2))
        async with asyncio.timeout(WITHIN_S):
            while seat in followers[project_id].seats:
                await asyncio.sleep(0.01)
    assert seat._bytes <= 1 << 20
    async with asyncio.timeout(WITHIN_S):
        assert not await everything(deaf), "what the kernel still held is read, then it is over"
    deaf.close()


async def everything(deaf: socket.socket) -> bool:
    """Reads up to the end; True where it ended in order, with a last chunk."""
    read = b""
    try:
        while part := await asyncio.get_running_loop().sock_recv(deaf, 1 << 16):
            read = (read + part)[-16:]
    except ConnectionError:
        return False
    return read.endswith(b"0\r\n\r\n")


# --- what instances tell each other -------------------------------------------------------------------------------


async def test_what_another_instance_made_durable_is_served_while_the_horizon_is_not_heard_of(
    api: Api, other: Api, project: Project, owners: list[EdgeIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a marker takes long, or the standbys do not answer it."""
    call = await call_with(api, project, owners, "call.answered")
    await listed(project, 2)
    asked = asyncio.Event()

    async def never() -> Bound:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with streaming(await other.client(project.key)) as far:
        # an event that is heard of shows that the follower there stands
        await call.append(api, 1, event(2, "speech.started"))
        assert [e["type"] for e in await far.events(1)] == ["speech.started"]
        monkeypatch.setattr(other.control.horizon, "look", never)
        other.control.hints.wake(f"feed:{ids.decode(ids.PROJECT, project.id)}")
        async with asyncio.timeout(WITHIN_S):
            await asked.wait()
        await call.append(api, 1, event(3, "speech.stopped"))
        made = await make(project)
        heard = await far.events(2)
        assert [(e["type"], e["call_id"]) for e in heard] == [
            ("speech.stopped", call.id),
            ("call.created", made),
        ]
        monkeypatch.undo()


# --- volatile events ----------------------------------------------------------------------------------------------


def partial(call: str, n: int, type_: str = "transcript.partial") -> Volatile:
    data = msgspec.Raw(msgspec.json.encode({"role": "caller", "text": f"word {n}"}))
    return Volatile(call=call, epoch=1, type=type_, at_ms=1_700_000_000_000 + n, data=data)


async def seated(api: Api, project: Project, count: int) -> None:
    """Until so many readers of the project are handed what is volatile: a moment after they were told that they have begun."""
    project_id = ids.decode(ids.PROJECT, project.id)
    async with asyncio.timeout(WITHIN_S):
        while len(api.control.live._seats.get(project_id, ())) < count:
            await asyncio.sleep(0.01)


async def test_volatile_events_reach_those_who_asked_on_any_instance_and_are_stored_nowhere(
    api: Api, other: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await call_with(api, project, owners, "call.answered")
    await listed(project, 2)
    far = await other.client(project.key)
    named = {"types": ["transcript.partial", "call.*"]}
    async with (
        streaming(project.client, volatile=True) as near,
        streaming(far, **named) as distant,
        streaming(project.client) as durable,
        feed_socket(api, project.key) as ws,
    ):
        await ws.subscribe(volatile=True, call_id=call.id)
        await seated(api, project, 2)
        told = asyncio.create_task(distant.block())
        said = 0
        async with asyncio.timeout(WITHIN_S):
            while not told.done():  # until the other instance listens
                said += 1
                api.control.live.heard(owners[0], partial(call.id, said))
                await asyncio.sleep(0.05)
        cursor, event_ = await told
        assert (cursor, event_ and event_["type"], "seq" in (event_ or {})) == (
            None,
            "transcript.partial",
            False,
        )
        cursor, first = await near.block()
        assert (cursor, first) == (None, {
            "type": "transcript.partial", "call_id": call.id, "epoch": 1, "region": "us-east",
            "timestamp": "2023-11-14T22:13:20.001Z", "data": {"role": "caller", "text": "word 1"},
        })  # fmt: skip
        while (heard := await ws.hear())["type"] == "ping":  # where the other instance took long to listen
            pass
        assert (heard["type"], heard["event"]["data"]["text"], heard["dropped"]) == ("volatile", "word 1", 0)
        # an edge may not speak of a call that it was never granted, nor nonsense
        stranger = EdgeIdentity(uuid4(), uuid4(), "us-east")
        api.control.live.heard(stranger, partial(call.id, 900))
        api.control.live.heard(owners[0], partial("call_x", 901))
        await call.append(api, 1, event(2, "call.ended"))
        assert (await durable.block())[1]["seq"] == 3  # type: ignore[index]
        seen = [await near.block()]
        while seen[-1][0] is None:
            seen.append(await near.block())
    assert seen[-1][1]["type"] == "call.ended"  # type: ignore[index]
    assert [e["data"]["text"] for _, e in seen[:-1] if e] == [f"word {n}" for n in range(2, said + 1)]
    assert [e["type"] for e in await listed(project, 3)] == ["call.created", "call.answered", "call.ended"]


async def test_a_volatile_event_goes_from_the_uplink_to_a_stream(
    api: Api, project: Project, owners: list[EdgeIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under pressure the oldest are dropped, and the reader is told how many; what is durable comes whole."""
    monkeypatch.setattr(live, "SEAT_MAX", 3)
    call = await call_with(api, project, owners)
    await listed(project, 1)
    async with feed_socket(api, project.key) as ws:
        await ws.subscribe(volatile=True)
        await seated(api, project, 1)
        for n in range(10):
            api.control.live.heard(owners[0], partial(call.id, n))
        heard = [await ws.hear() for _ in range(3)]
        assert [m["event"]["data"]["text"] for m in heard] == ["word 7", "word 8", "word 9"]
        assert heard[-1]["dropped"] == 7
        await call.append(api, 1, event(1))
        assert (await ws.event())["event"]["seq"] == 2
    text = (await (await api.client()).get("/metrics")).text
    assert 'voxplane_volatile_dropped_total{where="reader"}' in text


# --- the WebSocket ------------------------------------------------------------------------------------------------


async def test_a_socket_gives_events_within_its_window_and_goes_on_after_its_cursor(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await call_with(api, project, owners, "call.answered")
    await listed(project, 2)
    async with feed_socket(api, project.key) as ws:
        begun = await ws.subscribe(window=2)
        assert (begun["type"], begun["window"]) == ("subscribed", 2)
        await call.append(api, 1, event(2), event(3), event(4), event(5))
        first, second = [await ws.event(ack=False) for _ in range(2)]
        await ws.say("ping")
        assert (await ws.hear())["type"] == "pong", "nothing beyond the window came before it"
        await ws.say("ack", cursor=second["cursor"])
        third = await ws.event()
        assert [m["event"]["seq"] for m in (first, second, third)] == [3, 4, 5]
    page = (await project.client.get("/v1/events", params={"cursor": third["cursor"]})).json()
    assert [e["seq"] for e in page["data"]] == [6]
    async with feed_socket(api, project.key) as ws:
        await ws.subscribe(cursor=second["cursor"], window=10**6)
        assert [(await ws.event())["event"]["seq"] for _ in range(2)] == [5, 6]
    async with feed_socket(api, project.key) as ws:
        await ws.subscribe(cursor=begun["cursor"], format="cloudevents")
        assert (await ws.event())["event"]["type"] == "dev.voxplane.speech.started"
    narrow = {"types": ["speech.*"], "call_id": call.id, "metadata": {}}
    async with feed_socket(api, project.key) as ws:
        await ws.subscribe(**narrow)
        await call.append(api, 1, event(6, "playback.started"), event(7))
        assert (await ws.event())["event"]["type"] == "speech.started"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "bad_message"), ("[]", "bad_message"), ('{"type":"hello"}', "bad_message"), (b"\x00\xff", "bad_message"),
        ('{"type":"ack","cursor":"x"}', "bad_message"), ('{"type":"subscribe","window":0}', "bad_message"),
        ('{"type":"subscribe","more":1}', "bad_message"), ('{"type":"subscribe","types":["call.vanished"]}', "unknown_type"),
        ('{"type":"subscribe","metadata":{"a":"b"},"volatile":true}', "bad_filter"),
        ('{"type":"subscribe","call_id":"call_x"}', "not_found"), ('{"type":"' + "x" * 17_000 + '"}', "too_large"),
        ("[" * 5_000, "bad_message"),
    ],
    ids=range(12),
)  # fmt: skip
async def test_what_is_no_message_is_answered_with_a_problem_and_a_clean_close(
    api: Api, project: Project, message: str | bytes, code: str
) -> None:
    async with feed_socket(api, project.key) as ws:
        await ws.raw(message)
        refused = await ws.hear()
        assert (refused["type"], refused["problem"]["code"]) == ("problem", code)
        assert refused["problem"]["fix"]
        assert await ws.closed() == (4000 + refused["problem"]["status"], code)


async def test_nonsense_after_the_subscription_ends_it_with_the_place_to_go_on(
    api: Api, project: Project
) -> None:
    for nonsense in ({"type": "ack", "cursor": "x"}, {"type": "subscribe"}):
        async with feed_socket(api, project.key) as ws:
            begun = await ws.subscribe()
            await ws.raw(json.dumps(nonsense))
            refused = await ws.hear()
            assert (refused["problem"]["status"], refused["cursor"]) == (400, begun["cursor"])


async def test_a_socket_needs_a_key_that_may_read(api: Api, project: Project) -> None:
    for key, status, code in (
        ("vx_test_nonsense", 401, "unauthenticated"),
        (api.settings.operator_key, 403, "forbidden"),
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with feed_socket(api, key):
                raise AssertionError
        assert told(refused.value) == (status, code)


async def test_a_socket_where_there_is_none(api: Api) -> None:
    for path in ("/v1/nothing", "/v1/calls", "/v1/events/stream"):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(api.url.replace("http", "ws") + path, proxy=None):
                raise AssertionError
        assert told(refused.value) == (404, "not_found")


def told(error: InvalidStatus) -> tuple[int, str]:
    answer = error.response
    problem = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["request_id"]) == (answer.status_code, answer.headers["request-id"])
    assert problem["fix"]
    return answer.status_code, problem["code"]


async def test_a_socket_that_does_not_acknowledge_is_cut_off_with_its_cursor(
    api: Api, project: Project, owners: list[EdgeIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await call_with(api, project, owners)
    await listed(project, 1)
    async with feed_socket(api, project.key) as ws:
        await ws.subscribe(window=1)
        await call.append(api, 1, event(1), event(2), event(3))
        kept = await ws.event(ack=False)
        monkeypatch.setattr(feed_socket_module, "ACK_WITHIN_S", 0.2)  # of the next one
        await ws.say("ack", cursor=kept["cursor"])
        await ws.event(ack=False)
        last = await ws.hear()
        assert (last["problem"]["code"], last["cursor"]) == ("slow_reader", kept["cursor"])
        assert await ws.closed() == (4408, "slow_reader")
    async with feed_socket(api, project.key) as ws:
        await ws.subscribe(cursor=last["cursor"])
        assert [(await ws.event())["event"]["seq"] for _ in range(2)] == [3, 4]


async def test_a_socket_that_does_not_read_is_dropped(
    api: Api, project: Project, owners: list[EdgeIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_socket_module, "WRITE_WITHIN_S", 0.5)
    call = await call_with(api, project, owners)
    project_id = ids.decode(ids.PROJECT, project.id)
    async with feed_socket(api, project.key, max_queue=1, compression=None, close_timeout=0.1) as ws:
        await ws.subscribe(window=1_000)
        for n in range(1, 400, 10):
            await call.append(api, 1, *(event(n + i, pad="x" * 16_000) for i in range(10)))
        async with asyncio.timeout(WITHIN_S):
            while project_id in api.control.fan._followers:
                await asyncio.sleep(0.01)


async def test_a_socket_ends_with_its_key_and_says_that_it_lives(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "CHECK_EVERY_S", 0.02)
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.04)
    made = (await project.client.post("/v1/keys", json={"name": "v", "role": "viewer"})).json()
    async with feed_socket(api, made["secret"]) as ws:
        await ws.subscribe()
        ping = await ws.hear()
        assert (ping["type"], bool(ping["cursor"])) == ("ping", True)
        assert (await project.client.delete(f"/v1/keys/{made['id']}")).status_code == 204
        while (message := await ws.hear())["type"] == "ping":
            pass
        assert message["problem"]["status"] == 401
        assert await ws.closed() == (4401, "unauthenticated")


# --- what this instance made durable itself -----------------------------------------------------------------------


async def test_what_is_known_to_be_durable_waits_for_no_marker_and_what_nobody_told_of_does(
    api: Api, other: Api, project: Project, owners: list[EdgeIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await call_with(api, project, owners)
    feeds, stop, answers = api.control.feeds, asyncio.Event(), asyncio.Event()
    feed = feeds.follow(
        ids.decode(ids.PROJECT, project.id), await feeds.newest(), look_every_s=0.0, stop=stop
    )
    look = api.control.horizon.look
    # the other instance's word is lost
    monkeypatch.setattr(api.control.hints, "_heard", lambda line: None)

    async def slow() -> Bound:
        await answers.wait()
        return await look()

    async def next_seqs() -> list[int]:
        async for _, found in feed:
            if found:
                return [event.seq for _, event in found]
        raise AssertionError("the feed has ended")

    async with asyncio.timeout(WITHIN_S), aclosing(feed):
        await call.append(api, 1, event(1))
        first = await next_seqs()  # with a look, or its own
        monkeypatch.setattr(api.control.horizon, "look", slow)
        await call.append(api, 1, event(2), event(3))
        assert (first[-1], await next_seqs()) == (2, [3, 4])
        await call.append(other, 1, event(4))
        await call.append(api, 1, event(5))  # behind it in the log: its commit says that both are durable
        assert await next_seqs() == [5, 6]
        await call.append(other, 1, event(6))
        waiting = asyncio.create_task(next_seqs())
        assert (await asyncio.wait([waiting], timeout=0.2))[1]
        answers.set()
        assert await waiting == [7]
