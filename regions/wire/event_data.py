"""The data of every event type: one struct each. The JSON Schemas, the AsyncAPI document and the client's types are made from it.

Decides what a reader may rely on. Versions are additive: fields are added, and values are added where a field is said to have
some, so a reader ignores what it does not know. A field is never taken away, renamed, or given another type. Who writes events
may write more than stands here only where it says so (`tool.called`, `tool.result`, `transcript.partial`: what the backend sent).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Role = Annotated[str, Meta(description="Who spoke.", examples=["caller", "agent"])]
Region = Annotated[str, Meta(description="A region's id.", examples=["us-east"])]
Utterance = Annotated[int, Meta(ge=0, description="The agent's utterances are numbered within the call.")]
Milliseconds = Annotated[int, Meta(ge=0)]
Epoch = Annotated[int, Meta(ge=0, description="The number of an ownership of the call; 0: not known.")]
Truncated = Annotated[bool, Meta(description="Part of it was too long, and is left out.")]


class CallerKind(msgspec.Struct, frozen=True, kw_only=True):
    """How the caller reaches the call."""

    kind: Annotated[str, Meta(examples=["websocket", "webrtc"])]


class CallCreated(msgspec.Struct, frozen=True, kw_only=True):
    """The create has committed."""

    caller: CallerKind
    region: Region
    standbys: list[Region]
    metadata: dict[str, str]


class CallRinging(msgspec.Struct, frozen=True, kw_only=True):
    """Reserved: nothing writes it yet."""


class CallAnswered(msgspec.Struct, frozen=True, kw_only=True):
    """The caller has attached for the first time."""

    encoding: Annotated[str, Meta(examples=["pcm16", "ulaw"])]
    sample_rate: Annotated[int, Meta(gt=0, description="In hertz.")]


class CallReconnecting(msgspec.Struct, frozen=True, kw_only=True):
    """A standby has taken the call after a failure, or the call has lost its backend (`agent_lost`: both epochs are the owner's).

    `history`: where the new owner has the conversation from; only after a failure.
    """

    from_epoch: Epoch
    to_epoch: Epoch
    reason: Annotated[str, Meta(examples=["silent", "closed", "refused", "agent_lost"])]
    history: Annotated[str, Meta(examples=["snapshot", "tail", "none"])] | None = None


class CallMoved(msgspec.Struct, frozen=True, kw_only=True):
    """A planned takeover: the call was moved, or its edge drained. With `by` ``gain`` because another region was nearer:
    `before_ms` and `after_ms` are the caller's round trip to a region and the region's to the backend together."""

    from_epoch: Epoch
    to_epoch: Epoch
    reason: Annotated[str, Meta(examples=["planned"])]
    history: Annotated[str, Meta(examples=["snapshot", "tail", "none"])]
    by: Annotated[str, Meta(examples=["gain"])] | None = None
    from_region: str | None = None
    to_region: str | None = None
    before_ms: float | None = None
    after_ms: float | None = None
    windows: (
        Annotated[int, Meta(description="So many windows of 30 s, one after the other, it was nearer.")]
        | None
    ) = None


class CallReconnected(msgspec.Struct, frozen=True, kw_only=True):
    """Audio flows again, in both directions."""

    from_epoch: Epoch
    region: Region


class CallDrilled(msgspec.Struct, frozen=True, kw_only=True):
    """The operators rehearsed a loss: the takeover from `from_epoch` was theirs. Changes no state."""

    drill_id: str
    kind: Annotated[str, Meta(examples=["edge.loss", "region.loss"])]
    how: Annotated[str, Meta(examples=["closed", "silent"])]
    from_region: Region
    from_epoch: Epoch


class CallEnded(msgspec.Struct, frozen=True, kw_only=True):
    """The end; nothing follows. `detail`: a code that says more, with `agent_unreachable` and `agent_lost`.

    With `agent_lost`: how often the backend was dialled in vain, and for how long.
    """

    end_reason: Annotated[
        str,
        Meta(
            examples=[
                "caller_hung_up", "agent_hung_up", "ended_by_api", "max_duration", "no_answer", "agent_unreachable", "agent_lost",
                "caller_lost", "edge_lost",
            ]
        ),
    ]  # fmt: skip
    detail: str | None = None
    attempts: Annotated[int, Meta(ge=0)] | None = None
    away_ms: Milliseconds | None = None


class AgentConnected(msgspec.Struct, frozen=True, kw_only=True):
    """The backend's socket is open. `fallback`: it is the `fallback_url`'s; `resumed`: not the call's first.

    After a loss: the attempts it took and the time, and what of the caller's audio waited for it and what was too old.
    """

    fallback: bool
    resumed: bool
    attempts: Annotated[int, Meta(ge=0)] | None = None
    away_ms: Milliseconds | None = None
    replayed_ms: Milliseconds | None = None
    dropped_ms: Milliseconds | None = None


class AgentDisconnected(msgspec.Struct, frozen=True, kw_only=True):
    """It has closed. `clean`: with 1000 or without a code. `why` else; `code`: of the close frame, where there was one."""

    clean: bool
    why: (
        Annotated[str, Meta(examples=["closed", "lost", "does_not_read", "too_large", "hung_up_at_once"])]
        | None
    ) = None
    code: int | None = None


class TurnStarted(msgspec.Struct, frozen=True, kw_only=True):
    """Reserved: nothing writes it yet."""


class TurnEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A turn is over: the caller's when the backend says so, the agent's when its announced text has been played."""

    role: Role
    text: str
    utterance: Utterance | None = None
    truncated: Truncated = False


class TurnInterrupted(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance with a text was cut. `text`: what was heard of it."""

    role: Role
    text: str
    utterance: Utterance
    offset_ms: Milliseconds


class SpeechStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The caller speaks. `offset_ms`: since the answer; `barge_in`: the agent was speaking."""

    offset_ms: Milliseconds
    barge_in: bool


class SpeechStopped(msgspec.Struct, frozen=True, kw_only=True):
    """The caller is quiet."""

    offset_ms: Milliseconds


class PlaybackStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The first audio of an utterance was sent to the caller."""

    utterance: Utterance


class PlaybackInterrupted(msgspec.Struct, frozen=True, kw_only=True):
    """It was cut. `offset_ms`: how much had been sent."""

    utterance: Utterance
    offset_ms: Milliseconds
    by: Annotated[str, Meta(examples=["caller", "agent", "end"])]


class PlaybackDone(msgspec.Struct, frozen=True, kw_only=True):
    """All of it has been sent."""

    utterance: Utterance
    length_ms: Milliseconds


class PlaybackTick(msgspec.Struct, frozen=True, kw_only=True):
    """Volatile: once a second of an utterance that is being played. `offset_ms`: what of it has been sent to the caller."""

    utterance: Utterance
    offset_ms: Milliseconds


class TranscriptPartial(msgspec.Struct, frozen=True, kw_only=True):
    """Volatile. What the backend sent; by convention these."""

    role: Any = None
    text: Any = None


class TranscriptFinal(msgspec.Struct, frozen=True, kw_only=True):
    """What was said, as the backend understood it."""

    role: Role
    text: str


class ToolCalled(msgspec.Struct, frozen=True, kw_only=True):
    """What the backend or the project sent; `arguments` is null where it was too long."""

    id: str = ""
    key: str | None = None
    name: Any = None
    arguments: Any = None
    truncated: Truncated = False


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the backend or the project sent; `result` is null where it was too long."""

    id: str = ""
    key: str | None = None
    result: Any = None
    truncated: Truncated = False


class DtmfReceived(msgspec.Struct, frozen=True, kw_only=True):
    """The caller pressed a key."""

    digit: str


class EventsLost(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of an owner that will never come."""

    epoch: Epoch
    from_n: Annotated[int, Meta(ge=1)]
    to_n: Annotated[int, Meta(ge=1)]
    reason: Annotated[str, Meta(examples=["log_away", "log_lost", "spool"])]


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """Stands instead of content whose key was destroyed."""

    erased: bool


EVENT_DATA: dict[str, type[msgspec.Struct]] = {
    "call.created": CallCreated,
    "call.ringing": CallRinging,
    "call.answered": CallAnswered,
    "call.reconnecting": CallReconnecting,
    "call.moved": CallMoved,
    "call.reconnected": CallReconnected,
    "call.drilled": CallDrilled,
    "call.ended": CallEnded,
    "agent.connected": AgentConnected,
    "agent.disconnected": AgentDisconnected,
    "turn.started": TurnStarted,
    "turn.ended": TurnEnded,
    "turn.interrupted": TurnInterrupted,
    "speech.started": SpeechStarted,
    "speech.stopped": SpeechStopped,
    "playback.started": PlaybackStarted,
    "playback.interrupted": PlaybackInterrupted,
    "playback.done": PlaybackDone,
    "playback.tick": PlaybackTick,
    "transcript.partial": TranscriptPartial,
    "transcript.final": TranscriptFinal,
    "tool.called": ToolCalled,
    "tool.result": ToolResult,
    "dtmf.received": DtmfReceived,
    "events.lost": EventsLost,
}
