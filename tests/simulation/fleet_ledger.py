"""What is durable of operators' commands and of moves, what was placed in spite of it, and what callers heard of it.

Decides nothing: it writes down what the taps see and asks `move_checks`. An edge is *held* while a durable command says that it, or
its region, takes no new calls. Views of the fleet are read now and then, so each is judged by what was held when it was read.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.fleet.view import COUNTED_S
from regions.edge.machine import Phase
from regions.wire import ids
from tests.simulation import checks, move_checks
from tests.simulation.fixtures import EDGES
from tests.simulation.loop import RUNNING

if TYPE_CHECKING:
    from app.fleet.view import Fleet
    from regions.edge.session import Session
    from tests.simulation.tables import Tables
    from tests.simulation.world import World

CALM_S = 4.0
"""After the last trouble everything has found its way again."""
VIEWS_KEPT = 12
MOVING_S = 2.0
FOREVER_S = 1e9


class FleetLedger:
    def __init__(self, world: World) -> None:
        self.world = world
        self._states: dict[Any, str] = {}
        self._views: deque[tuple[Fleet, frozenset[UUID]]] = deque(maxlen=VIEWS_KEPT)
        self._open: dict[UUID, set[int]] = {}
        self._deadlines: dict[UUID, float] = {}
        self._heard_s: dict[str, float] = {}
        self._planned_s: dict[str, float] = {}
        self._room_since_s: dict[UUID, dict[str, float]] = {}
        self._came_s: dict[str, float] = {}

    # ------------------------------------------------------------------------------------------------ the database

    def committed(self, commit: Any) -> None:
        for table, key, row in commit.writes:
            if table in ("edges", "regions") and row is not None:
                self._states[key] = row["admin_state"]
            elif table == "moves":
                self._moved(row)
            elif table == "drains":
                left_s = (row["force_at"] - self.world.cluster.primary.now()).total_seconds()  # type: ignore[union-attr]
                if row["claimed_until"].year == 1:
                    self._deadlines[key] = self.world.loop.now + max(0.0, left_s)

    def _moved(self, move: Any) -> None:
        call, epoch = move["call_id"], move["epoch"]
        open_ = self._open.setdefault(call, set())
        if move["outcome"] is None:
            open_.add(epoch)
            self.world.ledger.counts["moves"] += 1
            self.world.ledger.check(move_checks.a_call_is_moved_once_at_a_time, call, open_)
            self._given(move)
        else:
            open_.discard(epoch)
            self.world.ledger.counts[f"moves.{move['outcome']}"] += 1

    def _given(self, move: Any) -> None:
        """Judged where nothing fails, and where the planner knew who is there."""
        world, primary = self.world, self.world.cluster.primary
        region = next(r for r, e in EDGES.items() if e == move["to_edge"])
        came_s = world.loop.now - self._came_s.get(region, -FOREVER_S)
        edge = world.edges[region]
        if min(world.calm_s(), came_s) < CALM_S or primary is None or edge.life.state is not RUNNING:
            return
        moves = primary.tables.rows["moves"] | {(move["call_id"], move["epoch"]): move}
        coming = sum(m["to_edge"] == move["to_edge"] and m["outcome"] is None for m in moves.values())
        check, capacity = move_checks.a_place_is_given_away_once, edge.calls.context.settings.capacity_calls
        world.ledger.check(check, move["call_id"], region, coming, edge.calls._owned(), capacity)

    def held(self) -> frozenset[UUID]:
        """Durably, and as the primary shows it."""
        primary = self.world.cluster.primary
        if primary is None or sum(m.primary for m in self.world.cluster.members) > 1:
            # who of them answers is not known
            return frozenset()
        return frozenset(e for r, e in EDGES.items() if self._is_held(primary.tables, r, e))

    def _is_held(self, tables: Tables, region: str, edge: UUID) -> bool:
        for table, key in (("edges", edge), ("regions", region)):
            row = tables.rows[table].get(key)
            if (
                row is not None
                and row["admin_state"] != "active"
                and self._states.get(key, "active") != "active"
            ):
                return True
        return False

    # ------------------------------------------------------------------------------------------------- the planner

    def saw(self, fleet: Fleet, held: frozenset[UUID]) -> None:
        """`held`: all the while that it was read."""
        self._views.append((fleet, held))

    def placed(self, fleet: Fleet, edges: Any) -> None:
        held = next((h for f, h in self._views if f is fleet), frozenset())
        self.world.ledger.check(
            move_checks.nothing_is_placed_on_a_held_edge, None, {e.id for e in edges} & held
        )

    def planned(self, fleet: Fleet, reserved: dict[UUID, int], asks: Any) -> None:
        for ask in asks:
            self.placed(fleet, ask.edges)
        self.world.ledger.check(
            move_checks.i9_moves_have_room, None, fleet, reserved, [a.edges[0].id for a in asks]
        )

    # --------------------------------------------------------------------------------------------------- the edges

    def owns(self, region: str) -> None:
        """An edge has just taken a call."""
        self._came_s[region] = self.world.loop.now
        calls = self.world.edges[region].calls
        self.world.ledger.check(
            move_checks.i9_an_edge_has_room,
            None,
            region,
            calls._owned(),
            calls.context.settings.capacity_calls,
        )

    def takes(self, session: Session, from_epoch: int, reason: str) -> None:
        """Told before it is so."""
        world = self.world
        call = ids.decode(ids.CALL, session.call)
        if reason == "planned":
            self._planned_s[session.call] = world.loop.now
            world.ledger.counts["planned"] += 1
        if world.calm_s() < CALM_S:
            return
        if reason != "planned":
            world.ledger.check(
                move_checks.a_planned_move_is_no_failure, call, reason, self._open.get(call, set())
            )
            return
        ended = any(
            e.type == checks.FINAL
            for (c, _, _), events in world.ledger.by_outbox.items()
            if c == call
            for e in events
        )
        owners = [
            edge.owner for edge in world.edges.values() if edge.life.state is RUNNING
            for s in edge.calls.sessions if (s.call, s.epoch, s.phase) == (session.call, from_epoch, Phase.OWNING)
        ]  # fmt: skip
        if not ended:
            world.ledger.check(move_checks.a_move_makes_before_it_breaks, call, from_epoch, owners)

    def spoke(self, call: str) -> None:
        """Something went to the caller: audio, or how things stand."""
        now = self.world.loop.now
        before, self._heard_s[call] = self._heard_s.get(call, now), now
        if now - before <= move_checks.GAP_MAX_S or now - self._planned_s.get(call, -FOREVER_S) > MOVING_S:
            return
        if self.world.calm_s() >= CALM_S:
            check = move_checks.nothing_is_heard_of_a_planned_move
            self.world.ledger.check(check, ids.decode(ids.CALL, call), now - before)

    # ---------------------------------------------------------------------------------------------------- any time

    def monitor(self) -> None:
        """Whether drains get on, where nothing stands in their way."""
        world, primary = self.world, self.world.cluster.primary
        if primary is None or not primary.tables.rows["drains"]:
            return
        held = self.held()
        for drain in primary.tables.rows["drains"].values():
            survivors = self._roomy(drain, held)
            deadline_s = self._deadlines.get(drain["id"])
            if deadline_s is None or drain["ended_at"] is not None:
                continue
            since_s = max(deadline_s, world.loop.now - world.calm_s())
            if world.loop.now - since_s < move_checks.DRAINED_WITHIN_S:
                continue
            left = [
                s.call for region, edge in world.edges.items()
                if region == drain["region"] and edge.life.state is RUNNING
                for s in edge.calls.sessions if s.phase is Phase.OWNING and s.owns()
            ]  # fmt: skip
            if left and survivors:
                call = ids.decode(ids.CALL, left[0])
                world.ledger.check(move_checks.a_drain_ends, call, world.loop.now - since_s, survivors)

    def _roomy(self, drain: Any, held: frozenset[UUID]) -> list[str]:
        """Regions that could have taken a call of this drain for as long as it may take: not only just now. A place that a move
        from elsewhere will fill, or has filled a moment ago, is none."""
        primary, now = self.world.cluster.primary, self.world.loop.now
        assert primary is not None
        before, self._room_since_s[drain["id"]] = self._room_since_s.get(drain["id"], {}), {}
        for region, edge in self.world.edges.items():
            given = sum(
                m["to_edge"] == EDGES[region]
                and (
                    m["outcome"] == "moved"
                    or (m["outcome"] is None and m["from_edge"] != EDGES[drain["region"]])
                )
                for m in primary.tables.rows["moves"].values()
                if m["done_at"] is None or m["done_at"] > primary.now() - timedelta(seconds=COUNTED_S)
            )
            room = edge.calls.context.settings.capacity_calls - edge.calls._owned() - given
            if (
                region != drain["region"]
                and edge.life.state is RUNNING
                and EDGES[region] not in held
                and room > 0
            ):
                self._room_since_s[drain["id"]][region] = before.get(region, now)
        since_s = self._room_since_s[drain["id"]]
        return [r for r, s in since_s.items() if now - s >= move_checks.DRAINED_WITHIN_S]
