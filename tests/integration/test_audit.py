"""The audit log: what is written down, that no act is without its entry, and that nobody changes it unseen."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from app.audit import offline, service, store
from app.audit.chain import PLATFORM, hash_of
from app.audit.store import Chains
from app.clock import rfc3339
from app.main import create_app
from regions.wire import ids
from tests.conftest import OPERATOR_KEY
from tests.support.api import Api, Project, problem
from tests.support.cli import ROOT, voxplane
from tests.support.fleet import three_regions
from tests.support.people import signed_in
from tests.support.routes import changing_routes

Superuser: TypeAlias = "asyncpg.Connection[Any]"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owner(api: Api) -> AsyncIterator[Superuser]:
    """Somebody who owns the tables, and has not the key."""
    connection = await asyncpg.connect(api.settings.database_url)
    await connection.execute("set role vx_owner")
    yield connection
    await connection.close()


def uuid_of(project: Project) -> UUID:
    return ids.decode(ids.PROJECT, project.id)


async def entries(client: httpx.AsyncClient, path: str = "/v1/audit", **params: Any) -> list[dict[str, Any]]:
    answer = await client.get(path, params={"limit": 200, **params})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def verified(client: httpx.AsyncClient, path: str = "/v1/audit/verify") -> dict[str, Any]:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def some_acts(project: Project, number: int = 6) -> list[str]:
    """The ids of their entries, the oldest first."""
    for i in range(number):
        made = await project.client.post("/v1/keys", json={"name": f"key {i}", "role": "viewer"})
        assert made.status_code == 201
    return [e["id"] for e in reversed(await entries(project.client, action="key.created"))][-number:]


# ------------------------------------------------------------------------------------------------- what is written


async def test_an_act_says_who_from_where_and_by_which_request(api: Api, project: Project) -> None:
    made = await project.client.post(
        "/v1/keys", json={"name": "reports", "role": "viewer"}, headers={"Request-Id": "req-17"}
    )
    entry = (await entries(project.client))[0]
    mine = (await project.client.get("/v1/keys")).json()["data"][-1]["id"]

    assert entry["action"] == "key.created"
    assert entry["target"] == made.json()["id"]
    assert entry["actor"] == {"kind": "key", "id": mine}
    assert (entry["address"], entry["request_id"]) == ("127.0.0.1", "req-17")
    assert (entry["summary"]["name"], entry["summary"]["role"]) == ("reports", "viewer")
    assert made.json()["secret"] not in json.dumps(await entries(project.client))


async def test_what_an_operator_does_to_a_project_stands_in_both_logs(api: Api, project: Project) -> None:
    here = await entries(project.client)
    there = await entries(api.operator, "/admin/v1/audit", action="project.*", target=project.id)

    assert [e["action"] for e in here] == ["key.created", "project.created"]
    assert {e["actor"]["kind"] for e in here} == {"operator"}
    assert [e["action"] for e in there] == ["project.created"]


async def test_an_act_that_fails_leaves_no_entry_and_an_entry_that_fails_leaves_no_act(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await entries(project.client)
    assert (await project.client.post("/v1/keys", json={"name": "x", "role": "king"})).status_code == 422
    assert await entries(project.client) == before

    async def broken(*_: object, **__: object) -> None:
        raise asyncpg.ConnectionDoesNotExistError("gone")

    monkeypatch.setattr(Chains, "put", broken)
    refused = await project.client.post("/v1/keys", json={"name": "x", "role": "viewer"})
    secret = await project.client.get("/v1/agent-secret")
    monkeypatch.undo()

    assert refused.status_code == secret.status_code == 503
    assert len((await project.client.get("/v1/keys")).json()["data"]) == 1
    assert await entries(project.client) == before


async def test_concurrent_acts_and_reads_make_one_chain(api: Api, project: Project) -> None:
    asked = [project.client.get("/v1/agent-secret") for _ in range(40)]
    asked += [project.client.post("/v1/keys", json={"name": "k", "role": "viewer"}) for _ in range(10)]
    answers = await asyncio.gather(*asked)
    found = await entries(project.client)

    assert {a.status_code for a in answers} == {200, 201}
    assert sorted(e["n"] for e in found) == list(range(1, len(found) + 1))
    assert len([e for e in found if e["action"] == "agent_secret.read"]) == 40
    assert (await verified(project.client))["ok"]


async def test_what_was_said_is_not_read_unseen(api: Api, project: Project) -> None:
    await three_regions(api)
    body = {"agent": {"url": "ws://127.0.0.1:9/"}}
    call = (
        await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    ).json()["id"]
    for path in (f"/v1/calls/{call}/events", "/v1/events?types=call.*"):  # nothing was said yet
        assert (await project.client.get(path)).status_code == 200
    assert "events.read" not in {e["action"] for e in await entries(project.client)}
    said = {"type": "turn", "key": "t1", "role": "caller", "text": "my number is quarantadue"}
    wrote = await project.client.post(f"/v1/calls/{call}/conversation", json=said)
    assert wrote.status_code == 201, wrote.text

    assert (await project.client.get(f"/v1/calls/{call}/conversation")).status_code == 200
    assert (await project.client.get(f"/v1/calls/{call}/events")).status_code == 200
    async with project.client.stream("GET", f"/v1/calls/{call}/events/stream") as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            if line.startswith("data:"):
                break
    found = await entries(project.client, target=call)

    assert [e["action"] for e in found] == ["events.streamed", "events.read", "conversation.read"]
    assert "quarantadue" not in json.dumps(await entries(project.client))


async def test_who_ended_a_call_and_who_had_usage_folded_anew_is_known(api: Api, project: Project) -> None:
    await three_regions(api)
    body = {"agent": {"url": "ws://127.0.0.1:9/"}}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    call = made.json()["id"]
    operator = await api.key(project, "operator")
    key = (await entries(project.client, action="key.created"))[0]["target"]

    for _ in range(2):  # the second ends nothing
        assert (await operator.post(f"/v1/calls/{call}/end")).status_code == 200
    ended = await entries(project.client, target=call)
    assert [(e["action"], e["actor"]) for e in ended] == [("call.end_asked", {"kind": "key", "id": key})]
    assert (await operator.post(f"/v1/calls/{call}/move")).status_code == 409
    assert len(await entries(project.client, target=call)) == 1

    refold = await api.operator.post(f"/admin/v1/projects/{project.id}/usage/refold")
    (entry,) = await entries(project.client, action="usage.refolded")
    assert (refold.status_code, entry["summary"], entry["actor"]["kind"]) == (202, refold.json(), "operator")


# -------------------------------------------------------------------------------------------------- who may change


@pytest.mark.parametrize("role", ["vx_api", "vx_keys", "vx_append", "vx_worker", "vx_admin"])
async def test_no_role_changes_or_removes_an_entry(api: Api, role: str) -> None:
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        for table in ("audit_entries", "audit_anchors"):
            for statement in (
                f"update vx.{table} set kid = ''",
                f"delete from vx.{table}",
                f"truncate vx.{table}",
            ):
                await connection.execute(f"set role {role}")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
    finally:
        await connection.close()


EDITS = {
    "an edit": (
        "update vx.audit_entries set action = 'nothing.happened' where project_id = $1 and n = 3",
        "changed",
        3,
    ),
    "an edit of the actor": (
        "update vx.audit_entries set actor_id = 'key_other' where project_id = $1 and n = 4",
        "changed",
        4,
    ),
    "an edit of the address": (
        "update vx.audit_entries set details = replace(details, '127.0.0.1', '10.0.0.1') where project_id = $1 and n = 3",
        "changed",
        3,
    ),
    "an edit that takes the details out": (
        "update vx.audit_entries set details = null, salt = null where project_id = $1 and n = 3",
        "erased",
        3,
    ),
    "a deletion in the middle": (
        "delete from vx.audit_entries where project_id = $1 and n = 4",
        "missing",
        4,
    ),
    "a deletion of the newest": (
        "delete from vx.audit_entries where project_id = $1 and n >= 6",
        "missing",
        6,
    ),
    "a deletion of all": ("delete from vx.audit_entries where project_id = $1", "missing", 1),
    "a reorder": (
        "update vx.audit_entries e set n = case e.n when 3 then 104 else 103 end where project_id = $1 and n in (3, 4)",
        "missing",
        3,
    ),
    "an insertion": (
        "insert into vx.audit_entries select project_id, writer, n + 1, gen_random_uuid(), at, actor_kind, actor_id, action, target,"
        " request_id, details, salt, digest, hash, hash, kid, signature from vx.audit_entries where project_id = $1"
        " order by n desc limit 1",
        "changed",
        9,
    ),
}


@pytest.mark.parametrize("edit", EDITS)
async def test_a_tampering_is_found_and_named(
    api: Api, project: Project, owner: Superuser, edit: str
) -> None:
    statement, what, n = EDITS[edit]
    await some_acts(project)  # with those of its creation, entries 1 to 8
    await api.control.audit_log.anchoring.round()
    assert (await verified(project.client))["ok"]

    assert not (await owner.execute(statement, uuid_of(project))).endswith(" 0")
    report = await verified(project.client)

    assert not report["ok"]
    assert report["faults"][0]["what"] == what, report["faults"]
    assert report["faults"][0]["where"].startswith(f"entry {n} of "), report["faults"]


@pytest.mark.parametrize("details", ["no JSON", "[]", '{"address": 1, "summary": "text"}'])
async def test_a_log_whose_details_cannot_be_read_is_still_shown_and_exported(
    api: Api, project: Project, owner: Superuser, details: str
) -> None:
    """Else one edit keeps everybody from looking at the rest, and from verifying it elsewhere."""
    await some_acts(project)
    edit = "update vx.audit_entries set details = $2 where project_id = $1 and n = 3"
    await owner.execute(edit, uuid_of(project), details)

    (third,) = [e for e in await entries(project.client) if e["n"] == 3]
    assert (third["address"], third["summary"]) == (None, None)
    assert [f["what"] for f in (await verified(project.client))["faults"]] == ["changed"]
    for shape in ("jsonl", "csv"):
        answer = await project.client.get("/v1/audit/export", params={"format": shape})
        assert [f.what for f in offline.verify(answer.text.splitlines(keepends=True)).faults] == ["changed"]
    browser, _ = await signed_in(api, f"{uuid4().hex[:8]}@reader.example", {project.id: "owner"})
    assert (await browser.get(f"/console/p/{project.id}/audit")).status_code == 200


async def test_a_clock_that_was_ahead_or_is_behind_keeps_nothing_from_being_anchored(
    api: Api, project: Project, owner: Superuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchoring, anchors = (
        api.control.audit_log.anchoring,
        "select count(*) from vx.audit_anchors where project_id = $1",
    )
    await anchoring.round()
    await owner.execute(
        "update vx.audit_anchors set stored_at = stored_at + interval '1 day' where project_id = $1",
        uuid_of(project),
    )
    before = await owner.fetchval(anchors, uuid_of(project))
    await some_acts(project, 1)
    await anchoring.round()
    ahead = await owner.fetchval(anchors, uuid_of(project))

    now = api.control.clock.now
    monkeypatch.setattr(api.control.audit.clock, "now", lambda: now() - timedelta(hours=2))
    await some_acts(project, 1)
    monkeypatch.undo()
    await anchoring.round()
    behind, report = await owner.fetchval(anchors, uuid_of(project)), await verified(project.client)

    assert (ahead, behind) == (before + 1, before + 2)
    assert (report["ok"], report["unanchored"]) == (True, 0)
    newest = (await entries(project.client))[0]
    assert abs(now() - datetime.fromisoformat(newest["at"])) < timedelta(minutes=1), (
        "it has the database's time"
    )


async def test_a_true_reorder_names_both(api: Api, project: Project, owner: Superuser) -> None:
    await some_acts(project)
    await api.control.audit_log.anchoring.round()
    for swap in ("n = n + 1000 where n in (3, 4)", "n = 1007 - n where n > 1000"):
        column, _, condition = swap.partition(" where ")
        await owner.execute(
            f"update vx.audit_entries set {column} where project_id = $1 and {condition}", uuid_of(project)
        )
    faults = (await verified(project.client))["faults"]
    assert [(f["what"], f["where"][:10]) for f in faults[:2]] == [
        ("changed", "entry 3 of"),
        ("changed", "entry 4 of"),
    ]


async def test_what_is_made_anew_without_the_key_is_found(
    api: Api, project: Project, owner: Superuser
) -> None:
    """The hashes are no secret: somebody computes them anew, to the end of the chain. The signatures are."""
    await some_acts(project)
    await api.control.audit_log.anchoring.round()
    rows = await owner.fetch(
        f"select {store.COLUMNS} from vx.audit_entries where project_id = $1 order by n", uuid_of(project)
    )
    prev = rows[2]["prev"]
    for row in rows[2:]:
        forged = store._entry(
            {**row, "prev": prev, "actor_id": "key_other" if row["n"] == 3 else row["actor_id"]}
        )
        prev = hash_of(forged)
        await owner.execute(
            "update vx.audit_entries set prev = $2, hash = $3, actor_id = $4 where project_id = $1 and n = $5",
            uuid_of(project), forged.prev, prev, forged.actor.id, forged.n,
        )  # fmt: skip
    faults = (await verified(project.client))["faults"]
    assert [(f["what"], f["where"][:10]) for f in faults[:2]] == [
        ("not_signed", "entry 3 of"),
        ("not_signed", "entry 4 of"),
    ]


async def test_a_key_that_the_owner_of_the_database_brings_is_nobodys(
    api: Api, project: Project, owner: Superuser
) -> None:
    await owner.execute("insert into vx.audit_keys (kid, wrapped) values ('aud_evil', '\\x00')")
    await owner.execute(
        "update vx.audit_entries set kid = 'aud_evil' where project_id = $1 and n = 1", uuid_of(project)
    )
    report = await verified(project.client)
    assert report["faults"][0]["what"] == "unknown_key"
    assert "aud_evil" not in {key["kid"] for key in report["keys"]}


async def test_a_log_that_is_set_back_with_its_anchors_is_found_and_not_signed_any_further(
    api: Api, project: Project, owner: Superuser
) -> None:
    async def newest() -> int:
        anchors = "select max(n) from vx.audit_anchors where project_id = $1"
        found: int = await owner.fetchval(anchors, uuid_of(project))
        return found

    await api.control.audit_log.anchoring.round()
    first = await newest()
    await some_acts(project)
    await api.control.audit_log.anchoring.round()
    lost = await newest()  # the one after, or one more where the instance has looked in the midst of them
    await owner.execute("delete from vx.audit_entries where project_id = $1 and n > 2", uuid_of(project))
    await owner.execute(
        "delete from vx.audit_anchors where project_id = $1 and n > $2", uuid_of(project), first
    )

    report = await verified(project.client)
    platform = await verified(api.operator, "/admin/v1/audit/verify")
    await project.client.get("/v1/agent-secret")
    await api.control.audit_log.anchoring.round()

    assert lost > first
    assert (report["faults"][0]["what"], report["faults"][0]["where"]) == ("missing", f"anchor {lost}")
    assert f"anchor {lost} of {project.id}" in {f["where"] for f in platform["faults"]}
    assert await newest() == first
    # the rest of the module has a platform that knows of no missing anchors
    api.control.audit_log.anchoring.seen.pop(str(uuid_of(project)))


# --------------------------------------------------------------------------------------- erasure, retention, export


async def test_what_is_erased_is_gone_and_the_log_still_verifies(api: Api, project: Project) -> None:
    await some_acts(project)
    await api.control.audit_log.anchoring.round()
    key = (await entries(project.client))[0]["target"]
    async with api.control.db.transaction("admin") as connection:
        await connection.execute(text("select 1"))
        assert await api.control.audit.erase(connection, uuid_of(project), target=key) == 1
    found = {e["target"]: e for e in await entries(project.client, action="key.created")}

    assert (found[key]["address"], found[key]["summary"]) == (None, None)
    assert found[key]["actor"]["kind"] == "key"
    report = await verified(project.client)
    assert (report["ok"], report["erased"]) == (True, 1)


async def test_somebody_who_was_removed_is_erased_from_every_log_and_all_of_them_verify(
    api: Api, project: Project, owner: Superuser, tmp_path: Path
) -> None:
    other = await api.project()
    came, person = await signed_in(
        api, f"{uuid4().hex[:8]}@gone.example", {project.id: "admin", other.id: "owner"}
    )
    for at in (project, other):
        made = await came.send(f"/console/p/{at.id}/keys", {"name": "canary-9e02", "role": "viewer"})
        assert made.status_code == 200
    await some_acts(project, 2)
    erase = f"/admin/v1/people/{person}/erase"
    assert problem(await api.operator.post(erase)) == (409, "conflict"), "an account is accounted for"
    assert problem(await api.operator.post("/admin/v1/people/ada@example.com/erase")) == (404, "not_found")
    assert (await project.client.post(erase)).status_code == 403
    await api.operator.delete(f"/admin/v1/people/{person}")
    await api.control.audit_log.anchoring.round()
    acts = [e["action"] for e in await entries(project.client, actor=person)]

    told = (await api.operator.post(erase)).json()
    about = "actor_id = $1 or target = $1"
    rows = await owner.fetch(f"select action, details, salt from vx.audit_entries where {about}", person)
    bare = [r for r in rows if r["action"] != "audit.details_erased"]
    assert told == {"person": person, "entries": len(bare), "done": True, "cells_away": []}
    assert {r["action"] for r in bare} >= {
        "person.created",
        "person.signed_in",
        "member.set",
        "key.created",
        "person.removed",
    }
    assert [r for r in bare if r["details"] is not None or r["salt"] is not None] == []
    assert [e["action"] for e in await entries(project.client, actor=person)] == acts, "what was done stays"
    for client, path in (
        (project.client, "/v1/audit"),
        (other.client, "/v1/audit"),
        (api.operator, "/admin/v1/audit"),
    ):
        report = await verified(client, f"{path}/verify")
        # other tests of this module take anchors of their own projects away, which the platform's log notices
        assert [f for f in report["faults"] if " of prj_" not in f["where"]] == []
        assert report["erased"] > 0
        said = await entries(client, path, action="audit.details_erased", target=person)
        assert said and {e["actor"]["id"] for e in said} == {"operator_key"}
        assert {e["address"] for e in said} == {""}, "they are never erased themselves"
        file = tmp_path / "log.jsonl"
        file.write_text((await client.get(f"{path}/export")).text)
        with file.open() as text_:
            assert not offline.verify(text_).faults
    assert (await api.operator.post(erase)).json() == {
        "person": person,
        "entries": 0,
        "done": True,
        "cells_away": [],
    }
    assert [
        e["details"]
        for e in await owner.fetch("select details from vx.audit_entries where details like '%canary-9e02%'")
    ] == []

    # an erasure is no licence: what nobody has signed for is a fault, and so is what was put back
    [mine] = await owner.fetch(
        "select writer, n from vx.audit_entries where project_id = $1 and actor_id = $2 and action = 'key.created'",
        uuid_of(project), person,
    )  # fmt: skip
    back = "update vx.audit_entries set details = $3, salt = '\\x00' where writer = $1 and n = $2 and project_id = $4"
    await owner.execute(
        back, mine["writer"], mine["n"], '{"address":"203.0.113.7","summary":{}}', uuid_of(project)
    )
    assert [f["what"] for f in (await verified(project.client))["faults"]] == ["changed"]
    await owner.execute(back.replace("'\\x00'", "null"), mine["writer"], mine["n"], None, uuid_of(project))
    assert (await verified(project.client))["ok"]
    [left] = await owner.fetch(
        "select writer, n from vx.audit_entries where project_id = $1 and details is not null and action = 'key.created' limit 1",
        uuid_of(project),
    )
    await owner.execute(
        "select vx.audit_erase($1, array[$2::uuid], array[$3::bigint])",
        uuid_of(project),
        left["writer"],
        left["n"],
    )
    assert [f["what"] for f in (await verified(project.client))["faults"]] == ["erased"]


async def test_a_long_life_is_erased_in_parts(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    came, person = await signed_in(api, f"{uuid4().hex[:8]}@gone.example", {project.id: "admin"})
    for i in range(5):
        await came.send(f"/console/p/{project.id}/keys", {"name": f"k{i}", "role": "viewer"})
    await api.operator.delete(f"/admin/v1/people/{person}")
    monkeypatch.setattr(service, "ERASED_AT_ONCE", 2)
    monkeypatch.setattr(service, "ERASED_PER_REQUEST", 3)
    told = []
    while not told or not told[-1]["done"]:
        told.append((await api.operator.post(f"/admin/v1/people/{person}/erase")).json())
    assert len(told) > 2 and sum(t["entries"] for t in told) >= 9
    assert (await verified(project.client))["ok"]
    platform = (await verified(api.operator, "/admin/v1/audit/verify"))["faults"]
    assert [f for f in platform if " of prj_" not in f["where"]] == []


async def test_what_is_old_is_dropped_and_the_rest_still_verifies(
    api: Api, project: Project, owner: Superuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_acts(project)
    now = api.control.clock.now
    with monkeypatch.context() as ahead:
        ahead.setattr(api.control.clock, "now", lambda: now() + timedelta(days=500))
        await api.control.audit_log.anchoring.drop_old()
    assert len(await entries(project.client)) == 8, "one instance's clock is not enough"
    await api.control.audit_log.anchoring.round()
    newest = await entries(project.client)
    border = api.control.clock.now()
    await some_acts(project, 2)
    dropped = await api.control.audit_log.anchoring.drop(uuid_of(project), border)
    left = await entries(project.client)

    assert dropped == 1
    assert not {e["id"] for e in newest} & {e["id"] for e in left}
    assert len(left) == 2
    report = await verified(project.client)
    assert (report["ok"], report["entries"], report["dropped"]) == (True, 2, 8), report
    assert report["dropped_at"] >= rfc3339(border)
    exported = (await project.client.get("/v1/audit/export")).text.splitlines(keepends=True)
    offline_found = offline.verify(exported)
    assert (offline_found.faults, offline_found.dropped) == ([], 8)
    await some_acts(project, 2)
    border = api.control.clock.now() + timedelta(seconds=1)
    assert await api.control.audit_log.anchoring.drop(uuid_of(project), border) == 1
    later = await verified(project.client)
    assert (later["ok"], later["entries"], later["dropped"]) == (True, 0, 13), later
    await some_acts(project, 2)
    assert (await verified(project.client))["ok"]
    # and what is taken away without being dropped still shows (of another chain: nothing was left of the first)
    await owner.execute("delete from vx.audit_entries where project_id = $1 and n = 1", uuid_of(project))
    assert (await verified(project.client))["faults"][0]["where"].startswith("entry 1 of")


@pytest.mark.parametrize("shape", ["jsonl", "csv"])
async def test_an_export_verifies_without_us_and_a_changed_one_does_not(
    api: Api, project: Project, shape: str
) -> None:
    await some_acts(project)
    await api.control.audit_log.anchoring.round()
    answer = await project.client.get("/v1/audit/export", params={"format": shape})
    lines = answer.text.splitlines(keepends=True)
    good = offline.verify(lines)
    keys = (await verified(project.client))["keys"]

    assert (
        answer.headers["content-type"].partition(";")[0]
        == {"jsonl": "application/jsonl", "csv": "text/csv"}[shape]
    )
    assert (good.faults, good.anchors >= 1) == ([], True)
    assert good.entries == 9  # and that it was exported
    assert offline.verify(lines, frozenset(k["public_key"] for k in keys)).faults == []
    assert {f.what for f in offline.verify(lines, frozenset({"00" * 32})).faults} == {"unknown_key"}
    changed = [line.replace("key 3", "key 9") for line in lines]
    assert [f.what for f in offline.verify(changed).faults] == ["changed"]
    third = next(i for i, line in enumerate(lines) if "key 2" in line)
    assert [f.what for f in offline.verify(lines[:third] + lines[third + 1 :]).faults] == ["missing"]
    with pytest.raises(offline.BadExport):
        offline.verify(["hello\n"])


# ------------------------------------------------------------------------------------------------------- asking


async def test_a_page_is_filtered_and_goes_on(api: Api, project: Project) -> None:
    await some_acts(project)
    first = await project.client.get("/v1/audit", params={"limit": 3, "action": "key.*"})
    rest = await project.client.get(
        "/v1/audit", params={"limit": 200, "action": "key.*", "cursor": first.json()["next_cursor"]}
    )
    seen = [e["n"] for e in first.json()["data"] + rest.json()["data"]]
    other = await project.client.get(
        "/v1/audit", params={"action": "x", "cursor": first.json()["next_cursor"]}
    )
    at = first.json()["data"][0]["at"]

    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 7
    assert problem(other) == (400, "bad_cursor")
    assert await entries(project.client, to="2000-01-01T00:00:00Z") == []
    assert len(await entries(project.client, **{"from": at})) >= 1
    for bad in ({"from": "yesterday"}, {"from": at, "to": at}, {"nonsense": "1"}):
        assert (await project.client.get("/v1/audit", params=bad)).status_code == 422


async def test_a_project_does_not_see_another_ones_log(api: Api, project: Project) -> None:
    other = await api.project()
    assert {e["id"] for e in await entries(project.client)}.isdisjoint(
        e["id"] for e in await entries(other.client)
    )
    viewer = await api.key(project, "viewer")
    assert (await viewer.get("/v1/audit")).status_code == 403
    assert (await project.client.get("/admin/v1/audit")).status_code == 403
    assert UUID(int=0) == PLATFORM


# ------------------------------------------------------------------------------------------- nothing is forgotten

UNNOTED = {
    "createCall": "stands in the call's own log",
    "writeConversation": "stands in the call's own log",
    "renewTicket": "stands in the call's own log; who asks has no key",
    "twilioEndCall": "the backend of the call hangs up, by the socket that it has: stands in the call's own log",
    "previewPlacement": "changes nothing",
    "reportProbes": "a measurement, for ten minutes",
    "/console/sign-out": "ends one session of who asks; all of them at once is written down",
    "/console/p/{project:str}/webhooks/{webhook:str}/test": "sends an example of an event, and keeps nothing",
    "testWebhook": "sends an example of an event, and keeps nothing",
}


def test_every_route_that_changes_something_says_what_it_writes_down(api: Api) -> None:
    """Another one is to be given `audit=` and its entry, or a reason here."""
    unsaid = {name for name, opt in changing_routes(create_app(api.settings)).items() if "audit" not in opt}
    assert unsaid == set(UNNOTED)


CONTENT = re.compile(r"conversations\.(read|tool)\(|feeds\.(page|of_call)\(|fan\.read\(")
NOTES = re.compile(r"audit\.read\(|await note_(page|stream)\(")


def test_whatever_reads_what_was_said_writes_it_down() -> None:
    """Every module of routes that asks for content also says so to the log, as often as it asks."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        source = path.read_text()
        asked, noted = len(CONTENT.findall(source)), len(NOTES.findall(source))
        assert asked <= noted or path.name == "fan.py", (
            f"{path}: content is read {asked} times, and noted {noted} times"
        )


