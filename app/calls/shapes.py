"""The call on the wire of the REST API: what a create may say and what a call looks like."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from regions.wire.ticket import TICKET_BYTES_MAX

Region = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9-]{1,30}$", description="Id of a region, such as `us-east`.")
]
Milliseconds = Annotated[float, Meta(gt=0, le=10_000)]
Url = Annotated[str, Meta(min_length=1, max_length=2048)]
ShortText = Annotated[str, Meta(max_length=512)]
Address = Annotated[str, Meta(min_length=2, max_length=45, description="An IPv4 or IPv6 address.")]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Subject = Annotated[str, Meta(min_length=1, max_length=256)]


class CallerRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who calls. `websocket` and `webrtc` attach with the ticket; `twilio` is a `<Stream>` of Twilio's, or who speaks as it does,
    with the ticket in its URL: it cannot go to a standby, and gets none. `from` and `to` are E.164 numbers, `tel:` or `sip:` URIs.
    `address`: the caller's own IP address, for placement alone: no more than its network (/24 or /48) is looked at, and nothing of
    it is stored; with `regions.move_for_gain` the network is."""

    kind: Literal["websocket", "webrtc", "twilio", "phone"] = "websocket"
    from_: Annotated[str, Meta(max_length=256)] | None = msgspec.field(name="from", default=None)
    to: Annotated[str, Meta(max_length=256)] | None = None
    address: Address | msgspec.UnsetType = msgspec.UNSET


class ReconnectRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens when the backend is lost while the caller is there. `sound`: what the caller hears meanwhile. `deadline_s`: for
    how long it is dialled again before the call ends as `agent_lost`; 0: not at all. `silent_s`: a backend that sends nothing for
    half as long is sent a ping; one that does not answer it in the other half is lost."""

    sound: Literal["tone", "silence"] = "tone"
    deadline_s: Annotated[float, Meta(ge=0, le=120)] = 20.0
    silent_s: Annotated[float, Meta(ge=2, le=60)] = 20.0


class AgentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The customer's AI backend: a WebSocket that the edge dials. `parameters` reach it with the first message. `sample_rate`: of
    the audio both ways, in Hz: `twilio` 8000; `teler` 8000, 16000; `exotel` 8000, 16000, 24000; `native` 8000, 16000 (unless you
    say otherwise), 24000, 48000."""

    url: Url
    dialect: Literal["twilio", "teler", "exotel", "native"] = "twilio"
    sample_rate: Literal[8000, 16000, 24000, 48000] | msgspec.UnsetType = msgspec.UNSET
    parameters: Annotated[dict[Name, ShortText], Meta(max_length=32)] = {}
    fallback_url: Url | None = None
    reconnect: ReconnectRequest = msgspec.field(default_factory=ReconnectRequest)


class EndWhenRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """After how many seconds the call ends by itself; 0: never. `idle_s`: nobody has said anything. `silence_s`: the caller has said
    nothing, however often the agent has asked. `monologue_s`: the caller has spoken without a pause, as a voicemail greeting does.
    None of them counts while there is no backend."""

    idle_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    silence_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    monologue_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0


Stage = Literal[
    "capture", "uplink", "jitter", "end_of_turn", "stt", "llm", "tts", "backend", "pacing", "downlink"
]


class LatencyBudgetRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """How long an answer may take, from the caller's last sound to the answer's first in its ear; 0: as long as it likes. One that
    takes longer, in all or in a stage, writes `turn.budget_exceeded`."""

    total_ms: Annotated[float, Meta(ge=0, le=60_000)] = 0.0
    stages: dict[Stage, Annotated[float, Meta(gt=0, le=60_000)]] = {}


class LatencyRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A round trip that the caller measured. `loss` is a share from 0 to 1."""

    region: Region
    rtt_ms: Milliseconds
    jitter_ms: Annotated[float, Meta(ge=0, le=10_000)] = 0.0
    loss: Annotated[float, Meta(ge=0, le=1)] = 0.0
    at: Annotated[datetime, Meta(tz=True)] | None = None


class RegionsRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    allow: Annotated[list[Region], Meta(max_length=64)] = []
    prefer: Annotated[list[Region], Meta(max_length=64)] = []
    pin: Region | None = None
    jurisdictions: Annotated[
        list[Annotated[str, Meta(min_length=2, max_length=16)]], Meta(max_length=32)
    ] = []
    rtt_ms_max: Milliseconds | None = None
    rtt_ms_relax: Annotated[
        list[Milliseconds],
        Meta(max_length=8, description="Caps above `rtt_ms_max`, ascending, for when no region meets it."),
    ] = []
    move_for_gain: Annotated[
        bool,
        Meta(
            description="Move the call, at the end of a turn, to a region that has been nearer by 40 ms and by a quarter for a minute"
            " and a half. Needs `caller.address`, whose network (/24 or /48) is then kept with the call; excludes `pin`."
        ),
    ] = False


class TurnsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the caller's turns are found, and what its voice does to the agent's. `mode`: by its voice (`auto`), by its button, or not
    by Voxplane at all (`off`). `start_ms`: so much voice is speech. `end_ms`: so much silence ends a turn; for a speaker who pauses
    longer it may grow to `end_ms_max`. `barge_in`: what a voice over the agent does. `two_step`: it holds the agent and cancels it
    after `barge_in_ms` of speech or a word, else the agent goes on; `immediate`: it cancels at once; `off`: nothing."""

    mode: Literal["auto", "push_to_talk", "off"] = "auto"
    start_ms: Annotated[int, Meta(ge=40, le=500)] = 60
    end_ms: Annotated[int, Meta(ge=200, le=3_000)] = 320
    end_ms_max: Annotated[int, Meta(ge=200, le=5_000)] = 1_000
    barge_in: Literal["two_step", "immediate", "off"] = "two_step"
    barge_in_ms: Annotated[int, Meta(ge=60, le=2_000)] = 200


