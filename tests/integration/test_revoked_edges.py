"""An edge, or a region, that is trusted no more: what it had ends, whatever it holds, and its name begins anew."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from websockets.exceptions import ConnectionClosed, InvalidStatus

from regions.edge.identity import Identity
from regions.wire import ids
from tests.integration.test_uplink import Edge, body, edge, enrol, event, events, heard, placed, register
from tests.support.api import Api, Project, problem
from tests.support.fleet import add_region

__all__ = ["edge"]


async def revoke(api: Api, what: str, id_: str, **sent: Any) -> dict[str, Any]:
    answer = await api.operator.post(f"/admin/v1/{what}/{id_}/revoke", json=sent)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def closes(socket: Any) -> str:
    """The code of the goodbye; an empty one where there was none. It is told no more keys before."""
    said = ""
    try:
        async with asyncio.timeout(15):
            while True:
                message = json.loads(await socket.recv())
                assert message["type"] != "keys"
                said = message["code"] if message["type"] == "goodbye" else said
    except ConnectionClosed:
        return said


async def test_a_revoked_edge_is_cut_off_and_let_in_nowhere(project: Project, edge: Edge) -> None:
    api = edge.api
    await add_region(api, "refuge")
    waiting, known = await enrol(api, edge.region), set(api.control.keyring.fleet_secrets)
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        assert (await heard(socket))["type"] == "welcome"
        call = await placed(project, edge)
        done = await revoke(api, "edges", edge.identity.edge_id, reason="disk was stolen")
        assert await closes(socket) == "unauthorized"  # though it sends no heartbeat that could be superseded

    assert [(e["id"], e["name"]) for e in done["edges"]] == [(edge.identity.edge_id, edge.name)]
    assert (done["evacuation"]["kind"], done["evacuation"]["edge"]) == ("evacuate", edge.identity.edge_id)
    assert done["keys_rotated"]
    assert len(set(api.control.keyring.fleet_secrets) - known) == 1
    shown = (await api.operator.get(f"/admin/v1/edges/{edge.identity.edge_id}")).json()
    assert (shown["name"], shown["health"], shown["stopped"]) == (edge.name, "down", True)
    assert shown["revoked_at"] == done["edges"][0]["revoked_at"]

    # neither its own token nor one that the region had given out lets it in again, and nothing it says is heard
    own = await register(
        api, edge.identity.token(edge.region), body(edge.identity, name=edge.name, region=edge.region)
    )
    assert problem(own) == (401, "edge_revoked")
    with pytest.raises(InvalidStatus):
        async with edge.uplink():
            pass
    void = await register(api, waiting, body(edge.identity, name="another", region=edge.region))
    assert (problem(void), "void" in void.json()["detail"]) == ((401, "unauthenticated"), True)
    again = await register(
        api, await enrol(api, edge.region), body(edge.identity, name="another", region=edge.region)
    )
    assert problem(again) == (401, "edge_revoked")

    # twice is as good as once
    assert (await revoke(api, "edges", edge.identity.edge_id))["edges"] == []
    log = (await api.operator.get("/admin/v1/events", params={"types": "edge.revoked"})).json()["data"]
    assert [e["data"] for e in log if e["edge"] == edge.identity.edge_id] == [
        {"name": edge.name, "reason": "disk was stolen"}
    ]
    # its grants are nobody's: the call may end though no edge denies that it holds it
    assert await api.control.db.pool("worker").fetchval(
        "select not exists (select from vx.edges e where (e.id, e.incarnation) = (c.grant_edges[1], c.grant_incarnations[1]))"
        "  from vx.calls c where c.id = $1",
        ids.decode(ids.CALL, call),
    )


async def test_its_name_takes_a_fresh_enrolment_with_another_key(
    project: Project, edge: Edge, tmp_path: Path
) -> None:
    await add_region(edge.api, "refuge")
    await revoke(edge.api, "edges", edge.identity.edge_id)
    fresh = Identity(tmp_path / "fresh")
    made = await register(
        edge.api, await enrol(edge.api, edge.region), body(fresh, name=edge.name, region=edge.region)
    )
    assert made.status_code == 200, made.text
    assert made.json()["edge_id"] != edge.identity.edge_id
    fresh.registered(made.json()["edge_id"])
    successor = Edge(edge.api, fresh, edge.name, edge.region)
    await edge.api.operator.post(f"/admin/v1/regions/{edge.region}/uncordon")
    async with successor.uplink() as socket:
        await socket.send(successor.hello())
        assert (await heard(socket))["type"] == "welcome"
        call = await placed(project, successor)
        await socket.send(events(call, event(1)))
        while (acked := await heard(socket))["type"] != "ack":
            pass
        assert acked["results"][0]["status"] == "durable"


async def test_a_region_is_revoked_whole_and_takes_no_calls_until_it_is_uncordoned(
    api: Api, edge: Edge
) -> None:
    await add_region(api, "refuge")
    await add_region(api, edge.region)
    done = await revoke(api, "regions", edge.region)
    assert len(done["edges"]) == 2
    edges = (await api.operator.get("/admin/v1/edges")).json()["data"]
    assert all(
        (e["revoked_at"] is not None) == (e["region"] == edge.region) or e["revoked_at"] for e in edges
    )
    shown = (await api.operator.get(f"/admin/v1/regions/{edge.region}")).json()
    assert (shown["admin_state"], shown["probes"]) == ("draining", [])


async def test_it_loses_its_user_in_valkey(api: Api, redis_urls: dict[str, str], tmp_path: Path) -> None:
    identity = Identity(tmp_path / "edge")
    await add_region(api, "us-east")
    made = await register(api, await enrol(api), body(identity, name="with-valkey"))
    identity.registered(made.json()["edge_id"])
    edge_id = ids.decode(ids.EDGE, identity.edge_id)
    assert edge_id is not None
    url = await api.control.edge_access.url_for("us-east", edge_id)
    assert url is not None
    mine = redis.from_url(url, socket_timeout=2)
    theirs: Any = redis.from_url(redis_urls["us-east"], socket_timeout=2)
    try:
        assert identity.edge_id in url
        assert await mine.ping()
        await revoke(api, "edges", identity.edge_id)

        assert identity.edge_id.encode() not in await theirs.execute_command("ACL USERS")
        with pytest.raises((redis.ConnectionError, redis.AuthenticationError)):
            await mine.ping()
    finally:
        await mine.aclose()
        await theirs.aclose()


async def test_what_is_not_there_cannot_be_revoked(api: Api, project: Project) -> None:
    unknown = await api.operator.post(
        f"/admin/v1/edges/{ids.encode(ids.EDGE, ids.decode(ids.PROJECT, project.id))}/revoke"
    )  # type: ignore[arg-type]
    assert problem(unknown) == (404, "not_found")
    assert problem(await api.operator.post("/admin/v1/edges/x/revoke")) == (404, "not_found")
    assert problem(await api.operator.post("/admin/v1/regions/nowhere/revoke")) == (404, "not_found")
    for wrong in ({"reason": "x" * 201}, {"reason": "a\x00b"}, {"why": "x"}, {"reason": 7}):
        refused = await api.operator.post("/admin/v1/regions/us-east/revoke", json=wrong)
        assert refused.status_code in (400, 422)
    assert (await project.client.post("/admin/v1/regions/us-east/revoke")).status_code == 403
