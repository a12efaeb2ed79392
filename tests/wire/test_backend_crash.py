"""A backend dies while its caller is there: what the caller hears, the next backend is told, and the log says."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from regions.agents import connection
from regions.media import hold_sound
from regions.media.hold_sound import FRAMES
from regions.wire.ticket import Reconnect
from tests.support.edges import until
from tests.support.lone_edge import LoneEdge, lone_edge
from voxplane import AsyncCaller

CALL = "call_1"
SPEECH = bytes([0x10, 0x90]) * 80
Ends = Callable[[ServerConnection], Awaitable[None]]


async def reset(socket: ServerConnection) -> None:
    socket.transport.abort()


async def close_1011(socket: ServerConnection) -> None:
    await socket.close(1011, "out of memory")


async def close_1001(socket: ServerConnection) -> None:
    await socket.close(1001)


async def close_1000(socket: ServerConnection) -> None:
    await socket.close(1000)


class Backend:
    """Keeps what each of its sockets was sent. `on_start` is done to each new one; `stop` and `start`: nobody listens."""

    def __init__(self) -> None:
        self.sockets: list[ServerConnection] = []
        self.got: list[list[dict[str, Any]]] = []
        self.on_start: Ends | None = None
        self.port = 0
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def starts(self) -> list[dict[str, Any]]:
        return [m["start"]["customParameters"] for got in self.got for m in got if m["event"] == "start"]

    def of(self, socket: int, event: str) -> list[dict[str, Any]]:
        return [m for m in self.got[socket] if m["event"] == event]

    async def start(self) -> None:
        self._server = await serve(self._call, "127.0.0.1", self.port, ping_interval=None)
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close(close_connections=False)
        for socket in self.sockets:
            socket.transport.abort()
        await self._server.wait_closed()

    async def _call(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        got: list[dict[str, Any]] = []
        self.got.append(got)
        try:
            async for text in socket:
                got.append(json.loads(text))
                if got[-1]["event"] == "start" and self.on_start is not None:
                    await self.on_start(socket)
        except ConnectionClosed:
            return

    async def tell(self, socket: int, type_: str, **data: Any) -> None:
        message = {"event": "voxplane", "type": type_, "data": data}
        await self.sockets[socket].send(json.dumps(message))

    async def play(self, socket: int, frames: int) -> None:
        payload = base64.b64encode(SPEECH * frames).decode()
        await self.sockets[socket].send(json.dumps({"event": "media", "media": {"payload": payload}}))


@asynccontextmanager
async def backend() -> AsyncIterator[Backend]:
    made = Backend()
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@asynccontextmanager
async def in_call(edge: LoneEdge, made: Backend, **agent: Any) -> AsyncIterator[AsyncCaller]:
    """A caller whose backend has been reached; it takes in what it hears."""
    ticket = edge.ticket(made.url, agent=agent)
    async with AsyncCaller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
        await until(lambda: made.starts, "the backend's start")
        yield caller


def events(caller: AsyncCaller) -> list[str]:
    return [n["event"] for n in caller.notices]


def reconnect(**wanted: Any) -> dict[str, Any]:
    return {"reconnect": Reconnect(**wanted)}


@pytest.mark.parametrize(
    ("dies", "said"),
    [
        (reset, {"clean": False, "why": "lost"}),
        (close_1011, {"clean": False, "why": "closed", "code": 1011}),
        (close_1001, {"clean": False, "why": "closed", "code": 1001}),
    ],
    ids=["reset", "1011", "1001"],
)
async def test_a_backend_that_dies_is_dialled_again_and_the_caller_stays(
    tmp_path: Path, dies: Ends, said: dict[str, Any]
) -> None:
    async with lone_edge(tmp_path) as edge, backend() as made, in_call(edge, made) as caller:
        await made.tell(0, "turn.ended", role="caller", text="where is my order")
        await until(lambda: edge.log.of("turn.ended"), "the turn")
        await caller.send(SPEECH)
        await dies(made.sockets[0])
        await until(lambda: len(made.starts) == 2, "the second dial")
        again = made.starts[1]
        assert (again["voxplane_resumed"], again["voxplane_epoch"]) == ("true", "1")
        turns = json.loads(again["voxplane_conversation"])["turns"]
        assert turns == [{"role": "caller", "text": "where is my order"}]
        await until(lambda: "agent.connected" in events(caller), "the caller told")
        assert events(caller) == ["call.reconnecting", "agent.connected"]
        assert caller.notices[0]["data"] == {"reason": "agent_lost", "sound": "tone", "deadline_s": 20.0}
        await caller.send(SPEECH)
        await made.play(1, 5)
        await until(lambda: "call.reconnected" in events(caller), "both ways")
        assert edge.log.of("agent.disconnected") == [said]
        assert edge.log.of("call.reconnecting") == [{"from_epoch": 1, "to_epoch": 1, "reason": "agent_lost"}]
        first, second = edge.log.of("agent.connected")
        assert first == {"fallback": False, "resumed": False}
        assert (second["resumed"], second["attempts"], second["dropped_ms"]) == (True, 1, 0)
        assert edge.log.of("call.reconnected") == [{"from_epoch": 1, "region": "edge_1"}]
        assert (caller.epoch, caller.gaps, caller.over) == (1, [], False)
        assert edge.calls.context.backends.lost[said["why"]] == 1
        assert edge.calls.context.backends.came_to["reconnected"] == 1
        await caller.hangup()


async def test_the_caller_hears_a_sound_until_a_backend_speaks_and_it_is_nobodys(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, backend() as made, in_call(edge, made) as caller:
        await made.play(0, 3)
        heard = [await caller.receive() for _ in range(3)]
        assert {f.filler for f in heard if f} == {False}
        played = caller._standing.played
        await made.stop()
        sound = [await caller.receive() for _ in range(4)]
        assert [(f.samples, f.utterance, f.filler) for f in sound if f] == [(s, 0, True) for s in FRAMES[:4]]
        assert caller._standing.played == played
        await made.start()
        await until(lambda: len(made.starts) == 2, "the second dial")
        await made.play(1, 3)
        after = []
        while len(after) < 3:
            frame = await caller.receive()
            assert frame is not None
            assert not (after and frame.filler), "the sound goes on over the backend"
            if not frame.filler:
                after.append((frame.utterance, frame.offset_ms))
        assert after == [(2, 0), (2, 20), (2, 40)]
        assert [e["utterance"] for e in edge.log.of("playback.started")] == [1, 2]
        await caller.hangup()


async def test_a_call_may_ask_for_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold_sound, "BEGINS_AFTER_MS", 0)
    async with (
        lone_edge(tmp_path) as edge,
        backend() as made,
        in_call(edge, made, **reconnect(sound="silence")) as caller,
    ):
        await made.stop()
        await until(lambda: "call.reconnecting" in events(caller), "the caller told")
        assert caller.notices[-1]["data"]["sound"] == "silence"
        stamp = caller._standing.stamp
        await until(lambda: caller._standing.stamp > stamp + 300, "a few ticks")
        await made.start()
        await until(lambda: len(made.starts) == 2, "the second dial")
        await made.play(1, 1)
        frame = await caller.receive()
        assert frame is not None and not frame.filler
        await caller.hangup()


async def test_what_the_caller_says_and_presses_meanwhile_comes_to_the_next_backend_once(
    tmp_path: Path,
) -> None:
    """Frames that say which they are, and are quiet."""
    async with lone_edge(tmp_path) as edge, backend() as made, in_call(edge, made) as caller:
        await made.stop()
        await until(lambda: "call.reconnecting" in events(caller), "the caller told")
        frames = [bytes([0xFF - (n >> 4), 0xFF - (n & 0x0F)]) * 80 for n in range(1, 31)]
        for frame in frames:
            await caller.send(frame)
            await asyncio.sleep(0.015)
        digits = "12#" * 10  # twice as many would be more than count in five seconds
        for digit in digits:
            await caller.dtmf(digit)
        await until(lambda: len(edge.log.of("dtmf.received")) == len(digits), "the digits")
        await made.start()
        await until(lambda: len(made.starts) == 2, "the second dial")

        def given() -> list[bytes]:
            payloads = [base64.b64decode(m["media"]["payload"]) for m in made.of(1, "media")]
            return [p for p in payloads if p != b"\xff" * 160]

        await until(lambda: len(given()) >= len(frames), "what was said")
        assert given() == frames
        assert "".join(m["dtmf"]["digit"] for m in made.of(1, "dtmf")) == digits
        assert edge.log.of("agent.connected")[1]["replayed_ms"] >= 20 * len(frames) - 40
        await caller.hangup()


async def test_what_the_dead_backend_has_said_is_heard_out_and_known_to_the_next(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, backend() as made, in_call(edge, made) as caller:
        words = [
            {"word": w, "offset_ms": 100 * i} for i, w in enumerate(["it", "was", "shipped", "on", "Monday"])
        ]
        await made.tell(0, "transcript.final", role="agent", text="it was shipped on Monday", words=words)
        await made.play(0, 15)
        await made.sockets[0].send('{"event":"mark","mark":{"name":"mine"}}')
        assert await caller.receive() is not None
        await reset(made.sockets[0])
        await until(lambda: len(made.starts) == 2, "the second dial")
        turns = json.loads(made.starts[1]["voxplane_conversation"])["turns"]
        assert turns == [{"role": "agent", "text": "it was shipped", "interrupted": True}]
        await made.play(1, 2)
        heard = [await caller.receive() for _ in range(16)]
        assert [(f.utterance, f.offset_ms) for f in heard if f] == [
            *((1, 20 * n) for n in range(1, 15)), (2, 0), (2, 20),
        ]  # fmt: skip
        await until(lambda: edge.log.of("turn.interrupted"), "the cut")
        assert edge.log.of("turn.interrupted") == [
            {"role": "agent", "text": "it was shipped", "utterance": 1, "offset_ms": 300}
        ]
        assert edge.log.of("playback.interrupted")[0]["by"] == "agent_lost"
        assert made.of(1, "mark") == [], "a mark of the dead one"
        await caller.hangup()


async def test_a_tool_of_the_dead_backend_is_not_acknowledged_to_its_successor(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, backend() as made, in_call(edge, made) as caller:
        held: list[Any] = []
        edge.log.notify = held.append  # type: ignore[method-assign]
        await made.tell(0, "tool.called", id="t1", name="pay", arguments={})
        session = edge.calls.session(CALL, 1)
        assert session is not None
        await until(lambda: held, "the intent")
        await reset(made.sockets[0])
        await until(lambda: len(made.starts) == 2, "the second dial")
        [turn] = json.loads(made.starts[1]["voxplane_conversation"])["turns"]
        assert (turn["id"], turn.get("done")) == ("t1", None)
        await made.tell(1, "conversation.get", id="q")
        await until(lambda: made.of(1, "voxplane"), "the first answer: it speaks text")
        edge.log._take(session)
        await made.tell(1, "tool.called", id="t2", name="pay", arguments={})
        await until(lambda: len(session._journal.turns) == 2, "its own")
        edge.log._take(session)
        await until(lambda: len(made.of(1, "voxplane")) == 2, "its acknowledgement")
        assert [m["data"]["id"] for m in made.of(1, "voxplane")] == ["q", "t2"]
        await caller.hangup()


async def test_a_backend_that_is_never_had_again_ends_the_call_with_the_reason(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, backend() as made:
        async with in_call(edge, made, **reconnect(deadline_s=0.3)) as caller:
            await made.stop()
            await until(lambda: caller.over, "the end")
            assert caller.end_reason == "agent_lost"
            await until(lambda: edge.log.of("call.ended"), "the final event")
            [ended] = edge.log.of("call.ended")
            assert (ended["end_reason"], ended["detail"]) == ("agent_lost", "connect")
            assert ended["attempts"] >= 2 and ended["away_ms"] >= 300
            assert edge.calls.context.backends.came_to["gave_up"] == 1
        await made.start()


@pytest.mark.parametrize(
    ("on_start", "end_reason", "detail"),
    [(close_1011, "agent_lost", "broke_off"), (close_1000, "agent_hung_up", None)],
    ids=["dies on every dial", "hangs up at once"],
)
async def test_a_backend_that_does_not_stay_is_not_dialled_for_ever(
    tmp_path: Path, on_start: Ends, end_reason: str, detail: str | None
) -> None:
    """A hang-up without a word on a call that runs is believed the third time."""
    async with (
        lone_edge(tmp_path) as edge,
        backend() as made,
        in_call(edge, made, **reconnect(deadline_s=1.5)) as caller,
    ):
        made.on_start = on_start
        await reset(made.sockets[0])
        await until(lambda: caller.over, "the end")
        assert caller.end_reason == end_reason
        await until(lambda: edge.log.of("call.ended"), "the final event")
        assert edge.log.of("call.ended")[0].get("detail") == detail
        assert len(edge.log.of("call.reconnecting")) == 1, "one absence"
        assert len(made.starts) >= 4
        if end_reason == "agent_hung_up":
            assert [d["why"] for d in edge.log.of("agent.disconnected")] == [
                "lost", "hung_up_at_once", "hung_up_at_once", "closed",
            ]  # fmt: skip


async def test_a_backend_that_takes_the_connection_and_says_nothing_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fallback is dialled; one that takes the WebSocket and is silent listens, and the sound ends."""
    monkeypatch.setattr(connection, "HURRIED_DEADLINE_S", 0.1)
    monkeypatch.setattr(hold_sound, "BEGINS_AFTER_MS", 0)
    monkeypatch.setattr(hold_sound, "LISTENS_AFTER_MS", 100)
    hung = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung.set()
        await reader.read()
        writer.close()

    async with lone_edge(tmp_path) as edge, backend() as first, backend() as second:
        async with in_call(edge, first, fallback_url=second.url) as caller:
            await first.stop()
            server = await asyncio.start_server(mute, "127.0.0.1", first.port)
            async with server:
                await until(lambda: second.starts, "the fallback")
                assert second.starts[0]["voxplane_resumed"] == "true"
                await until(lambda: edge.log.of("agent.connected")[1:], "its connection")
                assert edge.log.of("agent.connected")[1]["fallback"] is True
                await until(lambda: len(second.of(0, "media")) > 30, "the caller's silence")
                while not caller._hearing._frames.empty():
                    await caller.receive()
                await until(lambda: len(second.of(0, "media")) > 60, "more of it")
                assert caller._hearing._frames.empty(), "the sound goes on while the backend listens"
                await until(lambda: edge.log.of("call.reconnected"), "both ways: it listens")
                await caller.hangup()
        await first.start()


