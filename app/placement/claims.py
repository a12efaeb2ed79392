"""What projects say their callers have measured: for that project's own calls, for ten minutes, and for nobody else. Pure.

A project can claim what it likes about any network. It is believed where it is the only one that is hurt: what is shared between
projects comes from the edges' own witness (`app.placement.witness`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

KEPT_S = 600.0
NETWORKS_MAX = 50_000


@dataclass(frozen=True, slots=True)
class Claim:
    """One region, measured by a caller. `loss` is a share from 0 to 1."""

    region: str
    rtt_ms: float
    jitter_ms: float
    loss: float
    at: datetime


def newest(claims: Iterable[Claim], now: datetime) -> list[Claim]:
    """One for each region, without what is too old to be believed."""
    found: dict[str, Claim] = {}
    for claim in claims:
        known = found.get(claim.region)
        if (now - claim.at).total_seconds() <= KEPT_S and (known is None or known.at <= claim.at):
            found[claim.region] = claim
    return list(found.values())


class Claims:
    def __init__(self) -> None:
        self._claims: OrderedDict[tuple[UUID, int], dict[str, Claim]] = OrderedDict()

    def learn(self, project_id: UUID, network: int, claims: Iterable[Claim]) -> None:
        """The newest of each region."""
        key = (project_id, network)
        known = self._claims.setdefault(key, {})
        for claim in claims:
            before = known.get(claim.region)
            if before is None or before.at <= claim.at:
                known[claim.region] = claim
        self._claims.move_to_end(key)
        while len(self._claims) > NETWORKS_MAX:
            self._claims.popitem(last=False)

    def recall(self, project_id: UUID, network: int, now: datetime) -> list[Claim]:
        known = self._claims.get((project_id, network), {})
        return [c for c in known.values() if (now - c.at).total_seconds() <= KEPT_S]
