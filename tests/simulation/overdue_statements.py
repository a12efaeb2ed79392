"""Calls that may be over, and whether anybody can hold them: `app.calls.overdue` and migrations/sql/0001/6_reconcile.sql."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from app.calls import overdue
from app.fleet.verdicts import DOWN_AFTER_S
from tests.simulation.log_statements import FINAL, LogStatements
from tests.simulation.tables import Row, Tables, Txn


class OverdueStatements(LogStatements):
    grace_s: float

    def _present(self, t: Tables, call: Row) -> list[tuple[int, Row]]:
        """(epoch, edge) of every grant whose edge has not restarted since."""
        edges = t.rows["edges"]
        return [
            (epoch, edge)
            for epoch, (g, i) in enumerate(
                zip(call["grant_edges"], call["grant_incarnations"], strict=True), start=1
            )
            if (edge := edges.get(g)) is not None and edge["incarnation"] == i
        ]

    def _nobody_holds(self, t: Tables, x: Txn, call: Row, grace_s: float) -> bool:
        if call["grants_expire_at"] < x.now - timedelta(seconds=grace_s):
            return True
        for epoch, edge in self._present(t, call):
            denial = t.rows["denials"].get((call["id"], edge["id"], edge["incarnation"]))
            if denial is None or denial["answer"] != "denied" or denial["epoch"] < epoch:
                return False
        return True

    def note(self, t: Tables, x: Txn) -> list[Row]:
        late = x.now - timedelta(seconds=self.grace_s)
        for c in t.rows["calls"].values():
            if c["ended_at"] is not None or c["id"] in t.rows["overdue"]:
                continue
            owned = any(epoch == c["epoch"] for epoch, _ in self._present(t, c))
            unanswered = c["answered_at"] is None
            if (
                c["grants_expire_at"] < late
                or (unanswered and c["attach_by"] < late)
                or not (unanswered or owned)
            ):
                self._note(t, x, c, "no_answer" if unanswered else "edge_lost")
        return []

    def _note(self, t: Tables, x: Txn, call: Row, reason: str) -> None:
        if t.try_lock(x, "overdue", call["id"]):
            row = {"call_id": call["id"], "reason": reason, "epoch": call["epoch"], "since": x.now}
            x.writes.append(("overdue", call["id"], row))

    def note_lapsed(self, t: Tables, x: Txn, edge: UUID, calls: list[UUID], epochs: list[int]) -> list[Row]:
        for call, epoch in zip(calls, epochs, strict=True):
            c = t.rows["calls"].get(call)
            if c is None or c["epoch"] != epoch or c["ended_at"] is not None or c["answered_at"] is None:
                continue
            if c["grant_edges"][epoch - 1] == edge and call not in t.rows["overdue"]:
                self._note(t, x, c, "caller_lost")
        return []

    def drop_overdue(self, t: Tables, x: Txn) -> list[Row]:
        denials = t.rows["denials"]
        for call, o in t.rows["overdue"].items():
            c = t.rows["calls"][call]
            answered = o["reason"] == "no_answer" and c["answered_at"] is not None
            held = any(d["answer"] == "held" for key, d in denials.items() if key[0] == call)
            if c["ended_at"] is None and c["epoch"] == o["epoch"] and not answered and not held:
                continue
            if t.try_lock(x, "overdue", call):
                x.writes.append(("overdue", call, None))
                x.writes += [("denials", key, None) for key in denials if key[0] == call]
        return []

    def ask(self, t: Tables, x: Txn, patience_s: float) -> list[Row]:
        found = []
        heard = x.now - timedelta(seconds=DOWN_AFTER_S)
        again = x.now - timedelta(seconds=overdue.ASK_AGAIN_S)
        for call, o in t.rows["overdue"].items():
            c = t.rows["calls"][call]
            patient = o["reason"] != "no_answer" and o["since"] >= x.now - timedelta(seconds=patience_s)
            if c["ended_at"] is not None or patient:
                continue
            asked: dict[tuple[UUID, UUID, UUID], int] = {}
            for epoch, edge in self._present(t, c):
                if edge["seen_at"] > heard:
                    asked[(call, edge["id"], edge["incarnation"])] = epoch
            for key, epoch in asked.items():
                d = t.rows["denials"].get(key)
                due = d is None or d["epoch"] < epoch or (d["answer"] is None and d["asked_at"] < again)
                if due and t.try_lock(x, "denials", key):
                    x.writes.append(("denials", key, {"epoch": epoch, "asked_at": x.now, "answer": None}))
                    found.append({"call_id": call, "edge_id": key[1], "epoch": epoch})
        return found

    def answer(
        self,
        t: Tables,
        x: Txn,
        edge: UUID,
        incarnation: UUID,
        calls: list[UUID],
        epochs: list[int],
        answers: list[str],
    ) -> list[Row]:
        for call, epoch, said in zip(calls, epochs, answers, strict=True):
            key = (call, edge, incarnation)
            d = t.rows["denials"].get(key)
            if d is not None and d["epoch"] == epoch:
                t.lock(x, "denials", key)
                x.writes.append(("denials", key, {**d, "answer": said}))
        return []

    def select_over(self, t: Tables, x: Txn, patience_s: float) -> list[Row]:
        found = []
        for call, o in t.rows["overdue"].items():
            c = t.rows["calls"][call]
            due = o["reason"] == "no_answer" or o["since"] < x.now - timedelta(seconds=patience_s)
            if c["ended_at"] is None and due and self._nobody_holds(t, x, c, self.grace_s):
                found.append({"id": call, "project_id": c["project_id"], "reason": o["reason"]})
        return found

    def end_unheld(
        self, t: Tables, x: Txn, call: UUID, grace_s: float, event: UUID, at: Any, data: str, hash_: bytes
    ) -> list[Row]:
        c = t.rows["calls"].get(call)
        if c is None:
            return [{"status": "ended", "seq": 0, "feed_xid": None}]
        t.lock(x, "calls", call)
        if c["ended_at"] is not None:
            return [{"status": "ended", "seq": c["seq"], "feed_xid": None}]
        if not self._nobody_holds(t, x, c, min(grace_s, self.grace_s)):
            return [{"status": "held", "seq": c["seq"], "feed_xid": None}]
        return self.append_control(
            t, x, c["project_id"], call, "control", "reconcile", event, FINAL, at, data, None, hash_
        )
