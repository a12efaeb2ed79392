"""A planned move between two real edges: what the caller hears and the backend is given, and what becomes of those who cannot."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from regions.edge import handover
from regions.wire.ticket import MovedFor
from regions.wire.uplink import Held
from tests.support.edges import until
from tests.support.lone_edge import Backend, LoneEdge, lone_edge
from voxplane import AsyncCaller

CALL = "call_1"
FRAMES = 150
FRAME_S = 0.02


@asynccontextmanager
async def two_edges(folder: Path) -> AsyncIterator[tuple[LoneEdge, LoneEdge]]:
    async with lone_edge(folder, "a") as a, lone_edge(folder, "b", a.key) as b:
        yield a, b


def ticket(a: LoneEdge, b: LoneEdge, url: str) -> str:
    return a.ticket(url, epochs=(1, 2), edges=(a, b))


def order(a: LoneEdge, b: LoneEdge, url: str, within_ms: int, *, epochs: tuple[int, ...] = (3,)) -> None:
    """As the uplink hands it on."""
    a.calls.move(CALL, a.ticket(url, epochs=epochs, edges=(b,) * len(epochs)), within_ms)


def numbered(number: int) -> bytes:
    """Twenty milliseconds of mu-law that say which they are, and are quiet."""
    return bytes([0xFF - (number >> 4 & 0x0F), 0xFF - (number & 0x0F)]) * 80


def number_of(payload: bytes) -> int:
    return (0xFF - payload[0]) << 4 | (0xFF - payload[1])


def given(backend: Backend) -> set[int]:
    media = [m["media"]["payload"] for m in backend.got if m["event"] == "media"]
    return {number_of(base64.b64decode(payload)) for payload in media} - {0}


async def say(backend: Backend, socket: int, frames: int) -> None:
    """An utterance of the agent's, all at once, and its end."""
    payload = base64.b64encode(bytes([0x10, 0x90]) * 80 * frames).decode()
    await backend.sockets[socket].send(json.dumps({"event": "media", "media": {"payload": payload}}))
    end = {"event": "voxplane", "type": "turn.ended", "data": {"role": "agent", "text": "so much for that"}}
    await backend.sockets[socket].send(json.dumps(end))


async def test_a_move_loses_no_frame_of_the_callers_and_the_log_says_that_it_was_planned(
    tmp_path: Path,
) -> None:
    async with two_edges(tmp_path) as (a, b), Backend().run() as backend:
        first = ticket(a, b, backend.url)
        async with AsyncCaller(first, encoding="mulaw", sample_rate=8_000) as caller:
            await until(lambda: backend.starts, "the backend's start")
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number in range(1, FRAMES + 1):
                await caller.send(numbered(number))
                if number == FRAMES // 3:
                    order(a, b, backend.url, 10_000)
                await asyncio.sleep(max(0.0, began + number * FRAME_S - loop.time()))
            await until(lambda: caller.epoch == 3, "the move")
            await until(lambda: not a.calls.held(), "the old edge let go")
            assert (caller.region, caller.lost) == ("b", False)
            await until(lambda: FRAMES in given(backend), "the last frame")
            assert set(range(1, FRAMES + 1)) - given(backend) == set()
            assert [n["event"] for n in caller.notices] == ["agent.connected"], "audio flows one way"
            await say(backend, 1, 5)
            told = ["agent.connected", "call.reconnected"]
            await until(lambda: [n["event"] for n in caller.notices] == told, "audio flows both ways")
            await caller.hangup()
        assert [m["customParameters"]["voxplane_epoch"] for m in backend.starts] == ["1", "3"]
        [moved] = b.log.of("call.moved")
        assert (moved["reason"], moved["from_epoch"], moved["to_epoch"]) == ("planned", 1, 3)
        assert not b.log.of("call.reconnecting") and not a.log.of("call.ended")
        assert not a.calls.lapsed()


async def test_a_move_for_a_gain_waits_for_the_end_of_a_turn_and_the_log_has_its_figures(
    tmp_path: Path,
) -> None:
    why = MovedFor(by="gain", from_region="a", to_region="b", before_ms=220.0, after_ms=80.5, windows=3)
    async with two_edges(tmp_path) as (a, b), Backend().run() as backend:
        async with AsyncCaller(ticket(a, b, backend.url), encoding="mulaw", sample_rate=8_000) as caller:
            await until(lambda: backend.starts, "the backend's start")
            await say(backend, 0, 20)
            assert await caller.receive() is not None
            a.calls.move(CALL, a.ticket(backend.url, epochs=(3,), edges=(b,), moved_for=why), 0, forced=False)
            session = a.calls.session(CALL, 1)
            await until(lambda: session is not None and not session.moving.wanted, "given up")
            assert caller.epoch == 1, "its time was over in the middle of a turn"
            again = a.ticket(backend.url, epochs=(4,), edges=(b,), moved_for=why)
            a.calls.move(CALL, again, 60_000, forced=False)
            await until(lambda: caller.epoch == 4, "the move")
            await until(lambda: b.log.of("call.moved"), "the event")
            await caller.hangup()
        [moved] = b.log.of("call.moved")
        assert (moved["reason"], moved["by"], moved["from_region"], moved["to_region"]) == (
            "planned", "gain", "a", "b",
        )  # fmt: skip
        assert (moved["before_ms"], moved["after_ms"], moved["windows"]) == (220.0, 80.5, 3)


