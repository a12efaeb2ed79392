"""What goes wrong: every kind of fault of a plan, done to the world and taken back when its time is over.

Decides nothing about when: the plan has said it. `World.disturb` is told which machines a fault touches, so that checkers of
liveness know who could not have helped it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from regions.wire import ids
from regions.wire.events import EdgeEvent
from regions.wire.uplink import AppendStatus, CallEvents, Events
from tests.simulation.loop import RUNNING, Life
from tests.simulation.network import Cut
from tests.simulation.plan import APIS, COMMANDS, LEAVES_S, REGIONS, Fault, machines

if TYPE_CHECKING:
    from tests.simulation.nodes import Edge
    from tests.simulation.postgres import Member
    from tests.simulation.world import World

STRANGE_BATCH = 1 << 40
FUSE_S = 0.2
"""A process that runs nothing meanwhile dies all the same."""


class Faults:
    def __init__(self, world: World) -> None:
        self._world = world

    def strike(self, fault: Fault) -> None:
        """Does it, and plans its end."""
        self._world.struck(fault)
        if fault.kind in COMMANDS:
            self._world.operator.carry_out(fault)
            return
        method: Callable[[Fault], None] = getattr(self, "_" + fault.kind.replace(".", "_"))
        method(fault)

    def _later(self, fault: Fault, undo: Callable[..., None], *args: Any) -> None:
        world = self._world
        world.loop.world_at(world.loop.now + fault.for_s, self._undo, fault, undo, *args)

    def _undo(self, fault: Fault, undo: Callable[..., None], *args: Any) -> None:
        undo(*args)
        self._world.over(fault)

    # ----------------------------------------------------------------------------------------------- deaths

    def _kill(self, fault: Fault, node: Any, *, restart: bool = True) -> None:
        """A process of ours, a few callbacks from now. `silently`: with its machine, so that nobody is told."""
        world, life = self._world, node.life
        if not life.alive:
            world.over(fault)
            return

        def died() -> None:
            world.ledger.say(life.name, "dies")
            if fault.silently:
                world.network.down.add(life.name)
            world.network.life_ended(life, silently=fault.silently)

        world.disturb(life.name)
        life.on_death.append(died)
        if fault.steps:
            life.fuse = fault.steps
            world.loop.world_at(world.loop.now + min(FUSE_S, fault.for_s / 2), life.kill)
        else:
            life.kill()
        if restart:
            self._later(fault, self._restart, node, life)

    def _restart(self, node: Any, life: Life) -> None:
        self._world.network.down.discard(life.name)
        if node.life is life:
            self._world.ledger.say(life.name, "starts again")
            node.start()
        self._world.undisturb(life.name)

    def _edge_crash(self, fault: Fault) -> None:
        self._kill(fault, self._world.edges[fault.target])

    def _edge_leave(self, fault: Fault) -> None:
        """SIGTERM: the edge says goodbye as far as it can, and ends."""
        edge = self._world.edges[fault.target]
        if edge.life.state is not RUNNING:
            self._world.over(fault)
            return
        self._world.disturb(edge.life.name)
        left = edge.life.spawn(edge.leave(), "leave")
        left.add_done_callback(lambda _: edge.life.kill())
        edge.life.on_death.append(lambda: self._world.network.life_ended(edge.life, silently=False))
        self._world.loop.world_at(
            self._world.loop.now + max(fault.for_s, LEAVES_S), self._restart_after, fault, edge
        )

    def _restart_after(self, fault: Fault, edge: Edge) -> None:
        edge.life.kill()
        self._undo(fault, self._restart, edge, edge.life)

    def _api_crash(self, fault: Fault) -> None:
        self._kill(fault, self._world.apis[fault.target])

    def _backend_crash(self, fault: Fault) -> None:
        self._kill(fault, self._world.backends[fault.target])

    def _kill_member(self, fault: Fault, member: Member) -> None:
        world = self._world
        if not member.life.alive:
            world.over(fault)
            return
        if fault.silently:
            world.network.down.add(member.machine.name)
        world.ledger.say(member.machine.name, "dies")
        world.cluster.kill(member, silently=fault.silently)
        self._later(fault, self._start_member, member)

    def _start_member(self, member: Member) -> None:
        self._world.network.down.discard(member.machine.name)
        if not member.life.alive:
            self._world.ledger.say(member.machine.name, "starts again")
            self._world.cluster.start(member)

    def _primary_crash(self, fault: Fault) -> None:
        member = self._world.cluster.primary
        assert member is not None
        self._kill_member(fault, member)

    def _standby_crash(self, fault: Fault) -> None:
        standbys = [m for m in self._world.cluster.members if not m.primary]
        self._kill_member(fault, standbys[fault.steps % len(standbys)])

    def _valkey_loss(self, fault: Fault) -> None:
        server = self._world.valkeys.servers[fault.target]
        server.lose()
        self._later(fault, self._start_valkey, server)

    def _start_valkey(self, server: Any) -> None:
        if not server.life.alive:
            server.life = Life(self._world.loop, server.machine.name, server.machine)

    def _double_loss(self, fault: Fault) -> None:
        """Everything of ours in two regions."""
        for region in (fault.target, fault.other):
            self._lose_region(fault, region)

    def _lose_region(self, fault: Fault, region: str) -> None:
        world = self._world
        self._kill(fault, world.edges[region])
        self._kill(fault, world.backends[region])
        for api in world.apis.values():
            if api.machine.region == region:
                self._kill(fault, api)
        for member in world.cluster.members:
            if member.machine.region == region:
                self._kill_member(fault, member)
        self._valkey_loss(replace(fault, target=region))

    def _control_loss(self, fault: Fault) -> None:
        """The whole control plane: every instance, every database server."""
        for api in self._world.apis.values():
            self._kill(fault, api)
        for member in self._world.cluster.members:
            self._kill_member(fault, member)

    # ------------------------------------------------------------------------------------------------ pauses

    def _stop(self, fault: Fault, life: Life, after: Callable[[], None] | None = None) -> None:
        if not life.alive:
            self._world.over(fault)
            return
        self._world.ledger.say(life.name, "is stopped")
        self._world.disturb(life.name)
        life.stop()
        self._later(fault, self._go_on, life, fault.slept, after)

    def _go_on(self, life: Life, slept: bool, after: Callable[[], None] | None) -> None:
        self._world.ledger.say(life.name, "goes on")
        life.go_on(slept=slept)
        self._world.undisturb(life.name)
        if after is not None:
            after()

    def _edge_stop(self, fault: Fault) -> None:
        self._stop(fault, self._world.edges[fault.target].life)

    def _api_stop(self, fault: Fault) -> None:
        self._stop(fault, self._world.apis[fault.target].life)

    def _caller_stop(self, fault: Fault) -> None:
        caller = self._world.callers.get(fault.target)
        if caller is not None:
            self._stop(fault, caller.life)
        else:
            self._world.over(fault)

    def _primary_stop(self, fault: Fault) -> None:
        member = self._world.cluster.primary
        assert member is not None
        self._stop(fault, member.life, lambda: self._world.cluster.continued(member))

    # ------------------------------------------------------------------------------------------- the network

    def _cut(self, fault: Fault, here: set[str], there: set[str]) -> None:
        """Both ways, or one of them."""
        pairs = [(here, there), (there, here)]
        if fault.one_way:
            pairs = [pairs[fault.steps % 2]]
        cuts = [Cut(frozenset(a), frozenset(b)) for a, b in pairs]
        for name in here | there if len(here | there) < 4 else here:
            self._world.disturb(name)
        for cut in cuts:
            self._world.network.cut(cut)

        def heal() -> None:
            for cut in cuts:
                self._world.network.heal(cut)
            for name in here | there if len(here | there) < 4 else here:
                self._world.undisturb(name)

        self._later(fault, heal)

    def _cut_edge(self, fault: Fault) -> None:
        self._cut(fault, {f"edge-{fault.target}"}, set(self._world.callers))

    def _cut_uplink(self, fault: Fault) -> None:
        self._cut(fault, {f"edge-{fault.target}"}, {f"api-{i}" for i in range(APIS)})

    def _cut_database(self, fault: Fault) -> None:
        self._cut(fault, {f"api-{fault.steps % APIS}"}, {f"pg-{r}" for r in REGIONS})

    def _cut_replication(self, fault: Fault) -> None:
        primary = self._world.cluster.primary
        assert primary is not None
        others = {m.machine.name for m in self._world.cluster.members if m is not primary}
        self._cut(fault, {primary.machine.name}, others)

    def _cut_region(self, fault: Fault) -> None:
        inside = {name for name, region in machines() if region == fault.target}
        outside = {name for name, region in machines() if region != fault.target} | set(self._world.callers)
        self._cut(fault, inside, outside)

    def _cut_caller(self, fault: Fault) -> None:
        self._cut(fault, {fault.target}, {f"edge-{fault.other}"})

    def _break(self, fault: Fault) -> None:
        for end in self._streams(fault):
            self._world.network.break_(end)
        self._world.over(fault)

    def _half_open(self, fault: Fault) -> None:
        for end in self._streams(fault):
            self._world.network.silence(end)
        self._world.disturb(fault.target)
        self._later(fault, self._world.undisturb, fault.target)

    def _streams(self, fault: Fault) -> list[Any]:
        life = self._world.life_of(fault.target)
        ends = self._world.network.streams(life) if life is not None else []
        return [end for i, end in enumerate(ends) if (i + fault.steps) % 3 != 0 or len(ends) == 1]

    def _slow(self, fault: Fault) -> None:
        slow = self._world.network.slow
        slow[fault.target] = fault.amount
        self._world.disturb(fault.target)

        def end() -> None:
            slow.pop(fault.target, None)
            self._world.undisturb(fault.target)

        self._later(fault, end)

    def _answers_lost(self, fault: Fault) -> None:
        self._mischief(fault, "lost_answer")

    def _requests_doubled(self, fault: Fault) -> None:
        self._mischief(fault, "doubled")

    def _mischief(self, fault: Fault, what: str) -> None:
        mischief = self._world.network.mischief
        setattr(mischief, what, 0.5)
        self._later(fault, setattr, mischief, what, 0.0)

    def _hooks_down(self, fault: Fault) -> None:
        self._world.hooks.down = True
        self._later(fault, setattr, self._world.hooks, "down", False)

    def _waits_cut(self, fault: Fault) -> None:
        """Whatever waits for the standbys is told that it has committed, again and again for a while."""
        ends_s = self._world.loop.now + fault.for_s

        def cut() -> None:
            self._world.cluster.cut_waits()
            if self._world.loop.now < ends_s:
                self._world.loop.world_at(self._world.loop.now + 0.15, cut)

        cut()
        self._later(fault, lambda: None)

    def _clock_jump(self, fault: Fault) -> None:
        machine = self._world.machines.get(fault.target)
        if machine is not None:
            machine.offset_s += fault.amount
        self._world.over(fault)

    # ------------------------------------------------------------------------------- edges that say strange things

    def _impostor(self, fault: Fault) -> None:
        """An edge writes for a call that another one owns."""
        thief, victim = self._world.edges[fault.target], self._world.edges[fault.other]
        sessions = victim.calls.sessions if victim.life.alive else []
        if sessions:
            session = sessions[fault.steps % len(sessions)]
            event = self._strange_event(session.outbox.acked_n + 1, "speech.started")
            self._send_strange(thief, session.call, session.epoch, event, "i1_one_owner_per_epoch")
        self._world.over(fault)

    def _rewriter(self, fault: Fault) -> None:
        """An edge sends another content under a number that is stored already."""
        edge = self._world.edges[fault.target]
        for session in edge.calls.sessions if edge.life.alive else ():
            call = ids.decode(ids.CALL, session.call)
            own = [n for c, e, n in self._world.ledger.origins if (c, e) == (call, session.epoch)]
            if own:
                event = self._strange_event(own[fault.steps % len(own)], "speech.stopped")
                self._send_strange(edge, session.call, session.epoch, event, "i5_content_is_what_was_written")
                break
        self._world.over(fault)

    def _strange_event(self, n: int, type_: str) -> EdgeEvent:
        return EdgeEvent(
            n=n, id=ids.encode(ids.EVENT, self._world.strange_id()), type=type_, at_ms=1_760_000_000_000,
            data=msgspec.Raw(b'{"offset_ms":666}'),
        )  # fmt: skip

    def _send_strange(self, edge: Edge, call: str, epoch: int, event: EdgeEvent, check: str) -> None:
        world = self._world

        def judge(results: list[AppendStatus]) -> None:
            if results[0].status == "durable":
                world.ledger.broken(
                    check,
                    f"e{epoch} n{event.n} of an impostor was called durable",
                    ids.decode(ids.CALL, call),
                )

        if edge.life.alive and edge.socket is not None and edge.uplink.up:
            frame = Events(batch=STRANGE_BATCH, calls=[CallEvents(call=call, epoch=epoch, events=[event])])
            edge.socket.inject(STRANGE_BATCH, msgspec.json.encode(frame).decode(), judge)
