"""A fleet in virtual time, for the detector alone: heartbeats and probes that are lost, late or held up, and edges that die.

Decides what a network does to a heartbeat and a probe, from one seed; the detector decides all the rest. One instance reads, as
`FleetView` does, four times a second; heartbeats reach the database with the next of the instance's half seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.fleet.detector import Detector, EdgeRow, Kept, Look
from app.fleet.verdicts import State
from app.fleet.votes import Report, Seen

LOOK_S = 0.25
FLUSH_S = 0.5
PROBE_S = 1.0
PROBE_DEADLINE_S = 1.0
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Member:
    """`dies_at_s`, `how`: ``silent`` (its machine) or ``killed`` (its process, whose port then refuses)."""

    id: UUID
    region: str
    beat_s: float
    probe_s: float
    dies_at_s: float = 1e18
    how: str = "silent"
    stalled_until_s: float = 0.0
    next_stall_s: float = 1e18
    on_the_way: list[float] = field(default_factory=list)
    seen_s: float = 0.0
    streaks: dict[UUID, tuple[str, int]] = field(default_factory=dict)
    said_s: float = 0.0
    said: tuple[Seen, ...] = ()

    def alive(self, now_s: float) -> bool:
        return now_s < self.dies_at_s


@dataclass(slots=True)
class Day:
    """`loss`, `jitter_s`, `stall_s`: of every heartbeat and probe; each edge stalls about once in `stall_every_s`."""

    seed: int
    regions: int = 3
    per_region: int = 2
    loss: float = 0.02
    jitter_s: float = 0.1
    stall_s: float = 1.5
    stall_every_s: float = 60.0
    now_s: float = 0.0
    members: list[Member] = field(default_factory=list)
    kept: dict[UUID, Kept] = field(default_factory=dict)
    since_s: dict[UUID, float] = field(default_factory=dict)
    history: list[tuple[float, UUID, str, str]] = field(default_factory=list)
    """When, who, the new verdict, the case."""
    detector: Detector = field(default_factory=Detector)
    chance: random.Random = field(init=False)
    _flush_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        for n in range(self.regions * self.per_region):
            stall_s = self.chance.expovariate(1 / self.stall_every_s) if self.stall_s else 1e18
            self.members.append(
                Member(UUID(int=n + 1), f"r{n % self.regions}", self.chance.random(), self.chance.random(),
                       next_stall_s=stall_s)
            )  # fmt: skip
        self._flush_s = self.chance.random() * FLUSH_S

    def run(self, until_s: float) -> None:
        while self.now_s < until_s:
            self.now_s += LOOK_S
            for member in self.members:
                if member.alive(self.now_s):
                    self._live(member)
            if self.now_s >= self._flush_s:
                self._flush_s += FLUSH_S
                self._flush()
            self._settle(self._look())

    def _live(self, member: Member) -> None:
        now_s = self.now_s
        if now_s >= member.next_stall_s:
            member.stalled_until_s = now_s + self.stall_s
            member.next_stall_s = now_s + self.stall_s + self.chance.expovariate(1 / self.stall_every_s)
        if now_s < member.stalled_until_s:
            return
        if now_s >= member.beat_s:
            member.beat_s = max(member.beat_s + 1.0, now_s)
            if self.chance.random() >= self.loss:
                member.on_the_way.append(now_s + self.chance.random() * self.jitter_s)
        if now_s >= member.probe_s:
            member.probe_s = max(member.probe_s + PROBE_S, now_s)
            member.said = tuple(self._probe(member, other) for other in self.members if other is not member)
            member.said_s = now_s

    def _probe(self, member: Member, other: Member) -> Seen:
        outcome = "ok"
        if not other.alive(self.now_s):
            outcome = "refused" if other.how == "killed" else "timeout"
        elif other.stalled_until_s - self.now_s > PROBE_DEADLINE_S or self.chance.random() < self.loss:
            outcome = "timeout"
        before, streak = member.streaks.get(other.id, ("", 0))
        streak = streak + 1 if outcome == before else 1
        member.streaks[other.id] = (outcome, streak)
        return Seen(
            edge=other.id, listener="http", outcome=outcome, rtt_ms=20.0, age_s=PROBE_DEADLINE_S if outcome == "timeout" else 0.0,
            streak=streak, reached=True,
        )  # fmt: skip

    def _flush(self) -> None:
        for member in self.members:
            if any(at_s <= self.now_s for at_s in member.on_the_way):
                member.on_the_way = [at_s for at_s in member.on_the_way if at_s > self.now_s]
                member.seen_s = self.now_s

    def _look(self) -> Look:
        rows = [
            EdgeRow(
                id=m.id, region=m.region, seen_at=EPOCH + timedelta(seconds=m.seen_s), db_silent_s=self.now_s - m.seen_s
            )
            for m in self.members
        ]  # fmt: skip
        reports = [
            Report(observer=m.id, region=m.region, age_s=self.now_s - m.said_s, lag_ms=0.0, seen=m.said)
            for m in self.members
            if m.said
        ]
        kept = {i: Kept(state=k.state, age_s=self.now_s - self.since_s[i]) for i, k in self.kept.items()}
        return self.detector.look(self.now_s, rows, kept, reports)

    def _settle(self, look: Look) -> None:
        for t in look.transitions:
            self.kept[t.edge] = Kept(state=t.after)
            if t.after.verdict != t.before.verdict:
                self.since_s[t.edge] = self.now_s
                self.history.append((self.now_s, t.edge, t.after.verdict, t.after.case))
            self.since_s.setdefault(t.edge, self.now_s)

    def verdict(self, edge: UUID) -> str:
        return self.kept.get(edge, Kept(state=State())).state.verdict


def false_downs(seed: int, hours: float, **network: float) -> int:
    """How often an edge that lives was held down in so many hours."""
    day = Day(seed, **network)  # type: ignore[arg-type]
    day.run(hours * 3600)
    return sum(verdict == "down" for _, _, verdict, _ in day.history)


def detection_s(seed: int, how: str, **network: float) -> tuple[float, float]:
    """(until new calls stay away, until it is down): the seconds after one of the edges dies in the midst of all this."""
    day = Day(seed, **network)  # type: ignore[arg-type]
    day.run(60 + day.chance.random() * 10)
    victim = day.chance.choice(day.members)
    victim.dies_at_s, victim.how = day.now_s + day.chance.random(), how
    day.run(victim.dies_at_s + 15)
    after = [(at_s, v) for at_s, edge, v, _ in day.history if edge == victim.id and at_s > victim.dies_at_s]
    away_s = next((at_s for at_s, v in after if v in ("suspect", "down")), victim.dies_at_s)
    down_s = next((at_s for at_s, v in after if v == "down"), float("inf"))
    return max(0.0, away_s - victim.dies_at_s), down_s - victim.dies_at_s