async def test_what_the_agent_says_is_heard_to_its_end_and_then_the_call_is_moved(tmp_path: Path) -> None:
    async with two_edges(tmp_path) as (a, b), Backend().run() as backend:
        async with AsyncCaller(ticket(a, b, backend.url), encoding="mulaw", sample_rate=8_000) as caller:
            await until(lambda: backend.starts, "the backend's start")
            await say(backend, 0, 40)
            frame = await caller.receive()
            order(a, b, backend.url, 60_000)
            heard = 0
            while frame is not None and heard < 39:
                assert (frame.epoch, frame.offset_ms) == (1, heard * 20)
                frame, heard = await caller.receive(), heard + 1
            await until(lambda: caller.epoch == 3, "the move")
            await until(lambda: len(backend.sockets) == 2, "the backend dialled anew")
            await say(backend, 1, 2)
            frame = await caller.receive()
            assert frame is not None and (frame.epoch, frame.utterance) == (3, 2)
            await caller.hangup()
        assert not b.log.of("turn.interrupted")
        kinds = [kind for kind, _ in b.log.events]
        assert kinds[:2] == ["call.moved", "playback.done"], "what was said last goes with the caller"


async def test_the_old_edge_is_heard_until_the_new_one_speaks(tmp_path: Path) -> None:
    """The agent does not stop: the move is forced, and no frame is missing between the two."""
    async with (
        two_edges(tmp_path) as (a, b),
        Backend().run() as backend,
        AsyncCaller(ticket(a, b, backend.url), encoding="mulaw", sample_rate=8_000) as caller,
    ):
        await until(lambda: backend.starts, "the backend's start")
        await say(backend, 0, 400)
        assert await caller.receive() is not None
        order(a, b, backend.url, 0)
        await until(lambda: len(backend.starts) == 2, "the backend dialled anew")
        await say(backend, 1, 20)
        old, new = [], []
        while len(new) < 20:
            frame = await caller.receive()
            assert frame is not None
            assert frame.epoch == 3 or not new, "the old edge after the new one"
            (new if frame.epoch == 3 else old).append(frame.offset_ms)
        assert old == list(range(20, 20 * len(old) + 20, 20)), "a hole in what the old edge played"
        assert new == list(range(0, 400, 20))
        [gap] = caller.gaps
        assert (gap.reason, gap.from_epoch, gap.to_epoch) == ("planned", 1, 3)


async def test_a_caller_that_finds_the_first_edge_full_is_offered_the_next(tmp_path: Path) -> None:
    async with (
        two_edges(tmp_path) as (a, b),
        Backend().run() as backend,
        a.caller(ticket(a, b, backend.url)) as caller,
    ):
        await caller.hear("attached")
        order(a, b, backend.url, 60_000, epochs=(3, 4))
        assert (await caller.hear("ticket"))["ticket"].count(".") == 2
        assert (await caller.hear("move"))["epoch"] == 3
        await caller.say("ready", epoch=3, code="full")
        assert (await caller.hear("move"))["epoch"] == 4
        assert a.calls.not_taken() == [], "there is another grant"
        await caller.say("ready", epoch=3)
        await caller.say("ready", epoch=4)
        assert (await caller.hear("go"))["epoch"] == 4
        await caller.say("moved", epoch=4)
        with pytest.raises(Exception, match="1000"):
            await caller.hear("refused")
        assert not a.calls.held()


