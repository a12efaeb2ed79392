"""The Twilio dialect, to the letter: what an unmodified backend would see, and what it may send."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regions.agents.dialect import CLEAR, UNKNOWN, AgentAudio, AgentMark, AgentText, Start, decode_payload
from regions.agents.recollection import CONVERSATION_BYTES_MAX, conversation_parameter
from regions.agents.twilio import TwilioDialect, decode
from regions.wire.snapshot import Turn


def dialect() -> TwilioDialect:
    return TwilioDialect(stream_sid="MZ1", account_sid="AC1", call_sid="CA1")


def test_the_order_and_the_types_of_what_a_backend_gets() -> None:
    d = dialect()
    sent = [
        *d.opening(Start(call="c", epoch=1, parameters={"a": "b"})),
        d.audio(b"\xff" * 160),
        d.audio(b"\x00" * 160),
        d.dtmf("5"),
        d.mark("m"),
        d.stop(),
    ]
    silence, loud = base64.b64encode(b"\xff" * 160).decode(), base64.b64encode(b"\x00" * 160).decode()
    assert [json.loads(s) for s in sent] == [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {
            "event": "start", "sequenceNumber": "1", "streamSid": "MZ1",
            "start": {
                "streamSid": "MZ1", "accountSid": "AC1", "callSid": "CA1", "tracks": ["inbound"],
                "customParameters": {"a": "b", "voxplane_call": "c", "voxplane_epoch": "1", "voxplane_resumed": "false"},
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            },
        },
        {
            "event": "media", "sequenceNumber": "2", "streamSid": "MZ1",
            "media": {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": silence},
        },
        {
            "event": "media", "sequenceNumber": "3", "streamSid": "MZ1",
            "media": {"track": "inbound", "chunk": "2", "timestamp": "20", "payload": loud},
        },
        {"event": "dtmf", "sequenceNumber": "4", "streamSid": "MZ1", "dtmf": {"track": "inbound_track", "digit": "5"}},
        {"event": "mark", "sequenceNumber": "5", "streamSid": "MZ1", "mark": {"name": "m"}},
        {"event": "stop", "sequenceNumber": "6", "streamSid": "MZ1", "stop": {"accountSid": "AC1", "callSid": "CA1"}},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        (b'{"event":"media","streamSid":"MZ1","media":{"payload":"AAEC"}}', AgentAudio(b"\x00\x01\x02")),
        (b'{"event":"mark","mark":{"name":"x"}}', AgentMark("x")),
        (b'{"event":"mark","mark":{}}', AgentMark("")),
        (b'{"event":"mark"}', AgentMark("")),
        (b'{"event":"clear","streamSid":"MZ1"}', CLEAR),
        (
            b'{"event":"voxplane","type":"turn.ended","data":{"role":"agent"}}',
            AgentText("turn.ended", b'{"role":"agent"}'),
        ),
        (b'{"event":"voxplane","data":{}}', UNKNOWN),
        (b'{"event":"media"}', UNKNOWN),
        (b'{"event":"media","media":{"payload":"!!"}}', UNKNOWN),
        (b'{"event":"media","media":{"payload":5}}', UNKNOWN),
        (b'{"event":"stop"}', UNKNOWN),
        (b"{", UNKNOWN),
        (b"", UNKNOWN),
        (b"\xff\xfe", UNKNOWN),
        (b"[1]", UNKNOWN),
    ],
)
def test_what_a_backend_may_send(message: bytes, meaning: object) -> None:
    assert decode(message) == meaning


@given(st.binary(max_size=300))
def test_nothing_a_backend_sends_raises(message: bytes) -> None:
    decode(message)


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=6))
def test_glued_base64_is_decoded_whole(pieces: list[bytes]) -> None:
    assert decode_payload("".join(base64.b64encode(p).decode() for p in pieces)) == b"".join(pieces)


def test_the_conversation_stays_small_and_says_what_it_left_out() -> None:
    turns = [Turn(role="caller", text="x" * 300 + str(i)) for i in range(40)]
    text = conversation_parameter(turns)
    read = json.loads(text)
    assert len(text.encode()) <= CONVERSATION_BYTES_MAX
    assert read["truncated"] is True
    assert read["turns"][-1]["text"].endswith("39")
    tool = Turn(role="tool", id="t", name="look", arguments={"a": 1}, result=None)
    assert json.loads(conversation_parameter([tool, Turn(role="agent", text="hi", interrupted=True)])) == {
        "turns": [
            {"role": "tool", "id": "t", "name": "look", "arguments": {"a": 1}, "result": None},
            {"role": "agent", "text": "hi", "interrupted": True},
        ]
    }


def test_the_frames_json_is_what_a_json_library_would_write() -> None:
    sent = TwilioDialect(stream_sid='a"b', account_sid="x", call_sid="y").audio(b"\x01\x02")
    assert msgspec.json.decode(sent)["streamSid"] == 'a"b'
