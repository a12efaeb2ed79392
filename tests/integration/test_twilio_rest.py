"""A backend hangs up over Twilio's REST API: who is believed, what is answered, and what the edge is told, and until when."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.calls import hang_up
from app.fleet.hang_ups import WITHIN_MS
from app.ids import new_id
from regions.wire import ids
from regions.wire.sids import account_sid, call_sid, socket_number
from tests.integration.test_uplink import Edge, event, events, heard, placed
from tests.integration.test_uplink import edge as edge  # a fixture
from tests.support.api import Api, Project

EDGE_MS = 1_000_000
"""What the scripted edge's clock shows: nobody else's shows it."""
FORM = {"Status": "completed"}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def region(api: Api) -> None:
    made = await api.operator.post("/admin/v1/regions", json={"id": "us-east", "jurisdiction": "us"})
    assert made.status_code == 201


@dataclass
class Account:
    """A project as Twilio's clients know it."""

    project: Project
    client: httpx.AsyncClient

    @property
    def sid(self) -> str:
        return account_sid(self.project.id)

    def url(self, call: str, *, account: str | None = None) -> str:
        return f"/2010-04-01/Accounts/{account or self.sid}/Calls/{call}.json"

    async def post(self, call: str, *, form: dict[str, str] = FORM, **how: Any) -> httpx.Response:
        how.setdefault("auth", (self.sid, self.project.key))
        return await self.client.post(self.url(call), data=form, **how)

    async def get(self, call: str, **how: Any) -> httpx.Response:
        how.setdefault("auth", (self.sid, self.project.key))
        return await self.client.get(self.url(call), **how)


@pytest.fixture
async def account(api: Api, project: Project) -> Account:
    return Account(project, await api.client())


@dataclass
class Owned:
    """A call that an edge of ours owns at epoch 1, and that edge's uplink."""

    id: str
    uplink: Any
    beat_s: float = 0.0
    """When its edge began to say what its clock shows, by ours."""

    def sid(self, *, epoch: int = 1, opened: int = 0) -> str:
        return call_sid(self.id, socket_number(epoch, opened))

    async def told(self) -> dict[str, Any]:
        """What the edge is told to do."""
        while (said := await heard(self.uplink))["type"] != "desired":
            pass
        (command,) = said["commands"]
        return dict(command)

    async def write(self, n: int, type_: str, **data: Any) -> None:
        await self.uplink.send(events(self.id, event(n, type=type_, data=data), batch=n))


@asynccontextmanager
async def owned(project: Project, edge: Edge) -> AsyncIterator[Owned]:
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        await heard(socket)
        beat_s = time.monotonic()
        beat = {"type": "heartbeat", "at_ms": EDGE_MS, "load": {"calls": 0, "capacity_calls": 5}}
        await socket.send(json.dumps(beat))
        call = Owned(await placed(project, edge), socket, beat_s)
        await call.write(1, "call.answered")
        while (await heard(socket))["type"] != "ack":
            pass
        yield call


def refused(answer: httpx.Response) -> tuple[int, int]:
    """(status, code) of an answer in Twilio's form of an error."""
    body = answer.json()
    assert set(body) == {"code", "message", "more_info", "status"}
    assert body["status"] == answer.status_code and body["more_info"].endswith(str(body["code"]))
    return answer.status_code, body["code"]


async def test_a_call_is_read_as_twilio_writes_it(account: Account, edge: Edge) -> None:
    async with owned(account.project, edge) as call:
        answer = await account.get(call.sid())
        body = answer.json()
        assert answer.status_code == 200
        assert (body["sid"], body["account_sid"], body["status"]) == (call.sid(), account.sid, "in-progress")
        assert body["uri"] == account.url(call.sid())
        assert body["date_created"].endswith(" +0000") and parsedate_to_datetime(body["start_time"])
        assert (body["end_time"], body["duration"]) == (None, None)


async def test_the_socket_in_use_hangs_up_and_is_answered_when_the_end_is_stored(
    account: Account, edge: Edge
) -> None:
    async with owned(account.project, edge) as call:
        posting = asyncio.create_task(account.post(call.sid(opened=3)))
        command = await call.told()
        assert (command["kind"], command["call"]) == ("hangup", call.id)
        body = command["body"]
        assert (body["epoch"], body["socket"]) == ("1", str(socket_number(1, 3)))
        assert not posting.done()
        await call.write(2, "call.ended", end_reason="agent_hung_up")
        answer = await posting
        assert answer.status_code == 200, answer.text
        assert (answer.json()["status"], answer.json()["sid"]) == ("completed", call.sid(opened=3))
        assert answer.json()["duration"] is not None
        shown = (await account.project.client.get(f"/v1/calls/{call.id}")).json()
        assert (shown["state"], shown["end_reason"]) == ("completed", "agent_hung_up")
        for again in (await account.post(call.sid(opened=3)), await account.get(call.sid())):
            assert refused(again) == (404, 20404)