async def test_a_call_that_ends_while_its_backend_is_away_is_over(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, backend() as made, in_call(edge, made) as caller:
        await made.stop()
        await until(lambda: "call.reconnecting" in events(caller), "the caller told")
        edge.calls.end(CALL, "ended_by_api")
        await until(lambda: caller.over, "the end")
        assert caller.end_reason == "ended_by_api"
        await made.start()
        session = edge.calls.session(CALL, 1)
        await until(lambda: session is None or session._agent._dialling.done(), "no dialling")  # type: ignore[union-attr]
        assert len(made.starts) == 1
        assert edge.calls.context.backends.came_to["left"] == 1


async def test_a_backend_that_dies_while_its_call_is_being_ended_changes_nothing(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, backend() as made:
        async with in_call(edge, made) as caller:
            made.sockets[0].transport.abort()
            edge.calls.end(CALL, "ended_by_api")
            await until(lambda: caller.over, "the end")
            assert caller.end_reason == "ended_by_api"
        await until(lambda: not edge.calls.sessions, "the release")
        assert not edge.log.of("agent.disconnected") and not edge.log.of("call.reconnecting")
        assert len(made.starts) == 1


async def test_a_hang_up_is_a_hang_up(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, backend() as made, in_call(edge, made) as caller:
        await made.play(0, 5)
        await close_1000(made.sockets[0])
        await until(lambda: caller.over, "the end")
        assert caller.end_reason == "agent_hung_up"
        assert edge.log.of("playback.done") == [{"utterance": 1, "length_ms": 100}]
        assert len(made.starts) == 1


async def test_whoever_listens_is_told_how_far_an_utterance_is(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, backend() as made, in_call(edge, made) as caller:
        await made.play(0, 60)
        await close_1000(made.sockets[0])
        await until(lambda: caller.over, "the end")
        assert edge.log.of("playback.done") == [{"utterance": 1, "length_ms": 1_200}]
        assert edge.log.live == [("playback.tick", {"utterance": 1, "offset_ms": 1_000})]


async def test_a_backend_that_dies_while_its_call_is_moved_is_dialled_by_whoever_has_the_call(
    tmp_path: Path,
) -> None:
    async with lone_edge(tmp_path, "a") as a, lone_edge(tmp_path, "b", a.key) as b, backend() as made:
        ticket = a.ticket(made.url, epochs=(1, 2), edges=(a, b))
        async with AsyncCaller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
            await until(lambda: made.starts, "the backend's start")
            await made.stop()
            await until(lambda: a.log.of("call.reconnecting"), "its death")
            a.calls.move(CALL, a.ticket(made.url, epochs=(3,), edges=(b,)), 0)
            await until(lambda: caller.epoch == 3, "the move")
            await until(lambda: b.log.of("call.reconnecting"), "the new edge finds nobody")
            assert b.log.of("call.reconnecting")[0]["reason"] == "agent_lost"
            await until(lambda: not a.calls.held(), "the old edge let go")
            await made.start()
            await until(
                lambda: [s["voxplane_epoch"] for s in made.starts[1:]] == ["3"], "the new edge's dial"
            )
            await caller.send(SPEECH)
            await made.play(-1, 5)
            await until(lambda: b.log.of("call.reconnected"), "both ways")
            assert b.log.of("call.reconnected")[0]["from_epoch"] == 1
            assert not a.log.of("call.ended") and not b.log.of("call.ended")
            await caller.hangup()


async def test_a_backend_that_is_dead_when_its_call_is_taken_over_is_waited_for(tmp_path: Path) -> None:
    async with lone_edge(tmp_path, "a") as a, lone_edge(tmp_path, "b", a.key) as b, backend() as made:
        ticket = a.ticket(made.url, epochs=(1, 2), edges=(a, b))
        async with AsyncCaller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
            await until(lambda: made.starts, "the backend's start")
            await made.stop()
            await until(lambda: a.log.of("call.reconnecting"), "its death")
            for session in a.calls.sessions:
                session.supersede()
            await until(lambda: caller.epoch == 2, "the takeover")
            await until(lambda: "call.reconnecting" in events(caller)[1:], "told by the new edge")
            assert [e["reason"] for e in b.log.of("call.reconnecting")] == ["closed"], "said once"
            await made.start()
            await until(lambda: len(made.starts) == 2, "the dial")
            await caller.send(SPEECH)
            await made.play(-1, 5)
            await until(lambda: b.log.of("call.reconnected"), "both ways")
            await caller.hangup()


async def test_a_turn_that_was_written_down_and_not_answered_is_told_to_the_next_owners_backend(
    tmp_path: Path,
) -> None:
    async with lone_edge(tmp_path, "a") as a, lone_edge(tmp_path, "b", a.key) as b, backend() as made:
        ticket = a.ticket(made.url, epochs=(1, 2), edges=(a, b))
        async with AsyncCaller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
            await until(lambda: made.starts, "the backend's start")
            await made.tell(0, "turn.ended", role="caller", text="where is my order?")
            await until(lambda: a.log.of("turn.ended"), "written down")
            await until(lambda: caller._standing._acked >= (1, 3), "the caller has the snapshot that says so")
            for session in a.calls.sessions:
                session.supersede()
            await until(lambda: len(made.starts) == 2, "the dial of the next owner")
            start = made.starts[1]
            assert (start["voxplane_epoch"], start["voxplane_resumed"]) == ("2", "true")
            assert json.loads(start["voxplane_conversation"])["turns"] == [
                {"role": "caller", "text": "where is my order?"}
            ]
            await caller.hangup()


async def test_a_caller_that_comes_back_meanwhile_is_told_again(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, backend() as made:
        ticket = edge.ticket(made.url)
        async with edge.caller(ticket) as caller:
            await caller.hear("attached")
            await until(lambda: made.starts, "the backend's start")
            await made.stop()
            assert (await caller.hear("notice"))["event"] == "call.reconnecting"
        async with edge.caller(ticket, mode="resume") as caller:
            await caller.hear("attached")
            told = await caller.hear("notice")
            assert (told["event"], told["data"]["reason"]) == ("call.reconnecting", "agent_lost")
            await caller.say("hangup")
            await caller.hear("ended")
        await made.start()
