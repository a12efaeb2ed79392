"""The data of every event type: one struct each. The JSON Schemas, the AsyncAPI document and the client's types are made from it.

Decides what a reader may rely on. Versions are additive: fields are added, and values are added where a field is said to have
some, so a reader ignores what it does not know. A field is never taken away, renamed, or given another type. Who writes events
may write more than stands here only where it says so (`tool.called`, `tool.result`, `transcript.partial`: what the backend sent).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from regions.wire.line_data import Carried, Quality

Role = Annotated[str, Meta(description="Who spoke.", examples=["caller", "agent"])]
Region = Annotated[str, Meta(description="A region's id.", examples=["us-east"])]
Utterance = Annotated[int, Meta(ge=0, description="The agent's utterances are numbered within the call.")]
Milliseconds = Annotated[int, Meta(ge=0)]
Epoch = Annotated[int, Meta(ge=0, description="The number of an ownership of the call; 0: not known.")]
Truncated = Annotated[bool, Meta(description="Part of it was too long, and is left out.")]


class CallerKind(msgspec.Struct, frozen=True, kw_only=True):
    """How the caller reaches the call."""

    kind: Annotated[str, Meta(examples=["websocket", "webrtc", "twilio"])]


class CallCreated(msgspec.Struct, frozen=True, kw_only=True):
    """The create has committed. `traceparent` (W3C): where the call is traced."""

    caller: CallerKind
    region: Region
    standbys: list[Region]
    metadata: dict[str, str]
    traceparent: str | None = None


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


class CallQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Ten seconds after an edge has the call, then once a minute, and before it sends the call to another edge by plan. All numbers
    are of this owner, since it has the call: the last of an epoch counts, or the final event's. `final`: it carries
    the call no more, and has nothing to add."""

    quality: Quality
    usage: Carried
    final: bool = False


class CallEnded(msgspec.Struct, frozen=True, kw_only=True):
    """The end; nothing follows. `detail`: a code that says more, with `agent_unreachable` and `agent_lost`. `reason`: only from edges
    of before `agent.hung_up`.

    With `agent_lost`: how often the backend was dialled in vain, and for how long. Where the owner of the call has ended it: the
    `quality` of its line and the `usage`, as in `call.quality`.
    """

    end_reason: Annotated[
        str,
        Meta(
            examples=[
                "caller_hung_up", "agent_hung_up", "ended_by_api", "max_duration", "no_answer", "agent_unreachable", "agent_lost",
                "caller_lost", "edge_lost", "resolved", "idle", "caller_silent", "monologue", "erased",
            ]
        ),
    ]  # fmt: skip
    detail: str | None = None
    reason: str | None = None
    attempts: Annotated[int, Meta(ge=0)] | None = None
    away_ms: Milliseconds | None = None
    quality: Quality | None = None
    usage: Carried | None = None


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


class AgentHungUp(msgspec.Struct, frozen=True, kw_only=True):
    """The backend has ended the call, and given a reason of its own, in its own words: content, as all that it says."""

    reason: Annotated[str, Meta(examples=["the order is placed"])]


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
    """A turn is over: the caller's when the backend says so, or else when the edge has found its end; the agent's when its announced
    text has been played.

    Of a caller's turn that the edge has heard: when its voice began and ended, since the answer, and how long it took to be sure. Its
    `text` is what the backend has said of it; empty where it says nothing.
    """

    role: Role
    text: str
    utterance: Utterance | None = None
    truncated: Truncated = False
    started_ms: Milliseconds | None = None
    stopped_ms: Milliseconds | None = None
    waited_ms: Milliseconds | None = None
    by: Annotated[str, Meta(description="What ended it.", examples=["silence", "talk"])] | None = None


