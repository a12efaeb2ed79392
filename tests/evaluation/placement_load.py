"""A day of calls over regions with finite capacity, through the real choice, and the loss of the biggest region at the peak.

Decides nothing by itself: every call goes through `app.placement.choice.choose` on the picture of the fleet that its API
instance has,
which is seconds old, as the edges' reports are; four instances look at different moments. An edge refuses what is above its
capacity and the call
goes to the next standby of its ticket; where all of them refuse, the caller asks again later (`ASK_AGAIN_S`), and then it is refused.
At the peak
the region with the most calls dies: its calls go to their standbys in the same way, while the instances still place calls
there until
the detector has seen it.

The day is `DAY_S` long so that a million calls make a fleet of about thirty thousand calls at once; its wave moves around the
world: the regions
farthest from the first have theirs a third of a day later. Fewer callers make a smaller fleet on the same wave, not a quieter
one.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.belief import Known, Prior, priors_of
from app.placement.choice import Measured, NoPlacement, Wishes, choose
from app.placement.policy import Policy
from app.placement.profiles import NONE
from tests.evaluation.placement_report import Report, progress
from tests.evaluation.placement_world import Floats, Scene, World, fits, scene

REGIONS = 30
EDGES = 3
INSTANCES = 4
DAY_S = 4 * 3_600.0
CALL_S = 300.0
SWING = 0.6
ROUND_THE_WORLD = 1 / 3
HEADROOM = 1.5
UNEVEN = 0.5
REPORT_S, LAGS_S = 2.0, (0, 1, 2, 3)
DETECTED_S = 6.0
ASK_AGAIN_S = (1.0, 2.0, 4.0, 8.0)
PROBED = 2
NEAR_MS = 10.0
WISHES = Wishes()
POLICY = Policy(reserve=True)
"""As for every create: new calls leave room for those of a lost region."""


@dataclass(slots=True)
class Tally:
    """What happened. `regret_ms`: above the nearest of all regions; `busy_regret_ms`: above the nearest that had room."""

    regret_ms: list[float] = field(default_factory=list)
    busy_regret_ms: list[float] = field(default_factory=list)
    asks: int = 0
    turned_away: int = 0
    refused: int = 0
    carried_over: int = 0
    over_capacity: int = 0
    lost: int = 0
    moved: int = 0
    moved_to_standby: int = 0
    moved_regret_ms: list[float] = field(default_factory=list)
    fullest: float = 0.0


@dataclass(slots=True)
class Deployment:
    """`calls` and `capacity`: by edge; edge e is in region e // EDGES. `pictures`: the fleet as it was reported in the
    last seconds."""

    regions: tuple[str, ...]
    capacity: list[int]
    calls: list[int] = field(default_factory=list)
    reported: list[int] = field(default_factory=list)
    pictures: list[Fleet] = field(default_factory=list)
    dead: int | None = None
    dead_since_s: float = math.inf

    def __post_init__(self) -> None:
        self.calls = [0] * len(self.capacity)
        self.reported = [0] * len(self.capacity)
        self.look(0)

    def look(self, second: int) -> None:
        """Every edge reports each `REPORT_S`, in turn."""
        for e, calls in enumerate(self.calls):
            if (second + e) % int(REPORT_S) == 0:
                self.reported[e] = calls
        seen_dead = self.dead if second >= self.dead_since_s + DETECTED_S else None
        regions = {
            r: RegionState(
                id=r, jurisdiction="xx", admin_state="active", health="down" if i == seen_dead else "healthy"
            )
            for i, r in enumerate(self.regions)
        }
        edges = tuple(
            EdgeState(
                id=UUID(int=e + 1), region=self.regions[e // EDGES], name="", incarnation=UUID(int=1), media_url="", http_url="",
                capacity_calls=self.capacity[e], calls=self.reported[e],
                health="down" if e // EDGES == seen_dead else "healthy",
            )
            for e in range(len(self.capacity))
        )  # fmt: skip
        self.pictures = [*self.pictures, Fleet(regions=regions, edges=edges)][-(max(LAGS_S) + 1) :]

    def picture(self, instance: int) -> Fleet:
        return self.pictures[max(0, len(self.pictures) - 1 - LAGS_S[instance])]

    def attach(self, edge: int) -> bool:
        """The edge's last word."""
        if edge // EDGES == self.dead or self.calls[edge] >= self.capacity[edge]:
            return False
        self.calls[edge] += 1
        return True

    def with_room(self) -> list[bool]:
        return [
            r != self.dead
            and any(self.calls[e] < self.capacity[e] for e in range(r * EDGES, (r + 1) * EDGES))
            for r in range(len(self.regions))
        ]

    def load(self, region: int) -> float:
        edges = range(region * EDGES, (region + 1) * EDGES)
        return sum(self.calls[e] for e in edges) / sum(self.capacity[e] for e in edges)


