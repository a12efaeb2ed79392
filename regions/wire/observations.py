"""What edges see of each other and hear of from callers, on its way up the uplink, and whom an edge is to look at.

Decides the messages and their limits. What is made of it is the control plane's business (``docs/explanation/detector.md``).
Ages and not times travel: an edge whose clock is wrong says nothing wrong. Every report is the whole of what is known, so
that one that is lost, or comes twice, changes nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

TARGETS_MAX = 32
FAILURES_MAX = 200
FAILURES_KEPT_S = 10.0
AGE_MS_MAX = 600_000
RTT_MS_MAX = 60_000.0
STREAK_MAX = 1_000

Listener = Literal["http", "media"]
Outcome = Literal["ok", "timeout", "refused", "error"]
Reason = Literal["silent", "closed", "refused"]


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """An edge to look at: its ``edge_`` id and its two listeners, ``http(s)://host:port`` and ``ws(s)://host:port``."""

    edge: str
    http_url: str
    media_url: str


class Neighbours(msgspec.Struct, frozen=True, kw_only=True, tag="neighbours"):
    """To an edge: probe these from now on, each once in `every_s`, and say what is seen (`Observed`). Replaces the list before."""

    targets: list[Neighbour]
    every_s: float = 1.0


class Probe(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The newest look at one listener of another edge.

    `outcome`: ``ok``; ``timeout``, nobody answered (or no way there); ``refused``, a machine that answers and no process that
    listens; ``error``, another answer than it should be, or a connection that was cut. `streak`: so many looks in a row had
    this outcome. `reached`: it was ``ok`` at some time since this edge began to look.
    """

    edge: str
    listener: Listener
    outcome: Outcome
    rtt_ms: float
    age_ms: int
    streak: int
    reached: bool


class Failure(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A caller that came here because its edge failed it: the call, the edge it left, why, and how long ago."""

    call: str
    edge: str
    reason: Reason
    age_ms: int


class Observed(msgspec.Struct, frozen=True, kw_only=True, tag="observed", omit_defaults=True):
    """To the control plane, once a second and when an outcome turns; only by an edge that was given `Neighbours`.

    `lag_ms`: how late this edge's own loop has been of late. `failures`: of the last `FAILURES_KEPT_S`, one per call.
    """

    lag_ms: float
    probes: list[Probe] = []
    failures: list[Failure] = []
