"""What is struck out before it is stored, and how long is kept what."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from app import db
from app.clock import SystemClock
from app.erasure import redaction
from app.erasure.retention import Retaining
from app.log.append import EdgeIdentity
from regions.wire import ids
from regions.wire.events import EdgeEvent
from tests.support.api import Api, Project
from tests.support.calls import create_call, event, owners_in, said, tail_at
from tests.support.engines import REGIONS

CARD = "4111 1111 1111 1111"
RULES = [{"name": "card", "kind": "card"}, {"name": "pin", "kind": "keys"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owners(api: Api) -> list[EdgeIdentity]:
    return await owners_in(api, REGIONS)


async def changed(project: Project, **what: Any) -> Any:
    etag = (await project.client.get("/v1/privacy")).headers["etag"]
    return await project.client.patch("/v1/privacy", json=what, headers={"If-Match": etag})


async def test_a_card_number_reaches_neither_the_log_nor_a_region_nor_a_reader(
    api: Api, project: Project, owners: list[EdgeIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "LEAD_MS", -1_000)
    assert (await changed(project, redaction=RULES)).json()["redaction"][0]["name"] == "card"
    call = await create_call(project, owners)
    spoken: EdgeEvent = said(2, "caller", f"it is {CARD}")
    await call.append(api, 1, event(1, "call.answered"), spoken, event(3, "dtmf.received", digit="7"))
    await call.write(type="tool.called", key="t1", name="pay", arguments={"card": CARD})
    again = await call.append(api, 1, spoken)  # stored as it was, and known again
    assert again.status == "durable"

    shown = (await call.read()).text
    tail = await tail_at(api, next(iter(api.settings.redis_urls.values())), call.id, call.seq)
    async with asyncio.timeout(10):
        while (
            len(events := (await project.client.get(f"/v1/calls/{call.id}/events")).json()["data"]) < call.seq
        ):
            await asyncio.sleep(0.05)
    for text in (shown, str(tail), str(events)):
        assert CARD not in text and "[redacted:card]" in text
    assert "[redacted:pin]" in str(events)
    key = (await api.control.tails._facts.of([ids.decode(ids.CALL, call.id)]))[
        ids.decode(ids.CALL, call.id)
    ].key
    assert key is not None


async def test_settings_are_changed_by_whoever_has_read_them(project: Project) -> None:
    first = await project.client.get("/v1/privacy")
    version = first.json()["version"]
    assert first.json() == {"version": version, "redaction": [], "retention": {}}
    assert first.headers["etag"] == f'"{version}"'
    done = await changed(project, retention={"conversation_days": 7})
    assert (done.status_code, done.json()["retention"]) == (200, {"conversation_days": 7})
    assert (done.json()["version"], done.headers["etag"]) == (version + 1, f'"{version + 1}"')
    stale = await project.client.patch("/v1/privacy", json={}, headers={"If-Match": first.headers["etag"]})
    bare = await project.client.patch("/v1/privacy", json={})
    assert (stale.status_code, bare.status_code) == (412, 428)
    for wrong in (
        {"redaction": [{"name": "x", "kind": "pattern", "pattern": "(a+)+"}]},
        {"redaction": [{"name": "x", "kind": "card", "pattern": "a"}]},
        {"redaction": [{"name": "x", "kind": "card"}] * 2},
        {"retention": {"conversation_days": 0}},
        {"redaction": [{"name": "X!", "kind": "card"}]},
        {"unknown": 1},
    ):
        refused = await changed(project, **wrong)
        assert refused.status_code == 422 and refused.json()["errors"], wrong
    assert (await project.client.get("/v1/privacy")).headers["etag"] == done.headers["etag"]


async def test_what_a_project_keeps_for_a_shorter_time_goes_and_the_rest_stays(
    api: Api, project: Project, owners: list[EdgeIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await create_call(project, owners)
    await call.append(api, 1, event(1, "call.answered"), said(2, "caller", CARD))
    await project.client.post(f"/v1/calls/{call.id}/end")
    live = await create_call(project, owners)
    other = await api.project()
    spared = await create_call(other, owners)
    await other.client.post(f"/v1/calls/{spared.id}/end")
    later, days = Later(api.control.clock), 6
    retaining = Retaining(api.control.db, later, api.control.audit_log.anchoring)

    await changed(project, retention={"conversation_days": 5})
    await retaining.round()
    assert (await call.read(min_seq=0)).status_code == 200  # not old enough
    later.days = days
    await retaining.round()
    assert (await call.read(min_seq=0)).status_code == 200, "one instance's clock is not enough"
    monkeypatch.setattr(db, "NOW", f"select now() + interval '{days} days'")
    await retaining.round()
    gone = await call.read(min_seq=0)
    assert (gone.status_code, gone.json()["code"]) == (410, "conversation_expired")
    assert [(await c.read(min_seq=0)).status_code for c in (live, spared)] == [200, 200]

    await changed(project, retention={"personal_days": 5, "deliveries_days": 5})
    await retaining.round()
    assert (await project.client.get(f"/v1/calls/{call.id}")).json()["erased_at"]
    assert (await project.client.get(f"/v1/calls/{live.id}")).json()["erased_at"] is None


class Later(SystemClock):
    days = 0

    def __init__(self, clock: object) -> None:
        pass

    def now(self) -> datetime:
        return super().now() + timedelta(days=self.days)
