"""Exotel, Teler and the native dialect: what a backend gets and may send, and what holds for every dialect."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regions.agents.dialect import (
    CLEAR,
    UNKNOWN,
    AgentAudio,
    AgentClear,
    AgentHangup,
    AgentMark,
    AgentText,
    AgentUtterance,
    Cut,
    Dialect,
    Start,
)
from regions.agents.exotel import ExotelDialect
from regions.agents.native import NativeDialect
from regions.agents.speaking import dialect_of, format_of
from regions.agents.teler import TelerDialect
from regions.media.playout import Chunk
from regions.wire.ids import CALL, PROJECT, encode, uuid7
from regions.wire.snapshot import Turn
from regions.wire.ticket import DIALECT_RATES_HZ, Agent

FRAME = bytes(range(160)) * 2
CALL_ID = encode(CALL, uuid7(1, 2))
PROJECT_ID = encode(PROJECT, uuid7(3, 4))
START = Start(
    call=CALL_ID,
    epoch=2,
    from_number="+14155550100",
    to_number="+14155550101",
    parameters={"shop": "42"},
    turns=[Turn(role="caller", text="hello")],
)
OURS = {
    "shop": "42",
    "voxplane_call": CALL_ID,
    "voxplane_epoch": "2",
    "voxplane_resumed": "true",
    "voxplane_conversation": '{"turns":[{"role":"caller","text":"hello"}]}',
}


def made(dialect: str, rate_hz: int = 0) -> Dialect:
    agent = Agent(url="wss://x", dialect=dialect, sample_rate=rate_hz)
    return dialect_of(agent, stream_sid="MZ1", project=PROJECT_ID, call=CALL_ID)


def read(messages: list[bytes]) -> list[Any]:
    return [json.loads(m) for m in messages]


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# ------------------------------------------------------------------------------------------------------ exotel


def test_exotel_to_the_letter() -> None:
    d = ExotelDialect(stream_sid="s1", account_sid="AC1", call_sid="CA1")
    sent = d.opening(START) + [d.audio(FRAME) for _ in range(5)]
    assert sent[2:6] == [b""] * 4
    assert read(sent[:2] + sent[6:] + [d.dtmf("5"), d.mark("m"), d.stop()]) == [
        {"event": "connected"},
        {
            "event": "start", "sequence_number": 1, "stream_sid": "s1",
            "start": {
                "stream_sid": "s1", "call_sid": "CA1", "account_sid": "AC1", "from": "+14155550100", "to": "+14155550101",
                "custom_parameters": OURS, "media_format": {"encoding": "base64", "sample_rate": "8000", "bit_rate": "128kbps"},
            },
        },
        {
            "event": "media", "sequence_number": 2, "stream_sid": "s1",
            "media": {"chunk": 1, "timestamp": "0", "payload": b64(FRAME * 5)},
        },
        {"event": "dtmf", "sequence_number": 3, "stream_sid": "s1", "dtmf": {"duration": "100", "digit": "5"}},
        {"event": "mark", "sequence_number": 4, "stream_sid": "s1", "mark": {"name": "m"}},
        {
            "event": "stop", "sequence_number": 5, "stream_sid": "s1",
            "stop": {"call_sid": "CA1", "account_sid": "AC1", "reason": "callended"},
        },
    ]  # fmt: skip


def test_exotel_counts_its_chunks_of_a_tenth_of_a_second() -> None:
    d = ExotelDialect(stream_sid="s1", account_sid="AC1", call_sid="CA1")
    media = read([m for _ in range(10) if (m := d.audio(FRAME))])
    assert [(m["media"]["chunk"], m["media"]["timestamp"]) for m in media] == [(1, "0"), (2, "100")]


# ------------------------------------------------------------------------------------------------------- teler


def test_teler_to_the_letter() -> None:
    d = TelerDialect(stream_id="s1", project="prj_1", call="call_1", rate_hz=16_000)
    assert read([*d.opening(START), d.audio(FRAME)]) == [
        {
            "type": "start", "account_id": "prj_1", "call_app_id": "prj_1", "call_id": "call_1", "stream_id": "s1", "message_id": 1,
            "data": {"encoding": "audio/l16", "sample_rate": 16000, "channels": 1},
            "voxplane": {"from_number": "+14155550100", "to_number": "+14155550101", **OURS},
        },
        {"type": "audio", "stream_id": "s1", "message_id": 2, "data": {"audio_b64": b64(FRAME)}},
    ]  # fmt: skip
    assert (d.mark("m"), d.stop()) == (b"", b"")
    assert d.format.rate_hz == 16_000


def test_teler_gathers_as_much_as_a_chunk_is_long() -> None:
    d = TelerDialect(stream_id="s1", project="p", call="c", chunk_ms=60)
    assert [bool(d.audio(FRAME)) for _ in range(6)] == [False, False, True] * 2


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        ({"type": "audio", "audio_b64": b64(b"abc"), "chunk_id": 1}, AgentAudio(b"abc")),
        ({"type": "audio", "data": {"audio_b64": b64(b"abc"), "chunk_id": 1}}, AgentAudio(b"abc")),
        ({"type": "audio", "audio_b64": b64(b"a") + b64(b"bc")}, AgentAudio(b"abc")),
        ({"type": "audio", "audio_b64": b64(b"abc"), "chunk_id": "x" * 100}, AgentAudio(b"abc")),
        ({"type": "clear"}, CLEAR),
        ({"type": "interrupt", "chunk_id": 1}, AgentClear(b"1")),
        ({"type": "interrupt", "data": {"chunk_id": "a"}}, AgentClear(b'"a"')),
        ({"type": "interrupt"}, CLEAR),
        (
            {"type": "voxplane", "event": "turn.ended", "data": {"role": "agent"}},
            AgentText("turn.ended", b'{"role": "agent"}'),
        ),
        ({"type": "voxplane"}, UNKNOWN),
        ({"type": "audio"}, UNKNOWN),
        ({"type": "audio", "data": [1]}, UNKNOWN),
        ({"type": "audio", "audio_b64": "!"}, UNKNOWN),
        ({"type": 1}, UNKNOWN),
        ([], UNKNOWN),
    ],
)
def test_what_a_teler_backend_may_send(message: Any, meaning: object) -> None:
    assert made("teler").read(json.dumps(message).encode(), binary=False) == meaning


@pytest.mark.parametrize("chunk_id", [7, "seven", -1.5])
def test_a_teler_backend_may_name_its_chunks(chunk_id: object) -> None:
    at_top = {"type": "audio", "audio_b64": b64(b"abc"), "chunk_id": chunk_id}
    nested = {"type": "audio", "data": {"audio_b64": b64(b"abc"), "chunk_id": chunk_id}}
    for message in (at_top, nested):
        heard = made("teler").read(json.dumps(message).encode(), binary=False)
        assert isinstance(heard, AgentAudio) and isinstance(heard.samples, Chunk)
        assert heard.samples.id == json.dumps(chunk_id).encode()


# ------------------------------------------------------------------------------------------------------ native


def test_native_to_the_letter() -> None:
    d = NativeDialect()
    first = Start(call="call_1", epoch=1, from_number="+14155550100", parameters={"shop": "42"})
    begun = {
        "type": "start", "protocol": "voxplane.agent.v1", "call": "call_1", "epoch": 1, "resumed": False,
        "audio": {"encoding": "pcm16", "sample_rate": 16000, "channels": 1, "frame_ms": 20},
        "from": "+14155550100", "to": "", "parameters": {"shop": "42"},
    }  # fmt: skip
    assert read(d.opening(first)) == [begun]
    again = Start(
        call="call_1", epoch=2, turns=[Turn(role="caller", text="hi")], cut=Cut(id="u7", offset_ms=2060)
    )
    assert read(d.opening(again)) == [
        begun | {
            "epoch": 2, "resumed": True, "from": "", "parameters": {},
            "conversation": {"turns": [{"role": "caller", "text": "hi"}]}, "cut": {"id": "u7", "offset_ms": 2060},
        }
    ]  # fmt: skip
    assert d.audio(FRAME) == FRAME
    assert read([d.mark("m"), d.dtmf("5"), d.text("speech.started", {"offset_ms": 40}), d.stop()]) == [
        {"type": "mark", "data": {"name": "m"}},
        {"type": "dtmf", "data": {"digit": "5"}},
        {"type": "speech.started", "data": {"offset_ms": 40}},
        {"type": "stop"},
    ]


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        ({"type": "utterance", "id": "u1"}, AgentUtterance("u1", 0)),
        ({"type": "utterance", "id": "u1", "offset_ms": 20}, AgentUtterance("u1", 20)),
        ({"type": "utterance", "id": "u" * 1000}, AgentUtterance("u" * 64, 0)),
        ({"type": "utterance", "id": "u1", "offset_ms": -1}, UNKNOWN),
        ({"type": "utterance", "id": "u1", "offset_ms": 10**12}, UNKNOWN),
        ({"type": "mark", "name": "m"}, AgentMark("m")),
        ({"type": "clear"}, CLEAR),
        ({"type": "hangup", "reason": "resolved"}, AgentHangup("resolved")),
        ({"type": "hangup"}, AgentHangup("")),
        ({"type": "tool.called", "data": {"id": "t"}}, AgentText("tool.called", b'{"id": "t"}')),
        ({"type": "call.ended", "data": {}}, UNKNOWN),
        ({"type": "start"}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_what_a_native_backend_may_send(message: Any, meaning: object) -> None:
    assert made("native").read(json.dumps(message).encode(), binary=False) == meaning


def test_native_audio_is_binary_and_nothing_else() -> None:
    assert made("native").read(b"{}", binary=True) == AgentAudio(b"{}")
    assert made("native").read(b"", binary=True) == UNKNOWN


# ------------------------------------------------------------------------------------------------------ all of them


@given(
    st.sampled_from(sorted(DIALECT_RATES_HZ)), st.binary(max_size=200) | st.text(max_size=200).map(str.encode)
)
def test_nothing_a_backend_sends_raises(dialect: str, message: bytes) -> None:
    made(dialect).read(message, binary=False)
    made(dialect).read(message, binary=True)


@pytest.mark.parametrize(
    ("dialect", "rate_hz"), [(d, r) for d, rates in DIALECT_RATES_HZ.items() for r in rates]
)
def test_a_dialect_runs_at_the_rate_that_was_asked_for(dialect: str, rate_hz: int) -> None:
    agent = Agent(url="wss://x", dialect=dialect, sample_rate=rate_hz)
    assert made(dialect, rate_hz).format == format_of(agent)
    assert format_of(agent).rate_hz == rate_hz
    assert len(format_of(agent).silence) == rate_hz // 50 * (1 if dialect == "twilio" else 2)
