"""A call of the agent kit, its parts scripted: a tool has its effect once, and the model is told what became of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.agent_parts import Ear, Edge, Mind, Voice, Watcher, asks
from tests.support.edges import until
from voxplane.agent import (
    Limits,
    Partial,
    Said,
    Tool,
    ToolCall,
    ToolUse,
)
from voxplane.agent.tool_desk import WITHDRAWN
from voxplane.agent.wires import Start


def looks(**more: Any) -> tuple[list[dict[str, Any]], Any]:
    ran: list[dict[str, Any]] = []

    async def run(arguments: dict[str, Any]) -> Any:
        ran.append(arguments)
        if (waits := more.get("waits")) is not None:
            await waits.wait()
        return {"day": "Monday"}

    given = {k: v for k, v in more.items() if k != "waits"}
    return ran, Tool(name="look", description="Looks.", run=run, **given)


CALLS = ToolCall("look", {"order": "7"}, "t1")


async def test_a_tool_runs_once_its_intent_is_durable_and_the_model_is_told() -> None:
    ran, tool = looks(key=lambda a: f"look:{a['order']}")
    watcher, ear, mind = Watcher(), Ear(), Mind(["Let me see. ", CALLS], ["Monday."])
    async with Edge(watcher.pipeline(ear, mind, Voice(), tools=[tool]), acks=False) as edge:
        ear.hears(asks())
        called = await edge.until("tool.called")
        assert called == {"id": "t1", "name": "look", "arguments": {"order": "7"}, "key": "look:7"}
        await edge.until("mark")
        assert ran == []
        edge.tell("ack", type="tool.called", id="t1", seq=4)
        await edge.until("mark", 2)
        assert ran == [{"order": "7"}]
        assert edge.of("tool.result") == [
            {"id": "t1", "name": "look", "result": {"day": "Monday"}, "key": "look:7"}
        ]
        assert mind.asked[1] == [
            Said("caller", "where is it"),
            ToolUse("t1", "look", {"order": "7"}, {"day": "Monday"}, True),
            Said("agent", "Let me see."),
        ]
        assert mind.tools == [["look"], ["look"]]


async def test_a_result_that_is_known_is_taken_and_nothing_runs() -> None:
    ran, tool = looks(key=lambda a: "k")
    watcher, ear, mind = Watcher(), Ear(), Mind([CALLS], ["Friday."])
    async with Edge(watcher.pipeline(ear, mind, Voice(), tools=[tool]), acks=False) as edge:
        ear.hears(asks())
        await edge.until("tool.called")
        edge.tell("tool.cached", id="t1", key="k", result={"day": "Friday"}, seq=2)
        await edge.until("mark")
        assert ran == []
        assert edge.of("tool.result") == []
        assert mind.asked[1][1] == ToolUse("t1", "look", {"order": "7"}, {"day": "Friday"}, True)


@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_tool_that_may_have_run_runs_again_only_where_it_may(repeatable: bool) -> None:
    ran, tool = looks(key=lambda a: "k", repeatable=repeatable)
    watcher, ear, mind = Watcher(), Ear(), Mind([CALLS], ["So."])
    async with Edge(watcher.pipeline(ear, mind, Voice(), tools=[tool])) as edge:
        edge.again.add("k")
        ear.hears(asks())
        await edge.until("mark")
        assert bool(ran) is repeatable
        use = mind.asked[1][1]
        assert isinstance(use, ToolUse)
        assert ("error" in use.result) is not repeatable


async def test_without_an_acknowledgement_nothing_with_an_effect_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voxplane.agent.tool_desk.ACK_WITHIN_S", 0.02)
    ran, tool = looks()
    watcher, ear, mind = Watcher(), Ear(), Mind([CALLS], ["Sorry."])
    async with Edge(watcher.pipeline(ear, mind, Voice(), tools=[tool]), acks=False) as edge:
        ear.hears(asks())
        await edge.until("mark")
        assert ran == []
        assert "not run" in mind.asked[1][1].result["error"]


async def test_a_tool_without_an_effect_waits_for_nothing() -> None:
    ran, tool = looks(effect=False)
    watcher, ear, mind = Watcher(), Ear(), Mind([CALLS], ["Monday."])
    async with Edge(watcher.pipeline(ear, mind, Voice(), tools=[tool]), acks=False) as edge:
        ear.hears(asks())
        await edge.until("mark")
        assert ran and edge.types[2:4] == ["tool.called", "tool.result"]


@pytest.mark.parametrize("resumed", [False, True])
async def test_a_word_before_a_tool_has_begun_withdraws_it_and_the_same_again_runs(resumed: bool) -> None:
    """Not where the call had a backend before: that one may have run it."""
    ran, tool = looks(key=lambda a: "k")
    watcher, ear = Watcher(), Ear()
    mind = Mind([CALLS], [ToolCall("look", {"order": "7"}, "t2")], ["Monday."])
    start = Start(call="call_1", resumed=resumed)
    async with Edge(watcher.pipeline(ear, mind, Voice(), tools=[tool]), start, acks=False) as edge:
        ear.hears(asks("do it"))
        await edge.until("tool.called")
        ear.hears(Partial("no"), asks("no wait"))
        await edge.until("tool.called", 2)
        assert mind.asked[1][1].result == {"error": WITHDRAWN}
        assert ran == []
        edge.tell("ack", type="tool.called", id="t1", seq=4)
        edge.tell("ack", type="tool.called", id="t2", seq=5, again=True)
        await edge.until("mark")
        assert len(ran) == (not resumed)


@pytest.mark.parametrize("interruptible", [False, True])
async def test_a_tool_that_has_begun_ends_whatever_the_caller_says(interruptible: bool) -> None:
    waits = asyncio.Event()
    ran, tool = looks(waits=waits, interruptible=interruptible)
    watcher, ear, mind = Watcher(), Ear(), Mind([CALLS], ["Yes."])
    async with Edge(watcher.pipeline(ear, mind, Voice(), tools=[tool])) as edge:
        ear.hears(asks("do it"))
        await until(lambda: bool(ran), "it has begun")
        ear.hears(asks("and then"))
        await edge.until("mark")
        assert mind.asked[1][1].done is interruptible
        waits.set()
        use = lambda: edge.call.history.entries[1]  # noqa: E731
        await until(lambda: use().done, "its result")
        assert use().result == ({"error": "it failed"} if interruptible else {"day": "Monday"})
        assert bool(edge.of("tool.result")) is not interruptible


async def test_the_same_key_at_once_runs_once() -> None:
    ran, tool = looks(key=lambda a: "k")
    twice = [CALLS, ToolCall("look", {"order": "7"}, "t2")]
    watcher, ear, mind = Watcher(), Ear(), Mind(twice, ["Monday."])
    async with Edge(watcher.pipeline(ear, mind, Voice(), tools=[tool])) as edge:
        ear.hears(asks())
        await edge.until("mark")
        assert len(ran) == 1
        assert [u.result for u in mind.asked[1][1:]] == [{"day": "Monday"}] * 2


async def test_what_goes_wrong_with_a_tool_the_model_is_told() -> None:
    from voxplane.agent import Tool, ToolFailed

    async def refuses(_: dict[str, Any]) -> Any:
        raise ToolFailed("no such order")

    async def breaks(_: dict[str, Any]) -> Any:
        raise KeyError("secret")

    async def babbles(_: dict[str, Any]) -> Any:
        return object()

    async def hangs(_: dict[str, Any]) -> Any:
        await asyncio.Event().wait()

    made = [
        Tool(name=f.__name__, description="", run=f, timeout_s=0.02)
        for f in (refuses, breaks, babbles, hangs)
    ]
    calls = [ToolCall(tool.name, {}, tool.name) for tool in made]
    watcher, ear, mind = Watcher(), Ear(), Mind([*calls, ToolCall("nobody", {}, "x")], ["Sorry."])
    async with Edge(watcher.pipeline(ear, mind, Voice(), tools=made)) as edge:
        ear.hears(asks())
        await edge.until("mark")
        told = {u.name: u.result["error"] for u in mind.asked[1][1:]}
        assert told["refuses"] == "no such order"
        assert "secret" not in told["breaks"]
        assert set(told) == {"refuses", "breaks", "babbles", "hangs", "nobody"}
        assert sorted(e.tool for e in watcher.errors) == ["babbles", "breaks", "hangs"]
        assert len(edge.of("tool.result")) == 4


async def test_a_model_that_only_calls_tools_is_at_last_given_none() -> None:
    _, tool = looks(effect=False)
    script = [[ToolCall("look", {})] for _ in range(3)]
    watcher, ear, mind = Watcher(), Ear(), Mind(*script, ["Enough."])
    async with Edge(watcher.pipeline(ear, mind, Voice(), tools=[tool], limits=Limits(tool_rounds=3))) as edge:
        ear.hears(asks())
        await edge.until("mark")
        assert mind.tools == [["look"]] * 3 + [[]]
