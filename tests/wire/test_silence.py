"""Silence that is not sent: between caller and edge, to a backend that has asked for it, and over WebRTC. The timeline stays."""

from __future__ import annotations

import array
import asyncio
import base64
import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from regions.callers.sdp import without_silence
from regions.media.codecs import Format
from regions.media.silence import BEFORE_FRAMES, SENT_FRAMES, SilenceDiscard
from regions.wire import media as wire
from tests.support.edges import until
from tests.support.lone_edge import Backend, lone_edge
from voxplane import AsyncCaller
from voxplane.messages import is_silent, silence_of

INNER = Format("pcm16", 16_000)
QUIET = b"\0" * INNER.frame_bytes
LOUD = array.array("h", [round(9_000 * math.sin(i / 4)) for i in range(320)]).tobytes()


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200), st.booleans())
def test_of_a_backends_timeline_nothing_is_missing_and_no_voice_is_left_out(
    history: list[tuple[bool, bool]], listened: bool
) -> None:
    discard, sent_ms, loud_in, loud_out = SilenceDiscard(INNER), 0, 0, 0
    for i, (voice, loud) in enumerate(history):
        loud_in += loud and (voice or not listened)
        for part in discard.frame(LOUD if loud else QUIET, voice=voice if listened else None):
            sent_ms += part if isinstance(part, int) else 20
            loud_out += part == LOUD
        behind_ms = (i + 1) * 20 - sent_ms
        assert 0 <= behind_ms <= (BEFORE_FRAMES + 10) * 20
    assert loud_out >= loud_in, "what was heard as a voice is sent"


def test_the_end_of_a_word_is_sent_and_what_comes_before_one() -> None:
    discard = SilenceDiscard(INNER)
    sent = [discard.frame(QUIET, voice=False) for _ in range(SENT_FRAMES + BEFORE_FRAMES + 25)]
    assert [len(parts) for parts in sent[:SENT_FRAMES]] == [1] * SENT_FRAMES
    assert [p for parts in sent[SENT_FRAMES:] for p in parts] == [200, 200]
    assert discard.frame(LOUD, voice=True) == [100, *[QUIET] * BEFORE_FRAMES, LOUD]
    assert discard.discarded_frames == 25


async def test_a_caller_that_says_so_sends_no_silence_and_gets_none(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as made:
        async with AsyncCaller(
            edge.ticket(made.url), encoding="mulaw", sample_rate=8_000, discard_silence=True
        ) as caller:
            await until(lambda: made.starts, "the backend")
            before, loud = len(made.got), b"\x10\x90" * 80
            for samples in (loud, b"\xff" * 160, loud):
                for _ in range(40):
                    await caller.send(samples)
                    await asyncio.sleep(0.02)
            # a key goes to the backend behind all that was sent it until then, however late it reads
            await caller.dtmf("5")
            await until(lambda: any(m["event"] == "dtmf" for m in made.got), "the key")
            given = [m["event"] for m in made.got[before:]]
            assert given.index("dtmf") >= 110, "fifty a second, silent or not"
            # the agent: half of it is silence, which is heard as long as it was
            said = base64.b64encode(loud * 20 + b"\xff" * 160 * 30).decode()
            await made.sockets[0].send(json.dumps({"event": "media", "media": {"payload": said}}))
            frames = [await caller.receive() for _ in range(50)]
            assert [f.samples == loud for f in frames if f] == [True] * 20 + [False] * 30
            assert [f.offset_ms for f in frames if f] == list(range(0, 1_000, 20))
            assert {len(f.samples) for f in frames if f} == {160}
            await caller.hangup()
            await until(lambda: edge.log.of("call.ended"), "the end")
        [ended] = edge.log.of("call.ended")
        # 40 frames of the caller's, two of them told of, and the samples of 30 of the agent's
        assert ended["usage"]["caller_saved_bytes"] == 38 * 180 + 2 * 160 + 30 * 160
        assert ended["quality"]["up"]["loss"] == 0
        assert edge.errors == []


async def test_who_has_not_said_so_is_refused_a_frame_without_samples(tmp_path: Path) -> None:
    async with (
        lone_edge(tmp_path) as edge,
        Backend().run() as made,
        edge.caller(edge.ticket(made.url)) as caller,
    ):
        stamp = (await caller.hear("attached"))["stamp"]
        empty = wire.pack(b"", sequence=1, stamp=stamp, utterance=0, offset_ms=0, flags=wire.FLAG_SILENCE)
        await caller.socket.send(empty)
        assert (await caller.hear("refused"))["code"] == "bad_frame"


async def test_a_native_backend_that_asks_is_told_of_silence_instead(tmp_path: Path) -> None:
    got: list[bytes | str] = []

    async def backend(socket: ServerConnection) -> None:
        got.append(await socket.recv())
        await socket.send('{"type":"silence"}')
        async for message in socket:
            got.append(message)  # noqa: PERF401  each as it comes

    async with lone_edge(tmp_path) as edge, serve(backend, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
        async with AsyncCaller(edge.ticket(url, agent={"dialect": "native"})) as caller:
            await until(lambda: got, "the start")

            def told_ms() -> int:
                said = [json.loads(m) for m in got if isinstance(m, str)]
                return sum(m["data"]["ms"] for m in said if m["type"] == "silence")

            await until(lambda: told_ms() >= 600, "silence, in words")
            assert sum(isinstance(m, bytes) for m in got) <= SENT_FRAMES + 5
            await caller.hangup()
            await until(lambda: edge.log.of("call.ended"), "the end")
        usage = edge.log.of("call.ended")[0]["usage"]
        assert usage["agent_saved_bytes"] >= 600 // 20 * 640
        assert usage["silence_saved_bytes"] == usage["agent_saved_bytes"] + usage["caller_saved_bytes"]


def test_what_the_library_takes_for_silence() -> None:
    for encoding in ("pcm16", "mulaw"):
        silence = silence_of(encoding, 16_000)
        assert is_silent(silence, silence)
    assert len(silence_of("pcm16", 16_000)) == 640
    assert is_silent(array.array("h", [16, -16] * 160).tobytes(), QUIET)
    assert not is_silent(array.array("h", [17] + [0] * 319).tobytes(), QUIET)
    assert not is_silent(b"\xff" * 159 + b"\x10", b"\xff" * 160)


def test_an_answer_asks_for_no_silence_once() -> None:
    sdp = (
        "m=audio 9 X 111\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=mid:0\r\n"
    )
    asked = without_silence(sdp)
    assert asked == sdp.replace("useinbandfec=1", "useinbandfec=1;usedtx=1")
    assert without_silence(asked) == asked
    assert without_silence("v=0\r\n") == "v=0\r\n"
