"""Places that are kept from new calls, because calls that live will need them: moves under way, calls that have yet to leave. Pure.

Where a call that has yet to leave will go is decided when it is asked. Until then its place is kept somewhere: spread over the edges
that stay by the room each has, so that together they keep as many as will come, and none keeps more than it has. What is known of the
fleet is up to a second old, and new calls come meanwhile: some places are kept beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from uuid import UUID

BESIDE_SHARE = 0.01


def kept(left: int, free: Mapping[UUID, int], capacity: int = 0) -> dict[UUID, int]:
    """Edge → places. `left`: calls that have yet to leave; `free`: the places of each edge that stays and takes calls; `capacity`:
    all their places, of which `BESIDE_SHARE` is kept beside."""
    room = sum(free.values())
    if left <= 0 or room <= 0:
        return {}
    left = min(left + math.ceil(capacity * BESIDE_SHARE), room)
    shares = {edge: left * places // room for edge, places in free.items()}
    short = left - sum(shares.values())
    for edge in sorted(free, key=lambda e: (shares[e] - free[e], e))[:short]:
        shares[edge] += 1
    return shares
