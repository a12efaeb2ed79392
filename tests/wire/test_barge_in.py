"""Callers that speak over the agent, at a real media listener: what falls silent, what goes on from where, and what is written."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from regions.edge import caller_turns, floor
from regions.wire.media import AUDIO, HEADER
from regions.wire.ticket import Turns
from tests.support.edges import until
from tests.support.lone_edge import Backend, Caller, LoneEdge, lone_edge
from tests.support.voices import mulaw_frames, room, vowel
from voxplane import AsyncCaller

VOICE, QUIET = mulaw_frames(vowel(2_000)), mulaw_frames(room(2_000))
FRAME_MS = 20


def numbered(number: int) -> bytes:
    return bytes([0x80 + (number >> 6 & 0x3F), 0x80 + (number & 0x3F)]) * 80


class Line:
    """A caller's socket. It keeps what it is sent, in order, and says what it has played as its test wants it."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.got: list[Any] = []
        """Messages, and (utterance, offset_ms, samples) of audio."""
        self.stamp = 0
        self.behind_ms = 0
        """So much of what it is sent it has not played."""
        self.keeps = False
        """Goes on saying what it said last."""
        self.said = (0, 0)
        self.staying = True
        self._spoken = 0

    async def listen(self) -> None:
        try:
            async for message in self._caller.socket:
                if isinstance(message, bytes):
                    _, _, _, self.stamp, utterance, offset_ms = HEADER.unpack_from(message)
                    self.got.append((utterance, offset_ms, message[HEADER.size :]))
                    if not self.keeps:
                        self.said = (utterance, max(0, offset_ms + FRAME_MS - self.behind_ms))
                else:
                    read = json.loads(message)
                    self.stamp = read.get("stamp", self.stamp)
                    self.got.append(read)
        except ConnectionClosed:
            return

    async def stay(self) -> None:
        """Keeps the lease, as a caller without audio does."""
        while self.staying:
            utterance, offset_ms = self.said
            played = {"utterance": utterance, "offset_ms": offset_ms}
            with suppress(ConnectionClosed):
                if self.stamp:
                    await self.tell("alive", stamp=self.stamp, played=played)
            await asyncio.sleep(0.1)

    async def say(self, frames: list[bytes]) -> None:
        """All at once: the edge listens as it comes."""
        for frame in frames:
            self._spoken += 1
            header = HEADER.pack(AUDIO, 0, self._spoken, self.stamp, *self.said)
            await self._caller.socket.send(header + frame)

    @asynccontextmanager
    async def speaking(self) -> AsyncIterator[None]:
        """Goes on with a voice until the end of the block."""

        async def go_on() -> None:
            for at in itertools.cycle(range(len(VOICE))):
                await self.say([VOICE[at]])
                await asyncio.sleep(FRAME_MS / 1000)

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def tell(self, kind: str, **more: Any) -> None:
        await self._caller.say(kind, **more)

    @property
    def audio(self) -> list[tuple[int, int, bytes]]:
        return [g for g in self.got if isinstance(g, tuple)]

    @property
    def clears(self) -> list[dict[str, Any]]:
        return [g for g in self.got if isinstance(g, dict) and g["type"] == "clear"]

    @property
    def ticks(self) -> int:
        return sum(isinstance(g, dict) and g["type"] == "tick" for g in self.got)

    def since_clear(self) -> list[tuple[int, int, bytes]]:
        at = max(i for i, g in enumerate(self.got) if isinstance(g, dict) and g["type"] == "clear")
        return [g for g in self.got[at:] if isinstance(g, tuple)]


class Agent:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def play(self, frames: int, first: int = 0) -> None:
        audio = b"".join(numbered(n) for n in range(first, first + frames))
        await self.send({"event": "media", "media": {"payload": base64.b64encode(audio).decode()}})

    async def text(self, type_: str, **data: Any) -> None:
        await self.send({"event": "voxplane", "type": type_, "data": data})

    async def send(self, message: dict[str, Any]) -> None:
        await self._backend.sockets[-1].send(json.dumps(message))

    def heard(self, type_: str) -> list[dict[str, Any]]:
        return [m["data"] for m in self._backend.got if m["event"] == "voxplane" and m["type"] == type_]


