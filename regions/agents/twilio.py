"""Twilio Media Streams, and our text extension on the same socket. Pure: messages to text and back.

Exact to the string and number types: counters and timestamps are decimal strings, `sampleRate` and `channels` numbers
(twilio.com/docs/voice/media-streams/websocket-messages). Frames are 20 ms of mu-law; the timeline has no holes. What a
backend sends is never trusted to be well formed: it decodes to something, or to `AgentUnknown`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from regions.agents.dialect import (
    CLEAR,
    MARK_NAME_MAX,
    UNKNOWN,
    AgentAudio,
    AgentMark,
    FromAgent,
    Start,
    decode_payload,
    encode_payload,
    said,
)
from regions.media.codecs import ULAW_8K, Format


class _Media(msgspec.Struct):
    payload: str = ""


class _Mark(msgspec.Struct):
    name: str = ""


class _Incoming(msgspec.Struct):
    event: str
    media: _Media | None = None
    mark: _Mark | None = None
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")


_decoder = msgspec.json.Decoder(_Incoming)


def decode(message: bytes) -> FromAgent:
    """Never raises. Also Exotel's, whose messages have the same names."""
    try:
        incoming = _decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return UNKNOWN
    match incoming.event:
        case "media" if incoming.media is not None:
            samples = decode_payload(incoming.media.payload)
            return AgentAudio(samples) if samples else UNKNOWN
        case "mark":
            return AgentMark(incoming.mark.name[:MARK_NAME_MAX] if incoming.mark else "")
        case "clear":
            return CLEAR
        case "voxplane" if incoming.type:
            return said(incoming.type, bytes(incoming.data))
    return UNKNOWN


class TwilioDialect:
    """One stream's outgoing messages, numbered as they are made."""

    __slots__ = ("_chunk", "_sequence", "_sid", "account_sid", "call_sid", "stream_sid")

    format: Format = ULAW_8K
    binary = False
    speaks_text = False

    def __init__(self, *, stream_sid: str, account_sid: str, call_sid: str) -> None:
        self.stream_sid = stream_sid
        self.account_sid = account_sid
        self.call_sid = call_sid
        self._sequence = 0
        self._chunk = 0
        self._sid = msgspec.json.encode(stream_sid).decode()

    def opening(self, start: Start) -> list[bytes]:
        return [b'{"event":"connected","protocol":"Call","version":"1.0.0"}', self._start(start.flat())]

    def _start(self, parameters: dict[str, str]) -> bytes:
        started = {
            "streamSid": self.stream_sid,
            "accountSid": self.account_sid,
            "callSid": self.call_sid,
            "tracks": ["inbound"],
            "customParameters": parameters,
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        }
        return self._message("start", started)

    def audio(self, frame: bytes) -> bytes:
        sequence, chunk = self._next(), self._chunk
        self._chunk += 1
        return (
            (
                f'{{"event":"media","sequenceNumber":"{sequence}","streamSid":{self._sid},"media":{{"track":"inbound",'
                f'"chunk":"{chunk + 1}","timestamp":"{chunk * 20}","payload":"'
            ).encode()
            + encode_payload(frame)
            + b'"}}'
        )

    def dtmf(self, digit: str) -> bytes:
        return self._message("dtmf", {"track": "inbound_track", "digit": digit})

    def mark(self, name: str) -> bytes:
        return self._message("mark", {"name": name})

    def stop(self) -> bytes:
        return self._message("stop", {"accountSid": self.account_sid, "callSid": self.call_sid})

    def text(self, type_: str, data: object) -> bytes:
        return msgspec.json.encode(
            {"event": "voxplane", "streamSid": self.stream_sid, "type": type_, "data": data}
        )

    def read(self, message: bytes, *, binary: bool) -> FromAgent:
        return decode(message)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _message(self, event: str, body: Mapping[str, object]) -> bytes:
        return msgspec.json.encode(
            {
                "event": event,
                "sequenceNumber": str(self._next()),
                "streamSid": self.stream_sid,
                event: body,
            }
        )