@dataclass(frozen=True, slots=True)
class Callers:
    """`rtt_ms`: (callers, regions). What each believes and measures does not change over the day."""

    rtt_ms: Floats
    rows: list[list[float]]
    priors: list[dict[str, Prior]]
    measured: list[dict[str, Measured]]
    phase: Floats


def callers_of(base: Scene) -> Callers:
    """They know earlier slices and have measured the two nearest."""
    rtt_ms = base.rtt_ms[-1]
    priors, measured = [], []
    for c in range(base.callers):
        history = {r: tuple(base.rtt_ms[:-1, c, i][::-1].tolist()) for i, r in enumerate(base.regions)}
        priors.append(priors_of(base.regions, Known(history=history), NONE))
        nearest = sorted(base.regions, key=lambda r, p=priors[-1]: p[r].rtt_ms)[:PROBED]
        measured.append({r: Measured(rtt_ms=float(rtt_ms[c, base.regions.index(r)])) for r in nearest})
    # regions in the order of their distance from the first, seen by the callers: a stand-in for longitude
    apart = np.abs(rtt_ms - rtt_ms[:, :1]).mean(axis=0)
    rank = np.argsort(np.argsort(apart)) / len(apart)
    return Callers(rtt_ms, rtt_ms.tolist(), priors, measured, ROUND_THE_WORLD * rank[rtt_ms.argmin(axis=1)])


def arrivals(callers: Callers, count: int, day_s: float, seed: int) -> tuple[Floats, Floats]:
    """(when in seconds, ascending; who). By thinning a steady stream of everybody."""
    chance = np.random.default_rng(seed)
    who = chance.integers(len(callers.phase), size=2 * count + 1000)
    when = chance.uniform(0, day_s, len(who))
    wave = 1 + SWING * np.cos(2 * np.pi * (when / day_s - 0.5 - callers.phase[who]))
    kept = np.flatnonzero(chance.random(len(who)) < wave / (1 + SWING))
    kept = kept[: min(count, len(kept))]
    order = kept[np.argsort(when[kept])]
    return when[order], who[order]


def capacities(callers: Callers, count: int, day_s: float, regions: int, seed: int) -> list[int]:
    """In all `HEADROOM` times the peak; each region's share is the callers' who are nearest to it, off by as much as
    planners are."""
    chance = np.random.default_rng(seed)
    peak = count / day_s * CALL_S * (1 + SWING)
    demand = np.bincount(callers.rtt_ms.argmin(axis=1), minlength=regions) + 1.0
    share = demand * chance.lognormal(0, UNEVEN, regions)
    share /= share.sum()
    return [max(2, math.ceil(HEADROOM * peak * s / EDGES)) for s in share.tolist() for _ in range(EDGES)]


def day(base: Scene, count: int, seed: int = 0, day_s: float = DAY_S) -> tuple[Tally, Deployment]:
    callers = callers_of(base)
    deployment = Deployment(base.regions, capacities(callers, count, day_s, len(base.regions), seed))
    when, who = arrivals(callers, count, day_s, seed)
    peak_s = float(np.histogram(when, bins=48)[0].argmax() + 0.5) * day_s / 48
    chance = np.random.default_rng(seed + 1)
    run = _Run(deployment, callers, Tally())
    lasts = chance.exponential(CALL_S, len(when)).tolist()
    draws = chance.random(len(when)).tolist()
    second = 0
    for n, (at_s, caller) in enumerate(zip(when.tolist(), who.tolist(), strict=True)):
        while second < at_s:
            second += 1
            run.until(second)
            deployment.look(second)
            if deployment.dead is None and second >= peak_s:
                run.lose(second)
        run.until(at_s)
        run.place(_Call(n, caller, at_s + lasts[n], draws[n]), at_s)
    return run.tally, deployment


@dataclass(slots=True)
class _Call:
    """`edges`: where its ticket lets it go to. `begun`: it has been somewhere before."""

    number: int
    caller: int
    ends_s: float
    draw: float
    edge: int = -1
    edges: tuple[int, ...] = ()
    asks: int = 0
    begun: bool = False


