"""The conversation over HTTP: windows, what is durable and what is not yet, entries that are written once, tools by key."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from app.log.append import EdgeIdentity
from regions.wire import ids
from tests.support.api import Api, Project, serving
from tests.support.calls import WrittenCall, create_call, event, owners_in, said
from tests.support.engines import REGIONS
from tests.support.schemas import documented
from voxplane import ApiError, AsyncClient, Client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owners(api: Api) -> list[EdgeIdentity]:
    return await owners_in(api, REGIONS)


@pytest.fixture
async def call(project: Project, owners: list[EdgeIdentity]) -> WrittenCall:
    return await create_call(project, owners)


async def talk(api: Api, call: WrittenCall, turns: int) -> int:
    """A question, noise, a tool and an answer, over and over; the newest `seq`."""
    events = []
    for n in range(1, turns * 5, 5):
        events += [
            said(n, "caller", f"question {n}"),
            event(n + 1),
            event(n + 2, "tool.called", id=f"t{n}", name="look", key=f"look:{n}"),
            event(n + 3, "tool.result", id=f"t{n}", result={"n": n}),
            said(n + 4, "agent", f"answer {n}"),
        ]
    for i in range(0, len(events), 100):
        status = await call.append(api, 1, *events[i : i + 100])
    return status.seq


async def test_a_window_by_turns_and_pages_into_the_past_make_the_whole(api: Api, call: WrittenCall) -> None:
    seq = await talk(api, call, 120)
    pages: list[dict[str, Any]] = []
    before: int | None = None
    while True:
        asked = {"turns": 50} | ({"before_seq": before} if before else {})
        page = (await call.read(**asked)).json()
        assert page["seq"] == seq
        pages = page["turns"] + pages
        before = page["next_before_seq"]
        if before is None:
            break
        assert len(page["turns"]) == 50
    assert len(pages) == 360
    places = [t["seq"] for t in pages]
    assert places == sorted(set(places))
    assert all(t["done"] and t["result"] for t in pages if t["role"] == "tool")
    newest = (await call.read(turns=1)).json()
    assert [(t["text"], t["seq"]) for t in newest["turns"]] == [("answer 596", seq)]


async def test_a_page_knows_the_result_that_came_after_it(api: Api, call: WrittenCall) -> None:
    status = await call.append(
        api, 1, event(1, "tool.called", id="t", name="look"), said(2, "caller", "and?"), event(3, "tool.result", id="t", result=5)
    )  # fmt: skip
    page = (await call.read(before_seq=3, min_seq=status.seq, wait_ms=8_000)).json()
    assert [(t["role"], t["result"], t["seq"]) for t in page["turns"]] == [("tool", 5, 2)]
    assert page["next_before_seq"] is None


async def test_a_window_by_tokens_never_grows(api: Api, call: WrittenCall) -> None:
    sizes = []
    for n in range(1, 40, 3):
        await call.append(api, 1, *(said(n + i, "caller", "word " * 20) for i in range(3)))
        found = (await call.read(tokens=100)).json()
        assert found["tokens"] <= 100
        sizes.append(len(found["turns"]))
    assert sizes[0] == 3
    assert set(sizes[1:]) == {4}
    tiny = (await call.read(tokens=2)).json()
    assert [(t["text"], t["truncated"]) for t in tiny["turns"]] == [("rd word ", True)]


@pytest.mark.parametrize(
    "asked", [{"turns": 0}, {"tokens": -1}, {"before_seq": 0}, {"min_seq": -1}, {"wait_ms": -1}]
)
async def test_a_limit_below_the_least_is_refused(call: WrittenCall, asked: dict[str, int]) -> None:
    answer = await call.read(**asked)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_limit")


async def test_a_reader_waits_for_what_it_demands_and_is_told_when_it_may_ask_again(
    api: Api, call: WrittenCall
) -> None:
    await call.append(api, 1, said(1, "caller", "hello"))
    early = await call.read(min_seq=3, wait_ms=0)
    assert (early.status_code, early.json()["code"], early.json()["seq"]) == (409, "not_yet", 2)
    assert early.headers["Retry-After"] == "1"
    waiting = asyncio.create_task(call.read(min_seq=3, wait_ms=8_000))
    while not api.control.conversations._waiting:
        await asyncio.sleep(0)
    await call.append(api, 1, said(2, "agent", "good morning"))
    answer = await waiting
    assert (answer.status_code, answer.json()["turns"][-1]["text"]) == (200, "good morning")
    assert api.control.conversations._waiting == 0
    await call.project.client.post(f"/v1/calls/{call.id}/end")
    never = await call.read(min_seq=99, wait_ms=8_000)
    assert (never.status_code, never.json()["code"]) == (409, "call_ended")


async def test_what_is_not_below_the_durable_horizon_is_not_served(api: Api, call: WrittenCall) -> None:
    """A transaction that runs since before the write holds the horizon back, as a standby that does not answer would."""
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        running = connection.transaction()
        await running.start()
        await connection.fetchval("select pg_current_xact_id()")
        seq = (await call.write(type="turn", role="agent", text="too fresh", key="k")).json()["seq"]
        refused = await call.read(min_seq=seq, wait_ms=50)
        served = (await call.read(min_seq=0)).json()
        await running.rollback()
    finally:
        await connection.close()
    assert (refused.status_code, refused.json()["code"]) == (409, "not_yet")
    assert (served["seq"], served["turns"]) == (seq - 1, [])
    after = await call.read(min_seq=seq)
    assert [t["text"] for t in after.json()["turns"]] == ["too fresh"]


async def test_what_was_written_through_one_instance_is_read_from_another(
    api: Api, call: WrittenCall
) -> None:
    async with serving(dataclasses.replace(api.settings, port=0)) as other:
        reader = await other.client(call.project.key)

        async def write_then_read(i: int) -> None:
            written = await call.write(type="turn", role="caller", text=f"entry {i}", key=f"k{i}")
            assert written.status_code == 201, written.text
            seq = written.json()["seq"]
            read = await reader.get(f"/v1/calls/{call.id}/conversation", params={"min_seq": seq})
            assert read.status_code == 200, read.text
            assert read.json()["seq"] >= seq
            assert (seq, f"entry {i}") in {(t["seq"], t["text"]) for t in read.json()["turns"]}

        await asyncio.gather(*(write_then_read(i) for i in range(25)))


# -------------------------------------------------------------------------------------------------------- writing


async def test_an_entry_is_written_once_per_key(call: WrittenCall) -> None:
    entry = {"type": "turn", "role": "agent", "text": "a note", "key": "n1"}
    answers = await asyncio.gather(*(call.write(**entry) for _ in range(6)))
    other = await call.write(**(entry | {"text": "another"}))
    header = await call.project.client.post(
        f"/v1/calls/{call.id}/conversation",
        json={k: v for k, v in entry.items() if k != "key"},
        headers={"Idempotency-Key": "n1"},
    )
    assert sorted(a.status_code for a in answers) == [200] * 5 + [201]
    assert {a.json()["seq"] for a in answers} == {2}
    assert {a.status_code for a in answers if "Idempotent-Replayed" in a.headers} == {200}
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (header.status_code, header.json()["seq"]) == (200, 2)
    assert [(t["text"], t["by"]) for t in (await call.read()).json()["turns"]] == [("a note", "project")]


async def test_a_tool_that_has_run_is_not_run_again_whoever_asks(api: Api, call: WrittenCall) -> None:
    """Called over the backend's socket, finished over REST, asked for again over REST."""
    path = f"/v1/calls/{call.id}/tools/pay:7"
    assert (await call.project.client.get(path)).status_code == 404
    early = await call.write(type="tool.result", key="pay:7", result=1)
    assert (early.status_code, early.json()["code"]) == (409, "tool_not_called")
    await call.append(api, 1, event(1, "tool.called", id="t1", key="pay:7", name="pay", arguments={"eur": 5}))
    pending = (await call.project.client.get(path)).json()
    first = await call.write(type="tool.result", key="pay:7", result={"paid": True})
    again = await call.write(type="tool.called", key="pay:7", name="pay", arguments={"eur": 5})
    done = (await call.project.client.get(path)).json()
    assert (pending["done"], pending["id"], pending["arguments"]) == (False, "t1", {"eur": 5})
    assert first.status_code == 201
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert documented("writeConversation")[again.status_code] == documented("writeConversation")[201]
    assert again.json()["tool"] == done
    assert (done["done"], done["result"], done["seq"]) == (True, {"paid": True}, 2)
    turns = (await call.read()).json()["turns"]
    assert [(t["role"], t["key"], t["result"]) for t in turns] == [("tool", "pay:7", {"paid": True})]


