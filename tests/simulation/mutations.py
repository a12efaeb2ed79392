"""The checks that are switched off one at a time, to see that the simulator notices. Each names what it does to the simulator and,
where the check lives in SQL, to the migration's function; and a seed that is known to catch it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regions.edge.lease import Lease
from tests.simulation import driver


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """`off`: switches of the modelled statements. `patches`: (object, attribute, replacement) in production code. `sql`: (text of
    the append function, what takes its place), every occurrence."""

    what: str
    off: frozenset[str] = frozenset()
    patches: tuple[tuple[Any, str, Any], ...] = ()
    sql: tuple[tuple[str, str], ...] = ()


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
}