@dataclass(slots=True)
class _Run:
    deployment: Deployment
    callers: Callers
    tally: Tally
    running: dict[int, _Call] = field(default_factory=dict)
    due: list[tuple[float, int, _Call]] = field(default_factory=list)
    """When something of a call happens: it ends, or it asks once more."""

    def until(self, now_s: float) -> None:
        while self.due and self.due[0][0] <= now_s:
            at_s, number, call = heapq.heappop(self.due)
            if call.edge < 0:
                self.place(call, at_s)
            elif at_s >= call.ends_s:
                del self.running[number]
                self.deployment.calls[call.edge] -= 1

    def place(self, call: _Call, now_s: float) -> None:
        """Choose, attach, go to the standbys, ask again."""
        self.tally.asks += 1
        instance = int(now_s * INSTANCES + call.asks) % INSTANCES  # in turns of a part of a second
        placed = choose(
            self.deployment.picture(instance), self.callers.measured[call.caller], WISHES,
            draw=(call.draw + 0.37 * call.asks) % 1.0, priors=self.callers.priors[call.caller], policy=POLICY,
        )  # fmt: skip
        call.asks += 1
        if not isinstance(placed, NoPlacement):
            call.edges = tuple(e.id.int - 1 for e in placed.edges)
            if self.attach(call):
                return
        if call.asks <= len(ASK_AGAIN_S):
            heapq.heappush(self.due, (now_s + ASK_AGAIN_S[call.asks - 1], call.number, call))
        elif call.begun:
            self.tally.lost += 1
        else:
            self.tally.refused += 1

    def attach(self, call: _Call) -> bool:
        open_regions = self.deployment.with_room()
        for i, edge in enumerate(call.edges):
            if self.deployment.attach(edge):
                self.tally.carried_over += i > 0 and not call.begun
                self._begin(call, edge, open_regions)
                return True
            self.tally.turned_away += 1
        return False

    def _begin(self, call: _Call, edge: int, open_regions: list[bool]) -> None:
        call.edge = edge
        self.running[call.number] = call
        heapq.heappush(self.due, (call.ends_s, call.number, call))
        region, row = edge // EDGES, self.callers.rows[call.caller]
        regret_ms = row[region] - min(row)
        if call.begun:
            self.tally.moved_regret_ms.append(regret_ms)
        else:
            self.tally.regret_ms.append(regret_ms)
            nearest_ms = min(v for v, o in zip(row, open_regions, strict=True) if o)
            self.tally.busy_regret_ms.append(row[region] - nearest_ms)
        call.begun = True
        load = self.deployment.load(region)
        self.tally.fullest = max(self.tally.fullest, load)
        self.tally.over_capacity += load > 1.0

    def lose(self, now_s: float) -> None:
        """The region with the most calls dies, and its calls go where their tickets say, or ask again."""
        deployment = self.deployment
        calls = np.array(deployment.calls).reshape(-1, EDGES).sum(axis=1)
        deployment.dead = int(calls.argmax())
        deployment.dead_since_s = now_s
        hit = [c for c in self.running.values() if c.edge // EDGES == deployment.dead]
        # what they had planned is void
        gone = {c.number for c in hit}
        self.due = [d for d in self.due if d[1] not in gone]
        heapq.heapify(self.due)
        for call in hit:
            deployment.calls[call.edge] -= 1
            del self.running[call.number]
            call.edge, call.asks = -1, 0
            self.tally.moved += 1
            if self.attach(call):
                self.tally.moved_to_standby += 1
            else:
                self.place(call, now_s)


def loaded(world: World, report: Report, count: int) -> None:
    if not fits(world.rtt_ms.shape[1], REGIONS):
        report.note(f"(load: left out, {world.name} has too few nodes for {REGIONS} regions)")
        return
    base = scene(world, REGIONS)
    progress(f"load: {count:,} calls …")
    tally, deployment = day(base, count)
    report.note("")
    report.note(
        f"A day of {count:,} calls over {REGIONS} regions, {EDGES} edges each, {sum(deployment.capacity):,} places, "
        f"{INSTANCES} instances; the biggest region, {deployment.regions[deployment.dead or 0]}, dies at the peak"
    )
    regret, busy = np.array(tally.regret_ms), np.array(tally.busy_regret_ms)

    def say(name: str, how: str, value: float, unit: str, target: float | None = None) -> None:
        report.number(f"load.{name}", how, value, unit, target, at_most=target is not None)

    say("over_capacity", "attaches that left a region above its capacity", tally.over_capacity, "calls", 0)
    say("fullest", "fullest that a region ever was", tally.fullest, "share", 1.0)
    say("near_share", "within 10 ms of the nearest region", float((regret <= NEAR_MS).mean()), "share")
    say(
        "near_open_share",
        "within 10 ms of the nearest that had room",
        float((busy <= NEAR_MS).mean()),
        "share",
    )
    for q in (50, 95):
        say(
            f"regret_p{q}_ms",
            f"regret against the nearest region, p{q}",
            float(np.percentile(regret, q)),
            "ms",
        )
        say(
            f"open_regret_p{q}_ms",
            f"regret against the nearest with room, p{q}",
            float(np.percentile(busy, q)),
            "ms",
        )
    say("turned_away", "attaches that an edge refused", tally.turned_away, "attaches")
    say("carried_over", "calls that began on a standby", tally.carried_over, "calls")
    say("refused", "calls refused after five asks", tally.refused, "calls")
    say("moved", "calls of the lost region", tally.moved, "calls")
    say("moved_to_standby", "of them taken by a standby of their ticket", tally.moved_to_standby, "calls")
    say("lost", "of them for which nobody had room", tally.lost, "calls")
    moved = np.array(tally.moved_regret_ms or [0.0])
    say("moved_regret_p95_ms", "regret of the moved ones, p95", float(np.percentile(moved, 95)), "ms")
