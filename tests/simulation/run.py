"""One seed: builds the world of a plan, lets it run, strikes it, and asks at the end whether everything came right.

Decides the phases of a run: callers and faults are at work; then the world is left in peace until nothing waits any more; then
it sleeps for longer than any ticket lasts, and wakes up once more, so that every call has its end.
"""

from __future__ import annotations

import gc
import hashlib
import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.simulation import checks, fixtures
from tests.simulation.clocks import Machine
from tests.simulation.customers import Backend, CallerNode, Hooks, Reader
from tests.simulation.faults import Faults
from tests.simulation.ledger import Ledger, Violation
from tests.simulation.loop import Life, SimLoop
from tests.simulation.mutations import MUTATIONS
from tests.simulation.network import Network
from tests.simulation.nodes import DATABASE_ERRORS, Api, Edge
from tests.simulation.operators import Operator
from tests.simulation.plan import ACTIVE_S, APIS, REGIONS, Fault, Plan, machines
from tests.simulation.postgres import Cluster
from tests.simulation.statements import Statements
from tests.simulation.taps import production
from tests.simulation.valkey import Server, Valkeys
from tests.simulation.world import MONITOR_EVERY_S, World

SLEEP_S = 300.0
BUSY_S = 3.0
AFTER_SLEEP_S = 15.0
GRACE_S, CLAIM_S = 3.0, 3.0
_folder = Path(tempfile.gettempdir())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed. `covered`: (fault kind, state of a call when it struck) → how often."""

    plan: Plan
    violation: Violation | None
    steps: int
    faults: int
    covered: Counter[tuple[str, str]]
    counts: Counter[str]
    trace: list[str]
    digest: str
    """Of every step, who made it and when; empty where nothing was traced."""


def run(plan: Plan, *, mutation: str = "", trace: bool = False) -> Outcome:
    """The same plan, the same outcome; `trace` only writes it down."""
    loop = SimLoop(plan.seed)
    off = MUTATIONS[mutation].off if mutation else frozenset()
    drift = max((abs(rate - 1) for rate in plan.rates.values()), default=0.0)
    ledger = Ledger(loop, drift=drift)
    ledger.trace = [] if trace else None
    digest = hashlib.blake2b(digest_size=16)
    if trace:
        loop.watch = lambda life: digest.update(f"{life.name} {loop.now!r};".encode())
    collecting = gc.isenabled()
    gc.disable()
    try:
        world = _build(plan, loop, ledger, off)
        with production(world, mutation):
            _story(world)
            _unhandled(world)
            ledger.closed = True
            loop.dispose()
    finally:
        if collecting:
            gc.enable()
    for line in ledger.trace or []:
        digest.update(line.encode())
    return Outcome(
        plan=plan,
        violation=ledger.violation,
        steps=loop.steps,
        faults=len(world.struck_faults),
        covered=world.covered,
        counts=ledger.counts,
        trace=ledger.trace or [],
        digest=digest.hexdigest() if trace else "",
    )


def _build(plan: Plan, loop: SimLoop, ledger: Ledger, off: frozenset[str]) -> World:
    chance = random.Random(plan.seed * 3 + 2)
    network = Network(loop, random.Random(plan.seed * 5 + 3), plan.latency_s)
    places = [*machines(), ("operator", REGIONS[-1]), *((f"caller-{c.number}", c.region) for c in plan.calls)]
    known = {
        name: Machine(
            loop, name, region, offset_s=plan.offsets_s.get(name, 0.0), rate=plan.rates.get(name, 1.0)
        )
        for name, region in places
    }
    statements = Statements(off, grace_s=GRACE_S, claim_s=CLAIM_S)
    servers = [known[f"pg-{region}"] for region in REGIONS]
    cluster = Cluster(loop, network, chance, statements, servers, ttl_s=plan.ttl_s)
    valkeys = Valkeys(loop, network, chance)
    valkeys.hints_lost = plan.hints_lost
    for region in REGIONS:
        machine = known[f"valkey-{region}"]
        valkeys.servers[region] = Server(machine, Life(loop, machine.name, machine))
    return World(plan, loop, chance, ledger, network, cluster, valkeys, known, chance.choice(REGIONS))


def _story(world: World) -> None:
    plan, loop = world.plan, world.loop
    world.cluster.begin_with(
        [("webhooks", fixtures.WEBHOOK, fixtures.webhook_row())]
        + [("regions", r["id"], r) for r in fixtures.region_rows()]
    )
    world.cluster.on_durable = world.committed
    world.cluster.on_promotion = world.ledger.promoted
    world.cluster.on_events = lambda: world.ledger.moment("committing")
    world.ledger.on_word = world.fleet.spoke
    world.ledger.living = lambda: {e.owner for e in world.edges.values() if e.life.alive}
    for server in world.valkeys.servers.values():
        server.on_tail = world.ledger.tail
    world.hooks = Hooks(world, world.machines["hooks"])
    for region in REGIONS:
        world.backends[region] = Backend(world, world.machines[f"backend-{region}"])
    for i in range(APIS):
        world.apis[f"api-{i}"] = Api(world, world.machines[f"api-{i}"])
    for region in REGIONS:
        world.edges[region] = Edge(world, world.machines[f"edge-{region}"], _folder)
    world.operator = Operator(world, world.machines["operator"])
    world.reader = Reader(world, world.machines["reader"])
    for call in plan.calls:
        name = f"caller-{call.number}"
        world.callers[name] = CallerNode(world, world.machines[name], call)
    _plan_faults(world)
    loop.world_at(MONITOR_EVERY_S, world.monitor)
    while not loop.halted and loop.now < ACTIVE_S and not (loop.now > BUSY_S and world.quiet()):
        loop.run(loop.now + 0.5)
    moved_s, before = loop.now, [""]
    while not loop.halted and (waiting := world.waiting()):
        if waiting != before:
            moved_s, before = loop.now, waiting
        elif loop.now > moved_s + checks.SETTLED_WITHIN_S:
            world.ledger.check(checks.i10_waits_are_bounded, None, waiting)
            return
        loop.run(loop.now + 0.5)
    if loop.halted:
        return
    world.ledger.say("world", "sleeps")
    loop.skip(SLEEP_S)
    woken_s = loop.now
    while not loop.halted and not world.all_ended() and loop.now < woken_s + AFTER_SLEEP_S:
        loop.run(loop.now + 0.5)
    if not loop.halted:
        world.final_checks()


def _plan_faults(world: World) -> None:
    faults, loop = Faults(world), world.loop
    waiting: list[Fault] = []

    def strike(fault: Fault) -> None:
        if fault.number not in world.struck_faults:
            faults.strike(fault)

    def moment(kind: str) -> None:
        for fault in [f for f in waiting if f.trigger == kind and loop.now >= f.at_s]:
            waiting.remove(fault)
            loop.world_at(loop.now + fault.delay_s, strike, fault)

    world.ledger.on_moment = moment
    for fault in world.plan.faults:
        if fault.trigger:
            waiting.append(fault)
            loop.world_at(min(fault.at_s + 3.0, ACTIVE_S - 1), strike, fault)
        else:
            loop.world_at(fault.at_s, strike, fault)


def _unhandled(world: World) -> None:
    """Nothing that production raises goes unseen."""
    for context in world.loop.unhandled:
        error = context.get("exception")
        if error is not None and not isinstance(error, DATABASE_ERRORS):
            world.unexpected(str(context.get("life", "")), error)
    for task in world.loop.tasks:
        if task.done() and task.life.alive and not task.cancelled() and task._log_traceback:  # type: ignore[attr-defined]
            error = task.exception()
            if error is not None and not isinstance(error, DATABASE_ERRORS):
                world.unexpected(f"{task.life.name} {task.get_name()}", error)
