"""Whether the key that an edge names becomes its key. Pure: what is known of the edge goes in, the answer comes out.

1. It is the edge's key already                    → taken: the answer was lost, and nothing is to be done
2. The uplink did not come with the present key    → refused: who has the key before may not choose the one after
3. It is, or was, another edge's or an earlier one → refused: a key that was replaced never comes back
4. Too many keys before it still hold              → refused, until one has run out
5. Else                                            → taken, and the present one holds for the overlap
"""

from __future__ import annotations

from dataclasses import dataclass

OVERLAP_S = 3_600
"""What is under way with the present key ends long before; an edge that dies on the way asks with both."""
OVERLAP_MAX_S = 604_800
BEFORE_MAX = 8
"""Keys of one edge that hold beside the present one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """`present`: the edge's key. `known`: the new one is a key that some edge has, or has had. `holding`: how many of those before
    still hold."""

    present: bytes
    known: bool
    holding: int


@dataclass(frozen=True, slots=True)
class KeyVerdict:
    taken: bool
    detail: str = ""
    change: bool = False
    """It is to be written down."""


def judge(facts: KeyFacts, *, came_with: bytes, new: bytes) -> KeyVerdict:
    if new == facts.present:
        return KeyVerdict(True)
    if came_with != facts.present:
        return KeyVerdict(
            False, "this uplink came with a key that was replaced: connect with the present one"
        )
    if facts.known:
        return KeyVerdict(False, "this key was one before, or is another edge's: make another")
    if facts.holding >= BEFORE_MAX:
        return KeyVerdict(False, f"{BEFORE_MAX} keys before it still hold: wait until one has run out")
    return KeyVerdict(True, change=True)
