"""The nodes of one seed, what the faults have done to whom, and what can be seen from above at any time.

Decides when a machine could have helped it (`sound_since`), what still waits (`waiting`) and what is asked at the end. Leaves
the phases of a run to `run`.
"""

from __future__ import annotations

import random
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from regions.edge.machine import Phase
from regions.wire import ids
from regions.wire.ids import uuid7
from tests.simulation import checks
from tests.simulation.clocks import WALL_BASE_S, Machine
from tests.simulation.customers import Backend, CallerNode
from tests.simulation.fleet_ledger import FleetLedger
from tests.simulation.ledger import Ledger
from tests.simulation.loop import RUNNING, Life, SimLoop
from tests.simulation.network import Network
from tests.simulation.nodes import Api, Edge
from tests.simulation.plan import COMMANDS, LEAVES_S, Fault, Plan
from tests.simulation.postgres import Cluster
from tests.simulation.valkey import Valkeys
from voxplane.watch import State

MONITOR_EVERY_S = 0.25
SERVED_WITHIN_S = 6.0
FOREVER_S = 1e9


@dataclass(slots=True)
class World:
    """The nodes by name, and what the faults have done to whom. `disturbed_s`: until when a machine could not help it."""

    plan: Plan
    loop: SimLoop
    chance: random.Random
    ledger: Ledger
    network: Network
    cluster: Cluster
    valkeys: Valkeys
    machines: dict[str, Machine]
    hint_region: str
    apis: dict[str, Api] = field(default_factory=dict)
    edges: dict[str, Edge] = field(default_factory=dict)
    backends: dict[str, Backend] = field(default_factory=dict)
    callers: dict[str, CallerNode] = field(default_factory=dict)
    disturbed_s: dict[str, float] = field(default_factory=dict)
    troubles: Counter[str] = field(default_factory=Counter)
    open_faults: Counter[int] = field(default_factory=Counter)
    covered: Counter[tuple[str, str]] = field(default_factory=Counter)
    struck_faults: set[int] = field(default_factory=set)
    hooks: Any = None
    reader: Any = None
    operator: Any = None
    strange: int = 0
    troubled_until_s: float = 0.0
    fleet: FleetLedger = field(init=False)

    def __post_init__(self) -> None:
        self.fleet = FleetLedger(self)

    # -------------------------------------------------------------------------------------------------- faults

    def struck(self, fault: Fault) -> None:
        self.ledger.say("FAULT", str(fault))
        self.struck_faults.add(fault.number)
        if fault.kind not in COMMANDS:
            lasts_s = max(fault.for_s, LEAVES_S) if fault.kind == "edge.leave" else fault.for_s
            self.troubled_until_s = max(self.troubled_until_s, self.loop.now + lasts_s)
        for name in (f"caller-{c.number}" for c in self.plan.calls):
            self.covered[(fault.kind, self.state_of(name))] += 1

    def over(self, fault: Fault) -> None:
        self.ledger.say("FAULT", f"#{fault.number} {fault.kind} is over")

    def disturb(self, name: str) -> None:
        self.troubles[name] += 1
        self.disturbed_s[name] = FOREVER_S

    def undisturb(self, name: str) -> None:
        self.troubles[name] -= 1
        if self.troubles[name] <= 0:
            self.disturbed_s[name] = self.loop.now

    def calm_s(self) -> float:
        """For how long nothing has been wrong anywhere; below zero while something is."""
        return self.loop.now - self.troubled_until_s

    def sound_since(self, name: str) -> float:
        return self.disturbed_s.get(name, 0.0)

    def state_of(self, name: str) -> str:
        """Where a call is, for the coverage table."""
        node = self.callers[name]
        caller = node.caller
        if not node.call_id:
            return "before"
        if caller is None or not node.attached:
            return "ringing"
        if caller.over:
            waits = any(
                s.call == node.call_id and not s.outbox.settled
                for e in self.edges.values() if e.life.alive and hasattr(e, "calls") for s in e.calls.sessions
            )  # fmt: skip
            return "ending" if waits else "over"
        state = caller._watch.state
        if state is State.ATTACHED:
            return "moved" if caller.epoch > 1 else "attached"
        return state.value

    def life_of(self, name: str) -> Life | None:
        for node in (*self.apis.values(), *self.edges.values(), *self.callers.values(), self.reader):
            if node.machine.name == name if hasattr(node, "machine") else node.life.name == name:
                life: Life = node.life
                return life
        return None

    def strange_id(self) -> UUID:
        self.strange += 1
        return uuid7(WALL_BASE_S * 1000, self.strange)

    def unexpected(self, who: str, error: BaseException) -> None:
        where = traceback.extract_tb(error.__traceback__)
        place = f"{Path(where[-1].filename).name}:{where[-1].lineno}" if where else ""
        self.ledger.broken("nothing_unexpected_is_raised", f"{who}: {type(error).__name__}: {error} {place}")

    def same_call(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        if one["id"] != other["id"]:
            self.ledger.broken("i5_stored_once", "a create that was sent twice made two calls")

    # ------------------------------------------------------------------------------------------------ monitors

    def monitor(self) -> None:
        """What can be seen at any time: who is without an edge, and for how long."""
        now = self.loop.now
        self.loop.world_at(now + MONITOR_EVERY_S, self.monitor)
        self.fleet.monitor()
        for node in self.callers.values():
            caller = node.caller
            unserved = (
                caller is not None
                and node.attached
                and not caller.over
                and caller._watch.state is not State.ATTACHED
            )
            if caller is None or not unserved or node.life.state is not RUNNING:
                node.unserved_s = None
                continue
            node.unserved_s = now if node.unserved_s is None else node.unserved_s
            since = max(node.unserved_s, self.sound_since(node.machine.name))
            tried = caller._watch._highest_tried
            sound = [
                max(since, self.sound_since(edge.machine.name), edge.life.born_s)
                for epoch, (grant, _) in caller._tickets._grants.items()
                if epoch > tried and (edge := self.edges[grant.region]).life.state is RUNNING
                and self._granted(node, epoch, edge)
            ]  # fmt: skip
            if sound and now - min(sound) > SERVED_WITHIN_S:
                call = ids.decode(ids.CALL, node.call_id)
                self.ledger.check(checks.i7_goes_on_without_control_plane, call, call, now - node.unserved_s)

    def _granted(self, node: CallerNode, epoch: int, edge: Edge) -> bool:
        """Whether this very life of the edge was granted the epoch."""
        for member in self.cluster.members:
            row = member.tables.rows["calls"].get(ids.decode(ids.CALL, node.call_id))
            if row is not None and epoch <= row["epoch_granted"]:
                return str(row["grant_incarnations"][epoch - 1]) == edge.identity.incarnation
        return False

    def committed(self, commit: Any) -> None:
        self.ledger.committed(commit)
        self.fleet.committed(commit)
        for table, _, row in commit.writes:
            if table == "events" and row["source_key"] == "reconcile":
                owners = [
                    f"{edge.owner} e{s.epoch}"
                    for edge in self.edges.values() if edge.life.state is RUNNING and hasattr(edge, "calls")
                    for s in edge.calls.sessions
                    if s.call == ids.encode(ids.CALL, row["call_id"]) and s.phase is Phase.OWNING
                    and self.loop.now - self.ledger.renewed.get((row["call_id"], s.epoch), -FOREVER_S) < 1.0
                ]  # fmt: skip
                self.ledger.check(
                    checks.i11_lost_contact_ends_no_call,
                    row["call_id"],
                    row["call_id"],
                    str(row["data"]),
                    owners,
                )

    def quiet(self) -> bool:
        """Callers and faults are done."""
        return (
            len(self.struck_faults) == len(self.plan.faults)
            and not any(self.troubles.values())
            and not self.operator.busy
            and all(node.done for node in self.callers.values())
        )

    def all_ended(self) -> bool:
        return all(self.ledger.newest[call]["type"] == checks.FINAL for call in self.ledger.calls)

    def waiting(self) -> list[str]:
        """What is not done yet, in words."""
        found = [f"{n.machine.name} is at work" for n in self.callers.values() if not n.done]
        if self.operator.busy:
            found.append(f"the operator has commands to take back, {self.operator.answered} were answered")
        for edge in self.edges.values():
            if not edge.life.alive or not hasattr(edge, "calls"):
                found.append(f"{edge.machine.name} is away")
                continue
            found += [
                f"{edge.owner} has {len(s.outbox.unacked)} events of {self.ledger.name_of(ids.decode(ids.CALL, s.call))} e{s.epoch}"
                for s in edge.calls.sessions if not s.outbox.settled
            ]  # fmt: skip
        primary = self.cluster.primary
        if primary is None or not primary.up:
            return [*found, "there is no primary"]
        now = primary.now()
        heads: dict[Any, int] = {}
        for call, webhook, seq in primary.tables.due:
            heads[(call, webhook)] = min(seq, heads.get((call, webhook), seq))
        for (call, webhook), seq in heads.items():
            row = primary.tables.rows["deliveries"][(call, webhook, seq)]
            # those behind a head that is tried again later wait for it
            if row["state"] == "in_flight" or row["next_at"] <= now:
                found.append(f"the delivery of seq {seq} of {self.ledger.name_of(call)} is {row['state']}")
        found += [
            f"the reader has {self.ledger.read_seq.get(c, 0)} of {row['seq']} events of {self.ledger.name_of(c)}"
            for c, row in self.ledger.newest.items() if self.ledger.read_seq.get(c, 0) < row["seq"]
        ]  # fmt: skip
        return found

    def final_checks(self) -> None:
        primary = self.cluster.primary
        assert primary is not None
        self.ledger.check(checks.nothing_is_both_stored_and_late, None, set(primary.tables.rows["late"]))
        due = {(call, seq) for call, _, seq in primary.tables.due}
        self.ledger.check(checks.i5_every_endpoint_hears, None, due)
        for node in self.callers.values():
            if node.caller is not None:
                call = ids.decode(ids.CALL, node.call_id)
                epoch, n = node.caller._standing._acked
                self.ledger.check(checks.i3_callers_were_told_the_truth, call, call, epoch, n)
        for call, told in self.ledger.memories:
            self.ledger.check(checks.memory_is_in_the_order_of_the_log, call, call, told)
        for call in self.ledger.calls:
            self.ledger.check(checks.i11_exactly_one_final, call, call, self.ledger.rows_of(call))
