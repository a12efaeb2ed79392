"""A call of the agent kit, its parts scripted: what is said in which order, what an interruption does at each stage, and that an
error of a part costs its turn and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.agent_parts import Ear, Edge, Mind, Voice, Watcher, asks, tone
from tests.support.edges import until
from voxplane.agent import (
    Final,
    HangUp,
    Limits,
    Partial,
    Said,
    SpeechStarted,
    ToolCall,
    ToolUse,
)
from voxplane.agent.tool_desk import WITHDRAWN
from voxplane.agent.wires import Heard, Marked, Pressed, Start, Stopped

GREETING = "Hello there."


def gate() -> tuple[asyncio.Event, Callable[[str], Awaitable[object]]]:
    """A voice that says one word, and waits before the next."""
    opened = asyncio.Event()
    said: list[str] = []

    async def before(word: str) -> None:
        said.append(word)
        if len(said) > 1:
            await opened.wait()

    return opened, before


# ------------------------------------------------------------------------------------------------------- a turn


async def test_an_answer_is_announced_spoken_marked_and_ended() -> None:
    watcher, ear, mind = Watcher(), Ear(), Mind(["It is ", "on its way. It ", "comes on Monday."])
    async with Edge(watcher.pipeline(ear, mind, Voice())) as edge:
        ear.hears(SpeechStarted(), Partial("where"), asks())
        await edge.until("turn.ended", 2)
        caller = ["transcript.partial", "transcript.final", "turn.ended"]
        assert edge.types[:3] == caller
        assert edge.types[3:5] == ["utterance", "transcript.final"]
        assert edge.types[-3:] == ["audio", "mark", "turn.ended"]
        assert mind.asked == [[Said("caller", "where is it")]]
        texts = [said for said in edge.of("transcript.final") if said["role"] == "agent"]
        assert " ".join(t["text"] for t in texts if t["text"]) == "It is on its way. It comes on Monday."
        words = [word for said in texts for word in said.get("words", ())]
        assert [w["offset_ms"] for w in words] == list(range(0, 1_800, 200))
        assert len(edge.audio) == 9 * len(tone(200))
        assert edge.of("turn.ended") == [{"role": "caller", "text": "where is it"}, {"role": "agent"}]
        assert edge.call.history.entries[-1] == Said("agent", "It is on its way. It comes on Monday.")


async def test_the_voice_begins_while_the_model_still_thinks() -> None:
    thinking = asyncio.Event()
    watcher, ear, mind = Watcher(), Ear(), Mind(["One two. ", thinking, "Three."])
    async with Edge(watcher.pipeline(ear, mind, Voice())) as edge:
        ear.hears(asks())
        await edge.until("audio", 2)
        assert not edge.of("mark")
        thinking.set()
        await edge.until("mark")
        assert edge.of("audio")[2:]


async def test_a_greeting_is_said_once_and_not_to_a_resumed_socket() -> None:
    watcher = Watcher()
    async with Edge(watcher.pipeline(Ear(), Mind(), Voice(), greeting=GREETING)) as edge:
        await edge.until("mark")
        assert edge.of("transcript.final")[0]["text"] == GREETING
    assert [(r.turn, r.said, r.interrupted) for r in watcher.turns] == [(0, GREETING, False)]
    said = [{"role": "agent", "text": GREETING}]
    start = Start(call="call_1", epoch=2, resumed=True, turns=said)
    pipeline = watcher.pipeline(Ear(), Mind(), Voice(), greeting=GREETING, welcome_back="I am back.")
    async with Edge(pipeline, start) as edge:
        await edge.until("mark")
        assert [t["text"] for t in edge.of("transcript.final") if t["text"]] == ["I am back."]


async def test_a_resumed_socket_answers_what_nobody_has_answered() -> None:
    watcher, mind = Watcher(), Mind(["Monday."])
    turns = [
        {"role": "caller", "text": "status"},
        {"role": "tool", "id": "t", "name": "look", "arguments": {"o": 1}, "result": {"s": 2}, "done": True},
        {"role": "agent", "text": "It has", "interrupted": True},
        {"role": "caller", "text": "when"},
    ]
    async with Edge(
        watcher.pipeline(Ear(), mind, Voice()), Start(call="c", resumed=True, turns=turns)
    ) as edge:
        await edge.until("mark")
    assert mind.asked == [
        [
            Said("caller", "status"),
            ToolUse("t", "look", {"o": 1}, {"s": 2}, True),
            Said("agent", "It has", interrupted=True),
            Said("caller", "when"),
        ]
    ]
    assert watcher.turns[0].turn == 2


async def test_timing_goes_to_the_edge_and_to_the_callback() -> None:
    watcher, ear = Watcher(), Ear()
    async with Edge(watcher.pipeline(ear, Mind(["Yes."]), Voice())) as edge:
        for _ in range(10):
            edge.call.take(Heard(tone(20)))
        ear.hears(Final("is it", ended_ms=100))
        await edge.until("mark")
        [timing] = edge.of("turn.timing")
        said = [s["type"] for s in edge.said]
        assert said.index("turn.timing") < said.index("audio")
    assert timing["turn"] == 1
    assert set(timing["stages"]) == {"stt_ms", "llm_ms", "tts_ms"}
    stages = watcher.turns[0].stages.data()
    assert stages.pop("pacing_ms") >= 0
    assert stages == timing["stages"]
    assert watcher.turns[0].said == "Yes."


async def test_the_ear_gets_every_frame_with_its_time_and_the_edge_s_turns() -> None:
    watcher, ear = Watcher(), Ear()
    async with Edge(watcher.pipeline(ear, Mind(), Voice())) as edge:
        edge.call.take(Heard(tone(30)))
        edge.call.take(Heard(tone(30)))
        edge.tell("speech.stopped", offset_ms=60)
        edge.tell("turn.ended", role="caller")
        await until(lambda: len(ear.frames) == 4, "the frames")
    assert [(f.at_ms, len(f.pcm), f.turn_ended) for f in ear.frames] == [
        (0, 640, False),
        (20, 640, False),
        (40, 640, False),
        (60, 0, True),
    ]


async def test_the_model_hangs_up_after_its_last_word() -> None:
    watcher, ear = Watcher(), Ear()
    async with Edge(watcher.pipeline(ear, Mind(["Goodbye.", HangUp("resolved")]), Voice())) as edge:
        ear.hears(asks("bye"))
        assert await edge.until("hangup") == {"type": "hangup", "reason": "resolved"}
        assert edge.types[-3:] == ["mark", "turn.ended", "hangup"]


async def test_whoever_holds_the_call_can_speak_hear_and_hang_up() -> None:
    watcher, mind, held = Watcher(), Mind(["You have pressed five."]), []
    pipeline = watcher.pipeline(
        Ear(), mind, Voice(), on_start=held.append, on_dtmf=lambda call, digit: call.heard(f"key {digit}")
    )
    async with Edge(pipeline) as edge:
        edge.call.take(Pressed("5"))
        await edge.until("mark")
        assert mind.asked == [[Said("caller", "key 5")]]
        held[0].say("Anything else?")
        await edge.until("mark", 2)
        held[0].hang_up("done")
        await edge.until("hangup")
        assert held[0].start.call == "call_1"


# ------------------------------------------------------------------------------------------------- interruptions


async def test_a_voice_while_the_model_thinks_stops_it_and_both_turns_are_answered() -> None:
    never = asyncio.Event()
    watcher, ear, mind = Watcher(), Ear(), Mind([never, "never said"], ["Both."])
    async with Edge(watcher.pipeline(ear, mind, Voice())) as edge:
        ear.hears(asks("one"))
        await until(lambda: len(mind.asked) == 1, "the model")
        ear.hears(SpeechStarted())
        await until(lambda: mind.stopped == 1, "it is stopped")
        ear.hears(asks("two"))
        await edge.until("mark")
        assert mind.asked[1] == [Said("caller", "one"), Said("caller", "two")]
        assert edge.of("clear") == []


async def test_a_voice_before_the_first_sound_stops_the_voice_and_nothing_was_said() -> None:
    never = asyncio.Event()

    async def before(word: str) -> None:
        if word == "Slow":
            await never.wait()

    watcher, ear, mind, voice = Watcher(), Ear(), Mind(["Slow words."], ["Both."]), Voice(before=before)
    async with Edge(watcher.pipeline(ear, mind, voice)) as edge:
        ear.hears(asks("one"))
        await until(lambda: len(mind.asked) == 1 and mind.stopped == 0, "the model")
        ear.hears(SpeechStarted())
        await until(lambda: voice.stopped == 1, "it is stopped")
        ear.hears(asks("two"))
        await edge.until("mark")
        assert mind.asked[1] == [Said("caller", "one"), Said("caller", "two")]
        assert [t["text"] for t in edge.of("transcript.final") if t["role"] == "agent"] == ["Both."]
        assert edge.of("clear") == []


async def test_a_cough_while_the_model_thinks_only_makes_it_think_again() -> None:
    never = asyncio.Event()
    watcher, ear, mind = Watcher(), Ear(), Mind([never], ["Here."])
    async with Edge(watcher.pipeline(ear, mind, Voice())) as edge:
        ear.hears(asks("one"))
        await until(lambda: len(mind.asked) == 1, "the model")
        ear.hears(SpeechStarted(), Final(""))
        await edge.until("mark")
        assert mind.asked[1] == [Said("caller", "one")]
        assert len(edge.of("turn.ended")) == 2


async def test_a_cough_while_the_agent_speaks_changes_nothing() -> None:
    opened, before = gate()
    watcher, ear, mind = Watcher(), Ear(), Mind(["One two three."])
    async with Edge(watcher.pipeline(ear, mind, Voice(before=before))) as edge:
        ear.hears(asks())
        await edge.until("audio")
        ear.hears(SpeechStarted(), Final(""))
        opened.set()
        await edge.until("mark")
        assert edge.of("clear") == []
        assert len(mind.asked) == 1


async def test_a_word_while_the_agent_speaks_cuts_model_and_voice() -> None:
    never, (_, before) = asyncio.Event(), gate()
    watcher, ear, mind, voice = Watcher(), Ear(), Mind(["One two ", never], ["Yes."]), Voice(before=before)
    async with Edge(watcher.pipeline(ear, mind, voice)) as edge:
        ear.hears(asks("first"))
        await edge.until("audio")
        ear.hears(Partial("stop"))
        await edge.until("clear")
        await until(lambda: (mind.stopped, voice.stopped) == (1, 1), "both are stopped")
        assert edge.of("mark") == []
        assert watcher.turns[0].interrupted
        sent = len(edge.audio)
        ear.hears(asks("stop it"))
        await until(lambda: len(mind.asked) == 2, "the next turn")
        assert [e for e in mind.asked[1] if e.role == "caller"] == [
            Said("caller", "first"),
            Said("caller", "stop it"),
        ]
        assert all(e.role == "caller" or e.interrupted for e in mind.asked[1])
        assert edge.said.index({"type": "clear"}) > 0
        assert sent == len(tone(200))


async def test_what_the_edge_has_cut_is_cut_in_the_history_at_the_very_word() -> None:
    watcher, ear, mind = Watcher(), Ear(), Mind(["One two three four five."], ["Yes."])
    async with Edge(watcher.pipeline(ear, mind, Voice())) as edge:
        ear.hears(asks("first"))
        mark = await edge.until("mark")
        edge.call.take(Marked(mark["name"]))
        edge.tell("playback.interrupted", utterance=1, offset_ms=430, text="One two three")
        ear.hears(asks("second"))
        await edge.until("mark", 2)
        assert mind.asked[1] == [
            Said("caller", "first"),
            Said("agent", "One two three", interrupted=True),
            Said("caller", "second"),
        ]
        assert edge.of("clear") == []


async def test_an_utterance_that_was_played_stays_whole_whatever_is_cut_later() -> None:
    watcher, ear, mind = Watcher(), Ear(), Mind(["One two."], ["Three four."], ["Yes."])
    async with Edge(watcher.pipeline(ear, mind, Voice())) as edge:
        ear.hears(asks("a"))
        mark = await edge.until("mark")
        edge.call.take(Marked(mark["name"]))
        edge.call.take(Heard(tone(20)))
        ear.hears(asks("b"))
        await edge.until("mark", 2)
        edge.tell("playback.interrupted", utterance=2, offset_ms=100, text="Three")
        ear.hears(asks("c"))
        await edge.until("mark", 3)
        assert mind.asked[2] == [
            Said("caller", "a"),
            Said("agent", "One two."),
            Said("caller", "b"),
            Said("agent", "Three", interrupted=True),
            Said("caller", "c"),
        ]


async def test_a_mark_that_was_followed_by_sound_is_believed() -> None:
    watcher, ear, mind = Watcher(), Ear(), Mind(["One two."], ["One three."], ["Yes."])
    async with Edge(watcher.pipeline(ear, mind, Voice())) as edge:
        for n, question in enumerate("ab", start=1):
            ear.hears(asks(question))
            mark = await edge.until("mark", n)
            edge.call.take(Marked(mark["name"]))
            if n == 1:
                edge.call.take(Heard(tone(20)))
        edge.tell("playback.interrupted", utterance=2, offset_ms=100, text="One")
        agent = [e for e in edge.call.history.entries if isinstance(e, Said) and e.role == "agent"]
        assert agent == [Said("agent", "One two."), Said("agent", "One", interrupted=True)]


@pytest.mark.parametrize("by_edge", [True, False])
async def test_what_waits_to_be_sent_when_it_is_cut_is_not_sent(by_edge: bool) -> None:
    opened, before = gate()
    watcher, ear, mind = Watcher(), Ear(), Mind(["One two three four five six."])
    async with Edge(watcher.pipeline(ear, mind, Voice(before=before))) as edge:
        ear.hears(asks())
        await edge.until("audio")
        edge.reads.clear()
        opened.set()
        await until(lambda: bool(edge.call.line.waiting), "something waits")
        await until(lambda: edge.call.ledger.unheard, "it is made")
        if by_edge:
            edge.tell("playback.interrupted", utterance=1, offset_ms=100, text="One")
        else:
            ear.hears(Partial("stop"))
            await until(lambda: not edge.call.ledger.unheard, "it is cut")
        edge.reads.set()
        edge.call.line.text("done", {})
        await edge.until("done")
        assert len(edge.audio) <= 2 * len(tone(200)), "the one on its way could not be taken back"
        assert edge.of("mark") == []
        assert bool(edge.of("clear")) is not by_edge


async def test_a_voice_before_the_greeting_does_not_take_it_away() -> None:
    opened = asyncio.Event()

    async def before(_: str) -> None:
        await opened.wait()

    watcher, ear = Watcher(), Ear()
    async with Edge(watcher.pipeline(ear, Mind(), Voice(before=before), greeting=GREETING)) as edge:
        ear.hears(SpeechStarted(), Final(""))
        await until(lambda: ear.taken == 2, "the voice")
        opened.set()
        await edge.until("mark")


async def test_what_was_not_heard_at_all_was_not_said() -> None:
    watcher, ear, mind = Watcher(), Ear(), Mind(["One two."], ["Yes."])
    async with Edge(watcher.pipeline(ear, mind, Voice())) as edge:
        ear.hears(asks("a"))
        await edge.until("mark")
        edge.tell("playback.interrupted", utterance=1, offset_ms=0, text="")
        ear.hears(asks("b"))
        await until(lambda: len(mind.asked) == 2, "the next turn")
        assert mind.asked[1] == [Said("caller", "a"), Said("caller", "b")]


async def test_a_part_that_does_not_obey_is_not_heard_any_more() -> None:
    """It swallows the cancellation and goes on: nothing of what it gives leaves."""
    opened = asyncio.Event()

    class Deaf(Voice):
        async def speak(self, text: Any) -> Any:
            async for piece in text:
                for word in piece.split():
                    yield await self._say(word, 0)
                    while not opened.is_set():
                        try:
                            await opened.wait()
                        except asyncio.CancelledError:
                            opened.set()

    watcher, ear, mind, voice = Watcher(), Ear(), Mind(["One two."], ["No."]), Deaf()
    async with Edge(watcher.pipeline(ear, mind, voice)) as edge:
        ear.hears(asks())
        await edge.until("audio")
        ear.hears(Partial("stop"))
        await edge.until("clear")
        ear.hears(asks("stop"))
        await edge.until("mark")
        assert len(edge.audio) == 2 * len(tone(200))
        assert [m["name"] for m in edge.of("mark")] == [edge.of("utterance")[1]["id"]]


# -------------------------------------------------------------------------------------------------------- errors


async def test_a_model_that_fails_costs_its_turn() -> None:
    watcher, ear, mind = Watcher(), Ear(), Mind([RuntimeError("no")], ["Better."])
    async with Edge(watcher.pipeline(ear, mind, Voice(), apology="Pardon?")) as edge:
        ear.hears(asks("a"))
        await edge.until("mark")
        assert [t["text"] for t in edge.of("transcript.final") if t["role"] == "agent" and t["text"]] == [
            "Pardon?"
        ]
        ear.hears(asks("b"))
        await edge.until("mark", 2)
        assert [(r.turn, r.failed) for r in watcher.turns] == [(1, "llm"), (2, None)]
    assert [(e.stage, str(e.__cause__)) for e in watcher.errors] == [("llm", "no")]


async def test_what_a_model_has_said_before_it_fails_stands() -> None:
    watcher, ear, mind = Watcher(), Ear(), Mind(["It is ", RuntimeError("no")])
    async with Edge(watcher.pipeline(ear, mind, Voice())) as edge:
        ear.hears(asks())
        await edge.until("mark")
        assert edge.call.history.entries[-1] == Said("agent", "It is")
        assert watcher.turns[0].said == "It is "


@pytest.mark.parametrize("limits", [Limits(llm_first_s=0.02), Limits(tts_first_s=0.02)])
async def test_a_part_that_gives_nothing_is_not_waited_for(limits: Limits) -> None:
    never = asyncio.Event()

    async def wait(_: str) -> None:
        await never.wait()

    slow_model = limits.llm_first_s < 1
    mind = Mind([never]) if slow_model else Mind(["Yes."])
    voice = Voice() if slow_model else Voice(before=wait)
    watcher, ear = Watcher(), Ear()
    async with Edge(watcher.pipeline(ear, mind, voice, limits=limits)) as edge:
        ear.hears(asks())
        await until(lambda: bool(watcher.turns), "the end of the turn")
        assert watcher.errors[0].stage == watcher.turns[0].failed == ("llm" if slow_model else "tts")
        assert bool(edge.of("mark")) is slow_model


async def test_a_voice_that_fails_ends_its_utterance_and_no_more() -> None:
    watcher, ear, mind, voice = Watcher(), Ear(), Mind(["One two three."], ["Four."]), Voice()
    voice.fails_at = 1
    async with Edge(watcher.pipeline(ear, mind, voice)) as edge:
        ear.hears(asks("a"))
        await edge.until("mark")
        assert len(edge.audio) == len(tone(200))
        voice.fails_at = None
        ear.hears(asks("b"))
        await edge.until("mark", 2)
        assert watcher.turns[0].failed == "tts"
        assert [e.stage for e in watcher.errors] == ["tts"]


async def test_an_ear_that_fails_is_begun_again_and_given_up_the_fifth_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voxplane.agent.listening.PAUSES_S", (0.0,) * 4)
    watcher, ear, mind = Watcher(), Ear(), Mind(["Yes."])
    async with Edge(watcher.pipeline(ear, mind, Voice())) as edge:
        ear.hears(RuntimeError("deaf"), None, asks())
        await edge.until("mark")
        assert ear.listened == 3
        assert edge.closed == []
        ear.hears(*[RuntimeError("deaf")] * 5)
        await until(lambda: edge.closed == [1011], "it is given up")
        assert len(watcher.errors) == 7


async def test_a_call_that_is_superseded_says_no_more() -> None:
    never = asyncio.Event()
    watcher, ear, mind = Watcher(), Ear(), Mind(["One two. ", never])
    async with Edge(watcher.pipeline(ear, mind, Voice())) as edge:
        ear.hears(asks())
        await edge.until("audio", 2)
        edge.call.supersede()
        said = len(edge.said)
        await until(lambda: mind.stopped == 1, "the model is stopped")
        edge.call.say("still here")
        edge.call.take(Heard(tone(20)))
        edge.call.take(Stopped())
        assert len(edge.said) == said


# --------------------------------------------------------------------------------------------------------- tools


def looks(**more: Any) -> tuple[list[dict[str, Any]], Any]:
    from voxplane.agent import Tool

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
