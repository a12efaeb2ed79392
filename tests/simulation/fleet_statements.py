"""Edges, their uplinks and what they are told: the statements of `app.fleet.store` and `app.fleet.view`."""

from __future__ import annotations

from uuid import UUID

from tests.simulation.tables import Row, Tables, Txn

NO_KEY = {
    "key_since": None,
    "key_asked_at": None,
    "key_before_until": None,
    "key_misuses": 0,
    "key_misused_at": None,
}
"""No edge of a simulation has another key."""


class FleetStatements:
    def select_edges(self, t: Tables, x: Txn) -> list[Row]:
        edges = sorted(t.rows["edges"].values(), key=lambda e: (e["region"], e["name"]))
        return [
            {
                **e,
                "silent_s": (x.now - e["seen_at"]).total_seconds(),
                "stopping": False,
                "stopped": False,
                "revoked_at": None,
                "software": "",
                **NO_KEY,
            }
            for e in edges
        ]

    def select_edge(self, t: Tables, x: Txn, edge: UUID) -> list[Row]:
        row = t.rows["edges"].get(edge)
        return [{**row, "silent_s": 0.0, "revoked": False}] if row is not None else []

    def put_edge(
        self, t: Tables, x: Txn, edge: UUID, region: str, name: str, incarnation: UUID, public_key: bytes, media_url: str,
        http_url: str, capacity: int, software: str, webrtc: bool, new_key: bool,
    ) -> list[Row]:  # fmt: skip
        known = next(
            (e for e in t.rows["edges"].values() if (e["region"], e["name"]) == (region, name)), None
        )
        edge = known["id"] if known is not None else edge
        t.lock(x, "edges", edge)
        row = {
            "id": edge, "region": region, "name": name, "incarnation": incarnation, "public_key": public_key,
            "media_url": media_url, "http_url": http_url, "capacity_calls": capacity, "webrtc": webrtc,
            "admin_state": known["admin_state"] if known else "active",
            "generation": known["generation"] + 1 if known else 0, "calls": 0, "load": "{}", "seen_at": x.now,
            "desired_version": known["desired_version"] if known else 0, "done_version": known["done_version"] if known else 0,
        }  # fmt: skip
        x.writes.append(("edges", edge, row))
        return [{"id": edge}]

    def next_generation(self, t: Tables, x: Txn, edge: UUID, incarnation: UUID, calls: int) -> list[Row]:
        row = t.rows["edges"].get(edge)
        if row is None:
            return []
        t.lock(x, "edges", edge)
        if row["incarnation"] != incarnation:
            return []
        changed = {"generation": row["generation"] + 1, "seen_at": x.now, "calls": calls}
        x.writes.append(("edges", edge, {**row, **changed}))
        return [{"generation": row["generation"] + 1}]

    def heartbeats(
        self,
        t: Tables,
        x: Txn,
        edges: list[UUID],
        generations: list[int],
        calls: list[int],
        capacity: list[int],
        load: list[str],
    ) -> list[Row]:
        found = []
        for edge, generation, n, room, said in zip(edges, generations, calls, capacity, load, strict=True):
            row = t.rows["edges"].get(edge)
            if row is None:
                continue
            t.lock(x, "edges", edge)
            if row["generation"] == generation:
                x.writes.append(
                    (
                        "edges",
                        edge,
                        {**row, "seen_at": x.now, "calls": n, "capacity_calls": room, "load": said},
                    )
                )
                found.append({"id": edge})
        return found

    def add_command(
        self, t: Tables, x: Txn, edge: UUID, kind: str, call: UUID | None, body: str
    ) -> list[Row]:
        row = t.rows["edges"].get(edge)
        if row is None:
            return []
        t.lock(x, "edges", edge)
        version = row["desired_version"] + 1
        x.writes.append(("edges", edge, {**row, "desired_version": version}))
        x.writes.append(
            ("desired", (edge, version), {"version": version, "kind": kind, "call_id": call, "body": body})
        )
        return [{"version": version}]

    def select_commands(self, t: Tables, x: Txn, edge: UUID, above: int) -> list[Row]:
        return [
            row
            for (e, version), row in sorted(t.rows["desired"].items(), key=lambda i: i[0][1])
            if e == edge and version > above
        ]

    def commands_done(self, t: Tables, x: Txn, edge: UUID, version: int) -> list[Row]:
        row = t.rows["edges"].get(edge)
        if row is None:
            return []
        t.lock(x, "edges", edge)
        x.writes.append(("edges", edge, {**row, "done_version": max(row["done_version"], version)}))
        for key in [k for k in t.rows["desired"] if k[0] == edge and k[1] <= version]:
            x.writes.append(("desired", key, None))
        return []
