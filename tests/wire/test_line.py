"""What an edge says of a caller's line, counted on real sockets: with the end, and before it sends the call elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from regions.wire import media as wire
from regions.wire.event_data import CallEnded
from tests.support.edges import until
from tests.support.lone_edge import Backend, Caller, lone_edge


async def speak(caller: Caller, stamp: int, numbers: range, *, without: int = 0) -> int:
    """Frames of 20 ms, as they are due; every so many-th is left out. How many bytes that were."""
    sent = 0
    for number in numbers:
        if not without or number % without:
            frame = wire.pack(b"\xff" * 160, sequence=number, stamp=stamp, utterance=0, offset_ms=0)
            await caller.socket.send(frame)
            sent += len(frame)
        await asyncio.sleep(0.02)
    return sent


async def test_the_final_event_says_what_the_line_was_like_and_what_was_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "regions.edge.lease.LEASE_MS", 600_000
    )  # the caller shows one stamp for as long as it speaks
    async with lone_edge(tmp_path) as edge, Backend().run() as made:
        async with edge.caller(edge.ticket(made.url), encoding="mulaw", sample_rate=8_000) as caller:
            stamp = (await caller.hear("attached"))["stamp"]
            await until(lambda: edge.log.of("agent.connected"), "the backend")
            sent = await speak(caller, stamp, range(1, 61), without=5)
            # the same call on another socket: what was counted stays
            async with edge.caller(
                edge.ticket(made.url), mode="resume", encoding="mulaw", sample_rate=8_000
            ) as again:
                stamp = (await again.hear("attached"))["stamp"]
                sent += await speak(again, stamp, range(200, 240))
                await again.say("hangup")
                await again.hear("ended")
        [ended] = edge.log.of("call.ended")
        checked = msgspec.convert(ended, CallEnded)
        quality, usage = checked.quality, checked.usage
        assert quality is not None and usage is not None
        assert quality.up.loss == round(11 / 99, 4), "11 of 59 and of 40: the sixtieth was the last"
        assert 1 <= quality.mos_min <= quality.mos < 2.5
        assert quality.down is None and quality.rtt_ms is not None
        assert sent < usage.caller_in_bytes < sent + 4_000
        assert usage.caller_out_bytes > 500
        said: list[dict[str, Any]] = made.got
        assert usage.agent_out_bytes > len(said) * 200 and usage.agent_in_bytes == 0
        assert usage.silence_saved_bytes == 0
