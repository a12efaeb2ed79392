"""``voxplane.media.v1``: the WebSocket between a caller and an edge.

Decides the messages, the frame header and the limits. Leaves when to prepare and when to take to the caller
(``docs/reference/media.md`` has transcripts). Control is JSON text, one struct per message; audio is binary.

A binary frame is a header of 20 bytes in network order, then samples (PCM16 little-endian or mu-law, as agreed in
`Attach`), at most 200 ms of them. Both directions use the same header:

    0      1      2          4              12             16
    | kind | flag | sequence | stamp (8)    | utterance(4) | offset_ms (4) |  samples …

`stamp` is the edge's clock in its own units: the edge writes its own, the caller echoes the newest it has got. It is
what renews the edge's lease: a frame that lay in a buffer carries an old stamp and renews nothing. `utterance` and
`offset_ms` say, from the edge, what this audio is (agent utterance number, milliseconds from its start); from the
caller, what it has played last.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

SUBPROTOCOL = "voxplane.media.v1"
PROBE_SUBPROTOCOL = "voxplane.probe.v1"
MEDIA_PATH = "/v1/media"
WEBRTC_PATH = "/v1/webrtc"
TWILIO_PATH = "/v1/twilio"
"""Of the media listener, for callers that speak Twilio Media Streams; the ticket may follow."""
HEADER = struct.Struct("!BBHQII")
HEADER_BYTES = HEADER.size
AUDIO = 1
FLAG_FILLER = 0x01
"""Not the agent's: the sound that a caller hears while there is no backend. It has no utterance."""

FLAG_SILENCE = 0x02
"""20 ms of silence, without samples: between those who have agreed on it (`Attach.dtx`)."""

FRAME_MS = 20
TICK_MS = 100
"""An edge sends something at least this often."""
PREPARE_AFTER_MS = 400
TAKE_AFTER_MS = 500
ALIVE_EVERY_MS = 500
LEASE_MS = 3_000
TEXT_BYTES_MAX = 128 * 1024
BINARY_BYTES_MAX = HEADER_BYTES + 48_000 * 2 // 5
SNAPSHOT_BYTES_MAX = 64 * 1024


def attach_url(listener: str) -> str:
    """Where a caller attaches at an edge. A grant names the listener by the kind of its caller: ``ws(s)://`` for one over WebSocket,
    ``http(s)://`` for one over WebRTC."""
    return listener + (WEBRTC_PATH if listener.startswith("http") else MEDIA_PATH)


Encoding = Literal["pcm16", "mulaw"]
SAMPLE_RATES = (8_000, 16_000, 24_000, 48_000)


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """What was played: agent utterance number (from 1 within the call; 0: none) and milliseconds from its start."""

    utterance: int = 0
    offset_ms: int = 0


