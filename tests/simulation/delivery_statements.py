"""Claims of webhook deliveries and what came of them: the statements of `app.webhooks.claims` and `app.webhooks.settle`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from app.webhooks import claims
from tests.simulation.tables import Row, Tables, Txn


def active(row: Row) -> bool:
    return row["state"] == "pending" or (row["state"] == "in_flight" and not row["parked"])


def first_state(t: Tables, x: Txn, call: UUID, webhook: UUID) -> str:
    """Of a new delivery: see `vx.first_state`, and, for those that are not the first of their statement, `vx.append`."""
    if any(name == "deliveries" and key[:2] == (call, webhook) for name, key, _ in x.writes):
        return "queued"
    rows = t.rows["deliveries"]
    heads = sorted(k for k in t.due if k[:2] == (call, webhook) and active(rows[k]))
    return "queued" if any(t.try_lock(x, "deliveries", key) for key in heads[:1]) else "pending"


class DeliveryStatements:
    claim_s: float

    def claim(
        self,
        t: Tables,
        x: Txn,
        me: UUID,
        limit: int,
        known: list[UUID],
        rooms: list[int],
        first: int,
        jurisdictions: list[str],
        for_s: float,
    ) -> list[Row]:
        """`for_s`: how long a claim lasts in production; here it is shorter."""
        room = dict(zip(known, rooms, strict=True))
        deliveries = t.rows["deliveries"]
        found = []
        lanes: dict[tuple[UUID, UUID], list[Row]] = {}
        for call, webhook, seq in t.due:
            lanes.setdefault((call, webhook), []).append(deliveries[(call, webhook, seq)])
        for key in sorted(t.due, key=lambda k: (deliveries[k]["next_at"], k[0].int, k[2])):
            d = deliveries[key]
            if (
                d["state"] not in ("pending", "parked")
                or d["next_at"] > x.now
                or room.get(key[1], first) <= 0
                or len(found) >= limit
            ):
                continue
            before = [b for b in lanes[key[:2]] if b["seq"] < key[2]]
            waits = any(
                b["state"] in ("pending", "queued") or (b["state"] == "in_flight" and not b["parked"])
                for b in before
            )
            if waits or not t.try_lock(x, "deliveries", key):
                continue
            overtakes = any(b["parked"] and b["state"] in ("parked", "in_flight") for b in before)
            row = {
                **d, "state": "in_flight", "claimed_by": me, "claimed_until": x.now + timedelta(seconds=self.claim_s),
                "attempts": d["attempts"] + 1, "first_at": d["first_at"] or x.now,
                "overtook": d["overtook"] or overtakes,
            }  # fmt: skip
            x.writes.append(("deliveries", key, row))
            room[key[1]] = room.get(key[1], first) - 1
            found.append({**row, "number": row["attempts"]})
        return found

    def renew(self, t: Tables, x: Txn, me: UUID) -> list[Row]:
        soon = x.now + timedelta(seconds=self.claim_s - claims.KEEP_EVERY_S)
        for key in t.due:
            d = t.rows["deliveries"][key]
            if d["state"] == "in_flight" and d["claimed_by"] == me and d["claimed_until"] < soon:
                t.lock(x, "deliveries", key)
                until = x.now + timedelta(seconds=self.claim_s)
                x.writes.append(("deliveries", key, {**d, "claimed_until": until}))
        return []

    def postpone(
        self, t: Tables, x: Txn, me: UUID, calls: list[UUID], webhooks: list[UUID], numbers: list[int]
    ) -> list[Row]:
        for key in zip(calls, webhooks, numbers, strict=True):
            d = t.rows["deliveries"].get(key)
            if d is None or d["state"] != "in_flight" or d["claimed_by"] != me:
                continue
            t.lock(x, "deliveries", key)
            back = {
                "state": "parked" if d["parked"] else "pending",
                "claimed_by": None,
                "attempts": d["attempts"] - 1,
                "first_at": d["first_at"] if d["attempts"] > 1 else None,
                "next_at": x.now + timedelta(seconds=claims.POSTPONE_S),
            }
            x.writes.append(("deliveries", key, {**d, **back}))
        return []

    def give_back(
        self, t: Tables, x: Txn, me: UUID, calls: list[UUID], webhooks: list[UUID], numbers: list[int]
    ) -> list[Row]:
        kept = set(zip(calls, webhooks, numbers, strict=True))
        for key in t.due:
            d = t.rows["deliveries"][key]
            if d["state"] == "in_flight" and d["claimed_by"] == me and key not in kept:
                t.lock(x, "deliveries", key)
                back = {
                    "state": "parked" if d["parked"] else "pending",
                    "claimed_by": None,
                    "next_at": x.now,
                    "attempts": d["attempts"] - 1,
                    "first_at": d["first_at"] if d["attempts"] > 1 else None,
                }
                x.writes.append(("deliveries", key, {**d, **back}))
        return []

    def release_expired(self, t: Tables, x: Txn) -> list[Row]:
        for key in t.due:
            d = t.rows["deliveries"][key]
            if d["state"] == "in_flight" and d["claimed_until"] < x.now and t.try_lock(x, "deliveries", key):
                state = "parked" if d["parked"] else "pending"
                x.writes.append(
                    ("deliveries", key, {**d, "state": state, "claimed_by": None, "next_at": x.now})
                )
        return []

    def delivered_events(
        self, t: Tables, x: Txn, calls: list[UUID], numbers: list[int], traced: bool
    ) -> list[Row]:
        found = (t.rows["events"].get(key) for key in zip(calls, numbers, strict=True))
        return [{**event, "trace": None} for event in found if event is not None]

    def endpoints(self, t: Tables, x: Txn, ids: list[UUID]) -> list[Row]:
        return [
            {**w, "open": w["enabled"], "verified": True, "limited": False, "mode": "test", "settings": "{}"}
            for i in ids
            if (w := t.rows["webhooks"].get(i)) is not None
        ]

    def settle(
        self, t: Tables, x: Txn, me: UUID, calls: list[UUID], webhooks: list[UUID], numbers: list[int], attempts: list[int],
        projects: list[UUID], at: list[Any], duration: list[int], status: list[Any], error: list[Any], excerpt: list[Any],
        state: list[str], next_at: list[Any], url: list[str],
    ) -> list[Row]:  # fmt: skip
        keys = list(zip(calls, webhooks, numbers, strict=True))
        for key in keys:
            if key in t.rows["deliveries"]:
                t.lock(x, "deliveries", key)
        over = set()
        for i, key in enumerate(keys):
            d = t.rows["deliveries"].get(key)
            if d is None:
                continue
            if d["claimed_by"] == me and d["attempts"] == attempts[i]:
                parked = d["parked"] or state[i] == "parked"
                done = {"state": state[i], "next_at": next_at[i], "claimed_by": None, "parked": parked}
                x.writes.append(("deliveries", key, {**d, **done}))
                if state[i] != "pending":
                    over.add(key)
        return [{"settle": self._wake(t, x, over)}]

    def _wake(self, t: Tables, x: Txn, over: set[tuple[UUID, UUID, int]]) -> int:
        """The next of each line whose active delivery is settled; how many there are."""
        woken = 0
        rows = t.rows["deliveries"]
        for line in sorted({key[:2] for key in over}, key=lambda pair: (pair[0].int, pair[1].int)):
            left = [rows[k] for k in t.due if k[:2] == line and k not in over]
            queued = sorted(r["seq"] for r in left if r["state"] == "queued")
            if queued and not any(active(r) and r["seq"] < queued[0] for r in left):
                key = (*line, queued[0])
                t.lock(x, "deliveries", key)
                x.writes.append(("deliveries", key, {**rows[key], "state": "pending", "next_at": x.now}))
                woken += 1
        return woken
