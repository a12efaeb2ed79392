"""What edges have measured, and whom they are to measure.

Decides which edge measures which: in each region one edge, drawn by lot among the healthy ones, measures one edge of every other
region and the customers' backends. The lot is a hash, so that all instances draw alike. Of what comes back the newest of each
region is kept, in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import UUID

from app.fleet.view import EdgeState
from app.placement.sites import HEALTHY
from regions.wire.measuring import LEGS_MAX, MESH_MAX, BackendTarget, Measure, Measured, MeshTarget

REGIONS_MAX = 1_000


@dataclass(slots=True)
class Learning:
    """`edges`: the fleet as it is seen now."""

    edges: Callable[[], Iterable[EdgeState]]
    newest: dict[str, Measured] = field(default_factory=dict)

    def heard(self, region: str, measured: Measured) -> None:
        if region in self.newest or len(self.newest) < REGIONS_MAX:
            self.newest[region] = measured

    def measure_for(self, edge_id: UUID) -> Measure | None:
        """Every edge is asked for what it witnesses of its callers; the one that was drawn in its region measures the rest."""
        drawn = drawn_edges(edge_id, list(self.edges()))
        if drawn is None:
            return Measure()
        mesh = [MeshTarget(region=e.region, media_url=e.media_url) for e in drawn[:MESH_MAX]]
        return Measure(mesh=mesh, backends=self.backends()[:LEGS_MAX])

    def backends(self) -> list[BackendTarget]:
        """The hosts whose distance matters now; at most `LEGS_MAX` are measured."""
        return []


def drawn_edges(observer: UUID, edges: list[EdgeState]) -> list[EdgeState] | None:
    """One healthy edge of every other region, sorted by region; None where another edge of its region measures, or it is none."""
    by_region: dict[str, list[EdgeState]] = {}
    for edge in edges:
        if edge.health in HEALTHY and not edge.stopped:
            by_region.setdefault(edge.region, []).append(edge)
    own = next((e.region for e in edges if e.id == observer), None)
    if own is None or own not in by_region:
        return None
    if min(by_region[own], key=lambda e: _lot(own, e.id)).id != observer:
        return None
    others = sorted(region for region in by_region if region != own)
    return [min(by_region[region], key=lambda e: _lot(own, e.id)) for region in others]


def _lot(region: str, edge: UUID) -> bytes:
    return hashlib.blake2b(f"{region}{edge}".encode(), digest_size=8).digest()
