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


def read_audio(message: bytes) -> Audio | None:
    """None for what is not audio."""
    if len(message) <= HEADER.size:
        return None
    kind, flags, _, stamp, utterance, offset_ms = HEADER.unpack_from(message)
    if kind != AUDIO:
        return None
    return Audio(stamp, utterance, offset_ms, message[HEADER.size :], bool(flags & FLAG_FILLER))


def write_audio(samples: bytes, *, sequence: int, stamp: int, played: Position) -> bytes:
    return HEADER.pack(AUDIO, 0, sequence & 0xFFFF, stamp, played.utterance, played.offset_ms) + samples


class Standing:
    """What a successor needs to know of this caller: the newest stamp, what is durable, what was played, the snapshot."""

    def __init__(self) -> None:
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
        if mode != "attach":
            message["resume"] = self.resume()
        if reason != "closed":
            message["reason"] = reason
        return text(message)

    def take(self, reason: str) -> str:
        return text({"type": "take", "resume": self.resume(), "reason": reason})

    def alive(self) -> str:
        return text({"type": "alive", "stamp": self.stamp, "played": msgspec.to_builtins(self.played)})

    def dtmf(self, digit: str) -> str:
        return text({"type": "dtmf", "digit": digit, "stamp": self.stamp})


def ready(epoch: int, code: str) -> str:
    """`code`: why the edge of `epoch` cannot be had; empty where it is prepared."""
    return text({"type": "ready", "epoch": epoch} | ({"code": code} if code else {}))


def moved(epoch: int) -> str:
    return text({"type": "moved", "epoch": epoch})


def hangup() -> str:
    return text({"type": "hangup"})


def text(message: dict[str, Any]) -> str:
    return msgspec.json.encode(message).decode()
