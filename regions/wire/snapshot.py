"""The recent conversation of a call, in two keepings: the tail (regional memory) and the snapshot (the caller's hands).

Decides what a successor needs to go on, how much of it is kept and how it is cut. Leaves sealing to `ticket.seal`
(the snapshot under the call's key) and transport to others.
"""

from __future__ import annotations

from typing import Any

import msgspec

from regions.wire.events import EdgeEvent
from regions.wire.media import Position
from regions.wire.ticket import Agent

TURNS_MAX = 64
TAIL_BYTES_MAX = 48 * 1024


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of the conversation. `role`: ``caller``, ``agent`` or ``tool``. A tool entry has `id`, `name`, `arguments`,
    and `result` once there is one; `interrupted` marks an agent turn of which only `text` was played."""

    role: str
    text: str = ""
    interrupted: bool = False
    id: str | None = None
    name: str | None = None
    arguments: Any = None
    result: Any = None
    at_ms: int = 0


class Word(msgspec.Struct, frozen=True, array_like=True):
    """A word of what the agent says, and where it begins in the utterance's audio."""

    word: str
    offset_ms: int


class Unacked(msgspec.Struct, frozen=True, kw_only=True):
    """An event that its owner had numbered and not seen acknowledged: `event.n` within `epoch`."""

    epoch: int
    event: EdgeEvent


class CallSnapshot(msgspec.Struct, kw_only=True):
    """Everything a standby needs. `epoch`/`acked_n`: up to where the log was known to be durable.

    `turns` already contain what `unacked` says. `playing`: the agent utterance in progress and the text announced for it,
    with the places of its words, so that the successor can write what was heard. `answered_at_ms`: 0 until answered.
    `elapsed_ms`: how long the call had lasted when this was sealed; its maximum duration is counted by it.
    """

    call: str
    epoch: int
    acked_n: int
    last_n: int
    turns: list[Turn]
    unacked: list[Unacked]
    playing: Position = Position()
    playing_text: str = ""
    playing_words: list[Word] = []
    utterance: int = 0
    answered_at_ms: int = 0
    elapsed_ms: int = 0
    stream_sid: str = ""
    agent: Agent | None = None


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """What the control plane keeps per call in the memory of its regions: ``tail:{call id}`` in Valkey, JSON.

    `seq` is the newest event folded in; (`epoch`, `n`) the newest acknowledged of the owner. A tail with a higher `seq`
    replaces a lower one, never the other way round.
    """

    call: str
    seq: int
    epoch: int
    n: int
    turns: list[Turn]


def tail_key(call: str) -> str:
    return f"tail:{call}"


snapshot_decoder = msgspec.json.Decoder(CallSnapshot)
tail_decoder = msgspec.json.Decoder(Tail)


def bounded(turns: list[Turn], bytes_max: int = TAIL_BYTES_MAX, turns_max: int = TURNS_MAX) -> list[Turn]:
    """The newest turns that fit in `bytes_max` of JSON and in `turns_max`; the oldest go first."""
    kept: list[Turn] = []
    size = 2
    for turn in reversed(turns[-turns_max:]):
        size += len(msgspec.json.encode(turn)) + 1
        if size > bytes_max:
            break
        kept.append(turn)
    kept.reverse()
    return kept
