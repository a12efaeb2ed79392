"""Exotel's AgentStream (the voicebot applet), and our text extension on the same socket. Pure.

Messages have Twilio's names in snake case; sequence numbers and chunks are numbers, `timestamp` is a string; audio is PCM16 at
8, 16 or 24 kHz in messages of 100 ms (developer.exotel.com/docs/agentstream/stream-voicebot-applet). So a backend hears the
caller up to 80 ms later than in dialects of 20 ms.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from regions.agents.dialect import NOTHING, FromAgent, Start, encode_payload
from regions.agents.twilio import decode
from regions.media.codecs import FRAME_MS, Format

CHUNK_FRAMES = 5
OURS = ("from_number", "to_number")


class ExotelDialect:
    __slots__ = ("_chunk", "_frames", "_sequence", "account_sid", "call_sid", "format", "stream_sid")

    binary = False
    speaks_text = False

    def __init__(self, *, stream_sid: str, account_sid: str, call_sid: str, rate_hz: int = 8_000) -> None:
        self.stream_sid = stream_sid
        self.account_sid = account_sid
        self.call_sid = call_sid
        self.format = Format("pcm16", rate_hz)
        self._sequence = 0
        self._chunk = 0
        self._frames: list[bytes] = []

    def opening(self, start: Start) -> list[bytes]:
        rate_hz = self.format.rate_hz
        started = {
            "stream_sid": self.stream_sid,
            "call_sid": self.call_sid,
            "account_sid": self.account_sid,
            "from": start.from_number,
            "to": start.to_number,
            "custom_parameters": {k: v for k, v in start.flat().items() if k not in OURS},
            "media_format": {
                "encoding": "base64",
                "sample_rate": str(rate_hz),
                "bit_rate": f"{rate_hz * 16 // 1000}kbps",
            },
        }
        return [b'{"event":"connected"}', self._message("start", started)]

    def audio(self, frame: bytes) -> bytes:
        self._frames.append(frame)
        if len(self._frames) < CHUNK_FRAMES:
            return NOTHING
        samples, self._frames = b"".join(self._frames), []
        self._chunk += 1
        body = {
            "chunk": self._chunk,
            "timestamp": str((self._chunk - 1) * CHUNK_FRAMES * FRAME_MS),
            "payload": encode_payload(samples).decode(),
        }
        return self._message("media", body)

    def dtmf(self, digit: str) -> bytes:
        return self._message("dtmf", {"duration": "100", "digit": digit})

    def mark(self, name: str) -> bytes:
        return self._message("mark", {"name": name})

    def stop(self) -> bytes:
        body = {"call_sid": self.call_sid, "account_sid": self.account_sid, "reason": "callended"}
        return self._message("stop", body)

    def text(self, type_: str, data: object) -> bytes:
        return msgspec.json.encode(
            {"event": "voxplane", "stream_sid": self.stream_sid, "type": type_, "data": data}
        )

    def read(self, message: bytes, *, binary: bool) -> FromAgent:
        return decode(message)

    def _message(self, event: str, body: Mapping[str, object]) -> bytes:
        self._sequence += 1
        return msgspec.json.encode(
            {"event": event, "sequence_number": self._sequence, "stream_sid": self.stream_sid, event: body}
        )