# ------------------------------------------------------------------------------------------------- on the command line


@pytest.mark.slow
async def test_the_command_line_lists_verifies_and_exports(
    api: Api, project: Project, tmp_path: Path
) -> None:
    await some_acts(project)
    await api.control.audit_log.anchoring.round()
    env = {"VOXPLANE_URL": api.url, "VOXPLANE_API_KEY": project.key, "VOXPLANE_OPERATOR_KEY": OPERATOR_KEY}
    file = tmp_path / "log.csv"

    listed = await voxplane(
        "audit", "list", "--action", "key.*", "--from", "1h", "--limit", "2", "--json", **env
    )
    good = await voxplane("audit", "verify", "--json", **env)
    platform = await voxplane("audit", "list", "--platform", "--limit", "2", **env)
    exported = await voxplane("audit", "export", "--format", "csv", "-o", str(file), **env)
    line = f"{sys.executable} -m app.cli.main audit export | true"
    unread = await asyncio.create_subprocess_shell(
        line, cwd=ROOT, env=os.environ | env, stderr=asyncio.subprocess.PIPE
    )
    assert (await unread.communicate())[1] == b"", "nobody reads on: that is no fault"
    offline_ = await voxplane("audit", "verify", str(file))
    file.write_text(file.read_text().replace("key 3", "key 9"))
    forged = await voxplane("audit", "verify", str(file))
    file.write_text("hello")
    no_file = await voxplane("audit", "verify", str(file))

    assert [e["action"] for e in json.loads(listed.out)] == ["key.created"] * 2
    assert json.loads(good.out)["ok"]
    assert (platform.code, platform.out.count("\n")) == (0, 2)
    assert (exported.code, exported.err) == (0, "")
    assert (offline_.code, "as it was written: 9 entries" in offline_.out) == (0, True), offline_
    assert forged.code == 1
    assert "entry 6 of" in forged.out
    assert (no_file.code, "line 1 is no JSON" in no_file.err) == (2, True), no_file
