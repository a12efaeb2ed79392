"""How long until 10,000 calls of a lost region have a place again: the planner's work, and the pace at which edges take them.

Part of the family failover. Three regions of fifteen edges with 1,000 places; one is lost with 10,000 calls, the others carry
9,500 each, and 2,000 new calls wait meanwhile. The planner alone is real, and its time is measured; the takes are in its plan's
time. Nothing is counted that breaks I9.
"""

from __future__ import annotations

import time
from collections import Counter
from uuid import UUID

from app.fleet.failover_plan import Desired, FailoverPlan, plan_failover
from app.fleet.plan import Leaving
from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.choice import Measured
from tests.bench.report import Figure
from tests.bench.support import quantile

CALLS = 10_000
ARRIVING = 2_000
EDGES_EACH = 15
CAPACITY = 1_000
CARRIED = 9_500
REGIONS = ("us-east", "eu-west", "ap-south")
ROUNDS = 5


async def measure(*, full: bool) -> list[Figure]:
    fleet, lost, calls, arriving = lost_region()
    took_s: list[float] = []
    for seed in range(ROUNDS * (4 if full else 1)):
        began = time.perf_counter()
        plan = plan_failover(fleet, lost, calls, arriving, reserved={}, desired=Desired(), seed=seed)
        took_s.append(time.perf_counter() - began)
        check(fleet, plan)
    last_s = max(p.after_ms for p in plan.reconnect) / 1000
    how = f"one of three regions lost; {len(plan.admit)} of {ARRIVING} new calls let in behind"
    return [
        Figure(family="failover", name="failover.replaced_10000_s", value=max(took_s) + last_s, unit="s", target=5.0,
               at_most=True, how=how),
        Figure(family="failover", name="failover.replaced_plan_s", value=quantile(took_s, 0.5), unit="s",
               how=f"of it the planner, the median of {len(took_s)} rounds"),
    ]  # fmt: skip


def lost_region() -> tuple[Fleet, frozenset[UUID], list[Leaving], list[Leaving]]:
    """(the fleet, the edges that are lost, their calls, calls that wait to begin)."""
    edges = tuple(
        EdgeState(
            id=UUID(int=100 * i + j), region=region, name=f"e{j}", incarnation=UUID(int=1), media_url="ws://m",
            http_url="http://h", capacity_calls=CAPACITY, calls=CALLS // EDGES_EACH if i == 0 else CARRIED // EDGES_EACH,
            health="down" if i == 0 else "healthy",
        )
        for i, region in enumerate(REGIONS)
        for j in range(1, EDGES_EACH + 1)
    )  # fmt: skip
    regions = {
        r: RegionState(id=r, jurisdiction=r[:2], admin_state="active", health="down" if i == 0 else "healthy")
        for i, r in enumerate(REGIONS)
    }
    lost = tuple(e for e in edges if e.region == REGIONS[0])
    calls = [_call(n, lost[n % len(lost)].id) for n in range(CALLS)]
    arriving = [_call(CALLS + n, UUID(int=0)) for n in range(ARRIVING)]
    return Fleet(regions=regions, edges=edges), frozenset(e.id for e in lost), calls, arriving


def _call(number: int, edge: UUID) -> Leaving:
    """Callers of everywhere: each is nearer to one of the survivors."""
    near, far = (REGIONS[1], REGIONS[2]) if number % 3 else (REGIONS[2], REGIONS[1])
    measured = {near: Measured(rtt_ms=40 + number % 50), far: Measured(rtt_ms=140 + number % 70)}
    return Leaving(call_id=UUID(int=10_000 + number), epoch=1, edge_id=edge, measured=measured)


def check(fleet: Fleet, plan: FailoverPlan) -> None:
    """Everybody has a place, and no edge more than it has room for."""
    assert len(plan.reconnect) == CALLS and not plan.stuck
    assert len(plan.admit) + len(plan.defer) == ARRIVING
    given = Counter(p.edges[0].id for p in (*plan.reconnect, *plan.admit))
    for edge in fleet.edges:
        assert not given[edge.id] or (
            edge.health == "healthy" and edge.calls + given[edge.id] <= edge.capacity_calls
        )
    behind = {p.edges[0].id: p.after_ms for p in plan.reconnect}
    assert all(p.after_ms >= behind.get(p.edges[0].id, 0.0) for p in plan.admit), "live calls go first"
