"""The detector in a world of its own: edges that beat and probe, two instances that look, one database, and what goes wrong.

The loop, the lives, the machines' clocks and the network are the log's simulator's; so are the ways in which things die and are cut
off. The detector is production's. Stood in for: the database (one row per edge, one report per observer, one state per edge, written
as `app.fleet.health` writes it: once per version, and not where too many are ejected already), the uplink and HTTP. A world apart
because what a detector has to show takes half a minute, and the log's stories are over in ten seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from app.fleet.detector import Detector, EdgeRow, Kept, Look, ejects
from app.fleet.verdicts import State, probation_s
from app.fleet.votes import Report, Seen
from tests.simulation import watch_checks
from tests.simulation.clocks import Machine, monotonic_s
from tests.simulation.ledger import Violation
from tests.simulation.loop import RUNNING, Life, SimLoop
from tests.simulation.network import Cut, Network
from tests.simulation.plan import REGIONS

PER_REGION = 2
BEAT_S = PROBE_S = PROBE_DEADLINE_S = 1.0
LOOK_S = 0.5
WARM_S, ACTIVE_S, SETTLE_S = 5.0, 25.0, 12.0
KINDS = {
    "crash": 4, "silent": 4, "stop": 5, "sick": 3, "cut.database": 4, "cut.region": 4, "cut.edges": 4, "observer.stop": 4,
    "slow.database": 3, "clock.jump": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trouble:
    kind: str
    at_s: float
    for_s: float
    who: int
    one_way: bool


@dataclass(slots=True)
class Told:
    """What an observer's database answers with."""

    rows: list[EdgeRow]
    kept: dict[UUID, Kept]
    reports: list[Report]


@dataclass(slots=True)
class Store:
    """The database's rows. `since`: when a verdict began."""

    machine: Machine
    off: frozenset[str]
    seen: dict[UUID, datetime] = field(default_factory=dict)
    states: dict[UUID, State] = field(default_factory=dict)
    since: dict[UUID, datetime] = field(default_factory=dict)
    reports: dict[UUID, tuple[Report, datetime]] = field(default_factory=dict)

    def read(self, edges: dict[UUID, WatchedEdge]) -> Told:
        now = self.machine.wall()

        def age_s(at: datetime) -> float:
            return (now - at).total_seconds()

        rows = [
            EdgeRow(id=e, region=edges[e].region, seen_at=at, db_silent_s=age_s(at))
            for e, at in self.seen.items()
        ]
        kept = {e: Kept(state=s, age_s=max(0.0, age_s(self.since[e]))) for e, s in self.states.items()}
        return Told(rows, kept, [replace(r, age_s=age_s(at)) for r, at in self.reports.values()])

    def write(self, look: Look) -> None:
        for t in look.transitions:
            before = self.states.get(t.edge, State())
            others = sum(
                s.verdict == "down" or s.action == "evacuate" for e, s in self.states.items() if e != t.edge
            )
            many = others >= look.ejected_max and "third" not in self.off
            if t.after.version != before.version + 1 or (ejects(t.before, t.after) and many):
                continue
            if t.after.verdict != before.verdict or t.edge not in self.since:
                self.since[t.edge] = self.machine.wall()
            self.states[t.edge] = t.after


class WatchedEdge:
    """One edge: it beats, is probed, and probes the others. `sick_until_s`: till then it answers with errors."""

    def __init__(self, world: WatchWorld, machine: Machine, edge_id: UUID) -> None:
        self.world, self.machine, self.id, self.region = world, machine, edge_id, machine.region
        self.sick_until_s = 0.0
        self.bad_until_s = 0.0
        """Until when others may have seen refusals or errors of it."""
        self.life: Life
        self.start()

    def start(self) -> None:
        self.life = Life(self.world.loop, self.machine.name, self.machine)
        self.streaks: dict[UUID, tuple[str, int]] = {}
        self.reached: set[UUID] = set()
        self.world.network.listen(self.machine.name, self.life, answer=self._probed)
        self.life.spawn(self._beat(), "beat")
        self.life.spawn(self._look_around(), "probes")

    async def _probed(self, payload: Any) -> bool:
        if self.world.loop.now < self.sick_until_s:
            raise ValueError("503")
        return True

    async def _tell(self, *message: Any) -> None:
        try:
            async with asyncio.timeout(BEAT_S):
                await self.world.network.request(self.life, "db", message)
        except (OSError, TimeoutError):
            return

    async def _beat(self) -> None:
        await asyncio.sleep(self.world.chance.random() * BEAT_S)
        while True:
            self.world.pending.add(asyncio.create_task(self._tell("beat", self.id)))
            await asyncio.sleep(BEAT_S)

    async def _look_around(self) -> None:
        await asyncio.sleep(self.world.chance.random() * PROBE_S)
        while True:
            due_s = self.world.loop.now + PROBE_S
            others = [e for e in self.world.edges.values() if e is not self]
            seen = await asyncio.gather(*(self._probe(e) for e in others))
            # it answers for itself how late it was
            lag_ms = max(0.0, (self.world.loop.now - due_s) * 1000)
            report = Report(observer=self.id, region=self.region, age_s=0.0, lag_ms=lag_ms, seen=tuple(seen))
            await self._tell("report", report)
            await asyncio.sleep(max(0.05, due_s - self.world.loop.now))

    async def _probe(self, other: WatchedEdge) -> Seen:
        began_s = self.world.loop.now
        try:
            async with asyncio.timeout(PROBE_DEADLINE_S):
                await self.world.network.request(self.life, other.machine.name, None)
            outcome = "ok"
            self.reached.add(other.id)
        except ConnectionRefusedError:
            outcome = "refused"
        except TimeoutError:
            outcome = "timeout"
        except (OSError, ValueError):
            outcome = "error"
        before, streak = self.streaks.get(other.id, ("", 0))
        streak = streak + 1 if outcome == before else 1
        self.streaks[other.id] = (outcome, streak)
        return Seen(
            edge=other.id, listener="http", outcome=outcome, rtt_ms=(self.world.loop.now - began_s) * 1000, age_s=0.0,
            streak=streak, reached=other.id in self.reached,
        )  # fmt: skip


