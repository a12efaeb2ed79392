"""A call of the agent kit, its parts scripted: what an interruption does at each stage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.agent_parts import Ear, Edge, Mind, Voice, Watcher, asks, tone
from tests.support.edges import until
from voxplane.agent import (
    Final,
    Partial,
    Said,
    SpeechStarted,
)
from voxplane.agent.wires import Heard, Marked

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
