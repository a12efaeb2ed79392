"""PostgreSQL as the control plane meets it: one primary, two standbys, commits that are acknowledged by a quorum, or never.

Decides when a commit is visible, when it is durable, and what a failover keeps. A commit is written to the primary's log,
shipped to the standbys in order, and answered once one of them has it; it becomes visible then, or earlier where its wait
is cut short (the driver's cancel): visible is not durable. A primary that dies comes back with all it had written; a standby
that is promoted has what it had received, and what only the old primary had is gone. No standby is promoted that sees
nobody. What a statement does stands in `statements`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from asyncpg import exceptions as pg

from tests.simulation.clocks import Machine
from tests.simulation.loop import RUNNING, Life, SimLoop
from tests.simulation.network import Network
from tests.simulation.statements import Statements
from tests.simulation.tables import Blocked, Row, Tables, Txn, Write

LOCK_TIMEOUT_S = 2.0
STATEMENT_TIMEOUT_S = 5.0
ASK_AGAIN_S = 0.25
IDLE_TIMEOUT_S = 5.0
COMMIT = "commit"
WATCH_EVERY_S = 0.25
NOTICE_S = 0.2
"""How long a primary that was stopped goes on before it finds that it is one no more."""


@dataclass(slots=True, eq=False)
class Commit:
    lsn: int
    xid: int
    writes: list[Write]
    txn: Txn | None = None
    statement: Statement | None = None
    durable: bool = False


@dataclass(slots=True, eq=False)
class Statement:
    """On its way, at work, or waiting. `told` takes, as the client's life, the rows or the error, and whether there was a warning
    with them: the wait for the standbys was cut short."""

    client: Life
    text: str
    args: tuple[Any, ...]
    told: Callable[[list[Row] | Exception, bool], None]
    generation: int
    abandoned: bool = False
    done: bool = False
    lock_timer: Any = None
    commit: Commit | None = None
    block: Block | None = None


@dataclass(slots=True, eq=False)
class Block:
    """A transaction of several statements: one from the first that locks or writes. They do not see each other's writes; none of
    production's needs to. `over`: it came to nothing, and everything that follows in it fails."""

    txn: Txn | None = None
    over: bool = False


class Wire(Protocol):
    """A client's connection to one member, as the cluster sees it."""

    member: Member
    broken: bool
    statement: Statement | None


class Member:
    """One server. `generation` counts its lives and roles: a connection belongs to one of them."""

    def __init__(self, cluster: Cluster, machine: Machine, *, primary: bool) -> None:
        self.cluster = cluster
        self.machine = machine
        self.life = Life(cluster.loop, machine.name, machine)
        self.primary = primary
        self.log: list[Commit] = []
        self.received = 0
        """How much of `log` it has on disk; a primary has all."""
        self.arriving = 0
        self.arrive_s = 0.0
        self.tables = Tables()
        self.generation = 0
        self.term = 0
        """Of its newest time as primary: the highest one counts."""
        self.waiting: dict[tuple[str, Any], list[Statement]] = {}

    @property
    def up(self) -> bool:
        return self.life.state is RUNNING

    def now(self) -> datetime:
        return self.machine.wall()

    def rebuild(self, base: list[Write]) -> None:
        """What it shows after a start or a promotion: everything in its log."""
        next_xid = max([c.xid for c in self.log[: self.received]], default=999) + 1
        self.tables = Tables()
        self.tables.next_xid = next_xid
        self.tables.apply(base)
        for commit in self.log[: self.received]:
            self.tables.apply(commit.writes)


