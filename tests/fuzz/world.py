"""What an instance has when it is let loose on: one of each thing and more, so that every operation finds something to work on.

And what no generator reaches: streams, which have no end, and a registration, which wants a signature.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.clock import rfc3339
from app.fleet import hang_ups
from app.supervisor import wait_for_stop
from regions.wire import ids, sids
from regions.wire.ticket import b64
from tests.support.api import Api, Project
from tests.support.calls import WrittenCall, event
from tests.support.place import Place

REGIONS = {"us-east": "us", "eu-west": "eu", "ap-south": "in"}
EMPTY = {
    "sa-east": "br",
    "af-south": "za",
    "me-west": "il",
    "ca-west": "ca",
    "ca-east": "ca",
    "me-east": "ae",
}
"""Regions without a call: they are drained and revoked at once."""
DRILL_S = 5
ENDS_WITHIN_S = 60.0
HEARS_S = 0.1
TOLD = f"select from vx.desired where call_id = $1 and kind = '{hang_ups.KIND}'"

OVER = "ended"


@dataclass(slots=True)
class World:
    """`known`: by the name of a path's parameter, ids that exist. `own`: by operation, those that nobody else spends before it was
    answered well. `tickets`: of the calls in there."""

    api: Api
    project: Project
    place: Place
    known: dict[str, list[str]] = field(default_factory=dict)
    own: dict[str, dict[str, str]] = field(default_factory=dict)
    tickets: dict[str, str] = field(default_factory=dict)
    hung_up: WrittenCall = field(init=False)

    @classmethod
    async def of(cls, api: Api) -> World:
        project = await api.project()
        world = cls(api, project, Place(api, project))
        for region, jurisdiction in (REGIONS | EMPTY).items():
            await world.place.add(region, jurisdiction)
        drill = await world._drilled()
        await world._calls()
        api.control.supervisor.add("test.obedient_edges", world._hang_up)
        await world._webhooks()
        await world._people()
        await world._fleet(drill)
        return world

    async def _call(self) -> WrittenCall:
        return await self.place.call("us-east")

    async def _drilled(self) -> str:
        """A drill that is over: what a running one would stand in the way of is asked for too."""
        await self._call()
        body = {
            "kind": "region.loss",
            "target": "us-east",
            "calls": "real",
            "share": 1,
            "time_limit_s": DRILL_S,
        }
        async with asyncio.timeout(ENDS_WITHIN_S):  # refused while an edge is not well, as on a busy machine
            while (begun := await self.api.operator.post("/admin/v1/drills", json=body)).status_code != 202:
                assert begun.status_code == 409, begun.text
                await asyncio.sleep(0.05)
        drill = begun.json()
        path = f"/admin/v1/drills/{drill['id']}"
        await made(self.api.operator, "POST", f"{path}/stop")
        async with asyncio.timeout(ENDS_WITHIN_S):
            while (await self.api.operator.get(path)).json()["state"] != OVER:
                await asyncio.sleep(0.05)
        return str(drill["id"])

    async def _calls(self) -> None:
        for operation in ("endCall", "eraseCall", "moveCall", "twilioEndCall", "renewTicket", "resendEvent"):
            call = await self._call()
            self.own[operation] = {"call_id": call.id, "call_sid": self._sid(call)}
            self.tickets[operation] = call.ticket
            if operation == "twilioEndCall":
                self.hung_up = call
        calls = [await self._call() for _ in range(3)]
        said = {"type": "tool.result", "key": "lookup", "result": {"found": True}}
        called = {"type": "tool.called", "key": "lookup", "name": "lookup", "arguments": {"id": 1}}
        for entry in (called, said):
            await made(self.project.client, "POST", f"/v1/calls/{calls[0].id}/conversation", entry)
        self.known |= {
            "call_id": [call.id for call in calls],
            "call_sid": [self._sid(call) for call in calls],
            "key": ["lookup"],
            "account": [self.account],
        }
        erasure = await made(self.project.client, "POST", "/v1/erasures", {"subject": "nobody"})
        self.known["erasure_id"] = [erasure["id"]]

    async def _hang_up(self, stop: asyncio.Event) -> None:
        """As an edge that is told to does, for the call that one operation ends so."""
        call, over = self.hung_up, False
        while not await wait_for_stop(stop, HEARS_S):
            if not over and await self.place.sql(TOLD, ids.decode(ids.CALL, call.id)):
                over = True
                with suppress(AssertionError):  # it has ended otherwise
                    await call.append(self.api, 1, event(2, "call.ended", end_reason="agent_hung_up"))

    def _sid(self, call: WrittenCall) -> str:
        return sids.call_sid(call.id, sids.socket_number(1, 0))

    async def _webhooks(self) -> None:
        """After the calls: none of them is on its way to any."""
        customer = self.project.client
        ago = rfc3339(self.api.control.clock.now() - timedelta(hours=1))
        hooks, replays = [], []
        for n in range(4):
            hook = await made(customer, "POST", "/v1/webhooks", {"url": f"http://127.0.0.1:9/{n}"})
            path = f"/v1/webhooks/{hook['id']}/recover"
            replays.append((await made(customer, "POST", path, {"since": ago, "what": "missing"}))["id"])
            hooks.append(hook["id"])
        self.known |= {"webhook_id": hooks[:3], "replay_id": replays[:3]}
        self.own["deleteWebhook"] = {"webhook_id": hooks[3]}
        self.own["getReplay"] = {"webhook_id": hooks[0], "replay_id": replays[0]}
        self.own["cancelReplay"] = {"webhook_id": hooks[1], "replay_id": replays[1]}

    async def _people(self) -> None:
        customer, operator = self.project.client, self.api.operator
        keys = [
            (await made(customer, "POST", "/v1/keys", {"name": f"spare {n}", "role": "viewer"}))["id"]
            for n in range(4)
        ]
        self.known["key_id"] = keys[:2]
        self.own["revokeKey"], self.own["rotateKey"] = {"key_id": keys[2]}, {"key_id": keys[3]}
        people = [
            (await made(operator, "POST", "/admin/v1/people", {"email": f"ada{n}@example.com"}))["id"]
            for n in range(6)
        ]
        projects = [
            (await made(operator, "POST", "/admin/v1/projects", {"name": f"other {n}"}))["id"]
            for n in range(2)
        ]
        self.known |= {"person_id": [people[0], "ada1@example.com"], "project_id": projects}
        await made(customer, "PUT", "/v1/members", {"email": "ada2@example.com", "role": "viewer"})
        await made(operator, "DELETE", f"/admin/v1/people/{people[5]}")  # only who was removed is erased
        path = f"/admin/v1/people/{people[3]}/memberships/{projects[0]}"
        await made(operator, "PUT", path, {"role": "viewer"})
        self.own |= {
            "removeMember": {"person_id": people[2]},
            "adminWithdrawMembership": {"person_id": people[3], "project_id": projects[0]},
            "adminRemovePerson": {"person_id": people[4]},
            "adminErasePerson": {"person_id": people[5]},
        }

    async def _fleet(self, drill: str) -> None:
        edges = {region: ids.encode(ids.EDGE, edge.edge_id) for region, edge in self.place.edges.items()}
        self.known |= {
            "region_id": list(REGIONS),
            "edge_id": [edges[region] for region in REGIONS],
            "drill_id": [drill],
        }
        self.own |= {
            "adminRevokeRegion": {"region_id": "sa-east"},
            "adminRevokeEdge": {"edge_id": edges["af-south"]},
        }
        for verb, region, elsewhere in (("Drain", "me-west", "me-east"), ("Evacuate", "ca-west", "ca-east")):
            self.own |= {
                f"admin{verb}Region": {"region_id": region},
                f"admin{verb}Edge": {"edge_id": edges[elsewhere]},
            }
        for target in (f"edges/{edges['me-west']}", "regions/me-west"):
            await made(self.api.operator, "POST", f"/admin/v1/{target}/drain")
            await made(self.api.operator, "POST", f"/admin/v1/{target}/uncordon")
        await self.place.until(self._no_drain, "the end of the drains: a drill waits for it")
        self.own["adminGetEdgeDrain"] = {"edge_id": edges["me-west"]}
        self.own["adminGetRegionDrain"] = {"region_id": "me-west"}

    async def _no_drain(self) -> bool:
        return not await self.place.sql("select from vx.drains where ended_at is null")

    @property
    def account(self) -> str:
        return sids.account_sid(self.project.id)

    async def register(self) -> None:
        token = (await made(self.api.operator, "POST", "/admin/v1/regions/eu-west/enrol"))["token"]
        body = {
            "name": "fuzzed", "region": "eu-west", "incarnation": str(uuid4()), "capacity_calls": 1,
            "public_key": b64(Ed25519PrivateKey.generate().public_key().public_bytes_raw()),
            "listeners": {"media_url": "ws://127.0.0.1:9", "http_url": "http://127.0.0.1:9"},
        }  # fmt: skip
        registered = await self.api.operator.post(
            "/edge/v1/register", json=body, headers={"Authorization": f"Bearer {token}"}
        )
        assert registered.status_code == 200, registered.text

    async def streams(self) -> None:
        """Each opened, read up to its first line, and refused where the query is not one that it takes."""
        call = self.known["call_id"][0]
        for client, path in (
            (self.project.client, "/v1/events/stream"),
            (self.project.client, f"/v1/calls/{call}/events/stream"),
            (self.api.operator, "/admin/v1/events/stream"),
        ):
            async with client.stream("GET", path) as stream:
                assert stream.status_code == 200, (path, stream.status_code)
                assert stream.headers["content-type"].startswith("text/event-stream")
                await anext(stream.aiter_lines())
            for query in ("types=nonsense", "cursor=nonsense", "nonsense=1"):
                refused = await client.get(f"{path}?{query}")
                assert refused.status_code in (400, 422), (path, query, refused.status_code)


async def made(
    client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    answer = await client.request(
        method, path, json=body, headers={"Idempotency-Key": (body or {}).get("key", str(uuid4()))}
    )
    assert answer.is_success, (path, answer.text)
    found: dict[str, Any] = answer.json() if answer.content else {}
    return found
