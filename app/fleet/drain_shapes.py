"""Drains and moves on the wire of the REST API."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

WITHIN_S_DEFAULT = 300


class DrainRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`within_s`: so long the end of a turn is waited for; then calls are moved in the middle of one."""

    within_s: Annotated[int, Meta(ge=1, le=86_400)] = WITHIN_S_DEFAULT


class EvacuateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing: an evacuation waits for nothing, so who gives it a time is told that it takes none."""


class StuckView(msgspec.Struct, frozen=True, kw_only=True):
    """A call that cannot be moved. `why`: ``residency`` (nothing else is allowed), ``unhealthy``, ``full``, ``too_far``, or
    ``not_taken`` (asked several times, and its caller took none of the edges)."""

    call_id: str
    why: str


class DrainView(msgspec.Struct, frozen=True, kw_only=True):
    """How far a drain or an evacuation is. `state`: ``running``, ``drained`` (every call has left; it goes on catching those that
    come back), ``canceled``, ``stopped`` (the edge has ended) or ``recovered`` (the detector asks for it no more). `by`:
    ``operator``, ``edge`` where the edge was told to stop, ``detector`` where its verdict asks for it.

    `total`: calls at the beginning. `moved`, `ended`, `failed`: moves by what became of them. `left`: calls that are still there,
    of which `under_way` are being moved. `deadline`: then the ends of turns are not waited for any more.
    """

    region: str
    edge: str | None
    kind: str
    by: str
    state: str
    total: int
    moved: int
    ended: int
    failed: int
    left: int
    under_way: int
    stuck: list[StuckView]
    started_at: str
    deadline: str
    drained_at: str | None
    ended_at: str | None


class DrainPage(msgspec.Struct, frozen=True, kw_only=True):
    """Those that run first, the newest of each first."""

    data: list[DrainView]


class MoveRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`region`: where to; the best other edge where it is left out. `within_s`: so long the end of a turn is waited for."""

    region: Annotated[str, Meta(max_length=31)] | None = None
    within_s: Annotated[int, Meta(ge=0, le=3_600)] = 30


class MoveView(msgspec.Struct, frozen=True, kw_only=True):
    """A move that was asked for. The call's `epoch` is at least this one when it has been made, and `call.moved` says so."""

    call_id: str
    region: str
    edge: str
    epoch: int
    deadline: str
