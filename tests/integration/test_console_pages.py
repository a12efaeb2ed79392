"""The console's pages of calls, webhooks and the audit log: what they show to whom, what they do, and that nothing of it runs."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio

from app.log.append import EdgeIdentity
from regions.wire import ids
from regions.wire.events import EdgeEvent
from tests.support.api import Api, Project, another
from tests.support.calls import WrittenCall, create_call, event, owners_in, said
from tests.support.hooks import superuser, until
from tests.support.people import Browser, signed_in

HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;{{7*7}}</script>"
PAGE_BYTES_MAX = 200 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owners(api: Api) -> list[EdgeIdentity]:
    return await owners_in(api, ("us-east", "eu-west", "ap-south"))


async def visitor(api: Api, project: Project, role: str = "developer") -> Browser:
    came, _ = await signed_in(api, f"{uuid4().hex[:8]}@example.com", {project.id: role})
    return came


def now(event: EdgeEvent) -> EdgeEvent:
    """As it would be stamped: the calls of these tests are not of another year."""
    return msgspec.structs.replace(event, at_ms=round(time.time() * 1000) + event.n)


async def hostile_call(api: Api, project: Project, owners: list[EdgeIdentity]) -> WrittenCall:
    """One that was lost and taken over, with what users may write as bad as it can be."""
    body = {
        "agent": {"url": "ws://127.0.0.1:9/", "parameters": {"x": HOSTILE}},
        "latencies": [{"region": o.region, "rtt_ms": 20 + 60 * i} for i, o in enumerate(owners)],
        "metadata": {"order": HOSTILE, HOSTILE[:60]: "x"},
        "caller": {"from": "+14155550123", "to": "+14155550100"},
    }
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    assert made.status_code == 201, made.text
    call = WrittenCall(made.json()["id"], owners, project, made.json()["ticket"])
    stages = {"capture": 20, "end_of_turn": 320, "stt": 60, "llm": 210, "tts": 90, "pacing": 20}
    line = {"period_ms": 10_000, "up": {"loss": 0.01, "jitter_ms": 3.5}, "mos": 4.2, "mos_min": 4.0}
    usage = {
        "caller_in_bytes": 1_000, "caller_out_bytes": 2_000, "agent_in_bytes": 3_000, "agent_out_bytes": 4_000,
        "caller_saved_bytes": 5, "agent_saved_bytes": 6, "silence_saved_bytes": 11,
    }  # fmt: skip
    first = [
        event(1, "call.answered", encoding="pcm16", sample_rate=16_000),
        said(2, "caller", HOSTILE),
        said(3, "agent", "Of course."),
        event(4, "turn.answered", utterance=1, total_ms=720, stages=stages),
        event(5, "turn.budget_exceeded", utterance=1, total_ms=720, stages=stages, exceeded=["total", "llm"]),
        event(6, "agent.disconnected", clean=False, why=HOSTILE, code=1006),
        event(7, "call.quality", quality=line, usage=usage),
    ]
    await call.append(api, 1, *map(now, first))
    gone = event(1, "call.reconnecting", from_epoch=1, to_epoch=2, reason="silent", history="tail")
    await call.append(api, 2, now(gone), now(event(2, "call.reconnected", from_epoch=1, region="eu-west")))
    return call


def nothing_runs(page: str) -> None:
    assert "<img src=x" not in page and "49" not in re.findall(r"\{\{|49\}\}", page)
    assert not re.search(r"<script(?![^>]*\bsrc=\"/console/assets/)|\son[a-z]+=\"|\sstyle=", page)
    assert len(page.encode()) <= PAGE_BYTES_MAX
    for shown in re.findall(r"<time[^>]*>(.*?)</time>", page):
        assert shown.startswith("+") or shown.endswith(" UTC"), "a time says its zone"


async def read(came: Browser, path: str, status: int = 200) -> str:
    answer = await came.get(path)
    assert answer.status_code == status, (answer.status_code, answer.text[:2_000])
    nothing_runs(answer.text)
    return answer.text


async def test_the_list_of_calls(api: Api, project: Project, owners: list[EdgeIdentity]) -> None:
    came, home = await visitor(api, project), f"/console/p/{project.id}/calls"
    assert "There is no call yet" in await read(came, home)
    call = await hostile_call(api, project, owners)
    plain = await create_call(project, owners)
    page = await read(came, home)
    assert call.id in page and plain.id in page and "&lt;img src=x" in page
    for query, there, not_there in (
        ("?q=%2B14155550123", call.id, plain.id),
        ("?state=ringing", plain.id, call.id),
        ("?name=order&value=" + "nothing", "No call fits", call.id),
        ("?to=%2B14155550100&region=eu-west", call.id, plain.id),
        ("?after=2020-01-01T00:00&before=2020-01-02T00:00", "No call fits", call.id),
    ):
        page = await read(came, home + query)
        assert there in page and not_there not in page, query
    found = await came.get(home, params={"q": f"order={HOSTILE}"})
    assert call.id in found.text and plain.id not in found.text
    nothing_runs(found.text)
    gone = await came.get(home, params={"q": plain.id})
    assert (gone.status_code, gone.headers["location"]) == (303, f"{home}/{plain.id}")


@pytest.mark.parametrize(
    "query", ["state=nonsense", "from=nobody", "after=yesterday", "cursor=x", "before=2020-01-01T00:00&after=2021-01-01T00:00"]
)  # fmt: skip
async def test_a_filter_that_is_none_is_said(api: Api, project: Project, query: str) -> None:
    came = await visitor(api, project)
    answer = await came.get(f"/console/p/{project.id}/calls?{query}")
    assert answer.status_code in (400, 422)
    assert 'role="alert"' in answer.text and "Find" in answer.text, "the page is there, with what is wrong"


async def test_a_call_and_what_was_said(api: Api, project: Project, owners: list[EdgeIdentity]) -> None:
    call = await hostile_call(api, project, owners)
    came = await visitor(api, project)
    home = f"/console/p/{project.id}/calls/{call.id}"
    page = await read(came, home)
    for text in (
        "epoch 1: us-east, placed here",
        "epoch 2: eu-west, the edge was silent",
        "the edge was silent",
        "llm: 210 ms",
        "over: total, llm",
        "MOS 4.2",
        "chosen",
        "6.0 kB",
    ):
        assert text in page, text  # fmt: skip
    assert "Of course." not in page, "what was said is not on the page"
    await call.read()
    said_ = await read(came, f"{home}/conversation")
    assert "Of course." in said_ and "&lt;img src=x" in said_
    log = (
        await project.client.get("/v1/audit", params={"action": "conversation.read", "target": call.id})
    ).json()
    assert log["data"][0]["actor"]["kind"] == "person"
    viewer = await visitor(api, project, "viewer")
    page = await read(viewer, home)
    assert "Show what was said" not in page and "End the call" not in page
    await read(viewer, f"{home}/conversation", 403)
    assert (await viewer.send(f"{home}/end")).status_code == 403
    stranger = await visitor(api, await api.project(), "owner")
    for path in (home, f"{home}/conversation", f"{home}/live"):
        await read(stranger, path, 404)
        await read(stranger, path.replace(project.id, another(project.id)), 404)


async def test_a_long_call_is_no_large_page(api: Api, project: Project, owners: list[EdgeIdentity]) -> None:
    call = await hostile_call(api, project, owners)
    stages = dict.fromkeys(
        ("capture", "uplink", "jitter", "end_of_turn", "stt", "llm", "tts", "pacing", "downlink"), 50
    )
    for n in range(3, 903, 100):
        many = [
            event(i, "turn.answered", utterance=i, total_ms=450, stages=stages) for i in range(n, n + 100)
        ]
        await call.append(api, 2, *map(now, many))
    page = await read(await visitor(api, project), f"/console/p/{project.id}/calls/{call.id}")
    assert "are left out here" in page and "came before" in page
    assert len(page.encode()) > 50_000


async def test_a_call_is_moved_and_ended(api: Api, project: Project, owners: list[EdgeIdentity]) -> None:
    call = await hostile_call(api, project, owners)
    came = await visitor(api, project, "operator")
    home = f"/console/p/{project.id}/calls/{call.id}"
    assert (await came.post(f"{home}/end", {"csrf": "x"})).status_code == 403
    nowhere = await came.send(f"{home}/move", {"region": HOSTILE[:30]})
    assert nowhere.status_code == 422 and "no such region" in nowhere.text
    nothing_runs(nowhere.text)
    moved = await came.send(f"{home}/move", {"region": "ap-south"})
    assert moved.status_code == 303, moved.text
    assert (await came.send(f"{home}/end")).headers["location"] == f"{home}?done=call_ended"
    page = await read(came, f"{home}?done=call_ended")
    assert "The call is ended." in page and "completed" in page and "End the call" not in page
    assert (await project.client.get(f"/v1/calls/{call.id}")).json()["end_reason"] == "ended_by_api"


async def test_webhooks(api: Api, project: Project, owners: list[EdgeIdentity]) -> None:
    came, home = await visitor(api, project), f"/console/p/{project.id}/webhooks"
    assert "There is no endpoint yet" in await read(came, home)
    bad = await came.send(home, {"url": "javascript:alert(1)", "types": HOSTILE, "description": HOSTILE})
    assert bad.status_code == 422 and 'role="alert"' in bad.text
    nothing_runs(bad.text)
    made = await came.send(
        home, {"url": "http://127.0.0.1:9/hook", "types": "call.*, turn.ended", "description": HOSTILE}
    )
    assert made.status_code == 200 and "whsec_" in made.text, made.text  # fmt: skip
    nothing_runs(made.text)
    (hook,) = (await project.client.get("/v1/webhooks")).json()["data"]
    assert hook["types"] == ["call.*", "turn.ended"]
    one = f"{home}/{hook['id']}"
    assert "whsec_" not in await read(came, one)
    tested = await came.send(f"{one}/test", {"type": "call.ended"})
    assert tested.status_code == 200 and "call.ended:" in tested.text
    assert (await came.send(f"{one}/test", {"type": HOSTILE[:60]})).status_code == 422
    for since in ("", "yesterday", "2090-01-01T00:00"):
        assert (await came.send(f"{one}/recover", {"since": since})).status_code == 422
    replay = await came.send(f"{one}/recover", {"since": "2026-01-01T00:00", "what": "all"})
    assert replay.status_code in (303, 422), replay.text
    assert (await came.send(f"{one}/resend", {"call": HOSTILE[:60], "seq": "x"})).status_code in (404, 422)
    off = await came.send(f"{one}/enabled", {"enabled": "0"})
    assert off.headers["location"] == f"{one}?done=webhook_disabled"
    assert "disabled" in await read(came, one)
    viewer = await visitor(api, project, "viewer")
    assert "New secret" not in await read(viewer, one)
    gone = (await project.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/gone"})).json()["id"]
    async with asyncio.timeout(20), came.client.stream("GET", f"{home}/{gone}/live") as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        assert (await project.client.delete(f"/v1/webhooks/{gone}")).status_code == 204
        async for _ in lines:
            pass  # it ends, and is not broken off
    assert (await came.get(f"{home}/{gone}/live")).status_code == 404
    for act in ("test", "enabled", "rotate", "delete", "resend", "recover"):
        assert (await viewer.send(f"{one}/{act}")).status_code == 403, act
    stranger = await visitor(api, await api.project(), "owner")
    await read(stranger, one, 404)
    assert (await came.send(f"{one}/rotate")).text.count("whsec_") == 1
    assert (await came.send(f"{one}/delete")).headers["location"] == f"{home}?done=webhook_deleted"
    await read(came, one, 404)


async def test_an_endpoint_is_changed(api: Api, project: Project) -> None:
    made = await project.client.post(
        "/v1/webhooks", json={"url": "http://127.0.0.1:9/hook", "headers": {"X-Token": "canary-77c1"}}
    )
    hook = made.json()["id"]
    came, one = await visitor(api, project), f"/console/p/{project.id}/webhooks/{hook}"

    async def version() -> str:
        found = re.search(r'name="version" value="(\d+)"', await read(came, f"{one}/change"))
        assert found is not None
        return found[1]

    page = await read(came, f"{one}/change")
    assert "http://127.0.0.1:9/hook" in page and "X-Token" in page and "canary-77c1" not in page
    fields = {
        "version": await version(), "url": "http://127.0.0.1:9/other", "description": HOSTILE, "types": "call.*, turn.ended",
        "metadata": "customer=acme\r\ntier = gold=plated\n\n", "rate_per_s": "20", "concurrency": "4", "format": "cloudevents",
        "sign_v1": "1", "sign_v1a": "1", "headers": "",
    }  # fmt: skip
    saved = await came.send(f"{one}/change", fields)
    assert saved.headers["location"] == f"{one}?done=webhook_changed", saved.text
    now = (await project.client.get(f"/v1/webhooks/{hook}")).json()
    wanted = {
        "url": "http://127.0.0.1:9/other", "description": HOSTILE, "types": ["call.*", "turn.ended"], "rate_per_s": 20,
        "metadata": {"customer": "acme", "tier": "gold=plated"}, "concurrency": 4, "format": "cloudevents",
        "signatures": ["v1", "v1a"], "header_names": ["X-Token"],
    }  # fmt: skip
    assert {name: now[name] for name in wanted} == wanted, "headers that are not written anew stay"
    page = await read(came, f"{one}/change")
    assert "tier=gold=plated" in page and 'value="call.*, turn.ended"' in page

    stale = await came.send(f"{one}/change", fields | {"url": "http://127.0.0.1:9/stale"})
    assert stale.status_code == 412 and "http://127.0.0.1:9/stale" in stale.text, (
        "what was written is not lost"
    )
    again = await came.send(f"{one}/change", fields | {"version": await version()})
    assert again.headers["location"] == f"{one}?done=webhook_unchanged"
    log = (
        await project.client.get("/v1/audit", params={"target": hook, "action": "webhook.changed"})
    ).json()["data"]
    assert len(log) == 1 and "headers" not in log[0]["summary"]["given"]

    for wrong, field in (
        ({"url": "javascript:alert(1)"}, "url"), ({"types": "no.such"}, "types"), ({"rate_per_s": "many"}, "rate_per_s"),
        ({"rate_per_s": "5000"}, "rate_per_s"), ({"concurrency": "-1"}, "concurrency"), ({"metadata": "nothing"}, "metadata"),
        ({"headers": HOSTILE}, "headers"), ({"headers": "Host: x"}, "headers"), ({"format": "xml"}, "format"),
        ({"headers": "X-A: 1", "no_headers": "1"}, "headers"), ({"sign_v1": "", "sign_v1a": ""}, "signatures"),
    ):  # fmt: skip
        refused = await came.send(f"{one}/change", fields | {"version": await version()} | wrong)
        assert refused.status_code == 422 and f'id="wrong-{field}"' in refused.text, (wrong, refused.text)
        nothing_runs(refused.text)
    for headers, names in (
        ({"headers": "X-New: 1\nX-More: 2"}, ["X-More", "X-New"]),
        ({"no_headers": "1"}, []),
    ):
        saved = await came.send(f"{one}/change", fields | {"version": await version()} | headers)
        assert saved.status_code == 303, saved.text
        assert (await project.client.get(f"/v1/webhooks/{hook}")).json()["header_names"] == names

    assert (await came.post(f"{one}/change", fields)).status_code == 403, "a form without a token"
    for role, status in (("viewer", 403), ("operator", 403)):
        other = await visitor(api, project, role)
        assert (await other.send(f"{one}/change", fields)).status_code == status
        await read(other, f"{one}/change", status)
    await read(await visitor(api, await api.project(), "owner"), f"{one}/change", 404)


async def test_a_webhooks_secret_is_rotated_for_as_long_as_is_chosen(api: Api, project: Project) -> None:
    made = (await project.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/hook"})).json()
    came, one = await visitor(api, project), f"/console/p/{project.id}/webhooks/{made['id']}"
    for bad in ({"overlap_s": "soon"}, {"overlap_s": "9999999"}, {"secret": HOSTILE[:60]}):
        refused = await came.send(f"{one}/rotate", bad)
        assert refused.status_code == 422 and "whsec_" not in refused.text.replace("expected whsec_", ""), bad
    turned = await came.send(f"{one}/rotate", {"overlap_s": "3600"})
    assert turned.text.count("whsec_") == 1 and "signs too, until" in turned.text
    own = "whsec_" + "QUJD" * 10
    last = await came.send(f"{one}/rotate", {"overlap_s": "0", "secret": own})
    assert own in last.text and "signs no more" in last.text
    assert len((await project.client.get(f"/v1/webhooks/{made['id']}")).json()["secrets"]) == 1


async def test_a_key_is_narrowed(api: Api, project: Project) -> None:
    key = (await project.client.post("/v1/keys", json={"name": HOSTILE, "role": "developer"})).json()
    came = await visitor(api, project, "admin")
    page = f"/console/p/{project.id}/keys/{key['id']}/change"
    shown = await read(came, page)
    assert shown.count('type="checkbox"') == 12 and "keys:write" not in shown, (
        "what the key does not have is not offered"
    )
    reads = {f"scope_{s}": "1" for s in ("calls:read", "events:read", "conversation:read")}
    for wrong, status in (
        (reads | {"name": "", "role": "developer"}, 422), ({"name": "n", "role": "developer"}, 422),
        (reads | {"name": "n", "role": "emperor"}, 422), ({"name": "n", "role": "billing", "scope_usage:read": "1"}, 422),
        (reads | {"name": "n", "role": "viewer"}, 303),
    ):  # fmt: skip
        refused = await came.send(page, wrong)
        assert refused.status_code == status, (wrong, refused.text)
        nothing_runs(refused.text)
    listed = (await project.client.get("/v1/keys")).json()["data"]
    now = next(k for k in listed if k["id"] == key["id"])
    assert (now["name"], now["role"], now["scopes"]) == ("n", "viewer", ["calls:read", "events:read"])
    assert "calls:read, events:read" in await read(came, f"/console/p/{project.id}/keys?done=key_changed")
    wide = await came.send(page, reads | {"name": "n", "role": "developer"})
    assert wide.status_code == 422 and "does not have it" in wide.text
    await project.client.delete(f"/v1/keys/{key['id']}")
    assert (await came.send(page, reads | {"name": "n", "role": "viewer"})).status_code == 409
    developer = await visitor(api, project, "developer")
    await read(developer, page, 403)
    assert (await developer.send(page, reads)).status_code == 403
    await read(await visitor(api, await api.project(), "owner"), page, 404)


async def test_usage(api: Api, project: Project, owners: list[EdgeIdentity]) -> None:
    came, home = await visitor(api, project, "billing"), f"/console/p/{project.id}/usage"
    assert "No call has ended in these days" in await read(came, home)
    call = await hostile_call(api, project, owners)
    last = event(3, "call.ended", end_reason="caller_hung_up", quality=None, usage={
        "caller_in_bytes": 1, "caller_out_bytes": 2_000_000, "agent_in_bytes": 3, "agent_out_bytes": 4, "caller_saved_bytes": 5,
        "agent_saved_bytes": 6, "silence_saved_bytes": 11,
    })  # fmt: skip
    await call.append(api, 2, now(last))

    async def folded() -> bool:
        found = (await project.client.get("/v1/usage")).json()
        return bool(found["total"]["calls"] == 1 and found["pending"] == 0)

    await until(folded)
    for by in ("day", "region", "transport", "side", "region_pair"):
        page = await read(came, f"{home}?by={by}&measure=megabytes")
        assert "<rect" in page and "2.0 MB" in page, by
    assert "eu-west: 2 MB" in await read(came, f"{home}?by=region&measure=megabytes")
    for bad in ("by=nonsense", "from=yesterday", "from=2026-02-01&to=2026-01-01", "to=1-1-1"):
        assert 'role="alert"' in await read(came, f"{home}?{bad}", 400 if "by" in bad else 422)
    file = await came.get(f"{home}/csv?by=region")
    assert file.headers["content-type"] == "text/csv; charset=utf-8" and "eu-west" in file.text
    owner = await visitor(api, project, "owner")
    assert "Caller, backend attached" in await read(owner, f"/console/p/{project.id}/calls/{call.id}")
    await read(await visitor(api, project, "developer"), home, 403)


async def test_the_audit_log(api: Api, project: Project) -> None:
    came, home = await visitor(api, project, "admin"), f"/console/p/{project.id}/audit"
    await came.send(f"/console/p/{project.id}/keys", {"name": HOSTILE, "role": "viewer"})
    page = await read(came, home)
    assert "key.created" in page
    assert "key.created" not in await read(came, f"{home}?action=member.*")
    assert 'role="alert"' in await read(came, f"{home}?from=yesterday", 422)
    assert "as it was written" in await read(came, f"{home}/verify")
    for shape, kind in (("csv", "text/csv"), ("jsonl", "application/jsonl")):
        file: Any = await came.get(f"{home}/export/{shape}")
        assert file.status_code == 200 and file.headers["content-type"].startswith(kind)
        assert "key.created" in file.text and "attachment" in file.headers["content-disposition"]
    await read(await visitor(api, project, "developer"), home, 403)


async def test_pages_of_people_and_keys_stay_small_and_lose_nobody(api: Api, project: Project) -> None:
    admin, mine = await visitor(api, project, "admin"), ids.decode(ids.PROJECT, project.id)
    operator, _ = await signed_in(api, f"{uuid4().hex[:8]}@operators.example", operator=True)
    async with superuser(api) as database:
        await database.execute(
            "insert into vx.people (id, email, name, operator, created_at) select gen_random_uuid(),"
            " 'many' || n || '@people.example', 'Of many ' || n, false, now() from generate_series(100, 699) n"
        )
        await database.execute(
            "insert into vx.projects (id, name, mode, created_at)"
            " select gen_random_uuid(), 'Project ' || n, 'test', now() from generate_series(1, 400) n"
        )
        await database.execute(
            "insert into vx.api_keys (id, project_id, name, role, scopes, secret_hash, hint, created_at, allow_from, limits,"
            " expires_at) select gen_random_uuid(), $1, 'key ' || n, 'viewer', '{}', sha256(n::text::bytea || uuid_send($1)),"
            " '1234', now(), '{}', '{}', case when n <= 10 then now() - interval '1 day' end from generate_series(1, 120) n",
            mine,
        )
    try:
        people = await operator.get("/console/people")
        found = await operator.get("/console/people", params={"find": "MANY699@"})
        nobody = await operator.get("/console/people", params={"find": "nobody of that name"})
        last = await operator.get("/console/people", params={"find": "many", "at": "580"})
        keys = [
            await admin.get(f"/console/p/{project.id}/keys", params={"at": str(at)})
            for at in (0, 40, 80, 120)
        ]

        for page in (people, found, nobody, last, *keys):
            assert page.status_code == 200
            assert len(page.content) <= PAGE_BYTES_MAX, len(page.content)
        assert "More accounts" in people.text
        assert "many699@people.example" in found.text and "many698@people.example" not in found.text
        assert "Nobody is called so" in nobody.text
        assert "many699@people.example" in last.text and "To the first" in last.text
        shown = re.findall(r"<strong>(key \d+)</strong>", "".join(page.text for page in keys))
        assert len(shown) == len(set(shown)) == 120
        assert "111 in use" in keys[0].text
        expired = [page.text.count(">expired ") for page in keys]
        assert (expired[:2], sum(expired)) == ([0, 0], 10), "they stand last, and are not said to work"
    finally:
        async with superuser(api) as database:
            await database.execute("delete from vx.people where email like 'many%@people.example'")
            await database.execute(
                "delete from vx.api_keys where project_id = $1 and name like 'key %'", mine
            )
            await database.execute("delete from vx.projects where name like 'Project %'")