class Resume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the caller brings to a new owner: the last (epoch, n) it saw acknowledged, what it played, its snapshot."""

    epoch: int = 0
    n: int = 0
    played: Position = Position()
    snapshot: str | None = None


# --- caller to edge --------------------------------------------------------------------------------------------


class Attach(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="attach"):
    """First message on a socket, within 5 s.

    `mode`: ``attach`` (the first time, epoch of the primary), ``prepare`` (load the call, do nothing else; a `Take`
    follows on this socket, or it is closed), ``take`` (prepare and take at once), ``resume`` (same owner and epoch
    after a broken socket). Another socket that attaches at the same epoch replaces this one. `reason`: of a ``take``, as in `Take`.
    `dtx`: silence goes without samples, both ways (`FLAG_SILENCE`).
    """

    ticket: str
    epoch: int
    mode: Literal["attach", "prepare", "take", "resume"] = "attach"
    encoding: Encoding = "pcm16"
    sample_rate: int = 16_000
    resume: Resume | None = None
    reason: Literal["silent", "closed", "refused"] = "closed"
    dtx: bool = False


class Take(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="take"):
    """Makes a prepared edge the owner. `reason`: ``silent``, ``closed`` or ``refused`` (failures), ``planned`` (a move)."""

    resume: Resume
    reason: Literal["silent", "closed", "refused", "planned"] = "silent"


class Alive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="alive"):
    """Keep-alive when no audio is sent; at least one message a second renews the lease."""

    stamp: int
    played: Position = Position()


class Dtmf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="dtmf"):
    digit: str
    stamp: int = 0


class Talk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="talk"):
    """The button of a caller whose turns are ``push_to_talk``: pressed, or let go. A socket that closes lets it go."""

    on: bool


class Hangup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="hangup"):
    """The caller ends the call."""


class Ready(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="ready"
):
    """The answer to `Move`: the edge of `epoch` is prepared; with a `code`, why it cannot be had."""

    epoch: int
    code: str = ""


class Moved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="moved"):
    """To the edge that is left after a `Go`: the call is served at `epoch`, elsewhere. It plays what it has begun, and
    lets the call go."""

    epoch: int


# --- edge to caller --------------------------------------------------------------------------------------------


class Prepared(msgspec.Struct, frozen=True, kw_only=True, tag="prepared"):
    """The standby has loaded the call and can be taken. `source`: where its history came from."""

    call: str
    epoch: int
    stamp: int
    source: str = "snapshot"


class Attached(msgspec.Struct, frozen=True, kw_only=True, tag="attached"):
    """This edge owns the call at `epoch`. `played` is where a resumed playback stands."""

    call: str
    epoch: int
    region: str
    edge: str
    stamp: int
    resumed: bool = False
    lease_ms: int = LEASE_MS


class Tick(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="tick"):
    """Sent when nothing else was for `TICK_MS`; over WebRTC also beside the audio, which carries neither. `at`: what of the agent's
    was sent last."""

    stamp: int
    at: Position | None = None


class Clear(msgspec.Struct, frozen=True, kw_only=True, tag="clear"):
    """Drop what is buffered and not played yet. `at` is the exact position that the edge had sent to. The same utterance may go on
    afterwards, from what the caller says that it has played: it was no interruption."""

    stamp: int
    at: Position


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """The newest sealed snapshot; replaces the one before."""

    epoch: int
    n: int
    sealed: str


class Acked(msgspec.Struct, frozen=True, kw_only=True, tag="acked"):
    """Everything up to `n` of `epoch` is durable."""

    epoch: int
    n: int


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice", rename={"type": "event"}):
    """A call event the caller may want to show (`call.reconnected`, `playback.interrupted`, …)."""

    type: str
    at_ms: int
    data: msgspec.Raw = msgspec.Raw(b"{}")


class Ticket(msgspec.Struct, frozen=True, kw_only=True, tag="ticket"):
    """A newer ticket of the same call: its grants lie above all others. The caller keeps them beside those it has."""

    ticket: str


class Move(msgspec.Struct, frozen=True, kw_only=True, tag="move"):
    """The call is to be moved: prepare the grant of `epoch` (of the newest ticket), say `Ready`, and stay for now. A `Go`
    follows at the end of a turn, in `within_ms` at the latest."""

    epoch: int
    within_ms: int


class Go(msgspec.Struct, frozen=True, kw_only=True, tag="go"):
    """Take `epoch` now (reason ``planned``). This edge goes on until it hears `Moved`: what it plays is heard until the new
    one's audio flows."""

    epoch: int


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The call is over; the socket closes with 1000. A socket that closes without it means: take."""

    end_reason: str


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="refused"):
    """The edge will not serve this socket. `code` is stable; `next_url` and `next_epoch` name the next standby
    of the ticket where there is one: attach there at once, with that epoch."""

    code: str
    detail: str
    fix: str = ""
    next_url: str | None = None
    next_epoch: int | None = None


FromCaller = Attach | Take | Alive | Dtmf | Talk | Hangup | Ready | Moved
ToCaller = (
    Prepared | Attached | Tick | Clear | Snapshot | Acked | Notice | Ticket | Move | Go | Ended | Refused
)

from_caller_decoder = msgspec.json.Decoder(FromCaller)
to_caller_decoder = msgspec.json.Decoder(ToCaller)


def pack(
    samples: bytes, *, sequence: int, stamp: int, utterance: int, offset_ms: int, flags: int = 0
) -> bytes:
    return HEADER.pack(AUDIO, flags, sequence & 0xFFFF, stamp, utterance, offset_ms) + samples
