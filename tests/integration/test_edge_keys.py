"""An edge's own key changes under its feet: named and proven over the uplink, both good for a while."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.telemetry import edge_key_misuses_total
from regions.edge.identity import Identity, public_text
from regions.wire import ids
from regions.wire.ticket import unb64
from regions.wire.uplink import EDGE_TOKEN_TYP
from tests.integration.test_uplink import Edge, body, edge, enrol, event, events, heard, placed, register
from tests.support.api import Api, Project, problem

__all__ = ["edge"]


@dataclass
class Line:
    """An uplink that has been welcomed."""

    edge: Edge
    socket: ClientConnection

    async def answer(self, *kinds: str) -> dict[str, Any]:
        async with asyncio.timeout(15):
            while True:
                message = await heard(self.socket)
                if message["type"] in kinds:
                    return message

    async def name(
        self, key: Ed25519PrivateKey, *, proof: str | None = None, text: str | None = None
    ) -> None:
        said = text if text is not None else public_text(key)
        proof = self.edge.identity.proof(self.edge.region, key) if proof is None else proof
        await self.socket.send(json.dumps({"type": "new_key", "public_key": said, "proof": proof}))

    async def change(self, key: Ed25519PrivateKey, **more: Any) -> tuple[bool, str]:
        await self.name(key, **more)
        answer = await self.answer("key_taken")
        return answer["taken"], answer["detail"]

    async def closes(self) -> str:
        """The code of its goodbye."""
        said = ""
        try:
            async with asyncio.timeout(15):
                while True:
                    message = json.loads(await self.socket.recv())
                    said = message["code"] if message["type"] == "goodbye" else said
        except ConnectionClosed:
            return said


@asynccontextmanager
async def line(edge: Edge, key: Ed25519PrivateKey | None = None) -> AsyncIterator[Line]:
    async with edge.uplink(edge.identity.token(edge.region, key)) as socket:
        await socket.send(edge.hello())
        welcome = await heard(socket)
        assert (welcome["type"], welcome["new_keys"]) == ("welcome", True)
        yield Line(edge, socket)


async def shown(edge: Edge) -> dict[str, Any]:
    found: dict[str, Any] = (await edge.api.operator.get(f"/admin/v1/edges/{edge.identity.edge_id}")).json()
    return found


async def log_of(edge: Edge, type_: str) -> list[dict[str, Any]]:
    found = (await edge.api.operator.get("/admin/v1/events", params={"types": type_})).json()["data"]
    return [e["data"] for e in found if e["edge"] == edge.identity.edge_id]


async def audited(edge: Edge, action: str) -> list[dict[str, Any]]:
    found = (await edge.api.operator.get("/admin/v1/audit", params={"action": action})).json()["data"]
    return [e for e in found if e["target"] == edge.identity.edge_id]


async def let_in(edge: Edge, key: Ed25519PrivateKey) -> Any:
    """What a registration with that key is answered."""
    sent = body(edge.identity, name=edge.name, region=edge.region, public_key=public_text(key))
    return await register(edge.api, edge.identity.token(edge.region, key), sent)


async def forward(edge: Edge, statement: str) -> None:
    """The database as it will be later."""
    connection = await asyncpg.connect(edge.api.settings.database_url)
    try:
        await connection.execute(statement, ids.decode(ids.EDGE, edge.identity.edge_id))
    finally:
        await connection.close()


OVER = "update vx.edge_keys set valid_until = clock_timestamp() - interval '1 second' where edge_id = $1"
SOON = "update vx.edge_keys set valid_until = clock_timestamp() + interval '{} seconds' where edge_id = $1"


async def test_both_keys_are_good_and_the_uplink_and_its_calls_know_nothing_of_it(
    project: Project, edge: Edge
) -> None:
    first, since = edge.identity.key, (await shown(edge))["key"]["since"]
    async with line(edge) as up:
        call = await placed(project, edge)
        second = edge.identity.begin_next()
        assert await up.change(second) == (True, "")
        edge.identity.settled()
        await up.socket.send(events(call, event(1)))
        assert (await up.answer("ack"))["results"][0]["status"] == "durable"  # the same uplink, the same life

    key = (await shown(edge))["key"]
    assert key["since"] > since
    assert key["before_until"] > key["since"]
    assert (key["asked_at"], key["misuses"], key["misused_at"]) == (None, 0, None)
    for good in (first, second, first):
        assert (await let_in(edge, good)).status_code == 200
        async with line(edge, good):
            pass
    assert (await shown(edge))["key"] == key  # who registers with the one before does not bring it back
    assert await log_of(edge, "edge.key_rotated") == [{"name": edge.name, "overlap_s": 3600}]
    [entry] = await audited(edge, "edge.key_rotated")
    assert (entry["actor"]["kind"], entry["actor"]["id"]) == ("edge", edge.identity.edge_id)
    # one key cannot speak for the other
    sent = body(edge.identity, name=edge.name, region=edge.region, public_key=public_text(first))
    assert problem(await register(edge.api, edge.identity.token(edge.region, second), sent)) == (
        403,
        "forbidden",
    )


async def test_an_answer_that_was_lost_is_asked_for_again(edge: Edge) -> None:
    first, second = edge.identity.key, edge.identity.begin_next()
    async with line(edge) as up:
        await up.name(second)  # and the edge is gone before it hears what became of it
        await up.answer("key_taken")
    async with line(edge, first) as up:
        assert await up.change(second) == (True, "")
        assert await up.change(second) == (True, "")
        await forward(edge, OVER)
        assert await up.change(second) == (True, "")  # it has shown the present key: this uplink stays
    assert len(await log_of(edge, "edge.key_rotated")) == 1
    assert (await let_in(edge, second)).status_code == 200


async def test_a_key_that_holds_no_more_is_refused_and_is_a_sign(edge: Edge, tmp_path: Path) -> None:
    first, second = edge.identity.key, edge.identity.begin_next()
    async with line(edge) as up:
        assert await up.change(second) == (True, "")
    edge.identity.settled()
    await forward(edge, OVER)
    counted = edge_key_misuses_total.labels(edge.region)._value.get()

    assert problem(await let_in(edge, first)) == (401, "edge_key_retired")
    with pytest.raises(InvalidStatus):
        async with line(edge, first):
            pass
    key = (await shown(edge))["key"]
    assert (key["misuses"], key["misused_at"] > key["since"]) == (2, True)
    assert edge_key_misuses_total.labels(edge.region)._value.get() == counted + 2
    # written down and told once in a while, not as often as somebody likes to knock
    assert [e["name"] for e in await log_of(edge, "edge.key_misused")] == [edge.name]
    [entry] = await audited(edge, "edge.key_misused")
    assert entry["summary"]["key"] == public_text(first)
    assert entry["address"] == "127.0.0.1"
    # neither does an enrolment bring it back, and the key that the edge has now is as good as before
    enrolled = await register(
        edge.api,
        await enrol(edge.api, edge.region),
        body(edge.identity, name="another", region=edge.region, public_key=public_text(first)),
    )
    assert problem(enrolled) == (401, "edge_key_retired")
    assert (await let_in(edge, second)).status_code == 200
    # an old token that somebody kept is no sign
    stale = jwt.encode(
        jwt.decode(edge.identity.token(edge.region, first), options={"verify_signature": False})
        | {"iat": 1, "exp": 31},
        first,
        algorithm="EdDSA",
        headers={"typ": EDGE_TOKEN_TYP},
    )
    assert problem(await register(edge.api, stale, body(edge.identity))) == (401, "unauthenticated")
    assert (await shown(edge))["key"]["misuses"] == 2


async def test_an_uplink_ends_with_the_key_it_came_with(edge: Edge) -> None:
    first, second = edge.identity.key, edge.identity.begin_next()
    async with line(edge) as up:
        assert await up.change(second) == (True, "")
    await forward(edge, SOON.format(1.5))
    try:
        async with line(edge, first) as up:
            assert await up.closes() == "unauthorized"
        misuses = 0
    except InvalidStatus:  # on a machine that is held up for so long it is over, and a misuse: then once more
        await forward(edge, SOON.format(10))
        async with line(edge, first) as up:
            assert await up.closes() == "unauthorized"
        misuses = 1
    assert (await shown(edge))["key"]["misuses"] == misuses


async def test_who_has_the_key_before_does_not_choose_the_one_after(edge: Edge) -> None:
    first, second = edge.identity.key, edge.identity.begin_next()
    async with line(edge) as up:
        assert await up.change(second) == (True, "")
    async with line(edge, first) as up:
        taken, why = await up.change(Ed25519PrivateKey.generate())
        assert (taken, "was replaced" in why) == (False, True)
    assert len(await log_of(edge, "edge.key_rotated")) == 1


async def test_a_key_without_its_proof_is_not_taken(edge: Edge, api: Api, tmp_path: Path) -> None:
    identity, mine = edge.identity, Ed25519PrivateKey.generate()
    other = Identity(tmp_path / "other")
    answer = await register(api, await enrol(api, edge.region), body(other, name="other", region=edge.region))
    other.registered(answer.json()["edge_id"])
    before = await shown(edge)
    async with line(edge) as up:
        for key, more in (
            (mine, {"proof": identity.proof(edge.region, Ed25519PrivateKey.generate())}),
            (mine, {"proof": other.proof(edge.region, mine)}),
            (mine, {"proof": identity.proof("elsewhere", mine)}),
            (mine, {"proof": identity.token(edge.region, mine)}),
            (mine, {"proof": "x"}),
            (mine, {"text": "x"}),
            (mine, {"text": "é"}),
            (other.key, {}),
        ):
            taken, why = await up.change(key, **more)
            assert (taken, bool(why)) == (False, True)
        assert await up.change(mine) == (True, "")  # the uplink has lived through all of it
    assert before["key"]["since"] < (await shown(edge))["key"]["since"]


async def test_keys_before_the_present_one_are_few(edge: Edge) -> None:
    async with line(edge) as up:
        for _ in range(8):
            assert await up.change(Ed25519PrivateKey.generate()) == (True, "")
        taken, why = await up.change(Ed25519PrivateKey.generate())
        assert (taken, "still hold" in why) == (False, True)


async def test_a_superseded_uplink_names_no_key(edge: Edge) -> None:
    async with line(edge) as old, line(edge):
        taken, why = await old.change(Ed25519PrivateKey.generate())
        assert (taken, "another uplink" in why) == (False, True)


async def test_another_key_that_takes_the_name_over_ends_those_before(edge: Edge, tmp_path: Path) -> None:
    first, second = edge.identity.key, edge.identity.begin_next()
    async with line(edge) as up:
        assert await up.change(second) == (True, "")
    await forward(edge, "update vx.edges set seen_at = seen_at - interval '1 minute' where id = $1")
    fresh = Identity(tmp_path / "fresh")
    sent = body(fresh, name=edge.name, region=edge.region)
    assert (await register(edge.api, await enrol(edge.api, edge.region), sent)).status_code == 200
    for gone in (first, second):
        assert problem(await let_in(edge, gone)) == (401, "edge_key_retired")
    key = (await shown(edge))["key"]
    assert (key["before_until"], key["misuses"]) == (None, 2)


async def test_an_operator_asks_and_the_edge_is_told_until_it_has_one(project: Project, edge: Edge) -> None:
    path = f"/admin/v1/edges/{edge.identity.edge_id}/rotate-key"
    asked = await edge.api.operator.post(path, json={"overlap_s": 0})
    assert asked.status_code == 200, asked.text
    assert asked.json()["key"]["asked_at"] is not None
    first, second = edge.identity.key, edge.identity.begin_next()
    for _ in range(2):  # it is told at each uplink, until it is done
        async with line(edge) as up:
            wanted = await up.answer("key_wanted")
    async with line(edge) as up:
        assert (await up.answer("key_wanted")) == wanted
        assert await up.change(second) == (True, "")
    key = (await shown(edge))["key"]
    assert key["asked_at"] is None
    assert problem(await let_in(edge, first)) == (401, "edge_key_retired")  # an overlap of nothing
    [entry] = await audited(edge, "edge.key_asked")
    assert (entry["actor"]["kind"], entry["summary"]["overlap_s"]) == ("operator", 0)

    assert problem(await edge.api.operator.post("/admin/v1/edges/edge_x/rotate-key")) == (404, "not_found")
    for wrong in ({"overlap_s": -1}, {"overlap_s": 604_801}, {"overlap_s": "1"}, {"lead_s": 1}):
        assert (await edge.api.operator.post(path, json=wrong)).status_code in (400, 422)
    assert (await project.client.post(path)).status_code == 403
    await edge.api.operator.post(f"/admin/v1/edges/{edge.identity.edge_id}/revoke")
    assert problem(await edge.api.operator.post(path)) == (409, "conflict")
    # what was revoked is revoked, with whichever of its keys
    for gone in (first, second):
        assert problem(await let_in(edge, gone)) == (401, "edge_revoked")


async def test_its_key_is_one_that_was_proven(edge: Edge) -> None:
    async with line(edge) as up:
        second = edge.identity.begin_next()
        assert await up.change(second) == (True, "")
    kept = await edge.api.control.db.pool("admin").fetchval(
        "select public_key from vx.edges where id = $1", ids.decode(ids.EDGE, edge.identity.edge_id)
    )
    assert kept == unb64(public_text(second))
