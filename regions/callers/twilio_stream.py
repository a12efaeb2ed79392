"""What a caller that speaks Twilio Media Streams says, and what it is told. Pure: messages to text and back.

The other end of `regions.agents.twilio`'s: Twilio's ``<Stream>`` dials, and sends `connected`, `start`, `media`, `dtmf`, `mark` and
`stop` (twilio.com/docs/voice/media-streams/websocket-messages). The ticket comes in the path, or in custom parameters; Twilio takes
500 characters in one, so it may be cut in parts: `ticket`, or `ticket_1`, `ticket_2`, … in order.

Marks are how it says what it has played: each of ours names what was sent before it, and the stamp of that moment. It comes back when
it has been played, and also when it was passed over by a `clear`: what is behind the clear says nothing of what was heard.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import msgspec

from regions.agents.dialect import decode_payload
from regions.wire.media import Position

PARTS_MAX = 16
TICKET_CHARS_MAX = 16 * 1024
MARK = "vx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """`ticket`: empty where the parameters have none. `fault`: what of the media it cannot be taken with."""

    stream: str
    ticket: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Audio:
    chunk: int
    samples: bytes


@dataclass(frozen=True, slots=True)
class Played:
    """A mark of ours has come back."""

    stamp: int
    at: Position


@dataclass(frozen=True, slots=True)
class Key:
    digit: str


@dataclass(frozen=True, slots=True)
class Stopped:
    pass


@dataclass(frozen=True, slots=True)
class Ignored:
    """Known and without meaning here, or unknown."""


FromStream = Begun | Audio | Played | Key | Stopped | Ignored
IGNORED, STOPPED = Ignored(), Stopped()


class _Format(msgspec.Struct, rename="camel", frozen=True):
    encoding: str = ""
    sample_rate: int = 0
    channels: int = 1


class _Start(msgspec.Struct, rename="camel"):
    stream_sid: str = ""
    custom_parameters: dict[str, str] = {}
    media_format: _Format = _Format()


class _Media(msgspec.Struct):
    payload: str = ""
    track: str = "inbound"
    chunk: str = ""


class _Mark(msgspec.Struct):
    name: str = ""


class _Dtmf(msgspec.Struct):
    digit: str = ""


class _Message(msgspec.Struct, rename="camel"):
    event: str
    stream_sid: str = ""
    start: _Start | None = None
    media: _Media | None = None
    mark: _Mark | None = None
    dtmf: _Dtmf | None = None


_decoder = msgspec.json.Decoder(_Message)


def read(message: bytes) -> FromStream | None:
    """None where it is not of this protocol at all."""
    try:
        said = _decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    match said.event:
        case "start" if said.start is not None:
            return _begun(said.start, said.stream_sid)
        case "media" if said.media is not None and said.media.track == "inbound":
            samples = decode_payload(said.media.payload)
            chunk = said.media.chunk
            number = int(chunk) if chunk.isascii() and chunk.isdigit() and len(chunk) < 12 else 0
            return Audio(number, samples) if samples else IGNORED
        case "mark" if said.mark is not None:
            return _played(said.mark.name)
        case "dtmf" if said.dtmf is not None:
            return Key(said.dtmf.digit)
        case "stop":
            return STOPPED
    return IGNORED


def media(stream: str, samples: bytes) -> bytes:
    payload = base64.b64encode(samples).decode()
    return msgspec.json.encode({"event": "media", "streamSid": stream, "media": {"payload": payload}})


def mark(stream: str, stamp: int, at: Position) -> bytes:
    name = f"{MARK}.{stamp}.{at.utterance}.{at.offset_ms}"
    return msgspec.json.encode({"event": "mark", "streamSid": stream, "mark": {"name": name}})


def clear(stream: str) -> bytes:
    return msgspec.json.encode({"event": "clear", "streamSid": stream})


def _begun(start: _Start, stream: str) -> Begun:
    made, fault = start.media_format, ""
    if (made.encoding, made.sample_rate, made.channels) != ("audio/x-mulaw", 8_000, 1):
        fault = "audio/x-mulaw at 8000 Hz in one channel is what is taken"
    given = start.custom_parameters
    parts = [given.get("ticket", "")] + [given.get(f"ticket_{i}", "") for i in range(1, PARTS_MAX + 1)]
    ticket = "".join(parts)[: TICKET_CHARS_MAX + 1]
    return Begun(stream=start.stream_sid or stream, ticket=ticket, fault=fault)


def _played(name: str) -> FromStream:
    ours, *numbers = name.split(".")
    if (
        ours != MARK
        or len(numbers) != 3
        or not all(n.isascii() and n.isdigit() and len(n) < 20 for n in numbers)
    ):
        return IGNORED
    stamp, utterance, offset_ms = map(int, numbers)
    return Played(stamp, Position(utterance=utterance, offset_ms=offset_ms))
