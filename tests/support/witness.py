"""What edges on paper report of each other: that all is well, but for what a test says."""

from __future__ import annotations

import asyncio
from uuid import UUID

from regions.wire import ids
from regions.wire.observations import Failure, Observed, Probe
from tests.support.api import Api


def edge_id(edge: UUID) -> str:
    return ids.encode(ids.EDGE, edge)


def health(api: Api, edge: UUID) -> str:
    found = api.control.fleet.now.edge(edge)
    return found.health if found is not None else "unknown"


class Witness:
    """Says of every edge that it is fine, but of one what it is told to: through the instance, as uplinks do."""

    def __init__(self, api: Api, fleet: dict[str, UUID]) -> None:
        self.api, self.fleet = api, fleet
        self.outcomes: dict[UUID, str] = {}
        self.failures: list[Failure] = []
        self.streak = 3

    async def run(self) -> None:
        while True:
            for observer in self.fleet.values():
                probes = [
                    Probe(
                        edge=edge_id(e), listener="http", outcome=self.outcomes.get(e, "ok"), rtt_ms=12.0, age_ms=10,  # type: ignore[arg-type]
                        streak=self.streak, reached=True,
                    )
                    for e in self.fleet.values()
                    if e != observer
                ]  # fmt: skip
                reporter = observer != self.fleet["us-east"]
                self.api.control.observations.heard(
                    observer, Observed(lag_ms=1.0, probes=probes, failures=self.failures if reporter else [])
                )
            await asyncio.sleep(0.1)
