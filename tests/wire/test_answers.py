"""On a real edge: how long an answer took, held against the call's budget, and calls that end by what is said in them."""

from __future__ import annotations

import asyncio
import audioop
import base64
import json
import math
from pathlib import Path
from typing import Any

import pytest

from regions.wire.events import EVENT_TYPES
from regions.wire.ticket import EndWhen
from tests.support.edges import until
from tests.support.lone_edge import Backend, LoneEdge, lone_edge
from voxplane import AsyncCaller


def _loud() -> bytes:
    """Something that passes for a voice: two tones under a slow beat, 20 ms at a time."""
    samples = bytearray()
    for i in range(8_000):
        beat = 0.6 + 0.4 * math.sin(2 * math.pi * 5 * i / 8_000)
        value = beat * (
            6_000 * math.sin(2 * math.pi * 180 * i / 8_000) + 3_000 * math.sin(2 * math.pi * 720 * i / 8_000)
        )
        samples += round(value).to_bytes(2, "little", signed=True)
    return audioop.lin2ulaw(bytes(samples), 2)


VOICE, QUIET = _loud(), b"\xff" * 160
ANSWER = base64.b64encode(b"\x10\x90" * 800).decode()


async def speak(caller: AsyncCaller, ms: int, *, voice: bool) -> None:
    for i in range(ms // 20):
        start = i * 160 % 8_000
        await caller.send(VOICE[start : start + 160] if voice else QUIET)
        await asyncio.sleep(0.02)


async def say(made: Backend, type_: str, **data: Any) -> None:
    await made.sockets[-1].send(json.dumps({"event": "voxplane", "type": type_, "data": data}))


def reason_of(edge: LoneEdge) -> str:
    [ended] = edge.log.of("call.ended")
    return str(ended["end_reason"])


async def test_an_answer_is_timed_by_stage_and_held_against_the_budget(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as made:
        ticket = edge.ticket(made.url, latency_budget={"total": 1.0, "llm": 60_000.0})
        async with AsyncCaller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
            await until(lambda: made.starts, "the backend")
            await speak(caller, 600, voice=True)
            await speak(caller, 700, voice=False)
            await until(lambda: edge.log.of("speech.stopped"), "the end of the voice")
            await say(made, "turn.timing", turn=1, stages={"stt_ms": 1, "llm_ms": 2, "tts_ms": 3})
            await made.sockets[0].send(json.dumps({"event": "media", "media": {"payload": ANSWER}}))
            await until(lambda: edge.log.of("turn.answered"), "the answer")
            [answered] = edge.log.of("turn.answered")
            assert sum(answered["stages"].values()) == answered["total_ms"]
            assert {
                "capture",
                "uplink",
                "jitter",
                "end_of_turn",
                "llm",
                "backend",
                "pacing",
                "downlink",
            } <= set(answered["stages"])
            [over] = edge.log.of("turn.budget_exceeded")
            assert (over["exceeded"], over["total_ms"]) == (["total"], answered["total_ms"])
            shown = edge.calls.context.answers.exposition()
            assert 'voxplane_edge_answer_ms_count{stage="total"} 1' in shown
            assert 'voxplane_edge_answer_budget_exceeded_total{stage="total"} 1' in shown
            await caller.hangup()
        assert edge.errors == []


@pytest.mark.parametrize(
    ("end_when", "voice", "reason"),
    [
        (EndWhen(idle_s=0.4), False, "idle"),
        (EndWhen(silence_s=0.4), False, "caller_silent"),
        (EndWhen(monologue_s=0.4), True, "monologue"),
    ],
    ids=["idle", "silence", "monologue"],
)
async def test_a_call_ends_by_itself(tmp_path: Path, end_when: EndWhen, voice: bool, reason: str) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as made:
        ticket = edge.ticket(made.url, end_when=end_when)
        async with AsyncCaller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
            while not edge.log.of("call.ended"):
                await speak(caller, 100, voice=voice)
            await until(lambda: caller.over, "the goodbye")
            assert (reason_of(edge), caller.end_reason) == (reason, reason)


async def test_a_backend_says_that_all_is_resolved(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as made:
        async with AsyncCaller(edge.ticket(made.url), encoding="mulaw", sample_rate=8_000):
            await until(lambda: made.starts, "the backend")
            await say(made, "hangup", reason="resolved")
            await until(lambda: edge.log.of("call.ended"), "the end")
        assert edge.log.why_ended() == {"end_reason": "resolved"}


async def test_why_a_backend_has_hung_up_is_what_it_has_said(tmp_path: Path) -> None:
    """Its own words are an event of content, and no part of the end that everybody may read."""
    async with lone_edge(tmp_path) as edge, Backend().run() as made:
        async with AsyncCaller(edge.ticket(made.url), encoding="mulaw", sample_rate=8_000):
            await until(lambda: made.starts, "the backend")
            await say(made, "hangup", reason="Jane pays on Friday")
            await until(lambda: edge.log.of("call.ended"), "the end")
        assert edge.log.of("agent.hung_up") == [{"reason": "Jane pays on Friday"}]
        assert edge.log.why_ended() == {"end_reason": "agent_hung_up"}
    assert EVENT_TYPES["agent.hung_up"].content
