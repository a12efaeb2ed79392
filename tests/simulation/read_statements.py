"""The statements that read the log, and the horizon below which they may."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.simulation.tables import Row, Tables, Txn


class ReadStatements:
    def select_call(self, t: Tables, x: Txn, call: UUID) -> list[Row]:
        c = t.rows["calls"].get(call)
        return [c] if c is not None else []

    def select_made(self, t: Tables, x: Txn, project: UUID, route: str, key: str) -> list[Row]:
        made = t.rows["idempotency"].get((project, route, key))
        return [made] if made is not None else []

    def select_ended(self, t: Tables, x: Txn, calls: list[UUID]) -> list[Row]:
        held = [t.rows["calls"][call] for call in calls if call in t.rows["calls"]]
        return [{"id": c["id"], "end_reason": c["end_reason"]} for c in held if c["end_reason"] is not None]

    def select_facts(self, t: Tables, x: Txn, calls: list[UUID]) -> list[Row]:
        return [c | {"redaction": None} for call in calls if (c := t.rows["calls"].get(call)) is not None]

    def read_horizon(self, t: Tables, x: Txn, writer: UUID, always: bool) -> list[Row]:
        """There are standbys: the marker is always written."""
        t.lock(x, "horizon", writer)
        xmin = t.xmin()
        x.writes.append(("horizon", writer, {"xid": xmin}))
        return [{"xid": xmin, "marked": True, "upto": t.next_xid}]

    def select_proven(self, t: Tables, x: Txn, proof: UUID | None, xid: int) -> list[Row]:
        return [{"proven": _proven(t, proof, xid)}]

    def select_feed(
        self, t: Tables, x: Txn, project: UUID, feed_xid: int, call: UUID, seq: int, horizon_xid: int, types: list[str] | None,
        limit: int, proof: UUID | None, metadata: str | None, only: UUID | None, whole: bool,
    ) -> list[Row]:  # fmt: skip
        assert (metadata, only) == (None, None)
        events, found = t.rows["events"], []
        if not _proven(t, proof, horizon_xid):
            return []
        below = t.xmin()
        known = {"kept_xid": 0, "below": below, "upto": t.next_xid}
        for xid, call_int, number in t.feed_after((feed_xid, call.int, seq)):
            if xid >= (below if whole else horizon_xid) or len(found) >= limit:
                break
            row = events[(UUID(int=call_int), number)]
            if row["project_id"] == project and (types is None or row["type"] in types):
                found.append(row | known)
        return found or [{"call_id": None} | known]

    def select_call_events(
        self, t: Tables, x: Txn, call: UUID, seq: int, horizon_xid: int, limit: int, proof: UUID | None
    ) -> list[Row]:
        if not _proven(t, proof, horizon_xid):
            return []
        found = [e for e in t.events_of(call) if e["seq"] > seq and e["feed_xid"] < horizon_xid][:limit]
        kept = {"kept_from": UUID(int=0)}
        return [e | kept for e in found] or [{"call_id": None} | kept]

    def select_durable(self, t: Tables, x: Txn, call: UUID, horizon_xid: int, above: int) -> list[Row]:
        found = [e for e in t.events_of(call) if e["feed_xid"] < horizon_xid and e["seq"] > above]
        return [{"seq": found[-1]["seq"]}] if found else []

    def select_owner(self, t: Tables, x: Txn, call: UUID, upto: int) -> list[Row]:
        own = [
            (e["epoch"], e["origin_n"])
            for e in t.events_of(call)
            if e["seq"] <= upto and e["origin_n"] is not None and e["origin_epoch"] == e["epoch"]
        ]
        return [dict(zip(("epoch", "n"), max(own), strict=True))] if own else []

    def select_said(
        self, t: Tables, x: Txn, call: UUID, above: int, below: int, types: list[str], limit: int
    ) -> list[Row]:
        found = [e for e in t.events_of(call) if above < e["seq"] < below and e["type"] in types]
        return found[::-1][:limit]

    def select_live(self, t: Tables, x: Txn, attach_by: Any, call: UUID, limit: int) -> list[Row]:
        live = [c for c in t.rows["calls"].values() if c["ended_at"] is None]
        live.sort(key=lambda c: (c["attach_by"], c["id"].int))
        return [c for c in live if (c["attach_by"], c["id"].int) > (attach_by, call.int)][:limit]


def _proven(t: Tables, proof: UUID | None, xid: int) -> bool:
    """Whether this server has seen the horizon that is read below."""
    marker = t.rows["horizon"].get(proof)
    return proof is None or (marker is not None and marker["xid"] >= xid)
