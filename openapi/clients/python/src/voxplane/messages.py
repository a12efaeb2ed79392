"""``voxplane.media.v1`` as a caller speaks it: control is JSON text, audio binary with a header of 20 bytes.

The library stands alone, so this says again what the edge says of the same messages; a test holds the two together.
What an edge sends is never trusted to be well formed: it is read to something, or to None.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import msgspec

SUBPROTOCOL = "voxplane.media.v1"
MEDIA_PATH = "/v1/media"
HEADER = struct.Struct("!BBHQII")
AUDIO = 1
FLAG_FILLER = 0x01
FLAG_SILENCE = 0x02
SILENCE_TOLD_FRAMES, PEAK_MAX = 20, 16
MULAW_SILENCE = b"\xff\x7f\xfe\x7e\xfd\x7d"
"""Filler: nothing of the agent's is in it. It is played all the same."""
PIECE_MS_MAX = 200
"""The longest audio that one binary message may carry."""
STAMP_MAX = 2**64 - 1
OFFSET_MAX = 2**32 - 1


class Prepared(msgspec.Struct, frozen=True, kw_only=True, tag="prepared"):
    """The standby has loaded the call and can be taken."""

    epoch: int
    stamp: int


class Attached(msgspec.Struct, frozen=True, kw_only=True, tag="attached"):
    """The edge owns the call at `epoch`, and this socket is its caller."""

    epoch: int
    stamp: int
    region: str = ""
    resumed: bool = False


class Tick(msgspec.Struct, frozen=True, kw_only=True, tag="tick"):
    stamp: int


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Agent utterance (0: none) and milliseconds from its start."""

    utterance: int = 0
    offset_ms: int = 0


class Clear(msgspec.Struct, frozen=True, kw_only=True, tag="clear"):
    """What is buffered and not played yet is void."""

    stamp: int
    at: Position = Position()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    epoch: int
    n: int
    sealed: str


class Acked(msgspec.Struct, frozen=True, kw_only=True, tag="acked"):
    epoch: int
    n: int


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice"):
    """An event of the call that the caller may want to show."""

    event: str
    at_ms: int = 0
    data: Any = None


class Ticket(msgspec.Struct, frozen=True, kw_only=True, tag="ticket"):
    """A newer ticket of the call: more grants, above all others."""

    ticket: str


class Move(msgspec.Struct, frozen=True, kw_only=True, tag="move"):
    """Prepare the grant of `epoch` and say `ready`; a `go` follows at the end of a turn."""

    epoch: int
    within_ms: int = 0


class Go(msgspec.Struct, frozen=True, kw_only=True, tag="go"):
    """Take `epoch` now, while this edge goes on until it is told `moved`."""

    epoch: int


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    end_reason: str


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The edge will not serve this socket. `next_url`: another that may, with the grant of `next_epoch`."""

    code: str
    detail: str = ""
    fix: str = ""
    next_url: str | None = None
    next_epoch: int | None = None


FromEdge = (
    Prepared | Attached | Tick | Clear | Snapshot | Acked | Notice | Ticket | Move | Go | Ended | Refused
)
_decoder: msgspec.json.Decoder[FromEdge] = msgspec.json.Decoder(FromEdge)


def read(message: str) -> FromEdge | None:
    """None for what is not a message of this protocol."""
    try:
        return _decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Audio:
    """A binary message from an edge. `filler`: nothing of the agent's is in it."""

    stamp: int
    utterance: int
    offset_ms: int
    samples: bytes
    filler: bool


def read_audio(message: bytes, silence: bytes = b"") -> Audio | None:
    """None for what is not audio. `silence`: what stands for a frame that says that it is silent."""
    if len(message) < HEADER.size:
        return None
    kind, flags, _, stamp, utterance, offset_ms = HEADER.unpack_from(message)
    samples = message[HEADER.size :] or (silence if flags & FLAG_SILENCE else b"")
    if kind != AUDIO or not samples:
        return None
    return Audio(stamp, utterance, offset_ms, samples, bool(flags & FLAG_FILLER))


