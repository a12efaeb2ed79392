"""The checks that are switched off one at a time, to see that the simulator notices. Each names what it does to the simulator and,
where the check lives in SQL, to the migration's function; and a seed that is known to catch it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.fleet import view
from app.fleet.plan import Room
from app.log.acked import Acked, End, written
from app.log.append import Appender
from app.log.given import EVENT_ID
from regions.edge.calls import Calls
from regions.edge.handover import Drop, Handover
from regions.edge.lease import Lease
from tests.simulation import driver
from tests.simulation.fixtures import PROJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """`off`: switches of the modelled statements. `patches`: (object, attribute, replacement) in production code. `sql`: (text of
    the append function, what takes its place), every occurrence. `rare`: drawn seeds hardly meet what it takes; its story does."""

    what: str
    off: frozenset[str] = frozenset()
    patches: tuple[tuple[Any, str, Any], ...] = ()
    sql: tuple[tuple[str, str], ...] = ()
    rare: bool = False


def _forgets(self: Room, call: Any, *, draw: float, pin: str | None = None) -> Any:
    """`Room.take` that does not count what it gives away."""
    before = dict(self._edges)
    found = _take(self, call, draw=draw, pin=pin)
    self._edges = before
    return found


def _blind(row: Any, judged: Any) -> Any:
    """`app.fleet.view` that does not see an edge's administrative state."""
    return _edge_state({**row, "admin_state": "active"}, judged)


async def _tells_first(self: Appender, edge: Any, given: Any) -> Any:
    """`Appender._call` that tells the other instances of a commit whose acknowledgement did not come."""
    try:
        return await _call(self, edge, given)
    except driver.Unacknowledged as error:
        last = {row[0]: row[EVENT_ID] for row in given}
        ends = [
            End(r["call_id"], r["seq"], r["feed_xid"], last[r["call_id"]]) for r in error.rows if r["stored"]
        ]
        self._hints.wake(f"feed:{PROJECT}", written(ends))
        raise


_take, _edge_state, _call = Room.take, view._edge_state, Appender._call

NOT_STORED = """
       and not exists (select 1 from stored s where s.call_id = g.call_id and s.origin_epoch = g.origin_epoch
                                                and s.origin_n = g.origin_n)"""
FRESH = "where v.writes and g.n > v.n_before"

MUTATIONS: dict[str, Mutation] = {
    "owner": Mutation(
        what="an edge may write at an epoch that was granted to another",
        off=frozenset({"owner"}),
        sql=(
            (
                "\n               or c.grant_edges[r.epoch] <> p_edge or c.grant_incarnations[r.epoch] <> p_incarnation",
                "",
            ),
            (" and c.owned", ""),
        ),
    ),
    "fence": Mutation(
        what="a lower epoch is not refused once a higher one has written",
        off=frozenset({"fence"}),
        sql=(
            (
                "when r.epoch < c.epoch then case when s.k = r.k and not s.other then 'durable' else 'fenced' end",
                "",
            ),
        ),
    ),
    "hash": Mutation(
        what="another content under a stored number passes for a duplicate",
        off=frozenset({"hash"}),
        sql=(("when s.other then 'conflict'", ""), ("s.k = r.k and not s.other", "s.k = r.k")),
    ),
    "lease": Mutation(
        what="an owner's lease never runs out",
        patches=((Lease, "holds", lambda self, now_ms: not self._ended),),
    ),
    "origin": Mutation(
        what="an adopted event is stored although its origin is",
        off=frozenset({"origin"}),
        sql=((FRESH + NOT_STORED, FRESH),),
    ),
    "spool": Mutation(
        what="what the log has is stored again when it comes again, from the spool or after a reconnect",
        off=frozenset({"number"}),
        sql=(
            (
                FRESH + NOT_STORED,
                "where v.writes and (g.oe is null or " + NOT_STORED.replace("\n       and", "").strip() + ")",
            ),
        ),
    ),
    "quorum": Mutation(
        what="a commit whose wait for the standbys was cut short passes for acknowledged",
        patches=((driver, "WARNINGS", False),),
    ),
    "acked": Mutation(
        what="what is visible passes for durable where this instance writes to the feed",
        patches=((Acked, "sure", lambda self, rows, below: len(rows)),),
    ),
    "held": Mutation(
        what="new calls and standbys are placed on edges that take none",
        patches=((view, "_edge_state", _blind),),
    ),
    "room": Mutation(
        what="a plan does not count the places that it gives away",
        patches=((Room, "take", _forgets),),
    ),
    "seen": Mutation(
        what="a place that two plans have seen is given away by both",
        off=frozenset({"seen"}),
        rare=True,
    ),
    "told": Mutation(
        what="an instance tells the others of a write whose commit was not acknowledged",
        patches=((Appender, "_call", _tells_first),),
    ),
    "full": Mutation(
        what="an edge takes calls that it has no room for",
        patches=((Calls, "_check_room", lambda self, claims, epoch: None),),
    ),
    "one_move": Mutation(
        what="a call is asked to move while it is being moved",
        off=frozenset({"one_move"}),
    ),
    "make": Mutation(
        what="an edge that is to let a call go hangs up on its caller at once",
        patches=((Handover, "tick", lambda self, now_ms, *, boundary: Drop()),),
    ),
    "forced": Mutation(
        what="a move waits for the end of a turn beyond its deadline, and no turn ends",
        patches=((Handover, "goes", lambda self, now_ms, *, boundary: False),),
    ),
}