class Instance:
    """One observer, and beside it a twin that reads the same rows in another order."""

    def __init__(self, world: WatchWorld, machine: Machine) -> None:
        self.world, self.machine = world, machine
        self.life = Life(world.loop, machine.name, machine)
        self.detector, self.twin = Detector(), Detector()
        self.looked_s: float | None = None
        self.since_s: dict[tuple[UUID, int], float] = {}
        self.life.spawn(self._run(), "looks")

    async def _run(self) -> None:
        while True:
            began_s = monotonic_s(self.world.loop)
            try:
                async with asyncio.timeout(5.0):
                    told = await self.world.network.request(self.life, "db", ("read",))
            except (OSError, TimeoutError):
                await asyncio.sleep(LOOK_S)
                continue
            now_s = monotonic_s(self.world.loop)
            self._look(told, now_s, now_s - began_s)
            await asyncio.sleep(LOOK_S)

    def _look(self, told: Told, now_s: float, read_s: float) -> None:
        world, kept = self.world, self._aged(told, now_s)
        look = self.detector.look(now_s, told.rows, kept, told.reports, read_s=read_s)
        rows, reports = list(told.rows), list(told.reports)
        world.chance.shuffle(rows)
        world.chance.shuffle(reports)
        other = self.twin.look(now_s, rows, kept, reports, read_s=read_s)
        gap_s = 0.0 if self.looked_s is None else now_s - self.looked_s
        self.looked_s = now_s
        world.counts["looks"] += 1
        world.counts["transitions"] += len(look.transitions)
        world.counts["abstained"] += bool(look.abstains)
        world.check(watch_checks.the_same_rows_say_the_same, look, other)
        world.check(watch_checks.who_lags_abstains, look, gap_s, read_s)
        for t in look.transitions:
            bad = {e.id for e in world.edges.values() if world.loop.now < e.bad_until_s}
            world.check(watch_checks.silence_only_quarantines, t, told.reports, bad)
        if look.transitions:
            self.life.spawn(self._write(look), "write")

    def _aged(self, told: Told, now_s: float) -> dict[UUID, Kept]:
        """As `app.fleet.health` does: a verdict's age is its own clock's from when it was first seen."""
        known = {
            (e, k.state.version): self.since_s.get((e, k.state.version), now_s - k.age_s)
            for e, k in told.kept.items()
        }
        self.since_s = known
        return {
            e: replace(k, age_s=max(0.0, now_s - known[e, k.state.version])) for e, k in told.kept.items()
        }

    async def _write(self, look: Look) -> None:
        try:
            async with asyncio.timeout(5.0):
                await self.world.network.request(self.life, "db", ("write", look))
        except (OSError, TimeoutError):
            return


