"""Which drains of the home cell another cell has to begin, change or end. Pure.

Leaves to the cell when its own calls have gone: that is its own worker's to find, and to write down there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRow:
    """`outcome` None: it runs."""

    id: UUID
    region: str
    edge_id: UUID | None
    incarnation: UUID | None
    verdict: int | None
    kind: str
    force_at: datetime
    total: int
    started_at: datetime
    outcome: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainChanges:
    """`end` first, then `begin`: of one target there is at most one that runs. `end`: (drain, outcome)."""

    end: tuple[tuple[UUID, str], ...] = ()
    change: tuple[DrainRow, ...] = ()
    begin: tuple[DrainRow, ...] = ()


def plan_drains(home: Sequence[DrainRow], here: Sequence[DrainRow], kept_from: datetime) -> DrainChanges:
    """`home`: those that run, and those that have ended since `kept_from`. `here`: those that run, and those that `home` names.

    Who reads slowly may find one here that home had not begun when it was asked: only what is older than all that home tells is taken
    for forgotten.
    """
    at_home = {d.id: d for d in home}
    known = {d.id: d for d in here}
    running = [d for d in here if d.outcome is None]
    end = [(d.id, twin.outcome) for d in running if (twin := at_home.get(d.id)) is not None and twin.outcome]
    end += [(d.id, "stopped") for d in running if d.id not in at_home and d.started_at < kept_from]
    change = tuple(
        at_home[d.id]
        for d in running
        if (twin := at_home.get(d.id)) is not None and twin.outcome is None and _asks(twin) != _asks(d)
    )
    begin = tuple(d for d in home if d.outcome is None and d.id not in known)
    return DrainChanges(end=tuple(end), change=change, begin=begin)


def _asks(drain: DrainRow) -> tuple[object, ...]:
    return drain.incarnation, drain.verdict, drain.kind, drain.force_at