class Cluster:
    """`on_durable` is told of every commit once it is acknowledged; `on_promotion` of a member that takes over."""

    def __init__(
        self, loop: SimLoop, network: Network, chance: random.Random, statements: Statements, machines: list[Machine],
        *, ttl_s: float,
    ) -> None:  # fmt: skip
        self.loop = loop
        self.network = network
        self.chance = chance
        self.statements = statements
        self.ttl_s = ttl_s
        self.base: list[Write] = []
        self.on_durable: Callable[[Commit], None] = lambda _: None
        self.on_promotion: Callable[[Member], None] = lambda _: None
        self.on_events: Callable[[], None] = lambda: None
        self.members = [Member(self, machine, primary=i == 0) for i, machine in enumerate(machines)]
        self.connections: dict[Wire, None] = {}
        self._primary_seen_s = 0.0
        self.failovers = 0
        loop.world_at(WATCH_EVERY_S, self._watch)

    def begin_with(self, writes: list[Write]) -> None:
        """What is there before the story begins, on every member."""
        self.base = list(writes)
        for member in self.members:
            member.rebuild(self.base)

    @property
    def primary(self) -> Member | None:
        """The newest one, dead or alive."""
        primaries = [m for m in self.members if m.primary]
        return max(primaries, key=lambda m: m.term) if primaries else None

    def found_by(self, machine: Machine) -> Member | None:
        """Whom a client that connects now takes for the primary: the first that answers and says so."""
        for member in self.members:
            if member.primary and member.up and not self._cut(machine, member.machine):
                return member
        return None

    def _cut(self, a: Machine, b: Machine) -> bool:
        return self.network.is_cut(a, b) or self.network.is_cut(b, a)

    # ----------------------------------------------------------------------------------------------- statements

    def submit(self, member: Member, statement: Statement) -> None:
        client = statement.client
        if statement.done or not client.alive:
            return
        if self.network.is_cut(client.machine, member.machine):
            self.loop.world_at(self.loop.now + ASK_AGAIN_S, self.submit, member, statement)
            return
        there_s = self.network.latency_s(client.machine, member.machine)
        if not member.life.alive or member.generation != statement.generation:
            if member.machine.name not in self.network.down:
                self._break(statement, there_s)
            return
        if statement.text in self.statements.reads and self.chance.random() < 0.7:
            there_s *= 2
            self.loop.deliver_at(self.loop.now + there_s, member.life, self._read, member, statement)
        else:
            self.loop.deliver_at(self.loop.now + there_s, member.life, self._execute, member, statement)

    def _break(self, statement: Statement, after_s: float) -> None:
        error = pg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        self.loop.deliver_at(self.loop.now + after_s, statement.client, self._tell, statement, error)

    def _tell(self, statement: Statement, outcome: list[Row] | Exception, warned: bool = False) -> None:
        if not statement.done:
            statement.done = True
            statement.told(outcome, warned)

    def _read(self, member: Member, statement: Statement) -> None:
        """The answer is on the way back already: both ways were counted."""
        if statement.done:
            return
        if member.generation != statement.generation:
            self._break(statement, 0.0)
            return
        txn = Txn(0, member.now())
        rows = self.statements.run(statement.text, member.tables, txn, statement.args)
        self.loop.deliver_at(self.loop.now, statement.client, self._tell, statement, rows)

    def _execute(self, member: Member, statement: Statement) -> None:
        if statement.abandoned or statement.commit is not None:
            return
        if member.generation != statement.generation or not member.primary:
            self._break(statement, 0.001)
            return
        tables, block = member.tables, statement.block
        if block is not None and (block.over or (statement.text == COMMIT and block.txn is None)):
            self._answer(member, statement, pg.InFailedSQLTransactionError("the transaction is over"))
            return
        began = block is None or block.txn is None
        txn = tables.begin(member.now()) if block is None or block.txn is None else block.txn
        kept = len(txn.writes)
        txn.now = member.now()
        try:
            commits = statement.text == COMMIT
            rows = [] if commits else self.statements.run(statement.text, tables, txn, statement.args)
        except Blocked as blocked:
            if began:
                tables.next_xid -= 1
                self._let_go(member, txn)
            else:
                del txn.writes[kept:]
            member.waiting.setdefault(blocked.lock, []).append(statement)
            if statement.lock_timer is None:
                statement.lock_timer = self.loop.deliver_at(
                    self.loop.now + LOCK_TIMEOUT_S, member.life, self._lock_timeout, member, statement
                )
            return
        if statement.lock_timer is not None:
            statement.lock_timer.cancel()
        if block is not None and not commits and (txn.writes or txn.locks):
            if began:
                self._begin_block(member, statement, block, txn)
            self._answer(member, statement, rows)
            return
        if block is not None:
            block.over = True
        if not txn.writes and not txn.locks:
            self._let_go(member, txn)
            self._answer(member, statement, rows)
            return
        commit = Commit(len(member.log) + 1, txn.xid, txn.writes, txn, statement)
        if any(table == "events" for table, _, _ in txn.writes):
            self.on_events()
        statement.commit = commit
        member.log.append(commit)
        member.received = len(member.log)
        commit.statement = statement
        statement.args = ()
        statement.told = _with_rows(statement.told, rows)
        self.loop.deliver_at(
            self.loop.now + STATEMENT_TIMEOUT_S,
            member.life,
            self._cut_short,
            member,
            commit,
            member.generation,
        )
        for standby in self.members:
            if standby is not member:
                self._ship(member, standby)

    def _begin_block(self, member: Member, statement: Statement, block: Block, txn: Txn) -> None:
        """The server ends it where its client dies, or says nothing for long."""
        block.txn = txn
        statement.client.on_death.append(lambda: self.roll_back(member, block))
        self.loop.deliver_at(
            self.loop.now + IDLE_TIMEOUT_S, member.life, self._roll_back, member, member.tables, block
        )

    def roll_back(self, member: Member, block: Block) -> None:
        """The client gives up, or is gone: the server hears of it, where it is not cut off."""
        if block.txn is not None and not block.over:
            self.loop.deliver_at(
                self.loop.now + WATCH_EVERY_S / 5, member.life, self._roll_back, member, member.tables, block
            )

    def _roll_back(self, member: Member, tables: Tables, block: Block) -> None:
        if block.over or block.txn is None:
            return
        block.over = True
        if member.tables is tables:
            self._let_go(member, block.txn)

    def _lock_timeout(self, member: Member, statement: Statement) -> None:
        for waiting in member.waiting.values():
            if statement in waiting:
                waiting.remove(statement)
                self._answer(
                    member, statement, pg.LockNotAvailableError("canceling statement due to lock timeout")
                )

    def _let_go(self, member: Member, txn: Txn) -> None:
        for lock in member.tables.end(txn):
            for statement in member.waiting.pop(lock, ()):
                self.loop.deliver_at(self.loop.now, member.life, self._execute, member, statement)

    def cut_waits(self) -> None:
        """An operator cancels whatever waits for the standbys: each is told that it has committed, and warned."""
        member = self.primary
        if member is not None and member.up:
            for commit in member.log:
                self._cut_short(member, commit, member.generation)

    def _cut_short(self, member: Member, commit: Commit, generation: int) -> None:
        """Also what the server's own statement time-out does."""
        if commit.txn is None or member.generation != generation:
            return
        self._show(member, commit)
        if commit.statement is not None:
            self._answer(member, commit.statement, [], warned=True)

    def _answer(
        self, member: Member, statement: Statement, outcome: list[Row] | Exception, warned: bool = False
    ) -> None:
        client = statement.client
        if statement.done or not client.alive:
            return
        if self.network.is_cut(member.machine, client.machine):
            self.loop.world_at(self.loop.now + ASK_AGAIN_S, self._answer, member, statement, outcome, warned)
            return
        when_s = self.loop.now + self.network.latency_s(member.machine, client.machine)
        self.loop.deliver_at(when_s, client, self._tell, statement, outcome, warned)

    def cancel(self, member: Member, statement: Statement) -> None:
        """The driver gives up: its request to cancel may arrive, and may come too late."""
        statement.done = True
        if self.network.is_cut(statement.client.machine, member.machine) or self.chance.random() < 0.3:
            return
        when_s = self.loop.now + self.network.latency_s(statement.client.machine, member.machine)
        self.loop.deliver_at(when_s, member.life, self._canceled, member, statement)

    def _canceled(self, member: Member, statement: Statement) -> None:
        if member.generation != statement.generation:
            return
        statement.abandoned = True
        for waiting in member.waiting.values():
            if statement in waiting:
                waiting.remove(statement)
        commit = statement.commit
        if commit is not None and commit.txn is not None:
            # the wait is cut short, with a warning: visible, and perhaps on one copy only
            self._show(member, commit)

    # ---------------------------------------------------------------------------------------------- replication

    def _ship(self, primary: Member, standby: Member) -> None:
        """What the standby does not have yet, as one piece in flight."""
        upto = len(primary.log)
        if standby.primary or standby.log is not primary.log or standby.arriving >= upto:
            return
        if (
            not standby.life.alive
            or not primary.life.alive
            or self.network.is_cut(primary.machine, standby.machine)
        ):
            return
        standby.arriving = upto
        when_s = self.loop.now + self.network.latency_s(primary.machine, standby.machine)
        standby.arrive_s = when_s = max(when_s, standby.arrive_s)
        self.loop.deliver_at(when_s, standby.life, self._received, primary, standby, primary.log, upto)

    def _received(self, primary: Member, standby: Member, log: list[Commit], upto: int) -> None:
        if standby.log is not log or standby.primary:
            return
        standby.received = max(standby.received, upto)
        if log[upto - 1].durable:
            return
        self._acknowledge(primary, standby, log, upto)

    def _acknowledge(self, primary: Member, standby: Member, log: list[Commit], upto: int) -> None:
        if self.network.is_cut(standby.machine, primary.machine):
            self.loop.world_at(self.loop.now + ASK_AGAIN_S, self._acknowledge, primary, standby, log, upto)
            return
        when_s = self.loop.now + self.network.latency_s(standby.machine, primary.machine)
        self.loop.deliver_at(when_s, primary.life, self._acknowledged, primary, log, upto)

    def _acknowledged(self, primary: Member, log: list[Commit], upto: int) -> None:
        """One standby has it, and the primary: a quorum of two copies."""
        if not primary.primary or primary.log is not log:
            return
        for i in range(upto - 1, -1, -1):
            if log[i].durable:
                break
            log[i].durable = True
        else:
            i = -1
        for commit in log[i + 1 : upto]:
            self.on_durable(commit)
            if commit.txn is not None:
                self._show(primary, commit)
                if commit.statement is not None:
                    self._answer(primary, commit.statement, [])

    def _show(self, member: Member, commit: Commit) -> None:
        txn, commit.txn = commit.txn, None
        assert txn is not None
        member.tables.apply(commit.writes)
        self._let_go(member, txn)

    # ------------------------------------------------------------------------------------------ deaths and takeovers

    def kill(self, member: Member, *, silently: bool) -> None:
        """The server is gone; its connections are, or nobody is told."""
        member.life.kill()
        self._end_connections(member, tell=not silently)

    def _end_connections(self, member: Member, *, tell: bool) -> None:
        member.generation += 1
        member.waiting.clear()
        if tell:
            for wire in [w for w in self.connections if w.member is member]:
                wire.broken = True
                if wire.statement is not None and not wire.statement.done:
                    self._break(wire.statement, 0.005)

    def start(self, member: Member) -> None:
        """Comes back with what it had on disk, in the role it had where nobody has taken it."""
        member.life = Life(self.loop, member.machine.name, member.machine)
        member.generation += 1
        if member.primary and self.primary is member:
            for commit in member.log:
                commit.txn = commit.statement = None
            member.rebuild(self.base)
            for other in self.members:
                self._follow(other, member)
        else:
            self._demote(member)

    def continued(self, member: Member) -> None:
        """After a stop: a primary that was replaced meanwhile finds out soon, but not at once."""
        if member.primary and self.primary is not member:
            self.loop.world_at(self.loop.now + NOTICE_S, self._demote, member)

    def _demote(self, member: Member) -> None:
        primary = self.primary
        was_primary, member.primary = member.primary, False
        if was_primary:
            self._end_connections(member, tell=True)
        if primary is None or primary is member:
            member.primary = was_primary
            return
        self._follow(member, primary)

    def _follow(self, member: Member, primary: Member) -> None:
        if member is primary or member.primary:
            return
        if member.log is not primary.log:
            # what the two have in common is kept, the rest is rewound
            common = 0
            for mine, theirs in zip(member.log[: member.received], primary.log, strict=False):
                if mine is not theirs:
                    break
                common += 1
            member.log, member.received = primary.log, common
        member.arriving = member.received
        member.arrive_s = 0.0
        self._ship(primary, member)

    def _watch(self) -> None:
        """The part of the cluster's manager: who leads, and when somebody else must."""
        self.loop.world_at(self.loop.now + WATCH_EVERY_S, self._watch)
        primary = self.primary
        assert primary is not None
        for standby in self.members:
            if standby is not primary and standby.up and not standby.primary and primary.up:
                if standby.log is not primary.log:
                    self._follow(standby, primary)
                elif standby.received < len(primary.log) and self.loop.now - standby.arrive_s > 0.5:
                    # the connection was lost on the way: streaming begins again from what is on disk
                    standby.arriving = standby.received
                    self._ship(primary, standby)
                if standby.received and not primary.log[standby.received - 1].durable:
                    self._acknowledge(primary, standby, primary.log, standby.received)
        friends = [
            m for m in self.members
            if m is not primary and m.up and not m.primary and not self._cut(m.machine, primary.machine)
        ]  # fmt: skip
        if primary.up and friends:
            self._primary_seen_s = self.loop.now
            return
        if self.loop.now - self._primary_seen_s < self.ttl_s:
            return
        candidates = [m for m in self.members if m is not primary and m.up and not m.primary]
        if len(candidates) < 2 or self._cut(candidates[0].machine, candidates[1].machine):
            return
        self._promote(max(candidates, key=lambda m: m.received), primary)

    def _promote(self, member: Member, old: Member) -> None:
        self.failovers += 1
        member.log = member.log[: member.received]
        for commit in member.log:
            commit.txn = commit.statement = None
        member.primary = True
        member.term = max(m.term for m in self.members) + 1
        member.generation += 1
        member.rebuild(self.base)
        self.on_promotion(member)
        self._primary_seen_s = self.loop.now
        if old.up:
            self._demote(old)
        for other in self.members:
            if other is not member and other.up:
                self._follow(other, member)


Told = Callable[[list[Row] | Exception, bool], None]


def _with_rows(told: Told, rows: list[Row]) -> Told:
    def tell(outcome: list[Row] | Exception, warned: bool) -> None:
        told(outcome if isinstance(outcome, Exception) else rows, warned)

    return tell
