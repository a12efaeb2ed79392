"""One observer of the fleet: what it has read so far, and what it makes of it. Pure: rows and `now` come in, a `Look` goes out.

Decides when an edge is suspect, down, on probation or healthy, by four signals (heartbeats, probes, callers' reports, the echo of a
media listener), and what it would take to change that. What a single edge's signals mean stands in `verdicts`, `votes` and
`arrivals`; here stands what concerns the fleet as a whole:

1. An observer that lags abstains. Where its own looks came late, or its read of the database took long, nothing is
   changed until it has looked in time for `SETTLE_S` again, and nobody's silence grows by the gap.
2. Never more than a third of the fleet (one edge at least) is down or evacuated by the detector's word; who would be too many
   stays suspect and keeps its calls, case ``held``. Edges that have been down for `GONE_S` are no part of the fleet any more.
3. An edge that was never heard since this observer began is judged by no one yet: it is quarantined here, and nothing is
   written.

It leaves to `Judge` where states are kept, to the placement what a weight is worth, and to the planner what is moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from app.fleet.arrivals import Arrivals
from app.fleet.verdicts import (
    DOWN_AFTER_S,
    ORDER,
    Assessment,
    Signals,
    State,
    assess,
    earliest_s,
    step,
    weight,
)
from app.fleet.votes import Report, Seen, abstentions, by_target, callers_of, vote_on

__all__ = [
    "DOWN_AFTER_S",
    "GONE_S",
    "Detector",
    "EdgeRow",
    "Judgement",
    "Kept",
    "Look",
    "RegionTransition",
    "Transition",
]

LAG_MAX_S = 1.5
SETTLE_S = 1.0
READ_MAX_S = 1.0
GONE_S = 600.0
EJECTED_SHARE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRow:
    """An edge as the database has it. `db_silent_s`: the age of its heartbeat by the database's clock."""

    id: UUID
    region: str
    seen_at: datetime
    db_silent_s: float
    calls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A state and its age, as read."""

    state: State = field(default_factory=State)
    age_s: float = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is held of an edge, and why. `health`: its verdict, or what stands for it where it is not proven."""

    edge: UUID
    region: str
    health: str
    weight: float
    state: State
    age_s: float
    found: Assessment
    signals: Signals
    mean_s: float = 1.0
    deviation_s: float = 0.0
    proven: bool = True
    good_for_s: float = 0.0

    @property
    def action(self) -> str:
        return self.state.action

    @property
    def returns_in_s(self) -> float:
        """See `earliest_s`; where it was never heard by this observer, its next heartbeat would do."""
        if not self.proven:
            return self.mean_s
        return earliest_s(self.state, self.found, age_s=self.age_s, good_for_s=self.good_for_s)

    @property
    def refusing(self) -> bool:
        return self.signals.vote.refusing

    @property
    def gone(self) -> bool:
        """Down for so long that it is no part of the fleet any more."""
        return _gone(self.state, self.age_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change to be written once: `before.version` is what it must still be."""

    edge: UUID
    region: str
    before: State
    after: State


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionTransition:
    region: str
    before: State
    after: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """`abstains`: why this observer changes nothing at present; empty: it judges."""

    judgements: dict[UUID, Judgement] = field(default_factory=dict)
    transitions: tuple[Transition, ...] = ()
    abstains: str = ""
    ejected: int = 0
    ejected_max: int = 1

    @property
    def proven(self) -> bool:
        """Whether every edge of the fleet is judged by what this observer has seen itself."""
        return all(j.proven or j.gone for j in self.judgements.values())


def ejects(before: State, after: State) -> bool:
    """Whether this step takes an edge out of service that was in it: it goes down, or its calls are to leave."""
    return _ejected(after) and not _ejected(before)


def _ejected(state: State) -> bool:
    return state.verdict == "down" or state.action == "evacuate"


def region_transitions(
    look: Look, kept_edges: Mapping[UUID, Kept], kept: Mapping[str, Kept]
) -> list[RegionTransition]:
    """Regions whose best edge is another than it was, by what is written down of edges already. A region that never had an edge
    has not lost one."""
    if look.abstains:
        return []
    unknown = Kept()
    regions: dict[str, list[State]] = {}
    for judged in look.judgements.values():
        regions.setdefault(judged.region, []).append(kept_edges.get(judged.edge, unknown).state)
    moved = []
    for region, states in regions.items():
        before = kept.get(region, unknown).state
        best = min(states, key=lambda s: (ORDER.index(s.verdict), s.action == "evacuate"))
        if (best.verdict, best.action) != (before.verdict, before.action):
            after = replace(
                before, verdict=best.verdict, action=best.action, case=best.case, version=before.version + 1
            )
            moved.append(RegionTransition(region=region, before=before, after=after))
    return moved


@dataclass(slots=True)
class _Watched:
    arrivals: Arrivals
    good_since_s: float | None = None


class Detector:
    """Keeps only what one observer has seen with its own eyes; a new one needs a few seconds to know as much."""

    def __init__(self) -> None:
        self._watched: dict[UUID, _Watched] = {}
        self._looked_s: float | None = None
        self._late_until_s = 0.0
        self._why_late = ""

    def look(
        self,
        now_s: float,
        edges: Sequence[EdgeRow],
        kept: Mapping[UUID, Kept],
        reports: Sequence[Report] = (),
        *,
        read_s: float = 0.0,
    ) -> Look:
        """`now_s`: this observer's monotonic clock; `read_s`: how long the read of all this took."""
        self._note_lag(now_s, read_s)
        abstains = self._why_late if now_s < self._late_until_s else ""
        self._watch(now_s, edges)
        late = {e.id for e in edges if self._watched[e.id].arrivals.late(now_s)}
        unknown = Kept()
        unwell = late | {i for i, k in kept.items() if k.state.verdict == "down"}
        untrusted = abstentions(reports, unwell)
        looks = by_target(reports)
        fleet = [e for e in edges if not _gone((k := kept.get(e.id, unknown)).state, k.age_s)]
        ejected = sum(_ejected(kept.get(e.id, unknown).state) for e in fleet)
        ejected_max = max(1, len(fleet) // EJECTED_SHARE)

        judgements: dict[UUID, Judgement] = {}
        transitions: list[Transition] = []
        room = ejected_max - ejected
        for row, signals in _worst_first(
            [(e, self._signals(e, now_s, reports, looks, untrusted)) for e in edges]
        ):
            known = kept.get(row.id, unknown)
            judged = self._judge(row, known, signals, now_s)
            after = None
            if not abstains and judged.proven:
                after = step(
                    known.state,
                    judged.found,
                    age_s=known.age_s,
                    good_for_s=judged.good_for_s,
                    may_eject=room > 0,
                )
            if after is not None:
                if ejects(known.state, after):
                    room -= 1
                transitions.append(
                    Transition(edge=row.id, region=row.region, before=known.state, after=after)
                )
                judged = _with(judged, after)
            judgements[row.id] = judged
        return Look(
            judgements=judgements,
            transitions=tuple(transitions),
            abstains=abstains,
            ejected=ejected_max - room,
            ejected_max=ejected_max,
        )

    def _note_lag(self, now_s: float, read_s: float) -> None:
        gap_s = 0.0 if self._looked_s is None else now_s - self._looked_s
        self._looked_s = now_s
        if gap_s > LAG_MAX_S:
            self._why_late = f"its looks were {gap_s:.1f} s apart"
            for watched in self._watched.values():
                watched.arrivals.forgive(gap_s)
        elif read_s > READ_MAX_S:
            self._why_late = f"its read of the database took {read_s:.1f} s"
        else:
            return
        self._late_until_s = now_s + SETTLE_S

    def _watch(self, now_s: float, edges: Sequence[EdgeRow]) -> None:
        present = {e.id for e in edges}
        self._watched = {i: w for i, w in self._watched.items() if i in present}
        for row in edges:
            watched = self._watched.get(row.id)
            if watched is None:
                first = Arrivals.first(row.seen_at, row.db_silent_s, now_s)
                self._watched[row.id] = _Watched(first, None)
            else:
                watched.arrivals.look(row.seen_at, row.db_silent_s, now_s)

    def _signals(
        self,
        row: EdgeRow,
        now_s: float,
        reports: Sequence[Report],
        looks: Mapping[UUID, list[tuple[Report, list[Seen]]]],
        untrusted: Mapping[UUID, str],
    ) -> Signals:
        arrivals = self._watched[row.id].arrivals
        vote = vote_on(looks.get(row.id, ()), untrusted)
        return Signals(
            silent_s=arrivals.silent_s(now_s),
            phi=arrivals.phi(now_s),
            late=arrivals.late(now_s, doubted=vote.doubted),
            vote=vote,
            callers=callers_of(row.id, row.calls, reports),
        )

    def _judge(self, row: EdgeRow, known: Kept, signals: Signals, now_s: float) -> Judgement:
        watched = self._watched[row.id]
        arrivals = watched.arrivals
        found = assess(signals)
        if found.level != "good":
            watched.good_since_s = None
        elif watched.good_since_s is None:
            watched.good_since_s = now_s
        proven = arrivals.proven or now_s - arrivals.watched_since_s > DOWN_AFTER_S or not signals.late
        health = known.state.verdict
        if not proven:
            # not heard for longer than anybody here has watched: no new calls, and no word about it
            health = "down" if signals.silent_s > DOWN_AFTER_S else max(health, "suspect", key=ORDER.index)
        return Judgement(
            edge=row.id,
            region=row.region,
            health=health,
            weight=weight(known.state, known.age_s) if health == known.state.verdict else 0.0,
            state=known.state,
            age_s=known.age_s,
            found=found,
            signals=signals,
            mean_s=arrivals.mean_s,
            deviation_s=arrivals.deviation_s,
            proven=proven,
            good_for_s=0.0 if watched.good_since_s is None else now_s - watched.good_since_s,
        )


def _with(judged: Judgement, state: State) -> Judgement:
    return replace(judged, health=state.verdict, weight=weight(state, 0.0), state=state, age_s=0.0)


def _gone(state: State, age_s: float) -> bool:
    return state.verdict == "down" and age_s > GONE_S


def _worst_first(rows: list[tuple[EdgeRow, Signals]]) -> list[tuple[EdgeRow, Signals]]:
    """Where not all may be ejected, the clearest cases are; every observer sorts alike."""
    return sorted(rows, key=lambda r: (not r[1].vote.positive, -r[1].silent_s, r[0].id))
