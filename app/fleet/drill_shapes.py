"""Drills on the wire of the REST API."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MARK = "voxplane_drill"
"""The key in a call's metadata that makes it a synthetic one: its value is the drill's `label`."""


class DrillBounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one is broken, the drill stops by itself. `max_rto_ms`: of each call; the others of all together."""

    max_rto_ms: Annotated[int, Meta(ge=50, le=60_000)] = 2_000
    max_lost_events: Annotated[int, Meta(ge=0, le=100_000)] = 0
    max_failed_calls: Annotated[int, Meta(ge=0, le=1_000)] = 0


class DrillRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`kind`: ``edge.loss`` (`target`: the edge's id) or ``region.loss`` (the region's). `calls`: ``real``, or ``synthetic``: those
    whose `metadata.voxplane_drill` is `label`. `share` of the calls that are there now, `max_calls` at most. `how`: the caller's
    connection is ``closed``, or stays open and is ``silent``. `dry_run`: says what would be done, and does nothing."""

    kind: Literal["edge.loss", "region.loss"]
    target: Annotated[str, Meta(min_length=1, max_length=64)]
    calls: Literal["synthetic", "real"] = "synthetic"
    label: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    share: Annotated[float, Meta(gt=0, le=1)] = 0.1
    max_calls: Annotated[int, Meta(ge=1, le=1_000)] = 100
    how: Literal["closed", "silent"] = "closed"
    bounds: DrillBounds = msgspec.field(default_factory=DrillBounds)
    time_limit_s: Annotated[int, Meta(ge=5, le=3_600)] = 300
    dry_run: bool = False


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """So many of the calls would go to this edge first."""

    edge: str
    region: str
    calls: int


class DrillPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a drill would do now. `on_target`: the calls that are meant; `unprotected`: of these, without a standby elsewhere that has
    a place left: no drill touches them, and a real loss would. `waves`: how many calls each cuts."""

    kind: str
    region: str
    edge: str | None
    on_target: int
    unprotected: int
    total: int
    waves: list[int]
    destinations: list[Destination]


class DrilledCall(msgspec.Struct, frozen=True, kw_only=True):
    """`outcome`: ``recovered``, ``ended``, ``lost``, ``untouched`` (it had left before), or null while it is followed. `rto_ms`: from
    the cut until caller and backend were both at the new edge, by `clock` (``edges`` or ``database``); `audio_ms`: until audio flowed
    both ways, where that was seen. `lost_events`: acknowledged and not in the log;
    `adopted_events`, `dropped_events`: what was not acknowledged at the cut, by whether the log has it."""

    call_id: str
    wave: int
    from_region: str
    from_edge: str
    from_epoch: int
    cut_at: str | None
    outcome: str | None
    to_region: str | None = None
    to_edge: str | None = None
    to_epoch: int | None = None
    rto_ms: float | None = None
    clock: str = ""
    audio_ms: float | None = None
    lost_events: int = 0
    adopted_events: int = 0
    dropped_events: int = 0
    end_reason: str | None = None


class DrillSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Over the calls that were cut and are settled."""

    cut: int
    recovered: int
    ended: int
    lost: int
    untouched: int
    open: int
    rto_p50_ms: float | None
    rto_p99_ms: float | None
    rto_max_ms: float | None
    lost_events: int
    adopted_events: int
    dropped_events: int


class DrillView(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: ``running``, ``stopping`` (no more is cut, what was is followed) or ``ended``. `verdict`: ``passed``, ``failed``,
    ``stopped`` or ``cancelled``, with the `reason`: the bound that was broken, or what made the drill stop. `wave`: the one that
    was begun last.
    `per_call` is left out of lists."""

    id: str
    state: str
    verdict: str | None
    reason: str
    region: str
    edge: str | None
    request: DrillRequest
    total: int
    wave: int
    started_at: str
    deadline: str
    ended_at: str | None
    summary: DrillSummary | None = None
    per_call: list[DrilledCall] | None = None


class DrillPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[DrillView]
