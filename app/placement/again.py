"""Where a call that runs may go next: placement once more, from what was known of its caller when it was placed first. Pure.

Decides what a later placement starts from. The caller measures once and its address is not kept, so what is left is its request's
round trips, which age, and behind them the record of the first placement: what was believed of each region, how firmly, and how far
the backend was. Without it every region would look alike after ten minutes, and a call that is drained would go anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from app.fleet.view import Fleet
from app.placement.belief import Prior
from app.placement.choice import Measured, NoPlacement, Placement, Wishes, choose


class Considered(Protocol):
    """As much of a region in a stored placement as is looked at here."""

    @property
    def region(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def rtt_ms(self) -> float: ...
    @property
    def confidence(self) -> float: ...
    @property
    def backend_ms(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the first placement believed, by region."""

    priors: Mapping[str, Prior] = field(default_factory=dict)
    backend_ms: Mapping[str, float] = field(default_factory=dict)


NOTHING = Recorded()


class Sought(NamedTuple):
    """What a stored call asks of a place, and what is known of its caller's way there."""

    wishes: Wishes
    measured: dict[str, Measured]
    recorded: Recorded


def recorded(candidates: Iterable[Considered]) -> Recorded:
    candidates = list(candidates)
    return Recorded(
        priors={c.region: Prior(c.rtt_ms, c.source, c.confidence) for c in candidates},
        backend_ms={c.region: c.backend_ms for c in candidates if c.backend_ms is not None},
    )


def surer(one: Mapping[str, Prior], other: Mapping[str, Prior]) -> Mapping[str, Prior]:
    """Of two beliefs the firmer one of each region; `one` where they are alike."""
    if not other:
        return one
    regions = [*one, *(r for r in other if r not in one)]
    return {r: max((b[r] for b in (one, other) if r in b), key=lambda p: p.confidence) for r in regions}


def place_again(
    fleet: Fleet, wishes: Wishes, measured: Mapping[str, Measured], known: Recorded, *, draw: float
) -> Placement | NoPlacement:
    """A cap on the round trip binds no call that must have a place: it is dropped where nobody else is near enough."""
    placed = choose(fleet, measured, wishes, draw=draw, priors=known.priors, backend_ms=known.backend_ms)
    if isinstance(placed, NoPlacement) and placed.why == "too_far":
        return place_again(
            fleet, msgspec.structs.replace(wishes, rtt_ms_max=None), measured, known, draw=draw
        )
    return placed
