"""FreJun Teler's call stream, and our text extension on the same socket. Pure.

`start`, then `audio` of PCM16 at 8 or 16 kHz; there is no stop: whoever is done closes. A backend may name its chunks and take
one back (`interrupt`), or all of them (`clear`); `message_id` counts from 1. Several base64 texts that a bridge has joined are read
one by one. What is ours stands in `voxplane` of `start`, and in messages of that type.
"""

from __future__ import annotations

from typing import Any

import msgspec

from regions.agents.dialect import (
    CLEAR,
    NOTHING,
    UNKNOWN,
    AgentAudio,
    AgentClear,
    FromAgent,
    Start,
    decode_payload,
    encode_payload,
    said,
)
from regions.media.codecs import Format
from regions.media.playout import chunk

NO_NAME = msgspec.Raw(b"null")
NAME_BYTES_MAX = 64


class _Audio(msgspec.Struct):
    audio_b64: str = ""
    chunk_id: msgspec.Raw = NO_NAME


class _Incoming(msgspec.Struct):
    type: str
    audio_b64: str = ""
    chunk_id: msgspec.Raw = NO_NAME
    event: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")


_incoming = msgspec.json.Decoder(_Incoming)
_nested = msgspec.json.Decoder(_Audio)


class TelerDialect:
    """`chunk_ms`: how much audio one message carries, 20 to 2,000 ms, a multiple of 20."""

    __slots__ = ("_call", "_chunk_frames", "_frames", "_message_id", "_project", "format", "stream_id")

    binary = False
    speaks_text = False

    def __init__(
        self, *, stream_id: str, project: str, call: str, rate_hz: int = 8_000, chunk_ms: int = 20
    ) -> None:
        self.format = Format("pcm16", rate_hz)
        self.stream_id = stream_id
        self._project = project
        self._call = call
        self._message_id = 0
        self._chunk_frames = max(1, chunk_ms // 20)
        self._frames: list[bytes] = []

    def opening(self, start: Start) -> list[bytes]:
        message: dict[str, Any] = {
            "type": "start",
            "account_id": self._project,
            "call_app_id": self._project,
            "call_id": self._call,
            "stream_id": self.stream_id,
            "message_id": self._next(),
            "data": {"encoding": "audio/l16", "sample_rate": self.format.rate_hz, "channels": 1},
            "voxplane": start.flat(),
        }
        return [msgspec.json.encode(message)]

    def audio(self, frame: bytes) -> bytes:
        self._frames.append(frame)
        if len(self._frames) < self._chunk_frames:
            return NOTHING
        samples, self._frames = b"".join(self._frames), []
        return msgspec.json.encode(
            {
                "type": "audio",
                "stream_id": self.stream_id,
                "message_id": self._next(),
                "data": {"audio_b64": encode_payload(samples).decode()},
            }
        )

    def dtmf(self, digit: str) -> bytes:
        return self.text("dtmf", {"digit": digit})

    def mark(self, name: str) -> bytes:
        return NOTHING

    def stop(self) -> bytes:
        return NOTHING

    def text(self, type_: str, data: object) -> bytes:
        return msgspec.json.encode(
            {"type": "voxplane", "stream_id": self.stream_id, "event": type_, "data": data}
        )

    def read(self, message: bytes, *, binary: bool) -> FromAgent:
        try:
            incoming = _incoming.decode(message)
            match incoming.type:
                case "audio":
                    return _audio(incoming if incoming.audio_b64 else _nested.decode(incoming.data))
                case "clear":
                    return CLEAR
                case "interrupt":
                    return AgentClear(
                        _name(incoming.chunk_id) or _name(_nested.decode(incoming.data).chunk_id)
                    )
                case "voxplane" if incoming.event:
                    return said(incoming.event, bytes(incoming.data))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        return UNKNOWN

    def _next(self) -> int:
        self._message_id += 1
        return self._message_id


def _audio(given: _Incoming | _Audio) -> FromAgent:
    samples = decode_payload(given.audio_b64)
    if not samples:
        return UNKNOWN
    name = _name(given.chunk_id)
    return AgentAudio(samples if name is None else chunk(samples, name))


def _name(chunk_id: msgspec.Raw) -> bytes | None:
    """Of a chunk: whatever JSON it is, as it was written. One that is too long is none."""
    name = bytes(chunk_id)
    return name if name != b"null" and len(name) <= NAME_BYTES_MAX else None