async def test_the_edge_is_given_less_than_whoever_waits(account: Account, edge: Edge) -> None:
    """In the edge's own time, of which no other clock here knows anything."""
    async with owned(account.project, edge) as call:
        posting = asyncio.create_task(account.post(call.sid(), form={"Status": "canceled"}))
        until_ms = int((await call.told())["body"]["until_ms"])
        passed_ms = (time.monotonic() - call.beat_s) * 1000
        assert EDGE_MS < until_ms <= EDGE_MS + passed_ms + WITHIN_MS
        assert WITHIN_MS < hang_up.WAIT_S * 1000
        await call.write(2, "call.ended", end_reason="agent_hung_up")
        assert (await posting).status_code == 200


async def test_one_of_an_owner_before_is_told_at_once_and_no_edge_hears_of_it(
    account: Account, edge: Edge
) -> None:
    async with owned(account.project, edge) as call:
        for epoch in (2, 3, 8):
            assert refused(await account.post(call.sid(epoch=epoch))) == (404, 20404)
        await account.project.client.post(f"/v1/calls/{call.id}/end")
        assert (await call.told())["kind"] == "end"


async def test_where_no_end_comes_the_call_goes_on(
    account: Account, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edge has another socket, or is gone."""
    monkeypatch.setattr(hang_up, "WAIT_S", 0.2)
    async with owned(account.project, edge) as call:
        assert refused(await account.post(call.sid())) == (404, 20404)
        assert (await account.get(call.sid())).json()["status"] == "in-progress"


async def test_an_edge_that_comes_back_is_told_that_it_is_too_late(
    api: Api, account: Account, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hang_up, "WAIT_S", 0.05)
    async with owned(account.project, edge) as call:
        pass
    assert refused(await account.post(call.sid())) == (404, 20404)
    edge_id = ids.decode(ids.EDGE, edge.identity.edge_id)
    pool = api.control.db.pool("admin")
    await pool.execute(
        "update vx.desired set created_at = created_at - interval '1501 milliseconds' where edge_id = $1",
        edge_id,
    )
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        again = Owned(call.id, socket)
        command = await again.told()
        assert (command["kind"], command["body"]) == ("hangup", {})


async def test_a_foreign_or_unknown_call_is_not_there(api: Api, account: Account, edge: Edge) -> None:
    other = Account(await api.project(), account.client)
    async with owned(account.project, edge) as call:
        assert refused(await other.post(call.sid())) == (404, 20404)
        assert refused(await other.get(call.sid())) == (404, 20404)
        foreign = await account.client.get(
            account.url(call.sid(), account=other.sid), auth=(account.sid, account.project.key)
        )
        assert refused(foreign) == (404, 20404)
        for sid in ("CA", "x", call.id, call_sid(ids.encode(ids.CALL, new_id()), 8), call.sid().upper()):
            assert refused(await account.get(sid)) == (404, 20404)
        assert (await account.get(call.sid())).status_code == 200


async def test_who_is_asking(api: Api, account: Account, edge: Edge) -> None:
    other = await api.project()
    async with owned(account.project, edge) as call:
        key = account.project.key
        for auth in (
            (account.sid, other.key),
            ("AC" + "0" * 32, key),
            (account.sid, key[:-1]),
            (account.sid, ""),
        ):
            answer = await account.post(call.sid(), auth=auth)
            assert refused(answer) == (401, 20003)
            assert answer.headers["www-authenticate"].startswith("Basic ")
        for header in ("", f"Bearer {key}", "Basic", "Basic %", "Basic " + "A" * 3, "Basic /////w=="):
            answer = await account.post(call.sid(), auth=None, headers={"authorization": header})
            assert refused(answer) == (401, 20003)
        viewer = (await account.project.client.post("/v1/keys", json={"name": "v", "role": "viewer"})).json()
        auth = (account.sid, viewer["secret"])
        assert refused(await account.post(call.sid(), auth=auth)) == (403, 20003)
        assert (await account.get(call.sid(), auth=auth)).status_code == 200


@pytest.mark.parametrize(
    "content",
    [b"", b"Status=busy", b"Url=http%3A%2F%2Fx", b"Status=completed&Status=completed", b"\xff=\xff", b"{}"],
)
async def test_what_is_no_hang_up_is_refused_in_twilios_form(
    account: Account, edge: Edge, content: bytes
) -> None:
    async with owned(account.project, edge) as call:
        answer = await account.client.post(
            account.url(call.sid()),
            content=content,
            headers={"content-type": "application/x-www-form-urlencoded"},
            auth=(account.sid, account.project.key),
        )
        assert refused(answer) == (400, 20001)


async def test_whoever_asks_again_and_again_is_slowed_down(
    account: Account, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hang_up, "WAIT_S", 0.01)
    async with owned(account.project, edge) as call:
        statuses = [(await account.post(call.sid())).status_code for _ in range(12)]
        assert statuses[:8] == [404] * 8 and 429 in statuses[8:]
