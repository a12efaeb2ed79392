"""The recent conversation of a call, in two keepings: the tail (regional memory) and the snapshot (the caller's hands).

Decides what a successor needs to go on, how much of it is kept and how it is cut. Leaves sealing to `ticket.seal`
(the snapshot under the call's key) and transport to others.
"""

from __future__ import annotations

from typing import Any

import msgspec

from regions.wire.events import EdgeEvent
from regions.wire.keeping import Open
from regions.wire.media import Position
from regions.wire.ticket import Agent

TURNS_MAX = 64
TAIL_BYTES_MAX = 48 * 1024
PAST_TOOLS_MAX = 32
PAST_SHARE = 6
"""Of the bytes, one part in so many is for tools with a key that are older than the window."""
PAST_RESULT_BYTES_MAX = 1_024


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of the conversation. `role`: ``caller``, ``agent`` or ``tool``. A tool entry has `id`, `name`, `arguments`,
    and `done` and `result` once there is a result; `interrupted` marks an agent turn of which only `text` was played.

    `key`: under which the tool's result is found again. `truncated`: the result was too long to be kept. `closed`: the tool
    was called again under the same id, so no result can come. `past`: a tool older than the window, kept for its key
    alone. `by`: ``project`` where it was written through the API. `seq`: its place in the log; 0 where it is not known, and,
    on the edge that wrote it, -n until event n is acknowledged.
    """

    role: str
    text: str = ""
    interrupted: bool = False
    id: str | None = None
    key: str | None = None
    name: str | None = None
    arguments: Any = None
    result: Any = None
    done: bool = False
    truncated: bool = False
    closed: bool = False
    past: bool = False
    by: str = ""
    seq: int = 0
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
    with the places of its words, so that the successor can write what was heard; `playing_id`: the backend's own name for it.
    `answered_at_ms`: 0 until answered. `elapsed_ms`: how long the call had lasted when this was sealed; its maximum duration is
    counted by it.
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
    playing_id: str = ""
    utterance: int = 0
    answered_at_ms: int = 0
    elapsed_ms: int = 0
    stream_sid: str = ""
    agent: Agent | None = None


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """What the control plane keeps per call in the memory of its regions.

    `seq` is the newest event folded in, `said_seq` the newest that changed `turns`; (`epoch`, `n`) the newest acknowledged of
    the owner, or an older one; `at_ms` when `seq` was written, by the control plane's clock. A tail with a higher `seq`
    replaces a lower one, never the other way round.

    In Valkey it is the hash ``tail:{call id}`` with the fields `seq`, `said_seq`, `head` (a `TailHead` as JSON) and `turns`
    (as JSON, sealed: `wire.keeping`): an event that says nothing changes the head alone.
    """

    call: str
    seq: int
    epoch: int
    n: int
    turns: list[Turn]
    said_seq: int = 0
    at_ms: int = 0


class TailHead(msgspec.Struct, frozen=True, kw_only=True):
    """A tail without its turns."""

    call: str
    seq: int
    epoch: int
    n: int
    said_seq: int = 0
    at_ms: int = 0


def tail_key(call: str) -> str:
    return f"tail:{call}"


TAIL_FIELDS = ("head", "turns")
"""What a reader of a tail asks for."""

snapshot_decoder = msgspec.json.Decoder(CallSnapshot)
head_decoder = msgspec.json.Decoder(TailHead)
turns_decoder = msgspec.json.Decoder(list[Turn])


def head_of(tail: Tail) -> TailHead:
    return TailHead(
        call=tail.call, seq=tail.seq, epoch=tail.epoch, n=tail.n, said_seq=tail.said_seq, at_ms=tail.at_ms
    )


def read_tail(head: bytes, turns: bytes, opened: Open) -> Tail:
    """The tail in the two fields of its hash. Raises `msgspec.MsgspecError` and `wire.keeping.Unopened`."""
    known = head_decoder.decode(head)
    return Tail(
        call=known.call,
        seq=known.seq,
        epoch=known.epoch,
        n=known.n,
        said_seq=known.said_seq,
        at_ms=known.at_ms,
        turns=turns_decoder.decode(opened(turns, tail_key(known.call))),
    )


def bounded(turns: list[Turn], bytes_max: int = TAIL_BYTES_MAX, turns_max: int = TURNS_MAX) -> list[Turn]:
    """The newest turns that fit in `turns_max` and in most of `bytes_max` of JSON; the oldest go first. Before them stand the
    tools with a key that are older, the newest of them, without their arguments and with their results only where these
    are short.

    A conversation that is cut as it grows is the same as one that is cut at its end: an entry never shrinks while it is in
    the window, and what was once left out is never let in again.
    """
    past_bytes_max = bytes_max // PAST_SHARE
    current = [t for t in turns if not t.past]
    kept = _newest(current, bytes_max - past_bytes_max, turns_max)
    left_out = current[: len(current) - len(kept)]
    past = [_past(t) for t in turns if t.past] + [_past(t) for t in left_out if t.key is not None]
    return _newest(past, past_bytes_max, PAST_TOOLS_MAX) + kept


def _newest(turns: list[Turn], bytes_max: int, turns_max: int) -> list[Turn]:
    newest = turns[-turns_max:]
    if len(msgspec.json.encode(newest)) < bytes_max:
        return newest
    kept: list[Turn] = []
    size = 2
    for turn in reversed(newest):
        size += len(msgspec.json.encode(turn)) + 1
        if size > bytes_max:
            break
        kept.append(turn)
    kept.reverse()
    return kept


def _past(turn: Turn) -> Turn:
    long = len(msgspec.json.encode(turn.result)) > PAST_RESULT_BYTES_MAX
    return msgspec.structs.replace(
        turn,
        past=True,
        arguments=None,
        result=None if long else turn.result,
        truncated=turn.truncated or long,
    )