async def test_an_edge_that_fills_up_meanwhile_refuses_and_the_call_stays(tmp_path: Path) -> None:
    async with two_edges(tmp_path) as (a, b), Backend().run() as backend:
        async with AsyncCaller(ticket(a, b, backend.url), encoding="mulaw", sample_rate=8_000) as caller:
            await until(lambda: backend.starts, "the backend's start")
            await say(backend, 0, 100)
            assert await caller.receive() is not None
            order(a, b, backend.url, 60_000)
            await until(lambda: (link := caller._moving.link) and link.prepared, "prepared")
            b.calls.context.settings = replace(b.calls.context.settings, capacity_calls=0)
            await until(lambda: b.calls.refused, "the refusal")
            await until(lambda: not caller.gaps, "the owner kept")
            assert (caller.epoch, caller.region, caller.over) == (1, "a", False)
            session = a.calls.session(CALL, 1)
            await until(lambda: session is not None and not session.moving.gone, "the old edge goes on")
            # the move began with 3; it is said until something else is asked
            assert a.calls.not_taken() == [Held(call=CALL, epoch=3)]
            a.calls.stay(CALL, 3)
            assert a.calls.not_taken() == []
            await caller.hangup()
        assert caller.end_reason == "caller_hung_up"


async def test_a_caller_that_does_not_know_of_moves_is_let_go_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "ANSWER_WITHIN_MS", 100)
    async with two_edges(tmp_path) as (a, b), Backend().run() as backend:
        async with a.caller(ticket(a, b, backend.url)) as caller:
            await caller.hear("attached")
            order(a, b, backend.url, 50)
            with pytest.raises(Exception, match="1000"):
                await caller.hear("ended", "refused")
        assert not a.log.of("call.ended"), "the caller has a standby"


async def test_a_caller_is_handed_better_standbys_and_again_when_it_comes_back(tmp_path: Path) -> None:
    async with two_edges(tmp_path) as (a, b), Backend().run() as backend:
        first, fresh = ticket(a, b, backend.url), a.ticket(backend.url, epochs=(3,), edges=(b,))
        async with a.caller(first) as caller:
            await caller.hear("attached")
            a.calls.renew(CALL, fresh)
            assert (await caller.hear("ticket"))["ticket"] == fresh
            a.calls.renew(CALL, "nonsense")
            a.calls.renew(CALL, a.ticket(backend.url, call="call_2"))
        async with a.caller(first, mode="resume") as caller:
            await caller.hear("attached")
            assert (await caller.hear("ticket", "ended"))["ticket"] == fresh
            await caller.say("hangup")
            await caller.hear("ended")
            assert [m["type"] for m in caller.got].count("ticket") == 1, "neither of the others"


async def test_a_standby_of_the_newest_ticket_is_taken_first(tmp_path: Path) -> None:
    async with (
        two_edges(tmp_path) as (a, b),
        lone_edge(tmp_path, "c", a.key) as c,
        Backend().run() as backend,
        AsyncCaller(ticket(a, b, backend.url)) as caller,
    ):
        a.calls.renew(CALL, a.ticket(backend.url, epochs=(3, 4), edges=(c, b)))
        await until(lambda: caller._tickets.has(3), "the ticket")
        for session in a.calls.sessions:
            session.supersede()
        await until(lambda: caller.epoch == 3, "the take")
        assert (caller.region, caller.gaps[0].reason) == ("c", "closed")
        await caller.hangup()


@pytest.mark.parametrize(
    ("told", "stays"), [("any", True), ("this", True), ("another", False), ("undrain", False)]
)
async def test_a_call_stays_after_all_where_its_own_move_is_off(
    tmp_path: Path, told: str, stays: bool
) -> None:
    """That the edge takes new calls again, or that an earlier move is off, is no word about this one."""
    async with (
        two_edges(tmp_path) as (a, b),
        Backend().run() as backend,
        a.caller(ticket(a, b, backend.url)) as caller,
    ):
        await caller.hear("attached")
        order(a, b, backend.url, 0)
        await caller.hear("move")
        if told == "undrain":
            a.calls.drain(on=False)
        else:
            a.calls.stay(CALL, {"any": None, "this": 3, "another": 2}[told])
        await caller.say("ready", epoch=3)
        if not stays:
            assert (await caller.hear("go"))["epoch"] == 3
            return
        for _ in range(5):
            assert (await caller.hear("tick", "go"))["type"] == "tick"
            await caller.say("alive", stamp=caller.got[-1]["stamp"])
        assert a.calls.held()


async def test_an_edge_that_drains_sends_who_comes_first_to_the_standby(tmp_path: Path) -> None:
    async with two_edges(tmp_path) as (a, b), Backend().run() as backend:
        a.calls.drain(on=True)
        async with a.caller(ticket(a, b, backend.url)) as caller:
            refused = await caller.hear("refused", "attached")
            assert (refused.get("code"), refused.get("next_url")) == ("draining", b.url + "/v1/media")
        async with AsyncCaller(ticket(a, b, backend.url)) as caller:
            assert (caller.region, caller.epoch) == ("b", 2)
            await caller.hangup()
        lonely = a.ticket(backend.url, call="call_2")
        async with a.caller(lonely) as caller:
            assert (await caller.hear("refused", "attached"))["type"] == "attached", (
                "nobody else would have it"
            )