class TurnInterrupted(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance with a text was cut. `text`: what was heard of it."""

    role: Role
    text: str
    utterance: Utterance
    offset_ms: Milliseconds


class TurnFalseInterruption(msgspec.Struct, frozen=True, kw_only=True):
    """The agent was held because the caller seemed to interrupt it, and goes on. `offset_ms`: of the utterance, from where.

    `voiced_ms`: so long the caller's voice was heard; `held_ms`: so long the agent was not.
    """

    utterance: Utterance
    offset_ms: Milliseconds
    voiced_ms: Milliseconds
    held_ms: Milliseconds


class SpeechStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The caller speaks. `offset_ms`: since the answer, of the first sound; `barge_in`: the agent was speaking."""

    offset_ms: Milliseconds
    barge_in: bool


class SpeechStopped(msgspec.Struct, frozen=True, kw_only=True):
    """The caller is quiet. `offset_ms`: since the answer, where its voice ended."""

    offset_ms: Milliseconds


class PlaybackStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The first audio of an utterance was sent to the caller. `offset_ms`: it goes on from there, after a failure."""

    utterance: Utterance
    offset_ms: Milliseconds = 0


class PlaybackInterrupted(msgspec.Struct, frozen=True, kw_only=True):
    """It was cut. `offset_ms`: how much the caller had heard, where it has said so; else how much had been sent."""

    utterance: Utterance
    offset_ms: Milliseconds
    by: Annotated[str, Meta(examples=["caller", "agent", "end", "agent_lost", "edge_lost"])]


class PlaybackDone(msgspec.Struct, frozen=True, kw_only=True):
    """All of it has been sent."""

    utterance: Utterance
    length_ms: Milliseconds


class PlaybackTick(msgspec.Struct, frozen=True, kw_only=True):
    """Volatile: once a second of an utterance that is being played. `offset_ms`: what of it has been sent to the caller."""

    utterance: Utterance
    offset_ms: Milliseconds


Stages = Annotated[
    dict[str, int],
    Meta(
        description="Milliseconds by stage, in their order: capture, uplink, jitter, end_of_turn, stt, llm, tts, backend, pacing,"
        " downlink. stt, llm and tts are there where the backend reported them; together they are the total.",
        examples=[
            {
                "capture": 20,
                "uplink": 30,
                "jitter": 40,
                "end_of_turn": 320,
                "backend": 390,
                "pacing": 20,
                "downlink": 30,
            }
        ],
    ),
]


class TurnAnswered(msgspec.Struct, frozen=True, kw_only=True):
    """The agent begins to answer the caller's turn: `total_ms` from the caller's last sound to the answer's first, in its ear."""

    utterance: Utterance
    total_ms: Milliseconds
    stages: Stages


class TurnBudgetExceeded(msgspec.Struct, frozen=True, kw_only=True):
    """An answer took longer than the call's `latency_budget`."""

    utterance: Utterance
    total_ms: Milliseconds
    stages: Stages
    exceeded: Annotated[
        list[str], Meta(description="Stages over their budget, and `total`.", examples=[["total", "llm"]])
    ]


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
    reason: Annotated[str, Meta(examples=["log_away", "log_lost", "spool", "unfit"])]


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """Stands instead of content whose key was destroyed."""

    erased: bool


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """Stands instead of content for a reader whose key may not read conversations (`conversation:read`)."""

    withheld: bool


EVENT_DATA: dict[str, type[msgspec.Struct]] = {
    "call.created": CallCreated,
    "call.ringing": CallRinging,
    "call.answered": CallAnswered,
    "call.reconnecting": CallReconnecting,
    "call.moved": CallMoved,
    "call.reconnected": CallReconnected,
    "call.drilled": CallDrilled,
    "call.quality": CallQuality,
    "call.ended": CallEnded,
    "agent.connected": AgentConnected,
    "agent.disconnected": AgentDisconnected,
    "agent.hung_up": AgentHungUp,
    "turn.started": TurnStarted,
    "turn.ended": TurnEnded,
    "turn.interrupted": TurnInterrupted,
    "turn.false_interruption": TurnFalseInterruption,
    "turn.answered": TurnAnswered,
    "turn.budget_exceeded": TurnBudgetExceeded,
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
