"""`voxplane.agent.v1`, the native dialect: audio in binary messages, everything else as JSON. Pure.

Made for what the telephone dialects cannot say: wide-band audio, utterances that have names and are taken up where the caller
stopped hearing them, turns, transcripts and tools without an extension, a hang-up with its reason. Described for
implementers in docs/reference/agent-native.md.
"""

from __future__ import annotations

from typing import Any

import msgspec

from regions.agents.dialect import (
    CLEAR,
    MARK_NAME_MAX,
    REASON_CHARS_MAX,
    UNKNOWN,
    AgentAudio,
    AgentHangup,
    AgentMark,
    AgentSilence,
    AgentText,
    AgentUtterance,
    FromAgent,
    Start,
)
from regions.agents.recollection import conversation_parameter
from regions.media.codecs import FRAME_MS, Format

PROTOCOL = "voxplane.agent.v1"
CONVERSATION_BYTES_MAX = 32 * 1024
ID_CHARS_MAX = 64
OFFSET_MS_MAX = 24 * 3_600_000
SAID = (
    "transcript.partial",
    "transcript.final",
    "turn.ended",
    "tool.called",
    "tool.result",
    "conversation.get",
    "turn.timing",
)


class _Incoming(msgspec.Struct):
    type: str
    id: str = ""
    name: str = ""
    reason: str = ""
    offset_ms: int = 0
    discard: bool = True
    data: msgspec.Raw = msgspec.Raw(b"{}")


_decoder = msgspec.json.Decoder(_Incoming)


class NativeDialect:
    __slots__ = ("format",)

    binary = True
    speaks_text = True

    def __init__(self, *, rate_hz: int = 16_000) -> None:
        self.format = Format("pcm16", rate_hz)

    def opening(self, start: Start) -> list[bytes]:
        message: dict[str, Any] = {
            "type": "start",
            "protocol": PROTOCOL,
            "call": start.call,
            "epoch": start.epoch,
            "resumed": start.resumed,
            "audio": {
                "encoding": self.format.encoding,
                "sample_rate": self.format.rate_hz,
                "channels": 1,
                "frame_ms": FRAME_MS,
            },
            "from": start.from_number,
            "to": start.to_number,
            "parameters": start.parameters,
        }
        if start.turns is not None:
            message["conversation"] = msgspec.Raw(
                conversation_parameter(start.turns, CONVERSATION_BYTES_MAX).encode()
            )
        if start.cut is not None:
            message["cut"] = {"id": start.cut.id, "offset_ms": start.cut.offset_ms}
        return [msgspec.json.encode(message)]

    def audio(self, frame: bytes) -> bytes:
        return frame

    def dtmf(self, digit: str) -> bytes:
        return self.text("dtmf", {"digit": digit})

    def mark(self, name: str) -> bytes:
        return self.text("mark", {"name": name})

    def text(self, type_: str, data: object) -> bytes:
        return msgspec.json.encode({"type": type_, "data": data})

    def stop(self) -> bytes:
        return b'{"type":"stop"}'

    def read(self, message: bytes, *, binary: bool) -> FromAgent:
        if binary:
            return AgentAudio(message) if message else UNKNOWN
        try:
            incoming = _decoder.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return UNKNOWN
        match incoming.type:
            case "utterance" if 0 <= incoming.offset_ms <= OFFSET_MS_MAX:
                return AgentUtterance(incoming.id[:ID_CHARS_MAX], incoming.offset_ms)
            case "mark":
                return AgentMark(incoming.name[:MARK_NAME_MAX])
            case "clear":
                return CLEAR
            case "silence":
                return AgentSilence(incoming.discard)
            case "hangup":
                return AgentHangup(incoming.reason[:REASON_CHARS_MAX])
            case said if said in SAID:
                return AgentText(said, bytes(incoming.data))
        return UNKNOWN
