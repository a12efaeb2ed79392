"""Drains and moves: the statements of `app.fleet.drain_store`, and of the planned moves in `app.calls.moves`.

`move_calls` follows migrations/sql/0001/7_move.sql. What an edge that was told to stop asks for is not among them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from app.fleet.drain_store import AGAIN_S, CLAIM_S, FORGIVEN_S, LEAVING_MAX, MOVE_LATE_S
from app.fleet.view import COUNTED_S
from tests.simulation.fixtures import PROJECT
from tests.simulation.tables import Row, Tables, Txn

NEVER = datetime.fromisoformat("0001-01-02T00:00:00+00:00")
LOCKED = ("advisory", 7423002)


def _s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def _candidates(call: Row) -> str:
    return msgspec.json.encode(msgspec.json.decode(call["placement"])["candidates"]).decode()


class DrainStatements:
    off: frozenset[str]

    # ------------------------------------------------------------------------------------------------- commands

    def lock_commands(self, t: Tables, x: Txn) -> list[Row]:
        t.lock(x, *LOCKED)
        return [{"pg_advisory_xact_lock": ""}]

    def select_running(self, t: Tables, x: Txn, region: str, edge: UUID | None) -> list[Row]:
        found = [d for d in _open_drains(t) if (d["region"], d["edge_id"]) == (region, edge)]
        for d in found:
            t.lock(x, "drains", d["id"])
        return [_shown(d, x) for d in found]

    def select_newest(self, t: Tables, x: Txn, region: str, edge: UUID | None) -> list[Row]:
        found = [d for d in t.rows["drains"].values() if (d["region"], d["edge_id"]) == (region, edge)]
        return [_shown(d, x) for d in sorted(found, key=lambda d: d["started_at"])[-1:]]

    def set_region(self, t: Tables, x: Txn, region: str, state: str) -> list[Row]:
        return self._set_state(t, x, "regions", region, state)

    def set_edge(self, t: Tables, x: Txn, edge: UUID, state: str) -> list[Row]:
        return self._set_state(t, x, "edges", edge, state)

    def _set_state(self, t: Tables, x: Txn, table: str, key: Any, state: str) -> list[Row]:
        row = t.rows[table].get(key)
        if row is not None and row["admin_state"] != state:
            t.lock(x, table, key)
            x.writes.append((table, key, {**row, "admin_state": state}))
        return []

    def start_drain(
        self, t: Tables, x: Txn, drain: UUID, region: str, edge: UUID | None, incarnation: UUID | None, kind: str,
        within_s: float, total: int,
    ) -> list[Row]:  # fmt: skip
        if not any((d["region"], d["edge_id"]) == (region, edge) for d in _open_drains(t)):
            row = {
                "id": drain, "region": region, "edge_id": edge, "incarnation": incarnation, "verdict": None, "kind": kind,
                "force_at": x.now + _s(within_s), "total": total, "started_at": x.now, "claimed_until": NEVER, "stuck": "[]",
                "drained_at": None, "ended_at": None, "outcome": None,
            }  # fmt: skip
            x.writes.append(("drains", drain, row))
        return []

    def change_drain(self, t: Tables, x: Txn, drain: UUID, kind: str, within_s: float) -> list[Row]:
        d = t.rows["drains"].get(drain)
        if d is not None:
            t.lock(x, "drains", drain)
            changed = {
                "kind": kind,
                "verdict": None,
                "force_at": x.now + _s(within_s),
                "claimed_until": NEVER,
            }
            x.writes.append(("drains", drain, {**d, **changed}))
        return []

    def end_drain(self, t: Tables, x: Txn, drain: UUID, outcome: str) -> list[Row]:
        d = t.rows["drains"].get(drain)
        if d is None or d["ended_at"] is not None:
            return []
        t.lock(x, "drains", drain)
        x.writes.append(("drains", drain, {**d, "ended_at": x.now, "outcome": outcome}))
        off = [m for m in _open_moves(t) if m["drain_id"] == drain]
        for m in off:
            self._done(t, x, m, "canceled")
        return [{k: m[k] for k in ("call_id", "from_edge", "epoch")} for m in off]

    def select_open(self, t: Tables, x: Txn, drain: UUID) -> list[Row]:
        return [m for m in _open_moves(t) if m["drain_id"] == drain]

    # --------------------------------------------------------------------------------------------------- rounds

    def claim_drain(self, t: Tables, x: Txn) -> list[Row]:
        due = [d for d in _open_drains(t) if d["claimed_until"] < x.now]
        for d in sorted(due, key=lambda d: d["claimed_until"]):
            if t.try_lock(x, "drains", d["id"]):
                claimed = {**d, "claimed_until": x.now + _s(CLAIM_S)}
                x.writes.append(("drains", d["id"], claimed))
                return [_shown(claimed, x)]
        return []

    def release_drain(
        self, t: Tables, x: Txn, drain: UUID, pause_s: float, stuck: str, drained: bool
    ) -> list[Row]:
        d = t.rows["drains"].get(drain)
        if d is None:
            return []
        t.lock(x, "drains", drain)
        drained_at = (d["drained_at"] or x.now) if drained else d["drained_at"]
        changed = {"claimed_until": x.now + _s(pause_s), "stuck": stuck, "drained_at": drained_at}
        x.writes.append(("drains", drain, {**d, **changed}))
        first = d["drained_at"] is None and drained_at is not None
        return [{"took_s": (drained_at - d["started_at"]).total_seconds() if first else None}]

    def count_calls(self, t: Tables, x: Txn, edges: list[UUID]) -> list[Row]:
        return [{"count": len(_live(t, edges))}]

    def count_open(self, t: Tables, x: Txn, edges: list[UUID]) -> list[Row]:
        live, moving = _live(t, edges), self._moving(t)
        return [{"asked": sum(c["id"] in moving for c in live), "live": len(live)}]

    def select_leaving(self, t: Tables, x: Txn, edges: list[UUID], drain: UUID, seed: int) -> list[Row]:
        moving = self._moving(t)
        failed: dict[UUID, list[timedelta]] = {}
        for m in t.rows["moves"].values():
            if (m["drain_id"], m["outcome"]) == (drain, "failed"):
                failed.setdefault(m["call_id"], []).append(x.now - m["done_at"])
        found = [
            {**{k: c[k] for k in ("id", "epoch", "edge_id", "request")}, "candidates": _candidates(c),
             "failures": max(sum(ago < _s(FORGIVEN_S) for ago in of), len(of) // 4)}
            for c in _live(t, edges) if c["id"] not in moving
            for of in [failed.get(c["id"], [])] if all(ago >= _s(AGAIN_S) for ago in of)
        ]  # fmt: skip
        found.sort(key=lambda c: hashlib.blake2b(f"{c['id']}{seed}".encode()).digest())
        return found[:LEAVING_MAX]

    def _moving(self, t: Tables) -> set[UUID]:
        return {m["call_id"] for m in _open_moves(t)} if "one_move" not in self.off else set()

    def settle_moves(self, t: Tables, x: Txn) -> list[Row]:
        for m in _open_moves(t):
            c = t.rows["calls"].get(m["call_id"])
            if c is None:
                continue
            went, ended = c["epoch"] >= m["epoch"], c["ended_at"] is not None
            left = c["edge_id"] != m["from_edge"]
            late = max(m["force_at"], m["asked_at"]) < x.now - _s(MOVE_LATE_S)
            if ended or went or left or late:
                outcome = "moved" if (went and not ended) or left else "ended" if ended else "failed"
                self._done(t, x, m, outcome)
        return []

    def hurry_moves(self, t: Tables, x: Txn, drain: UUID) -> list[Row]:
        d = t.rows["drains"].get(drain)
        if d is None or d["ended_at"] is not None:
            return []
        found = [
            m for m in _open_moves(t)
            if m["drain_id"] is None and m["why"] is None and m["force_at"] > d["force_at"]
            and t.rows["edges"][m["from_edge"]]["region"] == d["region"] and d["edge_id"] in (None, m["from_edge"])
        ]  # fmt: skip
        for m in found:
            key = (m["call_id"], m["epoch"])
            t.lock(x, "moves", key)
            x.writes.append(("moves", key, {**m, "force_at": d["force_at"]}))
        return found

    def not_taken(self, t: Tables, x: Txn, edge: UUID, calls: list[UUID], epochs: list[int]) -> list[Row]:
        found = []
        for key in zip(calls, epochs, strict=True):
            m, c = t.rows["moves"].get(key), t.rows["calls"].get(key[0])
            if m is None or c is None or m["outcome"] is not None or m["from_edge"] != edge:
                continue
            if c["ended_at"] is None and c["epoch"] < m["epoch"]:
                self._done(t, x, m, "failed")
                found.append({"call_id": key[0]})
        return found

    def _done(self, t: Tables, x: Txn, m: Row, outcome: str) -> None:
        key = (m["call_id"], m["epoch"])
        t.lock(x, "moves", key)
        x.writes.append(("moves", key, {**m, "outcome": outcome, "done_at": x.now}))

    def reserved(self, t: Tables, x: Txn) -> list[Row]:
        found: dict[UUID, Row] = {}
        for m in _counted(t, x):
            row = found.setdefault(m["to_edge"], {"to_edge": m["to_edge"], "calls": 0, "hurried": 0})
            row["calls"] += 1
            row["hurried"] += m["outcome"] is None and m["force_at"] <= x.now
        return list(found.values())

    def select_coming(self, t: Tables, x: Txn) -> list[Row]:
        if not t.rows["drains"] and not t.rows["moves"]:
            return []
        coming: dict[UUID | None, int] = {}
        for m in _counted(t, x):
            coming[m["to_edge"]] = coming.get(m["to_edge"], 0) + 1
        for d in _open_drains(t):
            if d["drained_at"] is None:
                asked = sum(m["drain_id"] == d["id"] for m in t.rows["moves"].values())
                # of those that are stuck, the full ones alone may still go
                stuck = d["stuck"].count('"why"') - d["stuck"].count('"full"')
                coming[None] = coming.get(None, 0) + max(0, d["total"] - asked - stuck)
        return [{"to_edge": edge, "calls": n} for edge, n in coming.items()]

    def move_calls(
        self, t: Tables, x: Txn, drain: UUID | None, from_edge: UUID, force_at: datetime, calls: list[UUID], epochs: list[int],
        *more: Any,
    ) -> list[Row]:  # fmt: skip
        *nth, why, seen = more
        for target in sorted(set(nth[0]), key=lambda e: e.int):
            t.lock(x, "advisory", (7423003, target))
        given = Counter(m["to_edge"] for m in _counted(t, x)) if "seen" not in self.off else Counter()
        t.lock(x, "edges", from_edge)
        version = t.rows["edges"][from_edge]["desired_version"]
        answers = []
        open_ = self._moving(t)
        for i in sorted(range(len(calls)), key=lambda i: calls[i].int):
            t.lock(x, "calls", calls[i])
            c = t.rows["calls"].get(calls[i])
            if c is None or c["ended_at"] is not None or (c["epoch"], c["edge_id"]) != (epochs[i], from_edge):
                continue
            first = c["epoch_granted"] + 1
            if given[nth[0][i]] > seen[i]:
                continue
            if c["id"] in open_ or (c["id"], first) in t.rows["moves"]:
                continue
            edges = tuple(e[i] for e in nth[0::2] if e[i] is not None)
            incarnations = tuple(n[i] for n in nth[1::2] if n[i] is not None)
            move = {
                "call_id": c["id"], "epoch": first, "drain_id": drain, "from_edge": from_edge, "to_edge": edges[0],
                "grants": len(edges), "force_at": force_at, "asked_at": x.now, "done_at": None, "outcome": None,
                "why": why,
            }  # fmt: skip
            granted = {
                "grant_edges": c["grant_edges"] + edges,
                "grant_incarnations": c["grant_incarnations"] + incarnations,
                "epoch_granted": c["epoch_granted"] + len(edges),
            }
            version += 1
            command = {
                "version": version,
                "kind": "move",
                "call_id": c["id"],
                "body": f'{{"epoch":"{first}"}}',
            }
            x.writes += [
                ("moves", (c["id"], first), move),
                ("calls", c["id"], {**c, **granted}),
                ("desired", (from_edge, version), command),
            ]
            answers.append({"call_id": c["id"], "epoch": first})
        if answers:
            x.writes.append(("edges", from_edge, {**t.rows["edges"][from_edge], "desired_version": version}))
        return answers

    # -------------------------------------------------------------------------------------------- single calls

    def select_move(self, t: Tables, x: Txn, call: UUID) -> list[Row]:
        return [m for m in _open_moves(t) if m["call_id"] == call]

    def select_granted(self, t: Tables, x: Txn, calls: list[UUID], epochs: list[int]) -> list[Row]:
        found = []
        for call, epoch in zip(calls, epochs, strict=True):
            m = t.rows["moves"].get((call, epoch))
            if m is None or m["outcome"] is not None:
                continue
            d = t.rows["drains"].get(m["drain_id"])
            if d is not None and d["ended_at"] is not None:
                continue
            left_s = ((d or m)["force_at"] - x.now).total_seconds()
            found.append({**m, "within_ms": max(0.0, left_s * 1000)})
        return found

    def select_progress(self, t: Tables, x: Txn, drain: UUID) -> list[Row]:
        outcomes = [m["outcome"] for m in t.rows["moves"].values() if m["drain_id"] == drain]
        return [{"outcome": o, "calls": outcomes.count(o)} for o in dict.fromkeys(outcomes)]

    def select_modes(self, t: Tables, x: Txn, projects: list[UUID]) -> list[Row]:
        return [{"id": PROJECT, "mode": "live"}]

    def select_calls(self, t: Tables, x: Txn, calls: list[UUID]) -> list[Row]:
        return [c for call in calls if (c := t.rows["calls"].get(call)) is not None]


def _open_drains(t: Tables) -> list[Row]:
    return [d for d in t.rows["drains"].values() if d["ended_at"] is None]


def _open_moves(t: Tables) -> list[Row]:
    return [m for m in t.rows["moves"].values() if m["outcome"] is None]


def _counted(t: Tables, x: Txn) -> list[Row]:
    """Places that moves will fill, or have filled a moment ago."""
    return [
        m for m in t.rows["moves"].values()
        if m["outcome"] is None or (m["outcome"] == "moved" and m["done_at"] > x.now - _s(COUNTED_S))
    ]  # fmt: skip


def _live(t: Tables, edges: list[UUID]) -> list[Row]:
    return [
        c for c in t.rows["calls"].values()
        if c["edge_id"] in edges and c["ended_at"] is None and c["answered_at"] is not None
    ]  # fmt: skip


def _shown(d: Row, x: Txn) -> Row:
    return {**d, "late": d["force_at"] <= x.now}
