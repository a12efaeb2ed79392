"""The timeline of a call: what it shows, in which order, to whom."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest_asyncio

from app.calls import timeline as pure
from app.log.append import EdgeIdentity
from regions.wire import ids
from regions.wire.uplink import CallEvents
from tests.support.api import Api, Project, problem
from tests.support.calls import WrittenCall, create_call, event, owners_in, said


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owners(api: Api) -> list[EdgeIdentity]:
    return await owners_in(api, ("us-east", "eu-west", "ap-south"))


async def timeline(project: Project, call: str) -> dict[str, Any]:
    answer = await project.client.get(f"/v1/calls/{call}/timeline")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def run(api: Api, statement: str, *values: Any) -> None:
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


async def moved_and_ended(api: Api, project: Project, owners: list[EdgeIdentity]) -> WrittenCall:
    call = await create_call(project, owners)
    await call.append(
        api, 1, event(1, "call.answered", encoding="pcm16", sample_rate=16_000),
        event(2, "agent.connected", fallback=False, resumed=False),
        said(3, "caller", "a secret order"), event(4),
    )  # fmt: skip
    gone = event(1, "call.reconnecting", from_epoch=1, to_epoch=2, reason="silent", history="tail")
    await call.append(api, 2, gone, event(2, "call.reconnected", from_epoch=1, region="eu-west"))
    stray = CallEvents(call=call.id, epoch=1, events=[event(5, "speech.stopped", offset_ms=900)])
    (status,) = await api.control.appender.append(owners[0], [stray])
    assert status.status == "fenced"
    await call.append(api, 2, event(3, "call.ended", end_reason="caller_hung_up"))
    return call


async def test_it_tells_who_had_the_call_from_when_and_why(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await moved_and_ended(api, project, owners)
    found = await timeline(project, call.id)
    events = [e for e in found["entries"] if e["kind"] == "event"]
    assert [(e["seq"], e["type"], e.get("state")) for e in events] == [
        (1, "call.created", "ringing"), (2, "call.answered", "in_progress"), (3, "agent.connected", None),
        (6, "call.reconnecting", "reconnecting"), (7, "call.reconnected", "in_progress"), (8, "call.ended", "completed"),
    ]  # fmt: skip
    edges = [ids.encode(ids.EDGE, o.edge_id) for o in owners]
    assert [e["owner"] for e in events if "owner" in e] == [
        {"epoch": 1, "edge": edges[0], "region": "us-east", "why": "created"},
        {"epoch": 2, "edge": edges[1], "region": "eu-west", "why": "silent"},
    ]
    assert (found["state"], found["end_reason"], found["incomplete"]) == ("completed", "caller_hung_up", [])
    assert events[-1]["data"] == {"end_reason": "caller_hung_up"}
    assert {c["region"]: c["reason"] for c in found["placement"]["candidates"]}["us-east"] == "chosen"
    assert [(e["type"], e["epoch"], e["n"], e["edge"]) for e in found["late"]] == [
        ("speech.stopped", 1, 5, edges[0])
    ]
    assert "secret" not in str(found)


async def test_a_caller_that_comes_to_a_standby_first_is_seen_there(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await create_call(project, owners)
    await call.append(api, 2, event(1, "call.answered", encoding="pcm16", sample_rate=16_000))
    await project.client.post(f"/v1/calls/{call.id}/end")
    found = await timeline(project, call.id)
    assert [e["owner"]["why"] for e in found["entries"] if "owner" in e] == ["created", "attached"]
    assert [e.get("state") for e in found["entries"]] == ["ringing", "in_progress", "completed"]


async def test_a_call_that_nobody_answered_says_so(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await create_call(project, owners)
    await project.client.post(f"/v1/calls/{call.id}/end")
    found = await timeline(project, call.id)
    assert [e.get("state") for e in found["entries"]] == ["ringing", "canceled"]
    assert len([e for e in found["entries"] if "owner" in e]) == 1


async def test_moves_and_deliveries_stand_where_they_happened(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await create_call(project, owners)
    await call.append(api, 1, event(1, "call.answered", encoding="pcm16", sample_rate=16_000))
    asked = await project.client.post(
        f"/v1/calls/{call.id}/move", json={"region": "ap-south", "within_s": 600}
    )
    assert asked.status_code == 202, asked.text
    epoch = asked.json()["epoch"]
    call.owners += [owners[2]] * (epoch - len(call.owners))
    await call.append(
        api, epoch, event(1, "call.moved", from_epoch=1, to_epoch=epoch, reason="planned", history="tail")
    )
    uuid, hook = ids.decode(ids.CALL, call.id), uuid4()
    await run(
        api,
        "insert into vx.delivery_attempts (call_id, webhook_id, seq, attempt, project_id, at, duration_ms, status, excerpt)"
        " values ($1, $2, 1, 1, $3, clock_timestamp(), 12, 503, 'what the receiver answered')",
        uuid, hook, ids.decode(ids.PROJECT, project.id),
    )  # fmt: skip
    found = await timeline(project, call.id)
    assert [(e["kind"], e.get("type")) for e in found["entries"]] == [
        ("event", "call.created"), ("event", "call.answered"), ("move", None), ("event", "call.moved"), ("delivery", None),
    ]  # fmt: skip
    move, delivery = found["entries"][2]["move"], found["entries"][4]["delivery"]
    assert (move["by"], move["epoch"], move["to_edge"]) == (
        "project",
        epoch,
        ids.encode(ids.EDGE, owners[2].edge_id),
    )
    assert delivery == {
        "webhook_id": ids.encode(ids.WEBHOOK, hook), "event_type": "call.created", "event_seq": 1, "attempt": 1, "status": 503,
        "error": None, "duration_ms": 12,
    }  # fmt: skip
    assert found["entries"][3]["owner"]["why"] == "planned"
    assert "receiver" not in str(found)
    blind = await api.key(project, "developer", scopes=["calls:read"])
    seen = (await blind.get(f"/v1/calls/{call.id}/timeline")).json()
    assert (seen["deliveries"], found["deliveries"]) == (False, True)
    assert "delivery" not in {e["kind"] for e in seen["entries"]}


async def test_what_is_too_much_is_left_out_and_said(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await create_call(project, owners)
    await run(
        api,
        "insert into vx.delivery_attempts (call_id, webhook_id, seq, attempt, project_id, at, duration_ms)"
        " select $1, $2, 1, n, $3, clock_timestamp(), 1 from generate_series(1, $4) n",
        ids.decode(ids.CALL, call.id), uuid4(), ids.decode(ids.PROJECT, project.id), pure.ATTEMPTS_MAX + 5,
    )  # fmt: skip
    found = await timeline(project, call.id)
    assert sum(e["kind"] == "delivery" for e in found["entries"]) == pure.ATTEMPTS_MAX
    assert found["incomplete"] == ["deliveries"]


async def test_it_is_the_projects_own_and_for_those_who_may_read_calls(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await moved_and_ended(api, project, owners)
    theirs = await api.project()
    for foreign in (call.id, "call_00000000000000000000000000", "nonsense"):
        answer = await theirs.client.get(f"/v1/calls/{foreign}/timeline")
        assert problem(answer) == (404, "not_found")
    blind = await api.key(project, "developer", scopes=["webhooks:read"])
    assert problem(await blind.get(f"/v1/calls/{call.id}/timeline")) == (403, "forbidden")
    viewer = await api.key(project, "viewer")
    assert (await viewer.get(f"/v1/calls/{call.id}/timeline")).status_code == 200