def write_audio(samples: bytes, *, sequence: int, stamp: int, played: Position, flags: int = 0) -> bytes:
    return HEADER.pack(AUDIO, flags, sequence & 0xFFFF, stamp, played.utterance, played.offset_ms) + samples


def silence_of(encoding: str, rate_hz: int) -> bytes:
    """20 ms."""
    return b"\0" * (rate_hz // 25) if encoding == "pcm16" else b"\xff" * (rate_hz // 50)


def is_silent(samples: bytes, silence: bytes) -> bool:
    """Nobody could hear it: 66 dB below full scale at most. `silence`: in the same encoding."""
    if silence[:1] == b"\xff":
        return not samples.translate(None, MULAW_SILENCE)
    return all(-PEAK_MAX <= value <= PEAK_MAX for (value,) in struct.iter_unpack("<h", samples))


class Standing:
    """What a successor needs to know of this caller: the newest stamp, what is durable, what was played, the snapshot, and what it
    has asked for. `silence`: 20 ms of it, where silence is not to be sent."""

    def __init__(self, silence: bytes = b"") -> None:
        self.silence = silence
        self._quiet = 0
        self.talking = self.hanging_up = False
        self.stamp = 0
        self.played = Position()
        self._acked = (0, 0)
        self._snapshot: str | None = None

    def stamped(self, stamp: int) -> None:
        """What could not be sent back is not taken."""
        if 0 <= stamp <= STAMP_MAX:
            self.stamp = stamp

    def heard(self, message: FromEdge) -> None:
        match message:
            case Attached() | Tick() | Clear():
                self.stamped(message.stamp)
            case Snapshot():
                self._snapshot = message.sealed
            case Acked():
                self._acked = (message.epoch, message.n)

    def resume(self) -> dict[str, Any]:
        resume: dict[str, Any] = {
            "epoch": self._acked[0],
            "n": self._acked[1],
            "played": msgspec.to_builtins(self.played),
        }
        if self._snapshot is not None:
            resume["snapshot"] = self._snapshot
        return resume

    def attach(
        self, ticket: str, epoch: int, mode: str, *, encoding: str, sample_rate: int, reason: str = "closed"
    ) -> str:
        """`reason`: why, with the mode ``take``."""
        message: dict[str, Any] = {
            "type": "attach",
            "ticket": ticket,
            "epoch": epoch,
            "mode": mode,
            "encoding": encoding,
            "sample_rate": sample_rate,
        }
        if self.silence:
            message["dtx"] = True
        if mode != "attach":
            message["resume"] = self.resume()
        if reason != "closed":
            message["reason"] = reason
        return text(message)

    def wishes(self) -> list[str]:
        """What every new owner is told once it is attached."""
        return [talk(True)] * self.talking + [hangup()] * self.hanging_up

    def take(self, reason: str) -> str:
        return text({"type": "take", "resume": self.resume(), "reason": reason})

    def audio(self, samples: bytes, sequence: int) -> bytes | None:
        """None for silence that need not be told again yet."""
        flags = 0
        if self.silence and len(samples) == len(self.silence) and is_silent(samples, self.silence):
            self._quiet += 1
            if self._quiet % SILENCE_TOLD_FRAMES != 1:
                return None
            samples, flags = b"", FLAG_SILENCE
        else:
            self._quiet = 0
        return write_audio(samples, sequence=sequence, stamp=self.stamp, played=self.played, flags=flags)

    def alive(self) -> str:
        return text({"type": "alive", "stamp": self.stamp, "played": msgspec.to_builtins(self.played)})

    def dtmf(self, digit: str) -> str:
        return text({"type": "dtmf", "digit": digit, "stamp": self.stamp})


def ready(epoch: int, code: str) -> str:
    """`code`: why the edge of `epoch` cannot be had; empty where it is prepared."""
    return text({"type": "ready", "epoch": epoch} | ({"code": code} if code else {}))


def moved(epoch: int) -> str:
    return text({"type": "moved", "epoch": epoch})


def talk(on: bool) -> str:
    """The button of a call whose turns are ``push_to_talk``."""
    return text({"type": "talk", "on": on})


def hangup() -> str:
    return text({"type": "hangup"})


def text(message: dict[str, Any]) -> str:
    return msgspec.json.encode(message).decode()