@asynccontextmanager
async def talking(folder: Path, **turns: Any) -> AsyncIterator[tuple[LoneEdge, Line, Agent]]:
    """A call whose backend is there."""
    async with lone_edge(folder) as edge, Backend().run() as backend:
        ticket = edge.ticket(backend.url, turns=Turns(**turns))
        async with edge.caller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
            line = Line(caller)
            listening, staying = asyncio.create_task(line.listen()), asyncio.create_task(line.stay())
            await until(lambda: backend.starts and edge.log.of("agent.connected"), "the backend")
            await until(lambda: line.stamp, "the edge's clock, without which nothing that is said is new")
            try:
                yield edge, line, Agent(backend)
            finally:
                line.staying = False
            assert not edge.errors
        await asyncio.gather(listening, staying)


# ------------------------------------------------------------------------------------------------------------- in two steps


@pytest.mark.parametrize("behind_ms", [0, 60, 130])
async def test_a_short_noise_holds_the_agent_and_it_goes_on_where_the_caller_had_heard_it_to(
    tmp_path: Path, behind_ms: int
) -> None:
    async with talking(tmp_path) as (edge, line, agent):
        line.behind_ms = behind_ms
        await agent.play(150)
        await until(lambda: len(line.audio) > 20, "the agent")
        await line.say(VOICE[:4])
        await until(lambda: line.clears, "its silence")
        sent = len(line.audio)
        line.keeps = True
        played = line.said[1]
        await line.say(QUIET[:3])
        await line.say(QUIET[3:11])
        await until(lambda: edge.log.of("turn.false_interruption"), "that it was none")
        await until(lambda: len(line.audio) > sent + 10, "the agent again")
        on = line.since_clear()
        assert on[0][:2] == (1, -(-played // FRAME_MS) * FRAME_MS - (FRAME_MS if played % FRAME_MS else 0))
        assert played - FRAME_MS < on[0][1] <= played
        assert [o for _, o, _ in on[:10]] == list(range(on[0][1], on[0][1] + 200, FRAME_MS))
        assert all(samples == numbered(o // FRAME_MS) for _, o, samples in on)
        assert line.clears == [
            {
                "type": "clear",
                "stamp": line.clears[0]["stamp"],
                "at": {"utterance": 1, "offset_ms": sent * FRAME_MS},
            }
        ]
        [false] = edge.log.of("turn.false_interruption")
        assert (false["utterance"], false["offset_ms"]) == (1, on[0][1])
        assert false["voiced_ms"] in (60, 80)
        [started] = edge.log.of("speech.started")
        assert started["barge_in"]
        line.keeps = False
        await until(lambda: edge.log.of("playback.done") == [{"utterance": 1, "length_ms": 3_000}], "its end")
        assert not edge.log.of("playback.interrupted") and not edge.log.of("turn.ended")


async def test_a_caller_that_does_not_say_what_it_plays_has_played_all(tmp_path: Path) -> None:
    async with talking(tmp_path) as (edge, line, agent):
        line.keeps = True
        await agent.play(60)
        await until(lambda: len(line.audio) > 10, "the agent")
        await line.say(VOICE[:3] + QUIET[:12])
        await until(lambda: edge.log.of("playback.done") and len(line.audio) >= 60, "its end")
        assert [o for _, o, _ in line.audio] == list(range(0, 1_200, FRAME_MS))
        assert len(edge.log.of("turn.false_interruption")) == 1


async def test_speech_cancels_the_agent_and_nothing_of_it_is_heard_after_the_clear(tmp_path: Path) -> None:
    """Though its backend goes on; what that sends waits until the caller is quiet."""
    async with talking(tmp_path) as (edge, line, agent):
        await agent.play(100)
        await agent.send({"event": "mark", "mark": {"name": "m"}})
        line.behind_ms = 100
        await until(lambda: len(line.audio) > 30, "the agent")
        await line.say(VOICE[:3])
        await until(lambda: line.clears, "its silence")
        line.keeps = True
        await line.say(VOICE[3:10])
        await until(lambda: edge.log.of("playback.interrupted"), "the cut")
        assert edge.log.of("playback.interrupted") == [
            {"utterance": 1, "offset_ms": line.said[1], "by": "caller"}
        ]
        assert line.clears[0]["at"]["offset_ms"] == line.said[1] + 100
        await agent.play(10, first=500)
        await until(lambda: any(m["event"] == "mark" for m in agent._backend.got), "the mark")
        for _ in range(3):
            await line.say(VOICE[10:20])
            heard = line.ticks
            await until(lambda before=heard: line.ticks > before or line.since_clear(), "time to pass")
        assert line.since_clear() == []
        await line.say(QUIET[:18])
        await until(lambda: edge.log.of("turn.ended"), "the caller's turn")
        await until(lambda: len(line.since_clear()) == 10, "what had waited")
        assert line.since_clear()[0][::2] == (2, numbered(500))
        assert len(line.clears) == 1 and not edge.log.of("turn.false_interruption")


async def test_one_word_is_enough(tmp_path: Path) -> None:
    async with talking(tmp_path) as (edge, line, agent):
        await agent.text("transcript.final", role="agent", text="one two three four")
        await agent.play(200)
        await until(lambda: len(line.audio) > 10, "the agent")
        await line.say(VOICE[:4])
        await until(lambda: line.clears, "its silence")
        await agent.text("transcript.partial", role="caller", text=" ")
        await agent.text("transcript.partial", role="agent", text="one")
        await agent.text("transcript.partial", role="caller", text="no")
        await until(lambda: agent.heard("playback.interrupted"), "the cut")
        assert edge.log.of("turn.interrupted")[0]["text"].startswith("one")
        assert [t for t, _ in edge.log.live if t == "transcript.partial"] == ["transcript.partial"] * 3


async def test_a_backend_that_announces_is_not_heard_with_the_rest_of_what_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames are under way when it learns of the interruption, and so may be what it announces: that waits for the caller."""
    monkeypatch.setattr(floor, "UNDER_WAY_MS", 60_000)  # however long this process needs to send it
    async with talking(tmp_path) as (edge, line, agent):
        await agent.text("transcript.final", role="agent", text="a long story")
        await agent.play(50)
        await until(lambda: len(line.audio) > 10, "the agent")
        async with line.speaking():
            await until(lambda: agent.heard("playback.interrupted"), "the cut")
            await agent.play(20, first=50)
            await agent.text("transcript.final", role="agent", text="yes?")
            await agent.play(5, first=900)
            await agent.text("turn.ended", role="agent")
            await agent.text("conversation.get", id="q")
            await until(lambda: agent.heard("conversation"), "that the edge has all of it")
        await line.say(QUIET[:20])
        await until(lambda: edge.log.of("playback.done") and len(line.since_clear()) >= 5, "the answer")
        heard = [samples for _, _, samples in line.since_clear()]
        assert heard == [numbered(n) for n in range(900, 905)]
        assert [t["text"] for t in edge.log.of("turn.ended") if t["role"] == "agent"] == ["yes?"]


async def test_what_is_announced_later_is_heard_though_the_caller_speaks(tmp_path: Path) -> None:
    async with talking(tmp_path) as (edge, line, agent):
        await agent.text("transcript.final", role="agent", text="a long story")
        await agent.play(50)
        await until(lambda: len(line.audio) > 10, "the agent")
        await line.say(VOICE[:12])
        await until(lambda: agent.heard("playback.interrupted"), "the cut")
        for frame in VOICE[12:36]:
            await line.say([frame])
            await asyncio.sleep(0.02)
        await agent.text("transcript.final", role="agent", text="one moment")
        await agent.play(5, first=900)
        await until(lambda: len(line.since_clear()) == 5, "the answer")
        assert not edge.log.of("speech.stopped")


async def test_a_backend_that_clears_while_it_is_held_is_believed(tmp_path: Path) -> None:
    async with talking(tmp_path) as (edge, line, agent):
        await agent.play(200)
        await until(lambda: len(line.audio) > 10, "the agent")
        await line.say(VOICE[:4])
        await until(lambda: line.clears, "its silence")
        await agent.send({"event": "clear"})
        await until(lambda: edge.log.of("playback.interrupted"), "the cut")
        await agent.play(10, first=700)
        await until(lambda: len(line.since_clear()) == 10, "what comes next")
        assert edge.log.of("playback.interrupted")[0]["by"] == "agent"
        await line.say(QUIET[:12])
        await until(lambda: edge.log.of("speech.stopped"), "quiet")
        assert not edge.log.of("turn.false_interruption")


async def test_a_hold_ends_also_when_the_caller_sends_no_more_audio(tmp_path: Path) -> None:
    async with talking(tmp_path) as (edge, line, agent):
        await agent.play(60)
        await until(lambda: len(line.audio) > 10, "the agent")
        await line.say(VOICE[:4])
        await until(lambda: edge.log.of("playback.done"), "its end")
        assert len(edge.log.of("turn.false_interruption")) == 1


@pytest.mark.parametrize(("policy", "cut"), [("immediate", True), ("off", False)])
async def test_the_other_policies(tmp_path: Path, policy: str, cut: bool) -> None:
    async with talking(tmp_path, barge_in=policy) as (edge, line, agent):
        await agent.play(50)
        await until(lambda: len(line.audio) > 10, "the agent")
        await line.say(VOICE[:4] if cut else VOICE[:40])
        await until(lambda: edge.log.of("playback.interrupted" if cut else "playback.done"), policy)
        await until(lambda: len(line.clears) == cut, "the caller told")
        await line.say(QUIET[:20])
        await until(lambda: edge.log.of("turn.ended"), "the turn")
        assert len(line.clears) == cut


# ------------------------------------------------------------------------------------------------------- failover, moving


async def test_a_successor_cuts_what_was_held_where_the_caller_had_heard_it_to(tmp_path: Path) -> None:
    async with (
        lone_edge(tmp_path, "a") as a,
        lone_edge(tmp_path, "b", a.key) as b,
        Backend().run() as backend,
    ):
        ticket = a.ticket(backend.url, epochs=(1, 2), edges=(a, b))
        agent = Agent(backend)
        async with a.caller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
            line = Line(caller)
            listening = asyncio.create_task(line.listen())
            await until(lambda: backend.starts and a.log.of("agent.connected"), "the backend")
            words = [{"word": str(n), "offset_ms": n * 100} for n in range(30)]
            await agent.text("transcript.final", role="agent", text="numbers", words=words)
            await agent.play(150)
            line.behind_ms = 100
            await until(lambda: len(line.audio) > 30, "the agent")
            await line.say(VOICE[:4])
            await until(lambda: line.clears, "its silence")
            await until(lambda: line.got[-1] != line.clears[0] and any(
                isinstance(g, dict) and g["type"] == "snapshot" for g in line.got[line.got.index(line.clears[0]) :]
            ), "a snapshot of it")  # fmt: skip
        await listening
        sealed = [g for g in line.got if isinstance(g, dict) and g["type"] == "snapshot"][-1]["sealed"]
        played = {"utterance": 1, "offset_ms": line.said[1]}
        resume = {"epoch": 1, "n": 0, "played": played, "snapshot": sealed}
        async with b.caller(ticket, 2, "take", resume=resume) as caller:
            await caller.hear("attached")
            await until(lambda: b.log.of("turn.interrupted"), "the cut")
            [cut] = b.log.of("turn.interrupted")
            assert cut["offset_ms"] == line.said[1]
            assert cut["text"] == " ".join(str(n) for n in range(30) if n * 100 < line.said[1])
            [stopped] = b.log.of("playback.interrupted")
            assert stopped == {"utterance": 1, "offset_ms": line.said[1], "by": "edge_lost"}


# ------------------------------------------------------------------------------------------------------- whose turn it is


async def test_a_backend_that_says_nothing_gets_its_callers_turns_written(tmp_path: Path) -> None:
    """The first is waited for, in case it has words; once there were none, the next come at once."""
    async with talking(tmp_path) as (edge, line, _):
        for number in (1, 2):
            await line.say(VOICE[:20])
            await line.say(QUIET[:18])
            await until(lambda n=number: len(edge.log.of("turn.ended")) == n, "the turn")
        first, second = edge.log.of("turn.ended")
        assert (first["role"], first["text"], first["by"]) == ("caller", "", "silence")
        assert second["started_ms"] >= first["stopped_ms"]
        assert all(t["waited_ms"] == 320 for t in (first, second))
        kinds = [t for t, _ in edge.log.events if t.startswith(("speech", "turn"))]
        assert kinds == ["speech.started", "speech.stopped", "turn.ended"] * 2


async def test_a_backend_that_ends_the_callers_turns_is_told_of_ours_and_writes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller_turns, "WORDS_WITHIN_MS", 60_000)
    async with talking(tmp_path) as (edge, line, agent):
        await agent.text("transcript.partial", role="agent", text="hi")
        for number in (1, 2):
            await line.say(VOICE[:20])
            await line.say(QUIET[:18])
            await until(lambda n=number: len(agent.heard("turn.ended")) == n, "the end that is told")
            await agent.text("transcript.final", role="caller", text=f"words {number}")
            await agent.text("turn.ended", role="caller", text=f"words {number}")
            await until(lambda n=number: len(edge.log.of("turn.ended")) == n, "the turn")
        assert [t["text"] for t in edge.log.of("turn.ended")] == ["words 1", "words 2"]
        assert [t["waited_ms"] >= 320 for t in edge.log.of("turn.ended")] == [True, True]
        told = agent.heard("turn.ended")[0]
        assert set(told) == {"role", "started_ms", "stopped_ms", "waited_ms", "by"}
        assert [len(agent.heard(t)) for t in ("speech.started", "speech.stopped")] == [2, 2]


async def test_a_backend_that_only_transcribes_has_its_words_in_the_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more_within_ms = caller_turns.MORE_WITHIN_MS
    monkeypatch.setattr(
        caller_turns, "MORE_WITHIN_MS", 60_000
    )  # the first words are waited for until the second ones
    async with talking(tmp_path) as (edge, line, agent):
        await line.say(VOICE[:20])
        await agent.text("transcript.final", role="caller", text="where is")
        await until(lambda: edge.log.of("transcript.final"), "a part of it")
        await line.say(QUIET[:18])
        await until(lambda: agent.heard("turn.ended"), "the end that is told")
        monkeypatch.setattr(caller_turns, "MORE_WITHIN_MS", more_within_ms)
        await agent.text("transcript.final", role="caller", text="my order")
        await until(lambda: edge.log.of("turn.ended"), "the turn")
        assert [t["text"] for t in edge.log.of("turn.ended")] == ["where is my order"]


async def test_a_turn_is_written_before_its_answer(tmp_path: Path) -> None:
    async with talking(tmp_path) as (edge, line, agent):
        await line.say(VOICE[:20] + QUIET[:18])
        await until(lambda: edge.log.of("speech.stopped"), "quiet")
        await agent.play(5)
        await until(lambda: edge.log.of("playback.started"), "the answer")
        kinds = [t for t, _ in edge.log.events]
        assert kinds.index("turn.ended") < kinds.index("playback.started")


# --------------------------------------------------------------------------------------------------------------- the button


async def test_a_button_says_whose_turn_it_is_and_what_the_agent_hears(tmp_path: Path) -> None:
    async with talking(tmp_path, mode="push_to_talk") as (edge, line, agent):
        await agent.play(200)
        await until(lambda: len(line.audio) > 10, "the agent")
        await line.say([VOICE[0]] * 5)
        await line.tell("talk", on=True)
        await until(lambda: edge.log.of("playback.interrupted"), "the cut")
        await line.say([VOICE[1]] * 5)
        await line.tell("talk", on=False)
        await line.say([VOICE[2]] * 5)
        await until(lambda: edge.log.of("speech.stopped"), "its end")
        await agent.play(5)
        await until(lambda: [t["by"] for t in edge.log.of("turn.ended")] == ["talk"], "the turn")

        def media() -> list[bytes]:
            return [
                base64.b64decode(m["media"]["payload"]) for m in agent._backend.got if m["event"] == "media"
            ]

        await until(lambda: media().count(VOICE[1]) == 5, "what was said")
        assert VOICE[0] not in media() and VOICE[2] not in media()
        assert edge.log.of("speech.started")[0]["barge_in"]


async def test_a_socket_that_closes_lets_the_button_go(tmp_path: Path) -> None:
    async with talking(tmp_path, mode="push_to_talk") as (edge, line, _):
        await line.tell("talk", on=True)
        await until(lambda: edge.log.of("speech.started"), "its turn")
        await line._caller.socket.close()
        await until(lambda: edge.log.of("turn.ended"), "its end")


async def test_without_turns_nothing_is_found_and_the_backends_word_is_written(tmp_path: Path) -> None:
    async with talking(tmp_path, mode="off") as (edge, line, agent):
        await agent.play(40)
        await until(lambda: len(line.audio) > 5, "the agent")
        await line.say(VOICE[:20] + QUIET[:20])
        await agent.text("turn.ended", role="caller", text="my own ears")
        await until(lambda: edge.log.of("playback.done"), "the agent's end")
        assert edge.log.of("turn.ended") == [{"role": "caller", "text": "my own ears"}]
        assert not edge.log.of("speech.started") and not line.clears


async def test_a_button_that_is_held_is_held_at_the_edge_that_takes_over(tmp_path: Path) -> None:
    async with (
        lone_edge(tmp_path, "a") as a,
        lone_edge(tmp_path, "b", a.key) as b,
        Backend().run() as backend,
    ):
        ticket = a.ticket(backend.url, epochs=(1, 2), edges=(a, b), turns=Turns(mode="push_to_talk"))
        async with AsyncCaller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
            await caller.talk(True)
            await until(lambda: a.log.of("speech.started"), "its turn")
            a.calls.cut("call_1", 1, "closed")
            await until(lambda: b.log.of("speech.started"), "its turn at the standby")
            await caller.talk(False)
            await until(lambda: b.log.of("turn.ended"), "its end")


async def test_a_caller_that_takes_its_frames_drops_what_it_had_not_taken_and_says_so(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        agent = Agent(backend)
        async with AsyncCaller(edge.ticket(backend.url), encoding="mulaw", sample_rate=8_000) as caller:
            await until(lambda: backend.starts and edge.log.of("agent.connected"), "the backend")
            await agent.play(100)
            taken = [await caller.receive() for _ in range(10)]
            assert taken[-1] is not None and taken[-1].offset_ms == 180
            await until(lambda: caller._standing.played.offset_ms >= 300, "more than was taken")
            await caller.send(b"".join(VOICE[:3]))
            await until(lambda: caller.cleared, "its silence")
            await caller.send(b"".join(QUIET[:10]) + b"".join(QUIET[10:12]))
            await until(lambda: edge.log.of("turn.false_interruption"), "that it was none")
            following = await caller.receive()
            assert following is not None and following.offset_ms == 200
            assert edge.log.of("turn.false_interruption")[0]["offset_ms"] == 200
