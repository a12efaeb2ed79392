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
    """`networks_max`: of all projects together. Beyond it the project with the most forgets its oldest: whoever reports of more
    networks than there is room for costs nobody else theirs."""

    def __init__(self, networks_max: int = NETWORKS_MAX) -> None:
        self._networks_max = networks_max
        self._projects: dict[UUID, OrderedDict[int, dict[str, Claim]]] = {}
        self._networks = 0

    def __len__(self) -> int:
        return self._networks

    def learn(self, project_id: UUID, network: int, claims: Iterable[Claim]) -> None:
        """The newest of each region."""
        networks = self._projects.setdefault(project_id, OrderedDict())
        known = networks.get(network)
        if known is None:
            known = networks[network] = {}
            self._networks += 1
        for claim in claims:
            before = known.get(claim.region)
            if before is None or before.at <= claim.at:
                known[claim.region] = claim
        networks.move_to_end(network)
        while self._networks > self._networks_max:
            self._forget()

    def recall(self, project_id: UUID, network: int, now: datetime) -> list[Claim]:
        networks = self._projects.get(project_id)
        known = None if networks is None else networks.get(network)
        if known is None:
            return []
        return [c for c in known.values() if (now - c.at).total_seconds() <= KEPT_S]

    def _forget(self) -> None:
        """Several at once, for it looks at every project."""
        largest = max(self._projects, key=lambda p: len(self._projects[p]))
        networks = self._projects[largest]
        for _ in range(max(1, min(len(networks) // 2, self._networks_max // 100))):
            networks.popitem(last=False)
            self._networks -= 1
        if not networks:
            del self._projects[largest]