DEFAULT_TURNS = TurnsRequest()
DURATION_DEFAULT_S = 3_600


class CreateCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Body of ``POST /v1/calls``. `subject`: whom the call is about, in the project's own words: only a keyed hash of it is
    stored, by which all calls of one person are found when that person is to be forgotten."""

    agent: AgentRequest
    caller: CallerRequest = msgspec.field(default_factory=CallerRequest)
    latencies: Annotated[list[LatencyRequest], Meta(max_length=100)] = []
    regions: RegionsRequest = msgspec.field(default_factory=RegionsRequest)
    turns: TurnsRequest = DEFAULT_TURNS
    webhook_url: Url | None = None
    metadata: Annotated[dict[Name, ShortText], Meta(max_length=32)] = {}
    max_duration_s: Annotated[int, Meta(ge=1, le=86_400)] = DURATION_DEFAULT_S
    end_when: EndWhenRequest = msgspec.field(default_factory=EndWhenRequest)
    latency_budget: LatencyBudgetRequest = msgspec.field(default_factory=LatencyBudgetRequest)
    subject: Subject | msgspec.UnsetType = msgspec.UNSET


class EndCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/calls/{id}/end``; it may be empty."""


class TicketRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/calls/{id}/ticket``: the old ticket is the credential."""

    ticket: Annotated[str, Meta(max_length=TICKET_BYTES_MAX)]


class CandidateView(msgspec.Struct, frozen=True, kw_only=True):
    """One region as the choice saw it; `reason` is ``chosen`` or why it was not. `source`: what `rtt_ms` rests on (`measured`,
    `history`, `wider`, `alike`, `geography`, `prior`), with how much `confidence` (0 to 1). `backend_ms`: the round trip from there
    to the customer's backend, where it is known."""

    region: str
    reason: str
    source: str
    rtt_ms: float
    jitter_ms: float
    load: float
    cost_ms: float
    health: str
    confidence: float = 0.0
    backend_ms: float | None = None


class PlaceView(msgspec.Struct, frozen=True, kw_only=True):
    region: str
    edge: str
    url: str


class PlacementView(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded decision. `protection`: ``full``, ``reduced`` or ``none``, with the reason when not full. `rtt_ms_cap`: the cap
    that was met, where the call named one."""

    region: str
    edge: str
    url: str
    standbys: list[PlaceView]
    candidates: list[CandidateView]
    protection: str
    protection_reason: str = ""
    panic: bool = False
    rtt_ms_cap: float | None = None


class TailView(msgspec.Struct, frozen=True, kw_only=True):
    """What one region has of the call in its memory. `role`: ``owner``, or ``standby`` where the call could move to.

    `seq`: the newest event there, null where there is none or the region does not answer (`reachable`). `behind`: how many of
    the call's events are missing; `lag_s`: since when the oldest of them has been in the log. `written_at`: when the newest
    one there was acknowledged.
    """

    region: str
    role: str
    reachable: bool
    seq: int | None
    behind: int | None
    lag_s: float | None
    written_at: str | None


class CallView(msgspec.Struct, frozen=True, kw_only=True):
    """A call as customers see it. `erased_at`: since then nothing is left but times, places and counts. `tails` is there where it
    was asked for (``?tails=true``), `traceparent` where it is traced."""

    id: str
    state: str
    epoch: int
    seq: int
    region: str | None
    edge: str | None
    caller: CallerRequest
    agent: AgentRequest
    turns: TurnsRequest
    placement: PlacementView
    metadata: dict[str, str]
    webhook_url: str | None
    max_duration_s: int
    end_when: EndWhenRequest
    latency_budget: LatencyBudgetRequest
    created_at: str
    answered_at: str | None
    ended_at: str | None
    end_reason: str | None
    erased_at: str | None = None
    traceparent: str | msgspec.UnsetType = msgspec.UNSET
    tails: list[TailView] | msgspec.UnsetType = msgspec.UNSET


class CreatedCall(CallView, frozen=True, kw_only=True):
    """The answer to a create: the call, its ticket, and where to attach, in order."""

    ticket: str
    attach: list[str]


class NewTicket(msgspec.Struct, frozen=True, kw_only=True):
    ticket: str
    epoch: int
    attach: list[str]


class CallPage(msgspec.Struct, frozen=True, kw_only=True):
    """`next_cursor`: where to go on; null at the end. A page may hold fewer than `limit`, even none, and have one:
    several filters that are hardly ever together are looked for a fiftieth of a second at a time."""

    data: list[CallView]
    next_cursor: str | None


class WaitingEdge(msgspec.Struct, frozen=True, kw_only=True):
    """One edge that was granted the call. `answer`: `due`, `asked`, `denied`, `held`, `silent` (not heard, so nobody can ask it) or
    `restarted` (it refuses the grants of before)."""

    edge: str
    region: str | None
    answer: str
    asked_at: str | None


class WaitingCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that may be over and has not ended: `reason` is what its final event will say. It ends once no edge can hold it, at
    the latest some time after `grants_expire_at`."""

    call_id: str
    project_id: str
    reason: str
    since: str
    grants_expire_at: str
    edges: list[WaitingEdge]


class WaitingPage(msgspec.Struct, frozen=True, kw_only=True):
    """`cells_away`: cells that did not answer; their calls are missing here."""

    data: list[WaitingCall]
    cells_away: list[int] = []
