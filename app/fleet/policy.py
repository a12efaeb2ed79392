"""Which command to a region or an edge may be carried out, given what is under way there. Pure: a refusal comes out, or nothing.

    active ──cordon──► cordoned ──uncordon──► active
      │                   │
      └──drain, evacuate──┴──► draining ──uncordon──► active
                                  └ a drain becomes an evacuation; never the other way round

What the detector has begun binds no operator: any command takes its place, but for a cordon, which leaves it be.
The same command again is as good as once. Nothing is drained or evacuated where no healthy edge would be left to take calls.
"""

from __future__ import annotations

from app.errors import Conflict
from app.fleet.view import EdgeState, Fleet

TAKING = ("healthy", "probation")


class Target:
    """A region, or one edge of it."""

    __slots__ = ("edge", "fleet", "region")

    def __init__(self, fleet: Fleet, region: str, edge: EdgeState | None) -> None:
        self.fleet = fleet
        self.region = region
        self.edge = edge

    @property
    def name(self) -> str:
        return f"Edge {self.edge.name} of {self.region}" if self.edge is not None else f"Region {self.region}"

    @property
    def admin_state(self) -> str:
        return self.edge.admin_state if self.edge else self.fleet.regions[self.region].admin_state

    @property
    def edges(self) -> list[EdgeState]:
        return (
            [self.edge] if self.edge is not None else [e for e in self.fleet.edges if e.region == self.region]
        )

    @property
    def survivors(self) -> list[EdgeState]:
        """The edges elsewhere that take calls."""
        mine = {e.id for e in self.edges}
        return [
            e
            for e in self.fleet.edges
            if e.id not in mine
            and e.admin_state == "active"
            and not e.draining
            and e.health in TAKING
            and self.fleet.regions[e.region].admin_state == "active"
            and (self.edge is not None or e.region != self.region)
        ]


def takes_first(fleet: Fleet, edge: EdgeState) -> bool:
    """Whether who comes for the first time is served there, as far as operators and the detector have a say."""
    return (
        edge.admin_state == "active"
        and fleet.regions[edge.region].admin_state == "active"
        and edge.action != "evacuate"
    )


def refusal(verb: str, target: Target, running: str | None) -> Conflict | None:
    """`verb`: ``cordon``, ``drain``, ``evacuate`` or ``uncordon``. `running`: the kind of the target's drain that has not ended
    and that an operator or the edge has begun."""
    if verb == "uncordon":
        return None
    if verb == "cordon":
        if target.admin_state != "draining":
            return None
        return Conflict(
            f"{target.name} is being drained, and takes no new calls already.",
            code="is_draining",
            fix="Uncordon it first if its calls are to stay.",
        )
    if verb == "drain" and running == "evacuate":
        return Conflict(
            f"{target.name} is being evacuated.",
            code="is_evacuating",
            fix="Wait for it, or uncordon and drain again.",
        )
    if target.edge is not None and target.fleet.regions[target.region].admin_state == "draining":
        return Conflict(
            f"Region {target.region} is being drained, and this edge with it.",
            code="is_draining",
            fix="Follow the region's drain, or evacuate the region.",
        )
    if not target.survivors:
        return Conflict(
            f"{target.name} is the last that takes calls: they would have nowhere to go.",
            code="nowhere_to_go",
            fix="Uncordon or start another region or edge first; or cordon this one.",
        )
    if all(e.calls >= e.capacity_calls for e in target.survivors) and any(e.calls for e in target.edges):
        return Conflict(
            "Every other edge is full: the calls would have nowhere to go.",
            code="no_room",
            fix="Start more edges first; or cordon this one, and drain it when calls have ended.",
            retry_after_s=30,
        )
    return None
