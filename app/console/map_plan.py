"""What the map shows of the calls that live: how many are where, the arcs between places, and who has moved since. Pure.

The cases of a call's arc:
1. its caller is nearest to another region than the one that serves it: from there to here;
2. its caller is nearest to this one, or nothing is known: from here to its first standby elsewhere;
3. it has no standby elsewhere: none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

ARCS_MAX = 60
"""Of the most calls; the rest are counted and not drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A call as it is now. `near`: the region that is nearest to its caller; empty: not known. `standby`: the region of the first."""

    epoch: int
    region: str
    state: str
    near: str
    standby: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arc:
    """`kind`: ``caller`` or ``standby``."""

    kind: str
    start: str
    end: str
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A call that another edge has taken over; `start` and `end` are the same where it stayed in its region."""

    call: UUID
    epoch: int
    start: str
    end: str


def arcs(calls: Iterable[Seen]) -> tuple[list[Arc], int]:
    """The arcs, the widest last, and how many calls those have that are left out."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for call in calls:
        if call.near and call.near != call.region:
            counted["caller", call.near, call.region] += 1
        elif call.standby and call.standby != call.region:
            counted["standby", call.region, call.standby] += 1
    drawn = counted.most_common(ARCS_MAX)
    left = counted.total() - sum(n for _, n in drawn)
    found = [Arc(kind=kind, start=start, end=end, calls=n) for (kind, start, end), n in drawn]
    return sorted(found, key=lambda a: (a.kind != "standby", a.calls, a.start, a.end)), left


def by_region(calls: Iterable[Seen]) -> Counter[str]:
    return Counter(call.region for call in calls)


def shifts(before: Mapping[UUID, Seen], now: Mapping[UUID, Seen]) -> list[Shift]:
    """Calls that have a new owner. One that has ended, or is new, has not moved."""
    return [
        Shift(call=id_, epoch=call.epoch, start=was.region, end=call.region)
        for id_, call in now.items()
        if (was := before.get(id_)) is not None and call.epoch > was.epoch
    ]


def width(calls: int) -> float:
    """Of an arc's line: it grows with the logarithm."""
    return round(1.2 + 0.55 * (calls.bit_length() - 1), 2)
