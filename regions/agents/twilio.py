"""Twilio Media Streams, and our text extension on the same socket. Pure: messages to text and back.

Exact to the string and number types: counters and timestamps are decimal strings, `sampleRate` and `channels` numbers
(twilio.com/docs/voice/media-streams/websocket-messages). Frames are 20 ms of mu-law; the timeline has no holes. What a
backend sends is never trusted to be well formed: it decodes to something, or to `AgentUnknown`.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

import msgspec

from regions.wire.snapshot import Turn

CONVERSATION_BYTES_MAX = 4_096
TURN_BYTES_MAX = 1_024
"""One turn of the conversation; a longer one is cut, so that it does not push out all the others."""
TURN_CHARS_MAX = 160
MARK_NAME_MAX = 256
_PADDED_JOINT = re.compile(rb"=+(?=[A-Za-z0-9+/])")


@dataclass(frozen=True, slots=True)
class AgentMedia:
    ulaw: bytes


@dataclass(frozen=True, slots=True)
class AgentMark:
    name: str


@dataclass(frozen=True, slots=True)
class AgentClear:
    pass


@dataclass(frozen=True, slots=True)
class AgentText:
    """A message of the extension: `type` and its data as raw JSON."""

    type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class AgentUnknown:
    pass


FromAgent = AgentMedia | AgentMark | AgentClear | AgentText | AgentUnknown
UNKNOWN = AgentUnknown()
CLEAR = AgentClear()


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
    """Never raises."""
    try:
        incoming = _decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return UNKNOWN
    match incoming.event:
        case "media" if incoming.media is not None:
            ulaw = decode_payload(incoming.media.payload)
            return AgentMedia(ulaw) if ulaw else UNKNOWN
        case "mark":
            return AgentMark(incoming.mark.name[:MARK_NAME_MAX] if incoming.mark else "")
        case "clear":
            return CLEAR
        case "voxplane" if incoming.type:
            return AgentText(incoming.type, bytes(incoming.data))
    return UNKNOWN


def decode_payload(payload: str) -> bytes:
    """Base64, also where several padded pieces were glued together; empty where it is not base64."""
    raw = payload.encode("ascii", "replace")
    try:
        if b"=" not in raw[:-2]:
            return binascii.a2b_base64(raw, strict_mode=True)
        pieces = _PADDED_JOINT.sub(lambda m: m.group() + b" ", raw).split(b" ")
        return b"".join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)
    except binascii.Error:
        return b""


class TwilioDialect:
    """One stream's outgoing messages, numbered as they are made."""

    __slots__ = ("_chunk", "_sequence", "_sid", "account_sid", "call_sid", "stream_sid")

    def __init__(self, *, stream_sid: str, account_sid: str, call_sid: str) -> None:
        self.stream_sid = stream_sid
        self.account_sid = account_sid
        self.call_sid = call_sid
        self._sequence = 0
        self._chunk = 0
        self._sid = msgspec.json.encode(stream_sid).decode()

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def connected(self) -> bytes:
        return b'{"event":"connected","protocol":"Call","version":"1.0.0"}'

    def start(self, parameters: dict[str, str]) -> bytes:
        return msgspec.json.encode(
            {
                "event": "start",
                "sequenceNumber": str(self._next()),
                "streamSid": self.stream_sid,
                "start": {
                    "streamSid": self.stream_sid,
                    "accountSid": self.account_sid,
                    "callSid": self.call_sid,
                    "tracks": ["inbound"],
                    "customParameters": parameters,
                    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                },
            }
        )

    def media(self, ulaw: bytes) -> bytes:
        sequence, chunk = self._next(), self._chunk
        self._chunk += 1
        return (
            (
                f'{{"event":"media","sequenceNumber":"{sequence}","streamSid":{self._sid},"media":{{"track":"inbound",'
                f'"chunk":"{chunk + 1}","timestamp":"{chunk * 20}","payload":"'
            ).encode()
            + binascii.b2a_base64(ulaw, newline=False)
            + b'"}}'
        )

    def dtmf(self, digit: str) -> bytes:
        return msgspec.json.encode(
            {
                "event": "dtmf",
                "sequenceNumber": str(self._next()),
                "streamSid": self.stream_sid,
                "dtmf": {"track": "inbound_track", "digit": digit},
            }
        )

    def mark(self, name: str) -> bytes:
        return msgspec.json.encode(
            {
                "event": "mark",
                "sequenceNumber": str(self._next()),
                "streamSid": self.stream_sid,
                "mark": {"name": name},
            }
        )

    def stop(self) -> bytes:
        return msgspec.json.encode(
            {
                "event": "stop",
                "sequenceNumber": str(self._next()),
                "streamSid": self.stream_sid,
                "stop": {"accountSid": self.account_sid, "callSid": self.call_sid},
            }
        )

    def text(self, type_: str, data: object) -> bytes:
        return msgspec.json.encode(
            {"event": "voxplane", "streamSid": self.stream_sid, "type": type_, "data": data}
        )


def sid(prefix: str, seed: bytes) -> str:
    """A Twilio-like sid: two letters and 32 hex digits."""
    return prefix + base64.b16encode(seed[:16]).decode().lower()


def conversation_parameter(turns: list[Turn]) -> str:
    """`voxplane_conversation`: JSON of at most 4 KB; the oldest turns are the first to be left out, and it says so."""
    kept: list[bytes] = []
    size = len(b'{"turns":[],"truncated":true}')
    truncated = False
    for turn in reversed(turns):
        encoded = _turn_json(turn)
        if len(encoded) > TURN_BYTES_MAX:
            encoded, truncated = _turn_json(_cut(turn)), True
        if size + len(encoded) + 1 > CONVERSATION_BYTES_MAX:
            truncated = True
            break
        size += len(encoded) + 1
        kept.append(encoded)
    kept.reverse()
    return (b'{"turns":[' + b",".join(kept) + (b'],"truncated":true}' if truncated else b"]}")).decode()


def _cut(turn: Turn) -> Turn:
    """The end of what was said; of a tool, that it was called."""
    if turn.role != "tool":
        return msgspec.structs.replace(turn, text="…" + turn.text[-TURN_CHARS_MAX:])
    name, number = (turn.name or "")[:TURN_CHARS_MAX], (turn.id or "")[:TURN_CHARS_MAX]
    return msgspec.structs.replace(turn, name=name, id=number, arguments=None, result=None)


def _turn_json(turn: Turn) -> bytes:
    if turn.role == "tool":
        tool: dict[str, object] = {
            "role": "tool",
            "id": turn.id,
            "name": turn.name,
            "arguments": turn.arguments,
            "result": turn.result,
        }
        if turn.key is not None:
            tool["key"] = turn.key
        if turn.done:
            tool["done"] = True
        return msgspec.json.encode(tool)
    said: dict[str, object] = {"role": turn.role, "text": turn.text}
    if turn.interrupted:
        said["interrupted"] = True
    return msgspec.json.encode(said)