class WatchWorld:
    def __init__(self, seed: int, off: frozenset[str] = frozenset()) -> None:
        self.loop = SimLoop(seed)
        self.chance = random.Random(seed * 13 + 6)
        self.violation: Violation | None = None
        self.counts: Counter[str] = Counter()
        self.pending: set[Any] = set()
        pairs = [(a, b) for a in REGIONS for b in REGIONS if a != b]
        self.network = Network(self.loop, random.Random(seed * 17 + 7), dict.fromkeys(pairs, 0.04))
        self.database = Machine(self.loop, "db", REGIONS[0])
        self.store = Store(self.database, off)
        self.network.listen("db", Life(self.loop, "db", self.database), answer=self._answer)
        self.edges: dict[UUID, WatchedEdge] = {}
        for n in range(PER_REGION * len(REGIONS)):
            machine = Machine(
                self.loop, f"edge-{n}", REGIONS[n % len(REGIONS)], rate=1 + self.chance.uniform(-0.002, 0.002)
            )
            self.edges[UUID(int=n + 1)] = WatchedEdge(self, machine, UUID(int=n + 1))
        self.instances = [
            Instance(self, Machine(self.loop, f"api-{n}", REGIONS[n], offset_s=self.chance.uniform(-10, 10)))
            for n in range(2)
        ]
        self.troubles = [self._drawn() for _ in range(self.chance.choice((2, 3, 4, 5)))]

    def _drawn(self) -> Trouble:
        kind = self.chance.choices(list(KINDS), list(KINDS.values()))[0]
        at_s = WARM_S + self.chance.random() * (ACTIVE_S - 8.0 - WARM_S)
        for_s = self.chance.choice((1.5, 3.0, 6.0, 8.0))
        return Trouble(kind, at_s, for_s, self.chance.randrange(60), self.chance.random() < 0.5)

    async def _answer(self, message: tuple[Any, ...]) -> Any:
        match message:
            case ("beat", edge):
                self.store.seen[edge] = self.database.wall()
            case ("report", report):
                self.store.reports[report.observer] = (report, self.database.wall())
            case ("read",):
                return self.store.read(self.edges)
            case ("write", look):
                self.store.write(look)
                self.check(
                    watch_checks.never_more_than_a_third, list(self.store.states.values()), len(self.edges)
                )
        return None

    def check(self, check: Any, *args: Any) -> None:
        what = check(*args)
        if what is not None and self.violation is None:
            self.violation = Violation(check.__name__, what, "", self.loop.now)
            self.loop.halted = True

    # ------------------------------------------------------------------------------------------------- troubles

    def strike(self, trouble: Trouble) -> None:
        edge = list(self.edges.values())[trouble.who % len(self.edges)]
        until_s = self.loop.now + trouble.for_s
        region = {m.machine.name for m in self.edges.values() if m.region == edge.region}
        everybody = {m.machine.name for m in (*self.edges.values(), *self.instances)} | {"db"}
        match trouble.kind:
            case "crash" | "silent" if edge.life.alive:
                edge.life.kill()
                if trouble.kind == "silent":
                    self.network.down.add(edge.machine.name)
                else:
                    edge.bad_until_s = until_s + 8.0
                self.loop.world_at(until_s, self._restart, edge)
            case "stop" if edge.life.state is RUNNING:
                self._pause(edge.life, until_s)
            case "sick":
                edge.sick_until_s, edge.bad_until_s = until_s, until_s + 8.0
            case "cut.database":
                self._cut({edge.machine.name}, {"db"}, trouble)
            case "cut.region":
                self._cut(region, everybody - region, trouble)
            case "cut.edges":
                self._cut({edge.machine.name}, everybody - {edge.machine.name, "db"}, trouble)
            case "observer.stop":
                self._pause(self.instances[trouble.who % 2].life, until_s)
            case "slow.database":
                self.network.slow["db"] = 20.0
                self.loop.world_at(until_s, self.network.slow.pop, "db", None)
            case "clock.jump":
                self.database.offset_s += (trouble.who - 30) * 120.0
            case _:
                return

    def _pause(self, life: Life, until_s: float) -> None:
        if life.state is RUNNING:
            life.stop()
            self.loop.world_at(until_s, lambda: life.go_on(slept=False))

    def _restart(self, edge: WatchedEdge) -> None:
        self.network.down.discard(edge.machine.name)
        edge.start()

    def _cut(self, here: set[str], there: set[str], trouble: Trouble) -> None:
        cuts = [Cut(frozenset(here), frozenset(there))]
        if not trouble.one_way:
            cuts.append(Cut(frozenset(there), frozenset(here)))
        for cut in cuts:
            self.network.cut(cut)
            self.loop.world_at(self.loop.now + trouble.for_s, self.network.heal, cut)

    # -------------------------------------------------------------------------------------------------- the story

    def run(self) -> None:
        for trouble in self.troubles:
            self.loop.world_at(trouble.at_s, self.strike, trouble)
        self.loop.run(ACTIVE_S + SETTLE_S)
        flaps = max((s.flaps for s in self.store.states.values()), default=0)
        if not self.loop.halted:
            # what a probation lasts is stated: 10 s, doubled with each time the edge went down
            self.loop.run(self.loop.now + probation_s(flaps) + 2.0)
        if not self.loop.halted:
            states = {e.machine.name: self.store.states.get(e.id, State()) for e in self.edges.values()}
            self.check(watch_checks.who_is_healthy_is_taken_for_it, states)
        self.loop.dispose()


def watch(seed: int, off: frozenset[str] = frozenset()) -> WatchWorld:
    world = WatchWorld(seed, off)
    world.run()
    return world
