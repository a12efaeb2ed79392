"""The invariants of planned moves, one function each, in the manner of `checks`: None where it holds, else what is broken. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from app.fleet.view import Fleet
    from tests.simulation.ledger import Ledger

Broken = str | None
DRAINED_WITHIN_S = 6.0
GAP_MAX_S = 0.4
"""What a caller takes for silence."""


def nothing_is_placed_on_a_held_edge(ledger: Ledger, held: set[UUID]) -> Broken:
    """Who has read the fleet after a cordon, drain or evacuation was durable places nothing there, neither calls nor standbys."""
    return f"{len(held)} of the edges take no new calls, as the log knew" if held else None


def i9_moves_have_room(
    ledger: Ledger, fleet: Fleet, reserved: dict[UUID, int], targets: list[UUID]
) -> Broken:
    """A plan fills no edge above its capacity, with what is on its way there already."""
    for edge_id, more in Counter(targets).items():
        edge = fleet.edge(edge_id)
        if edge is None:
            return "a call is to move to an edge that is not known"
        filled = edge.calls + reserved.get(edge_id, 0) + more
        if filled > edge.capacity_calls:
            return f"{edge.region} is to have {filled} calls, and has room for {edge.capacity_calls}"
    return None


def i9_an_edge_has_room(ledger: Ledger, region: str, owned: int, capacity: int) -> Broken:
    """No edge owns more calls than it has room for, wherever they come from."""
    return f"{region} owns {owned} calls, and has room for {capacity}" if owned > capacity else None


def a_place_is_given_away_once(ledger: Ledger, region: str, coming: int, owned: int, capacity: int) -> Broken:
    """Where nobody else came lately, no more calls are on their way to an edge than it has places for, whoever asked them."""
    return (
        f"{coming} calls are to move to {region}, which has {owned} and room for {capacity}"
        if owned + coming > capacity
        else None
    )


def a_call_is_moved_once_at_a_time(ledger: Ledger, open_: set[int]) -> Broken:
    """A call has one move under way."""
    return f"it is being moved to the epochs {sorted(open_)} at once" if len(open_) > 1 else None


def a_planned_move_is_no_failure(ledger: Ledger, reason: str, open_: set[int]) -> Broken:
    """Where nothing else fails a call that is asked to move does so as planned: its caller loses nobody."""
    return f"it was taken because its owner was {reason}, while it was asked to move" if open_ else None


def a_move_makes_before_it_breaks(ledger: Ledger, from_epoch: int, owners: list[str]) -> Broken:
    """Where nothing else fails the edge that is left still owns the call when the new one takes it."""
    return None if owners else f"it was taken as planned, and nobody owned epoch {from_epoch} any more"


def nothing_is_heard_of_a_planned_move(ledger: Ledger, gap_s: float) -> Broken:
    """Where nothing else fails the caller hears from an edge all the while, be it that nobody speaks."""
    return f"nothing was sent to its caller for {gap_s:.2f} s of a planned move"


def a_drain_ends(ledger: Ledger, late_s: float, survivors: list[str]) -> Broken:
    """Once its deadline has passed, and nothing fails, the calls have left, where anybody has room for them."""
    return f"it is still there {late_s:.1f} s after it was to be moved, and {', '.join(survivors)} had room"
