"""The statements that write the log, as the modelled PostgreSQL carries them out.

`append` follows the numbered cases of migrations/sql/0001/5_append.sql in their order; tests/simulation/test_model_agrees
holds it to the real function. `off` switches single checks off: that is how the checkers are checked.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from uuid import UUID

import msgspec

from app.clock import at_ms
from tests.simulation.delivery_statements import first_state
from tests.simulation.tables import Row, Tables, Txn

FINAL = "call.ended"
COMPLETED = (
    "caller_hung_up", "agent_hung_up", "ended_by_api", "max_duration", "resolved", "idle", "caller_silent", "monologue",
    "erased",
)  # fmt: skip
SIMPLE_STATES = {
    "call.ringing": "ringing",
    "call.answered": "in_progress",
    "call.reconnecting": "reconnecting",
    "call.reconnected": "in_progress",
    "call.moved": "in_progress",
}


def state_after(type_: str | None, reason: str | None, answered: bool) -> str | None:
    if type_ != FINAL:
        return SIMPLE_STATES.get(type_ or "")
    if reason in ("no_answer", "busy"):
        return reason
    if reason == "canceled" or (reason in ("ended_by_api", "erased") and not answered):
        return "canceled"
    return "completed" if reason in COMPLETED else "failed"


def first_n(type_: str, data: str | None, epoch: int, n: int, adopted: bool) -> int:
    """The first of the numbers that an event takes up, as ``vx.first_n`` says it."""
    if type_ != "events.lost" or adopted or data is None:
        return n
    lost = msgspec.json.decode(data)
    from_n = lost.get("from_n")
    if (
        lost.get("epoch") != epoch
        or lost.get("to_n") != n
        or isinstance(from_n, bool)
        or not isinstance(from_n, int | float)
    ):
        return n
    return max(min(int(from_n), n), 1)


class LogStatements:
    off: frozenset[str]

    def create_calls(
        self,
        t: Tables,
        x: Txn,
        project: UUID,
        route: str,
        now: Any,
        rows: list[tuple[Any, ...]],
        limits: None,
    ) -> list[Row]:
        """Of projects without quotas: nothing is counted."""
        names = (
            "key", "body_hash", "id", "event_id", "request", "placement", "metadata", "region", "edges", "incarnations",
            "webhook_id", "max_duration_s", "attach_by", "grants_expire_at", "data", "hash", "created_at",
            "key_id", "wrapped", "subject",
        )  # fmt: skip
        answers: list[Row] = []
        for g in sorted((dict(zip(names, row, strict=True)) for row in rows), key=lambda g: g["key"]):
            key = g["key"]
            record_key = (project, route, key)
            t.lock(x, "idempotency", record_key)
            known = t.rows["idempotency"].get(record_key)
            if known is not None:
                answers.append(
                    {
                        "key": key,
                        "call_id": known["call_id"],
                        "body_hash": known["body_hash"],
                        "replayed": True,
                        "verdict": None,
                        "feed_xid": None,
                    }
                )
                continue
            call = g["id"]
            record = {"call_id": call, "body_hash": g["body_hash"]}
            x.writes.append(("idempotency", record_key, record))
            edges = tuple(g["edges"])
            row = {
                "id": call, "project_id": project, "state": "ringing", "epoch": 1, "epoch_granted": len(edges),
                "grant_edges": edges,
                "grant_incarnations": tuple(g["incarnations"]),
                "n": 0, "seq": 1, "feed_xid": x.xid, "replicated": True, "edge_id": edges[0], "answered_at": None, "ended_at": None,
                "end_reason": None, "erased_at": None, "wrapped": g["wrapped"],
                **{k: g[k] for k in ("grants_expire_at", "attach_by", "region", "webhook_id", "request", "placement",
                                     "metadata", "max_duration_s", "created_at")},
            }  # fmt: skip
            x.writes.append(("calls", call, row))
            event = _event(
                row, 1, x.xid, id=g["event_id"], type="call.created", epoch=1, source="control", source_key="create",
                region=g["region"], at=g["created_at"], data=g["data"], hash=g["hash"],
            )  # fmt: skip
            self._store(t, x, row, event)
            answers.append({"key": key, **record, "replayed": False, "verdict": None, "feed_xid": x.xid})
        return answers

    def append(
        self,
        t: Tables,
        x: Txn,
        edge: UUID,
        incarnation: UUID,
        region: str,
        given: list[tuple[Any, ...]],
    ) -> list[Row]:
        names = (
            "call_id",
            "epoch",
            "n",
            "id",
            "type",
            "at_ms",
            "data",
            "content",
            "hash",
            "oe",
            "o_n",
        )
        runs: dict[UUID, list[Row]] = {}
        for values in given:
            g = dict(zip(names, values, strict=True))
            g["at"] = at_ms(g["at_ms"])
            g["origin_epoch"] = g["epoch"] if g["oe"] is None else g["oe"]
            g["origin_n"] = g["n"] if g["o_n"] is None else g["o_n"]
            g["n_from"] = first_n(g["type"], g["data"], g["epoch"], g["n"], g["oe"] is not None)
            runs.setdefault(g["call_id"], []).append(g)
        locked = {
            call
            for call in sorted(runs, key=lambda c: c.int)
            if call in t.rows["calls"] and t.try_lock(x, "calls", call)
        }
        return [
            self._append_run(t, x, call, run, edge, incarnation, region, call in locked)
            for call, run in runs.items()
        ]

    def _append_run(
        self,
        t: Tables,
        x: Txn,
        call: UUID,
        run: list[Row],
        edge: UUID,
        incarnation: UUID,
        region: str,
        locked: bool,
    ) -> Row:
        c = t.rows["calls"].get(call)
        epoch = min(g["epoch"] for g in run)
        first, last = min(g["n_from"] for g in run), max(g["n"] for g in run)
        origins = t.rows["by_origin"]
        stored = {
            i: s
            for i, g in enumerate(run)
            if (s := origins.get((call, g["origin_epoch"], g["origin_n"]))) is not None
        }
        there = set(stored)
        n_before = c["n"] if c is not None and epoch == c["epoch"] else 0
        verdict, why = self._verdict(c, run, stored, edge, incarnation, locked, n_before)
        answer = {
            "call_id": call,
            "status": verdict,
            "durable_n": 0,
            "seq": c["seq"] if c else 0,
            "detail": why,
            "stored": 0,
            "feed_xid": max(x.xid, c["feed_xid"]) if c else x.xid,
        }
        if verdict == "gap":
            answer["durable_n"] = n_before
        elif verdict == "durable":
            assert c is not None
            owner = epoch >= c["epoch"]
            answer["durable_n"] = max(last, n_before) if owner else last
            if owner:
                fresh = [
                    g
                    for i, g in sorted(enumerate(run), key=lambda p: p[1]["n"])
                    if self._is_fresh(g, n_before, known=i in stored)
                ]
                answer["stored"] = len(fresh)
                there |= {i for i, g in enumerate(run) if g in fresh}
                answer["seq"] = self._fold(t, x, c, fresh, epoch, first, last, n_before, edge, region)
                given_up = [g for i, g in enumerate(run) if g["n"] <= n_before and i not in stored]
                self._keep_late(t, x, call, given_up, edge, region)
        elif verdict == "fenced":
            self._keep_late(t, x, call, [g for i, g in enumerate(run) if i not in stored], edge, region)
        for i in there:
            # what was late until its successor brought it stands in the log now
            key = (call, run[i]["origin_epoch"], run[i]["origin_n"])
            if run[i]["oe"] is not None and key in t.rows["late"]:
                x.writes.append(("late", key, None))
        return answer

    def _is_fresh(self, g: Row, n_before: int, *, known: bool) -> bool:
        if "number" in self.off and g["oe"] is None:
            return True
        return g["n"] > n_before and (not known or ("origin" in self.off and g["oe"] is not None))

    def _keep_late(self, t: Tables, x: Txn, call: UUID, events: list[Row], edge: UUID, region: str) -> None:
        for g in events:
            key = (call, g["origin_epoch"], g["origin_n"])
            if key not in t.rows["late"]:
                x.writes.append(("late", key, {**g, "call_id": call, "edge_id": edge, "region": region}))

    def _verdict(
        self, c: Row | None, run: list[Row], stored: dict[int, Row], edge: UUID, incarnation: UUID, locked: bool,
        n_before: int,
    ) -> tuple[str, str]:  # fmt: skip
        """The numbered cases, in order."""
        if c is None:
            return "refused", "no such call"
        epoch = min(g["epoch"] for g in run)
        first, last = min(g["n_from"] for g in run), max(g["n"] for g in run)
        ordered = sorted(run, key=lambda g: g["n"])
        follows = all(g["n_from"] == p["n"] + 1 for p, g in pairwise(ordered))
        if epoch != max(g["epoch"] for g in run) or first < 1 or not follows:
            return "refused", "the run is not dense"
        origins = [(g["oe"], g["o_n"]) for g in run if g["oe"] is not None]
        if len(set(origins)) < len(origins):
            return "refused", "an origin stands twice in the run"
        finals = [g["n"] for g in run if g["type"] == FINAL]
        if finals and min(finals) < last:
            return "refused", "events after the final one"
        granted = 1 <= epoch <= c["epoch_granted"]
        owns = granted and (c["grant_edges"][epoch - 1], c["grant_incarnations"][epoch - 1]) == (
            edge,
            incarnation,
        )
        if not granted or (not owns and "owner" not in self.off):
            return "refused", "this epoch was not granted to this edge and incarnation"
        if not locked:
            return "busy", ""
        other = any(s["hash"] != run[i]["hash"] for i, s in stored.items()) and "hash" not in self.off
        if epoch < c["epoch"] and "fence" not in self.off:
            return ("durable", "") if len(stored) == len(run) and not other else ("fenced", "")
        if other:
            return "conflict", ""
        if first > n_before + 1:
            return "gap", ""
        return "durable", ""

    def _fold(
        self, t: Tables, x: Txn, c: Row, fresh: list[Row], epoch: int, first: int, last: int, n_before: int, edge: UUID,
        region: str,
    ) -> int:  # fmt: skip
        """Writes the events and the call; its newest seq."""
        answered, ended, reason, said, seq = c["answered_at"], c["ended_at"], c["end_reason"], None, c["seq"]
        feed_xid = max(x.xid, c["feed_xid"])
        for g in fresh:
            seq += 1
            final = g["type"] == FINAL
            event = _event(
                c, seq, feed_xid, id=g["id"], type=g["type"], epoch=c["epoch_granted"] + 1 if final else g["epoch"],
                source="edge", origin_epoch=g["origin_epoch"], origin_n=g["origin_n"], region=region, at=g["at"],
                data=g["data"], content=g["content"], hash=g["hash"],
            )  # fmt: skip
            self._store(t, x, c, event)
            if g["type"].startswith("call."):
                said = g["type"]
            if g["type"] == "call.answered" and c["answered_at"] is None:
                answered = g["at"] if answered is None else min(answered, g["at"])
            if final and ended is None:
                ended, reason = g["at"], msgspec.json.decode(g["data"]).get("end_reason")
        if not (fresh or last > n_before or epoch > c["epoch"]):
            return seq
        state = state_after(said, reason, answered is not None) or c["state"]
        changed = {
            "n": max(last, n_before), "epoch": c["epoch_granted"] + 1 if ended is not None else epoch, "seq": seq,
            "feed_xid": feed_xid, "region": region, "edge_id": edge, "answered_at": answered, "ended_at": ended,
            "end_reason": reason, "state": state,
        }  # fmt: skip
        x.writes.append(("calls", c["id"], {**c, **changed}))
        return seq

    def _store(self, t: Tables, x: Txn, call: Row, event: Row) -> None:
        """The event, its indexes and its deliveries."""
        key = (event["call_id"], event["seq"])
        x.writes.append(("events", key, event))
        if event["origin_n"] is not None:
            origin = (event["call_id"], event["origin_epoch"], event["origin_n"])
            x.writes.append(("by_origin", origin, {"seq": event["seq"], "hash": event["hash"]}))
        if event["source_key"] is not None:
            x.writes.append(
                (
                    "by_key",
                    (event["call_id"], event["source_key"]),
                    {"seq": event["seq"], "hash": event["hash"]},
                )
            )
        for w in t.rows["webhooks"].values():
            mine = w["id"] == call["webhook_id"] or w["scope"] == "project"
            wanted = w["types"] is None or event["type"] in w["types"]
            if w["project_id"] == call["project_id"] and w["enabled"] and mine and wanted:
                delivery_row = {
                    "call_id": event["call_id"], "webhook_id": w["id"], "seq": event["seq"], "project_id": call["project_id"],
                    "state": first_state(t, x, event["call_id"], w["id"]), "attempts": 0, "next_at": x.now,
                    "claimed_by": None, "claimed_until": None,
                    "first_at": None, "parked": False, "overtook": False, "replay": False,
                }  # fmt: skip
                x.writes.append(("deliveries", (event["call_id"], w["id"], event["seq"]), delivery_row))

    def append_control(
        self, t: Tables, x: Txn, project: UUID, call: UUID, source: str, source_key: str, event_id: UUID, type_: str, at: Any,
        data: str | None, content: bytes | None, hash_: bytes,
    ) -> list[Row]:  # fmt: skip
        c = t.rows["calls"].get(call)
        if c is None or c["project_id"] != project:
            return [{"status": "unknown", "seq": 0, "feed_xid": None}]
        t.lock(x, "calls", call)
        before = t.rows["by_key"].get((call, source_key))
        if before is not None:
            status = "duplicate" if before["hash"] == hash_ else "conflict"
            return [{"status": status, "seq": before["seq"], "feed_xid": None}]
        if c["ended_at"] is not None:
            return [{"status": "ended", "seq": c["seq"], "feed_xid": None}]
        final = type_ == FINAL
        reason = msgspec.json.decode(data).get("end_reason") if final and data else None
        epoch = c["epoch_granted"] + 1 if final else c["epoch"]
        feed_xid = max(x.xid, c["feed_xid"])
        event = _event(
            c, c["seq"] + 1, feed_xid, id=event_id, type=type_, epoch=epoch, source=source, source_key=source_key,
            region=c["region"], at=at, data=data, content=content, hash=hash_,
        )  # fmt: skip
        self._store(t, x, c, event)
        changed = {
            "seq": c["seq"] + 1, "feed_xid": feed_xid, "epoch": epoch, "ended_at": at if final else None,
            "end_reason": reason, "state": state_after(type_, reason, c["answered_at"] is not None) or c["state"],
        }  # fmt: skip
        x.writes.append(("calls", call, {**c, **changed}))
        return [{"status": "stored", "seq": c["seq"] + 1, "feed_xid": feed_xid}]

    def grant_epochs(
        self,
        t: Tables,
        x: Txn,
        project: UUID,
        call: UUID,
        edges: list[UUID],
        incarnations: list[UUID],
        expire_at: Any,
    ) -> list[Row]:
        c = t.rows["calls"].get(call)
        if c is None or c["project_id"] != project or c["ended_at"] is not None:
            return [{"first": None}]
        t.lock(x, "calls", call)
        changed = {
            "grant_edges": c["grant_edges"] + tuple(edges),
            "grant_incarnations": c["grant_incarnations"] + tuple(incarnations),
            "epoch_granted": c["epoch_granted"] + len(edges),
            "grants_expire_at": max(c["grants_expire_at"], expire_at),
        }
        x.writes.append(("calls", call, {**c, **changed}))
        return [{"first": c["epoch_granted"] + 1}]


def _event(call: Row, seq: int, feed_xid: int, **columns: Any) -> Row:
    row: Row = {
        "call_id": call["id"], "seq": seq, "project_id": call["project_id"], "source_key": None, "origin_epoch": None,
        "origin_n": None, "data": None, "content": None, "wrapped": call["wrapped"], "feed_xid": feed_xid,
    }  # fmt: skip
    row.update(columns)
    return row
