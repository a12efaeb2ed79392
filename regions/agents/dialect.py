"""The port between a call and the dialect in which its backend speaks, and which dialect that is.

A dialect is pure: it numbers and writes one socket's messages, and reads what comes. It decides in which `Format` the call
runs, so that a frame of audio costs no conversion on the backend's side. What it has no word for is written as nothing.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from regions.agents.recollection import conversation_parameter
from regions.media.codecs import Format
from regions.wire.snapshot import Turn

MARK_NAME_MAX = 256
REASON_CHARS_MAX = 64
NOTHING = b""
_PADDED_JOINT = re.compile(rb"=+(?=[A-Za-z0-9+/])")


@dataclass(frozen=True, slots=True)
class AgentAudio:
    """In the dialect's format, of any length. A `Chunk` (`regions.media.playout`) where the backend has named it."""

    samples: bytes


@dataclass(frozen=True, slots=True)
class AgentMark:
    name: str


@dataclass(frozen=True, slots=True)
class AgentClear:
    """`chunk`: only what came under that name; None: everything."""

    chunk: bytes | None = None


@dataclass(frozen=True, slots=True)
class AgentText:
    """What is said beside the audio: `type` and its data as raw JSON."""

    type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class AgentUtterance:
    """What follows is another utterance. `id`: the backend's own name for it; with `offset_ms`, the rest of one that was
    cut by a failure, from there."""

    id: str
    offset_ms: int = 0


@dataclass(frozen=True, slots=True)
class AgentHangup:
    """The backend ends the call, once what it has said is heard."""

    reason: str


@dataclass(frozen=True, slots=True)
class AgentSilence:
    """Whether long silence of the caller's is to be left out from now on."""

    discard: bool


@dataclass(frozen=True, slots=True)
class AgentUnknown:
    pass


FromAgent = (
    AgentAudio
    | AgentMark
    | AgentClear
    | AgentText
    | AgentUtterance
    | AgentHangup
    | AgentSilence
    | AgentUnknown
)
UNKNOWN = AgentUnknown()
CLEAR = AgentClear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The utterance that a failure cut: the backend's name for it, and what of it the caller had heard."""

    id: str
    offset_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a new socket is told. `turns`: the conversation so far, where the call had a backend before; None where it had none.
    `cut`: an utterance that is waited for, from where it was cut. `trace`: the `traceparent` that the backend goes on under."""

    call: str
    epoch: int
    from_number: str = ""
    to_number: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    turns: list[Turn] | None = None
    cut: Cut | None = None
    trace: str = ""

    @property
    def resumed(self) -> bool:
        return self.turns is not None

    def flat(self) -> dict[str, str]:
        """For dialects whose parameters are strings. Who calls, then what the customer gave, then what is ours: the later wins."""
        caller = {"from_number": self.from_number, "to_number": self.to_number}
        return {k: v for k, v in caller.items() if v} | self.parameters | self.own()

    def own(self) -> dict[str, str]:
        """What is ours alone."""
        own = {
            "voxplane_call": self.call,
            "voxplane_epoch": str(self.epoch),
            "voxplane_resumed": "true" if self.resumed else "false",
        }
        if self.trace:
            own["voxplane_traceparent"] = self.trace
        if self.turns is not None:
            own["voxplane_conversation"] = conversation_parameter(self.turns)
        return own


class Dialect(Protocol):
    """One socket's. Every method that writes gives one message, or `NOTHING` where there is nothing to be said now.

    `format`: what `audio` takes and `AgentAudio` brings. `binary`: whether audio goes in binary messages; all others are text.
    `speaks_text`: whether what is said beside the audio is part of the dialect, or an extension that a backend has to show first.
    """

    format: Format
    binary: bool
    speaks_text: bool

    def opening(self, start: Start) -> list[bytes]:
        """The first messages."""
        ...

    def audio(self, frame: bytes) -> bytes:
        """20 ms of the caller's. A dialect of longer messages gathers them first."""
        ...

    def mark(self, name: str) -> bytes:
        """The audio before the backend's mark has been played, or was dropped."""
        ...

    def dtmf(self, digit: str) -> bytes: ...
    def text(self, type_: str, data: object) -> bytes: ...
    def stop(self) -> bytes:
        """The last message of a call that has ended."""
        ...

    def read(self, message: bytes, *, binary: bool) -> FromAgent:
        """Never raises. A dialect without binary audio takes binary messages as text."""
        ...


class _Hangup(msgspec.Struct):
    reason: str = ""


_hangup = msgspec.json.Decoder(_Hangup)


def said(type_: str, data: bytes) -> FromAgent:
    """A message of the text extension. A hang-up is one as well, for dialects that have no word for it."""
    if type_ != "hangup":
        return AgentText(type_, data)
    try:
        return AgentHangup(_hangup.decode(data).reason[:REASON_CHARS_MAX])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return AgentHangup("")


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


def encode_payload(samples: bytes) -> bytes:
    return binascii.b2a_base64(samples, newline=False)
