"""A backend of the agent kit behind a real edge, in both dialects: turns, tools, interruptions, failovers, its own restart."""

from __future__ import annotations

import array
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.agent_parts import RATE_HZ, WORD_MS, Ear, LoudEar, Mind, Voice, Watcher, tone
from tests.support.edges import until
from tests.support.lone_edge import LoneEdge, lone_edge
from voxplane import AsyncCaller
from voxplane.agent import AgentServer, Frame, HangUp, Pipeline, Said, Start, Tool, ToolCall, ToolUse

CALL = "call_1"
DIALECTS = ["native", "twilio"]
GREETING = "Hello there."
QUIET = bytes(640)


class Talker:
    """Speaks into a call in real time, silence where there is nothing else to say."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._talking = asyncio.create_task(self._talk())

    def say(self, ms: int = 400) -> None:
        """Something loud that changes, as a voice does."""
        for i in range(ms // 20):
            self._frames.put_nowait(tone(20, hz=200 + 40 * (i % 7)))

    def pause(self, ms: int) -> None:
        """Silence before what is said next."""
        for _ in range(ms // 20):
            self._frames.put_nowait(QUIET)

    async def _talk(self) -> None:
        while not self._caller.over:
            await self._caller.send(QUIET if self._frames.empty() else self._frames.get_nowait())
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self._talking.cancel()
        await asyncio.gather(self._talking, return_exceptions=True)


@asynccontextmanager
async def talking(edge: LoneEdge, ticket: str) -> AsyncIterator[tuple[AsyncCaller, Talker]]:
    async with AsyncCaller(ticket, sample_rate=RATE_HZ) as caller:
        await until(lambda: edge.log.of("agent.connected"), "the backend")
        talker = Talker(caller)
        try:
            yield caller, talker
        finally:
            await talker.stop()


@asynccontextmanager
async def in_call(
    folder: Path, pipeline: Pipeline, dialect: str
) -> AsyncIterator[tuple[LoneEdge, AsyncCaller, Talker]]:
    async with lone_edge(folder) as edge, AgentServer(pipeline) as server:
        async with talking(edge, edge.ticket(server.url, agent=agent(dialect))) as (caller, talker):
            yield edge, caller, talker
        assert edge.errors == []


def agent(dialect: str) -> dict[str, Any]:
    return {"dialect": dialect, "sample_rate": RATE_HZ}


def turns(edge: LoneEdge, role: str) -> list[str]:
    return [data["text"] for data in edge.log.of("turn.ended") if data["role"] == role]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_turn_with_a_tool_stands_in_the_log_and_is_heard(tmp_path: Path, dialect: str) -> None:
    logs: list[LoneEdge] = []

    async def look(arguments: dict[str, Any]) -> Any:
        assert logs[0].log.of("tool.called"), "the intent is durable before the tool runs"
        return {"day": "Monday"}

    tool = Tool(name="look", description="", run=look, key=lambda a: f"look:{a['order']}")
    mind, watcher = Mind([ToolCall("look", {"order": "7"}, "t1")], ["It comes ", "on Monday."]), Watcher()
    pipeline = watcher.pipeline(LoudEar("when"), mind, Voice(), tools=[tool], greeting=GREETING)
    async with in_call(tmp_path, pipeline, dialect) as (edge, caller, talker):
        logs.append(edge)
        await until(lambda: turns(edge, "agent") == [GREETING], "the greeting was heard")
        talker.say()
        await until(lambda: turns(edge, "agent")[1:], "the answer")
        assert turns(edge, "agent") == [GREETING, "It comes on Monday."]
        assert turns(edge, "caller") == ["when"]
        [called], [result] = edge.log.of("tool.called"), edge.log.of("tool.result")
        assert (called["key"], result["result"]) == ("look:7", {"day": "Monday"})
        assert edge.log.of("playback.done")[1]["length_ms"] == pytest.approx(4 * WORD_MS, abs=20)
        assert mind.asked[1] == [
            Said("agent", GREETING),
            Said("caller", "when"),
            ToolUse("t1", "look", {"order": "7"}, {"day": "Monday"}, True),
        ]
        assert {"stt_ms", "llm_ms", "tts_ms"} <= set(watcher.turns[1].stages.data())
        await caller.hangup()
    assert watcher.errors == []


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_log_and_the_model_know_the_same_of_an_answer_that_was_interrupted(
    tmp_path: Path, dialect: str
) -> None:
    counting = " ".join(str(n) for n in range(1, 40))
    mind, watcher = Mind([counting], ["Yes."]), Watcher()
    pipeline = watcher.pipeline(LoudEar("count", "stop"), mind, Voice())
    async with in_call(tmp_path, pipeline, dialect) as (edge, caller, talker):
        talker.say()
        await until(
            lambda: ("playback.tick", {"utterance": 1, "offset_ms": 1_000}) in edge.log.live, "a second"
        )
        talker.say()
        await until(lambda: turns(edge, "agent") == ["Yes."], "the next answer")
        [cut] = edge.log.of("turn.interrupted")
        heard = cut["text"].split()
        assert 5 <= len(heard) < 39
        assert heard == counting.split()[: len(heard)]
        assert mind.asked[1] == [
            Said("caller", "count"),
            Said("agent", cut["text"], interrupted=True),
            Said("caller", "stop"),
        ]
        await caller.hangup()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_another_edge_and_another_backend_go_on_with_the_call(tmp_path: Path, dialect: str) -> None:
    """The first backend has not answered when its edge dies: the second one, which knows nothing, does."""
    never = asyncio.Event()
    first, second = Mind([never]), Mind(["Monday."])
    starts: list[Start] = []

    def pipeline(start: Start) -> Pipeline:
        starts.append(start)
        mind = second if start.resumed else first
        return Pipeline(stt=LoudEar("when"), llm=mind, tts=Voice(), greeting=GREETING)

    async with (
        lone_edge(tmp_path, "a") as a,
        lone_edge(tmp_path, "b", a.key) as b,
        AgentServer(pipeline) as server,
    ):
        ticket = a.ticket(server.url, epochs=(1, 2), edges=(a, b), agent=agent(dialect))
        async with talking(a, ticket) as (caller, talker):
            await until(lambda: turns(a, "agent") == [GREETING], "the greeting")
            talker.say()
            await until(lambda: first.asked and turns(a, "caller"), "the question")
            written = len(a.log.events)
            await until(lambda: caller._standing._acked[1] >= written, "the caller's copy has it")
            a.calls.cut(CALL, 1, "closed")
            await until(lambda: turns(b, "agent") == ["Monday."], "the answer")
            assert second.asked == [[Said("agent", GREETING), Said("caller", "when")]]
            assert [(s.call, s.epoch, s.resumed) for s in starts] == [(CALL, 1, False), (CALL, 2, True)]
            await until(lambda: first.stopped == 1, "the old one is stopped")
            await caller.hangup()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_backend_that_is_restarted_keeps_its_call(tmp_path: Path, dialect: str) -> None:
    def pipeline(*answers: str) -> Pipeline:
        return Pipeline(
            stt=LoudEar("again"),
            llm=Mind(*([a] for a in answers)),
            tts=Voice(),
            greeting=GREETING,
            welcome_back="I am back.",
        )

    async with lone_edge(tmp_path) as edge:
        async with AgentServer(pipeline()) as server:
            url, port = server.url, int(server.url.rstrip("/").rpartition(":")[2])
            caller_side = talking(edge, edge.ticket(url, agent=agent(dialect)))
            caller, talker = await caller_side.__aenter__()
            await until(lambda: turns(edge, "agent") == [GREETING], "the greeting")
        async with AgentServer(pipeline("Yes."), port=port):
            await until(lambda: turns(edge, "agent") == [GREETING, "I am back."], "it is back")
            assert edge.log.of("agent.disconnected")[0]["code"] == 1001
            talker.say()
            await until(lambda: turns(edge, "agent")[2:] == ["Yes."], "it answers")
            await caller.hangup()
            await caller_side.__aexit__(None, None, None)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_it_hangs_up_once_its_last_word_is_heard(tmp_path: Path, dialect: str) -> None:
    pipeline = Pipeline(stt=LoudEar("bye"), llm=Mind(["Goodbye.", HangUp("resolved")]), tts=Voice())
    async with in_call(tmp_path, pipeline, dialect) as (edge, caller, talker):
        talker.say()
        await until(lambda: edge.log.of("call.ended"), "the end")
        assert turns(edge, "agent") == ["Goodbye."]
        [ended] = edge.log.of("call.ended")
        assert ended["end_reason"] == ("resolved" if dialect == "native" else "agent_hung_up")
        assert "reason" not in ended
        await until(lambda: caller.over, "the caller is told")


# ------------------------------------------------------------------------------------- what an edge does not do yet


def native_start(**more: Any) -> str:
    audio = {"encoding": "pcm16", "sample_rate": RATE_HZ, "channels": 1, "frame_ms": 20}
    start = {"type": "start", "protocol": "voxplane.agent.v1", "call": CALL, "epoch": 1, "audio": audio}
    return json.dumps(start | more)


async def one_utterance(socket: ClientConnection) -> tuple[dict[str, Any], bytes]:
    """How it was named, and its audio."""
    named: dict[str, Any] = {}
    audio = b""
    async with asyncio.timeout(20):
        while True:
            message = await socket.recv()
            if isinstance(message, bytes):
                audio += message
                continue
            said = json.loads(message)
            named = said if said["type"] == "utterance" else named
            if said["type"] == "turn.ended" and said["data"]["role"] == "agent":
                return named, audio


async def test_an_utterance_that_a_failure_has_cut_goes_on_where_it_was_heard() -> None:
    pipeline = Pipeline(stt=LoudEar(), llm=Mind(), tts=Voice(), greeting="One two three four.")
    async with AgentServer(pipeline) as server:
        async with connect(server.url, proxy=None) as first:
            await first.send(native_start())
            named, whole = await one_utterance(first)
            assert len(whole) == len(tone(4 * WORD_MS))
            first.transport.abort()
        cut = {"id": named["id"], "offset_ms": 500}
        turn = {"role": "agent", "text": "One two three", "interrupted": True}
        resumed = native_start(epoch=2, resumed=True, conversation={"turns": [turn]}, cut=cut)
        async with connect(server.url, proxy=None) as second:
            await second.send(resumed)
            again, rest = await one_utterance(second)
        assert again == {"type": "utterance", "id": named["id"], "offset_ms": 500}
        assert rest == whole[2 * RATE_HZ // 2 :]


@pytest.mark.parametrize("first", ["{}", b"\x00\x01", native_start(audio={"encoding": "opus"})])
async def test_a_stranger_is_refused(first: str | bytes) -> None:
    async with (
        AgentServer(Pipeline(stt=LoudEar(), llm=Mind(), tts=Voice())) as server,
        connect(server.url, proxy=None) as socket,
    ):
        await socket.send(first)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1002


async def test_one_more_than_there_is_room_for_is_refused() -> None:
    pipeline = Pipeline(stt=LoudEar(), llm=Mind(), tts=Voice(), greeting=GREETING)
    async with AgentServer(pipeline, calls_max=1) as server, connect(server.url, proxy=None) as one:
        await one.send(native_start())
        await one_utterance(one)
        async with connect(server.url, proxy=None) as two:
            with pytest.raises(ConnectionClosed) as closed:
                await two.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013


async def test_of_two_sockets_of_a_call_the_higher_epoch_speaks() -> None:
    pipeline = Pipeline(
        stt=LoudEar("hi"), llm=Mind(["Yes."]), tts=Voice(), greeting=GREETING, welcome_back="Back."
    )
    async with (
        AgentServer(pipeline) as server,
        connect(server.url, proxy=None) as new,
        connect(server.url, proxy=None) as old,
    ):
        await new.send(native_start(epoch=2, resumed=True))
        await one_utterance(new)
        await old.send(native_start(epoch=1))
        for frame in [tone(20)] * 5 + [QUIET] * 15:
            await new.send(frame)
        await one_utterance(new)
        assert await to_its_end(old) == []


async def test_the_newer_of_two_equal_sockets_speaks_and_the_other_falls_silent() -> None:
    mind = Mind(["Yes."], ["Yes."])
    pipeline = Pipeline(
        stt=LoudEar("hi", "hi"), llm=mind, tts=Voice(), greeting=GREETING, welcome_back="Back."
    )
    async with (
        AgentServer(pipeline) as server,
        connect(server.url, proxy=None) as old,
        connect(server.url, proxy=None) as new,
    ):
        await old.send(native_start())
        await one_utterance(old)
        await new.send(native_start(resumed=True))
        await one_utterance(new)
        for socket in (old, new):
            for frame in [tone(20)] * 5 + [QUIET] * 15:
                await socket.send(frame)
        await one_utterance(new)
        said = await to_its_end(old)
        assert not {"turn.ended", "utterance"} & {s["type"] for s in said}
        assert len(mind.asked) == 1


async def to_its_end(socket: ClientConnection) -> list[dict[str, Any]]:
    """What is said until the backend closes after `stop`."""
    await socket.send(json.dumps({"type": "stop"}))
    said: list[dict[str, Any]] = []
    with suppress(ConnectionClosed):
        while True:
            message = await socket.recv()
            said.append(json.loads(message) if isinstance(message, str) else {"type": "audio"})
    assert socket.close_code == 1000
    return said


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_pipeline_that_wants_no_silence_is_given_none_and_loses_no_word(
    tmp_path: Path, dialect: str
) -> None:
    ear, watcher = Ear(), Watcher()
    pipeline = replace(watcher.pipeline(ear, Mind(), Voice()), discard_silence=True)

    def loud() -> list[Frame]:
        return [f for f in ear.frames if max(array.array("h", f.pcm), default=0) > 2_000]

    async with in_call(tmp_path, pipeline, dialect) as (edge, caller, talker):
        talker.pause(1_500)
        talker.say(600)
        await until(lambda: len(loud()) >= 30, "the whole of it")
        await until(lambda: any(f.turn_ended for f in ear.frames), "its end")
        await caller.hangup()
        await until(lambda: edge.log.of("call.ended"), "the end")
    at_ms = [f.at_ms for f in ear.frames if f.pcm]
    assert at_ms == sorted(set(at_ms))
    first, last = loud()[0].at_ms, loud()[-1].at_ms
    assert [ms for ms in at_ms if first <= ms <= last] == list(range(first, last + 20, 20)), "no hole in it"
    holes_ms = at_ms[-1] - 20 * (len(at_ms) - 1)
    saved = edge.log.of("call.ended")[0]["usage"]["agent_saved_bytes"]
    assert (holes_ms > 0, saved > 0) == ((True, True) if dialect == "native" else (False, False))
    assert watcher.errors == []
