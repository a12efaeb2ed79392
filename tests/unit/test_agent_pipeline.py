"""A call of the agent kit, its parts scripted: what is said in which order, and that an error of a part costs its turn
and no more."""

from __future__ import annotations

import asyncio

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
    ToolUse,
)
from voxplane.agent.wires import Heard, Pressed, Start, Stopped

GREETING = "Hello there."


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
