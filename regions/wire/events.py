"""What can happen to a call, and how an event of it is written.

Decides which event types exist, who may write them, which wait for the durable acknowledgement, which carry
content (stored encrypted) and which one is final. Leaves their order, numbers and storage to the log.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

DATA_BYTES_MAX = 32 * 1024
"""The `data` of one event, as JSON."""


class Source(StrEnum):
    """Who wrote an event: an edge under its epoch, the control plane, or the project through REST."""

    EDGE = "edge"
    CONTROL = "control"
    PROJECT = "project"


class EventType(msgspec.Struct, frozen=True, kw_only=True):
    """`durable`: numbered, stored, acknowledged. `content`: what people said; encrypted at rest, never in a log line."""

    name: str
    sources: frozenset[Source]
    durable: bool = True
    content: bool = False


_E = frozenset({Source.EDGE})
_C = frozenset({Source.CONTROL})
_EC = _E | _C
_EP = frozenset({Source.EDGE, Source.PROJECT})

EVENT_TYPES: dict[str, EventType] = {
    t.name: t
    for t in (
        EventType(name="call.created", sources=_C),
        EventType(name="call.ringing", sources=_EC),
        EventType(name="call.answered", sources=_E),
        EventType(name="call.reconnecting", sources=_E),
        EventType(name="call.reconnected", sources=_E),
        EventType(name="call.moved", sources=_E),
        EventType(name="call.drilled", sources=_C),
        EventType(name="call.quality", sources=_E),
        EventType(name="call.ended", sources=_EC),
        EventType(name="agent.connected", sources=_E),
        EventType(name="agent.disconnected", sources=_E),
        EventType(name="agent.hung_up", sources=_E, content=True),
        EventType(name="turn.started", sources=_E),
        EventType(name="turn.ended", sources=_EP, content=True),
        EventType(name="turn.interrupted", sources=_E, content=True),
        EventType(name="turn.false_interruption", sources=_E),
        EventType(name="turn.answered", sources=_E),
        EventType(name="turn.budget_exceeded", sources=_E),
        EventType(name="speech.started", sources=_E),
        EventType(name="speech.stopped", sources=_E),
        EventType(name="playback.started", sources=_E),
        EventType(name="playback.interrupted", sources=_E),
        EventType(name="playback.done", sources=_E),
        EventType(name="playback.tick", sources=_E, durable=False),
        EventType(name="transcript.partial", sources=_E, durable=False, content=True),
        EventType(name="transcript.final", sources=_E, content=True),
        EventType(name="tool.called", sources=_EP, content=True),
        EventType(name="tool.result", sources=_EP, content=True),
        EventType(name="dtmf.received", sources=_E, content=True),
        EventType(name="events.lost", sources=_EC),
    )
}

FINAL_TYPE = "call.ended"
LOST_TYPE = "events.lost"


class EndReason(StrEnum):
    """Why a call ended; stands in `call.ended` and on the call."""

    CALLER_HUNG_UP = "caller_hung_up"
    AGENT_HUNG_UP = "agent_hung_up"
    ENDED_BY_API = "ended_by_api"
    MAX_DURATION = "max_duration"
    NO_ANSWER = "no_answer"
    AGENT_UNREACHABLE = "agent_unreachable"
    AGENT_LOST = "agent_lost"
    CALLER_LOST = "caller_lost"
    EDGE_LOST = "edge_lost"
    CANCELED = "canceled"
    EDGE_SHUTDOWN = "edge_shutdown"
    RESOLVED = "resolved"
    IDLE = "idle"
    CALLER_SILENT = "caller_silent"
    MONOLOGUE = "monologue"
    ERASED = "erased"


class Origin(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Where an adopted event was first numbered: the epoch and `n` of the owner that had seen it happen."""

    epoch: int
    n: int


class EdgeEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One durable event as its edge numbered it.

    `n` is dense within (call, epoch), from 1. `id` is an ``evt_`` TypeID, the same in every resend and adoption.
    `data` is kept as the very bytes the edge wrote: their hash tells a duplicate from a conflict.
    """

    n: int
    id: str
    type: str
    at_ms: int
    data: msgspec.Raw = msgspec.Raw(b"{}")
    origin: Origin | None = None


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """The data of `events.lost`: an owner's numbers `from_n` to `to_n` within its `epoch` can never be delivered.

    Written by that owner it is numbered `to_n` and stands for the whole range, so that its call goes on; what turns up later
    with such a number is kept as late. `reason`: ``log_away`` (the log was out of reach for too long), ``log_lost`` (the log
    had acknowledged them and does not have them any more), ``spool`` (the owner has ended, and its spool has a hole), ``unfit``
    (the log cannot hold what the owner wrote), ``snapshot`` (written by the next owner: the caller's snapshot had no room for
    them, and only what the log had by then is in it).
    """

    epoch: int
    from_n: int
    to_n: int
    reason: str = ""


_lost = msgspec.json.Decoder(Lost)


def first_n(event: EdgeEvent, epoch: int) -> int:
    """The first of the numbers that an event takes up within its owner's `epoch`; the last is its `n`."""
    if event.type != LOST_TYPE or event.origin is not None:
        return event.n
    try:
        lost = _lost.decode(event.data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return event.n
    spans = lost.epoch == epoch and lost.to_n == event.n and 1 <= lost.from_n <= event.n
    return lost.from_n if spans else event.n


class VolatileEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope of what is only told to who listens: it has no id, no `seq` and no place in the log."""

    type: str
    call_id: str
    epoch: int
    region: str
    timestamp: str
    data: msgspec.Raw


class PublicEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope that customers see: REST, feeds, sockets and webhooks alike.

    `timestamp` is RFC 3339 UTC with milliseconds: when it happened, by the clock of whoever saw it.
    """

    id: str
    type: str
    call_id: str
    seq: int
    epoch: int
    region: str | None
    timestamp: str
    data: Any