async def test_a_call_that_has_ended_takes_no_more_but_replays_what_it_has(call: WrittenCall) -> None:
    first = await call.write(type="turn", role="agent", text="a note", key="n1")
    await call.project.client.post(f"/v1/calls/{call.id}/end")
    late = await call.write(type="turn", role="agent", text="another", key="n2")
    again = await call.write(type="turn", role="agent", text="a note", key="n1")
    assert (late.status_code, late.json()["code"]) == (409, "call_ended")
    assert (again.status_code, again.json()["seq"]) == (200, first.json()["seq"])


async def test_a_foreign_call_is_not_there_and_a_narrow_key_may_not_write(
    api: Api, project: Project, call: WrittenCall
) -> None:
    theirs = (await api.project()).client
    path, entry = (
        f"/v1/calls/{call.id}/conversation",
        {"type": "turn", "role": "agent", "text": "x", "key": "k"},
    )
    reader = await api.key(project, "developer", scopes=["conversation:read"])
    assert (await theirs.post(path, json=entry)).status_code == 404
    assert (await theirs.get(f"/v1/calls/{call.id}/tools/k")).status_code == 404
    assert (await theirs.get(f"/v1/calls/{call.id}", params={"tails": "true"})).status_code == 404
    assert (await reader.post(path, json=entry)).status_code == 403
    assert (await reader.get(path)).json()["turns"] == []


