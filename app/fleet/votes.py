"""What the others say of an edge: probes from their regions, and callers that came to them. Pure: reports in, votes out.

Probes. A vantage is a region that looks at the edge. Each has one ballot, cast as follows:

1. an observer abstains whose report is old, whose own loop was late, which is not healthy itself, which sees every one of its (two
   or more) targets away, or which never reached this edge: it may be its own network that it sees
2. ``ok``        where any observer of the region reached it last time, or failed only once so far
3. else the outcome that most of its observers had: ``refused``, ``error``, ``timeout``

More than half of the ballots carry the vote: two of three; with two vantages both; with one it is that one, and the vote
says `alone`. With none there is no vote.

Callers. A call that takes a standby leaves a report: whom it left, and why. The share of calls that left an edge within 10 s, of
these and the calls it still carries, is what the callers say. A call counts once, whoever reports it how often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

REPORT_AGE_MAX_S = 4.0
PROBE_AGE_MAX_S = 4.0
LAG_MAX_MS = 500.0
STREAK_MIN = 2
SEVERAL = 2
"""Vantages that have to agree before their word is positive evidence."""
REPORTS_EACH_MAX = 200

FAILING_SHARE = 0.2
SAMPLES_MIN = 20
FAILURES_AGE_MAX_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look of an observer at a listener of `edge`. See `regions.wire.observations.Probe`."""

    edge: UUID
    listener: str
    outcome: str
    rtt_ms: float
    age_s: float
    streak: int
    reached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A caller of `edge` that came to the observer."""

    call: UUID
    edge: UUID
    reason: str
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The newest of one observer; `age_s`: since it was written down."""

    observer: UUID
    region: str
    age_s: float
    lag_ms: float
    seen: tuple[Seen, ...] = ()
    left: tuple[Left, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """One vantage's. `streak` and `rtt_ms` of the observer that decided it."""

    region: str
    outcome: str
    streak: int
    rtt_ms: float
    observers: tuple[UUID, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """`outcome`: ``up``, ``away`` (time-outs), ``refused``, ``failing`` (refused or errors), ``split`` or ``none``."""

    outcome: str = "none"
    ballots: tuple[Ballot, ...] = ()
    abstained: tuple[tuple[UUID, str], ...] = ()
    doubted: bool = False
    """The newest look of more than half of the vantages failed, be it the first: no vote, and no good sign."""

    @property
    def alone(self) -> bool:
        return len(self.ballots) == 1

    @property
    def positive(self) -> bool:
        """Something was seen to be wrong from several vantages; that nobody answers is not seen, it is missed."""
        wrong = sum(b.outcome in ("refused", "error") for b in self.ballots)
        return self.outcome in ("refused", "failing") and wrong >= SEVERAL

    @property
    def refusing(self) -> bool:
        """As good as every vantage that can speak, three where there are so many, finds nobody listening."""
        refused = sum(b.outcome == "refused" for b in self.ballots)
        return len(self.ballots) > 0 and refused >= min(3, len(self.ballots))

    @property
    def basis(self) -> str:
        count = len(self.ballots)
        if count >= 3:
            return f"{count} vantage regions, {count // 2 + 1} of which carry it"
        return (
            "no vantage region",
            "one vantage region: counts only beside silence",
            "two vantage regions: both must agree",
        )[count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """`left`: distinct calls that left within 10 s; `samples`: these and the ones that stayed; `regions`: where they went."""

    left: int = 0
    samples: int = 0
    regions: tuple[str, ...] = ()
    reasons: tuple[tuple[str, int], ...] = ()

    @property
    def share(self) -> float:
        return self.left / self.samples if self.samples else 0.0

    @property
    def failing(self) -> bool:
        return self.samples >= SAMPLES_MIN and self.share > FAILING_SHARE


def by_target(reports: Iterable[Report]) -> dict[UUID, list[tuple[Report, list[Seen]]]]:
    """What is fresh enough to count, by the edge that it is about; nobody speaks about itself."""
    found: dict[UUID, list[tuple[Report, list[Seen]]]] = {}
    for report in reports:
        looks: dict[UUID, list[Seen]] = {}
        for seen in report.seen:
            if seen.edge != report.observer and seen.age_s + report.age_s <= PROBE_AGE_MAX_S:
                looks.setdefault(seen.edge, []).append(seen)
        for edge, fresh in looks.items():
            found.setdefault(edge, []).append((report, fresh))
    return found


def vote_on(looks: Iterable[tuple[Report, list[Seen]]], untrusted: Mapping[UUID, str]) -> Vote:
    """On one edge, from `by_target`. `untrusted`: observers that abstain, and why (see `abstentions`)."""
    said: dict[str, list[tuple[UUID, str, int, float]]] = {}
    abstained: list[tuple[UUID, str]] = []
    seen: set[str] = set()
    for report, fresh in looks:
        why = untrusted.get(report.observer) or ("" if any(s.reached for s in fresh) else "never reached it")
        if why:
            abstained.append((report.observer, why))
            continue
        if min(fresh, key=lambda s: s.age_s).outcome == "ok":
            seen.add(report.region)
        said.setdefault(report.region, []).append((report.observer, *_opinion(fresh)))
    ballots = tuple(_ballot(region, opinions) for region, opinions in sorted(said.items()))
    doubted = 2 * (len(said) - len(seen)) > len(said)
    return Vote(outcome=_count(ballots), ballots=ballots, abstained=tuple(abstained), doubted=doubted)


def abstentions(reports: Sequence[Report], unwell: Iterable[UUID]) -> dict[UUID, str]:
    """Observers whose probes say more about themselves, and why. `unwell`: those that are not heard themselves."""
    found = dict.fromkeys(unwell, "is not healthy itself")
    for report in reports:
        targets = {s.edge for s in report.seen}
        away = {s.edge for s in report.seen if s.outcome in ("timeout", "error")}
        if report.age_s > REPORT_AGE_MAX_S:
            found[report.observer] = "its report is old"
        elif report.lag_ms > LAG_MAX_MS:
            found[report.observer] = "its own loop was late"
        elif len(targets) >= 2 and away == targets:
            found[report.observer] = "it sees nobody"
    return found


def callers_of(edge: UUID, carried: int, reports: Iterable[Report]) -> Callers:
    """`carried`: the calls that the edge says it has; below zero, or nonsense, it counts as none."""
    calls: dict[UUID, str] = {}
    regions: set[str] = set()
    for report in reports:
        if report.observer == edge or report.age_s > FAILURES_AGE_MAX_S:
            continue
        for left in report.left[:REPORTS_EACH_MAX]:
            if left.edge == edge and left.age_s + report.age_s <= FAILURES_AGE_MAX_S:
                calls[left.call] = left.reason
                regions.add(report.region)
    reasons = tuple(sorted(Counter(calls.values()).items()))
    samples = len(calls) + max(0, carried) if calls else 0
    return Callers(left=len(calls), samples=samples, regions=tuple(sorted(regions)), reasons=reasons)


def _opinion(fresh: list[Seen]) -> tuple[str, int, float]:
    """(outcome, streak, round trip): the worse of the two listeners, where it was so more than once."""
    bad = [s for s in fresh if s.outcome != "ok" and s.streak >= STREAK_MIN]
    if bad:
        worst = max(bad, key=lambda s: (s.outcome == "refused", s.outcome == "error", s.streak))
        return worst.outcome, worst.streak, worst.rtt_ms
    best = min(fresh, key=lambda s: s.rtt_ms)
    return "ok", best.streak, best.rtt_ms


def _ballot(region: str, opinions: list[tuple[UUID, str, int, float]]) -> Ballot:
    observers = tuple(o for o, _, _, _ in opinions)
    outcomes = Counter(outcome for _, outcome, _, _ in opinions)
    outcome = "ok" if outcomes["ok"] else max(sorted(outcomes), key=lambda o: outcomes[o])
    _, _, streak, rtt_ms = next(o for o in opinions if o[1] == outcome)
    return Ballot(region=region, outcome=outcome, streak=streak, rtt_ms=rtt_ms, observers=observers)


def _count(ballots: tuple[Ballot, ...]) -> str:
    if not ballots:
        return "none"
    needed = len(ballots) // 2 + 1
    outcomes = Counter(b.outcome for b in ballots)
    if outcomes["ok"] >= needed:
        return "up"
    if outcomes["refused"] >= needed:
        return "refused"
    if outcomes["refused"] + outcomes["error"] >= needed:
        return "failing"
    if len(ballots) - outcomes["ok"] >= needed:
        return "away"
    return "split"
