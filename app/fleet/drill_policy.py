"""Whether a drill may begin, and whether the fleet is fit for more of it. Pure: a refusal comes out, or nothing.

A drill breaks things on purpose, so it begins only where nothing else is broken or being changed: the first case that applies.

1. ``drill_running``     another drill has not ended
2. ``is_draining``       the target is being drained: its calls leave anyway
3. ``target_down``       the target takes no calls by the detector's word: this is no rehearsal
4. ``drain_running``     calls are being moved off somewhere else
5. ``fleet_unhealthy``   another edge is suspect or down
6. ``nowhere_to_go``     no healthy edge would be left
7. ``no_calls``          none of the calls that are meant are there
8. ``no_standbys``       none of them has a standby elsewhere with a place left: it would be the loss, not its rehearsal
"""

from __future__ import annotations

from collections.abc import Set
from uuid import UUID

from app.errors import Conflict
from app.fleet.policy import TAKING, Target


def refusal(
    target: Target, *, gone: Set[UUID], drill_running: str, drain_running: bool, calls: int, protected: int
) -> Conflict | None:
    """`drill_running`: the id of the drill that runs. `gone`: edges that are no part of the fleet any more. `calls`: those that are
    meant; `protected`: of these, with somewhere to go."""
    fleet = target.fleet
    if drill_running:
        return Conflict(
            "Another drill is running.", code="drill_running",
            fix=f"Follow it (GET /admin/v1/drills/{drill_running}), or stop it (POST …/stop).",
        )  # fmt: skip
    if "draining" in (target.admin_state, fleet.regions[target.region].admin_state):
        return Conflict(
            f"{target.name} is being drained: its calls leave anyway.", code="is_draining",
            fix="Uncordon it first, or drill another target.",
        )  # fmt: skip
    if not any(e.health in TAKING and not e.draining for e in target.edges):
        return Conflict(
            f"{target.name} takes no calls at present: there is nothing to rehearse.", code="target_down",
            fix="See its health (GET …/health); drill it when it is well.",
        )  # fmt: skip
    if drain_running:
        return Conflict(
            "Calls are being moved off a region or an edge.", code="drain_running",
            fix="Wait for the drain, or uncordon what is drained.",
        )  # fmt: skip
    unfit = unhealthy(target, gone)
    if unfit:
        return Conflict(
            f"{unfit} is not well: a drill would add to it.", code="fleet_unhealthy",
            fix="See its health, and drill when all others are well.",
        )  # fmt: skip
    if not target.survivors:
        return Conflict(
            f"{target.name} is the last that takes calls: they would have nowhere to go.", code="nowhere_to_go",
            fix="Uncordon or start another region or edge first.",
        )  # fmt: skip
    if not calls:
        return Conflict(
            f"{target.name} carries none of the calls that are meant.", code="no_calls",
            fix="Place some (voxplane drill --synthetic 10), or name another target.",
        )  # fmt: skip
    if not protected:
        return Conflict(
            f"None of the {calls} calls has a standby elsewhere with a place left: they would be lost.",
            code="no_standbys", fix="Start more edges; see GET /v1/calls/{id} for why a call has no standby.",
        )  # fmt: skip
    return None


def unfit(target: Target, *, gone: Set[UUID], drain_running: bool, sure: bool = True) -> str:
    """Why a drill that runs goes no further, or ''. `sure`: the verdicts in `target` are worth something; an instance that has just
    started has heard no edge yet, and what it makes of them is no reason to stop."""
    if drain_running or "draining" in (target.admin_state, target.fleet.regions[target.region].admin_state):
        return "drain_running"
    if not sure:
        return ""
    if not any(e.health in TAKING for e in target.edges):
        return "target_down"
    if unhealthy(target, gone):
        return "fleet_unhealthy"
    return "" if target.survivors else "nowhere_to_go"


def unhealthy(target: Target, gone: Set[UUID]) -> str:
    """The first edge beside the target that is suspect or down, in words; '' where all are well. One that was told to stop, and has
    said so, is no part of the fleet."""
    mine = {e.id for e in target.edges}
    for edge in target.fleet.edges:
        if edge.id in mine or edge.id in gone or edge.stopped:
            continue
        if edge.health not in TAKING:
            return f"Edge {edge.name} of {edge.region} ({edge.health})"
    return ""