async def test_entries_that_do_not_fit_say_where(call: WrittenCall) -> None:
    for entry, status, pointers in (
        ({"type": "turn", "role": "agent", "text": "x"}, 400, []),
        ({"type": "turn", "role": "tool", "text": "x", "key": "k"}, 422, ["/role"]),
        ({"type": "turn", "role": "agent", "text": "x" * 5_001, "key": "k"}, 422, ["/text"]),
        ({"type": "turn", "role": "agent", "text": "x", "key": "a b"}, 422, ["/key"]),
        ({"type": "tool.called", "name": "n", "key": "k", "colour": "red"}, 422, ["/colour"]),
        ({"type": "tool.called", "name": "n", "key": "k", "arguments": "x" * 33_000}, 422, ["/arguments"]),
        ({"type": "transcript.final", "key": "k"}, 422, ["/type"]),
    ):
        answer = await call.write(**entry)
        assert (answer.status_code, [e["pointer"] for e in answer.json()["errors"]]) == (status, pointers), (
            entry
        )


async def ask_async(url: str, key: str, call: str) -> list[Any]:
    async with AsyncClient(url, key) as client:
        first = await client.add_turn(call, "agent", "hello", key="a")
        await client.write_conversation(call, {"type": "tool.called", "name": "pay", "key": "pay:1"})
        done = await client.write_conversation(call, {"type": "tool.result", "key": "pay:1", "result": 5})
        window = await client.conversation(call, turns=1, tokens=50, min_seq=done["seq"], wait_ms=5_000)
        older = await client.conversation(call, before_seq=window["next_before_seq"])
        again = await client.add_turn(call, "agent", "hello", key="a")
        with pytest.raises(ApiError):
            await client.tool(call, "not called")
        return [first, window, older, again, await client.tool(call, "pay:1")]


def ask_sync(url: str, key: str, call: str) -> list[Any]:
    with Client(url, key) as client:
        first = client.add_turn(call, "agent", "hello", key="a")
        client.write_conversation(call, {"type": "tool.called", "name": "pay", "key": "pay:1"})
        done = client.write_conversation(call, {"type": "tool.result", "key": "pay:1", "result": 5})
        window = client.conversation(call, turns=1, tokens=50, min_seq=done["seq"], wait_ms=5_000)
        older = client.conversation(call, before_seq=window["next_before_seq"])
        again = client.add_turn(call, "agent", "hello", key="a")
        with pytest.raises(ApiError):
            client.tool(call, "not called")
        return [first, window, older, again, client.tool(call, "pay:1")]


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_the_client_library_reads_and_writes_it(api: Api, call: WrittenCall, kind: str) -> None:
    given = (api.url, call.project.key, call.id)
    if kind == "async":
        first, window, older, again, tool = await ask_async(*given)
    else:
        first, window, older, again, tool = await asyncio.to_thread(ask_sync, *given)
    assert again == first
    assert [t["role"] for t in window["turns"]] == ["tool"]
    assert [t["text"] for t in older["turns"]] == ["hello"]
    assert (tool["done"], tool["result"]) == (True, 5)


async def test_what_was_written_cannot_be_read_in_the_database(api: Api, call: WrittenCall) -> None:
    await call.write(type="turn", role="caller", text="a canary sings", key="k")
    await call.write(type="tool.called", name="canary", arguments={"a": "canary"}, key="k")
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        rows = await connection.fetch(
            "select source, source_key, data, content from vx.events where call_id = $1 and seq > 1",
            ids.decode(ids.CALL, call.id),
        )
    finally:
        await connection.close()
    assert [(r["source"], r["source_key"], r["data"]) for r in rows] == [
        ("project", "project:turn:k", None), ("project", "project:tool.called:k", None),
    ]  # fmt: skip
    assert not any(b"canary" in r["content"] for r in rows)
